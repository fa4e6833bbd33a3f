"""The judge and the tests' own machinery, tried on a tiny house of two chapters: no green that proves nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from chapters import contents, finder, gate, skeleton

if os.geteuid():
    pytest.skip("needs root", allow_module_level=True)

ROOT = contents.ROOT

TABLE = """
[[chapter]]
number = 1
slug = "01-one"
title = "One"
status = "open"
builds_on = []
core = ["minirt.first"]
beyond = []
needs = []
minutes = 1

[[chapter]]
number = 2
slug = "02-two"
title = "Two"
status = "open"
builds_on = [1]
core = ["minirt.second"]
beyond = []
needs = []
minutes = 1

[ground]
modules = []
[roof]
modules = []
[routes]
whole = [1, 2]
"""

FILES = {
    "chapters/chapters.toml": TABLE,
    "chapters/01-one/exercises.toml": '[[exercise]]\nname = "minirt.first.one"\nhints = []\n',
    "chapters/02-two/exercises.toml": (
        '[[exercise]]\nname = "minirt.second.rename"\nhints = []\n'
        '[[exercise]]\nname = "minirt.second.two"\nhints = []\n'
    ),
    "chapters/02-two/container.py": "from minirt.second import two\nprint(two())\n",
    "minirt/__init__.py": "",
    "minirt/first.py": 'def one():\n    """Return 1. Source: getpid(2)."""\n    return 1\n',
    "minirt/second.py": (
        "import ctypes\nimport socket\n\n"
        'def rename(name):\n    """Name the host, in a UTS namespace. Source: sethostname(2), uts_namespaces(7)."""\n'
        "    ctypes.CDLL(None).unshare(0x04000000)\n    socket.sethostname(name)\n\n\n"
        'def two():\n    """Return 2. Source: getppid(2)."""\n    return 2\n'
    ),
    "tests/chapter_01_one/test_one.py": """
        import os
        import pytest
        from minirt import first

        @pytest.mark.exercise("minirt.first.one")
        def test_one():
            assert first.one() == 1, "one() must return 1"
            assert os.path.exists("/run/minirt-cage"), "this test runs outside of a cage"
    """,
    "tests/chapter_02_two/test_two.py": """
        import os
        import pytest
        from minirt import second

        def test_the_program(container):
            assert container().stdout == "2\\n", "container.py must print 2"

        @pytest.mark.exercise("minirt.second.two")
        def test_two():
            assert second.two() == 2, "two() must return 2"

        @pytest.mark.exercise("minirt.second.rename")
        def test_rename(spawn, outside):
            before = os.uname().nodename
            def renamed():
                second.rename("box")
                return os.uname().nodename
            child = spawn(renamed)
            assert child.value == "box", "the host must be named"
            assert os.uname().nodename == before, "the whole machine was renamed"

        @pytest.mark.exercise("minirt.second.rename")
        def test_the_name_before():
            assert os.uname().nodename not in ("box", "broken"), "an earlier test or answer is still felt"
    """,
}


class House:
    """A tiny project with the real machinery, and orders to its judge."""

    def __init__(self, top: Path) -> None:
        self.top = top
        for path, text in FILES.items():
            self.write(path, text)
        for file in (ROOT / "chapters").glob("*.py"):
            shutil.copy(file, top / "chapters")
        shutil.copy(ROOT / "tests" / "conftest.py", top / "tests")
        shutil.copy(ROOT / "pyproject.toml", top)
        self.environment = os.environ | {"PYTHONPATH": str(top), "PYTHONDONTWRITEBYTECODE": "1"}
        for name in ("CI", "MINIRT_CI", "MINIRT_TEST_RUN", "PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS"):
            self.environment.pop(name, None)

    def write(self, path: str, text: str) -> Path:
        file = self.top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
        return file

    def variant(self, name: str, function: str, body: str, module: str = "second") -> dict[str, str]:
        """The mapping in which one function has another body."""
        source = (self.top / f"minirt/{module}.py").read_text()
        signature = {"one": "one()", "two": "two()", "rename": "rename(name)"}[function]
        text = f"def {signature}:\n" + textwrap.indent(textwrap.dedent(body), "    ")
        text = skeleton.replace(source, function, text)
        return {f"minirt.{module}": str(self.write(f"variants/{name}.py", text))}

    def judge(self, *mappings: dict[str, str], chapter: int = 2, **more: Any) -> list[list[dict[str, Any]]]:
        """What one process of the judge reports on each mapping."""
        exercises = ["minirt.first.one"] if chapter == 1 else ["minirt.second.rename", "minirt.second.two"]
        orders = [{"chapter": chapter, "exercises": exercises, "modules": mapping, **more} for mapping in mappings]
        ran = subprocess.run(
            [sys.executable, "-B", "-m", "chapters.gate"], input="\n".join(map(json.dumps, orders)), text=True,
            capture_output=True, cwd=self.top, env=self.environment, timeout=60,
        )  # fmt: skip
        assert ran.returncode == 0, ran
        verdicts: list[list[dict[str, Any]]] = [[]]
        for line in ran.stdout.splitlines():
            verdicts[-1].append(json.loads(line))
            if verdicts[-1][-1]["event"] == "done":
                verdicts.append([])
        assert verdicts.pop() == [] and len(verdicts) == len(orders), ran
        return verdicts

    def failure(self, mapping: dict[str, str], **more: Any) -> dict[str, Any]:
        """The one failure that the judge reports."""
        (reports,) = self.judge(mapping, **more)
        assert reports[-1]["passed"] is False
        (failed,) = [report for report in reports if report["event"] in ("failed", "error")]
        assert failed["event"] == "failed", failed
        return failed

    def pytest(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-B", "-m", "pytest", "-q", *arguments]
        return subprocess.run(
            command, text=True, capture_output=True, cwd=self.top, env=self.environment | environment, timeout=60
        )


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# ----------------------------------------------------------------------------------------------------- verdicts


def test_the_reference_passes_exercise_by_exercise(house: House) -> None:
    (reports,) = house.judge({})
    told = [(report["event"], report.get("test") or report.get("exercise")) for report in reports]
    assert told == [
        ("start", "test_rename"), ("passed", "test_rename"),
        ("start", "test_the_name_before"), ("passed", "test_the_name_before"), ("exercise", "minirt.second.rename"),
        ("start", "test_two"), ("passed", "test_two"), ("exercise", "minirt.second.two"),
        ("start", "test_the_program"), ("passed", "test_the_program"),
        ("judged", None), ("done", None),
    ]  # fmt: skip
    assert reports[-1]["passed"] is True and 0 < reports[-1]["seconds"] < 30


def test_a_wrong_answer_is_told_with_sentence_place_and_manual_page(house: House) -> None:
    mapping = house.variant("wrong", "two", "return 3")
    failed = house.failure(mapping)
    assert (failed["test"], failed["exercise"]) == ("test_two", "minirt.second.two")
    assert failed["message"] == "two() must return 2"
    file = Path(mapping["minirt.second"])
    assert failed["file"] == str(file) and file.read_text().splitlines()[failed["line"] - 1].startswith("def two")
    assert failed["manual"] == ["getppid(2)"]
    assert "assert 3 == 2" in failed["details"]


def test_an_exception_is_told_with_its_line(house: House) -> None:
    mapping = house.variant("raises", "rename", 'x = 1\nraise PermissionError(1, "no")')
    failed = house.failure(mapping)
    assert failed["message"] == "PermissionError: [Errno 1] no"
    assert "raise" in Path(failed["file"]).read_text().splitlines()[failed["line"] - 1]


def test_an_empty_function_is_told_as_such(house: House) -> None:
    source = (house.top / "minirt/second.py").read_text()
    file = house.top / "variants/empty.py"
    house.write("variants/empty.py", skeleton.skeleton(source, ["rename", "two"], str(file)))
    failed = house.failure({"minirt.second": str(file)})
    assert failed["unfilled"] is True and failed["message"].startswith("rename() is not filled in")
    assert file.read_text().splitlines()[failed["line"] - 1].strip().startswith("raise NotImplementedError")


KILL = "import os\nif os.fork() == 0:\n    os.kill(-1, 9)\n    os._exit(0)\nos.wait()\n"
ENDINGS = {
    "hangs": ("import time\ntime.sleep(100)", "not finished after 2 s"),
    "kills all": (KILL + "return 2", "your code ended its own judge in test_two"),
    "exits": ("import os\nos._exit(0)", "ended with exit code 0 and without a result"),
    "comes back twice": ("import os\nif os.fork():\n    os.wait()\nreturn 2", "os._exit()"),
    "leaves a process": ("import subprocess\nsubprocess.Popen(['sleep', '100'])\nreturn 2", "process left"),
    "leaves a mount": ("import os\nos.system('mount -t tmpfs none /mnt')\nreturn 2", "mount left: tmpfs on /mnt"),
}  # fmt: skip


def test_what_an_answer_does_to_its_judge_is_told(house: House) -> None:
    verdicts = house.judge(*(house.variant(name, "two", body) for name, (body, _) in ENDINGS.items()))
    for reports, (name, (_, words)) in zip(verdicts, ENDINGS.items(), strict=True):
        (failed,) = [report for report in reports if report["event"] == "failed"]
        assert failed["exercise"] == "minirt.second.two" and words in failed["message"], (name, failed)


def test_a_hanging_answer_is_found_by_its_line_and_costs_no_more_than_one_limit(house: House) -> None:
    mapping = house.variant("hangs", "rename", "import time\nwhile True:\n    time.sleep(1)")
    (reports,) = house.judge(mapping)
    failed = next(report for report in reports if report["event"] == "failed")
    assert failed["message"] == f"not finished after 2 s, and still in line {failed['line']} of hangs.py"
    assert "sleep" in Path(failed["file"]).read_text().splitlines()[failed["line"] - 1], failed
    assert reports[-1]["seconds"] < 6


def test_a_file_that_cannot_be_imported_is_told(house: House) -> None:
    source = (house.top / "minirt/second.py").read_text()
    lines = ["import nothing_of_that_name", "def broken(:", "raise SystemExit(0)"]
    files = [house.write(f"variants/import{number}.py", f"{source}\n{line}\n") for number, line in enumerate(lines)]
    for reports, file in zip(house.judge(*({"minirt.second": str(file)} for file in files)), files, strict=True):
        (failed,) = [report for report in reports if report["event"] == "failed"]
        assert failed["file"] == str(file) and failed["line"] == len(source.splitlines()) + 2
        assert "cannot be imported" in failed["message"]


def test_an_answer_that_kills_while_it_is_imported_is_told(house: House) -> None:
    source = (house.top / "minirt/second.py").read_text()
    file = house.write("variants/import.py", source + "\n" + KILL)
    assert "your code ended its own judge while minirt.second" in house.failure({"minirt.second": str(file)})["message"]


def test_an_exercise_without_a_test_is_an_error(house: House) -> None:
    house.write("tests/chapter_01_one/test_one.py", "def test_nothing():\n    pass\n")
    (reports,) = house.judge({}, chapter=1)
    assert reports[-1]["passed"] is False
    errors = [report["message"] for report in reports if report["event"] == "error"]
    assert errors == ["no test judges minirt.first.one"]


def test_a_test_that_is_skipped_proves_nothing(house: House) -> None:
    house.write("tests/chapter_01_one/test_one.py", """
        import pytest

        @pytest.mark.exercise("minirt.first.one")
        def test_one():
            pytest.skip("not today")
    """)  # fmt: skip
    assert "proves nothing" in house.failure({}, chapter=1)["message"]


# ------------------------------------------------------------------------------------------ four ways to a false green


def test_modules_that_are_loaded_already_are_dropped(house: House, capfd: pytest.CaptureFixture[str]) -> None:
    """(1) What is in sys.modules is never looked for: a judge forked from such a process would try the reference."""
    source = contents.module_file("minirt.namespaces.uts").read_text()
    file = house.write("variants/uts.py", "")
    file.write_text(skeleton.skeleton(source, ["enter", "configure"], str(file)))
    import minirt.namespaces.uts  # noqa: F401  (loaded, on purpose)

    mapping = {"minirt.namespaces.uts": str(file)}
    with pytest.raises(ImportError, match="already imported"):
        finder.install(mapping)
    exercises = [each.name for each in contents.chapter(2).exercises]
    reports: list[dict[str, Any]] = []
    gate.judge({"chapter": 2, "exercises": exercises, "modules": mapping}, reports.append)
    failed = next(report for report in reports if report["event"] == "failed")
    assert failed["unfilled"] and failed["file"] == str(file)


def test_a_module_from_elsewhere_is_no_green(house: House) -> None:
    """(1, once more) A test that brings the reference back is found out, and so is a tree that is not ours."""
    house.write("elsewhere/minirt/__init__.py", "")
    house.write("elsewhere/minirt/first.py", "def one():\n    return 1\n")
    house.write("tests/chapter_01_one/test_one.py", f"""
        import sys
        import pytest

        def test_first():
            pass

        @pytest.mark.exercise("minirt.first.one")
        def test_one():
            import importlib
            sys.meta_path[:] = [each for each in sys.meta_path if type(each).__module__ != "chapters.finder"]
            sys.path.insert(0, "{house.top}/elsewhere")
            del sys.modules["minirt.first"], sys.modules["minirt"]
            first = importlib.import_module("minirt.first")
            assert first.one() == 1
    """)  # fmt: skip
    failed = house.failure(house.variant("wrong", "one", "return 3", "first"), chapter=1)
    assert "ImportError: minirt.first came from" in failed["message"]


def test_the_chapters_program_runs_with_the_answer(house: House) -> None:
    """(2) container.py as a script of a new interpreter would import the reference and pass with an empty answer."""
    path = str(house.top / "tests/chapter_02_two/test_two.py::test_the_program")
    (reports,) = house.judge(house.variant("wrong", "two", "return 3"), tests=path, exercises=[])
    failed = next(report for report in reports if report["event"] == "failed")
    assert failed["message"] == "container.py must print 2"


def test_another_interpreter_meets_the_answer_too(house: House) -> None:
    """(2, once more) Even a test that starts a program of its own does not see the reference."""
    house.write("tests/chapter_01_one/test_one.py", """
        import subprocess
        import sys
        import pytest

        @pytest.mark.exercise("minirt.first.one")
        def test_one():
            code = "from minirt import first; print(first.one())"
            assert subprocess.check_output([sys.executable, "-c", code]) == b"1\\n", "one() must be 1"
    """)  # fmt: skip
    assert house.judge({}, chapter=1)[0][-1]["passed"]
    assert house.failure(house.variant("wrong", "one", "return 3", "first"), chapter=1)["message"] == "one() must be 1"


def test_one_answer_does_not_spoil_the_next(house: House) -> None:
    """(3) Variants in one cage: a mistake renames the host for all those after it."""
    here = os.uname().nodename
    spoiled = house.variant("spoils", "rename", "import socket\nsocket.sethostname('broken')")
    first, second = house.judge(spoiled, {})
    assert not first[-1]["passed"] and second[-1]["passed"]
    assert os.uname().nodename == here


@pytest.mark.parametrize("argument", ["::test_one", " -k one", " -n 2"])
def test_a_test_has_its_cage_however_it_is_named(house: House, argument: str) -> None:
    """(4) A node id given to pytest ran outside of the cage that a whole chapter had."""
    if "-n" in argument:
        pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    arguments = ("tests/chapter_01_one/test_one.py" + argument).split(" ")
    ran = house.pytest(*arguments)
    assert ran.returncode == 0 and "1 passed" in ran.stdout, ran.stdout + ran.stderr


# --------------------------------------------------------------------------------------------------- the tests' gates


def test_collecting_runs_nothing(house: House) -> None:
    ran = house.pytest("--collect-only")
    assert ran.returncode == 0 and "5 tests collected" in ran.stdout


def test_chapter_n_means_chapters_0_to_n(house: House) -> None:
    house.write("tests/test_other.py", "def test_other():\n    pass\n")
    ran = house.pytest("--chapter", "1", "-v")
    assert "1 passed, 5 deselected" in ran.stdout, ran.stdout
    assert "5 passed, 1 deselected" in house.pytest("--chapter", "2").stdout


def test_a_chapter_waits_for_those_that_it_builds_on(house: House) -> None:
    house.write("minirt/first.py", "def one():\n    return 7\n")
    ran = house.pytest("-rs", MINIRT_CI="1")
    assert ran.returncode == 1
    assert "1 failed, 4 skipped" in ran.stdout, ran.stdout
    assert "chapter 2 waits: chapter 1, which it builds on, fails" in ran.stdout
    assert "does not allow" not in ran.stdout


def test_a_skip_needs_a_reason_that_is_allowed(house: House) -> None:
    house.write("tests/test_skip.py", """
        import pytest

        @pytest.mark.caged
        def test_skip():
            pytest.skip("this machine has no floppy drive")
    """)  # fmt: skip
    assert house.pytest("tests/test_skip.py").returncode == 0
    strict = house.pytest("tests/test_skip.py", CI="1")
    assert strict.returncode == 1 and "this machine has no floppy drive" in strict.stdout
    house.write("tests/allowed_skips.txt", "# what a machine may lack\n^this machine has no floppy\n")
    assert house.pytest("tests/test_skip.py", MINIRT_CI="1").returncode == 0


LEFT = {
    "process": ("subprocess.Popen(['sleep', '100'])", "process left"),
    "zombie": ("os.fork() or os._exit(0)", "nobody waited for it"),
    "mount": ("os.system('mount -t tmpfs none /mnt')", "mount left: tmpfs on /mnt"),
    "unmounted": ("os.system('umount -l /dev/shm')", "mount gone: tmpfs on /dev/shm"),
    "host name": ("socket.sethostname('x')", "host name left: x"),
    "interface": ("os.system('ip link add v0 type veth peer v1')", "interface left: v0"),
    "file": ("open('/var/lib/minirt/file', 'w').close()", "file left: /var/lib/minirt/file"),
    "run": ("os.mkdir('/run/minirt')", "file left: /run/minirt"),
    "shm": ("open('/dev/shm/file', 'w').close()", "file left: /dev/shm/file"),
    "ipc": ("os.system('ipcmk -Q')", "System V object left: msg"),
    "cgroup": ("os.mkdir(cage.hierarchies()[0].point + '/mine')", "cgroup left"),
}


def test_what_a_test_leaves_is_found(house: House) -> None:
    text = "import os, socket, subprocess\nimport pytest\nfrom chapters import cage\npytestmark = pytest.mark.caged\n"
    for number, (code, _) in enumerate(LEFT.values()):
        text += f"def test_leaves_{number}():\n    {code}\n"
        text += f"@pytest.mark.leaves('on purpose')\ndef test_may_leave_{number}():\n    {code}\n"
    text += "def test_tidy(tmp_path):\n    (tmp_path / 'file').touch()\n    subprocess.run(['true'])\n"
    house.write("tests/test_leave.py", text)
    ran = house.pytest("tests/test_leave.py")
    assert f"{2 * len(LEFT) + 1} passed, {len(LEFT)} errors" in ran.stdout, ran.stdout
    parts = ran.stdout.split("ERROR at teardown of test_leaves_")[1:]
    for part, (kind, (_, words)) in zip(parts, LEFT.items(), strict=True):
        assert words in part, (kind, part)


def test_values_steps_and_errors_of_a_child(house: House) -> None:
    house.write("tests/test_child.py", """
        import os, signal
        import pytest
        pytestmark = pytest.mark.caged

        def test_steps(spawn, outside):
            def steps():
                more = yield "first"
                yield more * 2
                return "last"
            child = spawn(steps)
            assert child.value == "first" and outside.until(lambda: outside.state(child.pid) == "S")
            assert child.resume(21) == 42 and child.resume() == "last"
            child.end()
            assert outside.state(child.pid) == ""

        def test_errors(spawn, inside):
            def wrong(): raise FileNotFoundError(2, "gone")
            with pytest.raises(FileNotFoundError): inside(wrong)
            assert isinstance(spawn(wrong).raised, FileNotFoundError)

        def test_ended(spawn, outside):
            child = spawn(lambda: os._exit(3))
            assert child.wait(5) == 3
            with pytest.raises(AssertionError, match="exit code 3"): child.value
            other = spawn(lambda: os.execvp("sleep", ["sleep", "100"]))
            assert outside.command(other.pid) == ["sleep", "100"]
            other.kill(signal.SIGTERM)
            assert other.wait(5) == -15

        def test_tree(spawn, outside):
            def family():
                if not os.fork():
                    signal.pause()
            child = spawn(family)
            assert len(outside.children(child.pid)) == 1
            child.end(tree=True)

        def test_container_needs_a_chapter(state_root):
            assert str(state_root) == "/var/lib/minirt"
    """)  # fmt: skip
    ran = house.pytest("tests/test_child.py")
    assert ran.returncode == 0, ran.stdout


def test_an_answer_that_forks_in_a_child_is_noticed(house: House) -> None:
    house.write("tests/test_child.py", """
        import os, time
        import pytest

        @pytest.mark.caged
        def test_child(inside):
            def twice():
                if not os.fork():
                    return 1
                os.wait()
                return 1
            assert inside(twice) == 1
    """)  # fmt: skip
    ran = house.pytest("tests/test_child.py")
    assert ran.returncode == 1 and "os._exit()" in ran.stdout, ran.stdout

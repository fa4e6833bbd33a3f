"""The command line as a whole: commands, groups, help, version, completion, errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from minirt.cli import completion, main

ROOT = Path(__file__).resolve().parent.parent.parent


def minirt(*words: str, status: int = 0) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-m", "minirt", *words], capture_output=True, text=True, cwd=ROOT,
                          check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def test_version():
    assert minirt("--version")[0].startswith("minirt version ")
    assert minirt("-v")[0] == minirt("--version")[0]
    shown = json.loads(minirt("version", "--format", "json")[0])
    assert shown["Client"]["Os"] == "linux"
    assert minirt("version", "-f", "{{.Client.Version}}")[0].strip() in minirt("--version")[0]


def test_help_lists_what_is_there():
    text = minirt("--help")[0]
    assert minirt()[0] == text == minirt("help")[0]
    for name in ("run", "ps", "images", "load", "version"):
        assert f"  {name} " in text
    assert "  build " not in text
    assert "Usage:  minirt run" in minirt("help", "run")[0]
    assert minirt("help", "run")[0] == minirt("run", "--help")[0]
    assert "ls " in minirt("container", "--help")[0]
    assert "--volume-driver" in minirt("help", "differences")[0]
    assert "\n  exec " not in minirt("help", "differences")[0]


def test_groups_lead_to_the_same_commands():
    assert minirt("container", "ls", "--help")[0] == minirt("ps", "--help")[0]
    assert minirt("image", "ls", "--help")[0] == minirt("images", "--help")[0]
    assert "unknown command: minirt container nosuch" in minirt("container", "nosuch", status=1)[1]


def test_what_is_not_there_is_said():
    assert minirt("build", ".", status=1)[1] == "minirt: 'build' arrives with chapter 18, build\n"
    assert "search' is not supported: registries cannot be searched" in minirt("search", "x", status=1)[1]
    assert "\n  manifest  " not in minirt("help", "differences")[0]
    assert "unknown command: minirt nosuch" in minirt("nosuch", status=1)[1]
    assert "unknown flag: --nosuch" in minirt("--nosuch", status=125)[1]


def test_what_is_quoted_does_not_command_the_terminal():
    told = minirt("x\x1b[2J\x9b\x07é\n", status=1)[1]
    assert told.startswith("minirt: unknown command: minirt x\\x1b[2J\\x9b\\x07é\n")
    assert "\\x1b]0;t" in minirt("inspect", "\x1b]0;t", status=1)[1]


def test_who_closes_a_stream_wants_no_output_and_the_code_stays():
    for closed in (">&-", "2>&-", "<&-", "<&- >&- 2>&-"):
        script = f'"$0" -m minirt version {closed}; test $? = 0 && ! "$0" -m minirt rm nosuch {closed}'
        subprocess.run(["sh", "-c", script, sys.executable], cwd=ROOT, check=True, capture_output=True)


def test_a_full_disk_behind_stdout_is_told():
    for words in ("version", "help", "run --help"):
        with open("/dev/full", "w") as full:
            done = subprocess.run([sys.executable, "-m", "minirt", *words.split()], stdout=full, stderr=subprocess.PIPE,
                                  text=True, cwd=ROOT, check=False)
        assert (done.returncode, done.stderr) == (1, "minirt: No space left on device: standard output\n"), words


def test_every_command_in_the_table_has_its_module_and_its_place_in_the_help():
    listed = {name for _, rows in main.SUMMARIES for name, _ in rows}
    for name in main.MODULES:
        command = main.load(name)
        assert command is not None, name
        assert command.name == name
        assert name in listed or " " in name or name == "completion"
    for _, members in main.GROUPS.values():
        assert set(members.values()) <= set(main.MODULES)


def test_only_the_chosen_module_is_imported():
    code = (
        "import sys; sys.argv = ['minirt', 'ps', '--help']\n"
        "from minirt.cli.main import main\n"
        "main(sys.argv[1:]); print(*[name for name in sys.modules if name.startswith('minirt.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stderr.split())
    assert "minirt.cli.ps" in loaded
    assert not loaded & {"minirt.cli.images", "minirt.cli.run", "minirt.process.launch", "minirt.cli.version"}


HEAVY = {"json", "re", "enum", "typing", "signal", "socket", "subprocess", "argparse", "dataclasses", "pathlib",
         "shutil", "threading", "random", "datetime", "traceback", "functools", "collections", "tempfile", "hashlib"}


@pytest.mark.parametrize(("modules", "others"), [
    # the command, before and after it forks its monitor
    (("minirt.containers.birth", "minirt.cli.run", "minirt.containers.client", "minirt.containers.create",
      "minirt.containers.files", "minirt.images.ready"), ("minirt.namespaces", "minirt.cgroups", "minirt.seccomp")),
    # the monitor: the tables of a filter would stay in its memory
    (("minirt.containers.birth", "minirt.containers.monitor"), ("minirt.cli", "minirt.seccomp.compiler",
                                                                "minirt.seccomp.policy", "minirt.images"))])
def test_command_and_monitor_leave_each_other_their_part(modules, others):
    code = f"import sys\nfor name in {modules!r}: __import__(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not [name for name in done.stdout.split() if name.startswith(others)]


@pytest.mark.parametrize(
    "modules",
    [
        ("minirt.cli.main", "minirt.cli.run", "minirt.containers.client", "minirt.containers.create",
         "minirt.images.ready", "minirt.containers.specify", "minirt.containers.monitor", "minirt.process.launch",
         "minirt.cgroups.tree", "minirt.containers.traffic", "minirt.containers.repair"),
        ("minirt.cli.main", "minirt.cli.ps", "minirt.cli.logs", "minirt.containers.show_log"),
        ("minirt.cli.main", "minirt.cli.containers", "minirt.containers.stop", "minirt.containers.remove"),
        ("minirt.cli.main", "minirt.cli.exec", "minirt.containers.execute"),
    ],
)
def test_the_hot_path_imports_nothing_heavy(modules):
    code = f"import sys\nfor name in {modules!r}: __import__(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
                          capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & HEAVY


def test_the_completion_script_completes(tmp_path):
    script = tmp_path / "minirt.bash"
    script.write_text(completion.bash())

    def complete(*words: str) -> list[str]:
        quoted = " ".join(f"'{word}'" for word in words)
        names = "case $1 in images) echo box:1; echo 'box:<none>' ;; ps) echo a_box ;; esac"
        code = (f"source {script}; compopt() {{ :; }}; minirt() {{ {names}; }}; "
                f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _minirt; "
                'echo "${COMPREPLY[*]}"')
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert complete("minirt", "ru") == ["run"]
    assert complete("minirt", "run", "--host") == ["--hostname"]
    assert complete("minirt", "--explain", "run", "--shm") == ["--shm-size"]
    assert complete("minirt", "container", "l") == ["ls", "list", "logs"]
    assert complete("minirt", "container", "ls", "--no") == ["--no-trunc"]
    for command in ("push", "history", "save", "rmi"):
        assert complete("minirt", command, "b") == ["box:1"]
    assert complete("minirt", "run", "box:1", "b") == []
    assert complete("minirt", "rmi", "box:1", "b") == ["box:1"]
    assert complete("minirt", "inspect", "") == ["a_box", "box:1"]
    assert complete("minirt", "ps", "-") == complete("minirt", "container", "ls", "-")

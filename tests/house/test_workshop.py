"""The workshop as three beginners use it: one who gets it right, one who is sloppy, one who destroys things.

Each test is an ordinary user with sudo and a checkout of their own, on a machine of their own (a cage). The judge makes
its cages inside that one.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from chapters import cage, contents, skeleton, tree
from chapters.workspace import Workspace

pytestmark = [pytest.mark.caged, pytest.mark.limit(120), pytest.mark.leaves("an ordinary user, and a state root")]

ENTER = 'def enter() -> None:\n    """x"""\n    syscalls.unshare(CLONE_NEWUTS)\n'
MODULE = "minirt.namespaces.uts"


class Learner:
    """An ordinary user named learner, who has cloned minirt into their home."""

    def __init__(self) -> None:
        subprocess.run(["useradd", "--create-home", "learner"], check=True)
        Path("/etc/sudoers.d/learner").write_text("learner ALL=(ALL) NOPASSWD: ALL\n")
        # An interpreter or an environment in root's home is nobody else's.
        for directory in {*Path(sys.base_prefix).parents, *Path(sys.prefix).parents}:
            directory.chmod(directory.stat().st_mode | 0o055)
        self.checkout = Path("/home/learner/minirt")
        tree.write(21, self.checkout)
        self.uid = pwd.getpwnam("learner").pw_uid
        subprocess.run(["chown", "-R", "learner:", self.checkout], check=True)
        self.file = self.checkout / "workspace/minirt/namespaces/uts.py"

    def __call__(self, *words: str, sudo: bool = False, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """python -m chapters WORDS, typed by the learner in the checkout."""
        return self.command(sys.executable, "-m", "chapters", *words, stdin=stdin, sudo=sudo)

    def command(self, *command: str, stdin: str = "", sudo: bool = False) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/home/learner", "LANG": "C.UTF-8"}
        return subprocess.run(
            [*(["sudo", "-n"] if sudo else []), *command],
            cwd=self.checkout, env=environment, input=stdin, capture_output=True, text=True, timeout=110, check=False,
            user="learner", group="learner", extra_groups=[], umask=0o002,
        )  # fmt: skip

    def write(self, function: str, text: str) -> None:
        """Put a function into the workspace, as an editor would: as the learner, by replacing the file."""
        new = skeleton.replace(self.file.read_text(), function, text)
        self.save(new)

    def save(self, text: str) -> None:
        done = self.command("sh", "-c", f"cat > {self.file}.tmp && mv {self.file}.tmp {self.file}", stdin=text)
        assert done.returncode == 0, done.stderr

    def solve(self) -> None:
        """Write down the right answers."""
        reference = contents.module_file(MODULE).read_text()
        for name in ("enter", "configure"):
            self.write(name, skeleton.solution(reference, name))

    def roots_files(self) -> list[str]:
        """What in the checkout does not belong to the learner."""
        return [str(path) for path in self.checkout.rglob("*") if path.lstat().st_uid != self.uid]


@pytest.fixture
def learner() -> Iterator[Learner]:
    assert cage.inside()
    yield Learner()


def said(done: subprocess.CompletedProcess[str], *texts: str) -> None:
    """Fail unless each of these texts was printed; white space does not matter."""
    everything = " ".join((done.stdout + done.stderr).split())
    for text in texts:
        assert text in everything, done.stdout + done.stderr


# -- the one who gets it right -----------------------------------------------------------------------------------


def test_from_start_to_done(learner: Learner) -> None:
    said(learner("start", "2"), "workspace/minirt/namespaces/uts.py:25 enter()", "chapters/02-uts/README.md")
    done = learner("check")
    assert done.returncode == 1
    said(done, "NO enter", "enter() is not filled in yet", "workspace/minirt/namespaces/uts.py:32", "unshare(2)")

    learner.write("enter", ENTER)
    done = learner("check", "2")
    said(done, "ok enter", "NO configure", "configure() is not filled in yet", "(man 2 sethostname)")
    said(learner("list", "--route", "evening"), "> 02 UTS: a name of its own 25 min 1 of 2 done, now configure()")

    learner.solve()
    done = learner("check")
    assert done.returncode == 0, done.stdout + done.stderr
    said(done, "ok enter ok configure All right")
    said(learner("list"), "25 min done")
    assert learner("run", "2", "--", "--hostname", "tent", "hostname").stdout == "tent\n"
    assert learner.roots_files() == []


def test_a_start_takes_nothing_away(learner: Learner) -> None:
    learner("start", "2")
    learner.write("enter", ENTER)
    said(learner("start", "2"), "your work stays as it is")
    assert "syscalls.unshare(CLONE_NEWUTS)" in learner.file.read_text()


def test_a_change_after_the_check_is_not_taken_for_solved(learner: Learner) -> None:
    learner("start", "2")
    learner.solve()
    learner("check")
    learner.write("enter", ENTER.replace("CLONE_NEWUTS)", "0)"))
    said(learner("list"), "1 of 2 done, now enter()")


def test_hints_come_one_by_one_and_the_solution_when_asked(learner: Learner) -> None:
    learner("start", "2")
    first, second = learner("hint").stdout, learner("hint", "2", "enter").stdout
    assert "  1. " in first and "  2. " not in first
    assert "  1. " in second and "  2. " in second
    said(learner("solution", "2", "configure"), "def configure(", 'syscalls.call("sethostname"')
    said(learner("solution", "--write"), "enter() in workspace/minirt/namespaces/uts.py is the book's own now")
    assert learner("check").returncode == 0


def test_reset_gives_the_empty_function_back_and_keeps_the_old_one(learner: Learner) -> None:
    learner("start", "2")
    learner.solve()
    said(learner("reset", "2", "enter"), "uts.py.old")
    text = learner.file.read_text()
    assert not skeleton.is_filled_in(text, "enter") and skeleton.is_filled_in(text, "configure")
    assert skeleton.is_filled_in(learner.file.with_name("uts.py.old").read_text(), "enter")
    learner("reset", "2")
    assert not skeleton.is_filled_in(learner.file.read_text(), "configure")
    assert learner.roots_files() == []


def test_watch_checks_when_the_file_is_saved_and_ends_when_all_is_right(learner: Learner) -> None:
    learner("start", "2")
    watching = subprocess.Popen(
        ["runuser", "-u", "learner", "--", sys.executable, "-u", "-m", "chapters", "watch", "2"],
        cwd=learner.checkout, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert watching.stdout
    lines = iter(watching.stdout)
    assert next(line for line in lines if "watching" in line)
    learner.solve()
    assert next(line for line in lines if "All right" in line)
    assert watching.wait(10) == 0


def test_the_shell_is_a_cage_with_the_projects_commands(learner: Learner) -> None:
    done = learner("shell", stdin="hostname gone; rm -rf /etc; minirt --version; pwd; id -u; exit 3\n")
    assert done.returncode == 3, done.stderr
    assert done.stdout.splitlines()[0].startswith("minirt version")
    assert done.stdout.splitlines()[1:] == [str(learner.checkout), "0"]
    assert os.uname().nodename != "gone" and Path("/etc/passwd").exists()


# -- the sloppy one ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentences"),
    [
        (("unshare(CLONE_NEWUTS)\n", "unshare(CLONE_NEWUTS\n"), ["Python cannot read this line", "uts.py:28"]),
        (("    syscalls.unshare", "   syscalls.unshare"), ["Python cannot read this line", "unindent"]),
        (("def enter()", "def entre()"), ["there is no 'enter' in this file any more", "reset 2 enter"]),
        (("syscalls.unshare(CLONE_NEWUTS)", "syscalls.unshare(CLONE_NEW)"), ["NameError", "CLONE_NEW", "uts.py:28"]),
        (("import os\n", "import oss\n"), ["uts.py cannot be imported", "oss"]),
        (("syscalls.unshare(CLONE_NEWUTS)", "pass"), ["you are still in the machine's UTS namespace"]),
        (("syscalls.unshare(CLONE_NEWUTS)", "return syscalls.unshare(CLONE_NEWUTS) or 7"), ["enter() returns nothing"]),
    ],
)
def test_a_slip_is_named_in_words_with_file_and_line(
    learner: Learner, change: tuple[str, str], sentences: list[str]
) -> None:
    learner("start", "2")
    learner.write("enter", ENTER)
    learner.save(learner.file.read_text().replace(*change))
    done = learner("check")
    assert done.returncode == 1
    said(done, "NO enter", "workspace/minirt/namespaces/uts.py", *sentences)
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["check"], "no chapter is started yet"),
        (["check", "2"], "chapter 2 is not started yet: python -m chapters start 2"),
        (["start", "0"], "has no exercises: read chapters/00-what-is-a-container/README.md"),
        (["start", "18"], "is planned"),
        (["start", "77"], "there is no chapter 77"),
        (["use"], "your workspace is empty"),
        (["use", "2"], "chapter 2 is not started yet"),
        (["hint", "2", "leave"], "its exercises: enter, configure"),
        (["list", "--route", "night"], "there is no route 'night'; there are: evening, day, whole"),
        (["tree", "2", "/usr"], "not empty"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(learner: Learner, words: list[str], sentence: str) -> None:
    done = learner(*words)
    assert done.returncode == 1
    said(done, sentence)
    assert "Traceback" not in done.stderr


def test_an_interpreter_without_pytest_is_not_the_answers_fault(learner: Learner) -> None:
    learner("start", "2")
    Path(pytest.__file__).unlink()
    done = learner("check")
    assert done.returncode == 1
    said(done, "the judge has not even begun", "needs pytest")
    assert "NO" not in done.stdout


def test_a_chapter_that_uses_a_library_says_how_to_install_it(learner: Learner) -> None:
    learner("start", "14")
    learner("solution", "14", "--write")
    shutil.rmtree(Path(requests.__file__).parent)
    for command in (["check"], ["run", "14"]):
        done = learner(*command)
        assert done.returncode == 1
        said(done, "chapter 14", "requests", "make workshop")
        assert "Traceback" not in done.stderr


def test_without_a_password_free_sudo_it_says_what_to_type(learner: Learner) -> None:
    learner("start", "2")
    Path("/etc/sudoers.d/learner").unlink()
    done = learner("check")
    assert done.returncode == 1
    said(done, "needs root", "sudo -v")


def test_run_does_not_run_what_is_not_filled_in_and_not_on_the_machine_by_itself(learner: Learner) -> None:
    learner("start", "2")
    done = learner("run", "2", "--", "true")
    assert done.returncode == 125
    said(done, "workspace/minirt/namespaces/uts.py:32: enter() is not filled in yet")
    learner.solve()
    mapping = f'{{"{MODULE}": "{learner.file}"}}'
    Path(cage.MARK).rename(cage.MARK + ".away")  # this test's own machine is a cage
    arguments = ["-m", "chapters.session", "container", "2", mapping]
    done = learner.command(sys.executable, *arguments, "--", "hostname", sudo=True)
    assert done.returncode == 125
    said(done, "only with --on-host")
    done = learner("run", "2", "--on-host", "--", "--hostname", "tent", "hostname")
    assert done.stdout == "tent\n"


# -- the one who destroys things ---------------------------------------------------------------------------------


@pytest.mark.memory(3072)  # more than the cage of the judge within, so that it is that one which stops a bomb
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("os.kill(-1, 9)", "your code ended its own judge"),
        ("os._exit(0)", "before its function returned"),
        ("while True: pass", "not finished after 2 s"),
        ("os.system('rm -rf /etc /usr /home 2>/dev/null')", ""),
        ("[os.fork() for _ in range(20)]", ""),
        ("bytearray(1 << 32)", ""),
        ("syscalls.call('sethostname', b'gone', 4)", "UTS namespace"),
        ("os.system('umount -l /')", ""),
    ],
)
def test_destruction_stays_in_the_cage(learner: Learner, body: str, sentence: str) -> None:
    learner("start", "2")
    learner.write("enter", f"def enter() -> None:\n    {body}\n")
    text, name = learner.file.read_text(), os.uname().nodename
    files = len(list(Path("/etc").rglob("*")))
    done = learner("check")
    assert done.returncode == 1, done.stdout + done.stderr
    said(done, "NO enter", sentence)
    assert "Traceback" not in done.stdout + done.stderr
    assert learner.file.read_text() == text
    assert os.uname().nodename == name
    assert len(list(Path("/etc").rglob("*"))) == files
    assert learner.roots_files() == []


def test_after_destruction_the_next_check_works(learner: Learner) -> None:
    learner("start", "2")
    learner.write("enter", "def enter() -> None:\n    os.system('rm -rf /etc /usr/share')\n    os.kill(-1, 9)\n")
    assert learner("check").returncode == 1
    learner.solve()
    assert learner("check").returncode == 0


# -- use and leave -----------------------------------------------------------------------------------------------

CONFIGURE = '''\
def configure(hostname: str, domainname: str = "") -> None:
    """x"""
    name = os.fsencode(hostname) + b"-by-learner"
    syscalls.call("sethostname", name, len(name))
'''


def test_after_use_minirt_run_does_what_the_participants_functions_do(learner: Learner) -> None:
    made = learner.command(sys.executable, "-B", "-m", "minirt.images.hello", sudo=True)
    assert made.returncode == 0, made.stderr
    run = [sys.executable, "-B", "-m", "minirt", "run", "--rm", "--hostname", "box", "hello-world"]
    run += ["cat", "/proc/sys/kernel/hostname"]
    assert learner.command(*run, sudo=True).stdout == "box\n"

    learner("start", "2")
    learner("use")
    done = learner.command(*run, sudo=True)
    assert (done.returncode, done.stdout) == (125, "")
    said(done, "workspace/minirt/namespaces/uts.py:32: enter() is not filled in yet")
    assert "Traceback" not in done.stderr

    learner.write("enter", ENTER)
    learner.write("configure", CONFIGURE)
    done = learner.command(*run, sudo=True)
    assert done.stdout == "box-by-learner\n"
    said(done, "running your functions from /home/learner/minirt/workspace")

    learner.write("configure", CONFIGURE.replace("os.fsencode(hostname)", "hostname"))
    done = learner.command(*run, sudo=True)
    assert (done.returncode, done.stdout) == (125, "")
    said(done, "TypeError", f"{learner.file}:")
    assert "Traceback" not in done.stderr

    learner.save("def enter(:\n")
    done = learner.command(*run, sudo=True)
    assert (done.returncode, done.stdout) == (125, "")
    said(done, f"{learner.file}:1: Python cannot read this line")

    learner("leave")
    done = learner.command(*run, sudo=True)
    assert done.stdout == "box\n"
    assert "running your functions" not in done.stderr


WHICH = "from minirt import workshop; workshop.activate(); from minirt.namespaces import uts; print(uts.__file__)"


@pytest.fixture
def which(learner: Learner) -> Callable[[], subprocess.CompletedProcess[str]]:
    """What root's minirt would take for minirt.namespaces.uts."""
    return lambda: learner.command(sys.executable, "-B", "-c", WHICH, sudo=True)


def test_after_use_the_real_minirt_runs_the_participants_functions(
    learner: Learner, which: Callable[[], subprocess.CompletedProcess[str]]
) -> None:
    learner("start", "2")
    learner.solve()
    said(learner("use"), "minirt run by root now runs your functions of", "not all of it passes its check")
    done = which()
    assert done.stdout == f"{learner.file}\n"
    said(done, "running your functions from /home/learner/minirt/workspace")
    version = learner.command(sys.executable, "-B", "-m", "minirt", "--version", sudo=True)
    said(version, "minirt version", "running your functions")
    assert learner.roots_files() == []
    assert learner("leave").returncode == 0
    done = which()
    assert done.stdout == f"{learner.checkout}/minirt/namespaces/uts.py\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("chmod o+w {file}", "anybody may write"),
        ("chmod o+w {directory}", "anybody may write"),
        ("chown nobody {file}", "belongs to somebody else"),
        ("mv {file} {file}.x; ln -s {file}.x {file}", "is not a plain file"),
        ("chgrp users {file}; usermod -aG users nobody; chmod g+w {file}", "a group may write"),
    ],
)
def test_a_workspace_that_others_can_write_is_not_run(
    learner: Learner, which: Callable[[], subprocess.CompletedProcess[str]], damage: str, reason: str
) -> None:
    learner("start", "2")
    learner("use")
    command = damage.format(file=learner.file, directory=learner.file.parent)
    subprocess.run(command, shell=True, check=True)
    done = which()
    assert done.stdout == f"{learner.checkout}/minirt/namespaces/uts.py\n"
    said(done, "is not used", reason)
    if not learner.file.is_symlink():  # `use` takes the file that the link leads to
        assert learner("use").returncode == 1


def test_a_private_group_and_a_sticky_directory_are_trusted(
    learner: Learner, which: Callable[[], subprocess.CompletedProcess[str]]
) -> None:
    elsewhere = Path(tempfile.mkdtemp(dir="/tmp")) / "mine"
    shutil.chown(elsewhere.parent, "learner")
    learner("--workspace", str(elsewhere), "start", "2")
    file = elsewhere / "minirt/namespaces/uts.py"
    assert file.stat().st_mode & 0o020, "umask 0002 lets the user's own group write"
    said(learner("--workspace", str(elsewhere), "use"), "now runs your functions")
    assert which().stdout == f"{file}\n"


def test_a_function_that_is_not_filled_in_is_a_sentence(learner: Learner) -> None:
    learner("start", "2")
    learner("use")
    code = "from minirt import workshop; workshop.activate()\nfrom minirt.namespaces import uts\n" \
           "try: uts.enter()\nexcept NotImplementedError as error: print(workshop.explain(error))"
    done = learner.command(sys.executable, "-B", "-c", code, sudo=True)
    assert done.stdout == f"{learner.file}:32: enter() is not filled in yet\n"


def test_clean_takes_everything_away(learner: Learner) -> None:
    learner("start", "2")
    learner("use")
    said(learner("clean"), "`use` is off", "Your answers stay in workspace")
    assert learner.file.exists()
    learner("clean", "--answers")
    assert not (learner.checkout / "workspace").exists()
    assert list(Path("/run/minirt").rglob("workspace")) == []


# -- the workspace itself, without a judge -----------------------------------------------------------------------


def test_a_newer_source_is_noticed(learner: Learner) -> None:
    learner("start", "2")
    workspace = Workspace(learner.checkout / "workspace", learner.checkout)
    chapter = contents.read(learner.checkout).chapter(2)
    assert workspace.outdated(chapter) == []
    source = contents.module_file(MODULE, learner.checkout)
    source.write_text(source.read_text() + "# newer\n")
    assert workspace.outdated(chapter) == [MODULE]


def test_an_earlier_chapter_counts_only_as_it_passed(learner: Learner) -> None:
    learner("start", "2")
    learner.solve()
    later = contents.read(learner.checkout).chapter(3)

    def trusted() -> list[str]:
        return list(Workspace(learner.checkout / "workspace", learner.checkout).trusted(later))

    assert trusted() == []
    learner("check")
    assert trusted() == [MODULE]
    learner.save(learner.file.read_text() + "# touched\n")
    assert trusted() == []

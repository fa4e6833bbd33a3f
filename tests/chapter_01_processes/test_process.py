"""Chapter 01: how a process begins, becomes another program, and ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chapters import cage
from minirt.kernel import process, syscalls

FORK, CODE, DEATH, CLONE, EXEC = (
    f"minirt.kernel.process.{name}" for name in ("fork_call", "exit_code", "die_with_parent", "clone3", "execute")
)
CLONE_NEWUTS = 0x04000000


def raw_status(pid: int) -> int:
    return os.waitpid(pid, 0)[1]


def fork(function: Callable[[], Any]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(70)
    return pid


# ------------------------------------------------------------------------------------------------------------ fork_call


def forked(function: Callable[[], Any]) -> int:
    """Call fork_call; a child that comes back from it is stopped here, and told of."""
    me = os.getpid()
    ours, theirs = os.pipe()
    way = b"by returning"
    pid = 0
    try:
        pid = process.fork_call(function)
    except BaseException as error:
        if os.getpid() == me:
            raise
        way = f"by raising {type(error).__name__}".encode()
    if os.getpid() != me:
        os.write(theirs, way)
        os._exit(70)
    os.close(theirs)
    back = os.read(ours, 100).decode()
    os.close(ours)
    assert not back, (
        f"the child came back to its caller {back}, and now two processes run the caller's program: "
        "a child must end itself with os._exit(), whatever happens; put that into `finally:`"
    )
    return pid


@pytest.mark.exercise(FORK)
def test_the_function_runs_in_a_child(outside: Any) -> None:
    theirs, ours = os.pipe()

    def tell() -> None:
        os.write(ours, f"{os.getpid()} {os.getppid()}\n".encode())

    pid = forked(tell)
    assert isinstance(pid, int), f"fork_call() returned {pid!r}: in the parent it must return the child's pid"
    runs = [tuple(map(int, line.split())) for line in os.read(theirs, 100).decode().splitlines()]
    child, parent = runs[0]
    assert os.getpid() not in [each for each, _ in runs], (
        "the function ran in the parent: os.fork() returns 0 in the child and the child's pid, a number above 0, "
        "in the parent"
    )
    assert (child, parent) == (pid, os.getpid()), f"fork_call() returned {pid}, but process {child} ran the function"
    raw_status(pid)


@pytest.mark.exercise(FORK)
def test_the_child_ends_with_the_functions_number_and_none_is_0() -> None:
    found = raw_status(forked(lambda: 7))
    assert found == 7 << 8, (
        f"the function returned 7 and the child ended with {found >> 8}: "
        "the child must end with the number that the function returned, os._exit(code)"
    )
    found = raw_status(forked(lambda: None))
    assert found == 0, f"the function returned None and the child ended with {found >> 8}: None counts as 0"


@pytest.mark.exercise(FORK)
def test_it_forks_by_the_fork_it_was_given() -> None:
    asked: list[int] = []

    def fork_told() -> int:
        asked.append(os.getpid())
        return os.fork()

    pid = process.fork_call(lambda: len(asked), fork=fork_told)
    assert asked == [os.getpid()], (
        f"the `fork` that it was given was called {len(asked)} times, and must be called once: it stands for os.fork, "
        "and in chapter 03 it makes a child that os.fork could not"
    )
    assert raw_status(pid) == 1 << 8


@pytest.mark.exercise(FORK)
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt], ids=lambda kind: kind.__name__)
def test_an_exception_ends_the_child_with_1_and_is_shown(kind: type[BaseException]) -> None:
    theirs, ours = os.pipe()

    def fail() -> None:
        sys.stderr = open(ours, "w", buffering=1)
        raise kind("the child's own trouble")

    status = raw_status(forked(fail))
    os.close(ours)
    shown = os.read(theirs, 1 << 16).decode()
    os.close(theirs)
    assert status == 1 << 8, f"an exception of the function must end the child with 1, not with status {status:#x}"
    assert "the child's own trouble" in shown, (
        f"the function raised {kind.__name__}, and nobody learns why the child failed: the traceback of any exception "
        "(BaseException) belongs on stderr; sys.excepthook(type(error), error, error.__traceback__) prints it"
    )


@pytest.mark.exercise(FORK)
def test_the_child_does_not_carry_out_what_the_parent_has_planned(tmp_path: Path, inside: Callable[..., Any]) -> None:
    lock = tmp_path / "lock"

    def parent() -> bool:
        lock.touch()
        try:
            raw_status(forked(lambda: 0))
            return lock.exists()
        finally:
            lock.unlink(missing_ok=True)

    assert inside(parent) is True, (
        "the child carried out the `finally:` of its parent and removed the parent's file: "
        "a child must end itself with os._exit()"
    )


# ------------------------------------------------------------------------------------------------------------ exit_code


@pytest.mark.exercise(CODE)
def test_a_process_that_called_exit() -> None:
    for number in (0, 1, 42, 255):
        status = raw_status(fork(lambda number=number: os._exit(number)))  # type: ignore[misc]
        found = process.exit_code(status)
        assert found != status or not number, (
            f"exit_code({status:#06x}) returned {found}, which is the whole status: the exit code is in bits 8 to 15"
        )
        assert found == number, f"the process called exit({number}); exit_code({status:#06x}) returned {found!r}"


@pytest.mark.exercise(CODE)
def test_a_process_that_a_signal_killed() -> None:
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP):
        pid = fork(signal.pause)
        os.kill(pid, number)
        status = raw_status(pid)
        found = process.exit_code(status)
        assert found != 0, (
            f"signal {number} killed the process and exit_code({status:#06x}) returned 0, which would look like "
            "success: bits 0 to 6 have the signal"
        )
        assert found == 128 + number, (
            f"exit_code({status:#06x}) returned {found!r} for a process that signal {number} killed; "
            f"as a shell tells it that is 128 + {number:d} = {128 + number}"
        )


@pytest.mark.exercise(CODE)
def test_a_core_file_does_not_change_the_code() -> None:
    status = signal.SIGSEGV | 0x80
    found = process.exit_code(status)
    assert found == 139, (
        f"exit_code({status:#06x}) returned {found!r}, but signal 11 is 139: bit 7 only says that a core file was "
        "written, so the signal is status & 0x7F"
    )


# ------------------------------------------------------------------------------------------------------ die_with_parent


def grandchild(number: int | None, theirs: int) -> Any:
    """A child that forks one of its own; that one asks to be signalled at its parent's end and says what came."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            if number is None:
                process.die_with_parent()
            else:
                process.die_with_parent(number)
            os.write(theirs, b"ready ")
            os.write(theirs, f"got signal {signal.sigtimedwait([signal.SIGTERM], 1.0)!s}".encode())
        except BaseException as error:
            os.write(theirs, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    return pid


@pytest.mark.exercise(DEATH)
def test_a_process_dies_with_its_parent(spawn: Callable[..., Any], outside: Any) -> None:
    ours, theirs = os.pipe()
    parent = spawn(grandchild, None, theirs)
    pid = parent.value
    said = os.read(ours, 1000).decode()
    kind, _, text = said.partition(": ")
    if kind == "NotImplementedError":
        raise NotImplementedError(text)
    assert said.startswith("ready"), (
        f"die_with_parent() raised {said}: the arguments of prctl(2) are five numbers, and what to set comes "
        "first: PR_SET_PDEATHSIG, the signal, 0, 0, 0"
    )
    parent.kill()
    parent.wait()
    gone = outside.until(lambda: outside.state(pid) in ("", "Z"), 0.5)
    assert gone, (
        "the parent was killed and its child is still alive: ask the kernel for a signal with prctl(2) and "
        "PR_SET_PDEATHSIG, in the process itself; it holds for the process that asks, not for its children, "
        "nor for its parent"
    )


@pytest.mark.exercise(DEATH)
def test_a_process_gets_the_signal_that_it_asked_for(spawn: Callable[..., Any]) -> None:
    ours, theirs = os.pipe()
    parent = spawn(grandchild, signal.SIGTERM, theirs)
    assert parent.value and os.read(ours, 6) == b"ready "
    os.close(theirs)
    parent.kill()
    parent.wait()
    said = os.read(ours, 1000).decode()
    assert f"si_signo={signal.SIGTERM:d}" in said, (
        f"die_with_parent({signal.SIGTERM:d}) was called, the parent ended, and the process {said or 'was killed'}: "
        "pass on the signal that was asked for"
    )


@pytest.mark.exercise(DEATH)
def test_what_the_kernel_refuses_is_an_error(inside: Callable[..., Any]) -> None:
    def ask_for_nonsense() -> str:
        try:
            process.die_with_parent(999)
        except OSError as error:
            return f"OSError {error.errno}"
        return "nothing"

    answer = inside(ask_for_nonsense)
    assert answer == "OSError 22", (
        f"there is no signal 999, the kernel said so (EINVAL), and die_with_parent() raised {answer}: let the OSError "
        "out, or the caller believes that it is bound to its parent"
    )


# --------------------------------------------------------------------------------------------------------------- clone3


def born(flags: int = 0, cgroup: int = -1, stay: bool = True) -> tuple[int, int, tuple[Any, ...]]:
    """Call clone3; return what the parent got and, through a pipe, what the child got. The child stays until killed."""
    ours, theirs = os.pipe()
    me = os.getpid()
    pair = process.clone3(flags, cgroup)
    if os.getpid() != me:
        os.write(theirs, repr(pair).encode())
        if stay:
            signal.pause()
        os._exit(9)
    assert isinstance(pair, tuple) and len(pair) == 2, (
        f"clone3() returned {pair!r} in the parent: it must return two numbers, (pid, pidfd)"
    )
    os.close(theirs)
    said = os.read(ours, 1000)
    os.close(ours)
    return pair[0], pair[1], eval(said)


@pytest.mark.exercise(CLONE)
def test_the_parent_gets_pid_and_pidfd_and_the_child_neither(outside: Any) -> None:
    pid, pidfd, theirs = born()
    assert outside.children(os.getpid()) == [pid]
    assert theirs == (0, -1), (
        f"clone3() returned {theirs!r} in the child: the child must get (0, -1), or both go on as the parent"
    )
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError as error:
        os.kill(pid, signal.SIGKILL)
        pytest.fail(
            f"the second number, {pidfd}, is no pidfd of the child ({error}): CLONE_PIDFD among the flags makes the "
            "kernel write one to the address in the field pidfd"
        )
    os.close(pidfd)
    try:
        assert raw_status(pid) == signal.SIGKILL
    except ChildProcessError:
        pytest.fail("the parent cannot wait for its child: the field exit_signal must be SIGCHLD")


@pytest.mark.exercise(CLONE)
def test_the_child_is_born_in_new_namespaces(outside: Any) -> None:
    pid, pidfd, _ = born(CLONE_NEWUTS)
    entered = outside.entered(pid)
    os.kill(pid, signal.SIGKILL)
    raw_status(pid)
    os.close(pidfd)
    assert entered == {"uts"}, (
        "clone3(CLONE_NEWUTS): the child is born in our own UTS namespace, or in more than one new: "
        "its flags go into the field flags"
    )


@pytest.mark.exercise(CLONE)
def test_the_child_is_born_in_the_cgroup(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_DIRECTORY)
    try:
        pid, pidfd, _ = born(0, directory, stay=False)
    except OSError:
        pass  # EBADF: the kernel has looked, and that was no cgroup
    else:
        os.close(pidfd)
        raw_status(pid)
        pytest.fail(
            "clone3() got as cgroup the descriptor of a directory that is no cgroup at all, and the kernel did not "
            "complain: pass it on in the field cgroup, and add CLONE_INTO_CGROUP to the flags"
        )
    finally:
        os.close(directory)
    for hierarchy in cage.hierarchies():
        if hierarchy.option:  # version 1
            continue
        group = Path(hierarchy.point, "born")
        group.mkdir()
        directory = os.open(group, os.O_DIRECTORY)
        pid, pidfd, _ = born(0, directory)
        members = (group / "cgroup.procs").read_text().split()
        os.kill(pid, signal.SIGKILL)
        raw_status(pid)
        os.close(pidfd)
        os.close(directory)
        group.rmdir()
        assert members == [str(pid)], "the child must be a member of the cgroup from birth (CLONE_INTO_CGROUP)"


# -------------------------------------------------------------------------------------------------------------- execute


def becomes(path: str, argv: list[str], env: list[str]) -> Callable[[], Any]:
    """A function that opens a program and becomes it, with its output in the pipe that it returns to nobody."""

    def become() -> str:
        program = os.open(path, os.O_RDONLY)
        try:
            process.execute(program, argv, env)
        except OSError as error:
            return f"OSError {error.errno}"
        return "returned"

    return become


@pytest.mark.exercise(EXEC)
def test_this_process_becomes_the_program(spawn: Callable[..., Any], outside: Any) -> None:
    child = spawn(becomes("/bin/sleep", ["patience", "1"], []))
    try:
        answer = child.value
    except AssertionError:  # no value: it executed another program
        answer = ""
    assert answer != "OSError 2", (
        'execute() raised ENOENT, "no such file": the path is empty, and only with the flag AT_EMPTY_PATH '
        "does execveat(2) take the descriptor itself for the program"
    )
    assert not answer, f"execute() {answer}: this process must become the program, not a child of it, and not later"
    assert not outside.until(lambda: child.ended, 0.1), (
        "the program ended at once, though it was to sleep for a second: pass argv as it is, the name first"
    )
    assert os.readlink(f"/proc/{child.pid}/exe") == os.path.realpath("/bin/sleep")
    command = outside.command(child.pid)
    child.kill()
    assert command == ["patience", "1"], f"the program was started as {command}: pass argv as it is, the name first"


@pytest.mark.exercise(EXEC)
def test_the_program_gets_the_environment_that_is_given(spawn: Callable[..., Any]) -> None:
    child = spawn(becomes("/bin/sleep", ["sleep", "1"], ["COLOUR=blue", "EMPTY="]))
    with pytest.raises(AssertionError):
        _ = child.value
    found = Path(f"/proc/{child.pid}/environ").read_text().split("\0")[:-1]
    child.kill()
    assert found == ["COLOUR=blue", "EMPTY="], (
        f"the program was given {len(found)} variables ({', '.join(found)[:60]} ...): "
        "its environment must be env, as it is, and nothing of ours"
    )


@pytest.mark.exercise(EXEC)
def test_no_path_is_looked_up(spawn: Callable[..., Any]) -> None:
    def become_without_proc() -> str:
        become = becomes("/bin/sleep", ["sleep", "1"], [])
        syscalls.call("unshare", 0x00020000)  # a mount namespace, and in it an empty directory over /proc
        syscalls.call("mount", None, "/", None, 0x4000 | 1 << 18, None)
        syscalls.call("mount", "none", "/proc", "tmpfs", 0, None)
        return str(become())

    child = spawn(become_without_proc)
    try:
        answer = child.value
    except AssertionError:  # no value: it executed another program
        answer = ""
    child.kill()
    assert not answer, (
        f"with nothing in /proc execute() raised {answer}: a path such as /proc/self/fd/3 is found only where there is "
        "a /proc, and a container's may be anybody's; the descriptor goes into execveat(2) itself"
    )


@pytest.mark.exercise(EXEC)
def test_what_cannot_be_executed_is_an_error(tmp_path: Path, inside: Callable[..., Any]) -> None:
    text = tmp_path / "text"
    text.write_text("no program\n")
    text.chmod(0o755)
    answer = inside(becomes(str(text), ["text"], []))
    assert answer == "OSError 8", (
        f"the file is no program (ENOEXEC), and execute() {answer}: it must raise OSError, or the caller goes on as if"
    )


# ---------------------------------------------------------------------------------------------- the rest of the chapter


def test_wait_collects_a_child_and_nobody_elses(outside: Any) -> None:
    pid = process.fork_call(lambda: 3)
    assert outside.until(lambda: outside.state(pid) == "Z"), "a child that has ended stays as a zombie until collected"
    assert process.wait(pid) == 3
    assert outside.state(pid) == ""
    with pytest.raises(ChildProcessError):
        process.wait(1)


def test_a_pidfd_never_means_somebody_else(spawn: Callable[..., Any], tmp_path: Path) -> None:
    import ctypes

    libc = ctypes.CDLL(None)
    assert libc.mount(b"proc", os.fsencode(tmp_path), b"proc", 0, None) == 0
    first = spawn(lambda: None)
    pidfd = os.pidfd_open(first.pid)
    process.send_signal(pidfd, 0)
    process.send_signal(pidfd, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    (tmp_path / "sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
    second = spawn(lambda: None)
    assert second.pid == first.pid, "the kernel gives the number to the next process"
    with pytest.raises(ProcessLookupError):
        process.send_signal(pidfd, signal.SIGKILL)
    assert not second.ended
    os.kill(first.pid, signal.SIGKILL)
    assert second.wait() == -signal.SIGKILL, "the number alone means whoever has it now"
    os.close(pidfd)
    assert libc.umount2(os.fsencode(tmp_path), 0) == 0


def test_a_process_can_be_renamed_hidden_and_its_descriptors_closed(spawn: Callable[..., Any], outside: Any) -> None:
    def steps() -> Any:
        process.set_name("a name that is too long")
        yield
        process.hide()
        yield syscalls.call("prctl", 3, 0, 0, 0, 0)  # PR_GET_DUMPABLE
        os.dup2(1, 200)
        process.close_from(150)
        yield os.path.exists("/proc/self/fd/200")

    child = spawn(steps)
    assert outside.status(child.pid)["Name"] == "a name that is"
    assert child.resume() == 0, "hidden: not dumpable"
    assert child.resume() is False


def test_the_container_program_returns_how_the_command_ended(container: Callable[..., Any]) -> None:
    assert container("true").status == 0
    ran = container("sh", "-c", "echo here; exit 41")
    assert (ran.status, ran.stdout) == (41, "here\n")
    assert container("sh", "-c", "kill -KILL $$").status == 137


def test_the_container_program_tells_what_it_cannot_run(container: Callable[..., Any]) -> None:
    ran = container("no-such-command")
    assert (ran.status, ran.stderr) == (127, "container.py: no-such-command: not found\n")
    ran = container("/etc/passwd")
    assert (ran.status, ran.stderr) == (126, "container.py: /etc/passwd: cannot be executed\n")


def test_a_program_is_searched_for_along_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "refused").write_text("not for anybody to execute")
    (tmp_path / "answer").write_text("#!/bin/sh\nexit 42\n")
    (tmp_path / "answer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/nowhere:{tmp_path}/refused:{tmp_path}:/usr/bin:/bin")
    for command, code in (("answer", 42), ("refused", 126), ("nothing", 127), ("./answer", 127)):
        assert process.wait(process.fork_call(lambda word=command: process.become([word]))) == code, command

"""Chapter 03: being born as number 1, collecting children, passing signals on, and all of it as an init."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chapters import cage
from minirt.kernel import process, syscalls
from minirt.namespaces import pid

CLONE_NEWPID = 0x20000000


class Late(Exception):
    """A call that should have answered at once had not after a while."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise Late in the middle of a call that takes longer."""

    def ring(*_: Any) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ended(number: int) -> None:
    """Wait until a child has ended, and leave it uncollected: a zombie."""
    os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)


class Life:
    """A function at work in a process that is number 1 of a pid namespace, while we watch from outside.

    The namespace is made here with unshare(2) and fork(2), not with the functions that are judged.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self._told, tell = os.pipe()
        home = os.open("/proc/self/ns/pid", os.O_RDONLY)
        syscalls.unshare(CLONE_NEWPID)
        self.pid = os.fork()
        if not self.pid:
            answer: Any = None
            try:
                os.close(self._told)
                answer = function()
            except BaseException as error:
                error.__traceback__ = None
                answer = error
            finally:
                if os.getpid() == 1:
                    os.write(tell, pickle.dumps(answer))
                os._exit(0)
        os.close(tell)
        syscalls.setns(home, CLONE_NEWPID)
        os.close(home)

    def returned(self, seconds: float = 1.5) -> bool:
        """Whether the function has come to its end within so many seconds."""
        return bool(select.select([self._told], [], [], seconds)[0])

    def code(self) -> Any:
        """What the function returned; raises what it raised."""
        data = os.read(self._told, 1 << 16)
        if not data:
            pytest.fail("number 1 ended in the middle of its work: no signal must end it")
        answer = pickle.loads(data)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def end(self) -> None:
        """Kill number 1, and with it all in its namespace."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self._told)


@pytest.fixture
def live() -> Iterator[Callable[..., Life]]:
    """``live(function)``: a Life, ended after the test."""
    lives: list[Life] = []

    def start(function: Callable[[], Any]) -> Life:
        lives.append(Life(function))
        return lives[-1]

    yield start
    for life in lives:
        life.end()


class Note:
    """A pipe on which the program tells us something."""

    def __init__(self) -> None:
        self.told, self.tell = os.pipe()

    def write(self, *words: object) -> None:
        os.write(self.tell, (" ".join(str(word) for word in words) + "\n").encode())

    def read(self, seconds: float = 3.0) -> list[str]:
        return os.read(self.told, 4096).decode().split() if select.select([self.told], [], [], seconds)[0] else []


# ------------------------------------------------------------------------------------------------------------- birth


class Newborn:
    """What birth() did: its answer in the parent, and what the child found out about itself."""

    def __init__(self, cgroup: int = -1) -> None:
        tell, told = os.pipe()[::-1]
        gate, opened = os.pipe()
        me = os.getpid()
        answer = pid.birth(cgroup)
        if os.getpid() != me:  # whatever it returned, this is the child
            os.write(tell, f"{os.getpid()} {os.getppid()} {answer}".encode())
            os.close(tell)
            os.close(opened)
            os.read(gate, 1)
            os._exit(7)
        os.close(tell)
        os.close(gate)
        self._told, self._opened, self.answer = told, opened, answer
        assert isinstance(answer, tuple) and len(answer) == 2, (
            f"birth() must return two numbers, (pid, pidfd), and it returned {answer!r}"
        )
        self.pid, self.pidfd = answer

    def report(self) -> list[str]:
        """The child's own number, its parent's number as it sees it, and what birth() returned to it."""
        if not select.select([self._told], [], [], 2)[0]:
            pytest.fail("the child that birth() made says nothing: it must go on behind the call, as after a fork")
        return os.read(self._told, 4096).decode().split(" ", 2)

    def end(self) -> int:
        """Let the child end; return its exit code."""
        os.close(self._opened)
        os.close(self._told)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.exercise("minirt.namespaces.pid.birth")
def test_birth_makes_a_child(outside: Any) -> None:
    newborn = Newborn()
    assert newborn.pid in outside.children(os.getpid()), (
        f"birth() returned the number {newborn.pid}, and no child of this process has it: nobody was born. unshare(2) "
        "moves nobody into the new namespace; a process is born into it"
    )
    assert newborn.end() == 7


@pytest.mark.exercise("minirt.namespaces.pid.birth")
def test_the_child_is_number_1_in_there_and_another_number_out_here(outside: Any) -> None:
    newborn = Newborn()
    number, parent, _ = newborn.report()
    seen = outside.pids_inside(newborn.pid)
    newborn.end()
    assert number == "1", (
        f"the child sees itself as process {number}: it is not number 1, so it has no pid namespace of its own. The "
        "bit is CLONE_NEWPID"
    )
    assert parent == "0", f"the parent is outside of the namespace, so the child sees 0 for it, not {parent}"
    assert seen[-1] == 1 and len(seen) > 1, f"/proc tells the numbers {seen} of the child; the innermost must be 1"


@pytest.mark.exercise("minirt.namespaces.pid.birth")
def test_birth_returns_twice() -> None:
    newborn = Newborn()
    answer = newborn.report()[2]
    newborn.end()
    assert answer == "(0, -1)", (
        f"in the child birth() returned {answer}: it must be (0, -1) there, so that the code behind the call knows "
        "which of the two it is"
    )


@pytest.mark.exercise("minirt.namespaces.pid.birth")
def test_only_the_child_is_in_the_new_namespace(outside: Any) -> None:
    ours = outside.namespace("pid"), outside.namespace("pid_for_children")
    newborn = Newborn()
    changed = outside.namespace("pid_for_children") != ours[1]
    entered = outside.entered(newborn.pid)
    newborn.end()
    assert entered == {"pid"}, f"the child is in new namespaces of the kinds {sorted(entered)}; asked was for pid alone"
    assert not changed, (
        "the caller of birth() has changed: its later children are born into the new namespace too, because unshare(2) "
        "was called. Make the namespace and the child in one step: process.clone3"
    )


@pytest.mark.exercise("minirt.namespaces.pid.birth")
def test_the_pidfd_is_the_childs() -> None:
    newborn = Newborn()
    try:
        process.send_signal(newborn.pidfd, 0)
        right = select.select([newborn.pidfd], [], [], 0)[0] == []
    except (OSError, ValueError):
        right = False
    assert right, (
        f"the second number that birth() returned, {newborn.pidfd}, is no pidfd of the child: return the descriptor "
        "that process.clone3 gives"
    )
    newborn.end()
    os.close(newborn.pidfd)


@pytest.mark.exercise("minirt.namespaces.pid.birth")
def test_the_child_is_born_into_the_cgroup_given() -> None:
    no_cgroup = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        newborn = Newborn(no_cgroup)
    except OSError as error:
        assert error.errno == errno.EBADF
    else:
        newborn.end()
        pytest.fail(
            "birth() ignores its argument: a descriptor that is no cgroup must be refused by the kernel (EBADF). Hand "
            "`cgroup` on to process.clone3"
        )
    finally:
        os.close(no_cgroup)
    for hierarchy in cage.hierarchies():
        if hierarchy.option:
            continue  # version 1: one cannot be born into those
        group = Path(hierarchy.point, "nursery")
        group.mkdir()
        place = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
        newborn = Newborn(place)
        os.close(place)
        members = Path(group, "cgroup.procs").read_text().split()
        newborn.end()
        group.rmdir()
        assert members == [str(newborn.pid)], f"the cgroup's members are {members}, and the child is {newborn.pid}"


# -------------------------------------------------------------------------------------------------------------- reap


def children(*codes: int) -> list[int]:
    """Children that have ended with these exit codes, minus n: by signal n; nobody has collected them."""
    numbers = []
    for code in codes:
        number = os.fork()
        if not number:
            if code < 0:
                signal.signal(-code, signal.SIG_DFL) if code != -signal.SIGKILL else None
                os.kill(os.getpid(), -code)
            os._exit(code)
        ended(number)
        numbers.append(number)
    return numbers


def reaped() -> dict[int, int]:
    """Call reap(), which must answer at once, with a dictionary."""
    with within(1.0):
        codes = pid.reap()
    assert isinstance(codes, dict), f"reap() must return a dictionary, pid -> exit code; it returned {codes!r}"
    return codes


@pytest.mark.limit(5)
@pytest.mark.exercise("minirt.namespaces.pid.reap")
def test_without_children_there_is_nothing_to_collect(inside: Callable[..., Any]) -> None:
    def nobody() -> dict[int, int] | str:
        try:
            return reaped()
        except ChildProcessError:
            return "ChildProcessError"

    assert inside(nobody) == {}, (
        "without any children reap() must return {}: waitpid raises ChildProcessError then, which only means that "
        "there is nobody to collect"
    )


@pytest.mark.limit(5)
@pytest.mark.exercise("minirt.namespaces.pid.reap")
def test_reap_collects_every_child_that_has_ended(inside: Callable[..., Any], outside: Any) -> None:
    def three() -> tuple[list[int], dict[int, int], list[int]]:
        dead = children(0, 3, 200)
        codes = reaped()
        return dead, codes, [number for number in dead if outside.state(number) == "Z"]

    dead, codes, zombies = inside(three)
    found = sum(number in codes for number in dead)
    assert found == 3, (
        f"three children had ended, and one call of reap() collected {found} of 3 (it returned {codes}): the kernel "
        "sends one SIGCHLD for many deaths, so ask until waitpid has no more, and keep them all"
    )
    assert codes[dead[0]] == 0, f"the first child called exit(0), and reap() says {codes[dead[0]]}"
    assert not zombies, f"the children {zombies} are still zombies: waitpid(2) is what collects them"


@pytest.mark.limit(5)
@pytest.mark.exercise("minirt.namespaces.pid.reap")
def test_the_codes_are_a_shells(inside: Callable[..., Any]) -> None:
    def mixed() -> tuple[list[int], dict[int, int]]:
        return children(3, -signal.SIGKILL), reaped()

    (left, killed), codes = inside(mixed)
    assert codes.get(left) == 3, (
        f"a child called exit(3), and reap() says {codes.get(left)}: that is the wait status, not the exit code; "
        "process.exit_code turns the one into the other"
    )
    assert codes.get(killed) == 137, f"SIGKILL ended a child: the exit code is 128 + 9, not {codes.get(killed)}"


@pytest.mark.limit(5)
@pytest.mark.exercise("minirt.namespaces.pid.reap")
def test_reap_does_not_wait_for_the_living(inside: Callable[..., Any]) -> None:
    def one_lives() -> tuple[list[int], dict[int, int] | None]:
        dead = children(5)
        sleeper = os.fork()
        if not sleeper:
            time.sleep(60)
            os._exit(0)
        try:
            return dead, reaped()
        except Late:
            return dead, None
        finally:
            os.kill(sleeper, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(sleeper, 0)

    dead, codes = inside(one_lives)
    assert codes is not None, (
        "reap() did not return: it waited for a child that still lives. With os.WNOHANG waitpid answers (0, 0) instead"
    )
    assert 0 not in codes, (
        f"reap() returned {codes}: 0 is no child; it is waitpid's way to say that nobody else has ended"
    )
    assert codes == {dead[0]: 5}, f"one child had ended (with 5), another lives; reap() returned {codes}"


# ----------------------------------------------------------------------------------------------------------- forward


class Listener:
    """A child that fetches signals and tells their numbers, one byte each."""

    def __init__(self) -> None:
        self._told, tell = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.pid = os.fork()
        if not self.pid:
            while True:
                os.write(tell, bytes([signal.sigwait(signal.valid_signals())]))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        os.close(tell)

    def heard(self, seconds: float = 1.0) -> int | None:
        """The number of the next signal that arrived, or None."""
        return os.read(self._told, 1)[0] if select.select([self._told], [], [], seconds)[0] else None

    def end(self) -> None:
        """End the child and collect it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._told)


@pytest.mark.limit(5)
@pytest.mark.exercise("minirt.namespaces.pid.forward")
def test_the_signal_arrives_at_the_child(live: Callable[..., Life]) -> None:
    def pass_on() -> tuple[list[int | None], str]:
        listener, bystander = Listener(), Listener()
        try:
            heard: list[int | None] = []
            for number in (signal.SIGTERM, signal.SIGUSR1):
                pid.forward(int(number), listener.pid)
                heard.append(listener.heard())
            other = bystander.heard(0.05)
            return heard, "" if other is None else f"it got signal {other}"
        except OSError as error:
            return [], f"{type(error).__name__} ({error})"
        finally:
            for each in (listener, bystander):
                each.end()

    heard, wrong = live(pass_on).code()
    assert "Error" not in wrong, f"forward(15, CHILD) raised {wrong}; in os.kill(PID, SIGNAL) the pid comes first"
    assert not wrong, (
        f"a process that had nothing to do with it was signalled as well: {wrong}. A pid of -1 means everybody, and a "
        "negative one a whole group; give the child's own"
    )
    assert heard[0] is not None, (
        "forward(15, CHILD) was called, and the signal did not arrive at the child: os.kill(PID, SIGNAL) sends it, and "
        "the pid comes first"
    )
    assert heard == [15, 10], (
        f"forward() was given the signals 15 and 10, and the child got {heard}: pass on the signal that came"
    )


@pytest.mark.limit(5)
@pytest.mark.exercise("minirt.namespaces.pid.forward")
def test_a_child_that_is_gone_is_no_error(inside: Callable[..., Any]) -> None:
    def too_late() -> str:
        (dead,) = children(0)
        os.waitpid(dead, 0)
        try:
            pid.forward(15, dead)
        except ProcessLookupError:
            return "ProcessLookupError"
        return "nothing"

    assert inside(too_late) == "nothing", (
        "the child is gone already, and forward() raised ProcessLookupError: a signal may be on its way while its "
        "target ends, and number 1 must live on"
    )


@pytest.mark.exercise("minirt.namespaces.pid.forward")
def test_any_other_refusal_is_an_error(inside: Callable[..., Any]) -> None:
    def no_such_signal() -> str:
        try:
            pid.forward(999, os.getpid())
        except OSError as error:
            return f"OSError {error.errno}"
        return "nothing"

    answer = inside(no_such_signal)
    assert answer == "OSError 22", (
        f"there is no signal 999, the kernel said so (EINVAL), and forward() raised {answer}: only that the child is "
        "gone, ProcessLookupError, is to be expected; whatever else goes wrong must be heard of"
    )


# -------------------------------------------------------------------------------------------------------------- init


@pytest.mark.limit(5)
@pytest.mark.exercise("minirt.namespaces.pid.init")
def test_the_program_is_a_child_of_number_1(live: Callable[..., Life]) -> None:
    note = Note()
    life = live(lambda: pid.init(lambda: note.write(os.getpid(), os.getppid())))
    if life.returned():
        life.code()
    words = note.read(0.1)
    assert words, "init() never called `main`"
    assert words == ["2", "1"], (
        f"`main` ran in process {words[0]}, whose parent is {words[1]}: the program must be a child of number 1 (fork "
        "first), or there is nobody left to be the init"
    )


@pytest.mark.limit(5)
@pytest.mark.exercise("minirt.namespaces.pid.init")
def test_a_program_that_ends_at_once_is_not_missed(live: Callable[..., Life], monkeypatch: Any) -> None:
    fork = os.fork

    def slow() -> int:
        number = fork()
        if number and os.getpid() == 1:
            ended(number)  # as if the child had been quicker than its parent
        return number

    def program() -> int:
        return 5

    fork_call = process.fork_call
    monkeypatch.setattr(os, "fork", slow)
    monkeypatch.setattr(process, "fork_call", lambda function: fork_call(function, fork=slow))
    life = live(lambda: pid.init(program))
    assert life.returned(), (
        "the program ended before its parent got to sigwait(), and init() waits for ever: SIGCHLD came when it was not "
        "blocked yet, and was thrown away. Block the signals before the fork"
    )
    assert life.code() == 5


@pytest.mark.limit(5)
@pytest.mark.exercise("minirt.namespaces.pid.init")
@pytest.mark.parametrize("how, code", [("exit(0)", 0), ("exit(42)", 42), ("SIGKILL", 137)])
def test_init_returns_the_programs_exit_code(live: Callable[..., Life], how: str, code: int) -> None:
    def program() -> int:
        if how == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        return code

    life = live(lambda: pid.init(program))
    assert life.returned(), "the program has ended, and init() has not returned: sigwait for SIGCHLD, then reap()"
    found = life.code()
    assert found == code, f"the program ended with {how}, so init() must return {code}, and it returned {found!r}"


@pytest.mark.limit(5)
@pytest.mark.exercise("minirt.namespaces.pid.init")
def test_an_orphan_is_collected(live: Callable[..., Life], outside: Any) -> None:
    note = Note()

    def program() -> int:
        middle = os.fork()
        if not middle:
            if not os.fork():
                while os.getppid() != 1:
                    time.sleep(0.001)
                note.write("orphan")
                os._exit(9)
            os._exit(0)
        os.waitpid(middle, 0)
        time.sleep(60)
        return 0

    life = live(lambda: pid.init(program))
    note.read()
    states: list[str] = []

    def settled() -> bool:
        states[:] = [outside.state(number) for number in outside.children(life.pid)]
        return states == ["S"] or life.returned(0)

    outside.until(settled)
    if life.returned(0):
        answer = life.code()
        pytest.fail(
            f"init() returned when an orphan had ended (it returned {answer!r}), and the program behind it still runs: "
            "only the end of `child` is the end"
        )
    assert states == ["S"], (
        "a process lost its parent, became a child of number 1, and ended; the children of number 1 are now in the "
        f"states {states}: the orphan stays a zombie (Z), because nobody collects it. Call reap() at each SIGCHLD"
    )


@pytest.mark.limit(5)
@pytest.mark.exercise("minirt.namespaces.pid.init")
def test_the_program_gets_the_signals_that_number_1_gets(live: Callable[..., Life]) -> None:
    note = Note()

    def program() -> int:
        def handle(number: int, _: Any) -> None:
            os._exit(100 + number)

        signal.signal(signal.SIGTERM, handle)
        note.write("ready")
        for _ in range(1000):
            time.sleep(0.05)
        return 0

    life = live(lambda: pid.init(program))
    note.read()
    os.kill(life.pid, signal.SIGTERM)
    assert life.returned(), (
        "SIGTERM was sent to number 1, and the program behind it lives on: number 1 did not pass it on (forward), or "
        "the program has it blocked (a child inherits what is blocked: unblock them in the child, before main)"
    )
    assert life.code() == 115, "the program's own handler must decide what SIGTERM does"


@pytest.mark.limit(5)
@pytest.mark.exercise("minirt.namespaces.pid.init")
def test_the_program_begins_with_no_signal_blocked(live: Callable[..., Life]) -> None:
    note = Note()
    life = live(lambda: pid.init(lambda: note.write(len(signal.pthread_sigmask(signal.SIG_BLOCK, [])))))
    if life.returned():
        life.code()
    assert note.read(0.1) == ["0"], (
        "the program begins with its signals blocked, and what is blocked stays blocked across exec: unblock them in "
        "the child, before main"
    )


@pytest.mark.limit(5)
@pytest.mark.exercise("minirt.namespaces.pid.init")
def test_the_end_of_the_program_is_the_end(live: Callable[..., Life], outside: Any) -> None:
    note = Note()

    def program() -> int:
        if not os.fork():
            note.write("here")
            time.sleep(60)
            os._exit(0)
        note.read()
        return 6

    life = live(lambda: pid.init(program))
    assert life.returned(), (
        "the program has ended, and init() has not returned: it waits for orphans. The kernel kills those when number "
        "1 ends"
    )
    assert life.code() == 6
    left = outside.descendants(life.pid)
    os.waitpid(life.pid, 0)
    assert not any(outside.state(number) not in ("", "Z") for number in left), "number 1 has ended, and orphans live on"


@pytest.mark.limit(5)
@pytest.mark.exercise("minirt.namespaces.pid.init")
def test_descriptors_of_the_program_are_closed_in_number_1(live: Callable[..., Life]) -> None:
    note, theirs, go = Note(), os.pipe()[1], Note()

    def program() -> int:
        try:
            os.fstat(theirs)
            note.write("open")
        except OSError:
            note.write("closed")
        go.read(5)
        return 0

    life = live(lambda: pid.init(program, (theirs,)))
    words = note.read(1.5)
    if not words:
        life.code()
    patience = time.monotonic() + 0.5  # number 1 closes while the program already runs
    while (held := os.path.exists(f"/proc/{life.pid}/fd/{theirs}")) and time.monotonic() < patience:
        time.sleep(0.005)
    go.write("on")
    assert words == ["open"], (
        "the descriptors in `close` are the program's: close them after the fork, in number 1 only"
    )
    assert not held, (
        f"descriptor {theirs} is in `close`, and number 1 still holds it: a pipe that it keeps open never ends for the "
        "other side. Close it after the fork"
    )


# --------------------------------------------------------------------------------------------------- the whole chapter


def test_the_container_program_makes_its_command_number_1(container: Callable[..., Any]) -> None:
    ran = container("sh", "-c", "echo $$")
    assert (ran.status, ran.stdout) == (0, "1\n")


def test_with_init_the_command_is_number_2(container: Callable[..., Any]) -> None:
    ran = container("--init", "sh", "-c", "echo $$ $PPID; exit 9")
    assert (ran.status, ran.stdout) == (9, "2 1\n")


def test_a_container_cannot_signal_host_processes(container: Callable[..., Any], spawn: Callable[..., Any]) -> None:
    bystander = spawn(os.getpid)
    ran = container("sh", "-c", f"kill -9 {bystander.pid}; kill -9 -1; echo alive")
    assert "o such process" in ran.stderr and not bystander.ended, "the container killed a process of the machine"
    assert ran.stdout == "alive\n", "number 1 is not reached by kill -1"


def test_nobody_outlives_number_1(container: Callable[..., Any], outside: Any) -> None:
    ran = container("sh", "-c", "sleep 1234.5 & exit 3")
    assert ran.status == 3
    assert not [n for n in outside.processes() if n != os.getpid() and outside.command(n)[:2] == ["sleep", "1234.5"]]


def test_the_exit_code_is_the_commands(container: Callable[..., Any]) -> None:
    assert container("--init", "sh", "-c", "kill -TERM $$").status == 143
    assert container("no-such-command").status == 127
    assert container("--init", "no-such-command").status == 127

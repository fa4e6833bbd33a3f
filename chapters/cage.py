"""The cage: a machine to break, made in 30 ms and thrown away.

Every chapter test, every check of an exercise and every notebook cell that touches the kernel runs in a cage, and so
does ``container.py`` with a participant's code. Code that forgets ``MS_PRIVATE``, sends ``kill -9 -1``, fills memory or
removes ``/etc`` then harms nothing and leaves nothing.

How it works. A cage is a container, made with the same kernel features that the book teaches, but with another wish:
the code inside must be *real root on the real kernel*, able to make namespaces, mounts and cgroups itself.

* Four processes take part. The *caller* (pytest, say) forks the *keeper*, which makes the new namespaces; the keeper
  forks the *first process* (a new pid namespace begins with a birth), which builds the walls and then forks the
  *guest*, which calls the function. When the first process ends, the kernel kills everything in its pid namespace,
  however it was daemonised: that is the broom.
* ``/`` is an overlay whose upper layer is a tmpfs: everything can be read, everything can be written, nothing arrives.
  Other file systems that carry the checkout, the interpreter or the home directory get an overlay each.
* ``/run`` is an empty tmpfs, ``/var/lib/minirt`` another one (or a directory of the disk): the upper directory of an
  overlay cannot lie on an overlay, so TMPDIR lies there as well.
* A cgroup in each hierarchy limits memory and processes. The file systems mounted inside show that cgroup as ``/``.
* The caller waits with a time limit, kills the first process, and removes the cgroups.

Rules of this room and of ``walls.py``: the standard library only and nothing of ``minirt`` (broken PID code of a
participant must not break its judge). Fork from the main thread: a parent-death signal watches the thread that forked.

**It protects from accidents, not from malice.** The guest is root: a proc file system that it mounts afresh reaches the
global sysctls, a block device that the machine lets root open is open to it, CPU and disk bandwidth are shared.

    python -m chapters.cage [--time SECONDS] [--memory MIB] [--pids N] [--state DIRECTORY] -- COMMAND...
    python -m chapters.cage --hold            print an ID and keep the cage until standard input ends
    python -m chapters.cage --in ID -- COMMAND...

Manual pages: namespaces(7), pid_namespaces(7), mount_namespaces(7), cgroups(7), pivot_root(2), prctl(2), unshare(2).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from chapters import walls
from chapters.walls import (
    CHECKOUT,
    MARK,
    MS_BIND,
    PREFIX,
    STATE_ROOT,
    TEMPORARY,
    CageError,
    Cgroups,
    Hierarchy,
    Limits,
    Mount,
    carrying,
    die_with_parent,
    hierarchies,
    inside,
    leftovers,
    libc,
    mount,
    mounts,
    sweep,
)

__all__ = [
    "CHECKOUT", "MARK", "MS_BIND", "PREFIX", "STATE_ROOT", "TEMPORARY", "Cage", "CageError", "Hierarchy", "Limits",
    "Mount", "Outcome", "call", "carrying", "enter", "hierarchies", "hold", "inside", "leftovers", "libc", "main",
    "mount", "mounts", "run", "send", "sweep",
]  # fmt: skip

DEFAULT = Limits()
_numbers = itertools.count(1)
_send_to: int | None = None  # in a guest: the descriptor that leads to the caller


@dataclass
class Outcome:
    """How a cage ended.

    ``value`` is what the function returned (plain values that JSON knows); ``error`` the traceback if it raised;
    ``status`` the exit code of the guest, or minus the signal that ended it; ``how`` says in words why there is no
    value; ``notes`` are the cage's own weaknesses on this machine ("no memory limit: ...").
    """

    value: Any = None
    error: str = ""
    status: int = 0
    how: str = ""
    timed_out: bool = False
    stdout: bytes = b""
    stderr: bytes = b""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def result(self) -> Any:
        """Return the value; raises CageError with the reason when there is none."""
        if self.error or self.how:
            raise CageError(self.error or self.how)
        return self.value


# ------------------------------------------------------------------------------------------- the four processes at work


class Cage:
    """A running cage, seen from the caller.

    ``root`` "overlay" gives it a root of its own; "shared" leaves it the root it is born with, for a cage in a cage
    (an overlay of an overlay of an overlay is refused by the kernel). ``state`` is a directory to bind at the state
    root instead of a tmpfs; "disk" makes one below /var/tmp and removes it afterwards. ``first`` is what the first
    process does after the walls stand, and returns its exit status; it must not return to the caller's frames.
    """

    def __init__(self, first: Callable[[], int], limits: Limits, state: str = "", root: str = "overlay") -> None:
        if os.geteuid():
            raise CageError("a cage needs root: run it with sudo")
        number = next(_numbers)
        if number == 1:
            sweep()
        self.name = f"{PREFIX}{os.getpid()}-{number}"
        self.limits = limits
        self.deadline = time.monotonic() + limits.seconds
        self.own_state = f"/var/tmp/{self.name}" if state == "disk" else ""
        if self.own_state:
            os.mkdir(self.own_state, 0o755)
        self.cgroups = Cgroups(self.name, limits)
        self.notes = self.cgroups.missing()
        self.first_pidfd = -1
        self.first_pid = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _flush()
        self.keeper = os.fork()
        if not self.keeper:
            ours.close()
            _end_with(lambda: self._keep(first, self.own_state or state, root, theirs))
        theirs.close()
        self._await_birth(ours)

    def _await_birth(self, ours: socket.socket) -> None:
        """Receive the first process's descriptor from the keeper and its "ready", in whichever order they come."""
        answer = ""
        with ours:
            while not (self.first_pidfd >= 0 and answer):
                message, descriptors, _, _ = socket.recv_fds(ours, 65536, 1)
                if descriptors:
                    self.first_pidfd, self.first_pid = descriptors[0], int(message)
                elif message:
                    answer = message.decode(errors="replace")
                if not message or (answer and not answer.startswith("ready")):
                    break
        word, *notes = answer.split("\n")
        self.notes += notes
        if word != "ready":
            self.close()
            raise CageError(f"the cage could not be built: {answer or 'its first process died'}")

    def _keep(self, first: Callable[[], int], state: str, root: str, theirs: socket.socket) -> int:
        """The keeper: make the namespaces, fork the first process, wait for it. Never in the cage's cgroups itself."""
        die_with_parent()
        try:
            carry = carrying(_needed_paths()) if root == "overlay" else []
            walls.leave_the_machine()
        except OSError as error:
            theirs.send(str(error).encode())
            return 1
        pid = os.fork()
        if not pid:
            _end_with(lambda: self._be_first(first, state, root, carry, theirs))
        with contextlib.suppress(BrokenPipeError):  # the first process has failed already, and the caller knows
            socket.send_fds(theirs, [str(pid).encode()], [os.pidfd_open(pid)])
        theirs.close()
        return _exit_code(os.waitpid(pid, 0)[1])

    def _be_first(
        self, first: Callable[[], int], state: str, root: str, carry: list[str], theirs: socket.socket
    ) -> int:
        """The first process: build the walls from inside, then do what is wanted."""
        notes: list[str] = []
        die_with_parent()
        try:
            if root == "overlay":
                # What needs the machine's own /sys and /proc comes before they are covered.
                self.cgroups.join()
                place = walls.build_root(carry, notes)
                walls.furnish(place, state, self.cgroups)
                walls.change_root(place)
            else:
                self.cgroups.join()
                walls.furnish("", state, self.cgroups)
            # As systemd leaves a machine: code that forgets MS_PRIVATE is found out here, as it would be there.
            mount("", "/", "", walls.MS_REC | walls.MS_SHARED)
            walls.loopback_up()
            walls.limit_resources(self.limits, self.cgroups)
            walls.drop_capabilities()
            walls.set_environment()
        except Exception as error:  # whatever it is, the caller must learn it
            theirs.send((str(error) if isinstance(error, OSError | CageError) else repr(error)).encode())
            return 1
        theirs.send("\n".join(["ready", *notes]).encode())
        theirs.close()
        return first()

    def wait(self, descriptor: int = -1, on_message: Callable[[Any], None] | None = None) -> bool:
        """Wait until the first process has ended; return False when the time is over first.

        Lines of JSON that arrive on ``descriptor`` meanwhile are handed to ``on_message``.
        """
        poll = select.poll()
        poll.register(self.first_pidfd, select.POLLIN)
        if descriptor >= 0:
            poll.register(descriptor, select.POLLIN)
        rest = b""
        while True:
            left = self.deadline - time.monotonic()
            ready = dict(poll.poll(max(0.0, left) * 1000)) if left > 0 else {}
            if descriptor in ready:
                data = os.read(descriptor, 1 << 16)
                if not data:
                    poll.unregister(descriptor)
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if on_message:
                        on_message(json.loads(line))
            elif self.first_pidfd in ready:
                return True
            elif left <= 0:
                return False

    def close(self) -> int:
        """Kill what still runs, remove what the cage had; return the first process's exit status (128 + n: signal)."""
        if self.first_pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.first_pidfd, signal.SIGKILL)
            # Its end means that the kernel has reaped everything in the pid namespace.
            while not select.select([self.first_pidfd], [], [], 0.25)[0]:
                self.cgroups.thaw()
            os.close(self.first_pidfd)
            self.first_pidfd = -1
        status = _exit_code(os.waitpid(self.keeper, 0)[1]) if self.keeper else 0
        self.keeper = 0
        self.out_of_memory = self.cgroups.out_of_memory()
        self.cgroups.remove()
        if self.own_state:
            shutil.rmtree(self.own_state, ignore_errors=True)
        return status


def _needed_paths() -> list[str]:
    """The paths that must be there in a cage: checkout, working directory, interpreter, and the usual places."""
    usual = ["/usr", "/etc", "/opt", "/var", "/home", "/root", os.path.expanduser("~")]
    return [str(CHECKOUT), os.getcwd(), sys.executable, sys.prefix, sys.base_prefix, *filter(None, sys.path), *usual]


def _exit_code(status: int) -> int:
    """Turn a wait status into a shell's exit code."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _flush() -> None:
    """Write out what Python has buffered: after a fork it would be written twice."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _end_with(main: Callable[[], int]) -> NoReturn:
    """Run the main function of a forked process and end the process with its result: never back into the caller."""
    status = 70
    try:
        status = main()
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(status)


def _reap_until(guest: int) -> int:
    """The duty of a pid 1: reap every orphan; return the exit code of the guest when it has ended."""
    while True:
        pid, status = os.wait()
        if pid == guest:
            return _exit_code(status)


def send(message: Any) -> None:
    """In a guest: hand a plain value to the caller's ``on_message`` at once."""
    if _send_to is not None:
        line = json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(_send_to, line) :]


def call(
    function: Callable[..., Any],
    *arguments: Any,
    limits: Limits = DEFAULT,
    state: str = "",
    root: str = "overlay",
    capture: bool = True,
    on_message: Callable[[Any], None] | None = None,
) -> Outcome:
    """Call a function in a cage and return how it ended.

    The function may return plain values (what JSON knows), and may ``send`` messages while it runs. With ``capture``
    its standard output and error come back in the outcome; without, they go where ours go. For ``state`` and ``root``
    see ``Cage``. Raises CageError when the cage cannot be built.
    """
    begin = time.monotonic()
    read_end, write_end = os.pipe()
    outputs = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdout", "stderr")] if capture else []

    def guest() -> int:
        global _send_to
        os.setsid()
        os.close(read_end)
        _send_to = write_end
        me = os.getpid()
        if capture:
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            for number, descriptor in enumerate(outputs, start=1):
                os.dup2(descriptor, number)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        try:
            message = {"value": function(*arguments)}
        except BaseException:
            message = {"error": traceback.format_exc()}
        if os.getpid() != me:
            send({"stray": True})
            return 70
        send(message)
        return 0

    def first() -> int:
        pid = os.fork()
        if not pid:
            _end_with(guest)
        os.close(write_end)
        return _reap_until(pid)

    outcome = Outcome()
    answers: list[dict[str, Any]] = []

    def receive(message: Any) -> None:
        if isinstance(message, dict) and message.keys() & {"value", "error", "stray"} and len(message) == 1:
            answers.append(message)
        elif on_message:
            on_message(message)

    try:
        cage = Cage(first, limits, state, root)
        try:
            os.close(write_end)
            write_end = -1
            outcome.timed_out = not cage.wait(read_end, receive)
        finally:
            code = cage.close()
        outcome.notes = cage.notes
        outcome.status = 128 - code if code > 128 else code
        outcome.how = _explain(outcome, answers, limits, cage.out_of_memory)
        if answers and not outcome.how:
            outcome.value, outcome.error = answers[-1].get("value"), answers[-1].get("error", "")
        for number, descriptor in enumerate(outputs):
            text = os.pread(descriptor, 1 << 24, 0)
            setattr(outcome, ("stdout", "stderr")[number], text)
    finally:
        for descriptor in [read_end, write_end, *outputs]:
            if descriptor >= 0:
                os.close(descriptor)
    outcome.seconds = time.monotonic() - begin
    return outcome


def _explain(outcome: Outcome, answers: list[dict[str, Any]], limits: Limits, out_of_memory: bool) -> str:
    """Say why there is no answer to trust, or nothing."""
    if outcome.timed_out:
        return f"not finished after {limits.seconds:g} s"
    if any("stray" in answer for answer in answers):
        return "a forked child came back from the function: a child must end itself with os._exit()"
    if answers:
        return ""
    if out_of_memory:
        return f"killed by the kernel: more memory than {limits.memory >> 20} MiB"
    if outcome.status < 0:
        return f"ended by {signal.Signals(-outcome.status).name}"
    return f"ended with exit code {outcome.status} and without a result"


# ------------------------------------------------------------------------------------ commands, and cages that are held


def _execute(command: Sequence[str]) -> int:
    """Become a command; return 126 or 127, as a shell does, when that fails."""
    os.closerange(3, 65536)
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        print(f"cage: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127 if error.errno == errno.ENOENT else 126


@contextlib.contextmanager
def _terminal() -> Iterator[Callable[[], None]]:
    """Lend our terminal to a process group of the cage, so that Ctrl-C and job control work there; take it back.

    Yields the function that the guest calls: it takes the terminal, or, without a terminal, starts a session.
    """
    if not os.isatty(0):
        yield os.setsid
        return
    group = os.tcgetpgrp(0)

    def take() -> None:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        os.tcsetpgrp(0, os.getpgrp())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])

    try:
        yield take
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        os.tcsetpgrp(0, group)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])


def run(
    command: Sequence[str],
    limits: Limits = DEFAULT,
    state: str = "",
    prepare: Callable[[], None] | None = None,
) -> int:
    """Run a command in a cage with our own input and output; return its exit code, 124 when the time was over.

    ``prepare`` is called in the cage before the command starts. Raises CageError when the cage cannot be built.
    """
    with _terminal() as take:

        def guest() -> int:
            take()
            if prepare:
                prepare()
            return _execute(command)

        def first() -> int:
            pid = os.fork()
            if not pid:
                _end_with(guest)
            return _reap_until(pid)

        cage = Cage(first, limits, state)
        in_time = False
        try:
            in_time = cage.wait()
        finally:
            code = cage.close()
    for note in cage.notes:
        print(f"cage: {note}", file=sys.stderr)
    if not in_time:
        print(f"cage: not finished after {limits.seconds:g} s", file=sys.stderr)
    return code if in_time else 124


def hold(limits: Limits, state: str = "") -> int:
    """Make a cage, print its ID on a line, and keep it until standard input ends or the time is over; return 0."""

    def first() -> int:
        os.setsid()
        os.closerange(3, 65536)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps for us
        while True:
            signal.pause()

    cage = Cage(first, limits, state)
    try:
        print(cage.first_pid, flush=True)
        poll = select.poll()
        for descriptor in (0, cage.first_pidfd):
            poll.register(descriptor, select.POLLIN | select.POLLHUP)
        while (left := cage.deadline - time.monotonic()) > 0:
            ready = dict(poll.poll(left * 1000))
            if cage.first_pidfd in ready or (0 in ready and not os.read(0, 4096)):
                break
    finally:
        cage.close()
    return 0


def enter(identifier: int, command: Sequence[str]) -> int:
    """Run a command in a held cage with our own input and output; return its exit code. Raises CageError."""
    if not os.path.exists(f"/proc/{identifier}/root{MARK}"):
        raise CageError(f"there is no held cage {identifier}")
    here = os.getcwd()
    walls.join_cgroups_of(identifier)
    walls.join_namespaces_of(identifier)
    os.chdir(here if os.path.isdir(here) else "/")
    walls.drop_capabilities()
    walls.set_environment()
    with _terminal() as take:
        pid = os.fork()
        if not pid:
            die_with_parent()
            take()
            _end_with(lambda: _execute(command))
        return _exit_code(os.waitpid(pid, 0)[1])


def raise_self(arguments: Sequence[str]) -> NoReturn:
    """Start this program again as root, through sudo, which keeps neither PATH nor directory of modules; CageError."""
    ask = [] if os.isatty(0) and os.isatty(2) else ["-n"]
    keep = [f"{name}={os.environ[name]}" for name in ("PATH", "LANG", "TERM") if name in os.environ]
    code = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); from chapters import cage; sys.exit(cage.main())"
    command = ["sudo", *ask, "env", *keep, sys.executable, "-B", "-c", code, *arguments]
    try:
        os.execvp("sudo", command)
    except OSError:
        raise CageError("a cage needs root, and there is no sudo here: become root and try again") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the head of this file."""
    import argparse

    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="python -m chapters.cage", description="Run a command in a throw-away cage.")
    parser.add_argument("--time", type=float, metavar="SECONDS", help="time limit (60; for --hold 86400)")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="memory limit (1024)")
    parser.add_argument("--pids", type=int, default=512, metavar="N", help="limit of tasks (512)")
    parser.add_argument("--state", default="", metavar="DIRECTORY", help=f"bind it at {STATE_ROOT}; 'disk' makes one")
    parser.add_argument("--hold", action="store_true", help="print an ID and keep the cage until standard input ends")
    parser.add_argument("--in", dest="held", type=int, metavar="ID", help="run in a cage that is held")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command and not options.hold:
        command = ["/bin/sh"]
    limits = Limits(options.time or (86400 if options.hold else 60), options.memory << 20, options.pids)
    try:
        if os.geteuid():
            raise_self(arguments)
        if options.hold:
            return hold(limits, options.state)
        if options.held:
            return enter(options.held, command)
        return run(command, limits, options.state)
    except (CageError, OSError) as error:
        print(f"cage: {error}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())

"""Looking at processes: what the chapters' tests and notebooks use to see an effect from inside and from outside.

``Child`` forks a process that calls a function and then waits, so that it can be looked at while it lives.
``Outside`` reads what ``/proc`` tells about a process. ``snapshot`` and ``differences`` find what a test has left.

Like the cage, this room imports nothing of ``minirt``: it must still work when a participant's code does not.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import runpy
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import GeneratorType
from typing import Any, NoReturn

from chapters import cage

# Where processes of a test tell where they are when its time is nearly over: descriptor, and time.monotonic() of then.
alarm: tuple[int, float] | None = None


class ChildFailed(AssertionError):
    """The function in a child failed in a way that cannot be raised again here; str() has the child's traceback."""


class Child:
    """A forked process that calls a function, tells what it returned, and waits to be ended.

    ``value`` is what the function returned. A function that yields is driven step by step: ``value`` is what it yielded
    first, each ``resume()`` returns the next value. Values must be picklable. What the function raises is raised again
    by ``value`` and ``resume``, with the child's traceback below it. A function that executes another program or ends
    its process gives no value: use ``wait()``.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self._line = ours
        self._answer: tuple[str, Any] | None = None
        self._status: int | None = None
        self.pid = os.fork()
        if not self.pid:
            ours.close()
            _serve(theirs, function, arguments)
        theirs.close()
        self._listen()

    @property
    def value(self) -> Any:
        """What the function returned, or yielded last; raises what it raised, ChildFailed when there is no answer."""
        __tracebackhide__ = True
        if self._answer is None:
            ended = f"ended with {_words(self.wait())}" if self.ended else "executed another program"
            raise ChildFailed(f"the child {ended} before its function returned")
        kind, content = self._answer
        if kind == "value":
            return content
        error, text, frames = content
        error.frames = frames
        raise error from ChildFailed(text)

    @property
    def raised(self) -> BaseException | None:
        """What the function raised, or None."""
        return self._answer[1][0] if self._answer and self._answer[0] == "error" else None

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        return self._status is not None

    def resume(self, argument: Any = None) -> Any:
        """Let a yielding function go on (``argument`` is what its yield returns); return what it yields next."""
        __tracebackhide__ = True
        self._line.sendall(_packed(argument))
        self._listen()
        return self.value

    def wait(self, seconds: float | None = None) -> int:
        """Wait until the process ends by itself; return its exit code, or minus the signal that ended it.

        Raises TimeoutError when it has not ended after so many seconds.
        """
        if self._status is None:
            if seconds is not None:
                descriptor = os.pidfd_open(self.pid)
                ready = select.select([descriptor], [], [], seconds)[0]
                os.close(descriptor)
                if not ready:
                    raise TimeoutError(f"process {self.pid} has not ended after {seconds:g} s")
            self._status = os.waitpid(self.pid, 0)[1]
        return os.waitstatus_to_exitcode(self._status)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def end(self, tree: bool = False) -> None:
        """End the process and reap it; with ``tree`` its descendants are killed as well (they are reaped by pid 1).

        Raises ChildFailed when the function came back in more processes than one.
        """
        if self._line.fileno() < 0:
            return
        below = Outside().descendants(self.pid) if tree and not self.ended else []
        self._line.shutdown(socket.SHUT_WR)
        if not self.ended:
            try:
                self.wait(0.25)
            except TimeoutError:
                self.kill()
                self.wait()
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._line.setblocking(False)
        with self._line, contextlib.suppress(EOFError, OSError):
            kind, content = _unpacked(self._line)
            if kind == "error":  # more than one process has answered
                raise content[0]

    def _listen(self) -> None:
        self._answer = None
        with contextlib.suppress(EOFError, ConnectionError):
            self._answer = _unpacked(self._line)


def _packed(message: Any) -> bytes:
    data = pickle.dumps(message)
    return struct.pack("Q", len(data)) + data


def _unpacked(line: socket.socket) -> Any:
    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = line.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    return pickle.loads(exactly(struct.unpack("Q", exactly(8))[0]))


def frames_of(error: BaseException) -> list[tuple[str, int]]:
    """Return file and line of every call that an exception came through, innermost last."""
    frames = [(entry.filename, entry.lineno or 0) for entry in traceback.extract_tb(error.__traceback__)]
    return frames + list(getattr(error, "frames", []))


def watch_the_clock(early: float = 0.0) -> None:
    """Let this process write its stack to the place that ``alarm`` names when it is still busy at that time.

    By a signal and not by faulthandler's own clock, which is a thread: the kernel refuses setns(2) and
    unshare(CLONE_NEWUSER) to a process with threads.
    """
    if alarm is not None and (left := alarm[1] - time.monotonic() - early) > 0:
        faulthandler.register(signal.SIGALRM, file=alarm[0], all_threads=False, chain=False)
        signal.setitimer(signal.ITIMER_REAL, left)


def ignore_the_clock() -> None:
    """Take back `watch_the_clock`."""
    if alarm is not None:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _serve(line: socket.socket, function: Callable[..., Any], arguments: tuple[Any, ...]) -> NoReturn:
    """The child's whole life: call, answer, wait. It never returns into the frames of the test."""
    me = os.getpid()
    watch_the_clock(0.1)  # before the test's own process, so that our stack is the first one to be read

    def answer(kind: str, content: Any) -> None:
        if os.getpid() != me:  # a child of the child came back here
            kind, stray = "error", "a forked child came back from the function: a child must end itself with os._exit()"
            content = (ChildFailed(stray), stray, [])
        with contextlib.suppress(OSError):
            line.sendall(_packed((kind, content)))
        ignore_the_clock()
        if os.getpid() != me:
            os._exit(70)

    try:
        result = function(*arguments)
        if isinstance(result, GeneratorType):
            steps, argument = result, None
            while True:
                answer("value", steps.send(argument))
                argument = _unpacked(line)
                watch_the_clock(0.1)
        answer("value", result)
    except StopIteration as end:
        answer("value", end.value)
    except EOFError:
        os._exit(0)
    except BaseException as error:
        text, frames = traceback.format_exc(), frames_of(error)
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = ChildFailed(f"{type(error).__name__}: {error}")
        error.__traceback__ = None
        answer("error", (error, text, frames))
    try:
        _unpacked(line)  # nothing more will come but the end
    except (EOFError, OSError):
        pass
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(0)


def _words(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


# -------------------------------------------------------------------------------------------------- from the outside


class Outside:
    """What can be read about a process from outside, in /proc. A pid is one of the reader's own pid namespace."""

    KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")

    def namespace(self, kind: str, pid: int | str = "self") -> int:
        """Return the number of a namespace of a process: ``kind`` as in /proc/PID/ns ("uts", "pid_for_children")."""
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino

    def namespaces(self, pid: int | str = "self") -> dict[str, int]:
        """Return the numbers of all namespaces of a process by kind."""
        return {kind: self.namespace(kind, pid) for kind in self.KINDS}

    def entered(self, pid: int) -> set[str]:
        """Return the kinds of namespace in which a process is elsewhere than we are."""
        ours = self.namespaces()
        return {kind for kind, number in self.namespaces(pid).items() if ours[kind] != number}

    def status(self, pid: int | str = "self") -> dict[str, str]:
        """Return /proc/PID/status as a dictionary ("NSpid": "7\\t1")."""
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def pids_inside(self, pid: int) -> list[int]:
        """Return the pids of one process, ours first, then one per pid namespace further in (NSpid)."""
        return [int(number) for number in self.status(pid)["NSpid"].split()]

    def state(self, pid: int) -> str:
        """Return the letter of a process's state ("S", "Z" for a zombie), or "" when there is no such process."""
        try:
            return self.status(pid)["State"][:1]
        except (FileNotFoundError, ProcessLookupError):
            return ""

    def command(self, pid: int) -> list[str]:
        """Return the command line of a process."""
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]

    def processes(self) -> dict[int, int]:
        """Return every process that we see: pid -> pid of its parent."""
        found = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError, IndexError):
                    found[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
        return found

    def children(self, pid: int) -> list[int]:
        """Return the pids of a process's children, oldest first."""
        return sorted(child for child, parent in self.processes().items() if parent == pid)

    def descendants(self, pid: int) -> list[int]:
        """Return the pids of a process's children, their children and so on."""
        table, found = self.processes(), [pid]
        for above in found:
            found += [child for child, parent in table.items() if parent == above]
        return found[1:]

    def mounts(self, pid: int | str = "self") -> list[cage.Mount]:
        """Return the mounts that a process sees."""
        return cage.mounts(pid)

    def path(self, pid: int, path: str) -> str:
        """Return a path through which we see what a process sees at ``path`` (/proc/PID/root/...)."""
        return f"/proc/{pid}/root/{path.lstrip('/')}"

    def until(self, condition: Callable[[], Any], seconds: float = 1.0) -> Any:
        """Ask a question again and again until the answer is true; return the last answer (false after the time)."""
        deadline = time.monotonic() + seconds
        while not (answer := condition()) and time.monotonic() < deadline:
            time.sleep(0.002)
        return answer


# --------------------------------------------------------------------------------------------------- programs of ours


@dataclass(frozen=True)
class Ran:
    """How a program ended: exit code (128 + n: signal n), and what it wrote."""

    status: int
    stdout: str
    stderr: str


def run_script(path: str | Path, *arguments: str, stdin: str = "", environment: dict[str, str] | None = None) -> Ran:
    """Run a Python file as ``__main__`` in a forked child and return how it ended.

    The child has the modules of this process: in the judge's child they are the participant's, which a new
    interpreter would not know.
    """
    outputs = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdin", "stdout", "stderr")]
    os.write(outputs[0], stdin.encode())
    os.lseek(outputs[0], 0, os.SEEK_SET)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if not pid:
        _be_script(str(path), arguments, outputs, environment or {})
    status = cage._exit_code(os.waitpid(pid, 0)[1])
    texts = []
    for descriptor in outputs[1:]:
        texts.append(os.pread(descriptor, 1 << 24, 0).decode(errors="replace"))
    for descriptor in outputs:
        os.close(descriptor)
    return Ran(status, *texts)


def _be_script(path: str, arguments: tuple[str, ...], outputs: list[int], environment: dict[str, str]) -> NoReturn:
    status = 1
    try:
        for number, descriptor in enumerate(outputs):
            os.dup2(descriptor, number)
        sys.stdin = open(0, closefd=False)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", 1, closefd=False)  # as the real ones buffer
        os.environ.update(environment)
        sys.argv = [path, *arguments]
        runpy.run_path(path, run_name="__main__")
        status = 0
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)  # as an interpreter would
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status & 0xFF)


# --------------------------------------------------------------------------------------------------- what is left over


def snapshot() -> dict[str, set[str]]:
    """Return what a test can leave behind in its cage: kind -> descriptions."""
    seen: dict[str, set[str]] = {
        "mount": {f"{mount.kind} on {mount.point}" for mount in cage.mounts()},
        "host name": {" ".join((os.uname().nodename, Path("/proc/sys/kernel/domainname").read_text().strip()))},
        "interface": {name for _, name in socket.if_nameindex()},
        "cgroup": set(_cgroups()),
        "file": {*_files(cage.STATE_ROOT), *_files("/run"), *_files("/dev/shm"), *_files("/dev/mqueue")},
        "entry of /": set(os.listdir("/")),
        "process": set(),
        "System V object": set(),
    }
    for pid in Outside().processes():
        if pid not in (1, os.getpid()):
            try:
                words = " ".join(Outside().command(pid))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended, and was waited for, since the listing
            seen["process"].add(f"{pid} ({words or 'ended, but nobody waited for it'})")
    for kind in ("shm", "sem", "msg"):
        lines = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
        seen["System V object"] |= {f"{kind} {' '.join(line.split()[:2])}" for line in lines}
    return seen


def _cgroups() -> Iterator[str]:
    for hierarchy in cage.hierarchies():
        for directory, _, _ in os.walk(hierarchy.point):
            if os.path.basename(directory) != "init" and cage.PREFIX not in directory:
                yield directory


def _files(top: str) -> Iterator[str]:
    for directory, directories, files in os.walk(top):
        # mount(8) keeps notes of its own in /run/mount
        own = ("cage-proc", "mount") if directory == "/run" else ()
        directories[:] = [name for name in directories if name not in own and "pytest-of-" not in name]
        for name in directories + files:
            yield os.path.join(directory, name)


def differences(before: dict[str, set[str]], patience: float = 0.5) -> list[str]:
    """Return a sentence for each difference between a snapshot and now.

    The end of a process and of an interface take a moment: we look again until ``patience`` seconds are over.
    """
    deadline = time.monotonic() + patience
    while True:
        now = snapshot()
        found = [f"{kind} left: {thing}" for kind in now for thing in sorted(now[kind] - before[kind])]
        found += [f"{kind} gone: {thing}" for kind in now for thing in sorted(before[kind] - now[kind])]
        if not found or time.monotonic() >= deadline:
            return found
        time.sleep(0.01)

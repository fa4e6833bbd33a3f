"""Chapter 12: how a parent and the child that becomes a container's process talk to each other.

Two pipes join them. On the *report* the child tells its narration, that its walls stand, or why they do not; it is
close-on-exec, so its end without a complaint is the proof that the exec happened. On the *gate* the child waits for
its system call filter, which the parent makes meanwhile; if the parent dies first, the child reads the end of the pipe
and ends too. A terminal's master comes over a socket.

Rules of the room: `begin` is the one place where a container's process is forked, for `launch` and for `join`. The
child holds no descriptor of its parent's but the few that `_arrange` puts into their places.

Manual pages: pipe(7), unix(7) "SCM_RIGHTS", fcntl(2), close_range(2).
"""

from __future__ import annotations

import fcntl
import os

from minirt import errors, state, trace
from minirt.kernel import process
from minirt.process import enter, program

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

# Where the child keeps its descriptors; a terminal's channel comes before the extra one, where there is one.
REPORT, GATE, PROGRAM, MASTER, EXTRA = program.REPORT, 4, 5, 6, 6


class Handle:
    """A process waiting behind its walls, as its parent holds it: `pid`, `pidfd`, `master` (of its pty, else -1)."""

    def __init__(self, number: int, pidfd: int, report: int, gate: int, channel: _socket.socket | None,
                 name: str) -> None:
        self.pid, self.pidfd, self.master = number, pidfd, -1
        self._report, self._gate, self._channel, self._name = report, gate, channel, name
        self.filter = b""  # the system call filter that goes through the gate
        self._rest = b""
        self._ready = False

    def ready(self) -> None:
        """Wait until the walls stand. Raises MinirtError with the sentence and exit code of what went wrong."""
        while not self._ready:
            if not self._read():
                raise errors.MinirtError("the container's process was killed while it built its walls")
        if self._channel is not None:
            self.master = _receive(self._channel)
            self._channel = None

    def start(self) -> None:
        """Let the process become its command; returns when the exec has happened. Raises MinirtError when it fails."""
        self.open_gate()
        if len(self._rest) == 4:  # what the sealed program writes: a negative error number
            raise enter.exec_failure(-int.from_bytes(self._rest, "little", signed=True), self._name)

    def open_gate(self) -> None:
        """Let the process go on, and read its report to the end. Raises what it reports as failed."""
        if not self._ready:
            self.ready()
        try:
            state.write_all(self._gate, len(self.filter).to_bytes(4, "little") + self.filter)
        except BrokenPipeError:
            raise errors.MinirtError("the container's process was killed while it waited to start") from None
        os.close(self._gate)
        while self._read():
            pass
        os.close(self._report)

    def kill(self) -> None:
        """Kill the process, and with number 1 its whole pid namespace."""
        try:
            process.send_signal(self.pidfd, process.SIGKILL)
        except ProcessLookupError:
            pass

    def wait(self) -> int:
        """Wait for the end of the process and return its raw wait status (`process.exit_code` reads it)."""
        return os.waitpid(self.pid, 0)[1]

    def _read(self) -> bool:
        """Take in what the child reports; False at the end of the pipe. Raises what the child reports as failed."""
        data = os.read(self._report, 1 << 16)
        self._rest += data
        # Behind the lines come the numbers that the last program writes. A byte of a pid may look like the end of a
        # line, but no pid like the beginning of one: it has 22 bits, so its third byte is below any letter.
        while b"\n" in self._rest and self._rest[:2] == b'{"' and self._rest[2:3].isalpha():
            line, _, self._rest = self._rest.partition(b"\n")
            event = state.loads(line)
            if "step" in event:
                trace.step(*event["step"])
            elif "ready" in event:
                self._ready = True
            else:
                raise failure(*event["failed"])
        return bool(data)


class Joined(Handle):
    """A process whose last program forks (`program.JOIN`), so that the command is in another pid namespace; after
    `start` the `pid` and `pidfd` are those of the command itself."""

    def start(self) -> None:
        """Let the process become its command. Raises MinirtError when it fails; `wait` is still to be called then."""
        self.open_gate()
        answers = [int.from_bytes(self._rest[at: at + 4], "little", signed=True) for at in (0, 4) if self._rest[at:]]
        if not answers:
            raise errors.MinirtError("the joining process was killed")
        # The two halves write on their own: the child may have failed before its parent tells its pid.
        born = next((number for number in answers if number > 0), 0)
        if born:
            self.wait()  # the half that only told the pid
            os.close(self.pidfd)
            self.pid, self.pidfd = born, os.pidfd_open(born)
        failed = next((number for number in answers if number < 0), 0)
        if failed:
            raise enter.exec_failure(-failed, self._name)


def begin(wanted: dict[str, Any], stdio: tuple[int, int, int], last: int, birth: Callable[[], tuple[int, int]],
          child: Callable[[], int], kind: type[Handle] = Handle, extra: int = -1) -> Handle:
    """Fork a child by `birth` and let it call `child`; return the parent's handle of it, of the class `kind`.

    `wanted` is the "process" of a specification, `stdio` what becomes the child's standard descriptors, `last` the
    sealed program, which is closed here; `extra` is one descriptor more that the child needs. What `child` raises is
    reported, what it returns is the child's exit code.
    """
    report_out, report = os.pipe()
    gate, gate_in = os.pipe()
    ours = theirs = None
    if wanted.get("terminal"):
        import _socket

        ours, theirs = _socket.socketpair()
    number, pidfd = birth()
    if number == 0:
        code = 125
        try:
            _arrange([*stdio, report, gate, last, theirs.fileno() if theirs else -1, extra])
            if trace.enabled():
                trace.on(REPORT)
            code = child()
        except BaseException as error:
            tell_failure(error)
        finally:
            os._exit(code)
    for descriptor in (report, gate, last):
        os.close(descriptor)
    if theirs is not None:
        theirs.close()
    return kind(number, pidfd, report_out, gate_in, ours, wanted["args"][0])


def _arrange(wanted: list[int]) -> None:
    """Give each of the child's descriptors (-1: none) its number, by its place in the list, and close all others: locks
    and files of the parent."""
    safe = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64) for descriptor in wanted if descriptor >= 0]
    for place, descriptor in enumerate(safe):
        os.dup2(descriptor, place, inheritable=place <= REPORT)
    process.close_from(len(safe))


def _receive(channel: _socket.socket) -> int:
    """The pty's master, as the child sent it."""
    import _socket

    _, ancillary, _, _ = channel.recvmsg(1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    channel.close()
    return int.from_bytes(ancillary[0][2][:4], "little")


# -- the child's side ----------------------------------------------------------------------------------------------


def pass_gate() -> bytes | None:
    """In the child: say that the walls stand, and wait until the parent opens the gate. Return the system call filter
    that comes with it, empty when there is none, or None when the parent died instead."""
    os.write(REPORT, b'{"ready": 1}\n')
    message = b"".join(iter(lambda: os.read(GATE, 1 << 16), b""))  # to the end of the pipe
    os.close(GATE)
    whole = len(message) >= 4 and len(message) == 4 + int.from_bytes(message[:4], "little")
    return message[4:] if whole else None


def tell_failure(error: BaseException) -> None:
    """In the child: report why it cannot become its command."""
    os.write(REPORT, state.dumps({"failed": errors.told(error)}).encode() + b"\n")


def send_master(master: int) -> None:
    """In the child: hand the master of its terminal to the parent, and keep none."""
    import _socket

    channel = _socket.socket(fileno=MASTER)
    channel.sendmsg([b"m"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, "little"))])
    channel.close()
    os.close(master)


def open_terminal(root: int, console: bool = True) -> int:
    """In the child: open a pty of the devpts below the container's root, show it as /dev/console if `console`, hand its
    master to the parent, return the slave."""
    from minirt.process import terminal

    master, slave = terminal.open_pair(root)
    if console:
        terminal.attach_console(root, master)
    send_master(master)
    return slave


def take_terminal(slave: int, control: bool = False) -> None:
    """In the child: make the terminal `slave` its standard input, output and error; with `control` also the one of its
    session, from which Ctrl-C comes."""
    for place in (0, 1, 2):
        os.dup2(slave, place)
    os.close(slave)
    if control:
        from minirt.process import terminal

        terminal.control(0)


def failure(code: int, sentence: str) -> errors.MinirtError:
    """The exception for a failure that the child reported."""
    kinds = {126: errors.CannotInvokeError, 127: errors.CommandNotFoundError}
    return kinds.get(code, errors.MinirtError)(sentence)

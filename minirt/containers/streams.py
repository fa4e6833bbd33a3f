"""Chapter 17: the ends of the pipes between a container and those who watch it, none of which may ever block.

The monitor writes to the *clients' own descriptors*: what a container prints takes one read and one write to the
user's terminal. Three things make that safe:

- A descriptor shares its open file description, and so O_NONBLOCK, with everybody who inherited it. Setting the
  flag on the user's terminal would break his shell. So a pipe or a terminal is opened once more by /proc/self/fd/N:
  a new description of the same thing, with the flag, of our own. A regular file never blocks, and its position must
  stay the shared one, so there the descriptor itself is used; a socket has MSG_DONTWAIT.
- What cannot be written at once waits in a bounded buffer; while it is full, the container is not read, and so
  slows down.
- A reader that is gone (EPIPE) closes this outlet and nothing else.

Manual pages: open(2) "O_NONBLOCK", "O_NOCTTY", proc(5) "/proc/PID/fd", pipe(7), tty_ioctl(4).
"""

from __future__ import annotations

import _socket
import os
import stat

TYPE_CHECKING = False

CHUNK = 1 << 16  # bytes of one read: what a pipe holds
FULL = 1 << 18  # bytes that may wait for one outlet before its source is no longer read


def leave_shell() -> None:
    """Lets go of everything that came from the command's caller: its three streams, and what else a shell left open."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
    import fcntl

    # What Python opens is close-on-exec; what is not, and is here nevertheless, came through the exec of Python.
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and not fcntl.fcntl(int(name), fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                os.close(int(name))
        except OSError:
            pass  # the directory's own descriptor


def reopen(descriptor: int, flags: int) -> tuple[int, bool]:
    """A descriptor of our own for what `descriptor` refers to, non-blocking where that has a meaning.

    `flags`: os.O_RDONLY or os.O_WRONLY. Returns (descriptor, whether it is a socket). Raises OSError: ENXIO for a
    pipe that nobody reads any more.
    """
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        # NOCTTY: the monitor leads a session without a terminal, and the first one it opened would become its own.
        try:
            return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), False
        except PermissionError:
            pass  # somebody else's terminal (su): then the shared description has to do
    return os.dup(descriptor), stat.S_ISSOCK(kind)


class End:
    """A client's descriptor, in a form that does not block: the descriptor itself, or the socket around it."""

    __slots__ = ("_socket", "descriptor")

    def __init__(self, descriptor: int, socket: bool) -> None:
        self.descriptor = descriptor
        self._socket = _socket.socket(fileno=descriptor) if socket else None

    def close(self) -> None:
        """Closes it; what waited there is lost."""
        if self.descriptor >= 0:
            if self._socket is not None:
                self._socket.detach()
                self._socket = None
            os.close(self.descriptor)
            self.descriptor = -1


class Outlet(End):
    """Where output goes: a descriptor and what waits for it."""

    __slots__ = ("pending",)

    def __init__(self, descriptor: int, socket: bool = False) -> None:
        super().__init__(descriptor, socket)
        self.pending = b""

    @classmethod
    def of(cls, descriptor: int) -> Outlet | None:
        """The outlet to what `descriptor` refers to; None when it is closed or nobody reads it."""
        try:
            return cls(*reopen(descriptor, os.O_WRONLY))
        except OSError:
            return None

    def write(self, data: bytes) -> bool:
        """Writes what goes now and keeps the rest. Returns False when nobody reads any more; then it is closed."""
        self.pending = self.pending + data if self.pending else data
        return self.flush()

    def flush(self) -> bool:
        """Writes what waits, as far as it goes now. Returns as `write`."""
        try:
            while self.pending:
                if self._socket is not None:
                    done = self._socket.send(self.pending, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
                else:
                    done = os.write(self.descriptor, self.pending)
                self.pending = self.pending[done:]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return False
        return True

    @property
    def full(self) -> bool:
        """Whether so much waits that no more should be read for it."""
        return len(self.pending) >= FULL

    def close(self) -> None:
        """Closes it; what waited is lost."""
        self.pending = b""
        super().close()


class Inlet(End):
    """Where input comes from: a client's standard input."""

    __slots__ = ("_held", "_keys")

    def __init__(self, descriptor: int, socket: bool = False, keys: str = "") -> None:
        super().__init__(descriptor, socket)
        self._keys = keys.encode("latin-1")
        self._held = b""

    @classmethod
    def of(cls, descriptor: int, keys: str = "") -> Inlet | None:
        """The inlet from what `descriptor` refers to; None when it is closed. `keys`: typing these means to leave."""
        try:
            return cls(*reopen(descriptor, os.O_RDONLY), keys)
        except OSError:
            return None

    def read(self) -> tuple[bytes, str]:
        """What is there now, and what became of it: `more` may come, it has come to its `end`, or the user wants to
        `detach`.
        """
        try:
            if self._socket is not None:
                data = self._socket.recv(CHUNK, _socket.MSG_DONTWAIT)
            else:
                data = os.read(self.descriptor, CHUNK)
        except BlockingIOError:
            return b"", "more"
        except OSError:
            return self._held, "end"
        if not data:
            return self._held, "end"
        return self._without_keys(data) if self._keys else (data, "more")

    def _without_keys(self, data: bytes) -> tuple[bytes, str]:
        """Looks for the keys. What may be their beginning is held back until the next byte shows what was meant."""
        data, self._held = self._held + data, b""
        before, found, _ = data.partition(self._keys)
        if found:
            return before, "detach"
        for length in range(len(self._keys) - 1, 0, -1):
            if data.endswith(self._keys[:length]):
                return data[:-length], self._hold(data[-length:])
        return data, "more"

    def _hold(self, data: bytes) -> str:
        self._held = data
        return "more"


class Source:
    """What a container prints: the reading end of its pipe or its terminal's master, and how it is called in the
    log.
    """

    __slots__ = ("descriptor", "name", "number")

    def __init__(self, descriptor: int, name: str, number: int) -> None:
        self.descriptor, self.name, self.number = descriptor, name, number
        os.set_blocking(descriptor, False)

    def read(self) -> bytes | None:
        """What is there now: some bytes, none yet (empty), or None at the end."""
        try:
            return os.read(self.descriptor, CHUNK) or None
        except BlockingIOError:
            return b""
        except OSError:
            return None  # EIO: the last one who had the terminal open is gone

    def close(self) -> None:
        """Closes it: who writes there from now on gets SIGPIPE."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

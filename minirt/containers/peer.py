"""Chapter 17: who is connected to a monitor, and what the two say to each other.

Messages are JSON, one a line, on two pipes (the command that forked the monitor) or on a socket (whoever came later).

From the client: `{"begin": CONFIGURATION}`, once, from the command that forked it; `{"signal": N}` for the
container; `{"size": [ROWS, COLUMNS]}` of its terminal; `{"raw": SETTINGS}`: it made its terminal raw, and these
were the settings before; `{"go": 1}`: it has told the narration. On a socket first `{"attach":
[STDIN, STDOUT, STDERR]}` with that many descriptors, or `{"wait": 1}`, or `{"remove": 1}`: remove it at its end,
or `{"name": NAME}`: it has a new one.

From the monitor: `{"error": SENTENCE, "code": N}`; `{"walls": 1}`: tell the narration now;
`{"started": ID}`; `{"left": 1}`: the user detached; `{"broken": N}`: nobody reads that output of its any more;
`{"exit": CODE}`.

Manual pages: unix(7), "SCM_RIGHTS".
"""

from __future__ import annotations

import os

from minirt import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirt.containers.record import Container
    from minirt.containers.streams import Inlet, Outlet

KEYS = "\x10\x11"  # Ctrl-P Ctrl-Q: those by which one leaves a container's terminal


def say(descriptor: int, message: dict[str, Any]) -> bool:
    """Writes one message. Returns False when the other side is gone."""
    try:
        state.write_all(descriptor, state.dumps(message).encode() + b"\n")
        return True
    except OSError:
        return False


class Ear:
    """The receiving half: cuts what comes on a descriptor into messages."""

    __slots__ = ("_rest", "descriptor")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._rest = b""

    def hear(self) -> list[dict[str, Any]] | None:
        """Waits for something and returns the messages that came with it; None when the other side is gone."""
        try:
            data = os.read(self.descriptor, 1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return self.take(data) if data else None

    def take(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [state.loads(line) for line in lines]


class Peer:
    """A client, as the monitor holds it: where to speak, where to hear, where its output goes, where its input
    comes from.

    `terminal`: the settings of its terminal before it was made raw, as `{"raw": ...}` told them.
    """

    __slots__ = ("ear", "inlet", "mouth", "outlets", "terminal")

    def __init__(self, hear: int, speak: int) -> None:
        self.ear = Ear(hear)
        self.mouth = speak
        self.outlets: dict[int, Outlet] = {}
        self.inlet: Inlet | None = None
        self.terminal: Any = None

    def say(self, message: dict[str, Any]) -> bool:
        """Writes one message. Returns False when the client is gone."""
        return self.mouth >= 0 and say(self.mouth, message)

    def close(self) -> None:
        """Gives back every descriptor of the client's, at once."""
        for outlet in self.outlets.values():
            outlet.close()
        self.outlets = {}
        if self.inlet is not None:
            self.inlet.close()
            self.inlet = None
        for descriptor in {self.ear.descriptor, self.mouth} - {-1}:
            os.close(descriptor)
        self.ear.descriptor = self.mouth = -1


def connect(container: Container, message: dict[str, Any], descriptors: tuple[int, ...]) -> int:
    """Connects to the monitor of a container, says one thing and hands over descriptors.

    Returns the descriptor of the connection, -1 when there is no monitor. Raises OSError for other reasons.
    """
    import _socket

    call = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        directory = os.open(container.run_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    packed = b"".join(descriptor.to_bytes(4, "little") for descriptor in descriptors)
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)] if packed else []
    try:
        call.connect(f"/proc/self/fd/{directory}/socket")
        call.sendmsg([state.dumps(message).encode() + b"\n"], ancillary)
        return call.detach()
    except (FileNotFoundError, ConnectionError):  # it was not there, or hung up before it took this call
        call.close()
        return -1
    finally:
        os.close(directory)

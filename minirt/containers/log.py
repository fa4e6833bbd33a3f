"""Chapter 17: the log of a container: written by its monitor, read by `logs`.

The format is that of Docker's json-file driver, one JSON document a line:

    {"log":"some text\\n","stream":"stdout","time":"2026-01-31T09:05:07.123456789Z"}

Docker writes one such line for each line that the container prints. Here it is one for each *read* of the monitor,
with as many lines as came at once, and the reader takes them apart: so logging costs a few `replace` calls for 64
KiB instead of a walk over every line. Bytes that are no UTF-8 stay as they are.

Sources: Docker's documentation, "JSON File logging driver"; RFC 8259, section 7.
"""

from __future__ import annotations

import os

from minirt import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

COMMON = ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\n", b"\\n"), (b"\r", b"\\r"), (b"\t", b"\\t"))
RARE = tuple((bytes((code,)), b"\\u%04x" % code) for code in range(32) if bytes((code,)) not in b"\n\r\t")
CONTROL = bytes(code for code in range(32) if code not in (9, 10, 13))
HEAD, MIDDLE, TIME, TAIL = b'{"log":"', b'","stream":"', b'","time":"', b'"}'


class Writer:
    """Appends to a log. When the disk is full, logging stops; the container goes on."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        size = os.fstat(self.descriptor).st_size
        if size and os.pread(self.descriptor, 1, size - 1) != b"\n":
            os.write(self.descriptor, b"\n")  # a line cut short by a crash must not swallow the next

    def write(self, stream: str, data: bytes) -> None:
        """Records that `data` came on `stream` (stdout, stderr) now."""
        if self.descriptor < 0:
            return
        line = HEAD + escaped(data) + MIDDLE + stream.encode() + TIME + state.now().encode() + TAIL + b"\n"
        try:
            while line:
                line = line[os.write(self.descriptor, line):]
        except OSError:
            self.close()

    def close(self) -> None:
        """Closes the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def escaped(data: bytes) -> bytes:
    """`data` as the inside of a JSON string."""
    for plain, code in COMMON:
        if plain in data:
            data = data.replace(plain, code)
    if len(data.translate(None, CONTROL)) != len(data):
        for plain, code in RARE:
            if plain in data:
                data = data.replace(plain, code)
    return data


def unescaped(data: bytes) -> bytes:
    """The bytes that `escaped` was given."""
    if b"\\" not in data:
        return data
    # Between two double backslashes every backslash begins an escape of its own, so the parts can be read one by one.
    parts = data.split(b"\\\\")
    for index, part in enumerate(parts):
        if b"\\" in part:
            for plain, code in COMMON[1:]:
                part = part.replace(code, plain)
            if b"\\u" in part:
                for plain, code in RARE:
                    part = part.replace(code, plain)
            parts[index] = part
    return b"\\".join(parts)


class Entry:
    """One piece of output: `stream` (stdout, stderr), `time` (RFC 3339), `data`: what one read of the monitor
    brought.
    """

    __slots__ = ("data", "stream", "time")

    def __init__(self, stream: str, time: str, data: bytes) -> None:
        self.stream, self.time, self.data = stream, time, data


def parse(line: bytes) -> Entry | None:
    """One line of a log; None for one that is not whole."""
    if not (line.startswith(HEAD) and line.endswith(TAIL)):
        return None
    text, found, rest = line[len(HEAD): -len(TAIL)].rpartition(MIDDLE)
    stream, also, time = rest.partition(TIME)
    return Entry(stream.decode(), time.decode(), unescaped(text)) if found and also else None


class Reader:
    """Reads a log that may still grow."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._rest = b""

    def entries(self) -> Iterator[Entry]:
        """What has been added since the last call, to the present end of the file."""
        while part := os.read(self.descriptor, 1 << 18):
            *lines, self._rest = (self._rest + part).split(b"\n")
            for line in lines:
                entry = parse(line)
                if entry is not None:
                    yield entry

    def close(self) -> None:
        """Closes the file."""
        os.close(self.descriptor)


def lines(entries: Iterator[Entry]) -> Iterator[Entry]:
    """The same, taken apart so that each entry is one line or the piece of one."""
    for entry in entries:
        for piece in entry.data.splitlines(keepends=True) if b"\r" not in entry.data else _split(entry.data):
            yield Entry(entry.stream, entry.time, piece)


def _split(data: bytes) -> list[bytes]:
    """By newlines alone: `splitlines` would also split at a carriage return."""
    pieces = [piece + b"\n" for piece in data.split(b"\n")]
    pieces[-1] = pieces[-1][:-1]
    return [piece for piece in pieces if piece]

"""Chapter 17: the log of a container: written by its monitor, read by `logs`.

The format is that of Docker's json-file driver, one JSON document a line:

    {"log":"some text\\n","stream":"stdout","time":"2026-01-31T09:05:07.123456789Z"}

Docker writes one such line for each line that the container prints. Here it is one for each *read* of the monitor,
with as many lines as came at once, and the reader takes them apart: so logging costs a few `replace` calls for 64
KiB instead of a walk over every line. Bytes that are no UTF-8 stay as they are.

A log that has reached its size, where one was asked for, is put aside as `log.1`, that one as `log.2`, and so on to
the number of files; the oldest goes. A reader finds its way by what a file *is* (its inode), since names move on.

Sources: Docker's documentation, "JSON File logging driver", "Local file logging driver"; RFC 8259, section 7.
"""

from __future__ import annotations

import os

from minirt import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# the drivers, and what each is set to unless told otherwise
DEFAULTS: dict[str, dict[str, str]] = {"json-file": {}, "local": {"max-size": "20m", "max-file": "5"}, "none": {}}
COMMON = ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\n", b"\\n"), (b"\r", b"\\r"), (b"\t", b"\\t"))
RARE = tuple((bytes((code,)), b"\\u%04x" % code) for code in range(32) if bytes((code,)) not in b"\n\r\t")
CONTROL = bytes(code for code in range(32) if code not in (9, 10, 13))
HEAD, MIDDLE, TIME, TAIL = b'{"log":"', b'","stream":"', b'","time":"', b'"}'


class Writer:
    """Appends to a log. When the disk is full, logging stops; the container goes on."""

    def __init__(self, path: str, settings: dict[str, Any] | None = None) -> None:
        """`settings`: "LogConfig" of the container, where it has one: {"Type": driver, "Config": {option: text}}."""
        self.path, self.limit, self.files = path, 0, 1
        self.descriptor = -1
        if settings is not None:
            if settings["Type"] == "none":
                return
            self.limit, self.files = bounds(settings)
        self._open()
        if self.size and os.pread(self.descriptor, 1, self.size - 1) != b"\n":
            os.write(self.descriptor, b"\n")  # a line cut short by a crash must not swallow the next

    def _open(self) -> None:
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self.size = os.fstat(self.descriptor).st_size

    def _begin_anew(self) -> None:
        """Put the full log aside."""
        self.close()
        for number in range(self.files - 1, 0, -1):
            try:
                os.rename(aside(self.path, number - 1), aside(self.path, number))
            except FileNotFoundError:
                continue  # there have not been so many yet
        if self.files == 1:
            os.unlink(self.path)
        self._open()

    def write(self, stream: str, data: bytes) -> None:
        """Records that `data` came on `stream` (stdout, stderr) now."""
        if self.descriptor < 0:
            return
        line = HEAD + escaped(data) + MIDDLE + stream.encode() + TIME + state.now().encode() + TAIL + b"\n"
        try:
            if self.limit and self.size >= self.limit:
                self._begin_anew()
            self.size += len(line)
            while line:
                line = line[os.write(self.descriptor, line):]
        except OSError:
            self.close()

    def close(self) -> None:
        """Closes the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def bounds(settings: dict[str, Any]) -> tuple[int, int]:
    """How large a log may grow, in bytes (0: without limit), and how many files there may be, by its "LogConfig"."""
    options = {**DEFAULTS[settings["Type"]], **settings["Config"]}
    size = 0
    if "max-size" in options:
        from minirt.units import parse_size

        size = parse_size(options["max-size"])
    return size, int(options.get("max-file", "1"))


def aside(path: str, number: int) -> str:
    """The name of the log that was put aside that many times; 0 is the one that is written."""
    return f"{path}.{number}" if number else path


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
    """Reads a log that may still grow, the oldest file of it first."""

    def __init__(self, path: str) -> None:
        self.path, self.descriptor, self._rest = path, -1, b""
        self.descriptor = self._successor()
        if self.descriptor < 0:
            raise FileNotFoundError(path)

    def entries(self) -> Iterator[Entry]:
        """What has been added since the last call, to the present end of the log."""
        while True:
            yield from self._file()
            after = self._successor()
            if after < 0:
                return
            yield from self._file()  # what was written to ours before it was put aside
            os.close(self.descriptor)
            self.descriptor, self._rest = after, b""

    def _file(self) -> Iterator[Entry]:
        while part := os.read(self.descriptor, 1 << 18):
            *lines, self._rest = (self._rest + part).split(b"\n")
            for line in lines:
                entry = parse(line)
                if entry is not None:
                    yield entry

    def _successor(self) -> int:
        """The file that was begun after ours, or the oldest when ours is gone, opened; -1 where there is none."""
        while True:
            ours = os.fstat(self.descriptor) if self.descriptor >= 0 else None
            files = self._files()
            places = [place for place, (_, inode) in enumerate(files) if ours and inode == ours.st_ino]
            if not places and ours and ours.st_nlink and files:
                continue  # it is just being put aside
            place = places[0] if places else len(files)
            if place == 0:
                return -1
            number, inode = files[place - 1]
            try:
                descriptor = os.open(aside(self.path, number), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            if os.fstat(descriptor).st_ino == inode:
                return descriptor
            os.close(descriptor)  # the names have moved on meanwhile

    def _files(self) -> list[tuple[int, int]]:
        """The files of the log, the newest first: how often each was put aside, and its inode."""
        folder, _, name = self.path.rpartition("/")
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return []  # the container is gone
        found = []
        for number in sorted(int(each[len(name) + 1:] or 0) for each in names
                             if each == name or (each.startswith(f"{name}.") and each[len(name) + 1:].isdigit())):
            try:
                found.append((number, os.stat(aside(self.path, number)).st_ino))
            except FileNotFoundError:
                continue
        return found

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

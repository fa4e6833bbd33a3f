"""Ground floor: what happened, one JSON line each, appended to `events.log` below the root.

An append of one line is atomic, so writers need no lock; the fields are those of Docker's events.
"""

from __future__ import annotations

import fcntl
import os
import time

from minirt import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_LIMIT = 4 << 20  # bytes; then the log begins anew and one older file is kept


def append(kind: str, action: str, identifier: str, attributes: dict[str, str] | None = None) -> None:
    """Record that `action` ("create", "die", "pull") happened to the `kind` ("container", "image") with that id. A log
    that cannot be written stops nobody."""
    line = state.dumps({"Type": kind, "Action": action, "timeNano": time.time_ns(),
                        "Actor": {"ID": identifier, "Attributes": attributes or {}}}).encode() + b"\n"
    path = f"{state.root()}/events.log"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        os.write(descriptor, line)
        if os.fstat(descriptor).st_size > _LIMIT:
            _begin_anew(descriptor, path)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _begin_anew(full: int, path: str) -> None:
    """Put the log that is open as `full` aside; of several who find it full one does, and nobody a fresh one."""
    fcntl.flock(full, fcntl.LOCK_EX)
    try:
        if os.path.samestat(os.fstat(full), os.stat(path)):
            os.rename(path, path + ".1")
    except FileNotFoundError:
        pass  # put aside, and nothing has happened since


class Reader:
    """Reads the log on from where it stopped."""

    def __init__(self) -> None:
        self._file, self._rest = -1, b""

    def read(self) -> Iterator[dict[str, Any]]:
        """The events since the last call, oldest first; a line cut short by a crash is passed over."""
        if self._file < 0:
            yield from self._read(self._open(".1"), last=True)
        while True:
            if self._file < 0:
                self._file = self._open("")
                if self._file < 0:
                    return
            try:
                replaced = os.stat(f"{state.root()}/events.log").st_ino != os.fstat(self._file).st_ino
            except FileNotFoundError:
                replaced = False
            yield from self._read(self._file, last=replaced)
            if not replaced:
                return
            self._file = -1

    def _open(self, suffix: str) -> int:
        try:
            return os.open(f"{state.root()}/events.log{suffix}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1

    def _read(self, descriptor: int, last: bool) -> Iterator[dict[str, Any]]:
        """What is new behind a descriptor, -1 for none; `last`: closes it."""
        while descriptor >= 0 and (data := os.read(descriptor, 1 << 16)):
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                try:
                    yield state.loads(line)
                except ValueError:
                    continue
        if last and descriptor >= 0:
            os.close(descriptor)
            self._rest = b""

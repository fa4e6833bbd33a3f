"""Ground floor: what happened, one JSON line each, appended to `events.log` below the root.

An append of one line is atomic, so writers need no lock; the fields are those of Docker's events.
"""

from __future__ import annotations

import os
import time

from minirt import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_LIMIT = 4 << 20  # bytes; then the log begins anew and one older file is kept


def append(kind: str, action: str, identifier: str, attributes: dict[str, str] | None = None) -> None:
    """Record that `action` ("create", "die", "pull") happened to the `kind` ("container", "image") with that id."""
    line = state.dumps({"Type": kind, "Action": action, "timeNano": time.time_ns(),
                        "Actor": {"ID": identifier, "Attributes": attributes or {}}}).encode() + b"\n"
    path = f"{state.root()}/events.log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, line)
        if os.fstat(descriptor).st_size > _LIMIT:
            os.rename(path, path + ".1")
    finally:
        os.close(descriptor)


def read() -> Iterator[dict[str, Any]]:
    """The events, oldest first; a line cut short by a crash is passed over."""
    for name in ("events.log.1", "events.log"):
        try:
            lines = state.read_file(f"{state.root()}/{name}").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            try:
                yield state.loads(line)
            except ValueError:
                continue

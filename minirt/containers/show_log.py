"""Chapter 17: `logs`: what a container printed, shown again, and further as it comes.

What came from its standard output goes to ours, and likewise for errors. Without time stamps and limits the log's
pieces are written as they are; else they are taken apart into lines.
"""

from __future__ import annotations

import time

from minirt import state
from minirt.containers import log, record
from minirt.errors import MinirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

REST = 0.05  # seconds between two looks at a log that is followed


def show(container: record.Container, *, follow: bool, stamps: bool, details: bool, tail: int, since: str, until: str,
         ) -> None:
    """Writes the log of a container to standard output and error.

    `follow`: goes on until the container ends. `stamps`: each line with its time. `details`: each with the labels and
    variables that `--log-opt` names. `tail`: only so many lines from the end, negative for all. `since`, `until`: only
    lines of that time (RFC 3339 as the log has it), empty for no limit. Raises OSError when our own output is closed.
    """
    settings = container.config["HostConfig"].get("LogConfig") or {"Type": "json-file", "Config": {}}
    if settings["Type"] == "none":
        raise MinirtError("configured logging driver does not support reading")
    printer = Printer(stamps, attributes(container.config["Config"], settings["Config"]) + b" " if details else b"")
    try:
        reader = log.Reader(container.log_path)
    except FileNotFoundError:
        return
    try:
        entries = within(reader.entries(), since, until)
        if tail >= 0:
            for entry in last(log.lines(entries), tail):
                printer.show(entry)
        else:
            for entry in entries:
                printer.show(entry)
        while follow:
            # Asked before reading: what is written in between is read once more below.
            alive = state.locked(container.lock_path) and container.running() is not None
            for entry in within(reader.entries(), since, until):
                printer.show(entry)
            if not alive or (until and state.now() > until):
                return
            time.sleep(REST)
    finally:
        reader.close()


def within(entries: Iterable[log.Entry], since: str, until: str) -> Iterator[log.Entry]:
    """Only the entries of that time; times of one form compare as text."""
    for entry in entries:
        if entry.time >= since and (not until or entry.time <= until):
            yield entry


def last(lines: Iterator[log.Entry], number: int) -> list[log.Entry]:
    """The last `number` lines; a line that came in pieces counts once."""
    kept: list[list[log.Entry]] = []
    open_line: dict[str, list[log.Entry]] = {}
    for piece in lines:
        line = open_line.pop(piece.stream, None)
        if line is None:
            line = []
            kept.append(line)
            if len(kept) > 2 * number + 1024:
                del kept[: len(kept) - number]
        line.append(piece)
        if not piece.data.endswith(b"\n"):
            open_line[piece.stream] = line
    return [piece for line in kept[len(kept) - min(number, len(kept)):] for piece in line]


def attributes(config: dict[str, Any], options: dict[str, str]) -> bytes:
    """The labels and variables of a container that `--log-opt labels=A,B` and `env=C` name: `A=1,C=2`, as in a URL."""
    environment = dict(text.split("=", 1) for text in config["Env"])
    found = {name: table[name] for option, table in (("labels", config["Labels"]), ("env", environment))
             for name in options.get(option, "").split(",") if name in table}
    if not found:
        return b""
    from urllib.parse import quote_plus

    return ",".join(f"{quote_plus(name)}={quote_plus(found[name])}" for name in sorted(found)).encode()


class Printer:
    """Writes entries, with a time stamp and with `details` at the beginning of each line where those are wanted."""

    def __init__(self, stamps: bool, details: bytes = b"") -> None:
        self.stamps, self.details = stamps, details
        self.inside: dict[str, bool] = {}  # streams whose last line has not ended yet

    def show(self, entry: log.Entry) -> None:
        """Writes one entry to the stream that it came from."""
        descriptor = 2 if entry.stream == "stderr" else 1
        if not self.stamps and not self.details:
            state.write_all(descriptor, entry.data)
            return
        for line in log.lines(iter((entry,))):
            head = entry.time.encode() + b" " + self.details if self.stamps else self.details
            state.write_all(descriptor, line.data if self.inside.get(entry.stream) else head + line.data)
            self.inside[entry.stream] = not line.data.endswith(b"\n")

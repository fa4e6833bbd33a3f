"""`minirt --explain COMMAND`: the steps that the command takes, told on standard error in their order.

All processes of one command append their events to one file in memory (a memfd): an append of a line is atomic, and
nobody ever waits for a reader. The command's own process reads on from where it stopped and prints: at the moments
that `tell` is called (`run` does so before it shows what the container says) and once more at the end.
"""

from __future__ import annotations

import os

from minirt import state, trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_descriptor = -1
_form = "text"
_offset = 0
_number = 0


def explained(command: Callable[[], int], form: str) -> int:
    """Runs `command` with its narration on. `form`: `text` (numbered lines) or `json`. Returns what it returns."""
    global _descriptor, _form
    # Appending, so that two processes with one open file never overwrite each other.
    memory = os.memfd_create("minirt-explain", os.MFD_CLOEXEC)
    _descriptor = os.open(f"/proc/self/fd/{memory}", os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    os.close(memory)
    _form = form
    trace.on(_descriptor)
    try:
        return command()
    finally:
        trace.off()
        tell()
        os.close(_descriptor)
        _descriptor = -1


def tell() -> None:
    """Prints the events that came since the last call; nothing when narration is off."""
    global _offset, _number
    if _descriptor < 0:
        return
    data = b""
    while part := os.pread(_descriptor, 1 << 16, _offset + len(data)):
        data += part
    whole = data[: data.rfind(b"\n") + 1]
    _offset += len(whole)
    lines = []
    for line in whole.splitlines():
        event = state.loads(line)
        if "step" not in event:
            continue
        _number += 1
        if _form == "json":
            chapter, text, call = event["step"]
            lines.append(state.dumps({"number": _number, "chapter": chapter, "step": text, "call": call}))
        else:
            lines.append(trace.render(_number, event["step"]))
    if lines:
        os.write(2, ("\n".join(lines) + "\n").encode())

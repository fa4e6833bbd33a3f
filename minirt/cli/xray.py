"""`minirt xray`: its options, and nothing else. What it sees is in `minirt.process.xray`."""

from __future__ import annotations

from minirt import state
from minirt.cli import format as formats
from minirt.cli.options import Command, Option, Options
from minirt.containers import record
from minirt.errors import ConflictError


def form(text: str) -> str:
    """`--format`: text, svg or json."""
    if text not in ("text", "svg", "json"):
        raise ValueError(f"invalid format: '{text}': must be one of text, svg or json")
    return text


def xray(options: Options) -> int:
    """`minirt xray`."""
    from minirt.process import xray as room

    container = record.find(options.arguments[0])
    now = record.derive(container)
    if not now.alive:
        raise ConflictError(f"container {options.arguments[0]} is not running: there is nothing to see through")
    seen = room.look(now.pid)
    shown = {"text": room.as_text, "svg": room.as_svg, "json": lambda it: state.dumps(it, indent=4) + "\n"}
    formats.show(shown[options["format"]](seen))
    return 0


COMMANDS = {
    "xray": Command(
        "xray",
        "[OPTIONS] CONTAINER",
        "Show which walls stand around a running container, by what the kernel says",
        (Option("format", "string", "Format output: text, svg or json", chapter=12, default="text", check=form),),
        action=xray,
        minimum=1,
        maximum=1,
    ),
}

"""`minirt version`: which minirt this is and what it stands on. In the roof, since it looks at everything by name."""

from __future__ import annotations

import os
import sys

from minirt import state
from minirt.cli import format as formats
from minirt.cli.options import Command, Option, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = "0.1.0"
# The Engine API whose words and columns are followed.
API = "1.49"


def facts() -> dict[str, Any]:
    """What `version` shows, in the shape that `docker version --format json` has."""
    kernel = os.uname()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(kernel.machine, kernel.machine)
    common = {
        "Version": VERSION,
        "ApiVersion": API,
        "Os": "linux",
        "Arch": machine,
        "PythonVersion": sys.version.split()[0],
    }
    return {
        "Client": {**common, "Context": "default"},
        "Server": {
            "Platform": {"Name": "minirt, no daemon"},
            **common,
            "KernelVersion": kernel.release,
            "Experimental": False,
        },
    }


def version(options: Options) -> int:
    """`minirt version [--format]` and `minirt --version`."""
    if options["short"]:
        formats.show(f"minirt version {VERSION}\n")
        return 0
    known = facts()
    template = options["format"]
    if template == "json":
        formats.show(state.dumps(known, docker=True) + "\n")
        return 0
    if template:
        from minirt.cli import shapes

        parsed = formats.parse(template, code=formats.MALFORMED, name="version")
        formats.show(shapes.render(parsed, known) + "\n")
        return 0
    client = known["Client"]
    rows = (
        ("Version", VERSION),
        ("API version", API),
        ("Python version", client["PythonVersion"]),
        ("Kernel version", os.uname().release),
        ("OS/Arch", f"linux/{client['Arch']}"),
    )
    formats.show("minirt (client and engine in one: no daemon)\n" + "".join(f" {a + ':':<19}{b}\n" for a, b in rows))
    return 0


COMMANDS = {
    "version": Command(
        "version",
        "[OPTIONS]",
        "Show the version of minirt and what it stands on",
        (
            Option("format", "string", "Format output using 'json' or a template", short="f"),
            Option("short", help="Print the version only"),
        ),
        action=version,
        maximum=0,
    )
}

"""`minirt version`: which minirt this is and what it stands on. In the roof, since it looks at everything by name."""

from __future__ import annotations

import os
import sys

from minirt.cli import format as formats
from minirt.cli.options import Command, Option, Options

VERSION = "0.1.0"
# The Engine API whose words and columns are followed.
API = "1.49"


def facts() -> dict[str, object]:
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
    if template:
        text = formats.to_json(known) if template == "json" else formats.Template(template).render(known)
        formats.show(text + "\n")
        return 0
    client = known["Client"]
    assert isinstance(client, dict)
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

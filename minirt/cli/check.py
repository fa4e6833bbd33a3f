"""`minirt system check`."""

from __future__ import annotations

from minirt.cli import format as formats
from minirt.cli.options import Command, Option, Options


def check(options: Options) -> int:
    """`minirt system check`."""
    from minirt.images import check

    faults = check.check(options["repair"])
    formats.show("".join(f"{each}\n" for each in faults))
    if not faults:
        formats.show("The image store is sound.\n")
    elif options["repair"]:
        formats.show(f"{len(faults)} repaired.\n")
        return 0
    return 1 if faults else 0


COMMANDS = {
    "system check": Command(
        "system check",
        "[OPTIONS]",
        "Check the image store against itself",
        (Option("repair", help="Mend what is found: take away what is damaged, unpack again what can be"),),
        action=check,
        maximum=0,
    ),
}

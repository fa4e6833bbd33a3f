"""`minirt doctor`: what this machine offers and what is missing. In the roof: it asks every room that is there."""

from __future__ import annotations

from minirt import state
from minirt.cli import format as formats
from minirt.cli.options import Command, Option, Options


def examine(options: Options) -> int:
    """`minirt doctor [--format json] [--missing]`. Exit code 1 when `minirt run` cannot work on this machine."""
    from minirt import doctor
    from minirt.errors import UsageError

    if options["format"] not in ("", "text", "json"):
        raise UsageError(f"doctor knows the formats text and json, not {options['format']!r}")
    findings = doctor.examine()
    if options["format"] == "json":
        formats.show(state.dumps(doctor.as_data(findings), indent=2, docker=True) + "\n")
    else:
        formats.show(doctor.as_text(findings, everything=not options["missing"]) + "\n")
    return 0 if doctor.ready(findings) else 1


COMMANDS = {
    "doctor": Command(
        "doctor",
        "[OPTIONS]",
        "Say what this machine offers and what is missing",
        (
            Option("format", "string", "Format output: text or json", short="f"),
            Option("missing", help="Show only what is missing"),
        ),
        action=examine,
        maximum=0,
    )
}

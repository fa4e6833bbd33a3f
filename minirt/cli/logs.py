"""`minirt logs`: its options; what a container printed is read by `minirt.containers.show_log`."""

from __future__ import annotations

from minirt import state, units
from minirt.cli.options import Command, Option, Options
from minirt.containers import record
from minirt.errors import MinirtError


def logs(options: Options) -> int:
    """`minirt logs`."""
    from minirt.containers import show_log

    tail = options["tail"]
    if tail != "all" and not tail.lstrip("-").isdigit():
        raise MinirtError(f'invalid value for "tail": {tail}')
    show_log.show(
        record.find(options.arguments[0]),
        follow=options["follow"],
        stamps=options["timestamps"],
        details=options["details"],
        tail=-1 if tail == "all" else int(tail),
        since=moment(options, "since"),
        until=moment(options, "until"),
    )
    return 0


def moment(options: Options, name: str) -> str:
    """`--since`, `--until`: the moment that is meant, as the log writes times; empty where none was given."""
    if not options[name]:
        return ""
    try:
        return state.format_time(units.parse_moment(options[name]))
    except MinirtError as error:
        raise MinirtError(f'invalid value for "{name}": {error}') from None


COMMANDS = {
    "logs": Command(
        "logs",
        "[OPTIONS] CONTAINER",
        "Fetch the logs of a container",
        (
            Option("details", help="Show extra details provided to logs"),
            Option("follow", help="Follow log output", short="f"),
            Option("since", "string", "Show logs since a timestamp (2026-01-31T09:05:00Z) or relative (42m)"),
            Option("tail", "string", "Number of lines to show from the end of the logs", short="n", default="all"),
            Option("timestamps", help="Show timestamps", short="t"),
            Option("until", "string", "Show logs before a timestamp or relative (e.g. 42m)"),
        ),
        action=logs,
        minimum=1,
        maximum=1,
        aliases=("container logs", "logs"),
    )
}

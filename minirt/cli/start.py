"""`minirt start`, `restart`, `attach`: options and words; what they do is in `minirt.containers`."""

from __future__ import annotations

from minirt.cli import explain
from minirt.cli.containers import each
from minirt.cli.exec import KEYS
from minirt.cli.options import Command, Option, Options
from minirt.containers import client, record
from minirt.errors import ConflictError, MinirtError


def start(options: Options) -> int:
    """`minirt start`."""
    if not (options["attach"] or options["interactive"]):
        return each(options, start_one)
    if len(options.arguments) > 1:
        raise MinirtError("you cannot start and attach multiple containers at once")
    container = record.find(options.arguments[0])
    if record.derive(container).alive:
        return client.attach(container, stdin=options["interactive"], forward=True, keys=options["detach-keys"])
    return client.start(container, attach=True, interactive=options["interactive"], forward=True, tell=explain.tell,
                        keys=options["detach-keys"])


def start_one(container: record.Container) -> None:
    """Starts a container and leaves it to itself; nothing happens when it runs."""
    if not record.derive(container).alive:
        client.start(container, tell=explain.tell)


def restart(options: Options) -> int:
    """`minirt restart`."""
    from minirt.containers import stop

    def action(container: record.Container) -> None:
        stop.Stop(container, options["timeout"], options["signal"]).wait()
        client.start(container, tell=explain.tell)

    return each(options, action)


def attach(options: Options) -> int:
    """`minirt attach`."""
    container = record.find(options.arguments[0])
    now = record.derive(container)
    if not now.alive:
        raise ConflictError("You cannot attach to a stopped container, start it first")
    if now.status == "paused":
        raise ConflictError("You cannot attach to a paused container, unpause it first")
    return client.attach(
        container, stdin=not options["no-stdin"], forward=options["sig-proxy"], keys=options["detach-keys"]
    )


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "start",
            "[OPTIONS] CONTAINER [CONTAINER...]",
            "Start one or more stopped containers",
            (
                Option("attach", help="Attach STDOUT/STDERR and forward signals", short="a"),
                KEYS,
                Option("interactive", help="Attach container's STDIN", short="i"),
            ),
            action=start,
            minimum=1,
            aliases=("container start", "start"),
        ),
        Command(
            "restart",
            "[OPTIONS] CONTAINER [CONTAINER...]",
            "Restart one or more containers",
            (
                Option("signal", "string", "Signal to send to the container", short="s"),
                Option("time", "int", alias="timeout"),
                Option("timeout", "int", "Seconds to wait before killing the container", short="t"),
            ),
            action=restart,
            minimum=1,
            aliases=("container restart", "restart"),
        ),
        Command(
            "attach",
            "[OPTIONS] CONTAINER",
            "Attach local standard input, output, and error streams to a running container",
            (
                KEYS,
                Option("no-stdin", help="Do not attach STDIN"),
                Option("sig-proxy", help="Proxy all received signals to the process", default=True),
            ),
            action=attach,
            minimum=1,
            maximum=1,
            aliases=("container attach", "attach"),
        ),
    )
}

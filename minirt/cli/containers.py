"""`rm`, `stop`, `kill`, `wait`, `pause`, `unpause`, `rename`, `diff`, `top`, `container prune`: options and words.

What they do is in `minirt.containers`; each function here reads its options, asks, and prints. A command that takes
several containers goes on after one that it cannot serve, tells each failure, and exits with 1, as Docker does.
"""

from __future__ import annotations

from minirt import events, state, units
from minirt.cli import format as formats
from minirt.cli.options import Command, Option, Options, complain
from minirt.containers import record
from minirt.errors import MinirtError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    Begun = TypeVar("Begun")

# -- several containers at once ----------------------------------------------------------------------------------


def each(options: Options, action: Callable[[record.Container], str | None]) -> int:
    """Does something to each container named; prints what `action` returns, else the name as it was typed."""
    code = 0
    for text in options.arguments:
        try:
            printed = action(record.find(text))
            formats.show((text if printed is None else printed) + "\n")
        except MinirtError as error:
            complain(error)
            code = 1
    return code


AT_ONCE = 100


def together(
    options: Options, begin: Callable[[record.Container], Begun], finish: Callable[[Begun], None]
) -> int:
    """The same where each takes time: begins with all before it waits for the first; with so many at a time, since each
    may hold a few descriptors meanwhile."""
    code = 0
    missing = 0 if options.get("force") else 1  # exit code: who says --force does not mind that it is gone
    for at in range(0, len(options.arguments), AT_ONCE):
        begun = []
        for text in options.arguments[at: at + AT_ONCE]:
            try:
                begun.append((text, begin(record.find(text))))
            except MinirtError as error:
                complain(error)
                code = max(code, missing if isinstance(error, NotFoundError) else 1)
        for text, each in begun:
            try:
                finish(each)
                formats.show(text + "\n")
            except MinirtError as error:
                complain(error)
                code = 1
    return code


def rm(options: Options) -> int:
    """`minirt rm`."""
    from minirt.containers import remove, repair

    def finish(removal: remove.Removal) -> None:
        try:
            removal.wait()
        except NotFoundError:
            if not options["force"]:
                raise  # with --force it does not matter who removed it

    code = together(options, lambda container: remove.Removal(container, options["force"]), finish)
    repair.sweep()
    return code


def stop(options: Options) -> int:
    """`minirt stop`."""
    from minirt.containers.stop import Stop

    check_signal(options["signal"])
    return together(options, lambda container: Stop(container, options["timeout"], options["signal"]), Stop.wait)


def kill(options: Options) -> int:
    """`minirt kill`."""
    from minirt.containers import stop as stopping

    check_signal(options["signal"])
    return each(options, lambda container: stopping.kill(container, options["signal"] or "KILL"))


def check_signal(text: str) -> None:
    """Raises MinirtError for a signal that does not exist, before anything is done."""
    if text:
        from minirt.process import signals

        signals.number(text)


def wait(options: Options) -> int:
    """`minirt wait`."""
    from minirt.containers import client

    return each(options, lambda container: str(client.wait(container)))


def pause(options: Options) -> int:
    """`minirt pause`."""
    from minirt.containers import stop as stopping

    return each(options, lambda container: stopping.pause(container, True))


def unpause(options: Options) -> int:
    """`minirt unpause`."""
    from minirt.containers import stop as stopping

    return each(options, lambda container: stopping.pause(container, False))


def rename(options: Options) -> int:
    """`minirt rename`."""
    from minirt.containers import rename as renaming

    renaming.rename(record.find(options.arguments[0]), options.arguments[1])
    return 0


def diff(options: Options) -> int:
    """`minirt diff`."""
    from minirt.containers import changes

    for kind, path in changes.of(record.find(options.arguments[0])):
        formats.show(f"{kind} {path}\n")
    return 0


def prune(options: Options) -> int:
    """`minirt container prune`."""
    from minirt.images import filters

    wanted = formats.filters(options["filter"], filters.PRUNING)
    if not (options["force"] or formats.confirm("WARNING! This will remove all stopped containers.\n")):
        return 0
    told, freed = remove_stopped(wanted)
    formats.show(f"{told}Total reclaimed space: {units.human_size(freed)}\n")
    return 0


def remove_stopped(wanted: dict[str, list[str]]) -> tuple[str, int]:
    """Removes the containers that do not run and pass the filters of `prune`: what to say of it, and the bytes that are
    free now.
    """
    from minirt.containers import remove
    from minirt.images import filters

    removed, freed = remove.prune(lambda container: filters.may_go(
        container.config["Config"]["Labels"], state.parse_time(container.config["Created"]), wanted))
    events.append("container", "prune", "", {"reclaimed": str(freed)})
    return "Deleted Containers:\n" + "\n".join(removed) + "\n\n" if removed else "", freed


def top(options: Options) -> int:
    """`minirt top`."""
    from minirt.containers import processes

    formats.show(processes.table(record.find(options.arguments[0]), options.arguments[1:]))
    return 0


# -- the table ---------------------------------------------------------------------------------------------------


def _command(
    name: str,
    usage: str,
    summary: str,
    action: Callable[[Options], int],
    options: Sequence[Option] = (),
    **more: Any,
) -> Command:
    more.setdefault("aliases", (f"container {name}", name))
    return Command(name, usage, summary, options, action=action, **more)


SEVERAL = "CONTAINER [CONTAINER...]"
SIGNAL = Option("signal", "string", "Signal to send to the container", short="s")
COMMANDS = {
    command.name: command
    for command in (
        _command(
            "rm",
            f"[OPTIONS] {SEVERAL}",
            "Remove one or more containers",
            rm,
            (
                Option("force", help="Force the removal of a running container (uses SIGKILL)", short="f"),
                Option("volumes", help="Remove anonymous volumes associated with the container", short="v"),
            ),
            minimum=1,
            aliases=("container rm", "container remove", "rm"),
        ),
        _command(
            "stop",
            f"[OPTIONS] {SEVERAL}",
            "Stop one or more running containers",
            stop,
            (
                SIGNAL,
                Option("time", "int", alias="timeout"),
                Option("timeout", "int", "Seconds to wait before killing the container", short="t"),
            ),
            minimum=1,
        ),
        _command(
            "kill",
            f"[OPTIONS] {SEVERAL}",
            "Kill one or more running containers",
            kill,
            (Option("signal", "string", "Signal to send to the container", short="s", default="KILL"),),
            minimum=1,
        ),
        _command(
            "wait",
            SEVERAL,
            "Block until one or more containers stop, then print their exit codes",
            wait,
            minimum=1,
        ),
        _command("pause", SEVERAL, "Pause all processes within one or more containers", pause, minimum=1),
        _command("unpause", SEVERAL, "Unpause all processes within one or more containers", unpause, minimum=1),
        _command("diff", "CONTAINER", "Inspect changes to files or directories on a container's filesystem", diff,
                 minimum=1, maximum=1),
        _command("rename", "CONTAINER NEW_NAME", "Rename a container", rename, minimum=2, maximum=2),
        _command(
            "top",
            "CONTAINER [ps OPTIONS]",
            "Display the running processes of a container",
            top,
            minimum=1,
            interspersed=False,
        ),
        _command(
            "container prune",
            "[OPTIONS]",
            "Remove all stopped containers",
            prune,
            (
                Option("filter", "filter", "Provide filter values (e.g. \"until=24h\")"),
                Option("force", help="Do not prompt for confirmation", short="f"),
            ),
            maximum=0,
            aliases=(),
        ),
    )
}

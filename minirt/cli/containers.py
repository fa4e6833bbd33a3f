"""`ps`, `logs`, `rm`, `stop`, `kill`, `wait`, `pause`, `unpause`, `rename`, `top`: options, tables, filters, words.

What they do is in `minirt.containers`; each function here reads its options, asks, and prints. A command that takes
several containers goes on after one that it cannot serve, tells each failure, and exits with 1, as Docker does.
"""

from __future__ import annotations

import os
import time

from minirt import events, state, units
from minirt.cli import format as formats
from minirt.cli.options import PROGRAM, Command, Option, Options
from minirt.containers import record
from minirt.errors import MinirtError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    Begun = TypeVar("Begun")

# -- ps ----------------------------------------------------------------------------------------------------------

HEADINGS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
    "Platform": "PLATFORM",
}
TABLE = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
WRONG = ("failed to parse template", "failed to execute template")  # how Docker's sentences about one begin, here


def ps(options: Options) -> int:
    """`minirt ps`."""
    from minirt.containers import filters

    wanted = formats.filters(options["filter"], filters.KNOWN)
    filters.check(wanted)
    last = 1 if options["latest"] else options["last"]
    everything = options["all"] or last > 0 or "status" in wanted or "exited" in wanted
    chosen = []
    for container in record.listing():
        now = record.derive(container)
        if now.status != "removing" and (everything or now.alive) and filters.passes(container, now, wanted):
            chosen.append((container, now))
    if last > 0:
        chosen = chosen[:last]
    table = TABLE + "\t{{.Size}}" if options["size"] else TABLE
    form = options["format"]
    if form and options["quiet"]:
        os.write(2, b"WARNING: Ignoring custom format, because both --format and --quiet are set.\n")
        form = ""
    sized = options["size"] or ".Size" in form
    formats.show(
        formats.rows(
            [row(container, now, options["no-trunc"], sized) for container, now in chosen],
            form,
            table=table,
            headings=HEADINGS,
            quiet="{{.ID}}" if options["quiet"] else "",
            wrong=WRONG,
        )
    )
    return 0


def row(container: record.Container, now: record.State, whole: bool, sized: bool) -> dict[str, Any]:
    """One line of `ps`, by Docker's field names. `whole`: nothing is cut short. `sized`: with the size of its
    files.
    """
    config = container.config
    created = state.parse_time(config["Created"])
    command = " ".join([config["Path"], *(f"'{word}'" if " " in word else word for word in config["Args"])])
    labels = config["Config"]["Labels"]
    image = config["Config"]["Image"]
    if not whole and record.is_hexadecimal(image.removeprefix("sha256:")) and len(image) >= 64:
        image = image.removeprefix("sha256:")[:12]
    mounts = [mount["Source"] for mount in config["HostConfig"]["Mounts"] if mount["Source"]]
    return {
        "ID": container.id if whole else container.id[:12],
        "Image": image,
        "Command": state.dumps(command if whole or len(command) <= 20 else command[:19] + "…", docker=True),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created)),
        "RunningFor": units.human_ago(time.time() - created),
        "Status": record.words(now),
        "State": now.status,
        "Ports": "",
        "Names": container.name,
        "Size": size(container) if sized else "0B",
        "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
        "Label": lambda key: labels.get(key, ""),
        "Mounts": ",".join(path if whole or len(path) <= 15 else path[:14] + "…" for path in mounts),
        "LocalVolumes": "0",
        "Networks": config["HostConfig"]["NetworkMode"],
        "Platform": None,
    }


def size(container: record.Container) -> str:
    """What the container wrote, and what it shows in all: `12B (virtual 4.26MB)`."""
    from minirt.containers import measure

    own, image = measure.sizes(container)
    return f"{units.human_size(own)} (virtual {units.human_size(own + image)})"


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


def complain(error: MinirtError) -> None:
    """Tells why one of several containers could not be served."""
    os.write(2, f"{PROGRAM}: {error}\n".encode("utf-8", "surrogateescape"))


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


# -- logs --------------------------------------------------------------------------------------------------------


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


FORMAT = "Format output: 'table', 'table TEMPLATE', 'json' or a template"
SEVERAL = "CONTAINER [CONTAINER...]"
SIGNAL = Option("signal", "string", "Signal to send to the container", short="s")
COMMANDS = {
    command.name: command
    for command in (
        _command(
            "ps",
            "[OPTIONS]",
            "List containers",
            ps,
            (
                Option("all", help="Show all containers (default shows just running)", short="a"),
                Option("filter", "filter", "Filter output based on conditions provided", short="f"),
                Option("format", "string", FORMAT),
                Option("last", "int", "Show n last created containers (includes all states)", short="n", default=-1),
                Option("latest", help="Show the latest created container (includes all states)", short="l"),
                Option("no-trunc", help="Don't truncate output"),
                Option("quiet", help="Only display container IDs", short="q"),
                Option("size", help="Display total file sizes", short="s"),
            ),
            maximum=0,
            aliases=("container ls", "container list", "container ps", "ps"),
        ),
        _command(
            "logs",
            "[OPTIONS] CONTAINER",
            "Fetch the logs of a container",
            logs,
            (
                Option("details", help="Show extra details provided to logs"),
                Option("follow", help="Follow log output", short="f"),
                Option("since", "string", "Show logs since a timestamp (2026-01-31T09:05:00Z) or relative (42m)"),
                Option("tail", "string", "Number of lines to show from the end of the logs", short="n", default="all"),
                Option("timestamps", help="Show timestamps", short="t"),
                Option("until", "string", "Show logs before a timestamp or relative (e.g. 42m)"),
            ),
            minimum=1,
            maximum=1,
        ),
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

"""`minirt ps`: its options, table and filters; what a container is doing is derived by `minirt.containers.record`."""

from __future__ import annotations

import os
import time

from minirt import state, units
from minirt.cli import format as formats
from minirt.cli.options import Command, Option, Options
from minirt.containers import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


COMMANDS = {
    "ps": Command(
        "ps",
        "[OPTIONS]",
        "List containers",
        (
            Option("all", help="Show all containers (default shows just running)", short="a"),
            Option("filter", "filter", "Filter output based on conditions provided", short="f"),
            Option("format", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a template"),
            Option("last", "int", "Show n last created containers (includes all states)", short="n", default=-1),
            Option("latest", help="Show the latest created container (includes all states)", short="l"),
            Option("no-trunc", help="Don't truncate output"),
            Option("quiet", help="Only display container IDs", short="q"),
            Option("size", help="Display total file sizes", short="s"),
        ),
        action=ps,
        maximum=0,
        aliases=("container ls", "container list", "container ps", "ps"),
    )
}

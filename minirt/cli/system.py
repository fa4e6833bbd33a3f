"""`minirt system df` and `system prune`: what takes room, and what gives it back."""

from __future__ import annotations

from minirt import units
from minirt.cli import containers, ps
from minirt.cli import format as formats
from minirt.cli.options import Command, Option, Options
from minirt.containers import measure, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirt.images.usage import Usage

SUMMARY = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"
HEADINGS = {"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}
IMAGES = ("{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t"
          "{{.Containers}}")
CONTAINERS = ("{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t"
              "{{.Names}}")
VOLUMES = {"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}
CACHE = {"ID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE", "CreatedSince": "CREATED",
         "LastUsedSince": "LAST USED", "UsageCount": "USAGE", "Shared": "SHARED"}


def df(options: Options) -> int:
    """`minirt system df`."""
    from minirt.images import usage

    room = usage.Usage()
    if options["verbose"]:
        formats.show(_verbose(room, options["format"]))
    else:
        formats.show(formats.rows(_summary(room), options["format"], table=SUMMARY, headings=HEADINGS))
    return 0


def _summary(room: Usage) -> list[dict[str, str]]:
    """A line for each kind of thing."""
    from minirt.images import usage

    there = [(record.derive(container).alive, measure.tree(f"{container.directory}/upper"))
             for container in record.listing()]
    used = sum(bool(usage.users(image)) for image in room.images)
    return [
        _line("Images", len(room.images), used, room.total(), room.reclaimable()),
        _line("Containers", len(there), sum(alive for alive, _ in there), sum(size for _, size in there),
              sum(size for alive, size in there if not alive)),
        _line("Local Volumes", 0, 0, 0, 0),
        _line("Build Cache", 0, 0, 0, 0, with_percent=False),
    ]


def _line(kind: str, total: int, active: int, size: int, reclaimable: int, with_percent: bool = True) -> dict[str, str]:
    share = f" ({reclaimable * 100 // size}%)" if size and with_percent else ""
    return {"Type": kind, "TotalCount": str(total), "Active": str(active), "Size": units.human_size(size),
            "Reclaimable": units.human_size(reclaimable) + share}


def _verbose(room: Usage, template: str) -> str:
    """The long form: each image and each container."""
    images = _image_rows(room)
    theirs = []
    for container in record.listing():
        row = ps.row(container, record.derive(container), bool(template), False)
        theirs.append({**row, "Size": units.human_size(measure.tree(f"{container.directory}/upper"))})
    if template:
        from minirt.cli.verbs import Struct

        everything = Struct(Images=[Struct(each) for each in images], Containers=[Struct(each) for each in theirs],
                            Volumes=[], BuildCache=[])
        return formats.parse("{{json .}}" if template == "json" else template).render(everything) + "\n"
    from minirt.cli import images as image_tables

    return "\n".join((
        "Images space usage:\n",
        formats.rows(images, "", table=IMAGES, headings=image_tables.HEADINGS),
        "Containers space usage:\n",
        formats.rows(theirs, "", table=CONTAINERS, headings=ps.HEADINGS),
        "Local Volumes space usage:\n", _empty(VOLUMES), "Build cache usage: 0B\n", _empty(CACHE)))


def _empty(headings: dict[str, str]) -> str:
    """A table without lines."""
    return formats.align(["\t".join(headings.values())])


def _image_rows(room: Usage) -> list[dict[str, Any]]:
    from minirt.cli import images as image_tables
    from minirt.images import usage

    rows = []
    for image in room.images:
        repository, tag, digest = next(iter(image.repositories()))
        short = image_tables.familiar_repository(repository) or image_tables.NONE
        whole, unique = room.whole(image), room.unique(image)
        rows.append({**image_tables.row(image, short, tag or image_tables.NONE, digest, False),
                     "Size": units.human_size(whole), "SharedSize": units.human_size(whole - unique),
                     "UniqueSize": units.human_size(unique), "Containers": str(len(usage.users(image)))})
    return rows


def prune(options: Options) -> int:
    """`minirt system prune`."""
    from minirt.cli import images as image_tables
    from minirt.images import filters

    wanted = formats.filters(options["filter"], filters.PRUNING)
    if wanted and not options["force"]:
        told = "".join(f"  - {name}={value}\n" for name in sorted(wanted) for value in wanted[name])
    else:
        told = ""
    what = "all images without at least one container associated to them" if options["all"] else "all dangling images"
    warning = f"WARNING! This will remove:\n  - all stopped containers\n  - {what}\n\n"
    if told:
        warning += f"  Items to be pruned will be filtered with:\n{told}\n"
    if not (options["force"] or formats.confirm(warning)):
        return 0
    text, freed = containers.remove_stopped(wanted)
    more, freed_by_images = image_tables.remove_unused(options["all"], wanted)
    formats.show(f"{text}{more}Total reclaimed space: {units.human_size(freed + freed_by_images)}\n")
    return 0


COMMANDS = {
    "system df": Command(
        "system df",
        "[OPTIONS]",
        "Show disk usage",
        (
            Option("format", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a template"),
            Option("verbose", help="Show detailed information on space usage", short="v"),
        ),
        action=df,
        maximum=0,
    ),
    "system prune": Command(
        "system prune",
        "[OPTIONS]",
        "Remove unused data",
        (
            Option("all", help="Remove all unused images, not just dangling ones", short="a"),
            Option("filter", "filter", "Provide filter values (e.g. \"label=<key>=<value>\")"),
            Option("force", help="Do not prompt for confirmation", short="f"),
        ),
        action=prune,
        maximum=0,
    ),
}

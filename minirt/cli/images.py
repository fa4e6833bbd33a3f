"""`minirt images`, `history`, `rmi`, `tag`, `image inspect` and `image prune`."""

from __future__ import annotations

import time

from minirt import events, units
from minirt.cli import format as formats
from minirt.cli.options import Command, Option, Options, complain
from minirt.errors import BadInputError, MinirtError, NotFoundError
from minirt.images import platforms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirt.images.listing import Stored

NONE = "<none>"
TABLE = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
TABLE_WITH_DIGESTS = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
HEADINGS = {
    "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID", "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT", "Size": "SIZE", "Containers": "CONTAINERS", "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE", "VirtualSize": "VIRTUAL SIZE",
}
TREE = ("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA")
STEPS = "{{.ID}}\t{{.%s}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
STEP_HEADINGS = {"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY",
                 "Size": "SIZE", "Comment": "COMMENT"}
LONGEST_COMMAND = 45


def images(options: Options) -> int:
    """`minirt images`."""
    from minirt.images import filters, listing

    wanted = formats.filters(options["filter"], filters.LISTING)
    if options.arguments:
        wanted.setdefault("reference", []).append(options.arguments[0])
    stored = listing.images()
    stored = [image for image in stored if filters.passes(image, wanted, stored)]
    if options["tree"]:
        return _tree(stored, options, wanted.get("reference", []))
    rows = [each for image in stored for each in _rows(image, options, wanted.get("reference", []))]
    formats.show(formats.rows(
        rows,
        options["format"],
        table=TABLE_WITH_DIGESTS if options["digests"] else TABLE,
        headings=HEADINGS,
        quiet="{{.ID}}" if options["quiet"] else "",
    ))
    return 0


def _tree(stored: list[Stored], options: Options, patterns: list[str]) -> int:
    """`minirt images --tree`: below the names of each image its platforms, and what takes how much room."""
    from minirt.images import usage

    for other in ("digests", "format", "no-trunc", "quiet"):
        if options[other]:
            raise MinirtError(f"--{other} is not supported with --tree")
    room = usage.Usage()
    lines = [TREE]
    for image in stored:
        names = [f"{each['Repository']}:{each['Tag']}" for each in _rows(image, options, patterns)]
        if not names:
            continue
        names = names if image.references else ["<untagged>"]
        numbers = (units.human_size(room.whole(image)), units.human_size(room.content(image)),
                   "U" if usage.users(image) else "")
        platform = platforms.of(image.config)
        manifests = list(dict.fromkeys(each["digest"] for each in image.descriptors))
        lines += [(name, "", "", "", "") for name in names[:-1]]
        lines.append((names[-1], image.id[7:19], *numbers))
        lines += [(f"{'└─' if digest == manifests[-1] else '├─'} {platform}", digest[7:19], *numbers)
                  for digest in manifests]
        lines.append(("", "", "", "", ""))
    width = max(len(line[0]) for line in lines)
    for name, identifier, disk, content, extra in lines if len(lines) == 1 else lines[:-1]:
        formats.show(f"{name:<{width}}   {identifier:<12}   {disk:>10}   {content:>12}   {extra}".rstrip() + "\n")
    return 0


def _rows(image: Stored, options: Options, patterns: list[str]) -> list[dict[str, Any]]:
    """A line for each name of an image, or one without a name."""
    from minirt.images import filters

    rows = []
    digests = options["digests"] or "{{.Digest}}" in options["format"]
    for repository, tag, digest in image.repositories():
        short = familiar_repository(repository)
        if patterns and not any(filters.matches(pattern, short, tag) for pattern in patterns):
            continue
        rows.append(row(image, short or NONE, tag or NONE, digest if digests and short else NONE,
                        options["no-trunc"]))
    named = [each for each in rows if each["Repository"] != NONE]
    return named or rows[:1]


def familiar_repository(repository: str) -> str:
    """A repository as the user knows it; another tool's name as it is, "" as it is."""
    from minirt.images import reference

    try:
        return reference.parse(repository).familiar_repository() if repository else ""
    except BadInputError:
        return repository


def row(image: Stored, repository: str, tag: str, digest: str, whole: bool) -> dict[str, Any]:
    """One line of `images`, by Docker's field names. `whole`: the id is not cut short."""
    created = image.created
    return {
        "Containers": "N/A",
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(created)) if created else "N/A",
        "CreatedSince": units.human_ago(time.time() - created) if created else "N/A",
        "Digest": digest,
        "ID": image.id if whole else image.id[7:19],
        "Repository": repository,
        "SharedSize": "N/A",
        "Size": units.human_size(image.size),
        "Tag": tag,
        "UniqueSize": "N/A",
        "VirtualSize": units.human_size(image.size),
    }


def rmi(options: Options) -> int:
    """`minirt rmi`."""
    from minirt.images import listing, remove

    code = 0
    for name in options.arguments:
        try:
            if options["platform"]:
                platforms.check(listing.get(name).config, name, *options["platform"])
            formats.show("".join(line + "\n" for line in remove.remove(name, force=options["force"])))
        except MinirtError as error:
            complain(error)
            if not (options["force"] and isinstance(error, NotFoundError)):
                code = 1
    return code


def tag(options: Options) -> int:
    """`minirt tag`."""
    from minirt.images import remove

    remove.tag(*options.arguments)
    return 0


def inspect_image(options: Options) -> int:
    """`minirt image inspect`."""
    from minirt.images import inspect

    return formats.describe(options.arguments, lambda name: inspect.inspect(name, options["platform"]),
                            options["format"])


def history(options: Options) -> int:
    """`minirt history`."""
    from minirt.images import history as steps
    from minirt.images import listing

    image = listing.get(options.arguments[0])
    platforms.check(image.config, options.arguments[0], options["platform"])
    human, whole = options["human"], options["no-trunc"]
    rows = []
    for step in steps.history(image):
        command = step.command.replace("\t", " ")
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(step.created)) if step.created else "N/A"
        rows.append({
            "Comment": step.comment,
            "CreatedAt": at,
            "CreatedBy": command if whole or len(command) <= LONGEST_COMMAND else command[:LONGEST_COMMAND - 1] + "…",
            "CreatedSince": units.human_ago(time.time() - step.created) if human and step.created else at,
            "ID": (step.id if whole else step.id[7:19]) or "<missing>",
            "Size": units.human_size(step.size) if human else str(step.size),
        })
    formats.show(formats.rows(
        rows, options["format"], table=STEPS % ("CreatedSince" if human else "CreatedAt"), headings=STEP_HEADINGS,
        quiet="{{.ID}}" if options["quiet"] else ""))
    return 0


def prune(options: Options) -> int:
    """`minirt image prune`."""
    from minirt.images import filters

    wanted = formats.filters(options["filter"], (*filters.PRUNING, "dangling"))
    everything = options["all"] or not all(formats.is_true("dangling", value) for value in wanted.pop("dangling", ()))
    if not options["force"]:
        what = "all images without at least one container associated to them" if everything else "all dangling images"
        if not formats.confirm(f"WARNING! This will remove {what}.\n"):
            return 0
    text, freed = remove_unused(everything, wanted)
    formats.show(f"{text}Total reclaimed space: {units.human_size(freed)}\n")
    return 0


def remove_unused(named_too: bool, wanted: dict[str, list[str]]) -> tuple[str, int]:
    """Remove the images that no container uses, without a name or all, as filters say; what to tell, and the bytes
    that are free now."""
    from minirt.images import filters, listing, remove, usage

    before = usage.all_together()
    stored = listing.images()
    done = remove.prune(image for image in stored
                        if (named_too or not image.references) and filters.passes(image, wanted, stored))
    lines = [f"{line[0].lower()}{line[1:]}\n" for line in done]
    text = "".join(["Deleted Images:\n", *lines, "\n"]) if lines else ""
    freed = max(0, before - usage.all_together())
    events.append("image", "prune", "", {"reclaimed": str(freed)})
    return text, freed


COMMANDS = {
    "images": Command(
        "images",
        "[OPTIONS] [REPOSITORY[:TAG]]",
        "List images",
        (
            Option("all", help="Show all images (there are no hidden ones here)", short="a"),
            Option("digests", help="Show digests"),
            Option("filter", "filter", "Filter output based on conditions provided", short="f"),
            Option("format", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a template"),
            Option("no-trunc", help="Don't truncate output"),
            Option("quiet", help="Only show image IDs", short="q"),
            Option("tree", help="List multi-platform images as a tree"),
        ),
        action=images,
        maximum=1,
        aliases=("image ls", "image list", "images"),
    ),
    "rmi": Command(
        "rmi",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Remove one or more images",
        (
            Option("force", help="Force removal of the image", short="f"),
            Option("no-prune", help="Do not delete untagged parents (there are none here)"),
            Option("platform", "list", "Remove the image only if it is made for one of these platforms",
                   check=platforms.parse),
        ),
        action=rmi,
        minimum=1,
        aliases=("image rm", "image remove", "rmi"),
    ),
    "tag": Command(
        "tag",
        "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
        action=tag,
        minimum=2,
        maximum=2,
        aliases=("image tag", "tag"),
    ),
    "image inspect": Command(
        "image inspect",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Display detailed information on one or more images",
        (
            Option("format", "string", "Format output: 'json' or a template", short="f"),
            Option("platform", "string", "Inspect the image only if it is made for this platform",
                   check=platforms.parse),
        ),
        action=inspect_image,
        minimum=1,
    ),
    "history": Command(
        "history",
        "[OPTIONS] IMAGE",
        "Show the history of an image",
        (
            Option("format", "string", "Format output: 'table', 'table TEMPLATE', 'json' or a template"),
            Option("human", help="Print sizes and dates in human readable format", short="H", default=True),
            Option("no-trunc", help="Don't truncate output"),
            Option("platform", "string", "Show the history only if the image is made for this platform",
                   check=platforms.parse),
            Option("quiet", help="Only show image IDs", short="q"),
        ),
        action=history,
        minimum=1,
        maximum=1,
        aliases=("image history", "history"),
    ),
    "image prune": Command(
        "image prune",
        "[OPTIONS]",
        "Remove unused images",
        (
            Option("all", help="Remove all unused images, not just dangling ones", short="a"),
            Option("filter", "filter", "Provide filter values (e.g. \"until=24h\")"),
            Option("force", help="Do not prompt for confirmation", short="f"),
        ),
        action=prune,
        maximum=0,
    ),
}

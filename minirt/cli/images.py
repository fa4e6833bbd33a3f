"""`minirt load`, `images`, `rmi`, `tag` and `image inspect`."""

from __future__ import annotations

import os
import time

from minirt import units
from minirt.cli import format as formats
from minirt.cli.options import PROGRAM, Command, Option, Options
from minirt.errors import BadInputError, MinirtError, NotFoundError

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
FILTERS = ("before", "dangling", "label", "reference", "since", "until")


def load(options: Options) -> int:
    """`minirt load`."""
    from minirt.images.load import load as load_archive

    if os.geteuid():
        from minirt.namespaces import rootless

        for sentence in rootless.news([rootless.maps()[2]]):
            os.write(2, f"{PROGRAM}: {sentence}\n".encode())
    source = 0
    if options["input"] and options["input"] != "-":
        try:
            source = os.open(options["input"], os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MinirtError(f"open {options['input']}: {(error.strerror or '').lower()}") from None
    elif os.isatty(0):
        raise MinirtError("requested load from stdin, but stdin is empty: give a file with -i, or pipe an archive in")
    lines = []
    for image in load_archive(source):
        lines += [f"The image {name} already exists, renaming the old one with ID {before} to empty string"
                  for name, before in image.displaced]
        lines += [f"Loaded image: {name}" for name in image.names] or [f"Loaded image ID: {image.id}"]
    formats.show("".join(line + "\n" for line in lines))
    return 0


def images(options: Options) -> int:
    """`minirt images`."""
    from minirt.images import listing

    wanted = formats.filters(options["filter"], FILTERS)
    if options.arguments:
        wanted.setdefault("reference", []).append(options.arguments[0])
    stored = listing.images()
    stored = [image for image in stored if _passes(image, wanted, stored)]
    rows = [row for image in stored for row in _rows(image, options, wanted.get("reference", []))]
    formats.show(formats.rows(
        rows,
        options["format"],
        table=TABLE_WITH_DIGESTS if options["digests"] else TABLE,
        headings=HEADINGS,
        quiet="{{.ID}}" if options["quiet"] else "",
    ))
    return 0


def _rows(image: Stored, options: Options, patterns: list[str]) -> list[dict[str, Any]]:
    """A line for each name of an image, or one without a name."""
    from minirt.images import reference

    rows = []
    for repository, tag, digest in image.repositories():
        short = repository
        if repository:
            try:
                short = reference.parse(repository).familiar_repository()
            except BadInputError:  # a name that another tool gave
                short = repository
        if patterns and not any(_matches(pattern, short, tag) for pattern in patterns):
            continue
        rows.append(_row(image, short or NONE, tag or NONE, digest if options["digests"] and short else NONE,
                         options["no-trunc"]))
    named = [row for row in rows if row["Repository"] != NONE]
    return named or rows[:1]


def _row(image: Stored, repository: str, tag: str, digest: str, whole: bool) -> dict[str, Any]:
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


def _passes(image: Stored, wanted: dict[str, list[str]], everything: list[Stored]) -> bool:
    """Whether an image passes every filter but `reference`, which judges names."""
    labels = (image.config.get("config") or {}).get("Labels") or {}
    if not all(formats.has_label(labels, label) for label in wanted.get("label", ())):
        return False
    for value in wanted.get("dangling", ()):
        if value.lower() not in ("true", "1", "false", "0"):
            raise MinirtError(f"invalid filter 'dangling={value}'")
        if (value.lower() in ("true", "1")) == bool(image.references):
            return False
    if "reference" in wanted and not image.references:
        return False
    return (all(image.created < _created(name, everything) for name in wanted.get("before", ()))
            and all(image.created > _created(name, everything) for name in wanted.get("since", ()))
            and all(image.created < _moment(text) for text in wanted.get("until", ())))


def _created(name: str, everything: list[Stored]) -> float:
    from minirt.images import lookup

    identifier, _ = lookup.resolve(name)
    return next((image.created for image in everything if image.id == identifier), 0.0)


def _moment(text: str) -> float:
    """A time (RFC 3339, seconds since 1970) or a duration before now (`24h`)."""
    from minirt import state

    try:
        return state.parse_time(text)
    except ValueError:
        return float(text) if text.isdigit() else time.time() - units.parse_duration(text)


def _matches(pattern: str, repository: str, tag: str) -> bool:
    """Go's path.Match of a pattern with `repository:tag` or the repository alone: `*` and `?` stop at a slash."""
    import re

    parts, position = [], 0
    while position < len(pattern):
        letter = pattern[position]
        position += 1
        if letter == "*":
            parts.append("[^/]*")
        elif letter == "?":
            parts.append("[^/]")
        elif letter == "[":
            end = pattern.find("]", position + 1)
            if end < 0:
                raise MinirtError(f"invalid filter 'reference={pattern}': a [ without its ]")
            inside = pattern[position:end].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"[{inside}]")
            position = end + 1
        else:
            if letter == "\\" and position < len(pattern):
                letter = pattern[position]
                position += 1
            parts.append(re.escape(letter))
    try:
        matcher = re.compile("".join(parts))
    except re.error:
        raise MinirtError(f"invalid filter 'reference={pattern}'") from None
    return bool(matcher.fullmatch(f"{repository}:{tag}") or matcher.fullmatch(repository))


def rmi(options: Options) -> int:
    """`minirt rmi`."""
    from minirt.images import remove

    code = 0
    for name in options.arguments:
        try:
            formats.show("".join(line + "\n" for line in remove.remove(name, force=options["force"])))
        except MinirtError as error:
            os.write(2, f"{PROGRAM}: {error}\n".encode("utf-8", "surrogateescape"))
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

    return formats.describe(options.arguments, inspect.inspect, options["format"])


COMMANDS = {
    "load": Command(
        "load",
        "[OPTIONS]",
        "Load an image from a tar archive or STDIN",
        (
            Option("input", "string", "Read from tar archive file, instead of STDIN", short="i"),
            Option("quiet", help="Suppress the load output", short="q"),
        ),
        action=load,
        maximum=0,
        aliases=("image load", "load"),
    ),
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
        (Option("format", "string", "Format output: 'json' or a template", short="f"),),
        action=inspect_image,
        minimum=1,
    ),
}

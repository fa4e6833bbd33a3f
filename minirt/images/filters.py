"""Chapter 13, beyond: which images pass the filters of `images` and `image prune`.

Sources: Docker's documentation of `docker image ls` and `docker image prune`; Go's path.Match.
"""

from __future__ import annotations

from minirt import units
from minirt.cli import format as formats
from minirt.errors import BadInputError, MinirtError
from minirt.images import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from minirt.images.listing import Stored

LISTING = ("before", "dangling", "label", "reference", "since", "until")
PRUNING = ("label", "label!", "until")


def passes(image: Stored, wanted: Mapping[str, Sequence[str]], everything: Sequence[Stored]) -> bool:
    """Whether an image passes every filter but `reference`, which judges names (`matches`).

    `wanted`: filter -> values; several values of one filter must all be true. `everything`: all images, for `before`
    and `since`. Raises MinirtError for a value that is none.
    """
    labels = (image.config.get("config") or {}).get("Labels") or {}
    if not may_go(labels, image.created, wanted):
        return False
    if any(formats.is_true("dangling", value) == bool(image.references) for value in wanted.get("dangling", ())):
        return False
    if "reference" in wanted and not image.references:
        return False
    return (all(image.created < _created(name, everything) for name in wanted.get("before", ()))
            and all(image.created > _created(name, everything) for name in wanted.get("since", ())))


def may_go(labels: Mapping[str, str], created: float, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Whether something with these labels, created then (seconds since 1970), passes the filters of `PRUNING`."""
    return (all(formats.has_label(labels, label) for label in wanted.get("label", ()))
            and not any(formats.has_label(labels, label) for label in wanted.get("label!", ()))
            and all(created * 1e9 < units.parse_moment(text) for text in wanted.get("until", ())))


def _created(name: str, everything: Sequence[Stored]) -> float:
    identifier, _ = lookup.resolve(name)
    return next((image.created for image in everything if image.id == identifier), 0.0)


def matches(pattern: str, repository: str, tag: str) -> bool:
    """Go's path.Match of a pattern with `repository:tag` or the repository alone: `*` and `?` stop at a slash.

    Raises MinirtError for a pattern that is none.
    """
    import re

    try:
        matcher = re.compile("".join(_expressions(pattern)))
    except (re.error, BadInputError):
        raise MinirtError(f"invalid filter 'reference={pattern}': * and ? and [a-z] stand for letters of a name"
                          ) from None
    return bool(matcher.fullmatch(f"{repository}:{tag}") or matcher.fullmatch(repository))


def _expressions(pattern: str) -> list[str]:
    """The regular expressions, one after the other, that mean a pattern of path.Match."""
    import re

    parts, position = [], 0
    while position < len(pattern):
        letter = pattern[position]
        position += 1
        if letter in "*?":
            parts.append("[^/]*" if letter == "*" else "[^/]")
        elif letter == "[":
            end = pattern.find("]", position + 1)
            if end < 0:
                raise BadInputError("a [ without its ]")
            parts.append("[" + pattern[position:end].replace("\\", "\\\\").replace("[", "\\[") + "]")
            position = end + 1
        else:
            if letter == "\\" and position < len(pattern):
                letter = pattern[position]
                position += 1
            parts.append(re.escape(letter))
    return parts

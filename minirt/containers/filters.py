"""Chapter 17: which containers pass the filters of `ps`.

Filters of one name are alternatives, except labels, which a container must all have; filters of different names add up.
What is told of things that later chapters bring is true of a container that has none of them: it has no published
port, no volume by name, no health check, and it is no task of a swarm.

Source: Docker's documentation of `docker container ls`, "Filtering".
"""

from __future__ import annotations

from minirt.cli import format as formats
from minirt.containers import record
from minirt.errors import MinirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

KNOWN = ("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network",
         "publish", "since", "status", "volume")
STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
HEALTH = ("none", "starting", "healthy", "unhealthy")


def check(wanted: Mapping[str, Sequence[str]]) -> None:
    """Raises MinirtError for values that can never be."""
    may_be: dict[str, tuple[Callable[[str], object], str]] = {
        "status": (STATES.__contains__, f"one of {', '.join(STATES)}"),
        "health": (HEALTH.__contains__, f"one of {', '.join(HEALTH)}"),
        "exited": (str.isdigit, "an exit code"),
        "expose": (_is_port, "a port or a range of ports, as 80, 80/udp or 8000-8080"),
        "publish": (_is_port, "a port or a range of ports, as 80, 80/udp or 8000-8080"),
    }
    for name, (fits, what) in may_be.items():
        for value in wanted.get(name, ()):
            if not fits(value):
                raise MinirtError(f"invalid filter '{name}={value}': it is {what}")
    for value in wanted.get("is-task", ()):
        formats.is_true("is-task", value)


def _is_port(text: str) -> bool:
    numbers, slash, protocol = text.partition("/")
    first, dash, last = numbers.partition("-")
    return (first.isdigit() and (last.isdigit() or not dash) and int(first) <= int(last or first) < 65536
            and (not slash or protocol in ("tcp", "udp", "sctp")))


def passes(container: record.Container, now: record.State, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Whether a container passes all filters. Raises NotFoundError for a container that is named and not there."""
    config, host = container.config, container.config["HostConfig"]
    tests: dict[str, Callable[[str], bool]] = {
        "id": container.id.startswith,
        "name": lambda value: matches(value, container.name),
        "status": lambda value: value == now.status,
        "exited": lambda value: now.status == "exited" and now.code == int(value),
        "ancestor": lambda value: descends(container, value),
        "before": lambda value: config["Created"] < record.find(value).config["Created"],
        "since": lambda value: config["Created"] > record.find(value).config["Created"],
        "network": lambda value: value == host["NetworkMode"],
        "volume": lambda value: any(value in (mount["Source"], mount["Target"]) for mount in host["Mounts"]),
        "health": lambda value: value == "none",
        "is-task": lambda value: not formats.is_true("is-task", value),
        "isolation": lambda value: True,  # of Windows; whatever is asked for, Docker shows all on Linux
        "expose": lambda value: False,
        "publish": lambda value: False,
    }
    labels = config["Config"]["Labels"]
    if not all(formats.has_label(labels, value) for value in wanted.get("label", ())):
        return False
    return all(any(map(tests[name], values)) for name, values in wanted.items() if name != "label")


def matches(pattern: str, name: str) -> bool:
    """`--filter name=`: a part of the name, or a regular expression."""
    if not pattern.strip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"):
        return pattern in name
    import re

    try:
        return bool(re.search(pattern, name) or re.search(pattern, "/" + name))
    except re.error as error:
        raise MinirtError(f"invalid filter 'name={pattern}': {error}") from None


def descends(container: record.Container, image: str) -> bool:
    """`--filter ancestor=`: an image by its name or id."""
    from minirt.images import lookup

    try:
        identifier, _ = lookup.resolve(image)
    except MinirtError:
        return False
    return bool(container.config["Image"] == identifier)

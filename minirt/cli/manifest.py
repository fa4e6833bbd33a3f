"""`minirt manifest inspect`, `create`, `annotate`, `push`, `rm`."""

from __future__ import annotations

from functools import partial
from typing import Any

from minirt.cli import format as formats
from minirt.cli.options import Command, Option, Options, complain


def _prepare() -> None:
    from minirt.registry import library

    library.prepare()


def _say(text: str) -> None:
    formats.show(f"{text}\n")


def _tabs(document: Any) -> str:
    """JSON as the docker command shows a manifest: a tab for each level."""
    from minirt import state

    lines = state.dumps(document, indent=1, docker=True).split("\n")
    return "\n".join("\t" * (len(line) - len(line.lstrip(" "))) + line.lstrip(" ") for line in lines)


def inspect(options: Options) -> int:
    """`minirt manifest inspect`."""
    _prepare()
    from minirt import state
    from minirt.registry import hosts, lists

    name, *image = [lists.full(each) for each in options.arguments]
    connect = partial(hosts.connect, allow_insecure=options["insecure"])
    shown = lists.inspect(name, image[0] if image else None, connect, options["verbose"])
    one = options["verbose"] or "manifests" not in shown
    _say(_tabs(shown) if one else state.dumps(shown, indent=3, docker=True))
    return 0


def create(options: Options) -> int:
    """`minirt manifest create`."""
    _prepare()
    from minirt.registry import hosts, lists

    name, *images = [lists.full(each) for each in options.arguments]
    lists.create(name, images, options["amend"], partial(hosts.connect, allow_insecure=options["insecure"]))
    _say(f"Created manifest list {name}")
    return 0


def annotate(options: Options) -> int:
    """`minirt manifest annotate`."""
    _prepare()
    from minirt.registry import lists

    changes = {"os": options["os"], "architecture": options["arch"], "variant": options["variant"],
               "os.version": options["os-version"]}
    features = [each for text in options["os-features"] for each in text.split(",") if each]
    name, image = (lists.full(each) for each in options.arguments)
    lists.annotate(name, image, changes, features)
    return 0


def push(options: Options) -> int:
    """`minirt manifest push`."""
    _prepare()
    from minirt.registry import hosts, lists

    name = lists.full(options.arguments[0])
    registry = hosts.connect(name.domain, allow_insecure=options["insecure"])
    for line in lists.push_list(name, registry, options["purge"]):
        _say(line)
    return 0


def remove(options: Options) -> int:
    """`minirt manifest rm`."""
    _prepare()
    from minirt.registry import lists

    complaints = lists.remove([lists.full(each) for each in options.arguments])
    for each in complaints:
        complain(each)
    return 1 if complaints else 0


_INSECURE = Option("insecure", help="Allow communication with an insecure registry", chapter=14)

COMMANDS = {
    "manifest inspect": Command(
        "manifest inspect", "[OPTIONS] [MANIFEST_LIST] MANIFEST", "Display an image manifest, or manifest list",
        (
            _INSECURE,
            Option("verbose", help="Output additional info including layers and platform", short="v", chapter=14),
        ),
        action=inspect, minimum=1, maximum=2,
    ),
    "manifest create": Command(
        "manifest create", "MANIFEST_LIST MANIFEST [MANIFEST...]",
        "Create a local manifest list for annotating and pushing to a registry",
        (Option("amend", help="Amend an existing manifest list", short="a", chapter=14), _INSECURE),
        action=create, minimum=2,
    ),
    "manifest annotate": Command(
        "manifest annotate", "[OPTIONS] MANIFEST_LIST MANIFEST", "Add additional information to a local image manifest",
        (
            Option("arch", "string", "Set architecture", chapter=14),
            Option("os", "string", "Set operating system", chapter=14),
            Option("os-features", "list", "Set operating system feature", chapter=14),
            Option("os-version", "string", "Set operating system version", chapter=14),
            Option("variant", "string", "Set architecture variant", chapter=14),
        ),
        action=annotate, minimum=2, maximum=2,
    ),
    "manifest push": Command(
        "manifest push", "[OPTIONS] MANIFEST_LIST", "Push a manifest list to a repository",
        (_INSECURE, Option("purge", help="Remove the local manifest list after push", short="p", chapter=14)),
        action=push, minimum=1, maximum=1,
    ),
    "manifest rm": Command(
        "manifest rm", "MANIFEST_LIST [MANIFEST_LIST...]", "Delete one or more manifest lists from local storage",
        action=remove, minimum=1,
    ),
}

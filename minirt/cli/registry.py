"""`minirt pull`, `push`, `login`, `logout`."""

from __future__ import annotations

import os

from minirt.cli import format as formats
from minirt.cli.options import Command, Option, Options
from minirt.errors import MinirtError
from minirt.images import platforms


def _prepare() -> None:
    from minirt.registry import library

    library.prepare()


def _say(text: str) -> None:
    formats.show(f"{text}\n")


def pull(options: Options) -> int:
    """`minirt pull`."""
    _prepare()
    from minirt.images import reference
    from minirt.registry import hosts, listing, transfer
    from minirt.registry.client import RegistryError
    from minirt.registry.progress import Progress

    name = reference.parse(options.arguments[0])
    progress = Progress(options["quiet"], show=formats.show)
    if options["all-tags"] and (name.tag or name.digest):
        raise MinirtError("tag can't be used with --all-tags/-a")
    if not (options["all-tags"] or name.tag or name.digest) and not options["quiet"]:
        _say("Using default tag: latest")
    names, registry = [name], None
    if options["all-tags"]:
        registry = hosts.connect(name.domain)
        try:
            names = [reference.Reference(name.domain, name.path, tag) for tag in listing.tags(registry, name.path)]
        except RegistryError as error:
            raise transfer.told(error, name) from None
    for each in names:
        done = transfer.pull_image(each, options["platform"], progress, registry)
        if not options["quiet"]:
            _say("\n".join(done.lines(name.familiar() if options["all-tags"] else "")))
    _say(str(name) if options["all-tags"] else str(name.tagged()))
    return 0


def push(options: Options) -> int:
    """`minirt push`."""
    _prepare()
    from minirt.images import lookup, reference
    from minirt.registry import hosts, transfer
    from minirt.registry.progress import Progress

    name = reference.parse(options.arguments[0])
    progress = Progress(options["quiet"], show=formats.show)
    names = [name.tagged()]
    if options["all-tags"]:
        if name.tag or name.digest:
            raise MinirtError("tag can't be used with --all-tags/-a")
        known = (reference.parse(lookup.name_of(each)) for each in lookup.read_index()["manifests"]
                 if lookup.name_of(each).startswith(f"{name.repository}:"))
        names = [each for each in known if each.repository == name.repository]
        if not names:
            raise MinirtError(f"An image does not exist locally with the tag: {name.familiar_repository()}")
    elif name.digest:
        raise MinirtError("cannot push a digest reference")
    elif not name.tag and not options["quiet"]:
        _say("Using default tag: latest")
    progress.line(f"The push refers to repository [{name.repository}]")
    registry = hosts.connect(name.domain)
    for each in names:
        pushed = transfer.push_image(each, progress, registry, options["platform"])
        _say(str(each) if options["quiet"] else pushed)
    return 0


def login(options: Options) -> int:
    """`minirt login`."""
    _prepare()
    from minirt.registry import login as room

    domain = options.arguments[0] if options.arguments else ""
    user, password = options["username"], options["password"]
    if options["password-stdin"]:
        if password:
            raise MinirtError("conflicting options: --password and --password-stdin")
        if not user:
            raise MinirtError("the --password-stdin option requires --username to be set")
        password = os.fdopen(0, "rb", closefd=False).read(1 << 16).decode().rstrip("\r\n")
    elif password:
        os.write(2, b"WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
    room.login(domain, user, password, lambda line: os.write(2, f"{line}\n".encode()))
    _say("Login Succeeded")
    return 0


def logout(options: Options) -> int:
    """`minirt logout`."""
    _prepare()
    from minirt.registry import login as room

    _say(room.logout(options.arguments[0] if options.arguments else ""))
    return 0


PLATFORM = Option("platform", "string", "Set platform if server is multi-platform capable: OS/ARCHITECTURE",
                  check=platforms.parse, chapter=14)

COMMANDS = {
    "pull": Command(
        "pull", "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry",
        (
            Option("all-tags", help="Download all tagged images in the repository", short="a", chapter=14),
            PLATFORM,
            Option("quiet", help="Suppress verbose output", short="q"),
        ),
        action=pull, minimum=1, maximum=1, aliases=("image pull", "pull"),
    ),
    "push": Command(
        "push", "[OPTIONS] NAME[:TAG]", "Upload an image to a registry",
        (
            Option("all-tags", help="Push all tags of an image to the repository", short="a", chapter=14),
            Option("platform", "string", "Push the image for one platform: OS/ARCHITECTURE", check=platforms.parse,
                   chapter=14),
            Option("quiet", help="Suppress verbose output", short="q"),
        ),
        action=push, minimum=1, maximum=1, aliases=("image push", "push"),
    ),
    "login": Command(
        "login", "[OPTIONS] [SERVER]", "Authenticate to a registry",
        (
            Option("username", "string", "Username", short="u", chapter=14),
            Option("password", "string", "Password", short="p", chapter=14),
            Option("password-stdin", help="Take the Password from stdin", chapter=14),
        ),
        action=login, maximum=1,
    ),
    "logout": Command(
        "logout", "[SERVER]", "Log out from a registry", action=logout, maximum=1,
    ),
}

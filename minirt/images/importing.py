"""Chapter 13, beyond: a tree of files, packed as one tar archive, becomes an image of one layer.

Such archives come from `export` of a container, from debootstrap, from a distribution's page of downloads. Nothing in
them says what to run: that comes from the user.

Sources: Docker's documentation of `docker import`; OCI image-spec config.md.
"""

from __future__ import annotations

import os
import time

from minirt import state
from minirt.errors import BadInputError, KernelError, MinirtError
from minirt.images import archive, assemble, instruction, listing, platforms, reference, store, streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any


def import_archive(pieces: Iterator[bytes], name: str, changes: Sequence[str], comment: str, platform: str) -> str:
    """Make an image of a tar archive, compressed or not, that comes in pieces; return its id.

    `name`: what to call it, "" for nothing. `changes`: instructions of a Dockerfile, see `instruction`. `comment`: what
    its history says. `platform`: "linux/arm64", "" for this machine's. Raises BadInputError for an archive that is
    none and for what the user gave wrong.
    """
    names = _names(name)
    config = _config(changes, comment, platform)
    owners = assemble.become_root()
    store.sweep()
    with store.Work() as work:
        try:
            layer = _spool(pieces, f"{work.path}/archive")
            config["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id]}
            image = assemble.Image(state.dumps(config).encode(), [layer], names)
            identifier = assemble.take(work, [image], owners)[0].id
        except OSError as error:
            raise KernelError.of("importing an image", error) from None
    for full in names:
        listing.tell("tag", identifier, reference.parse(full).familiar())
    listing.tell("import", identifier)
    return identifier


def _names(name: str) -> list[str]:
    if not name:
        return []
    parsed = reference.parse(name)
    if parsed.digest:
        raise BadInputError("cannot import digest reference: an image gets its digest from what is in it")
    return [str(parsed.tagged())]


def _config(changes: Sequence[str], comment: str, platform: str) -> dict[str, Any]:
    """The image's configuration, still without its layer."""
    settings: dict[str, Any] = {}
    for change in changes:
        for line in change.splitlines():
            instruction.apply(settings, line)
    system, _, machine = platforms.parse(platform or "linux").partition("/")
    architecture, _, variant = machine.partition("/")
    if system != "linux":
        raise BadInputError(f"operating system {system} is not supported: images here are made for linux")
    now = state.format_time(time.time_ns())
    config = {"architecture": architecture, "os": system, "created": now, "config": settings,
              "history": [{"created": now, "comment": comment}]}
    return {**config, "variant": variant} if variant else config


def _spool(pieces: Iterator[bytes], path: str) -> archive.LayerFile:
    """The archive, decompressed, in a file that has no name any more: a layer that lies there to be taken."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    digest = streams.Digest()
    for piece in streams.while_room(digest.through(streams.decompress(pieces)), descriptor):
        streams.write(descriptor, piece)
    if not digest.size:
        raise BadInputError("the archive is empty")
    return archive.LayerFile((descriptor, 0, digest.size), "", str(digest))


def fetch(url: str) -> Iterator[bytes]:
    """The pieces of what a web server gives for a URL. Raises MinirtError when it gives nothing."""
    import requests

    try:
        with requests.get(url, stream=True, timeout=(30, 60)) as answer:
            if not answer.ok:
                raise MinirtError(f"downloading {url}: the server answers {answer.status_code} {answer.reason}")
            yield from answer.iter_content(streams.PIECE)
    except requests.RequestException as error:
        reason = str(error).rpartition("] ")[2]  # what the kernel says is the last of a long tale
        reason = reason.partition(" (_ssl")[0].rstrip("'\")")
        raise MinirtError(f"downloading {url}: {reason}") from None

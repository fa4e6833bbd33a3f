"""Chapter 14: what it takes to push an image.

Bottom up, as a house is built: first every blob that the registry does not have yet, then the manifest that names them,
with the tag. So what others can see is always whole.

A blob is not brought when it is there already, and not even when a neighbouring repository of the same registry has it:
then it is *mounted*, which costs one request. Otherwise it goes up in one stream; when the connection breaks, the
registry is asked how far it came, and the next chunk begins there.

Rules of the room: bytes go out as they are stored, so every digest stays what it is, from registry to registry.

Sources: OCI distribution-spec "Push"; end-4a, end-5, end-6, end-7, end-11, end-13 are rows of its table "Endpoints".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from minirt.registry.client import Registry, RegistryError

CHAPTER = 14

SMALL = 1 << 16  # bytes that go into the last request of an upload, instead of a chunk of their own
EXISTS, MOUNTED, PUSHED = "Layer already exists", "Mounted from", "Pushed"
_TRIES = 5

Open = Callable[[int], Iterator[bytes]]  # the bytes of a blob from that one on


def push_blob(registry: Registry, repository: str, descriptor: dict[str, Any], pieces: Open,
              neighbours: Iterable[str] = ()) -> tuple[str, str]:
    """Bring a blob to a repository in the cheapest way; tell which it was. `pieces(start)` gives its bytes from `start`
    on, `descriptor` has its "digest" and "size".

    - It is there (`registry.has_blob`): (EXISTS, "").
    - One of the `neighbours`, other repositories of this registry, has it: `begin_mount` gives "" for the first that
      has: (MOUNTED, that repository). Otherwise it gives the address of an upload, which the registry began instead.
    - It has to be brought: to the address of the last such upload, or to a new one (`registry.begin_upload`). At most
      SMALL bytes go with the request that ends it, as `content` of `registry.finish_upload`; more of them by `upload`
      before, which gives the address to finish at. (PUSHED, "").

    Raises RegistryError. Source: OCI distribution-spec spec.md "Pushing blobs", "Mounting a blob".
    """
    digest = descriptor["digest"]
    if registry.has_blob(repository, digest):
        return EXISTS, ""
    address = ""
    for source in neighbours:
        address = begin_mount(registry, repository, digest, source)
        if not address:
            return MOUNTED, source
    address = address or registry.begin_upload(repository)
    if descriptor["size"] <= SMALL:
        registry.finish_upload(repository, address, digest, b"".join(pieces(0)))
    else:
        address = upload(registry, repository, address, descriptor["size"], pieces)
        registry.finish_upload(repository, address, digest)
    return PUSHED, ""


def begin_mount(registry: Registry, repository: str, digest: str, source: str) -> str:
    """Ask for a blob of the repository `source`: "" when the registry mounted it, else the address of an upload that it
    began instead. A user who may not read `source` is no reason to give up: then the upload is asked for plainly."""
    try:
        return registry.begin_upload(repository, digest, source)
    except RegistryError as error:
        if error.status not in (400, 401, 403, 404, 405):
            raise
        return registry.begin_upload(repository)


def upload(registry: Registry, repository: str, address: str, size: int, pieces: Open) -> str:
    """Bring the `size` bytes of a blob to the upload at `address`; the address at which to finish it.

    When the connection breaks, the registry says how many bytes it has, and the rest is sent. Raises RegistryError
    when it refuses, or when several tries in a row brought nothing.
    """
    start, failures = 0, 0
    while start < size:
        try:
            return registry.send_chunk(repository, address, partial(pieces, start), start, size - start)
        except RegistryError as error:
            if error.status not in (0, 416) or failures == _TRIES:
                raise
            time.sleep(0.1 * 2 ** failures)
            before, start = start, registry.received(repository, address)
            failures = 0 if start > before else failures + 1
    return address

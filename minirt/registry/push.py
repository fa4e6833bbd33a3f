"""Chapter 14: what it takes to push an image.

Bottom up, as a house is built: first every blob that the registry does not have yet, then the manifest that names them,
with the tag. So what others can see is always whole.

A blob is not brought when it is there already, and not even when a neighbouring repository of the same registry has it:
then it is *mounted*, which costs one request. Otherwise it goes up in one stream.

Rules of the room: bytes go out as they are stored, so every digest stays what it is, from registry to registry.

Source: OCI distribution-spec "Push".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minirt.registry.client import Open, Registry

CHAPTER = 14

SMALL = 1 << 16  # bytes that go into the last request of an upload, instead of a chunk of their own
EXISTS, MOUNTED, PUSHED = "Layer already exists", "Mounted from", "Pushed"


def push_blob(registry: Registry, repository: str, descriptor: dict[str, Any], pieces: Open,
              neighbours: Iterable[str] = ()) -> tuple[str, str]:
    """Bring a blob to a repository in the cheapest way; tell which it was. `pieces(start)` gives its bytes from `start`
    on, `descriptor` has its "digest" and "size".

    - It is there (`registry.has_blob`): (EXISTS, "").
    - One of the `neighbours`, other repositories of this registry, has it: `registry.begin_upload` with digest and
      neighbour gives "" for the first that has: (MOUNTED, that repository). Otherwise it gives the address of an
      upload, which the registry began instead.
    - It has to be brought: to the address of the last such upload, or to a new one (`begin_upload` without them). At
      most SMALL bytes go with the request that ends it, as `content` of `registry.finish_upload`; more of them by
      `registry.send_chunk` before, which gives the address to finish at. (PUSHED, "").

    Raises RegistryError. Source: OCI distribution-spec spec.md "Pushing blobs", "Mounting a blob".
    """
    digest, size, address = descriptor["digest"], descriptor["size"], ""
    if registry.has_blob(repository, digest):
        return EXISTS, ""
    for source in neighbours:
        address = registry.begin_upload(repository, digest, source)
        if not address:
            return MOUNTED, source
    address = address or registry.begin_upload(repository)
    if size <= SMALL:
        registry.finish_upload(repository, address, digest, b"".join(pieces(0)))
    else:
        address = registry.send_chunk(repository, address, pieces, 0, size)
        registry.finish_upload(repository, address, digest)
    return PUSHED, ""

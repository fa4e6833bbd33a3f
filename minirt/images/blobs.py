"""Chapter 13: bytes whose name is their digest.

An image is a handful of *blobs*: its layers, its configuration, the manifest that lists both. A blob is stored under
the sha256 of its own bytes:

    blobs/sha256/5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03

So a name says what must be in the file; equal blobs are stored once, whoever brings them; and nobody who can change the
file, or sends another one, can do it unnoticed. Whoever points at a blob does so with a *descriptor*: its media type,
its digest, its size in bytes.

Layers have two digests more. The *diff id* is that of the archive before it is compressed: it stays when somebody packs
the layer anew. The *chain id* names a layer together with all below it, which is what an unpacked directory is.

Rules of the room: what came from outside is believed after `verify`, not before. A start passes here and hashes
nothing, so hashlib is imported where it is used.

Sources: OCI image-spec descriptor.md, image-layout.md, config.md "Layer DiffID", "Layer ChainID".
"""

from __future__ import annotations

import os

from minirt import state
from minirt.errors import BadInputError
from minirt.images import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


def digest(data: bytes) -> str:
    """The name of these bytes as a blob: "sha256:" and the 64 hexadecimal digits of their hash."""
    import hashlib

    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    """What a document says of a blob that it points at."""
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


def verify(data: bytes, wanted: Mapping[str, Any]) -> bytes:
    """Return `data` if it is what the descriptor `wanted` promises: "size" bytes, whose `digest` is "digest".

    Raises BadInputError, with the digest in its sentence, when it is not. Sources:
    OCI image-spec descriptor.md "Verification", sha256sum(1).
    """
    if len(data) != wanted["size"]:
        raise BadInputError(f"the blob {wanted['digest']} has {len(data)} bytes, but {wanted['size']} were promised")
    if digest(data) != wanted["digest"]:
        raise BadInputError(f"the blob {wanted['digest']} does not have that digest: it is damaged or another one")
    return data


def path(layout: str, name: str) -> str:
    """Where the layout in the directory `layout` keeps the blob with the digest `name`.

    Raises BadInputError when that is no digest: a name from outside would else lead to any file.
    """
    reference.check_digest(name)
    return f"{layout}/blobs/{name.replace(':', '/', 1)}"


def read(layout: str, wanted: Mapping[str, Any]) -> bytes:
    """The blob that a descriptor points at, verified. Raises BadInputError when it is missing or another one."""
    try:
        return verify(state.read_file(path(layout, wanted["digest"])), wanted)
    except FileNotFoundError:
        raise BadInputError(f"the blob {wanted['digest']} is missing in {layout}") from None


def write(layout: str, data: bytes) -> str:
    """Store `data` in a layout, whole or not at all; return its digest. Equal bytes are there already, and stay."""
    name = digest(data)
    place = path(layout, name)
    if not os.path.exists(place):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        state.write_atomic(place, data)
    return name


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The chain ids, hexadecimal, of layers with these diff ids ("sha256:..."), the lowest first; none for no layers.

    The lowest layer's chain id is its diff id; each further one is the sha256 of "CHAIN DIFF", the chain id below and
    its own diff id, each with "sha256:" before it and one space between. Sources: OCI image-spec
    config.md "Layer ChainID", sha256sum(1).
    """
    chains: list[str] = []
    for diff_id in diff_ids:
        name = digest(f"sha256:{chains[-1]} {diff_id}".encode()) if chains else diff_id
        chains.append(name.removeprefix("sha256:"))
    return chains

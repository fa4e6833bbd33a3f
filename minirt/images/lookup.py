"""Chapter 13, beyond: from what a user calls an image to its documents.

The store is an OCI image layout: index.json lists manifests, each with the image's full name as an annotation; a
manifest names the config and the layers by their digests; the digest of the config is the image's id.

Rules of the room: every start passes here, so it only reads, takes no lock (index.json is replaced whole) and imports
nothing but the ground floor. What changes the store is in `store.py`.

Sources: OCI image-spec image-layout.md, descriptor.md, manifest.md, image-index.md, config.md.
"""

from __future__ import annotations

import os
import stat

from minirt import state
from minirt.errors import BadInputError, NotFoundError
from minirt.images import blobs, documents, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    Found = TypeVar("Found")

PULLED = "minirt.pulled"  # annotation of index.json: REPOSITORY@DIGEST of the image index that it was pulled by
_HEX = frozenset("0123456789abcdef")


def steady(look: Callable[[], Found]) -> Found:
    """What `look` finds. It reads the store without a lock: when it fails since another command changed the index at
    the same moment, it looks again."""
    while True:
        before = _version()
        try:
            return look()
        except (BadInputError, FileNotFoundError):
            if _version() == before:
                raise


def _version() -> tuple[int, int]:
    """What differs after each change of the index, which is replaced whole."""
    try:
        status = os.stat(f"{state.root()}/images/index.json")
    except FileNotFoundError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)


def resolve(name: str) -> tuple[str, str]:
    """The id and the full reference ("" when found by its id) of the image that `name` means: a name with
    or without tag, name@digest, or an id or the beginning of one.

    Raises NotFoundError with Docker's sentence, BadInputError when it can be no name at all, or when the store is
    damaged.
    """
    wanted = named(name)
    index = read_index()
    if wanted is not None:
        for descriptor in index["manifests"]:
            if matches(descriptor, wanted):
                return config_digest(descriptor), name_of(descriptor)
    digits = name.removeprefix("sha256:")
    if digits and set(digits) <= _HEX:
        found = {identifier for identifier in identifiers(index) if identifier.startswith(digits, 7)}
        if len(found) == 1:
            return found.pop(), ""
    raise NotFoundError(f"No such image: {wanted.familiar() if wanted else 'sha256:' + digits}")


def named(name: str) -> reference.Reference | None:
    """The reference in `name`, `latest` added; None for a full id, which Docker does not take for a name."""
    if len(name.removeprefix("sha256:")) == 64 and set(name.removeprefix("sha256:")) <= _HEX:
        return None
    return reference.parse(name).tagged()


def matches(descriptor: dict[str, Any], wanted: reference.Reference) -> bool:
    """Whether a descriptor of index.json is the image with that (tagged) reference."""
    full = name_of(descriptor)
    if not wanted.digest:
        return full == str(wanted)
    if not wanted.tag and full == str(wanted):
        return True
    repository, at, _ = full.partition("@")
    if not at:
        repository = full.rpartition(":")[0]
    return wanted.digest in (descriptor["digest"], digest_of(descriptor)) and repository == wanted.repository


def digest_of(descriptor: dict[str, Any]) -> str:
    """The digest under which a registry has what a descriptor of index.json means: of the index by which it was pulled
    there under its present name, else its own."""
    source, _, digest = str((descriptor.get("annotations") or {}).get(PULLED, "")).partition("@")
    there = bool(digest) and name_of(descriptor).startswith((source + ":", source + "@"))
    return digest if there else str(descriptor["digest"])


def name_of(descriptor: dict[str, Any]) -> str:
    """The full reference of a descriptor of index.json, "" when it has none."""
    return str((descriptor.get("annotations") or {}).get(documents.REF_NAME) or "")


def identifiers(index: dict[str, Any]) -> Iterator[str]:
    """The ids of all images: those unpacked, by their records, and those that only the index knows."""
    try:
        unpacked = [name for name in os.listdir(f"{state.root()}/chains") if len(name) == 64]
    except FileNotFoundError:
        unpacked = []
    yield from ("sha256:" + name for name in unpacked)
    if len(unpacked) < len(index["manifests"]):
        for descriptor in index["manifests"]:
            yield config_digest(descriptor)


def config_digest(descriptor: dict[str, Any]) -> str:
    """The digest of the config behind a descriptor, that is the image's id; of an index, this platform's."""
    return str(manifest_of(descriptor)["config"]["digest"])


def manifest_of(descriptor: dict[str, Any]) -> dict[str, Any]:
    """The manifest behind a descriptor of a manifest or of an index (then this platform's). Raises BadInputError."""
    return documents.follow(descriptor, lambda each: read_blob(each["digest"]))[1]


def read_index() -> dict[str, Any]:
    """index.json of the store; an empty one when there is no store yet. Raises BadInputError when it is damaged."""
    try:
        index = state.read_json(f"{state.root()}/images/index.json")
    except FileNotFoundError:
        return {"schemaVersion": 2, "manifests": []}
    except ValueError as error:
        raise BadInputError(f"the image store is damaged: {error}") from None
    if not isinstance(index, dict) or not isinstance(index.get("manifests"), list):
        raise BadInputError("the image store is damaged: index.json lists no manifests")
    return index


def read_blob(digest: str) -> dict[str, Any]:
    """A blob of the store that is a JSON object. Raises BadInputError when it is missing or none."""
    path = blob_path(digest)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would keep us waiting for ever
            raise BadInputError(f"the image store is damaged: the blob {digest} is no file")
        document = state.read_json(path)
    except FileNotFoundError:
        raise BadInputError(f"the image store is damaged: the blob {digest} is missing") from None
    except ValueError as error:
        raise BadInputError(f"the image store is damaged: {error}") from None
    if not isinstance(document, dict):
        raise BadInputError(f"the image store is damaged: the blob {digest} is no JSON object")
    return document


def blob_path(digest: str) -> str:
    """Where the store keeps the blob with that digest. Raises BadInputError when it is no digest."""
    return blobs.path(f"{state.root()}/images", digest)

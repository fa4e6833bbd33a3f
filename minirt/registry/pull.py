"""Chapter 14: what it takes to pull an image.

    reference ─► manifest ─┬─ an index? then the entry of our platform, and its manifest ─► config, layers
                           └─ a manifest ────────────────────────────────────────────────► config, layers

Each arrow is a digest: whoever has the first can trust all that follows, however untrusted the way is. A tag is the
only thing in this that may change; so it is asked once, and from there on only digests.

A blob comes as a stream: counted, hashed, and handed on piece by piece. When the connection breaks, the next request
asks for the rest (`Range: bytes=N-`), and the digest goes on as if nothing had happened.

Rules of the room: nothing is held whole but documents; nothing is written here: what becomes of the pieces, whoever
takes them decides, and must throw them away when the stream ends with an error.

Sources: OCI distribution-spec "Pull"; OCI image-spec image-index.md, manifest.md; RFC 9110 section 14 (ranges).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from minirt import trace
from minirt.errors import BadInputError
from minirt.images import blobs, documents, reference
from minirt.registry.client import LARGEST_MANIFEST, Manifest, Registry, RegistryError

CHAPTER = 14

TRIES = 6  # requests in a row that bring nothing
_PIECE = 1 << 18  # bytes that are read at a time: what a broken connection takes along at most


@dataclass(frozen=True)
class Found:
    """An image in a registry: what was asked for (`top`, a manifest or an index) and, of it, what this machine runs."""

    repository: str
    top: Manifest
    manifest: Manifest
    config: dict[str, Any]        # the descriptor of its configuration
    layers: list[dict[str, Any]]  # the descriptors of its layers, the lowest first


def find(registry: Registry, repository: str, name: str, platform: str = "") -> Found:
    """Find the image with that tag or digest, for `platform` ("linux/arm64"; "" is this machine's).

    Raises RegistryError when there is none, BadInputError when it is for other platforms or no image at all.
    """
    trace.step(CHAPTER, "find out what the image is made of", f"GET /v2/{repository}/manifests/{name}")
    top = registry.manifest(repository, name)
    read = {top.digest: top}

    def document(descriptor: dict[str, Any]) -> dict[str, Any]:
        digest = descriptor["digest"]
        if digest not in read:
            reference.check_digest(digest)  # it becomes a part of an address
            read[digest] = registry.manifest(repository, digest)
        return read[digest].document

    try:
        chosen, _ = documents.follow({"digest": top.digest}, document, platform)
        manifest = read[chosen["digest"]]
        config, *layers = parts_of(manifest)
    except (AttributeError, KeyError, TypeError):
        raise BadInputError(f"{top.digest} is no manifest of an image, and no index of images") from None
    return Found(repository, top, manifest, config, layers)


def parts_of(manifest: Manifest) -> list[dict[str, Any]]:
    """The descriptors in an image's manifest, each with a digest and a size: its configuration, then its layers.

    Raises BadInputError when it is no such manifest.
    """
    document = manifest.document
    parts = [document.get("config"), *(document.get("layers") or [])]
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("size"), int) or part["size"] < 0:
            raise BadInputError(f"{manifest.digest} is no manifest of an image")
        reference.check_digest(str(part.get("digest")))
        if not part["digest"].startswith("sha256:"):
            raise BadInputError(f"{part['digest'][:40]}: only sha256 is supported")
    if parts[0]["size"] > 2 * LARGEST_MANIFEST:
        raise BadInputError(f"the configuration of the image claims {parts[0]['size']} bytes")
    return parts


def fetch(registry: Registry, repository: str, descriptor: dict[str, Any], start: int = 0) -> Iterator[bytes]:
    """The bytes of a blob from byte `start` on, in pieces; when the connection breaks, the rest is asked for.

    `rest(registry, repository, descriptor, start)` gives the pieces from a byte on, as far as one request brings them:
    it may end too early, or raise. Then ask again, for what follows the last byte that was given out, until all of the
    `descriptor`'s "size" bytes have been.

    A RegistryError with a `status` is a refusal, and raised at once; one without, and an OSError, mean that the
    connection broke. TRIES requests in a row that bring not a byte end it: RegistryError, with the byte number reached.
    Before a request that follows one without a byte, `pause(n)` waits, for the n-th such in a row. Source: RFC 9110
    section 14.
    """
    size, failures = descriptor["size"], 0
    while start < size:
        before, problem = start, "it ends too early"
        try:
            for piece in rest(registry, repository, descriptor, start):
                start += len(piece)
                yield piece
        except (RegistryError, OSError) as error:
            if getattr(error, "status", 0):
                raise
            problem = str(error)
        failures = 0 if start > before else failures + 1
        if failures == TRIES:
            raise RegistryError(f"the download of {descriptor['digest'][:19]} broke off at byte {start} of {size}, and "
                                f"{TRIES} further tries brought nothing: {problem}")
        if failures:
            pause(failures)


def pause(number: int) -> None:
    """Wait before the next request, longer after each that brought nothing."""
    time.sleep(min(0.1 * 2 ** number, 5))


def rest(registry: Registry, repository: str, descriptor: dict[str, Any], start: int) -> Iterator[bytes]:
    """The bytes of a blob from byte `start` on as one request brings them, and never more than its descriptor says.

    Raises RegistryError when the registry refuses, OSError when the connection breaks.
    """
    most = descriptor["size"] - start
    with registry.blob(repository, descriptor["digest"], start) as answer:
        skip = start if answer.status_code == 200 else 0  # it does not know ranges: all of it once more
        for piece in answer.iter_content(_PIECE):
            skipped, piece = len(piece), piece[skip:]
            skip = max(skip - skipped, 0)
            if piece:
                yield piece[:most]
                most -= len(piece)
            if most <= 0:
                return


def read_config(registry: Registry, found: Found) -> bytes:
    """The configuration of an image, verified."""
    return blobs.verify(b"".join(fetch(registry, found.repository, found.config)), found.config)

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
from typing import TYPE_CHECKING, Any

from minirt import trace
from minirt.errors import BadInputError
from minirt.images import blobs, documents, reference
from minirt.registry.client import LARGEST_MANIFEST, PIECE, Manifest, Registry, RegistryError

if TYPE_CHECKING:
    from requests import Response

CHAPTER = 14

SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
ATTESTATION = "vnd.docker.reference.type"  # the annotation of an entry that tells about another entry
_TRIES = 6  # requests in a row that bring nothing


@dataclass(frozen=True)
class Found:
    """An image in a registry: what was asked for (`top`, a manifest or an index) and, of it, what this machine runs."""

    repository: str
    top: Manifest
    manifest: Manifest

    @property
    def config(self) -> dict[str, Any]:
        """The descriptor of the configuration."""
        config: dict[str, Any] = self.manifest.document["config"]
        return config

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The descriptors of the layers, the lowest first."""
        layers: list[dict[str, Any]] = self.manifest.document["layers"]
        return layers


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
            read[digest] = registry.manifest(repository, digest)
        return images_of(read[digest].document)

    chosen, _ = documents.follow({"digest": top.digest}, document, platform)
    check_manifest(read[chosen["digest"]])
    return Found(repository, top, read[chosen["digest"]])


def images_of(document: dict[str, Any]) -> dict[str, Any]:
    """An index without the entries that are no images: one with the annotation `vnd.docker.reference.type` tells about
    another entry, as who built it and from what. A manifest stays as it is. Source: BuildKit, "Attestation storage"."""
    if not isinstance(document.get("manifests"), list):
        return document
    entries = [each for each in document["manifests"] if ATTESTATION not in (each.get("annotations") or {})]
    return {**document, "manifests": entries}


def check_manifest(manifest: Manifest) -> None:
    """Raises BadInputError unless it is an image's manifest, with a digest and a size for each part of it."""
    document = manifest.document
    if document.get("schemaVersion") == 1 or manifest.media_type.startswith(SCHEMA_1):
        raise BadInputError("the registry has this image in Docker's first format (schema 1), which nobody makes since "
                            "2017 and no current tool takes: push it again with a newer one")
    parts = [document.get("config"), *(document.get("layers") or [])]
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("size"), int) or part["size"] < 0:
            raise BadInputError(f"{manifest.digest} is no manifest of an image")
        reference.check_digest(str(part.get("digest")))
        if not part["digest"].startswith("sha256:"):
            raise BadInputError(f"{part['digest'][:40]}: only sha256 is supported")
    if parts[0]["size"] > 2 * LARGEST_MANIFEST:
        raise BadInputError(f"the configuration of the image claims {parts[0]['size']} bytes")


def fetch(registry: Registry, repository: str, descriptor: dict[str, Any], start: int = 0) -> Iterator[bytes]:
    """The bytes of a blob from `start` on, in pieces; when the connection breaks, the rest is asked for.

    `descriptor`: its "digest" and "size". Not one byte more than that size is read. Raises RegistryError when the
    registry refuses, or when several requests in a row brought nothing; whoever takes the pieces checks the digest.
    """
    size, failures = descriptor["size"], 0
    while start < size:
        before = start
        problem: Exception | str = "it ends too early"
        try:
            answer = registry.blob(repository, descriptor["digest"], start)
            with answer:
                skip = start if answer.status_code == 200 else 0  # it does not know ranges: all of it once more
                for piece in _pieces(answer, skip, size - start):
                    start += len(piece)
                    yield piece
        except RegistryError as error:
            if error.status:
                raise
            problem = error
        except OSError as error:  # of requests, urllib3 or the socket: the connection broke
            problem = error
        failures = 0 if start > before else failures + 1
        if failures == _TRIES:
            raise RegistryError(f"the download of {descriptor['digest'][:19]} broke off at byte {start} of {size}, and "
                                f"{_TRIES} further tries brought nothing: {problem}")
        if failures:
            time.sleep(min(0.1 * 2 ** failures, 5))


def _pieces(answer: Response, skip: int, most: int) -> Iterator[bytes]:
    """At most `most` bytes of the answer's body, after the first `skip`."""
    for piece in answer.iter_content(PIECE):
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

"""Chapter 13: the documents of an image: from an index to a manifest, from there to configuration and layers.

    index.json ── manifest, by name ─┬─ config: what to run, and the diff ids of the layers
                                     └─ layers, the lowest first: archives, mostly compressed
    index.json ── image index ─┬─ manifest for linux/amd64
                               └─ manifest for linux/arm64

Each arrow is a descriptor: so the digest of the document at the left fixes everything at its right, to the last byte of
the last file. The digest of the configuration is the *image id*. Docker's older media types mean the same documents.

Rules of the room: a start passes here, so it is lean; where bytes come from is the business of the `read` that a caller
gives.

Sources: OCI image-spec image-index.md, manifest.md, config.md; Docker image manifest V2, schema 2.
"""

from __future__ import annotations

import os

from minirt.errors import BadInputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
INDEX_TYPE, MANIFEST_TYPE = INDEX_TYPES[0], MANIFEST_TYPES[0]
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"  # with +gzip or +zstd when it is compressed
REF_NAME = "org.opencontainers.image.ref.name"         # the annotation that gives an image its name in index.json
ATTESTATION = "vnd.docker.reference.type"              # the annotation of an entry that tells about another entry
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}    # uname's words for what Go, and so OCI, calls otherwise
_DEEPEST = 4  # an index may list indexes


def architecture() -> str:
    """This machine's architecture in OCI's words: amd64, arm64, else what uname says."""
    machine = os.uname().machine
    return _MACHINES.get(machine, machine)


def choose(manifests: Sequence[dict[str, Any]], platform: str = "") -> dict[str, Any]:
    """The descriptor for a platform among the "manifests" of an image index, the first one that fits.

    `platform`: "linux/amd64", "linux/arm/v7", ...; "" is Linux on this machine's `architecture`. An entry has its own
    under "platform", with "os", "architecture" and perhaps "variant"; it fits when all that is asked for is equal (a
    "linux/arm64" any variant of it), and also when it says nothing (no "platform", or an empty one). Raises
    BadInputError that names what is asked for and what there is.
    Sources: OCI image-spec image-index.md, uname(2).
    """
    wanted = (platform or f"linux/{architecture()}").split("/")
    offered = []
    for each in manifests:
        found = each.get("platform") or {}
        words = [found.get(key, "") for key in ("os", "architecture", "variant")]
        if not found or words[:len(wanted)] == wanted:
            return each
        offered.append("/".join(filter(None, words)))
    raise BadInputError(f"no matching manifest for {'/'.join(wanted)} in the manifest list entries: "
                        f"the image is made for {', '.join(offered) or 'nothing'}")


def follow(descriptor: dict[str, Any], read: Callable[[dict[str, Any]], dict[str, Any]], platform: str = "",
           ) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest that a descriptor leads to, through an index where there is one: (its descriptor, the document).

    `read` gives the document behind a descriptor. An entry with the annotation ATTESTATION is no image: it tells who
    built another entry, and from what (BuildKit, "Attestation storage"). Raises BadInputError when there is none for
    the platform.
    """
    for _ in range(_DEEPEST):
        document = read(descriptor)
        if "manifests" not in document:
            return descriptor, document
        images = [each for each in document["manifests"] or [] if ATTESTATION not in (each.get("annotations") or {})]
        descriptor = choose(images, platform)
    raise BadInputError(f"the image index {descriptor['digest']} is nested too deeply")


def assemble(config: dict[str, Any], layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The manifest of an image: the descriptors of its configuration and of its layers, the lowest first."""
    return {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": list(layers)}

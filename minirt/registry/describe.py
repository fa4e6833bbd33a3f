"""Chapter 14, beyond: what a registry says of an image, for people: `manifest inspect`.

Source: docker-manifest-inspect(1).
"""

from __future__ import annotations

from typing import Any

from minirt.errors import MinirtError
from minirt.images import documents
from minirt.images.reference import Reference
from minirt.registry import transfer
from minirt.registry.client import Manifest, Registry, RegistryError


def describe(registry: Registry, name: Reference, verbose: bool = False) -> Any:
    """The manifest or index behind a name as it stands in the registry; with `verbose` each manifest with its reference
    and its descriptor. Raises MinirtError, as Docker: `no such manifest: NAME`."""
    try:
        top = registry.manifest(name.path, name.digest or name.tagged().tag)
        if not verbose:
            return top.document
        entries = top.document.get("manifests")
        if entries is None:
            return _entry(name, top, {"os": "linux", "architecture": documents.architecture()})
        return [_entry(Reference(name.domain, name.path, "", each["digest"]),
                       registry.manifest(name.path, each["digest"]), each.get("platform")) for each in entries]
    except RegistryError as error:
        if error.status == 404:
            raise MinirtError(f"no such manifest: {name.tagged().familiar()}") from None
        raise transfer.told(error, name) from None


def _entry(name: Reference, manifest: Manifest, platform: dict[str, Any] | None) -> dict[str, Any]:
    kind = "OCIManifest" if manifest.media_type == documents.MANIFEST_TYPE else "SchemaV2Manifest"
    descriptor = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.content)}
    return {"Ref": str(name.tagged()), "Descriptor": {**descriptor, "platform": platform}, kind: manifest.document}

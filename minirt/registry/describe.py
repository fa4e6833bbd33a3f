"""Chapter 14, beyond: what a registry says of an image, for people: `manifest inspect`.

Source: docker-manifest-inspect(1).
"""

from __future__ import annotations

import base64
from typing import Any

from minirt import state
from minirt.errors import BadInputError, MinirtError
from minirt.images import documents
from minirt.images.reference import Reference
from minirt.registry import pull, transfer
from minirt.registry.client import Manifest, Registry, RegistryError


def describe(registry: Registry, name: Reference, verbose: bool = False) -> Any:
    """The manifest or index behind a name as it stands in the registry; with `verbose` each manifest with its reference
    and its descriptor, a list of them for an index. Raises MinirtError, as Docker: `no such manifest: NAME`."""
    try:
        top = registry.manifest(name.path, name.digest or name.tagged().tag)
        if not verbose:
            return top.document
        found = top.document.get("manifests")
        if found is None:
            return _entry(str(name if name.digest else name.tagged()), top, _platform(registry, name.path, top))
        return [_entry(f"{name if name.digest else name.tagged()}@{each['digest']}",
                       registry.manifest(name.path, each["digest"]), each.get("platform")) for each in found]
    except RegistryError as error:
        if error.status == 404:
            raise MinirtError(f"no such manifest: {name.familiar() if name.digest else name.tagged().familiar()}"
                              ) from None
        raise transfer.told(error, name) from None
    except (AttributeError, KeyError, TypeError):
        raise BadInputError(f"the registry has no manifest of an image as {name.familiar()}") from None


def _platform(registry: Registry, repository: str, manifest: Manifest) -> dict[str, Any]:
    """What an image is made for, as its configuration says."""
    [config, *_] = pull.parts_of(manifest)
    try:
        said = state.loads(b"".join(pull.fetch(registry, repository, config)))
    except ValueError:
        said = {}
    return ordered(said if isinstance(said, dict) else {})


def ordered(platform: dict[str, Any]) -> dict[str, Any]:
    """A platform with its keys in Docker's order, since its bytes are hashed."""
    keys = ("architecture", "os", "os.version", "os.features", "variant")
    return {key: platform[key] for key in keys if platform.get(key)}


def _entry(name: str, manifest: Manifest, platform: dict[str, Any] | None) -> dict[str, Any]:
    kind = "OCIManifest" if manifest.media_type == documents.MANIFEST_TYPE else "SchemaV2Manifest"
    descriptor = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.content)}
    return {"Ref": name, "Descriptor": {**descriptor, "platform": platform},
            "Raw": base64.b64encode(manifest.content).decode(), kind: manifest.document}

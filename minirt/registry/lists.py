"""Chapter 14, beyond: manifest lists, one name for images of several platforms: `manifest create, annotate, push, rm`.

A list is put together on this machine, shared with the `docker` command, a file for each image in it:

    ~/.docker/manifests/REGISTRY-PORT_NAME-TAG/REGISTRY-PORT_NAME-TAG   {"Ref": ..., "Descriptor": ..., "Raw": ..., ...}

and pushed once it is whole: what it names has to be in the same registry, and is mounted into the list's repository.

Sources: docker-manifest(1); Docker's "Image Manifest Version 2, Schema 2", "Manifest List".
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from minirt import state
from minirt.errors import BadInputError, MinirtError, NotFoundError
from minirt.images import blobs, documents, platforms, reference
from minirt.images.reference import Reference
from minirt.registry import credentials, describe, push, transfer
from minirt.registry.client import Manifest, Registry, RegistryError

_INDENT = 3  # spaces, in the document that is pushed: the docker command makes the same bytes, and so the same digest


def full(text: str) -> Reference:
    """An image's name with its tag or digest. Raises BadInputError when it is none."""
    name = reference.parse(text)
    return name if name.digest else name.tagged()


def place(name: Reference, entry: Reference | None = None) -> str:
    """The directory of a list, or the file of an entry of it."""
    parts = [str(each).replace(":", "-").replace("/", "_") for each in (name, entry) if each]
    return "/".join([os.path.dirname(credentials.path()), "manifests", *parts])


def entries(name: Reference) -> list[dict[str, Any]]:
    """The images in a list of this machine, each as it is kept; [] when there is no such list."""
    if not os.path.isdir(place(name)):
        return []
    return [_read(f"{place(name)}/{file}") for file in sorted(os.listdir(place(name)))]


def _read(path: str) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = state.read_json(path)
        _ = entry["Ref"], entry["Descriptor"]["digest"], entry["Descriptor"]["platform"], base64.b64decode(entry["Raw"])
    except (ValueError, KeyError, TypeError):
        raise BadInputError(f"{path} is no manifest of a list: remove it") from None
    return entry


def inspect(name: Reference, image: Reference | None, connect: Callable[[str], Registry], verbose: bool) -> Any:
    """What `manifest inspect` shows: an image in the list `name` of this machine, or without `image` that list, or
    where there is none the manifest of that name in its registry. `verbose`: with name, digest and platform.

    Raises NotFoundError when the image is not in the list, and as `describe.describe`.
    """
    found = entries(name)
    if image:
        found = [each for each in found if each["Ref"] == str(image)]
        if not found:
            raise NotFoundError(f"No such manifest: {image.familiar()}")
        return found[0] if verbose else next(value for key, value in found[0].items() if key.endswith("Manifest"))
    if found:
        return found if verbose else state.loads(document(found))
    return describe.describe(connect(name.domain), name, verbose)


def create(name: Reference, images: list[Reference], amend: bool, connect: Callable[[str], Registry]) -> None:
    """Put a list together from images in registries; with `amend` one that is there gets more of them.

    Raises MinirtError when it is there without `amend`, or an image is not, or is a list itself.
    """
    if os.path.isdir(place(name)) and not amend:
        raise MinirtError("refusing to amend an existing manifest list with no --amend flag")
    found = []
    for image in images:
        entry = describe.describe(connect(image.domain), image, verbose=True)
        if isinstance(entry, list):
            raise BadInputError(f"{image.familiar()} is a manifest list")
        found.append(entry)
    os.makedirs(place(name), 0o755, exist_ok=True)
    for image, entry in zip(images, found, strict=True):
        state.write_json(place(name, image), entry)


def annotate(name: Reference, image: Reference, changes: dict[str, str], features: list[str]) -> None:
    """Say more about an image in a list: `changes` are of "os", "architecture", "variant", "os.version".

    Raises NotFoundError when it is not in the list, BadInputError for a platform that there is none of.
    """
    if not os.path.isfile(place(name, image)):
        raise NotFoundError(f"manifest for image {image.familiar()} does not exist in {name.familiar()}")
    entry = _read(place(name, image))
    platform = entry["Descriptor"]["platform"] | {key: value for key, value in changes.items() if value}
    if features:
        platform["os.features"] = list(dict.fromkeys([*platform.get("os.features", []), *features]))
    if platform.get("os") not in platforms.SYSTEMS or platform.get("architecture") not in platforms.MACHINES:
        raise BadInputError("manifest entry for image has unsupported os/arch combination: "
                            f"{platform.get('os')}/{platform.get('architecture')}")
    entry["Descriptor"]["platform"] = describe.ordered(platform)
    state.write_json(place(name, image), entry)


def document(found: list[dict[str, Any]]) -> bytes:
    """The manifest list that names these entries: an OCI index where the first of them is OCI's, else Docker's list."""
    kind = documents.INDEX_TYPES[found[0]["Descriptor"]["mediaType"] != documents.MANIFEST_TYPE]
    rows = [{"mediaType": each["mediaType"], "size": each["size"], "digest": each["digest"],
             "platform": each["platform"]} for each in (entry["Descriptor"] for entry in found)]
    return state.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": rows}, indent=_INDENT, docker=True).encode()


def push_list(name: Reference, registry: Registry, purge: bool) -> Iterator[str]:
    """Push a list, and what it names; lines that tell of it, the last one the list's digest. `purge`: forget it then.

    Raises MinirtError.
    """
    found = entries(name)
    if not found:
        raise NotFoundError(f"No such manifest: {name.familiar()}")
    for entry in found:
        if reference.parse(entry["Ref"]).domain != name.domain:
            raise BadInputError("cannot use source images from a different registry than the target image: "
                                f"{reference.parse(entry['Ref']).domain} != {name.domain}")
    try:
        for entry in found:
            source, content = reference.parse(entry["Ref"]), base64.b64decode(entry["Raw"])
            manifest = Manifest(content, entry["Descriptor"]["mediaType"], blobs.digest(content))
            if source.path != name.path:
                _mount(registry, name.path, source.path, manifest)
            registry.put_manifest(name.path, manifest.digest, manifest)
            yield (f"Pushed ref {Reference(name.domain, name.path, '', manifest.digest).familiar()} "
                   f"with digest: {manifest.digest}")
        whole = document(found)
        kind = str(state.loads(whole)["mediaType"])
        registry.put_manifest(name.path, name.tag, Manifest(whole, kind, blobs.digest(whole)))
    except RegistryError as error:
        raise transfer.told(error, name, "push") from None
    if purge:
        shutil.rmtree(place(name))
    yield blobs.digest(whole)


def _mount(registry: Registry, repository: str, source: str, manifest: Manifest) -> None:
    parts = [manifest.document.get("config"), *(manifest.document.get("layers") or [])]
    for part in parts:
        if not isinstance(part, dict) or not part.get("digest"):
            raise BadInputError(f"{manifest.digest} is no manifest of an image")
        try:
            push.push_blob(registry, repository, part, lambda start: _refuse(), [source])
        except RegistryError:
            if not part.get("urls"):  # what lies elsewhere is in no registry
                raise


def _refuse() -> Iterator[bytes]:
    raise RegistryError("the registry does not mount the blobs of the list's images: push them to its repository first",
                        "", 400)


def remove(names: list[Reference]) -> list[str]:
    """Forget lists; the sentences about those that there are none of."""
    complaints = []
    for name in names:
        if os.path.isdir(place(name)):
            shutil.rmtree(place(name))
        else:
            complaints.append(f"No such manifest: {name.familiar()}")
    return complaints

"""Chapter 14, beyond: images between a registry and the image store, as `minirt pull` and `minirt push` do it.

`pull.py` and `push.py` say what is asked in which order; here is which registry it is, what the store has already, what
is told meanwhile, and what the image is called afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from minirt import state
from minirt.errors import BadInputError, KernelError, MinirtError, NotFoundError
from minirt.images import assemble, documents, listing, lookup, platforms, reference, store, untrusted
from minirt.images.reference import Reference
from minirt.registry import hosts, pull, push
from minirt.registry.client import ACCEPT, Manifest, Registry, RegistryError, pulling, pushing
from minirt.registry.progress import Progress

CONFIG_TYPES = (documents.CONFIG_TYPE, "application/vnd.docker.container.image.v1+json",
                "application/octet-stream", "application/json", "text/html", "")  # the latter of old registries
PIECE = 1 << 17  # bytes of a blob that are sent at a time


class Layer:
    """A layer of an image in a registry, as `assemble` takes it."""

    def __init__(self, registry: Registry, repository: str, descriptor: dict[str, Any], diff_id: str,
                 progress: Progress) -> None:
        self._registry, self._repository, self._descriptor = registry, repository, descriptor
        self._progress = progress
        self.digest, self.size, self.diff_id = descriptor["digest"], descriptor["size"], diff_id
        self.far = True

    def media_type(self) -> str:
        """As the manifest says."""
        return str(self._descriptor.get("mediaType"))

    def pieces(self, start: int = 0) -> Iterator[bytes]:
        """Its bytes from one on, as they arrive."""
        self.say("Pulling fs layer")
        try:
            for piece in pull.fetch(self._registry, self._repository, self._descriptor, start):
                start += len(piece)
                self._progress.step(short(self.digest), "Downloading", start, self.size)
                yield piece
        except RegistryError as error:
            if error.status == 404 and self._descriptor.get("urls"):
                raise BadInputError(f"the registry lacks the layer {self.digest}: it is told to lie elsewhere, as only "
                                    "layers of Windows do") from None
            raise
        self.say("Download complete")

    def say(self, status: str) -> None:
        """Tell the user how far it is."""
        self._progress.say(short(self.digest), status)


class Pulled:
    """What a pull brought: `digest` of what was asked for, `fresh` unless the store had just that already."""

    def __init__(self, name: Reference, digest: str, fresh: bool) -> None:
        self.name, self.digest, self.fresh = name, digest, fresh

    def lines(self, name: str = "") -> list[str]:
        """Docker's last lines; `name`: what was asked for, if it is not the image's own."""
        status = "Downloaded newer image for" if self.fresh else "Image is up to date for"
        return [f"Digest: {self.digest}", f"Status: {status} {name or self.name.familiar()}"]


def tell(action: str, name: Reference) -> None:
    """Add the event of a pull or a push to the log, which is one of a reference."""
    try:
        identifier = lookup.resolve(name.familiar())[0]
    except NotFoundError:
        return  # another command has removed it already
    listing.tell(action, identifier, name.familiar_repository(), about=name.familiar())


def short(digest: str) -> str:
    """A layer's name for people."""
    return digest.partition(":")[2][:12]


def pull_image(name: Reference, platform: str, progress: Progress, registry: Registry | None = None) -> Pulled:
    """Pull the image with a tag or a digest into the store. Raises MinirtError, in Docker's words; then the store is as
    it was."""
    name = Reference(name.domain, name.path, "", name.digest) if name.digest else name.tagged()
    wanted = name.digest or name.tag
    for mirror in [] if registry else hosts.mirrors(name.domain):
        try:
            return pull_image(name, platform, progress, mirror)
        except MinirtError:
            continue  # whatever it is, the registry itself will have it or tell why not
    registry = registry or hosts.connect(name.domain)
    try:
        digest = "" if platform else _digest_of(registry, name.path, wanted)
        if digest and _has(name, digest):
            progress.line(f"{wanted}: Pulling from {name.path}")
            tell("pull", name)
            return Pulled(name, digest, False)
        found = pull.find(registry, name.path, wanted, platform)
        check_kind(found.config)
        progress.line(f"{wanted}: Pulling from {name.path}")
        config = pull.read_config(registry, found)
        diff_ids = diff_ids_of(config, len(found.layers))
    except RegistryError as error:
        raise told(error, name) from None
    if found.top is found.manifest:  # of an index, the right entry was chosen
        try:
            platforms.check(state.loads(config), name.familiar(), platform)
        except NotFoundError as error:
            progress.warn(str(error))
    fresh = not _has(name, found.top.digest, found.manifest.digest)
    if fresh:
        _take(registry, name, found, config, diff_ids, progress)
    tell("pull", name)
    return Pulled(name, found.top.digest, fresh)


def check_kind(config: dict[str, Any]) -> None:
    """Whether an image's manifest says that it is one: registries keep other things in the same form. Raises
    BadInputError, in Docker's words."""
    kind = config.get("mediaType") or ""
    if kind not in CONFIG_TYPES:
        known = "plugin" if kind == "application/vnd.docker.plugin.v1+json" else "unknown"
        raise BadInputError(f'Encountered remote "{kind}"({known}) when fetching')


def _digest_of(registry: Registry, repository: str, wanted: str) -> str:
    """end-3 by HEAD: the digest of a manifest without the manifest, "" when there is none or nobody says."""
    address = f"/v2/{repository}/manifests/{wanted}"
    try:
        answer = registry.request("HEAD", address, pulling(repository), headers={"Accept": ACCEPT})
    except RegistryError as error:
        if error.status in (404, 405):
            return ""
        raise
    return answer.headers.get("Docker-Content-Digest", "")


def _has(name: Reference, digest: str, manifest: str = "") -> bool:
    """Whether the store has just that: the name, from that manifest, or from that index, for this machine or as the
    `manifest` among its entries; with its layers unpacked."""
    for each in lookup.read_index()["manifests"]:
        if lookup.name_of(each) == str(name) and digest in (each["digest"], lookup.digest_of(each)):
            config = lookup.config_digest(each)
            ours = each["digest"] in (digest, manifest) or (
                not manifest and lookup.read_blob(config).get("architecture") == documents.architecture())
            return ours and os.path.exists(f"{state.root()}/chains/{config[7:]}")
    return False


def diff_ids_of(config: bytes, layers: int) -> list[str]:
    """The diff ids in an image's configuration. Raises BadInputError when it is none, or not for so many layers."""
    diff_ids = untrusted.diff_ids_of(config)
    if len(diff_ids) != layers:
        raise BadInputError(f"the image has {layers} layers, but its configuration tells of {len(diff_ids)}")
    return diff_ids


def _take(registry: Registry, name: Reference, found: pull.Found, config: bytes, diff_ids: list[str],
          progress: Progress) -> None:
    layers = [Layer(registry, name.path, each, diff_id, progress)
              for each, diff_id in zip(found.layers, diff_ids, strict=True)]
    image = assemble.Image(config, layers, [str(name)], found.manifest.content, found.manifest.media_type)
    if found.top is not found.manifest:
        image.annotations[lookup.PULLED] = f"{name.repository}@{found.top.digest}"
    owners = assemble.become_root()
    store.sweep()
    registry.close()  # each process that fetches a layer has a connection of its own
    with store.Work() as work:
        progress.open()
        try:
            assemble.take(work, [image], owners)
        except OSError as error:
            raise KernelError.of("pulling an image", error) from None
        finally:
            progress.close()


def told(error: RegistryError, name: Reference, action: str = "pull") -> MinirtError:
    """A refusal of the registry with the image's name, as Docker tells it."""
    if error.code in ("DENIED", "UNAUTHORIZED") or error.status in (401, 403):
        return RegistryError(f"{action} access denied for {name.familiar_repository()}, repository does not exist or "
                             f"may require 'minirt login': {error}", error.code, error.status)
    if error.code == "MANIFEST_UNKNOWN" or (error.status == 404 and not error.code):
        return NotFoundError(f"manifest for {name.familiar()} not found: {error}")
    if error.code == "NAME_UNKNOWN":
        return NotFoundError(f"repository {name.familiar_repository()} not found: {error}")
    return error


def push_image(name: Reference, progress: Progress, registry: Registry | None = None, platform: str = "") -> str:
    """Push the image of the store that has this name, of a list the one for `platform`; Docker's last line. Raises
    MinirtError."""
    descriptor = next((each for each in lookup.read_index()["manifests"] if lookup.name_of(each) == str(name)), None)
    if descriptor is None:
        known = any(lookup.name_of(each).startswith(f"{name.repository}:") for each in lookup.read_index()["manifests"])
        raise NotFoundError(f"tag does not exist: {name.familiar()}" if known else
                            f"An image does not exist locally with the tag: {name.familiar_repository()}")
    chosen, document = documents.follow(descriptor, lambda each: lookup.read_blob(each["digest"]), platform)
    platforms.check(lookup.read_blob(document["config"]["digest"]), name.familiar(), platform)
    for each in [document["config"], *document["layers"]]:
        if not os.path.exists(lookup.blob_path(each["digest"])):  # a push that cannot succeed should not begin
            raise BadInputError(f"the image store lacks the blob {each['digest']}: pull or load the image again")
    content = state.read_file(lookup.blob_path(chosen["digest"]))
    media_type = str(document.get("mediaType") or chosen.get("mediaType") or documents.MANIFEST_TYPE)
    registry = registry or hosts.connect(name.domain)
    near = neighbours(name)
    try:
        registry.ping(pushing(name.path))
        for each in document["layers"]:
            progress.say(short(each["digest"]), "Preparing")
        for each in [*document["layers"], document["config"]]:
            label = "" if each is document["config"] else short(each["digest"])
            how, source = push.push_blob(registry, name.path, each, _shown(each, progress),
                                         near.get(each["digest"], ()))
            if label:
                progress.say(label, f"{how} {source}".strip())
        registry.put_manifest(name.path, name.tag or chosen["digest"], Manifest(content, media_type, chosen["digest"]))
    except RegistryError as error:
        raise told(error, name, "push") from None
    finally:
        progress.close()
    tell("push", name)
    return f"{name.tag}: digest: {chosen['digest']} size: {len(content)}"


def _shown(descriptor: dict[str, Any], progress: Progress) -> push.Open:
    """How a blob's bytes are read, with the user watching them go."""
    digest, size = descriptor["digest"], descriptor["size"]

    def pieces(start: int) -> Iterator[bytes]:
        with open(lookup.blob_path(digest), "rb", buffering=0) as file:
            file.seek(start)
            while piece := file.read(PIECE):
                yield piece
                start += len(piece)
                if size > push.SMALL:
                    progress.step(short(digest), "Pushing", start, size)

    return pieces


def neighbours(name: Reference) -> dict[str, list[str]]:
    """Blob digest -> repositories of the same registry that may have it: those of the store's images whose names say
    that they are from there."""
    found: dict[str, list[str]] = {}
    for each in lookup.read_index()["manifests"]:
        try:
            other = reference.parse(lookup.name_of(each)) if lookup.name_of(each) else None
            if other is None or other.domain != name.domain or other.path == name.path:
                continue
            document = lookup.manifest_of(each)
        except BadInputError:
            continue
        for blob in [document["config"], *document["layers"]]:
            known = found.setdefault(blob["digest"], [])
            if other.path not in known:
                known.append(other.path)
    return found

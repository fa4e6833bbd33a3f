"""Chapter 13, beyond: images leave the store as one file.

    oci-layout, index.json     an OCI image layout: who reads that form starts at the index
    manifest.json              Docker's own list, which names the same blobs: who reads the older form starts here
    blobs/sha256/DIGEST        manifests, configurations, layers

Nothing is packed anew: a layer goes out as it came in, compressed or not, so saving costs no more than copying, and
every digest stays. The same images give the same bytes: no entry has a time.

Before the first byte is written, the blobs get a second name in a directory of this command: whoever removes the image
meanwhile takes nothing away.

Sources: OCI image-spec image-layout.md, Docker image-spec v1.2 ("Combined Image JSON + Filesystem Changeset Format").
"""

from __future__ import annotations

import errno
import os
import stat

from minirt import state
from minirt.errors import BadInputError, KernelError, MinirtError
from minirt.images import documents, listing, lookup, platforms, reference, store, streams, write
from minirt.images.archive import CONTAINERD_NAME
from minirt.images.changeset import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

FORMATS = ("docker-archive", "oci-archive")


class Chosen:
    """An image on its way out: `descriptor` of its manifest, the `manifest`, and its full `names`, perhaps none."""

    __slots__ = ("descriptor", "manifest", "names")

    def __init__(self, descriptor: dict[str, Any], manifest: dict[str, Any]) -> None:
        self.descriptor = {key: value for key, value in descriptor.items() if key in ("mediaType", "digest", "size")}
        self.manifest = manifest
        self.names: list[str] = []

    def blobs(self) -> list[dict[str, Any]]:
        """The descriptors of all that belongs to it."""
        return [self.descriptor, self.manifest["config"], *self.manifest["layers"]]


def save(wanted: Sequence[str], output: int, form: str = FORMATS[0], platform: str = "") -> None:
    """Write the images that `wanted` means to an open file or pipe, as an archive of one of `FORMATS`.

    A repository without a tag means all its tags, as in Docker; an id gives an image without a name. "docker-archive"
    can be read as either form, "oci-archive" is an OCI layout alone, its images called by their full names. Raises
    NotFoundError, also when an image is not made for `platform`; OSError when the disk is full or nobody reads.
    """
    with store.Work() as work:
        with store.lock():
            images = choose(wanted, platform)
            for each in images:
                for blob in each.blobs():
                    work.handle(blob["digest"])
        for piece in write.archive(_files(images, form, f"{work.path}/blobs")):
            state.write_all(output, piece)
    for identifier in dict.fromkeys(each.manifest["config"]["digest"] for each in images):
        listing.tell("save", identifier)


def save_file(wanted: Sequence[str], path: str, form: str = FORMATS[0], platform: str = "") -> None:
    """`save` into the file `path`, which appears when it is complete: before that the old one stands untouched.

    A pipe or a device there is written to as it is. Raises MinirtError when the file cannot be made, and as `save`.
    """
    beside = f"{path}.{os.getpid()}.tmp"
    try:
        special = os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode)
        output = os.open(path, os.O_WRONLY | os.O_CLOEXEC) if special else _nameless(os.path.dirname(path), beside)
    except OSError as error:
        raise MinirtError(f"saving to {path}: {error.strerror}") from None
    try:
        save(wanted, output, form, platform)
        if not special:
            os.fsync(output)
            if not os.fstat(output).st_nlink:
                # A link to the file behind the descriptor: only with a directory does Python call linkat(2) for it.
                os.link(f"/proc/self/fd/{output}", beside, src_dir_fd=output)
            os.rename(beside, path)
    except BaseException as error:
        if os.path.exists(beside):
            os.unlink(beside)
        if isinstance(error, OSError):
            raise KernelError.of(f"saving to {path}", error) from None
        raise
    finally:
        os.close(output)


def _nameless(directory: str, beside: str) -> int:
    """A new file without a name, of which nothing is left when this command is killed: open(2), O_TMPFILE. Where the
    file system has no such files, one with the name `beside`."""
    try:
        return os.open(directory or ".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        return os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)


# -- which images ------------------------------------------------------------------------------------------------------

def choose(wanted: Sequence[str], platform: str = "") -> list[Chosen]:
    """The images that these names mean, each once, in the order in which they are asked for.

    Raises as `save`. The caller holds the lock of the store, or lives with what happens meanwhile.
    """
    index = lookup.read_index()
    found: dict[str, Chosen] = {}
    for name in wanted:
        for descriptor, full in _meant(name, index):
            each = _follow(name, descriptor, platform)
            here = found.setdefault(each.descriptor["digest"], each)
            if full and full not in here.names:
                here.names.append(full)
    return list(found.values())


def _meant(name: str, index: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """The entries of the index that a word of the user means, each with its full name, or "" for what an id means."""
    try:
        parsed = reference.parse(name)
    except BadInputError:
        parsed = None
    if parsed and not parsed.tag and not parsed.digest:
        tags = [(each, full) for each in index["manifests"]
                if (full := lookup.name_of(each)).startswith(f"{parsed.repository}:")]
        if tags:
            return tags
    identifier, full = lookup.resolve(name)
    mine = [each for each in index["manifests"] if listing.leads_to(each, identifier)]
    if parsed and parsed.digest:  # as in Docker: a digest means the image, not one of its tags
        exact = [each for each in mine if parsed.digest in (each["digest"], lookup.digest_of(each))]
        return [(each, "") for each in exact or mine][:1]
    return [(each, full) for each in mine if lookup.name_of(each) == full or not full][:1]


def _follow(name: str, descriptor: dict[str, Any], platform: str) -> Chosen:
    """The image behind an entry of the index, for a platform."""
    chosen, manifest = documents.follow(descriptor, lambda each: lookup.read_blob(each["digest"]), platform)
    platforms.check(lookup.read_blob(manifest["config"]["digest"]), name, platform)
    return Chosen(chosen, manifest)


# -- the files of the archive ------------------------------------------------------------------------------------------

def _files(images: Sequence[Chosen], form: str, blobs: str) -> Iterator[tuple[Entry, Iterable[bytes]]]:
    """The files of the archive with their content, the documents first. `blobs`: the directory that holds the blobs."""
    texts = {"oci-layout": store.LAYOUT, "index.json": _json(_index(images, form))}
    if form == FORMATS[0]:
        texts["manifest.json"] = _json(_manifests(images))
        if repositories := _repositories(images):
            texts["repositories"] = _json(repositories)
    for name, content in texts.items():
        yield Entry(name.encode(), size=len(content)), [content]
    for blob in {each["digest"]: each for image in images for each in image.blobs()}.values():
        yield Entry(f"blobs/{blob['digest'].replace(':', '/')}".encode(), size=blob["size"]), _content(blob, blobs)


def _content(blob: dict[str, Any], directory: str) -> Iterator[bytes]:
    try:
        descriptor = os.open(f"{directory}/{blob['digest'].partition(':')[2]}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BadInputError(f"the image store lacks the blob {blob['digest']}: the image cannot be saved") from None
    try:
        yield from streams.read_all(descriptor)
    finally:
        os.close(descriptor)


def _json(document: Any) -> bytes:
    return state.dumps(document).encode() + b"\n"


def _index(images: Sequence[Chosen], form: str) -> dict[str, Any]:
    """index.json: an entry for each name."""
    entries = []
    for image in images:
        entries += [{**image.descriptor, "annotations": _annotations(name, form)} for name in image.names]
        if not image.names:
            entries.append(image.descriptor)
    return {"schemaVersion": 2, "mediaType": documents.INDEX_TYPE, "manifests": entries}


def _annotations(name: str, form: str) -> dict[str, str]:
    """The name of an image in an index: whole as Podman and we write it, in two parts as Docker does."""
    if form != FORMATS[0]:
        return {documents.REF_NAME: name}
    return {CONTAINERD_NAME: name, documents.REF_NAME: _parts(name)[1]}


def _parts(name: str) -> tuple[str, str]:
    """(repository, tag) of a full name, both as the user knows them."""
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag or "@" in name:
        return name, ""
    try:
        return reference.parse(repository).familiar_repository(), tag
    except BadInputError:  # a name that another tool gave
        return repository, tag


def _manifests(images: Sequence[Chosen]) -> list[dict[str, Any]]:
    """manifest.json: an entry for each image, which is known there by its configuration."""
    entries: dict[str, dict[str, Any]] = {}
    for image in images:
        config = image.manifest["config"]["digest"]
        entry = entries.setdefault(config, {
            "Config": _place(config), "RepoTags": None, "Layers": [_place(each["digest"])
                                                                  for each in image.manifest["layers"]]})
        tags = [":".join(parts) for parts in map(_parts, image.names) if parts[1]]
        entry["RepoTags"] = [*(entry["RepoTags"] or ()), *tags] or None
    return list(entries.values())


def _place(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _repositories(images: Sequence[Chosen]) -> dict[str, dict[str, str]]:
    """The file `repositories` of the oldest form: repository -> tag -> topmost layer."""
    found: dict[str, dict[str, str]] = {}
    for image in images:
        for repository, tag in map(_parts, image.names):
            if tag and image.manifest["layers"]:
                found.setdefault(repository, {})[tag] = image.manifest["layers"][-1]["digest"].partition(":")[2]
    return found

"""Chapter 13, beyond: an image in one file.

Two forms are in use, both tar archives. `docker save` writes manifest.json, which lists for each image a config file,
its names and its layers in order; before 2016 it wrote a file `repositories` and one directory per layer, each naming
its parent. An *OCI archive* is an OCI image layout: index.json leads to a manifest, the manifest to the config and the
layers, each step by a digest. What stands where in the archive is not fixed, and a pipe cannot be read twice: so what
is not a plain file on disk is first written to one, and then a table of contents made.

`Archive` gives the contents by name; `images` understands either form and gives an `Image` for each.

Rules of the room: nothing here is trusted and nothing is unpacked. Documents are small and bounded; what is said of a
layer (its digest, its size) is checked when its bytes pass, in `assemble.py`.

Sources: OCI image-spec image-layout.md, Docker image-spec v1.2 ("Combined Image JSON + Filesystem Changeset Format").
"""

from __future__ import annotations

import hashlib
import os

from minirt import state
from minirt.errors import BadInputError, MinirtError, NotFoundError
from minirt.images import blobs, documents, platforms, reference, streams, tar, untrusted
from minirt.images.assemble import Image
from minirt.images.changeset import HARD_LINK, REGULAR, SYMLINK, show, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CONTAINERD_NAME = "io.containerd.image.name"
_LONGEST_DOCUMENT = 8 << 20
_MOST_FILES = 200_000
_MOST_ENTRIES = 1000  # of a list: images, names, layers
_MOST_LINKS = 8
_COMPRESSIONS = {"": "", "gzip": "+gzip", "zstd": "+zstd"}


class LayerFile:
    """A layer as the archive has it: where its bytes are, and what is said of it.

    `descriptor`, `offset`, `size`: the place in an open file. `digest`: "sha256:..." of those bytes, as the manifest
    says, or "" where nobody says. `diff_id`: that of the tar archive in it, as the config says ("" in the old form).
    """

    __slots__ = ("descriptor", "diff_id", "digest", "offset", "size")
    far = False

    def __init__(self, place: tuple[int, int, int], digest: str, diff_id: str) -> None:
        self.descriptor, self.offset, self.size = place
        self.digest, self.diff_id = digest, diff_id

    def pieces(self, start: int = 0) -> Iterator[bytes]:
        """Its bytes as they are stored, from one on."""
        return streams.read_pieces(self.descriptor, self.offset + start, self.size - start)

    def say(self, status: str) -> None:
        """Nobody is told how far a layer of a file is."""

    def media_type(self) -> str:
        """The OCI media type, by the compression that its first bytes tell. Raises BadInputError for one that OCI
        does not know."""
        kind = streams.kind_of(os.pread(self.descriptor, min(6, self.size), self.offset))
        if kind not in _COMPRESSIONS:
            raise BadInputError(f"a layer is compressed with {kind}, which images do not use")
        return documents.LAYER_TYPE + _COMPRESSIONS[kind]


class Archive:
    """The table of contents of an archive in an open file that can be read at any place."""

    def __init__(self, descriptor: int) -> None:
        """Read the headers. Raises BadInputError when it is no whole tar archive."""
        self.descriptor = descriptor
        self._files: dict[bytes, tuple[int, int]] = {}
        self._links: dict[bytes, bytes] = {}
        source = _Seeking(descriptor)
        for entry in tar.Reader(source, need_end=True):
            name = b"/".join(split(entry.name))
            if entry.kind == REGULAR and entry.parts is None:
                self._files[name] = (source.position, entry.size)
                self._links.pop(name, None)
            elif entry.kind == HARD_LINK:
                self._links[name] = b"/".join(split(entry.link))
            elif entry.kind == SYMLINK:  # old docker save: a layer that two images share
                self._links[name] = _beside(name, entry.link)
            if len(self._files) > _MOST_FILES:
                raise BadInputError(f"the archive has more than {_MOST_FILES} files: it is no image")

    def __contains__(self, name: str) -> bool:
        return self._find(os.fsencode(name)) is not None

    def place(self, name: str) -> tuple[int, int, int]:
        """(descriptor, offset, size) of a file. Raises BadInputError when the archive has no such file."""
        found = self._find(b"/".join(split(os.fsencode(name))))
        if found is None:
            raise BadInputError(f"the archive lacks the file '{show(os.fsencode(name))}'")
        return self.descriptor, *found

    def read(self, name: str) -> bytes:
        """A document, whole. Raises BadInputError when it is missing or longer than any image's."""
        _, offset, size = self.place(name)
        if size > _LONGEST_DOCUMENT:
            raise BadInputError(f"'{show(os.fsencode(name))}' in the archive has {size} bytes: it is no document")
        return b"".join(streams.read_pieces(self.descriptor, offset, size))

    def _find(self, name: bytes) -> tuple[int, int] | None:
        for _ in range(_MOST_LINKS):
            if name not in self._links:
                break
            name = self._links[name]
        return self._files.get(name)


class _Seeking(tar.Stream):
    """A stream over an open file that passes over content without reading it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(self._read)
        self._descriptor = descriptor
        self._offset = 0
        self._size = os.fstat(descriptor).st_size

    def _read(self) -> bytes:
        piece = os.pread(self._descriptor, 1 << 14, self._offset)
        self._offset += len(piece)
        return piece

    def skip(self, size: int) -> None:
        """Pass over `size` bytes. Raises BadInputError when the file is shorter."""
        if size < 1 << 14:
            super().skip(size)
        elif self.position + size > self._size:
            raise BadInputError(f"the archive ends at byte {self._size} in the middle of a file")
        else:
            self.position += size
            self._offset = self.position
            self._piece, self._at = memoryview(b""), 0


def _beside(name: bytes, link: bytes) -> bytes:
    """Where a symlink inside the archive leads; a name that no file has when it leads out."""
    parts = [] if link.startswith(b"/") else name.split(b"/")[:-1]
    for part in link.split(b"/"):
        if part == b"..":
            if not parts:
                return b""
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def open_archive(descriptor: int, spool: str) -> Archive:
    """The archive that `descriptor`, a file or a pipe, holds; decompressed or read from a pipe into the new file
    `spool` where that is needed, which has no name when this returns. The new descriptor is closed with the process.

    Raises BadInputError when it is no archive, KernelError when the disk is full.
    """
    pieces = streams.read_all(descriptor)
    if _is_plain_file(descriptor):
        return Archive(descriptor)
    copy = os.open(spool, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(spool)
    try:
        with streams.Ahead(streams.decompress(pieces), may_block=True) as ahead:
            for piece in streams.while_room(ahead.pieces(), copy):
                streams.write(copy, piece)
        if not os.fstat(copy).st_size:
            raise BadInputError("the archive is empty")
        return Archive(copy)
    except BaseException:
        os.close(copy)
        raise


def _is_plain_file(descriptor: int) -> bool:
    """Whether the archive can be read where it is: a regular file, from its beginning, not compressed."""
    try:
        if os.lseek(descriptor, 0, os.SEEK_CUR) != 0 or not os.fstat(descriptor).st_size:
            return False
        return not streams.kind_of(os.pread(descriptor, 6, 0))
    except OSError:
        return False


# -- the two forms ---------------------------------------------------------------------------------------------------

def images(archive: Archive, platform: str = "") -> list[Image]:
    """The images in an archive, of whichever form; with `platform`, those made for it ("" is this machine's, where one
    image is made for several).

    Raises BadInputError when the archive is of no form, or broken, NotFoundError when none of them is for the platform.
    """
    try:
        if "manifest.json" in archive and not (platform and "index.json" in archive):  # it knows one platform only
            found = list(_docker(archive))
            if "index.json" in archive:  # `docker save` writes both since 2024
                _keep_manifests(found, list(_oci(archive, "")))
        elif "index.json" in archive:
            found = list(_oci(archive, platform))
        elif "repositories" in archive:
            found = list(_repositories(archive))
        else:
            raise BadInputError("the archive holds no image: neither manifest.json nor index.json is in it")
    except (KeyError, TypeError, AttributeError, IndexError):
        raise BadInputError("the archive's documents do not have the form of an image") from None
    if not found:
        raise BadInputError("the archive holds no image: its list is empty")
    return _made_for(platform, found) if platform else found


def _made_for(platform: str, images: list[Image]) -> list[Image]:
    configs = [state.loads(each.config) for each in images]
    fitting = [each for each, config in zip(images, configs, strict=True) if platforms.fits(config, platform)]
    if not fitting:
        offered = sorted(set(map(platforms.of, configs)))
        raise NotFoundError(f"the archive holds no image for {platform}: what it holds is for {', '.join(offered)}")
    return fitting


def _docker(archive: Archive) -> Iterator[Image]:
    """`docker save`: manifest.json = [{"Config": name, "RepoTags": [names], "Layers": [names]}, ...]"""
    for item in _list(untrusted.parse(archive.read("manifest.json"), "manifest.json")):
        name = _text(item["Config"])
        config = archive.read(name)
        stem = name.rpartition("/")[2].removesuffix(".json")
        if len(stem) == 64 and stem != hashlib.sha256(config).hexdigest():
            raise BadInputError(f"the config '{show(os.fsencode(name))}' does not have the digest that is its name")
        diff_ids = untrusted.diff_ids_of(config)
        files = [_text(layer) for layer in _list(item["Layers"])]
        if len(files) != len(diff_ids):
            raise BadInputError(f"the image has {len(files)} layers, but its config tells of {len(diff_ids)}")
        layers = [LayerFile(archive.place(file), "", diff_id) for file, diff_id in zip(files, diff_ids, strict=True)]
        yield Image(config, layers, [_full_name(_text(name)) for name in _list(item.get("RepoTags") or [])])


def _oci(archive: Archive, platform: str) -> Iterator[Image]:
    """An OCI image layout; several names of one manifest are several entries of its index."""
    found: dict[str, Image] = {}
    for descriptor in _list(untrusted.parse(archive.read("index.json"), "index.json")["manifests"]):
        chosen, _ = documents.follow(
            descriptor, lambda each: untrusted.parse(_blob(archive, each), each["digest"]), platform)
        digest = chosen["digest"]
        if digest not in found:
            found[digest] = _oci_image(archive, _blob(archive, chosen))
        annotations = descriptor.get("annotations") or {}
        name = annotations.get(CONTAINERD_NAME) or annotations.get(documents.REF_NAME)
        if name:
            found[digest].names.append(_full_name(_text(name)))
    yield from found.values()


def _keep_manifests(images: list[Image], others: list[Image]) -> None:
    """Give images the manifest, and so the digest, that others with the same configuration have."""
    known = {blobs.digest(each.config): each for each in others}
    for image in images:
        if other := known.get(blobs.digest(image.config)):
            image.layers, image.manifest, image.media_type = other.layers, other.manifest, other.media_type


def _oci_image(archive: Archive, content: bytes) -> Image:
    document = untrusted.parse(content, "the manifest")
    config = _blob(archive, document["config"])
    diff_ids = untrusted.diff_ids_of(config)
    descriptors = _list(document["layers"])
    if len(descriptors) != len(diff_ids):
        raise BadInputError(f"the image has {len(descriptors)} layers, but its config tells of {len(diff_ids)}")
    layers = []
    for descriptor, diff_id in zip(descriptors, diff_ids, strict=True):
        place = archive.place(_blob_name(descriptor["digest"]))
        if place[2] != _number(descriptor["size"]):
            raise BadInputError(f"the layer {descriptor['digest']} is {place[2]} bytes long, "
                                f"but the manifest says {descriptor['size']}")
        layers.append(LayerFile(place, descriptor["digest"], diff_id))
    as_oci = document.get("mediaType", documents.MANIFEST_TYPE) == documents.MANIFEST_TYPE and document["config"].get(
        "mediaType") in (documents.CONFIG_TYPE, "")
    return Image(config, layers, [], content if as_oci else b"")


def _blob(archive: Archive, descriptor: dict[str, Any]) -> bytes:
    """The document behind a descriptor, checked against its digest."""
    content = archive.read(_blob_name(_text(descriptor["digest"])))
    return blobs.verify(content, {**descriptor, "size": _number(descriptor["size"])})


def _blob_name(digest: str) -> str:
    reference.check_digest(digest)
    if not digest.startswith("sha256:"):
        raise BadInputError(f"the blob {digest}: only sha256 is supported")
    return "blobs/" + digest.replace(":", "/", 1)


def _repositories(archive: Archive) -> Iterator[Image]:
    """The form before 2016: repositories = {name: {tag: layer id}}, and LAYER/json, LAYER/layer.tar per layer.

    There was no config for the image: the topmost layer's json plays that part, completed by the layers' diff ids.
    """
    named: dict[str, list[str]] = {}
    for repository, tags in untrusted.parse(archive.read("repositories"), "repositories").items():
        for tag, layer in tags.items():
            named.setdefault(_text(layer), []).append(_full_name(f"{repository}:{_text(tag)}"))
    for top, names in named.items():
        chain: list[dict[str, Any]] = []
        identifier = top
        while identifier:
            if len(chain) > untrusted.MOST_LAYERS:
                raise BadInputError(f"the image {names[0]} has more than {untrusted.MOST_LAYERS} layers")
            chain.insert(0, {**untrusted.parse(archive.read(f"{identifier}/json"), "a layer's json"), "id": identifier})
            identifier = _text(chain[0].get("parent") or "")
        layers = [LayerFile(archive.place(f"{item['id']}/layer.tar"), "", "") for item in chain]
        for layer in layers:
            digest = streams.Digest()
            for _ in digest.through(streams.decompress(layer.pieces())):
                pass
            layer.diff_id = str(digest)
        config = {key: value for key, value in chain[-1].items()
                  if key not in ("id", "parent", "layer_id", "throwaway", "Size", "parent_id")}
        config["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
        config["history"] = [{"created": item.get("created", "")} for item in chain]
        yield Image(state.dumps(config).encode(), layers, names)


def _full_name(text: str) -> str:
    try:
        parsed = reference.parse(text)
        if parsed.digest:
            raise BadInputError("a digest is no name, it follows from what is in the image")
        return str(parsed.tagged())
    except MinirtError as error:
        raise BadInputError(f"the archive calls its image '{show(os.fsencode(text))}': {error}") from None


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    if len(value) > _MOST_ENTRIES:
        raise BadInputError(f"a list in the archive has {len(value)} entries: at most {_MOST_ENTRIES} are taken")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value

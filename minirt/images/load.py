"""Chapter 13: from an archive to an image that can be started.

    archive ── config ────────────────────────────► blobs/, its digest is the image's id
            └─ layer ─┬─ sha256 ── as it is ──────► blobs/
                      └─ decompressed ─┬─ sha256 ── = diff id, as the config says?
                                       └─ unpacked ► layers/CHAIN/diff

Every layer is read once: hashed, stored, decompressed, hashed again and unpacked in the same pass. All of it happens
below pending/; when every digest was right and everything is on the disk, the parts are moved to their places, layers
and blobs first, then the record of the image's chain, and the index last. What is unpacked already is not unpacked
again, whichever image brought it.

Sources: OCI image-spec config.md ("Layer DiffID", "Layer ChainID"), syncfs(2), rename(2).
"""

from __future__ import annotations

import hashlib
import os

from minirt import events, state, trace
from minirt.errors import BadInputError, KernelError, MinirtError
from minirt.images import archive, documents, layer, lookup, reference, store, streams, tar
from minirt.images.blobs import chain_ids
from minirt.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Owners = Callable[[int, int], tuple[int, int]]

CHAPTER = 13


class Loaded:
    """What `load` did with one image: its `id`, the `names` that now mean it, and `displaced`, (name, id) of images
    that had those names before."""

    __slots__ = ("displaced", "id", "names")

    def __init__(self, identifier: str) -> None:
        self.id = identifier
        self.names: list[str] = []
        self.displaced: list[tuple[str, str]] = []


def load(descriptor: int) -> list[Loaded]:
    """Load every image of the archive that `descriptor` (a file or a pipe) holds. All of them, or none.

    Raises BadInputError for an archive that is broken, hostile or no image, KernelError for what this machine cannot
    do; then the store is as it was.
    """
    owners = _become_root()
    store.sweep()
    with store.Work() as work:
        try:
            trace.step(CHAPTER, "read what the archive holds: names, configs, layers", "read(archive)")
            found = archive.images(archive.open_archive(descriptor, f"{work.path}/archive"))
            parts = [_Parts(work, image, owners=owners) for image in found]
            for _ in range(3):  # again when another command removed a layer meanwhile that was there at first
                for each in parts:
                    each.make()
                _sync(work.root)
                with store.lock():
                    if all(each.complete() for each in parts):
                        return _commit(work, parts)
            raise MinirtError("layers of the image are being removed at the same time: try again")
        except IsADirectoryError:
            raise BadInputError("a directory is no archive: give the file that `save` wrote") from None
        except OSError as error:
            raise KernelError.of("loading an image", error) from None


def _become_root() -> Owners | None:
    """The files of an image belong to many users: an ordinary user is root of a namespace of his own for it (chapter
    07). Returns which owners files can have there, None on the machine itself, where they can have all."""
    if not state.ordinary():
        return None
    from minirt.namespaces import rootless

    rootless.enter()
    return rootless.owners()


def unpack_stored(identifier: str) -> dict[str, Any]:
    """Unpack an image that is in the layout but was put there by another tool; return its record of chains.

    Raises as `load`.
    """
    if os.geteuid():
        from minirt.namespaces import rootless

        record: dict[str, Any] = rootless.call(lambda: unpack_stored(identifier))
        return record
    owners = _become_root()
    with store.Work() as work:
        found = next((each for each in lookup.read_index()["manifests"]
                      if lookup.config_digest(each) == identifier), None)
        if found is None:
            raise BadInputError(f"the image store is damaged: nothing leads to {identifier}")
        manifest = lookup.manifest_of(found)
        config = state.read_file(lookup.blob_path(identifier))
        layers = []
        for each, diff_id in zip(manifest["layers"], archive.diff_ids_of(config), strict=True):
            blob = os.open(lookup.blob_path(each["digest"]), os.O_RDONLY | os.O_CLOEXEC)
            layers.append(archive.LayerFile((blob, 0, os.fstat(blob).st_size), each["digest"], diff_id))
        try:
            parts = _Parts(work, archive.ImageFile(config, layers, []), True, owners)
            parts.make()
            _sync(work.root)
            with store.lock():
                parts.move()
        finally:
            for each in layers:
                os.close(each.descriptor)
        return parts.record()


class _Parts:
    """The parts of one image, made below pending/."""

    def __init__(self, work: store.Work, image: archive.ImageFile, stored: bool = False,
                 owners: Owners | None = None) -> None:
        self.work, self.image = work, image
        self.root = work.root
        self.id = "sha256:" + hashlib.sha256(image.config).hexdigest()
        self.diff_ids = [each.diff_id for each in image.layers]
        self.chains = chain_ids(self.diff_ids)
        self.descriptor: dict[str, Any] = {}
        self._owners = owners
        self._stored = stored  # its blobs are in the store already

    def make(self) -> None:
        """Make what the store does not have: layers unpacked, blobs, manifest."""
        for number, each in enumerate(self.image.layers):
            chain = self.chains[number]
            missing = not (self._unpacked(chain) or os.path.exists(f"{self.work.path}/{chain}/layer.json"))
            if missing:
                self._unpack(number)
            elif not (each.digest and self._has_blob(each.digest)):
                each.digest = self._store(each)
        if not self._stored:
            self._make_documents()

    def _unpacked(self, chain: str) -> bool:
        return os.path.exists(f"{self.root}/layers/{chain}/layer.json")

    def _has_blob(self, digest: str) -> bool:
        hexadecimal = digest.removeprefix("sha256:")
        return (os.path.exists(f"{self.work.path}/blobs/{hexadecimal}")
                or os.path.exists(f"{self.root}/images/blobs/sha256/{hexadecimal}"))

    def _unpack(self, number: int) -> None:
        """Unpack a layer, storing its blob in the same pass, and check both digests."""
        each, chain = self.image.layers[number], self.chains[number]
        trace.step(CHAPTER, f"unpack layer {number + 1} of {len(self.chains)} in a place of its own and hash it",
                   f"openat2, write, mknod: layers/{chain[:20]}")
        place = f"{self.work.path}/{chain}"
        os.makedirs(f"{place}/pins", 0o700)
        os.mkdir(f"{place}/diff", 0o755)
        target = os.open(f"{place}/diff", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        below = [os.open(self._diff(lower), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                 for lower in reversed(self.chains[:number])]
        stored, unpacked = streams.Digest(), streams.Digest()
        try:
            with _BlobFile(self.work, None if each.digest and self._has_blob(each.digest) else number) as blob:
                pieces = blob.through(stored.through(each.pieces()))
                plain = streams.decompress(pieces)
                if not streams.kind_of(os.pread(each.descriptor, min(6, each.size), each.offset)):
                    unpacked = stored
                else:
                    plain = unpacked.through(plain)
                with streams.Ahead(plain) as ahead:
                    size = layer.unpack(tar.Stream(ahead.more), target, below, self._owners)
                    ahead.finish()
                self._check(each, str(stored), str(unpacked))
                blob.keep(str(stored))
        except BaseException:
            store.remove_path(self.work.path, chain)
            raise
        finally:
            for descriptor in (target, *below):
                os.close(descriptor)
        record = {"parent": self.chains[number - 1] if number else "", "diff": each.diff_id, "size": size}
        state.write_atomic(f"{place}/layer.json", state.dumps(record).encode() + b"\n", sync=False)

    def _diff(self, chain: str) -> str:
        made = f"{self.work.path}/{chain}/diff"
        return made if os.path.exists(made) else f"{self.root}/layers/{chain}/diff"

    def _store(self, each: archive.LayerFile) -> str:
        """Store the blob of a layer that is unpacked already, and check its digest; return that."""
        stored = streams.Digest()
        with _BlobFile(self.work, 0) as blob:
            for _ in blob.through(stored.through(each.pieces())):
                pass
            if each.digest or not streams.kind_of(os.pread(each.descriptor, min(6, each.size), each.offset)):
                self._check(each, str(stored), each.diff_id if each.digest else str(stored))
            blob.keep(str(stored))
        return str(stored)

    def _check(self, each: archive.LayerFile, stored: str, unpacked: str) -> None:
        if each.digest and each.digest != stored:
            raise BadInputError(f"the layer {each.digest} of the archive does not have that digest")
        if each.diff_id != unpacked:
            raise BadInputError(f"invalid diffID for a layer: expected {each.diff_id}, got {unpacked}")
        each.digest = stored

    def _make_documents(self) -> None:
        """The config and the manifest as blobs, and the descriptor of the manifest for the index."""
        content = self.image.manifest
        if not content:
            content = state.dumps({
                "schemaVersion": 2, "mediaType": documents.MANIFEST_TYPE,
                "config": {"mediaType": documents.CONFIG_TYPE, "digest": self.id, "size": len(self.image.config)},
                "layers": [{"mediaType": each.media_type(), "digest": each.digest, "size": each.size}
                           for each in self.image.layers],
            }).encode()
        digest = hashlib.sha256(content).hexdigest()
        for name, data in ((digest, content), (self.id[7:], self.image.config)):
            if not self._has_blob(name):
                state.write_atomic(f"{self.work.path}/blobs/{name}", data, sync=False)
        self.descriptor = {"mediaType": documents.MANIFEST_TYPE, "digest": f"sha256:{digest}", "size": len(content)}

    def complete(self) -> bool:
        """Whether everything is there, made now or found before; asked under the lock."""
        return (all(os.path.exists(f"{self.work.path}/{chain}/layer.json") or self._unpacked(chain)
                    for chain in self.chains)
                and all(self._has_blob(digest) for digest in self._digests()))

    def _digests(self) -> Iterator[str]:
        yield self.id
        yield self.descriptor["digest"]
        for each in self.image.layers:
            yield each.digest

    def move(self) -> None:
        """Move the parts to their places, under the lock. What another command made meanwhile stands."""
        for chain in self.chains:
            made = f"{self.work.path}/{chain}"
            if os.path.exists(made) and not self._unpacked(chain):
                store.remove_path(f"{self.root}/layers", chain)
                os.rename(made, f"{self.root}/layers/{chain}")
            try:
                os.symlink(f"../{chain}/diff", f"{self.root}/layers/l/{chain[:20]}")
            except FileExistsError:
                pass
        for name in os.listdir(f"{self.work.path}/blobs"):
            try:
                os.link(f"{self.work.path}/blobs/{name}", f"{self.root}/images/blobs/sha256/{name}")
            except FileExistsError:
                pass
        for directory in ("layers", "layers/l", "images/blobs/sha256"):
            state.sync_directory(f"{self.root}/{directory}")
        state.write_json(f"{self.root}/chains/{self.id[7:]}", self.record())

    def record(self) -> dict[str, Any]:
        """What chains/ID says: the chain ids, the lowest first, and the bytes of all files."""
        sizes = [state.read_json(f"{self.root}/layers/{chain}/layer.json")["size"] for chain in self.chains]
        return {"chains": self.chains, "size": sum(sizes)}


class _BlobFile:
    """A blob on its way into pending/WORK/blobs, under the name of its digest, known when all of it has passed.

    Thrown away unless kept. `number` None: the store has it, so nothing is written."""

    def __init__(self, work: store.Work, number: int | None) -> None:
        self._directory = f"{work.path}/blobs"
        self._path = f"{work.path}/blob-{number}"
        self._descriptor = -1
        self._write = number is not None

    def __enter__(self) -> _BlobFile:
        if self._write:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        return self

    def through(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same pieces, stored as they pass."""
        return streams.write_through(pieces, self._descriptor) if self._write else pieces

    def keep(self, digest: str) -> None:
        """Give it its name."""
        if self._write:
            os.rename(self._path, f"{self._directory}/{digest.removeprefix('sha256:')}")

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _sync(root: str) -> None:
    """Put everything that was made on the disk, at once: one call for all files costs less than one for each."""
    trace.step(CHAPTER, "put all of it on the disk", "syncfs(store)")
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.call("syncfs", descriptor)
    finally:
        os.close(descriptor)


def _commit(work: store.Work, parts: list[_Parts]) -> list[Loaded]:
    """Move everything to its place and write the index; under the lock."""
    trace.step(CHAPTER, "move the parts to their places, and the index, last, names the image", "rename(index.json)")
    for each in parts:
        each.move()
    index = lookup.read_index()
    result = []
    for each in parts:
        loaded = Loaded(each.id)
        for name in each.image.names or [""]:
            before = _id_of(index, name)
            store.place(index, each.descriptor, name)
            if name:
                loaded.names.append(reference.parse(name).familiar())
                if before not in ("", each.id):
                    loaded.displaced.append((loaded.names[-1], before))
        result.append(loaded)
    doubles = _drop_doubles(work, index)
    store.write_index(index)
    if doubles:
        store.collect(work)
    for loaded in result:
        events.append("image", "load", loaded.id, {"name": loaded.names[0] if loaded.names else loaded.id})
    return result


def _drop_doubles(work: store.Work, index: dict[str, Any]) -> bool:
    """Drop entries without a name whose image another entry names: the same image in another packing."""
    named = {_id_of(index, lookup.name_of(each)) for each in index["manifests"] if lookup.name_of(each)}
    doubles = [each for each in index["manifests"] if not lookup.name_of(each) and _safe_id(each) in named]
    for each in doubles:
        for digest in store.blobs(each):
            work.handle(digest)
        index["manifests"].remove(each)
    return bool(doubles)


def _id_of(index: dict[str, Any], name: str) -> str:
    """The id of the image that has the full reference `name`, "" when none has it."""
    return next((_safe_id(each) for each in index["manifests"] if name and lookup.name_of(each) == name), "")


def _safe_id(descriptor: dict[str, Any]) -> str:
    try:
        return lookup.config_digest(descriptor)
    except BadInputError:
        return ""  # made for another machine

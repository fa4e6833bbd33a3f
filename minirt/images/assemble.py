"""Chapter 13, beyond: an image is assembled, from an archive or from a registry.

    source ── config ──► blobs/, its digest is the image's id
           └─ layers ──► blobs/ and layers/CHAIN/, several at a time (incoming.py)

All of it happens below pending/; when every digest was right and everything is on the disk, the parts are moved to
their places, layers and blobs first, then the record of the image's chain, and the index last. What is unpacked already
is not unpacked again, whichever image brought it, and a blob that the store has is not asked for.

Sources: OCI image-spec image-layout.md, config.md; syncfs(2), rename(2).
"""

from __future__ import annotations

import os
from functools import partial

from minirt import state, trace
from minirt.errors import BadInputError, KernelError, MinirtError
from minirt.images import blobs, documents, incoming, lookup, reference, store, workers
from minirt.images.blobs import chain_ids
from minirt.images.incoming import Place
from minirt.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from minirt.images.incoming import Layer, Owners

CHAPTER = 13


class Image:
    """An image on its way in: `config` the bytes of its configuration (its digest is the image's id), `layers`, the
    lowest first, `names` full references, `manifest` the bytes of its manifest, of type `media_type`, or b"" for none.
    `annotations` are for its descriptor in the index."""

    __slots__ = ("annotations", "config", "layers", "manifest", "media_type", "names")

    def __init__(self, config: bytes, layers: Sequence[Layer], names: list[str], manifest: bytes = b"",
                 media_type: str = documents.MANIFEST_TYPE) -> None:
        self.config, self.layers, self.names = config, layers, names
        self.manifest, self.media_type = manifest, media_type
        self.annotations: dict[str, str] = {}


class Loaded:
    """What `load` did with one image: its `id`, the `names` that now mean it, and `displaced`, (name, id) of images
    that had those names before."""

    __slots__ = ("displaced", "id", "names")

    def __init__(self, identifier: str) -> None:
        self.id = identifier
        self.names: list[str] = []
        self.displaced: list[tuple[str, str]] = []


def take(work: store.Work, images: Sequence[Image], owners: Owners | None) -> list[Loaded]:
    """Assemble images in `work` and put them into the store: all of them, or none.

    Raises BadInputError for what an image does wrong, OSError and KernelError for what this machine cannot do.
    """
    parts = [Parts(Place(work, owners), image) for image in images]
    incoming.forget_old(work.root)
    for _ in range(3):  # again when another command removed a layer meanwhile that was there at first
        for each in parts:
            each.make()
        sync(work.root)
        with store.lock():
            if all(each.complete() for each in parts):
                return _commit(work, parts)
    raise MinirtError("layers of the image are being removed at the same time: try again")


def become_root() -> Owners | None:
    """The files of an image belong to many users: an ordinary user is root of a namespace of his own for it (chapter
    07). Returns which owners files can have there, None on the machine itself, where they can have all."""
    if not state.ordinary():
        return None
    from minirt.namespaces import rootless

    rootless.enter()
    return rootless.owners()


class Parts:
    """The parts of one image, made below pending/."""

    def __init__(self, place: Place, image: Image, stored: bool = False) -> None:
        self.place, self.image = place, image
        self.work, self.root = place.work, place.root
        self.id = blobs.digest(image.config)
        self.diff_ids = [each.diff_id for each in image.layers]
        self.chains = chain_ids(self.diff_ids)
        self.descriptor: dict[str, Any] = {}
        self._stored = stored  # its blobs are in the store already

    def make(self) -> None:
        """Make what the store does not have: layers unpacked, blobs, manifest."""
        jobs: dict[int, Callable[[], str]] = {}
        for number, each in enumerate(self.image.layers):
            chain = self.chains[number]
            if not (self.place.unpacked(chain) or self.place.made(chain)):
                jobs[number] = partial(self._take, number, incoming.unpack, self.chains)
                self.place.making.add(chain)
            elif not self.place.blob(each.digest):
                jobs[number] = partial(self._take, number, incoming.store_blob)
            else:
                each.say("Already exists")
        for number, digest in zip(jobs, workers.several(list(jobs.values())), strict=True):
            self.image.layers[number].digest = digest
        if not self._stored:
            self._make_documents()

    def _take(self, number: int, take: Callable[..., str], *more: object) -> str:
        """What `take` returns for a layer; what it raises says which layer of which image it was."""
        try:
            return take(self.place, self.image.layers[number], number, *more)
        except (BadInputError, KernelError) as error:
            names = [reference.parse(name).familiar() for name in self.image.names] or [f"the image {self.id[7:19]}"]
            raise type(error)(f"{names[0]}, layer {number + 1} of {len(self.chains)}: {error}") from None

    def _make_documents(self) -> None:
        """The config and the manifest as blobs, and the descriptor of the manifest for the index."""
        content = self.image.manifest
        if not content:
            layers = [{"mediaType": each.media_type(), "digest": each.digest, "size": each.size}
                      for each in self.image.layers]
            config = blobs.descriptor(documents.CONFIG_TYPE, self.image.config)
            content = state.dumps(documents.assemble(config, layers)).encode()
        self.descriptor = blobs.descriptor(self.image.media_type, content)
        if self.image.annotations:
            self.descriptor["annotations"] = self.image.annotations
        for name, data in ((self.descriptor["digest"], content), (self.id, self.image.config)):
            if not self.place.blob(name):
                state.write_atomic(f"{self.work.path}/blobs/{name.removeprefix('sha256:')}", data, sync=False)

    def complete(self) -> bool:
        """Whether everything is there, made now or found before; asked under the lock."""
        return (all(self.place.made(chain) or self.place.unpacked(chain) for chain in self.chains)
                and all(self.place.blob(digest) for digest in self._digests()))

    def _digests(self) -> Iterator[str]:
        yield self.id
        yield self.descriptor["digest"]
        for each in self.image.layers:
            yield each.digest

    def move(self) -> None:
        """Move the parts to their places, under the lock. What another command made meanwhile stands."""
        for chain in self.chains:
            made = f"{self.work.path}/{chain}"
            if os.path.exists(made) and not self.place.unpacked(chain):
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


def sync(root: str) -> None:
    """Put everything that was made on the disk, at once: one call for all files costs less than one for each."""
    trace.step(CHAPTER, "put all of it on the disk", "syncfs(store)")
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.call("syncfs", descriptor)
    finally:
        os.close(descriptor)


def _commit(work: store.Work, parts: list[Parts]) -> list[Loaded]:
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

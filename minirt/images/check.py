"""Chapter 13, beyond: the store against itself.

Everything in the store is named by what it is, so everything can be checked: a blob has its own digest for its name,
the archive in a layer's blob has the diff id that the configuration tells, an unpacked layer the chain id that follows
from the diff ids. And everything is there for somebody: an image, or a container's pin.

    index.json ─► manifest ─┬─► configuration ─► diff ids ─► chain ids ─► chains/ID, layers/CHAIN
                            └─► layers' blobs ──────┘

What can be made again is repaired by taking it away: a layer is unpacked from its blob when it is needed next. An image
that lost a blob cannot be made again; its names are taken away, so that it can be loaded or pulled anew.

Source: OCI image-spec image-layout.md, config.md.
"""

from __future__ import annotations

import os
import stat
from functools import partial

from minirt import state
from minirt.errors import BadInputError, MinirtError
from minirt.images import blobs, documents, listing, lookup, reference, store, streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Repair = Callable[[], object]


def check(repair: bool = False) -> list[str]:
    """Check the whole store; return a sentence for each fault, none when all is well.

    Other commands that change images wait meanwhile. With `repair` the faults are mended on the way; a second check
    finds none. Raises BadInputError when index.json cannot be read at all.
    """
    store.sweep()
    with store.Work() as work, store.lock():
        judge = _Judge(work)
        judge.names()
        for descriptor in judge.index["manifests"]:
            judge.image(descriptor)
        judge.leftovers()
        if repair:
            judge.mend()
        return judge.faults


class _Judge:
    """What is found on the way: `faults`, sentences; and what would mend them."""

    def __init__(self, work: store.Work) -> None:
        self.work, self.root = work, work.root
        self.index = lookup.read_index()
        self.faults: list[str] = []
        self._repairs: list[Repair] = []
        self._verdicts: dict[str, str] = {}  # blob or layer -> what is wrong with it
        self._lost: list[dict[str, Any]] = []

    def _say(self, sentence: str, repair: Repair | None = None) -> None:
        """Note a fault. `repair` mends it; without one it is mended by what mends all, the collection at the end."""
        self.faults.append(sentence)
        if repair:
            self._repairs.append(repair)

    def mend(self) -> None:
        """Do what mends the faults found; the index is written when all else is done."""
        if not self.faults:
            return
        for repair in self._repairs:
            repair()
        for descriptor in self._lost:
            for digest in store.blobs(descriptor) & {f"sha256:{name}" for name in self._names("images/blobs/sha256")}:
                self.work.handle(digest)
        self.index["manifests"] = [each for each in self.index["manifests"] if each not in self._lost]
        store.write_index(self.index)
        store.collect(self.work)

    # -- names and documents -------------------------------------------------------------------------------------------

    def names(self) -> None:
        """The layout's own file; each name a reference, and of one image only."""
        path = f"{self.root}/images/oci-layout"
        if state.read_file(path).strip() != store.LAYOUT:
            self._say("the file oci-layout is damaged", partial(state.write_atomic, path, store.LAYOUT))
        seen: set[str] = set()
        for descriptor in self.index["manifests"]:
            name = lookup.name_of(descriptor)
            if name in seen:
                self._say(f"two images are called {name}", partial(store.take_name, self.index, descriptor))
            elif name:
                seen.add(name)
            try:
                proper = not name or bool(reference.parse(name))
            except BadInputError:
                proper = False
            if not proper:
                self._say(f"{name!r} is no name for an image", partial(store.take_name, self.index, descriptor))

    def image(self, descriptor: dict[str, Any]) -> None:
        """All that an entry of the index leads to."""
        called = listing.familiar(lookup.name_of(descriptor)) or f"{descriptor.get('digest')}"
        try:
            manifest = self._follow(descriptor)
            if manifest is None:
                return
            config = self._document(manifest["config"])
            diff_ids = list((config.get("rootfs") or {}).get("diff_ids") or [])
            if len(diff_ids) != len(manifest["layers"]):
                raise BadInputError(f"it has {len(manifest['layers'])} layers, but its configuration tells of "
                                    f"{len(diff_ids)}")
            for layer, diff_id in zip(manifest["layers"], diff_ids, strict=True):
                self._blob(layer, diff_id)
        except (KeyError, TypeError, AttributeError):
            self._lose(descriptor, f"{called}: its documents do not have the form of an image")
        except MinirtError as error:
            self._lose(descriptor, f"{called}: {error}")
        else:
            self._chain(called, manifest["config"]["digest"].partition(":")[2], diff_ids)

    def _lose(self, descriptor: dict[str, Any], sentence: str) -> None:
        self._say(sentence, partial(self._lost.append, descriptor))

    def _follow(self, descriptor: dict[str, Any]) -> dict[str, Any] | None:
        """The manifest behind an entry; None when it is an index without one for this machine."""
        document = self._document(descriptor)
        if "manifests" not in document:
            return document
        try:
            return self._follow(documents.choose(document["manifests"]))
        except BadInputError:
            if any(os.path.exists(lookup.blob_path(each["digest"])) for each in document["manifests"]):
                raise
            return None

    def _document(self, descriptor: dict[str, Any]) -> dict[str, Any]:
        self._blob(descriptor)
        return lookup.read_blob(descriptor["digest"])

    def _blob(self, descriptor: dict[str, Any], diff_id: str = "") -> None:
        """Raises BadInputError unless the blob is what its descriptor promises, and the archive in it has `diff_id`."""
        digest = descriptor["digest"]
        if digest not in self._verdicts:
            try:
                self._verdicts[digest] = self._judge_blob(descriptor, diff_id)
            except MinirtError as error:
                self._verdicts[digest] = f"the blob {digest} is damaged: {error}"
        if self._verdicts[digest]:
            raise BadInputError(self._verdicts[digest])

    def _judge_blob(self, descriptor: dict[str, Any], diff_id: str) -> str:
        digest, stored, inside = descriptor["digest"], streams.Digest(), streams.Digest()
        try:
            source = os.open(lookup.blob_path(digest), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return f"the blob {digest} is missing"
        try:
            if not stat.S_ISREG(os.fstat(source).st_mode):
                return f"the blob {digest} is no file"
            pieces = stored.through(streams.read_all(source))
            for _ in inside.through(streams.decompress(pieces)) if diff_id else pieces:
                pass
        finally:
            os.close(source)
        if str(stored) != digest:
            return f"the blob {digest} does not have that digest: it is damaged"
        if stored.size != descriptor.get("size", stored.size):
            return f"the blob {digest} has {stored.size} bytes, but {descriptor['size']} are promised"
        if diff_id and str(inside) != diff_id:
            return f"the layer {digest} holds the archive {inside}, but {diff_id} is promised"
        return ""

    # -- what is unpacked ----------------------------------------------------------------------------------------------

    def _chain(self, called: str, identifier: str, diff_ids: list[str]) -> None:
        """The record of an unpacked image, and its layers. An image that was never unpacked has none."""
        path = f"{self.root}/chains/{identifier}"
        chains = blobs.chain_ids(diff_ids)
        try:
            record = state.read_json(path)
            said = record["chains"] == chains and record["size"] is not None
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            said = False
        if not said:
            self._say(f"{called}: the record chains/{identifier} does not list its layers", partial(_unlink, path))
        for number, chain in enumerate(chains):
            below = chains[number - 1] if number else ""
            if wrong := self._layer(chain, {"parent": below, "diff": diff_ids[number]}):
                self._say(f"{called}: the layer {chain} {wrong}", partial(self._again, path, chain))

    def _layer(self, chain: str, wanted: dict[str, str]) -> str:
        """What is wrong with an unpacked layer, "" for nothing."""
        place = f"{self.root}/layers/{chain}"
        try:
            record = state.read_json(f"{place}/layer.json")
            if {key: record[key] for key in wanted} != wanted:
                return "says that it is another one"
        except FileNotFoundError:
            return "is missing"
        except (ValueError, KeyError, TypeError):
            return "has a damaged layer.json"
        if not os.path.isdir(f"{place}/diff"):
            return "has no files"
        if not os.path.isdir(f"{self.root}/layers/l/{chain[:20]}"):
            return "has no short name in layers/l"
        return ""

    def _again(self, record: str, chain: str) -> None:
        """Take a layer away, unless it is used, so that it is unpacked again."""
        _unlink(record)
        _unlink(f"{self.root}/layers/l/{chain[:20]}")
        if os.path.isdir(f"{self.root}/layers/{chain}/diff") and state.pins(f"{self.root}/layers/{chain}"):
            os.symlink(f"../{chain}/diff", f"{self.root}/layers/l/{chain[:20]}")
        else:
            store.remove_path(f"{self.root}/layers", chain)

    # -- what nobody needs ---------------------------------------------------------------------------------------------

    def leftovers(self) -> None:
        """What neither an image nor a container needs, and what a killed command left."""
        kept, records, chains = store.needed(self.root)
        for name in sorted(self._names("images/blobs/sha256")):
            if f"sha256:{name}" not in kept:
                self._say(f"no image needs the blob sha256:{name}", partial(
                    _unlink, f"{self.root}/images/blobs/sha256/{name}"))
        for name in sorted(self._names("chains") - records):
            self._say(f"the record chains/{name} is of no image", partial(_unlink, f"{self.root}/chains/{name}"))
        for name in sorted(self._names("layers") - chains - {"l"}):
            self._say(f"nobody needs the layer {name}")
        for name in sorted(self._names("layers/l")):
            if not os.path.isdir(f"{self.root}/layers/l/{name}"):
                self._say(f"the short name layers/l/{name} leads to no layer", partial(
                    _unlink, f"{self.root}/layers/l/{name}"))
        for name in sorted(self._names("layers") & chains):
            place = f"{self.root}/layers/{name}"
            for pin in sorted(self._names(f"layers/{name}/pins") - set(state.pins(place))):
                if pin.startswith(store.PENDING):
                    continue  # a command that has just ended, or was killed: the next collection takes it
                self._say(f"the layer {name} is pinned by {pin}, which is gone", partial(state.unpin, place, pin))
        for name in sorted(store.dead()):
            self._say(f"pending/{name} was left by a command that is gone")

    def _names(self, place: str) -> set[str]:
        try:
            return set(os.listdir(f"{self.root}/{place}"))
        except FileNotFoundError:
            return set()


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass

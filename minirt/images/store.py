"""Chapter 13: what changes the image store.

    images/          an OCI image layout: oci-layout, index.json (what there is, by name), blobs/sha256/DIGEST
    layers/CHAIN/    a layer unpacked on top of certain others: diff/ (its files), layer.json, pins/ of its users
    layers/l/        short names of those, for the option string of an overlay mount
    chains/ID        which layers make up the image with that id
    pending/WORK/    what a command is about to add or to remove

A *chain id* names a layer together with all below it: the same archive unpacked on other layers is another directory
(what a left-out parent directory looks like depends on what is below).

Who reads a blob for a while gives it a second name in pending/WORK/blobs; who needs a layer pins it, a container with
its own directory, a command with pending/WORK. A pin that leads nowhere is void.

How a killed command loses nothing and leaves nothing: new things are made below pending/ and moved to their places
under the store's lock; the index, replaced last and whole, is what makes an image exist. A directory of pending/ whose
lock is free belongs to nobody alive: the next command that changes something throws it away, with every layer that no
image and no pin needs. Of the blobs only those are judged that a dead command was handling, since another tool (skopeo,
umoci) may be adding its own at this moment.

Sources: OCI image-spec image-layout.md, config.md "Layer ChainID".
"""

from __future__ import annotations

import os

from minirt import state
from minirt.errors import BadInputError, MinirtError
from minirt.images import documents, lookup
from minirt.kernel.paths import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_LOCK = "pending-"  # in the run directory: pending-WORK.lock
PENDING = "pending-"  # layers/CHAIN/pins/pending-WORK: a command uses it, not a container
_DEAD = "dead-"  # layers/dead-CHAIN: about to be removed


def prepare() -> str:
    """Make the store's directories where they are missing; return the root they lie in."""
    root = state.root()
    for name in ("images", "images/blobs", "images/blobs/sha256", "chains", "pending", "layers", "layers/l"):
        try:
            os.mkdir(f"{root}/{name}", 0o700)  # setuid files and devices of strangers: for root alone
        except FileExistsError:
            pass
    for name, content in (("oci-layout", LAYOUT), ("index.json", b'{"schemaVersion":2,"manifests":[]}')):
        if not os.path.exists(f"{root}/images/{name}"):
            state.write_atomic(f"{root}/images/{name}", content)
    return root


def lock() -> state.Lock:
    """The lock that everybody holds who changes index.json, or moves layers and blobs to or from their places."""
    return state.Lock(f"{state.run_root()}/images.lock")


class Work:
    """A directory below pending/ for one command, thrown away at its end, whatever the end is.

    `path` is the directory; `path`/blobs lists the blobs that the command is handling (hard links to them, or what is
    to become them).
    """

    def __init__(self) -> None:
        self.root = prepare()
        self.name = os.urandom(8).hex()
        self.path = f"{self.root}/pending/{self.name}"
        self._lock = state.Lock(_work_lock(self.name))
        self._pinned: set[str] = set()

    def __enter__(self) -> Work:
        self._lock.acquire()
        os.makedirs(f"{self.path}/blobs", 0o700)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            for name in os.listdir(f"{self.root}/layers"):  # all: processes of this work may have pinned others
                state.unpin(f"{self.root}/layers/{name}", PENDING + self.name)
                state.unpin(f"{self.root}/layers/{name.removeprefix(_DEAD)}", PENDING + self.name)
            remove_path(f"{self.root}/pending", self.name)
        finally:
            _unlink(_work_lock(self.name))
            self._lock.release()

    def handle(self, digest: str) -> None:
        """Say that the blob of the store with that digest is being handled: its bytes stay as long as this work, and
        `collect` judges it, now or later."""
        try:
            os.link(lookup.blob_path(digest), f"{self.path}/blobs/{digest.partition(':')[2]}")
        except (FileExistsError, FileNotFoundError):
            pass

    def keep(self, chain: str) -> bool:
        """Whether the store has that layer unpacked; if so, it stays as long as this work, by a pin of its own."""
        place = f"{self.root}/layers/{chain}"
        if chain not in self._pinned and os.path.exists(f"{place}/layer.json"):
            try:
                os.symlink(f"../../../pending/{self.name}", f"{place}/pins/{PENDING}{self.name}")
                self._pinned.add(chain)
            except FileExistsError:
                pass
            except FileNotFoundError:  # it is being removed at this moment
                return False
        return os.path.exists(f"{place}/layer.json")


def _work_lock(name: str) -> str:
    return f"{state.run_root()}/{_LOCK}{name}.lock"


# -- the index -----------------------------------------------------------------------------------------------------

def write_index(index: dict[str, Any]) -> None:
    """Replace index.json, synced. The caller holds the lock."""
    state.write_json(f"{state.root()}/images/index.json", index)


def place(index: dict[str, Any], descriptor: dict[str, Any], name: str) -> str:
    """Put `descriptor` into the index under the full reference `name` ("" for an image without a name).

    An image that had the name loses it; without any other name it stays as a dangling one. Returns its descriptor's
    digest, or "" when nobody had it.
    """
    manifests = index["manifests"]
    displaced = ""
    for old in [each for each in manifests if name and lookup.name_of(each) == name]:
        if old["digest"] == descriptor["digest"]:
            return ""
        displaced = old["digest"]
        take_name(index, old)
    same = [each for each in manifests if each["digest"] == descriptor["digest"]]
    if not name and same:
        return ""
    for each in same:
        if not lookup.name_of(each):
            manifests.remove(each)
    fresh = {key: value for key, value in descriptor.items() if key != "annotations"}
    annotations = dict(descriptor.get("annotations") or {})
    annotations.pop(documents.REF_NAME, None)
    if name:
        annotations[documents.REF_NAME] = name
    if annotations:
        fresh["annotations"] = annotations
    manifests.append(fresh)
    return displaced


def take_name(index: dict[str, Any], descriptor: dict[str, Any]) -> None:
    """Take the name off a descriptor of the index; the entry goes where the same manifest has another one."""
    if any(each is not descriptor and each["digest"] == descriptor["digest"] for each in index["manifests"]):
        index["manifests"] = [each for each in index["manifests"] if each is not descriptor]
    else:
        descriptor.get("annotations", {}).pop(documents.REF_NAME, None)


# -- sweeping -------------------------------------------------------------------------------------------------------

def sweep() -> None:
    """Throw away what killed commands left, if there is any."""
    if os.path.isdir(f"{state.root()}/pending") and dead():
        with lock():
            collect()


def dead() -> list[str]:
    """The works whose command is gone: known by their directory or, where that is removed already, by their lock."""
    names = set(os.listdir(f"{state.root()}/pending"))
    names |= {name[len(_LOCK):-5] for name in os.listdir(state.run_root()) if name.startswith(_LOCK)}
    return [name for name in names if not state.locked(_work_lock(name))]


def collect(work: Work | None = None) -> list[str]:
    """Remove what nothing needs any more; the caller holds the lock. Return the chain ids of removed layers, topmost
    first.

    Needed are: the blobs, records and layers of every image in the index, pinned layers, and all layers below those.
    """
    root = prepare()
    gone = dead()
    kept, identifiers, chains = needed(root)
    for record in os.listdir(f"{root}/chains"):
        if record not in identifiers:
            _unlink(f"{root}/chains/{record}")
    removed = _collect_layers(root, chains)
    for name in [*gone, work.name] if work else gone:
        _judge_blobs(root, f"{root}/pending/{name}/blobs", kept)
    for name in gone:
        remove_path(f"{root}/pending", name)
        _unlink(_work_lock(name))
    for layer in os.listdir(f"{root}/layers"):
        _drop_void_pins(f"{root}/layers/{layer}")
    for name in os.listdir(f"{root}/images"):
        if name.endswith(".tmp"):
            _unlink(f"{root}/images/{name}")
    return removed


def needed(root: str) -> tuple[set[str], set[str], set[str]]:
    """(digests of blobs, names of chain records, chain ids) that images or pins need."""
    kept: set[str] = set()
    identifiers: set[str] = set()
    chains: set[str] = set()
    for descriptor in lookup.read_index()["manifests"]:
        kept |= blobs(descriptor)
        try:
            record = lookup.config_digest(descriptor)[7:]
            chains |= set(state.read_json(f"{root}/chains/{record}")["chains"])
            identifiers.add(record)
        except (BadInputError, FileNotFoundError, ValueError, KeyError):  # never unpacked; a damaged record is as good
            continue
    for name in os.listdir(f"{root}/layers"):
        chain = name.removeprefix(_DEAD)
        if chain not in chains and state.pins(f"{root}/layers/{name}"):
            while chain and chain not in chains:
                chains.add(chain)
                chain = _parent(root, chain)
    return kept, identifiers, chains


def blobs(descriptor: dict[str, Any]) -> set[str]:
    """The digests of every blob that a descriptor needs, as far as the store has them."""
    found = {descriptor["digest"]}
    try:
        document = lookup.read_blob(descriptor["digest"])
        for below in document.get("manifests", []):
            found |= blobs(below)
        if "config" in document:
            found |= {each["digest"] for each in [document["config"], *document.get("layers", [])]}
    except BadInputError:
        pass  # a platform of an index that was never fetched
    return found


def _collect_layers(root: str, needed: set[str]) -> list[str]:
    """Remove the layers that are not needed; return their chain ids, the topmost first."""
    names = set(os.listdir(f"{root}/layers")) - {"l"}
    removed = []
    for chain in sorted(name.removeprefix(_DEAD) for name in names if name.startswith(_DEAD)):  # removals cut short
        if chain in names:
            remove_path(f"{root}/layers", _DEAD + chain)
        elif chain in needed:
            os.rename(f"{root}/layers/{_DEAD}{chain}", f"{root}/layers/{chain}")
        else:
            removed.append(chain)
    for chain in names - needed:
        if chain.startswith(_DEAD):
            continue
        # Renamed first: from here on nobody can pin it. Who pinned it a moment ago keeps it.
        os.rename(f"{root}/layers/{chain}", f"{root}/layers/{_DEAD}{chain}")
        if state.pins(f"{root}/layers/{_DEAD}{chain}"):
            os.rename(f"{root}/layers/{_DEAD}{chain}", f"{root}/layers/{chain}")
        else:
            removed.append(chain)
    removed = _topmost_first(root, removed)
    for chain in removed:
        _unlink(f"{root}/layers/l/{chain[:20]}")
        remove_path(f"{root}/layers", f"{_DEAD}{chain}")
    return removed


def _topmost_first(root: str, chains: list[str]) -> list[str]:
    depth: dict[str, int] = {}
    for chain in chains:
        above, here = 0, chain
        while here := _parent(root, here):
            above += 1
        depth[chain] = above
    return sorted(chains, key=lambda chain: (-depth[chain], chain))


def _parent(root: str, chain: str) -> str:
    """The chain id of the layer below, "" when there is none."""
    for name in (chain, _DEAD + chain):
        try:
            return str(state.read_json(f"{root}/layers/{name}/layer.json")["parent"])
        except (OSError, ValueError, KeyError):
            continue
    return ""


def _drop_void_pins(layer: str) -> None:
    try:
        names = os.listdir(f"{layer}/pins")
    except FileNotFoundError:
        return
    for name in names:
        if not os.path.exists(f"{layer}/pins/{name}"):
            _unlink(f"{layer}/pins/{name}")


def _judge_blobs(root: str, directory: str, needed: set[str]) -> None:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        if f"sha256:{name}" not in needed:
            _unlink(f"{root}/images/blobs/sha256/{name}")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def remove_path(directory: str, name: str) -> None:
    """Remove `name` in the directory at that path, with all below it; nothing happens when it is missing."""
    if os.geteuid():
        if os.path.lexists(f"{directory}/{name}"):
            from minirt.namespaces import rootless

            rootless.call(lambda: remove_path(directory, name))  # the files of an image have many owners
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(descriptor, name)
    except OSError as error:
        raise MinirtError(f"removing {directory}/{name}: {error.strerror}") from None
    finally:
        os.close(descriptor)

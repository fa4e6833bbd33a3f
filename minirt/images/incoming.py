"""Chapter 13, beyond: a layer on its way in.

    source ─┬─ sha256 ── as it is ──────► blobs/
            └─ decompressed ─┬─ sha256 ── = diff id, as the config says?
                             └─ unpacked ► layers/CHAIN/diff

A layer is read once: hashed, stored, decompressed, hashed again and unpacked in the same pass. All of it happens below
pending/. Only what comes from far away and was cut off is kept elsewhere, below partial/, under the digest that it is
to have: whoever wants the same layer next goes on from there, and the digest of the whole tells whether that was right.

Sources: OCI image-spec config.md ("Layer DiffID", "Layer ChainID").
"""

from __future__ import annotations

import fcntl
import os
import time

from minirt import state, trace
from minirt.errors import BadInputError, MinirtError
from minirt.images import layer, store, streams, tar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Protocol

    Owners = Callable[[int, int], tuple[int, int]]

    class Layer(Protocol):
        """A layer on its way in: `digest` of its `size` bytes as they come, "" where nobody says; `diff_id` of the
        archive in it; `far`: its bytes are worth keeping when they are cut off. `pieces(start)` are its bytes from one
        on, `media_type()` its type, asked when a manifest must be made; `say` is told how far it is."""

        digest: str
        diff_id: str
        size: int
        far: bool

        def pieces(self, start: int = 0) -> Iterator[bytes]: ...
        def media_type(self) -> str: ...
        def say(self, status: str) -> None: ...

CHAPTER = 13
_PATIENCE = 0.01  # seconds between two looks for a layer that another process is making
_KEPT = 7 * 86400  # seconds that what was cut off is kept


class Place:
    """Where the parts of an image are and become: in the store, and below pending/ in `work`."""

    def __init__(self, work: store.Work, owners: Owners | None) -> None:
        self.work, self.root, self.owners = work, work.root, owners
        self.making: set[str] = set()  # the chains that this command is unpacking

    def unpacked(self, chain: str) -> bool:
        """Whether the store has the layer unpacked; then it stays until this work is done."""
        return self.work.keep(chain)

    def made(self, chain: str) -> bool:
        """Whether it is unpacked in `work`."""
        return os.path.exists(f"{self.work.path}/{chain}/layer.json")

    def blob(self, digest: str) -> str:
        """The path of a blob, "" when neither has it; that of the store stays until this work is done."""
        if not digest:
            return ""
        self.work.handle(digest)
        path = f"{self.work.path}/blobs/{digest.removeprefix('sha256:')}"
        return path if os.path.exists(path) else ""


class Below:
    """The unpacked layers under one, the topmost first, as descriptors: waited for and opened when they are asked for,
    since other processes may still be making them."""

    def __init__(self, place: Place, chains: Sequence[str]) -> None:
        self._place, self._chains = place, chains
        self._open: list[int] = []

    def __len__(self) -> int:
        return len(self._chains)

    def __iter__(self) -> Iterator[int]:
        for chain in reversed(self._chains[:len(self._chains) - len(self._open)]):
            self._open.append(self._open_diff(chain))
        return iter(self._open)

    def _open_diff(self, chain: str) -> int:
        while not (self._place.made(chain) or self._place.unpacked(chain)):
            if chain not in self._place.making:
                raise MinirtError("layers of the image are being removed at the same time: try again")
            time.sleep(_PATIENCE)
        above = self._place.work.path if self._place.made(chain) else f"{self._place.root}/layers"
        return os.open(f"{above}/{chain}/diff", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close what was opened."""
        while self._open:
            os.close(self._open.pop())


def unpack(place: Place, each: Layer, number: int, chains: Sequence[str]) -> str:
    """Unpack the layer that is to be `chains[number]`, storing its blob in the same pass; return the blob's digest.

    Raises BadInputError when a digest is not what it should be; then nothing of it is left in `place`.
    """
    chain = chains[number]
    trace.step(CHAPTER, f"unpack layer {number + 1} of {len(chains)} in a place of its own and hash it",
               f"openat2, write, mknod: layers/{chain[:20]}")
    made = f"{place.work.path}/{chain}"
    os.makedirs(f"{made}/pins", 0o700)
    os.mkdir(f"{made}/diff", 0o755)
    target = os.open(f"{made}/diff", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    below = Below(place, chains[:number])
    stored, unpacked = streams.Digest(), streams.Digest()
    try:
        with BlobFile(place, each, number) as blob:
            kind, plain = streams.peek(stored.through(blob.pieces()))
            if kind:
                plain = unpacked.through(streams.inflate(kind, plain))
            else:
                unpacked = stored
            with streams.Ahead(plain) as ahead:
                pieces = streams.while_room(ahead.pieces(), target)
                size = layer.unpack(tar.Stream(lambda: next(pieces, b"")), target, below, place.owners)
                ahead.finish()
            _check(each, str(stored), str(unpacked))
            blob.keep(str(stored))
    except BaseException:
        store.remove_path(place.work.path, chain)
        raise
    finally:
        below.close()
        os.close(target)
    record = {"parent": chains[number - 1] if number else "", "diff": each.diff_id, "size": size}
    state.write_atomic(f"{made}/layer.json", state.dumps(record).encode() + b"\n", sync=False)
    each.say("Pull complete")
    return str(stored)


def store_blob(place: Place, each: Layer, number: int) -> str:
    """Store the blob of a layer that is unpacked already; return its digest. Raises BadInputError."""
    stored = streams.Digest()
    with BlobFile(place, each, number) as blob:
        kind, pieces = streams.peek(stored.through(blob.pieces()))
        for _ in pieces:
            pass
        if each.digest or not kind:
            _check(each, str(stored), each.diff_id if each.digest else str(stored))
        blob.keep(str(stored))
    return str(stored)


def _check(each: Layer, stored: str, unpacked: str) -> None:
    if each.digest and each.digest != stored:
        raise BadInputError(f"filesystem layer verification failed for digest {each.digest}: the bytes that came have "
                            f"the digest {stored}")
    if each.diff_id != unpacked:
        raise BadInputError(f"invalid diffID for a layer: expected {each.diff_id}, got {unpacked}")


class BlobFile:
    """A blob on its way into pending/WORK/blobs, under the name of its digest, known when all of it has passed.

    One that the store has is read from there. One that comes from far away is kept below partial/ when it is cut off,
    and goes on from what is there."""

    def __init__(self, place: Place, each: Layer, number: int) -> None:
        self._place, self._each = place, each
        self._path = f"{place.work.path}/blob-{number}"
        self._there = place.blob(each.digest)
        self._partial = False
        self._descriptor = -1

    def __enter__(self) -> BlobFile:
        if not self._there:
            if self._each.far:
                self._open_partial()
            if not self._partial:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        return self

    def _open_partial(self) -> None:
        """Take the file below partial/, unless another process has it."""
        directory = f"{self._place.root}/partial"
        os.makedirs(directory, 0o700, exist_ok=True)
        path = f"{directory}/{self._each.digest.removeprefix('sha256:')}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._partial = os.fstat(descriptor).st_ino == os.stat(path).st_ino
        except (BlockingIOError, FileNotFoundError):
            self._partial = False
        if self._partial:
            self._descriptor, self._path = descriptor, path
        else:
            os.close(descriptor)

    def pieces(self) -> Iterator[bytes]:
        """Its bytes: those that are here, then those that come, which are stored as they pass."""
        if self._there:
            descriptor = os.open(self._there, os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield from streams.read_pieces(descriptor, 0, self._each.size)
            finally:
                os.close(descriptor)
            return
        start = min(os.fstat(self._descriptor).st_size, self._each.size) if self._partial else 0
        yield from streams.read_pieces(self._descriptor, 0, start)
        os.lseek(self._descriptor, start, os.SEEK_SET)
        yield from streams.write_through(self._each.pieces(start), self._descriptor)

    def keep(self, digest: str) -> None:
        """Give it its name."""
        if not self._there:
            os.rename(self._path, f"{self._place.work.path}/blobs/{digest.removeprefix('sha256:')}")
            self._partial = False

    def __exit__(self, kind: object, error: object, _: object) -> None:
        if self._descriptor < 0:
            return
        if self._partial and (isinstance(error, BadInputError) or not os.fstat(self._descriptor).st_size):
            os.unlink(self._path)  # the bytes themselves are wrong: they are no beginning
        os.close(self._descriptor)
        self._descriptor = -1


def forget_old(root: str) -> None:
    """Remove what was cut off long ago and nobody went on with."""
    try:
        names = os.listdir(f"{root}/partial")
    except FileNotFoundError:
        return
    for name in names:
        path = f"{root}/partial/{name}"
        try:
            if os.stat(path).st_mtime < time.time() - _KEPT:
                os.unlink(path)
        except FileNotFoundError:
            continue

"""Chapter 13: the bytes of an archive on their way: read, hashed, decompressed, hashed again, handed on.

The digest of a blob is taken over what is stored or sent, the *diff id* of a layer over the archive after
decompression: so one pass over the bytes yields both, while they are unpacked. Reading, hashing and decompressing
happen in a thread beside the one that makes files: each of these calls lets go of the interpreter, so two processors
are used.

Rules of the room: nothing is held whole in memory; a compressed piece of a few bytes may stand for gigabytes, and an
archive made of such is a *decompression bomb*: `inflate` does not believe one, and whatever comes, `while_room` leaves
the rest of the machine room on the disk.

Sources: RFC 1952 (gzip), RFC 8878 (zstd), OCI image-spec config.md "Layer DiffID".
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import zlib

from minirt import state, units
from minirt.errors import BadInputError, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

PIECE = 1 << 20   # bytes at a time
_AHEAD = 8        # pieces that the thread may be ahead
BELIEVED = 4 << 30  # bytes that may come of anything compressed
_RATIO = 100        # beyond that, how many times its size: files compress 2 to 20 times, zeros 200 times and more
_RESERVE = 64 << 20  # bytes of the disk that are left free, on a small one the hundredth part of it
_MAGIC = ((b"\x1f\x8b\x08", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"))


def kind_of(beginning: bytes) -> str:
    """The compression that the first bytes of a file tell: gzip, zstd, bzip2, xz, or "" for none."""
    return next((kind for magic, kind in _MAGIC if beginning.startswith(magic)), "")


def read_pieces(descriptor: int, offset: int, size: int) -> Iterator[bytes]:
    """`size` bytes of an open file from `offset` on, in pieces. Raises BadInputError when the file ends before."""
    end = offset + size
    while offset < end:
        piece = os.pread(descriptor, min(PIECE, end - offset), offset)
        if not piece:
            raise BadInputError("the archive ends in the middle of a file")
        offset += len(piece)
        yield piece


def read_all(descriptor: int) -> Iterator[bytes]:
    """All that comes from a descriptor, in pieces; a pipe or a file."""
    while piece := os.read(descriptor, PIECE):
        yield piece


def decompress(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """What the pieces hold after decompression, by the kind that their beginning tells; as they are if it is none.

    Raises BadInputError for damaged or truncated data, MinirtError when this machine cannot read its kind.
    """
    kind, pieces = peek(pieces)
    return inflate(kind, pieces) if kind else pieces


def peek(pieces: Iterator[bytes]) -> tuple[str, Iterator[bytes]]:
    """The compression that the first bytes tell, as `kind_of`, and the same pieces."""
    first = next(pieces, b"")
    while len(first) < 6 and (piece := next(pieces, b"")):
        first += piece
    return kind_of(first), _chain(first, pieces)


def _chain(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from pieces


def inflate(kind: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """What the pieces hold after decompression. Raises as `decompress`, and BadInputError for a bomb."""
    came = gave = 0

    def counted() -> Iterator[bytes]:
        nonlocal came
        for piece in pieces:
            came += len(piece)
            yield piece

    for data in _inflate(kind, counted()):
        gave += len(data)
        if gave > BELIEVED and gave > came * _RATIO:
            raise BadInputError(f"{units.human_size(came)} of {kind} data unfold to {units.human_size(gave)} and more, "
                                "a decompression bomb; if so much is meant, store it uncompressed")
        yield data


def _inflate(kind: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    make, errors = _decompressor(kind)
    engine = None
    try:
        for piece in pieces:
            while piece or engine is not None:
                if engine is None:
                    if not piece.strip(b"\0"):
                        break  # padding after the end, as tape left it
                    engine = make()
                data, piece = engine.take(piece)
                if data:
                    yield data
                if engine.eof:
                    engine = None  # gzip and zstd: another member may follow
                elif not piece and not engine.holds:
                    break
        while engine is not None:
            data, _ = engine.take(b"")
            if engine.eof:
                engine = None
            elif not data:
                break
            if data:
                yield data
    except errors as error:
        raise BadInputError(f"the {kind} data of the archive is damaged: {error}") from None
    if engine is not None:
        raise BadInputError(f"the {kind} data of the archive ends too early")


class _Zlib:
    """gzip by zlib or its faster twin isal, whose decompressors hand back what they did not come to."""

    holds = False  # whether it has input that it did not come to

    def __init__(self, engine: Any) -> None:
        self._engine, self.eof = engine, False

    def take(self, piece: bytes) -> tuple[bytes, bytes]:
        """(at most PIECE bytes of output, what is left of the input)"""
        data = self._engine.decompress(piece, PIECE)
        self.eof = self._engine.eof
        return data, self._engine.unused_data if self.eof else self._engine.unconsumed_tail


class _Buffered:
    """bz2, lzma and zstd: their decompressors keep what they did not come to, and go on when given nothing."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.eof, self.holds = engine, False, False

    def take(self, piece: bytes) -> tuple[bytes, bytes]:
        """(at most PIECE bytes of output, what follows the end of the compressed data)"""
        data = self._engine.decompress(piece, PIECE)
        self.eof = self._engine.eof
        self.holds = not self.eof and not self._engine.needs_input
        return data, self._engine.unused_data if self.eof else b""


def _decompressor(kind: str) -> tuple[Callable[[], Any], Any]:
    """A function that makes a decompressor, and the exceptions that it raises on damaged data."""
    if kind == "gzip":
        try:
            from isal import isal_zlib  # more than twice as fast, where it is installed

            return lambda: _Zlib(isal_zlib.decompressobj(wbits=31)), (isal_zlib.error, zlib.error)
        except ImportError:
            return lambda: _Zlib(zlib.decompressobj(wbits=31)), (zlib.error,)
    if kind == "bzip2":
        import bz2

        return lambda: _Buffered(bz2.BZ2Decompressor()), (OSError, EOFError, ValueError)
    if kind == "xz":
        import lzma

        return lambda: _Buffered(lzma.LZMADecompressor()), (lzma.LZMAError, EOFError)
    try:
        from compression import zstd  # type: ignore[import-not-found]  # Python 3.14

        return lambda: _Buffered(zstd.ZstdDecompressor()), (zstd.ZstdError, EOFError)
    except ImportError:
        from minirt.images import zstd as ours

        return lambda: _Buffered(ours.Decompressor()), (ours.ZstdError, EOFError)


class Digest:
    """A running sha256."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    def through(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The same pieces, counted in."""
        for piece in pieces:
            self._hash.update(piece)
            self.size += len(piece)
            yield piece

    def __str__(self) -> str:
        return "sha256:" + self._hash.hexdigest()


def write_through(pieces: Iterator[bytes], descriptor: int) -> Iterator[bytes]:
    """The same pieces, written to a descriptor as they pass. Raises KernelError."""
    for piece in pieces:
        write(descriptor, piece)
        yield piece


def write(descriptor: int, data: bytes) -> None:
    """Write all of `data`. Raises KernelError (a full disk)."""
    try:
        state.write_all(descriptor, data)
    except OSError as error:
        raise KernelError.of("writing to the image store", error) from None


def while_room(pieces: Iterator[bytes], descriptor: int) -> Iterator[bytes]:
    """The same pieces, as long as the file system of an open file or directory, where they are going, has room and some
    to spare. Raises KernelError before it is full."""
    for piece in pieces:
        disk = os.fstatvfs(descriptor)
        free = disk.f_bavail * disk.f_frsize
        if free < len(piece) + min(_RESERVE, disk.f_blocks * disk.f_frsize // 100):
            raise KernelError(f"No space left on device: of the disk under {state.root()} {units.human_size(free)} are "
                              "free, and they are left to others; 'minirt system df' shows what images take, "
                              "'minirt image prune' makes room")
        yield piece


class Ahead:
    """Pieces produced by a thread of their own, a few ahead of whoever takes them.

    `finish` takes what is left, so that the digests are complete. An exception of the producer is raised where its
    piece would have come. Used as a context, it leaves no thread behind, unless `may_block`: a thread that reads from a
    pipe that never ends cannot be waited for, and dies with the process.
    """

    def __init__(self, pieces: Iterator[bytes], may_block: bool = False) -> None:
        self._pieces = pieces
        self._may_block = may_block
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD)
        self._stopped = False
        self._ended = False
        self._thread = threading.Thread(target=self._produce, daemon=True)

    def _produce(self) -> None:
        try:
            for piece in self._pieces:
                if self._stopped:
                    return
                if piece:
                    self._queue.put(piece)
            self._queue.put(b"")
        except BaseException as error:
            self._queue.put(error)

    def pieces(self) -> Iterator[bytes]:
        """The pieces, as they come."""
        while piece := self._more():
            yield piece

    def _more(self) -> bytes:
        if self._ended:
            return b""
        piece = self._queue.get()
        if isinstance(piece, BaseException):
            self._ended = True
            raise piece
        self._ended = not piece
        return piece

    def finish(self) -> None:
        """Take what is left and forget it."""
        while self._more():
            pass

    def __enter__(self) -> Ahead:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        while self._thread.is_alive() and not self._may_block:
            try:
                self._queue.get(timeout=0.01)
            except queue.Empty:
                continue

"""Chapter 13, beyond: reading a tar archive.

A layer is a tar archive, and so is the file that carries an image. Tar is a row of 512-byte blocks: a header that
describes one file, then the file's content padded to whole blocks, then the next header; a block of zeros ends it. All
numbers are octal text in fields of fixed width, which was enough in 1979. What outgrew the fields came as extensions,
all of which are in use:

- ustar (1988): a *prefix* field for longer paths, device numbers;
- GNU: types L and K, whose *content* is the long name of the file that follows; numbers in base 256 when the first bit
  is set; type S, a sparse file, of which only the parts with data are stored;
- PAX (2001): type x, whose content is lines `LENGTH key=value` that replace fields of the file that follows: path,
  size, uid, mtime with decimals, and, by agreement, `SCHILY.xattr.NAME` for extended attributes and `GNU.sparse.*`.

Rules of the room: it reads and judges, and touches no file. Names are bytes, since a file's name need not be UTF-8.
Whoever wrote the archive may be hostile: every length is bounded before it is believed.

Sources: tar(5), pax(1) of POSIX, the GNU tar manual ("Basic Tar Format", "Storing Sparse Files").
"""

from __future__ import annotations

from minirt.errors import BadInputError
from minirt.images.changeset import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK = 512
WITHOUT_CONTENT = frozenset((HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))
_SAME_AS_REGULAR = frozenset((b"\0", b"7", b"S"))
_ZEROS = bytes(BLOCK)
_NOTHING = memoryview(b"")
_LONGEST_EXTENSION = 1 << 20  # bytes of one PAX header or GNU long name, as Go's reader limits it
_MOST_SPARSE_PARTS = 1 << 18
_XATTR = b"SCHILY.xattr."


class Stream:
    """Bytes from a function that gives the next piece (b"" at the end), to be read by exact amounts."""

    def __init__(self, more: Callable[[], bytes]) -> None:
        self._more = more
        self._piece = memoryview(b"")
        self._at = 0
        self.position = 0

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes. Raises BadInputError when the stream ends before."""
        end = self._at + size
        if end <= len(self._piece):  # nearly always: no copy but this one
            data = bytes(self._piece[self._at:end])
            self._at = end
            self.position += size
            return data
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes in pieces as they come. Raises BadInputError when the stream ends before."""
        while size:
            piece = self.take(size)
            size -= len(piece)
            yield piece

    def take(self, most: int) -> memoryview:
        """At least one and at most `most` of the next bytes, without copying them. Raises BadInputError at the end."""
        if self._at == len(self._piece) and not self._refill():
            raise BadInputError(f"the archive ends at byte {self.position} in the middle of a file")
        piece = self._piece[self._at:self._at + most]
        self._at += len(piece)
        self.position += len(piece)
        return piece

    def skip(self, size: int) -> None:
        """Pass over `size` bytes."""
        while size:
            size -= len(self.take(size))

    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self._at == len(self._piece) and not self._refill()

    def _refill(self) -> bool:
        self._piece, self._at = memoryview(self._more()), 0
        return len(self._piece) > 0


class Reader:
    """The entries of a tar archive, in order: `for entry in reader`. The content of the entry at hand is read with
    `content()` or `pieces()`, or passed over."""

    def __init__(self, stream: Stream, need_end: bool = False) -> None:
        """`need_end`: an archive without the block of zeros at its end is taken for truncated."""
        self.stream = stream
        self._need_end = need_end
        self._left = 0      # bytes of the entry's content not yet read
        self._padding = 0   # bytes after it, up to the next block

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def content(self, limit: int = 1 << 30) -> bytes:
        """The whole stored content of the entry. Raises BadInputError when it is longer than `limit` bytes."""
        size = self._left
        if size > limit:
            raise BadInputError(f"a file of {size} bytes stands in the archive where at most {limit} are allowed")
        self._left = 0
        return self.stream.exactly(size)

    def take(self) -> memoryview:
        """The next piece of the entry's stored content, empty when all of it is read."""
        if not self._left:
            return _NOTHING
        piece = self.stream.take(self._left)
        self._left -= len(piece)
        return piece

    def pieces(self, size: int = -1) -> Iterator[memoryview]:
        """The next `size` bytes (-1: all that is left) of the entry's stored content, piece by piece."""
        size = self._left if size < 0 else min(size, self._left)
        self._left -= size
        return self.stream.pieces(size)

    def _next(self) -> Entry | None:
        stream = self.stream
        long_name = long_link = None
        pax: dict[bytes, bytes] = {}
        while True:
            stream.skip(self._left + self._padding)
            self._left = self._padding = 0
            if stream.at_end():
                if self._need_end or pax or long_name is not None or long_link is not None:
                    raise BadInputError(f"the archive ends at byte {stream.position} without the mark of its end")
                return None
            block = stream.exactly(BLOCK)
            if block == _ZEROS:
                if not stream.at_end() and stream.exactly(BLOCK) != _ZEROS:
                    raise BadInputError(f"the archive goes on after the mark of its end, at byte {stream.position}")
                return None
            kind = _check(block)
            size = number(block[124:136])
            if size < 0:
                raise BadInputError("a file in the archive claims a negative size")
            if kind in (b"x", b"L", b"K", b"g"):
                if size > _LONGEST_EXTENSION:
                    raise BadInputError(f"a header extension in the archive claims {size} bytes")
                data = stream.exactly(size)
                stream.skip(-size % BLOCK)
                if kind == b"x":
                    pax = pax_records(data)
                elif kind == b"L":
                    long_name = data.partition(b"\0")[0]
                elif kind == b"K":
                    long_link = data.partition(b"\0")[0]
                continue  # g, the global header, is passed over, as by Go's reader: it would reach into other files
            entry = _entry(block, kind, size)
            entry.name = long_name or entry.name
            entry.link = long_link or entry.link
            if pax:
                _apply_pax(entry, pax)
            if entry.kind in WITHOUT_CONTENT:
                entry.size = entry.stored = 0
            self._left, self._padding = entry.stored, -entry.stored % BLOCK
            if kind == b"\0" and entry.name.endswith(b"/"):
                entry.kind = DIRECTORY  # how tar of 1979 marked a directory
            if kind == b"S":
                self._old_sparse(entry, block)
            elif pax and entry.kind == REGULAR:
                self._pax_sparse(entry, pax)
            if b"\0" in entry.name or b"\0" in entry.link:
                raise BadInputError("a name in the archive has a zero byte in it")
            return entry

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        """The map of a GNU type S file: four pairs in the header, then blocks of 21 as long as the last byte says."""
        fields, more = block[386:482], block[482]
        entry.size = number(block[483:495])
        parts: list[tuple[int, int]] = []
        while True:
            for at in range(0, len(fields), 24):
                if fields[at] == 0:
                    break
                parts.append((number(fields[at:at + 12]), number(fields[at + 12:at + 24])))
            if not more:
                break
            if len(parts) > _MOST_SPARSE_PARTS:
                raise BadInputError("a sparse file in the archive has too many parts")
            extension = self.stream.exactly(BLOCK)
            fields, more = extension[:504], extension[504]
        entry.parts = _checked(entry, parts)

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes]) -> None:
        """The map of a PAX sparse file: in the records (versions 0.0 and 0.1) or before the content (1.0)."""
        if b"GNU.sparse.major" in pax:
            if pax[b"GNU.sparse.major"] != b"1" or pax.get(b"GNU.sparse.minor", b"0") != b"0":
                raise BadInputError("a sparse file in the archive is of an unknown version")
            numbers = self._map_in_content()
        elif b"GNU.sparse.map" in pax:
            numbers = [_decimal(word) for word in pax[b"GNU.sparse.map"].split(b",") if word]
        elif b"GNU.sparse.size" not in pax:
            return
        else:
            numbers = []
        if len(numbers) % 2:
            raise BadInputError("a sparse file in the archive has an odd map")
        entry.name = pax.get(b"GNU.sparse.name") or entry.name
        size = pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size")
        entry.size = _decimal(size) if size else entry.size
        entry.stored = self._left
        entry.parts = _checked(entry, list(zip(numbers[::2], numbers[1::2], strict=True)))

    def _map_in_content(self) -> list[int]:
        """Version 1.0: a count, then as many pairs, each number on a line, padded to whole blocks."""
        lines: list[bytes] = []
        rest, wanted = b"", 1
        while len(lines) < wanted:
            if self._left < BLOCK:
                raise BadInputError("a sparse file in the archive ends within its map")
            self._left -= BLOCK
            *whole, rest = (rest + self.stream.exactly(BLOCK)).split(b"\n")
            lines += whole
            if lines and wanted == 1:
                wanted = 1 + 2 * _decimal(lines[0])
                if wanted > 2 * _MOST_SPARSE_PARTS:
                    raise BadInputError("a sparse file in the archive has too many parts")
        return [_decimal(line) for line in lines[1:wanted]]


def number(field: bytes) -> int:
    """A number of a header: octal text, or base 256 (two's complement) when its first bit is set.

    Raises BadInputError when it is neither.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    text = field.strip(b" \0")
    if text.isdigit() and b"8" not in text and b"9" not in text:  # nearly always
        return int(text, 8)
    text = field.partition(b"\0")[0].strip(b" ")
    if text.translate(None, b"01234567"):
        raise BadInputError(f"a number in the archive is no number: {text!r}")
    return int(text or b"0", 8)


def pax_records(data: bytes) -> dict[bytes, bytes]:
    """The records `LENGTH key=value` of a PAX header, LENGTH counting the whole line. Raises BadInputError.

    GNU's sparse version 0.0 repeats two keys; their values are gathered under GNU.sparse.map, as version 0.1 has them.
    """
    records: dict[bytes, bytes] = {}
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = data[at:space] if space > 0 else b""
        end = at + int(length) if length.isdigit() else 0
        key, equals, value = data[space + 1:end - 1].partition(b"=")
        if not at < end <= len(data) or data[end - 1:end] != b"\n" or not equals or not key or end <= space + 1:
            raise BadInputError("a PAX header in the archive is malformed")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            parts.append(value)
        records[key] = value
        at = end
    if parts:
        records[b"GNU.sparse.map"] = b",".join(parts)
    return records


def _check(block: bytes) -> bytes:
    """Raises BadInputError unless the header's sum is right; returns its type."""
    try:
        told = number(block[148:156])
    except BadInputError:
        told = -1
    total = sum(block) - sum(block[148:156]) + 8 * 32  # the sum's own field counts as spaces
    if total != told:
        signed = total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])  # what some old tars computed
        if signed != told:
            raise BadInputError("not a tar archive, or a damaged one: the sum of a header is wrong")
    return block[156:157]


def _entry(block: bytes, kind: bytes, size: int) -> Entry:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345]:
        name = block[345:500].partition(b"\0")[0] + b"/" + name
    entry = Entry(name, REGULAR if kind in _SAME_AS_REGULAR else kind, number(block[100:108]) & 0o7777, size,
                  block[157:257].partition(b"\0")[0])
    entry.uid = number(block[108:116])
    entry.gid = number(block[116:124])
    entry.mtime = number(block[136:148]) * 1_000_000_000
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.device = number(block[329:337]), number(block[337:345])
    return entry


def _apply_pax(entry: Entry, pax: dict[bytes, bytes]) -> None:
    """Let the records replace the header's fields; an empty value leaves the header's."""
    for key, value in pax.items():
        if key.startswith(_XATTR):
            if entry.xattrs is None:
                entry.xattrs = {}
            entry.xattrs[key[len(_XATTR):].decode("utf-8", "surrogateescape")] = value
        elif not value:
            continue
        elif key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = entry.stored = _decimal(value)
        elif key == b"uid":
            entry.uid = _decimal(value)
        elif key == b"gid":
            entry.gid = _decimal(value)
        elif key == b"mtime":
            entry.mtime = _nanoseconds(value)


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise BadInputError(f"a number in the archive is no number: {text[:40]!r}")
    return int(text)


def _nanoseconds(text: bytes) -> int:
    """`1700000000.123456789` (decimals and a minus sign at will) as nanoseconds, exactly: no float holds them."""
    whole, _, decimals = text.removeprefix(b"-").partition(b".")
    nanoseconds = _decimal(whole or b"0") * 1_000_000_000 + _decimal((decimals + b"0" * 9)[:9])
    return -nanoseconds if text.startswith(b"-") else nanoseconds


def _checked(entry: Entry, parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The map of a sparse file, if its parts are in order, within the file, and as long as what is stored."""
    end = 0
    for offset, length in parts:
        if offset < end or length < 0:
            raise BadInputError("the parts of a sparse file in the archive overlap")
        end = offset + length
    if end > entry.size or sum(length for _, length in parts) != entry.stored:
        raise BadInputError("the map of a sparse file in the archive does not fit its content")
    return parts

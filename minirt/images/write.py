"""Chapter 13: writing a layer: files become an archive, the same files always the same bytes.

A tar archive is a row of 512-byte blocks: a *header* that says what one file is, then its content, padded with zeros to
whole blocks; two blocks of zeros end it. Numbers are octal text in fields of fixed width, which was enough in 1979;
what does not fit them stands in a *PAX record* (2001), `LENGTH key=value`, in a little file of its own before the
header.

A digest is only worth something if whoever builds the same files again gets it again. What stands in the way is all
that a machine adds by itself, and each has its remedy:

- the order in which a file system lists names: they are sorted;
- the time of the build: no file is newer than the time that the caller gives;
- names of users, fractions of seconds, numbers of inodes, access times: left out.

Sources: tar(5), pax(1) of POSIX "pax Interchange Format", reproducible-builds.org "Archive metadata".
"""

from __future__ import annotations

import copy
import os
import stat

from minirt import overlay
from minirt.errors import BadInputError
from minirt.images import changeset
from minirt.images.changeset import Entry, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLOCK = 512
END = bytes(2 * BLOCK)
_PIECE = 1 << 20
_SECOND = 10**9


def header(entry: Entry) -> bytes:
    """The block of 512 bytes that describes a file, in the form "ustar".

    The fields, one behind the other, each with its width in bytes:

        name 100, mode 8, uid 8, gid 8, size 12, mtime 12 (whole seconds; the entry has nanoseconds), sum 8, kind 1,
        link 100, b"ustar\\0" 6, b"00" 2, names of user and group 32 each (none: zeros), device 8 and 8, zeros

    A text is cut off or filled with zeros; a number is octal digits, with zeros before them, and a zero byte at the end
    of its field. The sum is that of all 512 bytes, its own field taken for eight spaces, and is written as six octal
    digits, a zero byte, a space. Source: tar(5) "POSIX ustar Archives".
    """
    block = b"".join((
        entry.name[:100].ljust(100, b"\0"), b"%07o\0%07o\0%07o\0" % (entry.mode, entry.uid, entry.gid),
        b"%011o\0%011o\0" % (entry.size, entry.mtime // _SECOND), b" " * 8, entry.kind,
        entry.link[:100].ljust(100, b"\0"), b"ustar\x0000", bytes(64), b"%07o\0%07o\0" % entry.device,
    )).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def archive(files: Iterable[tuple[Entry, Iterable[bytes]]]) -> Iterator[bytes]:
    """The bytes of a tar archive, piece by piece, of these files with their content, in this order.

    Raises BadInputError when a content has another size than its entry says.
    """
    for entry, pieces in files:
        plain, records = _fitting(entry)
        if records:
            extension = Entry(b"PaxHeaders.0/" + entry.name[:80], b"x", size=len(records))
            yield header(extension) + records + bytes(-len(records) % BLOCK)
        yield header(plain)
        size = 0
        for piece in pieces:
            size += len(piece)
            yield piece
        if size != entry.size:
            raise BadInputError(f"'{show(entry.name)}' has {size} bytes, not {entry.size}: it changes while it is read")
        yield bytes(-size % BLOCK)
    yield END


def _fitting(entry: Entry) -> tuple[Entry, bytes]:
    """What a header can hold of an entry, and PAX records of what it cannot, b"" for none."""
    plain = copy.copy(entry)
    fields: dict[bytes, bytes] = {}
    for key, text in ((b"path", entry.name), (b"linkpath", entry.link)):
        if len(text) > 100:
            fields[key] = text
    for name, limit, unit in (("uid", 8**7, 1), ("gid", 8**7, 1), ("size", 8**11, 1), ("mtime", 8**11, _SECOND)):
        number = getattr(entry, name) // unit
        if not 0 <= number < limit:
            fields[name.encode()] = b"%d" % number
            setattr(plain, name, 0)
    for name, value in (entry.xattrs or {}).items():
        fields[b"SCHILY.xattr." + os.fsencode(name)] = value
    return plain, b"".join(_record(key, fields[key]) for key in sorted(fields))


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH key=value` and a newline, where LENGTH counts its own digits too."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest) + 1
    while length != len(rest) + len(b"%d" % length):
        length += 1
    return b"%d%s" % (length, rest)


def tree(directory: str, latest: int | None = None) -> Iterator[tuple[Entry, Iterable[bytes]]]:
    """The files below a directory, for `archive`: sorted, no time later than `latest` (seconds since 1970).

    The directory may be the upper one of an overlay: its whiteouts and opaque directories become those of a layer. Of
    several names of one file the first is the file, the others are hard links to it. Sockets, which belong to a
    process, are left out. Raises OSError.
    """
    seen: dict[tuple[int, int], bytes] = {}
    todo = [b""]
    while todo:
        name = todo.pop()
        path = os.path.join(os.fsencode(directory), name)
        status = os.lstat(path)
        if stat.S_ISSOCK(status.st_mode):
            continue
        entry = _entry(name, path, status, latest)
        if entry.kind == changeset.DIRECTORY:
            todo += sorted((os.path.join(name, each) for each in os.listdir(path)), reverse=True)
        elif status.st_nlink > 1 and entry.kind != changeset.HARD_LINK:
            first = seen.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                entry.kind, entry.size, entry.link = changeset.HARD_LINK, 0, first
        if name:
            yield entry, content(path) if entry.kind == changeset.REGULAR and entry.size else ()
        if entry.kind == changeset.DIRECTORY and overlay.is_opaque(os.fsdecode(path)):
            yield Entry(os.path.join(name, changeset.OPAQUE)), ()


def _entry(name: bytes, path: bytes, status: os.stat_result, latest: int | None) -> Entry:
    """What a layer says of a file."""
    if overlay.is_whiteout(status):
        head, base = os.path.split(name)
        return Entry(os.path.join(head, changeset.WHITEOUT + base))
    # As Docker writes them: a mode has the bits of the type too, a directory's name ends in a slash. So a layer that
    # buildah or Docker makes of the same files has the same digest.
    entry = Entry(name, _KINDS[stat.S_IFMT(status.st_mode)], status.st_mode)
    entry.uid, entry.gid = status.st_uid, status.st_gid
    entry.mtime = status.st_mtime_ns if latest is None else min(status.st_mtime_ns, latest * _SECOND)
    entry.xattrs = {each: os.getxattr(path, each, follow_symlinks=False)
                    for each in sorted(os.listxattr(path, follow_symlinks=False))
                    if not each.startswith(changeset.PRIVATE_XATTRS)}
    if entry.kind == changeset.DIRECTORY:
        entry.name += b"/"
    elif entry.kind == changeset.REGULAR:
        entry.size = status.st_size
    elif entry.kind == changeset.SYMLINK:
        entry.link = os.readlink(path)
    elif entry.kind in (changeset.CHARACTER, changeset.BLOCK_DEVICE):
        entry.device = os.major(status.st_rdev), os.minor(status.st_rdev)
    return entry


_KINDS = {
    stat.S_IFREG: changeset.REGULAR, stat.S_IFDIR: changeset.DIRECTORY, stat.S_IFLNK: changeset.SYMLINK,
    stat.S_IFCHR: changeset.CHARACTER, stat.S_IFBLK: changeset.BLOCK_DEVICE, stat.S_IFIFO: changeset.FIFO,
}


def content(path: str | bytes) -> Iterator[bytes]:
    """The bytes of a file of this machine, piece by piece."""
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            yield piece

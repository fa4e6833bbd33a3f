"""Chapter 13: what a layer says.

A layer is a *changeset* in the form of a tar archive: what one step of a build changed in the files below it. Each
entry is one file, and one of four things is meant:

- a file, a directory, a link, a device: it is there now, as the entry says, in place of whatever was there before;
- `.wh.NAME`, an empty file: NAME is gone. Its name: a *whiteout*;
- `.wh..wh..opq`: this directory begins anew, nothing from below shines through. The directory is *opaque*;
- other names that begin with `.wh..wh.` were the private notes of AUFS, the union file system of Docker's first years.

Here is what an entry holds and what its name means; `apply.py` makes it true in a directory, `write.py` makes archives.

Rules of the room: it touches no file. A name is bytes, since a file's name need not be UTF-8. Whoever wrote the archive
may be hostile.

Sources: OCI image-spec layer.md, tar(5).
"""

from __future__ import annotations

from minirt.errors import BadInputError

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (b"0", b"1", b"2", b"3", b"4", b"5", b"6")

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS = b".wh..wh."
PRESENT, GONE, ANEW, NOTHING = "present", "gone", "anew", "nothing"

# Extended attributes that are private words of a machine's own layers: what an archive says in them would be obeyed by
# the kernel.
PRIVATE_XATTRS = ("trusted.overlay.", "user.overlay.", "security.selinux")


class Entry:
    """One file of a layer.

    `name`, and `link` (where a link points), as bytes; `kind` one of the constants above, as tar writes it; `mode` the
    permission bits; `uid` and `gid` of its owner; `size` in bytes when unpacked; `mtime` in nanoseconds since 1970;
    `device` (major, minor); `xattrs` name -> value, or None. For whoever reads archives: `stored` bytes of content are
    in it; `parts` is None, or for a file with holes the (offset, length) pairs that are stored.
    """

    __slots__ = ("device", "gid", "kind", "link", "mode", "mtime", "name", "parts", "size", "stored", "uid", "xattrs")

    def __init__(self, name: bytes, kind: bytes = REGULAR, mode: int = 0o644, size: int = 0, link: bytes = b"") -> None:
        self.name, self.kind, self.mode, self.size, self.link = name, kind, mode, size, link
        self.uid = self.gid = self.mtime = 0
        self.device = (0, 0)
        self.xattrs: dict[str, bytes] | None = None
        self.stored = size
        self.parts: list[tuple[int, int]] | None = None


def split(name: bytes) -> list[bytes]:
    """The parts of an entry's name, without the leading slash and `.`; none for the root. Raises BadInputError for
    `..`."""
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise BadInputError(f"the archive names '{show(name)}', which leads out of it")
    return parts


def meaning(base: bytes) -> tuple[str, bytes]:
    """What an entry with the last name `base` says of its directory, and of which name.

    (PRESENT, base) for a file like any other; (GONE, NAME) for the whiteout `.wh.NAME`; (ANEW, b"") for the mark
    `OPAQUE`; (NOTHING, b"") for other names that begin with `AUFS`. Raises BadInputError for a whiteout of b"", b"."
    or b"..", which are no names of files: as a path, `.wh...` would remove the directory above. Sources:
    OCI image-spec layer.md "Whiteouts", aufs(5).
    """
    if not base.startswith(WHITEOUT):
        return PRESENT, base
    if base == OPAQUE:
        return ANEW, b""
    if base.startswith(AUFS):
        return NOTHING, b""
    name = base[len(WHITEOUT):]
    if name in (b"", b".", b".."):
        raise BadInputError(f"the layer removes '{show(name)}', which is no name")
    return GONE, name


def show(name: bytes) -> str:
    """A name of an archive in a form that is safe on a terminal, cut to a readable length."""
    text = name[:200].decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)

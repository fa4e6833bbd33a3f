"""Chapter 13, beyond: unpacking a layer: what a stream of archive holds is read by `tar.py` and applied by `apply.py`.

Here stands what serves the many and odd archives: files with holes, numbers that no file can have, owners in a user
namespace, and the question whose fault a failure is, the archive's or this machine's.
"""

from __future__ import annotations

import errno
import os

from minirt import state
from minirt.errors import BadInputError, KernelError
from minirt.images import apply, changeset, tar
from minirt.images.changeset import Entry, show, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# The reasons that the archive itself gives, as against those of this machine (a full disk, a missing right).
_ARCHIVES_FAULT = frozenset((errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG, errno.ELOOP, errno.EXDEV, errno.ENOTDIR,
                             errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ENOTEMPTY, errno.ERANGE, errno.E2BIG,
                             errno.EOVERFLOW))
_DEVICES = (changeset.CHARACTER, changeset.BLOCK_DEVICE)
_KINDS = frozenset((changeset.REGULAR, changeset.HARD_LINK, changeset.SYMLINK, *_DEVICES, changeset.DIRECTORY,
                    changeset.FIFO))
_HIGHEST_ID = (1 << 32) - 2  # -1 means "leave as it is" to chown(2)


def unpack(stream: tar.Stream, target: int, below: Iterable[int] = (),
           owners: Callable[[int, int], tuple[int, int]] | None = None) -> int:
    """Unpack the layer in `stream` into the empty directory open as `target`; return the bytes of its regular files.

    `below`: descriptors of the unpacked layers under it, the topmost first. Needs root, be it of a user namespace
    (chapter 07): then `owners` says which owner a file can have there, and device nodes, which nobody can make or use
    there, are left out. The stream is read to the end of the archive, not further. Raises BadInputError for what the
    archive does wrong, KernelError for what the machine cannot do; then `target` holds a part of the layer and is to
    be thrown away.
    """
    before = os.umask(0)
    reader = tar.Reader(stream)

    def fill(entry: Entry, descriptor: int) -> None:
        if entry.parts is not None:
            _write_sparse(descriptor, entry, reader)
            return
        while piece := reader.take():
            state.write_all(descriptor, piece)

    layer = apply.Layer(target, fill, below, rootless=owners is not None)
    entry, size = None, 0
    try:
        for entry in reader:
            _check(entry)
            if owners:
                entry.uid, entry.gid = owners(entry.uid, entry.gid)
                if entry.kind in _DEVICES:
                    continue
            layer.add(entry)
            size += entry.size if entry.kind == changeset.REGULAR else 0
        entry = None
        layer.finish()
    except OSError as error:
        name = f"'{show(entry.name)}'" if entry else "its directories"
        if error.errno in _ARCHIVES_FAULT:
            raise BadInputError(f"the layer cannot be unpacked at {name}: {error.strerror}") from None
        raise KernelError.of(f"unpacking {name} of a layer", error) from None
    except OverflowError:
        raise BadInputError(f"'{show(entry.name) if entry else '/'}' in the layer has a size or time beyond any clock "
                            "or disk") from None
    finally:
        layer.close()
        os.umask(before)
    return size


def _check(entry: Entry) -> None:
    """Raises BadInputError for what no file can be."""
    if entry.kind not in _KINDS:
        raise BadInputError(f"'{show(entry.name)}' in the layer is of an unknown type, {entry.kind!r}")
    if not (0 <= entry.uid <= _HIGHEST_ID and 0 <= entry.gid <= _HIGHEST_ID):
        raise BadInputError(f"'{show(entry.name)}' in the layer has an impossible owner, {entry.uid}:{entry.gid}")
    major, minor = entry.device
    if entry.kind in _DEVICES and not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise BadInputError(f"'{show(entry.name)}' in the layer is an impossible device, {major}:{minor}")
    if entry.kind == changeset.HARD_LINK and split(entry.link) == split(entry.name):
        raise BadInputError(f"'{show(entry.name)}' in the layer is a hard link to itself")


def _write_sparse(descriptor: int, entry: Entry, reader: tar.Reader) -> None:
    """Write the parts that are stored where they belong; what lies between stays a hole."""
    os.ftruncate(descriptor, entry.size)
    for offset, length in entry.parts or ():
        for piece in reader.pieces(length):
            while piece:
                written = os.pwrite(descriptor, piece, offset)
                piece, offset = piece[written:], offset + written

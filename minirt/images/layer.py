"""Chapter 13, beyond: unpacking a layer: what a stream of archive holds is read by `tar.py` and applied by `apply.py`.

Here stands what serves the many and odd archives: files with holes, and the question whose fault a failure is, the
archive's or this machine's.
"""

from __future__ import annotations

import errno
import os

from minirt import state
from minirt.errors import BadInputError, KernelError
from minirt.images import apply, tar
from minirt.images.changeset import Entry, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# The reasons that the archive itself gives, as against those of this machine (a full disk, a missing right).
_ARCHIVES_FAULT = frozenset((errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG, errno.ELOOP, errno.EXDEV, errno.ENOTDIR,
                             errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ENOTEMPTY, errno.ERANGE, errno.E2BIG,
                             errno.EOVERFLOW))


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

    layer = apply.Layer(target, fill, below, owners)
    entry = None
    try:
        for entry in reader:
            layer.add(entry)
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
    return layer.size


def _write_sparse(descriptor: int, entry: Entry, reader: tar.Reader) -> None:
    """Write the parts that are stored where they belong; what lies between stays a hole."""
    os.ftruncate(descriptor, entry.size)
    for offset, length in entry.parts or ():
        for piece in reader.pieces(length):
            while piece:
                written = os.pwrite(descriptor, piece, offset)
                piece, offset = piece[written:], offset + written

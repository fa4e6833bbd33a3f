"""Chapter 13: unpacking a layer.

A layer is a tar archive of what one step of a build changed: new and changed files whole, and for what was removed a
*whiteout*, an empty file `.wh.NAME`; `.wh..wh..opq` in a directory says that nothing from below shines through it. The
archive's form is made for transport. Unpacked, a layer takes the form that OverlayFS reads: a whiteout becomes a
character device 0:0, an opaque directory gets an extended attribute (chapter 09).

Rules of the room:

- **The archive is hostile until proven otherwise.** A name never leads out of the layer: the directory of each file is
  opened with openat2(RESOLVE_BENEATH) (chapter 04) and everything happens at that descriptor, with O_EXCL and without
  following a symlink. `..` in a name, a symlink out of the layer with a file written through it, a hard link to what
  the layer does not have: each is refused in a sentence.
- **Directories get owner, mode and time last.** Each file made in a directory changes the directory's time; a
  read-only directory would refuse its files, a setgid one give them a foreign group.
- Owner before mode before extended attributes: a change of owner takes setuid bits and capabilities away (chown(2)).
- A directory that the archive leaves out (a/b/c without a/b) is copied from the layers below, as OverlayFS would do on
  a change: else a layer that changes /tmp/x would take away the mode of /tmp.

Sources: OCI image-spec layer.md, openat2(2), mknod(2), utimensat(2), xattr(7), overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
import stat

from minirt import overlay
from minirt.errors import BadInputError, KernelError
from minirt.images import tar
from minirt.kernel import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CHAPTER = 13

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS = b".wh..wh."            # other names of this kind were AUFS's own bookkeeping: passed over
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HIGHEST_ID = (1 << 32) - 2   # -1 means "leave as it is" to chown(2)
_MOST_OPEN = 512              # directories held open at a time
# Private words of the host's own layers: what an archive says in them would be obeyed by the kernel.
_PRIVATE_XATTRS = ("trusted.overlay.", "user.overlay.", "security.selinux")
# The reasons that the archive itself gives, as against those of this machine (a full disk, a missing right).
_ARCHIVES_FAULT = frozenset((errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG, errno.ELOOP, errno.EXDEV, errno.ENOTDIR,
                             errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ENOTEMPTY, errno.ERANGE, errno.E2BIG,
                             errno.EOVERFLOW))


def unpack(stream: tar.Stream, target: int, below: Sequence[int] = (),
           owners: Callable[[int, int], tuple[int, int]] | None = None) -> int:
    """Unpack the layer in `stream` into the empty directory open as `target`; return the bytes of its regular files.

    `below`: descriptors of the unpacked layers under it, the topmost first. Needs root, be it of a user namespace
    (chapter 07): then `owners` says which owner a file can have there, and device nodes, which nobody can make or use
    there, are left out. The stream is read to the end
    of the archive, not further. Raises BadInputError for what the archive does wrong, KernelError for what the machine
    cannot do; then `target` holds a part of the layer and is to be thrown away.
    """
    before = os.umask(0)
    unpacker = _Unpacker(target, below, owners)
    entry = None
    try:
        reader = tar.Reader(stream)
        for entry in reader:
            unpacker.add(entry, reader)
        entry = None
        unpacker.finish()
    except OSError as error:
        name = f"'{show(entry.name)}'" if entry else "its directories"
        if error.errno in _ARCHIVES_FAULT:
            raise BadInputError(f"the layer cannot be unpacked at {name}: {error.strerror}") from None
        raise KernelError.of(f"unpacking {name} of a layer", error) from None
    except OverflowError:
        raise BadInputError(f"'{show(entry.name) if entry else '/'}' in the layer has a size or time beyond any clock "
                            "or disk") from None
    finally:
        unpacker.close()
        os.umask(before)
    return unpacker.size


def show(name: bytes) -> str:
    """A name of an archive in a form that is safe on a terminal, cut to a readable length."""
    text = name[:200].decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def split(name: bytes) -> list[bytes]:
    """The parts of an archive's name, without the leading slash and `.`. Raises BadInputError for `..`."""
    parts = [part for part in name.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise BadInputError(f"the archive names '{show(name)}', which leads out of it")
    return parts


class _Attributes:
    """What a directory gets at the end."""

    __slots__ = ("gid", "mode", "mtime", "uid", "xattrs")

    def __init__(self, mode: int, uid: int, gid: int, mtime: int, xattrs: dict[str, bytes] | None) -> None:
        self.mode, self.uid, self.gid, self.mtime, self.xattrs = mode, uid, gid, mtime, xattrs


class _Unpacker:
    def __init__(self, root: int, below: Sequence[int],
                 owners: Callable[[int, int], tuple[int, int]] | None = None) -> None:
        self.root, self.below, self.owners = root, below, owners
        self.size = 0
        self._open: dict[bytes, int] = {b"": root}         # directories at hand: path -> descriptor
        self._directories: dict[bytes, _Attributes] = {}   # what to give each directory at the end
        self._whiteouts: set[bytes] = set()
        self._opaque_root = False
        self._make = {
            tar.REGULAR: self._regular, tar.DIRECTORY: self._directory, tar.SYMLINK: self._symlink,
            tar.HARD_LINK: self._hard_link, tar.CHARACTER: self._node, tar.BLOCK_DEVICE: self._node,
            tar.FIFO: self._node,
        }
        self._directories[b""] = self._attributes_below(b"")

    def close(self) -> None:
        """Close the directories at hand."""
        for path, descriptor in self._open.items():
            if path:
                os.close(descriptor)
        self._open = {b"": self.root}

    def add(self, entry: tar.Entry, reader: tar.Reader) -> None:
        """Make one file."""
        if len(self._open) > _MOST_OPEN:
            self.close()
        parts = split(entry.name)
        make = self._make.get(entry.kind)
        if make is None:
            raise BadInputError(f"'{show(entry.name)}' in the layer is of an unknown type, {entry.kind!r}")
        if not (0 <= entry.uid <= _HIGHEST_ID and 0 <= entry.gid <= _HIGHEST_ID):
            raise BadInputError(f"'{show(entry.name)}' in the layer has an impossible owner, {entry.uid}:{entry.gid}")
        if self.owners:
            entry.uid, entry.gid = self.owners(entry.uid, entry.gid)
        if not parts:
            if entry.kind != tar.DIRECTORY:
                raise BadInputError("the layer would put a file in the place of its own root")
            self._directories[b""] = _attributes(entry)
            return
        base = parts.pop()
        parent = b"/".join(parts)
        directory = self._parent(parent)
        if base.startswith(WHITEOUT):
            self._whiteout(parent, directory, base)
        else:
            make(entry, directory, base, parent + b"/" + base if parent else base, reader)

    # -- one function per type of file ------------------------------------------------------------------------------

    def _regular(self, entry: tar.Entry, directory: int, base: bytes, path: bytes, reader: tar.Reader) -> None:
        plain = entry.uid == 0 and entry.gid == 0
        mode = entry.mode if plain else 0o600
        try:
            descriptor = os.open(base, _CREATE, mode, dir_fd=directory)
        except FileExistsError:
            self._remove(directory, base, path)
            descriptor = os.open(base, _CREATE, mode, dir_fd=directory)
        try:
            if entry.parts is None:
                while piece := reader.take():
                    while piece:
                        piece = piece[os.write(descriptor, piece):]
            else:
                _write_sparse(descriptor, entry, reader)
            if not plain:
                os.fchown(descriptor, entry.uid, entry.gid)
                os.fchmod(descriptor, entry.mode)
            if entry.xattrs:
                _set_xattrs(descriptor, entry.xattrs)
            os.utime(descriptor, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(descriptor)
        self.size += entry.size

    def _directory(self, entry: tar.Entry, directory: int, base: bytes, path: bytes, reader: tar.Reader) -> None:
        try:
            os.mkdir(base, 0o700, dir_fd=directory)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(base, dir_fd=directory, follow_symlinks=False).st_mode):
                hides = path in self._whiteouts
                self._remove(directory, base, path)
                os.mkdir(base, 0o700, dir_fd=directory)
                if hides:
                    self._hide_below(directory, base)
        self._directories[path] = _attributes(entry)

    def _symlink(self, entry: tar.Entry, directory: int, base: bytes, path: bytes, reader: tar.Reader) -> None:
        try:
            os.symlink(entry.link, base, dir_fd=directory)
        except FileExistsError:
            self._remove(directory, base, path)
            os.symlink(entry.link, base, dir_fd=directory)
        self._dress(entry, directory, base)

    def _node(self, entry: tar.Entry, directory: int, base: bytes, path: bytes, reader: tar.Reader) -> None:
        kind = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}[entry.kind]
        major, minor = entry.device
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise BadInputError(f"'{show(entry.name)}' in the layer is an impossible device, {major}:{minor}")
        if self.owners and kind != stat.S_IFIFO:
            return
        device = os.makedev(major, minor)
        try:
            os.mknod(base, kind | entry.mode, device, dir_fd=directory)
        except FileExistsError:
            self._remove(directory, base, path)
            os.mknod(base, kind | entry.mode, device, dir_fd=directory)
        self._dress(entry, directory, base)

    def _hard_link(self, entry: tar.Entry, directory: int, base: bytes, path: bytes, reader: tar.Reader) -> None:
        *parts, name = split(entry.link) or [b""]
        target = b"/".join([*parts, name])
        if target == path:
            raise BadInputError(f"'{show(entry.name)}' in the layer is a hard link to itself")
        try:
            source = self._parent(b"/".join(parts), make=False)
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) or target in self._whiteouts:
                raise FileNotFoundError
        except OSError:
            raise BadInputError(f"'{show(entry.name)}' in the layer is a hard link to '{show(entry.link)}', "
                                "which is no file of this layer") from None
        try:
            os.link(name, base, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            self._remove(directory, base, path)
            os.link(name, base, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

    def _dress(self, entry: tar.Entry, directory: int, base: bytes) -> None:
        """Owner, attributes and time of something that cannot be opened: by its name, never following it."""
        if entry.uid or entry.gid:
            os.chown(base, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
            if entry.kind != tar.SYMLINK and entry.mode & 0o6000:
                os.chmod(base, entry.mode, dir_fd=directory)
        if entry.xattrs:
            _set_xattrs(b"/proc/self/fd/%d/%s" % (directory, base), entry.xattrs)
        os.utime(base, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)

    # -- whiteouts --------------------------------------------------------------------------------------------------

    def _whiteout(self, parent: bytes, directory: int, base: bytes) -> None:
        """`.wh.NAME`: NAME of the layers below is gone. What this layer itself has at that place stays."""
        if not self.below:
            return  # the lowest layer: nothing to hide
        if base == OPAQUE:
            if parent:
                self._hide_below(directory, b".")
            else:
                self._opaque_root = True
            return
        name = base[len(WHITEOUT):]
        if base.startswith(AUFS):
            return
        if name in (b"", b".", b".."):
            raise BadInputError(f"the layer removes '{show(name)}', which is no name")
        try:
            overlay.make_whiteout(directory, os.fsdecode(name))
            self._whiteouts.add(parent + b"/" + name if parent else name)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                self._hide_below(directory, name)

    def _hide_below(self, directory: int, base: bytes) -> None:
        """Mark the directory `base` opaque."""
        descriptor = os.open(base, _DIRECTORY, dir_fd=directory)
        try:
            if self.owners:
                os.setxattr(descriptor, overlay.USER_OPAQUE, b"y")
            else:
                overlay.make_opaque(descriptor)
        finally:
            os.close(descriptor)

    def _hide_all(self) -> None:
        """An opaque root: the kernel does not look for the mark there, so every name below is hidden by itself."""
        for layer in self.below:
            for name in os.listdir(layer):
                try:
                    overlay.make_whiteout(self.root, name)
                except FileExistsError:
                    if stat.S_ISDIR(os.stat(name, dir_fd=self.root, follow_symlinks=False).st_mode):
                        self._hide_below(self.root, os.fsencode(name))

    # -- directories ------------------------------------------------------------------------------------------------

    def _parent(self, path: bytes, make: bool = True) -> int:
        """A descriptor of the directory `path` of the layer; with `make`, what is missing of it is made."""
        descriptor = self._open.get(path)
        if descriptor is not None:
            return descriptor
        try:
            descriptor = paths.open_beneath(self.root, path, _PLACE)
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.ELOOP):
                raise BadInputError(f"the layer writes below '{show(path)}', "
                                    "where a symbolic link leads out of the layer") from None
            if not make or error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            descriptor = self._make_directories(path)
        self._open[path] = descriptor
        return descriptor

    def _make_directories(self, path: bytes) -> int:
        """Make the directories that the archive leaves out, as they are in the layers below; return the last one."""
        missing = [path]
        while True:  # up to the first that is there; a loop, since a stranger's path may have two thousand parts
            above = missing[-1].rpartition(b"/")[0]
            try:
                here = paths.open_beneath(self.root, above or b".", _PLACE)
                break
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR) or not above:
                    raise
                missing.append(above)
        for each in reversed(missing):
            base = each.rpartition(b"/")[2]
            try:
                hides = each in self._whiteouts
                if hides:
                    self._remove(here, base, each)
                os.mkdir(base, 0o700, dir_fd=here)
                if hides:
                    self._hide_below(here, base)
                self._directories[each] = self._attributes_below(each)
                after = os.open(base, _PLACE | os.O_NOFOLLOW, dir_fd=here)
            finally:
                os.close(here)
            here = after
        return here

    def _attributes_below(self, path: bytes) -> _Attributes:
        """Owner, mode, time and attributes of the directory `path` in the topmost layer below that has it."""
        for layer in self.below:
            try:
                descriptor = paths.open_beneath(layer, path or b".", _DIRECTORY)
            except FileNotFoundError:
                continue
            except OSError:
                break  # a file, a whiteout or a link there: no directory shines through
            try:
                status = os.fstat(descriptor)
                xattrs = {name: os.getxattr(descriptor, name) for name in os.listxattr(descriptor)
                          if not name.startswith(_PRIVATE_XATTRS)}
            finally:
                os.close(descriptor)
            return _Attributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, xattrs)
        return _Attributes(0o755, 0, 0, 0, None)

    def finish(self) -> None:
        """Give the directories what the archive says of them, the deepest first."""
        if self._opaque_root:
            self._hide_all()
        for path in sorted(self._directories, reverse=True):
            last = self._directories[path]
            try:
                descriptor = paths.open_beneath(self.root, path or b".", _DIRECTORY)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
                    continue  # a later entry took its place
                raise
            try:
                os.fchown(descriptor, last.uid, last.gid)
                os.fchmod(descriptor, last.mode)
                if last.xattrs:
                    _set_xattrs(descriptor, last.xattrs)
                os.utime(descriptor, ns=(last.mtime, last.mtime))
            finally:
                os.close(descriptor)

    def _remove(self, directory: int, base: bytes, path: bytes) -> None:
        """Take away what an earlier entry put at `path`: of two entries with one name the later counts."""
        self._whiteouts.discard(path)
        try:
            os.unlink(base, dir_fd=directory)
        except IsADirectoryError:
            below = path + b"/"
            for each in [each for each in self._open if each == path or each.startswith(below)]:
                os.close(self._open.pop(each))
            for each in [each for each in self._directories if each == path or each.startswith(below)]:
                del self._directories[each]
            self._whiteouts = {each for each in self._whiteouts if not each.startswith(below)}
            remove_tree(directory, base)


def _attributes(entry: tar.Entry) -> _Attributes:
    return _Attributes(entry.mode, entry.uid, entry.gid, entry.mtime, entry.xattrs)


def _write_sparse(descriptor: int, entry: tar.Entry, reader: tar.Reader) -> None:
    """Write the parts that are stored where they belong; what lies between stays a hole."""
    os.ftruncate(descriptor, entry.size)
    for offset, length in entry.parts or ():
        for piece in reader.pieces(length):
            while piece:
                written = os.pwrite(descriptor, piece, offset)
                piece, offset = piece[written:], offset + written


def _set_xattrs(target: int | bytes, xattrs: dict[str, bytes]) -> None:
    """Set extended attributes of an open file, or of the file at a path, which is not followed.

    An attribute that this kind of file or file system cannot have is left out, as Docker does.
    """
    for name, value in xattrs.items():
        if name.startswith(_PRIVATE_XATTRS):
            continue
        try:
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise


def remove_tree(directory: int, name: str | bytes) -> None:
    """Remove `name` in the directory open as `directory`, with all below it, however deep; nothing happens if it is
    missing. A symlink is removed, not followed. Raises OSError. Sources: unlinkat(2), rmdir(2).

    A stranger's tree may be deeper than Python's recursion and longer than a path may be: so this walks down by
    descriptor, one at a time, and up by `..`, which nobody can move, since nobody else may enter an unpacked layer.
    """
    try:
        os.unlink(name, dir_fd=directory)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    here = os.open(name, _DIRECTORY, dir_fd=directory)
    trail: list[tuple[str | bytes, list[str]]] = [(name, _unlink_files(here))]
    try:
        while trail:
            if trail[-1][1]:
                deeper = trail[-1][1].pop()
                after = os.open(deeper, _DIRECTORY, dir_fd=here)
                trail.append((deeper, _unlink_files(after)))
            else:
                after = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
                os.rmdir(trail.pop()[0], dir_fd=after)
            os.close(here)
            here = after
    finally:
        os.close(here)


def _unlink_files(directory: int) -> list[str]:
    """Unlink everything in an open directory but its directories; return their names."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in found if is_directory]

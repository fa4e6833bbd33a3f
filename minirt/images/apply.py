"""Chapter 13: applying a layer: its entries become files in a directory.

The archive's form is made for transport. Unpacked, a layer takes the form that OverlayFS reads (chapter 09): a whiteout
becomes a character device 0:0, an opaque directory gets an extended attribute.

Rules of the room:

- **The archive is hostile until proven otherwise.** A name never leads out of the layer: the directory of each file is
  opened with openat2(RESOLVE_BENEATH) (chapter 04) and everything happens at that descriptor, with O_EXCL and without
  following a symlink.
- **Directories get owner, mode and time last.** Each file made in a directory changes the directory's time; a read-only
  one would refuse its files, a setgid one give them a foreign group.
- Owner before mode before extended attributes: a change of owner takes setuid bits and capabilities away (chown(2)).
- A directory that the archive leaves out (a/b/c without a/b) is copied from the layers below, as OverlayFS would do on
  a change: else a layer that changes /tmp/x would take away the mode of /tmp.

Sources: OCI image-spec layer.md "Applying Changesets", openat2(2), mknod(2), utimensat(2), xattr(7), overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
import stat

from minirt import overlay
from minirt.errors import BadInputError
from minirt.images import changeset
from minirt.images.changeset import Entry, show, split
from minirt.kernel import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = {changeset.CHARACTER: stat.S_IFCHR, changeset.BLOCK_DEVICE: stat.S_IFBLK, changeset.FIFO: stat.S_IFIFO}
_HIGHEST_ID = (1 << 32) - 2   # -1 means "leave as it is" to chown(2)
_MOST_OPEN = 512              # directories held open at a time


class Layer:
    """A layer on its way into the empty directory open as `root`: `add` each entry, then `finish`, and `close` always.

    `fill(entry, descriptor)` writes the content of a regular file. `below`: descriptors of the unpacked layers under
    it, the topmost first, of which only `finish` reads. `owners`: in a user namespace (chapter 07), which owner a file
    can have there; device nodes, which nobody can make there, are then left out. Needs root, be it of a user namespace,
    and a umask of 0. Raises BadInputError for what no layer may say, OSError for the rest.
    """

    def __init__(self, root: int, fill: Callable[[Entry, int], None], below: Iterable[int] = (),
                 owners: Callable[[int, int], tuple[int, int]] | None = None) -> None:
        self.root, self.fill, self.below, self.owners = root, fill, below, owners
        self.size = 0                                 # bytes of regular files
        self._open: dict[bytes, int] = {b"": root}    # directories at hand: path -> descriptor
        self._whiteouts: set[bytes] = set()
        self._opaque_root = False
        self._directories: dict[bytes, Entry | None] = {b"": None}  # what to give each at the end; None: as it is below

    def add(self, entry: Entry) -> None:
        """Make true what one entry says."""
        if len(self._open) > _MOST_OPEN:
            self.close()
        make = _MAKERS.get(entry.kind)
        if make is None:
            raise BadInputError(f"'{show(entry.name)}' in the layer is of an unknown type, {entry.kind!r}")
        if not (0 <= entry.uid <= _HIGHEST_ID and 0 <= entry.gid <= _HIGHEST_ID):
            raise BadInputError(f"'{show(entry.name)}' in the layer has an impossible owner, {entry.uid}:{entry.gid}")
        if self.owners:
            entry.uid, entry.gid = self.owners(entry.uid, entry.gid)
        parts = split(entry.name)
        if not parts:
            if entry.kind != changeset.DIRECTORY:
                raise BadInputError("the layer would put a file in the place of its own root")
            self._directories[b""] = entry
            return
        base = parts.pop()
        parent = b"/".join(parts)
        directory = self._parent(parent)
        said, name = changeset.meaning(base)
        path = parent + b"/" + name if parent else name
        if said == changeset.PRESENT:
            make(self, entry, directory, base, path)
        elif self.below:  # under the lowest layer there is nothing to hide
            self._hide(said, directory, name, path)

    # -- whiteouts --------------------------------------------------------------------------------------------------

    def _hide(self, said: str, directory: int, name: bytes, path: bytes) -> None:
        """GONE or ANEW: something of the layers below is hidden. What this layer itself has at that place stays."""
        if said == changeset.GONE:
            try:
                overlay.make_whiteout(directory, os.fsdecode(name))
                self._whiteouts.add(path)
            except FileExistsError:
                if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                    self._hide_below(directory, name)
        elif said == changeset.ANEW and path.strip(b"/"):
            self._hide_below(directory, b".")
        elif said == changeset.ANEW:
            self._opaque_root = True

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

    # -- one function per type of file ------------------------------------------------------------------------------

    def _regular(self, entry: Entry, directory: int, base: bytes, path: bytes) -> None:
        plain = entry.uid == 0 and entry.gid == 0
        descriptor = self._new(
            lambda: os.open(base, _CREATE, entry.mode if plain else 0o600, dir_fd=directory), directory, base, path)
        try:
            self.fill(entry, descriptor)
            if not plain:
                os.fchown(descriptor, entry.uid, entry.gid)
                os.fchmod(descriptor, entry.mode)
            if entry.xattrs:
                _set_xattrs(descriptor, entry.xattrs)
            os.utime(descriptor, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(descriptor)
        self.size += entry.size

    def _directory(self, entry: Entry, directory: int, base: bytes, path: bytes) -> None:
        try:
            os.mkdir(base, 0o700, dir_fd=directory)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(base, dir_fd=directory, follow_symlinks=False).st_mode):
                hides = path in self._whiteouts
                self._remove(directory, base, path)
                os.mkdir(base, 0o700, dir_fd=directory)
                if hides:
                    self._hide_below(directory, base)
        self._directories[path] = entry

    def _symlink(self, entry: Entry, directory: int, base: bytes, path: bytes) -> None:
        self._new(lambda: os.symlink(entry.link, base, dir_fd=directory), directory, base, path)
        self._dress(entry, directory, base)

    def _node(self, entry: Entry, directory: int, base: bytes, path: bytes) -> None:
        major, minor = entry.device
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise BadInputError(f"'{show(entry.name)}' in the layer is an impossible device, {major}:{minor}")
        if self.owners and entry.kind != changeset.FIFO:
            return
        mode, device = _NODES[entry.kind] | entry.mode, os.makedev(major, minor)
        self._new(lambda: os.mknod(base, mode, device, dir_fd=directory), directory, base, path)
        self._dress(entry, directory, base)

    def _hard_link(self, entry: Entry, directory: int, base: bytes, path: bytes) -> None:
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
        self._new(lambda: os.link(name, base, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False),
                  directory, base, path)

    def _dress(self, entry: Entry, directory: int, base: bytes) -> None:
        """Owner, attributes and time of something that cannot be opened: by its name, never following it."""
        if entry.uid or entry.gid:
            os.chown(base, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
            if entry.kind != changeset.SYMLINK and entry.mode & 0o6000:
                os.chmod(base, entry.mode, dir_fd=directory)
        if entry.xattrs:
            _set_xattrs(b"/proc/self/fd/%d/%s" % (directory, base), entry.xattrs)
        os.utime(base, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)

    def _new(self, make: Callable[[], int | None], directory: int, base: bytes, path: bytes) -> int:
        """What `make` returns; if an earlier entry has its name, that one goes: of two entries the later counts."""
        try:
            return make() or 0
        except FileExistsError:
            self._remove(directory, base, path)
            return make() or 0

    def _remove(self, directory: int, base: bytes, path: bytes) -> None:
        """Take away what an earlier entry put at `path`."""
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
            paths.remove_tree(directory, base)

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
                self._directories[each] = None
                after = os.open(base, _PLACE | os.O_NOFOLLOW, dir_fd=here)
            finally:
                os.close(here)
            here = after
        return here

    def _below(self, path: bytes) -> Entry:
        """What the topmost layer below that has the directory `path` says of it."""
        found = Entry(path, changeset.DIRECTORY, 0o755)
        for layer in self.below:
            try:
                descriptor = paths.open_beneath(layer, path or b".", _DIRECTORY)
            except FileNotFoundError:
                continue
            except OSError:
                break  # a file, a whiteout or a link there: no directory shines through
            try:
                status = os.fstat(descriptor)
                found.mode, found.mtime = stat.S_IMODE(status.st_mode), status.st_mtime_ns
                found.uid, found.gid = status.st_uid, status.st_gid
                found.xattrs = {name: os.getxattr(descriptor, name) for name in os.listxattr(descriptor)
                                if not name.startswith(changeset.PRIVATE_XATTRS)}
            finally:
                os.close(descriptor)
            break
        return found

    def finish(self) -> None:
        """Give the directories what the archive says of them, the deepest first."""
        if self._opaque_root:
            self._hide_all()
        for path in sorted(self._directories, reverse=True):
            entry = self._directories[path] or self._below(path)
            try:
                descriptor = paths.open_beneath(self.root, path or b".", _DIRECTORY)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
                    continue  # a later entry took its place
                raise
            try:
                os.fchown(descriptor, entry.uid, entry.gid)
                os.fchmod(descriptor, entry.mode)
                if entry.xattrs:
                    _set_xattrs(descriptor, entry.xattrs)
                os.utime(descriptor, ns=(entry.mtime, entry.mtime))
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Close the directories at hand."""
        for path, descriptor in self._open.items():
            if path:
                os.close(descriptor)
        self._open = {b"": self.root}


_MAKERS = {
    changeset.REGULAR: Layer._regular, changeset.DIRECTORY: Layer._directory, changeset.SYMLINK: Layer._symlink,
    changeset.HARD_LINK: Layer._hard_link, **{kind: Layer._node for kind in _NODES},
}


def _set_xattrs(target: int | bytes, xattrs: dict[str, bytes]) -> None:
    """Set extended attributes of an open file, or of the file at a path, which is not followed.

    An attribute that this kind of file or file system cannot have is left out, as Docker does.
    """
    for name, value in xattrs.items():
        if name.startswith(changeset.PRIVATE_XATTRS):
            continue
        try:
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise

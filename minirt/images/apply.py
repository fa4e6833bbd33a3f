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
_TYPES = {changeset.CHARACTER: stat.S_IFCHR, changeset.BLOCK_DEVICE: stat.S_IFBLK, changeset.FIFO: stat.S_IFIFO}
_MOST_OPEN = 512  # directories held open at a time


class Layer:
    """A layer on its way into the empty directory open as `root`: `add` each entry, then `finish`, and `close` always.

    `fill(entry, descriptor)` writes the content of a regular file. `below`: descriptors of the unpacked layers under
    it, the topmost first, which are only read. `rootless`: in a user namespace (chapter 07), where the mark of an
    opaque directory is another one. Needs root, be it of a user namespace, and a umask of 0. Raises BadInputError for
    what no layer may say, OSError for the rest.
    """

    def __init__(self, root: int, fill: Callable[[Entry, int], None], below: Iterable[int] = (),
                 rootless: bool = False) -> None:
        self.root, self.fill, self.below, self.rootless = root, fill, list(below), rootless
        self._open: dict[bytes, int] = {}           # directories at hand: path -> descriptor
        self._whiteouts: set[bytes] = set()         # the paths that this layer hides
        self._directories: dict[bytes, Entry | None] = {b"": None}  # what to give each at the end; None: as it is below

    def add(self, entry: Entry) -> None:
        """Make true what one entry says."""
        if len(self._open) > _MOST_OPEN:
            self.close()
        *parts, base = split(entry.name) or [b"."]
        if base == b"." and entry.kind != changeset.DIRECTORY:
            raise BadInputError("the layer would put a file in the place of its own root")
        if base == b".":
            self._directories[b""] = entry
            return
        parent = b"/".join(parts)
        directory = self._parent(parent)
        said, name = changeset.meaning(base)
        if said == changeset.PRESENT:
            self._put(entry, directory, base, _join(parent, base))
        elif said == changeset.GONE and self.below:  # under the lowest layer there is nothing to hide
            self._hide(directory, name, _join(parent, name))
        elif said == changeset.ANEW and self.below:
            self._hide_all(directory, parent)

    # -- what is there ----------------------------------------------------------------------------------------------

    def _put(self, entry: Entry, directory: int, base: bytes, path: bytes) -> None:
        """Make a file of any kind, in place of what is there: of two entries the later counts."""
        try:
            self._make(entry, directory, base)
        except FileExistsError:
            if entry.kind != changeset.DIRECTORY or not _is_directory(directory, base):
                hides = path in self._whiteouts
                self._remove(directory, base, path)
                self._make(entry, directory, base)
                if hides and entry.kind == changeset.DIRECTORY:
                    self._make_opaque(directory, base)
        if entry.kind == changeset.DIRECTORY:
            self._directories[path] = entry
        elif entry.kind != changeset.HARD_LINK:
            _dress(entry, directory, base)

    def _make(self, entry: Entry, directory: int, base: bytes) -> None:
        """Make a file where there is none. Raises FileExistsError where there is one."""
        if entry.kind == changeset.REGULAR:
            descriptor = os.open(base, _CREATE, 0o600, dir_fd=directory)
            try:
                self.fill(entry, descriptor)
            finally:
                os.close(descriptor)
        elif entry.kind == changeset.DIRECTORY:
            os.mkdir(base, 0o700, dir_fd=directory)
        elif entry.kind == changeset.SYMLINK:
            os.symlink(entry.link, base, dir_fd=directory)
        elif entry.kind == changeset.HARD_LINK:
            self._link(entry, directory, base)
        else:
            os.mknod(base, _TYPES[entry.kind] | 0o600, os.makedev(*entry.device), dir_fd=directory)

    def _link(self, entry: Entry, directory: int, base: bytes) -> None:
        """A second name for a file of this layer, and of no other place."""
        *parts, name = split(entry.link) or [b"."]
        parent = b"/".join(parts)
        source = self._parent(parent)
        try:
            if _join(parent, name) in self._whiteouts:
                raise FileNotFoundError
            os.link(name, base, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        except (FileNotFoundError, PermissionError):
            raise BadInputError(f"'{show(entry.name)}' in the layer is a hard link to '{show(entry.link)}', "
                                "which is no file of this layer") from None

    def _remove(self, directory: int, base: bytes, path: bytes) -> None:
        """Take away what an earlier entry put at `path`, and forget what is known of it."""
        self._whiteouts.discard(path)
        if _is_directory(directory, base):
            for each in [each for each in self._open if _is_in(each, path)]:
                os.close(self._open.pop(each))
            self._directories = {each: is_ for each, is_ in self._directories.items() if not _is_in(each, path)}
            self._whiteouts = {each for each in self._whiteouts if not _is_in(each, path)}
        paths.remove_tree(directory, base)

    # -- what is gone -----------------------------------------------------------------------------------------------

    def _hide(self, directory: int, name: bytes, path: bytes) -> None:
        """Hide a name of the layers below. What this layer itself has at that place stays."""
        try:
            overlay.make_whiteout(directory, os.fsdecode(name))
            self._whiteouts.add(path)
        except FileExistsError:
            if _is_directory(directory, name):
                self._make_opaque(directory, name)

    def _hide_all(self, directory: int, path: bytes) -> None:
        """Hide all that the layers below have in a directory."""
        if path:
            self._make_opaque(directory, b".")
            return
        for layer in self.below:  # the kernel does not look for the mark at the root
            for name in os.listdir(layer):
                self._hide(directory, os.fsencode(name), os.fsencode(name))

    def _make_opaque(self, directory: int, base: bytes) -> None:
        descriptor = os.open(base, _DIRECTORY, dir_fd=directory)
        try:
            if self.rootless:
                os.setxattr(descriptor, overlay.USER_OPAQUE, b"y")
            else:
                overlay.make_opaque(descriptor)
        finally:
            os.close(descriptor)

    # -- directories ------------------------------------------------------------------------------------------------

    def _parent(self, path: bytes) -> int:
        """A descriptor of the directory `path` of the layer. What the archive left out of it is made."""
        if path in self._open:
            return self._open[path]
        here, missing = path, []
        while True:  # up to the first that is there; a loop, since a stranger's path may have two thousand parts
            try:
                descriptor = paths.open_beneath(self.root, here or b".", _PLACE)
                break
            except OSError as error:
                if error.errno in (errno.EXDEV, errno.ELOOP):
                    raise BadInputError(f"the layer writes below '{show(path)}', "
                                        "where a symbolic link leads out of the layer") from None
                if error.errno not in (errno.ENOENT, errno.ENOTDIR) or not here:
                    raise
                here, _, base = here.rpartition(b"/")
                missing.append(base)
        for base in reversed(missing):  # and down again
            above, here = descriptor, _join(here, base)
            try:
                if here in self._whiteouts:
                    self._put(Entry(here, changeset.DIRECTORY), above, base, here)
                else:
                    os.mkdir(base, 0o700, dir_fd=above)
                self._directories[here] = None
                descriptor = os.open(base, _PLACE | os.O_NOFOLLOW, dir_fd=above)
            finally:
                os.close(above)
        self._open[path] = descriptor
        return descriptor

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
                found.xattrs = {name: os.getxattr(descriptor, name) for name in os.listxattr(descriptor)}
            finally:
                os.close(descriptor)
            break
        return found

    def finish(self) -> None:
        """Give the directories what the archive says of them, the deepest first."""
        for path in sorted(self._directories, reverse=True):
            try:
                descriptor = paths.open_beneath(self.root, path or b".", _DIRECTORY)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
                    continue  # a later entry took its place
                raise
            try:
                _dress(self._directories[path] or self._below(path), descriptor, b".")
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Close the directories at hand."""
        while self._open:
            os.close(self._open.popitem()[1])


def _join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


def _is_in(path: bytes, directory: bytes) -> bool:
    return path == directory or path.startswith(directory + b"/")


def _is_directory(directory: int, name: bytes) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _dress(entry: Entry, directory: int, base: bytes) -> None:
    """Give what stands at `base` in an open directory its owner, mode, attributes and time.

    An attribute that this kind of file or file system cannot have is left out, as Docker does.
    """
    os.chown(base, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
    if entry.kind != changeset.SYMLINK:  # a link has no mode: chmod(2) would follow it
        os.chmod(base, entry.mode, dir_fd=directory)
    for name, value in (entry.xattrs or {}).items():
        if not name.startswith(changeset.PRIVATE_XATTRS):
            try:
                os.setxattr(b"/proc/self/fd/%d/%s" % (directory, base), name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise
    os.utime(base, ns=(entry.mtime, entry.mtime), dir_fd=directory, follow_symlinks=False)

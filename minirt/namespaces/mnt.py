"""Chapter 04: a root directory of one's own.

The tree of files that a process sees is put together from mounts, and the list of mounts belongs to a mount namespace.
A new one begins as a copy of the old. So a container's root is made in four steps:

1. `enter`: a copy of the list, cut off from the machine's (a copied mount still *propagates*, unless made private);
2. something to be the root: an overlay (chapter 09) or a directory bound onto itself, since a root must be a mount;
3. what programs expect in it: /proc, /sys, a small /dev; over some files of /proc and /sys a mask;
4. `pivot`: that mount becomes `/`, and the old root is detached, so that there is nothing left to climb back to
   (chroot(2) only changes where `/` points, and leaves everything else reachable).

Rules of the room: mounts are *made* first (a descriptor) and then *attached* to a place that was opened with
`paths.open_in_root`, never by a path that the container's own files could bend. What to mount is data: entries in the
form of the OCI runtime specification, section "mounts".

Manual pages: mount_namespaces(7), mount(2), pivot_root(2), mknod(2), proc(5).
"""

from __future__ import annotations

import os
import stat

from minirt import trace
from minirt.errors import KernelError, UsageError
from minirt.kernel import mount, paths, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

CHAPTER = 4

CLONE_NEWNS = 0x00020000  # <linux/sched.h>: the first namespace, hence the name that says nothing

# What runc gives every container in /dev: path, kind, major, minor, mode (OCI runtime-spec, "Default Devices").
DEVICES = (
    ("/dev/null", "c", 1, 3, 0o666),
    ("/dev/zero", "c", 1, 5, 0o666),
    ("/dev/full", "c", 1, 7, 0o666),
    ("/dev/random", "c", 1, 8, 0o666),
    ("/dev/urandom", "c", 1, 9, 0o666),
    ("/dev/tty", "c", 5, 0, 0o666),
)
LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"), ("ptmx", "pts/ptmx"),
)
# What Docker hides of the machine's /proc and /sys, and what of it may be read only.
MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@trace.narrated(CHAPTER, "enter a mount namespace of its own, and stop sharing mounts with the machine",
                "unshare(CLONE_NEWNS); mount(NULL, \"/\", MS_REC|MS_PRIVATE)")
def enter() -> None:
    """Move this process into a new mount namespace whose mounts do not propagate.

    The copy still belongs to the same *peer groups*: on most machines `/` is shared, so what is mounted on one side
    appears on the other. Make every mount private, recursively (`syscalls.mount` with "/" as target, MS_REC and
    MS_PRIVATE, no source and no type), after `syscalls.unshare(CLONE_NEWNS)`. Raises OSError.
    Sources: mount_namespaces(7) "SHARED SUBTREES", mount(2).
    """
    syscalls.unshare(CLONE_NEWNS)
    syscalls.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)


@trace.narrated(CHAPTER, "make {directory} a mount, so that it can become the root", "open_tree(); move_mount()")
def bind_root(directory: str, tree: int = -1) -> int:
    """Make `directory` a mount, since pivot_root(2) takes nothing else: bind it onto itself, with all that is mounted
    below it, or put the detached mount `tree` there. Return a descriptor of its top. Raises OSError. open_tree(2)."""
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    root = tree if tree >= 0 else mount.clone("", place, recursive=True)
    mount.move_mount(root, place)
    os.close(place)
    return root


@trace.narrated(CHAPTER, "clone {source} for a bind mount", "open_tree({source!r}, OPEN_TREE_CLONE)")
def bind(source: str, options: Iterable[str] = ("rbind", "rprivate")) -> int:
    """Make a bind mount: the file or directory `source` of the caller's own tree, as a detached mount; its descriptor.

    `options` are words of mount(8): "rbind" takes along what is mounted below, "bind" does not; "ro", "nosuid", ...
    are attributes; "private", "slave", "shared", with an "r" in front for all mounts below, say how later mounts
    spread. Must be called before `enter` has cut the propagation, or "slave" and "shared" have nothing to hold on to.
    Raises OSError, UsageError for an unknown word. Sources: open_tree(2), mount_setattr(2).
    """
    words = [word for word in options if word not in ("bind", "rbind")]
    recursive = "rbind" in options
    tree = mount.clone(source, recursive=recursive)
    spread = [word for word in words if word.removeprefix("r") in mount.PROPAGATION]
    try:
        add, remove = mount.attribute_bits(word for word in words if word not in spread)
    except KeyError as error:
        raise UsageError(f"unknown mount option {error.args[0]!r}") from None
    mount.mount_setattr(tree, add, remove, recursive=recursive)
    for word in spread or ["rprivate"]:
        mount.mount_setattr(tree, propagation=mount.PROPAGATION[word.removeprefix("r")], recursive=word[0] == "r")
    return tree


def clone_of(process: str, path: str) -> int:
    """Clone what is mounted at `path` in the mount namespace of the process with the number `process`.

    A mount can be cloned only from within its namespace. So this process goes there, and comes back to a mount
    namespace of its own, which begins here: to the one that it was in an ordinary user may not return. Raises OSError.
    Source: setns(2).
    """
    syscalls.unshare(CLONE_NEWNS)
    own, other = [os.open(f"/proc/{who}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC) for who in ("self", process)]
    syscalls.setns(other, CLONE_NEWNS)
    try:
        return mount.clone(path)
    finally:
        syscalls.setns(own, CLONE_NEWNS)
        os.close(own)
        os.close(other)


@trace.narrated(CHAPTER, "clone the /proc that shows the processes of {path}",
                "setns(); open_tree('/proc', OPEN_TREE_CLONE)")
def bind_proc(path: str) -> int:
    """Clone, from the mount namespace of process PID, the /proc that shows the pid namespace `path`, /proc/PID/ns/pid.

    A new one would show the numbers of whoever mounts it. This process is not in that namespace, and shall not be while
    it has the machine's rights: `clone_of` goes where there is one. Returns the descriptor of a detached mount. Raises
    OSError, KernelError when what is found there is no /proc of that namespace. Source: proc(5).
    """
    tree = clone_of(path.split("/")[2], "/proc")
    if not os.path.samestat(os.stat(path), os.stat("1/ns/pid", dir_fd=tree)):
        raise KernelError(f"cannot share the processes of {path}: there is no /proc that shows them")
    return tree


def make(entry: dict[str, Any]) -> int:
    """Make the file system that one entry of "mounts" asks for, as a detached mount; return its descriptor.

    `entry` has "type", "source", "options": words that `mount.ATTRIBUTES` knows are attributes of the mount, the rest
    ("mode=755", "newinstance") belongs to the file system. Raises OSError. Source: OCI runtime-spec config.md "Mounts".
    """
    words = entry.get("options", [])
    options = dict(word.split("=", 1) if "=" in word else (word, None)
                   for word in words if word not in mount.ATTRIBUTES)
    return mount.filesystem(entry["type"], options, [word for word in words if word in mount.ATTRIBUTES],
                            source=entry.get("source", ""))


@trace.narrated(CHAPTER, "attach it at {destination}", "move_mount(tree, {destination!r})")
def attach(tree: int, root: int, destination: str) -> None:
    """Attach the detached mount `tree` at `destination` below the directory `root`, and close `tree`.

    The place is made when it is missing: a directory, or an empty file when `tree` is a file (`fstat` and
    `stat.S_ISDIR` tell). It is opened with `paths.make_mount_point`, and `mount.move_mount` goes to that descriptor, so
    no symlink of the image can lead the mount elsewhere; in the end that one is closed, too. Raises OSError. Sources:
    move_mount(2), openat2(2).
    """
    is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
    target = paths.make_mount_point(root, destination, is_directory)
    mount.move_mount(tree, target)
    os.close(target)
    os.close(tree)


@trace.narrated(CHAPTER, "make the device nodes and links of /dev", "mknod(null, zero, full, random, urandom, tty)")
def make_devices(root: int, extra: Iterable[dict[str, Any]] = ()) -> None:
    """Make in the container's /dev the nodes of `DEVICES`, those of `extra`, and the symlinks of `LINKS`.

    A device node is a file with two numbers, by which the kernel finds the driver: mknod(2) needs CAP_MKNOD. `root` is
    the container's root; `extra` are entries of "devices" of the OCI specification (path, type, major, minor,
    fileMode, uid, gid). The umask must not cut the modes. Raises OSError. Source: mknod(2).
    """
    mask = os.umask(0)
    try:
        for path, kind, major, minor, mode in DEVICES:
            make_node(root, path, kind, major, minor, mode)
        for device in extra:
            make_node(root, device["path"], device.get("type", "c"), device["major"], device["minor"],
                      device.get("fileMode", 0o666), device.get("uid", 0), device.get("gid", 0))
    finally:
        os.umask(mask)
    make_links(root)


def make_links(root: int) -> None:
    """Make the symlinks of `LINKS` in the /dev below `root`; one that is there already stays."""
    dev = paths.open_in_root(root, "/dev", os.O_PATH | os.O_DIRECTORY)
    for name, target in LINKS:
        try:
            os.symlink(target, name, dir_fd=dev)
        except FileExistsError:
            pass
    os.close(dev)


def make_node(root: int, path: str, kind: str, major: int, minor: int, mode: int, uid: int = 0, gid: int = 0) -> None:
    """Make one device node at `path` below the directory `root` (a descriptor), and the directories that are missing.

    `kind` is "c" or "u" (character device), "b" (block device) or "p" (pipe, which has no numbers); `major` and `minor`
    name the driver, `os.makedev` puts them into one number; `mode` are the permissions; the owner is changed to `uid`
    and `gid` unless both are 0. What exists already is left as it is. The directory comes from
    `paths.make_directories`, and the node is made relative to that descriptor (`dir_fd`), which is closed at the end.
    Raises OSError (EPERM without CAP_MKNOD). Sources: mknod(2), makedev(3).
    """
    parent, _, name = path.rpartition("/")
    directory = paths.make_directories(root, parent)
    try:
        types = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
        try:
            os.mknod(name, types[kind] | mode, os.makedev(major, minor), dir_fd=directory)
        except FileExistsError:
            return
        if uid or gid:
            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(directory)


@trace.narrated(CHAPTER, "hide {path}", "move_mount(/dev/null or an empty tmpfs, {path!r})")
def mask(root: int, path: str) -> None:
    """Hide the file or directory at `path` below `root`: /dev/null over a file, an empty read-only tmpfs over a
    directory. What does not exist (FileNotFoundError, NotADirectoryError) needs no mask.

    Parts of /proc and /sys belong to the whole machine, not to a namespace (/proc/kcore is its memory). The place is
    opened with `paths.open_in_root` (O_PATH); `mount.filesystem` or `mount.clone` makes the cover, `mount.move_mount`
    attaches it; no descriptor stays open. The /dev/null is the machine's own, since an image may have put anything in
    its place, and is checked after it was opened: KernelError when it is not the device 1:3. Raises OSError.
    Sources: proc(5), move_mount(2), OCI runtime-spec "Masked Paths".
    """
    try:
        target = paths.open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(os.fstat(target).st_mode):
        # Of one page: should it ever become writable, no memory can be filled by it.
        cover = mount.filesystem("tmpfs", {"nr_blocks": "1"}, ("ro", "nosuid", "nodev", "noexec"))
    else:
        cover = mount.clone("/dev/null")
        if os.fstat(cover).st_rdev != os.makedev(1, 3):
            raise KernelError("the machine's /dev/null is not the null device: not safe to mask with")
    mount.move_mount(cover, target)
    os.close(cover)
    os.close(target)


@trace.narrated(CHAPTER, "make {path} read-only", "mount_setattr({path!r}, MOUNT_ATTR_RDONLY)")
def make_read_only(root: int, path: str) -> None:
    """Make what is at `path` below `root` read-only: a clone of it, set read-only, attached over itself.

    What does not exist is passed over. Raises OSError. Sources: open_tree(2), mount_setattr(2).
    """
    try:
        target = paths.open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    tree = mount.clone("", target, recursive=True)
    mount.mount_setattr(tree, *mount.attribute_bits(("ro",)), recursive=True)
    mount.move_mount(tree, target)
    os.close(tree)
    os.close(target)


def cover(root: int, masked: Iterable[str] = MASKED_PATHS, readonly: Iterable[str] = READONLY_PATHS) -> None:
    """Hide what is at the paths `masked` below `root`, and make what is at `readonly` read-only. Raises OSError."""
    for path in masked:
        mask(root, path)
    for path in readonly:
        make_read_only(root, path)


@trace.narrated(CHAPTER, "make that the root, and detach the old one",
                "pivot_root(\".\", \".\"); umount2(\".\", MNT_DETACH)")
def pivot(root: int) -> None:
    """Make the mount that `root` (a descriptor of its top directory) refers to the root of this mount namespace.

    Go there (`os.fchdir`), call pivot_root(".", "."), which puts the old root *on top of* the new one at the same
    place, then unmount "." with MNT_DETACH: that takes the topmost, the old root, with everything below it. Then go to
    "/". After this no path, no `..` and no open directory leads back. Raises OSError: EINVAL when `root` is no mount
    point or the parent mount is shared. Source: pivot_root(2), NOTES.
    """
    os.fchdir(root)
    syscalls.call("pivot_root", ".", ".")
    syscalls.umount2(".", mount.MNT_DETACH)
    os.chdir("/")


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room."""
    return [("mount namespace", os.path.exists("/proc/self/ns/mnt"), "CLONE_NEWNS", "a kernel with namespaces")]

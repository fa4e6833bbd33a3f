"""Chapter 04: mounts as objects: made first, attached afterwards.

mount(2) does four things in one call, by path. The newer calls take them apart: `fsopen`, `fsconfig` and `fsmount` make
a file system, `open_tree` clones a part of the tree (what a bind mount is), `mount_setattr` changes how it may be used,
and `move_mount` attaches it. Until then it is a descriptor that nobody else can see, and attaching to a descriptor
leaves nothing for a symlink to redirect.

Rules of the room: thin functions named after the calls; then the two that a reader wants, `filesystem` and `clone`.
They raise OSError.

Manual pages: mount(8), open_tree(2), move_mount(2), fsopen(2), fsconfig(2), fsmount(2), mount_setattr(2).
"""

from __future__ import annotations

import ctypes
import os

from minirt.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MS_REC = 0x4000                        # <linux/mount.h>
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_BIND = 0x1000
MNT_DETACH = 2                         # <sys/mount.h>

FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6
FSOPEN_CLOEXEC = FSMOUNT_CLOEXEC = OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# How a mount may be used, by the word of mount(8): (bits to set, bits to clear) of mount_setattr(2). The three ways of
# keeping access times are one field of three bits (0x70), so each of them clears it first.
ATTRIBUTES = {
    "ro": (0x01, 0), "rw": (0, 0x01),
    "nosuid": (0x02, 0), "suid": (0, 0x02),
    "nodev": (0x04, 0), "dev": (0, 0x04),
    "noexec": (0x08, 0), "exec": (0, 0x08),
    "relatime": (0x00, 0x70), "noatime": (0x10, 0x70), "strictatime": (0x20, 0x70),
    "nodiratime": (0x80, 0), "diratime": (0, 0x80),
}
PROPAGATION = {"private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED}


class _MountAttr(ctypes.Structure):
    """struct mount_attr of <linux/mount.h>."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def attribute_bits(words: Iterable[str]) -> tuple[int, int]:
    """(bits to set, bits to clear) for words of mount(8) such as "ro" and "nosuid"; the last word on a matter counts.

    Raises KeyError for a word that is no attribute.
    """
    add = remove = 0
    for word in words:
        bits, cleared = ATTRIBUTES[word]
        add = add & ~cleared | bits
        remove = remove & ~bits | cleared
    return add, remove


def move_mount(tree: int, target: int) -> None:
    """Attach the detached mount `tree` on top of what the descriptor `target` refers to. move_mount(2)."""
    syscalls.call("move_mount", tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


def mount_setattr(tree: int, add: int = 0, remove: int = 0, propagation: int = 0, recursive: bool = False,
                  userns: int = 0) -> None:
    """Change how the mount behind the descriptor `tree` may be used: attribute bits to add and to remove, and how later
    mounts spread (one of `PROPAGATION`, or 0 to leave it); with `recursive` all mounts below it too. `userns` is the
    descriptor of a user namespace, for the one attribute that needs it (chapter 07). mount_setattr(2).
    """
    attributes = _MountAttr(add, remove, propagation, userns)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscalls.call("mount_setattr", tree, "", flags, ctypes.byref(attributes), ctypes.sizeof(attributes))


def filesystem(kind: str, options: Mapping[str, str | None], words: Iterable[str] = (), source: str = "") -> int:
    """Make a file system of `kind` ("proc", "tmpfs", ...) and return a descriptor of its mount, attached nowhere yet.

    `options` are the file system's own, each with its value, or None for one that is just there; `words` are
    attributes ("nosuid", "ro"); `source` is the label shown in /proc/self/mounts. Raises OSError.
    Sources: fsopen(2), fsconfig(2), fsmount(2).
    """
    context = syscalls.call("fsopen", kind, FSOPEN_CLOEXEC)
    try:
        syscalls.call("fsconfig", context, FSCONFIG_SET_STRING, "source", source or kind, 0)
        for name, value in options.items():
            if value is None:
                syscalls.call("fsconfig", context, FSCONFIG_SET_FLAG, name, None, 0)
            else:
                syscalls.call("fsconfig", context, FSCONFIG_SET_STRING, name, value, 0)
        syscalls.call("fsconfig", context, FSCONFIG_CMD_CREATE, None, None, 0)
        return syscalls.call("fsmount", context, FSMOUNT_CLOEXEC, attribute_bits(words)[0])
    finally:
        os.close(context)


def clone(path: str, directory: int = AT_FDCWD, recursive: bool = False) -> int:
    """Clone the mount at `path`, from there downwards: what a bind mount is before it is attached.

    `path` is looked up from `directory`; an empty one means what that descriptor refers to. With `recursive` the mounts
    below come along. Return a descriptor of the detached clone, a peer of the original where that is shared. Raises
    OSError. Source: open_tree(2), OPEN_TREE_CLONE.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    return syscalls.call("open_tree", directory, path, flags)

"""Two trees of files, compared by everything that belongs to a file."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

# What a tool leaves in a tree that it unpacked, or the kernel shows of an overlay, and no image has.
_NOT_THE_IMAGES = ("trusted.overlay.", "security.selinux")


def describe(root: Path, with_root: bool = False) -> dict[str, tuple[object, ...]]:
    """path -> (type and mode, owner, group, link count, size or device or target, time, attributes, content's hash).

    A directory's size and link count are the file system's affair, and the time of a directory that no archive tells
    of is the moment of unpacking: they are left out here, and compared where the archive tells them.
    """
    found: dict[str, tuple[object, ...]] = {}
    for place, directories, files in os.walk(root):
        names = [*directories, *files] + ([""] if with_root and place == str(root) else [])
        for name in names:
            path = os.path.join(place, name).rstrip("/")
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            what: object = ""
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    what = (status.st_size, hashlib.file_digest(file, "sha256").hexdigest())
            elif kind == stat.S_IFLNK:
                what = os.readlink(path)
            elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                what = status.st_rdev
            attributes = {each: os.getxattr(path, each, follow_symlinks=False)
                          for each in os.listxattr(path, follow_symlinks=False)
                          if not each.startswith(_NOT_THE_IMAGES)}
            links = 0 if kind == stat.S_IFDIR else status.st_nlink
            found[os.path.relpath(path, root)] = (
                oct(status.st_mode), status.st_uid, status.st_gid, links, what, status.st_mtime_ns,
                tuple(sorted(attributes.items())))
    return found


def differences(ours: dict[str, tuple[object, ...]], theirs: dict[str, tuple[object, ...]],
                exact_times: bool = True) -> list[str]:
    """What differs, a line each. Without `exact_times` only whole seconds count (a tool that keeps no more)."""
    lines = [f"only ours: {path}" for path in sorted(ours.keys() - theirs.keys())]
    lines += [f"only theirs: {path}" for path in sorted(theirs.keys() - ours.keys())]
    for path in sorted(ours.keys() & theirs.keys()):
        one, other = list(ours[path]), list(theirs[path])
        if not exact_times:
            one[5], other[5] = int(str(one[5])) // 10**9, int(str(other[5])) // 10**9
        if one != other:
            lines.append(f"{path}: ours {one}, theirs {other}")
    return lines

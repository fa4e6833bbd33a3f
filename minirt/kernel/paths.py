"""Chapter 04: opening a path inside a root that belongs to somebody else.

A container's files were written by a stranger. A path in them may lead anywhere: a symlink `etc -> /etc`, `..` above
the root, /proc/self/root. Checking first and opening afterwards does not help, because the stranger's processes may
change the path in between. openat2(2) lets the kernel do both in one step: with RESOLVE_IN_ROOT it resolves as if the
given directory were `/`, whatever the links say, and with RESOLVE_NO_MAGICLINKS it refuses the links of /proc/PID that
jump to an open file.

Rule of the house: a path below a container's root is opened here, and from then on only the descriptor is used.

Manual pages: openat2(2), open(2) "O_PATH", symlink(7), path_resolution(7).
"""

from __future__ import annotations

import ctypes
import os
import stat

from minirt.kernel import syscalls

RESOLVE_NO_MAGICLINKS = 0x02  # <linux/openat2.h>
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
EAGAIN = 11
_STEP = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _OpenHow(ctypes.Structure):
    """struct open_how of <linux/openat2.h>."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def open_in_root(root: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """Open `path` as a process sees it whose root directory is `root`, and return a close-on-exec descriptor.

    `root` is a descriptor of a directory; `path` may begin with `/` or not, both mean the root; `flags` and `mode` are
    those of open(2) (`mode` only together with O_CREAT or O_TMPFILE). Symlinks stay within the root, `..` of the root
    is the root, magic links are refused. The call is "openat2", with an `_OpenHow` and its size. Raises OSError: ELOOP
    for a magic link, ENOENT, ENOTDIR, ... The kernel gives EAGAIN when somebody renames directories meanwhile: ask
    again, 128 times in all. Source: openat2(2).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    for attempt in range(128):
        try:
            return syscalls.call("openat2", root, path, ctypes.byref(how), ctypes.sizeof(how))
        except OSError as error:
            if error.errno != EAGAIN or attempt == 127:
                raise
    raise AssertionError("unreachable")


def open_beneath(root: int, path: str | bytes, flags: int = os.O_RDONLY) -> int:
    """Open `path`, relative, below the directory `root`, where nothing may even try to leave it; return the descriptor.

    Stricter than `open_in_root`: an absolute symlink, and `..` above the root, are refused instead of being led back
    (RESOLVE_BENEATH). Raises OSError: EXDEV when the path would leave, else as open(2). Source: openat2(2).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    return syscalls.call("openat2", root, path, ctypes.byref(how), ctypes.sizeof(how))


def make_directories(root: int, path: str, mode: int = 0o755, links: int = 40) -> int:
    """Make the directory `path` below `root`, with all that is missing on the way; return a descriptor of it (O_PATH).

    What exists is left as it is; a symlink on the way is followed within the root, and where it dangles the directory
    that it names is made (after `links` of those, ELOOP). Raises OSError (ENOTDIR when something on the way is a file).
    Sources: openat2(2), mkdir(2).
    """
    try:
        return open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        pass  # then step by step
    here = open_in_root(root, "/", os.O_PATH | os.O_DIRECTORY)
    walked = ""
    names = [name for name in path.split("/") if name not in ("", ".")]
    for position, name in enumerate(names):
        try:
            try:
                after = open_in_root(root, f"{walked}/{name}", os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                target = _link(name, here)  # by its directory: /proc may be the container's by now
                if links and target:
                    rest = "/".join(names[position + 1:])
                    return make_directories(root, f"{'' if target[0] == '/' else walked}/{target}/{rest}", mode,
                                            links - 1)
                try:
                    os.mkdir(name, mode, dir_fd=here)
                except FileExistsError:
                    pass  # somebody else made it first
                after = open_in_root(root, f"{walked}/{name}", os.O_PATH | os.O_DIRECTORY)
        finally:
            os.close(here)
        here = after
        walked += "/" + name
    return here


def _link(name: str, directory: int) -> str:
    """What the symlink `name` in `directory` (a descriptor) says, "" when it is none."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return ""


def make_mount_point(root: int, path: str, directory: bool) -> int:
    """Make sure that something can be mounted on `path` below `root`: an empty directory, or an empty file.

    Return a descriptor of it (O_PATH). What is there already is used as it is. Raises OSError: NotADirectoryError or
    IsADirectoryError when it is of the other kind. Sources: openat2(2), move_mount(2).
    """
    if directory:
        return make_directories(root, path)
    parent, _, name = path.rstrip("/").rpartition("/")
    above = make_directories(root, parent)
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=above))
    except FileExistsError:
        pass
    finally:
        os.close(above)
    target = open_in_root(root, path, os.O_PATH)
    if stat.S_ISDIR(os.fstat(target).st_mode):
        os.close(target)
        raise IsADirectoryError(21, os.strerror(21), path)
    return target


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
    here = os.open(name, _STEP, dir_fd=directory)
    trail: list[tuple[str | bytes, list[str]]] = [(name, _unlink_files(here))]
    try:
        while trail:
            if trail[-1][1]:
                deeper = trail[-1][1].pop()
                after = os.open(deeper, _STEP, dir_fd=here)
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

"""Chapter 09: layers: many directories seen as one.

OverlayFS shows a stack of directories as a single tree. The *lower* ones are only read; the one *upper* takes every
change. Opening a lower file for writing first copies it up, whole. Removing a lower file leaves a *whiteout* in the
upper directory, a character device 0:0 with its name; replacing a lower directory marks the new one *opaque*, so that
nothing shines through. An image is a stack of lowers; a container adds its own upper: a thousand containers of one
image share its files, on disk and in the page cache.

The kernel takes the whole stack in one string of mount options that must stay below 4096 bytes, so lower directories
are named relatively, from the directory of all layers.

Manual pages and sources: mount(2), Linux Documentation/filesystems/overlayfs.rst, OCI image-spec layer.md "Whiteouts".
"""

from __future__ import annotations

import os
import stat

from minirt import trace
from minirt.errors import KernelError, MinirtError
from minirt.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CHAPTER = 9

OPAQUE = "trusted.overlay.opaque"  # an extended attribute with the value "y"
USER_OPAQUE = "user.overlay.opaque"  # the same in a user namespace, where nobody may touch "trusted" (USER_WORDS)
USER_WORDS = ",userxattr"
LONGEST = 4095                     # bytes of options: one page less the closing NUL
EINVAL = 22                        # <errno.h>


def options(lower: Sequence[str], upper: str, work: str) -> str:
    """The option string of an overlay mount: "lowerdir=TOP:...:BOTTOM,upperdir=UPPER,workdir=WORK".

    `lower` are the read-only directories, the topmost first; `upper` takes the changes; `work` is an empty directory on
    the file system of `upper`, where the kernel prepares a change before it shows it whole. With an empty `upper` the
    overlay is read-only: then leave upperdir and workdir out. A ":" separates lower directories and a "," options, so
    write "\\\\:" and "\\\\," (a backslash before it) where a name contains one.
    Raises MinirtError when the string exceeds `LONGEST` bytes. Sources: mount(8), overlayfs.rst.
    """
    text = "lowerdir=" + ":".join(_escaped(directory) for directory in lower)
    if upper:
        text += f",upperdir={_escaped(upper)},workdir={_escaped(work)}"
    if len(os.fsencode(text)) > LONGEST:
        raise MinirtError(f"{len(lower)} layers are more than fit into the {LONGEST} bytes of one overlay mount")
    return text


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


@trace.narrated(CHAPTER, "stack the image's layers under a writable one", "mount(overlay, {target!r})")
def mount(lower: Sequence[str], upper: str, work: str, target: str, layers: str = "/", more: str = "") -> None:
    """Mount an overlay at the directory `target`: `lower` (topmost first) under `upper`, with `work` beside it.

    Names in `lower` are relative to `layers`: go there first (`os.chdir`), since the kernel resolves them from the
    working directory. The others are absolute. The options come from `options`, type and source are "overlay"; `more`
    is appended to the options as it is.
    Raises OSError: EINVAL when upper lies on another overlay. Sources: mount(2), overlayfs.rst.
    """
    os.chdir(layers)
    syscalls.mount("overlay", target, "overlay", 0, options(lower, upper, work) + more)


def stack(lower: Sequence[str], upper: str, work: str, target: str, layers: str, more: str = "") -> None:
    """`mount`, with a sentence for the most frequent failure: a store within a container's own files.

    Arguments as for `mount`. Raises KernelError where `upper` lies on an overlay, else OSError.
    """
    try:
        mount(lower, upper, work, target, layers, more)
    except OSError as error:
        if error.errno != EINVAL or file_system(upper) != "overlay":
            raise
        raise KernelError(f"the store {os.path.dirname(layers)} lies on an overlay, as all files of a container do, "
                          "and the kernel stacks no overlay on another one: give it a volume (docker run -v "
                          f"minirt:{os.path.dirname(layers)} ...), or another place (MINIRT_ROOT)") from None


def file_system(directory: str) -> str:
    """The type of the file system that an existing directory lies on, by the device number. Source: proc(5), mountinfo.
    """
    device = os.stat(directory).st_dev
    with open("/proc/self/mountinfo") as table:
        for line in table:
            if line.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                return line.partition(" - ")[2].split()[0]
    return ""


def make_whiteout(directory: int, name: str) -> None:
    """Record in the layer directory open as `directory` that `name` of the layers below is gone.

    A whiteout is a character device with the numbers 0 and 0 (`os.mknod` with S_IFCHR and `os.makedev`); mode and owner
    do not matter. Raises OSError. Sources: mknod(2), overlayfs.rst "whiteouts and opaque directories".
    """
    os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether a file with that lstat(2) result is a whiteout: a character device (`stat.S_ISCHR` of its `st_mode`)
    whose number (`st_rdev`) is 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def make_opaque(directory: int) -> None:
    """Record that the directory open as `directory` hides all that lower layers have at its place (attribute `OPAQUE`
    with the value "y"). Raises OSError. Sources: overlayfs.rst, setxattr(2)."""
    os.setxattr(directory, OPAQUE, b"y")


def is_opaque(path: str) -> bool:
    """Whether the directory at `path`, looked at outside the overlay, is marked opaque. Source: getxattr(2)."""
    for attribute in (OPAQUE, USER_OPAQUE):
        try:
            if os.getxattr(path, attribute, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False


def changes(upper: str, lower: Sequence[str]) -> list[tuple[str, str]]:
    """What the directory `upper` changes in the stack `lower` (absolute directories, topmost first), as in `diff`.

    Return (kind, path) pairs, sorted by path, paths beginning with "/": "D" for a whiteout of something that is below,
    "A" for a name that is not below, "C" for a changed file and for every directory that holds a change. The root
    itself is not listed. In an opaque directory everything is "A", whatever lies below.
    """
    found: list[tuple[str, str]] = []
    _walk(upper, "", list(lower), found)
    return sorted(found, key=lambda pair: pair[1])


def _walk(upper: str, below: str, lower: list[str], found: list[tuple[str, str]]) -> None:
    """Add the changes in the directory `upper` + `below`; `lower` are the layers that still shine through there."""
    for entry in os.scandir(upper + below):
        path = f"{below}/{entry.name}"
        status = entry.stat(follow_symlinks=False)
        existed, seen = _look(path, lower)
        if is_whiteout(status):
            if existed:
                found.append(("D", path))
            continue
        found.append(("C" if existed else "A", path))
        if stat.S_ISDIR(status.st_mode):
            _walk(upper, path, [] if is_opaque(upper + path) else seen, found)


def _look(path: str, lower: list[str]) -> tuple[bool, list[str]]:
    """Whether the lower stack shows something at `path`, and, for a directory, the layers that make it up."""
    seen: list[str] = []
    for layer in lower:
        try:
            status = os.lstat(layer + path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if is_whiteout(status):
            break
        if not stat.S_ISDIR(status.st_mode):
            return (True, seen) if seen else (True, [])
        seen.append(layer)
        if is_opaque(layer + path):
            break
    return bool(seen), seen


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room."""
    with open("/proc/filesystems") as table:
        known = any(line.split()[-1] == "overlay" for line in table)
    return [("OverlayFS", known, "file system overlay", "modprobe overlay")]

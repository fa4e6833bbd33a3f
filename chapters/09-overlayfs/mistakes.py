"""What is written instead, in chapter 09, and the message that must lead to each mistake."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from minirt.errors import MinirtError
from minirt.kernel import syscalls
from minirt.overlay import LONGEST, OPAQUE, _escaped, options


def options__bottom_first(lower: Sequence[str], upper: str, work: str) -> str:
    """the topmost layer comes first"""
    text = "lowerdir=" + ":".join(_escaped(directory) for directory in reversed(lower))
    if upper:
        text += f",upperdir={_escaped(upper)},workdir={_escaped(work)}"
    if len(os.fsencode(text)) > LONGEST:
        raise MinirtError("too long")
    return text


def options__names_as_they_are(lower: Sequence[str], upper: str, work: str) -> str:
    """put a backslash before it"""
    text = "lowerdir=" + ":".join(lower)
    if upper:
        text += f",upperdir={upper},workdir={work}"
    if len(os.fsencode(text)) > LONGEST:
        raise MinirtError("too long")
    return text


def options__empty_upper(lower: Sequence[str], upper: str, work: str) -> str:
    """leave out upperdir= and workdir="""
    text = "lowerdir=" + ":".join(_escaped(directory) for directory in lower)
    text += f",upperdir={_escaped(upper)},workdir={_escaped(work)}"
    if len(os.fsencode(text)) > LONGEST:
        raise MinirtError("too long")
    return text


def options__no_limit(lower: Sequence[str], upper: str, work: str) -> str:
    """the kernel would cut it off"""
    text = "lowerdir=" + ":".join(_escaped(directory) for directory in lower)
    if upper:
        text += f",upperdir={_escaped(upper)},workdir={_escaped(work)}"
    return text


def mount__no_more(lower: Sequence[str], upper: str, work: str, target: str, layers: str = "/",
                   more: str = "") -> None:
    """`more` is appended to what options() returns"""
    os.chdir(layers)
    syscalls.mount("overlay", target, "overlay", 0, options(lower, upper, work))


def mount__stays_where_it_is(lower: Sequence[str], upper: str, work: str, target: str, layers: str = "/",
                             more: str = "") -> None:
    """go to the directory of the layers first"""
    syscalls.mount("overlay", target, "overlay", 0, options(lower, upper, work))


def mount__a_bind_mount(lower: Sequence[str], upper: str, work: str, target: str, layers: str = "/",
                        more: str = "") -> None:
    """is still of the type"""
    os.chdir(layers)
    syscalls.mount(lower[0], target, None, 0x1000, None)


def mount__lower_as_upper(lower: Sequence[str], upper: str, work: str, target: str, layers: str = "/",
                          more: str = "") -> None:
    """a file written in the container was written into the layer"""
    os.chdir(layers)
    syscalls.mount("overlay", target, "overlay", 0, options(lower[1:], os.path.abspath(lower[0]), work))


def make_whiteout__an_empty_file(directory: int, name: str) -> None:
    """is a regular file"""
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=directory))


def make_whiteout__the_archives_form(directory: int, name: str) -> None:
    """that is its form in an archive"""
    os.close(os.open(f".wh.{name}", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=directory))


def make_whiteout__like_dev_null(directory: int, name: str) -> None:
    """has the numbers 1:3"""
    os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(1, 3), dir_fd=directory)


def make_whiteout__removes_it(directory: int, name: str) -> None:
    """nothing is there to hide it"""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def make_opaque__empty_value(directory: int) -> None:
    """the value must be"""
    os.setxattr(directory, OPAQUE, b"")


def make_opaque__users_attribute(directory: int) -> None:
    """the attribute is called"""
    os.setxattr(directory, "user.overlay.opaque", b"y")


def make_opaque__a_marker_file(directory: int) -> None:
    """not a file"""
    os.close(os.open(".wh..wh..opq", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=directory))


def is_whiteout__any_character_device(status: os.stat_result) -> bool:
    """/dev/null is a character device and no whiteout"""
    return stat.S_ISCHR(status.st_mode)


def is_whiteout__device_zero(status: os.stat_result) -> bool:
    """a regular file is no whiteout"""
    return status.st_rdev == 0


def is_whiteout__an_empty_file(status: os.stat_result) -> bool:
    """is_whiteout() says False"""
    return stat.S_ISREG(status.st_mode) and status.st_size == 0

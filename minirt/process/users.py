"""Chapter 12: who `USER[:GROUP]` is, by the container's own /etc/passwd and /etc/group.

The C library would ask the name services of an image that a stranger wrote, and load its modules to do so. So the files
are opened within the root, must be regular, are read up to a bound, and split by hand: passwd(5), group(5).
"""

from __future__ import annotations

import os
import stat

from minirt.errors import MinirtError
from minirt.kernel import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST = 4 << 20  # bytes read of either file
NONBLOCK = os.O_NONBLOCK  # a FIFO in the image must not keep us waiting


class User:
    """Numbers and home of the one a process runs as."""

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid, self.gid, self.groups, self.home = uid, gid, groups, home


def look_up(root: int, name: str, extra: Sequence[str] = ()) -> User:
    """The user that `name` ("", "user", "uid", "user:group", "uid:gid") means in the root directory open as `root`.

    `extra` are further groups, by name or number. As in Docker: no name is 0; an unknown *number* is taken as it is,
    an unknown *name* raises MinirtError; without a group it is the user's own of /etc/passwd, and then the groups that
    list the user are added.
    """
    user, colon, group = name.partition(":")
    passwd = [line for line in _table(root, "/etc/passwd")
              if len(line) >= 6 and _is_number(line[2]) and _is_number(line[3])]
    groups = [line for line in _table(root, "/etc/group") if len(line) >= 3 and _is_number(line[2])]
    wanted = user or "0"
    entry = next((line for line in passwd if wanted in (line[0], line[2])), None)
    if entry is None and not _is_number(wanted):
        raise MinirtError(f"unable to find user {wanted}: no matching entries in passwd file")
    uid = int(entry[2]) if entry else int(wanted)
    _in_range(uid)
    if colon and group:
        gid, more = _group_number(groups, group), []
    else:
        gid = int(entry[3]) if entry else 0
        more = [int(line[2]) for line in groups if entry and len(line) > 3 and entry[0] in line[3].split(",")]
    # The main group is listed too: a process could otherwise lose it by a set-group-id program, and with it a refusal
    # that a file's mode has for that group (CVE-2022-36109).
    numbers = sorted({gid, *more, *(_group_number(groups, word) for word in extra)})
    return User(uid, gid, numbers, entry[5] if entry and entry[5] else "/")


def _group_number(groups: list[list[str]], name: str) -> int:
    for line in groups:
        if line[0] == name:
            return int(line[2])
    if not _is_number(name):
        raise MinirtError(f"unable to find group {name}: no matching entries in group file")
    return _in_range(int(name))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20  # all that int() takes without a fight


def _in_range(number: int) -> int:
    if number > 2**31 - 1:
        raise MinirtError(f"uids and gids must be in range 0-2147483647, not {number}")
    return number


def _table(root: int, path: str) -> list[list[str]]:
    """The lines of a colon-separated file within the root, split; none when it is missing or no regular file."""
    try:
        descriptor = paths.open_in_root(root, path, os.O_RDONLY | NONBLOCK)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return []
        text = b""
        while len(text) < LONGEST and (part := os.read(descriptor, 1 << 16)):
            text += part
    finally:
        os.close(descriptor)
    return [line.split(":") for line in text.decode("utf-8", "surrogateescape").split("\n")]

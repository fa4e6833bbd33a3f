"""Chapter 17: `--privileged`: a container behind its namespaces, and behind no other wall.

Docker's flag takes away, all at once: the limit on capabilities (`powers.granted`), the filter of system calls
(`powers.seccomp`), the masks and read-only paths, the read-only mount of /sys, and the limit on devices, of which it
shows the machine's own. What is left is a container in name: its root can do to the machine what the machine's can.

Sources: Docker's documentation of `run`, "Escalate container privileges"; capabilities(7).
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# What below the machine's /dev is a file system of its own or belongs to a terminal: a container has its own.
NOT_SHARED = ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console")


def open_up(spec: dict[str, Any]) -> None:
    """Takes from a specification the walls that `--privileged` takes: masks, read-only paths, the device limit."""
    linux = spec["linux"]
    linux["maskedPaths"], linux["readonlyPaths"] = [], []
    for mount in spec["mounts"]:
        if mount["type"] in ("sysfs", "cgroup", "cgroup2"):
            mount["options"] = [word for word in mount["options"] if word != "ro"]
    linux["devices"] = [*linux["devices"], *devices("/dev")]
    linux.setdefault("resources", {})["devices"] = [{"allow": True, "access": "rwm"}]


def devices(directory: str) -> Iterator[dict[str, Any]]:
    """The device nodes below `directory`, as an OCI specification has them; symbolic links are not followed."""
    for entry in os.scandir(directory):
        if entry.name in NOT_SHARED:
            continue
        try:
            status = entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                yield from devices(entry.path)
        except OSError:
            continue  # it went, or it is not ours to see
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            yield described(entry.path, entry.path, status)


def described(path: str, source: str, status: os.stat_result) -> dict[str, Any]:
    """The machine's device node `source`, whose `status` is that of stat(2), as an entry of "devices" of an OCI
    specification: to be at `path`.
    """
    return {
        "path": path,
        "source": source,
        "type": "c" if stat.S_ISCHR(status.st_mode) else "b",
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": status.st_mode & 0o777,
        "uid": status.st_uid,
        "gid": status.st_gid,
    }

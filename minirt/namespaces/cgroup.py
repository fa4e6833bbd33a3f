"""Chapter 08: a view of the control groups that begins at one's own.

A cgroup namespace limits nothing. It changes what a process *sees*: the group that it is in at the moment of unshare(2)
becomes the root, in /proc/PID/cgroup and in every cgroup file system that is mounted from then on. So a container sees
its own group as `/`, not where on the machine it lies nor which others there are.

Manual page: cgroup_namespaces(7).
"""

from __future__ import annotations

import os

from minirt import trace
from minirt.kernel import mount, paths, syscalls
from minirt.namespaces import mnt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CHAPTER = 8

CLONE_NEWCGROUP = 0x02000000  # <linux/sched.h>


@trace.narrated(CHAPTER, "enter a cgroup namespace of its own", "unshare(CLONE_NEWCGROUP)")
def enter() -> None:
    """Move this process into a new cgroup namespace, whose root is the group that it is in now.

    So it must have joined its group before. Use `syscalls.unshare` with CLONE_NEWCGROUP and nothing else.
    Raises OSError (EPERM without CAP_SYS_ADMIN). Source: cgroup_namespaces(7).
    """
    syscalls.unshare(CLONE_NEWCGROUP)


@trace.narrated(CHAPTER, "show it its own cgroup", "mount -t cgroup2 cgroup {destination}")
def configure(root: int, destination: str, options: Sequence[str], hierarchies: Sequence[str] = ("",)) -> None:
    """Mount the control groups at `destination` below the directory `root` (a descriptor), as this namespace sees them.

    `hierarchies` are the trees in which the process has a group of its own: "" is version 2, any other word the option
    that names a tree of version 1 ("memory", "cpu,cpuacct"). Version 2 alone is mounted there directly; several get a
    small tmpfs with a directory each. `options` are words of mount(8), "ro" as a rule. Raises OSError.
    """
    if list(hierarchies) == [""]:
        mnt.attach(mnt.make({"type": "cgroup2", "source": "cgroup", "options": options}), root, destination)
        return
    parts = [*(word for word in options if word != "ro"), "mode=755"]
    mnt.attach(mnt.make({"type": "tmpfs", "source": "cgroup", "options": parts}), root, destination)
    for each in hierarchies:
        kind = {"type": "cgroup", "options": [*options, *each.split(",")]} if each else {"type": "cgroup2",
                                                                                        "options": options}
        mnt.attach(mnt.make({**kind, "source": "cgroup"}), root, f"{destination}/{each or 'unified'}")
    if "ro" in options:
        place = paths.open_in_root(root, destination, os.O_PATH)
        mount.mount_setattr(place, *mount.attribute_bits(("ro",)))
        os.close(place)


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room."""
    return [("cgroup namespace", os.path.exists("/proc/self/ns/cgroup"), "CLONE_NEWCGROUP",
             "a kernel with namespaces")]

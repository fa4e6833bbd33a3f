"""Chapter 08: which trees of control groups this machine has, and a container's place in them.

`group(NAME)` is the place; it may not exist yet. Version 2 is used wherever a cgroup2 file system is mounted, alone or
beside version 1 (a "hybrid" machine); the freezer of version 1 only where there is none.

Manual page: cgroups(7).
"""

from __future__ import annotations

import os

from minirt.cgroups import v1, v2
from minirt.errors import MinirtError
from minirt.state import read_file

PARENT = "minirt"  # every group of ours lies below one of this name


def mounts() -> dict[str, str]:
    """Where the control group file systems are mounted: {"": the cgroup2 one, "freezer": ..., "memory": ...}.

    Read from /proc/self/mountinfo, whose fields after " - " are type, source and the options that name a version 1
    controller (proc(5)).
    """
    found: dict[str, str] = {}
    for line in read_file("/proc/self/mountinfo").decode().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            found.setdefault("", left.split()[4])
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, left.split()[4])
    return found


class Group:
    """A container's group: `path`, a directory; `version`, 1 or 2; `descriptor`, for `clone3` (-1 on version 1)."""

    def __init__(self, path: str, version: int) -> None:
        self.path = path
        self.version = version
        self.descriptor = -1
        self._room = v2 if version == 2 else v1

    def create(self) -> None:
        """Make it, and open it."""
        v2.create(self.path)
        self.open()

    def open(self) -> None:
        """On version 2 open it, so that a process can be born there."""
        if self.version == 2:
            self.descriptor = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the descriptor."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def join(self) -> None:
        """Move this process into it, where it was not born there (version 1)."""
        if self.version == 1:
            v1.join(self.path)

    def processes(self) -> list[int]:
        """The pids of its processes, as this pid namespace numbers them."""
        return self._room.processes(self.path)

    def kill(self) -> None:
        """Kill all its processes at once."""
        self._room.kill(self.path)

    def freeze(self, frozen: bool) -> None:
        """Stop all its processes, or let them go on."""
        self._room.freeze(self.path, frozen)

    def remove(self) -> None:
        """Remove it; its processes must have been collected."""
        v2.remove(self.path)


def group(name: str) -> Group:
    """The group of that name (`minirt/ID`) on this machine. Raises MinirtError where no tree is mounted."""
    trees = mounts()
    if "" in trees:
        return Group(f"{trees['']}/{name}", 2)
    if "freezer" in trees:
        return Group(f"{trees['freezer']}/{name}", 1)
    raise MinirtError("no control groups are mounted here: mount -t cgroup2 cgroup2 /sys/fs/cgroup")


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room."""
    trees = mounts()
    version = {(True, False): "version 2", (True, True): "hybrid", (False, True): "version 1"}.get(
        ("" in trees, len(trees) > ("" in trees)), "none")
    controllers = ""
    if "" in trees:
        try:
            controllers = read_file(f"{trees['']}/cgroup.controllers").decode().strip()
        except OSError:
            controllers = ""
    return [("control groups", bool(trees), version, "mount -t cgroup2 cgroup2 /sys/fs/cgroup"),
            ("cgroup v2 controllers", bool(controllers), controllers or "none in the v2 tree",
             "boot with systemd.unified_cgroup_hierarchy=1")]

"""Chapter 08: which trees of control groups this machine has, and a container's place in them.

`group(NAME)` is the place; it may not exist yet. Version 2 is used wherever a cgroup2 file system is mounted. On a
"hybrid" machine, where version 1 has some of the controllers, the container's own group is in the tree of version 2 all
the same (it is born there, is killed and frozen there, and its device list hangs there), and it joins a tree of version
1 for each limit that only that one can set. On a machine with version 1 alone, the freezer's group is its own.

Whoever is not root has the part of the tree that was handed to him (`chown`: delegation), or none at all.

Manual page: cgroups(7).
"""

from __future__ import annotations

import os

from minirt import state
from minirt.cgroups import devices, v1, v2
from minirt.errors import MinirtError
from minirt.state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CHAPTER = 8

PARENT = "minirt"  # every group of ours lies below one of this name, unless another is asked for
CONTROLLERS = (*v2.CONTROLLERS, "blkio", "cpuacct", "devices", "freezer")
LIMITS = {"memory": "memory", "cpu": "CPU time", "cpuset": "CPUs", "pids": "processes", "io": "I/O", "blkio": "I/O"}


def mounts() -> dict[str, str]:
    """Where the control group file systems are mounted: {"": the cgroup2 one, "freezer": ..., "memory": ...}.

    Read from /proc/self/mountinfo, whose fields after " - " are type, source and the options that name a version 1
    controller (proc(5)).
    """
    found: dict[str, str] = {}
    for line in read_file("/proc/self/mountinfo").decode().splitlines():
        if "cgroup" not in line:
            continue
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            found.setdefault("", left.split()[4])
        elif kind == "cgroup":
            for option in options.split(","):
                if option in CONTROLLERS:
                    found.setdefault(option, left.split()[4])
    return found


def delegated(mounted: str) -> str:
    """For whoever is not root: the topmost group on the way from the root, mounted at `mounted`, to this process's own
    that belongs to him with all that it takes to make groups in it; empty when there is none."""
    own = next((line[3:] for line in read_file("/proc/self/cgroup").decode().splitlines() if line[:3] == "0::"), "/")
    path, found = mounted + own.rstrip("/"), ""
    while len(path) >= len(mounted) and all(
            os.access(f"{path}{file}", os.W_OK) for file in ("", "/cgroup.procs", "/cgroup.subtree_control")):
        found, path = path, os.path.dirname(path)
    return found


class Group:
    """A container's group: `path`, its own directory; `version`, 1 or 2, or 0 where none can be had; `descriptor`, for
    `clone3` (-1 without version 2); `guarded`, whether its devices are limited."""

    def __init__(self, name: str, trees: dict[str, str]) -> None:
        self.name, self.trees = name, trees
        self.version = 2 if "" in trees else 1 if "freezer" in trees else 0
        self.top = trees.get("", trees.get("freezer", ""))
        self.path = f"{self.top}/{name}" if self.version else ""
        self.descriptor = -1
        self.guarded = False
        self._joined: dict[str, str] | None = None

    def create(self, resources: dict[str, Any] | None = None) -> None:
        """Make it with the limits of `resources` (OCI runtime specification), its device list among them, and open it.

        Raises OSError, MinirtError when a limit cannot be set on this machine. `guarded` tells afterwards whether the
        device list holds: where neither version 2 nor a devices controller can be had, it does not.
        """
        self._joined = {}
        if self.version == 2:
            v2.create(self.top, self.name)
        elif self.version == 1:
            self._joined["freezer"] = v1.create(self.top, self.name)
            for controller in {"memory", "cpu", "cpuacct", "pids"} & set(self.trees):  # so that they count
                self._joined[controller] = v1.create(self.trees[controller], self.name)
        self.open()
        resources = resources or {}
        self._limit(resources)
        rules = devices.merged(resources.get("devices") or ())
        if rules and not devices.everything(rules):
            self._guard(rules)

    def _guard(self, rules: Sequence[dict[str, Any]]) -> None:
        """Limit the devices: by a program, or where the kernel will not have one, by the controller of version 1."""
        try:
            if self.version == 2:
                devices.guard(self.descriptor, rules)
                self.guarded = True
                return
        except OSError:
            pass
        if "devices" in self.trees:
            path = v1.create(self.trees["devices"], self.name)
            v1.guard(path, rules)
            self.joined()["devices"] = path
            self.guarded = True

    def _limit(self, resources: dict[str, Any]) -> None:
        """Set the limits: those of controllers that version 2 has there, the others in version 1."""
        wanted = v2.settings(resources)
        ours = v2.words(f"{self.path}/cgroup.controllers") if wanted and self.version == 2 else []
        for file, text in wanted:
            if file.partition(".")[0] in ours:
                v2.limit(self.path, file, text)
        older: dict[str, list[tuple[str, str]]] = {}
        for controller, file, text in v1.settings(resources):
            if ("io" if controller == "blkio" else controller) not in ours:
                older.setdefault(controller, []).append((file, text))
        for controller, files in older.items():
            if controller not in self.trees:
                raise MinirtError(f"this machine cannot limit {LIMITS[controller]}: there is no cgroup controller "
                                  f"{controller!r} for us; run it without that limit, or see minirt doctor")
            path = self.joined().get(controller) or v1.create(self.trees[controller], self.name)
            self.joined()[controller] = path
            v1.apply(path, files)

    def update(self, resources: dict[str, Any]) -> None:
        """Change limits while processes run; fields that `resources` does not have stay as they are.

        A tree of version 1 that the group has not joined so far is joined by each of its processes now. Raises OSError,
        MinirtError.
        """
        before = dict(self.joined())
        self._limit(resources)
        for controller, path in self.joined().items():
            for pid in self.processes() if controller not in before else ():
                try:
                    v2.write(f"{path}/cgroup.procs", str(pid))
                except ProcessLookupError:
                    pass

    def open(self) -> None:
        """On version 2 open it, so that a process can be born there."""
        if self.version == 2:
            self.descriptor = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the descriptor."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def joined(self) -> dict[str, str]:
        """The groups in trees of version 1 that belong to it: {controller: path}."""
        if self._joined is None:
            self._joined = {controller: f"{point}/{self.name}" for controller, point in self.trees.items()
                            if controller and os.path.isdir(f"{point}/{self.name}")}
        return self._joined

    def join(self) -> None:
        """Move this process, born into its group of version 2, into those of version 1 as well."""
        for path in set(self.joined().values()):
            v1.join(path)

    def hierarchies(self) -> list[str]:
        """The trees in which it has a group, as `namespaces.cgroup.configure` wants them."""
        found: dict[str, list[str]] = {}
        for controller, path in self.joined().items():
            found.setdefault(path, []).append(controller)
        return [*([""] if self.version == 2 else []), *(",".join(each) for each in found.values())]

    def processes(self) -> list[int]:
        """The pids of its processes, as this pid namespace numbers them."""
        return v2.processes(self.path) if self.version else []

    def kill(self) -> None:
        """Kill all its processes at once."""
        if self.version:
            (v2 if self.version == 2 else v1).kill(self.path)

    def freeze(self, frozen: bool) -> None:
        """Stop all its processes, or let them go on. Raises MinirtError where there is no group."""
        if not self.version:
            raise MinirtError("cannot freeze it: no control group was delegated to you")
        (v2 if self.version == 2 else v1).freeze(self.path, frozen)

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed because memory ran out."""
        return max(v2.oom_kills(self.path), v1.oom_kills(self.joined().get("memory", "")))

    def statistics(self) -> dict[str, Any]:
        """What it uses and how it is held back, in the form of `v2.statistics`.

        Where no controller counts memory or tasks for it (a container without limits on a hybrid machine), the
        processes are asked one by one: resident pages, shared ones counted more than once; without a limit.
        """
        found: dict[str, Any] = v2.statistics(self.path) if self.version == 2 else {}
        for part, table in v1.statistics(self.joined()).items():
            known = found.setdefault(part, {})
            known.update({name: value for name, value in table.items() if value or not known.get(name)})
        if "memory" not in found or "pids" not in found:
            pages = tasks = 0
            for pid in self.processes():
                try:
                    pages += int(read_file(f"/proc/{pid}/statm").split()[1])
                    tasks += len(os.listdir(f"/proc/{pid}/task"))
                except OSError:
                    continue
            resident = {"usage": pages * os.sysconf("SC_PAGE_SIZE"), "limit": -1, "cache": 0, "oom_kills": 0}
            found.setdefault("memory", resident)
            found.setdefault("pids", {"current": tasks, "limit": -1})
        return found

    def exists(self) -> bool:
        """Whether there is anything of it to remove."""
        return any(os.path.isdir(f"{point}/{self.name}") for point in set(self.trees.values()))

    def remove(self) -> None:
        """Remove it from every tree; its processes must have been collected."""
        for point in set(self.trees.values()):
            v2.remove(f"{point}/{self.name}")


def group(name: str) -> Group:
    """The group of that name (`minirt/ID`) on this machine. Raises MinirtError where no tree is mounted."""
    trees = mounts()
    if not trees:
        raise MinirtError("no control groups are mounted here: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
    if state.ordinary():
        part = delegated(trees[""]) if "" in trees else ""
        trees = {"": part} if part else {}
    return Group(name.strip("/"), trees)


def controllers() -> dict[str, str]:
    """The controllers that a group of ours can have, and where: {"memory": its tree's path or "" for version 2}."""
    ours = group(PARENT)
    found = {controller: point for controller, point in ours.trees.items() if controller}
    if ours.version == 2:
        found.update(dict.fromkeys(v2.words(f"{ours.top}/cgroup.controllers"), ""))
    return found


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room."""
    trees = mounts()
    version = {(True, False): "version 2", (True, True): "hybrid", (False, True): "version 1"}.get(
        ("" in trees, len(trees) > ("" in trees)), "none")
    available = v2.words(f"{trees['']}/cgroup.controllers") if "" in trees else []
    return [("control groups", bool(trees), version, "mount -t cgroup2 cgroup2 /sys/fs/cgroup"),
            ("cgroup v2 controllers", bool(available), " ".join(available) or "none in the v2 tree",
             "boot with systemd.unified_cgroup_hierarchy=1")]

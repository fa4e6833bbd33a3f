"""Chapter 08, the older form: cgroup version 1, where each controller has a tree of its own.

A process is in one group of *each* tree, and joins them one by one. Limits are the same ideas under other names; memory
and swap are counted together. There is no cgroup.kill: a group is killed by freezing it (nothing in it can fork any
more), signalling each process, and thawing it. And there is no birth into a group: the process moves itself, which is
quick (0 in `tasks`), where a pid in `cgroup.procs` waits for milliseconds.

Machines that have version 2 beside it ("hybrid") give each controller to one of the two. There a container's own group
is in the tree of version 2, and it joins a tree of version 1 only for a limit that it was given.

Manual pages: cgroups(7), Linux Documentation/admin-guide/cgroup-v1/.
"""

from __future__ import annotations

import os
import time

from minirt import trace
from minirt.cgroups import v2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CHAPTER = 8

processes = v2.processes
remove = v2.remove

# section and field of "resources", controller, file
FILES = (
    ("memory", "limit", "memory", "memory.limit_in_bytes"), ("memory", "swap", "memory", "memory.memsw.limit_in_bytes"),
    ("memory", "reservation", "memory", "memory.soft_limit_in_bytes"),
    ("memory", "swappiness", "memory", "memory.swappiness"),
    ("cpu", "shares", "cpu", "cpu.shares"), ("cpu", "period", "cpu", "cpu.cfs_period_us"),
    ("cpu", "quota", "cpu", "cpu.cfs_quota_us"), ("cpu", "cpus", "cpuset", "cpuset.cpus"),
    ("cpu", "mems", "cpuset", "cpuset.mems"), ("pids", "limit", "pids", "pids.max"),
    ("blockIO", "weight", "blkio", "blkio.weight"),
)
RATES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


@trace.narrated(CHAPTER, "make the cgroup {name}", "mkdir -p {top}/{name}")
def create(top: str, name: str) -> str:
    """Make the group `name` below `top` and return its path. A new cpuset is empty, and nobody may join an empty one:
    it gets what its parent has. Raises OSError."""
    path = top
    for part in name.split("/"):
        parent, path = path, f"{path}/{part}"
        try:
            os.mkdir(path)
        except FileExistsError:
            pass
        for file in ("cpuset.cpus", "cpuset.mems"):
            if os.path.exists(f"{path}/{file}") and not v2.words(f"{path}/{file}"):
                v2.write(f"{path}/{file}", "".join(v2.words(f"{parent}/{file}")))
    return path


def settings(resources: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What to write for `resources` (see `v2.settings`): (controller, file, text), in this order."""
    wanted = []
    for section, field, controller, file in FILES:
        value = (resources.get(section) or {}).get(field)
        if value or (value == 0 and field == "swappiness"):
            wanted.append((controller, file, "max" if value == -1 and controller == "pids" else str(value)))
    if (resources.get("memory") or {}).get("disableOOMKiller"):
        wanted.append(("memory", "memory.oom_control", "1"))
    for field, file in RATES:
        for each in (resources.get("blockIO") or {}).get(field) or ():
            wanted.append(("blkio", file, f"{each['major']}:{each['minor']} {each['rate']}"))
    return wanted


def apply(path: str, wanted: Sequence[tuple[str, str]]) -> None:
    """Write (file, text) pairs to the group at `path`. Memory may never exceed memory and swap together, so of these
    two the order depends on whether the limit grows: what is refused first is tried again last. Raises OSError."""
    again = []
    for file, text in wanted:
        if file == "blkio.weight" and not os.path.exists(f"{path}/{file}"):
            file = "blkio.bfq.weight"
        try:
            v2.limit(path, file, text)
        except OSError as error:
            if error.errno not in (16, 22) or not file.startswith("memory."):  # EBUSY, EINVAL
                raise
            again.append((file, text))
    for file, text in again:
        v2.limit(path, file, text)


@trace.narrated(CHAPTER, "allow it no devices but those of the list", "echo ... > {path}/devices.deny, devices.allow")
def guard(path: str, rules: Sequence[dict[str, Any]]) -> None:
    """Write the device list `rules` (see `devices`) to the group at `path`. What its parent may not do it cannot be
    allowed either (EPERM), and is passed over. Raises OSError."""
    for rule in rules:
        numbers = ":".join("*" if rule.get(part, -1) in (-1, None) else str(rule[part]) for part in ("major", "minor"))
        kind = rule.get("type", "a")
        text = "a" if kind == "a" else f"{kind} {numbers} {rule.get('access') or 'rwm'}"
        try:
            v2.write(f"{path}/devices.{'allow' if rule['allow'] else 'deny'}", text)
        except PermissionError:
            if not rule["allow"]:
                raise


def join(path: str) -> None:
    """Move this process, which must have one thread, into the group at `path`: 0 in `tasks` means the writer, and costs
    microseconds where a pid in `cgroup.procs` waits for milliseconds."""
    v2.write(f"{path}/tasks", "0")


def freeze(path: str, frozen: bool) -> None:
    """Stop all processes of the group at `path`, or let them go on; returns when they stand."""
    wanted = "FROZEN" if frozen else "THAWED"
    while True:
        v2.write(f"{path}/freezer.state", wanted)
        if v2.words(f"{path}/freezer.state") == [wanted]:
            return
        time.sleep(0.001)


def kill(path: str) -> None:
    """Kill every process in the group at `path`. Nothing happens when the group is gone."""
    if not os.path.isdir(path):
        return
    freeze(path, True)
    for pid in processes(path):
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            pass
    freeze(path, False)


def oom_kills(path: str) -> int:
    """How many processes of the memory group at `path` the kernel has killed because memory ran out."""
    return v2.pairs(f"{path}/memory.oom_control").get("oom_kill", 0)


def statistics(places: dict[str, str]) -> dict[str, Any]:
    """The same table as `v2.statistics` makes, from the groups at `places` ({controller: path}); what they do not count
    is missing."""
    found: dict[str, Any] = {}
    if "cpuacct" in places:
        ticks = v2.pairs(f"{places['cpuacct']}/cpuacct.stat")
        found["cpu"] = {"usage": v2.number(f"{places['cpuacct']}/cpuacct.usage") // 1000,
                        "user": ticks.get("user", 0) * 10000, "system": ticks.get("system", 0) * 10000}
    if "cpu" in places:
        held = v2.pairs(f"{places['cpu']}/cpu.stat")
        found.setdefault("cpu", {}).update(
            periods=held.get("nr_periods", 0), throttled_periods=held.get("nr_throttled", 0),
            throttled=held.get("throttled_time", 0) // 1000)
    if "memory" in places:
        path = places["memory"]
        limit = v2.number(f"{path}/memory.limit_in_bytes")
        usage = v2.number(f"{path}/memory.usage_in_bytes")
        found["memory"] = {
            "usage": usage, "limit": -1 if limit > 1 << 60 else limit,
            "cache": v2.pairs(f"{path}/memory.stat").get("total_inactive_file", 0), "oom_kills": oom_kills(path)}
        both = v2.number(f"{path}/memory.memsw.limit_in_bytes")
        found["swap"] = {"usage": max(0, v2.number(f"{path}/memory.memsw.usage_in_bytes") - usage),
                         "limit": -1 if both > 1 << 60 else max(0, both - limit)}
    if "pids" in places:
        found["pids"] = {"current": v2.number(f"{places['pids']}/pids.current"),
                         "limit": v2.number(f"{places['pids']}/pids.max")}
    if "blkio" in places:
        found["io"] = _throttled(places["blkio"])
    return found


def _throttled(path: str) -> dict[str, dict[str, int]]:
    """Bytes and operations of each device, as the throttling layer has counted them."""
    table: dict[str, dict[str, int]] = {}
    for file, unit in (("io_service_bytes", "bytes"), ("io_serviced", "ios")):
        found = v2.words(f"{path}/blkio.throttle.{file}_recursive")
        for device, what, count in zip(found[::3], found[1::3], found[2::3], strict=False):
            if what in ("Read", "Write"):
                table.setdefault(device, {})[what[0].lower() + unit] = int(count)
    return table

"""Chapter 17: limits in Docker's words: read, checked as Docker's client and daemon check them, and turned into
"resources" of the OCI runtime specification (chapter 08 writes those into files).

`read` makes of the options of `run` the fields of "HostConfig", or of those of a later `update`; what this machine has
no controller for is left out with Docker's warning, since a container that starts without a limit is what Docker gives.

Sources: Docker's documentation of `run`, "Runtime constraints on resources"; Docker Engine API, "HostConfig".
"""

from __future__ import annotations

import os
import stat

from minirt import units
from minirt.cgroups import tree, v2
from minirt.errors import MinirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

LEAST_MEMORY = 6 << 20
GONE = "capabilities or the cgroup is not mounted."

# option, field of "HostConfig"
FIELDS = (
    ("memory", "Memory"), ("memory-reservation", "MemoryReservation"), ("memory-swap", "MemorySwap"),
    ("memory-swappiness", "MemorySwappiness"), ("oom-kill-disable", "OomKillDisable"), ("cpus", "NanoCpus"),
    ("cpu-shares", "CpuShares"), ("cpu-period", "CpuPeriod"), ("cpu-quota", "CpuQuota"),
    ("cpuset-cpus", "CpusetCpus"), ("cpuset-mems", "CpusetMems"), ("pids-limit", "PidsLimit"),
    ("blkio-weight", "BlkioWeight"), ("device-read-bps", "BlkioDeviceReadBps"),
    ("device-write-bps", "BlkioDeviceWriteBps"), ("device-read-iops", "BlkioDeviceReadIOps"),
    ("device-write-iops", "BlkioDeviceWriteIOps"), ("cgroup-parent", "CgroupParent"), ("cgroupns", "CgroupnsMode"),
    ("device-cgroup-rule", "DeviceCgroupRules"),
)
OPTIONS = frozenset(option for option, _ in FIELDS)
RATES = (
    ("BlkioDeviceReadBps", "throttleReadBpsDevice", "BPS", "read"),
    ("BlkioDeviceWriteBps", "throttleWriteBpsDevice", "BPS", "write"),
    ("BlkioDeviceReadIOps", "throttleReadIOPSDevice", "IOPS", "read"),
    ("BlkioDeviceWriteIOps", "throttleWriteIOPSDevice", "IOPS", "write"),
)


# -- one value of a flag; ValueError with Docker's reason -----------------------------------------------------------


def cpus(text: str) -> int:
    """`--cpus 1.5`, in units of a billionth of a CPU."""
    whole, _, part = text.removeprefix("+").removeprefix("-").partition(".")
    if not (whole + part).isdigit() or not (whole + part).isascii():
        raise ValueError(f"failed to parse {text} as a rational number")
    if len(part.rstrip("0")) > 9:
        raise ValueError("value is too precise")
    number = int(whole or 0) * 10**9 + int((part.rstrip("0") or "0").ljust(9, "0"))
    return -number if text.startswith("-") else number


def parent(text: str) -> str:
    """`--cgroup-parent`: a path below the trees of control groups."""
    if ".." in text.split("/"):
        raise ValueError("a control group has no .. in its path")
    return text


def swap(text: str) -> int:
    """`--memory-swap`: a size, or -1 for no limit."""
    if text == "-1":
        return -1
    try:
        return units.parse_size(text)
    except MinirtError:
        raise ValueError(f"invalid size: '{text}'") from None


def weight(text: str) -> int:
    """`--blkio-weight`: a number of 16 bits; its range is checked with the others."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text) > 65535:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


def bytes_rate(text: str) -> dict[str, Any]:
    """`--device-read-bps PATH:RATE`, with a unit or without."""
    path, rate = _device_and_rate(text)
    try:
        return {"Path": path, "Rate": units.parse_size(rate)}
    except MinirtError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a "
            "positive integer. Unit is optional and can be kb, mb, or gb") from None


def operations_rate(text: str) -> dict[str, Any]:
    """`--device-read-iops PATH:RATE`."""
    path, rate = _device_and_rate(text)
    if not (rate.isascii() and rate.isdigit()):
        raise ValueError(f"invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must "
                         "be a positive integer")
    return {"Path": path, "Rate": int(rate)}


def _device_and_rate(text: str) -> tuple[str, str]:
    path, colon, rate = text.partition(":")
    if not path or not colon:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, rate


def rule(text: str) -> str:
    """`--device-cgroup-rule 'TYPE MAJOR:MINOR ACCESS'`."""
    parts = text.split(" ")
    numbers = parts[1].split(":") if len(parts) == 3 else []
    if (len(numbers) != 2 or parts[0] not in ("a", "b", "c") or not 1 <= len(parts[2]) <= 3 or parts[2].strip("rwm")
            or not all(each == "*" or (each.isascii() and each.isdigit()) for each in numbers)):
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def namespace(text: str) -> str:
    """`--cgroupns host` or `private`."""
    if text not in ("", "host", "private"):
        raise ValueError("invalid CGROUP mode")
    return text


# -- all of them together -------------------------------------------------------------------------------------------


def read(asked: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], list[str]]:
    """The fields of "HostConfig" that the options `asked` (by long name) set, and the warnings of what is left out.

    `before` is the "HostConfig" of a container whose limits are being changed. Raises MinirtError, in Docker's words,
    for what contradicts itself or is out of range.
    """
    found = {field: asked[option] for option, field in FIELDS if asked.get(option)}
    if asked.get("memory-swappiness", -1) in (-1, None):
        found.pop("MemorySwappiness", None)
    else:
        found["MemorySwappiness"] = asked["memory-swappiness"]
    if before is None and not found:
        return {}, []
    both = {**(before or {}), **found}
    check_memory(both, before is not None)
    check_cpu(both)
    if both.get("BlkioWeight") and not 10 <= both["BlkioWeight"] <= 1000:
        raise MinirtError("Range of blkio weight is from 10 to 1000")
    if before is None and found.get("Memory") and not found.get("MemorySwap"):
        found["MemorySwap"] = 2 * found["Memory"]
    for field, _, _, _ in RATES:
        for each in found.get(field, ()):
            device_numbers(each["Path"])
    warnings = leave_out(found)
    return {**found, "limited": True}, warnings


def check_memory(host: Mapping[str, Any], updating: bool = False) -> None:
    """Raises MinirtError for amounts of memory that are too small or do not go together."""
    memory, both = host.get("Memory", 0), host.get("MemorySwap", 0)
    reserved, swappiness = host.get("MemoryReservation", 0), host.get("MemorySwappiness")
    if 0 < memory < LEAST_MEMORY:
        raise MinirtError("Minimum memory limit allowed is 6MB")
    if memory > 0 and 0 < both < memory:
        raise MinirtError("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not memory and both > 0 and not updating:
        raise MinirtError("You should always set the Memory limit when using Memoryswap limit, see usage")
    if swappiness is not None and not 0 <= swappiness <= 100:
        raise MinirtError(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if 0 < reserved < LEAST_MEMORY:
        raise MinirtError("Minimum memory reservation allowed is 6MB")
    if memory > 0 and reserved > memory:
        raise MinirtError("Minimum memory limit can not be less than memory reservation limit, see usage")


def check_cpu(host: Mapping[str, Any]) -> None:
    """Raises MinirtError for times and sets of CPUs that are out of range or do not go together."""
    nano, period, quota = host.get("NanoCpus", 0), host.get("CpuPeriod", 0), host.get("CpuQuota", 0)
    if nano and period:
        raise MinirtError("Conflicting options: Nano CPUs and CPU Period cannot both be set.")
    if nano and quota:
        raise MinirtError("Conflicting options: Nano CPUs and CPU Quota cannot both be set.")
    count = os.cpu_count() or 1
    if nano < 0 or nano > count * 10**9:
        raise MinirtError(f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")
    if host.get("CpuShares", 0) < 0:
        raise MinirtError(f"invalid CPU shares ({host['CpuShares']}): value must be a positive integer")
    if period and not 1000 <= period <= 1000000:
        raise MinirtError("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < quota < 1000:
        raise MinirtError("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for field, file, what in (("CpusetCpus", "cpu/online", "CPUs"), ("CpusetMems", "node/online", "memory nodes")):
        if host.get(field):
            there = " ".join(v2.words(f"/sys/devices/system/{file}")) or "0"
            wanted = numbers_of(host[field], field)
            if not wanted <= numbers_of(there, field):
                raise MinirtError(f"Requested {what} are not available - requested {host[field]}, available: {there}")


def numbers_of(text: str, field: str) -> set[int]:
    """The numbers in a list such as `0-2,5`. Raises MinirtError."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and (not dash or last.isdigit())) or len(part) > 20 or (
                dash and int(last) < int(first)):
            raise MinirtError(f"Invalid value {text} for cpuset {field.removeprefix('Cpuset').lower()}")
        found.update(range(int(first), min(int(last if dash else first), 8191) + 1))
    return found


def leave_out(found: dict[str, Any]) -> list[str]:
    """Take out of `found` what this machine has no control group for; a warning for each, as Docker words them."""
    there = tree.controllers()
    group = tree.group(tree.PARENT)
    version_2 = there.get("memory") == ""
    weight_file = "io" in there or any(
        os.path.exists(f"{there.get('blkio', '')}/{tree.PARENT}/{name}") or os.path.exists(
            f"{there.get('blkio', '')}/{name}") for name in ("blkio.weight", "blkio.bfq.weight"))
    if there.get("io") == "" and os.path.isdir(f"{group.top}/{tree.PARENT}"):
        weight_file = os.path.exists(f"{group.top}/{tree.PARENT}/io.weight") or "io" not in v2.words(
            f"{group.top}/{tree.PARENT}/cgroup.controllers")
    missing = (
        ("Memory", "memory" in there, f"memory limit {GONE} Limitation discarded."),
        ("MemorySwap", "memory" in there and _swap_counts(there["memory"]),
         f"swap limit {GONE} Memory limited without swap." if found.get("MemorySwap", 0) > 0 else ""),
        ("MemoryReservation", "memory" in there, f"memory soft limit {GONE} Limitation discarded."),
        ("MemorySwappiness", "memory" in there and not version_2,
         f"memory swappiness {GONE} Memory swappiness discarded."),
        ("OomKillDisable", "memory" in there and not version_2, "OomKillDisable. OomKillDisable discarded."),
        ("PidsLimit", "pids" in there, f"PIDs limit {GONE} PIDs limit discarded."),
        ("CpuShares", "cpu" in there, "CPU shares or the cgroup is not mounted. Shares discarded."),
        ("CpuPeriod", "cpu" in there, "CPU CFS scheduler or the cgroup is not mounted. Period discarded."),
        ("CpuQuota", "cpu" in there, "CPU CFS scheduler or the cgroup is not mounted. Quota discarded."),
        ("CpusetCpus", "cpuset" in there, "cpuset or the cgroup is not mounted. Cpuset discarded."),
        ("CpusetMems", "cpuset" in there, "cpuset or the cgroup is not mounted. Cpuset discarded."),
        ("BlkioWeight", weight_file, "Block I/O weight or the cgroup is not mounted. Weight discarded."),
        *((field, "io" in there or "blkio" in there,
           f"{unit} Block I/O {direction} limit or the cgroup is not mounted. Block I/O {unit} {direction} limit "
           "discarded.") for field, _, unit, direction in RATES),
    )
    if found.get("NanoCpus") and "cpu" not in there:
        raise MinirtError("NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is "
                          "not mounted")
    warnings = []
    if found.get("OomKillDisable") and not found.get("Memory") and not version_2:
        warnings.append("OOM killer is disabled for the container, but no memory limit is set, this can result in the "
                        "system running out of resources.")
    for field, present, sentence in missing:
        if field in found and not present:
            del found[field]
            if sentence:
                warnings.append(f"Your kernel does not support {sentence}")
    return warnings


def _swap_counts(place: str) -> bool:
    """Whether the kernel accounts swap: always in version 2 with swap built in, in version 1 if it was told to."""
    return os.path.exists(f"{place}/memory.memsw.limit_in_bytes") if place else os.path.exists("/proc/swaps")


# -- for the specification ------------------------------------------------------------------------------------------


def resources(host: Mapping[str, Any]) -> dict[str, Any]:
    """The limits of a "HostConfig" as "resources" of the OCI specification. Raises MinirtError when a device of theirs
    is gone."""
    period, quota = host.get("CpuPeriod", 0), host.get("CpuQuota", 0)
    if host.get("NanoCpus"):
        period, quota = 100000, host["NanoCpus"] * 100000 // 10**9
    made: dict[str, dict[str, Any]] = {
        "memory": {"limit": host.get("Memory"), "reservation": host.get("MemoryReservation"),
                   "swap": host.get("MemorySwap"), "swappiness": host.get("MemorySwappiness"),
                   "disableOOMKiller": host.get("OomKillDisable")},
        "cpu": {"shares": host.get("CpuShares"), "quota": quota, "period": period,
                "cpus": host.get("CpusetCpus"), "mems": host.get("CpusetMems")},
        "pids": {"limit": host.get("PidsLimit")},
        "blockIO": {"weight": host.get("BlkioWeight")},
    }
    for field, name, _, _ in RATES:
        made["blockIO"][name] = [dict(zip(("major", "minor"), device_numbers(each["Path"]), strict=True),
                                      rate=each["Rate"]) for each in host.get(field) or ()]
    wanted = {section: {name: value for name, value in fields.items() if value or (name == "swappiness" and value == 0)}
              for section, fields in made.items()}
    return {section: fields for section, fields in wanted.items() if fields}


def rules(host: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rules of `--device-cgroup-rule`, for the device list."""
    made = []
    for text in host.get("DeviceCgroupRules") or ():
        kind, numbers, access = text.split(" ")
        major, minor = (-1 if each == "*" else int(each) for each in numbers.split(":"))
        made.append({"allow": True, "type": kind, "major": major, "minor": minor, "access": access})
    return made


def device_numbers(path: str) -> tuple[int, int]:
    """Major and minor number of the block or character device at `path`. Raises MinirtError when it is none."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise MinirtError(f"{path}: {(error.strerror or '').lower()}: no device whose rate could be limited") from None
    if not (stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode)):
        raise MinirtError(f"{path} is no device: its rate cannot be limited")
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def update(name: str, host: Mapping[str, Any]) -> None:
    """Change the limits of the running container with the control group `name` to those of `host`, its "HostConfig"
    with the new values in it. Raises MinirtError, OSError."""
    tree.group(name).update(resources(host))

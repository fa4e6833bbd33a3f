"""Chapter 08: a control group: a set of processes that the kernel counts, limits, freezes and kills together.

Version 2 is one tree, a file system in which a directory is a group. mkdir makes one, rmdir removes an empty one.
A process is in one group; its children are born there. What can be limited belongs to a *controller* (memory, cpu,
pids, io, cpuset), and each brings files into every directory that has it: to limit is to write a number to a file, to
measure is to read one.

- A directory has the controllers that its parent hands down: the parent's `cgroup.subtree_control` names them.
- Below the root, a group that hands controllers down may hold no process itself ("no internal processes").
- A limit holds for the group and everything below it.

Rules of the room: a function takes the path of a group. What a container may do is data in the form of "resources" of
the OCI runtime specification; `settings` turns it into files, and `write` is the one place where a file is written.

Manual pages: cgroups(7), Linux Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
import time

from minirt import trace
from minirt.state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHAPTER = 8

CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")  # what a container's group shall have
UNLIMITED = "max"                                        # how these files spell "no limit"
EBUSY = 16                                               # <errno.h>

# Which number of "resources" goes into which file as it is: section, field, file.
FILES = (
    ("memory", "limit", "memory.max"), ("memory", "reservation", "memory.low"),
    ("pids", "limit", "pids.max"), ("cpu", "cpus", "cpuset.cpus"), ("cpu", "mems", "cpuset.mems"),
)
RATES = (
    ("throttleReadBpsDevice", "rbps"), ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"), ("throttleWriteIOPSDevice", "wiops"),
)


def write(path: str, text: str) -> None:
    """Write `text` to the kernel's file `path` in one call, as these files want it. Raises OSError, with the path."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def words(path: str) -> list[str]:
    """The words in the kernel's file `path`; none when it is not there."""
    try:
        return read_file(path).decode().split()
    except OSError:
        return []


# -- a group, and where it gets its controllers --------------------------------------------------------------------


@trace.narrated(CHAPTER, "make the cgroup {name}", "mkdir -p {top}/{name}")
def create(top: str, name: str) -> str:
    """Make the group `name` ("minirt/ID": one level or several) below the directory `top`, and return its path.

    A group has only the controllers that its parent hands down, and the parent only what *its* parent does. So on the
    way down call `enable` for `top` and for each group in between, each before the next level is made; but not for the
    last one: it will hold the processes, and a group that hands controllers down may hold none. Levels that exist
    already are no error. Raises OSError. Sources: cgroups(7), cgroup-v2.rst "Controlling Controllers".
    """
    path = top
    for part in name.split("/"):
        enable(path)
        path = f"{path}/{part}"
        try:
            os.mkdir(path)
        except FileExistsError:
            pass
    return path


def enable(path: str) -> None:
    """Let the groups below `path` have every one of `CONTROLLERS` that `path` has itself.

    systemd, or an earlier container, has often done it: then nothing is written. Where processes live in `path` itself,
    as in a container that is a machine for us, the kernel says EBUSY: they move to a leaf of their own, `init`.
    """
    missing = set(CONTROLLERS) & set(words(f"{path}/cgroup.controllers"))
    missing -= set(words(f"{path}/cgroup.subtree_control"))
    if not missing:
        return
    request = " ".join(f"+{name}" for name in sorted(missing))
    for last in (False, True):
        try:
            write(f"{path}/cgroup.subtree_control", request)
            return
        except OSError as error:
            if error.errno != EBUSY or last:
                raise
            _move_to_leaf(path)


def _move_to_leaf(path: str) -> None:
    """Move the processes that are in the group `path` itself to the group `init` below it."""
    os.makedirs(f"{path}/init", exist_ok=True)
    for pid in processes(path):
        try:
            write(f"{path}/init/cgroup.procs", str(pid))
        except ProcessLookupError:
            pass  # it has ended meanwhile


def processes(path: str) -> list[int]:
    """The pids in the group at `path`, not in those below; empty when it is gone."""
    return [int(word) for word in words(f"{path}/cgroup.procs")]


# -- limits --------------------------------------------------------------------------------------------------------


def settings(resources: dict[str, Any]) -> list[tuple[str, str]]:
    """What to write for `resources`: (file, text) pairs, without a path.

    `resources` has sections, each with fields, all of which may be missing; a field that is missing, None, 0 or empty
    asks for nothing. -1 means no limit, which these files spell `UNLIMITED` (`_text` does).

    - Each field that `FILES` names goes into its file as it stands.
    - "memory" "swap" counts memory *and* swap together, in bytes, as version 1 did; `memory.swap.max` wants the swap
      alone, so take "limit" off. It may come out as 0: no swap at all.
    - "cpu" "quota" and "period", microseconds, together make `cpu.max`: "QUOTA PERIOD". Without a quota it is
      unlimited, without a period it is 100000.
    - "cpu" "shares" goes into `cpu.weight`, converted by `weight`.
    - Then what `io_settings` makes of "blockIO".

    Sources: cgroups(7), cgroup-v2.rst "Controllers", OCI runtime-spec config-linux.md.
    """
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    wanted = []
    for section, field, file in FILES:
        value = (resources.get(section) or {}).get(field)
        if value:
            wanted.append((file, _text(value)))
    if memory.get("swap"):
        swap = memory["swap"]
        wanted.append(("memory.swap.max", UNLIMITED if swap == -1 else str(swap - (memory.get("limit") or 0))))
    if cpu.get("quota") or cpu.get("period"):
        wanted.append(("cpu.max", f"{_text(cpu.get('quota') or -1)} {cpu.get('period') or 100000}"))
    if cpu.get("shares"):
        wanted.append(("cpu.weight", str(weight(cpu["shares"]))))
    return wanted + io_settings(resources.get("blockIO") or {})


def _text(value: Any) -> str:
    """A number as these files want it."""
    return UNLIMITED if value == -1 else str(value)


def weight(shares: int) -> int:
    """The `cpu.weight`, 1 to 10000, for version 1's `shares`, 2 to 262144 (1024 becomes 39).

    It is the conversion of runc up to 1.3.1. Later ones bend the line, so that 1024, version 1's default, becomes
    100, version 2's."""
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142


def io_settings(block: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for the section "blockIO": a weight of 10 to 1000 becomes one of 1 to 10000; each device with a rate
    (bytes or operations a second) gets a line "MAJOR:MINOR KEY=RATE", and each line is a write of its own."""
    wanted = []
    if block.get("weight"):
        wanted.append(("io.weight", f"default {1 + (block['weight'] - 10) * 9999 // 990}"))
    for field, key in RATES:
        for each in block.get(field) or ():
            wanted.append(("io.max", f"{each['major']}:{each['minor']} {key}={each['rate'] or UNLIMITED}"))
    return wanted


@trace.narrated(CHAPTER, "limit it: {file} is {text}", "echo {text!r} > {path}/{file}")
def limit(path: str, file: str, text: str) -> None:
    """Write one setting to the group at `path`; on a group with processes it holds from now on. Raises OSError."""
    write(f"{path}/{file}", text)


# -- the group as a whole ------------------------------------------------------------------------------------------


@trace.narrated(CHAPTER, "kill whatever is in the cgroup", "echo 1 > {path}/cgroup.kill")
def kill(path: str) -> None:
    """Kill every process in the group at `path` and below it, at once.

    Do not list and signal them: a process may fork faster than one can read. The kernel has a file for it,
    `cgroup.kill` (Linux 5.14): a 1 written there also catches forks that are under way. The file is not made if it is
    missing: where the group is gone (FileNotFoundError), nothing is to be done. `write` writes. Raises OSError for any
    other reason. Sources: cgroups(7), cgroup-v2.rst "cgroup.kill".
    """
    try:
        write(f"{path}/cgroup.kill", "1")
    except FileNotFoundError:
        pass


def freeze(path: str, frozen: bool) -> None:
    """Stop all processes of the group at `path`, or let them go on; returns when the kernel says that they stand, or
    the group is gone. Raises OSError (FileNotFoundError when it was gone before)."""
    write(f"{path}/cgroup.freeze", "1" if frozen else "0")
    while pairs(f"{path}/cgroup.events").get("frozen", frozen) != frozen:
        time.sleep(0.001)


def remove(path: str) -> None:
    """Remove the group at `path` and those below it; nothing happens when it is gone.

    The kernel says EBUSY as long as a killed process is on its way out: ask again for up to two seconds.
    Raises OSError after that.
    """
    deadline = time.monotonic() + 2
    while True:
        try:
            _remove_tree(path)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)


def _remove_tree(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError:
        for entry in list(os.scandir(path)):
            if entry.is_dir(follow_symlinks=False):
                _remove_tree(entry.path)
        os.rmdir(path)


# -- what the kernel has counted -----------------------------------------------------------------------------------


def pairs(path: str) -> dict[str, int]:
    """A file of lines "NAME NUMBER" as a table; empty when it is not there."""
    found = words(path)
    return {name: int(number) for name, number in zip(found[::2], found[1::2], strict=False)}


def number(path: str, unlimited: int = -1) -> int:
    """A file with one number; `unlimited` where it says "max", 0 when it is not there."""
    found = words(path)
    return unlimited if found == [UNLIMITED] else int(found[0]) if found else 0


def oom_kills(path: str) -> int:
    """How many processes of the group at `path` the kernel has killed because memory ran out.

    The exit code does not tell: 137 is any SIGKILL, an administrator's too. `memory.events` counts, on a line each,
    how often the limit was touched ("max"), how often it could not be met ("oom"), and how many processes were killed
    for it ("oom_kill"): that last one counts. `pairs` reads such a file. 0 where the file is missing.
    Sources: cgroups(7), cgroup-v2.rst "Memory Interface Files".
    """
    return pairs(f"{path}/memory.events").get("oom_kill", 0)


def statistics(path: str) -> dict[str, Any]:
    """What the group at `path` has used and how it was held back; a part is missing where its controller is.

    "cpu": usage, user, system, throttled in microseconds, periods and throttled_periods as numbers. "memory" and
    "swap": bytes, limit -1 for none; cache is what could be dropped at once (inactive_file). "pids": tasks. "io": per
    device rbytes, wbytes, rios, wios. "pressure" per resource: for "some" and "full" of the tasks, the percentage of
    the last 10, 60, 300 seconds that they waited, and in all, in microseconds. Source: cgroup-v2.rst.
    """
    cpu = pairs(f"{path}/cpu.stat")
    found: dict[str, Any] = {"cpu": {name: cpu.get(key, 0) for name, key in (
        ("usage", "usage_usec"), ("user", "user_usec"), ("system", "system_usec"), ("periods", "nr_periods"),
        ("throttled_periods", "nr_throttled"), ("throttled", "throttled_usec"))}}
    if os.path.exists(f"{path}/memory.current"):
        cache = pairs(f"{path}/memory.stat").get("inactive_file", 0)
        found["memory"] = {"usage": number(f"{path}/memory.current"), "limit": number(f"{path}/memory.max"),
                           "cache": cache, "oom_kills": oom_kills(path)}
        found["swap"] = {"usage": number(f"{path}/memory.swap.current"), "limit": number(f"{path}/memory.swap.max")}
    if os.path.exists(f"{path}/pids.current"):
        found["pids"] = {"current": number(f"{path}/pids.current"), "limit": number(f"{path}/pids.max")}
    if os.path.exists(f"{path}/io.stat"):
        found["io"] = _keyed(f"{path}/io.stat")
    found["pressure"] = {what: _keyed(f"{path}/{what}.pressure") for what in ("cpu", "memory", "io")}
    return found


def _keyed(path: str) -> dict[str, dict[str, float]]:
    """A file of lines "KEY NAME=NUMBER ..." as a table of tables; empty when it cannot be read."""
    try:
        lines = read_file(path).decode().splitlines()
    except OSError:
        return {}
    table = {}
    for line in lines:
        key, *rest = line.split()
        values = (word.partition("=") for word in rest)
        table[key] = {name: float(value) if "." in value else int(value) for name, _, value in values}
    return table


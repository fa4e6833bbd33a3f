"""Chapter 08, the older form: cgroup version 1, for machines that have no version 2 tree at all.

Each controller has a tree of its own there. A bare group needs only one of them, the freezer: there is no cgroup.kill,
so a group is killed by freezing it (nothing in it can fork any more), signalling each process, and thawing it.

Manual pages: cgroups(7), Linux Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst.
"""

from __future__ import annotations

import os
import time

from minirt.cgroups import v2
from minirt.state import read_file

TYPE_CHECKING = False

create = v2.create
processes = v2.processes
remove = v2.remove


def join(path: str) -> None:
    """Move this process, which must have one thread, into the group at `path`: 0 in `tasks` means the writer, and costs
    microseconds where a pid in `cgroup.procs` waits for milliseconds."""
    with open(f"{path}/tasks", "wb", buffering=0) as tasks:
        tasks.write(b"0")


def freeze(path: str, frozen: bool) -> None:
    """Stop all processes of the group at `path`, or let them go on; returns when they stand."""
    wanted = b"FROZEN" if frozen else b"THAWED"
    while True:
        with open(f"{path}/freezer.state", "wb", buffering=0) as switch:
            switch.write(wanted)
        if read_file(f"{path}/freezer.state").strip() == wanted:
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

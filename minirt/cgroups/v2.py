"""Chapter 08: a control group: a set of processes that the kernel counts, limits, freezes and kills together.

In version 2 there is one tree, a file system in which a directory is a group: mkdir makes one, rmdir removes an empty
one, writing a pid to `cgroup.procs` moves a process there, and its children are born there.

Manual pages: cgroups(7), Linux Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
import time

from minirt import trace
from minirt.state import read_file

CHAPTER = 8


@trace.narrated(CHAPTER, "make a cgroup for the container", "mkdir({path!r})")
def create(path: str) -> None:
    """Make the group at `path` (a directory of a cgroup2 file system), with the groups above it. Raises OSError."""
    os.makedirs(path, exist_ok=True)


def processes(path: str) -> list[int]:
    """The pids in the group at `path`, not in those below; empty when it is gone."""
    try:
        return [int(word) for word in read_file(f"{path}/cgroup.procs").split()]
    except (FileNotFoundError, OSError):
        return []


def kill(path: str) -> None:
    """Kill every process in the group at `path` and below it, forks that are under way too (cgroup.kill, Linux 5.14).
    Nothing happens when the group is gone."""
    try:
        descriptor = os.open(f"{path}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(descriptor, b"1")
    finally:
        os.close(descriptor)


def freeze(path: str, frozen: bool) -> None:
    """Stop all processes of the group at `path`, or let them go on; returns when the kernel says that they stand."""
    with open(f"{path}/cgroup.freeze", "wb", buffering=0) as switch:
        switch.write(b"1" if frozen else b"0")
    wanted = b"frozen 1" if frozen else b"frozen 0"
    while wanted not in read_file(f"{path}/cgroup.events"):
        time.sleep(0.001)


def remove(path: str) -> None:
    """Remove the group at `path` and those below it; nothing happens when it is gone.

    The kernel says EBUSY until the last dead process has been collected: ask again for up to two seconds.
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

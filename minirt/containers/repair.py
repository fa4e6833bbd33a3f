"""Chapter 17: what a killed process left half done, finished or taken back.

Every process of ours may be killed at any instant. What the kernel does not clean up by itself is found again from
the state on disk, by whoever next takes the container's lock: a monitor that is gone left `running.json` behind, so
what is left in the cgroup is killed and 137 recorded; a maker that is gone left a directory without a
configuration; a remover that is gone left something in the trash, or a run directory whose container is no more.

Rule of the room: everything here may itself be interrupted and done again.
"""

from __future__ import annotations

import os

from minirt import state
from minirt.containers import erase, record
from minirt.errors import ConflictError, MinirtError, NotFoundError


def lock(container: record.Container, patience: float = 10.0) -> state.Lock:
    """Takes the lock of a container that is not running, and returns it, held.

    A monitor may still be putting its container away: so waits up to `patience` seconds where the container is not
    alive. Raises ConflictError when the container runs (or its monitor does not end), NotFoundError when it was
    removed meanwhile.
    """
    import time

    lock = state.Lock(container.lock_path)
    deadline = time.monotonic() + patience
    pause = 0.001
    while True:
        try:
            # A reboot emptied the run directory.
            os.makedirs(container.run_directory, 0o700, exist_ok=True)
            if lock.acquire(wait=False):
                break
        except FileNotFoundError:
            pass
        if record.derive(container).alive or time.monotonic() > deadline:
            raise ConflictError(f"container {container.id} is in use by another process")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    if not os.path.isdir(container.directory):
        erase.clean(container)
        lock.release()
        raise NotFoundError(f"No such container: {container.id}")
    return lock


def hold(container: record.Container) -> state.Lock:
    """Takes the lock as `lock` does, and repairs the container."""
    held = lock(container)
    try:
        repair(container)
    except OSError:
        held.release()
        raise
    return held


def repair(container: record.Container) -> None:
    """Puts right what a lost monitor left. The caller holds the lock, so nobody else works on this container."""
    if not record.derive_unlocked(container).lost:
        return
    erase.remove_group(container)
    end = {
        "status": "exited",
        "started": container.config.get("Started", ""),
        "finished": state.now(),
        "code": record.LOST,
        "error": "the monitor of the container was lost",
    }
    state.write_json(f"{container.directory}/outcome.json", end)
    for name in ("running.json", "socket"):
        try:
            os.unlink(f"{container.run_directory}/{name}")
        except FileNotFoundError:
            pass
    container.tell("die", exitCode=record.LOST)


def sweep(lost: bool = True) -> None:
    """Takes away what belongs to no container: half made ones, half removed ones, and, with `lost`, those that were
    to be removed at their end and whose monitor is gone.
    """
    known = set(record.ids())
    try:
        running = set(os.listdir(f"{state.run_root()}/containers"))
    except FileNotFoundError:
        running = set()
    try:
        thrown = set(os.listdir(f"{state.root()}/trash"))
    except FileNotFoundError:
        thrown = set()
    for id in known:
        if not os.path.exists(f"{state.root()}/containers/{id}/config.json"):
            _take_away(record.Container(id, {}))
    for id in (running | thrown) - known:
        _take_away(record.Container(id, {}))
    for id in known & running if lost else ():
        try:
            container = record.load(id)
        except MinirtError:
            continue
        if container.config["HostConfig"]["AutoRemove"] and record.derive(container).lost:
            _take_away(container)


def _take_away(container: record.Container) -> None:
    """Removes a container unless somebody holds its lock: then it is being made, run or removed right now."""
    try:
        os.makedirs(container.run_directory, 0o700, exist_ok=True)
        lock = state.Lock(container.lock_path)
        if lock.acquire(wait=False):
            if not os.path.exists(f"{container.directory}/config.json"):
                erase.erase(container, lock)
            elif record.derive_unlocked(container).lost:
                erase.destroy(container, lock)
            lock.release()
    except OSError:
        pass  # another one sweeps too, or something cannot be removed now: the next sweep comes

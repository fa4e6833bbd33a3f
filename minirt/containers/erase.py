"""Chapter 17: how a container is erased: at once for whoever looks, and then piece by piece.

One rename, from `containers/ID` to `trash/ID`, takes the record away and makes the container's pins and its name
void in the same instant. What takes longer comes after: the cgroup, the files it wrote, the run directory. If that
is interrupted, `repair.sweep` finds the rest, because the run directory, which has the id, goes last.

Manual pages: rename(2), flock(2).
"""

from __future__ import annotations

import os

from minirt import state, trace
from minirt.cgroups import tree
from minirt.containers import first_process, record
from minirt.errors import MinirtError

CHAPTER = 17


@trace.narrated(CHAPTER, "forget the container: its record, its name, its pins", "rename(containers/ID, trash/ID)")
def vanish(container: record.Container) -> None:
    """Takes the container out of every list. The caller holds its lock, and it has no process any more."""
    trash = f"{state.root()}/trash"
    try:
        os.rename(container.directory, f"{trash}/{container.id}")
    except FileNotFoundError:
        os.makedirs(trash, 0o700, exist_ok=True)
        try:
            os.rename(container.directory, f"{trash}/{container.id}")
        except FileNotFoundError:
            pass  # it never had one, or somebody was here before
    if container.name:
        record.release_name(container.name, container.id)


def clean(container: record.Container) -> None:
    """Removes what `vanish` left: cgroup, pin, files, run directory. Each step finds out by itself whether it was
    done.
    """
    remove_group(container)
    for chain in container.config.get("Layers", ())[-1:]:
        state.unpin(f"{state.root()}/layers/{chain}", container.id)
    if not container.config:
        forget_claims(container.id)
    if "IDMappings" in container.config.get("HostConfig", ()):
        from minirt.containers import remap

        remap.release(container)
    empty_trash(container.id)
    try:
        # The lock goes last; what a killed monitor was still writing (running.json.PID.tmp) goes too.
        for name in sorted(os.listdir(container.run_directory), key="lock".__eq__):
            try:
                os.unlink(f"{container.run_directory}/{name}")
            except FileNotFoundError:
                pass
        os.rmdir(container.run_directory)
    except OSError:
        pass  # somebody waits for the lock in there; whoever sweeps next removes it


def forget_claims(id: str) -> None:
    """Removes the names and the pins that lead to a container that is gone and whose configuration nobody can
    read.
    """
    names = f"{state.root()}/names"
    for name in os.listdir(names) if os.path.isdir(names) else ():
        try:
            if os.readlink(f"{names}/{name}").endswith(id):
                record.release_name(name, id)
        except FileNotFoundError:
            pass  # somebody else gave it back just now
    layers = f"{state.root()}/layers"
    for chain in os.listdir(layers) if os.path.isdir(layers) else ():
        if os.path.lexists(f"{layers}/{chain}/pins/{id}"):
            state.unpin(f"{layers}/{chain}", id)


def erase(container: record.Container, lock: state.Lock) -> None:
    """Takes away all of a container that is only half made, and gives the lock back."""
    vanish(container)
    clean(container)
    lock.release()


def destroy(container: record.Container, lock: state.Lock) -> None:
    """Takes away all of a container, and tells it to those who watch events."""
    erase(container, lock)
    container.tell("destroy")


def remove_group(container: record.Container) -> None:
    """Kills whatever is left in the container's cgroup and removes it."""
    try:
        group = tree.group(container.group_name)
    except MinirtError:
        return
    if not group.version:
        kill_first(container)
    if group.exists():
        group.kill()
        group.remove()


def kill_first(container: record.Container) -> None:
    """Where no control group was delegated: kills the container's first process, with which the others of its pid
    namespace die."""
    pidfd = first_process.hold(container)
    if pidfd >= 0:
        first_process.send(pidfd, first_process.SIGKILL)
        first_process.wait(pidfd, 2)
        os.close(pidfd)


def empty_trash(id: str) -> None:
    """Removes the files of a container that has vanished, whatever tree a stranger may have built there."""
    if os.geteuid():
        if os.path.lexists(f"{state.root()}/trash/{id}"):
            from minirt.namespaces import rootless

            rootless.call(lambda: empty_trash(id))  # what a container wrote has many owners
        return
    try:
        trash = os.open(f"{state.root()}/trash", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        from minirt.kernel import paths

        paths.remove_tree(trash, id)
    finally:
        os.close(trash)

"""Chapter 17: what is known of a container, and where it lies.

A container is a directory. Below the root, and so across a reboot: `containers/ID/` with `config.json` (what was
asked for, in Docker's words), `outcome.json` (how its last run ended), `upper/` and `work/` (what it wrote), `log`;
and `names/NAME`, a symlink to that directory. Below the run directory, gone with a reboot: `containers/ID/` with
`lock`, `running.json` (the monitor, the first process, its cgroup) and `socket`.

Nothing on disk says "running". A container runs while its monitor holds the lock, and the kernel takes the lock away
with the monitor: so the state is *derived* each time, and cannot be wrong after a crash. This room only reads and
derives; what a crash has left half done is put right by `repair`.

Sources: flock(2), symlink(2); Docker Engine API, "Inspect a container".
"""

from __future__ import annotations

import os
import time

from minirt import state
from minirt.errors import BadInputError, ConflictError, MinirtError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NEVER = "0001-01-01T00:00:00Z"  # Docker's way to say "not yet"
LOST = 137  # what is recorded for a container whose monitor was killed: it was killed with it


class Container:
    """One container: its id, its configuration, and paths that follow from the id."""

    __slots__ = ("config", "directory", "id", "run_directory")

    def __init__(self, id: str, config: dict[str, Any]) -> None:
        self.id = id
        self.config = config
        self.directory = f"{state.root()}/containers/{id}"
        self.run_directory = f"{state.run_root()}/containers/{id}"

    @property
    def name(self) -> str:
        """The name it was given, or that was invented for it."""
        return str(self.config.get("Name", ""))

    @property
    def lock_path(self) -> str:
        """The file whose lock the monitor holds for its whole life."""
        return f"{self.run_directory}/lock"

    @property
    def log_path(self) -> str:
        """The file with what the container printed."""
        return f"{self.directory}/log"

    @property
    def group_name(self) -> str:
        """The name of its control group (see `cgroups.tree`): below the parent that was asked for, or below ours."""
        parent = self.config.get("HostConfig", {}).get("CgroupParent", "").strip("/")
        return f"{parent or 'minirt'}/{self.id}"

    def first_lock(self) -> state.Lock:
        """Makes the run directory of a new container and takes its lock.

        A sweep that comes between the two takes the directory for something left behind: then once more.
        """
        lock = state.Lock(self.lock_path)
        while True:
            os.makedirs(self.run_directory, 0o700, exist_ok=True)
            try:
                lock.acquire()
                return lock
            except FileNotFoundError:
                pass

    def save(self, sync: bool = True) -> None:
        """Writes the configuration; with `sync` it is on the disk when this returns."""
        state.write_json(f"{self.directory}/config.json", self.config, sync=sync)

    def tell(self, action: str, **more: object) -> None:
        """Adds an event of this container to the log that `events` shows: `action` in Docker's words, with image, name,
        labels and `more`. A log that cannot be written stops nobody.
        """
        from minirt import events

        config = self.config.get("Config", {})
        about = {**config.get("Labels", {}), "image": config.get("Image", ""), "name": self.name}
        try:
            events.append("container", action, self.id, {**about, **{key: str(value) for key, value in more.items()}})
        except OSError:
            pass

    def running(self) -> dict[str, Any] | None:
        """What the monitor wrote about the run that is (or was) under way, or None."""
        return _read(f"{self.run_directory}/running.json")

    def outcome(self) -> dict[str, Any] | None:
        """How the last run ended, or None."""
        return _read(f"{self.directory}/outcome.json")


class State:
    """What a container is doing: derived by `derive`, never stored.

    `status`: one of Docker's words (created, running, paused, exited, removing, dead). `lost`: dead because its monitor
    was killed. `pid`: its first process as the host numbers it, 0 when there is none. `code`, `error`, `started`,
    `finished`: of the last run. `out_of_memory`: the kernel has killed a process of it for want of memory.
    """

    __slots__ = ("code", "error", "finished", "lost", "out_of_memory", "pid", "started", "status")

    def __init__(self, status: str) -> None:
        self.status, self.lost, self.pid, self.code, self.error = status, False, 0, 0, ""
        self.out_of_memory = False
        self.started = self.finished = NEVER

    @property
    def alive(self) -> bool:
        """Whether it has processes."""
        return self.status in ("running", "paused")


def _read(path: str) -> dict[str, Any] | None:
    try:
        value = state.read_json(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def derive(container: Container) -> State:
    """The state of a container, from its files and its lock.

    Files and lock are looked at one after the other, and a monitor may come or go in between. So one that seems to be
    lost is looked at once more: what a monitor writes is there before it lets go of the lock.
    """
    now = _derive(container, lambda: state.locked(container.lock_path))
    return _derive(container, lambda: state.locked(container.lock_path)) if now.lost else now


def derive_unlocked(container: Container) -> State:
    """The same for one who holds the lock himself, and so knows that there is no monitor."""
    return _derive(container, lambda: False)


def _derive(container: Container, locked: Callable[[], bool]) -> State:
    running = container.running()
    started = container.config.get("Started", "")
    if running is not None:
        held = locked()
        now = State(("paused" if _frozen(running["cgroup"]) else "running") if held else "dead")
        now.started = running["started"]
        now.lost = not held
        now.pid = running["pid"]["pid"] if held else 0
        now.code = 0 if held else LOST
        return now
    outcome = container.outcome()
    if outcome is not None and outcome.get("started", "") >= started:  # the configuration may have been read before
        now = State(outcome.get("status", "exited"))
        now.code, now.error = outcome["code"], outcome.get("error", "")
        now.out_of_memory = outcome.get("oom", False)
        now.started, now.finished = outcome.get("started") or NEVER, outcome["finished"]
        return now
    if not os.path.isdir(container.directory):
        return State("removing")
    if started and not locked():
        # It was started and nobody says how it ended: the machine went down with it.
        now = State("dead")
        now.lost, now.code, now.started = True, LOST, started
        return now
    return State("created")


def _frozen(group: str) -> bool:
    """Whether the kernel lets the processes of a control group, its directory, stand still (chapter 08)."""
    for file, standing in (("cgroup.freeze", (b"1",)), ("freezer.state", (b"FROZEN", b"FREEZING"))):
        try:
            return state.read_file(f"{group}/{file}").strip() in standing
        except OSError:
            continue  # the other version, or it is gone
    return False


def words(now: State) -> str:
    """The state as `ps` words it: `Up 3 minutes`, `Exited (0) 2 minutes ago`, `Created`."""
    from minirt import units

    if now.alive:
        text = "Up " + units.human_duration(time.time() - state.parse_time(now.started))
        return text + " (Paused)" if now.status == "paused" else text
    if now.status == "exited":
        return f"Exited ({now.code}) {units.human_ago(time.time() - state.parse_time(now.finished))}"
    if now.lost:
        return "Dead (monitor lost)"
    return now.status.capitalize()


# -- finding -----------------------------------------------------------------------------------------------------


def load(id: str) -> Container:
    """The container with that full id. Raises NotFoundError; BadInputError when its configuration cannot be read."""
    try:
        config = state.read_json(f"{state.root()}/containers/{id}/config.json")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"No such container: {id}") from None
    except ValueError as error:
        raise BadInputError(f"container {id[:12]} has no readable configuration: {error}") from None
    return Container(id, config)


def ids() -> list[str]:
    """The ids of all container directories, those that are only half made among them."""
    try:
        return os.listdir(f"{state.root()}/containers")
    except FileNotFoundError:
        return []


def listing() -> list[Container]:
    """All containers, the youngest first. One that is half made or just being removed is passed over."""
    found = []
    for id in ids():
        try:
            found.append(load(id))
        except MinirtError:
            continue
    return sorted(found, key=lambda container: container.config["Created"], reverse=True)


def find(text: str) -> Container:
    """The container that `text` means: its full id, its name, or the beginning of its id.

    Raises NotFoundError, or ConflictError when several ids begin like that; in Docker's words.
    """
    if text and "/" not in text.lstrip("/"):
        text = text.lstrip("/")
        if len(text) == 64 and os.path.isdir(f"{state.root()}/containers/{text}"):
            return load(text)
        owner = name_owner(text)
        if owner:
            return load(owner)
        if is_hexadecimal(text):
            matches = [id for id in ids() if id.startswith(text)]
            if len(matches) > 1:
                raise ConflictError(f"multiple IDs found with provided prefix: {text}")
            if matches:
                return load(matches[0])
    raise NotFoundError(f"No such container: {text}")


def is_hexadecimal(text: str) -> bool:
    """Whether `text` can be the beginning of an id."""
    return bool(text) and not text.strip("0123456789abcdef")


# -- names -------------------------------------------------------------------------------------------------------


def check_name(name: str) -> None:
    """Raises MinirtError, in Docker's words, for a name that no container may have."""
    allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    if len(name) < 2 or name[0] not in allowed or name.strip(allowed + "_.-"):
        raise MinirtError(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")


def name_owner(name: str) -> str:
    """The id of the container that has this name; empty when nobody has it or its claim is void.

    A claim is void when the container's directory is gone, or when the container is called something else by now.
    """
    path = f"{state.root()}/names/{name}"
    try:
        target = os.readlink(path)
    except (OSError, ValueError):
        return ""
    id = target.rsplit("/", 1)[-1]
    config = _read(f"{state.root()}/containers/{id}/config.json")
    if config is None:
        # Half made: the claim counts while whoever makes it lives.
        there = os.path.isdir(f"{state.root()}/containers/{id}")
        return id if there and state.locked(f"{state.run_root()}/containers/{id}/lock") else ""
    return id if config.get("Name") == name else ""


def naming() -> state.Lock:
    """The lock under which names are claimed and given back. Who renames holds it until the configuration says so, too:
    before that his claim is void."""
    return state.Lock(f"{state.run_root()}/names.lock")


def claim_name(name: str, id: str) -> None:
    """Takes a name for the container `id`, whose directory must be there; the caller holds `naming`. A void claim is
    replaced. Raises ConflictError, in Docker's words, when it is taken.
    """
    names = f"{state.root()}/names"
    owner = name_owner(name)
    if owner and owner != id:
        raise ConflictError(
            f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )
    try:
        os.unlink(f"{names}/{name}")
    except FileNotFoundError:
        os.makedirs(names, 0o711, exist_ok=True)
    state.claim(names, name, f"../containers/{id}")


def release_name(name: str, id: str) -> None:
    """Gives a name back, unless it belongs to another container by now."""
    path = f"{state.root()}/names/{name}"
    with naming():
        try:
            if os.readlink(path).rsplit("/", 1)[-1] == id:
                os.unlink(path)
        except OSError:
            pass

"""Chapter 17: how a container comes to be: a name, a directory, a configuration.

A container is *made* before it is *started*, and in an order that leaves nothing nameless behind when whoever makes
it is killed: first the run directory with its lock, held by the maker; then the container's directory; then the
name; then the pin on the image's layers; last the configuration. A directory without a readable configuration whose
lock is free is half made, and `repair.sweep` takes it away.

The configuration is what was asked for and what the image says, merged by Docker's rules and in Docker's words
("Config" and "HostConfig" of its API), so that `inspect` shows it as it stands and every start begins from it alone.

Source: Docker Engine API, "Create a container".
"""

from __future__ import annotations

import os

from minirt import state, trace
from minirt.containers import record
from minirt.errors import ConflictError, MinirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from minirt.images.lookup import Image

CHAPTER = 17


class Creation:
    """A container being made: `container`, and the `lock` that its maker holds."""

    __slots__ = ("container", "lock")

    def __init__(self, container: record.Container, lock: state.Lock) -> None:
        self.container, self.lock = container, lock


def make(asked: Mapping[str, Any], arguments: Sequence[str]) -> Creation:
    """Makes the container that `run` or `create` asks for; its configuration is not written yet.

    `asked`: option values by long name. `arguments`: the image and the command line. Returns the container, its
    lock held. Raises MinirtError when the image is missing, the name is taken, or what was asked contradicts
    itself; then nothing is left behind.
    """
    from minirt.images import lookup

    contradict(asked)
    if asked["name"]:
        record.check_name(asked["name"])
    image = lookup.find(arguments[0])
    config = compose(asked, arguments, image)
    creation = reserve(asked["name"], config)
    try:
        pin(creation.container)
    except BaseException:
        abandon(creation)
        raise
    return creation


def contradict(asked: Mapping[str, Any]) -> None:
    """Raises MinirtError, in Docker's words, for options that exclude each other."""
    if asked["uts"] == "host" and (asked["hostname"] or asked["domainname"]):
        raise ConflictError("conflicting options: hostname and the UTS mode")
    if asked["network"] == "host" and asked["uts"] != "host" and asked["domainname"]:
        raise ConflictError("conflicting options: domainname and the network mode")
    if asked["network"].startswith("container:") and asked["hostname"]:
        raise ConflictError("conflicting options: hostname and the network mode")
    if asked["workdir"] and not asked["workdir"].startswith("/"):
        raise MinirtError(f"the working directory '{asked['workdir']}' is invalid, it needs to be an absolute path")


@trace.narrated(CHAPTER, "take a name and a directory for the container", "mkdir, flock, symlink")
def reserve(name: str, config: dict[str, Any]) -> Creation:
    """Takes an id, both directories, the lock, and the name: `name`, or one that is invented when it is empty.

    Raises ConflictError when the name is taken; then nothing is left behind.
    """
    container = record.Container(state.new_id(), config)
    config["Id"], config["Created"] = container.id, state.now()
    if not config["Config"]["Hostname"]:
        config["Config"]["Hostname"] = os.uname().nodename if _host_name(config) else container.id[:12]
    os.makedirs(container.run_directory, 0o700)
    creation = Creation(container, state.Lock(container.lock_path))
    creation.lock.acquire()
    try:
        os.makedirs(container.directory, 0o710)
        if name:
            record.claim_name(name, container.id)
            config["Name"] = name
        else:
            config["Name"] = _invented_name(container.id)
    except BaseException:
        abandon(creation)
        raise
    return creation


def _host_name(config: dict[str, Any]) -> bool:
    host = config["HostConfig"]
    return "host" in (host["UTSMode"], host["NetworkMode"])


def _invented_name(id: str) -> str:
    from minirt.containers import names

    while True:
        name = names.invent()
        try:
            record.claim_name(name, id)
            return name
        except ConflictError:
            continue


def pin(container: record.Container) -> None:
    """Says at the image's topmost layer (and so for all below it) that this container uses it.

    Raises MinirtError when the layer is gone: somebody removed the image in between.
    """
    chains = container.config["Layers"]
    if chains:
        layer = f"{state.root()}/layers/{chains[-1]}"
        state.pin(layer, container.id, f"../../../containers/{container.id}")
        if not os.path.isdir(f"{layer}/diff"):
            raise MinirtError(f"the image {container.config['Config']['Image']} was removed meanwhile: try again")


def abandon(creation: Creation) -> None:
    """Takes back what `reserve` and `pin` made."""
    from minirt.containers import remove

    remove.erase(creation.container, creation.lock)


# -- what the image says and what was asked, merged --------------------------------------------------------------


def compose(asked: Mapping[str, Any], arguments: Sequence[str], image: Image) -> dict[str, Any]:
    """The configuration of a container, without id, name and time. Raises MinirtError when there is no command."""
    from minirt.containers import mounts, values

    theirs = image.config.get("config") or {}
    entrypoint, command = command_line(asked, arguments[1:], theirs)
    if not [*entrypoint, *command]:
        raise MinirtError("no command specified")
    words = [*entrypoint, *command]
    given = [] if not (asked["env"] or asked["env-file"]) else values.environment(
        asked["env-file"], asked["env"], os.environ
    )
    bound = [*asked["volume"], *asked["mount"]]
    if bound:
        mounts.check_sources(bound)
    return {
        "Id": "",
        "Name": "",
        "Created": "",
        "Started": "",
        "Path": words[0],
        "Args": words[1:],
        "Image": image.id,
        "Layers": image.chains,
        "Config": {
            "Hostname": asked["hostname"],
            "Domainname": asked["domainname"],
            "User": asked["user"] or theirs.get("User") or "",
            "Tty": asked["tty"],
            "OpenStdin": asked["interactive"],
            "StdinOnce": asked["interactive"] and not asked["detach"],
            "Env": values.merged(theirs.get("Env") or [], given) if given else list(theirs.get("Env") or []),
            "Cmd": command or None,
            "Image": arguments[0],
            "Volumes": theirs.get("Volumes") or None,
            "WorkingDir": asked["workdir"] or theirs.get("WorkingDir") or "",
            "Entrypoint": entrypoint or None,
            "Labels": {**(theirs.get("Labels") or {}), **values.labels(asked["label-file"], asked["label"])},
            "StopSignal": asked["stop-signal"] or theirs.get("StopSignal") or "",
            "StopTimeout": asked["stop-timeout"],
        },
        "HostConfig": {
            "AutoRemove": asked["rm"],
            "NetworkMode": asked["network"],
            "IpcMode": asked["ipc"] or "private",
            "PidMode": asked["pid"],
            "UTSMode": asked["uts"],
            "ReadonlyRootfs": asked["read-only"],
            "ShmSize": asked["shm-size"],
            "Init": asked["init"],
            "OomScoreAdj": asked["oom-score-adj"],
            "GroupAdd": asked["group-add"],
            "Ulimits": asked["ulimit"],
            "Devices": asked["device"],
            "Mounts": bound,
            "Tmpfs": dict(asked["tmpfs"]),
            "ContainerIDFile": asked["cidfile"],
        },
    }


def command_line(
    asked: Mapping[str, Any], command: Sequence[str], theirs: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Entrypoint and command, by Docker's rules.

    The image's command counts only when neither a command nor an entrypoint was given: a new entrypoint would not
    know what to do with the old one's arguments. `--entrypoint ""` takes the image's away.
    """
    if asked["entrypoint"] is not None:
        return ([asked["entrypoint"]] if asked["entrypoint"] else []), list(command)
    return list(theirs.get("Entrypoint") or []), list(command) or list(theirs.get("Cmd") or [])

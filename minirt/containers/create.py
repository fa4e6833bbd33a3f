"""Chapter 17: how a container comes to be: a name, a directory, a configuration.

A container is *made* before it is *started*, and in an order that leaves nothing nameless behind when whoever makes
it is killed: first the run directory with its lock, held by the maker; then the container's directory; then the pin on
the image's layers; then the name; last the configuration. A directory without a readable configuration whose
lock is free is half made, and `repair.sweep` takes it away.

What the configuration says stands in `configure`.

Source: Docker Engine API, "Create a container".
"""

from __future__ import annotations

import os
import time

from minirt import state, trace
from minirt.containers import configure, record
from minirt.errors import ConflictError, MinirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from minirt.images.ready import Image

CHAPTER = 17
PAUSES = (0, 0.001, 0.01, 0.1, 1, 2)  # seconds before each look at an image whose layer may not be in its place


def make(asked: Mapping[str, Any], arguments: Sequence[str], id: str = "") -> record.Container:
    """Makes the container that `run` or `create` asks for.

    `asked`: option values by long name. `arguments`: the image and the command line. `id`: of a container whose
    lock a monitor holds already; it will also write the configuration. Without one, both are done here. Raises
    MinirtError when the image is missing, the name is taken, or what was asked contradicts itself; then nothing is
    left behind.
    """
    contradict(asked)
    name = asked["name"].removeprefix("/")
    if name:
        record.check_name(name)
    container = record.Container(id or state.new_id(), {})
    lock = None
    if not id:
        lock = container.first_lock()
    make_directory(container)
    try:
        config = configure.configuration(asked, arguments, pinned_image(arguments[0], container.id))
        container.config = {**config, "Id": container.id, "Created": state.now()}
        if asked["userns"] == "auto":
            from minirt.containers import remap

            container.config["HostConfig"].update(remap.fields(asked, container.id))
        elif asked["userns"] == "keep-id":
            from minirt.containers import keep

            keep.choose(asked, container)
        host_name(container)
        take_name(container, name)
        if lock:
            container.save()
            container.tell("create")
    except BaseException:
        from minirt.containers import erase

        if lock:
            erase.erase(container, lock)
        else:
            erase.vanish(container)
            erase.clean(container)
        raise
    if lock:
        lock.release()
    return container


def contradict(asked: Mapping[str, Any]) -> None:
    """Raises MinirtError, in Docker's words, for options that exclude each other."""
    if asked["uts"] == "host" and (asked["hostname"] or asked["domainname"]):
        raise ConflictError("conflicting options: hostname and the UTS mode")
    if asked["network"] == "host" and asked["uts"] != "host" and asked["domainname"]:
        raise ConflictError("conflicting options: domainname and the network mode")
    joined = asked["network"].startswith("container:")
    if joined and asked["hostname"]:
        raise ConflictError("conflicting options: hostname and the network mode")
    if joined and asked["dns"]:
        raise ConflictError("conflicting options: dns and the network mode")
    if joined and asked["add-host"]:
        raise ConflictError("conflicting options: custom host-to-IP mapping and the network mode")
    if (joined or asked["network"] == "host") and asked["mac-address"]:
        raise ConflictError("conflicting options: mac-address and the network mode")
    if asked["workdir"] and not asked["workdir"].startswith("/"):
        raise MinirtError(f"the working directory '{asked['workdir']}' is invalid, it needs to be an absolute path")


@trace.narrated(CHAPTER, "make a directory for the container", "mkdir({container.directory!r})")
def make_directory(container: record.Container) -> None:
    """Makes the container's directory. Its lock is held already: a directory whose lock is free is half made."""
    os.makedirs(container.directory, 0o710)


def pinned_image(name: str, id: str) -> Image:
    """The image that `name` means, with a pin at its topmost layer (and so for all below it): this container uses it.

    Between the look and the pin somebody may remove the image, bring another of that name, or only find out that it
    is in use, for which a layer is put aside for a moment. So what is not there is looked for again. Raises as
    `ready.find` when the image is gone, and MinirtError when the store has lost its layer.
    """
    from minirt.images import ready

    for pause in PAUSES:
        time.sleep(pause)
        image = ready.find(name)
        if not image.chains:
            return image
        layer = f"{state.root()}/layers/{image.chains[-1]}"
        try:
            state.pin(layer, id, f"../../../containers/{id}")
            if os.path.isdir(f"{layer}/diff"):
                return image
            state.unpin(layer, id)
        except FileNotFoundError:
            pass
    raise MinirtError(f"the image {name} has lost a layer: 'minirt system check --repair' mends the store")


def take_name(container: record.Container, name: str) -> None:
    """Claims `name`, or one that is invented when it is empty. Raises ConflictError when it is taken."""
    def claim(name: str) -> None:
        with record.naming():
            record.claim_name(name, container.id)
        container.config["Name"] = name

    if name:
        try:
            claim(name)
        except ConflictError:
            from minirt.containers import repair

            repair.sweep()  # its owner may be one that was to go with its end, and that lost its monitor
            claim(name)
    while not container.name:
        from minirt.containers import names

        try:
            claim(names.invent())
        except ConflictError:
            continue


def host_name(container: record.Container) -> None:
    """The host name that was not given: the machine's where its names or network are shared, that of the container
    whose network is joined, else from the id."""
    host = container.config["HostConfig"]
    if host["NetworkMode"].startswith("container:"):
        other = record.find(host["NetworkMode"].partition(":")[2])
        host["NetworkMode"] = f"container:{other.id}"
        if not container.config["Config"]["Hostname"] and host["UTSMode"] != "host":
            for field in ("Hostname", "Domainname"):
                container.config["Config"][field] = other.config["Config"][field]
    if not container.config["Config"]["Hostname"]:
        shared = "host" in (host["UTSMode"], host["NetworkMode"])
        container.config["Config"]["Hostname"] = os.uname().nodename if shared else container.id[:12]

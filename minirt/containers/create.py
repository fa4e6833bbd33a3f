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

    from minirt.images.ready import Image

CHAPTER = 17


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
        from minirt.images import ready

        config = compose(asked, arguments, ready.find(arguments[0]))
        container.config = {**config, "Id": container.id, "Created": state.now()}
        if asked["userns"] == "auto":
            from minirt.containers import remap

            container.config["HostConfig"].update(remap.fields(asked, container.id))
        elif asked["userns"] == "keep-id":
            from minirt.containers import keep

            keep.choose(asked, container)
        host_name(container)
        take_name(container, name)
        pin(container)
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


# -- what the image says and what was asked, merged --------------------------------------------------------------


def compose(asked: Mapping[str, Any], arguments: Sequence[str], image: Image) -> dict[str, Any]:
    """The configuration of a container, without id, name and time. Raises MinirtError when there is no command."""
    theirs = image.config.get("config") or {}
    entrypoint, command = command_line(asked, arguments[1:], theirs)
    if not [*entrypoint, *command]:
        raise MinirtError("no command specified")
    words = [*entrypoint, *command]
    env = list(theirs.get("Env") or [])
    if asked["env"] or asked["env-file"]:
        from minirt.containers import values

        given = values.merged((), values.environment(asked["env-file"], asked["env"], os.environ))
        names = {text.partition("=")[0] for text in given}
        env = [*given, *(text for text in env if text.partition("=")[0] not in names)]
    labels = dict(theirs.get("Labels") or {})
    if asked["label"] or asked["label-file"]:
        from minirt.containers import values

        labels.update(values.labels(asked["label-file"], asked["label"]))
    if asked["cap-add"]:
        from minirt import capabilities  # which the monitor loads meanwhile: an ordinary start needs it only there

        capabilities.available(asked["cap-add"])
    bound = [*asked["volume"], *asked["mount"]]
    if bound:
        from minirt.containers import mounts

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
            "MacAddress": asked["mac-address"],
            "User": asked["user"] or theirs.get("User") or "",
            **attached(asked),
            **noted(asked, theirs),
            "Tty": asked["tty"],
            "OpenStdin": asked["interactive"],
            "StdinOnce": asked["interactive"] and not asked["detach"],
            "Env": env,
            "Cmd": command or None,
            "Image": arguments[0],
            "Volumes": theirs.get("Volumes") or None,
            "WorkingDir": asked["workdir"] or theirs.get("WorkingDir") or "",
            "Entrypoint": entrypoint or None,
            "Labels": labels,
            "StopSignal": asked["stop-signal"] or theirs.get("StopSignal") or "",
            "StopTimeout": asked["stop-timeout"],
        },
        "HostConfig": {
            "AutoRemove": asked["rm"],
            "NetworkMode": asked["network"],
            "Dns": asked["dns"],
            "DnsOptions": asked["dns-option"],
            "DnsSearch": asked["dns-search"],
            "ExtraHosts": asked["add-host"],
            "IpcMode": asked["ipc"] or "private",
            "PidMode": asked["pid"],
            "UTSMode": asked["uts"],
            "UsernsMode": asked["userns"],
            "ReadonlyRootfs": asked["read-only"],
            "ShmSize": asked["shm-size"],
            "Init": asked["init"],
            "OomScoreAdj": asked["oom-score-adj"],
            "GroupAdd": asked["group-add"],
            "Privileged": asked["privileged"],
            "CapAdd": asked["cap-add"],
            "CapDrop": asked["cap-drop"],
            **security(asked["security-opt"]),
            "Sysctls": dict(asked["sysctl"]),
            "Ulimits": asked["ulimit"],
            "Devices": asked["device"],
            "Mounts": bound,
            "Tmpfs": dict(asked["tmpfs"]),
            "ContainerIDFile": asked["cidfile"],
            **({"Annotations": asked["annotation"]} if asked["annotation"] else {}),
            **({"LogConfig": asked["log"]} if "log" in asked else {}),
            **asked.get("limits", {}),
        },
    }


def attached(asked: Mapping[str, Any]) -> dict[str, bool]:
    """The fields of "Config" that say which streams the command that made the container was to have."""
    streams = asked["attach"] or ["stdout", "stderr", *(["stdin"] if asked["interactive"] else [])]
    if asked["detach"]:
        streams = []
    return {f"Attach{name}": name.lower() in streams for name in ("Stdin", "Stdout", "Stderr")}


def noted(asked: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of "Config" that nothing here acts upon, and that it has only where there is something to say: ports
    that the program listens on, and the command that tells its health."""
    ports = {**(theirs.get("ExposedPorts") or {}), **{port: {} for ports in asked["expose"] for port in ports}}
    health = {"Test": ["NONE"]} if asked["no-healthcheck"] else theirs.get("Healthcheck")
    return {name: value for name, value in (("ExposedPorts", ports), ("Healthcheck", health)) if value}


def security(options: Sequence[str]) -> dict[str, Any]:
    """The fields of "HostConfig" for `--security-opt`: `systempaths=unconfined` is no option of a container in Docker's
    words, but two empty lists."""
    if "systempaths=unconfined" not in options:
        return {"SecurityOpt": options}
    return {"SecurityOpt": [each for each in options if each != "systempaths=unconfined"],
            "MaskedPaths": [], "ReadonlyPaths": []}


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

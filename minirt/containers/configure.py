"""Chapter 17: the configuration of a container: what was asked and what the image says, merged by Docker's rules.

It is kept in Docker's words ("Config" and "HostConfig" of its API), so that `inspect` shows it as it stands and every
start begins from it alone. What was asked counts before what the image says; lists of variables and labels are merged.

Sources: Docker Engine API, "Create a container"; OCI image-spec config.md.
"""

from __future__ import annotations

import os

from minirt.errors import MinirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from minirt.images.ready import Image


def configuration(asked: Mapping[str, Any], arguments: Sequence[str], image: Image) -> dict[str, Any]:
    """The configuration of a container, without id, name and time.

    `asked`: option values by long name. `arguments`: the image and the command line. Raises MinirtError when there is
    no command, or a file, a mount's source or a capability that was named does not exist.
    """
    theirs = image.config.get("config") or {}
    entrypoint, command = command_line(asked, arguments[1:], theirs)
    words = [*entrypoint, *command]
    if not words:
        raise MinirtError("no command specified")
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
            "Env": environment(asked, theirs),
            "Cmd": command or None,
            "Image": arguments[0],
            "Volumes": theirs.get("Volumes") or None,
            "WorkingDir": asked["workdir"] or theirs.get("WorkingDir") or "",
            "Entrypoint": entrypoint or None,
            "Labels": labels(asked, theirs),
            "StopSignal": asked["stop-signal"] or theirs.get("StopSignal") or "",
            "StopTimeout": asked["stop-timeout"],
        },
        "HostConfig": host_config(asked),
    }


def environment(asked: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """ "Env": what was asked for, then what else the image says. Raises MinirtError for a file that cannot be read."""
    env = list(theirs.get("Env") or [])
    if asked["env"] or asked["env-file"]:
        from minirt.containers import values

        given = values.environment(asked["env-file"], asked["env"], os.environ)
        names = {text.partition("=")[0] for text in given}
        env = values.merged(given, (text for text in env if text.partition("=")[0] not in names))
    return env


def labels(asked: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, str]:
    """ "Labels": the image's, changed by those that were asked for. Raises MinirtError as `environment` does."""
    found = dict(theirs.get("Labels") or {})
    if asked["label"] or asked["label-file"]:
        from minirt.containers import values

        found.update(values.labels(asked["label-file"], asked["label"]))
    return found


def host_config(asked: Mapping[str, Any]) -> dict[str, Any]:
    """ "HostConfig": what binds the container to this machine. Raises MinirtError for a mount without its source, or a
    capability that does not exist.
    """
    if asked["cap-add"]:
        from minirt import capabilities  # which the monitor loads meanwhile: an ordinary start needs it only there

        capabilities.available(asked["cap-add"])
    bound = [*asked["volume"], *asked["mount"]]
    if bound:
        from minirt.containers import mounts

        mounts.check_sources(bound)
    return {
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

"""Chapter 17: `--userns auto`: a container whose root is nobody on the machine.

Each container gets 65536 ids of its own (chapter 07) out of those that /etc/subuid sets aside for the owner `minirt`,
or, as Podman has it, `containers`. Where there is no such line they come from the upper half of all ids, which no
ordinary user has. The layers of the image are shown with the container's owners by an id-mapped mount, so they are
shared all the same; what the container writes belongs to its own ids on the disk.

Sources: Podman's documentation of `--userns`; OCI runtime-spec config-linux.md "User namespace mappings".
"""

from __future__ import annotations

import os

from minirt import state
from minirt.errors import ConflictError
from minirt.namespaces import user
from minirt.state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from minirt.containers.record import Container

SIZE = 65536
OWNERS = ("minirt", "containers")
UPPER_HALF = (1 << 31, (1 << 31) - SIZE)  # (first, count): the last block has the id that means "none"


def mode(text: str) -> str:
    """`--userns`: host or auto. Raises ValueError."""
    if text in ("", "host", "auto"):
        return text
    if text == "keep-id":
        raise ValueError("keep-id is not supported: a container of yours runs as you already, under the name of root")
    raise ValueError("invalid USER mode: it is one of host, auto")


def fields(asked: Mapping[str, Any], id: str) -> dict[str, Any]:
    """The fields of "HostConfig" for `--userns auto`: the mode, and the map of the container with that id, in Podman's
    form, "INSIDE:OUTSIDE:SIZE". Raises ConflictError, in Docker's words, for what cannot be shared then."""
    if asked["privileged"]:
        raise ConflictError("privileged mode is incompatible with user namespaces. You must run the container in the "
                            "host namespace when running privileged mode: --userns host")
    for option, what in (("network", "network"), ("pid", "PID"), ("ipc", "IPC")):
        if asked[option] == "host" or asked[option].startswith("container:"):
            raise ConflictError(f"cannot share another {what} namespace when user namespaces are enabled: they belong "
                                "to another root; leave the option out, or use --userns host")
    if state.ordinary():
        raise ConflictError("--userns auto takes root; your containers are in a user namespace of yours anyway")
    first = {kind: block(kind, id) for kind in ("uid", "gid")}
    return {"UsernsMode": "auto", "IDMappings": {
        "UidMap": [f"0:{first['uid']}:{SIZE}"], "GidMap": [f"0:{first['gid']}:{SIZE}"]}}


def block(kind: str, id: str) -> int:
    """The first of the ids of the container `id`: one of the blocks of `SIZE` in the ranges set aside, chosen by that
    random id, so that two containers seldom share one. `kind`: "uid" or "gid"."""
    try:
        text = read_file(f"/etc/sub{kind}").decode("utf-8", "replace")
    except OSError:
        text = ""
    ranges = [each for owner in OWNERS for each in user.subordinate(text, owner, -1) if each[1] >= SIZE]
    blocks = [(first, count // SIZE) for first, count in ranges or [UPPER_HALF]]
    number = int(id[:8], 16) % sum(count for _, count in blocks)
    for first, count in blocks:
        if number < count:
            return first + number * SIZE
        number -= count
    raise AssertionError("unreachable")


def open_up(spec: dict[str, Any], host: dict[str, Any]) -> None:
    """Gives a specification the user namespace that "HostConfig" says."""
    for kind, field in (("uid", "UidMap"), ("gid", "GidMap")):
        ranges = [[int(number) for number in each.split(":")] for each in host["IDMappings"][field]]
        spec["linux"][f"{kind}Mappings"] = [
            {"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in ranges]
    spec["linux"]["namespaces"] = [{"type": "user"}, *spec["linux"]["namespaces"]]


def give(container: Container) -> None:
    """Gives to the container's root what it shall own: the upper directory, and the three files below /etc."""
    maps = container.config["HostConfig"]["IDMappings"]
    uid, gid = (user.outside([(inside, outside, size)], 0)
                for inside, outside, size in (map(int, maps[field][0].split(":")) for field in ("UidMap", "GidMap")))
    for name in ("upper", "hostname", "hosts", "resolv.conf"):
        if os.path.lexists(f"{container.directory}/{name}"):
            os.chown(f"{container.directory}/{name}", uid, gid, follow_symlinks=False)

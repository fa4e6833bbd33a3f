"""Chapter 17: `--userns auto`: a container whose root is nobody on the machine.

Each container gets 65536 ids (chapter 07) that no other container has, out of those that /etc/subuid sets aside for the
owner `minirt`, or, as Podman has it, `containers`. Where there is no such line they come from the upper half of all
ids, which no ordinary user has. The layers of the image are shown with the container's owners by an id-mapped mount, so
they are shared all the same; what the container writes belongs to its own ids on the disk.

Sources: Podman's documentation of `--userns`; OCI runtime-spec config-linux.md "User namespace mappings".
"""

from __future__ import annotations

import os
import stat

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
    """`--userns`: host, auto or keep-id. Raises ValueError."""
    if text in ("", "host", "auto", "keep-id"):
        return text
    raise ValueError("invalid USER mode: it is one of host, auto, keep-id")


def fields(asked: Mapping[str, Any], id: str) -> dict[str, Any]:
    """The fields of "HostConfig" for `--userns auto`: the mode, and the map of the container with that id, whose
    directory must be there. Raises ConflictError for what cannot be shared then, or when there are no ids left."""
    refuse(asked)
    return mappings(*(take(kind, id) for kind in ("uid", "gid")))


def mappings(uid: int, gid: int) -> dict[str, Any]:
    """The same for the blocks that begin with these two ids, in Podman's form: "INSIDE:OUTSIDE:SIZE"."""
    return {"UsernsMode": "auto", "IDMappings": {"UidMap": [f"0:{uid}:{SIZE}"], "GidMap": [f"0:{gid}:{SIZE}"]}}


def refuse(asked: Mapping[str, Any]) -> None:
    """Raises ConflictError, in Docker's words, for options that do not go with a user namespace of its own."""
    if asked["privileged"]:
        raise ConflictError("privileged mode is incompatible with user namespaces. You must run the container in the "
                            "host namespace when running privileged mode: --userns host")
    for option, what in (("network", "network"), ("pid", "PID"), ("ipc", "IPC")):
        if asked[option] == "host" or asked[option].startswith("container:"):
            raise ConflictError(f"cannot share another {what} namespace when user namespaces are enabled: they belong "
                                "to another root; leave the option out, or use --userns host")
    if state.ordinary():
        raise ConflictError("--userns auto takes root; your containers are in a user namespace of yours anyway")


def blocks(kind: str) -> list[tuple[int, int]]:
    """The blocks of `SIZE` ids that are set aside: (first id, how many blocks), once for each range. `kind`: "uid" or
    "gid"."""
    try:
        text = read_file(f"/etc/sub{kind}").decode("utf-8", "replace")
    except OSError:
        text = ""
    ranges = [each for owner in OWNERS for each in user.subordinate(text, owner, -1) if each[1] >= SIZE]
    return [(first, count // SIZE) for first, count in ranges or [UPPER_HALF]]


def take(kind: str, id: str) -> int:
    """Claims a block for the container `id`, so that no other has one of its ids; returns the first of them.

    A claim is a symlink to the container's directory, named after the block: void when the container is gone. The
    search begins at a block that the random id chooses. Raises ConflictError when all are taken.
    """
    claims = f"{state.root()}/ids/{kind}"
    os.makedirs(claims, 0o711, exist_ok=True)
    ranges = blocks(kind)
    total = sum(count for _, count in ranges)
    with state.Lock(f"{state.run_root()}/ids.lock"):
        for step in range(total):
            name = str(_first(ranges, (int(id[:8], 16) + step) % total))
            try:
                if os.path.isdir(f"{claims}/{os.readlink(f'{claims}/{name}')}"):
                    continue
                os.unlink(f"{claims}/{name}")
            except FileNotFoundError:
                pass
            state.claim(claims, name, f"../../containers/{id}")
            return int(name)
    raise ConflictError(f"--userns auto: each of the {total} blocks of {SIZE} ids is a container's already; remove "
                        f"one, or set more aside: a line {OWNERS[0]}:FIRST:COUNT in /etc/sub{kind}")


def _first(ranges: list[tuple[int, int]], number: int) -> int:
    """The first id of the block with that number, counted through all ranges."""
    for first, count in ranges:
        if number < count:
            return first + number * SIZE
        number -= count
    raise AssertionError("unreachable")


def release(container: Container) -> None:
    """Gives its blocks back: its claims are void since its directory is gone, and need not stay."""
    for kind, field in (("uid", "UidMap"), ("gid", "GidMap")):
        for each in container.config["HostConfig"]["IDMappings"][field]:
            path = f"{state.root()}/ids/{kind}/{each.split(':')[1]}"
            with state.Lock(f"{state.run_root()}/ids.lock"):
                try:
                    if os.readlink(path).endswith(container.id):
                        os.unlink(path)
                except OSError:
                    pass


def open_up(spec: dict[str, Any], host: dict[str, Any]) -> None:
    """Gives a specification the user namespace that "HostConfig" says."""
    for kind, field in (("uid", "UidMap"), ("gid", "GidMap")):
        ranges = [[int(number) for number in each.split(":")] for each in host["IDMappings"][field]]
        spec["linux"][f"{kind}Mappings"] = [
            {"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in ranges]
    spec["linux"]["namespaces"] = [{"type": "user"}, *spec["linux"]["namespaces"]]


def root_outside(host: dict[str, Any]) -> tuple[int, int]:
    """The user and the group on the machine that the container's root is, by the first line of each map."""
    maps = host["IDMappings"]
    uid, gid = (user.outside([(inside, outside, size)], 0)
                for inside, outside, size in (map(int, maps[field][0].split(":")) for field in ("UidMap", "GidMap")))
    return uid, gid


def give_pipes(host: dict[str, Any], descriptors: tuple[int, ...]) -> None:
    """Gives pipes to the container's root, who gives them on to the user of the command: to both belongs nothing of the
    machine's root. What else is among them stays as it is."""
    for each in descriptors:
        if stat.S_ISFIFO(os.fstat(each).st_mode):
            os.fchown(each, *root_outside(host))


def give(container: Container) -> None:
    """Gives to the container's root what it shall own: the upper directory, and the three files below /etc."""
    uid, gid = root_outside(container.config["HostConfig"])
    for name in ("upper", "hostname", "hosts", "resolv.conf"):
        if os.path.lexists(f"{container.directory}/{name}"):
            os.chown(f"{container.directory}/{name}", uid, gid, follow_symlinks=False)

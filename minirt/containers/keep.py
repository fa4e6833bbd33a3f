"""Chapter 17: `--userns keep-id`: an ordinary user who is himself in his container, with the number he has outside.

His containers are built in a user namespace in which he is root (chapter 07). Here a second one lies within it: number
0 and those around his own are subordinate ids, and his own number is his own. What he makes in a directory of his that
is mounted into the container is his on both sides.

Whoever is not the machine's root cannot show a layer's files through another map (MOUNT_ATTR_IDMAP is refused on file
systems that are not his). So each layer is copied once, with the owners that this map wants, beside the layer itself,
and goes with it.

Sources: Podman's documentation of `--userns`; user_namespaces(7).
"""

from __future__ import annotations

import os
import stat

from minirt import state, trace
from minirt.errors import ConflictError
from minirt.namespaces import rootless, user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from minirt.containers.record import Container
    from minirt.namespaces.user import Map

CHAPTER = 17
COPY = "kept"  # beside "diff" in the directory of a layer


def choose(asked: Mapping[str, Any], container: Container) -> None:
    """Writes what it means into the configuration of a new container: its map, and that its user is oneself unless
    another was asked for. Raises ConflictError as `fields` does."""
    container.config["HostConfig"].update(fields(asked))
    if not asked["user"]:
        container.config["Config"]["User"] = f"{os.geteuid()}:{os.getegid()}"


def fields(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of "HostConfig": the mode, and the map between the two namespaces, in Podman's form. Raises
    ConflictError for root, for a user without subordinate ids, and for what belongs to another namespace."""
    if not state.ordinary():
        raise ConflictError("keep-id is only supported in rootless mode: root keeps its ids anyway, and --userns auto "
                            "gives each container ids of its own")
    for option in ("network", "pid", "ipc"):
        if asked[option].startswith("container:"):
            raise ConflictError(f"--userns keep-id makes a user namespace, to which the other container's {option} "
                                "namespace does not belong: leave one of the two out")
    uids, gids, lacking = rootless.maps()
    if lacking:
        raise ConflictError(f"--userns keep-id takes subordinate ids: {lacking}")
    maps = [within(own, sum(size for _, _, size in mapping))
            for own, mapping in ((os.geteuid(), uids), (os.getegid(), gids))]
    shown = [[":".join(map(str, each)) for each in mapping] for mapping in maps]
    return {"UsernsMode": "keep-id", "IDMappings": {"UidMap": shown[0], "GidMap": shown[1]}}


def within(own: int, count: int) -> list[tuple[int, int, int]]:
    """The map of a namespace in which `own` is `own`, within one of `count` ids in which it is 0: the others move up by
    one to make room, so that 0 is the first subordinate id."""
    below = min(own, count - 1)
    rest = count - 1 - below
    return [(0, 1, below), (own, 0, 1), *([(own + 1, below + 1, rest)] if rest else [])]


def prepare(container: Container, spec: dict[str, Any]) -> None:
    """As root of the outer namespace: let the inner root own what he changes, and the layers have owners of his."""
    uids, gids = (user.from_specification(spec["linux"][f"{kind}Mappings"]) for kind in ("uid", "gid"))
    os.chown(f"{container.directory}/upper", user.outside(uids, 0), user.outside(gids, 0))
    layers = spec["root"]["overlay"]
    for chain in container.config["Layers"]:
        if not os.path.isdir(f"{layers['layers']}/{chain}/{COPY}"):
            copy_layer(f"{layers['layers']}/{chain}", uids, gids)
    layers["lower"] = [f"{name}/../{COPY}" for name in layers["lower"]]


@trace.narrated(CHAPTER, "copy the layer, with owners of this map", "cp -a {layer}/diff {layer}/kept; chown")
def copy_layer(layer: str, uids: Map, gids: Map) -> None:
    """Copies the tree diff of a layer's directory beside it, each file's owner replaced by the one who has that number
    in the map. Under a name that nobody looks at, until it is whole."""
    import shutil

    fresh = f"{layer}/{COPY}.{os.getpid()}.tmp"
    try:
        _copy(f"{layer}/diff", fresh, uids, gids, {})
        os.rename(fresh, f"{layer}/{COPY}")
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not os.path.isdir(f"{layer}/{COPY}"):  # else somebody else was quicker
            raise


def _copy(source: str, target: str, uids: Map, gids: Map, seen: dict[int, str]) -> None:
    """Copies one file or a directory with all below it. `seen`: names of files that have several, by inode."""
    import shutil

    status = os.lstat(source)
    mode = status.st_mode
    if not stat.S_ISDIR(mode) and status.st_nlink > 1:
        if status.st_ino in seen:
            os.link(seen[status.st_ino], target, follow_symlinks=False)
            return
        seen[status.st_ino] = target
    if stat.S_ISDIR(mode):
        os.mkdir(target, 0o700)
        for name in os.listdir(source):
            _copy(f"{source}/{name}", f"{target}/{name}", uids, gids, seen)
    elif stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(mode):
        shutil.copyfile(source, target)
    else:  # a FIFO, a socket, or a whiteout, which has the numbers 0:0
        os.mknod(target, mode, status.st_rdev)
    for name in os.listxattr(source, follow_symlinks=False):
        os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    os.chown(target, user.outside(uids, status.st_uid), user.outside(gids, status.st_gid), follow_symlinks=False)
    if not stat.S_ISLNK(mode):
        os.chmod(target, stat.S_IMODE(mode))  # the change of owner takes the set-user-id bit
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)

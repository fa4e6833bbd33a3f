"""Chapter 17: what `run` would start, as a shell script, and nothing made of it.

Configuration and specification come from the same functions as at a start, for a container that has an id and nothing
else. Where in the image a path leads, and who its user is, is looked up in a view of its layers that lives in the mount
namespace of a child and ends with it.
"""

from __future__ import annotations

import os

from minirt import overlay, state
from minirt.containers import configure, create, files, record, remap, specify
from minirt.errors import MinirtError
from minirt.images import ready
from minirt.kernel import paths, process, syscalls
from minirt.namespaces import mnt
from minirt.process import script, users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any


def outline(asked: Mapping[str, Any], arguments: Sequence[str], title: str) -> str:
    """The script of the container that `run` with these options and arguments would start. Raises MinirtError for what
    `run` would refuse, and for an ordinary user: the shell's tools need root."""
    if os.geteuid():
        raise MinirtError("the script that --explain=sh writes is one for root, as is the store that it uses: "
                          "try sudo minirt --explain=sh run ...")
    create.contradict(asked)
    missing = not_there(each["Source"] for each in asked["volume"])
    container = record.Container(state.new_id(), {})
    try:
        container.config = configure.configuration(asked, arguments, ready.find(arguments[0]))
        if asked["userns"] == "auto":
            remap.refuse(asked)
            first = [remap.blocks(kind)[0][0] for kind in ("uid", "gid")]  # some ids: the script cannot map them
            container.config["HostConfig"].update(remap.mappings(*first))
        create.host_name(container)
        spec = specify.specification(container)
    finally:
        for path in reversed(missing):  # made for `-v` just now: the script makes it
            if os.path.isdir(path):
                os.rmdir(path)
    contents = {f"{container.directory}/{name}": data for name, data in files.contents(container).items()}
    user, places = look(spec, contents)
    return script.script(spec, user, places, contents, title, state.root(),
                         interactive=container.config["Config"]["OpenStdin"])


def not_there(sources: Iterable[str]) -> list[str]:
    """The directories that are missing for `sources` to exist, parents first."""
    found: list[str] = []
    for path in sources:
        chain: list[str] = []
        while not os.path.lexists(path) and path not in found:
            chain.insert(0, path)
            path = os.path.dirname(path)
        found += chain
    return found


def look(spec: dict[str, Any], files: Mapping[str, bytes]) -> tuple[users.User, dict[str, str]]:
    """Who the user of `spec` is by the image's own files, and where its mounts and its working directory lie when the
    image's links are followed. `files` are the sources of mounts that do not exist yet. Raises MinirtError."""
    hear, speak = os.pipe()

    def child() -> int:
        try:
            answer: dict[str, Any] = seen(spec, files)
        except (MinirtError, OSError) as error:
            answer = {"error": str(error)}
        with open(speak, "w") as pipe:
            pipe.write(state.dumps(answer))
        return 0

    pid = process.fork_call(child)
    os.close(speak)
    with open(hear) as pipe:
        text = pipe.read()
    if process.wait(pid) or not text:
        raise MinirtError("the layers of the image cannot be shown: see minirt doctor")
    answer = state.loads(text)
    if "error" in answer:
        raise MinirtError(answer["error"])
    return users.User(*answer["user"]), answer["places"]


def seen(spec: dict[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """In a child: mount the layers under a directory in memory, and look. Raises MinirtError."""
    layers = spec["root"]["overlay"]
    here = f"{state.root()}/containers"
    os.makedirs(here, 0o710, exist_ok=True)
    mnt.enter()
    syscalls.mount("tmpfs", here, "tmpfs", 0, "mode=700")
    for name in ("upper", "work", "root"):
        os.mkdir(f"{here}/{name}")
    overlay.mount(layers["lower"], f"{here}/upper", f"{here}/work", f"{here}/root", layers["layers"])
    root = os.open(f"{here}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    wanted = spec["process"]["user"]
    user = users.look_up(root, wanted.get("name", ""), wanted.get("groups", ()))
    places: dict[str, str] = {}
    for entry in spec["mounts"]:
        file = entry["type"] == "bind" and (entry["source"] in files or os.path.isfile(entry["source"]))
        places[entry["destination"]] = place(root, entry["destination"], places, not file)
    where = spec["process"].get("cwd") or "/"
    places.setdefault(where, place(root, where, places, True))
    return {"user": [user.uid, user.gid, user.groups, user.home], "places": places}


def place(root: int, path: str, places: Mapping[str, str], directory: bool) -> str:
    """Where the file or directory `path` lies below `root`: where the image's links lead, which ends below what will be
    mounted there."""
    above = max((each for each in places if path.startswith(each + "/")), key=len, default="")
    if above:
        return places[above] + path[len(above):]
    descriptor = paths.make_mount_point(root, path, directory)
    found = os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(os.readlink(f"/proc/self/fd/{root}"))
    os.close(descriptor)
    return found or "/"

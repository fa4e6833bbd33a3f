"""The container program, chapter 10: its root has fourteen of root's powers, and an ordinary user none.

    container.py [OPTIONS] LAYER[:LAYER ...] [COMMAND [ARG ...]]

    --cap-add NAME, --cap-drop NAME    change the fourteen; ALL is a name, too
    --user UID, --no-new-privileges    who runs the command, and whether an exec may give it more

The layers are directories, the topmost first; changes go when the container ends. Without a command it shows its sets.
New in it: `give_up`, the last thing before the command.
"""

import os
import shutil
import sys
import tempfile

from minirt import capabilities, overlay
from minirt.errors import MinirtError
from minirt.kernel import process
from minirt.namespaces import ipc, mnt, pid, uts

PROC = {"type": "proc", "options": ["nosuid", "nodev", "noexec"]}
DEV = {"type": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]}
SHOW = ["grep", "-E", "^(Cap|NoNewPrivs)", "/proc/self/status"]


def give_up(keep: int, user: int, no_new_privileges: bool) -> None:
    """Keep the capabilities in the set `keep` at most, and as an ordinary user none."""
    capabilities.limit(keep)  # while CAP_SETPCAP is still there
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    mine = keep if user == 0 else 0
    capabilities.set_sets(mine, mine, 0)
    if no_new_privileges:
        capabilities.set_no_new_privileges()


def build_walls(layers: list[str], place: str) -> None:
    """In the child: the rooms of the chapters before, and the stack of layers as root."""
    for room in (uts, ipc, mnt):
        room.enter()
    uts.configure("box")
    overlay.mount(layers, f"{place}/upper", f"{place}/work", f"{place}/root")
    top = os.open(f"{place}/root", os.O_PATH)
    mnt.attach(mnt.make(PROC), top, "/proc")
    mnt.attach(mnt.make(DEV), top, "/dev")
    mnt.make_devices(top)
    mnt.pivot(top)


def main(arguments: list[str]) -> int:
    words: dict[str, list[str]] = {"--cap-add": [], "--cap-drop": [], "--user": ["0"], "--no-new-privileges": []}
    while arguments and arguments[0] in words:
        name = arguments.pop(0)
        if name != "--no-new-privileges" and not arguments:
            sys.exit(f"container.py: {name} wants a value")
        words[name].append("yes" if name == "--no-new-privileges" else arguments.pop(0))
    if not arguments or arguments[0].startswith("--"):
        sys.exit("container.py wants a LAYER; its options are " + ", ".join(words))
    layers, command = [os.path.abspath(layer) for layer in arguments[0].split(":")], arguments[1:] or SHOW
    for layer in layers:
        if not os.path.isdir(layer):
            sys.exit(f"container.py: {layer} is no directory: LAYER comes before the command, / is this machine's own")
    if not words["--user"][-1].isdecimal():
        sys.exit("container.py: --user wants the number of a user, as `id -u` prints it")
    try:
        keep = capabilities.mask(capabilities.choose(words["--cap-add"], words["--cap-drop"]))
    except MinirtError as error:
        sys.exit(f"container.py: {error}")
    place = tempfile.mkdtemp(prefix="minirt-")
    for name in ("upper", "work", "root"):
        os.mkdir(f"{place}/{name}", 0o755)
    child, _ = pid.birth()
    if not child:
        try:
            build_walls(layers, place)
            give_up(keep, int(words["--user"][-1]), bool(words["--no-new-privileges"]))
            os.execvp(command[0], command)
        except Exception as error:
            print(f"container.py: {error}", file=sys.stderr)
        os._exit(125)
    code = process.wait(child)
    shutil.rmtree(place)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

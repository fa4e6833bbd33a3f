"""The container program, chapter 09: its root is a stack of layers, and what it writes lands in the topmost.

    container.py [--keep UPPER] LAYER[:LAYER ...] [COMMAND [ARG ...]]

The layers are directories, the topmost first. With --keep the changes stay in the directory UPPER; without, they go
when the container ends. At the end it says what changed: A added, C changed, D deleted.
New in it: the overlay in place of a plain root directory, and `changes`.
"""

import os
import shutil
import sys
import tempfile

from minirt import overlay
from minirt.kernel import process
from minirt.namespaces import ipc, mnt, pid, uts

PROC = {"type": "proc", "options": ["nosuid", "nodev", "noexec"]}
DEV = {"type": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]}


def become(command: list[str], layers: list[str], upper: str, work: str, root: str) -> None:
    """In the child: build the walls, put the stack together, become the command."""
    for room in (uts, ipc, mnt):
        room.enter()
    uts.configure("box")
    overlay.mount(layers, upper, work, root)
    top = os.open(root, os.O_PATH)
    mnt.attach(mnt.make(PROC), top, "/proc")
    mnt.attach(mnt.make(DEV), top, "/dev")
    mnt.make_devices(top)
    mnt.pivot(top)
    os.execvp(command[0], command)


def main(arguments: list[str]) -> int:
    kept = ""
    if arguments[:1] == ["--keep"] and arguments[1:]:
        kept, arguments = os.path.abspath(arguments[1]), arguments[2:]
    if not arguments or arguments[0].startswith("--"):
        sys.exit("container.py wants a LAYER; its option is --keep UPPER")
    layers = [os.path.abspath(layer) for layer in arguments[0].split(":")]
    for layer in layers:
        if not os.path.isdir(layer):
            sys.exit(f"container.py: {layer} is no directory: LAYER comes before the command, / is this machine's own")
    place = tempfile.mkdtemp(prefix="minirt-")
    upper = kept or f"{place}/upper"
    work, root = f"{upper}.work", f"{place}/root"
    try:
        for directory in (upper, work, root):
            os.makedirs(directory, exist_ok=True)
    except OSError as error:
        shutil.rmtree(place)
        sys.exit(f"container.py: {upper}: {error.strerror}")
    child, _ = pid.birth()
    if not child:
        try:
            become(arguments[1:] or ["sh"], layers, upper, work, root)
        except Exception as error:
            print(f"container.py: {error}", file=sys.stderr)
        os._exit(125)
    code = process.wait(child)
    for kind, path in overlay.changes(upper, layers):
        print(kind, path, file=sys.stderr)
    shutil.rmtree(work)
    shutil.rmtree(place)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

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
from argparse import SUPPRESS, ArgumentParser, RawTextHelpFormatter

from minirt import errors, overlay
from minirt.kernel import process
from minirt.namespaces import ipc, mnt, pid, uts

PROC = {"type": "proc", "options": ["nosuid", "nodev", "noexec"]}
DEV = {"type": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]}


def main() -> int:
    parser = ArgumentParser("container.py", SUPPRESS, __doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--keep", metavar="UPPER")
    parser.add_argument("layers")
    parser.add_argument("command", nargs="...")
    wanted = parser.parse_args()
    command, layers = wanted.command or ["sh"], [os.path.abspath(layer) for layer in wanted.layers.split(":")]
    place = tempfile.mkdtemp(prefix="minirt-")
    upper = os.path.abspath(wanted.keep or f"{place}/upper")
    work, root = f"{upper}.work", f"{place}/root"

    def contained() -> int:
        for room in (uts, ipc, mnt):
            room.enter()
        uts.configure("box")
        overlay.mount(layers, upper, work, root)
        top = os.open(root, os.O_PATH)
        mnt.attach(mnt.make(PROC), top, "/proc")
        mnt.attach(mnt.make(DEV), top, "/dev")
        mnt.make_devices(top)
        mnt.pivot(top)
        code = process.become(command)
        print(f"container.py: {command[0]}: {'not found' if code == 127 else 'cannot be executed'}", file=sys.stderr)
        return code

    try:
        for directory in (upper, work, root):
            os.makedirs(directory, exist_ok=True)
        code = process.wait(process.fork_call(contained, fork=lambda: pid.birth()[0]))
        for kind, path in overlay.changes(upper, layers):
            print(kind, path, file=sys.stderr)
        return code
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(place)


if __name__ == "__main__":
    sys.excepthook = lambda kind, error, trace: print("container.py:", errors.told(error)[1], file=sys.stderr)
    sys.exit(main())

"""The container program, chapter 10: its root has fourteen of root's powers, and an ordinary user none.

    container.py [OPTIONS] LAYER[:LAYER ...] [COMMAND [ARG ...]]

    --cap-add NAME, --cap-drop NAME    change the fourteen; ALL is a name, too
    --user UID, --no-new-privileges    who runs the command, and whether an exec may give it more

The layers are directories, the topmost first; changes go when the container ends. Without a command it shows its sets.
New in it: `give_up`, the last thing before the command.
"""

import os
import sys
import tempfile
from argparse import SUPPRESS, ArgumentParser, RawTextHelpFormatter

from minirt import capabilities, errors, overlay
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


def main() -> int:
    parser = ArgumentParser("container.py", SUPPRESS, __doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--cap-add", action="append", default=[])
    parser.add_argument("--cap-drop", action="append", default=[])
    parser.add_argument("--user", type=int, default=0)
    parser.add_argument("--no-new-privileges", action="store_true")
    parser.add_argument("layers")
    parser.add_argument("command", nargs="...")
    wanted = parser.parse_args()
    command, layers = wanted.command or SHOW, [os.path.abspath(layer) for layer in wanted.layers.split(":")]
    keep = capabilities.mask(capabilities.choose(wanted.cap_add, wanted.cap_drop))

    def contained() -> int:
        for room in (uts, ipc, mnt):
            room.enter()
        uts.configure("box")
        overlay.mount(layers, f"{place}/upper", f"{place}/work", f"{place}/root")
        top = os.open(f"{place}/root", os.O_PATH)
        mnt.attach(mnt.make(PROC), top, "/proc")
        mnt.attach(mnt.make(DEV), top, "/dev")
        mnt.make_devices(top)
        mnt.pivot(top)
        give_up(keep, wanted.user, wanted.no_new_privileges)
        code = process.become(command)
        print(f"container.py: {command[0]}: {'not found' if code == 127 else 'cannot be executed'}", file=sys.stderr)
        return code

    with tempfile.TemporaryDirectory(prefix="minirt-") as place:
        for name in ("upper", "work", "root"):
            os.mkdir(f"{place}/{name}", 0o755)
        return process.wait(process.fork_call(contained, fork=lambda: pid.birth()[0]))


if __name__ == "__main__":
    sys.excepthook = lambda kind, error, trace: print("container.py:", errors.told(error)[1], file=sys.stderr)
    sys.exit(main())

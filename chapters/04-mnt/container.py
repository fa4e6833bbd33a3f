"""The container program, chapter 04: a root directory of its own.

    container.py [--hostname NAME] [--init] ROOTFS [COMMAND [ARG ...]]

ROOTFS is a directory with all that the command needs, or / for a view of this machine's own files. New in it: mounts
that stay in the container, /proc and /dev of its own, masks, and pivot_root.
"""

import sys
from argparse import SUPPRESS, ArgumentParser, RawTextHelpFormatter

from minirt import errors
from minirt.kernel import process
from minirt.namespaces import mnt, pid, uts

MOUNTS = {
    "/proc": {"type": "proc", "options": ["nosuid", "nodev", "noexec"]},
    "/dev": {"type": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
}
SHOW = ["sh", "-c", "echo processes: /proc/[0-9]*; echo devices: /dev/*"]


def build_root(directory: str) -> int:
    """Put the container's root together; return a descriptor of it."""
    root = mnt.bind_root(directory)
    for destination, entry in MOUNTS.items():
        mnt.attach(mnt.make(entry), root, destination)
    mnt.make_devices(root)
    mnt.cover(root)
    return root


def main() -> int:
    parser = ArgumentParser("container.py", SUPPRESS, __doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--hostname", default="box")
    parser.add_argument("--init", action="store_true")
    parser.add_argument("rootfs", nargs="?", default="/")
    parser.add_argument("command", nargs="...")
    wanted = parser.parse_args()
    command = wanted.command or SHOW

    def become() -> int:
        code = process.become(command)
        print(f"container.py: {command[0]}: {'not found' if code == 127 else 'cannot be executed'}", file=sys.stderr)
        return code

    def contained() -> int:
        uts.enter()
        uts.configure(wanted.hostname)
        mnt.enter()
        mnt.pivot(build_root(wanted.rootfs))
        return pid.init(become) if wanted.init else become()

    return process.wait(process.fork_call(contained, fork=lambda: pid.birth()[0]))


if __name__ == "__main__":
    sys.excepthook = lambda kind, error, trace: print("container.py:", errors.told(error)[1], file=sys.stderr)
    sys.exit(main())

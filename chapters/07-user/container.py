"""The container program, chapter 07: a container that an ordinary user starts.

    container.py [--as UID] ROOTFS [COMMAND [ARG ...]]

ROOTFS is a directory with all that the command needs, or / for a view of this machine's own files. New in it: a user
namespace, before all others, in which the user is root. With --as, root becomes the user UID first.
"""

import os
import sys
from argparse import SUPPRESS, ArgumentParser, RawTextHelpFormatter

from minirt import errors
from minirt.kernel import process, syscalls
from minirt.namespaces import ipc, mnt, net, pid, user, uts

PROC = {"type": "proc", "options": ["nosuid", "nodev", "noexec"]}
DEV = {"type": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]}


def become_ordinary(uid: int) -> None:
    """Be the user `uid` from here on, and no longer root."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    syscalls.call("prctl", process.PR_SET_DUMPABLE, 1, 0, 0, 0)  # or /proc/self would still belong to root


def main() -> int:
    parser = ArgumentParser("container.py", SUPPRESS, __doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--as", dest="uid", type=int)
    parser.add_argument("rootfs", nargs="?", default="/")
    parser.add_argument("command", nargs="...")
    wanted = parser.parse_args()
    command = wanted.command or ["sh", "-c", "id; cat /proc/self/uid_map"]

    def contained() -> int:
        for room in (uts, ipc, net, mnt):
            room.enter()
        uts.configure("box")
        net.configure()
        root = mnt.bind_root(wanted.rootfs)
        mnt.attach(user.make_or_borrow(PROC), root, "/proc")
        mnt.attach(mnt.make(DEV), root, "/dev")
        user.bind_devices(root)  # not mnt.make_devices: nobody makes device nodes in a user namespace
        mnt.cover(root)
        mnt.pivot(root)
        code = process.become(command)
        print(f"container.py: {command[0]}: {'not found' if code == 127 else 'cannot be executed'}", file=sys.stderr)
        return code

    if wanted.uid is not None:
        become_ordinary(wanted.uid)
    uid, gid = os.geteuid(), os.getegid()
    user.enter()
    user.write_maps(os.getpid(), [(0, uid, 1)], [(0, gid, 1)], privileged=False)  # root in there is this user out here
    return process.wait(process.fork_call(contained, fork=lambda: pid.birth()[0]))  # it takes root: now there is one


if __name__ == "__main__":
    sys.excepthook = lambda kind, error, trace: print("container.py:", errors.told(error)[1], file=sys.stderr)
    sys.exit(main())

"""The container program, chapter 05: shared memory and message queues of its own.

    container.py [--ipc private|host] [--shm-size BYTES] ROOTFS [COMMAND [ARG ...]]

ROOTFS is a directory with all that the command needs, or / for a view of this machine's own files. New in it: an IPC
namespace, and the two file systems that go with it; with --ipc host, the machine's.
"""

import sys
from argparse import SUPPRESS, ArgumentParser, RawTextHelpFormatter

from minirt import errors
from minirt.kernel import process
from minirt.namespaces import ipc, mnt, pid, uts

MOUNTS = {
    "/proc": {"type": "proc", "options": ["nosuid", "nodev", "noexec"]},
    "/dev": {"type": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
}
SHOW = ["sh", "-c", "cat /proc/sysvipc/shm; ls -l /dev/shm /dev/mqueue"]


def main() -> int:
    parser = ArgumentParser("container.py", SUPPRESS, __doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--ipc", default="private", choices=("private", "host"))
    parser.add_argument("--shm-size", default=64 << 20, type=int)
    parser.add_argument("rootfs", nargs="?", default="/")
    parser.add_argument("command", nargs="...")
    wanted = parser.parse_args()
    command = wanted.command or SHOW

    def contained() -> int:
        uts.enter()
        uts.configure("box")
        if wanted.ipc == "host":
            shared = {path: mnt.bind(path) for path in ("/dev/shm", "/dev/mqueue")}
        else:
            ipc.enter()  # first: /dev/mqueue shows the queues of the namespace in which it is made
            shared = {"/dev/shm": ipc.shared_memory(wanted.shm_size), "/dev/mqueue": ipc.message_queues()}
        mnt.enter()
        root = mnt.bind_root(wanted.rootfs)
        for destination, entry in MOUNTS.items():
            mnt.attach(mnt.make(entry), root, destination)
        for destination, tree in shared.items():
            mnt.attach(tree, root, destination)
        mnt.make_devices(root)
        mnt.cover(root)
        mnt.pivot(root)
        code = process.become(command)
        print(f"container.py: {command[0]}: {'not found' if code == 127 else 'cannot be executed'}", file=sys.stderr)
        return code

    return process.wait(process.fork_call(contained, fork=lambda: pid.birth()[0]))


if __name__ == "__main__":
    sys.excepthook = lambda kind, error, trace: print("container.py:", errors.told(error)[1], file=sys.stderr)
    sys.exit(main())

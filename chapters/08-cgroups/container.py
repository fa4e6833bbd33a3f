"""The container program, chapter 08: limits, and no devices but a few.

    container.py [--memory BYTES] [--cpus NUMBER] [--pids NUMBER] ROOTFS [COMMAND [ARG ...]]

ROOTFS is a directory with all that the command needs, or / for a view of this machine's own files. New in it: a control
group that the child is born into, with limits and the device list; the container sees it as the root of /sys/fs/cgroup;
at the end it says so when the kernel has killed something for want of memory.
"""

import os
import sys
from argparse import SUPPRESS, ArgumentParser, RawTextHelpFormatter

from minirt import errors
from minirt.cgroups import devices, tree
from minirt.kernel import process
from minirt.namespaces import cgroup, ipc, mnt, pid, uts

MOUNTS = {
    "/proc": {"type": "proc", "options": ["nosuid", "nodev", "noexec"]},
    "/sys": {"type": "sysfs", "options": ["nosuid", "nodev", "noexec", "ro"]},
    "/dev": {"type": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
}


def main() -> int:
    parser = ArgumentParser("container.py", SUPPRESS, __doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--memory", type=int)
    parser.add_argument("--cpus", type=float)
    parser.add_argument("--pids", type=int)
    parser.add_argument("rootfs", nargs="?", default="/")
    parser.add_argument("command", nargs="...")
    wanted = parser.parse_args()
    command = wanted.command or ["sh", "-c", "cat /proc/self/cgroup; ls -d /sys/fs/cgroup/*"]
    resources: dict[str, object] = {"devices": list(devices.DEFAULT)}
    if wanted.memory:
        resources["memory"] = {"limit": wanted.memory, "swap": wanted.memory}  # no swap beyond the memory
    if wanted.cpus:
        resources["cpu"] = {"quota": int(wanted.cpus * 100000), "period": 100000}
    if wanted.pids:
        resources["pids"] = {"limit": wanted.pids}
    group = tree.group(f"minirt/box-{os.getpid()}")

    def contained() -> int:
        group.join()  # only where a limit comes from version 1
        for room in (uts, ipc, cgroup, mnt):
            room.enter()
        uts.configure("box")
        root = mnt.bind_root(wanted.rootfs)
        for destination, entry in MOUNTS.items():
            mnt.attach(mnt.make(entry), root, destination)
        cgroup.configure(root, "/sys/fs/cgroup", ["ro", "nosuid", "nodev", "noexec"], group.hierarchies())
        mnt.make_devices(root)
        mnt.pivot(root)
        code = process.become(command)
        print(f"container.py: {command[0]}: {'not found' if code == 127 else 'cannot be executed'}", file=sys.stderr)
        return code

    try:
        group.create(resources)
        code = process.wait(process.fork_call(contained, fork=lambda: pid.birth(group.descriptor)[0]))
        if group.oom_kills():
            print("container.py: out of memory: the kernel has killed a process", file=sys.stderr)
        return code
    finally:
        group.remove()


if __name__ == "__main__":
    sys.excepthook = lambda kind, error, trace: print("container.py:", errors.told(error)[1], file=sys.stderr)
    sys.exit(main())

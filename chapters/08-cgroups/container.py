"""The container program, chapter 08: limits, and no devices but a few.

    container.py [--memory BYTES] [--cpus NUMBER] [--pids NUMBER] ROOTFS [COMMAND [ARG ...]]

ROOTFS is a directory with all that the command needs, or / for a view of this machine's own files. New in it: a control
group that the child is born into, with limits and the device list; the container sees it as the root of /sys/fs/cgroup;
at the end it says so when the kernel has killed something for want of memory.
"""

import os
import sys
import warnings  # noqa: F401  os.execvp imports it, and in another root there is no Python to import from

from minirt.cgroups import devices, tree
from minirt.errors import MinirtError
from minirt.kernel import mount, process
from minirt.namespaces import cgroup, ipc, mnt, pid, uts

MOUNTS = {
    "/proc": {"type": "proc", "options": ["nosuid", "nodev", "noexec"]},
    "/sys": {"type": "sysfs", "options": ["nosuid", "nodev", "noexec", "ro"]},
    "/dev": {"type": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
}
LIMITS = {
    "--memory": lambda text: {"memory": {"limit": int(text), "swap": int(text)}},  # no swap beyond the memory
    "--cpus": lambda text: {"cpu": {"quota": int(float(text) * 100000), "period": 100000}},
    "--pids": lambda text: {"pids": {"limit": int(text)}},
}
SHOW = ["sh", "-c", "cat /proc/self/cgroup; ls -d /sys/fs/cgroup/*"]


def contained(directory: str, command: list[str], group: tree.Group) -> None:
    """In the child, which was born into the group: build the walls, become the command."""
    group.join()  # only where a limit comes from version 1
    for room in (uts, ipc, cgroup, mnt):
        room.enter()
    uts.configure("box")
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    root = mount.clone("", place, recursive=True)
    mount.move_mount(root, place)
    for destination, entry in MOUNTS.items():
        mnt.attach(mnt.make(entry), root, destination)
    cgroup.configure(root, "/sys/fs/cgroup", ["ro", "nosuid", "nodev", "noexec"], group.hierarchies())
    mnt.make_devices(root)
    mnt.pivot(root)
    os.execvp(command[0], command)


def main(arguments: list[str]) -> int:
    resources = {"devices": list(devices.DEFAULT)}
    try:
        while arguments and arguments[0] in LIMITS:
            resources.update(LIMITS[arguments.pop(0)](arguments.pop(0)))
    except (IndexError, ValueError):
        sys.exit("container.py: a limit is a number: --memory BYTES, --cpus NUMBER, --pids NUMBER")
    if arguments and arguments[0].startswith("--"):
        sys.exit(f"container.py does not know {arguments[0]}")
    directory, command = (arguments or ["/"])[0], arguments[1:] or SHOW
    if not os.path.isdir(directory):
        sys.exit(f"container.py: {directory} is no directory: ROOTFS comes before the command, / is this machine's own")
    group = tree.group(f"minirt/box-{os.getpid()}")
    try:
        group.create(resources)
        child, _ = pid.birth(group.descriptor)
        if not child:
            try:
                contained(directory, command, group)
            except Exception as error:
                print(f"container.py: {error}", file=sys.stderr)
            os._exit(125)
        code = process.wait(child)
        if group.oom_kills():
            print("container.py: out of memory: the kernel has killed a process", file=sys.stderr)
        return code
    except (OSError, MinirtError) as error:
        sys.exit(f"container.py: {error}")
    finally:
        group.remove()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

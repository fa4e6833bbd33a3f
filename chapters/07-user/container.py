"""The container program, chapter 07: a container that an ordinary user starts.

    container.py [--hostname NAME] [--as UID] ROOTFS [COMMAND [ARG ...]]

ROOTFS is a directory with all that the command needs, or / for a view of this machine's own files. New in it: a user
namespace, before all others, in which the user is root. With --as, root becomes the user UID first.
"""

import os
import sys
import warnings  # noqa: F401  os.execvp imports it, and in another root there is no Python to import from

from minirt.kernel import mount, process, syscalls
from minirt.namespaces import ipc, mnt, net, pid, user, uts

PROC = {"type": "proc", "options": ["nosuid", "nodev", "noexec"]}
DEV = {"type": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]}
MASKED = ("/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def become_root() -> None:
    """Enter a user namespace in which this user is root, the only one that there is."""
    uid, gid = os.geteuid(), os.getegid()
    user.enter()
    user.write_maps(os.getpid(), [(0, uid, 1)], [(0, gid, 1)], privileged=False)


def build_root(directory: str) -> int:
    """Put the container's root together; return a descriptor of it."""
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    root = mount.clone("", place, recursive=True)
    mount.move_mount(root, place)
    mnt.attach(user.make_or_borrow(PROC), root, "/proc")
    mnt.attach(mnt.make(DEV), root, "/dev")
    user.bind_devices(root)  # not mnt.make_devices: nobody makes device nodes in a user namespace
    for path in MASKED:
        mnt.mask(root, path)
    for path in READ_ONLY:
        mnt.make_read_only(root, path)
    return root


def main(arguments: list[str]) -> int:
    options = {"--hostname": "box", "--as": ""}
    while len(arguments) > 1 and arguments[0] in options:
        name = arguments.pop(0)
        options[name] = arguments.pop(0)
    if arguments and arguments[0].startswith("--"):
        sys.exit(f"container.py does not know {arguments[0]}")
    directory, command = (arguments or ["/"])[0], arguments[1:] or ["sh", "-c", "id; cat /proc/self/uid_map"]
    if not os.path.isdir(directory):
        sys.exit(f"container.py: {directory} is no directory: ROOTFS comes before the command, / is this machine's own")
    if not (options["--as"] or "0").isdigit():
        sys.exit("container.py: --as wants the number of a user, as `id -u` prints it")

    def contained() -> None:
        for room in (uts, ipc, net, mnt):
            room.enter()
        uts.configure(options["--hostname"])
        net.configure()
        mnt.pivot(build_root(directory))
        os.execvp(command[0], command)

    if options["--as"]:
        os.setgroups([])
        os.setresgid(*[int(options["--as"])] * 3)
        os.setresuid(*[int(options["--as"])] * 3)
        syscalls.call("prctl", process.PR_SET_DUMPABLE, 1, 0, 0, 0)  # or /proc/self would still belong to root
    become_root()
    child, _ = pid.birth()  # this takes root, and now there is one
    if child:
        return process.wait(child)
    try:
        contained()
    except Exception as error:
        print(f"container.py: {error}", file=sys.stderr)
    finally:
        os._exit(127)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

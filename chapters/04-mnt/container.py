"""The container program, chapter 04: a root directory of its own.

    container.py [--hostname NAME] [--init] ROOTFS [COMMAND [ARG ...]]

ROOTFS is a directory with all that the command needs, or / for a view of this machine's own files. New in it: mounts
that stay in the container, /proc and /dev of its own, masks, and pivot_root.
"""

import os
import sys
import warnings  # noqa: F401  os.execvp imports it, and in another root there is no Python to import from

from minirt.kernel import mount, process
from minirt.namespaces import mnt, pid, uts

MOUNTS = {
    "/proc": {"type": "proc", "options": ["nosuid", "nodev", "noexec"]},
    "/dev": {"type": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
}
MASKED = ("/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
SHOW = ["sh", "-c", "echo processes: /proc/[0-9]*; echo devices: /dev/*"]


def build_root(directory: str) -> int:
    """Put the container's root together; return a descriptor of it."""
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    root = mount.clone("", place, recursive=True)  # pivot_root wants a mount: bind the directory onto itself
    mount.move_mount(root, place)
    for destination, entry in MOUNTS.items():
        mnt.attach(mnt.make(entry), root, destination)
    mnt.make_devices(root)
    for path in MASKED:
        mnt.mask(root, path)
    for path in READ_ONLY:
        mnt.make_read_only(root, path)
    return root


def main(arguments: list[str]) -> int:
    hostname, init = "box", False
    while arguments and arguments[0].startswith("--"):
        option = arguments.pop(0)
        if option == "--hostname" and arguments:
            hostname = arguments.pop(0)
        elif option == "--init":
            init = True
        else:
            sys.exit(f"container.py does not know {option}")
    directory, command = (arguments or ["/"])[0], arguments[1:] or SHOW
    if not os.path.isdir(directory):
        sys.exit(f"container.py: {directory} is no directory: ROOTFS comes before the command, / is this machine's own")

    def become_the_command() -> int:
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"container.py: {command[0]}: {error.strerror}", file=sys.stderr)
            return 127

    def contained() -> int:
        uts.enter()
        uts.configure(hostname)
        mnt.enter()
        mnt.pivot(build_root(directory))
        return pid.init(become_the_command) if init else become_the_command()

    child, _ = pid.birth()
    if child:
        return process.wait(child)
    code = 1
    try:
        code = contained()
    except Exception as error:
        print(f"container.py: {error}", file=sys.stderr)
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The container program, chapter 05: shared memory and message queues of its own.

    container.py [--hostname NAME] [--init] [--ipc private|host] [--shm-size BYTES] ROOTFS [COMMAND [ARG ...]]

ROOTFS is a directory with all that the command needs, or / for a view of this machine's own files. New in it: an IPC
namespace, and the two file systems that go with it; with --ipc host, the machine's.
"""

import os
import sys
import warnings  # noqa: F401  os.execvp imports it, and in another root there is no Python to import from

from minirt.kernel import mount, process
from minirt.namespaces import ipc, mnt, pid, uts

MOUNTS = {
    "/proc": {"type": "proc", "options": ["nosuid", "nodev", "noexec"]},
    "/dev": {"type": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
}
MASKED = ("/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
SHOW = ["sh", "-c", "cat /proc/sysvipc/shm; ls -l /dev/shm /dev/mqueue"]


def build_root(directory: str, shared: dict[str, int]) -> int:
    """Put the container's root together, with the mounts of `shared` at their places; return a descriptor of it."""
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    root = mount.clone("", place, recursive=True)  # pivot_root wants a mount: bind the directory onto itself
    mount.move_mount(root, place)
    for destination, entry in MOUNTS.items():
        mnt.attach(mnt.make(entry), root, destination)
    mnt.make_devices(root)
    for destination, tree in shared.items():
        mnt.attach(tree, root, destination)
    for path in MASKED:
        mnt.mask(root, path)
    for path in READ_ONLY:
        mnt.make_read_only(root, path)
    return root


def main(arguments: list[str]) -> int:
    options = {"--hostname": "box", "--init": "", "--ipc": "private", "--shm-size": str(64 << 20)}
    while arguments and arguments[0] in options:
        name = arguments.pop(0)
        if name != "--init" and not arguments:
            sys.exit(f"container.py: {name} wants a value")
        options[name] = "yes" if name == "--init" else arguments.pop(0)
    if arguments and arguments[0].startswith("--"):
        sys.exit(f"container.py does not know {arguments[0]}")
    directory, command = (arguments or ["/"])[0], arguments[1:] or SHOW
    if not os.path.isdir(directory):
        sys.exit(f"container.py: {directory} is no directory: ROOTFS comes before the command, / is this machine's own")
    if options["--ipc"] not in ("private", "host") or not options["--shm-size"].isdecimal():
        sys.exit("container.py: --ipc wants private or host, --shm-size wants a number of bytes")

    def become_the_command() -> int:
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"container.py: {command[0]}: {error.strerror}", file=sys.stderr)
            return 127

    def contained() -> int:
        uts.enter()
        uts.configure(options["--hostname"])
        if options["--ipc"] == "host":
            shared = {path: mnt.bind(path) for path in ("/dev/shm", "/dev/mqueue")}
        else:
            ipc.enter()  # first: /dev/mqueue shows the queues of the namespace in which it is made
            shared = {"/dev/shm": ipc.shared_memory(int(options["--shm-size"])), "/dev/mqueue": ipc.message_queues()}
        mnt.enter()
        mnt.pivot(build_root(directory, shared))
        return pid.init(become_the_command) if options["--init"] else become_the_command()

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

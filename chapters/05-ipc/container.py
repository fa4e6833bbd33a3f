"""The container program, chapter 05: a host name, process numbers, a root and shared memory of its own.

    container.py [--hostname NAME] [--ipc private|host] [--shm-size BYTES] [COMMAND [ARG ...]]

New in it: an IPC namespace, and the two file systems that go with it. With --ipc host it has the machine's.
"""

import os
import sys

from minirt.kernel import mount, process
from minirt.namespaces import ipc, mnt, pid, uts

SHOW = ["sh", "-c", "ipcs; findmnt /dev/shm; findmnt /dev/mqueue; exec sh"]
USR = ("usr", "bin", "sbin", "lib", "lib64", "etc")  # the machine's programs, read-only


def build_root(options: dict[str, str]) -> int:
    """Chapter 04's root, on a tmpfs; now with /dev/shm and /dev/mqueue. Returns a descriptor of it."""
    mnt.attach(mount.filesystem("tmpfs", {"mode": "755"}), os.open("/", os.O_PATH), "/mnt")
    root = os.open("/mnt", os.O_PATH | os.O_DIRECTORY)
    for name in USR:
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), name, dir_fd=root)
        elif os.path.isdir(f"/{name}"):
            mnt.attach(mnt.bind(f"/{name}", ("bind", "ro")), root, name)
    mnt.attach(mount.filesystem("proc", {}, ("nosuid", "nodev", "noexec")), root, "proc")
    mnt.attach(mount.filesystem("tmpfs", {"mode": "755"}, ("nosuid",)), root, "dev")
    mnt.make_devices(root)
    private = options["--ipc"] == "private"
    mnt.attach(ipc.shared_memory(int(options["--shm-size"])) if private else mnt.bind("/dev/shm"), root, "dev/shm")
    mnt.attach(ipc.message_queues() if private else mnt.bind("/dev/mqueue"), root, "dev/mqueue")
    return root


def contained(options: dict[str, str], command: list[str]) -> None:
    uts.enter()
    uts.configure(options["--hostname"])
    if options["--ipc"] == "private":
        ipc.enter()  # before the queues' file system is made: it shows those of the namespace that it is made in
    mnt.enter()
    mnt.pivot(build_root(options))
    os.execvp(command[0], command)


def main(arguments: list[str]) -> int:
    options = {"--hostname": "box", "--ipc": "private", "--shm-size": str(64 << 20)}
    while len(arguments) > 1 and arguments[0] in options:
        options[arguments[0]], arguments = arguments[1], arguments[2:]
    child, _ = pid.birth()
    if child:
        return process.wait(child)
    try:
        contained(options, arguments or SHOW)
    except Exception as error:
        print(f"container.py: {error}", file=sys.stderr)
    finally:
        os._exit(1)  # number 1 ends here: it must not go on as a second container.py


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

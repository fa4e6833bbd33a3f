"""The container program, chapter 11: a filter judges each of its system calls.

    container.py [--profile FILE] [--unconfined] ROOTFS [COMMAND [ARG ...]]

ROOTFS is a directory with all that the command needs, or / for a view of this machine's own files. FILE is a profile in
Docker's form; without one it is Docker's own policy. New in it: the filter, loaded just before the capabilities go.
"""

import os
import sys
import warnings  # noqa: F401  os.execvp imports it, and in another root there is no Python to import from

from minirt import capabilities
from minirt.errors import MinirtError
from minirt.kernel import mount, process
from minirt.namespaces import ipc, mnt, pid, uts
from minirt.seccomp import bpf, compiler, filter, policy, profile

PROC = {"type": "proc", "options": ["nosuid", "nodev", "noexec"]}
SHOW = ["sh", "-c", "grep Seccomp: /proc/self/status; unshare --uts true"]


def become(command: list[str], directory: str, assembled: bytes) -> None:
    """In the child: build the walls, load the filter, drop the capabilities, become the command."""
    for room in (uts, ipc, mnt):
        room.enter()
    uts.configure("box")
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    root = mount.clone("", place, recursive=True)
    mount.move_mount(root, place)
    mnt.attach(mnt.make(PROC), root, "/proc")
    mnt.pivot(root)
    keep = capabilities.mask(capabilities.DEFAULT)
    capabilities.limit(keep)
    if assembled:
        filter.install(assembled)
    capabilities.set_sets(keep, keep, 0)
    os.execvp(command[0], command)


def main(arguments: list[str]) -> int:
    chosen = policy.BUILTIN
    while arguments and arguments[0].startswith("--"):
        option = arguments.pop(0)
        if option not in ("--profile", "--unconfined"):
            sys.exit(f"container.py does not know {option}")
        try:
            chosen = profile.read((arguments or [""]).pop(0)) if option == "--profile" else {}
        except MinirtError as error:
            sys.exit(f"container.py: {error}")
    directory, command = (arguments or ["/"])[0], arguments[1:] or SHOW
    if not os.path.isdir(directory):
        sys.exit(f"container.py: {directory} is no directory: ROOTFS comes before the command, / is this machine's own")
    code = compiler.program(chosen, capabilities.DEFAULT) if chosen else []
    assembled = bpf.assemble(code)
    child, _ = pid.birth()
    if not child:
        try:
            become(command, directory, assembled)
        except Exception as error:
            print(f"container.py: {error}", file=sys.stderr)
        os._exit(125)
    return process.wait(child)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

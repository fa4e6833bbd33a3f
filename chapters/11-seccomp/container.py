"""The container program, chapter 11: a filter judges each of its system calls.

    container.py [--profile FILE] [--unconfined] ROOTFS [COMMAND [ARG ...]]

ROOTFS is a directory with all that the command needs, or / for a view of this machine's own files. FILE is a profile in
Docker's form; without one it is Docker's own policy. New in it: the filter, loaded just before the capabilities go.
"""

import sys
from argparse import SUPPRESS, ArgumentParser, RawTextHelpFormatter

from minirt import capabilities, errors
from minirt.kernel import process
from minirt.namespaces import ipc, mnt, pid, uts
from minirt.seccomp import bpf, compiler, filter, policy, profile

PROC = {"type": "proc", "options": ["nosuid", "nodev", "noexec"]}
SHOW = ["sh", "-c", "grep Seccomp: /proc/self/status; unshare --uts true"]


def main() -> int:
    parser = ArgumentParser("container.py", SUPPRESS, __doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--profile", metavar="FILE")
    parser.add_argument("--unconfined", action="store_true")
    parser.add_argument("rootfs", nargs="?", default="/")
    parser.add_argument("command", nargs="...")
    wanted = parser.parse_args()
    command = wanted.command or SHOW
    chosen = profile.read(wanted.profile) if wanted.profile else policy.BUILTIN
    assembled = bpf.assemble(compiler.program(chosen, capabilities.DEFAULT))

    def contained() -> int:
        for room in (uts, ipc, mnt):
            room.enter()
        uts.configure("box")
        root = mnt.bind_root(wanted.rootfs)
        mnt.attach(mnt.make(PROC), root, "/proc")
        mnt.pivot(root)
        keep = capabilities.mask(capabilities.DEFAULT)
        capabilities.limit(keep)
        if not wanted.unconfined:
            filter.install(assembled)
        capabilities.set_sets(keep, keep, 0)
        code = process.become(command)
        print(f"container.py: {command[0]}: {'not found' if code == 127 else 'cannot be executed'}", file=sys.stderr)
        return code

    return process.wait(process.fork_call(contained, fork=lambda: pid.birth()[0]))


if __name__ == "__main__":
    sys.excepthook = lambda kind, error, trace: print("container.py:", errors.told(error)[1], file=sys.stderr)
    sys.exit(main())

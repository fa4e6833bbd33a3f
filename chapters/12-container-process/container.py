"""The container program, chapter 12: every wall at once, from a specification; and one more process behind them.

    container.py [--spec] [--terminal] [--user USER] ROOTFS [COMMAND [ARG ...]]
    container.py --join PID COMMAND [ARG ...]

ROOTFS is a directory with all that the command needs, or / for a view of this machine's own files. --spec prints the
specification instead of running it. PID is the first process of a running container, as this machine numbers it.
New in it: nothing is left to do by hand; what the earlier chapters did line by line is `launch.prepare`.
"""

import os
import sys

from minirt import state
from minirt.errors import MinirtError
from minirt.kernel import process
from minirt.process import handle, join, launch, spec

SHOW = ["sh", "-c", "echo I am $$ on $(uname -n); grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status"]


def attend(started: handle.Handle) -> int:
    """Copy what the container's terminal shows to standard output, if it has one; return the command's exit code."""
    while started.master >= 0:
        try:
            os.write(1, os.read(started.master, 4096))
        except OSError:  # EIO: nobody holds the other end any more
            break
    return process.exit_code(started.wait())


def main(arguments: list[str]) -> int:
    options = {"--spec": "", "--terminal": "", "--user": "0:0", "--join": ""}
    while arguments and arguments[0] in options:
        name = arguments.pop(0)
        if name in ("--user", "--join") and not arguments:
            sys.exit(f"container.py: {name} wants a value")
        options[name] = arguments.pop(0) if name in ("--user", "--join") else "yes"
    if arguments and arguments[0].startswith("--"):
        sys.exit(f"container.py does not know {arguments[0]}")
    root = "/" if options["--join"] else (arguments or ["/"]).pop(0)
    if not os.path.isdir(root):
        sys.exit(f"container.py: {root} is no directory: ROOTFS comes before the command, / is this machine's own")
    wanted = spec.default(arguments or SHOW, root, "box")
    wanted["process"] |= {"terminal": bool(options["--terminal"]), "user": {"name": options["--user"]}}
    if options["--spec"]:
        print(state.dumps(wanted, indent=2))
        return 0
    if options["--join"]:
        try:
            waiting: handle.Handle = join.prepare(os.pidfd_open(int(options["--join"])), wanted)
        except (OSError, OverflowError, ValueError):
            sys.exit("container.py: --join wants the number of a running process, as `ps` prints it")
    else:
        waiting = launch.prepare(wanted)
    try:
        waiting.start()
    except MinirtError as error:
        print(f"container.py: {error}", file=sys.stderr)
        waiting.kill()
        waiting.wait()
        return error.exit_code
    return attend(waiting)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

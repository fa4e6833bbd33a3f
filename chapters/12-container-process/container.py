"""The container program, chapter 12: every wall at once, from a specification; and one more process behind them.

    container.py [--spec] [--terminal] [--user USER] ROOTFS [COMMAND [ARG ...]]
    container.py --join PID COMMAND [ARG ...]

ROOTFS is a directory with all that the command needs, or / for a view of this machine's own files. --spec prints the
specification instead of running it. PID is the first process of a running container, as this machine numbers it.
New in it: nothing is left to do by hand; what the earlier chapters did line by line is `launch.prepare`.
"""

import os
import sys
from argparse import SUPPRESS, ArgumentParser, RawTextHelpFormatter

from minirt import errors, state
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


def main() -> int:
    parser = ArgumentParser("container.py", SUPPRESS, __doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--spec", action="store_true")
    parser.add_argument("--terminal", action="store_true")
    parser.add_argument("--user", default="0:0")
    parser.add_argument("--join", metavar="PID", type=int)
    parser.add_argument("words", nargs="...")
    wanted = parser.parse_args()
    root = "/" if wanted.join else (wanted.words or ["/"]).pop(0)
    plan = spec.default(wanted.words or SHOW, root, "box")
    plan["process"] |= {"terminal": wanted.terminal, "user": {"name": wanted.user}}
    if wanted.spec:
        print(state.dumps(plan, indent=2))
        return 0
    waiting = join.prepare(os.pidfd_open(wanted.join), plan) if wanted.join else launch.prepare(plan)
    try:
        waiting.start()
    except errors.MinirtError as error:
        print(f"container.py: {error}", file=sys.stderr)
        waiting.kill()
        waiting.wait()
        return error.exit_code
    return attend(waiting)


if __name__ == "__main__":
    sys.excepthook = lambda kind, error, trace: print("container.py:", errors.told(error)[1], file=sys.stderr)
    sys.exit(main())

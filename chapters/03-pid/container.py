"""The container program, chapter 03: a host name and process numbers of its own.

    container.py [--hostname NAME] [--init] [COMMAND [ARG ...]]

New in it: the command is born as number 1 of a pid namespace. With --init an init of ours is number 1, and the command
is number 2. /proc is still the machine's, so `ps` shows the machine's processes: that wall is chapter 04's.
"""

import sys
from argparse import SUPPRESS, ArgumentParser, RawTextHelpFormatter

from minirt import errors
from minirt.kernel import process
from minirt.namespaces import pid, uts

SHOW = ["sh", "-c", 'echo "I am number $$ in here"; exec sh']


def main() -> int:
    parser = ArgumentParser("container.py", SUPPRESS, __doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--hostname", default="box")
    parser.add_argument("--init", action="store_true")
    parser.add_argument("command", nargs="...")
    wanted = parser.parse_args()
    command = wanted.command or SHOW

    def become() -> int:
        code = process.become(command)
        print(f"container.py: {command[0]}: {'not found' if code == 127 else 'cannot be executed'}", file=sys.stderr)
        return code

    def contained() -> int:
        uts.enter()
        uts.configure(wanted.hostname)
        return pid.init(become) if wanted.init else become()

    return process.wait(process.fork_call(contained, fork=lambda: pid.birth()[0]))


if __name__ == "__main__":
    sys.excepthook = lambda kind, error, trace: print("container.py:", errors.told(error)[1], file=sys.stderr)
    sys.exit(main())

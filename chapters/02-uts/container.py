"""The container program, chapter 02: a shell with a host name of its own.

    container.py [--hostname NAME] [COMMAND [ARG ...]]

New in it: the child enters a UTS namespace and names its host before it becomes the command. Options are read by
argparse, and what goes wrong is told in a sentence: by `excepthook`, here and in the child (see `fork_call`).
"""

import sys
from argparse import SUPPRESS, ArgumentParser, RawTextHelpFormatter

from minirt import errors
from minirt.kernel import process
from minirt.namespaces import uts


def main() -> int:
    parser = ArgumentParser("container.py", SUPPRESS, __doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--hostname", default="box")
    parser.add_argument("command", nargs="...")
    wanted = parser.parse_args()
    command = wanted.command or ["sh"]

    def contained() -> int:
        uts.enter()
        uts.configure(wanted.hostname)
        code = process.become(command)
        print(f"container.py: {command[0]}: {'not found' if code == 127 else 'cannot be executed'}", file=sys.stderr)
        return code

    return process.wait(process.fork_call(contained))


if __name__ == "__main__":
    sys.excepthook = lambda kind, error, trace: print("container.py:", errors.told(error)[1], file=sys.stderr)
    sys.exit(main())

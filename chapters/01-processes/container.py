"""The container program, chapter 01: a command in a child process.

    container.py [COMMAND [ARG ...]]

New in it: a child becomes the command, the parent waits and ends as the command ended. No wall yet.
"""

import os
import sys

from minirt.kernel import process


def main(arguments: list[str]) -> int:
    command = arguments or ["sh"]

    def contained() -> None:
        os.execvp(command[0], command)

    return process.wait(process.fork_call(contained))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The container program, chapter 02: a shell with a host name of its own.

    container.py [--hostname NAME] [COMMAND [ARG ...]]

New in it: the child enters a UTS namespace and names its host before it becomes the command.
"""

import os
import sys

from minirt.kernel import process
from minirt.namespaces import uts


def main(arguments: list[str]) -> int:
    hostname = "box"
    if arguments[:1] == ["--hostname"]:
        hostname, arguments = arguments[1], arguments[2:]
    command = arguments or ["sh"]

    def contained() -> None:
        uts.enter()
        uts.configure(hostname)
        os.execvp(command[0], command)

    return process.wait(process.fork_call(contained))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

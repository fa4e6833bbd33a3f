"""The container program, chapter 01: a command in a child process.

    container.py [COMMAND [ARG ...]]

New in it: a child becomes the command, the parent waits and ends as the command ended. No wall yet.
"""

import sys

from minirt.kernel import process


def main(arguments: list[str]) -> int:
    command = arguments or ["sh"]

    def contained() -> int:
        code = process.become(command)
        print(f"container.py: {command[0]}: {'not found' if code == 127 else 'cannot be executed'}", file=sys.stderr)
        return code

    return process.wait(process.fork_call(contained))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

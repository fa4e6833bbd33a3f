"""The container program, chapter 03: a host name and process numbers of its own.

    container.py [--hostname NAME] [--init] [COMMAND [ARG ...]]

New in it: the command is born as number 1 of a pid namespace. With --init an init of ours is number 1, and the command
is number 2. /proc is still the machine's, so `ps` shows the machine's processes: that wall is chapter 04's.
"""

import os
import sys

from minirt.kernel import process
from minirt.namespaces import pid, uts

SHOW = ["sh", "-c", 'echo "I am number $$ in here"; exec sh']


def main(arguments: list[str]) -> int:
    hostname, init = "box", False
    while arguments and arguments[0].startswith("--"):
        option = arguments.pop(0)
        if option == "--hostname" and arguments:
            hostname = arguments.pop(0)
        elif option == "--init":
            init = True
        else:
            sys.exit(f"container.py does not know {option}")
    command = arguments or SHOW

    def become_the_command() -> int:
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"container.py: {command[0]}: {error.strerror}", file=sys.stderr)
            return 127

    def contained() -> int:
        uts.enter()
        uts.configure(hostname)
        return pid.init(become_the_command) if init else become_the_command()

    child, _ = pid.birth()
    if child:
        return process.wait(child)
    code = 1
    try:
        code = contained()
    except Exception as error:
        print(f"container.py: {error}", file=sys.stderr)
    finally:
        os._exit(code)  # number 1 ends here: it must not go on as a second container.py


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The roof: where every `minirt` starts. It hands the command line to `minirt.cli.main` and ends the process.

The process ends by `os._exit`: taking an interpreter down in good order costs a millisecond, and there is nothing to
put in order, since every file was closed or synced where it was written. For the same reason cycles are not collected
until the command's work begins (`cli.main`): while modules are loaded there is nothing to find, and looking for it is a
seventh of the time that loading takes.
"""

from __future__ import annotations

import gc
import os
import sys


def main() -> int:
    """Runs the command line of this process. Never returns: the process ends with the command's exit code."""
    gc.disable()
    # A caller may have closed standard streams. Then the next files would get their numbers, and be taken for them.
    while (descriptor := os.open("/dev/null", os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
    from minirt import state

    directory = state.run_path()
    if directory and os.access(f"{directory}/workspace", os.F_OK):  # one failed call, where no workshop is going on
        from minirt import workshop

        workshop.activate()
    from minirt.cli.main import main as command_line

    code = 1
    try:
        code = command_line(sys.argv[1:])
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)  # MINIRT_DEBUG: else a sentence came, and no exception
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None: the caller had closed it, and wants no output
            try:
                stream.flush()
            except (OSError, ValueError):
                code = code or 1
        os._exit(code)


if __name__ == "__main__":
    main()

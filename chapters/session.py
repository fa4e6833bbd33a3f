"""What the workshop runs inside a cage: the project's shell, and container.py with the participant's functions.

    python -m chapters.session shell
    python -m chapters.session container N MODULES [--on-host] -- ARGS

MODULES is a JSON object, full module name -> file. The finder is installed before anything of minirt is imported, and
container.py runs in this very process (`runpy`): another interpreter would not know of the finder.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from collections.abc import Sequence

from chapters import cage, contents, finder, transcript
from chapters.skeleton import UNFILLED


def shell() -> int:
    """Become the project's shell. Returns only when there is none."""
    environment = transcript.environment() | {"TERM": os.environ.get("TERM", "dumb")}
    os.chdir(contents.ROOT)
    os.execvpe("bash", ["bash", "--noprofile", "--norc"], environment)


def container(number: int, modules: dict[str, str], arguments: Sequence[str], on_host: bool = False) -> int:
    """Run a chapter's container.py with modules of a workspace. Returns its exit status."""
    if modules and not on_host and not os.path.exists(cage.MARK):
        print("container.py with your own functions runs in a cage; on this machine itself only with --on-host.",
              file=sys.stderr)  # fmt: skip
        return 125
    chapter = contents.chapter(number)
    if modules:
        finder.install(modules)
    sys.dont_write_bytecode = True
    sys.argv = [str(chapter.container), *arguments]
    sys.path.insert(0, str(contents.ROOT))
    try:
        runpy.run_path(str(chapter.container), run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except NotImplementedError as error:
        if UNFILLED not in str(error):
            raise
        print(f"{error}.", file=sys.stderr)
        return 125
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def main(arguments: Sequence[str]) -> int:
    """The command line; see the head of this file."""
    if arguments[0] == "shell":
        return shell()
    split = list(arguments).index("--")
    number, modules, *options = arguments[1:split]
    status = container(int(number), json.loads(modules), arguments[split + 1 :], "--on-host" in options)
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

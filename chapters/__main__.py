"""`python -m chapters`: find the project's own interpreter, then hand the command line to chapters/command.py.

A participant types `python3` and gets the system's; what the workshop needs (Python 3.11, pytest) is in .venv, which
`make hello` and `make workshop` fill. So a plain interpreter hands over to that one.
"""

from __future__ import annotations

import os
import sys

ENVIRONMENT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ".venv")

if __name__ == "__main__":
    own = os.path.join(ENVIRONMENT, "bin", "python")
    if sys.prefix == sys.base_prefix and os.access(own, os.X_OK):
        os.execv(own, [own, "-m", "chapters", *sys.argv[1:]])
    if sys.version_info < (3, 11):  # noqa: UP036 (an older one may well be what `python3` means)
        sys.exit(f"The workshop needs Python 3.11 or later; this is {sys.version.split()[0]}. See `make workshop`.")

    from chapters.command import main

    sys.exit(main())

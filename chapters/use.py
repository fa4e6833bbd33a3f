"""`use` and `leave`: the pointer that makes the real minirt run a participant's functions.

The pointer is the file `workspace` in the run directory of the state root, which belongs to root; minirt.workshop reads
it at every start of minirt. So these two steps are taken as root: this module is also the program that does it,

    python -m chapters.use            with an order as JSON on standard input
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from chapters import contents, judge


def switch_on(directory: Path, modules: dict[str, Path]) -> int:
    """Make minirt run modules of a workspace: full name -> file. Returns 0, or 1 after it has said what is wrong."""
    return _as_root({
        "do": "on", "directory": str(directory.resolve()),
        "modules": {name: str(path) for name, path in modules.items()},
    })  # fmt: skip


def switch_off(sweep: bool = False) -> int:
    """Make minirt run its own modules; with `sweep`, also take away what killed cages have left. Returns 0 or 1."""
    return _as_root({"do": "off", "sweep": sweep})


def _as_root(what: dict[str, Any]) -> int:
    order = json.dumps(what | {"root": os.environ.get("MINIRT_ROOT", "")})
    command = judge.as_root("chapters.use")
    return subprocess.run(command, input=order, text=True, cwd=contents.ROOT, check=False).returncode


def main() -> int:
    """Carry out one order, as root."""
    from minirt import state, workshop

    order = json.load(sys.stdin)
    if order["root"]:
        os.environ["MINIRT_ROOT"] = order["root"]
    if order["do"] == "off":
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(state.run_path() or "/", workshop.POINTER))
        if order["sweep"]:
            from chapters import cage

            for path in cage.sweep():
                print(f"removed: {path}")
        return 0
    user = int(os.environ.get("SUDO_UID", os.geteuid()))
    for path in order["modules"].values():
        if reason := workshop.distrust(path, user):
            print(f"minirt will not run {path}: {reason}.", file=sys.stderr)
            return 1
    kept = {"directory": order["directory"], "user": user, "modules": order["modules"]}
    state.write_json(os.path.join(state.run_root(), workshop.POINTER), kept, sync=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())

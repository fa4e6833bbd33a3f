"""`minirt --explain=sh run ...`: the container that the command would start, as a script for the shell.

Nothing is started, and nothing is left in the store.
"""

from __future__ import annotations

from minirt.cli import format as formats
from minirt.errors import MinirtError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minirt.cli.options import Command


def told(command: Command, words: Sequence[str]) -> int:
    """Prints the script for `run` or `create` and what follows its name. Returns the exit code; raises MinirtError."""
    if command.name not in ("run", "create"):
        raise UsageError(f"--explain=sh tells how a container is built: it goes with run, not {command.name}")
    from minirt.cli import run
    from minirt.containers import outline
    from minirt.process import script

    options = command.parse(words)
    title = " ".join(["What this builds:", "minirt", command.name, *(script.quoted(word) for word in words)])
    try:
        text = outline.outline(run.asked(options), options.arguments, title)
    except MinirtError as error:
        error.exit_code = 125 if error.exit_code == 1 else error.exit_code
        raise
    formats.show(text)
    return 0

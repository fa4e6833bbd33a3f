"""Chapter 17: `top`: the processes of a container, as the machine numbers them: `ps`, filtered by its cgroup.

Manual page: ps(1).
"""

from __future__ import annotations

import subprocess

from minirt.cgroups import tree
from minirt.containers import record, stop
from minirt.errors import MinirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def table(container: record.Container, words: Sequence[str]) -> str:
    """What `ps` says of the container's processes. `words`: its options, `-ef` when there are none.

    Raises ConflictError when the container is not running, MinirtError when `ps` refuses.
    """
    if not record.derive(container).alive:
        raise stop.not_running(container, "list the processes of")
    pids = tree.group(container.group_name).processes()
    try:
        result = subprocess.run(["ps", *(words or ["-ef"])], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MinirtError("the program ps is missing: apt-get install procps") from None
    if result.returncode:
        raise MinirtError(f"ps: {result.stderr.strip()}")
    head, *lines = result.stdout.splitlines()
    titles = head.split()
    if "PID" not in titles:
        raise MinirtError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    shown = [line for line in lines if line.split(None, column + 1)[column] in {str(pid) for pid in pids}]
    rows = [line.split(None, len(titles) - 1) for line in [head, *shown]]
    widths = [max(len(row[index]) for row in rows if index < len(row)) for index in range(len(titles) - 1)]
    return "".join(
        "".join(cell.ljust(widths[index] + 3) for index, cell in enumerate(row[:-1])) + row[-1] + "\n" for row in rows
    )

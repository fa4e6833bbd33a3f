"""Chapter 17: `top`: the processes of a container, as the machine numbers them: `ps`, filtered by its cgroup.

Manual page: ps(1).
"""

from __future__ import annotations

import os
import subprocess

from minirt.cgroups import tree
from minirt.containers import record, stop
from minirt.errors import MinirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


WIDTH = 20  # of a column, at least, as in Docker's table


def table(container: record.Container, words: Sequence[str]) -> str:
    """What `ps` says of the container's processes. `words`: its options, `-ef` when there are none.

    Raises ConflictError when the container is not running, MinirtError when `ps` refuses.
    """
    if not record.derive(container).alive:
        raise stop.not_running(container, "list the processes of")
    group = tree.group(container.group_name)
    pids = group.processes() if group.version else of_namespace(record.derive(container).pid)
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
    widths = [max(WIDTH, *(len(row[index]) + 3 for row in rows if index < len(row)))
              for index in range(len(titles) - 1)]
    return "".join(
        "".join(cell.ljust(widths[index]) for index, cell in enumerate(row[:-1])) + row[-1] + "\n" for row in rows
    )


def of_namespace(first: int) -> list[int]:
    """The pids of all processes in the pid namespace of process `first`: a container's, where no control group was
    delegated; `first` alone where that namespace is our own."""
    wanted = os.readlink(f"/proc/{first}/ns/pid")
    if wanted == os.readlink("/proc/self/ns/pid"):
        return [first]
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/ns/pid") == wanted:
                found.append(int(name))
        except OSError:
            continue  # somebody else's, or it has ended
    return found

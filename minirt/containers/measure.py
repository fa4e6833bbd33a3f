"""Chapter 17: how much a container wrote: the sum over its upper directory; and how much its image brings.

Manual page: stat(2).
"""

from __future__ import annotations

import os

from minirt import state
from minirt.containers import record

TYPE_CHECKING = False


def sizes(container: record.Container) -> tuple[int, int]:
    """(bytes that the container wrote, bytes of the layers below it)."""
    layers = f"{state.root()}/layers"
    below = sum(tree(f"{layers}/{chain}/diff") for chain in container.config["Layers"])
    return tree(f"{container.directory}/upper"), below


def tree(path: str) -> int:
    """The sizes of all files below a directory, hard links counted once; nothing when it is not there."""
    seen: set[tuple[int, int]] = set()
    total = 0
    waiting = [path]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif status.st_nlink == 1 or (status.st_dev, status.st_ino) not in seen:
                        seen.add((status.st_dev, status.st_ino))
                        total += status.st_size
        except OSError:
            continue
    return total

"""Chapter 17: `rm` and `container prune`: containers that nobody wants any more.

One that runs is killed, and its monitor removes it at its end; one that does not run is erased here, under its lock.

Source: Docker Engine API, "Remove a container", "Delete stopped containers".
"""

from __future__ import annotations

import os

from minirt.containers import erase, first_process, record, repair, stop
from minirt.errors import ConflictError, MinirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Removal:
    """A container that is being removed. Several may be begun, one after the other, before the first is waited for.

    `force`: a running one is killed. Raises ConflictError, in Docker's words, for a running one without it.
    """

    __slots__ = ("_container", "_ending")

    def __init__(self, container: record.Container, force: bool) -> None:
        self._container = container
        self._ending: stop.Ending | None = None
        now = record.derive(container)
        if not now.alive:
            return
        if not force:
            what = "running: stop the container before removing or force remove"
            if now.status == "paused":
                what = "paused and must be unpaused first"
            raise ConflictError(f'cannot remove container "/{container.name}": container is {what}')
        self._ending = stop.Ending(container, first_process.SIGKILL, -1, "remove")

    def wait(self) -> None:
        """Waits until it is gone. Raises NotFoundError when somebody else removed it, ConflictError when it runs."""
        if self._ending is not None:
            self._ending.wait()
            if not os.path.isdir(self._container.directory):
                return
        erase.destroy(self._container, repair.lock(self._container))


def prune(may_go: Callable[[record.Container], bool]) -> tuple[list[str], int]:
    """Removes the containers that do not run, if `may_go` says so; their ids, and the bytes that are free now."""
    from minirt.containers import measure

    removed, freed = [], 0
    for container in record.listing():
        if record.derive(container).alive or not may_go(container):
            continue
        try:
            own = measure.sizes(container)[0]
            erase.destroy(container, repair.lock(container))
        except MinirtError:
            continue  # it was started or removed meanwhile
        removed.append(container.id)
        freed += own
    repair.sweep()
    return removed, freed

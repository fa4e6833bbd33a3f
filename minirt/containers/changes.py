"""Chapter 17: what a container changed in its image's files: `diff`.

The upper directory of its overlay says it (chapter 09). What minirt itself put there, the places that it mounts
something on, is no change of the container's: Docker keeps those in a layer of its own below the container's.
"""

from __future__ import annotations

import os

from minirt import overlay, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minirt.containers.record import Container

PLACES = ("/dev", "/dev/console", "/dev/mqueue", "/dev/pts", "/dev/shm", "/etc/hostname", "/etc/hosts",
          "/etc/resolv.conf", "/proc", "/sys")


def of(container: Container) -> list[tuple[str, str]]:
    """(kind, path) of each change, as `overlay.changes` tells it, sorted by path."""
    layers = [f"{state.root()}/layers/{chain}/diff" for chain in reversed(container.config["Layers"])]
    upper = f"{container.directory}/upper"
    if not os.path.isdir(upper):
        return []  # made, and never started
    if os.geteuid():
        from minirt.namespaces import rootless

        return [(kind, path) for kind, path in rootless.call(lambda: of(container))]  # the files have many owners
    found = overlay.changes(upper, layers)
    own = {path for _, path in found} - set(PLACES)
    # A directory that is changed only because a place was made in it has not changed either.
    parents = {path.rpartition("/")[0] for path in PLACES} - {""}
    touched = {path for path in parents if any(other.startswith(path + "/") for other in own)}
    return [(kind, path) for kind, path in found if path in own and (path not in parents or path in touched)]

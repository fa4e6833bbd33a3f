"""Chapter 17: another name for a container: first the new claim, then the configuration, then the old name goes.

Killed in between, the container has the name that its configuration says, and the other claim is void.
"""

from __future__ import annotations

import os

from minirt.containers import peer, record, repair
from minirt.errors import MinirtError


def rename(container: record.Container, name: str) -> None:
    """Renames a container. Raises MinirtError for a bad name, ConflictError when it is taken."""
    name = name.lstrip("/")
    if not name:
        raise MinirtError("Neither old nor new names may be empty")
    record.check_name(name)
    if container.name == name:
        raise MinirtError("Renaming a container with the same name as its current name")
    if record.derive(container).alive:
        give_name(container, name)
        channel = peer.connect(container, {"name": name}, ())  # its monitor has read the configuration long ago
        if channel >= 0:
            os.close(channel)
    else:
        lock = repair.hold(container)  # whoever starts it meanwhile writes the configuration, too
        give_name(record.load(container.id), name)
        lock.release()


def give_name(container: record.Container, name: str) -> None:
    """Claims the new name, writes it down, and gives the old one back. Raises ConflictError when it is taken."""
    old = container.name
    with record.naming():
        record.claim_name(name, container.id)
        container.config["Name"] = name
        container.save()
    record.release_name(old, container.id)
    container.tell("rename", oldName=f"/{old}")

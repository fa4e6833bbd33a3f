"""Chapter 13, beyond: from an archive, or from what another tool put into the layout, to an image that can be started.

What `archive.py` found becomes an image of the store by `assemble.py`.
"""

from __future__ import annotations

import os

from minirt import state, trace
from minirt.errors import BadInputError, KernelError
from minirt.images import archive, assemble, listing, lookup, store, untrusted
from minirt.images.incoming import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHAPTER = 13


def load(descriptor: int, platform: str = "") -> list[assemble.Loaded]:
    """Load every image of the archive that `descriptor` (a file or a pipe) holds: all of them, or none. With `platform`
    ("linux/arm64"), those that are made for it; else of an image for several platforms this machine's.

    Raises BadInputError for an archive that is broken, hostile or no image, NotFoundError when nothing in it is for the
    platform, KernelError for what this machine cannot do; then the store is as it was.
    """
    owners = assemble.become_root()
    store.sweep()
    with store.Work() as work:
        try:
            trace.step(CHAPTER, "read what the archive holds: names, configs, layers", "read(archive)")
            found = archive.images(archive.open_archive(descriptor, f"{work.path}/archive"), platform)
            loaded = assemble.take(work, found, owners)
        except IsADirectoryError:
            raise BadInputError("a directory is no archive: give the file that `save` wrote") from None
        except OSError as error:
            raise KernelError.of("loading an image", error) from None
    for image in loaded:
        listing.tell("load", image.id)
    return loaded


def unpack_stored(identifier: str) -> dict[str, Any]:
    """Unpack an image that is in the layout but was put there by another tool; return its record of chains.

    Raises as `load`.
    """
    if os.geteuid():
        from minirt.namespaces import rootless

        record: dict[str, Any] = rootless.call(lambda: unpack_stored(identifier))
        return record
    owners = assemble.become_root()
    with store.Work() as work:
        found = next((each for each in lookup.read_index()["manifests"]
                      if lookup.config_digest(each) == identifier), None)
        if found is None:
            raise BadInputError(f"the image store is damaged: nothing leads to {identifier}")
        manifest = lookup.manifest_of(found)
        config = state.read_file(lookup.blob_path(identifier))
        layers = []
        for each, diff_id in zip(manifest["layers"], untrusted.diff_ids_of(config), strict=True):
            blob = os.open(lookup.blob_path(each["digest"]), os.O_RDONLY | os.O_CLOEXEC)
            layers.append(archive.LayerFile((blob, 0, os.fstat(blob).st_size), each["digest"], diff_id))
        try:
            parts = assemble.Parts(Place(work, owners), assemble.Image(config, layers, []), True)
            parts.make()
            assemble.sync(work.root)
            with store.lock():
                parts.move()
        finally:
            for each in layers:
                os.close(each.descriptor)
        return parts.record()



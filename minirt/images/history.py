"""Chapter 13, beyond: how an image came to be, step by step, with the size of what each step left.

The configuration tells the steps, the oldest first; those marked "empty_layer" changed only the configuration. The
others belong to the layers, one each, in the same order.

Source: OCI image-spec config.md "history".
"""

from __future__ import annotations

from minirt import state
from minirt.images import listing, lookup, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Step:
    """One step: `created` (seconds since 1970, 0 when it does not say), `command`, `comment`, the `size` in bytes of
    the layer that it left (0 for none), and `id`, the image's for its last step, else ""."""

    __slots__ = ("command", "comment", "created", "id", "size")

    def __init__(self, said: dict[str, Any], size: int) -> None:
        self.command, self.comment = str(said.get("created_by") or ""), str(said.get("comment") or "")
        self.size, self.id = size, ""
        try:
            self.created = state.parse_time(str(said.get("created") or ""))
        except ValueError:
            self.created = 0.0


def history(image: listing.Stored) -> list[Step]:
    """The steps of an image, the newest first. A layer that no step tells of gets one that says nothing."""
    sizes = _sizes(image)
    steps = []
    for said in image.config.get("history") or ():
        empty = said.get("empty_layer") or not sizes
        steps.append(Step(said, 0 if empty else sizes.pop(0)))
    steps += [Step({"created": image.config.get("created")}, size) for size in sizes]
    if steps:
        steps[-1].id = image.id
    return steps[::-1]


def _sizes(image: listing.Stored) -> list[int]:
    """The bytes of each layer's files, the lowest first; of an image that was never unpacked, of its blobs."""
    if not image.chains:
        return [each.get("size", 0) for each in lookup.manifest_of(image.descriptors[0])["layers"]]
    return [usage.layer_size(chain) for chain in image.chains]

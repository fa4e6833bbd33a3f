"""Chapter 13, beyond: how much room images take on the disk, and whose it is.

An image takes room twice: its blobs, as they came, and its layers, unpacked. Both are shared: what two images have in
common is there once. So an image's own share, what its removal would give back, is what no other image has.
"""

from __future__ import annotations

import os

from minirt import state
from minirt.images import listing, lookup, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Usage:
    """The room that images take: `images`, all of them; sizes are in bytes."""

    def __init__(self) -> None:
        """Look at the store as it is now."""
        self.images = listing.images()
        self._sizes: dict[str, int] = {}
        self._parts = {image.id: self._parts_of(image) for image in self.images}
        self._users: dict[str, int] = {}
        for parts in self._parts.values():
            for part in parts:
                self._users[part] = self._users.get(part, 0) + 1

    def _parts_of(self, image: listing.Stored) -> set[str]:
        """What an image needs: digests of blobs, and chain ids of layers; their sizes are noted."""
        digests = set[str]().union(*(store.blobs(each) for each in image.descriptors))
        for digest in digests - set(self._sizes):
            self._sizes[digest] = _size(lookup.blob_path(digest))
        for chain in image.chains:
            if chain not in self._sizes:
                self._sizes[chain] = layer_size(chain)
        return digests | set(image.chains)

    def total(self) -> int:
        """The room of all images, what they share counted once."""
        return self._sum(self._users)

    def whole(self, image: listing.Stored) -> int:
        """The room of one image, with what it shares."""
        return self._sum(self._parts[image.id])

    def content(self, image: listing.Stored) -> int:
        """The room of its blobs alone: what would be sent to somebody else."""
        return self._sum(part for part in self._parts[image.id] if ":" in part)

    def unique(self, image: listing.Stored) -> int:
        """What its removal would give back: what no other image has."""
        return self._sum(part for part in self._parts[image.id] if self._users[part] == 1)

    def reclaimable(self) -> int:
        """What would be free if every image that no container uses were removed."""
        needed = set[str]().union(*(self._parts[image.id] for image in self.images if users(image)))
        return self.total() - self._sum(needed)

    def _sum(self, parts: Iterable[str]) -> int:
        return sum(self._sizes[part] for part in parts)


def users(image: listing.Stored) -> list[str]:
    """The ids of the containers that use an image: the live pins on its topmost layer."""
    pins = state.pins(f"{state.root()}/layers/{image.chains[-1]}") if image.chains else []
    return [pin for pin in pins if not pin.startswith(store.PENDING)]


def running(image: listing.Stored) -> list[str]:
    """Those of the users of an image that run."""
    return state.at_work(f"{state.root()}/layers/{image.chains[-1]}") if image.chains else []


def all_together() -> int:
    """The room that the whole store takes: every blob and every layer, whoever needs it."""
    root = store.prepare()
    blobs = sum(_size(f"{root}/images/blobs/sha256/{name}") for name in os.listdir(f"{root}/images/blobs/sha256"))
    return blobs + sum(layer_size(name) for name in os.listdir(f"{root}/layers") if name != "l")


def layer_size(chain: str) -> int:
    """The bytes of an unpacked layer's files; 0 when it is not there."""
    try:
        return int(state.read_json(f"{state.root()}/layers/{chain}/layer.json")["size"])
    except (OSError, ValueError, KeyError):
        return 0


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0

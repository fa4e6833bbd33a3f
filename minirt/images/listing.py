"""Chapter 13, beyond: what the store holds, for people: images with their names, sizes and dates.

The index lists manifests by name; one image, that is one configuration, may have several names and even several
manifests (the same layers packed otherwise). Here they are grouped.

Sources: OCI image-spec image-layout.md, config.md.
"""

from __future__ import annotations

from minirt import events, state
from minirt.errors import BadInputError, NotFoundError
from minirt.images import lookup, reference, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Stored:
    """An image of the store for people: `id`; `references`, its full names; `descriptors`, its entries of the index;
    `config`; `size` in bytes, unpacked; `chains` (empty when it was never unpacked)."""

    __slots__ = ("chains", "config", "descriptors", "id", "references", "size")

    def __init__(self, identifier: str, descriptors: list[dict[str, Any]]) -> None:
        self.id, self.descriptors = identifier, descriptors
        self.references = sorted(filter(None, map(lookup.name_of, descriptors)))
        self.config = lookup.read_blob(identifier)
        try:
            record = state.read_json(f"{state.root()}/chains/{identifier[7:]}")
            self.chains, self.size = record["chains"], record["size"]
        except (FileNotFoundError, ValueError, KeyError):
            self.chains = []
            self.size = sum(each.get("size", 0) for each in lookup.manifest_of(descriptors[0])["layers"])

    @property
    def created(self) -> float:
        """When it was made, in seconds since 1970; 0 when it does not say."""
        try:
            return state.parse_time(str(self.config.get("created") or ""))
        except ValueError:
            return 0.0

    def repositories(self) -> list[tuple[str, str, str]]:
        """(full repository, tag, manifest digest) of each name; one without names has ("", "", digest)."""
        rows = []
        for descriptor in self.descriptors:
            name = lookup.name_of(descriptor)
            try:
                parsed = reference.parse(name) if name else None
            except BadInputError:  # another tool's idea of a name
                rows.append((name, "", descriptor["digest"]))
                continue
            digest = lookup.digest_of(descriptor)
            rows.append((parsed.repository if parsed else "", parsed.tag if parsed else "", digest))
        return sorted(rows)


def tell(action: str, identifier: str, name: str = "", about: str = "") -> None:
    """Add an event of the image with that id to the log that `events` shows: `action` in Docker's words, with the
    image's labels and `name`, which is the id where Docker gives no other. `about`: what the event is of, where that
    is not the id (a pull has a reference)."""
    try:
        labels = (lookup.read_blob(identifier).get("config") or {}).get("Labels") or {}
    except (OSError, BadInputError):
        labels = {}  # the image is gone
    events.append("image", action, about or identifier, {**labels, "name": name or identifier})


def images() -> list[Stored]:
    """Every image of the store, the newest first. Leftovers of a killed command are swept on the way."""
    store.sweep()
    return lookup.steady(_images)


def _images() -> list[Stored]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for descriptor in lookup.read_index()["manifests"]:
        try:
            grouped.setdefault(lookup.config_digest(descriptor), []).append(descriptor)
        except BadInputError:
            continue  # made for another machine, or another tool is still writing it
    stored = [Stored(identifier, descriptors) for identifier, descriptors in grouped.items()]
    return sorted(stored, key=lambda image: (-image.created, image.id))


def get(name: str) -> Stored:
    """The image that `name` means, as `lookup.resolve` understands it. Raises NotFoundError."""
    return lookup.steady(lambda: _get(name))


def _get(name: str) -> Stored:
    identifier, _ = lookup.resolve(name)
    index = lookup.read_index()
    found = [each for each in index["manifests"] if leads_to(each, identifier)]
    if not found:
        raise NotFoundError(f"No such image: {name}")
    return Stored(identifier, found)


def leads_to(descriptor: dict[str, Any], identifier: str) -> bool:
    """Whether a descriptor of the index is the image with that id; an unreadable one is no image."""
    try:
        return lookup.config_digest(descriptor) == identifier
    except BadInputError:
        return False


def familiar(full: str) -> str:
    """A full name as the user knows it: `docker.io/library/box:1` is `box:1`; another tool's name as it is."""
    try:
        return reference.parse(full).familiar()
    except BadInputError:
        return full

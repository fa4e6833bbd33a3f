"""Chapter 13, beyond: an image as a start needs it.

Beside the layout, chains/ID lists the unpacked layers of an image, written when it was loaded: so a start reads four
small files and hashes nothing. An image without that record was put into the layout by another tool (skopeo, umoci):
its first start unpacks it.

Source: OCI image-spec config.md "Layer ChainID".
"""

from __future__ import annotations

from minirt import state
from minirt.images import lookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Image:
    """An image as a start needs it.

    `id`: "sha256:..." of its config; `reference`: its full name ("" when it was found by id); `config`: the OCI image
    configuration (Env, Cmd, User, ... under "config"); `chains`: its layers' chain ids, hexadecimal, the lowest first.
    """

    __slots__ = ("chains", "config", "id", "reference")

    def __init__(self, identifier: str, reference: str, config: dict[str, Any], chains: list[str]) -> None:
        self.id, self.reference, self.config, self.chains = identifier, reference, config, chains

    def lower(self) -> list[str]:
        """The layers as an overlay mount names them, relative to the directory of all layers, the topmost first."""
        return [f"l/{chain[:20]}" for chain in reversed(self.chains)]


def find(name: str) -> Image:
    """The image that `name` means, unpacked. Raises as `lookup.resolve`, and as `load.unpack_stored`."""
    return lookup.steady(lambda: _find(name))


def _find(name: str) -> Image:
    identifier, full = lookup.resolve(name)
    try:
        record = state.read_json(f"{state.root()}/chains/{identifier.removeprefix('sha256:')}")
    except (FileNotFoundError, ValueError):
        from minirt.images import load  # heavy, and seldom needed

        record = load.unpack_stored(identifier)
    return Image(identifier, full, lookup.read_blob(identifier), record["chains"])

"""Chapter 13: an image as `inspect` shows it: Docker's fields, made from the config, the index and the layers."""

from __future__ import annotations

from minirt import state
from minirt.images import listing, platforms, reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What Docker shows of an image's configuration even where the image does not say it.
_CONFIG = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None, "Image": "", "Volumes": None,
    "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": None,
}


def inspect(name: str, platform: str = "") -> dict[str, Any]:
    """The description of the image that `name` means, in the form of Docker's Engine API.

    Raises NotFoundError when there is none, or it is not made for `platform` (where that is given).
    """
    image = listing.get(name)
    platforms.check(image.config, name, platform)
    config = image.config
    return {
        "Id": image.id,
        "RepoTags": [reference.parse(full).familiar() for full in image.references],
        "RepoDigests": digests(image),
        "Parent": "",
        "Comment": (config.get("history") or [{}])[-1].get("comment", ""),
        "Created": config.get("created", ""),
        "DockerVersion": config.get("docker_version", ""),
        "Author": config.get("author", ""),
        "Config": {**_CONFIG, **(config.get("config") or {})},
        "Architecture": config.get("architecture", ""),
        **({"Variant": config["variant"]} if config.get("variant") else {}),
        "Os": config.get("os", ""),
        "Size": image.size,
        "GraphDriver": {"Data": _layers(image), "Name": "overlay"},
        "RootFS": {"Type": "layers", "Layers": (config.get("rootfs") or {}).get("diff_ids") or []},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    }


def digests(image: listing.Stored) -> list[str]:
    """`repository@digest` for each repository and manifest of an image, in the short form."""
    rows = {(repository, digest) for repository, _, digest in image.repositories() if repository}
    return sorted(f"{reference.parse(repository).familiar_repository()}@{digest}" for repository, digest in rows)


def _layers(image: listing.Stored) -> dict[str, str]:
    """Where the unpacked layers are: the topmost, and those below it in the order of an overlay mount."""
    places = [f"{state.root()}/layers/{chain}/diff" for chain in reversed(image.chains)]
    found = {"UpperDir": places[0]} if places else {}
    if places[1:]:
        found["LowerDir"] = ":".join(places[1:])
    return found

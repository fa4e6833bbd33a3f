"""Chapter 13, beyond: platforms as people write them, and whether an image is made for one.

Sources: OCI image-spec image-index.md "platform"; the names that Go has, and containerd understands.
"""

from __future__ import annotations

from minirt.errors import NotFoundError
from minirt.images import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SYSTEMS = ("aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "js", "linux", "netbsd", "openbsd", "plan9",
           "solaris", "wasip1", "windows", "zos")
MACHINES = ("386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
            "riscv64", "s390x", "wasm")
_OTHERWISE = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}


def parse(text: str) -> str:
    """A platform as images name it, "linux/arm64": a machine alone is one with Linux, a system alone is on this
    machine's, and the kernel's names are understood too. Raises ValueError when it is none."""
    system, _, machine = text.partition("/")
    if system in MACHINES or system in _OTHERWISE:
        system, machine = "linux", text
    machine, _, variant = (machine or documents.architecture()).partition("/")
    if system not in SYSTEMS or not machine:
        raise ValueError(f'"{text}": unknown operating system or architecture: give OS/ARCHITECTURE, as linux/arm64')
    machine = _OTHERWISE.get(machine, machine)
    return "/".join(filter(None, (system, machine, "" if (machine, variant) == ("arm64", "v8") else variant)))


def of(config: Mapping[str, Any]) -> str:
    """The platform that an image with that configuration is made for: "linux/arm/v7"."""
    return "/".join(str(config[key]) for key in ("os", "architecture", "variant") if config.get(key))


def fits(config: Mapping[str, Any], platform: str) -> bool:
    """Whether an image with that configuration is made for `platform`; one that names no variant means any."""
    return f"{of(config)}/".startswith(f"{platform}/")


def check(config: Mapping[str, Any], name: str, *wanted: str) -> None:
    """Raises NotFoundError unless the image `name` with that configuration is made for one of the platforms `wanted`;
    "" and none at all are any."""
    platforms = [each for each in wanted if each]
    if platforms and not any(fits(config, each) for each in platforms):
        raise NotFoundError(f"image with reference {name} was found but does not provide the specified platform "
                            f"({', '.join(platforms)}): it is made for {of(config)}")

"""Chapter 17: what a container's processes may do: capabilities, privileges by an exec, system calls.

From the "HostConfig" of its configuration to the words of the specification (chapter 12). The filter of system calls is
assembled from the same two.
"""

from __future__ import annotations

from minirt import capabilities, state
from minirt.process import spec as specs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def granted(host: dict[str, Any]) -> list[str]:
    """The capabilities that the container's root may use: Docker's fourteen, changed by `--cap-add` and
    `--cap-drop`; with `--privileged` all that there are.
    """
    if host["Privileged"]:
        return capabilities.everything()
    if host["CapAdd"] or host["CapDrop"]:
        return capabilities.choose(host["CapAdd"], host["CapDrop"])
    return list(capabilities.DEFAULT)


def no_new_privileges(host: dict[str, Any]) -> bool:
    """Whether `--security-opt no-new-privileges` was asked for."""
    return "no-new-privileges" in host["SecurityOpt"]


def seccomp(host: dict[str, Any]) -> dict[str, Any] | None:
    """The system call policy: Docker's, the user's own of `--security-opt seccomp=FILE`, or None for `unconfined`.
    A privileged container has none unless one is asked for."""
    profile: Any = "unconfined" if host["Privileged"] else "builtin"
    for text in host["SecurityOpt"]:
        name, _, value = text.partition("=")
        if name == "seccomp":
            profile = value if value in ("builtin", "unconfined") else state.loads(value)
    return None if profile == "unconfined" else {"profile": profile}


def system_call_filter(host: dict[str, Any]) -> bytes:
    """The assembled filter of a container's processes; empty when they have none. Raises BadInputError."""
    return specs.filter_for({"process": {"capabilities": {"bounding": granted(host)}},
                             "linux": {"seccomp": seccomp(host)}})

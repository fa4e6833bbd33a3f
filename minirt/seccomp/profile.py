"""Chapter 11: profiles that the user brings: `--security-opt seccomp=FILE`.

Read and checked before anything is made, so that a mistake in one is a sentence and no half-made container.

Sources: moby profiles/seccomp, OCI runtime-spec config-linux.md "Seccomp".
"""

from __future__ import annotations

from minirt import state
from minirt.errors import BadInputError
from minirt.seccomp import compiler, numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read(path: str) -> dict[str, Any]:
    """The profile in the file `path`. Raises BadInputError when it is none, in a sentence that names the place."""
    try:
        profile = state.read_json(path)
    except OSError as error:
        raise BadInputError(f"opening seccomp profile ({path}) failed: {error.strerror}") from None
    except ValueError as error:
        raise BadInputError(f"decoding seccomp profile ({path}) failed: {error}") from None
    check(profile)
    checked: dict[str, Any] = profile
    return checked


def check(profile: Any) -> None:
    """Raise BadInputError, with the reason, unless `profile` has the form of a seccomp profile.

    A rule with the older key "name" gets "names". A rule for a call that no table has is passed over at compile time,
    since a profile may be newer than this list.
    """
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise BadInputError("seccomp profile: it must be an object with a defaultAction")
    if profile.get("archMap") and profile.get("architectures"):
        raise BadInputError("seccomp profile: 'architectures' and 'archMap' were specified, use one of them")
    compiler.action_of(profile["defaultAction"], profile.get("defaultErrnoRet"))
    for place, rule in enumerate(profile.get("syscalls") or ()):
        if not isinstance(rule, dict):
            raise BadInputError(f"seccomp profile: rule {place} is no object")
        if "name" in rule and "names" in rule:
            raise BadInputError("seccomp profile: 'name' and 'names' were specified, use one of them")
        rule.setdefault("names", [rule["name"]] if rule.get("name") else [])
        try:
            compiler.cases([rule], numbers.numbers("x86_64"), 0)
            compiler.rules_for({"syscalls": [rule]}, (), "x86_64", (6, 1))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInputError(f"seccomp profile: rule {place} ({' '.join(rule['names'])}) is malformed: "
                                f"{type(error).__name__} {error}") from None

"""Chapter 13, beyond: documents that strangers wrote, read with care.

JSON may hold what nobody expects: a number where a list should be, halves of letters, lists in lists without end. What
is let in here is shown, searched and started later, by code that takes the form of an image's documents for granted: so
here is judged whether they have it. Unknown fields may hold anything, and null stands for a field that is not there.

Source: OCI image-spec config.md.
"""

from __future__ import annotations

import os

from minirt import state
from minirt.errors import BadInputError
from minirt.images import reference
from minirt.images.changeset import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_LAYERS = 127  # Docker's limit; the kernel's is near, since all of them stand in one string of mount options
_DEEPEST = 100  # lists and objects within one another

# Of what type each field of a configuration is: a list of such, an object with such fields, or "*" for any field.
_STEP = {"created": str, "created_by": str, "author": str, "comment": str, "empty_layer": bool}
_SETTINGS = {
    "User": str, "WorkingDir": str, "StopSignal": str, "Env": [str], "Cmd": [str], "Entrypoint": [str], "Shell": [str],
    "OnBuild": [str], "Labels": {"*": str}, "ExposedPorts": {"*": dict}, "Volumes": {"*": dict}, "StopTimeout": int,
    "Healthcheck": {"Test": [str], "Interval": int, "Timeout": int, "StartPeriod": int, "StartInterval": int,
                    "Retries": int},
}
_CONFIGURATION = {
    "created": str, "author": str, "architecture": str, "os": str, "variant": str, "config": _SETTINGS,
    "history": [_STEP], "rootfs": {"type": str, "diff_ids": [str]},
}
_CALLED = {str: "text", int: "a whole number", bool: "true or false", dict: "an object"}


def parse(content: bytes, what: str) -> dict[str, Any]:
    """A document, an object or a list; `what` it is stands in the sentence. Raises BadInputError when it is none."""
    try:
        document = state.loads(content)
        _check_values(document, _DEEPEST)
    except ValueError as error:
        raise BadInputError(f"{what} is broken: {error}") from None
    if not isinstance(document, (dict, list)):
        raise BadInputError(f"{what} is broken: it is no JSON object")
    return document  # type: ignore[return-value]


def _check_values(value: Any, deepest: int) -> None:
    """Raises ValueError for what nobody could print."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, (dict, list)):
        if not deepest:
            raise ValueError("it is nested too deeply")
        for each in [*value, *value.values()] if isinstance(value, dict) else value:
            _check_values(each, deepest - 1)


def diff_ids_of(config: bytes) -> list[str]:
    """The diff ids that an image's config lists, the lowest layer first. Raises BadInputError when it is no config of
    a Linux image, or lists too many."""
    document = parse(config, "the config of the image")
    _check_form(document, _CONFIGURATION, "")
    if document.get("os") not in ("linux", "", None):
        raise BadInputError(f"cannot load {show(os.fsencode(document['os']))} image on linux")
    if not document.get("rootfs"):
        raise BadInputError("the config of the image does not list its layers: rootfs is missing")
    diff_ids: list[str] = document["rootfs"].get("diff_ids") or []
    for diff_id in diff_ids:
        reference.check_digest(diff_id)
        if not diff_id.startswith("sha256:"):
            raise BadInputError(f"the layer {diff_id}: only sha256 is supported")
    if len(diff_ids) > MOST_LAYERS:
        raise BadInputError(f"max depth exceeded: the image has {len(diff_ids)} layers, at most {MOST_LAYERS} work")
    return diff_ids


def _check_form(value: Any, form: Any, place: str) -> None:
    """Raises BadInputError unless a value has the form that a table above gives for it."""
    kind: Any = type(form) if isinstance(form, (dict, list)) else form
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        called = "a list" if kind is list else _CALLED[kind]
        raise BadInputError(f"the config of the image is broken: {show(place.encode()) or 'it'} is not {called}")
    if isinstance(form, list):
        for each in value:
            _check_form(each, form[0], f"an entry of {place}")
    elif isinstance(form, dict):
        for name, each in value.items():
            wanted = form.get(name, form.get("*"))
            if wanted is not None and each is not None:
                _check_form(each, wanted, f"{place}.{name}".lstrip("."))

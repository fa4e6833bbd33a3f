"""Documents in which things have forms that nobody expects are refused when they come, not when they are shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from minirt.errors import BadInputError
from minirt.images import untrusted
from tests.images import config_of, layer

pytestmark = pytest.mark.caged

GOOD = json.loads(config_of([layer()], history=[{"created_by": "x", "empty_layer": True}], config={
    "Cmd": ["sh"], "Env": ["A=b"], "Labels": {"a": "b"}, "Volumes": {"/data": {}}, "Healthcheck": {"Test": ["NONE"]}}))
HALF = "\ud800"
ODD: list[Any] = [True, 1, "text", [], [1], {}, {"a": 1}, [[]]]
FORMS: dict[str, list[Any]] = {  # which of these a field may be
    "created": ["text"], "os": [], "author": ["text"], "variant": ["text"], "config": [{}, {"a": 1}], "history": [[]],
    "rootfs": [{"a": 1}], "config.Env": [[]], "config.Cmd": [[]], "config.Labels": [{}], "config.User": ["text"],
    "config.Volumes": [{}], "config.Healthcheck": [{}, {"a": 1}], "config.Healthcheck.Interval": [1],
}


def changed(place: str, value: Any) -> bytes:
    """The good configuration with another value in one place."""
    document = json.loads(json.dumps(GOOD))
    *above, last = place.split(".")
    inner = document
    for name in above:
        inner = inner[name]
    inner[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize("place", FORMS)
def test_a_field_of_another_form_is_refused(place: str) -> None:
    for value in ODD:
        if any(value == each and type(value) is type(each) for each in FORMS[place]):
            untrusted.diff_ids_of(changed(place, value))
        else:
            with pytest.raises(BadInputError, match=r"config of the image|cannot load text image"):
                untrusted.diff_ids_of(changed(place, value))


@pytest.mark.parametrize("place", [*FORMS, "architecture", "anything", "config.Anything"])
def test_null_is_a_field_that_is_not_there(place: str) -> None:
    if place == "rootfs":
        with pytest.raises(BadInputError, match="rootfs is missing"):
            untrusted.diff_ids_of(changed(place, None))
    else:
        assert untrusted.diff_ids_of(changed(place, None)) == GOOD["rootfs"]["diff_ids"]


@pytest.mark.parametrize("value", [HALF, {HALF: 1}, [[HALF]]])
def test_what_nobody_can_print_is_refused_wherever_it_stands(value: Any) -> None:
    for place in ("author", "anything", "config.Anything"):
        with pytest.raises(BadInputError, match="is broken"):
            untrusted.diff_ids_of(changed(place, value))


@pytest.mark.parametrize("depth", [97, 100, 600, 2000, 100_000])
def test_lists_in_lists_are_bounded(depth: int) -> None:
    document = b'{"a": ' + b"[" * depth + b"]" * depth + b"}"
    if depth < 100:
        assert "a" in untrusted.parse(document, "it")
    else:
        with pytest.raises(BadInputError, match="nested too deeply"):
            untrusted.parse(document, "it")

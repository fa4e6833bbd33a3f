"""The lean JSON reader and writer, beside the library's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirt import state

ROOT = Path(__file__).resolve().parent.parent.parent
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(values)
def test_what_is_written_is_read_back_by_both(value):
    for indent in (None, 4):
        assert state.loads(state.dumps(value, indent)) == value == json.loads(state.dumps(value, indent))


@pytest.mark.parametrize("text", ["", "{", '{"a"', '{"a":', '{"a":1', "[", "[1", '"x', "nul", "1 2", "{]",
                                  '"\\x"', "\n"])
def test_what_is_no_json_is_a_value_error_without_the_library(text):
    with pytest.raises(ValueError, match=r"not JSON|Unterminated|Expecting|Invalid|Extra"):
        state.loads(text)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from minirt import state\n"
        f"try: state.loads({text!r})\n"
        "except ValueError as error: print(error)\n"
        "assert 'json' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("not JSON")

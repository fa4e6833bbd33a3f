"""What a notebook's cells in the cage can rely on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chapters import contents

nbformat = pytest.importorskip("nbformat", reason="the notebooks need the book's packages: make notebook")


PROGRAM = """
import nbformat, sys
from chapters.notebook import execute
book = nbformat.read(sys.argv[1], as_version=4)
try:
    execute(book)
except Exception as error:
    print(type(error).__name__)
nbformat.write(book, sys.argv[1])
"""


def run(tmp_path: Path, *cells: str) -> list[str]:
    """Run cells as a notebook in a process of its own. Returns what each printed, its error included."""
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(text) for text in ("%load_ext chapters.notebook", *cells)]
    path = tmp_path / "book.ipynb"
    nbformat.write(book, path)
    environment = {**os.environ, "PYTHONPATH": str(contents.ROOT)}
    subprocess.run([sys.executable, "-c", PROGRAM, str(path)], check=True, timeout=120, env=environment)
    return ["".join(map(printed, cell.outputs)) for cell in nbformat.read(path, as_version=4).cells[1:]]


def printed(output: Any) -> str:
    """The text of one output."""
    if output.output_type == "error":
        return "\n".join(output.traceback)
    return output.get("text") or output.get("data", {}).get("text/plain", "")


def test_a_held_cage_keeps_its_state_and_the_machine_keeps_its_own(tmp_path: Path) -> None:
    before = os.uname().nodename
    out = run(
        tmp_path,
        "%%cage bash\nhostname elsewhere; echo kept > /etc/kept; sleep 300 > /dev/null &",
        "%%cage bash\nhostname; cat /etc/kept; pgrep -cx sleep",
        "%%cage\nimport os\nprint(os.uname().nodename, os.geteuid())",
        "import os\nprint(os.uname().nodename, os.path.exists('/etc/kept'))",
        "%cage new",
        "%%cage bash\nls /etc/kept 2>/dev/null || hostname",
    )
    assert out[1] == "elsewhere\nkept\n1\n"
    assert out[2] == "elsewhere 0\n"
    assert out[3] == f"{before} False\n"
    assert out[5] == f"{before}\n"


def test_variables_go_to_the_notebook_when_they_are_asked_for(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        "%%cage --out some,more\nsome, more, other = [1, 'a'], {'b': 2.5}, 3",
        "print(some, more, 'other' in dir())",
    )
    assert out[1] == "[1, 'a'] {'b': 2.5} False\n"


def test_a_failing_cell_stops_the_notebook_and_shows_the_cell_s_own_lines(tmp_path: Path) -> None:
    out = run(tmp_path, "%%cage\ndef broken():\n    raise ValueError('no')\nbroken()", "print('not reached')")
    assert "raise ValueError('no')" in out[0] and "ValueError: no" in out[0] and "status 1" in out[0]
    assert "chapters/notebook.py" not in out[0]
    assert out[1] == ""


def test_a_cell_may_fail_on_purpose_and_may_not_take_for_ever(tmp_path: Path) -> None:
    out = run(tmp_path, "%%cage bash --may-fail\nexit 3", "%%cage bash --time 1 --may-fail\nsleep 60")
    assert out == ["(status 3)\n", "(status 124)\n"]

"""Notebooks are committed as they should be. That they run is proved in tests/acceptance/test_notebooks.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chapters import contents

NOTEBOOKS = sorted((contents.ROOT / "notebooks").glob("*.ipynb"))


def name(path: Path) -> str:
    return path.stem


def cells(path: Path) -> list[dict[str, object]]:
    """The cells of a notebook."""
    return list(json.loads(path.read_text())["cells"])


def test_every_open_chapter_has_a_notebook() -> None:
    missing = [each.slug for each in contents.chapters() if each.open and not each.notebook.exists()]
    assert not missing


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert not [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"]], (
        f"clear them: jupyter nbconvert --clear-output --inplace {path}"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_touches_the_kernel_in_the_cage_only(path: Path) -> None:
    assert "%load_ext chapters.notebook" in "".join("".join(cell["source"]) for cell in cells(path))
    for cell in cells(path):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not source.startswith("%%cage"):
            assert "%%bash" not in source and "!" != source[:1], f"a shell outside the cage: {source}"
            assert "from minirt" not in source and "import minirt" not in source, f"minirt outside the cage: {source}"

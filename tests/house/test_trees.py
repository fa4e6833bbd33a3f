"""Derived trees prove the order: each chapter works with nothing from later chapters within reach."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chapters import contents, tree

OPEN = [each for each in contents.chapters() if each.open]


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """One derived tree per open chapter."""
    found = {each.number: tmp_path_factory.mktemp(f"tree-{each.number:02}") for each in OPEN}
    for number, directory in found.items():
        tree.write(number, directory)
    return found


def python(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The interpreter with a tree, and nothing else of ours, on its path."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip


def directories(chapter: contents.Chapter) -> list[str]:
    """What a container program wants before the command, as its usage line says: the machine's own root each time."""
    usage = next(line for line in chapter.container.read_text().splitlines() if "container.py " in line)
    usage = re.search(r"container\.py [^`]*", usage)[0]  # type: ignore[index]
    while "[" in usage:
        usage, before = re.sub(r"\[[^\[\]]*\]", "", usage), usage
        assert usage != before, f"{chapter.container}: {before}: a bracket is open"
    return ["/"] * len(usage.split()[1:])


def by_slug(chapter: contents.Chapter) -> str:
    return chapter.slug


@pytest.mark.parametrize("chapter", OPEN, ids=by_slug)
def test_a_tree_has_nothing_from_later(chapter: contents.Chapter, trees: dict[int, Path]) -> None:
    there = contents.read(trees[chapter.number])
    assert [each.number for each in there.chapters] == list(range(chapter.number + 1))
    assert all(number <= chapter.number for numbers in there.routes.values() for number in numbers)
    for each in contents.chapters():
        if each.number > chapter.number:
            there_too = [trees[chapter.number] / path.relative_to(contents.ROOT) for path in (
                each.directory, each.tests, each.notebook, *(contents.module_file(name) for name in each.modules)
            )]  # fmt: skip
            assert [path for path in there_too if path.exists()] == []


@pytest.mark.parametrize("chapter", OPEN, ids=by_slug)
def test_every_module_of_a_tree_can_be_imported(chapter: contents.Chapter, trees: dict[int, Path]) -> None:
    directory = trees[chapter.number]
    files = sorted(directory.glob("minirt/**/*.py"))
    names = [".".join(path.relative_to(directory).with_suffix("").parts).removesuffix(".__init__") for path in files]
    done = python(directory, "-c", f"""
import importlib
for name in {names!r}:
    module = importlib.import_module(name)
    assert module.__file__.startswith({str(directory)!r}), f"{{name}} came from {{module.__file__}}"
""")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("chapter", OPEN, ids=by_slug)
def test_the_container_program_of_a_tree_runs(chapter: contents.Chapter, trees: dict[int, Path]) -> None:
    script = f"chapters/{chapter.slug}/container.py"
    program = [sys.executable, "-B", script, *directories(chapter)]
    for command, status in [(["true"], 0), (["sh", "-c", "exit 7"], 7)]:
        done = python(trees[chapter.number], "-m", "chapters.cage", "--", *program, *command)
        assert done.returncode == status, done.stdout + done.stderr


@pytest.mark.parametrize("chapter", OPEN, ids=by_slug)
def test_the_tests_of_a_chapter_pass_in_its_tree(chapter: contents.Chapter, trees: dict[int, Path]) -> None:
    directory = f"tests/{chapter.tests.name}"
    done = python(trees[chapter.number], "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", directory)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize("chapter", OPEN, ids=by_slug)
def test_the_command_of_a_tree_has_no_later_command(chapter: contents.Chapter, trees: dict[int, Path]) -> None:
    done = python(trees[chapter.number], "-m", "minirt", "--help")
    assert done.returncode == 0, done.stderr
    run = python(trees[chapter.number], "-m", "minirt", "run", "--help")
    assert (run.returncode == 0) == (chapter.number >= 17), run.stdout + run.stderr


def test_a_tree_is_not_written_over_something(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(tree.TreeError, match="not empty"):
        tree.write(2, tmp_path)

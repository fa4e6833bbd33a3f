"""Derived trees: the repository as it stands at a chapter.

What a chapter may use is what `chapters.toml` gives to it and to those before it. A tree takes that word for word: no
later module, test, page or command is in it, so whatever passes there needs nothing from later on.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from chapters import contents
from chapters.contents import Contents

# Tests of the tool itself begin with the chapter that has `minirt run`.
TEST_DIRECTORIES = {"run": 17}
TOP = ("pyproject.toml", "README.md", "LICENSE", "Makefile", "CONTRIBUTING.md", ".gitignore")


class TreeError(Exception):
    """The tree cannot be written; the text says why."""


def write(number: int, directory: Path, root: Path = contents.ROOT) -> None:
    """Write the repository as it stands at the end of chapter `number` into a new or empty directory.

    Raises TreeError when the directory has something in it, ContentsError when there is no such chapter.
    """
    table = contents.read(root)
    table.chapter(number)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise TreeError(f"{directory} is there already and not empty; give a new directory.")
    for path in sorted({*_modules(table, number, root), *_book(table, number, root), *_tests(table, number, root)}):
        target = directory / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    text = (root / "chapters" / "chapters.toml").read_text()
    (directory / "chapters" / "chapters.toml").write_text(cut(text, number))


def cut(text: str, number: int) -> str:
    """The text of chapters.toml without the chapters after `number`, in the routes too; comments stay."""
    head, *rows = re.split(r"(?m)^(?=\[\[chapter\]\])", text)
    kept = [row for row in rows if _number(row) <= number]

    def shorten(found: re.Match[str]) -> str:
        numbers = [word for word in re.findall(r"\d+", found[2]) if int(word) <= number]
        return f"{found[1]}[{', '.join(numbers)}]"

    return re.sub(r"(?m)^(\w+ = )\[([\d, \n]*)\]", shorten, head) + "".join(kept).rstrip("\n") + "\n"


def _number(row: str) -> int:
    found = re.search(r"(?m)^number = (\d+)$", row)
    if not found:
        raise TreeError("chapters.toml: a [[chapter]] without a line `number = N`.")
    return int(found[1])


def _modules(table: Contents, number: int, root: Path) -> Iterator[Path]:
    """The runtime: ground floor, roof, and the chapters up to this one."""
    names = {*table.ground, *table.roof, *(m for each in table.chapters if each.number <= number for m in each.modules)}
    for name in names:
        path = contents.module_file(name, root)
        if path.exists():
            yield path
            for parent in path.parents:
                if parent == root:
                    break
                yield parent / "__init__.py"


def _book(table: Contents, number: int, root: Path) -> Iterator[Path]:
    """Pages, container programs, notebooks; the workshop; what lies at the top."""
    later = {each.slug for each in table.chapters if each.number > number}
    for path in (root / "chapters").rglob("*"):
        inside = path.relative_to(root / "chapters").parts
        if path.is_file() and inside[0] not in later and inside[0] != "site" and "__pycache__" not in inside:
            yield path
    for each in table.chapters:
        if each.number <= number and each.notebook.exists():
            yield each.notebook
    yield from (root / name for name in TOP if (root / name).exists())


def _tests(table: Contents, number: int, root: Path) -> Iterator[Path]:
    """The tests of the chapters up to this one, and what they share."""
    yield from (root / "tests").glob("*.py")
    wanted = [each.tests for each in table.chapters if each.number <= number]
    wanted += [root / "tests" / name for name, since in TEST_DIRECTORIES.items() if since <= number]
    for directory in wanted:
        yield from (path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)

"""Who meets a function finds out there what it does; an exercise's docstring is its statement."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from chapters import contents, skeleton

SOURCES = sorted(path for path in (contents.ROOT / "minirt").rglob("*.py") if path.name != "__init__.py")
EXERCISES = [each for chapter in contents.chapters() for each in chapter.exercises]


def name(path: Path) -> str:
    return str(path.relative_to(contents.ROOT))


def public(body: list[ast.stmt], before: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield before + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, before + node.name + ".")


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_modules_classes_and_public_functions_say_what_they_do(path: Path) -> None:
    tree = ast.parse(path.read_text())
    silent = [f"{name(path)}:{node.lineno}: {what}" for what, node in public(tree.body) if not ast.get_docstring(node)]
    assert ast.get_docstring(tree), f"{name(path)} does not say what it is for"
    assert not silent


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda each: each.name)
def test_an_exercise_is_one_idea_and_names_what_to_read(exercise: contents.Exercise) -> None:
    source = contents.module_file(exercise.module).read_text()
    text = skeleton.docstring(source, exercise.function)
    assert skeleton.manual_pages(text), f"the docstring of {exercise.name} names no manual page, as unshare(2)"
    lines = [line for line in skeleton.answer(source, exercise.function).splitlines() if line.strip()]
    assert len(lines) <= 25, f"{exercise.name} has {len(lines)} lines: factor the real one better"
    assert len(exercise.hints) >= 2, f"{exercise.name} has {len(exercise.hints)} hints"


@pytest.mark.parametrize("chapter", [x for x in contents.chapters() if x.exercises], ids=lambda each: each.slug)
def test_a_chapter_has_one_to_six_exercises_with_three_mistakes_each(chapter: contents.Chapter) -> None:
    assert 1 <= len(chapter.exercises) <= 6
    names = [node.name for node in ast.parse(chapter.mistakes.read_text()).body if isinstance(node, ast.FunctionDef)]
    for each in chapter.exercises:
        mine = [found for found in names if found.startswith(each.function.replace(".", "__") + "__")]
        assert len(mine) >= 3, f"mistakes.py records {len(mine)} mistakes of {each.function}"

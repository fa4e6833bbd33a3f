"""The table of contents is read by everybody in the same way, and agrees with what lies on the disk."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from chapters import contents, skeleton, tree

TABLE = contents.read()
LONGEST_CORE = 600  # lines to follow; most chapters have less than 150


def test_the_chapters_are_numbered_in_order_and_named_by_it() -> None:
    assert [each.number for each in TABLE.chapters] == list(range(22))
    for each in TABLE.chapters:
        assert each.slug.startswith(f"{each.number:02}-")
        assert each.status in ("open", "planned")


def test_a_chapter_builds_on_earlier_ones() -> None:
    assert [each.slug for each in TABLE.chapters if any(number >= each.number for number in each.builds_on)] == []


def test_routes_go_forward_through_chapters_that_exist() -> None:
    for numbers in TABLE.routes.values():
        assert list(numbers) == sorted(set(numbers))
        assert all(TABLE.chapter(number) for number in numbers)
    assert TABLE.routes["whole"] == tuple(each.number for each in TABLE.chapters)
    assert all(TABLE.chapter(number).open for number in TABLE.routes["evening"])


def test_an_evening_is_short_enough_and_a_day_too() -> None:
    minutes = {name: sum(TABLE.chapter(n).minutes for n in numbers) for name, numbers in TABLE.routes.items()}
    assert minutes["evening"] <= 2 * 60
    assert minutes["day"] <= 6 * 60


@pytest.mark.parametrize("chapter", [each for each in TABLE.chapters if each.open], ids=lambda each: each.slug)
def test_an_open_chapter_is_whole(chapter: contents.Chapter) -> None:
    wanted = [chapter.page, chapter.container, chapter.tests, chapter.notebook]
    if chapter.core:
        wanted += [chapter.directory / "exercises.toml", chapter.mistakes]
    assert [str(path.relative_to(contents.ROOT)) for path in wanted if not path.exists()] == []


@pytest.mark.parametrize("chapter", [each for each in TABLE.chapters if each.open], ids=lambda each: each.slug)
def test_the_teachers_page_knows_an_open_chapter_and_its_minutes(chapter: contents.Chapter) -> None:
    page = (contents.ROOT / "chapters" / "teacher.md").read_text()
    heading = f"## {chapter.number:02} {chapter.title}\n"
    assert heading in page
    part = page.split(heading)[1].split("\n## ")[0]
    assert part.startswith(f"\n{chapter.minutes} minutes")
    assert "**Show**" in part and "**Behind?**" in part


@pytest.mark.parametrize("chapter", [each for each in TABLE.chapters if not each.open], ids=lambda each: each.slug)
def test_a_planned_chapter_has_no_page_yet(chapter: contents.Chapter) -> None:
    assert not chapter.page.exists()
    assert not chapter.tests.exists()


def lines_to_follow(source: str) -> int:
    """Lines of code without what is read at a glance: docstrings, comments, and tables (constants)."""
    tree = ast.parse(source)
    glance: set[int] = set()
    for node in [*ast.walk(tree)]:
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            glance.update(range(body[0].lineno, body[0].end_lineno + 1))
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom):
            glance.update(range(node.lineno, (node.end_lineno or 0) + 1))
    numbered = enumerate(source.splitlines(), 1)
    return sum(1 for number, line in numbered if line.strip() and line.strip()[0] != "#" and number not in glance)


@pytest.mark.parametrize("chapter", [each for each in TABLE.chapters if each.open], ids=lambda each: each.slug)
def test_core_is_what_a_reader_can_go_through(chapter: contents.Chapter) -> None:
    lines = sum(lines_to_follow(contents.module_file(module).read_text()) for module in chapter.core)
    assert lines <= LONGEST_CORE, f"the core of chapter {chapter.number} has {lines} lines: what of it is beyond?"


@pytest.mark.parametrize(
    "exercise", [each for chapter in TABLE.chapters for each in chapter.exercises], ids=lambda each: each.name
)
def test_an_exercise_is_there_and_can_be_emptied(exercise: contents.Exercise) -> None:
    source = contents.module_file(exercise.module).read_text()
    emptied = skeleton.skeleton(source, [exercise.function], "workspace/x.py")
    ast.parse(emptied)
    assert not skeleton.is_filled_in(emptied, exercise.function)
    assert skeleton.is_filled_in(source, exercise.function)


def test_exercises_can_be_called_by_short_names() -> None:
    chapter = TABLE.chapter(2)
    assert chapter.exercise("enter") == chapter.exercise("minirt.namespaces.uts.enter") == chapter.exercises[0]
    with pytest.raises(contents.ContentsError, match="its exercises: enter, configure"):
        chapter.exercise("leave")


def test_what_is_wrong_in_the_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(contents.ContentsError, match="cannot read the table of contents"):
        contents.read(tmp_path)
    with pytest.raises(contents.ContentsError, match="there is no chapter 99"):
        contents.chapter(99)


def test_the_table_is_cut_as_text() -> None:
    text = (contents.ROOT / "chapters" / "chapters.toml").read_text()
    short = tree.cut(text, 3)
    assert text.startswith(short[: short.index("[routes]")]), "what stands before the routes stays letter for letter"
    assert "number = 3" in short and "number = 4" not in short
    assert "whole = [0, 1, 2, 3]\n" in short
    assert tree.cut(text, 21).strip() == text.strip()

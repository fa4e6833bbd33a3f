"""Pages say what the sources say, and what the shell says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chapters import contents, pages, transcript

PAGES = pages.files()
OPEN = [each for each in contents.chapters() if each.open]


def name(path: Path) -> str:
    return str(path.relative_to(contents.ROOT))


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_code_on_a_page_is_the_code_of_the_source(path: Path) -> None:
    text = path.read_text()
    assert pages.fill(text, path) == text, f"{name(path)} differs from its sources: run `python -m chapters pages`."


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    assert pages.broken_links(path) == []


@pytest.mark.parametrize("path", [page for page in PAGES if pages.transcripts(page.read_text(), page)], ids=name)
def test_transcripts_are_what_the_shell_says(path: Path) -> None:
    differences = transcript.run_page(path)
    assert not differences, "\n".join(str(each) for each in differences)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_a_page_uses_only_what_a_forge_renders(path: Path) -> None:
    """No admonitions, tabs, includes, and no HTML but <details>, <summary>, <br> and <code>."""
    foreign = re.compile(r'^(!!!|\?\?\?|===) |--8<--|<(?!/?(?:details|summary|br|code)\b|!--|https?:|kbd>)/?[a-zA-Z]')
    wrong = []
    for number, line, fenced in pages.lines(path.read_text()):
        if not fenced and foreign.search(re.sub(r"`[^`]*`", "", line)):
            wrong.append(f"{name(path)}:{number}: {line}")
    assert not wrong


@pytest.mark.parametrize("chapter", OPEN, ids=lambda each: each.slug)
def test_the_page_of_an_open_chapter_shows_its_exercises_and_its_container_program(chapter: contents.Chapter) -> None:
    text = chapter.page.read_text()
    shown = {(found["file"], each) for found in pages.markers(text) for each in found["names"].split() or [""]}
    for each in chapter.exercises:
        file = str(contents.module_file(each.module).relative_to(contents.ROOT))
        outer = [(file, ""), (file, each.function), (file, each.function.split(".")[0])]
        assert shown & set(outer), f"the page does not show {each.name}: <!-- code {file} {each.function} -->"
    assert f"chapters/{chapter.slug}/container.py" in {file for file, _ in shown}


@pytest.mark.parametrize("chapter", OPEN, ids=lambda each: each.slug)
def test_the_page_of_an_open_chapter_names_what_lies_beyond(chapter: contents.Chapter) -> None:
    text = chapter.page.read_text()
    for module in chapter.beyond:
        assert str(contents.module_file(module).relative_to(contents.ROOT)) in text


# -- the markers themselves --------------------------------------------------------------------------------------

SOURCE = '''\
"""Names."""

# the flag, from <linux/sched.h>
FLAG = 4
OTHER = 5


@decorated
def enter(a: int) -> None:
    """Enter."""
    call(FLAG)


def other() -> int:
    return 1
'''
TOML = """\
[ground]
modules = []
[roof]
modules = []
[routes]
whole = [1]
[[chapter]]
number = 1
slug = "01-one"
title = "One"
status = "open"
builds_on = []
core = ["minirt.one"]
beyond = []
needs = []
minutes = 1
"""


@pytest.fixture
def book(tmp_path: Path) -> Path:
    for path, text in {
        "minirt/one.py": SOURCE,
        "chapters/chapters.toml": TOML,
        "chapters/01-one/exercises.toml": '[[exercise]]\nname = "minirt.one.enter"\nhints = ["h"]\n',
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def fill(book: Path, text: str) -> str:
    return pages.fill(text, Path("page.md"), book)


def test_a_piece_stands_between_its_markers(book: Path) -> None:
    empty = "before\n<!-- code minirt/one.py other -->\nold\n<!-- /code -->\nafter\n"
    full = (
        "before\n<!-- code minirt/one.py other -->\n```python\ndef other() -> int:\n    return 1\n```\n"
        "<!-- /code -->\nafter\n"
    )
    assert fill(book, empty) == full
    assert fill(book, full) == full


def test_constants_stand_together_with_their_comment(book: Path) -> None:
    text = fill(book, "<!-- code minirt/one.py OTHER FLAG -->\n<!-- /code -->\n")
    assert "```python\nOTHER = 5\n\n\n# the flag, from <linux/sched.h>\nFLAG = 4\n```" in text


def test_the_body_of_an_exercise_is_closed(book: Path) -> None:
    text = fill(book, "<!-- code minirt/one.py enter -->\n<!-- /code -->\n")
    open_part, closed = text.split("<details>")
    assert '@decorated\ndef enter(a: int) -> None:\n    """Enter."""\n```' in open_part
    assert "call(" not in open_part
    assert "```python\ncall(FLAG)\n```" in closed


def test_a_marker_in_a_fence_means_nothing(book: Path) -> None:
    text = "```\n<!-- code minirt/one.py enter -->\n```\n"
    assert fill(book, text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- code minirt/one.py enter -->\n", "has no"),
        ("<!-- code minirt/one.py nothing -->\n<!-- /code -->\n", "page.md:1: minirt/one.py: there is no 'nothing'"),
        ("<!-- code minirt/two.py x -->\n<!-- /code -->\n", "cannot read minirt/two.py"),
        ("<!-- /code -->\n", "without a marker"),
    ],
)
def test_a_wrong_marker_is_named(book: Path, text: str, message: str) -> None:
    with pytest.raises(pages.PageError, match=message):
        fill(book, text)


def test_a_transcript_is_commands_and_their_output() -> None:
    text = (
        "x\n<!-- shell -->\n```console\n# cat <<E\n> a\n> E\na\n# true\n```\n"
        "<!-- shell new -->\n```console\n$ id\n# x\n```\n"
    )
    first, second = pages.transcripts(text, Path("p"))
    assert [(each.text, each.expected) for each in first.commands] == [("cat <<E\na\nE", ("a",)), ("true", ())]
    assert second.new and not first.new
    assert [(each.text, each.expected) for each in second.commands] == [("id", ("# x",))]


def test_a_transcript_may_need_a_newer_kernel() -> None:
    text = "<!-- shell new since Linux 6.10 -->\n```console\n# true\n```\n<!-- shell -->\n```console\n# true\n```\n"
    newer, any_ = pages.transcripts(text, Path("p"))
    assert newer.new and newer.runs_on("6.10.0-1-amd64") and newer.runs_on("7.0.0") and not newer.runs_on("6.9.12")
    assert any_.runs_on("6.1.0")


def test_a_transcript_that_nobody_runs_says_why() -> None:
    with pytest.raises(pages.PageError, match="needs <!-- shell -->"):
        pages.transcripts("```console\n# true\n```\n", Path("p"))
    assert pages.transcripts("<!-- not run: two machines -->\n```console\n# true\n```\n", Path("p")) == []


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        (["a"], ["a", ""], True),
        (["a"], ["b"], False),
        (["a"], ["a", "b"], False),
        (["a ... c"], ["a b c  "], True),
        (["..."], [], True),
        (["a", "...", "d"], ["a", "b", "c", "d"], True),
        (["a", "...", "d"], ["a", "b", "c"], False),
        ([], ["x"], False),
    ],
)
def test_dots_stand_for_anything(expected: list[str], found: list[str], same: bool) -> None:
    assert transcript.matches(expected, found) == same


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# The `one` (1)\n[x](b.md) [y](#the-one-1) [z](#no) `[c](d)` [w](https://x.y/)\n```\n[f](g)\n```\n")
    assert [line.split(": ", 1)[1] for line in pages.broken_links(page, tmp_path)] == [
        "b.md: there is no such file.",
        "#no: a.md has no heading #no.",
    ]

"""Exercises are cut out of the sources by the syntax tree: nothing else of a file changes."""

from __future__ import annotations

import ast
import textwrap

import pytest

from chapters import command, skeleton

SOURCE = textwrap.dedent('''\
    """A module."""

    import os

    # from linux/sched.h
    CLONE_NEWUTS = 0x04000000


    @decorated("in {two}",
               lines=2)
    def enter(name: str,
              flags: int = 0) -> None:  # a remark: kept
        """Enter.

            Deeper.
        """
        # why
        os.unshare(flags)
        # the last word


    # between
    class Child:
        """A child."""

        def wait(self) -> int:
            """Wait.

            Returns the status.
            """
            return 0

        def other(self) -> str:
            return """
    text"""


    def short(): return 1
    ''')


def test_a_skeleton_keeps_signature_decorator_docstring_and_the_rest() -> None:
    text = skeleton.skeleton(SOURCE, ["Child.wait", "enter"], "workspace/m.py")
    kept = [line for line in SOURCE.splitlines() if line.strip() not in
            {"# why", "os.unshare(flags)", "# the last word", "return 0"}]
    assert [line for line in text.splitlines() if "raise NotImplementedError" not in line] == kept


def test_a_skeleton_says_file_line_and_name_where_it_raises() -> None:
    text = skeleton.skeleton(SOURCE, ["Child.wait", "enter", "short"], "workspace/m.py")
    for name in ("enter", "Child.wait", "short"):
        [number] = [n for n, line in enumerate(text.splitlines(), 1) if f": {name}() {skeleton.UNFILLED}" in line]
        assert f'"workspace/m.py:{number}: {name}() is not filled in yet"' in text.splitlines()[number - 1]
        assert not skeleton.is_filled_in(text, name)
        assert skeleton.is_filled_in(SOURCE, name)
    ast.parse(text)


def test_replacing_a_function_by_its_own_solution_changes_nothing() -> None:
    for name in ("enter", "Child.wait", "Child.other"):
        assert skeleton.replace(SOURCE, name, skeleton.solution(SOURCE, name)) == SOURCE


def test_a_solution_put_into_the_skeleton_gives_the_source_back() -> None:
    text = skeleton.skeleton(SOURCE, ["Child.wait", "enter"], "f")
    for name in ("enter", "Child.wait"):
        text = skeleton.replace(text, name, skeleton.solution(SOURCE, name))
    assert text == SOURCE


def test_a_replacement_takes_the_name_and_the_decorators_of_the_old_function() -> None:
    mistake = 'def enter__wrong(name: str, flags: int = 0) -> None:\n    """Says: wrong."""\n    os.unshare(1)\n'
    text = skeleton.replace(SOURCE, "enter", mistake)
    assert skeleton.solution(text, "enter").startswith('@decorated("in {two}",\n')
    assert "def enter(name" in text and "enter__wrong" not in text
    assert "def wait__wrong" not in skeleton.replace(SOURCE, "Child.wait", "def wait__wrong(self): return 1\n")


def test_pieces() -> None:
    assert skeleton.piece(SOURCE, "CLONE_NEWUTS") == "# from linux/sched.h\nCLONE_NEWUTS = 0x04000000\n"
    assert skeleton.piece(SOURCE, "__doc__") == "A module.\n"
    assert skeleton.piece(SOURCE, "Child").startswith("class Child:")
    assert skeleton.answer(SOURCE, "enter") == "# why\nos.unshare(flags)\n# the last word\n"
    assert skeleton.answer(SOURCE, "short") == "return 1"
    assert skeleton.statement(SOURCE, "Child.wait").endswith('Returns the status.\n    """\n')
    assert skeleton.docstring(SOURCE, "enter").startswith("Enter.")


def test_strings_side_by_side_move_with_their_statement() -> None:
    source = 'def f(x):\n    raise ValueError(f"{x} is "\n                     "wrong")\n'
    assert skeleton.answer(source, "f") == 'raise ValueError(f"{x} is "\n                 "wrong")\n'
    kept = 'def f():\n    return f"""a {1}\n    b""", "c\\\n    d"\n'
    assert skeleton.answer(kept, "f") == 'return f"""a {1}\n    b""", "c\\\n    d"\n'


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(skeleton.NoSuchPieceError, match="there is no 'nothing'"):
        skeleton.skeleton(SOURCE, ["nothing"], "f")
    with pytest.raises(ValueError, match="exactly one function"):
        skeleton.replace(SOURCE, "enter", "x = 1\n")


def test_what_there_is_to_read_is_found() -> None:
    text = "Sources: unshare(2), RFC 9110 section\n11.6.1, OCI distribution-spec spec.md (end-6), RFC 7617."
    assert skeleton.manual_pages(text) == [
        "unshare(2)", "RFC 9110 section 11.6.1", "OCI distribution-spec spec.md", "RFC 7617"]
    assert [command._man(each) for each in skeleton.manual_pages(text)] == [
        "man 2 unshare", "https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1",
        "https://github.com/opencontainers/distribution-spec/blob/main/spec.md", "https://www.rfc-editor.org/rfc/rfc7617"]

"""Exercises out of sources, by the syntax tree: take a body out, put a function in, show a piece.

Everything works on text and gives text, so that comments, spacing and line order of the rest stay as they were. Names
are names within the module: 'enter', 'Child.wait', 'MS_PRIVATE'.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable

Function = ast.FunctionDef | ast.AsyncFunctionDef
UNFILLED = "is not filled in yet"


class NoSuchPieceError(Exception):
    """The source has no function, class or constant of that name."""


def skeleton(source: str, function_names: Iterable[str], file: str) -> str:
    """The source with the bodies of some functions taken out; signature, decorators and docstring stay.

    source: the text of a module. function_names: which functions. file: how the message shall call the file. The body
    becomes `raise NotImplementedError("FILE:LINE: NAME() is not filled in yet")`, LINE being that line itself.
    Raises NoSuchPieceError when a function is not there.
    """
    names = sorted(function_names, key=lambda name: _function(source, name).lineno)
    for name in names:  # from top to bottom, so that each line number is final when it is written down
        lines = source.splitlines(keepends=True)
        node = _function(source, name)
        head, tail = _head(lines, node), lines[_last_line(lines, node) :]
        indent = " " * (node.col_offset + 4)
        number = len(head) + 1
        head.append(f'{indent}raise NotImplementedError("{file}:{number}: {name}() {UNFILLED}")\n')
        source = "".join(head + tail)
    return source


def replace(source: str, function_name: str, new_function_source: str) -> str:
    """The source with one function replaced by another one, whatever the other is called.

    new_function_source: one function at any indentation; it gets the name of the old one, and the old one's decorators
    where it has none of its own. Raises NoSuchPieceError when the function is not there, ValueError when the new text
    is not one function.
    """
    lines = source.splitlines(keepends=True)
    old = _function(source, function_name)
    text = textwrap.dedent(new_function_source).strip("\n") + "\n"
    body = ast.parse(text).body
    if len(body) != 1 or not isinstance(body[0], Function):
        raise ValueError("the replacement must be exactly one function")
    new = body[0]
    new_lines = text.splitlines(keepends=True)
    definition = new_lines[new.lineno - 1]
    new_lines[new.lineno - 1] = re.sub(rf"(def\s+){re.escape(new.name)}\b", rf"\g<1>{old.name}", definition, count=1)
    new_lines = _moved(new_lines, new, 1, old.col_offset)
    first = _first_line(old) - 1 if new.decorator_list else old.lineno - 1
    return "".join(lines[:first] + new_lines + lines[_last_line(lines, old) :])


def solution(source: str, name: str) -> str:
    """The text of one function, decorators and docstring included. Raises NoSuchPieceError."""
    lines = source.splitlines(keepends=True)
    node = _function(source, name)
    first = _first_line(node)
    return "".join(_moved(lines[first - 1 : _last_line(lines, node)], node, first, -node.col_offset))


def statement(source: str, name: str) -> str:
    """What a participant is given of a function: decorators, signature, docstring. Raises NoSuchPieceError."""
    lines = source.splitlines(keepends=True)
    node = _function(source, name)
    first = _first_line(node)
    return "".join(_moved(_head(lines, node)[first - 1 :], node, first, -node.col_offset))


def answer(source: str, name: str) -> str:
    """The body of a function without its docstring, not indented. Raises NoSuchPieceError."""
    lines = source.splitlines(keepends=True)
    node = _function(source, name)
    if node.body[0].lineno == node.lineno:
        return ast.get_source_segment(source, node.body[0]) or ""
    start = len(_head(lines, node))
    body = _moved(lines[start : _last_line(lines, node)], node, start + 1, -node.body[0].col_offset)
    return "".join(body).strip("\n") + "\n"


def piece(source: str, name: str) -> str:
    """The text of a function, class, method or constant, with the comment lines directly above a constant.

    `__doc__` is the module's docstring without its quotes. Raises NoSuchPieceError.
    """
    lines = source.splitlines(keepends=True)
    if name == "__doc__":
        text = ast.get_docstring(ast.parse(source))
        if text is None:
            raise NoSuchPieceError("the module has no docstring")
        return text + "\n"
    node = _find(source, name)
    if isinstance(node, Function):
        return solution(source, name)
    first = _first_line(node)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        while first > 1 and lines[first - 2].lstrip().startswith("#"):
            first -= 1
    return "".join(_moved(lines[first - 1 : node.end_lineno], node, first, -node.col_offset))


def lines_of(source: str, name: str) -> tuple[int, int]:
    """First and last line of a function, class or constant, counted from 1. Raises NoSuchPieceError."""
    node = _find(source, name)
    return _first_line(node), node.end_lineno or node.lineno


def docstring(source: str, name: str) -> str:
    """The docstring of a function, cleaned of its indentation, '' where it has none. Raises NoSuchPieceError."""
    return ast.get_docstring(_function(source, name)) or ""


# What to read: a manual page, a section of an RFC, a document of an OCI specification.
SOURCE = r"\b[a-zA-Z_][\w.-]*\([1-8]\)|\bRFC \d+(?: section [\d.]*\d)?|\bOCI [a-z]+-spec [\w-]+\.md"


def manual_pages(text: str) -> list[str]:
    """What a text names to read, each once, in order: ['unshare(2)', 'RFC 9110 section 14', ...]."""
    return list(dict.fromkeys(re.findall(SOURCE, " ".join(text.split()))))


def is_filled_in(source: str, name: str) -> bool:
    """Whether a function of a workspace says something else than that it is not filled in. Raises NoSuchPieceError."""
    body = [each for each in _function(source, name).body if not _is_docstring(each)]
    if len(body) != 1 or not isinstance(body[0], ast.Raise):
        return True
    return UNFILLED not in (ast.get_source_segment(source, body[0]) or "")


def _find(source: str, name: str) -> ast.stmt:
    """The statement that defines a (dotted) name."""
    try:
        body: list[ast.stmt] = ast.parse(source).body
    except SyntaxError as error:
        raise NoSuchPieceError(f"line {error.lineno}: {error.msg}; the file cannot be read as Python") from error
    node: ast.stmt | None = None
    for part in name.split("."):
        node = next((each for each in _statements(body) if part in _defines(each)), None)
        if node is None:
            raise NoSuchPieceError(f"there is no {name!r}")
        body = getattr(node, "body", [])
    assert node is not None
    return node


def _statements(body: list[ast.stmt]) -> Iterable[ast.stmt]:
    """The statements of a block, looking through `if` and `try`."""
    for each in body:
        if isinstance(each, ast.If | ast.Try):
            yield from _statements(each.body)
            yield from _statements(each.orelse)
        else:
            yield each


def _defines(node: ast.stmt) -> set[str]:
    if isinstance(node, Function | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    return set()


def _function(source: str, name: str) -> Function:
    node = _find(source, name)
    if not isinstance(node, Function):
        raise NoSuchPieceError(f"{name!r} is not a function")
    return node


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _first_line(node: ast.stmt) -> int:
    """The line of the first decorator, or of the definition."""
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


def _head(lines: list[str], node: Function) -> list[str]:
    """All lines of the file up to the end of the function's docstring, or of its signature."""
    first = node.body[0]
    if _is_docstring(first):
        return lines[: first.end_lineno]
    if first.lineno == node.lineno:  # def f(): return 1
        return lines[: node.lineno - 1] + [lines[node.lineno - 1][: first.col_offset].rstrip() + "\n"]
    last = max([node.lineno, *(each.end_lineno or 0 for each in ast.walk(node.args) if isinstance(each, ast.expr))])
    if node.returns is not None:
        last = max(last, node.returns.end_lineno or last)
    while not lines[last - 1].split("#")[0].rstrip().endswith(":"):
        last += 1
    return lines[:last]


def _last_line(lines: list[str], node: Function) -> int:
    """The function's last line: comments that are indented like its body and follow the last statement are its own."""
    last = end = node.end_lineno or node.lineno
    for number in range(end, len(lines)):
        text = lines[number]
        if not text.strip():
            continue
        if not text.lstrip().startswith("#") or len(text) - len(text.lstrip()) <= node.col_offset:
            break
        last = number + 1
    return last


def _moved(lines: list[str], node: ast.stmt, first: int, columns: int) -> list[str]:
    """Lines of a statement, the first of which is line `first`, moved sideways; what begins inside a string stays.

    Strings that stand side by side are one constant over several lines to Python, and no line begins inside them: only
    three quotes, or a line that ends with a backslash, let one.
    """
    inside: set[int] = set()
    documentation: set[int] = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Constant | ast.JoinedStr):
            begins = "".join(lines[each.lineno - first :][:1]) if each.lineno >= first else ""
            long = begins.encode()[each.col_offset :].lstrip(b"rbfuRBFU").startswith((b'"""', b"'''"))
            inside.update(number for number in range(each.lineno + 1, (each.end_lineno or 0) + 1)
                          if long or "".join(lines[max(number - first - 1, 0) :][:1]).endswith("\\\n"))
        elif isinstance(each, ast.stmt) and _is_docstring(each):
            documentation.update(range(each.lineno, (each.end_lineno or 0) + 1))
    moved = []
    for number, line in enumerate(lines, first):
        if not line.strip() or (number in inside and number not in documentation):
            moved.append(line)
        elif columns >= 0:
            moved.append(" " * columns + line)
        else:
            moved.append(line[min(-columns, len(line) - len(line.lstrip())) :])
    return moved

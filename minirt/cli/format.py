"""Ground floor: how results are shown: `--format` templates, tables, JSON, `--filter`.

`--format` takes the part of Go's template language that people use with Docker:

- text outside of `{{ }}` stands for itself;
- `{{.Name}}`, `{{.State.Status}}`, `{{.}}`: a field of the thing shown;
- `{{json .}}`, `join .Names ","`, `upper`, `lower`, `title`, `println`, `print`, `index .Labels "a"`, `len`, and
  pipes: `{{.Names | upper}}`, with parentheses where one needs the result of another;
- `table TEMPLATE` prints headings and aligns what tabs separate; `table` alone is the default table, `json` a line
  each.

Anything else (`range`, `if`, `split`, ...) is refused by name: a template that is silently half understood is worse.

Rules of this room: it knows no container and no image, only rows (dicts). Builtins only.
"""

from __future__ import annotations

import os

from minirt import state
from minirt.cli import explain
from minirt.cli.options import PROGRAM
from minirt.errors import MinirtError

try:
    from _json import encode_basestring as _quote
except ImportError:  # an interpreter without the C accelerator
    from json.encoder import encode_basestring as _quote  # type: ignore[no-redef]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

KNOWN = ("json", "join", "upper", "lower", "title", "println", "print", "index", "len")
LEAST, GAP = 10, 3  # Docker's tabwriter: a column is at least 10 wide, of which 3 or more are the gap to the next


# -- writing -----------------------------------------------------------------------------------------------------

def show(text: str) -> None:
    """Writes `text` to standard output, whole. Raises OSError (BrokenPipeError when the reader is gone)."""
    explain.tell()  # what was done comes before what it gave
    try:
        state.write_all(1, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        error.filename = "standard output"  # for the sentence about it
        raise


def confirm(warning: str) -> bool:
    """Asks on standard output whether to go on, after a warning; whether the answer on standard input is yes."""
    show(f"{warning}Are you sure you want to continue? [y/N] ")
    return os.read(0, 64).strip().lower() in (b"y", b"yes")


def describe(names: Iterable[str], find: Callable[[str], Any], template: str) -> int:
    """Prints what `find` returns for each name, as the template of an `inspect` says, and tells what was not found.

    `template`: '' for a JSON list of all, 'json' for that on one line, else a template for each. Returns 0, or 1 when
    something was not found. Raises MinirtError for a template that is none."""
    shape = Template(template) if template not in ("", "json") else None
    found, complaints = [], []
    for name in names:
        try:
            found.append(find(name))
        except MinirtError as error:
            complaints.append(f"{PROGRAM}: {error}\n")
    if shape is not None:
        show("".join(shape.render(each) + "\n" for each in found))
    else:
        show(to_json(found, indent=0 if template == "json" else 4) + "\n")
    for complaint in complaints:
        os.write(2, complaint.encode("utf-8", "surrogateescape"))
    return 1 if complaints else 0


def to_json(value: Any, indent: int = 0) -> str:
    """JSON as Docker prints it: compact, or with `indent` spaces a level; text is left unescaped beyond what JSON
    needs.
    """
    return _json(value, "\n" if indent else "", " " * indent)


def _json(value: Any, newline: str, step: str) -> str:
    if isinstance(value, str):
        return _quote(value)
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    inner = newline + step if newline else ""
    colon = ": " if newline else ":"
    if isinstance(value, dict):
        shown = ((key, item) for key, item in value.items() if not callable(item))
        items = [_quote(str(key)) + colon + _json(item, inner, step) for key, item in shown]
        return "{" + inner + ("," + inner).join(items) + newline + "}" if items else "{}"
    items = [_json(item, inner, step) for item in value]
    return "[" + inner + ("," + inner).join(items) + newline + "]" if items else "[]"


def plain(value: Any) -> str:
    """A value as a template prints it (Go's `%v`): `true`, `[a b]`, `map[k:v]`, `<no value>`."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        keys = sorted(key for key in value if not callable(value[key]))
        return "map[" + " ".join(f"{key}:{plain(value[key])}" for key in keys) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(plain(item) for item in value) + "]"
    return str(value)


# -- templates ---------------------------------------------------------------------------------------------------

class Template:
    """A parsed template. `render(row)` gives its text for one row; raises MinirtError with a sentence."""

    __slots__ = ("parts",)

    def __init__(self, text: str) -> None:
        """Parses `text`. Raises MinirtError where it is malformed or asks for what is not known."""
        self.parts: list[Any] = []
        rest = text
        while "{{" in rest:
            before, _, rest = rest.partition("{{")
            inside, closed, rest = _until_close(rest)
            if not closed:
                raise MinirtError("failed to parse template: unclosed action: a {{ without its }}")
            if inside[:2] in ("- ", "-\n"):
                before, inside = before.rstrip(), inside[1:]
            if inside[-2:] in (" -", "\n-"):
                inside, rest = inside[:-1], rest.lstrip()
            if before:
                self.parts.append(before)
            if not inside.strip().startswith("/*"):
                tokens = _tokens(inside)
                self.parts.append(_pipeline(tokens, inside))
                if tokens:
                    raise MinirtError(f"failed to parse template: unexpected {tokens[0]!r} in {{{{{inside}}}}}")
        if rest:
            self.parts.append(rest)

    def render(self, row: Any, heading: bool = False) -> str:
        """The text for `row`. `heading`: functions leave their argument as it is, as for the head line of a table."""
        return "".join(part if isinstance(part, str) else plain(_run(part, row, heading)) for part in self.parts)


def _until_close(text: str) -> tuple[str, bool, str]:
    """Splits at the first `}}` that stands outside of a string."""
    quote = ""
    position = 0
    while position < len(text):
        letter = text[position]
        if quote:
            if letter == "\\" and quote == '"':
                position += 1
            elif letter == quote:
                quote = ""
        elif letter in "\"`":
            quote = letter
        elif text.startswith("}}", position):
            return text[:position], True, text[position + 2:]
        position += 1
    return text, False, ""


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}


def _tokens(text: str) -> list[Any]:
    """Words of an action: "(", ")", "|", ("text", s), ("number", n), ("field", [names]), ("name", n)."""
    tokens: list[Any] = []
    position = 0
    while position < len(text):
        letter = text[position]
        if letter.isspace():
            position += 1
        elif letter in "()|":
            tokens.append(letter)
            position += 1
        elif letter in "\"`":
            value, position = _string(text, position)
            tokens.append(("text", value))
        else:
            start = position
            while position < len(text) and not text[position].isspace() and text[position] not in "()|\"`":
                position += 1
            tokens.append(_word(text[start:position]))
    return tokens


def _string(text: str, position: int) -> tuple[str, int]:
    quote, position, letters = text[position], position + 1, []
    while position < len(text) and text[position] != quote:
        if text[position] == "\\" and quote == '"' and position + 1 < len(text):
            position += 1
            if text[position] not in _ESCAPES:
                raise MinirtError(f"failed to parse template: unknown escape \\{text[position]}")
            letters.append(_ESCAPES[text[position]])
        else:
            letters.append(text[position])
        position += 1
    if position >= len(text):
        raise MinirtError("failed to parse template: unterminated quoted string")
    return "".join(letters), position + 1


def _word(word: str) -> tuple[str, Any]:
    if word.startswith("."):
        names = word[1:].split(".") if word != "." else []
        if any(not name or not name.replace("_", "a").isalnum() for name in names):
            raise MinirtError(f"failed to parse template: bad field {word!r}")
        return ("field", names)
    if word.lstrip("-").isdigit():
        return ("number", int(word))
    if word in ("true", "false"):
        return ("number", word == "true")
    if word not in KNOWN:
        raise MinirtError(f'"{word}" is not supported in --format; known are fields, {", ".join(KNOWN)}')
    return ("name", word)


def _pipeline(tokens: list[Any], inside: str) -> list[list[Any]]:
    """Takes `command | command ...` off the front of `tokens`, up to the end or a closing parenthesis."""
    commands: list[list[Any]] = [[]]
    while tokens and tokens[0] != ")":
        token = tokens.pop(0)
        if token == "|":
            commands.append([])
        elif token == "(":
            commands[-1].append(("pipe", _pipeline(tokens, inside)))
            if not tokens:
                raise MinirtError(f"failed to parse template: unclosed left paren in {{{{{inside}}}}}")
            tokens.pop(0)
        else:
            commands[-1].append(token)
    if any(not command for command in commands):
        raise MinirtError(f"failed to parse template: missing value for command in {{{{{inside}}}}}")
    return commands


def _run(commands: list[list[Any]], row: Any, heading: bool) -> Any:
    passed: list[Any] = []
    for command in commands:
        (kind, what), arguments = command[0], command[1:]
        values = [_operand(argument, row, heading) for argument in arguments] + passed
        if kind == "name":
            result = _call(what, values, heading)
        else:
            result = _operand(command[0], row, heading)
            if callable(result):
                result = _method(result, what, values)
            elif values and heading:
                result = plain(values[-1]).upper()
            elif values:
                raise MinirtError(f"--format: {_spelled(command[0])} is a value, not a function")
        passed = [result]
    return passed[0]


def _method(function: Callable[..., Any], names: list[str], values: list[Any]) -> Any:
    try:
        return function(*values)
    except TypeError:
        raise MinirtError(f"--format: wrong number of arguments for .{'.'.join(names)}") from None


def _operand(token: Any, row: Any, heading: bool) -> Any:
    kind, what = token
    if kind == "pipe":
        return _run(what, row, heading)
    if kind == "name":
        return _call(what, [], heading)
    return field(row, what, heading) if kind == "field" else what


def _spelled(token: Any) -> str:
    kind, what = token
    return "." + ".".join(what) if kind == "field" else repr(what)


def field(row: Any, names: Sequence[str], heading: bool = False) -> Any:
    """The value at a path of names in nested dicts. Raises MinirtError that names what is missing and what there
    is.
    """
    value = row
    for depth, name in enumerate(names):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif heading:
            return names[-1].upper()
        elif isinstance(value, dict):
            there = ", ".join(sorted(value)[:40]) or "nothing"
            path = ".".join(["", *names[: depth + 1]])
            raise MinirtError(f"--format: no field {path}; there is: {there}")
        elif value is None:
            raise MinirtError(f"--format: nil value has no field {name}")
        else:
            raise MinirtError(f"--format: .{'.'.join(names[:depth])} is a value without fields, so it has no {name}")
    return value


def _call(name: str, values: list[Any], heading: bool) -> Any:
    if heading and values:
        return values[-1] if name in ("index", "join") and isinstance(values[-1], dict) else values[0]
    wanted = {"json": 1, "upper": 1, "lower": 1, "title": 1, "len": 1, "join": 2}.get(name)
    if wanted is not None and len(values) != wanted:
        raise MinirtError(f"--format: wrong number of args for {name}: want {wanted} got {len(values)}")
    if name == "json":
        return to_json(values[0])
    if name in ("upper", "lower", "title"):
        text = plain(values[0])
        return text[:1].upper() + text[1:] if name == "title" else getattr(text, name)()
    if name == "print":
        return " ".join(plain(value) for value in values)
    if name == "println":
        return " ".join(plain(value) for value in values) + "\n"
    try:
        if name == "len":
            return len(values[0])
        if name == "join":
            if isinstance(values[0], str):
                raise TypeError
            return values[1].join(plain(value) for value in values[0])
        return _index(values)
    except (TypeError, AttributeError):
        raise MinirtError(f"--format: {name} cannot take {', '.join(plain(value) for value in values)}") from None


def _index(values: list[Any]) -> Any:
    """Go's `index`: into lists by number (out of range is an error), into maps by key (a missing key is no value)."""
    if not values:
        raise MinirtError("--format: wrong number of args for index: want at least 1 got 0")
    value = values[0]
    for key in values[1:]:
        if isinstance(value, dict):
            value = value.get(key, "")
        elif isinstance(key, int) and isinstance(value, (list, tuple, str)):
            if not 0 <= key < len(value):
                raise MinirtError(f"--format: index out of range: {key}")
            value = value[key]
        else:
            raise TypeError
    return value


# -- tables ------------------------------------------------------------------------------------------------------

def align(lines: Iterable[str]) -> str:
    """Aligns what tabs separate, as Docker's tabwriter does: a column is as wide as its widest cell and a gap."""
    rows = [line.split("\t") for line in lines]
    widths: dict[int, int] = {}
    for row in rows:
        for column, cell in enumerate(row[:-1]):
            widths[column] = max(widths.get(column, LEAST), len(cell) + GAP)
    return "".join(
        "".join(cell.ljust(widths[column]) for column, cell in enumerate(row[:-1])) + row[-1] + "\n" for row in rows
    )


def rows(
    items: Iterable[Mapping[str, Any]],
    template: str,
    *,
    table: str,
    headings: Mapping[str, str],
    quiet: str = "",
) -> str:
    """The text of a list command.

    `items`: one dict each, field name to value (a callable is a method: `{{.Label "a"}}`). `template`: what
    `--format` says, empty for the default. `table`: the default table's template, without the word table.
    `headings`: field name to heading. `quiet`: the template of `-q` (`{{.ID}}`), which replaces any table. Returns
    the lines, each with its newline.
    """
    word, _, rest = template.strip().partition(" ")
    if not template.strip() or word == "table":
        if quiet:
            return "".join(Template(quiet).render(item) + "\n" for item in items)
        body = Template(_tabs(rest.strip() or table))
        lines = [body.render(dict(headings), heading=True)]
        return align(line for line in [*lines, *(body.render(item) for item in items)])
    if template.strip() == "json":
        template = "{{json .}}"
    body = Template(_tabs(template.strip(" ")))
    return "".join(body.render(dict(sorted(item.items()))) + "\n" for item in items)


def _tabs(template: str) -> str:
    """`\\t` and `\\n` typed in a shell become the characters."""
    return template.replace("\\t", "\t").replace("\\n", "\n")


# -- filters -----------------------------------------------------------------------------------------------------

def filters(values: Sequence[str], known: Sequence[str]) -> dict[str, list[str]]:
    """`--filter` values (`name=value` each) as name -> values. Raises MinirtError for a name that is not among
    `known`.
    """
    result: dict[str, list[str]] = {}
    for text in values:
        name, _, value = text.partition("=")
        name = name.strip().lower()
        if name not in known:
            raise MinirtError(f"invalid filter '{name}': known are {', '.join(sorted(known))}")
        result.setdefault(name, []).append(value.strip())
    return result


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether `labels` satisfy one `label=` filter: `key`, or `key=value`."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)

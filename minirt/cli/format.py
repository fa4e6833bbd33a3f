"""Ground floor: how results are shown: `--format`, tables, JSON, `--filter`.

`--format` is `json` (a line each), `table` (the default table), `table TEMPLATE` (headings, and columns where tabs are)
or a template: text with `{{ }}` in it, in the language of `minirt.cli.template`, which is loaded when there is one.

Rules of this room: it knows no container and no image, only rows (dicts). Builtins only.
"""

from __future__ import annotations

import os

from minirt import state
from minirt.cli import explain
from minirt.cli.options import complain
from minirt.errors import MinirtError, TemplateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from minirt.cli.template import Template

MALFORMED = 64  # the exit code of `inspect`, `version` and `events` for a template that is none
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


def describe(names: Iterable[str], find: Callable[[str], Any], form: str) -> int:
    """Prints what `find` returns for each name, as the `--format` of an `inspect` says, and tells what was not found.

    `form`: '' for a JSON list of all, 'json' for that on one line, else a template for each. Returns 0, or 1 when
    something was not found or the template does not fit it. Raises MinirtError for a template that is none."""
    from minirt.cli import shapes

    template = parse(form, code=MALFORMED) if form not in ("", "json") else None
    found, complaints = [], []
    for name in names:
        try:
            document = find(name)
            found.append(document if template is None else shapes.render(template, document))
        except TemplateError as error:
            complaints.append(told(error, "template parsing error"))
        except MinirtError as error:
            complaints.append(error)
    if template is not None:
        show("".join(f"{text}\n" for text in found) or "\n")
    else:
        show(state.dumps(found, indent=0 if form == "json" else 4, docker=True) + "\n")
    for complaint in complaints:
        complain(complaint)
    return 1 if complaints else 0


# -- templates ---------------------------------------------------------------------------------------------------

def parse(text: str, wrong: str = "template parsing error", code: int = 1, name: str = "") -> Template:
    """The template that `text` is. Raises MinirtError, with `wrong` before what is wrong and that exit code, when it is
    none. `name`: of the template, in errors."""
    from minirt.cli.template import Template

    try:
        return Template(text, name)
    except TemplateError as error:
        raise told(error, wrong, code) from None


def told(error: TemplateError, wrong: str, code: int = 1) -> MinirtError:
    """The error of a template with `wrong` before it, and that exit code."""
    refusal = MinirtError(f"{wrong}: {error}" if wrong else str(error))
    refusal.exit_code = code
    return refusal


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
    form: str,
    *,
    table: str,
    headings: Mapping[str, str],
    quiet: str = "",
    wrong: tuple[str, str] = ("template parsing error", "template parsing error"),
) -> str:
    """The text of a list command.

    `items`: one dict each, field name to value (a callable is a method: `{{.Label "a"}}`). `form`: what `--format`
    says, empty for the default. `table`: the default table's template, without the word table. `headings`: field
    name to heading. `quiet`: the template of `-q` (`{{.ID}}`), which replaces any table. Returns the lines, each
    with its newline. Raises MinirtError for a template that is none, and for one that does not fit; `wrong`: how
    these sentences begin.
    """
    from minirt.cli.verbs import Struct

    as_table = not form or form.startswith("table")
    if as_table and quiet:
        as_table, form = False, quiet
    elif as_table:
        form = form[len("table"):].strip(" ") or table
    elif form == "json":
        form = "{{json .}}"
    template = parse(_tabs(form.strip(" ")), wrong[0])
    try:
        lines = [template.render(Struct(sorted(item.items()))) for item in items]
    except TemplateError as error:
        raise told(error, wrong[1]) from None
    return align([_head(template, headings), *lines]) if as_table else "".join(f"{line}\n" for line in lines)


def _head(template: Template, headings: Mapping[str, str]) -> str:
    """The head line of a table: the template for the names of the columns, as far as it makes sense for them."""
    from minirt.cli.functions import IN_HEADINGS

    names = {**headings, "Label": lambda label: label.rpartition(".")[2].replace("-", " ").replace("_", " ")}
    text = ""
    try:
        for piece in template.pieces(names, IN_HEADINGS):
            text += piece
    except TemplateError:
        pass
    return text


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


def is_true(name: str, value: str) -> bool:
    """The value of a filter that is true or false. Raises MinirtError when it is neither."""
    if value.lower() not in ("true", "1", "false", "0"):
        raise MinirtError(f"invalid filter '{name}={value}': it is true or false")
    return value.lower() in ("true", "1")


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether `labels` satisfy one `label=` filter: `key`, or `key=value`."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)

"""Ground floor: how Go writes values, for `--format`: `print`, `println`, `printf` and its verbs.

Go's package fmt names a value's type where a verb does not fit it (`%!d(string=x)`), puts a space between two operands
of `print` only when neither is text, and writes a map in the order of its keys. Whoever moved a script from `docker`
sees that text, so it is the same here.

The values of a template, in Python: str, bool, int, float; a list; a dict, which is a map; a `Struct`, which is a dict
whose names are fixed; None, which is a pointer that points nowhere; NOTHING, which is what a map has under a key that
it lacks. Rules of this room: what values are, and their text; nothing else.

Source: https://pkg.go.dev/fmt
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class Struct(dict):  # type: ignore[type-arg]
    """A thing with fields, where a dict is a map from any key: always true, without a length, printed as `{a b}`. A
    field that is callable is a method, which takes one text; it is not printed."""

    def field(self, name: str) -> Any:
        """The field of that name. Raises KeyError where there is none."""
        return self[name]

    def printed(self) -> list[tuple[str, Any]]:
        """Names and values of the fields, in their order."""
        return [(name, value) for name, value in self.items() if not callable(value)]


class Map(dict):  # type: ignore[type-arg]
    """A map that says what `index` gives for a key that it lacks, and whether it is null: printed like an empty one,
    but JSON tells them apart."""

    def __init__(self, items: dict[str, Any] | None, missing: Any) -> None:
        super().__init__(items or {})
        self.is_null, self.missing = items is None, missing


class _Nothing:
    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "<no value>"


NOTHING = _Nothing()
NO_LIST: list[Any] = []  # a list that is null: itself, nothing that is equal to it
LIMIT = 1_000_000  # of a width or a precision
LARGE = 6  # a floating number that is 10 to this power or more has an exponent, as one has that is below 0.0001
_ESCAPES = {7: "\\a", 8: "\\b", 12: "\\f", 10: "\\n", 13: "\\r", 9: "\\t", 11: "\\v", 92: "\\\\"}


def truth(value: Any) -> bool:
    """Whether `if` takes a value for true: not false, 0, empty or nil; a struct always is."""
    return isinstance(value, Struct) or bool(value)


def type_name(value: Any) -> str:
    """The name of a value's type in Go's words: `string`, `[]string`, `map[string]string`."""
    for kind, name in ((bool, "bool"), (str, "string"), (int, "int"), (float, "float64"), (Struct, "struct")):
        if isinstance(value, kind):
            return name
    if isinstance(value, (list, tuple, dict)):
        items = value.values() if isinstance(value, dict) else value
        inside = "string" if all(isinstance(item, str) for item in items) else "interface {}"
        return f"map[string]{inside}" if isinstance(value, dict) else f"[]{inside}"
    return "<nil>"


def shown(value: Any) -> str:
    """A value as `print` writes it: `true`, `[a b]`, `map[k:v]`, `<nil>`, `<no value>`."""
    return value if isinstance(value, str) else _verb(value, "v", "", -1)


def line(values: Sequence[Any]) -> str:
    """What `println` gives: every operand after a space, and a newline."""
    return " ".join(map(shown, values)) + "\n"


def together(values: Sequence[Any]) -> str:
    """What `print` gives: a space between two operands when neither is text."""
    parts: list[str] = []
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            parts.append(" ")
        parts.append(shown(value))
    return "".join(parts)


def printf(form: str, values: Sequence[Any]) -> str:
    """What `printf` gives: `form` with its verbs (`%s`, `%-10v`, `%[2]*.3d`) replaced by `values`."""
    parts: list[str] = []
    position, number, reordered = 0, 0, False  # of the next value

    def star(text: str) -> str:
        """A width or precision: digits, or `*` for the next value."""
        nonlocal position, number, reordered
        position, number, reordered = _index(form, position, number, reordered)
        if form[position:position + 1] == "*":
            position += 1
            number += 1
            value: Any = values[number - 1] if number <= len(values) else None
            return str(value) if type_name(value) == "int" and abs(value) <= LIMIT else "bad"
        start = position
        while form[position:position + 1].isdigit():
            position += 1
        return text if start == position else form[start:position] if int(form[start:position]) <= LIMIT else "bad"

    while position < len(form):
        percent = form.find("%", position)
        parts.append(form[position:percent] if percent >= 0 else form[position:])
        if percent < 0:
            break
        position = percent + 1
        while form[position:position + 1] in ("+", "-", "#", "0", " "):
            position += 1
        flags = form[percent + 1:position]
        width, precision = star(""), "-1"
        if form[position:position + 1] == ".":
            position += 1
            precision = star("0")
        position, number, reordered = _index(form, position, number, reordered)
        verb = form[position:position + 1]
        position += 1
        if width == "bad" or precision == "bad":
            parts.append("%!(BADWIDTH)" if width == "bad" else "%!(BADPREC)")
        if not verb:
            parts.append("%!(NOVERB)")
        elif verb == "%":
            parts.append("%")
        elif not 0 <= number < len(values):
            parts.append(f"%!{verb}({'BADINDEX' if reordered else 'MISSING'})")
        else:
            number += 1
            flags += "-" if width.startswith("-") else ""
            text = _verb(values[number - 1], verb, flags, int(precision) if precision != "bad" else -1)
            parts.append(_padded(text, flags, int(width.lstrip("-") or 0) if width != "bad" else 0))
    if not reordered and number < len(values):
        extra = ", ".join("<nil>" if value is None else f"{type_name(value)}={shown(value)}"
                          for value in values[number:])
        parts.append(f"%!(EXTRA {extra})")
    return "".join(parts)


def _index(form: str, position: int, number: int, reordered: bool) -> tuple[int, int, bool]:
    """After an explicit index, `[2]`: where it ends, and which value it means; else all as it was."""
    close = form.find("]", position) if form[position:position + 1] == "[" else -1
    if close < 0:
        return position, number, reordered
    inside = form[position + 1:close]
    return close + 1, int(inside) - 1 if inside.isascii() and inside.isdigit() else -1, True


def _padded(text: str, flags: str, width: int) -> str:
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags:
        sign = text[:1] if text[:1] in ("+", "-") else ""
        return sign + text[len(sign):].rjust(width - len(sign), "0")
    return text.rjust(width)


def _verb(value: Any, verb: str, flags: str, precision: int) -> str:
    """One value under one verb, without its width."""
    if verb == "T":
        return type_name(value)
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(_verb(item, verb, flags, precision) for item in value) + "]"
    if isinstance(value, Struct):
        return "{" + " ".join((f"{name}:" if "+" in flags else "") + _verb(item, verb, flags, precision)
                              for name, item in value.printed()) + "}"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{_verb(key, verb, flags, precision)}:{_verb(value[key], verb, flags, precision)}"
                                 for key in sorted(value)) + "]"
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            text = write(value, verb, flags, precision)
            return f"%!{verb}({type_name(value)}={shown(value)})" if text is None else text
    if verb == "v":
        return "<nil>" if value is None else str(value)
    return f"%!{verb}(<nil>)"


def _truth(value: bool, verb: str, flags: str, precision: int) -> str | None:
    return ("true" if value else "false") if verb in "tv" else None


def _text(value: str, verb: str, flags: str, precision: int) -> str | None:
    value = value if precision < 0 else value[:precision]
    if verb in "sv":
        return quoted(value) if "#" in flags and verb == "v" else value
    if verb == "q":
        return f"`{value}`" if "#" in flags and "`" not in value else quoted(value, ascii_only="+" in flags)
    if verb in "xX":
        data = value.encode("utf-8", "surrogateescape")
        digits = ("0x" if "#" in flags and data else "") + (data.hex(" ") if " " in flags else data.hex())
        return digits.upper() if verb == "X" else digits
    return None


def _whole(value: int, verb: str, flags: str, precision: int) -> str | None:
    if verb in "cqU":
        if verb == "U":
            return f"U+{value:04X}"
        letter = chr(value) if 0 <= value < 0x110000 else "\ufffd"
        return letter if verb == "c" else "'" + quoted(letter)[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
    if verb not in "vdboOxX":
        return None
    digits = format(abs(value), {"v": "d", "O": "o"}.get(verb, verb)).rjust(precision, "0")
    if "#" in flags or verb == "O":
        digits = {"x": "0x", "X": "0X", "b": "0b", "o": "0", "O": "0o"}.get(verb, "") + digits
    return ("-" if value < 0 else "+" if "+" in flags else " " if " " in flags else "") + digits


def _real(value: float, verb: str, flags: str, precision: int) -> str | None:
    if verb not in "veEfFgG":
        return None
    sign = "" if value < 0 else "+" if "+" in flags else " " if " " in flags else ""
    if value != value or value in (float("inf"), float("-inf")):
        return sign + {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}[repr(value)].removeprefix(sign and "+")
    if verb in "eEfF":
        return sign + format(value, f".{6 if precision < 0 else precision}{verb}")
    if precision >= 0:
        return sign + format(value, f".{precision}{'G' if verb == 'G' else 'g'}")
    mantissa, exponent = "0", "+00"
    for digits in range(17):  # the shortest that read back the same
        mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
        if float(f"{mantissa}e{exponent}") == value:
            break
    if not -4 <= int(exponent) < LARGE:
        return sign + f"{mantissa}{'E' if verb == 'G' else 'e'}{exponent}"
    decimals = len(mantissa.lstrip("-").replace(".", "")) - 1 - int(exponent)
    return sign + format(value, f".{max(0, decimals)}f")


_WRITERS: tuple[tuple[type, Callable[[Any, str, str, int], str | None]], ...] = (
    (bool, _truth), (str, _text), (int, _whole), (float, _real))


def quoted(text: str, ascii_only: bool = False) -> str:
    """A text in double quotes as Go's source has it: `"a\\n"`."""
    parts = []
    for letter in text:
        code = ord(letter)
        if letter == '"':
            parts.append('\\"')
        elif code in _ESCAPES:
            parts.append(_ESCAPES[code])
        elif letter.isprintable() and (code < 128 or not ascii_only):
            parts.append(letter)
        elif code < 128:
            parts.append(f"\\x{code:02x}")
        else:
            parts.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return '"' + "".join(parts) + '"'

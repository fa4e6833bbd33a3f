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
    return value if isinstance(value, str) else _verb(value, "v", _Form())


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


# -- printf ------------------------------------------------------------------------------------------------------

class _Form:
    """How one verb wants it: flags, and width and precision, -1 for none."""

    __slots__ = ("flags", "precision", "width")

    def __init__(self, flags: str = "") -> None:
        self.flags, self.width, self.precision = flags, -1, -1

    def padded(self, text: str, fill: str = "") -> str:
        """A text in its width, filled with spaces or, where the flags say so and not `fill`, with zeros."""
        if "-" in self.flags:
            return text.ljust(self.width)
        return text.rjust(self.width, fill or ("0" if "0" in self.flags else " "))


class _Printf:
    """One call of `printf`: how far its text is read, and which value is next."""

    def __init__(self, text: str, values: Sequence[Any]) -> None:
        self.text, self.values = text, values
        self.at, self.number = 0, 0
        self.indexed = self.reordered = self.good = False

    def run(self) -> str:
        """The whole text."""
        parts = []
        while (percent := self.text.find("%", self.at)) >= 0:
            parts.append(self.text[self.at:percent])
            self.at = percent + 1
            parts.append(self.one())
        parts.append(self.text[self.at:])
        if not self.reordered and self.number < len(self.values):
            extra = ("<nil>" if value is None else f"{type_name(value)}={shown(value)}"
                     for value in self.values[self.number:])
            parts.append(f"%!(EXTRA {', '.join(extra)})")
        return "".join(parts)

    def one(self) -> str:
        """What stands for one verb, whose percent sign is behind us."""
        start, self.good = self.at, True
        while self.text[self.at:self.at + 1] in ("+", "-", "#", "0", " "):
            self.at += 1
        form, wrong = _Form(self.text[start:self.at]), ""
        self.index()
        width = self.size(form)
        if width is None:
            wrong = "%!(BADWIDTH)"
        form.width = -1 if width is None else width
        if self.text[self.at:self.at + 1] == ".":
            self.at += 1
            self.good = self.good and not self.indexed  # an index belongs before the star or the verb
            self.index()
            precision = self.size(None)
            if precision is None:
                wrong += "%!(BADPREC)"
            form.precision = -1 if precision is None else max(0, precision)
        if not self.indexed:
            self.index()
        self.indexed = False
        verb = self.text[self.at:self.at + 1]
        self.at += 1
        if not verb:
            return wrong + "%!(NOVERB)"
        if verb == "%":
            return wrong + "%"
        if not self.good:
            return f"{wrong}%!{verb}(BADINDEX)"
        if self.number >= len(self.values):
            return f"{wrong}%!{verb}(MISSING)"
        self.number += 1
        return wrong + _verb(self.values[self.number - 1], verb, form)

    def index(self) -> None:
        """Takes an explicit index, `[2]`: the number of the value that is meant."""
        close = self.text.find("]", self.at) if self.text[self.at:self.at + 1] == "[" else -1
        self.indexed = close >= 0
        if self.indexed:
            inside = self.text[self.at + 1:close]
            self.reordered, self.at = True, close + 1
            number = int(inside) if inside.isascii() and inside.isdigit() else 0
            if 1 <= number <= len(self.values):
                self.number = number - 1
            else:
                self.good = False

    def size(self, of_width: _Form | None) -> int | None:
        """A width or a precision: digits, `*` for the next value, or -1 for none; None for one that cannot be. A
        negative width means the left."""
        if self.text[self.at:self.at + 1] == "*":
            self.at += 1
            self.indexed = False
            value: Any = self.values[self.number] if self.number < len(self.values) else None
            self.number += self.number < len(self.values)
            if type_name(value) != "int" or abs(value) > LIMIT or (value < 0 and of_width is None):
                return None
            if of_width is not None and value < 0:
                of_width.flags += "-"
            return int(abs(value))
        start = self.at
        while self.text[self.at:self.at + 1] in tuple("0123456789"):
            self.at += 1
        if start < self.at and self.indexed:
            self.good = False
        number = int(self.text[start:self.at] or -1)
        return number if number <= LIMIT else None


def printf(text: str, values: Sequence[Any]) -> str:
    """What `printf` gives: `text` with its verbs (`%s`, `%-10v`, `%[2]*.3d`) replaced by `values`."""
    return _Printf(text, values).run()


def _verb(value: Any, verb: str, form: _Form) -> str:
    """One value under one verb. Width and precision are those of each item of a list, a map and a struct."""
    if verb == "T" and value is not None:
        return form.padded(_cut(type_name(value), form))
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(_verb(item, verb, form) for item in value) + "]"
    if isinstance(value, Struct):
        names = "+" in form.flags and verb == "v"
        return "{" + " ".join((f"{name}:" if names else "") + _verb(item, verb, form)
                              for name, item in value.printed()) + "}"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{_verb(key, verb, form)}:{_verb(value[key], verb, form)}"
                                 for key in sorted(value)) + "]"
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            text = write(value, verb, form)
            return f"%!{verb}({type_name(value)}={_verb(value, 'v', form)})" if text is None else text
    if verb in "vT":
        return form.padded("<nil>" if value is None else str(value))
    return f"%!{verb}(<nil>)"


def _cut(text: str, form: _Form) -> str:
    return text if form.precision < 0 else text[:form.precision]


def _truth(value: bool, verb: str, form: _Form) -> str | None:
    return form.padded("true" if value else "false") if verb in "tv" else None


def _text(value: str, verb: str, form: _Form) -> str | None:
    if verb in "xX":
        data = value.encode("utf-8", "surrogateescape")[:form.precision if form.precision >= 0 else None]
        digits = ("0x" if "#" in form.flags and data else "") + (data.hex(" ") if " " in form.flags else data.hex())
        return form.padded(digits.upper() if verb == "X" else digits)
    value = _cut(value, form)
    if verb == "q" or (verb == "v" and "#" in form.flags):
        is_raw = "#" in form.flags and verb == "q" and "`" not in value
        return form.padded(f"`{value}`" if is_raw else quoted(value, ascii_only="+" in form.flags))
    return form.padded(value) if verb in "sv" else None


def _whole(value: int, verb: str, form: _Form) -> str | None:
    flags = form.flags
    if verb == "U":
        return form.padded(f"U+{value:04X}", " ")
    if verb in "cq":
        letter = chr(value) if 0 <= value < 0x110000 else "\ufffd"
        inside = quoted(letter, ascii_only="+" in flags)[1:-1].replace('\\"', '"').replace("'", "\\'")
        return form.padded(letter if verb == "c" else f"'{inside}'")
    if verb not in "vdboOxX":
        return None
    sign = "-" if value < 0 else "+" if "+" in flags else " " if " " in flags else ""
    least = form.precision
    if least < 0 and "0" in flags and "-" not in flags:
        least = form.width - len(sign)
    digits = format(abs(value), {"v": "d", "O": "o"}.get(verb, verb)).rjust(least, "0")
    if value == 0 and form.precision == 0:
        digits = ""
    elif "#" in flags or verb == "O":
        digits = {"x": "0x", "X": "0X", "b": "0b", "o": "0", "O": "0o"}.get(verb, "") + digits
    return form.padded(sign + digits, " ")


def _real(value: float, verb: str, form: _Form) -> str | None:
    if verb not in "veEfFgG":
        return None
    text = _unsigned(abs(value), verb, form.precision)
    sign = "-" if value < 0 else "+" if "+" in form.flags else " " if " " in form.flags else ""
    if "0" in form.flags and "-" not in form.flags:
        text = text.rjust(form.width - len(sign), "0")
    return form.padded(sign + text, " ")


def _unsigned(value: float, verb: str, precision: int) -> str:
    if value != value or value == float("inf"):
        return "NaN" if value != value else "+Inf"
    if verb in "eEfF":
        return format(value, f".{6 if precision < 0 else precision}{verb}")
    if precision >= 0:
        return format(value, f".{precision}{'G' if verb == 'G' else 'g'}")
    mantissa, exponent = "0", "+00"
    for digits in range(17):  # the shortest that read back the same
        mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
        if float(f"{mantissa}e{exponent}") == value:
            break
    if not -4 <= int(exponent) < LARGE:
        return f"{mantissa}{'E' if verb == 'G' else 'e'}{exponent}"
    return format(value, f".{max(0, len(mantissa.replace('.', '')) - 1 - int(exponent))}f")


_WRITERS: tuple[tuple[type, Callable[[Any, str, _Form], str | None]], ...] = (
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

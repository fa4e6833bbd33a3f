"""Ground floor: the functions that a template of `--format` can call: Go's (`index`, `len`, `eq`, `printf`, ...) and
those that Docker's client adds (`json`, `join`, `split`, `upper`, `lower`, `title`, `pad`, `truncate`).

A table of names, each with what is called and the types of its arguments. A function raises MinirtError with Go's
sentence; the place in the template is added where it is called (`minirt.cli.template`). `and` and `or` are asked for
one argument after the other, and stop at the one that decides: that is done there, too.

Rules of this room: pure functions of values.

Sources: https://pkg.go.dev/text/template#hdr-Functions, Docker's "Format command and log output".
"""

from __future__ import annotations

from minirt import state
from minirt.cli import verbs
from minirt.cli.verbs import NO_LIST, Map, Struct, together, type_name
from minirt.errors import MinirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    # What is called, and the types of its arguments: "string", "int", "[]string", "any"; with "..." before the last
    # there may be any number of it.
    Function = tuple[Callable[..., Any], tuple[str, ...]]


def index(item: Any, *keys: Any) -> Any:
    """`index .List 0`, `index .Map "key"`, and so on with more keys into what that holds."""
    for key in keys:
        if item is None or item is verbs.NOTHING:
            raise MinirtError("index of untyped nil")
        if isinstance(item, dict) and not isinstance(item, Struct):
            if not isinstance(key, str):
                raise MinirtError("value is nil; should be of type string" if key is None else
                                  f"value has type {type_name(key)}; should be string")
            if isinstance(item, Map) and item.missing is verbs.NOTHING:
                raise MinirtError("value has type string; should be nat.Port")
            found = item.get(key)
            if found is None:
                found = item.missing if isinstance(item, Map) and key not in item else verbs.NOTHING
            item = found
        elif isinstance(item, (list, tuple, str)):
            items = _bytes(item) if isinstance(item, str) else item
            item = items[_position(key, len(items), last=len(items) - 1)]
        else:
            raise MinirtError(f"can't index item of type {type_name(item)}")
    return item


def cut(item: Any, *positions: Any) -> Any:
    """`slice .List 1 3`: from the second to the third; of text, its bytes."""
    if item is None:
        raise MinirtError("slice of untyped nil")
    if not isinstance(item, (list, tuple, str)):
        raise MinirtError(f"can't slice item of type {type_name(item)}")
    if len(positions) > (2 if isinstance(item, str) else 3):
        raise MinirtError("cannot 3-index slice a string" if isinstance(item, str) else
                          f"too many slice indexes: {len(positions)}")
    items = _bytes(item) if isinstance(item, str) else item
    places = [_position(each, len(items), last=len(items)) for each in positions]
    if places != sorted(places):
        before, after = next(pair for pair in zip(places, places[1:], strict=False) if pair[0] > pair[1])  # noqa: RUF007
        raise MinirtError(f"invalid slice index: {before} > {after}")
    start, end, *_ = [*places, *(0, len(items))[len(places):], len(items)]
    chosen = items[start:end]
    return chosen.decode("utf-8", "surrogateescape") if isinstance(chosen, bytes) else chosen


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _position(key: Any, size: int, last: int) -> int:
    if not isinstance(key, int) or isinstance(key, bool):
        what = "nil" if key is None else f"type {type_name(key)}"
        raise MinirtError(f"cannot index slice/array with {what}")
    if not 0 <= key <= last:
        raise MinirtError(f"index out of range: {key}")
    return key


def length(item: Any) -> int:
    """`len`: of a list or a map the number of things in it, of text its bytes."""
    if item is None:
        raise MinirtError("len of nil pointer")
    if isinstance(item, Struct) or not isinstance(item, (str, list, tuple, dict)):
        raise MinirtError(f"len of type {type_name(item)}")
    return len(_bytes(item)) if isinstance(item, str) else len(item)


def _basic(value: Any) -> str:
    """The kind that decides what may be compared; "" for a list, a map, a struct and nil."""
    return type_name(value) if isinstance(value, (bool, int, float, str)) else ""


def equal(first: Any, *others: Any) -> bool:
    """`eq`: whether the first is equal to any of the others."""
    if not others:
        raise MinirtError("missing argument for comparison")
    for other in others:
        if _basic(first) != _basic(other):
            if first is not None and other is not None:
                raise MinirtError("incompatible types for comparison")
        elif not _basic(first) and first is not None and other is not None:
            raise MinirtError(f"non-comparable type {verbs.shown(other)}: {type_name(other)}")
        elif first == other:
            return True
    return False


def less(first: Any, other: Any) -> bool:
    """`lt`: of two numbers of one kind, or two texts."""
    if not _basic(first) or not _basic(other):
        raise MinirtError("invalid type for comparison")
    if _basic(first) != _basic(other):
        raise MinirtError("incompatible types for comparison")
    if isinstance(first, bool):
        raise MinirtError("invalid type for comparison")
    return bool(first < other)


def _said(values: Sequence[Any]) -> str:
    """What `print` gives; but what is not there is called so."""
    return together([verbs.NOTHING if value is None else value for value in values])


def html(*values: Any) -> str:
    """The text of its arguments, safe within HTML."""
    text = _said(values)
    for letter, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(letter, name)
    return text


def js(*values: Any) -> str:
    """The text of its arguments, safe within a string of JavaScript."""
    return "".join(f"\\{letter}" if letter in "\\'\"" else
                   f"\\u{ord(letter):04X}" if letter in "<>&=" or not letter.isprintable() else letter
                   for letter in _said(values))


def urlquery(*values: Any) -> str:
    """The text of its arguments, safe within the query of a URL."""
    kept = b"-_.~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return "".join(chr(each) if each in kept else "+" if each == 32 else f"%{each:02X}"
                   for each in _bytes(_said(values)))


def _call(value: Any, *_: Any) -> Any:
    raise MinirtError(f"non-function {verbs.shown(value)} of type {type_name(value)}")


def json(value: Any) -> str:
    """A value as JSON on one line. The keys of a map stand in order, the fields of a struct stay as they are."""
    return state.dumps(_plain(value), docker=True)


def _plain(value: Any, ordered: bool = True) -> Any:
    if value is NO_LIST or (isinstance(value, Map) and value.is_null):
        return None
    if isinstance(value, (list, tuple)):
        return [_plain(item, ordered) for item in value]
    if isinstance(value, Struct):
        return {key: _plain(item, ordered=False) for key, item in value.items() if not callable(item)}
    if isinstance(value, dict):
        return {key: _plain(value[key], ordered) for key in (sorted(value) if ordered else value)}
    return value


def title(text: str) -> str:
    """Every word with a capital letter; a word goes on where a letter, digit or underscore stands."""
    return "".join(letter if before.isalnum() or before == "_" else letter.upper()
                   for before, letter in zip(f" {text}", text, strict=False))


def pad(text: str, before: int, after: int) -> str:
    """A text with so many spaces before and after it; nothing when it is empty."""
    if min(before, after) < 0 and text:
        raise MinirtError("strings: negative Repeat count")
    return text and " " * before + text + " " * after


def truncate(text: str, size: int) -> str:
    """The first `size` bytes of a text."""
    return _bytes(text)[:max(0, size)].decode("utf-8", "surrogateescape")


TABLE: dict[str, Function] = {
    "json": (json, ("any",)),
    "join": (lambda texts, between: between.join(texts or ()), ("[]string", "string")),
    "split": (lambda text, at: text.split(at) if at else list(text), ("string", "string")),
    "lower": (str.lower, ("string",)),
    "upper": (str.upper, ("string",)),
    "title": (title, ("string",)),
    "pad": (pad, ("string", "int", "int")),
    "truncate": (truncate, ("string", "int")),
    "and": (lambda *values: values[-1], ("any", "...any")),
    "or": (lambda *values: values[-1], ("any", "...any")),
    "not": (lambda value: not verbs.truth(value), ("any",)),
    "eq": (equal, ("any", "...any")),
    "ne": (lambda first, other: not equal(first, other), ("any", "any")),
    "lt": (less, ("any", "any")),
    "le": (lambda first, other: less(first, other) or equal(first, other), ("any", "any")),
    "gt": (lambda first, other: not less(first, other) and not equal(first, other), ("any", "any")),
    "ge": (lambda first, other: not less(first, other), ("any", "any")),
    "index": (index, ("any", "...any")),
    "slice": (cut, ("any", "...any")),
    "len": (length, ("any",)),
    "print": (lambda *values: together(values), ("...any",)),
    "println": (lambda *values: verbs.line(values), ("...any",)),
    "printf": (lambda form, *values: verbs.printf(form, values), ("string", "...any")),
    "html": (html, ("...any",)),
    "js": (js, ("...any",)),
    "urlquery": (urlquery, ("...any",)),
    "call": (_call, ("any", "...any")),
}

# The same in the head of a table, where the name of a column stays as it is.
IN_HEADINGS: dict[str, Function] = {
    name: (lambda text, *_: text, ("string", *TABLE[name][1][1:]))
    for name in ("json", "join", "split", "lower", "upper", "title", "truncate")
}

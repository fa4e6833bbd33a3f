"""Ground floor: the narration behind `minirt --explain`.

A room that asks the kernel for something says so, with its chapter, in the reader's words and as the call. Events are
JSON lines on a descriptor: the processes of one launch all write to the same pipe (a line is far shorter than PIPE_BUF,
so lines never mix), and whoever reads the pipe numbers them. While no descriptor is set, a narrated function costs one
comparison more than a bare one.

The sentence stands in the decorator, not in the body, so that it survives when a workshop empties the body.
"""

from __future__ import annotations

import os

from minirt import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

_descriptor = -1


def on(descriptor: int) -> None:
    """Send every event from here on to `descriptor`, an open file descriptor that stays the caller's."""
    global _descriptor
    _descriptor = descriptor


def off() -> None:
    """Stop narrating."""
    on(-1)


def enabled() -> bool:
    """Whether events are being written."""
    return _descriptor >= 0


def step(chapter: int, text: str, call: str = "") -> None:
    """Tell one step: its chapter, a sentence without a full stop, and the call in the words of C or the shell."""
    if _descriptor >= 0:
        os.write(_descriptor, state.dumps({"step": [chapter, text, call]}).encode() + b"\n")


def narrated(chapter: int, text: str, call: str = "") -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function so that each call of it is told, before it happens, by `step`.

    `text` and `call` may name the function's parameters in braces: `"the host name becomes {name}"`.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        defaults = dict(zip(reversed(names), reversed(function.__defaults__ or ()), strict=False))

        def narrating(*args: P.args, **kwargs: P.kwargs) -> T:
            if _descriptor >= 0:
                values: dict[str, Any] = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
                step(chapter, text.format(**values), call.format(**values))
            try:
                return function(*args, **kwargs)
            except OSError as error:  # whoever makes the sentence for the user finds here what was being done
                error.add_note(text.format(**{**defaults, **dict(zip(names, args, strict=False)), **kwargs}))
                raise

        narrating.__name__, narrating.__qualname__ = function.__name__, function.__qualname__
        narrating.__doc__, narrating.__module__ = function.__doc__, function.__module__
        narrating.__wrapped__ = function  # type: ignore[attr-defined]
        return narrating

    return decorate


def render(number: int, event: list[Any]) -> str:
    """One event as the line that `--explain` prints: number, chapter, sentence, call; ids are cut to 12 digits."""
    chapter, text, call = event
    return f"{number:3}  ch {chapter:02}  {_shortened(text):<62}  {_shortened(call)}".rstrip()


def _shortened(text: str) -> str:
    """A text in which every path component of 64 hexadecimal digits, an id, keeps its first 12."""
    parts = text.split("/")
    for place, part in enumerate(parts):
        if len(part) >= 64 and not part[:64].strip("0123456789abcdef"):
            parts[place] = part[:12] + part[64:]
    return "/".join(parts)

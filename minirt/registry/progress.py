"""Chapter 14, beyond: what is told while layers come and go: on stderr, in Docker's manner.

On a terminal each layer has a line of its own, with a bar that is drawn anew in place; elsewhere a line is printed when
something has happened, never for a step.
"""

from __future__ import annotations

import os
import time

from minirt import units

_BAR = 50
_EVERY = 0.1  # seconds between two drawings of a bar


class Progress:
    """Tells about layers by name. `quiet`: nothing at all."""

    def __init__(self, quiet: bool = False, descriptor: int = 2) -> None:
        self._quiet, self._descriptor = quiet, descriptor
        self._terminal = not quiet and os.isatty(descriptor)
        self._lines: list[str] = []
        self._said: dict[str, str] = {}
        self._drawn = 0.0

    def line(self, text: str) -> None:
        """A line of its own."""
        self._write(text + "\n")
        self._lines.clear()

    def say(self, name: str, status: str) -> None:
        """That a layer has come to `status`."""
        if self._said.get(name) == status:
            return
        self._said[name] = status
        if self._terminal:
            self._draw(name, status)
        else:
            self._write(f"{name}: {status}\n")

    def step(self, name: str, action: str, done: int, size: int) -> None:
        """How far a layer is: shown on a terminal, some times a second."""
        if not self._terminal or time.monotonic() - self._drawn < _EVERY:
            return
        self._drawn = time.monotonic()
        filled = _BAR * done // max(size, 1)
        bar = ("=" * filled + ">")[:_BAR].ljust(_BAR)
        self._draw(name, f"{action}  [{bar}]  {units.human_size(done)}/{units.human_size(size)}")

    def _draw(self, name: str, text: str) -> None:
        if name not in self._lines:
            self._lines.append(name)
            self._write("\n")
        up = len(self._lines) - self._lines.index(name)
        self._write(f"\x1b[{up}A\r\x1b[2K{name}: {text}\x1b[{up}B\r")

    def _write(self, text: str) -> None:
        if not self._quiet:
            try:
                os.write(self._descriptor, text.encode())
            except OSError:
                self._quiet = True  # nobody listens: no reason to stop

"""Chapter 14, beyond: what is told while layers come and go: in Docker's manner, the layers themselves on stderr.

Elsewhere than on a terminal a line is printed when something has happened, never for a step. On a terminal each layer
has a line of its own, drawn anew in place; several processes have something to tell there (workers.py), so one of its
own draws, and hears from the others by a pipe.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from minirt import state, units
from minirt.kernel import process

_BAR = 50
_EVERY = 0.1  # seconds between two drawings of a layer's bar


class Progress:
    """Tells about layers by name. `quiet`: nothing at all. What was told by `say` and `step` is there after `close`.

    `show` writes a line that is no layer's; without it, it goes where the layers go.
    """

    def __init__(self, quiet: bool = False, descriptor: int = 2, show: Callable[[str], None] | None = None) -> None:
        self._quiet, self._descriptor, self._show = quiet, descriptor, show or self._write
        self._terminal = not quiet and os.isatty(descriptor)
        self._drawer, self._speak = 0, -1
        self._told: dict[str, float] = {}

    def line(self, text: str) -> None:
        """A line of its own, below all others."""
        self.close()
        if not self._quiet:
            self._show(text + "\n")

    def warn(self, text: str) -> None:
        """A warning, where the layers go."""
        self.close()
        self._write(f"WARNING: {text}\n")

    def say(self, name: str, status: str) -> None:
        """That a layer has come to `status`."""
        if self._terminal:
            self._tell(name, status)
        else:
            self._write(f"{name}: {status}\n")

    def step(self, name: str, action: str, done: int, size: int) -> None:
        """How far a layer is: shown on a terminal, some times a second."""
        now = time.monotonic()
        if self._terminal and now - self._told.get(name, 0.0) > _EVERY:
            self._told[name] = now
            filled = _BAR * done // max(size, 1)
            bar = ("=" * filled + ">")[:_BAR].ljust(_BAR)
            self._tell(name, f"{action}  [{bar}]  {units.human_size(done)}/{units.human_size(size)}")

    def open(self) -> None:
        """Begin to draw, before the processes that tell are forked."""
        if self._terminal and not self._drawer:
            hear, self._speak = os.pipe()
            self._drawer = process.fork_call(lambda: self._draw(hear))
            os.close(hear)

    def close(self) -> None:
        """Wait until everything is drawn."""
        if self._drawer:
            os.close(self._speak)
            process.wait(self._drawer)
            self._drawer = 0

    def _tell(self, name: str, text: str) -> None:
        self.open()
        os.write(self._speak, state.dumps([name, text]).encode() + b"\n")

    def _draw(self, hear: int) -> int:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when all have ended who tell
        os.close(self._speak)
        names: list[str] = []
        with open(hear) as told:
            for line in told:
                name, text = state.loads(line)
                if name not in names:
                    names.append(name)
                    self._write("\n")
                up = len(names) - names.index(name)
                self._write(f"\x1b[{up}A\r\x1b[2K{name}: {text}\x1b[{up}B\r")
        return 0

    def _write(self, text: str) -> None:
        if not self._quiet:
            try:
                os.write(self._descriptor, text.encode())
            except OSError:
                self._quiet = True  # nobody listens: no reason to stop

"""Chapter 17: the user's own terminal while a container with a terminal is attached to it.

It must be raw: no echo, no line editing, no signals from keys, since all of that happens on the container's side. And
it must be given back as it was, however the command ends: by itself, by a signal, or by SIGKILL. So the settings
are also told to the monitor, which gives them back when the command dies without a word. The container's terminal
gets the size of the user's before its program can ask for it.

Manual pages: termios(3), tty_ioctl(4).
"""

from __future__ import annotations

import _signal
import os
import termios

from minirt.process import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

HUP, INT, QUIT, TERM, WINCH = 1, 2, 3, 15, 28  # signal(7)


class Screen:
    """The user's terminal, raw until `give_back`, also when a signal ends this process meanwhile.

    `descriptor`: the terminal. `resized`: called when its window has changed its size. `told`: the settings that it had
    before, as JSON can carry them. Raises termios.error.
    """

    def __init__(self, descriptor: int, resized: Callable[[], None]) -> None:
        self.descriptor = descriptor
        self._settings: list[Any] | None = None
        for number in (HUP, INT, QUIT, TERM):
            _signal.signal(number, self.on_death)
        _signal.signal(WINCH, lambda number, frame: resized())
        self._settings, self.told = make_raw(descriptor)

    def give_back(self) -> None:
        """Gives the terminal back, once."""
        if self._settings is not None:
            settings, self._settings = self._settings, None
            restore(self.descriptor, settings)

    def on_death(self, number: int, frame: Any) -> None:
        """A signal that ends this process: first the terminal, then as if it had never been caught."""
        self.give_back()
        _signal.signal(number, _signal.SIG_DFL)
        os.kill(os.getpid(), number)


def make_raw(descriptor: int) -> tuple[list[Any], list[Any]]:
    """Makes the terminal raw. Returns its settings before, and the same as JSON can carry them. Raises
    termios.error.
    """
    before = terminal.make_raw(descriptor)
    return before, [*before[:6], [list(each) if isinstance(each, bytes) else each for each in before[6]]]


def restore(descriptor: int, settings: list[Any]) -> None:
    """Gives the terminal its settings back; nothing happens when it is gone."""
    try:
        terminal.restore(descriptor, settings)
    except termios.error:
        pass


def follow(master: int, other: int) -> None:
    """Gives the container's terminal the size of the user's, `other`; nothing happens when that is no terminal."""
    try:
        terminal.resize(master, *terminal.size(other))
    except OSError:
        pass


def restore_after_death(descriptor: int, told: list[Any]) -> None:
    """The same for a client that was killed: only if the terminal is still raw, since a shell may have been
    quicker.
    """
    try:
        now = termios.tcgetattr(descriptor)
        if not now[3] & (termios.ICANON | termios.ECHO):
            restore(descriptor, [*told[:6], [bytes(each) if isinstance(each, list) else each for each in told[6]]])
    except termios.error:
        pass

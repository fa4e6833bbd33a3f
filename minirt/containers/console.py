"""Chapter 17: the user's own terminal while a container with a terminal is attached to it.

It must be raw: no echo, no line editing, no signals from keys, since all of that happens on the container's side. And
it must be given back as it was, however the command ends: by itself, by a signal, or by SIGKILL. So the settings
are also told to the monitor, which gives them back when the command dies without a word. The container's terminal
gets the size of the user's before its program can ask for it.

Manual pages: termios(3), tty_ioctl(4).
"""

from __future__ import annotations

import termios

from minirt.process import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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

"""Chapter 12: terminals: a pair of devices, one end for the program, one for whoever watches it.

What is written to the *master* arrives at the program as if typed, and what the program writes comes out there; between
them the kernel echoes, edits lines and turns Ctrl-C into a signal. The user's own terminal must then do none of that:
*raw* mode. The pair is made by the container's own devpts, so that the program finds its terminal under a name that
exists in its /dev.

Manual pages: pty(7), ioctl_tty(2), termios(3).
"""

from __future__ import annotations

import fcntl
import os
import termios

from minirt.errors import KernelError
from minirt.kernel import mount, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PTY_SLAVE = 136           # <linux/major.h>: UNIX98_PTY_SLAVE_MAJOR
TIOCSPTLCK = 0x40045431   # <asm-generic/ioctls.h>
TIOCGPTN = 0x80045430
TIOCGPTPEER = 0x5441
TIOCSCTTY = 0x540E
TIOCGWINSZ = 0x5413
TIOCSWINSZ = 0x5414


def open_pair(root: int) -> tuple[int, int]:
    """Open a pty of the devpts at /dev/pts below `root`; return (master, slave), both close-on-exec. Raises OSError.

    The slave is opened through the master (TIOCGPTPEER), not by a path of the container.
    """
    master = paths.open_in_root(root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(master, TIOCSPTLCK, (0).to_bytes(4, "little"))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave


def attach_console(root: int, master: int) -> None:
    """Put the pty's slave at /dev/console below `root` as a bind mount, as runc does. Raises OSError, and
    KernelError when what lies at /dev/pts is not that slave."""
    number = int.from_bytes(fcntl.ioctl(master, TIOCGPTN, bytes(4)), "little")
    directory = paths.open_in_root(root, "/dev/pts", os.O_PATH | os.O_DIRECTORY)
    tree = mount.clone(str(number), directory)
    if os.fstat(tree).st_rdev != os.makedev(PTY_SLAVE, number):
        raise KernelError(f"/dev/pts/{number} is not the terminal that was just opened")
    target = paths.make_mount_point(root, "/dev/console", directory=False)
    mount.move_mount(tree, target)
    for descriptor in (directory, tree, target):
        os.close(descriptor)


def control(slave: int) -> None:
    """Make the terminal `slave` the controlling one of this session, whose leader this process must be."""
    fcntl.ioctl(slave, TIOCSCTTY, 0)


def size(terminal: int) -> tuple[int, int]:
    """(rows, columns) of a terminal. Raises OSError when it is none."""
    answer = fcntl.ioctl(terminal, TIOCGWINSZ, bytes(8))
    return int.from_bytes(answer[0:2], "little"), int.from_bytes(answer[2:4], "little")


def resize(terminal: int, rows: int, columns: int) -> None:
    """Tell the terminal (and by SIGWINCH its foreground programs) its new size."""
    fcntl.ioctl(terminal, TIOCSWINSZ, rows.to_bytes(2, "little") + columns.to_bytes(2, "little") + bytes(4))


def make_raw(terminal: int) -> list[Any]:
    """Switch a terminal to raw mode (cfmakeraw(3)); return the former settings, for `restore`."""
    before = termios.tcgetattr(terminal)
    settings = [*before[:6], list(before[6])]
    settings[0] &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
                     | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
    settings[1] &= ~termios.OPOST
    settings[2] = settings[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    settings[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0
    termios.tcsetattr(terminal, termios.TCSADRAIN, settings)
    return before


def restore(terminal: int, settings: list[Any]) -> None:
    """Give a terminal back the settings that `make_raw` returned."""
    termios.tcsetattr(terminal, termios.TCSADRAIN, settings)

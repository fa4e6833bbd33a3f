"""Chapter 12: `--init`: an init of ours (chapter 03) between the kernel and the command.

It is number 1 of the container, forwards signals and reaps orphans; the command is number 2. The command gets a process
group of its own and the terminal, so that Ctrl-C reaches it once, from the terminal, and not twice.

Manual pages: setpgid(2), tcsetpgrp(3).
"""

from __future__ import annotations

import _signal
import os

from minirt.kernel import process
from minirt.namespaces import pid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def run(command: Callable[[], int | None], close: Sequence[int]) -> int:
    """Be the init of `command`, which ends in exec; `close` are descriptors that are the command's alone."""
    process.set_name("minirt-init")

    def in_its_own_group() -> int | None:
        os.setpgid(0, 0)
        if os.isatty(0):
            _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGTTOU])  # a background process may not ask for it
            os.tcsetpgrp(0, os.getpgrp())
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGTTOU])
        return command()

    return pid.init(in_its_own_group, close)

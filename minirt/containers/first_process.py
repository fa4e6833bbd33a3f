"""Chapter 17: the container's first process, held so that it cannot be mistaken for another.

A pid read from a file may belong to somebody else by the time it is used. So it is first turned into a pidfd, then
the process's start time is compared with the recorded one, and only then anything goes through the pidfd, which
never means another process.

Manual pages: pidfd_open(2), pidfd_send_signal(2), proc(5) "starttime".
"""

from __future__ import annotations

import os

from minirt import state, trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minirt.containers.record import Container

CHAPTER = 17
SIGKILL = 9  # signal(7)
POLLIN = 1  # <poll.h>: a pidfd is readable when its process has ended


def hold(container: Container) -> int:
    """A pidfd of the container's first process, -1 when it has ended."""
    running = container.running()
    if running is None:
        return -1
    try:
        pidfd = os.pidfd_open(running["pid"]["pid"])
    except ProcessLookupError:
        return -1
    if state.alive(running["pid"]):
        return pidfd
    os.close(pidfd)
    return -1


@trace.narrated(CHAPTER, "send signal {number} to the container's first process", "pidfd_send_signal(pidfd, {number})")
def send(pidfd: int, number: int) -> None:
    """Sends a signal; nothing happens when the process has ended meanwhile."""
    from minirt.kernel import process  # which `ps` and `rm` do without

    try:
        process.send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def wait(pidfd: int, seconds: float) -> bool:
    """Waits until the process has ended, at most that long (negative: for ever). Returns whether it has."""
    import select

    poller = select.poll()
    poller.register(pidfd, POLLIN)
    return bool(poller.poll(None if seconds < 0 else seconds * 1000))

"""Chapter 17: how a running container is brought to its end: stop, kill; and how it is made to stand still: pause.

Whoever stops a container first calls its monitor, so as to be told how it ended, and only then sends the signal: the
other way round the monitor could be gone before it hears. When a container does not end in time, it is killed.

Manual pages: signal(7), cgroups(7) "freezer".
"""

from __future__ import annotations

import os
import time

from minirt import state
from minirt.cgroups import tree
from minirt.containers import first_process, peer, record, repair
from minirt.containers.first_process import SIGKILL
from minirt.errors import ConflictError

GRACE = 10  # seconds between the stop signal and SIGKILL, as in Docker


def not_running(container: record.Container, doing: str) -> ConflictError:
    """Docker's sentence for what needs a running container."""
    return ConflictError(f"cannot {doing} container: {container.name}: container {container.id} is not running")


class Ending:
    """A container that is asked to end. Several may be asked, one after the other, before the first is waited for.

    `number`: the signal that asks. `seconds`: how long it may take before it is killed, negative for as long as it
    wants. `word`: what its monitor is told: "wait", or "remove" when it shall remove the container at its end.
    """

    __slots__ = ("_deadline", "_ear", "_pidfd", "_word", "container")

    def __init__(self, container: record.Container, number: int, seconds: float, word: str = "wait") -> None:
        self.container, self._word = container, word
        self._ear: peer.Ear | None = None
        self._deadline = time.monotonic() + seconds if seconds >= 0 else None
        self._pidfd = first_process.hold(container)
        if self._pidfd < 0:
            return
        channel = peer.connect(container, {word: 1}, ())
        self._ear = peer.Ear(channel) if channel >= 0 else None
        if record.derive(container).status == "paused":
            try:
                pause(container, False)
            except ConflictError:
                pass  # somebody else was quicker
        first_process.send(self._pidfd, number)
        container.tell("kill", signal=number)

    @property
    def running(self) -> bool:
        """Whether the container ran when it was asked."""
        return self._pidfd >= 0

    def wait(self) -> None:
        """Waits for the end, and until it is written down, or removed; kills when the time is up. A container that was
        not running is repaired.
        """
        if self.running:
            left = -1 if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            if not first_process.wait(self._pidfd, left):
                first_process.send(self._pidfd, SIGKILL)
                self.container.tell("kill", signal=SIGKILL)
                first_process.wait(self._pidfd, -1)
            os.close(self._pidfd)
        if not (self._ear and self._hears(self._ear)):
            settle(self.container)

    def _hears(self, ear: peer.Ear) -> bool:
        """Listens until the monitor tells the exit code, or, where it removes the container, until its own end: then
        the cgroup and the files are gone, too. Returns whether the exit code came.
        """
        told = False
        while (messages := ear.hear()) is not None:
            told = told or any("exit" in message for message in messages)
            if told and self._word == "wait":
                break
        os.close(ear.descriptor)
        return told


class Stop(Ending):
    """A container that is stopped as `minirt stop` does.

    `timeout`: seconds, negative for no limit; None for what the container was made with, else `GRACE`. `signal`:
    instead of the one it or its image was made with, else SIGTERM.
    """

    __slots__ = ()

    def __init__(self, container: record.Container, timeout: int | None = None, signal: str = "") -> None:
        from minirt.process import signals

        config = container.config["Config"]
        if timeout is None:
            timeout = GRACE if config["StopTimeout"] is None else config["StopTimeout"]
        super().__init__(container, signals.number(signal or config["StopSignal"] or "TERM"), timeout)

    def wait(self) -> None:
        """As for any ending; then tells it to those who watch events."""
        super().wait()
        if self.running:
            self.container.tell("stop")


def kill(container: record.Container, signal: str = "KILL") -> None:
    """Sends a signal to the container's first process, and waits for the end when it is SIGKILL. Raises ConflictError
    when the container is not running.
    """
    from minirt.process import signals

    number = signals.number(signal)
    if number == SIGKILL:
        ending = Ending(container, SIGKILL, -1)
        ending.wait()
        if ending.running:
            return
    pidfd = first_process.hold(container)
    if pidfd < 0:
        settle(container)
        raise not_running(container, "kill")
    first_process.send(pidfd, number)
    os.close(pidfd)
    container.tell("kill", signal=number)


def settle(container: record.Container, patience: float = 10.0) -> None:
    """Waits until the monitor of a container whose process has ended has written down how; repairs when it is
    gone.
    """
    deadline = time.monotonic() + patience
    pause = 0.0005
    while container.running() is not None:
        if not state.locked(container.lock_path):
            if os.path.isdir(container.directory):
                repair.hold(container).release()
            return
        if time.monotonic() > deadline:
            raise ConflictError(f"the monitor of container {container.name} does not come to its end")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def pause(container: record.Container, frozen: bool) -> None:
    """Makes all processes of a running container stand still where they are, or lets them go on. Raises ConflictError
    when it does not run, or does so already.
    """
    now = record.derive(container)
    doing = "pause" if frozen else "unpause"
    if not now.alive:
        raise not_running(container, doing)
    if frozen == (now.status == "paused"):
        raise ConflictError(f"Container {container.id} is {'already' if frozen else 'not'} paused")
    try:
        tree.group(container.group_name).freeze(frozen)
    except FileNotFoundError:
        raise not_running(container, doing) from None
    container.tell(doing)

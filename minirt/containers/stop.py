"""Chapter 17: signals to a running container: stop, kill, pause.

A pid read from a file may belong to somebody else by the time it is used. So it is first turned into a pidfd, then
the process's start time is compared with the recorded one, and only then the signal goes through the pidfd, which
never means another process.

Manual pages: pidfd_open(2), pidfd_send_signal(2), proc(5) "starttime", cgroups(7).
"""

from __future__ import annotations

import _signal
import os
import time

from minirt import state, trace
from minirt.cgroups import tree
from minirt.containers import record, repair
from minirt.errors import ConflictError

TYPE_CHECKING = False

CHAPTER = 17
GRACE = 10  # seconds between the stop signal and SIGKILL, as in Docker
KILL, CONT = 9, 18


def open_process(container: record.Container) -> int:
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


def not_running(container: record.Container, doing: str) -> ConflictError:
    """Docker's sentence for what needs a running container."""
    return ConflictError(f"cannot {doing} container: {container.name}: container {container.id} is not running")


@trace.narrated(CHAPTER, "send signal {number} to the container's first process", "pidfd_send_signal(pidfd, {number})")
def send(pidfd: int, number: int) -> None:
    """Sends a signal; nothing happens when the process has ended meanwhile."""
    try:
        _signal.pidfd_send_signal(pidfd, number)  # type: ignore[attr-defined]
    except ProcessLookupError:
        pass


def stop(container: record.Container, timeout: int | None = None, signal: str = "") -> None:
    """Asks a container to end, and kills it when it has not done so in time.

    `timeout`: seconds, negative for no limit; None for what the container was made with, else `GRACE`. `signal`:
    instead of the one it or its image was made with, else SIGTERM. A container that is not running is left as it
    is, repaired.
    """
    Ending(container, signal, timeout).wait()


class Ending:
    """A container that was asked to end. Several may be asked, one after the other, before the first is waited for.

    `remove`: its monitor shall remove it at its end. `killed`: this is no stop, for those who watch events. The other
    arguments are those of `stop`.
    """

    __slots__ = ("_container", "_deadline", "_ear", "_killed", "_pidfd", "_remove")

    def __init__(
        self, container: record.Container, signal: str = "", timeout: int | None = None, remove: bool = False,
        killed: bool = False,
    ) -> None:
        from minirt.containers import client
        from minirt.containers.peer import Ear
        from minirt.process import signals

        config = container.config["Config"]
        number = signals.number(signal or config["StopSignal"] or "TERM")
        if timeout is None:
            timeout = GRACE if config["StopTimeout"] is None else config["StopTimeout"]
        self._container, self._remove, self._killed = container, remove, killed
        self._ear: Ear | None = None
        self._pidfd = open_process(container)
        self._deadline = time.monotonic() + timeout if timeout >= 0 else None
        if self._pidfd >= 0:
            channel = client.connect(container, {"remove" if remove else "wait": 1}, ())
            self._ear = Ear(channel) if channel >= 0 else None
            if record.derive(container).status == "paused":
                pause(container, False)
            send(self._pidfd, number)
            container.tell("kill", signal=number)

    def wait(self) -> bool:
        """Waits for the end, kills when the time is up. Returns whether the container is gone altogether, which it is
        when its monitor was to remove it, and did."""
        if self._pidfd >= 0:
            left = -1 if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            if not wait_for(self._pidfd, left):
                send(self._pidfd, KILL)
                self._container.tell("kill", signal=KILL)
                wait_for(self._pidfd, -1)
            os.close(self._pidfd)
        told = False
        if self._ear is not None:
            while (messages := self._ear.hear()) is not None:
                told = told or any("exit" in message for message in messages)
                if told and not self._remove:
                    break  # else to the end of the monitor: then its cgroup and its files are gone, too
            os.close(self._ear.descriptor)
        if not told:
            settle(self._container)
        if self._pidfd >= 0 and not (self._remove or self._killed):
            self._container.tell("stop")
        return self._remove and not os.path.isdir(self._container.directory)


def kill(container: record.Container, signal: str = "KILL") -> None:
    """Sends a signal to the container's first process. Raises ConflictError when it is not running."""
    from minirt.process import signals

    number = signals.number(signal)
    pidfd = open_process(container)
    if pidfd < 0:
        settle(container)
        raise not_running(container, "kill")
    if number == KILL:
        Ending(container, signal, -1, killed=True).wait()
    else:
        send(pidfd, number)
        container.tell("kill", signal=number)
    os.close(pidfd)


def wait_for(pidfd: int, seconds: float) -> bool:
    """Waits until the process has ended, at most that long (negative: for ever). Returns whether it has."""
    import select

    poller = select.poll()
    poller.register(pidfd, 1)  # POLLIN
    return bool(poller.poll(None if seconds < 0 else seconds * 1000))


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
    """Stops all processes of a running container where they are, or lets them go on. Raises ConflictError."""
    now = record.derive(container)
    running = container.running()
    doing = "pause" if frozen else "unpause"
    if running is None or not now.alive:
        raise not_running(container, doing)
    if frozen == (now.status == "paused"):
        raise ConflictError(f"Container {container.id} is {'already' if frozen else 'not'} paused")
    tree.group(container.group_name).freeze(frozen)
    running["paused"] = frozen
    state.write_json(f"{container.run_directory}/running.json", running, sync=False)
    container.tell(doing)

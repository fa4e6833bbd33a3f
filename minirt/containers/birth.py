"""Chapter 17: how a monitor is born.

`run` forks its monitor before it does anything else, even before it has read its own options. From then on there are
two processes, on two cores, with the same small memory: the command loads its own module, reads the options, looks up
the image and puts the configuration together; the monitor takes the lock and loads what walls are built with. Then
the command says `{"begin": CONFIGURATION}`. If it finds nothing to begin, because an option was wrong or the image is
missing, it hangs up, and the monitor takes back what it made and ends.

Rules of this room: only what both will need is imported before the fork, so that it is loaded once.
Manual pages: fork(2), setsid(2), pipe(7), sigprocmask(2).
"""

from __future__ import annotations

import _signal
import os

from minirt import state, trace
from minirt.containers import powers, record
from minirt.containers.peer import Ear, say
from minirt.errors import MinirtError, place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirt.state import Lock

CHAPTER = 17

_waiting: Line | None = None


class Line:
    """The command's line to a monitor: `id` of the container, `hear` and `speak`, the descriptors."""

    __slots__ = ("_ear", "_filter", "hear", "id", "speak")

    def __init__(self, id: str, hear: int, speak: int) -> None:
        self.id, self.hear, self.speak = id, hear, speak
        self._ear: Ear | None = None

    @property
    def ear(self) -> Ear:
        """What hears the monitor's messages."""
        if self._ear is None:
            self._ear = Ear(self.hear)
        return self._ear

    def locked(self) -> str:
        """Waits until the monitor of a new container holds its lock; returns the container's id. Raises
        MinirtError.
        """
        for message in self.ear.hear() or [{"error": "the monitor of the container was lost"}]:
            if "error" in message:
                raise MinirtError(message["error"])
        return self.id

    def begin(self, config: dict[str, Any], streams: tuple[bool, bool, bool], detached: bool, keys: str) -> None:
        """Tells the monitor what to start, and assembles the system call filter while the monitor builds. `streams`:
        whether our standard input, output and error are attached. `detached`: nobody stays to wait for the end.
        `keys`: those by which one leaves a terminal. Raises BadInputError for a filter that cannot be.
        """
        say(self.speak, {"begin": config, "streams": streams, "detached": detached, "keys": keys})
        try:
            self._filter = powers.system_call_filter(config["HostConfig"])
        except BaseException:
            self.dismiss()
            raise

    def let_run(self) -> None:
        """Hands over the filter, behind which the command begins: everything must be ready for what it does then."""
        say(self.speak, {"filter": self._filter.hex()})

    def close(self) -> None:
        """Hangs up."""
        os.close(self.speak)
        os.close(self.hear)

    def dismiss(self) -> None:
        """There is nothing to begin: hangs up and waits until the monitor has taken back what it made."""
        os.close(self.speak)
        while self.ear.hear() is not None:
            pass
        os.close(self.hear)


def ahead() -> None:
    """Forks the monitor of a container that is still to be made; `take` hands it out."""
    global _waiting
    _waiting = fork(os.urandom(32).hex())


def take() -> Line:
    """The monitor that was forked ahead, or one that is forked now."""
    global _waiting
    line, _waiting = _waiting, None
    return line or fork(os.urandom(32).hex())


def dismiss_unused() -> None:
    """Dismisses the monitor that was forked ahead, if nobody took it."""
    global _waiting
    line, _waiting = _waiting, None
    if line is not None:
        line.dismiss()


def fork(id: str, lock: Lock | None = None) -> Line:
    """Forks the monitor of the container `id` and returns the line to it.

    `lock`: the container's, when it exists already and the caller holds it: the monitor keeps a copy, and a flock
    is free when its last copy is closed. Without one the container is new, and the monitor makes its run directory
    and takes its lock. All signals are blocked when this returns: one that comes now waits until the command knows
    whom to forward it to.
    """
    hear, speak = os.pipe()
    heard, spoken = os.pipe()
    _signal.pthread_sigmask(_signal.SIG_SETMASK, _signal.valid_signals())
    if os.fork() == 0:
        code = 1
        try:
            os.close(hear)
            os.close(spoken)
            be_born()
            fresh = lock is None
            if lock is None:  # before anything is loaded: the command waits for it
                lock = take_lock(record.Container(id, {}))
                say(speak, {"locked": id})
            from minirt.containers import monitor

            code = monitor.Monitor(id, lock, fresh, heard, speak).live()
        except BaseException as error:
            what = f"a mistake in minirt itself ({type(error).__name__}: {error}; {place_of(error)})"
            if isinstance(error, OSError):
                what = f"{error.strerror}: {error.filename}"
            os.write(speak, state.dumps({"error": what, "code": 125}).encode() + b"\n")
        finally:
            os._exit(code)
    os.close(heard)
    os.close(speak)
    return Line(id, hear, spoken)


@trace.narrated(CHAPTER, "take the lock of the container, for as long as it lives", "flock(LOCK_EX)")
def take_lock(container: record.Container) -> Lock:
    """Makes the run directory of a new container and takes its lock, in this order before anything else of it exists.
    """
    return container.first_lock()


def be_born() -> None:
    """Cuts the ties to the command: a session of its own, no working directory, signals as a new program finds
    them.
    """
    os.setsid()
    os.chdir("/")
    for number in range(1, 32):
        # `nohup`, a shell's `&` and Python itself ignore some; the container would inherit that through exec.
        if number not in (9, 13, 19, 25) and _signal.getsignal(number) is not _signal.SIG_DFL:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())

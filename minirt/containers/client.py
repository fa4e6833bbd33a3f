"""Chapter 17: the attached client: the command itself, after it has forked the monitor or has connected to one.

It has handed over its descriptors and sleeps until the exit code comes. Meanwhile it does three things that only the
process in the user's terminal can do: it forwards the signals it gets, keeps the terminal raw and gives it back, and
tells when the window changes its size. It may be killed: the container stays.

Manual pages: signal(7), sigaction(2), unix(7).
"""

from __future__ import annotations

import _signal
import os

from minirt import state
from minirt.containers.peer import KEYS, Ear, connect, say
from minirt.errors import ConflictError, MinirtError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from minirt.containers.console import Screen
    from minirt.containers.record import Container

INT, PIPE, TERM = 2, 13, 15
# Not forwarded, as in Docker: what tells of our own children, pipes and mistakes, or is about our own terminal.
OURS = (4, 5, 7, 8, 9, 11, 13, 17, 19, 21, 22, 23, 28, 32, 33)
FORWARDED = tuple(number for number in range(1, 65) if number not in OURS)
PATIENCE = 3  # so many interrupts that the container ignores make the client leave


def nothing() -> None:
    """Tells nothing."""


class Client:
    """One attachment: a context in which the user's terminal is raw. Signals are blocked from its beginning until
    `attend`.

    `terminal`: the descriptor of the user's terminal, to be made raw; -1 without. `forward`: signals go to the
    container. `tell`: prints the narration so far.
    """

    def __init__(self, *, terminal: int = -1, forward: bool = False, tell: Callable[[], None] = nothing) -> None:
        self.terminal = terminal
        self.forward = forward and terminal < 0
        self.tell = tell
        self.screen: Screen | None = None
        self.interrupts = 0
        self.id = ""

    def __enter__(self) -> Client:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, _signal.valid_signals())
        if self.terminal >= 0:
            from minirt.containers import console

            self.screen = console.Screen(self.terminal, self.tell_size)
        return self

    def __exit__(self, kind: object, error: object, at: object) -> None:
        self.give_back()

    def meet(self, ear: Ear, speak: int) -> None:
        """Speaks from now on with the monitor that is behind these, and tells it how the terminal was and what size it
        has.
        """
        self.ear, self.speak = ear, speak
        if self.screen is not None:
            say(speak, {"raw": self.screen.told})
            self.tell_size()

    def attend(self, until: str) -> int:
        """Stays until the message `until` (started, exit) has come. Returns the container's exit code, or 0.

        Raises MinirtError with what the monitor says went wrong.
        """
        if self.forward:
            for number in FORWARDED:
                _signal.signal(number, self.on_signal)
        elif self.screen is None:
            _signal.signal(INT, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        return self.listen(until)

    def listen(self, until: str) -> int:
        """Hears and answers messages until the one named `until`."""
        while True:
            messages = self.ear.hear()
            if messages is None:
                raise MinirtError("the monitor of the container was lost; `minirt ps -a` shows what is left")
            for message in messages:
                if "walls" in message:
                    self.tell()
                    say(self.speak, {"go": 1})
                elif "error" in message:
                    self.give_back()
                    error = MinirtError(message["error"])
                    error.exit_code = message["code"]
                    raise error
                elif "left" in message:
                    self.give_back()
                    os.write(2, b"read escape sequence\n")
                    return 0
                elif "broken" in message:
                    self.give_back()
                    _signal.signal(PIPE, _signal.SIG_DFL)
                    os.kill(os.getpid(), PIPE)
                elif "started" in message:
                    self.id = message["started"]
                    if until == "started":
                        return 0
                elif "exit" in message:
                    return int(message["exit"])

    def on_signal(self, number: int, frame: Any) -> None:
        """A signal for the container."""
        say(self.speak, {"signal": number})
        if number in (INT, TERM):
            self.interrupts += 1
            if self.interrupts >= PATIENCE:
                os.write(2, b"\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n")
                os._exit(1)

    def tell_size(self) -> None:
        """Tells what size the window has."""
        from minirt.process import terminal

        try:
            say(self.speak, {"size": list(terminal.size(self.terminal))})
        except OSError:
            pass

    def give_back(self) -> None:
        """Gives the terminal back."""
        if self.screen is not None:
            self.screen.give_back()


def run(asked: Mapping[str, Any], arguments: Sequence[str], tell: Callable[[], None] = nothing) -> int:
    """Makes and starts a container, as `minirt run` does: attached until its end, or until it runs (`--detach`).

    `asked`: option values by long name. `arguments`: image and command line. `tell`: prints the narration so far.
    Returns the exit code of the container's process, 0 when detached. Raises MinirtError.
    """
    from minirt.containers import birth, create, files

    detached, tty = asked["detach"], asked["tty"]
    streams = chosen_streams(asked)
    if tty and streams[0] and not os.isatty(0):
        raise MinirtError("cannot attach stdin to a TTY-enabled container because stdin is not a terminal")
    if asked["cidfile"]:
        check_cidfile(asked["cidfile"])
    line = birth.take()
    try:
        container = create.make(asked, arguments, line.locked())
        if asked["cidfile"]:
            state.write_atomic(os.path.abspath(asked["cidfile"]), container.id.encode(), sync=False)
        files.write(container)
    except BaseException:
        line.dismiss()
        raise
    line.begin(container.config, streams, detached, asked["detach-keys"] or KEYS)
    client = Client(terminal=0 if tty and streams[0] else -1, forward=asked["sig-proxy"] and not tty, tell=tell)
    with client:
        client.meet(line.ear, line.speak)
        line.let_run()
        code = client.attend("started" if detached else "exit")
    if detached:
        os.write(1, client.id.encode() + b"\n")
    return code


def chosen_streams(asked: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    """Which of our streams `run` attaches: all (input only with `-i`), those of `--attach`, or none with `--detach`.

    Raises ConflictError when both were asked for.
    """
    if asked["detach"]:
        if asked["attach"]:
            raise ConflictError("conflicting options: cannot specify both --attach and --detach")
        return False, False, False
    if not asked["attach"]:
        return asked["interactive"], True, True
    return asked["interactive"] and "stdin" in asked["attach"], "stdout" in asked["attach"], "stderr" in asked["attach"]


def check_cidfile(path: str) -> None:
    """Raises ConflictError when the file of `--cidfile` exists, in Docker's words."""
    if os.path.lexists(path):
        raise ConflictError(
            f"container ID file found, make sure the other container isn't running or delete {path}"
        )
    if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise NotFoundError(f"failed to create the container ID file: open {path}: no such file or directory")


def start(
    container: Container,
    *,
    tell: Callable[[], None],
    attach: bool = False,
    interactive: bool = False,
    forward: bool = False,
    keys: str = "",
) -> int:
    """Starts a container that exists and is not running. Returns its exit code when attached, else 0. Raises
    MinirtError.
    """
    from minirt.containers import birth, files, record, repair

    lock = repair.hold(container)
    container = record.load(container.id)  # as it is under the lock
    tty = container.config["Config"]["Tty"]
    stdin = interactive and container.config["Config"]["OpenStdin"]
    if tty and stdin and not os.isatty(0):
        lock.release()
        raise MinirtError("cannot attach stdin to a TTY-enabled container because stdin is not a terminal")
    detached = not (attach or stdin)
    line = birth.fork(container.id, lock)
    lock.release()
    files.write(container)
    line.begin(container.config, (stdin, attach, attach), detached, keys or KEYS)
    with Client(terminal=0 if tty and stdin else -1, forward=forward and not tty, tell=tell) as client:
        client.meet(line.ear, line.speak)
        line.let_run()
        code = client.attend("started" if detached else "exit")
    line.close()
    return code


def attach(container: Container, *, stdin: bool, forward: bool, keys: str) -> int:
    """Attaches this process's streams to a running container. Returns its exit code. Raises MinirtError."""
    tty = container.config["Config"]["Tty"]
    stdin = stdin and container.config["Config"]["OpenStdin"]
    if tty and stdin and not os.isatty(0):
        raise MinirtError("cannot attach stdin to a TTY-enabled container because stdin is not a terminal")
    with Client(terminal=0 if tty and stdin else -1, forward=forward and not tty) as client:
        channel = connect(container, {"attach": [stdin, True, True], "keys": keys or KEYS}, (0, 1, 2))
        if channel < 0:
            raise ConflictError("You cannot attach to a stopped container, start it first")
        client.meet(Ear(channel), channel)
        return client.attend("exit")


def wait(container: Container) -> int:
    """Waits for the end of a container's run and returns its exit code; at once when it is not running. Raises
    NotFoundError when it was removed before anybody could tell.
    """
    from minirt.containers import record

    channel = connect(container, {"wait": 1}, ())
    if channel >= 0:
        client = Client()
        client.meet(Ear(channel), channel)
        try:
            return client.listen("exit")
        except MinirtError:
            pass  # its monitor was killed, or had told everybody just before
        finally:
            os.close(channel)
    if not os.path.isdir(container.directory):
        raise NotFoundError(f"No such container: {container.id}")
    return record.derive(container).code

"""Chapter 17: one more command in a running container, as `exec` runs it.

The walls stand; chapter 12's `join` gets a process behind them. It is a child of this command, not of the container's
monitor, and its pipes or terminal end here: what it prints is copied to our own output, what we read goes to it. Our
own descriptors never get behind the walls.

Manual pages: setns(2), poll(2), pty(7).
"""

from __future__ import annotations

import os
import select

from minirt import state
from minirt.cgroups import tree
from minirt.containers import first_process, powers, record, specify, streams
from minirt.containers.peer import KEYS
from minirt.errors import CannotInvokeError, ConflictError, MinirtError
from minirt.kernel import process
from minirt.process import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from minirt.process.handle import Handle

POLLIN, POLLOUT = 1, 4  # <poll.h>


def specification(container: record.Container, asked: Mapping[str, Any], command: Sequence[str]) -> dict[str, Any]:
    """The process to become: the container's own settings, changed by what was asked."""
    from minirt.containers import values

    config, host = container.config["Config"], container.config["HostConfig"]
    if asked["workdir"] and not asked["workdir"].startswith("/"):
        raise CannotInvokeError(f"the working directory must be an absolute path: {asked['workdir']}")
    more = asked["privileged"]
    given = values.environment(asked["env-file"], asked["env"], os.environ)
    env = specify.environment({**config, "Tty": asked["tty"]})
    policy = powers.seccomp(host)
    if policy and more:  # as in Docker, the command gets every capability, and yet stands behind the container's filter
        policy["capabilities"] = {"bounding": powers.granted(host)}
    return {
        "process": {
            "terminal": asked["tty"],
            "args": list(command),
            "env": values.merged(env, given),
            "cwd": asked["workdir"] or config["WorkingDir"] or "/",
            "user": {"name": asked["user"] or config["User"], "groups": host["GroupAdd"]},
            "capabilities": {"bounding": powers.granted({**host, "Privileged": host["Privileged"] or more})},
            "noNewPrivileges": powers.no_new_privileges(host),
        },
        "linux": {"seccomp": policy},
    }


def execute(
    container: record.Container, asked: Mapping[str, Any], command: Sequence[str], tell: Callable[[], None]
) -> int:
    """Runs a command in a running container and returns its exit code; with `--detach` 0, as soon as it runs.

    `asked`: option values by long name. Raises ConflictError when the container does not run, MinirtError (126,
    127) when the command cannot be executed.
    """
    tty, interactive, keys = asked["tty"], asked["interactive"] and not asked["detach"], asked["detach-keys"] or KEYS
    if tty and interactive and not os.isatty(0):
        raise MinirtError("cannot attach stdin to a TTY-enabled container because stdin is not a terminal")
    now = record.derive(container)
    if now.status == "paused":
        raise ConflictError(f"container {container.name} is paused, unpause the container before exec")
    target = first_process.hold(container)
    if target < 0:
        raise ConflictError(f"container {container.id} is not running")
    group = tree.group(container.group_name)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    pipes = [os.pipe() for _ in range(3)] if not (tty or asked["detach"]) else []
    stdio = (null, null, null)
    if pipes:
        stdio = (pipes[0][0] if interactive else null, pipes[1][1], pipes[2][1])
        if "IDMappings" in container.config["HostConfig"] and not state.ordinary():
            from minirt.containers import remap

            remap.give_pipes(container.config["HostConfig"], stdio)
    spec = specification(container, asked, command)
    started = stay_behind() if asked["detach"] else -1
    try:
        group.open()
        handle = join.prepare(target, spec, stdio, group)
    except FileNotFoundError:  # it has ended meanwhile: its group is gone, or its namespaces
        raise ConflictError(f"container {container.id} is not running") from None
    id = state.new_id()  # the rest of it is told while the process gets behind the walls
    for action in ("exec_create", "exec_start"):
        container.tell(f"{action}: {command[0]} {' '.join(command[1:])}", execID=id)
    for descriptor in {*stdio, *([pipes[0][0]] if pipes else [])}:
        os.close(descriptor)
    try:
        handle.ready()
        if tty and not asked["detach"]:
            from minirt.containers import console

            console.follow(handle.master, 1)  # before the command can ask for it
        tell()
        handle.start()
    except MinirtError:
        handle.kill()
        handle.wait()
        raise
    if asked["detach"]:
        go_on_alone(started)
    if tty or asked["detach"]:
        sources = [(handle.master, 1)] if tty else []
        copy = Copy(handle, handle.master if interactive else -1, sources, interactive, keys)
    else:
        if not interactive:
            os.close(pipes[0][1])
        copy = Copy(handle, pipes[0][1] if interactive else -1, [(pipes[1][0], 1), (pipes[2][0], 2)], False, keys)
    code = copy.run()
    container.tell("exec_die", execID=id, exitCode=code)
    return code


def stay_behind() -> int:
    """Forks, for `--detach`: the process that the user started waits here, and ends as soon as the other tells it on
    the descriptor that this returns there, or as the other ends. The command will be the other's child, so somebody
    learns how it ends.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        return writing
    os.close(writing)
    os._exit(0 if os.read(reading, 1) else process.exit_code(os.waitpid(pid, 0)[1]))


def go_on_alone(started: int) -> None:
    """Lets the process that waits in `stay_behind` end; keeps nothing of its session, streams and directory."""
    streams.leave_shell()
    os.chdir("/")
    os.setsid()
    os.write(started, b"1")
    os.close(started)


def print_all(descriptor: int, data: bytes) -> None:
    """Writes all of `data`, and waits where that would block: whoever shares our output may have made it so. Raises
    OSError when nobody reads it.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view):]
        except BlockingIOError:
            room = select.poll()
            room.register(descriptor, POLLOUT)
            room.poll()


class Copy:
    """Copies between our own streams and those of a process that joined, until it ends."""

    def __init__(
        self, handle: Handle, into: int, sources: list[tuple[int, int]], raw: bool, keys: str
    ) -> None:
        self.handle = handle
        self.into = into  # its standard input, -1 when there is none
        self.terminal = raw
        self.sources = [streams.Source(descriptor, "", number) for descriptor, number in sources]
        self.waiting = b""
        self.ended = False  # whether our own input has come to its end
        self.inlet = streams.Inlet.of(0, keys if raw else "") if into >= 0 else None

    def run(self) -> int:
        """Returns the exit code; with Ctrl-P Ctrl-Q, 0. The user's terminal is raw meanwhile."""
        if self.into >= 0:
            os.set_blocking(self.into, False)
        if not self.terminal:
            return self.copy()
        from minirt.containers import console

        def resize() -> None:
            console.follow(self.handle.master, 0)

        screen = console.Screen(0, resize)
        resize()
        try:
            return self.copy()
        finally:
            screen.give_back()

    def copy(self) -> int:
        """Moves bytes until the process has ended and what it printed is out."""
        while True:
            poller = select.poll()
            poller.register(self.handle.pidfd, POLLIN)
            for source in self.sources:
                poller.register(source.descriptor, POLLIN)
            if self.waiting and self.into >= 0:
                poller.register(self.into, POLLOUT | (POLLIN if self.terminal else 0))
            elif self.inlet is not None:
                poller.register(self.inlet.descriptor, POLLIN)
            ready = dict(poller.poll())
            for source in [each for each in self.sources if each.descriptor in ready]:
                self.take(source)
            if self.inlet is not None and self.inlet.descriptor in ready and not self.read():
                return 0
            self.write()
            if self.handle.pidfd in ready:
                break
        for source in list(self.sources):
            while self.take(source):
                pass
        return process.exit_code(self.handle.wait())

    def take(self, source: streams.Source) -> bool:
        """Copies what one of its outputs has now. Returns whether there was something."""
        data = source.read()
        if data is None:
            if source.descriptor != self.handle.master:
                source.close()
            self.sources.remove(source)
            return False
        try:
            print_all(source.number, data)
        except OSError:
            source.close()  # nobody reads us: then nobody shall write to us
            self.sources.remove(source)
            return False
        return bool(data)

    def read(self) -> bool:
        """Reads what was typed. Returns False when the user wants to leave."""
        assert self.inlet is not None
        data, then = self.inlet.read()
        self.waiting += data
        if then == "detach":
            os.write(2, b"read escape sequence\n")
            return False
        if then == "end":
            self.inlet.close()
            self.inlet, self.ended = None, True
        return True

    def write(self) -> None:
        """Writes what waits for its standard input, and closes that after the last."""
        try:
            while self.waiting and self.into >= 0:
                self.waiting = self.waiting[os.write(self.into, self.waiting):]
        except BlockingIOError:
            return
        except OSError:
            self.waiting, self.ended = b"", True
        if self.ended and not self.waiting and self.into >= 0 and not self.terminal:
            os.close(self.into)
            self.into = -1

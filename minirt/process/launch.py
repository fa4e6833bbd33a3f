"""Chapter 12: all of it at once: one process behind every wall.

`prepare` forks a child that builds its walls and then waits; `Handle.start` lets it become the command. What must be
wired from outside goes in between. The child is number 1 of its pid namespace from birth, and born into its cgroup;
the other rooms it enters one after the other, in the order of the book.

Two pipes join parent and child. On the *report* the child tells its narration, that its walls stand, or why they do
not; it is close-on-exec, so its end without a complaint is the proof that the exec happened. On the *gate* it waits for
one byte; if the parent dies first it reads the end of the pipe, and ends too.

Rules of the room: the child holds no descriptor of ours but the few placed by `_arrange`; nothing is imported after the
clone. Manual pages: namespaces(7), clone(2), pipe(7), unix(7) "SCM_RIGHTS".
"""

from __future__ import annotations

import fcntl
import os

from minirt import errors, overlay, state, trace
from minirt.kernel import mount, paths, process, syscalls
from minirt.namespaces import ipc, mnt, net, pid, uts
from minirt.process import enter, program

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any

    from minirt.cgroups.tree import Group

CHAPTER = 12

# The rooms that a process enters, in this order; the mount namespace last: what the others need of /proc is gone then.
ROOMS = (("uts", uts), ("ipc", ipc), ("network", net), ("mount", mnt))
REPORT, GATE, PROGRAM, MASTER = program.REPORT, 4, 5, 6  # where the child keeps its descriptors


class Handle:
    """A process waiting behind its walls, as its parent holds it: `pid`, `pidfd`, `master` (of its pty, else -1)."""

    def __init__(self, number: int, pidfd: int, report: int, gate: int, channel: _socket.socket | None,
                 name: str) -> None:
        self.pid, self.pidfd, self.master = number, pidfd, -1
        self._report, self._gate, self._channel, self._name = report, gate, channel, name
        self._rest = b""
        self._ready = False

    def ready(self) -> None:
        """Wait until the walls stand. Raises MinirtError with the sentence and exit code of what went wrong."""
        while not self._ready:
            if not self._read():
                raise errors.MinirtError("the container's process was killed while it built its walls")
        if self._channel is not None:
            self.master = _receive(self._channel)
            self._channel = None

    def start(self) -> None:
        """Let the process become its command; returns when the exec has happened. Raises MinirtError when it fails."""
        if not self._ready:
            self.ready()
        os.write(self._gate, b"!")
        os.close(self._gate)
        while self._read():
            pass
        os.close(self._report)
        if len(self._rest) == 4:  # what the sealed program writes: a negative error number
            raise enter.exec_failure(-int.from_bytes(self._rest, "little", signed=True), self._name)

    def kill(self) -> None:
        """Kill the process, and with number 1 its whole pid namespace."""
        try:
            process.send_signal(self.pidfd, process.SIGKILL)
        except ProcessLookupError:
            pass

    def wait(self) -> int:
        """Wait for the end of the process and return its raw wait status (`process.exit_code` reads it)."""
        return os.waitpid(self.pid, 0)[1]

    def _read(self) -> bool:
        """Take in what the child reports; False at the end of the pipe. Raises what the child reports as failed."""
        data = os.read(self._report, 1 << 16)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event = state.loads(line)
            if "step" in event:
                trace.step(*event["step"])
            elif "ready" in event:
                self._ready = True
            else:
                raise _failure(*event["failed"])
        return bool(data)


def prepare(spec: dict[str, Any], stdio: tuple[int, int, int] = (0, 1, 2), group: Group | None = None) -> Handle:
    """Fork the process that `spec` describes (see `minirt.process.spec`); it builds its walls and waits.

    `stdio` are the descriptors that become its standard input, output and error, where `spec` asks for no terminal.
    `group` is a control group that exists already; the process is born into it. Returns at once: `Handle.ready` waits
    for the walls. Raises OSError when the process cannot be born.
    """
    report_out, report = os.pipe()
    gate, gate_in = os.pipe()
    last = program.sealed()
    ours = theirs = None
    load_what_it_needs(spec)
    if spec["process"].get("terminal"):
        import _socket

        ours, theirs = _socket.socketpair()
    new = {entry["type"] for entry in spec["linux"]["namespaces"] if "path" not in entry}
    cgroup = group.descriptor if group else -1
    number, pidfd = pid.birth(cgroup) if "pid" in new else process.clone3(0, cgroup)
    if number == 0:
        code = 125
        try:
            _arrange(stdio, report, gate, last, theirs.fileno() if theirs else -1)
            code = _child(spec, new, group)
        except BaseException as error:
            os.write(REPORT, state.dumps({"failed": _told(error)}).encode() + b"\n")
        finally:
            os._exit(code)
    for descriptor in (report, gate, last):
        os.close(descriptor)
    if theirs is not None:
        theirs.close()
    return Handle(number, pidfd, report_out, gate_in, ours, spec["process"]["args"][0])


def load_what_it_needs(spec: dict[str, Any]) -> None:
    """Import what only some processes need; the others shall not pay for it. Within the container's root nothing can be
    imported any more, so what is used there must be here already."""
    if spec["process"].get("terminal"):
        from minirt.process import terminal  # noqa: F401
    if spec["process"].get("init"):
        from minirt.process import init  # noqa: F401
    if spec["process"].get("rlimits"):
        import resource  # noqa: F401


def _arrange(stdio: tuple[int, int, int], report: int, gate: int, last: int, channel: int) -> None:
    """Give every descriptor of the child its fixed number, and close all others: locks and files of the parent."""
    wanted = [*stdio, report, gate, last, *([channel] if channel >= 0 else [])]
    safe = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64) for descriptor in wanted]
    for place, descriptor in enumerate(safe):
        os.dup2(descriptor, place, inheritable=place <= REPORT)
    process.close_from(len(safe))


def _child(spec: dict[str, Any], new: set[str], group: Group | None) -> int:
    """Build the walls, wait at the gate, become the command. Returns only the exit code of an init."""
    if trace.enabled():
        trace.on(REPORT)
    process.die_with_parent()
    process.hide()
    if group is not None:
        group.join()
    os.setsid()
    wanted = spec["process"]
    if wanted.get("oomScoreAdj") is not None:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(wanted["oomScoreAdj"]))
    sources = [mnt.bind(entry["source"], entry.get("options", ())) if entry["type"] == "bind" else -1
               for entry in spec["mounts"]]
    for entry in spec["linux"]["namespaces"]:
        if "path" in entry:
            enter_existing(entry["path"])
    for name, room in ROOMS:
        if name in new:
            room.enter()
    if "uts" in new and spec.get("hostname"):
        uts.configure(spec["hostname"], spec.get("domainname", ""))
    if "network" in new:
        net.configure()
    root = build_root(spec, sources)
    slave = open_terminal(root) if wanted.get("terminal") else -1
    finish_root(spec, root)
    mnt.pivot(root)
    os.close(root)
    enter.lock_out_imports()
    os.write(REPORT, b'{"ready": 1}\n')
    if not os.read(GATE, 1):
        return 125  # the parent died: nobody is left to answer to
    os.close(GATE)
    if slave >= 0:
        for place in (0, 1, 2):
            os.dup2(slave, place)
        os.close(slave)
        from minirt.process import terminal

        terminal.control(0)
    if wanted.get("init"):
        from minirt.process import init

        return init.run(lambda: _become(spec), close=(REPORT, PROGRAM))
    enter.execute(spec, PROGRAM)


def _become(spec: dict[str, Any]) -> int:
    """The command behind an init: a failure is reported as it would be without one."""
    try:
        enter.execute(spec, PROGRAM)
    except BaseException as error:
        os.write(REPORT, state.dumps({"failed": _told(error)}).encode() + b"\n")
        return 125


def enter_existing(path: str) -> None:
    """Enter the namespace that the file `path` (/proc/PID/ns/KIND) stands for. Raises OSError. setns(2)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(descriptor)
    os.close(descriptor)


def build_root(spec: dict[str, Any], sources: list[int]) -> int:
    """Put the container's root together, overlay or directory, with all mounts and devices; a descriptor of it.

    `sources` are the clones for bind mounts, one for each entry of "mounts", -1 for the others.
    """
    layers = spec["root"].get("overlay")
    if layers:
        overlay.mount(layers["lower"], layers["upper"], layers["work"], spec["root"]["path"], layers["layers"])
        root = os.open(spec["root"]["path"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    else:  # pivot_root wants a mount: bind the directory onto itself
        place = os.open(spec["root"]["path"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        root = mount.clone("", place, recursive=True)
        mount.move_mount(root, place)
        os.close(place)
    for entry, source in zip(spec["mounts"], sources, strict=True):
        mnt.attach(source if source >= 0 else make(entry), root, entry["destination"])
        if entry["destination"] == "/dev":
            mnt.make_devices(root, spec["linux"].get("devices", ()))
    return root


def make(entry: dict[str, Any]) -> int:
    """Make what one entry of "mounts" asks for: shared memory and queues by the IPC room, the rest by the mount room.
    """
    if entry["type"] == "mqueue":
        return ipc.message_queues()
    size = [word for word in entry.get("options", ()) if word.startswith("size=")]
    if entry["destination"] == "/dev/shm" and entry["type"] == "tmpfs" and size and size[0][5:].isdigit():
        return ipc.shared_memory(int(size[0][5:]))
    return mnt.make(entry)


def open_terminal(root: int) -> int:
    """Open a pty of the container's devpts, hand its master to the parent, return the slave."""
    import _socket

    from minirt.process import terminal

    master, slave = terminal.open_pair(root)
    terminal.attach_console(root, master)
    channel = _socket.socket(fileno=MASTER)
    channel.sendmsg([b"m"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, "little"))])
    channel.close()
    os.close(master)
    return slave


def _receive(channel: _socket.socket) -> int:
    """The pty's master, as the child sent it."""
    import _socket

    _, ancillary, _, _ = channel.recvmsg(1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    channel.close()
    return int.from_bytes(ancillary[0][2][:4], "little")


def finish_root(spec: dict[str, Any], root: int) -> None:
    """What comes after all mounts: masks, read-only paths, and at last the root itself when it is to be read-only."""
    for path in spec["linux"].get("maskedPaths", ()):
        mnt.mask(root, path)
    for path in spec["linux"].get("readonlyPaths", ()):
        mnt.make_read_only(root, path)
    if spec["root"].get("readonly"):
        mount.mount_setattr(paths.open_in_root(root, "/", os.O_PATH), *mount.attribute_bits(("ro",)))


def _told(error: BaseException) -> list[Any]:
    """An exception of the child as [exit code, sentence], for the report."""
    if isinstance(error, errors.MinirtError):
        return [error.exit_code, str(error)]
    if isinstance(error, NotImplementedError):
        return [125, str(error)]
    if isinstance(error, OSError):
        what = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror or error)
        return [125, f"{what} ({errors.place_of(error)})"]
    return [125, f"{type(error).__name__}: {error} ({errors.place_of(error)})"]


def _failure(code: int, sentence: str) -> errors.MinirtError:
    """The exception for a failure that the child reported."""
    kinds = {126: errors.CannotInvokeError, 127: errors.CommandNotFoundError}
    return kinds.get(code, errors.MinirtError)(sentence)

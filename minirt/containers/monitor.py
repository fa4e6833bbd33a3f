"""Chapter 17: the monitor: one small process for each container, its parent, for its whole life.

It is forked from the command (`run`, `start`) before anything heavy is imported, and leads a session of its own, so
it stays when the command or its terminal goes. It holds the container's lock, owns its pipes or its terminal,
writes the log, hands output to whoever is attached, waits, records how it ended, and cleans up. There is no daemon:
as many containers, so many monitors.

    command ---fork--- monitor ---clone--- process 1 of the container
       |   messages       |    pipes, pidfd

What must be true at which moment:

- the lock is held before the container's directory exists, and is given back only by the end of this process;
- `config.json` is on the disk before "started" is told, the outcome before the exit code is told;
- after the end only what is in the pipes already is read: a descriptor that escaped would keep them open for ever;
- a client that is gone takes nothing along, and none of its descriptors is kept.

Manual pages: setsid(2), pidfd_open(2), poll(2), waitid(2).
"""

from __future__ import annotations

import os

from minirt import state, trace
from minirt.cgroups import tree
from minirt.containers import record, specify
from minirt.containers.peer import Peer
from minirt.errors import MinirtError
from minirt.process import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CHAPTER = 17
IN, OUT = 1, 4  # POLLIN, POLLOUT of <poll.h>


def live(id: str, lock: state.Lock, fresh: bool, hear: int, speak: int) -> int:
    """The whole life of the monitor of the container `id`. Returns its exit code.

    `lock`: the container's, held. `fresh`: whether the command that forked this monitor also makes the container.
    `hear`, `speak`: the line to the command.
    """
    tree.devices.load_ahead()  # while the command still puts its configuration together
    return Monitor(id, Peer(hear, speak), lock, fresh).live()


class Monitor:
    """The life of one container."""

    def __init__(self, id: str, peer: Peer, lock: state.Lock, fresh: bool) -> None:
        self.id = id
        self.peers = [peer]
        self.lock = lock
        self.fresh = fresh  # whether the command that forked this monitor also makes the container
        self.detached = False
        self.watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self.ended = False
        self.input = -1  # where the container's standard input is written to
        self.waiting = b""  # what does not fit in there yet
        self.input_ended = False  # to be closed when that is written
        self.early: list[dict[str, Any]] = []  # messages that came before the container was there

    def live(self) -> int:
        """From the making of the container to its end. Returns the exit code of the monitor itself."""
        order = self.told_to_begin()
        if order is None:
            return self.command_is_gone()
        self.container = record.Container(self.id, order["begin"])
        self.detached = order["detached"]
        self.config, self.host = self.container.config["Config"], self.container.config["HostConfig"]
        self.removes = bool(self.host["AutoRemove"])
        try:
            self.begin(tuple(order["streams"]), order["keys"])
        except (MinirtError, OSError) as error:
            self.fail(error)
            return 1
        self.serve()
        self.end()
        return 0

    # -- the beginning ---------------------------------------------------------------------------------------------

    def told_to_begin(self) -> dict[str, Any] | None:
        """Waits for the order to begin. None when the command has nothing to begin, or is gone."""
        while True:
            messages = self.peers[0].ear.hear()
            if messages is None:
                return None
            self.early += [message for message in messages if "begin" not in message]
            for message in messages:
                if "begin" in message:
                    return message

    def command_is_gone(self) -> int:
        """Takes back what was made of a new container."""
        from minirt.containers import erase

        if self.fresh:
            erase.erase(record.Container(self.id, {}), self.lock)
        return 1

    def begin(self, streams: tuple[bool, bool, bool], keys: str) -> None:
        """Starts the container. Raises MinirtError or OSError when it cannot be started."""
        first = self.peers[0]
        spec = specify.specification(self.container)
        spec["linux"]["seccomp"] = None  # the command assembles the filter meanwhile: `hear_filter`
        self.group = tree.group(self.container.group_name)
        self.group.create(spec["linux"]["resources"])
        if not (self.group.guarded or self.host["Privileged"]):
            tree.devices.do_without(spec)
        if state.ordinary():
            self.become_root(spec)
        stdio, sources = self.make_pipes()
        self.handle = launch.prepare(spec, stdio, self.group)
        for descriptor in set(stdio):
            os.close(descriptor)
        # The child builds its walls now: what follows costs nothing, nor does what is loaded for later.
        import select  # noqa: F401

        from minirt.containers import erase, log  # noqa: F401
        from minirt.containers import streams as ends

        self.ends = ends
        self.log = log.Writer(self.container.log_path)
        self.record_start()
        self.listen()
        self.attach(first, streams, keys)
        self.leave_shell()
        self.handle.ready()
        if self.handle.master >= 0:
            self.input = self.handle.master if self.config["OpenStdin"] or streams[0] else -1
            sources = [(self.handle.master, "stdout", 1)]
            self.take_size(first)
        self.sources = [ends.Source(*source) for source in sources]
        builder = self.handle.pid
        self.handle.filter = self.hear_filter(first)
        self.handle.start()
        if self.handle.pid != builder:  # in another container's pid namespace the command is a child of the builder's
            self.record_process()
        if trace.enabled():
            self.let_narrate(first)
        self.container.tell("start")
        first.say({"started": self.container.id})
        for message in self.early:
            self.obey(first, message)
        if self.detached:
            self.drop(first)

    def become_root(self, spec: dict[str, Any]) -> None:
        """An ordinary user's monitor becomes root of a user namespace of his, in which the container is built
        (chapter 07); after the control group was made, which is his outside. A container that joins another one's
        namespaces shares its user namespace, to which they belong.
        """
        from minirt.namespaces import rootless

        paths = [entry["path"] for entry in spec["linux"]["namespaces"] if "path" in entry]
        rootless.enter(beside=int(paths[0].split("/")[2]) if paths else 0)
        if "IDMappings" in self.host:
            from minirt.containers import keep

            keep.prepare(self.container, spec)

    def make_pipes(self) -> tuple[tuple[int, int, int], list[tuple[int, str, int]]]:
        """The container's three descriptors, and our ends of its output. A container with a terminal needs none."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if self.config["Tty"]:
            return (null, null, null), []
        theirs = null
        if self.config["OpenStdin"]:
            theirs, self.input = os.pipe()
            os.set_blocking(self.input, False)
            os.close(null)
        out, out_theirs = os.pipe()
        err, err_theirs = os.pipe()
        return (theirs, out_theirs, err_theirs), [(out, "stdout", 1), (err, "stderr", 2)]

    @trace.narrated(CHAPTER, "write down what runs: configuration, process, cgroup", "config.json, running.json")
    def record_start(self) -> None:
        """Writes the configuration, synced unless it goes with the container, and what of this run ends with a
        reboot.
        """
        self.container.config["Started"] = state.now()
        self.container.save(sync=not self.removes)
        self.record_process()
        if self.fresh:
            self.container.tell("create")
        if not self.detached:
            self.container.tell("attach")

    def record_process(self) -> None:
        """Writes what runs: who watches, the first process, its cgroup."""
        running = {
            "started": self.container.config["Started"],
            "monitor": state.identity(),
            "pid": state.identity(self.handle.pid),
            "cgroup": self.group.path,
        }
        state.write_json(f"{self.container.run_directory}/running.json", running, sync=False)

    def listen(self) -> None:
        """Opens the socket for those who come later. By descriptor: the path may be longer than a socket's may be."""
        import _socket

        directory = os.open(self.container.run_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            os.unlink("socket", dir_fd=directory)
        except FileNotFoundError:
            pass
        self.listener.bind(f"/proc/self/fd/{directory}/socket")
        self.listener.listen(16)
        os.close(directory)

    def attach(
        self, peer: Peer, streams: tuple[bool, bool, bool], keys: str, descriptors: tuple[int, ...] = (0, 1, 2)
    ) -> None:
        """Takes a client's descriptors: its output becomes outlets, its input an inlet."""
        for number in (1, 2):
            if streams[number]:
                outlet = self.ends.Outlet.of(descriptors[number])
                if outlet is not None:
                    peer.outlets[number] = outlet
        if streams[0]:
            peer.inlet = self.ends.Inlet.of(descriptors[0], keys if self.config["Tty"] else "")
            if peer.inlet is None:
                self.end_input(peer)

    def leave_shell(self) -> None:
        """Lets go of everything that came from the command's caller: its three streams, and what else a shell left
        open.
        """
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.close(null)
        import fcntl

        # What Python opens is close-on-exec; what is not, and is here nevertheless, came through the exec of Python.
        for name in os.listdir("/proc/self/fd"):
            try:
                if int(name) > 2 and not fcntl.fcntl(int(name), fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                    os.close(int(name))
            except OSError:
                pass  # the directory's own descriptor

    def take_size(self, peer: Peer) -> None:
        """Gives the container's terminal the size of the client's."""
        from minirt.containers import console

        outlet = peer.outlets.get(1)
        if outlet is not None:
            console.follow(self.handle.master, outlet.descriptor)

    def hear_filter(self, peer: Peer) -> bytes:
        """Waits for the system call filter. The command assembles it: it has nothing else to do now, and the tables
        that it takes would stay in the monitor's memory. Raises MinirtError when the command is gone.
        """
        while True:
            for message in self.early:
                if "filter" in message:
                    return bytes.fromhex(message["filter"])
            messages = peer.ear.hear()
            if messages is None:
                raise MinirtError("the command that started the container was lost")
            self.early += messages

    def let_narrate(self, peer: Peer) -> None:
        """Waits until the client has printed the steps so far: what the container says meanwhile waits in its
        pipes.
        """
        peer.say({"walls": 1})
        while True:
            messages = peer.ear.hear()
            if messages is None or any("go" in message for message in messages):
                return
            for message in messages:
                self.obey(peer, message)

    def fail(self, error: MinirtError | OSError) -> None:
        """The container could not be started: takes back what was begun, tells the client why."""
        if isinstance(error, MinirtError):
            code, sentence = error.exit_code, str(error)
        else:
            about = f": {error.filename}" if error.filename else ""
            code, sentence = 125, f"{error.strerror or error}{about}"
        code = 125 if code == 1 else code
        from minirt.containers import erase

        if hasattr(self, "handle"):
            self.handle.kill()
            self.handle.wait()
        try:
            if self.removes:
                erase.erase(self.container, self.lock)
            else:
                self.write_outcome("exited" if self.was_run() else "created", code, sentence)
                erase.remove_group(self.container)
        except OSError:
            pass  # a full disk is the likely reason for both; the next command repairs
        finally:
            self.peers[0].say({"error": sentence, "code": code})

    def was_run(self) -> bool:
        """Whether an earlier run of this container has ended."""
        outcome = self.container.outcome()
        return outcome is not None and outcome.get("status") == "exited"

    # -- the middle ------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Moves bytes and messages until the container's first process has ended."""
        import gc
        import select

        gc.freeze()  # what was loaded stays: it need not be looked through
        gc.enable()  # from here on it lives long
        poller = select.poll()
        armed: dict[int, int] = {}
        while not self.ended:
            self.choose()
            for descriptor in [each for each in armed if each not in self.watched]:
                poller.unregister(descriptor)
                del armed[descriptor]
            for descriptor, (mask, _) in self.watched.items():
                if armed.get(descriptor) != mask:
                    poller.register(descriptor, mask)
                    armed[descriptor] = mask
            for descriptor, happened in poller.poll():
                watched = self.watched.get(descriptor)
                if watched is not None:
                    watched[1](happened)

    def choose(self) -> None:
        """Which descriptors matter now, and what to do when something happens there."""
        watched: dict[int, tuple[int, Callable[[int], None]]] = {self.handle.pidfd: (IN, self.on_end)}
        watched[self.listener.fileno()] = (IN, self.on_caller)
        full = {number for peer in self.peers for number, outlet in peer.outlets.items() if outlet.full}
        for source in self.sources:
            if source.number not in full:
                watched[source.descriptor] = (IN, lambda _, source=source: self.on_output(source))  # type: ignore[misc]
        for peer in self.peers:
            watched[peer.ear.descriptor] = (IN, lambda _, peer=peer: self.on_message(peer))  # type: ignore[misc]
            for number, outlet in peer.outlets.items():
                if outlet.pending:
                    watched[outlet.descriptor] = (
                        OUT,
                        lambda _, peer=peer, number=number: self.on_room(peer, number),  # type: ignore[misc]
                    )
            if peer.inlet is not None and not self.waiting:
                watched[peer.inlet.descriptor] = (IN, lambda _, peer=peer: self.on_input(peer))  # type: ignore[misc]
        if self.waiting:
            # With a terminal this is also where output comes from: then both are wanted.
            mask, _ = watched.get(self.input, (0, None))
            watched[self.input] = (mask | OUT, self.on_input_room)
        self.watched = watched

    def on_end(self, happened: int) -> None:
        """The pidfd is readable: the first process is dead."""
        self.ended = True

    def on_output(self, source: Any) -> None:
        """The container printed something: into the log, and to everybody who watches."""
        if source not in self.sources:
            return  # closed by an event of the same moment
        data = source.read()
        if data is None:
            source.close()
            self.sources.remove(source)
            if source.name == "stdout" and self.config["Tty"]:
                self.input = -1
        elif data:
            self.deliver(source, data)

    def deliver(self, source: Any, data: bytes) -> None:
        """Hands on what the container printed; an outlet that nobody reads any more is dropped, and only that."""
        for peer in self.peers:
            outlet = peer.outlets.get(source.number)
            if outlet is not None and not outlet.write(data):
                self.lose(peer, source.number)
        self.log.write(source.name, data)

    def on_room(self, peer: Peer, number: int) -> None:
        """An outlet takes bytes again."""
        outlet = peer.outlets.get(number)
        if outlet is not None and not outlet.flush():
            self.lose(peer, number)

    def lose(self, peer: Peer, number: int) -> None:
        """Nobody reads a client's output any more (`run ... | head`): the client shall end as a writer to a broken pipe
        does, and the container goes on."""
        del peer.outlets[number]
        peer.say({"broken": number})

    def on_input(self, peer: Peer) -> None:
        """A client typed something."""
        if peer.inlet is None:
            return
        data, then = peer.inlet.read()
        if data and self.input >= 0:
            self.waiting += data
            self.on_input_room(OUT)
        if then == "detach":
            peer.say({"left": 1})
            self.drop(peer)
        elif then == "end":
            peer.inlet.close()
            peer.inlet = None
            self.end_input(peer)

    def on_input_room(self, happened: int) -> None:
        """Writes what waits for the container's standard input. With a terminal, output may be what happened."""
        if happened & IN:
            for source in [each for each in self.sources if each.descriptor == self.input]:
                self.on_output(source)
        try:
            while self.waiting and self.input >= 0:
                self.waiting = self.waiting[os.write(self.input, self.waiting):]
        except BlockingIOError:
            return
        except OSError:
            self.close_input()
        self.waiting = b""
        if self.input_ended:
            self.close_input()

    def end_input(self, peer: Peer) -> None:
        """A client's input came to its end: so does the container's, where it was made for one client."""
        if self.config["StdinOnce"] and not self.config["Tty"]:
            self.input_ended = True
            if not self.waiting:
                self.close_input()

    def close_input(self) -> None:
        """The container reads the end of its standard input."""
        if self.input >= 0 and not self.config["Tty"]:
            os.close(self.input)
        self.input, self.waiting = -1, b""

    def on_message(self, peer: Peer) -> None:
        """A client said something, or is gone."""
        if peer not in self.peers:
            return
        messages = peer.ear.hear()
        if messages is None:
            self.restore_terminal(peer)
            self.drop(peer)
            return
        for message in messages:
            self.obey(peer, message)

    def obey(self, peer: Peer, message: dict[str, Any]) -> None:
        """Does what a client's message asks for."""
        from minirt.kernel import process

        if "signal" in message:
            try:
                process.send_signal(self.handle.pidfd, message["signal"])
                self.container.tell("kill", signal=message["signal"])
            except OSError:
                pass  # it is dead already, and the pidfd will say so
        elif "size" in message and self.handle.master >= 0:
            from minirt.process import terminal

            terminal.resize(self.handle.master, *message["size"])
        elif "raw" in message:
            peer.terminal = message["raw"]
        elif "name" in message:
            self.container.config["Name"] = message["name"]
        elif "remove" in message:
            self.removes = True  # from now on as with --rm
        elif "leave" in message:
            peer.say({"left": 1})
            self.drop(peer)

    def restore_terminal(self, peer: Peer) -> None:
        """A client that died without a word left its terminal raw: gives it back what it was, unless somebody else
        did.
        """
        if peer.terminal is None or peer.inlet is None:
            return
        from minirt.containers import console

        console.restore_after_death(peer.inlet.descriptor, peer.terminal)

    def drop(self, peer: Peer) -> None:
        """Forgets a client; where the container's input was made for one client, it ends with it."""
        had_input = peer.inlet is not None
        peer.close()
        self.peers.remove(peer)
        if had_input:
            self.end_input(peer)

    def on_caller(self, happened: int) -> None:
        """Somebody connects: he says what he wants in his first message, and hands over his descriptors with it."""
        import _socket

        try:
            descriptor, _ = self.listener._accept()  # type: ignore[attr-defined]  # C's half of accept
        except OSError:
            return
        call = _socket.socket(fileno=descriptor)
        call.settimeout(1.0)
        fds: list[int] = []
        try:
            data, ancillary, _, _ = call.recvmsg(4096, _socket.CMSG_SPACE(12), _socket.MSG_CMSG_CLOEXEC)
            for level, kind, content in ancillary:
                if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                    fds += [int.from_bytes(content[at: at + 4], "little") for at in range(0, len(content), 4)]
        except OSError:
            data = b""
        peer = Peer(os.dup(descriptor), -1)
        peer.mouth = peer.ear.descriptor
        call.detach()
        os.close(descriptor)
        os.set_blocking(peer.mouth, True)
        self.peers.append(peer)
        for message in peer.ear.take(data):
            if "attach" in message and len(fds) == 3:
                self.attach(peer, tuple(message["attach"]), message["keys"], tuple(fds))
                self.container.tell("attach")
                peer.say({"started": self.container.id})
            else:
                self.obey(peer, message)
        for each in fds:
            os.close(each)
        if not data:
            self.drop(peer)

    # -- the end ---------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Reads what is left, records the end, tells it, cleans up."""
        from minirt.containers import erase
        from minirt.kernel import process

        code = process.exit_code(self.handle.wait())
        for source in self.sources:
            while data := source.read():
                self.deliver(source, data)
                self.drain(enough=self.ends.FULL)
        if self.host["PidMode"]:
            self.group.kill()  # without a pid namespace of its own the others did not die with the first
        out_of_memory = bool(self.group.oom_kills())
        if out_of_memory:
            self.container.tell("oom")
        lasted = state.parse_time(state.now()) - state.parse_time(self.container.config["Started"])
        self.container.tell("die", exitCode=code, execDuration=int(lasted))
        if self.removes:
            erase.vanish(self.container)
        else:
            try:
                self.write_outcome("exited", code, "", out_of_memory)
            except OSError:
                pass  # a full disk: the client is told all the same, and the next command repairs the record
        self.drain(enough=0)
        for peer in self.peers:
            peer.say({"exit": code})
        self.log.close()
        self.listener.close()
        if self.removes:
            erase.clean(self.container)
        else:
            erase.remove_group(self.container)
            os.unlink(f"{self.container.run_directory}/socket")
        from minirt.containers import repair

        repair.sweep(lost=False)  # what others left half done: nobody waits for this process any more

    def drain(self, enough: int) -> None:
        """Waits until no more than `enough` bytes wait for any outlet. A client that is gone is not waited for."""
        import select

        while True:
            late = [
                (peer, number, outlet)
                for peer in self.peers
                for number, outlet in peer.outlets.items()
                if len(outlet.pending) > enough
            ]
            if not late:
                return
            poller = select.poll()
            for peer, _, outlet in late:
                poller.register(outlet.descriptor, OUT)
                poller.register(peer.ear.descriptor, IN)
            ready = dict(poller.poll())
            for peer, number, outlet in late:
                if outlet.descriptor in ready and number in peer.outlets:
                    self.on_room(peer, number)
                if peer.ear.descriptor in ready and peer in self.peers:
                    self.on_message(peer)

    @trace.narrated(CHAPTER, "write down how it ended: {status}, {code}", "outcome.json")
    def write_outcome(self, status: str, code: int, error: str, out_of_memory: bool = False) -> None:
        """Records how this run ended, synced, and that nothing runs any more."""
        end = {
            "status": status,
            "started": self.container.config["Started"],
            "finished": state.now(),
            "code": code,
            "error": error,
        }
        if out_of_memory:
            end["oom"] = True
        state.write_json(f"{self.container.directory}/outcome.json", end)
        if not os.path.exists(f"{self.container.directory}/config.json"):
            self.container.save()
        try:
            os.unlink(f"{self.container.run_directory}/running.json")
        except FileNotFoundError:
            pass

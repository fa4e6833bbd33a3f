"""Chapter 17: what flows between a container and its clients while it runs: output, input, messages.

A client has handed over its own descriptors, so a byte takes one read and one write. All of it is one loop around
poll(2), in which nothing may block:

    container's stdout, stderr (or its terminal) ---> log, and the outlets of every client
    inlets of the clients                        ---> container's stdin (or its terminal)
    messages of the clients (`peer`)             ---> signals, sizes, a new name
    the socket                                   ---> a new client

While an outlet is full its source is not read, and while the container does not read its input nobody else's is. A
client that is gone takes nothing along, and none of its descriptors is kept.

Rules of the room: it knows nothing of how a container is built or how its end is recorded; that is the monitor's.
Manual pages: poll(2), unix(7), pty(7).
"""

from __future__ import annotations

import _socket
import os
import select

from minirt.containers import log, streams
from minirt.containers.peer import Peer
from minirt.kernel import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minirt.containers.record import Container
    from minirt.process.handle import Handle

    Watched = dict[int, tuple[int, Callable[[int], None]]]  # descriptor -> what to wait for, and whom to tell

POLLIN, POLLOUT = 1, 4  # <poll.h>
BACKLOG = 16  # callers that may wait until the loop comes round
MANNERS = 1.0  # seconds in which a caller must have said what he wants


class Traffic:
    """The loop, and what it moves."""

    def __init__(self, container: Container, handle: Handle, pipes: tuple[int, int, int]) -> None:
        """`pipes`: our ends of the container's standard input, output and error, -1 where there is none."""
        self.container = container
        self.config = container.config["Config"]
        self.handle = handle
        self.peers: list[Peer] = []
        self.input = pipes[0]  # where the container's standard input is written to
        self.waiting = b""  # what does not fit in there yet
        self.input_ended = False  # to be closed when that is written
        self.sources = [streams.Source(descriptor, name, number) for descriptor, name, number in
                        ((pipes[1], "stdout", 1), (pipes[2], "stderr", 2)) if descriptor >= 0]
        self.log = log.Writer(container.log_path, container.config["HostConfig"].get("LogConfig"))
        self.ended = False

    # -- who takes part --------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Opens the socket for those who come later. By descriptor: the path may be longer than a socket's may be."""
        directory = os.open(self.container.run_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self.listener.setblocking(False)
        try:
            os.unlink("socket", dir_fd=directory)
        except FileNotFoundError:
            pass
        self.listener.bind(f"/proc/self/fd/{directory}/socket")
        self.listener.listen(BACKLOG)
        os.close(directory)

    def attach(
        self, peer: Peer, wanted: tuple[bool, bool, bool], keys: str, descriptors: tuple[int, ...] = (0, 1, 2)
    ) -> None:
        """Takes a client's descriptors, those that are `wanted` of its input, output and error: its output becomes
        outlets, its input an inlet. `keys`: those by which it leaves a terminal.
        """
        for number in (1, 2):
            if wanted[number]:
                outlet = streams.Outlet.of(descriptors[number])
                if outlet is not None:
                    peer.outlets[number] = outlet
        if wanted[0]:
            peer.inlet = streams.Inlet.of(descriptors[0], keys if self.config["Tty"] else "")
            if peer.inlet is None:
                self.end_input()

    def use_terminal(self, first: Peer, writes: bool) -> None:
        """Moves what goes through the container's terminal, now that its master is here. It gets the size of the first
        client's before the container's process can ask. `writes`: whether anything shall be written to it.
        """
        from minirt.containers import console

        self.input = self.handle.master if writes else -1
        self.sources = [streams.Source(self.handle.master, "stdout", 1)]
        outlet = first.outlets.get(1)
        if outlet is not None:
            console.follow(self.handle.master, outlet.descriptor)

    def drop(self, peer: Peer) -> None:
        """Forgets a client; where the container's input was made for one client, it ends with it."""
        had_input = peer.inlet is not None
        peer.close()
        self.peers.remove(peer)
        if had_input:
            self.end_input()

    # -- the loop --------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Moves bytes and messages until the container's first process has ended."""
        poller = select.poll()
        armed: dict[int, int] = {}
        while not self.ended:
            watched = self.choose()
            for descriptor in [each for each in armed if each not in watched]:
                poller.unregister(descriptor)
                del armed[descriptor]
            for descriptor, (mask, _) in watched.items():
                if armed.get(descriptor) != mask:
                    poller.register(descriptor, mask)
                    armed[descriptor] = mask
            for descriptor, happened in poller.poll():
                watched[descriptor][1](happened)

    def choose(self) -> Watched:
        """Which descriptors matter now, and what to do when something happens there."""
        watched: Watched = {self.handle.pidfd: (POLLIN, self.on_end)}
        watched[self.listener.fileno()] = (POLLIN, self.on_caller)
        full = {number for peer in self.peers for number, outlet in peer.outlets.items() if outlet.full}
        for source in self.sources:
            if source.number not in full:
                watched[source.descriptor] = (POLLIN, lambda _, source=source: self.on_output(source))  # type: ignore
        for peer in self.peers:
            watched[peer.ear.descriptor] = (POLLIN, lambda _, peer=peer: self.on_message(peer))  # type: ignore[misc]
            for number, outlet in peer.outlets.items():
                if outlet.pending:
                    watched[outlet.descriptor] = (
                        POLLOUT,
                        lambda _, peer=peer, number=number: self.on_room(peer, number),  # type: ignore[misc]
                    )
            if peer.inlet is not None and not self.waiting:
                watched[peer.inlet.descriptor] = (POLLIN, lambda _, peer=peer: self.on_input(peer))  # type: ignore[misc]
        if self.waiting:
            # With a terminal this is also where output comes from: then both are wanted.
            mask, _ = watched.get(self.input, (0, None))
            watched[self.input] = (mask | POLLOUT, self.on_input_room)
        return watched

    def on_end(self, happened: int) -> None:
        """The pidfd is readable: the first process is dead."""
        self.ended = True

    # -- output ----------------------------------------------------------------------------------------------------

    def on_output(self, source: streams.Source) -> None:
        """The container printed something: into the log, and to everybody who watches."""
        if source not in self.sources:
            return  # closed by an event of the same moment
        data = source.read()
        if data is None:
            source.close()
            self.sources.remove(source)
            if self.config["Tty"]:  # it was the terminal's master
                self.input = self.handle.master = -1
        elif data:
            self.deliver(source, data)

    def deliver(self, source: streams.Source, data: bytes) -> None:
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
        does, and the container goes on.
        """
        del peer.outlets[number]
        peer.say({"broken": number})

    # -- input -----------------------------------------------------------------------------------------------------

    def on_input(self, peer: Peer) -> None:
        """A client typed something."""
        if peer.inlet is None:
            return
        data, then = peer.inlet.read()
        if data and self.input >= 0:
            self.waiting += data
            self.on_input_room(POLLOUT)
        if then == "detach":
            peer.say({"left": 1})
            self.drop(peer)
        elif then == "end":
            peer.inlet.close()
            peer.inlet = None
            self.end_input()

    def on_input_room(self, happened: int) -> None:
        """Writes what waits for the container's standard input. With a terminal, output may be what happened."""
        if happened & POLLIN:
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

    def end_input(self) -> None:
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

    # -- messages --------------------------------------------------------------------------------------------------

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
            self.container.config["HostConfig"]["AutoRemove"] = True  # from now on as with --rm

    def restore_terminal(self, peer: Peer) -> None:
        """A client that died without a word left its terminal raw: gives it back what it was, unless somebody else
        did.
        """
        if peer.terminal is None or peer.inlet is None:
            return
        from minirt.containers import console

        console.restore_after_death(peer.inlet.descriptor, peer.terminal)

    def on_caller(self, happened: int) -> None:
        """Somebody connects: he says what he wants in his first message, and hands over his descriptors with it."""
        try:
            descriptor, _ = self.listener._accept()  # type: ignore[attr-defined]  # C's half of accept
        except OSError:
            return
        call = _socket.socket(fileno=descriptor)
        call.settimeout(MANNERS)
        fds: list[int] = []
        try:
            data, ancillary, _, _ = call.recvmsg(4096, _socket.CMSG_SPACE(12), _socket.MSG_CMSG_CLOEXEC)
            for level, kind, content in ancillary:
                if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                    fds += [int.from_bytes(content[at: at + 4], "little") for at in range(0, len(content), 4)]
        except OSError:
            data = b""
        peer = Peer(call.detach(), descriptor)
        os.set_blocking(descriptor, True)
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

    def finish(self) -> None:
        """Reads what is in the pipes already, and no more: a descriptor that escaped would keep them open for ever."""
        for source in self.sources:
            while data := source.read():
                self.deliver(source, data)

    def hang_up(self, code: int) -> None:
        """Tells every client the exit code, those who still connect among them, and takes no more. A client hears it
        when it has its output; the others do not wait for a slow one.
        """
        try:
            os.unlink(f"{self.container.run_directory}/socket")
        except FileNotFoundError:
            pass
        while select.select([self.listener], (), (), 0)[0]:
            self.on_caller(POLLIN)
        self.listener.close()
        slow = [peer for peer in self.peers if any(outlet.pending for outlet in peer.outlets.values())]
        for peer in self.peers:
            if peer not in slow:
                peer.say({"exit": code})
        self.drain()
        for peer in slow:
            peer.say({"exit": code})
        self.log.close()

    def drain(self) -> None:
        """Waits until nothing waits for any outlet. A client that is gone is not waited for."""
        while True:
            late = [(peer, number, outlet) for peer in self.peers for number, outlet in peer.outlets.items()
                    if outlet.pending]
            if not late:
                return
            poller = select.poll()
            for peer, _, outlet in late:
                poller.register(outlet.descriptor, POLLOUT)
                poller.register(peer.ear.descriptor, POLLIN)
            ready = dict(poller.poll())
            for peer, number, outlet in late:
                if outlet.descriptor in ready and number in peer.outlets:
                    self.on_room(peer, number)
                if peer.ear.descriptor in ready and peer in self.peers:
                    self.on_message(peer)

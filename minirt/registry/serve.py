"""Chapter 14: HTTP under the registry: sockets, bodies, TLS, who may, and an orderly end.

One thread for each connection: the kernel's work (recv, write, sendfile) and the digests are done without Python's
lock, so threads share a machine's processors well enough. Bodies go from the socket through one small buffer to the
digest and the file, blobs from the file to the socket by sendfile(2); so memory does not grow with what is sent.

What a stranger may do to us has a limit each: the number of connections (where all are taken, the one that has been at
rest for longest gives way), the time that a head may take, how slowly a body may come, the manifests that are read at
the same time. What a head may be is in `head`, what a body may be in `body`.

Sources: RFC 9110, RFC 9112; sendfile(2), shutdown(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler

from minirt.errors import MinirtError, place_of
from minirt.registry import server
from minirt.registry.body import PIECE, SILENCE, Body, Malformed
from minirt.registry.head import LONGEST, Head
from minirt.registry.htpasswd import Users
from minirt.registry.server import Answer, Request, Routes
from minirt.registry.storage import Refused, Storage

CONNECTIONS = 200
MANIFESTS = 2  # that are read at the same time
LARGEST_MANIFEST = 4 << 20  # bytes
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GRACE = 10.0  # seconds that answers may still take when the registry is asked to stop
LINGER = 2.0, 64 << 20  # seconds, and bytes, to let a client read a refusal while it is still sending
LONGEST_SHOWN = 1000  # of a path, in the log
VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}


@dataclass
class Settings:
    """What the registry is asked to be. `routes`: what it answers. `users`: None where everybody is welcome. `quiet`:
    no line for each request.
    """

    routes: Routes = server.ROUTES
    users: Users | None = None
    tls: ssl.SSLContext | None = None
    quiet: bool = False


class Connection(BaseHTTPRequestHandler):
    """One connection, request by request."""

    protocol_version = "HTTP/1.1"
    timeout = SILENCE
    wbufsize = 1 << 16  # a head and a short body leave together
    disable_nagle_algorithm = True
    server: Listener  # type: ignore[assignment]
    raw_requestline: bytes
    requestline = ""  # for the standard library's own log, which says nothing here

    def parse_request(self) -> bool:
        """Reads the head of a request; where it is none, says so. Returns whether it can be answered."""
        if not self.raw_requestline.strip(b"\r\n"):  # some clients end a body with an empty line
            self.raw_requestline = self.rfile.readline(LONGEST + 1)
        try:
            head = Head(self.raw_requestline, self.rfile)
        except Malformed as error:
            self.send_error(error.status, f"bad request: {error}")
            return False
        self.command, self.path, self.headers = head.method, head.target, head.headers
        self.request_version, self.close_connection = head.version, not head.keep
        return True

    def handle_one_request(self) -> None:
        """Answers one request; a client that goes away or falls silent ends the connection."""
        self.begun, self.who, self.command, self.path = time.monotonic(), "-", "", "-"
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError, ssl.SSLError):
            self.close_connection = True
        finally:
            self.server.busy(self, False)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is no request, or has a method that nobody knows, told as everything is told here."""
        self.request_version = self.protocol_version  # else what is no HTTP gets no status line, which clients look for
        if self.raw_requestline.startswith(b"\x16\x03"):  # Docker's clients try TLS first, also where there is none
            self.path, message = "(TLS handshake)", "this registry is served without TLS"
        self._send(server.refusal(Refused("UNSUPPORTED", message or "bad request", status=code)), keep=False)
        self._linger()

    def _answer(self) -> None:
        self.server.busy(self, True)
        settings = self.server.settings
        body: Body | None = None
        try:
            body = Body(self)
            user = self._user()
            headers = {name.title(): value for name, value in self.headers.items()}
            manifest = self.command == "PUT" and "/manifests/" in self.path
            request = Request(self.command, self.path, headers, _document(body) if manifest else body, user)
            with self.server.manifests if manifest else _NOTHING:
                answer = server.answer(self.server.storage, request, settings.routes)
        except Refused as error:
            answer = server.refusal(error)
        except Malformed as error:
            body = None
            answer = server.refusal(Refused("UNSUPPORTED", f"bad request: {error}", status=error.status))
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:
            answer = self._failed(error)
        self._send(answer, keep=body is not None and self._read_rest(body))
        if self.close_connection:
            self._linger()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = _answer

    def _failed(self, error: Exception) -> Answer:
        """What to answer when the disk is full, or fails, or somebody broke an index.json: the log says which."""
        if isinstance(error, OSError) and error.errno in FULL:
            full = "the registry's disk is full; what has arrived stays, send the rest later"
            return server.refusal(Refused("UNKNOWN", full))
        self.log(f"{self.command} {self.path} failed: {type(error).__name__}: {error} ({place_of(error)})")
        return server.refusal(Refused("UNKNOWN", "the registry cannot do it: its log says why", status=500))

    def _user(self) -> str:
        users = self.server.settings.users
        if users is None:
            return ""
        user = users.check(self.headers.get("Authorization", ""))
        if user is None:
            wrong = "wrong name or password" if "Authorization" in self.headers else "log in first"
            raise Refused("UNAUTHORIZED", f"{wrong}: this registry wants a user's name and password",
                          {"WWW-Authenticate": 'Basic realm="minirt registry"'})
        self.who = user
        return user

    def _read_rest(self, body: Body) -> bool:
        """Pass over what a refused request has sent, where that is little; whether the connection can go on."""
        if not body.finished and not body.waiting and not body.chunked and body.left <= PIECE:
            for _ in body:
                pass
        return body.finished

    def _send(self, answer: Answer, keep: bool) -> None:
        descriptor, first, length = answer.body if isinstance(answer.body, tuple) else (-1, 0, len(answer.body))
        try:
            if not keep or self.server.stopping:
                self.close_connection = True
            self.send_response(answer.status)
            for name, value in {**VERSION, **answer.headers}.items():
                self.send_header(name, value.replace("\r", "").replace("\n", ""))
            if answer.status not in (204, 304):
                self.send_header("Content-Length", str(length))
            if self.close_connection or self.request_version == "HTTP/1.0":
                self.send_header("Connection", "close" if self.close_connection else "keep-alive")
            self.end_headers()
            if self.command == "HEAD":
                pass
            elif descriptor < 0:
                self.wfile.write(answer.body)  # type: ignore[arg-type]
            elif self.server.settings.tls:
                self._copy(descriptor, first, length)
            else:
                self._sendfile(descriptor, first, length)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        took = (time.monotonic() - self.begun) * 1000
        self.log(f'{self.command or "-"} {self.path[:LONGEST_SHOWN]} {answer.status} {length} {took:.0f} ms')

    def _sendfile(self, descriptor: int, first: int, length: int) -> None:
        self.wfile.flush()
        end, out = first + length, self.connection.fileno()
        waiting = select.poll()
        waiting.register(out, select.POLLOUT)
        while first < end:
            try:  # the socket has a timeout, so it does not block
                sent = os.sendfile(out, descriptor, first, min(end - first, 1 << 30))
            except BlockingIOError:
                if not waiting.poll(SILENCE * 1000):
                    raise TimeoutError from None
                continue
            if not sent:
                raise ConnectionError("the file has become shorter")
            first += sent

    def _copy(self, descriptor: int, first: int, length: int) -> None:
        end = first + length
        while first < end:
            piece = os.pread(descriptor, min(end - first, PIECE), first)
            if not piece:
                raise ConnectionError("the file has become shorter")
            self.wfile.write(piece)
            first += len(piece)

    def _linger(self) -> None:
        """End our side, and let the other one read: a close with bytes unread would take the answer away again."""
        try:
            self.wfile.flush()
            if not isinstance(self.connection, ssl.SSLSocket):
                self.connection.shutdown(socket.SHUT_WR)
            seconds, left = LINGER
            self.connection.settimeout(seconds)
            deadline = time.monotonic() + seconds
            while left > 0 and time.monotonic() < deadline and (piece := self.connection.recv(PIECE)):
                left -= len(piece)
        except OSError:
            pass

    def log(self, line: str) -> None:
        """A line for the operator, without what could be secret or could move a terminal's cursor."""
        if not self.server.settings.quiet:
            text = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {self.client_address[0]} {self.who} {line}"
            os.write(2, text.encode("ascii", "backslashreplace").translate(_PRINTABLE) + b"\n")

    def version_string(self) -> str:
        """What the header Server says."""
        return "minirt"

    def log_message(self, format: str, *args: object) -> None:
        """What the standard library would say itself."""


_PRINTABLE = bytes(byte if 32 <= byte < 127 else ord("?") for byte in range(256))


def _document(body: Body) -> Iterator[memoryview]:
    """The body of a request that brings a manifest. Raises Refused (SIZE_INVALID) where it is too long for one."""
    left = LARGEST_MANIFEST
    for piece in body:
        left -= len(piece)
        if left < 0:
            raise Refused("SIZE_INVALID", f"a manifest has at most {LARGEST_MANIFEST >> 20} MiB here")
        yield piece


class _Nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


_NOTHING = _Nothing()


class Listener:
    """The registry at an address, from `Listener(...)`, after which clients can connect, to the end of `run`."""

    def __init__(self, address: tuple[str, int], storage: Storage, settings: Settings) -> None:
        self.storage, self.settings = storage, settings
        self.stopping = False
        self.manifests = threading.Semaphore(MANIFESTS)
        self._places = threading.Semaphore(CONNECTIONS)
        self._open: dict[socket.socket, float] = {}  # connection -> since when it is at rest; 0 while it is answered
        self._changed = threading.Condition()
        self._wake, self.waker = os.pipe()
        os.set_blocking(self.waker, False)
        try:
            self.socket = socket.create_server(address, family=_family(address[0]), backlog=512)
        except OSError as error:
            reason = str(error.strerror or error).partition(" (while attempting")[0]  # it tells the address again
            raise MinirtError(f"listening on {address[0]}:{address[1]}: {reason}") from None
        self.address: tuple[str, int] = self.socket.getsockname()[:2]

    def busy(self, connection: Connection, busy: bool) -> None:
        """Note whether a connection is being answered, or at rest between two requests."""
        with self._changed:
            if connection.request in self._open:
                self._open[connection.request] = 0 if busy else time.monotonic()
            if self.stopping and not busy:
                connection.close_connection = True

    def stop(self, *_: object) -> None:
        """Ask for the end: takes no more connections, finishes what it is answering. May be called by a signal."""
        self.stopping = True
        os.write(self.waker, b".")

    def run(self) -> None:
        """Serve until `stop`, then let what is being answered come to its end, for a while."""
        waiting = select.poll()
        waiting.register(self._wake, select.POLLIN)
        waiting.register(self.socket, select.POLLIN)
        self.socket.setblocking(False)
        while not self.stopping:
            events = waiting.poll(SILENCE * 100)
            self._give_up(time.monotonic() - SILENCE)
            if any(descriptor == self._wake for descriptor, _ in events):
                os.read(self._wake, 100)  # a signal: by the next instruction its handler has run
                continue
            if not events:
                continue
            if not self._places.acquire(blocking=False):
                self._give_up()
                if not self._places.acquire(timeout=0.2):
                    continue
            try:
                connection, client = self.socket.accept()
                threading.Thread(target=self._serve, args=(connection, client), daemon=True).start()
            except (OSError, RuntimeError) as error:  # no descriptors, or no threads, are left: others will end
                self._places.release()
                if not isinstance(error, BlockingIOError):
                    time.sleep(0.1)
        self.socket.close()
        self._finish()

    def _give_up(self, before: float = 0) -> None:
        """Shut the connections that have been at rest since `before`; with 0 the one that has been for longest."""
        with self._changed:
            resting = sorted((each for each in self._open.items() if each[1]), key=lambda each: each[1])
            for connection, since in resting if before else resting[:1]:
                if not before or since < before:
                    _shut(connection)

    def _finish(self) -> None:
        deadline = time.monotonic() + GRACE
        with self._changed:
            for connection, since in self._open.items():
                if since:
                    _shut(connection)
            while self._open and time.monotonic() < deadline:
                self._changed.wait(deadline - time.monotonic())
            for connection in self._open:
                _shut(connection)

    def _serve(self, connection: socket.socket, client: tuple[str, int]) -> None:
        try:
            connection.settimeout(SILENCE)
            if self.settings.tls:
                connection = self.settings.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            with self._changed:
                self._open[connection] = time.monotonic()
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()  # a client that is slow to greet keeps nobody waiting, and counts as at rest
            Connection(connection, client, self)  # type: ignore[arg-type]
        except OSError:
            pass
        finally:
            with self._changed:
                self._open.pop(connection, None)
                self._changed.notify_all()
            connection.close()
            self._places.release()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _shut(connection: socket.socket) -> None:
    try:
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        pass


def certificate(cert: str, key: str) -> ssl.SSLContext:
    """What TLS needs of the files `cert` (a PEM chain) and `key`. Raises MinirtError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise MinirtError(f"the certificate {cert} with the key {key}: {error.strerror or error}") from None
    return context


def serve(listener: Listener) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends it at once."""
    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        listener.stop()

    signal.set_wakeup_fd(listener.waker)  # the kernel may give the signal to any thread; the one that listens must wake
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # not in every C library
        mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD, mallopt(3): what a large manifest took goes back to the kernel
    sys.setswitchinterval(0.001)  # a request that only asks for a manifest does not wait for one that hashes
    listener.run()

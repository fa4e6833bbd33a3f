"""Chapter 14: the body of a request, as it comes from the socket.

A body is either counted (Content-Length) or chunked, and comes in pieces of one small buffer: so memory does not grow
with what is sent. What could mean two things to two readers (RFC 9112, 6.3), or breaks its own rules, is `Malformed`:
where the next request begins would be a guess, so the connection ends.

Sources: RFC 9110 (10.1.1, Expect), RFC 9112 (6, 7).
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler

PIECE = 256 << 10  # bytes of a body that are held at once, for each connection
SILENCE = 60.0  # seconds without a byte, or without a request, after which a connection is given up
SLOWEST = 1 << 10  # bytes a second, of a body that has been coming for longer than that


class Malformed(Exception):
    """A request that could be read in two ways, or a body that breaks its own rules: the connection ends.

    `str()` is the sentence, `status` what HTTP calls it.
    """

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


class Body:
    """The body of one request, in pieces of one buffer: each is gone when the next is asked for."""

    def __init__(self, connection: BaseHTTPRequestHandler) -> None:
        self.connection = connection
        headers = connection.headers
        lengths, codings = headers.get_all("Content-Length", []), headers.get_all("Transfer-Encoding", [])
        if len(lengths) > 1 or len(codings) > 1 or (lengths and codings):
            raise Malformed("its length is given more than once")
        if codings and codings[0].strip().lower() != "chunked":
            raise Malformed("its transfer coding is not known here: send it chunked, or with its length")
        text = lengths[0].strip() if lengths else "0"
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise Malformed("its length is no number")
        self.chunked, self.left = bool(codings), int(text)
        self.begun, self.arrived = time.monotonic(), 0
        expects = headers.get("Expect", "").lower() == "100-continue"  # the client sends when we ask for it
        self.waiting = expects and connection.request_version != "HTTP/1.0"

    @property
    def finished(self) -> bool:
        """Whether everything has been read."""
        return not self.chunked and not self.left

    def __iter__(self) -> Iterator[memoryview]:
        if not self.finished and self.waiting:
            self.connection.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.connection.wfile.flush()
            self.waiting = False
        return self._chunks() if self.chunked else self._counted()

    def _counted(self) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(self.left, PIECE)))
        while self.left:
            count = self.connection.rfile.readinto1(buffer[: self.left])  # type: ignore[attr-defined]
            if not count:
                raise ConnectionError("the connection ended within a body")
            self.left, self.arrived = self.left - count, self.arrived + count
            if time.monotonic() - self.begun > SILENCE + self.arrived / SLOWEST:
                raise TimeoutError
            yield buffer[:count]

    def _chunks(self) -> Iterator[memoryview]:
        while self.chunked:
            size = self._line().partition(b";")[0].strip()
            if not size or size.strip(b"0123456789abcdefABCDEF") or len(size) > 15:
                raise Malformed("a chunk has no size")
            self.left = int(size, 16)
            if self.left:
                yield from self._counted()
            else:
                self.chunked = False
            while (trailer := self._line()) and not self.chunked:  # what may follow the last chunk is not used
                pass
            if trailer:
                raise Malformed("a chunk is longer than its size")

    def _line(self) -> bytes:
        line = self.connection.rfile.readline(4096)
        if not line.endswith(b"\r\n"):
            raise Malformed("a line of a chunked body is too long, or not ended")
        return line.strip()

"""Chapter 14: the head of a request, as it comes from the socket.

A line that says what is wanted, then a line for each header, then an empty one. Between us and a client there may be
other readers (a proxy, a firewall), and where two of them understand a head differently, a request can be hidden in
another one. So what is not written as RFC 9112 says is `Malformed`, and never guessed at: the connection ends.

Sources: RFC 9110 (5, 7), RFC 9112 (2 to 5, 9.3).
"""

from __future__ import annotations

import re
from email.message import Message

from minirt.registry.body import Malformed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import BufferedIOBase

LONGEST = 64 << 10  # bytes, of the first line, and of all headers
MOST_HEADERS = 100

_REQUEST = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) HTTP/(\d)\.(\d)\r?\n")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*?)[ \t]*\r?\n")
_SERVER = re.compile(r"https?://[^/?#]+", re.IGNORECASE)


class Head:
    """What a head says: `method`, `target` (the path and its query), `version` ("HTTP/1.0" or "HTTP/1.1"), `headers`,
    and whether the connection may go on after this request: `keep`."""

    def __init__(self, first: bytes, file: BufferedIOBase) -> None:
        """`first` is the first line, `file` gives those that follow. Raises Malformed, with the status to answer."""
        found = _REQUEST.fullmatch(first)
        if not found:
            raise Malformed("it does not begin as a request of HTTP does")
        if found[3] != b"1":
            raise Malformed("this registry speaks HTTP/1.0 and HTTP/1.1", 505)
        self.method, target = found[1].decode(), found[2].decode("latin-1")
        self.version = "HTTP/1.0" if found[4] == b"0" else "HTTP/1.1"
        self.headers = _headers(file)
        hosts = self.headers.get_all("Host", [])
        if len(hosts) > 1 or (not hosts and self.version == "HTTP/1.1"):
            raise Malformed("it needs the header Host, and that once")
        self.target = _SERVER.sub("", target, count=1) or "/" if _SERVER.match(target) else target
        wishes = {wish.strip().lower() for each in self.headers.get_all("Connection", []) for wish in each.split(",")}
        self.keep = "close" not in wishes and (self.version == "HTTP/1.1" or "keep-alive" in wishes)


def _headers(file: BufferedIOBase) -> Message:
    headers, left = Message(), LONGEST
    while (line := file.readline(left + 1)) not in (b"\r\n", b"\n"):
        left -= len(line)
        if left < 0 or len(headers) == MOST_HEADERS:
            raise Malformed(f"it has more than {MOST_HEADERS} headers, or {LONGEST >> 10} KiB of them", 431)
        if not line:
            raise ConnectionError("the connection ended within a head")
        found = _HEADER.fullmatch(line)
        if not found:
            raise Malformed("a header is not written as NAME: VALUE")
        headers[found[1].decode()] = found[2].decode("latin-1")
    return headers

"""Chapter 06: talking to the kernel's network configuration.

Interfaces, addresses and routes are set by messages on a netlink socket: a header, a fixed structure, attributes;
the kernel answers each request with an error number, 0 for success.

Manual pages: netlink(7), rtnetlink(7).
"""

from __future__ import annotations

import _socket
import os

NETLINK_ROUTE = 0
RTM_NEWLINK = 16
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NLMSG_ERROR = 2
IFF_UP = 1


def request(kind: int, body: bytes, flags: int = 0) -> None:
    """Send one message of `kind` and wait for the kernel's answer. Raises OSError with the number that it gives."""
    channel = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    try:
        header = (16 + len(body)).to_bytes(4, "little") + kind.to_bytes(2, "little")
        header += (flags | NLM_F_REQUEST | NLM_F_ACK).to_bytes(2, "little") + bytes(8)
        channel.send(header + body)
        answer = channel.recv(4096)
    finally:
        channel.close()
    number = -int.from_bytes(answer[16:20], "little", signed=True)
    if int.from_bytes(answer[4:6], "little") != NLMSG_ERROR or number:
        raise OSError(number, os.strerror(number))


def link_up(index: int) -> None:
    """Switch interface number `index` on. Raises OSError. Source: rtnetlink(7), struct ifinfomsg."""
    request(RTM_NEWLINK, bytes(4) + index.to_bytes(4, "little") + IFF_UP.to_bytes(4, "little") * 2)

"""Chapter 06: talking to the kernel's network configuration.

Interfaces, addresses and routes are not changed by system calls of their own but by *messages*, sent to the kernel on a
socket of the family AF_NETLINK. A message is a header of 16 bytes, then a structure that depends on its kind, then any
number of *attributes*: length, kind, value, filled up to a multiple of four. A value may be made of attributes again.

    header      length 32 | kind 16 | flags 16 | sequence 32 | port 32
    structure   link: ifinfomsg · address: ifaddrmsg · route: rtmsg
    attributes  length 16 | kind 16 | value ...   length 16 | kind 16 | value ...

To a request that asks for it the kernel answers with a message that holds an error number, 0 for success. The socket
belongs to the network namespace in which it was made, whatever its process enters later.

Rules of the room: numbers in the machine's own order (little-endian on both our architectures); one function per kind
of message; nothing is read here but answers (reading the state is for tools: ip(8), pyroute2). It raises OSError and
says nothing. `_socket` is the C half of `socket`, at a twentieth of its price.

Manual pages: netlink(7), rtnetlink(7), veth(4).
"""

from __future__ import annotations

import _socket
import os

NETLINK_ROUTE = 0
# <linux/rtnetlink.h>, <linux/netlink.h>
RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_NEWROUTE = 16, 17, 20, 24
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
NLMSG_ERROR = 2
# attributes: <linux/if_link.h>, <linux/veth.h>, <linux/if_addr.h>, <linux/rtnetlink.h>
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_OIF, RTA_GATEWAY = 4, 5
RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 3, 0, 1
IFF_UP = 1  # <linux/if.h>
EPROTO = 71


def u16(number: int) -> bytes:
    """A number as two bytes, the lower one first: netlink takes the machine's own order, that of x86 and ARM."""
    return number.to_bytes(2, "little")


def u32(number: int) -> bytes:
    """A number as four bytes, the lowest first."""
    return number.to_bytes(4, "little")


# --- the parts of a message -------------------------------------------------------------------------------------------


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute: how long it is and of which kind (`u16` each), `value`, and zeros up to a multiple of four bytes.

    The length counts these four bytes and the value, but not the zeros at the end. So (3, b"eth0\\0") becomes
    09 00 03 00 65 74 68 30 00 00 00 00. Source: netlink(7), rtnetlink(7) "struct rtattr".
    """
    data = u16(4 + len(value)) + u16(kind) + value
    return data + bytes(-len(data) % 4)


def nest(kind: int, *parts: bytes) -> bytes:
    """An attribute whose value is made of other attributes."""
    return attribute(kind, b"".join(parts))


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A whole message: the header of 16 bytes, then `body`.

    The header has the message's whole length, itself included (`u32`); `kind` and `flags` (`u16` each); a sequence
    number, which the answer repeats, and the port of the sender, for which 0 lets the kernel fill in ours (`u32` each).
    Source: netlink(7) "struct nlmsghdr".
    """
    return u32(16 + len(body)) + u16(kind) + u16(flags) + u32(sequence) + u32(0) + body


def failure(answer: bytes) -> int:
    """The error number in the kernel's answer to a request; 0 when it did what was asked.

    The answer is a message. If its kind (the two bytes at 4) is NLMSG_ERROR, the four bytes behind the header (at 16)
    are a signed number, `int.from_bytes(..., "little", signed=True)`: 0, or an errno with a minus in front, as the
    kernel writes it inside. Return it without the minus. An answer of another kind was not asked for: return EPROTO.
    Source: netlink(7) "struct nlmsgerr".
    """
    if int.from_bytes(answer[4:6], "little") != NLMSG_ERROR:
        return EPROTO
    return -int.from_bytes(answer[16:20], "little", signed=True)


def request(kind: int, body: bytes, flags: int = 0) -> None:
    """Send one message to the kernel, in this process's network namespace, and wait for the answer.

    Raises OSError with the number that the kernel gives: EEXIST, ENODEV, EPERM (without CAP_NET_ADMIN). netlink(7).
    """
    channel = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    try:
        channel.send(message(kind, flags | NLM_F_REQUEST | NLM_F_ACK, 1, body))
        number = failure(channel.recv(4096))
    finally:
        channel.close()
    if number:
        raise OSError(number, os.strerror(number))


# --- interfaces -------------------------------------------------------------------------------------------------------


def link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """struct ifinfomsg: which interface (0: named by an attribute), and which of its flags, those in `change`, are set
    to `flags`."""
    return bytes(4) + u32(index) + u32(flags) + u32(change)


def index_of(name: str) -> int:
    """The number of the interface `name` in this network namespace. Raises OSError (ENODEV). if_nametoindex(3)."""
    return _socket.if_nametoindex(name)


def name_attribute(name: str) -> bytes:
    """The attribute that names an interface: the text with a NUL at its end; the kernel allows 15 bytes."""
    return attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")


def link_up(index: int) -> None:
    """Switch interface number `index` on. Raises OSError. Source: rtnetlink(7), struct ifinfomsg."""
    request(RTM_NEWLINK, link(index, IFF_UP, IFF_UP))


def new_veth(name: str, peer: str, namespace: int = -1) -> None:
    """Make a veth pair: two interfaces joined by a cable. What is sent into one comes out of the other.

    `name` is the end in this network namespace; `peer` is the other one, born in the namespace behind the descriptor
    `namespace` if that is not negative, else here as well. Both are switched off. Raises OSError (EEXIST).
    Sources: veth(4), rtnetlink(7).
    """
    place = attribute(IFLA_NET_NS_FD, u32(namespace)) if namespace >= 0 else b""
    other_end = nest(VETH_INFO_PEER, link(), name_attribute(peer), place)
    info = nest(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"veth"), nest(IFLA_INFO_DATA, other_end))
    request(RTM_NEWLINK, link() + name_attribute(name) + info, NLM_F_CREATE | NLM_F_EXCL)


def set_link(index: int, name: str = "", hardware: bytes = b"", mtu: int = 0) -> None:
    """Change an interface that is switched off: its `name`, its `hardware` address (6 bytes), the size in bytes of its
    longest packet. What is empty or 0 stays. Raises OSError (EBUSY: it is on). Source: rtnetlink(7)."""
    parts = [name_attribute(name) if name else b"", attribute(IFLA_ADDRESS, hardware) if hardware else b"",
             attribute(IFLA_MTU, u32(mtu)) if mtu else b""]
    request(RTM_NEWLINK, link(index) + b"".join(parts))


def move_link(index: int, namespace: int) -> None:
    """Move an interface to the network namespace behind the descriptor `namespace`. It is switched off there and has
    lost its addresses. Raises OSError (EEXIST: its name is taken there). Source: rtnetlink(7)."""
    request(RTM_NEWLINK, link(index) + attribute(IFLA_NET_NS_FD, u32(namespace)))


def delete_link(index: int) -> None:
    """Remove an interface; with one end of a veth pair goes the other. Raises OSError. Source: rtnetlink(7)."""
    request(RTM_DELLINK, link(index))


# --- addresses and routes ---------------------------------------------------------------------------------------------


def packed(address: str) -> tuple[int, bytes]:
    """The family of an address (AF_INET or AF_INET6) and its 4 or 16 bytes. Raises OSError for no address.
    inet_pton(3)."""
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    return family, _socket.inet_pton(family, address)


def add_address(index: int, address: str, length: int) -> None:
    """Give interface number `index` the `address` (text) in a network whose addresses share their first `length` bits.

    The structure ifaddrmsg is four bytes (family, `length`, flags 0, scope 0: the world) and the index (`u32`). Two
    attributes say the same on an Ethernet, IFA_LOCAL: who I am; IFA_ADDRESS: whom this interface reaches. The kernel
    makes a route to the network by itself. `packed` gives family and bytes; it is RTM_NEWADDR with NLM_F_CREATE and
    NLM_F_EXCL. Raises OSError (EEXIST). Source: rtnetlink(7) "struct ifaddrmsg".
    """
    family, value = packed(address)
    body = bytes((family, length, 0, 0)) + u32(index) + attribute(IFA_LOCAL, value) + attribute(IFA_ADDRESS, value)
    request(RTM_NEWADDR, body, NLM_F_CREATE | NLM_F_EXCL)


def add_default_route(gateway: str, index: int) -> None:
    """Send all that has no nearer route to the router `gateway`, by way of interface number `index`.

    struct rtmsg: family, lengths of the destination (0: everything) and source, type of service, table, who made it,
    scope, kind, then flags. Raises OSError (ENETUNREACH: the gateway is not in reach). Source: rtnetlink(7).
    """
    family, value = packed(gateway)
    body = bytes((family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST)) + u32(0)
    body += attribute(RTA_GATEWAY, value) + attribute(RTA_OIF, u32(index))
    request(RTM_NEWROUTE, body, NLM_F_CREATE | NLM_F_EXCL)

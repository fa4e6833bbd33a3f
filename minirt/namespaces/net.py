"""Chapter 06: interfaces of one's own.

Interfaces, addresses, routes, ports that are listened on, firewall rules, and the settings in /proc/sys/net belong to a
*network namespace*. A new one is empty but for a loopback interface, number 1, which is switched off: its processes
reach nobody, not even themselves. An interface is in one namespace at a time and can be moved. Two namespaces are
joined by a *veth pair*, a cable with a plug at each end, one in either; when one end goes, so does the other. The
namespace itself goes with its last process and its last socket, and takes its end along.

Rules of the room: `enter` makes the namespace, `configure` makes it talk to itself; `join` lays a cable to another
one, `plug` makes an end usable. What is on the other end (bridges, addresses for everybody, the way out) is chapter 15.

Manual pages: network_namespaces(7), veth(4), unshare(2), netlink(7).
"""

from __future__ import annotations

import os

from minirt import trace
from minirt.kernel import netlink, syscalls

CHAPTER = 6

CLONE_NEWNET = 0x40000000  # <linux/sched.h>
LOOPBACK = 1


@trace.narrated(CHAPTER, "enter a network namespace of its own: no interface but a loopback", "unshare(CLONE_NEWNET)")
def enter() -> None:
    """Move this process into a new network namespace.

    Use `syscalls.unshare` with CLONE_NEWNET and nothing else. Sockets that are open already stay in the namespace in
    which they were made. Raises OSError (EPERM without CAP_SYS_ADMIN). Sources: unshare(2), network_namespaces(7).
    """
    syscalls.unshare(CLONE_NEWNET)


@trace.narrated(CHAPTER, "switch the loopback interface on", "RTM_NEWLINK(lo, IFF_UP)")
def configure() -> None:
    """Switch the loopback interface of this process's network namespace on.

    It is interface number LOOPBACK in every namespace; `netlink.link_up` switches one on. The kernel gives it the
    addresses 127.0.0.1 and ::1 by itself. Raises OSError (EPERM without CAP_NET_ADMIN). Sources: netlink(7),
    rtnetlink(7).
    """
    netlink.link_up(LOOPBACK)


@trace.narrated(CHAPTER, "lay a cable: {name} here, {peer} there", "RTM_NEWLINK({name}, veth, peer {peer})")
def join(name: str, peer: str, namespace: int) -> None:
    """Make a veth pair with the end `name` in this network namespace and `peer` in the one behind the descriptor
    `namespace` (an open /proc/PID/ns/net). Both ends are off. Raises OSError (EEXIST: a name is taken). veth(4)."""
    netlink.new_veth(name, peer, namespace)


@trace.narrated(CHAPTER, "give {name} the address {address} and switch it on",
                "RTM_NEWADDR({name}, {address}); RTM_NEWLINK({name}, IFF_UP)")
def plug(name: str, address: str, gateway: str = "", hardware: bytes = b"") -> None:
    """Make the interface `name` of this process's network namespace usable.

    `address` is an address and how many of its bits name the network, "10.6.0.2/24"; `gateway` is the router for all
    other networks, none when it is empty; `hardware` is an Ethernet address of 6 bytes that replaces the random one.

    The order: `netlink.index_of` gives the interface's number. The hardware address (`netlink.set_link`) comes first,
    while the interface is off. Then `netlink.add_address`, `netlink.link_up`, and last `netlink.add_default_route`:
    the kernel takes a route only through an interface that is on. Raises OSError. Sources: rtnetlink(7),
    ip-address(8), ip-route(8).
    """
    index = netlink.index_of(name)
    if hardware:
        netlink.set_link(index, hardware=hardware)
    host, _, length = address.partition("/")
    netlink.add_address(index, host, int(length))
    netlink.link_up(index)
    if gateway:
        netlink.add_default_route(gateway, index)


def hardware_address(text: str) -> bytes:
    """The six bytes of an Ethernet address as it is written, "02:42:ac:11:00:02". Raises ValueError.

    Bit 0 of the first byte marks a group of receivers, so an interface's own address has it clear.
    """
    parts = text.replace("-", ":").split(":")
    if len(parts) != 6 or any(len(part) != 2 for part in parts):
        raise ValueError(f"{text} is not a valid mac address")
    try:
        return bytes(int(part, 16) for part in parts)
    except ValueError:
        raise ValueError(f"{text} is not a valid mac address") from None


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room."""
    return [("network namespace", os.path.exists("/proc/self/ns/net"), "CLONE_NEWNET", "a kernel with CONFIG_NET_NS")]

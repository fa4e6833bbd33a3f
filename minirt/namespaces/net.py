"""Chapter 06: interfaces of one's own.

A new network namespace has one interface, the loopback, number 1, and it is down.

Manual pages: network_namespaces(7), unshare(2).
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
    """Move this process into a new network namespace. Raises OSError (EPERM without CAP_SYS_ADMIN). unshare(2)."""
    syscalls.unshare(CLONE_NEWNET)


@trace.narrated(CHAPTER, "switch the loopback interface on", "RTM_NEWLINK(lo, IFF_UP)")
def configure() -> None:
    """Switch the loopback interface on; the kernel gives it 127.0.0.1 and ::1 by itself. Raises OSError. netlink(7)."""
    netlink.link_up(LOOPBACK)


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room."""
    return [("network namespace", os.path.exists("/proc/self/ns/net"), "CLONE_NEWNET", "a kernel with CONFIG_NET_NS")]

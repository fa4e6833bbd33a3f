"""Chapter 06: settings of the kernel that belong to a namespace, and not to the machine.

Below /proc/sys lie the kernel's settings, one a file. Most are the machine's. Some have a value of their own in each
network namespace (`net.*`) or in each IPC namespace (shared memory, semaphores, queues), and which one a process reads
or writes depends on the namespaces that it is in. A container finds /proc/sys read-only, so they are set for it, by a
process that is behind the container's walls already, just before it is made so.

Rules of the room: nothing is written whose namespace is the machine's (`refusal`), and nothing that is no file of a
proc file system: a volume may lie over the container's /proc.

Manual pages: proc_sys(5), sysctl(8), network_namespaces(7), ipc_namespaces(7).
"""

from __future__ import annotations

import ctypes
import os

from minirt import trace
from minirt.errors import KernelError
from minirt.kernel import paths, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

CHAPTER = 6

PROC_SUPER_MAGIC = 0x9FA0  # <linux/magic.h>
IPC = ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
       "kernel.shmmni", "kernel.shm_rmid_forced")
# Docker's, in a network namespace that is the container's own: an ordinary user may have the ports below 1024 and send
# a ping, for which root in a container has a capability anyway.
PORTS = "net.ipv4.ip_unprivileged_port_start"
PINGS = "net.ipv4.ping_group_range"


def refusal(name: str, private: Collection[str]) -> str:
    """Why the setting `name` may not be changed for a container whose namespaces `private` ("ipc", "network", ...) are
    not the machine's, as runc words it; empty when it may. Sources: ipc_namespaces(7), network_namespaces(7)."""
    if name in IPC or name.startswith("fs.mqueue."):
        return "" if "ipc" in private else f'sysctl "{name}" is not allowed in the hosts ipc namespace'
    if name.startswith("net."):
        return "" if "network" in private else f'sysctl "{name}" not allowed in host network namespace'
    return f'sysctl "{name}" is not in a separate kernel namespace'


def configure(root: int, settings: Mapping[str, str]) -> None:
    """Set each of `settings`, NAME: VALUE, in the namespaces of this process, through the /proc below the directory
    `root` (a descriptor). Raises KernelError, with the reason."""
    for name, value in settings.items():
        try:
            write(root, name, value)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise KernelError(f'sysctl "{name}" cannot be set to "{value}": {reason}') from None


@trace.narrated(CHAPTER, "set {name} to {value}", "sysctl -w {name}='{value}'")
def write(root: int, name: str, value: str) -> None:
    """Write `value` to the file of one setting: that of "net.ipv4.ip_forward" is /proc/sys/net/ipv4/ip_forward, below
    `root`. Raises OSError, KernelError when what is there is no file of a proc file system. proc_sys(5)."""
    file = paths.open_in_root(root, f"/proc/sys/{name.replace('.', '/')}", os.O_WRONLY)
    try:
        status = ctypes.create_string_buffer(256)  # struct statfs of <sys/vfs.h>: it begins with the type, a long
        syscalls.call("fstatfs", file, ctypes.byref(status))
        if ctypes.c_long.from_buffer(status).value != PROC_SUPER_MAGIC:
            raise KernelError(f"the file of the setting {name} is not one of a proc file system")
        os.write(file, os.fsencode(value))
    finally:
        os.close(file)

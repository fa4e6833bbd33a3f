"""Chapter 02: a host name of one's own.

The kernel keeps one host name and one NIS domain name *per UTS namespace* (the name comes from `struct utsname`, which
uname(2) fills). A new UTS namespace begins with a copy of both; from then on changes on either side stay there. The
namespace lives as long as a process is in it.

Rules of the room: `enter` makes the namespace, `configure` fills it, each one system call or two. Every namespace room
of minirt has these two, and the container process (chapter 12) is a loop over them.

Manual pages: uts_namespaces(7), unshare(2), sethostname(2), setdomainname(2), uname(2).
"""

from __future__ import annotations

import os

from minirt import trace
from minirt.kernel import syscalls

CHAPTER = 2

CLONE_NEWUTS = 0x04000000  # <linux/sched.h>


@trace.narrated(CHAPTER, "enter a UTS namespace of its own", "unshare(CLONE_NEWUTS)")
def enter() -> None:
    """Move this process into a new UTS namespace, with copies of the host's two names.

    Use `syscalls.unshare` with CLONE_NEWUTS and nothing else: other bits make other namespaces.
    Raises OSError (EPERM without CAP_SYS_ADMIN). Sources: unshare(2), uts_namespaces(7).
    """
    syscalls.unshare(CLONE_NEWUTS)


@trace.narrated(CHAPTER, "name the host {hostname!r}", "sethostname({hostname!r})")
def configure(hostname: str, domainname: str = "") -> None:
    """Set the host name of this process's UTS namespace to `hostname`, and its NIS domain name unless it is empty.

    Both are strings; the kernel wants their bytes and how many there are, without a closing NUL, so a name of 64 bytes
    fits and a longer one is refused (OSError EINVAL). The names belong to the namespace: every process in it sees
    them at once, and no process outside does. Use `syscalls.call("sethostname", BYTES, LENGTH)` and "setdomainname"
    likewise. Sources: sethostname(2), setdomainname(2).
    """
    name = os.fsencode(hostname)
    syscalls.call("sethostname", name, len(name))
    if domainname:
        domain = os.fsencode(domainname)
        syscalls.call("setdomainname", domain, len(domain))


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room: (what, present, detail, mend) for each thing the kernel may lack."""
    return [("UTS namespace", os.path.exists("/proc/self/ns/uts"), "CLONE_NEWUTS", "a kernel with CONFIG_UTS_NS")]

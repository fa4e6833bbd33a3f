"""Chapter 11: loading a filter, the last thing a container's process does as its old self.

From then on the filter judges every system call of the process and of all that come from it; nothing can take it off,
only further filters can be added. How a filter is made stands in `bpf` and `compiler`; this room is apart so that the
process that only loads one need not import them.

Manual page: seccomp(2).
"""

from __future__ import annotations

import ctypes

from minirt import trace
from minirt.kernel import syscalls

CHAPTER = 11

SECCOMP_SET_MODE_FILTER = 1        # <linux/seccomp.h>
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4  # do not slow the process down against Spectre v4, as runc does not


class _Program(ctypes.Structure):
    """struct sock_fprog of <linux/filter.h>."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


@trace.narrated(CHAPTER, "load the system call filter", "seccomp(SECCOMP_SET_MODE_FILTER)")
def install(assembled: bytes) -> None:
    """Load a filter (`bpf.assemble` made it): from now on it judges every system call of this process and of all that
    come from it, and nothing can take it off.

    Without no_new_privs the kernel wants CAP_SYS_ADMIN for that, or a set-user-id program could be fooled by a filter:
    so it is loaded before the capabilities go, or after no_new_privs is set. Use `syscalls.call("seccomp",
    SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, POINTER)`. The pointer (`ctypes.byref`) is to a `_Program`:
    how many instructions, and where they are.
    Raises OSError (EACCES, EINVAL). Source: seccomp(2).
    """
    pointer = _Program(len(assembled) // 8, assembled)
    syscalls.call("seccomp", SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, ctypes.byref(pointer))


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room."""
    try:
        with open("/proc/sys/kernel/seccomp/actions_avail") as file:
            actions = file.read().strip()
    except OSError:
        actions = ""
    return [("seccomp filters", "errno" in actions, actions, "a kernel with CONFIG_SECCOMP_FILTER")]

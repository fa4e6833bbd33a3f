"""Chapter 01: a system call, made from Python.

A program asks the kernel for everything by *system calls*: a number in one register, up to six arguments in others, an
instruction that switches to the kernel, an answer. The C library wraps most of them; for the rest it has syscall(2),
which takes the number itself. Python wraps what programs usually need; a container runtime needs the others, so this
module calls syscall(2) through `ctypes`.

Rules of the room: one function per system call, named after it, with the call's own arguments. It raises OSError and
says nothing: the rooms above narrate, and make sentences for people. What only one chapter needs stands with that
chapter. Numbers differ from one processor architecture to another, so they stand once, in a table per architecture.

Manual pages: syscall(2), syscalls(2), errno(3), mount(2), umount(2), unshare(2), setns(2).
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# From the kernel's <asm/unistd.h> of each architecture. Calls since Linux 5.0 have one number everywhere.
_SINCE_5_0 = {
    "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "pidfd_open": 434, "clone3": 435, "close_range": 436, "openat2": 437, "pidfd_getfd": 438, "mount_setattr": 442,
}
NUMBERS_OF = {
    "x86_64": {
        "getpid": 39, "gettid": 186, "shmget": 29, "shmat": 30, "shmctl": 31, "shmdt": 67,
        "semget": 64, "semctl": 66, "msgget": 68, "msgctl": 71, "mq_open": 240, "mq_unlink": 241,
        "capget": 125, "capset": 126, "pivot_root": 155, "prctl": 157, "mount": 165, "umount2": 166,
        "sethostname": 170, "setdomainname": 171, "keyctl": 250, "mknodat": 259, "unshare": 272, "syncfs": 306,
        "fstatfs": 138, "prlimit64": 302, "setns": 308, "seccomp": 317, "bpf": 321, "execveat": 322, **_SINCE_5_0,
    },
    "aarch64": {
        "getpid": 172, "gettid": 178, "shmget": 194, "shmat": 196, "shmctl": 195, "shmdt": 197,
        "semget": 190, "semctl": 191, "msgget": 186, "msgctl": 187, "mq_open": 180, "mq_unlink": 181,
        "capget": 90, "capset": 91, "pivot_root": 41, "prctl": 167, "mount": 40, "umount2": 39,
        "sethostname": 161, "setdomainname": 162, "keyctl": 219, "mknodat": 33, "unshare": 97, "syncfs": 267,
        "fstatfs": 44, "prlimit64": 261, "setns": 268, "seccomp": 277, "bpf": 280, "execveat": 281, **_SINCE_5_0,
    },
}
ARCHITECTURE = os.uname().machine
NUMBERS = NUMBERS_OF.get(ARCHITECTURE, {})

# `use_errno` keeps a copy of errno from the moment of the call: by the time Python code could look, it has changed.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def call(name: str, *arguments: Any) -> int:
    """Make the system call `name` and return its result.

    `NUMBERS` has the number of each name on this machine; for a name that it does not have raise OSError(ENOSYS), and
    ENOSYS is 38. `_libc.syscall(NUMBER, ...)` makes the call. Its arguments are the number, as `ctypes.c_long`, and
    each of `arguments` as `_register` makes it: an int as a whole register (ctypes alone would cut it to 32 bits),
    bytes or a `str` path as the address of a NUL-terminated copy, None as a null pointer; a ctypes object is passed as
    it is, so use `ctypes.byref` for a structure.

    syscall(2) returns -1 on failure, and leaves the reason in errno, which `ctypes.get_errno()` has kept: then raise
    OSError with that number and its text (`os.strerror`). Sources: syscall(2), errno(3).
    """
    if name not in NUMBERS:
        raise OSError(38, f"{os.strerror(38)}: {name} on {ARCHITECTURE}")  # ENOSYS
    registers = [_register(argument) for argument in arguments]
    result: int = _libc.syscall(ctypes.c_long(NUMBERS[name]), *registers)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _register(argument: Any) -> Any:
    """An argument in the form in which ctypes puts it, whole, into a register."""
    if isinstance(argument, int):
        return ctypes.c_long(argument) if argument < 0 else ctypes.c_ulong(argument)
    if isinstance(argument, str):
        return os.fsencode(argument)
    return argument


def mount(source: str | None, target: str, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    """Attach a file system, or change how one is attached: the bare mount(2).

    `source` is what to mount (a device, a directory for a bind mount, a mere label for a file system without one),
    `target` the directory or file to put it on, `fstype` a name of /proc/filesystems, `flags` the MS_* bits, `data`
    the file system's own options, comma-separated, at most 4095 bytes. None becomes a null pointer: the kernel ignores
    what the operation does not need. Raises OSError. Source: mount(2).
    """
    call("mount", source, target, fstype, flags, data)


def umount2(target: str, flags: int = 0) -> None:
    """Detach the topmost file system at `target`; MNT_DETACH (2) hides it now and frees it when unused. umount(2)."""
    call("umount2", target, flags)


def unshare(flags: int) -> None:
    """Give this process namespaces of its own, one for each CLONE_NEW* bit in `flags`. Raises OSError. unshare(2)."""
    call("unshare", flags)


def setns(descriptor: int, kind: int = 0) -> None:
    """Join the namespace that `descriptor` (an open /proc/PID/ns/* file) refers to; `kind`, a CLONE_NEW* bit, checks
    that it is of that kind. With a pidfd, join all the kinds in `kind` at once. Raises OSError. setns(2)."""
    call("setns", descriptor, kind)

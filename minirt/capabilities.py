"""Chapter 10: root with most of its power removed.

What root may do is not one privilege but some forty *capabilities*, each a bit: CAP_CHOWN changes owners, CAP_NET_ADMIN
configures networks, CAP_SYS_ADMIN mounts and much more. Every process has five sets of them:

    permitted    what it may use at all; a bit that is gone from here is gone for good
    effective    what the kernel looks at now; always within permitted
    inheritable  what an exec may hand on, where the file asks for it
    bounding     the limit of what any exec can ever give; a bit dropped here no set-user-id program brings back
    ambient      what an exec hands on to an ordinary program of an ordinary user

An exec computes the new sets. For the user root it gives permitted = inheritable | bounding and makes all of it
effective; for anybody else, without file capabilities, only the ambient set is left. So a container's root is limited
by its bounding set, and a container's ordinary user has nothing.

Rules of the room: the tables first, then reading, choosing, dropping.
Manual pages: capabilities(7), capset(2), prctl(2).
"""

from __future__ import annotations

import os

from minirt import trace
from minirt.errors import MinirtError
from minirt.kernel import syscalls
from minirt.state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CHAPTER = 10

# <linux/capability.h>: a capability's number is its place in this table.
NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)
# What Docker leaves a container's root.
DEFAULT = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)
SETS = ("inheritable", "permitted", "effective", "bounding", "ambient")

PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24     # <linux/prctl.h>
PR_SET_KEEPCAPS = 8
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
VERSION_3 = 0x20080522                        # <linux/capability.h>: sets of 64 bits


def number(name: str) -> int:
    """The number of the capability `name` ("CHOWN", "CAP_CHOWN", "cap_chown"). Raises MinirtError for no capability."""
    word = name.upper().removeprefix("CAP_")
    if word not in NAMES:
        raise MinirtError(f'invalid capability: "CAP_{word}"')
    return NAMES.index(word)


def mask(names: Iterable[str]) -> int:
    """The set of `names` as one number, a bit for each: bit 0 is CHOWN. It is how /proc/PID/status writes a set."""
    bits = 0
    for name in names:
        bits |= 1 << number(name)
    return bits


def names_of(bits: int) -> list[str]:
    """The names in a set given as a number, in the kernel's order; a bit without a name here is its number."""
    return [NAMES[place] if place < len(NAMES) else str(place) for place in range(64) if bits >> place & 1]


def known() -> int:
    """The set of all capabilities that this kernel has: a newer one has more (/proc/sys/kernel/cap_last_cap)."""
    return (1 << int(read_file("/proc/sys/kernel/cap_last_cap")) + 1) - 1


def read(pid: int | str = "self") -> dict[str, int]:
    """The five sets of a process, by the names in `SETS`, each as a number, from /proc/PID/status (proc(5))."""
    keys = {f"Cap{name[:3].capitalize()}": name for name in SETS}
    keys |= {"CapPrm": "permitted", "CapBnd": "bounding"}
    lines = (line.split(":\t") for line in read_file(f"/proc/{pid}/status").decode().splitlines() if ":\t" in line)
    return {keys[key]: int(value, 16) for key, value in lines if key in keys}


def choose(add: Sequence[str] = (), drop: Sequence[str] = ()) -> list[str]:
    """The capabilities of a container that asks for `--cap-add ADD` and `--cap-drop DROP`, in the kernel's order.

    Docker's rule: begin with `DEFAULT`; "ALL" in `drop` begins with nothing instead; "ALL" in `add` with everything the
    kernel has (less what `drop` names). Else take `drop` away and then put `add` in. Names are with or without "CAP_",
    in any case. What this kernel does not have is left out. Raises MinirtError for a name that is none.
    """
    here = known()
    added, dropped = [{name.upper() for name in words} for words in (add, drop)]
    wanted = mask(added - {"ALL"}), mask(dropped - {"ALL"})
    if "ALL" in added:
        bits = here & ~wanted[1]
    elif "ALL" in dropped:
        bits = wanted[0]
    else:
        bits = mask(DEFAULT) & ~wanted[1] | wanted[0]
    return names_of(bits & here)


@trace.narrated(CHAPTER, "drop from the bounding set all but {keep:#x}", "prctl(PR_CAPBSET_DROP, ...)")
def limit(keep: int) -> None:
    """Drop from this process's bounding set every capability whose bit is not in the number `keep`.

    For each number that the kernel knows: `syscalls.call("prctl", PR_CAPBSET_DROP, NUMBER, 0, 0, 0)`. It cannot be
    undone, and it holds for all that this process ever executes. Needs CAP_SETPCAP, so it comes before that one is
    given up; raises OSError (EPERM) without it. Sources: capabilities(7) "Capability bounding set", prctl(2).
    """
    for place in range(known().bit_length()):
        if not keep >> place & 1:
            syscalls.call("prctl", PR_CAPBSET_DROP, place, 0, 0, 0)


@trace.narrated(CHAPTER, "set what it may use to {permitted:#x}", "capset(effective, permitted, inheritable)")
def set_sets(effective: int, permitted: int, inheritable: int) -> None:
    """Set three of this process's sets at once, each given as a number.

    capset(2) takes two structures: a header of two 32-bit numbers (`VERSION_3`, and 0 for "this process"), and six
    32-bit numbers: the low halves of effective, permitted and inheritable, then their high halves, little-endian.
    A bit can leave permitted, never come back. Raises OSError. Source: capset(2).
    """
    header = VERSION_3.to_bytes(4, "little") + bytes(4)
    halves = [value >> shift & 0xFFFFFFFF for shift in (0, 32) for value in (effective, permitted, inheritable)]
    syscalls.call("capset", header, b"".join(half.to_bytes(4, "little") for half in halves))


def clear_ambient() -> None:
    """Empty this process's ambient set. Source: capabilities(7), prctl(2) PR_CAP_AMBIENT."""
    syscalls.call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def raise_ambient(bits: int) -> None:
    """Put capabilities into the ambient set; each must be in permitted and inheritable already. Raises OSError."""
    for place in range(64):
        if bits >> place & 1:
            syscalls.call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, place, 0, 0)


def keep_across_setuid(keep: bool) -> None:
    """Let the permitted set stay when this process changes from user 0 to another one (PR_SET_KEEPCAPS of prctl(2))."""
    syscalls.call("prctl", PR_SET_KEEPCAPS, int(keep), 0, 0, 0)


@trace.narrated(CHAPTER, "never gain a privilege by an exec again", "prctl(PR_SET_NO_NEW_PRIVS, 1)")
def set_no_new_privileges() -> None:
    """Make set-user-id bits and file capabilities void for this process and all that come from it (prctl(2))."""
    syscalls.call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room."""
    bounding = read()["bounding"]
    missing = names_of(known() & ~bounding) if os.geteuid() == 0 else []
    detail = f"{bounding.bit_length()} bits" if not missing else "missing here: " + " ".join(missing)
    return [("capabilities", bool(bounding), detail, "start the outer container with --privileged")]

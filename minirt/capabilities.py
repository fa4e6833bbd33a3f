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

Rules of the room: the tables first, then reading, choosing, dropping. A set is an int, a bit for each capability. What
is called within a container's root asks the kernel by system calls alone: /proc may be anything there.
Manual pages: capabilities(7), capget(2), prctl(2).
"""

from __future__ import annotations

import ctypes
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
PR_GET_SECUREBITS, PR_SET_SECUREBITS = 27, 28
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
VERSION_3 = 0x20080522                        # <linux/capability.h>: sets of 64 bits

# <linux/securebits.h>: what makes user 0 special, to be switched off one by one; each has a lock, the next higher bit.
NOROOT, NO_SETUID_FIXUP, KEEP_CAPS, NO_CAP_AMBIENT_RAISE = 0x01, 0x04, 0x10, 0x40

FILE_ATTRIBUTE = "security.capability"        # <linux/capability.h>, struct vfs_cap_data: what setcap(8) writes
FILE_VERSION_2, FILE_EFFECTIVE = 0x02000000, 1


def number(name: str) -> int:
    """The number of the capability `name` ("CHOWN", "CAP_CHOWN", "cap_chown"; "41" for one newer than the table).

    Raises MinirtError for a name that is none.
    """
    word = name.upper().removeprefix("CAP_")
    if word.isdigit() and len(NAMES) <= int(word) < 64:
        return int(word)
    if word not in NAMES:
        raise MinirtError(f'unknown capability: "CAP_{word}"')
    return NAMES.index(word)


def mask(names: Iterable[str]) -> int:
    """The set of the capabilities `names` as one int: bit 0 stands for CHOWN, bit 1 for DAC_OVERRIDE, and so on.

    `number` gives the place of a name; it takes "CHOWN" as well as "CAP_CHOWN", and raises MinirtError for a name that
    is none. No names give 0, and a name that comes twice counts once. /proc/PID/status shows sets in this form.
    Sources: capabilities(7), proc_pid_status(5).
    """
    bits = 0
    for name in names:
        bits |= 1 << number(name)
    return bits


def names_of(bits: int) -> list[str]:
    """The names of the capabilities in the set `bits`, in the kernel's order: the opposite of `mask`.

    Bit 0 is NAMES[0], "CHOWN". A kernel newer than this table has capabilities that the table does not name: for a bit
    beyond its end give the number as text ("41"), so that nothing is lost. A set has 64 bits. Source: capabilities(7).
    """
    return [NAMES[place] if place < len(NAMES) else str(place) for place in range(64) if bits >> place & 1]


def known() -> int:
    """The set of all capabilities that this kernel has; a newer one has more.

    PR_CAPBSET_READ answers for a number that the kernel knows, and says EINVAL to the first that it does not.
    Source: prctl(2).
    """
    for place in range(64):
        try:
            syscalls.call("prctl", PR_CAPBSET_READ, place, 0, 0, 0)
        except OSError:
            return (1 << place) - 1
    return (1 << 64) - 1


def read(pid: int | str = "self") -> dict[str, int]:
    """The five sets of a process, by the names in `SETS`, each as an int, from /proc/PID/status (proc(5))."""
    keys = {f"Cap{name[:3].capitalize()}": name for name in SETS}
    keys |= {"CapPrm": "permitted", "CapBnd": "bounding"}
    lines = (line.split(":\t") for line in read_file(f"/proc/{pid}/status").decode().splitlines() if ":\t" in line)
    return {keys[key]: int(value, 16) for key, value in lines if key in keys}


def everything() -> list[str]:
    """The names of all capabilities that this process could give: what its own bounding set has kept."""
    return names_of(read()["bounding"])


def choose(add: Sequence[str] = (), drop: Sequence[str] = ()) -> list[str]:
    """The capabilities of a container that asks for `--cap-add ADD` and `--cap-drop DROP`, in the kernel's order.

    Docker's rule has three cases:
    - "ALL" is in `add`: everything that `everything` names, without what `drop` names;
    - else, "ALL" is in `drop`: nothing but what `add` names;
    - else: `DEFAULT`, without what `drop` names, and then with what `add` names (so a name in both is added).

    Names come with or without "CAP_", "ALL" and they in any case; the result is without, as `names_of` gives it.
    `mask` raises MinirtError for a name that is none. `available` raises it for one in `add` that is not to be had
    here: ask it before anything else. Sources: capabilities(7), docker-run(1).
    """
    available(add)
    added, dropped = [{name.upper() for name in words} for words in (add, drop)]
    more, less = mask(added - {"ALL"}), mask(dropped - {"ALL"})
    if "ALL" in added:
        bits = mask(everything()) & ~less
    elif "ALL" in dropped:
        bits = more
    else:
        bits = mask(DEFAULT) & ~less | more
    return names_of(bits)


def available(names: Iterable[str]) -> None:
    """Raise MinirtError when one of `names`, other than "ALL", is known here by name but not to the kernel, or is
    missing in this process's own bounding set, so that it cannot be given."""
    wanted = [name for name in names if name.upper() != "ALL"]
    missing = names_of(mask(wanted) & ~read()["bounding"]) if wanted else []
    if missing:
        raise MinirtError("capability not supported by your kernel or not available in the current environment: "
                          f'"CAP_{missing[0]}"')


@trace.narrated(CHAPTER, "drop from the bounding set all but {keep:#x}", "prctl(PR_CAPBSET_DROP, ...)")
def limit(keep: int) -> None:
    """Drop from this process's bounding set every capability whose bit is not in the set `keep`.

    `known` gives the set of those that the kernel has; `syscalls.call("prctl", PR_CAPBSET_DROP, NUMBER, 0, 0, 0)` drops
    one of them. It cannot be undone, and it holds for all that this process ever executes. The other sets stay as they
    are until then. It needs CAP_SETPCAP, so it comes before that one is given up: OSError (EPERM) without it.
    Sources: capabilities(7) "Capability bounding set", prctl(2).
    """
    for place in range(known().bit_length()):
        if not keep >> place & 1:
            syscalls.call("prctl", PR_CAPBSET_DROP, place, 0, 0, 0)


@trace.narrated(CHAPTER, "set what it may use to {permitted:#x}", "capset(effective, permitted, inheritable)")
def set_sets(effective: int, permitted: int, inheritable: int) -> None:
    """Set three of this process's sets at once, each given as an int of 64 bits.

    `syscalls.call("capset", HEADER, DATA)` takes the bytes of two structures made of 32-bit numbers, little-endian
    (`int.to_bytes(4, "little")`). HEADER is two numbers: `VERSION_3`, and 0 for "this process". DATA is six: the low
    halves of effective, permitted and inheritable in this order, then their three high halves: the sets once had
    32 bits, and the rest was put behind. A bit can leave permitted, and no call brings it back (only an exec may);
    effective must lie within permitted. Raises OSError (EPERM). Source: capset(2).
    """
    header = VERSION_3.to_bytes(4, "little") + bytes(4)
    halves = [value >> shift & 0xFFFFFFFF for shift in (0, 32) for value in (effective, permitted, inheritable)]
    syscalls.call("capset", header, b"".join(half.to_bytes(4, "little") for half in halves))


def permitted() -> int:
    """This process's permitted set, asked of the kernel itself: capget(2) fills the structure that capset takes."""
    header = VERSION_3.to_bytes(4, "little") + bytes(4)
    data = ctypes.create_string_buffer(24)
    syscalls.call("capget", header, data)
    return int.from_bytes(data.raw[4:8], "little") | int.from_bytes(data.raw[16:20], "little") << 32


def clear_ambient() -> None:
    """Empty this process's ambient set. Sources: capabilities(7), prctl(2) PR_CAP_AMBIENT."""
    syscalls.call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def raise_ambient(bits: int) -> None:
    """Put the set `bits` into the ambient set; each must be in permitted and inheritable already. Raises OSError."""
    for place in range(64):
        if bits >> place & 1:
            syscalls.call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, place, 0, 0)


def keep_across_setuid(keep: bool) -> None:
    """Let the permitted set stay when this process changes from user 0 to another one (PR_SET_KEEPCAPS of prctl(2)).

    An exec switches that off again.
    """
    syscalls.call("prctl", PR_SET_KEEPCAPS, int(keep), 0, 0, 0)


def set_secure_bits(bits: int) -> None:
    """Set this thread's securebits: NOROOT, ... , each with its lock (`bits << 1`). Needs CAP_SETPCAP. Raises OSError.

    With NOROOT an exec by user 0 gives no more than one by anybody else. Sources: capabilities(7) "The securebits
    flags", prctl(2).
    """
    syscalls.call("prctl", PR_SET_SECUREBITS, bits, 0, 0, 0)


@trace.narrated(CHAPTER, "never gain a privilege by an exec again", "prctl(PR_SET_NO_NEW_PRIVS, 1)")
def set_no_new_privileges() -> None:
    """From here on no exec gives this process, or any that comes from it, a privilege that it has not.

    Set-user-id and set-group-id bits of a file are void then, and so are file capabilities; it cannot be taken back.
    prctl(2) takes five numbers: PR_SET_NO_NEW_PRIVS, 1, and three zeros, which the kernel checks. Needs no privilege.
    Raises OSError. Sources: prctl(2), kernel documentation no_new_privs.rst.
    """
    syscalls.call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def file_value(permitted: int, inheritable: int = 0, effective: bool = True) -> bytes:
    """The value of the extended attribute FILE_ATTRIBUTE that gives a program these sets (setcap(8), capabilities(7)).

    Five numbers of 32 bits: version and flag, then the low and the high halves of permitted and inheritable by turns.
    `effective` is one bit for all: whether what the program is permitted is effective at once.
    """
    words = [FILE_VERSION_2 | (FILE_EFFECTIVE if effective else 0)]
    words += [value >> shift & 0xFFFFFFFF for shift in (0, 32) for value in (permitted, inheritable)]
    return b"".join(word.to_bytes(4, "little") for word in words)


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room."""
    bounding = read()["bounding"]
    missing = names_of(known() & ~bounding) if os.geteuid() == 0 else []
    detail = f"{bounding.bit_length()} bits" if not missing else "missing here: " + " ".join(missing)
    return [("capabilities", bool(bounding), detail, "start the outer container with --privileged")]

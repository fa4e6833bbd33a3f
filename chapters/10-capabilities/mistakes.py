"""What is written instead, in chapter 10, and the message that must lead to each mistake."""

from __future__ import annotations

import os

from minirt.capabilities import (
    DEFAULT,
    NAMES,
    PR_CAPBSET_DROP,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    VERSION_3,
    available,
    everything,
    known,
    mask,
    names_of,
    number,
)
from minirt.errors import MinirtError
from minirt.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def mask__numbers_instead_of_bits(names: Iterable[str]) -> int:
    """bit 0 is the lowest: its value is 1"""
    bits = 0
    for name in names:
        bits |= number(name)
    return bits


def mask__begins_at_one(names: Iterable[str]) -> int:
    """bit 0 is the lowest"""
    bits = 0
    for name in names:
        bits |= 2 << number(name)
    return bits


def mask__adds(names: Iterable[str]) -> int:
    """a name that comes twice counts once"""
    return sum(1 << number(name) for name in names)


def mask__passes_over_strangers(names: Iterable[str]) -> int:
    """must raise MinirtError"""
    bits = 0
    for name in names:
        try:
            bits |= 1 << number(name)
        except MinirtError:
            pass
    return bits


def mask__exclusive_or(names: Iterable[str]) -> int:
    """a name that comes twice counts once"""
    bits = 0
    for name in names:
        bits ^= 1 << number(name)
    return bits


def names_of__ends_with_the_table(bits: int) -> list[str]:
    """a kernel newer than the table"""
    return [name for place, name in enumerate(NAMES) if bits >> place & 1]


def names_of__asks_for_the_number(bits: int) -> list[str]:
    """is a set, not a number of one capability"""
    return [NAMES[bits % len(NAMES)]]


def names_of__from_the_highest(bits: int) -> list[str]:
    """in the kernel's order"""
    return [NAMES[place] if place < len(NAMES) else str(place) for place in range(63, -1, -1) if bits >> place & 1]


def names_of__with_prefix(bits: int) -> list[str]:
    """without "CAP_" """
    return ["CAP_" + NAMES[place] if place < len(NAMES) else str(place) for place in range(64) if bits >> place & 1]


def names_of__one_beyond_the_table(bits: int) -> list[str]:
    """is one too far"""
    return [NAMES[place] if place <= len(NAMES) else str(place) for place in range(64) if bits >> place & 1]


def choose__adds_before_it_drops(add: Sequence[str] = (), drop: Sequence[str] = ()) -> list[str]:
    """a name in both lists is added"""
    available(add)
    added, dropped = [{name.upper() for name in words} for words in (add, drop)]
    more, less = mask(added - {"ALL"}), mask(dropped - {"ALL"})
    if "ALL" in added:
        bits = mask(everything()) & ~less
    elif "ALL" in dropped:
        bits = more
    else:
        bits = (mask(DEFAULT) | more) & ~less
    return names_of(bits)


def choose__believes_every_word(add: Sequence[str] = (), drop: Sequence[str] = ()) -> list[str]:
    """there is no CHWON"""
    available(add)
    added, dropped = [{name.upper().removeprefix("CAP_") for name in words} for words in (add, drop)]
    if "ALL" in added:
        chosen = set(everything()) - dropped
    elif "ALL" in dropped:
        chosen = added
    else:
        chosen = set(DEFAULT) - dropped | added
    return [name for name in NAMES if name in chosen]


def choose__all_means_all(add: Sequence[str] = (), drop: Sequence[str] = ()) -> list[str]:
    """everything without what is dropped"""
    available(add)
    added, dropped = [{name.upper() for name in words} for words in (add, drop)]
    more, less = mask(added - {"ALL"}), mask(dropped - {"ALL"})
    if "ALL" in added:
        return everything()
    if "ALL" in dropped:
        return names_of(more)
    return names_of(mask(DEFAULT) & ~less | more)


def choose__all_that_the_kernel_has(add: Sequence[str] = (), drop: Sequence[str] = ()) -> list[str]:
    """gives all that this process has"""
    available(add)
    added, dropped = [{name.upper() for name in words} for words in (add, drop)]
    more, less = mask(added - {"ALL"}), mask(dropped - {"ALL"})
    if "ALL" in added:
        return names_of(known() & ~less)
    if "ALL" in dropped:
        return names_of(more)
    return names_of(mask(DEFAULT) & ~less | more)


def choose__knows_no_all(add: Sequence[str] = (), drop: Sequence[str] = ()) -> list[str]:
    """"ALL" is not the name of a capability"""
    available(add)
    return names_of(mask(DEFAULT) & ~mask(drop) | mask(add))


def choose__does_not_ask(add: Sequence[str] = (), drop: Sequence[str] = ()) -> list[str]:
    """cannot be given here"""
    added, dropped = [{name.upper() for name in words} for words in (add, drop)]
    more, less = mask(added - {"ALL"}), mask(dropped - {"ALL"})
    if "ALL" in added:
        return names_of(mask(everything()) & ~less)
    if "ALL" in dropped:
        return names_of(more)
    return names_of(mask(DEFAULT) & ~less | more)


def choose__only_of_the_fourteen(add: Sequence[str] = (), drop: Sequence[str] = ()) -> list[str]:
    """also what is none of the fourteen"""
    available(add)
    added, dropped = [{name.upper() for name in words} for words in (add, drop)]
    more, less = mask(added - {"ALL"}), mask(dropped - {"ALL"})
    if "ALL" in added:
        return names_of(mask(everything()) & ~less)
    if "ALL" in dropped:
        return names_of(mask(DEFAULT) & more)
    return names_of(mask(DEFAULT) & ~less | more)


def choose__what_is_dropped_must_be_there(add: Sequence[str] = (), drop: Sequence[str] = ()) -> list[str]:
    """only what is added must be available"""
    available([*add, *drop])
    added, dropped = [{name.upper() for name in words} for words in (add, drop)]
    more, less = mask(added - {"ALL"}), mask(dropped - {"ALL"})
    if "ALL" in added:
        return names_of(mask(everything()) & ~less)
    if "ALL" in dropped:
        return names_of(more)
    return names_of(mask(DEFAULT) & ~less | more)


def limit__drops_what_is_to_stay(keep: int) -> None:
    """what is in `keep` stays"""
    for place in range(known().bit_length()):
        if keep >> place & 1:
            syscalls.call("prctl", PR_CAPBSET_DROP, place, 0, 0, 0)


def limit__of_the_old_kernels(keep: int) -> None:
    """still in the bounding set"""
    for place in range(32):
        if not keep >> place & 1:
            syscalls.call("prctl", PR_CAPBSET_DROP, place, 0, 0, 0)


def limit__by_the_table(keep: int) -> None:
    """those that the table does not name are powers, too"""
    for place in range(len(NAMES)):
        if not keep >> place & 1:
            syscalls.call("prctl", PR_CAPBSET_DROP, place, 0, 0, 0)


def limit__swallows_the_refusal(keep: int) -> None:
    """must raise OSError"""
    for place in range(known().bit_length()):
        if not keep >> place & 1:
            try:
                syscalls.call("prctl", PR_CAPBSET_DROP, place, 0, 0, 0)
            except OSError:
                pass


def limit__in_a_child(keep: int) -> None:
    """the bounding set of this process is as it was"""
    child = os.fork()
    if not child:
        for place in range(known().bit_length()):
            if not keep >> place & 1:
                syscalls.call("prctl", PR_CAPBSET_DROP, place, 0, 0, 0)
        os._exit(0)
    os.waitpid(child, 0)


def set_sets__permitted_first(effective: int, permitted: int, inheritable: int) -> None:
    """two sets have changed places"""
    header = VERSION_3.to_bytes(4, "little") + bytes(4)
    halves = [value >> shift & 0xFFFFFFFF for shift in (0, 32) for value in (permitted, effective, inheritable)]
    try:
        syscalls.call("capset", header, b"".join(half.to_bytes(4, "little") for half in halves))
    except OSError:
        halves = [value >> shift & 0xFFFFFFFF for shift in (0, 32) for value in (permitted, permitted, inheritable)]
        syscalls.call("capset", header, b"".join(half.to_bytes(4, "little") for half in halves))


def set_sets__each_whole(effective: int, permitted: int, inheritable: int) -> None:
    """all low halves come first"""
    header = VERSION_3.to_bytes(4, "little") + bytes(4)
    sets = (effective, permitted, inheritable)
    syscalls.call("capset", header, b"".join(each.to_bytes(8, "little") for each in sets))


def set_sets__low_halves_only(effective: int, permitted: int, inheritable: int) -> None:
    """the high halves"""
    header = VERSION_3.to_bytes(4, "little") + bytes(4)
    halves = [value & 0xFFFFFFFF for value in (effective, permitted, inheritable)]
    syscalls.call("capset", header, b"".join(half.to_bytes(4, "little") for half in halves) + bytes(12))


def set_sets__swallows_the_refusal(effective: int, permitted: int, inheritable: int) -> None:
    """must raise OSError"""
    header = VERSION_3.to_bytes(4, "little") + bytes(4)
    halves = [value >> shift & 0xFFFFFFFF for shift in (0, 32) for value in (effective, permitted, inheritable)]
    try:
        syscalls.call("capset", header, b"".join(half.to_bytes(4, "little") for half in halves))
    except OSError:
        pass


def set_no_new_privileges__another_option() -> None:
    """NoNewPrivs is still 0"""
    syscalls.call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0)


def set_no_new_privileges__in_a_child() -> None:
    """NoNewPrivs is still 0"""
    child = os.fork()
    if not child:
        syscalls.call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        os._exit(0)
    os.waitpid(child, 0)


def set_no_new_privileges__drops_everything_instead() -> None:
    """NoNewPrivs is still 0"""
    for place in range(known().bit_length()):
        syscalls.call("prctl", PR_CAPBSET_DROP, place, 0, 0, 0)

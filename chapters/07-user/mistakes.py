"""What is written instead, in chapter 07, and the message that must lead to each mistake."""

from __future__ import annotations

import os
from collections.abc import Sequence

from minirt.kernel import mount, syscalls
from minirt.namespaces.user import CLONE_NEWUSER, MOUNT_ATTR_IDMAP, lines, write

Map = Sequence[tuple[int, int, int]]


def enter__wrong_flag() -> None:
    """you are still in the machine's user namespace"""
    syscalls.unshare(0x04000000)


def enter__one_bit_too_many() -> None:
    """enter() made more than a user namespace"""
    syscalls.unshare(CLONE_NEWUSER | 0x00020000)


def enter__only_for_root() -> None:
    """needs no privilege"""
    if os.geteuid():
        raise PermissionError(1, "only root may")
    syscalls.unshare(CLONE_NEWUSER)


def enter__swallows_the_refusal() -> None:
    """enter() must raise OSError"""
    try:
        syscalls.unshare(CLONE_NEWUSER)
    except OSError:
        pass


def outside__the_other_way_round(mapping: Map, number: int) -> int:
    """0 inside is 1000 outside"""
    for inside, first, size in mapping:
        if first <= number < first + size:
            return inside + number - first
    return -1


def outside__one_too_far(mapping: Map, number: int) -> int:
    """ends with the one before"""
    for inside, first, size in mapping:
        if inside <= number <= inside + size:
            return first + number - inside
    return -1


def outside__only_the_first_range(mapping: Map, number: int) -> int:
    """several ranges"""
    inside, first, size = mapping[0]
    return first + number - inside if inside <= number < inside + size else -1


def outside__unmapped_stays(mapping: Map, number: int) -> int:
    """has no place"""
    for inside, first, size in mapping:
        if inside <= number < inside + size:
            return first + number - inside
    return number


def write_maps__a_write_for_each_line(pid: int, uids: Map, gids: Map, privileged: bool) -> None:
    """all lines in one write"""
    for entry in uids:
        write(f"/proc/{pid}/uid_map", lines([entry]))
    if not privileged:
        write(f"/proc/{pid}/setgroups", "deny")
    for entry in gids:
        write(f"/proc/{pid}/gid_map", lines([entry]))


def write_maps__groups_forgotten(pid: int, uids: Map, gids: Map, privileged: bool) -> None:
    """the groups have no map"""
    write(f"/proc/{pid}/uid_map", lines(uids))


def write_maps__always_denies(pid: int, uids: Map, gids: Map, privileged: bool) -> None:
    """leave /proc/PID/setgroups alone"""
    write(f"/proc/{pid}/uid_map", lines(uids))
    write(f"/proc/{pid}/setgroups", "deny")
    write(f"/proc/{pid}/gid_map", lines(gids))


def write_maps__denies_too_late(pid: int, uids: Map, gids: Map, privileged: bool) -> None:
    """before gid_map"""
    write(f"/proc/{pid}/uid_map", lines(uids))
    write(f"/proc/{pid}/gid_map", lines(gids))
    if not privileged:
        write(f"/proc/{pid}/setgroups", "deny")


def write_maps__outside_first(pid: int, uids: Map, gids: Map, privileged: bool) -> None:
    """the number inside comes first"""
    for name, mapping in (("uid_map", uids), ("gid_map", gids)):
        if name == "gid_map" and not privileged:
            write(f"/proc/{pid}/setgroups", "deny")
        write(f"/proc/{pid}/{name}", "".join(f"{outside} {inside} {size}\n" for inside, outside, size in mapping))


def subordinate__beginning_of_the_name(text: str, name: str, uid: int) -> list[tuple[int, int]]:
    """belongs to somebody else"""
    found = []
    for line in text.splitlines():
        if line.startswith((name, f"{uid}:")):
            fields = line.split(":")
            if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit() and int(fields[2]):
                found.append((int(fields[1]), int(fields[2])))
    return found


def subordinate__first_line_only(text: str, name: str, uid: int) -> list[tuple[int, int]]:
    """several lines"""
    for line in text.splitlines():
        fields = line.split(":")
        if fields[0] in (name, str(uid)) and len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
            return [(int(fields[1]), int(fields[2]))] if int(fields[2]) else []
    return []


def subordinate__never_by_number(text: str, name: str, uid: int) -> list[tuple[int, int]]:
    """by the number"""
    found = []
    for line in text.splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit() and int(fields[2]):
            found.append((int(fields[1]), int(fields[2])))
    return found


def subordinate__trusts_every_line(text: str, name: str, uid: int) -> list[tuple[int, int]]:
    """not of this form"""
    found = []
    for line in text.splitlines():
        owner, first, count = line.split(":")
        if owner in (name, str(uid)):
            found.append((int(first), int(count)))
    return found


def subordinate__last_instead_of_count(text: str, name: str, uid: int) -> list[tuple[int, int]]:
    """how many there are"""
    found = []
    for line in text.splitlines():
        owner, *numbers = line.strip().split(":")
        if owner in (name, str(uid)) and len(numbers) == 2 and all(each.isdigit() for each in numbers):
            found.append((int(numbers[0]), int(numbers[0]) + int(numbers[1]) - 1))
    return found


def id_map__without_the_namespace(tree: int, namespace: int) -> None:
    """userns"""
    mount.mount_setattr(tree, add=MOUNT_ATTR_IDMAP)


def id_map__changes_the_files(tree: int, namespace: int) -> None:
    """changed on the disk"""
    here = f"/proc/self/fd/{tree}"
    for name in os.listdir(here):
        status = os.lstat(f"{here}/{name}")
        os.chown(f"{here}/{name}", 100000 + status.st_uid, 100000 + status.st_gid, follow_symlinks=False)


def id_map__enters_the_namespace(tree: int, namespace: int) -> None:
    """this process has changed"""
    mount.mount_setattr(tree, add=MOUNT_ATTR_IDMAP, userns=namespace)
    syscalls.setns(namespace, CLONE_NEWUSER)


def id_map__takes_the_attribute_away(tree: int, namespace: int) -> None:
    """still belongs to"""
    try:
        mount.mount_setattr(tree, remove=MOUNT_ATTR_IDMAP, userns=namespace)
    except OSError:
        pass

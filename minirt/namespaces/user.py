"""Chapter 07: root without being root.

A user namespace has its own numbering of users and groups. Its *map* says which numbers of it are which numbers of the
namespace around it; the kernel always works with the outer ones, and translates at the border. So user 0 of the
namespace can be user 1000 of the machine: it has every capability, but only over what belongs to the namespace (its own
mounts, interfaces, host name), and over files only as user 1000. A number without a line in the map is shown as 65534,
"nobody".

- It is the one namespace that anybody may make. Whoever makes it has all capabilities in it.
- A map is written once, from outside or by the first process: into /proc/PID/uid_map and gid_map, with one write(2).
- Without privileges one may map one number: one's own. More need numbers that the administrator has set aside, the
  *subordinate ids* of /etc/subuid, and two set-user-id programs that look them up there: newuidmap, newgidmap.
- Who maps groups without privileges must first give up setgroups(2): a group may also *take away* a permission (a file
  of mode 0707), and dropping it would give that back.
- A mount may be *id-mapped*: it shows the owners of its files through a map, and the files stay as they are.

Rules of the room: maps are lists of (inside, outside, size), as in the kernel's files. Who may have which numbers, and
what to do where the machine grants none, is `rootless`.

Manual pages: user_namespaces(7), subuid(5), newuidmap(1), mount_setattr(2) "ID-mapped mounts".
"""

from __future__ import annotations

import os

from minirt import trace
from minirt.errors import KernelError
from minirt.kernel import mount, process, syscalls
from minirt.namespaces import mnt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    Map = Sequence[tuple[int, int, int]]

CHAPTER = 7

CLONE_NEWUSER = 0x10000000       # <linux/sched.h>
MOUNT_ATTR_IDMAP = 0x00100000    # <linux/mount.h>
NOBODY = 65534                   # what an id without a place in the map looks like: /proc/sys/kernel/overflowuid


@trace.narrated(CHAPTER, "enter a user namespace of its own", "unshare(CLONE_NEWUSER)")
def enter() -> None:
    """Move this process into a new user namespace, in which it has every capability and, until a map is written, no
    name: all ids are `NOBODY`.

    Use `syscalls.unshare` with CLONE_NEWUSER and nothing else. Anybody may, so no privilege is needed; the process must
    have one thread. Raises OSError: EPERM or ENOSPC where the administrator has switched it off. unshare(2).
    """
    syscalls.unshare(CLONE_NEWUSER)


@trace.narrated(CHAPTER, "map its users {uids} and groups {gids}", "echo > /proc/{pid}/uid_map, setgroups, gid_map")
def write_maps(pid: int, uids: Map, gids: Map, privileged: bool) -> None:
    """Write the maps of the user namespace that the process `pid` has entered.

    `uids` and `gids` are lists of (inside, outside, size): that many numbers, beginning with `inside` in the namespace,
    are those beginning with `outside` in the one around it. The kernel's files, /proc/PID/uid_map and
    /proc/PID/gid_map, take a line "INSIDE OUTSIDE SIZE" for each, and all lines in *one* write. Each can be written
    only once.

    Unless the writer is `privileged` around the namespace, the word "deny" must go into /proc/PID/setgroups first, or
    gid_map is refused (EPERM). With the privilege leave that file alone: a container's root needs setgroups(2).
    `write` writes a text to a file in one call. Raises OSError. Source: user_namespaces(7) "User and group ID
    mappings".
    """
    write(f"/proc/{pid}/uid_map", lines(uids))
    if not privileged:
        write(f"/proc/{pid}/setgroups", "deny")
    write(f"/proc/{pid}/gid_map", lines(gids))


def lines(mapping: Map) -> str:
    """A map in the form of the kernel's files: a line "INSIDE OUTSIDE SIZE" for each of its ranges."""
    return "".join(f"{inside} {outside} {size}\n" for inside, outside, size in mapping)


def write(path: str, text: str) -> None:
    """Write `text` to a file of /proc with one write(2). Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def read_map(path: str = "/proc/self/uid_map") -> list[tuple[int, int, int]]:
    """The map in a file of /proc, as (inside, outside, size); outside as the reader's own namespace numbers it."""
    with open(path) as file:
        return [(int(inside), int(outside), int(size)) for inside, outside, size in map(str.split, file)]


def outside(mapping: Map, number: int) -> int:
    """The id that `number`, an id of the namespace, is in the namespace around it; -1 when the map has no place for it.

    `mapping` are ranges (inside, outside, size): of a range the first number inside is the first outside, the second
    the second, and so on, `size` in all. Source: user_namespaces(7).
    """
    for inside, first, size in mapping:
        if inside <= number < inside + size:
            return first + number - inside
    return -1


def subordinate(text: str, name: str, uid: int) -> list[tuple[int, int]]:
    """The ids that `text`, the content of /etc/subuid or /etc/subgid, sets aside for a user, as (first, count) pairs.

    Each line is "OWNER:FIRST:COUNT", such as "alice:100000:65536"; the owner is a login `name` or a `uid` in digits. A
    user may have several lines: return them in their order. Lines that do not have this form (comments, empty ones,
    words where numbers belong) and counts of 0 are passed over. Source: subuid(5).
    """
    found = []
    for line in text.splitlines():
        owner, *numbers = line.strip().split(":")
        if owner not in (name, str(uid)) or len(numbers) != 2 or not all(each.isdigit() for each in numbers):
            continue
        if int(numbers[1]):
            found.append((int(numbers[0]), int(numbers[1])))
    return found


def own_and(own: int, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """The map of an ordinary user's namespace: 0 inside is `own`, the numbers from 1 on are those of `ranges`,
    (first, count) pairs, one range after the other."""
    mapping, inside = [(0, own, 1)], 1
    for first, count in ranges:
        mapping.append((inside, first, count))
        inside += count
    return mapping


@trace.narrated(CHAPTER, "let {program} write the map: it knows whose numbers they are", "{program} {pid} {mapping}")
def write_by_helper(program: str, pid: int, mapping: Map) -> int:
    """Write a map of the process `pid` by `program`, newuidmap or newgidmap, which may because it is set-user-id root
    and checks every range against /etc/subuid or /etc/subgid. Returns its exit code; 127 when it is not installed.
    newuidmap(1)."""
    words = [program, str(pid), *(str(number) for each in mapping for number in each)]
    return process.wait(process.fork_call(lambda: process.become(words)))


@trace.narrated(CHAPTER, "become root of the user namespace", "setresgid(0, 0, 0); setresuid(0, 0, 0)")
def become_root() -> None:
    """Take the ids 0 of this process's user namespace, which must be mapped (else EINVAL). setresuid(2)."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


@trace.narrated(CHAPTER, "show the files below it with the container's owners", "mount_setattr(MOUNT_ATTR_IDMAP)")
def id_map(tree: int, namespace: int) -> None:
    """Make the detached mount `tree` (a descriptor of `mount.clone`) show owners through the map of a user namespace.

    `namespace` is a descriptor of a /proc/PID/ns/user. On the disk nothing changes: a file of user 0 there belongs,
    seen through this mount, to whoever is user 0 of the namespace, and what that user makes here is stored as user 0's.
    So a thousand containers, each with its own range of ids, share one copy of the image. It is one attribute,
    MOUNT_ATTR_IDMAP, for `mount.mount_setattr`, which takes the descriptor as `userns`; once it is attached a mount can
    be id-mapped no more. Raises OSError: EINVAL where the file system cannot. Source: mount_setattr(2).
    """
    mount.mount_setattr(tree, add=MOUNT_ATTR_IDMAP, userns=namespace)


def map_directory(path: str, namespace: int) -> None:
    """Show the directory `path` through the map of the user namespace behind the descriptor `namespace`, in this
    process's mount namespace. Raises OSError: EPERM on a file system that is not this root's. mount_setattr(2)."""
    tree = mount.clone(path)
    id_map(tree, namespace)
    place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mount.move_mount(tree, place)
    os.close(place)
    os.close(tree)


def make(uids: Map, gids: Map) -> int:
    """Make a user namespace with these maps, as root; a descriptor of it, which keeps it alive.

    A namespace is made by a process that enters it; so a child enters, we write its maps from outside, open what
    /proc/PID/ns/user refers to, and let the child go. Raises OSError, KernelError.
    """
    told, tell = os.pipe()
    wait, hold = os.pipe()

    def be_first() -> int:
        os.close(hold)
        enter()
        os.write(tell, b"in")
        os.read(wait, 1)  # until the other end is closed
        return 0

    child = process.fork_call(be_first)
    try:
        os.close(tell)
        os.close(wait)
        if not os.read(told, 2):
            raise KernelError("making a user namespace: refused; see minirt doctor")
        write_maps(child, uids, gids, privileged=True)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(hold)
        os.close(told)
        process.wait(child)


def from_specification(entries: Sequence[dict[str, int]]) -> list[tuple[int, int, int]]:
    """A map from the entries of "uidMappings" or "gidMappings" of an OCI specification."""
    return [(each["containerID"], each["hostID"], each["size"]) for each in entries]


def configure(namespace: int) -> None:
    """Enter the user namespace behind the descriptor `namespace`, and become its root. Raises OSError. setns(2)."""
    syscalls.setns(namespace, CLONE_NEWUSER)
    become_root()


@trace.narrated(CHAPTER, "bind the machine's devices into /dev: nobody makes nodes in a user namespace",
                "open_tree(/dev/null, ...); move_mount()")
def bind_devices(root: int, extra: Iterable[dict[str, Any]] = ()) -> None:
    """Put into the /dev below `root` what `mnt.make_devices` would make there, as bind mounts of the machine's nodes:
    mknod(2) is refused in a user namespace, whatever the capabilities, or anybody could make himself a disk.

    `extra` are entries of "devices" of the OCI specification, with "source", where the machine's node is. Raises
    OSError, KernelError when the machine has no node for one.
    """
    wanted = [(path, path, major, minor) for path, _, major, minor, _ in mnt.DEVICES]
    wanted += [(each["path"], each.get("source", each["path"]), each["major"], each["minor"]) for each in extra]
    for path, place, major, minor in wanted:
        for source in (place, f"/dev/char/{major}:{minor}", f"/dev/block/{major}:{minor}"):
            try:
                if os.stat(source).st_rdev == os.makedev(major, minor):
                    mnt.attach(mount.clone(source), root, path)
                    break
            except FileNotFoundError:
                continue
        else:
            raise KernelError(f"this machine has no device node {major}:{minor} to bind at {path}")
    mnt.make_links(root)


def make_or_borrow(entry: dict[str, Any]) -> int:
    """As `mnt.make`, for one that may be refused in a user namespace; a descriptor of the detached mount.

    Options with an owner that the map does not have are left out. Where the kernel refuses a /proc (something is hidden
    in the one that is there) or a /sys (it shows a network namespace that belongs to somebody else), the one that is
    there is bound instead, with the same attributes. Raises OSError.
    """
    maps = {"uid": read_map(), "gid": read_map("/proc/self/gid_map")}
    words = []
    for word in entry.get("options", ()):
        name, _, value = word.partition("=")
        if name not in maps or not value.isdigit() or outside(maps[name], int(value)) >= 0:
            words.append(word)
    try:
        return mnt.make({**entry, "options": words})
    except PermissionError:
        if entry["type"] not in ("proc", "sysfs"):
            raise
    tree = mount.clone("/proc" if entry["type"] == "proc" else "/sys", recursive=True)
    add, _ = mount.attribute_bits(word for word in words if word in mount.ATTRIBUTES)
    mount.mount_setattr(tree, add, recursive=True)
    return tree


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room."""
    try:
        with open("/proc/sys/user/max_user_namespaces") as file:
            most = int(file.read())
    except (OSError, ValueError):
        most = 0
    return [("user namespace", most > 0, f"at most {most}", "sysctl user.max_user_namespaces=28633")]

"""Chapter 07, for users of the command line: an ordinary user's own root.

Whatever touches files of many owners (`load`, `rm`, `rmi`) or builds walls (the monitor of a container) first becomes
root of a user namespace: 0 inside is the user, the numbers from 1 on are his subordinate ids. Each process that needs
it makes a namespace of its own, with the same map every time, so that files keep their owners.

What the machine does not grant is said in a sentence that names the cure.

Manual pages: user_namespaces(7), subuid(5), newuidmap(1).
"""

from __future__ import annotations

import os

from minirt import errors, state
from minirt.errors import KernelError, MinirtError
from minirt.kernel import process, syscalls
from minirt.namespaces import mnt, user
from minirt.state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from minirt.namespaces.user import Map

CHAPTER = 7

# (the kernel's switch, the value that forbids, the cure)
SWITCHES = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=28633"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
     "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that lets this Python have "
     "`userns`"),
)


def enter(beside: int = 0) -> None:
    """Become root of a user namespace of this user's own, with a mount namespace that belongs to it.

    `beside` is the pid of a process whose user namespace it shall be: whoever joins a container's network must be in
    the namespace that the network belongs to. Nothing happens where this process is root already, on the machine or in
    such a namespace. Raises KernelError, with the cure, where the machine does not allow it.
    """
    if os.geteuid() == 0:
        return
    state.settle()
    if beside:
        namespace = os.open(f"/proc/{beside}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        user.configure(namespace)
        os.close(namespace)
        syscalls.unshare(mnt.CLONE_NEWNS)
        return
    uids, gids, _ = maps()
    helped = len(uids) > 1
    told, tell = os.pipe()
    me = os.getpid()
    # The helper must run outside the namespace, where its set-user-id bit means the machine's root.
    helper = process.fork_call(lambda: _write_from_outside(me, uids, gids, told, tell)) if helped else 0
    os.close(told)
    try:
        user.enter()
        if helped:
            os.write(tell, b"in")
            os.close(tell)
            tell = -1
            if process.wait(helper):
                raise KernelError(_refused("newuidmap or newgidmap refused the map: they must be set-user-id root "
                                           "(reinstall the package uidmap)"))
        else:
            user.write_maps(me, uids, gids, privileged=False)
        user.become_root()
        syscalls.unshare(mnt.CLONE_NEWNS)  # what is mounted in it still comes through from the machine, not the reverse
    except OSError as error:
        raise KernelError(_refused(f"making a user namespace: {error.strerror}")) from None
    finally:
        if tell >= 0:
            os.close(tell)


def _write_from_outside(pid: int, uids: Map, gids: Map, told: int, tell: int) -> int:
    """In a child that stays outside: write the maps by the two programs once the parent has entered."""
    os.close(tell)
    if not os.read(told, 2):
        return 1  # the parent could not enter
    return user.write_by_helper("newuidmap", pid, uids) or user.write_by_helper("newgidmap", pid, gids)


def maps() -> tuple[Map, Map, str]:
    """The maps of this user's namespace, for users and for groups, and a sentence that says what they lack ("" when
    they are whole): without the two programs or without subordinate ids there is his own id alone."""
    uid, gid = os.geteuid(), os.getegid()
    alone = [(0, uid, 1)], [(0, gid, 1)]
    if not has_helpers():
        return *alone, ("newuidmap and newgidmap are not installed, so a container has one user only: "
                        "sudo apt-get install uidmap")
    name = login_name(uid)
    found = []
    for file in ("/etc/subuid", "/etc/subgid"):
        try:
            text = read_file(file).decode("utf-8", "replace")
        except OSError:
            text = ""
        found.append(user.subordinate(text, name, uid))
    if not all(found):
        return *alone, (f"{name} has no subordinate ids, so a container has one user only: "
                        f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}")
    return user.own_and(uid, found[0]), user.own_and(gid, found[1]), ""


def has_helpers() -> bool:
    """Whether the two programs that write maps of subordinate ids are installed. newuidmap(1)."""
    path = os.environ.get("PATH", "") + ":/usr/bin"
    return all(any(os.access(f"{place}/{program}", os.X_OK) for place in path.split(":"))
               for program in ("newuidmap", "newgidmap"))


def login_name(uid: int) -> str:
    """The name of a user in /etc/passwd, his number where he has none. (The name service would be a heavy import.)"""
    try:
        for line in read_file("/etc/passwd").decode("utf-8", "replace").splitlines():
            fields = line.split(":")
            if len(fields) > 2 and fields[2] == str(uid):
                return fields[0]
    except OSError:
        pass
    return os.environ.get("USER") or str(uid)


def _refused(sentence: str) -> str:
    """The sentence for a refusal, with the switch of this machine that is to blame."""
    for path, forbids, cure in SWITCHES:
        try:
            if read_file(path).decode().strip() == forbids:
                return f"{sentence}; this machine forbids it to ordinary users: {cure}"
        except OSError:
            continue
    return f"{sentence}; see minirt doctor"


def call(function: Callable[[], Any]) -> Any:
    """Call `function` as root of this user's namespace: in a child that enters one, or right here where this process
    is root already. Returns what it returned, as JSON knows it. Raises MinirtError with the sentence of what it raised.
    """
    if os.geteuid() == 0:
        return function()
    hear, speak = os.pipe()

    def child() -> int:
        os.close(hear)
        try:
            enter()
            answer = {"value": function()}
        except (MinirtError, OSError) as error:
            answer = {"error": errors.told(error)[1]}
        state.write_all(speak, state.dumps(answer).encode())
        return 0

    pid = process.fork_call(child)
    os.close(speak)
    said = b""
    while part := os.read(hear, 4096):
        said += part
    os.close(hear)
    if process.wait(pid):
        raise MinirtError("a process of ours was killed")
    result = state.loads(said)
    if "error" in result:
        raise MinirtError(result["error"])
    return result["value"]


def owners() -> Callable[[int, int], tuple[int, int]]:
    """A function for whoever unpacks files in a namespace entered here: from the owner that an archive names, (user,
    group), to the one that the file can have.

    With subordinate ids these are the same, and the function raises MinirtError for one that the map has no place for.
    With one user in all, everything is his.
    """
    users, groups = user.read_map(), user.read_map("/proc/self/gid_map")
    if sum(size for _, _, size in users) == 1:
        return lambda uid, gid: (0, 0)

    def owner(uid: int, gid: int) -> tuple[int, int]:
        for mapping, number, what in ((users, uid, "user"), (groups, gid, "group")):
            if user.outside(mapping, number) < 0:
                raise MinirtError(missing(mapping, number, what))
        return uid, gid

    return owner


def missing(mapping: Map, number: int, what: str) -> str:
    """The sentence for an id ("user" or "group" is `what`) that a map has no place for, with the cure."""
    count = sum(size for _, _, size in mapping)
    return (f"{what} {number} is not among the {count} of your user namespace: "
            "add subordinate ids (sudo usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST NAME)")


def lacking() -> list[str]:
    """What this room cannot give to an ordinary user's containers on this machine, each a sentence with its cure."""
    sentences = [maps()[2]]
    if masked_proc():
        sentences.append("parts of /proc are hidden here, so the kernel refuses a fresh one, and containers see "
                         "the processes of this machine in it; where this machine is a container itself, run that one "
                         "with --security-opt systempaths=unconfined")
    return [sentence for sentence in sentences if sentence]


def masked_proc() -> bool:
    """Whether something is mounted over a part of /proc: then a user namespace gets no fresh one, since that would show
    what was hidden (mount_namespaces(7)). What systemd mounts at an empty directory hides nothing."""
    for line in read_file("/proc/self/mountinfo").decode().splitlines():
        place = line.split()[4]
        if place.startswith("/proc/") and place != "/proc/sys/fs/binfmt_misc":
            return not _another_proc()
    return False


def _another_proc() -> bool:
    """Whether a whole proc file system is mounted at another place, which is as good."""
    points = [line.split()[4] for line in read_file("/proc/self/mountinfo").decode().splitlines()
              if line.partition(" - ")[2].startswith("proc ") and line.split()[3] == "/"]
    return any(point != "/proc" and not point.startswith("/proc/") for point in points)


def news(sentences: Sequence[str]) -> list[str]:
    """Those of `sentences` that this user has not been told yet, and from now on has: each is said once, until the run
    directory goes with the machine's end."""
    path = f"{state.run_root()}/told"
    try:
        known = read_file(path).decode().splitlines()
    except FileNotFoundError:
        known = []
    fresh = [sentence for sentence in sentences if sentence and sentence not in known]
    if fresh:
        state.write_atomic(path, "".join(f"{sentence}\n" for sentence in known + fresh).encode(), sync=False)
    return fresh


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room."""
    return [("newuidmap and newgidmap", has_helpers(), "for containers of ordinary users", "apt-get install uidmap")]

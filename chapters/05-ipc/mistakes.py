"""What is written instead, in chapter 05, and the message that must lead to each mistake."""

from __future__ import annotations

import os

from minirt.kernel import mount, syscalls
from minirt.namespaces.ipc import CLONE_NEWIPC


def enter__wrong_flag() -> None:
    """you are still in the machine's IPC namespace"""
    syscalls.unshare(0x04000000)


def enter__one_bit_too_many() -> None:
    """enter() made more than an IPC namespace"""
    syscalls.unshare(CLONE_NEWIPC | 0x00020000)


def enter__in_a_child() -> None:
    """you are still in the machine's IPC namespace"""
    pid = os.fork()
    if not pid:
        syscalls.unshare(CLONE_NEWIPC)
        os._exit(0)
    os.waitpid(pid, 0)


def enter__removes_what_is_there() -> None:
    """belonged to somebody else"""
    os.system("ipcrm --all")
    syscalls.unshare(CLONE_NEWIPC)


def enter__swallows_the_refusal() -> None:
    """enter() must raise OSError"""
    try:
        syscalls.unshare(CLONE_NEWIPC)
    except OSError:
        pass


def shared_memory__number_for_text(size: int) -> int:
    """values of options are text"""
    options = {"size": size, "mode": "1777"}
    return mount.filesystem("tmpfs", options, ("nosuid", "nodev", "noexec"), source="shm")  # type: ignore[arg-type]


def shared_memory__in_kilobytes(size: int) -> int:
    """size is in bytes"""
    return mount.filesystem("tmpfs", {"size": f"{size}k", "mode": "1777"}, ("nosuid", "nodev", "noexec"), source="shm")


def shared_memory__no_limit(size: int) -> int:
    """half of the machine's memory"""
    return mount.filesystem("tmpfs", {"mode": "1777"}, ("nosuid", "nodev", "noexec"), source="shm")


def shared_memory__only_for_root(size: int) -> int:
    """everybody may create"""
    return mount.filesystem("tmpfs", {"size": str(size), "mode": "755"}, ("nosuid", "nodev", "noexec"), source="shm")


def shared_memory__without_the_words(size: int) -> int:
    """the words are missing"""
    return mount.filesystem("tmpfs", {"size": str(size), "mode": "1777"}, source="shm")


def shared_memory__attaches_it(size: int) -> int:  # type: ignore[return]
    """attached nowhere yet"""
    syscalls.mount("shm", "/dev/shm", "tmpfs", 0x2 | 0x4 | 0x8, f"size={size},mode=1777")


def message_queues__a_tmpfs() -> int:
    """no message queue"""
    return mount.filesystem("tmpfs", {}, ("nosuid", "nodev", "noexec"), source="mqueue")


def message_queues__the_machines_own() -> int:
    """the machine's queues"""
    return mount.clone("/dev/mqueue")


def message_queues__attaches_it() -> int:  # type: ignore[return]
    """attached nowhere yet"""
    syscalls.mount("mqueue", "/dev/mqueue", "mqueue", 0x2 | 0x4 | 0x8)


def message_queues__without_the_words() -> int:
    """the words are missing"""
    return mount.filesystem("mqueue", {})

"""Chapter 05: shared memory, semaphores and message queues of one's own.

Two families of objects live in no file system of ours, so no root directory hides them: System V's (shared memory,
semaphores, message queues, found by a number) and POSIX message queues (found by a name, shown in an mqueue file
system). Both belong to an IPC namespace. POSIX *shared memory* is different: it is plain files on the tmpfs at
/dev/shm, so what separates it is the mount.

A new IPC namespace is empty and has limits of its own (/proc/sys/kernel/shm*, msg*, sem; /proc/sys/fs/mqueue).

Manual pages: ipc_namespaces(7), sysvipc(7), mq_overview(7), shm_overview(7).
"""

from __future__ import annotations

import os

from minirt import trace
from minirt.kernel import mount, syscalls
from minirt.namespaces import mnt

CHAPTER = 5

CLONE_NEWIPC = 0x08000000  # <linux/sched.h>


@trace.narrated(CHAPTER, "enter an IPC namespace of its own: no shared memory, no queues", "unshare(CLONE_NEWIPC)")
def enter() -> None:
    """Move this process into a new IPC namespace, which holds no System V object and no POSIX queue.

    Use `syscalls.unshare` with CLONE_NEWIPC and nothing else. The objects of the old namespace stay where they are.
    Raises OSError (EPERM without CAP_SYS_ADMIN). Sources: ipc_namespaces(7), unshare(2).
    """
    syscalls.unshare(CLONE_NEWIPC)


@trace.narrated(CHAPTER, "shared memory of {size} bytes at most for /dev/shm", "fsopen(tmpfs, size={size})")
def shared_memory(size: int) -> int:
    """Make the file system for /dev/shm: an empty tmpfs of at most `size` bytes, mode 1777 (everybody may create, only
    the owner may remove), without set-user-id bits, devices and programs.

    Return it as a descriptor of a mount that is attached nowhere yet: what `mount.filesystem` returns for the kind
    "tmpfs", with the options "size" and "mode" (their values are str), the words "nosuid", "nodev", "noexec", and
    "shm" as source. Raises OSError. Sources: shm_overview(7), tmpfs(5).
    """
    return mount.filesystem("tmpfs", {"size": str(size), "mode": "1777"}, ("nosuid", "nodev", "noexec"), source="shm")


@trace.narrated(CHAPTER, "clone the /dev/shm that belongs to {path}",
                "setns(); open_tree('/dev/shm', OPEN_TREE_CLONE)")
def borrow_shared_memory(path: str) -> int:
    """Clone the /dev/shm of a process whose IPC namespace, `path` (/proc/PID/ns/ipc), is to be shared: POSIX shared
    memory is files, and who joins the namespace alone would not find them. Return the descriptor of a detached mount.
    Raises OSError. Source: shm_overview(7).
    """
    return mnt.clone_of(path.split("/")[2], "/dev/shm")


@trace.narrated(CHAPTER, "the namespace's own queues for /dev/mqueue", "fsopen(mqueue)")
def message_queues() -> int:
    """Make the file system for /dev/mqueue: it shows the queues of the IPC namespace in which it is *made*.

    So `enter` must come first. Return it as a descriptor of a mount that is attached nowhere yet (`mount.filesystem`
    with the kind "mqueue", no options, and the words of /dev/shm). Raises OSError.
    Source: mq_overview(7) "Mounting the message queue filesystem".
    """
    return mount.filesystem("mqueue", {}, ("nosuid", "nodev", "noexec"))


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room."""
    return [("IPC namespace", os.path.exists("/proc/self/ns/ipc"), "CLONE_NEWIPC", "a kernel with CONFIG_IPC_NS"),
            ("POSIX message queues", os.path.exists("/proc/sys/fs/mqueue"), "file system mqueue",
             "a kernel with CONFIG_POSIX_MQUEUE")]

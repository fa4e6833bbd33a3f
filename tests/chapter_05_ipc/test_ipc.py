"""Chapter 05: what is shared without a file, and how each kind of it gets a wall."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minirt.kernel import syscalls
from minirt.namespaces import ipc

ENTER, MEMORY, QUEUES = (f"minirt.namespaces.ipc.{name}" for name in ("enter", "shared_memory", "message_queues"))
NEW_IPC = 0x08000000  # the number that ipc.CLONE_NEWIPC must have, for tests of what comes after enter()
KEY = 0xCAFE
IPC_CREAT, IPC_RMID = 0o1000, 0
ST_NOSUID, ST_NODEV, ST_NOEXEC = 2, 4, 8  # <sys/statvfs.h>

libc = ctypes.CDLL(None, use_errno=True)


def memory_number(flags: int = 0) -> int:
    """The number of the shared memory with our key, or -1 when this process can see none: shmget(2)."""
    return int(libc.shmget(KEY, 4096, flags))


@pytest.fixture
def memory() -> Iterator[int]:
    """A piece of System V shared memory of the machine, found by KEY."""
    number = memory_number(IPC_CREAT | 0o600)
    assert number >= 0
    yield number
    libc.shmctl(number, IPC_RMID, None)


@pytest.fixture
def queue() -> Iterator[str]:
    """A POSIX message queue of the machine: making a file in its file system makes one."""
    path = Path("/dev/mqueue/orders")
    path.touch()
    yield path.name
    path.unlink()


def names_in(tree: int) -> list[str]:
    """What lies in the top directory of a mount that is attached nowhere."""
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=tree)
    try:
        return os.listdir(directory)
    finally:
        os.close(directory)


def made(function: Callable[..., int], *arguments: Any) -> int:
    """Call a function that makes a file system; fail with a sentence where it made none."""
    before = Path("/proc/self/mounts").read_text()
    try:
        tree = function(*arguments)
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        raise AssertionError(
            f"{error}: the kernel found no text where it looked for one; values of options are text, str(size)"
        ) from None
    name = function.__name__
    assert Path("/proc/self/mounts").read_text() == before, (
        f"{name}() changed what is mounted here: make a mount that is attached nowhere yet, and return its descriptor"
    )
    assert isinstance(tree, int) and tree > 2, (
        f"{name}() returned {tree!r}: return the descriptor that mount.filesystem gives you, of a mount that is "
        "attached nowhere yet"
    )
    return tree


def missing_words(tree: int) -> list[str]:
    flags = os.fstatvfs(tree).f_flag
    table = {"nosuid": ST_NOSUID, "nodev": ST_NODEV, "noexec": ST_NOEXEC}
    return [word for word, bit in table.items() if not flags & bit]


# ---------------------------------------------------------------------------------------------------------------- enter


@pytest.mark.exercise(ENTER)
def test_entering_gives_an_ipc_namespace_of_its_own(spawn: Callable[..., Any], outside: Any) -> None:
    child = spawn(ipc.enter)
    assert child.value is None, "enter() returns nothing: the namespace belongs to the process that called it"
    entered = outside.entered(child.pid)
    assert "ipc" in entered, (
        "after enter() you are still in the machine's IPC namespace: call unshare(2) with CLONE_NEWIPC, in this process"
    )
    more = ", ".join(entered - {"ipc"})
    assert not more, f"enter() made more than an IPC namespace: {more} as well; one bit is enough"


@pytest.mark.exercise(ENTER)
def test_the_machines_memory_is_not_seen_inside(memory: int, inside: Callable[..., Any]) -> None:
    def look() -> tuple[int, int]:
        before = memory_number()
        ipc.enter()
        return before, memory_number()

    before, after = inside(look)
    assert before == memory
    assert after == -1, "shared memory of the machine is still found by its key after enter()"
    assert memory_number() == memory, (
        "after enter() the machine's shared memory is gone: it belonged to somebody else. "
        "Leave the namespace; do not empty it"
    )


@pytest.mark.exercise(ENTER)
def test_what_is_made_inside_is_not_seen_outside(spawn: Callable[..., Any]) -> None:
    def make() -> int:
        ipc.enter()
        return memory_number(IPC_CREAT | 0o600)

    assert spawn(make).value >= 0
    assert memory_number() == -1, "shared memory that was made after enter() can be found out here by its key"


@pytest.mark.exercise(ENTER)
def test_whoever_may_not_gets_an_error(inside: Callable[..., Any]) -> None:
    def enter_as_nobody() -> str:
        os.setresuid(65534, 65534, 65534)
        try:
            ipc.enter()
        except PermissionError:
            return "refused"
        return "no error"

    assert inside(enter_as_nobody) == "refused", (
        "the kernel refused (this user may not make an IPC namespace), and enter() must raise OSError then, "
        "or the caller goes on in the machine's namespace"
    )


# -------------------------------------------------------------------------------------------------------- shared_memory


@pytest.mark.exercise(MEMORY)
def test_shared_memory_is_an_empty_file_system_of_that_size(inside: Callable[..., Any]) -> None:
    def make() -> tuple[list[str], int]:
        tree = made(ipc.shared_memory, 1 << 20)
        about = os.fstatvfs(tree)
        return names_in(tree), about.f_blocks * about.f_frsize

    names, size = inside(make)
    assert names == [], f"a new /dev/shm is empty, and this one holds {names}: make a file system, do not clone one"
    assert size == 1 << 20, (
        f"shared_memory({1 << 20}) made a tmpfs of {size} bytes: size is in bytes, so pass it on as it is, in the "
        "option size; without that option a tmpfs takes half of the machine's memory"
    )


@pytest.mark.exercise(MEMORY)
def test_everybody_may_make_shared_memory_but_no_programs(inside: Callable[..., Any]) -> None:
    def make() -> tuple[int, list[str]]:
        tree = made(ipc.shared_memory, 1 << 20)
        return os.stat(tree).st_mode & 0o7777, missing_words(tree)

    mode, missing = inside(make)
    assert mode == 0o1777, (
        f"its mode is {mode:o}: with 1777 everybody may create, and only the owner may remove (the option mode)"
    )
    assert not missing, f"the words are missing that make it safe: {', '.join(missing)} (third argument)"


@pytest.mark.exercise(MEMORY)
def test_shared_memory_stops_at_its_size(tmp_path: Path, inside: Callable[..., Any]) -> None:
    def fill() -> int:
        tree = made(ipc.shared_memory, 1 << 20)
        file = os.open("block", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=tree)
        written = 0
        try:
            while written < 4 << 20:
                written += os.write(file, bytes(1 << 16))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        return written

    assert inside(fill) == 1 << 20


# ------------------------------------------------------------------------------------------------------- message_queues


@pytest.mark.exercise(QUEUES)
def test_the_queues_shown_are_those_of_the_own_namespace(queue: str, inside: Callable[..., Any]) -> None:
    def look() -> list[str]:
        syscalls.unshare(NEW_IPC)
        return names_in(made(ipc.message_queues))

    names = inside(look)
    assert names == [], (
        f"a process with an IPC namespace of its own is shown {names}, the machine's queues: the file system shows "
        "those of the namespace in which it is made, so make a new one and do not clone the old"
    )


@pytest.mark.exercise(QUEUES)
def test_a_file_made_there_is_a_message_queue(inside: Callable[..., Any]) -> None:
    def make() -> tuple[str, list[str]]:
        syscalls.unshare(NEW_IPC)
        tree = made(ipc.message_queues)
        os.close(os.open("inner", os.O_CREAT | os.O_RDONLY, 0o600, dir_fd=tree))
        with open(os.open("inner", os.O_RDONLY, dir_fd=tree)) as file:
            return file.read(), missing_words(tree)

    text, missing = inside(make)
    assert text.startswith("QSIZE:"), (
        f"a file that is made there reads {text!r}: that is no message queue. The kind of this file system is mqueue"
    )
    assert not missing, f"the words are missing that make it safe: {', '.join(missing)} (third argument)"
    assert not os.path.exists("/dev/mqueue/inner"), "the queue was made in the machine's namespace"


@pytest.mark.exercise(QUEUES)
def test_made_before_entering_it_shows_the_old_queues(queue: str, inside: Callable[..., Any]) -> None:
    def look() -> list[str]:
        tree = made(ipc.message_queues)
        syscalls.unshare(NEW_IPC)
        return names_in(tree)

    assert inside(look) == [queue], "the order matters: made first and entered afterwards, it is the old namespace's"


# ------------------------------------------------------------------------------------------------ the container program


LOOK = "cut -c1-10 /proc/sysvipc/shm | tail -n +2 | tr -d ' '; ls /dev/shm /dev/mqueue"


def test_the_container_program_shows_nothing_of_the_machine(
    memory: int, queue: str, container: Callable[..., Any]
) -> None:
    note = Path("/dev/shm/note")
    note.write_text("swordfish\n")
    try:
        ran = container("/", "sh", "-c", LOOK)
        assert (ran.status, ran.stdout.split()) == (0, ["/dev/mqueue:", "/dev/shm:"]), ran
        ran = container("--ipc", "host", "/", "sh", "-c", LOOK)
        assert (ran.status, ran.stdout.split()) == (0, [str(KEY), "/dev/mqueue:", queue, "/dev/shm:", "note"]), ran
    finally:
        note.unlink()


def test_the_container_program_leaves_nothing_in_shared_memory(container: Callable[..., Any]) -> None:
    ran = container("/", "sh", "-c", "echo here > /dev/shm/note && cat /dev/shm/note && df -B1 --output=size /dev/shm")
    assert (ran.status, ran.stdout.split()) == (0, ["here", "1B-blocks", str(64 << 20)]), ran
    assert not os.path.exists("/dev/shm/note")
    ran = container("--shm-size", "1048576", "/", "df", "-B1", "--output=size", "/dev/shm")
    assert ran.stdout.split()[-1] == "1048576", ran


def test_the_container_program_returns_the_commands_exit_code(container: Callable[..., Any]) -> None:
    assert container("/", "sh", "-c", "exit 41").status == 41
    assert container("/", "sh", "-c", "kill -KILL $$; exit 5").status == 5, "number 1 does not hear itself"


def test_the_container_program_answers_wrong_use_with_a_sentence(container: Callable[..., Any]) -> None:
    for wrong in (["--hostname"], ["--ipx", "host", "/"], ["--shm-size", "big", "/"], ["--ipc", "hosts", "/"]):
        ran = container(*wrong)
        assert ran.status and ran.stderr.startswith("container.py") and ran.stderr.count("\n") == 1, ran


def test_the_container_program_tells_what_it_cannot_run(container: Callable[..., Any]) -> None:
    ran = container("/", "no-such-command")
    assert (ran.status, ran.stderr) == (127, "container.py: no-such-command: not found\n")
    ran = container("/", "/etc/passwd")
    assert (ran.status, ran.stderr) == (126, "container.py: /etc/passwd: cannot be executed\n")

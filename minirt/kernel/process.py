"""Chapter 01: processes: how one begins, runs another program, ends, and is waited for.

A process begins as a copy of its parent (fork), becomes another program (exec), and ends with a number that the parent
collects (wait). Until it is collected it stays in the process table as a *zombie*. A pid is only a number and is used
again; a *pidfd* is a descriptor for one process for good: it can be polled (readable means ended), waited for and
signalled, and never means somebody else.

Every fork, exec and wait of minirt stands here. clone3(2) is fork with a choice: which namespaces the child is born
into, in which cgroup, and with a pidfd handed back by the same call.

Manual pages: fork(2), clone(2), execve(2), waitid(2), pidfd_open(2), pidfd_send_signal(2), prctl(2), close_range(2).
"""

from __future__ import annotations

import ctypes
import os
import sys

from minirt.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CLONE_PIDFD = 0x00001000          # <linux/sched.h>
CLONE_INTO_CGROUP = 0x200000000
SIGCHLD = 17
SIGKILL = 9

PR_SET_PDEATHSIG = 1              # <linux/prctl.h>
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15

AT_EMPTY_PATH = 0x1000            # <linux/fcntl.h>: what the descriptor itself refers to


def fork_call(function: Callable[[], int | None], fork: Callable[[], int] = os.fork) -> int:
    """Fork; in the child call `function` and end with the number it returns (None counts as 0); return the child's pid.

    `fork()` forks: os.fork, or what returns as that does (chapter 03 has one). Like fork(2) it returns twice: 0 in the
    child, the child's pid in the parent. The child must never come back to the caller, whatever happens: it ends by
    `os._exit`, which skips what the parent has planned for its own end (`finally`, `atexit`, output that is still in a
    buffer). An exception of `function` ends the child with 1, after its traceback was printed on stderr
    (`sys.excepthook` does that). Sources: fork(2), _exit(2).
    """
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        code = function() or 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(code & 255)


class _CloneArgs(ctypes.Structure):
    """struct clone_args of <linux/sched.h>: eleven numbers of 64 bits."""

    _fields_ = [(name, ctypes.c_uint64) for name in (
        "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid",
        "set_tid_size", "cgroup")]


def clone3(flags: int = 0, cgroup: int = -1) -> tuple[int, int]:
    """Fork with a choice. Return (pid, pidfd) in the parent and (0, -1) in the child.

    `flags` are CLONE_NEW* bits: the child is born inside those new namespaces. `cgroup`, when not negative, is the
    descriptor of a cgroup v2 directory: the child is born a member of it (CLONE_INTO_CGROUP), which costs nothing,
    where writing its pid to cgroup.procs later waits several milliseconds.

    clone3(2) takes the address of a `_CloneArgs` (`ctypes.byref`) and its size in bytes, and returns as fork(2) does.
    With CLONE_PIDFD among the flags the kernel writes the pidfd to the address (`ctypes.addressof`) in the field
    `pidfd`, where a `ctypes.c_int` must lie. The field `exit_signal` must be SIGCHLD, or the parent could not wait for
    the child as for any other.

    Python does not know of this fork, so it must be called while the process has one thread, and the child must end in
    exec or `os._exit`. Raises OSError. Source: clone(2), section "clone3()".
    """
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArgs(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=SIGCHLD)
    if cgroup >= 0:
        arguments.flags |= CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
    pid = syscalls.call("clone3", ctypes.byref(arguments), ctypes.sizeof(arguments))
    return (pid, pidfd.value) if pid else (0, -1)


def wait(pid: int) -> int:
    """Wait until the child `pid` has ended, collect it, and return its exit code as a shell tells it (see `exit_code`).

    Raises ChildProcessError when it is no child of this process. Source: waitpid(2).
    """
    _, status = os.waitpid(pid, 0)
    return exit_code(status)


def exit_code(status: int) -> int:
    """The one number for how a process ended, from the status of wait(2).

    0 to 255 when it called exit; 128 + the signal's number when a signal killed it (so SIGKILL is 137).
    The status has the exit code in bits 8-15 and the signal in bits 0-6 (0: no signal); bit 7 says that a core file was
    written, and does not count. Sources: wait(2), bash(1) "EXIT STATUS".
    """
    signal = status & 0x7F
    return 128 + signal if signal else (status >> 8) & 0xFF


def send_signal(pidfd: int, signal: int) -> None:
    """Send signal number `signal` to the process behind `pidfd`; 0 only asks whether it may be signalled.

    Raises ProcessLookupError when it has ended and been collected. Source: pidfd_send_signal(2).
    """
    syscalls.call("pidfd_send_signal", pidfd, signal, None, 0)


def die_with_parent(signal: int = SIGKILL) -> None:
    """Ask the kernel to send this process `signal` when its parent ends, by prctl(2) with PR_SET_PDEATHSIG.

    The call takes five numbers: what to set, the signal, and three zeros. It holds for the process that makes it, not
    for its children. Raises OSError. Source: prctl(2).
    """
    syscalls.call("prctl", PR_SET_PDEATHSIG, signal, 0, 0, 0)


def hide() -> None:
    """Make this process non-dumpable: nobody without CAP_SYS_PTRACE over it may read its memory, descriptors or
    executable through /proc (PR_SET_DUMPABLE of prctl(2))."""
    syscalls.call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)


def set_name(name: str) -> None:
    """Show `name` (at most 15 bytes) as this process's name in `ps` (PR_SET_NAME of prctl(2))."""
    syscalls.call("prctl", PR_SET_NAME, os.fsencode(name)[:15], 0, 0, 0)


def close_from(first: int) -> None:
    """Close every descriptor from `first` on (close_range(2))."""
    syscalls.call("close_range", first, 0xFFFFFFFF, 0)


def become(command: Sequence[str]) -> int:
    """Become the program `command[0]`, with these arguments: where it has no slash, the first one of that name in the
    directories of $PATH.

    Returns only if that fails, and then the exit code that a shell has for it: 127 when there is no such program, 126
    when there is one that cannot be executed. Sources: execve(2), bash(1) "COMMAND EXECUTION".
    """
    name, code = command[0], 127
    directories = [""] if "/" in name else [f"{each or '.'}/" for each in os.environ.get("PATH", os.defpath).split(":")]
    for directory in directories:
        try:
            os.execv(directory + name, [*command])
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            code = 126
    return code


def give_streams(uid: int, terminal: bool = False) -> None:
    """Make `uid` the owner of the pipes among descriptors 0 to 2, and with `terminal` of the terminal there, which must
    be one's own: who opens /dev/stdout opens a pipe anew, and needs the right to it. Who may not give them away keeps
    them. Sources: proc(5) "/proc/PID/fd", fchown(2).
    """
    kinds = (0o010000, 0o020000) if terminal else (0o010000,)  # S_IFIFO, S_IFCHR
    for number in range(3):
        status = os.fstat(number)
        if status.st_mode & 0o170000 in kinds and status.st_uid != uid:
            try:
                os.fchown(number, uid, -1)
            except OSError:
                continue  # its owner is nobody in this user namespace


def execute(program: int, argv: Sequence[str], env: Sequence[str]) -> None:
    """Become the program in the open descriptor `program`: no path is looked up.

    execveat(2) takes a directory's descriptor, a path below it, arguments, environment and flags. With an empty path
    (b"") and AT_EMPTY_PATH it executes what the descriptor itself refers to. `argv` (the name first) and `env`
    ("NAME=value") are lists of str and passed as they are; `_strings` makes of each what the kernel reads. Returns only
    by raising OSError. Source: execveat(2).
    """
    syscalls.call("execveat", program, b"", _strings(argv), _strings(env), AT_EMPTY_PATH)


def _strings(words: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    """A NULL-terminated array of C strings."""
    return (ctypes.c_char_p * (len(words) + 1))(*[os.fsencode(word) for word in words], None)

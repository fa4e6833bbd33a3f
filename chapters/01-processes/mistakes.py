"""What is written instead, in chapter 01, and the message that must lead to each mistake."""

from __future__ import annotations

import ctypes
import os
import sys

from minirt.kernel import syscalls
from minirt.kernel.process import (
    AT_EMPTY_PATH,
    CLONE_PIDFD,
    PR_SET_DUMPABLE,
    PR_SET_PDEATHSIG,
    SIGCHLD,
    SIGKILL,
    _CloneArgs,
    _strings,
)
from minirt.kernel.syscalls import ARCHITECTURE, NUMBERS, _libc, _register

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def call__returns_minus_one(name: str, *arguments: Any) -> int:
    """failed, and call() returned -1"""
    if name not in NUMBERS:
        raise OSError(38, f"{os.strerror(38)}: {name} on {ARCHITECTURE}")
    registers = [_register(argument) for argument in arguments]
    return int(_libc.syscall(ctypes.c_long(NUMBERS[name]), *registers))


def call__takes_the_result_for_the_reason(name: str, *arguments: Any) -> int:
    """the reason is in errno, not in the result"""
    if name not in NUMBERS:
        raise OSError(38, f"{os.strerror(38)}: {name} on {ARCHITECTURE}")
    registers = [_register(argument) for argument in arguments]
    result = int(_libc.syscall(ctypes.c_long(NUMBERS[name]), *registers))
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def call__without_words(name: str, *arguments: Any) -> int:
    """has no text"""
    if name not in NUMBERS:
        raise OSError(38, f"{os.strerror(38)}: {name} on {ARCHITECTURE}")
    registers = [_register(argument) for argument in arguments]
    result = int(_libc.syscall(ctypes.c_long(NUMBERS[name]), *registers))
    if result == -1:
        raise OSError(ctypes.get_errno())
    return result


def call__raw_arguments(name: str, *arguments: Any) -> int:
    """as it is, ctypes makes wide characters of it"""
    if name not in NUMBERS:
        raise OSError(38, f"{os.strerror(38)}: {name} on {ARCHITECTURE}")
    result = int(_libc.syscall(ctypes.c_long(NUMBERS[name]), *arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def call__cut_to_32_bits(name: str, *arguments: Any) -> int:
    """an int must fill a whole register"""
    if name not in NUMBERS:
        raise OSError(38, f"{os.strerror(38)}: {name} on {ARCHITECTURE}")
    plain = [os.fsencode(each) if isinstance(each, str) else each for each in arguments]
    result = int(_libc.syscall(ctypes.c_long(NUMBERS[name]), *plain))
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def call__unknown_name(name: str, *arguments: Any) -> int:
    """a name that is not in NUMBERS"""
    registers = [_register(argument) for argument in arguments]
    result = int(_libc.syscall(ctypes.c_long(NUMBERS[name]), *registers))
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def fork_call__comes_back(function: Callable[[], int | None], fork: Callable[[], int] = os.fork) -> int:
    """a child must end itself with os._exit()"""
    pid = fork()
    if pid == 0:
        function()
    return pid


def fork_call__sys_exit(function: Callable[[], int | None], fork: Callable[[], int] = os.fork) -> int:
    """a child must end itself with os._exit()"""
    pid = fork()
    if pid == 0:
        sys.exit(function())
    return pid


def fork_call__roles_exchanged(function: Callable[[], int | None], fork: Callable[[], int] = os.fork) -> int:
    """the function ran in the parent"""
    pid = fork()
    if pid == 0:
        os._exit(0)
    function()
    return pid


def fork_call__returns_nothing(function: Callable[[], int | None], fork: Callable[[], int] = os.fork) -> int:  # type: ignore[return]
    """must return the child's pid"""
    pid = fork()
    if pid == 0:
        os._exit(function() or 0)


def fork_call__forgets_the_code(function: Callable[[], int | None], fork: Callable[[], int] = os.fork) -> int:
    """the child must end with the number that the function returned"""
    pid = fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(0)
    return pid


def fork_call__trips_over_none(function: Callable[[], int | None], fork: Callable[[], int] = os.fork) -> int:
    """None counts as 0"""
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        code = int(function())  # type: ignore[arg-type]
    finally:
        os._exit(code)


def fork_call__lets_the_exception_out(function: Callable[[], int | None], fork: Callable[[], int] = os.fork) -> int:
    """a child must end itself with os._exit()"""
    pid = fork()
    if pid == 0:
        os._exit(function() or 0)
    return pid


def fork_call__hides_the_exception(function: Callable[[], int | None], fork: Callable[[], int] = os.fork) -> int:
    """nobody learns why"""
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        code = function() or 0
    finally:
        os._exit(code)


def fork_call__not_every_exception(function: Callable[[], int | None], fork: Callable[[], int] = os.fork) -> int:
    """the traceback of any exception (BaseException)"""
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        code = function() or 0
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(code & 255)


def fork_call__its_own_fork(function: Callable[[], int | None], fork: Callable[[], int] = os.fork) -> int:
    """it stands for os.fork"""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = function() or 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(code & 255)


def fork_call__calls_in_both(function: Callable[[], int | None], fork: Callable[[], int] = os.fork) -> int:
    """the function ran in the parent"""
    pid = fork()
    code = function() or 0
    if pid == 0:
        os._exit(code)
    return pid


def exit_code__the_status_itself(status: int) -> int:
    """is the whole status"""
    return status


def exit_code__only_the_upper_byte(status: int) -> int:
    """would look like success"""
    return status >> 8


def exit_code__minus_the_signal(status: int) -> int:
    """as a shell tells it"""
    return os.waitstatus_to_exitcode(status)


def exit_code__counts_the_core_bit(status: int) -> int:
    """bit 7 only says"""
    if status & 0xFF:
        return 128 + (status & 0xFF)
    return status >> 8


def die_with_parent__another_option(signal: int = SIGKILL) -> None:
    """is still alive"""
    syscalls.call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)


def die_with_parent__always_kill(signal: int = SIGKILL) -> None:
    """the signal that was asked for"""
    syscalls.call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)


def die_with_parent__swallows_the_refusal(signal: int = SIGKILL) -> None:
    """there is no signal 999"""
    try:
        syscalls.call("prctl", PR_SET_PDEATHSIG, signal, 0, 0, 0)
    except OSError:
        pass


def die_with_parent__in_a_child(signal: int = SIGKILL) -> None:
    """not for its children, nor for its parent"""
    pid = os.fork()
    if pid == 0:
        syscalls.call("prctl", PR_SET_PDEATHSIG, signal, 0, 0, 0)
        os._exit(0)
    os.waitpid(pid, 0)


def die_with_parent__arguments_exchanged(signal: int = SIGKILL) -> None:
    """what to set comes first"""
    syscalls.call("prctl", signal, PR_SET_PDEATHSIG, 0, 0, 0)


def clone3__like_fork(flags: int = 0, cgroup: int = -1) -> tuple[int, int]:
    """is born in our own UTS namespace"""
    pid = os.fork()
    return (pid, os.pidfd_open(pid)) if pid else (0, -1)


def clone3__no_pidfd(flags: int = 0, cgroup: int = -1) -> tuple[int, int]:
    """CLONE_PIDFD"""
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArgs(flags=flags, pidfd=ctypes.addressof(pidfd), exit_signal=SIGCHLD)
    pid = syscalls.call("clone3", ctypes.byref(arguments), ctypes.sizeof(arguments))
    return (pid, pidfd.value) if pid else (0, -1)


def clone3__no_exit_signal(flags: int = 0, cgroup: int = -1) -> tuple[int, int]:
    """exit_signal must be SIGCHLD"""
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArgs(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd))
    pid = syscalls.call("clone3", ctypes.byref(arguments), ctypes.sizeof(arguments))
    return (pid, pidfd.value) if pid else (0, -1)


def clone3__only_the_pid(flags: int = 0, cgroup: int = -1) -> tuple[int, int]:
    """must return two numbers"""
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArgs(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=SIGCHLD)
    return syscalls.call("clone3", ctypes.byref(arguments), ctypes.sizeof(arguments))  # type: ignore[return-value]


def clone3__forgets_the_cgroup(flags: int = 0, cgroup: int = -1) -> tuple[int, int]:
    """no cgroup at all"""
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArgs(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=SIGCHLD)
    pid = syscalls.call("clone3", ctypes.byref(arguments), ctypes.sizeof(arguments))
    return (pid, pidfd.value) if pid else (0, -1)


def execute__a_path_is_missing(program: int, argv: Sequence[str], env: Sequence[str]) -> None:
    """AT_EMPTY_PATH"""
    syscalls.call("execveat", program, b"", _strings(argv), _strings(env), 0)


def execute__our_environment(program: int, argv: Sequence[str], env: Sequence[str]) -> None:
    """its environment must be"""
    ours = [f"{name}={value}" for name, value in os.environ.items()]
    syscalls.call("execveat", program, b"", _strings(argv), _strings(ours), AT_EMPTY_PATH)


def execute__argv_without_the_name(program: int, argv: Sequence[str], env: Sequence[str]) -> None:
    """argv as it is, the name first"""
    syscalls.call("execveat", program, b"", _strings(argv[1:]), _strings(env), AT_EMPTY_PATH)


def execute__a_path_below_proc(program: int, argv: Sequence[str], env: Sequence[str]) -> None:
    """a path such as /proc/self/fd/3"""
    variables = dict(word.split("=", 1) for word in env)
    os.execve(f"/proc/self/fd/{program}", list(argv), variables)


def execute__in_a_child(program: int, argv: Sequence[str], env: Sequence[str]) -> None:
    """this process must become the program"""
    pid = os.fork()
    if pid == 0:
        syscalls.call("execveat", program, b"", _strings(argv), _strings(env), AT_EMPTY_PATH)
    os.waitpid(pid, 0)


def execute__swallows_the_refusal(program: int, argv: Sequence[str], env: Sequence[str]) -> None:
    """must raise OSError"""
    try:
        syscalls.call("execveat", program, b"", _strings(argv), _strings(env), AT_EMPTY_PATH)
    except OSError:
        pass

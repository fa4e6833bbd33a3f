"""What is written instead, in chapter 03, and the message that must lead to each mistake."""

from __future__ import annotations

import _signal
import os

from minirt.kernel import process
from minirt.namespaces.pid import ALL_SIGNALS, CLONE_NEWPID, forward, reap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def birth__a_plain_fork(cgroup: int = -1) -> tuple[int, int]:
    """it is not number 1"""
    return process.clone3(0, cgroup)


def birth__only_unshares(cgroup: int = -1) -> tuple[int, int]:
    """nobody was born"""
    process.syscalls.unshare(CLONE_NEWPID)
    return os.getpid(), -1


def birth__unshares_and_forks(cgroup: int = -1) -> tuple[int, int]:
    """its later children are born into the new namespace too"""
    process.syscalls.unshare(CLONE_NEWPID)
    return process.clone3(0, cgroup)


def birth__only_the_pid(cgroup: int = -1) -> tuple[int, int]:
    """birth() must return two numbers"""
    return process.clone3(CLONE_NEWPID, cgroup)[0]  # type: ignore[return-value]


def birth__throws_the_pidfd_away(cgroup: int = -1) -> tuple[int, int]:
    """is no pidfd of the child"""
    pid, pidfd = process.clone3(CLONE_NEWPID, cgroup)
    if pid:
        os.close(pidfd)
    return pid, -1


def birth__forgets_the_cgroup(cgroup: int = -1) -> tuple[int, int]:
    """birth() ignores its argument"""
    return process.clone3(CLONE_NEWPID)


def birth__child_returns_its_number(cgroup: int = -1) -> tuple[int, int]:
    """in the child birth() returned (1, -1)"""
    pid, pidfd = process.clone3(CLONE_NEWPID, cgroup)
    return pid or os.getpid(), pidfd


def reap__only_one() -> dict[int, int]:
    """collected 1 of 3"""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return {}
    return {pid: process.exit_code(status)} if pid else {}


def reap__waits() -> dict[int, int]:
    """it waited for a child that still lives"""
    collected: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return collected
        collected[pid] = process.exit_code(status)


def reap__raw_status() -> dict[int, int]:
    """that is the wait status, not the exit code"""
    collected: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return collected
        if not pid:
            return collected
        collected[pid] = status


def reap__no_children_is_an_error() -> dict[int, int]:
    """waitpid raises ChildProcessError"""
    collected: dict[int, int] = {}
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return collected
        collected[pid] = process.exit_code(status)


def reap__forgets_those_before() -> dict[int, int]:
    """collected 0 of 3"""
    while True:
        collected: dict[int, int] = {}
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return collected
        if not pid:
            return collected
        collected[pid] = process.exit_code(status)


def reap__keeps_the_zero() -> dict[int, int]:
    """0 is no child"""
    collected: dict[int, int] = {}
    pid = -1
    while pid:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return collected
        collected[pid] = process.exit_code(status)
    return collected


def forward__swallows_everything(signal: int, child: int) -> None:
    """only that the child is gone"""
    try:
        os.kill(child, signal)
    except OSError:
        pass


def forward__arguments_exchanged(signal: int, child: int) -> None:
    """the pid comes first"""
    try:
        os.kill(signal, child)
    except ProcessLookupError:
        pass


def forward__always_sigterm(signal: int, child: int) -> None:
    """pass on the signal that came"""
    try:
        os.kill(child, _signal.SIGTERM)
    except ProcessLookupError:
        pass


def forward__to_the_group(signal: int, child: int) -> None:
    """did not arrive"""
    try:
        os.kill(-child, signal)
    except ProcessLookupError:
        pass


def forward__to_everybody(signal: int, child: int) -> None:
    """a process that had nothing to do with it"""
    os.kill(-1, signal)


def forward__gone_is_an_error(signal: int, child: int) -> None:
    """is gone already"""
    os.kill(child, signal)


def init__runs_it_as_number_1(main: Callable[[], int | None], close: Sequence[int] = ()) -> int:
    """the program must be a child of number 1"""
    return main() or 0


def init__waits_for_the_program_only(main: Callable[[], int | None], close: Sequence[int] = ()) -> int:
    """the orphan stays a zombie"""
    child = process.fork_call(main)
    for descriptor in close:
        os.close(descriptor)
    return process.wait(child)


def init__leaves_signals_blocked(main: Callable[[], int | None], close: Sequence[int] = ()) -> int:
    """unblock them in the child"""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ALL_SIGNALS)
    child = process.fork_call(main)
    for descriptor in close:
        os.close(descriptor)
    while True:
        signal = _signal.sigwait(ALL_SIGNALS)
        if signal == process.SIGCHLD:
            codes = reap()
            if child in codes:
                return codes[child]
        else:
            forward(signal, child)


def init__ends_with_any_child(main: Callable[[], int | None], close: Sequence[int] = ()) -> int:
    """init() returned when an orphan had ended"""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ALL_SIGNALS)

    def unblocked() -> int | None:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ALL_SIGNALS)
        return main()

    child = process.fork_call(unblocked)
    for descriptor in close:
        os.close(descriptor)
    while True:
        signal = _signal.sigwait(ALL_SIGNALS)
        if signal == process.SIGCHLD:
            for code in reap().values():
                return code
        else:
            forward(signal, child)


def init__waits_for_all(main: Callable[[], int | None], close: Sequence[int] = ()) -> int:
    """the program has ended, and init() has not returned"""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ALL_SIGNALS)

    def unblocked() -> int | None:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ALL_SIGNALS)
        return main()

    child = process.fork_call(unblocked)
    for descriptor in close:
        os.close(descriptor)
    codes: dict[int, int] = {}
    while True:
        signal = _signal.sigwait(ALL_SIGNALS)
        if signal == process.SIGCHLD:
            codes |= reap()
            try:
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return codes[child]
        else:
            forward(signal, child)


def init__keeps_signals_to_itself(main: Callable[[], int | None], close: Sequence[int] = ()) -> int:
    """number 1 did not pass it on"""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ALL_SIGNALS)

    def unblocked() -> int | None:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ALL_SIGNALS)
        return main()

    child = process.fork_call(unblocked)
    for descriptor in close:
        os.close(descriptor)
    while True:
        _signal.sigwait(ALL_SIGNALS)
        codes = reap()
        if child in codes:
            return codes[child]


def init__blocks_too_late(main: Callable[[], int | None], close: Sequence[int] = ()) -> int:
    """Block the signals before the fork"""
    child = process.fork_call(main)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ALL_SIGNALS)
    for descriptor in close:
        os.close(descriptor)
    while True:
        signal = _signal.sigwait(ALL_SIGNALS)
        if signal == process.SIGCHLD:
            codes = reap()
            if child in codes:
                return codes[child]
        else:
            forward(signal, child)


def init__keeps_the_descriptors(main: Callable[[], int | None], close: Sequence[int] = ()) -> int:
    """number 1 still holds it"""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ALL_SIGNALS)

    def unblocked() -> int | None:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ALL_SIGNALS)
        return main()

    child = process.fork_call(unblocked)
    while True:
        signal = _signal.sigwait(ALL_SIGNALS)
        if signal == process.SIGCHLD:
            codes = reap()
            if child in codes:
                return codes[child]
        else:
            forward(signal, child)


def init__closes_before_the_fork(main: Callable[[], int | None], close: Sequence[int] = ()) -> int:
    """close them after the fork"""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, ALL_SIGNALS)

    def unblocked() -> int | None:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ALL_SIGNALS)
        return main()

    for descriptor in close:
        os.close(descriptor)
    child = process.fork_call(unblocked)
    while True:
        signal = _signal.sigwait(ALL_SIGNALS)
        if signal == process.SIGCHLD:
            codes = reap()
            if child in codes:
                return codes[child]
        else:
            forward(signal, child)

"""Chapter 03: process numbers of one's own, and the duties of number 1.

A pid namespace has its own numbering. A process is born into it and stays: unshare(2) only decides where the *children*
will be, so the way in is birth. Inside it sees its own number (the first one is 1); outside it has another. The outer
side sees and may signal the inner one, never the other way round.

Number 1 is special, as on a whole machine:
- orphans become its children, and nobody but it can collect them (*reaping*), or they stay zombies for ever;
- a signal that it has no handler for does not reach it from inside, and from outside only SIGKILL and SIGSTOP do;
- when it ends the kernel kills every process of the namespace.

Programs are rarely written for that, so `init` can stand in front of one (`minirt run --init` has one of machine code,
chapter 12).

Manual pages: pid_namespaces(7), clone(2), wait(2), sigwaitinfo(2), kill(2).
"""

from __future__ import annotations

import _signal  # the module `signal` wraps this one in enums, which cost 5 ms at every start
import os

from minirt import trace
from minirt.kernel import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CHAPTER = 3

CLONE_NEWPID = 0x20000000  # <linux/sched.h>
ALL_SIGNALS = _signal.valid_signals()


@trace.narrated(CHAPTER, "be born as number 1 of a pid namespace of its own", "clone3(CLONE_NEWPID, cgroup={cgroup})")
def birth(cgroup: int = -1) -> tuple[int, int]:
    """Fork a child that is number 1 of a new pid namespace.

    Return (pid, pidfd) in the parent, with the pid as the parent sees it, and (0, -1) in the child. `cgroup` is the
    descriptor of the cgroup v2 directory to be born into, or -1 for the parent's own.

    `process.clone3` forks with CLONE_NEWPID, takes the cgroup, and returns just that. The parent must stay what it is:
    after an unshare(2) its *later* children would be born into the new namespace as well. Raises OSError (EPERM without
    CAP_SYS_ADMIN, EBADF when `cgroup` is no cgroup). Sources: pid_namespaces(7), clone(2).
    """
    return process.clone3(CLONE_NEWPID, cgroup)


def reap() -> dict[int, int]:
    """Collect every child that has ended, without waiting for one that has not.

    Return {pid: exit code} of those collected, the codes as `process.exit_code` makes them of a wait status; empty when
    there was nothing to collect, also when there are no children at all (waitpid raises ChildProcessError then). One
    SIGCHLD may stand for many deaths, so ask os.waitpid(-1, os.WNOHANG) until it has no more: it answers (pid, status)
    for a child that has ended, and (0, 0) when children are left and all of them live. Source: waitpid(2).
    """
    collected: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return collected
        if not pid:
            return collected
        collected[pid] = process.exit_code(status)


def forward(signal: int, child: int) -> None:
    """Pass the signal number `signal`, which number 1 has received, on to process `child` and to no other.

    Nothing happens when that is gone already (ProcessLookupError): a signal may be on its way while its target ends.
    Number 1 must not die of a signal meant for the program behind it: it hands it on. Source: kill(2).
    """
    try:
        os.kill(child, signal)
    except ProcessLookupError:
        pass


def init(main: Callable[[], int | None], close: Sequence[int] = ()) -> int:
    """Be number 1 for a program: run `main` in a child, pass signals on to it, reap orphans, return its exit code.

    `close` are descriptors that are the child's alone: number 1 closes its copies after the fork.

    First block all signals (`_signal.pthread_sigmask`, SIG_BLOCK, ALL_SIGNALS): a blocked signal is kept until somebody
    fetches it. Then fork with `process.fork_call`; the child unblocks them (SIG_UNBLOCK) before it calls `main`, since
    a blocked signal stays blocked across exec. Number 1 fetches one signal after the other with `_signal.sigwait`:
    SIGCHLD means `reap`, and the end when `child` is among the collected; every other one is `forward`ed. Orphans still
    alive when the child has ended are left to the kernel: it kills them when number 1 ends. Raises nothing of its own.
    Sources: pid_namespaces(7), sigwait(3), pthread_sigmask(3).
    """
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
            codes = reap()
            if child in codes:
                return codes[child]
        else:
            forward(signal, child)


def probe() -> list[tuple[str, bool, str, str]]:
    """What `minirt doctor` says of this room."""
    return [("pid namespace", os.path.exists("/proc/self/ns/pid"), "CLONE_NEWPID", "a kernel with CONFIG_PID_NS")]

"""Chapter 12: one more process in a container that runs: what `exec` does.

The walls stand already: the new process only has to get behind them. It is born into the container's control group,
gives up what is the machine's, enters all namespaces of the container's first process with one setns(2) on its pidfd,
and then, as every process of a container, goes through `enter`. The pid namespace is the exception: a process cannot
change its own, only its children are in the new one. So the last program forks (`program.JOIN`), and the parent half
tells the child's pid.

Manual pages: setns(2), pidfd_open(2), clone(2) "CLONE_PARENT".
"""

from __future__ import annotations

import os

from minirt import state, trace
from minirt.kernel import process, syscalls
from minirt.namespaces import ipc, mnt, net, pid, uts
from minirt.process import enter, handle, program
from minirt.process import spec as specs
from minirt.process.handle import PROGRAM, Handle, Joined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirt.cgroups.tree import Group

CHAPTER = 12

CLONE_NEWCGROUP = 0x02000000  # <linux/sched.h>
CLONE_NEWUSER = 0x10000000
KINDS = (("user", CLONE_NEWUSER), ("mnt", mnt.CLONE_NEWNS), ("cgroup", CLONE_NEWCGROUP), ("uts", uts.CLONE_NEWUTS),
         ("ipc", ipc.CLONE_NEWIPC), ("net", net.CLONE_NEWNET), ("pid", pid.CLONE_NEWPID))
EVERY_NAMESPACE = sum(bit for _, bit in KINDS[1:])  # but that of users, for whoever is root anyway


def prepare(target: int, spec: dict[str, Any], stdio: tuple[int, int, int] = (0, 1, 2),
            group: Group | None = None) -> Handle:
    """Fork a process that joins the container whose first process is behind the pidfd `target`; it waits at the gate.

    `spec` has the "process" to become, as `minirt.process.spec` describes it; `stdio` as in `launch.prepare`; `group`
    is the container's control group, opened. Raises OSError when the process cannot be born.
    """
    if spec["process"].get("terminal"):
        from minirt.process import terminal  # noqa: F401
    cgroup = group.descriptor if group else -1
    kinds = different(target)
    if kinds & CLONE_NEWUSER:
        from minirt.namespaces import user  # noqa: F401
    joined = handle.begin(
        spec["process"], stdio, program.sealed(program.JOIN), birth=lambda: process.clone3(0, cgroup),
        child=lambda: _child(spec, group, kinds), kind=Joined, extra=target)
    joined.filter = specs.filter_for(spec)
    return joined


def different(target: int) -> int:
    """The kinds of namespaces, as CLONE_NEW* bits, in which the process behind the pidfd `target` is not in ours."""
    with open(f"/proc/self/fdinfo/{target}") as file:
        pid = next(line.split()[1] for line in file if line.startswith("Pid:"))
    kinds = 0
    for name, bit in KINDS:
        if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):
            kinds |= bit
    return kinds


def _child(spec: dict[str, Any], group: Group | None, kinds: int) -> int:
    """Get behind the walls, wait at the gate, become the command."""
    process.hide()
    if group is not None:
        group.join()
    target = handle.EXTRA + bool(spec["process"].get("terminal"))
    if kinds & CLONE_NEWUSER:
        become_mapped(target, kinds & ~CLONE_NEWUSER)
    else:
        enter_namespaces(target)
    os.close(target)
    enter.lock_out_imports()
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.close(enter.working_directory(root, spec["process"].get("cwd") or "/", make=False))
    slave = handle.open_terminal(root, console=False) if spec["process"].get("terminal") else -1
    os.close(root)
    seccomp = handle.pass_gate()
    if seccomp is None:
        return 125
    if slave >= 0:
        handle.take_terminal(slave)
    enter.execute(spec, PROGRAM, seccomp)


@trace.narrated(CHAPTER, "enter every namespace of the container at once", "setns(pidfd, ...)")
def enter_namespaces(target: int) -> None:
    """Enter all namespaces of the process behind the pidfd `target`; the pid namespace counts for children only.

    Root and working directory become those of that mount namespace. Raises OSError (ESRCH when the process has ended).
    Source: setns(2).
    """
    syscalls.setns(target, EVERY_NAMESPACE)


def become_mapped(target: int, kinds: int) -> None:
    """Enter the container's user namespace, and those in `kinds`, and become its root.

    Whoever is root here enters the others first, with root's right over all of them; an ordinary user, who has a right
    over the user namespaces that he made and none of his own, enters all at once. Raises OSError.
    """
    from minirt.namespaces import user

    if state.ordinary():
        state.settle()
        syscalls.setns(target, CLONE_NEWUSER | kinds)
        user.become_root()
    else:
        enter_namespaces(target)
        user.configure(target)

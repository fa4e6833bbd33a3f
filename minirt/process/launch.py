"""Chapter 12: all of it at once: one process behind every wall.

`prepare` forks a child that builds its walls and then waits; `Handle.start` lets it become the command. What must be
wired from outside goes in between. The child is number 1 of its pid namespace from birth, and born into its cgroup;
the other rooms it enters one after the other, in the order of the book. Where it shares the pid namespace of another
container, it builds its walls outside, where nobody in there can look at it, and only the last program goes in, as
for `exec` (`join`).

Rules of the room: how parent and child talk stands in `handle`; what is imported after the clone would be paid for by
every container, and within its root nothing can be imported any more.

Manual pages: namespaces(7), clone(2).
"""

from __future__ import annotations

import os

from minirt import overlay, state
from minirt.errors import MinirtError
from minirt.kernel import mount, paths, process, syscalls
from minirt.namespaces import cgroup, ipc, mnt, net, pid, sysctl, uts
from minirt.process import enter, handle, program
from minirt.process import spec as specs
from minirt.process.handle import PROGRAM, Handle, Joined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minirt.cgroups.tree import Group

CHAPTER = 12

# The rooms that a process enters, in this order; the mount namespace last: what the others need of /proc is gone then.
ROOMS = (("uts", uts), ("ipc", ipc), ("network", net), ("cgroup", cgroup), ("mount", mnt))


def prepare(spec: dict[str, Any], stdio: tuple[int, int, int] = (0, 1, 2), group: Group | None = None) -> Handle:
    """Fork the process that `spec` describes (see `minirt.process.spec`); it builds its walls and waits.

    `stdio` are the descriptors that become its standard input, output and error, where `spec` asks for no terminal.
    `group` is a control group that exists already; the process is born into it. Returns at once: `Handle.ready` waits
    for the walls. Raises OSError when the process cannot be born.
    """
    new = {entry["type"] for entry in spec["linux"]["namespaces"] if "path" not in entry}
    cgroup = group.descriptor if group else -1
    shared = shared_pid(spec)
    load_what_it_needs(spec)
    namespace = -1
    if spec["linux"].get("uidMappings"):
        from minirt.namespaces import user

        namespace = user.make(*(user.from_specification(spec["linux"].get(f"{kind}Mappings") or ())
                                for kind in ("uid", "gid")))
    born = handle.begin(
        spec["process"], stdio,
        program.sealed(program.JOIN * bool(shared) + program.INIT * bool(spec["process"].get("init"))),
        birth=lambda: pid.birth(cgroup) if "pid" in new else process.clone3(0, cgroup),
        child=lambda: _child(spec, new, group), kind=Joined if shared else Handle, extra=namespace)
    if namespace >= 0:
        os.close(namespace)
    born.filter = specs.filter_for(spec)  # made here while the child builds its walls
    return born


def shared_pid(spec: dict[str, Any]) -> str:
    """The file of the pid namespace of another container that this one is to share; empty when there is none."""
    return next((entry.get("path", "") for entry in spec["linux"]["namespaces"] if entry["type"] == "pid"), "")


def load_what_it_needs(spec: dict[str, Any]) -> None:
    """Import what only some processes need; the others shall not pay for it. Within the container's root nothing can be
    imported any more, so what is used there must be here already."""
    if spec["process"].get("terminal"):
        from minirt.process import terminal  # noqa: F401
    if spec["process"].get("rlimits"):
        import resource  # noqa: F401
    if is_mapped(spec):
        from minirt.namespaces import user  # noqa: F401


def is_mapped(spec: dict[str, Any]) -> bool:
    """Whether the container's root is somebody else on the machine: in a user namespace of its own, or in the one that
    an ordinary user's whole monitor is in (chapter 07)."""
    return bool(spec["linux"].get("uidMappings")) or state.ordinary()


def _child(spec: dict[str, Any], new: set[str], group: Group | None) -> int:
    """Build the walls, wait at the gate, become the command. Returns only when the parent has died."""
    process.die_with_parent()
    process.hide()
    if group is not None:
        group.join()
    shared = shared_pid(spec)
    if not shared:  # else the last program begins the session
        os.setsid()
    wanted = spec["process"]
    mapped = is_mapped(spec)
    if wanted.get("oomScoreAdj") is not None:
        try:
            with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
                file.write(str(wanted["oomScoreAdj"]).encode())
        except PermissionError:
            if not mapped or wanted["oomScoreAdj"]:  # 0 is the default: an ordinary user's session may have more
                raise MinirtError(f"oom_score_adj cannot be lowered to {wanted['oomScoreAdj']} here") from None
    sources = clones(spec["mounts"], shared)
    for entry in spec["linux"]["namespaces"]:
        if "path" in entry:  # a pid namespace: for children only, so for what the last program forks
            enter_existing(entry["path"])
    if spec["linux"].get("uidMappings"):
        spec = become_mapped(spec, sources, handle.EXTRA + bool(wanted.get("terminal")))
    for name, room in ROOMS:
        if name in new:
            room.enter()
    if "uts" in new and spec.get("hostname"):
        uts.configure(spec["hostname"], spec.get("domainname", ""))
    if "network" in new:
        net.configure()
    root = build_root(spec, sources, group.hierarchies() if group else (), mapped)
    slave = handle.open_terminal(root) if wanted.get("terminal") else -1
    finish_root(spec, root)
    mnt.pivot(root)
    os.close(root)
    enter.lock_out_imports()
    seccomp = handle.pass_gate()
    if seccomp is None:
        return 125  # the parent died: nobody is left to answer to
    if slave >= 0:
        handle.take_terminal(slave, control=not shared)
    enter.execute(spec, PROGRAM, seccomp)


def clones(mounts: Sequence[dict[str, Any]], shared_pids: str) -> list[int]:
    """What each mount that shows something of others begins with, as a detached mount: a part of the machine's own
    tree, the /proc or the /dev/shm of another container; -1 for a file system that is made anew, later."""
    sources = [mnt.bind(entry["source"], entry.get("options", ())) if entry["type"] == "bind" else -1
               for entry in mounts]
    for number, entry in enumerate(mounts):  # only now: these cut the propagation that a bind mount may want
        if entry["type"] == "proc" and shared_pids:
            sources[number] = mnt.bind_proc(shared_pids)
        elif entry["type"] == "shm":
            sources[number] = ipc.borrow_shared_memory(entry["source"])
    return sources


def enter_existing(path: str) -> None:
    """Enter the namespace that the file `path` (/proc/PID/ns/KIND) stands for. Raises OSError. setns(2)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(descriptor)
    os.close(descriptor)


def become_mapped(spec: dict[str, Any], sources: list[int], namespace: int) -> dict[str, Any]:
    """Do what takes the machine's root, then become that of the user namespace behind the descriptor `namespace`, to
    which every namespace made from here on will belong.

    It takes root to mount the overlay, over layers that are id-mapped where that is allowed, and a /proc, since the pid
    namespace was made outside. Both come along as detached mounts, the /proc in `sources`; returns the specification
    with the root.
    """
    from minirt.namespaces import user

    mnt.enter()
    layers = spec["root"].get("overlay")
    if layers:
        if not state.ordinary():
            user.map_directory(layers["layers"], namespace)
        overlay.stack(layers["lower"], layers["upper"], layers["work"], spec["root"]["path"], layers["layers"],
                      overlay.USER_WORDS if state.ordinary() else "")
    root = mount.clone(spec["root"]["path"], recursive=True)  # a path that the new root may not walk
    for number, entry in enumerate(spec["mounts"]):
        if entry["type"] == "proc":
            sources[number] = user.make_or_borrow(entry)
    user.configure(namespace)
    os.close(namespace)
    process.die_with_parent()  # the change of user has taken it back
    return {**spec, "root": {"path": "/", "tree": root, "readonly": spec["root"].get("readonly")}}


def build_root(spec: dict[str, Any], sources: list[int], hierarchies: Sequence[str] = (), mapped: bool = False) -> int:
    """Put the container's root together, overlay or directory, with all mounts and devices; a descriptor of it.

    `sources` are the clones for bind mounts, one for each entry of "mounts", -1 for the others; `hierarchies` are the
    trees of control groups that a mount of type "cgroup" shows. `mapped`: this is not the machine's root.
    """
    layers = spec["root"].get("overlay")
    if layers:
        overlay.stack(layers["lower"], layers["upper"], layers["work"], spec["root"]["path"], layers["layers"],
                      overlay.USER_WORDS if mapped else "")
        root = os.open(spec["root"]["path"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        root = mnt.bind_root(spec["root"]["path"], spec["root"].get("tree", -1))
    for entry, source in zip(spec["mounts"], sources, strict=True):
        if entry["type"] == "cgroup":
            if hierarchies:
                cgroup.configure(root, entry["destination"], entry["options"], hierarchies)
            continue
        try:
            mnt.attach(source if source >= 0 else make(entry, mapped), root, entry["destination"])
        except (NotADirectoryError, IsADirectoryError):
            raise MinirtError(f"cannot mount {entry.get('source')} on {entry['destination']}: "
                              "Are you trying to mount a directory onto a file (or vice-versa)?") from None
        if entry["destination"] == "/dev" and entry["type"] == "bind":
            continue  # the machine's own, or whatever it is: nothing is made in there
        if entry["destination"] == "/dev" and mapped:
            from minirt.namespaces import user

            user.bind_devices(root, spec["linux"].get("devices", ()))
        elif entry["destination"] == "/dev":
            mnt.make_devices(root, spec["linux"].get("devices", ()))
    return root


def make(entry: dict[str, Any], mapped: bool = False) -> int:
    """Make what one entry of "mounts" asks for: shared memory and queues by the IPC room, the rest by the mount room.
    """
    if entry["type"] == "mqueue":
        return ipc.message_queues()
    size = [word for word in entry.get("options", ()) if word.startswith("size=")]
    if entry["destination"] == "/dev/shm" and entry["type"] == "tmpfs" and size and size[0][5:].isdigit():
        return ipc.shared_memory(int(size[0][5:]))
    if mapped:
        from minirt.namespaces import user

        return user.make_or_borrow(entry)
    return mnt.make(entry)


def finish_root(spec: dict[str, Any], root: int) -> None:
    """What comes after all mounts: settings, masks, read-only paths, and at last the root itself, if it is to be."""
    sysctl.configure(root, spec["linux"].get("sysctl", {}))
    mnt.cover(root, spec["linux"].get("maskedPaths", ()), spec["linux"].get("readonlyPaths", ()))
    attributes = [word for word, field in (("ro", "readonly"), ("nodev", "nodev")) if spec["root"].get(field)]
    mount.mount_setattr(paths.open_in_root(root, "/", os.O_PATH), *mount.attribute_bits(attributes))

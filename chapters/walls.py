"""The walls of a cage: what stands between the machine and the code in it.

Mounts, devices and cgroups, each as a small function that takes plain values; ``cage.py`` calls them in the order that
matters. The kernel's own calls stand here a second time, apart from ``minirt/kernel``: a participant's broken answer
must not break the judge that looks at it.

Manual pages: mount(2), pivot_root(2), unshare(2), capget(2), cgroups(7), mount_namespaces(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
STATE_ROOT = "/var/lib/minirt"
TEMPORARY = STATE_ROOT + "/tmp"
MARK = "/run/minirt-cage"  # a file that exists in every cage and nowhere else
PREFIX = "minirt-cage-"  # of the cgroups and directories of a cage: PREFIX, pid of the caller, number

# linux/sched.h
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
# sys/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 4096, 16384, 1 << 18, 1 << 20
MNT_DETACH = 2
# linux/prctl.h, linux/capability.h
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24
CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_TIME = 16, 17, 25  # the machine's own: no chapter needs them
# linux/if.h, linux/sockios.h
SIOCSIFFLAGS, IFF_UP = 0x8914, 1

# What a guest may open: (name below /dev, major, minor). The disk, the kernel log and loop devices are not among them.
DEVICES = [
    ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
    ("net/tun", 10, 200), ("fuse", 10, 229),
]  # fmt: skip
DEVICE_LIST = [f"c {major}:{minor} rwm" for _, major, minor in DEVICES]
DEVICE_LIST += ["c *:* m", "b *:* m", "c 5:2 rwm", "c 136:* rwm"]  # any node may be made; ptmx and ptys opened
# File systems that hold no files of anybody, or that the cage mounts afresh.
VIRTUAL = {"proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "mqueue", "securityfs", "debugfs", "tracefs"}

libc = ctypes.CDLL(None, use_errno=True)


class CageError(Exception):
    """The cage could not be built, or what ran in it came to no result; str() is the whole sentence."""


@dataclass(frozen=True)
class Limits:
    """What a cage may use: ``seconds`` of time, bytes of ``memory`` (its files on tmpfs included), ``pids`` tasks."""

    seconds: float = 60.0
    memory: int = 1 << 30
    pids: int = 512


# ------------------------------------------------------------------------------------------------- the kernel's calls


def _checked(result: int, what: str) -> int:
    """Return the result of a libc call; raises OSError with errno and what was tried when it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2); raises OSError."""
    words = [os.fsencode(word) if word else None for word in (source, target, kind, data)]
    call = libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    _checked(call, f"mount {kind or source or 'propagation'} on {target}")


def unshare(flags: int) -> None:
    """unshare(2); raises OSError."""
    _checked(libc.unshare(flags), f"unshare({flags:#x})")


def die_with_parent() -> None:
    """Ask for SIGKILL when the thread that forked this process ends."""
    _checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def drop_capabilities(numbers: Sequence[int] = (CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_TIME)) -> None:
    """Give up capabilities for this process and for everything that it will execute; raises OSError."""
    header = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    data = ctypes.create_string_buffer(24)  # effective, permitted, inheritable; low words, then high words
    _checked(libc.capget(header, data), "capget")
    words = list(struct.unpack("6I", data.raw))
    for number in numbers:
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
        words[:3] = [word & ~(1 << number) for word in words[:3]]  # all three have numbers below 32
    _checked(libc.capset(header, struct.pack("6I", *words)), "capset")


def leave_the_machine() -> None:
    """Enter new namespaces of five kinds (that of pids: our next child does), with mounts that are told to nobody."""
    unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID)
    mount("", "/", "", MS_REC | MS_PRIVATE)  # or every mount from here on would appear on the machine


def join_namespaces_of(pid: int) -> None:
    """Enter the namespaces of a cage's process (that of pids: our next child does); raises OSError."""
    pidfd = os.pidfd_open(pid)
    kinds = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWCGROUP
    _checked(libc.setns(pidfd, kinds), f"setns to the namespaces of {pid}")
    os.close(pidfd)


def loopback_up() -> None:
    """Raise the interface ``lo`` of this network namespace; raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


# --------------------------------------------------------------------------------------------- what the machine mounts


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo: where, which type of file system, its own options, and those of the file system."""

    point: str
    kind: str
    options: tuple[str, ...]
    device: str


def mounts(pid: int | str = "self") -> list[Mount]:
    """Return the mounts that a process sees, in their order; a later one on the same point covers an earlier one."""
    found = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode(errors="surrogateescape").decode("unicode_escape", errors="surrogateescape")
        found.append(Mount(point, right.split()[0], tuple(right.split()[2].split(",")), left.split()[2]))
    return found


def carrying(paths: Sequence[str]) -> list[str]:
    """Return the mount points other than ``/`` that these paths lie on, parents first.

    (mountinfo and not ``st_dev``: files and directories of an overlay report different devices.)
    """
    table = [mount for mount in mounts() if os.path.isdir(mount.point)]
    points = set()
    for path in {os.path.realpath(path) for path in paths if os.path.exists(path)}:
        above = [m for m in table if m.point == "/" or path == m.point or path.startswith(m.point + "/")]
        deepest = max(above, key=lambda m: len(m.point))
        if deepest.point != "/" and above[-1].kind not in VIRTUAL:
            points.add(deepest.point)
    return sorted(points)


# ------------------------------------------------------------------------------------------------------------- cgroups


@dataclass(frozen=True)
class Hierarchy:
    """A cgroup hierarchy: its mount point, and for v1 the option that names it (empty for v2)."""

    point: str
    option: str


def hierarchies() -> list[Hierarchy]:
    """Return the cgroup hierarchies that are mounted here, each once: v1, v2, or (hybrid) both."""
    found: dict[str, Hierarchy] = {}
    for entry in mounts():
        if entry.kind == "cgroup2":
            found.setdefault(entry.device, Hierarchy(entry.point, ""))
        elif entry.kind == "cgroup":
            names = [o for o in entry.options if o.startswith("name=")]
            # Flags of the file system that name no controller; a controller is what is left.
            flags = {"rw", "ro", "none", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "seclabel"}
            controllers = [o for o in entry.options if o not in flags and "=" not in o]
            option = ",".join(controllers) or "none," + (names or ["name=systemd"])[0]
            found.setdefault(entry.device, Hierarchy(entry.point, option))
    return list(found.values())


def _write(path: str, text: str) -> None:
    """Write to a file of the kernel in one system call; raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _words(path: str) -> list[str]:
    """Return the words of a small file of the kernel."""
    return Path(path).read_text().split()


class Cgroups:
    """The cgroups of one cage: one directory in each hierarchy that lets us make one."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.paths: list[tuple[Hierarchy, str]] = []
        self.limited: set[str] = set()
        for hierarchy in hierarchies():
            path = f"{hierarchy.point}/{name}"
            with contextlib.suppress(OSError):
                if not hierarchy.option:
                    self._delegate(hierarchy.point)
                os.mkdir(path, 0o755)
                self.paths.append((hierarchy, path))
                self._limit(hierarchy, path, limits)

    @staticmethod
    def _delegate(directory: str) -> None:
        """v2: let the children of a cgroup have its controllers (EBUSY where processes live in it: then without).

        systemd enables the same ones; what is on already is not written again.
        """
        wanted = {"cpu", "cpuset", "io", "memory", "pids"} & set(_words(f"{directory}/cgroup.controllers"))
        for controller in sorted(wanted - set(_words(f"{directory}/cgroup.subtree_control"))):
            with contextlib.suppress(OSError):
                _write(f"{directory}/cgroup.subtree_control", f"+{controller}")

    def _limit(self, hierarchy: Hierarchy, path: str, limits: Limits) -> None:
        """Write the limits that this hierarchy has files for; raises OSError."""
        controllers = hierarchy.option.split(",")
        files = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}
        if not hierarchy.option:
            controllers = _words(f"{hierarchy.point}/cgroup.subtree_control")
            files["memory"] = "memory.max"
        for controller, value in (("memory", limits.memory), ("pids", limits.pids)):
            if controller in controllers:
                _write(f"{path}/{files[controller]}", str(value))
                self.limited.add(controller)
        if not hierarchy.option and os.path.exists(f"{path}/memory.swap.max"):
            _write(f"{path}/memory.swap.max", "0")
        if hierarchy.option and "devices" in controllers:
            _write(f"{path}/devices.deny", "a")
            for line in DEVICE_LIST:
                _write(f"{path}/devices.allow", line)
        if hierarchy.option and "cpuset" in controllers:
            # A new cpuset is empty, and joining an empty one is refused (ENOSPC); its children copy from it.
            for file in ("cpuset.cpus", "cpuset.mems"):
                _write(f"{path}/{file}", Path(hierarchy.point, file).read_text().strip())
            _write(f"{path}/cgroup.clone_children", "1")

    def join(self) -> None:
        """Move this process in; v1's ``tasks`` moves one thread and does not wait for others, ``cgroup.procs`` does."""
        for hierarchy, path in self.paths:
            _write(f"{path}/{'tasks' if hierarchy.option else 'cgroup.procs'}", "0")

    def show(self, root: str) -> None:
        """Mount the hierarchies below ``root``, after unshare(CLONE_NEWCGROUP): they show our own subtree as ``/``."""
        for point in sorted({hierarchy.point for hierarchy, _ in self.paths}, key=len):
            parent = os.path.dirname(point)
            if parent.startswith("/sys/fs/cgroup") and not os.path.isdir(root + point):
                mount("tmpfs", root + parent, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=1m")
                for hierarchy, _ in self.paths:
                    os.makedirs(root + hierarchy.point, exist_ok=True)
        for hierarchy, _ in self.paths:
            kind = "cgroup" if hierarchy.option else "cgroup2"
            mount(kind, root + hierarchy.point, kind, MS_NOSUID | MS_NODEV | MS_NOEXEC, hierarchy.option)
            here = root + hierarchy.point
            if not hierarchy.option and "memory" in _words(f"{here}/cgroup.controllers"):
                # v2 gives controllers to children only where no process lives: ours move one level down.
                os.mkdir(f"{here}/init")
                _write(f"{here}/init/cgroup.procs", "0")
                self._delegate(here)

    def missing(self) -> list[str]:
        """Return a sentence for each limit that could not be set."""
        return [
            f"no {what} limit: this machine lets us make no cgroup with the controller {name}"
            for name, what in (("memory", "memory"), ("pids", "process"))
            if name not in self.limited
        ]

    def out_of_memory(self) -> bool:
        """Return whether the kernel killed something in here for want of memory."""
        for hierarchy, path in self.paths:
            if not hierarchy.option or "memory" in hierarchy.option.split(","):
                with contextlib.suppress(OSError):
                    file = "memory.oom_control" if hierarchy.option else "memory.events"
                    pairs = dict(line.split() for line in Path(path, file).read_text().splitlines())
                    if int(pairs.get("oom_kill", 0)):
                        return True
        return False

    def thaw(self) -> None:
        """Thaw what is frozen: a frozen task of v1 does not even die of SIGKILL."""
        for _, path in self.paths:
            for directory, _, files in os.walk(path):
                if "freezer.state" in files:
                    with contextlib.suppress(OSError):
                        _write(f"{directory}/freezer.state", "THAWED")

    def remove(self) -> None:
        """Remove the cgroups and all below them; raises CageError when one is still in use after two seconds."""
        for _, path in self.paths:
            remove_cgroup(path, 2.0)


def join_cgroups_of(pid: int) -> None:
    """Move this process into the cgroups of another one; raises OSError."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for hierarchy in hierarchies():
            if (set(hierarchy.option.split(",")) - {"none"}) & set(names.split(",")):  # of v2 both are empty
                _write(f"{hierarchy.point}{path}/{'tasks' if hierarchy.option else 'cgroup.procs'}", "0")


def remove_cgroup(path: str, patience: float = 0.0) -> None:
    """Remove a cgroup and all below it, trying again for ``patience`` seconds while it is busy; raises CageError."""
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(OSError):  # most have nothing below
            os.rmdir(path)
            return
        for directory, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        if not os.path.exists(path):
            return
        if time.monotonic() >= deadline:
            raise CageError(f"the cgroup {path} of a cage cannot be removed: something still lives in it")
        time.sleep(0.005)


def leftovers(owner: int | None = None) -> list[str]:
    """Return the paths that cages of a caller (a pid; None: of any) have made on the machine and not removed."""
    places = ["/var/tmp", *(hierarchy.point for hierarchy in hierarchies())]
    start = PREFIX if owner is None else f"{PREFIX}{owner}-"
    return [f"{place}/{name}" for place in places for name in _listing(place) if name.startswith(start)]


def sweep() -> list[str]:
    """Remove what dead cages left (a caller that was killed cannot clean up); return what was removed."""
    removed = []
    for path in leftovers():
        owner = os.path.basename(path)[len(PREFIX) :].partition("-")[0]
        if os.path.exists(f"/proc/{owner}"):
            continue
        with contextlib.suppress(CageError):
            if path.startswith("/var/tmp/"):
                shutil.rmtree(path, ignore_errors=True)
            else:
                remove_cgroup(path)
            removed.append(path)
    return removed


def _listing(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


# ----------------------------------------------------------------------------------------------------------- the walls


def build_root(carry: Sequence[str], notes: list[str]) -> str:
    """Mount an overlay of ``/``, and one of each mount point of ``carry``; return where. In a new mount namespace.

    A file system that cannot lie below an overlay is bound read-only, and a note says so; of ``/`` it is a CageError.
    """
    # A tmpfs for the upper layers, over a directory that exists everywhere and that the overlay does not need.
    base = "/sys"
    mount("tmpfs", base, "tmpfs", 0, "mode=755")
    root = base + "/root"
    for number, point in enumerate(["/", *carry]):
        upper, work = f"{base}/upper{number}", f"{base}/work{number}"
        target = root if point == "/" else root + point
        for directory in (upper, work, target):
            os.makedirs(directory, exist_ok=True)
        shutil.copystat(point, upper)  # the root of an overlay takes its mode from the upper directory
        about = os.stat(point)
        os.chown(upper, about.st_uid, about.st_gid)
        lower = point.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
        try:
            mount("overlay", target, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")
        except OSError as error:
            if point == "/":
                raise CageError(f"cannot lay an overlay over /: {error}") from error
            mount(point, target, "", MS_BIND)
            mount("", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY)
            notes.append(f"{point} can only be read: its file system cannot lie below an overlay")
    return root


def furnish(root: str, state: str, cgroups: Cgroups) -> None:
    """Mount below ``root`` what a machine has of its own: /run, the state root, /proc, /dev, /sys, cgroups."""
    plain = MS_NOSUID | MS_NODEV
    mount("tmpfs", root + "/run", "tmpfs", plain, "mode=755")
    Path(root + MARK).touch()
    os.makedirs(root + STATE_ROOT, exist_ok=True)
    if state:
        mount(state, root + STATE_ROOT, "", MS_BIND)
    else:
        mount("tmpfs", root + STATE_ROOT, "tmpfs", 0, "mode=755")
    os.makedirs(root + TEMPORARY)
    os.chmod(root + TEMPORARY, 0o1777)
    mount("proc", root + "/proc", "proc", plain | MS_NOEXEC)
    # Global settings can be read and not written. One unmasked proc must stay visible somewhere, or the kernel
    # refuses to mount another one in a user namespace (it would show what the mask hides).
    os.mkdir(root + "/run/cage-proc", 0o700)
    mount("proc", root + "/run/cage-proc", "proc", plain | MS_NOEXEC)
    for path in ("/proc/sys", "/proc/sysrq-trigger"):
        if not os.path.exists(root + path):
            continue
        mount(root + path, root + path, "", MS_BIND)
        if path == "/proc/sys":  # bound while it is still writable: this part belongs to our network namespace
            mount(root + "/proc/sys/net", root + "/proc/sys/net", "", MS_BIND)
        mount("", root + path, "", MS_BIND | MS_REMOUNT | MS_RDONLY | plain | MS_NOEXEC)
    furnish_dev(root)
    mount("sysfs", root + "/sys", "sysfs", MS_RDONLY | plain | MS_NOEXEC)
    unshare(CLONE_NEWCGROUP)  # after joining, or the old place would be our root
    cgroups.show(root)


def furnish_dev(root: str) -> None:
    """Mount a small /dev below ``root``: nodes that harm nobody, ptys, shared memory and queues of its own."""
    dev = root + "/dev"
    if root:
        mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755,size=16m")
        for name, major, minor in DEVICES:
            path = f"{dev}/{name}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                os.mknod(path, 0o20666, os.makedev(major, minor))
                os.chmod(path, 0o666)
            except PermissionError:  # root of a user namespace makes no nodes, but may bind
                Path(path).touch()
                with contextlib.suppress(OSError):
                    mount(f"/dev/{name}", path, "", MS_BIND)
        for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
            os.symlink(target, f"{dev}/{name}")
        os.symlink("pts/ptmx", f"{dev}/ptmx")
        for name in ("pts", "shm", "mqueue"):
            os.mkdir(f"{dev}/{name}")
    mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")
    mount("tmpfs", f"{dev}/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    mount("mqueue", f"{dev}/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def change_root(root: str) -> None:
    """Make ``root`` the root directory and let go of the old one, keeping the working directory where it exists."""
    here = os.getcwd()
    os.chdir(root)
    _checked(libc.pivot_root(b".", b"."), "pivot_root")
    _checked(libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir(here if os.path.isdir(here) else "/")


def set_environment() -> None:
    """Let this process, and what it starts, find the cage's directories."""
    for name in ("MINIRT_ROOT", "XDG_RUNTIME_DIR"):
        os.environ.pop(name, None)
    os.environ.update(TMPDIR=TEMPORARY, MINIRT_CAGE="1")
    if "tempfile" in sys.modules:  # it remembers the directory of the machine outside
        sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]


def limit_resources(limits: Limits, cgroups: Cgroups) -> None:
    """Where a cgroup cannot limit, let rlimits do what they can: memory per process, and no limit on root's forks."""
    import resource

    if "memory" not in cgroups.limited:
        resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    if "pids" not in cgroups.limited:
        resource.setrlimit(resource.RLIMIT_NPROC, (limits.pids, limits.pids))


def inside() -> bool:
    """Return whether this process runs in a cage."""
    return os.path.exists(MARK)

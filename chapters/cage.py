"""The cage: a machine to break, made in 30 ms and thrown away.

Every chapter test, every check of an exercise and every notebook cell that touches the kernel runs in a cage, and so
does ``container.py`` with a participant's code. Code that forgets ``MS_PRIVATE``, sends ``kill -9 -1``, fills memory or
removes ``/etc`` then harms nothing and leaves nothing.

How it works. A cage is a container, made with the same kernel features that the book teaches, but with another wish:
the code inside must be *real root on the real kernel*, able to make namespaces, mounts and cgroups itself.

* Four processes take part. The *caller* (pytest, say) forks the *keeper*, which makes the new namespaces; the keeper
  forks the *first process* (a new pid namespace begins with a birth), which builds the walls and then forks the
  *guest*, which calls the function. When the first process ends, the kernel kills everything in its pid namespace,
  however it was daemonised: that is the broom.
* ``/`` is an overlay whose upper layer is a tmpfs: everything can be read, everything can be written, nothing arrives.
  Other file systems that carry the checkout, the interpreter or the home directory get an overlay each.
* ``/run`` is an empty tmpfs, ``/var/lib/minirt`` another one (or a directory of the disk): the upper directory of an
  overlay cannot lie on an overlay, so TMPDIR lies there as well.
* A cgroup in each hierarchy limits memory and processes. The file systems mounted inside show that cgroup as ``/``.
* The caller waits with a time limit, kills the first process, and removes the cgroups.

Rules of this room: the standard library only and nothing of ``minirt`` (broken PID code of a participant must not break
its judge). Fork from the main thread: a parent-death signal watches the thread that forked.

**It protects from accidents, not from malice.** The guest is root: a proc file system that it mounts afresh reaches the
global sysctls, a block device that the machine lets root open is open to it, CPU and disk bandwidth are shared.

    python -m chapters.cage [--time SECONDS] [--memory MIB] [--pids N] [--state DIRECTORY] -- COMMAND...
    python -m chapters.cage --hold            print an ID and keep the cage until standard input ends
    python -m chapters.cage --in ID -- COMMAND...

Manual pages: namespaces(7), pid_namespaces(7), mount_namespaces(7), cgroups(7), pivot_root(2), prctl(2), unshare(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

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
_numbers = itertools.count(1)
_send_to: int | None = None  # in a guest: the descriptor that leads to the caller


class CageError(Exception):
    """The cage could not be built, or what ran in it came to no result; str() is the whole sentence."""


@dataclass(frozen=True)
class Limits:
    """What a cage may use: ``seconds`` of time, bytes of ``memory`` (its files on tmpfs included), ``pids`` tasks."""

    seconds: float = 60.0
    memory: int = 1 << 30
    pids: int = 512


@dataclass
class Outcome:
    """How a cage ended.

    ``value`` is what the function returned (plain values that JSON knows); ``error`` the traceback if it raised;
    ``status`` the exit code of the guest, or minus the signal that ended it; ``how`` says in words why there is no
    value; ``notes`` are the cage's own weaknesses on this machine ("no memory limit: ...").
    """

    value: Any = None
    error: str = ""
    status: int = 0
    how: str = ""
    timed_out: bool = False
    stdout: bytes = b""
    stderr: bytes = b""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def result(self) -> Any:
        """Return the value; raises CageError with the reason when there is none."""
        if self.error or self.how:
            raise CageError(self.error or self.how)
        return self.value


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


def drop_capabilities(*numbers: int) -> None:
    """Give up capabilities for this process and for everything that it will execute; raises OSError."""
    header = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    data = ctypes.create_string_buffer(24)  # effective, permitted, inheritable; low words, then high words
    _checked(libc.capget(header, data), "capget")
    words = list(struct.unpack("6I", data.raw))
    for number in numbers:
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
        words[:3] = [word & ~(1 << number) for word in words[:3]]  # all three have numbers below 32
    _checked(libc.capset(header, struct.pack("6I", *words)), "capset")


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


# ------------------------------------------------------------------------------------------- the four processes at work


class Cage:
    """A running cage, seen from the caller.

    ``root`` "overlay" gives it a root of its own; "shared" leaves it the root it is born with, for a cage in a cage
    (an overlay of an overlay of an overlay is refused by the kernel). ``state`` is a directory to bind at the state
    root instead of a tmpfs; "disk" makes one below /var/tmp and removes it afterwards. ``first`` is what the first
    process does after the walls stand, and returns its exit status; it must not return to the caller's frames.
    """

    def __init__(self, first: Callable[[], int], limits: Limits, state: str = "", root: str = "overlay") -> None:
        if os.geteuid():
            raise CageError("a cage needs root: run it with sudo")
        number = next(_numbers)
        if number == 1:
            sweep()
        self.name = f"{PREFIX}{os.getpid()}-{number}"
        self.limits = limits
        self.deadline = time.monotonic() + limits.seconds
        self.own_state = f"/var/tmp/{self.name}" if state == "disk" else ""
        if self.own_state:
            os.mkdir(self.own_state, 0o755)
        self.cgroups = Cgroups(self.name, limits)
        self.notes = self.cgroups.missing()
        self.first_pidfd = -1
        self.first_pid = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _flush()
        self.keeper = os.fork()
        if not self.keeper:
            ours.close()
            _end_with(lambda: self._keep(first, self.own_state or state, root, theirs))
        theirs.close()
        self._await_birth(ours)

    def _await_birth(self, ours: socket.socket) -> None:
        """Receive the first process's descriptor from the keeper and its "ready", in whichever order they come."""
        answer = ""
        with ours:
            while not (self.first_pidfd >= 0 and answer):
                message, descriptors, _, _ = socket.recv_fds(ours, 65536, 1)
                if descriptors:
                    self.first_pidfd, self.first_pid = descriptors[0], int(message)
                elif message:
                    answer = message.decode(errors="replace")
                if not message or (answer and not answer.startswith("ready")):
                    break
        word, *notes = answer.split("\n")
        self.notes += notes
        if word != "ready":
            self.close()
            raise CageError(f"the cage could not be built: {answer or 'its first process died'}")

    def _keep(self, first: Callable[[], int], state: str, root: str, theirs: socket.socket) -> int:
        """The keeper: make the namespaces, fork the first process, wait for it. Never in the cage's cgroups itself."""
        die_with_parent()
        try:
            carry = carrying(_needed_paths()) if root == "overlay" else []
            unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID)
            mount("", "/", "", MS_REC | MS_PRIVATE)  # or every mount below would appear on the machine
        except OSError as error:
            theirs.send(str(error).encode())
            return 1
        pid = os.fork()
        if not pid:
            _end_with(lambda: self._be_first(first, state, root, carry, theirs))
        with contextlib.suppress(BrokenPipeError):  # the first process has failed already, and the caller knows
            socket.send_fds(theirs, [str(pid).encode()], [os.pidfd_open(pid)])
        theirs.close()
        return _exit_code(os.waitpid(pid, 0)[1])

    def _be_first(
        self, first: Callable[[], int], state: str, root: str, carry: list[str], theirs: socket.socket
    ) -> int:
        """The first process: build the walls from inside, then do what is wanted."""
        notes: list[str] = []
        die_with_parent()
        try:
            if root == "overlay":
                # What needs the machine's own /sys and /proc comes before they are covered.
                self.cgroups.join()
                place = build_root(carry, notes)
                furnish(place, state, self.cgroups)
                change_root(place)
            else:
                self.cgroups.join()
                furnish("", state, self.cgroups)
            # As systemd leaves a machine: code that forgets MS_PRIVATE is found out here, as it would be there.
            mount("", "/", "", MS_REC | MS_SHARED)
            loopback_up()
            limit_resources(self.limits, self.cgroups)
            drop_capabilities(CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_TIME)
            set_environment()
        except (OSError, CageError) as error:
            theirs.send(str(error).encode())
            return 1
        theirs.send("\n".join(["ready", *notes]).encode())
        theirs.close()
        return first()

    def wait(self, descriptor: int = -1, on_message: Callable[[Any], None] | None = None) -> bool:
        """Wait until the first process has ended; return False when the time is over first.

        Lines of JSON that arrive on ``descriptor`` meanwhile are handed to ``on_message``.
        """
        poll = select.poll()
        poll.register(self.first_pidfd, select.POLLIN)
        if descriptor >= 0:
            poll.register(descriptor, select.POLLIN)
        rest = b""
        while True:
            left = self.deadline - time.monotonic()
            ready = dict(poll.poll(max(0.0, left) * 1000)) if left > 0 else {}
            if descriptor in ready:
                data = os.read(descriptor, 1 << 16)
                if not data:
                    poll.unregister(descriptor)
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if on_message:
                        on_message(json.loads(line))
            elif self.first_pidfd in ready:
                return True
            elif left <= 0:
                return False

    def close(self) -> int:
        """Kill what still runs, remove what the cage had; return the first process's exit status (128 + n: signal)."""
        if self.first_pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.first_pidfd, signal.SIGKILL)
            # Its end means that the kernel has reaped everything in the pid namespace.
            while not select.select([self.first_pidfd], [], [], 0.25)[0]:
                self.cgroups.thaw()
            os.close(self.first_pidfd)
            self.first_pidfd = -1
        status = _exit_code(os.waitpid(self.keeper, 0)[1]) if self.keeper else 0
        self.keeper = 0
        self.out_of_memory = self.cgroups.out_of_memory()
        self.cgroups.remove()
        if self.own_state:
            shutil.rmtree(self.own_state, ignore_errors=True)
        return status


def _needed_paths() -> list[str]:
    """The paths that must be there in a cage: checkout, working directory, interpreter, and the usual places."""
    usual = ["/usr", "/etc", "/opt", "/var", "/home", "/root", os.path.expanduser("~")]
    return [str(CHECKOUT), os.getcwd(), sys.executable, sys.prefix, sys.base_prefix, *filter(None, sys.path), *usual]


def _exit_code(status: int) -> int:
    """Turn a wait status into a shell's exit code."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _flush() -> None:
    """Write out what Python has buffered: after a fork it would be written twice."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _end_with(main: Callable[[], int]) -> NoReturn:
    """Run the main function of a forked process and end the process with its result: never back into the caller."""
    status = 70
    try:
        status = main()
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(status)


def _reap_until(guest: int) -> int:
    """The duty of a pid 1: reap every orphan; return the exit code of the guest when it has ended."""
    while True:
        pid, status = os.wait()
        if pid == guest:
            return _exit_code(status)


def send(message: Any) -> None:
    """In a guest: hand a plain value to the caller's ``on_message`` at once."""
    if _send_to is not None:
        line = json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(_send_to, line) :]


def call(
    function: Callable[..., Any],
    *arguments: Any,
    limits: Limits = Limits(),
    state: str = "",
    root: str = "overlay",
    capture: bool = True,
    on_message: Callable[[Any], None] | None = None,
) -> Outcome:
    """Call a function in a cage and return how it ended.

    The function may return plain values (what JSON knows), and may ``send`` messages while it runs. With ``capture``
    its standard output and error come back in the outcome; without, they go where ours go. For ``state`` and ``root``
    see ``Cage``. Raises CageError when the cage cannot be built.
    """
    begin = time.monotonic()
    read_end, write_end = os.pipe()
    outputs = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdout", "stderr")] if capture else []

    def guest() -> int:
        global _send_to
        os.setsid()
        os.close(read_end)
        _send_to = write_end
        me = os.getpid()
        if capture:
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            for number, descriptor in enumerate(outputs, start=1):
                os.dup2(descriptor, number)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        try:
            message = {"value": function(*arguments)}
        except BaseException:
            message = {"error": traceback.format_exc()}
        if os.getpid() != me:
            send({"stray": True})
            return 70
        send(message)
        return 0

    def first() -> int:
        pid = os.fork()
        if not pid:
            _end_with(guest)
        os.close(write_end)
        return _reap_until(pid)

    outcome = Outcome()
    answers: list[dict[str, Any]] = []

    def receive(message: Any) -> None:
        if isinstance(message, dict) and message.keys() & {"value", "error", "stray"} and len(message) == 1:
            answers.append(message)
        elif on_message:
            on_message(message)

    try:
        cage = Cage(first, limits, state, root)
        try:
            os.close(write_end)
            write_end = -1
            outcome.timed_out = not cage.wait(read_end, receive)
        finally:
            code = cage.close()
        outcome.notes = cage.notes
        outcome.status = 128 - code if code > 128 else code
        outcome.how = _explain(outcome, answers, limits, cage.out_of_memory)
        if answers and not outcome.how:
            outcome.value, outcome.error = answers[-1].get("value"), answers[-1].get("error", "")
        for number, descriptor in enumerate(outputs):
            text = os.pread(descriptor, 1 << 24, 0)
            setattr(outcome, ("stdout", "stderr")[number], text)
    finally:
        for descriptor in [read_end, write_end, *outputs]:
            if descriptor >= 0:
                os.close(descriptor)
    outcome.seconds = time.monotonic() - begin
    return outcome


def _explain(outcome: Outcome, answers: list[dict[str, Any]], limits: Limits, out_of_memory: bool) -> str:
    """Say why there is no answer to trust, or nothing."""
    if outcome.timed_out:
        return f"not finished after {limits.seconds:g} s"
    if any("stray" in answer for answer in answers):
        return "a forked child came back from the function: a child must end itself with os._exit()"
    if answers:
        return ""
    if out_of_memory:
        return f"killed by the kernel: more memory than {limits.memory >> 20} MiB"
    if outcome.status < 0:
        return f"ended by {signal.Signals(-outcome.status).name}"
    return f"ended with exit code {outcome.status} and without a result"


# ------------------------------------------------------------------------------------ commands, and cages that are held


def _execute(command: Sequence[str]) -> int:
    """Become a command; return 126 or 127, as a shell does, when that fails."""
    os.closerange(3, 65536)
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        print(f"cage: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127 if error.errno == errno.ENOENT else 126


@contextlib.contextmanager
def _terminal() -> Iterator[Callable[[], None]]:
    """Lend our terminal to a process group of the cage, so that Ctrl-C and job control work there; take it back.

    Yields the function that the guest calls: it takes the terminal, or, without a terminal, starts a session.
    """
    if not os.isatty(0):
        yield os.setsid
        return
    group = os.tcgetpgrp(0)

    def take() -> None:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        os.tcsetpgrp(0, os.getpgrp())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])

    try:
        yield take
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        os.tcsetpgrp(0, group)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])


def run(
    command: Sequence[str],
    limits: Limits = Limits(),
    state: str = "",
    prepare: Callable[[], None] | None = None,
) -> int:
    """Run a command in a cage with our own input and output; return its exit code, 124 when the time was over.

    ``prepare`` is called in the cage before the command starts. Raises CageError when the cage cannot be built.
    """
    with _terminal() as take:

        def guest() -> int:
            take()
            if prepare:
                prepare()
            return _execute(command)

        def first() -> int:
            pid = os.fork()
            if not pid:
                _end_with(guest)
            return _reap_until(pid)

        cage = Cage(first, limits, state)
        in_time = False
        try:
            in_time = cage.wait()
        finally:
            code = cage.close()
    for note in cage.notes:
        print(f"cage: {note}", file=sys.stderr)
    if not in_time:
        print(f"cage: not finished after {limits.seconds:g} s", file=sys.stderr)
    return code if in_time else 124


def hold(limits: Limits, state: str = "") -> int:
    """Make a cage, print its ID on a line, and keep it until standard input ends or the time is over; return 0."""

    def first() -> int:
        os.setsid()
        os.closerange(3, 65536)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps for us
        while True:
            signal.pause()

    cage = Cage(first, limits, state)
    try:
        print(cage.first_pid, flush=True)
        poll = select.poll()
        for descriptor in (0, cage.first_pidfd):
            poll.register(descriptor, select.POLLIN | select.POLLHUP)
        while (left := cage.deadline - time.monotonic()) > 0:
            ready = dict(poll.poll(left * 1000))
            if cage.first_pidfd in ready or (0 in ready and not os.read(0, 4096)):
                break
    finally:
        cage.close()
    return 0


def enter(identifier: int, command: Sequence[str]) -> int:
    """Run a command in a held cage with our own input and output; return its exit code. Raises CageError."""
    if not os.path.exists(f"/proc/{identifier}/root{MARK}"):
        raise CageError(f"there is no held cage {identifier}")
    here = os.getcwd()
    for line in Path(f"/proc/{identifier}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for hierarchy in hierarchies():
            known = set(hierarchy.option.split(",")) - {"none"} if hierarchy.option else {""}
            if known & set(names.split(",")) or (not names and not hierarchy.option):
                _write(f"{hierarchy.point}{path}/{'tasks' if hierarchy.option else 'cgroup.procs'}", "0")
    pidfd = os.pidfd_open(identifier)
    everything = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWCGROUP
    _checked(libc.setns(pidfd, everything), f"setns to the cage {identifier}")
    os.chdir(here if os.path.isdir(here) else "/")
    drop_capabilities(CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_TIME)
    set_environment()
    with _terminal() as take:
        pid = os.fork()
        if not pid:
            die_with_parent()
            take()
            _end_with(lambda: _execute(command))
        return _exit_code(os.waitpid(pid, 0)[1])


def raise_self(arguments: Sequence[str]) -> NoReturn:
    """Start this program again as root, through sudo; raises CageError when there is no sudo."""
    ask = [] if os.isatty(0) and os.isatty(2) else ["-n"]
    keep = [f"{name}={os.environ[name]}" for name in ("PATH", "LANG", "TERM") if name in os.environ]
    command = ["sudo", *ask, "env", *keep, sys.executable, "-B", os.path.abspath(__file__), *arguments]
    try:
        os.execvp("sudo", command)
    except OSError:
        raise CageError("a cage needs root, and there is no sudo here: become root and try again") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the head of this file."""
    import argparse

    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="python -m chapters.cage", description="Run a command in a throw-away cage.")
    parser.add_argument("--time", type=float, metavar="SECONDS", help="time limit (60; for --hold 86400)")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="memory limit (1024)")
    parser.add_argument("--pids", type=int, default=512, metavar="N", help="limit of tasks (512)")
    parser.add_argument("--state", default="", metavar="DIRECTORY", help=f"bind it at {STATE_ROOT}; 'disk' makes one")
    parser.add_argument("--hold", action="store_true", help="print an ID and keep the cage until standard input ends")
    parser.add_argument("--in", dest="held", type=int, metavar="ID", help="run in a cage that is held")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command and not options.hold:
        command = ["/bin/sh"]
    limits = Limits(options.time or (86400 if options.hold else 60), options.memory << 20, options.pids)
    try:
        if os.geteuid():
            raise_self(arguments)
        if options.hold:
            return hold(limits, options.state)
        if options.held:
            return enter(options.held, command)
        return run(command, limits, options.state)
    except (CageError, OSError) as error:
        print(f"cage: {error}", file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())

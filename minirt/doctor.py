"""The machine, examined: what the kernel and the system offer, what is missing, and the one command that mends it.

Two sources. Some facts belong to the machine as a whole and are asked here, by the ordinary tools of chapter 00
(`unshare`, `mount`, /proc): so they are answered even where a room of minirt is broken or not yet written. The rest is
asked of the rooms that are there. A room takes part by a function

    def probe() -> list[tuple[str, bool, str, str]]:      # (what, present, detail, mend)

`what` names the thing in a few words, `present` says whether it is there, `detail` how it was seen, and `mend` what to
do when it is not: one command where there is one. The module's `CHAPTER` says who needs it. Rooms are found by their
files and none is imported that has no probe; where a room and a trial of the machine name the same thing, both must
agree.

Nothing here changes the machine: each trial is a process in namespaces of its own that vanish with it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Finding:
    """One thing that was looked for. `needed`: `minirt run` does not work without it."""

    chapter: int
    what: str
    present: bool
    detail: str
    mend: str = ""
    needed: bool = False


OLDEST_KERNEL = (6, 1)
OLDEST_PYTHON = (3, 11)

# chapter, namespace, flag of unshare(1), whether `minirt run` needs it
NAMESPACES = (
    (2, "UTS namespace", "--uts", True), (3, "pid namespace", "--pid --fork", True),
    (4, "mount namespace", "--mount", True), (5, "IPC namespace", "--ipc", True),
    (6, "network namespace", "--net", True), (7, "user namespace", "--user --map-root-user", False),
    (8, "cgroup namespace", "--cgroup", False), (0, "time namespace", "--time --fork", False),
)

# chapter, program, package of Debian and Ubuntu, what the book does with it
TOOLS = (
    (0, "lsns", "util-linux", "lists namespaces"), (0, "nsenter", "util-linux", "enters them"),
    (0, "ps", "procps", "lists processes"), (1, "strace", "strace", "shows system calls"),
    (2, "unshare", "util-linux", "makes namespaces from the shell"), (4, "findmnt", "util-linux", "lists mounts"),
    (5, "ipcs", "util-linux", "lists System V objects"), (6, "ip", "iproute2", "shows and makes interfaces"),
    (9, "getfattr", "attr", "reads overlay's marks"),
    (10, "capsh", "libcap2-bin", "shows capabilities"), (15, "nft", "nftables", "shows and makes rules"),
)

# File systems of another system (a Windows drive in WSL2, a share of a VM): no device nodes or owners to rely on
FOREIGN = {"9p", "drvfs", "virtiofs", "fuse.sshfs", "vboxsf", "fuse.vmhgfs-fuse", "nfs", "nfs4", "cifs", "smb3", "vfat",
           "exfat", "ntfs", "ntfs3", "fuseblk"}


def examine() -> list[Finding]:
    """Everything that can be found out, ordered by chapter; takes about half a second."""
    findings = [*_machine(), *_namespaces(), *_overlay(), *_cgroups(), *_users(), *_power(), *_tools()]
    by_name = {finding.what: finding for finding in findings}
    for finding in rooms():
        known = by_name.get(finding.what)
        if known is None:
            findings.append(finding)
        elif not finding.present:
            known.present, known.detail, known.mend = False, finding.detail, finding.mend
    findings.sort(key=lambda finding: finding.chapter)
    return findings


def rooms() -> Iterator[Finding]:
    """Ask the `probe()` of each room that is present and has one."""
    package = Path(__file__).parent
    for file in sorted(package.rglob("*.py")):
        if file.name == Path(__file__).name or "\ndef probe(" not in file.read_text():
            continue
        name = ".".join(file.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        try:
            room = importlib.import_module(name)
            answers = room.probe()
        except Exception as error:  # a room that a participant has broken is a finding too
            yield Finding(0, name, False, f"{type(error).__name__}: {error}", "mend this module's source")
            continue
        for what, present, detail, mend in answers:
            yield Finding(getattr(room, "CHAPTER", 0), what, present, detail, mend)


# -- the machine ---------------------------------------------------------------------------------------------------

def describe() -> dict[str, str]:
    """Who and where we are, in words: system, kernel, architecture, Python, user, kind of machine."""
    user = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    return {"system": _system().get("PRETTY_NAME", "an unknown Linux"), "kernel": platform.release(),
            "architecture": platform.machine(), "python": platform.python_version(), "user": user,
            "machine": kind_of_machine()}


def kind_of_machine() -> str:
    """In one phrase, where this runs: the advice depends on it."""
    release = _read("/proc/sys/kernel/osrelease").lower()
    inside = ""
    if os.environ.get("CODESPACES") == "true":
        inside = "a Codespace"
    elif os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        inside = "a container"
    if inside:
        return f"{inside}, {'privileged' if _bounded(21) else 'without the rights to make containers'}"
    if "microsoft" in release:
        return "WSL2"
    if os.path.exists("/mnt/lima-cidata") or any(name.startswith("LIMA_") for name in os.environ):
        return "a virtual machine of Lima"
    if " hypervisor " in _read("/proc/cpuinfo"):
        return "a virtual machine"
    return "a machine of its own"


def _machine() -> Iterator[Finding]:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    yield Finding(0, "Linux 6.1 or later", numbers >= OLDEST_KERNEL, release, _kernel_advice(), needed=True)
    machine = platform.machine()
    yield Finding(0, "x86-64 or aarch64", machine in ("x86_64", "aarch64"), machine,
                  "another machine: the system call tables know these two", needed=True)
    yield Finding(0, "Python 3.11 or later", sys.version_info >= OLDEST_PYTHON, platform.python_version(),
                  apt("python3 python3-venv"))
    yield _root()
    kind, where = file_system("/run")
    yield Finding(0, "/run in memory", kind == "tmpfs", f"{kind} at {where}",
                  "sudo mount -t tmpfs -o mode=755 tmpfs /run")
    here = Path(__file__).resolve().parent
    kind, where = file_system(str(here))
    yield Finding(0, "minirt on a file system of Linux", kind not in FOREIGN, f"{here}: {kind} at {where}",
                  "git clone . ~/minirt   # then work there: this one keeps no owners and modes")


def _root() -> Finding:
    """Containers of root: this process is root, or may become it."""
    what = "root, or sudo"
    if os.geteuid() == 0:
        if _capable(21):
            return Finding(0, what, True, "root with CAP_SYS_ADMIN", needed=True)
        return Finding(0, what, False, "root without CAP_SYS_ADMIN", _container_advice(), needed=True)
    if shutil.which("sudo") is None:
        return Finding(0, what, False, "no sudo", "su -c 'apt-get install -y sudo'", needed=True)
    silent = _try("sudo -n true")[0]
    return Finding(0, what, True, f"sudo, {'without' if silent else 'with'} a password", needed=True)


def _namespaces() -> Iterator[Finding]:
    for chapter, what, flags, needed in NAMESPACES:
        if os.geteuid() != 0 and what != "user namespace":
            word = what.split()[0].lower()
            there = os.path.exists("/proc/self/ns/" + {"mount": "mnt", "network": "net"}.get(word, word))
            yield Finding(chapter, what, there, "in /proc/self/ns; only root can try it", _kernel_advice(), needed)
            continue
        worked, message = _try(f"unshare {flags} true")
        mend = _userns_advice() if what == "user namespace" else _container_advice() or _kernel_advice()
        yield Finding(chapter, what, worked, f"unshare {flags}" + (f": {message}" if message else ""), mend, needed)


def _overlay() -> Iterator[Finding]:
    """OverlayFS, tried on the directory that will hold the containers."""
    store = _store()
    kind, where = file_system(store)
    yield Finding(9, "a file system for the store", kind not in FOREIGN | {"overlay"}, f"{store}: {kind} at {where}",
                  _store_advice(kind), needed=True)
    masked = _masked_proc()
    yield Finding(4, "/proc without masks", not masked, "parts of it are covered: user namespaces get no fresh one"
                  if masked else "a fresh one can be mounted in a user namespace",
                  "docker run --security-opt systempaths=unconfined ...   # or --privileged")
    if os.geteuid() != 0:
        return
    for what, options in (("OverlayFS", ""), ("overlay: attributes of users", ",userxattr"),
                          ("overlay: index", ",index=on"), ("overlay: renamed directories", ",redirect_dir=on"),
                          ("overlay: metadata copy-up", ",metacopy=on")):
        worked, message = _try_overlay(store, options)
        yield Finding(9, what, worked, message, "sudo modprobe overlay" if not options else
                      "a newer kernel or another file system; minirt does without", needed=not options)
    worked, message = _try("unshare --mount --propagation private sh -c 'mount -t mqueue mqueue /dev/shm || exit 1'")
    yield Finding(5, "POSIX message queues", worked, message or "file system mqueue", "sudo modprobe mqueue")


def _try_overlay(store: str, options: str) -> tuple[bool, str]:
    with tempfile.TemporaryDirectory(dir=store, prefix="doctor-") as place:
        script = (f"cd {place} && mkdir lower upper work merged && echo below > lower/file && "
                  f"mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work{options} overlay merged && "
                  "echo above > merged/file && grep -q below lower/file && rm merged/file && umount merged")
        worked, message = _try(["unshare", "--mount", "--propagation", "private", "sh", "-c", script])
        return worked, message or "mounted, written to and unmounted"


def _cgroups() -> Iterator[Finding]:
    version, controllers, where = cgroup_layout()
    yield Finding(8, "control groups", version != "none", f"{version} at {where}" if where else version,
                  "sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup", needed=True)
    yield Finding(8, "cgroup v2 alone", version == "v2", version,
                  "add systemd.unified_cgroup_hierarchy=1 to the kernel's command line (GRUB_CMDLINE_LINUX in "
                  "/etc/default/grub), sudo update-grub, reboot")
    for name in ("memory", "cpu", "pids", "io" if version == "v2" else "blkio", "cpuset"):
        yield Finding(8, f"cgroup controller {name}", name in controllers, version,
                      f"boot with cgroup_enable={name}" if name != "io" else "a kernel with CONFIG_BLK_CGROUP")
    if version == "v2" and os.geteuid() == 0:
        inside = os.path.exists(f"{where}/cgroup.type")     # the machine's own root has no such file
        yield Finding(8, "the root of the cgroup tree", os.access(f"{where}/cgroup.procs", os.W_OK),
                      "nested: a container's own part of the tree" if inside else "the machine's own",
                      _container_advice(), needed=True)


def cgroup_layout() -> tuple[str, set[str], str]:
    """("v2" | "hybrid" | "v1" | "none", the controllers that can be used, where the tree is mounted)."""
    v1, v2, controllers = [], [], set()
    for line in _read("/proc/self/mounts").splitlines():
        _, where, kind, options = line.split()[:4]
        if kind == "cgroup2":
            v2.append(where)
            controllers |= set(_read(f"{where}/cgroup.controllers").split())
        elif kind == "cgroup":
            v1.append(where)
            controllers |= set(options.split(","))
    if v2 and v1:
        return "hybrid", controllers, os.path.dirname(v2[0])
    if v2:
        return "v2", controllers, v2[0]
    return ("v1", controllers, os.path.dirname(v1[0])) if v1 else ("none", set(), "")


def _users() -> Iterator[Finding]:
    """User namespaces for people who are not root."""
    forbidding = {"kernel/unprivileged_userns_clone": "0", "kernel/apparmor_restrict_unprivileged_userns": "1",
                  "user/max_user_namespaces": "0"}
    settings = {name: _read(f"/proc/sys/{name}").strip() for name in forbidding}
    refused = any(settings[name] == value for name, value in forbidding.items())
    shown = ", ".join(f"{name.replace('/', '.')}={value}" for name, value in settings.items() if value)
    yield Finding(7, "user namespaces for everybody", not refused, shown or "no setting forbids them", _userns_advice())
    for file in ("/etc/subuid", "/etc/subgid"):
        ranges = [line for line in _read(file).splitlines() if line.count(":") == 2]
        yield Finding(7, f"ranges in {file}", bool(ranges), f"{len(ranges)} users",
                      'sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$USER"')


def _power() -> Iterator[Finding]:
    """What can be forbidden here, and whether something is forbidden to us."""
    actions = _read("/proc/sys/kernel/seccomp/actions_avail").split()
    yield Finding(11, "seccomp filters", "errno" in actions, " ".join(actions) or "no /proc/sys/kernel/seccomp",
                  "a kernel with CONFIG_SECCOMP_FILTER")
    status = dict(line.split(":\t", 1) for line in _read("/proc/self/status").splitlines() if ":\t" in line)
    filtered = status.get("Seccomp", "0") == "2"
    yield Finding(11, "no filter above us", not filtered,
                  "a filter is on this process already" if filtered else "none on this process", _container_advice())
    setting = _read("/proc/sys/vm/memfd_noexec").strip() or "0"
    yield Finding(12, "programs in memory (memfd)", setting != "2", f"vm.memfd_noexec={setting}",
                  "sudo sysctl -w vm.memfd_noexec=1", needed=True)


def _tools() -> Iterator[Finding]:
    for chapter, program, package, purpose in TOOLS:
        path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        detail = f"{purpose}: {path or 'not found'}"
        yield Finding(chapter, f"the tool {program}", path is not None, detail, apt(package))


# -- advice --------------------------------------------------------------------------------------------------------

def apt(packages: str) -> str:
    """The command that installs packages of Debian or Ubuntu."""
    return f"sudo apt-get install -y {packages}"


def _kernel_advice() -> str:
    system = _system()
    if "microsoft" in _read("/proc/sys/kernel/osrelease").lower():
        return "wsl --update   # in Windows, then wsl --shutdown"
    if system.get("ID") == "ubuntu":
        return apt("linux-generic-hwe-" + system.get("VERSION_ID", "24.04")) + " && sudo reboot"
    if system.get("ID") == "debian":
        return apt("linux-image-" + ("arm64" if platform.machine() == "aarch64" else "amd64")) + " && sudo reboot"
    return "a kernel of 6.1 or later"


def _container_advice() -> str:
    """What to do inside a container that lacks rights; "" elsewhere."""
    kind = kind_of_machine()
    if "Codespace" in kind:
        return 'rebuild with "privileged": true, as in .devcontainer/devcontainer.json'
    if "container" in kind:
        return "start this container with --privileged and a volume for /var/lib/minirt"
    return ""


def _userns_advice() -> str:
    if _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").strip() == "1":
        return "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    if _read("/proc/sys/kernel/unprivileged_userns_clone").strip() == "0":
        return "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    return _container_advice() or "sudo sysctl -w user.max_user_namespaces=15000"


def _store_advice(kind: str) -> str:
    if kind == "overlay":
        return "docker run -v minirt:/var/lib/minirt ...   # no overlay on an overlay: give it a volume"
    return "export MINIRT_ROOT=/var/lib/minirt   # a directory on a file system of Linux itself"


# -- asking the machine --------------------------------------------------------------------------------------------

def _try(command: str | list[str]) -> tuple[bool, str]:
    """Run a command; return (whether it ended with 0, the last line it wrote on stderr)."""
    words = command if isinstance(command, list) else ["sh", "-c", command]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False,
                              env={**os.environ, "LC_ALL": "C"})
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    lines = done.stderr.strip().splitlines()
    return done.returncode == 0, lines[-1] if lines and done.returncode else ""


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(errors="replace")
    return ""


def _system() -> dict[str, str]:
    lines = (line.partition("=") for line in _read("/etc/os-release").splitlines())
    return {key: value.strip('"') for key, _, value in lines if key}


def _store() -> str:
    """The directory that holds the containers, or the nearest one above it that exists."""
    path = os.environ.get("MINIRT_ROOT") or ("/var/lib/minirt" if os.geteuid() == 0 else
                                             os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"))
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def file_system(path: str) -> tuple[str, str]:
    """The kind of file system that `path` lies on, and its mount point, as /proc/self/mountinfo has them."""
    path = os.path.realpath(path)
    best, kind = "", "unknown"
    for line in _read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):      # of two mounts at one place the later one is seen
            best, kind = point, after.split()[0]
    return kind, best


def _masked_proc() -> bool:
    points = [line.split()[1] for line in _read("/proc/self/mounts").splitlines()]
    return any(point.startswith("/proc/") and point != "/proc/sys/fs/binfmt_misc" for point in points)


def _capability_set(name: str) -> int:
    for line in _read("/proc/self/status").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1], 16)
    return 0


def _capable(number: int) -> bool:
    return bool(_capability_set("CapEff") >> number & 1)


def _bounded(number: int) -> bool:
    return bool(_capability_set("CapBnd") >> number & 1)


# -- the report ----------------------------------------------------------------------------------------------------

def as_data(findings: list[Finding]) -> dict[str, object]:
    """The report as plain data, for `--format json`."""
    return {"machine": describe(), "ready": ready(findings), "findings": [asdict(finding) for finding in findings]}


def ready(findings: list[Finding]) -> bool:
    """Whether all that `minirt run` needs is there."""
    return all(finding.present or not finding.needed for finding in findings)


def as_text(findings: list[Finding], *, everything: bool = True) -> str:
    """The report as text: a line a finding, below each missing one its command; then what it comes to."""
    place = describe()
    lines = [f"{place['system']}, Linux {place['kernel']} on {place['architecture']}, Python {place['python']}, "
             f"as {place['user']}; {place['machine']}"]
    width = max(len(finding.what) for finding in findings)
    chapter = -1
    for finding in findings:
        if finding.present and not everything:
            continue
        if finding.chapter != chapter:
            chapter = finding.chapter
            lines += ["", f"chapter {chapter:02}" if chapter else "the machine (chapter 00)"]
        mark = "ok" if finding.present else "MISSING" if finding.needed else "missing"
        lines.append(f"  {mark:8}{finding.what:{width}}  {finding.detail}".rstrip())
        if not finding.present and finding.mend:
            lines.append(f"{'':12}mend: {finding.mend}")
    needed = [finding.what for finding in findings if finding.needed and not finding.present]
    optional = sorted({finding.chapter for finding in findings if not finding.needed and not finding.present})
    lines += ["", f"minirt run will not work here without: {', '.join(needed)}" if needed
              else "minirt run has all that it needs"]
    if optional:
        lines.append("something is missing for chapter " + ", ".join(f"{number:02}" for number in optional))
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """`python -m minirt.doctor [--json]`: the report without the rest of the tool."""
    from minirt import state

    findings = examine()
    print(state.dumps(as_data(findings), indent=2) if "--json" in arguments else as_text(findings))
    return 0 if ready(findings) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Chapter 12: what a container process shall be, as data, in the shape of the OCI runtime specification's config.json.

A plain dict. Where the specification has no word, ours is noted:

    process   args, env, cwd, terminal, rlimits, oomScoreAdj as in the specification;
              user: {"name": "USER[:GROUP]", "groups": [NAMES OR IDS]}: ours, looked up in the container's own
              /etc/passwd and /etc/group once it is the root; init: True puts an init in front (chapter 03);
              capabilities: as in the specification; with "bounding" alone root may use all of it, others nothing
    root      path, readonly; nodev: ours, device nodes in it are useless; overlay: ours: {"layers", "lower", "upper",
              "work"} (chapter 09), mounted at `path`
    hostname, domainname, mounts
    linux     namespaces ([{"type", "path"?}]; a type that is not named is shared with the machine), devices,
              maskedPaths, readonlyPaths, sysctl; resources: limits, for whoever makes the control group (chapter 08);
              seccomp: ours: {"profile": "builtin", or a profile in Docker's form, "capabilities"?}

The tables are Docker's defaults.
"""

from __future__ import annotations

from minirt import capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

NAMESPACES = ("pid", "uts", "mount", "ipc", "network", "cgroup")

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MOUNTS: tuple[dict[str, Any], ...] = (
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
     "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
     "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
     "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
     "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]},
)


def default(args: Sequence[str], root: str, hostname: str = "minirt") -> dict[str, Any]:
    """The specification of a process that runs `args` in the directory `root`, with Docker's mounts and masks."""
    from minirt.namespaces import mnt  # not for those who only want a filter: the command of a `run`

    return {
        "ociVersion": "1.0.2",
        "process": {"terminal": False, "args": list(args), "env": [PATH], "cwd": "/", "user": {"name": "0:0"},
                    "capabilities": {"bounding": list(capabilities.DEFAULT)}},
        "root": {"path": root, "readonly": False},
        "hostname": hostname,
        "mounts": [dict(mount) for mount in MOUNTS],
        "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES],
                  "maskedPaths": list(mnt.MASKED_PATHS), "readonlyPaths": list(mnt.READONLY_PATHS),
                  "seccomp": {"profile": "builtin"}},
    }


def filter_for(spec: dict[str, Any]) -> bytes:
    """The assembled system call filter that `spec` asks for in "linux", "seccomp"; empty when it asks for none.

    It depends on the capabilities, those of the process or those that are named beside the profile: a call that needs
    one is allowed to those who have it. Raises BadInputError.
    """
    wanted = spec["linux"].get("seccomp")
    if not wanted:
        return b""
    from minirt.seccomp import bpf, compiler, policy

    profile = policy.BUILTIN if wanted["profile"] == "builtin" else wanted["profile"]
    granted = wanted.get("capabilities") or spec["process"].get("capabilities") or {"bounding": capabilities.NAMES}
    return bpf.assemble(compiler.program(profile, {name.removeprefix("CAP_") for name in granted["bounding"]}))

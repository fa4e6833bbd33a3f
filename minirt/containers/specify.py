"""Chapter 17: from a container's configuration to the specification of its process, at every start anew.

The configuration is in Docker's words and independent of this moment; the specification (chapter 12) names
directories, devices and namespaces as they are now.

Sources: OCI runtime-spec config.md; Docker's defaults as `docker inspect` and /proc/self/mounts of its containers
show them.
"""

from __future__ import annotations

import os

from minirt import state
from minirt.cgroups import devices
from minirt.containers import powers, record
from minirt.errors import ConflictError, MinirtError
from minirt.namespaces import mnt, sysctl
from minirt.process import spec as specs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# what a namespace is called here, in HostConfig and in /proc/PID/ns
NAMESPACES = (
    ("pid", "PidMode", "pid"),
    ("uts", "UTSMode", "uts"),
    ("ipc", "IpcMode", "ipc"),
    ("network", "NetworkMode", "net"),
)


def specification(container: record.Container) -> dict[str, Any]:
    """The specification of the container's process. Raises MinirtError when something it names is missing by now."""
    config, host = container.config["Config"], container.config["HostConfig"]
    root = state.root()
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": config["Tty"],
            "args": [container.config["Path"], *container.config["Args"]],
            "env": environment(config),
            "cwd": config["WorkingDir"] or "/",
            "user": {"name": config["User"], "groups": host["GroupAdd"]},
            "capabilities": {"bounding": powers.granted(host)},
            "noNewPrivileges": powers.no_new_privileges(host),
            "rlimits": [],
            "oomScoreAdj": host["OomScoreAdj"],
            "init": host["Init"],
        },
        "root": {
            "path": f"{container.directory}/merged",
            "readonly": host["ReadonlyRootfs"],
            "overlay": {
                "layers": f"{root}/layers",
                "lower": [f"l/{chain[:20]}" for chain in reversed(container.config["Layers"])],
                "upper": f"{container.directory}/upper",
                "work": f"{container.directory}/work",
            },
        },
        "hostname": config["Hostname"],
        "domainname": config["Domainname"],
        "mounts": mount_table(container),
        "linux": {
            "namespaces": namespaces(host),
            "devices": [],
            "maskedPaths": host.get("MaskedPaths", [*mnt.MASKED_PATHS, *thermal_throttles()]),
            "readonlyPaths": host.get("ReadonlyPaths", list(mnt.READONLY_PATHS)),
            "sysctl": settings(host),
            "seccomp": powers.seccomp(host),
            "cgroupsPath": f"/{container.group_name}",
            "resources": {"devices": list(devices.DEFAULT)},
        },
    }
    if "limited" in host:
        from minirt.containers import limits

        spec["linux"]["resources"].update(limits.resources(host))
        spec["linux"]["resources"]["devices"] += limits.rules(host)
    if host["UTSMode"] == "host":
        spec["hostname"] = spec["domainname"] = ""
    if host["Ulimits"] or host["Devices"]:
        from minirt.containers import values

        spec["process"]["rlimits"] = values.rlimits(host["Ulimits"])
        for each in host["Devices"]:
            nodes = values.device_nodes(each)
            spec["linux"]["devices"] += nodes
            spec["linux"]["resources"]["devices"] += [
                devices.allowed(node["type"], node["major"], node["minor"], each["CgroupPermissions"])
                for node in nodes]
    if "IDMappings" in host:
        from minirt.containers import remap

        remap.open_up(spec, host)
    if host["Privileged"]:
        from minirt.containers import privileged

        privileged.open_up(spec)
    return spec


def thermal_throttles() -> list[str]:
    """What each processor tells of its heat, which tells what others compute; Docker masks it where it exists."""
    cpus = "/sys/devices/system/cpu"
    if not os.path.exists(f"{cpus}/cpu0/thermal_throttle"):
        return []
    return [f"{cpus}/{name}/thermal_throttle" for name in os.listdir(cpus) if name[3:].isdigit()]


def settings(host: dict[str, Any]) -> dict[str, str]:
    """The kernel's settings in the container's namespaces: Docker's two for a network namespace of its own, and the
    user's. Raises MinirtError for one whose namespace is the machine's."""
    found = {}
    if host["NetworkMode"] not in ("host", "") and not host["NetworkMode"].startswith("container:"):
        try:
            writable = not os.statvfs(f"/proc/sys/{sysctl.PORTS.replace('.', '/')}").f_flag & os.ST_RDONLY
        except OSError:
            writable = False  # IPv4 is not in this kernel
        if writable:  # within another container it may not be
            if not ("IDMappings" in host or state.ordinary()):  # no map has all groups
                found[sysctl.PINGS] = "0 2147483647"
            found[sysctl.PORTS] = "0"
    if host.get("Sysctls"):
        private = [kind for kind, field, _ in NAMESPACES if host[field] != "host"]
        for name, value in host["Sysctls"].items():
            reason = sysctl.refusal(name, private)
            if reason:
                raise MinirtError(reason)
            found[name] = value
    return found


def environment(config: dict[str, Any]) -> list[str]:
    """Docker's own variables first (PATH, HOSTNAME, and TERM with a terminal), replaced by those of image and
    user.
    """
    table = {"PATH": specs.PATH, "HOSTNAME": f"HOSTNAME={config['Hostname']}"}
    if config["Tty"]:
        table["TERM"] = "TERM=xterm"
    for text in config["Env"]:
        table[text.partition("=")[0]] = text
    return list(table.values())


def namespaces(host: dict[str, Any]) -> list[dict[str, str]]:
    """Each namespace of its own, shared with the machine (left out), or joined (by a path below /proc)."""
    result = [{"type": "mount"}]
    if host.get("CgroupnsMode") != "host":
        result.append({"type": "cgroup"})
    for kind, field, file in NAMESPACES:
        mode = host[field]
        if mode == "host":
            continue
        if mode.startswith("container:"):
            other = record.find(mode.partition(":")[2])
            now = record.derive(other)
            if not now.alive:
                raise ConflictError(f"cannot join the {kind} namespace of {other.name}: it is not running")
            if kind == "ipc" and other.config["HostConfig"]["IpcMode"] in ("private", "none"):
                raise ConflictError(f"can't join IPC of container {other.id}: non-shareable IPC (hint: use "
                                    "IpcMode:shareable for the donor container)")
            result.append({"type": kind, "path": f"/proc/{now.pid}/ns/{file}"})
        else:
            result.append({"type": kind})
    return result


def mount_table(container: record.Container) -> list[dict[str, Any]]:
    """Docker's mounts, those of the chosen modes, the three files below /etc, and the user's, which replace any of
    them.
    """
    host = container.config["HostConfig"]
    table = {entry["destination"]: entry for entry in specs.MOUNTS}
    ipc = host["IpcMode"]
    if ipc == "none":
        del table["/dev/shm"]
    elif ipc == "host":
        for path in ("/dev/shm", "/dev/mqueue"):
            if os.path.isdir(path):
                table[path] = {"destination": path, "type": "bind", "source": path, "options": ["rbind"]}
    elif ipc.startswith("container:"):
        now = record.derive(record.find(ipc.partition(":")[2]))  # `namespaces` refuses one that does not run
        table["/dev/shm"] = {"destination": "/dev/shm", "type": "shm", "source": f"/proc/{now.pid}/ns/ipc"}
    elif host["ShmSize"]:
        words = [word for word in table["/dev/shm"]["options"] if not word.startswith("size=")]
        table["/dev/shm"] = {**table["/dev/shm"], "options": [*words, f"size={host['ShmSize']}"]}
    files = container.directory
    if host["NetworkMode"].startswith("container:"):
        files = record.find(host["NetworkMode"].partition(":")[2]).directory
    for name in ("resolv.conf", "hostname", "hosts"):
        table[f"/etc/{name}"] = {
            "destination": f"/etc/{name}",
            "type": "bind",
            "source": f"{files}/{name}",
            "options": ["rbind", "rprivate", *(["ro"] if host["ReadonlyRootfs"] else [])],
        }
    if host["Mounts"] or host["Tmpfs"]:
        from minirt.containers import mounts

        mounts.check_sources(host["Mounts"])
        if any(each["Target"] == "/dev" for each in host["Mounts"]):
            table = {path: entry for path, entry in table.items() if not path.startswith("/dev/")}
        for entry in mounts.entries(host["Mounts"], host["Tmpfs"]):
            table.pop(entry["destination"], None)
            table[entry["destination"]] = entry
        if "/etc" in table:  # what lies below comes after
            for path in ("/etc/resolv.conf", "/etc/hostname", "/etc/hosts"):
                table[path] = table.pop(path)
    return list(table.values())

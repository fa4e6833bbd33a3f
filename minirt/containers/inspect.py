"""Chapter 17: everything about a container, in the shape of Docker's API.

The configuration is stored in that shape already; here the state of this moment is put beside it, and fields that
scripts ask for get the value that is true of minirt.

Source: Docker Engine API, "Inspect a container".
"""

from __future__ import annotations

from minirt import state
from minirt.containers import record
from minirt.namespaces import mnt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What "HostConfig" says where no limit was asked for; what was asked for stands in the configuration.
NO_LIMITS: dict[str, Any] = {
    "CgroupParent": "", "CgroupnsMode": "private", "Memory": 0, "MemoryReservation": 0, "MemorySwap": 0,
    "MemorySwappiness": None, "OomKillDisable": None, "NanoCpus": 0, "CpuShares": 0, "CpuPeriod": 0, "CpuQuota": 0,
    "CpusetCpus": "", "CpusetMems": "", "PidsLimit": None, "BlkioWeight": 0, "BlkioDeviceReadBps": [],
    "BlkioDeviceWriteBps": [], "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [], "DeviceCgroupRules": None,
}


# What it says of what minirt does not have, so that who asks finds Docker's fields and their empty values.
NOT_HERE: dict[str, Any] = {
    "VolumeDriver": "", "VolumesFrom": None, "ConsoleSize": [0, 0], "Links": None, "PublishAllPorts": False,
    "Isolation": "", "BlkioWeightDevice": [], "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "DeviceRequests": None,
    "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
}
LOG: dict[str, Any] = {"Type": "json-file", "Config": {}}
ADDRESSES: dict[str, Any] = {
    "EndpointID": "", "Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "IPAddress": "",
    "IPPrefixLen": 0, "IPv6Gateway": "", "MacAddress": "",
}
NO_BRIDGE: dict[str, Any] = {
    "Bridge": "", "SandboxID": "", "Ports": {}, "HairpinMode": False, "LinkLocalIPv6Address": "",
    "LinkLocalIPv6PrefixLen": 0, "SecondaryIPAddresses": None, "SecondaryIPv6Addresses": None, **ADDRESSES,
}
# fields of "Config" that Docker leaves out where they say nothing
UNSAID = ("MacAddress", "StopSignal", "StopTimeout")


def inspect(container: record.Container, sized: bool = False) -> dict[str, Any]:
    """The description of a container. `sized`: with `SizeRw` and `SizeRootFs`, which takes a walk over its files."""
    now = record.derive(container)
    config, host = container.config["Config"], container.config["HostConfig"]
    upper = f"{container.directory}/upper"
    lower = ":".join(f"{state.root()}/layers/{chain}/diff" for chain in reversed(container.config["Layers"]))
    joined = host["NetworkMode"].partition("container:")[2]  # whose network it is, and so whose names
    files = f"{state.root()}/containers/{joined}" if joined else container.directory
    described: dict[str, Any] = {
        "Id": container.id,
        "Created": container.config["Created"],
        "Path": container.config["Path"],
        "Args": container.config["Args"],
        "State": {
            "Status": now.status,
            "Running": now.alive,
            "Paused": now.status == "paused",
            "Restarting": False,
            "OOMKilled": now.out_of_memory,
            "Dead": now.status == "dead",
            "Pid": now.pid,
            "ExitCode": now.code,
            "Error": "the monitor of the container was lost" if now.lost else now.error,
            "StartedAt": now.started if now.status != "created" else record.NEVER,
            "FinishedAt": now.finished if now.status != "created" else record.NEVER,
        },
        "Image": container.config["Image"],
        "ResolvConfPath": f"{files}/resolv.conf",
        "HostnamePath": f"{files}/hostname",
        "HostsPath": f"{files}/hosts",
        "LogPath": container.log_path if host.get("LogConfig", LOG)["Type"] == "json-file" else "",
        "Name": f"/{container.name}",
        "RestartCount": 0,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": host_config(host),
        "GraphDriver": {
            "Data": {"ID": container.id, "LowerDir": lower, "MergedDir": f"{container.directory}/merged",
                     "UpperDir": upper, "WorkDir": f"{container.directory}/work"},
            "Name": "overlay2",
        },
        "Mounts": mounts(host),
        "Config": {
            **{name: value for name, value in config.items() if value or name not in UNSAID},
            "OnBuild": None,
        },
        "NetworkSettings": {
            **NO_BRIDGE,
            "SandboxKey": f"/proc/{now.pid}/ns/net" if now.pid else "",
            "Networks": networks(host["NetworkMode"]),
        },
    }
    if sized:
        from minirt.containers import measure

        own, below = measure.sizes(container)
        described["SizeRw"], described["SizeRootFs"] = own, own + below
    return described


def networks(mode: str) -> dict[str, Any]:
    """ "Networks": none and host are networks to Docker; who joins another container's has none of its own."""
    if mode.startswith("container:"):
        return {}
    return {mode: {"IPAMConfig": None, "Links": None, "Aliases": None, "DriverOpts": None, "GwPriority": 0,
                   "NetworkID": "", "DNSNames": None, **ADDRESSES}}


def host_config(host: dict[str, Any]) -> dict[str, Any]:
    """ "HostConfig", with what Docker keeps there and minirt decides by itself."""
    volumes = [mount for mount in host["Mounts"] if mount.get("Create")]
    return {
        **{name: value for name, value in host.items() if name != "limited" and (value or name != "Sysctls")},
        "Binds": [_bind(mount) for mount in volumes] or None,
        "Mounts": [_mount(mount) for mount in host["Mounts"] if not mount.get("Create")] or None,
        "Tmpfs": host["Tmpfs"] or None,
        "GroupAdd": host["GroupAdd"] or None,
        "ExtraHosts": host["ExtraHosts"] or None,
        "ShmSize": host["ShmSize"] or 64 << 20,
        "Init": host["Init"] or None,
        "LogConfig": host.get("LogConfig", LOG),
        "PortBindings": {},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "Runtime": "minirt",
        "Cgroup": "",
        **NOT_HERE,
        **NO_LIMITS,
        **{name: host[name] for name in NO_LIMITS if name in host},
        "CapAdd": host["CapAdd"] or None,
        "CapDrop": host["CapDrop"] or None,
        "SecurityOpt": host["SecurityOpt"] or ([] if "MaskedPaths" in host else None),
        "MaskedPaths": None if host["Privileged"] else host.get("MaskedPaths", list(mnt.MASKED_PATHS)),
        "ReadonlyPaths": None if host["Privileged"] else host.get("ReadonlyPaths", list(mnt.READONLY_PATHS)),
    }


def _bind(mount: dict[str, Any]) -> str:
    words = [mount["BindOptions"]["Propagation"]] if mount.get("BindOptions") else []
    if mount.get("ReadOnly"):
        words.insert(0, "ro")
    return ":".join([mount["Source"], mount["Target"], *([",".join(words)] if words else [])])


def _mount(mount: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mount.items() if value or key == "Target"}


def mounts(host: dict[str, Any]) -> list[dict[str, Any]]:
    """ "Mounts": the mounts that the user asked for, as they are."""
    result = []
    for mount in host["Mounts"]:
        options = mount.get("BindOptions") or {}
        result.append(
            {
                "Type": mount["Type"],
                "Source": mount["Source"],
                "Destination": mount["Target"],
                "Mode": "ro" if mount.get("ReadOnly") and mount.get("Create") else "",
                "RW": not mount.get("ReadOnly"),
                "Propagation": options.get("Propagation", "rprivate") if mount["Type"] == "bind" else "",
            }
        )
    return result

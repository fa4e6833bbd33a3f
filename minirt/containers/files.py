"""Chapter 17: what a container needs on disk for a start: the directories of its overlay, and three files below /etc.

Docker binds its own /etc/hostname, /etc/hosts and /etc/resolv.conf over those of the image; so does minirt.

Manual pages: hosts(5), resolv.conf(5), hostname(5).
"""

from __future__ import annotations

import os

from minirt import state
from minirt.containers import record

TYPE_CHECKING = False

HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def write(container: record.Container) -> None:
    """Makes the directories of the overlay and the three files that are bound over /etc/hostname, hosts and
    resolv.conf.
    """
    for name, data in contents(container).items():
        _write(f"{container.directory}/{name}", data)
    for name in ("upper", "work"):
        try:
            os.mkdir(f"{container.directory}/{name}", 0o755)
        except FileExistsError:
            pass
    try:
        os.mkdir(f"{container.directory}/merged", 0o755)
    except FileExistsError:
        pass
    if container.config["HostConfig"]["UsernsMode"] == "auto":
        from minirt.containers import remap

        remap.give(container)


def contents(container: record.Container) -> dict[str, bytes]:
    """The three files, by name; none where they are those of the container whose network it is."""
    host = container.config["HostConfig"]
    if host["NetworkMode"].startswith("container:"):
        return {}
    on_host = host["NetworkMode"] == "host"
    servers = _read("/etc/resolv.conf")
    names = _read("/etc/hosts") if on_host else HOSTS.encode()
    asked = host["Dns"] or host["DnsSearch"] or host["DnsOptions"]
    if asked or host["ExtraHosts"] or (not on_host and (b"127." in servers or b"::1" in servers)):
        from minirt.containers import resolve

        names = os.fsencode(resolve.hosts(os.fsdecode(names), host["ExtraHosts"]))
        servers = os.fsencode(resolve.resolv_conf(
            os.fsdecode(servers), host["Dns"], host["DnsSearch"], host["DnsOptions"], not on_host,
            lambda path: os.fsdecode(_read(path))))
    return {"hostname": os.fsencode(container.config["Config"]["Hostname"]) + b"\n", "hosts": names,
            "resolv.conf": servers}


def _read(path: str) -> bytes:
    try:
        return state.read_file(path)
    except OSError:
        return b""


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)

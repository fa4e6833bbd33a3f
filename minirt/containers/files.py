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
    for name in ("upper", "work"):
        try:
            os.mkdir(f"{container.directory}/{name}", 0o755)
        except FileExistsError:
            pass
    try:
        os.mkdir(f"{container.directory}/merged", 0o755)
    except FileExistsError:
        pass
    on_host = container.config["HostConfig"]["NetworkMode"] == "host"
    name = container.config["Config"]["Hostname"]
    full = f"{name}.{container.config['Config']['Domainname']}" if container.config["Config"]["Domainname"] else name
    _write(f"{container.directory}/hostname", full.encode() + b"\n")
    _write(f"{container.directory}/hosts", _read("/etc/hosts") if on_host else HOSTS.encode())
    _write(f"{container.directory}/resolv.conf", _read("/etc/resolv.conf"))


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

"""Chapter 06: a network namespace, its loopback, and a cable to another one."""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chapters import contents
from minirt.kernel import netlink, syscalls
from minirt.namespaces import net

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
CLONE_NEWNET = 0x40000000


def namespaces(pid: str | int = "self") -> dict[str, str]:
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS}


def interfaces() -> dict[str, int]:
    """The interfaces of this process's network namespace and their flags, asked without the modules under test."""
    import fcntl

    found = {}
    with socket.socket() as any_socket:
        for _, name in socket.if_nameindex():
            answer = fcntl.ioctl(any_socket, 0x8913, struct.pack("16s16x", name.encode()))  # SIOCGIFFLAGS
            found[name] = struct.unpack("16xH14x", answer)[0]
    return found


@pytest.mark.exercise("minirt.namespaces.net.enter")
def test_entering_gives_a_network_of_its_own(spawn: Callable[..., Any]) -> None:
    ours = namespaces()
    child = spawn(net.enter)
    assert child.value is None, "enter() returns nothing"
    theirs = namespaces(child.pid)
    assert theirs["net"] != ours["net"], (
        "after enter() you are still in the machine's network namespace: call unshare(2) with CLONE_NEWNET"
    )
    changed = [kind for kind in KINDS if theirs[kind] != ours[kind] and kind != "net"]
    assert not changed, f"enter() made more than a network namespace: {', '.join(changed)} as well"


@pytest.mark.exercise("minirt.namespaces.net.enter")
def test_whoever_may_not_gets_an_error(inside: Callable[..., Any]) -> None:
    def as_nobody() -> str:
        os.setresuid(65534, 65534, 65534)
        try:
            net.enter()
        except PermissionError:
            return "refused"
        return "no error"

    assert inside(as_nobody) == "refused", "the kernel refused, and enter() must raise OSError then"


@pytest.mark.exercise("minirt.namespaces.net.configure")
def test_the_loopback_is_switched_on(inside: Callable[..., Any]) -> None:
    def switched() -> dict[str, int]:
        syscalls.unshare(CLONE_NEWNET)
        os.environ["PATH"] = "/nowhere"
        net.configure()
        return interfaces()

    def by_a_program() -> dict[str, int]:
        syscalls.unshare(CLONE_NEWNET)
        net.configure()
        return interfaces()

    found = inside(switched)
    if not found["lo"] & 1 and inside(by_a_program)["lo"] & 1:
        pytest.fail("configure() must do it without any program's help: a container has no `ip` to lend you")
    assert found["lo"] & 1, "after configure() the loopback is still off: netlink.link_up() switches an interface on"


@pytest.mark.exercise("minirt.namespaces.net.configure")
def test_a_process_can_talk_to_itself(inside: Callable[..., Any]) -> None:
    def talk() -> bytes:
        syscalls.unshare(CLONE_NEWNET)
        net.configure()
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            accepted, _ = server.accept()
            accepted.sendall(b"hello")
            accepted.close()
            return client.recv(10)

    assert inside(talk) == b"hello"


@pytest.mark.exercise("minirt.namespaces.net.configure")
def test_a_refusal_is_an_error(inside: Callable[..., Any]) -> None:
    def as_nobody() -> str:
        syscalls.unshare(CLONE_NEWNET)
        os.setresuid(65534, 65534, 65534)
        try:
            net.configure()
        except PermissionError:
            return "refused"
        return "no error"

    assert inside(as_nobody) == "refused", "the kernel refused, and configure() must raise OSError then"


# ------------------------------------------------------------------------------------------------------- plug


def plugged(*arguments: Any) -> dict[str, Any]:
    """In a new namespace: a veth pair, whose end "left" is plugged; what the kernel then says of it."""
    import fcntl

    syscalls.unshare(CLONE_NEWNET)
    netlink.new_veth("left", "right")
    netlink.link_up(netlink.index_of("right"))
    try:
        net.plug("left", *arguments)
    except OSError as error:
        return {"error": error.errno}
    said: dict[str, Any] = {"on": bool(interfaces()["left"] & 1)}
    with socket.socket() as any_socket:
        for what, number in (("address", 0x8915), ("mask", 0x891B)):  # SIOCGIFADDR, SIOCGIFNETMASK
            try:
                answer = fcntl.ioctl(any_socket, number, struct.pack("16s16x", b"left"))
                said[what] = socket.inet_ntoa(answer[20:24])
            except OSError:
                said[what] = "none"
        said["hardware"] = fcntl.ioctl(any_socket, 0x8927, struct.pack("16s16x", b"left"))[18:24]  # SIOCGIFHWADDR
    said["routes"] = [line.split()[2] for line in Path("/proc/self/net/route").read_text().splitlines()[1:]
                      if line.split()[1] == "00000000"]
    return said


@pytest.mark.exercise("minirt.namespaces.net.plug")
def test_an_end_gets_its_address_and_is_on(inside: Callable[..., Any]) -> None:
    found = inside(plugged, "10.6.0.2/24")
    assert "error" not in found, (
        f"the kernel refused (error {found.get('error')}): without a gateway there is no route to set"
    )
    assert found["address"] == "10.6.0.2", f"the interface's address is {found['address']}, not 10.6.0.2"
    assert found["mask"] == "255.255.255.0", (
        f"the network mask is {found['mask']}: the length of the network is lost; what follows the slash says it, 24"
    )
    assert found["on"], "the interface is off: netlink.link_up()"
    assert found["routes"] == []


@pytest.mark.exercise("minirt.namespaces.net.plug")
def test_the_way_out_is_the_gateway(inside: Callable[..., Any]) -> None:
    found = inside(plugged, "10.6.0.2/24", "10.6.0.1")
    assert found.get("error") not in (100, 101), (
        "the kernel refused the route: the kernel takes a route only through an interface that is on, so it comes last"
    )
    assert found.get("routes") == ["0100060A"], f"the default route does not lead to 10.6.0.1: {found}"


@pytest.mark.exercise("minirt.namespaces.net.plug")
def test_a_hardware_address_can_be_chosen(inside: Callable[..., Any]) -> None:
    wanted = bytes.fromhex("020000000042")
    found = inside(plugged, "10.6.0.2/24", "10.6.0.1", wanted)
    assert found.get("hardware") == wanted, (
        "the hardware address is still the random one: netlink.set_link(index, hardware=...), while it is off"
    )


# ----------------------------------------------------------------------------------------- the whole chapter


def ping(address: str) -> str:
    """What the chapter's ping.py says; run in this process, whose network namespace counts."""
    sys.path.insert(0, str(contents.chapter(6).directory))
    import ping as program

    try:
        program.ping(address)
    except OSError as error:
        return error.strerror or "no answer"
    return "answers"


@pytest.mark.limit(20)
def test_two_namespaces_joined_by_a_cable_ping_each_other(spawn: Callable[..., Any]) -> None:
    def left() -> Iterator[str]:
        net.enter()
        net.configure()
        yield "there"
        net.plug("eth0", "10.6.0.2/24")
        yield ping("10.6.0.3")
        yield ping("192.0.2.1")

    def right(namespace: int) -> Iterator[str]:
        net.enter()
        net.configure()
        net.join("eth0", "eth0", namespace)
        net.plug("eth0", "10.6.0.3/24")
        yield "there"
        yield ping("10.6.0.2")

    one = spawn(left)
    assert one.value == "there"
    namespace = os.open(f"/proc/{one.pid}/ns/net", os.O_RDONLY)
    other = spawn(right, namespace)
    assert other.value == "there"
    assert one.resume() == "answers"
    assert other.resume() == "answers"
    assert one.resume() == "Network is unreachable"
    os.close(namespace)


def test_another_127_0_0_1(inside: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = server.getsockname()

        def attack(walled: bool) -> str:
            if walled:
                net.enter()
                net.configure()
            try:
                socket.create_connection(where, timeout=1).close()
            except ConnectionRefusedError:
                return "refused"
            return "connected"

        assert inside(attack, False) == "connected", "control: without the wall it is in reach"
        assert inside(attack, True) == "refused"


def test_abstract_sockets_belong_to_the_namespace(inside: Callable[..., Any]) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("\0minirt-test")
        door.listen()

        def knock(walled: bool) -> str:
            if walled:
                net.enter()
            try:
                with socket.socket(socket.AF_UNIX) as hand:
                    hand.connect("\0minirt-test")
            except ConnectionRefusedError:
                return "refused"
            return "connected"

        assert (inside(knock, False), inside(knock, True)) == ("connected", "refused")


def test_hardware_addresses_are_read_as_they_are_written() -> None:
    assert net.hardware_address("02:42:ac:11:00:02") == bytes.fromhex("0242ac110002")
    for text in ("", "02:42:ac:11:00", "02:42:ac:11:00:zz", "2:42:ac:11:0:2", "02:42:ac:11:00:02:03"):
        with pytest.raises(ValueError, match="not a valid mac address"):
            net.hardware_address(text)


@pytest.mark.limit(20)
def test_the_container_program_has_an_interface(container: Callable[..., Any]) -> None:
    machine = sorted(os.listdir("/sys/class/net"))
    ran = container("--network", "cable", "--mac-address", "02:00:00:00:00:42", "/", "sh", "-c",
                    "cat /sys/class/net/eth0/address; cat /proc/net/route; exit 3")
    assert ran.status == 3, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0] == "02:00:00:00:00:42"
    routes = [line.split()[:3] for line in lines[2:]]
    assert routes == [["eth0", "00000000", "0100060A"], ["eth0", "0000060A", "00000000"]]
    ran = container("/", "sh", "-c", "ls /sys/class/net")
    assert ran.stdout == "lo\n", ran.stderr
    deadline = time.monotonic() + 5  # a cable goes some time after the namespace of its other end
    while sorted(os.listdir("/sys/class/net")) != machine and time.monotonic() < deadline:
        time.sleep(0.02)
    shown = container("--network", "host", "/", "sh", "-c", "ls /sys/class/net").stdout
    assert shown.split() == machine


def test_the_container_program_answers_wrong_use_with_a_sentence(container: Callable[..., Any]) -> None:
    for wrong in (["--network"], ["--network", "cabel", "/"], ["--mac-address", "02", "/"], ["--gateway", "10.6.0.1"]):
        ran = container(*wrong)
        assert ran.status and ran.stderr.startswith("container.py") and ran.stderr.count("\n") == 1, ran


def test_the_container_program_tells_what_it_cannot_run(container: Callable[..., Any]) -> None:
    ran = container("/", "no-such-command")
    assert (ran.status, ran.stderr) == (127, "container.py: no-such-command: not found\n")
    ran = container("/", "/etc/passwd")
    assert (ran.status, ran.stderr) == (126, "container.py: /etc/passwd: cannot be executed\n")

"""Chapter 06: messages to the kernel, and what they have done, told by pyroute2 and by /proc."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from typing import Any

import pytest

from minirt.kernel import netlink, syscalls

CLONE_NEWNET = 0x40000000


def words(data: bytes) -> str:
    return data.hex(" ")


# --------------------------------------------------------------------------------------------------- attribute


@pytest.mark.exercise("minirt.kernel.netlink.attribute")
def test_an_attribute_says_how_long_it_is_and_what_it_means() -> None:
    found = netlink.attribute(7, b"four")
    assert found[:4] != bytes((7, 0, 8, 0)), f"{words(found)}: the length comes first, then the kind"
    assert found[:2] != bytes((4, 0)), f"{words(found)}: the length counts its own four bytes too: 8 here"
    assert len(found) <= 8, f"{words(found)}: 8 bytes are a multiple of four already; that needs no zeros at its end"
    assert found == bytes((8, 0, 7, 0)) + b"four", f"{words(found)} for kind 7 and the value b'four'"


@pytest.mark.exercise("minirt.kernel.netlink.attribute")
def test_an_attribute_ends_at_a_multiple_of_four() -> None:
    for size in range(1, 9):
        found = netlink.attribute(300, b"x" * size)
        assert len(found) % 4 == 0, f"{words(found)}: the next attribute begins at a multiple of four; add zeros"
        length, kind = struct.unpack("<HH", found[:4])
        assert (length, kind) == (4 + size, 300), (
            f"a value of {size} bytes makes the length {length}: it is {4 + size}, the zeros at the end do not count"
        )
        assert found[4:] == b"x" * size + bytes(-size % 4)


# ----------------------------------------------------------------------------------------------------- message


@pytest.mark.exercise("minirt.kernel.netlink.message")
def test_a_message_has_a_header_of_sixteen_bytes() -> None:
    found = netlink.message(0x1234, 0x0605, 0x21436587, b"body of twenty bytes")
    assert len(found) == 36, f"{len(found)} bytes with a body of 20: the header has 16 bytes"
    length, kind, flags, sequence, port = struct.unpack("<IHHII", found[:16])
    assert length == 36, f"the length is that of the whole message, header and body: 36, not {length}"
    assert (kind, flags) == (0x1234, 0x0605), f"kind {kind:#x}, flags {flags:#x}: after it come kind, then flags"
    assert (sequence, port) == (0x21436587, 0), f"sequence {sequence:#x} and port {port}: the port is 0"
    assert found[16:] == b"body of twenty bytes"


# ----------------------------------------------------------------------------------------------------- failure


def answer(kind: int, number: int) -> bytes:
    return struct.pack("<IHHII", 36, kind, 0, 1, 99) + struct.pack("<i", number) + bytes(16)


@pytest.mark.exercise("minirt.kernel.netlink.failure")
def test_the_kernel_answers_with_an_error_number() -> None:
    found = netlink.failure(answer(2, 0))
    assert found == 0, f"{found} for an answer with the number 0: an NLMSG_ERROR with 0 is success"
    found = netlink.failure(answer(2, -errno.EEXIST))
    assert found != -17, "-17 for EEXIST: return the number without the minus that the kernel puts in front"
    assert found == errno.EEXIST, f"{found} instead of 17: the four bytes at 16 are a signed number"


@pytest.mark.exercise("minirt.kernel.netlink.failure")
def test_an_answer_that_is_none_is_no_success() -> None:
    assert netlink.failure(answer(16, 0)) == netlink.EPROTO, (
        "an answer of another kind than NLMSG_ERROR was taken for success: return EPROTO"
    )


@pytest.mark.exercise("minirt.kernel.netlink.failure")
def test_the_kernel_understands_us_and_we_the_kernel(inside: Callable[..., Any]) -> None:
    def ask(index: int) -> int:
        syscalls.unshare(CLONE_NEWNET)
        try:
            netlink.link_up(index)
        except OSError as error:
            return error.errno or -1
        return 0

    assert inside(ask, 1) == 0, "the kernel refused to switch the loopback on"
    assert inside(ask, 77) == errno.ENODEV, "there is no interface 77, and the kernel says so"


# ------------------------------------------------------------------------------------- the messages, and a witness


def state() -> dict[str, dict[str, Any]]:
    """Every interface of this process's network namespace, told by pyroute2."""
    from pyroute2 import IPRoute

    with IPRoute() as witness:
        found = {}
        for each in witness.get_links():
            kind = each.get_attr("IFLA_LINKINFO")
            of_it = witness.get_addr(index=each["index"])
            addresses = [(one.get_attr("IFA_ADDRESS"), one["prefixlen"]) for one in of_it]
            found[each.get_attr("IFLA_IFNAME")] = {
                "index": each["index"], "up": bool(each["flags"] & 1), "mac": each.get_attr("IFLA_ADDRESS"),
                "mtu": each.get_attr("IFLA_MTU"), "kind": kind.get_attr("IFLA_INFO_KIND") if kind else "",
                "addresses": [one for one in addresses if not one[0].startswith("fe80")],
            }
        routes = [(each.get_attr("RTA_GATEWAY"), each.get_attr("RTA_OIF")) for each in witness.get_default_routes()]
        found["default"] = {"routes": [route for route in routes if route[0]]}
        return found


@pytest.fixture
def alone(inside: Callable[..., Any]) -> Callable[..., Any]:
    """``alone(function)``: call a function in a new network namespace, and then tell what is there."""

    def call(function: Callable[[], Any]) -> Any:
        def there() -> Any:
            syscalls.unshare(CLONE_NEWNET)
            function()
            return state()

        return inside(there)

    return call


@pytest.mark.limit(20)
def test_a_pair_is_made_renamed_and_addressed(alone: Callable[..., Any]) -> None:
    def work() -> None:
        netlink.new_veth("left", "right")
        index = netlink.index_of("left")
        netlink.set_link(index, name="renamed", hardware=bytes.fromhex("020000000042"), mtu=1400)
        netlink.add_address(index, "10.6.0.1", 24)
        netlink.add_address(index, "fd00::1", 64)
        netlink.link_up(index)
        netlink.add_default_route("10.6.0.254", index)

    found = alone(work)
    one = found["renamed"]
    assert "left" not in found and found["right"]["kind"] == "veth" and not found["right"]["up"]
    assert (one["kind"], one["up"], one["mac"], one["mtu"]) == ("veth", True, "02:00:00:00:00:42", 1400)
    assert one["addresses"] == [("10.6.0.1", 24), ("fd00::1", 64)]
    assert found["default"]["routes"] == [("10.6.0.254", one["index"])]


@pytest.mark.limit(20)
def test_with_one_end_goes_the_other(alone: Callable[..., Any]) -> None:
    def work() -> None:
        netlink.new_veth("left", "right")
        netlink.delete_link(netlink.index_of("right"))

    assert set(alone(work)) == {"lo", "default"}


@pytest.mark.limit(20)
def test_an_interface_moves_to_another_namespace(spawn: Callable[..., Any], alone: Callable[..., Any]) -> None:
    other = spawn(lambda: syscalls.unshare(CLONE_NEWNET))
    assert other.value is None
    namespace = os.open(f"/proc/{other.pid}/ns/net", os.O_RDONLY)

    def work() -> None:
        netlink.new_veth("left", "right")
        netlink.move_link(netlink.index_of("right"), namespace)
        netlink.new_veth("here", "there", namespace)

    assert set(alone(work)) == {"lo", "left", "here", "default"}
    os.close(namespace)


@pytest.mark.limit(20)
def test_refusals_are_the_kernels_own(inside: Callable[..., Any]) -> None:
    def refused() -> list[int | None]:
        syscalls.unshare(CLONE_NEWNET)
        netlink.new_veth("left", "right")
        attempts: list[Callable[[], None]] = [
            lambda: netlink.new_veth("left", "new"),
            lambda: netlink.set_link(netlink.index_of("left"), name="x" * 16),
            lambda: netlink.add_default_route("10.6.0.1", netlink.index_of("left")),
            lambda: netlink.delete_link(77),
        ]
        numbers: list[int | None] = []
        for attempt in attempts:
            try:
                attempt()
                numbers.append(0)
            except OSError as error:
                numbers.append(error.errno)
        os.setresuid(65534, 65534, 65534)
        try:
            netlink.link_up(1)
        except OSError as error:
            numbers.append(error.errno)
        return numbers

    assert inside(refused) == [errno.EEXIST, errno.ERANGE, errno.ENETUNREACH, errno.ENODEV, errno.EPERM]

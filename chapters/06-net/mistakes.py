"""What is written instead, in chapter 06, and the message that must lead to each mistake."""

from __future__ import annotations

import os

from minirt.kernel import netlink, syscalls
from minirt.kernel.netlink import EPROTO, NLMSG_ERROR, u16, u32
from minirt.namespaces.net import CLONE_NEWNET, LOOPBACK


def attribute__counts_the_value_only(kind: int, value: bytes) -> bytes:
    """the length counts its own four bytes too"""
    data = u16(len(value)) + u16(kind) + value
    return data + bytes(-len(data) % 4)


def attribute__counts_the_zeros(kind: int, value: bytes) -> bytes:
    """the zeros at the end do not count"""
    padded = value + bytes(-len(value) % 4)
    return u16(4 + len(padded)) + u16(kind) + padded


def attribute__without_zeros(kind: int, value: bytes) -> bytes:
    """a multiple of four"""
    return u16(4 + len(value)) + u16(kind) + value


def attribute__always_some_zeros(kind: int, value: bytes) -> bytes:
    """needs no zeros"""
    data = u16(4 + len(value)) + u16(kind) + value
    return data + bytes(4 - len(data) % 4)


def attribute__kind_first(kind: int, value: bytes) -> bytes:
    """the length comes first"""
    data = u16(kind) + u16(4 + len(value)) + value
    return data + bytes(-len(data) % 4)


def message__counts_the_body_only(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """the length is that of the whole message"""
    return u32(len(body)) + u16(kind) + u16(flags) + u32(sequence) + u32(0) + body


def message__forgets_the_port(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """the header has 16 bytes"""
    return u32(16 + len(body)) + u16(kind) + u16(flags) + u32(sequence) + body


def message__wide_flags(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """the header has 16 bytes"""
    return u32(16 + len(body)) + u16(kind) + u32(flags) + u32(sequence) + u32(0) + body


def message__flags_before_kind(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """come kind, then flags"""
    return u32(16 + len(body)) + u16(flags) + u16(kind) + u32(sequence) + u32(0) + body


def failure__keeps_the_sign(answer: bytes) -> int:
    """without the minus"""
    if int.from_bytes(answer[4:6], "little") != NLMSG_ERROR:
        return EPROTO
    return int.from_bytes(answer[16:20], "little", signed=True)


def failure__unsigned(answer: bytes) -> int:
    """are a signed number"""
    if int.from_bytes(answer[4:6], "little") != NLMSG_ERROR:
        return EPROTO
    return -int.from_bytes(answer[16:20], "little")


def failure__takes_any_answer(answer: bytes) -> int:
    """an answer of another kind"""
    return -int.from_bytes(answer[16:20], "little", signed=True)


def failure__an_error_is_an_error(answer: bytes) -> int:
    """0 is success"""
    return EPROTO


def enter__wrong_flag() -> None:
    """you are still in the machine's network namespace"""
    syscalls.unshare(0x04000000)


def enter__one_bit_too_many() -> None:
    """enter() made more than a network namespace"""
    syscalls.unshare(CLONE_NEWNET | 0x04000000)


def enter__in_a_child() -> None:
    """you are still in the machine's network namespace"""
    pid = os.fork()
    if not pid:
        syscalls.unshare(CLONE_NEWNET)
        os._exit(0)
    os.waitpid(pid, 0)


def enter__swallows_the_refusal() -> None:
    """enter() must raise OSError"""
    try:
        syscalls.unshare(CLONE_NEWNET)
    except OSError:
        pass


def configure__nothing_to_do() -> None:
    """the loopback is still off"""
    netlink.index_of("lo")


def configure__calls_the_command() -> None:
    """without any program's help"""
    os.system("ip link set lo up 2>/dev/null")


def configure__swallows_the_refusal() -> None:
    """configure() must raise OSError"""
    try:
        netlink.link_up(LOOPBACK)
    except OSError:
        pass


def plug__never_switches_on(name: str, address: str, gateway: str = "", hardware: bytes = b"") -> None:
    """is off"""
    index = netlink.index_of(name)
    host, _, length = address.partition("/")
    netlink.add_address(index, host, int(length))


def plug__route_too_early(name: str, address: str, gateway: str = "", hardware: bytes = b"") -> None:
    """the kernel takes a route only through an interface that is on"""
    index = netlink.index_of(name)
    if hardware:
        netlink.set_link(index, hardware=hardware)
    host, _, length = address.partition("/")
    netlink.add_address(index, host, int(length))
    if gateway:
        netlink.add_default_route(gateway, index)
    netlink.link_up(index)


def plug__one_address_alone(name: str, address: str, gateway: str = "", hardware: bytes = b"") -> None:
    """the length of the network is lost"""
    index = netlink.index_of(name)
    if hardware:
        netlink.set_link(index, hardware=hardware)
    netlink.add_address(index, address.partition("/")[0], 32)
    netlink.link_up(index)


def plug__hardware_forgotten(name: str, address: str, gateway: str = "", hardware: bytes = b"") -> None:
    """the hardware address is still the random one"""
    index = netlink.index_of(name)
    host, _, length = address.partition("/")
    netlink.add_address(index, host, int(length))
    netlink.link_up(index)
    if gateway:
        netlink.add_default_route(gateway, index)


def plug__always_a_route(name: str, address: str, gateway: str = "", hardware: bytes = b"") -> None:
    """without a gateway there is no route to set"""
    index = netlink.index_of(name)
    if hardware:
        netlink.set_link(index, hardware=hardware)
    host, _, length = address.partition("/")
    netlink.add_address(index, host, int(length))
    netlink.link_up(index)
    netlink.add_default_route(gateway, index)

"""The system call filter against libseccomp's: the same policy, compiled by both, decides the same for every call."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from minirt import capabilities
from minirt.seccomp import bpf, compiler, numbers, policy

ARCHITECTURES = {"x86_64": 0xC000003E, "i386": 0x40000003, "x32": 0x4000003E, "aarch64": 0xC00000B7, "arm": 0x40000028}
OPERATORS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
FAMILY = {"x86_64": ("x86_64", "i386", "x32"), "aarch64": ("aarch64", "arm")}
ENOSYS = bpf.ERRNO | 38
CAPABILITIES = [
    capabilities.DEFAULT, (), capabilities.NAMES, ("SYS_ADMIN",), (*capabilities.DEFAULT, "SYS_PTRACE", "SYS_TIME"),
]


class Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    name = ctypes.util.find_library("seccomp") or "libseccomp.so.2"
    found = ctypes.CDLL(name)
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = [ctypes.c_uint32]
    found.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    found.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    found.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Comparison)]
    found.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    found.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    found.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    found.seccomp_release.argtypes = [ctypes.c_void_p]
    return found


def theirs(library: ctypes.CDLL, profile: dict[str, Any], caps: Sequence[str], machine: str) -> bpf.Code:
    """The program that libseccomp makes of a policy, as runc would ask for it."""
    context = library.seccomp_init(compiler.action_of(profile["defaultAction"], profile.get("defaultErrnoRet")))
    for table in FAMILY[machine]:
        library.seccomp_arch_add(context, ARCHITECTURES[table])
    for table, number in ARCHITECTURES.items():
        if table not in FAMILY[machine]:
            library.seccomp_arch_remove(context, number)
    for rule in compiler.rules_for(profile, caps, machine, compiler.kernel_version()):
        action = compiler.action_of(rule["action"], rule.get("errnoRet"))
        conditions = rule.get("args") or ()
        array = (Comparison * max(len(conditions), 1))(*[
            Comparison(each["index"], OPERATORS[each["op"].removeprefix("SCMP_CMP_")], each["value"],
                       each.get("valueTwo") or 0) for each in conditions])
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number != -1:
                library.seccomp_rule_add_array(context, action, number, len(conditions), array)
    descriptor = os.memfd_create("bpf")
    assert library.seccomp_export_bpf(context, descriptor) == 0
    library.seccomp_release(context)
    raw = os.pread(descriptor, 1 << 20, 0)
    os.close(descriptor)
    return [(int.from_bytes(raw[at: at + 2], "little"), raw[at + 2], raw[at + 3],
             int.from_bytes(raw[at + 4: at + 8], "little")) for at in range(0, len(raw), 8)]


def run(code: bpf.Code, data: bytes) -> int:
    """Interpret a program that may use more of BPF than ours does."""
    accumulator = counter = 0
    while True:
        operation, yes, no, k = code[counter]
        counter += 1
        if operation == 0x20:
            accumulator = int.from_bytes(data[k: k + 4], "little")
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x05:
            counter += k
        elif operation == 0x06:
            return k
        else:
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k,
                     0x45: bool(accumulator & k)}[operation]
            counter += yes if holds else no


def call(table: str, number: int, *arguments: int) -> bytes:
    """A struct seccomp_data."""
    number |= numbers.X32_BIT if table == "x32" else 0
    audit = ARCHITECTURES["x86_64" if table == "x32" else table]
    words = [*arguments, *[0] * (6 - len(arguments))]
    return (number.to_bytes(4, "little") + audit.to_bytes(4, "little") + bytes(8)
            + b"".join(word.to_bytes(8, "little") for word in words))


def interesting(values: set[int]) -> Iterator[int]:
    """Values on both sides of each border, in both halves."""
    for value in sorted(values):
        for near in (value - 1, value, value + 1, value | 1 << 32, value | 1 << 63, value ^ 0xFFFFFFFF):
            if 0 <= near < 1 << 64:
                yield near


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("caps", CAPABILITIES, ids=["docker", "none", "all", "admin", "more"])
def test_the_builtin_policy_decides_as_libseccomp_does(
        library: ctypes.CDLL, caps: tuple[str, ...], machine: str) -> None:
    ours = compiler.program(policy.BUILTIN, caps, machine)
    other = theirs(library, policy.BUILTIN, caps, machine)
    wrong = []
    for table in FAMILY[machine]:
        names = {number: name for name, number in numbers.numbers(table).items()}
        known = {number: name for number, name in names.items()
                 if library.seccomp_syscall_resolve_name_arch(ARCHITECTURES[table], name.encode()) != -1}
        for number in range(600):
            if number in names and number not in known:
                continue  # newer than this libseccomp
            data = call(table, number)
            expected, decided = run(other, data), bpf.interpret(ours, data)
            if decided == ENOSYS and number > max(known):
                continue  # a call of the future: runc puts this answer before libseccomp's filter
            if decided != expected:
                wrong.append((table, names.get(number, number), hex(decided), hex(expected)))
        values = {0, 8, 39, 40, 41, 0x20000, 0x20008, 0xFFFFFFFF, 0x7E020000, 0x10000000, 0x02000000, 17, 0x1200011}
        wide = [value for value in interesting(values) if table in ("x86_64", "aarch64") or value < 1 << 32]
        for name in ("clone", "socket", "personality"):
            number = numbers.numbers(table)[name]
            for value in wide:
                data = call(table, number, value)
                if bpf.interpret(ours, data) != run(other, data):
                    wrong.append((table, name, hex(value), hex(bpf.interpret(ours, data)), hex(run(other, data))))
    assert not wrong


@pytest.mark.parametrize("operator", list(OPERATORS))
def test_every_operator_compares_as_libseccomp_does(library: ctypes.CDLL, operator: str) -> None:
    for value, second in ((0, 0), (5, 5), (1 << 32, 1 << 32), ((7 << 32) + 9, (3 << 32) + 1), (0xFFFFFFFF, 1)):
        conditions = [{"index": 2, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": second & value}]
        profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7, "args": conditions}]}
        ours = compiler.program(profile, (), "x86_64")
        other = theirs(library, profile, (), "x86_64")
        for argument in interesting({value, second, value & second, 0, 1 << 32}):
            data = call("x86_64", 0, 0, 0, argument)
            assert bpf.interpret(ours, data) == run(other, data), (operator, hex(value), hex(second), hex(argument))


def test_a_call_by_an_unknown_architecture_kills() -> None:
    ours = compiler.program(policy.BUILTIN, capabilities.DEFAULT, "x86_64")
    data = (39).to_bytes(4, "little") + (0x12345678).to_bytes(4, "little") + bytes(56)
    assert bpf.interpret(ours, data) == bpf.KILL_THREAD

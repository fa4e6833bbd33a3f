"""The system call filter against libseccomp's: the same policy, compiled by both, decides the same for every call."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from benchmarks import filters
from benchmarks.filters import ARCHITECTURES, FAMILY, OPERATORS, theirs
from minirt import capabilities
from minirt.seccomp import bpf, compiler, numbers, policy

ENOSYS = bpf.ERRNO | 38
CAPABILITIES = [
    capabilities.DEFAULT, (), capabilities.NAMES, ("SYS_ADMIN",), (*capabilities.DEFAULT, "SYS_PTRACE", "SYS_TIME"),
]


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return filters.library()


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

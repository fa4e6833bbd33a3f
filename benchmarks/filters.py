"""What a system call costs behind a filter: behind ours, behind libseccomp's of the same policy, and behind none.

Since Linux 5.11 the kernel works out which calls a filter allows whatever their arguments, and does not run it for
those. It runs for a call whose arguments count, and for one that is refused.

`theirs` is the other compiler, which runc uses; the tests compare its decisions with ours.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from minirt import capabilities
from minirt.kernel import syscalls
from minirt.seccomp import bpf, compiler, filter, policy

ARCHITECTURES = {"x86_64": 0xC000003E, "i386": 0x40000003, "x32": 0x4000003E, "aarch64": 0xC00000B7, "arm": 0x40000028}
OPERATORS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
OPERATORS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
FAMILY = {"x86_64": ("x86_64", "i386", "x32"), "aarch64": ("aarch64", "arm")}
SERIES, CALLS = 60, 5_000
KINDS = {"getppid (always allowed)": ("getppid", ()), "personality (by its argument)": ("personality", (0xFFFFFFFF,)),
         "add_key (refused)": ("add_key", (0, 0, 0, 0, 0))}


class Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def library() -> ctypes.CDLL:
    """libseccomp. Raises OSError where it is not installed."""
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


def nanoseconds(program: bpf.Code) -> list[float]:
    """What one call of each of KINDS takes in a process behind `program` (none when empty), at its quickest."""
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            if program:
                filter.install(bpf.assemble(program))
            os.write(into, " ".join(str(_series(name, words)) for name, words in KINDS.values()).encode())
        finally:
            os._exit(0)
    os.close(into)
    text = os.read(out, 1 << 12).decode()
    os.close(out)
    os.waitpid(pid, 0)
    return [float(word) for word in text.split()]


def _series(name: str, words: Sequence[int]) -> float:
    from minirt.seccomp import numbers

    number = ctypes.c_long(numbers.numbers(syscalls.ARCHITECTURE)[name])
    arguments = [ctypes.c_ulong(word) for word in words]
    call = ctypes.CDLL(None).syscall
    best = float("inf")
    for _ in range(SERIES):
        begin = time.perf_counter_ns()
        for _ in range(CALLS):
            call(number, *arguments)
        best = min(best, (time.perf_counter_ns() - begin) / CALLS)
    return best


def table() -> str:
    """A Markdown table: nanoseconds of one call, most of it Python's own, which is the same in every row."""
    machine = syscalls.ARCHITECTURE
    ours = compiler.program(policy.BUILTIN, capabilities.DEFAULT)
    makers: dict[str, Callable[[], bpf.Code]] = {
        "minirt": lambda: ours, "libseccomp": lambda: theirs(library(), policy.BUILTIN, capabilities.DEFAULT, machine)}
    lines = ["| filter | instructions | " + " | ".join(KINDS) + " |", "|---|---:|" + "---:|" * len(KINDS)]
    lines.append(_row("none", []))
    for name, make in makers.items():
        try:
            lines.append(_row(name, make()))
        except OSError as problem:
            lines.append(f"| {name} | - | {problem} |" + " - |" * (len(KINDS) - 1))
    return "\n".join(lines) + "\n"


def _row(name: str, code: bpf.Code) -> str:
    return f"| {name} | {len(code)} | " + " | ".join(f"{each:.0f}" for each in nanoseconds(code)) + " |"

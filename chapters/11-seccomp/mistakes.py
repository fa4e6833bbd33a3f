"""What is written instead, in chapter 11, and the message that must lead to each mistake."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Mapping
from typing import Any

from minirt.kernel import syscalls
from minirt.seccomp import bpf
from minirt.seccomp.bpf import EQUAL, JUMP, LONGEST, Code
from minirt.seccomp.compiler import GO_NAMES, Rule, _halve
from minirt.seccomp.filter import SECCOMP_FILTER_FLAG_SPEC_ALLOW, SECCOMP_SET_MODE_FILTER, _Program


def branch__jumps_exchanged(test: int, k: int, then: Code, otherwise: Code) -> Code:
    """for the number 5 the test holds"""
    if len(then) <= 255:
        return [(test, len(then), 0, k), *then, *otherwise]
    return [(test, 0, 1, k), (JUMP, 0, 0, len(then)), *then, *otherwise]


def branch__no_detour(test: int, k: int, then: Code, otherwise: Code) -> Code:
    """over a longer `then` go with JUMP"""
    return [(test, 0, len(then), k), *then, *otherwise]


def branch__one_too_far(test: int, k: int, then: Code, otherwise: Code) -> Code:
    """skip as many instructions as `then` has"""
    if len(then) <= 255:
        return [(test, 0, len(then) - 1, k), *then, *otherwise]
    return [(test, 1, 0, k), (JUMP, 0, 0, len(then)), *then, *otherwise]


def branch__behind_the_end(test: int, k: int, then: Code, otherwise: Code) -> Code:
    """leads behind the program's end"""
    if len(then) <= 255:
        return [(test, 0, len(then) + 1, k), *then, *otherwise]
    return [(test, 1, 0, k), (JUMP, 0, 0, len(then)), *then, *otherwise]


def branch__a_list_in_the_list(test: int, k: int, then: Code, otherwise: Code) -> Code:
    """put the instructions of a piece into the list"""
    return [(test, 0, len(then), k), then, otherwise]  # type: ignore[list-item]


def branch__always_a_detour(test: int, k: int, then: Code, otherwise: Code) -> Code:
    """255 instructions can be skipped at once"""
    return [(test, 1, 0, k), (JUMP, 0, 0, len(then)), *then, *otherwise]


def branch__one_more_than_fits(test: int, k: int, then: Code, otherwise: Code) -> Code:
    """255 is the greatest that does"""
    if len(then) <= 256:
        return [(test, 0, len(then), k), *then, *otherwise]
    return [(test, 1, 0, k), (JUMP, 0, 0, len(then)), *then, *otherwise]


def branch__always_equal(test: int, k: int, then: Code, otherwise: Code) -> Code:
    """the code of the comparison is `test`"""
    if len(then) <= 255:
        return [(EQUAL, 0, len(then), k), *then, *otherwise]
    return [(test, 1, 0, k), (JUMP, 0, 0, len(then)), *then, *otherwise]


def branch__in_the_piece_itself(test: int, k: int, then: Code, otherwise: Code) -> Code:
    """make a new list of them"""
    length = len(then)
    then.extend(otherwise)
    if length <= 255:
        return [(test, 0, length, k), *then]
    return [(test, 1, 0, k), (JUMP, 0, 0, length), *then]


def assemble__big_endian(code: Code) -> bytes:
    """all little-endian"""
    if len(code) > LONGEST:
        raise ValueError("too long")
    return b"".join(operation.to_bytes(2, "big") + bytes((yes, no)) + k.to_bytes(4, "big")
                    for operation, yes, no, k in code)


def assemble__jumps_exchanged(code: Code) -> bytes:
    """two bytes of code, one for each jump, four of k"""
    if len(code) > LONGEST:
        raise ValueError("too long")
    return b"".join(operation.to_bytes(2, "little") + bytes((no, yes)) + k.to_bytes(4, "little")
                    for operation, yes, no, k in code)


def assemble__no_limit(code: Code) -> bytes:
    """assemble() must raise ValueError for 4097"""
    return b"".join(operation.to_bytes(2, "little") + bytes((yes, no)) + k.to_bytes(4, "little")
                    for operation, yes, no, k in code)


def rules_for__any_capability(profile: Mapping[str, Any], capabilities: Collection[str], architecture: str,
                              kernel: tuple[int, int]) -> list[Rule]:
    """one of two included capabilities is not enough"""
    kept = []
    for rule in profile.get("syscalls") or ():
        include, exclude = rule.get("includes") or {}, rule.get("excludes") or {}
        caps = [name.removeprefix("CAP_") for name in include.get("caps") or ()]
        if caps and not any(name in capabilities for name in caps):
            continue
        if any(name.removeprefix("CAP_") in capabilities for name in exclude.get("caps") or ()):
            continue
        kept.append(rule)
    return kept


def rules_for__prefix_forgotten(profile: Mapping[str, Any], capabilities: Collection[str], architecture: str,
                                kernel: tuple[int, int]) -> list[Rule]:
    """their names come without CAP_"""
    return [rule for rule in profile.get("syscalls") or ()
            if all(name in capabilities for name in (rule.get("includes") or {}).get("caps") or ())]


def rules_for__null_is_no_dict(profile: Mapping[str, Any], capabilities: Collection[str], architecture: str,
                               kernel: tuple[int, int]) -> list[Rule]:
    """'NoneType' object"""
    return [rule for rule in profile.get("syscalls", ())
            if all(name.removeprefix("CAP_") in capabilities for name in rule.get("includes", {}).get("caps", ()))]


def rules_for__kernels_as_text(profile: Mapping[str, Any], capabilities: Collection[str], architecture: str,
                               kernel: tuple[int, int]) -> list[Rule]:
    """compare numbers, not text"""
    kept = []
    version = f"{kernel[0]}.{kernel[1]}"
    for rule in profile.get("syscalls") or ():
        include, exclude = rule.get("includes") or {}, rule.get("excludes") or {}
        if not all(name.removeprefix("CAP_") in capabilities for name in include.get("caps") or ()):
            continue
        if any(name.removeprefix("CAP_") in capabilities for name in exclude.get("caps") or ()):
            continue
        machine = GO_NAMES[architecture]
        if (include.get("arches") and machine not in include["arches"]) or machine in (exclude.get("arches") or ()):
            continue
        if include.get("minKernel") and version < include["minKernel"]:
            continue
        if exclude.get("minKernel") and version >= exclude["minKernel"]:
            continue
        kept.append(rule)
    return kept


def rules_for__null_kernel(profile: Mapping[str, Any], capabilities: Collection[str], architecture: str,
                           kernel: tuple[int, int]) -> list[Rule]:
    """is no condition then"""
    kept = []
    for rule in profile.get("syscalls") or ():
        include, exclude = rule.get("includes") or {}, rule.get("excludes") or {}
        if not all(name.removeprefix("CAP_") in capabilities for name in include.get("caps") or ()):
            continue
        if any(name.removeprefix("CAP_") in capabilities for name in exclude.get("caps") or ()):
            continue
        if "minKernel" in include and kernel < tuple(map(int, include["minKernel"].split("."))):
            continue
        kept.append(rule)
    return kept


def rules_for__break(profile: Mapping[str, Any], capabilities: Collection[str], architecture: str,
                     kernel: tuple[int, int]) -> list[Rule]:
    """go on with the next"""
    def at_least(version: str) -> bool:
        return kernel >= tuple(map(int, version.split(".")))

    kept = []
    machine = GO_NAMES[architecture]
    for rule in profile.get("syscalls") or ():
        include, exclude = rule.get("includes") or {}, rule.get("excludes") or {}
        if not all(name.removeprefix("CAP_") in capabilities for name in include.get("caps") or ()):
            break
        if any(name.removeprefix("CAP_") in capabilities for name in exclude.get("caps") or ()):
            break
        if (include.get("arches") and machine not in include["arches"]) or machine in (exclude.get("arches") or ()):
            break
        if include.get("minKernel") and not at_least(include["minKernel"]):
            break
        if exclude.get("minKernel") and at_least(exclude["minKernel"]):
            break
        kept.append(rule)
    return kept


def tree__a_list(found: Mapping[int, Code], default: Code, beyond: Code) -> Code:
    """ranges with the same piece are one"""
    code = bpf.branch(bpf.GREATER, max(found), beyond, default)
    for number, piece in found.items():
        code = bpf.branch(bpf.EQUAL, number, piece, code)
    return code


def tree__nothing_beyond(found: Mapping[int, Code], default: Code, beyond: Code) -> Code:
    """numbers above the highest one lead to `beyond`"""
    ranges: list[tuple[int, Code]] = [(0, default)]
    for number in sorted(found):
        if ranges[-1][0] == number:
            ranges.pop()
        ranges += [(number, found[number]), (number + 1, default)]
    merged: list[tuple[int, Code]] = []
    for first, piece in ranges:
        if not merged or merged[-1][1] is not piece:
            merged.append((first, piece))
    return _halve(merged)


def tree__gaps_forgotten(found: Mapping[int, Code], default: Code, beyond: Code) -> Code:
    """2 leads to the piece of 0, 1, 6 and 300, not to `default`"""
    ranges = [(number, found[number]) for number in sorted(found)]
    return _halve([*ranges, (max(found) + 1, beyond)])


def tree__not_sorted(found: Mapping[int, Code], default: Code, beyond: Code) -> Code:
    """sort them first"""
    ranges: list[tuple[int, Code]] = [(0, default)]
    for number, piece in found.items():
        if ranges[-1][0] == number:
            ranges.pop()
        if not ranges or ranges[-1][1] is not piece:
            ranges.append((number, piece))
        ranges.append((number + 1, default))
    return _halve([*ranges[:-1], (ranges[-1][0], beyond)])


def tree__one_after_the_other(found: Mapping[int, Code], default: Code, beyond: Code) -> Code:
    """a tree of halves"""
    last = code = found.get(0, default)
    for number in range(1, max(found) + 2):
        piece = beyond if number > max(found) else found.get(number, default)
        if piece is not last:
            code = bpf.branch(bpf.GREATER_OR_EQUAL, number, piece, code)
        last = piece
    return code


def install__length_in_bytes(assembled: bytes) -> None:
    """eight bytes each"""
    pointer = _Program(len(assembled), assembled)
    syscalls.call("seccomp", SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, ctypes.byref(pointer))


def install__the_structure_itself(assembled: bytes) -> None:
    """wants the address"""
    syscalls.call("seccomp", SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, assembled)


def install__one_instruction(assembled: bytes) -> None:
    """Invalid argument"""
    pointer = _Program(1, assembled)
    syscalls.call("seccomp", SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, ctypes.byref(pointer))


def install__strict_mode(assembled: bytes) -> None:
    """before its function returned"""
    syscalls.call("seccomp", 0, 0, None)


def install__swallows_the_refusal(assembled: bytes) -> None:
    """let the error out"""
    pointer = _Program(len(assembled) // 8, assembled)
    try:
        syscalls.call("seccomp", SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, ctypes.byref(pointer))
    except OSError:
        pass


def install__no_flag(assembled: bytes) -> None:
    """SECCOMP_FILTER_FLAG_SPEC_ALLOW, or every program"""
    pointer = _Program(len(assembled) // 8, assembled)
    syscalls.call("seccomp", SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(pointer))

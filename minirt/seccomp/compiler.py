"""Chapter 11: from a profile to a filter.

A profile (Docker's form, JSON) is a list of rules: names of system calls, an action, perhaps conditions on arguments,
perhaps conditions on the container ("includes", "excludes"). A filter has to decide by *numbers*, and the same name has
another number in each call table: on x86-64 a process may also call by the tables of i386 and x32, and a filter that
forgets those is no wall. So:

1. `rules_for` keeps the rules that hold for this container;
2. `cases` turns names into numbers, for one table: number -> what to do;
3. `tree` turns the cases into a search tree over the numbers (a list of 350 comparisons would be run at every call);
4. `program` puts a tree for each table behind a look at the architecture.

Sources: moby profiles/seccomp, OCI runtime-spec config-linux.md "Seccomp", seccomp(2).
"""

from __future__ import annotations

import os

from minirt.errors import BadInputError
from minirt.kernel import syscalls
from minirt.seccomp import bpf, numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import Any

    Rule = Mapping[str, Any]

ACTIONS = {
    "SCMP_ACT_ALLOW": bpf.ALLOW, "SCMP_ACT_ERRNO": bpf.ERRNO, "SCMP_ACT_KILL": bpf.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": bpf.KILL_THREAD, "SCMP_ACT_KILL_PROCESS": bpf.KILL_PROCESS, "SCMP_ACT_TRAP": bpf.TRAP,
    "SCMP_ACT_TRACE": bpf.TRACE, "SCMP_ACT_LOG": bpf.LOG,
}
OPERATORS = ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ")
# AUDIT_ARCH_* of <linux/audit.h>, by call table; x32 shares x86-64's and is told apart by a bit of the number.
AUDIT = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}
NAMES = {"SCMP_ARCH_X86_64": "x86_64", "SCMP_ARCH_X86": "i386", "SCMP_ARCH_X32": "x32", "SCMP_ARCH_AARCH64": "aarch64",
         "SCMP_ARCH_ARM": "arm"}
GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}  # as "arches" of a rule calls the machine
EPERM, ENOSYS = 1, 38


def rules_for(profile: Mapping[str, Any], capabilities: Collection[str], architecture: str,
              kernel: tuple[int, int]) -> list[Rule]:
    """The rules of `profile` that hold for a container with these `capabilities` (names without "CAP_"), on a machine
    of this `architecture` ("x86_64", "aarch64") with this `kernel` (major, minor).

    `profile["syscalls"]` is the list of all rules, each perhaps with "includes" and "excludes"; any of these three, and
    what is in them, may be missing or null. "includes" must all hold: every one of "caps" ("CAP_BPF") is there,
    "arches" lists the machine (by Go's name, `GO_NAMES`), the kernel is at least "minKernel" ("4.8"). None of
    "excludes" may hold: no one of "caps", not an arch of "arches", no kernel at or above "minKernel". A rule without
    either always holds. Sources: moby profiles/seccomp/seccomp_linux.go, capabilities(7).
    """
    def has(capability: str) -> bool:
        return capability.removeprefix("CAP_") in capabilities

    def at_least(version: str) -> bool:
        major, _, minor = version.partition(".")
        return kernel >= (int(major), int(minor))

    machine = GO_NAMES[architecture]
    kept = []
    for rule in profile.get("syscalls") or ():
        include, exclude = rule.get("includes") or {}, rule.get("excludes") or {}
        if not all(has(name) for name in include.get("caps") or ()) or any(has(n) for n in exclude.get("caps") or ()):
            continue
        if (include.get("arches") and machine not in include["arches"]) or machine in (exclude.get("arches") or ()):
            continue
        if include.get("minKernel") and not at_least(include["minKernel"]):
            continue
        if exclude.get("minKernel") and at_least(exclude["minKernel"]):
            continue
        kept.append(rule)
    return kept


def action_of(name: str, number: int | None) -> int:
    """What a filter returns for the action `name` of a profile; `number` is its errno (EPERM when not given).

    Raises BadInputError for an action that is unknown or cannot be done by a filter alone.
    """
    if name not in ACTIONS:
        raise BadInputError(f"seccomp profile: the action {name!r} is not supported")
    action = ACTIONS[name]
    if action in (bpf.ERRNO, bpf.TRACE):
        action |= (EPERM if number is None else number) & 0xFFFF
    return action


def cases(rules: Iterable[Rule], table: Mapping[str, int], default: int) -> dict[int, bpf.Code]:
    """What each system call number of one call table leads to: a piece of code that ends in a return.

    `table` is {name: number}; names that it does not have are passed over. Several rules for one name are tried in
    their order; a rule without conditions decides, whatever conditions other rules make, and what no rule takes gets
    `default`. Calls with equal pieces share one list.
    """
    outright: dict[int, int] = {}
    conditional: dict[int, list[tuple[int, Sequence[Mapping[str, Any]]]]] = {}
    for rule in rules:
        action = action_of(rule["action"], rule.get("errnoRet"))
        arguments = rule.get("args") or ()
        for name in rule["names"]:
            number = table.get(name)
            if number is None:
                continue
            if arguments:
                conditional.setdefault(number, []).append((action, arguments))
            else:
                outright.setdefault(number, action)
    leaves = {action: [bpf.give(action)] for action in {*outright.values(), default}}
    found = {number: leaves[action] for number, action in outright.items()}
    for number, alternatives in conditional.items():
        if number not in outright:
            code = [bpf.give(default)]
            for action, arguments in reversed(alternatives):
                code = when(arguments, action) + code
            found[number] = code
    return found


def when(arguments: Sequence[Mapping[str, Any]], action: int) -> bpf.Code:
    """A piece that returns `action` when every one of `arguments` holds, and else falls through.

    Each is {"index", "op": "SCMP_CMP_EQ", "value", "valueTwo"}. Built from the end: a condition that fails skips all
    that stands behind it. Raises BadInputError.
    """
    code = [bpf.give(action)]
    for condition in reversed(arguments):
        operator = condition["op"].removeprefix("SCMP_CMP_")
        if operator not in OPERATORS or not 0 <= condition["index"] < 6:
            raise BadInputError(f"seccomp profile: no such condition: {dict(condition)}")
        code = bpf.compare(condition["index"], operator, condition["value"], condition.get("valueTwo") or 0,
                           len(code)) + code
    return code


def tree(found: Mapping[int, bpf.Code], default: bpf.Code, beyond: bpf.Code) -> bpf.Code:
    """A search tree over system call numbers, as a program piece; the accumulator holds the number.

    `found` is {number: piece}; other numbers lead to `default`, those above the highest to `beyond`. First make
    ranges: (first number, piece), sorted, from 0 on, neighbours with the same piece (`is`) as one. Then `_halve` makes
    the tree of them: is the number at least the first one of the upper half? So some 80 ranges take seven comparisons.
    Source: seccomp(2).
    """
    ranges: list[tuple[int, bpf.Code]] = [(0, default)]
    for number in sorted(found):
        if ranges[-1][0] == number:
            ranges.pop()
        if not ranges or ranges[-1][1] is not found[number]:
            ranges.append((number, found[number]))
        ranges.append((number + 1, default))
    merged: list[tuple[int, bpf.Code]] = []
    for first, piece in [*ranges[:-1], (ranges[-1][0], beyond)]:
        if not merged or merged[-1][1] is not piece:
            merged.append((first, piece))
    return _halve(merged)


def _halve(ranges: list[tuple[int, bpf.Code]]) -> bpf.Code:
    """The tree over ranges that are sorted by their first number."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    return bpf.branch(bpf.GREATER_OR_EQUAL, ranges[middle][0], _halve(ranges[middle:]), _halve(ranges[:middle]))


def tables_of(profile: Mapping[str, Any], architecture: str) -> list[str]:
    """The call tables that a filter for this profile must know, the machine's own first: of "archMap" the entry for
    this machine, or all of "architectures" that it has, or its own alone. A call by any other table kills."""
    wanted = [architecture]
    for entry in profile.get("archMap") or ():
        if NAMES.get(entry["architecture"]) == architecture:
            wanted += [NAMES[name] for name in entry.get("subArchitectures") or () if name in NAMES]
    wanted += [NAMES[name] for name in profile.get("architectures") or () if name in NAMES]
    family = {"x86_64": ("x86_64", "i386", "x32"), "aarch64": ("aarch64", "arm")}[architecture]
    return [table for table in family if table in wanted]


def program(profile: Mapping[str, Any], capabilities: Collection[str],
            architecture: str = syscalls.ARCHITECTURE) -> bpf.Code:
    """The whole filter for a container with these capabilities (names without "CAP_") on this machine.

    It looks at the architecture of the call, then searches the number in the tree of that table; x32's calls are those
    of x86-64 whose number has bit 30. An architecture without a table kills. A number above all that the profile knows
    is answered with ENOSYS where unknown calls get an error anyway: programs then fall back to an older call, as runc
    lets them. Raises BadInputError.
    """
    default = action_of(profile["defaultAction"], profile.get("defaultErrnoRet"))
    rules = rules_for(profile, capabilities, architecture, kernel_version())
    trees = {}
    otherwise = [bpf.give(default)]
    beyond = [bpf.give(bpf.ERRNO | ENOSYS)] if default & 0xFFFF0000 == bpf.ERRNO else otherwise
    for name in tables_of(profile, architecture):
        table = numbers.numbers(name)
        found = cases(rules, table, default)
        # Pieces that only repeat the default must be the same list, or `tree` could not merge them.
        found = {number: otherwise if piece == otherwise else piece for number, piece in found.items()}
        trees[name] = tree(found, otherwise, beyond) if found else otherwise
    code = [bpf.give(bpf.KILL_THREAD)]
    for name in reversed([name for name in trees if name != "x32"]):
        own = trees[name]
        if name == "x86_64":
            x32 = [(bpf.AND, 0, 0, 0xFFFFFFFF & ~numbers.X32_BIT), *trees["x32"]] if "x32" in trees else code[-1:]
            own = bpf.branch(bpf.GREATER_OR_EQUAL, numbers.X32_BIT, x32, own)
        code = bpf.branch(bpf.EQUAL, AUDIT[name], [bpf.load(bpf.NUMBER), *own], code)
    return [bpf.load(bpf.ARCHITECTURE), *code]


def kernel_version() -> tuple[int, int]:
    """The running kernel's (major, minor). Source: uname(2)."""
    major, minor, *_ = os.uname().release.replace("-", ".").split(".")
    return int(major), int(minor)

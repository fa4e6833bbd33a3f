"""Chapter 08: the device list: which devices the processes of a group may open or make.

A device node is only a name for two numbers, and whoever may mknod(2) can make a name for any disk. So the kernel is
asked at each open and each mknod, and the answer comes from the process's group. Version 1 has a controller with a
list. In version 2 the answer is a *program*: it gets the kind of device, its numbers and what is wanted, and returns 1
or 0.

Rules of the room: a rule is an entry of "devices" of the OCI runtime specification: "allow"; "type" is "c", "b" or "a"
for both; "major", "minor", where -1 or nothing means any; "access", letters of r(ead), w(rite), m(knod). Of the rules
that fit the last one counts.

Manual pages: Linux Documentation/admin-guide/cgroup-v2.rst "Device controller", null(4), mknod(2), bpf(2).
"""

from __future__ import annotations

import os

from minirt import trace
from minirt.kernel import ebpf
from minirt.kernel.ebpf import instruction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CHAPTER = 8


def allowed(kind: str, major: int, minor: int, access: str = "rwm") -> dict[str, Any]:
    """A rule that allows."""
    return {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}


# Docker's and runc's list: nothing, but any node may be made (it is the opening that counts), and these be used.
DEFAULT = (
    {"allow": False, "access": "rwm"},
    allowed("c", -1, -1, "m"), allowed("b", -1, -1, "m"),
    allowed("c", 1, 3), allowed("c", 1, 5), allowed("c", 1, 7),      # null, zero, full
    allowed("c", 1, 8), allowed("c", 1, 9),                          # random, urandom
    allowed("c", 5, 0), allowed("c", 5, 1), allowed("c", 5, 2),      # tty, console, ptmx
    allowed("c", 136, -1),                                           # the terminals of /dev/pts
)

TYPES = {"b": 1, "c": 2}              # <linux/bpf.h>: BPF_DEVCG_DEV_BLOCK, _CHAR
ACCESS = {"m": 1, "r": 2, "w": 4}     # BPF_DEVCG_ACC_MKNOD, _READ, _WRITE

RESULT, CONTEXT, KIND, WANTED, MAJOR, MINOR, SCRATCH = range(7)      # the registers r0 to r6
# What the context in r1 holds (struct bpf_cgroup_dev_ctx): the wanted access in the upper and the kind in the lower 16
# bits of the first word, then the two numbers. Load each into the register that is named after it.
OPENING = (
    instruction(ebpf.LOAD, KIND, CONTEXT, 0),
    instruction(ebpf.MOVE_REGISTER, WANTED, KIND),
    instruction(ebpf.AND, KIND, constant=0xFFFF),
    instruction(ebpf.SHIFT_RIGHT, WANTED, constant=16),
    instruction(ebpf.LOAD, MAJOR, CONTEXT, 4),
    instruction(ebpf.LOAD, MINOR, CONTEXT, 8),
)


def program(rules: Sequence[dict[str, Any]]) -> bytes:
    """Assemble the program that decides as `rules` do.

    It begins with `OPENING`. The last rule that fits counts, so ask them *in reverse*: for each come the instructions
    that `conditions` makes of it, which jump behind the rule when it does not fit, and then what `answer` makes of its
    "allow", which ends the program. At the very end stands an answer for what no rule fits: not allowed. But a rule
    without conditions fits always: its answer is the end then, since the kernel refuses a program with a part that can
    never be reached. Return the instructions as one string of bytes. Source: bpf(2).
    """
    code = list(OPENING)
    for rule in reversed(rules):
        tests = conditions(rule)
        code += tests + answer(rule["allow"])
        if not tests:
            return b"".join(code)
    return b"".join(code + answer(False))


def answer(allow: bool) -> list[bytes]:
    """Two instructions: put the result into r0, and end."""
    return [instruction(ebpf.MOVE, RESULT, constant=int(allow)), instruction(ebpf.EXIT)]


def conditions(rule: dict[str, Any]) -> list[bytes]:
    """The instructions that go on only when `rule` fits, and else jump over its answer.

    A rule that allows fits when nothing is wanted beyond its access; one that denies, when anything of it is wanted.
    """
    mask = sum(ACCESS[letter] for letter in rule.get("access") or "rwm")
    code: list[bytes | tuple[int, int, int]] = []  # three numbers are a jump whose distance is not known yet
    if rule.get("type", "a") != "a":
        code.append((ebpf.UNLESS_EQUAL, KIND, TYPES[rule["type"]]))
    if mask != 7:
        code.append(instruction(ebpf.MOVE_REGISTER, SCRATCH, WANTED))
        code.append(instruction(ebpf.AND, SCRATCH, constant=~mask & 7 if rule["allow"] else mask))
        code.append((ebpf.UNLESS_EQUAL if rule["allow"] else ebpf.IF_EQUAL, SCRATCH, 0))
    for register, field in ((MAJOR, "major"), (MINOR, "minor")):
        if rule.get(field, -1) not in (-1, None):
            code.append((ebpf.UNLESS_EQUAL, register, rule[field]))
    behind = len(code) + len(answer(True))
    return [each if isinstance(each, bytes)
            else instruction(each[0], each[1], offset=behind - place - 1, constant=each[2])
            for place, each in enumerate(code)]


def merged(rules: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The same rules, but permissions for one device in one rule: who may read it by one and write it by another may
    open it for both. What a rule for everything decides makes all before it void."""
    if list(rules) == list(DEFAULT):
        return rules
    table: dict[tuple[Any, ...], dict[str, Any]] = {}
    for rule in rules:
        if rule.get("type", "a") == "a" and set(rule.get("access") or "rwm") == set("rwm"):
            table.clear()
        key = (rule["allow"], rule.get("type", "a"), rule.get("major", -1), rule.get("minor", -1))
        before = table.pop(key, {}).get("access", "")
        table[key] = {**rule, "access": before + (rule.get("access") or "rwm")}
    return [{**rule, "access": "".join(sorted(set(rule["access"])))} for rule in table.values()]


def everything(rules: Sequence[dict[str, Any]]) -> bool:
    """Whether `rules` (merged) allow every device, so that nothing is to be guarded."""
    return len(rules) == 1 and rules[0]["allow"] and rules[0].get("type", "a") == "a"


_ahead: list[int] = []  # the descriptor of the program for DEFAULT, where `load_ahead` has loaded it


def load_ahead() -> None:
    """Load the program for `DEFAULT` before there is a group, for whoever has time now; `guard` takes it then. What the
    kernel refuses is refused again later, and heard there."""
    try:
        _ahead.append(ebpf.load(program(DEFAULT)))
    except OSError:
        pass


@trace.narrated(CHAPTER, "allow it no devices but those of the list", "bpf(BPF_PROG_LOAD); bpf(BPF_PROG_ATTACH)")
def guard(group: int, rules: Sequence[dict[str, Any]]) -> None:
    """Attach a device program for `rules` to the cgroup v2 directory open as `group`. Raises OSError.

    The program for `DEFAULT` may wait in `_ahead` already: a start that has a moment to spare loads it early.
    """
    loaded = _ahead.pop() if _ahead and list(rules) == list(DEFAULT) else ebpf.load(program(rules))
    try:
        ebpf.attach(loaded, group)
    finally:
        os.close(loaded)


def do_without(spec: dict[str, Any]) -> None:
    """For a machine where no device list can be had: let the process of `spec` make no nodes, and make those that its
    image or a bind mount brings along useless."""
    granted = spec["process"].get("capabilities")
    if granted is not None:
        for kind, names in granted.items():
            granted[kind] = [name for name in names if name.removeprefix("CAP_") != "MKNOD"]
    spec["root"]["nodev"] = True
    for mount in spec["mounts"]:
        if mount["type"] == "bind":
            mount["options"] = [*mount.get("options", ()), "nodev"]

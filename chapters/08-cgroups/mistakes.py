"""What is written instead, in chapter 08, and the message that must lead to each mistake."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from minirt.cgroups.devices import OPENING, answer, conditions
from minirt.cgroups.v2 import FILES, _text, enable, io_settings, pairs, processes, weight, write
from minirt.kernel import syscalls
from minirt.namespaces.cgroup import CLONE_NEWCGROUP


def create__enables_the_last_one(top: str, name: str) -> str:
    """create() has called enable() for the last group as well"""
    path = top
    enable(path)
    for part in name.split("/"):
        path = f"{path}/{part}"
        os.makedirs(path, exist_ok=True)
        enable(path)
    return path


def create__hands_nothing_down(top: str, name: str) -> str:
    """every group above the last one must hand its controllers down"""
    os.makedirs(f"{top}/{name}", exist_ok=True)
    return f"{top}/{name}"


def create__enables_afterwards(top: str, name: str) -> str:
    """enable() comes before the next level is made"""
    path = top
    for part in name.split("/"):
        above, path = path, f"{path}/{part}"
        os.makedirs(path, exist_ok=True)
        enable(above)
    return path


def create__stumbles_over_the_parent(top: str, name: str) -> str:
    """the group above was there already"""
    path = top
    for part in name.split("/"):
        enable(path)
        path = f"{path}/{part}"
        os.mkdir(path)
    return path


def create__swallows_everything(top: str, name: str) -> str:
    """a container without its group would have no limit"""
    path = top
    for part in name.split("/"):
        enable(path)
        path = f"{path}/{part}"
        try:
            os.mkdir(path)
        except OSError:
            pass
    return path


def create__returns_nothing(top: str, name: str) -> str:
    """it returns the path of the group"""
    path = top
    for part in name.split("/"):
        enable(path)
        path = f"{path}/{part}"
        os.makedirs(path, exist_ok=True)
    return None  # type: ignore[return-value]


def settings__swap_in_all(resources: dict[str, Any]) -> list[tuple[str, str]]:
    """"swap" counts memory and swap together"""
    wanted = [(file, _text(resources[section][field])) for section, field, file in FILES
              if (resources.get(section) or {}).get(field)]
    swap = (resources.get("memory") or {}).get("swap")
    if swap:
        wanted.append(("memory.swap.max", _text(swap)))
    return wanted


def settings__minus_one(resources: dict[str, Any]) -> list[tuple[str, str]]:
    """-1 means no limit, and these files spell that max"""
    wanted = [(file, str(resources[section][field])) for section, field, file in FILES
              if (resources.get(section) or {}).get(field)]
    swap = (resources.get("memory") or {}).get("swap")
    if swap:
        wanted.append(("memory.swap.max", str(swap)))
    return wanted


def settings__writes_zero(resources: dict[str, Any]) -> list[tuple[str, str]]:
    """a field that is None or 0 asks for nothing"""
    wanted = []
    for section, field, file in FILES:
        fields = resources.get(section) or {}
        if field in fields:
            wanted.append((file, _text(fields[field])))
    return wanted


def settings__expects_every_section(resources: dict[str, Any]) -> list[tuple[str, str]]:
    """a section may be missing or None"""
    return [(file, _text(resources[section].get(field))) for section, field, file in FILES if section in resources
            and resources[section].get(field)]


def settings__no_swap_is_forgotten(resources: dict[str, Any]) -> list[tuple[str, str]]:
    """with as much in all as memory there is no swap: write 0"""
    wanted = [(file, _text(resources[section][field])) for section, field, file in FILES
              if (resources.get(section) or {}).get(field)]
    memory = resources.get("memory") or {}
    if memory.get("swap") == -1:
        wanted.append(("memory.swap.max", "max"))
    elif (memory.get("swap") or 0) > (memory.get("limit") or 0):
        wanted.append(("memory.swap.max", str(memory["swap"] - memory["limit"])))
    return wanted


def settings__quota_alone(resources: dict[str, Any]) -> list[tuple[str, str]]:
    """cpu.max takes "QUOTA PERIOD" in microseconds"""
    wanted = [(file, _text(resources[section][field])) for section, field, file in FILES
              if (resources.get(section) or {}).get(field)]
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    if memory.get("swap"):
        swap = memory["swap"]
        wanted.append(("memory.swap.max", "max" if swap == -1 else str(swap - memory.get("limit", 0))))
    if cpu.get("quota"):
        wanted.append(("cpu.max", str(cpu["quota"])))
    return wanted


def settings__shares_as_they_are(resources: dict[str, Any]) -> list[tuple[str, str]]:
    """shares go into cpu.weight, converted"""
    wanted = [(file, _text(resources[section][field])) for section, field, file in FILES
              if (resources.get(section) or {}).get(field)]
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    if memory.get("swap"):
        swap = memory["swap"]
        wanted.append(("memory.swap.max", "max" if swap == -1 else str(swap - memory.get("limit", 0))))
    if cpu.get("quota") or cpu.get("period"):
        wanted.append(("cpu.max", f"{_text(cpu.get('quota') or -1)} {cpu.get('period') or 100000}"))
    if cpu.get("shares"):
        wanted.append(("cpu.weight", str(cpu["shares"])))
    return wanted + io_settings(resources.get("blockIO") or {})


def settings__without_io(resources: dict[str, Any]) -> list[tuple[str, str]]:
    """add what io_settings() makes of blockIO"""
    wanted = [(file, _text(resources[section][field])) for section, field, file in FILES
              if (resources.get(section) or {}).get(field)]
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    if memory.get("swap"):
        swap = memory["swap"]
        wanted.append(("memory.swap.max", "max" if swap == -1 else str(swap - memory.get("limit", 0))))
    if cpu.get("quota") or cpu.get("period"):
        wanted.append(("cpu.max", f"{_text(cpu.get('quota') or -1)} {cpu.get('period') or 100000}"))
    if cpu.get("shares"):
        wanted.append(("cpu.weight", str(weight(cpu["shares"]))))
    return wanted


def kill__one_by_one(path: str) -> None:
    """the process in a group below was left"""
    for pid in processes(path):
        os.kill(pid, 9)


def kill__asks_nicely(path: str) -> None:
    """there is a process left in the group"""
    for pid in processes(path):
        os.kill(pid, 15)


def kill__freezes(path: str) -> None:
    """there is a process left in the group"""
    write(f"{path}/cgroup.freeze", "1")
    write(f"{path}/cgroup.freeze", "0")


def kill__stumbles_over_a_group_that_is_gone(path: str) -> None:
    """the group is gone, so nothing is to be done"""
    write(f"{path}/cgroup.kill", "1")


def kill__swallows_everything(path: str) -> None:
    """the kernel refused and kill() said nothing"""
    try:
        write(f"{path}/cgroup.kill", "1")
    except OSError:
        pass


def oom_kills__touches_of_the_limit(path: str) -> int:
    """touching the limit is no death, count oom_kill"""
    return pairs(f"{path}/memory.events").get("max", 0)


def oom_kills__all_attempts(path: str) -> int:
    """touching the limit is no death, count oom_kill"""
    return pairs(f"{path}/memory.events").get("oom", 0)


def oom_kills__expects_the_file(path: str) -> int:
    """a group without the memory controller has no memory.events"""
    with open(f"{path}/memory.events") as file:
        return int(next(line.split()[1] for line in file if line.startswith("oom_kill ")))


def oom_kills__the_whole_table(path: str) -> int:
    """it returns a number"""
    return pairs(f"{path}/memory.events")  # type: ignore[return-value]


def enter__wrong_bit() -> None:
    """you are in the old cgroup namespace"""
    syscalls.unshare(0x04000000)


def enter__one_bit_too_many() -> None:
    """enter() made more than a cgroup namespace"""
    syscalls.unshare(CLONE_NEWCGROUP | 0x00020000)


def enter__swallows_the_refusal() -> None:
    """enter() must raise OSError"""
    try:
        syscalls.unshare(CLONE_NEWCGROUP)
    except OSError:
        pass


def program__in_the_order_written(rules: Sequence[dict[str, Any]]) -> bytes:
    """the kernel refused the program"""
    code = list(OPENING)
    for rule in rules:
        code += conditions(rule) + answer(rule["allow"])
    return b"".join(code + answer(False))


def program__first_rule_counts(rules: Sequence[dict[str, Any]]) -> bytes:
    """ask the last one first"""
    code = list(OPENING)
    for rule in rules:
        tests = conditions(rule)
        if tests:
            code += tests + answer(rule["allow"])
    return b"".join(code + answer(False))


def program__never_ends(rules: Sequence[dict[str, Any]]) -> bytes:
    """the kernel refused the program"""
    code = list(OPENING)
    for rule in reversed(rules):
        tests = conditions(rule)
        if tests:
            code += tests + answer(rule["allow"])
    return b"".join(code)


def program__allows_the_rest(rules: Sequence[dict[str, Any]]) -> bytes:
    """what no rule fits is not allowed"""
    code = list(OPENING)
    for rule in reversed(rules):
        tests = conditions(rule)
        if tests:
            code += tests + answer(rule["allow"])
    return b"".join(code + answer(True))


def program__a_list(rules: Sequence[dict[str, Any]]) -> bytes:
    """join the instructions to bytes"""
    code = list(OPENING)
    for rule in reversed(rules):
        tests = conditions(rule)
        code += tests + answer(rule["allow"])
        if not tests:
            break
    return code  # type: ignore[return-value]


def program__without_the_opening(rules: Sequence[dict[str, Any]]) -> bytes:
    """the kernel refused the program"""
    code = []
    for rule in reversed(rules):
        tests = conditions(rule)
        code += tests + answer(rule["allow"])
        if not tests:
            return b"".join(code)
    return b"".join(code + answer(False))

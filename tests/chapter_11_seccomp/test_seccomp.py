"""Chapter 11: pieces of programs by what they decide, filters by what the kernel then refuses."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from minirt import capabilities
from minirt.errors import BadInputError
from minirt.seccomp import bpf, compiler, filter, numbers, policy, profile

ERROR, ALLOW = bpf.ERRNO | 7, bpf.ALLOW


def decide(code: bpf.Code, number: int = 0, *arguments: int, audit: int = 0xC000003E) -> int:
    """What a program decides; an interpreter apart from the one that is judged."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = number.to_bytes(4, "little") + audit.to_bytes(4, "little") + bytes(8)
    data += b"".join(word.to_bytes(8, "little") for word in words)
    for each in code:
        assert isinstance(each, tuple) and len(each) == 4, (
            f"a program is one list of instructions, tuples of four numbers, and {each!r} is none: put the "
            "instructions of a piece into the list (`*then`), not the piece")
    a = at = 0
    for _ in range(5000):
        assert at < len(code), "a jump leads behind the program's end: it counts the instructions that it skips"
        operation, yes, no, k = code[at]
        at += 1
        if operation == bpf.LOAD:
            a = int.from_bytes(data[k: k + 4], "little")
        elif operation == bpf.AND:
            a &= k
        elif operation == bpf.JUMP:
            at += k
        elif operation == bpf.RETURN:
            return k
        else:
            at += yes if {bpf.EQUAL: a == k, bpf.GREATER: a > k, bpf.GREATER_OR_EQUAL: a >= k}[operation] else no
    raise AssertionError("the program does not end")


def way(code: bpf.Code, number: int) -> list[tuple[int, int, int, int]]:
    """The instructions that a piece of tests, jumps and returns goes through with a number in the accumulator."""
    gone: list[tuple[int, int, int, int]] = []
    at = 0
    while not gone or gone[-1][0] != bpf.RETURN:
        gone.append(code[at])
        operation, yes, no, k = code[at]
        holds = {bpf.EQUAL: number == k, bpf.GREATER: number > k, bpf.GREATER_OR_EQUAL: number >= k}
        at += 1 + (k if operation == bpf.JUMP else yes if holds.get(operation) else no)
    return gone


def filtered(inside: Callable[..., Any], code: bpf.Code, then: Callable[[], Any]) -> Any:
    """Call a function in a child behind a filter."""
    assembled = b"".join(o.to_bytes(2, "little") + bytes((y, n)) + k.to_bytes(4, "little") for o, y, n, k in code)

    def child() -> Any:
        try:
            filter.install(assembled)
        except OSError as error:
            raise AssertionError(
                f"the kernel did not take the program ({error.strerror}): it wants the address (`ctypes.byref`) of a "
                "`_Program`, whose length is the number of instructions, eight bytes each") from None
        return then()

    return inside(child)


# -- pieces -------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("minirt.seccomp.bpf.branch")
def test_a_branch_goes_both_ways() -> None:
    piece = bpf.branch(bpf.EQUAL, 5, [bpf.give(ALLOW)], [bpf.give(ERROR)])
    code = [bpf.load(bpf.NUMBER), *piece]
    assert decide(code, 5) == ALLOW, "for the number 5 the test holds: go on with `then`, that is, skip nothing"
    assert decide(code, 6) == ERROR, "for the number 6 it does not hold: skip as many instructions as `then` has"
    otherwise = [bpf.load(bpf.NUMBER), bpf.give(ERROR)]
    longer = [bpf.load(bpf.NUMBER), *bpf.branch(bpf.EQUAL, 5, [bpf.give(ALLOW)], otherwise)]
    assert (decide(longer, 5), decide(longer, 6)) == (ALLOW, ERROR), (
        "with an `otherwise` of two instructions it goes wrong: what is skipped is `then`, whose length counts")


@pytest.mark.exercise("minirt.seccomp.bpf.branch")
@pytest.mark.parametrize("size", [1, 300])
def test_a_branch_makes_the_test_that_it_is_given(size: int) -> None:
    then = [*[bpf.load(bpf.NUMBER)] * (size - 1), bpf.give(ALLOW)]
    for test, name, holds in ((bpf.EQUAL, "EQUAL", [5]), (bpf.GREATER, "GREATER", [6]),
                              (bpf.GREATER_OR_EQUAL, "GREATER_OR_EQUAL", [5, 6])):
        code = [bpf.load(bpf.NUMBER), *bpf.branch(test, 5, then, [bpf.give(ERROR)])]
        found = [number for number in (4, 5, 6) if decide(code, number) == ALLOW]
        assert found == holds, (
            f"with the test {name} 5 and {size} instructions in `then` it holds for {found} of 4, 5 and 6, not for "
            f"{holds}: the code of the comparison is `test`")


@pytest.mark.exercise("minirt.seccomp.bpf.branch")
@pytest.mark.parametrize("size", [1, 300])
def test_a_branch_leaves_its_pieces_alone(size: int) -> None:
    then, otherwise = [*[bpf.load(bpf.NUMBER)] * (size - 1), bpf.give(ALLOW)], [bpf.give(ERROR)]
    before = [*then], [*otherwise]
    bpf.branch(bpf.EQUAL, 5, then, otherwise)
    assert (then, otherwise) == before, (
        "`then` or `otherwise` is another list afterwards: one piece stands at many places of a program, so make a new "
        "list of them")


@pytest.mark.exercise("minirt.seccomp.bpf.branch")
def test_a_branch_may_be_long() -> None:
    long = [*[bpf.load(bpf.NUMBER)] * 300, bpf.give(ALLOW)]
    piece = bpf.branch(bpf.GREATER_OR_EQUAL, 10, long, [bpf.give(ERROR)])
    assert all(0 <= no <= 255 and 0 <= yes <= 255 for _, yes, no, _ in piece), (
        "a conditional jump has eight bits: it skips at most 255 instructions; over a longer `then` go with JUMP"
    )
    code = [bpf.load(bpf.NUMBER), *piece]
    found = (decide(code, 9), decide(code, 10))
    assert found == (ERROR, ALLOW), "a long `then` is reached, or skipped, at a wrong place"


@pytest.mark.exercise("minirt.seccomp.bpf.branch")
def test_a_branch_of_255_needs_no_detour() -> None:
    long = [*[bpf.load(bpf.NUMBER)] * 254, bpf.give(ALLOW)]
    piece = bpf.branch(bpf.EQUAL, 1, long, [bpf.give(ERROR)])
    assert len(piece) == 1 + 255 + 1, "255 instructions can be skipped at once: the extra JUMP is for more than that"
    assert (decide([bpf.load(0), *piece], 1), decide([bpf.load(0), *piece], 2)) == (ALLOW, ERROR)
    piece = bpf.branch(bpf.EQUAL, 1, [bpf.load(bpf.NUMBER), *long], [bpf.give(ERROR)])
    assert all(yes <= 255 and no <= 255 for _, yes, no, _ in piece), (
        "256 instructions are skipped at once: that number does not fit into eight bits, 255 is the greatest that does")
    assert (decide([bpf.load(0), *piece], 1), decide([bpf.load(0), *piece], 2)) == (ALLOW, ERROR)


@pytest.mark.exercise("minirt.seccomp.bpf.assemble")
def test_an_instruction_is_eight_bytes() -> None:
    raw = bpf.assemble([(0x20, 0, 0, 4), (0x15, 1, 2, 0xC000003E), (0x06, 0, 0, 0x7FFF0000)])
    assert isinstance(raw, bytes), f"assemble() gives {type(raw).__name__}, which nobody can load: bytes are wanted"
    assert raw == bytes.fromhex("2000000004000000" "150001023e0000c0" "060000000000ff7f"), (
        f"assembled to {raw.hex(' ', 8)}: two bytes of code, one for each jump, four of k, all little-endian"
    )


@pytest.mark.exercise("minirt.seccomp.bpf.assemble")
def test_a_program_that_the_kernel_would_not_take_is_refused() -> None:
    try:
        assert len(bpf.assemble([bpf.give(ALLOW)] * 4096)) == 8 * 4096
    except ValueError:
        pytest.fail("4096 instructions are allowed, and were refused: only *more* than `LONGEST` is too long")
    try:
        bpf.assemble([bpf.give(ALLOW)] * 4097)
    except ValueError:
        return
    pytest.fail("the kernel takes no program of more than 4096 instructions: assemble() must raise ValueError for 4097")


def test_the_interpreter_does_what_the_kernel_does() -> None:
    data = (5).to_bytes(4, "little") + bytes(60)
    both = [bpf.load(bpf.NUMBER), (bpf.EQUAL, 1, 0, 5), bpf.give(1), bpf.give(2)]
    assert bpf.interpret(both, data) == 2, "the test holds: skip `jump if true` instructions, counted from the next one"
    assert bpf.interpret([bpf.load(0), (bpf.GREATER, 0, 1, 5), bpf.give(1), bpf.give(2)], data) == 2, "5 > 5 is false"
    assert bpf.interpret([bpf.load(0), (bpf.GREATER_OR_EQUAL, 1, 0, 5), bpf.give(1), bpf.give(2)], data) == 2, (
        "5 >= 5 is true")
    assert bpf.interpret([(bpf.JUMP, 0, 0, 1), bpf.give(1), bpf.give(2)], data) == 2, "JUMP skips k instructions"
    masked = [bpf.load(0), (bpf.AND, 0, 0, 4), (bpf.EQUAL, 1, 0, 4), bpf.give(1), bpf.give(2)]
    assert bpf.interpret(masked, data) == 2, (
        "AND keeps the bits of k in the accumulator")


def test_the_interpreter_reads_the_data_where_it_is_told() -> None:
    data = bytes(16) + (0x1122334455667788).to_bytes(8, "little") + bytes(40)
    for offset, word in ((16, 0x55667788), (20, 0x11223344)):
        code = [bpf.load(offset), (bpf.EQUAL, 1, 0, word), bpf.give(1), bpf.give(2)]
        assert bpf.interpret(code, data) == 2, f"LOAD takes the four bytes at offset k={offset}, little-endian"


@pytest.mark.parametrize("operator, holds", [
    ("EQ", [9]), ("NE", [0, 8, 10, 1 << 33, (1 << 32) + 9]), ("LT", [0, 8]), ("LE", [0, 8, 9]),
    ("GT", [10, 1 << 33, (1 << 32) + 9]), ("GE", [9, 10, 1 << 33, (1 << 32) + 9]),
])
def test_arguments_are_compared_with_both_halves(operator: str, holds: list[int]) -> None:
    code = [*compiler.when([{"index": 1, "op": f"SCMP_CMP_{operator}", "value": 9}], ALLOW), bpf.give(ERROR)]
    values = sorted((0, 8, 9, 10, 1 << 33, (1 << 32) + 9))
    assert [value for value in values if decide(code, 0, 77, value) == ALLOW] == sorted(holds)


# -- from a profile to a program ------------------------------------------------------------------------------------


def kept(rule: dict[str, Any], caps: tuple[str, ...] = (), machine: str = "x86_64",
         kernel: tuple[int, int] = (6, 1)) -> bool:
    rule = {"names": ["read"], "action": "SCMP_ACT_ALLOW", **rule}
    found = compiler.rules_for({"syscalls": [rule]}, caps, machine, kernel)
    assert found in ([], [rule]), (
        f"rules_for() returned {found}: return those rules of profile['syscalls'] that hold, as they are")
    return bool(found)


@pytest.mark.exercise("minirt.seccomp.compiler.rules_for")
def test_a_rule_without_conditions_holds() -> None:
    assert kept({}), "a rule without includes and excludes always holds"
    assert kept({"includes": None, "excludes": {}}), "includes and excludes may be null or empty: that is no condition"
    assert kept({"includes": {}, "excludes": None}), "includes and excludes may be null or empty: that is no condition"


@pytest.mark.exercise("minirt.seccomp.compiler.rules_for")
@pytest.mark.parametrize("part", ["includes", "excludes"])
@pytest.mark.parametrize("key", ["caps", "arches", "minKernel"])
def test_null_is_no_condition(part: str, key: str) -> None:
    try:
        holds = kept({part: {key: None}}, ("BPF",))
    except (TypeError, AttributeError) as error:
        pytest.fail(f'{{"{part}": {{"{key}": null}}}} was met with {type(error).__name__}: {error}; what is in '
                    f'"{part}" may be missing or null, and is no condition then')
    assert holds, f'{{"{part}": {{"{key}": null}}}} is no condition: such a rule holds'


@pytest.mark.exercise("minirt.seccomp.compiler.rules_for")
@pytest.mark.parametrize("nothing", [{}, {"syscalls": None}, {"syscalls": []}], ids=["missing", "null", "empty"])
def test_a_profile_may_have_no_rules(nothing: dict[str, Any]) -> None:
    try:
        found = compiler.rules_for(nothing, (), "x86_64", (6, 1))
    except (TypeError, KeyError) as error:
        pytest.fail(f"of the profile {nothing} it made {type(error).__name__}: {error}; \"syscalls\" may be missing or "
                    "null, and there are no rules then")
    assert found == [], f"the profile {nothing} has no rules, and rules_for() returned {found}: an empty list is wanted"


@pytest.mark.exercise("minirt.seccomp.compiler.rules_for")
def test_included_capabilities_must_all_be_there() -> None:
    both = {"includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}}
    assert kept(both, ("SYS_ADMIN", "BPF")), "both capabilities are there (their names come without CAP_)"
    assert not kept(both, ("SYS_ADMIN",)), "one of two included capabilities is not enough: all of them must be there"
    assert not kept({"excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}}, ("BPF",)), (
        "one excluded capability is enough to drop the rule")
    assert kept({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, ("BPF",))


@pytest.mark.exercise("minirt.seccomp.compiler.rules_for")
def test_the_machine_counts_by_gos_name() -> None:
    assert kept({"includes": {"arches": ["amd64", "x32"]}}), "x86-64 is called amd64 in a profile"
    assert not kept({"includes": {"arches": ["arm64"]}}), "a rule for arm64 does not hold on x86-64"
    assert kept({"includes": {"arches": ["arm64"]}}, machine="aarch64")
    assert not kept({"excludes": {"arches": ["amd64"]}}), "a rule that excludes this machine does not hold"


@pytest.mark.exercise("minirt.seccomp.compiler.rules_for")
def test_kernels_are_compared_as_numbers() -> None:
    rule = {"includes": {"minKernel": "4.8"}}
    assert kept(rule, kernel=(6, 1)) and kept(rule, kernel=(4, 8)), "minKernel is the first kernel for which it holds"
    assert kept(rule, kernel=(4, 19)), "4.19 is newer than 4.8: compare numbers, not text"
    assert kept(rule, kernel=(5, 0)), "5.0 is newer than 4.8: the minor number counts only where the major is the same"
    assert not kept(rule, kernel=(4, 7)), "4.7 is older than 4.8, and the rule holds from there on"
    without = {"excludes": {"minKernel": "5.0"}}
    assert not kept(without, kernel=(6, 1)) and not kept(without, kernel=(5, 0)), (
        "a rule that excludes kernels from 5.0 on does not hold on 6.1, and on 5.0 neither")
    assert kept(without, kernel=(4, 19)), "a rule that excludes kernels from 5.0 on holds on 4.19"


@pytest.mark.exercise("minirt.seccomp.compiler.rules_for")
@pytest.mark.parametrize("condition", [
    {"includes": {"caps": ["CAP_BPF"]}}, {"includes": {"arches": ["arm64"]}}, {"includes": {"minKernel": "7.0"}},
    {"excludes": {"caps": ["CAP_CHOWN"]}}, {"excludes": {"arches": ["amd64"]}}, {"excludes": {"minKernel": "4.0"}},
], ids=lambda condition: "-".join((*condition, *next(iter(condition.values())))))
def test_one_rule_says_nothing_of_the_others(condition: dict[str, Any]) -> None:
    first, third = ({"names": [name], "action": "SCMP_ACT_ALLOW"} for name in ("read", "write"))
    second = {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", **condition}
    found = compiler.rules_for({"syscalls": [first, second, third]}, ("CHOWN",), "x86_64", (6, 1))
    assert found == [first, third], (
        f"of three rules, for read, bpf and write, the second does not hold ({condition}); kept were "
        f"{[each['names'][0] for each in found]}: pass over that one alone, and go on with the next")


@pytest.mark.exercise("minirt.seccomp.compiler.tree")
def test_each_number_finds_its_piece() -> None:
    allow, other = [bpf.give(ALLOW)], [bpf.give(bpf.LOG)]
    found = {0: allow, 1: allow, 5: other, 6: allow, 300: allow}
    code = [bpf.load(bpf.NUMBER), *compiler.tree(found, [bpf.give(ERROR)], [bpf.give(bpf.TRAP)])]
    names = {ALLOW: "the piece of 0, 1, 6 and 300", bpf.LOG: "the piece of 5", ERROR: "`default`",
             bpf.TRAP: "`beyond`"}
    assert not any(each[0] == bpf.LOAD for each in code[1:]), (
        "the tree loads something: the accumulator holds the number already, perhaps without x32's bit")
    for number in range(301):
        expected, got = found.get(number, [bpf.give(ERROR)])[0][3], decide(code, number)
        assert got == expected, f"`found` has 0, 1, 5, 6, 300; {number} leads to {names[got]}, not to {names[expected]}"
    mixed = {number: found[number] for number in (6, 300, 0, 5, 1)}
    code = [bpf.load(bpf.NUMBER), *compiler.tree(mixed, [bpf.give(ERROR)], [bpf.give(bpf.TRAP)])]
    wrong = [number for number in range(301) if decide(code, number) != found.get(number, [bpf.give(ERROR)])[0][3]]
    assert not wrong, f"with the numbers in the order 6, 300, 0, 5, 1 it goes wrong for {wrong[:5]}: sort them first"


@pytest.mark.exercise("minirt.seccomp.compiler.tree")
def test_numbers_above_the_highest_are_of_the_future() -> None:
    code = [bpf.load(0), *compiler.tree({3: [bpf.give(ALLOW)]}, [bpf.give(ERROR)], [bpf.give(bpf.TRAP)])]
    assert decide(code, 4) == bpf.TRAP, "numbers above the highest one lead to `beyond`, not to `default`"
    assert decide(code, 2) == ERROR


@pytest.mark.exercise("minirt.seccomp.compiler.tree")
def test_neighbours_share_a_range() -> None:
    allow = [bpf.give(ALLOW)]
    code = compiler.tree(dict.fromkeys(range(100), allow), [bpf.give(ERROR)], [bpf.give(ERROR)])
    assert len(code) <= 4, (
        f"a hundred neighbours with the same piece made {len(code)} instructions: ranges with the same piece are one")
    default = [bpf.give(ERROR)]
    code = compiler.tree({3: default, 7: default, 8: allow, 9: default}, default, default)
    assert len(code) <= 5, (
        f"numbers whose piece is `default` itself made a tree of {len(code)} instructions: merge neighbours with the "
        "same piece also where that is `default`, or `beyond`")


@pytest.mark.exercise("minirt.seccomp.compiler.tree")
def test_a_search_halves_what_is_left() -> None:
    every_other = {number: [bpf.give(bpf.ERRNO | number)] for number in range(0, 200, 2)}
    code = compiler.tree(every_other, [bpf.give(ERROR)], [bpf.give(bpf.TRAP)])
    for number in range(0, 200, 2):
        steps = [each for each in way(code, number) if each[0] not in (bpf.JUMP, bpf.RETURN)]
        assert len(steps) <= 8, (
            f"{len(steps)} comparisons for number {number} among 200 ranges: a tree of halves (`_halve`) needs eight, "
            "and every system call has to wait for them")


def test_the_builtin_filter_takes_few_comparisons() -> None:
    code = compiler.program(policy.BUILTIN, capabilities.DEFAULT, "x86_64")
    assert len(code) < 1000
    assert decide(code, numbers.numbers("x86_64")["read"]) == ALLOW
    assert decide(code, numbers.numbers("x86_64")["reboot"]) == bpf.ERRNO | 1
    assert decide(code, 599) == bpf.ERRNO | 38


def test_other_call_tables_are_no_way_around() -> None:
    code = compiler.program(policy.BUILTIN, capabilities.DEFAULT, "x86_64")
    for table, audit in (("i386", compiler.AUDIT["i386"]), ("x32", compiler.AUDIT["x86_64"])):
        number = numbers.numbers(table)["unshare"] | (numbers.X32_BIT if table == "x32" else 0)
        assert decide(code, number, audit=audit) == bpf.ERRNO | 1
    alone = {"defaultAction": "SCMP_ACT_ALLOW"}
    assert decide(compiler.program(alone, (), "x86_64"), 0, audit=compiler.AUDIT["i386"]) == bpf.KILL_THREAD


# -- the kernel ----------------------------------------------------------------------------------------------------


def refusing(name: str, error: int) -> bpf.Code:
    """A program that refuses one call of this machine and allows all others."""
    number = numbers.numbers(os.uname().machine)[name]
    return [bpf.load(bpf.NUMBER), (bpf.EQUAL, 0, 1, number), bpf.give(bpf.ERRNO | error), bpf.give(bpf.ALLOW)]


@pytest.mark.exercise("minirt.seccomp.filter.install")
def test_a_filter_refuses_a_call(inside: Callable[..., Any]) -> None:
    def attempt() -> tuple[str, int, str]:
        with open("/proc/self/status") as file:
            mode = next(line.split()[1] for line in file if line.startswith("Seccomp:"))
        try:
            os.mkdir("/tmp/refused")
        except OSError as error:
            return mode, error.errno or 0, ""
        return mode, 0, ""

    name = "mkdir" if "mkdir" in numbers.numbers(os.uname().machine) else "mkdirat"
    mode, error, _ = filtered(inside, refusing(name, 77), attempt)
    assert mode == "2", f"/proc/self/status says Seccomp: {mode}: no filter is loaded; call seccomp(2) with the program"
    assert error == 77, f"mkdir ended with error {error}, not with the filter's 77: is the whole program loaded?"


@pytest.mark.exercise("minirt.seccomp.filter.install")
def test_an_ordinary_user_needs_no_new_privs_first(inside: Callable[..., Any]) -> None:
    def attempt(promise: bool) -> str:
        os.setresuid(65534, 65534, 65534)
        if promise:
            ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
        try:
            filter.install(bytes.fromhex("060000000000ff7f"))
        except OSError as error:
            return f"OSError {error.errno}"
        return "loaded"

    assert inside(attempt, False) == "OSError 13", "without no_new_privs the kernel refuses (EACCES): let the error out"
    assert inside(attempt, True) == "loaded"


@pytest.mark.exercise("minirt.seccomp.filter.install")
def test_it_is_one_call_with_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def only_noted(*arguments: Any) -> int:
        calls.append(arguments)
        return 0

    monkeypatch.setattr(filter.syscalls, "call", only_noted)
    filter.install(bytes.fromhex("060000000000ff7f"))
    made = [(name, *[each for each in rest if isinstance(each, int)]) for name, *rest in calls]
    assert made == [("seccomp", filter.SECCOMP_SET_MODE_FILTER, filter.SECCOMP_FILTER_FLAG_SPEC_ALLOW)], (
        f"the calls are {made}: one call of seccomp(2) is wanted, with SECCOMP_SET_MODE_FILTER, and with "
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW, or every program behind the filter would be slowed down")


@pytest.mark.exercise("minirt.seccomp.filter.install")
def test_a_filter_stays_for_all_that_come_after(inside: Callable[..., Any]) -> None:
    def attempt() -> int:
        return os.system("mkdir /tmp/refused-again 2>/dev/null")

    name = "mkdir" if "mkdir" in numbers.numbers(os.uname().machine) else "mkdirat"
    assert filtered(inside, refusing(name, 1), attempt) != 0, "a program started behind the filter is judged by it too"


def test_a_socket_of_the_hypervisors_is_refused(inside: Callable[..., Any]) -> None:
    def attempt() -> tuple[int, str]:
        socket.socket(socket.AF_UNIX).close()
        try:
            socket.socket(40, socket.SOCK_STREAM)
        except OSError as error:
            return error.errno or 0, ""
        return 0, ""

    assert filtered(inside, compiler.program(policy.BUILTIN, capabilities.DEFAULT), attempt)[0] == 1


@pytest.mark.parametrize("text, reason", [
    ("{", "decoding"), ("[]", "defaultAction"), ('{"defaultAction": "SCMP_ACT_NOTIFY"}', "not supported"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{}], "architectures": ["x"]}', "use one of them"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": '
     '[{"index": 9, "op": "SCMP_CMP_EQ", "value": 1}]}]}', "no such condition"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"]}]}', "malformed"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": ["read"]}', "no object"),
])
def test_a_bad_profile_gets_a_sentence(text: str, reason: str, tmp_path: Any) -> None:
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(BadInputError, match=reason):
        profile.read(str(tmp_path / "profile.json"))


def test_the_container_program_is_behind_the_filter(container: Callable[..., Any]) -> None:
    ran = container("/", "sh", "-c", "grep Seccomp: /proc/self/status; unshare --uts true && echo out")
    assert "Seccomp:\t2" in ran.stdout and "out" not in ran.stdout
    ran = container("--unconfined", "/", "sh", "-c", "grep Seccomp: /proc/self/status")
    assert "Seccomp:\t0" in ran.stdout, ran.stderr


def test_the_container_program_tells_what_it_cannot_run(container: Callable[..., Any]) -> None:
    ran = container("/", "no-such-command")
    assert (ran.status, ran.stderr) == (127, "container.py: no-such-command: not found\n")
    ran = container("/", "/etc/passwd")
    assert (ran.status, ran.stderr) == (126, "container.py: /etc/passwd: cannot be executed\n")

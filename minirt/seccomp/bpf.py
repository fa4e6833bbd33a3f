"""Chapter 11: the little machine that judges system calls, and its assembler.

A seccomp filter is a program of *classic BPF*, made in 1992 to pick packets. The machine has one accumulator, reads
32-bit words of a fixed piece of data, compares, jumps forward (never back: so it always ends), and returns a number. An
instruction is eight bytes:

    code (16 bits)   jump if true (8)   jump if false (8)   k (32)

The data is one `struct seccomp_data` for each system call: its number, the architecture of the call table, the address
it was made from, and six arguments of 64 bits, of which the program can only see one half at a time.

Rules of the room: pieces of programs are lists of instructions, each a tuple (code, jt, jf, k); jumps count the
instructions they skip. Every piece ends in a return or falls through to what is put behind it.

Sources: seccomp(2), <linux/seccomp.h>, <linux/filter.h>, Linux Documentation/networking/filter.rst.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Instruction = tuple[int, int, int, int]
    Code = list[Instruction]

# <linux/bpf_common.h>: what an instruction does
LOAD, AND, RETURN, JUMP = 0x20, 0x54, 0x06, 0x05  # BPF_LD|W|ABS, BPF_ALU|AND|K, BPF_RET|K, BPF_JMP|JA
EQUAL, GREATER, GREATER_OR_EQUAL = 0x15, 0x25, 0x35  # BPF_JMP|JEQ|K, JGT, JGE

# struct seccomp_data of <linux/seccomp.h>: where its parts begin
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
LONGEST = 4096  # instructions; BPF_MAXINSNS

# What a filter returns: the upper half is the action, the lower half its number (<linux/seccomp.h>)
KILL_PROCESS, KILL_THREAD, TRAP, ERRNO = 0x80000000, 0x00000000, 0x00030000, 0x00050000
TRACE, LOG, ALLOW = 0x7FF00000, 0x7FFC0000, 0x7FFF0000


def load(offset: int) -> Instruction:
    """Load the word at `offset` of the data into the accumulator."""
    return (LOAD, 0, 0, offset)


def give(action: int) -> Instruction:
    """End the program: the call gets `action`."""
    return (RETURN, 0, 0, action)


def branch(test: int, k: int, then: Code, otherwise: Code) -> Code:
    """A piece that compares the accumulator with `k` (`test` is EQUAL, GREATER, ...) and goes on with `then` where that
    holds, with `otherwise` where not; `then` must end in a return.

    A piece is one list of instructions (code, jump if true, jump if false, k); a jump is the number of instructions to
    skip, 0 goes on with the next one. A conditional jump skips at most 255 instructions. Where `then` is longer, jump
    over an unconditional jump (JUMP, whose distance is `k`, 32 bits) instead. Sources: filter.rst, seccomp(2).
    """
    if len(then) <= 255:
        return [(test, 0, len(then), k), *then, *otherwise]
    return [(test, 1, 0, k), (JUMP, 0, 0, len(then)), *then, *otherwise]


def low(argument: int) -> Instruction:
    """Load the low half of argument number `argument` (0 to 5). Both supported architectures are little-endian."""
    return load(ARGUMENTS + 8 * argument)


def high(argument: int) -> Instruction:
    """Load the high half of an argument."""
    return load(ARGUMENTS + 8 * argument + 4)


def compare(argument: int, operator: str, value: int, second: int, fail: int) -> Code:
    """A piece that falls through when an argument of a call satisfies a condition, and else skips `fail` instructions
    behind its own end.

    `operator` is "EQ", "NE", "LT", "LE", "GT", "GE" (all unsigned, 64 bits) or "MASKED_EQ": argument & `value` ==
    `second`. The machine compares 32 bits: high halves first, low halves where those are equal. Source: seccomp(2).
    """
    top, bottom = value >> 32, value & 0xFFFFFFFF
    if operator == "MASKED_EQ":
        return [high(argument), (AND, 0, 0, top), (EQUAL, 0, 3 + fail, second >> 32),
                low(argument), (AND, 0, 0, bottom), (EQUAL, 0, fail, second & 0xFFFFFFFF)]
    if operator == "EQ":
        return [high(argument), (EQUAL, 0, 2 + fail, top), low(argument), (EQUAL, 0, fail, bottom)]
    if operator == "NE":
        return [high(argument), (EQUAL, 0, 2, top), low(argument), (EQUAL, fail, 0, bottom)]
    test = GREATER if operator in ("GT", "LE") else GREATER_OR_EQUAL
    if operator in ("GT", "GE"):
        return [high(argument), (GREATER, 3, 0, top), (EQUAL, 0, 2 + fail, top), low(argument), (test, 0, fail, bottom)]
    return [high(argument), (GREATER, 3 + fail, 0, top), (EQUAL, 0, 2, top), low(argument), (test, fail, 0, bottom)]


def assemble(code: Code) -> bytes:
    """The program as the kernel takes it: eight bytes for each instruction, little-endian: code (2 bytes), jump if true
    (1), jump if false (1), k (4). Raises ValueError when it has more than `LONGEST`. Sources: struct sock_filter,
    seccomp(2)."""
    if len(code) > LONGEST:
        raise ValueError(f"a filter of {len(code)} instructions: the kernel takes {LONGEST}")
    return b"".join(operation.to_bytes(2, "little") + bytes((yes, no)) + (k & 0xFFFFFFFF).to_bytes(4, "little")
                    for operation, yes, no, k in code)


def interpret(code: Sequence[Instruction], data: bytes) -> int:
    """Run a program on one `struct seccomp_data` (64 bytes) as the kernel would, and return what it returns.

    Each step: take the instruction at the counter and go one further; LOAD reads four bytes, little-endian, into the
    accumulator; AND keeps the bits of `k`; a test skips its first or second number of instructions; JUMP skips `k`;
    RETURN ends. Raises IndexError when the program runs over its end. Source: filter.rst.
    """
    accumulator = counter = 0
    while True:
        operation, yes, no, k = code[counter]
        counter += 1
        if operation == LOAD:
            accumulator = int.from_bytes(data[k: k + 4], "little")
        elif operation == AND:
            accumulator &= k
        elif operation == JUMP:
            counter += k
        elif operation == RETURN:
            return k
        else:
            holds = {EQUAL: accumulator == k, GREATER: accumulator > k, GREATER_OR_EQUAL: accumulator >= k}[operation]
            counter += yes if holds else no

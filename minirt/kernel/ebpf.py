"""Chapter 08: programs for the kernel's own virtual machine, as far as a device list needs them.

A BPF program is an array of instructions of eight bytes. The kernel *verifies* it when it is loaded (every path ends,
nothing is read that may not be), compiles it, and runs it whenever something happens at the place where it is attached.
There are eleven registers: r0 is the result, r1 holds at the start the address of what is to be judged.

    byte 0     what to do                  <linux/bpf.h>, <linux/bpf_common.h>
    byte 1     destination register in the lower four bits, source register in the upper
    byte 2, 3  offset: how many instructions to jump, or where to read, signed
    byte 4-7   a constant, signed

Manual pages: bpf(2), Linux Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import ctypes

from minirt.kernel import syscalls

# The instructions that are used here: class | operation | where the operand comes from.
LOAD = 0x61             # BPF_LDX | BPF_MEM | BPF_W: dst = 32 bits at (src + offset)
MOVE = 0xb7             # BPF_ALU64 | BPF_MOV | BPF_K: dst = constant
MOVE_REGISTER = 0xbf    # BPF_ALU64 | BPF_MOV | BPF_X: dst = src
AND = 0x57              # BPF_ALU64 | BPF_AND | BPF_K: dst &= constant
SHIFT_RIGHT = 0x77      # BPF_ALU64 | BPF_RSH | BPF_K: dst >>= constant
IF_EQUAL = 0x15         # BPF_JMP | BPF_JEQ | BPF_K: jump when dst == constant
UNLESS_EQUAL = 0x55     # BPF_JMP | BPF_JNE | BPF_K: jump when dst != constant
EXIT = 0x95             # BPF_JMP | BPF_EXIT: return r0

PROG_LOAD, PROG_ATTACH = 5, 8         # <linux/bpf.h>: enum bpf_cmd
CGROUP_DEVICE = 15                    # enum bpf_prog_type
ATTACH_CGROUP_DEVICE = 6              # enum bpf_attach_type
ALLOW_MULTI = 2                       # BPF_F_ALLOW_MULTI: beside programs of the groups above, all must agree


def instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    """One instruction: its parts put side by side into a number of 64 bits, the lowest byte first."""
    word = code | (dst | src << 4) << 8 | (offset & 0xFFFF) << 16 | (constant & 0xFFFFFFFF) << 32
    return word.to_bytes(8, "little")


def load(program: bytes, kind: int = CGROUP_DEVICE) -> int:
    """Have the kernel verify and compile `program`; return a descriptor of it.

    bpf(2) takes a command, the address of a structure and its size; of this command's structure the first fields are
    enough: type, number of instructions, their address, the license. Raises OSError: EPERM without CAP_BPF, EINVAL or
    EACCES when the verifier refuses. Source: bpf(2).
    """
    code = ctypes.create_string_buffer(program, len(program))
    words = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = kind.to_bytes(4, "little") + (len(program) // 8).to_bytes(4, "little") + b"".join(
        ctypes.addressof(buffer).to_bytes(8, "little") for buffer in (code, words)) + bytes(24)
    return syscalls.call("bpf", PROG_LOAD, attributes, len(attributes))


def attach(program: int, group: int, kind: int = ATTACH_CGROUP_DEVICE) -> None:
    """Attach the loaded `program` to the cgroup v2 directory open as `group`; the kernel keeps it while the group
    lives. Raises OSError. Source: bpf(2)."""
    attributes = b"".join(number.to_bytes(4, "little") for number in (group, program, kind, ALLOW_MULTI))
    syscalls.call("bpf", PROG_ATTACH, attributes, len(attributes))

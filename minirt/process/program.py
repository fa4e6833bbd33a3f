"""Chapter 12: the last exec: a program of some 200 bytes.

/proc/self/exe of a process is the file of the program that it runs. If the last exec of a container went straight from
Python to the image's command, an image whose command is `#!/proc/self/exe` would be run by *the machine's Python*, and
what runs as root in the container could then overwrite it through /proc/PID/exe. So Python first becomes a tiny program
in a sealed memfd, a file that exists in memory only and that nobody can change, and this becomes the command.

It does four things: mark descriptor 3 close-on-exec (or end, when there is none), `execve(argv[0], argv + 1, envp)`,
and when that fails write the negative error number (four bytes) to descriptor 3 and exit with 127. Whoever reads the
other end of descriptor 3 gets four bytes, or the end of the file: that is the proof that the exec happened.

To *join* a running container (`exec`) there is one thing more. A process cannot change its pid namespace; only its
children can be in another one. So the joining process becomes a program that forks first: the parent half writes the
child's pid (four bytes, positive) to descriptor 3 and ends, the child half starts a session of its own, takes the
terminal at descriptor 0 if there is one, and goes on as above. CLONE_PARENT makes the child a sibling of the joining
process instead of its child, so that whoever forked that one can wait for it. So no process that runs Python is ever
visible inside.

Manual pages: memfd_create(2), execve(2), clone(2), elf(5), fcntl(2) "F_ADD_SEALS".
"""

from __future__ import annotations

import fcntl
import os

from minirt import trace
from minirt.kernel.syscalls import ARCHITECTURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CHAPTER = 12

REPORT = 3  # the descriptor on which the program reports a failed exec

# First of all: run by anything but minirt it finds no report to write to, and ends. An image's `#!/proc/self/exe` would
# otherwise run it over and over, and the one that forks would leave a child each time.
_CHECK_X86_64 = (
    ("bf 03 00 00 00", "mov edi, 3            ; the report"),
    ("be 02 00 00 00", "mov esi, 2            ; F_SETFD"),
    ("ba 01 00 00 00", "mov edx, 1            ; FD_CLOEXEC"),
    ("b8 48 00 00 00", "mov eax, 72           ; fcntl"),
    ("0f 05", "syscall"),
    ("85 c0", "test eax, eax         ; -EBADF: there is none"),
    ("79 0c", "jns .+14              ; past the exit"),
    ("bf 7f 00 00 00", "mov edi, 127"),
    ("b8 e7 00 00 00", "mov eax, 231          ; exit_group"),
    ("0f 05", "syscall"),
)
_CHECK_AARCH64 = (
    ("60 00 80 d2", "mov x0, #3            ; the report"),
    ("41 00 80 d2", "mov x1, #2            ; F_SETFD"),
    ("22 00 80 d2", "mov x2, #1            ; FD_CLOEXEC"),
    ("28 03 80 d2", "mov x8, #25           ; fcntl"),
    ("01 00 00 d4", "svc #0"),
    ("80 00 f8 b6", "tbz x0, #63, .+16     ; past the exit; -EBADF: there is none"),
    ("e0 0f 80 d2", "mov x0, #127"),
    ("c8 0b 80 d2", "mov x8, #94           ; exit_group"),
    ("01 00 00 d4", "svc #0"),
)
# At the start the stack holds argc, argv[0], argv[1], ..., 0, envp[0], ..., 0: eight bytes each.
_EXEC_X86_64 = (
    ("48 8b 04 24", "mov rax, [rsp]        ; argc"),
    ("48 8b 7c 24 08", "mov rdi, [rsp+8]      ; path = argv[0]"),
    ("48 8d 74 24 10", "lea rsi, [rsp+16]     ; argv + 1"),
    ("48 8d 54 c4 10", "lea rdx, [rsp+rax*8+16] ; envp"),
    ("b8 3b 00 00 00", "mov eax, 59           ; execve"),
    ("0f 05", "syscall               ; comes back only on failure, with -errno in rax"),
    ("50", "push rax"),
    ("bf 03 00 00 00", "mov edi, 3"),
    ("48 89 e6", "mov rsi, rsp"),
    ("ba 04 00 00 00", "mov edx, 4"),
    ("b8 01 00 00 00", "mov eax, 1            ; write"),
    ("0f 05", "syscall"),
    ("bf 7f 00 00 00", "mov edi, 127"),
    ("b8 e7 00 00 00", "mov eax, 231          ; exit_group"),
    ("0f 05", "syscall"),
)
_EXEC_AARCH64 = (
    ("e0 07 40 f9", "ldr x0, [sp, #8]      ; path = argv[0]"),
    ("e1 43 00 91", "add x1, sp, #16       ; argv + 1"),
    ("e3 03 40 f9", "ldr x3, [sp]          ; argc"),
    ("22 0c 03 8b", "add x2, x1, x3, lsl #3 ; envp"),
    ("a8 1b 80 d2", "mov x8, #221          ; execve"),
    ("01 00 00 d4", "svc #0                ; comes back only on failure, with -errno in x0"),
    ("e0 0f 1f b8", "str w0, [sp, #-16]!"),
    ("60 00 80 d2", "mov x0, #3"),
    ("e1 03 00 91", "mov x1, sp"),
    ("82 00 80 d2", "mov x2, #4"),
    ("08 08 80 d2", "mov x8, #64           ; write"),
    ("01 00 00 d4", "svc #0"),
    ("e0 0f 80 d2", "mov x0, #127"),
    ("c8 0b 80 d2", "mov x8, #94           ; exit_group"),
    ("01 00 00 d4", "svc #0"),
)
_FORK_X86_64 = (
    ("bf 11 80 00 00", "mov edi, 0x8011       ; CLONE_PARENT | SIGCHLD"),
    ("31 f6", "xor esi, esi          ; the same stack, copied"),
    ("31 d2", "xor edx, edx"),
    ("45 31 d2", "xor r10d, r10d"),
    ("45 31 c0", "xor r8d, r8d"),
    ("b8 38 00 00 00", "mov eax, 56           ; clone"),
    ("0f 05", "syscall"),
    ("85 c0", "test eax, eax         ; 0 in the child"),
    ("74 1e", "jz .+32               ; to setsid below"),
    ("50", "push rax              ; in the parent: the child's pid, or -errno"),
    ("bf 03 00 00 00", "mov edi, 3"),
    ("48 89 e6", "mov rsi, rsp"),
    ("ba 04 00 00 00", "mov edx, 4"),
    ("b8 01 00 00 00", "mov eax, 1            ; write"),
    ("0f 05", "syscall"),
    ("31 ff", "xor edi, edi"),
    ("b8 e7 00 00 00", "mov eax, 231          ; exit_group"),
    ("0f 05", "syscall"),
    ("b8 70 00 00 00", "mov eax, 112          ; in the child: setsid"),
    ("0f 05", "syscall"),
    ("31 ff", "xor edi, edi"),
    ("be 0e 54 00 00", "mov esi, 0x540e       ; TIOCSCTTY: refused, and no harm done, when 0 is no terminal"),
    ("31 d2", "xor edx, edx"),
    ("b8 10 00 00 00", "mov eax, 16           ; ioctl"),
    ("0f 05", "syscall"),
)
_FORK_AARCH64 = (
    ("20 02 90 d2", "mov x0, #0x8011       ; CLONE_PARENT | SIGCHLD"),
    ("01 00 80 d2", "mov x1, #0            ; the same stack, copied"),
    ("02 00 80 d2", "mov x2, #0"),
    ("03 00 80 d2", "mov x3, #0"),
    ("04 00 80 d2", "mov x4, #0"),
    ("88 1b 80 d2", "mov x8, #220          ; clone"),
    ("01 00 00 d4", "svc #0"),
    ("40 01 00 b4", "cbz x0, .+40          ; 0 in the child: to setsid below"),
    ("e0 0f 1f b8", "str w0, [sp, #-16]!   ; in the parent: the child's pid, or -errno"),
    ("60 00 80 d2", "mov x0, #3"),
    ("e1 03 00 91", "mov x1, sp"),
    ("82 00 80 d2", "mov x2, #4"),
    ("08 08 80 d2", "mov x8, #64           ; write"),
    ("01 00 00 d4", "svc #0"),
    ("00 00 80 d2", "mov x0, #0"),
    ("c8 0b 80 d2", "mov x8, #94           ; exit_group"),
    ("01 00 00 d4", "svc #0"),
    ("a8 13 80 d2", "mov x8, #157          ; in the child: setsid"),
    ("01 00 00 d4", "svc #0"),
    ("00 00 80 d2", "mov x0, #0"),
    ("c1 81 8a d2", "mov x1, #0x540e       ; TIOCSCTTY: refused, and no harm done, when 0 is no terminal"),
    ("02 00 80 d2", "mov x2, #0"),
    ("a8 03 80 d2", "mov x8, #29           ; ioctl"),
    ("01 00 00 d4", "svc #0"),
)
LAST, JOIN, INIT = "", "join", "init"  # JOIN + INIT is both, in this order
CODE = {
    "x86_64": (_CHECK_X86_64, _FORK_X86_64, _EXEC_X86_64),
    "aarch64": (_CHECK_AARCH64, _FORK_AARCH64, _EXEC_AARCH64),
}
MACHINE = {"x86_64": 62, "aarch64": 183}  # <elf.h>: EM_X86_64, EM_AARCH64

BASE = 0x400000   # where the program is put in memory
HEADERS = 64 + 56  # bytes of an ELF header and one program header


def image(which: str = LAST, architecture: str = ARCHITECTURE) -> bytes:
    """One of the programs as an ELF file: an ELF header, one program header that loads it all, the code.

    Raises KeyError for an architecture without code here. Source: elf(5).
    """
    code = b"".join(bytes.fromhex(instruction) for instruction, _ in code_of(which, architecture))
    size = HEADERS + len(code)
    return (b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)               # 64 bits, little-endian, version 1
            + _numbers((2, 2), (MACHINE[architecture], 2), (1, 4), (BASE + HEADERS, 8), (64, 8), (0, 8), (0, 4),
                       (64, 2), (56, 2), (1, 2), (0, 2), (0, 2), (0, 2))
            # PT_LOAD, readable and executable: all of the file at BASE
            + _numbers((1, 4), (5, 4), (0, 8), (BASE, 8), (BASE, 8), (size, 8), (size, 8), (0x1000, 8))
            + code)


def code_of(which: str, architecture: str) -> Sequence[tuple[str, str]]:
    """The instructions of a program, each in bytes and in words: the check, what is put between, the exec."""
    check, fork, last = CODE[architecture]
    between = fork * (JOIN in which)
    if INIT in which:
        from minirt.process import init  # few have one: the others shall not pay for its table

        between += init.CODE[architecture]
    return [*check, *between, *last]


def _numbers(*pairs: tuple[int, int]) -> bytes:
    """(value, bytes) pairs, little-endian, one behind the other."""
    return b"".join(value.to_bytes(size, "little") for value, size in pairs)


@trace.narrated(CHAPTER, "put the last program into a sealed memfd", "memfd_create(); fcntl(F_ADD_SEALS)")
def sealed(which: str = LAST) -> int:
    """One of the programs in a memfd that can be neither written, grown, shrunk nor unsealed: a close-on-exec
    descriptor. Source: memfd_create(2)."""
    descriptor = os.memfd_create("minirt", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, image(which))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return descriptor

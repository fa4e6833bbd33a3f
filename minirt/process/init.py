"""Chapter 12: `--init`: an init (chapter 03) between the kernel and the command.

It is number 1 of the container, forwards signals and reaps orphans; the command is number 2. The command gets a process
group of its own and the terminal, so that Ctrl-C reaches it once, from the terminal, and not twice.

There are two of them. `run` is chapter 03's, in Python. It keeps the rights that it was born with, and nobody in the
container can look at it: it is not dumpable, and has capabilities that they lack. But whoever has CAP_SYS_PTRACE may
look at anybody: /proc/1/exe would be the machine's Python, /proc/1/mem a process of the machine's root. So where
that was granted the init is a second piece of the sealed program (`program.INIT`), with the rights of the command.

Manual pages: setpgid(2), tcsetpgrp(3), sigwaitinfo(2), wait4(2), ptrace(2) "Ptrace access mode checking".
"""

from __future__ import annotations

import _signal
import os

from minirt.kernel import process
from minirt.namespaces import pid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

# Block all signals; fork; number 1 closes the report, waits for signals, passes them on, collects who has ended, and
# ends with the command; the child takes a process group and the terminal, and goes on to the exec.
_INIT_X86_64 = (
    ("6a ff", "push -1               ; all signals, as a set"),
    ("31 ff", "xor edi, edi"),
    ("48 89 e6", "mov rsi, rsp"),
    ("31 d2", "xor edx, edx"),
    ("41 ba 08 00 00 00", "mov r10d, 8"),
    ("b8 0e 00 00 00", "mov eax, 14           ; rt_sigprocmask"),
    ("0f 05", "syscall"),
    ("bf 11 00 00 00", "mov edi, 17           ; SIGCHLD, and nothing else: a fork"),
    ("31 f6", "xor esi, esi"),
    ("31 d2", "xor edx, edx"),
    ("45 31 d2", "xor r10d, r10d"),
    ("45 31 c0", "xor r8d, r8d"),
    ("b8 38 00 00 00", "mov eax, 56           ; clone"),
    ("0f 05", "syscall"),
    ("89 c3", "mov ebx, eax"),
    ("85 c0", "test eax, eax"),
    ("0f 84 b9 00 00 00", "jz .+191              ; to the child below"),
    ("0f 88 92 00 00 00", "js .+152              ; to the failure below"),
    ("bf 03 00 00 00", "mov edi, 3"),
    ("b8 03 00 00 00", "mov eax, 3            ; close"),
    ("0f 05", "syscall"),
    ("68 6e 69 74 00", "push 0x74696e"),
    ("48 b8 6d 69 6e 69 72 74 2d 69", "movabs rax, 0x692d7472696e696d"),
    ("50", "push rax"),
    ("bf 0f 00 00 00", "mov edi, 15"),
    ("48 89 e6", "mov rsi, rsp"),
    ("b8 9d 00 00 00", "mov eax, 157          ; prctl(PR_SET_NAME, minirt-init)"),
    ("0f 05", "syscall"),
    ("58", "pop rax"),
    ("58", "pop rax"),
    ("48 89 e7", "mov rdi, rsp"),
    ("31 f6", "xor esi, esi"),
    ("31 d2", "xor edx, edx"),
    ("41 ba 08 00 00 00", "mov r10d, 8"),
    ("b8 80 00 00 00", "mov eax, 128          ; rt_sigtimedwait"),
    ("0f 05", "syscall"),
    ("83 f8 11", "cmp eax, 17"),
    ("74 11", "je .+19               ; SIGCHLD: to wait4 below"),
    ("85 c0", "test eax, eax"),
    ("7e e3", "jle .-27"),
    ("89 df", "mov edi, ebx"),
    ("89 c6", "mov esi, eax"),
    ("b8 3e 00 00 00", "mov eax, 62           ; kill: pass it on"),
    ("0f 05", "syscall"),
    ("eb d6", "jmp .-40"),
    ("bf ff ff ff ff", "mov edi, -1"),
    ("6a 00", "push 0"),
    ("48 89 e6", "mov rsi, rsp"),
    ("ba 01 00 00 00", "mov edx, 1            ; WNOHANG"),
    ("45 31 d2", "xor r10d, r10d"),
    ("b8 3d 00 00 00", "mov eax, 61           ; wait4"),
    ("0f 05", "syscall"),
    ("59", "pop rcx"),
    ("85 c0", "test eax, eax"),
    ("7e b8", "jle .-70"),
    ("39 d8", "cmp eax, ebx          ; the command, or an orphan?"),
    ("75 de", "jne .-32"),
    ("89 cf", "mov edi, ecx"),
    ("83 e7 7f", "and edi, 127          ; the signal that ended it"),
    ("74 08", "jz .+10"),
    ("81 cf 80 00 00 00", "or edi, 128           ; 128 + signal"),
    ("eb 03", "jmp .+5"),
    ("0f b6 fd", "movzx edi, ch         ; or its exit code"),
    ("b8 e7 00 00 00", "mov eax, 231          ; exit_group"),
    ("0f 05", "syscall"),
    ("50", "push rax"),
    ("bf 03 00 00 00", "mov edi, 3"),
    ("48 89 e6", "mov rsi, rsp"),
    ("ba 04 00 00 00", "mov edx, 4"),
    ("b8 01 00 00 00", "mov eax, 1            ; write"),
    ("0f 05", "syscall"),
    ("bf 7f 00 00 00", "mov edi, 127"),
    ("b8 e7 00 00 00", "mov eax, 231          ; exit_group"),
    ("0f 05", "syscall"),
    ("31 ff", "xor edi, edi"),
    ("31 f6", "xor esi, esi"),
    ("b8 6d 00 00 00", "mov eax, 109          ; the child: setpgid"),
    ("0f 05", "syscall"),
    ("b8 27 00 00 00", "mov eax, 39           ; getpid"),
    ("0f 05", "syscall"),
    ("50", "push rax"),
    ("31 ff", "xor edi, edi"),
    ("be 10 54 00 00", "mov esi, 0x5410       ; TIOCSPGRP: refused, and no harm done, when 0 is no terminal"),
    ("48 89 e2", "mov rdx, rsp"),
    ("b8 10 00 00 00", "mov eax, 16           ; ioctl"),
    ("0f 05", "syscall"),
    ("58", "pop rax"),
    ("6a 00", "push 0"),
    ("bf 02 00 00 00", "mov edi, 2            ; SIG_SETMASK: none blocked"),
    ("48 89 e6", "mov rsi, rsp"),
    ("31 d2", "xor edx, edx"),
    ("41 ba 08 00 00 00", "mov r10d, 8"),
    ("b8 0e 00 00 00", "mov eax, 14           ; rt_sigprocmask"),
    ("0f 05", "syscall"),
    ("58", "pop rax"),
    ("58", "pop rax"),
)
_INIT_AARCH64 = (
    ("01 00 80 92", "mov x1, #-1"),
    ("e1 0f 1f f8", "str x1, [sp, #-16]!"),
    ("00 00 80 d2", "mov x0, #0"),
    ("e1 03 00 91", "mov x1, sp"),
    ("02 00 80 d2", "mov x2, #0"),
    ("03 01 80 d2", "mov x3, #8"),
    ("e8 10 80 d2", "mov x8, #135          ; rt_sigprocmask"),
    ("01 00 00 d4", "svc #0"),
    ("20 02 80 d2", "mov x0, #17           ; SIGCHLD, and nothing else: a fork"),
    ("01 00 80 d2", "mov x1, #0"),
    ("02 00 80 d2", "mov x2, #0"),
    ("03 00 80 d2", "mov x3, #0"),
    ("04 00 80 d2", "mov x4, #0"),
    ("88 1b 80 d2", "mov x8, #220          ; clone"),
    ("01 00 00 d4", "svc #0"),
    ("f3 03 00 aa", "mov x19, x0"),
    ("60 07 00 b4", "cbz x0, .+236         ; to the child below"),
    ("20 06 f8 b7", "tbnz x0, #63, .+196   ; to the failure below"),
    ("60 00 80 d2", "mov x0, #3"),
    ("28 07 80 d2", "mov x8, #57           ; close"),
    ("01 00 00 d4", "svc #0"),
    ("a1 2d 8d d2", "mov x1, #0x696d"),
    ("c1 2d ad f2", "movk x1, #0x696e, lsl #16"),
    ("41 8e ce f2", "movk x1, #0x7472, lsl #32"),
    ("a1 25 ed f2", "movk x1, #0x692d, lsl #48"),
    ("c2 2d 8d d2", "mov x2, #0x696e"),
    ("82 0e a0 f2", "movk x2, #0x74, lsl #16"),
    ("e1 0b bf a9", "stp x1, x2, [sp, #-16]!"),
    ("e0 01 80 d2", "mov x0, #15"),
    ("e1 03 00 91", "mov x1, sp"),
    ("e8 14 80 d2", "mov x8, #167          ; prctl(PR_SET_NAME, minirt-init)"),
    ("01 00 00 d4", "svc #0"),
    ("ff 43 00 91", "add sp, sp, #16"),
    ("e0 03 00 91", "mov x0, sp"),
    ("01 00 80 d2", "mov x1, #0"),
    ("02 00 80 d2", "mov x2, #0"),
    ("03 01 80 d2", "mov x3, #8"),
    ("28 11 80 d2", "mov x8, #137          ; rt_sigtimedwait"),
    ("01 00 00 d4", "svc #0"),
    ("1f 44 00 f1", "cmp x0, #17"),
    ("00 01 00 54", "b.eq .+32             ; SIGCHLD: to wait4 below"),
    ("1f 00 00 f1", "cmp x0, #0"),
    ("ed fe ff 54", "b.le .-36"),
    ("e1 03 00 aa", "mov x1, x0"),
    ("e0 03 13 aa", "mov x0, x19"),
    ("28 10 80 d2", "mov x8, #129          ; kill: pass it on"),
    ("01 00 00 d4", "svc #0"),
    ("f2 ff ff 17", "b .-56"),
    ("00 00 80 92", "mov x0, #-1"),
    ("e1 43 00 d1", "sub x1, sp, #16"),
    ("22 00 80 d2", "mov x2, #1            ; WNOHANG"),
    ("03 00 80 d2", "mov x3, #0"),
    ("88 20 80 d2", "mov x8, #260          ; wait4"),
    ("01 00 00 d4", "svc #0"),
    ("1f 00 00 f1", "cmp x0, #0"),
    ("4d fd ff 54", "b.le .-88"),
    ("1f 00 13 eb", "cmp x0, x19           ; the command, or an orphan?"),
    ("e1 fe ff 54", "b.ne .-36"),
    ("e1 03 5f b8", "ldur w1, [sp, #-16]"),
    ("20 18 00 72", "ands w0, w1, #127     ; the signal that ended it"),
    ("60 00 00 54", "b.eq .+12"),
    ("00 00 19 32", "orr w0, w0, #128      ; 128 + signal"),
    ("02 00 00 14", "b .+8"),
    ("20 3c 08 53", "ubfx w0, w1, #8, #8   ; or its exit code"),
    ("c8 0b 80 d2", "mov x8, #94           ; exit_group"),
    ("01 00 00 d4", "svc #0"),
    ("e0 0f 1f b8", "str w0, [sp, #-16]!"),
    ("60 00 80 d2", "mov x0, #3"),
    ("e1 03 00 91", "mov x1, sp"),
    ("82 00 80 d2", "mov x2, #4"),
    ("08 08 80 d2", "mov x8, #64           ; write"),
    ("01 00 00 d4", "svc #0"),
    ("e0 0f 80 d2", "mov x0, #127"),
    ("c8 0b 80 d2", "mov x8, #94           ; exit_group"),
    ("01 00 00 d4", "svc #0"),
    ("00 00 80 d2", "mov x0, #0"),
    ("01 00 80 d2", "mov x1, #0"),
    ("48 13 80 d2", "mov x8, #154          ; the child: setpgid"),
    ("01 00 00 d4", "svc #0"),
    ("88 15 80 d2", "mov x8, #172          ; getpid"),
    ("01 00 00 d4", "svc #0"),
    ("e0 0f 1f f8", "str x0, [sp, #-16]!"),
    ("00 00 80 d2", "mov x0, #0"),
    ("01 82 8a d2", "mov x1, #0x5410       ; TIOCSPGRP: refused, and no harm done, when 0 is no terminal"),
    ("e2 03 00 91", "mov x2, sp"),
    ("a8 03 80 d2", "mov x8, #29           ; ioctl"),
    ("01 00 00 d4", "svc #0"),
    ("ff 03 00 f9", "str xzr, [sp]"),
    ("40 00 80 d2", "mov x0, #2"),
    ("e1 03 00 91", "mov x1, sp"),
    ("02 00 80 d2", "mov x2, #0"),
    ("03 01 80 d2", "mov x3, #8"),
    ("e8 10 80 d2", "mov x8, #135          ; rt_sigprocmask"),
    ("01 00 00 d4", "svc #0"),
    ("ff 83 00 91", "add sp, sp, #32"),
)
CODE = {"x86_64": _INIT_X86_64, "aarch64": _INIT_AARCH64}


def must_be_sealed(wanted: dict[str, Any]) -> bool:
    """Whether a process may look at any other in the container whose "process" is `wanted`: it has CAP_SYS_PTRACE."""
    granted = wanted.get("capabilities")
    return granted is None or any(name.removeprefix("CAP_") == "SYS_PTRACE" for name in granted["bounding"])


def run(command: Callable[[], int | None], close: Sequence[int]) -> int:
    """Be the init of `command`, which ends in exec; `close` are descriptors that are the command's alone."""
    process.set_name("minirt-init")

    def in_its_own_group() -> int | None:
        os.setpgid(0, 0)
        if os.isatty(0):
            _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGTTOU])  # a background process may not ask for it
            os.tcsetpgrp(0, os.getpgrp())
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGTTOU])
        return command()

    return pid.init(in_its_own_group, close)

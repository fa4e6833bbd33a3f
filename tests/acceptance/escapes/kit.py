"""What the attacks have in common: a container that has the machine's Python in it, and programs made of bytes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minirt.kernel import process
from minirt.process import launch, program, spec
from minirt.seccomp import numbers

BORROWED = [path for path in ("/usr", "/lib", "/lib64", sys.base_prefix) if os.path.exists(path)]
BORROWED = [path for path in BORROWED if path == "/usr" or not path.startswith("/usr/")]
PYTHON = os.path.realpath(sys.executable)
VOLUMES = [word for path in BORROWED for word in ("-v", f"{os.path.realpath(path)}:{path}:ro")]
CALLS = numbers.numbers(os.uname().machine)
PRELUDE = f"""
import ctypes, os, sys
CALLS = {CALLS!r}
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *words):
    "A system call: what it returns, or its error number, negative."
    number = CALLS[name] if isinstance(name, str) else name
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
    got = libc.syscall(ctypes.c_long(number), *words)
    return got if got >= 0 else -ctypes.get_errno()
def attempt(function, *words):
    "What a function returns, or the name of what it raises."
    try:
        return function(*words)
    except OSError as error:
        return type(error).__name__
"""


def python(source: str, *words: str) -> list[str]:
    """The command that runs `source` in a container that borrows the machine's Python."""
    return [PYTHON, "-I", "-S", "-c", PRELUDE + source, *words]


def specification(root: Path, args: Sequence[str], **changes: Any) -> dict[str, Any]:
    """Docker's walls around `args` in the directory `root`, with the machine's programs in it."""
    wanted = spec.default(args, str(root), "box")
    wanted["mounts"] += [{"destination": path, "type": "bind", "source": os.path.realpath(path),
                          "options": ["rbind", "ro"]} for path in BORROWED]
    wanted["process"].update(changes)
    return wanted


def run(wanted: dict[str, Any], between: Callable[[launch.Handle], None] | None = None, group: Any = None,
        stdin: int = -1) -> str:
    """Run what a specification says to its end and return what it printed."""
    output, theirs = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY)
    handle = launch.prepare(wanted, stdio=(stdin if stdin >= 0 else null, theirs, theirs), group=group)
    os.close(theirs)
    os.close(null)
    try:
        handle.ready()
        if between:
            between(handle)
        handle.start()
        return b"".join(iter(lambda: os.read(output, 1 << 16), b"")).decode(errors="replace")
    except BaseException:
        handle.kill()
        raise
    finally:
        process.exit_code(handle.wait())
        os.close(output)
        os.close(handle.pidfd)


def elf(code: str) -> bytes:
    """A program for x86-64 made of the bytes in `code`, hexadecimal."""
    body = bytes.fromhex(code)
    whole = program.image()
    size = (program.HEADERS + len(body)).to_bytes(8, "little")
    return whole[:64 + 32] + size + size + whole[64 + 48:program.HEADERS] + body


def le(number: int) -> str:
    """A 32-bit number as the hexadecimal bytes of an instruction."""
    return (number & 0xFFFFFFFF).to_bytes(4, "little").hex()


# What each ends with: exit(-rax) when rax is negative, else exit(0).
_END = ("31 ff" "85 c0" "79 04" "f7 d8" "89 c7" "b8 e7 00 00 00" "0f 05")


def call_i386(number: int, first: int, second: int) -> bytes:
    """A program that makes a 32-bit call by `int 0x80` and exits with its error number."""
    return elf(f"b8{le(number)} bb{le(first)} b9{le(second)} cd80" + _END)


def call_x86_64(number: int, first: int, second: int) -> bytes:
    """A program that makes a call by `syscall` and exits with its error number."""
    return elf(f"b8{le(number)} bf{le(first)} be{le(second)} 0f05" + _END)


def tell_user() -> bytes:
    """A program that exits with its effective user id."""
    return elf("b8 6b 00 00 00 0f 05 89 c7 b8 e7 00 00 00 0f 05")

"""Chapter 01: a system call made by its number: what comes back, what is raised, what reaches the kernel."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minirt.kernel import syscalls

CALL = "minirt.kernel.syscalls.call"
AT_FDCWD, PR_GET_NAME = -100, 16
ENOENT, ENOSYS = 2, 38


@pytest.mark.exercise(CALL)
def test_a_call_returns_the_kernels_answer() -> None:
    answer = syscalls.call("getpid")
    assert answer == os.getpid(), (
        f'call("getpid") returned {answer!r}, and this is process {os.getpid()}: '
        "make the call with _libc.syscall(), number first, and return what it returns"
    )


@pytest.mark.exercise(CALL)
def test_a_failure_is_an_exception_with_number_and_words() -> None:
    try:
        answer = syscalls.call("open_tree", AT_FDCWD, b"/there is nothing here", 0)
    except OSError as error:
        assert error.errno is not None, (
            f"the exception has no text, only {error.args}: OSError takes both, the number and os.strerror(number)"
        )
        assert error.errno == ENOENT, (
            f"the kernel found no such path (errno {ENOENT}), but the exception says {error.errno} ({error}): "
            "the reason is in errno, not in the result; ctypes.get_errno() has it"
        )
        assert error.strerror == os.strerror(ENOENT), (
            f"the exception has another text than os.strerror(number): {error!r}"
        )
    else:
        pytest.fail(f"open_tree of a missing path failed, and call() returned {answer}: raise OSError for -1")


@pytest.mark.exercise(CALL)
def test_a_path_reaches_the_kernel_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "grüße"
    path.mkdir()
    descriptor = syscalls.call("open_tree", AT_FDCWD, str(path), 0)
    try:
        found = os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    assert found == str(path), (
        f"the path {str(path)!r} was given, and the kernel opened {found!r}: give each argument to _register first; "
        "a str must become bytes, because as it is, ctypes makes wide characters of it, with zeros in between"
    )


@pytest.mark.exercise(CALL)
def test_an_int_is_passed_whole() -> None:
    name = ctypes.create_string_buffer(16)
    address = ctypes.addressof(name)
    try:
        syscalls.call("prctl", PR_GET_NAME, address, 0, 0, 0)
    except OSError as error:
        pytest.fail(
            f"the kernel could not write to the address {address:#x} ({error}): an int must fill a whole register, and "
            "ctypes passes only 32 bits of a bare one. Give each argument to _register first"
        )
    assert name.value == Path("/proc/self/comm").read_bytes().strip()


@pytest.mark.exercise(CALL)
def test_a_name_that_is_not_in_the_table_is_an_oserror_too() -> None:
    try:
        syscalls.call("teleport", 1)
    except OSError as error:
        assert error.errno == ENOSYS, f"a call that this machine does not have is ENOSYS, {ENOSYS}, not {error.errno}"
    except KeyError:
        pytest.fail(
            'call("teleport") raised KeyError: for a name that is not in NUMBERS raise OSError(38, ...), ENOSYS, '
            "which is what the kernel itself says to a number that it does not know"
        )
    else:
        pytest.fail('call("teleport") returned: for a name that is not in NUMBERS raise OSError(38, ...), ENOSYS')


def test_a_file_system_is_mounted_and_unmounted_without_a_command(tmp_path: Path) -> None:
    syscalls.mount("label", str(tmp_path), "tmpfs", 0, "size=64k")
    try:
        assert os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize == 65536
        assert f"label {tmp_path} tmpfs" in Path("/proc/self/mounts").read_text()
    finally:
        syscalls.umount2(str(tmp_path))
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_a_process_enters_a_namespace_through_its_descriptor(spawn: Callable[..., Any], outside: Any) -> None:
    new_uts = 0x04000000
    first = spawn(syscalls.unshare, new_uts)
    assert outside.entered(first.pid) == {"uts"}

    def follow() -> None:
        descriptor = os.open(f"/proc/{first.pid}/ns/uts", os.O_RDONLY)
        syscalls.setns(descriptor, new_uts)

    second = spawn(follow)
    assert second.value is None
    assert outside.namespace("uts", second.pid) == outside.namespace("uts", first.pid)


def test_the_tables_agree_with_the_headers_of_this_machine() -> None:
    places = [f"/usr/include/{platform.machine()}-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"]
    text = next((Path(place).read_text() for place in places if os.path.exists(place)), "")
    for name, number in syscalls.NUMBERS.items():
        assert not text or f"#define __NR_{name} {number}\n" in text, f"the number of {name} is not {number}"
    assert set(syscalls.NUMBERS_OF["x86_64"]) == set(syscalls.NUMBERS_OF["aarch64"])

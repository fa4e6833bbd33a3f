"""The tables of numbers in kernel/, held against the kernel's own headers for both architectures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minirt.kernel import mount, paths, process, syscalls
from minirt.namespaces import ipc, mnt, net, pid, uts

INCLUDE = Path("/usr/include")
HEADERS = {
    "x86_64": [INCLUDE / "x86_64-linux-gnu/asm/unistd_64.h", INCLUDE / "asm/unistd_64.h"],
    "aarch64": [INCLUDE / "asm-generic/unistd.h"],  # aarch64 uses the generic table as it is
}


def defines(*candidates: Path) -> dict[str, int]:
    """The numbers that a header defines."""
    for path in candidates:
        if path.exists():
            found = re.findall(r"^#define\s+(\w+)\s+(0x[0-9a-fA-F]+|\d+)", path.read_text(), re.MULTILINE)
            return {name: int(value, 0) for name, value in found}
    pytest.skip("the kernel's headers are not installed (package linux-libc-dev)")


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_system_calls_have_the_numbers_of_the_headers(architecture: str) -> None:
    header = defines(*HEADERS[architecture])
    generic = {"umount2": "umount2"}
    for name, number in syscalls.NUMBERS_OF[architecture].items():
        known = header.get(f"__NR_{generic.get(name, name)}", header.get(f"__NR3264_{name}"))  # of both word sizes
        assert known == number, f"{name} on {architecture}"


def test_both_architectures_have_the_same_calls() -> None:
    first, second = syscalls.NUMBERS_OF.values()
    assert first.keys() == second.keys()


def test_namespace_bits_are_those_of_sched_h() -> None:
    header = defines(INCLUDE / "linux/sched.h")
    for room, name in ((uts, "CLONE_NEWUTS"), (pid, "CLONE_NEWPID"), (mnt, "CLONE_NEWNS"), (ipc, "CLONE_NEWIPC"),
                       (net, "CLONE_NEWNET"), (process, "CLONE_PIDFD")):
        assert getattr(room, name) == header[name]


def test_mount_constants_are_those_of_the_headers() -> None:
    header = defines(INCLUDE / "linux/mount.h")
    words = {"ro": "RDONLY", "nosuid": "NOSUID", "nodev": "NODEV", "noexec": "NOEXEC", "noatime": "NOATIME",
             "strictatime": "STRICTATIME", "nodiratime": "NODIRATIME"}
    for word, name in words.items():
        assert mount.ATTRIBUTES[word][0] == header[f"MOUNT_ATTR_{name}"]
    assert mount.ATTRIBUTES["noatime"][1] == header["MOUNT_ATTR__ATIME"]
    assert (mount.MOVE_MOUNT_F_EMPTY_PATH, mount.MOVE_MOUNT_T_EMPTY_PATH) == (
        header["MOVE_MOUNT_F_EMPTY_PATH"], header["MOVE_MOUNT_T_EMPTY_PATH"])
    assert (mount.MS_REC, mount.MS_BIND) == (header["MS_REC"], header["MS_BIND"])


def test_path_constants_are_those_of_openat2_h() -> None:
    header = defines(INCLUDE / "linux/openat2.h")
    assert (paths.RESOLVE_IN_ROOT, paths.RESOLVE_NO_MAGICLINKS) == (
        header["RESOLVE_IN_ROOT"], header["RESOLVE_NO_MAGICLINKS"])

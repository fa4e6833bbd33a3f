"""Chapter 04: opening a path inside a root that belongs to somebody else."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minirt.kernel import paths, syscalls


@pytest.fixture
def box(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A root with traps in it, beside a file of the machine: its descriptor and its path."""
    top = tmp_path / "box"
    (top / "etc").mkdir(parents=True)
    (top / "etc/name").write_text("the box's")
    (top / "etc/absolute").symlink_to("/etc/name")
    (tmp_path / "secret").write_text("the machine's")
    (top / "out").symlink_to(tmp_path / "secret")
    (top / "up").symlink_to("../../../../secret")
    (top / "climb").symlink_to("../secret")
    root = os.open(top, os.O_PATH | os.O_DIRECTORY)
    yield root, top
    os.close(root)


def answer(root: int, path: str, *arguments: Any) -> str:
    """What is in the file that open_in_root() opens, or the name of the error."""
    try:
        descriptor = paths.open_in_root(root, path, *arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    assert isinstance(descriptor, int), f"open_in_root() must return a descriptor, and it returned {descriptor!r}"
    try:
        return os.read(descriptor, 100).decode()
    finally:
        os.close(descriptor)


@pytest.mark.exercise("minirt.kernel.paths.open_in_root")
def test_a_path_of_the_root_is_opened(box: Any) -> None:
    for path in ("/etc/name", "etc/name", "/etc/../etc/./name"):
        assert answer(box[0], path) == "the box's", (
            f"the path {path} must be looked up from the root, and a leading / means the root too"
        )


@pytest.mark.exercise("minirt.kernel.paths.open_in_root")
def test_an_absolute_link_stays_in_the_root(box: Any) -> None:
    found = answer(box[0], "/etc/absolute")
    assert found == "the box's", (
        f"in the box /etc/absolute is a link to /etc/name, which means the box's own; open_in_root() gave {found!r}. "
        "An absolute link must start again at the root (RESOLVE_IN_ROOT), not at the machine's, and not be refused"
    )


@pytest.mark.exercise("minirt.kernel.paths.open_in_root")
def test_no_path_leads_out_of_the_root(box: Any) -> None:
    for path in ("/out", "/up", "/climb", "../secret", "/etc/../../secret"):
        found = answer(box[0], path)
        assert found != "the machine's", (
            f"the path {path} opened a file of the machine: a link or a `..` of the image led out of the root. Let the "
            "kernel resolve it: openat2 with RESOLVE_IN_ROOT"
        )
        assert found == "ENOENT", f"the path {path} names nothing in the box, so the answer is ENOENT and not {found}"


@pytest.mark.exercise("minirt.kernel.paths.open_in_root")
def test_magic_links_are_refused() -> None:
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    found = answer(proc, "/self/exe")
    os.close(proc)
    assert found == "ELOOP", (
        "/proc/self/exe is no path but jumps straight to an open file of the machine; open_in_root() gave "
        f"{found[:20]!r} for it. RESOLVE_NO_MAGICLINKS refuses such links with ELOOP"
    )


@pytest.mark.exercise("minirt.kernel.paths.open_in_root")
def test_the_descriptor_is_closed_on_exec(box: Any) -> None:
    descriptor = paths.open_in_root(box[0], "/etc/name")
    inherited = os.get_inheritable(descriptor)
    os.close(descriptor)
    assert not inherited, (
        "a program that is executed inherits the descriptor, and with it a file of whoever opened it: add os.O_CLOEXEC"
    )


@pytest.mark.exercise("minirt.kernel.paths.open_in_root")
def test_flags_and_mode_are_those_of_open(box: Any) -> None:
    root, top = box
    mask = os.umask(0)
    try:
        descriptor = paths.open_in_root(root, "/new", os.O_CREAT | os.O_WRONLY, 0o640)
        with contextlib.closing(os.fdopen(descriptor, "w")) as file:
            file.write("written")
    except OSError as error:
        pytest.fail(f"a new file could not be made and written ({error}): hand `flags` and `mode` on to the kernel")
    finally:
        os.umask(mask)
    assert (top / "new").read_text() == "written"
    found = (top / "new").stat().st_mode & 0o777
    assert found == 0o640, f"the new file has the mode {found:o}, not 640: hand `mode` on to the kernel"
    assert answer(root, "/etc/name", os.O_RDONLY | os.O_DIRECTORY) == "ENOTDIR", "O_DIRECTORY wants a directory"


@pytest.mark.exercise("minirt.kernel.paths.open_in_root")
def test_it_asks_again_when_the_kernel_says_so(box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    call, asked = syscalls.call, []

    def busy(times: int) -> Callable[..., int]:
        def answering(name: str, *arguments: Any) -> int:
            asked.append(name)
            if name != "openat2" or times < len(asked):
                return call(name, *arguments)
            raise OSError(errno.EAGAIN if len(asked) < 1000 else errno.EIO, "as if somebody renamed directories")

        return answering

    monkeypatch.setattr(syscalls, "call", busy(5))
    found = answer(box[0], "/etc/name")
    assert found == "the box's", (
        "the kernel said EAGAIN five times, because somebody renamed directories meanwhile; open_in_root() gave "
        f"{found}. It must ask again"
    )
    asked.clear()
    monkeypatch.setattr(syscalls, "call", busy(2000))
    found = answer(box[0], "/etc/name")
    assert (found, len(asked)) == ("EAGAIN", 128), (
        f"the kernel went on saying EAGAIN; open_in_root() asked {len(asked)} times and then gave {found}. Somebody "
        "who renames for ever must not hold us for ever: 128 times, then let the error out"
    )
    asked.clear()
    monkeypatch.setattr(syscalls, "call", busy(0))
    found = answer(box[0], "/etc/nothing")
    assert (found, len(asked)) == ("ENOENT", 1), (
        f"there is no such file, and open_in_root() asked {len(asked)} times and then gave {found}: only EAGAIN means "
        "`ask again`"
    )


def test_directories_are_made_inside_the_root_only(box: Any) -> None:
    root, top = box
    (top / "data").symlink_to("/etc")
    os.close(paths.make_directories(root, "/data/new/deep"))
    assert (top / "etc/new/deep").is_dir() and not os.path.exists("/etc/new")


def test_an_existing_file_is_a_mount_point_as_it_is(box: Any) -> None:
    root, top = box
    os.close(paths.make_mount_point(root, "/etc/name", directory=False))
    os.close(paths.make_mount_point(root, "/srv/file", directory=False))
    assert (top / "etc/name").read_text() == "the box's" and (top / "srv/file").read_text() == ""
    with pytest.raises(NotADirectoryError):
        paths.make_mount_point(root, "/etc/name", directory=True)
    with pytest.raises(IsADirectoryError):
        paths.make_mount_point(root, "/etc", directory=False)


def test_beneath_refuses_what_in_root_leads_back(box: Any) -> None:
    root, _ = box
    os.close(paths.open_beneath(root, "etc/name"))
    with pytest.raises(OSError) as caught:
        paths.open_beneath(root, "etc/absolute")
    assert caught.value.errno == errno.EXDEV

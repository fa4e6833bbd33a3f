"""Chapter 09: an overlay looked at from within, and its layers looked at from beside it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minirt import overlay
from minirt.errors import MinirtError
from minirt.kernel import syscalls


class Stack:
    """Two layers, an upper directory and a place to see them as one."""

    def __init__(self, place: Path) -> None:
        self.layers = place / "layers"
        self.upper, self.work, self.target = place / "upper", place / "work", place / "merged"
        for directory in (self.layers / "top", self.layers / "base", self.upper, self.work, self.target):
            directory.mkdir(parents=True)
        (self.layers / "base/name").write_text("base")
        (self.layers / "base/below").write_text("only in base")
        (self.layers / "base/dir").mkdir()
        (self.layers / "base/dir/old").write_text("old")
        (self.layers / "top/name").write_text("top")

    def mount(self) -> None:
        overlay.mount(["top", "base"], str(self.upper), str(self.work), str(self.target), str(self.layers))

    def mount_plainly(self) -> None:
        """As `mount`, without the function that is judged."""
        words = f"lowerdir={self.layers}/top:{self.layers}/base,upperdir={self.upper},workdir={self.work}"
        syscalls.mount("overlay", str(self.target), "overlay", 0, words)

    def lowers(self) -> list[str]:
        return [str(self.layers / "top"), str(self.layers / "base")]


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path)


def filesystem_of(path: Path) -> str:
    """The type of what is mounted at a path, by /proc/self/mountinfo."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4] == str(path)]
    return found[-1].partition(" - ")[2].split()[0] if found else "nothing"


@pytest.mark.exercise("minirt.overlay.options")
def test_the_layers_are_joined_with_colons_the_topmost_first() -> None:
    text = overlay.options(["top", "base"], "/u", "/w")
    assert text == "lowerdir=top:base,upperdir=/u,workdir=/w", (
        f'options(["top", "base"], "/u", "/w") is {text!r}: the topmost layer comes first, as it stands in the list'
    )


@pytest.mark.exercise("minirt.overlay.options")
def test_without_an_upper_directory_it_is_read_only() -> None:
    text = overlay.options(["top", "base"], "", "")
    assert text == "lowerdir=top:base", f"{text!r}: with an empty upper, leave out upperdir= and workdir= altogether"


@pytest.mark.exercise("minirt.overlay.options")
def test_separators_in_names_are_escaped() -> None:
    text = overlay.options(["a:b"], "/u,v", "/w:x")
    assert text == "lowerdir=a\\:b,upperdir=/u\\,v,workdir=/w\\:x", (
        f"{text!r}: a ':' or ',' in a name would be taken for a separator; put a backslash before it, in every name"
    )


@pytest.mark.exercise("minirt.overlay.options")
def test_what_does_not_fit_into_a_page_is_refused() -> None:
    assert len(overlay.options(["l" * 30] * 100, "/upper", "/work")) < 4095, "a hundred short names must fit"
    try:
        overlay.options(["ü" * 30] * 70, "/upper", "/work")
    except MinirtError:
        return
    pytest.fail("a string of more than 4095 bytes must raise MinirtError: the kernel would cut it off after one page, "
                "in the middle of a name (count bytes: 'ü' has two)")


@pytest.mark.exercise("minirt.overlay.options")
def test_a_string_of_just_that_length_fits() -> None:
    name = "l" * (overlay.LONGEST - len("lowerdir="))
    assert overlay.options([name], "", "") == f"lowerdir={name}", "a string of LONGEST bytes fits: it may not be longer"
    with pytest.raises(MinirtError):
        overlay.options([name + "l"], "", "")


@pytest.mark.exercise("minirt.overlay.mount")
def test_layers_are_seen_as_one_tree(stack: Stack, inside: Callable[..., Any]) -> None:
    def look() -> tuple[str, str, str]:
        syscalls.unshare(0x20000)
        syscalls.mount(None, "/", None, 0x44000)
        try:
            stack.mount()
        except FileNotFoundError:
            return "not found", "", ""
        kind = filesystem_of(stack.target)
        try:
            return kind, (stack.target / "name").read_text(), (stack.target / "below").read_text()
        except FileNotFoundError:
            return kind, "", ""

    kind, name, below = inside(look)
    assert kind != "not found", (
        "the kernel did not find the layers 'top' and 'base': their names are relative, and it looks from the working "
        "directory; go to the directory of the layers first (os.chdir)"
    )
    assert kind == "overlay", f"what is mounted at the target is still of the type {kind!r}, not 'overlay'"
    assert (name, below) == ("top", "only in base"), (
        f"the file 'name' says {name!r} and 'below' says {below!r}: a layer above hides the same name below, all else "
        "shines through"
    )
    assert filesystem_of(stack.target) == "nothing", "a mount was made outside the child's mount namespace"


@pytest.mark.exercise("minirt.overlay.mount")
def test_writes_land_in_the_upper_directory_alone(stack: Stack, inside: Callable[..., Any]) -> None:
    def write() -> str:
        syscalls.unshare(0x20000)
        syscalls.mount(None, "/", None, 0x44000)
        stack.mount()
        (stack.target / "name").write_text("changed")
        os.unlink(stack.target / "below")
        return (stack.target / "name").read_text()

    assert inside(write) == "changed"
    assert (stack.layers / "top/name").read_text() == "top", (
        "a file written in the container was written into the layer: every other container of the image would see it; "
        "the upper directory takes the changes"
    )
    assert (stack.upper / "name").read_text() == "changed"
    assert stat.S_ISCHR(os.lstat(stack.upper / "below").st_mode), "removing a lower file leaves a whiteout in the upper"
    assert (stack.layers / "base/below").exists()


@pytest.mark.exercise("minirt.overlay.mount")
def test_more_options_go_along(stack: Stack, inside: Callable[..., Any]) -> None:
    def look() -> str:
        syscalls.unshare(0x20000)
        syscalls.mount(None, "/", None, 0x44000)
        overlay.mount(["top", "base"], str(stack.upper), str(stack.work), str(stack.target), str(stack.layers),
                      ",userxattr")
        with open("/proc/self/mounts") as mounts:
            return next(line.split()[3] for line in mounts if line.split()[1] == str(stack.target))

    found = inside(look)
    assert "userxattr" in found.split(","), (
        f'mount(..., more=",userxattr") made an overlay with the options {found}: `more` is appended to what options() '
        "returns. An ordinary user's overlay (chapter 07) works with that word only"
    )


@pytest.mark.exercise("minirt.overlay.make_whiteout")
def test_a_whiteout_hides_a_name_of_the_layers_below(stack: Stack, inside: Callable[..., Any]) -> None:
    directory = os.open(stack.layers / "top", os.O_RDONLY | os.O_DIRECTORY)
    overlay.make_whiteout(directory, "below")
    os.close(directory)
    made = sorted(os.listdir(stack.layers / "top"))
    assert ".wh.below" not in made, (
        "the layer has a file '.wh.below': that is its form in an archive; on disk it is a device"
    )
    assert "below" in made, "nothing is there to hide it: the whiteout is a file with the hidden name, in this layer"
    status = os.lstat(stack.layers / "top/below")
    assert stat.S_ISCHR(status.st_mode), "the whiteout is a regular file: OverlayFS wants a character device (S_IFCHR)"
    numbers = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    assert numbers == "0:0", f"the device has the numbers {numbers}: a whiteout has 0:0"

    def listing() -> list[str]:
        syscalls.unshare(0x20000)
        syscalls.mount(None, "/", None, 0x44000)
        stack.mount_plainly()
        return sorted(os.listdir(stack.target))

    assert inside(listing) == ["dir", "name"]


@pytest.mark.exercise("minirt.overlay.make_opaque")
def test_an_opaque_directory_hides_all_that_is_below(stack: Stack, inside: Callable[..., Any]) -> None:
    (stack.layers / "top/dir").mkdir()
    (stack.layers / "top/dir/new").write_text("new")
    directory = os.open(stack.layers / "top/dir", os.O_RDONLY | os.O_DIRECTORY)
    overlay.make_opaque(directory)
    os.close(directory)
    assert os.listdir(stack.layers / "top/dir") == ["new"], "the mark is an extended attribute, not a file"
    names = [name for name in os.listxattr(stack.layers / "top/dir") if "overlay" in name]
    assert names == ["trusted.overlay.opaque"], f"the attribute is called trusted.overlay.opaque; found: {names}"
    value = os.getxattr(stack.layers / "top/dir", names[0])
    assert value == b"y", f"the value must be b'y', not {value!r}"

    def listing() -> list[str]:
        syscalls.unshare(0x20000)
        syscalls.mount(None, "/", None, 0x44000)
        stack.mount_plainly()
        return os.listdir(stack.target / "dir")

    assert inside(listing) == ["new"]


@pytest.mark.exercise("minirt.overlay.is_whiteout")
def test_a_whiteout_is_told_from_other_files(tmp_path: Path) -> None:
    os.mknod(tmp_path / "gone", stat.S_IFCHR, os.makedev(0, 0))
    (tmp_path / "empty").touch()
    assert overlay.is_whiteout(os.lstat(tmp_path / "gone")) is True, (
        "is_whiteout() says False for a character device 0:0, which is what a whiteout is"
    )
    assert overlay.is_whiteout(os.lstat("/dev/null")) is False, "/dev/null is a character device and no whiteout: 1:3"
    assert overlay.is_whiteout(os.lstat(tmp_path / "empty")) is False, "a regular file is no whiteout, empty or not"
    assert overlay.is_whiteout(os.lstat(tmp_path)) is False


@pytest.mark.exercise("minirt.overlay.is_whiteout")
def test_changes_are_told_as_docker_tells_them(stack: Stack, inside: Callable[..., Any]) -> None:
    def change() -> None:
        syscalls.unshare(0x20000)
        syscalls.mount(None, "/", None, 0x44000)
        stack.mount_plainly()
        os.unlink(stack.target / "below")
        (stack.target / "name").write_text("changed")
        (stack.target / "dir/new").write_text("new")
        (stack.target / "fresh").mkdir()
        (stack.target / "fresh/file").touch()

    inside(change)
    assert overlay.changes(str(stack.upper), stack.lowers()) == [
        ("D", "/below"), ("C", "/dir"), ("A", "/dir/new"), ("A", "/fresh"), ("A", "/fresh/file"), ("C", "/name"),
    ]


def test_a_replaced_directory_is_new_in_all_its_parts(stack: Stack, inside: Callable[..., Any]) -> None:
    def change() -> None:
        syscalls.unshare(0x20000)
        syscalls.mount(None, "/", None, 0x44000)
        stack.mount_plainly()
        os.unlink(stack.target / "dir/old")
        os.rmdir(stack.target / "dir")
        (stack.target / "dir").mkdir()
        (stack.target / "dir/old").write_text("another")

    inside(change)
    assert overlay.is_opaque(str(stack.upper / "dir"))
    assert overlay.changes(str(stack.upper), stack.lowers()) == [("C", "/dir"), ("A", "/dir/old")]


def test_a_hundred_layers_fit(tmp_path: Path, inside: Callable[..., Any]) -> None:
    names = [f"l/{number:020}" for number in range(100)]
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / name[-3:]).touch()
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()

    def listing() -> int:
        syscalls.unshare(0x20000)
        syscalls.mount(None, "/", None, 0x44000)
        paths = [str(tmp_path / name) for name in ("upper", "work", "merged")]
        overlay.mount(names, *paths, str(tmp_path))
        return len(os.listdir(tmp_path / "merged"))

    assert inside(listing) == 100


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A layer that borrows the machine's programs: nothing but links to where they are bound."""
    for name in ("proc", "dev", "etc"):
        (tmp_path / "base" / name).mkdir(parents=True)
    (tmp_path / "base/etc/motd").write_text("hello\n")
    shell = tmp_path / "base/bin"
    shell.mkdir()
    program = Path("/bin/sh").resolve()
    for path in {program, *libraries(program)}:
        place = tmp_path / "base" / str(path).lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
        place.chmod(0o755)
    (shell / "sh").unlink(missing_ok=True)
    os.symlink(os.path.relpath(tmp_path / "base" / str(program).lstrip("/"), shell), shell / "sh")
    return tmp_path / "base"


def libraries(program: Path) -> list[Path]:
    """The shared libraries that a program is loaded with, by their names as it asks for them."""
    import subprocess

    text = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return [Path(word) for word in text.split() if word.startswith("/")]


def test_the_container_program_keeps_the_layers_as_they_are(
        layer: Path, tmp_path: Path, container: Callable[..., Any]) -> None:
    upper = tmp_path / "kept"
    script = "read line < /etc/motd; echo $line; echo new > /etc/motd; echo x > /added; exit 3"
    ran = container("--keep", str(upper), str(layer), "sh", "-c", script)
    assert (ran.status, ran.stdout) == (3, "hello\n"), ran.stderr
    assert ran.stderr.splitlines() == ["A /added", "C /etc", "C /etc/motd"]
    assert (layer / "etc/motd").read_text() == "hello\n"
    assert (upper / "etc/motd").read_text() == "new\n"
    assert not (layer / "added").exists()


def test_the_container_program_answers_wrong_use_with_a_sentence(container: Callable[..., Any]) -> None:
    for wrong in ([], ["--keep"], ["--kep", "upper", "/"], ["/:/nowhere", "true"], ["--keep", "/etc/passwd", "/"]):
        ran = container(*wrong)
        assert ran.status and ran.stderr.startswith("container.py") and ran.stderr.count("\n") == 1, ran


def test_two_containers_share_a_layer_and_no_change(
        layer: Path, tmp_path: Path, container: Callable[..., Any]) -> None:
    first = container(str(layer), "sh", "-c", "echo mine > /etc/motd; read line < /etc/motd; echo $line")
    second = container(str(layer), "sh", "-c", "read line < /etc/motd; echo $line")
    assert (first.stdout, second.stdout) == ("mine\n", "hello\n"), first.stderr + second.stderr


def test_the_container_program_tells_what_it_cannot_run(container: Callable[..., Any]) -> None:
    ran = container("/", "no-such-command")
    assert (ran.status, ran.stderr) == (127, "container.py: no-such-command: not found\n")
    ran = container("/", "/etc/passwd")
    assert (ran.status, ran.stderr) == (126, "container.py: /etc/passwd: cannot be executed\n")

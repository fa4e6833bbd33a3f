"""Chapter 04: a list of mounts of one's own, what is attached and hidden in it, and a root that nothing leads out "
"of."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minirt.errors import KernelError
from minirt.kernel import mount, syscalls
from minirt.namespaces import mnt

NEWNS, REC, PRIVATE, DETACH = 0x00020000, 0x4000, 1 << 18, 2


def apart() -> None:
    """Enter a mount namespace of our own, without the function that is judged."""
    syscalls.unshare(NEWNS)
    syscalls.mount(None, "/", None, REC | PRIVATE)


def points(pid: int | str = "self") -> list[str]:
    """The mount points that a process sees."""
    return [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]


def propagation(point: str = "/") -> str:
    """How the mount at a point spreads: "shared:N", "master:N", or nothing."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return next(" ".join(line[6 : line.index("-")]) for line in reversed(lines) if line[4] == point)


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def place() -> Iterator[str]:
    """An empty directory that lies on the mount of `/` itself."""
    os.mkdir("/minirt-place")
    yield "/minirt-place"
    os.rmdir("/minirt-place")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A directory to be a container's root."""
    top = tmp_path / "box"
    for name in ("etc", "dev", "data", "run"):
        (top / name).mkdir(parents=True)
    (top / "etc/name").write_text("the box's")
    return top


# ------------------------------------------------------------------------------------------------------------- enter


@pytest.mark.exercise("minirt.namespaces.mnt.enter")
def test_entering_gives_a_mount_namespace_of_its_own(spawn: Callable[..., Any], outside: Any) -> None:
    child = spawn(mnt.enter)
    assert child.value is None, "enter() returns nothing: the namespace belongs to the process that called it"
    entered = outside.entered(child.pid)
    assert "mnt" in entered, (
        "after enter() you are still in the machine's mount namespace: call unshare(2) with CLONE_NEWNS, in this "
        "process"
    )
    assert entered == {"mnt"}, f"enter() made more than a mount namespace: {sorted(entered)}"


@pytest.mark.exercise("minirt.namespaces.mnt.enter")
def test_what_is_mounted_inside_does_not_appear_outside(spawn: Callable[..., Any], place: str) -> None:
    def mount_something() -> str:
        mnt.enter()
        syscalls.mount("leak", place, "tmpfs")
        return propagation()

    spread = spawn(mount_something).value
    assert place not in points(), (
        f"a tmpfs was mounted on {place} after enter(), and the machine has it now too: the mounts of the new "
        f"namespace still belong to the machine's peer groups (/ is {spread!r}). Make them private: mount(2) with "
        "MS_REC and MS_PRIVATE"
    )


@pytest.mark.exercise("minirt.namespaces.mnt.enter")
def test_the_mounts_below_are_private_too(spawn: Callable[..., Any], tmp_path: Path) -> None:
    def mount_something() -> None:
        mnt.enter()
        syscalls.mount("leak", str(tmp_path), "tmpfs")

    assert spawn(mount_something).value is None
    assert str(tmp_path) not in points(), (
        f"a tmpfs was mounted on {tmp_path} after enter(), and the machine has it now too: / is private, but that "
        "place lies on another mount, which is not. MS_REC makes the whole tree private"
    )


@pytest.mark.exercise("minirt.namespaces.mnt.enter")
def test_what_is_mounted_outside_does_not_appear_inside(spawn: Callable[..., Any], place: str) -> None:
    def enter_and_look() -> Iterator[bool]:
        mnt.enter()
        yield place in points()
        yield place in points()

    child = spawn(enter_and_look)
    assert child.value is False
    syscalls.mount("late", place, "tmpfs")
    seen = child.resume()
    syscalls.umount2(place)
    assert not seen, (
        "a mount that the machine made after enter() has appeared inside: the new namespace is a slave of the "
        "machine's (MS_SLAVE), and it should be private (MS_PRIVATE)"
    )


@pytest.mark.exercise("minirt.namespaces.mnt.enter")
def test_the_machines_mounts_stay_as_they_were(spawn: Callable[..., Any]) -> None:
    before = propagation()
    assert spawn(mnt.enter).value is None
    after = propagation()
    assert after == before, (
        f"the machine's own / was {before!r} and is {after or 'private'!r} now: the order is wrong. unshare first, or "
        "the mounts that become private are the machine's"
    )


@pytest.mark.exercise("minirt.namespaces.mnt.enter")
def test_whoever_may_not_gets_an_error(inside: Callable[..., Any]) -> None:
    def enter_as_nobody() -> str:
        os.setresuid(65534, 65534, 65534)
        try:
            mnt.enter()
        except PermissionError:
            return "refused"
        return "no error"

    assert inside(enter_as_nobody) == "refused", (
        "the kernel refused (this user may not make a mount namespace), and enter() must raise OSError then, or the "
        "caller goes on to mount things on the machine"
    )


@pytest.mark.exercise("minirt.namespaces.mnt.enter")
def test_mounts_that_stay_shared_are_an_error(inside: Callable[..., Any]) -> None:
    def enter_without_private() -> str:
        real = syscalls.call

        def refusing(name: str, *arguments: Any) -> int:
            if name == "mount":
                raise OSError(errno.EPERM, "as if the kernel had refused")
            return real(name, *arguments)

        syscalls.call = refusing
        try:
            mnt.enter()
        except OSError:
            return "refused"
        return "no error"

    assert inside(enter_without_private) == "refused", (
        "mount(2) failed, so the mounts are shared still, and enter() went on as if they were private: let the OSError "
        "out, or what is mounted from here on appears on the machine"
    )


# ------------------------------------------------------------------------------------------------------------ attach


def attached(box: Path, destination: str, make: Callable[[], int]) -> Iterator[Any]:
    """In a namespace of our own: attach what `make` makes; yield an error's name, or what is left open."""
    apart()
    root = os.open(box, os.O_PATH | os.O_DIRECTORY)
    tree = make()
    before = descriptors()
    try:
        mnt.attach(tree, root, destination)
    except OSError as error:
        yield errno.errorcode[error.errno or 0]
        return
    try:
        os.fstat(tree)
        yield "tree"
    except OSError:
        yield descriptors() - before + 1


def memory() -> int:
    """An empty file system in memory, attached nowhere."""
    return mount.filesystem("tmpfs", {"mode": "700"})


@pytest.mark.exercise("minirt.namespaces.mnt.attach")
def test_a_file_system_is_attached_below_the_root(spawn: Callable[..., Any], box: Path) -> None:
    child = spawn(attached, box, "/data", memory)
    assert not isinstance(child.value, str) or child.value == "tree", (
        f"attach() to an existing directory failed with {child.value}: mount.move_mount(tree, PLACE) wants the "
        "descriptors of both"
    )
    assert str(box / "data") in points(child.pid), (
        "after attach() nothing is mounted on /data of the root: mount.move_mount attaches a detached mount to a place"
    )
    assert str(box / "data") not in points(), "the mount has appeared on the machine"


@pytest.mark.exercise("minirt.namespaces.mnt.attach")
def test_a_missing_place_is_made(spawn: Callable[..., Any], box: Path) -> None:
    child = spawn(attached, box, "/srv/deep/place", memory)
    assert child.value != "ENOENT", (
        "the image has no directory /srv/deep/place, and attach() failed with ENOENT: the place must be made first "
        "(paths.make_mount_point)"
    )
    assert str(box / "srv/deep/place") in points(child.pid)


@pytest.mark.exercise("minirt.namespaces.mnt.attach")
def test_a_file_is_attached_to_a_file(spawn: Callable[..., Any], box: Path, tmp_path: Path) -> None:
    (tmp_path / "resolv").write_text("nameserver")

    def both() -> Iterator[Any]:
        yield from attached(box, "/etc/resolv.conf", lambda: mount.clone(str(tmp_path / "resolv")))

    child = spawn(both)
    assert not isinstance(child.value, str) or child.value == "tree", (
        f"what is attached is a file, and attach() failed with {child.value}: a file can only be mounted on a file. "
        "stat.S_ISDIR(os.fstat(tree).st_mode) tells which it is"
    )
    inside = Path(f"/proc/{child.pid}/root{box}/etc/resolv.conf").read_text()
    assert inside == "nameserver", f"/etc/resolv.conf in the root reads {inside!r}"
    assert (box / "etc/resolv.conf").read_text() == "", "beneath the mount lies an empty file, as the machine sees it"


@pytest.mark.exercise("minirt.namespaces.mnt.attach")
def test_a_link_of_the_image_cannot_lead_a_mount_away(spawn: Callable[..., Any], box: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (box / "data").rmdir()
    (box / "data").symlink_to(tmp_path / "precious")
    (box / str(tmp_path / "precious")[1:]).mkdir(parents=True)
    child = spawn(attached, box, "/data", memory)
    wanted = str(box) + str(tmp_path / "precious")
    assert str(tmp_path / "precious") not in points(child.pid), (
        "the image had a link at /data, and the mount followed it to a directory of the machine. A path below the root "
        "is opened with paths.make_mount_point, and the mount goes to that descriptor"
    )
    assert wanted in points(child.pid), "the link must be followed within the root"


@pytest.mark.exercise("minirt.namespaces.mnt.attach")
def test_attaching_leaves_no_descriptor_open(spawn: Callable[..., Any], box: Path) -> None:
    left = spawn(attached, box, "/data", memory).value
    assert left != "tree", (
        "attach() takes `tree` over: close it when it is attached, or the mount stays in use for ever"
    )
    assert left == 0, f"attach() left {left} descriptors open: close that of the place as well"


# --------------------------------------------------------------------------------------------------------- make_node


def node(box: Path, path: str, *arguments: Any) -> str:
    """Call make_node() with the permissions uncut; return the name of the error, or nothing."""
    root = os.open(box, os.O_PATH | os.O_DIRECTORY)
    before, mask = descriptors(), os.umask(0)
    try:
        mnt.make_node(root, path, *arguments)
        return "" if descriptors() == before else "left open"
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    finally:
        os.umask(mask)
        os.close(root)


@pytest.mark.exercise("minirt.namespaces.mnt.make_node")
def test_a_node_leads_to_the_driver(box: Path) -> None:
    error = node(box, "/dev/null", "c", 1, 3, 0o666)
    path = box / "dev/null"
    assert path.exists(), f"there is no /dev/null in the root ({error or 'and no error'}): os.mknod makes it"
    about = path.stat()
    assert stat.S_ISCHR(about.st_mode), (
        f"what was made is {stat.filemode(about.st_mode)}, no character device: the mode that mknod(2) wants holds the "
        "kind of file as well, stat.S_IFCHR | mode"
    )
    found = os.major(about.st_rdev), os.minor(about.st_rdev)
    assert found == (1, 3), f"the node has the numbers {found}, and (1, 3) was asked for: os.makedev(major, minor)"
    assert stat.S_IMODE(about.st_mode) == 0o666, f"the permissions are {stat.S_IMODE(about.st_mode):o}, not 666"
    path.write_text("away with it")
    assert path.read_text() == "", "whatever is written into the null device is gone"


@pytest.mark.exercise("minirt.namespaces.mnt.make_node")
def test_the_letter_tells_the_kind(box: Path) -> None:
    for letter, kind in (("u", stat.S_IFCHR), ("b", stat.S_IFBLK), ("p", stat.S_IFIFO)):
        path = box / "dev" / letter
        node(box, f"/dev/{letter}", letter, 7, 0, 0o600)
        found = stat.S_IFMT(path.stat().st_mode) if path.exists() else 0
        assert found == kind, (
            f"the letter {letter!r} means {stat.filemode(kind)[0]!r}; what was made is {stat.filemode(found)[0]!r}"
        )


@pytest.mark.exercise("minirt.namespaces.mnt.make_node")
def test_a_node_can_have_an_owner_and_directories_are_made(box: Path) -> None:
    error = node(box, "/dev/snd/timer", "c", 1, 3, 0o660, 12, 34)
    assert error != "ENOENT", "the image has no /dev/snd: paths.make_directories makes it"
    about = (box / "dev/snd/timer").stat()
    assert (about.st_uid, about.st_gid) == (12, 34), (
        f"the node belongs to {about.st_uid}:{about.st_gid}, and 12:34 was asked for: os.chown"
    )
    assert error != "left open", "the descriptor of the directory is still open: close it at the end"


@pytest.mark.exercise("minirt.namespaces.mnt.make_node")
def test_a_link_of_the_image_cannot_lead_a_node_away(box: Path, tmp_path: Path) -> None:
    (tmp_path / "devices").mkdir()
    (box / "dev").rmdir()
    (box / "dev").symlink_to(tmp_path / "devices")
    (box / str(tmp_path / "devices")[1:]).mkdir(parents=True)
    node(box, "/dev/null", "c", 1, 3, 0o666)
    assert not (tmp_path / "devices/null").exists(), (
        "the image had a link at /dev, and the node was made in a directory of the machine. paths.make_directories "
        "gives a descriptor that lies in the root for sure; make the node relative to it (dir_fd)"
    )


@pytest.mark.exercise("minirt.namespaces.mnt.make_node")
def test_what_exists_is_left_as_it_is(box: Path) -> None:
    (box / "dev/null").write_text("the image's own")
    error = node(box, "/dev/null", "c", 1, 3, 0o666, 12, 34)
    assert error != "EEXIST", (
        "there is a /dev/null already, and make_node() raised FileExistsError: nothing is to be done then"
    )
    assert (box / "dev/null").read_text() == "the image's own"
    assert (box / "dev/null").stat().st_uid == 0, "what exists already is left as it is, its owner too"


@pytest.mark.exercise("minirt.namespaces.mnt.make_node")
@pytest.mark.parametrize("owner", [(0, 34), (12, 0)])
def test_a_node_can_belong_to_root_in_one_way_only(box: Path, owner: tuple[int, int]) -> None:
    node(box, "/dev/null", "c", 1, 3, 0o660, *owner)
    about = (box / "dev/null").stat()
    assert (about.st_uid, about.st_gid) == owner, (
        f"the node belongs to {about.st_uid}:{about.st_gid}, and {owner[0]}:{owner[1]} was asked for: the owner is "
        "changed unless both are 0"
    )


@pytest.mark.exercise("minirt.namespaces.mnt.make_node")
def test_a_node_that_cannot_be_made_leaves_no_descriptor_open(box: Path) -> None:
    root = os.open(box, os.O_PATH | os.O_DIRECTORY)
    before = descriptors()
    with pytest.raises(OSError, match="too long"):
        mnt.make_node(root, "/dev/" + "x" * 300, "c", 1, 3, 0o666)
    left = descriptors() - before
    os.close(root)
    assert left == 0, (
        "the name was too long, mknod(2) said so, and the descriptor of the directory is still open: close it in "
        "`finally:`, so that it happens in every case"
    )


# -------------------------------------------------------------------------------------------------------------- mask


def masked(box: Path, path: str) -> Iterator[Any]:
    """In a namespace of our own: mask a path; yield how many descriptors are left open, or the name of the error."""
    apart()
    root = os.open(box, os.O_PATH | os.O_DIRECTORY)
    before = descriptors()
    try:
        mnt.mask(root, path)
    except OSError as error:
        yield errno.errorcode[error.errno or 0]
    except KernelError:
        yield "KernelError"
    else:
        yield descriptors() - before


@pytest.mark.exercise("minirt.namespaces.mnt.mask")
def test_a_masked_file_is_empty(spawn: Callable[..., Any], box: Path) -> None:
    child = spawn(masked, box, "/etc/name")
    seen = Path(f"/proc/{child.pid}/root{box}/etc/name")
    assert child.value == 0 or isinstance(child.value, int), f"mask() failed with {child.value}"
    assert seen.read_text() == "", "the file can still be read inside: attach the machine's /dev/null over it"
    assert stat.S_ISCHR(seen.stat().st_mode), (
        "what covers a file is the null device, so that what is written there is gone as well"
    )
    assert (box / "etc/name").read_text() == "the box's", "outside the file must be what it was"


@pytest.mark.exercise("minirt.namespaces.mnt.mask")
def test_a_masked_directory_is_empty_and_read_only(spawn: Callable[..., Any], box: Path) -> None:
    child = spawn(masked, box, "/etc")
    assert isinstance(child.value, int), (
        f"/etc is a directory, and the mask failed with {child.value}: a file cannot be mounted on a directory. "
        "Cover it with an empty tmpfs"
    )
    seen = f"/proc/{child.pid}/root{box}/etc"
    assert os.listdir(seen) == [], f"inside, the masked directory still shows {os.listdir(seen)}"
    flags = os.statvfs(seen).f_flag
    assert flags & os.ST_RDONLY, "the tmpfs over a masked directory can be written to: the word \"ro\" is missing"
    assert os.listdir(box / "etc") == ["name"], "outside the directory must be what it was"


@pytest.mark.exercise("minirt.namespaces.mnt.mask")
@pytest.mark.parametrize("path, why", [("/proc/kcore", "few have it"), ("/etc/name/x", "a file is on the way")])
def test_what_is_not_there_needs_no_mask(spawn: Callable[..., Any], box: Path, path: str, why: str) -> None:
    found = spawn(masked, box, path).value
    assert found == 0, f"{path} does not exist ({why}), and mask() failed with {found}: there is nothing to hide then"


@pytest.mark.exercise("minirt.namespaces.mnt.mask")
def test_the_null_device_is_not_the_images(spawn: Callable[..., Any], box: Path) -> None:
    (box / "dev/null").write_text("a trap")
    child = spawn(masked, box, "/etc/name")
    assert isinstance(child.value, int), f"mask() failed with {child.value}"
    assert Path(f"/proc/{child.pid}/root{box}/etc/name").read_text() == "", (
        "the image has a file of its own at /dev/null, and that is what covers the path now: use the machine's "
        "/dev/null"
    )


@pytest.mark.exercise("minirt.namespaces.mnt.mask")
def test_the_null_device_is_checked(spawn: Callable[..., Any], box: Path, tmp_path: Path) -> None:
    (tmp_path / "null").write_text("a trap")

    def with_another_null() -> Iterator[Any]:
        steps = masked(box, "/etc/name")
        syscalls.unshare(NEWNS)
        syscalls.mount(None, "/", None, REC | PRIVATE)
        syscalls.mount(str(tmp_path / "null"), "/dev/null", None, mount.MS_BIND)
        yield from steps

    found = spawn(with_another_null).value
    assert found == "KernelError", (
        f"/dev/null was an ordinary file, and mask() covered the path with it (it gave {found!r}): compare st_rdev of "
        "what was opened with os.makedev(1, 3), and raise KernelError"
    )


@pytest.mark.exercise("minirt.namespaces.mnt.mask")
def test_a_link_of_the_image_cannot_lead_a_mask_away(spawn: Callable[..., Any], box: Path, tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("the machine's")
    (box / "link").symlink_to(tmp_path / "passwords")
    child = spawn(masked, box, "/link")
    seen = Path(f"/proc/{child.pid}/root{tmp_path}/passwords").read_text()
    assert seen == "the machine's", (
        "the image had a link at the masked path, and the mask went to a file of the machine: open it with "
        "paths.open_in_root"
    )


@pytest.mark.exercise("minirt.namespaces.mnt.mask")
def test_what_cannot_be_masked_is_an_error(spawn: Callable[..., Any], box: Path) -> None:
    (box / "loop").symlink_to("loop")
    found = spawn(masked, box, "/loop").value
    assert found == "ELOOP", (
        f"the path led in a circle (ELOOP), so nothing was masked, and mask() gave {found!r}: only what does not exist "
        "(FileNotFoundError, NotADirectoryError) needs no mask; any other error must be heard of"
    )


@pytest.mark.exercise("minirt.namespaces.mnt.mask")
def test_masking_leaves_no_descriptor_open(spawn: Callable[..., Any], box: Path) -> None:
    left = spawn(masked, box, "/etc/name").value
    assert left == 0, f"mask() left {left} descriptors open: close the cover and the place"


# ------------------------------------------------------------------------------------------------------------- pivot


def escape() -> list[str]:
    """What root of a container may try: keep a directory, put the root below it, climb up from it. Return what / "
    "holds."""
    held = os.open(".", os.O_RDONLY)
    with contextlib.suppress(FileExistsError):
        os.mkdir("deeper")
    os.chroot("deeper")
    os.fchdir(held)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    return sorted(os.listdir("/"))


def pivoted(box: Path, and_then: Callable[[], Any] | None = None) -> Iterator[Any]:
    """In a namespace of our own: make the box the root; yield what / holds, or the name of the error."""
    apart()
    place = os.open(box, os.O_PATH | os.O_DIRECTORY)
    root = mount.clone("", place, recursive=True)
    mount.move_mount(root, place)
    try:
        mnt.pivot(root)
    except OSError as error:
        yield errno.errorcode[error.errno or 0]
        return
    os.close(root)
    os.close(place)
    yield sorted(os.listdir("/"))
    yield and_then() if and_then else None


IN_THE_BOX = ["data", "dev", "etc", "run"]


@pytest.mark.exercise("minirt.namespaces.mnt.pivot")
def test_the_new_root_is_the_root(spawn: Callable[..., Any], box: Path) -> None:
    child = spawn(pivoted, box)
    reasons = {
        "EBUSY": "EBUSY: we are still in the old root, or other mounts lie below it. Go to the new root first "
        "(os.fchdir), and unmount the old one with MNT_DETACH",
        "EINVAL": "EINVAL: what is to be the root must be a mount, and the working directory must be in it (os.fchdir)",
    }
    assert not isinstance(child.value, str), f"pivot() failed with {reasons.get(child.value, child.value)}"
    names = [name for name in child.value if name != ".old"]
    assert names == IN_THE_BOX, (
        f"after pivot() the root directory holds {child.value[:8]}, and it should hold what the new root holds, "
        f"{IN_THE_BOX}"
    )
    assert os.listdir(f"/proc/{child.pid}/root/etc") == ["name"]


@pytest.mark.exercise("minirt.namespaces.mnt.pivot")
def test_the_old_root_is_gone(spawn: Callable[..., Any], box: Path) -> None:
    child = spawn(pivoted, box)
    assert not isinstance(child.value, str), f"pivot() failed with {child.value}"
    left = points(child.pid)
    below = sorted({point for point in left if point != "/"})
    if below:
        first = next((point for point in below if point.startswith("/.")), below[0])
        pytest.fail(
            f"the old root is still mounted below {first}: {len(left) - 1} mounts of the machine can be reached from "
            "inside. Unmount it, with MNT_DETACH"
        )
    assert len(left) == 1, (
        f"the old root is still mounted: {len(left)} mounts lie on /, one upon the other, and `..` or a descriptor "
        "leads to the other one. pivot_root(\".\", \".\") put it on top; umount2(\".\", MNT_DETACH) takes it away"
    )


@pytest.mark.exercise("minirt.namespaces.mnt.pivot")
def test_nobody_climbs_out(spawn: Callable[..., Any], box: Path) -> None:
    child = spawn(pivoted, box, escape)
    assert not isinstance(child.value, str), f"pivot() failed with {child.value}"
    seen = child.resume()
    assert "data" in seen and "usr" not in seen, (
        f"a program that holds a directory, calls chroot again and climbs up got out: its / holds {seen[:8]} now. "
        "chroot(2) only changes where / points; pivot_root(2) and the unmounting take the machine's tree away"
    )


@pytest.mark.exercise("minirt.namespaces.mnt.pivot")
def test_the_working_directory_is_the_new_root(spawn: Callable[..., Any], box: Path) -> None:
    child = spawn(pivoted, box, os.getcwd)
    assert not isinstance(child.value, str), f"pivot() failed with {child.value}"
    here = child.resume()
    assert here == "/", f"after pivot() the working directory is {here!r}: end with os.chdir(\"/\")"


@pytest.mark.exercise("minirt.namespaces.mnt.pivot")
def test_what_is_no_mount_cannot_be_the_root(inside: Callable[..., Any], box: Path) -> None:
    def not_a_mount() -> str:
        apart()
        try:
            mnt.pivot(os.open(box, os.O_PATH | os.O_DIRECTORY))
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "no error"

    assert inside(not_a_mount) == "EINVAL", (
        "a directory that is no mount cannot become the root: the kernel says EINVAL, and pivot() must let that out, "
        "or the container runs in the machine's root"
    )


# -------------------------------------------------------------------------------------------------- the other functions


def test_the_devices_and_links_of_dev(inside: Callable[..., Any], box: Path) -> None:
    def made() -> None:
        root = os.open(box, os.O_PATH | os.O_DIRECTORY)
        os.umask(0o077)
        mnt.make_devices(root, [{"path": "/dev/loop9", "type": "b", "major": 7, "minor": 9, "fileMode": 0o640}])

    inside(made)
    for path, _, major, minor, mode in mnt.DEVICES:
        about = os.lstat(f"{box}{path}")
        assert (os.major(about.st_rdev), os.minor(about.st_rdev), stat.S_IMODE(about.st_mode)) == (major, minor, mode)
    assert {name: os.readlink(box / "dev" / name) for name, _ in mnt.LINKS} == dict(mnt.LINKS)
    assert stat.S_ISBLK(os.lstat(box / "dev/loop9").st_mode)


def test_a_bind_mount_can_be_read_only_and_have_its_propagation(spawn: Callable[..., Any], box: Path) -> None:
    def bound() -> Iterator[tuple[str, str]]:
        tree = mnt.bind(str(box / "etc"), ["rbind", "ro", "rslave"])
        apart()
        root = os.open(box, os.O_PATH | os.O_DIRECTORY)
        mnt.attach(tree, root, "/data")
        try:
            (box / "data/new").write_text("")
            yield "written", propagation(str(box / "data"))
        except OSError as error:
            yield errno.errorcode[error.errno or 0], propagation(str(box / "data"))

    error, spread = spawn(bound).value
    assert error == "EROFS" and spread.startswith("master:"), "ro, and a slave of the machine's mount"


def test_read_only_paths_cannot_be_written(inside: Callable[..., Any], box: Path) -> None:
    def write() -> str:
        apart()
        root = os.open(box, os.O_PATH | os.O_DIRECTORY)
        mnt.make_read_only(root, "/etc")
        mnt.make_read_only(root, "/no/such/path")
        try:
            (box / "etc/name").write_text("changed")
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "written"

    assert inside(write) == "EROFS"
    (box / "etc/name").write_text("outside it can be")


# --------------------------------------------------------------------------------------------------- the whole chapter


def test_the_container_sees_its_own_root_and_processes(container: Callable[..., Any]) -> None:
    before = points()
    ran = container("/", "sh", "-c", "echo $$; echo /proc/[0-9]*; echo /dev/*; cat /proc/self/mountinfo | wc -l")
    number, processes, devices, _ = ran.stdout.splitlines()
    assert (ran.status, number) == (0, "1"), ran.stderr
    assert processes == "/proc/1", "in /proc are the container's processes alone"
    assert "/dev/null" in devices.split() and "/dev/tty" in devices.split()
    assert points() == before, "the container's mounts have appeared on the machine"


def test_the_container_hides_what_belongs_to_the_machine(container: Callable[..., Any]) -> None:
    ran = container("/", "sh", "-c", "cat /proc/interrupts /proc/keys; test -w /proc/sys/kernel/hostname || echo no")
    assert ran.stdout == "no\n", "interrupts and keys are masked, and /proc/sys is read-only"


def test_the_containers_root_has_nothing_of_the_machine(container: Callable[..., Any], box: Path) -> None:
    (box / "bin").mkdir()
    ran = container(str(box), "/bin/none")
    assert (ran.status, ran.stderr) == (127, "container.py: /bin/none: not found\n")
    assert sorted(os.listdir(box)) == sorted([*IN_THE_BOX, "bin", "proc"]), "only the mount points that were missing"
    assert os.listdir(box / "dev") == [], "its /dev was a file system in memory, and went with it"


def test_the_exit_code_is_the_commands(container: Callable[..., Any]) -> None:
    assert container("--init", "/", "sh", "-c", "exit 9").status == 9
    assert container("/", "sh", "-c", "kill -KILL $$; exit 4").status == 4, "number 1 does not die of its own SIGKILL"

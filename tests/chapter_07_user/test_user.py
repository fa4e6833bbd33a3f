"""Chapter 07: user namespaces, their maps, and mounts that show owners through them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minirt.kernel import mount, process, syscalls
from minirt.namespaces import mnt, rootless, user

ALICE = 1000
WHOLE = [(0, 100000, 65536)]


def become_alice() -> None:
    """Be an ordinary user, without a trace of root: dumpable again, or /proc/self would still belong to root."""
    os.setgroups([])
    os.setresgid(ALICE, ALICE, ALICE)
    os.setresuid(ALICE, ALICE, ALICE)
    syscalls.call("prctl", process.PR_SET_DUMPABLE, 1, 0, 0, 0)


def content(path: str) -> str:
    return Path(path).read_text()


def ranges(path: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, line.split())) for line in content(path).splitlines()]


# -- enter ---------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("minirt.namespaces.user.enter")
def test_entering_gives_a_user_namespace_of_its_own(spawn: Callable[..., Any], outside: Any) -> None:
    child = spawn(user.enter)
    assert child.value is None, "enter() returns nothing: the namespace belongs to the process that called it"
    assert "user" in outside.entered(child.pid), (
        "after enter() you are still in the machine's user namespace: call unshare(2) with CLONE_NEWUSER"
    )


@pytest.mark.exercise("minirt.namespaces.user.enter")
def test_entering_changes_no_other_namespace(spawn: Callable[..., Any], outside: Any) -> None:
    child = spawn(user.enter)
    assert child.value is None
    more = outside.entered(child.pid) - {"user"}
    assert not more, f"enter() made more than a user namespace: {', '.join(sorted(more))} as well; one bit is enough"


@pytest.mark.exercise("minirt.namespaces.user.enter")
def test_an_ordinary_user_may(inside: Callable[..., Any]) -> None:
    def enter_as_alice() -> str:
        become_alice()
        try:
            user.enter()
        except OSError as error:
            return str(error)
        return str(os.getuid())

    assert inside(enter_as_alice) == str(user.NOBODY), (
        "a user namespace needs no privilege: any user may make one, and has no name in it until a map is written"
    )


@pytest.mark.exercise("minirt.namespaces.user.enter")
def test_a_refusal_is_an_error(inside: Callable[..., Any], tmp_path: Path) -> None:
    def enter_in_a_chroot() -> str:
        os.chroot(tmp_path)
        try:
            user.enter()
        except PermissionError:
            return "refused"
        return "no error"

    assert inside(enter_in_a_chroot) == "refused", (
        "the kernel refuses a user namespace to a process in a chroot, and enter() must raise OSError then, "
        "or the caller goes on as the root that he is"
    )


# -- outside -------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("minirt.namespaces.user.outside")
def test_a_number_inside_is_another_outside() -> None:
    found = user.outside([(0, 1000, 1)], 0)
    assert found == 1000, f"with the map 0 1000 1, 0 inside is 1000 outside, not {found}"
    found = user.outside([(0, 100000, 65536)], 33)
    assert found == 100033, f"with the map 0 100000 65536, 33 inside is 100033 outside, not {found}"


@pytest.mark.exercise("minirt.namespaces.user.outside")
@pytest.mark.parametrize("mapping", [[(5, 1000, 1)], [(0, 1000, 1)]])
def test_a_number_without_a_place_is_nobody(mapping: list[tuple[int, int, int]]) -> None:
    found = user.outside(mapping, 3)
    assert found == -1, f"3 has no place in the map {mapping}: the answer is -1, not {found}"


@pytest.mark.exercise("minirt.namespaces.user.outside")
def test_a_range_ends_before_its_size() -> None:
    assert user.outside([(0, 1000, 10)], 9) == 1009, "9 is the last of the ten numbers from 0 on"
    assert user.outside([(0, 1000, 10)], 10) == -1, (
        "a range of ten numbers that begins with 0 ends with the one before 10: 10 itself is not in it"
    )


@pytest.mark.exercise("minirt.namespaces.user.outside")
def test_a_map_may_have_several_ranges() -> None:
    mapping = [(0, 1000, 1), (1, 100000, 999), (1000, 500, 10)]
    found = {number: user.outside(mapping, number) for number in (0, 1, 33, 1003)}
    assert found == {0: 1000, 1: 100000, 33: 100032, 1003: 503}, (
        f"a map may have several ranges, and each begins to count anew: with {mapping} you found {found}"
    )


# -- write_maps ----------------------------------------------------------------------------------------------------


def enter_and_wait() -> Iterator[Any]:
    user.enter()
    yield "in"
    yield os.getresuid() + os.getresgid()


@pytest.mark.exercise("minirt.namespaces.user.write_maps")
def test_both_maps_are_written(spawn: Callable[..., Any]) -> None:
    child = spawn(enter_and_wait)
    assert child.value == "in"
    user.write_maps(child.pid, [(0, 1000, 1)], [(0, 1001, 1)], privileged=True)
    assert ranges(f"/proc/{child.pid}/uid_map") != [(1000, 0, 1)], (
        "the map of the users is turned round: in a line of the kernel's file the number inside comes first"
    )
    assert ranges(f"/proc/{child.pid}/uid_map") == [(0, 1000, 1)], "the users have no map, or another one"
    assert ranges(f"/proc/{child.pid}/gid_map") == [(0, 1001, 1)], (
        "the groups have no map, or another one: there are two files, uid_map and gid_map"
    )


@pytest.mark.exercise("minirt.namespaces.user.write_maps")
def test_a_map_of_several_ranges_is_one_write(spawn: Callable[..., Any]) -> None:
    child = spawn(enter_and_wait)
    assert child.value == "in"
    mapping = [(0, 1000, 1), (1, 100000, 65536)]
    try:
        user.write_maps(child.pid, mapping, mapping, privileged=True)
    except PermissionError:
        pytest.fail("the kernel refused: a map can be written only once, so all lines in one write(2)")
    found = ranges(f"/proc/{child.pid}/uid_map")
    assert found == mapping, f"the map of the users is {found}, not {mapping}: all lines in one write(2)"


@pytest.mark.exercise("minirt.namespaces.user.write_maps")
def test_who_has_the_privilege_keeps_setgroups(spawn: Callable[..., Any]) -> None:
    child = spawn(enter_and_wait)
    assert child.value == "in"
    user.write_maps(child.pid, WHOLE, WHOLE, privileged=True)
    assert content(f"/proc/{child.pid}/setgroups").strip() == "allow", (
        "with the privilege leave /proc/PID/setgroups alone: after \"deny\" no process of the container can take the "
        "groups of its user"
    )


@pytest.mark.exercise("minirt.namespaces.user.write_maps")
def test_an_ordinary_user_maps_himself(inside: Callable[..., Any]) -> None:
    def map_alice() -> str:
        become_alice()
        user.enter()
        try:
            user.write_maps(os.getpid(), [(0, ALICE, 1)], [(0, ALICE, 1)], privileged=False)
        except PermissionError:
            return "refused"
        return f"{os.getuid()}:{os.getgid()} {content('/proc/self/setgroups').strip()}"

    answer = inside(map_alice)
    assert answer != "refused", (
        "an ordinary user's gid_map is refused until \"deny\" stands in /proc/PID/setgroups: write that before gid_map"
    )
    assert answer == "0:0 deny", f"the user should be 0:0 in his namespace, without setgroups, and is {answer}"


@pytest.mark.exercise("minirt.namespaces.user.write_maps")
def test_a_map_cannot_be_written_twice(spawn: Callable[..., Any]) -> None:
    child = spawn(enter_and_wait)
    assert child.value == "in"
    user.write_maps(child.pid, WHOLE, WHOLE, privileged=True)
    with pytest.raises(OSError):
        user.write_maps(child.pid, WHOLE, WHOLE, privileged=True)


# -- subordinate ---------------------------------------------------------------------------------------------------

SUBUID = """\
# who has which
root:100000:65536
alice:165536:65536

alice2:231072:65536
1000:300000:10
alice:400000:5
alice:x:5
alice:1
alice:500000:0
"""


@pytest.mark.exercise("minirt.namespaces.user.subordinate")
def test_a_line_sets_a_range_aside() -> None:
    found = user.subordinate("alice:100000:65536\n", "alice", ALICE)
    assert found == [(100000, 65536)], f"the line says where the ids begin and how many there are, not {found}"
    assert user.subordinate("", "alice", ALICE) == [], "without a line there is nothing: an empty list"


@pytest.mark.exercise("minirt.namespaces.user.subordinate")
def test_a_name_counts_whole() -> None:
    found = user.subordinate("alice2:231072:65536\nalice:165536:65536\n", "alice", ALICE)
    assert found == [(165536, 65536)], f"of {found} one range belongs to somebody else: compare the whole name"


@pytest.mark.exercise("minirt.namespaces.user.subordinate")
def test_a_user_may_have_several_lines() -> None:
    found = user.subordinate("alice:165536:65536\nbob:1:1\nalice:400000:5\n", "alice", ALICE)
    assert found == [(165536, 65536), (400000, 5)], f"a user may have several lines, and all of them count; not {found}"


@pytest.mark.exercise("minirt.namespaces.user.subordinate")
def test_the_owner_may_be_a_number() -> None:
    found = user.subordinate("1000:300000:10\n", "alice", ALICE)
    assert found == [(300000, 10)], "the owner may be named by the number of the user as well"


@pytest.mark.exercise("minirt.namespaces.user.subordinate")
def test_other_lines_are_passed_over() -> None:
    try:
        found = user.subordinate(SUBUID, "alice", ALICE)
    except (ValueError, IndexError) as error:
        pytest.fail(f"a line that is not of this form must be passed over, and one of them raised: {error}")
    assert found == [(165536, 65536), (300000, 10), (400000, 5)], (
        f"lines that are not of this form, and counts of 0, are passed over; not {found}"
    )


# -- id_map --------------------------------------------------------------------------------------------------------


needs_6_3 = pytest.mark.skipif(
    tuple(map(int, os.uname().release.split(".")[:2])) < (6, 3), reason="tmpfs can be id-mapped since Linux 6.3"
)


def mapped(directory: Path) -> int:
    """A detached mount of `directory`, id-mapped to a user namespace whose 0 is 100000."""
    namespace = user.make(WHOLE, WHOLE)
    tree = mount.clone(str(directory))
    user.id_map(tree, namespace)
    os.close(namespace)
    return tree


@needs_6_3
@pytest.mark.exercise("minirt.namespaces.user.id_map")
def test_the_process_stays_where_it_is(state_root: Path, spawn: Callable[..., Any], outside: Any) -> None:
    def try_it() -> bool:
        try:
            mapped(state_root)
        except OSError:
            pass  # the next test asks why
        return True

    child = spawn(try_it)
    assert child.value
    assert not outside.entered(child.pid), (
        "this process has changed its namespace: id_map() changes how a mount shows owners, and nothing else"
    )


@needs_6_3
@pytest.mark.leaves("the directory that was shown")
@pytest.mark.exercise("minirt.namespaces.user.id_map")
def test_files_show_the_owners_of_the_namespace(state_root: Path, inside: Callable[..., Any]) -> None:
    place = state_root / "layer"
    place.mkdir()
    for name, owner in (("a", 0), ("b", 33)):
        (place / name).write_text(name)
        os.chown(place / name, owner, owner)

    def owners() -> Any:
        try:
            tree = mapped(place)
        except OSError as error:
            return str(error)
        return [os.stat(f"/proc/self/fd/{tree}/{name}").st_uid for name in ("a", "b")]

    seen = inside(owners)
    stored = [(place / name).stat().st_uid for name in ("a", "b")]
    assert stored == [0, 33], f"the owners were changed on the disk, to {stored}: an id-mapped mount only shows others"
    assert isinstance(seen, list), (
        f"mount_setattr(2) said: {seen}. It wants MOUNT_ATTR_IDMAP to be added, and the namespace as `userns`"
    )
    assert seen == [100000, 100033], (
        f"seen through the mount the files belong to {seen}, and should to 100000 and 100033: a file of user 0 on the "
        "disk still belongs to him unless the mount has MOUNT_ATTR_IDMAP"
    )


@needs_6_3
@pytest.mark.leaves("the directory that was shown")
@pytest.mark.exercise("minirt.namespaces.user.id_map")
def test_what_the_namespaces_root_makes_is_roots_on_the_disk(state_root: Path, inside: Callable[..., Any]) -> None:
    place, shown = state_root / "layer", state_root / "shown"
    place.mkdir()
    shown.mkdir()

    def make_a_file() -> bool:
        mnt.enter()
        namespace = user.make(WHOLE, WHOLE)
        tree = mount.clone(str(place))
        user.id_map(tree, namespace)
        target = os.open(shown, os.O_PATH)
        mount.move_mount(tree, target)
        user.configure(namespace)
        (shown / "new").write_text("x")
        return True

    assert inside(make_a_file)
    assert (place / "new").stat().st_uid == 0, "what the namespace's root makes there is stored as user 0's"


@pytest.mark.exercise("minirt.namespaces.user.id_map")
def test_a_mount_that_is_attached_can_be_mapped_no_more(inside: Callable[..., Any]) -> None:
    def try_it() -> str:
        try:
            user.id_map(os.open("/", os.O_PATH), user.make(WHOLE, WHOLE))
        except OSError:
            return "refused"
        return "no error"

    assert inside(try_it) == "refused", "the kernel refused, and id_map() must raise OSError then"


# -- the chapter as a whole ----------------------------------------------------------------------------------------


def test_root_inside_is_nobody_special_outside(inside: Callable[..., Any], tmp_path: Path) -> None:
    target = tmp_path / "secret"
    target.write_text("of root")
    target.chmod(0o600)
    os.chmod(tmp_path, 0o755)

    def attack() -> list[str]:
        become_alice()
        user.enter()
        user.write_maps(os.getpid(), [(0, ALICE, 1)], [(0, ALICE, 1)], privileged=False)
        tried = {
            "read": lambda: target.read_text(), "own": lambda: os.chown(target, 0, 0),
            "node": lambda: os.mknod("/dev/shm/node", 0o20666, os.makedev(1, 3)),
            "groups": lambda: os.setgroups([0]), "other": lambda: os.setresuid(33, 33, 33),
        }
        stopped = []
        for name, action in tried.items():
            try:
                action()
            except OSError:
                stopped.append(name)
        return stopped

    assert inside(attack) == ["read", "own", "node", "groups", "other"]


def test_a_namespace_of_root_holds_whole_maps(inside: Callable[..., Any]) -> None:
    def enter_it() -> list[Any]:
        user.configure(user.make(WHOLE, WHOLE))
        os.setgroups([5])
        return [os.getuid(), os.getgroups(), user.read_map()]

    assert inside(enter_it) == [0, [5], [(0, 100000, 65536)]]


def test_devices_are_bound_where_nodes_cannot_be_made(inside: Callable[..., Any]) -> None:
    def bind() -> list[Any]:
        become_alice()
        user.enter()
        user.write_maps(os.getpid(), [(0, ALICE, 1)], [(0, ALICE, 1)], privileged=False)
        mnt.enter()
        tree = mount.filesystem("tmpfs", {"mode": "755"})
        target = os.open("/mnt", os.O_PATH)
        mount.move_mount(tree, target)
        os.mkdir("/mnt/dev")
        root = os.open("/mnt", os.O_PATH)
        user.bind_devices(root)
        Path("/mnt/dev/null").write_text("gone")
        return [os.stat("/mnt/dev/null").st_rdev == os.makedev(1, 3), os.readlink("/mnt/dev/fd")]

    assert inside(bind) == [True, "/proc/self/fd"]


@pytest.mark.leaves("the user's run directory")
def test_an_ordinary_user_becomes_root_of_his_own(inside: Callable[..., Any]) -> None:
    os.makedirs(f"/run/user/{ALICE}", exist_ok=True)
    os.chown(f"/run/user/{ALICE}", ALICE, ALICE)
    home = Path("/tmp/home")
    home.mkdir()
    os.chown(home, ALICE, ALICE)

    def become() -> list[Any]:
        os.environ.pop("MINIRT_ROOT", None)
        os.environ["XDG_DATA_HOME"] = str(home)
        os.environ["PATH"] = "/nowhere"  # not even newuidmap: one user is left
        become_alice()
        rootless.maps = lambda: ([(0, ALICE, 1)], [(0, ALICE, 1)], "")  # type: ignore[assignment]
        rootless.enter()
        from minirt import state

        return [os.getuid(), state.root(), state.run_root().startswith(f"/run/user/{ALICE}/minirt/"), state.ordinary(),
                rootless.owners()(33, 33)]

    assert inside(become) == [0, f"{home}/minirt", True, True, (0, 0)]


def test_the_container_program_shows_who_its_root_is(container: Callable[..., Any]) -> None:
    done = container("--as", "1000", "/", "sh", "-c", "id -u; cat /proc/self/uid_map; echo x > /etc/passwd")
    lines = done.stdout.split("\n")
    assert lines[0] == "0", done.stderr
    assert lines[1].split() == ["0", "1000", "1"]
    assert done.status == 2 or done.status == 1
    assert "ermission denied" in done.stderr


def test_the_container_program_tells_what_it_cannot_run(container: Callable[..., Any]) -> None:
    ran = container("/", "no-such-command")
    assert (ran.status, ran.stderr) == (127, "container.py: no-such-command: not found\n")
    ran = container("/", "/etc/passwd")
    assert (ran.status, ran.stderr) == (126, "container.py: /etc/passwd: cannot be executed\n")

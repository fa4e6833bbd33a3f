"""Chapter 12: the parts that the last steps are made of, and the whole from inside and outside."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minirt.errors import CannotInvokeError, CommandNotFoundError
from minirt.kernel import syscalls
from minirt.process import enter, join, program, users

KINDS = {"mnt": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000, "net": 0x40000000}


# -- the sealed program -----------------------------------------------------------------------------------------------


@pytest.mark.exercise("minirt.process.program.sealed")
@pytest.mark.parametrize("which", [program.LAST, program.JOIN])
def test_it_holds_the_program(which: str) -> None:
    descriptor = program.sealed(which)
    content = os.pread(descriptor, 4096, 0)
    assert content == program.image(which), f"what it holds ({len(content)} bytes) is not the program {which.upper()}"
    assert os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:"), "it must be in memory: memfd_create(2)"
    assert not os.get_inheritable(descriptor), "it stays open across exec: the container would get it (MFD_CLOEXEC)"
    os.close(descriptor)


@pytest.mark.exercise("minirt.process.program.sealed")
def test_nobody_can_change_it() -> None:
    descriptor = program.sealed()
    seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_WRITE, "whoever holds it can still write into it: that is what the seals are for"
    assert seals == 15, (
        f"the seals are {seals:#06b}; more seals are wanted: against growing, shrinking, and taking seals off"
    )
    os.close(descriptor)


@pytest.mark.exercise("minirt.process.program.sealed")
def test_it_opens_one_descriptor(inside: Callable[..., Any]) -> None:
    def attempt() -> list[int]:
        def is_open(number: int) -> bool:
            return os.path.exists(f"/proc/self/fd/{number}")

        before = [number for number in range(256) if is_open(number)]
        descriptor = program.sealed()
        return [number for number in range(256) if is_open(number) and number not in (*before, descriptor)]

    left = inside(attempt)
    assert not left, f"descriptor {left} is left open beside the one returned: nobody would ever close it"


# -- the lock-out -----------------------------------------------------------------------------------------------------


@pytest.mark.exercise("minirt.process.enter.lock_out_imports")
def test_nothing_can_be_imported_any_more(inside: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("raise SystemExit('the image has run its own code')\n")

    def attempt() -> str:
        sys.path.insert(0, str(tmp_path))
        lists, cache = (sys.path, sys.meta_path, sys.path_hooks), sys.path_importer_cache
        enter.lock_out_imports()
        if any(lists):
            return "in place"
        if sys.path_importer_cache or cache:
            return "remembered"
        for name in ("planted", "colorsys", "this"):
            try:
                __import__(name)
            except ImportError:
                continue
            except SystemExit as error:
                return str(error)
            return f"{name} was still found"
        return "locked"

    sys.modules.pop("colorsys", None)
    found = inside(attempt)
    assert found != "in place", "other modules hold these very lists: empty them in place, do not make new ones"
    assert found != "remembered", "sys.path_importer_cache still remembers finders of the machine's: clear that as well"
    assert found == "locked", f"{found}: an import after this call must fail, whatever lies in the root"


@pytest.mark.exercise("minirt.process.enter.lock_out_imports")
def test_what_is_loaded_stays(inside: Callable[..., Any]) -> None:
    def attempt() -> bool:
        before = set(sys.modules)
        enter.lock_out_imports()
        return before <= set(sys.modules)

    assert inside(attempt) is True, "what is loaded already must stay: sys.modules is not to be touched"


# -- another user -----------------------------------------------------------------------------------------------------


@pytest.mark.exercise("minirt.process.enter.become")
def test_every_id_is_the_users(inside: Callable[..., Any]) -> None:
    def attempt() -> tuple[Any, ...]:
        os.setgroups([0, 5])
        enter.become(users.User(1234, 2345, [2345, 3456], "/"))
        return os.getresuid(), os.getresgid(), sorted(os.getgroups())

    uids, gids, groups = inside(attempt)
    assert groups == [2345, 3456], f"the supplementary groups are {groups}, not the user's 2345 and 3456: setgroups(2)"
    assert set(gids) <= {0, 2345}, f"the group is {gids}, not 2345"
    assert uids == (1234,) * 3 and gids == (2345,) * 3, (
        f"the ids are {uids} and {gids}: real, effective and saved must all be the user's, a saved 0 is a way back"
    )


@pytest.mark.exercise("minirt.process.enter.become")
def test_root_of_other_groups_and_nobody_without_any(inside: Callable[..., Any]) -> None:
    def attempt(uid: int, groups: list[int]) -> tuple[Any, ...]:
        os.setgroups([0, 5])
        enter.become(users.User(uid, 2345, groups, "/"))
        return os.getresuid(), os.getresgid(), sorted(os.getgroups())

    groups = inside(attempt, 1234, [])[2]
    assert groups == [], f"the user has no supplementary groups, and kept root's {groups}: an empty list is a list, too"
    found = inside(attempt, 0, [3456])
    assert found == ((0,) * 3, (2345,) * 3, [3456]), (
        f"user 0 with group 2345 and supplementary group 3456 (`--user 0:2345`) got {found}: user 0 is like any other")


@pytest.mark.exercise("minirt.process.enter.become")
def test_an_identity_that_cannot_be_had_is_an_error(inside: Callable[..., Any]) -> None:
    def attempt() -> str:
        os.setresuid(65534, 65534, 65534)
        try:
            enter.become(users.User(1234, 2345, [2345], "/"))
        except PermissionError:
            return "refused"
        return f"user {os.getuid()}"

    found = inside(attempt)
    assert found == "refused", (
        f"the kernel refused (EPERM), and become() returned: the command would run as {found}; let OSError out")


# -- the program ------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    for path, mode in (("first/tool", 0o644), ("second/tool", 0o755), ("second/other", 0o755), ("first/plain", 0o644)):
        (tmp_path / path).write_text("#!/bin/sh\n")
        (tmp_path / path).chmod(mode)
    for directory in ("first", "second"):
        (tmp_path / directory / "both").write_text("#!/bin/sh\n")
        (tmp_path / directory / "both").chmod(0o755)
    (tmp_path / "first/linked").symlink_to(tmp_path / "second")
    (tmp_path / "first/other").mkdir()
    (tmp_path / "first/only").mkdir()
    return tmp_path


@pytest.mark.exercise("minirt.process.enter.find_program")
def test_only_the_containers_path_is_searched(place: Path) -> None:
    with pytest.raises(CommandNotFoundError) as error:
        found = enter.find_program("sh", [f"PATH={place}/first"])
        pytest.fail(f"found {found}: the PATH of the container counts, in `env`, and not the one of this process")
    assert error.value.exit_code == 127
    assert enter.find_program("sh", ["PATH=/nowhere:/bin"]) == "/bin/sh"
    os.chdir(place)
    with pytest.raises(CommandNotFoundError):
        found = enter.find_program("sh", ["HOME=/"])
        pytest.fail(f"found {found}: `env` has no PATH, so there is no directory to search in")


@pytest.mark.exercise("minirt.process.enter.find_program")
def test_path_is_one_name_and_its_value_the_rest(place: Path) -> None:
    (place / "a=b").mkdir()
    (place / "a=b/strange").symlink_to(place / "second/tool")
    for other in (f"MANPATH={place}/first", f"PATHS={place}/first", "NOPATH=1", "A=PATH=/nowhere"):
        try:
            found = enter.find_program("both", [other, f"PATH={place}/second"])
        except CommandNotFoundError:
            found = "nothing"
        assert found == f"{place}/second/both", (
            f"found {found} with {other.partition('=')[0]} before PATH in `env`: the entry begins with PATH=, whole")
    try:
        found = enter.find_program("strange", [f"PATH=/nowhere:{place}/a=b"])
    except CommandNotFoundError:
        found = "nothing"
    assert found == f"{place}/a=b/strange", (
        f"found {found}: the value is all behind the first \"=\", and may have another one in it")


@pytest.mark.exercise("minirt.process.enter.find_program")
def test_the_first_that_can_be_executed_is_taken(place: Path) -> None:
    env = ["A=1", f"PATH={place}/first:{place}/second:/bin"]
    found = enter.find_program("tool", env)
    assert found == f"{place}/second/tool", f"{found} cannot be executed: go on to the next directory"
    found = enter.find_program("other", env)
    assert found == f"{place}/second/other", f"{found} is a directory, and no program: go on"
    found = enter.find_program("both", env)
    assert found == f"{place}/first/both", f"found {found}, but an earlier directory of PATH has one: the first counts"
    found = enter.find_program("both", [f"PATH={place}/first/plain:{place}/second"])
    assert found == f"{place}/second/both"


@pytest.mark.exercise("minirt.process.enter.find_program")
def test_a_name_with_a_slash_is_a_path(place: Path) -> None:
    assert enter.find_program(f"{place}/second/tool", []) == f"{place}/second/tool", "a path is taken as it is"
    os.chdir(place)
    assert enter.find_program("./second/tool", []) == "./second/tool"
    os.chdir(place / "second")
    assert enter.find_program("tool", ["PATH=/nowhere:"]) == "./tool", "an empty directory in PATH means \".\""
    with pytest.raises(CommandNotFoundError):
        enter.find_program(f"{place}/nothing", [])


@pytest.mark.exercise("minirt.process.enter.find_program")
def test_what_is_there_and_cannot_be_used_is_126(place: Path) -> None:
    for name in (f"{place}/first/plain", f"{place}/first/only", "plain", f"{place}/first/linked"):
        try:
            enter.find_program(name, [f"PATH={place}/first"])
        except CannotInvokeError as error:
            assert error.exit_code == 126
        except CommandNotFoundError:
            pytest.fail(f"{name} was found, and cannot be executed: that is CannotInvokeError (126), not 127")
        else:
            pytest.fail(f"{name} is a directory, or nobody may execute it: that is CannotInvokeError (126)")


@pytest.mark.exercise("minirt.process.enter.find_program")
def test_the_users_own_permissions_count(place: Path, inside: Callable[..., Any]) -> None:
    for path, mode in (("closed", 0o700), ("roots", 0o744), ("everyones", 0o755)):
        (place / path).mkdir(mode=0o755)
        (place / path / "program").write_text("#!/bin/sh\n")
        (place / path / "program").chmod(0o755)
        (place / path / ("." if path == "closed" else "program")).chmod(mode)
    for directory in (place, *place.parents[:2]):
        directory.chmod(0o755)

    def attempt(name: str, directories: str, real: int) -> str:
        os.setresuid(real, 65534, real)
        try:
            return enter.find_program(name, ["PATH=" + directories])
        except (CannotInvokeError, CommandNotFoundError) as error:
            return type(error).__name__
        except PermissionError as error:
            return f"PermissionError: {error}"

    for real in (65534, 0):
        found = inside(attempt, "program", f"{place}/roots:{place}/everyones", real)
        assert found == f"{place}/everyones/program", (
            f"as an ordinary user (real id {real}) it gave {found}: the program in roots/ may be executed by root "
            "alone, and the effective ids of this process are those of the command's user: os.access() tells")
    for name in ("program", f"{place}/closed/program"):
        found = inside(attempt, name, f"{place}/closed", 65534)
        assert found == "CannotInvokeError", (
            f"{found} for a program in a directory that this user may not enter: there may be one, so it is 126")
    assert inside(attempt, "program", f"{place}/closed:{place}/everyones", 65534) == f"{place}/everyones/program", (
        "a directory of PATH that may not be entered is no end of the search: remember it, and go on")


# -- joining ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def walled(spawn: Callable[..., Any]) -> Any:
    """A process behind walls of its own, with a child that is number 1 of its pid namespace."""

    def behind() -> Iterator[int]:
        syscalls.unshare(sum(KINDS.values()) | 0x20000000)
        pid = os.fork()
        if not pid:
            while True:
                os.read(os.pipe()[0], 1)
        yield pid
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        yield 0

    child = spawn(behind)
    yield child
    child.resume()


@pytest.mark.exercise("minirt.process.join.enter_namespaces")
def test_joining_enters_every_namespace(walled: Any, inside: Callable[..., Any]) -> None:
    inner = walled.value
    theirs = {kind: os.readlink(f"/proc/{inner}/ns/{kind}") for kind in (*KINDS, "pid")}

    def attempt() -> dict[str, str]:
        proc = os.open("/proc", os.O_RDONLY)  # of this pid namespace: the joined one's /proc would not show us
        me = os.getpid()
        target = os.pidfd_open(inner)
        join.enter_namespaces(target)
        os.fstat(target)  # it stays open: who called holds it
        found = {kind: os.readlink(f"{me}/ns/{kind}", dir_fd=proc) for kind in KINDS}
        return {**found, "pid": os.readlink(f"{me}/ns/pid_for_children", dir_fd=proc)}

    found = inside(attempt)
    for kind in KINDS:
        assert found[kind] == theirs[kind], f"you are not in its {kind} namespace: every bit of EVERY_NAMESPACE counts"
    assert found["pid"] == theirs["pid"], "your children are not in its pid namespace: CLONE_NEWPID counts too"


@pytest.mark.exercise("minirt.process.join.enter_namespaces")
def test_who_has_ended_cannot_be_joined(inside: Callable[..., Any]) -> None:
    def attempt() -> str:
        pid = os.fork()
        if not pid:
            os._exit(0)
        target = os.pidfd_open(pid)
        os.waitpid(pid, 0)
        try:
            join.enter_namespaces(target)
        except ProcessLookupError:
            return "no such process"
        return "no error"

    assert inside(attempt) == "no such process", (
        "the process has ended, and the kernel said ESRCH: let OSError out, or the command would run on the machine "
        "itself, outside of every container")


# -- the whole --------------------------------------------------------------------------------------------------------


def test_the_container_program_builds_every_wall(container: Callable[..., Any]) -> None:
    ran = container("/", "sh", "-c", "echo $$; uname -n; grep -E '^(CapEff|Seccomp):' /proc/self/status; "
                    "for n in pid uts mnt ipc net; do readlink /proc/self/ns/$n; done; exit 9")
    pid, name, *rest = ran.stdout.split("\n")
    assert (ran.status, pid, name) == (9, "1", "box"), ran.stderr
    assert rest[:2] == ["CapEff:\t00000000a80425fb", "Seccomp:\t2"]
    ours = {os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "uts", "mnt", "ipc", "net")}
    assert not ours & set(rest[2:])


def test_the_container_program_tells_why_it_could_not(container: Callable[..., Any]) -> None:
    ran = container("/", "/etc/passwd")
    assert (ran.status, ran.stderr) == (126, 'container.py: exec: "/etc/passwd": permission denied\n')
    assert container("/", "nothing-of-that-name").status == 127
    for wrong in (["--join"], ["--join", "word", "true"], ["--spek", "/"], ["/nowhere", "true"]):
        ran = container(*wrong)
        assert ran.status and ran.stderr.startswith("container.py") and ran.stderr.count("\n") == 1, ran


def test_the_container_program_has_a_terminal(container: Callable[..., Any]) -> None:
    ran = container("--terminal", "/", "tty")
    assert (ran.status, ran.stdout.strip()) == (0, "/dev/pts/0")


def test_the_container_program_shows_its_specification(container: Callable[..., Any]) -> None:
    import json

    wanted = json.loads(container("--spec", "/", "true").stdout)
    assert wanted["process"]["args"] == ["true"]
    kinds = {entry["type"] for entry in wanted["linux"]["namespaces"]}
    assert kinds == {"pid", "uts", "mount", "ipc", "network", "cgroup"}

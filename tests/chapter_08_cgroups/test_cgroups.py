"""Chapter 08: groups, limits, the view of them, and the device list.

Version 2's own files are there on every machine that has its tree mounted. What needs one of its controllers (memory,
pids, cpu) can be tried only where version 2 has them, and is skipped elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minirt.cgroups import devices, tree, v2
from minirt.kernel import ebpf, process
from minirt.namespaces import cgroup

MIB = 1 << 20


def mounted() -> Path:
    """Where the tree of version 2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 "):
            return Path(left.split()[4])
    pytest.skip("needs cgroup v2: no tree is mounted")


def has(controller: str) -> bool:
    return controller in (mounted() / "cgroup.controllers").read_text().split()


def needs(*controllers: str) -> None:
    if not all(has(each) for each in controllers):
        pytest.skip("needs cgroup v2 controllers")


@pytest.fixture
def top() -> Path:
    return mounted()


@pytest.fixture
def box(top: Path) -> Any:
    """A group that no function of the chapter has made; removed at the end, whatever is in it."""
    path = top / "box"
    path.mkdir()
    yield path
    if path.exists():
        (path / "cgroup.kill").write_text("1")
        for _ in range(100):
            try:
                for below in [each for each in path.iterdir() if each.is_dir()]:  # of a test that was cut short
                    below.rmdir()
                path.rmdir()
                return
            except OSError:
                time.sleep(0.01)


def remove(path: Path, top: Path) -> None:
    while path != top:
        path.rmdir()
        path = path.parent


def born_into(path: Path, function: Callable[[], Any]) -> tuple[int, int]:
    """Fork a child that is born into the group and calls the function; return (pid, exit code as a shell tells it)."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY)
    pid, _ = process.clone3(0, descriptor)
    if not pid:
        code = 1
        try:
            code = function() or 0
        finally:
            os._exit(code)
    os.close(descriptor)
    return pid, process.wait(pid)


# -- create ----------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("minirt.cgroups.v2.create")
def test_a_group_is_made_with_those_above_it(top: Path) -> None:
    path = v2.create(str(top), "one/two/three")
    assert (top / "one/two/three").is_dir(), (
        'create(top, "one/two/three") made no such group: go down level by level and make each directory with os.mkdir'
    )
    assert path == str(top / "one/two/three"), (
        f"create() returned {path!r}: it returns the path of the group that it has made"
    )
    remove(top / "one/two/three", top)


@pytest.mark.exercise("minirt.cgroups.v2.create")
def test_a_level_that_exists_is_no_error(top: Path) -> None:
    (top / "one").mkdir()
    try:
        v2.create(str(top), "one/two")
        v2.create(str(top), "one/two")
    except FileExistsError:
        pytest.fail("the group above was there already: another container has made it, so FileExistsError is no error")
    remove(top / "one/two", top)


@pytest.mark.exercise("minirt.cgroups.v2.create")
def test_a_group_that_cannot_be_made_is_an_error(top: Path) -> None:
    with contextlib.suppress(OSError):
        path = v2.create(str(top), "one/two\nthree")
        pytest.fail(
            f"the kernel refused a name of two lines (EINVAL), and create() returned {path!r} all the same: only that "
            "a level exists already, FileExistsError, is no error; a container without its group would have no limit"
        )
    (top / "one").rmdir()


@pytest.mark.exercise("minirt.cgroups.v2.create")
def test_each_level_hands_its_controllers_down_before_the_next_is_made(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def enable(path: str) -> None:
        below = any(each.is_dir() for each in Path(path).iterdir() if each.name in ("one", "two", "three"))
        asked.append((path, below))

    monkeypatch.setattr(v2, "enable", enable)
    v2.create(str(top), "one/two/three")
    remove(top / "one/two/three", top)
    paths = [path for path, _ in asked]
    assert str(top / "one/two/three") not in paths, (
        "create() has called enable() for the last group as well: that one will hold the processes, and a group that "
        "hands controllers down may hold none"
    )
    assert paths == [str(top), str(top / "one"), str(top / "one/two")], (
        f"create() has called enable() for {paths or 'no group'}: every group above the last one must hand its "
        f"controllers down, beginning with {top}, or the last one has none"
    )
    assert not any(below for _, below in asked), (
        "enable() comes before the next level is made: else somebody may see a group without its limits"
    )


@pytest.mark.exercise("minirt.cgroups.v2.create")
def test_the_group_has_the_controllers(top: Path) -> None:
    needs("memory", "pids")
    path = Path(v2.create(str(top), "one/two"))
    there = (path / "cgroup.controllers").read_text().split()
    own = (path / "cgroup.subtree_control").read_text().split()
    remove(path, top)
    assert {"memory", "pids"} <= set(there), f"the new group has the controllers {there}: its parents hand none down"
    assert own == []


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("minirt.cgroups.v2.settings")
def test_plain_numbers_go_into_their_files() -> None:
    wanted = dict(v2.settings({"memory": {"limit": 64 * MIB, "reservation": 32 * MIB}, "pids": {"limit": 100},
                               "cpu": {"cpus": "0-1"}}))
    assert wanted == {"memory.max": "67108864", "memory.low": "33554432", "pids.max": "100", "cpuset.cpus": "0-1"}, (
        f"settings() said {wanted}: each field that FILES names goes into its file, as text"
    )


@pytest.mark.exercise("minirt.cgroups.v2.settings")
def test_what_is_not_asked_for_is_not_written() -> None:
    try:
        wanted = v2.settings({"memory": {"limit": None}, "pids": {"limit": 0}, "cpu": None})
    except (AttributeError, TypeError):
        pytest.fail("a section may be missing or None, and a field too: that asks for nothing")
    assert wanted == [], f"settings() would write {wanted}: a field that is None or 0 asks for nothing"


@pytest.mark.exercise("minirt.cgroups.v2.settings")
def test_no_limit_is_spelled_max() -> None:
    wanted = dict(v2.settings({"memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1}}))
    assert wanted == {"memory.max": "max", "memory.swap.max": "max", "pids.max": "max"}, (
        f"settings() said {wanted}: -1 means no limit, and these files spell that max, or the kernel says EINVAL"
    )


@pytest.mark.exercise("minirt.cgroups.v2.settings")
def test_swap_is_counted_without_the_memory() -> None:
    wanted = dict(v2.settings({"memory": {"limit": 60 * MIB, "swap": 100 * MIB}}))
    assert wanted.get("memory.swap.max") == str(40 * MIB), (
        f"memory.swap.max would be {wanted.get('memory.swap.max')}: \"swap\" counts memory and swap together, and with "
        "100 MiB in all and 60 of memory, 40 are left for swap"
    )
    none = dict(v2.settings({"memory": {"limit": 60 * MIB, "swap": 60 * MIB}}))
    assert none.get("memory.swap.max") == "0", (
        "with as much in all as memory there is no swap: write 0, or the limit on memory only pushes pages out to disk"
    )


@pytest.mark.exercise("minirt.cgroups.v2.settings")
def test_cpu_time_is_a_quota_in_a_period() -> None:
    for cpu, text in (({"quota": 20000, "period": 50000}, "20000 50000"), ({"quota": 20000}, "20000 100000"),
                      ({"period": 50000}, "max 50000"), ({"quota": -1, "period": 50000}, "max 50000")):
        wanted = dict(v2.settings({"cpu": cpu}))
        assert wanted == {"cpu.max": text}, (
            f"for {cpu} settings() said {wanted}: cpu.max takes \"QUOTA PERIOD\" in microseconds, here {text!r}"
        )


@pytest.mark.exercise("minirt.cgroups.v2.settings")
def test_shares_become_a_weight_and_io_its_lines() -> None:
    wanted = v2.settings({"cpu": {"shares": 1024}, "blockIO": {"throttleWriteBpsDevice": [
        {"major": 8, "minor": 0, "rate": 1000}]}})
    assert ("cpu.weight", "39") in wanted, f"settings() said {wanted}: shares go into cpu.weight, converted by weight()"
    assert ("io.max", "8:0 wbps=1000") in wanted, f"settings() said {wanted}: add what io_settings() makes of blockIO"


@pytest.mark.exercise("minirt.cgroups.v2.settings")
def test_the_kernel_takes_them_and_they_bite(top: Path) -> None:
    needs("memory", "pids", "cpu")
    path = Path(v2.create(str(top), "small"))
    for file, text in v2.settings({"memory": {"limit": 20 * MIB, "swap": 20 * MIB}, "pids": {"limit": 5},
                                   "cpu": {"quota": 50000, "shares": 512}}):
        v2.write(f"{path}/{file}", text)
    _, code = born_into(path, lambda: len(bytearray(60 * MIB)) * 0)
    events = (path / "memory.events").read_text()
    path.rmdir()
    assert code == 137, f"60 MiB were to be had under a limit of 20: the exit code was {code}"
    assert "oom_kill 1" in events


# -- kill ------------------------------------------------------------------------------------------------------------


@pytest.mark.exercise("minirt.cgroups.v2.kill")
def test_everything_in_the_group_dies_and_nothing_else(box: Path) -> None:
    below = box / "below"
    below.mkdir()
    pids = []
    for place in (box, box, below):
        descriptor = os.open(place, os.O_PATH)
        pid, _ = process.clone3(0, descriptor)
        if not pid:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                signal.pause()
        pids.append(pid)
        os.close(descriptor)
    time.sleep(0.1)
    v2.kill(str(box))
    codes = []
    for pid in pids:
        for _ in range(50):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes.append(process.exit_code(status))
                break
            time.sleep(0.01)
        else:
            codes.append(-1)
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    below.rmdir()
    assert -1 not in codes[:2], "there is a process left in the group: write 1 to its file cgroup.kill"
    assert codes[2] != -1, "the process in a group below was left: cgroup.kill reaches those as well, cgroup.procs not"
    assert codes == [137, 137, 137], f"they ended with {codes}: only SIGKILL (137) cannot be refused"


@pytest.mark.exercise("minirt.cgroups.v2.kill")
def test_a_group_that_forks_without_end_dies_as_well(box: Path) -> None:
    def multiply() -> None:
        while True:
            if os.fork():
                os._exit(0)

    descriptor = os.open(box, os.O_PATH)
    pid, _ = process.clone3(0, descriptor)
    if not pid:
        multiply()
    os.close(descriptor)
    os.waitpid(pid, 0)
    time.sleep(0.05)
    v2.kill(str(box))
    deadline = time.monotonic() + 1
    while alive := (box / "cgroup.procs").read_text().split():
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    if alive:
        (box / "cgroup.kill").write_text("1")
    assert not alive, (
        "a process that always forks and ends outran you: between reading cgroup.procs and the signal it is another "
        "one. cgroup.kill catches forks that are under way"
    )


@pytest.mark.exercise("minirt.cgroups.v2.kill")
def test_a_group_that_is_gone_needs_no_killing(top: Path) -> None:
    try:
        v2.kill(str(top / "gone"))
    except FileNotFoundError:
        pytest.fail("the group is gone, so nothing is to be done: let FileNotFoundError pass")
    assert not (top / "gone").exists()


@pytest.mark.exercise("minirt.cgroups.v2.kill")
def test_a_refusal_is_told(inside: Callable[..., Any], box: Path) -> None:
    def refused() -> str:
        os.setresuid(65534, 65534, 65534)
        try:
            v2.kill(str(box))
        except PermissionError:
            return "told"
        return "swallowed"

    assert inside(refused) == "told", (
        "the kernel refused and kill() said nothing: the caller believes that everything is dead. Only "
        "FileNotFoundError may pass"
    )


# -- oom_kills -------------------------------------------------------------------------------------------------------

EVENTS = "low 0\nhigh 7\nmax 41\noom 3\noom_kill 2\noom_group_kill 0\n"


@pytest.mark.exercise("minirt.cgroups.v2.oom_kills")
def test_only_the_killed_are_counted(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text(EVENTS)
    found = v2.oom_kills(str(tmp_path))
    assert isinstance(found, int), f"oom_kills() returned {found!r}: it returns a number"
    assert found == 2, (
        f"oom_kills() said {found} for a file with max 41, oom 3 and oom_kill 2: touching the limit is no death, count "
        "oom_kill"
    )
    (tmp_path / "memory.events").write_text(EVENTS.replace("oom_kill 2", "oom_kill 0"))
    assert v2.oom_kills(str(tmp_path)) == 0, "nobody was killed: touching the limit is no death, count oom_kill"


@pytest.mark.exercise("minirt.cgroups.v2.oom_kills")
def test_without_the_file_nothing_was_counted(tmp_path: Path) -> None:
    try:
        found = v2.oom_kills(str(tmp_path))
    except (OSError, KeyError):
        pytest.fail("a group without the memory controller has no memory.events: then the answer is 0")
    assert found == 0


@pytest.mark.exercise("minirt.cgroups.v2.oom_kills")
def test_a_kill_for_memory_is_told_from_any_other(top: Path) -> None:
    needs("memory")
    path = Path(v2.create(str(top), "small"))
    (path / "memory.max").write_text(str(20 * MIB))
    (path / "memory.swap.max").write_text("0")
    _, code = born_into(path, lambda: os.kill(os.getpid(), 9))
    assert (code, v2.oom_kills(str(path))) == (137, 0), "a plain SIGKILL was taken for one of the kernel's"
    _, code = born_into(path, lambda: len(bytearray(60 * MIB)) * 0)
    killed = v2.oom_kills(str(path))
    path.rmdir()
    assert (code, killed) == (137, 1)


# -- the namespace ---------------------------------------------------------------------------------------------------


def own_group() -> str:
    return next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))


@pytest.mark.exercise("minirt.namespaces.cgroup.enter")
def test_the_own_group_becomes_the_root(box: Path, inside: Callable[..., Any]) -> None:
    def look() -> tuple[str, str]:
        (box / "cgroup.procs").write_text("0")
        before = own_group()
        cgroup.enter()
        return before, own_group()

    before, after = inside(look)
    assert before == "/box"
    assert after == "/", (
        f"after enter() the group is still called {after!r}: you are in the old cgroup namespace. Call unshare(2) with "
        "CLONE_NEWCGROUP, in this process"
    )


@pytest.mark.exercise("minirt.namespaces.cgroup.enter")
def test_no_other_namespace_changes(spawn: Callable[..., Any], outside: Any) -> None:
    child = spawn(cgroup.enter)
    assert child.value is None
    entered = outside.entered(child.pid)
    assert "cgroup" in entered, "you are in the old cgroup namespace: call unshare(2) with CLONE_NEWCGROUP"
    assert entered == {"cgroup"}, (
        f"enter() made more than a cgroup namespace: {', '.join(sorted(entered - {'cgroup'}))} as well"
    )


@pytest.mark.exercise("minirt.namespaces.cgroup.enter")
def test_whoever_may_not_gets_an_error(inside: Callable[..., Any]) -> None:
    def enter_as_nobody() -> str:
        os.setresuid(65534, 65534, 65534)
        try:
            cgroup.enter()
        except PermissionError:
            return "refused"
        return "no error"

    assert inside(enter_as_nobody) == "refused", "the kernel refused, and enter() must raise OSError then"


# -- devices ---------------------------------------------------------------------------------------------------------

NULL, ZERO, FULL = ((1, 3), (1, 5), (1, 7))


def tried(top: Path, rules: list[dict[str, Any]], *wanted: tuple[tuple[int, int], str]) -> list[str]:
    """In a group guarded by `rules`, in a child: open each device (c, numbers) with "r" or "w", or make it with "m";
    return "yes" or the error for each."""
    path = top / "guarded"
    path.mkdir()
    group = os.open(path, os.O_PATH | os.O_DIRECTORY)
    reading, writing = os.pipe()
    try:
        code = devices.program(rules)
        assert isinstance(code, bytes), f"program() returned a {type(code).__name__}: join the instructions to bytes"
        try:
            program = ebpf.load(code)
        except OSError as error:
            pytest.fail(f"the kernel refused the program ({error}): every path ends with an answer, and no part may "
                        "be unreachable. See `answer` and the end of the statement")
        ebpf.attach(program, group)
        os.close(program)
        places = []
        for (major, minor), _ in wanted:
            place = f"/dev/node-{major}-{minor}"
            if not os.path.exists(place):
                os.mknod(place, 0o600 | 0o020000, os.makedev(major, minor))
            places.append(place)
        pid, _ = process.clone3(0, group)
        if not pid:
            for place, (numbers, access) in zip(places, wanted, strict=True):
                try:
                    if access == "m":
                        os.mknod(f"{place}-m", 0o600 | 0o020000, os.makedev(*numbers))
                    else:
                        os.close(os.open(place, {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}[access]))
                    os.write(writing, b"yes\n")
                except OSError as error:
                    os.write(writing, f"{error.strerror}\n".encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(writing)
        return os.read(reading, 4096).decode().splitlines()
    finally:
        os.close(group)
        os.close(reading)
        path.rmdir()


NO = "Operation not permitted"
DENY = {"allow": False, "access": "rwm"}


@pytest.mark.exercise("minirt.cgroups.devices.program")
def test_what_is_listed_is_allowed_and_nothing_else(top: Path) -> None:
    found = tried(top, [DENY, devices.allowed("c", *NULL), devices.allowed("c", *ZERO)],
                  (NULL, "r"), (ZERO, "rw"), (FULL, "r"))
    assert found[2] == NO, "a device that is not on the list could be opened: what no rule fits is not allowed"
    assert found == ["yes", "yes", NO], (
        f"null, zero, full: {found}. The first two are on the list: for each rule come conditions(rule), then "
        'answer(rule["allow"])'
    )


@pytest.mark.exercise("minirt.cgroups.devices.program")
def test_the_last_rule_that_fits_counts(top: Path) -> None:
    found = tried(top, [DENY, devices.allowed("c", 1, -1), {"allow": False, "type": "c", "major": 1, "minor": 7}],
                  (ZERO, "r"), (FULL, "r"))
    assert found == ["yes", NO], (
        f"zero, full: {found}. The rules allow every device with major number 1, and then deny 1:7: of the rules that "
        "fit the last one counts, so ask the last one first"
    )


@pytest.mark.exercise("minirt.cgroups.devices.program")
def test_without_a_rule_for_everything_the_answer_is_no(top: Path) -> None:
    found = tried(top, [devices.allowed("c", *NULL, "r")], (NULL, "r"), (NULL, "w"), (FULL, "r"))
    assert found == ["yes", NO, NO], (
        f"null to read, null to write, full: {found}. When no rule fits, the program ends with answer(False)"
    )


@pytest.mark.exercise("minirt.cgroups.devices.program")
def test_dockers_list_lets_nodes_be_made_but_not_opened(top: Path) -> None:
    kernel_log = (1, 11)
    found = tried(top, list(devices.DEFAULT), (NULL, "rw"), (kernel_log, "m"), (kernel_log, "r"))
    assert found == ["yes", "yes", NO], f"null, mknod 1:11, open 1:11: {found}"


@pytest.mark.exercise("minirt.cgroups.devices.program")
def test_a_list_that_allows_all_allows_all(top: Path) -> None:
    assert tried(top, [{"allow": True, "access": "rwm"}], (NULL, "rw"), (FULL, "r")) == ["yes", "yes"]


# -- the chapter as a whole ------------------------------------------------------------------------------------------


@pytest.fixture
def tidy() -> Iterator[None]:
    """Remove the parent group that containers leave behind, in every tree."""
    yield
    for point in set(tree.mounts().values()):
        if os.path.isdir(f"{point}/minirt"):
            os.rmdir(f"{point}/minirt")


def limits(*controllers: str) -> None:
    """Skip where neither version has these."""
    if not set(controllers) <= set(tree.controllers()):
        pytest.skip("needs cgroup controllers")


def test_the_container_sees_its_group_as_the_root(container: Callable[..., Any], top: Path, tidy: None) -> None:
    ran = container("/", "sh", "-c", "cat /proc/self/cgroup; grep -c cgroup2 /proc/mounts; echo x > /dev/null")
    assert ran.status == 0, ran.stderr
    assert "0::/\n" in ran.stdout
    assert [path for path in top.glob("minirt/*") if path.is_dir()] == [], "its group was not removed"


def test_the_container_cannot_open_what_it_makes(container: Callable[..., Any], top: Path, tidy: None) -> None:
    ran = container("/", "sh", "-c", "mknod /dev/log-of-the-kernel c 1 11 && cat /dev/log-of-the-kernel")
    assert ran.status == 1 and NO in ran.stderr


def test_the_container_is_held_to_its_memory(container: Callable[..., Any], top: Path, tidy: None) -> None:
    limits("memory")
    ran = container("--memory", str(30 * MIB), "/", sys.executable, "-c", "bytearray(200 << 20)")
    assert ran.status == 137
    assert "out of memory" in ran.stderr


@pytest.mark.limit(60)
def test_the_container_is_held_to_its_tasks_and_time(container: Callable[..., Any], top: Path, tidy: None) -> None:
    limits("pids", "cpu")
    ran = container("--pids", "3", "/", "sh", "-c", "sleep 1 & sleep 1 & sleep 1 & sleep 1 & wait")
    assert "fork" in ran.stderr
    count = ("import time; begin = time.process_time(); end = time.time() + 2\n"
             "while time.time() < end: pass\nprint(time.process_time() - begin)")
    ran = container("--cpus", "0.2", "/", sys.executable, "-c", count)
    assert float(ran.stdout) < 1.2


def test_frozen_processes_stand_still(box: Path) -> None:
    descriptor = os.open(box, os.O_PATH)
    pid, _ = process.clone3(0, descriptor)
    if not pid:
        while True:
            pass
    os.close(descriptor)
    v2.freeze(str(box), True)
    used = v2.statistics(str(box))["cpu"]["usage"]
    time.sleep(0.1)
    stood = v2.statistics(str(box))["cpu"]["usage"] - used
    v2.freeze(str(box), False)
    time.sleep(0.1)
    went = v2.statistics(str(box))["cpu"]["usage"] - used
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert stood == 0 and went > 0


def test_statistics_of_every_controller(top: Path) -> None:
    needs("memory", "pids", "cpu", "io")
    path = Path(v2.create(str(top), "counted"))
    v2.write(f"{path}/pids.max", "77")
    reading, writing = os.pipe()
    descriptor = os.open(path, os.O_PATH)
    pid, _ = process.clone3(0, descriptor)
    os.close(descriptor)
    if not pid:
        os.close(writing)
        kept = bytearray(10 * MIB)
        os.read(reading, 1)
        os._exit(len(kept) * 0)
    time.sleep(0.5)
    found = v2.statistics(str(path))
    os.close(writing)
    os.close(reading)
    os.waitpid(pid, 0)
    path.rmdir()
    assert found["memory"]["usage"] > 5 * MIB and found["memory"]["limit"] == -1
    assert found["pids"] == {"current": 1, "limit": 77}
    assert found["cpu"]["usage"] > 0 and "io" in found
    assert set(found["pressure"]) == {"cpu", "memory", "io"}


def test_where_processes_live_they_move_to_a_leaf(top: Path) -> None:
    needs("memory")
    path = Path(v2.create(str(top), "machine"))
    descriptor = os.open(path, os.O_PATH)
    pid, _ = process.clone3(0, descriptor)
    if not pid:
        while True:
            signal.pause()
    os.close(descriptor)
    below = Path(v2.create(str(path), "minirt/one"))
    assert (path / "init/cgroup.procs").read_text().split() == [str(pid)]
    assert "memory" in (below / "cgroup.controllers").read_text()
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    v2.remove(str(path))


def test_the_container_program_tells_what_it_cannot_run(
        container: Callable[..., Any], top: Path, tidy: None) -> None:
    ran = container("/", "no-such-command")
    assert (ran.status, ran.stderr) == (127, "container.py: no-such-command: not found\n")
    ran = container("/", "/etc/passwd")
    assert (ran.status, ran.stderr) == (126, "container.py: /etc/passwd: cannot be executed\n")

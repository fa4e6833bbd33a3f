"""The cage withstands what is tried in it: each kind of damage is done in a cage, and the machine is as it was."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chapters import cage, observe, walls

if os.geteuid():
    pytest.skip("needs root", allow_module_level=True)

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUTS, CLONE_NEWNS = 0x04000000, 0x00020000


def shell(script: str) -> Callable[[], int]:
    """A function that runs a script of the shell and returns its exit code."""
    return lambda: subprocess.run(["/bin/sh", "-c", script], capture_output=True, timeout=30).returncode


def machine() -> dict[str, Any]:
    """What could be damaged on the machine itself."""
    return {
        "mounts": sorted(f"{entry.kind} {entry.point}" for entry in cage.mounts()),
        "propagation of /": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " / / " in line],
        "cgroups": cage.leftovers(os.getpid()),
        "host name": os.uname().nodename,
        "swappiness": Path("/proc/sys/vm/swappiness").read_text(),
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "/": sorted(os.listdir("/")),
        "/etc": sorted(os.listdir("/etc")),
        "interfaces": socket.if_nameindex(),
        "/dev/null": oct(os.stat("/dev/null").st_mode),
        "state root": os.path.exists(cage.STATE_ROOT) and sorted(os.listdir(cage.STATE_ROOT)),
        "clock": abs(time.time() - BEGIN[0] - (time.monotonic() - BEGIN[1])) < 60,
    }


BEGIN = (time.time(), time.monotonic())


@pytest.fixture
def unharmed() -> Iterator[None]:
    """The machine after the test is the machine before it, and a process of ours outside still lives."""
    before, guard = machine(), subprocess.Popen(["sleep", "1000"])
    yield
    assert guard.poll() is None, "a process outside of the cage was killed"
    guard.kill()
    guard.wait()
    assert machine() == before


def rename_host() -> str:
    socket.sethostname("broken")
    return os.uname().nodename


def kill_all() -> None:
    if not os.fork():
        os.kill(-1, signal.SIGKILL)
        os._exit(0)  # the kernel leaves out whoever calls
    os.wait()


def bomb() -> int:
    born = 0
    try:
        for _ in range(2000):
            if not os.fork():
                signal.pause()
            born += 1
    except OSError:
        return born
    return born


def fill_memory() -> None:
    bytearray(1 << 31)
    Path(cage.STATE_ROOT, "big").write_bytes(bytes(1 << 31))


def daemonise() -> int:
    if not os.fork():
        os.setsid()
        if not os.fork():
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            while True:
                time.sleep(1)
        os._exit(0)
    os.wait()
    return 0


def freeze() -> None:
    """Freeze ourselves in a cgroup below, with v1's freezer or v2's."""
    for hierarchy in cage.hierarchies():
        below = f"{hierarchy.point}/icebox"
        if "freezer" in hierarchy.option.split(","):
            os.mkdir(below)
            Path(below, "tasks").write_text("0")
            Path(below, "freezer.state").write_text("FROZEN")
        elif not hierarchy.option and os.path.exists(f"{hierarchy.point}/init/cgroup.freeze"):
            os.mkdir(below)
            Path(below, "cgroup.procs").write_text("0")
            Path(below, "cgroup.freeze").write_text("1")


def reboot() -> None:
    libc.reboot(0x1234567)


FINE = {
    "umount -l /": shell("umount -l /"),
    "umount -a -l": shell("umount -a -l"),
    "mounts in a shared root": shell("mount --make-rshared / && mount -t tmpfs none /mnt"),
    "host name": rename_host,
    "kill -9 1": shell("kill -9 1"),
    "rm -rf /etc": shell("rm -rf /etc /var/log /usr/share/zoneinfo"),
    "remount / read-only": shell("mount -o remount,ro /"),
    "a daemon that ignores TERM": daemonise,
    "fork bomb": bomb,
    "addresses and links": shell("ip link set lo down; ip link add a type veth peer b; ip link del lo"),
    "cgroups removed and joined": shell(
        "for d in $(find /sys/fs/cgroup -mindepth 2 -type d); do echo 1 > $d/cgroup.procs; rmdir $d; done"
    ),
    "mode of a device": shell("chmod 0 /dev/null; rm /dev/zero"),
}


@pytest.mark.parametrize("damage", FINE.values(), ids=FINE)
def test_damage_stays_in_the_cage(damage: Callable[[], Any], unharmed: None) -> None:
    outcome = cage.call(damage, limits=cage.Limits(seconds=20, pids=100))
    assert not outcome.how and not outcome.error, outcome


ENDS = {
    "kill -9 -1": (kill_all, "ended by SIGKILL"),
    "memory": (fill_memory, "more memory than 200 MiB"),
    "a hang": (signal.pause, "not finished after 1 s"),
    "a frozen guest": (freeze, "not finished after 1 s"),
    "exit": (lambda: os._exit(3), "exit code 3"),
    "reboot": (reboot, "SIG"),
}


@pytest.mark.parametrize("damage", ENDS)
def test_what_ends_the_guest_is_told_in_words(damage: str, unharmed: None) -> None:
    function, words = ENDS[damage]
    begin = time.monotonic()
    outcome = cage.call(function, limits=cage.Limits(seconds=1 if "1 s" in words else 20, memory=200 << 20))
    assert words in outcome.how, outcome
    with pytest.raises(cage.CageError, match=words):
        outcome.result()
    assert time.monotonic() - begin < 20


def test_what_the_machine_owns_is_refused(unharmed: None) -> None:
    def attempts() -> list[str]:
        done = []
        for name, number in (("kmsg", (1, 11)), ("loop-control", (10, 237))):
            try:
                os.mknod(f"/run/{name}", 0o20600, os.makedev(*number))
                os.close(os.open(f"/run/{name}", os.O_RDWR))
                done.append(name)
            except OSError:
                pass
        for path in ("/proc/sys/vm/swappiness", "/sys/kernel/mm/transparent_hugepage/enabled"):
            try:
                os.close(os.open(path, os.O_WRONLY))
                done.append(path)
            except OSError:
                pass
        try:
            time.clock_settime(time.CLOCK_REALTIME, 0)
            done.append("clock")
        except OSError:
            pass
        return done

    has_device_list = any("devices" in hierarchy.option.split(",") for hierarchy in cage.hierarchies())
    done = cage.call(attempts).result()
    assert [name for name in done if has_device_list or name not in ("kmsg", "loop-control")] == []


def test_the_guest_returns_values_and_output() -> None:
    def speak() -> dict[str, int]:
        print("to stdout")
        os.write(2, b"to stderr")
        return {"pid": os.getpid()}

    outcome = cage.call(speak)
    assert outcome.result() == {"pid": 2}
    assert (outcome.stdout, outcome.stderr) == (b"to stdout\n", b"to stderr")


def test_an_exception_comes_back_as_text() -> None:
    def fail() -> None:
        raise ValueError("not today")

    outcome = cage.call(fail)
    assert "ValueError: not today" in outcome.error and "in fail" in outcome.error


def test_messages_arrive_while_the_guest_lives() -> None:
    def talk() -> None:
        cage.send({"number": 1})
        signal.pause()

    heard: list[Any] = []
    outcome = cage.call(talk, limits=cage.Limits(seconds=0.5), on_message=heard.append)
    assert outcome.timed_out and heard == [{"number": 1}]


def test_a_child_that_comes_back_is_noticed() -> None:
    def forget_to_exit() -> None:
        if os.fork():
            os.wait()

    assert "os._exit()" in cage.call(forget_to_exit).how


def test_a_cage_has_a_machine_of_its_own() -> None:
    outer = observe.Outside().namespaces()

    def look() -> dict[str, Any]:
        return {
            "namespaces": observe.Outside().namespaces(),
            "run": sorted(os.listdir("/run")),
            "state": os.listdir(cage.STATE_ROOT),
            "TMPDIR": os.environ["TMPDIR"],
            "interfaces": [name for _, name in socket.if_nameindex()],
            "lo": Path("/sys/class/net/lo/operstate").read_text(),
            "cgroups": Path("/proc/self/cgroup").read_text().split(),
            "shared": " shared:" in Path("/proc/self/mountinfo").read_text().splitlines()[0],
            "kinds": sorted({entry.kind for entry in cage.mounts()}),
        }

    seen = cage.call(look).result()
    alike = {kind for kind, number in outer.items() if seen["namespaces"][kind] == number}
    assert alike == {"user"}
    assert seen["run"] == ["cage-proc", "minirt-cage"]
    assert seen["state"] == ["tmp"] and seen["TMPDIR"] == "/var/lib/minirt/tmp"
    assert seen["interfaces"] == ["lo"] and seen["lo"] != "down\n"
    assert all(line.endswith((":/", ":/init")) for line in seen["cgroups"])
    assert seen["shared"], "the cage's root is shared, as systemd leaves it: who forgets MS_PRIVATE is found out"


def test_the_checkout_and_the_interpreter_are_there_and_can_be_written() -> None:
    def use() -> str:
        Path(cage.CHECKOUT, "scratch").write_text("x")
        code = "import chapters.cage; print(chapters.cage.inside())"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout

    assert cage.call(use).result() == "True\n"
    assert not (cage.CHECKOUT / "scratch").exists()


def test_cgroups_can_be_made_and_limited_inside() -> None:
    def limit() -> int:
        """A memory limit below the cage's own: the kernel kills what exceeds it."""
        for hierarchy in cage.hierarchies():
            file = "memory.limit_in_bytes" if hierarchy.option else "memory.max"
            group = f"{hierarchy.point}/small"
            if "memory" not in hierarchy.option and not os.path.exists(f"{hierarchy.point}/init/memory.max"):
                continue
            os.mkdir(group)
            Path(group, file).write_text(str(20 << 20))
            pid = os.fork()
            if not pid:
                Path(group, "tasks" if hierarchy.option else "cgroup.procs").write_text("0")
                bytearray(100 << 20)
                os._exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return -signal.SIGKILL  # no memory controller on this machine

    assert cage.call(limit).result() == -signal.SIGKILL


@pytest.mark.parametrize("state", ["", "disk"], ids=["tmpfs", "disk"])
def test_an_overlay_can_be_mounted_on_the_state_root(state: str) -> None:
    def lay() -> str:
        top = Path(cage.STATE_ROOT)
        for name in ("lower", "upper", "work", "merged"):
            (top / name).mkdir()
        (top / "lower" / "file").write_text("below")
        options = f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work"
        cage.mount("overlay", f"{top}/merged", "overlay", 0, options)
        (top / "merged" / "file").write_text("above")
        return (top / "lower" / "file").read_text() + (top / "upper" / "file").read_text()

    assert cage.call(lay, state=state).result() == "belowabove"
    assert cage.leftovers(os.getpid()) == []


@pytest.mark.parametrize("root", ["overlay", "shared"])
def test_a_cage_in_a_cage(root: str) -> None:
    def nest() -> dict[str, Any]:
        def damage() -> str:
            subprocess.run(["umount", "-a", "-l"], stderr=subprocess.DEVNULL)
            return rename_host()

        before = observe.snapshot()
        inner = cage.call(damage, root=root)
        return {"inner": inner.result(), "left": observe.differences(before), "name": os.uname().nodename}

    seen = cage.call(nest).result()
    assert seen == {"inner": "broken", "left": [], "name": os.uname().nodename}


def test_a_killed_caller_takes_its_cage_along_and_the_next_one_sweeps() -> None:
    caller = os.fork()
    if not caller:
        cage.call(signal.pause)
        os._exit(0)
    guests = observe.Outside().until(lambda: len(below := observe.Outside().descendants(caller)) == 3 and below, 5)
    time.sleep(0.2)
    assert cage.leftovers(caller) or not cage.hierarchies()
    os.kill(caller, signal.SIGKILL)
    os.waitpid(caller, 0)
    assert observe.Outside().until(lambda: all(observe.Outside().state(pid) in ("", "Z") for pid in guests), 5)
    observe.Outside().until(lambda: not cage.sweep() and not cage.leftovers(caller), 2)
    assert cage.leftovers(caller) == []


# -------------------------------------------------------------------------------------------------------- command line


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options.setdefault("timeout", 30)
    command = [sys.executable, "-B", "-m", "chapters.cage", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cage.CHECKOUT, **options)


def test_a_command_runs_in_a_cage() -> None:
    ran = run("--", "sh", "-c", "echo $$; cat; exit 3", input="text")
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "2\ntext", "")
    assert run("--", "sh", "-c", "kill -TERM $$").returncode == 143
    assert run("--", "no-such-command").returncode == 127
    late = run("--time", "0.5", "--", "sleep", "100")
    assert late.returncode == 124 and "not finished after 0.5 s" in late.stderr


@pytest.mark.parametrize("sudo", [True, False])
def test_an_ordinary_user_is_raised_by_sudo_or_told(tmp_path: Path, sudo: bool) -> None:
    if sudo:  # it must ask no question, and it starts elsewhere with an environment of its own
        (tmp_path / "sudo").write_text('#!/bin/sh\ntest "$1" = -n || exit 1\nshift\ncd /\nexec /usr/bin/env -i "$@"\n')
        (tmp_path / "sudo").chmod(0o755)
    code = "import os; os.geteuid = lambda: 1000; from chapters import cage; raise SystemExit(cage.main())"
    ran = subprocess.run(
        [sys.executable, "-B", "-c", code, "--time", "20", "--", "sh", "-c", "echo $0 $PATH; exit 5", "word"],
        text=True, capture_output=True, cwd=cage.CHECKOUT, stdin=subprocess.DEVNULL,
        env={"PATH": f"{tmp_path}:/bin" if sudo else str(tmp_path)},
    )  # fmt: skip
    if sudo:
        assert (ran.returncode, ran.stdout) == (5, f"word {tmp_path}:/bin\n"), ran
    else:
        assert ran.returncode == 125 and "there is no sudo here" in ran.stderr


def test_a_held_cage_keeps_its_state_and_goes_with_its_holder() -> None:
    command = [sys.executable, "-B", "-m", "chapters.cage", "--hold"]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cage.CHECKOUT)
    assert holder.stdin and holder.stdout
    held = holder.stdout.readline().strip()
    here = os.uname().nodename
    script = "hostname kept; echo x > /run/kept; sleep 1000 >/dev/null 2>&1 & exit 7"
    assert run("--in", held, "--", "sh", "-c", script).returncode == 7
    ran = run("--in", held, "--", "sh", "-c", "hostname; cat /run/kept; cat /proc/self/cgroup; grep Cap /proc/1/status")
    assert ran.stdout.startswith("kept\nx\n"), ran
    assert all(line.endswith((":/", ":/init")) for line in ran.stdout.splitlines() if line[0].isdigit())
    assert os.uname().nodename == here and not os.path.exists("/run/kept")
    first = os.pidfd_open(int(held))
    holder.stdin.close()
    assert holder.wait(10) == 0
    assert select.select([first], [], [], 5)[0]
    os.close(first)
    assert cage.leftovers(holder.pid) == []
    assert run("--in", held, "--", "true").returncode == 125
    holder.stdout.close()


def test_a_terminal_is_lent_and_taken_back() -> None:
    import pty

    script = (
        "import subprocess, sys, json; from chapters import cage;"
        "print(json.dumps([cage.run(['sh', '-c', 'echo hello; read line; echo got $line']), "
        "cage.run(['sh', '-c', 'read line; echo again $line'])]))"
    )
    pid, master = pty.fork()
    if not pid:
        os.chdir(cage.CHECKOUT)
        os.execv(sys.executable, [sys.executable, "-B", "-c", script])
    text = b""
    deadline = time.monotonic() + 20
    sent = 0
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.1)[0]:
            continue
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        text += data
        if (b"hello" in text and sent == 0) or (b"got one" in text and sent == 1):
            os.write(master, (b"one\n", b"two\n")[sent])
            sent += 1
    os.waitpid(pid, 0)
    os.close(master)
    words = text.decode().split()
    assert "got" in words and "again" in words, text
    assert json.loads(text.decode().splitlines()[-1]) == [0, 0]


@pytest.mark.skipif(not cage.hierarchies(), reason="this machine has no cgroups at all")
def test_without_cgroups_it_says_what_it_cannot_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walls, "hierarchies", list)
    outcome = cage.call(os.getpid)
    assert outcome.result() == 2
    assert [note.split(":")[0] for note in outcome.notes] == ["no memory limit", "no process limit"]
    assert "MemoryError" in cage.call(fill_memory, limits=cage.Limits(memory=200 << 20)).error


def test_file_systems_that_carry_the_checkout_are_covered_too(tmp_path: Path) -> None:
    def elsewhere() -> list[Any]:
        place = "/mnt/work, here"
        os.makedirs(place)
        cage.mount("tmpfs", place, "tmpfs")
        Path(place, "file").write_text("outside")
        os.chdir(place)
        carried = cage.carrying([place])

        def write() -> str:
            Path("file").write_text("inside")
            return os.getcwd()

        inner = cage.call(write, root="overlay").result()
        text = Path(place, "file").read_text()
        os.chdir("/")
        cage.libc.umount2(os.fsencode(place), 0)
        return [carried, inner, text]

    assert cage.call(elsewhere).result() == [["/mnt/work, here"], "/mnt/work, here", "outside"]


def test_a_file_system_that_cannot_be_covered_is_read_only_and_that_is_said() -> None:
    def deep() -> list[Any]:
        top = Path(cage.STATE_ROOT)
        for name in ("upper", "work", "deep"):
            (top / name).mkdir()
        place = f"{top}/deep"  # an overlay over the cage's own overlay: a third one above is refused
        cage.mount("overlay", place, "overlay", 0, f"lowerdir=/usr,upperdir={top}/upper,workdir={top}/work")
        os.makedirs("/mnt/deep")
        cage.mount(place, "/mnt/deep", "", 4096)
        os.chdir("/mnt/deep")

        def write() -> str:
            try:
                Path("file").write_text("inside")
            except OSError as error:
                return error.strerror
            return "written"

        outcome = cage.call(write)
        os.chdir("/")
        return [outcome.result(), outcome.notes]

    said, notes = cage.call(deep).result()
    assert said == os.strerror(30) and notes[0].startswith("/mnt/deep can only be read")


def test_it_imports_nothing_of_minirt_and_only_the_standard_library() -> None:
    known = {*sys.stdlib_module_names, "chapters", "__main__"}
    code = f"import sys; sys.path.insert(0, {str(cage.CHECKOUT)!r}); from chapters import cage, observe; "
    code += f"print([name for name in sys.modules if name.split('.')[0] not in {known!r}])"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")

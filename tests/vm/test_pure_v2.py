"""minirt on Linux 6.1, the oldest kernel it supports, with cgroup v2 and nothing else: how most users have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import peers

GROUPS = Path("/sys/fs/cgroup/minirt")
Run = Callable[..., str]


@pytest.fixture(scope="module")
def minirt(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Call minirt, on a store with the image busybox; `status` is what it must end with."""
    program = str(Path(sys.executable).parent / "minirt")

    def call(*words: str, status: int = 0, before: tuple[str, ...] = ()) -> str:
        done = subprocess.run([*before, program, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              timeout=120, check=False)
        assert done.returncode == status, f"minirt {' '.join(words)}: status {done.returncode}: {done.stderr}"
        return done.stdout.strip()

    archive = tmp_path_factory.mktemp("images") / "busybox.tar"
    peers.small_image(archive)
    call("load", "-i", str(archive))
    return call


def first_process(minirt: Run, name: str) -> tuple[str, int]:
    """A container's id, and the pid of its first process as the machine numbers it."""
    found = json.loads(minirt("inspect", name))[0]
    return found["Id"], found["State"]["Pid"]


def test_only_version_2_is_there() -> None:
    mounted = [line.split()[2] for line in open("/proc/self/mounts") if line.split()[2].startswith("cgroup")]
    assert mounted == ["cgroup2"]
    refused = subprocess.run(["mount", "-t", "cgroup", "-o", "freezer", "none", "/mnt"], capture_output=True, text=True,
                             check=False)
    assert refused.returncode != 0


def test_the_doctor_finds_it_ready(minirt: Run) -> None:
    report = json.loads(minirt("doctor", "--format", "json"))
    found = {finding["what"]: finding for finding in report["findings"]}
    assert report["ready"] is True
    assert found["cgroup v2 alone"]["present"] is True
    assert found["Linux 6.1 or later"]["detail"].startswith("6.1")


def test_a_container_speaks_and_its_group_is_gone_with_it(minirt: Run) -> None:
    script = "echo $(cat /proc/sys/kernel/hostname) $$"
    assert minirt("run", "--rm", "--hostname", "box", "busybox", "sh", "-c", script) == "box 1"
    assert [path.name for path in GROUPS.iterdir() if path.is_dir()] == []


def test_a_container_is_born_in_its_group(minirt: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    # strace follows the monitor too, and so ends with the container.
    minirt("run", "--rm", "--name", "born", "busybox", "true",
           before=("strace", "-f", "-qq", "-o", str(log), "-e", "trace=clone3,openat"))
    calls = log.read_text()
    assert "CLONE_INTO_CGROUP" in calls
    assert "cgroup.procs\", O_WRONLY" not in calls and "cgroup.procs\", O_RDWR" not in calls
    minirt("run", "-d", "--name", "settled", "busybox", "sleep", "1000")
    id, pid = first_process(minirt, "settled")
    assert Path(f"/proc/{pid}/cgroup").read_text() == f"0::/minirt/{id}\n"
    minirt("rm", "-f", "settled")


def test_a_container_that_multiplies_is_killed_whole(minirt: Run, tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 1000 & (sleep 1000 &) ; setsid sh -c 'sleep 1000 & sleep 1000' & wait"
    minirt("run", "-d", "--name", "many", "busybox", "sh", "-c", script)
    id, _ = first_process(minirt, "many")
    for _ in range(50):
        members = (GROUPS / id / "cgroup.procs").read_text().split()
        if len(members) >= 5:
            break
        time.sleep(0.2)
    assert len(members) >= 5
    minirt("rm", "-f", "many")
    assert [pid for pid in members if os.path.exists(f"/proc/{pid}") and alive(pid)] == []
    assert not (GROUPS / id).exists()


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_lost_monitor_takes_its_container_along(minirt: Run) -> None:
    minirt("run", "-d", "--name", "orphan", "busybox", "sleep", "1000")
    id, pid = first_process(minirt, "orphan")
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(monitor, 9)
    for _ in range(50):
        if not alive(str(pid)):
            break
        time.sleep(0.2)
    assert not alive(str(pid))
    minirt("rm", "-f", "orphan")
    assert not (GROUPS / id).exists()


def test_what_a_command_returns_comes_through(minirt: Run) -> None:
    minirt("run", "--rm", "busybox", "sh", "-c", "exit 7", status=7)
    minirt("run", "--rm", "busybox", "nothing-of-that-name", status=127)


def test_the_script_of_explain_sh_sets_the_same_limits(minirt: Run) -> None:
    shown = ("cd /sys/fs/cgroup; cat memory.max memory.swap.max pids.max cpu.max; "
             "cut -d' ' -f4- /proc/self/mountinfo | grep -v -e overlay -e /etc/ | sort; cat /proc/self/cgroup; exit 7")
    words = ["run", "--rm", "-m", "64m", "--pids-limit", "50", "--cpus", "0.5", "busybox", "sh", "-c", shown]
    script = subprocess.run(["sh"], input=minirt("--explain=sh", *words), capture_output=True, text=True, timeout=120,
                            check=False)
    assert (script.returncode, script.stderr) == (7, "")
    assert script.stdout.strip() == minirt(*words, status=7)
    assert not list(GROUPS.glob("script-*"))

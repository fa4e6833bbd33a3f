"""Chapter 08 where its subject lives: control groups of version 2 with all their controllers, and no version 1.

The chapter's own tests, the transcripts of its page (those too that other machines cannot run), and `minirt run` with
every kind of limit.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import peers
from chapters import contents, transcript

GROUPS = Path("/sys/fs/cgroup/minirt")
MIB = 1 << 20
Run = Callable[..., subprocess.CompletedProcess[str]]


def judged(*arguments: str) -> str:
    """Run pytest in here, where no skip is excused; return what it said at the end."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments], cwd=contents.ROOT, text=True,
        capture_output=True, timeout=400, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "MINIRT_VM": "", "MINIRT_CI": "1"})
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_every_test_of_the_chapter_is_run_and_passes() -> None:
    said = judged("tests/chapter_08_cgroups")
    assert "skipped" not in said, said


def test_the_page_says_the_truth_about_the_controllers(tmp_path: Path) -> None:
    text = (contents.ROOT / "chapters/08-cgroups/README.md").read_text()
    there, count = re.subn(r"<!-- not run: needs cgroup v2 controllers -->", "<!-- shell -->", text)
    assert count >= 2
    page = tmp_path / "README.md"
    page.write_text(there)
    assert [str(each) for each in transcript.run_page(page)] == []


@pytest.fixture(scope="module")
def minirt(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Call minirt, on a store with the image busybox."""
    program = str(Path(sys.executable).parent / "minirt")

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120,
                              check=False)

    archive = tmp_path_factory.mktemp("images") / "busybox.tar"
    peers.small_image(archive)
    loaded = call("load", "-i", str(archive))
    assert loaded.returncode == 0, loaded.stderr
    return call


def test_the_flags_reach_the_files(minirt: Run) -> None:
    done = minirt("run", "-d", "--name", "held", "-m", "64m", "--memory-reservation", "32m", "--memory-swap", "96m",
                  "--cpu-quota", "20000", "--cpu-period", "50000", "-c", "1024", "--cpuset-cpus", "0", "--pids-limit",
                  "20", "--device-read-bps", "/dev/vda:2mb", "--device-write-iops", "/dev/vda:50", "busybox", "sleep",
                  "1000")
    assert done.returncode == 0, done.stderr
    group = GROUPS / done.stdout.strip()
    found = {file: (group / file).read_text().strip() for file in (
        "memory.max", "memory.low", "memory.swap.max", "cpu.max", "cpu.weight", "cpuset.cpus", "pids.max", "io.max")}
    number = os.stat("/dev/vda").st_rdev
    disk = f"{os.major(number)}:{os.minor(number)}"
    assert found == {
        "memory.max": str(64 * MIB), "memory.low": str(32 * MIB), "memory.swap.max": str(32 * MIB),
        "cpu.max": "20000 50000", "cpu.weight": "39", "cpuset.cpus": "0", "pids.max": "20",
        "io.max": f"{disk} rbps={2 * MIB} wbps=max riops=max wiops=50"}
    from minirt.cgroups import tree

    live = tree.group(f"minirt/{group.name}")
    live.update({"memory": {"limit": 128 * MIB, "swap": 128 * MIB}, "pids": {"limit": -1}})
    assert (group / "memory.max").read_text().strip() == str(128 * MIB)
    assert (group / "memory.swap.max").read_text().strip() == "0"
    assert (group / "pids.max").read_text().strip() == "max"
    used = live.statistics()
    assert used["memory"]["limit"] == 128 * MIB and used["memory"]["usage"] > 0
    assert used["pids"]["current"] >= 1 and "io" in used and used["pressure"]["memory"]
    minirt("rm", "-f", "held")
    assert not group.exists()


def test_memory_bites_and_the_record_says_so(minirt: Run) -> None:
    done = minirt("run", "--name", "eater", "-m", "20m", "--memory-swap", "20m", "busybox", "sh", "-c",
                  "head -c 100m /dev/zero | tail > /dev/null")
    state = json.loads(minirt("inspect", "eater").stdout)[0]["State"]
    assert state["OOMKilled"] is True, done.stderr
    minirt("rm", "eater")


def test_tasks_bite(minirt: Run) -> None:
    done = minirt("run", "--rm", "--pids-limit", "4", "busybox", "sh", "-c",
                  "for n in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait")
    assert "fork" in done.stderr


def test_what_version_2_does_not_have_is_left_out_with_a_warning(minirt: Run) -> None:
    done = minirt("run", "--rm", "-m", "64m", "--memory-swappiness", "10", "--oom-kill-disable", "busybox", "true")
    assert done.returncode == 0
    assert "memory swappiness" in done.stderr and "OomKillDisable discarded" in done.stderr


def test_devices_are_limited_by_a_program(minirt: Run) -> None:
    script = "echo x > /dev/null; mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk"
    done = minirt("run", "--rm", "busybox", "sh", "-c", script)
    assert done.returncode == 1 and "Operation not permitted" in done.stderr
    done = minirt("run", "--rm", "--device-cgroup-rule", "b 254:* r", "busybox", "sh", "-c", script)
    assert done.returncode == 0, done.stderr


def test_the_container_sees_its_own_group(minirt: Run) -> None:
    done = minirt("run", "--rm", "-m", "64m", "busybox", "sh", "-c",
                  "cat /proc/self/cgroup /sys/fs/cgroup/memory.max; grep cgroup /proc/mounts; echo 1 > "
                  "/sys/fs/cgroup/memory.max")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["0::/", str(64 * MIB)]
    assert lines[2] == "cgroup /sys/fs/cgroup cgroup2 ro,nosuid,nodev,noexec,relatime 0 0"
    assert "Read-only file system" in done.stderr


def test_writing_is_held_to_its_rate() -> None:
    """3 MiB past the cache, at 1 MiB a second, by a process born into a group that minirt has made."""
    from minirt.cgroups import tree
    from minirt.kernel import process

    number = os.stat("/dev/vda").st_rdev
    rate = {"major": os.major(number), "minor": os.minor(number), "rate": MIB}
    group = tree.group("minirt/writer")
    group.create({"blockIO": {"throttleWriteBpsDevice": [rate]}})
    pid, _ = process.clone3(0, group.descriptor)
    if not pid:
        block = mmap.mmap(-1, 64 << 10)
        out = os.open("/var/lib/minirt/written", os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)
        for _ in range(48):
            os.write(out, block)
        os._exit(0)
    begin = time.monotonic()
    code = process.wait(pid)
    seconds = time.monotonic() - begin
    written = [line["wbytes"] for line in group.statistics()["io"].values() if line.get("wbytes")]
    group.remove()
    os.unlink("/var/lib/minirt/written")
    assert code == 0 and seconds > 2, f"3 MiB were written in {seconds:.1f} s"
    assert max(written) >= 3 * MIB

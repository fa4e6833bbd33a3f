"""Limits of containers: Docker's flags, checked in Docker's words, and held by the kernel.

Whichever version of control groups has the controllers here is the one that is tried; `tests/vm` tries the other.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from minirt.cgroups import tree

MIB = 1 << 20
HERE = tree.controllers() if os.geteuid() == 0 and tree.mounts() else {}

pytestmark = [pytest.mark.caged, pytest.mark.limit(60)]


def needs(*controllers: str) -> None:
    if not set(controllers) <= set(HERE):
        pytest.skip("needs cgroup controllers")


def files(id: str, *names: str) -> str:
    """What the first of these files that exists says, in whichever tree the container's group is."""
    for point in set(tree.mounts().values()):
        for name in names:
            path = Path(point, "minirt", id, name)
            if path.exists():
                return path.read_text().strip()
    raise AssertionError(f"no {' or '.join(names)} for {id}")


# -- what is refused, in Docker's words -----------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "sentence"), [
    (("-m", "5m"), "Minimum memory limit allowed is 6MB"),
    (("--memory-reservation", "1m"), "Minimum memory reservation allowed is 6MB"),
    (("-m", "64m", "--memory-swap", "32m"),
     "Minimum memoryswap limit should be larger than memory limit, see usage"),
    (("--memory-swap", "64m"), "You should always set the Memory limit when using Memoryswap limit, see usage"),
    (("-m", "64m", "--memory-reservation", "128m"),
     "Minimum memory limit can not be less than memory reservation limit, see usage"),
    (("--memory-swappiness", "101"), "Invalid value: 101, valid memory swappiness range is 0-100"),
    (("--cpus", "4096"), "range of CPUs is from 0.01 to"),
    (("--cpus", "-1"), "range of CPUs is from 0.01 to"),
    (("--cpus", "much"), "failed to parse much as a rational number"),
    (("--cpus", "0.1234567891"), "value is too precise"),
    (("--cpus", "1", "--cpu-quota", "5000"), "Conflicting options: Nano CPUs and CPU Quota cannot both be set."),
    (("--cpus", "1", "--cpu-period", "5000"), "Conflicting options: Nano CPUs and CPU Period cannot both be set."),
    (("--cpu-period", "10"), "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
    (("--cpu-quota", "10"), "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
    (("--cpuset-cpus", "4000"), "Requested CPUs are not available - requested 4000, available: 0"),
    (("--cpuset-cpus", "x"), "Invalid value x for cpuset cpus"),
    (("--cpuset-mems", "77"), "Requested memory nodes are not available - requested 77, available: 0"),
    (("--blkio-weight", "5"), "Range of blkio weight is from 10 to 1000"),
    (("--blkio-weight", "x"), "invalid syntax"),
    (("--device-read-bps", "/dev/null"), "bad format: /dev/null"),
    (("--device-read-bps", "null:1mb"), "bad format for device path: null:1mb"),
    (("--device-write-bps", "/dev/null:fast"), "invalid rate for device: /dev/null:fast"),
    (("--device-write-iops", "/dev/null:1mb"), "invalid rate for device: /dev/null:1mb"),
    (("--device-cgroup-rule", "c 1:3"), "invalid device cgroup format 'c 1:3'"),
    (("--cgroupns", "mine"), "invalid CGROUP mode"),
])
def test_what_docker_refuses_is_refused(tool, words, sentence):
    done = tool("run", "--rm", *words, "busybox", "true", status=125)
    assert sentence in done.err
    assert tool.left() == []


def test_what_was_asked_for_is_inspected(tool):
    needs("memory", "cpu", "pids")
    tool("create", "--name", "asked", "-m", "64m", "--memory-reservation", "32m", "--cpus", "0.5", "-c", "512",
         "--pids-limit", "20", "--cgroup-parent", "lab", "--device-cgroup-rule", "c 1:11 r", "busybox")
    host = tool.inspect("asked")["HostConfig"]
    wanted = {"Memory": 64 * MIB, "MemorySwap": 128 * MIB, "MemoryReservation": 32 * MIB, "NanoCpus": 500000000,
              "CpuShares": 512, "PidsLimit": 20, "CgroupParent": "lab", "DeviceCgroupRules": ["c 1:11 r"]}
    assert {name: host[name] for name in wanted} == wanted
    assert not [name for name in host if name[0].islower()], "these are Docker's names"
    tool("create", "--name", "plain", "busybox")
    host = tool.inspect("plain")["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["CgroupnsMode"]) == (0, None, "private")


# -- what the kernel holds ------------------------------------------------------------------------------------------


def test_the_limits_are_in_the_kernels_files(tool):
    needs("memory", "cpu", "pids", "cpuset")
    id = tool.up("--name", "held", "-m", "64m", "--cpus", "0.5", "--pids-limit", "20", "--cpuset-cpus", "0", "busybox",
                 "sleep", "100")
    assert files(id, "memory.max", "memory.limit_in_bytes") == str(64 * MIB)
    assert files(id, "cpu.max", "cpu.cfs_quota_us") in ("50000 100000", "50000")
    assert files(id, "pids.max") == "20"
    assert files(id, "cpuset.cpus") == "0"
    tool("rm", "-f", "held")
    assert tool.left() == []


def test_memory_is_held_and_its_end_is_told(tool):
    needs("memory")
    eater = "head -c 200m /dev/zero | tail > /dev/null"
    tool("run", "--name", "eater", "-m", "20m", "--memory-swap", "20m", "busybox", "sh", "-c", eater, status=None)
    assert tool.inspect("eater")["State"]["OOMKilled"] is True
    tool("run", "-d", "--name", "shot", "-m", "20m", "busybox", "sleep", "100")
    tool("kill", "shot")
    tool("wait", "shot")
    state = tool.inspect("shot")["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (False, 137)


def test_tasks_are_held(tool):
    needs("pids")
    script = "for n in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"
    done = tool("run", "--rm", "--pids-limit", "4", "busybox", "sh", "-c", script, status=None)
    assert "fork" in done.err


def test_a_live_container_gets_other_limits(tool):
    needs("memory", "pids")
    id = tool.up("--name", "live", "-m", "64m", "busybox", "sleep", "100")
    group = tree.group(f"minirt/{id}")
    group.update({"memory": {"limit": 32 * MIB, "swap": 32 * MIB}, "pids": {"limit": 7}})
    group.update({"memory": {"limit": 128 * MIB, "swap": 128 * MIB}})
    assert files(id, "memory.max", "memory.limit_in_bytes") == str(128 * MIB)
    assert files(id, "pids.max") == "7"
    assert str(tool.pid("live")) in Path(place(id, "pids.max"), "cgroup.procs").read_text().split()


def place(id: str, file: str) -> str:
    return next(f"{point}/minirt/{id}" for point in set(tree.mounts().values())
                if os.path.exists(f"{point}/minirt/{id}/{file}"))


def test_what_a_container_uses_is_counted(tool, eventually):
    id = tool.up("--name", "busy", "busybox", "sh", "-c", "while :; do :; done")
    group = tree.group(f"minirt/{id}")
    eventually(lambda: group.statistics()["cpu"]["usage"] > 50000)
    found = group.statistics()
    assert found["memory"]["usage"] > 0 and found["pids"]["current"] >= 1
    tool("pause", "busy")
    before = group.statistics()["cpu"]["usage"]
    time.sleep(0.2)
    assert group.statistics()["cpu"]["usage"] == before
    tool("unpause", "busy")


# -- devices and the view -------------------------------------------------------------------------------------------

LOG = "mknod /tmp/log c 1 11 && head -c 1 /tmp/log"


def test_a_node_that_a_container_makes_cannot_be_opened(tool):
    done = tool("run", "--rm", "busybox", "sh", "-c", f"echo x > /dev/null; {LOG}", status=1)
    assert "Operation not permitted" in done.err


def test_a_rule_and_a_device_open_more(tool):
    script = "mknod /tmp/port c 10 200; cat /tmp/port"
    denied = tool("run", "--rm", "busybox", "sh", "-c", script, status=1).err
    assert "Operation not permitted" in denied
    for words in (("--device-cgroup-rule", "c 10:* rwm"), ("--device-cgroup-rule", "c 10:200 r", "--device-cgroup-rule",
                                                          "c 10:200 w"), ("--privileged",)):
        done = tool("run", "--rm", *words, "busybox", "sh", "-c", script, status=None)
        assert "not permitted" not in done.err, words


def test_the_container_sees_its_own_group_only(tool):
    out = tool("run", "--rm", "busybox", "sh", "-c", "tail -1 /proc/self/cgroup; grep -w cgroup2 /proc/mounts").out
    first, second = out.splitlines()
    assert first == "0::/"
    assert "/sys/fs/cgroup" in second and " ro," in second
    out = tool("run", "--rm", "--cgroupns", "host", "busybox", "tail", "-1", "/proc/self/cgroup").out
    assert "/minirt/" in out


@pytest.mark.leaves("the parent, which was the user's wish and may have other children")
def test_a_parent_of_ones_own(tool):
    id = tool.up("--name", "child", "--cgroup-parent", "/lab/bench", "busybox", "sleep", "100")
    pid = tool.pid("child")
    assert f"/lab/bench/{id}" in Path(f"/proc/{pid}/cgroup").read_text()
    tool("exec", "child", "true")
    tool("rm", "-f", "child")
    for point in set(tree.mounts().values()):
        assert not os.path.exists(f"{point}/lab/bench/{id}")


# -- version 1 alone ------------------------------------------------------------------------------------------------


def test_everything_works_with_version_1_alone(tool):
    """The tree of version 2 is taken away in a mount namespace of our own; what minirt finds then is version 1."""
    if "freezer" not in tree.mounts():
        pytest.skip("needs cgroup controllers")
    version_2 = tree.mounts().get("")
    away = f"umount {version_2};" if version_2 else ""

    def run(*words: str, status: int | None = 0) -> subprocess.CompletedProcess[bytes]:
        script = f'{away} exec "$@"'
        done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", *tool.words(*words)], env=tool.environment,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=40, check=False)
        assert status is None or done.returncode == status, done.stderr
        return done

    run("run", "-d", "--name", "old", "-m", "64m", "--cpus", "0.5", "--pids-limit", "20", "busybox", "sleep", "100")
    id = tool.inspect("old")["Id"]
    mine = Path(f"/proc/{tool.pid('old')}/cgroup").read_text()
    for controller in ("freezer", "memory", "cpu", "pids"):
        assert re.search(rf":{controller}:.*/minirt/{id}$", mine, re.MULTILINE), mine
    assert files(id, "memory.limit_in_bytes") == str(64 * MIB)
    assert b"minirt" in run("exec", "old", "sh", "-c", "echo minirt").stdout
    run("pause", "old")
    run("unpause", "old")
    run("rm", "-f", "old")
    assert tool.left() == []
    done = run("run", "--rm", "busybox", "sh", "-c", "mknod /tmp/port c 10 200; cat /tmp/port", status=1)
    assert b"Operation not permitted" in done.stderr
    run("run", "--name", "eater", "-m", "20m", "--memory-swap", "20m", "busybox", "sh", "-c",
        "head -c 200m /dev/zero | tail > /dev/null", status=None)
    assert tool.inspect("eater")["State"]["OOMKilled"] is True

"""The cage where cgroup v2 is all there is: its limits bite, and those that are made inside it as well."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from chapters import cage

GROUP = Path("/sys/fs/cgroup")


def test_a_cage_is_built_with_all_its_limits() -> None:
    def look() -> dict[str, Any]:
        socket.sethostname("broken")
        subprocess.run(["umount", "-a", "-l"], capture_output=True, check=False)
        return {"pid": os.getpid(), "cgroup": Path("/run/cage-proc/self/cgroup").exists()}

    here = os.uname().nodename
    outcome = cage.call(look, limits=cage.Limits(60))
    assert outcome.result()["pid"] == 2 and outcome.notes == []
    assert os.uname().nodename == here
    assert [path for path in GROUP.iterdir() if path.name.startswith(cage.PREFIX)] == []


def test_memory_and_processes_are_limited() -> None:
    def fill() -> None:
        bytearray(300 << 20)

    def bomb() -> int:
        born = 0
        try:
            for _ in range(200):
                if not os.fork():
                    signal.pause()
                born += 1
        except OSError:
            return born
        return born

    assert "more memory than 100 MiB" in cage.call(fill, limits=cage.Limits(60, 100 << 20)).how
    assert 0 < cage.call(bomb, limits=cage.Limits(60, pids=30)).result() < 30


def test_limits_can_be_set_below() -> None:
    def limit() -> list[Any]:
        controllers = (GROUP / "cgroup.subtree_control").read_text().split()
        small = GROUP / "small"
        small.mkdir()
        (small / "memory.max").write_text(str(20 << 20))
        pid = os.fork()
        if not pid:
            (small / "cgroup.procs").write_text("0")
            bytearray(100 << 20)
            os._exit(0)
        end = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        here = Path("/proc/self/cgroup").read_text().strip()
        return [end, here, {"memory", "pids", "cpu"} <= set(controllers)]

    assert cage.call(limit, limits=cage.Limits(60)).result() == [-signal.SIGKILL, "0::/init", True]


def test_a_frozen_guest_and_a_cage_in_a_cage() -> None:
    def freeze() -> None:
        box = GROUP / "icebox"
        box.mkdir()
        (box / "cgroup.procs").write_text("0")
        (box / "cgroup.freeze").write_text("1")

    assert "not finished" in cage.call(freeze, limits=cage.Limits(10)).how

    def nest() -> Any:
        inner = cage.call(os.getpid, root="shared", limits=cage.Limits(30))
        return [inner.result(), inner.notes]

    assert cage.call(nest, limits=cage.Limits(60)).result() == [2, []]

"""Many runs, one after another and at once: every exit code is right, and nothing is left, not even a descriptor."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.remains import Remains
from tests.faults.kit import Store

pytestmark = [pytest.mark.caged, pytest.mark.limit(240), pytest.mark.memory(3072),
              pytest.mark.leaves("nothing_left looks more closely")]

RUNS = 200  # `python -m benchmarks leaks` makes a thousand
AT_ONCE = 50


def test_runs_one_after_another_leave_nothing(store: Store, nothing_left: Callable[[], None]) -> None:
    remains = Remains(store.root)
    for number in range(RUNS):
        store("run", "--rm", "--name", "again", "busybox", "sh", "-c", f"exit {number % 100}", status=number % 100)
    assert remains.more() == []
    nothing_left()


@pytest.mark.parametrize("kind", ["removed", "kept"])
def test_runs_at_once_do_not_meet(store: Store, nothing_left: Callable[[], None], kind: str) -> None:
    remains = Remains(store.root)
    flags = ["--rm"] if kind == "removed" else []

    def run(number: int) -> tuple[int, str]:
        words = store.command("run", *flags, "--name", f"one-{number}", "busybox", "sh", "-c",
                              f"echo {number} > /tmp/x; sleep 0.1; cat /tmp/x; exit {number}")
        done = subprocess.run(words, env=store.environment, capture_output=True, text=True, check=False, timeout=60,
                              stdin=subprocess.DEVNULL)
        assert done.stderr == ""
        return done.returncode, done.stdout

    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(run, range(AT_ONCE)))
    assert results == [(number, f"{number}\n") for number in range(AT_ONCE)]
    if kind == "kept":
        listed = store("ps", "-a", "--filter", "status=exited", "--format", "{{.Names}}").stdout.split()
        assert len(listed) == AT_ONCE + 1
        store("rm", *(f"one-{number}" for number in range(AT_ONCE)))
    assert remains.more() == []
    nothing_left()


def test_a_monitor_keeps_no_descriptor_of_its_visitors(store: Store, nothing_left: Callable[[], None]) -> None:
    store("run", "-d", "--name", "box", "busybox", "sh", "-c", "while :; do read line; done")
    first = int(store("inspect", "-f", "{{.State.Pid}}", "box").stdout)
    monitor = Path(f"/proc/{first}/stat").read_text().rpartition(") ")[2].split()[1]
    before = os.listdir(f"/proc/{monitor}/fd"), os.listdir(f"/proc/{first}/fd")
    for _ in range(10):
        assert store("exec", "box", "echo", "alive").stdout == "alive\n"
        store("logs", "box")
        with subprocess.Popen(store.command("attach", "--no-stdin", "--sig-proxy=false", "box"), env=store.environment,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as visitor:
            store("ps")
            visitor.kill()
    assert store("ps", "-q").stdout
    assert [len(names) for names in (os.listdir(f"/proc/{monitor}/fd"), os.listdir(f"/proc/{first}/fd"))] == [
        len(names) for names in before]
    store("rm", "-f", "box")
    nothing_left()

"""Kill any process of minirt at any instant: the next command works, nothing that was stored is lost, nothing is left.

strace kills whatever process of the command enters a chosen system call for the n-th time, without a hook in our code.
The calls that change something are recorded first, in an undisturbed run; six of them, spread over the whole command,
are the points of the attack.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.kit import Store, another_image

pytestmark = [pytest.mark.caged, pytest.mark.limit(180), pytest.mark.memory(2048),
              pytest.mark.leaves("nothing_left looks more closely")]
POINTS = 6
CHANGING = ("mkdir,mkdirat,rename,renameat,renameat2,symlink,symlinkat,link,linkat,unlink,unlinkat,rmdir,fsync,clone3,"
            "clone,fork,unshare,mount,move_mount,pivot_root,umount2,execveat,sendmsg,chroot,setns,pwrite64,ftruncate")
TRACED = ",".join("?" + name for name in CHANGING.split(","))


@pytest.fixture(autouse=True)
def needs_strace() -> None:
    if not shutil.which("strace"):
        pytest.fail("these tests need strace: make test-deps")


def record(store: Store, log: Path, *words: str) -> list[tuple[str, int]]:
    """Run a command undisturbed; return the calls that change something, in order: (name, how often so far)."""
    subprocess.run(["strace", "-f", "-qq", "-o", log, "-e", f"trace={TRACED}", *store.command(*words)], timeout=60,
                   env=store.environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    seen: dict[tuple[str, str], int] = {}
    calls: list[tuple[str, int]] = []
    for line in log.read_text(errors="replace").splitlines():
        found = re.match(r"(\d+) +(\w+)\(", line)
        if found:
            key = (found[1], found[2])
            seen[key] = seen.get(key, 0) + 1
            if (found[2], seen[key]) not in calls:
                calls.append((found[2], seen[key]))
    return calls


def spread(calls: list[tuple[str, int]], point: int) -> tuple[str, int]:
    """One of six calls: the first, the last, and four between."""
    return calls[round(point * (len(calls) - 1) / (POINTS - 1))]


def kill(store: Store, call: tuple[str, int], *words: str) -> None:
    """Run a command whose process is killed when it enters that call, and wait until all its processes are gone."""
    name, number = call
    inject = f"inject={name}:signal=KILL:when={number}"
    done = subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={name}", "-e", inject,
                           *store.command(*words)], env=store.environment, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("point", range(POINTS))
def test_run_is_killed(store: Store, nothing_left: Callable[[], None], tmp_path: Path, point: int) -> None:
    command = ("run", "--name", "victim", "busybox", "echo", "done")
    calls = record(store, tmp_path / "log", *command)
    store("rm", "victim")
    kill(store, spread(calls, point), *command)

    assert store("run", "--rm", "busybox", "echo", "alive").stdout == "alive\n"
    store("rm", "-f", "victim", status=None)
    assert store(*command).stdout == "done\n"
    store("rm", "victim")
    nothing_left()


@pytest.mark.parametrize("point", range(POINTS))
def test_a_detached_run_is_killed(store: Store, nothing_left: Callable[[], None], tmp_path: Path, point: int) -> None:
    command = ("run", "-d", "--rm", "--name", "victim", "busybox", "sleep", "0.2")
    calls = record(store, tmp_path / "log", *command)
    kill(store, spread(calls, point), *command)

    assert store("run", "--rm", "busybox", "echo", "alive").stdout == "alive\n"
    store("rm", "-f", "victim", status=None)
    store(*command)
    for _ in range(100):
        if "victim" not in store("ps", "-a", "--format", "{{.Names}}").stdout:
            break
        time.sleep(0.05)
    nothing_left()


@pytest.mark.parametrize("point", range(POINTS))
def test_rm_is_killed(store: Store, nothing_left: Callable[[], None], tmp_path: Path, point: int) -> None:
    make = ("run", "--name", "victim", "busybox", "sh", "-c", "echo much > /tmp/a; echo done")
    store(*make)
    calls = record(store, tmp_path / "log", "rm", "victim")
    store(*make)
    kill(store, spread(calls, point), "rm", "victim")

    store("rm", "-f", "victim", status=None)
    assert store(*make).stdout == "done\n"
    assert store("rm", "victim").stdout == "victim\n"
    nothing_left()


@pytest.mark.parametrize("point", range(POINTS))
def test_load_is_killed(store: Store, nothing_left: Callable[[], None], tmp_path: Path, point: int) -> None:
    archive = another_image(tmp_path)
    calls = record(store, tmp_path / "log", "load", "-i", str(archive))
    store("rmi", "-f", "other")
    images, blobs, layers = store.images(), store.names("images", "blobs", "sha256"), store.names("layers")
    kill(store, spread(calls, point), "load", "-i", str(archive))

    assert images in store.images(), "an image that was there is gone"
    assert store("run", "--rm", "busybox", "echo", "alive").stdout == "alive\n"
    store("load", "-i", str(archive))
    assert store("run", "--rm", "other", "cat", "/etc/motd").stdout == "another\n"
    store("rmi", "-f", "other")
    assert store.images() == images
    assert store.names("images", "blobs", "sha256") == blobs
    assert store.names("layers") == layers
    nothing_left()

"""A disk that is full: a sentence, nothing half made, nothing lost, and all works again once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import peers
from tests.faults.kit import Store, another_image

pytestmark = [pytest.mark.caged, pytest.mark.limit(120), pytest.mark.leaves("nothing_left looks more closely")]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The store of the other fault tests, on a disk of 16 MiB."""
    root = tmp_path / "store"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=711", "small", root], check=True)
    archive = tmp_path / "busybox.tar"
    peers.small_image(archive)
    store = Store(root, archive)
    store("load", "-i", str(archive))
    store("run", "--name", "witness", "busybox", "echo", "I was here")
    return store


def fill(store: Store, leave: int) -> Path:
    """Write until `leave` bytes are free."""
    ballast = store.root / "ballast"
    free = os.statvfs(store.root)
    with ballast.open("wb") as file:
        file.write(bytes(max(0, free.f_bavail * free.f_frsize - leave)))
    return ballast


@pytest.mark.parametrize("leave", [0, 4096, 8192, 16384, 65536])
def test_run_on_a_full_disk(store: Store, nothing_left: Callable[[], None], leave: int) -> None:
    ballast = fill(store, leave)
    done = store("run", "--rm", "busybox", "true", status=None)
    assert done.returncode in (0, 125), done.stderr
    if done.returncode:
        assert "No space left on device" in done.stderr
    assert "witness" in store("ps", "-a").stdout
    assert store("logs", "witness").stdout == "I was here\n"
    ballast.unlink()
    assert store("run", "--rm", "busybox", "echo", "alive").stdout == "alive\n"
    nothing_left()


@pytest.mark.parametrize("leave", [0, 4096, 100_000, 1_500_000, 3_000_000])
def test_load_on_a_full_disk(store: Store, nothing_left: Callable[[], None], tmp_path: Path, leave: int) -> None:
    images, blobs, layers = store.images(), store.names("images", "blobs", "sha256"), store.names("layers")
    archive = another_image(tmp_path)
    ballast = fill(store, leave)
    done = store("load", "-i", str(archive), status=1)
    assert "No space left on device" in done.stderr
    assert store.images() == images
    ballast.unlink()
    store("load", "-i", str(archive))
    assert store("run", "--rm", "other", "cat", "/etc/motd").stdout == "another\n"
    store("rmi", "-f", "other")
    assert store.names("images", "blobs", "sha256") == blobs
    assert store.names("layers") == layers
    nothing_left()


def test_a_container_that_fills_the_disk_ends_by_itself_and_can_be_removed(
        store: Store, nothing_left: Callable[[], None]) -> None:
    done = store("run", "--name", "greedy", "busybox", "sh", "-c", "cat /dev/zero > /tmp/all; echo over", status=None)
    assert "over" in done.stdout
    store("rm", "-f", "greedy")
    assert store("run", "--rm", "busybox", "echo", "alive").stdout == "alive\n"
    nothing_left()

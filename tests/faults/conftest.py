"""Fixtures of the fault tests: a store with one image and one finished container, and a look at what is left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import peers
from chapters import observe
from tests.faults.kit import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with the image busybox and a container of the name witness, which has said something and ended."""
    archive = tmp_path / "busybox.tar"
    peers.small_image(archive)
    store = Store(tmp_path / "store", archive)
    store("load", "-i", str(archive))
    store("run", "--name", "witness", "busybox", "echo", "I was here")
    return store


@pytest.fixture
def nothing_left(store: Store) -> Callable[[], None]:
    """Look for what a killed command has left: call it after the next commands have had their chance to repair."""
    before = observe.snapshot()
    witness = store("ps", "-aq", "--no-trunc").stdout.split()
    pins = sorted(path.name for path in store.root.glob("layers/*/pins/*"))

    def look() -> None:
        assert store("logs", "witness").stdout == "I was here\n"
        assert store("ps", "-aq", "--no-trunc").stdout.split() == witness
        assert store.names("containers") == set(witness)
        assert store.names("names") == {"witness"}
        running = store.run_root / "containers"
        # `--rm` tells its client when the record is gone; a monitor may still be removing files.
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and (store.names("trash") or set(os.listdir(running)) - set(witness)):
            time.sleep(0.05)
        assert store.names("trash") == set()
        assert set(os.listdir(running)) <= set(witness)
        assert sorted(path.name for path in store.root.glob("layers/*/pins/*")) == pins
        assert store.half_written() == []
        left = [line for line in observe.differences(before) if " left: " in line]
        assert [line for line in left if str(store.root) not in line and "/run/minirt" not in line] == []

    return look

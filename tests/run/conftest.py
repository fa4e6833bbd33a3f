"""Tests of the tool itself: each runs the command line in a cage of its own, on a store that holds one image.

The store is made once, before the first test: `load` in every cage would take longer than the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import images

ROOT = Path(__file__).resolve().parent.parent.parent
START = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from minirt.__main__ import main; main()"
_prepared: dict[str, str] = {}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make the store that the cages copy, if any test wants it."""
    if _prepared or session.config.option.collectonly or os.geteuid() != 0:
        return
    if any("tool" in getattr(item, "fixturenames", ()) for item in session.items):
        directory = tempfile.mkdtemp(prefix="minirt-store-")
        archive = images.busybox(Path(directory) / "busybox.tar")
        store = Path(directory) / "store"
        done = subprocess.run(
            [sys.executable, "-S", "-E", "-c", START, "load", "-q", "-i", str(archive)],
            env={**os.environ, "MINIRT_ROOT": str(store)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        place = store.stat()
        shutil.rmtree(f"/run/minirt/{place.st_dev}-{place.st_ino}", ignore_errors=True)
        archive.unlink()
        _prepared["store"] = str(store)
        session.config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))


class Done:
    """What a command left: `status`, `out`, `err`, and `raw`, its output as bytes."""

    def __init__(self, status: int, out: bytes, err: bytes) -> None:
        self.status = status
        self.raw = out
        self.out = out.decode("utf-8", "surrogateescape")
        self.err = err.decode("utf-8", "surrogateescape")


class Tool:
    """The command line under test, on the store of this cage."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.environment = {**os.environ, "MINIRT_ROOT": root, "MINIRT_DEBUG": "1"}

    def words(self, *arguments: str) -> list[str]:
        """The argv that runs it."""
        return [sys.executable, "-S", "-E", "-c", START, *arguments]

    def __call__(
        self, *arguments: str, status: int | None = 0, input: str | bytes = b"", env: dict[str, str] | None = None
    ) -> Done:
        """Runs one command to its end; `status` is the exit code that it must have, None for any."""
        result = subprocess.run(
            self.words(*arguments),
            input=input.encode() if isinstance(input, str) else input,
            capture_output=True,
            env={**self.environment, **(env or {})},
            timeout=40,
            check=False,
        )
        done = Done(result.returncode, result.stdout, result.stderr)
        assert status is None or done.status == status, f"{arguments}: {done.status}: {done.out}{done.err}"
        assert "Traceback" not in done.err, done.err
        return done

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[bytes]:
        """Starts one command and returns at once."""
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.words(*arguments), env=self.environment, **{**options, **more})

    def up(self, *arguments: str) -> str:
        """`run -d` with these arguments; returns the container's id."""
        return self("run", "-d", *arguments).out.strip()

    def inspect(self, name: str) -> dict[str, Any]:
        """What `inspect` says of one container."""
        found: list[dict[str, Any]] = json.loads(self("inspect", name).out)
        return found[0]

    def pid(self, name: str) -> int:
        """The pid of a container's first process, as the cage numbers it."""
        return int(self.inspect(name)["State"]["Pid"])

    def run_root(self) -> Path:
        """The run directory of this store."""
        place = os.stat(self.root)
        return Path(f"/run/minirt/{place.st_dev}-{place.st_ino}")

    def left(self) -> list[str]:
        """What is left of containers, anywhere: nothing, when all were removed."""
        found = []
        for place in (Path(self.root) / "containers", Path(self.root) / "names", Path(self.root) / "trash"):
            found += [str(path) for path in place.glob("*")]
        found += [str(path) for path in (self.run_root() / "containers").glob("*")]
        found += [str(path) for path in Path(self.root).glob("layers/*/pins/*")]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob("**/minirt/*/")]
        return found


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Waits for a condition and returns what it said; fails when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """`until` as a fixture."""
    return until


@pytest.fixture
def tool() -> Iterator[Tool]:
    """The command line, on a store with the image busybox:latest; everything is removed after the test."""
    if "store" not in _prepared:
        pytest.skip("containers need root")
    root = Path("/var/lib/minirt")
    shutil.copytree(_prepared["store"], root, symlinks=True, dirs_exist_ok=True)
    tool = Tool(str(root))
    yield tool
    names = tool("ps", "-aq", "--no-trunc").out.split()
    if names:
        tool("rm", "-f", *names)
    until(lambda: not monitors())
    for path in root.iterdir():
        made = ("containers", "names", "trash", "ids", "events.log")
        if path.name in os.listdir(_prepared["store"]) or path.name in made:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree("/run/minirt", ignore_errors=True)
    for path in Path("/sys/fs/cgroup").glob("**/minirt/"):
        until(lambda path=path: not list(path.glob("*/")))
        path.rmdir()


def monitors() -> list[int]:
    """The pids of monitors that still live in this cage: children of pid 1 that run our interpreter."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text()
            command = (entry.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if START.encode() in command and text.rpartition(")")[2].split()[0] not in "ZX":
            found.append(int(entry.parent.name))
    return found


@pytest.fixture
def interrupt() -> Callable[[subprocess.Popen[bytes], int], None]:
    """Sends a signal to a command that was started."""

    def send(process: subprocess.Popen[bytes], number: int = signal.SIGINT) -> None:
        process.send_signal(number)

    return send

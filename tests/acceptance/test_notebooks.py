"""Notebooks run from top to bottom with no hand on them, and leave nothing on the machine."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chapters import cage, contents

NOTEBOOKS = sorted((contents.ROOT / "notebooks").glob("*.ipynb"))

pytest.importorskip("nbclient", reason="the notebooks need the book's packages: make notebook")


def name(path: Path) -> str:
    return path.stem


def left_behind() -> dict[str, set[str]]:
    """What a notebook could leave on the machine, as far as it can be told from what others do at the same time."""
    return {
        "mounts": {f"{mount.kind} {mount.point}" for mount in cage.mounts()},
        "interfaces": set(os.listdir("/sys/class/net")),
        "host name": {os.uname().nodename},
        "files": set(os.listdir("/")) | set(os.listdir(contents.ROOT / "notebooks")),
        "cgroups": {path for path in cgroups() if not os.path.exists(f"/proc/{owner(path)}")},
    }


def cgroups() -> list[str]:
    """The cgroups of all cages."""
    return [path for each in cage.hierarchies() for path in glob.glob(f"{each.point}/{cage.PREFIX}*")]


def owner(path: str) -> str:
    """The pid of the process that made a cage, which its cgroup bears in its name."""
    return path.rpartition(cage.PREFIX)[2].split("-")[0]


# Runs one notebook and prints what came of it.
RUN = """
import json, sys, nbformat
from chapters.notebook import execute
book = nbformat.read(sys.argv[1], as_version=4)
execute(book)
failed = [c.id for c in book.cells if c.cell_type == "code" and "error" in [o.output_type for o in c.outputs]]
pictures = sum("image/" in kind for c in book.cells for o in c.get("outputs", []) for kind in o.get("data", {}))
print(json.dumps({"failed": failed, "pictures": pictures}))
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_runs_and_leaves_nothing(path: Path, tmp_path: Path) -> None:
    before = left_behind()
    marker = f"MINIRT_NOTEBOOK_TEST={path.stem}-{os.getpid()}"
    environment = dict(os.environ, PYTHONPATH=str(contents.ROOT), **dict([marker.split("=")]))
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["failed"] == []
    assert result["pictures"] >= 1, "a notebook shows at least one picture, drawn from live data"
    after = left_behind()
    assert {kind: after[kind] - before[kind] for kind in after if after[kind] - before[kind]} == {}
    assert carrying(marker) == [], "processes of the notebook are still there"
    assert list(tmp_path.iterdir()) == []


def carrying(marker: str) -> list[str]:
    """The processes that have this variable in their environment: each that the notebook started inherited it."""
    found = []
    for directory in glob.glob("/proc/[0-9]*"):
        try:
            if marker.encode() in Path(directory, "environ").read_bytes().split(b"\0"):
                found.append(Path(directory, "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found

"""Images come, go, run and are saved at the same time: nothing that somebody uses is taken away, nothing is left."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.images import busybox_tree, docker_archive, entry, layer

pytestmark = [pytest.mark.caged, pytest.mark.limit(90)]

SECONDS = 6


def archives(place: Path) -> list[Path]:
    """Three images that share their lower layers in every combination."""
    busybox_tree().write(str(place / "layer"))
    base, one, two = (place / "layer").read_bytes(), layer(entry("one", content=b"1")), layer(entry("two"))
    paths = []
    for number, layers in enumerate(((base, one), (base, one, two), (base, two))):
        paths.append(place / f"{number}.tar")
        paths[-1].write_bytes(docker_archive(*layers, names=[f"image{number}"]))
    return paths


def loop(tool: Any, text: str, deadline: float) -> subprocess.Popen[bytes]:
    """A shell that does `text`, where $m is the tool, again and again; it fails when a line prints what it must not."""
    words = " ".join(map(repr, tool.words()))
    script = f"m() {{ {words} \"$@\"; }}\nwhile [ $(date +%s) -lt {int(deadline)} ]; do\n{text}\ndone\nexit 0"
    return subprocess.Popen(["bash", "-c", script, text], env=tool.environment, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)


def test_loads_removals_prunes_and_runs_at_once(tool: Any, tmp_path: Path) -> None:
    tool("rmi", "busybox")
    paths, deadline = archives(tmp_path), time.time() + SECONDS
    gone = "grep -v -e 'No such image' -e Untagged -e Deleted -e untagged -e deleted -e '^$' -e Total -e conflict"
    works = [loop(tool, f"m load -q -i {path} 2>&1 | grep -v 'Loaded image' && exit 1", deadline) for path in paths]
    works += [
        loop(tool, f"m rmi image{number} 2>&1 | {gone} && exit 1", deadline) for number in (0, 1)]
    works += [
        loop(tool, f"m image prune -af 2>&1 | {gone} && exit 1", deadline),
        loop(tool, "m run --pull never --rm image1 sh -c 'test -e /one && cat /two && echo ok' 2>&1"
                   " | grep -v -e 'No such image' -e ^ok && exit 1", deadline),
        loop(tool, "m save image0 image1 2>&1 >/dev/null | grep -v 'No such image' && exit 1", deadline),
        loop(tool, "m images -q >/dev/null 2>&1 || exit 1", deadline),
    ]
    for work in works:
        out, _ = work.communicate()
        assert work.returncode == 0, f"{work.args!r}\n{out.decode()}"
    tool("images")
    assert tool("system", "check").out == "The image store is sound.\n"
    assert tool.left() == [] and os.listdir(f"{tool.root}/pending") == []
    tool("image", "prune", "-af")
    assert os.listdir(f"{tool.root}/layers") == ["l"] and os.listdir(f"{tool.root}/layers/l") == []
    assert os.listdir(f"{tool.root}/images/blobs/sha256") == os.listdir(f"{tool.root}/chains") == []
    tool("load", "-i", str(paths[0]))
    tool("load", "-i", str(paths[1]))

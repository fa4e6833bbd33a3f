"""The notebooks' pictures show what the kernel says."""

from __future__ import annotations

import json
import os
import subprocess
import xml.dom.minidom
from collections.abc import Callable
from pathlib import Path

import pytest

from chapters import drawings


def texts(drawing: drawings.Drawing) -> list[str]:
    """The words in a picture; fails when it is no XML."""
    document = xml.dom.minidom.parseString(str(drawing))
    return [node.firstChild.data for node in document.getElementsByTagName("text") if node.firstChild]


@pytest.mark.caged
def test_a_process_in_a_namespace_of_its_own_has_a_box_of_another_colour() -> None:
    box = subprocess.Popen(["unshare", "--uts", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
    assert box.stdout and box.stdout.readline()
    rows = drawings.processes([os.getpid(), box.pid])
    picture = str(drawings.namespace_map(rows, names=("uts", "ipc")))
    box.kill()
    box.communicate()
    assert [row["pid"] for row in rows] == [os.getpid(), box.pid]
    assert rows[0]["namespaces"]["ipc"] == rows[1]["namespaces"]["ipc"]
    assert rows[0]["namespaces"]["uts"] != rows[1]["namespaces"]["uts"]
    assert (picture.count(drawings.COLOURS[0]), picture.count(drawings.COLOURS[1])) == (3, 1)


@pytest.mark.caged
def test_kernel_threads_and_the_dead_are_left_out() -> None:
    assert os.getpid() in [row["pid"] for row in drawings.processes()]
    assert drawings.processes([2**22 - 1]) == []


@pytest.mark.caged
@pytest.mark.leaves("a mount, to be seen")
def test_the_mount_tree_shows_what_is_below_what_and_its_propagation(state_root: Path) -> None:
    top = state_root / "a b"
    (top / "c").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "one", str(top)], check=True)
    subprocess.run(["mount", "--make-private", str(top)], check=True)
    (top / "c").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "two", str(top / "c")], check=True)
    subprocess.run(["mount", "--make-shared", str(top / "c")], check=True)
    rows = [row for row in drawings.mounts() if row["point"].startswith(str(top))]
    assert [row["point"] for row in rows] == [str(top), str(top / "c")], "a blank in a name is told as \\040"
    assert rows[1]["parent"] == rows[0]["id"]
    assert rows[0]["propagation"] == "private" and rows[1]["propagation"].startswith("shared:")
    words = texts(drawings.mount_tree(drawings.mounts(), below=str(top)))
    assert f"{top}  tmpfs" in words and f"{top}/c  tmpfs  ro" in words


@pytest.mark.caged
@pytest.mark.leaves("layers, to be seen")
def test_the_layer_stack_shows_whiteouts_and_what_is_seen(state_root: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (state_root / name).mkdir()
    for name in ("gone", "changed", "kept"):
        (state_root / "lower" / name).write_text(name)
    (state_root / "lower" / "directory").mkdir()
    options = ",".join(f"{name}dir={state_root}/{name}" for name in ("lower", "upper", "work"))
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(state_root / "merged")], check=True)
    (state_root / "merged" / "gone").unlink()
    (state_root / "merged" / "changed").write_text("new")
    (state_root / "merged" / "directory").rmdir()
    (state_root / "merged" / "directory").mkdir()
    upper, lower = drawings.layer(str(state_root / "upper")), drawings.layer(str(state_root / "lower"))
    assert upper == {"changed": "file", "directory": "opaque", "gone": "whiteout"}
    assert lower == {"changed": "file", "directory": "directory", "gone": "file", "kept": "file"}
    picture = drawings.layer_stack([("upper", upper), ("lower", lower)])
    assert texts(picture).count("file") == 4
    assert str(picture).count('stroke-width="2"') == 3, "seen: changed and directory from above, kept from below"


def test_images_that_share_a_layer_are_drawn_so(tmp_path: Path) -> None:
    entries = []
    for name, layers in (("one", ["a"]), ("two", ["a", "b"])):
        manifest = {"layers": [{"digest": f"sha256:{each * 64}", "size": 1500} for each in layers]}
        (tmp_path / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"blobs/sha256/{name}").write_text(json.dumps(manifest))
        named = {"org.opencontainers.image.ref.name": f"docker.io/library/{name}:latest"}
        entries.append({"digest": f"sha256:{name}", "annotations": named})
    (tmp_path / "index.json").write_text(json.dumps({"manifests": entries}))
    rows = drawings.images(str(tmp_path))
    assert [(row["name"], len(row["layers"])) for row in rows] == [("one:latest", 1), ("two:latest", 2)]
    picture = drawings.shared_layers(rows)
    assert str(picture).count('stroke-width="2"') == 2, "the layer that both have"
    assert "stored once: 3 kB; each for itself: 4.5 kB" in texts(picture)


@pytest.mark.parametrize("draw", [
    drawings.namespace_map, drawings.mount_tree, drawings.layer_stack, drawings.shared_layers,
])
def test_a_picture_of_nothing_is_still_a_picture(draw: Callable[[list[object]], drawings.Drawing]) -> None:
    assert str(draw([])).startswith("<svg ")

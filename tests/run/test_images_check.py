"""`system check`: each kind of damage is found, told in a sentence, and mended where it can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from minirt.images import listing, ready
from tests.images import config_of, docker_archive, entry, layer, oci_archive, sha

pytestmark = [pytest.mark.caged, pytest.mark.leaves("the store itself")]

LAYER, UPPER = layer(entry("etc/motd", content=b"hello\n")), layer(entry("x", content=b"xx"))
CONFIG = config_of([LAYER, UPPER])
SOUND = "The image store is sound.\n"


def minirt(*words: str, status: int = 0, stdin: bytes = b"") -> str:
    """Run one command; return its output, or what it complained of where it is to fail."""
    done = subprocess.run([sys.executable, "-m", "minirt", *words], input=stdin, capture_output=True, check=False)
    assert done.returncode == status, done.stderr.decode()
    return (done.stdout or done.stderr).decode()


@pytest.fixture
def box() -> None:
    """box:1 and box:2, one image of two layers, and other:1, compressed, which has the lower one too."""
    minirt("load", stdin=docker_archive(LAYER, UPPER, names=["box:1", "box:2"], config=CONFIG))
    minirt("load", stdin=oci_archive(LAYER, name="other:1"))
    assert minirt("system", "check") == SOUND


def index(root: Path, change: Callable[[list[dict[str, object]]], object]) -> None:
    """Change the list of images by hand."""
    path = root / "images/index.json"
    document = json.loads(path.read_text())
    change(document["manifests"])
    path.write_text(json.dumps(document))


def blob(root: Path, data: bytes) -> Path:
    return root / "images/blobs/sha256" / sha(data)


def top(root: Path) -> Path:
    """The unpacked topmost layer of box."""
    return root / "layers" / ready.find("box:1").chains[-1]


MENDED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a record of the wrong layers": (
        lambda root: (root / "chains" / sha(CONFIG)).write_text('{"chains": [], "size": 1}'),
        "does not list its layers"),
    "a damaged record": (
        lambda root: (root / "chains" / sha(CONFIG)).write_text("{"), "does not list its layers"),
    "a layer that is gone": (
        lambda root: subprocess.run(["rm", "-r", top(root)], check=True), "is missing"),
    "a layer without files": (
        lambda root: subprocess.run(["rm", "-r", top(root) / "diff"], check=True), "has no files"),
    "a layer that says it is another": (
        lambda root: (top(root) / "layer.json").write_text('{"parent": "", "diff": "", "size": 1}'), "another one"),
    "a layer's damaged description": (
        lambda root: (top(root) / "layer.json").write_text("x"), "damaged layer.json"),
    "a layer without its short name": (
        lambda root: os.unlink(root / "layers/l" / top(root).name[:20]), "no short name"),
    "a short name that leads nowhere": (
        lambda root: os.symlink("../nothing", root / "layers/l/aaaa"), "leads to no layer"),
    "a layer of nobody": (
        lambda root: os.makedirs(root / "layers" / ("a" * 64) / "diff"), "nobody needs the layer"),
    "a record of nobody": (
        lambda root: (root / "chains" / ("a" * 64)).write_text("{}"), "is of no image"),
    "a blob of nobody": (
        lambda root: blob(root, b"x").write_bytes(b"x"), "no image needs the blob"),
    "a pin of a container that is gone": (
        lambda root: os.symlink("../../../containers/gone", top(root) / "pins/gone"), "pinned by gone, which is gone"),
    "a layout with a wrong mark": (
        lambda root: (root / "images/oci-layout").write_text("{}"), "oci-layout is damaged"),
}


@pytest.mark.parametrize("damage", MENDED)
def test_damage_is_found_told_and_mended(damage: str, box: None, state_root: Path) -> None:
    make, sentence = MENDED[damage]
    make(state_root)
    assert sentence in minirt("system", "check", status=1)
    assert "repaired." in minirt("system", "check", "--repair")
    assert minirt("system", "check") == SOUND
    assert sorted(minirt("images", "--format", "{{.Repository}}:{{.Tag}}").split()) == ["box:1", "box:2", "other:1"]
    assert ready.find("box:1").chains and (top(state_root) / "diff/x").read_bytes() == b"xx", "unpacked again"
    assert minirt("system", "check") == SOUND


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


LOST: dict[str, tuple[Callable[[Path], object], str]] = {
    "a blob that is gone": (lambda root: os.unlink(blob(root, UPPER)), "is missing"),
    "a blob of other bytes": (lambda root: blob(root, UPPER).write_bytes(LAYER), "does not have that digest"),
    "a pipe in the place of a blob": (lambda root: _pipe(blob(root, UPPER)), "is no file"),
    "a pipe in the place of a configuration": (lambda root: _pipe(blob(root, CONFIG)), "is no file"),
    "a configuration that is gone": (lambda root: os.unlink(blob(root, CONFIG)), "is missing"),
    "a configuration of other bytes": (lambda root: blob(root, CONFIG).write_bytes(b"{}"), "does not have that digest"),
}


@pytest.mark.parametrize("damage", LOST)
def test_an_image_that_cannot_be_mended_loses_its_names_and_can_be_loaded_again(damage: str, box: None,
                                                                                state_root: Path) -> None:
    make, sentence = LOST[damage]
    make(state_root)
    told = minirt("system", "check", status=1)
    assert sentence in told and "box:1" in told and "box:2" in told and "other:1" not in told
    minirt("system", "check", "--repair")
    assert minirt("system", "check") == SOUND
    assert minirt("images", "--format", "{{.Repository}}").split() == ["other"]
    minirt("load", stdin=docker_archive(LAYER, UPPER, names=["box:1"], config=CONFIG))
    assert minirt("system", "check") == SOUND


def test_wrong_sizes_and_names_are_found(box: None, state_root: Path) -> None:
    index(state_root, lambda manifests: manifests[0].update(size=1))
    assert "are promised" in minirt("system", "check", status=1)
    minirt("system", "check", "--repair")
    index(state_root, lambda manifests: manifests.append({**manifests[-1]}))
    assert "two images are called" in minirt("system", "check", status=1)
    minirt("system", "check", "--repair")
    index(state_root, lambda manifests: manifests[0]["annotations"].update(  # type: ignore[attr-defined]
        {"org.opencontainers.image.ref.name": "NO NAME"}))
    assert "'NO NAME' is no name for an image" in minirt("system", "check", status=1)
    minirt("system", "check", "--repair")
    assert minirt("system", "check") == SOUND


def test_a_layer_whose_archive_is_another_one_is_found(box: None, state_root: Path) -> None:
    manifest = json.loads(blob(state_root, b"").parent.joinpath(
        listing.get("other:1").descriptors[0]["digest"][7:]).read_text())
    config = config_of([UPPER])
    manifest["config"].update(digest=f"sha256:{sha(config)}", size=len(config))
    content = json.dumps(manifest).encode()
    blob(state_root, content).write_bytes(content)
    blob(state_root, config).write_bytes(config)
    index(state_root, lambda manifests: manifests[-1].update(digest=f"sha256:{sha(content)}", size=len(content)))
    assert f"but sha256:{sha(UPPER)} is promised" in minirt("system", "check", status=1)


def test_a_broken_index_is_told(box: None, state_root: Path) -> None:
    (state_root / "images/index.json").write_text("[")
    assert "the image store is damaged" in minirt("system", "check", status=1)


def test_an_image_for_another_machine_and_one_never_unpacked_are_sound(box: None, state_root: Path) -> None:
    subprocess.run(["rm", "-r", *(state_root / "chains").glob("*")], check=True)
    subprocess.run(["rm", "-r", *(state_root / "layers").glob("*")], check=True)
    (state_root / "layers/l").mkdir()
    assert minirt("system", "check") == SOUND
    assert ready.find("box:1").chains
    assert minirt("system", "check") == SOUND

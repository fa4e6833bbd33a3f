"""Kill what changes images at each call that changes something: the store stays one that we, umoci and skopeo accept.

Nothing that was there is lost, and after the next command nothing of the killed one is left.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.kit import Store, another_image
from tests.faults.test_killed import kill, record

pytestmark = [pytest.mark.caged, pytest.mark.limit(300), pytest.mark.memory(2048),
              pytest.mark.leaves("the store itself")]
NAME = "docker.io/library/busybox:latest"


def sound(store: Store, others_too: bool) -> None:
    """We, and the others too, accept the store, and the image that was there is whole."""
    assert store("system", "check").stdout == "The image store is sound.\n"
    assert store.names("pending") == set() and store.half_written() == []
    if not others_too:
        return
    layout = store.root / "images"
    if shutil.which("umoci"):
        told = subprocess.run(["umoci", "ls", "--layout", layout], capture_output=True, text=True, check=True).stdout
        assert NAME in told.split()
    if shutil.which("skopeo"):
        subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", f"oci:{layout}:{NAME}", f"dir:{store.root}-copy"],
                       check=True)
        shutil.rmtree(f"{store.root}-copy")


def everything(store: Store) -> dict[str, set[str]]:
    """The names of all that images consist of."""
    places = ("images/blobs/sha256", "layers", "layers/l", "chains")
    return {place: store.names(*place.split("/")) for place in places}


def prepared(store: Store, place: Path, what: str) -> tuple[str, ...]:
    """The command to be killed; what it needs is there."""
    archive = place / "other.tar"
    if not archive.exists():
        another_image(place)
    if what == "load":
        return "load", "-i", str(archive)
    if what == "import":
        return "import", str(place / "layer.tar"), "other"
    store("load", "-q", "-i", str(archive))
    return {
        "rmi": ("rmi", "other"),
        "prune": ("image", "prune", "-af"),
        "tag": ("tag", "other", "busybox:more"),
        "save": ("save", "-o", str(place / "saved.tar"), "busybox", "other"),
    }[what]


@pytest.mark.parametrize("what", ["load", "import", "rmi", "prune", "tag", "save"])
def test_a_command_that_changes_images_is_killed_at_each_call(store: Store, tmp_path: Path, what: str) -> None:
    if not shutil.which("strace"):
        pytest.fail("these tests need strace: make test-deps")
    before, images = everything(store), store.images()
    calls = record(store, tmp_path / "log", *prepared(store, tmp_path, what))
    store("image", "prune", "-af")
    assert everything(store) == before, "an undisturbed one leaves nothing"
    assert len(calls) >= 6
    (tmp_path / "saved.tar").write_text("old")
    for number, call in enumerate(calls):
        command = prepared(store, tmp_path, what)
        kill(store, call, *command)
        if what == "save":
            assert (tmp_path / "saved.tar").read_bytes() == b"old" or store("load", "-i", str(tmp_path / "saved.tar"))
            (tmp_path / "saved.tar").write_text("old")
        assert set(images.splitlines()) <= set(store.images().splitlines()), call
        sound(store, others_too=number % 5 == 0)
        assert store("run", "--pull", "never", "--rm", "busybox", "echo", "alive").stdout == "alive\n"
        store("rmi", "-f", "other", "busybox:more")
        store("image", "prune", "-af")
        assert everything(store) == before, call
        assert store.images() == images, call
    # The one moment between a file's first name and its right one is the last rename of `save`.
    assert len([name for name in tmp_path.iterdir() if ".tmp" in name.name]) <= (what == "save")

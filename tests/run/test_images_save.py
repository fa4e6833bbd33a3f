"""`save`: images leave the store as they came, whole, and always as the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from minirt.images import lookup
from tests.images import config_of, docker_archive, entry, layer, oci_archive, sha

pytestmark = [pytest.mark.caged, pytest.mark.leaves("the store itself")]

LAYER, UPPER = layer(entry("etc/motd", content=b"hello\n")), layer(entry("x", content=b"xx"))
CONFIG = config_of([LAYER], config={"Cmd": ["sh"]})
ID = f"sha256:{sha(CONFIG)}"


def minirt(*words: str, status: int = 0, stdin: bytes = b"") -> str:
    """Run one command; return its output, or what it complained of where it is to fail."""
    done = subprocess.run([sys.executable, "-m", "minirt", *words], input=stdin, capture_output=True, check=False)
    assert done.returncode == status, done.stderr.decode()
    return (done.stderr if status else done.stdout).decode("utf-8", "surrogateescape")


@pytest.fixture
def both() -> None:
    """box:1 and box:2, one image, and team/other:9, compressed, which shares a layer's files with it."""
    minirt("load", stdin=docker_archive(LAYER, names=["box:1", "box:2"], config=CONFIG))
    minirt("load", stdin=oci_archive(LAYER, UPPER, name="localhost:5000/team/other:9"))


def images() -> str:
    return minirt("images", "--digests", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Digest}}")


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_saved_images_come_back_with_names_ids_and_digests(both: None, form: str, tmp_path: Path) -> None:
    before, path = images(), str(tmp_path / "images.tar")
    assert minirt("save", "--format", form, "-o", path, "box", "localhost:5000/team/other:9") == ""
    minirt("image", "prune", "-af")
    assert minirt("images", "-q") == ""
    minirt("load", "-i", path)
    assert images() == before
    with tarfile.open(path) as archive:
        assert ("manifest.json" in archive.getnames()) == (form == "docker-archive")


def test_every_blob_is_what_its_name_says_and_the_lists_agree(both: None, tmp_path: Path) -> None:
    minirt("save", "box:1", "box:2", "localhost:5000/team/other:9", "-o", str(tmp_path / "x"))
    with tarfile.open(tmp_path / "x") as archive:
        files = {each.name: archive.extractfile(each).read() for each in archive}  # type: ignore[union-attr]
        assert {each.mtime for each in archive} == {0}
    blobs = {name for name in files if name.startswith("blobs/")}
    assert {"blobs/sha256/" + hashlib.sha256(files[name]).hexdigest() for name in blobs} == blobs
    box, other = json.loads(files["manifest.json"])
    assert box == {"Config": f"blobs/sha256/{sha(CONFIG)}", "RepoTags": ["box:1", "box:2"],
                   "Layers": [f"blobs/sha256/{sha(LAYER)}"]}
    assert other["RepoTags"] == ["localhost:5000/team/other:9"] and set(other["Layers"]) < blobs
    assert json.loads(files["repositories"])["box"] == dict.fromkeys("12", sha(LAYER))
    named = [each["annotations"] for each in json.loads(files["index.json"])["manifests"]]
    assert named[0] == {"io.containerd.image.name": "docker.io/library/box:1",
                        "org.opencontainers.image.ref.name": "1"}
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


def test_what_is_saved_by_its_digest_has_no_name(both: None, tmp_path: Path) -> None:
    digest = minirt("images", "--format", "{{.Digest}}", "box:1").strip()
    minirt("save", f"box@{digest}", "-o", str(tmp_path / "x"))
    with tarfile.open(tmp_path / "x") as archive:
        assert json.load(archive.extractfile("manifest.json"))[0]["RepoTags"] is None  # type: ignore[arg-type]


def test_the_same_images_give_the_same_bytes_into_a_file_and_into_a_pipe(both: None, tmp_path: Path) -> None:
    minirt("save", "box", "-o", str(tmp_path / "file"))
    with open(tmp_path / "pipe", "wb") as out:
        subprocess.run([sys.executable, "-m", "minirt", "image", "save", "box"], stdout=out, check=True)
    assert (tmp_path / "file").read_bytes() == (tmp_path / "pipe").read_bytes()
    assert os.stat(tmp_path / "file").st_mode & 0o777 == 0o600


def test_a_repository_means_all_its_tags_and_an_id_an_image_without_a_name(both: None, tmp_path: Path) -> None:
    def names(*wanted: str) -> object:
        minirt("save", "-o", str(tmp_path / "x"), *wanted)
        with tarfile.open(tmp_path / "x") as archive:
            return json.load(archive.extractfile("manifest.json"))[0]["RepoTags"]  # type: ignore[arg-type]

    assert names("box") == ["box:1", "box:2"] and names("box:2") == ["box:2"]
    assert names(ID) == names(ID[7:17]) is None
    assert names(ID, "box:1") == ["box:1"]


def test_what_cannot_be_saved_is_told_and_leaves_the_old_file(both: None, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("old")
    assert minirt("save", "box", "nothing", "-o", str(old), status=1) == "minirt: No such image: nothing:latest\n"
    assert "it is made for linux/" in minirt("save", "box", "--platform", "linux/s390x", "-o", str(old), status=1)
    assert minirt("save", "box", "--format", "zip", status=125).startswith(
        'minirt: invalid argument "zip" for "--format" flag: known are docker-archive and oci-archive\n')
    assert "No such file or directory" in minirt("save", "box", "-o", "/nowhere/x", status=1)
    assert "Is a directory" in minirt("save", "box", "-o", str(tmp_path), status=1)
    assert "requires at least 1 argument" in minirt("save", status=1)
    os.unlink(lookup.blob_path(f"sha256:{sha(LAYER)}"))
    assert "the image store lacks the blob" in minirt("save", "box", "-o", str(old), status=1)
    assert old.read_text() == "old" and os.listdir(tmp_path) == ["old"]


def test_save_refuses_a_terminal(both: None) -> None:
    outer, inner = pty.openpty()
    done = subprocess.run([sys.executable, "-m", "minirt", "save", "box"], stdout=inner, stderr=subprocess.PIPE,
                          check=False)
    assert done.returncode == 1 and b"cowardly refusing to save to a terminal" in done.stderr
    os.close(outer)
    os.close(inner)


def test_an_image_that_is_removed_while_it_is_saved_is_saved_whole(tmp_path: Path) -> None:
    big = layer(entry("big", content=os.urandom(4 << 20)))
    minirt("load", stdin=docker_archive(big, names=["big"]))
    saving = subprocess.Popen([sys.executable, "-m", "minirt", "save", "big"], stdout=subprocess.PIPE)
    assert saving.stdout is not None
    beginning = saving.stdout.read(1000)
    assert "Deleted" in minirt("rmi", "big")
    minirt("load", stdin=beginning + saving.stdout.read())
    assert saving.wait() == 0 and minirt("images", "-q", "big") != ""


def test_save_writes_into_a_pipe_that_has_a_name(both: None, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    minirt("save", "box:1", "-o", str(tmp_path / "pipe"))
    reader.join()
    assert minirt("load", stdin=got[0]) == "Loaded image: box:1\n"

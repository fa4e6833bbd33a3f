"""Layers that chapter 13 writes: others' tools unpack them to the same files, and what a container changed comes out of
its layer as it went in."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from minirt import overlay
from minirt.images import blobs, layer, tar, write
from tests.acceptance.compare import describe, differences
from tests.images import docker_archive

TIME = 1_600_000_000


def tricky(place: Path) -> Path:
    """A directory with every kind of file that a layer can hold, all of one age."""
    (place / "deep" / ("d" * 120) / ("e" * 120)).mkdir(parents=True)
    (place / "deep" / ("d" * 120) / ("e" * 120) / "file").write_text("far down")
    (place / "plain").write_bytes(b"x" * 700)
    (place / "empty").touch()
    (place / "exact").write_bytes(b"y" * 1024)
    (place / "setuid").write_text("s")
    os.chown(place / "setuid", 70_000, 80_000)
    os.chmod(place / "setuid", 0o6755)
    (place / "beyond octal").write_text("id")
    os.chown(place / "beyond octal", 3_000_000, 4_000_000)
    os.link(place / "plain", place / "zzz")
    os.symlink("t" * 150, place / "long link")
    os.symlink("plain", place / "link")
    os.mknod(place / "device", stat.S_IFCHR | 0o640, os.makedev(8, 300))
    os.mkfifo(place / "fifo", 0o600)
    (place / "sticky").mkdir()
    os.chmod(place / "sticky", 0o1777)
    (place / "ünï").write_text("u")
    (place / os.fsdecode(b"not utf-8 \xff")).write_text("b")
    (place / "noted").write_text("n")
    os.setxattr(place / "noted", "user.note", b"two\nlines=\0")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(place)
        bound.bind("socket")  # belongs to a process, so no layer has it
        os.chdir(here)
    for top, directories, files in os.walk(place):
        for name in directories + files:
            os.utime(os.path.join(top, name), (TIME, TIME), follow_symlinks=False)
    os.utime(place, (TIME, TIME))
    return place


def packed(directory: Path) -> bytes:
    return b"".join(write.archive(write.tree(str(directory))))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tricky(tmp_path / "source")


def by_tar(archive: Path, target: Path) -> None:
    words = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]
    subprocess.run([*words, archive, "-C", target], check=True)


def by_umoci(archive: Path, target: Path) -> None:
    image, layout = archive.parent / "image.tar", archive.parent / "layout"
    image.write_bytes(docker_archive(archive.read_bytes(), names=["localhost/written:1"]))
    words = ["skopeo", "copy", "-q", "--insecure-policy", f"docker-archive:{image}", f"oci:{layout}:it"]
    subprocess.run(words, check=True)
    target.rmdir()
    subprocess.run(["umoci", "raw", "unpack", "--image", f"{layout}:it", target], check=True)


PEERS = {"tar": by_tar, "umoci": by_umoci}


@pytest.mark.caged
@pytest.mark.on_disk
@pytest.mark.limit(120)
@pytest.mark.leaves("what was unpacked")
@pytest.mark.parametrize("peer", PEERS)
def test_others_unpack_a_written_layer_to_the_same_files(peer: str, source: Path, tmp_path: Path) -> None:
    for program in (peer, "skopeo") if peer == "umoci" else (peer,):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (make test-deps)")
    (tmp_path / "layer.tar").write_bytes(packed(source))
    (tmp_path / "theirs").mkdir()
    PEERS[peer](tmp_path / "layer.tar", tmp_path / "theirs")
    (source / "socket").unlink()
    for root in (source, tmp_path / "theirs"):
        os.utime(root, (TIME, TIME))  # the layer says nothing of its own root
        os.chmod(root, 0o755)
    assert not differences(describe(source), describe(tmp_path / "theirs"))


@pytest.mark.caged
@pytest.mark.on_disk
@pytest.mark.leaves("what was unpacked")
def test_a_container_s_changes_go_through_a_layer_unchanged(source: Path, tmp_path: Path) -> None:
    for name in ("upper", "work", "merged", "again", "seen"):
        (tmp_path / name).mkdir()
    (source / "socket").unlink()
    (source / "sticky" / "old").touch()
    before = os.getcwd()
    overlay.mount([str(source)], str(tmp_path / "upper"), str(tmp_path / "work"), str(tmp_path / "merged"))
    merged = tmp_path / "merged"
    (merged / "plain").write_text("changed")
    (merged / "setuid").unlink()
    shutil.rmtree(merged / "deep")
    (merged / "sticky" / "old").unlink()
    (merged / "sticky").rmdir()
    (merged / "sticky").mkdir()
    (merged / "sticky" / "new").write_text("n")
    shutil.rmtree(merged / "empty", ignore_errors=True)
    os.chmod(merged / "exact", 0o600)
    os.chdir(before)
    for top, _, files in os.walk(tmp_path / "upper"):  # whole seconds are all that a layer keeps
        for name in [*files, "."]:
            os.utime(os.path.join(top, name), (TIME, TIME), follow_symlinks=False)
    wanted = describe(merged)
    subprocess.run(["umount", merged], check=True)
    data = iter([packed(tmp_path / "upper")])
    target, below = (os.open(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("again", "source"))
    layer.unpack(tar.Stream(lambda: next(data, b"")), target, [below])
    os.close(target)
    os.close(below)
    overlay.mount([str(tmp_path / "again"), str(source)], "", "", str(tmp_path / "seen"))
    os.chdir(before)
    try:
        assert not differences(wanted, describe(tmp_path / "seen"))
    finally:
        subprocess.run(["umount", tmp_path / "seen"], check=True)


@pytest.mark.caged
@pytest.mark.on_disk
@pytest.mark.leaves("what was built")
@pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed (make test-deps)")
def test_buildah_makes_the_same_layer_of_the_same_files(source: Path, tmp_path: Path) -> None:
    """But for the files that need a PAX record, whose own header everybody fills as they like."""
    shutil.rmtree(source / "deep")
    for name in ("beyond octal", "long link", "ünï", os.fsdecode(b"not utf-8 \xff"), "noted", "socket"):
        (source / name).unlink()
    buildah = ["buildah", "--root", tmp_path / "store", "--runroot", tmp_path / "run", "--storage-driver", "vfs"]

    def run(*words: str | Path) -> str:
        return subprocess.run([*buildah, *words], check=True, capture_output=True, text=True).stdout.strip()

    container = run("from", "scratch")
    place = run("mount", container)
    subprocess.run(["cp", "-a", f"{source}/.", place], check=True)
    run("commit", "-q", "--timestamp", str(TIME), container, f"oci:{tmp_path}/image:it")
    found = [path.read_bytes() for path in (tmp_path / "image/blobs/sha256").iterdir()]
    config = next(json.loads(each) for each in found if each.startswith(b"{") and b'"diff_ids"' in each)
    assert config["rootfs"]["diff_ids"] == [blobs.digest(packed(source))]


@pytest.mark.caged
def test_a_layer_does_not_depend_on_the_order_of_a_directory(tmp_path: Path) -> None:
    for place, names in (("one", ("a", "b", "c")), ("two", ("c", "a", "b"))):
        (tmp_path / place).mkdir()
        for name in names:
            (tmp_path / place / name).write_text(name)
            os.utime(tmp_path / place / name, (TIME, TIME))
    assert packed(tmp_path / "one") == packed(tmp_path / "two")

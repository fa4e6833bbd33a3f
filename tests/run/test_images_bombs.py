"""A few bytes that unfold to more than any disk holds: refused in a sentence before the disk is full."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.errors import BadInputError
from minirt.images import listing, load, streams
from tests import played_registry as played
from tests.images import docker_archive, entry, layer, oci_archive

pytestmark = [pytest.mark.caged, pytest.mark.limit(60), pytest.mark.leaves("the store itself, empty")]

BOMB = layer(entry("usr", content=b"x"), entry("zeros", content=bytes(96 << 20)))


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


PACKERS = {"gzip": gzip.compress, "zstd": zstd}


def minirt(*words: str | Path, stdin: bytes = b"") -> str:
    """What a command says that must refuse."""
    done = subprocess.run([sys.executable, "-m", "minirt", *map(str, words)], input=stdin, capture_output=True,
                          check=False)
    assert done.returncode == 1 and b"Traceback" not in done.stderr, done
    return done.stderr.decode()


def free(place: Path) -> int:
    disk = os.statvfs(place)
    return disk.f_bavail * disk.f_frsize


def assert_nothing_is_left(root: Path, before: int) -> None:
    assert listing.images() == [] and os.listdir(root / "layers") == ["l"]
    for name in ("images/blobs/sha256", "pending", "chains", "layers/l"):
        assert os.listdir(root / name) == [], name
    assert free(root) >= before - (1 << 20), "the room is given back"


@pytest.fixture
def small(state_root: Path) -> Iterator[Path]:
    """A store on a disk of 48 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=711", "small", state_root], check=True)
    yield state_root
    subprocess.run(["umount", "--lazy", state_root], check=True)


@pytest.mark.parametrize("kind", PACKERS)
def test_a_layer_larger_than_the_disk_is_refused_before_that_is_full(kind: str, small: Path, tmp_path: Path) -> None:
    archive = tmp_path / "bomb.tar"
    archive.write_bytes(oci_archive(layer(entry("etc/motd")), BOMB, name="docker.io/library/bomb:1",
                                    pack=PACKERS[kind]))
    before = free(small)
    said = minirt("load", "-i", archive)
    assert "bomb:1, layer 2 of 2: " in said and "No space left on device" in said, said
    assert "minirt image prune" in said, "it says what to do"
    assert_nothing_is_left(small, before)


def test_so_is_one_that_comes_from_a_registry(small: Path) -> None:
    before = free(small)
    with played.Registry() as registry:
        registry.add("bomb", "1", BOMB)
        said = minirt("pull", f"{registry.host}/bomb:1")
    assert f"{registry.host}/bomb:1, layer 1 of 1: No space left on device" in said
    assert_nothing_is_left(small, before)


@pytest.mark.parametrize("command", ["load", "import"])
def test_so_is_a_whole_archive(command: str, small: Path) -> None:
    before = free(small)
    words = {"load": ["load"], "import": ["import", "-"]}[command]
    said = minirt(*words, stdin=gzip.compress(docker_archive(BOMB)))
    assert "No space left on device" in said
    assert_nothing_is_left(small, before)


@pytest.mark.parametrize("kind", PACKERS)
def test_what_unfolds_to_more_than_files_do_is_refused_on_a_disk_of_any_size(
        kind: str, tmp_path: Path, state_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BELIEVED", 16 << 20)

    def give(data: bytes) -> list[str]:
        (tmp_path / "archive.tar").write_bytes(data)
        with (tmp_path / "archive.tar").open("rb") as file:
            return load.load(file.fileno())[0].names

    with pytest.raises(BadInputError, match=f"test:latest, layer 1 of 1: .* of {kind} data unfold to .* bomb"):
        give(oci_archive(BOMB, pack=PACKERS[kind]))
    assert_nothing_is_left(state_root, free(state_root))
    assert give(oci_archive(BOMB, pack=lambda data: data)) == ["test:latest"], "uncompressed it is what it seems"


def test_a_layer_of_ordinary_files_is_believed_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BELIEVED", 1 << 20)
    text = b"".join(b"%d lines of a program's text, as they are\n" % number for number in range(200_000))
    assert b"".join(streams.inflate("gzip", iter([gzip.compress(text)]))) == text


@pytest.mark.parametrize("window", [27, 31])
def test_a_zstd_window_takes_no_more_memory_than_every_reader_gives(window: int) -> None:
    """A header may ask for a window of exabytes; 128 MiB is what zstd itself grants."""
    descriptor = (window - 10) << 3
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([descriptor]) + (1 | (3 << 3)).to_bytes(3, "little") + b"abc"
    if window == 27:
        assert b"".join(streams.inflate("zstd", iter([frame]))) == b"abc"
    else:
        with pytest.raises(BadInputError, match=r"zstd data .* memory"):
            b"".join(streams.inflate("zstd", iter([frame])))

"""What we write beside the tools that read it: saved archives, and layers made from files."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minirt.images import pack, write
from tests.acceptance.compare import describe, differences
from tests.acceptance.test_images_peers import caged, minirt, need, podman, podmans, run, seen, umocis
from tests.images import busybox, config_of, docker_archive, entry, layer, oci_archive, sha

__all__ = ["podman"]  # a fixture

LOWER, UPPER = layer(entry("etc/motd", content=b"hello\n")), layer(entry("x", content=b"xx"))
CONFIG = config_of([LOWER, UPPER], author="somebody", config={"Cmd": ["sh", "-c", "x y"], "Env": ["A=1"]}, history=[
    {"created": "2026-01-02T03:04:05Z", "created_by": "/bin/sh -c #(nop) ADD file:0123456789 in /"},
    {"created": "2026-01-03T03:04:05Z", "created_by": "ENV\ta=b", "empty_layer": True},
    {"created": "2026-01-04T03:04:05Z", "created_by": "RUN " + "x" * 80, "comment": "buildkit"}])
NAMES = ["localhost/one:1", "localhost/one:2", "localhost/two:1"]


def stored(place: Path) -> Path:
    """Two images in our store, one of plain layers with two names, one of compressed layers; saved in one archive."""
    minirt_load(place, docker_archive(LOWER, UPPER, names=NAMES[:2], config=CONFIG))
    minirt_load(place, oci_archive(LOWER, name=NAMES[2]))
    minirt("save", "-o", place / "saved.tar", *NAMES)
    return place / "saved.tar"


def minirt_load(place: Path, data: bytes) -> None:
    (place / "given.tar").write_bytes(data)
    minirt("load", "-i", place / "given.tar")


def ids() -> dict[str, str]:
    """Name -> id of our images."""
    lines = minirt("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
    return dict(line.split() for line in lines)


@caged
def test_podman_loads_several_images_from_one_archive_of_ours(tmp_path: Path, podman: Callable[..., str]) -> None:
    podman("load", "-i", stored(tmp_path))
    theirs = json.loads(podman("images", "--format", "json"))
    found = {name: f"sha256:{image['Id']}" for image in theirs for name in image["Names"]}
    assert found == ids()
    for name in (NAMES[0], NAMES[2]):
        minirt("save", "--format", "oci-archive", "-o", tmp_path / "oci.tar", name)
        podman("rmi", "-f", name)
        podman("load", "-i", tmp_path / "oci.tar")
        assert podman("image", "inspect", "-f", "{{.Id}}", name).strip() == ids()[name][7:]
        (tmp_path / "oci.tar").unlink()


@caged
def test_what_podman_saves_of_it_comes_back_with_the_same_id(tmp_path: Path, podman: Callable[..., str]) -> None:
    podman("load", "-i", stored(tmp_path))
    before = ids()
    minirt("image", "prune", "-af")
    podman("save", "-m", "-o", tmp_path / "theirs.tar", *NAMES)
    minirt("load", "-i", tmp_path / "theirs.tar")
    assert ids() == before


@caged
def test_skopeo_and_umoci_read_both_forms(tmp_path: Path) -> None:
    need("skopeo", "umoci")
    archive = stored(tmp_path)
    for name in NAMES:
        config = run("skopeo", "inspect", "--raw", "--config", f"docker-archive:{archive}:{name}")
        assert f"sha256:{sha(config.encode())}" == ids()[name]
    minirt("save", "--format", "oci-archive", "-o", tmp_path / "oci.tar", NAMES[2])
    config = run("skopeo", "inspect", "--raw", "--config", f"oci-archive:{tmp_path}/oci.tar:{NAMES[2]}")
    assert f"sha256:{sha(config.encode())}" == ids()[NAMES[2]]
    raw = run("skopeo", "inspect", "--raw", f"oci-archive:{tmp_path}/oci.tar:{NAMES[2]}")
    digest = minirt("images", "--digests", "--format", "{{.Digest}}", NAMES[2]).strip()
    assert f"sha256:{sha(raw.encode())}" == digest
    for file, tags in ((archive, ["1", "2", "1"]), (tmp_path / "oci.tar", [NAMES[2]])):
        place = tmp_path / f"layout-{file.name}"
        place.mkdir()
        with tarfile.open(file) as opened:
            opened.extractall(place, filter="data")
        assert sorted(run("umoci", "ls", "--layout", place).split()) == sorted(tags)
    run("umoci", "raw", "unpack", "--image", f"{place}:{NAMES[2]}", tmp_path / "files")
    assert (tmp_path / "files/etc/motd").read_text() == "hello\n"


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Docker's client with a daemon of this test's."""
    need("dockerd", "docker", "containerd")
    with tempfile.TemporaryDirectory(dir="/run", prefix="peer") as short:  # the address of a socket has 108 bytes
        place = f"unix://{short}/docker.sock"
        with open(tmp_path / "dockerd.log", "wb") as log:
            daemon = subprocess.Popen(
                ["dockerd", "--data-root", tmp_path / "docker", "--exec-root", f"{short}/run", "-H", place, "--bridge",
                 "none", "--iptables=false", "--storage-driver", "vfs", "--pidfile", f"{short}/pid"],
                stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while subprocess.run(["docker", "-H", place, "version"], capture_output=True, check=False).returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                daemon.kill()
                daemon.wait()
                pytest.skip(f"dockerd does not start here: {(tmp_path / 'dockerd.log').read_text()[-300:]}")
            time.sleep(0.2)
        yield lambda *words: run("docker", "-H", place, *words)
        daemon.terminate()
        daemon.wait(30)


@caged
def test_docker_loads_our_archive_and_we_load_its(tmp_path: Path, docker: Callable[..., str]) -> None:
    docker("load", "-i", str(stored(tmp_path)))
    lines = docker("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
    before = ids()
    assert dict(line.split() for line in lines) == before
    docker("save", "-o", str(tmp_path / "theirs.tar"), *NAMES)
    minirt("image", "prune", "-af")
    minirt("load", "-i", tmp_path / "theirs.tar")
    assert ids() == before
    for command in (["history", "--no-trunc", "-H=false", "--format", "{{.ID}} {{.CreatedBy}} {{.Size}} {{.Comment}}"],
                    ["image", "inspect", "-f", "{{.Id}} {{.RepoTags}} {{.Os}} {{.Architecture}} {{.RootFS.Layers}}"],
                    ["history"], ["history", "-q"], ["history", "-H=false"], ["history", "--no-trunc"],
                    ["image", "inspect", "-f", "{{json .Config.Cmd}} {{json .Config.Env}} {{.Author}}"]):
        assert minirt(*command, NAMES[0]).replace("<missing>", "") == docker(*command, NAMES[0]).replace(
            "<missing>", ""), command
    for words in (["images"], ["system", "df"]):
        assert minirt(*words).splitlines()[0].split() == docker(*words).splitlines()[0].split()


# -- layers made from files --------------------------------------------------------------------------------------------

TIME = 1_600_000_000


def tricky(root: Path) -> None:
    """A tree with every kind of file that a layer can hold, and some of what it cannot."""
    (root / "bin").mkdir(parents=True)
    (root / "bin/su").write_bytes(b"su")
    os.chmod(root / "bin/su", 0o4755)
    os.setxattr(root / "bin/su", "security.capability", struct.pack("<5I", 0x02000001, 0x400, 0, 0, 0))
    os.setxattr(root / "bin", "user.note", b"bytes \x00\xff")
    os.link(root / "bin/su", root / "bin/sudo")
    os.symlink("../bin/su", root / "bin/link")
    os.symlink("t" * 150, root / "bin/far")
    os.symlink(b"\xff\xfe", os.fsencode(root) + b"/bin/odd")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o640, os.makedev(8, 300))
    os.mkfifo(root / "fifo", 0o600)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(root / "sock"))
    (root / "huge-owner").write_bytes(b"")
    os.chown(root / "huge-owner", 4_000_000_000, 3_000_000)
    with open(root / "sparse", "wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
    deep = root.joinpath(*["a-directory-with-a-long-name"] * 9)
    deep.mkdir(parents=True)
    (deep / ("f" * 200)).write_bytes(b"long")
    (root / "ünï").write_bytes(b"u")
    with open(os.fsencode(root) + b"/\xff\xfe bytes", "wb") as file:
        file.write(b"b")
    (root / "new\nline = 3").write_bytes(b"n")
    (root / "empty").mkdir(mode=0o1777)
    os.chmod(root / "empty", 0o1777)
    for place, directories, files in os.walk(os.fsencode(root), topdown=False):
        for name in [*directories, *files]:
            os.utime(os.path.join(place, name), (TIME, TIME), follow_symlinks=False)
    os.utime(root / "fifo", ns=(0, -86_400 * 10**9))
    os.utime(root / "huge-owner", ns=(0, TIME * 10**9 + 123_456_789))
    os.utime(root / "disk", ns=(0, 1))


def write_layer(root: Path, path: Path) -> Path:
    with open(path, "wb") as file:
        file.writelines(write.archive(write.tree(str(root))))
    return path


@caged
def test_a_layer_of_ours_comes_out_as_its_files_were_here_and_at_the_peers(
        tmp_path: Path, podman: Callable[..., str]) -> None:
    root = tmp_path / "root"
    tricky(root)
    packed = write_layer(root, tmp_path / "layer")
    (root / "sock").unlink()
    expected = describe(root)
    pack.write_archive(str(tmp_path / "image.tar"), [str(packed)], {}, ["localhost/tricky:1"])
    minirt("load", "-i", tmp_path / "image.tar")
    ours = seen("localhost/tricky:1", tmp_path)
    assert differences(expected, ours, exact_times=False) == []
    assert differences(ours, umocis(tmp_path / "image.tar", tmp_path, "localhost/tricky:1")) == []
    ours["fifo"] = (*ours["fifo"][:5], 0, *ours["fifo"][6:])  # podman takes what is before 1970 for 1970
    assert differences(ours, podmans(podman, tmp_path / "image.tar", "localhost/tricky:1")) == []


@caged
def test_the_same_files_make_the_same_layer_whatever_order_they_were_made_in(tmp_path: Path) -> None:
    tricky(tmp_path / "one")
    run("cp", "-a", tmp_path / "one", tmp_path / "two")
    assert sorted(os.listdir(tmp_path / "one")) == sorted(os.listdir(tmp_path / "two"))
    one, two = (write_layer(tmp_path / name, tmp_path / f"{name}.tar").read_bytes() for name in ("one", "two"))
    assert sha(one) == sha(two)


@caged
@pytest.mark.parametrize("prefix", ["trusted", "user"])
def test_what_an_overlay_noted_becomes_a_layer_that_all_read_alike(
        prefix: str, tmp_path: Path, podman: Callable[..., str]) -> None:
    upper = tmp_path / "upper"
    (upper / "etc").mkdir(parents=True)
    os.mknod(upper / "etc/gone", stat.S_IFCHR, os.makedev(0, 0))
    (upper / "anew").mkdir()
    (upper / "anew/only").write_bytes(b"o")
    os.setxattr(upper / "anew", f"{prefix}.overlay.opaque", b"y")
    (upper / "etc/kept").write_bytes(b"new")
    for path in (upper, *upper.rglob("*")):
        os.utime(path, (TIME, TIME), follow_symlinks=False)
    below = layer(entry("etc", tarfile.DIRTYPE, mtime=TIME), entry("etc/gone", content=b"g", mtime=TIME),
                  entry("etc/kept", content=b"old", mtime=TIME), entry("anew", tarfile.DIRTYPE, mtime=TIME),
                  entry("anew/old", mtime=TIME))
    (tmp_path / "below").write_bytes(below)
    packed = write_layer(upper, tmp_path / "layer")
    pack.write_archive(str(tmp_path / "image.tar"), [str(tmp_path / "below"), str(packed)], {}, ["localhost/over:1"])
    minirt("load", "-i", tmp_path / "image.tar")
    ours = seen("localhost/over:1", tmp_path)
    assert sorted(ours) == ["anew", "anew/only", "etc", "etc/kept"] and ours["etc/kept"][4][0] == 3  # type: ignore[index]
    assert differences(ours, podmans(podman, tmp_path / "image.tar", "localhost/over:1")) == []
    assert differences(ours, umocis(tmp_path / "image.tar", tmp_path, "localhost/over:1")) == []


@caged
def test_a_tree_that_podman_exports_is_imported_as_podman_imports_it(
        tmp_path: Path, podman: Callable[..., str]) -> None:
    podman("load", "-i", busybox(tmp_path / "box.tar", name="localhost/box:1"))
    container = podman("create", "localhost/box:1", "x").strip()
    podman("export", "-o", tmp_path / "tree.tar", container)
    minirt("import", "-c", "CMD sh", tmp_path / "tree.tar", "localhost/tree:1")
    podman("import", "-c", "CMD sh", tmp_path / "tree.tar", "localhost/theirs:1")
    made = podman("create", "localhost/theirs:1", "x").strip()
    assert differences(seen("localhost/tree:1", tmp_path), describe(Path(podman("mount", made).strip()))) == []
    shown = json.loads(minirt("image", "inspect", "localhost/tree:1"))[0]
    theirs = json.loads(podman("image", "inspect", "localhost/theirs:1"))[0]
    assert shown["RootFS"]["Layers"] == theirs["RootFS"]["Layers"]
    assert minirt("run", "--rm", "localhost/tree:1", "echo", "hello") == "hello\n"

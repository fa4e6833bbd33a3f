"""Images beside the tools that others use: the same archive, unpacked by podman and umoci, gives the same files, and
they, skopeo and buildah read each other's stores and archives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minirt import overlay, state
from minirt.images import lookup, pack, ready
from tests.acceptance.compare import describe, differences
from tests.images import PATH, busybox, debian_layer, docker_archive, entry, layer, oci_archive


def caged(test: Callable[..., None]) -> Callable[..., None]:
    """In a cage, with its state on the disk, since podman's and ours are too large for memory."""
    for mark in (pytest.mark.caged, pytest.mark.on_disk, pytest.mark.limit(300), pytest.mark.leaves("the store")):
        test = mark(test)
    return test


def need(*programs: str) -> None:
    """Skip the test where a peer is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (make test-deps)")


def run(*words: str | Path, **more: object) -> str:
    """Run a tool to its end; its output."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stderr[-2000:]}"
    return str(done.stdout)


def minirt(*words: str | Path) -> str:
    return run(sys.executable, "-m", "minirt", *words)


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Podman with all its state in a place of this test's."""
    need("podman")
    with tempfile.TemporaryDirectory(dir="/run", prefix="peer") as short:  # podman wants at most 50 characters
        place = ["--root", tmp_path / "podman", "--runroot", short, "--storage-driver", "vfs",
                 "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        yield lambda *words: run("podman", *place, *words)


def seen(name: str, place: Path) -> dict[str, tuple[object, ...]]:
    """The files of an image as a container of ours would see them."""
    root, image = state.root(), ready.find(name)
    target, empty, before = place / "ours", place / "empty", os.getcwd()
    target.mkdir()
    empty.mkdir()
    overlay.mount([*image.lower(), str(empty)], "", "", str(target), f"{root}/layers")
    os.chdir(before)
    try:
        return describe(target)
    finally:
        run("umount", target)


def podmans(podman: Callable[..., str], archive: Path, name: str) -> dict[str, tuple[object, ...]]:
    """The files of the same image as podman unpacks it."""
    podman("load", "-i", archive)
    container = podman("create", name, "x").strip()
    place = Path(podman("mount", container).strip())
    try:
        return describe(place)
    finally:
        podman("umount", container)
        podman("rm", container)


def umocis(archive: Path, place: Path, name: str) -> dict[str, tuple[object, ...]]:
    """The files of the same image as umoci unpacks it."""
    need("skopeo", "umoci")
    run("skopeo", "copy", "-q", "--insecure-policy", f"docker-archive:{archive}", f"oci:{place}/layout:it")
    run("umoci", "raw", "unpack", "--image", f"{place}/layout:it", place / "theirs")
    return describe(place / "theirs")


DIRECTORY, SYMLINK, LINK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
TIME = 1_600_000_000
EVERYTHING = (
    layer(
        entry("etc", DIRECTORY, mtime=TIME), entry("etc/a", content=b"a", mtime=TIME, mode=0o600),
        entry("etc/b", content=b"b", mtime=TIME), entry("bin", DIRECTORY, mtime=TIME, mode=0o711),
        entry("bin/su", content=b"su", mode=0o4755, mtime=TIME),
        entry("bin/wall", content=b"w", mode=0o2755, gid=5, mtime=TIME),
        entry("bin/link", LINK, linkname="bin/su", mode=0o4755, mtime=TIME),
        entry("bin/sym", SYMLINK, linkname="../etc/a", mtime=TIME),
        entry("var", DIRECTORY, mtime=TIME, uid=1, gid=2), entry("var/mail", DIRECTORY, mode=0o2775, gid=8, mtime=TIME),
        entry("var/mail/root", content=b"", mtime=TIME, uid=70000, gid=80000),
        entry("tmp", DIRECTORY, mode=0o1777, mtime=TIME), entry("dev", DIRECTORY, mtime=TIME),
        entry("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, mtime=TIME),
        entry("dev/disk", tarfile.BLKTYPE, devmajor=8, devminor=300, mode=0o640, gid=6, mtime=TIME),
        entry("dev/fifo", tarfile.FIFOTYPE, mode=0o600, mtime=TIME), entry("ünï", content=b"u", mtime=TIME),
        entry("l/" * 60 + "o" * 100, content=b"long", mtime=TIME, pax_headers={"SCHILY.xattr.user.x": "y"}),
        entry("old", DIRECTORY, mtime=TIME), entry("old/x", content=b"x", mtime=TIME)),
    layer(
        entry("etc", DIRECTORY, mtime=TIME + 5, mode=0o750), entry("etc/.wh.a", mtime=TIME),
        entry("etc/b", content=b"B2", mtime=TIME + 1), entry(".wh.old", mtime=TIME),
        entry("var", DIRECTORY, mtime=TIME + 7, uid=3), entry("var/mail", DIRECTORY, mode=0o755, mtime=TIME + 2),
        entry("var/mail/.wh..wh..opq", mtime=TIME), entry("var/mail/new", content=b"n", mtime=TIME + 1)),
    layer(entry("old", content=b"now a file", mtime=TIME), entry("var", DIRECTORY, mtime=TIME + 7, uid=3)),
)

ODD = (
    layer(
        entry("./", DIRECTORY, mtime=TIME, mode=0o755), entry("./late/file", content=b"f", mtime=TIME),
        entry("./late/", DIRECTORY, mtime=TIME, mode=0o500), entry("sym", SYMLINK, linkname="late/file", mtime=TIME),
        entry("dangling", SYMLINK, linkname="/no", uid=7),
        entry("turns", content=b"t", mtime=TIME), entry("whole second", content=b"", mtime=1),
        entry("exactly", content=b"e", pax_headers={"mtime": "1600000000.123456789"}),
        entry("can", content=b"c", mtime=TIME, uid=9, mode=0o755, pax_headers={
            "SCHILY.xattr.security.capability": "\x01\0\0\x02\0 \0\0\0\0\0\0\0\0\0\0\0\0\0\0"}),
        entry("dir", DIRECTORY, mtime=TIME), entry("dir/deep", DIRECTORY, mtime=TIME),
        entry("dir/deep/x", content=b"x", mtime=TIME), entry("-rf", content=b"", mtime=TIME),
        entry("a file", content=b"a", mtime=TIME), entry("other", DIRECTORY, mtime=TIME)),
    layer(
        entry("dir", DIRECTORY, mtime=TIME), entry("dir/deep", DIRECTORY, mtime=TIME),
        entry("dir/deep/y", content=b"y", mtime=TIME), entry("dir/deep/.wh..wh..opq", mtime=TIME),
        entry(".wh.a file", mtime=TIME), entry("a file", DIRECTORY, mtime=TIME),
        entry("a file/in it", content=b"f", mtime=TIME), entry("other", SYMLINK, linkname="dir", mtime=TIME),
        entry("late", DIRECTORY, mtime=TIME, mode=0o711), entry("late/.wh.file", mtime=TIME),
        entry("turns", DIRECTORY, mtime=TIME), entry(".wh..wh.plnk", DIRECTORY, mtime=TIME)),
)
NOT_PODMANS = (layer(  # it refuses a name given twice, has no time before 1970, and its vfs copies what is linked
    entry("sym", SYMLINK, linkname="late/file", mtime=TIME), entry("same sym", LINK, linkname="sym", mtime=TIME),
    entry("fifo", tarfile.FIFOTYPE, mtime=TIME), entry("same fifo", LINK, linkname="./fifo", mtime=TIME),
    entry("before 1970", content=b"o", pax_headers={"mtime": "-86400"}),
    entry("twice", content=b"1", mtime=TIME), entry("twice", content=b"22", mtime=TIME, mode=0o640, uid=4),
    entry("turns", DIRECTORY, mtime=TIME), entry("turns/in", content=b"i", mtime=TIME),
    entry("turns", SYMLINK, linkname="twice", mtime=TIME)),)


@caged
@pytest.mark.parametrize(("peer", "layers"), [
    ("podman", EVERYTHING), ("umoci", EVERYTHING), ("podman", ODD), ("umoci", ODD), ("umoci", NOT_PODMANS),
], ids=["podman", "umoci", "podman, odd ones", "umoci, odd ones", "umoci, what podman cannot"])
def test_every_kind_of_file_comes_out_as_from_the_peer(layers: tuple[bytes, ...], peer: str, tmp_path: Path,
                                                       request: pytest.FixtureRequest) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive(*layers, names=["localhost/everything:1"]))
    minirt("load", "-i", archive)
    if peer == "podman":
        theirs = podmans(request.getfixturevalue("podman"), archive, "localhost/everything:1")
    else:
        theirs = umocis(archive, tmp_path, "localhost/everything:1")
    ours = seen("localhost/everything:1", tmp_path)
    left_out = "l/" * 60
    for path in [left_out[:end].rstrip("/") for end in range(2, 121, 2)]:  # no archive tells their times
        for side in (ours, theirs):
            if path in side:
                side[path] = (*side[path][:5], 0, *side[path][6:])
    assert differences(ours, theirs) == [], "\n".join(differences(ours, theirs))


@caged
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_a_busybox_packed_by_buildah(form: str, tmp_path: Path, podman: Callable[..., str]) -> None:
    need("buildah")
    store = ["--root", tmp_path / "buildah", "--runroot", tmp_path / "buildah-run", "--storage-driver", "vfs"]
    container = run("buildah", *store, "from", "scratch").strip()
    root = Path(run("buildah", *store, "mount", container).strip())
    with tarfile.open(busybox(tmp_path / "box.tar")) as outer:
        inner = next(member for member in outer if member.name.endswith("layer.tar"))
        with tarfile.open(fileobj=outer.extractfile(inner)) as files:
            files.extractall(root, filter="fully_trusted")
    run("buildah", *store, "config", "--cmd", "sh", "--env", "PATH=/bin", container)
    run("buildah", *store, "commit", "-q", container, "localhost/box:1")
    archive = tmp_path / "image.tar"
    run("buildah", *store, "push", "-q", "localhost/box:1", f"{form}:{archive}:localhost/box:1")
    assert minirt("load", "-i", archive) == "Loaded image: localhost/box:1\n"
    identifier = run("buildah", *store, "images", "-q", "--no-trunc").strip()
    assert minirt("images", "-q", "--no-trunc").strip() == identifier, "the image keeps its id"
    ours = seen("localhost/box:1", tmp_path)
    assert differences(ours, podmans(podman, archive, "localhost/box:1")) == []
    assert minirt("run", "--rm", "localhost/box:1", "sh", "-c", "echo $((6*7)); ls /etc/passwd") == "42\n/etc/passwd\n"


@caged
def test_an_image_of_a_hundred_layers(tmp_path: Path, podman: Callable[..., str]) -> None:
    layers = [layer(entry("count", content=b"%d\n" % number, mtime=TIME), entry(f"f{number}", mtime=TIME + number),
                    *([entry(f".wh.f{number - 1}")] if number % 3 == 2 else []),
                    entry("d", DIRECTORY, mode=0o755, mtime=TIME + number), entry(f"d/{number}", mtime=TIME))
              for number in range(99)]
    with tarfile.open(busybox(tmp_path / "box.tar")) as outer:
        inner = next(member for member in outer if member.name.endswith("layer.tar"))
        source = outer.extractfile(inner)
        assert source is not None
        layers.insert(0, source.read())
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive(*layers, names=["localhost/hundred:1"]))
    minirt("load", "-i", archive)
    assert minirt("run", "--rm", "localhost/hundred:1", "cat", "/count") == "98\n"
    ours = seen("localhost/hundred:1", tmp_path)
    assert differences(ours, podmans(podman, archive, "localhost/hundred:1")) == []
    assert len(minirt("rmi", "localhost/hundred:1").splitlines()) == 102


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state root of this test's, in mount namespaces of its own, with the machine's network: not a cage."""
    monkeypatch.setenv("MINIRT_ROOT", str(tmp_path / "root"))
    yield tmp_path
    shutil.rmtree(state.run_root(), ignore_errors=True)


def test_a_debian_userland(private: Path, podman: Callable[..., str]) -> None:
    """debootstrap's tree: times, setuid files, device nodes, thousands of files; apt, dpkg and Python run in it."""
    need("debootstrap")
    packed, archive = debian_layer(private), private / "image.tar"
    if packed is None:
        pytest.skip("debootstrap cannot reach a Debian mirror from here")
    pack.write_archive(str(archive), [str(packed)], {"Cmd": ["bash"], "Env": [f"PATH={PATH}"]}, ["localhost/debian:1"])
    minirt("load", "-i", archive)
    assert differences(seen("localhost/debian:1", private), podmans(podman, archive, "localhost/debian:1")) == []
    for command, told in ((["apt-get", "--version"], "apt "), (["dpkg", "--list"], "base-files"),
                          (["python3", "-c", "print(6*7)"], "42"), (["perl", "-e", "print 6*7"], "42")):
        assert told in minirt("run", "--rm", "localhost/debian:1", *command)
    minirt("rmi", "localhost/debian:1")


@caged
def test_skopeo_and_umoci_read_our_store(tmp_path: Path) -> None:
    need("skopeo", "umoci")
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive(*EVERYTHING, names=["localhost/everything:1", "two:latest"]))
    minirt("load", "-i", archive)
    layout = f"{state.root()}/images"
    assert sorted(run("umoci", "ls", "--layout", layout).split()) == [
        "docker.io/library/two:latest", "localhost/everything:1"]
    told = json.loads(run("umoci", "stat", "--json", "--image", f"{layout}:localhost/everything:1"))
    assert len([each for each in told["history"] or () if each.get("layer")]) in (0, 3)
    raw = json.loads(run("skopeo", "inspect", "--raw", f"oci:{layout}:docker.io/library/two:latest"))
    assert len(raw["layers"]) == 3
    run("skopeo", "copy", "-q", "--insecure-policy", f"oci:{layout}:docker.io/library/two:latest",
        f"dir:{tmp_path}/copy")
    assert run("skopeo", "inspect", "--config", "--raw", f"oci:{layout}:docker.io/library/two:latest").encode() == (
        state.read_file(lookup.blob_path(ready.find("two").id)))


@caged
def test_what_skopeo_puts_into_our_store_can_be_run_and_removed(tmp_path: Path) -> None:
    need("skopeo")
    busybox(tmp_path / "box.tar", name="box:1")
    minirt("images")
    layout = f"{state.root()}/images"
    run("skopeo", "copy", "-q", "--insecure-policy", f"docker-archive:{tmp_path}/box.tar",
        f"oci:{layout}:docker.io/library/theirs:1")
    assert minirt("images", "--format", "{{.Repository}}:{{.Tag}}") == "theirs:1\n"
    assert minirt("run", "--rm", "theirs:1", "echo", "hello") == "hello\n"
    assert minirt("rmi", "theirs:1").startswith("Untagged: theirs:1\nDeleted: sha256:")
    assert os.listdir(f"{layout}/blobs/sha256") == []


@caged
def test_archives_of_every_tool_can_be_loaded(tmp_path: Path, podman: Callable[..., str]) -> None:
    need("skopeo")
    source = busybox(tmp_path / "box.tar", name="localhost/box:1")
    podman("load", "-i", source)
    podman("tag", "localhost/box:1", "localhost/box:2")
    made = {"podman docker": ["save", "--format", "docker-archive", "-o", tmp_path / "1.tar", "localhost/box:1"],
            "podman oci": ["save", "--format", "oci-archive", "-o", tmp_path / "2.tar", "localhost/box:1"],
            "podman several": ["save", "-m", "-o", tmp_path / "3.tar", "localhost/box:1", "localhost/box:2"]}
    for number, (tool, words) in enumerate(made.items(), 1):
        podman(*words)
        assert "Loaded image: localhost/box:1\n" in minirt("load", "-i", tmp_path / f"{number}.tar"), tool
    run("skopeo", "copy", "-q", "--insecure-policy", f"docker-archive:{source}", f"oci-archive:{tmp_path}/4.tar:box:4")
    assert minirt("load", "-i", tmp_path / "4.tar") == "Loaded image: box:4\n"
    assert minirt("run", "--rm", "box:4", "true") == ""


@caged
def test_podman_refuses_what_we_refuse_and_takes_what_we_take(tmp_path: Path, podman: Callable[..., str]) -> None:
    """The two agree on plain cases, so that ours is not merely deaf."""
    good, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
    good.write_bytes(oci_archive(EVERYTHING[0], name="localhost/good:1"))
    bad.write_bytes(good.read_bytes()[:-20_000])
    podman("load", "-i", good)
    minirt("load", "-i", good)
    for load in (lambda: podman("load", "-i", bad), lambda: minirt("load", "-i", bad)):
        with pytest.raises(AssertionError):
            load()

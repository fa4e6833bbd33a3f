"""`load`, `images`, `rmi`, `tag` and `image inspect`, in Docker's words."""

from __future__ import annotations

import gzip
import json
import os
import signal as signals
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images import config_of, docker_archive, entry, layer, oci_archive, sha

pytestmark = [pytest.mark.caged, pytest.mark.leaves("the store itself")]

LAYER = layer(entry("etc/motd", content=b"hello\n"))
CONFIG = config_of([LAYER], config={"Cmd": ["sh"], "Labels": {"a": "b"}})
ID = f"sha256:{sha(CONFIG)}"
DATA = docker_archive(LAYER, names=["docker.io/library/box:1"], config=CONFIG)


def minirt(*words: str, status: int = 0, stdin: bytes = b"") -> str:
    """Run one command; return its output, or what it complained of where it is to fail."""
    done = subprocess.run([sys.executable, "-m", "minirt", *words], input=stdin, capture_output=True, check=False)
    assert done.returncode == status, done.stderr.decode()
    return (done.stderr if status else done.stdout).decode()


@pytest.fixture
def box() -> None:
    """The image box:1 in the store."""
    assert minirt("load", stdin=DATA) == "Loaded image: box:1\n"


def test_load_from_a_file_a_pipe_and_compressed(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(DATA)
    (tmp_path / "image.tgz").write_bytes(gzip.compress(DATA))
    assert minirt("load", "-i", str(tmp_path / "image.tar")) == "Loaded image: box:1\n"
    assert minirt("image", "load", "--input", str(tmp_path / "image.tgz")) == "Loaded image: box:1\n"
    assert minirt("load", "-q", stdin=gzip.compress(DATA)) == "Loaded image: box:1\n"
    nameless = docker_archive(LAYER, names=[], config=CONFIG)
    assert minirt("load", stdin=nameless) == f"Loaded image ID: {ID}\n"
    assert minirt("images", "-q") == ID[7:19] + "\n", "the same image, whatever brought it"


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    assert minirt("load", "-i", "/nowhere", status=1) == "minirt: open /nowhere: no such file or directory\n"
    assert "archive" in minirt("load", "-i", str(tmp_path), status=1)
    assert minirt("load", stdin=b"", status=1) == "minirt: the archive is empty\n"
    assert "accepts no arguments" in minirt("load", "x", status=1)


def test_images_prints_dockers_columns(box: None) -> None:
    head, line = minirt("images").splitlines()
    assert head.split("  ") and head.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert line.split()[:3] == ["box", "1", ID[7:19]] and line.endswith("6B")
    assert minirt("image", "ls") == minirt("image", "list") == minirt("images", "-a") == minirt("images")
    assert minirt("images", "--no-trunc", "--quiet") == ID + "\n"
    assert "DIGEST" in minirt("images", "--digests").splitlines()[0]
    assert minirt("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}") == f"box:1 {ID[7:19]}\n"
    row = json.loads(minirt("images", "--format", "json"))
    assert row["Repository"] == "box" and row["Size"] == "6B" and set(row) == {
        "Containers", "CreatedAt", "CreatedSince", "Digest", "ID", "Repository", "SharedSize", "Size", "Tag",
        "UniqueSize", "VirtualSize"}
    assert minirt("images", "--format", "table {{.Tag}}").splitlines()[0] == "TAG"


def test_images_can_be_filtered(box: None) -> None:
    minirt("tag", "box:1", "localhost:5000/team/box:2")
    minirt("load", stdin=oci_archive(LAYER, layer(entry("x")), name="other:latest"))

    def shown(*words: str) -> list[str]:
        return minirt("images", "--format", "{{.Repository}}:{{.Tag}}", *words).split()

    assert sorted(shown()) == ["box:1", "localhost:5000/team/box:2", "other:latest"]
    assert shown("box") == shown("box:1") == shown("--filter", "reference=b*:?") == ["box:1"]
    assert shown("-f", "reference=*/*/box") == ["localhost:5000/team/box:2"]
    assert sorted(shown("-f", "reference=o*", "-f", "reference=box")) == ["box:1", "other:latest"]
    assert shown("-f", "label=a=b") == ["box:1", "localhost:5000/team/box:2"] and shown("-f", "label=z") == []
    assert shown("-f", "dangling=true") == [] and len(shown("-f", "dangling=false")) == 3
    assert shown("-f", "before=box:1") == [] and shown("nothing") == []
    assert minirt("images", "-f", "colour=red", status=1).startswith("minirt: invalid filter 'colour'")


def test_an_image_that_lost_its_name_is_dangling(box: None) -> None:
    said = minirt("load", stdin=docker_archive(LAYER, layer(entry("x")), names=["box:1"]))
    assert said == (f"The image box:1 already exists, renaming the old one with ID {ID} to empty string\n"
                    "Loaded image: box:1\n")
    shown = minirt("images", "-f", "dangling=true", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
    assert shown == f"<none>:<none> {ID[7:19]}\n"


def test_rmi_takes_names_and_then_the_image(box: None) -> None:
    minirt("tag", "box:1", "box:2")
    assert minirt("rmi", "box:2") == "Untagged: box:2\n"
    minirt("tag", "box:1", "other")
    assert minirt("rmi", ID[7:15], status=1) == (
        f"minirt: conflict: unable to delete {ID[7:19]} (must be forced) - image is referenced in multiple "
        "repositories\n")
    assert minirt("rmi", "-f", ID[:15]) == (f"Untagged: box:1\nUntagged: other:latest\nDeleted: {ID}\n"
                                            f"Deleted: sha256:{sha(LAYER)}\n")
    assert minirt("rmi", "box:1", "x", status=1) == ("minirt: No such image: box:1\n"
                                                     "minirt: No such image: x:latest\n")
    assert minirt("image", "rm", "--force", "x") == ""
    assert minirt("images", "-q") == ""


def test_tag_refuses_what_is_no_name(box: None) -> None:
    assert minirt("tag", "nothing", "x", status=1) == "minirt: No such image: nothing:latest\n"
    assert "must be lowercase" in minirt("tag", "box:1", "Big", status=1)
    assert minirt("tag", "box:1", "x@sha256:" + "a" * 64, status=1) == (
        "minirt: refusing to create a tag with a digest reference\n")
    assert "requires 2 arguments" in minirt("tag", "box:1", status=1)


def test_an_image_is_found_by_every_name(box: None) -> None:
    digest = minirt("images", "--format", "{{.Digest}}").strip()
    for name in ("box:1", "docker.io/library/box:1", "index.docker.io/box:1", ID, ID[7:], ID[7:9], ID[:20],
                 f"box@{digest}", f"box:1@{digest}"):
        assert json.loads(minirt("image", "inspect", name))[0]["Id"] == ID, name
    assert "No such image: box:latest" in minirt("image", "inspect", "box", status=1)
    assert "No such image: sha256:" in minirt("image", "inspect", "0" * 64, status=1)


def test_inspect_has_dockers_shape(box: None) -> None:
    shown = json.loads(minirt("image", "inspect", "box:1"))[0]
    assert set(shown) == {"Id", "RepoTags", "RepoDigests", "Parent", "Comment", "Created", "DockerVersion", "Author",
                          "Config", "Architecture", "Os", "Size", "GraphDriver", "RootFS", "Metadata"}
    assert shown["RepoTags"] == ["box:1"] and shown["Config"]["Cmd"] == ["sh"] and shown["Size"] == 6
    assert shown["RootFS"] == {"Type": "layers", "Layers": [f"sha256:{sha(LAYER)}"]}
    assert os.path.exists(shown["GraphDriver"]["Data"]["UpperDir"] + "/etc/motd")
    assert minirt("image", "inspect", "-f", "{{.Config.Cmd}} {{json .RootFS.Type}}", "box:1") == '[sh] "layers"\n'
    assert json.loads(minirt("inspect", "box:1"))[0]["Id"] == ID


def test_four_loads_and_removals_at_once_leave_a_whole_store(state_root: Path, tmp_path: Path) -> None:
    archives = []
    for number in range(4):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(docker_archive(LAYER, layer(entry("n", content=b"%d" % number)), names=[f"n{number}"]))
        archives.append(str(path))
    script = 'for i in 1 2 3; do "$1" -m minirt load -i "$2" && "$1" -m minirt rmi "$3" || exit 1; done'
    running = [subprocess.Popen(["sh", "-c", script, "sh", sys.executable, archive, f"n{number}"],
                                stdout=subprocess.DEVNULL)
               for number, archive in enumerate(archives)]
    assert [each.wait() for each in running] == [0] * 4
    assert minirt("images", "-q") == ""
    assert os.listdir(state_root / "layers") == ["l"]
    assert os.listdir(state_root / "images/blobs/sha256") == os.listdir(state_root / "pending") == []


def test_a_killed_load_leaves_nothing_after_the_next_command(state_root: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    child = subprocess.Popen([sys.executable, "-m", "minirt", "load"], stdin=reading)
    os.close(reading)
    os.write(writing, DATA[:5000])
    while not (state_root / "pending").exists() or not os.listdir(state_root / "pending"):
        pass
    child.kill()
    child.wait()
    os.close(writing)
    assert os.listdir(state_root / "pending")
    assert minirt("images", "-q") == ""
    assert os.listdir(state_root / "pending") == []
    assert [name for name in os.listdir("/run/minirt") if "pending" in name] == []


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_a_load_that_is_interrupted_ends_and_leaves_nothing(signal: str, state_root: Path) -> None:
    reading, writing = os.pipe()
    child = subprocess.Popen([sys.executable, "-m", "minirt", "load"], stdin=reading, stderr=subprocess.PIPE)
    os.close(reading)
    os.write(writing, DATA[:5000])
    while not (state_root / "pending").exists() or not os.listdir(state_root / "pending"):
        pass
    child.send_signal(getattr(signals, signal))
    assert child.wait(10) != 0
    assert child.stderr is not None and b"Traceback" not in child.stderr.read()
    os.close(writing)
    assert minirt("images", "-q") == ""
    assert os.listdir(state_root / "pending") == []


def test_hello_world_is_made_of_this_machines_files() -> None:
    from minirt.images import hello

    subprocess.run([sys.executable, "-m", "minirt.images.hello"], check=True)
    first = minirt("images", "-q")
    subprocess.run([sys.executable, "-m", "minirt.images.hello"], check=True)
    assert minirt("images", "-q") == first, "the same files make the same image"
    assert minirt("run", "--rm", "hello-world") == hello.GREETING


@pytest.mark.parametrize("with_busybox", [True, False])
def test_the_image_for_tests_runs_with_and_without_busybox(with_busybox: bool, tmp_path: Path) -> None:
    from tests.images import busybox

    minirt("load", "-i", str(busybox(tmp_path / "box.tar", with_busybox=with_busybox)))
    assert minirt("run", "--rm", "busybox", "sh", "-c", "echo $((6*7)) | cat; id -u; ls /etc") in (
        "42\n0\ngroup\nhostname\nhosts\npasswd\nresolv.conf\n", "42\n0\ngroup\npasswd\n")

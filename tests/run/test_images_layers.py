"""A layer is unpacked whole: every kind of file, with all that belongs to it, in the form that OverlayFS reads."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from minirt import overlay, state
from minirt.errors import BadInputError, ConflictError
from minirt.images import assemble, documents, listing, load, ready, remove, store, tar
from minirt.images import layer as unpacking
from tests.images import config_of, docker_archive, entry, layer, members, oci_archive, oci_files, sha

pytestmark = [pytest.mark.caged, pytest.mark.leaves("the store itself")]

DIRECTORY, SYMLINK, LINK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def give(data: bytes, place: Path) -> list[assemble.Loaded]:
    """Load an archive from a file."""
    path = place / "archive.tar"
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return load.load(descriptor)
    finally:
        os.close(descriptor)


def diff(root: Path, number: int = 0) -> Path:
    """The unpacked files of the image's layer with that number."""
    return root / "layers" / listing.images()[0].chains[number] / "diff"


def mounted(root: Path, place: Path) -> Path:
    """The image as a container would see it, read-only."""
    target = place / "root"
    target.mkdir()
    image = ready.find("test")
    before = os.getcwd()
    lower = image.lower()
    (place / "empty").mkdir()
    overlay.mount([*lower, str(place / "empty")], "", "", str(target), str(root / "layers"))
    os.chdir(before)
    return target


@pytest.fixture
def see(state_root: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Load layers, mount the image, and give its root; unmounted at the end."""
    roots = []

    def load_and_mount(*layers: bytes) -> Path:
        give(docker_archive(*layers), tmp_path)
        roots.append(mounted(state_root, tmp_path))
        return roots[-1]

    yield load_and_mount
    for each in roots:
        subprocess.run(["umount", str(each)], check=True)


def test_files_keep_what_belongs_to_them(tmp_path: Path, state_root: Path) -> None:
    long = "/".join(["directory-with-a-long-name"] * 8) + "/" + "f" * 120
    give(docker_archive(layer(
        entry("./", DIRECTORY, mode=0o711, mtime=1234567890),
        entry("d", DIRECTORY, mode=0o2750, uid=3, gid=70000, mtime=1000000000),
        entry("d/f", content=b"content", mode=0o4711, uid=100000, gid=4294967294, mtime=1111111111.123456789,
              pax_headers={"mtime": "1111111111.123456789"}),
        entry("d/readonly", DIRECTORY, mode=0o555), entry("d/readonly/inside", content=b"x"),
        entry("s", SYMLINK, linkname="/abs/../target", uid=7, mtime=1222222222),
        entry("hard", LINK, linkname="d/f"), entry("hard2", LINK, linkname="/d/f"),
        entry("hardsym", LINK, linkname="s"),
        entry(long, content=b"long", pax_headers={"SCHILY.xattr.user.note": "kept"}),
        entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666, mtime=1333333333),
        entry("loop", tarfile.BLKTYPE, devmajor=7, devminor=300, mode=0o660, gid=6),
        entry("fifo", tarfile.FIFOTYPE, mode=0o622, mtime=-5),
        entry("föö", content=b"unicode"),
    )), tmp_path)
    top = diff(state_root)
    assert (stat.S_IMODE(top.stat().st_mode), top.stat().st_mtime) == (0o711, 1234567890)
    status = (top / "d").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime) == (0o2750, 3, 70000, 1e9)
    status = (top / "d/f").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o4711, 100000, 4294967294)
    assert (status.st_mtime_ns, status.st_nlink, (top / "d/f").read_bytes()) == (1111111111123456789, 3, b"content")
    assert (top / "hard").stat().st_ino == (top / "hard2").stat().st_ino == status.st_ino
    assert (top / "d/readonly").stat().st_mode & 0o777 == 0o555
    status = (top / "s").lstat()
    assert (os.readlink(top / "s"), status.st_uid, status.st_mtime, status.st_nlink) == (
        "/abs/../target", 7, 1222222222, 2)
    assert (top / long).read_bytes() == b"long" and os.getxattr(top / long, "user.note") == b"kept"
    status = (top / "null").stat()
    assert (status.st_mode, status.st_rdev, status.st_mtime) == (stat.S_IFCHR | 0o666, os.makedev(1, 3), 1333333333)
    status = (top / "loop").stat()
    assert (status.st_mode, status.st_rdev, status.st_gid) == (stat.S_IFBLK | 0o660, os.makedev(7, 300), 6)
    assert ((top / "fifo").stat().st_mode, (top / "fifo").stat().st_mtime) == (stat.S_IFIFO | 0o622, -5)
    assert (top / "föö").read_bytes() == b"unicode"
    assert listing.images()[0].size == len(b"content") + len(b"x") + len(b"long") + len(b"unicode")


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_both_ways_of_long_names_and_large_numbers(format: int, tmp_path: Path, state_root: Path) -> None:
    name, target = "n/" * 60 + "x" * 90, "t" * 1000
    files = [entry(name, content=b"1", uid=3_000_000, mtime=10**11), entry("s", SYMLINK, linkname=target)]
    give(docker_archive(layer(*files, format=format)), tmp_path)
    status = (diff(state_root) / name).stat()
    assert (status.st_uid, os.readlink(diff(state_root) / "s")) == (3_000_000, target)
    assert status.st_mtime >= 2**33, "a time after 2242 does not fit into a header's octal digits"


def test_a_store_in_a_setgid_directory_gives_no_file_its_group(tmp_path: Path) -> None:
    os.chown(tmp_path, 0, 50)
    os.chmod(tmp_path, 0o2775)
    (tmp_path / "layer").mkdir()
    data = iter([layer(entry("d", DIRECTORY), entry("d/file", content=b"x"))])
    target = os.open(tmp_path / "layer", os.O_RDONLY)
    unpacking.unpack(tar.Stream(lambda: next(data, b"")), target)
    os.close(target)
    for place in ("layer", "layer/d", "layer/d/file"):
        status = (tmp_path / place).stat()
        assert (status.st_gid, status.st_mode & 0o7000) == (0, 0), place


ROOTLESS = """
import os, sys
from minirt.images import layer, tar
data = iter([sys.stdin.buffer.read()])
target = os.open(sys.argv[1], os.O_RDONLY)
layer.unpack(tar.Stream(lambda: next(data, b"")), target, owners=lambda user, group: (user, group))
"""


def test_setuid_survives_writing_in_a_user_namespace(tmp_path: Path) -> None:
    """The kernel takes the bit from a file that root of a user namespace writes to: so the mode comes after."""
    subprocess.run(["unshare", "--user", "--map-root-user", sys.executable, "-c", ROOTLESS, tmp_path], check=True,
                   input=layer(entry("su", content=b"x", mode=0o4755)), cwd=Path(__file__).parents[2])
    assert stat.S_IMODE((tmp_path / "su").stat().st_mode) == 0o4755


def test_capabilities_survive_an_owner(tmp_path: Path, state_root: Path) -> None:
    """chown(2) takes security.capability away, so it must come first."""
    place = tmp_path / "src"
    place.mkdir()
    (place / "ping").write_bytes(b"x")
    value = bytes.fromhex("0100000200200000000000000000000000000000")
    os.chown(place / "ping", 5, 5)
    os.setxattr(place / "ping", "security.capability", value)
    data = subprocess.run(["tar", "-C", str(place), "--xattrs", "--xattrs-include=*", "-cf", "-", "ping"], check=True,
                          capture_output=True).stdout
    give(docker_archive(data), tmp_path)
    assert os.getxattr(diff(state_root) / "ping", "security.capability") == value


@pytest.mark.parametrize("form", ["gnu", "pax 0.0", "pax 0.1", "pax 1.0"])
def test_sparse_files_stay_sparse(form: str, tmp_path: Path, state_root: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    with open(source / "image", "wb") as file:
        for number in range(30):
            file.seek(number * 1_000_000)
            file.write(b"data %d" % number)
        file.truncate(100_000_000)
    with open(source / "hole", "wb") as file:
        file.truncate(5_000_000)
    kind, _, version = form.partition(" ")
    how = [f"--format={kind}", *([f"--sparse-version={version}"] if version else [])]
    data = subprocess.run(["tar", "-C", str(source), "-S", *how, "-cf", "-", "image", "hole"], check=True,
                          capture_output=True).stdout
    assert len(data) < 2_000_000
    give(docker_archive(data), tmp_path)
    for name in ("image", "hole"):
        made = diff(state_root) / name
        assert made.read_bytes() == (source / name).read_bytes()
        assert made.stat().st_blocks * 512 < 3_000_000


BASE = layer(entry("etc", DIRECTORY, mode=0o751, uid=9, mtime=1e9), entry("etc/a", content=b"a"),
             entry("etc/b", content=b"b"), entry("data", DIRECTORY, mode=0o700), entry("data/old", content=b"old"),
             entry("tmp", DIRECTORY, mode=0o1777), entry("gone", content=b"x"))


def test_whiteouts_hide_files(see, state_root: Path) -> None:  # type: ignore[no-untyped-def]
    root = see(BASE, layer(entry("etc/.wh.a"), entry(".wh.data"), entry(".wh.gone"), entry("new")))
    assert sorted(os.listdir(root)) == ["etc", "new", "tmp"]
    assert os.listdir(root / "etc") == ["b"]
    assert overlay.is_whiteout((diff(state_root, 1) / "etc/a").lstat())


def test_an_opaque_directory_hides_what_is_below(see) -> None:  # type: ignore[no-untyped-def]
    root = see(BASE, layer(entry("data", DIRECTORY, mode=0o700), entry("data/.wh..wh..opq"), entry("data/new")))
    assert os.listdir(root / "data") == ["new"]


def test_an_opaque_root_hides_everything(see) -> None:  # type: ignore[no-untyped-def]
    root = see(BASE, layer(entry(".wh..wh..opq"), entry("etc/new")))
    assert (os.listdir(root), os.listdir(root / "etc")) == (["etc"], ["new"])


@pytest.mark.parametrize("order", ["whiteout first", "whiteout last"])
def test_a_whiteout_does_not_hide_its_own_layers_file(order: str, see) -> None:  # type: ignore[no-untyped-def]
    remove = [entry(".wh.data"), entry("etc/.wh.a")]
    make = [entry("data", DIRECTORY), entry("data/new"), entry("etc/a", content=b"A")]
    root = see(BASE, layer(*(remove + make if order == "whiteout first" else make + remove)))
    assert os.listdir(root / "data") == ["new"]
    assert (root / "etc/a").read_bytes() == b"A"


def test_a_whiteout_in_the_lowest_layer_hides_nothing(see, state_root: Path) -> None:  # type: ignore[no-untyped-def]
    root = see(layer(entry(".wh.a"), entry("b"), entry("d", DIRECTORY), entry("d/.wh..wh..opq")))
    assert sorted(os.listdir(root)) == ["b", "d"]
    assert os.listxattr(diff(state_root) / "d") == []


def test_a_directory_that_the_layer_leaves_out_stays_as_it_is_below(see) -> None:  # type: ignore[no-untyped-def]
    root = see(BASE, layer(entry("tmp/x"), entry("etc/c/d/e")))
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    status = (root / "etc").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime) == (0o751, 9, 1e9)
    assert stat.S_IMODE((root / "etc/c/d").stat().st_mode) == 0o755


def test_a_file_takes_the_place_of_a_directory_and_back(see) -> None:  # type: ignore[no-untyped-def]
    root = see(BASE, layer(entry("data", content=b"file")), layer(entry("data", DIRECTORY), entry("data/late")))
    assert os.listdir(root / "data") == ["late"]


def test_a_relative_symlink_inside_the_layer_may_be_written_through(see) -> None:  # type: ignore[no-untyped-def]
    root = see(layer(entry("usr", DIRECTORY), entry("usr/lib", DIRECTORY), entry("lib", SYMLINK, linkname="usr/lib"),
                     entry("lib/x", content=b"x")))
    assert (root / "usr/lib/x").read_bytes() == b"x"


def test_one_layer_of_two_images_is_unpacked_once(tmp_path: Path, state_root: Path) -> None:
    give(docker_archive(BASE, layer(entry("one")), names=["one"]), tmp_path)
    before = (state_root / "layers" / ready.find("one").chains[0] / "diff").stat().st_ino
    give(oci_archive(BASE, layer(entry("two")), name="two"), tmp_path)
    assert ready.find("one").chains[0] == ready.find("two").chains[0]
    assert len(os.listdir(state_root / "layers")) == 4
    remove.remove("one")
    assert (state_root / "layers" / ready.find("two").chains[0] / "diff").stat().st_ino == before
    remove.remove("two")
    assert os.listdir(state_root / "layers") == ["l"]


def names(rows: Sequence[listing.Stored]) -> list[list[str]]:
    """The names of all images."""
    return [image.references for image in rows]


def test_a_name_that_moves_leaves_the_old_image_without_one(tmp_path: Path, state_root: Path) -> None:
    first = give(docker_archive(BASE), tmp_path)[0]
    second = give(docker_archive(BASE, layer(entry("x"))), tmp_path)[0]
    assert second.displaced == [("test:latest", first.id)]
    assert sorted(names(listing.images())) == [[], ["docker.io/library/test:latest"]]
    assert ready.find(first.id[7:15]).id == first.id, "it can still be reached by its id"


def test_pinned_layers_survive_until_their_user_is_gone(tmp_path: Path, state_root: Path) -> None:
    give(docker_archive(BASE, layer(entry("x"))), tmp_path)
    image = ready.find("test")
    user = state_root / "containers" / ("c" * 64)
    user.mkdir(parents=True)
    state.pin(f"{state_root}/layers/{image.chains[-1]}", "c" * 64, f"../../../containers/{'c' * 64}")
    with pytest.raises(ConflictError, match=r'unable to remove repository reference "test:latest" \(must force\) - '
                                            "container cccccccccccc is using its referenced image"):
        remove.remove("test")
    with pytest.raises(ConflictError, match=r"unable to delete [0-9a-f]{12} \(must be forced\)"):
        remove.remove(image.id)
    assert remove.remove("test", force=True) == ["Untagged: test:latest", f"Deleted: {image.id}"]
    assert all((state_root / "layers" / chain / "diff").exists() for chain in image.chains)
    user.rmdir()
    user.parent.rmdir()
    give(docker_archive(layer(entry("other")), names=["other"]), tmp_path)
    remove.remove("other")
    assert os.listdir(state_root / "layers") == ["l"]


def test_what_another_tool_put_into_the_layout_is_unpacked_when_asked_for(tmp_path: Path, state_root: Path) -> None:
    give(oci_archive(BASE), tmp_path)
    identifier = ready.find("test").id
    subprocess.run(["rm", "-r", str(state_root / "chains"), str(state_root / "layers")], check=True)
    store.prepare()
    image = ready.find("test")
    assert image.id == identifier and (diff(state_root) / "etc/a").read_bytes() == b"a"


def test_several_images_in_one_archive_and_the_form_before_2016(tmp_path: Path, state_root: Path) -> None:
    other = layer(entry("x"))
    configs = [config_of([BASE]), config_of([BASE, other])]
    listed = [{"Config": f"{sha(configs[0])}.json", "RepoTags": ["a:1", "a:2"], "Layers": ["0.tar"]},
              {"Config": f"{sha(configs[1])}.json", "RepoTags": None, "Layers": ["0.tar", "1.tar"]}]
    loaded = give(members({"0.tar": BASE, "1.tar": other, "manifest.json": json.dumps(listed).encode(),
                           **{f"{sha(each)}.json": each for each in configs}}), tmp_path)
    assert [each.names for each in loaded] == [["a:1", "a:2"], []]
    old = {"repositories": json.dumps({"old": {"1": "top"}}).encode(),
           "base/json": b'{"id": "base"}', "base/layer.tar": BASE,
           "top/json": b'{"id": "top", "parent": "base", "os": "linux", "config": {"Cmd": ["x"]}}',
           "top/layer.tar": other}
    give(members(old), tmp_path)
    assert ready.find("old:1").config["config"] == {"Cmd": ["x"]}
    assert ready.find("old:1").chains == ready.find(loaded[1].id).chains


def of_platforms(*architectures: str) -> bytes:
    """An OCI archive whose index leads to an index with an image for each architecture."""
    files: dict[str, bytes] = {}
    descriptors = []
    for architecture in architectures:
        made = oci_files(layer(entry("arch", content=architecture.encode())),
                         config=config_of([layer(entry("arch", content=architecture.encode()))],
                                          architecture=architecture))
        descriptor = json.loads(made["index.json"])["manifests"][0]
        del descriptor["annotations"]
        descriptors.append({**descriptor, "platform": {"os": "linux", "architecture": architecture}})
        files |= made
    inner = json.dumps({"schemaVersion": 2, "manifests": descriptors}).encode()
    files[f"blobs/sha256/{sha(inner)}"] = inner
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [{
        "mediaType": documents.INDEX_TYPES[0], "digest": f"sha256:{sha(inner)}", "size": len(inner),
        "annotations": {"io.containerd.image.name": "docker.io/library/many:1", documents.REF_NAME: "1"}}]}).encode()
    return members(files)


def test_of_many_platforms_this_machines_is_taken(tmp_path: Path, state_root: Path) -> None:
    loaded = give(of_platforms("s390x", documents.architecture(), "riscv64"), tmp_path)
    assert loaded[0].names == ["many:1"]
    assert (diff(state_root) / "arch").read_text() == documents.architecture()
    with pytest.raises(BadInputError, match=r"no matching manifest for linux/.*made for linux/s390x, linux/riscv64"):
        give(of_platforms("s390x", "riscv64"), tmp_path)


def test_an_index_that_another_tool_put_into_the_store_is_understood(tmp_path: Path, state_root: Path) -> None:
    store.prepare()
    (tmp_path / "many.tar").write_bytes(of_platforms("s390x", documents.architecture()))
    subprocess.run(["tar", "-C", str(state_root / "images"), "-xf", str(tmp_path / "many.tar")], check=True)
    index = json.loads((state_root / "images/index.json").read_text())
    index["manifests"][0]["annotations"] = {documents.REF_NAME: "docker.io/library/many:1"}
    (state_root / "images/index.json").write_text(json.dumps(index))
    image = ready.find("many:1")
    assert (state_root / "layers" / image.lower()[0] / "arch").read_text() == documents.architecture()
    assert listing.images()[0].references == ["docker.io/library/many:1"]
    remove.remove("many:1")
    assert os.listdir(state_root / "images/blobs/sha256") == [] and os.listdir(state_root / "layers") == ["l"]


def test_docker_save_of_today_has_both_forms(tmp_path: Path, state_root: Path) -> None:
    files = oci_files(BASE, pack=bytes)
    config = f"blobs/sha256/{sha(config_of([BASE]))}"
    files["manifest.json"] = json.dumps([{"Config": config, "RepoTags": ["both:1"],
                                          "Layers": [f"blobs/sha256/{sha(BASE)}"]}]).encode()
    assert give(members(files), tmp_path)[0].names == ["both:1"]


def test_a_removal_that_was_cut_short_is_finished(tmp_path: Path, state_root: Path) -> None:
    give(docker_archive(BASE, layer(entry("x"))), tmp_path)
    chains = listing.images()[0].chains
    layers = state_root / "layers"
    (layers / chains[1]).rename(layers / f"dead-{chains[1]}")
    (layers / ("dead-" + "a" * 64)).mkdir()
    with store.lock():
        assert store.collect() == ["a" * 64]
    assert sorted(os.listdir(layers)) == sorted(["l", *chains]), "what is needed came back, what is not is gone"

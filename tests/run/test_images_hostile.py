"""A hostile archive ends in a sentence, writes nothing outside, and leaves no half-made image."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minirt.errors import BadInputError
from minirt.images import assemble, listing, load, remove
from tests.images import config_of, docker_archive, entry, layer, members, oci_archive, oci_files, sha

pytestmark = [pytest.mark.caged, pytest.mark.leaves("the store itself, empty")]

DIRECTORY, SYMLINK, LINK, DEVICE = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
GOOD = layer(entry("etc", DIRECTORY), entry("etc/motd", content=b"hello\n"))


def give(data: bytes, place: Path) -> list[assemble.Loaded]:
    """Load an archive from a file."""
    path = place / "archive.tar"
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return load.load(descriptor)
    finally:
        os.close(descriptor)


def tree(place: Path) -> list[tuple[str, int, int]]:
    """Everything below a directory: name, mode, size."""
    return sorted((str(path), path.lstat().st_mode, path.lstat().st_size) for path in place.rglob("*"))


def assert_nothing_is_there(root: Path) -> None:
    """No image, no layer, no blob, nothing pending."""
    assert listing.images() == []
    assert os.listdir(root / "layers") == ["l"]
    for name in ("layers/l", "images/blobs/sha256", "pending", "chains"):
        assert os.listdir(root / name) == [], name


def outside(place: Path) -> Path:
    """A directory that an archive must not reach."""
    target = place / "outside"
    target.mkdir()
    (target / "secret").write_text("secret\n")
    return target


# name -> (what the layer holds, a piece of the sentence); OUT stands for a directory outside
LAYERS: dict[str, tuple[Callable[[str], bytes], str]] = {
    "dot dot": (lambda out: layer(entry("../../../../../../.." + out + "/new")), "leads out"),
    "dot dot inside": (lambda out: layer(entry("a/../b")), "leads out"),
    "dot dot directory": (lambda out: layer(entry("a/..", DIRECTORY)), "leads out"),
    "absolute symlink, then through it": (
        lambda out: layer(entry("d", SYMLINK, linkname=out), entry("d/new", content=b"x")), "symbolic link"),
    "climbing symlink, then through it": (
        lambda out: layer(entry("d", SYMLINK, linkname="../" * 20 + out[1:]), entry("d/new", content=b"x")),
        "symbolic link"),
    "symlink on the way": (
        lambda out: layer(entry("a", DIRECTORY), entry("a/d", SYMLINK, linkname=out), entry("a/d/e/new", content=b"x")),
        "symbolic link"),
    "symlink, then a directory below it": (
        lambda out: layer(entry("d", SYMLINK, linkname=out), entry("d/new", DIRECTORY)), "symbolic link"),
    "symlink, then a whiteout below it": (
        lambda out: layer(entry("d", SYMLINK, linkname=out), entry("d/.wh.secret")), "symbolic link"),
    "symlink, then opaque below it": (
        lambda out: layer(entry("d", SYMLINK, linkname=out), entry("d/.wh..wh..opq")), "symbolic link"),
    "hard link to outside": (lambda out: layer(entry("l", LINK, linkname=out + "/secret")), "no file of this layer"),
    "hard link with dot dot": (lambda out: layer(entry("l", LINK, linkname="../../.." + out + "/secret")), "leads out"),
    "hard link through a symlink": (
        lambda out: layer(entry("d", SYMLINK, linkname=out), entry("l", LINK, linkname="d/secret")),
        "symbolic link"),
    "hard link to the layer below": (lambda out: layer(entry("l", LINK, linkname="etc/motd")), "no file of this layer"),
    "hard link to itself": (lambda out: layer(entry("l"), entry("l", LINK, linkname="./l")), "itself"),
    "hard link to a directory": (
        lambda out: layer(entry("d", DIRECTORY), entry("l", LINK, linkname="d")), "no file of this layer"),
    "hard link to nothing": (lambda out: layer(entry("l", LINK, linkname="")), "no file of this layer"),
    "file in the place of a directory": (lambda out: layer(entry("a"), entry("a/b")), "cannot be unpacked"),
    "file in the place of the root": (lambda out: layer(entry(".")), "own root"),
    "impossible device": (
        lambda out: layer(entry("n", DEVICE, devmajor=0o7777777, devminor=0o7777777)), "impossible device"),
    "unknown type": (lambda out: layer(entry("n", b"Q")), "unknown type"),
    "name too long": (lambda out: layer(entry("n" * 256)), "cannot be unpacked"),
    "path too long": (lambda out: layer(entry("/".join(["n" * 200] * 30))), "cannot be unpacked"),
    "empty symlink": (lambda out: layer(entry("s", SYMLINK, linkname="")), "cannot be unpacked"),
    "zero in a name": (lambda out: layer(entry("n", pax_headers={"path": "a\0b"})), "zero byte"),
    "owner out of range": (lambda out: layer(entry("n", uid=1 << 33)), "impossible owner"),
    "whiteout of dot dot": (lambda out: layer(entry(".wh...")), "no name"),
    "files after the end": (lambda out: layer(entry("a"))[:512] + bytes(512) + layer(entry("b")), "after the mark"),
    "not tar": (lambda out: b"not a tar archive " * 100, "not a tar archive"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_hostile_layer_is_refused(name: str, tmp_path: Path, state_root: Path) -> None:
    make, sentence = LAYERS[name]
    target = outside(tmp_path)
    before = tree(target)
    with pytest.raises(BadInputError, match=sentence):
        give(docker_archive(GOOD, make(str(target))), tmp_path)
    assert tree(target) == before
    assert_nothing_is_there(state_root)
    assert give(docker_archive(GOOD), tmp_path)[0].names == ["test:latest"], "the next load works"


def huge(field: slice, value: bytes) -> bytes:
    """A layer whose first header claims something."""
    data = bytearray(layer(entry("n", content=b"x")))
    data[field] = value
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


CLAIMS = {
    "eight exabytes": (huge(slice(124, 136), b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7), "ends"),
    "eight gigabytes": (huge(slice(124, 136), b"77777777777\0"), "ends"),
    "a negative size": (huge(slice(124, 136), b"\xff" * 12), "negative size"),
    "letters for a size": (huge(slice(124, 136), b"12x00000000\0"), "no number"),
    "a long name of a gigabyte": (huge(slice(124, 157), b"10000000000\0" + b"0" * 20 + b"L"), "claims"),
    "a wrong sum": (GOOD[:10] + b"x" + GOOD[11:], "sum of a header"),
    "a PAX size": (layer(entry("n", pax_headers={"size": "9" * 18})), "ends"),
    "a PAX size that is none": (layer(entry("n", pax_headers={"size": "-1"})), "no number"),
    "a sparse file of parts that overlap": (
        layer(entry("n", content=b"ab", pax_headers={"GNU.sparse.map": "5,1,0,1", "GNU.sparse.size": "9"})), "overlap"),
    "a sparse file larger than its map": (
        layer(entry("n", content=b"ab", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"})), "not fit"),
    "a sparse file beyond its size": (
        layer(entry("n", content=b"ab", pax_headers={"GNU.sparse.map": "8,2", "GNU.sparse.size": "9"})), "not fit"),
    "a sparse file of nine exabytes": (
        layer(entry("n", content=b"", pax_headers={"GNU.sparse.map": "", "GNU.sparse.size": "9" * 19})),
        "beyond any clock or disk"),
    "a sparse map without an end": (
        layer(entry("n", content=b"1" * 512, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                                                          "GNU.sparse.realsize": "9"})), "within its map"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_is_not_believed(name: str, tmp_path: Path, state_root: Path) -> None:
    data, sentence = CLAIMS[name]
    with pytest.raises(BadInputError, match=sentence):
        give(docker_archive(data), tmp_path)
    assert_nothing_is_there(state_root)


def changed(files: dict[str, bytes], name: str, content: bytes | None) -> bytes:
    """An archive in which one file is another, or missing."""
    files = dict(files)
    if content is None:
        del files[name]
    else:
        files[name] = content
    return members(files)


def outer() -> dict[str, tuple[bytes, str]]:
    """Archives that lie about themselves: name -> (archive, a piece of the sentence)."""
    good = oci_files(GOOD)
    config = config_of([GOOD])
    manifest = next(name for name, data in good.items() if b'"layers": [{' in data)
    blob = next(name for name, data in good.items() if data.startswith(b"\x1f\x8b"))
    config_blob = f"blobs/sha256/{sha(config)}"
    other = config_of([GOOD + bytes(512)])
    docker = {"m.json": config, "0.tar": GOOD}

    def listed(**fields: Any) -> bytes:
        item = {"Config": "m.json", "RepoTags": ["test:latest"], "Layers": ["0.tar"], **fields}
        return members({**docker, "manifest.json": json.dumps([item]).encode()})

    return {
        "another layer under its digest": (changed(good, blob, good[blob][:-6] + b"\0" * 6), "damaged|digest"),
        "a longer layer": (changed(good, blob, good[blob] + b"\0"), "bytes long"),
        "another config under its digest": (changed(good, config_blob, other), "does not have that digest"),
        "another manifest under its digest": (changed(good, manifest, good[manifest] + b" "), "were promised"),
        "a config of another layer": (docker_archive(GOOD, config=other), "invalid diffID"),
        "a config of another layer, compressed": (oci_archive(GOOD, config=other), "invalid diffID"),
        "no layer": (changed(good, blob, None), "lacks the file"),
        "no config": (changed(good, config_blob, None), "lacks the file"),
        "no manifest": (changed(good, manifest, None), "lacks the file"),
        "no index": (changed(good, "index.json", None), "holds no image"),
        "an empty index": (changed(good, "index.json", b'{"manifests": []}'), "list is empty"),
        "a size that is text": (
            changed(good, "index.json", good["index.json"].replace(b'"size": ', b'"size": "\\n", "x": ')), "form of"),
        "an index that is a list": (changed(good, "index.json", b"[]"), "form of an image"),
        "an index that is no JSON": (changed(good, "index.json", b"{"), "broken"),
        "an index nested without end": (changed(good, "index.json", b"[" * 100_000), "broken"),
        "an index of paths": (changed(good, "index.json", b'{"manifests":[{"digest":"../../etc/passwd"}]}'), "digest"),
        "a manifest.json of numbers": (listed(Layers=[1]), "form of an image"),
        "a config out of the archive": (listed(Config="../../../etc/passwd"), "leads out"),
        "an absolute layer": (listed(Layers=["/etc/passwd"]), "lacks the file"),
        "a layer out of the archive": (listed(Layers=["../../etc/passwd"]), "leads out"),
        "fewer layers than the config tells": (listed(Layers=[]), "config tells of 1"),
        "a name that is none": (listed(RepoTags=["../../x"]), "invalid reference format"),
        "the name of another image's digest": (listed(RepoTags=["a@sha256:" + "0" * 64]), "a digest is no name"),
        "names without end": (listed(RepoTags=[f"a:{number}" for number in range(1001)]), "at most 1000"),
        "half a letter": (listed(Config="\ud800"), "is broken"),
        "a number for a date": (docker_archive(GOOD, config=config_of([GOOD], created=1)), "created is not text"),
        "a layer that is a symlink to outside": (layer(
            entry("manifest.json", content=json.dumps([{"Config": "m.json", "Layers": ["0.tar"]}]).encode()),
            entry("m.json", content=config), entry("0.tar", SYMLINK, linkname="/etc/passwd")), "lacks the file"),
        "a layer that is a symlink to itself": (layer(
            entry("manifest.json", content=json.dumps([{"Config": "m.json", "Layers": ["0.tar"]}]).encode()),
            entry("m.json", content=config), entry("0.tar", SYMLINK, linkname="0.tar")), "lacks the file"),
        "128 layers": (docker_archive(*[GOOD] * 128), "max depth exceeded"),
        "a name out of the archive": (members({"../../evil": b"x", "manifest.json": b"[]"}), "leads out"),
        "an image for Windows": (docker_archive(GOOD, config=config_of([GOOD], os="windows")), "windows image"),
        "nothing": (b"", "empty|no whole|ends"),
        "text": (b"hello\n", "not a tar|ends"),
        "no members": (members({}), "holds no image"),
    }


@pytest.mark.parametrize("name", sorted(outer()))
def test_an_archive_that_lies_about_itself_is_refused(name: str, tmp_path: Path, state_root: Path) -> None:
    data, sentence = outer()[name]
    with pytest.raises(BadInputError, match=sentence):
        give(data, tmp_path)
    assert_nothing_is_there(state_root)


@pytest.mark.limit(120)
@pytest.mark.parametrize("form", ["docker", "oci", "pipe", "gzip"])
def test_an_archive_truncated_at_any_block_is_refused(form: str, tmp_path: Path, state_root: Path) -> None:
    import gzip

    other = layer(entry("bin", DIRECTORY), entry("bin/tool", content=os.urandom(3000)))
    whole = docker_archive(GOOD, other) if form in ("docker", "gzip") else oci_archive(GOOD, other)
    end = len(whole.rstrip(b"\0"))
    step = 512
    if form == "gzip":
        whole = gzip.compress(whole)
        end, step = len(whole), 300
    for cut in range(0, end, step):
        with pytest.raises(BadInputError):
            if form == "pipe":
                through_pipe(whole[:cut])
            else:
                give(whole[:cut], tmp_path)
    assert_nothing_is_there(state_root)
    assert give(whole, tmp_path)[0].names == ["test:latest"]


def through_pipe(data: bytes) -> list[assemble.Loaded]:
    """Load an archive from a pipe (it must fit into the pipe's buffer)."""
    reading, writing = os.pipe()
    try:
        os.write(writing, data)
    finally:
        os.close(writing)
    try:
        return load.load(reading)
    finally:
        os.close(reading)


def test_what_an_archive_says_to_the_overlay_is_not_passed_on(tmp_path: Path, state_root: Path) -> None:
    words = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/etc",
             "SCHILY.xattr.user.kept": "yes"}
    give(docker_archive(GOOD, layer(entry("etc", DIRECTORY, pax_headers=words), entry("etc/a", pax_headers=words))),
         tmp_path)
    top = listing.images()[0].chains[-1]
    for name in ("etc", "etc/a"):
        assert os.listxattr(state_root / "layers" / top / "diff" / name) == ["user.kept"]


def test_layers_are_for_root_alone(tmp_path: Path, state_root: Path) -> None:
    """A setuid file or a device in a layer must not be a gift to the users of the machine."""
    give(docker_archive(layer(entry("su", mode=0o4755), entry("disk", DEVICE, devmajor=8, mode=0o666))), tmp_path)
    assert (state_root / "layers").stat().st_mode & 0o077 == 0


def test_a_name_given_twice_is_the_later_file(tmp_path: Path, state_root: Path) -> None:
    data = layer(entry("a", content=b"first"), entry("a", content=b"second"), entry("b", DIRECTORY), entry("b/c"),
                 entry("b", content=b"file"), entry("c", SYMLINK, linkname="/etc/passwd"), entry("c", content=b"own"),
                 entry("d"), entry("d", DIRECTORY), entry("d/e"))
    give(docker_archive(data), tmp_path)
    diff = state_root / "layers" / listing.images()[0].chains[0] / "diff"
    assert (diff / "a").read_bytes() == b"second"
    assert (diff / "b").read_bytes() == b"file"
    assert (diff / "c").read_bytes() == b"own" and not (diff / "c").is_symlink()
    assert (diff / "d" / "e").exists()


def test_a_deep_tree_can_be_loaded_and_removed(tmp_path: Path, state_root: Path) -> None:
    name = "/".join(["d"] * 1500)
    give(docker_archive(layer(entry(name, content=b"deep"))), tmp_path)
    remove.remove("test")
    assert_nothing_is_there(state_root)

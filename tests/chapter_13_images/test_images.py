"""Chapter 13: names, digests, documents and layers, judged by hashlib, tarfile and the kernel."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from minirt.errors import BadInputError
from minirt.images import apply, blobs, changeset, documents, reference, write
from minirt.images.changeset import Entry


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def refused(function: Callable[..., Any], *arguments: Any) -> str | None:
    """The sentence with which a call is refused, None when it is not."""
    try:
        function(*arguments)
    except BadInputError as error:
        return str(error)
    except (AssertionError, ValueError) as error:
        pytest.fail(f"{function.__name__}() raised {type(error).__name__}: what comes from outside is refused with "
                    "BadInputError, which the callers expect")
    return None


# -- names -----------------------------------------------------------------------------------------------------------

NAMES = {
    "busybox": ("docker.io", "library/busybox", "a word alone is an official image of docker.io: library/busybox"),
    "team/tool:1.2": ("docker.io", "team/tool:1.2", "'team' has neither a dot nor a colon in it: it is no domain, but "
                      "the first word of a path at docker.io"),
    "my.host/tool": ("my.host", "tool", "'my.host' has a dot in it, so it is a domain, and library/ is a custom of "
                     "docker.io alone"),
    "localhost/tool": ("localhost", "tool", "'localhost' is a domain without a dot or a colon"),
    "localhost:5000/a/b@x": ("localhost:5000", "a/b@x", "a colon before the first slash is that of a port"),
    "Machine/tool": ("Machine", "tool", "no path has capital letters, so this is the name of a machine"),
    "2048/game": ("docker.io", "2048/game", "digits alone are neither a dot, nor a colon, nor capital letters"),
    "tool:1.2": ("docker.io", "library/tool:1.2", "without a slash there is no domain, whatever dots and colons are in "
                 "the name: they are the tag's"),
    "docker.io/tool": ("docker.io", "library/tool", "a word alone at docker.io lies below library/ there, whether "
                       "docker.io was typed or not"),
    "index.docker.io/tool": ("docker.io", "library/tool", "index.docker.io is an old name of docker.io"),
}


@pytest.mark.exercise("minirt.images.reference.split_domain")
@pytest.mark.parametrize("text", NAMES)
def test_the_domain_of_a_name(text: str) -> None:
    domain, rest, why = NAMES[text]
    try:
        found = reference.split_domain(text)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        pytest.fail(f"split_domain({text!r}) raised {type(error).__name__} ({error}): every text has an answer")
    assert found == (domain, rest), f"split_domain({text!r}) is {found}, not {(domain, rest)}: {why}"


@pytest.mark.exercise("minirt.images.reference.split_domain")
def test_a_name_has_a_full_and_a_short_form() -> None:
    name = reference.parse("busybox").tagged()
    assert (str(name), name.familiar()) == ("docker.io/library/busybox:latest", "busybox:latest")
    for wrong in ("Busybox", "a..b", "-a", "a:", "a@sha256:12", "../a", "a/../b", ""):
        assert refused(reference.parse, wrong), f"{wrong!r} is no name of an image"


# -- blobs -----------------------------------------------------------------------------------------------------------

CONTENT = b'{"hello": "world"}'
PROMISED = {"mediaType": documents.CONFIG_TYPE, "digest": sha(CONTENT), "size": len(CONTENT)}


@pytest.mark.exercise("minirt.images.blobs.verify")
def test_the_right_bytes_are_let_through() -> None:
    try:
        found = blobs.verify(CONTENT, PROMISED)
    except BadInputError as error:
        pytest.fail(f"the right bytes are refused ({error}): compare digest(data) with all of wanted['digest'], the "
                    "'sha256:' at its beginning included")
    assert found == CONTENT, f"verify() returned {found!r}: the caller goes on with what verify() returns, the bytes"


@pytest.mark.exercise("minirt.images.blobs.verify")
def test_other_bytes_are_refused(tmp_path: Path) -> None:
    sentence = refused(blobs.verify, CONTENT.replace(b"w", b"W"), PROMISED)
    assert sentence, "one byte was changed and the length is right, and verify() let it through: compare the digests"
    assert PROMISED["digest"] in sentence, f"{sentence!r} does not say which blob: put the digest into the sentence"
    for size in (5, len(CONTENT) + 1):
        assert refused(blobs.verify, CONTENT, PROMISED | {"size": size}), (
            f"the descriptor promised another size, {size} bytes, and verify() let {len(CONTENT)} through: who asks "
            "for five bytes must not be sent five gigabytes, nor fewer than were promised"
        )
    assert refused(blobs.verify, CONTENT, PROMISED | {"size": 0}), "a promised size of 0 is a promise, too: no byte"
    sentence = refused(blobs.verify, CONTENT, PROMISED | {"size": 5})
    assert str(PROMISED["digest"]) in (sentence or ""), f"{sentence!r} does not name the blob: tell its digest"
    layout = str(tmp_path)
    name = blobs.write(layout, CONTENT)
    assert name == PROMISED["digest"]
    assert blobs.read(layout, PROMISED) == CONTENT
    Path(blobs.path(layout, name)).write_bytes(CONTENT[::-1])
    assert refused(blobs.read, layout, PROMISED), "a blob changed on the disk is read as if nothing had happened"


# -- documents -------------------------------------------------------------------------------------------------------

def entry_for(*words: str) -> dict[str, Any]:
    """An entry of an index for a platform; its digest is made of the platform's name."""
    keys = ("os", "architecture", "variant")
    return {"digest": "/".join(words), "size": 1, "platform": dict(zip(keys, words, strict=False))}


INDEX = [
    entry_for("unknown", "unknown"), entry_for("windows", "arm64"), entry_for("linux", "s390x"),
    entry_for("linux", "arm", "v6"), entry_for("linux", "arm", "v7"), entry_for("linux", "arm64", "v8"),
    entry_for("linux", "amd64"),
]


def chosen(manifests: list[dict[str, Any]], platform: str = "") -> str:
    try:
        found = documents.choose(manifests, platform)
    except BadInputError as error:
        return f"refused: {error}"
    assert found is not None, (
        f"choose() returned None for the platform {platform!r}: return the entry that fits (for '' Linux on this "
        "machine's `architecture()`), and raise BadInputError where none does"
    )
    return str(found.get("digest"))


@pytest.mark.exercise("minirt.images.documents.choose")
def test_the_entry_for_a_platform_is_chosen() -> None:
    found = chosen(INDEX, "linux/s390x")
    assert found == "linux/s390x", f"for linux/s390x, the entry for {found} was chosen: it was made for another machine"
    found = chosen(INDEX, "linux/arm64")
    assert found != "windows/arm64", "windows/arm64 was chosen for linux/arm64: the same processor under another system"
    assert found == "linux/arm64/v8", (
        f"for linux/arm64, of which there is the variant v8: {found}. But nobody asked for a variant: compare only "
        "as many parts as are asked for"
    )
    found = chosen([entry_for("linux", "arm64"), entry_for("linux", "arm", "v7")], "linux/arm")
    assert found == "linux/arm/v7", f"for linux/arm, the entry for {found} was chosen: compare whole words"
    found = chosen(INDEX, "linux/arm/v7")
    assert found == "linux/arm/v7", f"for linux/arm/v7: {found}. Here a variant is asked for, the entry's \"variant\""


@pytest.mark.exercise("minirt.images.documents.choose")
def test_without_a_platform_it_is_this_machines() -> None:
    mine = f"linux/{documents.architecture()}"
    found = chosen([entry_for("linux", "s390x"), entry_for("linux", documents.architecture())])
    assert found == mine, f"{found} was chosen on a machine that is {mine}"
    found = chosen([entry_for("linux", "s390x"), {"digest": "any", "size": 1}])
    assert found == "any", f"{found}: an entry that names no platform fits every machine"
    found = chosen([{"digest": "any", "size": 1}, entry_for("linux", documents.architecture())])
    assert found == "any", f"{found}: of two entries that fit, take the first"


@pytest.mark.exercise("minirt.images.documents.choose")
def test_nothing_for_this_machine_is_a_sentence() -> None:
    found = chosen(INDEX, "linux/riscv64")
    assert found.startswith("refused:"), (
        f"choose() returned the entry {found}: nothing fits, so it must raise BadInputError"
    )
    assert "s390x" in found and "linux/riscv64" in found, f"{found!r} does not say what is asked for and what there is"


@pytest.mark.exercise("minirt.images.documents.choose")
def test_an_index_leads_to_a_manifest() -> None:
    store = {"top": {"manifests": [{"digest": "middle", "size": 1}]}, "middle": {"manifests": INDEX},
             "linux/amd64": {"layers": []}, "loop": {"manifests": [{"digest": "loop", "size": 1}]}}
    descriptor, document = documents.follow({"digest": "top"}, lambda each: store[each["digest"]], "linux/amd64")
    assert (descriptor["digest"], document) == ("linux/amd64", {"layers": []})
    assert "nested" in str(refused(documents.follow, {"digest": "loop"}, lambda each: store[each["digest"]]))


@pytest.mark.exercise("minirt.images.documents.choose")
def test_the_first_that_fits_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = [entry_for("linux", "amd64"), entry_for("linux", "arm64"), {"digest": "any"}]
    for machine, wanted in (("amd64", offered[0]), ("arm64", offered[1]), ("riscv64", offered[2])):
        monkeypatch.setattr(documents, "architecture", lambda machine=machine: machine)
        found = documents.choose(offered)
        assert found == wanted, (
            f"on a machine whose architecture() is {machine} it chose {found}: the first that fits is wanted, for "
            "Linux on *this* machine"
        )
    empty = {"digest": "any", "platform": None}
    try:
        assert documents.choose([empty]) == empty, "an entry that says nothing of its platform fits"
    except (AttributeError, TypeError) as error:
        pytest.fail(f'an entry with "platform": null ends in {error!r}: it says nothing, and fits')


@pytest.mark.exercise("minirt.images.reference.split_domain")
def test_what_only_looks_like_a_domain() -> None:
    for text, wanted in (("localhosts/tool", ("docker.io", "localhosts/tool")), ("teamB/tool", ("teamB", "tool")),
                         ("my.docker.io/tool", ("my.docker.io", "tool"))):
        found = reference.split_domain(text)
        assert found == wanted, f"{text} gives {found}, not {wanted}: compare whole names, and look at every letter"


# -- chain ids -------------------------------------------------------------------------------------------------------

@pytest.mark.exercise("minirt.images.blobs.chain_ids")
def test_chain_ids_name_a_layer_with_all_below() -> None:
    layers = [sha(b"base"), sha(b"middle"), sha(b"top")]
    second = sha(f"{layers[0]} {layers[1]}".encode())
    third = sha(f"{second} {layers[2]}".encode())
    found = blobs.chain_ids(layers)
    assert len(found) == 3, f"three layers have three chain ids, not {len(found)}"
    assert found[0] == layers[0][7:], (
        "the first chain id is wrong (the list begins with the lowest layer): the lowest layer has nothing below it, "
        "its chain id is its diff id, without 'sha256:'"
    )
    assert found[1] != layers[1][7:], (
        "the second chain id is the layer's diff id: but on top of another layer it is another directory"
    )
    assert found[1] == second[7:], (
        "the second chain id is wrong: it is the sha256 of the chain id below, one space, and the diff id, "
        'each with "sha256:" before it; in the list it stands without'
    )
    assert found[2] == third[7:], (
        "the third chain id is wrong: it is made of the *chain id* below it, which stands for everything below, not of "
        "the diff id below it"
    )
    try:
        assert blobs.chain_ids([]) == []
    except IndexError:
        pytest.fail("chain_ids([]) raised IndexError: an image may have no layers, and then it has no chain ids")


# -- what a layer says -----------------------------------------------------------------------------------------------

@pytest.mark.exercise("minirt.images.changeset.meaning")
def test_what_the_name_of_an_entry_means() -> None:
    for name in (b"file", b"wh.file", b".wh", b"a.wh.b", b".hidden"):
        found = changeset.meaning(name)
        assert found == (changeset.PRESENT, name), (
            f"meaning({name!r}) is {found}: it is a file like any other; '.wh.' counts only at the beginning of a name"
        )
    found = changeset.meaning(b".wh..wh..opq")
    assert found == (changeset.ANEW, b""), (
        f"meaning(b'.wh..wh..opq') is {found}: it is the mark of an opaque directory, (ANEW, b\"\")"
    )
    for name in (b".wh..wh.plnk", b".wh..wh.aufs"):
        found = changeset.meaning(name)
        assert found == (changeset.NOTHING, b""), f"meaning({name!r}) is {found}: AUFS's own notes mean nothing to us"
    for whiteout, name in (
        (b".wh.file", b"file"), (b".wh.hw.", b"hw."), (b".wh..hidden", b".hidden"), (b".wh.a.wh.b", b"a.wh.b"),
    ):
        found = changeset.meaning(whiteout)
        assert found == (changeset.GONE, name), (
            f"meaning({whiteout!r}) is {found}, not {(changeset.GONE, name)}: take WHITEOUT away, at the beginning and "
            "once (bytes.strip() takes letters, not a prefix; bytes.replace() takes every one)"
        )


@pytest.mark.exercise("minirt.images.changeset.meaning")
@pytest.mark.parametrize("base", [b".wh.", b".wh..", b".wh..."])
def test_a_whiteout_of_no_name_is_refused(base: bytes) -> None:
    assert refused(changeset.meaning, base), (
        f"{base!r} would remove {base[4:]!r}, which is no name of a file but a directory, perhaps the one above: "
        "raise BadInputError"
    )


class Unpacked:
    """A stack of layers unpacked below a directory."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.descriptors: list[int] = []  # the topmost first

    def add(self, *files: tuple[Entry, bytes]) -> Path:
        """Apply a layer of these files on top; return its directory."""
        directory = self.place / f"layer{len(self.descriptors)}"
        directory.mkdir()
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        content = {id(entry): data for entry, data in files}

        def fill(entry: Entry, target: int) -> None:
            os.write(target, content[id(entry)])

        layer = apply.Layer(root, fill, self.descriptors)
        before = os.umask(0)
        try:
            for entry, _ in files:
                layer.add(entry)
            layer.finish()
        finally:
            layer.close()
            os.umask(before)
            self.descriptors.insert(0, root)
        return directory


@pytest.fixture
def stack(tmp_path: Path) -> Iterable[Unpacked]:
    found = Unpacked(tmp_path)
    yield found
    for each in found.descriptors:
        os.close(each)


def file(name: bytes, content: bytes = b"x") -> tuple[Entry, bytes]:
    return Entry(name, size=len(content)), content


def directory(name: bytes, mode: int = 0o755) -> tuple[Entry, bytes]:
    return Entry(name, changeset.DIRECTORY, mode), b""


def link(name: bytes, target: bytes, kind: bytes = changeset.SYMLINK) -> tuple[Entry, bytes]:
    return Entry(name, kind, 0o777, link=target), b""


@pytest.mark.exercise("minirt.images.changeset.meaning")
def test_a_removal_becomes_what_overlayfs_reads(stack: Unpacked) -> None:
    stack.add(directory(b"etc", 0o750), file(b"etc/old"), directory(b"full"), file(b"full/a"))
    top = stack.add(file(b"etc/.wh.old", b""), directory(b"full"), file(b"full/.wh..wh..opq", b""), file(b"full/b"))
    status = (top / "etc/old").lstat()
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0, "a whiteout is a character device 0:0"
    assert os.getxattr(top / "full", "trusted.overlay.opaque") == b"y"
    assert os.listdir(top / "full") == ["b"]
    assert stat.S_IMODE((top / "etc").stat().st_mode) == 0o750, "a directory that is left out is as it is below"


@pytest.mark.exercise("minirt.images.changeset.meaning")
def test_the_mark_is_a_whole_name() -> None:
    found = changeset.meaning(changeset.OPAQUE + b".old")
    assert found == (changeset.NOTHING, b""), (
        f"{changeset.OPAQUE + b'.old'!r} only begins like the mark, and was told as {found}: a mark is a whole name"
    )


# -- writing ---------------------------------------------------------------------------------------------------------

def example() -> Entry:
    entry = Entry(b"bin/tool", mode=0o4755, size=1000)
    entry.uid, entry.gid, entry.mtime = 1000, 50, 1_700_000_000_123_456_789
    return entry


_TEXT = "a text is filled with zero bytes"
_NUMBER = "a number is octal digits, with zeros before them, and a zero byte at the end of its field"
FIELDS = [
    ("name", 0, 100, _TEXT), ("mode", 100, 108, _NUMBER), ("uid", 108, 116, _NUMBER), ("gid", 116, 124, _NUMBER),
    ("size", 124, 136, _NUMBER), ("kind", 156, 157, "the entry's own"),
    ("link", 157, 257, _TEXT), ("'ustar'", 257, 265, "a zero byte follows the word, and two digits 0"),
    ("end", 345, 512, "zero bytes"),
]


def as_tar_writes(entry: Entry) -> bytes:
    """The header that Python's own library writes."""
    info = tarfile.TarInfo(entry.name.decode())
    info.mode, info.uid, info.gid, info.size = entry.mode, entry.uid, entry.gid, entry.size
    info.mtime = entry.mtime // 10**9
    return info.tobuf(tarfile.USTAR_FORMAT)


def read_back(block: bytes) -> tarfile.TarInfo:
    """A header as Python's own library reads it."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if "checksum" in str(error):
            pytest.fail("the sum of the header is wrong: it is that of all 512 bytes, where its own field counts as "
                        "eight spaces (not as zeros); it is written as six octal digits, a zero byte and a space")
        pytest.fail(f"no tar reads this header: {error}")


@pytest.mark.exercise("minirt.images.write.header")
def test_a_header_is_what_tar_reads() -> None:
    block = write.header(example())
    assert isinstance(block, bytes) and len(block) == 512, (
        f"a header must be 512 bytes, not {len(block)}: fields of fixed width, then zeros (mtime is in nanoseconds; "
        "the field has whole seconds)"
    )
    place = block.find(b"ustar")
    assert place == 257, f"'ustar' is at byte {place}, not 257: some field before it is too wide or too narrow" + (
        "; mtime is in nanoseconds, and its field has whole seconds" if place > 257 else "")
    info = read_back(block)
    assert info.mode == 0o4755, f"the mode {0o4755:o} is read as {info.mode:o}: numbers are octal digits"
    wanted = as_tar_writes(example())
    for name, start, end, how in FIELDS:
        assert block[start:end] == wanted[start:end], (
            f"the field {name} (bytes {start} to {end - 1}) begins with {block[start:end][:16]!r}, and "
            f"tar writes {wanted[start:end][:16]!r}: {how}"
        )
    assert block[329:345] == b"0000000\0" * 2, f"the two numbers of the device are {block[329:345]!r}: {_NUMBER}"
    assert block[154:156] == b"\0 ", f"the sum is {block[148:156]!r}: six octal digits, a zero byte, a space"


@pytest.mark.exercise("minirt.images.write.header")
def test_the_same_file_gives_the_same_bytes() -> None:
    first, second = write.header(example()), write.header(example())
    assert first == second, "the same entry twice must give the same bytes: nothing of this moment belongs into them"
    info = read_back(first)
    assert info.mtime == 1_700_000_000, (
        f"the time is {info.mtime}: it must be the entry's, in whole seconds, to give the same bytes"
    )
    assert (info.uname, info.gname) == ("", ""), "names of users are this machine's own: leave them out"


@pytest.mark.exercise("minirt.images.write.header")
def test_links_and_devices_have_their_fields() -> None:
    info = read_back(write.header(link(b"sh", b"busybox")[0]))
    assert (info.type, info.linkname) == (b"2", "busybox"), f"the link leads to {info.linkname!r}, not to 'busybox'"
    null = Entry(b"null", changeset.CHARACTER, 0o666)
    null.device = (1, 3)
    info = read_back(write.header(null))
    assert (info.devmajor, info.devminor) == (1, 3), f"device 1:3 is read as {info.devmajor}:{info.devminor}"


@pytest.mark.exercise("minirt.images.write.header")
def test_what_does_not_fit_a_header_stands_before_it() -> None:
    far = Entry(b"a/" * 80 + b"b", size=3)
    block = write.header(far)
    assert (len(block), block.find(b"ustar")) == (512, 257), (
        f"a name of {len(far.name)} bytes moves the other fields: cut it off at the 100 bytes of its field "
        "(all of it stands in a record before the header, which archive() makes)"
    )
    far.uid, far.xattrs = 8**7, {"user.note": b"two\nlines"}
    data = b"".join(write.archive([(far, [b"abc"])]))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        info = archive.getmembers()[0]
        assert (info.name, info.uid) == ("a/" * 80 + "b", 8**7)
        assert info.pax_headers["SCHILY.xattr.user.note"] == "two\nlines"
        content = archive.extractfile(info)
        assert content is not None and content.read() == b"abc"


@pytest.mark.exercise("minirt.images.write.header")
def test_a_field_is_used_to_its_last_byte() -> None:
    full = Entry(b"\xff" * 100, changeset.SYMLINK, 0o777, link=b"\xfe" * 150)
    full.mtime = 1_700_000_001_999_999_999
    block = write.header(full)
    assert block[:101] == b"\xff" * 100 + b"0", "a name of 100 bytes fills its field, without a zero byte behind it"
    assert block[157:265] == b"\xfe" * 100 + b"ustar\x0000", (
        "the field of the link has 100 bytes, and a target of 150 is cut off there")
    assert block[136:148] == b"%011o\0" % 1_700_000_001, (
        f"the time is {block[136:148]!r}: whole seconds; what is left is cut off (`//`), not rounded")
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    assert block[148:156] == b"%06o\0 " % total, (
        f"the sum is {block[148:156]!r}, and all 512 bytes, its own as spaces, are {total:06o}: it is not cut")


# -- the whole ---------------------------------------------------------------------------------------------------------

HOSTILE = {
    "dots": [file(b"../escaped")],
    "dots within": [directory(b"a"), file(b"a/../../escaped")],
    "an absolute link, then a file through it": [link(b"out", b"/var/lib"), file(b"out/escaped")],
    "a relative link, then a file through it": [link(b"out", b"../.."), file(b"out/escaped")],
    "a hard link out": [link(b"passwd", b"../../../etc/passwd", changeset.HARD_LINK)],
    "a hard link through a link": [link(b"etc", b"/etc"), link(b"passwd", b"etc/passwd", changeset.HARD_LINK)],
    "a whiteout of the directory above": [directory(b"a"), file(b"a/.wh...", b"")],
    "a whiteout through a link": [link(b"out", b"/etc"), file(b"out/.wh.passwd", b"")],
    "a file in the place of the root": [file(b".")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_layer_writes_nothing_outside(name: str, stack: Unpacked, tmp_path: Path) -> None:
    stack.add(file(b"base"))
    before = Path("/etc/passwd").stat()
    with pytest.raises(BadInputError):
        stack.add(*HOSTILE[name])
    assert sorted(os.listdir(tmp_path)) == ["layer0", "layer1"]
    assert not list(Path("/var/lib").glob("escaped"))
    assert Path("/etc/passwd").stat().st_nlink == before.st_nlink


def test_an_absolute_link_alone_is_an_honest_link(stack: Unpacked) -> None:
    top = stack.add(link(b"run", b"/var/run"), link(b"up", b"../.."))
    assert os.readlink(top / "run") == "/var/run"


def test_a_directory_becomes_the_same_layer_at_any_time(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    (source / "dir/file").write_text("content")
    os.chmod(source / "dir/file", 0o4711)
    os.link(source / "dir/file", source / "same")
    os.symlink("dir/file", source / "link")
    os.mknod(source / "gone", stat.S_IFCHR, 0)
    os.setxattr(source / "dir", "trusted.overlay.opaque", b"y")
    first = b"".join(write.archive(write.tree(str(source), 1000)))
    os.utime(source / "dir/file", (5000, 5000))
    assert b"".join(write.archive(write.tree(str(source), 1000))) == first, "later than the latest time is the latest"
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        kinds = {info.name: (info.type, info.linkname, info.mtime) for info in archive}
    assert kinds == {
        ".wh.gone": (b"0", "", 0), "dir": (b"5", "", 1000), "dir/.wh..wh..opq": (b"0", "", 0),
        "dir/file": (b"0", "", 1000), "link": (b"2", "dir/file", 1000), "same": (b"1", "dir/file", 1000),
    }


def test_the_container_program_runs_an_image_that_it_made(container: Callable[..., Any]) -> None:
    ran = container("sh", "-c", "echo /bin/*; exit 3")
    assert (ran.status, ran.stdout) == (3, "/bin/sh\n"), ran.stderr


def test_the_container_program_answers_wrong_use_with_a_sentence(container: Callable[..., Any]) -> None:
    for wrong in (["--layout"], ["--layout", "/nowhere"], ["--layot", "/"]):
        ran = container(*wrong)
        assert ran.status and ran.stderr.startswith("container.py") and ran.stderr.count("\n") == 1, ran


def layout(place: Path, *layers: bytes, spoil: bool = False) -> Path:
    """An image in a directory, made without the modules that are judged."""
    config = json.dumps({"architecture": documents.architecture(), "os": "linux",
                         "config": {"Cmd": ["/bin/cat", "/one"]},
                         "rootfs": {"type": "layers", "diff_ids": [sha(each) for each in layers]}}).encode()
    parts = [{"mediaType": documents.LAYER_TYPE, "digest": sha(each), "size": len(each)} for each in layers]
    manifest = json.dumps({"schemaVersion": 2, "config": {"digest": sha(config), "size": len(config)},
                           "layers": parts}).encode()
    (place / "blobs/sha256").mkdir(parents=True)
    for each in (config, manifest, *layers):
        (place / "blobs/sha256" / sha(each)[7:]).write_bytes(each)
    if spoil:
        (place / "blobs/sha256" / sha(layers[0])[7:]).write_bytes(layers[0][:-1] + b"x")
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [
        {"digest": sha(manifest), "size": len(manifest)}]}))
    return place


def base() -> bytes:
    """A layer with cat and what it needs, and two files."""
    from minirt.images import pack

    files = pack.Tree()
    files.program("/bin/cat")
    files.text("one", "first\n")
    files.text("two", "second\n")
    return b"".join(write.archive(files.files()))


def test_the_container_program_stacks_the_layers(tmp_path: Path, container: Callable[..., Any]) -> None:
    added = [file(b"one", b"changed\n"), file(b".wh.two", b"")]
    top = b"".join(write.archive((entry, [data]) for entry, data in added))
    place = layout(tmp_path / "image", base(), top)
    ran = container("--layout", str(place))
    assert (ran.status, ran.stdout) == (0, "changed\n"), ran.stderr
    ran = container("--layout", str(place), "/bin/cat", "/two")
    assert ran.status == 1 and "No such file" in ran.stderr


def test_the_container_program_refuses_a_changed_layer(tmp_path: Path, container: Callable[..., Any]) -> None:
    archive = base()
    ran = container("--layout", str(layout(tmp_path / "image", archive, spoil=True)))
    assert (ran.status, ran.stdout) == (1, ""), f"the last byte of the layer was changed, and it runs: {ran.stdout}"
    assert sha(archive) in ran.stderr

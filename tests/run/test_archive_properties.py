"""Properties of the readers: what tar writes comes back, and no bytes at all make them do more than say no."""

from __future__ import annotations

import io
import os
import tarfile
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from minirt.errors import BadInputError
from minirt.images import archive, reference, streams, tar
from tests.images import docker_archive, entry, layer

ROUNDS = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))

letters = some.sampled_from("abcXYZ019._- ~\n\t\\ä€𝄞=%")
names = some.lists(some.text(letters, min_size=1, max_size=12).filter(lambda part: part not in (".", "..")),
                   min_size=1, max_size=8).map("/".join)
kinds = some.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
                           tarfile.FIFOTYPE])
files = some.fixed_dictionaries({
    "name": names, "kind": kinds, "content": some.binary(max_size=600), "mode": some.integers(0, 0o7777),
    "uid": some.integers(0, 2**32), "gid": some.integers(0, 2**32), "mtime": some.integers(0, 2**40), "linkname": names,
    "devmajor": some.integers(0, 4095), "devminor": some.integers(0, 2**20 - 1),
})


def read(data: bytes, step: int = 1000) -> list[tuple[tar.Entry, bytes]]:
    """All entries with their content, the bytes coming in pieces of `step`."""
    source = io.BytesIO(data)
    reader = tar.Reader(tar.Stream(lambda: source.read(step)))
    return [(each, b"".join(bytes(piece) for piece in reader.pieces())) for each in reader]


def packed(file: dict[str, Any]) -> tuple[tarfile.TarInfo, bytes]:
    fields = dict(file)
    content = fields.pop("content") if fields["kind"] == tarfile.REGTYPE else b""
    fields.pop("content", None)
    return entry(fields.pop("name"), fields.pop("kind"), content, **fields)


@ROUNDS
@given(some.lists(files, max_size=6), some.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
       some.integers(1, 5000))
def test_what_pythons_tar_writes_is_read_back(written: list[dict[str, Any]], form: int, step: int) -> None:
    found = read(layer(*(packed(file) for file in written), format=form), step)
    assert len(found) == len(written)
    for file, (got, content) in zip(written, found, strict=True):
        assert got.name.rstrip(b"/") == file["name"].encode("utf-8")
        assert (got.kind, got.mode, got.uid, got.gid) == (file["kind"], file["mode"], file["uid"], file["gid"])
        assert got.mtime == file["mtime"] * 10**9
        if file["kind"] == tarfile.REGTYPE:
            assert content == file["content"] and got.size == len(content)
        if file["kind"] in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            assert got.link == file["linkname"].encode("utf-8")
        if file["kind"] == tarfile.CHRTYPE:
            assert got.device == (file["devmajor"], file["devminor"])


@ROUNDS
@given(some.binary(max_size=3000))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read(data)
    except BadInputError as error:
        assert str(error)


@ROUNDS
@given(some.lists(files, min_size=1, max_size=3), some.data())
def test_a_flipped_bit_is_read_or_refused(written: list[dict[str, Any]], data: some.DataObject) -> None:
    good = bytearray(layer(*(packed(file) for file in written)))
    for _ in range(data.draw(some.integers(1, 4))):
        good[data.draw(some.integers(0, len(good) - 1))] ^= 1 << data.draw(some.integers(0, 7))
    try:
        read(bytes(good))
    except BadInputError as error:
        assert str(error)


@ROUNDS
@given(some.data())
def test_a_damaged_archive_is_understood_or_refused(data: some.DataObject) -> None:
    good = bytearray(docker_archive(layer(entry("a", content=b"a"))))
    end = data.draw(some.integers(0, len(good)))
    for _ in range(data.draw(some.integers(0, 6))):
        good[data.draw(some.integers(0, len(good) - 1))] = data.draw(some.integers(0, 255))
    descriptor = os.memfd_create("archive")
    try:
        os.write(descriptor, good[:end])
        archive.images(archive.Archive(descriptor))
    except BadInputError as error:
        assert str(error)
    finally:
        os.close(descriptor)


json_values = some.recursive(some.none() | some.booleans() | some.integers() | some.text(max_size=10),
                             lambda inner: some.lists(inner, max_size=3)
                             | some.dictionaries(some.sampled_from(["Config", "Layers", "RepoTags", "x"]), inner),
                             max_leaves=8)


@ROUNDS
@given(json_values, some.sampled_from(["manifest.json", "index.json", "repositories"]))
def test_any_document_is_understood_or_refused(document: Any, name: str) -> None:
    import json

    from tests.images import members

    descriptor = os.memfd_create("archive")
    try:
        os.write(descriptor, members({name: json.dumps(document).encode()}))
        archive.images(archive.Archive(descriptor))
    except BadInputError as error:
        assert str(error)
    finally:
        os.close(descriptor)


@ROUNDS
@given(some.lists(some.binary(max_size=5000), max_size=5), some.sampled_from(["gzip", "bz2", "lzma"]),
       some.integers(1, 3000))
def test_decompression_gives_back_what_was_packed(parts: list[bytes], kind: str, step: int) -> None:
    module = __import__(kind)
    packed_parts = b"".join(module.compress(part) for part in parts) if kind != "lzma" else module.compress(
        b"".join(parts))
    pieces = [packed_parts[at:at + step] for at in range(0, len(packed_parts), step)]
    assert b"".join(streams.decompress(iter(pieces))) == b"".join(parts)


@ROUNDS
@given(some.binary(max_size=2000), some.sampled_from([b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b""]))
def test_damaged_compression_is_refused(data: bytes, magic: bytes) -> None:
    try:
        for piece in streams.decompress(iter([magic + data])):
            assert len(piece) <= max(streams.PIECE, len(data) + 6)
    except BadInputError as error:
        assert str(error)


words = some.text(alphabet="abz09", min_size=1, max_size=5)
component = some.builds(lambda head, rest: head + "".join(map("".join, rest)), words,
                        some.lists(some.tuples(some.sampled_from([".", "_", "__", "-", "----"]), words), max_size=3))
domains = some.sampled_from(["docker.io", "localhost", "localhost:5000", "example.com", "a.b-c.d:443", "UPPER",
                             "[::1]:80"])
tags = some.builds(str.__add__, some.sampled_from("aZ9_"), some.text(alphabet="aZ9_.-", max_size=127))


@ROUNDS
@given(some.none() | domains, some.lists(component, min_size=1, max_size=4), some.none() | tags, some.booleans())
def test_a_name_is_taken_apart_and_put_together(domain: str | None, path: list[str], tag: str | None, at: bool) -> None:
    text = "/".join(path if domain is None else [domain, *path])
    text += f":{tag}" if tag else ""
    text += "@sha256:" + "0a" * 32 if at else ""
    try:
        parsed = reference.parse(text)
    except BadInputError:
        as_domain = domain is None and len(path) > 1 and "." in path[0] and "_" in path[0]
        assert as_domain or len("/".join(path)) > 240 or len(text) == 64, text
        return
    assert parsed.tag == (tag or "") and bool(parsed.digest) == at
    if domain not in (None, "docker.io"):
        assert (parsed.domain, parsed.path) == (domain, "/".join(path))
    for spelled in (str(parsed), parsed.familiar()):
        assert reference.parse(spelled) == parsed, "each spelling means the same name"


@ROUNDS
@given(some.text(max_size=60) | some.text(alphabet="aA0/:.@-_[]", max_size=30))
def test_any_text_is_a_name_or_is_refused(text: str) -> None:
    try:
        parsed = reference.parse(text)
    except BadInputError as error:
        assert str(error)
        return
    assert reference.parse(str(parsed)) == parsed
    assert reference.parse(parsed.familiar()) == parsed

"""Our registry keeps the rules of the OCI distribution specification. Each test names the clause that it judges: a row
of the table "Endpoints" (end-1 ...) or a section of spec.md.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry_server import INDEX, MANIFEST, OCI, Registry, descriptor, digest, index, manifest

pytestmark = pytest.mark.caged
NOWHERE = "sha256:" + "a" * 64


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry that lets clients delete."""
    with Registry(tmp_path / "registry", "--delete") as served:
        yield served


# -- pull --------------------------------------------------------------------------------------------------------------

def test_it_says_that_it_knows_the_protocol(registry: Registry) -> None:
    """end-1; spec.md, "Determining Support"."""
    reply = registry("GET", "/v2/")
    assert (reply.status, reply["Docker-Distribution-API-Version"]) == (200, "registry/2.0")
    assert registry("GET", "/v2").status == 200


def test_a_blob_comes_back_to_the_byte(registry: Registry) -> None:
    """end-2; "Pulling blobs"."""
    data = os.urandom(300_000)
    name = registry.push_blob("a/b", data)
    reply = registry("GET", f"/v2/a/b/blobs/{name}")
    assert (reply.status, reply.body, reply["Docker-Content-Digest"]) == (200, data, name)
    head = registry("HEAD", f"/v2/a/b/blobs/{name}")
    assert (head.status, head.body, head["Content-Length"]) == (200, b"", str(len(data)))
    assert registry("HEAD", f"/v2/a/b/blobs/{name}", Range="bytes=5-9").status == 200  # RFC 9110, 14.2: GET alone
    encoded = registry("GET", f"/v2/a/b/blobs/{name.replace(':', '%3A')}")
    assert encoded.body == data


def test_an_unknown_blob_is_404(registry: Registry) -> None:
    """end-2; "Pulling blobs": MUST be 404 Not Found."""
    assert registry("GET", f"/v2/a/blobs/{NOWHERE}").code == "BLOB_UNKNOWN"
    assert registry("HEAD", f"/v2/a/blobs/{NOWHERE}").status == 404
    assert registry("GET", "/v2/a/blobs/sha256:short").code == "DIGEST_INVALID"


@pytest.mark.parametrize(("wanted", "status", "part"), [
    ("bytes=0-0", 206, slice(0, 1)), ("bytes=5-9", 206, slice(5, 10)), ("bytes=90-", 206, slice(90, None)),
    ("bytes=-10", 206, slice(-10, None)), ("bytes=50-5000", 206, slice(50, None)), ("bytes=-5000", 206, slice(None)),
    ("bytes=0-", 206, slice(None)), ("bytes= 5-9", 206, slice(5, 10)), (f"bytes=0-{'9' * 5000}", 200, slice(None)),
    ("bytes=9-5", 200, slice(None)), ("lines=1-2", 200, slice(None)),
    ("bytes=1-2,4-5", 200, slice(None)), ("bytes=-", 200, slice(None)), ("bytes=100-", 416, None),
    ("bytes=-0", 416, None), (f"bytes={'9' * 40}-", 416, None), (f"bytes=5-{'9' * 40}", 206, slice(5, None)),
])
def test_a_part_of_a_blob(registry: Registry, wanted: str, status: int, part: slice | None) -> None:
    """end-2 with Range: "MAY support", so that a pull that was cut off goes on (RFC 9110, 14)."""
    data = bytes(range(100))
    path = f"/v2/a/blobs/{registry.push_blob('a', data)}"
    reply = registry("GET", path, Range=wanted)
    assert reply.status == status
    if part is None:
        assert (reply["Content-Range"], reply.code) == ("bytes */100", "SIZE_INVALID")
        return
    assert reply.body == data[part]
    if status == 206:
        first, end, _ = part.indices(100)
        assert reply["Content-Range"] == f"bytes {first}-{end - 1}/100"


def test_what_a_client_has_is_not_sent_again(registry: Registry) -> None:
    """end-2, end-3 by RFC 9110, 13: the digest is the ETag; as docker-registry, whose ETag it is too."""
    data, _ = registry.push("a", "v1")
    blob = registry.push_blob("a", b"0123456789")
    for path, mark in (("manifests/v1", digest(data)), (f"blobs/{blob}", blob)):
        assert registry("GET", f"/v2/a/{path}")["ETag"] == f'"{mark}"'
        for method in ("GET", "HEAD"):
            reply = registry(method, f"/v2/a/{path}", If_None_Match=f'"other", "{mark}"')
            assert (reply.status, reply.body, reply["ETag"]) == (304, b"", f'"{mark}"')
        assert registry("GET", f"/v2/a/{path}", If_None_Match='"other"').status == 200
    for mark, status, body in ((blob, 206, b"567"), ("other", 200, b"0123456789")):
        reply = registry("GET", f"/v2/a/blobs/{blob}", Range="bytes=5-7", If_Range=f'"{mark}"')
        assert (reply.status, reply.body) == (status, body)


def test_an_empty_blob_is_a_blob(registry: Registry) -> None:
    """end-2, end-6: also with a Range, which an empty one cannot satisfy."""
    name = registry.push_blob("a", b"")
    assert registry("GET", f"/v2/a/blobs/{name}").body == b""
    assert registry("GET", f"/v2/a/blobs/{name}", Range="bytes=0-").status in (200, 416)


def test_a_manifest_comes_back_to_the_byte_by_tag_and_by_digest(registry: Registry) -> None:
    """end-3; "Pulling manifests"."""
    data, put = registry.push("a/b", "v1", annotations={"spacing": "  kept  "})
    assert put.status == 201 and put["Docker-Content-Digest"] == digest(data)
    assert put["Location"] == f"/v2/a/b/manifests/{digest(data)}"
    for reference in ("v1", digest(data)):
        reply = registry("GET", f"/v2/a/b/manifests/{reference}", Accept=MANIFEST)
        assert (reply.status, reply.body) == (200, data)
        assert (reply["Content-Type"], reply["Docker-Content-Digest"]) == (MANIFEST, digest(data))
        head = registry("HEAD", f"/v2/a/b/manifests/{reference}")
        assert (head.status, head.body, head["Content-Length"]) == (200, b"", str(len(data)))
        assert head["Docker-Content-Digest"] == digest(data)


@pytest.mark.parametrize("reference", ["none", ".INVALID_MANIFEST_NAME", NOWHERE, "sha256:x"])
def test_an_unknown_manifest_is_404(registry: Registry, reference: str) -> None:
    """end-3; "Pulling manifests": MUST be 404 Not Found."""
    registry.push("a", "v1")
    reply = registry("GET", f"/v2/a/manifests/{reference}")
    assert (reply.status, reply.code) == (404, "MANIFEST_UNKNOWN")
    assert registry("HEAD", f"/v2/a/manifests/{reference}").status == 404
    assert registry("GET", f"/v2/never/manifests/{reference}").status == 404


# -- push --------------------------------------------------------------------------------------------------------------

def test_post_then_put(registry: Registry) -> None:
    """end-4a, end-6; "POST then PUT"."""
    begun = registry("POST", "/v2/a/blobs/uploads/", Content_Length="0")
    assert begun.status == 202 and begun["Location"].startswith("/v2/a/blobs/uploads/")
    data = b"some bytes"
    done = registry("PUT", f"{begun['Location']}?digest={digest(data)}", data)
    assert (done.status, done["Location"]) == (201, f"/v2/a/blobs/{digest(data)}")
    assert re.search(r"/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", begun["Location"])  # "MUST contain a UUID"
    assert registry("GET", done["Location"]).body == data
    assert registry("GET", begun["Location"]).code == "BLOB_UPLOAD_UNKNOWN"  # it is over


def test_a_single_post(registry: Registry) -> None:
    """end-4b; "Single POST"."""
    data = b"at once"
    done = registry("POST", f"/v2/a/blobs/uploads/?digest={digest(data)}", data)
    assert (done.status, done["Location"]) == (201, f"/v2/a/blobs/{digest(data)}")
    assert registry("GET", done["Location"]).body == data


def test_chunks_in_order(registry: Registry) -> None:
    """end-5; "Pushing a blob in chunks"."""
    data = os.urandom(1000)
    at = registry("POST", "/v2/a/blobs/uploads/")["Location"]
    for first in (0, 300, 600):
        end = min(first + 300, 900)
        reply = registry("PATCH", at, data[first:end], Content_Range=f"{first}-{end - 1}",
                         Content_Type="application/octet-stream")
        assert (reply.status, reply["Range"]) == (202, f"0-{end - 1}")
        at = reply["Location"]
        status = registry("GET", at)
        assert (status.status, status["Range"], status["Location"]) == (204, f"0-{end - 1}", at)  # end-13
    done = registry("PUT", f"{at}?digest={digest(data)}", data[900:], Content_Range="900-999")
    assert done.status == 201
    assert registry("GET", f"/v2/a/blobs/{digest(data)}").body == data


@pytest.mark.parametrize("wrong", ["5-9", "0-4", "11-12", "bytes 11-12/20", "x-y", "-1-3", "10-", "10-10", "10-20",
                                   "11-9", f"10-{'9' * 5000}", "10-11,20-21"])
def test_a_chunk_out_of_order_is_416(registry: Registry, wrong: str) -> None:
    """end-5, end-6; "Pushing a blob in chunks": MUST be 416, and the upload goes on from where it was."""
    at = registry("POST", "/v2/a/blobs/uploads/")["Location"]
    registry("PATCH", at, b"0123456789", Content_Range="0-9")
    for method, query in (("PATCH", ""), ("PUT", f"?digest={digest(b'0123456789ab')}")):
        reply = registry(method, at + query, b"ab", Content_Range=wrong)
        assert (reply.status, reply["Range"], reply["Location"]) == (416, "0-9", at)
        assert reply.code == "BLOB_UPLOAD_INVALID"
    assert registry("PUT", f"{at}?digest={digest(b'0123456789ab')}", b"ab", Content_Range="10-11").status == 201


def test_a_body_of_unknown_length(registry: Registry) -> None:
    """end-5 by RFC 9112, 7.1 (chunked), as docker and skopeo stream."""
    data = os.urandom(700_000)
    at = registry("POST", "/v2/a/blobs/uploads/")["Location"]
    pieces = (data[start : start + 30_000] for start in range(0, len(data), 30_000))
    assert registry("PATCH", at, pieces)["Range"] == "0-699999"
    assert registry("PUT", f"{at}?digest={digest(data)}").status == 201
    assert registry("GET", f"/v2/a/blobs/{digest(data)}").body == data


def test_a_wrong_digest_is_refused(registry: Registry) -> None:
    """end-4b, end-6; "Pushing blobs": nothing is stored."""
    at = registry("POST", "/v2/a/blobs/uploads/")["Location"]
    reply = registry("PUT", f"{at}?digest={NOWHERE}", b"something else")
    assert (reply.status, reply.code) == (400, "DIGEST_INVALID")
    assert registry("POST", f"/v2/a/blobs/uploads/?digest={NOWHERE}", b"x").status == 400
    assert registry("HEAD", f"/v2/a/blobs/{NOWHERE}").status == 404
    at = registry("POST", "/v2/a/blobs/uploads/")["Location"]
    assert registry("PUT", at, b"no digest").code == "DIGEST_INVALID"
    assert registry("PUT", f"{at}?digest=md5:{'0' * 32}", b"no digest").code == "DIGEST_INVALID"
    assert list((registry.root / "blobs").glob("*/*")) == []


def test_a_digest_by_sha512(registry: Registry) -> None:
    """spec.md, "Digests": sha512 is registered too."""
    data = b"long digest"
    name = digest(data, "sha512")
    assert registry("POST", f"/v2/a/blobs/uploads/?digest={name}", data).status == 201
    assert registry("GET", f"/v2/a/blobs/{name}").body == data
    image, _ = registry.push("a", "v1")
    assert registry.put("a", digest(image, "sha512"), image)["Docker-Content-Digest"] == digest(image, "sha512")
    assert registry("GET", f"/v2/a/manifests/{digest(image, 'sha512')}").body == image


def test_an_upload_is_cancelled(registry: Registry) -> None:
    """end-14."""
    at = registry("POST", "/v2/a/blobs/uploads/")["Location"]
    registry("PATCH", at, b"something")
    assert registry("DELETE", at).status == 204
    assert registry("GET", at).code == registry("PATCH", at, b"x").code == "BLOB_UPLOAD_UNKNOWN"
    assert list((registry.root / "repositories" / "a" / "uploads").iterdir()) == []


def test_a_blob_is_mounted_from_another_repository(registry: Registry) -> None:
    """end-11; "Mounting a blob from another repository": 201 with its place; nothing is copied."""
    name = registry.push_blob("team/one", b"shared")
    reply = registry("POST", f"/v2/team/two/blobs/uploads/?mount={name}&from=team/one")
    assert (reply.status, reply["Location"]) == (201, f"/v2/team/two/blobs/{name}")
    assert registry("GET", reply["Location"]).body == b"shared"
    assert len({path.stat().st_ino for path in registry.root.rglob(name[7:])}) == 1


def test_what_cannot_be_mounted_begins_an_upload(registry: Registry) -> None:
    """end-11: 202 where it cannot be mounted, and where no repository to take it from is named."""
    name = registry.push_blob("team/one", b"shared")
    for query in (f"mount={NOWHERE}&from=team/one", f"mount={name}&from=team/none", f"mount={name}"):
        reply = registry("POST", f"/v2/team/two/blobs/uploads/?{query}")
        assert reply.status == 202, query
        assert registry("PATCH", reply["Location"], b"x").status == 202
    assert registry("HEAD", f"/v2/team/two/blobs/{name}").status == 404
    assert registry("POST", f"/v2/team/two/blobs/uploads/?mount={name}&from=../x").code == "NAME_INVALID"


def test_one_content_lies_on_the_disk_once(registry: Registry) -> None:
    """Whoever sends it: but a repository shows only what was sent to it."""
    name = registry.push_blob("one", b"the same")
    assert registry("HEAD", f"/v2/two/blobs/{name}").status == 404
    registry.push_blob("two", b"the same")
    assert len({path.stat().st_ino for path in registry.root.rglob(name[7:])}) == 1
    assert registry("GET", f"/v2/two/blobs/{name}").body == b"the same"


def test_a_manifest_waits_for_what_it_names(registry: Registry) -> None:
    """end-7; "Pushing Manifests": MANIFEST_BLOB_UNKNOWN while a blob, or a manifest of an index, is missing."""
    config, content = b'{"some":"config"}', b"a layer"
    data = manifest(config, content)
    registry.push_blob("a", config)
    assert registry.put("a", "v1", data).code == "MANIFEST_BLOB_UNKNOWN"
    assert registry("GET", "/v2/a/manifests/v1").status == 404
    assert registry.put("a", "all", index(data), INDEX).code == "MANIFEST_BLOB_UNKNOWN"
    registry.push_blob("a", content)
    assert registry.put("a", digest(data), data).status == 201
    assert registry.put("a", "all", index(data), INDEX).status == 201
    assert registry("GET", "/v2/a/manifests/all")["Content-Type"] == INDEX


def test_what_is_no_manifest_is_refused(registry: Registry) -> None:
    """end-7; "Error Codes": MANIFEST_INVALID, DIGEST_INVALID, TAG_INVALID, SIZE_INVALID."""
    data, _ = registry.push("a", "v1")
    for broken in (b"", b"no JSON", b"[]", b"7", b'{"config":7}', b'{"layers":[{}]}', b'{"mediaType":"\xff"}',
                   b'{"mediaType":5}', b'{"mediaType":"a/b\\r\\nSet-Cookie: x"}', b"[" * 100_000,
                   b'{"schemaVersion":2,"config":{"digest":"../../etc/passwd"}}', b"{}",
                   b'{"schemaVersion":1,"layers":[]}', b'{"schemaVersion":"2","layers":[]}',
                   b'{"subject":{"digest":"x"}}'):
        assert registry.put("a", "v2", broken).status == 400, broken
    assert registry.put("a", "v2", data, INDEX).code == "MANIFEST_INVALID"  # it says itself that it is none
    assert registry.put("a", NOWHERE, data).code == "DIGEST_INVALID"
    assert registry.put("a", ".x", data).code == "TAG_INVALID"
    assert registry.put("a", "t" * 129, data).code == "TAG_INVALID"
    assert registry("GET", "/v2/a/tags/list").json["tags"] == ["v1"]


def test_a_manifest_gets_tags_with_its_digest(registry: Registry) -> None:
    """end-7b; "Pushing Manifests": every accepted tag is told in OCI-Tag; one wrong tag and nothing is stored."""
    data, _ = registry.push("a", "old")
    for algorithm in ("sha256", "sha512"):
        name = digest(data, algorithm)
        tags = [f"{algorithm}-{number}" for number in range(12)]
        reply = registry.put("a", f"{name}?{'&'.join(f'tag={tag}' for tag in tags)}", data)
        assert (reply.status, reply["OCI-Tag"].split(", "), reply["Docker-Content-Digest"]) == (201, tags, name)
        assert all(registry("HEAD", f"/v2/a/manifests/{tag}")["Docker-Content-Digest"] == name for tag in tags)
    other, _ = registry.push("a", "other", annotations={"not": "the same"})
    assert registry.put("a", f"{digest(other)}?tag=old", other).status == 201
    assert registry("GET", "/v2/a/manifests/old").body == other
    assert registry.put("a", f"{digest(data)}?tag=old&tag=.bad", data).code == "TAG_INVALID"
    assert registry("GET", "/v2/a/manifests/old").body == other
    assert "OCI-Tag" not in registry.put("a", "v2?tag=v3", data).headers
    assert registry("GET", "/v2/a/manifests/v3").status == 404


def test_a_manifest_has_at_most_four_mebibytes(registry: Registry) -> None:
    """end-7; "Pushing Manifests": 413 for more; that much is taken."""
    image, _ = registry.push("a", "v1")
    room = (4 << 20) - len(json.dumps({**json.loads(image), "annotations": {"x": ""}}))
    largest = json.dumps({**json.loads(image), "annotations": {"x": "y" * room}}).encode()
    assert len(largest) == 4 << 20
    assert registry.put("a", "v2", largest).status == 201
    assert registry("GET", "/v2/a/manifests/v2").body == largest
    reply = registry.put("a", "v3", largest + b" ")
    assert (reply.status, reply.code) == (413, "SIZE_INVALID")


def test_a_tag_moves_and_the_old_manifest_stays(registry: Registry) -> None:
    """end-7: a tag names one manifest at a time; the digest names the old one for ever."""
    first, _ = registry.push("a", "v1", annotations={"number": "1"})
    registry.push("a", "kept", annotations={"number": "1"})
    second, _ = registry.push("a", "v1", annotations={"number": "2"})
    third, _ = registry.push("a", "v1", annotations={"number": "3"})
    assert registry("GET", "/v2/a/manifests/v1").body == third
    for data in (first, second, third):
        assert registry("GET", f"/v2/a/manifests/{digest(data)}").body == data
    assert registry("GET", "/v2/a/tags/list").json["tags"] == ["kept", "v1"]
    entries = json.loads((registry.root / "repositories/a/index.json").read_text())["manifests"]
    assert len(entries) == 4 - 1  # kept, v1, and the second by its digest alone


# -- content discovery -------------------------------------------------------------------------------------------------

def test_tags_come_sorted_and_in_pages(registry: Registry) -> None:
    """end-8a, end-8b; "Listing Tags": n, last, and Link (RFC 8288) to the next page."""
    data, _ = registry.push("a/b", "t3")
    for tag in ("t1", "T2", "T9", "t2", "_x"):
        registry.put("a/b", tag, data)
    names = ["_x", "t1", "T2", "t2", "t3", "T9"]  # "lexical order (i.e. case-insensitive alphanumeric order)"
    assert registry("GET", "/v2/a/b/tags/list").json == {"name": "a/b", "tags": names}
    found, path = [], "/v2/a/b/tags/list?n=2"
    while path:
        reply = registry("GET", path)
        assert len(reply.json["tags"]) <= 2
        found += reply.json["tags"]
        link = reply.headers["Link"] or ""
        path = link.partition("<")[2].partition(">")[0]
        assert not link or link.endswith('>; rel="next"')
    assert found == names
    assert registry("GET", "/v2/a/b/tags/list?n=0").json["tags"] == []
    assert registry("GET", "/v2/a/b/tags/list?last=t1").json["tags"] == names[2:]
    for wrong in ("-1", "x", "1e9", "9" * 30, "%C2%B2"):
        reply = registry("GET", f"/v2/a/b/tags/list?n={wrong}")
        assert (reply.status, reply.code) == (400, "UNSUPPORTED")
    assert registry("GET", "/v2/none/tags/list").code == "NAME_UNKNOWN"


def test_the_catalog_lists_repositories_in_pages(registry: Registry) -> None:
    """Not in the specification any more; as docker-registry does it."""
    for name in ("b", "a/b", "a", "blobs", "library/blobs/uploads"):
        registry.push(name, "v1")
    registry("POST", "/v2/unfinished/blobs/uploads/")
    names = ["a", "a/b", "b", "blobs", "library/blobs/uploads"]
    assert registry("GET", "/v2/_catalog").json == {"repositories": names}
    reply = registry("GET", "/v2/_catalog?n=2")
    assert reply.json["repositories"] == names[:2]
    assert registry("GET", reply["Link"].partition("<")[2].partition(">")[0]).json["repositories"] == names[2:4]


def test_referrers(registry: Registry) -> None:
    """end-12a, end-12b; "Listing Referrers", "Pushing Manifests with Subject"."""
    image, put = registry.push("a", "v1")
    assert put.headers["OCI-Subject"] is None
    subject = descriptor(image, MANIFEST)
    empty = registry("GET", f"/v2/a/referrers/{digest(image)}")
    assert (empty.status, empty["Content-Type"], empty.json["manifests"]) == (200, INDEX, [])
    assert registry("GET", f"/v2/never/referrers/{NOWHERE}").json["manifests"] == []
    assert registry("GET", "/v2/a/referrers/sha256:x").status == 400

    sbom, reply = registry.push("a", "sbom", subject=subject, artifactType="application/sbom", annotations={"k": "v"})
    assert (reply.status, reply["OCI-Subject"]) == (201, digest(image))
    config = b"{}"
    registry.push_blob("a", config)
    signature = json.loads(manifest(config))
    signature["config"]["mediaType"], signature["subject"] = "application/signature", subject
    signed = json.dumps(signature).encode()
    assert registry.put("a", digest(signed), signed)["OCI-Subject"] == digest(image)
    every = registry("GET", f"/v2/a/referrers/{digest(image)}")
    assert every.headers["OCI-Filters-Applied"] is None
    assert every.json == {"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {**descriptor(sbom, MANIFEST), "artifactType": "application/sbom", "annotations": {"k": "v"}},
        {**descriptor(signed, MANIFEST), "artifactType": "application/signature"}]}
    one = registry("GET", f"/v2/a/referrers/{digest(image)}?artifactType=application/sbom")
    assert one["OCI-Filters-Applied"] == "artifactType"
    assert [each["digest"] for each in one.json["manifests"]] == [digest(sbom)]
    assert registry("GET", f"/v2/b/referrers/{digest(image)}").json["manifests"] == []


def test_a_subject_need_not_be_here_yet(registry: Registry) -> None:
    """end-7; "Pushing Manifests with Subject": MUST accept one whose subject does not exist."""
    data, reply = registry.push("a", "v1", subject={"mediaType": MANIFEST, "digest": NOWHERE, "size": 7})
    assert (reply.status, reply["OCI-Subject"]) == (201, NOWHERE)
    found = registry("GET", f"/v2/a/referrers/{NOWHERE}").json["manifests"]
    assert found == [{**descriptor(data, MANIFEST), "artifactType": f"{OCI}.config.v1+json"}]
    assert registry("DELETE", f"/v2/a/manifests/{digest(data)}").status == 202
    assert registry("GET", f"/v2/a/referrers/{NOWHERE}").json["manifests"] == []


# -- content management ------------------------------------------------------------------------------------------------

def test_a_tag_is_deleted_and_the_manifest_stays(registry: Registry) -> None:
    """end-9; "Deleting tags"."""
    data, _ = registry.push("a", "v1")
    assert registry("DELETE", "/v2/a/manifests/v1").status == 202
    assert registry("GET", "/v2/a/manifests/v1").status == 404
    assert registry("GET", f"/v2/a/manifests/{digest(data)}").body == data
    assert registry("GET", "/v2/a/tags/list").json["tags"] == []
    assert registry("DELETE", "/v2/a/manifests/v1").status == 404


def test_a_manifest_is_deleted_with_its_tags(registry: Registry) -> None:
    """end-9; "Deleting Manifests"."""
    data, _ = registry.push("a", "v1")
    registry.put("a", "v2", data)
    registry.push("a", "other", annotations={"not": "the same"})
    assert registry("DELETE", f"/v2/a/manifests/{digest(data)}").status == 202
    assert registry("GET", f"/v2/a/manifests/{digest(data)}").status == 404
    assert registry("GET", "/v2/a/tags/list").json["tags"] == ["other"]
    assert registry("DELETE", f"/v2/a/manifests/{digest(data)}").code == "MANIFEST_UNKNOWN"


def test_a_blob_is_deleted(registry: Registry) -> None:
    """end-10; "Deleting Blobs"."""
    name = registry.push_blob("a", b"blob")
    registry.push_blob("b", b"blob")
    assert registry("DELETE", f"/v2/a/blobs/{name}").status == 202
    assert registry("GET", f"/v2/a/blobs/{name}").status == 404
    assert registry("GET", f"/v2/b/blobs/{name}").body == b"blob"
    assert registry("DELETE", f"/v2/a/blobs/{name}").code == "BLOB_UNKNOWN"
    data, _ = registry.push("a", "v1")
    assert registry("DELETE", f"/v2/a/blobs/{digest(data)}").code == "BLOB_UNKNOWN"  # it is a manifest
    assert registry("GET", "/v2/a/manifests/v1").body == data


def test_nothing_is_deleted_unless_the_registry_lets_clients(tmp_path: Path) -> None:
    """end-9, end-10: 405 where it is off; an upload of one's own may always be given up."""
    with Registry(tmp_path) as registry:
        data, _ = registry.push("a", "v1")
        for path in ("manifests/v1", f"manifests/{digest(data)}", f"blobs/{digest(data)}"):
            reply = registry("DELETE", f"/v2/a/{path}")
            assert (reply.status, reply.code) == (405, "UNSUPPORTED")
            assert "DELETE" not in reply["Allow"] and "GET, HEAD" in reply["Allow"]
        assert registry("DELETE", registry("POST", "/v2/a/blobs/uploads/")["Location"]).status == 204
        assert registry("GET", "/v2/a/manifests/v1").body == data


def test_a_read_only_registry_changes_nothing(tmp_path: Path) -> None:
    """Every way to write is 405; everything is read."""
    with Registry(tmp_path) as registry:
        data, _ = registry.push("a", "v1")
        at = registry("POST", "/v2/a/blobs/uploads/")["Location"]
    before = sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    with Registry(tmp_path, "--read-only", "--delete") as registry:
        assert registry("GET", "/v2/a/manifests/v1").body == data
        for method, path in (("POST", "/v2/a/blobs/uploads/"), ("POST", f"/v2/b/blobs/uploads/?mount={NOWHERE}&from=a"),
                             ("PATCH", at), ("PUT", f"{at}?digest={NOWHERE}"), ("PUT", "/v2/a/manifests/v2"),
                             ("DELETE", "/v2/a/manifests/v1"), ("DELETE", f"/v2/a/blobs/{NOWHERE}"), ("DELETE", at)):
            reply = registry(method, path, b"x")
            assert (reply.status, reply.code) == (405, "UNSUPPORTED"), (method, path)
    assert sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


# -- the operator's side -----------------------------------------------------------------------------------------------

def command(*words: str | Path, status: int = 0) -> str:
    """`minirt registry ...`; what it printed, on both channels."""
    argv = [sys.executable, "-m", "minirt", "registry", *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], timeout=30)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_what_nothing_needs_is_freed(registry: Registry) -> None:
    """Garbage: first the dry run says the same and removes nothing."""
    kept, _ = registry.push("a", "v1")
    gone, _ = registry.push("b", "v1", annotations={"long": "x" * 100_000})
    lonely = registry.push_blob("a", b"of no manifest")
    at = registry("POST", "/v2/a/blobs/uploads/")["Location"].rpartition("/")[2]
    young = registry("POST", "/v2/a/blobs/uploads/")["Location"].rpartition("/")[2]
    registry("DELETE", f"/v2/b/manifests/{digest(gone)}")
    assert "stop it" in command("garbage-collect", "--root", registry.root, status=1)
    registry.stop()
    [old] = registry.root.glob(f"repositories/a/uploads/{at}-*")
    os.utime(old, (1, 1))
    said = command("garbage-collect", "--root", registry.root, "--dry-run")
    assert lonely in said and digest(gone) in said and at in said and young not in said and digest(kept) not in said
    assert (registry.root / "blobs" / lonely.replace(":", "/")).exists()
    assert command("garbage-collect", "--root", registry.root) == said.replace("would remove", "removed")
    assert command("garbage-collect", "--root", registry.root) == "Total reclaimed space: 0B\n"
    registry.start()
    assert registry("GET", "/v2/a/manifests/v1").body == kept
    for part in (json.loads(kept)["config"], *json.loads(kept)["layers"]):
        assert registry("HEAD", f"/v2/a/blobs/{part['digest']}").status == 200
        assert registry("HEAD", f"/v2/b/blobs/{part['digest']}").status == 404
    assert registry("HEAD", f"/v2/a/blobs/{lonely}").status == 404


def test_an_upload_goes_on_after_a_restart(registry: Registry) -> None:
    """end-13, end-5: a server that is gone and back knows what has arrived."""
    data = os.urandom(500_000)
    at = registry("POST", "/v2/a/blobs/uploads/")["Location"]
    registry("PATCH", at, data[:200_000])
    registry.process.kill()
    registry.process.wait()
    registry.start()
    assert registry("GET", at)["Range"] == "0-199999"
    registry("PATCH", at, data[200_000:400_000], Content_Range="200000-399999")
    assert registry("PUT", f"{at}?digest={digest(data)}", data[400_000:]).status == 201
    assert registry("GET", f"/v2/a/blobs/{digest(data)}").body == data


def test_a_stop_lets_an_answer_come_to_its_end(registry: Registry) -> None:
    """SIGTERM: what is on its way arrives; a connection at rest is closed; the port is free; exit code 0."""
    at = registry("POST", "/v2/a/blobs/uploads/")["Location"]
    resting = socket.create_connection(("127.0.0.1", registry.port))
    resting.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in resting.recv(1000)
    working = socket.create_connection(("127.0.0.1", registry.port))
    head = f"PUT {at}?digest={digest(b'0123456789')} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
    working.sendall(head.encode() + b"01234")
    time.sleep(0.3)
    registry.process.send_signal(signal.SIGTERM)
    resting.settimeout(5)
    assert resting.recv(10) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", registry.port))
    working.sendall(b"56789")
    working.settimeout(5)
    assert b"201 Created" in working.recv(2000)
    assert registry.process.wait(5) == 0
    registry.start()
    assert registry("GET", f"/v2/a/blobs/{digest(b'0123456789')}").body == b"0123456789"


def test_many_push_to_one_repository_at_once(registry: Registry) -> None:
    """Concurrent: no tag is lost, no blob is mixed up."""
    failed: list[object] = []

    def push(number: int) -> None:
        try:
            for turn in range(3):
                _, reply = registry.push("shared", f"t{number}-{turn}", annotations={"n": f"{number}-{turn}"})
                assert reply.status == 201
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    tags = registry("GET", "/v2/shared/tags/list").json["tags"]
    assert len(tags) == 36
    for tag in tags:
        assert registry("GET", f"/v2/shared/manifests/{tag}").json["annotations"]["n"] == tag[1:]


def test_one_blob_comes_from_many_at_once(registry: Registry) -> None:
    """Every one of them is told 201; it lies on the disk once, and nothing is left of the uploads."""
    data = os.urandom(1 << 20)
    done: list[str] = []
    threads = [threading.Thread(target=lambda number=number: done.append(registry.push_blob(f"r{number % 3}", data)))
               for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [digest(data)] * 9
    assert len({path.stat().st_ino for path in registry.root.rglob(digest(data)[7:])}) == 1
    assert list(registry.root.glob("repositories/*/uploads/*")) == []


def test_what_is_deleted_while_it_is_pulled_comes_whole(registry: Registry) -> None:
    """end-10 during end-2: who has begun gets all of it, who comes later 404."""
    data = os.urandom(8 << 20)
    name = registry.push_blob("a", data)
    with socket.create_connection(("127.0.0.1", registry.port)) as connection:
        connection.settimeout(10)
        connection.sendall(f"GET /v2/a/blobs/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        received = connection.recv(1000)
        assert registry("DELETE", f"/v2/a/blobs/{name}").status == 202
        assert registry("GET", f"/v2/a/blobs/{name}").status == 404
        while piece := connection.recv(1 << 20):
            received += piece
    assert received.endswith(data)


def test_who_asks_about_an_upload_that_is_ending(registry: Registry) -> None:
    """end-13 during end-6: 204, or 404 when it is over, and nothing else."""
    seen: set[int] = set()
    place = [registry("POST", "/v2/a/blobs/uploads/")["Location"]]

    def ask() -> None:
        while place:
            try:
                seen.add(registry("GET", place[0]).status)
            except IndexError:
                return

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(30):
        data = b"%d" % number
        assert registry("PUT", f"{place[0]}?digest={digest(data)}", data).status == 201
        place[0] = registry("POST", "/v2/a/blobs/uploads/")["Location"]
    place.clear()
    for thread in threads:
        thread.join()
    assert seen <= {204, 404}


def bcrypt_line(user: str, password: str) -> str:
    """A line as `htpasswd -B` writes it."""
    import ctypes

    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    return f"{user}:{library.crypt(password.encode(), b'$2y$05$abcdefghijklmnopqrstuu').decode()}\n"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_users_and_passwords(tmp_path: Path) -> None:
    """401 with a challenge (RFC 7617) until one has said who one is; a changed file counts; nothing is logged."""
    users = tmp_path / "users"
    users.write_text("# people\n" + bcrypt_line("alice", "wond:er") + bcrypt_line("bob", "builder"))
    with Registry(tmp_path / "registry", "--auth", str(users)) as registry:
        for wrong in ("", "Bearer x", "Basic ???", basic("alice", "wonder"), basic("bob", "wond:er"), basic("eve", "")):
            reply = registry("GET", "/v2/", **({"Authorization": wrong} if wrong else {}))
            assert (reply.status, reply.code) == (401, "UNAUTHORIZED")
            assert reply["WWW-Authenticate"].startswith('Basic realm="')
            assert (b"wrong name or password" if wrong else b"log in first") in reply.body
        alice, bob = basic("alice", "wond:er"), basic("bob", "builder")
        assert registry("GET", "/v2/", Authorization=alice).status == 200
        begin = time.monotonic()
        for _ in range(20):
            assert registry("GET", "/v2/", authorization=alice).status == 200
        assert time.monotonic() - begin < 5

        at = registry("POST", "/v2/a/blobs/uploads/", Authorization=alice)["Location"]
        for method in ("GET", "PATCH", "DELETE", "PUT"):  # the upload of another user
            query = f"?digest={digest(b'x')}" if method == "PUT" else ""
            assert registry(method, at + query, b"x", Authorization=bob).code == "BLOB_UPLOAD_UNKNOWN"
            elsewhere = at.replace("/a/", "/b/") + query
            assert registry(method, elsewhere, b"x", Authorization=alice).code == "BLOB_UPLOAD_UNKNOWN"
        assert registry("PUT", f"{at}?digest={digest(b'x')}", b"x", Authorization=alice).status == 201

        users.write_text(bcrypt_line("alice", "new"))
        assert registry("GET", "/v2/", Authorization=alice).status == 401
        assert registry("GET", "/v2/", Authorization=bob).status == 401
        assert registry("GET", "/v2/", Authorization=basic("alice", "new")).status == 200
        users.unlink()
        assert registry("GET", "/v2/", Authorization=basic("alice", "new")).status == 401
    assert "alice" in registry.log and "wond" not in registry.log and alice[6:] not in registry.log


@pytest.mark.parametrize("line", ["alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "alice", ":x", "alice:secret",
                                  "alice:$apr1$xxxxxxxx$3nyj3rkGHK3PUnXIBr2wm/"])
def test_weak_passwords_are_refused(tmp_path: Path, line: str) -> None:
    """As docker-registry does: with the line's number and what to do, without the password."""
    (tmp_path / "users").write_text(bcrypt_line("bob", "x") + line + "\n")
    said = command("serve", "--root", tmp_path, "--auth", tmp_path / "users", "--addr", "127.0.0.1:0", status=1)
    assert "line 2" in said and "htpasswd -B" in said and "secret" not in said


def test_tls(tmp_path: Path) -> None:
    """A certificate of one's own; large blobs too; and what speaks no TLS is turned away without harm."""
    import http.client
    import ssl

    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
                   check=True, capture_output=True)
    data = os.urandom(3_000_000)
    with Registry(tmp_path / "registry", "--tls-cert", str(cert), "--tls-key", str(key)) as registry:
        assert "https://" in registry.log
        with socket.create_connection(("127.0.0.1", registry.port)) as plain:
            plain.sendall(b"GET /v2/ HTTP/1.1\r\n\r\n")
            plain.settimeout(5)
            try:
                assert b"200" not in plain.recv(1000)
            except ConnectionResetError:
                pass
        silent = socket.create_connection(("127.0.0.1", registry.port))  # keeps nobody waiting
        connection = http.client.HTTPSConnection("127.0.0.1", registry.port, timeout=10,
                                                 context=ssl.create_default_context(cafile=str(cert)))
        connection.request("POST", f"/v2/a/blobs/uploads/?digest={digest(data)}", data)
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (201, b"")
        connection.request("GET", f"/v2/a/blobs/{digest(data)}")
        assert connection.getresponse().read() == data
        silent.close()
        connection.close()


def test_wrong_options_are_sentences(tmp_path: Path) -> None:
    """What was asked, what is wrong, what to do."""
    assert "give both" in command("serve", "--tls-cert", "x", "--root", tmp_path, status=125)
    tls = ("--tls-cert", "nothing.pem", "--tls-key", "x")
    assert "nothing.pem" in command("serve", *tls, "--root", tmp_path, status=1)
    assert "HOST:PORT" in command("serve", "--addr", "here", status=125)
    assert "nobody.txt" in command("serve", "--auth", "nobody.txt", "--root", tmp_path, status=1)
    with Registry(tmp_path) as registry:
        said = command("serve", "--root", tmp_path, "--addr", registry.address, status=1)
        assert "in use" in said and registry.address in said
    nowhere = tmp_path / "nowhere"
    assert "no registry" in command("garbage-collect", "--root", nowhere, status=1) and not nowhere.exists()
    (tmp_path / "file").write_text("")
    assert "file" in command("serve", "--root", tmp_path / "file", "--addr", "127.0.0.1:0", status=1)

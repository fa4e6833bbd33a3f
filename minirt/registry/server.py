"""Chapter 14: what a registry answers.

The whole protocol is a table: a method, a path, the function that answers. Each function takes the storage, the request
and the pieces of the path, and returns an `Answer` or raises `Refused`; nothing in here knows a socket, so everything
can be tried without one:

    answer(Storage("/tmp/registry"), Request("GET", "/v2/"))

An image arrives bottom up (its layers and its configuration, then the manifest that names them, then perhaps an index
that names manifests), so what can be seen is always whole.

Rules of the room: a name or digest goes to the storage, which checks it, before anything else happens; whatever was
refused is told as the specification's JSON, with its code.

Source: OCI distribution-spec, spec.md; each function names its row in the table "Endpoints" (end-1 ...).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from minirt import state
from minirt.registry.storage import TAG, Manifest, Refused, Storage, Upload, checked

# The specification's codes, and the status of each.
STATUS = {
    "BLOB_UNKNOWN": 404, "BLOB_UPLOAD_INVALID": 409, "BLOB_UPLOAD_UNKNOWN": 404, "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 404, "MANIFEST_INVALID": 400, "MANIFEST_UNKNOWN": 404, "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404, "SIZE_INVALID": 413, "TAG_INVALID": 400, "UNAUTHORIZED": 401, "DENIED": 403,
    "UNSUPPORTED": 405, "UNKNOWN": 507,
}


@dataclass
class Request:
    """What a client asks: `target` is the path with its query; `user`, who asks, "" for nobody in particular; `body`
    arrives while it is read; names of `headers` are written Like-This."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Iterable[bytes | memoryview] = ()
    user: str = ""

    def __post_init__(self) -> None:
        path, _, query = self.target.partition("?")
        self.path = unquote(path)
        self.parameters = parse_qsl(query, keep_blank_values=True)
        self.query = dict(self.parameters)


@dataclass
class Answer:
    """A status, headers, and what follows: bytes, or a part of an open file as (descriptor, first byte, number of
    bytes), which whoever sends it closes."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | tuple[int, int, int] = b""


def as_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer that is a JSON document."""
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, state.dumps(value).encode())


def refusal(error: Refused) -> Answer:
    """The answer that tells a refusal (spec.md, "Error Codes")."""
    told = {"errors": [{"code": error.code, "message": str(error)}]}
    return as_json(told, error.status or STATUS[error.code], error.headers)


def check_version(storage: Storage, request: Request) -> Answer:
    """end-1: a registry that knows this protocol says 200, or asks who you are."""
    return as_json({})


# -- pull --------------------------------------------------------------------------------------------------------------

def get_blob(storage: Storage, request: Request, name: str, digest: str) -> Answer:
    """end-2: a blob, to the byte."""
    return content(request, storage.repository(name).open_blob(digest), digest, "application/octet-stream")


def get_manifest(storage: Storage, request: Request, name: str, reference: str) -> Answer:
    """end-3: the manifest with this tag or digest, as it was sent, to the byte."""
    repository = storage.repository(name)
    entry = repository.find(reference)
    return content(request, repository.open_blob(entry["digest"]), entry["digest"], entry["mediaType"])


def content(request: Request, descriptor: int, digest: str, media_type: str) -> Answer:
    """What `descriptor` has open, or the part of it that the header Range names (RFC 9110, 14); 304 for a client that
    says it has that content already (RFC 9110, 13): its digest is its ETag too."""
    size, mark = os.fstat(descriptor).st_size, f'"{digest}"'
    headers = {"Content-Type": media_type, "Docker-Content-Digest": digest, "ETag": mark, "Accept-Ranges": "bytes"}
    if mark in request.headers.get("If-None-Match", ""):
        os.close(descriptor)
        return Answer(304, headers)
    right = request.method == "GET" and request.headers.get("If-Range", mark) == mark
    part = part_of(request.headers.get("Range", ""), size) if right else None
    first, end = part or (0, size)
    if part and first >= end:
        os.close(descriptor)
        raise Refused("SIZE_INVALID", f"there are {size} bytes", {"Content-Range": f"bytes */{size}"}, 416)
    if part:
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
    return Answer(206 if part else 200, headers, (descriptor, first, end - first))


def part_of(wanted: str, size: int) -> tuple[int, int] | None:
    """The first byte of a range and the one after its last: `bytes=5-9`, `bytes=5-`, `bytes=-5` of `size` bytes.

    None, which asks for all, for a header that is missing or has another form. A range that begins behind the end is
    empty.
    """
    found = re.fullmatch(r"bytes= *(\d{0,99})-(\d{0,99})", wanted, re.ASCII)
    if not found or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        return max(size - int(last), 0), size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size


# -- push --------------------------------------------------------------------------------------------------------------

def begin_upload(storage: Storage, request: Request, name: str) -> Answer:
    """end-4a: begin an upload. end-4b: `?digest=` brings the blob at once. end-11: `?mount=&from=` wants one that
    another repository has; where that one has it not, an upload begins instead.
    """
    repository = storage.repository(name)
    if "mount" in request.query and "from" in request.query:
        source = storage.repository(request.query["from"])
        if repository.mount(request.query["mount"], source):
            return stored(name, "blobs", request.query["mount"])
    upload = repository.begin_upload(request.user)
    if "digest" in request.query:
        return finish_upload(storage, request, name, upload.identifier)
    return Answer(202, progress(upload))


def progress(upload: Upload) -> dict[str, str]:
    """The headers that tell where an upload goes on, and what has arrived: a range that includes its last byte."""
    return {"Location": f"/v2/{upload.repository.name}/blobs/uploads/{upload.identifier}",
            "Range": f"0-{max(upload.size - 1, 0)}", "Docker-Upload-UUID": upload.identifier}


def stored(name: str, kind: str, digest: str, headers: Mapping[str, str] | None = None) -> Answer:
    """201: what was sent is here now, under that digest."""
    return Answer(201, {"Location": f"/v2/{name}/{kind}/{digest}", "Docker-Content-Digest": digest, **(headers or {})})


def send_chunk(storage: Storage, request: Request, name: str, identifier: str) -> Answer:
    """end-5: the next bytes of an upload."""
    with storage.repository(name).upload(identifier, request.user) as upload:
        receive(upload, request)
        return Answer(202, progress(upload))


def receive(upload: Upload, request: Request) -> None:
    """Add a request's body to an upload. Raises Refused (416) where Content-Range says that it belongs elsewhere, or
    tells another length than the body has."""
    first, _, last = request.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")[0].partition("-")
    length = int(request.headers.get("Content-Length", 0))
    if (first or last) and (first != str(upload.size) or (length and last != str(upload.size + length - 1))):
        raise Refused("BLOB_UPLOAD_INVALID", f"this upload's next byte is number {upload.size}", progress(upload), 416)
    upload.append(request.body)


def upload_status(storage: Storage, request: Request, name: str, identifier: str) -> Answer:
    """end-13: how far an upload has come, for a client that was cut off."""
    return Answer(204, progress(storage.repository(name).upload(identifier, request.user)))


def finish_upload(storage: Storage, request: Request, name: str, identifier: str) -> Answer:
    """end-6: the last bytes of an upload, or none of them, and the digest of all: the blob is here from now on.

    `?digest=` (in `request.query`) is `checked` before anything happens. The upload is the one of this repository with
    this `identifier` that belongs to `request.user`. While it is held (`with`), `receive` adds the request's body to
    it, and then its `finish` shows the blob, if it has that digest. The answer is what `stored` gives for "blobs".

    Raises Refused, with the code DIGEST_INVALID for no digest or the wrong one, NAME_INVALID, BLOB_UPLOAD_UNKNOWN,
    BLOB_UPLOAD_INVALID. Source: OCI distribution-spec spec.md "POST then PUT".
    """
    digest = checked(request.query.get("digest", ""))
    with storage.repository(name).upload(identifier, request.user) as upload:
        receive(upload, request)
        upload.finish(digest)
    return stored(name, "blobs", digest)


def put_manifest(storage: Storage, request: Request, name: str, reference: str) -> Answer:
    """end-7a: store a manifest under a tag, or under its own digest, once all that it names is here. end-7b: what comes
    under its digest gets the tags of `?tag=`, which may be there several times."""
    repository = storage.repository(name)
    by_digest = ":" in reference
    algorithm = checked(reference).partition(":")[0] if by_digest else "sha256"
    tags = [value for key, value in request.parameters if key == "tag"] if by_digest else [reference]
    for tag in tags:
        if not TAG.fullmatch(tag):
            raise Refused("TAG_INVALID", f"{tag!r} is no tag: letters, digits and . _ -, at most 128 of them")
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip()
    manifest = Manifest(kind, b"".join(map(bytes, request.body)), algorithm)
    if by_digest and manifest.digest != reference:
        raise Refused("DIGEST_INVALID", f"the digest of this manifest is {manifest.digest}, not {reference}")
    repository.put_manifest(manifest, tags)
    told = {"OCI-Subject": manifest.subject, "OCI-Tag": ", ".join(tags) if by_digest else ""}
    return stored(name, "manifests", manifest.digest, {key: value for key, value in told.items() if value})


# -- the table ---------------------------------------------------------------------------------------------------------

# A function, or None for what this registry does not allow.
Routes = tuple[tuple[str, str, Callable[..., Answer] | None], ...]

ROUTES: Routes = (
    ("GET", "/v2/", check_version),
    ("GET", "/v2/{name}/manifests/{reference}", get_manifest),
    ("GET", "/v2/{name}/blobs/{digest}", get_blob),
    ("POST", "/v2/{name}/blobs/uploads/", begin_upload),
    ("PATCH", "/v2/{name}/blobs/uploads/{identifier}", send_chunk),
    ("GET", "/v2/{name}/blobs/uploads/{identifier}", upload_status),
    ("PUT", "/v2/{name}/blobs/uploads/{identifier}", finish_upload),
    ("PUT", "/v2/{name}/manifests/{reference}", put_manifest),
)


def find(routes: Routes, method: str, path: str) -> tuple[Callable[..., Answer], dict[str, str]]:
    """The function that answers a method at a path, and the pieces of the path by their names in the table.

    HEAD is answered as GET is. Raises Refused: NAME_UNKNOWN for a path that the table does not have, UNSUPPORTED where
    it has other methods only.
    """
    methods: list[str] = []
    for verb, pattern, function in routes:
        pattern = pattern.replace("{name}", "(?P<name>.+)").replace("{", "(?P<").replace("}", ">[^/]+)")
        if hit := re.fullmatch(pattern + "?" * pattern.endswith("/"), path):
            if function and (verb == method or (verb, method) == ("GET", "HEAD")):
                return function, hit.groupdict()
            methods += [verb, "HEAD"] if verb == "GET" else [verb if function else ""]
    if methods:
        raise Refused("UNSUPPORTED", f"no {method} here (read-only?)", {"Allow": ", ".join(filter(None, methods))})
    raise Refused("NAME_UNKNOWN", f"there is nothing at {path}")


def answer(storage: Storage, request: Request, routes: Routes = ROUTES) -> Answer:
    """Answer one request. Raises nothing for what a client does wrong."""
    try:
        function, pieces = find(routes, request.method, request.path)
        return function(storage, request, **pieces)
    except Refused as error:
        return refusal(error)

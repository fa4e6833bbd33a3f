"""A registry of ours for tests, as another process, and a small client of its own that knows nothing of ours."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.images import config_of, entry, layer

ROOT = Path(__file__).resolve().parent.parent
OCI = "application/vnd.oci.image"
CODES = ("BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN",
         "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED",
         "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS", "TAG_INVALID", "UNKNOWN")  # the last two: docker-registry's own
MANIFEST, INDEX = f"{OCI}.manifest.v1+json", f"{OCI}.index.v1+json"


def digest(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


class Reply:
    """What came back: `status`, `headers`, `body`."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()

    def __getitem__(self, header: str) -> str:
        return self.headers[header] or ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The specification's code of a refusal (spec.md, "Error Codes": MUST be one of its own)."""
        error = self.json["errors"][0]
        assert error["code"] in CODES
        assert set(error) <= {"code", "message", "detail"} and error["message"]
        return str(error["code"])


class Registry:
    """`minirt registry serve` on a free port of loopback; used in a `with`, which stops it by SIGTERM."""

    def __init__(self, root: Path | str, *options: str, port: int = 0, wrapper: Iterable[str] = ()) -> None:
        self.root, self.options, self.port, self.wrapper = Path(root), options, port, tuple(wrapper)
        self.lines: list[str] = []

    def start(self) -> Registry:
        """Start it; ready when this returns."""
        words = [sys.executable, "-m", "minirt", "registry", "serve", "--addr", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen([*self.wrapper, *words, "--root", str(self.root), *self.options], cwd=ROOT,
                                        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                                        env={**os.environ, "MINIRT_DEBUG": "1"})
        assert self.process.stderr
        found = None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"https?://(127\.0\.0\.1):(\d+)", line):
                break
        assert found, "".join(self.lines)
        self.port = int(found[2])
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr or ()), daemon=True)
        self.reader.start()
        return self

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.terminate()
        status = self.process.wait(20)
        self.reader.join(5)
        assert self.process.stderr
        self.process.stderr.close()
        assert "Traceback" not in self.log, self.log
        return status

    def __enter__(self) -> Registry:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """All that it has said."""
        return "".join(self.lines)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __call__(self, method: str, path: str, body: bytes | Iterable[bytes] = b"", **headers: str) -> Reply:
        """One request on a connection of its own; `Content_Type="..."` is the header Content-Type."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, named, encode_chunked=not isinstance(body, bytes))
            return Reply(connection.getresponse())
        finally:
            connection.close()

    # -- what tests do again and again ----------------------------------------------------------------------------

    def push_blob(self, name: str, data: bytes) -> str:
        """Begin, send, finish; returns the digest."""
        begun = self("POST", f"/v2/{name}/blobs/uploads/")
        assert begun.status == 202, begun.body
        done = self("PUT", f"{begun['Location']}?digest={digest(data)}", data, Content_Type="application/octet-stream")
        assert done.status == 201, done.body
        return digest(data)

    def push(self, name: str, reference: str, **fields: Any) -> tuple[bytes, Reply]:
        """A small image with its blobs; returns its manifest and the reply to it."""
        files = layer(entry("hello", content=b"hello from %s" % name.encode()))
        parts = [config_of([files]), gzip.compress(files, mtime=0)]
        for part in parts:
            self.push_blob(name, part)
        data = manifest(*parts, **fields)
        return data, self.put(name, reference, data)

    def put(self, name: str, reference: str, data: bytes, kind: str = MANIFEST) -> Reply:
        """Send a manifest."""
        return self("PUT", f"/v2/{name}/manifests/{reference}", data, Content_Type=kind)


def descriptor(data: bytes, kind: str, **fields: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(data), "size": len(data), **fields}


def manifest(config: bytes, *layers: bytes, **fields: Any) -> bytes:
    """An image manifest with these blobs."""
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(config, f"{OCI}.config.v1+json"),
                       "layers": [descriptor(each, f"{OCI}.layer.v1.tar+gzip") for each in layers], **fields}).encode()


def index(*manifests: bytes, **fields: Any) -> bytes:
    """An index of these manifests."""
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX,
                       "manifests": [descriptor(each, MANIFEST) for each in manifests], **fields}).encode()

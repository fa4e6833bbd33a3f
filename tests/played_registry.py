"""A registry for tests of the client, played in this process: it answers as Docker Hub, GHCR and GitLab do, and fails
as no good registry would."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def dumps(document: Any) -> bytes:
    return json.dumps(document).encode()


def certificate(place: Path, name: str, *more: str, days: int = 2) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS with a certificate that signs itself."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", place / "key", "-out",
                    place / "crt", "-days", str(days), "-subj", f"/CN={name}", "-addext", f"subjectAltName={name}",
                    *more], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "crt", place / "key")
    return context, place / "crt"


class Server:
    """A server on a free port of loopback that answers every request by `answer(request)`; used in a `with`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def handle_one(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.body = b"" if outer.refuses_body(self) else self.rfile.read(length)
                outer.seen.append((self.command, self.path, dict(self.headers.items())))
                outer.answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

            def log_message(self, *words: Any) -> None:
                pass

            def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                if "Content_Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def refuse(self, status: int, code: str, message: str = "no", **headers: str) -> None:
                self.reply(status, dumps({"errors": [{"code": code, "message": message}]}), **headers)

        self.connections = 0
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.httpd.handle_error = lambda *_: None  # type: ignore[method-assign]  # a connection that we cut
        if tls:
            self.httpd.socket = tls.wrap_socket(self.httpd.socket, server_side=True)
        self.port = self.httpd.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"

    def refuses_body(self, request: Any) -> bool:
        return False

    def answer(self, request: Any) -> None:
        raise NotImplementedError

    def shown(self, path: str = "") -> list[str]:
        """What was shown as Authorization, in order, "" for nothing; of the requests whose path holds `path`."""
        return [headers.get("Authorization", "") for _, target, headers in self.seen if path in target]

    def __enter__(self) -> Any:
        threading.Thread(target=self.httpd.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.httpd.shutdown()
        self.httpd.server_close()


class Tokens(Server):
    """A token server. `flow`: "hub" (GET, `token`, anyone may pull), "ghcr" (GET, `token`, the password is a personal
    token), "gitlab" (GET, `token`, only with a password), "oauth" (POST with an identity token, `access_token`)."""

    def __init__(self, flow: str, users: dict[str, str]) -> None:
        super().__init__()
        self.flow, self.users = flow, users
        self.granted: dict[str, set[str]] = {}  # token -> scopes
        self.asked: list[dict[str, list[str]]] = []

    def answer(self, request: Any) -> None:
        query = parse_qs(request.body.decode() if request.command == "POST" else urlsplit(request.path).query)
        self.asked.append(query)
        user = self._user(request, query)
        if user is None or (user == "" and self.flow != "hub"):
            request.refuse(401, "UNAUTHORIZED", "incorrect username or password")
            return
        scopes = {scope for scope in query.get("scope", []) if user or "push" not in scope}
        if self.flow == "stingy":
            scopes = set()
        token = f"t{len(self.granted)}"
        self.granted[token] = scopes
        key = "access_token" if self.flow == "oauth" else "token"
        request.reply(200, dumps({key: token, "expires_in": 300}), Content_Type="application/json")

    def _user(self, request: Any, query: dict[str, list[str]]) -> str | None:
        if request.command == "POST":
            if query.get("grant_type") == ["refresh_token"] and query.get("refresh_token") == ["identity"]:
                return "identity"
            return None
        told = request.headers.get("Authorization", "")
        if not told:
            return ""
        name, _, password = base64.b64decode(told.removeprefix("Basic ")).decode().partition(":")
        return name if self.users.get(name) == password else None


class Registry(Server):
    """Blobs and manifests by their names. What it does wrong is set in its fields."""

    def __init__(self, tokens: Tokens | None = None, basic: dict[str, str] | None = None,
                 tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.tokens, self.basic = tokens, basic
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.cuts: list[int] = []            # after how many bytes of a blob, or of a chunk, the connection is cut
        self.ranges = True
        self.elsewhere: Server | None = None  # blobs are at another server
        self.later: list[dict[str, str]] = []  # so many requests are answered with 429 and these headers
        self.before: Callable[[Any], bool] = lambda request: False  # whether the request is answered already
        self.pages = 2
        self.mounts = True

    # -- what is in it ----------------------------------------------------------------------------------------------

    def add_blob(self, data: bytes) -> str:
        self.blobs[digest(data)] = data
        return digest(data)

    def add(self, name: str, tag: str, *layers: bytes, media: str = DOCKER, compress: Callable[[bytes], bytes] = (
            lambda data: gzip.compress(data, mtime=0)), **config: Any) -> str:
        """An image of these layers; the digest of its manifest."""
        packed = [compress(each) for each in layers]
        settings = {"architecture": "amd64", "os": "linux", "config": {},
                    "rootfs": {"type": "layers", "diff_ids": [digest(each) for each in layers]}, **config}
        content = dumps({
            "schemaVersion": 2, "mediaType": media,
            "config": {"mediaType": CONFIG, "digest": self.add_blob(dumps(settings)), "size": len(dumps(settings))},
            "layers": [{"mediaType": "l", "digest": self.add_blob(each), "size": len(each)} for each in packed]})
        return self.put(name, tag, content, media)

    def put(self, name: str, tag: str, content: bytes, media: str) -> str:
        self.manifests[name, tag] = self.manifests[name, digest(content)] = media, content
        return digest(content)

    # -- what it answers ----------------------------------------------------------------------------------------------

    def refuses_body(self, request: Any) -> bool:
        if request.command == "PATCH" and self.cuts:
            body = request.rfile.read(self.cuts.pop(0))
            self.uploads[request.path.rpartition("/")[2]] += body
            request.connection.close()
            request.close_connection = True
            return True
        return False

    def answer(self, request: Any) -> None:
        if request.close_connection:
            return
        path, query = urlsplit(request.path).path, parse_qs(urlsplit(request.path).query)
        if self.before(request):
            return
        if self.later:
            request.refuse(429, "TOOMANYREQUESTS", "slower", **self.later.pop(0))
            return
        words = path.removeprefix("/v2/").split("/")
        if not self._allowed(request, words):
            return
        if path == "/v2/":
            request.reply(200, b"{}")
        elif words == ["_catalog"] or words[-2:] == ["tags", "list"]:
            self._list(request, words, query)
        elif "manifests" in words:
            at = words.index("manifests")
            self._manifest(request, "/".join(words[:at]), words[at + 1])
        elif "uploads" in words:
            self._upload(request, "/".join(words[:-3]), words[-1], query)
        else:
            self._blob(request, words[-1])

    def _allowed(self, request: Any, words: list[str]) -> bool:
        told = request.headers.get("Authorization", "")
        if self.basic is not None:
            pairs = [base64.b64encode(f"{name}:{word}".encode()).decode() for name, word in self.basic.items()]
            if told.removeprefix("Basic ") not in pairs:
                request.refuse(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate='Basic realm="ours"')
                return False
        if self.tokens is not None:
            scope = ""
            if words != [""]:
                kinds = [word for word in ("manifests", "blobs", "tags") if word in words]
                name = "/".join(words[:words.index(kinds[0])]) if kinds else ""
                scope = f"repository:{name}:{'pull' if request.command in ('GET', 'HEAD') else 'pull,push'}"
            granted = self.tokens.granted.get(told.removeprefix("Bearer "))
            if granted is None or (scope and granted.isdisjoint((scope, scope.replace("pull", "pull,push")))):
                challenge = f'Bearer realm="{self.tokens.url}/token",service="registry, \\"ours\\""'
                if granted is not None:
                    request.refuse(401, "DENIED", "requested access to the resource is denied",
                                   WWW_Authenticate=f'{challenge},scope="{scope}",error="insufficient_scope"')
                else:
                    request.refuse(401, "UNAUTHORIZED", "authentication required",
                                   WWW_Authenticate=f'{challenge},scope="{scope}"')
                return False
        return True

    def _list(self, request: Any, words: list[str], query: dict[str, list[str]]) -> None:
        if words == ["_catalog"]:
            key, names = "repositories", sorted({name for name, _ in self.manifests})
        else:
            key = "tags"
            names = sorted(tag for name, tag in self.manifests if name == "/".join(words[:-2]) and ":" not in tag)
        last = query.get("last", [""])[0]
        names = [name for name in names if name > last]
        headers = {}
        if len(names) > self.pages:
            names = names[:self.pages]
            headers["Link"] = f'<{urlsplit(request.path).path}?last={names[-1]}&n={self.pages}>; rel="next"'
        request.reply(200, dumps({key: names}), **headers)

    def _manifest(self, request: Any, name: str, tag: str) -> None:
        if request.command == "PUT":
            request.reply(201, Docker_Content_Digest=self.put(name, tag, request.body, request.headers["Content-Type"]))
            return
        if (name, tag) not in self.manifests:
            request.refuse(404, "MANIFEST_UNKNOWN", "manifest unknown")
            return
        media, content = self.manifests[name, tag]
        if media not in request.headers.get("Accept", ""):
            request.refuse(404, "MANIFEST_UNKNOWN", f"it is of type {media}, which was not asked for")
            return
        request.reply(200, content, Content_Type=media, Docker_Content_Digest=digest(content))

    def _blob(self, request: Any, name: str) -> None:
        if name not in self.blobs:
            request.refuse(404, "BLOB_UNKNOWN", "blob unknown")
            return
        if self.elsewhere is not None:
            request.reply(307, Location=f"{self.elsewhere.url}/storage/{name}")
            return
        send_blob(request, self.blobs[name], self)

    def _upload(self, request: Any, name: str, upload: str, query: dict[str, list[str]]) -> None:
        if request.command == "POST":
            if self.mounts and query.get("mount", [""])[0] in self.blobs:
                request.reply(201)
                return
            upload = f"u{len(self.uploads)}"
            self.uploads[upload] = b""
            request.reply(202, Location=f"/v2/{name}/blobs/uploads/{upload}")
        elif request.command == "GET":
            request.reply(204, Range=f"0-{len(self.uploads[upload]) - 1}")
        elif request.command == "PATCH":
            first = int(request.headers["Content-Range"].partition("-")[0])
            if first != len(self.uploads[upload]):
                request.refuse(416, "RANGE_INVALID", "not there")
                return
            self.uploads[upload] += request.body
            request.reply(202, Location=f"/v2/{name}/blobs/uploads/{upload}")
        else:
            whole = self.uploads[upload] + request.body
            if digest(whole) != query["digest"][0]:
                request.refuse(400, "DIGEST_INVALID", "it has another digest")
                return
            self.add_blob(whole)
            request.reply(201)


class Storage(Server):
    """Where the blobs of another server are; it needs and must see no credentials."""

    def __init__(self, of: Registry) -> None:
        super().__init__()
        self.of = of

    def answer(self, request: Any) -> None:
        send_blob(request, self.of.blobs[request.path.rpartition("/")[2]], self.of)


def send_blob(request: Any, data: bytes, faults: Registry) -> None:
    """A blob, or the range of it that is asked for; cut off where the faults say."""
    start = 0
    if faults.ranges and (asked := request.headers.get("Range")):
        start = int(asked.removeprefix("bytes=").partition("-")[0])
    rest = data[start:]
    headers = {"Content_Length": str(len(rest))}
    if start:
        headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    if not faults.cuts or request.command == "HEAD":
        request.reply(206 if start else 200, rest, **headers)
        return
    request.reply(206 if start else 200, rest[:faults.cuts.pop(0)], **headers)
    request.wfile.flush()
    time.sleep(0.01)
    request.close_connection = True
    request.connection.close()

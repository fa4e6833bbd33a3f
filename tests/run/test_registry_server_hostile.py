"""What strangers send to our registry: paths that want out, requests that mean two things, bodies without an end, and
clients that stay or go. Bytes are written to sockets by hand, since no honest client sends them.
"""

from __future__ import annotations

import hashlib
import os
import re
import resource
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry_server import Registry, digest

pytestmark = pytest.mark.caged


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry with one image, a/b:v1; afterwards nothing lies beside it, and it still works."""
    place = tmp_path / "place"
    place.mkdir()
    with Registry(place / "registry", "--delete") as served:
        data, _ = served.push("a/b", "v1")
        yield served
        assert served("GET", "/v2/a/b/manifests/v1").body == data
        assert {path.name for path in place.iterdir()} == {"registry"}
        for path in (place / "registry").rglob("*"):
            assert not path.is_symlink()
        assert {path.name for path in (place / "registry").iterdir()} == {"blobs", "repositories", "serving"}
    assert "Traceback" not in served.log and "mistake" not in served.log


def raw(registry: Registry, data: bytes, seconds: float = 10.0) -> bytes:
    """Send bytes on a connection and read until the other side ends it."""
    with socket.create_connection(("127.0.0.1", registry.port)) as connection:
        connection.settimeout(seconds)
        connection.sendall(data)
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            pass
        return received


def request(method: str, target: str, *headers: str, body: bytes = b"") -> bytes:
    """The bytes of a request that is the connection's last one."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def statuses(received: bytes) -> list[int]:
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d+)", received)]


@pytest.mark.parametrize("target", [
    "/v2/../../etc/passwd", "/v2/a/../b/manifests/v1", "/v2/%2e%2e/%2e%2e/manifests/v1", "/v2/./a/manifests/v1",
    "/v2/a%2f..%2fb/manifests/v1", "/v2//manifests/v1", "/v2/a//b/manifests/v1", "/v2/a/b/manifests/../v1",
    "/v2/a/b/manifests/%2e%2e", "/v2/a/b/manifests/..%2f..%2findex.json", "/v2/a/b/manifests/v1/",
    "/v2/a/b/blobs/sha256:..%2f..%2findex.json", "/v2/a/b/blobs/..", "/v2/a/b/blobs/sha256%3a../index.json",
    "/v2/a/b/blobs/uploads/..", "/v2/a/b/blobs/uploads/..%2f..%2findex.json", "/v2/A/b/manifests/v1",
    "/v2/a+b/manifests/v1", "/v2/a%00b/manifests/v1", "/v2/a/b%0d%0ax/tags/list", "/v2/a/b/manifests/v1%00",
    "/v2/" + "a" * 256 + "/manifests/v1", "/v2/a/b/manifests/" + "t" * 200, "http://elsewhere/v2/a/../v1",
    "ftp://elsewhere/v2/", "//v2/a/b/manifests/v1", "*",
    "/", "/v2/_catalog/x", "/v3/", "/v2/a/b/tags/list/../list", "/v2/%ff%fe/manifests/v1", "/v2/-a/tags/list",
    "/v2/a/b/manifests/\xe9", "/v2/a;x/manifests/v1", "/v2/a/b/referrers/..", "/v2/a__-b/manifests/v1",
    "/v2/a/b/manifests/sha256:" + "A" * 64, "/v2/%252e%252e/manifests/v1",
])
def test_no_path_leads_out(registry: Registry, target: str) -> None:
    """Names and digests have the specification's grammar, or there is nothing."""
    for method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"):
        received = raw(registry, request(method, target, "Content-Length: 2", body=b"{}"))
        found = statuses(received)
        assert len(found) == 1 and found[0] in (400, 404, 405), (method, received[:200])
        assert (b'"errors"' in received) == (method != "HEAD")
        assert received.endswith(b"\r\n\r\n") == (method == "HEAD")


@pytest.mark.parametrize("query", ["digest=sha256:..%2f..%2fx", "mount=..%2f..&from=a/b", "mount=x&from=..%2fa",
                                   "digest=sha256:" + "a" * 63, "digest=", "digest=sha256%00", "mount=&from="])
def test_no_query_leads_out(registry: Registry, query: str) -> None:
    """The same rules for what comes after the question mark."""
    reply = registry("POST", f"/v2/a/b/blobs/uploads/?{query}", b"data")
    assert reply.status == 400 and reply.code in ("DIGEST_INVALID", "NAME_INVALID"), reply.body


@pytest.mark.parametrize("headers", [
    ("Content-Length: 5", "Content-Length: 6"), ("Content-Length: -1",),
    ("Content-Length: 5", "Transfer-Encoding: chunked"),
    ("Content-Length: 0x5",), ("Content-Length: 5, 5",), ("Content-Length: " + "9" * 40,), ("Transfer-Encoding: gzip",),
    ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), ("Transfer-Encoding: identity, chunked",),
    ("Content-Length: +5",), ("Content-Length: \u00b2",), ("Content-Length:",),
])
def test_a_body_with_two_lengths_or_none(registry: Registry, headers: tuple[str, ...]) -> None:
    """RFC 9112, 6.3: 400 and the connection ends, so that nothing is taken for a second request."""
    smuggled = b"GET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n"
    head = "\r\n".join(["POST /v2/a/b/blobs/uploads/ HTTP/1.1", "Host: x", *headers]).encode("latin-1")
    received = raw(registry, head + b"\r\n\r\n" + smuggled)
    assert statuses(received) == [400], received
    assert b"repositories" not in received


HIDDEN = "GET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("headers", [
    "Content-Length : 50", "foo\r\nContent-Length: 50", "X: y\r\n Content-Length: 50", " Content-Length: 50",
    "Transfer-Encoding:\r\n chunked", "X: y\rContent-Length: 50", "X: a\0b", "X\0: ab", "X(y): z", ": x", "Host: y",
    "X: " + "y" * 66_000, "\r\n".join(["X: y"] * 101),
])
def test_a_head_that_can_be_read_in_two_ways(registry: Registry, headers: str) -> None:
    """RFC 9112, 5 and 3.2: a header is NAME: VALUE on one line, Host is there once; else it is refused, with all that
    comes behind it."""
    head = f"POST /v2/a/b/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n"
    received = raw(registry, (head + HIDDEN).encode("latin-1"))
    assert statuses(received) in ([400], [431]) and b"repositories" not in received


@pytest.mark.parametrize(("request_line", "headers", "status", "stays"), [
    ("GET /v2/ HTTP/1.1", "Host: x", 200, True), ("GET /v2/ HTTP/1.1", "Host: x\r\nConnection: TE, Close", 200, False),
    ("GET /v2/ HTTP/1.0", "", 200, False), ("GET /v2/ HTTP/1.0", "Connection: Keep-Alive", 200, True),
    ("GET /v2/ HTTP/1.2", "Host: x", 200, True), ("GET /v2/ HTTP/2.0", "Host: x", 505, False),
    ("GET /v2/ HTTP/1.1", "", 400, False), ("GET /v2/", "", 400, False), ("GET  /v2/ HTTP/1.1", "Host: x", 400, False),
    ("GET http://elsewhere:5000/v2/ HTTP/1.1", "Host: x", 200, True), ("BREW /v2/ HTTP/1.1", "Host: x", 501, False),
    ("OPTIONS /v2/ HTTP/1.1", "Host: x", 405, True), ("\r\nGET /v2/ HTTP/1.1", "Host: x", 200, True),
])
def test_what_a_head_says_of_the_connection(registry: Registry, request_line: str, headers: str, status: int,
                                            stays: bool) -> None:
    """RFC 9112, 9.3: HTTP/1.1 goes on unless somebody says close, HTTP/1.0 only where it is asked for."""
    with socket.create_connection(("127.0.0.1", registry.port)) as connection:
        connection.settimeout(5)
        connection.sendall("\r\n".join(filter(None, [request_line, headers, "\r\n"])).encode())
        answer = connection.recv(65536)
        assert statuses(answer) == [status]
        assert (b"Connection: close" in answer) != stays
        if stays:
            connection.sendall(request("GET", "/v2/"))
            assert statuses(connection.recv(65536)) == [200]
        assert connection.recv(10) == b""


@pytest.mark.parametrize("body", [
    b"zz\r\nhello\r\n0\r\n\r\n", b"\r\n\r\n", b"-5\r\nhello\r\n", b"5\r\nhelloXX\r\n0\r\n\r\n",
    b"ffffffffffffffffff\r\n",
    b"5" + b";x" * 5000 + b"\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n",
    b"5 5\r\nhello\r\n0\r\n\r\n",
])
def test_broken_chunks(registry: Registry, body: bytes) -> None:
    """RFC 9112, 7.1: refused, and the connection ends."""
    at = registry("POST", "/v2/a/b/blobs/uploads/")["Location"]
    head = f"PATCH {at} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert statuses(raw(registry, head + body)) == [400]
    assert registry("GET", at).status == 204  # the upload is there still


def test_chunks_with_extensions_and_trailers_are_read(registry: Registry) -> None:
    """RFC 9112, 7.1.1, 7.1.2: they are allowed, and mean nothing here; the next request is found."""
    at = registry("POST", "/v2/a/b/blobs/uploads/")["Location"]
    head = f"PATCH {at} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    body = b"5;name=value\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"
    received = raw(registry, head + body + request("GET", at))
    assert statuses(received) == [202, 204] and received.count(b"Range: 0-4") == 2


def test_a_refusal_comes_before_the_body(registry: Registry) -> None:
    """Expect: 100-continue: the body is asked for only where it is wanted (RFC 9110, 10.1.1)."""
    at = registry("POST", "/v2/a/b/blobs/uploads/")["Location"]
    with socket.create_connection(("127.0.0.1", registry.port)) as connection:
        connection.settimeout(5)
        wants = "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        connection.sendall(f"PATCH {at} HTTP/1.1\r\nHost: x\r\n{wants}".encode())
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert b"202 Accepted" in connection.recv(1000)
    with socket.create_connection(("127.0.0.1", registry.port)) as connection:
        connection.settimeout(5)
        connection.sendall(f"PATCH {at}0 HTTP/1.1\r\nHost: x\r\n{wants}".encode())
        assert statuses(connection.recv(1000)) == [404]
        assert connection.recv(1000) == b""


def test_a_large_body_that_nobody_wants(registry: Registry) -> None:
    """The refusal arrives although the client is still sending; and is not read to its end."""
    length = 1 << 30
    with socket.create_connection(("127.0.0.1", registry.port)) as connection:
        connection.settimeout(10)
        head = f"PUT /v2/a/b/manifests/v2 HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode())
        sent = 0
        try:
            while sent < length:
                sent += connection.send(b"x" * (1 << 20))
        except (ConnectionError, TimeoutError):
            pass
        assert sent < 100 << 20
        received = b""
        try:
            received = connection.recv(1000)
        except ConnectionError:
            pass
        assert statuses(received) in ([413], [])


def test_requests_in_one_go_and_in_small_pieces(registry: Registry) -> None:
    """Keep-alive and pipelining: each is answered, in order; a head may come byte by byte."""
    three = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + request("GET", "/v2/none/tags/list")
    assert statuses(raw(registry, three)) == [200, 200, 404]
    with socket.create_connection(("127.0.0.1", registry.port)) as connection:
        for byte in request("GET", "/v2/"):
            connection.sendall(bytes([byte]))
            time.sleep(0.001)
        assert statuses(connection.recv(1000)) == [200]


@pytest.mark.parametrize("junk", [
    b"\0" * 1000, b"\r\n" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\xff\x00 \x7f" * 500 + b"\n\n",
    b"GET /v2/ HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"TRACE /v2/ HTTP/1.1\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
])
def test_junk(registry: Registry, junk: bytes) -> None:
    """What is no request gets a refusal or nothing, and the next client is served."""
    with socket.create_connection(("127.0.0.1", registry.port)) as connection:
        connection.settimeout(10)
        connection.sendall(junk)
        connection.shutdown(socket.SHUT_WR)
        try:
            received = connection.recv(65536)
        except ConnectionResetError:
            received = b""
        assert b" 200 " not in received.partition(b"\n")[0]
    assert registry("GET", "/v2/").status == 200


def test_a_client_that_tries_tls_hears_that_there_is_none(registry: Registry) -> None:
    """Docker's client goes on without TLS, where it may, when the answer begins as HTTP does."""
    answer = raw(registry, b"\x16\x03\x01\x02\x00\x01\x00\n")
    assert answer.startswith(b"HTTP/1.1 400 ") and b"served without TLS" in answer
    deadline = time.monotonic() + 5  # the line comes after the answer
    while "- - (TLS handshake) 400" not in registry.log and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "- - (TLS handshake) 400" in registry.log


@pytest.mark.parametrize("cut", [0, 1, 1000, 65_536, 262_144, 299_999])
def test_an_upload_cut_off_goes_on(registry: Registry, cut: int) -> None:
    """The connection ends within the body: what has arrived counts, and the rest completes it."""
    data = os.urandom(300_000)
    at = registry("POST", "/v2/a/b/blobs/uploads/")["Location"]
    with socket.create_connection(("127.0.0.1", registry.port)) as connection:
        connection.sendall(f"PATCH {at} HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n".encode() + data[:cut])
    deadline = time.monotonic() + 5
    expected = f"0-{max(cut - 1, 0)}"
    while registry("GET", at)["Range"] != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    assert registry("GET", at)["Range"] == expected
    reply = registry("PATCH", at, data[cut:], Content_Range=f"{cut}-299999")
    while reply.status == 409 and time.monotonic() < deadline:  # the other connection has not noticed its end yet
        time.sleep(0.02)
        reply = registry("PATCH", at, data[cut:], Content_Range=f"{cut}-299999")
    assert reply.status == 202
    assert registry("PUT", f"{at}?digest={digest(data)}").status == 201
    assert registry("GET", f"/v2/a/b/blobs/{digest(data)}").body == data


@pytest.mark.parametrize("read", [0, 1, 100_000])
def test_a_download_cut_off_goes_on(registry: Registry, read: int) -> None:
    """A client that goes away within a blob costs nothing, and comes back for the rest."""
    data = os.urandom(8 << 20)
    name = registry.push_blob("a/b", data)
    with socket.create_connection(("127.0.0.1", registry.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
        connection.sendall(request("GET", f"/v2/a/b/blobs/{name}"))
        while read > 0:
            read -= len(connection.recv(read))
    assert registry("GET", f"/v2/a/b/blobs/{name}", Range="bytes=100000-").body == data[100_000:]


def test_what_is_broken_on_the_disk_is_told_to_the_operator(registry: Registry) -> None:
    """An index.json that somebody has broken: 500 without a path, a line in the log, and the others are served."""
    registry.push("other", "v1")
    path = registry.root / "repositories/other/index.json"
    for broken in ("{", "[]", '{"manifests": 7}', '{"manifests": [{}]}'):
        path.write_text(broken)
        reply = registry("GET", "/v2/other/manifests/v1")
        assert (reply.status, reply.code) == (500, "UNKNOWN") and str(registry.root) not in reply.body.decode()
        assert registry("GET", "/v2/a/b/manifests/v1").status == 200
    assert "failed: " in registry.log
    path.unlink()


def test_one_writer_for_an_upload(registry: Registry) -> None:
    """While one connection sends, another is refused with 409; afterwards it may."""
    at = registry("POST", "/v2/a/b/blobs/uploads/")["Location"]
    with socket.create_connection(("127.0.0.1", registry.port)) as first:
        first.sendall(f"PATCH {at} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab".encode())
        time.sleep(0.3)
        for method, query in (("PATCH", ""), ("PUT", f"?digest={digest(b'abxy')}"), ("DELETE", "")):
            reply = registry(method, at + query, b"xy")
            assert (reply.status, reply.code) == (409, "BLOB_UPLOAD_INVALID")
        assert registry("GET", at)["Range"] == "0-1"
        first.sendall(b"cd")
        assert b"202" in first.recv(1000)
    assert registry("PUT", f"{at}?digest={digest(b'abcd')}").status == 201


def test_an_upload_belongs_to_its_repository(registry: Registry) -> None:
    """The id of another repository's upload is unknown here."""
    at = registry("POST", "/v2/a/b/blobs/uploads/")["Location"]
    elsewhere = at.replace("/a/b/", "/a/c/")
    for method in ("GET", "PATCH", "DELETE"):
        assert registry(method, elsewhere, b"x").code == "BLOB_UPLOAD_UNKNOWN"
    assert registry("PUT", f"{elsewhere}?digest={digest(b'')}").code == "BLOB_UPLOAD_UNKNOWN"
    assert registry("GET", at).status == 204


@pytest.mark.limit(120)
def test_many_idle_clients_leave_room(registry: Registry) -> None:
    """Where more are open than are served at once, those that ask nothing give way to one that does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    idle = [socket.create_connection(("127.0.0.1", registry.port)) for _ in range(150)]
    assert registry("GET", "/v2/").status == 200
    idle += [socket.create_connection(("127.0.0.1", registry.port)) for _ in range(150)]
    assert registry("GET", "/v2/").status == 200
    for connection in idle:
        connection.close()


@pytest.mark.limit(120)
def test_clients_that_never_greet_leave_room(tmp_path: Path) -> None:
    """With TLS: who connects and does not begin the handshake is at rest too, and gives way."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
                    "-days", "2", "-subj", "/CN=localhost"], check=True, capture_output=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with Registry(tmp_path / "registry", "--tls-cert", str(cert), "--tls-key", str(key)) as registry:
        silent = [socket.create_connection(("127.0.0.1", registry.port)) for _ in range(250)]
        context = ssl.create_default_context(cafile=str(cert))
        with socket.create_connection(("127.0.0.1", registry.port), timeout=20) as plain, \
                context.wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(request("GET", "/v2/"))
            assert statuses(connection.recv(1000)) == [200]
        for each in silent:
            each.close()


@pytest.mark.parametrize("slow", ["head", "body", "nothing"])
def test_a_client_that_drips_is_given_up(slow: str) -> None:
    """A byte now and then keeps no connection for ever; the limits are made small here, so that it shows."""
    import tempfile

    from minirt.registry import body, serve
    from minirt.registry.storage import Storage

    serve.SILENCE, body.SILENCE, body.SLOWEST = 1.0, 1.0, 1 << 20  # in this cage alone
    with tempfile.TemporaryDirectory() as place:
        listener = serve.Listener(("127.0.0.1", 0), Storage(place), serve.Settings(quiet=True))
        thread = threading.Thread(target=listener.run)
        thread.start()
        begin = time.monotonic()
        with socket.create_connection(listener.address) as connection:
            if slow == "body":
                connection.sendall(b"POST /v2/a/blobs/uploads/?digest=sha256:%s HTTP/1.1\r\nHost: x\r\n"
                                   b"Content-Length: 1000000\r\n\r\n" % (b"0" * 64))
            try:
                while time.monotonic() - begin < 8:
                    if slow != "nothing":
                        connection.sendall(b"x")
                    connection.settimeout(0.2)
                    try:
                        if connection.recv(1000) == b"":
                            break
                    except TimeoutError:
                        pass
            except ConnectionError:
                pass
        assert time.monotonic() - begin < 6
        listener.stop()
        thread.join(10)
        assert not thread.is_alive()


def peak(registry: Registry) -> int:
    """The largest memory that the registry has had, in KiB."""
    status = Path(f"/proc/{registry.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]


@pytest.mark.limit(120)
@pytest.mark.on_disk
def test_memory_does_not_grow_with_a_blob(registry: Registry) -> None:
    """A blob of 400 MB goes in and out through less than 60 MiB."""
    piece, times = os.urandom(1 << 20), 400
    whole = hashlib.sha256()
    for _ in range(times):
        whole.update(piece)
    name = f"sha256:{whole.hexdigest()}"
    at = registry("POST", "/v2/a/b/blobs/uploads/")["Location"]
    assert registry("PATCH", at, (piece for _ in range(times))).status == 202
    assert registry("PUT", f"{at}?digest={name}").status == 201
    with socket.create_connection(("127.0.0.1", registry.port)) as connection:
        connection.sendall(request("GET", f"/v2/a/b/blobs/{name}"))
        count = 0
        while received := connection.recv(1 << 20):
            count += len(received)
        assert count > times << 20
    assert peak(registry) < 60 << 10


@pytest.mark.limit(120)
def test_memory_does_not_grow_with_manifests(registry: Registry) -> None:
    """Many clients that send the largest manifests at once, made to be costly to read: below 100 MiB too."""
    body = b'{"x":[' + b"[]," * ((4 << 20) // 3 - 10) + b"[]]}"
    threads = [threading.Thread(target=registry.put, args=("a/b", f"t{number}", body)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert peak(registry) < 100 << 10
    assert registry("GET", "/v2/").status == 200

"""What a registry may say that is broken, hostile or no image: a sentence each time, and nothing left in the store."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minirt.errors import MinirtError
from minirt.images import reference
from minirt.registry import hosts, patience, pull, transfer
from minirt.registry.client import RegistryError
from minirt.registry.patience import Patient
from minirt.registry.progress import Progress
from tests import played_registry as played
from tests.images import entry, layer

pytestmark = [pytest.mark.caged, pytest.mark.leaves("the store itself")]

LAYER = layer(entry("etc/motd", content=b"hello\n"), entry("noise", content=bytes(100_000)))
NULLS = "sha256:" + "0" * 64
EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": played.digest(b"{}"), "size": 2}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[played.Registry]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with played.Registry() as registry:
        registry.add("tool", "1", LAYER)
        yield registry


def left(state_root: Path) -> list[str]:
    """What a refused pull has left: an image, a blob, a layer, or what was to become one."""
    found = [path for place in ("images/blobs/sha256", "pending", "partial") for path in (state_root / place).glob("*")]
    found += [path for path in (state_root / "layers").glob("*") if path.name != "l"]
    index = state_root / "images/index.json"
    return [str(path) for path in found] + (json.loads(index.read_text())["manifests"] if index.exists() else [])


def refused(registry: played.Registry, state_root: Path, name: str = "tool:1", platform: str = "") -> str:
    """The sentence with which a pull ends."""
    with pytest.raises(MinirtError) as error:
        transfer.pull_image(reference.parse(f"{registry.host}/{name}"), platform, Progress(quiet=True))
    assert error.value.exit_code == 1 and "\n" not in str(error.value)
    assert left(state_root) == []
    return str(error.value)


def answering(registry: played.Registry, part: str, answer: Callable[[Any], None]) -> None:
    """Answer the requests whose path holds `part` in this way instead."""
    def before(request: Any) -> bool:
        if part in request.path:
            answer(request)
            return True
        return False

    registry.before = before


# -- what is no image --------------------------------------------------------------------------------------------------

def image(**fields: Any) -> dict[str, Any]:
    config = {"mediaType": played.CONFIG, "digest": NULLS, "size": 3}
    return {"schemaVersion": 2, "mediaType": played.OCI, "config": config, "layers": [], **fields}


WEIRD = {"digest": NULLS, "size": 1, "platform": {"os": "linux", "architecture": "amd64"}}


@pytest.mark.parametrize(("document", "sentence"), [
    (image(config=EMPTY), 'Encountered remote "application/vnd.oci.empty.v1+json"(unknown) when fetching'),
    (image(config={**EMPTY, "mediaType": "application/vnd.cncf.helm.config.v1+json"}), "helm.config.v1+json"),
    (image(config={**EMPTY, "mediaType": "application/vnd.docker.plugin.v1+json"}), "(plugin) when fetching"),
    ({"schemaVersion": 2, "mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": []}, "unknown"),
    ({"schemaVersion": 2, "blobs": []}, "is no manifest"),
    ({"schemaVersion": 1, "name": "tool", "tag": "1", "fsLayers": [{"blobSum": NULLS}], "history": []}, "schema 1"),
    ({"schemaVersion": 2, "manifests": [{**WEIRD, "platform": {"os": "windows", "architecture": "amd64"}}]},
     "no matching manifest for linux/amd64 in the manifest list entries"),
    ({"schemaVersion": 2, "manifests": [{**WEIRD, "platform": "linux/amd64"}]}, "no index of images"),
    ({"schemaVersion": 2, "manifests": [{**WEIRD, "annotations": 7}]}, "no index of images"),
    ({"schemaVersion": 2, "manifests": 7}, "no index of images"),
    ({"schemaVersion": 2, "manifests": [WEIRD]}, "manifest unknown"),
    (image(layers=7), "is no manifest of an image"),
    (image(layers={"digest": NULLS}), "is no manifest of an image"),
    (image(layers=[{"digest": NULLS, "size": "1"}]), "is no manifest of an image"),
    (image(layers=[{"digest": NULLS, "size": 1 << 70}]), "layers, but its configuration|blob unknown|not found"),
    (image(layers=[{"digest": "sha512:" + "0" * 128, "size": 1}]), "only sha256 is supported"),
    (image(config={"mediaType": played.CONFIG, "digest": "sha256:" + "0" * 63, "size": 1}), "digest"),
], ids=lambda value: None if isinstance(value, str) else "")
def test_what_is_no_image_is_refused(registry: played.Registry, state_root: Path, document: Any, sentence: str) -> None:
    registry.add_blob(b"{}")
    registry.put("tool", "1", played.dumps(document), document.get("mediaType", played.OCI))
    said = refused(registry, state_root)
    assert any(each in said for each in sentence.split("|")), said


@pytest.mark.parametrize("config", [
    b"", b"null", b"[]", b'"x"', b"{", b"[" * 100_000, b'{"rootfs": 7}', b'{"rootfs": {"diff_ids": [7]}}',
    b'{"rootfs": {"diff_ids": "x"}}', b'{"rootfs": {"diff_ids": []}}', b'{"os": 7, "rootfs": {"diff_ids": []}}',
    b'{"architecture": 7, "rootfs": {"diff_ids": ["sha256:%s"]}}' % (b"0" * 64),
    b'{"config": 7, "rootfs": {"diff_ids": []}}', b'{"os": "windows", "rootfs": {"diff_ids": []}}', b"\xff",
])
def test_a_configuration_that_is_none_is_refused(registry: played.Registry, state_root: Path, config: bytes) -> None:
    document = json.loads(registry.manifests["tool", "1"][1])
    document["config"].update(digest=registry.add_blob(config), size=len(config))
    registry.put("tool", "1", played.dumps(document), played.DOCKER)
    assert refused(registry, state_root)


def test_indexes_in_indexes_are_followed_but_not_for_ever(registry: played.Registry, state_root: Path) -> None:
    inner = json.loads(registry.manifests["tool", "1"][1])
    for _ in range(2):
        content = played.dumps({"schemaVersion": 2, "manifests": [{
            "digest": registry.put("tool", "in", played.dumps(inner), played.DOCKER), "size": 1}]})
        inner = json.loads(content)
    registry.put("tool", "2", content, played.INDEX)
    assert pull.find(Patient(registry.url), "tool", "2").layers
    for _ in range(4):
        content = played.dumps({"schemaVersion": 2, "manifests": [{
            "digest": registry.put("tool", "in", content, played.INDEX), "size": 1}]})
    registry.put("tool", "3", content, played.INDEX)
    assert "nested too deeply" in refused(registry, state_root, "tool:3")


def test_a_layer_that_lies_elsewhere_is_not_fetched_from_there(registry: played.Registry, state_root: Path) -> None:
    with played.Registry() as elsewhere:
        document = json.loads(registry.manifests["tool", "1"][1])
        gone = document["layers"][0]
        gone |= {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                 "urls": [f"{elsewhere.url}/v2/x/blobs/{gone['digest']}"]}
        elsewhere.blobs[gone["digest"]] = registry.blobs.pop(gone["digest"])
        registry.put("tool", "1", played.dumps(document), played.DOCKER)
        assert "it is told to lie elsewhere" in refused(registry, state_root)
        assert not elsewhere.seen


# -- digests -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("told", "sentence"), [
    ("", ""), ("{0}, {0}", ""), ("sha512:" + "0" * 128, ""), ("nonsense", ""), (NULLS, "should have the digest"),
])
def test_the_header_with_the_digest(registry: played.Registry, state_root: Path, told: str, sentence: str) -> None:
    media, content = registry.manifests["tool", "1"]
    more = {"Docker_Content_Digest": told.format(played.digest(content))} if told else {}
    answering(registry, "/manifests/", lambda request: request.reply(200, content, Content_Type=media, **more))
    if sentence:
        assert sentence in refused(registry, state_root)
    else:
        name = reference.parse(f"{registry.host}/tool:1")
        assert transfer.pull_image(name, "", Progress(quiet=True)).digest == played.digest(content)


def test_another_digest_than_was_asked_for_is_never_taken(registry: played.Registry, state_root: Path) -> None:
    media, content = registry.manifests["tool", "1"]
    for wanted in (NULLS, "sha512:" + "0" * 128):
        answering(registry, "/manifests/", lambda request: request.reply(
            200, content, Content_Type=media, Docker_Content_Digest=wanted))  # noqa: B023
        assert "should have the digest" in refused(registry, state_root, f"tool@{wanted}")


def test_a_tag_that_moves_while_it_is_pulled_gives_one_image_or_the_other(registry: played.Registry, state_root: Path,
                                                                         ) -> None:
    old = registry.manifests["tool", "1"]

    def answer(request: Any) -> None:
        media, content = old if request.command == "HEAD" else new
        request.reply(200, content, Content_Type=media, Docker_Content_Digest=played.digest(content))

    registry.add("tool", "1", LAYER, layer(entry("new", content=b"x")))
    new = registry.manifests["tool", "1"]
    answering(registry, "/manifests/", answer)
    done = transfer.pull_image(reference.parse(f"{registry.host}/tool:1"), "", Progress(quiet=True))
    assert done.digest == played.digest(new[1]) and done.fresh


def test_a_layer_that_is_called_encoded_is_taken_as_it_is_stored(registry: played.Registry, state_root: Path) -> None:
    [stored] = json.loads(registry.manifests["tool", "1"][1])["layers"]
    answering(registry, stored["digest"], lambda request: request.reply(
        200, registry.blobs[stored["digest"]], Content_Encoding="gzip"))
    assert transfer.pull_image(reference.parse(f"{registry.host}/tool:1"), "", Progress(quiet=True)).fresh


# -- too much, and never enough ----------------------------------------------------------------------------------------

def endless(request: Any) -> None:
    request.send_response(200)
    request.send_header("Content-Type", played.OCI)
    request.end_headers()
    try:
        while True:
            request.wfile.write(bytes(1 << 16))
    except OSError:
        request.close_connection = True


def test_a_manifest_without_end(registry: played.Registry, state_root: Path) -> None:
    answering(registry, "/manifests/", endless)
    assert "answers with more than 4194304 bytes" in refused(registry, state_root)


def test_of_a_blob_without_end_no_more_is_read_than_was_announced(registry: played.Registry, state_root: Path) -> None:
    answering(registry, json.loads(registry.manifests["tool", "1"][1])["layers"][0]["digest"], endless)
    assert refused(registry, state_root)


@pytest.mark.parametrize(("location", "sentence"), [
    ("http://[::1", "no web address"), ("http://127.0.0.1:99999999/", "no web address"), ("", "from one address to"),
    ("ftp://127.0.0.1/x", "no web address"), ("file:///etc/passwd", "no web address"),
    ("http://127.0.0.1:1/x", "connection refused"),
])
def test_a_redirect_to_nowhere(registry: played.Registry, state_root: Path, monkeypatch: pytest.MonkeyPatch,
                               location: str, sentence: str) -> None:
    monkeypatch.setattr(pull, "pause", lambda number: None)
    answering(registry, "/blobs/", lambda request: request.reply(307, Location=location))
    assert sentence in refused(registry, state_root)


@pytest.mark.parametrize("header", ["Bearer", "Bearer realm", '"', "Bearer realm=\"http://[::1\"", ", ,,", "Digest a=b",
                                    "Bearer realm=http://127.0.0.1:1/token", "\xe9 \xff=\xfe"])
def test_a_challenge_that_nobody_understands(registry: played.Registry, state_root: Path, header: str) -> None:
    answering(registry, "/v2/", lambda request: request.refuse(401, "UNAUTHORIZED", WWW_Authenticate=header))
    assert refused(registry, state_root)


@pytest.mark.parametrize("body", [
    b"<!DOCTYPE html><html>Sign in", b"[]", b'{"token": 7}', b'{"token": "a\\nb"}', '{"token": "\xe9"}'.encode(), b"{}",
    b'{"token": ""}', b"[" * 200_000, b"x" * (2 << 20),
])
def test_a_token_server_that_gives_none(registry: played.Registry, state_root: Path, body: bytes) -> None:
    def answer(request: Any) -> None:
        if "/token" in request.path:
            request.reply(200, body, Content_Type="text/html")
        else:
            request.refuse(401, "UNAUTHORIZED", WWW_Authenticate=f'Bearer realm="{registry.url}/token"')

    answering(registry, "/", answer)
    said = refused(registry, state_root)
    assert "gives no token" in said or "answers with more than" in said


@pytest.mark.parametrize("ends", [b"NaN", b"-1", b"1e999", b'"soon"', b"null"])
def test_a_token_holds_for_a_while_whatever_is_said(registry: played.Registry, ends: bytes) -> None:
    def before(request: Any) -> bool:
        if "/token" in request.path:
            request.reply(200, b'{"token": "t", "expires_in": %s}' % ends)
        elif request.headers.get("Authorization") != "Bearer t":
            request.refuse(401, "UNAUTHORIZED", WWW_Authenticate=f'Bearer realm="{registry.url}/token"')
        else:
            return False
        return True

    registry.before = before
    ours = Patient(registry.url)
    assert pull.read_config(ours, pull.find(ours, "tool", "1"))
    assert len([path for _, path, _ in registry.seen if "/token" in path]) == 1


@pytest.mark.parametrize("later", ["-5", "soon", "9" * 500, "Wed, 21 Oct 2015 07:28:00 GMT", "\xb2", ""])
def test_no_server_makes_us_wait_for_more_than_a_minute(registry: played.Registry, later: str) -> None:
    waits: list[float] = []
    registry.later = [{"Retry_After": later}]
    Patient(registry.url, pause=waits.append).ping()
    assert len(waits) == 1 and 0 < waits[0] <= 60


# -- patience ----------------------------------------------------------------------------------------------------------

def test_a_download_that_drips_is_cut_taken_up_and_given_up(registry: played.Registry, state_root: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WINDOW", 0.2)
    large = json.loads(registry.manifests["tool", "1"][1])["layers"][0]["digest"]
    asked: list[str] = []

    def drip(request: Any) -> None:
        asked.append(request.headers.get("Range", ""))
        data = registry.blobs[large][int(asked[-1].removeprefix("bytes=").rstrip("-") or 0):]
        request.reply(206, b"", Content_Length=str(len(data)))
        try:
            for place in range(len(data)):
                request.wfile.write(data[place:place + 1])
                time.sleep(0.05)
        except OSError:
            request.close_connection = True

    answering(registry, large, drip)
    ours = Patient(registry.url)
    came = []
    with pytest.raises(RegistryError, match="is too slow"):
        for piece in pull.fetch(ours, "tool", {"digest": large, "size": len(registry.blobs[large])}):
            came.append(piece)
    data = b"".join(came)
    assert data and data == registry.blobs[large][:len(data)], "taken up where it was, each time"
    assert len(asked) == patience.TRIES + 1 and asked[0] == "" and len(set(asked)) == len(asked)


def test_a_download_that_is_only_slow_is_waited_for(registry: played.Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WINDOW", 0.05)
    monkeypatch.setattr(patience, "LEAST", 100)
    large = json.loads(registry.manifests["tool", "1"][1])["layers"][0]["digest"]
    data = registry.blobs[large] = bytes(20 << 10)

    def slow(request: Any) -> None:
        request.reply(200, b"", Content_Length=str(len(data)))
        for place in range(0, len(data), 2 << 10):
            request.wfile.write(data[place:place + (2 << 10)])
            time.sleep(0.06)

    answering(registry, large, slow)
    assert b"".join(pull.fetch(Patient(registry.url), "tool", {"digest": large, "size": len(data)})) == data
    assert len([path for _, path, _ in registry.seen if large in path]) == 1


def test_who_takes_the_connection_and_says_nothing_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patient, "timeout", (10, 0.2))
    monkeypatch.setattr(hosts, "HANDSHAKE", 0.2)
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Thread(target=lambda: taken.extend(silent.accept()[0] for _ in range(2)), daemon=True).start()
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(RegistryError, match=f"{host} does not answer in time"):
            hosts.connect(host).ping()
        assert time.monotonic() - began < 5
    for each in taken:
        each.close()


def test_a_registry_with_tls_on_this_machine_is_connected_to_once(tmp_path: Path) -> None:
    tls, _ = played.certificate(tmp_path, "IP:127.0.0.1")
    with played.Registry(tls=tls) as registry:
        ours = hosts.connect(registry.host)
        assert ours.base == registry.url
        ours.ping()
        assert registry.connections == 1 and len(registry.seen) == 2

"""The client of registries: who is asked what, what is shown to whom, and what happens when things go wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from minirt.errors import BadInputError, MinirtError
from minirt.registry import auth, client, listing, pull, push
from minirt.registry.auth import Challenge, Credentials
from minirt.registry.client import Registry, RegistryError
from minirt.registry.patience import Patient
from tests import played_registry as played
from tests.images import entry, layer

ADA = Credentials("ada", "geheim")
USERS = {"ada": "geheim"}


@pytest.fixture
def registry() -> Iterator[played.Registry]:
    with played.Registry() as registry:
        yield registry


def reach(registry: played.Server, credentials: Credentials | None = None) -> Patient:
    return Patient(registry.url, credentials=credentials, pause=lambda seconds: None)


# -- challenges and tokens ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("header", "expected"), [
    ("", []),
    ('Basic realm="our, registry"', [Challenge("basic", {"realm": "our, registry"})]),
    ('Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"',
     [Challenge("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"})]),
    ('BEARER Realm = "a" , Service=b', [Challenge("bearer", {"realm": "a", "service": "b"})]),
    (r'Bearer realm="a \"b\" \\c"', [Challenge("bearer", {"realm": r'a "b" \c'})]),
    ('Negotiate, Basic realm="x", Bearer realm="y"',
     [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})]),
    ('Basic realm="never closed', [Challenge("basic", {})]),
    ("\0\0", []),
])
def test_challenges_are_read_as_rfc_9110_writes_them(header: str, expected: list[Challenge]) -> None:
    assert auth.parse_challenges(header) == expected


@pytest.mark.parametrize("flow", ["hub", "ghcr", "gitlab"])
def test_a_token_is_fetched_once_with_service_and_scope_and_shown_from_then_on(flow: str) -> None:
    with played.Tokens(flow, USERS) as tokens, played.Registry(tokens) as registry:
        registry.add("team/tool", "1", b"")
        ours = reach(registry, ADA)
        found = pull.find(ours, "team/tool", "1")
        pull.read_config(ours, found)
        assert tokens.asked == [{"service": ['registry, "ours"'], "scope": ["repository:team/tool:pull"]}]
        assert registry.shown() == ["", "Bearer t0", "Bearer t0"], "the password itself never"
        assert tokens.shown() == [auth.basic(ADA)]


def test_docker_hub_lets_anybody_pull_and_only_users_push() -> None:
    with played.Tokens("hub", USERS) as tokens, played.Registry(tokens) as registry:
        registry.add("library/tool", "1", b"")
        ours = reach(registry)
        assert pull.find(ours, "library/tool", "1")
        assert tokens.shown() == [""]
        with pytest.raises(RegistryError, match="denied: requested access to the resource is denied") as refused:
            ours.begin_upload("library/tool")
        assert (refused.value.status, refused.value.code) == (401, "DENIED")


def test_an_identity_token_is_shown_in_a_form_and_in_no_address() -> None:
    with played.Tokens("oauth", USERS) as tokens, played.Registry(tokens) as registry:
        registry.add("team/tool", "1", b"")
        pull.find(reach(registry, Credentials(identity="identity")), "team/tool", "1")
        method, path, _ = tokens.seen[0]
        assert (method, path) == ("POST", "/token")
        assert tokens.asked[0]["grant_type"] == ["refresh_token"]
        assert tokens.asked[0]["scope"] == ["repository:team/tool:pull"]


def test_a_wrong_password_is_a_sentence_without_it() -> None:
    with played.Tokens("gitlab", USERS) as tokens, played.Registry(tokens) as registry, pytest.raises(
            RegistryError, match="unauthorized: incorrect username or password") as refused:
        reach(registry, Credentials("ada", "falsch")).ping()
    assert "falsch" not in str(refused.value) and "falsch" not in repr(Credentials("ada", "falsch"))


def test_a_token_for_another_scope_ends_in_the_registrys_refusal_not_in_a_loop() -> None:
    with played.Tokens("stingy", USERS) as tokens, played.Registry(tokens) as registry:
        registry.add("team/tool", "1", b"")
        with pytest.raises(RegistryError, match="denied"):
            pull.find(reach(registry, ADA), "team/tool", "1")
        assert len(tokens.asked) == 1


def test_a_token_that_has_ended_is_fetched_again() -> None:
    with played.Tokens("hub", USERS) as tokens, played.Registry(tokens) as registry:
        registry.add("a/b", "1", b"")
        ours = reach(registry)
        pull.find(ours, "a/b", "1")
        tokens.granted.clear()
        pull.find(ours, "a/b", "1")
        assert len(tokens.asked) == 2


def test_the_scope_of_another_repository_is_another_token() -> None:
    with played.Tokens("hub", USERS) as tokens, played.Registry(tokens) as registry:
        for name in ("a/b", "c/d"):
            registry.add(name, "1", b"")
        ours = reach(registry)
        pull.find(ours, "a/b", "1")
        pull.find(ours, "c/d", "1")
        assert [each["scope"] for each in tokens.asked] == [["repository:a/b:pull"], ["repository:c/d:pull"]]


def test_basic_shows_the_password_to_whom_it_belongs() -> None:
    with played.Registry(basic=USERS) as registry:
        registry.add("a", "1", b"")
        pull.find(reach(registry, ADA), "a", "1")
        assert registry.shown() == ["", auth.basic(ADA)]
        with pytest.raises(RegistryError, match="unauthorized: authentication required"):
            pull.find(reach(registry), "a", "1")
        with pytest.raises(RegistryError, match="unauthorized"):
            pull.find(reach(registry, Credentials("ada", "falsch")), "a", "1")


@pytest.mark.parametrize("realm", ["ftp://a/token", "", "file:///etc/passwd"])
def test_a_realm_that_is_no_web_address_is_refused(registry: played.Registry, realm: str) -> None:
    def before(request: Any) -> bool:
        request.refuse(401, "UNAUTHORIZED", WWW_Authenticate=f'Bearer realm="{realm}"')
        return True

    registry.before = before
    with pytest.raises(BadInputError, match="does not say from where"):
        reach(registry, ADA).ping()


def test_no_password_goes_from_an_encrypted_registry_to_an_open_realm() -> None:
    asked: list[str] = []
    wallet = auth.Wallet("https://registry.lan", lambda *words, **_: asked.append(str(words)), ADA)
    with pytest.raises(BadInputError, match="not encrypted"):
        wallet.answer('Bearer realm="http://registry.lan/token"', "")
    assert not asked


# -- redirects ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["basic", "token"])
def test_credentials_do_not_follow_a_redirect_to_another_port(kind: str) -> None:
    with played.Tokens("hub", USERS) as tokens, played.Registry(
            *([None, USERS] if kind == "basic" else [tokens])) as registry, played.Storage(registry) as storage:
        registry.elsewhere = storage
        registry.add("a", "1", layer(entry("x", content=b"x")))
        ours = reach(registry, ADA)
        found = pull.find(ours, "a", "1")
        pull.read_config(ours, found)
        assert len(b"".join(pull.fetch(ours, "a", found.layers[0]))) == found.layers[0]["size"]
        assert storage.shown() == ["", ""]
        assert all("geheim" not in str(seen) for seen in storage.seen)


@pytest.mark.parametrize(("one", "other", "same"), [
    ("https://a/x", "https://a:443/y", True), ("http://a:80", "http://a/", True), ("https://A/", "https://a/", True),
    ("https://a", "http://a", False), ("https://a", "https://a:444", False), ("https://a", "https://b.a", False),
    ("https://a", "https://a@b/", False),
])
def test_the_same_server_is_the_same_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    assert (client.origin(one) == client.origin(other)) == same


def test_redirects_without_end_and_out_of_encryption_are_refused(registry: played.Registry) -> None:
    def before(request: Any) -> bool:
        request.reply(307, Location=request.path + "x")
        return True

    registry.before = before
    with pytest.raises(BadInputError, match="from one address to the next"):
        reach(registry).ping()


# -- documents ---------------------------------------------------------------------------------------------------------

def test_a_manifest_keeps_its_bytes_and_type(registry: played.Registry) -> None:
    for media in (played.DOCKER, played.OCI):
        name = registry.add("a", "1", b"", media=media)
        found = pull.find(reach(registry), "a", "1")
        assert (found.manifest.digest, found.manifest.media_type) == (name, media)
        assert found.manifest.content == registry.manifests["a", "1"][1]


def test_of_an_index_the_entry_for_the_platform_is_found_and_attestations_are_passed_over(
        registry: played.Registry) -> None:
    entries = []
    for architecture in ("s390x", "amd64", "arm64"):
        name = registry.add("a", architecture, b"", architecture=architecture)
        size = len(registry.manifests["a", name][1])
        platform = {"os": "linux", "architecture": architecture}
        entries.append({"mediaType": played.OCI, "digest": name, "size": size, "platform": platform})
    attestation = {**entries[0], "platform": {"os": "unknown", "architecture": "unknown"},
                   "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    index = registry.put("a", "1", played.dumps({"schemaVersion": 2, "manifests": [attestation, *entries]}),
                         played.INDEX)
    found = pull.find(reach(registry), "a", "1", "linux/arm64")
    assert (found.top.digest, found.manifest.digest) == (index, entries[2]["digest"])
    with pytest.raises(BadInputError, match="linux/riscv64"):
        pull.find(reach(registry), "a", "1", "linux/riscv64")
    unmarked = {**attestation, "platform": {}}
    registry.put("a", "2", played.dumps({"schemaVersion": 2, "manifests": [unmarked]}), played.INDEX)
    with pytest.raises(BadInputError, match="no matching manifest for linux/amd64 in the manifest list entries"):
        pull.find(reach(registry), "a", "2")


@pytest.mark.parametrize(("document", "sentence"), [
    ({"schemaVersion": 1, "fsLayers": []}, "schema 1"),
    ({"schemaVersion": 2}, "no manifest of an image"),
    ({"schemaVersion": 2, "config": {"digest": "sha256:" + "0" * 64, "size": -1}, "layers": []}, "no manifest of an"),
    ({"schemaVersion": 2, "config": {"digest": "../../etc/passwd", "size": 1}, "layers": []}, "digest"),
    ({"schemaVersion": 2, "config": {"digest": "sha512:" + "0" * 128, "size": 1}, "layers": []}, "only sha256"),
    ({"schemaVersion": 2, "config": {"digest": "sha256:" + "0" * 64, "size": 1 << 40}, "layers": []}, "claims"),
    ({"schemaVersion": 2, "manifests": []}, "no matching manifest"),
    ({"schemaVersion": 2, "manifests": {}}, "no matching manifest"),
    ({"schemaVersion": 2, "manifests": [1]}, "no index"),
    ({"schemaVersion": 2, "manifests": [{"size": 1}]}, "no index"),
    ({"schemaVersion": 2, "manifests": [{"digest": "../x", "size": 1}]}, "no index|digest"),
    ([], "no JSON object"),
])
def test_what_is_no_manifest_is_refused_in_a_sentence(registry: played.Registry, document: Any, sentence: str) -> None:
    registry.put("a", "1", played.dumps(document), played.OCI)
    with pytest.raises(MinirtError, match=sentence):
        pull.find(reach(registry), "a", "1")


def test_a_manifest_that_is_not_what_its_digest_says_is_refused(registry: played.Registry) -> None:
    name = registry.add("a", "1", b"")
    registry.manifests["a", name] = (played.DOCKER, registry.manifests["a", "1"][1] + b" ")
    with pytest.raises(BadInputError, match="should have the digest"):
        pull.find(reach(registry), "a", name)


def test_a_manifest_that_changes_between_two_requests_is_noticed(registry: played.Registry) -> None:
    one = registry.add("a", "1", b"one")
    index = played.dumps({"schemaVersion": 2, "manifests": [{"digest": one, "size": 1}]})
    registry.put("a", "2", index, played.INDEX)
    registry.manifests["a", one] = registry.manifests["a", registry.add("a", "3", b"three")]
    with pytest.raises(BadInputError, match="should have the digest"):
        pull.find(reach(registry), "a", "2")


def test_an_endless_document_is_cut(registry: played.Registry) -> None:
    def before(request: Any) -> bool:
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(bytes(1 << 16))
        except OSError:
            request.close_connection = True
        return True

    registry.before = before
    with pytest.raises(BadInputError, match="more than 4194304 bytes"):
        reach(registry).manifest("a", "1")


def test_a_refusal_is_told_in_the_registrys_words_and_without_control_characters(registry: played.Registry) -> None:
    def before(request: Any) -> bool:
        request.refuse(403, "DENIED", "no\x1b[31m way")
        return True

    registry.before = before
    with pytest.raises(RegistryError) as refused:
        reach(registry).ping()
    assert str(refused.value) == "denied: no[31m way"
    registry.before = lambda request: request.reply(502, b"<html>") or True
    with pytest.raises(RegistryError, match="unexpected status: 502 Bad Gateway"):
        reach(registry).ping()


def test_a_registry_that_wants_us_later_is_asked_later(registry: played.Registry) -> None:
    waits: list[float] = []
    registry.later = [{"Retry_After": "7"}, {}, {"Retry_After": "100000"}]
    Patient(registry.url, pause=waits.append).ping()
    assert waits == [7, 2, 60]
    registry.later = [{}] * 20
    with pytest.raises(RegistryError, match="toomanyrequests: slower"):
        Patient(registry.url, pause=waits.append).ping()
    assert len(registry.later) == 15


def test_lists_go_on_over_their_pages_but_not_to_another_server(registry: played.Registry) -> None:
    for number in range(5):
        registry.add(f"r{number}", "1", b"")
        registry.add("r0", f"t{number}", b"")
    assert list(listing.tags(reach(registry), "r0")) == ["1", "t0", "t1", "t2", "t3", "t4"]
    assert list(listing.catalog(reach(registry))) == ["r0", "r1", "r2", "r3", "r4"]
    assert listing.next_page("http://a/v2/_catalog", '</v2/_catalog?last=b>; rel="next"') == "http://a/v2/_catalog?last=b"
    assert listing.next_page("http://a/v2/_catalog", "") == ""
    with pytest.raises(BadInputError, match="another server"):
        listing.next_page("http://a/v2/_catalog", '<http://b/v2/_catalog>; rel="next"')


@pytest.mark.parametrize(("port", "sentence"), [(1, "connect: connection refused")])
def test_who_is_not_there_is_told_as_docker_does(port: int, sentence: str) -> None:
    host = f"127.0.0.1:{port}"
    with pytest.raises(RegistryError, match=f'Get "http://{host}/v2/": dial tcp {host}: {sentence}'):
        Registry(f"http://{host}").ping()


def test_an_open_server_behind_an_encrypted_address_is_told_as_docker_does(registry: played.Registry) -> None:
    with pytest.raises(RegistryError, match="http: server gave HTTP response to HTTPS client"):
        Registry(registry.url.replace("http", "https")).ping()


# -- blobs -------------------------------------------------------------------------------------------------------------

BLOB = bytes(range(256)) * 12000  # some 3 MB


def descriptor(registry: played.Registry, data: bytes = BLOB) -> dict[str, Any]:
    return {"digest": registry.add_blob(data), "size": len(data)}


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("cuts", [[0], [1], [1 << 20], [(1 << 20) + 1, 5, 2 << 20], [len(BLOB) - 1], [0, 0, 7, 0]])
def test_a_connection_that_is_cut_is_taken_up_where_it_was(registry: played.Registry, cuts: list[int], ranges: bool,
                                                             ) -> None:
    registry.cuts, registry.ranges = list(cuts), ranges
    assert b"".join(pull.fetch(reach(registry), "a", descriptor(registry))) == BLOB
    assert not registry.cuts


def test_a_download_goes_on_from_a_byte(registry: played.Registry) -> None:
    assert b"".join(pull.fetch(reach(registry), "a", descriptor(registry), 1000)) == BLOB[1000:]
    assert registry.seen[-1][2]["Range"] == "bytes=1000-"


def test_a_download_that_never_gets_on_ends_in_a_sentence(registry: played.Registry, monkeypatch: Any) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    registry.cuts = [1 << 20] + [0] * 50
    with pytest.raises(RegistryError, match=f"broke off at byte 1048576 of {len(BLOB)}"):
        list(pull.fetch(reach(registry), "a", descriptor(registry)))


def test_not_one_byte_more_than_the_size_is_taken(registry: played.Registry) -> None:
    wanted = {**descriptor(registry), "size": 1000}
    assert b"".join(pull.fetch(reach(registry), "a", wanted)) == BLOB[:1000]


# -- push --------------------------------------------------------------------------------------------------------------

def give(data: bytes) -> push.Open:
    return lambda start: iter([data[start:]])


@pytest.mark.parametrize("size", [0, 1, push.SMALL, push.SMALL + 1, len(BLOB)])
def test_a_blob_is_brought_whole_and_only_once(registry: played.Registry, size: int) -> None:
    data = BLOB[:size]
    wanted = {"digest": played.digest(data), "size": size}
    assert push.push_blob(reach(registry), "a", wanted, give(data)) == (push.PUSHED, "")
    assert registry.blobs[wanted["digest"]] == data
    before = len(registry.seen)
    assert push.push_blob(reach(registry), "a", wanted, give(data)) == (push.EXISTS, "")
    assert len(registry.seen) == before + 1


@pytest.mark.parametrize("cuts", [[0], [1], [1 << 20], [100, 200, 1 << 20]])
def test_an_upload_that_is_cut_goes_on_where_the_registry_is(registry: played.Registry, cuts: list[int]) -> None:
    registry.cuts = list(cuts)
    wanted = {"digest": played.digest(BLOB), "size": len(BLOB)}
    assert push.push_blob(reach(registry), "a", wanted, give(BLOB)) == (push.PUSHED, "")
    assert registry.blobs[wanted["digest"]] == BLOB
    starts = [headers["Content-Range"] for method, _, headers in registry.seen if method == "PATCH"]
    assert len(starts) == len(cuts) + 1


def test_a_neighbours_blob_is_mounted(registry: played.Registry) -> None:
    wanted = descriptor(registry)
    registry.before = lambda request: request.command == "HEAD" and (request.refuse(404, "BLOB_UNKNOWN") or True)
    assert push.push_blob(reach(registry), "b", wanted, give(b""), ["a"]) == (push.MOUNTED, "a")
    assert "PATCH" not in [method for method, _, _ in registry.seen]
    registry.mounts = False
    assert push.push_blob(reach(registry), "b", wanted, give(BLOB), ["a"]) == (push.PUSHED, "")


def test_a_mount_asks_the_token_for_both_repositories() -> None:
    with played.Tokens("hub", USERS) as tokens, played.Registry(tokens) as registry:
        reach(registry, ADA).begin_upload("team/b", "sha256:" + "0" * 64, "team/a")
        assert tokens.asked[0]["scope"] == ["repository:team/b:pull,push", "repository:team/a:pull"]

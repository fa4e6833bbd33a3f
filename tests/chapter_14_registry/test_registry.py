"""Chapter 14: the registry, from both sides.

The client's functions meet registries that are played here, answer by answer; the server's are asked without a socket.
At the end the two meet each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from minirt.errors import BadInputError, MinirtError
from minirt.registry import auth, client, pull, push, serve, server
from minirt.registry.auth import Challenge, Credentials
from minirt.registry.client import Registry, RegistryError
from minirt.registry.server import Request
from minirt.registry.storage import Refused, Storage


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def refused(function: Callable[..., Any], *arguments: Any) -> Exception | None:
    """The error that a call raises, if it is one of ours."""
    try:
        function(*arguments)
    except MinirtError as error:
        return error
    return None


# -- challenges ------------------------------------------------------------------------------------------------------

def parsed(header: str) -> list[Challenge]:
    """The challenges of a header; whatever goes wrong is told with the header that did it."""
    try:
        return auth.parse_challenges(header)
    except (ValueError, LookupError, TypeError, AttributeError, MinirtError) as error:
        pytest.fail(f"the header {header!r} ends in {error!r}: what cannot be read ends the list, and no more")


TOKENS = 'Bearer realm="https://auth.example/token",service="registry.example"'


@pytest.mark.exercise("minirt.registry.auth.parse_challenges")
def test_a_challenge_is_a_scheme_and_its_parameters() -> None:
    found = parsed('Basic realm="registry"')
    assert isinstance(found, list), f"parse_challenges() returns {found!r}: return a list of Challenge"
    assert found == [Challenge("basic", {"realm": "registry"})], (
        f"'Basic realm=\"registry\"' is one challenge, basic, with the realm 'registry', and not {found}: the scheme "
        "is told in small letters, a value without its quotes"
    )
    found = parsed(TOKENS)
    assert found == [Challenge("bearer", {"realm": "https://auth.example/token", "service": "registry.example"})], (
        f"a comma parts the parameters of one challenge; {TOKENS!r} is not {found}"
    )


@pytest.mark.exercise("minirt.registry.auth.parse_challenges")
def test_a_quoted_value_may_hold_everything() -> None:
    found = parsed(TOKENS + ',scope="repository:team/tool:pull,push"')
    assert found and found[0].parameters.get("scope") == "repository:team/tool:pull,push", (
        f"a comma between quotes belongs to the value: the scope is repository:team/tool:pull,push, and not {found}"
    )
    found = parsed(r'Basic realm="say \"friend\", and enter"')
    assert found == [Challenge("basic", {"realm": 'say "friend", and enter'})], (
        f"within quotes a backslash means the character after it, literally: {found}"
    )
    found = parsed(r'Basic realm="C:\\rooms \x"')
    assert found == [Challenge("basic", {"realm": r"C:\rooms x"})], (
        f"two backslashes mean one, and one before an x means x: each counts for the character after it; {found}"
    )
    found = parsed('Basic realm=""')
    assert found == [Challenge("basic", {"realm": ""})], (
        f'the value of realm="" is the empty text, and not {found}: a quoted value is None only if there is none'
    )
    found = parsed('Bearer realm = "x", service=Word')
    assert found == [Challenge("bearer", {"realm": "x", "service": "Word"})], (
        f"spaces may stand around the =, and a value counts as it is written: {found}; ask for a parameter first"
    )
    found = parsed("Bearer realm=here, Service=word")
    assert found == [Challenge("bearer", {"realm": "here", "service": "word"})], (
        f"a value may stand without quotes, and names count in any letters (we tell them in small ones): {found}"
    )


@pytest.mark.exercise("minirt.registry.auth.parse_challenges")
def test_several_challenges_in_one_header() -> None:
    found = parsed(f'Basic realm="old, but known", {TOKENS}')
    assert [each.scheme for each in found] == ["basic", "bearer"], (
        f"one header holds several challenges: a word without = begins the next one; found {found}"
    )
    assert found[0].parameters == {"realm": "old, but known"}, f"{found[0]} got parameters that are its neighbour's"
    assert parsed("") == [], "an empty header challenges nobody: the list is empty"
    assert [each.scheme for each in parsed("Negotiate, Basic realm=x")] == ["negotiate", "basic"], (
        "a challenge may have no parameter at all"
    )
    assert parsed('realm="x"') == [], "a parameter before any scheme belongs to no challenge: the list is empty"
    found = parsed('Basic realm="a", ???, Bearer realm="b"')
    assert found == [Challenge("basic", {"realm": "a"})], (
        f"??? cannot be read, and ends the list; what stood before it remains, what follows is not guessed at: {found}"
    )


# -- the request for a token -------------------------------------------------------------------------------------------

ADA = Credentials("ada", "söcret")
ASKED = Challenge("bearer", {"realm": "https://auth.example/token", "service": "registry.example"})


def told(how: dict[str, Any], where: str) -> dict[str, Any]:
    return {key: "+".join(value) if isinstance(value, list) else value for key, value in how.get(where, {}).items()}


@pytest.mark.exercise("minirt.registry.auth.token_request")
def test_a_token_is_asked_for_with_service_and_scope() -> None:
    found = auth.token_request(ASKED, "repository:team/tool:pull", Credentials())
    assert isinstance(found, tuple) and len(found) == 2, f"return the method and what `requests` takes, not {found!r}"
    method, how = found
    assert method == "GET", f"without an identity token it is a GET, not {method}"
    assert told(how, "params") == {"service": "registry.example", "scope": "repository:team/tool:pull"}, (
        f"the query tells {how.get('params')}: it must tell the challenge's service and the scope"
    )
    assert "Authorization" not in how.get("headers", {}), (
        "nobody is logged in, so nothing is shown: a public image needs a token, but no password"
    )


@pytest.mark.exercise("minirt.registry.auth.token_request")
def test_name_and_password_go_in_a_header() -> None:
    _, how = auth.token_request(ASKED, "repository:team/tool:pull", ADA)
    address = requests.Request("GET", "https://auth.example/token", params=how.get("params")).prepare().url
    assert "cret" not in str(address), f"the password stands in the address, {address}, and so in every log on the way"
    assert how.get("headers") == {"Authorization": "Basic YWRhOnPDtmNyZXQ="}, (
        f"name and password belong into `headers`, under Authorization, as basic() writes them; token_request() gives "
        f"{ {key: how[key] for key in how if key != 'params'} }"
    )


@pytest.mark.exercise("minirt.registry.auth.token_request")
def test_several_scopes_and_none() -> None:
    _, how = auth.token_request(ASKED, "repository:a:pull,push repository:b:pull", ADA)
    address = requests.Request("GET", "https://auth.example/token", params=how["params"]).prepare().url or ""
    assert address.count("scope=") == 2, (
        f"two scopes, parted by a space, are two parameters `scope` (give `requests` a list), and not {address}"
    )
    _, how = auth.token_request(Challenge("bearer", {"realm": "x"}), "", ADA)
    assert how.get("params", {}) == {}, f"no service and no scope: tell none of them, and not {how['params']}"
    other = Challenge("bearer", {"realm": "x", "scope": "repository:b:pull"})
    _, how = auth.token_request(other, "repository:a:push", ADA)
    assert told(how, "params") == {"scope": "repository:a:push"}, (
        f"the scope is the one that is handed in, whatever the challenge names, and the query tells {how['params']}"
    )


@pytest.mark.exercise("minirt.registry.auth.token_request")
def test_an_identity_token_goes_into_a_form() -> None:
    method, how = auth.token_request(ASKED, "repository:team/tool:pull", Credentials("ada", identity="refresh-me"))
    assert method == "POST" and "data" in how, (
        f"an identity token is shown in the form of a POST, and not in a {method} with {sorted(how)}"
    )
    assert told(how, "data") == {
        "service": "registry.example", "scope": "repository:team/tool:pull", "grant_type": "refresh_token",
        "refresh_token": "refresh-me", "client_id": auth.CLIENT,
    }, f"the form tells {how['data']}"
    assert not how.get("headers") and not how.get("params"), "the form tells all, and nothing else is shown"
    method, how = auth.token_request(ASKED, "repository:a:pull repository:b:pull", Credentials(identity="refresh-me"))
    assert method == "POST", f"an identity token needs no name beside it, and the answer to one is a {method}"
    assert how["data"]["scope"] == "repository:a:pull repository:b:pull", (
        f"a form has one `scope`, in which spaces part them, and not {how['data']['scope']!r}"
    )
    _, how = auth.token_request(Challenge("bearer", {"realm": "x"}), "", Credentials(identity="refresh-me"))
    empty = sorted({"service", "scope"} & set(how["data"]))
    assert not empty, f"no service and no scope, and the form tells {empty}, empty: leave out what there is not"


# -- redirects ---------------------------------------------------------------------------------------------------------

class Reply:
    """What a played server answers."""

    def __init__(self, url: str, status: int, location: str = "") -> None:
        self.url, self.status_code = url, status
        self.headers = {"Location": location} if location else {}
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Wallet:
    def header(self, scope: str) -> dict[str, str]:
        return {"Authorization": f"Bearer for {scope}"}


class Travelled(Registry):
    """A registry whose answers are played: address -> where it sends us, or a status."""

    def __init__(self, base: str, ways: dict[str, Any]) -> None:
        super().__init__(base)
        self.wallet = Wallet()  # type: ignore[assignment]
        self.ways, self.sent, self.replies = ways, [], []  # type: ignore[var-annotated]

    def send(self, method: str, url: str, headers: Any = None, data: Any = None, params: Any = None) -> Any:
        self.sent.append((method, url, headers or {}, data))
        assert len(self.sent) < 100, "travel() asks again and again: MOST_REDIRECTS requests are the end"
        assert "://" in url, f"{url} is no address: a Location may leave out the host, and is seen from where we are"
        way = self.ways.get(url, 200)
        status, location = way if isinstance(way, tuple) else (307, way) if isinstance(way, str) else (way, "")
        self.replies.append(Reply(url, status, location))
        return self.replies[-1]


HOME, AWAY = "https://registry.example/v2/tool/blobs/x", "https://storage.example/x?signature=1"


@pytest.mark.exercise("minirt.registry.client.Registry.travel")
def test_a_request_shows_the_credentials_to_the_registry() -> None:
    registry = Travelled("https://registry.example", {})
    answer = registry.travel("GET", HOME, "pull", None, {"Accept": "json"})
    assert answer is registry.replies[0], f"travel() returns {answer!r}, and not the answer that is no redirect"
    _, _, headers, _ = registry.sent[0]
    assert headers.get("Authorization") == "Bearer for pull", (
        f"the registry itself was shown {headers}: it needs what self.wallet.header(scope) gives"
    )
    assert headers.get("Accept") == "json", "the caller's headers were left out"


@pytest.mark.exercise("minirt.registry.client.Registry.travel")
def test_a_redirect_is_followed_without_the_credentials() -> None:
    registry = Travelled("https://registry.example", {HOME: AWAY})
    answer = registry.travel("GET", HOME, "pull", None, {"Range": "bytes=5-"})
    assert answer.url == AWAY, f"the answer is that of {answer.url}: the registry sent us on to {AWAY}"
    _, _, headers, _ = registry.sent[1]
    assert "Authorization" not in headers, (
        f"storage.example was shown {headers['Authorization']!r}: whoever gets a registry to redirect now has its token"
    )
    assert headers.get("Range") == "bytes=5-", "the caller's headers go to the new address as well"
    assert registry.replies[0].closed, "the first answer was not closed: its connection is never free again"


@pytest.mark.exercise("minirt.registry.client.Registry.travel")
@pytest.mark.parametrize("stranger", [
    "https://registry.example.evil.net/x", "https://registry.example:8443/x", "https://registry.example@evil.net/x",
])
def test_a_stranger_with_a_similar_name_is_a_stranger(stranger: str) -> None:
    registry = Travelled("https://registry.example", {HOME: stranger})
    registry.travel("GET", HOME, "pull")
    assert "Authorization" not in registry.sent[1][2], (
        f"{stranger} was shown the token: scheme, host and port must all be the registry's (origin())"
    )


@pytest.mark.exercise("minirt.registry.client.Registry.travel")
def test_a_location_is_seen_from_where_we_are() -> None:
    registry = Travelled("https://registry.example", {HOME: "../manifests/x"})
    registry.travel("GET", HOME)
    assert registry.sent[1][1] == "https://registry.example/v2/tool/manifests/x", (
        f"'../manifests/x', told at {HOME}, led to {registry.sent[1][1]}"
    )
    assert "Authorization" in registry.sent[1][2], "it is still the registry: it must be shown the token again"


@pytest.mark.exercise("minirt.registry.client.Registry.travel")
def test_the_way_never_leads_from_encryption_into_the_open() -> None:
    registry = Travelled("https://registry.example", {HOME: "http://storage.example/x"})
    error = refused(registry.travel, "GET", HOME)
    assert isinstance(error, BadInputError) and len(registry.sent) == 1, (
        "we went on to http://storage.example, where everybody on the way can read and change what comes"
    )
    assert registry.replies[0].closed, "the answer that sent us there was not closed before the error"
    registry = Travelled("https://registry.example", {HOME: "file:///etc/passwd"})
    assert isinstance(refused(registry.travel, "GET", HOME), BadInputError) and len(registry.sent) == 1, (
        "we went on to file:///etc/passwd: from an encrypted address the way leads to an encrypted one, and to no other"
    )
    mirror = {"http://localhost:5000/x": AWAY, AWAY: "http://storage.example/x"}
    registry = Travelled("http://localhost:5000", mirror)
    error = refused(registry.travel, "GET", "http://localhost:5000/x")
    assert isinstance(error, BadInputError) and len(registry.sent) == 2, (
        "a registry in the open sent us to an encrypted address, and that one into the open again: where we are counts"
    )
    registry = Travelled("http://localhost:5000", {"http://localhost:5000/x": "http://localhost:5000/y"})
    assert refused(registry.travel, "GET", "http://localhost:5000/x") is None, (
        "a registry that is not encrypted sent us on to an address that is not either: nothing is lost by that"
    )


@pytest.mark.exercise("minirt.registry.client.Registry.travel")
def test_every_redirect_is_one_and_nothing_else() -> None:
    for status in client.REDIRECTS:
        for method in ("GET", "HEAD"):
            registry = Travelled("https://registry.example", {HOME: (status, AWAY)})
            answer = registry.travel(method, HOME)
            assert answer.url == AWAY, f"{method} met the status {status}, one of REDIRECTS, and was not sent on"
            assert registry.sent[1][0] == method, f"a {method} went on as a {registry.sent[1][0]}"
            assert not registry.replies[1].closed, "the answer that is returned was closed: nobody can read it any more"
    registry = Travelled("https://registry.example", {HOME: (304, AWAY)})
    assert registry.travel("GET", HOME).status_code == 304, "304 is no redirect, although it begins with a 3: REDIRECTS"
    nowhere = Travelled("https://registry.example", {HOME: 307})
    try:
        error = refused(nowhere.travel, "GET", HOME)
    except LookupError as problem:
        pytest.fail(f"a redirect without a Location ends in {problem!r}: a header may be missing")
    assert isinstance(error, BadInputError), "a redirect without a Location leads nowhere: that must be an error"


@pytest.mark.exercise("minirt.registry.client.Registry.travel")
def test_only_reading_is_sent_on_and_not_for_ever() -> None:
    registry = Travelled("https://registry.example", {HOME: AWAY})
    answer = registry.travel("PUT", HOME, "push", b"content")
    assert (answer.status_code, len(registry.sent)) == (307, 1), (
        "a PUT followed the redirect: what we send goes to the registry and to nobody else"
    )
    assert registry.sent[0][3] == b"content", f"`data` is what is sent, and {registry.sent[0][3]!r} was"
    circle = Travelled("https://registry.example", {HOME: AWAY, AWAY: HOME})
    error = refused(circle.travel, "GET", HOME)
    assert isinstance(error, BadInputError), "two addresses that send us to each other: that must be an error"
    assert len(circle.sent) == client.MOST_REDIRECTS, f"{len(circle.sent)} requests, not {client.MOST_REDIRECTS}"


# -- a download --------------------------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 4
BLOB = {"digest": sha(CONTENT), "size": len(CONTENT)}


class Cut:
    """One answer: pieces of the blob from `start` on, at most `most` bytes, then its end, or an error."""

    def __init__(self, start: int, most: int, error: Exception | None, whole: bool) -> None:
        self.start, self.most, self.error = 0 if whole else start, most, error
        self.status_code = 200 if whole or not start else 206

    def __enter__(self) -> Cut:
        return self

    def __exit__(self, *_: object) -> None: ...

    def iter_content(self, _: int) -> Iterator[bytes]:
        data = CONTENT[self.start : self.start + self.most]
        for place in range(0, len(data), 100):
            yield data[place : place + 100]
        if self.error:
            raise self.error


BROKEN = requests.ConnectionError("Connection reset by peer")


class Unsteady:
    """A registry whose connections bring some bytes each; the last of `most` holds for all further ones."""

    def __init__(self, *most: int, error: Exception | None = BROKEN, whole: bool = False) -> None:
        self.most, self.error, self.whole = list(most), error, whole
        self.asked: list[int] = []

    def blob(self, repository: str, digest: str, start: int = 0) -> Cut:
        self.asked.append(start)
        assert len(self.asked) < 60, "fetch() asks again and again: TRIES requests that bring nothing are the end"
        most = self.most.pop(0) if len(self.most) > 1 else self.most[0]
        if most < 0:
            raise RegistryError("refused", "BLOB_UNKNOWN", -most)
        return Cut(start, most, self.error if most < len(CONTENT) else None, self.whole)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pauses that were asked for; none is made."""
    found: list[int] = []
    monkeypatch.setattr(pull, "pause", found.append)
    return found


def fetched(registry: Unsteady, start: int = 0) -> bytes:
    return b"".join(pull.fetch(registry, "tool", BLOB, start) or ())  # type: ignore[arg-type]


@pytest.mark.exercise("minirt.registry.pull.fetch")
def test_a_blob_comes_in_pieces(pauses: list[int]) -> None:
    registry = Unsteady(5000)
    assert fetched(registry) == CONTENT, "the pieces are not the blob"
    assert registry.asked == [0] and not pauses, f"one request brings all of it, and {registry.asked} were made"
    registry = Unsteady(5000)
    assert fetched(registry, 1000) == CONTENT[1000:], "from byte 1000 on, the rest was wanted"
    assert registry.asked == [1000], f"asked for byte {registry.asked} instead of 1000"


@pytest.mark.exercise("minirt.registry.pull.fetch")
@pytest.mark.parametrize("error", [BROKEN, RegistryError("the server closed the connection"), None],
                         ids=["reset", "closed", "ended"])
def test_after_a_break_only_the_rest_is_asked_for(error: Exception | None, pauses: list[int]) -> None:
    registry = Unsteady(300, 250, 5000, error=error)
    found = fetched(registry)
    what = str(error) if error else "an answer that ends too early"
    assert len(found) <= len(CONTENT), f"{len(found)} bytes of {len(CONTENT)}: after {what} bytes came a second time"
    assert found == CONTENT, f"{len(found)} bytes of {len(CONTENT)} after {what}: the rest was not asked for"
    assert registry.asked == [0, 300, 550], f"the requests began at {registry.asked}, not at [0, 300, 550]"


@pytest.mark.exercise("minirt.registry.pull.fetch")
def test_progress_counts_as_a_new_beginning(pauses: list[int]) -> None:
    assert fetched(Unsteady(50)) == CONTENT, (
        "twenty-one connections that each brought 50 bytes: only requests *in a row that bring nothing* are failures"
    )
    assert not pauses, "each request brought something: there is nothing to wait for"


@pytest.mark.exercise("minirt.registry.pull.fetch")
def test_it_ends_when_nothing_comes_any_more(pauses: list[int]) -> None:
    registry = Unsteady(300, 0)
    error = refused(fetched, registry)
    assert isinstance(error, RegistryError), "nothing comes any more: that must be a RegistryError"
    assert "300" in str(error), f"{str(error)!r} does not say at which byte it broke off (300)"
    assert len(registry.asked) == 1 + pull.TRIES, f"{len(registry.asked) - 1} tries, not {pull.TRIES}"
    assert pauses == list(range(1, pull.TRIES)), f"the pauses were {pauses}: pause(1) before the second try, and so on"
    silent = Unsteady(300, 0, error=None)
    assert isinstance(refused(fetched, silent), RegistryError) and len(silent.asked) == 1 + pull.TRIES, (
        "answers that end without a byte, and without an error, are tries that bring nothing as well"
    )


@pytest.mark.exercise("minirt.registry.pull.fetch")
@pytest.mark.parametrize("status", [404, 401, 503])
def test_a_refusal_is_no_broken_connection(status: int, pauses: list[int]) -> None:
    registry = Unsteady(300, -status)
    error = refused(fetched, registry)
    assert isinstance(error, RegistryError) and error.status == status, (
        f"the registry said {status}, and fetch() told {error!r}"
    )
    assert len(registry.asked) == 2, "the registry refused, and was asked again: it will not change its mind"


# -- bringing a blob -------------------------------------------------------------------------------------------------

class Receiving:
    """A registry that notes what it is asked; `has`: repositories that have the blob."""

    def __init__(self, *has: str) -> None:
        self.has, self.calls, self.content = has, [], b""  # type: ignore[var-annotated]
        self.number = 0
        self.told: set[tuple[str, str]] = set()  # repository and digest, as they were told at the end

    def has_blob(self, repository: str, digest: str) -> bool:
        self.calls.append("HEAD")
        return repository in self.has

    def begin_upload(self, repository: str, digest: str = "", source: str = "") -> str:
        self.calls.append(f"mount from {source}" if source else "POST with a digest" if digest else "POST")
        if source in self.has and source:
            return ""
        self.number += 1
        return f"/upload/{self.number}"

    def send_chunk(self, repository: str, address: str, pieces: Any, start: int, size: int) -> str:
        self.calls.append(f"PATCH {address}")
        self.content += b"".join(pieces(start))[:size]
        return address + "?state=2"

    def finish_upload(self, repository: str, address: str, digest: str, content: bytes = b"") -> None:
        self.calls.append(f"PUT {address}")
        self.content += content
        self.told.add((repository, digest))


SMALL, LARGE = b"small", bytes(push.SMALL + 1)


def pushed(registry: Receiving, data: bytes = SMALL, *neighbours: str) -> Any:
    descriptor = {"digest": sha(data), "size": len(data)}

    def pieces(start: int) -> Iterator[bytes]:
        registry.calls += ["read"] * bool(registry.has)  # who has it needs no byte of it
        return iter([data[start:]])

    return push.push_blob(registry, "mine", descriptor, pieces, neighbours)  # type: ignore[arg-type]


@pytest.mark.exercise("minirt.registry.push.push_blob")
def test_what_is_there_is_not_brought() -> None:
    registry = Receiving("mine")
    found = pushed(registry)
    assert registry.calls == ["HEAD"], f"the registry has the blob, and was asked {registry.calls}: bring it once"
    assert found == (push.EXISTS, ""), f"push_blob() tells {found}, not {(push.EXISTS, '')}"


@pytest.mark.exercise("minirt.registry.push.push_blob")
def test_a_small_blob_goes_with_the_last_request() -> None:
    registry = Receiving()
    found = pushed(registry)
    assert registry.content == SMALL, f"the registry got {registry.content!r} instead of {SMALL!r}"
    assert registry.calls == ["HEAD", "POST", "PUT /upload/1"], (
        f"a blob of {len(SMALL)} bytes took {registry.calls}: it goes as the content of finish_upload()"
    )
    assert found == (push.PUSHED, ""), f"push_blob() tells {found}, not {(push.PUSHED, '')}"
    assert registry.told == {("mine", sha(SMALL))}, f"it ended in the repository and with the digest {registry.told}"
    registry = Receiving()
    pushed(registry, bytes(push.SMALL))
    assert registry.calls == ["HEAD", "POST", "PUT /upload/1"], (
        f"a blob of exactly SMALL bytes took {registry.calls}: *at most* SMALL bytes go with the request that ends it"
    )


@pytest.mark.exercise("minirt.registry.push.push_blob")
def test_a_large_blob_is_streamed_and_finished_where_the_registry_said() -> None:
    registry = Receiving()
    pushed(registry, LARGE)
    assert "PATCH /upload/1" in registry.calls, (
        f"a blob of {len(LARGE)} bytes took {registry.calls}: more than SMALL bytes go by send_chunk(), piece by "
        "piece, and are never held whole"
    )
    assert registry.content == LARGE, f"{len(registry.content)} bytes arrived, not {len(LARGE)}"
    assert registry.calls[-1] == "PUT /upload/1?state=2", (
        f"finished at {registry.calls[-1]!r}: send_chunk() gives the address to finish at, /upload/1?state=2"
    )


@pytest.mark.exercise("minirt.registry.push.push_blob")
def test_a_neighbour_s_blob_is_mounted() -> None:
    registry = Receiving("theirs")
    found = pushed(registry, LARGE, "nobody", "theirs", "later")
    assert found == (push.MOUNTED, "theirs"), (
        f"the repository `theirs` has the blob, and push_blob() tells {found}: ask each neighbour, until one has it"
    )
    assert registry.calls == ["HEAD", "mount from nobody", "mount from theirs"], (
        f"a mounted blob costs no byte and no further request, and these were made: {registry.calls}"
    )


@pytest.mark.exercise("minirt.registry.push.push_blob")
def test_a_mount_that_became_an_upload_is_used() -> None:
    registry = Receiving()
    found = pushed(registry, SMALL, "nobody")
    assert registry.calls == ["HEAD", "mount from nobody", "PUT /upload/1"], (
        f"the registry began an upload where it could not mount; use it. These were made: {registry.calls}"
    )
    registry = Receiving()
    pushed(registry, SMALL, "nobody", "nobody-else")
    assert registry.calls[-1] == "PUT /upload/2", (
        f"two neighbours had nothing, and two uploads were begun: the last one is used, and not {registry.calls[-1]!r}"
    )
    assert found == (push.PUSHED, ""), f"push_blob() tells {found}, not {(push.PUSHED, '')}"


# -- the server --------------------------------------------------------------------------------------------------------

@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "registry"))


def ask(storage: Storage, method: str, target: str, body: bytes = b"", user: str = "", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        return server.answer(storage, Request(method, target, named, [body] if body else (), user))
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        pytest.fail(f"{method} {target} ends in {error!r} instead of an answer: what a client does wrong is Refused")


def begun(storage: Storage, name: str = "team/tool", user: str = "") -> str:
    answer = ask(storage, "POST", f"/v2/{name}/blobs/uploads/", user=user)
    assert answer.status == 202
    return str(answer.headers["Location"])


def code(answer: Any) -> str:
    return str(json.loads(answer.body)["errors"][0]["code"]) if answer.body else f"{answer.status}, no refusal"


def there(storage: Storage, data: bytes, name: str = "team/tool") -> bool:
    answer = ask(storage, "GET", f"/v2/{name}/blobs/{sha(data)}")
    if answer.status != 200:
        return False
    descriptor, first, size = answer.body
    try:
        return os.pread(descriptor, size, first) == data
    finally:
        os.close(descriptor)


@pytest.mark.exercise("minirt.registry.server.finish_upload")
def test_an_upload_in_one_request(storage: Storage) -> None:
    answer = ask(storage, "PUT", f"{begun(storage)}?digest={sha(SMALL)}", SMALL)
    assert answer is not None, "finish_upload() returns nothing: the client waits for an answer"
    assert answer.status != 400, (
        f"the blob was sent with the PUT, and refused ({code(answer)}): the request's body belongs to the upload, "
        "receive() adds it"
    )
    assert answer.status == 201, f"the blob is here now: that is 201, Created, and not {answer.status}"
    assert there(storage, SMALL), "201 was answered, and the blob cannot be read: the upload's finish() shows it"
    assert answer.headers.get("Location") == f"/v2/team/tool/blobs/{sha(SMALL)}", (
        f"Location says where the blob is now, and not {answer.headers.get('Location')!r}"
    )
    assert answer.headers.get("Docker-Content-Digest") == sha(SMALL)


@pytest.mark.exercise("minirt.registry.server.finish_upload")
def test_an_upload_in_pieces(storage: Storage) -> None:
    place = begun(storage)
    assert ask(storage, "PATCH", place, b"smal").status == 202
    answer = ask(storage, "PUT", f"{place}?digest={sha(SMALL)}", b"l")
    assert answer.status == 201 and there(storage, SMALL), f"4 bytes came by PATCH, the last one by PUT: {code(answer)}"
    place = begun(storage)
    ask(storage, "PATCH", place, b"other")
    answer = ask(storage, "PUT", f"{place}?digest={sha(b'other')}")
    assert answer.status == 201, f"all bytes came before, the PUT has no body: {code(answer)}"


@pytest.mark.exercise("minirt.registry.server.finish_upload")
def test_a_blob_with_another_digest_is_refused(storage: Storage) -> None:
    answer = ask(storage, "PUT", f"{begun(storage)}?digest={sha(b'innocent')}", b"malicious")
    assert code(answer) == "DIGEST_INVALID", (
        f"one thing was promised and another sent, and the answer is {answer.status}: finish() compares the two"
    )
    assert not there(storage, b"malicious") and not there(storage, b"innocent")


@pytest.mark.exercise("minirt.registry.server.finish_upload")
def test_a_put_without_a_digest_costs_nothing(storage: Storage) -> None:
    place = begun(storage)
    ask(storage, "PATCH", place, b"smal")
    for target in (place, f"{place}?digest=", f"{place}?digest=sha256:../../../../etc/passwd"):
        answer = ask(storage, "PUT", target, b"l")
        assert code(answer) == "DIGEST_INVALID", f"PUT {target}: {code(answer)}, and this is no digest"
    status = ask(storage, "GET", place)
    assert status.headers.get("Range") == "0-3", (
        f"the refused requests left their mark: the upload has bytes {status.headers.get('Range')} now, and had 0-3; "
        "check the digest before anything is received"
    )


@pytest.mark.exercise("minirt.registry.server.finish_upload")
def test_nobody_else_sends_meanwhile(storage: Storage) -> None:
    place = begun(storage)
    with storage.repository("team/tool").upload(place.rsplit("/", 1)[1], ""):
        try:
            answer = ask(storage, "PUT", f"{place}?digest={sha(SMALL)}", SMALL)
        except Exception as error:
            pytest.fail(f"while another connection holds the upload: {error!r}; hold it yourself, by `with`")
    assert code(answer) == "BLOB_UPLOAD_INVALID", (
        f"another connection holds the upload, and the answer is {answer.status}: hold it yourself, by `with`"
    )


@pytest.mark.exercise("minirt.registry.server.finish_upload")
def test_an_upload_is_its_owner_s(storage: Storage) -> None:
    place = begun(storage, user="ada")
    answer = ask(storage, "PUT", f"{place}?digest={sha(SMALL)}", SMALL, user="eve")
    assert code(answer) == "BLOB_UPLOAD_UNKNOWN", (
        f"eve has ended the upload of ada ({answer.status}): look for the upload of request.user"
    )
    answer = ask(storage, "PUT", f"{place}?digest={sha(SMALL)}", SMALL, user="ada")
    assert answer.status == 201, f"ada may not end her own upload: {code(answer)}: look for the upload of request.user"


@pytest.mark.exercise("minirt.registry.server.finish_upload")
def test_bytes_of_another_place_are_refused(storage: Storage) -> None:
    place = begun(storage)
    ask(storage, "PATCH", place, b"smal")
    answer = ask(storage, "PUT", f"{place}?digest={sha(SMALL)}", b"l", Content_Range="3-3")
    assert answer.status == 416, (
        f"the body is said to be byte 3, and byte 4 is next: the answer is {answer.status}, not 416; receive() compares"
    )


# -- the whole -------------------------------------------------------------------------------------------------------

CONFIG = "application/vnd.oci.image.config.v1+json"


def manifest_of(config: bytes, *layers: bytes) -> bytes:
    parts = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha(each), "size": len(each)}
             for each in layers]
    return json.dumps({"schemaVersion": 2, "mediaType": client.documents.MANIFEST_TYPE, "layers": parts,
                       "config": {"mediaType": CONFIG, "digest": sha(config), "size": len(config)}}).encode()


def put_blob(storage: Storage, data: bytes, name: str = "team/tool") -> None:
    assert ask(storage, "PUT", f"{begun(storage, name)}?digest={sha(data)}", data).status == 201


def put_manifest(storage: Storage, data: bytes, tag: str = "1", name: str = "team/tool") -> Any:
    return ask(storage, "PUT", f"/v2/{name}/manifests/{tag}", data, Content_Type=client.documents.MANIFEST_TYPE)


def test_a_manifest_comes_last(storage: Storage) -> None:
    data = manifest_of(b"{}", SMALL)
    put_blob(storage, b"{}")
    assert code(put_manifest(storage, data)) == "MANIFEST_BLOB_UNKNOWN"
    put_blob(storage, SMALL)
    assert put_manifest(storage, data).status == 201
    answer = ask(storage, "GET", "/v2/team/tool/manifests/1")
    assert answer.headers["Docker-Content-Digest"] == sha(data)
    os.close(answer.body[0])


@pytest.mark.parametrize("name", ["../../etc", "UPPER", "a//b", ".hidden", "a/../b", "a+b", "x" * 256, "a/./b", "ä"])
def test_a_name_is_a_name_or_nothing(name: str, storage: Storage, tmp_path: Path) -> None:
    answer = ask(storage, "POST", f"/v2/{name}/blobs/uploads/")
    assert answer.status in (400, 404) and code(answer) in ("NAME_INVALID", "NAME_UNKNOWN")
    assert os.listdir(tmp_path) == ["registry"] and not os.listdir(tmp_path / "registry/repositories")


@pytest.mark.parametrize("digest", ["sha256:..%2f..%2fetc%2fpasswd", "sha256:" + "A" * 64, "md5:" + "0" * 32, "sha256"])
def test_a_digest_is_a_digest_or_nothing(digest: str, storage: Storage) -> None:
    assert code(ask(storage, "GET", f"/v2/team/tool/blobs/{digest}")) in ("DIGEST_INVALID", "NAME_UNKNOWN")


def test_a_repository_shows_only_what_it_was_given(storage: Storage) -> None:
    put_blob(storage, SMALL, "secret/tool")
    assert not there(storage, SMALL, "other/tool"), "the bytes lie in the pool, and are another repository's"
    mounted = ask(storage, "POST", f"/v2/other/tool/blobs/uploads/?mount={sha(SMALL)}&from=secret/tool")
    assert mounted.status == 201 and there(storage, SMALL, "other/tool")
    instead = ask(storage, "POST", f"/v2/third/tool/blobs/uploads/?mount={sha(LARGE)}&from=secret/tool")
    assert instead.status == 202 and "/uploads/" in instead.headers["Location"]


def test_a_path_that_is_no_route(storage: Storage) -> None:
    with pytest.raises(Refused) as caught:
        server.find(server.ROUTES, "GET", "/v3/")
    assert caught.value.code == "NAME_UNKNOWN"
    with pytest.raises(Refused) as caught:
        server.find(server.ROUTES, "DELETE", "/v2/")
    assert (caught.value.code, caught.value.headers["Allow"]) == ("UNSUPPORTED", "GET, HEAD")
    assert server.find(server.ROUTES, "HEAD", "/v2/a/b/c/manifests/1") == (
        server.get_manifest, {"name": "a/b/c", "reference": "1"})


@contextmanager
def serving(storage: Storage) -> Iterator[str]:
    """A registry at a port of this cage's own loopback."""
    listener = serve.Listener(("127.0.0.1", 0), storage, serve.Settings(quiet=True))
    thread = threading.Thread(target=listener.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.address[1]}"
    finally:
        listener.stop()
        thread.join()


def test_client_and_server_meet(storage: Storage) -> None:
    config, layer = json.dumps({"rootfs": {"diff_ids": []}}).encode(), os.urandom(3 << 20)
    content = manifest_of(config, layer)
    with serving(storage) as address:
        registry = Registry(address)
        registry.ping()
        for data in (config, layer):
            descriptor = {"digest": sha(data), "size": len(data)}
            how = push.push_blob(registry, "team/tool", descriptor, lambda start, data=data: iter([data[start:]]))
            assert how == (push.PUSHED, "")
        registry.put_manifest("team/tool", "1", client.Manifest(content, client.documents.MANIFEST_TYPE, sha(content)))
        large = {"digest": sha(layer), "size": len(layer)}
        how = push.push_blob(registry, "other", large, lambda _: iter(()), ["team/tool"])
        assert how == (push.MOUNTED, "team/tool")
        found = pull.find(registry, "team/tool", "1")
        assert found.manifest.content == content and pull.read_config(registry, found) == config
        assert b"".join(pull.fetch(registry, "team/tool", found.layers[0])) == layer
        assert b"".join(pull.fetch(registry, "team/tool", found.layers[0], 3_000_000)) == layer[3_000_000:]
        error = refused(pull.find, registry, "team/tool", "2")
        assert isinstance(error, RegistryError) and error.code == "MANIFEST_UNKNOWN"


def test_a_manifest_that_is_another_one_is_refused(storage: Storage) -> None:
    put_blob(storage, b"{}")
    data = manifest_of(b"{}")
    put_manifest(storage, data)
    changed = data.replace(b'"schemaVersion": 2', b'"schemaVersion": 3')
    (Path(storage.root) / "blobs" / sha(data).replace(":", "/")).write_bytes(changed)
    with serving(storage) as address:
        assert "should have the digest" in str(refused(pull.find, Registry(address), "team/tool", "1"))


def test_the_container_program_pushes_pulls_and_runs(container: Callable[..., Any]) -> None:
    ran = container("sh", "-c", "echo I am $$; exit 3")
    assert (ran.status, ran.stdout) == (3, "I am 1\n"), ran.stderr
    assert re.findall(r": (.*)\n", ran.stderr) == ["Pushed", "Pushed"]


def test_the_container_program_says_what_is_wrong(container: Callable[..., Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ran = container("--pull", f"127.0.0.1:{taken.getsockname()[1]}/tool")
    assert ran.status == 1 and ran.stderr.startswith("container.py: ") and "connection refused" in ran.stderr
    assert "--pull IMAGE" in container("--pull").stderr
    assert "--pull IMAGE" in container("--oops", "x").stderr

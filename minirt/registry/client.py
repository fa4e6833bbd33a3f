"""Chapter 14: one registry, as a client sees it.

A registry is a web server with a handful of addresses below /v2/. What it keeps are *blobs*, found by their digests,
and *manifests*, found by digest or by a tag, in *repositories* that are only names:

    GET  /v2/                              are you a registry, and who am I to you?
    GET  /v2/NAME/manifests/REFERENCE      what is this image made of?
    GET  /v2/NAME/blobs/DIGEST             one part of it; often a redirect to some storage
    POST /v2/NAME/blobs/uploads/           I bring a blob: tells an address for PATCH (bytes) and PUT (the end)
    PUT  /v2/NAME/manifests/REFERENCE      all parts are there: this is the image

Rules of the room:

- **Credentials are shown to the registry's own origin** (scheme, host, port) and to no other: a redirect, or an upload
  address elsewhere, gets the request without them.
- Everything that comes is bounded: a document has a limit, a manifest four mebibytes, a wait some seconds.
- What was asked for by its digest is checked against it before anybody sees it.
- A refusal is told in the registry's own words: `{"errors": [{"code": ..., "message": ...}]}`.
- Each request is made once, as the specification has it; patience with what breaks, waits or drips lies beyond.

Sources: OCI distribution-spec, spec.md (end-1 ... are the rows of its table "Endpoints"); RFC 9110.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from minirt import state, trace
from minirt.errors import BadInputError, MinirtError
from minirt.images import blobs, documents
from minirt.registry.auth import Credentials, Wallet

CHAPTER = 14

Open = Callable[[int], Iterator[bytes]]  # the bytes of a blob from that one on
ACCEPT = ", ".join((*documents.INDEX_TYPES, *documents.MANIFEST_TYPES))

LARGEST_MANIFEST = 4 << 20  # bytes (spec.md, "Pushing Manifests", lets a registry refuse more)
_LONGEST_ANSWER = 120       # seconds that a document may take
REDIRECTS = frozenset((301, 302, 303, 307, 308))
MOST_REDIRECTS = 10


class RegistryError(MinirtError):
    """A registry refused: `code` as the specification names it ("" where it told none), `status` of the answer."""

    def __init__(self, sentence: str, code: str = "", status: int = 0) -> None:
        super().__init__(sentence)
        self.code, self.status = code, status


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index as it came: its bytes, never written anew, since their digest is its name."""

    content: bytes
    media_type: str
    digest: str

    @property
    def document(self) -> dict[str, Any]:
        """What it says. Raises BadInputError when it is no JSON object."""
        try:
            document = state.loads(self.content)
        except ValueError as error:
            raise BadInputError(f"the manifest {self.digest} is broken: {error}") from None
        if not isinstance(document, dict):
            raise BadInputError(f"the manifest {self.digest} is broken: it is no JSON object")
        return document


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port of an address: only where all three are the same is it the same server. A port that is not
    told is 443 for https and 80 for http. Source: RFC 9110 section 4.3.1."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def refusal(answer: requests.Response) -> RegistryError:
    """The error that a refused request becomes: code and message of the first of the registry's `errors`.

    A body that tells none leaves the status: `unexpected status: 502 Bad Gateway`. Source: spec.md, "Error Codes".
    """
    try:
        first = state.loads(read(answer, 1 << 16))["errors"][0]
        code, message = str(first["code"]), str(first.get("message") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, MinirtError):
        told = f"{answer.status_code} {answer.reason or ''}".strip()
        if answer.status_code == 401:
            return RegistryError("unauthorized: authentication required", "UNAUTHORIZED", 401)
        return RegistryError(f"{answer.request.method} {answer.url}: unexpected status: {told}", "", answer.status_code)
    sentence = f"{code.lower().replace('_', ' ')}: {message}"[:1000]
    return RegistryError("".join(each for each in sentence if each.isprintable()), code, answer.status_code)


def read(answer: requests.Response, limit: int) -> bytes:
    """The body of an answer, whole. Raises BadInputError when it is longer than `limit` bytes."""
    content = b""
    end = time.monotonic() + _LONGEST_ANSWER
    for piece in answer.iter_content(1 << 14):
        content += piece
        if len(content) > limit:
            raise BadInputError(f"{answer.url} answers with more than {limit} bytes")
        if time.monotonic() > end:
            raise BadInputError(f"{answer.url} answers too slowly")
    return content


class Body:
    """A blob's bytes from `start` on, in the form in which `requests` sends them with a Content-Length: they have a
    length, and begin anew each time. `pieces(start)` gives them."""

    def __init__(self, pieces: Open, start: int, size: int) -> None:
        self._pieces, self._start, self._size = pieces, start, size

    def __len__(self) -> int:
        return self._size - self._start

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces(self._start)


class Registry:
    """A registry at the address `base` (`https://host:port`), reached by a `requests.Session` that knows about
    certificates and proxies; `credentials` are the user's."""

    timeout = (10, 60)  # seconds to connect, and without a byte

    def __init__(self, base: str, session: requests.Session | None = None, credentials: Credentials | None = None,
                 ) -> None:
        self.base = base.rstrip("/")
        self._session = session or requests.Session()
        self.wallet = Wallet(self.base, self._ask_token_server, credentials or Credentials())

    def close(self) -> None:
        """Close the idle connections. They are made again when they are needed: after a fork, by each process."""
        self._session.close()

    # -- one request ------------------------------------------------------------------------------------------------

    def request(self, method: str, address: str, scope: str = "", data: bytes | Body | None = None,
                headers: dict[str, str] | None = None) -> requests.Response:
        """Ask the registry, and once more when it wants to see who we are.

        `address`: a path below the base, or a whole URL; `scope`: what a token has to allow; `data`: what is sent.
        Returns the answer, its body not yet read. Raises RegistryError, its sentence in the registry's words, and
        MinirtError when there is no answer.
        """
        url = urljoin(self.base, address)
        answer = self.travel(method, url, scope, data, headers)
        asked = answer.headers.get("WWW-Authenticate", "") if answer.status_code == 401 else ""
        if asked and origin(answer.url) == origin(self.base) and self.wallet.answer(asked, scope):
            answer = self.travel(method, url, scope, data, headers)
        if answer.status_code >= 400:
            raise refusal(answer)
        return answer

    def travel(self, method: str, url: str, scope: str = "", data: bytes | Body | None = None,
               headers: dict[str, str] | None = None) -> requests.Response:
        """One request, and the redirects that it meets; the first answer that is none.

        `self.send(method, url, headers, data)` sends it: `headers` of the caller and, where `url` has the `origin` of
        `self.base`, those of `self.wallet.header(scope)` too: *no other server is shown them*. An answer of a status in
        REDIRECTS to GET or HEAD sends us on, to its header Location as seen from `url` (`urljoin`); any other is
        returned. Close an answer that is not returned.

        Raises BadInputError when an encrypted address sends us to one that is not "https", and when MOST_REDIRECTS
        requests have not been enough. Source: RFC 9110 section 15.4.
        """
        for _ in range(MOST_REDIRECTS):
            mine = self.wallet.header(scope) if origin(url) == origin(self.base) else {}
            answer = self.send(method, url, {**(headers or {}), **mine}, data)
            if answer.status_code not in REDIRECTS or method not in ("GET", "HEAD"):
                return answer
            answer.close()
            there = urljoin(url, answer.headers.get("Location", ""))
            if urlsplit(url).scheme == "https" and urlsplit(there).scheme != "https":
                raise BadInputError(f"{self.base} sends us to {there[:200]}, which is not encrypted")
            url = there
        raise BadInputError(f"{self.base} sends us from one address to the next, more than {MOST_REDIRECTS} times")

    def send(self, method: str, url: str, headers: dict[str, str] | None = None, data: Any = None,
             params: dict[str, Any] | None = None) -> requests.Response:
        """One request and its answer, the body not yet read. Raises RegistryError when there is none."""
        headers = {"Accept-Encoding": "identity", **(headers or {})}  # digests are of the bytes as they are stored
        trace.step(CHAPTER, f"ask {urlsplit(url).netloc}", f"{method} {urlsplit(url).path}")
        try:
            return self._session.request(method, url, params=params, data=data, headers=headers, stream=True,
                                         allow_redirects=False, timeout=self.timeout)
        except requests.RequestException as error:
            raise unreachable(method, url, error) from None

    def _ask_token_server(self, method: str, url: str, **how: Any) -> Any:
        answer = self.send(method, url, **how)
        if answer.status_code >= 400:
            raise refusal(answer)
        try:
            return state.loads(read(answer, 1 << 20))
        except ValueError:
            return None

    # -- pull ---------------------------------------------------------------------------------------------------------

    def ping(self, scope: str = "") -> None:
        """end-1: is there a registry, and does it know us? Raises RegistryError."""
        read(self.request("GET", "/v2/", scope), 1 << 16)

    def manifest(self, repository: str, reference: str) -> Manifest:
        """end-3: the manifest with that tag or digest. Raises BadInputError when it does not have its digest."""
        answer = self.request("GET", f"/v2/{repository}/manifests/{reference}", pulling(repository),
                              headers={"Accept": ACCEPT})
        content = read(answer, LARGEST_MANIFEST)
        digest = blobs.digest(content)
        told = answer.headers.get("Docker-Content-Digest", "").partition(",")[0]
        asked = reference if ":" in reference else told if told.startswith("sha256:") else digest
        if asked != digest:
            raise BadInputError(f"the manifest of {repository} should have the digest {asked} but has {digest}")
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        return Manifest(content, media_type, digest)

    def blob(self, repository: str, digest: str, start: int = 0) -> requests.Response:
        """end-2: a blob from byte `start` on; its bytes come as the answer's body is read. Raises RegistryError.

        A registry that does not know ranges answers with all of it: status 200 instead of 206.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        return self.request("GET", f"/v2/{repository}/blobs/{digest}", pulling(repository), headers=headers)

    # -- push ---------------------------------------------------------------------------------------------------------

    def has_blob(self, repository: str, digest: str) -> bool:
        """end-2 by HEAD: whether the repository has a blob."""
        try:
            self.request("HEAD", f"/v2/{repository}/blobs/{digest}", pushing(repository))
        except RegistryError as error:
            if error.status == 404:
                return False
            raise
        return True

    def begin_upload(self, repository: str, digest: str = "", source: str = "") -> str:
        """end-4a, end-11: the address at which a new blob can be brought.

        With `digest` and `source`, another repository that has the blob, the registry is asked to mount it from there:
        if it does, nothing is to be brought, and the address is "". Raises RegistryError.
        """
        address, scope = f"/v2/{repository}/blobs/uploads/", pushing(repository)
        if source:
            address += f"?mount={digest}&from={source}"
            scope += f" {pulling(source)}"
        answer = self.request("POST", address, scope)
        return "" if answer.status_code == 201 else urljoin(answer.url, answer.headers.get("Location", ""))

    def send_chunk(self, repository: str, address: str, pieces: Open, start: int, size: int) -> str:
        """end-5: bring the bytes of a blob of `size` bytes from byte `start` on; the address for what follows.

        `pieces(start)` gives them. Raises RegistryError, of status 416 when the registry is at another byte.
        """
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{start}-{size - 1}"}
        answer = self.request("PATCH", address, pushing(repository), Body(pieces, start, size), headers)
        return urljoin(answer.url, answer.headers.get("Location", address))

    def finish_upload(self, repository: str, address: str, digest: str, content: bytes = b"") -> None:
        """end-6: say that a blob is complete, and its digest; `content`: its last bytes, or all of them when no chunk
        was brought before (end-4b). Raises RegistryError."""
        address += ("&" if urlsplit(address).query else "?") + f"digest={digest}"
        self.request("PUT", address, pushing(repository), content, {"Content-Type": "application/octet-stream"})

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> None:
        """end-7: all blobs are there, this is the image. Raises RegistryError."""
        self.request("PUT", f"/v2/{repository}/manifests/{reference}", pushing(repository), manifest.content,
                     {"Content-Type": manifest.media_type})


def pulling(repository: str) -> str:
    """What a token has to allow for reading a repository (docs/spec/auth/scope.md)."""
    return f"repository:{repository}:pull"


def pushing(repository: str) -> str:
    """What a token has to allow for writing to a repository."""
    return f"repository:{repository}:pull,push"


def unreachable(method: str, url: str, error: Exception) -> RegistryError:
    """The sentence for a request that got no answer, in the words of Docker's daemon where it has some."""
    reason = next((meaning for sign, meaning in _REASONS if sign in str(error)), "no answer")
    reason = reason.format(netloc=urlsplit(url).netloc, host=urlsplit(url).hostname)
    return RegistryError(f"{method.capitalize()} \"{url}\": {reason}")


_REASONS = (
    ("WRONG_VERSION_NUMBER", "http: server gave HTTP response to HTTPS client"),
    ("record layer failure", "http: server gave HTTP response to HTTPS client"),
    ("IP address mismatch", "tls: failed to verify certificate: it is made for another name than {netloc}"),
    ("Hostname mismatch", "tls: failed to verify certificate: it is made for another name than {netloc}"),
    ("doesn't match", "tls: failed to verify certificate: it is made for another name than {netloc}"),
    ("certificate has expired", "tls: failed to verify certificate: it has expired"),
    ("CERTIFICATE_VERIFY_FAILED", "tls: failed to verify certificate: nobody known here has signed it; put the "
     "authority's certificate at /etc/minirt/certs.d/{netloc}/ca.crt"),
    ("Name or service not known", "dial tcp: lookup {host}: no such host"),
    ("name resolution", "dial tcp: lookup {host}: no name server answers"),
    ("Connection refused", "dial tcp {netloc}: connect: connection refused"),
    ("Network is unreachable", "dial tcp {netloc}: connect: network is unreachable"),
    ("No route to host", "dial tcp {netloc}: connect: no route to host"),
    ("timed out", "net/http: request canceled: {netloc} does not answer in time"),
    ("Connection aborted", "the server closed the connection"),
    ("Connection reset", "the server closed the connection"),
)

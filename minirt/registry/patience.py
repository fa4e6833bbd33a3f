"""Chapter 14, beyond: a registry as the network lets us have it: busy, slow, broken off.

The core makes each request once. What the commands use is a `Patient`: the same registry, asked again when it wants us
later, and taken up where it was when it breaks off. Patience ends: whoever is silent at the first request is not there,
and whoever lets a body drip is cut, asked for the rest, and given up at last.

Sources: RFC 9110 section 10.2.3 (Retry-After); OCI distribution-spec "Pushing a blob in chunks" (end-13).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import requests

from minirt.errors import BadInputError
from minirt.registry.auth import Credentials
from minirt.registry.client import Body, Manifest, Open, Registry, RegistryError, pushing

LATER = frozenset((429, 500, 502, 503, 504))
TRIES = 5             # of a request that the registry wants later; of an upload, or a body, that does not get on
LONGEST_WAIT = 60     # seconds between two of them
FIRST_WORD = 20       # seconds in which a registry that has not answered yet must begin to
WINDOW, LEAST = 60, 1 << 10  # a body that brings less bytes than that in so many seconds drips
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"
_PIECE = 1 << 18      # bytes that are taken at once, where so many are there


class Patient(Registry):
    """A registry that is asked with patience; `pause` waits some seconds."""

    timeout = (10, FIRST_WORD)

    def __init__(self, base: str, session: requests.Session | None = None, credentials: Credentials | None = None,
                 pause: Callable[[float], None] = time.sleep) -> None:
        super().__init__(base, session, credentials)
        self._pause = pause
        self._drips = 0  # bodies in a row that dripped or broke off early

    def send(self, method: str, url: str, headers: dict[str, str] | None = None, data: Any = None,
             params: dict[str, Any] | None = None) -> requests.Response:
        """As the registry's, again while the server wants us later, and its body watched. Raises BadInputError when a
        server told us an address that is none."""
        if not url.startswith(("https://", "http://")):
            raise BadInputError(f"{self.base} sends us to {url[:200]!r}, which is no web address")
        for again in range(1, TRIES + 1):
            try:
                answer = super().send(method, url, headers, data, params)
            except ValueError as error:
                raise BadInputError(f"{self.base} sends us to {url[:200]!r}, no web address: {error}") from None
            except RegistryError as error:
                if self.timeout == Registry.timeout:
                    raise
                reason = str(error).partition('": ')[2]  # there is no registry, whatever it was asked for
                raise RegistryError(f'Get "{self.base}/v2/": {reason}') from None
            self.timeout = Registry.timeout
            if answer.status_code not in LATER or again == TRIES:
                break
            answer.close()
            self._pause(wait_before(again, answer.headers.get("Retry-After", "")))
        answer.raw.stream = partial(self._watched, answer.raw, urlsplit(url).netloc)  # type: ignore[method-assign]
        return answer

    def _watched(self, raw: Any, server: str, amount: int = _PIECE, decode_content: bool = True) -> Iterator[bytes]:
        """A body as it arrives, each piece as soon as it is there; an end of patience is no broken connection."""
        take = partial(raw.read1, decode_content=decode_content) if hasattr(raw, "read1") else raw._fp.read1
        since, came = time.monotonic(), 0
        try:
            while piece := take(amount):
                came += len(piece)
                yield piece
                if (now := time.monotonic()) - since > WINDOW:
                    if came < LEAST:
                        raise requests.exceptions.ReadTimeout(f"{server} sends less than {LEAST} bytes in {WINDOW} s")
                    self._drips, since, came = 0, now, 0
        except Exception as error:  # of requests, of what it is made of, or of what that is made of
            if came:
                self._drips = self._drips + 1 if came < LEAST else 0
            if self._drips > TRIES:
                raise RegistryError(f"{server} is too slow: each of the last {self._drips} answers brought less than "
                                    f"{LEAST} bytes before it dripped or broke off", "", 408) from None
            if isinstance(error, HTTPException):
                raise requests.exceptions.ConnectionError(error) from None
            raise
        self._drips = 0
        raw.release_conn()

    def travel(self, method: str, url: str, scope: str = "", data: bytes | Body | None = None,
               headers: dict[str, str] | None = None) -> requests.Response:
        """As the registry's. Raises BadInputError when a redirect leads to what is no address."""
        try:
            return super().travel(method, url, scope, data, headers)
        except ValueError as error:
            raise BadInputError(f"{self.base} sends us to what is no web address: {error}") from None

    def manifest(self, repository: str, reference: str) -> Manifest:
        """As the registry's. Raises BadInputError for one in a form that nobody takes any more."""
        manifest = super().manifest(repository, reference)
        if manifest.media_type.startswith(SCHEMA_1) or manifest.document.get("schemaVersion") == 1:
            raise BadInputError(f"the registry has {repository} in Docker's first format (image manifest version 2, "
                                "schema 1), whose support was removed everywhere: its author has to push it again")
        return manifest

    def blob(self, repository: str, digest: str, start: int = 0) -> requests.Response:
        """As the registry's; its bytes as they are stored, even where a storage calls them an encoding of others."""
        answer = super().blob(repository, digest, start)
        answer.raw.headers.pop("Content-Encoding", None)
        return answer

    def begin_upload(self, repository: str, digest: str = "", source: str = "") -> str:
        """As the registry's; a user who may not read `source` is no reason to give up: then it is an upload."""
        try:
            return super().begin_upload(repository, digest, source)
        except RegistryError as error:
            if not source or error.status not in (400, 401, 403, 404, 405):
                raise
            return super().begin_upload(repository)
        except ValueError as error:
            raise BadInputError(f"{self.base} begins an upload at what is no address: {error}") from None

    def send_chunk(self, repository: str, address: str, pieces: Open, start: int, size: int) -> str:
        """As the registry's; when the connection breaks, the registry says how far it came, and the rest is sent.

        Raises RegistryError when it refuses, or when several tries in a row brought nothing.
        """
        failures = 0
        while start < size:
            try:
                return super().send_chunk(repository, address, pieces, start, size)
            except RegistryError as error:
                if error.status not in (0, 416) or failures == TRIES:
                    raise
                self._pause(0.1 * 2 ** failures)
                before, start = start, self.received(repository, address)
                failures = 0 if start > before else failures + 1
        return address

    def received(self, repository: str, address: str) -> int:
        """end-13: how many bytes of an upload have arrived. Raises RegistryError, of status 404 when it is gone."""
        answer = self.request("GET", address, pushing(repository))
        first, _, last = answer.headers.get("Range", "").removeprefix("bytes=").partition("-")
        return int(last) + 1 if first == "0" and last.isdecimal() else 0


def wait_before(again: int, retry_after: str) -> float:
    """Seconds to wait before the try after the `again`-th: what the header Retry-After says (a number; it may also be a
    date, which is not believed), else 1, 2, 4 ... and never more than a minute. Source: RFC 9110 section 10.2.3."""
    seconds = float(retry_after) if retry_after.isdecimal() else 2.0 ** (again - 1)
    return min(seconds, LONGEST_WAIT)

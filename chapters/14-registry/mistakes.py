"""What is written instead, in chapter 14, and the message that must lead to each mistake."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from minirt.errors import BadInputError
from minirt.registry.auth import _PARAMETER, _SCHEME, CLIENT, Challenge, Credentials, basic, re
from minirt.registry.client import MOST_REDIRECTS, REDIRECTS, Body, Open, Registry, RegistryError, origin
from minirt.registry.pull import TRIES, pause, rest
from minirt.registry.push import EXISTS, MOUNTED, PUSHED, SMALL
from minirt.registry.server import Answer, Request, checked, receive, stored
from minirt.registry.storage import Storage


def parse_challenges__split_at_commas(header: str) -> list[Challenge]:
    """a comma between quotes belongs to the value"""
    scheme, _, rest = header.partition(" ")
    parameters = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        parameters[name.lower()] = value.strip('"')
    return [Challenge(scheme.lower(), parameters)]


def parse_challenges__only_the_first(header: str) -> list[Challenge]:
    """one header holds several challenges"""
    found = _SCHEME.match(header)
    if not found:
        return []
    pairs = {name.lower(): word or re.sub(r"\\(.)", r"\1", quoted)
             for name, quoted, word in _PARAMETER.findall(header[found.end():])}
    return [Challenge(found[1].lower(), pairs)]


def parse_challenges__backslashes_kept(header: str) -> list[Challenge]:
    """a backslash means the character after it"""
    challenges: list[Challenge] = []
    position = 0
    while position < len(header):
        if challenges and (found := _PARAMETER.match(header, position)):
            name, quoted, word = found.groups()
            challenges[-1].parameters[name.lower()] = quoted if quoted is not None else word
        elif found := _SCHEME.match(header, position):
            challenges.append(Challenge(found[1].lower(), {}))
        else:
            break
        position = found.end()
    return challenges


def parse_challenges__letters_as_they_come(header: str) -> list[Challenge]:
    """the scheme is told in small letters"""
    challenges: list[Challenge] = []
    position = 0
    while position < len(header):
        if challenges and (found := _PARAMETER.match(header, position)):
            name, quoted, word = found.groups()
            challenges[-1].parameters[name] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else word
        elif found := _SCHEME.match(header, position):
            challenges.append(Challenge(found[1], {}))
        else:
            break
        position = found.end()
    return challenges


def parse_challenges__an_empty_value_is_none(header: str) -> list[Challenge]:
    """a quoted value is None only if there is none"""
    challenges: list[Challenge] = []
    position = 0
    while position < len(header):
        if challenges and (found := _PARAMETER.match(header, position)):
            name, quoted, word = found.groups()
            challenges[-1].parameters[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted else word
        elif found := _SCHEME.match(header, position):
            challenges.append(Challenge(found[1].lower(), {}))
        else:
            break
        position = found.end()
    return challenges


def parse_challenges__what_cannot_be_read_ends_everything(header: str) -> list[Challenge]:
    """what stood before it remains"""
    challenges: list[Challenge] = []
    position = 0
    while position < len(header):
        if challenges and (found := _PARAMETER.match(header, position)):
            name, quoted, word = found.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else word
            challenges[-1].parameters[name.lower()] = value
        elif found := _SCHEME.match(header, position):
            challenges.append(Challenge(found[1].lower(), {}))
        else:
            return []
        position = found.end()
    return challenges



def token_request__password_in_the_query(challenge: Challenge, scope: str, credentials: Credentials,
                                         ) -> tuple[str, dict[str, Any]]:
    """so in every log on the way"""
    told: dict[str, Any] = {"service": challenge.parameters.get("service"), "scope": scope.split()}
    if credentials.user:
        told |= {"account": credentials.user, "password": credentials.password}
    return "GET", {"params": {key: value for key, value in told.items() if value}}


def token_request__always_shown(challenge: Challenge, scope: str, credentials: Credentials,
                                ) -> tuple[str, dict[str, Any]]:
    """nobody is logged in, so nothing is shown"""
    told: dict[str, Any] = {"service": challenge.parameters.get("service"), "scope": scope.split()}
    how = {"params": {key: value for key, value in told.items() if value}}
    how["headers"] = {"Authorization": basic(credentials)}
    return "GET", how


def token_request__scopes_in_one(challenge: Challenge, scope: str, credentials: Credentials,
                                 ) -> tuple[str, dict[str, Any]]:
    """two scopes, parted by a space, are two parameters"""
    told: dict[str, Any] = {"service": challenge.parameters.get("service"), "scope": scope}
    how: dict[str, Any] = {"params": {key: value for key, value in told.items() if value}}
    if credentials.user:
        how["headers"] = {"Authorization": basic(credentials)}
    return "GET", how


def token_request__identity_as_password(challenge: Challenge, scope: str, credentials: Credentials,
                                        ) -> tuple[str, dict[str, Any]]:
    """an identity token is shown in the form of a POST"""
    told: dict[str, Any] = {"service": challenge.parameters.get("service"), "scope": scope.split()}
    how: dict[str, Any] = {"params": {key: value for key, value in told.items() if value}}
    if credentials.user:
        shown = Credentials(credentials.user, credentials.password or credentials.identity)
        how["headers"] = {"Authorization": basic(shown)}
    return "GET", how


def token_request__empty_ones_told(challenge: Challenge, scope: str, credentials: Credentials,
                                   ) -> tuple[str, dict[str, Any]]:
    """no service and no scope: tell none of them"""
    service = challenge.parameters.get("service", "")
    if credentials.identity:
        return "POST", {"data": {"service": service, "scope": scope, "grant_type": "refresh_token",
                                 "refresh_token": credentials.identity, "client_id": CLIENT}}
    how: dict[str, Any] = {"params": {"service": service, "scope": scope.split()}}
    if credentials.user:
        how["headers"] = {"Authorization": basic(credentials)}
    return "GET", how


def token_request__a_list_in_the_form(challenge: Challenge, scope: str, credentials: Credentials,
                                      ) -> tuple[str, dict[str, Any]]:
    """a form has one `scope`"""
    told: dict[str, Any] = {"service": challenge.parameters.get("service"), "scope": scope.split()}
    if credentials.identity:
        told |= {"grant_type": "refresh_token", "refresh_token": credentials.identity, "client_id": CLIENT}
        return "POST", {"data": {key: value for key, value in told.items() if value}}
    how = {"params": {key: value for key, value in told.items() if value}}
    if credentials.user:
        how["headers"] = {"Authorization": basic(credentials)}
    return "GET", how



def Registry__travel__credentials_everywhere(self: Registry, method: str, url: str, scope: str = "",
                                             data: bytes | Body | None = None,
                                             headers: dict[str, str] | None = None) -> requests.Response:
    """whoever gets a registry to redirect now has its token"""
    for _ in range(MOST_REDIRECTS):
        answer = self.send(method, url, {**(headers or {}), **self.wallet.header(scope)}, data)
        if answer.status_code not in REDIRECTS or method not in ("GET", "HEAD"):
            return answer
        answer.close()
        there = urljoin(url, answer.headers.get("Location", ""))
        if urlsplit(url).scheme == "https" and urlsplit(there).scheme != "https":
            raise BadInputError(f"{there} is not encrypted")
        url = there
    raise BadInputError("too many redirects")


def Registry__travel__begins_like_the_registry(self: Registry, method: str, url: str, scope: str = "",
                                               data: bytes | Body | None = None,
                                               headers: dict[str, str] | None = None) -> requests.Response:
    """scheme, host and port must all be the registry's"""
    for _ in range(MOST_REDIRECTS):
        mine = self.wallet.header(scope) if url.startswith(self.base) else {}
        answer = self.send(method, url, {**(headers or {}), **mine}, data)
        if answer.status_code not in REDIRECTS or method not in ("GET", "HEAD"):
            return answer
        answer.close()
        there = urljoin(url, answer.headers.get("Location", ""))
        if urlsplit(url).scheme == "https" and urlsplit(there).scheme != "https":
            raise BadInputError(f"{there} is not encrypted")
        url = there
    raise BadInputError("too many redirects")


def Registry__travel__location_taken_as_it_is(self: Registry, method: str, url: str, scope: str = "",
                                              data: bytes | Body | None = None,
                                              headers: dict[str, str] | None = None) -> requests.Response:
    """a Location may leave out the host"""
    for _ in range(MOST_REDIRECTS):
        mine = self.wallet.header(scope) if origin(url) == origin(self.base) else {}
        answer = self.send(method, url, {**(headers or {}), **mine}, data)
        if answer.status_code not in REDIRECTS or method not in ("GET", "HEAD"):
            return answer
        answer.close()
        url = answer.headers["Location"]
    raise BadInputError("too many redirects")


def Registry__travel__into_the_open(self: Registry, method: str, url: str, scope: str = "",
                                    data: bytes | Body | None = None,
                                    headers: dict[str, str] | None = None) -> requests.Response:
    """where everybody on the way can read and change what comes"""
    for _ in range(MOST_REDIRECTS):
        mine = self.wallet.header(scope) if origin(url) == origin(self.base) else {}
        answer = self.send(method, url, {**(headers or {}), **mine}, data)
        if answer.status_code not in REDIRECTS or method not in ("GET", "HEAD"):
            return answer
        answer.close()
        url = urljoin(url, answer.headers.get("Location", ""))
    raise BadInputError("too many redirects")


def Registry__travel__writing_is_sent_on_too(self: Registry, method: str, url: str, scope: str = "",
                                             data: bytes | Body | None = None,
                                             headers: dict[str, str] | None = None) -> requests.Response:
    """a PUT followed the redirect"""
    for _ in range(MOST_REDIRECTS):
        mine = self.wallet.header(scope) if origin(url) == origin(self.base) else {}
        answer = self.send(method, url, {**(headers or {}), **mine}, data)
        if answer.status_code not in REDIRECTS:
            return answer
        answer.close()
        there = urljoin(url, answer.headers.get("Location", ""))
        if urlsplit(url).scheme == "https" and urlsplit(there).scheme != "https":
            raise BadInputError(f"{there} is not encrypted")
        url = there
    raise BadInputError("too many redirects")


def Registry__travel__for_ever(self: Registry, method: str, url: str, scope: str = "",
                               data: bytes | Body | None = None,
                               headers: dict[str, str] | None = None) -> requests.Response:
    """travel() asks again and again"""
    while True:
        mine = self.wallet.header(scope) if origin(url) == origin(self.base) else {}
        answer = self.send(method, url, {**(headers or {}), **mine}, data)
        if answer.status_code not in REDIRECTS or method not in ("GET", "HEAD"):
            return answer
        answer.close()
        there = urljoin(url, answer.headers.get("Location", ""))
        if urlsplit(url).scheme == "https" and urlsplit(there).scheme != "https":
            raise BadInputError(f"{there} is not encrypted")
        url = there


def Registry__travel__where_we_began(self: Registry, method: str, url: str, scope: str = "",
                                     data: bytes | Body | None = None,
                                     headers: dict[str, str] | None = None) -> requests.Response:
    """where we are counts"""
    for _ in range(MOST_REDIRECTS):
        mine = self.wallet.header(scope) if origin(url) == origin(self.base) else {}
        answer = self.send(method, url, {**(headers or {}), **mine}, data)
        if answer.status_code not in REDIRECTS or method not in ("GET", "HEAD"):
            return answer
        answer.close()
        url = urljoin(url, answer.headers.get("Location", ""))
        if urlsplit(self.base).scheme == "https" and urlsplit(url).scheme != "https":
            raise BadInputError(f"{url} is not encrypted")
    raise BadInputError("too many redirects")


def Registry__travel__whatever_begins_with_3(self: Registry, method: str, url: str, scope: str = "",
                                             data: bytes | Body | None = None,
                                             headers: dict[str, str] | None = None) -> requests.Response:
    """304 is no redirect"""
    for _ in range(MOST_REDIRECTS):
        mine = self.wallet.header(scope) if origin(url) == origin(self.base) else {}
        answer = self.send(method, url, {**(headers or {}), **mine}, data)
        if answer.status_code // 100 != 3 or method not in ("GET", "HEAD"):
            return answer
        answer.close()
        there = urljoin(url, answer.headers.get("Location", ""))
        if urlsplit(url).scheme == "https" and urlsplit(there).scheme != "https":
            raise BadInputError(f"{there} is not encrypted")
        url = there
    raise BadInputError("too many redirects")



def fetch__from_the_beginning_again(registry: Registry, repository: str, descriptor: dict[str, Any], start: int = 0,
                                    ) -> Iterator[bytes]:
    """bytes came a second time"""
    first, failures = start, 0
    while True:
        done = first
        try:
            for piece in rest(registry, repository, descriptor, first):
                done += len(piece)
                yield piece
            if done == descriptor["size"]:
                return
        except (RegistryError, OSError) as error:
            if getattr(error, "status", 0):
                raise
        failures = failures + 1
        if failures == TRIES:
            raise RegistryError(f"broke off at byte {done}")
        pause(failures)


def fetch__one_request(registry: Registry, repository: str, descriptor: dict[str, Any], start: int = 0,
                       ) -> Iterator[bytes]:
    """the rest was not asked for"""
    try:
        yield from rest(registry, repository, descriptor, start)
    except OSError:
        pass


def fetch__an_early_end_is_the_end(registry: Registry, repository: str, descriptor: dict[str, Any], start: int = 0,
                                   ) -> Iterator[bytes]:
    """an answer that ends too early"""
    failures = 0
    while True:
        before = start
        try:
            for piece in rest(registry, repository, descriptor, start):
                start += len(piece)
                yield piece
            return
        except (RegistryError, OSError) as error:
            if getattr(error, "status", 0):
                raise
        failures = 0 if start > before else failures + 1
        if failures == TRIES:
            raise RegistryError(f"broke off at byte {start}")
        if failures:
            pause(failures)


def fetch__every_break_counts(registry: Registry, repository: str, descriptor: dict[str, Any], start: int = 0,
                              ) -> Iterator[bytes]:
    """only requests *in a row that bring nothing* are failures"""
    failures = 0
    while start < descriptor["size"]:
        try:
            for piece in rest(registry, repository, descriptor, start):
                start += len(piece)
                yield piece
        except (RegistryError, OSError) as error:
            if getattr(error, "status", 0):
                raise
        failures += 1
        if failures == TRIES:
            return


def fetch__for_ever(registry: Registry, repository: str, descriptor: dict[str, Any], start: int = 0,
                    ) -> Iterator[bytes]:
    """TRIES requests that bring nothing are the end"""
    while start < descriptor["size"]:
        try:
            for piece in rest(registry, repository, descriptor, start):
                start += len(piece)
                yield piece
        except (RegistryError, OSError) as error:
            if getattr(error, "status", 0):
                raise


def fetch__a_refusal_is_tried_again(registry: Registry, repository: str, descriptor: dict[str, Any], start: int = 0,
                                    ) -> Iterator[bytes]:
    """the registry said 404"""
    failures = 0
    while start < descriptor["size"]:
        before = start
        try:
            for piece in rest(registry, repository, descriptor, start):
                start += len(piece)
                yield piece
        except (RegistryError, OSError):
            pass
        failures = 0 if start > before else failures + 1
        if failures == TRIES:
            raise RegistryError(f"broke off at byte {start}")
        if failures:
            pause(failures)


def push_blob__always_brought(registry: Registry, repository: str, descriptor: dict[str, Any], pieces: Open,
                              neighbours: Iterable[str] = ()) -> tuple[str, str]:
    """bring it once"""
    address = registry.begin_upload(repository)
    registry.finish_upload(repository, address, descriptor["digest"], b"".join(pieces(0)))
    return PUSHED, ""


def push_blob__held_whole(registry: Registry, repository: str, descriptor: dict[str, Any], pieces: Open,
                          neighbours: Iterable[str] = ()) -> tuple[str, str]:
    """and are never held whole"""
    if registry.has_blob(repository, descriptor["digest"]):
        return EXISTS, ""
    address = registry.begin_upload(repository)
    registry.finish_upload(repository, address, descriptor["digest"], b"".join(pieces(0)))
    return PUSHED, ""


def push_blob__finished_at_the_old_address(registry: Registry, repository: str, descriptor: dict[str, Any],
                                           pieces: Open, neighbours: Iterable[str] = ()) -> tuple[str, str]:
    """send_chunk() gives the address to finish at"""
    digest = descriptor["digest"]
    if registry.has_blob(repository, digest):
        return EXISTS, ""
    address = registry.begin_upload(repository)
    if descriptor["size"] <= SMALL:
        registry.finish_upload(repository, address, digest, b"".join(pieces(0)))
    else:
        registry.send_chunk(repository, address, pieces, 0, descriptor["size"])
        registry.finish_upload(repository, address, digest)
    return PUSHED, ""


def push_blob__first_neighbour_only(registry: Registry, repository: str, descriptor: dict[str, Any], pieces: Open,
                                    neighbours: Iterable[str] = ()) -> tuple[str, str]:
    """ask each neighbour, until one has it"""
    digest = descriptor["digest"]
    if registry.has_blob(repository, digest):
        return EXISTS, ""
    address = ""
    for source in neighbours:
        address = registry.begin_upload(repository, digest, source)
        if not address:
            return MOUNTED, source
        break
    address = address or registry.begin_upload(repository)
    if descriptor["size"] <= SMALL:
        registry.finish_upload(repository, address, digest, b"".join(pieces(0)))
    else:
        address = registry.send_chunk(repository, address, pieces, 0, descriptor["size"])
        registry.finish_upload(repository, address, digest)
    return PUSHED, ""


def push_blob__a_second_upload(registry: Registry, repository: str, descriptor: dict[str, Any], pieces: Open,
                               neighbours: Iterable[str] = ()) -> tuple[str, str]:
    """the registry began an upload where it could not mount"""
    digest = descriptor["digest"]
    if registry.has_blob(repository, digest):
        return EXISTS, ""
    for source in neighbours:
        if not registry.begin_upload(repository, digest, source):
            return MOUNTED, source
    address = registry.begin_upload(repository)
    if descriptor["size"] <= SMALL:
        registry.finish_upload(repository, address, digest, b"".join(pieces(0)))
    else:
        address = registry.send_chunk(repository, address, pieces, 0, descriptor["size"])
        registry.finish_upload(repository, address, digest)
    return PUSHED, ""


def push_blob__small_is_less_than_small(registry: Registry, repository: str, descriptor: dict[str, Any], pieces: Open,
                                        neighbours: Iterable[str] = ()) -> tuple[str, str]:
    """*at most* SMALL bytes"""
    digest, size, address = descriptor["digest"], descriptor["size"], ""
    if registry.has_blob(repository, digest):
        return EXISTS, ""
    for source in neighbours:
        address = registry.begin_upload(repository, digest, source)
        if not address:
            return MOUNTED, source
    address = address or registry.begin_upload(repository)
    if size < SMALL:
        registry.finish_upload(repository, address, digest, b"".join(pieces(0)))
    else:
        address = registry.send_chunk(repository, address, pieces, 0, size)
        registry.finish_upload(repository, address, digest)
    return PUSHED, ""



def finish_upload__body_forgotten(storage: Storage, request: Request, name: str, identifier: str) -> Answer:
    """the request's body belongs to the upload"""
    digest = checked(request.query.get("digest", ""))
    with storage.repository(name).upload(identifier, request.user) as upload:
        upload.finish(digest)
    return stored(name, "blobs", digest)


def finish_upload__received_and_not_shown(storage: Storage, request: Request, name: str, identifier: str) -> Answer:
    """the upload's finish() shows it"""
    digest = checked(request.query.get("digest", ""))
    with storage.repository(name).upload(identifier, request.user) as upload:
        receive(upload, request)
    return stored(name, "blobs", digest)


def finish_upload__accepted(storage: Storage, request: Request, name: str, identifier: str) -> Answer:
    """that is 201, Created"""
    digest = checked(request.query.get("digest", ""))
    with storage.repository(name).upload(identifier, request.user) as upload:
        receive(upload, request)
        upload.finish(digest)
    return Answer(202, {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})


def finish_upload__digest_checked_late(storage: Storage, request: Request, name: str, identifier: str) -> Answer:
    """check the digest before anything is received"""
    digest = request.query.get("digest", "")
    with storage.repository(name).upload(identifier, request.user) as upload:
        receive(upload, request)
        upload.finish(digest)
    return stored(name, "blobs", digest)


def finish_upload__anybody_s(storage: Storage, request: Request, name: str, identifier: str) -> Answer:
    """look for the upload of request.user"""
    digest = checked(request.query.get("digest", ""))
    with storage.repository(name).upload(identifier, "") as upload:
        receive(upload, request)
        upload.finish(digest)
    return stored(name, "blobs", digest)


def finish_upload__not_held(storage: Storage, request: Request, name: str, identifier: str) -> Answer:
    """hold it yourself, by `with`"""
    digest = checked(request.query.get("digest", ""))
    upload = storage.repository(name).upload(identifier, request.user)
    with open(upload.path, "ab") as file:
        for piece in request.body:
            file.write(piece)
        upload.fd = file.fileno()
        file.flush()
        upload.finish(digest)
    return stored(name, "blobs", digest)

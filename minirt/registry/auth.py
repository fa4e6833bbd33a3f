"""Chapter 14: who is asking.

A registry does not ask for a password first. It answers the plain request with 401 and a *challenge*, which says what
it wants to see:

    WWW-Authenticate: Basic realm="our registry"
    WWW-Authenticate: Bearer realm="https://auth.example.com/token",service="registry.example.com",
                             scope="repository:team/tool:pull"

*Basic* wants name and password with each request. *Bearer* is a dance of three: the client goes to the address called
realm, a server that is not the registry, shows name and password (or nothing, for what is public), and gets a *token*,
a signed note that allows these actions on this repository for some minutes; the registry sees the note and never the
password. Who logged in once may hold an *identity token* instead of a password: it is shown in a form, by POST.

Rules of the room: a password goes to the registry it was kept for, or to the realm that this registry names, and never
from an encrypted connection to an open one; nothing here can be printed by accident (`repr` hides the secrets).

Sources: RFC 9110 section 11.6.1 (challenges), RFC 7617 (Basic), RFC 6749 (the form), distribution's "Token
Authentication Specification" (docs/spec/auth/token.md, oauth.md).
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minirt import trace
from minirt.errors import BadInputError

if TYPE_CHECKING:
    Ask = Callable[..., Any]

CHAPTER = 14

CLIENT = "minirt"
_SHORTEST = 60  # seconds that a token holds when nobody says (token.md: "expires_in")
# A challenge's scheme, and its parameters: name=word or name="quoted, with \" in it".
_SCHEME = re.compile(r"\s*,?\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?=[\s,]|$)")
_PARAMETER = re.compile(r"\s*,?\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))")


@dataclass(frozen=True)
class Credentials:
    """What a user can show to one registry: name and password, or an identity token."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)


@dataclass(frozen=True)
class Challenge:
    """What a registry wants to see: `scheme` in small letters, `parameters` by their names in small letters."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a WWW-Authenticate header, in order; several stand in one header, parted by commas.

    `header`: as `Basic realm="a, b"` or `Bearer realm="https://h/token",service=s`. A parameter's value is a word, or
    quoted, and then it may hold commas, and a backslash before a character that is meant literally. What cannot be
    read ends the list. `_SCHEME` and `_PARAMETER` match at one place of it. Source: RFC 9110 section 11.6.1.
    """
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
            break
        position = found.end()
    return challenges


def basic(credentials: Credentials) -> str:
    """The Authorization header that shows name and password: the word Basic, a space, and the base64 of NAME:PASSWORD
    in UTF-8. Source: RFC 7617 section 2."""
    return "Basic " + base64.b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()


def token_request(challenge: Challenge, scope: str, credentials: Credentials) -> tuple[str, dict[str, Any]]:
    """How to ask for a token: the method, and what `requests` takes by name.

    Always told are the challenge's `service` (when it has one) and the `scope`, as `repository:team/tool:pull` ("" for
    none, several parted by spaces). With an identity token it is a POST with a form (`data`) that tells also
    `grant_type` refresh_token, `refresh_token` and `client_id`; else a GET, all of it in the query (`params`, the
    scopes as a list), with `headers` that show name and password as `basic` does, if there is a name. Sources: RFC 7617
    section 2, RFC 6749 section 6; distribution's token.md "Requesting a Token", oauth.md.
    """
    told: dict[str, Any] = {"service": challenge.parameters.get("service"), "scope": scope}
    if credentials.identity:
        told |= {"grant_type": "refresh_token", "refresh_token": credentials.identity, "client_id": CLIENT}
        return "POST", {"data": {key: value for key, value in told.items() if value}}
    told["scope"] = scope.split()
    how = {"params": {key: value for key, value in told.items() if value}}
    if credentials.user:
        how["headers"] = {"Authorization": basic(credentials)}
    return "GET", how


class Wallet:
    """What a client shows to one registry: it knows the user's credentials and remembers tokens, one for each scope.

    `base` is the registry's address; `ask(method, url, **what requests takes)` gets a JSON document of a token server.
    """

    def __init__(self, base: str, ask: Ask, credentials: Credentials) -> None:
        self._base, self._ask, self.credentials = base, ask, credentials
        self._basic = False
        self._tokens: dict[str, tuple[str, float]] = {}  # scope -> token, when it ends

    def header(self, scope: str) -> dict[str, str]:
        """The header to show without being asked: what satisfied this registry before, for the same scope."""
        if self._basic:
            return {"Authorization": basic(self.credentials)}
        token, end = self._tokens.get(scope, ("", 0.0))
        return {"Authorization": f"Bearer {token}"} if token and time.monotonic() < end else {}

    def answer(self, header: str, scope: str) -> bool:
        """Get what the challenges in `header` want; whether there is something new to show now.

        Raises MinirtError when the token server refuses or cannot be reached.
        """
        for challenge in parse_challenges(header):
            if challenge.scheme == "bearer":
                token, seconds = self._fetch_token(challenge, scope)
                self._tokens[scope] = (token, time.monotonic() + seconds)
                return True
            if challenge.scheme == "basic" and self.credentials.user and not self._basic:
                self._basic = True
                return True
        return False

    def _fetch_token(self, challenge: Challenge, scope: str) -> tuple[str, float]:
        """(a token for `scope`, the seconds that it holds)"""
        realm = challenge.parameters.get("realm", "")
        if not realm.startswith(("https://", "http://")):
            raise BadInputError(f"{self._base} wants a token but does not say from where: realm=\"{realm[:100]}\"")
        if self._base.startswith("https:") and realm.startswith("http:"):
            raise BadInputError(f"{self._base} sends its users to {realm[:100]}, which is not encrypted: no password "
                                "and no token goes that way")
        method, how = token_request(challenge, scope, self.credentials)
        trace.step(CHAPTER, f"get a token for {scope or 'nothing in particular'}", f"{method} {realm}")
        answer = self._ask(method, realm, **how)
        token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not (token.isascii() and token.isprintable()):
            raise BadInputError(f"{realm[:100]} gives no token")
        seconds = answer.get("expires_in")
        return token, max(_SHORTEST, seconds if isinstance(seconds, (int, float)) else 0) * 0.9

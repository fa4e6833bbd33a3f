"""Chapter 14, beyond: where credentials are kept: in Docker's own file, so `docker login` is `minirt login`.

    ~/.docker/config.json ($DOCKER_CONFIG/config.json):
        {"auths": {"registry.lan": {"auth": "base64 of NAME:PASSWORD"}}}   as it is: readable for whoever reads the file
        {"credsStore": "pass"}, {"credHelpers": {"registry.lan": "ecr"}}   the program docker-credential-pass keeps them

A helper is a program with three verbs, which talks JSON by its standard input and output: so no password is in any
process list.

Rules of the room: the file belongs to several tools; what is not ours is kept as it is, it is replaced whole, and
nobody but its owner can read it.

Sources: github.com/docker/docker-credential-helpers ("Development"), docker-login(1).
"""

from __future__ import annotations

import base64
import os
import subprocess
from typing import Any

from minirt import state
from minirt.errors import BadInputError, MinirtError
from minirt.registry.auth import Credentials

_TOKEN = "<token>"  # the user's name under which a helper keeps an identity token
_NOT_FOUND = "credentials not found in native keychain"


def path() -> str:
    """Where the file is, or would be."""
    return (os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")) + "/config.json"


def read() -> dict[str, Any]:
    """The file, {} when there is none. Raises BadInputError when it is broken."""
    try:
        document = state.read_json(path())
    except FileNotFoundError:
        return {}
    except ValueError as error:  # with the path
        raise BadInputError(str(error)) from None
    if not isinstance(document, dict) or not isinstance(document.get("auths") or {}, dict):
        raise BadInputError(f"{path()} does not have the form of Docker's configuration")
    return document


def find(server: str) -> Credentials:
    """The credentials kept for a server (`localhost:5000`, `https://index.docker.io/v1/`); empty ones for none.

    Raises MinirtError when a helper fails.
    """
    document = read()
    helper = helper_for(document, server)
    if helper:
        return _ask(helper, server)
    for name, entry in (document.get("auths") or {}).items():
        if _host(name) == _host(server) and isinstance(entry, dict):
            return _decode(entry)
    return Credentials()


def store(server: str, given: Credentials) -> str:
    """Keep credentials for a server; where: the helper's name, or "" for the file itself."""
    document = read()
    helper = helper_for(document, server)
    auths = dict(document.get("auths") or {})
    if helper:
        user, secret = (_TOKEN, given.identity) if given.identity else (given.user, given.password)
        told = {"ServerURL": server, "Username": user, "Secret": secret}
        _run(helper, "store", state.dumps(told))
        auths[server] = {}
    else:
        secret = "" if given.identity else given.password
        auths[server] = {"auth": base64.b64encode(f"{given.user}:{secret}".encode()).decode()}
        if given.identity:
            auths[server]["identitytoken"] = given.identity
    _write({**document, "auths": auths})
    return helper


def erase(server: str) -> bool:
    """Forget the credentials for a server; whether there were any."""
    document = read()
    helper = helper_for(document, server)
    auths = {name: entry for name, entry in (document.get("auths") or {}).items() if _host(name) != _host(server)}
    known = len(auths) != len(document.get("auths") or {})
    if helper:
        known = bool(_ask(helper, server) != Credentials()) or known
        _run(helper, "erase", server)
    if known:
        _write({**document, "auths": auths})
    return known


def helper_for(document: dict[str, Any], server: str) -> str:
    """The helper that keeps the credentials for a server, "" for none: its own, or the one for all."""
    return str((document.get("credHelpers") or {}).get(server) or document.get("credsStore") or "")


def _host(server: str) -> str:
    """`https://registry.lan/v1/` and `registry.lan` are the same server."""
    return server.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _decode(entry: dict[str, Any]) -> Credentials:
    user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except (ValueError, TypeError):
            raise BadInputError(f"{path()}: an entry of auths is not the base64 of NAME:PASSWORD") from None
    return Credentials(user, password.rstrip("\0"), str(entry.get("identitytoken") or ""))


def _ask(helper: str, server: str) -> Credentials:
    answer = _run(helper, "get", server)
    if not answer:
        return Credentials()
    try:
        found = state.loads(answer)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError):
        raise MinirtError(f"the credential helper docker-credential-{helper} does not answer as one") from None
    return Credentials("", "", secret) if user == _TOKEN else Credentials(user, secret)


def _run(helper: str, verb: str, told: str) -> str:
    """What a helper answers, "" when it knows nothing. Raises MinirtError; what it was told is in no sentence."""
    program = f"docker-credential-{helper}"
    if "/" in helper:
        raise BadInputError(f"{path()}: '{helper}' is no name of a credential helper")
    try:
        done = subprocess.run([program, verb], input=told.encode(), capture_output=True, check=False, timeout=60)
    except FileNotFoundError:
        raise MinirtError(f"{path()} names the credential helper {helper}, but {program} is not on PATH") from None
    except subprocess.TimeoutExpired:
        raise MinirtError(f"the credential helper {program} did not answer within a minute") from None
    answer = done.stdout.decode(errors="replace").strip()
    if done.returncode and _NOT_FOUND in answer:
        return ""
    if done.returncode:
        raise MinirtError(f"{program} {verb} failed with status {done.returncode}")
    return answer


def _write(document: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(path()), 0o700, exist_ok=True)
    place = os.path.realpath(path())  # a link to it stays one
    state.write_atomic(place, state.dumps(document, indent=4).encode() + b"\n", mode=0o600)

"""A registry that wants tokens: the other side of the dance.

    tokens.py HOST:PORT DIRECTORY NAME:PASSWORD

One program plays both servers, the registry and the one that gives tokens. Everybody may read; who shows name and
password may write too. A token is a note, signed with a key that only these two servers have: the registry believes
what it says without asking anybody. (Docker Hub's are signed with a private key, and say when they end.)
"""

import base64
import hmac
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs

from minirt.kernel import process
from minirt.registry import auth, discover, serve
from minirt.registry.server import Answer, Request, Routes, as_json
from minirt.registry.storage import Refused, Storage

KEY = os.urandom(32)


def sign(note: dict[str, list[str]]) -> str:
    """A note that anybody can read and nobody can change."""
    text = base64.urlsafe_b64encode(json.dumps(note).encode())
    return f"{text.decode()}.{hmac.digest(KEY, text, 'sha256').hex()}"


def read(token: str) -> dict[str, list[str]]:
    """What a token allows: repository -> actions; nothing for one that we did not sign."""
    text, _, signature = token.partition(".")
    if not hmac.compare_digest(signature.encode(), hmac.digest(KEY, text.encode(), "sha256").hex().encode()):
        return {}
    found: dict[str, list[str]] = json.loads(base64.urlsafe_b64decode(text))
    return found


def give_token(users: dict[str, str]) -> Callable[..., Answer]:
    """GET /token?scope=repository:NAME:ACTIONS: what a visitor may do of what it asks for, as a signed note."""
    known = {auth.basic(auth.Credentials(name, password)) for name, password in users.items()}

    def give(storage: Storage, request: Request) -> Answer:
        shown = request.headers.get("Authorization")
        if shown and shown not in known:
            raise Refused("UNAUTHORIZED", "incorrect username or password")
        note = {"": ["pull"]}
        for scope in " ".join(parse_qs(request.target.partition("?")[2]).get("scope", [])).split():
            _, name, actions = scope.split(":")
            note[name] = [each for each in actions.split(",") if shown or each == "pull"]
        return as_json({"token": sign(note), "expires_in": 300})

    return give


def guarded(function: Callable[..., Answer]) -> Callable[..., Answer]:
    """The same answer, for those who show a token that allows it."""
    def answer(storage: Storage, request: Request, **pieces: str) -> Answer:
        name, action = pieces.get("name", ""), "pull" if request.method in ("GET", "HEAD") else "push"
        if action in read(request.headers.get("Authorization", "").removeprefix("Bearer ")).get(name, ()):
            return function(storage, request, **pieces)
        challenge = f'Bearer realm="http://{request.headers["Host"]}/token",service="our-registry"'
        if name:
            challenge += f',scope="repository:{name}:{"pull" if action == "pull" else "pull,push"}"'
        raise Refused("UNAUTHORIZED", "show a token", {"WWW-Authenticate": challenge})

    return answer


def routes(users: dict[str, str]) -> Routes:
    """The table of chapter 14's registry, with a guard before each row, and one row more."""
    table = tuple((verb, path, guarded(function) if function else None) for verb, path, function in discover.routes())
    return (("GET", "/token", give_token(users)), *table)


def listen(address: str, directory: str, table: Routes, quiet: bool = True) -> serve.Listener:
    """A registry at HOST:PORT that answers by this table."""
    host, _, port = address.rpartition(":")
    return serve.Listener((host, int(port)), Storage(directory), serve.Settings(table, quiet=quiet))


@contextmanager
def running(directory: str, user: auth.Credentials) -> Iterator[str]:
    """HOST:PORT of a registry that wants tokens, in a process of its own, as long as the `with` lasts."""
    listener = listen("127.0.0.1:0", directory, routes({user.user: user.password}))
    pid = process.fork_call(lambda: serve.serve(listener))
    try:
        yield f"127.0.0.1:{listener.address[1]}"
    finally:
        os.kill(pid, signal.SIGTERM)
        process.wait(pid)


if __name__ == "__main__":
    address, directory, known = sys.argv[1:]
    serve.serve(listen(address, directory, routes(dict([known.split(":", 1)]))))

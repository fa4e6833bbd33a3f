"""Chapter 14: who may use a registry: a file of users and passwords, as `htpasswd -B` writes it.

A line is `USER:HASH`; the hash is bcrypt's (`$2y$COST$...`), as docker-registry wants it too. It is meant to be slow
(some ms to some 100 ms, by its cost), so a password that was right is remembered: as a keyed digest, in memory. Weaker
hashes (MD5, SHA-1, plain) are refused with a sentence: a file that has leaked would give the passwords away.

bcrypt is not in Python's library; it is in the C library's crypt(3) (libxcrypt, on every Linux distribution today), and
where that one is missing, the package `bcrypt` serves.

Sources: RFC 7617 (Basic); htpasswd(1); crypt(5).
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import hmac
import os
import threading
from collections.abc import Callable
from functools import partial

from minirt.errors import BadInputError, MinirtError

BCRYPT = ("$2y$", "$2b$", "$2a$")
CHECKS_AT_ONCE = 2  # slow on purpose, so that guesses do not take the machine
REMEMBERED = 1000


class Users:
    """The users of the file at `path`; a file that has changed is read again. Raises MinirtError where it is no such
    file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._crypt = _bcrypt()
        self._key = os.urandom(32)
        self._right: set[bytes] = set()
        self._stamp: tuple[int, int, int] | None = None
        self._hashes: dict[str, str] = {}
        self._checks = threading.Semaphore(CHECKS_AT_ONCE)
        self._reading = threading.Lock()
        self._read()

    def _read(self) -> dict[str, str]:
        with self._reading:
            try:
                found = os.stat(self.path)
                stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
                if stamp != self._stamp:
                    with open(self.path, encoding="utf-8") as file:
                        self._hashes = _parse(self.path, file.read())
                    self._stamp, self._right = stamp, set()
            except (OSError, UnicodeDecodeError) as error:
                raise MinirtError(f"the file of users {self.path}: {getattr(error, 'strerror', error)}") from None
            return self._hashes

    def check(self, authorization: str) -> str | None:
        """The user whom a header `Authorization: Basic ...` names, if the password is right, else None."""
        scheme, _, coded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            user, colon, password = base64.b64decode(coded.strip(), validate=True).decode().partition(":")
        except ValueError:
            return None
        if not colon or "\0" in password:
            return None
        try:
            hashes = self._read()
        except MinirtError:  # being replaced, or broken since: nobody comes in
            return None
        kept = hashes.get(user)
        mark = hmac.digest(self._key, f"{user}:{kept}:{password}".encode(), hashlib.sha256)
        if kept is not None and mark in self._right:
            return user
        with self._checks:  # an unknown user takes as long as a wrong password
            made = self._crypt(password.encode(), (kept or next(iter(hashes.values()), _NOBODY)).encode())
        if kept is None or not hmac.compare_digest(made, kept.encode()):
            return None
        if len(self._right) >= REMEMBERED:
            self._right.clear()
        self._right.add(mark)
        return user


_NOBODY = "$2y$05$minirtminirtminirtmine3NktyEJ5eC6RSHYH7OS5BqRqCr6Jkm."


def _parse(path: str, text: str) -> dict[str, str]:
    users = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, kept = line.strip().partition(":")
        if not colon or not user:
            raise BadInputError(f"{path}, line {number}: not USER:HASH, as htpasswd -B writes it")
        if not kept.startswith(BCRYPT) or len(kept) != 60:
            raise BadInputError(f"{path}, line {number}: the password of {user} is not hashed with bcrypt; make the "
                                f"line anew with: htpasswd -B {path} {user}")
        users[user] = kept
    return users


def _crypt(library: ctypes.CDLL, password: bytes, salt: bytes) -> bytes:
    room = ctypes.create_string_buffer(32768)  # sizeof(struct crypt_data), crypt(3)
    return library.crypt_r(password, salt, room) or b""


def _bcrypt() -> Callable[[bytes, bytes], bytes]:
    """A function (password, a hash to take the salt from) -> hash. Raises MinirtError where this machine has none."""
    for name in ("libcrypt.so.1", "libcrypt.so.2"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.crypt_r.restype = ctypes.c_char_p
        library.crypt_r.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p)
        crypt = partial(_crypt, library)
        if crypt(b"", _NOBODY.encode()).startswith(b"$2y$"):
            return crypt
    try:
        import bcrypt
    except ImportError:
        raise MinirtError("--auth needs bcrypt, and neither this machine's libcrypt.so.1 has it nor is there a Python "
                          "package bcrypt: install one of them (pip install bcrypt)") from None
    return lambda password, salt: bcrypt.hashpw(password[:72], b"$2b$" + salt[4:]).replace(b"$2b$", salt[:4], 1)

"""Chapter 14, beyond: `login` and `logout`: credentials are tried before they are kept.

Source: docker-login(1).
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable

from minirt.errors import MinirtError
from minirt.registry import credentials, hosts
from minirt.registry.auth import Credentials
from minirt.registry.client import RegistryError

NO_TERMINAL = "Cannot perform an interactive login from a non TTY device"


def domain_of(server: str) -> str:
    """The domain that a user means by SERVER: a name, an address, or nothing for Docker Hub."""
    bare = server.removeprefix("https://").removeprefix("http://").rstrip("/")
    return "docker.io" if not bare or bare.startswith("index.docker.io") else bare.partition("/")[0]


def login(server: str, user: str, password: str, warn: Callable[[str], object]) -> None:
    """Try name and password at a registry and keep them; what is missing is asked on the terminal. `warn` is told what
    the user should know.

    Raises MinirtError when the registry refuses; then nothing is kept.
    """
    domain = domain_of(server)
    key = hosts.key(domain)
    known = credentials.find(key)
    kept = not user and not password and known != Credentials()
    given = known if kept else Credentials(*_ask(user, password))
    if kept:
        warn(f"Authenticating with existing credentials... [Username: {known.user}]")
    registry = hosts.connect(domain, given)
    try:
        registry.ping()
    except RegistryError as error:
        place = f"{registry.base}/v2/"
        if error.status == 401 and registry.wallet.header(""):  # name and password were shown to the registry itself
            raise MinirtError(f"login attempt to {place} failed with status: 401 Unauthorized ({error})") from None
        raise MinirtError(f'Get "{place}": {error}' if error.status else str(error)) from None
    if not kept and not credentials.store(key, given):
        warn(f"WARNING! Your credentials are stored unencrypted in '{credentials.path()}'; a credential helper "
             "(credsStore in that file) would encrypt them")


def _ask(user: str, password: str) -> tuple[str, str]:
    if (not user or not password) and not os.isatty(0):
        raise MinirtError(NO_TERMINAL)
    user = user or input("Username: ").strip()
    if not user:
        raise MinirtError("username is empty")
    password = password or getpass.getpass("Password: ")
    if not password:
        raise MinirtError("password is empty")
    return user, password


def logout(server: str) -> str:
    """Forget what is kept for a registry, if anything is. Docker's line."""
    key = hosts.key(domain_of(server))
    credentials.erase(key)
    return f"Removing login credentials for {key}"

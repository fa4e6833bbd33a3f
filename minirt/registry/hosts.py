"""Chapter 14, beyond: which server a name means, and how it may be reached.

The first part of an image's name is not always where its registry is: `docker.io` is served by registry-1.docker.io,
and its credentials are kept under an address that has been history since 2014. Which servers may be reached without
encryption, or with a certificate that nobody knows, is said in a file, in dockerd's words; without it only those on
this machine itself (loopback) may.

    /etc/minirt/config.json, an ordinary user's $XDG_CONFIG_HOME/minirt/config.json:
        {"insecure-registries": ["registry.lan:5000", "10.0.0.0/8"], "registry-mirrors": ["https://mirror.lan"]}
    /etc/minirt/certs.d/HOST:PORT/, /etc/docker/certs.d/HOST:PORT/:
        NAME.crt an authority to trust; NAME.cert with NAME.key who we are
    HTTP_PROXY, HTTPS_PROXY, NO_PROXY: as everywhere

Sources: dockerd(8) "--insecure-registry", "--registry-mirror"; Docker's manual, "Verify repository client with
certificates".
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.utils import get_environ_proxies

from minirt import state
from minirt.errors import BadInputError
from minirt.images import reference
from minirt.registry import credentials
from minirt.registry.client import read, unreachable
from minirt.registry.patience import Patient

HUB = "registry-1.docker.io"
HUB_KEY = "https://index.docker.io/v1/"  # where Docker keeps the Hub's credentials
AGENT = "minirt"
_AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
                "/etc/ssl/cert.pem")
HANDSHAKE = 5  # seconds in which a server on this machine must say whether it speaks TLS
_CERTIFICATES = ("/etc/minirt/certs.d", "/etc/docker/certs.d")


def server(domain: str) -> str:
    """HOST or HOST:PORT of the registry that serves the images of a domain."""
    return HUB if domain in (reference.DEFAULT_DOMAIN, reference.OLD_DEFAULT_DOMAIN, HUB) else domain


def key(domain: str) -> str:
    """Under which name the credentials for a domain are kept."""
    return HUB_KEY if server(domain) == HUB else domain


def settings() -> dict[str, list[str]]:
    """The settings file: "insecure-registries" and "registry-mirrors", empty where it says nothing.

    Raises BadInputError when it cannot be understood.
    """
    if os.geteuid() == 0 and not state.ordinary():
        path = "/etc/minirt/config.json"
    else:
        path = (os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) + "/minirt/config.json"
    try:
        said = state.read_json(path)
    except FileNotFoundError:
        said = {}
    except ValueError as error:  # with the path
        raise BadInputError(str(error)) from None
    found: dict[str, list[str]] = {}
    for name in ("insecure-registries", "registry-mirrors"):
        listed = said.get(name) or [] if isinstance(said, dict) else None
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            raise BadInputError(f"{path}: {name} is not a list of strings")
        found[name] = listed
    return found


def insecure(host: str, listed: list[str]) -> bool:
    """Whether the server HOST[:PORT] may be reached without (verified) encryption: one on this machine itself, or one
    that the settings list by name or network."""
    name = (urlsplit(f"//{host}").hostname or "").lower()
    if name == "localhost" or host in listed or name in listed:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in _networks(listed))


def _networks(listed: list[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    networks = []
    for each in listed:
        try:
            networks.append(ipaddress.ip_network(each))
        except ValueError:
            continue  # a name
    return networks


def certificates(host: str) -> tuple[str, tuple[str, str] | None]:
    """(a file of authorities to trust for HOST[:PORT], besides the system's; the files of our own certificate and its
    key, None for none), from the first directory that there is."""
    for base in _CERTIFICATES:
        place = f"{base}/{host}"
        if not os.path.isdir(place):
            continue
        names = sorted(os.listdir(place))
        authorities = [f"{place}/{name}" for name in names if name.endswith(".crt")]
        ours = next((f"{place}/{name}" for name in names if name.endswith(".cert")), "")
        if ours and not os.path.exists(ours[:-5] + ".key"):
            raise BadInputError(f"missing key {ours[:-5]}.key for client certificate {ours}")
        return _together(_system(), *authorities), (ours, ours[:-5] + ".key") if ours else None
    return _system(), None


def _system() -> str:
    """The file with the authorities that this machine trusts, "" for those that `requests` brings."""
    paths = [os.environ.get("SSL_CERT_FILE", ""), ssl.get_default_verify_paths().cafile or "", *_AUTHORITIES]
    return next((path for path in paths if path and os.path.exists(path)), "")


def _together(*files: str) -> str:
    """One file with the certificates of several; it vanishes with this process."""
    files = tuple(filter(None, files))
    if len(files) < 2:
        return files[0] if files else ""
    descriptor = os.memfd_create("authorities", os.MFD_CLOEXEC)
    for each in files:
        os.write(descriptor, state.read_file(each) + b"\n")
    return f"/proc/self/fd/{descriptor}"


class Session(requests.Session):
    """A session that decides for each address, also behind a redirect, by which proxy and with which certificates it is
    reached; ~/.netrc is not asked, since passwords for registries have a place of their own."""

    def __init__(self, insecure_registries: list[str]) -> None:
        super().__init__()
        self.trust_env = False
        self.headers["User-Agent"] = AGENT
        self._insecure = insecure_registries

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """What `requests` asks before each request."""
        host = urlsplit(url).netloc.rpartition("@")[2]
        authorities, ours = certificates(host)
        trusted: bool | str = False if insecure(host, self._insecure) else authorities or True
        return {"proxies": get_environ_proxies(url), "stream": stream, "verify": trusted, "cert": ours}


def mirrors(domain: str) -> list[Patient]:
    """The registries that the settings name as mirrors of Docker Hub; nothing is shown to them but what is kept for
    them. Raises BadInputError for one that is no address."""
    if server(domain) != HUB:
        return []
    said = settings()
    found = []
    for address in said["registry-mirrors"]:
        host = urlsplit(address).netloc
        if not address.startswith(("https://", "http://")) or not host:
            raise BadInputError(f"registry-mirrors: {address} is no address like https://mirror.lan")
        found.append(Patient(address.rstrip("/"), Session(said["insecure-registries"]), credentials.find(host)))
    return found


def connect(domain: str, shown: credentials.Credentials | None = None, allow_insecure: bool = False) -> Patient:
    """The registry of a domain (`docker.io`, `localhost:5000`), with the credentials that are kept for it, or `shown`.

    Raises RegistryError when there is none that may be reached. An unverified or open connection is only tried with a
    server that `insecure` names, or `allow_insecure`; encryption is tried first there too.
    """
    host = server(domain)
    listed = settings()["insecure-registries"] + ([host] if allow_insecure else [])
    session = Session(listed)
    session.mount("http://", requests.adapters.HTTPAdapter(max_retries=0))
    user = shown if shown is not None else credentials.find(key(domain))
    scheme = "https" if not insecure(host, listed) or _encrypted(f"https://{host}/v2/", session) else "http"
    return Patient(f"{scheme}://{host}", session, user)


def _encrypted(url: str, session: Session) -> bool:
    """Whether a server that may be reached in the open speaks TLS; the connection on which it does is used further.

    Raises RegistryError when it speaks one that we cannot.
    """
    try:
        read(session.request("GET", url, timeout=HANDSHAKE, allow_redirects=False, stream=True), 1 << 16)
    except requests.exceptions.SSLError as error:
        if "WRONG_VERSION_NUMBER" not in str(error) and "record layer failure" not in str(error):
            raise unreachable("GET", url, error) from None
        return False
    except BadInputError:
        return True  # whatever it says
    except requests.RequestException:
        return False
    return True

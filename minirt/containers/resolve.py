"""Chapter 17: names in a container: what `--add-host`, `--dns`, `--dns-search` and `--dns-option` may say, and the
/etc/hosts and /etc/resolv.conf that come of it.

A resolver asks the name servers of resolv.conf in turn, and tries the names below the search domains. A container gets
the machine's servers, but for those on 127.0.0.1 and ::1: in its own network namespace that is itself. Where the
machine has only such a one, systemd-resolved's, the servers behind it are taken.

Sources: resolv.conf(5), hosts(5), systemd-resolved.service(8), Docker's documentation of `run`.
"""

from __future__ import annotations

import _socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BEHIND_RESOLVED = "/run/systemd/resolve/resolv.conf"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-"


def address(text: str) -> str:
    """An IPv4 or IPv6 address, in its canonical form. Raises ValueError."""
    family = _socket.AF_INET6 if ":" in text else _socket.AF_INET
    try:
        return _socket.inet_ntop(family, _socket.inet_pton(family, text.strip()))
    except OSError:
        raise ValueError(f"IP address is not correctly formatted: {text}") from None


def extra_host(text: str) -> str:
    """`--add-host NAME:ADDRESS` or `NAME=ADDRESS`, an IPv6 address in brackets or not: as NAME:ADDRESS."""
    name, between, value = text.partition("=")
    if not between:
        name, between, value = text.partition(":")
    if not between or not name or ":" in name:
        raise ValueError(f'bad format for add-host: "{text}"')
    if value == "host-gateway":
        raise ValueError("host-gateway arrives with chapter 15, container networks: it is a bridge's address")
    if len(value) > 2 and value[0] == "[" and value[-1] == "]":
        value = value[1:-1]
    try:
        return f"{name}:{address(value)}"
    except ValueError:
        raise ValueError(f'invalid IP address in add-host: "{value}"') from None


def search_domain(text: str) -> str:
    """`--dns-search DOMAIN`, or a dot for none at all."""
    text = text.strip(" ")
    parts = text.removesuffix(".").lower().split(".")
    good = all(part and not part.strip(LETTERS) and part[0] != "-" and part[-1] != "-" for part in parts)
    if text != "." and (not good or not any(letter.isalpha() for letter in text)):
        raise ValueError(f"{text} is not a valid domain")
    return text


def mac_address(text: str) -> str:
    """`--mac-address`."""
    from minirt.namespaces import net

    net.hardware_address(text)
    return text


def hosts(text: str, extra: Sequence[str]) -> str:
    """The content of /etc/hosts: `text` and the lines of `--add-host`, NAME:ADDRESS each."""
    if text and not text.endswith("\n"):
        text += "\n"
    pairs = [each.partition(":") for each in extra]
    return text + "".join(f"{value}\t{name}\n" for name, _, value in pairs)


def resolv_conf(
    text: str, servers: Sequence[str], search: Sequence[str], options: Sequence[str], own_network: bool,
    read: Callable[[str], str],
) -> str:
    """The content of /etc/resolv.conf: the machine's `text`, with what was asked for in its place.

    `own_network`: whether the machine's 127.0.0.1 is out of reach. `read`: how to get the content of a file, empty when
    there is none.
    """
    lines = [line.split() for line in text.splitlines() if line.strip() and line.lstrip()[0] not in "#;"]
    if own_network and not servers:
        if lines and all(words[1:] == ["127.0.0.53"] for words in lines if words[0] == "nameserver"):
            behind = read(BEHIND_RESOLVED)
            if behind:
                return resolv_conf(behind, servers, search, options, own_network, read)
        lines = [words for words in lines if words[0] != "nameserver" or not is_loopback(words[-1])]
    for name, values in (("nameserver", servers), ("search", search), ("options", options)):
        if values:
            lines = [words for words in lines if words[0] != name and not (name == "search" and words[0] == "domain")]
    lines += [["nameserver", server] for server in servers]
    if search and list(search) != ["."]:
        lines.append(["search", *search])
    if options:
        lines.append(["options", *options])
    order = {"nameserver": 0, "search": 1, "domain": 1, "options": 2}
    return "".join(" ".join(words) + "\n" for words in sorted(lines, key=lambda words: order.get(words[0], 3)))


def is_loopback(text: str) -> bool:
    """Whether an address is one of the machine itself."""
    return text.startswith("127.") or text.partition("%")[0] == "::1"

"""Chapter 13: the name of an image, taken apart.

What a user types (`busybox`, `localhost:5000/team/tool:1.2`, `debian@sha256:...`) stands for a full name of four parts:

    docker.io / library/busybox : latest            @ sha256:0123...
    domain      path              tag: may change     digest: never does

A first part with a dot, a colon or a capital letter in it, or the word `localhost`, is a domain; else the domain is
docker.io, and a path of one word there is one of its own, below `library/`. `parse` reads, `str()` writes the full
name, `familiar()` the short one that people know.

Rules of the room: a start passes here, so the grammar is read by hand instead of by `re`, whose import alone takes as
long as making six namespaces. The grammar and the sentences are those of Docker's clients
(github.com/distribution/reference).
"""

from __future__ import annotations

from minirt.errors import BadInputError

DEFAULT_DOMAIN = "docker.io"
OLD_DEFAULT_DOMAIN = "index.docker.io"
OFFICIAL = "library/"
DEFAULT_TAG = "latest"

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ALNUM = _LOWER | _LETTERS
_WORD = _ALNUM | {"_"}
_HEX = frozenset("0123456789abcdef")
_ANY_HEX = _HEX | frozenset("ABCDEF")
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_LONGEST_PATH = 255
_LONGEST_TAG = 128


class Reference:
    """A full image name; `tag` and `digest` are "" where the name has none."""

    __slots__ = ("digest", "domain", "path", "tag")

    def __init__(self, domain: str, path: str, tag: str = "", digest: str = "") -> None:
        self.domain, self.path, self.tag, self.digest = domain, path, tag, digest

    def __str__(self) -> str:
        return f"{self.domain}/{self.path}{self._rest()}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def _rest(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def repository(self) -> str:
        """Domain and path: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    def familiar_repository(self) -> str:
        """The repository as people write it: `busybox`, `user/tool`, `localhost:5000/tool`."""
        for short in (self.path.removeprefix(OFFICIAL), self.path):
            # Not where it would be read as something else: docker.io/a.b/c, docker.io/library/a/b, 64 digits.
            if split_domain(short) == (self.domain, self.path) and not _is_id(short):
                return short
        return self.repository

    def familiar(self) -> str:
        """The whole name in its short form: `busybox:latest`."""
        return self.familiar_repository() + self._rest()

    def tagged(self) -> Reference:
        """This name, with the tag `latest` when it has neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return Reference(self.domain, self.path, DEFAULT_TAG)


def parse(text: str) -> Reference:
    """Take an image name apart, as typed by a user or stored in full. Nothing is added but domain and `library/`.

    Raises BadInputError with Docker's sentence when it is no image name.
    """
    if _is_id(text):
        raise BadInputError(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, rest = split_domain(text)
    before_tag = rest.partition(":")[0]
    if before_tag.lower() != before_tag:
        raise BadInputError(f"invalid reference format: repository name ({before_tag}) must be lowercase")
    name, at, digest = rest.partition("@")
    path, colon, tag = name.partition(":")
    if not (_is_domain(domain) and _is_path(path) and (not colon or _is_tag(tag)) and (not at or _is_digest(digest))):
        raise BadInputError("invalid reference format")
    if len(path) > _LONGEST_PATH:
        raise BadInputError(f"repository name must not be more than {_LONGEST_PATH} characters")
    if at:
        check_digest(digest)
    return Reference(domain, path, tag, digest)


def check_digest(digest: str) -> None:
    """Raises BadInputError, with Docker's sentence, unless `digest` is `sha256:` (or sha384, sha512) and its number of
    small hexadecimal digits."""
    algorithm, colon, digits = digest.partition(":")
    if not colon or not _is_digest(digest.lower()):
        raise BadInputError("invalid checksum digest format")
    if algorithm not in _DIGEST_LENGTHS:
        raise BadInputError("unsupported digest algorithm")
    if len(digits) != _DIGEST_LENGTHS[algorithm]:
        raise BadInputError("invalid checksum digest length")
    if not set(digits) <= _HEX:
        raise BadInputError("invalid checksum digest format")


def split_domain(text: str) -> tuple[str, str]:
    """The domain of a name as people type it, and all that follows it: (domain, rest).

    What stands before the first "/" is a domain if it is `localhost`, or has a dot, a colon or a capital letter in it;
    `OLD_DEFAULT_DOMAIN` means `DEFAULT_DOMAIN`. Otherwise, and without a "/", the domain is `DEFAULT_DOMAIN` and the
    whole text is the rest. At `DEFAULT_DOMAIN` a rest without "/" lies below `OFFICIAL`. So "tool:1.2" gives
    ("docker.io", "library/tool:1.2"), "team/tool" ("docker.io", "team/tool"), "localhost:5000/tool"
    ("localhost:5000", "tool"). Sources: containers-registries.conf(5), the grammar at the top of reference.go of
    github.com/distribution/reference.
    """
    first, slash, rest = text.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first or first.lower() != first):
        domain = DEFAULT_DOMAIN if first == OLD_DEFAULT_DOMAIN else first
    else:
        domain, rest = DEFAULT_DOMAIN, text
    if domain == DEFAULT_DOMAIN and "/" not in rest:
        rest = OFFICIAL + rest
    return domain, rest


def _is_id(text: str) -> bool:
    return len(text) == 64 and set(text) <= _HEX


def _is_domain(text: str) -> bool:
    """`host`, `host:port` or `[IPv6]:port`."""
    if text.startswith("["):
        host, bracket, end = text[1:].partition("]")
        good = bool(bracket and host) and set(host) <= _ANY_HEX | {":"}
    else:
        host, colon, port = text.partition(":")
        good, end = all(_is_word(part, _ALNUM | {"-"}) for part in host.split(".")), colon + port
    return good and (not end or (end[0] == ":" and _is_word(end[1:], frozenset("0123456789"))))


def _is_word(text: str, letters: frozenset[str]) -> bool:
    return bool(text) and set(text) <= letters and text.strip("-") == text


def _is_path(text: str) -> bool:
    """Words of small letters and digits, parted by a slash, a dot, one or two underscores, any number of dashes."""
    while "--" in text:
        text = text.replace("--", "-")
    for separator in ("__", "_", "-", "."):
        text = text.replace(separator, "/")
    return all(_is_word(word, _LOWER) for word in text.split("/"))


def _is_tag(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_TAG and text[0] in _WORD and set(text) <= _WORD | frozenset(".-")


def _is_digest(text: str) -> bool:
    """An algorithm's name, a colon, at least 32 hexadecimal digits."""
    algorithm, _, digits = text.partition(":")
    for separator in "_+.":
        algorithm = algorithm.replace(separator, "-")
    return len(digits) >= 32 and set(digits) <= _ANY_HEX and all(
        part[:1] in _LETTERS and _is_word(part, _ALNUM) for part in algorithm.split("-"))

"""What is written instead, in chapter 13, and the message that must lead to each mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minirt.errors import BadInputError
from minirt.images.blobs import digest
from minirt.images.changeset import ANEW, AUFS, GONE, NOTHING, OPAQUE, PRESENT, WHITEOUT, Entry
from minirt.images.documents import architecture
from minirt.images.reference import DEFAULT_DOMAIN, OFFICIAL, OLD_DEFAULT_DOMAIN
from minirt.images.write import BLOCK


def split_domain__every_slash_ends_a_domain(text: str) -> tuple[str, str]:
    """'team' has neither a dot nor a colon"""
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, OFFICIAL + text
    return first, rest


def split_domain__a_dot_anywhere(text: str) -> tuple[str, str]:
    """without a slash there is no domain"""
    first, _, rest = text.partition("/")
    if first == "localhost" or "." in first or ":" in first or first.lower() != first:
        return (DEFAULT_DOMAIN if first == OLD_DEFAULT_DOMAIN else first), rest
    return DEFAULT_DOMAIN, text if "/" in text else OFFICIAL + text


def split_domain__localhost_forgotten(text: str) -> tuple[str, str]:
    """'localhost' is a domain without a dot"""
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first.lower() != first):
        domain = DEFAULT_DOMAIN if first == OLD_DEFAULT_DOMAIN else first
    else:
        domain, rest = DEFAULT_DOMAIN, text
    return domain, OFFICIAL + rest if domain == DEFAULT_DOMAIN and "/" not in rest else rest


def split_domain__digits_are_no_small_letters(text: str) -> tuple[str, str]:
    """digits alone are neither"""
    first, slash, rest = text.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first or not first.islower()):
        domain = DEFAULT_DOMAIN if first == OLD_DEFAULT_DOMAIN else first
    else:
        domain, rest = DEFAULT_DOMAIN, text
    return domain, OFFICIAL + rest if domain == DEFAULT_DOMAIN and "/" not in rest else rest


def split_domain__library_everywhere(text: str) -> tuple[str, str]:
    """library/ is a custom of docker.io alone"""
    first, slash, rest = text.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first or first.lower() != first):
        domain = DEFAULT_DOMAIN if first == OLD_DEFAULT_DOMAIN else first
    else:
        domain, rest = DEFAULT_DOMAIN, text
    return domain, rest if "/" in rest else OFFICIAL + rest


def split_domain__library_only_where_no_domain_is_typed(text: str) -> tuple[str, str]:
    """whether docker.io was typed or not"""
    if "/" not in text:
        return DEFAULT_DOMAIN, OFFICIAL + text
    first, rest = text.split("/", 1)
    if first == "localhost" or "." in first or ":" in first or first.lower() != first:
        return (DEFAULT_DOMAIN if first == OLD_DEFAULT_DOMAIN else first), rest
    return DEFAULT_DOMAIN, text


def verify__nothing_returned(data: bytes, wanted: Mapping[str, Any]) -> bytes:
    """the caller goes on with what verify() returns"""
    if len(data) != wanted["size"] or digest(data) != wanted["digest"]:
        raise BadInputError(f"the blob {wanted['digest']} is another one")
    return None  # type: ignore[return-value]


def verify__the_size_is_enough(data: bytes, wanted: Mapping[str, Any]) -> bytes:
    """one byte was changed and the length is right"""
    if len(data) != wanted["size"]:
        raise BadInputError(f"the blob {wanted['digest']} has {len(data)} bytes")
    return data


def verify__digest_without_its_algorithm(data: bytes, wanted: Mapping[str, Any]) -> bytes:
    """the right bytes are refused"""
    import hashlib

    if len(data) != wanted["size"] or hashlib.sha256(data).hexdigest() != wanted["digest"]:
        raise BadInputError(f"the blob {wanted['digest']} is another one")
    return data


def verify__size_ignored(data: bytes, wanted: Mapping[str, Any]) -> bytes:
    """the descriptor promised another size"""
    if digest(data) != wanted["digest"]:
        raise BadInputError(f"the blob {wanted['digest']} is another one")
    return data


def verify__only_too_long(data: bytes, wanted: Mapping[str, Any]) -> bytes:
    """nor fewer than were promised"""
    if len(data) > wanted["size"] or digest(data) != wanted["digest"]:
        raise BadInputError(f"the blob {wanted['digest']} is another one")
    return data


def verify__no_size_no_promise(data: bytes, wanted: Mapping[str, Any]) -> bytes:
    """is a promise, too"""
    if wanted["size"] and len(data) != wanted["size"]:
        raise BadInputError(f"{wanted['digest']} has another size")
    if digest(data) != wanted["digest"]:
        raise BadInputError(f"{wanted['digest']} is damaged")
    return data


def choose__the_first(manifests: Sequence[dict[str, Any]], platform: str = "") -> dict[str, Any]:
    """it was made for another machine"""
    return manifests[0]


def choose__only_the_architecture(manifests: Sequence[dict[str, Any]], platform: str = "") -> dict[str, Any]:
    """the same processor under another system"""
    wanted = (platform or f"linux/{architecture()}").split("/")
    for each in manifests:
        found = each.get("platform") or {}
        if not found or found.get("architecture") == wanted[1]:
            return each
    raise BadInputError(f"not made for {platform}, only for {[each.get('platform') for each in manifests]}")


def choose__variant_always_compared(manifests: Sequence[dict[str, Any]], platform: str = "") -> dict[str, Any]:
    """nobody asked for a variant"""
    wanted = (platform or f"linux/{architecture()}").split("/")
    for each in manifests:
        found = each.get("platform") or {}
        if not found or list(found.values()) == wanted:
            return each
    raise BadInputError(f"not made for {platform}, only for {[each.get('platform') for each in manifests]}")


def choose__beginnings_compared(manifests: Sequence[dict[str, Any]], platform: str = "") -> dict[str, Any]:
    """compare whole words"""
    wanted = platform or f"linux/{architecture()}"
    for each in manifests:
        found = each.get("platform") or {}
        if not found or "/".join(found.values()).startswith(wanted):
            return each
    raise BadInputError(f"not made for {wanted}, only for {[each.get('platform') for each in manifests]}")


def choose__platform_is_required(manifests: Sequence[dict[str, Any]], platform: str = "") -> dict[str, Any]:
    """an entry that names no platform fits every machine"""
    wanted = (platform or f"linux/{architecture()}").split("/")
    for each in manifests:
        found = each.get("platform") or {}
        if [found.get(key, "") for key in ("os", "architecture", "variant")][: len(wanted)] == wanted:
            return each
    raise BadInputError(f"not made for {platform}, only for {[each.get('platform') for each in manifests]}")


def choose__none_is_no_error(manifests: Sequence[dict[str, Any]], platform: str = "") -> dict[str, Any]:
    """nothing fits, so it must raise BadInputError"""
    wanted = (platform or f"linux/{architecture()}").split("/")
    for each in manifests:
        found = each.get("platform") or {}
        words = [found.get(key, "") for key in ("os", "architecture", "variant")]
        if not found or words[: len(wanted)] == wanted:
            return each
    return {}


def chain_ids__the_diff_ids(diff_ids: Sequence[str]) -> list[str]:
    """on top of another layer it is another directory"""
    return [each.removeprefix("sha256:") for each in diff_ids]


def chain_ids__first_one_hashed(diff_ids: Sequence[str]) -> list[str]:
    """the lowest layer has nothing below it"""
    chains: list[str] = []
    below = ""
    for each in diff_ids:
        below = digest(f"{below} {each}".encode())
        chains.append(below.removeprefix("sha256:"))
    return chains


def chain_ids__of_two_diff_ids(diff_ids: Sequence[str]) -> list[str]:
    """the third chain id is wrong"""
    chains: list[str] = []
    for number, each in enumerate(diff_ids):
        name = digest(f"{diff_ids[number - 1]} {each}".encode()) if number else each
        chains.append(name.removeprefix("sha256:"))
    return chains


def chain_ids__without_the_algorithm(diff_ids: Sequence[str]) -> list[str]:
    """each with "sha256:" before it"""
    chains: list[str] = []
    for diff_id in diff_ids:
        each = diff_id.removeprefix("sha256:")
        chains.append(digest(f"{chains[-1]} {each}".encode()).removeprefix("sha256:") if chains else each)
    return chains


def chain_ids__an_image_without_layers(diff_ids: Sequence[str]) -> list[str]:
    """an image may have no layers"""
    chains = [diff_ids[0]]
    for diff_id in diff_ids[1:]:
        chains.append(digest(f"{chains[-1]} {diff_id}".encode()))
    return [each.removeprefix("sha256:") for each in chains]


def meaning__opaque_is_a_whiteout(base: bytes) -> tuple[str, bytes]:
    """is the mark of an opaque directory"""
    if not base.startswith(WHITEOUT):
        return PRESENT, base
    name = base[len(WHITEOUT) :]
    if name in (b"", b".", b".."):
        raise BadInputError("no name")
    return GONE, name


def meaning__whiteout_of_the_directory_above(base: bytes) -> tuple[str, bytes]:
    """is no name of a file"""
    if not base.startswith(WHITEOUT):
        return PRESENT, base
    if base == OPAQUE:
        return ANEW, b""
    if base.startswith(AUFS):
        return NOTHING, b""
    return GONE, base[len(WHITEOUT) :]


def meaning__stripped_by_letters(base: bytes) -> tuple[str, bytes]:
    """strip() takes letters, not a prefix"""
    if not base.startswith(WHITEOUT):
        return PRESENT, base
    if base == OPAQUE:
        return ANEW, b""
    if base.startswith(AUFS):
        return NOTHING, b""
    name = base.lstrip(WHITEOUT)
    if base[len(WHITEOUT) :] in (b"", b".", b".."):
        raise BadInputError("no name")
    return GONE, name


def meaning__in_the_middle(base: bytes) -> tuple[str, bytes]:
    """only at the beginning of a name"""
    if WHITEOUT not in base:
        return PRESENT, base
    if base == OPAQUE:
        return ANEW, b""
    if base.startswith(AUFS):
        return NOTHING, b""
    name = base.partition(WHITEOUT)[2]
    if name in (b"", b".", b".."):
        raise BadInputError("no name")
    return GONE, name


def meaning__taken_away_everywhere(base: bytes) -> tuple[str, bytes]:
    """at the beginning and once"""
    if not base.startswith(WHITEOUT):
        return PRESENT, base
    if base == OPAQUE:
        return ANEW, b""
    if base.startswith(AUFS):
        return NOTHING, b""
    name = base.replace(WHITEOUT, b"")
    if base[len(WHITEOUT) :] in (b"", b".", b".."):
        raise BadInputError("no name")
    return GONE, name


def header__sum_without_its_own_field(entry: Entry) -> bytes:
    """its own field counts as eight spaces"""
    block = b"".join((
        entry.name[:100].ljust(100, b"\0"), b"%07o\0%07o\0%07o\0" % (entry.mode, entry.uid, entry.gid),
        b"%011o\0%011o\0" % (entry.size, entry.mtime // 10**9), bytes(8), entry.kind,
        entry.link[:100].ljust(100, b"\0"), b"ustar\x0000", bytes(64), b"%07o\0%07o\0" % entry.device,
    )).ljust(BLOCK, b"\0")  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def header__decimal_numbers(entry: Entry) -> bytes:
    """numbers are octal"""
    block = b"".join((
        entry.name[:100].ljust(100, b"\0"), b"%07d\0%07d\0%07d\0" % (entry.mode, entry.uid, entry.gid),
        b"%011d\0%011d\0" % (entry.size, entry.mtime // 10**9), b" " * 8, entry.kind,
        entry.link[:100].ljust(100, b"\0"), b"ustar\x0000", bytes(64), b"%07d\0%07d\0" % entry.device,
    )).ljust(BLOCK, b"\0")  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def header__mtime_in_nanoseconds(entry: Entry) -> bytes:
    """must be 512 bytes"""
    block = b"".join((
        entry.name[:100].ljust(100, b"\0"), b"%07o\0%07o\0%07o\0" % (entry.mode, entry.uid, entry.gid),
        b"%011o\0%011o\0" % (entry.size, entry.mtime), b" " * 8, entry.kind,
        entry.link[:100].ljust(100, b"\0"), b"ustar\x0000", bytes(64), b"%07o\0%07o\0" % entry.device, bytes(167),
    ))  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def header__time_of_the_build(entry: Entry) -> bytes:
    """must give the same bytes"""
    import time

    block = b"".join((
        entry.name[:100].ljust(100, b"\0"), b"%07o\0%07o\0%07o\0" % (entry.mode, entry.uid, entry.gid),
        b"%011o\0%011o\0" % (entry.size, time.time_ns() // 1000 % 8**11), b" " * 8, entry.kind,
        entry.link[:100].ljust(100, b"\0"), b"ustar\x0000", bytes(64), b"%07o\0%07o\0" % entry.device,
    )).ljust(BLOCK, b"\0")  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def header__link_forgotten(entry: Entry) -> bytes:
    """the link leads to"""
    block = b"".join((
        entry.name[:100].ljust(100, b"\0"), b"%07o\0%07o\0%07o\0" % (entry.mode, entry.uid, entry.gid),
        b"%011o\0%011o\0" % (entry.size, entry.mtime // 10**9), b" " * 8, entry.kind,
        bytes(100), b"ustar\x0000", bytes(64), b"%07o\0%07o\0" % entry.device,
    )).ljust(BLOCK, b"\0")  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def header__long_name_not_cut(entry: Entry) -> bytes:
    """cut it off at the 100 bytes of its field"""
    block = b"".join((
        entry.name.ljust(100, b"\0"), b"%07o\0%07o\0%07o\0" % (entry.mode, entry.uid, entry.gid),
        b"%011o\0%011o\0" % (entry.size, entry.mtime // 10**9), b" " * 8, entry.kind,
        entry.link.ljust(100, b"\0"), b"ustar\x0000", bytes(64), b"%07o\0%07o\0" % entry.device,
    )).ljust(BLOCK, b"\0")  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def header__numbers_without_an_end(entry: Entry) -> bytes:
    """a zero byte at the end of its field"""
    block = b"".join((
        entry.name[:100].ljust(100, b"\0"), b"%08o%08o%08o" % (entry.mode, entry.uid, entry.gid),
        b"%012o%012o" % (entry.size, entry.mtime // 10**9), b" " * 8, entry.kind,
        entry.link[:100].ljust(100, b"\0"), b"ustar\x0000", bytes(64), b"%08o%08o" % entry.device,
    )).ljust(BLOCK, b"\0")  # fmt: skip
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]

"""Chapter 14, beyond: what a registry has: the tags of a repository, and its repositories.

Long lists come in pages, each with the address of the next one.

Sources: OCI distribution-spec, spec.md "Listing Tags"; RFC 8288 (the header Link).
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urljoin

from minirt import state
from minirt.errors import BadInputError
from minirt.registry.client import LARGEST_MANIFEST, Registry, origin, pulling, read


def tags(registry: Registry, repository: str) -> Iterator[str]:
    """end-8: the tags of a repository. Raises RegistryError, and BadInputError for what is no list."""
    return _listed(registry, f"/v2/{repository}/tags/list", "tags", pulling(repository))


def catalog(registry: Registry) -> Iterator[str]:
    """The repositories of a registry, as docker-registry tells them. Raises as `tags`."""
    return _listed(registry, "/v2/_catalog", "repositories", "registry:catalog:*")


def _listed(registry: Registry, address: str, key: str, scope: str) -> Iterator[str]:
    seen = set()
    while address and address not in seen:
        seen.add(address)
        answer = registry.request("GET", address, scope)
        try:
            found = state.loads(read(answer, LARGEST_MANIFEST))[key] or []
            yield from (str(each) for each in found)
        except (ValueError, KeyError, TypeError):
            raise BadInputError(f"{answer.url} does not answer with a list of {key}") from None
        address = next_page(answer.url, answer.headers.get("Link", ""))


def next_page(url: str, link: str) -> str:
    """The address of a list's next page, "" when this was the last: of a Link header `</v2/_catalog?last=b>;
    rel="next"` what stands in the brackets, seen from `url`. Raises BadInputError when it leads to another server.
    Sources: spec.md "Listing Tags", RFC 8288 section 3."""
    address, _, parameters = link.partition(">")
    if not address.startswith("<") or "next" not in parameters:
        return ""
    there = urljoin(url, address[1:])
    if origin(there) != origin(url):
        raise BadInputError(f"the list at {url} goes on at another server, {there[:200]}")
    return there

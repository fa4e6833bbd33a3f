"""Chapter 14: what else a registry answers: what there is, and the removal of it.

The rest of the specification's table, in the same form as in `server`: tags, referrers, repositories, and what takes
names away; `routes` puts the whole table together. The bytes of what was removed are freed later, by `garbage`.

Source: OCI distribution-spec, spec.md "Content Discovery", "Content Management".
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlencode

from minirt import state
from minirt.registry import server
from minirt.registry.server import Answer, Request, Routes, as_json
from minirt.registry.storage import SUBJECT, Manifest, Refused, Repository, Storage, checked, tag_of, untag

INDEX = "application/vnd.oci.image.index.v1+json"
LONGEST_PAGE = 1000  # names, where a client does not say how many it wants


# -- discovery ---------------------------------------------------------------------------------------------------------

def list_tags(storage: Storage, request: Request, name: str) -> Answer:
    """end-8a, end-8b: the tags of a repository; `?n=&last=` wants a page."""
    tags, headers = page(filter(None, map(tag_of, known(storage, name))), request)
    return as_json({"name": name, "tags": tags}, headers=headers)


def known(storage: Storage, name: str) -> list[dict[str, Any]]:
    """What index.json of a repository says. Raises Refused (NAME_UNKNOWN) where nothing was ever pushed."""
    repository = storage.repository(name)
    if not os.path.exists(f"{repository.path}/index.json"):
        raise Refused("NAME_UNKNOWN", f"there is no repository {name} here")
    return repository.entries()


def list_repositories(storage: Storage, request: Request) -> Answer:
    """The names of all repositories: not in the specification any more, but every registry has it."""
    names, headers = page((each.name for each in repositories(storage) if each.entries()), request)
    return as_json({"repositories": names}, headers=headers)


def repositories(storage: Storage) -> list[Repository]:
    """All repositories, by their names, those in which nothing was ever finished too."""
    names = sorted(name.replace("+", "/") for name in os.listdir(f"{storage.root}/repositories"))
    return [storage.repository(name) for name in names]


def page(names: Iterable[str], request: Request) -> tuple[list[str], dict[str, str]]:
    """At most `?n=` of the names, in order, those after `?last=`; and the header Link (RFC 8288) where more follow.

    Raises Refused (UNSUPPORTED).
    """
    number = request.query.get("n", "") or str(LONGEST_PAGE)
    if not (number.isascii() and number.isdecimal()) or len(number) > 9:
        raise Refused("UNSUPPORTED", f"n is a number of names, not {number[:20]!r}", status=400)
    rest = sorted((name for name in names if order(name) > order(request.query.get("last", ""))), key=order)
    shown = rest[: int(number)]
    if len(shown) == len(rest) or not shown:
        return shown, {}
    following = urlencode({"n": number, "last": shown[-1]})
    return shown, {"Link": f'<{quote(request.path)}?{following}>; rel="next"'}


def order(name: str) -> tuple[str, str]:
    """What names are sorted by: small and capital letters alike (spec.md, "Listing Tags"), then as they are."""
    return name.lower(), name


def list_referrers(storage: Storage, request: Request, name: str, digest: str) -> Answer:
    """end-12a, end-12b: an index of the manifests whose subject is that digest; `?artifactType=` wants one kind."""
    repository = storage.repository(name)
    found, headers = referrers(repository, checked(digest)), {"Content-Type": INDEX}
    if kind := request.query.get("artifactType"):
        found = [each for each in found if each.get("artifactType") == kind]
        headers["OCI-Filters-Applied"] = "artifactType"
    return as_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": found}, headers=headers)


def referrers(repository: Repository, digest: str) -> list[dict[str, Any]]:
    """Descriptors of the manifests whose subject is `digest`, each with its artifactType and annotations (image-spec,
    manifest.md, "artifactType")."""
    found = {}
    for entry in repository.entries():
        if entry.get("annotations", {}).get(SUBJECT) == digest:
            document = Manifest(entry["mediaType"], state.read_file(repository.blob_path(entry["digest"]))).document
            kind = document.get("artifactType") or (document.get("config") or {}).get("mediaType", "")
            row = {**entry, "artifactType": kind, "annotations": document.get("annotations")}
            found[entry["digest"]] = {key: value for key, value in row.items() if value}
    return list(found.values())


# -- management --------------------------------------------------------------------------------------------------------

def delete_manifest(storage: Storage, request: Request, name: str, reference: str) -> Answer:
    """end-9: remove a tag, or a manifest with all its tags where the reference is its digest."""
    repository = storage.repository(name)
    with repository.lock():
        gone, entries = repository.find(reference), repository.entries()
        if reference == gone["digest"]:
            repository.write([each for each in entries if each["digest"] != reference])
        else:
            repository.write(untag(entries, [reference]))
    return Answer(202)


def delete_blob(storage: Storage, request: Request, name: str, digest: str) -> Answer:
    """end-10: take the blob's name in this repository away. A manifest's content is removed as a manifest only."""
    repository = storage.repository(name)
    with repository.lock():  # not while a manifest that needs it is being stored
        try:
            if any(entry["digest"] == digest for entry in repository.entries()):
                raise FileNotFoundError
            os.unlink(repository.blob_path(digest))
        except FileNotFoundError:
            raise Refused("BLOB_UNKNOWN", f"{name} has no blob {digest}") from None
    return Answer(202)


def cancel_upload(storage: Storage, request: Request, name: str, identifier: str) -> Answer:
    """end-14: throw an upload away."""
    with storage.repository(name).upload(identifier, request.user) as upload:
        upload.cancel()
    return Answer(204)


ROUTES: Routes = (
    *server.ROUTES,
    ("GET", "/v2/_catalog", list_repositories),
    ("GET", "/v2/{name}/tags/list", list_tags),
    ("GET", "/v2/{name}/referrers/{digest}", list_referrers),
    ("DELETE", "/v2/{name}/blobs/uploads/{identifier}", cancel_upload),
    ("DELETE", "/v2/{name}/manifests/{reference}", delete_manifest),
    ("DELETE", "/v2/{name}/blobs/{digest}", delete_blob),
)


def routes(read_only: bool = False, deletes: bool = False) -> Routes:
    """The table of a registry; `read_only`: nobody may change it, `deletes`: clients may remove what it holds."""
    removing = (delete_manifest, delete_blob)
    return tuple((verb, pattern, None if (read_only and verb != "GET") or (function in removing and not deletes) else
                  function) for verb, pattern, function in ROUTES)

"""Chapter 14: freeing what no manifest needs any more.

Deleting takes names away; bytes go when nothing can reach them. Two questions, in this order: which blobs of a
repository does no manifest in its index.json lead to? Their names go. Which files of the pool have no other name left
(a link count of one, stat(2))? They go. Uploads that nobody has touched for a day go too, and what a
killed server was writing.

It is done while no server runs: a push sends the layers first and the manifest last, so in between its layers look like
garbage. A server holds ROOT/serving shared; whoever collects wants it alone.
"""

from __future__ import annotations

import fcntl
import os
import time

from minirt import state
from minirt.errors import ConflictError
from minirt.registry.discover import repositories
from minirt.registry.storage import Manifest, Refused, Repository, Storage

OLD = 86400  # seconds, after which an upload is not waited for


def hold(storage: Storage, alone: bool = False) -> int:
    """Take the directory for a server, or `alone` for collecting; a descriptor that holds it as long as it is open.

    Raises ConflictError with what to do.
    """
    descriptor = os.open(f"{storage.root}/serving", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConflictError(f"a registry is serving {storage.root}: stop it, then collect its garbage" if alone else
                            f"the garbage of {storage.root} is being collected: try again when that is done") from None
    return descriptor


def collect(storage: Storage, dry_run: bool = False) -> list[tuple[str, int]]:
    """Remove what nothing needs; with `dry_run` only look. Returns (what, bytes that are freed with it) of each."""
    held = hold(storage, alone=True)
    try:
        gone: list[tuple[str, int]] = []
        dropped: dict[int, int] = {}  # inode -> names that were or would be taken away
        for repository in repositories(storage):
            gone += _sweep(repository, dropped, dry_run)
        for place in ("sha256", "sha512"):
            for path in _files(f"{storage.root}/blobs/{place}"):
                found = os.stat(path)
                if found.st_nlink - (dropped.get(found.st_ino, 0) if dry_run else 0) == 1:
                    gone.append((f"{place}:{os.path.basename(path)}", found.st_size))
                    _remove(path, dry_run)
        return gone
    finally:
        os.close(held)


def _sweep(repository: Repository, dropped: dict[int, int], dry_run: bool) -> list[tuple[str, int]]:
    gone = []
    needed = needs(repository)
    for algorithm in ("sha256", "sha512"):
        for path in _files(f"{repository.path}/blobs/{algorithm}"):
            digest = f"{algorithm}:{os.path.basename(path)}"
            if digest not in needed:
                inode = os.stat(path).st_ino
                dropped[inode] = dropped.get(inode, 0) + 1
                gone.append((f"{repository.name}@{digest}", 0))
                _remove(path, dry_run)
    for path in (each for each in _files(repository.path) if each.endswith(".tmp")):  # of a server that was killed
        gone.append((f"{repository.name}: {os.path.basename(path)}", os.stat(path).st_size))
        _remove(path, dry_run)
    for path in _files(f"{repository.path}/uploads"):
        found = os.stat(path)
        if time.time() - found.st_mtime > OLD:
            gone.append((f"{repository.name}: upload {os.path.basename(path).rpartition('-')[0]}", found.st_size))
            _remove(path, dry_run)
    return gone


def needs(repository: Repository) -> set[str]:
    """The digests of all that the manifests of a repository lead to, and of themselves."""
    found: set[str] = set()
    for entry in repository.entries():
        try:
            manifest = Manifest(entry["mediaType"], state.read_file(repository.blob_path(entry["digest"])))
            found |= {entry["digest"], *manifest.blobs, *manifest.children}
        except (Refused, FileNotFoundError):
            found.add(entry["digest"])
    return found


def _files(directory: str) -> list[str]:
    try:
        return [f"{directory}/{name}" for name in sorted(os.listdir(directory))]
    except FileNotFoundError:
        return []


def _remove(path: str, dry_run: bool) -> None:
    if not dry_run:
        os.unlink(path)

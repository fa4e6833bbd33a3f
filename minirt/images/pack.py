"""Chapter 13, beyond: making an image from files of this machine.

The opposite of `load`, for images of one layer: a tree of files becomes a layer, the layer an archive as `docker save`
writes it. The same files give the same bytes: names are sorted, owners are root, and the image's date is that of its
newest file (or SOURCE_DATE_EPOCH), not the moment at which it was made.

Sources: Docker image-spec v1.2, reproducible-builds.org "SOURCE_DATE_EPOCH".
"""

from __future__ import annotations

import hashlib
import os
import subprocess

from minirt import state
from minirt.errors import MinirtError
from minirt.images import changeset, documents, reference, write
from minirt.images.changeset import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any


class Tree:
    """Files on their way into a layer: where each goes, and what it is."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[Entry, bytes | str]] = {}

    def directory(self, path: str, mode: int = 0o755) -> None:
        """An empty directory, with those above it."""
        name = path.strip("/")
        if name in self._entries or not name:
            return
        self.directory(os.path.dirname(name))
        self._add(name, changeset.DIRECTORY, mode)

    def text(self, path: str, content: str, mode: int = 0o644) -> None:
        """A file with that content."""
        self._add(path, changeset.REGULAR, mode, content.encode())

    def symlink(self, path: str, target: str) -> None:
        """A symbolic link to `target`."""
        self._add(path, changeset.SYMLINK, 0o777, target=target)

    def copy(self, source: str, path: str = "") -> None:
        """A copy of this machine's file `source` at `path` (its own path unless given). Raises MinirtError."""
        real = os.path.realpath(source)
        try:
            status = os.stat(real)
        except OSError as error:
            raise MinirtError(f"packing {source}: {error.strerror}") from None
        self._add(path or source, changeset.REGULAR, status.st_mode & 0o755, real, int(status.st_mtime))

    def program(self, source: str, path: str = "") -> None:
        """A copy of a program, with the libraries it needs at the paths where it will look for them."""
        self.copy(source, path)
        for library in libraries(source):
            self.copy(library)

    def _add(self, path: str, kind: bytes, mode: int, content: bytes | str = b"", time: int = 0, target: str = "",
             ) -> None:
        name = path.strip("/")
        entry = Entry(os.fsencode(name), kind, mode, link=os.fsencode(target))
        entry.mtime = time * 10**9
        entry.size = os.path.getsize(content) if isinstance(content, str) else len(content)
        self.directory(os.path.dirname(name))
        self._entries[name] = (entry, content)

    def date(self) -> int:
        """The seconds since 1970 that the image is dated: SOURCE_DATE_EPOCH, else the newest file's time."""
        told = os.environ.get("SOURCE_DATE_EPOCH", "")
        if told.isdigit():
            return int(told)
        return max((entry.mtime // 10**9 for entry, _ in self._entries.values()), default=0)

    def files(self) -> Iterator[tuple[Entry, Iterable[bytes]]]:
        """The files in the order of their names, none newer than `date`."""
        date = self.date() * 10**9
        for name in sorted(self._entries):
            entry, content = self._entries[name]
            entry.mtime = min(entry.mtime or date, date)
            yield entry, write.content(content) if isinstance(content, str) else [content]

    def write(self, path: str) -> None:
        """Write the layer, a tar archive, to `path`."""
        with open(path, "wb") as file:
            file.writelines(write.archive(self.files()))


def libraries(program: str) -> list[str]:
    """The shared libraries, the loader among them, that a program of this machine needs, as ldd(1) tells them.

    None for a static one. Raises MinirtError when a library is missing or there is no ldd.
    """
    try:
        told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False,
                              env={**os.environ, "LC_ALL": "C"})
    except OSError as error:
        raise MinirtError(f"asking ldd for the libraries of {program}: {error.strerror}") from None
    if "not found" in told.stdout:
        raise MinirtError(f"{program} lacks a library on this machine: {told.stdout.strip()}")
    found = []
    for line in told.stdout.splitlines():
        path = line.partition("=>")[2] or line
        path = path.partition(" (")[0].strip()
        if path.startswith("/"):
            found.append(path)
    return found


def write_archive(path: str, layers: Sequence[str], settings: dict[str, Any], names: Iterable[str], date: int = 0,
                  ) -> None:
    """Write an image as one file, in the form of `docker save`.

    `layers`: files that are tar archives, the lowest first. `settings`: the image's configuration (Cmd, Env, ...).
    `names`: what to call it. `date`: seconds since 1970.
    """
    digests = [_digest(layer) for layer in layers]
    config = state.dumps({
        "architecture": documents.architecture(), "os": "linux", "created": state.format_time(date * 10**9),
        "config": settings, "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": state.format_time(date * 10**9), "created_by": "minirt"} for _ in layers],
    }).encode()
    identifier = hashlib.sha256(config).hexdigest()
    manifest = state.dumps([{
        "Config": f"{identifier}.json", "Layers": [f"{digest}/layer.tar" for digest in digests],
        "RepoTags": [reference.parse(name).tagged().familiar() for name in names],
    }]).encode()
    files: dict[str, bytes | str] = {"manifest.json": manifest, f"{identifier}.json": config}
    files |= {f"{digest}/layer.tar": layer for digest, layer in zip(digests, layers, strict=True)}
    with open(path, "wb") as file:
        file.writelines(write.archive(
            (Entry(name.encode(), size=os.path.getsize(content)), write.content(content)) if isinstance(content, str)
            else (Entry(name.encode(), size=len(content)), [content]) for name, content in files.items()))


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_image(path: str, tree: Tree, settings: dict[str, Any], names: Iterable[str]) -> None:
    """Write an image of one layer, `tree`, as one file; see `write_archive`."""
    layer = f"{path}.layer"
    try:
        tree.write(layer)
        write_archive(path, [layer], settings, names, tree.date())
    finally:
        if os.path.exists(layer):
            os.unlink(layer)

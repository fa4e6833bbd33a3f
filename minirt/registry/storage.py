"""Chapter 14: what a registry keeps, on disk.

    ROOT/blobs/sha256/HEX             the pool: every content once, whoever sent it
    ROOT/repositories/team+tool/      the repository team/tool: an OCI image layout, as the store of chapter 13 is one
        oci-layout
        index.json                    its manifests; a tag is a name in there (org.opencontainers.image.ref.name)
        blobs/sha256/HEX              a second name (a hard link) of that content in the pool
        uploads/ID-OWNER              what has arrived so far of a blob
        lock                          held by whoever changes what the repository shows

A repository may show only what was sent to it, or mounted from another one: so each has its own names, though the bytes
lie on the disk once. `+` stands for `/`, which no file name has, and no repository's name has a `+`.

How a killed server loses nothing and shows nothing half: bytes arrive in uploads/, where nobody reads them; once their
digest is right they are synced and get their names by link(2), at once and whole; index.json, replaced last and whole
(chapter 13), is what makes a manifest exist. What a killed upload leaves is its beginning: the next try goes on there.

Rules of the room: no path is made from a name or a digest that the specification's grammar does not allow; whoever
changes something holds its lock; whatever is refused is `Refused`, with the specification's code.

Sources: OCI distribution-spec, spec.md "Pulling manifests" (the grammar), "Error Codes"; OCI image-spec,
image-layout.md; link(2), flock(2).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import uuid

from minirt import state
from minirt.errors import MinirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import Any

# The grammar (spec.md, "Pulling manifests"): what does not match never becomes a path.
NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
UPLOAD = re.compile(r"[a-f0-9]{8}(-[a-f0-9]{4}){3}-[a-f0-9]{12}")
LONGEST_NAME = 255  # of a repository by the specification, and of a file by the kernel

REF_NAME = "org.opencontainers.image.ref.name"
SUBJECT = "minirt.subject"  # in index.json, of a manifest that refers to another one: that one's digest
MOST_PARTS = 100_000  # of a manifest, brackets and commas: reading a hostile one must not take more memory than it has
PARTS = {"blobs", "config", "layers", "manifests"}  # one of which every kind of manifest has
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Refused(MinirtError):
    """What a registry refuses: `code` is one of the specification's, `str()` the sentence, `headers` go with it, and
    `status`, where it is not the code's usual one."""

    def __init__(self, code: str, sentence: str, headers: dict[str, str] | None = None, status: int = 0) -> None:
        super().__init__(sentence)
        self.code, self.headers, self.status = code, headers or {}, status


def checked(digest: str) -> str:
    """The digest itself, if it is one. Raises Refused (DIGEST_INVALID)."""
    if not DIGEST.fullmatch(digest):
        raise Refused("DIGEST_INVALID", f"{digest!r} is no digest: sha256: and 64 of the digits 0-9 a-f")
    return digest


class Storage:
    """All repositories below the directory `root`, which is made when it is missing."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.running: dict[str, tuple[int, Any]] = {}  # path of an upload -> (bytes so far, sha256 of them)
        for place in ("blobs/sha256", "blobs/sha512", "repositories"):
            os.makedirs(f"{self.root}/{place}", 0o700, exist_ok=True)

    def repository(self, name: str) -> Repository:
        """The repository `name`, there or not yet. Raises Refused (NAME_INVALID) when this is no name."""
        if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
            raise Refused("NAME_INVALID", f"{name!r} is no name of a repository: small letters, digits and . _ - /")
        return Repository(self, name)


class Repository:
    """One repository: its blobs, uploads, manifests and tags. Made by `Storage.repository`."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage, self.name = storage, name
        self.path = f"{storage.root}/repositories/{name.replace('/', '+')}"

    def prepare(self) -> None:
        """Make the directories of this repository where they are missing."""
        for place in ("blobs/sha256", "blobs/sha512", "uploads"):
            os.makedirs(f"{self.path}/{place}", 0o700, exist_ok=True)

    # -- blobs ---------------------------------------------------------------------------------------------------------

    def blob_path(self, digest: str) -> str:
        """Where a blob lies if this repository has it. Raises Refused (DIGEST_INVALID) when this is no digest."""
        return f"{self.path}/blobs/{checked(digest).replace(':', '/')}"

    def open_blob(self, digest: str) -> int:
        """A descriptor to read a blob from, the caller's to close. Raises Refused (BLOB_UNKNOWN, DIGEST_INVALID)."""
        try:
            return os.open(self.blob_path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Refused("BLOB_UNKNOWN", f"{self.name} has no blob {digest}") from None

    def mount(self, digest: str, source: Repository) -> bool:
        """Give a blob of another repository a name in this one: nothing is copied. Returns whether it was there."""
        self.prepare()
        try:
            os.link(source.blob_path(digest), self.blob_path(digest))
        except FileNotFoundError:
            return False
        except FileExistsError:
            pass
        return True

    def publish(self, path: str, digest: str) -> None:
        """Show the finished file at `path` as the blob `digest`: by a name in the pool and one here.

        If the pool has that content already, it is that one which is shown, and the file just goes. `path` keeps its
        name until both others are there: a server killed in between has lost nothing, and can do it again.
        """
        pooled = f"{self.storage.root}/blobs/{digest.replace(':', '/')}"
        for old, new in ((path, pooled), (pooled, self.blob_path(digest))):
            try:
                os.link(old, new)
            except FileExistsError:
                pass
        os.unlink(path)

    # -- uploads -------------------------------------------------------------------------------------------------------

    def begin_upload(self, owner: str) -> Upload:
        """An empty upload that belongs to `owner`, a user's name or "", with an id that nobody can guess (a UUID)."""
        self.prepare()
        identifier = str(uuid.uuid4())
        os.close(os.open(self.upload_path(identifier, owner), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return self.upload(identifier, owner)

    def upload_path(self, identifier: str, owner: str) -> str:
        """Where an upload of that owner lies: nobody else's request leads there."""
        return f"{self.path}/uploads/{identifier}-{hashlib.sha256(owner.encode()).hexdigest()[:16]}"

    def upload(self, identifier: str, owner: str) -> Upload:
        """The upload with that id and owner, if there is one. Raises Refused (BLOB_UPLOAD_UNKNOWN)."""
        path = self.upload_path(identifier, owner)
        if not UPLOAD.fullmatch(identifier) or not os.path.exists(path):
            raise Refused("BLOB_UPLOAD_UNKNOWN", f"{self.name} has no upload {identifier}")
        return Upload(self, identifier, path)

    # -- manifests and tags --------------------------------------------------------------------------------------------

    def entries(self) -> list[dict[str, Any]]:
        """The descriptors in index.json: one for each tag, and one for each manifest that has none."""
        path = f"{self.path}/index.json"
        found: list[dict[str, Any]] = state.read_json(path)["manifests"] if os.path.exists(path) else []
        return found

    def find(self, reference: str) -> dict[str, Any]:
        """The descriptor of the manifest with this tag or digest. Raises Refused (MANIFEST_UNKNOWN)."""
        for entry in self.entries():
            if reference in (entry["digest"], tag_of(entry)):
                return entry
        raise Refused("MANIFEST_UNKNOWN", f"{self.name} has no manifest {reference}")

    def lock(self) -> state.Lock:
        """The lock that whoever replaces index.json holds."""
        self.prepare()
        return state.Lock(f"{self.path}/lock")

    def write(self, entries: list[dict[str, Any]]) -> None:
        """Replace index.json, under the lock."""
        if not os.path.exists(f"{self.path}/oci-layout"):
            state.write_atomic(f"{self.path}/oci-layout", LAYOUT)
        state.write_json(f"{self.path}/index.json", {"schemaVersion": 2, "manifests": entries})

    def put_manifest(self, manifest: Manifest, tags: Sequence[str] = ()) -> None:
        """Store a manifest, and let `tags`, if there are any, mean it from now on.

        Raises Refused: MANIFEST_BLOB_UNKNOWN while something that the manifest names is not here.
        """
        with self.lock():
            entries = self.entries()
            known = {entry["digest"] for entry in entries}
            missing = [each for each in manifest.blobs if not os.path.exists(self.blob_path(each))]
            if missing := missing + [each for each in manifest.children if each not in known]:
                raise Refused("MANIFEST_BLOB_UNKNOWN", f"{self.name} lacks {', '.join(missing)}: push that first")
            temporary = f"{self.path}/uploads/manifest"
            state.write_atomic(temporary, manifest.data, mode=0o600)
            self.publish(temporary, manifest.digest)
            state.sync_directory(os.path.dirname(self.blob_path(manifest.digest)))  # its name, and those of its blobs
            if tags or manifest.digest not in known:
                kept = [each for each in untag(entries, tags) if tag_of(each) or each["digest"] != manifest.digest]
                self.write([*kept, *map(manifest.entry, tags or [""])])


class Upload:
    """A blob that is arriving. A `with` holds its lock: nobody else can send to it meanwhile.

    Entering raises Refused (BLOB_UPLOAD_INVALID) where another connection is sending to it, or has just ended it.
    """

    def __init__(self, repository: Repository, identifier: str, path: str) -> None:
        self.repository, self.identifier, self.path = repository, identifier, path
        self.fd = -1

    @property
    def size(self) -> int:
        """How many bytes are here. Raises Refused (BLOB_UPLOAD_UNKNOWN) where it has just come to its end."""
        try:
            return os.stat(self.path).st_size
        except FileNotFoundError:
            raise Refused("BLOB_UPLOAD_UNKNOWN", f"{self.repository.name} has no upload {self.identifier}") from None

    def __enter__(self) -> Upload:
        try:
            self.fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.stat(self.path)  # whoever had the lock before may have finished it
        except (BlockingIOError, FileNotFoundError):
            self.__exit__(None, None, None)
            raise Refused("BLOB_UPLOAD_INVALID", "another connection is sending to this upload: try again") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def append(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Write what arrives to the end of the file, piece by piece, and go on with its digest.

        Raises what `pieces` raises when the connection breaks, or OSError (ENOSPC): what was written stays, and counts.
        """
        known, digest = self.repository.storage.running.pop(self.path, (0, hashlib.sha256()))
        for piece in pieces:
            digest.update(piece)
            known += len(piece)
            state.write_all(self.fd, piece)
        self.repository.storage.running[self.path] = (known, digest)

    def finish(self, digest: str) -> None:
        """Show the blob, if it has that digest. Raises Refused (DIGEST_INVALID): then the upload is thrown away."""
        algorithm = checked(digest).partition(":")[0]
        known, running = self.repository.storage.running.pop(self.path, (-1, None))
        if known != self.size or algorithm != "sha256":  # begun by a server that is gone, or cut off: read it again
            with open(self.path, "rb") as file:
                running = hashlib.file_digest(file, algorithm)
        if running.hexdigest() != digest.partition(":")[2]:
            self.cancel()
            raise Refused("DIGEST_INVALID", f"{digest} was promised, {algorithm}:{running.hexdigest()} arrived")
        os.fsync(self.fd)
        self.repository.publish(self.path, digest)

    def cancel(self) -> None:
        """Throw away what has arrived."""
        self.repository.storage.running.pop(self.path, None)
        os.unlink(self.path)


class Manifest:
    """A manifest, or an index of manifests, as it was sent: `data` is kept to the byte, since its digest names it.

    `blobs`, `children`: digests of what it needs. `subject`: of what it is about, or "". Raises Refused
    (MANIFEST_INVALID, SIZE_INVALID) for what is no manifest, or too large.
    """

    def __init__(self, media_type: str, data: bytes, algorithm: str = "sha256") -> None:
        self.data, self.digest = data, f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        if sum(map(data.count, (b"{", b"[", b","))) > MOST_PARTS:
            raise Refused("SIZE_INVALID", f"a manifest has at most {MOST_PARTS} parts here")
        try:
            self.document = state.loads(data)
            if self.document.get("schemaVersion", 2) != 2 or not self.document.keys() & PARTS:
                raise ValueError(f"it is not of schema 2, or has none of {', '.join(sorted(PARTS))}")
            self.media_type: str = self.document.get("mediaType") or media_type
            parts = [self.document.get("config"), *self.document.get("layers", ()), *self.document.get("blobs", ())]
            self.blobs = [checked(each["digest"]) for each in parts if each is not None and not each.get("urls")]
            self.children = [checked(each["digest"]) for each in self.document.get("manifests", ())]
            subject = self.document.get("subject")
            self.subject = "" if subject is None else checked(subject["digest"])
            if not MEDIA_TYPE.fullmatch(self.media_type) or media_type not in ("", self.media_type):
                raise ValueError(f"it is sent as {media_type!r} and says that it is {self.media_type!r}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Refused("MANIFEST_INVALID", f"this is no manifest: {error}") from None

    def entry(self, tag: str) -> dict[str, Any]:
        """What index.json says of it."""
        notes = {key: value for key, value in ((REF_NAME, tag), (SUBJECT, self.subject)) if value}
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data), "annotations": notes}


def tag_of(entry: dict[str, Any]) -> str:
    """The tag that an entry of index.json gives its manifest, "" when it is known by its digest alone."""
    tag: str = entry.get("annotations", {}).get(REF_NAME, "")
    return tag


def untag(entries: list[dict[str, Any]], tags: Sequence[str]) -> list[dict[str, Any]]:
    """The entries without `tags`: a manifest that had no other one stays, known by its digest alone."""
    left = [each for each in entries if tag_of(each) not in tags]
    digests = {each["digest"] for each in left}
    for entry in entries:
        if entry["digest"] not in digests:
            digests.add(entry["digest"])
            notes = {key: value for key, value in entry["annotations"].items() if key != REF_NAME}
            left.append({**entry, "annotations": notes})
    return left

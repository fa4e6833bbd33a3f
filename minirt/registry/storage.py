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

from minirt import state
from minirt.errors import MinirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Any

NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
UPLOAD = re.compile(r"[a-f0-9]{32}")
LONGEST_NAME = 255  # of a repository, and of a file

REF_NAME = "org.opencontainers.image.ref.name"
SUBJECT = "minirt.subject"  # annotation of an entry of index.json: the digest of what this manifest refers to
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Refused(MinirtError):
    """What a registry refuses: `code` is one of the specification's, `str()` the sentence, `headers` go with it."""

    def __init__(self, code: str, sentence: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.code, self.headers = code, headers or {}


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """The digest of some bytes: `sha256:` and 64 hexadecimal digits."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


class Storage:
    """All repositories below the directory `root`, which is made when it is missing."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.running: dict[str, tuple[int, Any]] = {}  # upload's path -> (bytes so far, sha256 of them)
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

    def exists(self) -> bool:
        """Whether a manifest was ever stored here."""
        return os.path.exists(f"{self.path}/index.json")

    def lock(self) -> state.Lock:
        """The lock of whoever changes what this repository shows; its directories are made when missing."""
        for place in ("blobs/sha256", "blobs/sha512", "uploads"):
            os.makedirs(f"{self.path}/{place}", 0o700, exist_ok=True)
        return state.Lock(f"{self.path}/lock")

    # -- blobs ---------------------------------------------------------------------------------------------------------

    def blob_path(self, digest: str) -> str:
        """Where the blob lies if this repository has it. Raises Refused (DIGEST_INVALID) when this is no digest."""
        if not DIGEST.fullmatch(digest):
            raise Refused("DIGEST_INVALID", f"{digest!r} is no digest: sha256: and 64 digits 0-9 a-f")
        return f"{self.path}/blobs/{digest.replace(':', '/')}"

    def open_blob(self, digest: str) -> int:
        """A descriptor to read a blob from, the caller's to close. Raises Refused (BLOB_UNKNOWN)."""
        try:
            return os.open(self.blob_path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Refused("BLOB_UNKNOWN", f"{self.name} has no blob {digest}") from None

    def has_blob(self, digest: str) -> bool:
        """Whether this repository shows that blob."""
        return os.path.exists(self.blob_path(digest))

    def mount(self, digest: str, source: Repository) -> bool:
        """Give a blob of another repository a name in this one: nothing is copied. Returns whether it was there."""
        with self.lock():
            try:
                os.link(source.blob_path(digest), self.blob_path(digest))
            except FileNotFoundError:
                return False
            except FileExistsError:
                pass
        return True

    def publish(self, path: str, digest: str) -> None:
        """Show the finished, verified file at `path` as the blob `digest`: under its name in the pool and under ours.

        A content that the pool has already is linked from there, and the file just goes. Killed between any two of
        these calls, the file is still at `path`, whole, and doing it again ends well.
        """
        pooled = f"{self.storage.root}/blobs/{digest.replace(':', '/')}"
        for old, new in ((path, pooled), (pooled, self.blob_path(digest))):
            try:
                os.link(old, new)
            except FileExistsError:
                pass
        os.unlink(path)

    # -- uploads -------------------------------------------------------------------------------------------------------

    def begin_upload(self, owner: str) -> str:
        """Make an empty upload that belongs to `owner`, a user's name or ""; returns its id, which nobody can guess."""
        identifier = os.urandom(16).hex()
        with self.lock():
            os.close(os.open(self.upload_path(identifier, owner), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        return identifier

    def upload_path(self, identifier: str, owner: str) -> str:
        """Where that upload lies. Raises Refused (BLOB_UPLOAD_UNKNOWN) when this is no id."""
        if not UPLOAD.fullmatch(identifier):
            raise Refused("BLOB_UPLOAD_UNKNOWN", f"{self.name} has no upload {identifier!r}")
        return f"{self.path}/uploads/{identifier}-{hashlib.sha256(owner.encode()).hexdigest()[:16]}"

    def upload(self, identifier: str, owner: str) -> Upload:
        """An upload to go on with. Raises Refused where this repository has none with that id and owner."""
        return Upload(self, self.upload_path(identifier, owner), identifier)

    def arrived(self, identifier: str, owner: str) -> int:
        """How many bytes of an upload are here; its lock is not needed for that. Raises Refused."""
        try:
            return os.stat(self.upload_path(identifier, owner)).st_size
        except FileNotFoundError:
            raise Refused("BLOB_UPLOAD_UNKNOWN", f"{self.name} has no upload {identifier}") from None

    # -- manifests and tags --------------------------------------------------------------------------------------------

    def manifests(self) -> list[dict[str, Any]]:
        """The descriptors in index.json. Raises Refused (NAME_UNKNOWN) where nothing was ever pushed."""
        try:
            found: list[dict[str, Any]] = state.read_json(f"{self.path}/index.json")["manifests"]
        except FileNotFoundError:
            raise Refused("NAME_UNKNOWN", f"there is no repository {self.name} here") from None
        return found

    def find(self, reference: str) -> dict[str, Any]:
        """The descriptor of the manifest with this tag or digest. Raises Refused (MANIFEST_UNKNOWN, NAME_UNKNOWN)."""
        for entry in self.manifests():
            if reference in (entry["digest"], tag_of(entry)):
                return entry
        raise Refused("MANIFEST_UNKNOWN", f"{self.name} has no manifest {reference}")

    def put_manifest(self, reference: str, manifest: Manifest) -> str:
        """Store a manifest under a tag or under its own digest, once all that it needs is here; returns its digest.

        Raises Refused (TAG_INVALID, DIGEST_INVALID, MANIFEST_BLOB_UNKNOWN).
        """
        tag = "" if ":" in reference else reference
        digest = digest_of(manifest.data, "sha512" if reference.startswith("sha512:") else "sha256")
        if tag and not TAG.fullmatch(tag):
            raise Refused("TAG_INVALID", f"{tag!r} is no tag: letters, digits and . _ -, at most 128")
        if not tag and digest != reference:
            raise Refused("DIGEST_INVALID", f"the manifest's digest is {digest}, not {reference}")
        with self.lock():
            entries = self.manifests() if self.exists() else []
            known = {entry["digest"] for entry in entries}
            missing = [each for each in manifest.blobs if not self.has_blob(each)]
            if missing := missing + [each for each in manifest.children if each not in known]:
                raise Refused("MANIFEST_BLOB_UNKNOWN", f"{self.name} misses {', '.join(missing)}: push them first")
            temporary = f"{self.path}/uploads/manifest"
            state.write_atomic(temporary, manifest.data, mode=0o600)
            self.publish(temporary, digest)
            state.sync_directory(os.path.dirname(self.blob_path(digest)))  # the names of all that it needs, and its own
            if tag or digest not in known:
                others = [each for each in untag(entries, tag) if tag_of(each) or each["digest"] != digest]
                self.write([*others, manifest.entry(digest, tag)])
        return digest

    def write(self, entries: list[dict[str, Any]]) -> None:
        """Replace index.json. The caller holds the lock."""
        if not self.exists():
            state.write_atomic(f"{self.path}/oci-layout", LAYOUT)
        state.write_json(f"{self.path}/index.json", {"schemaVersion": 2, "manifests": entries})


class Manifest:
    """A manifest or an index of manifests, as it was sent: its `data` are kept to the byte, since they have a digest.

    Raises Refused (MANIFEST_INVALID) for what is neither.
    """

    def __init__(self, media_type: str, data: bytes) -> None:
        self.data = data
        try:
            self.document = state.loads(data)
            self.media_type: str = self.document.get("mediaType") or media_type
            parts = [self.document.get("config"), *self.document.get("layers", ()), *self.document.get("blobs", ())]
            self.blobs = [each["digest"] for each in parts if each and not each.get("urls")]
            self.children = [each["digest"] for each in self.document.get("manifests", ())]
            self.subject: str = (self.document.get("subject") or {}).get("digest", "")
            for digest in (*self.blobs, *self.children, *filter(None, [self.subject])):
                if not DIGEST.fullmatch(digest):
                    raise ValueError(f"{digest!r} is no digest")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Refused("MANIFEST_INVALID", f"this is no manifest: {error}") from None
        if media_type and media_type != self.media_type:
            raise Refused("MANIFEST_INVALID", f"it was sent as {media_type}, and says itself {self.media_type}")

    def entry(self, digest: str, tag: str) -> dict[str, Any]:
        """What index.json says of it."""
        notes = {key: value for key, value in ((REF_NAME, tag), (SUBJECT, self.subject)) if value}
        return {"mediaType": self.media_type, "digest": digest, "size": len(self.data), "annotations": notes}


def tag_of(entry: dict[str, Any]) -> str:
    """The tag that an entry of index.json gives its manifest, "" when it is known by its digest alone."""
    tag: str = entry.get("annotations", {}).get(REF_NAME, "")
    return tag


def untag(entries: list[dict[str, Any]], tag: str) -> list[dict[str, Any]]:
    """The entries without `tag`: a manifest that had no other one stays, known by its digest alone."""
    if not tag:
        return entries
    left = [each for each in entries if tag_of(each) != tag]
    for entry in entries:
        if tag_of(entry) == tag and all(each["digest"] != entry["digest"] for each in left):
            notes = {key: value for key, value in entry["annotations"].items() if key != REF_NAME}
            left.append({**entry, "annotations": notes})
    return left


class Upload:
    """A blob that is arriving. `size`: the bytes that are here. Used in a `with`, which holds the upload's lock.

    Entering raises Refused: BLOB_UPLOAD_UNKNOWN where there is no such upload, BLOB_UPLOAD_INVALID where another
    connection is sending to it.
    """

    def __init__(self, repository: Repository, path: str, identifier: str) -> None:
        self.repository, self.path, self.identifier = repository, path, identifier
        self.fd = -1

    def __enter__(self) -> Upload:
        try:
            self.fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.stat(self.path)  # whoever had the lock may have finished it
        except FileNotFoundError:
            self.__exit__(None, None, None)
            raise Refused("BLOB_UPLOAD_UNKNOWN", f"{self.repository.name} has no upload {self.identifier}") from None
        except BlockingIOError:
            self.__exit__(None, None, None)
            raise Refused("BLOB_UPLOAD_INVALID", "another connection is sending to this upload: try again") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    @property
    def size(self) -> int:
        """How many bytes are here."""
        return os.fstat(self.fd).st_size

    def append(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Write what arrives to the end of the file, piece by piece, and go on with its digest.

        Raises what `pieces` raises when the connection breaks, or OSError (ENOSPC): what was written stays, and counts.
        """
        known, digest = self.repository.storage.running.pop(self.path, (0, hashlib.sha256()))
        at = self.size
        for piece in pieces:
            digest.update(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self.fd, rest):]
            known, at = known + len(piece), at + len(piece)
        if known == at:  # not so when a server that is gone took the beginning: then the file is read again
            self.repository.storage.running[self.path] = (known, digest)

    def finish(self, digest: str) -> None:
        """Check the digest and show the blob. Raises Refused (DIGEST_INVALID): then the upload is thrown away."""
        algorithm = self.repository.blob_path(digest) and digest.partition(":")[0]
        known, running = self.repository.storage.running.pop(self.path, (-1, None))
        if known != self.size or algorithm != "sha256":
            with open(self.path, "rb") as file:
                running = hashlib.file_digest(file, algorithm)
        if digest != f"{algorithm}:{running.hexdigest()}":
            self.cancel()
            raise Refused("DIGEST_INVALID", f"{digest} was promised, {algorithm}:{running.hexdigest()} arrived")
        os.fsync(self.fd)
        self.repository.publish(self.path, digest)

    def cancel(self) -> None:
        """Throw away what has arrived."""
        self.repository.storage.running.pop(self.path, None)
        os.unlink(self.path)

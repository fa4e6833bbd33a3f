"""Images for tests, made from this machine's own files, so that a test needs no package and no network."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minirt.images import documents, pack

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = (
    "sh", "cat", "chmod", "cp", "cut", "date", "dd", "df", "echo", "env", "expr", "false", "find", "grep", "head",
    "hostname", "id", "kill", "ln", "ls", "mkdir", "mknod", "mount", "mv", "nproc", "od", "printf", "ps", "pwd",
    "readlink", "rm", "rmdir", "sed", "sleep", "sort", "stat", "stty", "sync", "tail", "tee", "test", "touch", "tr",
    "true", "tty", "umount", "uname", "wc", "whoami", "ip", "ipcs", "ipcmk", "seq", "tar", "timeout", "unshare", "vi",
    "xargs", "yes",
)
PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\n"
    "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "app:x:1000:1000:app:/home/app:/bin/sh\n"
)
GROUP = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nstaff:x:50:app\napp:x:1000:\n"


def static_busybox() -> str:
    """The machine's static busybox, "" when it has none."""
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if os.path.exists(path) and not pack.libraries(path):
            return path
    return ""


def busybox_tree(with_busybox: bool = True) -> pack.Tree:
    """A small userland: a static busybox under all its names, or, without one, the machine's own programs."""
    files = pack.Tree()
    box = static_busybox() if with_busybox else ""
    if box:
        files.copy(box, "/bin/busybox")
        for name in PROGRAMS:
            files.symlink(f"/bin/{name}", "busybox")
    else:
        for name in PROGRAMS:
            if source := shutil.which(name, path=PATH):
                files.program(source, f"/bin/{name}")
    for name in ("proc", "sys", "dev", "root", "home/app", "var", "etc"):
        files.directory(name)
    files.directory("tmp", 0o1777)
    files.text("/etc/passwd", PASSWD)
    files.text("/etc/group", GROUP)
    return files


def busybox(path: Path, name: str = "busybox:latest", with_busybox: bool = True) -> Path:
    """Write the archive of an image with a shell and small tools to `path`; return `path`."""
    settings = {"Cmd": ["sh"], "Env": [f"PATH={PATH}"]}
    pack.write_image(str(path), busybox_tree(with_busybox), settings, [name])
    return path


def debian_layer(place: Path) -> Path | None:
    """The layer of a small Debian userland with apt and Python, made by debootstrap in `place`; None where that cannot
    reach a mirror. It takes minutes: with MINIRT_TEST_CACHE (a directory) it is made once and kept there.
    """
    cache = os.environ.get("MINIRT_TEST_CACHE")
    kept = Path(cache) / "debian.layer.tar" if cache else place / "debian.layer.tar"
    if kept.exists():
        return kept
    made = subprocess.run(["unshare", "-m", "debootstrap", "--variant=minbase", "--include=python3-minimal", "stable",
                           str(place / "debian")], capture_output=True, check=False, timeout=900)
    if made.returncode:
        return None
    subprocess.run(["tar", "-C", str(place / "debian"), "--xattrs", "--xattrs-include=*", "--numeric-owner",
                    "-cf", f"{kept}.new", "."], check=True)
    os.rename(f"{kept}.new", kept)
    shutil.rmtree(place / "debian")
    return kept


# -- archives made by hand, honest and otherwise ---------------------------------------------------------------------

def entry(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: Any,
          ) -> tuple[tarfile.TarInfo, bytes]:
    """One file of a layer; `fields` are those of `tarfile.TarInfo` (mode, uid, linkname, mtime, pax_headers, ...)."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size = kind, 0o755 if kind == tarfile.DIRTYPE else 0o644, len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def layer(*entries: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """A layer of these files, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def members(files: dict[str, bytes]) -> bytes:
    """A tar archive with these members."""
    return layer(*(entry(name, content=content) for name, content in files.items()))


def sha(data: bytes) -> str:
    """The sha256 of `data`, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def config_of(layers: Sequence[bytes], **fields: Any) -> bytes:
    """The image configuration that belongs to these uncompressed layers."""
    return json.dumps({"architecture": documents.architecture(), "os": "linux", "created": "2026-01-02T03:04:05Z",
                       "config": {"Cmd": ["sh"]},
                       "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(each)}" for each in layers]}, **fields,
                       }).encode()


def docker_archive(*layers: bytes, names: Sequence[str] = ("test:latest",), config: bytes = b"") -> bytes:
    """What `docker save` would write of an image with these uncompressed layers."""
    config = config or config_of(layers)
    manifest = [{"Config": f"{sha(config)}.json", "RepoTags": list(names),
                 "Layers": [f"{number}/layer.tar" for number in range(len(layers))]}]
    return members({f"{sha(config)}.json": config, "manifest.json": json.dumps(manifest).encode(),
                    **{f"{number}/layer.tar": each for number, each in enumerate(layers)}})


def oci_files(*layers: bytes, name: str = "test:latest", pack: Callable[[bytes], bytes] = gzip.compress,
              config: bytes = b"") -> dict[str, bytes]:
    """The files of an OCI archive with these uncompressed layers, which `pack` compresses."""
    config = config or config_of(layers)
    packed = [pack(each) for each in layers]
    kind = "application/vnd.oci.image"
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", "digest": f"sha256:{sha(config)}", "size": len(config)},
        "layers": [{"mediaType": f"{kind}.layer.v1.tar+gzip", "digest": f"sha256:{sha(each)}", "size": len(each)}
                   for each in packed]}).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [{
        "mediaType": f"{kind}.manifest.v1+json", "digest": f"sha256:{sha(manifest)}", "size": len(manifest),
        "annotations": {documents.REF_NAME: name}}]}).encode()
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index,
            **{f"blobs/sha256/{sha(blob)}": blob for blob in (config, manifest, *packed)}}


def oci_archive(*layers: bytes, **fields: Any) -> bytes:
    """An OCI archive with these uncompressed layers; `fields` as for `oci_files`."""
    return members(oci_files(*layers, **fields))

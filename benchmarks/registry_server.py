"""Our registry beside docker-registry: the same skopeo pushes to and pulls from each, alone and sixteen at once."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.turns import Runner

LARGE = (40 << 20, 30 << 20, 10 << 20, 4 << 20)  # layers of the image that one client moves, bytes
SMALL = (3 << 20, 1 << 20)  # and of each image of the sixteen
CLIENTS = 16
# skopeo remembers which registry has what, and would turn the second push into a mount.
FORGET = "mkdir -p /var/lib/containers/cache; mount -t tmpfs none /var/lib/containers/cache"
PORTS = {"minirt": 5971, "docker-registry": 5972}


def image(place: Path, seed: int, sizes: tuple[int, ...]) -> Path:
    """An image as skopeo's `dir:` has it, of layers that cannot be compressed; so no client has anything to compute."""
    place.mkdir()
    (place / "version").write_text("Directory Transport Version: 1.1\n")
    kind = "application/vnd.oci.image"

    def keep(data: bytes, media_type: str) -> dict[str, object]:
        name = hashlib.sha256(data).hexdigest()
        (place / name).write_bytes(data)
        return {"mediaType": f"{kind}.{media_type}", "digest": f"sha256:{name}", "size": len(data)}

    layers = [keep(random.Random(f"{seed} {size}").randbytes(size), "layer.v1.tar+gzip") for size in sizes]
    config = {"architecture": "amd64", "os": "linux", "config": {"Labels": {"seed": str(seed)}},
              "rootfs": {"type": "layers", "diff_ids": [each["digest"] for each in layers]}}
    (place / "manifest.json").write_text(json.dumps({
        "schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json",
        "config": keep(json.dumps(config).encode(), "config.v1+json"), "layers": layers}))
    return place


@contextmanager
def serving(place: Path, minirt: str) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Both registries, on the same disk. Raises RuntimeError when one does not come up."""
    settings = place / "registry.yml"
    settings.write_text(f"version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n"
                        f"storage:\n  filesystem:\n    rootdirectory: {place}/theirs\n"
                        f"http:\n  addr: 127.0.0.1:{PORTS['docker-registry']}\n")
    commands = {"minirt": [minirt, "registry", "serve", "-q", "--root", f"{place}/ours", "--addr",
                           f"127.0.0.1:{PORTS['minirt']}"],
                "docker-registry": ["docker-registry", "serve", str(settings)]}
    servers = {name: subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL) for name, words in commands.items()}
    try:
        deadline = time.monotonic() + 10
        for port in PORTS.values():
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise RuntimeError(f"no registry listens at port {port}") from None
                    time.sleep(0.05)
        yield servers
    finally:
        for server in servers.values():
            server.send_signal(signal.SIGTERM)
            server.wait(20)


def jobs(place: Path) -> Iterator[tuple[str, list[Runner]]]:
    """What is measured: (title, a runner for each registry). A pull takes what the push of the same turn has left."""
    large = image(place / "large", 0, LARGE)
    small = [image(place / f"small-{number}", number, SMALL) for number in range(1, CLIENTS + 1)]
    copy = "skopeo --insecure-policy copy -q --src-tls-verify=false --dest-tls-verify=false"
    for title, sources in (("1 client, 84 MiB in 4 layers", [large]),
                           (f"{CLIENTS} clients, 4 MiB in 2 layers each", small)):
        for verb in ("push", "pull"):
            runners = []
            for name, port in PORTS.items():
                def words(turn: int, port: int = port, verb: str = verb, name: str = name,
                          sources: list[Path] = sources) -> list[str]:
                    lines = []
                    for source in sources:
                        there = f"docker://127.0.0.1:{port}/turn{turn + 1}/{source.name}:1"
                        pair = (f"dir:{source}", there) if verb == "push" else (there, f"dir:{place}/got-{source.name}")
                        lines.append(f"{copy} {pair[0]} {pair[1]} & pids=\"$pids $!\"")
                    lines.append("for pid in $pids; do wait $pid; done")
                    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join([FORGET, *lines])]

                def clean(turn: int) -> None:
                    for path in place.glob("got-*"):
                        shutil.rmtree(path)

                runners.append(Runner(name, words, after=clean))
            yield f"{verb}: {title}", runners


def peak(server: subprocess.Popen[bytes]) -> float:
    """The largest memory that a server has had, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0

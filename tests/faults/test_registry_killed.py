"""Our registry killed at every step of a push, and on a full disk: what was there is there, nothing half is shown, and
the next try goes on where the last one ended.

strace kills the server when it enters a chosen system call for the n-th time. All requests of a push come on one
connection, so one thread of the server makes all the calls: they are recorded first, then each is the point of an
attack in its turn.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.registry_server import MANIFEST, Registry, digest, manifest

pytestmark = [pytest.mark.caged, pytest.mark.limit(300), pytest.mark.memory(2048)]
CHANGING = "write,pwrite64,fsync,rename,renameat,link,linkat,unlink,unlinkat,mkdir,mkdirat,openat,ftruncate"
TRACED = ",".join("?" + name for name in CHANGING.split(","))
CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
LAYER = hashlib.sha256(b"seed").digest() * 30_000  # 960 kB, the same in every run


def push(port: int, resume: dict[str, str]) -> None:
    """Push an image as team/new:v1 on one connection. `resume` remembers where the upload of a blob lies, for the next
    try. Raises OSError or HTTPException when the server goes away."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        reply = connection.getresponse()
        reply.read()
        return reply

    try:
        for blob in (LAYER, CONFIG):
            name = digest(blob)
            if ask("HEAD", f"/v2/team/new/blobs/{name}").status == 200:
                continue
            at, arrived = resume.get(name, ""), 0
            if at and (reply := ask("GET", at)).status == 204:
                last = int(reply.headers["Range"].partition("-")[2])
                arrived = last + 1 if last else 0
            else:
                at = resume[name] = ask("POST", "/v2/team/new/blobs/uploads/").headers["Location"]
            for start in range(arrived, len(blob), 400_000):
                piece = blob[start : start + 400_000]
                place = f"{start}-{start + len(piece) - 1}"
                assert ask("PATCH", at, piece, Content_Range=place).status == 202
            assert ask("PUT", f"{at}?digest={name}").status == 201
        done = ask("PUT", "/v2/team/new/manifests/v1", manifest(CONFIG, LAYER), Content_Type=MANIFEST)
        assert done.status == 201
    finally:
        connection.close()


def look(registry: Registry) -> list[str]:
    """Read all that the registry shows, and check it; returns the tags."""
    shown = []
    for name in registry("GET", "/v2/_catalog").json["repositories"]:
        for tag in registry("GET", f"/v2/{name}/tags/list").json["tags"]:
            shown.append(f"{name}:{tag}")
            reply = registry("GET", f"/v2/{name}/manifests/{tag}")
            assert digest(reply.body) == reply["Docker-Content-Digest"]
            for part in (reply.json["config"], *reply.json["layers"]):
                blob = registry("GET", f"/v2/{name}/blobs/{part['digest']}")
                assert (blob.status, digest(blob.body)) == (200, part["digest"])
    for path in registry.root.glob("**/blobs/sha256/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, "a blob that is not what its name says"
    for path in registry.root.glob("**/index.json"):
        json.loads(path.read_text())
    return shown


def garbage(root: Path) -> list[str]:
    """Files that nothing needs, once all uploads are old."""
    for path in root.glob("**/uploads/*"):
        os.utime(path, (1, 1))
    words = [sys.executable, "-m", "minirt", "registry", "garbage-collect", "--root", str(root)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert "Total reclaimed space" in done.stdout
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def calls(log: Path) -> list[tuple[str, int]]:
    """The calls that the thread of the push made which change the store: (name, the how-manyeth)."""
    by_thread: dict[str, list[tuple[str, int]]] = {}
    seen: dict[tuple[str, str], int] = {}
    for line in log.read_text(errors="replace").splitlines():
        found = re.match(r"(\d+) +(\w+)\((.*)", line)
        if found:
            key = (found[1], found[2])
            seen[key] = seen.get(key, 0) + 1
            if found[2] != "openat" or "O_CREAT" in found[3]:
                by_thread.setdefault(found[1], []).append((found[2], seen[key]))
    return max(by_thread.values(), key=lambda made: sum(name.startswith("link") for name, _ in made))


def strace(log: Path | str, traced: str, *inject: str) -> list[str]:
    if not shutil.which("strace"):
        pytest.fail("these tests need strace: make test-deps")
    return ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={traced}", *inject]


def with_witness(root: Path) -> str:
    """A registry that holds an image already; returns the digest of its manifest."""
    with Registry(root) as registry:
        data, _ = registry.push("team/old", "kept")
        return digest(data)


def recorded(tmp_path: Path) -> list[tuple[str, int]]:
    """The steps of an undisturbed push."""
    with_witness(tmp_path / "calm")
    served = Registry(tmp_path / "calm", "-q", wrapper=strace(tmp_path / "log", TRACED)).start()
    push(served.port, {})
    end(served)
    return calls(tmp_path / "log")


def end(served: Registry) -> None:
    """Stop a server under strace: the signal goes to the server itself."""
    [child] = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
    os.kill(int(child), 15)
    served.process.wait(20)
    served.reader.join(5)
    served.process.stderr.close()  # type: ignore[union-attr]


PARTS = 6


@pytest.mark.parametrize("part", range(PARTS))
def test_the_server_is_killed_at_every_step_of_a_push(tmp_path: Path, part: int) -> None:
    """Each call that changes something is once the last one; then a new server, the rest of the push, and a look."""
    steps = recorded(tmp_path)
    assert len(steps) > 25 and {"link", "fsync", "unlink", "rename", "write"} <= {name for name, _ in steps}
    expected, killed = garbage(tmp_path / "calm"), 0
    for name, number in steps[part::PARTS]:
        root = tmp_path / f"{name}-{number}"
        with_witness(root)
        inject = ("-e", f"inject={name}:signal=KILL:when={number}")
        served = Registry(root, "-q", wrapper=strace("/dev/null", name, *inject))
        resume: dict[str, str] = {}
        try:
            served.start()
            push(served.port, resume)
            end(served)  # the call belonged to another thread, or came after the last answer
        except (OSError, http.client.HTTPException, AssertionError):  # killed while it starts, or later
            served.process.wait(20)
            served.process.stderr.close()  # type: ignore[union-attr]
            killed += 1
        with Registry(root, "-q") as again:
            shown = look(again)
            assert shown in (["team/old:kept"], ["team/new:v1", "team/old:kept"]), (name, number)
            push(again.port, resume)
            assert look(again) == ["team/new:v1", "team/old:kept"]
        assert garbage(root) == expected, (name, number)
        shutil.rmtree(root)
    assert killed > len(steps[part::PARTS]) / 2


def test_an_upload_that_was_killed_goes_on_where_it_ended(tmp_path: Path) -> None:
    """Not from its beginning: what has arrived is not sent again."""
    with Registry(tmp_path) as registry:
        at = registry("POST", "/v2/a/blobs/uploads/")["Location"]
        connection = http.client.HTTPConnection("127.0.0.1", registry.port)
        connection.putrequest("PATCH", at)
        connection.putheader("Content-Length", str(len(LAYER)))
        connection.endheaders(LAYER[:700_000])
        deadline = time.monotonic() + 5
        while registry("GET", at)["Range"] != "0-699999" and time.monotonic() < deadline:
            time.sleep(0.02)
        registry.process.kill()
        registry.process.wait()
        registry.start()
        assert registry("GET", at)["Range"] == "0-699999"
        place = f"700000-{len(LAYER) - 1}"
        reply = registry("PUT", f"{at}?digest={digest(LAYER)}", LAYER[700_000:], Content_Range=place)
        assert reply.status == 201
        assert registry("GET", f"/v2/a/blobs/{digest(LAYER)}").body == LAYER


@pytest.mark.leaves("the small disk")
@pytest.mark.parametrize("free", [0, 4096, 8192, 100_000, 700_000, 970_000, 980_000])
def test_a_full_disk(tmp_path: Path, free: int) -> None:
    """507 with a sentence; what is there is served; with room again the upload goes on with what has arrived."""
    root = tmp_path / "small"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "small", root], check=True)
    with Registry(root / "registry") as registry:
        registry.push("team/old", "kept")
        at = registry("POST", "/v2/team/new/blobs/uploads/")["Location"]
        space = os.statvfs(root)
        (root / "ballast").write_bytes(bytes(space.f_bavail * space.f_frsize - free))
        reply = registry("PATCH", at, LAYER)
        if reply.status != 202:
            assert reply.status == 507 and "full" in reply.json["errors"][0]["message"]
            assert registry("POST", "/v2/team/other/blobs/uploads/").status in (202, 507)
            arrived = int(registry("GET", at)["Range"].partition("-")[2])
            arrived = arrived + 1 if arrived else 0
            assert arrived <= free
            assert look(registry) == ["team/old:kept"]
            (root / "ballast").unlink()
            rest = registry("PATCH", at, LAYER[arrived:], Content_Range=f"{arrived}-{len(LAYER) - 1}")
            assert rest.status == 202
        assert registry("PUT", f"{at}?digest={digest(LAYER)}").status == 201
        registry.push_blob("team/new", CONFIG)
        reply = registry.put("team/new", "v1", manifest(CONFIG, LAYER))
        if reply.status == 507:  # the index did not find room
            assert look(registry) == ["team/old:kept"]
            (root / "ballast").unlink()
            reply = registry.put("team/new", "v1", manifest(CONFIG, LAYER))
        assert reply.status == 201
        assert look(registry) == ["team/new:v1", "team/old:kept"]
        assert not list(root.rglob("*.tmp"))
    subprocess.run(["umount", root], check=True)

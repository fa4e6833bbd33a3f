"""Our registry with clients that we did not write: what skopeo, podman, buildah, umoci, containerd and Docker's daemon
send comes back to the byte, whoever fetches it; and docker-registry, fed from ours, has the same digests.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import images
from tests.registry_server import INDEX, MANIFEST, Registry, descriptor, digest, index

pytestmark = [pytest.mark.caged, pytest.mark.on_disk, pytest.mark.limit(300), pytest.mark.memory(4096),
              pytest.mark.leaves("the clients' stores")]
V2S2 = "application/vnd.docker.distribution.manifest.v2+json"


def run(*words: str | Path, **more: object) -> str:
    """Run a tool to its end; its output."""
    if shutil.which(str(words[0])) is None:
        pytest.fail(f"these tests need {words[0]}: make test-deps")
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stderr[-2000:]}"
    return str(done.stdout)


def skopeo(verb: str, *words: str | Path) -> str:
    plain = {"copy": ["--src-tls-verify=false", "--dest-tls-verify=false"], "sync": ["--src-tls-verify=false",
             "--dest-tls-verify=false"]}.get(verb, ["--tls-verify=false"])
    return run("skopeo", "--insecure-policy", verb, *plain, *words)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry", "--delete") as served:
        yield served


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An image with a shell, as `docker save` would write it."""
    return images.busybox(tmp_path / "busybox.tar")


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Podman, and buildah as `podman("buildah", ...)`, with all their state in a place of this test's."""
    with tempfile.TemporaryDirectory(dir="/run", prefix="peer") as short:  # podman wants at most 50 characters
        place = ["--root", tmp_path / "podman", "--runroot", short, "--storage-driver", "vfs"]
        more = ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]

        def call(*words: str | Path) -> str:
            if words[0] == "buildah":
                return run("buildah", *place, *words[1:])
            return run("podman", *place, *more, *words)

        yield call


def same(one: Path, other: Path) -> None:
    """Two directories hold the same files to the byte."""
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    assert filecmp.cmpfiles(one, other, names, shallow=False)[0] == names


# -- skopeo and umoci --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["oci", "v2s2", "oci-zstd"])
def test_skopeo_gets_back_what_it_sent(registry: Registry, archive: Path, tmp_path: Path, kind: str) -> None:
    form, _, packing = kind.partition("-")
    how = ["--format", form, "--dest-compress", *(["--dest-compress-format", packing] if packing else [])]
    there = f"docker://{registry.address}/team/tool"
    skopeo("copy", *how, f"docker-archive:{archive}", f"dir:{tmp_path}/sent")
    skopeo("copy", "--preserve-digests", f"dir:{tmp_path}/sent", f"{there}:v1")
    skopeo("copy", "--preserve-digests", f"{there}:v1", f"dir:{tmp_path}/received")
    same(tmp_path / "sent", tmp_path / "received")
    sent = (tmp_path / "sent/manifest.json").read_bytes()
    assert json.loads(skopeo("inspect", f"{there}:v1"))["Digest"] == digest(sent)
    assert registry("GET", "/v2/team/tool/manifests/v1")["Content-Type"] == (V2S2 if form == "v2s2" else MANIFEST)
    skopeo("copy", "--preserve-digests", f"{there}@{digest(sent)}", f"docker://{registry.address}/other/tool:v2")
    assert json.loads(skopeo("list-tags", f"docker://{registry.address}/other/tool"))["Tags"] == ["v2"]
    skopeo("delete", f"{there}:v1")
    assert registry("GET", "/v2/team/tool/manifests/v1").status == 404
    assert registry("GET", "/v2/other/tool/manifests/v2").body == sent


def test_skopeo_brings_all_platforms(registry: Registry, tmp_path: Path) -> None:
    """An index with two manifests, whole, both ways."""
    with Registry(tmp_path / "first") as first:
        parts = [first.push("multi", f"p{number}", annotations={"number": str(number)})[0] for number in range(2)]
        document = json.loads(index(*parts))
        for entry, machine in zip(document["manifests"], ("amd64", "arm64"), strict=True):
            entry["platform"] = {"os": "linux", "architecture": machine}
        every = json.dumps(document).encode()
        assert first.put("multi", "all", every, INDEX).status == 201
        skopeo("copy", "--all", f"docker://{first.address}/multi:all", f"docker://{registry.address}/multi:all")
        skopeo("sync", "--all", "--src", "docker", "--dest", "docker", f"{first.address}/multi",
               f"{registry.address}/synced")
    for name in ("multi", "synced/multi"):
        assert registry("GET", f"/v2/{name}/manifests/all").body == every
        for part in parts:
            assert registry("GET", f"/v2/{name}/manifests/{digest(part)}").body == part
    assert registry("GET", "/v2/synced/multi/tags/list").json["tags"] == ["all", "p0", "p1"]


def test_umoci_and_skopeo_read_a_repository_as_it_lies_on_the_disk(registry: Registry, archive: Path, tmp_path: Path,
                                                                    ) -> None:
    """A repository is an OCI image layout."""
    skopeo("copy", "--format", "oci", f"docker-archive:{archive}", f"docker://{registry.address}/team/tool:v1")
    layout = registry.root / "repositories" / "team+tool"
    assert run("umoci", "ls", "--layout", layout).split() == ["v1"]
    run("umoci", "unpack", "--image", f"{layout}:v1", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/etc/passwd").read_text() == images.PASSWD
    skopeo("copy", "--preserve-digests", f"oci:{layout}:v1", f"dir:{tmp_path}/disk")
    skopeo("copy", "--preserve-digests", f"docker://{registry.address}/team/tool:v1", f"dir:{tmp_path}/wire")
    same(tmp_path / "disk", tmp_path / "wire")


def test_docker_registry_has_the_same(registry: Registry, archive: Path, tmp_path: Path) -> None:
    """From ours to docker-registry and back, the digest stays."""
    settings = tmp_path / "config.yml"
    settings.write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {tmp_path}/theirs\n"
                        "http:\n  addr: 127.0.0.1:5999\n")
    theirs = subprocess.Popen(["docker-registry", "serve", settings], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        skopeo("copy", f"docker-archive:{archive}", f"docker://{registry.address}/a:v1")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and subprocess.run(
                ["curl", "-sf", "http://127.0.0.1:5999/v2/"], capture_output=True, check=False).returncode:
            time.sleep(0.05)
        skopeo("copy", "--preserve-digests", f"docker://{registry.address}/a:v1", "docker://127.0.0.1:5999/b:v1")
        skopeo("copy", "--preserve-digests", "docker://127.0.0.1:5999/b:v1", f"docker://{registry.address}/c:v1")
        assert registry("GET", "/v2/c/manifests/v1").body == registry("GET", "/v2/a/manifests/v1").body
        assert run("curl", "-sf", "-H", "Accept: */*", "http://127.0.0.1:5999/v2/b/tags/list").strip() \
            == '{"name":"b","tags":["v1"]}'
    finally:
        theirs.terminate()
        theirs.wait()


def test_skopeo_by_tls_with_a_password(archive: Path, tmp_path: Path) -> None:
    """A certificate of one's own, in Docker's layout of directories; a wrong password and a stranger's are refused."""
    from tests.run.test_registry_server import bcrypt_line

    certs = tmp_path / "certs"
    certs.mkdir()
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key.pem", "-out",
        certs / "ca.crt", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    (tmp_path / "users").write_text(bcrypt_line("alice", "wonder"))
    options = ("--tls-cert", str(certs / "ca.crt"), "--tls-key", str(tmp_path / "key.pem"), "--auth",
               str(tmp_path / "users"))
    with Registry(tmp_path / "registry", *options) as registry:
        there = f"docker://{registry.address}/private/tool:v1"
        copy = ["skopeo", "--insecure-policy", "copy", "--dest-cert-dir", certs]
        run(*copy, "--dest-creds", "alice:wonder", f"docker-archive:{archive}", there)
        for wrong in (["--dest-creds", "alice:wrong"], []):
            words = [*map(str, copy), *wrong, f"docker-archive:{archive}", there]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            assert done.returncode and ("authentication required" in done.stderr or "nauthorized" in done.stderr)
        run("skopeo", "--insecure-policy", "copy", "--src-cert-dir", certs, "--src-creds", "alice:wonder", there,
            f"dir:{tmp_path}/received")
    assert "wonder" not in registry.log


# -- podman and buildah ------------------------------------------------------------------------------------------------

def test_podman_and_buildah(registry: Registry, archive: Path, tmp_path: Path, podman: Callable[..., str]) -> None:
    """Podman pushes and pulls; buildah builds upon that and pushes; podman has what buildah made."""
    name = f"{registry.address}/team/box"
    podman("load", "-q", "-i", archive)
    podman("tag", "localhost/busybox:latest", f"{name}:v1")
    podman("push", "-q", "--tls-verify=false", "--digestfile", tmp_path / "digest", f"{name}:v1")
    pushed = (tmp_path / "digest").read_text().strip()
    assert registry("HEAD", "/v2/team/box/manifests/v1")["Docker-Content-Digest"] == pushed
    before = podman("image", "inspect", f"{name}:v1", "--format", "{{.Id}}").strip()
    podman("rmi", "-af")
    assert podman("pull", "-q", "--tls-verify=false", f"{name}@{pushed}").strip() == before
    assert podman("pull", "-q", "--tls-verify=false", f"{name}:v1").strip() == before
    assert podman("image", "inspect", f"{name}:v1", "--format", "{{.Digest}}").strip() == pushed

    made = podman("buildah", "from", "--tls-verify=false", f"{name}:v1").strip()
    (tmp_path / "news").write_text("new\n")
    podman("buildah", "copy", made, tmp_path / "news", "/news")
    podman("buildah", "commit", "-q", made, f"{name}:v2")
    podman("buildah", "push", "-q", "--tls-verify=false", "--digestfile", tmp_path / "digest", f"{name}:v2")
    assert registry("HEAD", "/v2/team/box/manifests/v2")["Docker-Content-Digest"] == (tmp_path / "digest").read_text()
    podman("buildah", "rm", "-a")
    podman("rmi", "-af")
    podman("pull", "-q", "--tls-verify=false", f"{name}:v2")
    mounted = podman("image", "mount", f"{name}:v2").strip()
    assert (Path(mounted) / "news").read_text() == "new\n"
    podman("image", "umount", "-a")


# -- Docker ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Docker's daemon in a mount namespace of its own, with all its state in a place of this test's."""
    for program in ("dockerd", "docker"):
        if shutil.which(program) is None:
            pytest.fail(f"these tests need {program}: make test-deps")
    with tempfile.TemporaryDirectory(dir="/run", prefix="peer") as short:
        environment = {**os.environ, "DOCKER_HOST": f"unix://{short}/docker.sock", "DOCKER_CONFIG": f"{short}/config"}
        log = (tmp_path / "docker.log").open("wb")
        daemon = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "dockerd", "--host", environment["DOCKER_HOST"],
             "--data-root", str(tmp_path / "docker"), "--exec-root", f"{short}/exec", "--pidfile", f"{short}/pid",
             "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver", "vfs"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 30
            while subprocess.run(["docker", "version"], env=environment, capture_output=True, check=False).returncode:
                assert daemon.poll() is None and time.monotonic() < deadline, (tmp_path / "docker.log").read_text()
                time.sleep(0.1)
            yield lambda *words: run("docker", *words, env=environment)
        finally:
            daemon.terminate()
            daemon.wait(30)
            log.close()


def test_the_docker_daemon(registry: Registry, archive: Path, tmp_path: Path, docker: Callable[..., str]) -> None:
    """Push, pull, again with everything there, and by digest; what podman's kin sent, Docker has too."""
    name = f"{registry.address}/team/box"
    docker("load", "-q", "-i", archive)
    docker("tag", "busybox:latest", f"{name}:v1")
    pushed = docker("push", f"{name}:v1").split("digest: ")[1].split()[0]
    assert registry("HEAD", "/v2/team/box/manifests/v1")["Docker-Content-Digest"] == pushed
    assert "Layer already exists" in docker("push", f"{name}:v1")
    docker("tag", f"{name}:v1", f"{registry.address}/other/box:v1")
    assert "Mounted from team/box" in docker("push", f"{registry.address}/other/box:v1")
    image = docker("image", "inspect", "--format", "{{.Id}}", f"{name}:v1")
    docker("rmi", "-f", "busybox:latest", f"{name}:v1", f"{registry.address}/other/box:v1")
    assert f"Digest: {pushed}" in docker("pull", f"{name}:v1")
    assert docker("image", "inspect", "--format", "{{.Id}}", f"{name}:v1") == image
    assert "Image is up to date" in docker("pull", f"{name}:v1")
    docker("pull", f"{name}@{pushed}")

    skopeo("copy", "--format", "oci", f"docker-archive:{archive}", f"docker://{registry.address}/oci/box:v1")
    docker("pull", f"{registry.address}/oci/box:v1")
    docker("save", "-o", tmp_path / "saved.tar", f"{registry.address}/oci/box:v1")
    skopeo("copy", f"docker-archive:{tmp_path}/saved.tar", f"dir:{tmp_path}/saved")
    skopeo("copy", f"docker-archive:{archive}", f"dir:{tmp_path}/original")
    layers = [[each["digest"] for each in json.loads((tmp_path / place / "manifest.json").read_text())["layers"]]
              for place in ("saved", "original")]
    assert layers[0] == layers[1]


def test_docker_logs_in(tmp_path: Path, docker: Callable[..., str]) -> None:
    """With --auth: `docker login`, refused with a wrong password."""
    from tests.run.test_registry_server import bcrypt_line

    (tmp_path / "users").write_text(bcrypt_line("alice", "wonder"))
    with Registry(tmp_path / "registry", "--auth", str(tmp_path / "users")) as registry:
        assert "Login Succeeded" in docker("login", "-u", "alice", "-p", "wonder", registry.address)
        with pytest.raises(AssertionError, match=r"401|unauthorized"):
            docker("login", "-u", "alice", "-p", "wrong", registry.address)


def test_containerd(registry: Registry, archive: Path, tmp_path: Path) -> None:
    """What Kubernetes' nodes fetch with: pull, and push to another repository; the digest stays."""
    skopeo("copy", "--format", "oci", f"docker-archive:{archive}", f"docker://{registry.address}/team/tool:v1")
    sent = registry("GET", "/v2/team/tool/manifests/v1")
    with tempfile.TemporaryDirectory(dir="/run", prefix="peer") as short:
        settings = tmp_path / "containerd.toml"
        settings.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        log = (tmp_path / "containerd.log").open("wb")
        daemon = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "containerd", "--config", settings, "--address",
             f"{short}/sock", "--root", tmp_path / "containerd", "--state", f"{short}/state"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            ctr = ["ctr", "--address", f"{short}/sock"]
            deadline = time.monotonic() + 20
            while subprocess.run([*ctr, "version"], capture_output=True, check=False).returncode:
                assert daemon.poll() is None and time.monotonic() < deadline, (tmp_path / "containerd.log").read_text()
                time.sleep(0.1)
            plain = ["--plain-http", "--snapshotter", "native"]
            run(*ctr, "images", "pull", *plain, f"{registry.address}/team/tool:v1")
            assert sent["Docker-Content-Digest"] in run(*ctr, "images", "ls")
            run(*ctr, "images", "push", "--plain-http", f"{registry.address}/other/tool:v2",
                f"{registry.address}/team/tool:v1")
        finally:
            daemon.terminate()
            daemon.wait(20)
            log.close()
    assert registry("GET", "/v2/other/tool/manifests/v2").body == sent.body


# -- curl, as an artifact's client would -------------------------------------------------------------------------------

def test_an_artifact_and_its_referrers_by_curl(registry: Registry, tmp_path: Path) -> None:
    """What oras does: push a file as an artifact about an image, find it by the image's digest, fetch it."""
    image, _ = registry.push("team/tool", "v1")
    base = f"http://{registry.address}/v2/team/tool"
    note = tmp_path / "note.txt"
    note.write_bytes(b"a bill of materials\n")
    empty = b"{}"
    (tmp_path / "empty").write_bytes(empty)
    for path in (note, tmp_path / "empty"):
        answer = run("curl", "-sfi", "-X", "POST", f"{base}/blobs/uploads/")
        place = next(line.split(" ")[1] for line in answer.splitlines() if line.lower().startswith("location"))
        run("curl", "-sf", "-T", path, "-H", "Content-Type: application/octet-stream",
            f"http://{registry.address}{place.strip()}?digest={digest(path.read_bytes())}")
    artifact = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "text/bill",
                "config": descriptor(empty, "application/vnd.oci.empty.v1+json"),
                "layers": [descriptor(note.read_bytes(), "text/plain")], "subject": descriptor(image, MANIFEST),
                "annotations": {"org.opencontainers.image.created": "2026-01-01T00:00:00Z"}}
    (tmp_path / "artifact").write_text(json.dumps(artifact))
    name = digest((tmp_path / "artifact").read_bytes())
    answer = run("curl", "-sfi", "-T", tmp_path / "artifact", "-H", f"Content-Type: {MANIFEST}",
                 f"{base}/manifests/{name}")
    assert f"OCI-Subject: {digest(image)}" in answer
    found = json.loads(run("curl", "-sf", f"{base}/referrers/{digest(image)}?artifactType=text/bill"))
    [row] = found["manifests"]
    assert (row["digest"], row["artifactType"], row["annotations"]) == (name, "text/bill", artifact["annotations"])
    assert json.loads(run("curl", "-sf", f"{base}/referrers/{digest(image)}?artifactType=none"))["manifests"] == []
    fetched = json.loads(run("curl", "-sf", f"{base}/manifests/{row['digest']}"))
    assert run("curl", "-sf", f"{base}/blobs/{fetched['layers'][0]['digest']}") == note.read_text()

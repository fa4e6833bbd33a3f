"""Debian's docker-registry as the server for our client, and skopeo as the judge of what went there and came back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import images

pytestmark = [pytest.mark.caged, pytest.mark.limit(120), pytest.mark.leaves("the store itself")]


def run(*words: str | Path) -> bytes:
    """Run a program to its good end; return its output."""
    done = subprocess.run([str(word) for word in words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def minirt(*words: str) -> str:
    return run(sys.executable, "-m", "minirt", *words).decode()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of a docker-registry with an empty store."""
    if not shutil.which("docker-registry") or not shutil.which("skopeo"):
        pytest.skip("docker-registry and skopeo are not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (tmp_path / "config.yml").write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\nhttp: {{addr: {host}}}\n")
    with subprocess.Popen(["docker-registry", "serve", tmp_path / "config.yml"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as server:
        for _ in range(200):
            try:
                socket.create_connection(tuple(host.split(":")), 1).close()  # type: ignore[arg-type]
                break
            except OSError:
                time.sleep(0.05)
        yield host
        server.terminate()


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_what_skopeo_pushes_is_pulled_run_pushed_and_the_same(registry: str, tmp_path: Path, form: str) -> None:
    archive = images.busybox(tmp_path / "busybox.tar")
    run("skopeo", "copy", "-q", "--format", form, "--dest-tls-verify=false", f"docker-archive:{archive}",
        f"docker://{registry}/team/box:1")
    minirt("pull", f"{registry}/team/box:1")
    if os.geteuid() == 0:
        assert minirt("run", "--rm", f"{registry}/team/box:1", "echo", "hi") == "hi\n"
    minirt("tag", f"{registry}/team/box:1", f"{registry}/mine/box:2")
    minirt("push", "-q", f"{registry}/mine/box:2")
    one, two = (run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry}/{name}")
                for name in ("team/box:1", "mine/box:2"))
    assert one == two
    assert f"sha256:{hashlib.sha256(one).hexdigest()}" in minirt("images", "--digests")
    run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{registry}/mine/box:2", f"dir:{tmp_path}/back")
    for blob in json.loads(one)["layers"]:
        data = (tmp_path / "back" / blob["digest"][7:]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == blob["digest"][7:]


def test_run_brings_an_image_that_is_not_here(registry: str, tmp_path: Path) -> None:
    name = f"{registry}/team/box:1"
    run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"docker-archive:{images.busybox(tmp_path / 'busybox.tar')}",
        f"docker://{name}")
    words = [sys.executable, "-m", "minirt", "run", "--rm"]
    missing = f"Unable to find image '{name}' locally"
    for policy, status, said in (("never", 125, "No such image"), ("missing", 0, missing), ("missing", 0, ""),
                                 ("always", 0, "Image is up to date")):
        done = subprocess.run([*words, "--pull", policy, name, "echo", "hi"], capture_output=True, text=True,
                              check=False)
        assert (done.returncode, done.stdout) == (status, "" if status else "hi\n"), done.stderr
        assert said in done.stderr if said else not done.stderr
    gone = subprocess.run([*words, f"{name}2"], capture_output=True, text=True, check=False)
    assert gone.returncode == 125 and f"manifest for {name}2 not found" in gone.stderr


def test_all_layers_of_a_sibling_are_mounted(registry: str, tmp_path: Path) -> None:
    minirt("load", "-i", str(images.busybox(tmp_path / "busybox.tar")))
    for name in ("one", "two"):
        minirt("tag", "busybox", f"{registry}/{name}:1")
    minirt("push", "-q", f"{registry}/one:1")
    done = subprocess.run([sys.executable, "-m", "minirt", "push", f"{registry}/two:1"], capture_output=True, text=True,
                          check=True)
    assert "Mounted from one" in done.stderr


@pytest.mark.skipif(not shutil.which("docker"), reason="the docker command is not installed")
def test_a_manifest_list_is_the_docker_commands_to_the_byte(registry: str, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    archive = images.busybox(tmp_path / "busybox.tar")
    for form, tag in (("oci", "one"), ("v2s2", "two")):
        run("skopeo", "copy", "-q", "--format", form, "--dest-tls-verify=false", f"docker-archive:{archive}",
            f"docker://{registry}/box:{tag}")
    docker = ("docker", "manifest")
    ours = (sys.executable, "-m", "minirt", "manifest")
    for parts in (("one",), ("one", "two"), ("two",)):
        said = []
        for maker, finisher in ((docker, docker), (ours, ours), (docker, ours), (ours, docker)):
            run(*maker, "create", "--insecure", f"{registry}/list", *(f"{registry}/box:{each}" for each in parts))
            run(*maker, "annotate", f"{registry}/list", f"{registry}/box:{parts[-1]}", "--variant", "v2",
                "--os-features", "a,b")
            shown = run(*finisher, "inspect", "-v", f"{registry}/list")
            pushed = run(*finisher, "push", "--insecure", "--purge", f"{registry}/list")
            raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry}/list")
            said.append((json.loads(shown), pushed, raw))
        assert said[0] == said[1] == said[2] == said[3]

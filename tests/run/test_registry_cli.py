"""`pull`, `push`, `login`, `logout`, `manifest inspect` and `run --pull`, against registries played in this cage."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minirt.images import ready
from tests import images
from tests import played_registry as played
from tests.images import entry, layer

pytestmark = [pytest.mark.caged, pytest.mark.leaves("the store itself")]

LOWER = layer(entry("etc/motd", content=b"hello\n"), entry("tmp", images.tarfile.DIRTYPE, mode=0o1777))
UPPER = layer(entry("tmp/file", content=b"x" * 300_000))


def minirt(*words: str, status: int = 0, stdin: bytes = b"") -> tuple[str, str]:
    """Run one command; return its output, and what it said besides."""
    done = subprocess.run([sys.executable, "-m", "minirt", *words], input=stdin, capture_output=True, check=False)
    assert done.returncode == status, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def registry() -> Iterator[played.Registry]:
    with played.Registry() as registry:
        yield registry


@pytest.fixture(autouse=True)
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker" / "config.json"


def left(state_root: Path) -> list[str]:
    return [str(path) for name in ("pending", "partial") for path in (state_root / name).glob("*")]


# -- pull --------------------------------------------------------------------------------------------------------------

def test_pull_tells_what_docker_tells(registry: played.Registry, state_root: Path) -> None:
    digest = registry.add("team/tool", "latest", LOWER, UPPER)
    name = f"{registry.host}/team/tool"
    out, err = minirt("pull", name)
    assert out == (f"Using default tag: latest\nlatest: Pulling from team/tool\nDigest: {digest}\n"
                   f"Status: Downloaded newer image for {name}:latest\n{name}:latest\n")
    said = sorted(line.partition(": ")[2] for line in err.splitlines())
    assert said == ["Download complete"] * 2 + ["Pull complete"] * 2 + ["Pulling fs layer"] * 2
    seen = len(registry.seen)
    out, err = minirt("pull", name)
    assert f"Status: Image is up to date for {name}:latest\n" in out and len(registry.seen) <= seen + 3
    assert minirt("pull", "-q", name) == (f"{name}:latest\n", "")
    assert left(state_root) == []


def test_the_layers_are_there_as_after_load(registry: played.Registry, state_root: Path) -> None:
    registry.add("tool", "1", LOWER, UPPER)
    minirt("pull", f"{registry.host}/tool:1")
    image = ready.find(f"{registry.host}/tool:1")
    upper, lower = (state_root / "layers" / each for each in image.lower())
    assert (lower / "etc/motd").read_text() == "hello\n"
    assert (upper / "tmp/file").stat().st_size == 300_000
    assert stat.S_IMODE((upper / "tmp").stat().st_mode) == 0o1777, "the directory that it leaves out is as it is below"


def test_what_another_image_brought_is_neither_fetched_nor_unpacked_again(registry: played.Registry) -> None:
    registry.add("one", "1", LOWER)
    registry.add("two", "1", LOWER, UPPER)
    minirt("pull", f"{registry.host}/one:1")
    registry.seen.clear()
    _, err = minirt("pull", f"{registry.host}/two:1")
    assert "Already exists" in err
    blobs = [path for _, path, _ in registry.seen if "/blobs/" in path]
    assert len(blobs) == 2, "the configuration and the upper layer"


def test_by_digest_of_an_index_it_can_be_pulled_run_and_found(registry: played.Registry, state_root: Path) -> None:
    manifest = registry.add("tool", "only", LOWER)
    index = registry.put("tool", "1", played.dumps({"schemaVersion": 2, "manifests": [
        {"digest": manifest, "size": 1, "platform": {"os": "linux", "architecture": "amd64"}}]}), played.INDEX)
    name = f"{registry.host}/tool"
    assert minirt("pull", "-q", f"{name}@{index}")[0] == f"{name}@{index}\n"
    assert f"Digest: {index}\n" in minirt("pull", f"{name}:1")[0]
    assert f"Image is up to date for {name}:1" in minirt("pull", f"{name}:1")[0]
    assert index in minirt("images", "--digests")[0]
    assert json.loads(minirt("image", "inspect", f"{name}:1")[0])[0]["RepoDigests"] == [f"{name}@{index}"]
    assert ready.find(f"{name}@{index}").id == ready.find(f"{name}:1").id


def test_all_tags_and_another_platform(registry: played.Registry) -> None:
    for tag in ("1", "2"):
        registry.add("tool", tag, LOWER, comment=tag)
    assert minirt("pull", "-a", "-q", f"{registry.host}/tool")[0] == f"{registry.host}/tool\n"
    assert f"Status: Image is up to date for {registry.host}/tool\n" in minirt("pull", "-a", f"{registry.host}/tool")[0]
    assert len(minirt("images", "-q")[0].split()) == 2
    assert "can't be used" in minirt("pull", "-a", f"{registry.host}/tool:1", status=1)[1]
    other = registry.add("other", "arm", UPPER, architecture="arm64")
    registry.put("other", "1", played.dumps({"schemaVersion": 2, "manifests": [
        {"digest": other, "size": 1, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}]}),
        played.INDEX)
    for platform, status in (("linux/arm64", "Downloaded newer image for"), ("aarch64", "Image is up to date for"),
                             ("linux/arm64/v8", "Image is up to date for")):
        out, err = minirt("pull", "--platform", platform, f"{registry.host}/other:1")
        assert f"Status: {status} {registry.host}/other:1" in out and "WARNING" not in err
    assert f"WARNING: image with reference {registry.host}/tool:1 was found but does not provide the specified " \
           "platform (linux/arm64)" in minirt("pull", "--platform", "arm64", f"{registry.host}/tool:1")[1]
    assert '"toaster": unknown operating system' in minirt("pull", "--platform", "toaster", "tool", status=125)[1]
    assert "no matching manifest for linux/amd64 in the manifest list entries" in minirt(
        "pull", f"{registry.host}/other:1", status=1)[1]


def test_what_is_not_there_is_told_as_docker_does(registry: played.Registry) -> None:
    assert minirt("pull", f"{registry.host}/no:1", status=1)[1] == (
        f"minirt: manifest for {registry.host}/no:1 not found: manifest unknown: manifest unknown\n")
    assert minirt("pull", "127.0.0.1:1/no", status=1)[1] == (
        'minirt: Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused\n')
    assert "invalid reference format" in minirt("pull", "a//b", status=1)[1]


@pytest.mark.parametrize("wrong", ["digest", "diff", "size", "tar", "long"])
def test_a_layer_that_is_not_what_it_should_be_leaves_nothing(registry: played.Registry, state_root: Path, wrong: str,
                                                              ) -> None:
    minirt("pull", f"{registry.host}/no:1", status=1)
    registry.add("tool", "1", LOWER, UPPER)
    document = json.loads(registry.manifests["tool", "1"][1])
    last = document["layers"][1]
    if wrong == "digest":
        registry.blobs[last["digest"]] = registry.blobs[last["digest"]][:-20] + bytes(20)
    elif wrong == "size":
        last["size"] -= 1
    elif wrong == "long":
        last["size"] += 1
    elif wrong == "tar":
        last["digest"] = registry.add_blob(b"no tar at all" * 100)
        last["size"] = 1300
    else:
        document["layers"].reverse()
    registry.put("tool", "1", played.dumps(document), played.DOCKER)
    _, err = minirt("pull", f"{registry.host}/tool:1", status=1)
    assert err.splitlines()[-1].startswith("minirt: ")
    assert not list((state_root / "pending").iterdir()) and minirt("images", "-q")[0] == ""
    assert not (state_root / "partial" / last["digest"][7:]).exists() or wrong == "long"
    assert not [each for each in (state_root / "layers").iterdir() if each.name != "l"]
    assert not list((state_root / "images/blobs/sha256").iterdir())


@pytest.mark.parametrize("cut", [0, 1, 1000, 150_000])
def test_a_pull_that_was_killed_goes_on_where_it_was(registry: played.Registry, state_root: Path, cut: int) -> None:
    data = layer(entry("noise", content=os.urandom(400_000)))
    registry.add("tool", "1", data)
    hang = True

    def before(request: Any) -> bool:
        if "/blobs/" in request.path and hang and request.path.endswith(large):
            request.reply(200, registry.blobs[large][:cut], Content_Length=str(len(registry.blobs[large])))
            request.wfile.flush()
            client.kill()
            return True
        return False

    large = json.loads(registry.manifests["tool", "1"][1])["layers"][0]["digest"]
    registry.before = before
    words = [sys.executable, "-m", "minirt", "pull", "-q", f"{registry.host}/tool:1"]
    with subprocess.Popen(words, start_new_session=True) as client:
        client.wait(30)
    with contextlib.suppress(ProcessLookupError):  # until its helpers are gone, too, what they do is not taken away
        for _ in range(1000):
            os.killpg(client.pid, 0)
            time.sleep(0.01)
    hang = False
    registry.seen.clear()
    minirt("pull", f"{registry.host}/tool:1")
    assert ready.find(f"{registry.host}/tool:1")
    assert left(state_root) == []


@pytest.mark.parametrize("kind", ["zstd", "none"])
def test_layers_of_other_compressions(registry: played.Registry, kind: str) -> None:
    def compress(data: bytes) -> bytes:
        if kind == "none":
            return data
        return subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout

    registry.add("tool", "1", LOWER, UPPER, media=played.OCI, compress=compress)
    minirt("pull", f"{registry.host}/tool:1")
    assert ready.find(f"{registry.host}/tool:1").chains


# -- push --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("media", [played.DOCKER, played.OCI])
def test_from_one_registry_to_another_every_digest_stays(registry: played.Registry, media: str) -> None:
    digest = registry.add("team/tool", "1", LOWER, UPPER, media=media)
    with played.Registry() as other:
        minirt("pull", f"{registry.host}/team/tool:1")
        minirt("tag", f"{registry.host}/team/tool:1", f"{other.host}/mine:2")
        out, err = minirt("push", f"{other.host}/mine:2")
        assert err.splitlines()[-1].endswith(": Pushed") and err.count(": Preparing") == 2
        size = len(registry.manifests["team/tool", "1"][1])
        assert out == f"The push refers to repository [{other.host}/mine]\n2: digest: {digest} size: {size}\n"
        assert other.manifests["mine", "2"] == registry.manifests["team/tool", "1"]
        assert other.blobs == registry.blobs
        assert minirt("push", "-q", f"{other.host}/mine:2") == (f"{other.host}/mine:2\n", "")
        minirt("tag", f"{other.host}/mine:2", f"{other.host}/second:2")
        other.before = lambda request: request.command == "HEAD" and (request.refuse(404, "BLOB_UNKNOWN") or True)
        assert "Mounted from mine" in minirt("push", f"{other.host}/second:2")[1]
        other.before = lambda request: False
        minirt("tag", f"{other.host}/mine:2", f"{other.host}/mine:3")
        minirt("push", "-a", f"{other.host}/mine")
        assert ("mine", "3") in other.manifests


def test_what_cannot_be_pushed_is_told(registry: played.Registry) -> None:
    assert minirt("push", f"{registry.host}/no", status=1)[1].endswith(
        f"minirt: An image does not exist locally with the tag: {registry.host}/no\n")
    registry.add("tool", "1", LOWER)
    minirt("pull", "-q", f"{registry.host}/tool:1")
    assert minirt("push", f"{registry.host}/tool:2", status=1)[1] == (
        f"minirt: tag does not exist: {registry.host}/tool:2\n")
    assert "digest reference" in minirt("push", f"a@sha256:{'0' * 64}", status=1)[1]


# -- login -------------------------------------------------------------------------------------------------------------

def test_login_keeps_what_works_where_docker_looks_and_nobody_else(docker_config: Path) -> None:
    with played.Registry(basic={"ada": "geheim"}) as registry:
        registry.add("tool", "1", LOWER)
        assert "access denied for" in minirt("pull", f"{registry.host}/tool:1", status=1)[1]
        docker_config.parent.mkdir()
        docker_config.write_text('{"HttpHeaders": {"a": "b"}, "auths": {"other": {"auth": "eDp5"}}}')
        _, err = minirt("login", "-u", "ada", "--password-stdin", registry.host, status=1, stdin=b"falsch\n")
        assert f"login attempt to http://{registry.host}/v2/ failed with status: 401 Unauthorized" in err
        assert "falsch" not in err
        out, err = minirt("login", "-u", "ada", "--password-stdin", registry.host, stdin=b"geheim\n")
        assert out == "Login Succeeded\n" and "unencrypted" in err
        assert stat.S_IMODE(docker_config.stat().st_mode) == 0o600
        kept = json.loads(docker_config.read_text())
        assert kept["HttpHeaders"] == {"a": "b"} and kept["auths"]["other"] == {"auth": "eDp5"}
        assert base64.b64decode(kept["auths"][registry.host]["auth"]) == b"ada:geheim"
        _, err = minirt("--explain", "pull", f"{registry.host}/tool:1")
        both = subprocess.run([sys.executable, "-m", "minirt", "--explain", "pull", f"{registry.host}/tool:1"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout
        assert both.index("HEAD /v2/tool/manifests/1") < both.index("Digest: "), "first what is done, then what it gave"
        assert "geheim" not in err and kept["auths"][registry.host]["auth"] not in err
        assert "existing credentials... [Username: ada]" in minirt("login", registry.host)[1]
        assert minirt("logout", registry.host)[0] == f"Removing login credentials for {registry.host}\n"
        assert minirt("logout", registry.host)[0] == f"Removing login credentials for {registry.host}\n"
        assert list(json.loads(docker_config.read_text())["auths"]) == ["other"]


def test_a_helper_keeps_the_password_and_sees_it_on_its_input_alone(docker_config: Path, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "bin" / "docker-credential-test"
    helper.parent.mkdir()
    helper.write_text('#!/bin/sh\necho "$@" >> "$0.words"\ncase $1 in store) cat > "$0.kept";; erase) rm "$0.kept";;\n'
                      'get) cat > /dev/null; cat "$0.kept" 2>/dev/null || { echo "credentials not found in native '
                      'keychain"; exit 1; };; esac\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    docker_config.parent.mkdir()
    with played.Registry(basic={"ada": "geheim"}) as registry:
        registry.add("tool", "1", LOWER)
        docker_config.write_text(json.dumps({"credHelpers": {registry.host: "test"}}))
        minirt("login", "-u", "ada", "--password-stdin", registry.host, stdin=b"geheim")
        assert json.loads(Path(f"{helper}.kept").read_text()) == {
            "ServerURL": registry.host, "Username": "ada", "Secret": "geheim"}
        assert "geheim" not in docker_config.read_text() and "geheim" not in Path(f"{helper}.words").read_text()
        minirt("pull", "-q", f"{registry.host}/tool:1")
        minirt("logout", registry.host)
        assert not Path(f"{helper}.kept").exists()


def test_login_without_a_terminal_asks_for_what_it_needs() -> None:
    assert "non TTY device" in minirt("login", "127.0.0.1:1", status=1)[1]
    assert "conflicting options" in minirt("login", "-u", "a", "-p", "b", "--password-stdin", status=1)[1]
    assert "--username" in minirt("login", "--password-stdin", status=1)[1]


# -- the rest ----------------------------------------------------------------------------------------------------------

def test_manifest_inspect_shows_what_the_registry_has(registry: played.Registry) -> None:
    digest = registry.add("tool", "1", LOWER)
    name = f"{registry.host}/tool:1"
    assert json.loads(minirt("manifest", "inspect", name)[0]) == json.loads(registry.manifests["tool", "1"][1])
    found = json.loads(minirt("manifest", "inspect", "-v", name)[0])
    assert found["Ref"] == name and found["Descriptor"]["digest"] == digest and "SchemaV2Manifest" in found
    assert minirt("manifest", "inspect", f"{name}2", status=1)[1] == f"minirt: no such manifest: {name}2\n"
    assert "hub.docker.com" in minirt("search", "x", status=1)[1]


def test_a_list_of_manifests_is_made_here_and_pushed(registry: played.Registry, docker_config: Path) -> None:
    one, two = registry.add("one", "1", LOWER), registry.add("two", "1", UPPER, architecture="arm64")
    whole, *parts = (f"{registry.host}/{name}" for name in ("list:1", "one:1", "two:1"))
    assert minirt("manifest", "create", whole, *parts)[0] == f"Created manifest list {whole}\n"
    assert len(list(docker_config.parent.glob("manifests/*/*"))) == 2
    assert "no --amend flag" in minirt("manifest", "create", whole, *parts, status=1)[1]
    minirt("manifest", "create", "--amend", whole, parts[0])
    minirt("manifest", "annotate", "--variant", "v8", "--os-features", "a,b", "--os-version", "7", whole, parts[1])
    assert "unsupported os/arch" in minirt("manifest", "annotate", "--arch", "toaster", whole, parts[0], status=1)[1]
    assert "does not exist in" in minirt("manifest", "annotate", whole, whole, status=1)[1]
    shown = json.loads(minirt("manifest", "inspect", whole)[0])
    assert [each["digest"] for each in shown["manifests"]] == [one, two]
    assert shown["manifests"][1]["platform"] == {"architecture": "arm64", "os": "linux", "os.version": "7",
                                                 "os.features": ["a", "b"], "variant": "v8"}
    *_, last = minirt("manifest", "push", "--purge", whole)[0].splitlines()
    assert played.digest(registry.manifests["list", "1"][1]) == last and ("list", two) in registry.manifests
    assert "is a manifest list" in minirt("manifest", "create", f"{whole}2", whole, status=1)[1]
    minirt("pull", "-q", "--platform", "linux/arm64", whole)
    assert "No such manifest" in minirt("manifest", "rm", whole, status=1)[1]
    assert "No such manifest" in minirt("manifest", "push", whole, status=1)[1]


def test_a_push_for_a_platform_that_the_image_is_not_made_for_is_refused(registry: played.Registry) -> None:
    registry.add("tool", "1", LOWER)
    name = f"{registry.host}/tool:1"
    minirt("pull", "-q", name)
    assert "(linux/arm64)" in minirt("push", "--platform", "linux/arm64", name, status=1)[1]
    assert minirt("push", "-q", "--platform", "linux/amd64", name)[0] == f"{name}\n"


def test_a_token_registry_is_used_with_what_login_kept() -> None:
    with played.Tokens("gitlab", {"ada": "geheim"}) as tokens, played.Registry(tokens) as registry:
        registry.add("group/tool", "1", LOWER)
        minirt("login", "-u", "ada", "--password-stdin", registry.host, stdin=b"geheim")
        minirt("pull", "-q", f"{registry.host}/group/tool:1")
        minirt("tag", f"{registry.host}/group/tool:1", f"{registry.host}/group/tool:2")
        minirt("push", f"{registry.host}/group/tool:2")
        assert ("group/tool", "2") in registry.manifests
        assert all("geheim" not in str(seen) for seen in registry.seen)

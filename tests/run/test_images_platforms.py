"""`--platform` of load, save, image inspect, history, import and rmi."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from minirt.images import documents, platforms
from tests.images import config_of, docker_archive, entry, layer, members, oci_files, sha

pytestmark = [pytest.mark.caged, pytest.mark.leaves("the store itself")]

OURS = f"linux/{documents.architecture()}"


def minirt(*words: str | Path, status: int = 0, stdin: bytes = b"") -> str:
    """What a command prints, or says when it must fail with `status`."""
    done = subprocess.run([sys.executable, "-m", "minirt", *map(str, words)], input=stdin, capture_output=True,
                          check=False)
    assert done.returncode == status and b"Traceback" not in done.stderr, done
    return (done.stderr if status else done.stdout).decode()


def plain(architecture: str, **fields: str) -> bytes:
    """What docker-save writes of an image for one machine."""
    data = layer(entry("arch", content=architecture.encode()))
    return docker_archive(data, names=[f"for-{architecture}:1"],
                          config=config_of([data], architecture=architecture, **fields))


def several(*architectures: str) -> bytes:
    """What Docker's newer store saves: an index of images, and beside it manifest.json, which names the first only."""
    files: dict[str, bytes] = {}
    entries, configs = [], []
    for each in architectures:
        data = layer(entry("arch", content=each.encode()))
        configs.append(config_of([data], architecture=each))
        made = oci_files(data, config=configs[-1])
        descriptor = json.loads(made["index.json"])["manifests"][0]
        entries.append({**{key: descriptor[key] for key in ("mediaType", "digest", "size")},
                        "platform": {"os": "linux", "architecture": each}})
        files |= made
    inner = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    files[f"blobs/sha256/{sha(inner)}"] = inner
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [{
        "mediaType": documents.INDEX_TYPES[0], "digest": f"sha256:{sha(inner)}", "size": len(inner),
        "annotations": {"io.containerd.image.name": "docker.io/library/many:1", documents.REF_NAME: "1"}}]}).encode()
    first = json.loads(files[f"blobs/{entries[0]['digest'].replace(':', '/')}"])
    files["manifest.json"] = json.dumps([{
        "Config": f"blobs/sha256/{sha(configs[0])}", "RepoTags": ["many:1"],
        "Layers": [f"blobs/{each['digest'].replace(':', '/')}" for each in first["layers"]]}]).encode()
    return members(files)


def made_for(name: str) -> str:
    return minirt("image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", name).strip()


def test_of_an_image_for_several_platforms_the_one_asked_for_is_loaded() -> None:
    other = "s390x"
    archive = several(documents.architecture(), other)
    assert minirt("load", "--platform", f"linux/{other}", stdin=archive) == "Loaded image: many:1\n"
    assert made_for("many:1") == f"linux/{other}"
    minirt("rmi", "many:1")
    assert minirt("load", stdin=archive) == "Loaded image: many:1\n" and made_for("many:1") == OURS
    assert "no matching manifest for linux/riscv64" in minirt("load", "--platform", "riscv64", status=1, stdin=archive)


def test_what_is_made_for_another_platform_is_passed_over() -> None:
    said = minirt("load", "--platform", "linux/arm/v7", status=1, stdin=plain("arm", variant="v6"))
    assert said == "minirt: the archive holds no image for linux/arm/v7: what it holds is for linux/arm/v6\n"
    assert minirt("images", "-q") == ""
    assert minirt("load", "--platform", "linux/arm", stdin=plain("arm", variant="v6")) == "Loaded image: for-arm:1\n"


def test_an_image_is_described_saved_and_removed_only_if_it_is_made_for_that() -> None:
    minirt("load", stdin=plain("arm64"))
    for words in (["image", "inspect"], ["history"], ["save"], ["rmi"]):
        said = minirt(*words, "--platform", "linux/s390x", "for-arm64:1", status=1)
        assert "does not provide the specified platform (linux/s390x): it is made for linux/arm64\n" in said
        assert "unknown operating system" in minirt(*words, "--platform", "toaster", "for-arm64:1", status=125)
    for words in (["image", "inspect"], ["history"], ["save"], ["rmi", "--platform", "s390x"]):
        assert minirt(*words, "--platform", "linux/aarch64", "for-arm64:1")
    assert minirt("images", "-q") == ""


@pytest.mark.parametrize(("text", "meant"), [
    ("linux/arm64/v8", "linux/arm64"), ("arm64", "linux/arm64"), ("linux/x86_64", "linux/amd64"), ("linux", OURS),
    ("linux/arm/v7", "linux/arm/v7"), ("i386", "linux/386"), ("windows/amd64", "windows/amd64")])
def test_a_platform_has_several_spellings(text: str, meant: str) -> None:
    assert platforms.parse(text) == meant

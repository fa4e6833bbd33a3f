"""For a machine with internet: the public registries, for real. `make online`; no other target asks anything of them.

Each image is pulled by the name that everybody uses, run, and looked at, in a store of its own that is taken away
again. Docker Hub counts anonymous pulls (by address, and hour): these are six.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Minirt = Callable[..., subprocess.CompletedProcess[str]]

IMAGES = (  # what to type, what to run in it, what that says
    ("hello-world", (), "Hello from"),
    ("alpine", ("cat", "/etc/alpine-release"), "3."),
    ("node:20-alpine", ("node", "--version"), "v20."),
    ("python:3.11-alpine", ("python", "--version"), "Python 3.11"),
    ("ghcr.io/containerd/busybox:1.36", ("echo", "from GHCR"), "from GHCR"),
    ("registry.gitlab.com/gitlab-org/cloud-native/mirror/images/busybox:latest", ("echo", "GitLab"), "GitLab"),
)


@pytest.fixture(scope="module")
def minirt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minirt]:
    """Call minirt, on an empty store."""
    place = tmp_path_factory.mktemp("online")
    environment = {**os.environ, "MINIRT_ROOT": str(place / "store"), "DOCKER_CONFIG": str(place / "no-credentials")}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "minirt", *words], cwd=ROOT, env=environment, capture_output=True,
                              text=True, stdin=subprocess.DEVNULL, timeout=600, check=False)

    yield call
    shutil.rmtree(place)


@pytest.mark.parametrize(("image", "command", "said"), IMAGES, ids=[each[0] for each in IMAGES])
def test_a_public_image_is_pulled_run_and_inspected(minirt: Minirt, image: str, command: tuple[str, ...], said: str,
                                                    ) -> None:
    pulled = minirt("pull", image)
    assert pulled.returncode == 0, pulled.stderr
    assert "Status: Downloaded newer image" in pulled.stdout and "Digest: sha256:" in pulled.stdout, pulled.stdout
    ran = minirt("run", "--rm", "--network", "none", image, *command)
    assert ran.returncode == 0 and said in ran.stdout, ran.stdout + ran.stderr
    found = json.loads(minirt("image", "inspect", image).stdout)[0]
    digest = pulled.stdout.split("Digest: ")[1].split()[0]
    assert f"{image.partition(':')[0]}@{digest}" in found["RepoDigests"]
    assert found["Os"] == "linux" and found["Config"] and found["RootFS"]["Layers"]
    again = minirt("pull", image)
    assert "Status: Image is up to date" in again.stdout, again.stdout + again.stderr
    checked = minirt("system", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr

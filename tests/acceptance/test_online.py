"""What `make online` asks of the public registries, asked here of one that stands in for them all.

So that the check is known to pass with images as it expects them, and to fail where a registry does not have them; what
the real ones answer is known after `make online` alone.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from minirt.images import pack
from tests import images, standin

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ["registry-1.docker.io", "ghcr.io", "registry.gitlab.com"]
PUBLIC = {  # name: (a program, what it prints)
    "alpine": ("", ""),
    "node:20-alpine": ("node", "v20.0.0"),
    "python:3.11-alpine": ("python", "Python 3.11.0"),
    "ghcr.io/containerd/busybox:1.36": ("", ""),
    "registry.gitlab.com/gitlab-org/cloud-native/mirror/images/busybox:latest": ("", ""),
}


def minirt(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "minirt", *words], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr


def ask(*options: str) -> tuple[int, str]:
    """Run the check; its exit status, and what it said."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/online", *options],
                          cwd=ROOT, capture_output=True, text=True, check=False, timeout=150)
    return done.returncode, done.stdout


@pytest.mark.caged
@pytest.mark.limit(240)
@pytest.mark.leaves("images that nobody removes")
def test_the_check_passes_with_the_images_that_it_names(tmp_path: Path) -> None:
    with standin.standing_for(HOSTS, tmp_path):
        minirt("load", "-i", str(make_hello(tmp_path)))
        minirt("push", "hello-world")
        for name, (program, said) in PUBLIC.items():
            tree = images.busybox_tree()
            tree.text("/etc/alpine-release", "3.20.0\n")
            if program:
                tree.text(f"/usr/bin/{program}", f"#!/bin/sh\necho {said}\n", 0o755)
            archive = tmp_path / "image.tar"
            pack.write_image(str(archive), tree, {"Cmd": ["sh"], "Env": [f"PATH={images.PATH}"]}, [name])
            minirt("load", "-i", str(archive))
            minirt("push", name)
            minirt("rmi", name)
        minirt("rmi", "hello-world")
        status, said = ask()
        assert status == 0 and "6 passed" in said, said
        minirt("system", "check")


@pytest.mark.caged
@pytest.mark.limit(120)
@pytest.mark.leaves("images that nobody removes")
def test_the_check_fails_where_an_image_is_missing(tmp_path: Path) -> None:
    with standin.standing_for(HOSTS, tmp_path):
        status, said = ask("-k", "alpine-command1 or hello-world")
        assert status == 1 and "Traceback" not in said, said
        assert "pull access denied for hello-world" in said or "not found" in said, said


def make_hello(place: Path) -> Path:
    from minirt.images import hello

    hello.write(str(place / "hello.tar"))
    return place / "hello.tar"

"""minirt within a privileged container that has a cgroup namespace of its own, as a Codespace is one.

The container is minirt's own: the machine's programs are bound into it, the rest of it is an image's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests import images
from tests.run.conftest import ROOT, START

pytestmark = [pytest.mark.caged, pytest.mark.limit(90)]

PLACES = [path for path in ("/usr", "/bin", "/sbin", "/lib", "/lib64", sys.base_prefix, str(ROOT))
          if os.path.exists(path)]
VOLUMES = [word for path in PLACES for word in ("-v", f"{os.path.realpath(path)}:{path}:ro")]
FLAGS = ("--rm", "--privileged", "--cgroupns", "private", "--network", "none", "--tmpfs", "/run", "--tmpfs", "/tmp")
MINIRT = f"m() {{ '{sys.executable}' -S -E -B -c \"$START\" \"$@\"; echo $? >&2; }}\n"


def inside(tool, place: Path, script: str, *flags: str):
    """Run a shell script, in which `m` is minirt and tells its exit code on standard error, in such a container."""
    place.mkdir(exist_ok=True)
    archive = place / "busybox.tar"
    if not archive.exists():
        images.busybox(archive)
    volumes = ("-v", f"{place}:/images:ro")
    return tool("run", *FLAGS, *VOLUMES, *volumes, *flags, "-e", "PATH=/usr/bin:/bin", "-e", f"START={START}",
                "busybox", "/bin/sh", "-c", MINIRT + script, status=None)


def test_load_and_run_with_the_store_on_a_volume(tool, tmp_path):
    (tmp_path / "store").mkdir()
    done = inside(tool, tmp_path / "images", """
        cat /proc/self/cgroup | cut -d: -f3 | sort -u
        m load -i /images/busybox.tar
        m run --rm --network none busybox echo hello
        m run --rm --network none --memory 64m --pids-limit 50 busybox sh -c 'exit 7'
        m run -d --network none --name box busybox sleep 100 >/dev/null
        m exec box hostname | cut -c1-4 | wc -c
        m rm -f box
        m ps -aq
        """, "-v", f"{tmp_path / 'store'}:/var/lib/minirt")
    assert done.out.splitlines() == ["/", "Loaded image: busybox:latest", "hello", "5", "box"]
    codes = [line for line in done.err.splitlines() if line.isdigit()]
    assert codes == ["0", "0", "7", "0", "0", "0", "0"], done.err
    # Where the outer machine gives no controllers, the limits that cannot be are told, as Docker tells them.
    others = [line for line in done.err.splitlines() if not line.isdigit()]
    assert all(line.startswith("WARNING: ") for line in others), done.err


def test_a_store_among_the_containers_own_files_is_a_sentence_with_its_cure(tool, tmp_path):
    done = inside(tool, tmp_path / "images", """
        m load -i /images/busybox.tar
        m run --rm --network none busybox echo hello
        """)
    assert done.err.splitlines() == [
        "0", "minirt: the store /var/lib/minirt lies on an overlay, as all files of a container do, and the kernel "
        "stacks no overlay on another one: give it a volume (docker run -v minirt:/var/lib/minirt ...), or another "
        "place (MINIRT_ROOT)", "125"]

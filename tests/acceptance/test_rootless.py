"""minirt for an ordinary user, judged by others: shadow's getsubids, util-linux's unshare, the kernel's delegation."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.namespaces import rootless, user
from tests import images
from tests.run.test_rootless import User, made, with_helpers

pytestmark = [
    pytest.mark.caged,
    pytest.mark.leaves("an ordinary user with a home, and what systemd would make for him"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]


@pytest.fixture
def alice() -> Iterator[User]:
    """A user with subordinate ids, whose store has the image busybox."""
    yield from made(subordinate=True)


@with_helpers
@pytest.mark.parametrize("text", [
    "alice:100000:65536\n", "bob:1:2\nalice:5:6\nalice:9:10\n", "1234:300000:10\n", "# alice:1:1\nalice2:7:8\n",
])  # fmt: skip
def test_getsubids_reads_the_same_ranges(text: str) -> None:
    if shutil.which("getsubids") is None:
        pytest.skip("newuidmap is not installed (package uidmap)")
    Path("/etc/passwd").write_text("root:x:0:0::/:/bin/sh\nalice:x:1234:1234::/:/bin/sh\n")
    Path("/etc/subuid").write_text(text)
    said = subprocess.run(["getsubids", "alice"], capture_output=True, text=True, check=False).stdout
    theirs = [(int(line.split()[-2]), int(line.split()[-1])) for line in said.splitlines() if len(line.split()) > 2]
    assert user.subordinate(text, "alice", 1234) == theirs


@with_helpers
def test_unshare_writes_the_same_maps(alice: User) -> None:
    theirs = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--map-auto", "cat", "/proc/self/uid_map", "/proc/self/gid_map"],
        capture_output=True, text=True, check=True, user=alice.uid, group=alice.uid, extra_groups=[],
    ).stdout  # fmt: skip
    ours = alice("run", "--rm", "busybox", "cat", "/proc/self/uid_map", "/proc/self/gid_map").stdout

    def pairs(text: str) -> set[tuple[int, int]]:
        """(inside, outside) for some numbers, since the same map may be cut into different ranges."""
        lines = [tuple(map(int, line.split())) for line in text.splitlines()]
        return {(number, user.outside(lines, number)) for number in (0, 1, 33, 65534)}  # type: ignore[arg-type]

    assert pairs(ours) == pairs(theirs)


@with_helpers
def test_a_delegated_control_group_is_used(alice: User) -> None:
    mounted = next((point for point in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
                    if os.path.exists(f"{point}/cgroup.subtree_control")), "")
    if not mounted:
        pytest.skip("this machine has no cgroups at all")
    top = f"{mounted}/alice"
    for path in (top, f"{top}/session"):
        os.mkdir(path)
        for name in (".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(f"{path}/{name}", alice.uid, alice.uid)
    here = f"{mounted}{next(line[3:] for line in Path('/proc/self/cgroup').read_text().split() if line[:3] == '0::')}"
    Path(f"{top}/session/cgroup.procs").write_text(str(os.getpid()))
    try:
        done = alice("run", "-d", "--name", "web", "busybox", "sleep", "60")
        assert "control group" not in done.stderr
        first = alice("inspect", "-f", "{{.State.Pid}}", "web").stdout.strip()
        assert "/alice/" in Path(f"/proc/{first}/cgroup").read_text()
        alice("pause", "web")
        assert "Paused" in alice("ps").stdout
        alice("unpause", "web")
        alice("rm", "-f", "web")
        assert not list(Path(top).glob("**/minirt/*/")), "its group went with it"
    finally:
        Path(f"{here}/cgroup.procs").write_text(str(os.getpid()))
        subprocess.run(["sh", "-c", f"for each in $(seq 100); do find {top} -depth -type d -exec rmdir {{}} + && exit; "
                        "sleep 0.1; done"], check=True, stderr=subprocess.DEVNULL)  # a monitor may still be ending
        assert not os.path.exists(top)


@with_helpers
def test_layers_unpack_with_whiteouts_owners_and_without_devices(alice: User) -> None:
    lower = images.layer(
        images.entry("gone", content=b"x"), images.entry("full", tarfile.DIRTYPE), images.entry("full/x", content=b"x"),
        images.entry("dev", tarfile.DIRTYPE), images.entry("dev/sda", tarfile.BLKTYPE),
    )  # fmt: skip
    upper = images.layer(
        images.entry(".wh.gone"), images.entry("full/.wh..wh..opq"), images.entry("full/y", content=b"y")
    )
    archive = Path("/tmp/whiteouts.tar")
    archive.write_bytes(images.docker_archive(lower, upper))
    archive.chmod(0o644)
    loaded = alice("load", "-i", str(archive)).stdout
    assert "Loaded image" in loaded
    layers = Path(alice.home) / ".local/share/minirt/layers"
    opaque = [path for path in layers.glob("*/diff/full") if b"y" == _attribute(path, "user.overlay.opaque")]
    assert len(opaque) == 1
    assert any(path.is_char_device() for path in layers.glob("*/diff/gone"))
    assert not list(layers.glob("*/diff/dev/sda"))


def _attribute(path: Path, name: str) -> bytes:
    try:
        return os.getxattr(path, name)
    except OSError:
        return b""


@with_helpers
def test_an_owner_without_a_place_is_refused_with_its_cure(alice: User) -> None:
    archive = Path("/tmp/far.tar")
    far = images.entry("far", content=b"x", uid=4000000)
    archive.write_bytes(images.docker_archive(images.layer(far)))
    archive.chmod(0o644)
    refused = alice("load", "-i", str(archive), status=1).stderr
    assert "user 4000000 is not among the 65537 of your user namespace" in refused and "--add-subuids" in refused
    assert not alice.left()


@with_helpers
def test_a_hidden_part_of_proc_is_said_and_stays_hidden(alice: User) -> None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4]
        if line.partition(" - ")[2].startswith("proc ") and not place.startswith("/proc"):
            subprocess.run(["umount", place], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/proc/fs"], check=True)
    try:
        assert rootless.masked_proc()
        done = alice("run", "--rm", "busybox", "sh", "-c", "ls /proc/fs; echo ran")
        assert done.stdout == "ran\n"
        assert "parts of /proc are hidden here" in done.stderr
        assert "systempaths=unconfined" in done.stderr
    finally:
        subprocess.run(["umount", "/proc/fs"], check=True)

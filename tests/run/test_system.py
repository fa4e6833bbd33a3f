"""`system df`, `system prune`, `image prune`, `history` and `images --tree`: what is there, and what may go."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.images import config_of, docker_archive, entry, layer, oci_archive

pytestmark = [pytest.mark.caged]

LAYER, UPPER = layer(entry("etc/motd", content=b"hello\n")), layer(entry("x", content=b"x" * 2000))
STEPS: list[dict[str, Any]] = [
    {"created": "2026-01-02T03:04:05Z", "created_by": "/bin/sh -c #(nop) ADD file:0123456789012345678901234 in /"},
    {"created": "2026-01-03T03:04:05Z", "created_by": "ENV\ta=b", "empty_layer": True},
    {"created": "2026-01-04T03:04:05Z", "created_by": "RUN x", "comment": "buildkit"},
]
CONFIG = config_of([LAYER, UPPER], history=STEPS, config={"Labels": {"keep": "yes"}})


@pytest.fixture
def more(tool: Any) -> Any:
    """box:1 and box:2, one image, and one without a name that shares a layer with it."""
    tool("load", input=docker_archive(LAYER, UPPER, names=["box:1", "box:2"], config=CONFIG))
    tool("load", input=oci_archive(LAYER, name="gone:1"))
    tool("load", input=docker_archive(UPPER, names=["gone:1"]))
    return tool


def names(tool: Any) -> list[str]:
    return sorted(tool("images", "--format", "{{.Repository}}:{{.Tag}}").out.split())


def test_df_counts_images_containers_and_what_may_go(more: Any) -> None:
    more("create", "--name", "used", "busybox")
    head, images, containers, volumes, cache = more("system", "df").out.splitlines()
    assert head.split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert images.split()[:3] == ["Images", "4", "1"] and images.endswith("%)")
    assert containers.split() == ["Containers", "1", "0", "0B", "0B"]
    assert volumes.startswith("Local Volumes   0") and cache.startswith("Build Cache     0")
    row = json.loads(more("system", "df", "--format", "json").out.splitlines()[0])
    assert set(row) == {"Type", "TotalCount", "Active", "Size", "Reclaimable"} and row["Type"] == "Images"


def test_df_verbose_tells_what_is_shared(more: Any) -> None:
    more("create", "--name", "used", "busybox")
    parts = more("system", "df", "-v").out.split("\n\n")
    assert [parts[number] for number in (0, 2, 4, 6)] == [
        "Images space usage:", "Containers space usage:", "Local Volumes space usage:", "Build cache usage: 0B"]
    rows = {line.split()[0]: line for line in parts[1].splitlines()}
    assert rows["REPOSITORY"].split("   ")[-1].strip() == "CONTAINERS" and "SHARED SIZE" in rows["REPOSITORY"]
    assert rows["busybox"].split()[-1] == "1" and rows["box"].split()[-1] == "0"
    assert "used" in parts[3]
    everything = json.loads(more("system", "df", "-v", "--format", "json").out)
    assert set(everything) == {"Images", "Containers", "Volumes", "BuildCache"}
    shared = {each["Repository"]: each["SharedSize"] for each in everything["Images"]}
    assert shared["box"] != "0B" and shared["busybox"] == "0B"


def test_image_prune_takes_what_has_no_name_or_all_that_nobody_uses(more: Any) -> None:
    assert more("image", "prune", input="n\n").out.endswith("[y/N] ")
    assert names(more) == ["<none>:<none>", "box:1", "box:2", "busybox:latest", "gone:1"]
    told = more("image", "prune", input="y\n").out
    assert told.startswith("WARNING! This will remove all dangling images.\nAre you sure you want to continue? [y/N] "
                           "Deleted Images:\ndeleted: sha256:") and "\n\nTotal reclaimed space: " in told
    assert names(more) == ["box:1", "box:2", "busybox:latest", "gone:1"]
    more("create", "--name", "used", "busybox")
    assert more("image", "prune", "-af", "--filter", "label!=keep").out.count("untagged") == 1
    assert names(more) == ["box:1", "box:2", "busybox:latest"]
    assert more("image", "prune", "-af", "--filter", "until=2026-01-01").out == "Total reclaimed space: 0B\n"
    assert "untagged: box:1\nuntagged: box:2\n" in more("image", "prune", "-af", "--filter", "label=keep=yes").out
    assert names(more) == ["busybox:latest"], "a container uses it"
    assert more("image", "prune", "-af").out == "Total reclaimed space: 0B\n"
    assert more("system", "check").out == "The image store is sound.\n"
    assert "invalid filter 'colour'" in more("image", "prune", "--filter", "colour=red", status=1).err


def test_system_prune_takes_stopped_containers_and_then_images(more: Any) -> None:
    one = more("create", "busybox").out.strip()
    assert more("system", "prune", input="\n").out == (
        "WARNING! This will remove:\n  - all stopped containers\n  - all dangling images\n\n"
        "Are you sure you want to continue? [y/N] ")
    told = more("system", "prune", "-f").out
    assert told.startswith(f"Deleted Containers:\n{one}\n\nDeleted Images:\ndeleted: ")
    two = more("create", "--label", "keep", "busybox").out.strip()
    assert "Items to be pruned will be filtered with:\n  - label!=keep\n" in more(
        "system", "prune", "--filter", "label!=keep", input="n").out
    assert "Deleted Containers" not in more("system", "prune", "-f", "--filter", "label!=keep").out
    assert f"Deleted Containers:\n{two}\n\nDeleted Images:\nuntagged: " in more("system", "prune", "-af").out
    assert names(more) == [] and more.left() == []
    assert "chapter 16" in more("system", "prune", "--volumes", status=125).err


def test_history_tells_each_step(more: Any) -> None:
    lines = more("history", "box:1").out.splitlines()
    assert lines[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert lines[1].split()[1:] == [*lines[1].split()[1:4], "RUN", "x", "2kB", "buildkit"]
    assert [line.split()[0] for line in lines[2:]] == ["<missing>", "<missing>"]
    assert "/bin/sh -c #(nop) ADD file:01234567890123456…   6B" in lines[3] and "ENV a=b " in lines[2]
    assert more("history", "-q", "--no-trunc", "box:2").out.splitlines()[0].startswith("sha256:")
    assert more("image", "history", "--no-trunc", "--human=false", "--format",
                "{{.CreatedSince}} {{.CreatedAt}} {{.CreatedBy}} {{.Size}}", "box:1").out.splitlines()[-1] == (
        f"2026-01-02T03:04:05Z 2026-01-02T03:04:05Z {STEPS[0]['created_by']} 6")
    assert more("history", "-H=false", "box:1").out.splitlines()[0].split()[1:3] == ["CREATED", "AT"]
    assert "No such image" in more("history", "nothing", status=1).err
    assert "does not provide the specified platform" in more("history", "--platform", "linux/s390x", "box:1",
                                                              status=1).err
    assert json.loads(more("history", "--format", "json", "box:1").out.splitlines()[0])["Comment"] == "buildkit"


def test_images_as_a_tree(more: Any) -> None:
    more("create", "busybox")
    blocks = more("images", "--tree").out.split("\n\n")
    assert blocks[0].splitlines()[0].split("  ")[0] == "IMAGE" and "DISK USAGE   CONTENT SIZE   EXTRA" in blocks[0]
    box = next(block for block in blocks if "box:2" in block).splitlines()
    assert "box:1" in [line.strip() for line in box] and box[-1].startswith("└─ linux/")
    busy = next(block for block in blocks if "busybox" in block).splitlines()
    assert any(line.endswith(" U") for line in busy) and "<untagged>" in "".join(blocks)
    assert more("image", "ls", "--tree", "box").out.count("linux/") == 1
    assert more("images", "--tree", "-q", status=1).err == "minirt: --quiet is not supported with --tree\n"

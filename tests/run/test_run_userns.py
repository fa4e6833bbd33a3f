"""`--userns auto`: ids that no two containers share."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.caged
SIZE = 65536


def set_aside(blocks: int) -> None:
    for file in ("/etc/subuid", "/etc/subgid"):
        Path(file).write_text(f"minirt:3000000:{blocks * SIZE}\n")


def first(tool, name: str) -> tuple[int, int]:
    maps = tool.inspect(name)["HostConfig"]["IDMappings"]
    return tuple(int(maps[field][0].split(":")[1]) for field in ("UidMap", "GidMap"))


def test_no_two_containers_have_an_id_in_common(tool):
    set_aside(3)
    names = [tool.up("--userns", "auto", "busybox", "sleep", "60") for _ in range(3)]
    expected = {3000000 + number * SIZE for number in range(3)}
    assert {first(tool, name)[0] for name in names} == expected
    assert {first(tool, name)[1] for name in names} == expected
    full = tool("run", "--userns", "auto", "busybox", "true", status=125)
    assert "each of the 3 blocks of 65536 ids is a container's already" in full.err
    assert "a line minirt:FIRST:COUNT in /etc/subuid" in full.err
    free = first(tool, names[1])
    tool("rm", "-f", names[1])
    assert first(tool, tool.up("--userns", "auto", "busybox", "sleep", "60")) == free


def test_a_stopped_container_keeps_its_ids_and_starts_with_them(tool):
    set_aside(2)
    tool("run", "--name", "box", "--userns", "auto", "busybox", "touch", "/mine")
    tool.up("--userns", "auto", "busybox", "sleep", "60")
    tool("run", "--userns", "auto", "busybox", "true", status=125)
    before = first(tool, "box")
    tool("start", "-a", "box")
    assert first(tool, "box") == before


def test_many_at_once_and_nothing_is_left(tool):
    set_aside(8)
    started = [tool.start("run", "--rm", "--userns", "auto", "busybox", "sh", "-c", "cat /proc/self/uid_map; sleep 1")
               for _ in range(8)]
    maps = [process.communicate()[0].decode().split() for process in started]
    assert sorted(int(words[1]) for words in maps) == [3000000 + number * SIZE for number in range(8)]
    for _ in range(9):
        tool("run", "--rm", "--userns", "auto", "busybox", "true")
    assert list(Path(tool.root).glob("ids/*/*")) == []


def test_a_claim_of_a_container_that_is_gone_is_void(tool):
    set_aside(1)
    tool("run", "--rm", "--userns", "auto", "busybox", "true")
    for kind in ("uid", "gid"):
        (Path(tool.root) / "ids" / kind / "3000000").symlink_to("../../containers/" + "0" * 64)
    tool("run", "--rm", "--userns", "auto", "busybox", "true")


def test_a_script_takes_no_ids(tool):
    set_aside(1)
    tool("--explain=sh", "run", "--userns", "auto", "busybox", "true")
    assert not (Path(tool.root) / "ids").exists()

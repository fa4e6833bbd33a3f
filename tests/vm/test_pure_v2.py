"""minirt on a kernel with cgroup v2 and nothing else: how most users have it."""

from __future__ import annotations


def test_only_version_2_is_there() -> None:
    mounted = [line.split()[2] for line in open("/proc/self/mounts") if line.split()[2].startswith("cgroup")]
    assert mounted == ["cgroup2"]

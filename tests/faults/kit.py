"""What the fault tests share: a store, minirt on it, and a second image."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from benchmarks import peers

MINIRT = str(Path(sys.executable).parent / "minirt")


class Store:
    """A state root, and minirt on it."""

    def __init__(self, root: Path, archive: Path) -> None:
        self.root, self.archive = root, archive
        self.environment = {**os.environ, "MINIRT_ROOT": str(root)}

    def command(self, *words: str) -> list[str]:
        return [MINIRT, *words]

    def __call__(self, *words: str, status: int | None = 0, seconds: float = 30) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; with `status` None it may end as it likes."""
        done = subprocess.run(self.command(*words), env=self.environment, capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=seconds)
        shown = f"minirt {' '.join(words)}: status {done.returncode}: {done.stderr}"
        assert status is None or done.returncode == status, shown
        assert "Traceback" not in done.stderr
        return done

    @property
    def run_root(self) -> Path:
        place = self.root.stat()
        return Path(f"/run/minirt/{place.st_dev}-{place.st_ino}")

    def names(self, *parts: str) -> set[str]:
        """The names in a directory of the store; empty where it is not there."""
        try:
            return set(os.listdir(self.root.joinpath(*parts)))
        except FileNotFoundError:
            return set()

    def images(self) -> str:
        return self("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout

    def half_written(self) -> list[str]:
        """Files in the store that a killed process was still writing."""
        return [str(path) for path in self.root.rglob("*.tmp") if "diff" not in path.parts]


def another_image(place: Path) -> Path:
    """An image that shares nothing with busybox but the program in it."""
    layer = place / "layer.tar"
    (place / "motd").write_text("another\n")
    with tarfile.open(layer, "w") as tar:
        tar.add(peers.busybox(), "bin/busybox")
        for applet in ("cat", "sh"):
            info = tarfile.TarInfo(f"bin/{applet}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
        tar.add(place / "motd", "etc/motd")
    archive = place / "other.tar"
    peers.archive(archive, "other:latest", layer, ["sh"])
    return archive

"""What a store's containers have on the machine at this moment: to be compared with what they had before."""

from __future__ import annotations

import os
import time
from pathlib import Path


class Remains:
    """What there was of a store when this was made, and what there is more now."""

    def __init__(self, root: Path) -> None:
        self.root = root
        place = root.stat()
        self.run_root = Path(f"/run/minirt/{place.st_dev}-{place.st_ino}")
        self.before = self.look()

    def look(self) -> set[str]:
        """Processes, control groups, mounts, directories, names and pins, one line each."""
        found = {f"control group {place}" for place, _, _ in os.walk("/sys/fs/cgroup") if "/minirt/" in place}
        for part in ("containers", "names", "trash"):
            found |= {f"{part}/{name}" for name in self._names(self.root / part)}
        found |= {f"run directory {name}" for name in self._names(self.run_root / "containers")}
        found |= {f"pin {path.name}" for path in self.root.glob("layers/*/pins/*")}
        found |= {f"unfinished {path}" for path in self.root.rglob("*.tmp") if "diff" not in path.parts}
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if str(self.root) in line or str(self.run_root) in line:
                found.add(f"mount {line}")
        return found | self._processes()

    def _processes(self) -> set[str]:
        """Processes in a control group of ours, and those that were told to work on this store."""
        found = set()
        word = f"MINIRT_ROOT={self.root}\0".encode()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                ours = "/minirt/" in Path(f"/proc/{pid}/cgroup").read_text() or (
                    int(pid) != os.getpid() and word in Path(f"/proc/{pid}/environ").read_bytes())
                if ours and Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z":
                    found.add(f"process {pid} {Path(f'/proc/{pid}/cmdline').read_text()}")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it ended meanwhile, or may not be looked at, so it is not ours
        return found

    @staticmethod
    def _names(directory: Path) -> list[str]:
        try:
            return os.listdir(directory)
        except FileNotFoundError:
            return []

    def more(self, patience: float = 5.0) -> list[str]:
        """What there is now and was not before; the last of it may take up to `patience` seconds to go."""
        deadline = time.monotonic() + patience
        while True:
            found = sorted(self.look() - self.before)
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.01)

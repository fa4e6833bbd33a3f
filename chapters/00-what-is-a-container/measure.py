"""Chapter 00: what a container costs, beside a process, a virtual machine and a whole system. Measured, not said.

`measure.py [--write]`, as root, takes about half a minute. It prints the table of the chapter's page; with --write it
puts it there, between the two markers. What this machine lacks (a kernel to boot, QEMU, a busybox) is left out and
named.

The virtual machine is as small as one can be: a Linux kernel, and a busybox as its only file. QEMU emulates the
processor in software, as it must where the machine is virtual itself; with hardware help it would boot faster, and
would still have to boot.
"""

from __future__ import annotations

import contextlib
import glob
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"

INIT = """#!/bin/busybox sh
/bin/busybox echo the first process runs
/bin/busybox sleep 1
/bin/busybox poweroff -f
"""


def seconds(action: Callable[[], object], times: int = 7) -> float:
    """The median duration of an action, in seconds."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def process() -> float:
    """Seconds from asking for a process to its end: /bin/true."""
    return seconds(lambda: subprocess.run(["true"], check=True))


def container() -> float:
    """The same behind five walls and in a root directory of its own."""
    sys.path.insert(0, str(HERE))
    import container as first

    box = ["unshare", "--fork", *first.WALLS, "sh", "-c", first.BOX, "sh", "true"]
    return seconds(lambda: subprocess.run(box, check=True, stdout=subprocess.DEVNULL))


def container_memory() -> int:
    """Bytes of memory that a container with a sleeping shell has for itself (PSS: shared pages counted in part)."""
    import container as first

    parent, pid = first.start(["sh", "-c", "read line"])
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024
    finally:
        parent.communicate()


def virtual_machine(kernel: str, busybox: str) -> tuple[float, int]:
    """Seconds from asking for a virtual machine to its first process, and the bytes of memory that QEMU then has."""
    with tempfile.TemporaryDirectory() as directory:
        disk = os.path.join(directory, "initramfs")
        Path(disk).write_bytes(archive({"init": INIT.encode(), "bin/busybox": Path(busybox).read_bytes()}))
        console = {"x86_64": "ttyS0", "aarch64": "ttyAMA0"}[platform.machine()]
        machine = ["-machine", "virt", "-cpu", "max"] if platform.machine() == "aarch64" else []
        command = [f"qemu-system-{platform.machine()}", *machine, "-kernel", kernel, "-initrd", disk, "-m", "256"]
        command += ["-append", f"console={console} quiet panic=-1", "-nographic", "-no-reboot", "-net", "none"]
        begin = time.perf_counter()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as qemu:
            try:
                signal.alarm(120)
                assert qemu.stdout is not None
                while "the first process runs" not in (line := qemu.stdout.readline()):
                    if not line:
                        raise SystemExit("the virtual machine ended before its first process")
                taken = time.perf_counter() - begin
                memory = Path(f"/proc/{qemu.pid}/status").read_text().split("VmRSS:")[1].split()[0]
            finally:
                signal.alarm(0)
                qemu.kill()
        return taken, int(memory) * 1024


def archive(files: dict[str, bytes]) -> bytes:
    """Files as a cpio archive of the kind that a kernel unpacks at boot (initramfs buffer format, "newc")."""
    entries = [("dev", 0o040755, b"", (0, 0)), ("dev/console", 0o020600, b"", (5, 1)), ("bin", 0o040755, b"", (0, 0))]
    entries += [(name, 0o100755, data, (0, 0)) for name, data in files.items()]
    out = b""
    for number, (name, mode, data, device) in enumerate([*entries, ("TRAILER!!!", 0, b"", (0, 0))], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
    return out


def debian_userland() -> int | None:
    """Bytes of the smallest Debian: the packages that must be in every installation, and apt. None elsewhere."""
    fields = "${Package} ${Priority} ${Essential} ${Installed-Size}\\n"
    with contextlib.suppress(OSError):
        done = subprocess.run(["dpkg-query", "-W", "-f", fields], capture_output=True, text=True)
        rows = [line.split() for line in done.stdout.splitlines()]
        return (
            sum(int(r[3]) for r in rows if len(r) == 4 and (r[1] == "required" or r[2] == "yes" or r[0] == "apt"))
            * 1024
        )
    return None


def whole_system() -> tuple[int, int]:
    """Bytes on this machine's root file system, and bytes of memory in use."""
    usage = shutil.disk_usage("/")
    with open("/proc/meminfo") as file:
        memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
    return usage.used, memory["MemTotal"] - memory["MemAvailable"]


def find_kernel() -> str | None:
    """A kernel's image that can be booted: one that the project fetched for its tests, or the machine's own."""
    found = sorted(glob.glob(f"{ROOT}/.cache/kernel/boot/vmlinuz-*")) or sorted(glob.glob("/boot/vmlinuz-*"))
    return found[-1] if found else None


def human(size: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def table() -> list[str]:
    """The lines of the table; and on standard error what could not be measured."""
    busybox, kernel = shutil.which("busybox"), find_kernel()
    rows = [("a process (`true`), from start to end", f"{process() * 1000:.1f} ms", "", "")]
    taken = f"{container() * 1000:.0f} ms"
    rows.append(("a container, from start to end", taken, human(container_memory()), "its image's"))
    if kernel and busybox and shutil.which(f"qemu-system-{platform.machine()}"):
        begun, memory = virtual_machine(kernel, busybox)
        size = os.path.getsize(kernel) + os.path.getsize(busybox)
        rows.append(("a virtual machine, up to its first process", f"{begun:.1f} s", human(memory), human(size)))
    else:
        print("no virtual machine measured: it takes QEMU, busybox-static and tests/vm/kernel", file=sys.stderr)
    if busybox:
        commands = len(subprocess.run([busybox, "--list"], capture_output=True, text=True).stdout.split())
        rows.append((f"a busybox: one program, {commands} commands", "", "", human(os.path.getsize(busybox))))
    userland = debian_userland()
    if userland:
        rows.append(("a Debian userland: libraries, shell, apt", "", "", human(userland)))
    size, memory = whole_system()
    rows.append(("this machine's whole system", "", f"{human(memory)} in use", human(size)))
    lines = ["| | starts in | memory | size on disk |", "|---|---|---|---|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def main() -> None:
    """Print the table, or write it into the page."""
    lines = table()
    if sys.argv[1:] != ["--write"]:
        print("\n".join(lines))
        return
    page = HERE / "README.md"
    head, rest = page.read_text().split(BEGIN)
    _, tail = rest.split(END)
    page.write_text(head + BEGIN + "\n\n" + "\n".join(lines) + "\n\n" + END + tail)


if __name__ == "__main__":
    main()

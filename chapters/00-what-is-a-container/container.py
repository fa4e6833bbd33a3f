"""Chapter 00: a container made by one command of the shell, and looked at from outside.

`container.py [COMMAND...]`, as root. Nothing here is minirt's own yet: unshare(1) asks the kernel for new namespaces,
a few lines of shell give the process a root directory, and everything else is reading /proc and asking twice.
"""

from __future__ import annotations

import os
import subprocess
import sys

WALLS = ("--pid", "--mount", "--uts", "--ipc", "--net")

BOX = """
set -e
mount -t tmpfs box /mnt && cd /mnt         # an empty file system in memory will be the container's root
mkdir usr etc dev proc tmp old
cp -P /bin /sbin /lib* .                   # links that lead into usr/
mount --bind -o ro /usr usr                # the programs are this machine's, read-only
touch dev/null && mount --bind /dev/null dev/null
mount -t proc proc proc                    # a /proc that shows the new process tree
echo root:x:0:0:root:/:/bin/sh > etc/passwd
hostname box
pivot_root . old && umount -l old && rmdir old
echo ready
exec "$@"
"""

# What to look at, the command that shows it, and what is to be expected: the same answer on both sides, or two.
LOOK = (
    ("kernel release", "uname -r", "shared"),
    ("start of this kernel", "cut -c1-18 /proc/sys/kernel/random/boot_id", "shared"),
    ("kernel modules", "cut -d' ' -f1 /proc/modules | sort | cksum", "shared"),
    ("system calls", "grep -cE ' __(x64|arm64)_sys_' /proc/kallsyms", "shared"),
    ("device drivers", "cksum < /proc/devices", "shared"),
    ("memory of the machine", "head -n 1 /proc/meminfo | tr -s ' '", "shared"),
    ("user ids", "tr -s ' ' < /proc/self/uid_map", "shared"),
    ("user accounts", "cut -d: -f1 /etc/passwd | wc -l", "isolated"),
    ("root directory", "ls / | wc -l", "isolated"),
    ("processes", "ls /proc | grep -c '^[0-9]'", "isolated"),
    ("network", "readlink /proc/self/ns/net", "isolated"),
    ("IPC", "readlink /proc/self/ns/ipc", "isolated"),
    ("host name", "uname -n", "isolated"),
)


def start(command: list[str]) -> tuple[subprocess.Popen[str], int]:
    """Start a container; returns unshare's process and the pid, seen from outside, of the container's first process (0
    when that has ended already)."""
    box = ["unshare", "--fork", "--kill-child", *WALLS, "sh", "-c", BOX, "sh", *command]
    parent = subprocess.Popen(box, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if parent.stdout is None or parent.stdout.readline() != "ready\n":
        raise SystemExit("unshare could not build the container: are you root?")
    with open(f"/proc/{parent.pid}/task/{parent.pid}/children") as children:
        return parent, int(children.read() or 0)


def ask(command: str, pid: int | None = None) -> str:
    """What a shell command answers: out here, or behind the walls of process `pid` (nsenter(1))."""
    door = ["nsenter", "--target", str(pid), "--all"] if pid else []
    return subprocess.run([*door, "sh", "-c", command], capture_output=True, text=True).stdout.strip()


def look(pid: int) -> list[tuple[str, str, str, str]]:
    """Ask everything in LOOK on both sides: rows of (what, outside, inside, verdict)."""
    answers = [(what, ask(command), ask(command, pid)) for what, command, _ in LOOK]
    return [(what, out, box, "shared" if out == box else "isolated") for what, out, box in answers]


def main(command: list[str]) -> int:
    """Run a command in a container and return its status; without one, look at an idle container from outside."""
    parent, pid = start(command or ["cat"])  # cat reads our pipe, so it lives until we let go
    if not command:
        with open(f"/proc/{pid}/status") as status:
            numbers = next(line for line in status if line.startswith("NSpid")).split()
        print(f"process {numbers[1]} out here is process {numbers[-1]} in there\n")
        for name in ("mnt", "pid", "uts", "ipc", "net", "user", "cgroup"):
            ours, theirs = (os.readlink(f"/proc/{who}/ns/{name}") for who in ("self", pid))
            print(f"{name:8}{ours:22}{theirs if theirs != ours else 'the same'}")
        for what, out, box, verdict in look(pid):
            print(f"{what:24}{out:28}{box:28}{verdict}")
    with parent:  # waits at its end
        if parent.stdin:
            parent.stdin.close()
        sys.stdout.writelines(parent.stdout or ())
    return parent.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

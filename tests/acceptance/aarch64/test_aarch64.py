"""minirt on aarch64, in an emulated machine with Debian's kernel and control groups of version 2.

One boot: the first container with all its walls, `run`, `exec` and their exit codes, then the tests of the chapters
whose code differs between architectures (call numbers, structures, the two programs assembled by hand, the filter).
Emulation is slow and nothing is timed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SECONDS = 900
CHAPTERS = ("01_processes", "02_uts", "03_pid", "04_mnt", "06_net", "10_capabilities", "11_seccomp",
            "12_container_process")
PURE = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "pyroute2")  # without compiled code

JOB = """\
#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
export PYTHONPATH=/root:/root/site
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmp /run && mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts && mount -t tmpfs -o mode=1777 shm /dev/shm
ln -s /proc/self/fd /dev/fd
ip link set lo up
cp -a /mnt/. /root && umount -l /mnt
cd /root
minirt() { /usr/bin/python3.11 -m minirt "$@"; }
part() { echo "== $1"; shift; "$@" 2>&1; echo "== status $?"; }
part load /usr/bin/python3.11 -m minirt.images.hello
part hello minirt --explain run --rm hello-world
part make /usr/bin/python3.11 -c 'import pathlib, tests.images as make; make.busybox(pathlib.Path("busybox.tar"))'
part image minirt load -i busybox.tar
part run minirt run --rm busybox sh -c 'uname -m; grep -E "^(CapEff|Seccomp|NoNewPrivs)" /proc/self/status; exit 7'
part limit minirt run --rm -m 64m --pids-limit 20 busybox cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max
part init minirt run --rm --init busybox sh -c 'cat /proc/1/comm'
part start minirt run -d --name long busybox sleep 1000
part exec minirt exec long sh -c 'echo joined; exit 3'
part remove minirt rm -f long
for chapter in CHAPTERS; do
    part "$chapter" /usr/bin/python3.11 -m pytest -p no:faulthandler --color=no --patience 5 -q \\
        "tests/chapter_$chapter"
done
echo '== end'
echo o >/proc/sysrq-trigger
sleep 60
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """What each part of the job printed, with its exit status, by the part's name."""
    for program, package in (("qemu-system-aarch64", "qemu-system-arm"), ("mke2fs", "e2fsprogs"), ("depmod", "kmod"),
                             ("busybox", "busybox-static"), ("apt-get", "apt")):
        where = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        assert where, f"the aarch64 machine needs {program} ({package}): make test-deps"
    made = subprocess.run([HERE / "machine"], capture_output=True, text=True, check=False)
    if made.returncode == 3:
        pytest.skip("this system's archive has no packages for aarch64")
    assert made.returncode == 0, made.stderr
    machine = Path(made.stdout.strip())
    place = tmp_path_factory.mktemp("aarch64")
    console = list(boot(machine, checkout(place)))
    parts: dict[str, tuple[int, str]] = {}
    name, lines = "boot", list[str]()
    for line in console:
        if line.startswith("== status "):
            parts[name] = int(line.split()[2]), "\n".join(lines)
        elif line.startswith("== "):
            name, lines = line[3:], []
        else:
            lines.append(line)
    assert name == "end", "the machine did not come to its end:\n" + "\n".join(console[-40:])
    return parts


def checkout(place: Path) -> Path:
    """A disk with this checkout, pytest, an image of busybox for aarch64, and the job."""
    tree = place / "tree"
    for name in ("minirt", "chapters", "tests", "benchmarks", "notebooks", "pyproject.toml", "README.md", "Makefile"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "workspace"))
        else:
            shutil.copy(source, tree / name)
    for name in PURE:
        spec = importlib.util.find_spec(name)
        if not spec or not spec.origin:
            continue
        source = Path(spec.origin)
        if source.name == "__init__.py":
            shutil.copytree(source.parent, tree / "site" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / "site" / source.name)
    (tree / "job").write_text(JOB.replace("CHAPTERS", " ".join(CHAPTERS)))
    (tree / "job").chmod(0o755)
    disk = place / "checkout"
    subprocess.run(["truncate", "-s", "200M", disk], check=True)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, disk], check=True,
                   env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
    return disk


def boot(machine: Path, disk: Path) -> Iterator[str]:
    """The lines of the machine's console."""
    drives = [f"file={each},format=raw,if=virtio,snapshot=on" for each in (machine / "disk", disk)]
    command = ["timeout", "--kill-after", "10", str(SECONDS), "qemu-system-aarch64", "-M", "virt", "-cpu",
               "max,pauth-impdef=on", "-smp", "2", "-m", "1G", "-kernel", str(machine / "vmlinuz"), "-initrd",
               str(machine / "initrd.gz"), "-append", "console=ttyAMA0 quiet panic=-1 loglevel=1", "-drive", drives[0],
               "-drive", drives[1], "-nographic", "-no-reboot", "-nic", "none"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace") as process:
        assert process.stdout
        for line in process.stdout:
            yield line.rstrip("\r\n")


def test_the_first_container_runs_behind_every_wall(said: dict[str, tuple[int, str]]) -> None:
    status, text = said["hello"]
    assert status == 0 and "Hello from minirt!" in text, text
    for step in ("unshare(CLONE_NEWNS)", "pivot_root", "SECCOMP_SET_MODE_FILTER", "capset(", "execveat(memfd)"):
        assert step in text, text


def test_run_gives_the_program_s_own_exit_status(said: dict[str, tuple[int, str]]) -> None:
    status, text = said["run"]
    assert status == 7, text
    assert text.split() == ["aarch64", "CapEff:", "00000000a80425fb", "NoNewPrivs:", "0", "Seccomp:", "2",
                            "Seccomp_filters:", "1"], text


def test_limits_are_those_of_control_groups(said: dict[str, tuple[int, str]]) -> None:
    assert said["limit"] == (0, "67108864\n20")


def test_the_init_of_minirt_is_process_one(said: dict[str, tuple[int, str]]) -> None:
    status, text = said["init"]
    assert status == 0 and "sh" not in text.split(), text


def test_a_program_joins_a_running_container(said: dict[str, tuple[int, str]]) -> None:
    assert said["start"][0] == 0, said["start"]
    assert said["exec"] == (3, "joined")
    assert said["remove"] == (0, "long")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_chapter_s_tests_pass(said: dict[str, tuple[int, str]], chapter: str) -> None:
    status, text = said[chapter]
    assert status == 0, text[-6000:]

"""Tests in a virtual machine: another kernel, with cgroup v2 alone, where this machine may have something else.

The tests below this directory are collected here and run there: one boot for all of them, in the machine's own files
(read-only, through 9p) with a disk for the store, by virtme-ng and QEMU without hardware help. Each report comes back
as a line of JSON on the console, so a failure reads like any other. Emulation is some forty times slower: nothing is
timed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INSIDE = os.environ.get("MINIRT_VM") == "1"
SECONDS = 900  # on a busy machine; else half of it
MARK = "\x1e report "

JOB = """\
mkdir -p /var/lib/minirt && mount /dev/vda /var/lib/minirt
mount -t tmpfs -o mode=755 none /run/minirt 2>/dev/null || { mkdir -p /run/minirt && mount -t tmpfs none /run/minirt; }
export MINIRT_VM=1 TMPDIR=/var/lib/minirt/tmp HOME=/root LC_ALL=C.UTF-8
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PYTHONDONTWRITEBYTECODE=1
mkdir -p $TMPDIR
cd ROOT && exec INTERPRETER -m pytest -p no:cacheprovider -p no:faulthandler -q TESTS
"""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In the machine: send each report out."""
    if INSIDE and CONFIG:
        data = CONFIG[0].hook.pytest_report_to_serializable(config=CONFIG[0], report=report)
        os.write(2, f"\n{MARK}{json.dumps(data)}\n".encode())


CONFIG: list[pytest.Config] = []
reports: dict[str, list[pytest.TestReport]] = {}
console: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    CONFIG.append(config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Out here: boot at the first of our tests, then hand on what came back for each."""
    if INSIDE or HERE not in item.path.parents:
        return None
    if not console:
        boot(item, [each for each in item.session.items if HERE in each.path.parents])
    item.config.hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    came = reports.get(item.nodeid, [])
    if all(report.passed for report in came) and "call" not in [report.when for report in came]:
        came = [*came, missing(item)]  # nothing of it came through
    for report in came:
        item.ihook.pytest_runtest_logreport(report=report)
    item.config.hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def missing(item: pytest.Item) -> pytest.TestReport:
    """The report of a test of which nothing came back: what the console said last."""
    return pytest.TestReport(nodeid=item.nodeid, location=item.location, keywords={item.name: 1}, outcome="failed",
                             longrepr="\n".join(console[-40:]), when="call", duration=0)


def boot(item: pytest.Item, items: list[pytest.Item]) -> None:
    """Start the machine, run these tests in it, gather their reports and what else it said."""
    problem = lacking()
    if problem:
        console.append(problem)
        return
    kernel = subprocess.run([HERE / "kernel"], capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="minirt-vm-") as place:
        disk, job = Path(place) / "store.img", Path(place) / "job.sh"
        subprocess.run(["truncate", "-s", "512M", disk], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
        tests = " ".join(f"'{each.nodeid}'" for each in items)
        job.write_text(JOB.replace("ROOT", str(ROOT)).replace("INTERPRETER", sys.executable).replace("TESTS", tests))
        for line in run(kernel, disk, job):
            _, mark, data = line.partition(MARK)
            if not mark:
                console.append(line)
                continue
            hook = item.config.hook
            try:
                report: Any = hook.pytest_report_from_serializable(config=item.config, data=json.loads(data))
            except ValueError:
                console.append(line)
                continue
            if isinstance(report.longrepr, list):
                report.longrepr = tuple(report.longrepr)
            reports.setdefault(report.nodeid, []).append(report)
    console.append("end of the console")


def run(kernel: str, disk: Path, job: Path) -> Iterator[str]:
    """The lines of the machine's console. QEMU wants a pipe: it opens its output anew, cutting a file short."""
    vng = shutil.which("vng", path=tools()) or "vng"
    command = ["timeout", "--kill-after", "10", str(SECONDS), sys.executable, vng, "--disable-kvm", "--force-9p",
               "--run", kernel, "--user", "root", "--memory", "1G", "--cpus", "2", "--disk", str(disk),
               "--append", "cgroup_no_v1=all", "--", "bash", str(job)]
    environment = {**os.environ, "PATH": tools()}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=environment, cwd=ROOT, errors="replace", text=True) as machine:
        assert machine.stdout
        for line in machine.stdout:
            yield line.rstrip("\r\n")


def tools() -> str:
    """PATH with the programs of this environment first."""
    return f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"


def lacking() -> str:
    """What keeps the machine from starting, as one sentence, or ""."""
    for program, package in (("vng", ""), ("qemu-system-x86_64", "qemu-system-x86"), ("mkfs.ext4", "e2fsprogs"),
                             ("depmod", "kmod"), ("busybox", "busybox-static"), ("udevadm", "udev"), ("file", "file")):
        if not shutil.which(program, path=tools()):
            return f"the virtual machine needs {program}: make {'test-deps' if package else 'acceptance installs it'}"
    return ""

"""`minirt --explain=sh run ...`: the script builds the same container as `run`, seen from inside."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.caged
PROBE = """
echo "== mounts"; cut -d' ' -f4- /proc/self/mountinfo
echo "== status"; grep -E '^(Cap|NoNew|Uid|Gid|Groups)' /proc/self/status
echo "== environment"; env
echo "== names"; hostname; pwd; cat /etc/hosts /etc/resolv.conf
echo "== limits"; ulimit -a; cat /proc/self/oom_score_adj
for file in memory/memory.limit_in_bytes memory.max pids/pids.max pids.max; do cat /sys/fs/cgroup/$file 2>&-; done
echo "== interfaces"; ip -o address | grep -v inet6
echo "== settings"; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax
echo "== files"; ls -l /dev | sed 's/[A-Z][a-z][a-z] .*:[0-9][0-9]//'; ls -ld . /dev/shm /dev/mqueue | cut -c1-30
exit 7
"""


def run_script(text: str) -> subprocess.CompletedProcess[str]:
    """Runs a script."""
    return subprocess.run(["sh"], input=text, capture_output=True, text=True, timeout=60, check=False)


def comparable(text: str) -> dict[str, list[str]]:
    """What the probe has said, by section, without what differs between any two containers: the directories of one,
    the order of mounts, ids."""
    sections: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("== "):
            here = sections.setdefault(line[3:], [])
            continue
        line = re.sub(r"[^\s,=]*(/containers/[0-9a-f]{64}|/script\.\w{6})[^\s,]*", "HERE", line)
        here.append(re.sub(r"(shared|master):\d+ ", "", line))
    sections["mounts"].sort()
    return sections


@pytest.mark.parametrize("options", [
    "",
    "-m 64m --pids-limit 50",
    "--cpus 0.5 --cpuset-cpus 0 --cpu-shares 512",
    "--read-only --tmpfs /run --tmpfs /scratch:size=1m,exec",
    "--user 1000:1000",
    "--user 1000 --group-add 7 --group-add tty -w /made/by/minirt",
    "--cap-drop ALL --cap-add CHOWN",
    "--cap-drop MKNOD --user 12",
    "--security-opt no-new-privileges --security-opt seccomp=unconfined",
    "--security-opt systempaths=unconfined",
    "--privileged",
    "-v /etc:/machine:ro -v /usr/bin/env:/a/program --mount type=tmpfs,target=/t,tmpfs-size=4k",
    "--hostname elsewhere --domainname example --add-host db:192.0.2.7 --dns 192.0.2.1",
    "-e A=b -e \"B=it's 'x' $\" -e HOME=/nowhere",
    "--network host",
    "--pid host",
    "--cgroupns host -m 64m --cgroup-parent other/place --cpuset-mems 0",
    "--ipc none --shm-size 1m --oom-score-adj 77",
    "--ulimit nofile=50:60 --ulimit core=0",
    "--sysctl net.ipv4.ip_unprivileged_port_start=99 --sysctl kernel.msgmax=1234",
    "--uts host --ipc host",
    "--device /dev/null:/dev/deep/other:r --device-cgroup-rule 'c 7:* r'",
])
def test_the_script_builds_what_run_builds(tool, options):
    words = ["--hostname", "box", *shlex.split(options)]
    if "--uts host" in options or "--hostname" in options:
        words = words[2:]
    run = tool("run", "--rm", *words, "busybox", "sh", "-c", PROBE, status=7)
    told = tool("--explain=sh", "run", "--rm", *words, "busybox", "sh", "-c", PROBE)
    assert tool.left() == [], "nothing was made"
    before = set(Path(tool.root).iterdir())
    script = run_script(told.out)
    assert (script.returncode, script.stderr) == (7, run.err)
    ours, shells = comparable(run.out), comparable(script.stdout)
    if "--privileged" in options:
        del ours["files"], shells["files"]  # the machine's devices, some of which come and go
    assert min(len(ours[section]) for section in ("mounts", "status", "environment", "limits")) >= 3
    for section in ours:
        assert shells[section] == ours[section], section
    for place in ("other/place", "other"):
        for path in Path("/sys/fs/cgroup").glob(f"**/{place}/"):
            path.rmdir()
    assert set(Path(tool.root).iterdir()) == before, "it cleans up after itself"
    assert tool.left() == [], "its control groups too"


@pytest.mark.parametrize("command", ["/nothing", "nothing", "/etc", "/etc/passwd"])
def test_it_ends_as_run_does(tool, command):
    status = tool("run", "--rm", "busybox", command, status=None).status
    assert status in (126, 127)
    assert run_script(tool("--explain=sh", "run", "busybox", command).out).returncode == status


def test_any_shell_will_do(tool):
    for shell in ("bash", "dash"):
        words = tool("--explain=sh", "run", "-m", "64m", "busybox", "sh", "-c", "hostname; exit 3").out
        done = subprocess.run([shell], input=words, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, len(done.stdout), done.stderr) == (3, 13, ""), shell


def test_it_reads_what_it_is_given_only_with_interactive(tool, tmp_path):
    for flags, shown in (((), ""), (("-i",), "hello\n")):
        (tmp_path / "script").write_text(tool("--explain=sh", "run", *flags, "busybox", "cat").out)
        done = subprocess.run(["sh", str(tmp_path / "script")], input="hello\n", stdout=-1, text=True, check=True)
        assert done.stdout == shown


def test_it_joins_another_container(tool, outside):
    tool.up("--name", "first", "-h", "box", "busybox", "sh", "-c", "ip link add dummy0 type dummy; sleep 60")
    told = tool("--explain=sh", "run", "--network", "container:first", "--pid", "container:first", "busybox",
                "sh", "-c", "hostname; ps | grep -c 'sleep [6]0'")
    assert run_script(told.out).stdout == "box\n1\n"


def test_a_path_of_the_image_leads_nowhere_else(tool):
    script = "rm -r /etc; ln -s /tmp/elsewhere /etc; mkdir -p /tmp/elsewhere"
    tool.up("--name", "first", "busybox", "sh", "-c", script)
    told = tool("--explain=sh", "run", "-v", "/usr:/x/y/z", "busybox", "ls", "/x/y")
    assert run_script(told.out).stdout == "z\n"
    assert not Path("/x").exists()
    assert not Path("/tmp/elsewhere").exists()


def test_no_word_of_the_command_becomes_a_line_of_the_script(tool):
    words = ["printf", "%s|", "a\ntouch /tmp/broken", "END OF FILE\nEND OF FILE\n", "it's", "$(touch /tmp/broken)", ""]
    done = run_script(tool("--explain=sh", "run", "-e", "X=\ntouch /tmp/broken\n", "busybox", *words).out)
    assert done.stdout == "|".join(words[2:]) + "|"
    assert not Path("/tmp/broken").exists()


def test_every_step_has_its_chapter_and_what_the_shell_cannot_do_is_said(tool):
    text = tool("--explain=sh", "run", "-it", "--init", "--userns", "auto", "busybox").out
    chapters = set(re.findall(r"^# chapter (\d\d): ", text, re.MULTILINE))
    assert {"02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12"} <= chapters
    cannot = re.findall(r"SHELL CANNOT: (.*)", text)
    assert len(cannot) >= 5
    for what in ("filter of system calls", "memfd", "user namespace", "terminal", "init of"):
        assert any(what in each for each in cannot), what


def test_it_starts_nothing_and_refuses_what_run_refuses(tool):
    told = tool("--explain=sh", "run", "--name", "box", "-v", "/not/there/yet:/x", "busybox", "true")
    assert "mkdir -p /not/there/yet" in told.out
    assert not Path("/not").exists()
    assert tool("ps", "-aq").out == ""
    assert "No such image" in tool("--explain=sh", "run", "nothing", status=125).err
    assert "unable to find user bob" in tool("--explain=sh", "run", "-u", "bob", "busybox", status=125).err
    assert "conflicting options" in tool("--explain=sh", "run", "--uts", "host", "-h", "x", "busybox", status=125).err
    assert "it goes with run, not ps" in tool("--explain=sh", "ps", status=125).err
    assert "--explain=sh" in tool("--help").out


def test_a_directory_of_devices(tool):
    directory = Path("/dev/several/deep")
    directory.mkdir(parents=True)
    try:
        subprocess.run(["mknod", "/dev/several/one", "c", "1", "3"], check=True)
        subprocess.run(["mknod", "/dev/several/deep/two", "c", "1", "5"], check=True)
        Path("/dev/several/none").touch()
        words = ["--device", "/dev/several:/dev/x:rw", "busybox", "sh", "-c",
                 "cd /dev/x; find . -type c | sort; head -c 3 deep/two | wc -c"]
        run = tool("run", "--rm", *words)
        assert run.out == "./deep/two\n./one\n3\n"
        assert run_script(tool("--explain=sh", "run", *words).out).stdout == run.out
        refused = tool("run", "--rm", "--device", "/usr/share", "busybox", "true", status=125).err
        assert 'adding custom device "/usr/share": not a device node' in refused
    finally:
        subprocess.run(["rm", "-r", "/dev/several"], check=True)

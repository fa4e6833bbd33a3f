"""`--sysctl` and `--security-opt systempaths=unconfined`: the kernel's settings, and what /proc and /sys show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minirt.containers import values
from minirt.namespaces import sysctl

pytestmark = pytest.mark.caged
PORTS, PINGS, FORWARD = "net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range", "net/ipv4/ip_forward"


def read(name: str) -> str:
    return Path(f"/proc/sys/{name}").read_text()


def test_a_container_has_settings_of_its_own(tool):
    before = {name: read(name) for name in (FORWARD, PORTS, "kernel/msgmax", "fs/mqueue/msg_max")}
    done = tool("run", "--rm", "--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=4321",
                "--sysctl", "fs.mqueue.msg_max=7", "--sysctl", "kernel.sem=100 200 30 40", "busybox", "sh", "-c",
                "cd /proc/sys; cat net/ipv4/ip_forward kernel/msgmax fs/mqueue/msg_max; echo $(cat kernel/sem)")
    assert done.out.split("\n") == ["1", "4321", "7", "100 200 30 40", ""]
    assert before == {name: read(name) for name in before}, "the machine's are as they were"


def test_ordinary_users_have_low_ports_and_pings_in_a_network_of_the_containers_own(tool):
    shown = f"cd /proc/sys; cat {PORTS}; echo $(cat {PINGS})"
    assert tool("run", "--rm", "busybox", "sh", "-c", shown).out == "0\n0 2147483647\n"
    ours = tool("run", "--rm", "--sysctl", "net.ipv4.ip_unprivileged_port_start=99", "busybox", "sh", "-c", shown)
    assert ours.out == "99\n0 2147483647\n", "what was asked for counts"
    host = tool("run", "--rm", "--network", "host", "busybox", "sh", "-c", shown).out
    assert host == read(PORTS) + " ".join(read(PINGS).split()) + "\n", "the machine's network stays the machine's"
    mapped = tool("run", "--rm", "--userns", "auto", "busybox", "sh", "-c", shown).out
    assert mapped.startswith("0\n"), "and in a user namespace: there no map has all the groups that may ping"


def test_who_joins_a_network_changes_nothing_unasked(tool):
    tool.up("--name", "first", "--sysctl", "net.ipv4.ip_unprivileged_port_start=99", "busybox", "sleep", "60")
    assert tool("run", "--rm", "--network", "container:first", "busybox", "cat", f"/proc/sys/{PORTS}").out == "99\n"


@pytest.mark.parametrize("options, reason", [
    (("--network", "host", "--sysctl", "net.ipv4.ip_forward=1"),
     'sysctl "net.ipv4.ip_forward" not allowed in host network namespace'),
    (("--ipc", "host", "--sysctl", "kernel.msgmax=1"),
     'sysctl "kernel.msgmax" is not allowed in the hosts ipc namespace'),
    (("--ipc", "host", "--sysctl", "fs.mqueue.msg_max=1"),
     'sysctl "fs.mqueue.msg_max" is not allowed in the hosts ipc namespace'),
    (("--sysctl", "kernel.panic=1"), "sysctl 'kernel.panic=1' is not allowed"),
    (("--sysctl", "kernel.msgmaxx=1"), "sysctl 'kernel.msgmaxx=1' is not allowed"),
    (("--sysctl", "net.ipv4.ip_forward"), "sysctl 'net.ipv4.ip_forward' is not allowed"),
    (("--sysctl", "net.no.such=1"), 'sysctl "net.no.such" cannot be set to "1": no such file or directory'),
    (("--sysctl", "net.ipv4.ip_forward=x"), 'sysctl "net.ipv4.ip_forward" cannot be set to "x": invalid argument'),
    (("--sysctl", "net.ipv4/../../../../../etc/passwd=x"), "cannot be set"),
    (("--sysctl", "net.ipv4/../../kernel/panic=1"), "cannot be set"),
])
def test_what_is_the_machines_is_refused(tool, options, reason):
    before = read("kernel/panic")
    done = tool("run", "--rm", *options, "busybox", "true", status=125)
    assert reason in done.err
    assert read("kernel/panic") == before
    assert tool.left() == []


def test_inspect_and_the_narration_show_it(tool):
    done = tool("--explain", "run", "--name", "box", "--sysctl", "net.ipv4.ip_forward=1", "busybox")
    assert "ch 06  set net.ipv4.ip_forward to 1" in done.err
    assert tool.inspect("box")["HostConfig"]["Sysctls"] == {"net.ipv4.ip_forward": "1"}
    tool("run", "--name", "plain", "busybox")
    assert "Sysctls" not in tool.inspect("plain")["HostConfig"], "as in Docker: not there when there are none"


def test_only_a_file_of_a_proc_file_system_is_written(tmp_path):
    (tmp_path / "proc" / "sys" / "net").mkdir(parents=True)
    (tmp_path / "proc" / "sys" / "net" / "x").write_text("before")
    directory = os.open(tmp_path, os.O_PATH)
    with pytest.raises(Exception, match="not one of a proc file system"):
        sysctl.write(directory, "net.x", "after")
    os.close(directory)
    assert (tmp_path / "proc" / "sys" / "net" / "x").read_text() == "before"


def test_what_docker_accepts():
    assert values.sysctl("net.ipv4.ip_forward=1=2") == ("net.ipv4.ip_forward", "1=2")
    assert values.sysctl("kernel.shm_rmid_forced=1") == ("kernel.shm_rmid_forced", "1")


# -- systempaths -----------------------------------------------------------------------------------------------


def test_nothing_is_masked_or_read_only_with_systempaths_unconfined(tool):
    script = "echo 20 > /proc/sys/net/ipv4/tcp_syn_retries; grep -c ' /proc/' /proc/self/mountinfo"
    done = tool("run", "--name", "box", "--security-opt", "systempaths=unconfined", "busybox", "sh", "-c", script,
                status=None)
    assert (done.out, done.err) == ("0\n", "")
    host = tool.inspect("box")["HostConfig"]
    assert host["MaskedPaths"] == host["ReadonlyPaths"] == []
    assert host["SecurityOpt"] == []
    masked = tool("run", "--rm", "busybox", "sh", "-c", script, status=None)
    assert "Read-only file system" in masked.err
    assert int(masked.out) > 5


def test_the_other_security_options_stay(tool):
    tool("run", "--name", "box", "--security-opt", "systempaths=unconfined", "--security-opt", "no-new-privileges",
         "busybox")
    assert tool.inspect("box")["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
    assert "invalid --security-opt: systempaths=x" in tool(
        "run", "--security-opt", "systempaths=x", "busybox", status=125).err


def test_a_volume_over_proc_does_not_get_what_was_meant_for_the_kernel(tool, tmp_path):
    place = tmp_path / "sys" / "net" / "ipv4"
    place.mkdir(parents=True)
    (place / "ip_forward").symlink_to("/etc/passwd")
    (place / "ip_unprivileged_port_start").write_text("before")
    done = tool("run", "--rm", "-v", f"{tmp_path}:/proc", "--sysctl", "net.ipv4.ip_forward=1", "busybox", "true",
                status=125)
    assert "sysctl" in done.err or "proc file system" in done.err
    assert (place / "ip_unprivileged_port_start").read_text() == "before"
    assert not Path("/etc/passwd").read_text().startswith("1")

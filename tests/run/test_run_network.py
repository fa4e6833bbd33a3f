"""`minirt run`: the network's modes, and the three files of names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minirt.containers import resolve

pytestmark = pytest.mark.caged


def test_none_has_a_loopback_that_is_on_and_nothing_else(tool, outside):
    done = tool("run", "--rm", "busybox", "ip", "-o", "address")
    assert {line.split()[1] for line in done.out.splitlines()} == {"lo"}
    assert "inet 127.0.0.1/8" in done.out
    tool.up("--name", "box", "--network", "none", "busybox", "sleep", "60")
    assert "net" in outside.entered(tool.pid("box"))


def test_host_is_the_machines_network_with_its_files(tool, outside):
    tool.up("--name", "box", "--network", "host", "busybox", "sleep", "60")
    assert "net" not in outside.entered(tool.pid("box"))
    shown = tool("exec", "box", "cat", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname").out
    assert shown == Path("/etc/hosts").read_text() + Path("/etc/resolv.conf").read_text() + os.uname().nodename + "\n"


def test_one_container_joins_the_network_of_another(tool, outside):
    tool.up("--name", "first", "-h", "box", "--add-host", "db:192.0.2.7", "busybox", "sleep", "60")
    tool.up("--name", "second", "--network", "container:first", "busybox", "sleep", "60")
    first, second = tool.pid("first"), tool.pid("second")
    assert outside.namespace("net", first) == outside.namespace("net", second) != outside.namespace("net")
    assert outside.namespace("uts", first) != outside.namespace("uts", second)
    assert tool("exec", "second", "hostname").out == "box\n"
    assert "192.0.2.7\tdb\n" in tool("exec", "second", "cat", "/etc/hosts").out
    assert tool.inspect("second")["HostConfig"]["NetworkMode"] == f"container:{tool.inspect('first')['Id']}"
    assert tool.inspect("second")["HostsPath"] == tool.inspect("first")["HostsPath"]
    assert "No such container" in tool("run", "--network", "container:nobody", "busybox", status=125).err
    tool("rm", "-f", "first")
    assert tool("exec", "second", "ip", "-o", "link").out.startswith("1: lo"), "the namespace lives with its processes"


@pytest.mark.parametrize("arguments, what", [
    (("--network", "container:x", "-h", "box"), "hostname"),
    (("--network", "container:x", "--dns", "192.0.2.1"), "dns"),
    (("--network", "container:x", "--add-host", "a:192.0.2.1"), "custom host-to-IP mapping"),
    (("--network", "container:x", "--mac-address", "02:00:00:00:00:01"), "mac-address"),
    (("--network", "host", "--mac-address", "02:00:00:00:00:01"), "mac-address"),
])
def test_what_belongs_to_another_network_cannot_be_set(tool, arguments, what):
    assert f"conflicting options: {what} and the network mode" in tool("run", *arguments, "busybox", status=125).err
    assert tool.left() == []


def test_hosts_and_host_name(tool):
    done = tool("run", "--rm", "-h", "box", "--domainname", "example", "--add-host", "db:192.0.2.7",
                "--add-host", "v6=[2001:db8::7]", "busybox", "cat", "/etc/hosts", "/etc/hostname")
    assert done.out.startswith("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
    assert done.out.endswith("192.0.2.7\tdb\n2001:db8::7\tv6\nbox\n")


def test_name_servers_and_search_domains(tool):
    done = tool("run", "--rm", "--dns", "192.0.2.53", "--dns", "2001:db8::53", "--dns-search", "example.com",
                "--dns-search", "lab.example.com", "--dns-option", "ndots:2", "--dns-opt", "rotate",
                "busybox", "cat", "/etc/resolv.conf")
    assert done.out == ("nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch example.com lab.example.com\n"
                        "options ndots:2 rotate\n")
    tool("create", "--name", "kept", "--dns", "192.0.2.53", "--mac-address", "02:00:00:00:00:01", "busybox")
    assert tool.inspect("kept")["HostConfig"]["Dns"] == ["192.0.2.53"]
    assert tool.inspect("kept")["Config"]["MacAddress"] == "02:00:00:00:00:01"


@pytest.mark.parametrize("arguments, sentence", [
    (("--dns", "192.0.2"), "IP address is not correctly formatted: 192.0.2"),
    (("--dns-search", "-x"), "-x is not a valid domain"),
    (("--dns-search", "1.2"), "1.2 is not a valid domain"),
    (("--add-host", "db"), 'bad format for add-host: "db"'),
    (("--add-host", "db:nowhere"), 'invalid IP address in add-host: "nowhere"'),
    (("--add-host", "db:host-gateway"), "arrives with chapter 15"),
    (("--mac-address", "02:00"), "02:00 is not a valid mac address"),
])
def test_values_are_looked_at(tool, arguments, sentence):
    assert sentence in tool("run", *arguments, "busybox", "true", status=125).err


RESOLVED = "# made by systemd\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch home\n"


def resolv_conf(text: str, own_network: bool = True, behind: str = "", **asked: list[str]) -> str:
    words = [asked.get(name, []) for name in ("dns", "search", "options")]
    return resolve.resolv_conf(text, *words, own_network, lambda path: behind)


def test_a_name_server_on_the_machines_127_0_0_1_is_out_of_reach():
    assert resolv_conf("nameserver 127.0.0.1\nnameserver ::1\nnameserver 192.0.2.1\n") == "nameserver 192.0.2.1\n"
    assert resolv_conf("nameserver 127.0.0.1\n", own_network=False) == "nameserver 127.0.0.1\n"


def test_behind_systemd_resolved_are_the_real_ones():
    behind = "nameserver 192.0.2.1\nsearch home\n"
    assert resolv_conf(RESOLVED, behind=behind) == behind
    assert resolv_conf(RESOLVED) == "search home\noptions edns0 trust-ad\n"
    assert resolv_conf(RESOLVED, own_network=False, behind=behind).startswith("nameserver 127.0.0.53\n")


def test_what_is_asked_for_replaces_what_the_machine_has():
    text = "nameserver 192.0.2.1\ndomain home\noptions rotate\n"
    assert resolv_conf(text, search=["lab"]) == "nameserver 192.0.2.1\nsearch lab\noptions rotate\n"
    assert resolv_conf(text, search=["."]) == "nameserver 192.0.2.1\noptions rotate\n"
    assert resolv_conf(text, dns=["127.0.0.1"]) == "nameserver 127.0.0.1\ndomain home\noptions rotate\n"

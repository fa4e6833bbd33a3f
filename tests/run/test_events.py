"""`minirt events`: what is told of a container's life, in the words and with the attributes of `docker events`."""

from __future__ import annotations

import json
import os
import re

import pytest

from tests import images, played_registry

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(?:Z|[+-]\d\d:\d\d)"

pytestmark = [pytest.mark.caged, pytest.mark.limit(60)]


def told(tool, *filters: str) -> list[str]:
    """The events so far, without time and id: `container start image=busybox, name=box`."""
    out = tool("events", "--since", "1h", "--until", "0s", *(word for each in filters for word in ("-f", each))).out
    lines = []
    for line in out.splitlines():
        found = re.fullmatch(STAMP + r" (.+) (?:(?:sha256:)?[0-9a-f]{64})? \((.*)\)", line)
        assert found, line
        # How many seconds it ran depends on how busy the machine is.
        lines.append(re.sub("execDuration=\\d+", "execDuration=0", f"{found[1]} {found[2]}"))
    return lines


def test_a_life_from_create_to_destroy(tool, eventually):
    tool("run", "--rm", "--name", "box", "--label", "k=v", "busybox", "sh", "-c", "exit 3", status=3)
    about = "image=busybox, k=v, name=box"
    expected = [f"container create {about}", f"container attach {about}", f"container start {about}",
                f"container die execDuration=0, exitCode=3, {about}", f"container destroy {about}"]
    eventually(lambda: told(tool, "container=box") == expected)
    assert told(tool, "label=k=v", "event=start") == [f"container start {about}"]
    assert told(tool, "label=k=w") == told(tool, "type=image", "container=box") == []


def test_what_is_done_to_a_container(tool, eventually):
    tool.up("--name", "box", "busybox", "sleep", "100")
    for words in (("pause", "box"), ("unpause", "box"), ("rename", "box", "tin"), ("kill", "-s", "USR1", "tin"),
                  ("stop", "-t", "0", "tin"), ("start", "tin"), ("rm", "-f", "tin")):
        tool(*words)
    tin = "image=busybox, name=tin"
    expected = [
        "container create image=busybox, name=box", "container start image=busybox, name=box",
        "container pause image=busybox, name=box", "container unpause image=busybox, name=box",
        "container rename image=busybox, name=tin, oldName=/box", f"container kill {tin}, signal=10",
        f"container kill {tin}, signal=15", f"container kill {tin}, signal=9",
        f"container die execDuration=0, exitCode=137, {tin}", f"container stop {tin}", f"container start {tin}",
        f"container kill {tin}, signal=9", f"container die execDuration=0, exitCode=137, {tin}",
        f"container destroy {tin}"]
    eventually(lambda: sorted(told(tool, "image=busybox", "type=container")) == sorted(expected))


def test_exec_is_told_with_its_command_and_its_exit_code(tool):
    tool.up("--name", "box", "busybox", "sleep", "100")
    tool("exec", "box", "sh", "-c", "exit 4", status=4)
    lines = told(tool, "event=exec_create", "event=exec_start", "event=exec_die")
    ids = {re.search(r"execID=([0-9a-f]{64}), ", line)[1] for line in lines}
    assert len(ids) == 1
    rest = f"execID={ids.pop()}"
    assert lines == [f"container exec_create: sh -c exit 4 {rest}, image=busybox, name=box",
                     f"container exec_start: sh -c exit 4 {rest}, image=busybox, name=box",
                     f"container exec_die {rest}, exitCode=4, image=busybox, name=box"]


def test_a_detached_exec_is_told_to_its_end(tool, eventually):
    tool.up("--name", "box", "busybox", "sleep", "100")
    tool("exec", "-d", "box", "sh", "-c", "sleep 0.2; exit 5")
    tool("exec", "-d", "box", "nosuch", status=127)
    eventually(lambda: [line for line in told(tool, "event=exec_die") if "exitCode=5, image=busybox, name=box" in line])
    assert len(told(tool, "event=exec_start")) == 2
    tool("exec", "-d", "box", "sleep", "1000")
    tool("rm", "-f", "box")
    eventually(lambda: len(told(tool, "event=exec_die")) == 2)


def test_what_happens_to_images(tool, tmp_path):
    id = tool("images", "-q", "--no-trunc").out.strip()
    tool("tag", "busybox", "one:1")
    tool("save", "-o", str(tmp_path / "saved.tar"), "busybox", "one:1")
    tool("rmi", "one:1")
    tool("rmi", "busybox")
    tool("load", "-q", "-i", str(tmp_path / "saved.tar"))
    (tmp_path / "empty.tar").write_bytes(bytes(10240))
    made = tool("import", "-c", "LABEL k=v", str(tmp_path / "empty.tar"), "made:1").out.strip()
    tool("tag", "one:1", "made:1")
    tool("image", "prune", "-f")
    tool("container", "prune", "-f")
    expected = ["image tag name=one:1", f"image save name={id}", f"image untag name={id}", f"image untag name={id}",
                f"image delete name={id}", f"image load name={id}",
                "image tag k=v, name=made:1", f"image import k=v, name={made}", "image tag name=made:1",
                f"image delete name={made}", "image prune reclaimed=0", "container prune reclaimed=0"]
    lines = [re.sub("reclaimed=.*", "reclaimed=0", line) for line in told(tool)]
    assert lines[-len(expected):] == expected
    assert told(tool, "label=k=v", "event=import") == told(tool, f"image={made}", "event=import") != []
    assert told(tool, "image=one", "event=tag") == told(tool, "image=one:1") == ["image tag name=one:1"]
    assert told(tool, "label=k=v", "label=no") == told(tool, "scope=swarm") == told(tool, "volume=x") == []
    line = tool("events", "--since", "1h", "--until", "0s", "-f", "type=container", "--format", "json").out
    assert line.startswith('{"status":"prune","Type":"container","Action":"prune","Actor":{"ID":"","Attributes":{"recl')


@pytest.mark.leaves("an empty directory of the store, for what a pull had begun")
def test_a_pull_and_a_push_are_told_of_the_reference(tool):
    with played_registry.Registry() as registry:
        name = f"{registry.host}/lab"
        registry.add("lab", "1", images.layer(images.entry("file", content=b"x")))
        for _ in range(2):
            tool("pull", "-q", f"{name}:1")
        tool("push", "-q", f"{name}:1")
    shown = tool("events", "--since", "1h", "--until", "0s", "-f", f"image={name}", "--format",
                 "{{.Action}} {{.ID}} {{.Actor.Attributes.name}}").out
    assert shown == f"pull {name}:1 {name}\npull {name}:1 {name}\npush {name}:1 {name}\n"


def test_out_of_memory_comes_before_the_end(tool):
    tool("run", "--name", "box", "-m", "8m", "busybox", "sh", "-c",
         "x=$(cat /dev/zero | head -c 60000000 | tr '\\0' x); echo $x | wc -c", status=137)
    names = [line.split()[1] for line in told(tool, "container=box")]
    assert names == ["create", "attach", "start", "oom", "die"]


def test_a_lost_monitor_is_told_by_whoever_repairs(tool, eventually):
    id = tool.up("--name", "box", "busybox", "sleep", "100")
    running = tool.run_root() / "containers" / id / "running.json"
    os.kill(json.loads(running.read_text())["monitor"]["pid"], 9)
    eventually(lambda: "monitor lost" in tool("ps", "-a").out)
    tool("start", "box")
    assert "container die exitCode=137, image=busybox, name=box" in told(tool)


def test_formats(tool):
    id = tool("create", "--name", "box", "--label", "k=v", "busybox").out.strip()
    base = ("events", "--since", "1h", "--until", "0s", "--filter", "type=container", "--format")
    line = json.loads(tool(*base, "json").out)
    assert line == {
        "status": "create", "id": id, "from": "busybox", "Type": "container", "Action": "create",
        "Actor": {"ID": id, "Attributes": {"image": "busybox", "k": "v", "name": "box"}}, "scope": "local",
        "time": line["timeNano"] // 10**9, "timeNano": line["timeNano"]}
    assert tool(*base, "{{json .}}").out == tool(*base, "json").out
    shown = tool(*base, "{{.Action}} {{.Type}} {{.ID}} {{.From}} {{.Actor.Attributes.name}} {{.Status}} {{.Scope}}").out
    assert shown == f"create container {id} busybox box create local\n"
    wrong = tool(*base, "{{.Nosuch}}", status=64).err
    assert wrong.startswith("minirt: Error parsing format: template: :1:2: executing \"\" at <.Nosuch>: can't evaluate")
    wrong = tool(*base, "{{range}}", status=64).err
    assert wrong == "minirt: Error parsing format: template: :1: missing value for range\n"
    assert "invalid filter" in tool("events", "--filter", "colour=red", status=1).err


def test_it_follows_a_log_that_grows_and_begins_anew(tool, eventually, tmp_path):
    log = tool.root + "/events.log"
    with open(tmp_path / "out", "wb") as out:
        watcher = tool.start("events", "--format", "{{.Action}} {{.Actor.Attributes.name}}", stdout=out)
    try:
        for name in ("one", "two", "three"):

            def is_seen(name: str = name) -> bool:
                tool("rm", "-f", name, status=None)  # once more, while the watcher is still starting
                tool("create", "--name", name, "busybox")
                return f"create {name}\n" in (tmp_path / "out").read_text()

            eventually(is_seen)
            os.rename(log, log + ".1")
    finally:
        watcher.kill()
        watcher.wait()
        os.unlink(log + ".1")

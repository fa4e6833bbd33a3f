"""What must be there before somebody can look: the order in which a container's life shows itself."""

from __future__ import annotations

import fcntl
import json
import os
import select
import time
from pathlib import Path

import pytest

from minirt import events, state
from tests.run.test_run_terminal import screen  # noqa: F401

pytestmark = pytest.mark.caged


def look(condition, seconds=10.0):
    """Asks without a pause until something is there, so as to be as early as anybody can."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come true in time"
    return value


def test_a_container_counts_as_running_only_behind_its_walls(tool):
    starting = tool.start("run", "--rm", "--name", "box", "busybox", "sleep", "60")
    places = tool.run_root() / "containers"
    pid = look(lambda: [json.loads(path.read_text())["pid"]["pid"] for path in places.glob("*/running.json")])[0]
    own, namespace = os.stat(f"/proc/{pid}/root"), os.stat(f"/proc/{pid}/ns/pid_for_children")
    assert not os.path.samestat(own, os.stat("/")), "exec would have run a command in the machine's own root"
    assert not os.path.samestat(namespace, os.stat("/proc/self/ns/pid"))
    tool("rm", "-f", "box")
    assert starting.wait(10) == 137


def test_whoever_sees_it_running_can_call_its_monitor(tool):
    starting = tool.start("run", "--name", "box", "busybox", "sleep", "60")
    places = tool.run_root() / "containers"
    look(lambda: list(places.glob("*/running.json")))
    assert list(places.glob("*/socket")), "wait would have taken it for one that has ended"
    tool("kill", "box")
    assert starting.wait(10) == 137


def test_whoever_hears_of_its_end_can_read_how_it_ended(tool):
    id = tool("create", "--name", "box", "busybox", "sh", "-c", "exit 3").out.strip()
    starting = tool.start("start", "box")
    log = Path(tool.root) / "events.log"
    look(lambda: b'"die"' in log.read_bytes())
    outcome = Path(tool.root) / "containers" / id / "outcome.json"
    assert outcome.exists(), "inspect would have said that it still runs"
    assert json.loads(outcome.read_text())["code"] == 3
    assert starting.wait(10) == 0


def test_the_terminal_is_raw_before_the_first_word(tool, screen):  # noqa: F811
    shown = screen("run", "--rm", "-it", "busybox", "sh", "-c", "echo word; sleep 60")
    shown.read(b"word")
    assert shown.raw(), "keys that were typed now would be the machine's"
    tool("kill", tool("ps", "-q").out.strip())


def test_the_terminal_is_raw_before_an_attached_container_is_heard(tool, screen):  # noqa: F811
    tool.up("--name", "box", "-it", "busybox", "sh", "-c", "while echo word; do sleep 0.01; done")
    shown = screen("attach", "box")
    shown.read(b"word")
    assert shown.raw(), "the keys by which one leaves would be the machine's"


def test_a_window_may_change_its_size_when_the_program_has_closed_its_terminal(tool, screen, eventually):  # noqa: F811
    shown = screen("run", "--name", "box", "-it", "-v", f"{tool.root}:/store", "busybox", "sh", "-c",
                   "echo word; exec < /dev/null > /store/closed 2>&1; sleep 1; echo lives; sleep 60")
    shown.read(b"word")
    eventually(lambda: os.path.exists(f"{tool.root}/closed"))
    shown.resize(20, 60)
    eventually(lambda: Path(f"{tool.root}/closed").read_text() == "lives\n")
    shown.resize(21, 61)
    assert tool("exec", "box", "echo", "on").out == "on\n"
    os.unlink(f"{tool.root}/closed")


def test_who_looks_at_a_lock_does_not_hold_it(tmp_path):
    path = str(tmp_path / "lock")
    assert not state.locked(path)
    with open(path, "w") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # somebody looks at the same moment
        assert not state.locked(path)
    with state.Lock(path):
        assert state.locked(path)


def test_many_starts_leave_no_descriptor_behind(tool, eventually):
    names = [f"box{number}" for number in range(6)]
    for name in names:
        tool("create", "--name", name, "busybox", "sleep", "60")
    tool("start", *names)
    running = [tool.run_root() / "containers" / tool.inspect(name)["Id"] / "running.json" for name in names]
    monitors = [json.loads(path.read_text())["monitor"]["pid"] for path in running]
    # A monitor tells that the container runs, and then lets go of the command: so wait. A later one that has the
    # descriptors of an earlier one keeps them.
    eventually(lambda: len({len(os.listdir(f"/proc/{monitor}/fd")) for monitor in monitors}) == 1)
    tool("kill", *names)


def test_of_two_who_find_the_event_log_full_one_puts_it_aside(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIRT_ROOT", str(tmp_path))
    monkeypatch.setattr(events, "_LIMIT", 100)
    path = str(tmp_path / "events.log")
    full = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(full, b"x" * 101)
    os.rename(path, path + ".1")  # somebody else was quicker
    events._begin_anew(full, path)
    Path(path).write_text("fresh")
    events._begin_anew(full, path)
    assert Path(path).read_text() == "fresh"
    os.close(full)


def test_exec_loses_nothing_when_its_output_is_full_and_does_not_block(tool):
    tool.up("--name", "box", "busybox", "sleep", "60")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # a description is shared by all who inherited it
    command = tool.start("exec", "box", "sh", "-c", "yes | head -c 300000; exit 7", stdout=writing)
    look(lambda: not select.select([], [writing], [], 0)[1])
    os.close(writing)
    count = 0
    while data := os.read(reading, 1 << 16):
        count += len(data)
    os.close(reading)
    assert (count, command.wait(10)) == (300000, 7)


def test_what_never_came_to_be_is_not_told_as_destroyed(tool):
    def told() -> list[str]:
        words = ("--since", "1h", "--until", "0s", "--filter", "type=container", "--format", "{{.Action}}")
        return tool("events", *words).out.split()

    tool("create", "--name", "box", "busybox")
    for command in ("create", "run"):
        assert "is already in use" in tool(command, "--name", "box", "busybox", status=125).err
    assert told() == ["create"]
    tool("rm", "box")
    assert told() == ["create", "destroy"]


def test_a_layer_that_is_put_aside_for_a_moment_is_waited_for(tool):
    """Whoever prunes renames a layer, sees its pins, and renames it back."""
    [diff] = Path(tool.root).glob("layers/*/diff")
    layer, aside = diff.parent, diff.parent.parent / f"dead-{diff.parent.name}"
    layer.rename(aside)
    started = tool.start("run", "--rm", "busybox", "echo", "here")
    time.sleep(0.3)
    assert not layer.exists(), "a pin must not make again what it is to hold"
    aside.rename(layer)
    out, _ = started.communicate(timeout=20)
    assert (started.returncode, out) == (0, b"here\n")
    assert tool.left() == []


def test_a_layer_that_is_lost_is_told_with_its_cure(tool):
    [diff] = Path(tool.root).glob("layers/*/diff")
    aside = Path(tool.root) / "aside"
    diff.parent.rename(aside)
    assert "minirt system check --repair" in tool("run", "busybox", "true", status=125).err
    assert tool.left() == []
    aside.rename(diff.parent)
    tool("run", "--rm", "busybox", "true")

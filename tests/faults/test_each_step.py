"""Kill a process of minirt at *each* step that `minirt --explain` tells: the next command repairs, nothing is left.

The steps are taken from the narration of a real command, so a new step is covered by itself. To be exact, the command
is started with `trace.step` replaced by one that kills when a step's turn comes, in the moment before it is made. Three
processes can be killed: the command, the container's monitor, and the child that becomes the container's process.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.remains import Remains
from chapters import contents
from tests.faults.kit import Store

pytestmark = [pytest.mark.caged, pytest.mark.limit(300), pytest.mark.memory(2048),
              pytest.mark.leaves("nothing_left looks more closely")]

START = f"""
import os, sys
sys.path.insert(0, {str(contents.ROOT)!r})
from minirt import trace
place, number, victim, log = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
del sys.argv[1:5]
command, tell, told = os.getpid(), trace.step, dict.fromkeys(("command", "monitor", "child"), 0)

def step(chapter, text, call=""):
    here = "command" if os.getpid() == command else "child" if trace._descriptor == 3 else "monitor"
    told[here] += 1
    if log != "-" and here != "child":
        with open(log, "a") as file:
            passed_on = sys._getframe(1).f_code.co_name == "_read"
            print(here, "passed on" if passed_on else "own", text, sep="\\t", file=file)
    if (here, told[here]) == (place, number):
        if victim.isdigit():
            os.kill(int(victim), 9)
        elif here == "child":
            import ctypes
            ctypes.string_at(0)  # number 1 of a pid namespace cannot kill itself, but such a fault does
        else:
            os.kill(os.getpid() if here == victim else os.getppid(), 9)
    tell(chapter, text, call)

trace.step = step
from minirt.__main__ import main
main()
"""


class Steps:
    """A command, the steps that it tells, and the ways to kill one of its processes at each of them."""

    def __init__(self, store: Store, log: Path, *words: str) -> None:
        self.store, self.words = store, words
        done = self.start("nowhere", 0, "nobody", str(log))
        assert done.returncode == 0, done.stderr
        self.told = [tuple(line.split("\t")) for line in log.read_text().splitlines()]
        printed = [line for line in done.stderr.splitlines() if "  ch " in line]
        # With --rm the monitor may tell of a last step when the command has gone.
        assert 6 < len(printed) <= len(self.told) <= len(printed) + 2, "what is recorded is not what --explain prints"

    def start(self, place: str, number: int, victim: str, log: str = "-") -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-B", "-c", START, place, str(number), victim, log, "--explain", *self.words]
        return subprocess.run(words, env=self.store.environment, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=30, check=False)

    def points(self, teller: str) -> list[tuple[int, str]]:
        """(number, sentence) of each step that this process tells; the child's come to whoever passes them on."""
        if teller == "child":
            texts = [text for _, how, text in self.told if how == "passed on"]
        else:
            texts = [text for who, _, text in self.told if who == teller]
        return list(enumerate(texts, 1))


def repaired(store: Store, remains: Remains) -> str:
    """What later commands did not put right; empty when all is well."""
    store("ps", "-a")
    store("rm", "-f", "victim", status=None)
    if store.names("names") - {"witness", "box"}:
        return f"names left: {store.names('names')}"
    if store("run", "--rm", "--name", "victim", "busybox", "echo", "alive").stdout != "alive\n":
        return "no new container of the same name"
    return ", ".join(remains.more())


RUNS = {"kept": ("run", "--name", "victim", "busybox", "true"),
        "removed": ("run", "--rm", "--name", "victim", "busybox", "true")}


@pytest.mark.parametrize("kind", RUNS)
def test_run_is_killed_at_each_step(
        store: Store, nothing_left: Callable[[], None], tmp_path: Path, kind: str) -> None:
    """All steps of a run whose container is kept; of one with --rm those that the other does not have."""
    steps = Steps(store, tmp_path / "log", *RUNS[kind])
    store("rm", "-f", "victim", status=None)
    known = set()
    if kind == "removed":
        other = Steps(store, tmp_path / "other", *RUNS["kept"])
        store("rm", "-f", "victim")
        known = {text.split("/")[0] for _, _, text in other.told}
    remains, bad, survived, half_done = Remains(store.root), [], 0, 0
    for teller, victim in (("command", "command"), ("monitor", "monitor"), ("monitor", "command"), ("child", "child")):
        for number, text in steps.points(teller):
            if text.split("/")[0] in known:
                continue
            survived += steps.start(teller, number, victim).returncode == 0
            half_done += any(not path.joinpath("config.json").exists() for path in store.root.glob("containers/*"))
            half_done += any(store.run_root.glob("containers/*/running.json"))
            if wrong := repaired(store, remains):
                bad.append(f"{victim} killed when {teller} says {number}, {text!r}: {wrong}")
                remains = Remains(store.root)
    assert bad == []
    assert survived <= 2, "only the last of the monitor's steps come when the command has its exit code already"
    assert kind != "kept" or half_done > 20, "there was nothing to repair: did anybody die?"
    nothing_left()


def test_exec_is_killed_at_each_step(store: Store, nothing_left: Callable[[], None], tmp_path: Path) -> None:
    remains = Remains(store.root)

    def up() -> str:
        store("run", "-d", "--name", "box", "busybox", "sleep", "1000")
        first = int(store("inspect", "-f", "{{.State.Pid}}", "box").stdout)
        return Path(f"/proc/{first}/stat").read_text().rpartition(") ")[2].split()[1]

    monitor = up()
    steps = Steps(store, tmp_path / "log", "exec", "box", "true")
    running, bad = Remains(store.root), []
    for teller in ("command", "child"):
        for number, text in steps.points(teller):
            assert steps.start(teller, number, teller).returncode != 0
            if store("exec", "box", "echo", "alive").stdout != "alive\n" or (left := running.more()):
                bad.append(f"{teller} killed at {number}, {text!r}: {left}")
                running = Remains(store.root)
    for number, text in steps.points("command"):
        steps.start("command", number, monitor)
        store("rm", "-f", "box")
        if left := remains.more():
            bad.append(f"monitor killed when the command says {number}, {text!r}: {left}")
        monitor = up()
    store("rm", "-f", "box")
    assert bad == []
    nothing_left()

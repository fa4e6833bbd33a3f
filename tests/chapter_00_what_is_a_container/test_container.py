"""Chapter 00: what its page says about a container, asked from inside and from outside."""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parents[2] / "chapters" / "00-what-is-a-container"
ROW = re.compile(
    r"^\| (?P<what>[^|]+) \| `(?P<command>(?:[^`|]|\\\|)+)` \| (?P<verdict>shared|isolated) \|", re.MULTILINE
)


def load(name: str) -> ModuleType:
    """A program of the chapter as a module."""
    spec = importlib.util.spec_from_file_location(f"chapter_00_{name}", HERE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


box = load("container")


@pytest.fixture
def pid() -> Iterator[int]:
    """The first process of an idle container, as it is numbered out here."""
    parent, number = box.start(["cat"])
    settle(lambda: command_of(number) == "cat")  # the shell that built the root becomes cat
    yield number
    parent.communicate(timeout=5)


def command_of(pid: int) -> str:
    """What the kernel calls a process."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def settle(condition: Callable[[], bool], seconds: float = 2) -> None:
    """Wait until a condition holds, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come to this"
        time.sleep(0.005)


def table() -> list[tuple[str, str, str]]:
    """The rows of the page's table: what, the question, shared or isolated."""
    rows = ROW.finditer((HERE / "README.md").read_text())
    return [(row["what"], row["command"].replace("\\|", "|"), row["verdict"]) for row in rows]


def test_the_page_asks_what_the_program_asks() -> None:
    assert table() == list(box.LOOK)


@pytest.mark.parametrize(("what", "command", "verdict"), table(), ids=[row[0].replace(" ", "-") for row in table()])
def test_each_row_of_the_table_is_true(what: str, command: str, verdict: str, pid: int) -> None:
    outside, inside = box.ask(command), box.ask(command, pid)
    assert inside, f"{what}: {command!r} answers nothing in there"
    if verdict == "shared":
        assert inside == outside, f"{what} is said to be shared, but the answers differ"
    else:
        assert inside != outside, f"{what} is said to be isolated, but the answers are the same"


def test_a_container_is_a_process_of_the_machine(pid: int) -> None:
    assert command_of(pid) == "cat"
    assert int(Path(f"/proc/{pid}/status").read_text().split("NSpid:")[1].split("\n")[0].split()[-1]) == 1


def test_a_container_cannot_see_the_machine_s_processes(pid: int) -> None:
    commands = box.ask("cat /proc/[0-9]*/comm", pid).split("\n")
    assert "cat" in commands
    assert command_of(os.getpid()) not in commands


def test_a_name_set_in_there_stays_in_there(pid: int) -> None:
    before = os.uname().nodename
    box.ask("hostname elsewhere", pid)
    assert box.ask("uname -n", pid) == "elsewhere"
    assert os.uname().nodename == before


def test_a_container_has_no_kernel_no_drivers_no_init(pid: int) -> None:
    assert box.ask("ls /boot /lib/modules", pid) == ""
    assert box.ask("ls /dev", pid) == "null"
    assert box.ask("cat /proc/1/comm", pid) == "cat", "its first process is its program, not an init"


def test_the_machine_s_programs_cannot_be_changed_from_inside(pid: int) -> None:
    assert box.ask("touch /usr/mine 2>/dev/null || echo refused", pid) == "refused"
    assert not os.path.exists("/usr/mine")


def test_a_container_ends_with_its_first_process() -> None:
    parent, pid = box.start(["sh", "-c", "sleep 100 & read line"])
    settle(lambda: len(residents(pid)) == 2)
    two = residents(pid)
    parent.communicate("\n", timeout=5)
    assert not [number for number in two if os.path.exists(f"/proc/{number}")]


def residents(first: int) -> list[int]:
    """The processes that live in the same pid namespace as another."""

    def home(pid: int) -> str:
        try:
            return os.readlink(f"/proc/{pid}/ns/pid")
        except OSError:
            return ""

    return [int(name) for name in os.listdir("/proc") if name.isdigit() and home(int(name)) == home(first) != ""]


def test_container_py_runs_a_command_in_there(container) -> None:  # type: ignore[no-untyped-def]
    done = container("sh", "-c", "hostname; exit 7")
    assert (done.status, done.stdout) == (7, "box\n")


def test_container_py_looks_from_outside(container) -> None:  # type: ignore[no-untyped-def]
    done = container()
    assert done.status == 0
    assert re.search(r"^process \d+ out here is process 1 in there$", done.stdout, re.MULTILINE)
    verdicts = [line.split()[-1] for line in done.stdout.splitlines()[-len(box.LOOK) :]]
    assert verdicts == [verdict for _, _, verdict in box.LOOK]


def test_what_can_be_measured_here_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    measure = load("measure")
    monkeypatch.setattr(measure, "find_kernel", lambda: None)  # the virtual machine has a test of its own
    rows = {row.split("|")[1].strip().split(",")[0]: row for row in measure.table()}
    assert measure.process() < measure.container() < 5
    assert measure.container_memory() < 50_000_000
    assert "ms" in rows["a container"] and "B in use" in rows["this machine's whole system"]

"""Measuring in turns: every program once, then every program again, so that a busy minute hits all alike.

What is timed is the whole process, from before its fork to after its end was collected.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Runner:
    """One of the programs that take turns. `command`: its words, or what gives them for the round of that number."""

    name: str
    command: Sequence[str] | Callable[[int], Sequence[str]]
    environment: dict[str, str] = field(default_factory=dict)
    after: Callable[[int], None] | None = None  # called between the turns, not timed
    enter: Callable[[], None] | None = None     # called in the child before the exec
    milliseconds: list[float] = field(default_factory=list)
    problem: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)


def timed(runner: Runner, number: int, errors: int) -> float:
    """Run it once; return milliseconds. Raises RuntimeError with what it wrote when it fails."""
    words = list(runner.command(number) if callable(runner.command) else runner.command)
    environment = {**os.environ, **runner.environment}
    os.ftruncate(errors, 0)
    begin = time.perf_counter()
    pid = os.fork()
    if not pid:
        try:
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            os.dup2(errors, 2)
            if runner.enter:
                runner.enter()
            os.execvpe(words[0], words, environment)
        except OSError as error:
            os.write(errors, f"{words[0]}: {error}".encode())
        finally:
            os._exit(127)
    _, status = os.waitpid(pid, 0)
    taken = (time.perf_counter() - begin) * 1000
    if status:
        text = os.pread(errors, 4096, 0).decode(errors="replace").strip().splitlines()
        code = os.waitstatus_to_exitcode(status)
        raise RuntimeError(f"{' '.join(words[:4])} ...: status {code}: {' '.join(text[-2:])}")
    return taken


def take_turns(runners: Sequence[Runner], rounds: int, cores: int = 0) -> list[Runner]:
    """Run them `rounds` times in turns, after one that does not count; with `cores` all on that many cores.

    One that fails drops out and keeps the reason in `problem`. Returns those that have figures.
    """
    errors = os.memfd_create("errors", os.MFD_CLOEXEC)
    all_cores = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, sorted(all_cores)[:cores])
    try:
        for number in range(-1, rounds):
            for runner in runners:
                if runner.problem:
                    continue
                try:
                    taken = timed(runner, number, errors)
                    if runner.after:
                        runner.after(number)
                except (OSError, RuntimeError) as error:
                    runner.problem = str(error)
                    continue
                if number >= 0:
                    runner.milliseconds.append(taken)
    finally:
        os.sched_setaffinity(0, all_cores)
        os.close(errors)
    return [runner for runner in runners if not runner.problem and runner.milliseconds]


def table(runners: Sequence[Runner], peer: str, unit: str = "ms") -> str:
    """A Markdown table: median, quartiles, and the ratio to the peer of that name."""
    divisor = 1000.0 if unit == "s" else 1.0
    base = next((runner.median for runner in runners if runner.name == peer and runner.milliseconds), 0.0)
    lines = [f"| | median {unit} | quarter to three quarters | of {peer} |", "|---|---:|---:|---:|"]
    for runner in runners:
        if runner.problem or not runner.milliseconds:
            lines.append(f"| {runner.name} | - | {runner.problem.replace('|', '/')[:120]} | - |")
            continue
        values = [value / divisor for value in runner.milliseconds]
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
        ratio = f"{runner.median / base:.2f}" if base else "-"
        lines.append(f"| {runner.name} | {statistics.median(values):.1f} | {low:.1f} - {high:.1f} | {ratio} |")
    return "\n".join(lines) + "\n"

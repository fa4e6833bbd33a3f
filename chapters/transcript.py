"""Run the shell transcripts of a page, in a cage, and compare.

    python -m chapters.transcript PAGE...        as root

The shell reads its commands from a terminal without echo and writes to a pipe. A terminal hands out one line at a time,
so a shell that a command starts (`unshare ... sh`) gets the next lines, and the outer one goes on after `exit`.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from chapters import cage, contents, pages
from chapters.pages import Command

COMMANDS = "/run/minirt-workshop/bin"  # in the cage's own /run
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIMIT = 10.0  # seconds a command may take
DONE = "-- end of output 5f1c --"


@dataclasses.dataclass(frozen=True)
class Difference:
    """A command that printed something else than the page says."""

    command: Command
    found: tuple[str, ...]

    def __str__(self) -> str:
        def block(lines: Sequence[str]) -> str:
            return "\n".join("    " + line for line in lines) or "    (nothing)"

        return (
            f"line {self.command.line}: {self.command.text}\n  the page says:\n{block(self.command.expected)}\n"
            f"  it printed:\n{block(self.found)}"
        )


def run_page(path: Path, root: Path = contents.ROOT) -> list[Difference]:
    """Run the transcripts of a page that this kernel can, each `new` one in a cage of its own. Returns where page and
    shell differ.

    Root only. Raises PageError for a wrong marker, CageError where no cage can be made or it was ended."""
    sessions: list[list[Command]] = []
    for each in pages.transcripts(path.read_text(), path):
        if each.new or not sessions:
            sessions.append([])
        if each.runs_on(os.uname().release):
            sessions[-1] += each.commands

    differences: list[Difference] = []
    for commands in filter(None, sessions):

        def inside(commands: list[Command] = commands) -> list[tuple[int, tuple[str, ...]]]:
            return [(commands.index(each.command), each.found) for each in compare(commands, root)]

        seconds = LIMIT * (1 + len(commands))
        outcome = cage.call(inside, limits=cage.Limits(seconds=seconds))
        differences += [Difference(commands[index], tuple(found)) for index, found in outcome.result()]
    return differences


def environment(root: Path = contents.ROOT) -> dict[str, str]:
    """The environment of the project's shell; makes the directory of its commands, so call it inside the cage."""
    os.makedirs(COMMANDS, exist_ok=True)
    command = Path(COMMANDS, "minirt")
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -B -m minirt "$@"\n')
    command.chmod(0o755)
    kept = {name: os.environ[name] for name in ("MINIRT_ROOT", "TMPDIR", "TERM") if name in os.environ}
    return {
        "TERM": "dumb",
        **kept,
        "PATH": f"{COMMANDS}:{os.path.dirname(sys.executable)}:{SYSTEM_PATH}",
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/root",
        "USER": "root",
        "LANG": "C.UTF-8",
        "PS1": "# ",
    }


def compare(commands: Iterable[Command], root: Path = contents.ROOT) -> list[Difference]:
    """Run commands one after another in one shell. Returns those whose output is not the expected one."""
    differences = []
    with Shell(root) as shell:
        for command in commands:
            found = shell.run(command.text)
            if not matches(command.expected, found):
                differences.append(Difference(command, found))
    return differences


class Shell:
    """A root shell that keeps its state from command to command."""

    def __init__(self, root: Path = contents.ROOT) -> None:
        self._terminal, slave = pty.openpty()
        settings = termios.tcgetattr(slave)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        self._output, end = os.pipe()
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], stdin=slave, stdout=end, stderr=end,
            cwd=root, env=environment(root), start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        os.close(end)

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._terminal)
        try:
            self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._output)

    def run(self, text: str) -> tuple[str, ...]:
        """Type a command. Returns the lines it printed, and one in brackets where it did not end or ended the shell."""
        os.write(self._terminal, f"{text}\necho; echo '{DONE}'\n".encode())
        data, deadline, end = b"", time.monotonic() + LIMIT, ""
        mark = f"\n{DONE}\n".encode()
        while not data.endswith(mark):
            ready, _, _ = select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                end = f"(it had not ended after {LIMIT:.0f} seconds)"
                break
            chunk = os.read(self._output, 65536)
            if not chunk:
                end = "(the shell has ended)"
                break
            data += chunk
        lines = data.removesuffix(mark).decode(errors="replace").split("\n")
        return (*_trimmed(lines), end) if end else _trimmed(lines)


def matches(expected: Sequence[str], found: Sequence[str]) -> bool:
    """Whether lines of output are as a page says: '...' is any text within a line, any number of lines when alone."""
    want, have = _trimmed(expected), _trimmed(found)

    @functools.cache
    def rest(i: int, j: int) -> bool:
        if i == len(want):
            return j == len(have)
        if want[i].strip() == "...":
            return any(rest(i + 1, k) for k in range(j, len(have) + 1))
        return j < len(have) and _line_matches(want[i], have[j]) and rest(i + 1, j + 1)

    return rest(0, 0)


def _line_matches(want: str, have: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in want.split("...")), have) is not None


def _trimmed(lines: Sequence[str]) -> tuple[str, ...]:
    kept = [line.rstrip() for line in lines]
    while kept and not kept[-1]:
        kept.pop()
    return tuple(kept)


def main(arguments: Sequence[str]) -> int:
    """Run the transcripts of pages; 0 when every page says the truth, 1 when one does not."""
    wrong = 0
    for name in arguments:
        differences = run_page(Path(name))
        for each in differences:
            print(f"{name}, {each}\n")
        wrong += len(differences)
        if not differences:
            print(f"{name}: as the page says")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

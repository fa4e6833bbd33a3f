"""The magics of the book's notebooks: cells that run in a cage.

`%load_ext chapters.notebook` gives a notebook

    %%cage                  the cell is a Python program, run in the notebook's cage
    %%cage bash             the cell is a shell script, run there
    %cage new               leave the cage and take a fresh one at the next cell

The notebook's own process stays what it is: an ordinary user's, in the machine's own namespaces. Only a child enters
the cage, as root, through the launcher chapters/cage.py, which raises itself with sudo and says what to do where it
cannot.

One cage is held for the whole notebook: a file written, a host name set, a mount made in its mount namespace, a process
left running in the background are still there in the next cell. Each cell is a process of its own, though: Python
variables do not go from one `%%cage` cell to the next. Options:

    --out NAME[,NAME]       hand these variables of a Python cell to the notebook (as JSON: numbers, texts, lists, ...)
    --time SECONDS          end the cell after that time (default 20)
    --may-fail              a cell that fails on purpose does not stop the notebook

A cell that fails raises CellFailed, so that a notebook that runs from top to bottom also worked. The cage ends with the
notebook's kernel: its launcher holds a pipe whose other end dies with us.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# In a cell `python` is this interpreter and `minirt` the checkout's; the rest is the system's, as for root.
PATH = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSWORD = "a cage needs root: start the notebook as root (sudo make notebook), or let sudo ask you for no password"
SIGN = "\x1evariables "  # begins the line in which a cell's variables travel; no program prints a record separator

# Runs a cell's text: argv is the text and the names to hand out. The frames of this little program do not belong into
# a reader's traceback, hence the first two entries are cut off.
PYTHON = f"""
import json, linecache, sys, traceback
text, names = sys.argv[1], [name for name in sys.argv[2].split(',') if name]
linecache.cache['cell'] = (len(text), None, text.splitlines(True), 'cell')
here = {{'__name__': '__main__'}}
try:
    exec(compile(text, 'cell', 'exec'), here)
    sys.stdout.flush()
    if names:
        print({SIGN!r} + json.dumps({{name: here[name] for name in names}}), flush=True)
except SystemExit:
    raise
except BaseException as error:
    sys.stdout.flush()
    traceback.print_exception(type(error), error, error.__traceback__.tb_next)
    sys.exit(1)
"""


class CellFailed(Exception):
    """A cell in the cage ended with a status other than 0; the text says which."""

    def _render_traceback_(self) -> list[str]:
        """IPython asks this: the reader needs our sentence, not our frames."""
        return [f"CellFailed: {self}"]


class HeldCage:
    """A cage that stays until `close()` or until this process ends."""

    def __init__(self) -> None:
        """Start it. Raises CellFailed with the launcher's sentence where no cage can be made."""
        self._launcher = subprocess.Popen(
            launcher("--hold"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self._launcher.stdout is not None and self._launcher.stderr is not None
        self.id = self._launcher.stdout.readline().strip()
        if not self.id:
            said = self._launcher.stderr.read().strip() or "the cage could not be made"
            raise CellFailed(said + (f"\n{PASSWORD}" if said.startswith("sudo:") else ""))

    def run(self, command: list[str], seconds: float) -> tuple[int, dict[str, Any]]:
        """Run a command in the cage; what it prints appears at once.

        seconds: how long it may take; then it is ended and the status is 124. Returns the status and the variables
        that the command handed out. A process that it left running in the background does not delay the return.
        """
        limit = ["timeout", "--kill-after=1", f"{seconds:g}"]  # in there: only root may end what root started
        child = subprocess.Popen(
            launcher("--in", self.id, "--", "env", f"PATH={PATH}", f"PYTHONPATH={ROOT}", *limit, *command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
        variables = show(child)
        return child.wait(), variables

    def close(self) -> None:
        """End the cage and everything in it."""
        if self._launcher.stdin is not None:
            self._launcher.stdin.close()
        try:
            self._launcher.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._launcher.kill()
            self._launcher.wait()


def launcher(*arguments: str) -> list[str]:
    """The command line of the cage's launcher, with the interpreter that runs this notebook."""
    return [sys.executable, "-m", "chapters.cage", *arguments]


def show(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Print what a child prints, line by line, until it has ended, and take the variables out of it."""
    assert child.stdout is not None
    variables: dict[str, Any] = {}
    begun = b""
    ended = False
    while not ended:
        over = child.poll() is not None  # asked before we look: what it wrote before its end is then already there
        if select.select([child.stdout], [], [], 0 if over else 0.05)[0]:
            chunk = os.read(child.stdout.fileno(), 65536)
            ended = not chunk
        else:
            chunk, ended = b"", over
        *lines, begun = (begun + chunk).split(b"\n")
        if ended and begun:
            lines.append(begun)
        for line in (each.decode(errors="replace") for each in lines):
            if line.startswith(SIGN):
                variables |= json.loads(line[len(SIGN) :])
            else:
                print(line, flush=True)
    child.stdout.close()
    return variables


class Cages:
    """The magics of one notebook, and the cage that it holds."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.held: HeldCage | None = None
        self.lock = threading.Lock()

    def close(self) -> None:
        """Let go of the cage, if one is held."""
        with self.lock:
            if self.held is not None:
                self.held.close()
                self.held = None

    def line(self, line: str) -> None:
        """%cage new"""
        if line.strip() != "new":
            raise CellFailed("%cage knows one word, new; a cell that runs in the cage begins with %%cage")
        self.close()

    def cell(self, line: str, cell: str) -> None:
        """%%cage [bash] [--out NAMES] [--time SECONDS] [--may-fail]"""
        words, names, seconds, bash, may_fail = line.split(), "", 20.0, False, False
        while words:
            word = words.pop(0)
            if word == "bash":
                bash = True
            elif word == "--may-fail":
                may_fail = True
            elif word in ("--out", "--time") and words:
                value = words.pop(0)
                names, seconds = (value, seconds) if word == "--out" else (names, float(value))
            else:
                raise CellFailed(f"%%cage does not know {word!r}: [bash] [--out NAMES] [--time SECONDS] [--may-fail]")
        with self.lock:
            self.held = self.held or HeldCage()
        command = ["bash", "-c", cell] if bash else [sys.executable, "-u", "-c", PYTHON, cell, names]
        status, variables = self.held.run(command, seconds)
        self.shell.user_ns.update(variables)
        if status and not may_fail:
            late = f" (not finished after {seconds:g} s)" if status == 124 else ""
            raise CellFailed(f"the cell ended with status {status}{late}")
        if may_fail:
            print(f"(status {status})")


def load_ipython_extension(shell: Any) -> None:
    """IPython calls this for %load_ext."""
    if os.fspath(ROOT) not in sys.path:
        sys.path.insert(0, os.fspath(ROOT))
    cages = Cages(shell)
    shell.register_magic_function(cages.cell, "cell", "cage")
    shell.register_magic_function(cages.line, "line", "cage")
    atexit.register(cages.close)


def execute(book: Any, seconds: int = 120) -> None:
    """Run a whole notebook from top to bottom, in place: its outputs are then in it.

    book: a notebook as nbformat reads it. seconds: what one cell may take. Its kernel is reached by unix sockets, so
    that no network is needed. Raises nbclient's CellExecutionError at the first cell that fails.
    """
    import tempfile

    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory(prefix="minirt-kernel-") as directory:
        where = {"metadata": {"path": os.fspath(ROOT / "notebooks")}}
        client = NotebookClient(book, timeout=seconds, kernel_name="python3", resources=where)
        manager = client.create_kernel_manager()
        manager.transport, manager.ip = "ipc", f"{directory}/socket"
        client.execute()

"""`-t`: the container has a terminal, the user's becomes raw and is given back however the command ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.caged


class Screen:
    """A user's terminal with a command in it."""

    def __init__(self, tool: Any, *arguments: str, shell: bool = False) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(33, 77)
        self.before = termios.tcgetattr(self.slave)
        self.text = b""

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        # The end of a session's leader hangs its terminal up: a shell leads where the command is to be killed.
        words = [*(["sh", "-c", '"$@"; sleep 60', "sh"] if shell else []), *tool.words(*arguments)]
        self.process = subprocess.Popen(words, env=tool.environment, stdin=self.slave,
                                        stdout=self.slave, stderr=self.slave, preexec_fn=take_terminal)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        """Types, once the command has made the terminal raw: earlier the machine itself would echo it."""
        end = time.monotonic() + 10
        while not self.raw():
            assert time.monotonic() < end, f"the terminal was not taken: {self.text!r}"
            time.sleep(0.01)
        os.write(self.master, text)

    def read(self, word: bytes, seconds: float = 10) -> bytes:
        """Reads until `word` was seen; returns all so far."""
        end = time.monotonic() + seconds
        while word not in self.text:
            assert time.monotonic() < end, f"{word!r} did not come: {self.text!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    self.text += os.read(self.master, 65536)
        return self.text

    def raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & (termios.ECHO | termios.ICANON)

    def given_back(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def screen(tool) -> Iterator[Any]:
    screens: list[Screen] = []

    def make(*arguments: str, **more: Any) -> Screen:
        screens.append(Screen(tool, *arguments, **more))
        return screens[-1]

    yield make
    for each in screens:
        each.close()


def test_the_container_has_a_terminal_of_its_own_with_our_size(screen):
    shown = screen("run", "--rm", "-it", "busybox", "sh", "-c", "tty; stty size; echo $TERM; exit 3")
    text = shown.read(b"xterm")
    assert b"/dev/pts/0\r\n33 77\r\n" in text
    assert shown.process.wait(10) == 3
    assert shown.given_back()


def test_what_is_typed_arrives_and_is_echoed_once(screen):
    shown = screen("run", "--rm", "-it", "busybox", "sh", "-c", "read line; echo got $line")
    shown.type(b"hello\r")
    text = shown.read(b"got hello")
    assert text.count(b"hello") == 2
    assert shown.process.wait(10) == 0


def test_keys_are_signals_inside(screen):
    shown = screen("run", "--rm", "-it", "--init", "busybox", "sh", "-c",
                   "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.05; done")
    shown.read(b"ready")
    assert shown.raw()
    shown.type(b"\x03")
    shown.read(b"interrupted")
    assert shown.process.wait(10) == 5
    assert shown.given_back()


def test_a_resized_window_is_told(screen):
    shown = screen("run", "--rm", "-it", "busybox", "sh", "-c",
                   "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done")
    shown.read(b"ready")
    shown.resize(50, 132)
    shown.process.send_signal(signal.SIGWINCH)
    shown.read(b"50 132")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_gives_the_terminal_back_and_leaves_the_container(screen, tool, number):
    shown = screen("run", "--name", "box", "-it", "busybox", "sh", "-c", "echo ready; sleep 60")
    shown.read(b"ready")
    assert shown.raw()
    shown.process.send_signal(number)
    assert shown.process.wait(10) == -number
    assert shown.given_back()
    assert tool.inspect("box")["State"]["Running"]


def test_a_killed_command_gets_its_terminal_back_from_the_monitor(screen, tool, eventually):
    shown = screen("run", "--name", "box", "-it", "busybox", "sh", "-c", "echo ready; sleep 60", shell=True)
    shown.read(b"ready")
    assert shown.raw()
    shell = shown.process.pid
    os.kill(int(Path(f"/proc/{shell}/task/{shell}/children").read_text()), signal.SIGKILL)
    eventually(shown.given_back)
    assert tool.inspect("box")["State"]["Running"]


def test_leaving_and_coming_back(screen, tool):
    shown = screen("run", "--name", "box", "-it", "busybox", "sh")
    shown.type(b"X=remembered; echo $((40 + 2))\r")
    shown.read(b"42")
    shown.type(b"\x10\x11")
    shown.read(b"read escape sequence")
    assert shown.process.wait(10) == 0
    assert shown.given_back()
    assert tool.inspect("box")["State"]["Running"]
    again = screen("attach", "box")
    again.type(b"echo $X\r")
    again.read(b"remembered\r\n")
    again.type(b"exit 7\r")
    assert again.process.wait(10) == 7
    assert again.given_back()


def test_the_key_that_begins_the_sequence_is_not_lost(screen):
    shown = screen("run", "--rm", "-it", "busybox", "sh", "-c",
                   "stty raw -echo; echo ready; head -c 2 | od -An -tx1; exit 0")
    shown.read(b"ready")
    shown.type(b"\x10")
    time.sleep(0.2)
    shown.type(b"a")
    assert b"10 61" in shown.read(b"61")


def test_a_failure_is_told_on_a_sane_terminal(screen):
    shown = screen("run", "--rm", "-it", "busybox", "nosuch")
    assert b"executable file not found in $PATH\r\n" in shown.read(b"not found in $PATH\r\n")
    assert shown.process.wait(10) == 127
    assert shown.given_back()


def test_without_a_terminal_of_ours_it_is_refused(tool):
    assert "stdin is not a terminal" in tool("run", "-it", "busybox", status=125).err
    assert tool("run", "--rm", "-t", "busybox", "tty").out == "/dev/pts/0\r\n"


def test_detached_with_a_terminal(tool, eventually):
    tool.up("--name", "box", "-t", "busybox", "sh", "-c", "tty; tty >/dev/console; sleep 60")
    eventually(lambda: tool("logs", "box").out == "/dev/pts/0\r\n/dev/pts/0\r\n" or tool("logs", "box").out)
    assert "/dev/pts/0" in tool("logs", "box").out


# -- exec --------------------------------------------------------------------------------------------------------


def test_exec_is_behind_the_same_walls(tool, outside):
    tool.up("--name", "box", "-h", "inner", "-e", "A=run", "busybox", "sleep", "60")
    done = tool("exec", "-e", "B=exec", "-w", "/tmp", "-u", "app", "box", "sh", "-c",
                "hostname; pwd; id -un; echo $A $B; ls /proc | grep -c '^[0-9]'; exit 4", status=4)
    assert done.out.split() == ["inner", "/tmp", "app", "run", "exec", "4"] or done.out.split()[:5] == [
        "inner", "/tmp", "app", "run", "exec"]
    tool("exec", "-d", "box", "sleep", "61")
    pids = [int(line.split()[1]) for line in tool("top", "box").out.splitlines() if "sleep 61" in line]
    first = tool.pid("box")
    for kind in ("pid", "mnt", "uts", "ipc", "net"):
        assert outside.namespace(kind, pids[0]) == outside.namespace(kind, first)
    assert outside.status(pids[0])["CapEff"] == outside.status(first)["CapEff"]


def test_exec_streams_and_codes(tool):
    tool.up("--name", "box", "busybox", "sleep", "60")
    assert tool("exec", "-i", "box", "cat", input="typed\n").out == "typed\n"
    assert tool("exec", "box", "cat", input="not for you").out == ""
    done = tool("exec", "box", "sh", "-c", "echo out; echo err >&2; exit 9", status=9)
    assert (done.out, done.err) == ("out\n", "err\n")
    big = os.urandom(1_000_000)
    assert tool("exec", "-i", "box", "cat", input=big).raw == big
    assert "executable file not found" in tool("exec", "box", "nosuch", status=127).err
    assert "permission denied" in tool("exec", "box", "/etc/passwd", status=126).err
    tool("pause", "box")
    assert "is paused" in tool("exec", "box", "true", status=125).err
    tool("unpause", "box")
    tool("kill", "box")
    assert "is not running" in tool("exec", "box", "true", status=125).err


def test_exec_with_a_terminal(screen, tool):
    tool.up("--name", "box", "busybox", "sleep", "60")
    shown = screen("exec", "-it", "box", "sh", "-c", "tty; stty size; read x; echo got $x; exit 8")
    shown.read(b"33 77")
    shown.type(b"it\r")
    shown.read(b"got it")
    assert shown.process.wait(10) == 8
    assert shown.given_back()


def test_the_terminal_of_exec_has_its_size_from_the_first_moment(screen, tool):
    tool.up("--name", "box", "busybox", "sleep", "60")
    shown = screen("exec", "-t", "box", "stty", "size")
    assert b"33 77" in shown.read(b"77")
    assert shown.process.wait(10) == 0


def test_keys_of_ones_own_to_leave_by(screen, tool):
    shown = screen("run", "--name", "box", "--detach-keys", "ctrl-a,d", "-it", "busybox", "sh")
    shown.type(b"\x10\x11echo still here\r")
    shown.read(b"still here\r\n")
    shown.type(b"\x01d")
    shown.read(b"read escape sequence")
    assert shown.process.wait(10) == 0
    assert tool.inspect("box")["State"]["Running"]
    assert "Unknown character: 'ctrl-ä'" in tool("run", "--detach-keys", "ctrl-ä", "busybox", status=125).err

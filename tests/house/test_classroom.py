"""The classroom: a registry with a page, and a check that tells it what its participant wants to be told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from chapters import command, contents, judge
from chapters.workspace import Workspace
from tests import images
from tests.registry_server import Registry, digest

pytestmark = [pytest.mark.caged, pytest.mark.limit(60)]
CHAPTER = contents.chapter(2)
FUNCTIONS = [each.function for each in CHAPTER.exercises]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[str]:
    """An open classroom that offers busybox; its address."""
    archive = images.busybox(tmp_path / "busybox.tar")
    words = [sys.executable, "-m", "chapters", "serve", "--addr", "127.0.0.1:0", "--root", tmp_path / "room", "--image",
             archive]
    process = subprocess.Popen(words, cwd=contents.ROOT, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    assert process.stdout
    first = process.stdout.readline()
    found = re.search(r"http://(127\.0\.0\.1:\d+)/", first)
    assert found, first
    yield found[1]
    process.send_signal(signal.SIGINT)
    said = process.stdout.read()
    assert process.wait(20) == 0
    assert "offers  busybox:latest" in said and "insecure-registries" in said and "check --join" in said
    process.stdout.close()


def page(room: str) -> str:
    with urllib.request.urlopen(f"http://{room}/", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/html")
        return str(answer.read().decode())


def put(room: str, data: bytes) -> int:
    request = urllib.request.Request(f"http://{room}/join", data, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def check(monkeypatch: pytest.MonkeyPatch, workspace: Path, *words: str, passed: bool = True) -> int:
    """`python -m chapters check 2` with a judge who says what we want."""
    solved = [each.name for each in CHAPTER.exercises] if passed else []
    verdict = judge.Verdict(passed=passed, solved=solved, exercise="" if passed else CHAPTER.exercises[0].name)
    monkeypatch.setattr(judge, "check", lambda *_: verdict)
    return command.main(["--workspace", str(workspace), "check", "2", *words])


def test_a_check_shows_on_the_page_what_is_solved(room: str, tmp_path: Path, monkeypatch, capsys) -> None:
    assert "Nobody yet" in page(room)
    Workspace(tmp_path / "mine").start(CHAPTER)
    assert check(monkeypatch, tmp_path / "mine") == 0
    assert "Nobody yet" in page(room), "without --join nothing is sent"
    assert check(monkeypatch, tmp_path / "mine", "--join", f"http://{room}", "--as", "Ada L.") == 0
    assert "knows it, as Ada L." in capsys.readouterr().out
    text = page(room)
    assert "Ada L." in text and f"{CHAPTER.title}: {len(FUNCTIONS)} of {len(FUNCTIONS)}" in text
    assert check(monkeypatch, tmp_path / "mine", "--join", room, "--as", "Ada L.", passed=False) == 1
    assert f"{CHAPTER.title}: 0 of {len(FUNCTIONS)}" in page(room)


def test_whoever_is_root_hears_that_others_may_be_too(room: str, tmp_path: Path, monkeypatch, capsys) -> None:
    """A whole workshop works as root; behind sudo stands a name."""
    Workspace(tmp_path / "mine").start(CHAPTER)
    for user, said in (("", "as root; others may be root too: --as NAME."), ("ada", "as ada.")):
        monkeypatch.setenv("SUDO_USER", user)
        monkeypatch.setattr("getpass.getuser", lambda: "root")
        assert check(monkeypatch, tmp_path / "mine", "--join", room) == 0
        assert said in capsys.readouterr().out


def test_a_teacher_s_machine_tells_how_it_is_reached(monkeypatch) -> None:
    """At every address: the one that others see; without a network, words to replace."""
    from chapters import classroom

    assert classroom._reachable("192.168.1.5") == "192.168.1.5"
    assert classroom._reachable("0.0.0.0") == "THIS-MACHINE"  # the cage has no way out
    for words in ("link add out type veth peer name in", "link set in up", "addr add 10.7.0.3/24 dev out",
                  "link set out up", "route add default via 10.7.0.1"):
        subprocess.run(["ip", *words.split()], check=True)
    assert classroom._reachable("") == "10.7.0.3"
    subprocess.run(["ip", "link", "del", "out"], check=True)


def test_nothing_else_is_sent(room: str, tmp_path: Path, monkeypatch) -> None:
    """The name and the functions: no path, no code, no machine."""
    Workspace(tmp_path / "mine").start(CHAPTER)
    check(monkeypatch, tmp_path / "mine", "--join", room, "--as", "Ada")
    assert json.loads((tmp_path / "room/people.json").read_text()) == {"Ada": {"2": FUNCTIONS}}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:1/", "no such host.invalid", "ftp://x", "http://[",
                                     "127.0.0.1:99999", "http://", "file:///etc/passwd"])
def test_a_classroom_that_is_not_there_spoils_no_check(address: str, tmp_path: Path, monkeypatch, capsys) -> None:
    Workspace(tmp_path / "mine").start(CHAPTER)
    assert check(monkeypatch, tmp_path / "mine", "--join", address) == 0
    shown = capsys.readouterr()
    assert "does not know it" in shown.out and "counts as it is" in shown.out and "Traceback" not in shown.err
    assert Workspace(tmp_path / "mine").finished(CHAPTER)


def test_what_strangers_send_is_refused_or_shown_as_text(room: str, tmp_path: Path) -> None:
    good = {"name": "<script>alert(1)</script>", "solved": {"2": [*FUNCTIONS, "rm -rf", "<b>"], "99": ["x"], "x": 1}}
    assert put(room, json.dumps(good).encode()) == 204
    text = page(room)
    assert "<script>" not in text and "&lt;script&gt;" in text and "<b>" not in text and "rm -rf" not in text
    assert put(room, json.dumps({"name": "x\n\x1b[31my", "solved": {}}).encode()) == 204
    assert "x [31my" in page(room)
    for bad in (b"", b"{", b"[]", b'{"name": 5, "solved": {}}', b'{"name": "", "solved": {}}', b'{"name": "x"}',
                b'{"name": "x", "solved": {"2": 5}}', json.dumps({"name": "n" * 41, "solved": {}}).encode(),
                b"[" * 60_000):
        assert put(room, bad) == 400, bad[:40]
    assert put(room, b" " * 100_000) == 413
    request = urllib.request.Request(f"http://{room}/", headers={"Host": '"><script>x</script>'})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert b"<script>" not in answer.read()


def test_the_lesson_s_images_are_pulled_and_everybody_s_are_pushed(room: str, tmp_path: Path) -> None:
    assert f"minirt run --rm {room}/busybox:latest" in page(room)
    client = Registry(tmp_path, port=int(room.rpartition(":")[2]))  # the client of the registry's own tests
    document = client("GET", "/v2/busybox/manifests/latest").json
    for part in (document["config"], *document["layers"]):
        assert digest(client("GET", f"/v2/busybox/blobs/{part['digest']}").body) == part["digest"]
    assert client.push("ada/mine", "1")[1].status == 201
    assert f"{room}/ada/mine:1" in page(room)


@pytest.mark.leaves("the store of a participant")
def test_the_finale(room: str, tmp_path: Path) -> None:
    """What a participant does with minirt itself: pull, tag, push; the next one runs it."""
    environment = {**os.environ, "MINIRT_ROOT": str(tmp_path / "store")}

    def minirt(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "minirt", *words], capture_output=True, text=True, check=False,
                              env=environment, cwd=contents.ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    minirt("pull", "-q", f"{room}/busybox:latest")
    minirt("tag", f"{room}/busybox:latest", f"{room}/ada/mine:1")
    minirt("push", "-q", f"{room}/ada/mine:1")
    minirt("rmi", "-f", f"{room}/busybox:latest", f"{room}/ada/mine:1")
    assert minirt("run", "--rm", f"{room}/ada/mine:1", "echo", "from Ada") == "from Ada\n"


def test_wrong_words_are_sentences(tmp_path: Path, capsys) -> None:
    assert command.main(["serve", "--addr", "here"]) == 1
    assert "HOST:PORT" in capsys.readouterr().err
    nothing = str(tmp_path / "nothing.tar")
    assert command.main(["serve", "--addr", "127.0.0.1:0", "--root", str(tmp_path / "room"), "--image", nothing]) == 1
    assert "nothing.tar" in capsys.readouterr().err

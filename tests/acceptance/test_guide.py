"""The command lines of a beginner's guide to Docker, in their order, with `docker` read as `minirt`.

Each line either works, and then it is executed here, as root, in one cage from the first to the last; or it belongs to
a chapter that is planned, and then minirt has to say so, with the chapter's number. README.md's table of what works is
made from the same list:

    python tests/acceptance/test_guide.py      write the table into README.md
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minirt.registry import hosts
from tests import standin

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- what works -->", "<!-- /what works -->"
INTRODUCTION = """\
The command lines of a beginner's guide to Docker, with `docker` read as `minirt`. A test executes each that works, and
hears of each other which chapter will bring it; this table is made from its list."""
PUSHED = "^latest: digest: sha256:[0-9a-f]{64} size: "
ADA = "ada:$2y$05$abcdefghijklmnopqrstuuugyJgZetmHGvxwCJ1rpgM8bgT8KJ8.i\n"  # password: lovelace
IDLE = "sleep"  # the container that is listed, stopped, killed and removed runs this


@dataclasses.dataclass(frozen=True)
class Line:
    """One command line of the guide."""

    text: str
    chapter: int = 0  # that brings it; 0: it works
    real: str = ""  # what to type for a text with <placeholders>; @ is the container that runs
    output: str = ""  # a regular expression that must be found in what a working line prints
    before: tuple[str, ...] = ()  # what the guide's reader has done meanwhile
    instead: str = ""  # for the table, where another word than "works" says more
    answers: tuple[str, ...] = ()  # what is typed on the terminal, line by line, each at a question


LINES = (
    # 2. How Docker works under the hood
    Line("minirt run hello-world", output="Hello from minirt!"),
    # 4. Getting started
    Line("sudo minirt --version", output=r"^minirt version \d"),
    Line("sudo systemctl status docker", 20, instead="not needed: there is no daemon; chapter 20 brings one"),
    Line("sudo systemctl start docker", 20, instead="not needed: there is no daemon; chapter 20 brings one"),
    Line("sudo minirt run hello-world", output="Hello from minirt!"),
    # 6. Essential commands: images
    Line("sudo minirt build -t my_app .", 18),
    Line("sudo minirt images", output=r"REPOSITORY +TAG +IMAGE ID(?s:.*)my_app +latest"),
    Line("sudo minirt image ls", output=r"REPOSITORY +TAG +IMAGE ID(?s:.*)hello-world +latest"),
    Line("sudo minirt rmi <image_name>", real="minirt rmi spare", output="Untagged: spare:latest"),
    Line("sudo minirt rmi -f <image_name>", real="minirt rmi -f hello-world", output="Untagged: hello-world:latest"),
    Line("minirt pull <username>/my_app", real="minirt pull ada/my_app", output="^docker.io/ada/my_app:latest$",
         before=("minirt login -u ada -p lovelace", "minirt tag my_app ada/my_app", "minirt push ada/my_app",
                 "minirt rmi ada/my_app")),
    Line("sudo minirt tag my_app <username>/my_app", real="minirt tag my_app ada/my_app"),
    Line("sudo minirt push <username>/my_app", real="minirt push ada/my_app", output=PUSHED),
    Line("sudo minirt login", output="Login Succeeded", answers=("ada", "lovelace"), before=("minirt logout",)),
    # containers
    Line("sudo minirt run my_app", output="my app speaks"),
    Line("minirt run -p 5000:5000 myserver", 15),
    Line("minirt run -d my-app:latest", output=r"^[0-9a-f]{64}$"),
    Line("minirt run -d -p 8080:80 my-app:latest", 15),
    Line("sudo minirt ps", output=rf"CONTAINER ID +IMAGE(?s:.*)my-app:latest +\"{IDLE}"),
    Line("sudo minirt ps -a", output=r"my_app(?s:.*)Exited \(0\)"),
    Line("sudo minirt stop <container_id>", real="minirt stop -t 1 @", output="^@$"),
    Line("sudo minirt kill <container_id>", real="minirt kill @", output="^@$", before=("minirt start @",)),
    Line("sudo minirt rm <container_id>", real="minirt rm @", output="^@$", before=("minirt wait @",)),
    # getting help
    Line("minirt help", output=r"Usage: +minirt \[OPTIONS\] COMMAND"),
    Line("minirt <command> --help", real="minirt run --help", output=r"Usage: +minirt run \[OPTIONS\] IMAGE"),
    # 7. Compose
    Line("minirt compose up -d", 19),
    Line("minirt compose down", 19),
    # 8. Network and port mapping
    Line("minirt run -p <host_port>:<container_port> <image>", 15, real="minirt run -p 5000:5000 myserver"),
    Line("minirt run -p 5000:5000 myserver", 15),
    # 9. Best practices: what is said there in words
    Line("minirt volume create data", 16),
    Line("minirt run -v data:/data my_app", 16),
    Line("minirt run -u 1000:1000 my_app", output="my app speaks"),
    # 10. The workflow: write, build, run, tag, push, pull elsewhere
    Line("minirt build -t myapp .", 18),
    Line("minirt run myapp", output="my app speaks"),
    Line("minirt tag myapp username/myapp"),
    Line("minirt push username/myapp", output=PUSHED),
    Line("minirt pull username/myapp", output="Image is up to date for username/myapp:latest"),
    Line("minirt run username/myapp", output="my app speaks"),
)
WORKING = [line for line in LINES if not line.chapter]
PLANNED = [line for line in LINES if line.chapter]


def title(chapter: int) -> str:
    """The title of a chapter, as the table of contents has it."""
    import tomllib

    rows = tomllib.loads((ROOT / "chapters" / "chapters.toml").read_text())["chapter"]
    return next(row["title"] for row in rows if row["number"] == chapter)


def table() -> str:
    """The table of README.md: each line once, in the order of the guide."""
    rows = {}
    for line in LINES:
        text = line.text.removeprefix("sudo ") if "minirt" in line.text else line.text
        planned = f"chapter {line.chapter:02d}, {title(line.chapter)}" if line.chapter else "works"
        rows.setdefault(text, line.instead or planned)
    return "\n".join(
        [
            INTRODUCTION,
            "",
            "| you type | today |",
            "|---|---|",
            *(f"| `{text}` | {state} |" for text, state in rows.items()),
        ]
    )


def write() -> None:
    """Put the table between its markers in README.md."""
    readme = ROOT / "README.md"
    head, rest = readme.read_text().split(BEGIN)
    tail = rest.split(END)[1] if END in rest else rest
    readme.write_text(f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}")


def test_the_readme_says_what_works() -> None:
    text = (ROOT / "README.md").read_text()
    assert BEGIN in text and END in text
    found = text.split(BEGIN)[1].split(END)[0].strip()
    assert found == table(), "write it anew: python tests/acceptance/test_guide.py"


def typed(text: str) -> subprocess.CompletedProcess[str]:
    """Run one command line as root types it, in the cage."""
    words = text.removeprefix("sudo ").split()
    assert words[0] == "minirt"
    return subprocess.run(
        [sys.executable, "-m", "minirt", *words[1:]],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def make_images(place: Path) -> None:
    """The images that the guide's reader would have built or pulled: load them into the store of this cage."""
    import shutil

    from minirt.images import hello, pack

    app, server = pack.Tree(), pack.Tree()
    app.program(str(shutil.which("cat")), "/bin/cat")
    app.text("/etc/words", "my app speaks\n")
    server.program(str(shutil.which(IDLE)), f"/bin/{IDLE}")
    pack.write_image(str(place / "app.tar"), app, {"Cmd": ["/bin/cat", "/etc/words"]}, ["my_app", "myapp"])
    idle = {"Cmd": [IDLE, "1000"], "Env": ["PATH=/bin"]}
    pack.write_image(str(place / "server.tar"), server, idle, ["myserver", "my-app", "spare"])
    hello.write(str(place / "hello.tar"))
    for name in ("app", "server", "hello"):
        done = typed(f"minirt load -q -i {place}/{name}.tar")
        assert done.returncode == 0, done.stderr


def on_a_terminal(text: str, answers: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run one command line on a terminal, and type an answer at each question, which ends with a colon."""
    pid, master = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-m", "minirt", *text.removeprefix("sudo ").split()[1:]])
    said, left = b"", list(answers)
    with contextlib.suppress(OSError):  # EIO: nobody has the terminal any more
        while piece := os.read(master, 4096):
            said += piece
            if left and said.rstrip(b" ").endswith(b":"):
                os.write(master, left.pop(0).encode() + b"\n")
    os.close(master)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return subprocess.CompletedProcess(text, status, said.decode().replace("\r\n", "\n"), "")


@pytest.mark.caged
@pytest.mark.limit(180)
@pytest.mark.leaves("the guide does not tidy up")
def test_the_guide_from_top_to_bottom(tmp_path: Path) -> None:
    make_images(tmp_path)
    running = "none"
    (tmp_path / "users").write_text(ADA)
    with standin.standing_for([hosts.HUB], tmp_path, "--auth", str(tmp_path / "users")):
        for line in WORKING:
            for text in line.before:
                done = typed(text.replace("@", running))
                assert done.returncode in (0, 137, 143), f"{text}: {done.stderr}"
            text = (line.real or line.text).replace("@", running)
            done = on_a_terminal(text, line.answers) if line.answers else typed(text)
            assert done.returncode == 0, f"{text}: {done.stdout}{done.stderr}"
            wanted = line.output.replace("@", running)
            assert re.search(wanted, done.stdout, re.MULTILINE), f"{text}: {done.stdout}{done.stderr}"
            if " -d " in text:
                running = done.stdout.strip()[:12]


@pytest.mark.caged
@pytest.mark.limit(180)
@pytest.mark.leaves("the guide does not tidy up")
def test_what_cannot_work_yet_names_its_chapter(tmp_path: Path) -> None:
    make_images(tmp_path)
    for line in PLANNED:
        if "systemctl" in line.text:
            continue
        done = typed(line.real or line.text)
        assert done.returncode != 0, f"{line.text} works: say so in this file, and write README.md's table anew"
        assert f"chapter {line.chapter}" in done.stderr, f"{line.text}: {done.stderr}"
        assert "Traceback" not in done.stderr


def test_nothing_is_left_from_a_chapter_that_is_open() -> None:
    import tomllib

    rows = tomllib.loads((ROOT / "chapters" / "chapters.toml").read_text())["chapter"]
    opened = {row["number"] for row in rows if row["status"] == "open"}
    assert [line.text for line in PLANNED if line.chapter in opened] == []


if __name__ == "__main__":
    os.chdir(ROOT)
    write()

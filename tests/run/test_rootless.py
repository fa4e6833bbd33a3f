"""minirt for an ordinary user: the same images, exit codes and `ps`, without root; and a container with ids of its own.

Each test makes a user in its cage, who is gone with it.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import images

ROOT = Path(__file__).resolve().parent.parent.parent
START = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from minirt.__main__ import main; main()"
FIRST = 200000  # of the user's subordinate ids

pytestmark = [
    pytest.mark.caged,
    pytest.mark.leaves("an ordinary user with a home, and what systemd would make for him"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]
with_helpers = pytest.mark.skipif(
    not (shutil.which("newuidmap") and shutil.which("newgidmap")), reason="newuidmap is not installed (package uidmap)"
)


class User:
    """An ordinary user of this cage, and minirt as he calls it."""

    def __init__(self, name: str, uid: int, subordinate: bool) -> None:
        self.uid = uid
        self.home, self.runtime = f"/var/lib/minirt/home-{name}", f"/run/user/{uid}"
        with open("/etc/passwd", "a") as file:
            file.write(f"{name}:x:{uid}:{uid}::{self.home}:/bin/sh\n")
        for name_of_file in ("/etc/subuid", "/etc/subgid"):
            with open(name_of_file, "w") as file:
                file.write(f"{name}:{FIRST}:65536\n" if subordinate else "")
        for path in (self.home, self.runtime):
            os.makedirs(path)
            os.chown(path, uid, uid)
            os.chmod(path, 0o700)
        let_through(ROOT)
        let_through(Path(sys.executable).resolve())
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": self.home, "XDG_RUNTIME_DIR": self.runtime, "MINIRT_DEBUG": "1",
        }  # fmt: skip

    def __call__(self, *arguments: str, status: int | None = 0, **more: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-S", "-E", "-B", "-c", START, *arguments], capture_output=True, text=True, timeout=40,
            check=False, env=self.environment, stdin=subprocess.DEVNULL, cwd="/", user=self.uid, group=self.uid,
            extra_groups=[], **more,
        )  # fmt: skip
        assert status is None or done.returncode == status, f"{arguments}: {done.returncode}: {done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def left(self) -> list[str]:
        """What is left of containers."""
        store = Path(self.home) / ".local/share/minirt"
        found = [str(path) for name in ("containers", "names", "trash", "pending") for path in (store / name).glob("*")]
        return found + [str(path) for path in Path(self.runtime).glob("minirt/*/containers/*")]


def let_through(path: Path) -> None:
    """Let everybody walk to a file: a checkout or an interpreter may lie in somebody's home."""
    for parent in path.parents:
        os.chmod(parent, stat.S_IMODE(parent.stat().st_mode) | 0o111)


def made(subordinate: bool) -> Iterator[User]:
    archive = Path("/tmp/busybox.tar")
    images.busybox(archive)
    archive.chmod(0o644)
    user = User("alice", 1234, subordinate)
    loaded = user("load", "-q", "-i", str(archive))
    assert subordinate or "one user only" in loaded.stderr
    assert "usermod --add-subuids" in loaded.stderr or "apt-get install uidmap" in loaded.stderr or subordinate
    yield user
    names = user("ps", "-aq").stdout.split()
    if names:
        user("rm", "-f", *names)


@pytest.fixture
def alice() -> Iterator[User]:
    """A user with subordinate ids, whose store has the image busybox."""
    yield from made(subordinate=True)


@pytest.fixture
def lonely() -> Iterator[User]:
    """A user without subordinate ids."""
    yield from made(subordinate=False)


@with_helpers
def test_an_ordinary_user_runs_a_container_as_its_root(alice: User) -> None:
    done = alice("run", "--rm", "busybox", "sh", "-c", "id -u; cat /proc/self/uid_map; hostname; exit 7", status=7)
    lines = done.stdout.splitlines()
    assert lines[0] == "0"
    assert lines[1].split() == ["0", "1234", "1"]
    assert lines[2].split() == ["1", str(FIRST), "65536"]
    assert lines[3] != os.uname().nodename
    assert alice.left() == []


@with_helpers
def test_exit_codes_are_those_of_root(alice: User) -> None:
    assert "not found" in alice("run", "--rm", "busybox", "nosuch", status=127).stderr
    alice("run", "--rm", "busybox", "/etc/passwd", status=126)
    alice("run", "--rm", "nosuchimage", status=125)
    alice("run", "--rm", "busybox", "sh", "-c", "kill -9 $$; sleep 1; exit 5", status=5)


@with_helpers
def test_files_belong_to_the_users_own_ids_and_go_with_the_container(alice: User) -> None:
    alice("run", "--name", "web", "busybox", "sh", "-c", "touch /a; touch /b; chown 33:33 /b;"
          "mkdir -m 700 /d; touch /d/deep; chown 33 /d")
    upper = next(Path(alice.home).glob(".local/share/minirt/containers/*/upper"))
    assert (upper / "a").stat().st_uid == 1234
    assert (upper / "b").stat().st_uid == FIRST + 32
    assert 0 not in {path.lstat().st_uid for path in Path(alice.home).rglob("*")}, "nothing became the machine's root's"
    assert alice("diff", "web").stdout.splitlines() == ["A /a", "A /b", "A /d", "A /d/deep"]
    alice("rm", "web")
    alice("rmi", "busybox")
    assert alice.left() == []
    assert not list(Path(alice.home).glob(".local/share/minirt/layers/[0-9a-f]*"))


@with_helpers
def test_an_image_that_another_tool_stored_is_unpacked_at_its_first_start(alice: User) -> None:
    store = Path(alice.home) / ".local/share/minirt"
    for record in (store / "chains").iterdir():
        record.unlink()
    for layer in [*store.glob("layers/[0-9a-f]*"), *store.glob("layers/l/*")]:
        layer.unlink() if layer.is_symlink() else shutil.rmtree(layer)
    assert alice("run", "--rm", "busybox", "id", "-u").stdout == "0\n"
    assert {path.stat().st_uid for path in store.glob("layers/*/diff/*")} == {alice.uid}


@with_helpers
def test_ps_exec_stop_and_logs_work(alice: User, eventually: Callable[..., Any]) -> None:
    script = "echo hello; trap 'exit 3' TERM; while :; do sleep 0.1; done"
    alice("run", "-d", "--name", "web", "busybox", "sh", "-c", script)
    assert "web" in alice("ps").stdout
    assert alice("exec", "web", "id", "-u").stdout == "0\n"
    assert alice("exec", "-u", "33", "web", "id", "-u").stdout == "33\n"
    assert alice("exec", "web", "sh", "-c", "exit 9", status=9).returncode == 9
    eventually(lambda: alice("logs", "web").stdout == "hello\n")
    assert "sh" in alice("top", "web").stdout
    alice("stop", "web")
    assert "Exited (3)" in alice("ps", "-a").stdout


@with_helpers
def test_a_second_container_joins_the_network_of_the_first(alice: User) -> None:
    alice("run", "-d", "--name", "web", "busybox", "sleep", "60")
    script = "readlink /proc/self/ns/net"
    first = alice("exec", "web", "sh", "-c", script).stdout
    assert alice("run", "--rm", "--network", "container:web", "busybox", "sh", "-c", script).stdout == first
    assert "sleep 60" in alice("run", "--rm", "--pid", "container:web", "busybox", "ps").stdout


@with_helpers
def test_a_killed_monitor_is_repaired(alice: User, eventually: Callable[..., Any]) -> None:
    alice("run", "-d", "--name", "web", "busybox", "sleep", "61")
    first = int(alice("inspect", "-f", "{{.State.Pid}}", "web").stdout)
    monitor = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(monitor, 9)
    eventually(lambda: "monitor lost" in alice("ps", "-a").stdout)
    alice("rm", "web")
    eventually(lambda: not os.path.exists(f"/proc/{first}") or " Z " in Path(f"/proc/{first}/stat").read_text())
    assert alice.left() == []


@with_helpers
def test_roots_files_stay_roots(alice: User) -> None:
    Path("/etc/secret").write_text("of root")
    os.chmod("/etc/secret", 0o600)
    script = "id -u; cat /host/etc/secret; echo x >> /host/etc/passwd; ls -ln /host/etc/secret"
    done = alice("run", "--rm", "-v", "/:/host", "busybox", "sh", "-c", script)
    assert done.stdout.startswith("0\n") and "of root" not in done.stdout
    assert done.stderr.count("Permission denied") + done.stderr.count("denied") >= 2
    assert " 65534 " in done.stdout, "root's file is nobody's in there"


@with_helpers
def test_what_is_missing_is_said_once_and_with_its_cure(alice: User) -> None:
    first, second = (alice("run", "--rm", "busybox", "true").stderr for _ in range(2))
    assert "no control group was delegated to you" in first and "systemd-run" in first
    assert second == ""


def test_without_subordinate_ids_there_is_one_user(lonely: User) -> None:
    done = lonely("run", "--rm", "busybox", "sh", "-c", "id -u; cat /proc/self/uid_map")
    assert done.stdout.split() == ["0", "0", "1234", "1"]
    assert "one user only" not in done.stderr, "`load` has said it already, and once is enough"
    refused = lonely("run", "--rm", "-u", "33", "busybox", "true", status=125)
    assert "does not exist in the container's user namespace" in refused.stderr
    lonely("rmi", "busybox")
    assert lonely.left() == []


def test_a_forbidden_namespace_is_a_sentence_with_its_cure(lonely: User) -> None:
    code = START.replace("main()", "") + (
        "from minirt.namespaces import user\n"
        "def refuse(): raise PermissionError(1, 'Operation not permitted')\n"
        "user.enter = refuse\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-B", "-c", code, "run", "--rm", "busybox", "true"],
        capture_output=True, text=True, timeout=40, check=False, env=lonely.environment,
        user=lonely.uid, group=lonely.uid, extra_groups=[], cwd="/",
    )  # fmt: skip
    assert done.returncode == 125
    assert "making a user namespace: Operation not permitted" in done.stderr
    assert "minirt doctor" in done.stderr or "sysctl" in done.stderr


def test_a_container_of_root_can_have_ids_of_its_own(tool: Any) -> None:
    script = "id -u; cat /proc/self/uid_map; ls -ln /etc/group"
    done = tool("run", "--rm", "--userns", "auto", "busybox", "sh", "-c", script)
    lines = done.out.splitlines()
    inside, outside, size = map(int, lines[1].split())
    assert (lines[0], inside, size) == ("0", 0, 65536)
    assert outside >= 65536, "not a user of the machine"
    assert lines[2].split()[2:4] == ["0", "0"], "the image's files are its own root's, by an id-mapped mount"


def test_its_files_belong_to_nobody_on_the_machine(tool: Any) -> None:
    name = tool.up("--userns", "auto", "busybox", "sh", "-c", "touch /mine; sleep 60")
    uid = int(Path(f"/proc/{tool.pid(name)}/uid_map").read_text().split()[1])
    upper = Path(tool.root) / "containers" / name / "upper"
    while not (upper / "mine").exists():
        pass
    assert (upper / "mine").stat().st_uid == uid
    assert tool("exec", name, "id", "-u").out == "0\n"
    assert tool("exec", name, "sh", "-c", "echo 1.2.3.4 x >> /etc/hosts && tail -n 1 /etc/hosts").out == "1.2.3.4 x\n"


def test_what_belongs_to_another_root_cannot_be_shared(tool: Any) -> None:
    for words in (["--privileged"], ["--network", "host"], ["--pid", "host"]):
        assert "user namespaces" in tool("run", "--rm", "--userns", "auto", *words, "busybox", "true", status=125).err
    assert tool.left() == []


# -- keep-id -----------------------------------------------------------------------------------------------------------


@with_helpers
def test_with_keep_id_a_user_is_himself_on_both_sides(alice: User) -> None:
    os.mkdir(f"{alice.home}/work")
    os.chown(f"{alice.home}/work", 1234, 1234)
    script = ("id -u; id -g; touch /work/mine; stat -c %u:%g /work /bin/busybox; "
              "grep -E '^Cap(Eff|Prm)' /proc/self/status")
    done = alice("run", "--rm", "--userns", "keep-id", "-v", f"{alice.home}/work:/work", "busybox", "sh", "-c", script)
    assert done.stdout.split() == ["1234", "1234", "1234:1234", "0:0", "CapPrm:", "0" * 16, "CapEff:", "0" * 16]
    status = os.stat(f"{alice.home}/work/mine")
    assert (status.st_uid, status.st_gid) == (1234, 1234)
    assert alice.left() == []


@with_helpers
def test_with_keep_id_root_is_somebody_else(alice: User) -> None:
    script = ("id -u; touch /a; stat -c %u / /a /etc/passwd; cat /proc/self/uid_map; chown 33 /a; stat -c %u /a; "
              "hostname")
    done = alice("run", "--name", "web", "--userns", "keep-id", "--user", "root", "-h", "box", "busybox", "sh", "-c",
                 script)
    lines = done.stdout.split("\n")
    assert lines[:4] == ["0", "0", "0", "0"]
    assert [line.split() for line in lines[4:7]] == [["0", "1", "1234"], ["1234", "0", "1"], ["1235", "1235", "64302"]]
    assert lines[7:9] == ["33", "box"]
    upper = next(Path(alice.home).glob(".local/share/minirt/containers/*/upper"))
    assert (upper / "a").stat().st_uid == FIRST + 33
    alice("start", "-a", "web")
    alice("rm", "web")
    assert alice.left() == []


@with_helpers
def test_exec_stop_and_inspect_of_a_container_with_keep_id(alice: User) -> None:
    alice("run", "-d", "--name", "web", "--userns", "keep-id", "busybox", "sleep", "60")
    assert alice("exec", "web", "id", "-u").stdout == "1234\n"
    assert alice("exec", "-u", "0", "web", "id", "-u").stdout == "0\n"
    mode = alice("inspect", "-f", "{{.HostConfig.UsernsMode}} {{.Config.User}}", "web").stdout
    assert mode == "keep-id 1234:1234\n"
    assert alice("stop", "-t", "0", "web").stdout == "web\n"
    alice("rm", "web")
    assert alice.left() == []


@with_helpers
def test_a_layer_is_copied_once_and_goes_with_the_image(alice: User) -> None:
    alice("run", "--rm", "--userns", "keep-id", "busybox", "true")
    copies = list(Path(alice.home).glob(".local/share/minirt/layers/*/kept"))
    assert len(copies) == 1
    number = copies[0].stat().st_ino
    alice("run", "--rm", "--userns", "keep-id", "busybox", "true")
    assert copies[0].stat().st_ino == number
    alice("rmi", "busybox")
    assert list(Path(alice.home).glob(".local/share/minirt/layers/*/*")) == []


@with_helpers
def test_what_keep_id_does_not_go_with(alice: User) -> None:
    alice("run", "-d", "--name", "web", "busybox", "sleep", "60")
    refused = alice("run", "--userns", "keep-id", "--network", "container:web", "busybox", "true", status=125)
    assert "leave one of the two out" in refused.stderr


def test_keep_id_without_subordinate_ids_says_so(lonely: User) -> None:
    refused = lonely("run", "--userns", "keep-id", "busybox", "true", status=125)
    assert "--userns keep-id takes subordinate ids" in refused.stderr


def test_keep_id_is_for_ordinary_users(tool) -> None:
    assert "keep-id is only supported in rootless mode" in tool(
        "run", "--userns", "keep-id", "busybox", "true", status=125).err


@with_helpers
def test_the_script_of_explain_sh_is_for_root(alice: User) -> None:
    refused = alice("--explain=sh", "run", "busybox", "true", status=125)
    assert "try sudo minirt --explain=sh run" in refused.stderr


@with_helpers
def test_an_ordinary_user_saves_imports_checks_and_prunes(alice: User) -> None:
    saved = f"{alice.home}/saved.tar"
    before = alice("images", "--no-trunc", "--format", "{{.Repository}} {{.ID}}").stdout
    alice("save", "-o", saved, "busybox")
    alice("import", saved, "tree")
    assert alice("system", "check").stdout == "The image store is sound.\n"
    assert alice("system", "df", "--format", "{{.TotalCount}}").stdout.splitlines()[:2] == ["2", "0"]
    assert "Total reclaimed space: " in alice("image", "prune", "-af").stdout
    assert alice("images", "-q").stdout == "" and alice("system", "check").stdout == "The image store is sound.\n"
    alice("load", "-i", saved)
    assert alice("images", "--no-trunc", "--format", "{{.Repository}} {{.ID}}").stdout == before
    assert alice("history", "-q", "busybox").stdout and alice("run", "--rm", "busybox", "echo", "x").stdout == "x\n"
    assert alice.left() == []


@with_helpers
@pytest.mark.parametrize("more", [(), ("-t",), ("--userns", "keep-id")], ids=" ".join)
def test_the_streams_are_those_of_the_containers_user(alice: User, more: tuple[str, ...]) -> None:
    who = () if "--userns" in more else ("-u", "app")
    terminal = [word for word in more if word == "-t"]
    script = "echo out > /dev/stdout && echo err > /dev/stderr && echo done"
    done = alice("run", "--rm", *more, *who, "busybox", "sh", "-c", script)
    assert done.stdout.split() == (["out", "err", "done"] if terminal else ["out", "done"])
    alice("run", "-d", "--name", "box", *([] if terminal else more), *who, "busybox", "sleep", "60")
    assert alice("exec", *terminal, "box", "sh", "-c", "echo out > /dev/stdout").stdout.split() == ["out"]

"""Each row of the table of escapes: tried against the wall, and against the same container without it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import pty
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minirt import capabilities, errors
from minirt.containers import log
from minirt.errors import MinirtError
from minirt.kernel import mount, paths, process
from minirt.namespaces import mnt, pid
from minirt.process import enter, handle, join, launch, terminal
from tests.acceptance.escapes import kit, table
from tests.acceptance.escapes.kit import python, run, specification

PAGE = Path(__file__).resolve().parent.parent.parent.parent / "chapters" / "escapes.md"
UP = "../" * 20
UNCONFINED = ("--security-opt", "seccomp=unconfined")
pytestmark = pytest.mark.caged
x86_64_only = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the attack's program is for x86-64")


def test_every_row_has_its_test_and_the_page_is_the_table() -> None:
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {row.name for row in table.ROWS} == tests - {"every_row_has_its_test_and_the_page_is_the_table"}
    assert PAGE.read_text() == table.page(), "python -m tests.acceptance.escapes.table > chapters/escapes.md"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory for `kit.specification`."""
    directory = tmp_path / "root"
    for name in ("etc", "tmp", "proc", "root"):
        (directory / name).mkdir(parents=True)
    (directory / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n")
    return directory


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the machine that no container has."""
    path = tmp_path / "secret"
    path.write_text("the machine's")
    return path


@pytest.fixture
def attack(tool: Any) -> Callable[..., str]:
    """`attack(source, *flags, words=())`: what the attack prints when `minirt run` runs it with these flags."""

    def go(source: str, *flags: str, words: tuple[str, ...] = ()) -> str:
        done = tool("run", "--rm", *flags, *kit.VOLUMES, "busybox", *python(source, *words), status=None)
        assert done.status == 0, done.err
        text: str = done.out.strip()
        return text

    return go


# -- the tree of files -----------------------------------------------------------------------------------------------


CHROOT = """
os.mkdir("/tmp/jail")
os.chroot("/tmp/jail")
for _ in range(64):
    os.chdir("..")
os.chroot(".")
print(os.path.exists(sys.argv[1]))
"""


def test_chroot(root: Path, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = specification(root, python(CHROOT, str(secret)))
    assert run(wanted) == "False\n"
    (root / "tmp/jail").rmdir()

    def chroot(root: int) -> None:
        os.fchdir(root)
        os.chroot(".")

    monkeypatch.setattr(mnt, "pivot", chroot)
    assert run(wanted) == "True\n"


def naive_mount_point(top: Path) -> Callable[..., int]:
    """Opens the place by path, as if the image could be trusted."""

    def open_by_path(root: int, path: str, directory: bool = True) -> int:
        place = f"{top}{path}"
        if directory:
            os.makedirs(os.path.realpath(place), exist_ok=True)
        elif not os.path.exists(place):
            Path(os.path.realpath(place)).touch()
        return os.open(place, os.O_PATH)

    return open_by_path


def test_mount_target_link(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(f"{UP}{outside}/made", root / "data")
    wanted = specification(root, python("print(os.path.exists('/data/file'))"))
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/file").touch()
    wanted["mounts"].append({"destination": "/data", "type": "bind", "source": str(tmp_path / "volume"), "options": []})
    assert run(wanted) == "True\n"
    assert not list(outside.iterdir())
    monkeypatch.setattr(paths, "make_mount_point", naive_mount_point(root))
    run(wanted)
    assert [path.name for path in outside.iterdir()] == ["made"]


def exchange(path: Path, other: Path) -> None:
    """Exchanges the two again and again, until it is killed."""
    while True:
        libc.renameat2(-100, os.fsencode(path), -100, os.fsencode(other), 2)


libc = ctypes.CDLL(None, use_errno=True)


def test_mount_target_race(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "place").mkdir(parents=True)
    (root / "volume/here/place").mkdir(parents=True)
    os.symlink(f"{UP}{outside}", root / "volume/there")
    attacker = process.fork_call(lambda: exchange(root / "volume/here", root / "volume/there"))
    top = os.open(root, os.O_PATH | os.O_DIRECTORY)

    def checked_first(path: str) -> int:
        place = f"{root}{path}"
        if not os.path.realpath(place).startswith(f"{root}/"):
            raise PermissionError(place)
        return os.open(place, os.O_PATH)

    def ways_out(opener: Callable[[str], int], seconds: float) -> int:
        out, end = 0, time.monotonic() + seconds
        while time.monotonic() < end and not out:
            try:
                place = opener("/volume/here/place")
            except OSError:
                continue
            out += not os.readlink(f"/proc/self/fd/{place}").startswith(f"{root}/")
            os.close(place)
        return out

    try:
        assert ways_out(lambda path: paths.make_mount_point(top, path, True), 1.5) == 0
        assert ways_out(checked_first, 20) > 0
    finally:
        os.kill(attacker, signal.SIGKILL)
        process.wait(attacker)
        os.close(top)


def test_proc_is_a_link(root: Path) -> None:
    (root / "proc").rmdir()
    os.symlink("/elsewhere/../evil", root / "proc")
    (root / "evil/sys/kernel").mkdir(parents=True)
    (root / "elsewhere").mkdir()
    wanted = specification(root, python(
        "print(attempt(lambda: len(open('/evil/timer_list').read())), "
        "attempt(lambda: os.stat('/evil/timer_list').st_rdev), "
        "attempt(os.open, '/evil/sys/kernel/core_pattern', os.O_WRONLY), os.path.exists('/evil/1/stat'))"))
    assert run(wanted).split() == ["0", str(os.makedev(1, 3)), "OSError", "True"]


def test_null_is_replaced(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container's /dev is a volume that somebody else has prepared."""
    (tmp_path / "dev").mkdir()
    os.symlink("/proc/sys/kernel/core_pattern", tmp_path / "dev/null")
    wanted = specification(root, python("print(open('/proc/timer_list').read(9))"))
    index = next(at for at, entry in enumerate(wanted["mounts"]) if entry["destination"] == "/dev")
    wanted["mounts"][index] = {"destination": "/dev", "type": "bind", "source": str(tmp_path / "dev"), "options": []}
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    assert run(wanted) == "\n"

    def mask(root: int, path: str) -> None:
        """As runc did: the container's own /dev/null is the cover."""
        try:
            target = paths.open_in_root(root, path, os.O_PATH)
        except OSError:
            return
        source = paths.open_in_root(root, "/dev/null", os.O_PATH)
        if not os.path.isdir(f"/proc/self/fd/{target}"):
            mount.move_mount(mount.clone("", source), target)

    monkeypatch.setattr(mnt, "mask", mask)
    assert run(wanted).strip() == pattern[:9]


def test_console_is_replaced(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "dev").mkdir()
    os.symlink(f"{UP}{outside}/made", tmp_path / "dev/console")

    def go() -> str:
        wanted = specification(root, python("print(os.ttyname(0), os.path.exists('/dev/console'))"), terminal=True)
        index = next(at for at, entry in enumerate(wanted["mounts"]) if entry["destination"] == "/dev")
        wanted["mounts"][index] = {"destination": "/dev", "type": "bind", "source": str(tmp_path / "dev"),
                                   "options": []}
        started = launch.prepare(wanted)
        text = b""
        try:
            started.start()
            while part := os.read(started.master, 4096):
                text += part
        except OSError:  # the last one at the other end is gone
            os.close(started.master)
        finally:
            started.wait()
            os.close(started.pidfd)
        return text.decode().strip()

    with pytest.raises(MinirtError, match="No such file"):
        go()
    assert not list(outside.iterdir())
    (tmp_path / "dev/console").unlink()
    assert go() == "/dev/pts/0 True"
    # And a pty beneath it that is none: what is mounted is compared with the pty itself.
    monkeypatch.setattr(terminal, "mount", SimpleNamespace(clone=lambda *_: mount.clone("/dev/null")))
    with pytest.raises(MinirtError, match="not the terminal"):
        go()
    monkeypatch.undo()
    os.symlink(f"{outside}/made", root / "console")
    monkeypatch.setattr(terminal, "attach_console",
                        lambda *_: os.close(naive_mount_point(root)(0, "/console", False)))
    go()
    assert [path.name for path in outside.iterdir()] == ["made"]


def test_proc_write_redirected(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of somebody else's stands where /proc is expected, its file a link to another one."""
    fake = tmp_path / "proc"
    (fake / "self").mkdir(parents=True)
    os.symlink("/victim", fake / "self/oom_score_adj")
    (root / "victim").write_text("as it was")
    wanted = specification(root, python("print(open('/victim').read())"), oomScoreAdj=7)
    wanted["mounts"][0] = {"destination": "/proc", "type": "bind", "source": str(fake), "options": []}
    assert run(wanted) == "as it was\n"

    def late(root: int) -> None:
        pivot(root)
        Path("/proc/self/oom_score_adj").write_text("7")

    pivot = mnt.pivot
    monkeypatch.setattr(mnt, "pivot", late)
    assert run(wanted) == "7\n"


def test_working_directory(root: Path, secret: Path, tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = os.open(secret.parent, os.O_PATH | os.O_DIRECTORY)
    high = fcntl.fcntl(kept, fcntl.F_DUPFD, 20)
    os.set_inheritable(high, True)
    look = f"print(os.path.exists('{secret.name}'), attempt(os.getcwd))"
    tool("run", "-d", "--name", "box", "busybox", "sleep", "100")
    for number in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, high):
        for where in (f"/proc/self/fd/{number}", f"/proc/1/fd/{number}", f"/proc/thread-self/fd/{number}"):
            assert tool("run", "--rm", "-w", where, "busybox", "ls", status=None).status in (125, 126, 127)
        done = tool("exec", "-w", f"/proc/self/fd/{number}", "box", "ls", status=None)
        assert done.status in (125, 126, 127), done.out
    os.symlink(f"/proc/self/fd/{high}", root / "trap")
    wanted = specification(root, python(look), cwd="/trap")
    with pytest.raises(MinirtError):
        run(wanted)
    # The wall removed: this descriptor stays open.
    monkeypatch.setattr(process, "close_from",
                        lambda first: (os.closerange(first, high), os.closerange(high + 1, 1 << 16)))
    with pytest.raises(MinirtError):
        run(wanted)
    monkeypatch.setattr(enter, "paths", SimpleNamespace(make_directories=lambda root, path: os.open(path, os.O_PATH)))
    root.joinpath("trap").unlink()
    wanted["process"]["cwd"] = f"/proc/self/fd/{high}"
    assert run(wanted).startswith("True")
    os.close(kept)
    os.close(high)


SHOCKER = """
handle = ctypes.create_string_buffer(bytes.fromhex(sys.argv[1]))
place = os.open("/volume", os.O_RDONLY)
got = call("open_by_handle_at", place, handle, os.O_RDONLY)
print(os.read(got, 100).decode() if got >= 0 else -got)
"""


def test_open_by_handle_at(tmp_path: Path, secret: Path, attack: Callable[..., str]) -> None:
    found = ctypes.create_string_buffer((128).to_bytes(4, "little") + bytes(4) + bytes(128))
    number = ctypes.c_int()
    assert libc.name_to_handle_at(-100, os.fsencode(secret), found, ctypes.byref(number), 0) == 0
    (tmp_path / "volume").mkdir()
    words = (found.raw[:8 + int.from_bytes(found.raw[:4], "little")].hex(),)
    flags = ("-v", f"{tmp_path}/volume:/volume")
    assert attack(SHOCKER, *flags, words=words) == "1"
    assert attack(SHOCKER, *flags, *UNCONFINED, words=words) == "1"
    assert attack(SHOCKER, *flags, "--cap-add", "DAC_READ_SEARCH", words=words) == "the machine's"


# -- the program that starts programs ----------------------------------------------------------------------------------


SCRIPT = """#!/proc/self/exe
import os
with open("/proof", "w") as file:
    file.write(os.readlink("/proc/self/exe"))
"""


def exposed(wanted: dict[str, Any], *_: Any) -> None:
    """The last exec without the sealed program."""
    os.execve(wanted["process"]["args"][0], wanted["process"]["args"], {"PATH": "/bin"})


def plant(root: Path) -> None:
    (root / "attack").write_text(SCRIPT)
    (root / "attack").chmod(0o755)


def wait_for(path: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not path.exists():
        time.sleep(0.01)
    return path.exists()


def test_exe_of_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(root)
    (root / "link").symlink_to("/proc/self/exe")

    def go(*args: str) -> bool:
        wanted = specification(root, args)
        wanted["linux"]["seccomp"] = None
        wanted["process"]["capabilities"] = {"bounding": list(capabilities.NAMES)}
        started = launch.prepare(wanted)
        started.start()
        seen = wait_for(root / "proof", 1)
        started.kill()
        started.wait()
        os.close(started.pidfd)
        return seen

    assert not go("/attack")
    assert not go("/link", "-I", "-c", "open('/proof', 'w')")
    monkeypatch.setattr(launch.enter, "execute", exposed)
    assert go("/attack")
    assert (root / "proof").read_text() == kit.PYTHON


WATCH = """
import time
known, got = {os.readlink("/proc/self/exe")}, set()
open("/watching", "w").close()
while not os.path.exists("/enough"):
    for pid in os.listdir("/proc"):
        if pid.isdigit() and int(pid) != os.getpid():
            for act in (lambda: os.readlink(f"/proc/{pid}/exe"), lambda: os.close(os.open(f"/proc/{pid}/exe", 0))):
                try:
                    got.add(str(act()))
                except OSError:
                    pass
print(sorted(got - {"None"}))
"""


@pytest.mark.parametrize("more", [(), ("SYS_PTRACE",)])
def test_exe_of_exec(root: Path, more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(root)
    granted = {"bounding": [*capabilities.DEFAULT, *more]}
    output, theirs = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    box = launch.prepare(specification(root, python(WATCH), capabilities=granted), stdio=(null, theirs, theirs))
    os.close(theirs)
    box.start()
    assert wait_for(root / "watching", 5)

    def go() -> bool:
        joined = join.prepare(box.pidfd, specification(root, ["/attack"], capabilities=granted), (null, null, null))
        try:
            joined.start()
        except MinirtError:
            pass
        seen = wait_for(root / "proof", 0.2)
        joined.kill()
        joined.wait()
        os.close(joined.pidfd)
        return seen

    try:
        assert not any(go() for _ in range(8))
        (root / "enough").touch()
        seen = b"".join(iter(lambda: os.read(output, 4096), b"")).decode()
        assert "memfd:minirt" in seen or seen.strip() == "[]"
        assert "python" not in seen
    finally:
        box.kill()
        box.wait()
        os.close(box.pidfd)
    (root / "enough").unlink()
    (root / "watching").unlink()
    box = launch.prepare(specification(root, python(WATCH)), stdio=(null, null, null))
    box.start()
    assert wait_for(root / "watching", 5)

    def forked(*words: Any) -> int:
        child = os.fork()
        if child == 0:
            exposed(*words)
        os.waitpid(child, 0)
        os._exit(0)

    monkeypatch.setattr(join.enter, "execute", forked)
    try:
        assert go()
        assert (root / "proof").read_text() == kit.PYTHON
    finally:
        box.kill()
        box.wait()
        os.close(box.pidfd)
        os.close(null)
        os.close(output)


INIT = """
print(attempt(os.readlink, "/proc/1/exe"), attempt(os.open, "/proc/1/exe", os.O_RDONLY))
print([line.split()[1] for line in open("/proc/1/status") if line.startswith(("CapEff", "Seccomp:"))])
print([line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "Seccomp:"))])
"""


def test_exe_of_init(attack: Callable[..., str], tool: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for flags in ((), ("--cap-add", "SYS_PTRACE"), ("--privileged",)):
        exe, theirs, ours = attack(INIT, "--init", *flags).splitlines()
        assert exe.startswith("/memfd:minirt")
        assert theirs == ours, "number 1 has more rights than the container"
    tool("run", "-d", "--name", "plain", "--init", "busybox", "sleep", "100")
    for flags in (("--cap-add", "SYS_PTRACE"), ("--privileged",)):
        assert attack(INIT, "--pid", "container:plain", *flags).startswith("/memfd:minirt")
    control = specification(root, python(INIT), capabilities={"bounding": [*capabilities.DEFAULT, "SYS_PTRACE"]})
    become = launch.enter.execute
    monkeypatch.setattr(launch.enter, "execute", lambda *words: os._exit(pid.init(lambda: become(*words), (3, 5))))
    exe, theirs, ours = run(control).splitlines()
    assert exe.startswith(kit.PYTHON) and theirs != ours


def planted_library(root: Path, *names: str) -> None:
    """Files of a stranger where the machine's standard library lies."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for name in names:
        path = root / str(library).lstrip("/") / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("open('/owned', 'w').write('by ' + __name__)\nx = 1 / 0\n")


def bare(root: Path) -> dict[str, Any]:
    """A specification without the machine's programs: what is imported late comes from the image or not at all."""
    wanted = specification(root, ["/nothing"])
    wanted["mounts"] = [entry for entry in wanted["mounts"] if entry["destination"] not in kit.BORROWED]
    return wanted


def failing(wanted: dict[str, Any]) -> str:
    """Run what cannot run; return the sentence."""
    with pytest.raises(MinirtError) as error:
        run(wanted)
    return str(error.value)


def late(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Let the process do `act` once its root is the image's."""

    def execute(*_: Any) -> None:
        act()

    monkeypatch.setattr(launch.enter, "execute", execute)


def behind_the_wall_and_without(root: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """`act` within the image's root does the image's bidding exactly when imports are not locked out."""
    late(monkeypatch, act)
    failing(bare(root))
    assert not (root / "owned").exists()
    monkeypatch.setattr(launch.enter, "lock_out_imports", lambda: None)
    failing(bare(root))
    assert (root / "owned").exists()


def test_python_imports(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted_library(root, "wave", "traceback", "linecache", "warnings", "socket", "json", "encodings/idna")
    for user in ("nobody-here", "0:nobody-here", "web"):
        failing({**bare(root), "process": {**bare(root)["process"], "user": {"name": user}}})
    assert not (root / "owned").exists()
    behind_the_wall_and_without(root, monkeypatch, lambda: __import__("wave"))


def test_python_codecs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted_library(root, "encodings/palmos")
    behind_the_wall_and_without(root, monkeypatch, lambda: "x".encode("palmos"))


def test_python_traceback(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = root / enter.__file__.lstrip("/")
    source.parent.mkdir(parents=True)
    source.write_text("from the image\n" * 400)
    planted_library(root, "traceback", "linecache", "tokenize")

    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(enter.users, "look_up", fail)
    printed, theirs = os.pipe()
    kept = os.dup(2)
    os.dup2(theirs, 2)
    try:
        sentence = failing(bare(root))
        monkeypatch.setattr(errors, "told", printed_by_python)
        monkeypatch.setattr(handle, "_arrange", keeping_stderr(handle._arrange))
        with pytest.raises(Exception):  # noqa: B017 - whatever comes of it
            run(bare(root))
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(theirs)
    control = os.read(printed, 1 << 16).decode()
    os.close(printed)
    assert "RuntimeError: broken" in sentence and "from the image" not in sentence
    assert "from the image" in control and not (root / "owned").exists()


def printed_by_python(error: BaseException) -> list[Any]:
    """What Python does with an error that nobody catches."""
    sys.stderr = os.fdopen(2, "w", closefd=False)
    sys.__excepthook__(type(error), error, error.__traceback__)
    sys.stderr.flush()
    return [125, ""]


def keeping_stderr(arrange: Callable[[list[int]], None]) -> Callable[[list[int]], None]:
    """The standard error stays the parent's."""
    return lambda wanted: arrange([wanted[0], wanted[1], 2, *wanted[3:]])


def test_name_services(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    library = root / "lib" / f"{os.uname().machine}-linux-gnu"
    library.mkdir(parents=True)
    source = ("#include <stdio.h>\n"
              "__attribute__((constructor)) static void own(void) { fclose(fopen(\"/owned\", \"w\")); }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library / "libnss_evil.so.2")],
                   input=source.encode(), check=True)
    (root / "etc/nsswitch.conf").write_text("passwd: evil\ngroup: evil\n")
    wanted = bare(root)
    for name in ("stranger", "web:strangers"):
        wanted["process"]["user"] = {"name": name, "groups": ["more"]}
        assert "unable to find" in failing(wanted)
    assert not (root / "owned").exists()
    # A new process: glibc reads nsswitch.conf once.
    naive = "import os, pwd, sys; os.chroot(sys.argv[1]); pwd.getpwnam('stranger')"
    subprocess.run([kit.PYTHON, "-I", "-S", "-c", naive, str(root)], check=False, capture_output=True)
    assert (root / "owned").exists()


# -- the kernel's own files --------------------------------------------------------------------------------------------


def opens_for_writing(path: str) -> list[str]:
    # It is opened and closed, never written to: what it does, it does to the whole machine.
    return python(f"print(isinstance(attempt(os.open, {path!r}, os.O_WRONLY), int))")


@pytest.fixture
def open_only(root: Path, tool: Any) -> Callable[[str], tuple[str, str]]:
    """Whether a file opens for writing, in `minirt run` and without read-only paths."""

    def go(path: str) -> tuple[str, str]:
        walled = tool("run", "--rm", *kit.VOLUMES, "busybox", *opens_for_writing(path)).out
        without = specification(root, opens_for_writing(path))
        without["linux"]["readonlyPaths"] = []
        return walled.strip(), run(without).strip()

    return go


def test_core_pattern(open_only: Callable[[str], tuple[str, str]]) -> None:
    assert open_only("/proc/sys/kernel/core_pattern") == ("False", "True")


def test_sysrq_trigger(open_only: Callable[[str], tuple[str, str]]) -> None:
    assert open_only("/proc/sysrq-trigger") == ("False", str(os.path.exists("/proc/sysrq-trigger")))


MASKED = """
print(sum(len(os.listdir(path)) if os.path.isdir(path) else os.path.exists(path) and len(open(path, "rb").read(64))
          for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")))
"""


def test_masked_files(root: Path, attack: Callable[..., str]) -> None:
    assert attack(MASKED) == "0"
    without = specification(root, python(MASKED))
    without["linux"]["maskedPaths"] = []
    assert int(run(without)) > 0


RELEASE_AGENT = """
os.mkdir("/tmp/groups")
print(call("mount", b"none", b"/tmp/groups", sys.argv[1].encode(), 0, sys.argv[2].encode()),
      attempt(os.mkdir, "/tmp/groups/mine"))
attempt(os.rmdir, "/tmp/groups/mine")
"""


def test_release_agent(attack: Callable[..., str]) -> None:
    lines = [line.rstrip().split(":") for line in Path("/proc/self/cgroup").read_text().splitlines()]
    kinds = [(("cgroup", names) if names else ("cgroup2", "")) for _, names, _ in lines]
    words = next((each for each in kinds if each == ("cgroup", "freezer")), kinds[-1])
    assert attack(RELEASE_AGENT, words=words).startswith("-1 ")
    assert attack(RELEASE_AGENT, *UNCONFINED, words=words).startswith("-1 ")
    assert attack(RELEASE_AGENT, "--cap-add", "SYS_ADMIN", words=words) == "0 None"


GROUP_FILES = """
top = "/sys/fs/cgroup"
inner = [top] + [os.path.join(top, name) for name in sorted(os.listdir(top)) if os.path.isdir(os.path.join(top, name))]
made = [attempt(os.mkdir, f"{path}/mine") for path in inner]
for path in inner:
    attempt(os.rmdir, f"{path}/mine")
print(any(each is None for each in made))
"""


def test_cgroup_files(attack: Callable[..., str]) -> None:
    assert attack(GROUP_FILES) == "False"
    assert attack(GROUP_FILES, "--privileged") == "True"


def test_cgroup_namespace(attack: Callable[..., str]) -> None:
    look = "print({line.rstrip().split(':', 2)[2] for line in open('/proc/self/cgroup')})"
    assert attack(look) == "{'/'}"
    assert "minirt/" in attack(look, "--cgroupns", "host")


MKNOD = """
import stat
for at in range(1, len(sys.argv), 3):
    kind, major, minor = sys.argv[at], int(sys.argv[at + 1]), int(sys.argv[at + 2])
    os.mknod("/dev/tried", 0o600 | (stat.S_IFBLK if kind == "b" else stat.S_IFCHR), os.makedev(major, minor))
    print(isinstance(attempt(os.open, "/dev/tried", os.O_RDONLY | os.O_NONBLOCK), int))
    os.unlink("/dev/tried")
"""


def test_device_nodes(attack: Callable[..., str]) -> None:
    disks = [("b", *line.split()[:2]) for line in Path("/proc/partitions").read_text().splitlines()[2:]]
    others = [("c", "1", "11"), ("c", "10", "229"), ("c", "10", "200")]  # the kernel's log, FUSE, network tunnels
    tried = [*disks[:2], *others]
    assert set(attack(MKNOD, words=tuple(word for each in tried for word in each)).split()) == {"False"}
    # Where this machine's own root may open no disk either, the control is the first device that he may open.
    mine = next(each for each in tried if opens_here(*each))
    flags = ("--device-cgroup-rule", f"{mine[0]} {mine[1]}:{mine[2]} rmw")
    assert attack(MKNOD, words=mine) == "False"
    assert attack(MKNOD, *flags, words=mine) == "True"


def opens_here(kind: str, major: str, minor: str) -> bool:
    """Whether this process may make and open a device."""
    os.mknod("/dev/tried", 0o600 | (stat.S_IFBLK if kind == "b" else stat.S_IFCHR), os.makedev(int(major), int(minor)))
    try:
        os.close(os.open("/dev/tried", os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return False
    finally:
        os.unlink("/dev/tried")
    return True


KEYS = """
key = call("keyctl", 10, -4, b"user", b"minirt-escape", 0)  # KEYCTL_SEARCH in the user's keyring
buffer = ctypes.create_string_buffer(64)
got = call("keyctl", 11, key, buffer, 64) if key > 0 else key  # KEYCTL_READ
print(buffer.value.decode() if got > 0 else got)
"""


def test_keyrings(attack: Callable[..., str]) -> None:
    key = libc.syscall(kit.CALLS["add_key"], b"user", b"minirt-escape", b"the machine's", 13, -4)
    assert key > 0, os.strerror(ctypes.get_errno())
    try:
        assert attack(KEYS) == "-1"
        assert attack(KEYS, *UNCONFINED) == "the machine's"
    finally:
        libc.syscall(kit.CALLS["keyctl"], 9, key, -4)  # KEYCTL_UNLINK


# -- other processes -------------------------------------------------------------------------------------------------


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the machine, with a pid that no container is likely to have."""
    while process.wait(number := process.fork_call(lambda: None)) or number < 100:
        pass
    child = subprocess.Popen(["sleep", "100"])
    yield child
    child.kill()
    child.wait()


def test_signals(attack: Callable[..., str], victim: subprocess.Popen[bytes]) -> None:
    source = f"print(attempt(os.kill, {victim.pid}, 9))"
    assert attack(source) == "ProcessLookupError"
    assert victim.poll() is None
    assert attack("print(attempt(os.kill, -1, 9))") in ("ProcessLookupError", "None")
    assert victim.poll() is None
    assert attack(source, "--pid", "host") == "None"
    assert victim.wait(5) == -9


def test_ptrace(attack: Callable[..., str], victim: subprocess.Popen[bytes]) -> None:
    source = f"print(call('ptrace', 16, {victim.pid}, 0, 0), attempt(os.open, '/proc/{victim.pid}/mem', 0))"
    assert attack(source, "--cap-add", "SYS_PTRACE") == "-3 FileNotFoundError"
    more = ("--cap-add", "SYS_PTRACE", "--pid", "host", "--privileged")
    assert attack(source, *more).startswith("0 ")


def test_joined_pid_namespace(tool: Any, root: Path, victim: subprocess.Popen[bytes]) -> None:
    tool("run", "-d", "--name", "other", "busybox", "sleep", "100")
    look = "print(os.readlink('/proc/self/ns/pid'), [pid for pid in os.listdir('/proc') if pid.isdigit()], os.getpid())"
    done = tool("run", "--rm", "--pid", "container:other", *kit.VOLUMES, "busybox", *python(look))
    other = tool.pid("other")
    assert done.out.startswith(os.readlink(f"/proc/{other}/ns/pid")) and str(victim.pid) not in done.out
    wanted = specification(root, python(look))
    kinds = [entry for entry in wanted["linux"]["namespaces"] if entry["type"] != "pid"]
    wanted["linux"]["namespaces"] = kinds  # born where the parent is, as every process that only calls setns(2)
    assert str(victim.pid) in run(wanted)


WATCH_RIGHTS = """
import time
got = set()
open("/watching", "w").close()
while not os.path.exists("/enough"):
    for pid in os.listdir("/proc"):
        if pid.isdigit() and int(pid) != os.getpid():
            try:
                exe = os.readlink(f"/proc/{pid}/exe")
                for line in open(f"/proc/{pid}/status"):
                    if line.startswith("CapEff"):
                        got.add((exe, line.split()[1]))
            except OSError:
                pass
print(len(got), *sorted(got))
"""


def test_newcomer(root: Path) -> None:
    (root / "busybox").write_bytes(Path(shutil.which("busybox") or "/bin/busybox").read_bytes())
    (root / "busybox").chmod(0o755)

    def seen_by_the_first(come_in: Callable[[int], launch.Handle]) -> str:
        output, theirs = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        granted = {"bounding": [*capabilities.DEFAULT, "SYS_PTRACE"]}
        box = launch.prepare(specification(root, python(WATCH_RIGHTS), capabilities=granted),
                             stdio=(null, theirs, theirs))
        os.close(theirs)
        try:
            box.start()
            assert wait_for(root / "watching", 5)
            for _ in range(8):
                handle = come_in(box.pid)
                handle.start()
                handle.wait()
                os.close(handle.pidfd)
            (root / "enough").touch()
            return b"".join(iter(lambda: os.read(output, 4096), b"")).decode()
        finally:
            box.kill()
            box.wait()
            for descriptor in (box.pidfd, null, output):
                os.close(descriptor)
            (root / "watching").unlink()
            (root / "enough").unlink(missing_ok=True)

    def outside(pid: int) -> launch.Handle:
        wanted = specification(root, ["/busybox", "sleep", "0.1"])
        kinds = [entry for entry in wanted["linux"]["namespaces"] if entry["type"] != "pid"]
        wanted["linux"]["namespaces"] = [*kinds, {"type": "pid", "path": f"/proc/{pid}/ns/pid"}]
        return launch.prepare(wanted)

    def within(pid: int) -> launch.Handle:
        wanted = specification(root, ["/busybox", "sleep", "0.1"])
        kinds = [entry for entry in wanted["linux"]["namespaces"] if entry["type"] != "pid"]
        wanted["linux"]["namespaces"] = kinds
        own, other = [os.open(name, os.O_RDONLY) for name in ("/proc/self/ns/pid", f"/proc/{pid}/ns/pid")]
        launch.syscalls.setns(other)
        try:
            return launch.prepare(wanted)
        finally:
            launch.syscalls.setns(own)
            os.close(own)
            os.close(other)

    seen = seen_by_the_first(outside)
    assert "/busybox" in seen and "python" not in seen, seen
    assert seen.count("a80425fb") == int(seen.split()[0]), seen
    assert kit.PYTHON in seen_by_the_first(within)


def test_abstract_sockets(attack: Callable[..., str]) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("\0minirt-escape")
    listening.listen()
    source = "import socket\nprint(attempt(socket.socket(socket.AF_UNIX).connect, '\\0minirt-escape'))"
    with listening:
        assert attack(source) == "ConnectionRefusedError"
        assert attack(source, "--network", "host") == "None"
    listens = "print([line.split()[-1] for line in open('/proc/net/unix') if '@' in line])"
    assert attack(listens, "--network", "host") == "[]", "minirt itself listens where a container could call"


TYPE = """
import fcntl
for name in ("0", "1", "2", "/dev/tty"):
    try:
        place = os.open(name, os.O_RDWR) if name[0] == "/" else int(name)
        for letter in b"typed\\n":
            fcntl.ioctl(place, 0x5412, bytes([letter]))
        break
    except OSError:
        pass
"""


def test_tiocsti(root: Path, tool: Any) -> None:
    """In a process of its own whose controlling terminal is a new pty, as a user's shell has one."""

    def with_terminal(act: Callable[[int], None]) -> bytes:
        pid, master = pty.fork()
        if pid == 0:
            settings = termios.tcgetattr(0)
            settings[3] &= ~termios.ECHO
            termios.tcsetattr(0, termios.TCSANOW, settings)
            try:
                act(0)
                os.set_blocking(0, False)
                time.sleep(0.1)
                data = os.read(0, 100)
            except BlockingIOError:
                data = b"nothing"
            except BaseException as error:
                data = repr(error).encode()
            os.write(1, b"<" + data.strip() + b">")
            os._exit(0)
        text = b""
        try:
            while part := os.read(master, 1 << 16):
                text += part
        except OSError:
            pass
        os.waitpid(pid, 0)
        os.close(master)
        return text[text.rfind(b"<"):]

    words = tool.words("run", "--rm", *kit.VOLUMES, "busybox", *python(TYPE))
    interactive = tool.words("run", "--rm", "-i", *kit.VOLUMES, "busybox", *python(TYPE))
    environment = tool.environment

    def start(words: list[str]) -> Callable[[int], None]:
        return lambda slave: subprocess.run(words, env=environment, check=True, timeout=30) and None

    assert with_terminal(start(words)) == b"<nothing>"
    assert with_terminal(start(interactive)) == b"<nothing>"

    def handed_in(slave: int) -> None:
        os.setsid = lambda: None  # type: ignore[assignment]
        run(specification(root, python(TYPE)), stdin=slave)

    legacy = Path("/proc/sys/dev/tty/legacy_tiocsti")
    if legacy.exists() and legacy.read_text().strip() == "0":
        return  # this kernel refuses it to everybody: there is nothing to compare with
    assert with_terminal(handed_in) == b"<typed>"


# -- rights ----------------------------------------------------------------------------------------------------------


MAPS = """
NEWUSER = 0x10000000
results = [call("unshare", NEWUSER)]
if not results[0]:
    open("/proc/self/setgroups", "w").write("deny")
    open("/proc/self/uid_map", "w").write("0 0 1")
    results += [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")]
else:
    child = call("clone", NEWUSER | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    results += [child, call("clone3", ctypes.create_string_buffer(NEWUSER.to_bytes(8, "little") + bytes(80)), 88)]
print(*results)
"""


def test_user_namespaces(attack: Callable[..., str]) -> None:
    assert attack(MAPS) == "-1 -1 -38"
    code, granted = attack(MAPS, *UNCONFINED).split()
    assert code == "0" and int(granted, 16) & 1 << 21, "SYS_ADMIN in the new namespace"


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Callable[[str, bytes, int], str]]:
    """`programs(name, content, mode)`: a program in the volume /programs; returns its path in there."""
    directory = tmp_path / "programs"
    directory.mkdir()
    directory.chmod(0o755)

    def make(name: str, content: bytes, mode: int = 0o755) -> str:
        (directory / name).write_bytes(content)
        (directory / name).chmod(mode)
        return f"/programs/{name}"

    make.volume = ("-v", f"{directory}:/programs")  # type: ignore[attr-defined]
    yield make


@x86_64_only
def test_setuid(tool: Any, programs: Any) -> None:
    path = programs("who", kit.tell_user(), 0o4755)
    flags = ("--rm", "-u", "77", *programs.volume)
    assert tool("run", *flags, "--security-opt", "no-new-privileges", "busybox", path, status=None).status == 77
    assert tool("run", *flags, "busybox", path, status=None).status == 0


def test_inheritable(root: Path, tmp_path: Path, tool: Any) -> None:
    show = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith(('CapEff', 'CapInh'))])"
    done = tool("run", "--rm", "-u", "77", *kit.VOLUMES, "busybox", *python(show))
    assert done.out.strip() == str(["0" * 16, "0" * 16])
    tool("run", "-d", "--name", "box", *kit.VOLUMES, "busybox", "sleep", "100")
    assert tool("exec", "-u", "77", "box", *python(show)).out.strip() == str(["0" * 16, "0" * 16])
    # A program whose file has an inheritable capability.
    shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "cat")
    os.setxattr(root / "cat", capabilities.FILE_ATTRIBUTE, capabilities.file_value(0, 1 << 7))
    wanted = specification(root, ["/cat", "/proc/self/status"], user={"name": "77"})
    assert "CapEff:\t0000000000000000" in run(wanted)
    all_of_them = list(capabilities.DEFAULT)
    wanted["process"]["capabilities"] = {"bounding": all_of_them, "permitted": all_of_them, "effective": [],
                                         "inheritable": ["SETUID"]}
    assert "CapEff:\t0000000000000080" in run(wanted)


def test_groups(tool: Any) -> None:
    assert tool("run", "--rm", "-u", "77:88", "busybox", "id", "-G").out.split() == ["88"]
    done = tool("run", "--rm", "-u", "77:88", *kit.VOLUMES, "busybox", *python("print(os.getgroups())"))
    assert done.out.strip() == "[88]"


def the_kernel_makes_it(tool: Any, programs: Any, content: bytes) -> tuple[int, int]:
    """The error numbers of a call: in a container, and in one without a filter."""
    path = programs("call", content)
    return (tool("run", "--rm", *programs.volume, "busybox", path, status=None).status,
            tool("run", "--rm", *UNCONFINED, *programs.volume, "busybox", path, status=None).status)


KEYCTL_GET, MINE = 0, -2  # KEYCTL_GET_KEYRING_ID of KEY_SPEC_PROCESS_KEYRING, made where it is missing


@x86_64_only
def test_i386_calls(tool: Any, programs: Any) -> None:
    number = kit.numbers.numbers("i386")["keyctl"]
    walled, without = the_kernel_makes_it(tool, programs, kit.call_i386(number, KEYCTL_GET, MINE))
    if without == 139:
        pytest.skip("this kernel runs no 32-bit programs")
    assert walled == 1 and without in (0, 126)  # ENOKEY: there is no such keyring yet, says the kernel itself


@x86_64_only
def test_x32_calls(tool: Any, programs: Any) -> None:
    number = kit.numbers.numbers("x32")["keyctl"] | kit.numbers.X32_BIT
    walled, without = the_kernel_makes_it(tool, programs, kit.call_x86_64(number, KEYCTL_GET, MINE))
    assert walled == 1 and without in (0, 126, 38)  # ENOSYS: this kernel knows no x32, but the filter was asked first
    plain = kit.numbers.numbers("x86_64")["keyctl"]
    assert the_kernel_makes_it(tool, programs, kit.call_x86_64(plain, KEYCTL_GET, MINE))[0] == 1


FORBIDDEN = """
names = ("bpf userfaultfd io_uring_setup perf_event_open kexec_load fsopen open_tree move_mount add_key keyctl "
         "request_key init_module finit_module delete_module swapon reboot settimeofday setns pivot_root acct").split()
print(*[-call(name, -1, 0, 0, 0, 0) for name in names if name not in sys.argv])
"""


def test_forbidden_calls(attack: Callable[..., str]) -> None:
    assert set(attack(FORBIDDEN).split()) == {"1"}
    harmless = ("reboot", "kexec_load", "settimeofday", "swapon", "acct", "pivot_root", "init_module", "delete_module",
                "finit_module")
    assert len(set(attack(FORBIDDEN, *UNCONFINED, words=harmless).split()) - {"1"}) > 1


# -- and more of the same -------------------------------------------------------------------------------------------


def test_mount_over_proc(tool: Any, root: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "sys/kernel").mkdir(parents=True)
    (theirs / "sys/kernel/msgmax").touch()
    (theirs / "version").write_text("the attacker's")
    for place in ("/proc", "/proc/sys", "/proc/self/attr"):
        refused = tool("run", "--rm", "-v", f"{tmp_path}/theirs:{place}", "busybox", "true", status=125).err
        assert f'"{place}" cannot be mounted because it is' in refused
        assert "cannot be mounted" in tool("run", "--rm", "--tmpfs", place, "busybox", "true", status=125).err
    assert tool("run", "--rm", "-v", "/etc/hostname:/proc/uptime", "busybox", "cat", "/proc/uptime").out
    wanted = specification(root, python("print(open('/proc/version').read())"))
    wanted["linux"].update(maskedPaths=[], readonlyPaths=[])
    wanted["mounts"].append({"destination": "/proc", "type": "bind", "source": str(theirs), "options": ["rbind"]})
    assert run(wanted) == "the attacker's\n"
    wanted["linux"]["sysctl"] = {"kernel.msgmax": "77"}
    with pytest.raises(MinirtError, match="is not one of a proc file system"):
        run(wanted)
    assert (theirs / "sys/kernel/msgmax").read_text() == ""


MASKS = ("umount /proc/acpi 2>/dev/null || umount /proc/keys 2>/dev/null && echo off; mkdir -p /tmp/p; "
         "mount -t proc p /tmp/p 2>/dev/null && echo new")


def test_masks_taken_off(tool: Any) -> None:
    own = ("busybox", "unshare", "-Urmpf", "sh", "-c", MASKS)
    assert tool("run", "--rm", *UNCONFINED, *own, status=None).out == ""
    bare = ("--security-opt", "systempaths=unconfined")
    assert tool("run", "--rm", *UNCONFINED, *bare, *own, status=None).out == "new\n"


def test_kernel_log(attack: Callable[..., str]) -> None:
    read = "print(call('syslog', 3, ctypes.create_string_buffer(100), 100))"  # SYSLOG_ACTION_READ_ALL
    assert attack(read) == "-1" and attack(read, *UNCONFINED) == "-1"
    assert int(attack(read, "--cap-add", "SYSLOG")) >= 0


SYSFS = """
opened = 0
for place, _, names in os.walk("/sys/kernel"):
    for name in names[:20]:
        path = f"{place}/{name}"
        if os.lstat(path).st_mode & 0o200 and not os.path.islink(path):
            number = attempt(os.open, path, os.O_WRONLY | os.O_NONBLOCK)
            opened += isinstance(number, int)
print(opened)
"""


def test_sysfs_files(attack: Callable[..., str]) -> None:
    assert attack(SYSFS) == "0"
    assert int(attack(SYSFS, "--privileged")) > 0


def test_exec_privileged(tool: Any, attack: Callable[..., str]) -> None:
    tried = [("b", *line.split()[:2]) for line in Path("/proc/partitions").read_text().splitlines()[2:]][:1]
    tried += [("c", "1", "11"), ("c", "10", "229")]  # the kernel's log, FUSE
    mount = "print(call('mount', b't', b'/tmp', b'tmpfs', 0, None))"
    for name, flags in (("plain", ()), ("open", ("--privileged",))):
        tool("run", "-d", "--name", name, *flags, *kit.VOLUMES, "busybox", "sleep", "100")
        words = tuple(word for each in tried for word in each)
        opened = tool("exec", "--privileged", name, *python(MKNOD, *words)).out.split()
        mounted = tool("exec", "--privileged", name, *python(mount)).out.strip()
        assert ("True" in opened, mounted) == ((True, "0") if flags else (False, "-1"))


def test_files_of_processes(attack: Callable[..., str], victim: subprocess.Popen[bytes]) -> None:
    source = f"print(attempt(os.listdir, '/proc/{victim.pid}/root'), attempt(os.readlink, '/proc/{victim.pid}/exe'))"
    assert attack(source, "--pid", "host") == "PermissionError PermissionError"
    assert attack(source, "--pid", "host", "--privileged").startswith("['")


def test_shared_memory(tool: Any) -> None:
    for name, flags in (("private", ()), ("open", ("--ipc", "shareable"))):
        tool("run", "-d", "--name", name, *flags, "busybox", "sleep", "100")
        tool("exec", name, "sh", "-c", "echo theirs > /dev/shm/note")
        done = tool("run", "--rm", "--ipc", f"container:{name}", "busybox", "cat", "/dev/shm/note", status=None)
        assert (done.status, done.out) == ((0, "theirs\n") if flags else (125, ""))


def test_log_forged(tool: Any, tmp_path: Path) -> None:
    line = '{"log":"forged\\n","stream":"stderr","time":"2020-01-01T00:00:00.000000000Z"}'
    for text in (line, f'x{line[7:]}', f'x\\{line[7:]}', f'x\r{line}'):
        tool("run", "--name", "box", "busybox", "printf", "%s\\n", text)
        assert tool("logs", "box").raw == f"{text}\n".encode() and tool("logs", "--since", "1h", "box").err == ""
        tool("rm", "box")
    (tmp_path / "log").write_text(line + "\n")
    [entry] = log.Reader(f"{tmp_path}/log").entries()
    assert (entry.stream, entry.data) == ("stderr", b"forged\n")


def test_priority(attack: Callable[..., str]) -> None:
    source = "print(attempt(os.setpriority, os.PRIO_PROCESS, 0, -10))"
    assert attack(source) == "PermissionError" and attack(source, *UNCONFINED) == "PermissionError"
    assert attack(source, "--cap-add", "SYS_NICE") == "None"


def test_hypervisor_sockets(attack: Callable[..., str]) -> None:
    source = "print(call('socket', 40, 1, 0))"  # AF_VSOCK
    assert attack(source) == "-1"
    assert attack(source, *UNCONFINED) != "-1"  # a descriptor, or EAFNOSUPPORT

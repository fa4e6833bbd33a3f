"""The container process (chapter 12, planned): what launch.prepare builds, from inside and from outside."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minirt import capabilities
from minirt.cgroups import tree
from minirt.errors import CannotInvokeError, CommandNotFoundError, MinirtError
from minirt.kernel import process
from minirt.process import join, launch, program, spec, terminal, users

pytestmark = pytest.mark.caged

HOST = [path for path in ("/usr", "/bin", "/lib", "/lib64") if os.path.exists(path)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory that borrows the machine's programs."""
    directory = tmp_path / "root"
    for name in ("etc", "tmp", "proc", "root"):
        (directory / name).mkdir(parents=True)
    (directory / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv/web:/bin/sh\n")
    (directory / "etc/group").write_text("www:x:34:\nlog:x:4:other,web\n")
    return directory


def specification(root: Path, *args: str, **changes: Any) -> dict[str, Any]:
    wanted = spec.default(args, str(root), "box")
    wanted["mounts"] += [{"destination": path, "type": "bind", "source": os.path.realpath(path),
                          "options": ["rbind", "ro"]} for path in HOST]
    wanted["process"].update(changes)
    return wanted


class Run:
    """What a container process printed and how it ended."""

    def __init__(self, wanted: dict[str, Any], between: Callable[[launch.Handle], None] | None = None) -> None:
        output, theirs = os.pipe()
        handle = launch.prepare(wanted, stdio=(os.open("/dev/null", os.O_RDONLY), theirs, theirs))
        os.close(theirs)
        try:
            handle.ready()
            if between:
                between(handle)
            handle.start()
            self.text = b"".join(iter(lambda: os.read(output, 1 << 16), b"")).decode()
        except BaseException:
            handle.kill()
            raise
        finally:
            self.code = process.exit_code(handle.wait())
            os.close(output)


def run(root: Path, *args: str, **changes: Any) -> Run:
    return Run(specification(root, *args, **changes))


def test_every_wall_stands_on_both_sides(root: Path) -> None:
    kinds = ("pid", "uts", "mnt", "ipc", "net")
    ours = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}
    seen: dict[str, str] = {}
    ran = Run(specification(root, "sh", "-c", "uname -n; echo $$; for n in pid uts mnt ipc net; do "
                            "readlink /proc/self/ns/$n; done; echo /proc/[0-9]*; ls /"),
              lambda handle: seen.update({kind: os.readlink(f"/proc/{handle.pid}/ns/{kind}") for kind in kinds}))
    name, pid, *rest = ran.text.split("\n")
    assert (name, pid) == ("box", "1")
    assert dict(zip(kinds, rest[:5], strict=True)) == seen
    assert all(seen[kind] != ours[kind] for kind in kinds)
    assert rest[5] in ("/proc/1", "/proc/1 /proc/2")
    assert set(rest[6:]) - {""} == {"bin", "dev", "etc", "lib", "lib64", "proc", "root", "sys", "tmp", "usr"} & (
        set(os.listdir(root)) | {"dev", "sys"})
    assert os.uname().nodename != "box"


def test_the_command_finds_three_descriptors_and_no_more(root: Path) -> None:
    kept = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        # The shell itself opens none; its glob holds one while it reads the directory.
        assert run(root, "sh", "-c", "cd /proc/self/fd; echo *").text.split() in (["0", "1", "2"], ["0", "1", "2", "3"])
        assert run(root, "sh", "-c", "readlink /proc/self/cwd").text.strip() == "/"
    finally:
        os.close(kept)


def test_exit_codes_and_sentences_are_dockers(root: Path) -> None:
    assert run(root, "sh", "-c", "exit 0").code == 0
    assert run(root, "sh", "-c", "exit 125").code == 125
    assert run(root, "sh", "-c", "sh -c 'kill -9 $$'").code == 137
    with pytest.raises(CommandNotFoundError, match=r'exec: "nothing": executable file not found in \$PATH') as error:
        run(root, "nothing")
    assert error.value.exit_code == 127
    with pytest.raises(CommandNotFoundError, match="no such file or directory"):
        run(root, "/nothing")
    with pytest.raises(CannotInvokeError, match="permission denied") as refused:
        run(root, "/etc/passwd")
    assert refused.value.exit_code == 126
    with pytest.raises(CannotInvokeError):
        run(root, "/etc")
    (root / "broken").write_bytes(b"\x7fELF nonsense")
    (root / "broken").chmod(0o755)
    with pytest.raises(CannotInvokeError, match="exec format error"):
        run(root, "/broken")
    (root / "script").write_text("#!/no/interpreter\n")
    (root / "script").chmod(0o755)
    with pytest.raises(CommandNotFoundError, match="no such file or directory"):
        run(root, "/script")


def test_a_user_is_looked_up_in_the_containers_own_files(root: Path) -> None:
    show = ("sh", "-c", "id -u; id -g; id -G; echo $HOME")
    assert run(root, *show, user={"name": "web"}).text.split() == ["33", "34", "34", "4", "/srv/web"]
    assert run(root, *show, user={"name": "web:4"}).text.split() == ["33", "4", "4", "/srv/web"]
    assert run(root, *show, user={"name": "12345:23456"}).text.split() == ["12345", "23456", "23456", "/"]
    ran = run(root, *show, user={"name": "", "groups": ["www", "77"]})
    assert ran.text.split() == ["0", "0", "0", "34", "77", "/root"]
    with pytest.raises(MinirtError, match="unable to find user nobody-here"):
        run(root, "true", user={"name": "nobody-here"})
    with pytest.raises(MinirtError, match="unable to find group nogroup-here"):
        run(root, "true", user={"name": "0:nogroup-here"})


@pytest.mark.parametrize("trick", ["fifo", "link", "missing", "directory"])
def test_a_hostile_passwd_neither_hangs_nor_leaks(root: Path, trick: str) -> None:
    (root / "etc/passwd").unlink()
    secret = root.parent / "secret"
    secret.write_text("web:x:77:77::/stolen:/bin/sh\n")
    if trick == "fifo":
        os.mkfifo(root / "etc/passwd")
    elif trick == "link":
        os.symlink(f"../../../../../..{secret}", root / "etc/passwd")
    elif trick == "directory":
        (root / "etc/passwd").mkdir()
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY)
    with pytest.raises(MinirtError, match="unable to find user web"):
        users.look_up(descriptor, "web")
    os.close(descriptor)


def test_a_read_only_root_and_masked_paths(root: Path) -> None:
    wanted = specification(root, "sh", "-c", "echo x > /new; echo x > /tmp/new; echo 1 > /proc/sys/kernel/panic; "
                           "wc -c < /proc/timer_list; ls /sys/firmware; echo end")
    wanted["root"]["readonly"] = True
    ran = Run(wanted)
    assert ran.text.count("Read-only file system") == 3
    assert ran.text.split("\n")[-3:] == ["0", "end", ""]
    assert not (root / "new").exists()


def test_a_mount_lands_within_the_root_whatever_the_links_say(root: Path) -> None:
    victim = root.parent / "victim"
    victim.mkdir()
    os.symlink(f"../../../../..{victim}", root / "data")
    (root.parent / "source").mkdir()
    (root.parent / "source/file").write_text("hello")
    wanted = specification(root, "cat", "/data/file")
    source = str(root.parent / "source")
    wanted["mounts"].append({"destination": "/data", "type": "bind", "source": source, "options": []})
    assert Run(wanted).text == "hello"
    assert not list(victim.iterdir())


def test_the_working_directory_is_made_and_entered(root: Path) -> None:
    assert run(root, "pwd", cwd="/srv/new").text == "/srv/new\n"
    os.symlink("/proc/self/fd/3", root / "trap")
    with pytest.raises(MinirtError):
        run(root, "pwd", cwd="/trap")


def test_limits_and_oom_score(root: Path) -> None:
    ran = run(root, "sh", "-c", "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj",
              rlimits=[{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}], oomScoreAdj=500)
    assert ran.text.split() == ["77", "88", "500"]


def test_signals_are_as_a_program_expects_them(root: Path) -> None:
    status = run(root, "cat", "/proc/self/status").text
    values = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
    internal = 0b11 << 31  # 32 and 33 are the C library's own: it lets nobody touch them, also not us
    assert int(values["SigIgn"], 16) & ~internal == 0 and int(values["SigBlk"], 16) & ~internal == 0


def test_a_terminal_of_the_containers_own(root: Path) -> None:
    script = "tty; test -c /dev/console && stty size; read line; echo got $line"
    handle = launch.prepare(specification(root, "sh", "-c", script, terminal=True))
    handle.ready()
    terminal.resize(handle.master, 24, 100)
    handle.start()
    text = b""
    while b"100" not in text:
        text += os.read(handle.master, 4096)
    os.write(handle.master, b"word\n")
    while True:
        try:
            part = os.read(handle.master, 4096)
        except OSError:  # EIO: the last one at the other end is gone
            break
        text += part
    assert text.decode().replace("\r", "").split("\n") == ["/dev/pts/0", "24 100", "word", "got word", ""]
    assert process.exit_code(handle.wait()) == 0
    os.close(handle.master)


@pytest.mark.parametrize("more", [(), ("SYS_PTRACE",)])
def test_an_init_reaps_and_forwards(root: Path, more: tuple[str, ...]) -> None:
    granted = {"bounding": [*capabilities.DEFAULT, *more]}
    script = "(sleep 0.05 & ) ; sleep 0.3; for p in /proc/[0-9]*/stat; do read -r l < $p; echo $l; done; exit 9"
    ran = run(root, "sh", "-c", script, init=True, capabilities=granted)
    assert ran.code == 9
    assert ran.text.splitlines()[0].startswith("1 (minirt-init)")
    assert not [line for line in ran.text.splitlines() if ") Z " in line]
    again = ("sh", "-c", "trap 'echo got it; exit 4' USR1; kill -USR1 1; while :; do sleep 0.05; done")
    ran = run(root, *again, init=True, capabilities=granted)
    assert (ran.text, ran.code) == ("got it\n", 4)
    assert run(root, "sh", "-c", "kill -9 $$", init=True, capabilities=granted).code == 137
    with pytest.raises(CommandNotFoundError):
        run(root, "nothing", init=True, capabilities=granted)
    (root / "broken").write_bytes(b"\x7fELF nonsense")
    (root / "broken").chmod(0o755)
    with pytest.raises(CannotInvokeError, match="exec format error"):
        run(root, "/broken", init=True, capabilities=granted)


def test_it_is_born_in_its_cgroup_and_killed_with_it(root: Path) -> None:
    group = tree.group("minirt/test")
    group.create()
    handle = launch.prepare(specification(root, "sh", "-c", "sleep 100 & sleep 100"), group=group)
    handle.ready()
    assert handle.pid in group.processes()
    handle.start()
    deadline = time.monotonic() + 5
    while len(group.processes()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(group.processes()) >= 2
    group.freeze(True)
    group.freeze(False)
    group.kill()
    assert process.exit_code(handle.wait()) == 137
    group.remove()
    group.close()
    assert not os.path.exists(group.path)
    os.rmdir(os.path.dirname(group.path))


def test_it_ends_when_its_parent_ends_before_the_start(root: Path) -> None:
    told, tell = os.pipe()

    def parent() -> int:
        handle = launch.prepare(specification(root, "sleep", "100"))
        handle.ready()
        os.write(tell, str(handle.pid).encode())
        os._exit(0)

    process.wait(process.fork_call(parent))
    child = int(os.read(told, 100))
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and os.path.exists(f"/proc/{child}"):
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{child}")


def test_the_images_modules_are_never_imported(root: Path) -> None:
    """A stranger's files lie where the machine's standard library does; a late import would run them as root."""
    library = Path(sysconfig.get_paths()["stdlib"])
    wanted = specification(root, "true", user={"name": "nobody-here"})
    wanted["mounts"] = [entry for entry in wanted["mounts"] if not str(library).startswith(entry["destination"] + "/")]
    for name in ("traceback", "socket", "json", "linecache", "warnings", "encodings/idna"):
        path = root / str(library).lstrip("/") / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("open('/owned', 'w').write('by ' + __name__)\n")
    with pytest.raises(MinirtError):
        Run(wanted)
    assert not (root / "owned").exists()


# -- the last exec ------------------------------------------------------------------------------------------------

ATTACK = """#!/proc/self/exe
import os
with open("/proof", "w") as file:
    file.write(os.readlink("/proc/self/exe"))
"""


class Container:
    """A container that sleeps, to be joined."""

    def __init__(self, root: Path) -> None:
        self.handle = launch.prepare(specification(root, "sleep", "100"))
        self.handle.start()

    def join(self, root: Path, *args: str, **changes: Any) -> tuple[str, int]:
        output, theirs = os.pipe()
        wanted = specification(root, *args, **changes)
        joined = join.prepare(self.handle.pidfd, wanted, (os.open("/dev/null", os.O_RDONLY), theirs, theirs))
        os.close(theirs)
        try:
            joined.start()
            if joined.master >= 0:
                text = b""
                while True:
                    try:
                        text += os.read(joined.master, 4096)
                    except OSError:
                        break
                os.close(joined.master)
            else:
                text = b"".join(iter(lambda: os.read(output, 1 << 16), b""))
        finally:
            status = joined.wait()
            os.close(joined.pidfd)
            os.close(output)
        return text.decode(), process.exit_code(status)


@pytest.fixture
def sleeper(root: Path) -> Iterator[Container]:
    container = Container(root)
    yield container
    container.handle.kill()
    container.handle.wait()


def test_joining_gets_behind_every_wall(root: Path, sleeper: Container) -> None:
    script = "echo $$; uname -n; for n in pid uts mnt ipc net; do readlink /proc/self/ns/$n; done; "
    text, code = sleeper.join(root, "sh", "-c", script + "ls /proc/self/fd | wc -l; exit 5")
    pid, name, *spaces, count = text.split()
    assert (name, code) == ("box", 5) and int(pid) > 1
    assert spaces == [os.readlink(f"/proc/{sleeper.handle.pid}/ns/{n}") for n in ("pid", "uts", "mnt", "ipc", "net")]
    assert int(count) == 4  # the three, and the directory that ls reads


def test_a_joined_command_that_cannot_run_says_so(root: Path, sleeper: Container) -> None:
    with pytest.raises(CommandNotFoundError):
        sleeper.join(root, "nothing")
    (root / "broken").write_bytes(b"\x7fELF nonsense")
    (root / "broken").chmod(0o755)
    with pytest.raises(CannotInvokeError, match="exec format error"):
        sleeper.join(root, "/broken")


@pytest.mark.parametrize("number", [10, 266, 2570, 0x227B, 0x3F0A0A])
@pytest.mark.parametrize("order", [1, -1])
def test_a_pid_is_read_whatever_its_bytes_look_like(number: int, order: int) -> None:
    """A byte of a pid may be the end of a line, and the half that fails may write first."""
    told, tell = os.pipe()
    gate, gate_in = os.pipe()
    answers = [value.to_bytes(4, "little", signed=True) for value in (number, -8)][::order]
    os.write(tell, b'{"ready": 1}\n{"step": [12, "a step", ""]}\n' + b"".join(answers))
    os.close(tell)
    waiting = join.Joined(0, -1, told, gate_in, None, "name")
    waiting.open_gate()
    os.close(gate)
    assert waiting._rest == b"".join(answers)


def test_joining_with_a_terminal(root: Path, sleeper: Container) -> None:
    text, code = sleeper.join(root, "sh", "-c", "tty; exec 3<>/dev/tty && echo controlled", terminal=True)
    assert (text.replace("\r", "").split(), code) == (["/dev/pts/0", "controlled"], 0)


def exposed(wanted: dict[str, Any], *_: Any) -> None:
    """The control: the last exec without the sealed program."""
    os.execve(wanted["process"]["args"][0], wanted["process"]["args"], {"PATH": "/bin"})


@pytest.mark.parametrize("wall", ["up", "missing"])
def test_a_script_cannot_have_the_machines_python_run_it(
        root: Path, wall: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image's `#!/proc/self/exe`: with the wall missing the machine's interpreter runs it, as a file that the
    container's root may then overwrite; with the wall up only the sealed program is ever there."""
    (root / "attack").write_text(ATTACK)
    (root / "attack").chmod(0o755)
    if wall == "missing":
        monkeypatch.setattr(launch.enter, "execute", exposed)
    wanted = specification(root, "/attack")
    for path in {os.path.realpath(sys.base_prefix), os.path.dirname(os.path.realpath(sys.executable))} - {"/usr"}:
        wanted["mounts"].append({"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]})
    seen: set[str] = set()
    handle = launch.prepare(wanted)
    handle.start()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline and not (root / "proof").exists():
        try:
            seen.add(os.readlink(f"/proc/{handle.pid}/exe"))
        except OSError:
            break
    handle.kill()
    code = process.exit_code(handle.wait())
    if wall == "missing":
        assert (root / "proof").read_text() == os.path.realpath(sys.executable)
    else:
        assert not (root / "proof").exists()
        assert code == 127 and all(path.startswith("/memfd:minirt") for path in seen)


def test_the_sealed_program_cannot_be_changed() -> None:
    descriptor = program.sealed()
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 10)
    assert os.pread(descriptor, 4, 0) == b"\x7fELF"
    os.close(descriptor)


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
@pytest.mark.parametrize("which", [program.LAST, program.JOIN, program.INIT])
def test_the_program_says_in_bytes_what_its_table_says_in_words(which: str, architecture: str, tmp_path: Path) -> None:
    prefix = "" if os.uname().machine == architecture else f"{architecture}-linux-gnu-"
    if not shutil.which(f"{prefix}as"):
        pytest.skip(f"no assembler for {architecture}")
    words = [text.partition(";")[0].strip() for _, text in program.code_of(which, architecture)]
    source = (".intel_syntax noprefix\n" if architecture == "x86_64" else "") + "\n".join(words) + "\n"
    (tmp_path / "program.s").write_text(source)
    assert os.system(f"cd {tmp_path} && {prefix}as program.s -o program.o && "
                     f"{prefix}objcopy -O binary -j .text program.o program.bin") == 0
    code = (tmp_path / "program.bin").read_bytes()
    assert program.image(which, architecture)[program.HEADERS:] == code


def test_a_killed_launch_says_so(root: Path) -> None:
    wanted = specification(root, "true")
    handle = launch.prepare(wanted)
    os.kill(handle.pid, signal.SIGKILL)
    try:
        handle.ready()
    except MinirtError as error:
        assert "was killed" in str(error)
    assert process.exit_code(handle.wait()) == 137


def test_root_keeps_fourteen_capabilities_and_others_none(root: Path) -> None:
    show = ("grep", "^Cap", "/proc/self/status")
    sets = dict(line.split(":\t") for line in run(root, *show).text.splitlines())
    assert sets == {"CapInh": "0" * 16, "CapPrm": "00000000a80425fb", "CapEff": "00000000a80425fb",
                    "CapBnd": "00000000a80425fb", "CapAmb": "0" * 16}
    sets = dict(line.split(":\t") for line in run(root, *show, user={"name": "web"}).text.splitlines())
    assert sets == {"CapInh": "0" * 16, "CapPrm": "0" * 16, "CapEff": "0" * 16, "CapBnd": "00000000a80425fb",
                    "CapAmb": "0" * 16}
    few = {"bounding": ["CAP_KILL"]}
    sets = dict(line.split(":\t") for line in run(root, *show, capabilities=few).text.splitlines())
    assert sets["CapEff"] == sets["CapBnd"] == "0000000000000020"


def test_a_specification_may_give_an_ordinary_user_ambient_capabilities(root: Path) -> None:
    sets = ("bounding", "permitted", "effective", "inheritable", "ambient")
    every = {name: ["CAP_NET_BIND_SERVICE"] for name in sets}
    shown = run(root, "grep", "^Cap", "/proc/self/status", user={"name": "web"}, capabilities=every).text
    assert {int(line.split()[1], 16) for line in shown.splitlines()} == {1 << 10}
    permitted = {key: every[key] for key in ("bounding", "permitted", "effective")}
    shown = run(root, "grep", "CapEff", "/proc/self/status", user={"name": "web"}, capabilities=permitted).text
    assert int(shown.split()[1], 16) == 0, "an exec hands nothing on that is not ambient"


def test_no_new_privileges(root: Path) -> None:
    assert "NoNewPrivs:\t1" in run(root, "cat", "/proc/self/status", noNewPrivileges=True).text


def test_the_filter_judges_from_inside(root: Path) -> None:
    script = ("grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; unshare --uts true; "
              "mount -t tmpfs none /tmp; echo end")
    text = run(root, "sh", "-c", script).text
    assert "Seccomp:\t2" in text and "NoNewPrivs:\t0" in text
    assert text.count("ermission") + text.count("not permitted") >= 2 and text.endswith("end\n")
    wanted = specification(root, "grep", "^Seccomp:", "/proc/self/status")
    wanted["linux"]["seccomp"] = None
    assert Run(wanted).text == "Seccomp:\t0\n"


def test_a_profile_of_the_users_is_obeyed(root: Path) -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW",
               "syscalls": [{"names": ["uname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}
    for unprivileged in (False, True):
        wanted = specification(root, "uname", noNewPrivileges=unprivileged)
        wanted["linux"]["seccomp"] = {"profile": profile}
        ran = Run(wanted)
        assert ran.code == 1 and "Operation not supported" in ran.text

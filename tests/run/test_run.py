"""`minirt run`: each option is asserted from inside the container and from outside."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.caged


def test_it_runs_a_command_and_returns_what_it_printed(tool):
    done = tool("run", "--rm", "busybox", "echo", "hello")
    assert done.out == "hello\n"
    assert done.err == ""


@pytest.mark.parametrize("code", [0, 1, 7, 124, 125, 126, 127, 128, 200, 255])
def test_the_exit_code_is_the_commands_own(tool, code):
    assert tool("run", "--rm", "busybox", "sh", "-c", f"exit {code}", status=code).err == ""


def test_a_command_killed_by_a_signal_returns_128_and_its_number(tool):
    done = tool("run", "--rm", "--init", "busybox", "sh", "-c", "kill -TERM $$", status=143)
    assert done.out == ""


def test_a_command_that_is_not_there_is_127_and_one_that_cannot_be_executed_126(tool):
    assert "executable file not found in $PATH" in tool("run", "--rm", "busybox", "nosuch", status=127).err
    assert "no such file" in tool("run", "--rm", "busybox", "/no/such", status=127).err
    assert "permission denied" in tool("run", "--rm", "busybox", "/etc/passwd", status=126).err
    assert "is a directory" in tool("run", "--rm", "busybox", "/tmp", status=126).err
    assert tool.left() == []


def test_what_minirt_itself_refuses_is_125(tool):
    assert "No such image: nosuch:latest" in tool("run", "--pull=never", "nosuch", status=125).err
    assert "unknown flag: --nosuch" in tool("run", "--nosuch", "busybox", status=125).err
    assert "unable to find user nobody2" in tool("run", "--rm", "-u", "nobody2", "busybox", "true", status=125).err
    assert tool.left() == []


def test_a_container_that_cannot_start_stays_as_created_with_the_reason(tool):
    tool("run", "--name", "broken", "busybox", "nosuch", status=127)
    state = tool.inspect("broken")["State"]
    assert (state["Status"], state["ExitCode"], state["Running"]) == ("created", 127, False)
    assert "nosuch" in state["Error"]
    assert "Created" in tool("ps", "-a").out


def test_it_has_its_own_namespaces(tool, outside):
    tool.up("--name", "box", "busybox", "sleep", "60")
    assert outside.entered(tool.pid("box")) >= {"pid", "uts", "mnt", "ipc", "net"}
    assert tool("run", "--rm", "busybox", "sh", "-c", "echo $$; ls /proc | grep -c '^[0-9]'").out.split()[0] == "1"


def test_host_name_and_domain_name(tool):
    done = tool("run", "--rm", "-h", "box", "--domainname", "example", "busybox", "sh", "-c",
                "hostname; cat /proc/sys/kernel/domainname; cat /etc/hostname; echo $HOSTNAME")
    assert done.out.split() == ["box", "example", "box", "box"]
    assert os.uname().nodename != "box"


def test_without_a_host_name_it_is_the_short_id(tool):
    id = tool.up("--name", "box", "busybox", "sleep", "60")
    assert tool.inspect("box")["Config"]["Hostname"] == id[:12]
    assert tool("run", "--rm", "busybox", "hostname").out.strip() != os.uname().nodename


def test_uts_host_shares_the_machines_name(tool, outside):
    tool.up("--name", "box", "--uts", "host", "busybox", "sleep", "60")
    assert "uts" not in outside.entered(tool.pid("box"))
    assert tool("run", "--rm", "--uts", "host", "busybox", "hostname").out.strip() == os.uname().nodename
    assert "conflicting options" in tool("run", "--uts", "host", "-h", "x", "busybox", "true", status=125).err


def test_pid_host_sees_the_machines_processes(tool, outside):
    tool.up("--name", "box", "--pid", "host", "busybox", "sleep", "60")
    pid = tool.pid("box")
    assert "pid" not in outside.entered(pid)
    seen = tool("run", "--rm", "--pid", "host", "busybox", "ls", "/proc").out.split()
    assert str(pid) in seen
    tool("rm", "-f", "box")
    assert not Path(f"/proc/{pid}").exists()


def test_ipc_modes(tool, outside):
    tool.up("--name", "host", "--ipc", "host", "busybox", "sleep", "60")
    assert "ipc" not in outside.entered(tool.pid("host"))
    assert "/dev/shm" not in tool("run", "--rm", "--ipc", "none", "busybox", "cat", "/proc/mounts").out
    tool.up("--name", "first", "--ipc", "shareable", "busybox", "sleep", "60")
    tool.up("--name", "second", "--ipc", "container:first", "busybox", "sleep", "60")
    first, second = (outside.namespace("ipc", tool.pid(name)) for name in ("first", "second"))
    assert first == second
    tool("exec", "first", "sh", "-c", "echo here > /dev/shm/note")
    assert tool("exec", "second", "cat", "/dev/shm/note").out == "here\n"
    tool.up("--name", "alone", "busybox", "sleep", "60")
    refused = tool("run", "--rm", "--ipc", "container:alone", "busybox", "true", status=125).err
    assert "non-shareable IPC (hint: use IpcMode:shareable for the donor container)" in refused


def test_who_brings_his_own_dev_finds_it_as_it_was(tool, tmp_path):
    (tmp_path / "mine").write_text("")
    done = tool("run", "--rm", "-v", f"{tmp_path}:/dev", "busybox", "ls", "/dev")
    assert done.out == "mine\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_size_of_shared_memory(tool):
    done = tool("run", "--rm", "--shm-size", "3m", "busybox", "df", "-k", "/dev/shm")
    assert done.out.splitlines()[-1].split()[1] == "3072"


def test_environment_of_image_user_and_file(tool, tmp_path):
    file = tmp_path / "env"
    file.write_text("# a comment\nFROM_FILE=1\nBOTH=file\nPASSED\n\nSPACES=a b\n")
    done = tool("run", "--rm", "--env-file", str(file), "-e", "BOTH=flag", "-eONE=1", "-e", "UNSET_HERE", "-e", "GIVEN",
                "busybox", "env", env={"GIVEN": "by us", "PASSED": "through"})
    env = dict(line.split("=", 1) for line in done.out.splitlines())
    assert env["BOTH"] == "flag"
    assert env["FROM_FILE"] == "1"
    assert env["ONE"] == "1"
    assert env["GIVEN"] == "by us"
    assert env["PASSED"] == "through"
    assert env["SPACES"] == "a b"
    assert "UNSET_HERE" not in env
    assert env["HOME"] == "/root"
    assert env["PATH"].startswith("/usr/local/sbin:")
    assert "TERM" not in env
    assert "MINIRT_ROOT" not in env, "nothing of our own environment gets in"


def test_working_directory_is_made_and_must_be_absolute(tool):
    assert tool("run", "--rm", "-w", "/made/here", "busybox", "pwd").out == "/made/here\n"
    assert "needs to be an absolute path" in tool("run", "-w", "tmp", "busybox", "pwd", status=125).err


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("app", "uid=1000(app) gid=1000(app) groups=50(staff),1000(app)"),
        ("1000", "uid=1000(app) gid=1000(app) groups=50(staff),1000(app)"),
        ("app:staff", "uid=1000(app) gid=50(staff) groups=50(staff)"),
        ("4711:4712", "uid=4711 gid=4712 groups=4712"),
    ],
)
def test_users_and_groups_are_looked_up_in_the_image(tool, user, expected):
    shown = tool("run", "--rm", "-u", user, "busybox", "id").out
    # Busybox and coreutils list the groups in different orders.
    assert sorted(shown.strip().replace("groups=", "").replace(",", " ").split()) == \
        sorted(expected.replace("groups=", "").replace(",", " ").split())


def test_additional_groups_and_the_users_seen_from_outside(tool, outside):
    tool.up("--name", "box", "-u", "app", "--group-add", "daemon", "--group-add", "4000", "busybox", "sleep", "60")
    status = outside.status(tool.pid("box"))
    assert status["Uid"].split() == ["1000"] * 4
    assert set(status["Groups"].split()) >= {"1", "4000"}


def test_entrypoint_and_command(tool):
    assert tool("run", "--rm", "--entrypoint", "echo", "busybox", "a", "b").out == "a b\n"
    assert "no command specified" in tool("run", "--rm", "--entrypoint", "", "busybox", status=125).err
    assert tool("run", "--rm", "-i", "busybox", input="echo from its own command\n").out.startswith("from")


def test_a_read_only_root(tool):
    done = tool("run", "--rm", "--read-only", "--tmpfs", "/scratch", "busybox", "sh", "-c",
                "touch /x 2>&1; touch /scratch/x && echo made")
    assert "Read-only file system" in done.out
    assert done.out.endswith("made\n")


def test_tmpfs_with_options(tool):
    done = tool("run", "--rm", "--tmpfs", "/scratch:size=1m,mode=700", "busybox", "sh", "-c",
                "grep scratch /proc/mounts; stat -c %a /scratch")
    assert "size=1024k" in done.out and "noexec" in done.out
    assert done.out.endswith("700\n")


def test_bind_mounts(tool, tmp_path):
    (tmp_path / "file").write_text("of the machine\n")
    done = tool("run", "--rm", "-v", f"{tmp_path}:/data", "busybox", "sh", "-c",
                "cat /data/file; echo new > /data/made")
    assert done.out == "of the machine\n"
    assert (tmp_path / "made").read_text() == "new\n"
    refused = tool("run", "--rm", "-v", f"{tmp_path}:/data:ro", "busybox", "touch", "/data/x", status=1)
    assert "Read-only" in refused.err
    assert not (tmp_path / "x").exists()


def test_a_single_file_and_the_mount_flag(tool, tmp_path):
    (tmp_path / "file").write_text("one\n")
    done = tool("run", "--rm", "--mount", f"type=bind,src={tmp_path}/file,dst=/etc/one,readonly", "busybox", "cat",
                "/etc/one")
    assert done.out == "one\n"
    missing = tool("run", "--rm", "--mount", "type=bind,src=/no/such,dst=/x", "busybox", "true", status=125)
    assert "bind source path does not exist: /no/such" in missing.err
    assert tool.left() == []


def test_minus_v_makes_a_missing_source(tool, tmp_path):
    tool("run", "--rm", "-v", f"{tmp_path}/made:/data", "busybox", "true")
    assert (tmp_path / "made").is_dir()


def test_named_volumes_say_their_chapter(tool):
    assert "chapter 16, volumes" in tool("run", "-v", "data:/data", "busybox", "true", status=125).err
    assert "chapter 16, volumes" in tool("run", "--mount", "src=data,dst=/data", "busybox", "true", status=125).err


def test_propagation_into_the_container(tool, tmp_path):
    import subprocess

    shared = tmp_path / "shared"
    shared.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "x", str(shared)], check=True)
    subprocess.run(["mount", "--make-shared", str(shared)], check=True)
    try:
        tool.up("--name", "slave", "-v", f"{shared}:/s:rslave", "busybox", "sleep", "60")
        tool.up("--name", "private", "-v", f"{shared}:/s", "busybox", "sleep", "60")
        (shared / "late").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "x", str(shared / "late")], check=True)
        mounts = {name: Path(f"/proc/{tool.pid(name)}/mounts").read_text() for name in ("slave", "private")}
        assert "/s/late" in mounts["slave"]
        assert "/s/late" not in mounts["private"]
        tool("rm", "-f", "slave", "private")
        subprocess.run(["umount", str(shared / "late")], check=True)
    finally:
        subprocess.run(["umount", "-l", str(shared)], check=True)


def test_network_none_has_lo_and_nothing_else(tool):
    done = tool("run", "--rm", "busybox", "sh", "-c", "ls /sys/class/net; ip addr show lo | grep -c 127.0.0.1")
    assert done.out.split() == ["lo", "1"]


def test_network_host_and_what_is_not_there_yet(tool, outside):
    tool.up("--name", "box", "--network", "host", "busybox", "sleep", "60")
    assert "net" not in outside.entered(tool.pid("box"))
    assert "chapter 15" in tool("run", "--net", "bridge", "busybox", "true", status=125).err


def test_init_is_number_one_and_reaps(tool):
    done = tool("run", "--rm", "--init", "busybox", "sh", "-c",
                "echo $$; (sleep 0.05 &); sleep 0.3; grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l")
    assert done.out.split() == ["2", "0"]


def test_limits(tool):
    done = tool("run", "--rm", "--ulimit", "nofile=100:200", "--ulimit", "core=0", "busybox", "sh", "-c",
                "ulimit -Sn; ulimit -Hn; ulimit -c")
    assert done.out.split() == ["100", "200", "0"]
    assert "invalid ulimit type" in tool("run", "--ulimit", "nosuch=1", "busybox", status=125).err


def test_the_oom_score(tool):
    tool.up("--name", "box", "--oom-score-adj", "321", "busybox", "sleep", "60")
    assert Path(f"/proc/{tool.pid('box')}/oom_score_adj").read_text().strip() == "321"
    assert "range for oom score adj" in tool("run", "--oom-score-adj", "1001", "busybox", status=125).err


def test_a_device_of_the_machine(tool):
    done = tool("run", "--rm", "--device", "/dev/zero:/dev/nought", "busybox", "sh", "-c",
                "stat -c '%t:%T %F' /dev/nought; dd if=/dev/nought bs=4 count=1 2>/dev/null | wc -c")
    assert done.out == "1:5 character special file\n4\n"
    assert "not a device node" in tool("run", "--rm", "--device", "/etc/passwd", "busybox", status=125).err


def test_labels(tool, tmp_path):
    (tmp_path / "labels").write_text("from=file\nboth=file\n")
    tool("create", "--name", "box", "--label-file", str(tmp_path / "labels"), "-l", "both=flag", "-l", "bare",
         "busybox")
    labels = tool.inspect("box")["Config"]["Labels"]
    assert labels == {"from": "file", "both": "flag", "bare": ""}


def test_the_file_with_the_id(tool, tmp_path):
    file = tmp_path / "id"
    id = tool.up("--cidfile", str(file), "busybox", "sleep", "60")
    assert file.read_text() == id
    assert "container ID file found" in tool("run", "--cidfile", str(file), "busybox", status=125).err


def test_standard_input(tool):
    assert tool("run", "--rm", "-i", "busybox", "cat", input="typed\n").out == "typed\n"
    assert tool("run", "--rm", "busybox", "cat", input="not for you\n").out == ""
    big = os.urandom(3_000_000)
    assert tool("run", "--rm", "-i", "busybox", "cat", input=big).raw == big


def test_output_and_errors_stay_apart_and_whole(tool):
    done = tool("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.out, done.err) == ("out\n", "err\n")
    done = tool("run", "--rm", "busybox", "sh", "-c", "yes 0123456789 | head -c 5000000")
    assert len(done.raw) == 5_000_000


def test_a_file_as_standard_output_is_appended_to(tool, tmp_path):
    path = tmp_path / "out"
    path.write_text("before\n")
    with open(path, "ab") as file:
        process = tool.start("run", "--rm", "busybox", "echo", "after", stdout=file)
        assert process.wait(20) == 0
    assert path.read_text() == "before\nafter\n"


def test_the_callers_descriptors_keep_their_flags(tool):
    import fcntl

    reading, writing = os.pipe()
    process = tool.start("run", "--rm", "busybox", "echo", "x", stdout=writing)
    assert process.wait(20) == 0
    assert not fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_NONBLOCK
    os.close(writing)
    assert os.read(reading, 10) == b"x\n"
    assert os.read(reading, 10) == b"", "the monitor kept a copy of the caller's descriptor"


def test_a_reader_that_leaves_takes_the_client_and_not_the_exit_code(tool):
    reading, writing = os.pipe()
    process = tool.start("run", "--name", "left", "busybox", "sh", "-c", "sleep 0.3; echo lost; sleep 0.1; exit 9",
                         stdout=writing)
    os.close(writing)
    os.close(reading)
    assert process.wait(20) == -signal.SIGPIPE
    assert tool("wait", "left").out == "9\n"
    assert tool("logs", "left").out == "lost\n"


def test_a_slow_reader_slows_the_container_and_loses_nothing(tool):
    process = tool.start("run", "--rm", "--name", "slow", "busybox", "sh", "-c",
                         "head -c 4000000 /dev/zero; echo end >&2")
    time.sleep(1)
    assert process.stdout is not None
    total = 0
    while part := process.stdout.read(65536):
        total += len(part)
        time.sleep(0.001)
    assert process.wait(20) == 0
    assert total == 4_000_000


def test_signals_are_forwarded(tool, eventually):
    process = tool.start("run", "--rm", "busybox", "sh", "-c",
                         "trap 'exit 41' TERM; echo ready; while :; do sleep 0.05; done")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 41


def test_without_sig_proxy_the_command_dies_and_the_container_stays(tool, eventually):
    process = tool.start("run", "--name", "box", "--sig-proxy=false", "busybox", "sh", "-c", "echo ready; sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == -signal.SIGINT
    assert tool.inspect("box")["State"]["Running"]


def test_a_killed_command_leaves_the_container_running(tool, eventually):
    process = tool.start("run", "--name", "box", "busybox", "sh", "-c", "echo ready; sleep 0.5; echo later; sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.wait(20)
    assert process.stdout.read() == b"", "the monitor kept a copy of the dead command's descriptor"
    eventually(lambda: "later" in tool("logs", "box").out)
    assert tool.inspect("box")["State"]["Running"]


def test_rm_leaves_nothing(tool, eventually):
    tool("run", "--rm", "--name", "gone", "busybox", "sh", "-c", "mkdir -p /a/b/c; echo > /a/b/c/d")
    assert tool("ps", "-aq").out == ""
    eventually(lambda: tool.left() == [])
    tool("run", "--rm", "--name", "gone", "busybox", "true")


def test_names(tool):
    tool("create", "--name", "taken", "busybox")
    done = tool("run", "--name", "taken", "busybox", "true", status=125)
    assert 'Conflict. The container name "/taken" is already in use by container' in done.err
    assert len(tool("ps", "-aq").out.split()) == 1
    assert "Invalid container name" in tool("run", "--name", "-x-", "busybox", "true", status=125).err
    tool("create", "busybox")
    invented = tool("ps", "-a", "--format", "{{.Names}}").out.split()
    assert len(invented) == 2 and "_" in invented[0]


def test_flags_end_at_the_image(tool):
    assert tool("run", "--rm", "busybox", "echo", "--rm", "-x", "--", "y").out == "--rm -x -- y\n"


def test_refused_flags_say_their_chapter(tool):
    assert "--restart arrives with chapter 17" in tool("run", "--restart", "always", "busybox", status=125).err
    assert "-p arrives with chapter 15" in tool("run", "-p", "80:80", "busybox", status=125).err
    assert "invalid pull option: 'often'" in tool("run", "--pull", "often", "busybox", status=125).err


def test_explain_tells_the_steps_before_the_container_speaks(tool):
    process = tool.start("--explain", "run", "--rm", "busybox", "echo", "spoken", stderr=-2)
    out = process.communicate(timeout=30)[0].decode()
    lines = out.splitlines()
    numbers = [int(line.split()[0]) for line in lines if line.split()[0].isdigit()]
    assert numbers == list(range(1, len(numbers) + 1))
    before = "\n".join(lines[: lines.index("spoken")])
    for word in ("ch 02", "ch 03", "ch 04", "ch 05", "ch 06", "ch 09", "pivot_root", "CLONE_NEWUTS", "overlay",
                 "become"):
        assert word in before, f"the narration does not tell of {word}"
    assert tool("run", "--rm", "busybox", "echo", "silent").err == ""


def test_nothing_of_ours_is_within_reach(tool):
    done = tool("run", "--rm", "busybox", "sh", "-c",
                "ls -l /proc/self/fd; cat /proc/1/environ | tr '\\0' '\\n'; cat /proc/1/cmdline")
    assert "minirt" not in done.out.replace("minirt-", "")
    targets = [line.split(" -> ")[1] for line in done.out.splitlines() if " -> " in line]
    assert all(target.startswith(("pipe:", "/dev/null", "/proc/")) for target in targets), targets


def test_a_strict_umask_of_the_caller_does_not_reach_the_container(tool):
    before = os.umask(0o077)
    try:
        done = tool("run", "--rm", "-u", "app", "busybox", "sh", "-c",
                    "umask; ls / >/dev/null && cat /etc/hosts | head -1")
    finally:
        os.umask(before)
    assert done.out == "0022\n127.0.0.1\tlocalhost\n"


def test_capabilities_are_dockers_fourteen_and_can_be_chosen(tool, outside):
    tool.up("--name", "box", "busybox", "sleep", "60")
    assert outside.status(tool.pid("box"))["CapBnd"].strip() == "00000000a80425fb"
    shown = tool("run", "--rm", "--cap-drop", "all", "--cap-add", "NET_RAW", "busybox", "grep", "Cap",
                 "/proc/self/status").out
    assert [line.split()[1] for line in shown.splitlines()][1:4] == ["0000000000002000"] * 3
    # Busybox's mount ends with 1, util-linux's with 32.
    refused = tool("run", "--rm", "busybox", "mount", "-t", "tmpfs", "x", "/tmp", status=None)
    assert refused.status in (1, 32) and "permission denied" in refused.err
    assert 'unknown capability: "CAP_NOSUCH"' in tool("run", "--cap-add", "nosuch", "busybox", status=125).err


def test_a_privileged_container_has_every_capability_and_device(tool, outside):
    whole = outside.status("self")["CapBnd"].strip()
    script = "grep -E '^(CapEff|Seccomp):' /proc/self/status; echo x > /sys/x; grep -E ' /(sys|proc/kcore) ' " \
             "/proc/self/mountinfo; ls /dev"
    done = tool("run", "--rm", "--privileged", "busybox", "sh", "-c", script)
    lines = done.out.splitlines()
    assert lines[0].split()[1] == whole and lines[1].split()[1] == "0"
    assert "Read-only" not in done.err, "/sys must be writable"
    assert "/sys rw," in lines[2] and "/proc/kcore" not in done.out, "no masks"
    machine = {each.name for each in Path("/dev").iterdir() if each.is_char_device() or each.is_block_device()}
    assert machine - {"console"} <= set(lines[3:])
    mounted = tool("run", "--rm", "--privileged", "busybox", "cat", "/proc/self/mountinfo").out.splitlines()
    read_only = [line.split()[4] for line in mounted if "ro" in line.split()[5].split(",")]
    assert read_only == [], "not even the control groups'"
    tool("run", "--rm", "--privileged", "busybox", "mount", "-t", "tmpfs", "x", "/tmp")
    shown = tool("run", "--rm", "--privileged", "--cap-drop", "CHOWN", "busybox", "grep", "CapEff", "/proc/self/status")
    assert shown.out.split()[1] == whole, "as in Docker, --privileged overrules the rest"


def test_exec_can_be_privileged(tool, outside):
    tool.up("--name", "box", "busybox", "sleep", "60")
    look = ("grep", "CapEff", "/proc/self/status")
    assert tool("exec", "box", *look).out.split()[1] == "00000000a80425fb"
    assert tool("exec", "--privileged", "box", *look).out.split()[1] == outside.status("self")["CapBnd"].strip()
    for privileged in ((), ("--privileged",)):  # the filter stays the container's, and knows no mount
        refused = tool("exec", *privileged, "box", "mount", "-t", "tmpfs", "x", "/tmp", status=None)
        assert refused.status in (1, 32) and "permission denied" in refused.err


def test_a_capability_that_is_not_to_be_had_is_refused(tool, outside):
    bounding = int(outside.status("self")["CapBnd"], 16)
    missing = [name for place, name in ((24, "SYS_RESOURCE"), (25, "SYS_TIME")) if not bounding >> place & 1]
    for name in missing:
        assert "not available in the current environment" in tool(
            "run", "--cap-add", name, "busybox", status=125).err
    tool("run", "--rm", "--cap-add", "ALL", "busybox", "true")
    assert tool.left() == []


def test_system_calls_are_filtered(tool, tmp_path):
    look = ("busybox", "grep", "-E", "^(Seccomp|NoNewPrivs):", "/proc/self/status")
    assert tool("run", "--rm", *look).out.split() == ["NoNewPrivs:", "0", "Seccomp:", "2"]
    assert tool("run", "--rm", "--security-opt", "seccomp=unconfined", *look).out.split()[3] == "0"
    assert tool("run", "--rm", "--security-opt", "no-new-privileges", *look).out.split()[1] == "1"
    profile = tmp_path / "profile.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], '
                       '"action": "SCMP_ACT_ERRNO"}]}')
    refused = tool("run", "--rm", "--security-opt", f"seccomp={profile}", "busybox", "mkdir", "/x", status=1)
    assert "Operation not permitted" in refused.err
    tool.up("--name", "box", "--security-opt", f"seccomp={profile}", "busybox", "sleep", "60")
    assert "Operation not permitted" in tool("exec", "box", "mkdir", "/x", status=1).err
    profile.write_text("{")
    assert "seccomp profile" in tool("run", "--security-opt", f"seccomp={profile}", "busybox", status=125).err


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_streams(tool, closed):
    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    process = tool.start("run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo out; echo err >&2; exit 4",
                         preexec_fn=close)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 4
    assert out == (b"" if 1 in closed else b"out\n")
    assert err.endswith(b"" if 2 in closed else b"err\n")


def test_a_run_sweeps_up_what_another_left(tool, eventually):
    id = "ab" * 32
    (Path(tool.root) / "containers" / id / "upper").mkdir(parents=True)
    (Path(tool.root) / "trash").mkdir(exist_ok=True)
    (Path(tool.root) / "trash" / ("cd" * 32)).mkdir()
    (tool.run_root() / "containers" / ("ef" * 32)).mkdir(parents=True)
    tool("run", "--rm", "busybox", "true")
    eventually(lambda: tool.left() == [])


def test_only_the_chosen_streams_are_attached(tool):
    script = "echo out; echo err >&2; cat"
    done = tool("run", "--rm", "-a", "stdout", "busybox", "sh", "-c", script)
    assert (done.out, done.err) == ("out\n", "")
    done = tool("run", "--name", "box", "-a", "STDERR", "busybox", "sh", "-c", script)
    assert (done.out, done.err) == ("", "err\n")
    assert tool("logs", "box").out == "out\n", "what is not attached is logged"
    given = ("-a", "stdin", "-a", "stdout", "-i")
    assert tool("run", "--rm", *given, "busybox", "sh", "-c", script, input="typed").out == "out\ntyped"
    assert "--attach and --detach" in tool("run", "-d", "-a", "stdout", "busybox", status=125).err
    assert "valid streams are" in tool("run", "-a", "nosuch", "busybox", status=125).err


def test_a_client_whose_reader_is_gone_ends_as_a_writer_to_a_broken_pipe(tool):
    script = " ".join(shlex.quote(word) for word in tool.words(
        "run", "--name", "endless", "busybox", "sh", "-c", "while :; do echo y; done"))
    done = subprocess.run(["bash", "-c", f"{script} | head -1; echo ${{PIPESTATUS[0]}}"], env=tool.environment,
                          capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.split() == ["y", "141"], "head has read enough: 128 + SIGPIPE, as for any program"
    assert tool("ps", "--format", "{{.Names}}").out.split() == ["endless"], "the container goes on, as Docker's does"
    tool("rm", "-f", "endless")


def test_a_ulimit_may_be_unlimited_and_the_last_of_a_name_counts(tool):
    limits = ("--ulimit", "core=-1", "--ulimit", "nofile=1:2", "--ulimit", "nofile=30")
    done = tool("run", "--rm", *limits, "busybox", "sh", "-c", "ulimit -c; ulimit -n")
    assert done.out.split() == ["unlimited", "30"]
    assert tool("run", "--rm", "--ulimit", "core=5:-1", "busybox", "sh", "-c", "ulimit -Hc").out == "unlimited\n"
    refused = tool("run", "--rm", "--ulimit", "core=1:2:3", "busybox", status=125)
    assert "too many limit value arguments - 1:2:3" in refused.err


def test_an_empty_command_word_is_not_found(tool):
    assert 'exec: "": executable file not found in $PATH' in tool("run", "--rm", "busybox", "", status=127).err


def test_a_read_only_root_takes_the_three_files_below_etc_along(tool):
    done = tool("run", "--rm", "--read-only", "busybox", "sh", "-c",
                "for file in hosts hostname resolv.conf; do echo x 2>/dev/null >> /etc/$file || echo no; done")
    assert done.out.split() == ["no"] * 3


def test_two_mounts_at_one_place_are_refused_before_anything_is_made(tool, tmp_path):
    done = tool("run", "-v", f"{tmp_path}:/x", "--tmpfs", "/x", "busybox", status=125)
    assert done.err == "minirt: Duplicate mount point: /x\n" and tool("ps", "-aq").out == ""


def test_a_working_directory_that_cannot_be_is_named(tool):
    refused = tool("run", "--rm", "-w", "/etc/passwd/x", "busybox", status=125).err
    assert refused == "minirt: cannot begin in the working directory /etc/passwd/x: not a directory\n"
    tool.up("--name", "box", "busybox", "sleep", "60")
    missing = tool("exec", "-w", "/nowhere", "box", "pwd", status=126).err
    assert missing == "minirt: cannot begin in the working directory /nowhere: no such file or directory\n"
    assert "absolute path: rel" in tool("exec", "-w", "rel", "box", "pwd", status=126).err
    assert tool("diff", "box").out == ""  # nothing was made


def test_a_label_has_a_name(tool, tmp_path):
    for text in ("", "=value", " =value"):
        assert "empty name" in tool("create", "-l", text, "busybox", status=125).err
    (tmp_path / "labels").write_text("bare\nkey=value\n")
    tool("create", "--name", "box", "--label-file", str(tmp_path / "labels"), "busybox")
    assert tool.inspect("box")["Config"]["Labels"] == {"key": "value"}


def test_rm_force_does_not_mind_what_is_not_there(tool):
    done = tool("rm", "-f", "nosuch")
    assert done.out == "" and done.err == "minirt: No such container: nosuch\n"
    tool("rm", "nosuch", status=1)


def test_what_is_only_noted_stands_in_the_description(tool):
    tool("create", "--name", "box", "--annotation", "a=b", "--annotation", "c", "--expose", "80", "--expose",
         "90-91/UDP", "--no-healthcheck", "--isolation", "default", "--disable-content-trust", "busybox")
    shown = tool.inspect("box")
    assert shown["HostConfig"]["Annotations"] == {"a": "b", "c": ""}
    assert shown["Config"]["ExposedPorts"] == {"80/tcp": {}, "90/udp": {}, "91/udp": {}}
    assert shown["Config"]["Healthcheck"] == {"Test": ["NONE"]}
    for words, reason in ((("--expose", "80:80"), "invalid port format for --expose: 80:80"),
                          (("--expose", "9-8"), "invalid range format"), (("--expose", "1/x"), "invalid protocol"),
                          (("--isolation", "hyperv"), "invalid isolation"),
                          (("--disable-content-trust=false",), "content trust are not supported")):
        assert reason in tool("create", *words, "busybox", status=125).err


def test_an_image_for_another_platform_is_not_taken(tool):
    ours, other = ("amd64", "arm64") if os.uname().machine == "x86_64" else ("arm64", "amd64")
    assert tool("run", "--rm", "--platform", f"linux/{ours}", "busybox", "echo", "yes").out == "yes\n"
    refused = tool("run", "--rm", "--platform", f"linux/{other}", "--pull", "never", "busybox", status=125).err
    assert f"does not provide the specified platform (linux/{other})" in refused
    assert "Unable to find image 'busybox:latest' locally" in tool(
        "run", "--rm", "--platform", f"linux/{other}", "busybox", status=125).err


def test_what_cannot_be_is_said_in_a_sentence(tool, tmp_path):
    for words, reason in (
            (("--cidfile", f"{tmp_path}/no/id"), f"failed to create the container ID file: open {tmp_path}/no/id"),
            (("--cpu-shares", "-1"), "invalid CPU shares (-1): value must be a positive integer"),
            (("-u", "\u00b2"), "unable to find user \u00b2"), (("-u", "9" * 30), "unable to find user 999")):
        done = tool("run", "--rm", *words, "busybox", "true", status=125)
        assert reason in done.err and "mistake" not in done.err, done.err


def test_a_bare_name_that_is_not_set_takes_a_variable_away(tool):
    clean = {"GONE": "x"}
    done = tool("run", "--rm", "-e", "A=1", "-e", "A", "-e", "GONE", "busybox", "env", env=clean).out
    assert "GONE=x" in done and "A=" not in done.replace("PATH=", "")
    tool.up("--name", "box", "-e", "B=1", "busybox", "sleep", "60")
    assert "B=" not in tool("exec", "-e", "B", "box", "env").out


def test_a_directory_is_not_mounted_on_a_file(tool, tmp_path):
    for words in (f"{tmp_path}:/etc/passwd", "/etc/hostname:/tmp"):
        done = tool("run", "--rm", "-v", words, "busybox", "true", status=125)
        assert "Are you trying to mount a directory onto a file (or vice-versa)?" in done.err
    refused = tool("run", "--rm", "-v", "~/x:/x", "busybox", status=125).err
    assert "names a volume, not a path" in refused  # the shell expands a tilde, or nobody does


def test_the_three_files_below_etc_come_after_a_mount_on_etc(tool):
    done = tool("run", "--rm", "--tmpfs", "/etc", "busybox", "ls", "/etc")
    assert done.out.split() == ["hostname", "hosts", "resolv.conf"]


def test_a_cgroup_parent_stays_below_the_tree(tool):
    assert "has no .. in its path" in tool("run", "--rm", "--cgroup-parent", "../x", "busybox", status=125).err


@pytest.mark.parametrize("more", [(), ("--init",), ("--userns", "auto")], ids=" ".join)
def test_who_is_not_root_may_open_his_own_streams(tool, more):
    script = "echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin"
    done = tool("run", "--rm", "-i", "-u", "app", *more, "busybox", "sh", "-c", script, input="in\n")
    assert (done.out, done.err) == ("out\nin\n", "err\n")
    tool.up("--name", "box", "-u", "app", *more, "busybox", "sleep", "60")
    assert tool("exec", "box", "sh", "-c", "echo out > /dev/stdout").out == "out\n"


def test_who_is_not_root_may_open_his_own_terminal(tool):
    done = tool("run", "--rm", "-t", "-u", "app", "busybox", "sh", "-c", "echo out > /dev/stdout; stat -c %U $(tty)")
    assert done.out.split() == ["out", "app"]
    tool.up("--name", "box", "-u", "app", "busybox", "sleep", "60")
    assert tool("exec", "-t", "box", "sh", "-c", "echo out > /dev/stderr").out == "out\r\n"

"""The life of a container: ps, logs, stop, kill, wait, rm, start, attach, rename, pause, inspect, and repair."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.caged

LOOP = "while :; do sleep 0.05; done"


# -- ps ----------------------------------------------------------------------------------------------------------


def test_ps_has_dockers_columns_and_words(tool):
    id = tool.up("--name", "web", "busybox", "sh", "-c", "sleep 60 # a long command")
    tool("run", "--name", "once", "busybox", "sh", "-c", "exit 3", status=3)
    head, line = tool("ps").out.splitlines()
    assert head.split("  ")[0] == "CONTAINER ID"
    assert [word.strip() for word in head.split("   ") if word.strip()] == [
        "CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert line.startswith(id[:12] + "   busybox   \"sh -c 'sleep 60 # a…\"   ")
    assert " Up " in line and line.endswith("web")
    listed = tool("ps", "-a").out
    assert "Exited (3) " in listed and " ago" in listed


def test_ps_flags(tool):
    first = tool("create", "--name", "first", "busybox", "true").out.strip()
    second = tool.up("--name", "second", "-l", "color=red", "busybox", "sleep", "60")
    third = tool("create", "--name", "third", "-l", "color=blue", "busybox", "true").out.strip()
    assert tool("ps", "-q").out.split() == [second[:12]]
    assert tool("ps", "-aq", "--no-trunc").out.split() == [third, second, first]
    assert tool("ps", "-lq").out.split() == [third[:12]]
    assert tool("ps", "-n", "2", "-q").out.split() == [third[:12], second[:12]]

    def names(*flags: str) -> list[str]:
        return tool("ps", "-a", "--format", "{{.Names}}", *flags).out.split()

    assert names("--filter", "label=color=red") == ["second"]
    assert names("--filter", "label=color") == ["third", "second"]
    assert names("--filter", "status=created") == ["third", "first"]
    assert names("--filter", "name=ir") == ["third", "first"]
    assert names("--filter", "name=^/?sec") == ["second"]
    assert names("--filter", f"id={first[:6]}") == ["first"]
    assert names("--filter", "before=second") == ["first"]
    assert names("--filter", "since=second") == ["third"]
    assert names("--filter", "ancestor=busybox") == ["third", "second", "first"]
    tool("create", "--name", "fourth", "-v", "/tmp:/mnt", "busybox", "true")
    for text in ("volume=/tmp", "volume=/mnt", "name=fourth"):
        assert names("--filter", text) == ["fourth"], text
    for text in ("health=none", "is-task=false", "network=none", "isolation=default"):
        assert len(names("--filter", text)) == 4, text
    for text in ("health=healthy", "is-task=true", "publish=80/tcp", "expose=80-90", "volume=/no", "network=bridge"):
        assert names("--filter", text) == [], text
    for text in ("status=no", "health=no", "is-task=no", "exited=no", "publish=no", "expose=90-80", "expose=1/no"):
        assert f"invalid filter '{text}': it is " in tool("ps", "--filter", text, status=1).err
    assert "invalid filter 'nosuch'" in tool("ps", "--filter", "nosuch=1", status=1).err
    assert "bad format of filter" in tool("ps", "--filter", "nosuch", status=125).err


def test_ps_formats(tool):
    tool("create", "--name", "box", "-l", "a=b", "-l", "c=d", "busybox", "true")
    shown = json.loads(tool("ps", "-a", "--format", "json").out)
    assert list(shown) == sorted(shown)
    assert (shown["Names"], shown["State"], shown["Labels"], shown["Networks"]) == ("box", "created", "a=b,c=d", "none")
    table = tool("ps", "-a", "--format", r"table {{.Names}}\t{{upper .State}}\t{{.Label \"a\"}}".replace('\\"',
                 '"')).out
    assert table.splitlines()[0].split() == ["NAMES", "STATE", "a"]
    assert table.splitlines()[1].split() == ["box", "CREATED", "b"]
    assert tool("ps", "-a", "--format", '{{range split .Labels ","}}[{{.}}]{{end}}').out == "[a=b][c=d]\n"
    quiet = tool("ps", "-aq", "--format", "{{.Names}}")
    assert quiet.out == f"{shown['ID']}\n" and "Ignoring custom format" in quiet.err
    for template, sentence in (("{{range .Names}}", "failed to parse template: template: :1: unexpected EOF"),
                               ("{{.Nosuch}}", "failed to execute template: template: :1:2: executing")):
        assert tool("ps", "-a", "--format", template, status=1).err.startswith(f"minirt: {sentence}")


def test_sizes(tool):
    tool("run", "--name", "box", "busybox", "sh", "-c", "head -c 123456 /dev/zero > /file")
    size = tool("ps", "-as", "--format", "{{.Size}}").out.strip()
    assert size.startswith("123kB (virtual ")
    assert json.loads(tool("inspect", "-s", "box").out)[0]["SizeRw"] >= 123456


# -- logs --------------------------------------------------------------------------------------------------------


def test_logs_give_back_each_stream_exactly(tool):
    odd = 'tab\\t quote\\042 back\\\\\\\\ \\033[1m \\001 \\303\\244 \\377'
    tool("run", "--name", "box", "busybox", "sh", "-c", f"printf '{odd}\\nno newline'; printf 'err\\n' >&2")
    done = tool("logs", "box")
    assert done.raw == b'tab\t quote" back\\\\ \x1b[1m \x01 \xc3\xa4 \xff\nno newline'
    assert done.err == "err\n"


def test_the_log_file_is_dockers_json(tool):
    tool("run", "--name", "box", "busybox", "sh", "-c", "echo one; sleep 0.1; echo two >&2")
    entries = [json.loads(line) for line in Path(tool.inspect("box")["LogPath"]).read_text().splitlines()]
    assert [(entry["log"], entry["stream"]) for entry in entries] == [("one\n", "stdout"), ("two\n", "stderr")]
    assert all(len(entry["time"]) == 30 and entry["time"].endswith("Z") for entry in entries)


def test_tail_timestamps_since_and_until(tool):
    tool("run", "--name", "box", "busybox", "sh", "-c", "seq 1 5; sleep 1.2; seq 6 10")
    assert tool("logs", "-n", "3", "box").out.split() == ["8", "9", "10"]
    assert tool("logs", "--tail", "0", "box").out == ""
    assert len(tool("logs", "-n", "all", "box").out.split()) == 10
    stamped = tool("logs", "-t", "box").out.splitlines()
    assert len(stamped) == 10
    assert all(line[30] == " " and line[29] == "Z" for line in stamped)
    between = stamped[5].split()[0]
    assert tool("logs", "--since", between, "box").out.split() == ["6", "7", "8", "9", "10"]
    assert tool("logs", "--until", between[:-10] + "Z", "box").out.split() in (["1", "2", "3", "4", "5"], [])
    assert tool("logs", "--since", "1h", "box").out.split()[0] == "1"


def test_logs_follow_until_the_end(tool):
    tool.up("--name", "box", "busybox", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done")
    assert tool("logs", "-f", "box").out.split() == ["1", "2", "3"]
    assert "No such container: nosuch" in tool("logs", "nosuch", status=1).err


# -- stop, kill, wait, rm ----------------------------------------------------------------------------------------


def test_stop_asks_first(tool):
    tool.up("--name", "box", "busybox", "sh", "-c", f"trap 'exit 9' TERM; echo ready; {LOOP}")
    while "ready" not in tool("logs", "box").out:
        time.sleep(0.02)
    assert tool("stop", "box").out == "box\n"
    state = tool.inspect("box")["State"]
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 9, 0)
    assert tool("stop", "box").out == "box\n", "stopping what has stopped is no error"


def test_stop_kills_after_its_time(tool):
    tool.up("--name", "box", "busybox", "sh", "-c", f"trap '' TERM; {LOOP}")
    begin = time.monotonic()
    tool("stop", "-t", "1", "box")
    assert 1 <= time.monotonic() - begin < 5
    assert tool.inspect("box")["State"]["ExitCode"] == 137


def test_the_stop_signal_of_the_container_and_of_the_command(tool):
    script = f"trap 'exit 1' TERM; trap 'exit 2' USR1; trap 'exit 3' USR2; echo ready; {LOOP}"
    for name, flags, code in (("one", (), 2), ("two", ("-s", "USR2"), 3)):
        tool.up("--name", name, "--stop-signal", "USR1", "busybox", "sh", "-c", script)
        while "ready" not in tool("logs", name).out:
            time.sleep(0.02)
        tool("stop", *flags, name)
        assert tool.inspect(name)["State"]["ExitCode"] == code
    assert "invalid signal" in tool("stop", "-s", "NOSUCH", "one", status=1).err


def test_kill(tool):
    tool.up("--name", "box", "busybox", "sh", "-c", f"trap 'echo got it' HUP; echo ready; {LOOP}")
    while "ready" not in tool("logs", "box").out:
        time.sleep(0.02)
    assert tool("kill", "-s", "HUP", "box").out == "box\n"
    while "got it" not in tool("logs", "box").out:
        time.sleep(0.02)
    assert tool("kill", "box").out == "box\n"
    assert tool.inspect("box")["State"]["ExitCode"] == 137
    assert "is not running" in tool("kill", "box", status=1).err


def test_wait_prints_exit_codes(tool):
    tool.up("--name", "one", "busybox", "sh", "-c", "sleep 0.5; exit 4")
    tool.up("--name", "two", "--rm", "busybox", "sh", "-c", "sleep 0.8; exit 5")
    assert tool("wait", "one", "two").out == "4\n5\n"
    assert tool("wait", "one").out == "4\n"


def test_rm(tool, eventually):
    tool.up("--name", "box", "busybox", "sleep", "60")
    pid = tool.pid("box")
    refused = tool("rm", "box", status=1).err
    assert 'cannot remove container "/box": container is running: stop' in refused
    assert tool("rm", "-f", "box").out == "box\n"
    assert not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] in "ZX"
    assert tool.left() == []
    assert "No such container: box" in tool("rm", "box", status=1).err
    tool("create", "--name", "one", "busybox")
    tool("create", "--name", "two", "busybox")
    done = tool("rm", "one", "nosuch", "two", status=1)
    assert done.out == "one\ntwo\n"


def test_a_hostile_tree_is_removed_whole(tool):
    deep = "i=0; while [ $i -lt 300 ]; do mkdir -p 0123456789012345/x; cd 0123456789012345; i=$((i+1)); done"
    tool("run", "--name", "box", "busybox", "sh", "-c", f"ln -s /etc /link; mkdir /a; cd /a; {deep}; touch here")
    before = sorted(os.listdir("/etc"))
    tool("rm", "box")
    assert tool.left() == []
    assert sorted(os.listdir("/etc")) == before


def test_prune(tool):
    id = tool("create", "busybox").out.strip()
    tool.up("--name", "keeps", "busybox", "sleep", "60")
    assert id in tool("container", "prune", "-f").out
    assert tool("ps", "-a", "--format", "{{.Names}}").out.split() == ["keeps"]


# -- start, attach, restart, rename, pause -----------------------------------------------------------------------


def test_create_then_start(tool):
    id = tool("create", "--name", "box", "busybox", "sh", "-c", "echo run >> /runs; cat /runs; exit 3").out.strip()
    assert tool.inspect("box")["State"]["Status"] == "created"
    assert tool("start", "-a", "box", status=3).out == "run\n"
    assert tool("start", "-a", id[:8], status=3).out == "run\nrun\n", "what it wrote stays from run to run"
    assert tool("logs", "box").out == "run\nrun\nrun\n"
    assert tool("start", "box").out == "box\n"


def test_restart(tool):
    tool.up("--name", "box", "busybox", "sleep", "60")
    before = tool.pid("box")
    tool("restart", "-t", "0", "box")
    assert tool.pid("box") not in (0, before)


def test_start_with_input(tool):
    tool("create", "-i", "--name", "box", "busybox", "cat")
    assert tool("start", "-ai", "box", input="typed\n").out == "typed\n"


def test_attach_sees_what_comes_and_gets_the_exit_code(tool):
    tool.up("-i", "--name", "box", "busybox", "sh", "-c", "while read line; do echo got $line; done; exit 6")
    process = tool.start("attach", "box", stdin=-1)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"got one\n"
    second = tool.start("attach", "--no-stdin", "box")
    assert second.stdout is not None
    while not select.select([second.stdout], [], [], 0.2)[0]:  # what was said before it came, it does not hear
        process.stdin.write(b"two\n")
        process.stdin.flush()
    assert second.stdout.readline() == b"got two\n"
    process.stdin.close()
    time.sleep(0.3)
    assert tool.inspect("box")["State"]["Running"], "a detached container's input outlives one who was attached"
    tool("kill", "box")
    assert process.wait(10) == 137
    assert second.wait(10) == 137
    assert "cannot attach to a stopped container" in tool("attach", "box", status=1).err


def test_rename(tool):
    tool("create", "--name", "old", "busybox")
    tool("create", "--name", "other", "busybox")
    tool("rename", "old", "new")
    assert set(tool("ps", "-a", "--format", "{{.Names}}").out.split()) == {"new", "other"}
    assert "already in use" in tool("rename", "new", "other", status=1).err
    tool("run", "--rm", "--name", "old", "busybox", "true")


def test_pause(tool):
    tool.up("--name", "box", "busybox", "sh", "-c", "while :; do echo tick; sleep 0.02; done")
    tool("pause", "box")
    assert "(Paused)" in tool("ps").out
    time.sleep(0.1)
    before = tool("logs", "box").out
    time.sleep(0.2)
    assert tool("logs", "box").out == before
    assert "already paused" in tool("pause", "box", status=1).err
    tool("unpause", "box")
    while len(tool("logs", "box").out) <= len(before):
        time.sleep(0.02)
    tool("pause", "box")
    tool("stop", "-t", "0", "box")
    assert tool.inspect("box")["State"]["Status"] == "exited"


def test_top(tool):
    tool.up("--name", "box", "busybox", "sh", "-c", "sleep 61 & sleep 62; true")
    shown = tool("top", "box").out
    assert shown.split()[:2] == ["UID", "PID"]
    assert "sleep 61" in shown and "sleep 62" in shown and "minirt" not in shown


# -- inspect -----------------------------------------------------------------------------------------------------


def test_inspect_has_dockers_shape(tool, tmp_path):
    tool.up("--name", "box", "-v", f"{tmp_path}:/data:ro", "-e", "A=b", "-w", "/tmp", "busybox", "sleep", "60")
    shown = tool.inspect("box")
    assert shown["Name"] == "/box"
    assert shown["Path"] == "sleep" and shown["Args"] == ["60"]
    assert shown["Config"]["WorkingDir"] == "/tmp" and "A=b" in shown["Config"]["Env"]
    assert shown["HostConfig"]["Binds"] == [f"{tmp_path}:/data:ro"]
    assert shown["Mounts"][0]["Destination"] == "/data" and shown["Mounts"][0]["RW"] is False
    assert Path(f"/proc/{shown['State']['Pid']}/comm").read_text() == "sleep\n"
    assert tool("inspect", "-f", "{{.State.Status}} {{index .Config.Cmd 0}} {{join .Config.Cmd \"+\"}}", "box").out == (
        "running sleep sleep+60\n")
    assert tool("inspect", "--type", "image", "box", status=1).err == "minirt: No such image: box:latest\n"


def test_inspect_finds_images_too_and_says_what_it_did_not_find(tool):
    done = tool("inspect", "nosuch", "busybox", status=1)
    assert json.loads(done.out)[0]["RepoTags"] == ["busybox:latest"]
    assert done.err == "minirt: No such object: nosuch\n"
    assert tool("inspect", "nosuch", status=1).out == "[]\n"


def test_containers_are_found_by_id_prefix_and_name(tool):
    id = tool("create", "--name", "box", "busybox").out.strip()
    for text in (id, id[:12], id[:3], "box", "/box"):
        assert tool("inspect", "-f", "{{.Id}}", text).out.strip() == id
    ids = [tool("create", "busybox").out.strip() for _ in range(17)]
    first = {each[0] for each in ids if [other[0] for other in [*ids, id]].count(each[0]) > 1}.pop()
    assert "multiple IDs found with provided prefix" in tool("rm", first, status=1).err


def test_an_image_in_use_is_not_removed(tool):
    tool("create", "--name", "box", "busybox")
    assert tool("rmi", "busybox", status=1).err
    tool("rm", "box")


def test_the_image_of_a_running_container_loses_its_name_at_most(tool):
    image = tool("images", "-q", "--no-trunc").out.strip()
    running = tool.up("--name", "box", "busybox", "sleep", "60")[:12]
    for force in ((), ("-f",)):
        assert tool("rmi", *force, image, status=1).err == (
            f"minirt: conflict: unable to delete {image[7:19]} (cannot be forced)"
            f" - image is being used by running container {running}\n")
    assert tool("rmi", "-f", "busybox").out == "Untagged: busybox:latest\n"
    assert tool("images", "-aq", "--no-trunc").out.strip() == image
    tool("kill", "box")
    assert "(must be forced) - image is being used by stopped container" in tool("rmi", image, status=1).err
    assert f"Deleted: {image}\n" in tool("rmi", "-f", image).out
    tool("start", "box")
    assert tool("exec", "box", "echo", "still").out == "still\n"


# -- killed at any instant ---------------------------------------------------------------------------------------


def monitor_of(tool, name: str) -> int:
    id = tool.inspect(name)["Id"]
    return int(json.loads((tool.run_root() / "containers" / id / "running.json").read_text())["monitor"]["pid"])


def test_a_lost_monitor_takes_its_container_along_and_is_repaired(tool, eventually):
    tool.up("--name", "box", "busybox", "sleep", "60")
    pid, monitor = tool.pid("box"), monitor_of(tool, "box")
    os.kill(monitor, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] in "ZX")
    eventually(lambda: "Dead (monitor lost)" in tool("ps", "-a").out)
    assert tool("ps", "-q").out == ""
    assert tool.inspect("box")["State"]["Status"] == "dead"
    tool("stop", "box")
    state = tool.inspect("box")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    tool("start", "box")
    assert tool.inspect("box")["State"]["Running"]


def test_the_monitor_of_a_container_that_was_to_vanish(tool, eventually):
    tool.up("--rm", "--name", "box", "busybox", "sleep", "60")
    os.kill(monitor_of(tool, "box"), signal.SIGKILL)
    eventually(lambda: "Dead (monitor lost)" in tool("ps", "-a").out)
    tool("create", "--name", "other", "busybox")
    tool("rm", "other")
    assert tool.left() == [], "what was to be removed at its end is removed by the next sweep"


def test_after_a_restart_of_the_machine(tool):
    import shutil

    tool.up("--name", "box", "busybox", "sleep", "60")
    monitor = monitor_of(tool, "box")
    os.kill(monitor, signal.SIGKILL)
    time.sleep(0.3)
    for path in Path("/sys/fs/cgroup").glob("**/minirt/*/"):
        path.rmdir()
    shutil.rmtree(tool.run_root())
    assert "Dead (monitor lost)" in tool("ps", "-a").out
    tool("start", "box")
    assert tool.inspect("box")["State"]["Running"]


@pytest.mark.parametrize("delay", [0.005, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.12])
def test_a_command_killed_on_its_way_leaves_nothing(tool, delay, eventually):
    import subprocess

    process = subprocess.Popen(tool.words("run", "--rm", "--name", "box", "busybox", "true"), env=tool.environment,
                               stdout=-3, stderr=-3, start_new_session=True)
    time.sleep(delay)
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        try:
            os.kill(int(child), signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.kill()
    process.wait()
    # A monitor that was forked between our look and our kill lives on until its container has ended.
    eventually(lambda: tool("run", "--rm", "--name", "box", "busybox", "true", status=None).status == 0)
    tool("create", "--name", "other", "busybox")
    tool("rm", "other")
    eventually(lambda: tool.left() == [])


def test_many_at_once(tool, eventually):
    processes = [tool.start("run", "--rm", "busybox", "sh", "-c", f"exit {number}") for number in range(12)]
    assert [process.wait(40) for process in processes] == list(range(12))
    names = [tool.start("run", "--name", "same", "busybox", "true") for _ in range(6)]
    codes = sorted(process.wait(40) for process in names)
    assert codes == [0, 125, 125, 125, 125, 125]
    tool("rm", "same")
    eventually(lambda: tool.left() == [])


def test_diff_tells_what_the_container_changed_and_not_what_minirt_mounted(tool):
    tool("run", "--name", "changed", "busybox", "sh", "-c",
         "echo x > /new; rm /bin/wc; mkdir /etc/sub; echo y > /etc/passwd")
    assert tool("diff", "changed").out.splitlines() == [
        "C /bin", "D /bin/wc", "C /etc", "C /etc/passwd", "A /etc/sub", "A /new"]
    tool("run", "--name", "unchanged", "busybox", "true")
    assert tool("diff", "unchanged").out == ""
    tool("create", "--name", "made", "busybox", "true")
    assert tool("container", "diff", "made").out == ""
    assert "No such container" in tool("diff", "nobody", status=1).err


def test_xray_shows_which_walls_stand(tool):
    tool.up("--name", "seen", "busybox", "sleep", "60")
    seen = json.loads(tool("xray", "--format", "json", "seen").out)
    assert seen["inside"] == 1 and seen["command"] == "sleep 60"
    assert {kind for kind, entry in seen["namespaces"].items() if entry["own"]} >= {"uts", "pid", "mnt", "ipc", "net"}
    assert len(seen["capabilities"]["effective"]) == 14 and seen["seccomp"] == "filter"
    assert {"point": "/", "type": "overlay"}.items() <= next(m for m in seen["mounts"] if m["point"] == "/").items()
    text = tool("xray", "seen").out
    assert " ■ uts " in text and "14 capabilities" in text
    assert tool("xray", "--format", "svg", "seen").out.startswith("<svg ")
    tool("run", "-d", "--name", "open", "--privileged", "--uts", "host", "busybox", "sleep", "60")
    text = tool("xray", "open").out
    assert " □ uts " in text and " □ system call filter: none" in text
    tool("rm", "-f", "seen", "open")
    assert "No such container" in tool("xray", "seen", status=1).err


def test_exec_privileged_gives_capabilities_and_leaves_the_filter(tool):
    """The filter is the container's own, as in Docker: it does not open with the capabilities of one command."""
    tool.up("--name", "box", "busybox", "sleep", "60")
    show = ("busybox", "grep", "-E", "^(CapEff|CapBnd|Seccomp):", "/proc/self/status")
    plain = dict(line.split(":\t") for line in tool("exec", "box", *show).out.splitlines())
    more = dict(line.split(":\t") for line in tool("exec", "--privileged", "box", *show).out.splitlines())
    assert plain == {"CapEff": "00000000a80425fb", "CapBnd": "00000000a80425fb", "Seccomp": "2"}
    assert more["CapEff"] == more["CapBnd"] and int(more["CapEff"], 16) & 1 << 21 and more["Seccomp"] == "2"
    mount = ("exec", "--privileged", "box", "busybox", "mount", "-t", "tmpfs", "none", "/tmp")
    assert tool(*mount, status=None).status != 0
    tool.up("--name", "open", "--privileged", "busybox", "sleep", "60")
    assert tool("exec", "open", "busybox", "mount", "-t", "tmpfs", "none", "/tmp").err == ""


def test_inspect_has_dockers_fields_with_their_empty_values(tool):
    tool.up("--name", "box", "-e", "A=b", "busybox", "sleep", "60")
    shown = tool.inspect("box")
    host, config, network = shown["HostConfig"], shown["Config"], shown["NetworkSettings"]
    assert host["ConsoleSize"] == [0, 0] and host["Links"] is None and host["BlkioWeightDevice"] == []
    assert host["GroupAdd"] is None and host["ExtraHosts"] is None and host["Devices"] == []
    assert (config["AttachStdin"], config["AttachStdout"], config["AttachStderr"]) == (False, False, False)
    assert config["Env"][0] == "A=b" and "StopSignal" not in config and "StopTimeout" not in config
    assert network["IPPrefixLen"] == 0 and network["Networks"]["none"]["IPAMConfig"] is None
    assert set(shown["GraphDriver"]["Data"]) == {"ID", "LowerDir", "MergedDir", "UpperDir", "WorkDir"}
    tool("create", "--name", "made", "-i", "busybox")
    assert tool.inspect("made")["Config"]["AttachStdin"] and tool.inspect("made")["Config"]["AttachStderr"]


def test_a_container_that_could_not_start_never_started(tool):
    tool("run", "--name", "box", "busybox", "nosuch", status=127)
    now = tool.inspect("box")["State"]
    assert (now["Status"], now["ExitCode"]) == ("created", 127)
    assert now["StartedAt"] == now["FinishedAt"] == "0001-01-01T00:00:00Z"


def test_a_log_keeps_to_its_size_and_number_of_files(tool):
    limits = ("--log-opt", "max-size=1k", "--log-opt", "max-file=3")
    words = tool.words("run", "-i", "--name", "box", *limits, "busybox", "cat")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=tool.environment) as process:
        assert process.stdin and process.stdout
        for number in range(1, 101):  # one by one, so that each is a line of the log for itself
            process.stdin.write(f"line {number} of a log that is put aside\n".encode())
            process.stdin.flush()
            process.stdout.readline()
        process.stdin.close()
    shown = tool("logs", "box").out.splitlines()
    assert shown[-1].startswith("line 100 of") and 5 < len(shown) < 60
    numbers = [int(line.split()[1]) for line in shown]
    assert numbers == list(range(numbers[0], 101))
    place = Path(tool.inspect("box")["LogPath"])
    assert sorted(path.name for path in place.parent.glob(f"{place.name}*")) == ["log", "log.1", "log.2"]
    assert tool.inspect("box")["HostConfig"]["LogConfig"] == {
        "Type": "json-file", "Config": {"max-size": "1k", "max-file": "3"}}
    assert len(tool("logs", "--tail", "3", "box").out.splitlines()) == 3


def test_a_log_may_be_none_and_says_so(tool):
    assert tool("run", "--name", "box", "--log-driver", "none", "busybox", "echo", "seen").out == "seen\n"
    refused = tool("logs", "box", status=1).err
    assert refused == "minirt: configured logging driver does not support reading\n"
    assert tool.inspect("box")["LogPath"] == ""
    for words, reason in ((("--log-driver", "syslog"), "--log-driver syslog is not supported"),
                          (("--log-opt", "tag=x"), "unknown log opt 'tag' for json-file log driver"),
                          (("--log-opt", "max-file=0"), "max-file cannot be less than 1"),
                          (("--log-opt", "max-size=x"), "invalid log opt max-size=x")):
        assert reason in tool("create", *words, "busybox", status=125).err


def test_logs_with_details(tool):
    tool("run", "--name", "plain", "busybox", "echo", "hello")
    assert tool("logs", "--details", "plain").out == " hello\n"
    tool("run", "--name", "box", "-l", "b=2 3", "-e", "A=1", "--log-opt", "labels=b,c", "--log-opt", "env=A",
         "busybox", "echo", "hello")
    assert tool("logs", "--details", "box").out == "A=1,b=2+3 hello\n"
    assert tool("logs", "-t", "--details", "box").out.split()[1:] == ["A=1,b=2+3", "hello"]

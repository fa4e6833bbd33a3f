"""Values of `run`'s options, and the configuration that is made of them and of the image."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirt import units
from minirt.cli import main
from minirt.cli.run import asked
from minirt.containers import configure, log, mounts, record, values
from minirt.errors import MinirtError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a:/b", {"Type": "bind", "Source": "/a", "Target": "/b", "Create": True}),
        ("/a:/b:ro", {"Type": "bind", "Source": "/a", "Target": "/b", "Create": True, "ReadOnly": True}),
        ("/a:/b/../c/:rw,z", {"Type": "bind", "Source": "/a", "Target": "/c", "Create": True, "ReadOnly": False}),
        ("/a:/b:rslave", {"Type": "bind", "Source": "/a", "Target": "/b", "Create": True,
                          "BindOptions": {"Propagation": "rslave"}}),
    ],
)
def test_volumes(text, expected):
    assert mounts.volume(text) == expected


def test_a_volume_of_a_relative_path_is_taken_from_where_one_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert mounts.volume("./x:/y")["Source"] == f"{tmp_path}/x"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/a", "anonymous volume"),
        ("a:/b", "chapter 16"),
        ("/a:b", "must be absolute"),
        ("/a:/", "destination can't be '/'"),
        ("/a:/b:nosuch", "invalid mode: nosuch"),
        ("/a:/b:ro:x", "invalid volume specification"),
        (":/b", "invalid spec: :/b: empty section between colons"),
        ("/a:", "empty section between colons"),
        ("", "invalid empty volume spec"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:z,Z", "invalid mode: z,Z"),
        ("/a:/b:shared,slave", "invalid mode"),
        ("/a:/b:nocopy", "nocopy is for volumes"),
    ],
)
def test_bad_volumes(text, reason):
    with pytest.raises(ValueError, match=reason):
        mounts.volume(text)


def test_mounts():
    assert mounts.mount("type=bind,src=/a,dst=/b,ro,bind-propagation=shared") == {
        "Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True, "BindOptions": {"Propagation": "shared"}}
    assert mounts.mount("type=tmpfs,destination=/b,tmpfs-size=1m,tmpfs-mode=1700") == {
        "Type": "tmpfs", "Source": "", "Target": "/b", "ReadOnly": False,
        "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1700}}
    assert mounts.mount("type=bind,source=/a,target=/b,readonly=false")["ReadOnly"] is False
    assert mounts.mount('Type=BIND,"src=/a,b",dst=/c')["Source"] == "/a,b"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a", "invalid field 'a' must be a key=value pair"),
        ("type=nosuch,target=/b", "nosuch is not supported"),
        ("target=/b", "chapter 16"),
        ("type=bind,source=/a", "target is required"),
        ("type=bind,target=/b", "field Source must not be empty"),
        ("src=/a", "target is required"),
        ("type=bind,src=/a,dst=/b,nosuch=1", "unexpected key 'nosuch' in 'nosuch=1'"),
        ("type=bind,src=/a,dst=/b,tmpfs-size=1", r"cannot mix 'tmpfs-\*' options with mount type 'bind'"),
        ("type=bind,src=/a,dst=/b,volume-nocopy", r"cannot mix 'volume-\*' options with mount type 'bind'"),
        ("type=bind,src=/a,dst=/b,ro=maybe", "invalid value for ro: maybe"),
        ("type=bind,src=/a,dst=/b,bind-recursive=x", 'must be "enabled", "disabled", "writable", or "readonly"'),
        ("type=bind,src=/a,dst=/b,bind-recursive=readonly", "requires 'readonly' to be specified in conjunction"),
        ("type=bind,src=/a,dst=/b,ro,bind-recursive=readonly", "requires 'bind-propagation=rprivate'"),
        ("type=bind,src=/a,dst=/b,ro,bind-recursive=writable", "is read-only, too"),
        ("type=bind,src=/a,dst=/b,bind-propagation=x", "invalid propagation mode: x"),
        ("type=tmpfs,dst=/b,tmpfs-mode=9", "invalid value for tmpfs-mode"),
        ("type=tmpfs,dst=/b,src=/a", "field Source must not be specified"),
    ],
)
def test_bad_mounts(text, reason):
    with pytest.raises(ValueError, match=reason):
        mounts.mount(text)


@pytest.mark.parametrize(("text", "reason"), [
    ("t", "must be absolute"), ("/", "can't be '/'"), ("/t:bogus", "invalid tmpfs option: 'bogus'"),
    ("/t:size=1m:ro,nosuch=1", "invalid tmpfs option: 'nosuch=1'"), ("/t:size", "invalid tmpfs option: 'size'")])
def test_bad_tmpfs(text, reason):
    with pytest.raises(ValueError, match=reason):
        mounts.tmpfs(text)


def test_words_of_a_tmpfs_that_say_nothing_are_not_handed_on():
    assert mounts.entries([], {"/t": "rw,async,mand,atime"})[0]["options"] == ["nosuid", "nodev", "noexec"]


def test_two_mounts_at_one_place_are_refused():
    table = [mounts.volume("/a:/x"), mounts.mount("type=tmpfs,dst=/y")]
    mounts.check_targets(table, ["/z", "/z"])
    for more, tmpfs in (([mounts.volume("/b:/x/")], []), ([], ["/y"])):
        with pytest.raises(MinirtError, match=r"Duplicate mount point: /[xy]"):
            mounts.check_targets([*table, *more], tmpfs)


def test_mounts_come_in_the_order_of_their_depth():
    table = [mounts.volume("/a:/x/y/z"), mounts.volume("/b:/x"), mounts.volume("/c:/x/y")]
    found = [entry["destination"] for entry in mounts.entries(table, {"/x/y/z/t": "size=1m,exec"})]
    assert found == ["/x", "/x/y", "/x/y/z", "/x/y/z/t"]
    assert mounts.entries([], {"/t": "size=1m,exec"})[0]["options"] == ["nosuid", "nodev", "size=1m"]


def test_limits_and_devices():
    assert values.limit("nofile=1:2") == {"Name": "nofile", "Soft": 1, "Hard": 2}
    assert values.limit("core=-1") == {"Name": "core", "Soft": -1, "Hard": -1}
    assert values.device("/dev/a:/dev/b:r") == {
        "PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}
    assert values.device("/dev/a:rw")["CgroupPermissions"] == "rw"
    for bad in ("nofile=2:1", "nofile=x", "nofile"):
        with pytest.raises(ValueError, match=r".+"):
            values.limit(bad)
    for bad in ("", "/a:b", "/a:/b:q", "/a:/b:r:x"):
        with pytest.raises(ValueError, match="bad format"):
            values.device(bad)


def test_environments_replace_at_their_place():
    assert values.merged(["A=1", "B=2"], ["A=3", "C=4"]) == ["A=3", "B=2", "C=4"]
    assert values.merged(["A=1", "B=2"], ["A", "C"]) == ["B=2"]  # a bare name takes away
    assert values.environment([], ["A", "B=", "C"], {"A": "x"}) == ["A=x", "B=", "C"]


def test_a_bad_line_of_an_environment_file(tmp_path):
    (tmp_path / "env").write_text("A B=1\n")
    with pytest.raises(MinirtError, match="whitespace"):
        values.environment([str(tmp_path / "env")], [], {})
    with pytest.raises(MinirtError, match="open /no/such: no such file"):
        values.environment(["/no/such"], [], {})


# -- the image's configuration and the user's --------------------------------------------------------------------


class Image:
    id = "sha256:" + "0" * 64
    chains = ["1" * 64]

    def __init__(self, **config: Any) -> None:
        self.config = {"config": config}


def composed(image: Image, *words: str) -> dict[str, Any]:
    command = main.load("create")
    assert command is not None
    options = command.parse(words)
    return configure.configuration({**asked(options), "detach": False}, options.arguments, image)


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "words", "expected"),
    [
        (None, ["sh"], ["x"], ["sh"]),
        (None, ["sh"], ["x", "a", "b"], ["a", "b"]),
        (["e"], ["c"], ["x"], ["e", "c"]),
        (["e"], ["c"], ["x", "a"], ["e", "a"]),
        (["e"], ["c"], ["--entrypoint", "n", "x"], ["n"]),
        (["e"], ["c"], ["--entrypoint", "n", "x", "a"], ["n", "a"]),
        (["e"], ["c"], ["--entrypoint", "", "x", "a"], ["a"]),
    ],
)
def test_entrypoint_and_command_follow_dockers_rules(entrypoint, cmd, words, expected):
    config = composed(Image(Entrypoint=entrypoint, Cmd=cmd), *words)
    assert [config["Path"], *config["Args"]] == expected


def test_without_any_command_it_is_refused():
    for words in (["x"], ["--entrypoint", "", "x"]):
        with pytest.raises(MinirtError, match="no command specified"):
            composed(Image(Entrypoint=["e"] if len(words) > 1 else None), *words)


def test_what_the_image_says_is_the_default():
    image = Image(Env=["A=1", "B=2"], User="app", WorkingDir="/w", Labels={"a": "b"}, StopSignal="USR1", Cmd=["c"])
    ours = composed(image, "x")["Config"]
    assert (ours["Env"], ours["User"], ours["WorkingDir"]) == (["A=1", "B=2"], "app", "/w")
    assert (ours["Labels"], ours["StopSignal"]) == ({"a": "b"}, "USR1")
    theirs = composed(image, "-e", "A=9", "-u", "0", "-w", "/v", "-l", "a=z", "-l", "n", "--stop-signal", "INT",
                      "x")["Config"]
    assert (theirs["Env"], theirs["User"], theirs["WorkingDir"]) == (["A=9", "B=2"], "0", "/v")
    assert (theirs["Labels"], theirs["StopSignal"]) == ({"a": "z", "n": ""}, "INT")
    assert image.config["config"]["Labels"] == {"a": "b"}, "the image's own configuration was changed"


# -- names and the log -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a", "-x", ".x", "a b", "a/b", "ä1", "a\n"])
def test_names_that_no_container_may_have(name):
    with pytest.raises(MinirtError, match="Invalid container name"):
        record.check_name(name)


@given(st.binary())
def test_the_log_gives_back_every_byte(data):
    line = log.HEAD + log.escaped(data) + log.MIDDLE + b"stdout" + log.TIME + b"t" + log.TAIL
    assert b"\n" not in line
    entry = log.parse(line)
    assert entry is not None and (entry.data, entry.stream, entry.time) == (data, "stdout", "t")


@given(st.lists(st.binary(min_size=1), max_size=6))
def test_lines_of_the_log_are_its_pieces(pieces):
    entries = [log.Entry("stdout", "t", piece) for piece in pieces]
    found = [entry.data for entry in log.lines(iter(entries))]
    assert b"".join(found) == b"".join(pieces)
    assert all(piece.find(b"\n") in (-1, len(piece) - 1) for piece in found)


def test_a_log_cut_short_by_a_crash_goes_on(tmp_path):
    path = str(tmp_path / "log")
    first = log.Writer(path)
    first.write("stdout", b"whole\n")
    first.close()
    with open(path, "ab") as file:
        file.write(b'{"log":"tor')
    second = log.Writer(path)
    second.write("stderr", b"after\n")
    second.close()
    assert [entry.data for entry in log.Reader(path).entries()] == [b"whole\n", b"after\n"]


@pytest.mark.parametrize(("text", "seconds"), [
    ("10", 10), ("10.5", 10.5), ("1970-01-02", 86400), ("1970-01-01T01", 3600), ("1970-01-01T00:01", 60),
    ("1970-01-01T00:00:01", 1), ("1970-01-01T00:00:01.25Z", 1.25), ("1970-01-01T02:00:00+02:00", 0),
    ("1970-01-01T00:00-00:30", 1800), ("1970-01-01Z", 0)])
def test_moments(text, seconds, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert units.parse_moment(text) == int(seconds * 10**9)


def test_a_moment_without_a_zone_is_the_machines_own(monkeypatch):
    monkeypatch.setenv("TZ", "XYZ-2")
    time.tzset()
    try:
        assert units.parse_moment("1970-01-01T02:00:00") == 0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_moment_may_be_a_duration_before_now_or_after():
    begun = time.time_ns()
    before, after = units.parse_moment("1m"), units.parse_moment("-1m")
    assert begun <= before + 60 * 10**9 <= after - 60 * 10**9 <= time.time_ns()


@pytest.mark.parametrize("text", ["foo", "1x", "-", "1970-13-01", "1970-01-01T25", "1970-01-01T1", "1970-1-1",
                                  "1970-01-01T00:00:00+2", "1970-01-01 00:00"])
def test_what_is_no_moment(text):
    with pytest.raises(MinirtError, match="failed to parse value as time or duration"):
        units.parse_moment(text)


@pytest.mark.parametrize("files", [1, 3])
def test_a_reader_follows_a_log_that_is_put_aside(tmp_path, files):
    settings = {"Type": "json-file", "Config": {"max-size": "100", "max-file": str(files)}}
    writer = log.Writer(f"{tmp_path}/log", settings)
    writer.write("stdout", b"0\n")
    reader = log.Reader(f"{tmp_path}/log")
    seen = []
    for number in range(1, 20):
        seen += [int(entry.data) for entry in reader.entries()]
        writer.write("stdout", b"%d\n" % number)
    seen += [int(entry.data) for entry in reader.entries()]
    assert seen == list(range(20))
    assert len(list(tmp_path.iterdir())) == files
    late = log.Reader(f"{tmp_path}/log")
    kept = [int(entry.data) for entry in late.entries()]
    assert kept == list(range(kept[0], 20)) and len(kept) < 20
    for each in (writer, reader, late):
        each.close()


def test_lines_of_an_environment_file(tmp_path):
    path = tmp_path / "env"
    path.write_bytes("\ufeffA=1\r\n # no\n\n\t B=x\u2028y\x0cz  \nC\nD\nE=".encode())
    assert values.environment([str(path)], [], {"C": "c"}) == ["A=1", "B=x\u2028y\x0cz  ", "C=c", "E="]
    for text, reason in (("=v", "no variable name on line '=v'"), ("a b", "variable 'a b' contains whitespaces")):
        path.write_text(text)
        with pytest.raises(MinirtError, match=reason):
            values.environment([str(path)], [], {})
    path.write_bytes(b"A=\xff")
    with pytest.raises(MinirtError, match="invalid utf8 bytes"):
        values.environment([str(path)], [], {})


def test_nothing_takes_the_place_of_proc():
    for target in ("/proc", "/proc/sys", "/proc/self/attr"):
        for table, tmpfs in (([mounts.volume(f"/tmp:{target}")], {}), ([], {target: ""})):
            with pytest.raises(MinirtError, match="cannot be mounted because it is"):
                mounts.entries(table, tmpfs)
    assert len(mounts.entries([mounts.volume("/proc:/proc"), mounts.volume("/tmp/a:/proc/meminfo")], {})) == 2

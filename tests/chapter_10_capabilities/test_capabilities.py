"""Chapter 10: sets of capabilities, as numbers, as names, and as the kernel shows them."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minirt import capabilities
from minirt.errors import MinirtError

NOBODY = 65534
DOCKERS = 0xA80425FB
libc = ctypes.CDLL(None, use_errno=True)


def sets(pid: str | int = "self") -> dict[str, int]:
    """What the kernel says of a process, read without the module under test."""
    text = Path(f"/proc/{pid}/status").read_text()
    return {line[3:6]: int(line.split()[1], 16) for line in text.splitlines() if line.startswith("Cap")}


def no_new_privileges() -> str:
    return Path("/proc/self/status").read_text().partition("NoNewPrivs:")[2].split()[0]


def drop(*places: int) -> None:
    """Drop from the bounding set, without the module under test."""
    for place in places:
        assert libc.prctl(24, place, 0, 0, 0) == 0


# --------------------------------------------------------------------------------------------------------- mask


@pytest.mark.exercise("minirt.capabilities.mask")
def test_a_set_is_a_number_with_a_bit_for_each_capability() -> None:
    found = capabilities.mask(["CHOWN"])
    assert found == 1, f'mask(["CHOWN"]) is {found}: CHOWN is number 0, and bit 0 is the lowest: its value is 1'
    found = capabilities.mask(["KILL", "CAP_SETGID"])
    assert found == 0b1100000, (
        f"{found!r} for KILL and SETGID, numbers 5 and 6: a set has one bit for each capability, 1 << number, and both "
        "bits are set, with or without CAP_ in front of the name"
    )
    assert capabilities.mask([]) == 0, "no names make the empty set, 0"
    found = capabilities.mask(name for name in ("CHOWN", "BPF", "45"))
    assert found == 1 | 1 << 39 | 1 << 45, (
        f"{found:#x} for CHOWN, BPF and 45, numbers 0, 39 and 45: a set has 64 bits, also for what the table does not "
        "name")


@pytest.mark.exercise("minirt.capabilities.mask")
def test_dockers_fourteen_are_this_number() -> None:
    found = capabilities.mask(capabilities.DEFAULT)
    assert found == DOCKERS, f"Docker's fourteen are {DOCKERS:#x}, not {found:#x}"


@pytest.mark.exercise("minirt.capabilities.mask")
def test_a_name_that_comes_twice_counts_once() -> None:
    found = capabilities.mask(["KILL", "CHOWN", "CAP_KILL"])
    assert found == 33, f"{found} for CHOWN and twice KILL: a name that comes twice counts once; join sets with |"
    found = capabilities.mask(["KILL", "kill", "CAP_KILL"])
    assert found == 32, f"{found} for KILL, three times: a name that comes twice counts once; put sets together with |"


@pytest.mark.exercise("minirt.capabilities.mask")
def test_a_name_that_is_none_is_refused() -> None:
    try:
        capabilities.mask(["KILL", "FLY"])
    except MinirtError as error:
        assert 'unknown capability: "CAP_FLY"' in str(error)
    else:
        pytest.fail("FLY is no capability, and mask() must raise MinirtError: else --cap-drop with a slip of the pen "
                    "would drop nothing and say nothing")


# ----------------------------------------------------------------------------------------------------- names_of


@pytest.mark.exercise("minirt.capabilities.names_of")
def test_a_set_has_names() -> None:
    found = capabilities.names_of(0b100001)
    assert sorted(found) == ["CHOWN", "KILL"] or found == ["CAP_CHOWN", "CAP_KILL"], (
        f"{found} for bits 0 and 5: the argument is a set, not a number of one capability; look at each bit of it"
    )
    assert capabilities.names_of(0) == [], "the empty set has no names"
    assert found[0] != "CAP_CHOWN", 'give the names as in NAMES, without "CAP_"'
    assert found == ["CHOWN", "KILL"], f"{found}: the names come in the kernel's order, the lowest bit first"


@pytest.mark.exercise("minirt.capabilities.names_of")
def test_names_and_sets_are_two_forms_of_one_thing() -> None:
    for bits in (1 << 40, DOCKERS, (1 << len(capabilities.NAMES)) - 1):
        found = capabilities.names_of(bits)
        back = sum(1 << capabilities.NAMES.index(name) for name in found)
        assert back == bits, f"names_of({bits:#x}) gave {found}, which is {back:#x}"


@pytest.mark.exercise("minirt.capabilities.names_of")
def test_a_newer_kernels_capability_goes_by_its_number() -> None:
    found = capabilities.names_of(1 << 45 | 1 << 63 | 1)
    assert found == ["CHOWN", "45", "63"], (
        f"{found} for bits 0, 45 and 63: a kernel newer than the table has capabilities that it does not name; give "
        "their numbers, as text, or they would be lost"
    )
    first = len(capabilities.NAMES)
    try:
        found = capabilities.names_of(1 << first)
    except IndexError:
        pytest.fail(f"the table ends before bit {first}: NAMES[{first}] is one too far: that bit goes by its number")
    assert found == [str(first)], f"{found} for bit {first}, the first one behind the table: its name is its number"
    assert capabilities.number("45") == 45


# ------------------------------------------------------------------------------------------------------- choose


@pytest.mark.exercise("minirt.capabilities.choose")
def test_without_a_wish_it_is_dockers_fourteen() -> None:
    found = capabilities.choose()
    assert sorted(found) == sorted(capabilities.DEFAULT), f"without --cap-add and --cap-drop it is DEFAULT, not {found}"
    assert found[:2] == ["CHOWN", "DAC_OVERRIDE"], "in the kernel's order, as names_of() gives them"


@pytest.mark.exercise("minirt.capabilities.choose")
def test_what_is_added_and_what_is_dropped() -> None:
    fourteen = set(capabilities.DEFAULT)
    assert set(capabilities.choose(["CAP_SYS_PTRACE", "sys_nice"])) == fourteen | {"SYS_PTRACE", "SYS_NICE"}, (
        "what --cap-add names comes on top of the fourteen"
    )
    assert set(capabilities.choose([], ["cap_mknod", "NET_RAW"])) == fourteen - {"MKNOD", "NET_RAW"}, (
        "what --cap-drop names is missing of the fourteen"
    )
    assert set(capabilities.choose([], ["SYS_NICE"])) == fourteen, "to drop what is not there changes nothing"
    assert set(capabilities.choose(["MKNOD"], ["MKNOD"])) == fourteen, (
        "a name in both lists is added: Docker takes away first, and then puts in"
    )


@pytest.mark.exercise("minirt.capabilities.choose")
def test_all_is_a_word_and_not_a_name() -> None:
    try:
        assert capabilities.choose([], ["ALL"]) == [], "--cap-drop ALL leaves nothing"
    except MinirtError as error:
        pytest.fail(f'"ALL" is not the name of a capability, and mask() says so ({error}): take it out before you ask')
    assert capabilities.choose(["CHOWN"], ["all"]) == ["CHOWN"], "--cap-drop all --cap-add CHOWN leaves CHOWN alone"
    assert capabilities.choose(["SYS_NICE"], ["ALL"]) == ["SYS_NICE"], (
        "--cap-drop ALL --cap-add SYS_NICE leaves what is added, also what is none of the fourteen")
    assert capabilities.choose(["MKNOD"], ["ALL", "MKNOD"]) == ["MKNOD"], (
        "with --cap-drop ALL only what is added counts: what else `drop` names says nothing more")
    have = capabilities.choose(["all"])
    assert capabilities.mask(have) == sets()["Bnd"], f"--cap-add all gives all that this process has, not {have}"
    assert "MKNOD" not in capabilities.choose(["ALL"], ["CAP_MKNOD"]), (
        "--cap-add ALL --cap-drop MKNOD is everything without what is dropped"
    )
    assert "MKNOD" not in capabilities.choose(["ALL", "MKNOD"], ["MKNOD"]), (
        "--cap-add ALL --cap-add MKNOD --cap-drop MKNOD: where ALL is added, what is dropped is missing")
    assert capabilities.choose(["ALL"], ["ALL"]) == have, 'with "ALL" in both lists, --cap-add comes first'


@pytest.mark.exercise("minirt.capabilities.choose")
@pytest.mark.parametrize("add, drop", [([], ["CHWON"]), (["ALL"], ["CHWON"]), (["CHWON"], []), (["CHWON"], ["ALL"])])
def test_a_name_that_is_none_is_no_wish(add: list[str], drop: list[str]) -> None:
    try:
        chosen = capabilities.choose(add, drop)
    except MinirtError:
        return
    pytest.fail(
        f"--cap-add {add} --cap-drop {drop} was answered with {len(chosen)} capabilities: there is no CHWON, and who "
        "wrote it believes now that CHOWN is gone. `mask` raises MinirtError for it, also for a name in `drop`"
    )


@pytest.mark.exercise("minirt.capabilities.choose")
def test_nobody_can_give_what_he_has_not(inside: Callable[..., Any]) -> None:
    def with_less() -> tuple[list[str], str]:
        drop(23)
        try:
            capabilities.choose([], ["SYS_NICE"])
        except MinirtError as error:
            pytest.fail(f"--cap-drop SYS_NICE was refused to a process that has none to give ({error}): only what is "
                        "added must be available")
        try:
            capabilities.choose(["SYS_NICE"])
            refused = ""
        except MinirtError as error:
            refused = str(error)
        return capabilities.choose(["ALL"]), refused

    everything, refused = inside(with_less)
    assert "SYS_NICE" not in everything, (
        "a process without SYS_NICE in its bounding set was to choose ALL, and chose SYS_NICE: that is all that the "
        "kernel has, not what this process itself could give; everything() knows"
    )
    assert "not available in the current environment" in refused, (
        "a process without SYS_NICE was asked for --cap-add SYS_NICE, and choose() said yes: it cannot be given here; "
        "ask available() first"
    )


# -------------------------------------------------------------------------------------------------------- limit


@pytest.mark.exercise("minirt.capabilities.limit")
def test_the_bounding_set_is_cut_down(inside: Callable[..., Any]) -> None:
    def cut(keep: int) -> tuple[dict[str, int], dict[str, int]]:
        before = sets()
        capabilities.limit(keep)
        return before, sets()

    for keep in (DOCKERS, 0, 1 << 40 | 1):
        before, after = inside(cut, keep)
        assert after["Bnd"] != before["Bnd"], (
            "the bounding set of this process is as it was: PR_CAPBSET_DROP holds for the process that calls it"
        )
        lost = keep & before["Bnd"] & ~after["Bnd"]
        assert not lost, f"{capabilities.names_of(lost)} is gone: what is in `keep` stays, what is not in it goes"
        still = capabilities.names_of(after["Bnd"] & ~keep)
        assert not still, f"still in the bounding set: {', '.join(sorted(still, reverse=True))}; go through all known()"
        assert {name: after[name] for name in ("Prm", "Eff", "Inh")} == {
            name: before[name] for name in ("Prm", "Eff", "Inh")}, "limit() changes the bounding set and no other"


@pytest.mark.exercise("minirt.capabilities.limit")
def test_a_newer_kernels_capabilities_are_dropped_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = len(capabilities.NAMES) + 3
    dropped: list[int] = []

    def as_if_newer(name: str, option: int, place: int, *_: int) -> int:
        if name == "prctl" and place >= newer:
            raise OSError(22, "no such capability")
        if option == capabilities.PR_CAPBSET_DROP:
            dropped.append(place)
        return 1

    monkeypatch.setattr(capabilities.syscalls, "call", as_if_newer)
    capabilities.limit(1)
    assert sorted(dropped) == list(range(1, newer)), (
        f"a kernel that has {newer} capabilities was asked to drop all but the first, and {len(dropped)} were dropped: "
        "those that the table does not name are powers, too; known() tells which ones the kernel has"
    )


@pytest.mark.exercise("minirt.capabilities.limit")
def test_no_exec_gives_it_back(inside: Callable[..., Any]) -> None:
    def executed() -> str:
        capabilities.limit(DOCKERS)
        return subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True).stdout

    assert int(inside(executed).split()[1], 16) == DOCKERS


@pytest.mark.exercise("minirt.capabilities.limit")
def test_a_limit_that_cannot_be_set_is_an_error(inside: Callable[..., Any]) -> None:
    def as_nobody() -> str:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        try:
            capabilities.limit(DOCKERS)
        except PermissionError:
            return "refused"
        return "no error"

    assert inside(as_nobody) == "refused", (
        "the kernel refused (this process has no CAP_SETPCAP), and limit() must raise OSError then: a container would "
        "start with more than was asked"
    )


# ----------------------------------------------------------------------------------------------------- set_sets


@pytest.mark.exercise("minirt.capabilities.set_sets")
def test_three_sets_are_set_at_once(inside: Callable[..., Any]) -> None:
    def change(*three: int) -> dict[str, int]:
        try:
            capabilities.set_sets(*three)
        except OSError:
            return {}
        return sets()

    after = inside(change, 0b100000, 0b100001, 0b1)
    assert after, "the kernel refused sets that it allows, so it read something else: all low halves come first"
    found = after["Eff"], after["Prm"], after["Inh"]
    assert found[:2] != (0b100001, 0b100000) and found[0] != 0b100001, (
        "effective has what permitted should have: two sets have changed places; effective comes first"
    )
    assert found == (0b100000, 0b100001, 0b1), (
        f"effective, permitted and inheritable are {found}, not (32, 33, 1): all low halves come first, in this order"
    )


@pytest.mark.exercise("minirt.capabilities.set_sets")
def test_capabilities_beyond_the_32nd_are_in_the_high_halves(inside: Callable[..., Any]) -> None:
    def change() -> dict[str, int]:
        capabilities.set_sets(1 << 38, 1 << 38 | 1 << 40 | 1, 1 << 40)
        return sets()

    after = inside(change)
    assert (after["Eff"], after["Prm"], after["Inh"]) == (1 << 38, 1 << 38 | 1 << 40 | 1, 1 << 40), (
        f"bits 38 and 40 did not arrive ({after}): they are in the high halves, three numbers behind the three low ones"
    )


@pytest.mark.exercise("minirt.capabilities.set_sets")
def test_what_has_left_permitted_does_not_come_back(inside: Callable[..., Any]) -> None:
    def come_back() -> str:
        capabilities.set_sets(0, 0, 0)
        try:
            capabilities.set_sets(1, 1, 0)
        except PermissionError:
            return "refused"
        return "no error"

    assert inside(come_back) == "refused", "the kernel refused, and set_sets() must raise OSError then"

    def too_much() -> str:
        try:
            capabilities.set_sets(0b11, 0b1, 0)
        except PermissionError:
            return "refused"
        return "no error"

    assert inside(too_much) == "refused", (
        "effective was to have more than permitted: the kernel refuses that, and set_sets() must not make it fit")


# ---------------------------------------------------------------------------------------- set_no_new_privileges


@pytest.fixture
def found(tmp_path: Path) -> Path:
    """A set-user-id root program that anybody may start: a copy of id(1)."""
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    program = Path(shutil.copy(os.path.realpath(shutil.which("id") or ""), tmp_path / "id"))
    program.chmod(0o4755)
    return program


def effective_user(program: Path, before: Callable[[], None] | None = None) -> int:
    """Whom a set-user-id program takes itself for when an ordinary user starts it after calling `before`."""
    ran = subprocess.run([program, "-u"], capture_output=True, text=True, user=NOBODY, group=NOBODY, extra_groups=[],
                         preexec_fn=before)
    return int(ran.stdout)


@pytest.mark.exercise("minirt.capabilities.set_no_new_privileges")
def test_the_kernel_says_that_there_are_no_new_privileges(inside: Callable[..., Any]) -> None:
    def set_it(user: int) -> str:
        os.setresuid(user, user, user)
        capabilities.set_no_new_privileges()
        return no_new_privileges()

    assert inside(set_it, 0) == "1", (
        "NoNewPrivs is still 0 in this process's /proc/self/status: prctl(2) sets it, with PR_SET_NO_NEW_PRIVS"
    )
    assert inside(set_it, NOBODY) == "1", "it needs no privilege: an ordinary user may set it too"


@pytest.mark.exercise("minirt.capabilities.set_no_new_privileges")
def test_a_set_user_id_program_gives_nothing(found: Path) -> None:
    assert effective_user(found) == 0, "control: without it a set-user-id program makes anybody root"
    assert effective_user(found, capabilities.set_no_new_privileges) == NOBODY, (
        "a set-user-id program made an ordinary user root, after set_no_new_privileges()"
    )


# --------------------------------------------------------------------------------------------- the whole chapter


def held_to(bits: int, attack: Callable[[], Any]) -> str:
    """Try something with no more than these capabilities; "done", or the error's name."""
    capabilities.limit(bits)
    capabilities.set_sets(bits & sets()["Prm"], bits & sets()["Prm"], 0)
    try:
        attack()
    except OSError as error:
        return type(error).__name__ if error.errno == 1 else f"another error, {error.errno}"
    return "done"


EVERYTHING = (1 << 41) - 1


def test_a_raw_socket_needs_net_raw(inside: Callable[..., Any]) -> None:
    def forge() -> None:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()

    assert inside(held_to, EVERYTHING, forge) == "done"
    assert inside(held_to, DOCKERS, forge) == "done", "NET_RAW is one of Docker's fourteen"
    assert inside(held_to, DOCKERS & ~capabilities.mask(["NET_RAW"]), forge) == "PermissionError"


def test_a_kernel_module_needs_sys_module(inside: Callable[..., Any]) -> None:
    def load() -> None:
        number = {"x86_64": 175, "aarch64": 105}[os.uname().machine]  # init_module
        if libc.syscall(number, b"no module", 9, b"") < 0:
            raise OSError(ctypes.get_errno(), "init_module")

    no_modules = "another error, 38"  # a kernel that is all of one piece
    assert inside(held_to, DOCKERS, load) in ("PermissionError", no_modules)
    disabled = Path("/proc/sys/kernel/modules_disabled")
    if sets()["Bnd"] >> 16 & 1 and disabled.exists() and disabled.read_text() == "0\n":  # most cages have it no more
        assert "another error" in inside(held_to, EVERYTHING, load), "control: with it, the kernel looks at the module"


def test_mount_chown_and_mknod(tmp_path: Path, inside: Callable[..., Any]) -> None:
    file = tmp_path / "file"
    file.touch()

    def mount() -> None:
        libc.unshare(0x20000)
        libc.mount(None, b"/", None, 0x44000, None)
        if libc.mount(b"none", os.fsencode(tmp_path), b"tmpfs", 0, None):
            raise OSError(ctypes.get_errno(), "mount")

    def chown() -> None:
        os.chown(file, NOBODY, NOBODY)

    def mknod() -> None:
        os.mknod(tmp_path / f"disk{os.getpid()}", stat.S_IFBLK, os.makedev(8, 0))

    few = capabilities.mask(["KILL"])
    for attack, default in ((mount, "PermissionError"), (chown, "done"), (mknod, "done")):
        assert inside(held_to, EVERYTHING, attack) == "done", attack.__name__
        assert inside(held_to, DOCKERS, attack) == default, attack.__name__
        assert inside(held_to, few, attack) == "PermissionError", attack.__name__


def test_a_file_gives_what_its_attribute_says(tmp_path: Path, found: Path) -> None:
    wanted = capabilities.mask(["NET_RAW", "CHECKPOINT_RESTORE"])
    program = Path(shutil.copy(os.path.realpath(shutil.which("grep") or ""), tmp_path / "grep"))
    os.setxattr(program, capabilities.FILE_ATTRIBUTE, capabilities.file_value(wanted, capabilities.mask(["KILL"])))
    assert len(os.getxattr(program, "security.capability")) == 20
    if getcap := shutil.which("getcap", path="/usr/sbin:/sbin:/usr/bin:/bin"):
        told = subprocess.run([getcap, program], capture_output=True, text=True).stdout
        assert "cap_net_raw" in told and "cap_checkpoint_restore" in told and "cap_kill" in told, told

    def shown(before: Callable[[], None] | None = None) -> str:
        return subprocess.run([program, "CapEff", "/proc/self/status"], capture_output=True, text=True, user=NOBODY,
                              group=NOBODY, extra_groups=[], preexec_fn=before).stdout.split()[1]

    assert int(shown(), 16) == wanted
    assert int(shown(capabilities.set_no_new_privileges), 16) == 0, "no_new_privs voids a file's capabilities too"


def test_ambient_capabilities_go_through_an_exec(inside: Callable[..., Any]) -> None:
    def with_ambient(clear: bool) -> str:
        bits = capabilities.mask(["NET_RAW"])
        capabilities.keep_across_setuid(True)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        capabilities.set_sets(bits, bits, bits)
        capabilities.raise_ambient(bits)
        if clear:
            capabilities.clear_ambient()
        return subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True).stdout

    assert int(inside(with_ambient, False).split()[1], 16) == 1 << 13
    assert int(inside(with_ambient, True).split()[1], 16) == 0


def test_securebits_make_user_0_a_number_like_others(inside: Callable[..., Any]) -> None:
    def without_root() -> str:
        capabilities.set_secure_bits(capabilities.NOROOT | capabilities.NOROOT << 1)
        return subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True).stdout

    assert int(inside(without_root).split()[1], 16) == 0


def test_the_table_is_the_kernels_own() -> None:
    """The header of the machine, where it is installed, has the same names at the same places."""
    assert capabilities.known() == (1 << int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1) - 1
    header = Path("/usr/include/linux/capability.h")
    if header.exists():
        lines = [line.split() for line in header.read_text().splitlines() if line.startswith("#define CAP_")]
        numbers = {line[1][4:]: int(line[2]) for line in lines if len(line) > 2 and line[2].isdigit()}
        for name, place in numbers.items():
            assert capabilities.NAMES[place] == name
    assert capabilities.read() == {
        {"Inh": "inheritable", "Prm": "permitted", "Eff": "effective", "Bnd": "bounding", "Amb": "ambient"}[key]: value
        for key, value in sets().items()}
    assert capabilities.permitted() == sets()["Prm"]


def test_the_container_program_keeps_fourteen(container: Callable[..., Any]) -> None:
    shown = [int(line.split()[1], 16) for line in container("/").stdout.splitlines()]
    assert shown == [0, DOCKERS, DOCKERS, DOCKERS, 0, 0]
    ran = container("--user", "65534", "--no-new-privileges", "/")
    shown = [int(line.split()[1], 16) for line in ran.stdout.splitlines()]
    assert shown == [0, 0, 0, DOCKERS, 0, 1]
    assert container("--cap-drop", "ALL", "/", "sh", "-c", "chown 1 /etc/hostname").status == 1
    assert container("--cap-drop", "ALL", "--cap-add", "chown", "/", "sh", "-c", "chown 1 /etc/hostname").status == 0


def test_the_container_program_answers_wrong_use_with_a_sentence(container: Callable[..., Any]) -> None:
    for wrong in ([], ["--cap-add"], ["--user", "bob", "/"], ["/nowhere", "true"]):
        ran = container(*wrong)
        assert ran.status and ran.stderr.startswith("container.py") and ran.stderr.count("\n") == 1, ran


def test_the_container_program_tells_what_it_cannot_run(container: Callable[..., Any]) -> None:
    ran = container("/", "no-such-command")
    assert (ran.status, ran.stderr) == (127, "container.py: no-such-command: not found\n")
    ran = container("/", "/etc/passwd")
    assert (ran.status, ran.stderr) == (126, "container.py: /etc/passwd: cannot be executed\n")

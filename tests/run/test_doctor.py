"""`minirt doctor`: what the machine offers, what is missing, and the command that mends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minirt import doctor

IN_A_CAGE = ["unshare", "--mount", "--propagation", "private"]


@pytest.fixture(scope="module")
def findings() -> list[doctor.Finding]:
    return doctor.examine()


def test_every_namespace_is_reported_with_its_chapter(findings: list[doctor.Finding]) -> None:
    reported = {(finding.chapter, finding.what) for finding in findings}
    assert {(2, "UTS namespace"), (3, "pid namespace"), (4, "mount namespace"), (5, "IPC namespace"),
            (6, "network namespace"), (7, "user namespace"), (8, "cgroup namespace")} <= reported


def test_overlay_cgroups_seccomp_and_capabilities_are_reported(findings: list[doctor.Finding]) -> None:
    named = " ".join(finding.what for finding in findings)
    for word in ("OverlayFS", "control groups", "cgroup controller memory", "seccomp", "capabilities", "the tool nft"):
        assert word in named


def test_whatever_is_missing_comes_with_a_cure(findings: list[doctor.Finding]) -> None:
    assert [finding.what for finding in findings if not finding.present and not finding.mend] == []


def test_each_thing_is_named_once(findings: list[doctor.Finding]) -> None:
    names = [finding.what for finding in findings]
    assert len(names) == len(set(names))


def test_a_machine_that_runs_these_tests_is_found_ready(findings: list[doctor.Finding]) -> None:
    assert doctor.ready(findings), [finding for finding in findings if finding.needed and not finding.present]


def test_text_and_json_say_the_same(findings: list[doctor.Finding]) -> None:
    data = json.loads(json.dumps(doctor.as_data(findings)))
    text = doctor.as_text(findings)
    assert data["ready"] is True and "minirt run has all that it needs" in text
    assert data["machine"]["kernel"] == os.uname().release and os.uname().release in text
    for finding in data["findings"]:
        assert finding["what"] in text


def test_a_store_on_an_overlay_is_called_unusable_with_its_cure(tmp_path: Path) -> None:
    script = """
        mount -t tmpfs none /mnt && mkdir /mnt/l /mnt/u /mnt/w /mnt/m &&
        mount -t overlay -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w overlay /mnt/m &&
        MINIRT_ROOT=/mnt/m/store exec "$0" -m minirt.doctor --json
    """
    done = subprocess.run([*IN_A_CAGE, "sh", "-c", script, sys.executable], capture_output=True, text=True, check=False)
    found = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    store = found["a file system for the store"]
    assert done.returncode == 1 and not store["present"]
    assert "volume" in store["mend"]


def test_masks_over_proc_are_seen() -> None:
    script = "mount -t tmpfs none /proc/acpi || mount -t tmpfs none /proc/tty; exec \"$0\" -m minirt.doctor --json"
    done = subprocess.run([*IN_A_CAGE, "sh", "-c", script, sys.executable], capture_output=True, text=True, check=False)
    found = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert not found["/proc without masks"]["present"]


def test_ubuntu_24_04_is_told_which_setting_forbids_user_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}
    monkeypatch.setattr(doctor, "_read", lambda path: settings.get(path, ""))
    users = {finding.what: finding for finding in doctor._users()}
    everybody = users["user namespaces for everybody"]
    assert not everybody.present
    assert everybody.mend == "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"


def test_wsl_a_codespace_and_a_hypervisor_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, str] = {}
    monkeypatch.setattr(doctor, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    for name in [name for name in os.environ if name.startswith("LIMA_") or name == "CODESPACES"]:
        monkeypatch.delenv(name)
    assert doctor.kind_of_machine() == "a machine of its own"
    files["/proc/cpuinfo"] = "flags : fpu hypervisor avx\n"
    assert doctor.kind_of_machine() == "a virtual machine"
    files["/proc/sys/kernel/osrelease"] = "6.6.36-microsoft-standard-WSL2\n"
    assert doctor.kind_of_machine() == "WSL2"
    monkeypatch.setenv("CODESPACES", "true")
    files["/proc/self/status"] = "CapBnd:\t00000000a80425fb\n"
    assert doctor.kind_of_machine() == "a Codespace, without the rights to make containers"
    files["/proc/self/status"] = "CapBnd:\t000001ffffffffff\n"
    assert doctor.kind_of_machine() == "a Codespace, privileged"


def test_a_foreign_file_system_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    table = "1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / /mnt/c rw - 9p drvfs rw\n"
    monkeypatch.setattr(doctor, "_read", lambda path: table)
    assert doctor.file_system("/mnt/c/minirt") == ("9p", "/mnt/c")
    assert doctor.file_system("/mnt/cellar") == ("ext4", "/")


def test_a_broken_room_is_a_finding_and_no_traceback(tmp_path: Path) -> None:
    script = """
        import sys, minirt.doctor as doctor
        from pathlib import Path
        room = Path(sys.argv[1]) / "minirt" / "broken.py"
        room.parent.mkdir()
        room.write_text("import nowhere\\n\\n\\ndef probe():\\n    return []\\n")
        doctor.__file__ = str(room.parent / "doctor.py")
        print([(finding.what, finding.present, finding.detail) for finding in doctor.rooms()])
    """
    import textwrap
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
                          capture_output=True, text=True, check=True)
    assert "('minirt.broken', False, \"ModuleNotFoundError" in done.stdout


def test_rooms_without_a_probe_are_not_imported() -> None:
    script = "import sys; from minirt import doctor; list(doctor.rooms()); print('minirt.install' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

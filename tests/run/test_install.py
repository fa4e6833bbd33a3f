"""How minirt is set up: the interpreter that is chosen, the launcher and its bundle, and that nothing stays behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USER = 12345      # an ordinary user's number that owns a checkout


def run(*words: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, check=False,
                          **more)  # type: ignore[call-overload, no-any-return]


def installer(*words: str | Path, checkout: Path = ROOT) -> None:
    done = run(sys.executable, "-IB", checkout / "minirt" / "install.py", *words)
    assert done.returncode == 0, done.stderr


def copy_of_the_checkout(place: Path) -> Path:
    """A second checkout with an environment of its own, as `make hello` makes them."""
    for part in ("minirt", "chapters"):
        shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    (place / ".venv" / "lib" / version / "site-packages").mkdir(parents=True)
    (place / ".venv" / "bin").mkdir()
    installer("checkout", place / ".venv", checkout=place)
    return place


def everything_below(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


def home(prefix: Path) -> Path:
    """The directory of the version that the installed launcher runs."""
    return Path((prefix / "bin" / "minirt").read_text().split("the sources lie in ")[1].split("\n")[0])


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    place = tmp_path / "usr-local"
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "somebody-elses").write_text("")
    return place


def test_the_installed_command_runs_without_its_sources(prefix: Path) -> None:
    installer("system", prefix)
    shutil.rmtree(home(prefix) / "minirt")
    done = run(prefix / "bin" / "minirt", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert "version" in done.stdout


def test_it_needs_no_checkout_and_heeds_no_environment(prefix: Path, tmp_path: Path) -> None:
    installer("system", prefix)
    trap = tmp_path / "trap"
    (trap / "minirt").mkdir(parents=True)
    (trap / "minirt" / "__init__.py").write_text("raise SystemExit('the wrong minirt')")
    (trap / "os.py").write_text("raise SystemExit('the wrong os')")
    done = run(prefix / "bin" / "minirt", "--version", cwd=trap, env={"PATH": "/usr/bin", "PYTHONPATH": str(trap)})
    assert done.returncode == 0, done.stderr


def test_a_bundle_of_another_interpreter_is_left_aside(prefix: Path) -> None:
    installer("system", prefix)
    bundle = home(prefix) / "minirt.bundle"
    for content in (bundle.read_bytes().replace(sys.version.encode(), sys.version.replace("3", "4").encode()),
                    bundle.read_bytes()[:1000], b"", b"nonsense"):
        bundle.write_bytes(content)
        done = run(prefix / "bin" / "minirt", "--version")
        assert done.returncode == 0, done.stderr
    bundle.unlink()
    assert run(prefix / "bin" / "minirt", "--version").returncode == 0


def test_whoever_installs_with_a_strict_umask_locks_nobody_out(prefix: Path) -> None:
    program = [sys.executable, "-IB", ROOT / "minirt" / "install.py"]
    done = run("sh", "-c", 'umask 077; exec "$@"', "sh", *program, "system", prefix)
    assert done.returncode == 0, done.stderr
    closed = [path for path in prefix.rglob("*") if not path.stat().st_mode & 0o004]
    assert closed == []


def test_the_version_before_stays_for_running_containers_and_no_older_one(prefix: Path, tmp_path: Path) -> None:
    versions = []
    for number in range(3):
        checkout = tmp_path / "checkout"
        shutil.rmtree(checkout, ignore_errors=True)
        shutil.copytree(ROOT / "minirt", checkout / "minirt")
        (checkout / "minirt" / "new.py").write_text(f"NUMBER = {number}\n")
        installer("system", prefix, checkout=checkout)
        versions.append(home(prefix))
        assert run(prefix / "bin" / "minirt", "--version").returncode == 0
    assert {path.name for path in (prefix / "lib" / "minirt").iterdir()} == {path.name for path in versions[1:]}


def test_installing_twice_replaces_and_removing_leaves_nothing(prefix: Path) -> None:
    before = everything_below(prefix)
    installer("system", prefix)
    (home(prefix) / "minirt" / "old.py").write_text("")
    installer("system", prefix)
    assert not (home(prefix) / "minirt" / "old.py").exists()
    installer("remove", prefix, "keep")
    left = {path for path in everything_below(prefix) - before if not (prefix / path).is_dir()}
    assert left == set()


def test_the_manual_page_has_each_command_with_its_options(prefix: Path) -> None:
    installer("system", prefix)
    page = (prefix / "share" / "man" / "man1" / "minirt.1").read_text()
    assert ".SS doctor" in page and "minirt version [OPTIONS]" in page and "\\-\\-format" in page


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for /var/lib/minirt and /run/minirt of its own")
def test_uninstalling_takes_containers_images_and_cgroups_away(prefix: Path) -> None:
    installer("system", prefix)
    script = """
        for place in /var/lib /run /sys/fs/cgroup; do mount -t tmpfs none $place; done
        mkdir -p /var/lib/minirt/images /run/minirt/8-2 /sys/fs/cgroup/minirt/0123
        echo $1 > /sys/fs/cgroup/minirt/0123/cgroup.procs
        test -n "$1" || rm /sys/fs/cgroup/minirt/0123/cgroup.procs
        "$2" -IB "$3" remove "$4"
        echo "status $?"
        find /var/lib /run /sys/fs/cgroup -name minirt
    """
    words = [sys.executable, ROOT / "minirt" / "install.py", prefix]
    busy = run("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", "77", *words)
    assert "container 0123 still runs" in busy.stderr
    assert busy.stdout == "status 1\n/var/lib/minirt\n/run/minirt\n/sys/fs/cgroup/minirt\n"
    idle = run("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", "", *words)
    assert (idle.stdout, idle.stderr) == ("status 0\n", "")
    assert not (prefix / "bin" / "minirt").exists()


def test_a_changed_source_of_the_checkout_is_what_runs(tmp_path: Path) -> None:
    checkout = copy_of_the_checkout(tmp_path / "checkout")
    main = checkout / "minirt" / "__main__.py"
    main.write_text("def main():\n    print('changed')\n    return 3\n")
    done = run(checkout / ".venv" / "bin" / "minirt")
    assert (done.returncode, done.stdout) == (3, "changed\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users")
def test_root_leaves_no_file_in_the_checkout_of_a_user(tmp_path: Path) -> None:
    checkout = copy_of_the_checkout(tmp_path / "checkout")
    for path in [checkout, *checkout.rglob("*")]:
        os.lchown(path, USER, USER)
    for source in (checkout / "minirt").rglob("*.py"):
        os.utime(source)     # newer than what was compiled of it
    assert run(checkout / ".venv" / "bin" / "minirt", "--version").returncode == 0
    assert [path for path in checkout.rglob("*") if path.lstat().st_uid != USER] == []


# -- which Python ----------------------------------------------------------------------------------------------

def find_python(tmp_path: Path, answer: str) -> subprocess.CompletedProcess[str]:
    """Run tools/find-python with a python3 first on PATH that is a shell script: `answer` is its text."""
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "python3").write_text(f"#!/bin/sh\n{answer}\n")
    (shims / "python3").chmod(0o755)
    return run(ROOT / "tools" / "find-python", env={"PATH": f"{shims}:/usr/bin:/bin:/usr/sbin:/sbin"})


def test_behind_a_shim_the_real_interpreter_is_found(tmp_path: Path) -> None:
    done = find_python(tmp_path, f'exec {sys.executable} "$@"')
    real = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    assert done.stdout == f"{real}\n"


def test_a_python_that_is_too_old_or_broken_is_passed_over(tmp_path: Path) -> None:
    done = find_python(tmp_path, "exit 3")
    assert done.returncode == 1 or not done.stdout.startswith(str(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to cover the system's own Python")
def test_a_system_without_python_is_told_the_line_that_installs_it(tmp_path: Path) -> None:
    covered = "; ".join(f"test ! -e {path} || mount --bind /bin/false {path}" for path in
                        (f"$(realpath -q /usr/bin/python3{version} || echo /nowhere)"
                         for version in ("", ".11", ".12", ".13", ".14")))
    # By standard input: the user may not be let into the checkout.
    script = f"{covered}; exec setpriv --reuid {USER} --clear-groups sh -s < {ROOT}/tools/find-python"
    done = run("unshare", "--mount", "--propagation", "private", "sh", "-c", script, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 1
    assert "sudo apt-get install -y --no-install-recommends python3" in done.stderr


# -- make ---------------------------------------------------------------------------------------------------------

def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(makefile.split(".PHONY:")[1].splitlines()[0].split()) - {"help", "ready"}
    shown = run("make", "-s", "-C", ROOT, "help").stdout
    assert {target for target in targets if f"make {target} " not in shown.replace("\n", " ")} == set()

"""Chapter 02: what enter and configure do, seen by the process itself and by its parent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from minirt.namespaces import uts

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def namespaces(pid: str | int = "self") -> dict[str, str]:
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS}


def domain() -> str:
    with open("/proc/sys/kernel/domainname") as file:
        return file.read().strip()


@pytest.mark.exercise("minirt.namespaces.uts.enter")
def test_entering_gives_a_uts_namespace_of_its_own(spawn: Callable[..., Any]) -> None:
    ours = namespaces()["uts"]
    child = spawn(uts.enter)
    assert child.value is None, "enter() returns nothing: the namespace belongs to the process that called it"
    assert namespaces(child.pid)["uts"] != ours, (
        "after enter() you are still in the machine's UTS namespace: call unshare(2) with CLONE_NEWUTS, in this process"
    )


@pytest.mark.exercise("minirt.namespaces.uts.enter")
def test_entering_changes_no_other_namespace(spawn: Callable[..., Any]) -> None:
    ours = namespaces()
    child = spawn(uts.enter)
    assert child.value is None
    changed = [kind for kind, name in namespaces(child.pid).items() if name != ours[kind] and kind != "uts"]
    assert not changed, f"enter() made more than a UTS namespace: {', '.join(changed)} as well; one bit is enough"


@pytest.mark.exercise("minirt.namespaces.uts.enter")
def test_a_new_namespace_begins_with_a_copy_of_the_names(inside: Callable[..., Any]) -> None:
    def names_after_entering() -> tuple[str, str]:
        uts.enter()
        return os.uname().nodename, domain()

    assert inside(names_after_entering) == (os.uname().nodename, domain()), (
        "a new UTS namespace begins with copies of the host's two names: enter() changes neither"
    )


@pytest.mark.exercise("minirt.namespaces.uts.enter")
def test_whoever_may_not_gets_an_error(inside: Callable[..., Any]) -> None:
    def enter_as_nobody() -> str:
        os.setresuid(65534, 65534, 65534)
        try:
            uts.enter()
        except PermissionError:
            return "refused"
        return "no error"

    assert inside(enter_as_nobody) == "refused", (
        "the kernel refused (this user may not make a UTS namespace), and enter() must raise OSError then, "
        "or the caller goes on in the machine's namespace"
    )


@pytest.mark.exercise("minirt.namespaces.uts.configure")
def test_the_host_is_named_inside_and_not_outside(spawn: Callable[..., Any], outside: Any) -> None:
    machine = os.uname().nodename

    def named() -> Iterator[str]:
        uts.enter()
        uts.configure("box")
        yield os.uname().nodename

    child = spawn(named)
    assert child.value == "box", f'configure("box") left the host name at {child.value!r}: call sethostname(2)'
    assert os.uname().nodename == machine, "the machine's own host name has changed"


@pytest.mark.exercise("minirt.namespaces.uts.configure")
def test_it_needs_no_program(inside: Callable[..., Any]) -> None:
    def named() -> str:
        uts.enter()
        os.environ["PATH"] = "/nowhere"
        uts.configure("box")
        return os.uname().nodename

    assert inside(named) == "box", (
        "configure() must set the name without any program's help: a container has no `hostname` command to lend you. "
        "Use the system call"
    )


@pytest.mark.exercise("minirt.namespaces.uts.configure")
def test_a_name_is_counted_in_bytes(inside: Callable[..., Any]) -> None:
    def named() -> bytes:
        uts.enter()
        uts.configure("grüße")
        return os.fsencode(os.uname().nodename)

    wanted = "grüße".encode()
    found = inside(named)
    assert found == wanted, (
        f'configure("grüße") set {found!r}: the name has two bytes fewer than it should, because len() of a str counts '
        f"letters; sethostname(2) wants the number of bytes, {len(wanted)}"
    )


@pytest.mark.exercise("minirt.namespaces.uts.configure")
def test_the_longest_name_fits_and_a_longer_one_is_refused(inside: Callable[..., Any]) -> None:
    def named(length: int) -> str:
        uts.enter()
        try:
            uts.configure("n" * length)
        except OSError as error:
            return f"OSError {error.errno}"
        return os.uname().nodename

    assert inside(named, 64) == "n" * 64, "a name of 64 bytes must fit: the length does not count a closing NUL"
    assert inside(named, 65) == "OSError 22", "the kernel refuses a name of 65 bytes (EINVAL): let the OSError out"


@pytest.mark.exercise("minirt.namespaces.uts.configure")
def test_the_domain_is_set_when_given_and_left_alone_when_not(inside: Callable[..., Any]) -> None:
    def named() -> tuple[str, str]:
        uts.enter()
        uts.configure("box", "lab.example")
        first = domain()
        uts.configure("box")
        return first, domain()

    first, second = inside(named)
    assert first == "lab.example", f"the domain name is still {first!r}: configure() sets it too (setdomainname(2))"
    assert second == "lab.example", "with an empty domainname, leave the domain name alone"


def test_the_container_program_names_its_host(container: Callable[..., Any]) -> None:
    machine = os.uname().nodename
    ran = container("--hostname", "cabin", "sh", "-c", "uname -n; readlink /proc/self/ns/uts")
    name, namespace = ran.stdout.split()
    assert (ran.status, name) == (0, "cabin")
    assert namespace != namespaces()["uts"]
    assert os.uname().nodename == machine


def test_the_container_program_returns_the_commands_exit_code(container: Callable[..., Any]) -> None:
    assert container("sh", "-c", "exit 41").status == 41
    assert container("sh", "-c", "kill -TERM $$").status == 143


def test_the_container_program_tells_what_it_cannot_run(container: Callable[..., Any]) -> None:
    ran = container("no-such-command")
    assert (ran.status, ran.stderr) == (127, "container.py: no-such-command: not found\n")
    ran = container("/etc/passwd")
    assert (ran.status, ran.stderr) == (126, "container.py: /etc/passwd: cannot be executed\n")

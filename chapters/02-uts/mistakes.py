"""What is written instead, in chapter 02, and the message that must lead to each mistake."""

from __future__ import annotations

import os

from minirt.kernel import syscalls
from minirt.namespaces.uts import CLONE_NEWUTS


def enter__wrong_flag() -> None:
    """you are still in the machine's UTS namespace"""
    syscalls.unshare(0x00020000)


def enter__one_bit_too_many() -> None:
    """enter() made more than a UTS namespace"""
    syscalls.unshare(CLONE_NEWUTS | 0x08000000)


def enter__in_a_child() -> None:
    """you are still in the machine's UTS namespace"""
    pid = os.fork()
    if not pid:
        syscalls.unshare(CLONE_NEWUTS)
        os._exit(0)
    os.waitpid(pid, 0)


def enter__swallows_the_refusal() -> None:
    """enter() must raise OSError"""
    try:
        syscalls.unshare(CLONE_NEWUTS)
    except OSError:
        pass


def configure__counts_letters(hostname: str, domainname: str = "") -> None:
    """the name has two bytes fewer"""
    syscalls.call("sethostname", os.fsencode(hostname), len(hostname))
    if domainname:
        syscalls.call("setdomainname", os.fsencode(domainname), len(domainname))


def configure__counts_the_closing_nul(hostname: str, domainname: str = "") -> None:
    """a name of 64 bytes must fit"""
    name = os.fsencode(hostname) + b"\0"
    syscalls.call("sethostname", name, len(name))
    if domainname:
        domain = os.fsencode(domainname) + b"\0"
        syscalls.call("setdomainname", domain, len(domain))


def configure__calls_the_command(hostname: str, domainname: str = "") -> None:
    """without any program's help"""
    os.system(f"hostname '{hostname}'")
    if domainname:
        os.system(f"domainname '{domainname}'")


def configure__only_the_host_name(hostname: str, domainname: str = "") -> None:
    """the domain name is still"""
    name = os.fsencode(hostname)
    syscalls.call("sethostname", name, len(name))


def configure__empties_the_domain(hostname: str, domainname: str = "") -> None:
    """leave the domain name alone"""
    for call, text in (("sethostname", hostname), ("setdomainname", domainname)):
        syscalls.call(call, os.fsencode(text), len(os.fsencode(text)))

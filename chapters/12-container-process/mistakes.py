"""What is written instead, in chapter 12, and the message that must lead to each mistake."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Sequence

from minirt.errors import CannotInvokeError, CommandNotFoundError
from minirt.kernel import syscalls
from minirt.process import users
from minirt.process.join import EVERY_NAMESPACE
from minirt.process.program import LAST, image


def sealed__no_seals(which: str = LAST) -> int:
    """whoever holds it can still write"""
    descriptor = os.memfd_create("minirt", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, image(which))
    return descriptor


def sealed__seals_not_allowed(which: str = LAST) -> int:
    """Operation not permitted"""
    descriptor = os.memfd_create("minirt", os.MFD_CLOEXEC)
    os.write(descriptor, image(which))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return descriptor


def sealed__only_writing(which: str = LAST) -> int:
    """more seals are wanted"""
    descriptor = os.memfd_create("minirt", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, image(which))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    return descriptor


def sealed__stays_open(which: str = LAST) -> int:
    """stays open across exec"""
    descriptor = os.memfd_create("minirt", os.MFD_ALLOW_SEALING)
    os.write(descriptor, image(which))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return descriptor


def sealed__always_the_same(which: str = LAST) -> int:
    """is not the program JOIN"""
    descriptor = os.memfd_create("minirt", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, image())
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return descriptor


def sealed__a_copy_of_the_descriptor(which: str = LAST) -> int:
    """is left open beside the one returned"""
    descriptor = os.memfd_create("minirt", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, image(which))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    return os.dup(descriptor)


def lock_out_imports__path_only() -> None:
    """empty them in place"""
    sys.path[:] = []


def lock_out_imports__new_lists() -> None:
    """in place"""
    sys.path = []
    sys.meta_path = []
    sys.path_hooks = []
    sys.path_importer_cache.clear()


def lock_out_imports__three_of_four() -> None:
    """clear that as well"""
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []


def lock_out_imports__forgets_modules() -> None:
    """what is loaded already must stay"""
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []
    sys.path_importer_cache.clear()
    sys.modules.clear()


def become__user_first(user: users.User) -> None:
    """Operation not permitted"""
    os.setresuid(user.uid, user.uid, user.uid)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setgroups(user.groups)


def become__groups_forgotten(user: users.User) -> None:
    """the supplementary groups are"""
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def become__a_way_back(user: users.User) -> None:
    """real, effective and saved"""
    os.setgroups(user.groups)
    os.setegid(user.gid)
    os.seteuid(user.uid)


def become__group_of_the_user(user: users.User) -> None:
    """the group is"""
    os.setgroups(user.groups)
    os.setresgid(user.uid, user.uid, user.uid)
    os.setresuid(user.uid, user.uid, user.uid)


def become__refusal_swallowed(user: users.User) -> None:
    """let OSError out"""
    try:
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except PermissionError:
        pass


def become__nothing_to_do_for_root(user: users.User) -> None:
    """user 0 is like any other"""
    if user.uid == 0:
        return
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def become__no_groups_no_call(user: users.User) -> None:
    """an empty list is a list, too"""
    if user.groups:
        os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def find_program__not_executable(name: str, env: Sequence[str]) -> str:
    """cannot be executed"""
    path = next((word[5:] for word in env if word.startswith("PATH=")), "")
    candidates = [name] if "/" in name else [f"{directory or '.'}/{name}" for directory in path.split(":")]
    for each in candidates:
        if os.path.isfile(each):
            return each
    raise CommandNotFoundError(f'exec: "{name}": executable file not found in $PATH')


def find_program__a_directory(name: str, env: Sequence[str]) -> str:
    """is a directory"""
    path = next((word[5:] for word in env if word.startswith("PATH=")), "")
    candidates = [name] if "/" in name else [f"{directory or '.'}/{name}" for directory in path.split(":")]
    found = [each for each in candidates if os.path.exists(each)]
    for each in found:
        if os.access(each, os.X_OK):
            return each
    if found:
        raise CannotInvokeError(f'exec: "{name}": permission denied')
    raise CommandNotFoundError(f'exec: "{name}": executable file not found in $PATH')


def find_program__our_own_path(name: str, env: Sequence[str]) -> str:
    """the PATH of the container counts"""
    path = os.environ.get("PATH", "")
    candidates = [name] if "/" in name else [f"{directory or '.'}/{name}" for directory in path.split(":")]
    found = [each for each in candidates if os.path.exists(each)]
    for each in found:
        if not os.path.isdir(each) and os.access(each, os.X_OK):
            return each
    if found:
        raise CannotInvokeError(f'exec: "{name}": permission denied')
    raise CommandNotFoundError(f'exec: "{name}": executable file not found in $PATH')


def find_program__never_126(name: str, env: Sequence[str]) -> str:
    """found, and cannot be executed"""
    path = next((word[5:] for word in env if word.startswith("PATH=")), "")
    candidates = [name] if "/" in name else [f"{directory or '.'}/{name}" for directory in path.split(":")]
    for each in candidates:
        if os.path.isfile(each) and os.access(each, os.X_OK):
            return each
    raise CommandNotFoundError(f'exec: "{name}": executable file not found in $PATH')


def find_program__path_somewhere_in_the_name(name: str, env: Sequence[str]) -> str:
    """the entry begins with PATH="""
    path = next((word.partition("=")[2] for word in env if "PATH=" in word), "")
    candidates = [name] if "/" in name else [f"{directory or '.'}/{name}" for directory in path.split(":")]
    found = [each for each in candidates if os.path.exists(each)]
    for each in found:
        if not os.path.isdir(each) and os.access(each, os.X_OK):
            return each
    if found:
        raise CannotInvokeError(f'exec: "{name}": permission denied')
    raise CommandNotFoundError(f'exec: "{name}": executable file not found in $PATH')


def find_program__any_bit_will_do(name: str, env: Sequence[str]) -> str:
    """os.access() tells"""
    path = next((word[5:] for word in env if word.startswith("PATH=")), "")
    candidates = [name] if "/" in name else [f"{directory or '.'}/{name}" for directory in path.split(":")]
    found = [each for each in candidates if os.path.exists(each)]
    for each in found:
        if not os.path.isdir(each) and os.stat(each).st_mode & 0o111:
            return each
    if found:
        raise CannotInvokeError(f'exec: "{name}": permission denied')
    raise CommandNotFoundError(f'exec: "{name}": executable file not found in $PATH')


def find_program__closed_directory_is_empty(name: str, env: Sequence[str]) -> str:
    """there may be one, so it is 126"""
    path = next((word[5:] for word in env if word.startswith("PATH=")), "")
    candidates = [name] if "/" in name else [f"{directory or '.'}/{name}" for directory in path.split(":")]
    found = [each for each in candidates if os.path.exists(each)]
    for each in found:
        if not os.path.isdir(each) and os.access(each, os.X_OK, effective_ids=True):
            return each
    if found:
        raise CannotInvokeError(f'exec: "{name}": permission denied')
    raise CommandNotFoundError(f'exec: "{name}": executable file not found in $PATH')


def enter_namespaces__mounts_forgotten(target: int) -> None:
    """you are not in its mnt namespace"""
    syscalls.setns(target, EVERY_NAMESPACE & ~0x00020000)


def enter_namespaces__children_forgotten(target: int) -> None:
    """your children are not in its pid namespace"""
    syscalls.setns(target, EVERY_NAMESPACE & ~0x20000000)


def enter_namespaces__no_bits(target: int) -> None:
    """Invalid argument"""
    syscalls.setns(target)


def enter_namespaces__only_the_name(target: int) -> None:
    """you are not in its"""
    syscalls.setns(target, 0x04000000)


def enter_namespaces__control_groups_forgotten(target: int) -> None:
    """you are not in its cgroup namespace"""
    syscalls.setns(target, EVERY_NAMESPACE & ~0x02000000)


def enter_namespaces__refusal_swallowed(target: int) -> None:
    """outside of every container"""
    try:
        syscalls.setns(target, EVERY_NAMESPACE)
    except OSError:
        pass

"""Chapter 12: the last steps, the same for `run` and `exec`: from a process behind its walls to the command.

From here on the root directory belongs to a stranger. So nothing may be imported any more (Python would take a module
from the image's /usr/lib), no name service asked, no codec looked up, no traceback printed; every path is opened within
the root and held as a descriptor; and the exec goes through the sealed program.

The order matters: the user is looked up and the working directory entered while this process is still root; the
program is searched for as the user who will run it, since only his permissions count.

Manual pages: execve(2), setresuid(2), setgroups(2), getrlimit(2), access(2).
"""

from __future__ import annotations

import _signal
import os
import sys

from minirt import capabilities, state, trace
from minirt.errors import CannotInvokeError, CommandNotFoundError, MinirtError
from minirt.kernel import paths, process
from minirt.process import users
from minirt.seccomp import filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

CHAPTER = 12

EINVAL = 22  # <errno.h>


def lock_out_imports() -> None:
    """Make every later import fail: what is not loaded by now could come from the container's own files.

    An import asks the finders in `sys.meta_path`; one of them looks through the directories of `sys.path`, by way of
    `sys.path_hooks` and what `sys.path_importer_cache` remembers. Empty all four *in place*, since Python holds these
    very objects; modules that are loaded (`sys.modules`) stay. Source: python(1), the import system.
    """
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []
    sys.path_importer_cache.clear()


@trace.narrated(CHAPTER, "become user {user.uid}, group {user.gid}",
                "setgroups(); setresgid({user.gid}); setresuid({user.uid})")
def become(user: users.User) -> None:
    """Give up the identity of root for that of `user`: supplementary groups first, then group, then user, each for
    real, effective and saved id, since after the last one there is no permission left for the others.

    `user` has `uid`, `gid` and `groups`, numbers. Raises OSError (EPERM). Sources: setgroups(2), setresuid(2).
    """
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def become_what_there_is(user: users.User, error: OSError) -> None:
    """Do the same once more in a user namespace where it met `error`: without setgroups(2) where that was given up for
    the map (EPERM). Raises MinirtError for an id that the map does not have (EINVAL), else `error`."""
    if error.errno == EINVAL:
        raise MinirtError(f"user {user.uid}:{user.gid}, or one of its groups, does not exist in the container's user "
                          "namespace: be another one (--user), or add subordinate ids (subuid(5))") from None
    if not state.ordinary():
        raise error
    try:
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as again:
        if again.errno != EINVAL:
            raise
        become_what_there_is(user, again)


def shrink(granted: dict[str, list[str]], user: users.User) -> None:
    """Leave this process the capabilities that `granted` names, lists by the names of the specification.

    Where only "bounding" is given it is Docker's rule: root may use all of that, anybody else none of it. What this
    process does not have itself it cannot keep, and passes over. Raises OSError.
    """
    bounding = granted["bounding"] if user.uid == 0 else []
    permitted = capabilities.mask(granted.get("permitted", bounding)) & capabilities.permitted()
    effective = capabilities.mask(granted.get("effective", bounding)) & permitted
    capabilities.set_sets(effective, permitted, capabilities.mask(granted.get("inheritable", ())))
    if "ambient" in granted:
        capabilities.raise_ambient(capabilities.mask(granted["ambient"]))


def find_program(name: str, env: Sequence[str]) -> str:
    """The path to execute for the command word `name`: as it is when it contains a slash, else the first executable
    file that is no directory, in the directories of PATH in `env` (entries "NAME=value"; an empty one means ".").

    Asks with the effective ids of this process, which is the command's user already. Raises CommandNotFoundError (127)
    when nothing of that name is there, CannotInvokeError (126) when there is, but it is a directory or may not be
    executed. Sources: access(2), exec(3), "PATH".
    """
    if "/" in name:
        candidates = [name]
    else:
        path = next((word[5:] for word in env if word.startswith("PATH=")), "")
        candidates = [f"{directory or '.'}/{name}" for directory in path.split(":") if name]
    refused = ""
    for candidate in candidates:
        try:
            is_directory = os.stat(candidate).st_mode & 0o170000 == 0o040000
        except PermissionError:
            refused = refused or "permission denied"
            continue
        except OSError:
            continue
        if is_directory:
            refused = refused or "is a directory"
        elif os.access(candidate, os.X_OK, effective_ids=True):
            return candidate
        else:
            refused = "permission denied"
    if refused:
        raise CannotInvokeError(f'exec: "{name}": {refused}')
    if "/" in name:
        raise CommandNotFoundError(f'exec: "{name}": stat {name}: no such file or directory')
    raise CommandNotFoundError(f'exec: "{name}": executable file not found in $PATH')


def set_limits(limits: Sequence[dict[str, Any]]) -> None:
    """Set resource limits from entries {"type": "RLIMIT_NOFILE", "soft", "hard"}; no limit is -1, or RLIM_INFINITY as
    the kernel's headers have it, 2**64 - 1. setrlimit(2).
    """
    if limits:
        import resource  # loaded by `launch` already: nothing can be imported from here on
    for limit in limits:
        soft, hard = [-1 if limit[name] == 2**64 - 1 else limit[name] for name in ("soft", "hard")]
        try:
            resource.setrlimit(getattr(resource, limit["type"]), (soft, hard))
        except (ValueError, OSError) as error:
            raise MinirtError(f"cannot set {limit['type']} to {soft}:{hard}: {error}") from None


def reset_signals() -> None:
    """Let every signal do what it does by default, and block none: what is ignored or blocked stays so across an exec.

    Python ignores SIGPIPE and SIGXFSZ for itself, `nohup` and a shell's `&` some others. Source: execve(2), signal(7).
    """
    for number in range(1, 32):
        if _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def working_directory(root: int, path: str, make: bool = True) -> int:
    """The directory `path` below `root`, made when it is missing and `make` says so; a descriptor of it. Raises
    MinirtError where it cannot be had: Docker's exit code 126 where it had to be there.
    """
    try:
        return (paths.make_directories(root, path) if make else
                paths.open_in_root(root, path, os.O_PATH | os.O_DIRECTORY))
    except OSError as error:
        sentence = f"cannot begin in the working directory {path}: {(error.strerror or '').lower()}"
        raise (MinirtError if make else CannotInvokeError)(sentence) from None


def execute(spec: dict[str, Any], program: int, seccomp: bytes = b"") -> NoReturn:
    """Become the command of `spec["process"]` by way of the sealed `program`, behind the assembled filter `seccomp`
    (empty: none). The root is the container's already.

    Raises MinirtError with the exit code that Docker gives. Never returns otherwise: an exec that fails is reported on
    descriptor `program.REPORT` by the program itself.
    """
    wanted = spec["process"]
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    who = wanted.get("user", {})
    user = users.look_up(root, who.get("name", ""), who.get("groups", ()))
    env = list(wanted["env"])
    if not any(word.startswith("HOME=") for word in env):
        env.append(f"HOME={user.home}")
    directory = working_directory(root, wanted.get("cwd") or "/")
    set_limits(wanted.get("rlimits", ()))
    process.give_streams(user.uid, bool(wanted.get("terminal")))
    os.umask(0o022)
    granted = wanted.get("capabilities")
    if granted is not None:
        capabilities.limit(capabilities.mask(granted["bounding"]))  # needs CAP_SETPCAP, so before the sets shrink
    # Loading a filter takes CAP_SYS_ADMIN, so it comes before the capabilities go; with no_new_privs it takes nothing,
    # and then it comes last, so that a filter may forbid what is done in between.
    if seccomp and not wanted.get("noNewPrivileges"):
        filter.install(seccomp)
    if granted is not None and user.uid:
        capabilities.keep_across_setuid("permitted" in granted)  # else the change of user empties that set
    try:
        become(user)
    except OSError as error:
        become_what_there_is(user, error)
    if granted is not None:
        shrink(granted, user)
    if wanted.get("noNewPrivileges"):
        capabilities.set_no_new_privileges()
    try:
        os.fchdir(directory)
    except OSError as error:
        raise CannotInvokeError(f"chdir to {wanted['cwd']}: {error.strerror}") from None
    path = find_program(wanted["args"][0], env)
    reset_signals()
    trace.step(CHAPTER, f"become {path}", f"execveat(memfd); execve({path!r})")
    os.close(root)
    os.close(directory)
    if seccomp and wanted.get("noNewPrivileges"):
        filter.install(seccomp)
    process.execute(program, [path, *wanted["args"]], env)
    raise AssertionError("unreachable")


def exec_failure(number: int, name: str) -> MinirtError:
    """The error for a failed execve of the command `name` with that error number, with Docker's exit code."""
    sentence = f"exec {name}: {os.strerror(number).lower()}"
    return CommandNotFoundError(sentence) if number in (2, 20) else CannotInvokeError(sentence)

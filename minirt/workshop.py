"""The roof: a participant's functions in the real minirt.

`python -m chapters use` leaves a file `workspace` in the run directory of the state root: which modules come from which
files of a workspace, and whose they are. While it is there, an import finder stands before all others and hands out
those modules; every other module is the book's own. Without it, all this costs one failed stat.

What minirt runs, it runs as root. So a file is taken only when nobody else could have written it: it and every
directory on the way belong to root or to the user who typed `use`, and nobody but them may write there. A sticky
directory (/tmp) counts as safe, since others cannot rename or remove what is in it, and so does a group that has
nobody else in it (Debian gives each user one, with umask 0002).

A machine's restart ends it, because the run directory is on tmpfs; the workshop's cages do not see it, because they
have a /run of their own.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib import ModuleSpec  # what importlib.machinery hands on; it is in every interpreter already

from minirt import state
from minirt.errors import MinirtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

POINTER = "workspace"


class WorkspaceError(MinirtError):
    """A file of the workspace in use cannot be run; the sentence names file and line."""

    exit_code = 125


_active: Finder | None = None


def activate() -> bool:
    """Make the workspace in use, if one is, answer for its modules. Returns whether one is.

    Call it before any module of a chapter is imported. Says so in one line on standard error; a workspace that is not
    to be trusted is left out, with the reason.
    """
    global _active
    directory = state.run_path()
    if directory is None:
        return False
    try:
        place = os.lstat(f"{directory}/{POINTER}")
    except OSError:
        return False
    try:
        if place.st_uid not in (0, os.geteuid()) or place.st_mode & 0o022:
            raise ValueError("somebody else can write its pointer")
        found = state.read_json(f"{directory}/{POINTER}")
        modules, user, where = dict(found["modules"]), int(found["user"]), str(found["directory"])
        for path in modules.values():
            if reason := distrust(path, user):
                raise ValueError(f"{path}: {reason}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        _say(f"minirt: the workspace in use is not used: {error} (python -m chapters leave)")
        return False
    for name in modules:
        sys.modules.pop(name, None)  # the ground floor has no exercises; this is for a caller who came too late
    _active = Finder(modules, user)
    sys.meta_path.insert(0, _active)
    _say(f"minirt: running your functions from {where} (until python -m chapters leave)")
    return True


def explain(error: BaseException) -> str:
    """What a user should hear of an exception that came out of a function of the workspace in use, with file and line.

    '' when none is in use or the exception came from elsewhere. A function that is not filled in says so itself.
    """
    if _active is None:
        return ""
    files = set(_active.modules.values())
    place, name, step = "", "", error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if code.co_filename in files:
            place, name = f"{code.co_filename}:{step.tb_lineno}", code.co_name
        step = step.tb_next
    if not place:
        return ""
    if isinstance(error, NotImplementedError):
        return f"{place}: {name}() is not filled in yet"
    return f"{place}: {name}() raised {type(error).__name__}: {error}"


class Finder:
    """An import finder and loader: full module names that come from files of a workspace."""

    def __init__(self, modules: dict[str, str], user: int) -> None:
        self.modules = modules
        self.user = user

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The import system's question; None sends it to the next finder."""
        file = self.modules.get(name)
        if file is None:
            return None
        spec = ModuleSpec(name, self, origin=file)  # type: ignore[arg-type]
        spec.has_location = True
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave the making of the module to the import system."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's text. Compiled code is not kept: root leaves nothing in a user's directory.

        Raises WorkspaceError when the file is no longer to be trusted, cannot be read, or is not Python."""
        file = self.modules[module.__name__]
        if reason := distrust(file, self.user):
            raise WorkspaceError(f"{file}: {reason}")
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with open(descriptor, "rb") as stream:
                code = compile(stream.read(), file, "exec")
        except OSError as error:
            raise WorkspaceError(f"{file}: {error.strerror}") from error
        except SyntaxError as error:
            raise WorkspaceError(f"{file}:{error.lineno}: Python cannot read this line: {error.msg}") from error
        exec(code, module.__dict__)


def distrust(path: str, user: int) -> str:
    """Why root should not run a file for the user with that id; '' when nobody else could have written it.

    `path` is absolute. Source: the rules at the head of this module; inode(7) on the sticky bit.
    """
    if not path.startswith("/"):
        return "it is not an absolute path"
    here, rest = "/", [part for part in path.split("/") if part]
    while True:
        try:
            place = os.lstat(here)
        except OSError as error:
            return f"{here}: {error.strerror}"
        kind = place.st_mode & 0o170000
        if kind != (0o040000 if rest else 0o100000):
            return f"{here} is not a {'directory' if rest else 'plain file'}"
        if place.st_uid not in (0, user):
            return f"{here} belongs to somebody else (user {place.st_uid})"
        sticky = rest and place.st_mode & 0o1000
        if place.st_mode & 0o002 and not sticky:
            return f"anybody may write to {here} (chmod o-w {here})"
        if place.st_mode & 0o020 and not sticky and not _private(place.st_gid, user):
            return f"a group may write to {here} (chmod g-w {here})"
        if not rest:
            return ""
        here = os.path.join(here, rest.pop(0))


def _private(group: int, user: int) -> bool:
    """Whether a group has nobody in it but that user and root: passwd(5), group(5)."""
    names = {"root"}
    members = set()
    for line in _lines("/etc/passwd"):
        fields = line.split(":")
        if len(fields) > 3 and fields[2] == str(user):
            names.add(fields[0])
        if len(fields) > 3 and fields[3] == str(group):
            members.add(fields[0])
    known = False
    for line in _lines("/etc/group"):
        fields = line.split(":")
        if len(fields) > 3 and fields[2] == str(group):
            known = True
            members.update(name for name in fields[3].split(",") if name)
    return known and members <= names


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().split("\n")


def _say(text: str) -> None:
    os.write(2, text.encode("utf-8", "surrogateescape") + b"\n")

"""The finder: lets `import minirt.namespaces.uts` take another file than the one in the source tree.

The judge uses it to try a participant's answer, and after `python -m chapters use` the real `minirt` uses it to run
with the participant's functions. It maps full module names to files; every other module comes from where it always
comes from.

Python asks the objects in ``sys.meta_path`` in turn where a module is. Ours comes first, knows a few names, and
answers with a loader that reads the file it was told: never from ``__pycache__``, and it writes none there.

``minirt`` calls it on its hot path, so it imports next to nothing. `read_pointer` is for that use: it accepts a
workspace only if nobody but root and the user who asked for it could have written what would run as root.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import CodeType, ModuleType


class UntrustedError(Exception):
    """A workspace cannot be trusted; str() says which file or directory, and why."""


class _Loader(SourceFileLoader):
    """Reads one source file, and neither reads nor writes compiled code."""

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class Finder:
    """An entry of sys.meta_path that knows some modules by name and the files to take them from."""

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self.mapping = {name: os.path.abspath(path) for name, path in mapping.items()}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of ours is, or None for all others (importlib's protocol)."""
        file = self.mapping.get(fullname)
        if file is None:
            return None
        spec = ModuleSpec(fullname, _Loader(fullname, file), origin=file)
        spec.has_location = True
        spec.cached = None
        return spec


def install(mapping: Mapping[str, str]) -> Finder:
    """Let the modules of ``mapping`` (full name -> file) come from its files from now on; return the finder.

    Raises ImportError when one of them is already loaded: it would silently stay what it is.
    """
    loaded = sorted(name for name in mapping if name in sys.modules)
    if loaded:
        raise ImportError(f"{', '.join(loaded)} is already imported, so the workspace's file would be ignored")
    finder = Finder(mapping)
    sys.meta_path.insert(0, finder)
    return finder


def check(mapping: Mapping[str, str]) -> None:
    """Raise ImportError unless each module of ``mapping`` that is loaded came from its file."""
    for name, file in mapping.items():
        module = sys.modules.get(name)
        if module is not None and module.__file__ != os.path.abspath(file):
            raise ImportError(f"{name} came from {module.__file__} and not from {file}")


# ------------------------------------------------------------------------------------------------- after `use`: trust


def distrust(path: str, user: int) -> str:
    """Say why a file cannot be trusted by ``user`` (a uid) and root, or return "".

    Every directory on the way, and the file, must belong to one of the two, and nobody else may write it. Where only
    the owner may replace an entry (a sticky directory such as /tmp), and where the group is the owner's own (of the
    same name, without other members, as Debian and Fedora make them), a permission to write gives nobody anything.
    """
    path = os.path.abspath(path)
    if os.path.realpath(path) != path:
        return f"{path} leads through a symbolic link"
    steps = [path]
    while steps[-1] != "/":
        steps.append(os.path.dirname(steps[-1]))
    for step in reversed(steps):
        about = os.lstat(step)
        if about.st_uid not in (0, user):
            return f"{step} belongs to user {about.st_uid}"
        sticky = about.st_mode & 0o1000 and step != path
        if about.st_mode & 0o002 and not sticky:
            return f"everybody may write {step}"
        if about.st_mode & 0o020 and not sticky and not _private(about.st_gid, about.st_uid):
            return f"the group {about.st_gid} may write {step}"
    return ""


def _private(group: int, user: int) -> bool:
    """Return whether a group is the user's own, with nobody else in it."""
    import grp
    import pwd

    try:
        entry, owner = grp.getgrgid(group), pwd.getpwuid(user)
    except KeyError:
        return False
    return entry.gr_name == owner.pw_name and set(entry.gr_mem) <= {owner.pw_name}


def read_pointer(path: str) -> dict[str, str]:
    """Return the mapping that a pointer file holds: JSON {"user": uid, "modules": {name: file}}.

    Raises FileNotFoundError when there is none, UntrustedError when it or a file that it names cannot be trusted.
    """
    import json

    with open(path) as file:
        about = os.fstat(file.fileno())
        if about.st_uid or about.st_mode & 0o022:
            raise UntrustedError(f"{path} can be written by others than root")
        content = json.load(file)
    for target in content["modules"].values():
        why = distrust(target, content["user"])
        if why:
            raise UntrustedError(why)
    return dict(content["modules"])

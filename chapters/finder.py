"""The finder: lets `import minirt.namespaces.uts` take another file than the one in the source tree.

The judge uses it to try a participant's answer, and `python -m chapters run` to run a chapter's container program with
it. It maps full module names to files; every other module comes from where it always comes from. (After `python -m
chapters use` the real `minirt` has a finder of its own, minirt/workshop.py, which asks first who could have written the
files: it runs them as root.)

Python asks the objects in ``sys.meta_path`` in turn where a module is. Ours comes first, knows a few names, and
answers with a loader that reads the file it was told: never from ``__pycache__``, and it writes none there.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import CodeType, ModuleType


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

"""The table of contents, read: which chapters exist, what belongs to each, which exercises they set.

`chapters.toml` is the only place that says which chapters there are, and `NN-slug/exercises.toml` the only place that
says which functions of a chapter are exercises. Everybody else (the workshop tool, the test gates, the derived trees,
the site) asks here.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# A test skipped for this reason needs what only another machine has: it does not count, for nor against.
BEYOND_THIS_MACHINE = re.compile(r"^needs cgroup (v2 )?controllers$")


class ContentsError(Exception):
    """The table of contents, or what it names, is wrong; the text says what to mend."""


@dataclasses.dataclass(frozen=True)
class Exercise:
    """One function that a participant fills in."""

    name: str  # in full: 'minirt.namespaces.uts.enter', 'minirt.kernel.process.Child.wait'
    module: str  # 'minirt.namespaces.uts'
    function: str  # within the module: 'enter', 'Child.wait'
    hints: tuple[str, ...]  # each says more than the one before
    command: tuple[str, ...]  # what runs the function: a command of minirt (none: `run`), or container.py


@dataclasses.dataclass(frozen=True)
class Chapter:
    """One row of the table of contents."""

    number: int
    slug: str  # '02-uts'
    title: str
    status: str  # 'open' or 'planned'
    builds_on: tuple[int, ...]
    core: tuple[str, ...]  # full module names that the page walks through
    beyond: tuple[str, ...]  # full module names for completeness
    needs: tuple[str, ...]  # of the machine: 'root', 'overlay', ...
    minutes: int
    root: Path = ROOT  # of the repository

    @property
    def open(self) -> bool:
        """Whether the chapter can be read and worked on."""
        return self.status == "open"

    @property
    def modules(self) -> tuple[str, ...]:
        """Every module of the chapter, core first."""
        return self.core + self.beyond

    @property
    def directory(self) -> Path:
        """chapters/NN-slug."""
        return self.root / "chapters" / self.slug

    @property
    def page(self) -> Path:
        """The chapter's prose."""
        return self.directory / "README.md"

    @property
    def container(self) -> Path:
        """The container program as far as the book has come (the first chapter has none)."""
        return self.directory / "container.py"

    @property
    def mistakes(self) -> Path:
        """Recorded mistakes of beginners: functions named EXERCISE__MISTAKE."""
        return self.directory / "mistakes.py"

    @property
    def notebook(self) -> Path:
        """notebooks/NN-slug.ipynb."""
        return self.root / "notebooks" / f"{self.slug}.ipynb"

    @property
    def tests(self) -> Path:
        """tests/chapter_NN_slug."""
        return self.root / "tests" / ("chapter_" + self.slug.replace("-", "_"))

    @property
    def exercises(self) -> tuple[Exercise, ...]:
        """The chapter's exercises in their order (none where there is no exercises.toml)."""
        return _exercises(self)

    def exercise(self, name: str) -> Exercise:
        """The exercise of that name, which may be shortened from the left: 'enter', 'uts.enter'.

        Raises ContentsError when none or several match."""
        found = [each for each in self.exercises if each.name == name or each.name.endswith("." + name)]
        if len(found) != 1:
            names = ", ".join(each.function for each in self.exercises) or "none"
            raise ContentsError(f"chapter {self.number} has no exercise {name!r}; its exercises: {names}.")
        return found[0]


@dataclasses.dataclass(frozen=True)
class Contents:
    """The whole table."""

    chapters: tuple[Chapter, ...]
    ground: tuple[str, ...]
    roof: tuple[str, ...]
    routes: dict[str, tuple[int, ...]]

    def chapter(self, number: int) -> Chapter:
        """The chapter of that number. Raises ContentsError when there is none."""
        for each in self.chapters:
            if each.number == number:
                return each
        raise ContentsError(f"there is no chapter {number}; the book has 0 to {self.chapters[-1].number}.")

    def owner(self, module: str) -> Chapter | None:
        """The chapter that a module belongs to; None for the ground floor, the roof and strangers."""
        for each in self.chapters:
            if module in each.modules:
                return each
        return None


def read(root: Path = ROOT) -> Contents:
    """Read chapters/chapters.toml below root (a repository or a derived tree).

    Raises ContentsError when it is missing or says something impossible."""
    return _read(Path(root))


def chapters() -> list[Chapter]:
    """Every chapter of this repository, in order."""
    return list(read().chapters)


def chapter(number: int) -> Chapter:
    """The chapter of that number. Raises ContentsError when there is none."""
    return read().chapter(number)


def routes() -> dict[str, tuple[int, ...]]:
    """The ways through the book: name -> chapter numbers."""
    return read().routes


def ground() -> tuple[str, ...]:
    """The modules that every chapter may import."""
    return read().ground


def roof() -> tuple[str, ...]:
    """The modules that reach everything, and that nothing imports."""
    return read().roof


def module_file(module: str, root: Path = ROOT) -> Path:
    """Where a module's source lies: 'minirt.namespaces.uts' -> ROOT/minirt/namespaces/uts.py."""
    return root.joinpath(*module.split(".")).with_suffix(".py")


@functools.cache
def _read(root: Path) -> Contents:
    path = root / "chapters" / "chapters.toml"
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise ContentsError(f"cannot read the table of contents {path}: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ContentsError(f"{path} is not valid TOML: {error}.") from error
    try:
        rows = tuple(_row(row, root) for row in table["chapter"])
        return Contents(
            chapters=rows,
            ground=tuple(table["ground"]["modules"]),
            roof=tuple(table["roof"]["modules"]),
            routes={name: tuple(numbers) for name, numbers in table["routes"].items()},
        )
    except KeyError as error:
        raise ContentsError(f"{path}: the field {error} is missing.") from error


def _row(row: dict[str, Any], root: Path) -> Chapter:
    return Chapter(
        number=row["number"],
        slug=row["slug"],
        title=row["title"],
        status=row["status"],
        builds_on=tuple(row["builds_on"]),
        core=tuple(row["core"]),
        beyond=tuple(row["beyond"]),
        needs=tuple(row["needs"]),
        minutes=row["minutes"],
        root=root,
    )


@functools.cache
def _exercises(of: Chapter) -> tuple[Exercise, ...]:
    path = of.directory / "exercises.toml"
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return ()
    except tomllib.TOMLDecodeError as error:
        raise ContentsError(f"{path} is not valid TOML: {error}.") from error
    return tuple(_exercise(row, of, path) for row in table.get("exercise", ()))


def _exercise(row: dict[str, Any], of: Chapter, path: Path) -> Exercise:
    unknown = set(row) - {"name", "hints", "command"}
    if unknown or "name" not in row:
        wrong = f"not {', '.join(sorted(unknown))}" if unknown else "and here the name is missing"
        raise ContentsError(f"{path}: an exercise has name, hints and command, {wrong}.")
    name = row["name"]
    for module in of.core:
        if name.startswith(module + "."):
            function = name[len(module) + 1 :]
            return Exercise(name, module, function, tuple(row.get("hints", ())), tuple(row.get("command", ())))
    core = ", ".join(of.core) or "none"
    raise ContentsError(f"{path}: {name} lies in no core module of chapter {of.number} ({core}).")

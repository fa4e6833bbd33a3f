"""The participant's workspace: copies of a chapter's core modules with the exercises emptied, and the progress.

It lies in `workspace/` at the top of the repository (git ignores it) and mirrors module names:
workspace/minirt/namespaces/uts.py. `.progress.json` in it remembers, per chapter, from which version of the source the
copies were made (a hash of the content: it works without git too), which exercises the last check found solved, how
many hints were read, and the content that passed the last check, so that a later change is not taken for solved.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from chapters import contents, skeleton
from chapters.contents import Chapter, Exercise

PROGRESS = ".progress.json"


class WorkshopError(Exception):
    """What was asked cannot be done; the text says why and what to do."""


def fingerprint(path: Path) -> str:
    """A hash of a file's content, '' when there is no such file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


@dataclasses.dataclass
class Record:
    """What is remembered of one chapter."""

    source: dict[str, str] = dataclasses.field(default_factory=dict)  # module -> hash of the reference it was cut from
    solved: dict[str, str] = dataclasses.field(default_factory=dict)  # exercise -> hash of its module when it passed
    passed: dict[str, str] = dataclasses.field(default_factory=dict)  # module -> hash when the whole check passed
    hints: dict[str, int] = dataclasses.field(default_factory=dict)  # exercise -> how many were read


class Workspace:
    """One participant's workspace."""

    def __init__(self, directory: Path | None = None, root: Path = contents.ROOT) -> None:
        self.root = root
        self.directory = directory or root / "workspace"
        self._data = self._load()

    # -- where things are ----------------------------------------------------------------------------------------

    def file(self, module: str) -> Path:
        """Where the workspace's copy of a module lies (or would lie)."""
        return contents.module_file(module, self.directory)

    def shown(self, path: Path) -> str:
        """A path as the participant reads it: from the top of the repository where it lies below it."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def started(self, chapter: Chapter) -> bool:
        """Whether the chapter's modules are in the workspace."""
        return any(self.file(module).exists() for module in chapter.core)

    def all_started(self) -> list[Chapter]:
        """The chapters that have modules in the workspace, in order."""
        return [each for each in contents.read(self.root).chapters if self.started(each)]

    def modules(self, chapter: Chapter) -> dict[str, Path]:
        """The chapter's modules that are in the workspace: full name -> absolute path."""
        return {
            module: self.file(module).resolve() for module in chapter.core if self.file(module).exists()
        }  # fmt: skip

    def current(self) -> Chapter:
        """The chapter that was started or checked last. Raises WorkshopError when none was."""
        number = self._data.get("current")
        if number is None:
            raise WorkshopError("no chapter is started yet: python -m chapters start 2")
        return contents.read(self.root).chapter(number)

    # -- start and reset -----------------------------------------------------------------------------------------

    def start(self, chapter: Chapter) -> list[Path]:
        """Copy the chapter's core modules with the exercises emptied; files that are there already stay.

        Returns the files written. Raises WorkshopError for a chapter that has nothing to fill in."""
        if not chapter.open:
            raise WorkshopError(f"chapter {chapter.number} ({chapter.title}) is planned; its page does not exist yet.")
        if not chapter.exercises:
            raise WorkshopError(
                f"chapter {chapter.number} ({chapter.title}) has no exercises: read {self.shown(chapter.page)}, "
                f"and try it in `python -m chapters shell`."
            )
        written = [self._copy(chapter, module) for module in chapter.core if not self.file(module).exists()]
        self.make_current(chapter)
        return written

    def reset(self, chapter: Chapter, exercise: Exercise | None = None) -> list[Path]:
        """Empty all exercises of a chapter again, or one. The old text is kept beside it as FILE.old.

        Returns the files written. Raises WorkshopError when the chapter is not started."""
        self.require(chapter)
        modules = [exercise.module] if exercise else list(chapter.core)
        written = []
        for module in modules:
            path = self.file(module)
            old = path.read_text() if path.exists() else ""
            if old:
                self._write(path.with_name(path.name + ".old"), old)
            if exercise and old:
                given = self._skeleton(chapter, module)
                with_statement = skeleton.replace(old, exercise.function, skeleton.solution(given, exercise.function))
                self._write(path, skeleton.skeleton(with_statement, [exercise.function], self.shown(path)))
            else:
                self._copy(chapter, module)
            written.append(path)
        record = self.record(chapter)
        for each in chapter.exercises:
            if each.module in modules and (exercise is None or each == exercise):
                record.solved.pop(each.name, None)
                record.hints.pop(each.name, None)
        record.passed = {}
        self.remember(chapter, record)
        return written

    def fill_in(self, chapter: Chapter, exercise: Exercise) -> Path:
        """Put the reference's function into the workspace. Returns the file."""
        self.require(chapter)
        path = self.file(exercise.module)
        answer = skeleton.solution(self.reference(exercise.module), exercise.function)
        self._write(path, skeleton.replace(path.read_text(), exercise.function, answer))
        return path

    def _skeleton(self, chapter: Chapter, module: str) -> str:
        functions = [each.function for each in chapter.exercises if each.module == module]
        return skeleton.skeleton(self.reference(module), functions, self.shown(self.file(module)))

    def _copy(self, chapter: Chapter, module: str) -> Path:
        path = self.file(module)
        self._write(path, self._skeleton(chapter, module))
        record = self.record(chapter)
        record.source[module] = fingerprint(contents.module_file(module, self.root))
        self.remember(chapter, record)
        return path

    # -- what the participant has --------------------------------------------------------------------------------

    def require(self, chapter: Chapter) -> None:
        """Raises WorkshopError unless the chapter is started."""
        if not self.started(chapter):
            raise WorkshopError(
                f"chapter {chapter.number} is not started yet: python -m chapters start {chapter.number}"
            )  # fmt: skip

    def reference(self, module: str) -> str:
        """The book's own text of a module."""
        return contents.module_file(module, self.root).read_text()

    def outdated(self, chapter: Chapter) -> list[str]:
        """The chapter's modules whose source has changed since they were copied."""
        return [
            module
            for module, old in self.record(chapter).source.items()
            if fingerprint(contents.module_file(module, self.root)) != old
        ]

    def hashes(self, chapter: Chapter) -> dict[str, str]:
        """The content of the chapter's modules as it is now: module -> hash."""
        return {module: fingerprint(path) for module, path in self.modules(chapter).items()}

    def finished(self, chapter: Chapter) -> bool:
        """Whether the chapter's last check passed with the content that is there now."""
        passed = self.record(chapter).passed
        return bool(passed) and passed == self.hashes(chapter)

    def solved(self, chapter: Chapter, exercise: Exercise) -> bool:
        """Whether the exercise passed in a check and its function has not changed since."""
        return self.record(chapter).solved.get(exercise.name, "-") == self.text_hash(exercise)

    def next_exercise(self, chapter: Chapter) -> Exercise | None:
        """The first exercise that is not solved."""
        return next((each for each in chapter.exercises if not self.solved(chapter, each)), None)

    def text_hash(self, exercise: Exercise) -> str:
        """A hash of the function as it stands in the workspace, '' when it cannot be found there."""
        path = self.file(exercise.module)
        try:
            text = skeleton.solution(path.read_text(), exercise.function)
        except (OSError, skeleton.NoSuchPieceError):
            return ""
        return hashlib.sha256(text.encode()).hexdigest()

    def trusted(self, up_to: Chapter) -> dict[str, Path]:
        """The modules of earlier chapters that count as the participant's: those whose check passed as they are now."""
        found: dict[str, Path] = {}
        for each in contents.read(self.root).chapters:
            if each.number < up_to.number and self.finished(each):
                found |= self.modules(each)
        return found

    # -- progress ------------------------------------------------------------------------------------------------

    def record(self, chapter: Chapter) -> Record:
        """What is remembered of a chapter."""
        return Record(**self._data.get("chapters", {}).get(str(chapter.number), {}))

    def remember(self, chapter: Chapter, record: Record) -> None:
        """Write down what is to be remembered of a chapter."""
        self._data.setdefault("chapters", {})[str(chapter.number)] = dataclasses.asdict(record)
        self._save()

    def make_current(self, chapter: Chapter) -> None:
        """The commands that name no chapter mean this one from now on."""
        if self._data.get("current") != chapter.number:
            self._data["current"] = chapter.number
            self._save()

    def _load(self) -> dict[str, Any]:
        try:
            data = json.loads((self.directory / PROGRESS).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except ValueError as error:
            what = f"{self.directory / PROGRESS} is damaged ({error})"
            raise WorkshopError(f"{what}; your answers are not: delete that file, and check again.") from error
        return dict(data)

    def _save(self) -> None:
        self._write(self.directory / PROGRESS, json.dumps(self._data, indent=1) + "\n")

    def _write(self, path: Path, text: str) -> None:
        """Write a file whole or not at all, and leave it to the participant."""
        for parent in reversed(path.parents):
            if not parent.exists():
                parent.mkdir()
                give(parent)
        temporary = path.with_name(path.name + ".new")
        temporary.write_text(text)
        give(temporary)
        os.replace(temporary, path)


def give(path: Path) -> None:
    """Leave what root has just made to the user who called sudo."""
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdigit():
        os.chown(path, int(os.environ["SUDO_UID"]), int(os.environ.get("SUDO_GID", "-1")), follow_symlinks=False)

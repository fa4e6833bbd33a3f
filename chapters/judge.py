"""Ask the judge: hand an order to `python -m chapters.gate` and read what it reports.

The workshop tool stays an ordinary user's program. The judge makes a cage and needs root for it, so it is a second
program, called through `sudo -n`; the order goes in as JSON, reports come out as JSON lines.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from chapters import contents, skeleton
from chapters.contents import Chapter, Exercise
from chapters.workspace import WorkshopError, Workspace

LIMITS = {"test": 2.0, "whole": 30}  # seconds


def as_root(*arguments: str) -> list[str]:
    """The command line that runs a module of the project as root: through sudo for an ordinary user."""
    command = [sys.executable, "-B", "-m", *arguments]
    return command if os.geteuid() == 0 else ["sudo", "-n", "--", *command]


def may_be_root() -> bool:
    """Whether `as_root` works without a question."""
    if os.geteuid() == 0:
        return True
    try:
        return subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def require_root(what: str) -> None:
    """Raises WorkshopError, which says what to do, where `as_root` would not work."""
    if not may_be_root():
        raise WorkshopError(
            f"{what} needs root, because it makes namespaces, and sudo would ask for a password.\n"
            "Type `sudo -v` first (it remembers for some minutes), and then the same command again."
        )


@dataclasses.dataclass
class Verdict:
    """What came out of a check."""

    passed: bool = False
    solved: list[str] = dataclasses.field(default_factory=list)  # exercises, in full
    tests: dict[str, int] = dataclasses.field(default_factory=dict)  # exercise -> tests that passed
    exercise: str = ""  # the one that failed, '' for a test of the whole chapter
    message: str = ""
    file: str = ""
    line: int = 0
    manual: list[str] = dataclasses.field(default_factory=list)
    details: str = ""  # what pytest would print
    untried: dict[str, str] = dataclasses.field(default_factory=dict)  # test -> what this machine lacks for it
    seconds: float = 0.0


def require_libraries(chapter: Chapter) -> None:
    """Raises WorkshopError, which says how to install it, where a library is missing that the chapter uses."""
    if "requests" in chapter.needs and importlib.util.find_spec("requests") is None:
        raise WorkshopError(
            f"chapter {chapter.number} speaks HTTP by the library requests, which {sys.executable} does not have.\n"
            "Install it:  make workshop      (without internet: from wheels of `pip download requests`)"
        )


def order(chapter: Chapter, workspace: Workspace) -> dict[str, Any]:
    """The order for a check: this chapter's modules as they are, earlier ones where their check passed."""
    modules = workspace.trusted(chapter) | workspace.modules(chapter)
    return {
        "chapter": chapter.number,
        "exercises": [each.name for each in chapter.exercises],
        "modules": {name: str(path) for name, path in modules.items()},
        "limits": LIMITS,
    }


def check(chapter: Chapter, workspace: Workspace) -> Verdict:
    """Judge a chapter. Raises WorkshopError when the judge itself could not work."""
    for each in chapter.exercises:  # what the syntax tree can tell needs no judge
        problem = unreadable(each, workspace)
        if problem:
            return problem
    require_root("A check")
    require_libraries(chapter)
    verdict = Verdict()
    running, last = "", ""
    for event in ask(order(chapter, workspace)):
        kind = event["event"]
        last = event.get("exercise") or last
        if kind == "start":
            running = event.get("test", "")
        elif kind == "passed":
            running = ""
            verdict.tests[last] = verdict.tests.get(last, 0) + 1
        elif kind == "exercise":
            verdict.solved.append(event["exercise"])
        elif kind == "untried":
            verdict.untried[event["test"]] = event["reason"]
            running = ""
        elif kind == "failed":
            _failed(verdict, event, chapter, workspace)
            running = ""
            break
        elif kind == "error":
            raise WorkshopError(f"the judge could not work: {event.get('message', 'it does not say why')}")
        elif kind == "done":
            verdict.passed = not verdict.message
            verdict.seconds = event.get("seconds", 0.0)
    if not verdict.passed and not verdict.message:
        where = f" in {running}" if running else ""
        _failed(verdict, {"exercise": last, "message": f"your code ended its own judge{where}."}, chapter, workspace)
    return verdict


def unreadable(exercise: Exercise, workspace: Workspace) -> Verdict | None:
    """A verdict when a module of the workspace is not Python or the function is gone, else None."""
    path = workspace.file(exercise.module)
    if not path.exists():
        return None
    verdict = Verdict(exercise=exercise.name, file=str(path))
    source = path.read_text(errors="replace")
    try:
        compile(source, str(path), "exec")
        skeleton.lines_of(source, exercise.function)
    except SyntaxError as error:
        verdict.message, verdict.line = f"Python cannot read this line: {error.msg}.", error.lineno or 1
        return verdict
    except skeleton.NoSuchPieceError as error:
        number = contents.read(workspace.root).owner(exercise.module)
        verdict.message = (
            f"{error} in this file any more: write it again, with the same name, or get it back with "
            f"`python -m chapters reset {number.number if number else ''} {exercise.function}`."
        )
        return verdict
    return None


def ask(what: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Hand an order to the judge and yield its reports. What it says otherwise goes to standard error."""
    process = subprocess.Popen(
        as_root("chapters.gate"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=contents.ROOT
    )
    assert process.stdin and process.stdout
    silent = True
    try:
        try:
            process.stdin.write(json.dumps(what))
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has gone already; its end says why
        for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                silent = False
                yield event
        if silent:
            raise WorkshopError(
                "the judge has not even begun; what it says is above.\n"
                f"It needs pytest in {sys.executable}: `make workshop` installs it."
            )
    finally:
        process.stdout.close()
        process.wait()


def _failed(verdict: Verdict, event: dict[str, Any], chapter: Chapter, workspace: Workspace) -> None:
    """Take over what a report says of a failure, and add what it leaves out: the function's place, its manual pages."""
    verdict.exercise = event.get("exercise") or ""
    verdict.message = event.get("message") or "it failed without a word."
    verdict.file, verdict.line = event.get("file") or "", event.get("line") or 0
    verdict.details = event.get("details") or ""
    manual = event.get("manual") or []
    verdict.manual = [manual] if isinstance(manual, str) else list(manual)
    for each in chapter.exercises:
        if each.name != verdict.exercise:
            continue
        path = workspace.file(each.module)
        if not verdict.file and path.exists():
            verdict.file = str(path)
            verdict.line = skeleton.lines_of(path.read_text(), each.function)[0]
        if not verdict.manual:
            verdict.manual = manual_pages(workspace.reference(each.module), each.function)


def manual_pages(source: str, function: str) -> list[str]:
    """The manual pages that a function's docstring names: ['unshare(2)']."""
    return skeleton.manual_pages(skeleton.docstring(source, function))

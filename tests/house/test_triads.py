"""For every exercise: empty, it fails for its own reason; the reference passes; each recorded mistake is led on.

A chapter is judged in the state in which a participant has it: the exercises before this one are solved (reference),
this one is empty, or a recorded mistake, and those after it are empty. So the order of the exercises is proven as well:
the tests of one must not need a later one. The judge (chapters/gate.py) is the one that participants get, and every
variant is a child of one clean process of it.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from chapters import contents, skeleton
from chapters.contents import Chapter, Exercise

if os.geteuid():
    pytest.skip("needs root", allow_module_level=True)

JUDGES = 2  # at work side by side


@dataclass(frozen=True)
class Variant:
    """One state of a chapter, and what the judge must say of it."""

    chapter: Chapter
    solved: int  # the first exercises are the reference, the others empty
    mistake: str = ""  # source of a function that stands for the exercise `solved`
    name: str = ""
    wanted: str = ""  # words of the message

    def __str__(self) -> str:
        return f"{self.chapter.number:02}-{self.name}"

    @property
    def exercise(self) -> Exercise | None:
        """The exercise that must fail."""
        exercises = self.chapter.exercises
        return exercises[self.solved] if self.solved < len(exercises) else None

    def write(self, directory: Path) -> dict[str, str]:
        """Write the chapter's modules in this state and return the mapping for the judge."""
        mapping = {}
        for module in dict.fromkeys(each.module for each in self.chapter.exercises):
            source = contents.module_file(module).read_text()
            file = directory.joinpath(str(self).replace("/", "_"), *module.split(".")).with_suffix(".py")
            empty = [each for each in self.chapter.exercises[self.solved :] if each.module == module]
            if self.mistake and self.exercise and self.exercise.module == module:
                source = skeleton.replace(source, self.exercise.function, self.mistake)
                empty.remove(self.exercise)
            source = skeleton.skeleton(source, [each.function for each in empty], str(file))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
            mapping[module] = str(file)
        return mapping


def variants() -> Iterator[Variant]:
    """Every state of every open chapter that has exercises."""
    for chapter in contents.chapters():
        if not chapter.open or not chapter.exercises:
            continue
        for number, exercise in enumerate(chapter.exercises):
            yield Variant(chapter, number, name=f"{exercise.function}-empty", wanted=f"{exercise.function}() is not")
            for name, wanted, source in mistakes(chapter):
                if name.startswith(exercise.function.replace(".", "__") + "__"):
                    yield Variant(chapter, number, source, name, wanted)
        yield Variant(chapter, len(chapter.exercises), name="reference")


def mistakes(chapter: Chapter) -> list[tuple[str, str, str]]:
    """The recorded mistakes of a chapter: name, words of the message, source."""
    if not chapter.mistakes.exists():
        return []
    source = chapter.mistakes.read_text()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and "__" in node.name]
    return [
        (node.name, " ".join((ast.get_docstring(node) or "").split()), skeleton.solution(source, node.name))
        for node in functions
    ]


VARIANTS = list(variants())


@dataclass
class Judge:
    """A process of the judge that has got a list of orders in a file, and answers one after the other."""

    directory: Path
    orders: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[list[dict[str, Any]]] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    lines: IO[str] | None = None

    def start(self) -> None:
        """Start the process on all its orders."""
        self.directory.mkdir()
        (self.directory / "orders").write_text("".join(json.dumps(order) + "\n" for order in self.orders))
        command = [sys.executable, "-B", "-m", "chapters.gate"]
        with (self.directory / "orders").open() as orders, (self.directory / "reports").open("w") as reports:
            self.process = subprocess.Popen(command, stdin=orders, stdout=reports, cwd=contents.ROOT)
        self.lines = (self.directory / "reports").open()

    def verdict(self, number: int) -> list[dict[str, Any]]:
        """Wait for the reports on an order."""
        assert self.process and self.lines
        reports: list[dict[str, Any]] = []
        text = ""
        while len(self.verdicts) <= number:
            text += self.lines.readline()
            if not text.endswith("\n"):
                assert self.process.poll() is None or self.lines.read(1), "the judge has ended before its last order"
                time.sleep(0.01)
                continue
            reports.append(json.loads(text))
            text = ""
            if reports[-1]["event"] == "done":
                self.verdicts.append(reports)
                reports = []
        return self.verdicts[number]

    def end(self) -> None:
        """End the process."""
        if self.process and self.lines:
            self.process.terminate()
            self.process.wait()
            self.lines.close()


@pytest.fixture(scope="module")
def judged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The places of the variants that were asked for: name -> (judge, number of the order)."""
    top = tmp_path_factory.mktemp("variants")
    judges = [Judge(top / f"judge-{number}") for number in range(JUDGES)]
    places: dict[str, Any] = {}
    for item in request.session.items:
        variant = getattr(item, "callspec", None) and item.callspec.params.get("variant")  # type: ignore[attr-defined]
        if not isinstance(variant, Variant):
            continue
        judge = judges[len(places) % JUDGES]
        places[str(variant)] = (judge, len(judge.orders))
        order = {"chapter": variant.chapter.number, "modules": variant.write(top)}
        order["limits"] = {"test": 6, "whole": 120}  # a busy machine is no reason for another verdict
        order["exercises"] = [each.name for each in variant.chapter.exercises]
        judge.orders.append(order)
    for judge in judges:
        judge.start()
    yield places
    for judge in judges:
        judge.end()


def untried(reports: list[dict[str, Any]]) -> dict[str, str]:
    """The exercises of which a test cannot run on this machine, and what that test needs."""
    found, exercise = {}, ""
    for report in reports:
        exercise = report.get("exercise", exercise)
        if report["event"] == "untried":
            found[exercise] = report["reason"]
    return found


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_judge_is_right(variant: Variant, judged: dict[str, tuple[Judge, int]]) -> None:
    judge, number = judged[str(variant)]
    reports = judge.verdict(number)
    solved = [report["exercise"] for report in reports if report["event"] == "exercise"]
    missed = untried(reports)
    if variant.exercise and variant.mistake and variant.exercise.name in set(solved) & set(missed):
        pytest.skip(missed[variant.exercise.name])  # the test that would find it needs another machine
    assert solved == [each.name for each in variant.chapter.exercises[: variant.solved]], reports[-2]
    if variant.exercise is None:
        assert reports[-1]["passed"], reports[-2]
        return
    assert not reports[-1]["passed"], f"{variant} passes, and is wrong"
    failed = next(report for report in reports if report["event"] in ("failed", "error"))
    assert failed["event"] == "failed", failed["message"]
    assert failed["exercise"] == variant.exercise.name
    assert variant.wanted in " ".join(failed["message"].split()), (
        f"the message of {failed['test']} does not lead to the mistake {variant.name}:\n{failed['message']}\n"
        f"It must contain: {variant.wanted}\n{failed.get('details', '')}"
    )
    assert bool(failed.get("unfilled")) == (not variant.mistake), failed
    assert failed["file"] and failed["line"] and failed["manual"], "it must point to file, line and manual page"


@pytest.mark.parametrize("chapter", [each for each in contents.chapters() if each.open], ids=lambda each: each.slug)
def test_every_mistake_belongs_to_an_exercise_and_each_has_three(chapter: Chapter) -> None:
    functions = [each.function.replace(".", "__") for each in chapter.exercises]
    recorded: dict[str, list[str]] = {function: [] for function in functions}
    for name, wanted, _ in mistakes(chapter):
        exercise = next((each for each in functions if name.startswith(each + "__")), "")
        assert exercise in recorded, f"{name} is no mistake of an exercise of chapter {chapter.number}"
        assert wanted, f"{name} does not say (in its docstring) which message leads to it"
        recorded[exercise].append(name)
    for function, names in recorded.items():
        assert len(names) >= 3, f"three mistakes that beginners make are wanted of {function}, there are {names}"

"""The judge: tells whether an answer to a chapter's exercises is right, and if not, which sentence leads on.

    python -m chapters.gate < ORDER        needs root, because it makes cages

It reads orders, one JSON object a line, and answers each with reports, one JSON object a line:

    {"chapter": 2, "exercises": ["minirt.namespaces.uts.enter", ...], "modules": {"minirt.namespaces.uts": "/FILE"},
     "limits": {"test": 2, "whole": 30}}

    {"event": "start", "test": ..., "exercise": ...}     before a test runs; whoever dies now died in it
    {"event": "passed", "test": ..., "exercise": ...}
    {"event": "exercise", "exercise": ...}               all tests of that exercise have passed
    {"event": "failed", "test": ..., "exercise": ..., "message": ..., "file": ..., "line": ..., "manual": [...],
     "unfilled": true when a function says that it is not filled in, "details": what pytest would print}
    {"event": "error", "message": ...}                   the judge itself could not work
    {"event": "done", "passed": ..., "seconds": ..., "notes": [...]}     the end of every order; weaknesses of the cage

The danger of a judge is a green that proves nothing. So:

* This process imports nothing of ``minirt``. Each order is carried out in a forked child, in a cage; that child drops
  every loaded module of ``minirt`` and of the tests, installs the finder, imports the judged modules by name, and
  compares the file that each came from with the file that it was told.
* Each test runs in a cage of its own within that one, so nothing that an answer did to the machine is there for the
  next test; ``container.py`` runs in that process (``observe.run_script``). A new interpreter would know of no finder:
  so the judged files also cover those of the reference, by bind mounts that end with the cage.
* Exercises are judged in their order; the first failure ends it. An exercise without a test is an error.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest.config import default_plugins

from chapters import cage, contents, finder, skeleton

MEMORY = 1 << 30
UNUSED = ("doctest", "junitxml", "pastebin", "unittest", "setuponly", "setupplan", "stepwise", "legacypath")
PLACE = re.compile(r"^(?P<file>[^\s:]+):(?P<line>\d+): (?P<what>.*)$", re.DOTALL)  # of a function not filled in

_manuals: dict[str, list[str]] = {}  # exercise -> manual pages


def report(event: dict[str, Any]) -> None:
    """Write one report, at once."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def judge(order: dict[str, Any], tell: Any = report) -> None:
    """Carry out one order and tell its reports; the last one is "done"."""
    begin = time.monotonic()
    limits = {"test": 2.0, "whole": 60.0} | order.get("limits", {})
    told: list[dict[str, Any]] = []
    notes: list[str] = []

    def pass_on(event: dict[str, Any]) -> None:
        told.append(event)
        tell(event)

    try:
        _read_manuals(order.get("exercises", []))
        outcome = cage.call(
            _session, order, limits, limits=cage.Limits(limits["whole"], MEMORY), on_message=pass_on
        )  # fmt: skip
        notes = outcome.notes
        last = told[-1] if told else {}
        if not any(event["event"] in ("failed", "error", "judged") for event in told):
            _explain_silence(outcome, last, tell, told)
    except (cage.CageError, contents.ContentsError, skeleton.NoSuchPieceError, OSError) as error:
        pass_on({"event": "error", "message": str(error)})
    passed = bool(told) and told[-1]["event"] == "judged"
    tell({"event": "done", "passed": passed, "seconds": round(time.monotonic() - begin, 3), "notes": notes})


def _explain_silence(outcome: cage.Outcome, last: dict[str, Any], tell: Any, told: list[dict[str, Any]]) -> None:
    """The child ended without a verdict: say what it was doing, since the answer under judgement has ended it."""
    running = last.get("event") == "start"
    where = f"in {last['test']}" if running else f"while {last['module']} was imported" if "module" in last else ""
    if not where or not outcome.how:
        text = (outcome.stdout + outcome.stderr).decode(errors="replace")
        event = {"event": "error", "message": (outcome.error or outcome.how or "no verdict") + "\n" + text}
    else:
        event = _failure(last.get("test", ""), last.get("exercise", ""))
        event["message"] = f"your code ended its own judge {where}: {outcome.how or outcome.error}"
        event["file"] = last.get("file", "")
    told.append(event)
    tell(event)


# -------------------------------------------------------------------------------------------------- in the cage's child


def _session(order: dict[str, Any], limits: dict[str, float]) -> None:
    """In a cage: let the judged modules take the place of the reference, then run the chapter's tests."""
    forget()
    mapping = order.get("modules", {})
    finder.install(mapping)
    cover(mapping)
    for name, file in mapping.items():
        cage.send({"event": "import", "module": name, "file": file})
        try:
            importlib.import_module(name)
        except BaseException as error:
            cage.send(_import_failure(order, name, file, error))
            return
    where_from(mapping)
    chapter = contents.chapter(order["chapter"])
    if order.get("container"):
        os.environ["MINIRT_CONTAINER"] = order["container"]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    os.chdir(contents.ROOT)
    plugin = Judge(order, mapping)
    status = pytest.main(
        [
            str(order.get("tests") or chapter.tests), "--rootdir", str(contents.ROOT), "-q", "--tb=short",
            "--cage-root=shared", f"--cage-seconds={limits['test']}", *(f"-pno:{name}" for name in UNUSED),
        ],
        plugins=[plugin],
    )  # fmt: skip
    if plugin.failed:
        return
    if status != pytest.ExitCode.OK:
        raise RuntimeError(f"pytest ended with {status!r}")
    missing = [name for name in plugin.exercises if name not in plugin.solved]
    if missing:
        cage.send({"event": "error", "message": f"no test judges {', '.join(missing)}"})
    else:
        cage.send({"event": "judged"})


def forget() -> None:
    """Drop what is loaded of minirt and of the tests: a module that is loaded is never asked for again."""
    for name in list(sys.modules):
        if name.partition(".")[0] in ("minirt", "tests", "conftest"):
            del sys.modules[name]
    importlib.invalidate_caches()
    root = str(contents.ROOT)
    sys.path[:] = [root, *(entry for entry in sys.path if entry not in (root, ""))]


def cover(mapping: dict[str, str]) -> None:
    """Bind each judged file over the reference's: a test that starts another interpreter meets the answer there."""
    for name, file in mapping.items():
        reference = contents.module_file(name)
        if reference.exists() and not reference.samefile(file):
            cage.mount(file, str(reference), "", cage.MS_BIND)


def where_from(mapping: dict[str, str]) -> None:
    """Raise ImportError unless each judged module came from its file, and every other one from this tree."""
    finder.check(mapping)
    top = str(contents.ROOT / "minirt") + os.sep
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "minirt" and name not in mapping:
            file = getattr(module, "__file__", None) or ""
            if not file.startswith(top):
                raise ImportError(f"{name} came from {file}, which is outside of {top}")


class Judge:
    """The plugin of pytest that orders the tests, tells each start and end, and stops at the first failure."""

    def __init__(self, order: dict[str, Any], mapping: dict[str, str]) -> None:
        self.exercises: list[str] = order.get("exercises", [])
        self.whole_chapter: bool = order.get("whole_chapter", True)
        self.mapping = mapping
        self.of: dict[str, str] = {}
        self.left: dict[str, int] = {}
        self.solved: set[str] = set()
        self.tried: set[str] = set()  # exercises of which a test has really run
        self.untried: set[str] = set()  # tests for which this machine lacks something
        self.failed = False

    def exercise_of(self, item: pytest.Item) -> str:
        """Return the full name of the exercise that a test judges (of several, the last), or "" for the chapter."""
        named = [name for marker in item.iter_markers("exercise") for name in marker.args]
        found = [full for full in self.exercises for name in named if full == name or full.endswith("." + name)]
        return found[-1] if found else ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Sort by exercise, in their order; tests of the whole chapter come last."""
        self.session = session
        places = {name: number for number, name in enumerate(self.exercises)} | {"": len(self.exercises)}
        for item in items:
            self.of[item.nodeid] = exercise = self.exercise_of(item)
            self.left[exercise] = self.left.get(exercise, 0) + 1
        items.sort(key=lambda item: places[self.of[item.nodeid]])
        if not self.whole_chapter:
            items[:] = [item for item in items if self.of[item.nodeid]]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A test file that cannot be imported is a failure of what it imports."""
        if report.failed and not self.failed:
            self.failed = True
            text = str(report.longrepr)
            cage.send({"event": "error", "message": f"{report.nodeid} cannot be collected:\n{text}"})

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Tell which test begins."""
        cage.send({"event": "start", "test": _name(nodeid), "exercise": self.of[nodeid]})

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Any:
        """Before each test, and after it: does the answer still come from the file that it was told?"""
        where_from(self.mapping)
        result = yield
        where_from(self.mapping)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell how a test, or a part of one, ended."""
        if self.failed:
            return
        if report.skipped and contents.BEYOND_THIS_MACHINE.search(_reason(report)):
            self.untried.add(report.nodeid)
            cage.send({"event": "untried", "test": _name(report.nodeid), "reason": _reason(report)})
        elif report.failed or (report.skipped and not hasattr(report, "wasxfail")):
            self.failed = True
            self.session.shouldstop = "the first failure ends it"
            cage.send(self._failure(report))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Tell that a test has passed, and with it perhaps an exercise."""
        if self.failed:
            return
        exercise = self.of[nodeid]
        if nodeid not in self.untried:
            self.tried.add(exercise)
            cage.send({"event": "passed", "test": _name(nodeid), "exercise": exercise})
        self.left[exercise] -= 1
        if exercise in self.tried and exercise and not self.left[exercise]:
            self.solved.add(exercise)
            cage.send({"event": "exercise", "exercise": exercise})

    def _failure(self, report: pytest.TestReport) -> dict[str, Any]:
        """Say what is wrong, in the test's own sentence, and where the answer had its last word."""
        event = _failure(_name(report.nodeid), self.of[report.nodeid])
        properties: dict[str, Any] = dict(report.user_properties)
        kind: str
        text: str
        kind, text = properties.get("raised", ["", report.longreprtext])
        event["details"] = report.longreprtext
        if report.skipped:
            text = f"this test was not run here ({_reason(report)}), so it proves nothing"
        files = set(self.mapping.values())
        frames = [(str(file), int(line)) for file, line in properties.get("frames", []) if file in files]
        if not frames:  # a report of the cage: the stack of an answer that hangs stands in its text
            found = re.findall(r'File "([^"]+)", line (\d+)', event["details"])
            frames = [(file, int(line)) for file, line in found if file in files]
            frames.reverse()  # such a stack begins with the innermost call
        if frames:
            event["file"], event["line"] = frames[-1]
        place = PLACE.match(text) if kind == "NotImplementedError" else None
        if kind == "NotImplementedError":
            event["unfilled"] = True
        if place:
            event["line"], text = int(place["line"]), place["what"]
        event["message"] = sentence(kind, text, event["test"])
        if frames and event["message"].startswith("not finished after"):
            event["message"] += f", and still in line {event['line']} of {Path(event['file']).name}"
        if not event["file"]:
            event |= _definition(event["exercise"], self.mapping)
        return event


def _reason(report: pytest.TestReport) -> str:
    """Why a test was skipped."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def sentence(kind: str, text: str, test: str = "") -> str:
    """Return what a failure says to a person: of an assertion its own words, of another error also its name.

    pytest appends to an assertion's message the values that it compared, beginning with "assert": they are details.
    """
    if text.startswith("ended by SIG"):
        return f"your code ended its own judge in {test}: {text}"
    if text.startswith("not finished after"):
        return text.partition("\n")[0]
    if kind in ("AssertionError", "ChildFailed", "Failed", "", "NotImplementedError"):
        return re.split(r"\nassert ", text, maxsplit=1)[0].strip() if not text.startswith("assert ") else text
    return f"{kind}: {text}"


def _definition(exercise: str, mapping: dict[str, str]) -> dict[str, Any]:
    """Say where the judged file defines an exercise's function; empty where it does not."""
    for module, file in mapping.items():
        if exercise.startswith(module + "."):
            with contextlib.suppress(skeleton.NoSuchPieceError, OSError):  # an answer may have removed every file
                first, _ = skeleton.lines_of(Path(file).read_text(), exercise[len(module) + 1 :])
                return {"file": file, "line": first}
    return {}


def _failure(test: str, exercise: str) -> dict[str, Any]:
    """Begin a report of a failure, with the manual pages of its exercise."""
    place = {"file": "", "line": 0, "manual": _manuals.get(exercise, [])}
    return {"event": "failed", "test": test, "exercise": exercise, "message": ""} | place


def _read_manuals(names: Sequence[str]) -> None:
    """Remember which manual pages the docstrings of exercises name, while the reference's files are still there."""
    for chapter in contents.chapters():
        for each in chapter.exercises:
            if each.name in names and each.name not in _manuals:
                source = contents.module_file(each.module).read_text()
                _manuals[each.name] = skeleton.manual_pages(skeleton.docstring(source, each.function))


def _import_failure(order: dict[str, Any], name: str, file: str, error: BaseException) -> dict[str, Any]:
    """Say that a judged module cannot even be imported, and in which of its lines."""
    exercises = [each for each in order.get("exercises", []) if each.startswith(name + ".")]
    event = _failure("", exercises[0] if exercises else "")
    lines = [entry.lineno or 0 for entry in traceback.extract_tb(error.__traceback__) if entry.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines = [error.lineno or 0]
    event |= {"file": file, "line": lines[-1] if lines else 0, "details": traceback.format_exc()}
    event["message"] = f"{Path(file).name} cannot be imported: {type(error).__name__}: {error}"
    return event


def _name(nodeid: str) -> str:
    """Return a test's name without its file."""
    return nodeid.partition("::")[2] or nodeid


def main(_arguments: Sequence[str] = ()) -> int:
    """Read orders from standard input until it ends; return 0, also when answers are wrong."""
    sys.dont_write_bytecode = True
    for name in default_plugins:  # once, here, and not in each child
        if name not in UNUSED:
            importlib.import_module(f"_pytest.{name}")
    if os.geteuid():
        report({"event": "error", "message": "the judge needs root, because it makes cages: call it through sudo"})
        return 1
    try:
        for line in sys.stdin:
            if line.strip():
                judge(json.loads(line))
    except BrokenPipeError:  # whoever asked has heard enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How minirt is tested: a cage per test, chapters that wait for each other, and skips that need a reason.

* Each test below ``tests/chapter_NN_*``, and each with the marker ``caged``, runs in a throw-away cage of its own
  (chapters/cage.py), forked at the moment the test runs: so ``-k``, node ids, ``--collect-only`` and ``-n 2`` work as
  always. What a test leaves behind in its cage makes it fail.
* ``--chapter N`` runs the tests of the chapters 0 to N, in the book's order. A chapter's tests do not run while an
  earlier chapter that it builds on fails.
* A skip that no line of ``allowed_skips.txt`` matches fails the run where CI or MINIRT_CI is set.

README.md beside this file tells the author of a chapter what there is to use.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from chapters import cage, contents, observe  # noqa: E402

# A run in the background of a shell, or under nohup, begins with some signals ignored, and all its children would too.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

SECONDS = 60.0  # that a test may take in its cage, where neither a marker nor the judge says otherwise
ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.txt")
CHAPTER = re.compile(r"chapter_(\d\d)_")

MARKERS = [
    "exercise(name): the exercise, a function's full name, that this test judges",
    "caged: run this test in a cage of its own (tests of chapters always do)",
    "limit(seconds): the time that this test may take in its cage, judged or not",
    "memory(mib): the memory that this test may take in its cage",
    "on_disk: let the state root of the cage lie on the machine's disk and not on a tmpfs",
    "leaves(reason): what this test leaves in its cage is not held against it",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("minirt")
    group.addoption("--chapter", type=int, metavar="N", help="only the tests of the chapters 0 to N, in their order")
    group.addoption("--cage-seconds", type=float, default=SECONDS, metavar="S", help="time limit of a caged test")
    group.addoption("--patience", type=float, default=1, metavar="N", help="N times each limit, for emulated machines")
    group.addoption("--cage-root", default="overlay", choices=["overlay", "shared"], help="see chapters.cage.Cage")


def pytest_configure(config: pytest.Config) -> None:
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    if not hasattr(config, "workerinput"):
        # Under xdist the workers tell each other here which chapters have failed.
        directory = tempfile.mkdtemp(prefix="minirt-tests-")
        os.environ["MINIRT_TEST_RUN"] = directory
        config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
    config.pluginmanager.register(Gate(Path(os.environ["MINIRT_TEST_RUN"])), "minirt-gate")
    config.pluginmanager.register(Skips(config), "minirt-skips")


def chapter_of(item: pytest.Item) -> int | None:
    """Return the number of the chapter that a test belongs to, or None."""
    found = CHAPTER.search(item.nodeid)
    return int(found[1]) if found else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put chapters in their order; with --chapter leave out everything else."""
    items.sort(key=lambda item: -1 if chapter_of(item) is None else chapter_of(item) or 0)
    limit = config.getoption("chapter")
    if limit is not None:
        kept = [item for item in items if (number := chapter_of(item)) is not None and number <= limit]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


# ------------------------------------------------------------------------------------------------------------ the gate


class Gate:
    """Keeps the tests of a chapter back while an earlier chapter that it builds on fails."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Report a test that is kept back, or let the next hook run it."""
        number = chapter_of(item)
        for earlier in sorted(foundations(number)) if number is not None else []:
            if (self.directory / f"failed-{earlier}").exists():
                reason = f"chapter {number} waits: chapter {earlier}, which it builds on, fails"
                skip = (str(item.path), 0, f"Skipped: {reason}")
                _tell(item, [_report(item, "skipped", skip, when="setup")])
                return True
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember which chapters have failed."""
        found = CHAPTER.search(report.nodeid)
        if report.failed and found:
            (self.directory / f"failed-{int(found[1])}").touch()


def foundations(number: int) -> set[int]:
    """Return the numbers of all chapters that a chapter builds on, near and far."""
    table = {chapter.number: chapter.builds_on for chapter in contents.chapters()}
    found = list(table.get(number, ()))
    for each in found:
        found += table.get(each, ())
    return set(found)


# ------------------------------------------------------------------------------------------------------ a cage per test


@pytest.hookimpl
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test in a cage of its own and hand its reports on; tests that need no cage run as always."""
    if chapter_of(item) is None and not item.get_closest_marker("caged"):
        return None
    if os.geteuid():
        reason = "a cage needs root: run the tests with sudo, or as root"
        _tell(item, [_report(item, "failed", reason, when="setup")])
        return True
    item.config.hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = caged_reports(item)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    # The test before may have left the fixtures of its module for this one, which was the last of the module out here.
    item.session._setupstate.teardown_exact(nextitem)
    item.config.hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


weaknesses: set[str] = set()  # of the cages on this machine


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say where the cages of this machine are weaker than they should be."""
    for line in sorted(weaknesses):
        terminalreporter.line(f"cage: {line}")


def caged_reports(item: pytest.Item) -> list[pytest.TestReport]:
    """Run one test in a cage and return its reports; a test that dies or hangs in there gets one that says so."""
    reports: list[pytest.TestReport] = []
    strays: list[str] = []
    hook = item.config.hook

    def receive(message: dict[str, Any]) -> None:
        if "report" in message:
            report = hook.pytest_report_from_serializable(config=item.config, data=message["report"])
            if isinstance(report.longrepr, list):  # JSON knows no tuples, and a skip's reason is one
                report.longrepr = tuple(report.longrepr)
            reports.append(report)
        else:
            strays.append(message["came back"])

    seconds = _marked(item, "limit", item.config.getoption("cage_seconds")) * item.config.getoption("patience")
    limits = cage.Limits(seconds, _marked(item, "memory", 1024) << 20)
    stacks = os.memfd_create("stacks", os.MFD_CLOEXEC)
    outcome = None
    try:
        outcome = cage.call(
            _run_here, item, stacks, seconds, limits=limits, capture=False, on_message=receive,
            state="disk" if item.get_closest_marker("on_disk") else "", root=item.config.getoption("cage_root"),
        )  # fmt: skip
        how = outcome.error or outcome.how
        weaknesses.update(outcome.notes)
    except cage.CageError as error:
        how = str(error)
    if outcome and outcome.timed_out:
        # From the place where it hangs (innermost first) to the test; what lies below is pytest, and ours.
        stack = os.pread(stacks, 1 << 16, 0).decode(errors="replace").splitlines()[1:]
        stack = list(itertools.takewhile(lambda line: "/_pytest/" not in line, stack))
        stack = [line for line in stack if "chapters/observe.py" not in line and "tests/conftest.py" not in line]
        how = f"not finished after {seconds:g} s" + "".join("\n" + line for line in stack)
    os.close(stacks)
    if strays:
        how = "a forked child came back into the test: a child must end itself with os._exit()\n" + strays[0]
        reports = [report for report in reports if not report.failed]
    if how:
        reports.append(_report(item, "failed", how, seconds=outcome.seconds if outcome else 0.0))
    return reports


def _marked(item: pytest.Item, name: str, otherwise: Any) -> Any:
    """Return the argument of a test's marker."""
    marker = item.get_closest_marker(name)
    return marker.args[0] if marker else otherwise


def _tell(item: pytest.Item, reports: list[pytest.TestReport]) -> None:
    """Report a test that does not run."""
    item.config.hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.config.hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _report(
    item: pytest.Item, outcome: Any, text: Any, when: Any = "call", seconds: float = 0.0
) -> pytest.TestReport:
    """Make a report of our own for a test."""
    return pytest.TestReport(
        nodeid=item.nodeid, location=item.location, keywords={item.name: 1}, outcome=outcome, longrepr=text, when=when,
        duration=seconds,
    )  # fmt: skip


def _run_here(item: pytest.Item, stacks: int, seconds: float) -> None:
    """In the cage: run the test with its fixtures, send its reports, then look for what it has left."""
    from _pytest.runner import SetupState, runtestprotocol

    # The fixtures of wider scope that are alive outside are not ours to tear down, and pytest's temporary directory
    # must lie on the cage's own state root.
    item.session._setupstate = SetupState()
    item.config._tmp_path_factory._basetemp = None  # type: ignore[attr-defined]
    item.config._tmp_path_factory._given_basetemp = None  # type: ignore[attr-defined]  # pytest-xdist gives one
    observe.alarm = (stacks, time.monotonic() + max(seconds - 0.3, seconds / 2))
    observe.watch_the_clock()
    before = observe.snapshot()
    reports = runtestprotocol(item, nextitem=None, log=False)
    if all(report.outcome != "failed" for report in reports) and not item.get_closest_marker("leaves"):
        left = observe.differences(before)
        if left:
            reports.append(_report(item, "failed", "the test left something behind:\n" + "\n".join(left), "teardown"))
    observe.ignore_the_clock()
    for report in reports:
        cage.send({"report": item.config.hook.pytest_report_to_serializable(config=item.config, report=report)})


_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Stop a child that the code under test forked and that came back: it would go on as a second pytest."""
    before = (_forks, os.getpid())
    raised = ""
    try:
        return (yield)
    except BaseException as error:
        raised = "".join(traceback.format_exception(error))
        raise
    finally:
        if (_forks, os.getpid()) != before:
            cage.send({"came back": raised})
            os._exit(70)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """Let a failure's report say in plain fields what the judge repeats: the sentence, and the way it came."""
    report = yield
    if call.excinfo is not None and report.failed:
        error = call.excinfo.value
        report.user_properties.append(("raised", [type(error).__name__, str(error)]))
        report.user_properties.append(("frames", [list(frame) for frame in observe.frames_of(error)]))
    return report


# ---------------------------------------------------------------------------------------------------------------- skips


class Skips:
    """Notes every skip; those with no good reason fail the run where CI or MINIRT_CI is set."""

    def __init__(self, config: pytest.Config) -> None:
        lines = ALLOWED_SKIPS.read_text().splitlines() if ALLOWED_SKIPS.exists() else []
        self.allowed = [re.compile(line) for line in lines if line.strip() and not line.startswith("#")]
        self.allowed.append(re.compile(r"chapter \d+ waits: chapter \d+, which it builds on, fails"))
        self.strict = bool(os.environ.get("CI") or os.environ.get("MINIRT_CI"))
        self.worker = hasattr(config, "workerinput")
        self.bad: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Look at a test that was skipped."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._look(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Look at a whole file that was skipped."""
        if report.skipped:
            self._look(report)

    def _look(self, report: Any) -> None:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = text.removeprefix("Skipped: ").strip()
        if reason in ("", "Skipped", "unconditional skip") or not any(each.search(reason) for each in self.allowed):
            self.bad.append(f"{report.nodeid}: {reason or 'no reason given'}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run for a skip that is not allowed."""
        if self.bad and self.strict and not self.worker and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say which skips no line of allowed_skips.txt allows."""
        if self.bad:
            terminalreporter.section("skips that tests/allowed_skips.txt does not allow", red=self.strict)
            for line in self.bad:
                terminalreporter.line(line)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a cage of ours has left something on the machine itself."""
    left = cage.leftovers(os.getpid())
    if left:
        print("\ncages have left something on this machine: " + ", ".join(left), file=sys.stderr)
        if session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


# ------------------------------------------------------------------------------------------------------------- fixtures


@pytest.fixture
def spawn() -> Iterator[Callable[..., observe.Child]]:
    """``spawn(function, *arguments)``: an ``observe.Child``, ended and reaped after the test."""
    children: list[observe.Child] = []

    def start(function: Callable[..., Any], *arguments: Any) -> observe.Child:
        children.append(observe.Child(function, *arguments))
        return children[-1]

    yield start
    strays = []
    for child in children:
        try:
            child.end()
        except observe.ChildFailed as error:
            strays.append(error)
    if strays:
        raise strays[0]


@pytest.fixture
def inside(spawn: Callable[..., observe.Child]) -> Callable[..., Any]:
    """``inside(function, *arguments)``: call a function in a forked child, end the child, return the value."""

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        __tracebackhide__ = True
        child = spawn(function, *arguments)
        try:
            return child.value
        finally:
            child.end()

    return call


@pytest.fixture
def outside() -> observe.Outside:
    """What /proc tells about a process; see chapters/observe.py."""
    return observe.Outside()


@pytest.fixture
def container(request: pytest.FixtureRequest) -> Callable[..., observe.Ran]:
    """``container(*arguments)``: run the chapter's container.py with the modules under test; see ``observe.Ran``."""
    number = chapter_of(request.node)
    assert number is not None, "only tests of a chapter have a container.py"
    path = os.environ.get("MINIRT_CONTAINER") or contents.chapter(number).directory / "container.py"

    def run(*arguments: str, **options: Any) -> observe.Ran:
        return observe.run_script(path, *arguments, **options)

    return run


@pytest.fixture
def state_root() -> Path:
    """The state root of the cage, on a file system that can carry an overlay's upper directory."""
    if not cage.inside():
        pytest.fail("state_root is for tests in a cage: give the test the marker `caged`")
    return Path(cage.STATE_ROOT)

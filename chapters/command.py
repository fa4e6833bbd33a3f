"""The workshop's command line: `python -m chapters`.

Take a chapter, fill in the functions that were taken out of it, let its tests tell you when you are right, and run the
real `minirt` with your own functions. It runs as an ordinary user; only the cage, in which your code is tried, and
`use` need root, and for these it calls `sudo -n` itself.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from chapters import classroom, contents, judge, pages, skeleton, tree, use
from chapters.contents import Chapter, Exercise
from chapters.judge import Verdict
from chapters.workspace import WorkshopError, Workspace

# As a participant can type it: Debian has no command `python` outside of a virtual environment.
ME = f"{'python' if shutil.which('python') else 'python3'} -m chapters"
EPILOG = f"""\
a first hour:
  {ME}                 which chapters there are
  {ME} start 2         get chapter 2 with its functions emptied, in workspace/
  {ME} check           are they right? (no number: the chapter of the last start)
  {ME} hint            the next hint for the function you are at
  {ME} run 2 -- sh     the chapter's container program, with your functions, in a cage
  {ME} use             from now on the real minirt runs your functions, until `leave`
"""


# -- reading -----------------------------------------------------------------------------------------------------


def list_chapters(options: argparse.Namespace) -> int:
    """Print the chapters and how far the participant is."""
    workspace = Workspace(options.workspace)
    table = contents.read()
    chosen = table.chapters
    if options.route:
        if options.route not in table.routes:
            raise WorkshopError(f"there is no route {options.route!r}; there are: {', '.join(table.routes)}.")
        chosen = tuple(table.chapter(number) for number in table.routes[options.route])
    current = workspace.current() if workspace.all_started() else None
    for each in chosen:
        mark = ">" if each == current else " "
        minutes = f"{each.minutes} min" if each.open else "planned"
        print(f"{mark} {each.number:02}  {each.title:<32} {minutes:>7}   {_progress(workspace, each)}".rstrip())
    total = sum(each.minutes for each in chosen if each.open)
    hours = f"{total // 60} h {total % 60:02} min" if total >= 60 else f"{total} min"
    print(f"\n{len(chosen)} chapters, {sum(each.open for each in chosen)} of them open: {hours}.")
    if not options.route:
        print(f"Routes: {', '.join(table.routes)} ({ME} list --route day). Begin with: {ME} start 2")
    return 0


def _progress(workspace: Workspace, chapter: Chapter) -> str:
    if not chapter.open:
        return ""
    exercises = chapter.exercises
    if not exercises:
        return "to read"
    if not workspace.started(chapter):
        return f"{len(exercises)} to fill in" if len(exercises) > 1 else "1 to fill in"
    if workspace.finished(chapter):
        return "done"
    solved = sum(workspace.solved(chapter, each) for each in exercises)
    following = workspace.next_exercise(chapter)
    return f"{solved} of {len(exercises)} done" + (f", now {following.function}()" if following else "; check it again")


# -- working -----------------------------------------------------------------------------------------------------


def start(options: argparse.Namespace) -> int:
    """Put a chapter's modules into the workspace, emptied."""
    workspace = Workspace(options.workspace)
    chapter = contents.chapter(options.chapter)
    written = workspace.start(chapter)
    if not written:
        print(f"Chapter {chapter.number} is in your workspace already; your work stays as it is.")
        print(f"To begin it again: {ME} reset {chapter.number}\n")
    print(f"Chapter {chapter.number:02}, {chapter.title}: about {chapter.minutes} minutes.\n")
    print(f"Read      {workspace.shown(chapter.page)}")
    for each in chapter.exercises:
        path = workspace.file(each.module)
        first, _ = skeleton.lines_of(path.read_text(), each.function)
        print(f"Fill in   {workspace.shown(path)}:{first}   {each.function}()")
    earlier = [contents.chapter(number) for number in chapter.builds_on]
    unfinished = [each for each in earlier if each.exercises and not workspace.finished(each)]
    if unfinished:
        names = ", ".join(f"{each.number:02} {each.title}" for each in unfinished)
        print(f"\nWhat it needs of earlier chapters ({names}) comes from the book's own code.")
    print(f"\nThen: {ME} check {chapter.number}   (or `watch`: whenever you save; stuck: `hint`)")
    return 0


def check(options: argparse.Namespace) -> int:
    """Judge a chapter once."""
    workspace = Workspace(options.workspace)
    chapter = _chapter(options, workspace)
    if chapter.exercises:
        workspace.require(chapter)
    workspace.make_current(chapter)
    passed = _check(chapter, workspace, options.details)
    _tell_classroom(options, workspace)
    return 0 if passed else 1


def watch(options: argparse.Namespace) -> int:
    """Judge a chapter whenever one of its files is saved, until it passes."""
    workspace = Workspace(options.workspace)
    chapter = _chapter(options, workspace)
    workspace.require(chapter)
    workspace.make_current(chapter)
    seen: dict[str, str] = {}
    try:
        while True:
            now = workspace.hashes(chapter)
            if now != seen:
                if sys.stdout.isatty():
                    print("\x1b[2J\x1b[H", end="")
                passed = _check(chapter, workspace)
                _tell_classroom(options, workspace)
                if passed:
                    return 0
                print("\n(watching; save the file and it is checked again; Ctrl-C ends this)", flush=True)
                seen = now
            time.sleep(0.3)
    except KeyboardInterrupt:
        print()
        return 130


def _tell_classroom(options: argparse.Namespace, workspace: Workspace) -> None:
    if options.join:
        print(classroom.join(options.join, options.name, workspace))


def _check(chapter: Chapter, workspace: Workspace, details: bool = False) -> bool:
    before = workspace.hashes(chapter)
    texts = {each.name: workspace.text_hash(each) for each in chapter.exercises}
    begin = time.monotonic()
    verdict = judge.check(chapter, workspace)
    seconds = time.monotonic() - begin
    record = workspace.record(chapter)
    solved = [each.name for each in chapter.exercises] if verdict.passed else verdict.solved
    for each in chapter.exercises:
        record.solved.pop(each.name, None)
        if each.name in solved:
            record.solved[each.name] = texts[each.name]
    record.passed = before if verdict.passed else {}
    if chapter.exercises:
        workspace.remember(chapter, record)
    _report(chapter, workspace, verdict, solved, seconds)
    if details and verdict.details:
        print(f"\n{verdict.details}")
    return verdict.passed


def _report(chapter: Chapter, workspace: Workspace, verdict: Verdict, solved: list[str], seconds: float) -> None:
    print(f"Chapter {chapter.number:02}, {chapter.title}")
    for each in chapter.exercises:
        if each.name in solved:
            print(f"  ok    {each.function}")
        elif each.name == verdict.exercise:
            print(f"  NO    {each.function}")
        else:
            print(f"        {each.function}")
    if verdict.passed:
        if verdict.untried:
            reasons = ", ".join(sorted(set(verdict.untried.values())))
            print(f"\n{len(verdict.untried)} tests were not run here ({reasons}).\nA virtual machine can run them, "
                  "for example that of lima.yaml; see chapters/your-machine.md.")
        print(f"\nAll right, in {seconds:.1f} s. ", end="")
        _what_next(chapter, workspace)
        return
    if verdict.exercise not in [each.name for each in chapter.exercises]:
        print("  NO    the chapter as a whole" if chapter.exercises else "  NO")
    print()
    for paragraph in verdict.message.split("\n"):
        print(textwrap.fill(paragraph, 100, initial_indent="    ", subsequent_indent="    ", break_long_words=False))
    print()
    if verdict.file:
        print(f"Look at   {workspace.shown(Path(verdict.file))}:{verdict.line or 1}")
    if verdict.manual:
        print(f"Read      {', '.join(verdict.manual)}   ({_man(verdict.manual[0])})")
    print(f"Stuck?    {ME} hint {chapter.number}")
    for module in workspace.outdated(chapter):
        print(f"Beware:   the book's {module} has changed since you started (reset {chapter.number} gets the new one).")


def _what_next(chapter: Chapter, workspace: Workspace) -> None:
    if not chapter.exercises:
        print("There is nothing to fill in here.")
        return
    print("The code is yours now:")
    if chapter.container.exists():
        print(f"  {ME} run {chapter.number}   the chapter's container program with it, in a cage")
    print(f"  {ME} use     the real minirt with it")
    later = [each for each in contents.chapters() if each.number > chapter.number and each.open and each.exercises]
    if later:
        print(f"  {ME} start {later[0].number}   the next chapter: {later[0].title}")


def _man(page: str) -> str:
    """Where one reads it: a command, or an address."""
    words = page.split()
    if words[0] == "RFC":
        return f"https://www.rfc-editor.org/rfc/rfc{words[1]}" + (f"#section-{words[3]}" if len(words) > 3 else "")
    if words[0] == "OCI":
        return f"https://github.com/opencontainers/{words[1]}/blob/main/{words[2]}"
    name, section = page.rstrip(")").split("(")
    return f"man {section} {name}"


def hint(options: argparse.Namespace) -> int:
    """Print one hint more than last time."""
    workspace = Workspace(options.workspace)
    chapter = _chapter(options, workspace)
    exercise = _exercise(options, chapter, workspace)
    record = workspace.record(chapter)
    shown = min(record.hints.get(exercise.name, 0) + 1, len(exercise.hints))
    print(f"{exercise.function}(), chapter {chapter.number:02}")
    for number, text in enumerate(exercise.hints[:shown], 1):
        print(textwrap.fill(text, 100, initial_indent=f"  {number}. ", subsequent_indent="     "))
    if shown < len(exercise.hints):
        print(f"\n{len(exercise.hints) - shown} more: type it again.")
    else:
        print(f"\nThat was the last one. The book's own: {ME} solution {chapter.number} {exercise.function}")
    record.hints[exercise.name] = shown
    if workspace.started(chapter):
        workspace.remember(chapter, record)
    return 0


def solution(options: argparse.Namespace) -> int:
    """Print the book's own function, or put it into the workspace."""
    workspace = Workspace(options.workspace)
    chapter = _chapter(options, workspace)
    if options.write and not options.exercise:
        chosen = [each for each in chapter.exercises if not workspace.solved(chapter, each)]
    else:
        chosen = [_exercise(options, chapter, workspace)]
    for each in chosen:
        if options.write:
            path = workspace.fill_in(chapter, each)
            print(f"{each.function}() in {workspace.shown(path)} is the book's own now.")
        else:
            path = contents.module_file(each.module)
            print(f"# {path.relative_to(contents.ROOT)}\n{skeleton.solution(path.read_text(), each.function)}")
    return 0


def reset(options: argparse.Namespace) -> int:
    """Empty a chapter's exercises again."""
    workspace = Workspace(options.workspace)
    chapter = _chapter(options, workspace)
    exercise = chapter.exercise(options.exercise) if options.exercise else None
    for path in workspace.reset(chapter, exercise):
        print(f"{workspace.shown(path)} is as at the start; what you had is in {path.name}.old beside it.")
    return 0


# -- running -----------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    """Run container.py with the workspace's modules."""
    workspace = Workspace(options.workspace)
    chapter = contents.chapter(options.chapter)
    if not chapter.container.exists():
        raise WorkshopError(f"chapter {chapter.number} has no container program.")
    modules: dict[str, Path] = {}
    for each in workspace.all_started():
        if each.number <= chapter.number and (each == chapter or workspace.finished(each)):
            modules |= workspace.modules(each)
    for exercise in chapter.exercises:
        path = modules.get(exercise.module)
        if path and not skeleton.is_filled_in(path.read_text(), exercise.function):
            line = skeleton.lines_of(path.read_text(), exercise.function)[1]
            print(f"{workspace.shown(path)}:{line}: {exercise.function}() is not filled in yet.", file=sys.stderr)
            return 125
    mapping = json.dumps({name: str(path) for name, path in modules.items()})
    judge.require_root("The container program")
    judge.require_libraries(chapter)
    where = ["--on-host"] if options.on_host else []
    inner = ["chapters.session", "container", str(chapter.number), mapping, *where, "--", *options.rest]
    if options.on_host:
        return subprocess.run(judge.as_root(*inner), cwd=contents.ROOT, check=False).returncode
    return _in_cage(*inner)


def shell(options: argparse.Namespace) -> int:
    """Open the project's root shell in a cage."""
    judge.require_root("The shell")
    if sys.stdin.isatty():
        print("A root shell in a cage: break what you like, nothing of it stays. `exit` leaves it.", flush=True)
    return _in_cage("chapters.session", "shell")


def _in_cage(*module: str) -> int:
    inside = [sys.executable, "-B", "-m", *module]
    command = judge.as_root("chapters.cage", "--time", "86400", "--", *inside)
    if os.geteuid() != 0:  # sudo takes the environment away; the terminal's kind is needed
        command[command.index("--") + 1 : command.index("--") + 1] = ["env", f"TERM={os.environ.get('TERM', 'dumb')}"]
    return subprocess.run(command, cwd=contents.ROOT, check=False).returncode


def serve(options: argparse.Namespace) -> int:
    """Be the classroom, until Ctrl-C."""
    return classroom.serve(options.addr, options.root, options.image)


def use_workspace(options: argparse.Namespace) -> int:
    """Let the real minirt run the workspace's modules."""
    workspace = Workspace(options.workspace)
    chosen = [contents.chapter(number) for number in options.chapters] or workspace.all_started()
    for each in chosen:
        workspace.require(each)
    if not chosen:
        raise WorkshopError(f"your workspace is empty: {ME} start 2")
    modules: dict[str, Path] = {}
    for each in chosen:
        modules |= workspace.modules(each)
    judge.require_root("`use`")
    if use.switch_on(workspace.directory, modules):
        return 1
    print("minirt run by root now runs your functions of:")
    for each in chosen:
        unfinished = "" if workspace.finished(each) else "   (not all of it passes its check)"
        print(f"  {each.number:02}  {each.title}{unfinished}")
    print(f"It says so each time. Back to the book's own: {ME} leave (a restart of the machine does it too)")
    return 0


def leave(options: argparse.Namespace) -> int:
    """Let the real minirt run its own modules again."""
    judge.require_root("`leave`")
    status = use.switch_off()
    if not status:
        print("minirt runs its own functions again.")
    return status


# -- for authors and teachers ------------------------------------------------------------------------------------


def write_tree(options: argparse.Namespace) -> int:
    """Write the repository as it stands at a chapter."""
    tree.write(contents.chapter(options.chapter).number, options.directory)
    print(f"{options.directory}: minirt at the end of chapter {options.chapter}")
    return 0


def write_pages(options: argparse.Namespace) -> int:
    """Fill code into the pages, and run their transcripts where asked."""
    words = options.run or ()
    chosen = [contents.chapter(int(word)).page if word.isdigit() else Path(word).resolve() for word in words]
    for path in pages.write(only=chosen):
        print(f"written: {path}")
    if options.run is None:
        return 0
    judge.require_root("Running transcripts")
    paths = [str(each) for each in chosen or pages.files()]
    return subprocess.run(judge.as_root("chapters.transcript", *paths), cwd=contents.ROOT, check=False).returncode


def clean(options: argparse.Namespace) -> int:
    """Take away what the workshop has left on this machine."""
    workspace = Workspace(options.workspace)
    judge.require_root("`clean`")
    status = use.switch_off(sweep=True)
    print("`use` is off, and nothing of any cage is left.")
    if options.answers:
        _remove_answers(workspace)
    elif workspace.directory.exists():
        print(f"Your answers stay in {workspace.shown(workspace.directory)}; with --answers they go too.")
    return status


def _remove_answers(workspace: Workspace) -> None:
    if workspace.directory.exists():
        shutil.rmtree(workspace.directory)
        print(f"{workspace.shown(workspace.directory)} is removed.")


# -- the command line --------------------------------------------------------------------------------------------


def _chapter(options: argparse.Namespace, workspace: Workspace) -> Chapter:
    return workspace.current() if options.chapter is None else contents.chapter(options.chapter)


def _exercise(options: argparse.Namespace, chapter: Chapter, workspace: Workspace) -> Exercise:
    """The exercise that was named, else the first that is not solved, else the last."""
    if not chapter.exercises:
        raise WorkshopError(f"chapter {chapter.number} has no exercises.")
    if options.exercise:
        return chapter.exercise(options.exercise)
    return workspace.next_exercise(chapter) or chapter.exercises[-1]


def parser() -> argparse.ArgumentParser:
    """The command line of the workshop."""
    top = argparse.ArgumentParser(
        prog=ME,
        description="minirt's workshop: fill in a chapter's functions, check them, run the real minirt with them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--workspace", type=_directory, metavar="DIR", help="your files lie there (default: workspace/)")
    route = "only the chapters of a route: evening, day, whole"
    top.add_argument("--route", default="", metavar="NAME", help=route)
    top.set_defaults(do=list_chapters)
    commands = top.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, do: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=(do.__doc__ or text).strip())
        added.set_defaults(do=do)
        return added

    def chapter(to: argparse.ArgumentParser, needed: bool = False) -> None:
        text = "number of the chapter" + ("" if needed else " (default: the one started or checked last)")
        to.add_argument("chapter", type=int, nargs=None if needed else "?", metavar="N", help=text)

    added = command("list", list_chapters, "chapters and your progress")
    added.add_argument("--route", default=argparse.SUPPRESS, metavar="NAME", help=route)
    chapter(command("start", start, "get a chapter with its functions emptied"), needed=True)
    added = command("check", check, "judge what you have written, function by function")
    chapter(added)
    added.add_argument("--details", action="store_true", help="the failing test too, as pytest shows it")
    watching = command("watch", watch, "check again whenever you save, until all is right")
    chapter(watching)
    for each in (added, watching):
        text = "show your name and what you have solved, and nothing else, on the page of this classroom"
        each.add_argument("--join", default="", metavar="URL", help=text)
        each.add_argument("--as", dest="name", default="", metavar="NAME", help="by this name (default: your user's)")
    for added in [
        command("hint", hint, "one hint more"),
        command("solution", solution, "the book's own function"),
        command("reset", reset, "empty a chapter's functions again (yours is kept as FILE.old)"),
    ]:
        added.usage = f"{added.prog} [N] [FUNCTION]"
        text = "chapter and function (default: the chapter and the function that you are at)"
        added.add_argument("where", nargs="*", metavar="N FUNCTION", help=text)
        if added.prog.endswith("solution"):
            text = "put it into your workspace (without FUNCTION: all that are not solved)"
            added.usage += " [--write]"
            added.add_argument("--write", action="store_true", help=text)
    added = command("run", run, "the chapter's container program with your functions, in a cage")
    chapter(added, needed=True)
    added.add_argument("--on-host", action="store_true", help="not in a cage: on this machine itself")
    added.usage = f"{ME} run [--on-host] N [-- ARGS]"
    added.epilog = "What stands after -- goes to container.py: a command, most often."
    command("shell", shell, "a root shell in a cage, as the pages use it")
    added = command("use", use_workspace, "let the real minirt run your functions")
    added.add_argument("chapters", type=int, nargs="*", metavar="N", help="only those of these chapters")
    command("leave", leave, "let the real minirt run its own functions again")
    added = command("serve", serve, "be the classroom: the lesson's registry, and a page with everyone's chapter")
    added.add_argument("--addr", default="127.0.0.1:5000", metavar="HOST:PORT", help="listen there (127.0.0.1:5000)")
    added.add_argument("--root", type=_directory, metavar="DIR", help="keep everything there")
    text = "offer the images of this archive (minirt save, docker save); may be repeated"
    added.add_argument("--image", type=_directory, action="append", default=[], metavar="ARCHIVE", help=text)
    added = command("tree", write_tree, "write the repository as it stands at a chapter")
    chapter(added, needed=True)
    added.add_argument("directory", type=_directory, metavar="DIR", help="a new or empty directory")
    added = command("pages", write_pages, "fill code into the pages")
    added.add_argument("--run", nargs="*", metavar="N|PAGE", help="then run the transcripts (default: of all pages)")
    added = command("clean", clean, "take away what the workshop left on this machine")
    added.add_argument("--answers", action="store_true", help="your workspace too")
    return top


def _place(options: argparse.Namespace, words: Sequence[str]) -> None:
    """Take apart `[N] [FUNCTION]`, either of which may be missing."""
    numbers = [word for word in words if word.isdigit()]
    names = [word for word in words if not word.isdigit()]
    if len(numbers) > 1 or len(names) > 1:
        raise WorkshopError(f"one chapter and one function, not: {' '.join(words)}")
    options.chapter = int(numbers[0]) if numbers else None
    options.exercise = names[0] if names else None


def _directory(text: str) -> Path:
    return Path(text).absolute()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of the workshop. Returns its exit status: 0, 1 not right yet or not possible, 2 usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    rest = words[words.index("--") + 1 :] if "--" in words else []
    options = parser().parse_args(words[: len(words) - len(rest) - 1] if "--" in words else words)
    options.rest = rest
    try:
        if rest and options.do is not run:
            raise WorkshopError(f"only `run` takes something after --: {' '.join(rest)}")
        if hasattr(options, "where"):
            _place(options, options.where)
        return int(options.do(options))
    except (WorkshopError, contents.ContentsError, pages.PageError, skeleton.NoSuchPieceError, tree.TreeError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0

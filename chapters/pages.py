"""Pages: the code pieces in them, the shell transcripts in them, the links in them.

A page never holds a copy of code that somebody keeps up by hand. Between `<!-- code FILE NAME... -->` and
`<!-- /code -->` stands what `python -m chapters pages` wrote there, and a test compares it with the source. The rules
for writers are in CONTRIBUTING.md.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from chapters import contents, skeleton

CODE = re.compile(r"^<!-- code (?P<file>\S+)(?P<names>( \S+)*) -->$")
END = "<!-- /code -->"
SHELL = re.compile(r"^<!-- shell(?P<new> new)?(?: since Linux (?P<since>\d+\.\d+))? -->$")
NOT_RUN = re.compile(r"^<!-- not run: .+ -->$")
FENCE = re.compile(r"^ {0,3}(?P<ticks>`{3,}|~{3,})(?P<info>[^`]*)$")
LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "sh", ".json": "json", ".yml": "yaml", ".yaml": "yaml"}


class PageError(Exception):
    """A marker of a page is wrong; the text begins with file and line."""


def files(root: Path = contents.ROOT) -> list[Path]:
    """Every page: README.md, CONTRIBUTING.md, the chapters' and those beside them."""
    top = [root / "README.md", root / "CONTRIBUTING.md"]
    beside = sorted((root / "chapters").glob("*.md"))
    return [path for path in [*top, *beside, *sorted((root / "chapters").glob("*/README.md"))] if path.exists()]


# -- code --------------------------------------------------------------------------------------------------------


def write(root: Path = contents.ROOT, only: Iterable[Path] = ()) -> list[Path]:
    """Fill in the code pieces of all pages, or of those in `only`. Returns the pages that changed. Raises PageError."""
    changed = []
    for path in only or files(root):
        old = path.read_text()
        new = fill(old, path, root)
        if new != old:
            path.write_text(new)
            changed.append(path)
    return changed


def fill(text: str, path: Path, root: Path = contents.ROOT) -> str:
    """The text of a page with its code pieces as the sources have them now. Raises PageError."""
    exercises = {each.name for chapter in contents.read(root).chapters for each in chapter.exercises}
    filled: list[str] = []
    marker: re.Match[str] | None = None
    for number, line, fenced in lines(text):
        here = f"{path}:{number}"
        if not fenced and (found := CODE.match(line)):
            if marker:
                raise PageError(f"{here}: the marker before this one has no {END}.")
            marker = found
            filled.append(line)
            filled.extend(_pieces(marker["file"], marker["names"].split(), here, root, exercises))
        elif not fenced and line == END:
            if not marker:
                raise PageError(f"{here}: {END} without a marker before it.")
            marker = None
            filled.append(line)
        elif not marker:
            filled.append(line)
    if marker:
        raise PageError(f"{path}: the marker {marker[0]} has no {END}.")
    return "\n".join(filled) + "\n"


def markers(text: str) -> list[re.Match[str]]:
    """The markers of code on a page, with the groups `file` and `names`."""
    return [found for _, line, fenced in lines(text) if not fenced and (found := CODE.match(line))]


def _pieces(file: str, names: list[str], here: str, root: Path, exercises: set[str]) -> list[str]:
    """The lines between two markers."""
    try:
        source = (root / file).read_text()
    except OSError as error:
        raise PageError(f"{here}: cannot read {file} ({error.strerror}).") from error
    language = LANGUAGES.get(Path(file).suffix, "")
    if not names:
        return _fence(language, source)
    if names == ["__doc__"]:
        return _fence("text", skeleton.piece(source, "__doc__"))
    module = file.removesuffix(".py").replace("/", ".")
    shown: list[str] = []
    bodies: list[str] = []
    try:
        for name in names:
            set_here = [each for each in sorted(exercises) if each.startswith(module + ".")]
            if f"{module}.{name}" in exercises:
                shown.append(skeleton.statement(source, name))
                bodies += _details(name, names, source)
                continue
            inside = [each.removeprefix(module + ".") for each in set_here if each.startswith(f"{module}.{name}.")]
            text = source
            for method in inside:
                text = skeleton.replace(text, method, skeleton.statement(text, method) + "    ...\n")
                bodies += _details(method, [], source)
            shown.append(skeleton.piece(text, name))
    except skeleton.NoSuchPieceError as error:
        raise PageError(f"{here}: {file}: {error}.") from error
    glue = "\n\n" if any("\n" in each.rstrip("\n") for each in shown) else ""
    return _fence(language, glue.join(shown)) + bodies


def _details(name: str, names: list[str], source: str) -> list[str]:
    what = "Its body" if len(names) == 1 else f"The body of `{name}`"
    inner = _fence("python", skeleton.answer(source, name))
    return ["", "<details>", f"<summary>{what} (an exercise: try it first)</summary>", "", *inner, "", "</details>"]


def _fence(language: str, text: str) -> list[str]:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return [ticks + language, *text.rstrip("\n").split("\n"), ticks]


# -- shell transcripts -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of a transcript and what it shall print."""

    line: int  # of the page
    text: str  # one or more lines, without prompts
    expected: tuple[str, ...]  # lines; '...' stands for anything


@dataclasses.dataclass(frozen=True)
class Transcript:
    """One fence of commands."""

    line: int
    new: bool  # in a new cage
    commands: tuple[Command, ...]
    since: str = ""  # the kernel that it needs, "6.3"; "" when every one does that we support

    def runs_on(self, release: str) -> bool:
        """Whether a kernel of that `release` ("6.1.0-49-amd64") is new enough."""
        return [int(each) for each in self.since.split(".") if each] <= [int(each) for each in release.split(".")[:2]]


def transcripts(text: str, path: Path) -> list[Transcript]:
    """The executed transcripts of a page, in order. Raises PageError where a `console` fence says nothing of itself."""
    found: list[Transcript] = []
    before = ""
    block: list[tuple[int, str]] | None = None
    kind: re.Match[str] | None = None
    start = 0
    for number, line, fenced in lines(text):
        fence = FENCE.match(line)
        if not fenced and (SHELL.match(before) and (not fence or fence["info"].strip() != "console")):
            raise PageError(f"{path}:{number}: after {before} comes a fence `console`.")
        if not fenced and fence and fence["info"].strip() == "console" and block is None:
            kind = SHELL.match(before)
            if not kind and not NOT_RUN.match(before):
                needs = "needs <!-- shell --> on the line before it (or <!-- not run: WHY -->)"
                raise PageError(f"{path}:{number}: a console fence {needs}.")
            block, start = [], number
        elif block is not None and not fenced:
            if kind:
                found.append(Transcript(start, bool(kind["new"]), _commands(block, path), kind["since"] or ""))
            block = None
        elif block is not None:
            block.append((number, line))
        before = line
    return found


def _commands(block: list[tuple[int, str]], path: Path) -> tuple[Command, ...]:
    prompt = "$ " if block and block[0][1].startswith("$ ") else "# "
    commands: list[Command] = []
    for number, line in block:
        if line.startswith(prompt):
            commands.append(Command(number, line[2:], ()))
        elif not commands:
            raise PageError(f"{path}:{number}: a transcript begins with a command, as `# hostname`.")
        elif line.startswith("> ") or line == ">":
            last = commands[-1]
            if last.expected:
                raise PageError(f"{path}:{number}: a line that continues a command stands before its output.")
            commands[-1] = dataclasses.replace(last, text=last.text + "\n" + line[2:])
        else:
            commands[-1] = dataclasses.replace(commands[-1], expected=(*commands[-1].expected, line.rstrip()))
    return tuple(commands)


# -- links -------------------------------------------------------------------------------------------------------

LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^()\s]+(?:\([^()]*\))?)(?: \"[^\"]*\")?\)")


def broken_links(path: Path, root: Path = contents.ROOT) -> list[str]:
    """A sentence for each link of a page that leads to no file of the repository, or to no heading of it."""
    wrong = []
    for number, line, fenced in lines(path.read_text()):
        if fenced:
            continue
        for link in LINK.finditer(re.sub(r"`[^`]*`", "code", line)):
            target = link["target"]
            if re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            if not there.exists():
                wrong.append(f"{path}:{number}: {target}: there is no such file.")
            elif not there.is_relative_to(root):
                wrong.append(f"{path}:{number}: {target}: outside the repository.")
            elif anchor and there.suffix == ".md" and anchor not in headings(there.read_text()):
                wrong.append(f"{path}:{number}: {target}: {there.name} has no heading #{anchor}.")
    return wrong


def headings(text: str) -> set[str]:
    """The anchors of a page, as a forge makes them out of its headings."""
    anchors: set[str] = set()
    for _, line, fenced in lines(text):
        if not fenced and (found := re.match(r"^#{1,6} +(.+?)\s*#*$", line)):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", found[1]).lower()
            anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            while anchor in anchors:
                anchor += "-1"
            anchors.add(anchor)
    return anchors


def lines(text: str) -> Iterator[tuple[int, str, bool]]:
    """Yield (number, line, whether it lies inside a fence) for each line; a fence's own two lines count as outside."""
    ticks = ""
    for number, line in enumerate(text.split("\n") if not text.endswith("\n") else text[:-1].split("\n"), 1):
        fence = FENCE.match(line)
        if ticks:
            closing = fence and fence["ticks"].startswith(ticks) and not fence["info"].strip()
            if closing:
                ticks = ""
            yield number, line, not closing
        else:
            yield number, line, False
            if fence:
                ticks = fence["ticks"]

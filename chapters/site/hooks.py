"""What MkDocs cannot know by itself: the chapters, their notebooks, and links written for a forge.

The pages in chapters/ are written to be read where they lie. Four things turn them into a site:

* the navigation is made from chapters.toml, open chapters only;
* each notebook of an open chapter is executed and becomes an ordinary page, so that it has the site's
  search, dark mode and link checks;
* a link to a file of the repository becomes a link to a page that shows this file (source/PATH), to the
  reference where the file is a module of an open chapter, or to the executed notebook;
* Markdown that a forge forgives and Python-Markdown does not (a list right below a paragraph, Markdown
  inside <details>) is written out in full.

A link that leads to no file of the repository stays as it is: MkDocs then reports it, and a strict build ends there.
"""

from __future__ import annotations

import base64
import json
import os
import posixpath
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from chapters.notebook import execute  # noqa: E402 (found through the line above)

CHAPTERS = ROOT / "chapters"
NOTEBOOKS = ROOT / "notebooks"
SCRIPTS = ROOT / ".cache" / "site"

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
LINK = re.compile(
    r"(?P<open>!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\()"  # the text, which may hold an image, and the bracket
    r"(?P<target>[^()\s#]+)(?P<anchor>#[^()\s]*)?"
    r"(?P<rest>(?:\s+\"[^\"]*\")?\))"  # a title, and the bracket
)
FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
ITEM = re.compile(r"^(?:[-*+]|\d+\.)\s+\S")
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".json": "json", ".sh": "bash", ".c": "c"}
MAGICS = {"bash": "bash", "sh": "bash", "writefile": "python"}

# Pages beside the chapters, in the order of the navigation; others follow by name.
BESIDE = ("your-machine.md", "teacher.md", "cage.md", "docker-map.md", "differences.md")


# --- the table of contents -----------------------------------------------------------------------------------------


def contents() -> dict[str, Any]:
    """chapters.toml, parsed."""
    return tomllib.loads((CHAPTERS / "chapters.toml").read_text())


def open_chapters() -> list[dict[str, Any]]:
    """The chapters whose status is open and whose page exists, in their order."""
    return [c for c in contents()["chapter"] if c["status"] == "open" and (CHAPTERS / c["slug"] / "README.md").exists()]


def notebook_of(chapter: dict[str, Any]) -> Path | None:
    """The chapter's notebook, or None if it has none."""
    path = NOTEBOOKS / f"{chapter['slug']}.ipynb"
    return path if path.exists() else None


def reference_modules() -> dict[str, list[str]]:
    """Module names that the reference shows, by the heading of their group: open chapters, then the ground floor.

    A module that chapters.toml names and that does not exist yet is left out.
    """
    groups = {f"{c['number']:02d} {c['title']}": [*c["core"], *c["beyond"]] for c in open_chapters()}
    groups["Ground floor"] = contents()["ground"]["modules"]
    present = {title: [m for m in modules if module_file(m)] for title, modules in groups.items()}
    return {title: modules for title, modules in present.items() if modules}


def module_file(module: str) -> Path | None:
    """The file of a module of ours, or None."""
    path = ROOT / (module.replace(".", "/") + ".py")
    return path if path.exists() else None


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the navigation."""
    chapters: list[Any] = []
    for chapter in open_chapters():
        title = f"{chapter['number']:02d} {chapter['title']}"
        pages: list[Any] = [{title: f"{chapter['slug']}/README.md"}]
        if notebook_of(chapter):
            pages.append({"Its notebook, executed": f"notebooks/{chapter['slug']}.md"})
        chapters.append({title: pages})
    beside = [name for name in BESIDE if (CHAPTERS / name).exists() or (name == "differences.md" and differences())]
    beside += sorted(p.name for p in CHAPTERS.glob("*.md") if p.name not in (*BESIDE, "README.md"))
    reference = [{group: [{m: reference_page(m)} for m in modules]} for group, modules in reference_modules().items()]
    config.nav = [{"The book": "README.md"}, *chapters]
    if beside:
        config.nav.append({"Around the book": list(beside)})
    if reference:
        config.nav.append({"Reference": reference})
    return config


# --- pages that are made -------------------------------------------------------------------------------------------


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the executed notebooks, the reference, the shown sources and the scripts; drop pages of planned chapters."""
    shown = {c["slug"] for c in open_chapters()}
    for file in list(files):
        top = file.src_uri.split("/")[0]
        if re.match(r"\d\d-", top) and top not in shown:
            files.remove(file)

    def add(uri: str, content: str | bytes) -> None:
        files.append(File.generated(config, uri, content=content))

    for name in ("mermaid.min.js", "iframe-worker.js"):
        if not (SCRIPTS / name).exists():
            raise PluginError(f"{SCRIPTS / name} is missing: build with `make site`, which fetches it from npm")
        add(f"assets/{name}", (SCRIPTS / name).read_bytes())
    add("assets/minirt.css", (CHAPTERS / "site" / "minirt.css").read_bytes())
    for modules in reference_modules().values():
        for module in modules:
            add(reference_page(module), f"# {module}\n\n::: {module}\n")
    if text := differences():
        add("differences.md", text)
    for chapter in open_chapters():
        if book := notebook_of(chapter):
            add_notebook(book, chapter, add)
    pages = [file for file in files if file.src_uri.endswith(".md")]
    wanted = {source for page in pages for source in linked_sources(page.content_string, page.src_uri)}
    shown_sources: set[str] = set()
    while wanted:
        source = wanted.pop()
        shown_sources.add(source)
        text = source_page(source)
        add(source_uri(source), text)
        if source.endswith(".md"):
            wanted |= linked_sources(text, source_uri(source)) - shown_sources
    return files


def reference_page(module: str) -> str:
    return f"reference/{module}.md"


def source_page(path: str) -> str:
    """A page that shows one file of the repository: a page as a page, anything else with numbered lines."""
    text = (ROOT / path).read_text(errors="replace")
    if path.endswith(".md"):
        return text
    language = LANGUAGES.get(Path(path).suffix, "make" if path == "Makefile" else "text")
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n" + fence(text, f'{{ .{language} linenums="1" }}')


def differences() -> str:
    """What `minirt help differences` says, as a page; empty where the command is not there yet."""
    if not (ROOT / "minirt" / "__main__.py").exists():
        return ""
    done = subprocess.run(
        [sys.executable, "-m", "minirt", "help", "differences"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    if done.returncode or not done.stdout.strip():
        return ""
    return (
        "# Where minirt differs from Docker\n\nThis is what `minirt help differences` prints: every flag of Docker's "
        "that minirt refuses or treats differently, with the reason.\n\n" + fence(done.stdout, "text")
    )


def add_notebook(path: Path, chapter: dict[str, Any], add: Any) -> None:
    """Execute one notebook and add its page and its pictures."""
    book = nbformat.read(path, as_version=4)
    if os.environ.get("MINIRT_SITE_NOTEBOOKS", "execute") == "execute":
        try:
            execute(book)
        except CellExecutionError as error:
            raise PluginError(f"notebooks/{path.name} failed:\n{ANSI.sub('', str(error))}") from error
    pictures: dict[str, bytes] = {}
    text = notebook_to_markdown(book, pictures, path.stem)
    link = f"../chapters/{chapter['slug']}/README.md"
    note = (
        f"> This page is the notebook [`notebooks/{path.name}`]({path.name}) of chapter [{chapter['title']}]({link}), "
        "executed when the site was built.\n\n"
    )
    head, _, body = text.partition("\n")
    text = f"{head}\n\n{note}{body}" if head.startswith("# ") else note + text
    # In the repository a notebook lies beside chapters/, here below it: its links are made to start from here.
    text = text.replace("](../chapters/", "](../")
    add(f"notebooks/{path.stem}.md", text)
    add(f"notebooks/{path.name}", path.read_bytes())
    for name, data in pictures.items():
        add(f"notebooks/{name}", data)


def notebook_to_markdown(book: Any, pictures: dict[str, bytes], stem: str) -> str:
    """A notebook as Markdown; `pictures` receives the images that its cells drew, by file name."""
    out: list[str] = []
    for index, cell in enumerate(book.cells):
        if cell.cell_type == "markdown":
            out.append(cell.source + "\n")
        elif cell.cell_type == "code" and cell.source.strip():
            out.append(code_cell(cell, index, pictures, stem))
    return "\n".join(out)


def code_cell(cell: Any, index: int, pictures: dict[str, bytes], stem: str) -> str:
    language = "python"
    if magic := re.match(r"%%(\w+)([^\n]*)\n", cell.source):
        language = MAGICS.get(magic[1], "bash" if "bash" in magic[2].split() else "python")
    out = [fence(cell.source, f'{{ .{language} title="In [{cell.execution_count or " "}]" }}')]
    text = ""
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            text += output.text
            continue
        if output.output_type == "error":
            text += "\n".join(output.traceback) + "\n"
            continue
        kind = next((k for k in ("image/svg+xml", "image/png") if k in output.data), None)
        if kind:
            data = output.data[kind]
            data = "".join(data) if isinstance(data, list) else data
            name = f"{stem}-{index}-{len(pictures)}.{'png' if kind == 'image/png' else 'svg'}"
            pictures[name] = base64.b64decode(data) if kind == "image/png" else data.encode()
            alt = output.get("metadata", {}).get("alt") or f"drawn by cell {cell.execution_count or index}"
            out.append(f"![{alt}]({name})\n")
        elif "text/markdown" in output.data:
            out.append(output.data["text/markdown"] + "\n")
        else:
            text += output.data.get("text/plain", "") + "\n"
    if text.strip():
        out.append(fence(ANSI.sub("", text), '{ .text title="Out" }'))
    return "\n".join(out)


def fence(text: str, info: str) -> str:
    """Text as a fenced block, behind more backticks than it holds itself."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{ticks}{info}\n{text.rstrip()}\n{ticks}\n"


# --- links ---------------------------------------------------------------------------------------------------------


def repository_path(target: str, page: str) -> str | None:
    """The path in the repository that a link on a page means, or None if it leads elsewhere or to nothing.

    `page` is the page's path in the site's sources, as MkDocs has it ("02-uts/README.md").
    """
    if "://" in target or target.startswith(("mailto:", "/")):
        return None
    base = posixpath.dirname(page.removeprefix("source/") if page.startswith("source/") else f"chapters/{page}")
    path = posixpath.normpath(posixpath.join(base, target))
    return path if not path.startswith("..") and (ROOT / path).exists() else None


def site_path(path: str) -> str:
    """Where the site shows a file of the repository, relative to the site's sources."""
    if (ROOT / path).is_dir():
        return site_path(f"{path}/README.md") if (ROOT / path / "README.md").exists() else path
    if path.startswith("notebooks/") and path.endswith(".ipynb"):
        slug = Path(path).stem
        return f"notebooks/{slug}.md" if any(c["slug"] == slug for c in open_chapters()) else source_uri(path)
    module = path.removesuffix(".py").replace("/", ".")
    if path.endswith(".py") and any(module in modules for modules in reference_modules().values()):
        return reference_page(module)
    if path.startswith("chapters/") and not path.endswith((".py", ".toml")):
        return path.removeprefix("chapters/")
    return source_uri(path)


def source_uri(path: str) -> str:
    """Where the page lies that shows a file (MkDocs leaves out names that begin with a dot)."""
    return "source/" + re.sub(r"(^|/)\.", r"\1dot-", path) + ("" if path.endswith(".md") else ".md")


def linked_sources(text: str, page: str) -> set[str]:
    """Files of the repository that a page links to and that need a page of their own."""
    found = set()
    for match in outside_fences(text):
        path = repository_path(match["target"], page)
        if path and site_path(path).startswith("source/"):
            found.add(path)
    return found


def outside_fences(text: str) -> list[re.Match[str]]:
    return [match for line, prose in lines_of(text) if prose for match in LINK.finditer(line)]


def lines_of(text: str) -> Iterator[tuple[str, bool]]:
    """The lines of a page, each with whether it is prose: neither inside a fenced block nor a fence itself."""
    closing = ""
    for line in text.split("\n"):
        mark = FENCE.match(line)
        yield line, not (closing or mark)
        if not closing and mark:
            closing = mark[1]
        elif closing and mark and mark[1].startswith(closing):
            closing = ""


def resolve(match: re.Match[str], page: str) -> str:
    """One link, written for a forge, as the site needs it."""
    path = repository_path(match["target"], page)
    if path is None:
        return match[0]
    target = site_path(path)
    anchor = match["anchor"] or ""
    if target.startswith("source/"):
        anchor = re.sub(r"^#L(\d+).*", r"#__codelineno-0-\1", anchor)
    elif target.startswith("reference/"):
        anchor = ""
    relative = posixpath.relpath(target, posixpath.dirname(page) or ".")
    return f"{match['open']}{relative}{anchor}{match['rest']}"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links, and write out what a forge forgives."""
    here = page.file.src_uri
    if here.startswith("reference/"):
        return markdown
    out: list[str] = []
    before = ""
    for line, prose in lines_of(markdown):
        if prose:
            line = LINK.sub(lambda match: resolve(match, here), line)
            line = re.sub(r"<details(?![^>]*markdown)", '<details markdown="1"', line)
            if line.startswith("|"):  # a forge needs \| in the code of a table; here the backslash would show
                line = re.sub(r"`[^`]+`", lambda code: code[0].replace("\\|", "|"), line)
            if ITEM.match(line) and before.strip() and not ITEM.match(before) and not before.startswith(" "):
                out.append("")
        out.append(line)
        before = line
    return "\n".join(out)


def on_post_build(config: MkDocsConfig) -> None:
    """Leave a note of what was built: the tests read it."""
    pages = sorted(p.relative_to(config.site_dir).as_posix() for p in Path(config.site_dir).rglob("*.html"))
    (Path(config.site_dir) / "pages.json").write_text(json.dumps(pages))

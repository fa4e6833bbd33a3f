"""The order of the book and the structure of the code are one: chapters.toml says it, the imports obey."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from chapters import contents

TABLE = contents.read()
GROUND, ROOF = set(TABLE.ground), set(TABLE.roof)
SOURCES = sorted((contents.ROOT / "minirt").rglob("*.py"))

# What costs more than a few milliseconds to import, each at every start of a container.
HEAVY = {
    "argparse", "asyncio", "collections", "contextlib", "dataclasses", "datetime", "email", "enum", "functools",
    "hashlib", "http", "importlib", "inspect", "json", "logging", "pathlib", "random", "re", "selectors", "shutil",
    "signal", "socket", "subprocess", "tarfile", "tempfile", "threading", "tomllib", "traceback", "typing", "urllib",
}  # fmt: skip
# Rooms and files that `run`, `exec`, `ps` and `logs` go through.
HOT = (
    "minirt.kernel", "minirt.namespaces", "minirt.process", "minirt.overlay", "minirt.cgroups", "minirt.containers",
    "minirt.errors", "minirt.trace", "minirt.state", "minirt.units", "minirt.events", "minirt.workshop",
    "minirt.__main__", "minirt.cli.main", "minirt.cli.options", "minirt.cli.run", "minirt.cli.exec",
    "minirt.cli.start", "minirt.cli.containers", "minirt.cli.ps", "minirt.cli.logs", "minirt.cli.inspect",
    "minirt.cli.explain", "minirt.cli.differences",
    "minirt.images.lookup", "minirt.images.ready", "minirt.images.reference",
)  # fmt: skip
# What lies in such a room, and only other commands reach.
COLD = {"minirt.containers.processes": "top"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(contents.ROOT).with_suffix("").parts)


MODULES = [module_name(path) for path in SOURCES if path.name != "__init__.py"]


@functools.cache
def imports() -> grimp.ImportGraph:
    sys.path.insert(0, str(contents.ROOT))
    try:
        return grimp.build_graph("minirt", cache_dir=None, exclude_type_checking_imports=True)
    finally:
        sys.path.remove(str(contents.ROOT))


def imported(module: str) -> set[str]:
    """The modules of minirt that a module imports; packages (their __init__ is empty) do not count."""
    return {each for each in imports().find_modules_directly_imported_by(module) if each in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_belongs_to_one_place(module: str) -> None:
    places = [f"chapter {each.number}" for each in TABLE.chapters for name in each.modules if name == module]
    places += ["ground"] * (module in GROUND) + ["roof"] * (module in ROOF)
    assert len(places) == 1, f"chapters.toml gives {module} to {' and '.join(places) or 'nobody'}"


def test_an_open_chapter_has_its_modules() -> None:
    missing = [name for each in TABLE.chapters if each.open for name in each.modules if name not in MODULES]
    assert not missing


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_the_reader_has_seen(module: str) -> None:
    if module in ROOF:
        return
    chapter = TABLE.owner(module)
    allowed = set(GROUND)
    if chapter is not None:
        for each in TABLE.chapters:
            if each.number <= chapter.number:
                allowed |= set(each.modules)
    for name in sorted(imported(module)):
        owner = TABLE.owner(name)
        where = f"chapter {owner.number}" if owner else "the roof" if name in ROOF else "nowhere"
        mine = f"chapter {chapter.number}" if chapter else "the ground floor"
        assert name in allowed, f"{module} ({mine}) imports {name}, which belongs to {where}"


@pytest.mark.parametrize("chapter", TABLE.chapters, ids=lambda each: each.slug)
def test_core_never_imports_beyond(chapter: contents.Chapter) -> None:
    beyond = {name for each in TABLE.chapters for name in each.beyond}
    for module in chapter.core:
        if module in MODULES:
            wrong = imported(module) & beyond
            assert not wrong, f"{module} is core, and imports {', '.join(sorted(wrong))}, which is beyond"


def test_nothing_imports_the_roof() -> None:
    wrong = [f"{module} imports {name}" for module in MODULES if module not in ROOF for name in imported(module) & ROOF]
    assert not wrong


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py"], ids=module_name)
def test_packages_are_empty(path: Path) -> None:
    assert path.read_text() == ""


def test_the_workshops_cage_knows_nothing_of_minirt() -> None:
    for name in ("cage", "finder"):
        tree = ast.parse((contents.ROOT / "chapters" / f"{name}.py").read_text())
        for node in ast.walk(tree):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [each for each in names if each.split(".")[0] == "minirt"], f"chapters/{name}.py:{node.lineno}"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_narrates_knows_its_chapter(module: str) -> None:
    chapter = TABLE.owner(module)
    for node in ast.parse(contents.module_file(module).read_text()).body:
        if isinstance(node, ast.Assign) and [ast.unparse(each) for each in node.targets] == ["CHAPTER"]:
            assert chapter is not None, f"{module} belongs to no chapter"
            assert ast.literal_eval(node.value) == chapter.number


@pytest.mark.parametrize("module", [each for each in MODULES if each.startswith(HOT) and each not in COLD])
def test_the_hot_path_imports_nothing_heavy(module: str) -> None:
    """In an interpreter that has imported nothing by itself (-I -S), as the installed launcher is one."""
    code = (
        f"import sys; sys.path.insert(0, {str(contents.ROOT)!r}); before = set(sys.modules); "
        f"__import__({module!r}); print(*sorted(set(sys.modules) - before), sep='\\n')"
    )
    command = [sys.executable, "-I", "-S", "-B", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heavy = HEAVY & {name.split(".")[0] for name in done.stdout.split()}
    assert not heavy, f"{module} imports {', '.join(sorted(heavy))}"


@pytest.mark.caged
@pytest.mark.limit(60)
@pytest.mark.leaves("an image and a container")
def test_hot_commands_import_nothing_heavy_on_their_way() -> None:
    """The whole way of real commands, monitor and container process included, as `-X importtime` tells it."""
    subprocess.run([sys.executable, "-B", "-m", "minirt.images.hello"], cwd=contents.ROOT, check=True)
    code = f"import sys; sys.path.insert(0, {str(contents.ROOT)!r}); from minirt.__main__ import main; main()"
    for words in [
        ["run", "--rm", "hello-world"],
        ["run", "--name", "box", "--network", "none", "-e", "A=b", "--hostname", "h", "hello-world"],
        ["ps", "-a"],
        ["logs", "box"],
        ["inspect", "box"],
        ["rm", "box"],
    ]:
        command = [sys.executable, "-I", "-S", "-B", "-X", "importtime", "-c", code, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        lines = [line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
        assert "minirt.cli.main" in lines
        heavy = sorted({name for name in lines if name.split(".")[0] in HEAVY})
        assert not heavy, f"minirt {' '.join(words)} imports {', '.join(heavy)}"

"""The rooms are what runs: with any exercise function poisoned, the real command fails.

If a faster path beside a chapter's function ever grew in the runtime, the participant's function would no longer power
`minirt`; then its poison would not be noticed, and this test fails. What only the book runs, since inside a stranger's
container it must not be Python (chapter 03's `init`), runs in the chapter's own container.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from chapters import contents, skeleton
from chapters.contents import Chapter, Exercise
from minirt.cli import main
from minirt.images import blobs, documents
from tests import images

if os.geteuid():
    pytest.skip("needs root", allow_module_level=True)

DEFAULT = ("run", "--rm", "--network", "none", "IMAGE", "true")
WITH_EXERCISES = [each for each in contents.chapters() if each.open and each.exercises]
POISON = "poisoned on purpose"


def whiteouts(path: Path) -> Path:
    """Write an archive whose upper layer removes a file and empties a directory of the lower one."""
    lower = images.layer(
        images.entry("gone", content=b"x"), images.entry("full", tarfile.DIRTYPE), images.entry("full/x", content=b"x")
    )
    upper = images.layer(images.entry(".wh.gone"), images.entry("full/.wh..wh..opq"))
    path.write_bytes(images.docker_archive(lower, upper))
    return path


def of_platforms(path: Path) -> Path:
    """Write an OCI archive whose index leads to another index, with this machine's image in it."""
    files = images.oci_files(images.layer(images.entry("file", content=b"x")))
    top = json.loads(files["index.json"])
    machine = {"platform": {"os": "linux", "architecture": documents.architecture()}}
    content = json.dumps({"schemaVersion": 2, "manifests": [each | machine for each in top["manifests"]]}).encode()
    files[f"blobs/sha256/{images.sha(content)}"] = content
    entry = blobs.descriptor(documents.INDEX_TYPE, content) | {"annotations": {documents.REF_NAME: "many:1"}}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    path.write_bytes(images.members(files))
    return path


def start(mapping: dict[str, str], *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run minirt, or a container.py, with some modules from other files."""
    code = f"import sys; sys.path.insert(0, {str(contents.ROOT)!r})\n"
    code += f"from chapters import finder; finder.install({mapping!r})\n"
    if arguments[0].endswith("/container.py"):
        code += f"del sys.argv[0]; import runpy; runpy.run_path({arguments[0]!r}, run_name='__main__')"
    else:
        code += "from minirt.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-B", "-c", code, *arguments], capture_output=True, text=True, timeout=20, check=False,
        stdin=subprocess.DEVNULL, env=os.environ | environment,
    )  # fmt: skip


def variant(exercise: Exercise, directory: Path, poisoned: bool) -> dict[str, str]:
    """Write the module of an exercise, as it is or with the function raising; return the mapping."""
    source = contents.module_file(exercise.module).read_text()
    if poisoned:
        source = skeleton.skeleton(source, [exercise.function], "x")
        empty = next(line for line in source.splitlines() if "raise NotImplementedError(" in line)
        source = source.replace(empty, empty.partition("raise")[0] + f"raise RuntimeError({POISON!r})")
    file = directory / f"{exercise.name}-{poisoned}.py"
    file.write_text(source)
    return {exercise.module: str(file)}


def there(exercise: Exercise) -> bool:
    """Whether the command that runs the exercise's function exists yet."""
    if exercise.command[:1] == ("container.py",):
        return True
    module = main.MODULES.get((exercise.command or DEFAULT)[0], "")
    return bool(module) and contents.module_file(module).exists()


@pytest.mark.caged
@pytest.mark.limit(120)
@pytest.mark.leaves("the images, and what a poisoned command could not tidy")
@pytest.mark.parametrize("chapter", WITH_EXERCISES, ids=lambda each: each.slug)
def test_the_real_command_runs_each_exercise_function(chapter: Chapter, tmp_path: Path) -> None:
    exercises = [each for each in chapter.exercises if there(each)]
    if any({"IMAGE", "CONTAINER"} & {*(each.command or DEFAULT)} for each in exercises):
        loaded = start({}, "load", "-i", str(images.busybox(tmp_path / "busybox.tar")))
        assert loaded.returncode == 0, loaded.stderr
    if any("CONTAINER" in (each.command or DEFAULT) for each in exercises):
        running = start({}, "run", "-d", "--network", "none", "--name", "walled", "busybox", "sleep", "300")
        assert running.returncode == 0, running.stderr
    places = {"IMAGE": "busybox", "CONTAINER": "walled", "WHITEOUT-ARCHIVE": str(whiteouts(tmp_path / "whiteouts.tar")),
              "OCI-ARCHIVE": str(of_platforms(tmp_path / "platforms.tar")),
              "container.py": str(chapter.container)}
    unharmed = []
    for exercise in exercises:
        words = [places.get(word, word) for word in exercise.command or DEFAULT]
        if words[0] == "load" and "-i" not in words:
            words.insert(1, "-i")
        results = []
        for poisoned in (False, True):
            # A layer is unpacked once in a store, so `load` gets a new one each time.
            root = {"MINIRT_ROOT": str(tmp_path / f"{exercise.name}-{poisoned}")} if words[0] == "load" else {}
            results.append(start(variant(exercise, tmp_path, poisoned), *words, **root))
        control, poison = results
        assert control.returncode not in (1, 125, 126, 127), (
            f"`minirt {' '.join(words)}` fails without any poison: {control.stderr}"
        )
        if poison.returncode == control.returncode:
            unharmed.append(f"{exercise.name}: `minirt {' '.join(words)}` never calls it, or hides its failure")
    assert not unharmed, "\n".join(unharmed)


def test_every_exercise_names_what_runs_it() -> None:
    """A command of minirt that exists, or its chapter's container.py."""
    assert [each.name for chapter in WITH_EXERCISES for each in chapter.exercises if not there(each)] == []

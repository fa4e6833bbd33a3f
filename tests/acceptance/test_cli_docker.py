"""The command line beside Docker's own client: every flag is known or refused with its reason, and the words agree.

Docker's client reads flags, counts arguments and prints help without its daemon, so nothing has to run for this.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minirt.cli import differences, main

ROOT = Path(__file__).resolve().parent.parent.parent
FLAG = re.compile(r"^ {2}(?:-(\w), | {4})--([\w-]+)(?: (\S+))? ")
SAME = ("run", "create", "start", "restart", "attach", "exec", "ps", "logs", "rm", "stop", "kill", "wait", "pause",
        "unpause", "rename", "top", "inspect", "container prune", "container inspect", "load", "images", "rmi", "tag",
        "image inspect")


def docker(*words: str) -> subprocess.CompletedProcess[str]:
    client = shutil.which("docker")
    if client is None:
        pytest.fail("these tests need Docker's client: make test-deps")
    environment = {**os.environ, "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    return subprocess.run([client, *words], capture_output=True, text=True, check=False, env=environment)


def minirt(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "minirt", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def flags(text: str) -> dict[str, tuple[str, str]]:
    """long name -> (short letter, type) from the text of a help."""
    found = {}
    for line in text.splitlines():
        match = FLAG.match(line + " ")
        if match and match[2] != "help":
            found[match[2]] = (match[1] or "", match[3] or "bool")
    return found


@pytest.mark.parametrize("name", SAME)
def test_each_flag_of_docker_is_known_or_refused_with_its_reason(name):
    theirs = flags(docker(*name.split(), "--help").stdout)
    command = main.load(name)
    assert command is not None
    ours = {option.long: option for option in command.options}
    for long, (short, kind) in theirs.items():
        if long in ours:
            assert ours[long].short == short, long
            assert (ours[long].kind == "bool") == (kind == "bool"), long
        else:
            refusal = differences.FLAGS.get(name, {}).get(long)
            assert refusal is not None, f"minirt {name} neither has nor refuses --{long}"
            assert refusal[0] == short, long


@pytest.mark.parametrize("name", SAME)
def test_usage_sentence_and_aliases_agree(name):
    theirs = docker(*name.split(), "--help").stdout
    ours = minirt(*name.split(), "--help").stdout.replace("minirt", "docker")
    assert ours.splitlines()[0] == theirs.splitlines()[0]
    if name != "inspect":  # minirt's knows two kinds of objects and says so
        assert ours.splitlines()[2] == theirs.splitlines()[2]
    found = [re.search(r"Aliases:\n(.*)\n", text) for text in (ours, theirs)]
    lists = [sorted(each[1].strip().split(", ")) if each else [] for each in found]
    assert lists[0] == lists[1]


def test_each_command_of_docker_is_there_or_refused_with_its_reason():
    text = docker("--help").stdout
    names = re.findall(r"^  ([a-z]+) {2,}", text, flags=re.M)
    assert len(names) > 50
    for name in names:
        assert name in main.MODULES or name in main.GROUPS or name in differences.COMMANDS, name


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--nosuch", "x"),
        ("run", "-Z", "x"),
        ("run", "-itZ", "x"),
        ("run", "--name"),
        ("run", "-e"),
        ("run", "-e", "=a", "x"),
        ("run", "--ulimit=a", "x"),
        ("run", "--ulimit", "foo=1", "x"),
        ("run", "--mount=a", "x"),
        ("run", "--shm-size=a", "x"),
        ("ps", "--filter", "foo"),
        ("ps", "x"),
        ("ps", "--format", "{{.ID"),
        ("rm",),
        ("logs", "a", "b"),
        ("rename", "a"),
        ("run",),
        ("nosuch",),
        ("container", "nosuch"),
        ("--nosuch",),
    ],
)
def test_refusals_have_dockers_first_line_and_exit_code(words):
    theirs, ours = docker(*words), minirt(*words)
    assert ours.returncode == theirs.returncode
    first = ours.stderr.splitlines()[0].removeprefix("minirt: ").replace("minirt", "docker")
    expected = theirs.stderr.splitlines()[0].removeprefix("docker: ")
    if "failed to parse template" in expected:
        assert first.startswith("failed to parse template")
    else:
        assert first == expected.replace("template: :1: ", "")


@pytest.mark.parametrize(("kind", "value"), [("stop-timeout", "1.5"), ("oom-score-adj", "x"), ("rm", "maybe")])
def test_a_bad_value_is_refused_alike(kind, value):
    theirs, ours = docker("run", f"--{kind}={value}", "x"), minirt("run", f"--{kind}={value}", "x")
    assert ours.returncode == theirs.returncode == 125
    # Docker names the function of Go's library that could not read it.
    expected = re.sub(r"strconv\.Parse\w+: ", "", theirs.stderr.splitlines()[0])
    assert ours.stderr.splitlines()[0] == f"minirt: {expected}"

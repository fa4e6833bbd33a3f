"""`--format` beside Docker's own client: the same templates, the same engine's answers, the same text.

The engine is played, so the client shows what we give it: first a document with known answers, then what minirt itself
says of a container and of an image.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minirt.cli import format as formats
from minirt.cli import ps, shapes
from minirt.errors import MinirtError
from tests import images, played_engine
from tests.templates import DOCUMENT, REFUSED, SHOWN

ROOT = Path(__file__).resolve().parent.parent.parent
Docker = Callable[..., "subprocess.CompletedProcess[str]"]
CONTAINERS: list[dict[str, Any]] = [
    {"Id": "c0a4bece0772" * 5 + "abcd", "Names": ["/web"], "Image": "busybox", "ImageID": "sha256:" + "5" * 64,
     "Command": "sleep 100", "Created": 1700000000, "Ports": [], "Labels": {"com.example.my-app": "1", "k": "v"},
     "State": "running", "Status": "Up 2 hours", "HostConfig": {"NetworkMode": "none"},
     "NetworkSettings": {"Networks": {"none": {}}}, "Mounts": []},
    {"Id": "4e778734b665" * 5 + "abcd", "Names": ["/a-longer-name"], "Image": "busybox:1.36", "ImageID": "sha256:" +
     "5" * 64, "Command": "sh -c 'exit 3'", "Created": 1700000000, "Ports": [], "Labels": {}, "State": "exited",
     "Status": "Exited (3) 1 hour ago", "HostConfig": {"NetworkMode": "none"},
     "NetworkSettings": {"Networks": {"none": {}}}, "Mounts": []},
]
LISTS = [
    "", "table", "json", "{{json .}}", r"table {{.ID}}\t{{.Names}}", r'table {{.ID}}\t{{.Label "com.example.my-app"}}',
    r"table {{upper .Names}}\t{{lower .Image}} {{title .Status}}", r"table {{pad .Names 1 2}}|{{json .Names}}",
    r'table {{range split .Names "-"}}{{.}}{{end}}\t{{.ID}}', r'table {{join (split .Names "-") ";"}}',
    "tableau {{.ID}}", " json", "{{.Names}}", "  {{.Names}}  ", r"{{.ID}}\t{{.State}}\n--", '{{.Label "k"}}',
    '{{if eq .State "running"}}{{.Names}}{{else}}-{{end}}', '{{printf "%-15s|%5.3s" .Names .ID}}',
    '{{len (split .Labels ",")}}', "{{.Platform}}", "{{println .Names}}", "{{.Names | json | upper}}",
    r"table {{.Mounts}}\t{{.Networks}}\t{{.LocalVolumes}}\t{{.State}}\t{{.Labels}}\t{{.Ports}}\t{{.Platform}}",
    "{{.ID", "table {{.ID", "{{.Label}}", "{{.Labels.k}}", "{{.ID.x}}", "{{nosuch}}", '{{index .Labels "k"}}',
]


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    with played_engine.playing({"/containers/box/json": DOCUMENT, "/containers/json": CONTAINERS}) as client:
        yield client


@pytest.mark.parametrize(("template", "text"), SHOWN)
def test_docker_shows_what_the_table_says(docker: Docker, template: str, text: str) -> None:
    done = docker("inspect", "--type", "container", "--format", template, "box")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{text}\n", "")


@pytest.mark.parametrize(("template", "message", "status"), REFUSED)
def test_docker_refuses_what_the_table_says(docker: Docker, template: str, message: str, status: int) -> None:
    done = docker("inspect", "--type", "container", "--format", template, "box")
    assert (done.returncode, done.stderr) == (status, f"template parsing error: template: {message}\n")


@pytest.mark.parametrize("form", LISTS)
def test_a_list_is_shown_as_docker_shows_it(docker: Docker, form: str) -> None:
    rows = [json.loads(line) for line in docker("ps", "-a", "--format", "json").stdout.splitlines()]
    for row, each in zip(rows, CONTAINERS, strict=True):
        row["Label"] = lambda key, labels=each["Labels"]: labels.get(key, "")
    theirs = docker("ps", "-a", "--format", form)
    try:
        ours = formats.rows(rows, form, table=ps.TABLE, headings=ps.HEADINGS, wrong=ps.WRONG)
        assert (0, ours) == (theirs.returncode, theirs.stdout)
    except MinirtError as error:
        assert (error.exit_code, f"{error}\n") == (theirs.returncode, theirs.stderr)


IDIOMS = [
    "{{.ID}}", "{{.Id}}", "{{.Name}}", "{{json .Config.Env}}", "{{.State.Status}} {{.State.Pid}}", "{{.State}}",
    "{{range .Mounts}}{{.Type}} {{.Source}}:{{.Destination}} {{.RW}};{{end}}", "{{.Mounts}}", "{{json .Mounts}}",
    "{{range .Config.Env}}{{println .}}{{end}}", "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}",
    "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "{{.HostConfig.NetworkMode}}",
    "{{.HostConfig.Memory}} {{.HostConfig.NanoCPUs}} {{.HostConfig.PidsLimit}} {{.HostConfig.CapAdd}}",
    "{{range .NetworkSettings.Networks}}[{{.IPAddress}}]{{end}} {{.NetworkSettings.IPAddress}}",
    "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy}} {{.HostConfig.LogConfig}}",
    "{{.Config.ExposedPorts}} {{.Config.Volumes}} {{.Config.StopSignal}} {{.Config.Healthcheck}}",
    '{{join .Config.Cmd " "}} {{.Config.Entrypoint}} {{index .Config.Cmd 0}}', "{{.NetworkSettings.Ports}}",
    "{{.LogPath}} {{.Image}} {{.Created}} {{.Driver}} {{.RestartCount}}", "{{len .GraphDriver.Data}}", "{{.No}}",
    "{{.RepoTags}} {{index .RepoTags 0}} {{.RepoDigests}}", "{{.Os}}/{{.Architecture}} {{.Variant}}", "{{.RootFS}}",
    "{{len .RootFS.Layers}} {{.Size}} {{.Author}}{{.Comment}}", "{{.Config.Labels}} {{json .RootFS.Layers}}",
]


@pytest.mark.caged
@pytest.mark.limit(120)
@pytest.mark.leaves("the store")
@pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")
def test_what_minirt_describes_is_shown_as_docker_shows_it(tmp_path: Path) -> None:
    def minirt(*words: str) -> str:
        return subprocess.run([sys.executable, "-m", "minirt", *words], cwd=ROOT, check=True,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

    minirt("load", "-q", "-i", str(images.busybox(tmp_path / "busybox.tar")))
    minirt("create", "--name", "box", "-l", "k=v", "-l", "a.b=c", "-e", "A=1", "-v", "/tmp:/mnt:ro", "-m", "64m",
           "--cpus", "1.5", "--tmpfs", "/run", "busybox", "sh", "-c", "exit 3")
    documents = {name: json.loads(minirt("inspect", name))[0] for name in ("box", "busybox")}
    differing = []
    with played_engine.playing({"/containers/box/json": documents["box"],
                                "/images/busybox/json": documents["busybox"]}) as docker:
        for kind, name in (("container", "box"), ("image", "busybox")):
            for template in IDIOMS:
                done = docker("inspect", "--type", kind, "-f", template, name)
                try:
                    ours = shapes.render(formats.parse(template), documents[name]) + "\n"
                except MinirtError as error:
                    ours = f"template parsing error: {error}\n"
                if ours != (done.stderr or done.stdout):
                    differing.append(f"{name} {template}: ours {ours!r}, theirs {done.stdout + done.stderr!r}")
    assert not differing

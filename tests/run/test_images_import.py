"""`import`: a tree of files in one archive becomes an image."""

from __future__ import annotations

import gzip
import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from minirt.errors import BadInputError
from minirt.images import instruction
from tests.images import entry, layer, sha

pytestmark = [pytest.mark.caged, pytest.mark.leaves("the store itself")]

TREE = layer(entry("etc/motd", content=b"hello\n"))


def minirt(*words: str, status: int = 0, stdin: bytes = b"") -> str:
    """Run one command; return its output, or what it complained of where it is to fail."""
    done = subprocess.run([sys.executable, "-m", "minirt", *words], input=stdin, capture_output=True, check=False)
    assert done.returncode == status, done.stderr.decode()
    return (done.stderr if status else done.stdout).decode()


def inspect(name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(minirt("image", "inspect", name))
    return found[0]


def test_an_archive_becomes_an_image_from_a_file_a_pipe_or_compressed(tmp_path: Path) -> None:
    (tmp_path / "tree.tgz").write_bytes(gzip.compress(TREE))
    first = minirt("import", str(tmp_path / "tree.tgz"), "team/tree:1").strip()
    second = minirt("image", "import", "-", stdin=TREE).strip()
    assert inspect("team/tree:1")["Id"] == first and inspect(second)["RepoTags"] == []
    for identifier in (first, second):
        shown = inspect(identifier)
        assert shown["RootFS"]["Layers"] == [f"sha256:{sha(TREE)}"] and shown["Os"] == "linux"
    assert inspect(second)["Comment"] == "Imported from -"


def test_changes_a_message_and_a_platform(tmp_path: Path) -> None:
    minirt("import", "-c", 'CMD ["sleep", "9"]', "--change", "ENV A=1\nUSER app", "-m", "by hand", "--platform",
           "linux/arm/v7", "-", "tree", stdin=TREE)
    shown = inspect("tree")
    assert shown["Config"]["Cmd"] == ["sleep", "9"] and shown["Config"]["User"] == "app"
    assert shown["Config"]["Env"] == ["A=1"] and shown["Comment"] == "by hand"
    assert (shown["Architecture"], shown["Variant"]) == ("arm", "v7")
    assert minirt("history", "--format", "{{.Comment}} {{.Size}}", "tree") == "by hand 6B\n"


def test_an_archive_comes_from_a_web_server() -> None:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/tree.tar" else 404)
            self.end_headers()
            self.wfile.write(TREE)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        minirt("import", f"{address}/tree.tar", "tree")
        assert "the server answers 404" in minirt("import", f"{address}/other", status=1)
        server.shutdown()
    assert inspect("tree")["Comment"] == f"Imported from {address}/tree.tar"
    assert minirt("import", "http://127.0.0.1:1/x", status=1).endswith("http://127.0.0.1:1/x: Connection refused\n")


def test_what_cannot_be_imported_is_told_and_leaves_nothing(tmp_path: Path, state_root: Path) -> None:
    assert minirt("import", "/nowhere", status=1) == "minirt: open /nowhere: no such file or directory\n"
    assert minirt("import", "-", status=1) == "minirt: the archive is empty\n"
    assert "not a tar archive" in minirt("import", "-", status=1, stdin=b"hello" * 300)
    assert "must be lowercase" in minirt("import", "-", "Big", status=1, stdin=TREE)
    assert "FROM is not a valid change command" in minirt("import", "-c", "FROM x", "-", status=1, stdin=TREE)
    assert "operating system windows" in minirt("import", "--platform", "windows", "-", status=1, stdin=TREE)
    assert minirt("images", "-q") == "" and list((state_root / "images/blobs/sha256").glob("*")) == []


@pytest.mark.parametrize(("text", "wanted"), [
    ('CMD ["a", "b"]', {"Cmd": ["a", "b"]}),
    ("cmd echo $HOME", {"Cmd": ["/bin/sh", "-c", "echo $HOME"]}),
    ("ENTRYPOINT run me", {"Entrypoint": ["/bin/sh", "-c", "run me"]}),
    ("ENV OLD=new B='two words' C=d\\ e", {"Env": ["OLD=new", "B=two words", "C=d e"]}),
    ("ENV A the rest of it", {"Env": ["OLD=1", "A=the rest of it"]}),
    ("LABEL a=b c.d=\"e f\"", {"Labels": {"a": "b", "c.d": "e f"}}),
    ("EXPOSE 80 90-91/udp", {"ExposedPorts": {"80/tcp": {}, "90/udp": {}, "91/udp": {}}}),
    ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
    ('VOLUME ["/a b"]', {"Volumes": {"/a b": {}}}),
    ("WORKDIR b/../c", {"WorkingDir": "/w/c"}),
    ("WORKDIR /x", {"WorkingDir": "/x"}),
    ("STOPSIGNAL SIGQUIT", {"StopSignal": "SIGQUIT"}),
    ("ONBUILD RUN x", {"OnBuild": ["RUN x"]}),
    ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
    ("HEALTHCHECK --interval=5s --retries=2 CMD true",
     {"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9, "Retries": 2}}),
])
def test_an_instruction_changes_the_configuration(text: str, wanted: dict[str, Any]) -> None:
    before = {"Env": ["OLD=1"], "WorkingDir": "/w"}
    config = dict(before)
    instruction.apply(config, text)
    assert config == {**before, **wanted}


@pytest.mark.parametrize("text", ["", "CMD", "RUN x", "EXPOSE x", "EXPOSE 70000", "ENV A", "LABEL a=1 b", "ENV A='x",
                                  "HEALTHCHECK --every=5s CMD x", "HEALTHCHECK --interval=x CMD x", "HEALTHCHECK x"])
def test_an_instruction_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInputError):
        instruction.apply({}, text)

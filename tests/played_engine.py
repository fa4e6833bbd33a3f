"""The few answers of a Docker engine that `docker inspect`, `ps` and `images` ask for, on a socket: so Docker's own
client shows what we want it to show, and no engine has to run."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    answers: Mapping[str, Any]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = "/" + self.path.partition("?")[0].lstrip("/").partition("/")[2]  # without the version in front
        known = self.path.startswith("/_ping") or path in self.server.answers
        body = json.dumps(self.server.answers.get(path, {"message": f"No such object: {path}"})).encode()
        self.send_response(200 if known else 404)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(body))),
                            ("Api-Version", "1.47"), ("Ostype", "linux")):
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *_: object) -> None:
        """Nothing is told of a request."""


@contextlib.contextmanager
def playing(answers: Mapping[str, Any]) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Plays an engine that answers, path by path (`/containers/box/json`); gives what runs Docker's client with it."""
    client = shutil.which("docker")
    assert client, "this needs Docker's client: make test-deps"
    with tempfile.TemporaryDirectory(prefix="engine") as place:  # the address of a socket has 108 bytes at most
        server = _Server(f"{place}/socket", _Handler)
        server.answers = answers
        environment = {**os.environ, "DOCKER_HOST": f"unix://{place}/socket", "DOCKER_CONFIG": f"{place}/config"}
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield lambda *words: subprocess.run([client, *words], env=environment, stdin=subprocess.DEVNULL,
                                                capture_output=True, text=True, check=False)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

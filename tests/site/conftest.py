"""A site, built strictly, and a browser that looks at it: headless Chromium, driven over the WebDriver protocol.

The protocol is JSON over HTTP on the loopback interface, so the standard library suffices. The browser can resolve no
name at all: what a page asks of another host fails, and stands in the log of requests that the tests read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PHONE = 400  # pixels

ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",  # the tests run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


class Browser:
    """One window."""

    def __init__(self, port: int, binary: str, profile: Path) -> None:
        self._url = f"http://127.0.0.1:{port}"
        options = {"binary": binary, "args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
        session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._url += f"/session/{session['sessionId']}"

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a piece of JavaScript returns in the page (a promise is waited for)."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, script: str, seconds: float = 15) -> Any:
        """The value of an expression of JavaScript, as soon as it is a true one; fails when it does not become one."""
        end = time.monotonic() + seconds
        while not (value := self.run(f"return {script}")):
            assert time.monotonic() < end, f"the page never came to this: {script}"
            time.sleep(0.05)
        return value

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def width(self, pixels: int) -> None:
        """Be a screen as wide as that."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=pixels, height=800, deviceScaleFactor=1, mobile=pixels < 600
        )

    def scheme(self, name: str) -> None:
        """Be on a system that prefers "light" or "dark"."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def requests(self) -> list[str]:
        """The addresses that pages have asked for since this was called last."""
        log = [
            json.loads(entry["message"])["message"] for entry in self._ask("POST", "/se/log", {"type": "performance"})
        ]
        return [entry["params"]["request"]["url"] for entry in log if entry["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """The errors that pages have written to the browser's console since this was called last."""
        log = self._ask("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def close(self) -> None:
        """End the browser."""
        self._ask("DELETE", "")


@dataclasses.dataclass(frozen=True)
class Site:
    """The built site."""

    directory: Path
    output: str  # what the build said

    @property
    def pages(self) -> list[str]:
        """Every page, as a path below the directory."""
        return [page for page in json.loads((self.directory / "pages.json").read_text()) if page != "404.html"]

    def url(self, page: str) -> str:
        """Its address on this machine's disk: no server is needed."""
        return (self.directory / page).as_uri()


@dataclasses.dataclass(frozen=True)
class Visit:
    """What one page did when it was opened on a telephone."""

    page: str
    requests: list[str]
    complaints: list[str]
    width: int  # of its content, in pixels
    wide: list[str]  # what sticks out
    diagrams: int  # Mermaid texts in the page's file
    drawn: int  # diagrams that stand there, drawn
    undrawn: list[str]  # texts that mermaid refused
    broken_images: list[str]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The site as `make site` builds it. MINIRT_SITE may name one that is built already."""
    if built := os.environ.get("MINIRT_SITE"):
        return Site(Path(built).resolve(), "")
    pytest.importorskip("mkdocs", reason="the site needs the book's packages: make site")
    directory = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, str(ROOT / "chapters" / "site" / "build.py"), "--out", str(directory)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return Site(directory, done.stdout + done.stderr)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium."""
    driver = shutil.which("chromedriver")
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not driver or not binary:
        pytest.skip("no browser: needs chromium and chromium-driver (`make test-deps`)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port)
            window = Browser(port, binary, tmp_path_factory.mktemp("profile"))
            yield window
            window.close()
        finally:
            process.terminate()


def wait_for_port(port: int, seconds: float = 20) -> None:
    """Until somebody listens there."""
    end = time.monotonic() + seconds
    while True:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < end, "chromedriver did not start"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def visits(site: Site, browser: Browser) -> list[Visit]:
    """Every page, opened once on a narrow screen."""
    browser.width(PHONE)
    return [visit(site, browser, page) for page in site.pages]


OVERFLOW = """
const wide = document.documentElement.clientWidth, found = [];
for (const each of document.querySelectorAll(".md-content *")) {
    const box = each.getBoundingClientRect();
    let inside = false;  // of something that scrolls by itself
    for (let above = each.parentElement; above; above = above.parentElement)
        inside ||= ["auto", "scroll", "hidden"].includes(getComputedStyle(above).overflowX);
    if (box.right > wide + 1 && !inside) found.push(each.tagName + ": " + each.textContent.slice(0, 60));
}
return found.slice(0, 5);
"""
BROKEN = "return [...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src)"
DRAWN = '[...document.querySelectorAll("div.mermaid")].filter(each => each.getBoundingClientRect().height > 20).length'
REFUSED = """
return (async () => {
    const refused = [];
    for (const text of arguments[0])
        await mermaid.parse(text).catch(error => refused.push(text + "\\n" + error.message));
    return refused;
})()
"""


def visit(site: Site, browser: Browser, page: str) -> Visit:
    """Open a page, let its diagrams be drawn, and look."""
    import html

    source = (site.directory / page).read_text()
    texts = [html.unescape(text) for text in re.findall(r'<pre class="mermaid"><code>(.*?)</code></pre>', source, re.S)]
    browser.requests()
    browser.complaints()
    browser.open(site.url(page))
    if texts:
        end = time.monotonic() + 10
        while browser.run(f"return {DRAWN}") < len(texts) and time.monotonic() < end:
            time.sleep(0.05)
    return Visit(
        page=page,
        width=browser.run("return document.documentElement.scrollWidth"),
        wide=browser.run(OVERFLOW),
        diagrams=len(texts),
        drawn=browser.run(f"return {DRAWN}"),
        undrawn=browser.run(REFUSED, texts) if texts else [],
        broken_images=browser.run(BROKEN),
        requests=browser.requests(),
        complaints=browser.complaints(),
    )

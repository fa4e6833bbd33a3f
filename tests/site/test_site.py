"""The book's site works with no network, on a telephone, in the dark, and shows what it says."""

from __future__ import annotations

import functools
import http.server
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from chapters import contents

OPEN = [each for each in contents.chapters() if each.open]
PHONE = 400  # pixels


def test_no_page_asks_another_host(visits: list[Any]) -> None:
    asked = {
        visit.page: [url for url in visit.requests if not url.startswith(("file:", "data:", "blob:"))]
        for visit in visits
    }
    assert {page: urls for page, urls in asked.items() if urls} == {}


def test_no_page_complains(visits: list[Any]) -> None:
    assert {visit.page: visit.complaints for visit in visits if visit.complaints} == {}


def test_every_diagram_is_drawn(visits: list[Any]) -> None:
    assert sum(visit.diagrams for visit in visits) >= 3
    assert {visit.page: visit.undrawn for visit in visits if visit.undrawn} == {}
    wrong = {visit.page: f"{visit.drawn} of {visit.diagrams}" for visit in visits if visit.drawn != visit.diagrams}
    assert wrong == {}


def test_every_picture_is_there(visits: list[Any]) -> None:
    assert {visit.page: visit.broken_images for visit in visits if visit.broken_images} == {}


def test_every_page_fits_a_telephone(visits: list[Any]) -> None:
    assert {visit.page: (visit.width, visit.wide) for visit in visits if visit.width > PHONE or visit.wide} == {}


def test_the_navigation_is_the_table_of_contents(site: Any) -> None:
    front = (site.directory / "index.html").read_text()
    navigation = front[front.index("md-nav--primary") : front.index("md-content")]
    chapters = list(dict.fromkeys(re.findall(r'href="(\d\d-[a-z-]+)/index\.html"', navigation)))
    assert chapters == [each.slug for each in OPEN]
    notebooks = list(dict.fromkeys(re.findall(r'href="notebooks/(\d\d-[a-z-]+)\.html"', navigation)))
    assert notebooks == [each.slug for each in OPEN if each.notebook.exists()]


def test_notebooks_are_shown_executed(site: Any) -> None:
    for each in OPEN:
        if each.notebook.exists():
            page = (site.directory / "notebooks" / f"{each.slug}.html").read_text()
            assert ">Out<" in page, f"{each.slug}: no output"
            assert re.search(rf'<img [^>]*src="{each.slug}-[^"]+\.(svg|png)"', page), f"{each.slug}: no picture"


def test_the_reference_shows_each_open_chapter_s_modules(site: Any) -> None:
    for each in OPEN:
        for module in each.modules:
            source = contents.module_file(module)
            if source.exists() and re.search(r"^def [a-z]|^class [A-Z]", source.read_text(), re.MULTILINE):
                page = (site.directory / "reference" / f"{module}.html").read_text()
                assert f'id="{module}' in page, f"{module}: nothing is shown"


def test_the_map_names_every_command_that_docker_has_and_minirt_not_yet(site: Any) -> None:
    from minirt.cli import differences

    page = (contents.ROOT / "chapters" / "docker-map.md").read_text()
    missing = [name for name in differences.COMMANDS if not re.search(rf"\b{name}\b", page)]
    assert missing == []


def test_a_page_written_for_a_forge_is_right_here_too(site: Any) -> None:
    page = (site.directory / "00-what-is-a-container" / "index.html").read_text()
    assert "<code>ls / | wc -l</code>" in page, "a bar in the code of a table"
    assert re.search(r"<details>\s*<summary>.*?</summary>\s*<p>", page, re.S), "Markdown in details"
    assert 'href="../source/chapters/00-what-is-a-container/measure.py.html"' in page, "a link to a file"
    assert "\n- " not in page.split("<article")[1], "a list right below a paragraph"


@pytest.fixture(params=["file", "http"])
def address(request: pytest.FixtureRequest, site: Any) -> Iterator[str]:
    """The site's front page, from the disk and from a server."""
    if request.param == "file":
        yield site.url("index.html")
        return
    handler = functools.partial(Quiet, directory=str(site.directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize(("words", "page"), [("nsenter", "00-what-is-a-container"), ("whiteout", "09-overlayfs")])
def test_search_finds(address: str, words: str, page: str, browser: Any) -> None:
    browser.width(1200)
    browser.open(address)
    browser.run('document.querySelector("#__search").click(); document.querySelector(".md-search__input").focus()')
    browser.run(
        'const input = document.querySelector(".md-search__input"); input.value = arguments[0];'
        'for (const name of ["input", "keyup"]) input.dispatchEvent(new Event(name, {bubbles: true}))',
        words,
    )
    found = 'JSON.stringify([...document.querySelectorAll(".md-search-result__link")].map(each => each.href))'
    browser.until(f"JSON.parse({found}).length > 0")
    assert [link for link in json.loads(browser.run(f"return {found}")) if page in link]


CONTRAST = """
const light = text => {
    const [red, green, blue] = text.match(/[\\d.]+/g).map(Number).slice(0, 3)
        .map(value => value / 255).map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const body = light(getComputedStyle(document.body).backgroundColor);
const ink = light(getComputedStyle(document.querySelector(".md-typeset p")).color);
return [body, (Math.max(body, ink) + 0.05) / (Math.min(body, ink) + 0.05)];
"""


@pytest.mark.parametrize(("scheme", "name"), [("light", "default"), ("dark", "slate")])
def test_the_page_is_light_or_dark_as_the_system_is(scheme: str, name: str, site: Any, browser: Any) -> None:
    browser.scheme(scheme)
    browser.open(site.url("00-what-is-a-container/index.html"))
    browser.until(f'document.body.getAttribute("data-md-color-scheme") === "{name}"')
    background, contrast = browser.run(CONTRAST)
    assert (background > 0.5) == (scheme == "light")
    assert contrast >= 4.5, "the text is hard to read (WCAG asks for 4.5 to 1)"

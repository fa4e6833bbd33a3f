"""The pages beside the chapters keep up with the chapters and the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from chapters import contents

MAP = contents.ROOT / "chapters" / "docker-map.md"


def front_page() -> ModuleType:
    """chapters/site/front_page.py."""
    path = contents.ROOT / "chapters" / "site" / "front_page.py"
    spec = importlib.util.spec_from_file_location("front_page", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_front_page_and_the_map_link_the_chapters_that_are_open() -> None:
    module = front_page()
    for path, fill in ((module.PAGE, module.fill), (module.MAP, module.fill_map)):
        text = path.read_text()
        assert fill(text) == text, "write it anew: python chapters/site/front_page.py"


def test_the_map_links_what_is_built() -> None:
    text = MAP.read_text()
    rooms = re.findall(r"(?<!\[)`([a-z_]+(?:/[a-z_0-9]+)*\.py)`", text)
    there = [room for room in rooms if Path(contents.ROOT, "minirt", room).exists()]
    assert there == [], "these rooms are built: link them, as [overlay.py](../minirt/overlay.py)"


def test_the_map_names_every_command() -> None:
    from minirt.cli import differences, main

    text = MAP.read_text()
    for name in (*main.MODULES, *differences.COMMANDS):
        assert re.search(rf"\b{name.split()[-1]}\b", text), f"docker {name} is not on the map"

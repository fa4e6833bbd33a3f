"""Link the chapters that are open, from chapters.toml: in the book's front page and in the map of Docker's features.

    python chapters/site/front_page.py

A test fails when a page differs: whoever opens a chapter runs this.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

CHAPTERS = Path(__file__).resolve().parents[1]
PAGE, MAP = CHAPTERS / "README.md", CHAPTERS / "docker-map.md"
BEGIN, END = "<!-- the way -->", "<!-- /the way -->"

# What a reader can run at the end of each chapter.
ENDS = {
    0: "`ps`, `lsns`, `nsenter`: a container seen from outside",
    1: "fork, exec, wait, and the kernel called by number",
    2: "a process with a host name of its own",
    3: "PID 1, and what is expected of it",
    4: "a root of its own, with `/proc` and `/dev`",
    5: "shared memory that nobody else sees",
    6: "interfaces, a cable, an address",
    7: "root without being root",
    8: "limits for memory, CPU, processes",
    9: "layers, and a container that changes none of them",
    10: "root with most of its power removed",
    11: "a filter for system calls, assembled by hand",
    12: "one process behind every wall",
    13: "an image store that other tools can read",
    14: "pull and push, and a registry of your own",
    15: "containers that talk to each other, published ports",
    16: "data that outlives its container",
    17: "`minirt run`, `ps`, `logs`, `stop`, `rm`: the whole life",
    18: "a Dockerfile turned into an image",
    19: "several containers as one application",
    20: "the real `docker` client, driving minirt",
    21: "Podman and Kubernetes, running minirt",
}


def rows() -> list[dict[str, Any]]:
    """The chapters, as chapters.toml has them."""
    return list(tomllib.loads((CHAPTERS / "chapters.toml").read_text())["chapter"])


def linked(row: dict[str, Any], words: str) -> str:
    """Words that lead to a chapter's page, where the chapter is open and the page there."""
    page = f"{row['slug']}/README.md"
    return f"[{words}]({page})" if row["status"] == "open" and (CHAPTERS / page).exists() else words


def table() -> str:
    """The table of the chapters."""
    lines = ["| | chapter | builds on | at its end you can run |", "|---|---|---|---|"]
    for row in rows():
        before = ", ".join(f"{number:02d}" for number in row["builds_on"])
        lines.append(f"| {row['number']:02d} | {linked(row, row['title'])} | {before} | {ENDS[row['number']]} |")
    return "\n".join(lines)


def fill(text: str) -> str:
    """The text of the front page with its table as it should be."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


def fill_map(text: str) -> str:
    """The text of the map with its chapters linked as they should be: the cells that hold a number and a name."""
    chapters = {f"{row['number']:02d}": row for row in rows()}

    def cell(found: re.Match[str]) -> str:
        return f"| {linked(chapters[found[1]], found[1] + ' ' + found[2])} "

    return re.sub(r"\| \[?(\d\d) ([^|\[\],]+?)(?:\]\([^)]*\))? (?=\|)", cell, text)


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text()))
    MAP.write_text(fill_map(MAP.read_text()))

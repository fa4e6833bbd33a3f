"""Write the table of chapters into the book's front page, chapters/README.md, from chapters.toml.

    python chapters/site/front_page.py

A test fails when the table differs: whoever opens a chapter runs this.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

CHAPTERS = Path(__file__).resolve().parents[1]
PAGE = CHAPTERS / "README.md"
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


def table() -> str:
    """The table of the chapters; a chapter that is open is a link."""
    lines = ["| | chapter | builds on | at its end you can run |", "|---|---|---|---|"]
    for row in tomllib.loads((CHAPTERS / "chapters.toml").read_text())["chapter"]:
        title = f"[{row['title']}]({row['slug']}/README.md)" if row["status"] == "open" else row["title"]
        before = ", ".join(f"{number:02d}" for number in row["builds_on"])
        lines.append(f"| {row['number']:02d} | {title} | {before} | {ENDS[row['number']]} |")
    return "\n".join(lines)


def fill(text: str) -> str:
    """The text of the front page with its table as it should be."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text()))

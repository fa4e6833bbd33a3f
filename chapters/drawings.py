"""Pictures for the notebooks, drawn from what the kernel says at this moment.

Every picture has two halves. One reads: it runs where the thing is, often in a cage, and returns plain lists and
dictionaries, so that `%%cage --out NAME` can hand them to the notebook. The other draws: it turns such data into SVG
and touches nothing.

    processes()      -> namespace_map(...)   which process stands in which namespaces (/proc/PID/ns)
    mounts()         -> mount_tree(...)      what is mounted below what (/proc/PID/mountinfo)
    layer(directory) -> layer_stack(...)     what each layer of an overlay holds, whiteouts included
    images(layout)   -> shared_layers(...)   which images of a store share which layers

It imports nothing from minirt: the pictures must be right also while a participant's code is not.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

NAMESPACES = ("mnt", "pid", "uts", "ipc", "net", "user", "cgroup")

INK, FAINT, PAPER, LINE = "#1f2d36", "#5b6b75", "#fbfcfc", "#b9c4ca"
# Colours that are told apart by most eyes, also printed in grey beside the text that each box carries.
COLOURS = ("#d5e8f3", "#fbe0b8", "#d3ecd2", "#f3d1d6", "#e3d8f0", "#f7f0b5", "#cfeae8", "#ead9c8", "#dfe3e6")
KINDS = {"file": "#d3ecd2", "directory": "#d5e8f3", "link": "#e3d8f0", "whiteout": "#f3d1d6", "opaque": "#fbe0b8"}
LETTER = 7.3  # width of one letter of the 12 px monospace type, in pixels


class Drawing:
    """A finished picture: shows itself in a notebook, and `str()` of it is the SVG text."""

    def __init__(self, width: float, height: float, parts: Iterable[str], title: str) -> None:
        body = "".join(parts)
        self.title = title
        self.svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" role="img" font-family="ui-monospace, DejaVu Sans Mono, monospace" font-size="12">'
            f"<title>{escape(title)}</title>"
            f'<rect width="100%" height="100%" rx="6" fill="{PAPER}"/>{body}</svg>'
        )

    def __str__(self) -> str:
        return self.svg

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        return {"image/svg+xml": self.svg, "text/plain": self.title}, {"alt": self.title}


def _text(x: float, y: float, words: str, colour: str = INK, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-weight="{weight}">{escape(words)}</text>'


def _box(x: float, y: float, width: float, height: float, fill: str) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} rx="4" fill="{fill}" stroke="{LINE}"/>'


# --- which process is in which namespaces ----------------------------------------------------------------------------


def processes(pids: Iterable[int] | None = None) -> list[dict[str, Any]]:
    """Processes and their namespaces, read from /proc.

    pids: which ones (default: every process that /proc shows and that we may look at). Returns rows
    `{"pid": 7, "parent": 1, "name": "sh", "pids": [7, 1], "namespaces": {"uts": 4026531838, ...}}` in the order of the
    pids; "pids" are its numbers from our pid namespace inwards (NSpid in proc_pid_status(5)). Kernel threads and
    processes that ended meanwhile are left out.
    """
    rows = []
    for pid in sorted(pids if pids is not None else (int(name) for name in os.listdir("/proc") if name.isdigit())):
        try:
            inodes = {name: os.stat(f"/proc/{pid}/ns/{name}").st_ino for name in NAMESPACES}
            with open(f"/proc/{pid}/status") as file:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        except OSError:
            continue
        if "VmSize" in fields:  # a kernel thread has no memory of its own
            numbers = [int(number) for number in fields["NSpid"].split()]
            row = {"pid": pid, "parent": int(fields["PPid"]), "name": fields["Name"]}
            rows.append({**row, "pids": numbers, "namespaces": inodes})
    return rows


def namespace_map(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = NAMESPACES[:5]) -> Drawing:
    """Draw one line for each process and one box for each of its namespaces; boxes of one colour are one namespace.

    rows: what processes() returned, from one place or several put together; a "label" in a row replaces its name.
    names: the kinds of namespaces to draw. The four digits in a box are the end of the namespace's number.
    """
    labels = [str(row.get("label") or f"{row['pid']} {row['name']}") for row in rows]
    left = 16 + LETTER * max((len(label) for label in labels), default=8)
    parts = [_text(left + 66 * column + 8, 22, name, FAINT) for column, name in enumerate(names)]
    for line, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = 34 + 30 * line
        parts.append(_text(10, top + 16, label))
        for column, name in enumerate(names):
            seen = list(dict.fromkeys(other["namespaces"][name] for other in rows))
            inode = row["namespaces"][name]
            parts.append(_box(left + 66 * column, top, 60, 22, COLOURS[seen.index(inode) % len(COLOURS)]))
            parts.append(_text(left + 66 * column + 14, top + 15, f"{inode % 10000:04d}"))
    return Drawing(left + 66 * len(names) + 6, 44 + 30 * len(rows), parts, "which process is in which namespaces")


# --- what is mounted below what -------------------------------------------------------------------------------------


def mounts(pid: int | str = "self") -> list[dict[str, Any]]:
    """The mounts that a process sees, from /proc/PID/mountinfo (proc_pid_mountinfo(5)), in its order.

    Returns rows `{"id": 29, "parent": 1, "point": "/", "root": "/", "type": "ext4", "source": "/dev/vda1",
    "options": "rw,relatime", "propagation": "shared:1"}`; propagation is "private" where the kernel names no peer.
    """
    rows = []
    with open(f"/proc/{pid}/mountinfo") as file:
        for line in file:
            front, _, back = line.rstrip("\n").partition(" - ")
            number, parent, _, root, point, options, *tags = front.split(" ")
            kind, source, *_ = back.split(" ")
            row = {"id": int(number), "parent": int(parent), "root": _unescape(root), "point": _unescape(point)}
            row |= {"type": kind, "source": _unescape(source), "options": options}
            rows.append({**row, "propagation": " ".join(tags) or "private"})
    return rows


def _unescape(field: str) -> str:
    """mountinfo writes a space, a tab, a newline and a backslash as \\040 and so on."""
    for code, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, sign)
    return field


def mount_tree(rows: Sequence[Mapping[str, Any]], below: str = "/") -> Drawing:
    """Draw mounts as a tree: a mount stands below the one that carries its mount point.

    rows: what mounts() returned. below: draw only this mount point and what lies under it. A box's colour tells the
    propagation: blue private, orange shared (an event here is repeated at its peers), green slave (events come in).
    """
    wanted = [r for r in rows if (r["point"] + "/").startswith(below.rstrip("/") + "/")]
    numbers = {row["id"] for row in wanted}
    children: dict[int, list[Mapping[str, Any]]] = {}
    for row in wanted:
        children.setdefault(
            row["parent"] if row["parent"] in numbers and row["parent"] != row["id"] else -1, []
        ).append(row)

    parts: list[str] = []
    width, line = 200.0, 0

    def draw(row: Mapping[str, Any], depth: int, above: int) -> None:
        nonlocal width, line
        x, y = 10 + 24 * depth, 12 + 30 * line
        line += 1
        words = f"{row['point']}  {row['type']}" + ("  ro" if "ro" in row["options"].split(",") else "")
        shared, slave = "shared:" in row["propagation"], "master:" in row["propagation"]
        size = LETTER * len(words) + 16
        if depth:
            parts.append(f'<path d="M{x - 14} {above}V{y + 11}H{x}" fill="none" stroke="{LINE}"/>')
        parts.append(_box(x, y, size, 22, COLOURS[1] if shared else COLOURS[2] if slave else COLOURS[0]))
        parts.append(_text(x + 8, y + 15, words))
        tags = "" if row["propagation"] == "private" else row["propagation"]
        parts.append(_text(x + size + 8, y + 15, tags, FAINT))
        width = max(width, x + size + LETTER * len(tags) + 20)
        for child in children.get(row["id"], ()):
            draw(child, depth + 1, y + 22)

    for row in children.get(-1, ()):
        draw(row, 0, 0)
    return Drawing(width, 18 + 30 * line, parts, "what is mounted below what")


# --- what each layer holds --------------------------------------------------------------------------------------------


def layer(directory: str) -> dict[str, str]:
    """What a directory that serves as a layer holds: path below it -> kind.

    The kinds are "file", "directory", "link", "whiteout" (a character device 0:0: the name is gone from here upwards)
    and "opaque" (a directory that hides the one below: the attribute trusted.overlay.opaque). Sorted by path.
    """
    found: dict[str, str] = {}
    for top, directories, files in os.walk(directory):
        for name in sorted(directories + files):
            path = os.path.join(top, name)
            found[os.path.relpath(path, directory)] = _kind(path)
    return dict(sorted(found.items()))


def _kind(path: str) -> str:
    status = os.lstat(path)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return "whiteout"
    if stat.S_ISLNK(status.st_mode):
        return "link"
    if stat.S_ISDIR(status.st_mode):
        try:
            marks = [os.getxattr(path, name) for name in os.listxattr(path) if name.endswith("overlay.opaque")]
        except OSError:
            marks = []
        return "opaque" if b"y" in marks else "directory"
    return "file"


def layer_stack(layers: Sequence[tuple[str, Mapping[str, str]]]) -> Drawing:
    """Draw layers one above the other and, under each path, which layer is seen.

    layers: (name, what layer() returned), the topmost first; the drawing keeps that order. A path is a column; looking
    down from above, the first box that is met is what the merged directory shows: it has a thick frame, unless it is a
    whiteout.
    """
    paths = sorted({path for _, held in layers for path in held})
    left = 22 + LETTER * max((len(name) for name, _ in layers), default=5)
    widths = [max(LETTER * len(path), LETTER * 9) + 20 for path in paths]
    starts = [left + sum(widths[:column]) for column in range(len(paths))]
    right = left + sum(widths)
    parts = [_text(start + 4, 22, path, FAINT) for start, path in zip(starts, paths, strict=True)]
    for line, (name, held) in enumerate(layers):
        y = 34 + 32 * line
        parts.append(f'<line x1="6" x2="{right:.0f}" y1="{y + 27}" y2="{y + 27}" stroke="{LINE}"/>')
        parts.append(_text(10, y + 16, name))
        for column, path in enumerate(paths):
            if path not in held:
                continue
            above = [upper for _, upper in layers[:line]]
            seen = held[path] != "whiteout" and not any(_hides(upper, path) for upper in above)
            box = _box(starts[column], y, widths[column] - 8, 22, KINDS[held[path]])
            parts.append(box.replace(f'stroke="{LINE}"', f'stroke="{INK}" stroke-width="2"') if seen else box)
            parts.append(_text(starts[column] + 6, y + 15, held[path], INK if seen else FAINT))
    return Drawing(right + 4, 42 + 32 * len(layers), parts, "what each layer holds, and which of it is seen")


def _hides(upper: Mapping[str, str], path: str) -> bool:
    """Whether a layer hides a path of the layers below it."""
    if upper.get(path) in ("file", "link", "whiteout", "opaque", "directory"):
        return True
    parents = [path[:index] for index, sign in enumerate(path) if sign == "/"]
    return any(upper.get(parent) in ("file", "link", "whiteout", "opaque") for parent in parents)


# --- which images share which layers ---------------------------------------------------------------------------------


def images(layout: str) -> list[dict[str, Any]]:
    """The images of an OCI image layout (a directory), as its index.json lists them.

    Returns rows `{"name": "tool:latest", "layers": [{"digest": "sha256:...", "size": 2191872}, ...]}`, the lowest layer
    first; the name is the last part of the annotation that names an image, or the beginning of the manifest's digest.
    """
    rows = []
    for entry in _document(layout, "index.json")["manifests"]:
        digest = entry["digest"]
        manifest = _document(layout, f"blobs/{digest.replace(':', '/')}")
        name = (entry.get("annotations") or {}).get("org.opencontainers.image.ref.name", digest[7:19])
        layers = [{"digest": each["digest"], "size": each["size"]} for each in manifest["layers"]]
        rows.append({"name": name.rpartition("/")[2], "layers": layers})
    return rows


def _document(layout: str, path: str) -> dict[str, Any]:
    with open(f"{layout}/{path}") as file:
        return dict(json.load(file))


def shared_layers(rows: Sequence[Mapping[str, Any]]) -> Drawing:
    """Draw each image as a stack of its layers, the lowest at the bottom; boxes of one colour are one blob.

    rows: what images() returned. A box tells the beginning of the layer's digest and its size; a layer that more than
    one image has is stored once, and has a thick frame. Below stands what all of it takes, with sharing and without.
    """
    known = list(dict.fromkeys(each["digest"] for row in rows for each in row["layers"]))
    holders = {digest: sum(digest in [each["digest"] for each in row["layers"]] for row in rows) for digest in known}
    sizes = {each["digest"]: each["size"] for row in rows for each in row["layers"]}
    deepest = max((len(row["layers"]) for row in rows), default=0)
    ground = 14 + 30 * deepest
    parts = []
    for column, row in enumerate(rows):
        x = 12 + 196 * column
        for place, each in enumerate(row["layers"]):
            y = ground - 30 * (place + 1)
            box = _box(x, y, 184, 26, COLOURS[known.index(each["digest"]) % len(COLOURS)])
            shared = holders[each["digest"]] > 1
            parts.append(box.replace(f'stroke="{LINE}"', f'stroke="{INK}" stroke-width="2"') if shared else box)
            parts.append(_text(x + 8, y + 17, f"{each['digest'][7:15]}  {_size(each['size'])}"))
        parts.append(_text(x + 4, ground + 16, str(row["name"]), INK, "bold"))
    apart = sum(each["size"] for row in rows for each in row["layers"])
    words = f"stored once: {_size(sum(sizes.values()))}; each for itself: {_size(apart)}"
    parts.append(_text(16, ground + 40, words, FAINT))
    width = max(20 + 196 * len(rows), 32 + LETTER * len(words))
    return Drawing(width, ground + 52, parts, "which images share which layers")


def _size(number: int) -> str:
    """Bytes for people: 1536 -> "1.54 kB", as Docker counts (thousands)."""
    for power, unit in enumerate(("B", "kB", "MB")):
        if number < 1000 ** (power + 1):
            return f"{number / 1000**power:.3g} {unit}"
    return f"{number / 1000**3:.3g} GB"

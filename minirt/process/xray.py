"""Chapter 12: an X-ray of a process: which walls stand around it, by what the kernel itself says in /proc.

`look` reads, `as_text` and `as_svg` show. Nothing is taken from minirt's own records: it works for any process, one of
Docker's or a service of the machine's, and says the truth also about a container whose walls were built wrong.

Manual pages: proc(5), namespaces(7), capabilities(7), cgroups(7).
"""

from __future__ import annotations

import os

from minirt import capabilities
from minirt.state import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# kind -> (chapter, what it separates)
NAMESPACES = {
    "uts": (2, "host name"), "pid": (3, "processes"), "mnt": (4, "mounts"), "ipc": (5, "shared memory"),
    "net": (6, "interfaces"), "user": (7, "users"), "cgroup": (8, "view of cgroups"),
}
# file of a cgroup v2 directory, file of a v1 one, what it says
LIMITS = (
    ("memory.max", "memory/memory.limit_in_bytes", "memory"), ("pids.max", "pids/pids.max", "processes"),
    ("cpu.max", "cpu/cpu.cfs_quota_us", "CPU time"),
)
MODES = {"0": "none", "1": "strict", "2": "filter"}
UNLIMITED = {"max", "-1", "9223372036854771712"}


def look(pid: int) -> dict[str, Any]:
    """What stands around process `pid`, compared with the process that asks.

    Returns {"pid", "inside" (its number within, 0 when it has no own), "command", "namespaces": {kind: {"own": bool,
    "chapter", "what"}}, "mounts": [{"point", "type", "options"}], "capabilities": {set: [names]}, "seccomp",
    "no_new_privileges", "limits": {what: text}, "cgroup", "uid_map"}. Raises OSError when the process is gone.
    """
    status = dict(line.split(":\t", 1) for line in _read(pid, "status").splitlines() if ":\t" in line)
    numbers = status.get("NSpid", str(pid)).split()
    return {
        "pid": pid,
        "inside": int(numbers[-1]) if len(numbers) > 1 else 0,
        "command": _read(pid, "cmdline").replace("\0", " ").strip() or status["Name"],
        "namespaces": {kind: {"own": _link(pid, kind) != _link("self", kind), "chapter": chapter, "what": what}
                       for kind, (chapter, what) in NAMESPACES.items()},
        "mounts": _mounts(pid),
        "capabilities": {name: capabilities.names_of(bits) for name, bits in capabilities.read(pid).items()},
        "seccomp": MODES.get(status.get("Seccomp", "0"), status.get("Seccomp")),
        "no_new_privileges": status.get("NoNewPrivs") == "1",
        "limits": _limits(pid),
        "cgroup": _read(pid, "cgroup").splitlines(),
        "uid_map": [line.split() for line in _read(pid, "uid_map").splitlines()],
    }


def _read(pid: int | str, name: str) -> str:
    return read_file(f"/proc/{pid}/{name}").decode("utf-8", "replace")


def _link(pid: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def _mounts(pid: int) -> list[dict[str, str]]:
    found = []
    for line in _read(pid, "mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        found.append({"point": left.split()[4], "type": right.split()[0], "options": left.split()[5]})
    return found


def _limits(pid: int) -> dict[str, str]:
    """The limits of its control group that are set, by what they limit; and of open files, which are its own."""
    found: dict[str, str] = {}
    groups: dict[str, str] = {}
    for line in _read(pid, "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        groups |= {name: path for name in controllers.split(",")}
    for new, old, what in LIMITS:
        controller, _, name = old.partition("/")
        for path in (f"/sys/fs/cgroup{groups.get('', '/')}/{new}",
                     f"/sys/fs/cgroup/{controller}{groups.get(controller, '/')}/{name}"):
            try:
                value = read_file(path).decode().split()[0]
            except (OSError, IndexError):
                continue
            if value not in UNLIMITED:
                found[what] = value
            break
    for line in _read(pid, "limits").splitlines():
        if line.startswith("Max open files"):
            found["open files"] = " to ".join(line.split()[3:5])
    return found


def as_text(seen: dict[str, Any]) -> str:
    """What `look` saw, for a terminal: a wall that stands has a filled square before it, one that does not an empty."""
    inside = f", number {seen['inside']} within" if seen["inside"] else ""
    lines = [f"process {seen['pid']}{inside}: {seen['command']}", ""]
    for kind, entry in seen["namespaces"].items():
        sign, state = ("■", "its own") if entry["own"] else ("□", "the machine's")
        lines.append(f" {sign} {kind:7} {state:14} {entry['what']} (chapter {entry['chapter']:02})")
    for name in ("effective", "bounding"):
        has = seen["capabilities"][name]
        sign = "■" if len(has) < capabilities.known().bit_length() else "□"
        lines.append(f" {sign} {name:11} {len(has):2} capabilities: {_folded(has)} (chapter 10)")
    lines.append(f" {'■' if seen['seccomp'] != 'none' else '□'} system call filter: {seen['seccomp']} (chapter 11)")
    lines.append(f" {'■' if seen['no_new_privileges'] else '□'} no new privileges: "
                 f"{'promised' if seen['no_new_privileges'] else 'not promised'} (chapter 10)")
    limits = ", ".join(f"{what} {value}" for what, value in seen["limits"].items()) or "none"
    lines += [f" {'■' if len(seen['limits']) > 1 else '□'} limits: {limits} (chapter 08)", "", " mounts:"]
    for mount in seen["mounts"]:
        only = "read-only" if "ro" in mount["options"].split(",") else ""
        lines.append(f"   {mount['point']:34} {mount['type']:9} {only}".rstrip())
    return "\n".join(lines) + "\n"


def _folded(names: list[str]) -> str:
    return " ".join(names) if len(names) <= 16 else f"{' '.join(names[:3])} ... {names[-1]}"


def as_svg(seen: dict[str, Any]) -> str:
    """The same as a picture: the machine outside, and around the process one ring for each wall that stands."""
    walls = [f"{kind} namespace: {entry['what']}" for kind, entry in seen["namespaces"].items() if entry["own"]]
    if len(seen["capabilities"]["bounding"]) < capabilities.known().bit_length():
        walls.append(f"{len(seen['capabilities']['effective'])} capabilities of {capabilities.known().bit_length()}")
    walls += ["system call filter"] if seen["seccomp"] != "none" else []
    walls += ["no new privileges"] if seen["no_new_privileges"] else []
    open_ = [f"{kind} ({entry['what']})" for kind, entry in seen["namespaces"].items() if not entry["own"]]
    step, width = 26, 640
    height = 36 + (step + 10) * len(walls) + 104
    parts = [_box(4, 4, width - 8, height - 8, "#ffffff"), _text(16, 24, "the machine", "bold"),
             _text(16, height - 16, "shared with it: " + (", ".join(open_) or "nothing"))]
    for place, wall in enumerate(walls):
        x, y = 16 + 10 * place, 36 + step * place
        fill = ("#eaf3f8", "#f7f1e3")[place % 2]
        parts += [_box(x, y, width - 2 * x, height - 42 - 10 * place - y, fill), _text(x + 10, y + 17, wall)]
    x, y = 16 + 10 * len(walls), 36 + step * len(walls)
    inside = f"number {seen['inside']} in there, {seen['pid']} out here" if seen["inside"] else f"number {seen['pid']}"
    parts += [_box(x + 10, y, width - 2 * x - 20, 52, "#d3ecd2"), _text(x + 22, y + 21, seen["command"][:48], "bold"),
              _text(x + 22, y + 40, f"{inside}; {len(seen['mounts'])} mounts")]
    title = f"the walls around process {seen['pid']}"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" font-family="ui-monospace, DejaVu Sans Mono, monospace" font-size="12">'
            f'<title>{title}</title>{"".join(parts)}</svg>\n')


def _box(x: int, y: int, width: int, height: int, fill: str) -> str:
    return (f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="#5b6b75"/>')


def _text(x: int, y: int, words: str, weight: str = "normal") -> str:
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        words = words.replace(sign, name)
    return f'<text x="{x}" y="{y}" font-weight="{weight}" fill="#1f2d36">{words}</text>'

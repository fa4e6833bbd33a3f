"""Chapter 12, beyond: the same container with shell tools: a specification told as a script.

What the rooms of the book do by system calls, `unshare`, `mount`, `ip`, `mknod`, `echo` and `setpriv` can do as well,
if not as safely. `script` writes it down, step by step in the order of `launch`, each with its chapter; what no tool
can do stands there as a comment that says so.

One thing takes a trick. The last tools (umount, setpriv, env) are the machine's, and must run when the root is the
container's and the machine's files are gone. So they and their libraries are copied into a directory, which is the
working directory while the root is exchanged: a mount that is detached stays usable for whoever is in it. There the
dynamic loader runs each by a relative path; the last of them, env, leaves the directory and becomes the command.

Manual pages: unshare(1), nsenter(1), mount(8), pivot_root(8), setpriv(1), prlimit(1), env(1), ld.so(8).
"""

from __future__ import annotations

import os

from minirt import capabilities, overlay
from minirt.cgroups import devices, tree, v1, v2
from minirt.kernel import mount
from minirt.namespaces import mnt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from minirt.process.users import User

FLAGS = {"uts": (2, "--uts", "its own host name"), "ipc": (5, "--ipc", "its own shared memory and queues"),
         "network": (6, "--net", "its own interfaces"), "cgroup": (8, "--cgroup", "its own group is the root"),
         "mount": (4, "--mount", "its own mounts, which do not spread")}
FILES = {"network": "net", "mount": "mnt"}  # of /proc/PID/ns, where they are called otherwise
UNLIMITED = 2**64 - 1


class Script:
    """The lines so far."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, chapter: int, sentence: str, *lines: str) -> None:
        """A step: its chapter and what it does, then its lines."""
        self.lines += ["", *wrapped(f"chapter {chapter:02}: {sentence}"), *lines]

    def __str__(self) -> str:
        return "\n".join(self.lines) + "\n"


def quoted(text: str) -> str:
    """A word of the shell that means `text`, whatever is in it."""
    safe = text and not text.strip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+@%")
    return text if safe else "'" + text.replace("'", "'\\''") + "'"


def wrapped(text: str, columns: int = 98) -> list[str]:
    """A sentence as lines of comment, whatever is in it."""
    lines = ["#"]
    for part in text.splitlines():
        for word in part.split(" "):
            if len(lines[-1]) + len(word) >= columns:
                lines.append("#  ")
            lines[-1] += " " + word
        lines.append("#  ")
    return lines[:-1]


def script(spec: Mapping[str, Any], user: User, places: Mapping[str, str], files: Mapping[str, bytes],
           title: str, store: str, interactive: bool = False) -> str:
    """The script of the container that `spec` describes (see `minirt.process.spec`).

    `user`: who its user is by its own files; `places`: where in its root each path of `spec` really is, links
    followed; `files`: contents of sources of bind mounts that exist for this container only; `title`: the command that
    it stands for; `store`: a directory on whose file system it may write; `interactive`: whether the container reads
    standard input.
    """
    outside, inside = Script(), Script()
    begin(outside, spec, title, store)
    join = groups(outside, spec["linux"])
    tools(outside)
    for number, content in enumerate(files.values()):
        outside.lines += here_document(f'"$work/file{number}"', content)
    inside.lines += ["set -eu", 'root=$work/root']
    names(inside, spec)
    root(inside, spec, places, {name: f"file{number}" for number, name in enumerate(files)})
    settings_and_masks(inside, spec)
    last_steps(inside, spec, user, places)
    outside.say(12, "the steps inside the namespaces, for the shell that goes there")
    outside.lines += here_document('"$work/inside"', os.fsencode(str(inside)))
    enter(outside, spec, join, interactive)
    return str(outside)


def here_document(path: str, content: bytes) -> list[str]:
    """Lines that write `content`, whose last line must be whole, into a file."""
    lines = content.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n")
    end = "END OF FILE"
    while end in lines:
        end += "!"
    return ["", f"cat > {path} <<'{end}'", *lines, end]


def begin(out: Script, spec: Mapping[str, Any], title: str, store: str) -> None:
    """Head, directories and the trap."""
    out.lines += ["#!/bin/sh", *wrapped(title), "#",
                  "# The same container with shell tools (util-linux, coreutils, iproute2). Run it as root. It ends",
                  "# with the exit code of the command, and takes away what it made.", "set -eu", "umask 022"]
    out.say(9, "a directory for what the container writes; it goes at the end",
            f"work=$(mktemp -d {quoted(store)}/script.XXXXXX)", "export work", 'groups=',
            "clean() {", "    code=$?", "    trap - EXIT", "    for group in $groups; do rmdir \"$group\" || :; done",
            '    rm -rf "$work"', '    exit "$code"', "}", "trap clean EXIT", "trap 'exit 129' HUP",
            "trap 'exit 130' INT", "trap 'exit 143' TERM",
            'mkdir "$work/root" "$work/upper" "$work/work" "$work/tools"')
    linux, process = spec["linux"], spec["process"]
    if linux.get("uidMappings"):
        out.say(7, "SHELL CANNOT: a user namespace over layers that are id-mapped to it (mount_setattr(2)); in this "
                   "script the container's root is the machine's")
    if process.get("terminal"):
        out.say(12, "SHELL CANNOT: a terminal of the container's own, and its /dev/console; it gets yours")
    if process.get("init"):
        out.say(3, "SHELL CANNOT: an init of 270 bytes that forwards signals and reaps; the command is number 1 itself")


def groups(out: Script, linux: Mapping[str, Any]) -> list[str]:
    """Control groups and their limits; returns the lines by which a process joins."""
    parent = os.path.dirname(linux.get("cgroupsPath") or "").strip("/") or tree.PARENT
    group = tree.group(parent)
    resources = linux.get("resources") or {}
    wanted: dict[str, list[tuple[str, str]]] = {}  # tree -> files
    ours = v2.words(f"{group.top}/cgroup.controllers") if group.version == 2 else []
    for file, text in v2.settings(resources):
        if file.partition(".")[0] in ours:
            wanted.setdefault("", []).append((file, text))
    for controller, file, text in v1.settings(resources):
        if ("io" if controller == "blkio" else controller) not in ours and controller in group.trees:
            wanted.setdefault(controller, []).append((file, text))
    rules = devices.merged(resources.get("devices") or ())
    guarded = bool(rules) and not devices.everything(rules)
    if guarded and "devices" in group.trees:
        wanted["devices"] = []
    join = []
    if group.version == 2:
        out.say(8, "a control group", *made(group.trees[""], parent, ours))
        join.append('echo 0 > "$group/cgroup.procs"')
    if guarded and "devices" not in group.trees:
        out.say(8, "SHELL CANNOT: the list of devices that it may open is a program for the kernel (bpf(2)): here it "
                   "may open every one for which it has or makes a node")
    for file, text in wanted.get("", ()):
        out.say(8, f"a limit, {file}", f'echo {quoted(text)} > "$group/{file}"')
    for controller, settings in wanted.items():
        if controller:
            out.say(8, f"a limit, in the tree of version 1 for {controller}",
                    *made(group.trees[controller], parent, (), controller),
                    *(f'echo {quoted(text)} > "${controller}/{file}"' for file, text in settings))
            join.append(f'echo 0 > "${controller}/tasks"')
    if "devices" in wanted:
        out.say(8, "the devices that it may open; what this shell may not, it cannot be allowed either",
                *(f'echo {quoted(device(rule))} > "$devices/devices.deny"' for rule in rules if not rule["allow"]),
                f"for rule in {' '.join(quoted(device(rule)) for rule in rules if rule['allow'])}; do",
                '    echo "$rule" 2> /dev/null > "$devices/devices.allow" || :', "done")
    return join


def made(top: str, parent: str, controllers: Iterable[str], name: str = "group") -> list[str]:
    """Lines that make a group of the container's in the group `parent` of the tree at `top`, and call it `name`. Each
    level hands its controllers (version 2) down to the next; a new cpuset is empty, and gets what its parent has."""
    handed = " ".join(f"+{each}" for each in sorted(set(controllers) & set(v2.CONTROLLERS)))
    lines, path = [], top
    for part in parent.split("/"):
        above, path = path, f"{path}/{part}"
        lines += [f"echo '{handed}' > {quoted(above)}/cgroup.subtree_control"] * bool(handed)
        lines.append(f"mkdir -p {quoted(path)}")
        if name == "cpuset":
            lines += [f'[ "$(cat {quoted(path)}/{file})" ] || cat {quoted(above)}/{file} > {quoted(path)}/{file}'
                      for file in ("cpuset.cpus", "cpuset.mems")]
    last = quoted(path)
    lines += [f"echo '{handed}' > {last}/cgroup.subtree_control"] * bool(handed)
    lines += [f"{name}={last}/script-$$", f'groups="${name} $groups"', f'mkdir "${name}"', f"export {name}"]
    if name == "cpuset":
        lines += [f'cat {last}/{file} > "$cpuset/{file}"' for file in ("cpuset.cpus", "cpuset.mems")]
    return lines


def device(rule: Mapping[str, Any]) -> str:
    """A rule of the device list, as the controller of version 1 reads it."""
    if rule.get("type", "a") == "a":
        return "a"
    numbers = ":".join("*" if rule.get(part, -1) in (-1, None) else str(rule[part]) for part in ("major", "minor"))
    return f"{rule['type']} {numbers} {rule.get('access') or 'rwm'}"


def tools(out: Script) -> None:
    """Take along what runs when the machine's files are gone."""
    out.say(4, "the last tools, with their libraries: they run when the machine's files are out of reach",
            'for tool in umount setpriv env; do cp "$(command -v "$tool")" "$work/tools"; done',
            'cp $(ldd "$work"/tools/* | grep -v ":$" | grep -o "/[^ ]*" | sort -u) "$work/tools"')


def enter(out: Script, spec: Mapping[str, Any], join: list[str], interactive: bool) -> None:
    """The namespaces: the pid namespace first, since it begins with a birth; the control group is joined before the
    cgroup namespace is made."""
    namespaces = {entry["type"]: entry.get("path", "") for entry in spec["linux"]["namespaces"]}
    new = [kind for kind in FLAGS if kind in namespaces and not namespaces[kind]]
    words = ["exec"]
    entered = [f"--{FILES.get(kind, kind)}={quoted(path)}" for kind, path in namespaces.items() if path]
    if entered:
        words += ["nsenter", *entered]
    words += ["unshare", *(FLAGS[kind][1] for kind in new), 'sh "$work/inside"']
    for kind in new:
        out.say(FLAGS[kind][0], f"{FLAGS[kind][1]}: {FLAGS[kind][2]}")
    if entered:
        out.say(12, "nsenter: the namespaces of another container")
    first = "unshare --pid --fork --kill-child " if namespaces.get("pid") == "" else ""
    out.say(3, "--pid: its own processes; the first is born into it" if first else "no pid namespace of its own")
    if join:
        out.say(8, "the process moves itself (0) into its groups")
    steps = "; ".join([*join, " ".join(words)])
    out.lines.append(f"{first}sh -c '{steps}'{'' if interactive else ' < /dev/null'} || exit")


def names(out: Script, spec: Mapping[str, Any]) -> None:
    """Host name, loopback, the score for the OOM killer."""
    new = {entry["type"] for entry in spec["linux"]["namespaces"] if "path" not in entry}
    if "uts" in new and spec.get("hostname"):
        out.say(2, "its host name", f"hostname {quoted(spec['hostname'])}")
        if spec.get("domainname"):
            out.lines.append(f"domainname {quoted(spec['domainname'])}")
    if "network" in new:
        out.say(6, "switch the loopback interface on", "ip link set lo up")
    score = spec["process"].get("oomScoreAdj")
    if score is not None:
        out.say(12, "how readily it is killed when memory runs out", f"echo {score} > /proc/self/oom_score_adj")


def split(options: Iterable[str]) -> tuple[list[str], list[str]]:
    """The words of a mount without "ro", and those that are attributes of the mount itself."""
    words = [word for word in options if word != "ro"]
    return words, [word for word in words if word in mount.ATTRIBUTES]


def root(out: Script, spec: Mapping[str, Any], places: Mapping[str, str], files: Mapping[str, str]) -> None:
    """The overlay, and everything that is mounted in it."""
    layers = spec["root"].get("overlay")
    if layers:
        words = overlay.options(layers["lower"], "$work/upper", "$work/work")
        out.say(9, "the image's layers under a directory that takes the changes", f"cd {quoted(layers['layers'])}",
                f'mount -t overlay -o "{words}" overlay "$root"', "cd /")
    else:
        out.say(4, "a root must be a mount", f'mount --rbind {quoted(spec["root"]["path"])} "$root"')
    for entry in spec["mounts"]:
        where = f'"$root"{quoted(places[entry["destination"]])}'
        if entry["type"] == "bind":
            bind(out, entry, where, files)
        elif entry["type"] == "cgroup":
            show_groups(out, spec, entry, where)
        elif entry["type"] == "shm":
            out.say(5, "the other container's /dev/shm belongs here: no shell tool clones it out of its namespace",
                    f"mkdir -p {where}")
        else:
            chapter = 5 if entry["destination"] in ("/dev/shm", "/dev/mqueue") else 4
            out.say(chapter, entry["destination"], f"mkdir -p {where}", *filesystem(entry, where))
        if entry["destination"] == "/dev" and entry["type"] != "bind":
            nodes(out, spec["linux"].get("devices", ()), where)


def filesystem(entry: Mapping[str, Any], where: str) -> list[str]:
    """Lines that mount what an entry of "mounts" asks for. "ro" is said afterwards: of the mount, not of the file
    system, which another mount may show as well."""
    words, attributes = split(entry.get("options", ()))
    chosen = f" -o {quoted(','.join(words))}" if words else ""
    lines = [f"mount -t {entry['type']}{chosen} {quoted(entry.get('source') or entry['type'])} {where}"]
    if "ro" in entry.get("options", ()):
        lines.append(f"mount -o {','.join(['remount', 'bind', 'ro', *attributes])} {where}")
    return lines


def bind(out: Script, entry: Mapping[str, Any], where: str, files: Mapping[str, str]) -> None:
    """A bind mount; a source that exists for this container only is a file of the script's."""
    words = [word for word in entry.get("options", ()) if word not in ("bind", "rbind")]
    spread = [word for word in words if word.removeprefix("r") in mount.PROPAGATION] or ["rprivate"]
    attributes = [word for word in words if word not in spread]
    source = quoted(entry["source"])
    lines = []
    if entry["source"] in files:
        source = f'"$work/{files[entry["source"]]}"'
        is_directory = False
    else:
        is_directory = os.path.isdir(entry["source"]) or not os.path.lexists(entry["source"])
        if not os.path.lexists(entry["source"]):
            lines.append(f"mkdir -p {source}")
    if is_directory:
        lines.append(f"mkdir -p {where}")
    else:
        lines += [f'mkdir -p "$(dirname {where})"', f"[ -e {where} ] || : > {where}"]
    lines.append(f"mount --{'rbind' if 'rbind' in entry.get('options', ()) else 'bind'} {source} {where}")
    if attributes:
        lines.append(f"mount -o {','.join(['remount', 'bind', *attributes])} {where}")
    if spread != ["rprivate"]:
        lines.append(f"# SHELL CANNOT: {spread[0]}, since a mount namespace of unshare(1) begins cut off")
    out.say(4, f"{entry['destination']} from outside", *lines)


def show_groups(out: Script, spec: Mapping[str, Any], entry: Mapping[str, Any], where: str) -> None:
    """The container's own control groups, as its cgroup namespace sees them: each tree in which it has limits."""
    group = tree.group(tree.PARENT)
    ours = v2.words(f"{group.top}/cgroup.controllers") if group.version == 2 else []
    used = {controller for controller, _, _ in v1.settings(spec["linux"].get("resources") or {})
            if ("io" if controller == "blkio" else controller) not in ours and controller in group.trees}
    trees: dict[str, list[str]] = {}
    for controller, point in group.trees.items():
        if controller in used:
            trees.setdefault(point, []).append(controller)
    kinds: list[tuple[str, list[str], str]] = [("cgroup2", [], "unified")] if group.version == 2 else []
    kinds += [("cgroup", each, ",".join(each)) for each in trees.values()]
    lines = [f"mkdir -p {where}"]
    if [kind for kind, _, _ in kinds] == ["cgroup2"]:
        lines += filesystem({**entry, "type": "cgroup2"}, where)
    elif kinds:
        words, attributes = split(entry["options"])
        lines += filesystem({"type": "tmpfs", "source": "cgroup", "options": [*words, "mode=755"]}, where)
        for kind, more, name in kinds:
            each = {"type": kind, "source": "cgroup", "options": [*entry["options"], *more]}
            lines += [f"mkdir {where}/{name}", *filesystem(each, f"{where}/{name}")]
        if "ro" in entry["options"]:
            lines.append(f"mount -o {','.join(['remount', 'bind', 'ro', *attributes])} {where}")
    else:
        return
    out.say(8, "its own control groups, to look at", *lines)


def nodes(out: Script, extra: Iterable[Mapping[str, Any]], where: str) -> None:
    """What is in /dev."""
    lines = []
    for path, kind, major, minor, mode in mnt.DEVICES:
        lines.append(f"mknod -m {mode:o} {where}/{path.removeprefix('/dev/')} {kind} {major} {minor}")
    for each in extra:
        place = f'"$root"{quoted(each["path"])}'
        lines += [f"if ! [ -e {place} ]; then", f'    mkdir -p "$(dirname {place})"',
                  f"    mknod -m {each.get('fileMode', 0o666):o} {place} {each.get('type', 'c')} {each['major']} "
                  f"{each['minor']}", f"    chown {each.get('uid', 0)}:{each.get('gid', 0)} {place}", "fi"]
    lines += [f"ln -s {target} {where}/{name}" for name, target in mnt.LINKS]
    out.say(4, "the device nodes and links of /dev", *lines)


def settings_and_masks(out: Script, spec: Mapping[str, Any]) -> None:
    """The kernel's settings, masks, read-only paths, and the root itself."""
    linux = spec["linux"]
    for name, value in (linux.get("sysctl") or {}).items():
        out.say(6, f"the setting {name} of its namespaces",
                f'echo {quoted(value)} > "$root"/proc/sys/{quoted(name.replace(".", "/"))}')
    masked, shown = list(linux.get("maskedPaths", ())), list(linux.get("readonlyPaths", ()))
    if masked:
        out.say(4, "hide what tells of the machine: an empty directory over a directory, /dev/null over a file",
                f"for path in {' '.join(quoted(path) for path in masked)}; do",
                '    if [ -d "$root$path" ]; then',
                '        mount -t tmpfs -o nosuid,nodev,noexec,nr_blocks=1 tmpfs "$root$path"',
                '        mount -o remount,bind,ro,nosuid,nodev,noexec "$root$path"',
                '    elif [ -e "$root$path" ]; then', '        mount --bind /dev/null "$root$path"', "    fi", "done")
    if shown:
        below = max((entry for entry in spec["mounts"] if shown[0].startswith(entry["destination"] + "/")),
                    key=lambda entry: len(entry["destination"]), default={"options": ()})
        words = ",".join(["remount", "bind", "ro", *split(below.get("options", ()))[1]])
        out.say(4, "what belongs to the machine may be read only",
                f"for path in {' '.join(quoted(path) for path in shown)}; do",
                '    [ -e "$root$path" ] || continue', '    mount --rbind "$root$path" "$root$path"',
                f'    mount -o {words} "$root$path"', "done")


def last_steps(out: Script, spec: Mapping[str, Any], user: User, places: Mapping[str, str]) -> None:
    """From the exchange of the root to the command."""
    process = spec["process"]
    where = process.get("cwd") or "/"
    out.say(12, "its working directory", f'mkdir -p "$root"{quoted(places[where])}')
    attributes = [word for word, field in (("ro", "readonly"), ("nodev", "nodev")) if spec["root"].get(field)]
    if attributes:
        out.say(4, "the root itself", f'mount -o {",".join(["remount", "bind", *attributes])} "$root"')
    limits = [f"--{limit['type'].removeprefix('RLIMIT_').lower()}={_limit(limit['soft'])}:{_limit(limit['hard'])}"
              for limit in process.get("rlimits") or ()]
    if limits:
        out.say(12, "the older limits, of each process", f"prlimit --pid $$ {' '.join(limits)}")
    out.say(4, "exchange the root; the old one lies over it then, and is detached by a tool that came along",
            'cd "$work/tools"', "run=$(echo ./ld-*)", 'pivot_root "$root" "$root"',
            '"$run" --library-path . ./umount -l /')
    words = [f"--reuid={user.uid}", f"--regid={user.gid}", f"--groups={','.join(map(str, user.groups))}"]
    out.say(12, f"the user is {user.uid}:{user.gid}, by the image's own /etc/passwd and /etc/group")
    granted = process.get("capabilities")
    if granted is not None:
        names = [name.removeprefix("CAP_").lower() for name in granted["bounding"]]
        bounding = ",".join(["-all", *(f"+{name}" for name in names)])
        words += ["--inh-caps=-all"]
        if set(granted["bounding"]) != set(capabilities.everything()):
            words.append(f"--bounding-set={bounding}")
        out.say(10, "the capabilities that its root may have")
    if process.get("noNewPrivileges"):
        words.append("--no-new-privs")
        out.say(10, "--no-new-privs: no program gives more of them")
    if spec["linux"].get("seccomp"):
        out.say(11, "SHELL CANNOT: the filter of system calls, a program for the kernel (seccomp(2))")
    out.say(12, "SHELL CANNOT: the exec through a sealed memfd, and the other precautions against a hostile image: in "
                "here the machine's own programs run in the container's reach. Run it with images that you trust.")
    env = list(process["env"])
    if not any(word.startswith("HOME=") for word in env):
        env.append(f"HOME={user.home}")
    out.say(12, "become the command, with its environment, in its directory",
            'exec "$run" --library-path . ./setpriv ' + " ".join(words) + " \\",
            f'    "$run" --library-path . ./env -i -C {quoted(where)} \\',
            *(f"    {quoted(word)} \\" for word in env),
            "    " + " ".join(quoted(word) for word in process["args"]))


def _limit(value: int) -> str:
    return "unlimited" if value in (UNLIMITED, -1) else str(value)

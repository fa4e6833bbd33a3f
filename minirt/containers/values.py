"""Chapter 17: values of options that have a small grammar of their own: environment, labels, limits, devices, modes.

Each function reads one value or raises ValueError with the reason, in Docker's words; files are read by those that
say so.

Sources: Docker's documentation of `run`; setrlimit(2); environ(7).
"""

from __future__ import annotations

import os
import stat

from minirt import state, units
from minirt.errors import MinirtError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

LIMITS = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
LOG_OPTIONS: dict[str, tuple[str, ...]] = {  # of each driver
    "json-file": ("max-size", "max-file", "labels", "env"), "local": ("max-size", "max-file"), "none": ()}
UNLIMITED = 2**64 - 1  # RLIM_INFINITY of <sys/resource.h>


def variable(text: str) -> str:
    """`-e NAME=VALUE` or `-e NAME`, which takes the value of the caller's environment."""
    if not text or text.startswith("="):
        raise ValueError(f"invalid environment variable: {text}")
    return text


def environment(files: Iterable[str], variables: Iterable[str], ours: Mapping[str, str]) -> list[str]:
    """What `--env-file` and `-e` say together, files first: `NAME=VALUE` each, the last of a name counts.

    A bare NAME takes its value from `ours`, the caller's environment. Where that has none, a file's is left out, and
    that of `-e` stays bare: it takes the variable away. Raises MinirtError for a file that cannot be read or has a bad
    line.
    """
    lines = []
    for path in files:
        for line in _lines(path):
            name = line.partition("=")[0]
            if not name:
                raise MinirtError(f"invalid env file ({path}): no variable name on line '{line}'")
            if " " in name or "\t" in name:
                raise MinirtError(f"invalid env file ({path}): variable '{name}' contains whitespaces")
            lines.append(line)
    found = [text for text in lines if "=" in text or text in ours] + list(variables)
    return [f"{text}={ours[text]}" if "=" not in text and text in ours else text for text in found]


def merged(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Two environments as one: a name of the second replaces the same name of the first, at its place; a bare one takes
    it away."""
    table: dict[str, str] = {}
    for text in [*first, *second]:
        table[text.partition("=")[0]] = text
    return [text for text in table.values() if "=" in text]


def labels(files: Iterable[str], given: Iterable[str]) -> dict[str, str]:
    """What `--label-file` and `-l KEY[=VALUE]` say together."""
    in_files = (line for path in files for line in _lines(path) if "=" in line)  # a bare KEY there means nothing
    table = {}
    for text in [*in_files, *given]:
        key, _, value = text.partition("=")
        table[key] = value
    return table


def label(text: str) -> str:
    """`-l KEY[=VALUE]`."""
    if not text.partition("=")[0].strip():
        raise ValueError(f"invalid label '{text}': empty name")
    return text


def _lines(path: str) -> list[str]:
    """The lines of a file of variables or labels, without comments and empty ones."""
    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8-sig")
    except OSError as error:
        raise NotFoundError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise MinirtError(f"invalid env file ({path}): invalid utf8 bytes") from None
    lines = [line.removesuffix("\r").lstrip() for line in text.split("\n")]  # what else ends a line may be in a value
    return [line for line in lines if line and not line.startswith("#")]


def limit(text: str) -> dict[str, Any]:
    """`--ulimit NAME=SOFT[:HARD]`; -1 is unlimited."""
    name, equals, rest = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in LIMITS.split():
        raise ValueError(f"invalid ulimit type: {name}")
    words = rest.split(":")
    if len(words) > 2:
        raise ValueError(f"too many limit value arguments - {rest}, can only have up to two, `soft[:hard]`")
    for word in words:
        if not (word.isascii() and word.removeprefix("-").isdigit()):
            raise ValueError(f'strconv.ParseInt: parsing "{word}": invalid syntax')
        if not -(2**63) <= int(word) < 2**63:
            raise ValueError(f'strconv.ParseInt: parsing "{word}": value out of range')
    soft, hard = int(words[0]), int(words[-1])
    if hard != -1 and (soft > hard or soft == -1):
        unlimited = "soft: -1 (unlimited), hard: " if soft == -1 else f"{soft} > "
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {unlimited}{hard}")
    return {"Name": name, "Soft": soft, "Hard": hard}


def limits(given: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """All that `--ulimit` asked for: the last of a name counts, and they stand in the order of their names."""
    table = {each["Name"]: each for each in given}
    return [table[name] for name in sorted(table)]


def rlimits(table: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same as an OCI specification has it."""
    return [
        {
            "type": "RLIMIT_" + each["Name"].upper(),
            "soft": UNLIMITED if each["Soft"] < 0 else each["Soft"],
            "hard": UNLIMITED if each["Hard"] < 0 else each["Hard"],
        }
        for each in table
    ]


def device(text: str) -> dict[str, str]:
    """`--device PATH[:PATH IN THE CONTAINER[:PERMISSIONS]]`."""
    parts = text.split(":")
    source, target, permissions = parts[0], parts[0], "rwm"
    if len(parts) == 2:
        if parts[1] and not parts[1].strip("rwm"):
            permissions = parts[1]
        else:
            target = parts[1]
    elif len(parts) == 3:
        target, permissions = parts[1], parts[2]
    if len(parts) > 3 or not source or not target.startswith("/") or not permissions or permissions.strip("rwm"):
        raise ValueError(f"bad format for path: {text}")
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions}


def device_nodes(each: Mapping[str, str]) -> list[dict[str, Any]]:
    """The device, or those below a directory, as an OCI specification has them. Raises NotFoundError where is none."""
    path, place = each["PathOnHost"], each["PathInContainer"]
    if not os.path.isdir(path):
        return [device_node(path, place)]
    nodes = []
    for directory, _, names in os.walk(path):
        for name in sorted(names):
            try:
                nodes.append(device_node(f"{directory}/{name}", f"{place}{directory[len(path):]}/{name}"))
            except NotFoundError:
                continue  # a socket, say
    return nodes or [device_node(path, place)]


def device_node(path: str, place: str) -> dict[str, Any]:
    """The device `path` of the machine, to be at `place`, as an OCI specification has it. Raises NotFoundError when it
    is none."""
    try:
        status = os.stat(path)
    except OSError:
        raise NotFoundError(
            f'error gathering device information while adding custom device "{path}": no such file or directory'
        ) from None
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise NotFoundError(
            f'error gathering device information while adding custom device "{path}": not a device node'
        )
    from minirt.containers import privileged

    return privileged.described(place, path, status)


def mode(kind: str, allowed: Iterable[str], text: str) -> str:
    """A namespace mode such as `--pid host`: the empty word, one of `allowed`, or `container:NAME`."""
    if text and text not in allowed and not (text.startswith("container:") and text != "container:"):
        raise ValueError(f"invalid {kind} mode: it is one of {', '.join(allowed)} or container:NAME")
    return text


def isolation(text: str) -> str:
    """`--isolation`: a container here is what Docker calls "default"."""
    if text.lower() not in ("", "default"):
        raise ValueError(f"invalid isolation '{text}': it is \"default\" on Linux")
    return text.lower()


def ports(text: str) -> list[str]:
    """`--expose PORT[-PORT][/PROTOCOL]`: each port with its protocol."""
    numbers, _, protocol = text.partition("/")
    first, dash, last = numbers.partition("-")
    if not all(word.isascii() and word.isdigit() for word in ((first, last) if dash else (first,))):
        raise ValueError(f"invalid port format for --expose: {text}")
    if not 0 < int(first) <= int(last or first) < 65536:
        raise ValueError(f"invalid range format for --expose: {text}, error: a port is 1 to 65535")
    if (protocol or "tcp").lower() not in ("tcp", "udp", "sctp"):
        raise ValueError(f"invalid protocol for --expose: {protocol}")
    return [f"{number}/{(protocol or 'tcp').lower()}" for number in range(int(first), int(last or first) + 1)]


def network(text: str) -> str:
    """`--network`: none, host, `container:NAME`; anything else is refused with its chapter."""
    if text in ("none", "host") or (text.startswith("container:") and text != "container:"):
        return text
    raise ValueError("none, host and container:NAME are there; bridges and networks arrive with chapter 15")


def score(value: int) -> int:
    """`--oom-score-adj`."""
    if not -1000 <= value <= 1000:
        raise ValueError(f"invalid value {value}, range for oom score adj is [-1000, 1000]")
    return value


def capability(text: str) -> str:
    """`--cap-add`, `--cap-drop`: a name that there is, or ALL."""
    from minirt import capabilities

    word = text.upper()
    if word != "ALL":
        try:
            word = "CAP_" + capabilities.names_of(1 << capabilities.number(word))[0]
        except MinirtError as error:
            raise ValueError(str(error)) from None
    return word


def security(text: str) -> str:
    """`--security-opt`: no-new-privileges, and seccomp=FILE, whose content is read here, as Docker's client does."""
    name, _, value = text.replace(":", "=", 1).partition("=")
    if name == "no-new-privileges" and value in ("", "true", "false"):
        return "no-new-privileges" if value != "false" else "no-new-privileges=false"
    if name == "seccomp" and value in ("unconfined", "builtin"):
        return f"seccomp={value}"
    if name == "seccomp":
        from minirt.seccomp import profile

        try:
            return f"seccomp={state.dumps(profile.read(value))}"
        except MinirtError as error:
            raise ValueError(str(error)) from None
    if text == "systempaths=unconfined":
        return text
    if (name, value) in (("apparmor", "unconfined"), ("label", "disable")):
        return f"{name}={value}"  # which is what a container has here
    if name in ("apparmor", "label"):
        raise ValueError(f"{name} is not supported: profiles of AppArmor and SELinux are the machine's own affair")
    raise ValueError(f"invalid --security-opt: {text}")


def sysctl(text: str) -> tuple[str, str]:
    """`--sysctl NAME=VALUE`: only what a namespace may have for itself."""
    from minirt.namespaces import sysctl

    name, equals, value = text.partition("=")
    if not equals or sysctl.refusal(name, ("ipc", "network")):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return name, value


def stream(text: str) -> str:
    """`--attach`: stdin, stdout or stderr."""
    word = text.lower()
    if word not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return word


def logging(driver: str, options: dict[str, str]) -> dict[str, Any]:
    """`--log-driver` and `--log-opt` as "LogConfig". Raises MinirtError for what a log cannot be."""
    if driver not in LOG_OPTIONS:
        raise MinirtError(f"--log-driver {driver} is not supported: a log is json-file, local or none")
    for name, text in options.items():
        if name not in LOG_OPTIONS[driver]:
            raise MinirtError(f"unknown log opt '{name}' for {driver} log driver: it is one of "
                              f"{', '.join(LOG_OPTIONS[driver]) or 'none at all'}")
        if name == "max-file" and not (text.isascii() and text.isdigit() and int(text)):
            raise MinirtError(f"invalid log opt max-file={text}: max-file cannot be less than 1")
        if name == "max-size":
            try:
                units.parse_size(text)
            except MinirtError:
                raise MinirtError(f"invalid log opt max-size={text}: give it like 10m") from None
    return {"Type": driver, "Config": options}


def keys(text: str) -> str:
    """`--detach-keys`: letters, or `ctrl-` and one of a-z @ [ \\ ] ^ _, with commas between; what the terminal
    sends.
    """
    sent = ""
    for word in text.split(","):
        if len(word) == 1 and word.isascii():
            sent += word
        elif word.startswith("ctrl-") and len(word) == 6 and word[5] in "abcdefghijklmnopqrstuvwxyz@[\\]^_":
            sent += chr(ord(word[5].upper()) & 31)
        else:
            raise ValueError(f"Unknown character: '{word}'")
    return sent


def signal(text: str) -> str:
    """`--stop-signal`: a name or number that the kernel knows."""
    from minirt.process import signals

    try:
        signals.number(text)
    except MinirtError as error:
        raise ValueError(str(error)) from None
    return text

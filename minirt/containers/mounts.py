"""Chapter 17: the mounts that a user asks for: `-v`, `--mount`, `--tmpfs`, read into one form.

The form is that of Docker's API ("Mount"): `{"Type", "Source", "Target", "ReadOnly", "BindOptions",
"TmpfsOptions"}`, and `Create` where a missing source is made, as `-v` does. `entries` turns it into the mounts of
an OCI specification.

Parsing raises ValueError with the reason; whoever parses a command line puts the flag's name in front.

Sources: Docker's documentation, "Bind mounts" and "tmpfs mounts"; mount(8).
"""

from __future__ import annotations

import os

from minirt import units
from minirt.errors import MinirtError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
# the third part of `-v` has at most one word of each kind; those of the last two mean nothing here: the labels of
# SELinux, and how other systems share files with a virtual machine
MODES = (("ro", "rw"), PROPAGATION, ("z", "Z"), ("consistent", "cached", "delegated", "default"))
# below /proc nothing may be mounted but these, with which a container can be told what it has (as lxcfs does)
IN_PROC = frozenset(f"/proc/{name}" for name in (
    "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev",
    "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"))
VOLUMES = "named and anonymous volumes arrive with chapter 16, volumes"
OTHER_NAMES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
FLAGS = ("readonly", "ro", "bind-nonrecursive", "volume-nocopy")  # of `--mount`, those that need no value
KEYS = ("type", "source", "target", "readonly", "consistency",
        "bind-propagation", "bind-nonrecursive", "bind-recursive", "tmpfs-size", "tmpfs-mode",
        "volume-nocopy", "volume-label", "volume-driver", "volume-opt", "volume-subpath", "image-subpath")
# what `--tmpfs` may say of the file system, of its mount, and what changes nothing
TMPFS_FIELDS = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol")
TMPFS_WORDS = ("ro", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "dirsync", "noatime", "nodiratime",
               "relatime", "strictatime")
TMPFS_DEFAULTS = ("", "rw", "defaults", "async", "atime", "diratime", "mand", "nomand", "norelatime", "nostrictatime")


def volume(text: str) -> dict[str, Any]:
    """`-v SOURCE:TARGET[:OPTIONS]`. Raises ValueError, with the chapter for a volume that has no path as its
    source.
    """
    if not text:
        raise ValueError("invalid empty volume spec")
    parts = text.split(":")
    if not all(parts):
        raise ValueError(f"invalid spec: {text}: empty section between colons")
    if len(parts) > 3:
        raise ValueError(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        raise ValueError(f"'{text}' is an anonymous volume: {VOLUMES}")
    source, target = parts[0], parts[1]
    if not source.startswith(("/", ".")):
        raise ValueError(f"'{source}' names a volume, not a path: {VOLUMES}")
    mount: dict[str, Any] = {
        "Type": "bind",
        "Source": os.path.abspath(source),
        "Target": _target(target),
        "Create": True,
    }
    words = parts[2].split(",") if len(parts) == 3 else []
    if "nocopy" in words:
        raise ValueError(f"invalid volume specification: '{text}': nocopy is for volumes, and '{source}' is a path")
    chosen = [[word for word in words if word in kind] for kind in MODES]
    if any(len(each) > 1 for each in chosen) or sum(map(len, chosen)) != len(words):
        raise ValueError(f"invalid mode: {parts[2]}")
    access, propagation, _, _ = chosen
    if access:
        mount["ReadOnly"] = access == ["ro"]
    if propagation:
        mount["BindOptions"] = {"Propagation": propagation[0]}
    return mount


def mount(text: str) -> dict[str, Any]:
    """`--mount type=bind,source=/a,target=/b,readonly`; a field with a comma in it stands in quotes, as in a table of
    comma-separated values. Raises ValueError with the reason.
    """
    fields: dict[str, str] = {}
    for field in _fields(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals and key not in FLAGS:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        name = OTHER_NAMES.get(key, key)
        if name not in KEYS:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
        if name in ("readonly", "bind-nonrecursive", "volume-nocopy") and equals:
            _boolean(key, value)
        fields[name] = value if equals else "true"
    kind = fields.pop("type", "volume").lower()
    if not fields.get("target"):
        raise ValueError("target is required")
    for name in fields:
        group, dash, _ = name.partition("-")
        if dash and group in ("bind", "volume", "tmpfs", "image") and group != kind:
            raise ValueError(f"cannot mix '{group}-*' options with mount type '{kind}'")
    if kind == "volume":
        raise ValueError(VOLUMES)
    if kind not in ("bind", "tmpfs"):
        raise ValueError(f"mount type {kind} is not supported: bind and tmpfs are")
    result: dict[str, Any] = {"Type": kind, "Source": "", "Target": _target(fields.pop("target"))}
    result["ReadOnly"] = _boolean("readonly", fields.pop("readonly", "false"))
    if kind == "bind":
        _bind_fields(result, fields)
    else:
        _tmpfs_fields(result, fields)
    return result


def _fields(text: str) -> list[str]:
    if '"' not in text:
        return text.split(",")
    import csv

    return next(csv.reader([text], strict=True))


def _bind_fields(result: dict[str, Any], fields: dict[str, str]) -> None:
    source = fields.pop("source", "")
    if not source:
        raise ValueError('invalid mount config for type "bind": field Source must not be empty')
    result["Source"] = os.path.abspath(source) if source.startswith(".") else source
    if not result["Source"].startswith("/"):
        raise ValueError(f"invalid mount path: '{source}' mount path must be absolute")
    options: dict[str, Any] = {}
    if "bind-propagation" in fields:
        options["Propagation"] = text = fields.pop("bind-propagation")
        if text not in PROPAGATION:
            raise ValueError(f'invalid mount config for type "bind": invalid propagation mode: {text}')
    if _boolean("bind-nonrecursive", fields.pop("bind-nonrecursive", "false")):
        options["NonRecursive"] = True
    _bind_recursive(fields.pop("bind-recursive", "enabled"), result, options)
    if options:
        result["BindOptions"] = options


def _bind_recursive(text: str, result: dict[str, Any], options: dict[str, Any]) -> None:
    """Whether what is mounted below comes along, and is read-only as well."""
    if text not in ("enabled", "disabled", "writable", "readonly"):
        raise ValueError(f'invalid value for bind-recursive: {text} (must be "enabled", "disabled", "writable", or '
                         '"readonly")')
    if text in ("writable", "readonly") and not result["ReadOnly"]:
        raise ValueError(f"option 'bind-recursive={text}' requires 'readonly' to be specified in conjunction")
    if text == "writable":
        raise ValueError("bind-recursive=writable is not supported: what is mounted below is read-only, too")
    if text == "readonly":
        if options.get("Propagation") != "rprivate":
            raise ValueError("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in "
                             "conjunction")
        options["ReadOnlyForceRecursive"] = True
    if text == "disabled":
        options["NonRecursive"] = True


def _tmpfs_fields(result: dict[str, Any], fields: dict[str, str]) -> None:
    if "source" in fields:
        raise ValueError('invalid mount config for type "tmpfs": field Source must not be specified')
    options: dict[str, Any] = {}
    if "tmpfs-size" in fields:
        text = fields.pop("tmpfs-size")
        try:
            options["SizeBytes"] = units.parse_size(text)
        except MinirtError:
            raise ValueError(f"invalid value for tmpfs-size: {text}") from None
    if "tmpfs-mode" in fields:
        text = fields.pop("tmpfs-mode")
        if not text or text.strip("01234567"):
            raise ValueError(f"invalid value for tmpfs-mode: {text}")
        options["Mode"] = int(text, 8)
    if options:
        result["TmpfsOptions"] = options


def tmpfs(text: str) -> tuple[str, str]:
    """`--tmpfs TARGET[:OPTIONS]` as (target, options). Raises ValueError."""
    target, _, options = text.partition(":")
    for word in options.split(",") if options else ():
        name, equals, _ = word.partition("=")
        if (name not in TMPFS_FIELDS) if equals else (word not in TMPFS_WORDS + TMPFS_DEFAULTS):
            raise ValueError(f"invalid tmpfs option: {word!r}")
    return _target(target), options


def _boolean(name: str, text: str) -> bool:
    words = {"true": True, "1": True, "": True, "false": False, "0": False}
    if text not in words:
        raise ValueError(f"invalid value for {name}: {text}")
    return words[text]


def _target(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"invalid mount path: '{path}' mount path must be absolute")
    normal = os.path.normpath(path)
    if normal.strip("/") == "":
        raise ValueError("invalid specification: destination can't be '/'")
    return "/" + normal.strip("/")


def check_targets(mounts: Iterable[dict[str, Any]], tmpfs_table: Iterable[str]) -> None:
    """Raises MinirtError when two mounts were asked for at the same place."""
    taken: set[str] = set()
    for target in [*(each["Target"] for each in mounts), *dict.fromkeys(tmpfs_table)]:
        if target in taken:
            raise MinirtError(f"Duplicate mount point: {target}")
        taken.add(target)


# -- towards the OCI specification -------------------------------------------------------------------------------


def check_sources(mounts: Iterable[dict[str, Any]]) -> None:
    """Makes the missing sources that `-v` makes, as Docker does. Raises NotFoundError for one that `--mount`
    names.
    """
    for each in mounts:
        if each["Type"] == "bind" and not os.path.lexists(each["Source"]):
            if not each.get("Create"):
                raise NotFoundError(
                    f'invalid mount config for type "bind": bind source path does not exist: {each["Source"]}'
                )
            os.makedirs(each["Source"], exist_ok=True)


def entries(mounts: Iterable[dict[str, Any]], tmpfs_table: dict[str, str]) -> list[dict[str, Any]]:
    """The entries of "mounts" of an OCI specification, parents before what lies below them. Raises MinirtError for one
    that would have something else take the place of /proc."""
    result = [_bind(each) if each["Type"] == "bind" else _tmpfs(each) for each in mounts]
    for target, options in tmpfs_table.items():
        words = [word for word in options.split(",") if word not in TMPFS_DEFAULTS]
        known = {word.split("=")[0] for word in words}
        defaults = [word for word in ("nosuid", "nodev", "noexec") if word.removeprefix("no") not in known]
        words = [word for word in words if word not in ("suid", "dev", "exec") and word not in defaults]
        result.append({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": defaults + words})
    for entry in result:
        spare_proc(entry["destination"], entry["source"])
    return sorted(result, key=lambda entry: entry["destination"].count("/"))


def spare_proc(target: str, source: str) -> None:
    """Raises MinirtError for a mount over or in /proc: what is set and hidden there would go to whoever brings it."""
    if target == "/proc" and os.path.realpath(source) != "/proc":
        what = source if source.startswith("/") else "a tmpfs"
        raise MinirtError(f'"{target}" cannot be mounted because it is not of type proc: {what} is no proc file system')
    if target.startswith("/proc/") and target not in IN_PROC:
        raise MinirtError(f'"{target}" cannot be mounted because it is inside /proc')


def _bind(each: dict[str, Any]) -> dict[str, Any]:
    options = each.get("BindOptions") or {}
    words = ["bind" if options.get("NonRecursive") else "rbind", options.get("Propagation") or "rprivate"]
    if each.get("ReadOnly"):
        words.append("ro")
    return {"destination": each["Target"], "type": "bind", "source": each["Source"], "options": words}


def _tmpfs(each: dict[str, Any]) -> dict[str, Any]:
    options = each.get("TmpfsOptions") or {}
    words = ["nosuid", "nodev", "noexec"]
    if "Mode" in options:
        words.append(f"mode={options['Mode']:o}")
    if options.get("SizeBytes"):
        words.append(f"size={options['SizeBytes']}")
    if each.get("ReadOnly"):
        words.append("ro")
    return {"destination": each["Target"], "type": "tmpfs", "source": "tmpfs", "options": words}

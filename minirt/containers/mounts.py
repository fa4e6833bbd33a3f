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
IGNORED = ("z", "Z", "consistent", "cached", "delegated", "nocopy")  # SELinux labels, other systems, named volumes
VOLUMES = "named and anonymous volumes arrive with chapter 16, volumes"


def volume(text: str) -> dict[str, Any]:
    """`-v SOURCE:TARGET[:OPTIONS]`. Raises ValueError, with the chapter for a volume that has no path as its
    source.
    """
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise ValueError(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        raise ValueError(f"'{text}' is an anonymous volume: {VOLUMES}")
    source, target = parts[0], parts[1]
    if not source.startswith(("/", ".", "~")):
        raise ValueError(f"'{source}' names a volume, not a path: {VOLUMES}")
    mount: dict[str, Any] = {
        "Type": "bind",
        "Source": os.path.abspath(os.path.expanduser(source)),
        "Target": _target(target),
        "Create": True,
    }
    for word in parts[2].split(",") if len(parts) == 3 else ():
        if word in ("ro", "rw"):
            mount["ReadOnly"] = word == "ro"
        elif word in PROPAGATION:
            mount["BindOptions"] = {"Propagation": word}
        elif word not in IGNORED:
            raise ValueError(f"invalid mode: {word}")
    return mount


def mount(text: str) -> dict[str, Any]:
    """`--mount type=bind,source=/a,target=/b,readonly`. Raises ValueError with the reason."""
    fields: dict[str, str] = {}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals and key not in ("readonly", "ro", "bind-nonrecursive"):
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        name = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}.get(key, key)
        fields[name] = value if equals else "true"
    kind = fields.pop("type", "volume")
    if kind == "volume":
        raise ValueError(VOLUMES)
    if kind not in ("bind", "tmpfs"):
        raise ValueError(f"mount type {kind} is not supported: bind and tmpfs are")
    if "target" not in fields:
        raise ValueError("target is required")
    result: dict[str, Any] = {"Type": kind, "Source": "", "Target": _target(fields.pop("target"))}
    result["ReadOnly"] = _boolean("readonly", fields.pop("readonly", "false"))
    fields.pop("consistency", None)
    if kind == "bind":
        _bind_fields(result, fields)
    else:
        _tmpfs_fields(result, fields)
    for name in fields:
        raise ValueError(f"unexpected key '{name}' for a mount of type {kind}")
    return result


def _bind_fields(result: dict[str, Any], fields: dict[str, str]) -> None:
    source = fields.pop("source", "")
    if not source:
        raise ValueError("a bind mount needs a source")
    result["Source"] = os.path.abspath(os.path.expanduser(source)) if source.startswith((".", "~")) else source
    if not result["Source"].startswith("/"):
        raise ValueError(f"invalid mount path: '{source}' mount path must be absolute")
    options: dict[str, Any] = {}
    if "bind-propagation" in fields:
        options["Propagation"] = fields.pop("bind-propagation")
        if options["Propagation"] not in PROPAGATION:
            raise ValueError(f"invalid propagation value: {options['Propagation']}")
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
        raise ValueError("a tmpfs has no source")
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
    """The entries of "mounts" of an OCI specification, parents before what lies below them."""
    result = [_bind(each) if each["Type"] == "bind" else _tmpfs(each) for each in mounts]
    for target, options in tmpfs_table.items():
        words = [word for word in options.split(",") if word and word != "rw"]
        known = {word.split("=")[0] for word in words}
        defaults = [word for word in ("nosuid", "nodev", "noexec") if word.removeprefix("no") not in known]
        words = [word for word in words if word not in ("suid", "dev", "exec") and word not in defaults]
        result.append({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": defaults + words})
    return sorted(result, key=lambda entry: entry["destination"].count("/"))


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

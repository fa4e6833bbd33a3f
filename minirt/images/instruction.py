"""Chapter 13, beyond: one instruction of a Dockerfile that changes only an image's configuration.

`import --change "CMD sleep 9"` is such a one. What an instruction does to the configuration is a function each.

Sources: Docker's "Dockerfile reference"; OCI image-spec config.md "config".
"""

from __future__ import annotations

import os
import shlex

from minirt import state, units
from minirt.errors import BadInputError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Config = dict[str, Any]

_NANOSECONDS = 10**9
_HEALTH = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod",
           "start-interval": "StartInterval"}


def apply(config: Config, text: str) -> None:
    """Change `config` (Cmd, Env, ... as in "config" of an image's configuration) as one instruction says.

    Raises BadInputError when it is none that changes only the configuration, or not well formed.
    """
    word, _, rest = text.strip().partition(" ")
    action = _ACTIONS.get(word.upper())
    if action is None:
        raise BadInputError(f"{word or 'an empty instruction'} is not a valid change command: known are "
                            f"{', '.join(_ACTIONS)}")
    if not rest.strip():
        raise BadInputError(f"{word.upper()} requires at least one argument")
    try:
        action(config, rest.strip())
    except (ValueError, UsageError) as error:
        raise BadInputError(f"{word.upper()} {rest.strip()}: {error}") from None


def command(text: str, shell: list[str] | None = None) -> list[str]:
    """The words of a command: a JSON list as it stands, anything else handed to a shell."""
    return _list(text) or [*(shell or ["/bin/sh", "-c"]), text]


def _list(text: str) -> list[str]:
    """The strings of a JSON list; none when it is no such list."""
    try:
        words = state.loads(text)
    except ValueError:
        return []
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else []


def pairs(text: str) -> dict[str, str]:
    """`a=1 b="two words"`, or in the old form `a the rest`. Raises ValueError."""
    words = shlex.split(text)
    if words and "=" not in words[0]:
        name, _, value = text.partition(" ")
        if not value:
            raise ValueError("must have two arguments")
        return {name: value.strip()}
    if not all(word.partition("=")[0] and "=" in word for word in words):
        raise ValueError("it is written name=value")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _env(config: Config, text: str) -> None:
    there = {each.partition("=")[0]: each for each in config.get("Env") or ()}
    there.update({name: f"{name}={value}" for name, value in pairs(text).items()})
    config["Env"] = list(there.values())


def _label(config: Config, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **pairs(text)}


def _expose(config: Config, text: str) -> None:
    ports: dict[str, Any] = dict(config.get("ExposedPorts") or {})
    for word in text.split():
        numbers, _, protocol = word.lower().partition("/")
        first, dash, last = numbers.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or protocol not in ("", "tcp", "udp", "sctp"):
            raise ValueError(f"invalid containerPort: {word}")
        for port in range(int(first), int(last or first) + 1):
            if not 0 < port < 65536:
                raise ValueError(f"invalid containerPort: {word}")
            ports[f"{port}/{protocol or 'tcp'}"] = {}
    config["ExposedPorts"] = ports


def _volume(config: Config, text: str) -> None:
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in _list(text) or shlex.split(text)}}


def _workdir(config: Config, text: str) -> None:
    config["WorkingDir"] = os.path.normpath(os.path.join("/", config.get("WorkingDir") or "", shlex.split(text)[0]))


def _healthcheck(config: Config, text: str) -> None:
    check: dict[str, Any] = {}
    while text.startswith("--"):
        word, _, text = text.partition(" ")
        name, _, value = word[2:].partition("=")
        text = text.strip()
        if name == "retries":
            check["Retries"] = int(value)
        elif name in _HEALTH:
            check[_HEALTH[name]] = int(units.parse_duration(value) * _NANOSECONDS)
        else:
            raise ValueError(f"unknown flag: --{name}")
    kind, _, rest = text.partition(" ")
    if kind.upper() == "NONE":
        check = {"Test": ["NONE"]}
    elif kind.upper() == "CMD" and rest.strip():
        words = _list(rest)
        check["Test"] = ["CMD", *words] if words else ["CMD-SHELL", rest.strip()]
    else:
        raise ValueError("it is CMD with a command, or NONE")
    config["Healthcheck"] = check


def _to(field: str) -> Callable[[Config, str], None]:
    return lambda config, text: config.__setitem__(field, text)


_ACTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": lambda config, text: config.__setitem__("Cmd", command(text)),
    "ENTRYPOINT": lambda config, text: config.__setitem__("Entrypoint", command(text)),
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": lambda config, text: config.__setitem__("OnBuild", [*(config.get("OnBuild") or ()), text]),
    "STOPSIGNAL": _to("StopSignal"),
    "USER": _to("User"),
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}

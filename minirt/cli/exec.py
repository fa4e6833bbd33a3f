"""`minirt exec`: its options; what it does is in `minirt.containers.execute`."""

from __future__ import annotations

from minirt.cli import explain
from minirt.cli.options import Command, Option, Options
from minirt.containers import record


def keys(text: str) -> str:
    """`--detach-keys`, of `exec`, `start` and `attach`."""
    from minirt.containers import values

    return values.keys(text)


KEYS = Option("detach-keys", "string", "Override the key sequence for detaching a container", check=keys)


def run(options: Options) -> int:
    """`minirt exec`."""
    from minirt.containers import execute

    container = record.find(options.arguments[0])
    return execute.execute(container, options, options.arguments[1:], explain.tell)


COMMANDS = {
    "exec": Command(
        "exec",
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Execute a command in a running container",
        (
            Option("detach", help="Detached mode: run command in the background", short="d"),
            KEYS,
            Option("env", "list", "Set environment variables", short="e"),
            Option("env-file", "list", "Read in a file of environment variables"),
            Option("interactive", help="Keep STDIN open even if not attached", short="i"),
            Option("privileged", help="Give extended privileges to the command", chapter=10),
            Option("tty", help="Allocate a pseudo-TTY", short="t"),
            Option("user", "string", "Username or UID (format: <name|uid>[:<group|gid>])", short="u"),
            Option("workdir", "string", "Working directory inside the container", short="w"),
        ),
        action=run,
        minimum=2,
        interspersed=False,
        aliases=("container exec", "exec"),
        ours=True,
    )
}

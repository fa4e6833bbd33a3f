"""The command line: finds the command, imports its module and no other, runs it, and turns errors into sentences.

Which module holds which command is a table of names, so that `minirt ps` does not pay for `minirt build`, and so that a
tree without some chapter simply lacks that chapter's module: its commands are then refused as not there yet.

Exit codes are Docker's: what the command returned; 125 for a bad flag; 1 for any other refusal of ours, which `run`,
`create` and `exec` turn into 125, because there a small number could be the container's own.
"""

from __future__ import annotations

import gc
import os

from minirt.cli.options import PROGRAM, Command, HelpAsked, complain
from minirt.errors import MinirtError, UsageError, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# command -> the module whose COMMANDS table has it
MODULES = {
    "run": "minirt.cli.run",
    "create": "minirt.cli.run",
    "start": "minirt.cli.start",
    "restart": "minirt.cli.start",
    "attach": "minirt.cli.start",
    "exec": "minirt.cli.exec",
    "ps": "minirt.cli.ps",
    "logs": "minirt.cli.logs",
    "rm": "minirt.cli.containers",
    "stop": "minirt.cli.containers",
    "kill": "minirt.cli.containers",
    "wait": "minirt.cli.containers",
    "pause": "minirt.cli.containers",
    "unpause": "minirt.cli.containers",
    "rename": "minirt.cli.containers",
    "diff": "minirt.cli.containers",
    "events": "minirt.cli.events",
    "top": "minirt.cli.containers",
    "container prune": "minirt.cli.containers",
    "inspect": "minirt.cli.inspect",
    "container inspect": "minirt.cli.inspect",
    "load": "minirt.cli.archives",
    "save": "minirt.cli.archives",
    "import": "minirt.cli.archives",
    "images": "minirt.cli.images",
    "rmi": "minirt.cli.images",
    "tag": "minirt.cli.images",
    "history": "minirt.cli.images",
    "image inspect": "minirt.cli.images",
    "image prune": "minirt.cli.images",
    "pull": "minirt.cli.registry",
    "push": "minirt.cli.registry",
    "login": "minirt.cli.registry",
    "logout": "minirt.cli.registry",
    "manifest inspect": "minirt.cli.manifest",
    "manifest create": "minirt.cli.manifest",
    "manifest annotate": "minirt.cli.manifest",
    "manifest push": "minirt.cli.manifest",
    "manifest rm": "minirt.cli.manifest",
    "system check": "minirt.cli.check",
    "system df": "minirt.cli.system",
    "system prune": "minirt.cli.system",
    "registry serve": "minirt.cli.serve",
    "registry garbage-collect": "minirt.cli.serve",
    "xray": "minirt.cli.xray",
    "version": "minirt.cli.version",
    "completion": "minirt.cli.completion",
    "doctor": "minirt.cli.doctor",
}

# command -> what begins at once, while the command's own module is still being loaded
AHEAD = {"run": "minirt.containers.birth"}

# group -> (what it manages, {its command -> the command it stands for})
GROUPS: dict[str, tuple[str, dict[str, str]]] = {
    "container": (
        "Manage containers",
        {
            "ls": "ps",
            "list": "ps",
            "remove": "rm",
            "inspect": "container inspect",
            "prune": "container prune",
            **{
                name: name
                for name in ("run", "create", "start", "restart", "attach", "exec", "ps", "logs", "rm", "stop", "kill")
                + ("wait", "pause", "unpause", "rename", "diff", "top")
            },
        },
    ),
    "image": (
        "Manage images",
        {
            "ls": "images",
            "list": "images",
            "load": "load",
            "save": "save",
            "import": "import",
            "history": "history",
            "prune": "image prune",
            "pull": "pull",
            "push": "push",
            "rm": "rmi",
            "remove": "rmi",
            "tag": "tag",
            "inspect": "image inspect",
        },
    ),
    "system": (
        "Manage what minirt keeps on the disk",
        {"check": "system check", "df": "system df", "events": "events", "prune": "system prune"},
    ),
    "manifest": (
        "Look at manifests in registries, and make lists of them",
        {"annotate": "manifest annotate", "create": "manifest create", "inspect": "manifest inspect",
         "push": "manifest push", "rm": "manifest rm"},
    ),
    "registry": (
        "Serve images to others",
        {"serve": "registry serve", "garbage-collect": "registry garbage-collect"},
    ),
}

# What `minirt --help` shows, in this order, with the sentence of each; the modules are not imported for it.
SUMMARIES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Common Commands",
        (
            ("run", "Create and run a new container from an image"),
            ("ps", "List containers"),
            ("pull", "Download an image from a registry"),
            ("push", "Upload an image to a registry"),
            ("images", "List images"),
            ("login", "Authenticate to a registry"),
            ("logout", "Log out from a registry"),
            ("load", "Load an image from a tar archive or STDIN"),
            ("version", "Show the version of minirt and what it stands on"),
            ("doctor", "Say what this machine offers and what is missing"),
            ("xray", "Show which walls stand around a running container"),
        ),
    ),
    (
        "Commands",
        (
            ("attach", "Attach local standard input, output, and error streams to a running container"),
            ("create", "Create a new container"),
            ("diff", "Inspect changes to files or directories on a container's filesystem"),
            ("events", "Get real time events from the server"),
            ("exec", "Execute a command in a running container"),
            ("history", "Show the history of an image"),
            ("import", "Import the contents from a tarball to create a filesystem image"),
            ("inspect", "Return low-level information on containers and images"),
            ("kill", "Kill one or more running containers"),
            ("logs", "Fetch the logs of a container"),
            ("pause", "Pause all processes within one or more containers"),
            ("rename", "Rename a container"),
            ("restart", "Restart one or more containers"),
            ("rm", "Remove one or more containers"),
            ("rmi", "Remove one or more images"),
            ("save", "Save one or more images to a tar archive (streamed to STDOUT by default)"),
            ("start", "Start one or more stopped containers"),
            ("stop", "Stop one or more running containers"),
            ("tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
            ("top", "Display the running processes of a container"),
            ("unpause", "Unpause all processes within one or more containers"),
            ("wait", "Block until one or more containers stop, then print their exit codes"),
        ),
    ),
)

GLOBAL_HELP = """\
Global Options:
      --explain         Tell each step as it is taken, with the chapter that explains it
      --explain=json    The same, one JSON document a line
      --explain=sh      Of run: print a shell script that builds the same container, and do nothing
      --help            Print usage
  -v, --version         Print version information and quit
"""

EXPLAIN = ("--explain", "--explain=true", "--explain=text", "--explain=json", "--explain=sh")


def main(argv: Sequence[str]) -> int:
    """Runs one command line. `argv`: what follows the program's name. Returns the exit code; prints, never raises."""
    try:
        try:
            return dispatch(list(argv))
        except HelpAsked as asked:
            return _print(str(asked))
    except MinirtError as error:
        return complain(error, error.exit_code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        if "MINIRT_DEBUG" in os.environ:
            raise
        if yours := _explained(error):
            return complain(yours, 125)
        return complain(told(error)[1])
    except Exception as error:
        if "MINIRT_DEBUG" in os.environ:
            raise
        if yours := _explained(error):
            return complain(yours, 125)
        kind = type(error).__name__
        return complain(f"a mistake in minirt itself ({kind}: {error}); MINIRT_DEBUG=1 shows where")


def _explained(error: Exception) -> str:
    """What a participant should hear, when the exception came out of their function; else ''."""
    from minirt import workshop

    return workshop.explain(error)


def _print(text: str) -> int:
    from minirt.cli import format as formats

    formats.show(text)
    return 0


def dispatch(argv: list[str]) -> int:
    """Reads the global options, finds the command and runs it. Returns its exit code; raises MinirtError."""
    explain = ""
    while argv and argv[0].startswith("-"):
        flag = argv.pop(0)
        if flag in EXPLAIN:
            explain = flag.partition("=")[2] if flag in ("--explain=json", "--explain=sh") else "text"
        elif flag in ("-v", "--version"):
            argv = ["version", "--short"]
        elif flag in ("-h", "--help"):
            return _print(usage())
        else:
            raise UsageError(f"unknown flag: {flag}\n\nUsage:  {PROGRAM} [OPTIONS] COMMAND\n\n"
                             f"Run '{PROGRAM} --help' for more information")
    if not argv:
        return _print(usage())
    if argv[0] == "help":
        return _help(argv[1:])
    if explain == "sh":
        from minirt.cli import script

        return script.told(*find(argv))
    if explain:
        from minirt.cli import explain as narrator

        return narrator.explained(lambda: perform(argv), explain)
    return perform(argv)


def perform(argv: Sequence[str]) -> int:
    """Finds a command and runs it. Returns its exit code; raises MinirtError."""
    if argv[0] not in AHEAD:
        return run(*find(argv))
    begun = __import__(AHEAD[argv[0]], fromlist=("ahead",))
    begun.ahead()
    try:
        return run(*find(argv))
    finally:
        begun.dismiss_unused()


def run(command: Command, words: Sequence[str]) -> int:
    """Runs one command on what follows its name. Returns its exit code; raises MinirtError."""
    options = command.parse(words)
    os.umask(0o022)  # what is made in the store and in a container has the modes that it is meant to have
    assert command.action
    if not command.ours:  # run, create and exec go on loading: their monitor begins to collect when it has started
        gc.enable()
    try:
        return command.action(options) or 0
    except MinirtError as error:
        if command.ours and error.exit_code == 1:
            error.exit_code = 125
        raise
    except OSError as error:
        if not command.ours or "MINIRT_DEBUG" in os.environ:
            raise
        refusal = MinirtError(told(error)[1])
        refusal.exit_code = 125
        raise refusal from None


def find(argv: Sequence[str]) -> tuple[Command, list[str]]:
    """The command that `argv` begins with and the words after it. Raises MinirtError where there is none."""
    name, rest = argv[0], list(argv[1:])
    if name in GROUPS:
        _, members = GROUPS[name]
        if not rest or rest[0] in ("--help", "-h"):
            raise HelpAsked(group_usage(name))
        member = rest.pop(0)
        if member not in members:
            from minirt.cli import differences

            for known in (f"{name} {member}", member):
                if known in differences.COMMANDS:
                    raise MinirtError(differences.arrives(f"'{name} {member}'", *differences.COMMANDS[known]))
            raise MinirtError(
                f"unknown command: {PROGRAM} {name} {member}\n\nRun '{PROGRAM} {name} --help' for more information"
            )
        name = members[member]
    command = load(name)
    if command is None:
        from minirt.cli import differences

        if name in differences.COMMANDS:
            raise MinirtError(differences.arrives(f"'{name}'", *differences.COMMANDS[name]))
        raise MinirtError(f"unknown command: {PROGRAM} {name}\n\nRun '{PROGRAM} --help' for more information")
    return command, rest


def load(name: str) -> Command | None:
    """The command of that name, its module imported; None where this minirt does not have it (yet)."""
    module_name = MODULES.get(name)
    if module_name is None:
        return None
    try:
        module = __import__(module_name, fromlist=("COMMANDS",))
    except ModuleNotFoundError as missing:
        if missing.name == module_name:
            return None
        raise
    table: dict[str, Command] = module.COMMANDS
    return table.get(name)


def present(name: str) -> bool:
    """Whether this minirt has the command: its module is there (it is not run)."""
    from importlib.util import find_spec

    return find_spec(MODULES[name]) is not None


def usage() -> str:
    """The text of `minirt --help`."""
    parts = [f"Usage:  {PROGRAM} [OPTIONS] COMMAND\n\nDocker, rebuilt one piece at a time in Python\n"]
    for title, rows in SUMMARIES:
        lines = [f"  {name:<12}{summary}" for name, summary in rows if present(name)]
        parts.append(f"{title}:\n" + "\n".join(lines) + "\n")
    parts.append("Management Commands:\n" + "\n".join(f"  {name:<12}{GROUPS[name][0]}" for name in GROUPS) + "\n")
    parts.append(GLOBAL_HELP)
    parts.append(
        f"Run '{PROGRAM} COMMAND --help' for more information on a command,\n"
        f"'{PROGRAM} help differences' for what differs from Docker.\n"
    )
    return "\n".join(parts)


def group_usage(group: str) -> str:
    """The text of `minirt container --help`."""
    title, members = GROUPS[group]
    known = {name: summary for _, rows in SUMMARIES for name, summary in rows}
    known.update({"image inspect": known["inspect"], "container inspect": known["inspect"]})
    known["system check"] = "Check the image store against itself"
    known["system df"] = "Show disk usage"
    known["system prune"] = "Remove unused data"
    known["image prune"] = "Remove unused images"
    known["container prune"] = "Remove all stopped containers"
    known["manifest annotate"] = "Add additional information to a local image manifest"
    known["manifest create"] = "Create a local manifest list for annotating and pushing to a registry"
    known["manifest inspect"] = "Display an image manifest, or manifest list"
    known["manifest push"] = "Push a manifest list to a repository"
    known["manifest rm"] = "Delete one or more manifest lists from local storage"
    known["registry serve"] = "Serve images to others, as a registry"
    known["registry garbage-collect"] = "Free what no image of the registry needs any more"
    shown = {member: name for member, name in members.items() if present(name)}
    width = max([12, *(len(member) + 3 for member in shown)])
    lines = [f"  {member:<{width}}{known.get(name, '')}".rstrip() for member, name in sorted(shown.items())]
    return (
        f"Usage:  {PROGRAM} {group} COMMAND\n\n{title}\n\nCommands:\n" + "\n".join(lines) + "\n\n"
        f"Run '{PROGRAM} {group} COMMAND --help' for more information on a command.\n"
    )


def _help(words: list[str]) -> int:
    if not words:
        return _print(usage())
    if words[0] == "differences":
        from minirt.cli import differences

        return _print(differences.text([name for name in MODULES if present(name)]))
    command, _ = find(words)
    return _print(command.help())

"""`minirt completion bash|zsh`: a script for the shell, written from the same tables as the help.

Flags and commands are fixed when the script is made; names of containers and images are asked for when the key is
pressed. In the roof, since it looks at every command by name.
"""

from __future__ import annotations

from minirt.cli import format as formats
from minirt.cli.main import GROUPS, MODULES, load
from minirt.cli.options import Command, Option, Options
from minirt.errors import MinirtError

# What the words after a command are: names of containers, all or running, of images, of both; `image`: only the first.
ARGUMENTS = {
    "containers": ("logs", "rm", "start", "restart", "wait", "rename", "diff", "container inspect"),
    "running": ("stop", "kill", "exec", "attach", "pause", "unpause", "top"),
    "image": ("run", "create", "tag", "history", "push", "pull"),
    "images": ("rmi", "save", "image inspect"),
    "anything": ("inspect",),
}

SCRIPT = """\
# bash completion for minirt: source it, or put it where bash-completion looks for it
_minirt_names() {{
    case "$1" in
        containers) minirt ps -a --format '{{{{.Names}}}}' ;;
        running) minirt ps --format '{{{{.Names}}}}' ;;
        image|images) minirt images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' | grep -v '<none>' ;;
        anything) _minirt_names containers; _minirt_names images ;;
    esac 2>/dev/null
}}
_minirt() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} at=1 command flags= values= kind= arguments=0
    local commands='{commands}'
    COMPREPLY=()
    while [[ $at -lt $COMP_CWORD ]]; do
        case ${{COMP_WORDS[at]}} in -*) at=$((at + 1)) ;; =) at=$((at + 2)) ;; *) break ;; esac
    done
    if [[ $at -ge $COMP_CWORD ]]; then
        COMPREPLY=($(compgen -W "$commands --explain --explain=json --explain=sh --help --version" -- "$word"))
        return
    fi
    command=${{COMP_WORDS[at]}}
    case "$command" in
{groups}
    esac
    case "$command" in
{cases}
    esac
    at=$((at + 1))
    while [[ $at -lt $COMP_CWORD ]]; do
        if [[ " $values " == *" ${{COMP_WORDS[at]}} "* ]]; then
            at=$((at + 1))
            [[ $at -ge $COMP_CWORD ]] && {{ compopt -o default; return; }}
        elif [[ ${{COMP_WORDS[at]}} != -* ]]; then
            arguments=$((arguments + 1))
        fi
        at=$((at + 1))
    done
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$word"))
    elif [[ $kind && ( $arguments -eq 0 || $kind != image ) ]]; then
        COMPREPLY=($(compgen -W "$(_minirt_names $kind)" -- "$word"))
        [[ ${{COMPREPLY[0]}} == *:* && $(type -t __ltrim_colon_completions) ]] && __ltrim_colon_completions "$word"
    else
        compopt -o default
    fi
}}
complete -F _minirt minirt
"""

GROUP = """\
        {group})
            at=$((at + 1))
            if [[ $at -ge $COMP_CWORD ]]; then
                COMPREPLY=($(compgen -W '{members} --help' -- "$word"))
                return
            fi
            case "${{COMP_WORDS[at]}}" in
{cases}
            esac ;;"""


def bash() -> str:
    """The script for bash, for the commands that this minirt has."""
    known = {name: command for name in MODULES if (command := load(name)) is not None}
    kinds = {name: kind for kind, names in ARGUMENTS.items() for name in names}
    cases = []
    for name, command in known.items():
        rows = command.completion()
        flags = " ".join(flag for flag, _, _ in rows)
        values = " ".join(flag for flag, _, takes in rows if takes)
        cases.append(f"        '{name}') flags='{flags}' values='{values}' kind={kinds.get(name, '')} ;;")
    groups = []
    for group, (_, members) in GROUPS.items():
        there = {member: name for member, name in members.items() if name in known}
        lines = [f"                {member}) command='{name}' ;;" for member, name in there.items()]
        groups.append(GROUP.format(group=group, members=" ".join(there), cases="\n".join(lines)))
    commands = " ".join(sorted([*(name for name in known if " " not in name), *GROUPS, "help"]))
    return SCRIPT.format(commands=commands, groups="\n".join(groups), cases="\n".join(cases))


def completion(options: Options) -> int:
    """`minirt completion`."""
    shell = options.arguments[0]
    if shell == "bash":
        formats.show(bash())
    elif shell == "zsh":
        formats.show("#compdef minirt\nautoload -Uz bashcompinit && bashcompinit\n" + bash())
    else:
        raise MinirtError(f"no completion for {shell}: bash and zsh are there")
    return 0


COMMANDS = {
    "completion": Command(
        "completion",
        "bash|zsh",
        "Print the completion script of a shell",
        (Option("no-descriptions", help="Accepted for Docker's sake: there are none"),),
        action=completion,
        minimum=1,
        maximum=1,
    )
}

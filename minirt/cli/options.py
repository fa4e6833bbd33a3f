"""Ground floor: the options of every command, declared once, as data.

A command is a `Command`: its name, its usage line, one sentence, a tuple of `Option`. From that table come parsing,
`--help` (grouped by the chapter that gives each option its meaning), shell completion and `minirt help
differences`.

How flags are read (the rules of Docker's client, which uses pflag):

- `--name VALUE`, `--name=VALUE`, `-e VALUE`, `-eVALUE`, `-e=VALUE`; a boolean stands alone or with `=true`, `=false`;
- short booleans may be bundled, and the last of a bundle may take a value: `-it`, `-itw/tmp`;
- `--` ends the flags; so does the first positional argument where what follows it is another program's command line
  (`run`, `create`, `exec`: `interspersed=False`);
- a list is given by repeating the flag; of any other flag the last one counts.

A flag that Docker has and we do not (yet) have is refused with its reason, which stands in
`minirt.cli.differences`: that table is read only when somebody asks for such a flag.

Rules of this room: nothing here knows what an option does. Only builtins are imported, since every start passes here.
"""

from __future__ import annotations

import os

from minirt.errors import MinirtError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

PROGRAM = "minirt"
_CONTROL = {number: f"\\x{number:02x}" for number in (*range(9), *range(11, 32), *range(127, 160))}


def complain(sentence: object, code: int = 1) -> int:
    """Tells the user a sentence, or an error's, on standard error under the program's name. Returns the exit code that
    goes with it. It may quote an image or a server: what could command the terminal is spelled out.
    """
    try:
        os.write(2, f"{PROGRAM}: {sentence}\n".translate(_CONTROL).encode("utf-8", "surrogateescape"))
    except OSError:
        pass  # nobody is there to read it; the code says it too
    return code


# What `--help` calls the options of a chapter. An option without a chapter belongs to the command itself.
SECTIONS = {
    1: "Processes",
    2: "Names",
    3: "Processes",
    4: "Files and mounts",
    5: "Shared memory",
    6: "Network",
    7: "Users",
    8: "Memory and CPU",
    9: "Layers",
    10: "Capabilities",
    11: "System calls",
    12: "The process",
    13: "Images",
    14: "Registries",
    15: "Networks",
    16: "Volumes",
    17: "Containers",
}

TRUE = ("1", "t", "T", "true", "TRUE", "True")
FALSE = ("0", "f", "F", "false", "FALSE", "False")


class Option:
    """One option of a command.

    `long`: its name without dashes. `kind`: `bool`, `string`, `int`, `bytes`, `list`, `filter` (a list of
    name=value), `map` (name=value, as a dict), or any other word, which is then read like `string` and only shown in
    the help. `help`: one sentence. `short`: its letter. `default`: what it is when not given. `chapter`: the chapter
    that explains it, 0 for the command itself. `check`: turns one value into what the command wants, or raises
    ValueError with the reason. `alias`: this is only another spelling of the option with that long name, accepted and
    not shown.
    """

    __slots__ = ("alias", "chapter", "check", "default", "help", "kind", "long", "short")

    def __init__(
        self,
        long: str,
        kind: str = "bool",
        help: str = "",
        *,
        short: str = "",
        default: Any = None,
        chapter: int = 0,
        check: Callable[[str], Any] | None = None,
        alias: str = "",
    ) -> None:
        self.long, self.kind, self.help, self.short = long, kind, help, short
        self.default, self.chapter, self.check, self.alias = default, chapter, check, alias

    @property
    def repeats(self) -> bool:
        """Whether each further use adds a value instead of replacing the one before."""
        return self.kind in ("list", "filter", "map")

    def spelled(self) -> str:
        """The option as messages name it: `-e, --env` or `--name`."""
        return f"-{self.short}, --{self.long}" if self.short else f"--{self.long}"

    def empty(self) -> Any:
        """Its value when it was not given."""
        if self.kind == "map":
            return {}
        if self.repeats:
            return list(self.default or ())
        if self.kind == "bool":
            return bool(self.default)
        return "" if self.default is None and self.kind == "string" else self.default

    def value(self, text: str) -> Any:
        """The value that `text` stands for; raises ValueError with the reason."""
        value: Any = text
        if self.kind == "bool":
            if text not in TRUE and text not in FALSE:
                raise ValueError(f'parsing "{text}": invalid syntax')
            value = text in TRUE
        elif self.kind == "int":
            digits = text[1:] if text[:1] in ("-", "+") else text
            if not (digits.isascii() and digits.isdigit()):
                raise ValueError(f'parsing "{text}": invalid syntax')
            value = int(text)
        elif self.kind == "bytes" and self.check is None:
            from minirt.units import parse_size

            try:
                value = parse_size(text)
            except (ValueError, MinirtError):
                raise ValueError(f"invalid size: '{text}'") from None
        elif self.kind == "filter" and "=" not in text:
            raise ValueError("bad format of filter (expected name=value)")
        return self.check(value) if self.check else value


HELP = Option("help", help="Print usage")


class Options(dict[str, "Any"]):
    """What was asked: option values by long name, `.arguments` (the positional ones), `.given` (the long names that
    were typed).
    """

    __slots__ = ("arguments", "given")

    arguments: list[str]
    given: set[str]


class HelpAsked(Exception):
    """`--help` was among the flags: the message is the text to print."""


class Command:
    """One command.

    `name`: as typed after `minirt`, e.g. `ps` or `image inspect`. `usage`: what follows the name. `summary`: one
    sentence. `options`: its table. `action`: called with the parsed `Options`, returns the exit code (None is 0).
    `minimum` and `maximum`: how many positional arguments it takes (maximum None: any number). `interspersed`:
    whether flags may follow the first of them. `aliases`: other full spellings, shown in the help. `ours`: every
    failure of this command that is not the container's own exits with 125 (run, create, exec).
    """

    def __init__(
        self,
        name: str,
        usage: str,
        summary: str,
        options: Sequence[Option] = (),
        *,
        action: Callable[[Options], int | None] | None = None,
        minimum: int = 0,
        maximum: int | None = None,
        interspersed: bool = True,
        aliases: Sequence[str] = (),
        ours: bool = False,
    ) -> None:
        self.name, self.usage, self.summary, self.options = name, usage, summary, tuple(options)
        self.action, self.minimum, self.maximum = action, minimum, maximum
        self.interspersed, self.aliases, self.ours = interspersed, tuple(aliases), ours

    def usage_line(self) -> str:
        """`minirt run [OPTIONS] IMAGE [COMMAND] [ARG...]`."""
        return f"{PROGRAM} {self.name} {self.usage}".rstrip()

    def parse(self, argv: Sequence[str]) -> Options:
        """Reads a command line.

        `argv`: what follows the command's name. Returns the options with every default filled in. Raises
        `UsageError` (125) for a flag that is unknown, refused or has a bad value; `MinirtError` (1) for a wrong
        number of arguments; `HelpAsked`.
        """
        by_long = {option.long: option for option in self.options}
        by_short = {option.short: option for option in self.options if option.short}
        parsed = Options((option.long, option.empty()) for option in self.options if not option.alias)
        parsed.arguments, parsed.given = [], set()
        words = iter(argv)
        for word in words:
            if word == "--":
                parsed.arguments += words
            elif word.startswith("--"):
                self._long(word[2:], words, by_long, parsed)
            elif word.startswith("-") and word != "-":
                self._short(word[1:], words, by_short, parsed)
            else:
                parsed.arguments.append(word)
                if not self.interspersed:
                    parsed.arguments += words
        self._count(len(parsed.arguments))
        return parsed

    def _long(self, text: str, words: Iterator[str], by_long: dict[str, Option], parsed: Options) -> None:
        name, equals, value = text.partition("=")
        if not name or name.startswith("-"):
            raise self.refuse(f"bad flag syntax: --{text}")
        option = by_long.get(name)
        if option is None:
            if name == "help":
                raise HelpAsked(self.help())
            raise self._unknown("--" + name, f"unknown flag: --{name}")
        if not equals:
            value = "true" if option.kind == "bool" else self._next(words, f"--{name}")
        self._store(option, value, by_long, parsed)

    def _short(self, rest: str, words: Iterator[str], by_short: dict[str, Option], parsed: Options) -> None:
        while rest:
            letters = rest  # what is left of the bundle, as a message names it
            letter, rest = rest[0], rest[1:]
            option = by_short.get(letter)
            if option is None:
                if letter == "h":
                    raise HelpAsked(self.help())
                raise self._unknown("-" + letter, f"unknown shorthand flag: '{letter}' in -{letters}")
            if len(rest) > 1 and rest[0] == "=":
                value, rest = rest[1:], ""
            elif option.kind == "bool":
                value = "true"
            elif rest:
                value, rest = rest, ""
            else:
                value = self._next(words, f"'{letter}' in -{letters}")
            self._store(option, value, {}, parsed)

    def _next(self, words: Iterator[str], flag: str) -> str:
        for word in words:
            return word
        raise self.refuse(f"flag needs an argument: {flag}")

    def _store(self, option: Option, text: str, by_long: dict[str, Option], parsed: Options) -> None:
        if option.alias:
            option = by_long.get(option.alias) or next(each for each in self.options if each.long == option.alias)
        try:
            value = option.value(text)
        except ValueError as reason:
            raise self.refuse(f'invalid argument "{text}" for "{option.spelled()}" flag: {reason}') from None
        parsed.given.add(option.long)
        if option.kind == "map":
            name, _, given = value.partition("=")
            parsed[option.long][name] = given
        elif option.repeats:
            parsed[option.long].append(value)
        else:
            parsed[option.long] = value

    def _unknown(self, flag: str, sentence: str) -> UsageError:
        """The refusal of a flag that the table does not have: with its reason where Docker has that flag."""
        from minirt.cli import differences

        reason = differences.reason(self.name, flag)
        return self.refuse(reason or sentence)

    def refuse(self, sentence: str) -> UsageError:
        """A `UsageError` for this command: the sentence, the usage line and where to read more."""
        return UsageError(self._with_usage(sentence))

    def _with_usage(self, sentence: str) -> str:
        more = f"Run '{PROGRAM} {self.name} --help' for more information"
        return f"{sentence}\n\nUsage:  {self.usage_line()}\n\n{more}"

    def _count(self, number: int) -> None:
        least, most = self.minimum, self.maximum
        if number >= least and (most is None or number <= most):
            return
        if most == 0:
            wants = "accepts no arguments"
        elif most is None:
            wants = f"requires at least {least} argument{'' if least == 1 else 's'}"
        elif least == most:
            wants = f"requires {least} argument{'' if least == 1 else 's'}"
        elif number > most:
            wants = f"requires at most {most} argument{'' if most == 1 else 's'}"
        else:
            wants = f"requires at least {least} argument{'' if least == 1 else 's'}"
        raise MinirtError(self._with_usage(f"'{PROGRAM} {self.name}' {wants}"))

    def shown(self) -> list[Option]:
        """The options that the help names, by long name, `--help` not among them."""
        return sorted((option for option in self.options if not option.alias), key=lambda option: option.long)

    def help(self) -> str:
        """The text of `--help`: usage, sentence, aliases, the options grouped by chapter."""
        parts = [f"Usage:  {self.usage_line()}\n\n{self.summary}\n"]
        if self.aliases:
            parts.append("Aliases:\n  " + ", ".join(f"{PROGRAM} {alias}" for alias in self.aliases) + "\n")
        groups: dict[int, list[Option]] = {}
        for option in self.shown():
            groups.setdefault(option.chapter, []).append(option)
        heads = {option.long: head(option) for option in self.options}
        width = max((len(text) for text in heads.values()), default=0) + 3
        for chapter in sorted(groups):
            title = "Options" if not chapter else f"{SECTIONS.get(chapter, 'More')}, chapter {chapter:02}"
            lines = [line for option in groups[chapter] for line in describe(heads[option.long], option, width)]
            parts.append(f"{title}:\n" + "\n".join(lines) + "\n")
        return "\n".join(parts)

    def completion(self) -> list[tuple[str, str, bool]]:
        """For a shell's completion: (flag, its sentence, whether it takes a value) for each spelling."""
        rows = []
        for option in [*self.shown(), HELP]:
            takes = option.kind != "bool"
            rows.append((f"--{option.long}", option.help, takes))
            if option.short:
                rows.append((f"-{option.short}", option.help, takes))
        return rows


def head(option: Option) -> str:
    """The left column of the help: `  -e, --env list`."""
    short = f"-{option.short}, " if option.short else "    "
    kind = "" if option.kind == "bool" else " " + option.kind
    return f"  {short}--{option.long}{kind}"


def describe(left: str, option: Option, width: int, columns: int = 100) -> list[str]:
    """The lines of the help for one option: its head padded to `width`, its sentence wrapped at `columns`."""
    sentence = option.help
    if option.default not in (None, False, "", (), []):
        shown = "true" if option.default is True else option.default
        sentence += f' (default "{shown}")' if option.kind == "string" else f" (default {shown})"
    lines, line = [], ""
    for word in sentence.split():
        if line and width + len(line) + 1 + len(word) > columns:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    lines.append(line)
    return [left.ljust(width) + lines[0]] + [" " * width + more for more in lines[1:]]

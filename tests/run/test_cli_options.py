"""The option parser: Docker's rules, its refusals, its help. Properties are checked with hypothesis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirt.cli import differences, main
from minirt.cli.options import Command, HelpAsked, Option, Options
from minirt.errors import MinirtError, UsageError

COMMAND = Command(
    "test",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "A command for tests",
    (
        Option("all", short="a"),
        Option("tty", short="t"),
        Option("proxy", default=True),
        Option("name", "string"),
        Option("env", "list", short="e"),
        Option("count", "int", short="n", default=-1),
        Option("size", "bytes", short="s", default=0),
        Option("filter", "filter", short="f"),
        Option("call", "string", alias="name"),
    ),
    minimum=1,
    interspersed=False,
)
FREE = Command("free", "[OPTIONS] [NAME...]", "Flags may stand anywhere", COMMAND.options)


def parse(*words: str) -> Options:
    return COMMAND.parse(words)


def test_each_way_to_spell_a_value():
    for words in (["--name", "x"], ["--name=x"], ["--call", "x"]):
        assert parse(*words, "image")["name"] == "x"
    for words in (["-e", "A=1"], ["-eA=1"], ["-e=A=1"], ["--env", "A=1"], ["--env=A=1"]):
        assert parse(*words, "image")["env"] == ["A=1"]
    assert parse("--name=", "image")["name"] == ""
    assert parse("--name", "--all", "image")["name"] == "--all", "a value may look like a flag"


def test_booleans_and_bundles():
    assert parse("-at", "image")["tty"] is True
    assert parse("-tn5", "image")["count"] == 5
    assert parse("-tn", "5", "image")["count"] == 5
    assert parse("--proxy=false", "image")["proxy"] is False
    assert parse("--all=0", "image")["all"] is False
    assert parse("-a=false", "image")["all"] is False
    assert parse("image")["proxy"] is True
    assert parse("-at", "image").given == {"all", "tty"}


def test_flags_end_at_the_first_argument_and_at_two_dashes():
    assert parse("-a", "image", "-t", "--name", "x").arguments == ["image", "-t", "--name", "x"]
    assert parse("--", "-a", "--").arguments == ["-a", "--"]
    assert parse("image", "--").arguments == ["image", "--"]
    free = FREE.parse(["one", "-a", "two", "--", "-t"])
    assert free.arguments == ["one", "two", "-t"] and free["all"] and not free["tty"]
    assert parse("-", "x").arguments == ["-", "x"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--nosuch"], "unknown flag: --nosuch"),
        (["-atZ"], "unknown shorthand flag: 'Z' in -Z"),
        (["--name"], "flag needs an argument: --name"),
        (["-e"], "flag needs an argument: 'e' in -e"),
        (["--all=maybe", "x"], 'invalid argument "maybe" for "-a, --all" flag: parsing "maybe": invalid syntax'),
        (["-n", "five", "x"], 'invalid argument "five" for "-n, --count" flag: parsing "five": invalid syntax'),
        (["-n", "1_0", "x"], 'invalid argument "1_0" for "-n, --count" flag: parsing "1_0": invalid syntax'),
        (["-s", "x", "x"], "invalid argument \"x\" for \"-s, --size\" flag: invalid size: 'x'"),
        (["-f", "x", "x"], 'invalid argument "x" for "-f, --filter" flag: bad format of filter (expected name=value)'),
        (["--=x"], "bad flag syntax: --=x"),
    ],
)
def test_bad_flags_are_125_with_dockers_sentence_and_the_usage(words, sentence):
    with pytest.raises(UsageError) as caught:
        parse(*words)
    first, _, rest = str(caught.value).partition("\n\n")
    assert first == sentence
    usage = "Usage:  minirt test [OPTIONS] IMAGE [COMMAND] [ARG...]"
    assert rest == f"{usage}\n\nRun 'minirt test --help' for more information"
    assert caught.value.exit_code == 125


def test_a_wrong_number_of_arguments_is_1():
    with pytest.raises(MinirtError, match="'minirt test' requires at least 1 argument") as caught:
        parse("-a")
    assert caught.value.exit_code == 1
    for least, most, number, sentence in (
        (0, 0, 1, "accepts no arguments"), (1, 1, 2, "requires 1 argument"), (2, 2, 1, "requires 2 arguments"),
        (0, 1, 2, "requires at most 1 argument"), (1, None, 0, "requires at least 1 argument")):
        command = Command("x", "", "", minimum=least, maximum=most)
        with pytest.raises(MinirtError, match=sentence):
            command.parse(["word"] * number)


def test_help_is_asked_for_anywhere_among_the_flags():
    for words in (["--help"], ["-a", "--help", "image"], ["-h"]):
        with pytest.raises(HelpAsked, match="A command for tests"):
            parse(*words)
    assert parse("image", "--help").arguments == ["image", "--help"]


def test_every_command_has_help_that_names_exactly_its_flags():
    for name in main.MODULES:
        command = main.load(name)
        if command is None:
            continue
        text = command.help()
        for option in command.options:
            assert (f"--{option.long} " in text or f"--{option.long}\n" in text) is not bool(option.alias), option.long
        assert all(len(line) <= 100 for line in text.splitlines()), name
        assert command.action is not None
        assert {flag for flag, _, _ in command.completion()} >= {f"--{each.long}" for each in command.shown()}


def test_no_flag_is_both_known_and_refused():
    for name, refused in differences.FLAGS.items():
        command = main.load(name)
        if command is None:
            continue
        known = {option.long for option in command.options}
        assert not known & set(refused), name
        letters = {option.short for option in command.options if option.short}
        assert not letters & {short for short, _, _ in refused.values() if short}, name
        for long, (_, chapter, reason) in refused.items():
            assert bool(chapter) != bool(reason), long
            sentence = differences.reason(name, f"--{long}")
            assert sentence.startswith(f"--{long} ")


def test_no_command_is_both_there_and_refused():
    both = {name for name in differences.COMMANDS if main.load(name) is not None}
    assert both <= {"exec", "port"}, both


# -- properties --------------------------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
values = words.filter(lambda text: bool(text))
spelled = st.one_of(
    st.tuples(st.just("all"), st.just(True), st.sampled_from([["-a"], ["--all"], ["--all=true"], ["-a=1"]])),
    st.tuples(st.just("tty"), st.just(True), st.sampled_from([["-t"], ["--tty"], ["--tty=T"]])),
    st.integers(-(10**9), 10**9).flatmap(
        lambda n: st.tuples(
            st.just("count"), st.just(n), st.sampled_from([["-n", str(n)], [f"-n{n}"], [f"--count={n}"]])
        )
    ),
    values.flatmap(
        lambda v: st.tuples(st.just("name"), st.just(v), st.sampled_from([["--name", v], [f"--name={v}"]]))
    ),
    values.flatmap(
        lambda v: st.tuples(st.just("env"), st.just(v), st.sampled_from([["-e", v], ["--env", v], [f"--env={v}"]]))
    ),
)


@given(st.lists(spelled, max_size=8), st.lists(words, max_size=6), values.filter(lambda text: text[0] != "-"))
def test_what_was_spelled_is_what_is_read(flags, rest, image):
    argv = [word for _, _, spelling in flags for word in spelling]
    parsed = parse(*argv, image, *rest)
    assert parsed.arguments == [image, *rest]
    expected: dict[str, object] = {"all": False, "tty": False, "count": -1, "name": "", "env": []}
    for name, value, _ in flags:
        if name == "env":
            expected["env"] = [*expected["env"], value]  # type: ignore[misc]
        else:
            expected[name] = value
    assert {name: parsed[name] for name in expected} == expected
    assert parsed.given == {name for name, _, _ in flags}


@given(st.lists(words, max_size=8))
def test_any_words_are_read_or_refused_in_words(argv):
    try:
        parsed = parse(*argv)
    except HelpAsked:
        return
    except MinirtError as error:
        assert str(error) and error.exit_code in (1, 125)
        return
    assert len(parsed.arguments) >= 1


@given(st.lists(st.sampled_from(["-a", "-t", "--name", "x", "--", "-", "-at", "--all=false", "-e", "--help"]),
       max_size=8))
def test_arguments_are_a_tail_of_the_words(argv):
    try:
        parsed = parse(*argv)
    except (MinirtError, HelpAsked):
        return
    assert argv[len(argv) - len(parsed.arguments):] == parsed.arguments

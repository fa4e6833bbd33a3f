"""`--format`, tables, JSON and filters."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirt.cli import format as formats
from minirt.errors import MinirtError

ROW = {
    "ID": "abc",
    "Names": "web",
    "State": {"Status": "running", "Running": True, "Pid": 7, "Nothing": None},
    "Cmd": ["a", "b c"],
    "Labels": {"x.y": "1", "b": "2"},
    "Label": lambda key: f"<{key}>",
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.ID}}-{{ .Names }}", "abc-web"),
        ("{{.State.Status}} {{.State.Running}} {{.State.Pid}}", "running true 7"),
        ("{{.State.Nothing}}", "<no value>"),
        ("{{json .Cmd}}", '["a","b c"]'),
        ("{{.Cmd | json}}", '["a","b c"]'),
        ('{{join .Cmd ", "}}', "a, b c"),
        ("{{.Cmd}}", "[a b c]"),
        ("{{.Labels}}", "map[b:2 x.y:1]"),
        ('{{index .Labels "x.y"}}{{index .Labels "no"}}', "1"),
        ("{{index .Cmd 1}}", "b c"),
        ("{{upper .Names}} {{lower `ABC`}} {{title .Names}}", "WEB abc Web"),
        ("{{.Names | upper | json}}", '"WEB"'),
        ("{{json (index .Cmd 0)}}", '"a"'),
        ("{{len .Cmd}}", "2"),
        ("{{println .ID}}x", "abc\nx"),
        ('{{.Label "k"}}', "<k>"),
        ("a {{- .ID -}} b", "aabcb"),
        ('{{print "}}"}}', "}}"),
        ("{{/* a comment */}}x", "x"),
    ],
)
def test_what_templates_can_do(template, text):
    assert formats.Template(template).render(ROW) == text


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("{{range .Cmd}}x{{end}}", '"range" is not supported'),
        ("{{if .ID}}x{{end}}", '"if" is not supported'),
        ('{{split .ID ","}}', '"split" is not supported'),
        ("{{.ID", "unclosed action"),
        ('{{"x}}', "unclosed action"),
        ("{{}}", "missing value"),
        ("{{(.ID}}", "unclosed left paren"),
        ("{{.ID)}}", "unexpected"),
        ("{{.No}}", "no field .No"),
        ("{{.State.No}}", "no field .State.No"),
        ("{{.ID.x}}", "has no x"),
        ("{{join .ID}}", "wrong number of args for join"),
        ("{{index .Cmd 9}}", "out of range"),
        ("{{.ID .Names}}", "is a value"),
        ("{{len 5}}", "len cannot take"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(template, word):
    with pytest.raises(MinirtError, match=word.replace(".", r"\.").replace("(", r"\(")):
        formats.Template(template).render(ROW)


@given(st.text())
def test_no_template_ends_in_anything_but_text_or_a_sentence(template):
    try:
        assert isinstance(formats.Template(template).render(ROW), str)
    except MinirtError as error:
        assert str(error)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12))
def test_json_reads_back_the_same(value):
    assert json.loads(formats.to_json(value)) == value
    assert json.loads(formats.to_json(value, indent=4)) == value


def test_json_looks_as_dockers():
    assert formats.to_json({"a": [1, "ä"], "b": {}, "c": []}) == '{"a":[1,"ä"],"b":{},"c":[]}'
    assert formats.to_json({"a": [1], "b": {}}, indent=4) == '{\n    "a": [\n        1\n    ],\n    "b": {}\n}'


def test_tables_are_as_wide_as_dockers():
    lines = formats.align(["CONTAINER ID\tSTATUS\tNAMES", "0123456789ab\tUp\tx"])
    assert lines == "CONTAINER ID   STATUS    NAMES\n0123456789ab   Up        x\n"


def test_rows():
    items = [{"ID": "1", "Names": "a"}, {"ID": "2", "Names": "b"}]
    known = {"table": "{{.ID}}\t{{.Names}}", "headings": {"ID": "ID", "Names": "NAMES"}}
    assert formats.rows(items, "", **known) == "ID        NAMES\n1         a\n2         b\n"
    assert formats.rows(items, "table", **known) == formats.rows(items, "", **known)
    assert formats.rows(items, "", quiet="{{.ID}}", **known) == "1\n2\n"
    assert formats.rows(items, "{{.Names}}", quiet="{{.ID}}", **known) == "a\nb\n"
    assert formats.rows(items, r"table {{upper .Names}}\tx", **known) == "NAMES     x\nA         x\nB         x\n"
    assert formats.rows(items, "json", **known) == '{"ID":"1","Names":"a"}\n{"ID":"2","Names":"b"}\n'


def test_filters():
    assert formats.filters(["label=a=b", "label=c", "name=x"], ("label", "name")) == {"label": ["a=b", "c"],
                           "name": ["x"]}
    with pytest.raises(MinirtError, match="invalid filter 'nosuch'"):
        formats.filters(["nosuch=1"], ("name",))
    assert formats.has_label({"a": "b"}, "a") and formats.has_label({"a": "b"}, "a=b")
    assert not formats.has_label({"a": "b"}, "a=c")

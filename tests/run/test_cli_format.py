"""`--format`, tables, JSON and filters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirt.cli import format as formats
from minirt.cli import shapes
from minirt.errors import MinirtError, TemplateError
from tests.templates import DOCUMENT, REFUSED, SHOWN

ROW = {"ID": "abc", "Names": "web", "Labels": "a=1,b=2", "Label": lambda key: f"<{key}>", "Platform": None}
KNOWN = {"table": "{{.ID}}\t{{.Names}}",
         "headings": {"ID": "CONTAINER ID", "Names": "NAMES", "Labels": "LABELS", "Platform": "PLATFORM"}}


@pytest.mark.parametrize(("template", "text"), SHOWN)
def test_a_document_is_shown_as_docker_shows_it(template, text):
    assert shapes.render(formats.parse(template), DOCUMENT) == text


@pytest.mark.parametrize(("template", "message", "status"), REFUSED)
def test_what_docker_refuses_is_refused_in_its_words(template, message, status):
    with pytest.raises(MinirtError) as raised:
        try:
            shapes.render(formats.parse(template, code=formats.MALFORMED), DOCUMENT)
        except TemplateError as error:
            raise formats.told(error, "template parsing error") from None
    assert str(raised.value) == f"template parsing error: template: {message}"
    assert raised.value.exit_code == status


@pytest.mark.parametrize(("template", "text"), [
    ("{{.ID}} {{.Names | upper | json}}", 'abc "WEB"'),
    ('{{.Label "k"}}', "<k>"),
    ("{{json .}}", '{"ID":"abc","Labels":"a=1,b=2","Names":"web","Platform":null}'),
    ("{{.Platform}}", "<nil>"),
    ('{{range split .Labels ","}}[{{.}}]{{end}}', "[a=1][b=2]"),
    ('{{if eq .Names "web"}}{{slice .ID 0 2}}{{end}}', "ab"),
])
def test_a_row(template, text):
    assert formats.rows([ROW], template, **KNOWN) == f"{text}\n"


@pytest.mark.parametrize(("template", "message"), [
    ("{{.No}}", "template: :1:2: executing \"\" at <.No>: can't evaluate field No: there is ID, Label, Labels, Names"),
    ("{{.ID.x}}", "can't evaluate field x in type string"),
    ("{{.Label}}", "wrong number of args for Label: want 1 got 0"),
    ("{{range .ID}}{{end}}", "range can't iterate over abc"),
    ("table {{.ID", "template: :1: unclosed action"),
    ('{{define "a"}}{{end}}', "{{define}} is not supported"),
])
def test_what_a_row_cannot_do(template, message):
    with pytest.raises(MinirtError) as raised:
        formats.rows([ROW], template, **KNOWN)
    assert str(raised.value).startswith("template parsing error: template: :1")
    assert message in str(raised.value)


def test_parts_of_a_template_may_lie_deep_but_not_too_deep():
    assert formats.rows([ROW], "{{if true}}" * 50 + "x" + "{{end}}" * 50, **KNOWN) == "x\n"
    with pytest.raises(MinirtError, match="nested too deeply"):
        formats.rows([ROW], "{{if true}}" * 5000 + "x" + "{{end}}" * 5000, **KNOWN)
    for depth in range(50, 400, 25):  # somewhere it can be read, but not done
        try:
            assert formats.rows([ROW], "{{not " + "(not " * depth + "true" + ")" * depth + "}}", **KNOWN)
        except MinirtError as error:
            assert "nested too deeply" in str(error)


# What a template is made of: many of these in a row are nearly one.
PIECES = (
    "{{", "}}", "{{if ", "{{range ", "{{end}}", "{{else}}", "with ", "$x", ":=", "=", ",", "|", "(", ")", ".", ".Name",
    ".Config", "printf ", "index ", "len ", "and ", "eq ", '"%d"', '"a"', "`b`", "'c'", "0x1F", "1.5", "-3", " ",
    "-}}", "{{- ", "/*", "*/", "\n", "nil", "true", "break", "é", '"%*.*f"', "slice ", "join ", "json ")


FUNCTIONS = ("printf", "print", "index", "len", "slice", "join", "split", "upper", "title", "pad", "truncate", "json",
             "eq", "lt", "and", "or", "not", "html", "js", "urlquery", "call")
VALUES = (
    ".Name", ".Config.Env", ".Config.Labels", ".State", ".State.Pid", ".Nosuch", ".", "$", "nil", "1", "-2", "1.5",
    "true", '"a"', ".HostConfig.CapAdd", ".State.Health", ".Mounts", '"%5d|%*s"', "(len .Name)")


@given(st.sampled_from(FUNCTIONS), st.lists(st.sampled_from(VALUES), max_size=4))
def test_no_call_ends_in_anything_but_text_or_a_sentence(function, arguments):
    test_no_template_ends_in_anything_but_text_or_a_sentence.hypothesis.inner_test(
        "{{" + " ".join([function, *arguments]) + "}}")


@given(st.text() | st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_no_template_ends_in_anything_but_text_or_a_sentence(template):
    for render in (lambda: formats.rows([ROW], template, **KNOWN),
                   lambda: shapes.render(formats.parse(template), DOCUMENT)):
        try:
            assert isinstance(render(), str)
        except MinirtError as error:
            assert str(error)


def test_tables_are_as_wide_as_dockers():
    lines = formats.align(["CONTAINER ID\tSTATUS\tNAMES", "0123456789ab\tUp\tx"])
    assert lines == "CONTAINER ID   STATUS    NAMES\n0123456789ab   Up        x\n"


def test_rows():
    items = [{"ID": "1", "Names": "a"}, {"ID": "2", "Names": "b"}]
    assert formats.rows(items, "", **KNOWN) == "CONTAINER ID   NAMES\n1              a\n2              b\n"
    assert formats.rows(items, "table", **KNOWN) == formats.rows(items, "", **KNOWN)
    assert formats.rows(items, "", quiet="{{.ID}}", **KNOWN) == "1\n2\n"
    assert formats.rows(items, "{{.Names}}", quiet="{{.ID}}", **KNOWN) == "a\nb\n"
    assert formats.rows(items, r"table {{upper .Names}}\tx", **KNOWN) == "NAMES     x\nA         x\nB         x\n"
    assert formats.rows(items, "json", **KNOWN) == '{"ID":"1","Names":"a"}\n{"ID":"2","Names":"b"}\n'
    assert formats.rows([], "", **KNOWN) == "CONTAINER ID   NAMES\n"


@pytest.mark.parametrize(("template", "head"), [
    (r"{{.ID}}\t{{.Label `com.example.my-app_x`}}", "CONTAINER ID   my app x"),
    (r"{{truncate .ID 2}}\t{{pad .Names 1 2}}|{{json .Names}}", "CONTAINER ID    NAMES  |NAMES"),
    (r"{{join (split .Names `,`) `;`}}{{if .Names}}!{{end}}", "NAMES!"),
    (r"{{.ID}}{{range split .Names `,`}}{{.}}{{end}}", "CONTAINER ID"),
    ("au {{.ID}}", "au CONTAINER ID"),
])
def test_the_head_of_a_table_keeps_the_names_of_the_columns(template, head):
    assert formats.rows([ROW], f"table {template}", **KNOWN).splitlines()[0] == head


def test_filters():
    assert formats.filters(["label=a=b", "label=c", "name=x"], ("label", "name")) == {"label": ["a=b", "c"],
                           "name": ["x"]}
    with pytest.raises(MinirtError, match="invalid filter 'nosuch'"):
        formats.filters(["nosuch=1"], ("name",))
    assert formats.has_label({"a": "b"}, "a") and formats.has_label({"a": "b"}, "a=b")
    assert not formats.has_label({"a": "b"}, "a=c")

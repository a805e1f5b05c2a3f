"""Highlights and templates: what is marked, and that nothing in a record acts on a terminal there either."""

import re
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.cli.highlight import HIT, Highlight
from logagg.cli.output import Text
from logagg.cli.template import Template
from logagg.cli.terminal import Failure

ROW: dict[str, Any] = {
    "timestamp": "2026-11-20T10:00:00Z", "level": "ERROR", "service": "shop", "host": None,
    "message": "a\nb\x1b[2J", "attributes": {"user": {"id": 7}, "a.b": "dotted", "list": [1]},
}  # fmt: skip
#: What may act on a terminal, or hide a part of a line.
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
OURS = re.compile(r"\x1b\[[0-9;]+m")


def marked(query: str, text: str) -> str:
    return Highlight(query).mark(text).replace(f"\x1b[{HIT}m", "<").replace("\x1b[0m", ">")


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("timeout", "Timeout, timeouts, a timeout", "<Timeout>, timeouts, a <timeout>"),
        ("foo bar", "bar foo", "<bar> <foo>"),
        ('"connection reset"', "connection  reset by connection", "<connection  reset> by connection"),
        ("10.0.0.1", "at 10.0.0.1:80 and 10.0.0.12", "at <10.0.0.1>:80 and 10.0.0.12"),
        ("pay* *ment", "payload shipment", "<payload> <shipment>"),
        ('"*ssword for*"', "password for x", "pa<ssword for> x"),
        (r'"*\**"', "2*3", "2<*>3"),
        ("/ord(er|ner) \\d+/", "order 12, Order 13", "<order 12>, Order 13"),
        ("/ORD/i", "order", "<ord>er"),
        ("/(?i)ORD/", "order", "<ord>er"),
        (r"/\p{L}/", "what Python's engine does not know", "what Python's engine does not know"),
        ("message:reset service:x level>=error", "reset x error", "<reset> x error"),
        ("a -b not c (d or e) -(f or g) -(-(h)) i", "a b c d e f g h i", "<a> b c <d> <e> f g h <i>"),
        ("a or b and c", "a or b and c", "<a> or <b> and <c>"),
        ('"\\u00e9t\\u00e9"', "été", "<été>"),
        ("std::io", "std::io", "<std::io>"),
        ("*", "x", "x"),
        ("x", "1\nx\n2", "1\n<x>\n2"),
        ('"a b"', "a\nb", "<a>\n<b>"),
    ],
)
def test_what_matched_is_marked(query: str, text: str, expected: str) -> None:
    assert marked(query, text) == expected


def test_an_attribute_that_was_asked_for_is_marked_whole() -> None:
    found = Text(colour=True, zone=UTC, highlight=Highlight("user.id>=3 attributes.list:*")).page([ROW])
    assert re.findall(rf"\x1b\[{HIT}m(.*?)\x1b", found) == ["7", "[1]"]


def test_a_regular_expression_cannot_hang_the_terminal() -> None:
    highlight = Highlight("/(x+)+y/ word")
    assert f"\x1b[{HIT}mword" in highlight.mark("x" * 5000 + " word")


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=20)
    | st.lists(st.sampled_from(['"', "/", "(", ")", "-", "not ", "*", "\\", "a:", "[", "x "])).map("".join)
)
def test_any_query_can_be_read_and_only_colours(query: str) -> None:
    text = "some x [text] \\u1234"
    assert OURS.sub("", Highlight(query).mark(text)) == text


def line(template: str, **changes: Any) -> str:
    return Template(template, zone=UTC, colour=False).page([ROW | changes])


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "{timestamp} {level:<6}|{service:>6}|{service:^6}|{service:.2}",
            "2026-11-20 10:00:00.000Z ERROR |  shop| shop |sh",
        ),
        ("{message}", "a\\nb\\x1b[2J"),
        ("{attributes.user.id} {attributes.user} {attributes.a.b} {attributes.list}", '7 {"id":7} dotted [1]'),
        ("{host}|{attributes.nothing:>3}|{attributes.user.id.x}", "|   |"),
        (r"{{{level}}}\t{id}", "{ERROR}\t"),
        ("plain", "plain"),
    ],
)
def test_templates(template: str, expected: str) -> None:
    assert line(template) == expected + "\n"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{mesage}", "no field 'mesage'; there are id timestamp received_at level service"),
        ("{message.__class__}", "no field 'message.__class__'"),
        ("{message[0]}", "no field 'message[0]'"),
        ("{attributes.}", "no field 'attributes.'"),
        ("{}", "no field ''"),
        ("{level!r}", "{level!r} is no width"),
        ("{level:x}", "{level:x} is no width"),
        ("{level:{id}}", "{level:{id}} is no width"),
        ("{level:<99999}", "{level:<99999} is no width"),
        ("{level", "expected '}' before end of string"),
        ("}", "Single '}' encountered"),
    ],
)
def test_a_template_that_cannot_be(template: str, message: str) -> None:
    with pytest.raises(Failure, match=re.escape(message)):
        line(template)


def test_a_template_reads_attributes_and_not_objects() -> None:
    assert line("{attributes.__class__}{attributes.user.__class__}") == "\n"


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec=None), max_size=20) | st.just("\x1b[2J\n\u202e\x9b"))
def test_nothing_in_a_record_acts_on_a_terminal(text: str) -> None:
    row = ROW | {"message": text, "service": text, "attributes": {text: text, "a": {"b": text}}}
    highlight = Highlight("J")
    template = "{message} {service:<9} {attributes.a.b} {attributes.a} {timestamp}"
    forms = (
        Template(template, zone=UTC, colour=True, highlight=highlight),
        Text(colour=True, zone=UTC, highlight=highlight),
    )
    for form in forms:
        assert not ACTS.search(OURS.sub("", form.page([row])))
    assert forms[0].page([row]).count("\n") == 1

"""What clicks on the page make of a query is what the language means by it: the parser of the service is the judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from logagg.query.language import parse
from logagg.query.syntax import Equal, Field, Not

if TYPE_CHECKING:
    from logagg.tests.browser import Site

pytest_plugins = ["browser"]

TOGGLED = [
    ("", "level", "ERROR", "level=ERROR"),
    ("a b", "level", "ERROR", "a b level=ERROR"),
    ("a or b", "level", "ERROR", "(a or b) level=ERROR"),
    ("a and b", "level", "ERROR", "a b level=ERROR"),
    ("level=ERROR a", "level", "ERROR", "a"),
    ("level=ERROR", "level", "INFO", "(level=ERROR or level=INFO)"),
    ("(level=ERROR or level=INFO) x", "level", "ERROR", "x level=INFO"),
    ("level!=ERROR", "level", "ERROR", "level=ERROR"),
    ("not (a or b) -c", "host", "h", "not (a or b) -c host=h"),
    ('"a or (b" /or \\/ \\(/ x:/ or \\)/i', "host", "h", '"a or (b" /or \\/ \\(/ x:/ or \\)/i host=h'),
    ('service="a or b" or x', "host", "h", '(service="a or b" or x) host=h'),
    ("path=/var/log/x https://example.com/a?b=c", "host", "h", "path=/var/log/x https://example.com/a?b=c host=h"),
    ("(a or b)", "host", "h", "(a or b) host=h"),
    ("Order ORder", "host", "h", "Order ORder host=h"),
    ("x", "my field", "v w", 'x "my field"="v w"'),
    ("x", "service", None, "x -service:*"),
    ("-service:*", "service", "a", "(-service:* or service=a)"),
]
VALUES = [
    "",
    "a",
    "a b",
    "*",
    'a"b',
    "a\\b",
    "a\nb\tc\rd",
    "(or)",
    "-x",
    "200",
    "1.50",
    "true",
    "/x/",
    "é",
    "😀",
    "\x1b[2J",
    "a:b",
]
NAMES = [
    "user",
    "user.name",
    "my field",
    'a"b',
    "@x",
    "a*b",
    "level",
    "attributes.x",
    "é",
    "1st",
    "a\\b",
    "",
    "-x",
    "or",
]


def js(site: Site, expression: str, argument: Any) -> Any:
    """Evaluate an expression of the module `query` and an argument."""
    if not site.page.url.startswith(site.url):
        site.open(since="15m")
    return site.page.evaluate(
        f"async (a) => {{ const query = await import('/assets/query.js'); return {expression}; }}", argument
    )


def test_a_value_is_put_in_and_taken_out(site: Site) -> None:
    found = js(site, "a.map(([text, field, value]) => query.toggled(text, field, value))", TOGGLED)
    assert found == [expected for *_, expected in TOGGLED]
    for text, *_, expected in TOGGLED:
        assert parse(text)
        assert parse(expected)


def test_what_is_no_query_yet_is_left_as_it_is(site: Site) -> None:
    for text in ('a "b', "(a", "a)", "x:/a"):
        found = js(site, "query.toggled(a, 'level', 'INFO')", text)
        assert found == f"{text} level=INFO"
        assert (
            js(site, "query.toggled(query.toggled(a, 'level', 'INFO', true), 'level', 'INFO')", "x") == "x level=INFO"
        )


def test_a_value_means_itself(site: Site) -> None:
    for value in VALUES:
        check_value(site, value)


def check_value(site: Site, value: str) -> None:
    text = js(site, "query.toggled('', 'field', a)", value)
    assert parse(text) == Equal(Field("field", True), (value,))
    assert parse(js(site, "query.toggled('', 'field', a, true)", value)) == Not(Equal(Field("field", True), (value,)))
    assert js(site, "query.standing(query.toggled('x', 'field', a), 'field', a)", value) == 1
    assert js(site, "query.standing(query.toggled('x', 'field', a, true), 'field', a)", value) == -1
    assert js(site, "query.toggled(query.toggled('x', 'field', a), 'field', a)", value) == "x"


def test_an_attribute_of_any_name_means_itself(site: Site) -> None:
    for name in NAMES:
        assert parse(js(site, "query.toggled('', query.attribute(a), 'v')", name)) == Equal(Field(name, True), ("v",))


def test_the_words_that_are_marked_are_those_looked_for(site: Site) -> None:
    text = 'Foo -bar not baz "two words" service=x level>=info pay* (q or r) /s/ message:t'
    found = js(site, "query.wordsOf(a).source", text)
    assert found.split("(")[1:] != []
    marked = js(site, "'foo bar baz two words x info payment q r s t'.match(query.wordsOf(a))", text)
    assert marked == ["foo", "two", "words", "payment", "q", "r"]

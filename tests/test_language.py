import string
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.record import LEVELS
from logagg.query.errors import QueryError
from logagg.query.language import parse
from logagg.query.syntax import (
    COLUMNS,
    MESSAGE,
    NUMBERS,
    TEXTS,
    TIMES,
    All,
    And,
    Compare,
    Equal,
    Exists,
    Field,
    Node,
    Not,
    Or,
    Phrase,
    Regex,
    Substring,
    all_of,
    any_of,
    negation,
)

A, B, C = (Phrase(None, (word,)) for word in "abc")
SERVICE, LEVEL, USER = Field("service", False), Field("level", False), Field("user", True)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", All()),
        (" \n\t", All()),
        ("*", All()),
        # what holds for all or for none never stands within another condition
        ("* a *", A),
        ("* *", All()),
        ("a or *", All()),
        ("-* a", Not(All())),
        ("a or -*", A),
        ("-* or -*", Not(All())),
        ("--*", All()),
        ("a", A),
        ("a b", And((A, B))),
        ("a and b AND c", And((A, B, C))),
        ("a or b", Or((A, B))),
        ("a OR b c", Or((A, And((B, C))))),
        ("(a or b) c", And((Or((A, B)), C))),
        ("(a b) c", And((A, B, C))),
        ("a or (b or c)", Or((A, B, C))),
        ("-a", Not(A)),
        ("not a", Not(A)),
        ("--a", Not(Not(A))),
        ("-not a b", And((Not(Not(A)), B))),
        ("-(a b)", Not(And((A, B)))),
        ("a(b)c", And((A, B, C))),
        ("android orbit notable", And(tuple(Phrase(None, (w,)) for w in ("android", "orbit", "notable")))),
        ('"or"', Phrase(None, ("or",))),
        # a bare word with other characters is a phrase
        ("foo-bar.com", Phrase(None, ("foo", "bar", "com"))),
        ("10.0.0.1:514", Phrase(None, ("10", "0", "0", "1", "514"))),
        ("<b>", Phrase(None, ("b",))),
        ("12:30:01", Phrase(None, ("12", "30", "01"))),
        ("tokio::net", Phrase(None, ("tokio", "net"))),
        ("https://x.org/y", Phrase(None, ("https", "x", "org", "y"))),
        ("Straße_7 日本", And((Phrase(None, ("Straße_7",)), Phrase(None, ("日本",))))),
        # quotes and escapes
        ('"a b"', Phrase(None, ("a", "b"))),
        (r'"a \"b\" \\ \u00e9\n\/c"', Phrase(None, ("a", "b", "é", "c"))),
        (r'"\* a \*"', Phrase(None, ("a",))),
        ('"a\nb"', Phrase(None, ("a", "b"))),
        # stars
        ("pay*", Phrase(None, ("pay*",))),
        ("*word", Phrase(None, ("*word",))),
        ("a*b-c*", Phrase(None, ("a*b", "c*"))),
        ('"a * b"', Phrase(None, ("a", "*", "b"))),
        ("*ssword*", Substring(None, ("ssword",))),
        ('"*ssword for*"', Substring(None, ("ssword for",))),
        (r'"*a*\*--*"', Substring(None, ("a", "*--"))),
        ('"***"', All()),
        # fields
        ("service:api", Equal(SERVICE, ("api",))),
        ('service:"a b*"', Equal(SERVICE, ("a b", ""))),
        ('service:"*a*"', Equal(SERVICE, ("", "a", ""))),
        ('host:""', Equal(Field("host", False), ("",))),
        ("message:Api", Phrase(MESSAGE, ("Api",))),
        ('message:"a b*"', Phrase(MESSAGE, ("a", "b*"))),
        ('message:"*a b*"', Substring(MESSAGE, ("a b",))),
        ("message=a", Equal(MESSAGE, ("a",))),
        ("message!=a", Not(Equal(MESSAGE, ("a",)))),
        ("message:/a/", Regex(MESSAGE, "a")),
        ("service=api", Equal(SERVICE, ("api",))),
        ("service=a-b.c/d", Equal(SERVICE, ("a-b.c/d",))),
        ("service=/api/", Equal(SERVICE, ("/api/",))),
        ("service=pay*", Equal(SERVICE, ("pay", ""))),
        ("service=*a**b", Equal(SERVICE, ("", "a", "b"))),
        (r'service="a\*"', Equal(SERVICE, ("a*",))),
        ('service=""', Equal(SERVICE, ("",))),
        ("service!=api", Not(Equal(SERVICE, ("api",)))),
        ("service:*", Exists(SERVICE)),
        ("service=*", Exists(SERVICE)),
        ("-user:*", Not(Exists(USER))),
        ("user:ann", Equal(USER, ("ann",))),
        ("attributes.user:ann", Equal(USER, ("ann",))),
        ("attributes.service:api", Equal(Field("service", True), ("api",))),
        ("kubernetes.pod_name=x", Equal(Field("kubernetes.pod_name", True), ("x",))),
        ("app.kubernetes.io/name=x", Equal(Field("app.kubernetes.io/name", True), ("x",))),
        ('"odd key":x', Equal(Field("odd key", True), ("x",))),
        ('"level":"error"', Compare(LEVEL, "=", "ERROR")),
        ("Service:api", Equal(Field("Service", True), ("api",))),
        # comparisons
        ("user>5", Compare(USER, ">", 5)),
        ("user<=-2.5e3", Compare(USER, "<=", Decimal(-2500))),
        ('user>="5"', Compare(USER, ">=", 5)),
        ("user>2026-11-20T12:00", Compare(USER, ">", NOON)),
        ("id=7", Compare(Field("id", False), "=", 7)),
        ("facility:4", Compare(Field("facility", False), "=", 4)),
        ("severity!=4", Not(Compare(Field("severity", False), "=", 4))),
        ("level:ErRor", Compare(LEVEL, "=", "ERROR")),
        ("level=err", Compare(LEVEL, "=", "ERROR")),
        ("level>=warn", Compare(LEVEL, ">=", "WARNING")),
        ("level:*", Exists(LEVEL)),
        ("timestamp>=2026-11-20T12:00", Compare(Field("timestamp", False), ">=", NOON)),
        ("received_at<2026-11-20T13:00:00+01:00", Compare(Field("received_at", False), "<", NOON)),
        ('timestamp="2026-11-20 12:00:00Z"', Compare(Field("timestamp", False), "=", NOON)),
        # regular expressions
        ("/a.*b/", Regex(None, "a.*b")),
        (r"/a\/b\\\d/", Regex(None, r"a/b\\\d")),
        ("/a b/i (c)", And((Regex(None, "(?i)a b"), C))),
        ('service:/^a"/', Regex(SERVICE, '^a"')),
        ("user:/(?x) a # comment/", Regex(USER, "(?x) a # comment")),
    ],
)
def test_texts_and_their_trees(text: str, tree: Node) -> None:
    assert parse(text) == tree
    assert parse(str(tree)) == tree


words = st.text(string.ascii_letters + "_0ßÉж日", min_size=1, max_size=4)
starred = st.builds(lambda a, word, b: a + word + b, st.sampled_from(["", "*"]), words, st.sampled_from(["", "*"]))
anything = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('*"\\/-() '), max_size=6)
names = st.sampled_from(
    ["user", "a.b", "attributes", "service", "or", "x y", "", 'q"*\\', "attributes.", "attributes.x"]
)
attributes = st.builds(Field, names, st.just(True))
texts = attributes | st.builds(Field, st.sampled_from(sorted(TEXTS)), st.just(False))
places = st.sampled_from([None, MESSAGE])


leaves: st.SearchStrategy[Node] = st.one_of(
    st.just(All()),
    st.builds(Phrase, places, st.lists(starred | words, min_size=1, max_size=3).map(tuple)),
    st.builds(Phrase, places, words.map(lambda word: (word, "*", word))),
    st.builds(Substring, places, st.lists(anything.filter(bool), min_size=1, max_size=3).map(tuple)),
    st.builds(Regex, st.none() | texts, st.sampled_from(["a", "a/b", r"\\", r"\d+", '"(x y)"', "(?i)/"])),
    st.builds(
        lambda field, first, inner, last: Equal(field, (first, *inner, *last) if last else (first,)),
        texts,
        anything,
        st.lists(anything.filter(bool), max_size=2),
        st.lists(anything.filter(bool), max_size=1),
    ),
    st.builds(Exists, texts | st.builds(Field, st.sampled_from(sorted(COLUMNS)), st.just(False))),
    st.builds(
        Compare,
        attributes,
        st.sampled_from(["<", "<=", ">", ">="]),
        st.integers() | st.decimals(-(10**300), 10**300),
    ),
    st.builds(Compare, st.builds(Field, st.sampled_from(sorted(NUMBERS)), st.just(False)), st.just("="), st.integers()),
    st.builds(
        Compare,
        st.builds(Field, st.sampled_from(sorted(TIMES)), st.just(False)),
        st.sampled_from(["=", ">="]),
        st.datetimes(timezones=st.just(UTC)),
    ),
    st.builds(Compare, st.just(LEVEL), st.sampled_from(["=", "<", ">="]), st.sampled_from(LEVELS)),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(negation, inner),
        st.lists(inner, min_size=2, max_size=3).map(all_of),
        st.lists(inner, min_size=2, max_size=3).map(any_of),
    ),
    max_leaves=8,
)


@given(trees)
@settings(max_examples=250, deadline=None)
def test_the_text_of_a_tree_parses_to_the_tree(tree: Node) -> None:
    assert parse(str(tree)) == tree


def _parsed(text: str) -> Node | QueryError:
    try:
        return parse(text)
    except QueryError as error:
        return error


@given(st.text(st.sampled_from('ab:*=<>!-/\\"() \n.i') | st.characters(), max_size=30) | st.text(max_size=30))
@settings(max_examples=250, deadline=None)
def test_any_text_is_a_query_or_an_error_with_a_place(text: str) -> None:
    found = _parsed(text)
    if isinstance(found, QueryError):
        assert found.position is not None
        assert 0 <= found.position <= len(text)
        assert str(found).endswith("^")
    else:
        assert parse(str(found)) == found

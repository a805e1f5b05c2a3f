import string
import textwrap
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.record import LEVELS
from logagg.query.errors import QueryError
from logagg.query.language import MAX_DEPTH, MAX_QUERY, MAX_REGEXES, MAX_TERMS, parse
from logagg.query.syntax import (
    COLUMNS,
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
)
from logagg.query.text import MAX_REGEX, MAX_WORDS

A, B, C = (Phrase(None, (word,)) for word in "abc")
SERVICE, LEVEL, USER = Field("service", False), Field("level", False), Field("user", True)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", All()),
        (" \n\t", All()),
        ("*", All()),
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
        ("service:api", Phrase(SERVICE, ("api",))),
        ('service:"a b*"', Phrase(SERVICE, ("a", "b*"))),
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
        ("user:ann", Phrase(USER, ("ann",))),
        ("attributes.user:ann", Phrase(USER, ("ann",))),
        ("attributes.service:api", Phrase(Field("service", True), ("api",))),
        ("kubernetes.pod_name=x", Equal(Field("kubernetes.pod_name", True), ("x",))),
        ("app.kubernetes.io/name=x", Equal(Field("app.kubernetes.io/name", True), ("x",))),
        ('"odd key":x', Phrase(Field("odd key", True), ("x",))),
        ('"level":"error"', Compare(LEVEL, "=", "ERROR")),
        ("Service:api", Phrase(Field("Service", True), ("api",))),
        # comparisons
        ("user>5", Compare(USER, ">", 5)),
        ("user<=-2.5e3", Compare(USER, "<=", -2500.0)),
        ('user>="5"', Compare(USER, ">=", 5)),
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


ERRORS = [
    ("a (b", '''
        expected ")"; the "(" stands here
          a (b
            ^'''),
    ("a )", '''
        ")" without "("; to search for it, put it in quotes
          a )
            ^'''),
    ("()", '''
        expected a word, a "phrase", field:value, /regex/ or "("
          ()
           ^'''),
    ("a or", '''
        expected a word, a "phrase", field:value, /regex/ or "("
          a or
              ^'''),
    ("and a", '''
        expected a word, a "phrase", field:value, /regex/ or "("; to search for this word, write "and"
          and a
          ^'''),
    ("a - b", '''
        expected a term right after "-"
          a - b
             ^'''),
    ("service:api level: error", '''
        expected a value right after "level:"
          service:api level: error
                            ^'''),
    ("level:bad", '''
        expected one of EMERGENCY ALERT CRITICAL ERROR WARNING NOTICE INFO DEBUG after "level:"
          level:bad
                ^'''),
    ("user>abc", '''
        expected a number after "user>"
          user>abc
               ^'''),
    ("user>1e999", '''
        expected a number after "user>"
          user>1e999
               ^'''),
    ("id:1*", '''
        expected a number after "id:"
          id:1*
             ^'''),
    ("timestamp>noon", '''
        expected a time such as 2026-11-20T10:00 or 2026-11-20 after "timestamp>"
          timestamp>noon
                    ^'''),
    ("host>a", '''
        host is text; it takes : and = only
          host>a
               ^'''),
    ("level:/e/", '''
        level is not text; a regular expression cannot match it
          level:/e/
                ^'''),
    ('a "b c', '''
        expected a closing quote; the opening one stands here
          a "b c
            ^'''),
    ('a"b"', '''
        expected a space before the quote
          a"b"
           ^'''),
    ('"b"a', '''
        expected a space after the quote
          "b"a
             ^'''),
    (r'"C:\Users"', r'''
        unknown escape; known are \" \\ \* \/ \n \r \t \uXXXX, and a backslash is \\
          "C:\Users"
             ^'''),
    (r'"\ud83d"', r'''
        half of a surrogate pair is no character
          "\ud83d"
           ^'''),
    ("a => b", '''
        no letter, digit or underscore in this text; to find these characters, write "*=>*"
          a => b
            ^'''),
    ('host:""', '''
        no letter, digit or underscore in this text; the empty text is found by field=""
          host:""
               ^'''),
    ("/ab", '''
        expected "/" at the end of the regular expression; text with a "/" stands in quotes
          /ab
          ^'''),
    ("/var/log/syslog", '''
        the regular expression ends before this; write "\\/" in it, or put a path in quotes
          /var/log/syslog
               ^'''),
    ("//", '''
        expected a regular expression between "/" and "/"
          //
           ^'''),
    ("x /a(b/", '''
        regular expression: unclosed group
          x /a(b/
              ^'''),
    ("/a(?=b)/", '''
        regular expression: look-around, including look-ahead and look-behind, is not supported
          /a(?=b)/
            ^'''),
    (r"/(a)\1/", r'''
        regular expression: backreferences are not supported
          /(a)\1/
              ^'''),
    (r"/\w{1000}/", r'''
        regular expression: too large
          /\w{1000}/
           ^'''),
    (r"/\w{100}/", r'''
        regular expression: too large; repeat less, or smaller classes
          /\w{100}/
           ^'''),
    ("a\nb (c\nd", '''
        expected ")"; the "(" stands here
          b (c
            ^'''),
    ("a\x1b[31m (", '''
        expected a word, a "phrase", field:value, /regex/ or "("
          a [31m (
                  ^'''),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), ERRORS, ids=[text for text, _ in ERRORS])
def test_errors_point_at_the_place_and_say_what_was_expected(text: str, expected: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert str(caught.value) == textwrap.dedent(expected).removeprefix("\n")


def test_a_long_line_is_cut_around_the_place() -> None:
    with pytest.raises(QueryError) as caught:
        parse("a " * 500 + ") " + "b " * 500)
    problem, line, caret = str(caught.value).split("\n")
    assert len(line) < 140
    assert line.startswith("  ...a a")
    assert line.endswith("b ...")
    assert line[len(caret) - 1] == ")"
    assert caught.value.position == 1000
    assert caught.value.problem == problem


def test_limits() -> None:
    parse("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH)
    parse("-" * MAX_DEPTH + "a")
    parse("a " * MAX_TERMS)
    parse("/a/ " * MAX_REGEXES)
    parse(" " * MAX_QUERY)
    for text, said in [
        ("(" * (MAX_DEPTH + 1) + "a", "nested 101 deep, at most 100"),
        ("-(" * 60 + "a", "nested 101 deep, at most 100"),
        ("-" * 40_000 + "a", "nested 40000 deep, at most 100"),
        ("not " * 16_000 + "a", "nested 16000 deep, at most 100"),
        ("a" * (MAX_QUERY + 1), "query of 65537 characters, at most 65536"),
        ('"' + "a " * (MAX_WORDS + 1) + '"', 'phrase of 101 words and "\\*", at most 100'),
        ("a " * (MAX_TERMS + 1), "more than 1000 terms"),
        ("/a/ " * (MAX_REGEXES + 1), "more than 20 regular expressions"),
        ("a*" * 100 + "b", "phrase of 101 words"),
        ("*" + "a*" * 200, '200 pieces between "\\*", at most 100'),
        ("host=" + "a*" * 200, '200 "\\*", at most 100'),
        ("/" + "a" * (MAX_REGEX + 1) + "/", "regular expression of 4097 characters, at most 4096"),
        ("id>" + "9" * 5000, "expected a number"),
        ("a \ud800", "half of a surrogate pair"),
    ]:
        with pytest.raises(QueryError, match=said):
            parse(text)


words = st.text(string.ascii_letters + "_0ßÉж日", min_size=1, max_size=4)
starred = st.builds(lambda a, word, b: a + word + b, st.sampled_from(["", "*"]), words, st.sampled_from(["", "*"]))
anything = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('*"\\/-() '), max_size=6)
names = st.sampled_from(
    ["user", "a.b", "attributes", "service", "or", "x y", "", 'q"*\\', "attributes.", "attributes.x"]
)
attributes = st.builds(Field, names, st.just(True))
texts = attributes | st.builds(Field, st.sampled_from(sorted(TEXTS)), st.just(False))
places = st.none() | texts


leaves: st.SearchStrategy[Node] = st.one_of(
    st.just(All()),
    st.builds(Phrase, places, st.lists(starred | words, min_size=1, max_size=3).map(tuple)),
    st.builds(Phrase, places, words.map(lambda word: (word, "*", word))),
    st.builds(Substring, places, st.lists(anything.filter(bool), min_size=1, max_size=3).map(tuple)),
    st.builds(Regex, places, st.sampled_from(["a", "a/b", r"\\", r"\d+", '"(x y)"', "(?i)/"])),
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
        st.integers() | st.floats(allow_nan=False, allow_infinity=False),
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
        st.builds(Not, inner),
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

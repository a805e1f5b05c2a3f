"""Every mistake in a query: its text, the place under which the caret stands, and what is said of it."""

import textwrap

import polars as pl
import pytest

from logagg.query.errors import MAX_ANSWER, QueryError, QueryLimit, refuse_large
from logagg.query.evaluate import evaluate
from logagg.query.language import MAX_DEPTH, MAX_QUERY, MAX_REGEXES, MAX_TERMS, parse
from logagg.query.syntax import Phrase
from logagg.query.text import MAX_REGEX, MAX_WORDS, patterns_of

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
    ("status:>=500", '''
        expected a value right after "status:"; comparisons are = != < <= > >=; quote such a value
          status:>=500
                 ^'''),
    ("a user==5", '''
        expected a value right after "user="; comparisons are = != < <= > >=; quote such a value
          a user==5
                 ^'''),
    ("took<<5", '''
        expected a number, or a time such as 2026-11-20T10:00, after "took<"
          took<<5
               ^'''),
    ("service:(a or b)", '''
        expected a value right after "service:"
          service:(a or b)
                  ^'''),
    ("a or or b", '''
        expected a word, a "phrase", field:value, /regex/ or "("; to search for this word, write "or"
          a or or b
               ^'''),
    ("a and not", '''
        expected a word, a "phrase", field:value, /regex/ or "("
          a and not
                   ^'''),
    ("a \\\\ b", r'''
        no letter, digit or underscore in this text; to find these characters, write "*\\\\*"
          a \\ b
            ^'''),
    ("/a{2,1}/", '''
        regular expression: invalid repetition count range, the start must be <= the end
          /a{2,1}/
            ^'''),
    ("user>abc", '''
        expected a number, or a time such as 2026-11-20T10:00, after "user>"
          user>abc
               ^'''),
    ("user>1e999", '''
        expected a number, or a time such as 2026-11-20T10:00, after "user>"
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
        host is text; it takes : = and != only
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
        "=" means nothing outside quotes; field, comparison and value stand side by side: status>=500
          a => b
            ^'''),
    ("a -> b", '''
        ">" means nothing outside quotes; field, comparison and value stand side by side: status>=500
          a -> b
             ^'''),
    ("a % b", '''
        no letter, digit or underscore in this text; to find these characters, write "*%*"
          a % b
            ^'''),
    ('message:""', '''
        no letter, digit or underscore in this text; the empty text is found by field=""
          message:""
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


#: What those write who know LogQL, LogsQL, Lucene or SQL, the place of the caret, and a part of what is said of it.
FOREIGN = [
    ("!error", 0, '"!" means nothing outside quotes; without a word is -word, another value field!=value'),
    ("a !b", 2, "without a word is -word"),
    ("!(a or b)", 0, "without a word is -word"),
    ("! a", 0, "without a word is -word"),
    ("!host:web", 0, "another value field!=value"),
    ("host!:web", 4, "another value field!=value"),
    ('{host="a"} != "x"', 0, "fields are terms like words: host=a service=b"),
    ('!= "x"', 0, "without a word is -word"),
    ("a && b", 2, 'both words is "a b", or "a and b"'),
    ("a&&b", 1, '"&&" means nothing outside quotes'),
    ("a || b", 2, 'one of two is "a or b"'),
    ("a||b", 1, '"||" means nothing outside quotes'),
    ("a|b", 1, 'one of two is "a or b"'),
    ("error | stats count()", 6, "there are no pipes"),
    ('|= "error"', 0, "there are no pipes"),
    ("host~web", 4, "a regular expression is field:/expression/"),
    ("host!~web", 4, "-field:/expression/ for not"),
    ('~"a.*b"', 0, "a regular expression is field:/expression/"),
    ("host=~web", 5, "a regular expression is field:/expression/, and -field:/expression/ for not; quote such"),
    ("host:~web", 5, "a regular expression is field:/expression/"),
    ("host:!web", 5, "another value is field!=value"),
    ("host!==web", 6, "comparisons are = != < <= > >="),
    ("host:a|b", 6, "one of two values is (field:a or field:b)"),
    ("host:in(a,b)", 7, "one of several values is (host:a or host:b)"),
    ("level:error|warning", 11, "one of two values is (field:a or field:b)"),
    ("user = 5", 5, "field, comparison and value stand side by side: status>=500"),
    ("user =5", 5, "field, comparison and value stand side by side: status>=500"),
    ("user >= 5", 5, "field, comparison and value stand side by side: status>=500"),
    ("user: 5", 5, 'expected a value right after "user:"'),
    ("took:[1 TO 5]", 5, "a range is two comparisons: a>=1 a<=5"),
    ("host='a b'", 5, 'quotes are "'),
    ("'a b'", 0, 'a phrase stands in "'),
    ("`a b`", 0, 'a phrase stands in "'),
    (
        "_msg:x",
        0,
        "_msg is no field here; the message is searched by message:word, or the word alone; the attribute is",
    ),
    ("_time:5m", 0, "a time is timestamp>=2026-11-20T10:00"),
    ("_stream:{a}", 0, "host=a service=b"),
    ("_exists_:x", 0, "a field that is there is field:*"),
]


@pytest.mark.parametrize(("text", "position", "said"), FOREIGN, ids=[text for text, *_ in FOREIGN])
def test_another_language_is_answered_with_ours(text: str, position: int, said: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert said in caught.value.problem
    assert caught.value.position == position


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("NOT a", "-a"), ("a AND NOT b", "a -b"), ("a OR b", "a or b"), ("+a +b", "a b"),
        ("it's 'root'", '"it s" root'),
        ("level>=3", "level>=error"), ("level:WARN", "level=warning"), ('"_msg":x', "attributes._msg=x"),
        ("<init>", "init"), ('"a||b"', '"a b"'), ('host="!x"', 'host:"!x"'), ("Hello!", "hello"),
    ],
)  # fmt: skip
def test_what_others_write_means_the_same_where_it_is_taken(text: str, ours: str) -> None:
    assert str(parse(text)).lower() == str(parse(ours)).lower()
    assert parse(str(parse(text))) == parse(text)


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


def test_limits_have_room_for_what_they_allow() -> None:
    for word in ("ж", "a"):
        text = pl.Series([" ".join([word] * MAX_WORDS)])
        assert text.str.contains(patterns_of(Phrase(None, (word,) * MAX_WORDS)).exact)[0]


@pytest.mark.parametrize(
    "pattern",
    [
        r"(((a{100}){100}){100}){100}", r"a{1000}{1000}", r"[\w]{200}", r"(?i)\pL{500}", r"(?:\w\d\s){900}",
        r"a{4294967296}", "(" * 300 + ")" * 300, r"((\pL{9}){9}){9}",
    ],
)  # fmt: skip
def test_expressions_that_would_fill_the_memory_are_refused(pattern: str) -> None:
    with pytest.raises(QueryError, match="regular expression: ") as caught:
        parse(f"/{pattern}/")
    assert caught.value.position is not None


@pytest.mark.parametrize(
    "pattern", [r"((){1000}){1000}", r"(?:){4294967295}", "(x*)*" * 400, "(a?){50}a{50}", "x*" * 2000]
)
def test_expressions_that_hang_other_engines_end(pattern: str) -> None:
    frame = pl.DataFrame({"message": ["a" * 2000], "attributes": [None]}, schema_overrides={"attributes": pl.String})
    assert len(evaluate(parse(f"/{pattern}/"), frame)) == 1


def test_an_answer_beyond_the_memory_limit_is_refused_with_its_numbers() -> None:
    refuse_large(MAX_ANSWER, "10 records")
    with pytest.raises(QueryLimit, match="10 records take 67108865 bytes of memory, at most 67108864; ask for fewer"):
        refuse_large(MAX_ANSWER + 1, "10 records")

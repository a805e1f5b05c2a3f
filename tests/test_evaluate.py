import re
import threading
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.record import LEVELS
from logagg.query.evaluate import columns_needed, evaluate
from logagg.query.language import parse
from logagg.query.syntax import (
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
from logagg.sinks.frames import SCHEMA

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
#: Characters that need care: case pairs beyond ASCII, marks (no letters), both widths of digits, what JSON escapes.
LETTERS = "aAbBsSſkK\u212aßẞéÉeжЖ日İiı_1२"
OTHERS = ' -.\n"\\/\t\x1b\u0301😀<*'


class Lexeme(NamedTuple):
    """A JSON number as it is written."""

    text: str


# The oracle: what the language means, in plain Python over one record


def fold(text: str) -> str:
    """Simple case folding: C and S of CaseFolding.txt."""

    def one(c: str) -> str:
        return next((form for form in (c.casefold(), c.lower()) if len(form) == 1), c)

    return "".join(map(one, text))


def words_in(text: str) -> list[str]:
    marked = "".join(c if c == "_" or unicodedata.category(c)[0] in "LN" else " " for c in text)
    return fold(marked).split()


def word_fits(pattern: str, word: str) -> bool:
    if not pattern.strip("*"):
        return True
    return re.fullmatch(".*".join(map(re.escape, fold(pattern).split("*"))), word) is not None


def text_fits(node: Node, text: str) -> bool:
    match node:
        case Phrase(_, words):
            there = words_in(text)
            starts = range(len(there) - len(words) + 1)
            return any(all(map(word_fits, words, there[i : i + len(words)])) for i in starts)
        case Substring(_, parts):
            at = 0
            for part in map(fold, parts):
                found = fold(text).find(part, at)
                if found < 0:
                    return False
                at = found + len(part)
            return True
        case Regex(_, pattern):
            return re.search(pattern, text) is not None
        case Equal(_, parts):
            return re.fullmatch(".*".join(map(re.escape, parts)), text, re.DOTALL) is not None
    raise AssertionError(node)


def as_number(text: str) -> float | None:
    """Python's own idea of a number, but for what JSON does not write."""
    if re.search(r"[^0-9eE.+-]|^\+|^-?\.|^-?0[0-9]|\.($|[eE])", text):
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return None if number in (float("inf"), -float("inf")) else number


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, Lexeme):
        yield value.text
    elif isinstance(value, bool):
        yield str(value).lower()
    elif value is not None:
        yield value


def at(attributes: dict[str, Any], name: str) -> Any:
    if attributes.get(name) is not None:
        return attributes[name]
    value: Any = attributes
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def compares(sign: str, a: Any, b: Any) -> bool:
    return bool({"=": a == b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[sign])


def attribute_fits(node: Any, value: Any) -> bool:
    if isinstance(node, Exists):
        return value is not None
    for text in leaves(value):
        number = as_number(text)
        if isinstance(node, Compare):
            if number is not None and compares(node.operator, number, node.value):
                return True
        elif text_fits(node, text):
            return True
        elif isinstance(node, Equal) and len(node.parts) == 1:
            wanted = as_number(node.parts[0])
            if wanted is not None and wanted == number:
                return True
    return False


def fits(node: Node, record: dict[str, Any]) -> bool:
    match node:
        case All():
            return True
        case Not(part):
            return not fits(part, record)
        case And(parts):
            return all(fits(part, record) for part in parts)
        case Or(parts):
            return any(fits(part, record) for part in parts)
        case _:
            return field_fits(node, record)


def field_fits(node: Any, record: dict[str, Any]) -> bool:
    field = node.field
    attributes = record["attributes"] or {}
    if field is None:
        return text_fits(node, record["message"]) or attribute_fits(node, attributes)
    if field.attribute:
        return attribute_fits(node, at(attributes, field.name))
    if field.name == "level":
        severity = record["severity"]
        # `>` is more severe, which is a smaller number
        return isinstance(node, Exists) or compares(node.operator, -severity, -LEVELS.index(node.value))
    value = record[field.name]
    if value is None or isinstance(node, Exists):
        return value is not None
    return compares(node.operator, value, node.value) if isinstance(node, Compare) else text_fits(node, value)


# Random records and queries


def written(value: Any, ascii_only: bool) -> str:
    """JSON text, with or without escapes that need not be."""
    if isinstance(value, dict):
        items = (
            f"{written(k, ascii_only)}{': ' if ascii_only else ':'}{written(v, ascii_only)}" for k, v in value.items()
        )
        return "{" + ",".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(item, ascii_only) for item in value) + "]"
    if isinstance(value, Lexeme):
        return value.text
    if isinstance(value, str) and ascii_only:
        units = value.encode("utf-16-be")
        codes = [int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2)]
        return (
            '"'
            + "".join(f"\\u{code:04x}" if code > 126 or chr(code) in '"\\/\n\t\x1b' else chr(code) for code in codes)
            + '"'
        )
    return orjson.dumps(value).decode()


few = st.sampled_from(["a", "b", "ab", "ba", "A", "ſ", "s", "42"])
word = few | st.text(LETTERS, min_size=1, max_size=3)
pieces = word | st.sampled_from(["error", "ERROR", "a b", "true", "1e5", " ", "\n"]) | st.text(OTHERS, max_size=2)
text = st.lists(pieces, max_size=5).map(lambda found: "".join(found))
lexeme = st.sampled_from(
    [
        "0",
        "-0",
        "1",
        "42",
        "42.0",
        "4.2e1",
        "-1.5",
        "1.50",
        "1e5",
        "100000",
        "1e400",
        "007",
        "9007199254740993",
        "9" * 30,
    ]
)
scalar = st.none() | st.booleans() | text | lexeme | lexeme.filter(lambda t: t != "007").map(Lexeme)
key = st.sampled_from(["a", "b", "a.b", "a.b.c", 'q"k', "é", "k/k", "service", ""])
value = st.recursive(
    scalar, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(key, inner, max_size=2), max_leaves=4
)
moment = st.sampled_from(
    [NOON, NOON + timedelta(microseconds=1), datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]
)
record = st.fixed_dictionaries(
    {
        "id": st.integers(0, 3) | st.just(2**53),
        "timestamp": moment,
        "severity": st.integers(0, 7),
        "facility": st.none() | st.integers(0, 23),
        "service": st.none() | st.sampled_from(["api", "API", "pay-api", ""]),
        "host": st.none() | text,
        "message": text,
        "attributes": st.none() | st.dictionaries(key, value, max_size=3),
    }
)

in_text = st.builds(Field, st.sampled_from(["service", "host", "message"]), st.just(False))
in_attributes = st.builds(
    Field, st.sampled_from(["a", "b", "a.b", "a.b.c", 'q"k', "é", "k/k", "service", ""]), st.just(True)
)
somewhere = st.none() | in_text | in_attributes
star = st.sampled_from(["", "", "*"])
pattern = st.builds(
    "{}{}{}{}".format, star, word | st.sampled_from(["error", "42"]), star, st.sampled_from(["", "a", "*"])
)
piece = text.filter(bool) | word
expression = st.sampled_from(["a.", "^a", "[0-9]+$", "(?i)error", "a|b", "^$", r"\n", 'a"', "4", r"\\"])
atom: st.SearchStrategy[Node] = st.one_of(
    st.builds(Phrase, somewhere, st.lists(pattern, min_size=1, max_size=2).map(tuple)),
    st.builds(Phrase, somewhere, pattern.map(lambda p: (p, "*"))),
    st.builds(Substring, somewhere, st.lists(piece, min_size=1, max_size=2).map(tuple)),
    st.builds(Regex, somewhere, expression),
    st.builds(Equal, in_text | in_attributes, (text | lexeme | st.sampled_from(["api", "true"])).map(lambda t: (t,))),
    st.builds(Equal, in_text | in_attributes, piece.map(lambda t: (t[:1], t[1:]))),
    st.builds(Exists, in_text | in_attributes),
    st.builds(
        Compare,
        in_attributes,
        st.sampled_from(["<", "<=", ">", ">="]),
        st.sampled_from([0, 42, 42.5, -1.5, 9007199254740992, 1e5, 10**29]),
    ),
    st.builds(
        Compare,
        st.builds(Field, st.sampled_from(["id", "severity", "facility"]), st.just(False)),
        st.sampled_from(["=", "<", "<=", ">", ">="]),
        st.sampled_from([0, 2, 4.5, -1, 300, 2**53, 2**63, -(10**390)]),
    ),
    st.builds(Compare, st.just(Field("timestamp", False)), st.sampled_from(["=", "<", "<=", ">", ">="]), moment),
    st.builds(
        Compare, st.just(Field("level", False)), st.sampled_from(["=", "<", "<=", ">", ">="]), st.sampled_from(LEVELS)
    ),
    st.just(All()),
)
query = st.recursive(
    atom,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.lists(inner, min_size=2, max_size=3).map(all_of),
        st.lists(inner, min_size=2, max_size=3).map(any_of),
    ),
    max_leaves=5,
)


def frame_of(records: list[dict[str, Any]], ascii_only: bool = False) -> pl.DataFrame:
    rows = [
        r | {"attributes": None if r["attributes"] is None else written(r["attributes"], ascii_only)} for r in records
    ]
    columns = {name: SCHEMA[name] for name in SCHEMA if not rows or name in rows[0]}
    return pl.DataFrame(rows, schema=columns)


@given(query, st.lists(record, min_size=5, max_size=15), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_evaluator_finds_what_the_oracle_finds(tree: Node, records: list[dict[str, Any]], ascii_only: bool) -> None:
    frame = frame_of(records, ascii_only)
    found = evaluate(parse(str(tree)), frame.select({"id", *columns_needed(tree)}))
    assert found.to_list() == [fits(tree, r) for r in records]
    assert found.null_count() == 0


def message_frame(*messages: str, **columns: Any) -> pl.DataFrame:
    data: dict[str, Any] = {"message": list(messages), "attributes": [None] * len(messages)} | columns
    return pl.DataFrame(data, schema_overrides={name: SCHEMA[name] for name in data})


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("tra", []),
        ("a*b", []),
        ("Stra", []),
        ("aße", []),
        ("Str*", ["Straße 5", "STRAẞE"]),
        ("*aße", ["Straße 5", "STRAẞE"]),
        ("*tra*", ["Straße 5", "STRAẞE"]),
        ('"5 Straße"', []),
        ('message="Connection*refused"', ["Connection\n  refused"]),
        ('message="connection*refused"', []),
        ("message=*tra*", ["Straße 5"]),
        ("message=tra*", []),
        ("straße", ["Straße 5", "STRAẞE"]),
        ("s", ["a ſ b", "S"]),
        ("kelvin", ["\u212aelvin"]),
        ("ошибка", ["ОШИБКА!"]),
        ("日志", ["写 日志 了"]),
        ('"connection refused"', ["Connection\n  refused"]),
        ("re*ed", ["Connection\n  refused"]),
        ('"connection re*"', ["Connection\n  refused"]),
        ('"*ction\n  ref*"', ["Connection\n  refused"]),
        ('"*😀*"', ["ok 😀"]),
        ("x_1", ["x_1=2"]),
        ("x", []),
        ("/^Str/", ["Straße 5"]),
        ("/^str/i", ["Straße 5", "STRAẞE"]),
    ],
)
def test_words_phrases_and_expressions(text: str, hits: list[str]) -> None:
    messages = [
        "Straße 5",
        "STRAẞE",
        "a ſ b",
        "S",
        "\u212aelvin",
        "ОШИБКА!",
        "写 日志 了",
        "Connection\n  refused",
        "ok 😀",
        "x_1=2",
    ]
    frame = message_frame(*messages)
    assert frame.filter(evaluate(parse(text), frame))["message"].to_list() == hits


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("k8s.pod:web", True),
        ("k8s.ns=prod", True),
        ("k8s.ns=Prod", False),
        ("user_id=42", True),
        ("user_id=42.0", True),
        ("user_id=42*", True),
        ("user_id=4", False),
        ("price=150", True),
        ("price=1.5e2", True),
        ("tags=7", True),
        ("tags>6", True),
        ("nested=9.0", True),
        ("code=007", True),
        ("code=7", False),
        ("code>6", False),
        ("size>40", True),
        ("size<=41.5", True),
        ("tags=blue", True),
        ("tags:*", True),
        ("empty:*", True),
        ("null:*", False),
        ("-null=x", True),
        ("ok=true", True),
        ("prod", True),
        ("user_id", False),
        ("42 blue", True),
        ('"42 blue"', False),
        ("huge>1e300", False),
        ("deep:bottom", True),
        ("bottom", True),
    ],
)
def test_attributes(text: str, found: bool) -> None:
    deep = '{"d":' * 500 + '"bottom"' + "}" * 500
    attributes = (
        '{"k8s.pod": "web-1", "k8s": {"ns": "prod", "pod": "db"}, "user_id": 42, "code": "007",'
        ' "price": 1.50e2, "nested": {"deep": [9]}, "tags": ["red", "blue", 7],'
        f' "size": "41.5", "null": null, "empty": {{}}, "ok": true, "huge": 1e400, "deep": {deep}}}'
    )
    frame = message_frame("", attributes=[attributes])
    assert evaluate(parse(text), frame).to_list() == [found]


def test_attributes_nested_beyond_every_reader_are_found_by_their_text() -> None:
    frame = message_frame("", "", attributes=["[" * 100_000 + '"bottom"', '{"a": "bottom"}'])
    assert evaluate(parse("bottom"), frame).to_list() == [True, True]
    assert evaluate(parse("a=bottom"), frame).to_list() == [False, True]


def test_half_of_a_surrogate_pair_harms_nobody() -> None:
    frame = message_frame("", attributes=[r'{"a": "x \ud800", "b": "\ud83d\ude00 ok"}'])
    assert evaluate(parse("x"), frame).to_list() == [True]
    assert evaluate(parse('"*😀 ok*"'), frame).to_list() == [True]
    assert evaluate(parse("a:x"), frame).to_list() == [True]


def test_only_the_columns_needed_are_asked_for() -> None:
    assert columns_needed(parse("*")) == set()
    assert columns_needed(parse("level>=error service=api")) == {"severity", "service"}
    assert columns_needed(parse("-(user:* or host=a)")) == {"attributes", "host"}
    assert columns_needed(parse("word")) == {"message", "attributes"}


def test_an_empty_frame_and_one_without_the_columns_of_nothing() -> None:
    assert evaluate(parse("a or -b /c/ d>5"), message_frame()).to_list() == []
    assert evaluate(parse("-*"), message_frame("a", "b")).to_list() == [False, False]


def test_a_heavy_expression_ends_when_it_is_told_to() -> None:
    class Stopped(Exception):
        pass

    calls = threading.Semaphore(5)

    def check() -> None:
        if not calls.acquire(blocking=False):
            raise Stopped

    frame = message_frame(*["ab" * 200] * 20_000)
    with pytest.raises(Stopped):
        evaluate(parse("/a[ab]{1000}.*b[ab]{1000}.*[^ab]/"), frame, check)


def test_queries_of_any_size_evaluate() -> None:
    frame = message_frame("w5 w7", "other")
    assert evaluate(parse(" or ".join(f"w{i}" for i in range(1000))), frame).to_list() == [True, False]
    assert evaluate(parse("-(" * 50 + "w5" + ")" * 50), frame).to_list() == [True, False]
    assert evaluate(parse('"' + "w5 " * 100 + '"'), frame).to_list() == [False, False]

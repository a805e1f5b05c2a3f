import threading
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queries import fits, frame_of, query, record  # type: ignore[import-not-found]  # pytest has this folder on the path

from logagg.query.evaluate import columns_needed, evaluate
from logagg.query.language import parse
from logagg.query.syntax import Node
from logagg.sinks.frames import SCHEMA


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
        ("k8s.pod:web-1", True),
        ("k8s.pod:web", False),
        ("k8s.pod:*eb-*", True),
        ("k8s.ns=prod", True),
        ("k8s.ns=Prod", False),
        ("user_id=42", True),
        ("user_id=42.0", True),
        ("user_id=42*", True),
        ("user_id=4", False),
        ("price=150", True),
        ("exponent=150", True),
        ("price=1.5000e2", True),
        ("third=0.3333333333333333", False),  # exact, where doubles would be equal
        ("third>0.3333333333333333", True),
        ("until>2026-11-20", True),
        ("until<2026-11-20T12:00:00.000001", True),
        ("until<=2026-11-20T11:59:59.999999", False),
        ("until>5", False),
        ("price<2026-11-20", False),
        ("exponent=15e1", True),
        ("exponent>149", True),
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
        ("deep:Bottom", False),
        ("bottom", True),
    ],
)
def test_attributes(text: str, found: bool) -> None:
    deep = '{"d":' * 500 + '"bottom"' + "}" * 500
    attributes = (
        '{"k8s.pod": "web-1", "k8s": {"ns": "prod", "pod": "db"}, "user_id": 42, "code": "007",'
        ' "price": 150.0, "third": 0.33333333333333331, "until": "2026-11-20T13:00:00+01:00",'
        ' "exponent": 1.50e2, "nested": {"deep": [9]}, "tags": ["red", "blue", 7],'
        f' "size": "41.5", "null": null, "empty": {{}}, "ok": true, "huge": 1e400, "deep": {deep}}}'
    )
    frame = message_frame("", attributes=[attributes])
    assert evaluate(parse(text), frame).to_list() == [found]


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ('{"user_id": 1}', False),
        ('{"user": 1}', False),
        ('{"id": "the user"}', True),
        ('{"id": "user_id"}', False),
        (r'{"id": "new\nuser"}', True),  # in the JSON text the n stands before the word
        (r'{"id": "\u0075ser"}', True),
        (r'{"user_id": "\u00e9user"}', False),
        ('{"id": "éuser"}', False),
        ('{"deep": ' + "[" * 5000 + '"a user"' + "]" * 5000 + "}", True),
    ],
)
def test_a_word_is_looked_for_in_values_and_not_in_names(attributes: str, found: bool) -> None:
    frame = message_frame("", "", attributes=[attributes, None])
    assert evaluate(parse("user"), frame).to_list() == [found, False]
    assert evaluate(parse("-user"), frame).to_list() == [not found, True]


def test_attributes_nested_beyond_every_reader_are_found_by_their_text() -> None:
    frame = message_frame("", "", attributes=["[" * 100_000 + '"bottom"', '{"a": "bottom"}'])
    assert evaluate(parse("bottom"), frame).to_list() == [True, True]
    assert evaluate(parse("a=bottom"), frame).to_list() == [False, True]


def test_half_of_a_surrogate_pair_harms_nobody() -> None:
    frame = message_frame("", attributes=[r'{"a": "x \ud800", "b": "\ud83d\ude00 ok"}'])
    assert evaluate(parse("x"), frame).to_list() == [True]
    assert evaluate(parse('"*😀 ok*"'), frame).to_list() == [True]
    assert evaluate(parse("a:x*"), frame).to_list() == [True]


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

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queries import fits, leaves, query, record  # type: ignore[import-not-found]  # pytest has this folder on the path

from logagg.query.language import parse
from logagg.query.syntax import TEXTS, Equal, Field, Node, Phrase, Substring, all_of, any_of
from logagg.query.text import words_of
from logagg.query.words import MAX_ASKED, may_match, words_in, words_needed
from logagg.sinks.words import fold


def texts(row: dict[str, Any]) -> Iterator[str]:
    """What the filter of a batch is made of."""
    yield from leaves(row["attributes"] or {})
    yield from (row[name] for name in TEXTS if row.get(name) is not None)


def held(rows: list[dict[str, Any]]) -> set[bytes]:
    return {word for row in rows for text in texts(row) for word in fold(text.encode()).split(b"\0")}


Rows = list[dict[str, Any]]


@st.composite
def queries_with_matches(draw: st.DrawFn) -> tuple[Rows, Node]:
    """Records, and a condition made of a piece of one of them."""
    rows = draw(st.lists(record, min_size=1, max_size=3))
    row = rows[0]
    fields = [Field("message", False), *(Field(name, True) for name in row["attributes"] or {} if name)]
    field = draw(st.sampled_from(fields))
    values = [row["message"]] if not field.attribute else list(leaves((row["attributes"] or {})[field.name]))
    text = draw(st.sampled_from(values or [""]))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, len(text)))
    nodes: list[Node] = [
        Equal(field, (text,)),
        Equal(field, (text[:start], text[end:])),
        Substring(draw(st.sampled_from([field, None])), (text[start:end] or "a",)),
        Phrase(None, words_of(text[start:end].replace("*", " ")) or ("a",)),
    ]
    node = draw(st.sampled_from(nodes))
    others = draw(st.lists(query, max_size=1))
    return rows, any_of([node, *others]) if draw(st.booleans()) else all_of([node, *others])


def check_that_no_match_is_skipped(rows: Rows, tree: Node) -> None:
    needed, there = words_needed(tree), held(rows)
    asked = {word: fold(word.encode()) in there for word in words_in(needed)}
    if any(fits(tree, row) for row in rows):
        assert may_match(needed, asked)


@given(queries_with_matches())
@settings(max_examples=500, deadline=None)
def test_a_batch_with_a_match_is_never_skipped(made: tuple[Rows, Node]) -> None:
    check_that_no_match_is_skipped(*made)


@given(st.lists(record, min_size=1, max_size=10), query)
@settings(max_examples=200, deadline=None)
def test_nor_by_any_other_query(rows: Rows, tree: Node) -> None:
    check_that_no_match_is_skipped(rows, tree)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("timeout", "timeout"),
        ('"Connection reset" by', '"Connection" "reset" by'),
        ("time*", "*"),
        ('"connection re*"', "connection"),
        ("*nection reset by*", "reset"),
        ("*ssword for*", "*"),
        ("a or b", "a or b"),
        ("a or *b*", "*"),
        ("a (b or c*)", "a"),
        ("a (b or d c*)", "a (b or d)"),
        ("-a", "*"),
        ("/expression/", "*"),
        ("user=alice-smith", "alice smith"),
        ("user=alice-sm*", "alice"),
        ("path=*/usr/bin", "usr bin"),
        ("path=*usr/bin", "bin"),
        ("user=42", "42"),
        ("user=-42", "42"),
        ("ratio=1.5", "*"),
        ("ratio=1e3", "*"),
        ("ratio=1.5.0", "1 5 0"),
        ("user>42", "*"),
        ("user:*", "*"),
        ("service=api level>=error", "api"),
        ("trace_id=0af7651916cd43dd", "0af7651916cd43dd"),
        ("id=5", "*"),
        ("same same", "same"),
    ],
)
def test_words_that_every_match_holds(text: str, words: str) -> None:
    assert words_needed(parse(text)) == parse(words)


def test_words_asked_for_are_bounded_and_the_others_may_be_there() -> None:
    needed = words_needed(parse(" ".join(f"word{i}" for i in range(100))))
    asked = words_in(needed)
    assert len(asked) == MAX_ASKED
    assert may_match(needed, dict.fromkeys(asked, True))
    assert not may_match(needed, dict.fromkeys(asked, True) | {asked[3]: False})
    assert words_in(parse("b\u0378c *")) == []  # a character that the filter does not know

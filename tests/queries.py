"""Random records and queries for tests, and an oracle: what the language means, in plain Python over one record."""

import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import orjson
import polars as pl
from hypothesis import strategies as st

from logagg.protocols.record import LEVELS
from logagg.query.syntax import (
    MESSAGE,
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


def as_number(text: str) -> Fraction | None:
    """Python's own idea of a number, but for what JSON does not write."""
    if re.search(r"[^0-9eE.+-]|^\+|^-?\.|^-?0[0-9]|\.($|[eE])", text):
        return None
    try:
        return Fraction(text) if abs(float(text)) < float("inf") else None
    except ValueError:
        return None


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
        "0.0",
        "41.99999999999999999999",
        "1",
        "42",
        "42.0",
        "4.2e1",
        "-1.5",
        "1.50",
        "1e5",
        "100000",
        "1e400",
        "0.1",
        "1e23",
        "1" + "0" * 23,
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
text_place = st.sampled_from([None, MESSAGE])
somewhere = st.none() | in_text | in_attributes
star = st.sampled_from(["", "", "*"])
pattern = st.builds(
    "{}{}{}{}".format, star, word | st.sampled_from(["error", "42"]), star, st.sampled_from(["", "a", "*"])
)
piece = text.filter(bool) | word
expression = st.sampled_from(["a.", "^a", "[0-9]+$", "(?i)error", "a|b", "^$", r"\n", 'a"', "4", r"\\"])
atom: st.SearchStrategy[Node] = st.one_of(
    st.builds(Phrase, text_place, st.lists(pattern, min_size=1, max_size=2).map(tuple)),
    st.builds(Phrase, text_place, pattern.map(lambda p: (p, "*"))),
    st.builds(Substring, text_place, st.lists(piece, min_size=1, max_size=2).map(tuple)),
    st.builds(Regex, somewhere, expression),
    st.builds(Equal, in_text | in_attributes, (text | lexeme | st.sampled_from(["api", "true"])).map(lambda t: (t,))),
    st.builds(Equal, in_text | in_attributes, piece.map(lambda t: (t[:1], t[1:]))),
    st.builds(Exists, in_text | in_attributes),
    st.builds(
        Compare,
        in_attributes,
        st.sampled_from(["<", "<=", ">", ">="]),
        st.sampled_from([0, 42, *map(Decimal, ["42.5", "-1.5", "0.1", "1e5"]), 9007199254740992, 10**29]),
    ),
    st.builds(
        Compare,
        st.builds(Field, st.sampled_from(["id", "severity", "facility"]), st.just(False)),
        st.sampled_from(["=", "<", "<=", ">", ">="]),
        st.sampled_from([0, 2, Decimal("4.5"), -1, 300, 2**53, 2**63, -(10**390)]),
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
        st.builds(negation, inner),
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

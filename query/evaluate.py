"""The evaluator: a tree and a frame of records to the mask of those that match.

Frames have (some of) the columns of `frames.SCHEMA`. A condition on a field that a record does not have is false, so
its `not` is true.
"""

import operator
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

import polars as pl

from logagg.protocols.record import LEVELS
from logagg.query import attributes
from logagg.query.syntax import (
    LEVEL,
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
)
from logagg.query.text import moment, number, patterns_of

#: Called now and then; raises to end the evaluation.
Check = Callable[[], None]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BY_SIGN: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
#: `>` on levels is more severe, and the more severe the smaller the number.
_MIRRORED = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_INT64 = 1 << 63
#: Seconds after which an expression of a user pauses to check, about.
_SLICE_SECONDS = 0.05
_FIRST_SLICE = 64
#: Bytes of JSON in which there may be as many brackets as Python's reader takes, one in another.
_LONG = 1000

_TextNode = Phrase | Substring | Regex | Equal


def columns_needed(node: Node) -> frozenset[str]:
    """Return the columns of `frames.SCHEMA` that `evaluate` looks into."""
    match node:
        case All():
            return frozenset()
        case Not(part):
            return columns_needed(part)
        case And(parts) | Or(parts):
            return frozenset().union(*map(columns_needed, parts))
        case _:
            return frozenset({"message", "attributes"} if node.field is None else {column_of(node.field)})


def column_of(field: Field) -> str:
    """Return the column in which a field stands."""
    return "attributes" if field.attribute else "severity" if field.name == LEVEL else field.name


def evaluate(node: Node, frame: pl.DataFrame, check: Check = lambda: None) -> pl.Series:
    """Return a Boolean Series without nulls, one value a row of the frame."""
    needed = [name for name in frame.columns if name in columns_needed(node)]
    return _evaluate(node, frame.select(needed or frame.columns[:1]), check)


def microseconds(moment: datetime) -> int:
    """Return microseconds since 1970, which is what a frame's times are."""
    return (moment - _EPOCH) // _MICROSECOND


def _evaluate(node: Node, frame: pl.DataFrame, check: Check) -> pl.Series:
    check()
    match node:
        case All():
            return pl.repeat(True, frame.height, eager=True)
        case Not(part):
            return ~_evaluate(part, frame, check)
        case And(parts):
            return _and(parts, frame, check)
        case Or(parts):
            return _or(parts, frame, check)
        case Compare() | Exists():
            return _by_value(node, frame, check)
        case _:
            return _by_text(node, frame, check)


def _and(parts: tuple[Node, ...], frame: pl.DataFrame, check: Check) -> pl.Series:
    """Evaluate the cheap parts first, and each only on the rows that are left."""
    rows = pl.int_range(frame.height, dtype=pl.UInt32, eager=True)
    height = frame.height
    for part in sorted(parts, key=_cost):
        hit = _evaluate(part, frame, check)
        if not hit.all():
            rows, frame = rows.filter(hit), frame.filter(hit)
    return _mask(rows, height)


def _or(parts: tuple[Node, ...], frame: pl.DataFrame, check: Check) -> pl.Series:
    rows = pl.int_range(frame.height, dtype=pl.UInt32, eager=True)
    height = frame.height
    for part in sorted(parts, key=_cost):
        hit = _evaluate(part, frame, check)
        if hit.any():
            rows, frame = rows.filter(~hit), frame.filter(~hit)
    return ~_mask(rows, height)


def _mask(rows: pl.Series, height: int) -> pl.Series:
    """Return the mask that is true in these rows."""
    mask = pl.repeat(False, height, eager=True)
    return mask.scatter(rows, True) if len(rows) else mask


def _cost(node: Node) -> int:
    match node:
        case Not(part):
            return _cost(part)
        case And(parts) | Or(parts):
            return max(map(_cost, parts))
        case All():
            return 0
        case Compare(field) | Exists(field):
            return 4 if field.attribute else 0
        case Phrase(field) | Substring(field) | Regex(field) | Equal(field):
            place = 3 if field is None else 4 if field.attribute else 1
            return place + 3 * isinstance(node, Regex)


def _by_value(node: Compare | Exists, frame: pl.DataFrame, check: Check) -> pl.Series:
    column = frame[column_of(node.field)]
    if node.field.attribute:
        return _in_attributes(node, column, check)
    if isinstance(node, Exists):
        return column.is_not_null()
    value: int | float | Decimal | datetime | str = node.value
    sign: str = node.operator
    if isinstance(value, datetime):
        column, value = column.to_physical(), microseconds(value)
    elif isinstance(value, str):
        value, sign = LEVELS.index(value), _MIRRORED[sign]
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        value = float(value) if abs(value) < 1 << 1000 else float("inf") * (1 if value > 0 else -1)
    found: pl.Series = _BY_SIGN[sign](column.cast(pl.Int64), value)
    return found.fill_null(False)


def _by_text(node: _TextNode, frame: pl.DataFrame, check: Check) -> pl.Series:
    if node.field and node.field.attribute:
        return _in_attributes(node, frame["attributes"], check)
    if node.field:
        return _in_texts(node, frame[node.field.name], check)
    found = _in_texts(node, frame["message"], check)
    rest = ~found
    more = rest.arg_true().filter(_in_attributes(node, frame["attributes"].filter(rest), check))
    return found.scatter(more, True) if len(more) else found


def _in_texts(node: _TextNode, texts: pl.Series, check: Check) -> pl.Series:
    if isinstance(node, Equal) and len(node.parts) == 1:
        return (texts == node.parts[0]).fill_null(False)
    first, exact, ascii_ = _patterns(node)
    if isinstance(node, Regex):
        return _contains(texts, exact, check)
    if first is None:
        return texts.str.contains(exact).fill_null(False)
    maybe = texts.str.contains(first).fill_null(False)
    rows = maybe.arg_true()
    if not len(rows):  # compiling the exact expression takes milliseconds
        return maybe
    hits = texts.filter(maybe)
    if ascii_ is None:
        return _mask(rows.filter(hits.str.contains(exact)), len(texts))
    plain = hits.str.len_bytes() == hits.str.len_chars()
    found = [rows.filter(plain).filter(hits.filter(plain).str.contains(ascii_))]
    if not plain.all():
        found.append(rows.filter(~plain).filter(hits.filter(~plain).str.contains(exact)))
    return _mask(pl.concat(found), len(texts))


_patterns = lru_cache(1024)(patterns_of)


def _contains(texts: pl.Series, pattern: str, check: Check) -> pl.Series:
    """Search with an expression of a user, in slices so short that `check` is called in time."""
    parts, start, size = [pl.Series(dtype=pl.Boolean)], 0, _FIRST_SLICE
    while start < len(texts):
        began = time.monotonic()
        parts.append(texts.slice(start, size).str.contains(pattern))
        check()
        start += size
        took = time.monotonic() - began
        size = size * 4 if took < _SLICE_SECONDS / 4 else size if took < _SLICE_SECONDS else max(1, size // 4)
    return pl.concat(parts).fill_null(False)


def _in_attributes(node: _TextNode | Compare | Exists, column: pl.Series, check: Check) -> pl.Series:
    rows = attributes.candidates(node, column)
    if isinstance(node, Phrase):
        # Where nothing is escaped a value stands in the JSON text as it is, between characters of no word: a word that
        # is but a part of one there is in no value. What is nested too deep for Python's reader may change its numbers.
        texts = column.gather(rows)
        unsure = texts.str.contains("\\", literal=True) | (texts.str.len_bytes() > _LONG)
        rows = rows.filter(unsure | _in_texts(node, texts, check))
    found = [pl.Series(dtype=pl.UInt32)]
    texts = column.gather(rows)
    for start, size in attributes.chunks(texts):
        check()
        part = rows.slice(start, size)
        found.append(part.gather(_owners(node, texts.slice(start, size).to_list(), check)))
    return _mask(pl.concat(found), len(column))


def _owners(node: _TextNode | Compare | Exists, documents: list[str], check: Check) -> list[int]:
    """Return the places of the JSON texts of which a value matches, in order."""
    if isinstance(node, Exists):
        return [i for i, text in enumerate(attributes.field_texts(documents, node.field.name)) if text is not None]
    values = attributes.values(documents, node.field and node.field.name)
    return sorted({values.owners[i] for i in _hits(node, values.texts, check)})


def _hits(node: _TextNode | Compare, texts: list[str], check: Check) -> list[int]:
    """Return the places of the values that match."""
    match node:
        case Compare(_, sign, value):
            compare, read = _BY_SIGN[sign], moment if isinstance(value, datetime) else number
            return [i for i, text in enumerate(texts) if (n := read(text)) is not None and compare(n, value)]
        case Equal(_, (text,)) if (wanted := number(text)) is not None:
            return [i for i, other in enumerate(texts) if other == text or number(other) == wanted]
        case Equal() | Phrase() | Substring() | Regex():
            series = attributes.to_series(texts)
            hits: list[int] = _in_texts(node, series, check).arg_true().to_list()
            return hits

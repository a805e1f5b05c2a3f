"""Counts by columns and attributes, exactly, and the spread of a number in each group."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import polars as pl

from logagg.protocols.record import LEVELS
from logagg.query import attributes, spread, summaries
from logagg.query.answers import Filter, Groups
from logagg.query.errors import QueryError, QueryLimit
from logagg.query.evaluate import column_of
from logagg.query.plan import Plan
from logagg.query.question import Question
from logagg.query.syntax import LEVEL, NUMBERS, Field, field_of
from logagg.query.tables import COLUMNS, Table
from logagg.sinks.store import BatchInfo

COUNT = "count"
MAX_KEYS = 8
_NO_COUNTS = pl.DataFrame(schema={COUNT: pl.Int64})

Fields = dict[str, Field]


class _Part(NamedTuple):
    """What was found in some batches: a row for each group with `count`; and `spread.values`, if they are asked for."""

    counts: pl.DataFrame
    values: pl.DataFrame | None = None


async def aggregate(question: Question, asked: Filter, by: Sequence[str], of: str | None, max_groups: int) -> Groups:
    """Answer `Engine.aggregate`."""
    fields = _fields(by, of)
    number = None if of is None else _number_field(of)
    plan, batches = await question.plan(asked)
    found = _Part(_NO_COUNTS)
    if number is None:
        found, batches = await _known(question, plan, batches, fields)
    columns = {column_of(field) for field in (*fields.values(), *([number] if number else []))}

    def part_of(frame: pl.DataFrame) -> _Part:
        keys = _keys(frame, fields)
        return _Part(_counted(frame, keys), spread.values(frame, keys, number) if number else None)

    async def work(batch: BatchInfo) -> _Part | None:
        return await question.reduce(plan, batch, columns, part_of)

    def take(part: _Part) -> None:
        nonlocal found
        found = _added(found, part, list(fields))
        if found.counts.height > max_groups:
            names = ", ".join(by)
            raise QueryLimit(f"more than {max_groups} different values of {names}; count by less, or ask for less")

    await question.each(plan, batches, work, take)
    return Groups(await question.run(_rows, found, fields), question.stats)


def _fields(by: Sequence[str], of: str | None) -> Fields:
    if len(by) > MAX_KEYS:
        raise QueryError(f"counts by {len(by)} fields, at most {MAX_KEYS}")
    if len(set(by)) < len(by):
        raise QueryError(f"a field stands twice in {', '.join(by)}")
    for name in by:
        if name in (COUNT, *(spread.RESULTS if of is not None else ())):
            raise QueryError(f"{name} is the name of a result; an attribute of this name is attributes.{name}")
    return {name: field_of(name) for name in by}


def _number_field(of: str) -> Field:
    field = field_of(of)
    if not field.attribute and field.name not in NUMBERS:
        raise QueryError(f"{of} is a column without numbers; an attribute of this name is attributes.{of}")
    return field


async def _known(
    question: Question, plan: Plan, batches: Sequence[BatchInfo], fields: Fields
) -> tuple[_Part, Sequence[BatchInfo]]:
    """Return the counts that need no reading, and the batches that do."""
    if not fields:
        known = await summaries.totals(question, plan, batches)
        total = sum(known.values())
        counts = pl.DataFrame({COUNT: [total]}) if total else _NO_COUNTS
        left: Sequence[BatchInfo] = [batch for batch in batches if batch.batch not in known]
    elif all(not field.attribute and column_of(field) in COLUMNS for field in fields.values()):
        columns = {name: column_of(field) for name, field in fields.items()}
        parts, left = await summaries.summed(question, plan, batches, partial(Table.by_columns, names=columns))
        counts = pl.concat(parts).group_by(list(columns)).agg(pl.col(COUNT).sum()) if len(parts) > 1 else parts[0]
    else:
        return _Part(_NO_COUNTS), batches
    question.stats.skip("counted", len(batches) - len(left))
    return _Part(counts), left


def _keys(frame: pl.DataFrame, fields: Fields) -> pl.DataFrame:
    return pl.DataFrame([_values(frame, field).alias(name) for name, field in fields.items()])


def _values(frame: pl.DataFrame, field: Field) -> pl.Series:
    column = frame[column_of(field)]
    if not field.attribute:
        return column
    parts = [pl.Series(dtype=pl.String)]
    for start in range(0, len(column), attributes.CHUNK):
        texts = column.slice(start, attributes.CHUNK).to_list()
        parts.append(attributes.to_series(attributes.field_texts(texts, field.name)))
    return pl.concat(parts)


def _counted(frame: pl.DataFrame, keys: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each group: its values, and `count`."""
    if not keys.columns:
        return pl.DataFrame({COUNT: [frame.height]}) if frame.height else _NO_COUNTS
    return keys.group_by(keys.columns).agg(pl.len().cast(pl.Int64).alias(COUNT))


def _added(found: _Part, part: _Part, keys: list[str]) -> _Part:
    """Add what was found of the same groups."""
    values = spread.added(found.values, part.values)
    if not found.counts.height or not part.counts.height:
        return _Part(found.counts if found.counts.height else part.counts, values)
    joined = pl.concat([found.counts, part.counts])
    return _Part(joined.group_by(keys).agg(pl.col(COUNT).sum()) if keys else joined.sum(), values)


def _rows(found: _Part, fields: Fields) -> list[dict[str, Any]]:
    """Return the groups, most first, those of equal count by their values; None comes last."""
    counts, keys = found.counts, list(fields)
    if not counts.height:
        return [] if fields else [{COUNT: 0}]
    if found.values is not None:
        counts = spread.joined(counts, found.values, keys)
    counts = counts.sort([COUNT, *keys], descending=[True, *[False] * len(keys)], nulls_last=True)
    for name, field in fields.items():
        if field == Field(LEVEL, False):
            counts = counts.with_columns(pl.col(name).replace_strict(dict(enumerate(LEVELS)), return_dtype=pl.String))
    return counts.to_dicts()

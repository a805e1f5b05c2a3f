"""Counts by columns, attributes and bins of time, exactly, and the spread of a number in each group.

A bin of time is one more key of a group: its first microsecond since 1970, until the answer is written.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import polars as pl

from logagg.protocols.record import LEVELS
from logagg.query import attributes, spread, summaries
from logagg.query.answers import Filter, Groups
from logagg.query.errors import QueryError, QueryLimit, refuse_large
from logagg.query.evaluate import column_of
from logagg.query.histogram import bin_of, starts, width_of
from logagg.query.plan import Plan
from logagg.query.question import Question
from logagg.query.syntax import LEVEL, NUMBERS, Field, field_of
from logagg.query.tables import COLUMNS, MINUTE, Table
from logagg.sinks.store import BatchInfo

COUNT = "count"
TIME = "time"
MAX_KEYS = 8
_NO_COUNTS = pl.DataFrame(schema={COUNT: pl.Int64})

Fields = dict[str, Field]


class _Asked(NamedTuple):
    """What to count by."""

    fields: Fields
    #: Microseconds of a bin of time; None for no bins.
    width: int | None
    #: A field of numbers.
    number: Field | None

    @property
    def keys(self) -> list[str]:
        """Names of the columns that tell groups apart."""
        return [*self.fields, *([TIME] if self.width else [])]

    @property
    def columns(self) -> set[str]:
        """The columns of records to look into."""
        columns = {column_of(field) for field in (*self.fields.values(), *([self.number] if self.number else []))}
        return columns | ({"timestamp"} if self.width else set())


class _Part(NamedTuple):
    """What was found in some batches: a row for each group with `count`; and `spread.values`, if they are asked for."""

    counts: pl.DataFrame
    values: pl.DataFrame | None = None


async def aggregate(
    question: Question,
    asked: Filter,
    by: Sequence[str],
    of: str | None,
    interval: timedelta | None,
    limit: int | None,
    max_groups: int,
) -> Groups:
    """Answer `Engine.aggregate`."""
    wanted = _asked(by, of, interval)
    plan, batches = await question.plan(asked)
    found = _Part(_NO_COUNTS)
    if wanted.number is None:
        found, batches = await _known(question, plan, batches, wanted, max_groups)
        _refuse_many(found.counts, wanted, max_groups)

    def part_of(frame: pl.DataFrame) -> _Part:
        keys = _keys(frame, wanted)
        return _Part(_counted(frame, keys), spread.values(frame, keys, wanted.number) if wanted.number else None)

    async def work(batch: BatchInfo) -> _Part | None:
        return await question.reduce(plan, batch, wanted.columns, part_of)

    def take(part: _Part) -> None:
        nonlocal found
        found = _added(found, part, wanted.keys)
        _refuse_many(found.counts, wanted, max_groups)

    await question.each(plan, batches, work, take)
    return Groups(await question.run(_rows, found, wanted, limit), question.stats)


def _refuse_many(counts: pl.DataFrame, wanted: _Asked, max_groups: int) -> None:
    if counts.height > max_groups:
        names = ", ".join([*wanted.fields, *([f"bins of {wanted.width / 1e6:g} s"] if wanted.width else [])])
        raise QueryLimit(f"more than {max_groups} different values of {names}; count by less, or ask for less")
    refuse_large(int(counts.estimated_size()), f"{counts.height} groups")


def _asked(by: Sequence[str], of: str | None, interval: timedelta | None) -> _Asked:
    if len(by) > MAX_KEYS:
        raise QueryError(f"counts by {len(by)} fields, at most {MAX_KEYS}")
    if len(set(by)) < len(by):
        raise QueryError(f"a field stands twice in {', '.join(by)}")
    results = {COUNT, *(spread.RESULTS if of is not None else ()), *([TIME] if interval is not None else [])}
    for name in by:
        if name in results:
            raise QueryError(f"{name} is the name of a result; an attribute of this name is attributes.{name}")
    width = None if interval is None else width_of(interval)
    return _Asked({name: field_of(name) for name in by}, width, None if of is None else _number_field(of))


def _number_field(of: str) -> Field:
    field = field_of(of)
    if not field.attribute and field.name not in NUMBERS:
        raise QueryError(f"{of} is a column without numbers; an attribute of this name is attributes.{of}")
    return field


async def _known(
    question: Question, plan: Plan, batches: Sequence[BatchInfo], wanted: _Asked, max_groups: int
) -> tuple[_Part, Sequence[BatchInfo]]:
    """Return the counts that need no reading, and the batches that do."""
    fields = wanted.fields.values()
    if not wanted.keys:
        known = await summaries.totals(question, plan, batches)
        total = sum(known.values())
        counts = pl.DataFrame({COUNT: [total]}) if total else _NO_COUNTS
        left: Sequence[BatchInfo] = [batch for batch in batches if batch.batch not in known]
    elif (wanted.width or 0) % MINUTE == 0 and all(not f.attribute and column_of(f) in COLUMNS for f in fields):
        columns = {name: column_of(field) for name, field in wanted.fields.items()}

        def counted(table: Table) -> pl.DataFrame:
            part = table.by_columns(names=columns, step=wanted.width)
            _refuse_many(part, wanted, max_groups)  # before there are parts of many batches
            return part

        parts, left = await summaries.summed(question, plan, batches, counted)
        counts = pl.concat(parts).group_by(wanted.keys).agg(pl.col(COUNT).sum()) if len(parts) > 1 else parts[0]
    else:
        return _Part(_NO_COUNTS), batches
    question.stats.skip("counted", len(batches) - len(left))
    return _Part(counts), left


def _keys(frame: pl.DataFrame, wanted: _Asked) -> pl.DataFrame:
    columns = [_values(frame, field).alias(name) for name, field in wanted.fields.items()]
    if wanted.width:
        columns.append(frame.select(bin_of(wanted.width).alias(TIME)).to_series())
    return pl.DataFrame(columns)


def _values(frame: pl.DataFrame, field: Field) -> pl.Series:
    column = frame[column_of(field)]
    if not field.attribute:
        return column
    parts = [pl.Series(dtype=pl.String)]
    for start, size in attributes.chunks(column):
        texts = column.slice(start, size).to_list()
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


def _rows(found: _Part, wanted: _Asked, limit: int | None) -> list[dict[str, Any]]:
    """Return the groups by time, then most first, those of equal count by their values; None comes last."""
    counts, keys, fields = found.counts, wanted.keys, list(wanted.fields)
    if not counts.height:
        return [] if keys else [{COUNT: 0}]
    if found.values is not None:
        counts = spread.joined(counts, found.values, keys)
    if limit is not None and fields:
        counts = _largest(counts, fields, limit)
    order = [*([TIME] if wanted.width else []), COUNT, *fields]
    counts = counts.sort(order, descending=[name == COUNT for name in order], nulls_last=True)
    for name, field in wanted.fields.items():
        if field == Field(LEVEL, False):
            counts = counts.with_columns(pl.col(name).replace_strict(dict(enumerate(LEVELS)), return_dtype=pl.String))
    if wanted.width:
        counts = counts.with_columns(starts(pl.col(TIME)))
    return counts.to_dicts()


def _largest(counts: pl.DataFrame, fields: list[str], limit: int) -> pl.DataFrame:
    """Return the rows of the groups with the highest counts, over all bins of time together."""
    total = pl.col(COUNT).sum().over(fields)
    ordered = counts.sort([-total, *fields], nulls_last=True)
    return ordered.filter(pl.struct(fields).rle_id() < limit)

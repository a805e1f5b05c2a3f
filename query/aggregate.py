"""Counts by columns and attributes, exactly."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import polars as pl

from logagg.protocols.record import LEVELS
from logagg.query import attributes
from logagg.query.answers import Filter
from logagg.query.errors import QueryError, QueryLimit
from logagg.query.evaluate import column_of
from logagg.query.question import Question
from logagg.query.syntax import LEVEL, Field, field_of

COUNT = "count"
MAX_KEYS = 8


async def aggregate(question: Question, asked: Filter, by: Sequence[str], max_groups: int) -> list[dict[str, Any]]:
    """Answer `Engine.aggregate`."""
    fields = _fields(by)
    plan, batches = await question.plan(asked)
    columns = {column_of(field) for field in fields.values()}
    counts = _count(pl.DataFrame(schema={COUNT: pl.UInt32}), {})
    for batch in batches:
        whole = None if fields else plan.whole(batch)
        if whole is not None:
            question.stats.skip("counted")
            part = pl.DataFrame({COUNT: [whole]})
        else:
            part = await question.reduce(plan, batch, columns, partial(_count, fields=fields))
        if part.height:
            counts = await question.run(_added, counts, part, list(fields))
        if counts.height > max_groups:
            names = ", ".join(by)
            raise QueryLimit(f"more than {max_groups} different values of {names}; count by less, or ask for less")
    return await question.run(_rows, counts, fields)


def _fields(by: Sequence[str]) -> dict[str, Field]:
    if len(by) > MAX_KEYS:
        raise QueryError(f"counts by {len(by)} fields, at most {MAX_KEYS}")
    if len(set(by)) < len(by):
        raise QueryError(f"a field stands twice in {', '.join(by)}")
    if COUNT in by:
        raise QueryError(f"{COUNT} is the name of the result; an attribute of this name is attributes.{COUNT}")
    return {name: field_of(name) for name in by}


def _count(frame: pl.DataFrame, fields: dict[str, Field]) -> pl.DataFrame:
    """Return a row for each group: its values, and `count`."""
    if not fields:
        return pl.DataFrame({COUNT: [frame.height]} if frame.height else {COUNT: []}, schema={COUNT: pl.Int64})
    keys = pl.DataFrame([_values(frame, field).alias(name) for name, field in fields.items()])
    return keys.group_by(keys.columns).agg(pl.len().cast(pl.Int64).alias(COUNT))


def _values(frame: pl.DataFrame, field: Field) -> pl.Series:
    column = frame[column_of(field)]
    if not field.attribute:
        return column
    parts = [pl.Series(dtype=pl.String)]
    for start in range(0, len(column), attributes.CHUNK):
        texts = column.slice(start, attributes.CHUNK).to_list()
        parts.append(attributes.to_series(attributes.field_texts(texts, field.name)))
    return pl.concat(parts)


def _added(counts: pl.DataFrame, part: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Add counts of the same groups."""
    if not counts.height:
        return part
    joined = pl.concat([counts, part])
    return joined.group_by(keys).agg(pl.col(COUNT).sum()) if keys else joined.sum()


def _rows(counts: pl.DataFrame, fields: dict[str, Field]) -> list[dict[str, Any]]:
    """Return the groups, most first, those of equal count by their values; None comes last."""
    if not counts.height:
        return [] if fields else [{COUNT: 0}]
    keys = list(fields)
    counts = counts.sort([COUNT, *keys], descending=[True, *[False] * len(keys)], nulls_last=True)
    for name, field in fields.items():
        if field == Field(LEVEL, False):
            counts = counts.with_columns(pl.col(name).replace_strict(dict(enumerate(LEVELS)), return_dtype=pl.String))
    return counts.to_dicts()

"""How the numbers of a field are spread in each group: least, greatest, average and percentiles, exactly.

What is kept is how often each value occurs in each group, so no percentile is an estimate. A percentile is a value that
occurs: the least one that so many percent of the values do not exceed.
"""

import polars as pl

from logagg.query import attributes
from logagg.query.errors import QueryLimit
from logagg.query.evaluate import column_of
from logagg.query.syntax import Compare, Field
from logagg.query.text import number

PERCENTILES = (50, 90, 95, 99)
#: Names of the columns of the answer besides `count`, which is the number of records.
RESULTS = ("numbers", "min", "max", "avg", *(f"p{percent}" for percent in PERCENTILES))
#: Different values of all groups that are kept at most, some 50 bytes each.
MAX_VALUES = 2_000_000

_VALUE, _TIMES = "\0value", "\0times"  # no field has these names


def values(frame: pl.DataFrame, keys: pl.DataFrame, field: Field) -> pl.DataFrame:
    """Return how often each value of the field occurs with the keys that stand beside it."""
    column = frame[column_of(field)]
    if field.attribute:
        numbers, owners = _numbers(column, field.name)
        keys = keys[owners] if keys.columns else keys
    else:
        there = column.is_not_null()
        numbers = column.filter(there).cast(pl.Float64)
        keys = keys.filter(there) if keys.columns else keys
    once = pl.Series(_TIMES, [1], dtype=pl.Int64).new_from_index(0, len(numbers))
    return _grouped(pl.DataFrame([*keys, numbers.alias(_VALUE), once]))


def _numbers(column: pl.Series, name: str) -> tuple[pl.Series, pl.Series]:
    """Return the numbers in an attribute, and the row of each."""
    found: list[float] = []
    owners: list[int] = []
    rows = attributes.candidates(Compare(Field(name, True), ">=", 0), column)
    held = column.gather(rows)
    for start, size in attributes.chunks(held):
        there = rows.slice(start, size).to_list()
        texts, places = attributes.values(held.slice(start, size).to_list(), name)
        for text, place in zip(texts, places, strict=True):
            if (value := _float(text)) is not None:
                found.append(value)
                owners.append(there[place])
    return pl.Series(found, dtype=pl.Float64), pl.Series(owners, dtype=pl.UInt32)


def _float(text: str) -> float | None:
    value = number(text)
    try:
        return None if value is None else float(value)
    except OverflowError:
        return None


def added(one: pl.DataFrame | None, other: pl.DataFrame | None) -> pl.DataFrame | None:
    """Add up what `values` returned. Raises QueryLimit when there are too many different values."""
    if one is None or other is None:
        return one if other is None else other
    both = _grouped(pl.concat([one, other]))
    if both.height > MAX_VALUES:
        raise QueryLimit(f"more than {MAX_VALUES} different numbers in all groups; group by less, or ask for less")
    return both


def _grouped(frame: pl.DataFrame) -> pl.DataFrame:
    keys = [name for name in frame.columns if name != _TIMES]
    return frame.group_by(keys).agg(pl.col(_TIMES).sum())


def joined(counts: pl.DataFrame, values: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Add `RESULTS` to the groups; a group without numbers has none."""
    by = [pl.col(name) for name in keys] or [pl.lit(0).alias("\0all")]
    ordered = values.sort(_VALUE)  # so that sums do not depend on the order in which batches came
    value, times = pl.col(_VALUE), pl.col(_TIMES)
    results = ordered.group_by(by, maintain_order=True).agg(
        times.sum().alias("numbers"),
        value.min().alias("min"),
        value.max().alias("max"),
        ((value * times).sum() / times.sum()).alias("avg"),
        *(
            value.filter(times.cum_sum() * 100 >= times.sum() * percent).first().alias(f"p{percent}")
            for percent in PERCENTILES
        ),
    )
    if keys:  # not by a join: null is a group, too
        both = pl.concat([counts, results], how="diagonal")
        both = both.group_by(keys).agg(pl.exclude(keys).drop_nulls().first())
        return both.with_columns(pl.col("numbers").fill_null(0))
    if not results.height:
        return counts.with_columns(pl.lit(0).alias("numbers"), *(pl.lit(None).alias(name) for name in RESULTS[1:]))
    return pl.concat([counts, results.select(RESULTS)], how="horizontal")

"""Records as columns: a polars frame that has the fields of `Record`, in their order. What comes in chunks stays so.

A frame is for many records: one of a few costs more than the records themselves.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias

import polars as pl

from logagg.protocols.record import Record, Reject

#: The type of times: aware, UTC, microseconds.
TIME: Final = pl.Datetime("us", "UTC")

#: Fields of `Record` and their types.
COLUMNS: Final[dict[str, pl.DataType]] = {
    "timestamp": TIME,
    "received_at": TIME,
    "severity": pl.Int8(),
    "facility": pl.Int8(),
    "environment": pl.String(),
    "host": pl.String(),
    "service": pl.String(),
    "source": pl.String(),
    "message": pl.String(),
    "attributes": pl.String(),
    "trace_id": pl.String(),
    "span_id": pl.String(),
    "raw": pl.Binary(),
}

#: Records in either form; both have a length and slices.
Records: TypeAlias = Sequence[Record] | pl.DataFrame

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Columnar(NamedTuple):
    """What a decoder made of many frames at once: `Decoded`, its records as columns."""

    records: pl.DataFrame
    rejects: list[Reject]


def from_records(records: Sequence[Record]) -> pl.DataFrame:
    """Turn records into a frame of COLUMNS.

    Raises TypeError for a value that is not what `Record` says, such as a time without a zone, and UnicodeEncodeError
    for half of a surrogate pair.
    """
    columns = zip(*records, strict=True) if records else [()] * len(COLUMNS)
    return pl.DataFrame([_series(name, values) for name, values in zip(COLUMNS, columns, strict=True)])


def to_records(frame: pl.DataFrame) -> list[Record]:
    """Turn a frame of COLUMNS into records."""
    return [Record(*row) for row in frame.select(COLUMNS.keys()).iter_rows()]


def times(values: Sequence[datetime]) -> pl.Series:
    """Return aware datetimes as a column; six times as fast as handing them to polars."""
    since = [(value - _EPOCH) // _MICROSECOND for value in values]
    return pl.Series(since, dtype=pl.Int64).cast(TIME)


def _series(name: str, values: Sequence[Any]) -> pl.Series:
    kind = COLUMNS[name]
    if kind == TIME:
        return times(values).alias(name)
    if values and values[0] is None and values.count(None) == len(values):
        return pl.Series(name, [None], dtype=kind).new_from_index(0, len(values))
    return pl.Series(name, values, dtype=kind)

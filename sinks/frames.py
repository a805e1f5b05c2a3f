"""Records as columns: the polars frame that queries are evaluated over."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import polars as pl

from logagg.protocols.record import Record

#: An id is the batch's number and the place in the batch.
PLACE_BITS = 17

#: The type of times: aware, UTC, microseconds.
TIME = pl.Datetime("us", "UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

#: Columns and types of a frame of records. `attributes` is the text of a JSON object, or null. `raw` is never loaded.
SCHEMA: dict[str, pl.DataType] = {
    "id": pl.Int64(),
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
}

#: Names of the columns of a row of `logs`, as it is written: (id, batch, *record).
ROW = ("id", "batch", *Record._fields)
Row = tuple[Any, ...]

_COLUMNS: Mapping[str, Callable[[Row], Any]] = {name: itemgetter(ROW.index(name)) for name in SCHEMA}


def from_rows(rows: Sequence[Row]) -> pl.DataFrame:
    """Turn rows (id, batch, *record) that PostgreSQL has taken into a frame with all columns of SCHEMA."""
    return pl.DataFrame([_series(name, list(map(get, rows))) for name, get in _COLUMNS.items()])


def _series(name: str, values: list[Any]) -> pl.Series:
    if SCHEMA[name] != TIME:
        return pl.Series(name, values, dtype=SCHEMA[name])
    # Six times as fast as handing datetimes to polars.
    return pl.Series(name, [(v - _EPOCH) // _MICROSECOND for v in values], dtype=pl.Int64).cast(TIME)


def empty(columns: Sequence[str]) -> pl.DataFrame:
    """Return a frame of no records."""
    return pl.DataFrame(schema={name: SCHEMA[name] for name in columns})

"""Reading back: which batches there are, and a batch's records from the rows of `logs`.

The connections of `prepare` give times as whole microseconds since 2000, which spares a datetime for each value: a
batch of rows becomes a frame in a quarter of the time.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter

import asyncpg
import polars as pl

from logagg.sinks.batches import BatchInfo
from logagg.sinks.frames import PLACE_BITS, SCHEMA, TIME

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
#: From PostgreSQL's epoch to that of Unix, in microseconds.
_SINCE_1970 = int(_EPOCH.timestamp()) * 1_000_000

#: A batch is always found by its index: a plan once turned a search by id range into a scan of everything.
SETTINGS = {
    "plan_cache_mode": "force_custom_plan",
    "enable_seqscan": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}

_BATCHES = """
select batch, closed_at is null, count, ts_min, ts_max, received_min, received_max, services, hosts, environments
from batches
where closed_at is null or (
    ($1::timestamptz is null or ts_max is null or ts_max >= $1)
    and ($2::timestamptz is null or ts_min is null or ts_min <= $2)
)
order by closed_at is null desc, ts_max desc nulls first, batch desc
"""


#: What to select for a column. Only these names reach a statement.
_SELECTED = {name: f"{name}::text" if name == "attributes" else name for name in SCHEMA}


async def prepare(con: asyncpg.Connection) -> None:
    """Make a new connection one for reading."""
    await con.set_type_codec(
        "timestamptz", schema="pg_catalog", format="tuple", encoder=_microseconds, decoder=itemgetter(0)
    )


def _microseconds(time: datetime) -> tuple[int]:
    return ((time - _EPOCH) // timedelta(microseconds=1),)


def _time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)


async def batches(con: asyncpg.Connection, start: datetime | None, end: datetime | None) -> list[BatchInfo]:
    """Return the batches that may hold timestamps within [start, end], open ones always; newest first."""
    rows = await con.fetch(_BATCHES, start, end)
    return [BatchInfo(*row[:3], *map(_time, row[3:7]), *map(_distinct, row[7:])) for row in map(tuple, rows)]


def _distinct(values: list[str | None] | None) -> frozenset[str | None] | None:
    return None if values is None else frozenset(values)


async def load(con: asyncpg.Connection, batch: BatchInfo, columns: Sequence[str]) -> pl.DataFrame:
    """Return the records of a batch that are in `logs`, sorted by place."""
    first = batch.batch << PLACE_BITS
    names = ", ".join(_SELECTED[name] for name in columns)
    query = f"select id, {names} from logs where id >= $1 and id < $2"  # noqa: S608 - names out of SCHEMA
    arguments: list[object] = [first, first + (1 << PLACE_BITS)]
    if batch.received_min and batch.received_max and not batch.open:  # prunes partitions
        query += " and received_at between $3 and $4"
        arguments += [batch.received_min, batch.received_max]
    rows = await con.fetch(query, *arguments)
    return await asyncio.to_thread(_frame, rows, columns)


def _frame(rows: list[asyncpg.Record], columns: Sequence[str]) -> pl.DataFrame:
    frame = pl.DataFrame([_series(name, list(map(itemgetter(i), rows))) for i, name in enumerate(("place", *columns))])
    # Rows of one batch stand nearly in order: cheaper to look here than to sort there.
    return (frame if frame["place"].is_sorted() else frame.sort("place")).drop("place")


def _series(name: str, values: list[object]) -> pl.Series:
    kind = SCHEMA.get(name, pl.Int64())
    if kind != TIME:
        return pl.Series(name, values, dtype=kind)
    return (pl.Series(name, values, dtype=pl.Int64) + _SINCE_1970).cast(TIME)

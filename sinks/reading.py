"""Reading back: which batches there are, and a batch's records from the rows of `logs`.

The connections of `prepare` give times as whole microseconds since 2000, which spares a datetime for each value: a
batch of rows becomes a frame in a quarter of the time.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import asyncpg
import polars as pl

from logagg.sinks.batches import BatchInfo
from logagg.sinks.frames import FULL, PLACE_BITS, TIME
from logagg.sinks.threads import read_in_thread

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
#: From PostgreSQL's epoch to that of Unix, in microseconds.
_SINCE_1970 = int(_EPOCH.timestamp()) * 1_000_000
#: The first and the last time there is; asyncpg writes these two as infinities, which are read as them.
_ENDS = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))
_FIRST, _LAST = ((end - _EPOCH) // timedelta(microseconds=1) for end in _ENDS)

#: A batch is always found by its index: a plan once turned a search by id range into a scan of everything.
SETTINGS = {
    "plan_cache_mode": "force_custom_plan",
    "enable_seqscan": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}

_BATCHES = """
select batch, coalesce(packed_at, $3)
from batches
where closed_at is null or (
    ($1::timestamptz is null or ts_max is null or ts_max >= $1)
    and ($2::timestamptz is null or ts_min is null or ts_min <= $2)
)
order by closed_at is null desc, ts_max desc nulls first, batch desc
"""
#: Bytes of a packed batch. The length of a bytea that is stored outside of its row does not read it.
PACKED_SIZE = "octet_length(head) + octet_length(body) + octet_length(filter) + coalesce(octet_length(summary), 0)"
_DETAILS = f"""
select batch, closed_at is null, count, ts_min, ts_max, received_min, received_max, services, hosts, environments,
    packed_at is not null, coalesce(packed_at, $2), {PACKED_SIZE}
from batches where batch = any($1)
"""  # noqa: S608 - texts of ours
#: Batches whose details are kept in memory, about 1 KB each.
_MOST_KNOWN = 50_000

#: What to select for a column. Only these names reach a statement.
_SELECTED = {name: f"{name}::text" if name == "attributes" else name for name in FULL}


async def prepare(con: asyncpg.Connection) -> None:
    """Make a new connection one for reading."""
    await con.set_type_codec(
        "timestamptz", schema="pg_catalog", format="tuple", encoder=_microseconds, decoder=itemgetter(0)
    )


def _microseconds(time: datetime) -> tuple[int]:
    return ((time - _EPOCH) // timedelta(microseconds=1),)


def _time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _EPOCH + timedelta(microseconds=min(max(microseconds, _FIRST), _LAST))


class Catalog:
    """What is known of batches. What is once known of a closed one holds until it is packed, or packed anew."""

    def __init__(self) -> None:
        self._known: dict[int, BatchInfo] = {}

    async def batches(self, con: asyncpg.Connection, start: datetime | None, end: datetime | None) -> list[BatchInfo]:
        """Return the batches that may hold timestamps within [start, end], open ones always; newest first."""
        found = await con.fetch(_BATCHES, start, end, _EPOCH)
        known = self._known
        unknown = [batch for batch, version in found if batch not in known or known[batch].version != version]
        fresh = {row[0]: _info(tuple(row)) for row in await con.fetch(_DETAILS, unknown, _EPOCH)} if unknown else {}
        if len(known) > _MOST_KNOWN:
            known.clear()
        known.update((number, info) for number, info in fresh.items() if not info.open)
        chosen = (fresh.get(batch) or known.get(batch) for batch, _ in found)
        return [info for info in chosen if info is not None]  # one that is gone meanwhile is none


def _info(row: tuple[Any, ...]) -> BatchInfo:
    return BatchInfo(*row[:3], *map(_time, row[3:7]), *map(_distinct, row[7:10]), *row[10:])


def _distinct(values: list[str | None] | None) -> frozenset[str | None] | None:
    return None if values is None else frozenset(values)


async def load(
    con: asyncpg.Connection, batch: BatchInfo, columns: Sequence[str], ids: Sequence[int] | None = None
) -> pl.DataFrame:
    """Return the records of a batch that are in `logs`, all or those with these ids; a range is the cheapest."""
    if ids is None:
        first = batch.batch << PLACE_BITS
        ids = range(first, first + (1 << PLACE_BITS))
    bounds = (min(ids, default=0), max(ids, default=-1)) if not isinstance(ids, range) else (ids.start, ids.stop - 1)
    names = ", ".join(_SELECTED[name] for name in columns)
    query = f"select {names} from logs where id between $1 and $2"  # noqa: S608 - names out of FULL
    arguments: list[object] = [*bounds]
    if batch.received_min and batch.received_max and not batch.open:  # prunes partitions
        query += " and received_at between $3 and $4"
        arguments += [batch.received_min, batch.received_max]
    if not isinstance(ids, range):
        arguments.append(ids)
        query += f" and id = any(${len(arguments)})"
    rows = await con.fetch(query, *arguments)
    return await read_in_thread(_frame, rows, columns)


async def packed(con: asyncpg.Connection, batch: BatchInfo) -> bool:
    """Tell whether a batch is packed by now."""
    return bool(await con.fetchval("select packed_at is not null from batches where batch = $1", batch.batch))


def _frame(rows: list[asyncpg.Record], columns: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame([_series(name, list(map(itemgetter(i), rows))) for i, name in enumerate(columns)])


def _series(name: str, values: list[object]) -> pl.Series:
    kind = FULL[name]
    if kind != TIME:
        return pl.Series(name, values, dtype=kind)
    return (pl.Series(name, values, dtype=pl.Int64).clip(_FIRST, _LAST) + _SINCE_1970).cast(TIME)

"""Packed records as rows again: in `logs` itself, or in a table of the user's.

Batch by batch, each in one transaction that adds only rows which are not there, so it may be ended and begun again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

import asyncpg
import polars as pl

from logagg.sinks import copying, packing, partitions
from logagg.sinks.errors import StoreError
from logagg.sinks.frames import FULL, PLACE_BITS
from logagg.sinks.locks import UNPACKING, locked

#: The most days of one batch that get partitions; more of them only a clock that jumps about can make.
_MOST_DAYS = 31

_BATCHES = """
select batch from batches
where packed_at is not null and ts_max >= $1 and ts_min < $2 order by batch
"""
_BLOBS = "select head, body, checksums from batches where batch = $1 and packed_at is not null"
_KEEP = """
insert into kept_days (day, keep_until) select unnest($1::date[]), now() + $2
on conflict (day) do update set keep_until = greatest(kept_days.keep_until, excluded.keep_until)
"""
_KIND = "select relkind = 'r' and not relispartition from pg_class where oid = to_regclass($1)"
_COLUMNS = """
select array_agg(attname || ' ' || format_type(atttypid, atttypmod) order by attname)
from pg_attribute where attrelid = to_regclass($1) and attnum > 0 and not attisdropped
"""


class Unpacked(NamedTuple):
    """One batch, as far as it lies in the range."""

    batch: int
    #: Rows added now, and those that were there.
    added: int
    there: int
    #: What is wrong with its packed form; then nothing of it is added.
    error: str | None = None


class Target(NamedTuple):
    """Where rows go."""

    #: As SQL has it: quoted.
    table: str
    schema: str | None
    name: str


LOGS = Target("logs", None, "logs")


async def unpack(
    con: asyncpg.Connection, since: datetime, until: datetime, *, into: str | None, keep: timedelta
) -> AsyncIterator[Unpacked]:
    """Bring the packed records with since <= timestamp < until back as rows; yield what was done, batch by batch.

    `into` names a table, NAME or SCHEMA.NAME, which is made unless it is there. Without it they go into `logs`, whose
    days stay for `keep`. Raises StoreError for a table that cannot take them, and while another is at it.
    """
    async with locked(con, UNPACKING, wait=False) as ours:
        if not ours:
            message = (
                "another unpack runs on this database, or a daemon's maintenance is at its batches: try again soon"
            )
            raise StoreError(message)
        target = await table(con, into) if into is not None else LOGS
        kept: set[date] = set()
        for (number,) in await con.fetch(_BATCHES, since, until):
            try:
                frame = await _load(con, number)
            except StoreError as error:
                yield Unpacked(number, 0, 0, str(error))
                continue
            frame = frame.filter(pl.col("timestamp").is_between(since, until, closed="left"))
            if target is LOGS:
                await _keep(con, set(frame["received_at"].dt.date().unique()) - kept, keep)
                kept.update(frame["received_at"].dt.date().unique())
            added = await _add(con, target, number, frame)
            yield Unpacked(number, added, frame.height - added)


async def table(con: asyncpg.Connection, name: str) -> Target:
    """Return a table that takes rows of `logs`; it is made unless it is there."""
    schema, _, rest = name.rpartition(".")
    target = Target(".".join(_quoted(part) for part in (schema, rest) if part), schema or None, rest)
    if not rest or "\0" in name:
        message = f"{name!r} is no name of a table"
        raise StoreError(message)
    ordinary = await con.fetchval(_KIND, target.table)
    if ordinary is None:
        await con.execute(f"create table {target.table} (like logs including comments, primary key (id))")
    elif not ordinary:
        message = f"{name} is there already and no ordinary table"
        raise StoreError(message)
    elif await con.fetchval(_COLUMNS, target.table) != await con.fetchval(_COLUMNS, "logs"):
        message = f"the table {name} is there already with other columns than logs"
        raise StoreError(message)
    return target


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def _load(con: asyncpg.Connection, number: int) -> pl.DataFrame:
    """Load a packed batch with all columns of FULL; no records when it is gone meanwhile."""
    row = await con.fetchrow(_BLOBS, number)
    if row is None:
        return pl.DataFrame(schema=FULL)
    return await asyncio.to_thread(records, number, *row)


def records(number: int, head: bytes, body: bytes, checksums: bytes | None) -> pl.DataFrame:
    """Return the records of a packed batch, all columns of FULL. Raises StoreError for parts that are damaged."""
    halves = []
    for name, blob, columns in (("head", head, packing.HEAD), ("body", body, packing.BODY)):
        try:
            halves.append(packing.read(packing.checked(blob, checksums, name), columns))
        except Exception as error:
            message = f"batch {number}: {name} cannot be read: {error}"
            raise StoreError(message) from error
    return pl.concat(halves, how="horizontal").select(list(FULL))


async def _keep(con: asyncpg.Connection, days: Iterable[date], keep: timedelta) -> None:
    """Have the partitions of these days, and have maintenance leave them alone."""
    days = sorted(days)
    if days:
        await con.execute(_KEEP, days, keep)
        await partitions.make(con, days[:_MOST_DAYS])


async def _add(con: asyncpg.Connection, target: Target, number: int, frame: pl.DataFrame) -> int:
    """Add the rows that are not there; return how many."""
    if not frame.height:
        return 0
    async with con.transaction():
        await con.execute("set local enable_seqscan = off")
        ids = f"select id from {target.table} where id between $1 and $2"  # noqa: S608 - quoted
        arguments: Sequence[object] = [number << PLACE_BITS, (number + 1 << PLACE_BITS) - 1]
        if target is LOGS:  # leaves partitions out
            ids += " and received_at between $3 and $4"
            arguments = [*arguments, frame["received_at"].min(), frame["received_at"].max()]
        there = pl.Series("id", [id_ for (id_,) in await con.fetch(ids, *arguments)], dtype=pl.Int64)
        missing = frame.join(there.to_frame(), on="id", how="anti", maintain_order="left").sort("id")
        if missing.height:
            if target.schema:
                await con.execute(f"set local search_path = {_quoted(target.schema)}")
            await copying.copy(con, target.name, missing.with_columns(batch=pl.lit(number, pl.Int64)))
    return missing.height

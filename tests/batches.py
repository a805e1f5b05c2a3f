"""Batches for a test, as they are left by stores that come and go."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import polars as pl

from logagg.protocols.record import Record
from logagg.sinks import packing, upkeep
from logagg.sinks.frames import FULL, SCHEMA
from logagg.sinks.store import Store

DAY = timedelta(days=1)


def record(received_at: datetime | None = None, **fields: Any) -> Record:
    """Return a record; without a time, one of now."""
    time = received_at or datetime.now(UTC)
    base = Record(time, time, 6, None, None, None, None, None, "m", None, None, None, None)
    return base._replace(**fields)


def records(*messages: str) -> list[Record]:
    """Return a record for each message."""
    return [record(message=message) for message in messages]


async def messages(sql: asyncpg.Connection) -> list[str]:
    """Return the messages of all rows."""
    return [message for (message,) in await sql.fetch("select message from logs order by id")]


async def in_memory(store: Store) -> pl.DataFrame:
    """Return the records of the only open batch."""
    (batch,) = [batch for batch in await store.batches() if batch.open]
    return (await store.load(batch, list(SCHEMA))).frame.sort("id")


async def leave(url: str, *batches: Sequence[Record]) -> list[int]:
    """Write each as a batch that is closed and not packed, and whose store is gone; return their numbers."""
    for records in batches:
        store = await Store.open(url)
        await store.write(records)
        await store.close()
    async with connection(url) as sql:
        found = await sql.fetch("select batch from batches order by batch desc limit $1", len(batches))
    return sorted(number for (number,) in found)


async def leave_packed(url: str, *batches: Sequence[Record]) -> list[int]:
    """Write each as a batch that is packed, with its rows still there; return their numbers."""
    numbers = await leave(url, *batches)
    async with connection(url) as sql:
        for number in numbers:
            assert await upkeep.pack_from_rows(sql, number)
    return numbers


async def packed(sql: asyncpg.Connection, number: int) -> pl.DataFrame:
    """Return what the packed form of a batch holds, by id."""
    head, body = await sql.fetchrow("select head, body from batches where batch = $1", number)
    halves = packing.read(head, packing.HEAD), packing.read(body, packing.BODY)
    return pl.concat(halves, how="horizontal").select(list(FULL)).sort("id")


@contextlib.asynccontextmanager
async def connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Give a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()

"""A database of the first schema is brought up to date, filled and in use, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest

from logagg.sinks import partitions, schema
from logagg.sinks.frames import PLACE_BITS
from logagg.sinks.locks import CLASS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from logagg.tests.processes import free_port, process
else:
    from processes import free_port, process

#: What that program wrote at once.
WRITTEN = 200
FIELDS = ("id", "batch", "timestamp", "received_at", "severity", "service", "message", "attributes")


@pytest.fixture
async def sql(empty_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database that the first migration has made, and nothing else."""
    connection = await asyncpg.connect(empty_database_url)
    first = schema.migrations()[0]
    await connection.execute(schema._TABLE)
    await connection.execute(first.sql)
    await connection.execute(
        "insert into logagg_migrations (number, name, checksum) values ($1, $2, $3)", 1, first.name, first.checksum
    )
    await partitions.ensure(connection, datetime.now(UTC), back=3, ahead=1)
    yield connection
    await connection.close()


class FirstProgram:
    """What the first program did: it held the lock of its number, and wrote rows into a batch that it had opened."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        #: The service of its records, and how many were committed.
        self.committed: Counter[str] = Counter()

    async def open(self) -> int:
        """Begin a batch."""
        owner = await self._connection.fetchval("select nextval('owners')::int")
        await self._connection.execute("select pg_advisory_lock($1, $2)", CLASS, owner)
        batch: int = await self._connection.fetchval("insert into batches (owner) values ($1) returning batch", owner)
        return batch

    async def write(self, batch: int, place: int, service: str, age: timedelta = timedelta()) -> None:
        """Write rows into a batch, from a place on."""
        time = datetime.now(UTC) - age
        rows = [
            ((batch << PLACE_BITS) | n, batch, time, time, 6, service, f"old order {n} paid", json.dumps({"number": n}))
            for n in range(place, place + WRITTEN)
        ]
        await self._connection.copy_records_to_table("logs", records=rows, columns=FIELDS)
        self.committed[service] += WRITTEN

    async def close(self, batch: int) -> None:
        """End a batch, with what was known of it then."""
        await self._connection.execute(
            """update batches set closed_at = now(), count = s.count, ts_min = s.first, ts_max = s.last,
                received_min = s.first, received_max = s.last, services = s.services,
                hosts = '{null}', environments = '{null}'
            from (
                select count(*), min(timestamp) as first, max(timestamp) as last,
                    array_agg(distinct service) as services
                from logs where batch = $1
            ) s
            where batches.batch = $1""",
            batch,
        )


class Sender:
    """Sends numbered records by HTTP, the same again until they are acknowledged."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/ingest"
        self.acknowledged = 0

    async def run(self) -> None:
        async with aiohttp.ClientSession() as http:
            for number in count():
                body = json.dumps([{"service": "new", "message": f"order {number}-{n} paid"} for n in range(10)])
                while not await self._accepted(http, body, str(number)):
                    await asyncio.sleep(0.02)
                self.acknowledged += 10
                await asyncio.sleep(0.01)

    async def _accepted(self, http: aiohttp.ClientSession, body: str, key: str) -> bool:
        try:
            async with http.post(self._url, data=body, headers={"Idempotency-Key": key}) as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


async def test_a_database_of_the_first_schema_is_brought_up_to_date_in_use(
    empty_database_url: str, sql: asyncpg.Connection
) -> None:
    port = free_port()
    program, sender = FirstProgram(sql), Sender(port)
    for days in (2, 1, 0):
        await program.write(batch := await program.open(), 0, f"closed-{days}", timedelta(days=days))
        await program.close(batch)
    await program.write(await program.open(), 0, "left-open")
    batch = await program.open()
    sending = asyncio.create_task(sender.run())
    with process(database_url=empty_database_url, http_listen=f"127.0.0.1:{port}", batch_records="500"):
        async with asyncio.timeout(60):
            place = 0
            while sender.acknowledged < 1000:  # the old program goes on until it is stopped, while the new one starts
                await program.write(batch, place, "still-open")
                place += WRITTEN
                await asyncio.sleep(0.05)
        sending.cancel()
        await sql.execute("select pg_advisory_unlock_all()")
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            await compare(http, program.committed, sender.acknowledged)
    assert set(await schema.applied(sql)) == {each.number for each in schema.migrations()}


async def compare(http: aiohttp.ClientSession, old: Counter[str], new: int) -> None:
    """All that was committed or acknowledged is there, once, and is found by words and fields, packed or not."""
    async with http.get("/logs/aggregations", params={"by": "service"}) as answer:
        counts = {row["service"]: row["count"] for row in await answer.json()}
    assert new <= counts.pop("new") <= new + 10  # some may have been under way when their sender was stopped
    assert counts == old
    found = Counter(record["id"] for record in await export(http, '"old order"'))
    assert (len(found), set(found.values())) == (old.total(), {1})
    assert {record["service"] for record in await export(http, "number:7")} == old.keys()
    messages = Counter(record["message"] for record in await export(http, "service:new"))
    assert messages.keys() >= {f"order {number}-{n} paid" for number in range(new // 10) for n in range(10)}
    assert set(messages.values()) == {1}


async def export(http: aiohttp.ClientSession, q: str) -> list[dict[str, Any]]:
    """Return all records that match."""
    async with http.get("/logs/export", params={"q": q}) as answer:
        return [json.loads(line) async for line in answer.content]

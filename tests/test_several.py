"""Two daemons, each a process, on one database: each does its part, and when one is killed the other goes on."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from subprocess import Popen

    import asyncpg

    from logagg.tests.processes import free_port, process, wait_ready
    from logagg.tests.tails import tail
else:
    from processes import free_port, process, wait_ready
    from tails import tail

BATCH = 500
AT_ONCE = 100
#: Has the database note each time that the packed form of a batch is written.
COUNT_PACKINGS = """
create table packings (batch bigint);
create function note() returns trigger language plpgsql as $$
begin
    insert into packings values (new.batch);
    return new;
end $$;
create trigger note after update of head on batches for each row execute function note();
"""


class Running:
    """A daemon of its own process."""

    def __init__(self, process: Popen[str], http: aiohttp.ClientSession) -> None:
        self.process = process
        self.http = http

    async def send(self, service: str, count: int) -> None:
        """Have it store so many numbered records."""
        for start in range(0, count, AT_ONCE):
            records = [{"service": service, "message": f"order {n} paid"} for n in range(start, start + AT_ONCE)]
            async with self.http.post("/ingest", json=records) as answer:
                assert answer.status == 200

    async def counts(self) -> dict[str, int]:
        async with self.http.get("/logs/aggregations", params={"by": "service"}) as answer:
            return {row["service"]: row["count"] for row in await answer.json()}

    async def found(self, service: str) -> Counter[int]:
        """Return how often each number of a service is found."""
        async with self.http.get("/logs/export", params={"q": f"service:{service} paid"}) as answer:
            return Counter([int(json.loads(line)["message"].split()[1]) async for line in answer.content])


@pytest.fixture
async def two(database_url: str) -> AsyncIterator[tuple[Running, Running]]:
    async with AsyncExitStack() as stack:
        yield await running(stack, database_url), await running(stack, database_url)


async def running(stack: AsyncExitStack, url: str) -> Running:
    port = free_port()
    settings = {"database_url": url, "http_listen": f"127.0.0.1:{port}", "batch_records": str(BATCH)}
    started = stack.enter_context(process(**settings))
    await asyncio.to_thread(wait_ready, port)
    return Running(started, await stack.enter_async_context(aiohttp.ClientSession(f"http://127.0.0.1:{port}")))


async def until(value: Any, check: Any) -> None:
    """Wait until what `value` returns is as it should be."""
    async with asyncio.timeout(60):
        while not check(await value()):
            await asyncio.sleep(0.02)


async def test_both_answer_for_all_tell_of_all_and_pack_each_batch_once(
    two: tuple[Running, Running], sql: asyncpg.Connection
) -> None:
    one, other = two
    await sql.execute(COUNT_PACKINGS)
    async with asyncio.timeout(60), tail(one.http) as following:
        await following.begun()
        await asyncio.gather(one.send("left", 4 * BATCH), other.send("right", 4 * BATCH))
        told = Counter((each["service"], each["message"]) for each in await following.records(8 * BATCH))
    assert told == Counter((service, f"order {n} paid") for service in ("left", "right") for n in range(4 * BATCH))
    assert await one.counts() == await other.counts() == {"left": 4 * BATCH, "right": 4 * BATCH}
    await until(
        lambda: sql.fetchval("select count(*) from batches where closed_at is not null and packed_at is null"),
        lambda waiting: waiting == 0,
    )
    packed = await sql.fetch("select batch from batches where packed_at is not null order by 1")
    assert len(packed) >= 6
    assert await sql.fetch("select batch from packings order by 1") == packed
    for each in two:
        assert await each.found("left") == await each.found("right") == Counter(range(4 * BATCH))


async def test_one_is_killed_and_the_other_goes_on(
    two: tuple[Running, Running], sql: asyncpg.Connection, database_url: str
) -> None:
    one, other = two
    await asyncio.gather(one.send("left", BATCH + AT_ONCE), other.send("right", AT_ONCE))
    one.process.kill()
    one.process.wait()
    await other.send("right-after", 3 * AT_ONCE)
    assert await other.counts() == {"left": BATCH + AT_ONCE, "right": AT_ONCE, "right-after": 3 * AT_ONCE}
    assert await other.found("left") == Counter(range(BATCH + AT_ONCE))
    await owners_left(sql, 1)
    async with AsyncExitStack() as stack:  # one that is started in its place closes what it left
        new = await running(stack, database_url)
        await new.send("new", AT_ONCE)
        owners = await sql.fetch("select distinct owner from batches where closed_at is null")
        assert len(owners) == 2
        assert await new.counts() == await other.counts()
        assert await new.found("left") == Counter(range(BATCH + AT_ONCE))


async def owners_left(sql: asyncpg.Connection, count: int) -> None:
    """Wait until the server has noticed that a daemon is dead: only so many locks of owners are held."""
    held = """
        select count(*) from pg_locks where locktype = 'advisory' and objsubid = 2 and objid::int > 0
            and database = (select oid from pg_database where datname = current_database())
    """
    await until(lambda: sql.fetchval(held), lambda found: found <= count)


async def test_what_grows_can_be_distributed_by_batch(sql: asyncpg.Connection) -> None:
    """What Citus wants of docs/scaling.md: each unique constraint of a distributed table has the column in it."""
    unique = """
        select c.relname, array_agg(a.attname::text order by a.attname)
        from pg_index i join pg_class c on c.oid = i.indrelid
            join pg_attribute a on a.attrelid = c.oid and a.attnum = any(i.indkey)
        where i.indisunique and c.relname = any($1) group by c.relname, i.indexrelid
    """
    found = await sql.fetch(unique, ["logs", "batches", "progress"])
    assert dict(map(tuple, found)) == {"batches": ["batch"], "progress": ["batch"]}

"""Daemons that die by SIGKILL, before, while and after they pack: what was acknowledged is found, each record once."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING

import aiohttp
import orjson
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import asyncpg

    from logagg.tests.batches import connection
    from logagg.tests.processes import PATIENCE, free_port, gone, process, wait_ready
else:
    from batches import connection
    from processes import PATIENCE, free_port, gone, process, wait_ready

CLOSED, PACKED = "closed_at is not null and packed_at is null", "packed_at is not null"
#: Holds up whoever writes the packed form of a batch, while somebody holds the lock 7.
HOLD = """
create function hold() returns trigger language plpgsql as $$
    begin perform pg_advisory_xact_lock_shared(7); return new; end $$;
create trigger hold before update on batches for each row
    when (old.packed_at is null and new.packed_at is not null) execute function hold();
select pg_advisory_lock(7);
"""
HELD = "select pid from pg_stat_activity where $1::int = any (pg_blocking_pids(pid))"


class Load:
    """Records sent by some connections at once, until the daemon is gone; remembers those that were acknowledged."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self.sent: set[int] = set()
        self.acknowledged: set[int] = set()

    async def _send(self, http: aiohttp.ClientSession) -> None:
        with suppress(aiohttp.ClientError):
            while True:
                numbers = [next(self._numbers) for _ in range(20)]
                self.sent.update(numbers)
                body = b"\n".join(orjson.dumps({"message": f"record {n}", "n": n, "service": "s"}) for n in numbers)
                async with http.post("/ingest", data=body) as answer:
                    if answer.status == 200:
                        self.acknowledged.update(numbers)

    @asynccontextmanager
    async def on(self, http: int, senders: int = 3) -> AsyncIterator[None]:
        """Send until the daemon dies, which it must within this context."""
        async with aiohttp.ClientSession(f"http://127.0.0.1:{http}") as session, asyncio.TaskGroup() as group:
            for _ in range(senders):
                group.create_task(self._send(session))
            yield


async def until(sql: asyncpg.Connection, condition: str, least: int = 1) -> None:
    """Return when so many batches are so."""
    while await sql.fetchval(f"select count(*) from batches where {condition}") < least:  # noqa: S608 - ours
        await asyncio.sleep(0.01)


async def found(http: int) -> list[int]:
    """Return the numbers of all records that the daemon has."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{http}/logs/export") as answer:
        assert answer.status == 200
        return [json.loads(line)["attributes"]["n"] for line in (await answer.text()).splitlines()]


async def check(database_url: str, sql: asyncpg.Connection, *loads: Load) -> None:
    """Start a daemon: it finds everything at once, packs what the dead have left, and finds the same."""
    await gone(sql)
    port = free_port()
    with process(database_url=database_url, http_listen=f"127.0.0.1:{port}") as daemon:
        await asyncio.to_thread(wait_ready, port)
        before = await found(port)
        assert len(before) == len(set(before)), "a record is there twice"
        for load in loads:
            assert load.acknowledged, "nothing was acknowledged"
            assert load.acknowledged <= set(before)
        assert set(before) <= {n for load in loads for n in load.sent}
        while await sql.fetchval("select count(*) from batches where packed_at is null"):
            await asyncio.sleep(0.02)
        assert sorted(await found(port)) == sorted(before)
        daemon.terminate()
        assert await asyncio.to_thread(daemon.wait, PATIENCE) == 0
    assert await sql.fetchval("select sum(count) from batches") == len(before)
    assert await sql.fetchval("select count(*) from logs") == len(before)


async def test_killed_before_it_packs_anything(database_url: str) -> None:
    """All is in one open batch."""
    port, load = free_port(), Load(count())
    async with connection(database_url) as sql:
        with process(database_url=database_url, http_listen=f"127.0.0.1:{port}") as daemon:
            await asyncio.to_thread(wait_ready, port)
            async with load.on(port):
                while len(load.acknowledged) < 300:
                    await asyncio.sleep(0.01)
                daemon.kill()
        assert await sql.fetchval("select count(*) from batches where closed_at is not null") == 0
        await check(database_url, sql, load)


@pytest.mark.parametrize("statement", ["committed", "lost"])
async def test_killed_while_it_packs(database_url: str, statement: str) -> None:
    """The first packed form is on its way to the server, which commits it or not; others wait, one batch is open."""
    port, load = free_port(), Load(count())
    settings = {"batch_records": "100", "pack_lag": "1000", "http_listen": f"127.0.0.1:{port}"}
    async with connection(database_url) as sql, connection(database_url) as holder:
        await holder.execute(HOLD)
        with process(database_url=database_url, **settings) as daemon:
            await asyncio.to_thread(wait_ready, port)
            async with load.on(port):
                await until(sql, CLOSED, 4)
                while not (held := await sql.fetchval(HELD, holder.get_server_pid())):
                    await asyncio.sleep(0.01)
                daemon.kill()
        if statement == "lost":
            assert await sql.fetchval("select pg_terminate_backend($1, 9999)", held)
        await holder.execute("select pg_advisory_unlock(7)")
        while await sql.fetchval("select count(*) from pg_stat_activity where pid = $1", held):
            await asyncio.sleep(0.01)
        packed = await sql.fetchval("select count(*) from batches where packed_at is not null")
        assert packed == (statement == "committed")
        await check(database_url, sql, load)


async def test_killed_after_it_has_packed(database_url: str) -> None:
    """Some batches are packed, others are on their way, and ingest goes on."""
    port, load = free_port(), Load(count())
    settings = {"batch_records": "100", "http_listen": f"127.0.0.1:{port}"}
    async with connection(database_url) as sql:
        with process(database_url=database_url, **settings) as daemon:
            await asyncio.to_thread(wait_ready, port)
            async with load.on(port):
                await until(sql, PACKED, 5)
                daemon.kill()
        await check(database_url, sql, load)


async def test_two_at_once_of_which_one_is_killed(database_url: str) -> None:
    """The other goes on, and finds what both have stored, while it is written and afterwards."""
    ports = [free_port(), free_port()]
    numbers = count()
    loads = [Load(numbers), Load(numbers)]
    settings = {"batch_records": "100", "database_url": database_url}
    async with connection(database_url) as sql:
        with (
            process(http_listen=f"127.0.0.1:{ports[0]}", **settings) as killed,
            process(http_listen=f"127.0.0.1:{ports[1]}", **settings) as other,
        ):
            for port in ports:
                await asyncio.to_thread(wait_ready, port)
            async with loads[1].on(ports[1], senders=1):
                async with loads[0].on(ports[0], senders=1):
                    await until(sql, PACKED, 3)
                    for port in ports:
                        known = loads[0].acknowledged | loads[1].acknowledged
                        assert known <= set(await found(port))
                    killed.kill()
                stored = len(loads[1].acknowledged)
                while len(loads[1].acknowledged) < stored + 100:
                    await asyncio.sleep(0.01)
                assert loads[0].acknowledged <= set(await found(ports[1]))
                other.kill()
        await check(database_url, sql, *loads)

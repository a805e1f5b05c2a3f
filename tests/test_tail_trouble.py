"""Live tails when things go wrong: daemons that are killed, slow readers, a store that is away, too many tails."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import aiohttp

from logagg.query import tail as tails

if TYPE_CHECKING:
    import asyncpg
    import pytest

    from logagg.tests.batches import connection
    from logagg.tests.daemons import RunningDaemon, Starter
    from logagg.tests.processes import PATIENCE, free_port, process, wait_ready
    from logagg.tests.tails import send, tail
else:
    from batches import connection
    from processes import PATIENCE, free_port, process, wait_ready
    from tails import send, tail


async def test_two_daemons_one_of_which_is_killed(database_url: str, start_daemon: Starter) -> None:
    """What one daemon stores comes out of the other one, and a tail goes on at either of them."""
    daemon = await start_daemon()
    port = free_port()
    settings = {"database_url": database_url, "http_listen": f"127.0.0.1:{port}", "batch_records": "50"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as other:
        with process(**settings) as killed:
            await asyncio.to_thread(wait_ready, port)
            async with tail(daemon.http, q="word") as near, tail(other, q="word") as far:
                await near.begun()
                await far.begun()
                for n in range(8):
                    words = [f"word {n} {m}" for m in range(20)]
                    await asyncio.gather(send(daemon.http, *words), send(other, *words, service="far"))
                here, there = [await each.records(320) for each in (near, far)]
                assert len({each["id"] for each in here}) == 320
                assert sorted(r["id"] for r in here) == sorted(r["id"] for r in there)
                await send(other, "last word")
                killed.kill()
        await asyncio.to_thread(killed.wait)
        with process(**settings):
            await asyncio.to_thread(wait_ready, port)
            async with tail(other, q="word", last=far.id) as again:
                assert await again.messages(1) == ["last word"]
                await send(daemon.http, "a word more")
                assert await again.messages(1) == ["a word more"]


async def test_a_slow_reader_costs_the_others_nothing(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads what it has missed, out of open and packed batches, long after the feed has forgotten it."""
    monkeypatch.setattr("logagg.query.feed._KEPT", 20_000)
    text = "x" * 5000
    async with tail(daemon.http) as slow, tail(daemon.http, q="record") as fast:
        await slow.begun()
        await fast.begun()
        for n in range(40):
            await send(daemon.http, *(f"record {n} {m} {text}" for m in range(50)))
        there = await fast.records(2000)
        assert await slow.records(2000) == there
        await send(daemon.http, "end record")
        assert await slow.messages(1) == await fast.messages(1) == ["end record"]


async def test_there_may_be_so_many(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "LOOK", 0.05)
    url = f"http://{daemon.listening['http_listen']}"
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as http:
        async with AsyncExitStack() as stack:
            found = [await stack.enter_async_context(tail(http)) for _ in range(tails.MOST_TAILS)]
            for each in found:
                await each.begun()
            async with http.get("/logs/tail") as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
                assert "at most 100" in await refused.text()
            await send(http, "to all")
            assert [await each.messages(1) for each in found] == [["to all"]] * tails.MOST_TAILS
        status = 503
        while status != 200:  # until it is noticed that they are gone
            async with http.get("/logs/tail") as answer:
                status = answer.status


async def test_a_store_that_is_away(daemon: RunningDaemon, sql: asyncpg.Connection, database_url: str) -> None:
    """The tail says so, stays, and has what was journaled meanwhile."""
    async with tail(daemon.http, backlog=10) as found:
        await found.begun()
        await send(daemon.http, "before")
        assert await found.messages(1) == ["before"]
        database = await sql.fetchval("select current_database()")
        async with connection(database_url.replace(database, "postgres")) as admin:
            await admin.execute(f"alter database {database} allow_connections false")
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and pid <> $2",
                database, sql.get_server_pid(),
            )  # fmt: skip
            while not found.problems:
                await found.event()
            await send(daemon.http, "meanwhile")
            await admin.execute(f"alter database {database} allow_connections true")
        assert await found.messages(1) == ["meanwhile"]


async def test_what_retention_has_dropped_is_told(daemon: RunningDaemon, sql: asyncpg.Connection) -> None:
    await send(daemon.http, "early")
    batch = await sql.fetchval("delete from batches returning batch")
    await send(daemon.http, "late")
    async with tail(daemon.http, last=f"1-{batch:x}-0.0") as found:
        assert await found.messages(1) == ["late"]
        assert "older than they are kept" in found.problems[0]


async def test_stopping_does_not_wait_for_tails(database_url: str) -> None:
    """Not even for one that nobody reads."""
    port = free_port()
    with process(database_url=database_url, http_listen=f"127.0.0.1:{port}") as daemon:
        await asyncio.to_thread(wait_ready, port)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http, tail(http) as found, tail(http) as idle:
            await found.begun()
            await idle.begun()
            for _ in range(20):
                await send(http, *("x" * 9000 for _ in range(100)))
            daemon.terminate()
            assert await asyncio.to_thread(daemon.wait, PATIENCE) == 0

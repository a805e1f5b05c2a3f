"""Live tails and what changes behind them: records out of quarantine, and batches that are packed meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from click.testing import CliRunner

from logagg.cli.main import cli

if TYPE_CHECKING:
    import asyncpg

    from logagg.tests.daemons import RunningDaemon, Starter
    from logagg.tests.tails import send, tail
else:
    from tails import send, tail


async def test_what_is_replayed_out_of_quarantine_comes(
    daemon: RunningDaemon, database_url: str, sql: asyncpg.Connection
) -> None:
    async with tail(daemon.http) as found, tail(daemon.http, q="other") as others:
        place = await found.begun()
        await others.begun()
        await daemon.tcp("tcp_listen", b'{"message": "at once"}\nno JSON\nno other JSON\n')
        assert await found.messages(1) == ["at once"]
        assert await sql.fetchval("select count(*) from quarantine") == 2
        replay = ["quarantine", "replay", "--all", "--as", "text", "--database-url", database_url]
        assert (await asyncio.to_thread(CliRunner().invoke, cli, replay)).exit_code == 0
        assert await found.messages(2) == ["no JSON", "no other JSON"]
        assert await others.messages(1) == ["no other JSON"]
        await send(daemon.http, "after it")
        assert await found.messages(1) == ["after it"]
    async with tail(daemon.http, last=place) as again:
        assert sorted(await again.messages(4)) == ["after it", "at once", "no JSON", "no other JSON"]


async def test_going_on_at_an_id_whose_records_were_packed_meanwhile(
    start_daemon: Starter, sql: asyncpg.Connection
) -> None:
    daemon = await start_daemon(batch_records=50)
    async with tail(daemon.http) as found:
        ids = [await found.begun()]
        for n in range(6):
            await send(daemon.http, *(f"word {n} {m}" for m in range(30)))
        records = []
        for _ in range(180):
            records.append(await found.record())
            ids.append(found.id)
    while await sql.fetchval("select count(*) < 3 from batches where packed_at is not null"):
        await asyncio.sleep(0.01)
    await sql.execute("delete from logs where batch in (select batch from batches where packed_at is not null)")
    for place in (0, 1, 29, 59, 60, 61, 100, 179):  # in packed batches, at their ends, and in the open one
        async with tail(daemon.http, last=ids[place], q="word") as again:
            assert await again.records(180 - place) == records[place:]
            await send(daemon.http, f"end at {place}")
            async with tail(daemon.http, last=again.id) as behind:  # nothing is left but the ends
                assert (await behind.messages(1))[0].startswith("end at")

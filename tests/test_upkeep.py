"""Packing from rows and the tasks of maintenance, against a real PostgreSQL."""

import asyncio
import secrets
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from logagg.protocols.record import Record
from logagg.sinks import packing, upkeep
from logagg.sinks.locks import PACKING, locked
from logagg.sinks.store import Store
from logagg.sinks.upkeep import BatchDamaged, pack_from_rows, store_packed

if TYPE_CHECKING:
    from logagg.tests.batches import DAY, connection, leave, leave_packed, packed, record
    from logagg.tests.daemons import Starter
else:
    from batches import DAY, connection, leave, leave_packed, packed, record

WEEK = 7 * DAY


async def unpacked(sql: asyncpg.Connection) -> list[int]:
    query = "select batch from batches where packed_at is null order by batch"
    return [number for (number,) in await sql.fetch(query)]


async def test_every_column_is_packed_as_it_was_written(database_url: str, sql: asyncpg.Connection) -> None:
    first = datetime(2026, 3, 4, 5, 6, 7, 123457, tzinfo=UTC)
    full = (first, first + DAY, 0, 127, "prod", "h", "s", "src", "m\ufffd\n\t\\N", '{"a": [1, "\\u00e9"]}')
    records = [
        record(datetime(1, 1, 1, tzinfo=UTC)),
        Record(*full, "t", "p", b"\0\xff"),
        record(datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), message=""),
    ]
    (number,) = await leave(database_url, records)
    assert await pack_from_rows(sql, number)
    rows = (await packed(sql, number)).rows()
    assert [row[0] for row in rows] == [number << 17 | place for place in range(3)]
    assert rows[1][1:10] == full[:9]
    assert rows[1][10:] == ('{"a": [1, "é"]}', "t", "p", b"\0\xff")  # the text of jsonb
    for place in (0, 2):
        assert rows[place][1:] == tuple(records[place])


async def test_it_is_packed_once(database_url: str, sql: asyncpg.Connection) -> None:
    (number,) = await leave(database_url, [record()])
    async with connection(database_url) as other:
        done = await asyncio.gather(pack_from_rows(sql, number), pack_from_rows(other, number))
    assert sorted(done) == [False, True]
    blobs = await sql.fetchrow("select head, body, filter, summary, packed_at from batches")
    assert not await pack_from_rows(sql, number)
    assert not await store_packed(sql, number, packing.Packed(b"", b"", b"", None, b""))
    assert await sql.fetchrow("select head, body, filter, summary, packed_at from batches") == blobs
    assert not await pack_from_rows(sql, 4711)


async def test_an_open_batch_is_not_packed(store: Store, sql: asyncpg.Connection) -> None:
    await store.write([record()])
    (number,) = await unpacked(sql)
    assert not await pack_from_rows(sql, number)
    assert not await store_packed(sql, number, packing.Packed(b"", b"", b"", None, b""))
    assert await upkeep.waiting(sql, anybody=True) is None


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("delete from logs where message = '1'", "2 rows are there"),
        ("insert into logs select * from logs where message = '1'", "4 rows of 3 ids are there"),
        ("update logs set received_at = received_at - interval '1 day' where message = '0'", "2 rows are there"),
        ("truncate logs", "0 rows are there"),
    ],
)
async def test_a_batch_whose_rows_are_not_those_written_stays_as_rows(
    database_url: str, sql: asyncpg.Connection, damage: str, found: str
) -> None:
    damaged, sound = await leave(database_url, [record(message=str(n)) for n in range(3)], [record()])
    await sql.execute(damage)
    with pytest.raises(BatchDamaged, match=f"batch {damaged}: 3 records were written, {found}: it stays as rows"):
        await pack_from_rows(sql, damaged)
    store = await Store.open(database_url)
    first, second = [await store.maintenance(WEEK) for _ in range(2)]
    assert found in str(first.failures()["packing"])
    assert first.packed == ([] if damage == "truncate logs" else [sound])
    assert not second.failures()  # it is said once in some hours
    assert damaged in await unpacked(sql)
    assert second.lag
    assert second.lag.batches == len(await unpacked(sql))
    await store.close()


@pytest.mark.parametrize("count", [1, 20_000])
async def test_batches_of_one_and_of_many(database_url: str, sql: asyncpg.Connection, count: int) -> None:
    """The many in 10,000 services: too many to skip a batch by."""
    (number,) = await leave(database_url, [record(service=f"s{n % 10_000}", message=str(n)) for n in range(count)])
    assert await pack_from_rows(sql, number)
    assert (await packed(sql, number))["message"].to_list() == [str(n) for n in range(count)]
    services = await sql.fetchval("select services from batches")
    assert services == (["s0"] if count == 1 else None)


# A daemon that dies


async def test_a_daemon_killed_before_packing(database_url: str, sql: asyncpg.Connection) -> None:
    """Its open batch and its closed one are found by the next, each record once, and packed from rows."""
    program = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[2])
from batches import record
from logagg.sinks.locks import PACKING, locked
from logagg.sinks.store import Store

async def main():
    store = await Store.open(sys.argv[1], batch_records=10, pack_lag=1000)
    await store._packer.close()
    await store.write([record(message=f"closed {n}", service=f"s{n}") for n in range(10)])
    await store.write([record(message="open")])
    await store._idle()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    command = [sys.executable, "-c", program, database_url, str(Path(__file__).parent)]
    died = await asyncio.to_thread(subprocess.run, command, check=False)
    assert died.returncode == -signal.SIGKILL
    others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    while await sql.fetchval(others):
        await asyncio.sleep(0.01)  # the server has not noticed yet
    store = await Store.open(database_url)
    before = await contents(store)
    done = await store.maintenance(WEEK)
    assert len(done.packed) == 2
    assert await unpacked(sql) == []
    assert await contents(store) == before == sorted([f"closed {n}" for n in range(10)] + ["open"])
    await store.close()


async def contents(store: Store) -> list[str]:
    """Return all messages that a query would find."""
    frames = [(await store.load(batch, ["message"])).frame for batch in await store.batches()]
    return sorted(message for frame in frames for message in frame["message"])


async def test_a_daemon_killed_while_its_packed_form_is_written(database_url: str, sql: asyncpg.Connection) -> None:
    (number,) = await leave(database_url, [record(message=str(n)) for n in range(5)])
    killed = await asyncpg.connect(database_url)
    await killed.execute("begin")
    assert await store_packed(killed, number, packing.Packed(b"half", b"", b"", None, b""))
    killed.terminate()
    assert await unpacked(sql) == [number]
    store = await Store.open(database_url)
    assert (await store.maintenance(WEEK)).packed == [number]
    assert await contents(store) == [str(n) for n in range(5)]
    await store.close()


async def test_a_daemon_killed_after_packing(database_url: str) -> None:
    await leave_packed(database_url, [record(message=str(n)) for n in range(5)])
    store = await Store.open(database_url)
    done = await store.maintenance(WEEK)
    assert (done.adopted, done.packed) == ([], [])
    assert await contents(store) == [str(n) for n in range(5)]
    await store.close()


# Several daemons


async def test_a_batch_of_a_living_store_is_left_to_it_for_a_while(database_url: str, sql: asyncpg.Connection) -> None:
    alive, other = [await Store.open(database_url) for _ in range(2)]
    await alive._packer.close()
    await alive.write([record()])
    await alive.roll()
    (number,) = await unpacked(sql)
    assert (await other.maintenance(WEEK)).packed == []
    assert await upkeep.waiting(sql, anybody=True) == number
    await sql.execute("update batches set closed_at = closed_at - interval '11 minutes'")
    done = await other.maintenance(WEEK)
    assert done.packed == [number]
    assert done.lag == (0, 0, timedelta(0))
    for store in (alive, other):
        await store.close()


async def test_two_daemons_write_and_maintain_at_once(database_url: str, sql: asyncpg.Connection) -> None:
    stores = [await Store.open(database_url, batch_records=50) for _ in range(2)]

    async def write(store: Store, name: str) -> None:
        for n in range(20):
            await store.write([record(message=f"{name} {n} {m}") for m in range(10)])

    async def maintain(store: Store) -> None:
        for _ in range(5):
            assert not (await store.maintenance(WEEK, 30 * DAY)).failures()

    await leave(database_url, *([record(message="left")] for _ in range(4)))
    await asyncio.gather(*(write(store, str(n)) for n, store in enumerate(stores)), *map(maintain, stores))
    everything = sorted([f"{s} {n} {m}" for s in range(2) for n in range(20) for m in range(10)] + ["left"] * 4)
    assert await contents(stores[0]) == await contents(stores[1]) == everything
    for store in stores:
        await store.pack_now()
        await store.close()
    store = await Store.open(database_url)
    await store.maintenance(WEEK)
    assert await unpacked(sql) == []
    assert await contents(store) == everything
    await store.close()


# Tasks


async def test_each_task_says_when_it_ran(store: Store) -> None:
    done = await store.maintenance(WEEK, 30 * DAY)
    assert tuple(task.name for task in done.tasks) == upkeep.TASKS[:-1]
    assert [task.name for task in (await store.index_rows()).tasks] == [upkeep.TASKS[-1]]
    now = datetime.now(UTC).timestamp()
    assert all(now - 60 < task.ended <= now and task.seconds > 0 and not task.error for task in done.tasks)


async def test_a_task_that_fails_does_not_stop_the_others(
    database_url: str, store: Store, sql: asyncpg.Connection
) -> None:
    (number,) = await leave(database_url, [record()])
    await sql.execute("drop table kept_days")
    done = await store.maintenance(WEEK)
    assert list(done.failures()) == ["retention"]
    assert 'relation "kept_days" does not exist' in str(done.failures()["retention"])
    assert [task.name for task in done.tasks] == list(upkeep.TASKS[:-1])
    assert done.packed == [number]


async def test_a_task_at_which_another_is_is_left_to_it(database_url: str, store: Store) -> None:
    (number,) = await leave(database_url, [record()])
    async with connection(database_url) as other, locked(other, PACKING):
        done = await store.maintenance(WEEK)
        assert [task.name for task in done.tasks] == ["partitions", "orphans", "retention", "trimming", "summaries"]
        assert done.lag
        assert done.lag.batches == 1
    assert (await store.maintenance(WEEK)).packed == [number]


async def test_a_daemon_shows_its_tasks_and_what_waits(database_url: str, start_daemon: "Starter") -> None:
    (number,) = await leave(database_url, [record(message="gone")])
    async with connection(database_url) as sql:
        await sql.execute("truncate logs")
    daemon = await start_daemon(rows_gin=True)
    for task in upkeep.TASKS:
        while not await daemon.metric("logagg_maintenance_last_run_seconds", task=task):
            await asyncio.sleep(0.01)
        assert await daemon.metric("logagg_maintenance_duration_seconds", task=task) > 0
        failures = await daemon.metric("logagg_maintenance_failures_total", task=task)
        assert failures == (task == "packing"), number
    assert await daemon.metric("logagg_unpacked_batches") == 1
    assert await daemon.metric("logagg_unpacked_age_seconds") > 0


async def test_the_quarantine_is_bounded(store: Store, sql: asyncpg.Connection) -> None:
    entry = "insert into quarantine (received_at, transport, source, reason, raw) values ($1, 't', 's', 'r', $2)"
    now = datetime.now(UTC)
    for days in (9, 3, 2, 1):
        await sql.execute(entry, now - timedelta(days=days), secrets.token_bytes(100_000))
    done = await store.maintenance(WEEK, WEEK, None, None, 1 << 30)
    assert (done.forgotten, done.failures()) == (1, {})
    done = await store.maintenance(WEEK, WEEK, None, None, 250_000)
    assert done.news() == {"quarantine": 1}
    left = await sql.fetch("select received_at from quarantine order by 1")
    assert [round((now - time) / DAY) for (time,) in left] == [2, 1]
    assert not (await store.maintenance(WEEK, WEEK, None, None, 250_000)).forgotten  # however large the table still is

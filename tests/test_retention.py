"""What is dropped when it is old, and what stays, against a real PostgreSQL."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from logagg.sinks import partitions, retention
from logagg.sinks.reading import PACKED_SIZE
from logagg.sinks.retention import Dropped
from logagg.sinks.store import Store

if TYPE_CHECKING:
    from logagg.tests.batches import DAY, connection, leave, leave_packed, record
else:
    from batches import DAY, connection, leave, leave_packed, record

#: No tested day is near the real one: a store makes those around today itself.
NOW = datetime(2031, 3, 1, 23, 59, 59, tzinfo=UTC)


async def drop(sql: asyncpg.Connection, rows: timedelta, batches: timedelta | None = None) -> Dropped:
    """Drop what is old at NOW."""
    await forget_today(sql)
    return await retention.drop_expired(sql, retention.border(NOW, rows, batches))


async def forget_today(sql: asyncpg.Connection) -> None:
    """Drop the days that opening a store has made; the tested ones are far from them."""
    for name in set(await partitions.names(sql)) - {"logs_default", *await days(sql)}:
        await sql.execute(f"drop table {name}")


async def received(sql: asyncpg.Connection) -> list[datetime]:
    return [time for (time,) in await sql.fetch("select received_at from logs order by 1")]


async def ages(sql: asyncpg.Connection) -> list[int]:
    """Return how many days ago the batches were received."""
    return [(NOW - time).days for (time,) in await sql.fetch("select received_max from batches order by 1")]


async def days(sql: asyncpg.Connection) -> list[str]:
    return sorted(name for name in await partitions.names(sql) if name.startswith("logs_203"))


async def test_only_whole_days_whose_batches_are_packed_go(database_url: str, sql: asyncpg.Connection) -> None:
    await partitions.ensure(sql, NOW, back=5, ahead=1)
    await leave_packed(database_url, *([record(NOW - n * DAY)] for n in range(6)))
    before = await days(sql)
    assert await drop(sql, 3 * DAY) == Dropped(("logs_20310224", "logs_20310225"))
    assert await days(sql) == before[2:]
    assert await received(sql) == [NOW - n * DAY for n in (3, 2, 1, 0)]
    assert await ages(sql) == [5, 4, 3, 2, 1, 0]
    assert await drop(sql, 3 * DAY) == Dropped()


async def test_a_day_waits_for_the_batches_with_rows_in_it(
    database_url: str, store: Store, sql: asyncpg.Connection
) -> None:
    """Closed ones and open ones; a batch that spans the day without a row in it is not waited for."""
    await partitions.ensure(sql, NOW, back=5, ahead=0)
    old = NOW - 5 * DAY
    await leave(database_url, [record(old)], [record(old), record(old + DAY)], [record(old - DAY), record(NOW)])
    await store.write([record(old)])
    assert await drop(sql, 3 * DAY) == Dropped(kept={"logs_20310224": 3, "logs_20310225": 1})
    await sql.execute("update batches set packed_at = now() where closed_at is not null")
    assert await drop(sql, 3 * DAY) == Dropped(("logs_20310225",), {"logs_20310224": 1}, rows=1)
    await store.close()
    await sql.execute("update batches set packed_at = now()")
    assert await drop(sql, 3 * DAY) == Dropped(("logs_20310224",))
    assert await received(sql) == [NOW]


async def test_rows_of_no_day_go_by_the_same_rule(database_url: str, sql: asyncpg.Connection) -> None:
    border = (NOW - 3 * DAY).replace(hour=0, minute=0, second=0)
    times = [border, border - timedelta(microseconds=1), datetime(1, 1, 1, tzinfo=UTC), NOW + 99 * DAY]
    packed, _ = await leave(database_url, [record(time) for time in times], [record(border - DAY)])
    assert await drop(sql, 3 * DAY) == Dropped()
    await sql.execute("update batches set packed_at = now() where batch = $1", packed)
    assert (await drop(sql, 3 * DAY)).rows == 2
    assert await received(sql) == [border - DAY, border, NOW + 99 * DAY]


@pytest.mark.parametrize(
    ("rows", "batches", "days_left", "rows_left"),
    [
        (timedelta(days=2), timedelta(days=4), [3, 2, 1, 0], [2, 1, 0]),
        (timedelta(days=4), timedelta(days=2), [1, 0], [2, 1, 0]),  # batches by the second, rows by the day
        (timedelta(days=400_000_000), timedelta(days=400_000_000), [5, 4, 3, 2, 1, 0], [5, 4, 3, 2, 1, 0]),
        (timedelta(days=4), None, [5, 4, 3, 2, 1, 0], [4, 3, 2, 1, 0]),
    ],
)
async def test_batches_and_rows_go_each_at_their_time(
    database_url: str,
    sql: asyncpg.Connection,
    rows: timedelta,
    batches: timedelta | None,
    days_left: list[int],
    rows_left: list[int],
) -> None:
    await partitions.ensure(sql, NOW, back=5, ahead=0)
    await leave_packed(database_url, *([record(NOW - n * DAY - timedelta(seconds=n and 1))] for n in range(6)))
    await forget_today(sql)
    due = await retention.due(sql, retention.border(NOW, rows, batches))
    dropped = await drop(sql, rows, batches)
    assert (dropped.batches, dropped.records) == (due.batches, due.records) == (6 - len(days_left),) * 2
    assert list(dropped.partitions) == list(due.days)
    assert (due.rows_bytes > 0, due.packed_bytes > 0) == (bool(due.days), bool(due.batches))
    assert await ages(sql) == days_left
    assert [(NOW - time).days for time in await received(sql)] == rows_left


async def test_what_there_is_no_room_for_goes_the_oldest_first(database_url: str, sql: asyncpg.Connection) -> None:
    await partitions.ensure(sql, NOW, back=5, ahead=0)
    await leave_packed(database_url, *([record(NOW - n * DAY)] for n in range(6)))
    await forget_today(sql)
    for_ever = retention.border(NOW, 400_000 * DAY, None)
    sizes = await sql.fetch(
        f"select {PACKED_SIZE} from batches order by received_max desc"  # noqa: S608 - a text of ours
    )
    four, day = sum(size for (size,) in sizes[:4]), await sql.fetchval("select pg_total_relation_size('logs_20310301')")
    for room in ({}, {"packed_size": sum(size for (size,) in sizes)}, {"rows_size": 6 * day}):
        assert await retention.within(sql, for_ever, **room) == for_ever
    old = await retention.within(sql, for_ever, rows_size=3 * day - 1)
    assert await retention.drop_expired(sql, old) == Dropped(
        ("logs_20310224", "logs_20310225", "logs_20310226", "logs_20310227")
    )
    assert await ages(sql) == [5, 4, 3, 2, 1, 0]
    due = await retention.due(sql, await retention.within(sql, for_ever, packed_size=four))
    assert (due.batches, due.records) == (2, 2)
    await retention.drop_expired(sql, await retention.within(sql, for_ever, packed_size=four))
    assert await ages(sql) == [3, 2, 1, 0]
    # Rows do not outlive their batches, and today's stay whatever they take.
    old = await retention.within(sql, for_ever, rows_size=0, packed_size=four - sizes[3]["?column?"])
    await retention.drop_expired(sql, old)
    assert await ages(sql) == [2, 1, 0]
    assert await days(sql) == ["logs_20310301"]
    await retention.drop_expired(sql, await retention.within(sql, for_ever, rows_size=0, packed_size=0))
    assert await ages(sql) == []
    assert await days(sql) == ["logs_20310301"]


async def test_a_batch_past_retention_goes_packed_or_not(database_url: str, sql: asyncpg.Connection) -> None:
    await partitions.ensure(sql, NOW, back=5, ahead=0)
    await leave(database_url, [record(NOW - 5 * DAY)], [record(NOW - 4 * DAY), record(NOW)])
    dropped = await drop(sql, 2 * DAY, 3 * DAY)
    assert dropped == Dropped(("logs_20310224", "logs_20310226"), {"logs_20310225": 1}, 0, 1, 1)
    assert await received(sql) == [NOW - 4 * DAY, NOW]


async def test_a_clock_that_jumped_back_drops_nothing_young(database_url: str, sql: asyncpg.Connection) -> None:
    """Received in 1970, as the daemon's clock said, and closed just now: the packed form stays."""
    await leave_packed(database_url, [record(datetime(1970, 1, 1, tzinfo=UTC))])
    old = retention.border(datetime.now(UTC), 7 * DAY, 30 * DAY)
    assert await retention.drop_expired(sql, old) == Dropped(rows=1)
    assert await sql.fetchval("select count(*) from batches where packed_at is not null") == 1


async def test_a_reader_in_the_way_delays_it_to_the_next_time(database_url: str, sql: asyncpg.Connection) -> None:
    await partitions.ensure(sql, NOW, back=5, ahead=0)
    await leave_packed(database_url, [record(NOW - 5 * DAY)])
    await forget_today(sql)
    async with connection(database_url) as reader, reader.transaction():
        await reader.fetch("select * from logs")
        assert await retention.drop_expired(sql, retention.border(NOW, 3 * DAY, None)) == Dropped(
            kept={"logs_20310224": 0, "logs_20310225": 0}
        )
    assert await drop(sql, 3 * DAY) == Dropped(("logs_20310224", "logs_20310225"))


async def test_what_a_user_built_on_a_partition_keeps_it(sql: asyncpg.Connection) -> None:
    await partitions.ensure(sql, NOW - 5 * DAY, back=0, ahead=1)
    await sql.execute("create view theirs as select message from logs_20310224")
    assert await drop(sql, 3 * DAY) == Dropped(("logs_20310225",), {"logs_20310224": 0})


async def test_a_drop_meets_a_write_into_the_day(database_url: str, store: Store, sql: asyncpg.Connection) -> None:
    """Records that come late into an old day, while it is dropped: each is in logs, or in the packed form."""
    await partitions.ensure(sql, NOW, back=5, ahead=0)
    late = [record(NOW - 5 * DAY, message=str(n)) for n in range(200)]

    async def write() -> None:
        for n in range(0, 200, 20):
            await store.write(late[n : n + 20])

    async def drop_again_and_again() -> None:
        for _ in range(10):
            await retention.drop_expired(sql, retention.border(NOW, 3 * DAY, None))

    await asyncio.gather(write(), drop_again_and_again())
    assert await sql.fetchval("select count(*) from logs") == 200


@pytest.mark.parametrize(("rows", "rows_size"), [(timedelta(microseconds=1), None), (7 * DAY, 0)])
async def test_yesterday_is_not_made_to_be_dropped(
    store: Store, sql: asyncpg.Connection, rows: timedelta, rows_size: int | None
) -> None:
    """With rows in it, it goes, once; empty, it stays for what comes late."""
    yesterday = f"logs_{datetime.now(UTC) - DAY:%Y%m%d}"
    late = record(datetime.now(UTC) - DAY)
    for written in (False, True):
        if written:
            await store.write([late])
            await store.roll()
            await store.pack_now()
        done = [await store.maintenance(rows, None, rows_size) for _ in range(3)]
        assert [u.dropped.partitions for u in done] == [(yesterday,) if written else (), (), ()]
        assert [u.made for u in done] == [[], [yesterday] if written else [], []]


async def test_maintenance_does_it_once_for_all_stores(database_url: str) -> None:
    stores = [await Store.open(database_url) for _ in range(3)]
    old = datetime.now(UTC) - 30 * DAY
    async with connection(database_url) as sql:
        await partitions.ensure(sql, old, back=0, ahead=0)
        await leave_packed(database_url, [record(old)], [record()])
        done = await asyncio.gather(*(s.maintenance(7 * DAY) for s in stores))
        assert [u.dropped.partitions for u in done if u.dropped.partitions] == [(f"logs_{old:%Y%m%d}",)]
        assert await sql.fetchval("select count(*) from logs") == 1
    for store in stores:
        await store.close()

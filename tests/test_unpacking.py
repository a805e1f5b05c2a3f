"""Packed records as rows again, against a real PostgreSQL."""

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from logagg.sinks import partitions, retention, unpacking
from logagg.sinks.errors import StoreError
from logagg.sinks.locks import UNPACKING, locked
from logagg.sinks.retention import Dropped
from logagg.sinks.store import Store
from logagg.sinks.unpacking import Unpacked

if TYPE_CHECKING:
    from logagg.tests.batches import DAY, connection, leave, leave_packed, packed, record
else:
    from batches import DAY, connection, leave, leave_packed, packed, record

OLD = datetime(2020, 3, 4, 23, 59, 59, 999999, tzinfo=UTC)
EVER = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
WEEK = 7 * DAY


async def unpack(
    sql: asyncpg.Connection, since: datetime = EVER[0], until: datetime = EVER[1], into: str | None = None
) -> list[Unpacked]:
    return [done async for done in unpacking.unpack(sql, since, until, into=into, keep=WEEK)]


async def rows(sql: asyncpg.Connection, table: str = "logs") -> list[tuple[object, ...]]:
    return [tuple(row) for row in await sql.fetch(f"select * from {table} order by id")]  # noqa: S608 - quoted


async def drop_rows(sql: asyncpg.Connection) -> Dropped:
    return await retention.drop_expired(sql, retention.border(datetime.now(UTC), WEEK, None))


async def test_rows_come_back_as_they_were(database_url: str, sql: asyncpg.Connection) -> None:
    await partitions.ensure(sql, OLD, back=0, ahead=1)
    full = record(OLD, message='a\tb\n\\N "', attributes='{"k": [1.50, null, "\\u00fc"]}', raw=b"\0\xff\n", facility=3)
    first, second = await leave_packed(database_url, [full, record(OLD + DAY)], [record(OLD)])
    before = await rows(sql)
    assert await drop_rows(sql) == Dropped(("logs_20200304", "logs_20200305"))
    assert await rows(sql) == []
    assert await unpack(sql) == [Unpacked(first, 2, 0), Unpacked(second, 1, 0)]
    assert await rows(sql) == before
    days = "select tableoid::regclass::text from logs order by id"
    assert [name for (name,) in await sql.fetch(days)] == ["logs_20200304", "logs_20200305", "logs_20200304"]


async def test_twice_gives_the_rows_once(database_url: str, sql: asyncpg.Connection) -> None:
    number, other = await leave_packed(database_url, [record(OLD, message=str(n)) for n in range(9)], [record()])
    before = await rows(sql)
    await sql.execute("delete from logs where message in ('3', '5')")
    assert await unpack(sql) == [Unpacked(number, 2, 7), Unpacked(other, 0, 1)]
    assert await unpack(sql) == [Unpacked(number, 0, 9), Unpacked(other, 0, 1)]
    assert await rows(sql) == before


async def test_only_records_of_the_range(database_url: str, sql: asyncpg.Connection) -> None:
    """By timestamp; an open end, and batches that are not packed are no matter."""
    times = [OLD - DAY, OLD, OLD + DAY, OLD + 2 * DAY]
    (number,) = await leave_packed(database_url, [record()._replace(timestamp=time) for time in times])
    await leave(database_url, [record()._replace(timestamp=OLD)])
    await sql.execute("truncate logs")
    assert await unpack(sql, OLD, OLD + 2 * DAY) == [Unpacked(number, 2, 0)]
    assert [row[2] for row in await rows(sql)] == times[1:3]
    assert await unpack(sql, OLD - 9 * DAY, OLD - DAY) == []
    assert await unpack(sql, OLD + DAY, OLD - DAY) == []


async def test_maintenance_leaves_them_alone_for_a_while(database_url: str, sql: asyncpg.Connection) -> None:
    """In days of their own and in those that cannot have one."""
    times = [OLD, EVER[0], EVER[1], *(OLD - n * DAY for n in range(1, 40))]
    await leave_packed(database_url, [record(time) for time in times])
    await drop_rows(sql)
    assert len(await rows(sql)) == 1  # of the year 9999
    await unpack(sql)
    assert await drop_rows(sql) == Dropped()
    assert len(await rows(sql)) == len(times)
    await sql.execute("update kept_days set keep_until = now() - interval '1 second'")
    dropped = await drop_rows(sql)
    assert (len(dropped.partitions), dropped.kept) == (31, {})
    assert len(await rows(sql)) == 1
    assert await sql.fetchval("select count(*) from kept_days") == 0


async def test_queries_find_the_same_records_before_and_after(database_url: str, sql: asyncpg.Connection) -> None:
    await leave_packed(database_url, [record(OLD, message=str(n)) for n in range(9)])
    store = await Store.open(database_url)
    for _ in range(2):
        (batch,) = await store.batches()
        assert sorted((await store.load(batch, ["message"])).frame["message"]) == [str(n) for n in range(9)]
        await drop_rows(sql)
        await unpack(sql)
    await store.close()


# Tables


@pytest.mark.parametrize("name", ["november", 'we"ird; drop table logs', "Ümläut", "public.other", 'public.a"b'])
async def test_into_a_table_of_its_own(database_url: str, sql: asyncpg.Connection, name: str) -> None:
    (number,) = await leave_packed(database_url, [record(message=str(n)) for n in range(3)])
    before = await rows(sql)
    assert await unpack(sql, into=name) == [Unpacked(number, 3, 0)]
    assert await unpack(sql, into=name) == [Unpacked(number, 0, 3)]
    table = (await unpacking.table(sql, name)).table
    assert await rows(sql, table) == before
    assert await sql.fetchval("select count(*) from kept_days") == 0


async def test_into_a_table_of_the_users_with_the_same_columns(database_url: str, sql: asyncpg.Connection) -> None:
    (number,) = await leave_packed(database_url, [record(message=str(n)) for n in range(3)])
    await sql.execute("create table mine (like logs)")
    await sql.execute("insert into mine select * from logs limit 1")
    assert await unpack(sql, into="mine") == [Unpacked(number, 2, 1)]
    assert await rows(sql, "mine") == await rows(sql)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("theirs", "the table theirs is there already with other columns than logs"),
        ("logs", "logs is there already and no ordinary table"),
        ("logs_default", "logs_default is there already and no ordinary table"),
        ("seen", "seen is there already and no ordinary table"),
        ("", "'' is no name of a table"),
        ("public.", "'public.' is no name of a table"),
    ],
)
async def test_a_table_that_cannot_take_them(database_url: str, sql: asyncpg.Connection, table: str, why: str) -> None:
    await leave_packed(database_url, [record()])
    await sql.execute("create table theirs (like logs); alter table theirs alter severity type int")
    await sql.execute("create view seen as select * from logs")
    with pytest.raises(StoreError, match=re.escape(why)):
        await unpack(sql, into=table)


# Trouble


async def test_a_batch_that_is_damaged_is_said_and_the_others_come(database_url: str, sql: asyncpg.Connection) -> None:
    damaged, sound = await leave_packed(database_url, [record(OLD, message="x" * 99)], [record(OLD)])
    flip = "update batches set body = set_byte(body, 40, get_byte(body, 40) # 4) where batch = $1"
    await sql.execute(flip, damaged)
    await sql.execute("truncate logs")
    first, second = await unpack(sql)
    assert (first.batch, first.added) == (damaged, 0)
    assert first.error
    assert first.error.startswith(f"batch {damaged}: body")
    assert second == Unpacked(sound, 1, 0)


async def test_ended_in_the_middle_and_begun_again(database_url: str, sql: asyncpg.Connection) -> None:
    numbers = await leave_packed(database_url, *([record(OLD, message=str(n))] for n in range(3)))
    await sql.execute("truncate logs")
    async with connection(database_url) as other:
        async for done in unpacking.unpack(other, *EVER, into=None, keep=WEEK):
            assert done == Unpacked(numbers[0], 1, 0)
            break
    again = await unpack(sql)
    assert again == [Unpacked(number, *((0, 1) if number == numbers[0] else (1, 0))) for number in numbers]
    assert len(await rows(sql)) == 3


async def test_a_batch_dropped_meanwhile_is_none(database_url: str, sql: asyncpg.Connection) -> None:
    first, second = await leave_packed(database_url, [record(OLD)], [record(OLD)])
    await sql.execute("truncate logs")
    async with connection(database_url) as other:
        found = []
        async for done in unpacking.unpack(other, *EVER, into=None, keep=WEEK):
            found.append(done)
            await sql.execute("delete from batches where batch = $1", second)
    assert found == [Unpacked(first, 1, 0), Unpacked(second, 0, 0)]


async def test_one_at_a_time(database_url: str, sql: asyncpg.Connection) -> None:
    async with connection(database_url) as other, locked(other, UNPACKING):
        with pytest.raises(StoreError, match="another unpack runs on this database"):
            await unpack(sql)


async def test_what_is_packed_is_what_came_back(database_url: str, sql: asyncpg.Connection) -> None:
    """Rows of a day that went, packed and unpacked, are those of the packed form."""
    (number,) = await leave_packed(database_url, [record(OLD, message=str(n)) for n in range(50)])
    await drop_rows(sql)
    await unpack(sql)
    assert [row[10] for row in await rows(sql)] == (await packed(sql, number))["message"].to_list()
    assert timedelta(days=6) < await sql.fetchval("select keep_until - now() from kept_days") <= WEEK

"""Daily partitions, against a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from logagg.protocols.record import Record
from logagg.sinks import partitions
from logagg.sinks.partitions import Dropped
from logagg.sinks.store import Store

DAY = timedelta(days=1)
#: No tested day is near the real one: the store makes those around today itself.
NOW = datetime(2031, 3, 1, 23, 59, 59, tzinfo=UTC)


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def record(received_at: datetime, **fields: Any) -> Record:
    base = Record(received_at, received_at, 6, None, None, None, None, None, "m", None, None, None, None)
    return base._replace(**fields)


async def names(sql: asyncpg.Connection) -> list[str]:
    query = "select relid::text from pg_partition_tree('logs') where isleaf order by 1"
    return [name for (name,) in await sql.fetch(query)]


async def where(sql: asyncpg.Connection) -> list[tuple[str, datetime]]:
    rows = await sql.fetch("select tableoid::regclass::text, received_at from logs order by received_at")
    return [tuple(r) for r in rows]


async def drop_real_days(sql: asyncpg.Connection) -> None:
    for name in await names(sql):
        if name != "logs_default":
            await sql.execute(f"drop table {name}")


async def test_opening_makes_the_days_around_today(store: Store, sql: asyncpg.Connection) -> None:
    today = datetime.now(UTC)
    expected = [f"logs_{today + n * DAY:%Y%m%d}" for n in range(-1, 4)]
    assert set(expected) <= set(await names(sql))
    await store.write([record(today)])
    assert (await where(sql))[0][0] == f"logs_{today:%Y%m%d}"


async def test_a_day_is_a_day_of_utc(sql: asyncpg.Connection, store: Store) -> None:
    made = await partitions.ensure(sql, NOW, back=1, ahead=1)
    assert made == ["logs_20310228", "logs_20310301", "logs_20310302"]
    assert await partitions.ensure(sql, NOW, back=1, ahead=1) == []
    midnight = datetime(2031, 3, 2, tzinfo=UTC)
    await store.write([record(midnight), record(midnight - timedelta(microseconds=1))])
    assert [name for name, _ in await where(sql)] == ["logs_20310301", "logs_20310302"]


async def test_a_made_day_has_the_indexes_and_checks_of_the_others(sql: asyncpg.Connection) -> None:
    await partitions.ensure(sql, NOW, back=0, ahead=0)
    indexes = "select count(*) from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam"
    assert await sql.fetchval(indexes + " where amname = 'brin' and indrelid = 'logs_20310301'::regclass") == 2
    with pytest.raises(asyncpg.CheckViolationError):
        await sql.execute(
            "insert into logs_20310301 (id, batch, timestamp, received_at, severity, message)"
            " values (1, 1, now(), '2031-03-01', 8, '')"
        )


async def test_no_partition_is_no_failure_and_rows_move_when_it_is_made(store: Store, sql: asyncpg.Connection) -> None:
    times = [NOW - DAY, NOW, NOW + DAY, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)]
    await store.write([record(t, message=str(t)) for t in times])
    assert {name for name, _ in await where(sql)} == {"logs_default"}
    assert await partitions.ensure(sql, NOW, back=0, ahead=0) == ["logs_20310301"]
    assert [t for name, t in await where(sql) if name == "logs_20310301"] == [NOW]
    assert await sql.fetchval("select count(distinct message) from logs") == len(times)


async def test_only_whole_days_past_retention_go(store: Store, sql: asyncpg.Connection) -> None:
    await drop_real_days(sql)
    await partitions.ensure(sql, NOW, back=5, ahead=1)
    await store.write([record(NOW - n * DAY) for n in range(6)])
    before = await names(sql)
    dropped = await partitions.drop_expired(sql, NOW, 3 * DAY)
    assert dropped == Dropped(["logs_20310224", "logs_20310225"], [], 0, 0)
    assert await names(sql) == [n for n in before if n not in dropped.partitions]
    assert [t for _, t in await where(sql)] == [NOW - n * DAY for n in (3, 2, 1, 0)]
    assert await partitions.drop_expired(sql, NOW, 3 * DAY) == Dropped([], [], 0, 0)


async def test_rows_of_no_day_go_by_the_same_days(store: Store, sql: asyncpg.Connection) -> None:
    border = (NOW - 3 * DAY).replace(hour=0, minute=0, second=0)
    await store.write([record(border), record(border - timedelta(microseconds=1)), record(NOW + 99 * DAY)])
    await drop_real_days(sql)
    assert (await partitions.drop_expired(sql, NOW, 3 * DAY)).rows == 1
    assert await where(sql) == [("logs_default", border), ("logs_default", NOW + 99 * DAY)]


async def test_batches_go_with_their_last_row_unless_packed(database_url: str, sql: asyncpg.Connection) -> None:
    store = await Store.open(database_url, batch_records=2)
    for batch in ([NOW - 9 * DAY] * 2, [NOW - 8 * DAY] * 2, [NOW - 9 * DAY, NOW]):
        await store.write([record(t) for t in batch])
    await store.maintenance(timedelta(days=100000))
    await sql.execute("update batches set packed_at = now() where batch = (select min(batch) + 1 from batches)")
    await store.write([record(NOW - 9 * DAY)])  # its batch is open
    dropped = await partitions.drop_expired(sql, NOW, 3 * DAY)
    assert (dropped.rows, dropped.batches) == (6, 1)
    left = await sql.fetch("select packed_at is not null, closed_at is not null from batches order by batch")
    assert [tuple(r) for r in left] == [(True, True), (False, True), (False, False)]
    await store.close()


async def test_a_reader_in_the_way_delays_it_to_the_next_time(
    store: Store, sql: asyncpg.Connection, database_url: str
) -> None:
    await drop_real_days(sql)
    await partitions.ensure(sql, NOW, back=5, ahead=0)
    await store.write([record(NOW - 5 * DAY)])
    await store.close()
    reader = await asyncpg.connect(database_url)
    async with reader.transaction():
        await reader.fetch("select * from logs")
        assert await partitions.drop_expired(sql, NOW, 3 * DAY) == Dropped([], ["logs_20310224", "logs_20310225"], 0, 0)
        assert await partitions.ensure(sql, NOW, back=0, ahead=1) == []
    await reader.close()
    assert await partitions.drop_expired(sql, NOW, 3 * DAY) == Dropped(["logs_20310224", "logs_20310225"], [], 0, 1)
    assert await partitions.ensure(sql, NOW, back=0, ahead=1) == ["logs_20310302"]


async def test_what_a_user_built_on_a_partition_keeps_it(sql: asyncpg.Connection) -> None:
    await drop_real_days(sql)
    await partitions.ensure(sql, NOW - 5 * DAY, back=0, ahead=1)
    await sql.execute("create view theirs as select message from logs_20310224")
    dropped = await partitions.drop_expired(sql, NOW, 3 * DAY)
    assert dropped == Dropped(["logs_20310225"], ["logs_20310224"], 0, 0)


async def test_maintenance_does_it_once_for_all_stores(database_url: str, sql: asyncpg.Connection) -> None:
    stores = [await Store.open(database_url) for _ in range(3)]
    old = datetime.now(UTC) - 30 * DAY
    await partitions.ensure(sql, old, back=0, ahead=0)
    await stores[0].write([record(old), record(datetime.now(UTC))])
    done = await asyncio.gather(*(s.maintenance(7 * DAY) for s in stores))
    assert [u.dropped.partitions for u in done if u.dropped.partitions] == [[f"logs_{old:%Y%m%d}"]]
    assert await sql.fetchval("select count(*) from logs") == 1
    for store in stores:
        await store.close()


async def test_maintenance_brings_the_indexes_up_to_date(store: Store, sql: asyncpg.Connection) -> None:
    await store.write([record(datetime.now(UTC), message="x" * 1000)] * 5000)
    await store.maintenance(7 * DAY)
    today = f"logs_{datetime.now(UTC):%Y%m%d}"
    assert await sql.fetchval("select brin_summarize_new_values($1::text::regclass)", f"{today}_id_idx") == 0

"""Daily partitions, against a real PostgreSQL."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest

from logagg.sinks import partitions
from logagg.sinks.store import Store

if TYPE_CHECKING:
    from logagg.tests.batches import DAY, record
else:
    from batches import DAY, record

#: No tested day is near the real one: the store makes those around today itself.
NOW = datetime(2031, 3, 1, 23, 59, 59, tzinfo=UTC)


async def names(sql: asyncpg.Connection) -> list[str]:
    query = "select relid::text from pg_partition_tree('logs') where isleaf order by 1"
    return [name for (name,) in await sql.fetch(query)]


async def where(sql: asyncpg.Connection) -> list[tuple[str, datetime]]:
    rows = await sql.fetch("select tableoid::regclass::text, received_at from logs order by received_at")
    return [tuple(r) for r in rows]


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


async def test_a_partition_that_exists_already_is_no_failure(store: Store, sql: asyncpg.Connection) -> None:
    """One of the user's, of another name and span; a table of the name that is none; a name that is no day."""
    march = "for values from ('2031-03-01T00:00:00Z') to ('2031-03-03T00:00:00Z')"
    await sql.execute(f"create table march partition of logs {march}")
    await sql.execute("create table logs_20310303 (n int)")
    await sql.execute("create table logs_20319999 partition of logs for values from ('2031-04-01') to ('2031-04-02')")
    assert await partitions.ensure(sql, NOW, back=0, ahead=3) == ["logs_20310304"]
    await store.write([record(NOW + n * DAY) for n in range(4)])
    assert [name for name, _ in await where(sql)] == ["march", "march", "logs_default", "logs_20310304"]
    assert partitions.day_of("logs_20319999") is None


async def test_a_reader_in_the_way_delays_a_new_day(store: Store, sql: asyncpg.Connection, database_url: str) -> None:
    reader = await asyncpg.connect(database_url)
    async with reader.transaction():
        await reader.execute("lock table logs_default in access share mode")
        assert await partitions.ensure(sql, NOW, back=0, ahead=0) == []
    await reader.close()
    assert await partitions.ensure(sql, NOW, back=0, ahead=0) == ["logs_20310301"]


async def test_maintenance_brings_the_indexes_up_to_date(store: Store, sql: asyncpg.Connection) -> None:
    await store.write([record(datetime.now(UTC), message="x" * 1000)] * 5000)
    await store.maintenance(7 * DAY)
    today = f"logs_{datetime.now(UTC):%Y%m%d}"
    assert await sql.fetchval("select brin_summarize_new_values($1::text::regclass)", f"{today}_id_idx") == 0


async def test_days_that_are_over_get_gin_indexes(store: Store, sql: asyncpg.Connection) -> None:
    words = ["alpha", "beta", "gamma", "delta"]
    yesterday = datetime.now(UTC) - DAY
    rows = [
        record(yesterday, message=f"request {n} {words[n % 4]}", attributes=f'{{"user": "u{n}"}}') for n in range(5000)
    ]
    await store.write(rows)
    name = f"logs_{yesterday:%Y%m%d}"
    built = [made for _ in range(4) for made in (await store.index_rows()).indexed]
    assert built[:2] == [f"{name}_words", f"{name}_attributes"]
    assert (await store.index_rows()).indexed == []
    await sql.execute("analyze logs")
    since = f"received_at >= '{yesterday:%Y-%m-%d}' and received_at < '{yesterday + DAY:%Y-%m-%d}'"
    for index, where in (
        ("words", "to_tsvector('simple', message) @@ plainto_tsquery('simple', 'request 4711')"),
        ("attributes", """attributes @> '{"user": "u4711"}'"""),
    ):
        query = f"select message from logs where {since} and {where}"  # noqa: S608 - texts of ours
        plan = "\n".join(line for (line,) in await sql.fetch(f"explain {query}"))
        assert f"Bitmap Index Scan on {name}_{index}" in plan, plan
        assert [tuple(r) for r in await sql.fetch(query)] == [("request 4711 delta",)]


async def test_an_index_that_cannot_be_built_is_said_and_left_alone(store: Store, sql: asyncpg.Connection) -> None:
    """PostgreSQL takes a megabyte of words in a text and no more."""
    yesterday = datetime.now(UTC) - DAY
    await store.write([record(yesterday, message=" ".join(f"{n:07}" for n in range(160_000)))])
    name = f"logs_{yesterday:%Y%m%d}_words"
    rounds = [await store.index_rows() for _ in range(7)]
    (error,) = [error for done in rounds for error in done.failures().values()]
    assert str(error).startswith(f"{name}: ProgramLimitExceededError (54000): string is too long for tsvector")
    assert await sql.fetchval("select to_regclass($1)", name) is None
    assert rounds[-1].indexed == []
    assert await sql.fetchval("select count(*) from pg_class where relname ~ '^logs_.*_words$'") == 0


async def test_an_index_left_half_built_is_built_again(store: Store, sql: asyncpg.Connection) -> None:
    yesterday = datetime.now(UTC) - DAY
    name = f"logs_{yesterday:%Y%m%d}_words"
    await sql.execute(f"create index {name} on logs_{yesterday:%Y%m%d} using gin (to_tsvector('simple', message))")
    await sql.execute("update pg_index set indisvalid = false where indexrelid = to_regclass($1)", name)
    assert name in (await store.index_rows()).indexed
    assert await sql.fetchval("select indisvalid from pg_index where indexrelid = to_regclass($1)", name)

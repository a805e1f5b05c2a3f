"""Migrations, against a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from logagg.protocols.record import LEVELS, Record
from logagg.sinks import schema
from logagg.sinks.frames import FULL, SCHEMA
from logagg.sinks.store import Store, StoreError


@pytest.fixture
async def sql(empty_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(empty_database_url)
    yield connection
    await connection.close()


async def test_migrating_twice_does_it_once(sql: asyncpg.Connection) -> None:
    known = schema.migrations()
    assert await schema.migrate(sql) == known
    assert await schema.migrate(sql) == []
    rows = await sql.fetch("select number, name, checksum from logagg_migrations order by number")
    assert [tuple(r) for r in rows] == [(m.number, m.name, m.checksum) for m in known]


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [m.number for m in schema.migrations()] == list(range(1, len(schema.migrations()) + 1))


async def test_many_stores_may_open_an_empty_database_at_once(empty_database_url: str, sql: asyncpg.Connection) -> None:
    stores = await asyncio.gather(*(Store.open(empty_database_url) for _ in range(5)))
    assert await sql.fetchval("select count(*) from logagg_migrations") == len(schema.migrations())
    assert len({s._owner.number for s in stores}) == 5
    for store in stores:
        await store.close()


async def test_a_newer_schema_is_refused_with_both_numbers(empty_database_url: str, sql: asyncpg.Connection) -> None:
    await schema.migrate(sql)
    await sql.execute("insert into logagg_migrations (number, name, checksum) values (9999, 'future', '')")
    with pytest.raises(StoreError, match=r"the database has schema 9999, this logagg knows \d+"):
        await Store.open(empty_database_url)


async def test_a_migration_of_another_program_is_refused(empty_database_url: str, sql: asyncpg.Connection) -> None:
    await schema.migrate(sql)
    await sql.execute("update logagg_migrations set checksum = 'other' where number = 1")
    with pytest.raises(StoreError, match="migration 1 of the database is not the logs of this logagg"):
        await Store.open(empty_database_url)


async def test_a_failed_migration_leaves_nothing(
    sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "0001_good.sql").write_text("create table good (n int)")
    (tmp_path / "0002_bad.sql").write_text("create table half (n int); select 1 / 0")
    monkeypatch.setattr(schema, "_FILES", tmp_path)
    for _ in range(2):
        with pytest.raises(asyncpg.DivisionByZeroError):
            await schema.migrate(sql)
        assert await schema.applied(sql) == {1: schema.migrations()[0].checksum}
        assert await sql.fetchval("select to_regclass('half')") is None
    (tmp_path / "0002_bad.sql").write_text("create table half (n int)")
    assert [m.number for m in await schema.migrate(sql)] == [2]


async def test_columns_are_those_of_a_record(sql: asyncpg.Connection) -> None:
    await schema.migrate(sql)
    columns = "select attname from pg_attribute where attrelid = 'logs'::regclass and attnum > 0 order by attnum"
    assert [name for (name,) in await sql.fetch(columns)] == ["id", "batch", *Record._fields]
    assert list(FULL) == ["id", *Record._fields] == [*SCHEMA, "raw"]


async def test_level_names_a_severity(sql: asyncpg.Connection) -> None:
    await schema.migrate(sql)
    names = await sql.fetch("select level(n::smallint) from generate_series(0, 7) n")
    assert tuple(name for (name,) in names) == LEVELS


async def test_every_table_is_explained(sql: asyncpg.Connection) -> None:
    await schema.migrate(sql)
    for table in ("logs", "batches", "quarantine", "kept_days"):
        assert await sql.fetchval("select obj_description($1::text::regclass, 'pg_class')", table)


async def test_blobs_are_stored_as_they_are(sql: asyncpg.Connection) -> None:
    await schema.migrate(sql)
    storage = "select attname from pg_attribute where attrelid = 'batches'::regclass and attstorage = 'e'"
    assert {name for (name,) in await sql.fetch(storage)} == {"head", "body", "filter", "summary"}

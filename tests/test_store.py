"""The store against a real PostgreSQL."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logagg.protocols.record import Record, Reject
from logagg.sinks.batches import MOST_DISTINCT, BatchInfo
from logagg.sinks.frames import PLACE_BITS, SCHEMA
from logagg.sinks.store import Store, StoreError, Written

if TYPE_CHECKING:
    from logagg.tests.batches import in_memory, messages, record, records
else:
    from batches import in_memory, messages, record, records

NOW = datetime.now(UTC)
WEEK = timedelta(days=7)
ALL = list(SCHEMA)


# Writing


async def test_a_write_is_committed_when_it_returns(store: Store, sql: asyncpg.Connection) -> None:
    raw = record(
        message="x", raw=b"\xff\x00", attributes='{"a": [1, 2]}', facility=23, trace_id="t", environment="prod"
    )
    written = await store.write([raw, record(message="y")], [Reject(NOW, "tcp", "::1", "too long", b"\xfe")])
    assert written == Written(2, [], [])
    row = await sql.fetchrow("select * from logs where message = 'x'")
    assert tuple(row)[2:] == raw
    assert tuple(await sql.fetchrow("select * from quarantine"))[1:] == (NOW, "tcp", "::1", "too long", b"\xfe")


async def test_ids_are_batch_and_place_in_the_order_of_the_calls(store: Store, sql: asyncpg.Connection) -> None:
    writes = [asyncio.create_task(store.write(records(*(f"{w}-{i}" for i in range(50))))) for w in range(20)]
    assert [(await w).stored for w in writes] == [50] * 20
    assert await messages(sql) == [f"{w}-{i}" for w in range(20) for i in range(50)]
    rows = await sql.fetch("select id, batch from logs order by id")
    (batch,) = {b for _, b in rows}
    assert [i for i, _ in rows] == [batch << PLACE_BITS | place for place in range(1000)]
    assert max(i for i, _ in rows) < 2**53


async def test_a_full_batch_ends_behind_a_whole_write(database_url: str, sql: asyncpg.Connection) -> None:
    store = await Store.open(database_url, batch_records=15)
    for first in range(0, 30, 6):
        await store.write(records(*(str(i) for i in range(first, first + 6))))
    await store.close()
    rows = await sql.fetch("select count from batches order by batch")
    assert [n for (n,) in rows] == [12, 12, 6]
    assert await sql.fetchval("select count(*) from batches where closed_at is null") == 0
    assert await messages(sql) == [str(i) for i in range(30)]


async def test_an_old_batch_takes_no_more(database_url: str, sql: asyncpg.Connection) -> None:
    store = await Store.open(database_url, batch_age=timedelta(0))
    await store.write(records("a"))
    await store.write(records("b"))
    await store.maintenance(WEEK)
    assert [b.open for b in await store.batches()] == [False, False]
    await store.close()


async def test_a_write_that_is_too_large_is_refused_with_numbers(store: Store) -> None:
    with pytest.raises(ValueError, match="65537 records, at most 65536"):
        await store.write([record()] * 65537)


async def test_a_batch_that_is_too_large_is_refused_with_numbers(database_url: str) -> None:
    with pytest.raises(ValueError, match="70000 records, at least 1, at most 65536"):
        await Store.open(database_url, batch_records=70000)


async def test_an_empty_write_is_nothing(store: Store, sql: asyncpg.Connection) -> None:
    assert await store.write([]) == Written(0, [], [])
    assert await sql.fetchval("select count(*) from batches") == 0


async def test_rejects_alone_need_no_batch(store: Store, sql: asyncpg.Connection) -> None:
    await store.write([], [Reject(NOW, "udp", "a\0b\ud800", "NUL \0 here", b"")])
    assert tuple(await sql.fetchrow("select source, reason from quarantine")) == ("a\ufffdb?", "NUL \ufffd here")
    assert await sql.fetchval("select count(*) from batches") == 0


async def test_commits_are_durable_whatever_the_server_says(database_url: str, sql: asyncpg.Connection) -> None:
    name = await sql.fetchval("select current_database()")
    await sql.execute(f"alter database {name} set synchronous_commit = off")
    store = await Store.open(database_url)
    async with store._connections.writer() as con:
        assert await con.fetchval("show synchronous_commit") == "on"
    await store.close()


# Poison

POISON = {
    "NUL": record(message="a\0b"),
    "NUL in an attribute": record(attributes='{"a": "\\u0000"}'),
    "surrogate": record(message="\ud800"),
    "surrogate in a name": record(service="\udfff"),
    "surrogate in an attribute": record(attributes='{"a": "\\ud800"}'),
    "NaN": record(attributes='{"a": NaN}'),
    "number too large": record(attributes='{"a": 1e200000}'),
    "too deep": record(attributes="[" * 20000 + "]" * 20000),
    "no JSON": record(attributes='{"a": '),
    "empty JSON": record(attributes=""),
    "severity 8": record(severity=8),
    "severity below": record(severity=-1),
    "severity out of its type": record(severity=99999),
    "severity as text": record(severity="high"),
    "facility": record(facility=1 << 40),
    "facility beyond a frame": record(facility=1000),
    "no message": record(message=None),
    "message of another type": record(message=5),
    "no time": record(timestamp=None),
    "naive time": record(timestamp=NOW.replace(tzinfo=None)),
    "naive receipt": record(received_at=NOW.replace(tzinfo=None)),
    "time as text": record(timestamp="2026-11-20"),
    "source of another type": record(source=b"\0"),
    "raw of another type": record(raw="text"),
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
async def test_poison_costs_none_of_its_neighbours(store: Store, sql: asyncpg.Connection, poison: Record) -> None:
    many = [record(message=str(i)) for i in range(1000)]
    many[617] = poison
    written = await store.write(many, [Reject(NOW, "tcp", "::1", "a reject", b"r")])
    assert written.stored == 999
    (reject,) = written.quarantined
    assert reject.transport == "store"
    assert await messages(sql) == [str(i) for i in range(1000) if i != 617]
    rows = await sql.fetch("select received_at, transport, source, reason, raw from quarantine order by id")
    assert [tuple(r) for r in rows][1:] == [reject]
    if poison.raw is None:
        assert json.loads(reject.raw).keys() >= {*Record._fields} - {"raw"}  # the whole record
    assert (await in_memory(store))["message"].to_list() == await messages(sql)


async def test_poison_keeps_its_own_bytes(store: Store) -> None:
    written = await store.write([record(message="\0", raw=b"\x00\xff")])
    assert (written.stored, written.quarantined[0].raw) == (0, b"\x00\xff")
    assert "CharacterNotInRepertoireError (22021)" in written.quarantined[0].reason


async def test_nothing_but_poison(store: Store, sql: asyncpg.Connection) -> None:
    written = await store.write([record(message="\0")] * 20)
    assert (written.stored, len(written.quarantined)) == (0, 20)
    assert await sql.fetchval("select count(*) from quarantine") == 20
    assert await store.batches() == []
    await store.write(records("after"))
    assert await messages(sql) == ["after"]


# Reading


async def test_batches_are_chosen_by_time_newest_first(database_url: str) -> None:
    store = await Store.open(database_url, batch_records=1)
    for day in (3, 1, 2):
        time = datetime(2026, 1, day, tzinfo=UTC)
        await store.write([record(timestamp=time), record(timestamp=time + timedelta(hours=1))])
    await store.maintenance(WEEK)
    await store.write(records("open"))

    async def days(start: datetime | None, end: datetime | None) -> list[int]:
        return [b.ts_min.day for b in await store.batches(start, end) if b.ts_min and not b.open]

    assert await days(None, None) == [3, 2, 1]
    assert await days(datetime(2026, 1, 2, 1, tzinfo=UTC), None) == [3, 2]
    assert await days(datetime(2026, 1, 2, 1, 0, 1, tzinfo=UTC), None) == [3]
    assert await days(None, datetime(2026, 1, 2, tzinfo=UTC)) == [2, 1]
    assert await days(datetime(2026, 1, 2, 2, tzinfo=UTC), datetime(2026, 1, 2, 3, tzinfo=UTC)) == []
    assert [b.open for b in await store.batches(datetime(2030, 1, 1, tzinfo=UTC), None)] == [True]
    await store.close()


async def test_what_is_unknown_of_a_batch_does_not_hide_it(database_url: str, sql: asyncpg.Connection) -> None:
    store = await Store.open(database_url)
    await store.write(records("a"))
    await store.close()
    await sql.execute(
        "update batches set count = null, ts_min = null, ts_max = null, received_min = null, received_max = null,"
        " services = null, hosts = null, environments = null"
    )
    store = await Store.open(database_url)
    (batch,) = await store.batches(NOW + WEEK, NOW + WEEK)
    assert batch[1:10] == (False, *[None] * 8)
    assert (await store.load(batch, ["message"])).frame["message"].to_list() == ["a"]
    await store.close()


async def test_too_many_distinct_hosts_are_unknown(database_url: str) -> None:
    store = await Store.open(database_url)
    await store.write([record(host=str(i), service="s") for i in range(MOST_DISTINCT + 1)])
    await store.close()
    store = await Store.open(database_url)
    (batch,) = await store.batches()
    assert (batch.hosts, batch.services) == (None, frozenset(["s"]))
    await store.close()


async def test_an_open_batch_is_read_from_memory_as_it_grows(store: Store, sql: asyncpg.Connection) -> None:
    await store.write(records("a", "b"))
    assert (await in_memory(store))["message"].to_list() == ["a", "b"]
    await sql.execute("delete from logs")
    await store.write(records("c"))
    assert (await in_memory(store))["message"].to_list() == ["a", "b", "c"]
    (batch,) = await store.batches()
    assert (batch.open, batch.count, batch.services) == (True, 3, frozenset([None]))
    frame = (await store.load(batch, ["service", "id"])).frame
    assert frame.columns == ["service", "id"]
    assert frame["id"].is_sorted()


async def test_columns_that_do_not_exist_are_refused(store: Store) -> None:
    await store.write(records("a"))
    unknown = BatchInfo(0, False, None, None, None, None, None, None, None, None)
    with pytest.raises(KeyError):
        await store.load(unknown, ["message; drop table logs"])


async def test_a_batch_without_rows_is_an_empty_frame(store: Store) -> None:
    frame = (await store.load(BatchInfo(99, False, None, None, None, None, None, None, None, None), ALL)).frame
    assert (len(frame), dict(frame.schema)) == (0, SCHEMA)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
TIMES = st.datetimes(timezones=st.just(UTC))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
RECORDS = st.builds(
    Record,
    timestamp=TIMES,
    received_at=TIMES,
    severity=st.integers(0, 7),
    facility=st.none() | st.integers(0, 23),
    environment=st.none() | TEXT,
    host=st.none() | TEXT,
    service=st.none() | TEXT,
    source=st.none() | TEXT,
    message=TEXT,
    attributes=st.none() | st.dictionaries(TEXT, JSON, max_size=3).map(json.dumps),
    trace_id=st.none() | TEXT,
    span_id=st.none() | TEXT,
    raw=st.none() | st.binary(max_size=9),
)


def parsed(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    """The rows, their attributes as JSON values: PostgreSQL keeps neither the order of keys nor spaces."""
    place = frame.columns.index("attributes")
    rows = frame.rows()
    return [(*r[:place], None if r[place] is None else json.loads(r[place]), *r[place + 1 :]) for r in rows]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=st.lists(st.lists(RECORDS, min_size=1, max_size=5), min_size=1, max_size=5))
async def test_memory_and_rows_are_the_same(database_url: str, writes: list[list[Record]]) -> None:
    store = await Store.open(database_url)
    other = await Store.open(database_url)
    await asyncio.gather(*map(store.write, writes))
    (mine,) = [b for b in await store.batches() if b.open]
    (theirs,) = [b for b in await other.batches() if b.batch == mine.batch]
    memory, rows = (await store.load(mine, ALL)).frame.sort("id"), (await other.load(theirs, ALL)).frame.sort("id")
    assert dict(memory.schema) == dict(rows.schema) == SCHEMA
    assert parsed(memory) == parsed(rows)
    assert [r[9] for r in memory.rows()] == [r.message for w in writes for r in w]
    await store.close()
    (closed,) = [b for b in await other.batches() if b.batch == mine.batch]
    assert closed == mine._replace(open=False)
    assert parsed((await other.load(closed, ALL)).frame.sort("id")) == parsed(rows)
    await other.close()


async def test_the_first_and_the_last_time_there_is(database_url: str, store: Store) -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    await store.write([record(timestamp=first), record(timestamp=last)])
    await store.write([record(timestamp=last)] * 300)
    other = await Store.open(database_url)
    (theirs,) = await other.batches()
    assert (await other.load(theirs, ["timestamp"])).frame["timestamp"].to_list().count(last) == 301
    await store.roll()
    (theirs,) = await other.batches(last, None)
    assert (theirs.ts_min, theirs.ts_max) == (first, last)
    assert (await other.load(theirs, ["timestamp"])).frame["timestamp"].to_list().count(first) == 1
    await other.close()


# Life


async def test_a_closed_store_writes_no_more(database_url: str) -> None:
    store = await Store.open(database_url)
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.write(records("a"))


async def test_writes_under_way_are_in_when_it_is_closed(database_url: str, sql: asyncpg.Connection) -> None:
    store = await Store.open(database_url)
    writes = [asyncio.create_task(store.write(records(str(i)))) for i in range(5)]
    await asyncio.sleep(0)
    await store.close()
    assert [(await w).stored for w in writes] == [1] * 5
    assert await sql.fetchval("select count from batches") == 5

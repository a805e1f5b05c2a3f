"""Records that are kept shorter or longer than the others, against a real PostgreSQL."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import polars as pl
import pytest

from logagg.protocols.record import Record
from logagg.query.answers import Filter
from logagg.query.engine import Engine
from logagg.sinks import packing
from logagg.sinks.store import Store
from logagg.sinks.trimming import Keep, Terms, Trimmed, trim

if TYPE_CHECKING:
    from logagg.tests.batches import DAY, connection, leave, leave_packed, packed, record
else:
    from batches import DAY, connection, leave, leave_packed, packed, record

NOW = datetime.now(UTC)
CHATTY = Keep("service", "chatty", 3 * DAY)
STAGING = Keep("environment", "staging", 5 * DAY)
AUDIT = Keep("service", "audit", 300 * DAY)
NAMELESS = Keep("service", "", 10 * DAY)
TERMS = Terms(30 * DAY, (CHATTY, AUDIT, STAGING, NAMELESS))


def mixed(days: float, count: int = 40) -> list[Record]:
    """Return records received so many days ago, of every service and environment."""
    services, environments = ("chatty", "audit", "shop", None), ("staging", "production", None)
    return [
        record(
            NOW - days * DAY - timedelta(seconds=n),
            service=services[n % 4],
            environment=environments[n % 3],
            host=f"h{n}",
            message=f"message{n}",
            attributes=f'{{"n": {n}}}',
        )
        for n in range(count)
    ]


async def left(url: str, *batches: Sequence[Record]) -> list[int]:
    """Leave packed batches that were closed when their last record came; return their numbers."""
    numbers = await leave_packed(url, *batches)
    async with connection(url) as sql:
        await sql.execute("update batches set closed_at = received_max")
    return numbers


async def ids(sql: asyncpg.Connection) -> list[int]:
    return [id_ for (id_,) in await sql.fetch("select id from logs order by id")]


def over(values: Sequence[str | None], age: timedelta, terms: Terms = TERMS) -> bool:
    """Tell by the words of the documentation whether a record of a service and an environment is over."""
    for column, value, span in terms.keeps:
        if values[column == "environment"] == (value or None):
            return age >= span
    return terms.others is not None and age >= terms.others


async def test_what_is_over_goes_out_of_both_forms(database_url: str, sql: asyncpg.Connection) -> None:
    ages = [1, 4, 6, 11, 31]
    numbers = await left(database_url, *map(mixed, ages))
    before = {number: await packed(sql, number) for number in numbers}
    expected: list[int] = []
    taken = 0
    for number, days in zip(numbers, ages, strict=True):
        kept = [
            id_
            for id_, *values in before[number].select("id", "service", "environment").iter_rows()
            if not over(values, days * DAY)
        ]
        taken += 40 - len(kept)
        expected += kept
    assert await trim(sql, TERMS, NOW, dry_run=True) == Trimmed(4, taken)
    assert len(await ids(sql)) == 200
    assert await trim(sql, TERMS, NOW) == Trimmed(4, taken)
    assert await ids(sql) == expected
    for number in numbers:
        there = before[number].filter(pl.col("id").is_in(expected))
        assert (await packed(sql, number)).equals(there)
        known = await sql.fetchrow("select * from batches where batch = $1", number)
        assert known["count"] == there.height
        assert (known["ts_min"], known["ts_max"]) == (there["timestamp"].min(), there["timestamp"].max())
        assert set(known["services"]) == set(there["service"])
        assert set(known["hosts"]) == set(there["host"])
        assert set(known["environments"]) == set(there["environment"])
    assert await trim(sql, TERMS, NOW) == Trimmed()


async def test_each_batch_is_read_once_for_what_is_over(database_url: str, sql: asyncpg.Connection) -> None:
    number, untouched = await left(database_url, mixed(4), [record(NOW - 4 * DAY, service="shop")])
    state = "select packed_at, trimmed from batches where batch = $1"
    at_first = await sql.fetchrow(state, untouched)
    await trim(sql, TERMS, NOW)
    rewritten = await sql.fetchrow(state, number)
    assert (await sql.fetchrow(state, untouched))["packed_at"] == at_first["packed_at"]  # its services told enough
    assert rewritten["trimmed"] == (await sql.fetchrow(state, untouched))["trimmed"] == TERMS.digest(4 * DAY)
    await sql.execute("update batches set head = ''")  # whoever reads it now fails
    assert await trim(sql, TERMS, NOW) == Trimmed()
    later = await trim(sql, TERMS, NOW + 2 * DAY)
    assert list(later.errors) == [number]
    other = Terms(30 * DAY, (Keep("service", "shop", DAY),))
    assert list((await trim(sql, other, NOW)).errors) == [number, untouched]
    assert await trim(sql, other, NOW, without=[number, untouched]) == Trimmed()


async def test_a_batch_of_which_nothing_is_over_is_read_once(database_url: str, sql: asyncpg.Connection) -> None:
    terms = Terms(30 * DAY, (Keep("environment", "production", 20 * DAY), CHATTY))
    (number,) = await left(database_url, [record(NOW - 4 * DAY, service="chatty", environment="production")] * 3)
    state = "select packed_at, trimmed from batches where batch = $1"
    at_first = await sql.fetchrow(state, number)
    assert await trim(sql, terms, NOW) == Trimmed()
    assert tuple(await sql.fetchrow(state, number)) == (at_first["packed_at"], terms.digest(4 * DAY))
    await sql.execute("update batches set head = ''")
    assert await trim(sql, terms, NOW) == Trimmed()


async def test_a_batch_that_changes_meanwhile_keeps_its_rows(
    database_url: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left(database_url, mixed(4))
    at_first, pack, loop = await ids(sql), packing.pack, asyncio.get_running_loop()

    async def change() -> None:
        async with connection(database_url) as other:
            await other.execute("update batches set packed_at = packed_at + interval '1 second'")

    def slow(frame: pl.DataFrame) -> packing.Packed:
        asyncio.run_coroutine_threadsafe(change(), loop).result(20)
        return pack(frame)

    with monkeypatch.context() as patched:
        patched.setattr(packing, "pack", slow)
        assert await trim(sql, TERMS, NOW) == Trimmed()
    assert await ids(sql) == at_first
    assert await trim(sql, TERMS, NOW) == Trimmed(1, 10)


async def test_a_batch_of_which_nothing_is_left_is_gone(database_url: str, sql: asyncpg.Connection) -> None:
    await left(database_url, [record(NOW - 4 * DAY, service="chatty") for _ in range(10)])
    assert await trim(sql, TERMS, NOW) == Trimmed(1, 10)
    assert await sql.fetchval("select count(*) from batches") == await sql.fetchval("select count(*) from logs") == 0


async def test_what_is_not_packed_waits(database_url: str, sql: asyncpg.Connection) -> None:
    await leave(database_url, mixed(4))
    assert await trim(sql, Terms(None, (CHATTY,)), NOW + DAY) == Trimmed()


async def test_a_damaged_batch_holds_up_no_other(database_url: str, sql: asyncpg.Connection) -> None:
    damaged, sound = await left(database_url, mixed(4), mixed(4))
    flip = "update batches set body = set_byte(body, 40, get_byte(body, 40) # 255) where batch = $1"
    await sql.execute(flip, damaged)
    done = await trim(sql, TERMS, NOW)
    assert (done.batches, done.records) == (1, 10)
    assert done.errors[damaged].startswith(f"batch {damaged}: body cannot be read: ")
    assert (await packed(sql, sound)).height == 30


async def test_any_terms_take_out_what_they_say(database_url: str, sql: asyncpg.Connection) -> None:
    draw = random.Random(7)  # noqa: S311  # the same each time
    ages = [draw.uniform(0.5, 40) for _ in range(6)]
    numbers = await left(database_url, *(mixed(age, 24) for age in ages))
    there = {number: await packed(sql, number) for number in numbers}
    for _ in range(6):
        keeps = draw.sample(["service=chatty", "service=audit", "service=", "environment=staging", "environment="], 3)
        spans = [draw.randint(1, 45) * DAY for _ in range(4)]
        terms = Terms(draw.choice([spans[3], None]), tuple(map(Keep.of, keeps, spans)))
        await trim(sql, terms, NOW)
        for number, age in zip(numbers, ages, strict=True):
            if terms.longest is not None and age * DAY >= terms.longest:
                continue  # it goes as a whole
            frame = there[number]
            fits = [not over(row, age * DAY, terms) for row in frame.select("service", "environment").iter_rows()]
            there[number] = frame = frame.filter(pl.Series(fits, dtype=pl.Boolean))
            if frame.height:
                assert (await packed(sql, number)).equals(frame)
            else:
                assert not await sql.fetchval("select count(*) from batches where batch = $1", number)
    assert await ids(sql) == sorted(pl.concat(there.values())["id"])


@pytest.fixture
async def engine(store: Store) -> AsyncIterator[Engine]:
    engine = Engine(store, timeout=30)
    yield engine
    engine.close()


async def test_questions_that_were_answered_before_are_answered_anew(
    database_url: str, store: Store, engine: Engine, sql: asyncpg.Connection
) -> None:
    """From rows, from columns and from summaries: no cache has what is not there any more."""
    await left(database_url, mixed(4, 400))
    listed = await store.batches()
    for count, services in ((400, {"chatty", "audit", "shop", None}), (300, {"audit", "shop", None})):
        groups = await engine.aggregate(Filter(), ["service"])
        assert {row["service"] for row in groups.rows} == services
        assert (await engine.search(Filter(q="message*"), limit=1, count=True)).total == count
        assert bool((await engine.search(Filter(q="message4"), limit=1)).records) is (count == 400)
        assert sum(bin_.count for bin_ in (await engine.histogram(Filter())).bins) == count
        if count == 400:
            done = await store.maintenance(7 * DAY, 30 * DAY, keeps=TERMS.keeps)
            assert done.news() == {"trimmed": 1, "trimmed_records": 100}
    frames = [(await store.load(batch, ["id", "service", "message"])).frame for batch in listed]
    for id_, service, message in pl.concat(frames).iter_rows():
        assert (id_ & 0x1FFFF, service) == (int(message[7:]), ("chatty", "audit", "shop", None)[int(message[7:]) % 4])
    assert await sql.fetchval("select count(*) from logs") == 300


async def test_longer_than_the_others_outlives_them(database_url: str, store: Store, sql: asyncpg.Connection) -> None:
    await left(database_url, mixed(40), mixed(400))
    done = await store.maintenance(7 * DAY, 30 * DAY, keeps=(AUDIT,))
    assert (done.dropped.batches, done.trimmed) == (1, Trimmed(1, 30))
    assert await sql.fetchval("select services from batches") == ["audit"]

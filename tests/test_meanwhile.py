"""What retention drops while it is searched: nothing young is ever missing, and no answer is an error."""

from __future__ import annotations

import asyncio
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from logagg.query.answers import Filter
from logagg.query.engine import Engine
from logagg.query.export import Exporter
from logagg.sinks import partitions, retention, upkeep

if TYPE_CHECKING:
    import asyncpg

    from logagg.sinks.store import Store
    from logagg.tests.batches import DAY, leave, leave_packed, record
else:
    from batches import DAY, leave, leave_packed, record

NOW = datetime.now(UTC)


async def test_searches_while_old_batches_and_days_are_dropped(
    database_url: str, store: Store, sql: asyncpg.Connection
) -> None:
    """One batch and one day after the other goes; each answer has all that is younger than the border."""
    days = [NOW - n * DAY for n in range(1, 13)]
    await partitions.ensure(sql, NOW, back=13, ahead=1)
    await leave_packed(database_url, *([record(day, message=f"record {n}") for n in range(50)] for day in days))
    await sql.execute("update batches set closed_at = received_max")  # as if they had been closed then
    exporter = Exporter(store)
    dropping, left, rounds = True, [13], 0

    async def drop() -> None:
        nonlocal dropping
        for kept in range(12, 3, -1):
            old = retention.border(datetime.now(UTC), (kept + 1) * DAY, (kept + 0.5) * DAY)
            await retention.drop_expired(sql, old)
            left[0] = kept + 1
            seen = rounds
            while kept % 4 == 0 and rounds == seen:  # at least three times somebody searches in between
                await asyncio.sleep(0.01)
        dropping = False

    async def search() -> None:
        nonlocal rounds
        while dropping:
            before = left[0]
            found = await engine.search(Filter(q="record"), limit=10_000, count=True)
            ages = [(NOW - datetime.fromisoformat(str(each["timestamp"]))).days for each in found.records]
            assert found.stats.damaged == []
            assert {age: ages.count(age) for age in range(1, 4)} == dict.fromkeys(range(1, 4), 50)
            assert 50 * 3 <= len(found.records) <= 50 * before
            async with exporter.records(Filter(q="record")) as frames:
                assert sum([frame.height async for frame in frames]) >= 50 * 3
            rounds += 1

    with closing(Engine(store, timeout=60)) as engine:
        await asyncio.gather(drop(), search())
    assert await sql.fetchval("select count(*) from batches") == 4


async def test_rows_that_are_packed_and_dropped_behind_the_list(
    database_url: str, store: Store, sql: asyncpg.Connection
) -> None:
    """A backlog of old batches: packed, and their day dropped, after a question has listed them as rows."""
    old = NOW - 9 * DAY
    await partitions.ensure(sql, old, back=0, ahead=0)
    (number,) = await leave(database_url, [record(old, message=str(n)) for n in range(9)])
    (listed,) = await store.batches()
    assert not listed.packed
    assert await upkeep.pack_from_rows(sql, number)
    dropped = await retention.drop_expired(sql, retention.border(NOW, 7 * DAY, None))
    assert dropped.partitions == (f"logs_{old:%Y%m%d}",)
    assert sorted((await store.load(listed, ["message"])).frame["message"]) == [str(n) for n in range(9)]
    some = [number << 17 | place for place in (2, 5)]
    assert sorted((await store.load(listed, ["message"], some)).frame["message"]) == ["2", "5"]

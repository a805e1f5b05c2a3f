"""One record by its id, and its neighbours: against a plain sort of everything, in every form of batches."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import TYPE_CHECKING, Any

from samples import NOON, SECOND, in_batches, record  # type: ignore[import-not-found]  # pytest has this folder on the path

from logagg.query.answers import Filter
from logagg.query.engine import Engine
from logagg.sinks.store import Store

if TYPE_CHECKING:
    import asyncpg

    from logagg.tests.daemons import RunningDaemon

SAME = ("host", "service", "source")


def several(count: int) -> list[Any]:
    """Records of eighteen sources, some without a host, service or source, many of one time, and late ones."""
    sources = list(product(["h1", "h2", None], ["api", "", None], ["s1", None]))
    return [
        record((at * 7) % 40 + at // 50, f"m{at}", **dict(zip(SAME, sources[at % 5 * 3], strict=True)))
        for at in range(count)
    ]


async def everything(engine: Engine) -> list[dict[str, Any]]:
    return (await engine.search(Filter(), limit=10_000, order="oldest")).records


def around(stored: list[dict[str, Any]], place: int, before: int, after: int) -> tuple[list[int], int, list[int]]:
    same = [other for other in stored if all(other[name] == stored[place][name] for name in SAME)]
    at = same.index(stored[place])
    ids = [each["id"] for each in same]
    return ids[max(0, at - before) : at], ids[at], ids[at + 1 : at + 1 + after]


async def check(engine: Engine) -> None:
    stored = await everything(engine)
    for place in range(0, len(stored), 41):
        id_ = stored[place]["id"]
        assert await engine.record(id_) == stored[place]
        found = await engine.context(id_, before=4, after=7)
        assert found is not None
        shown = [each["id"] for each in found.before], found.record["id"], [each["id"] for each in found.after]
        assert shown == around(stored, place, 4, 7)
        by_id = {each["id"]: each for each in stored}
        assert all(each == by_id[each["id"]] for each in (*found.before, found.record, *found.after))


async def test_in_open_and_packed_batches(engine: Engine, small: Store) -> None:
    await in_batches(small, several(330), 30)
    await check(engine)
    await small.pack_now()
    await in_batches(small, several(20), 20)
    await check(engine)
    assert {"packed", "open"} <= (await engine.search(Filter(), limit=10_000)).stats.read.keys()


async def test_in_rows_and_in_what_another_store_is_filling(database_url: str) -> None:
    gone = await Store.open(database_url, batch_records=50)
    await in_batches(gone, several(120), 40)
    await gone.close()
    filling = await Store.open(database_url, batch_records=50)
    await in_batches(filling, several(40), 40)
    reading = await Store.open(database_url)
    engine = Engine(reading, timeout=30)
    await check(engine)
    engine.close()
    await reading.close()
    await filling.close()


async def test_only_the_batches_around_are_read(engine: Engine, small: Store) -> None:
    for at in range(12):
        await small.write([record(100 * at + j) for j in range(50)])
    await small.roll()
    await small.pack_now()
    stored = await everything(engine)
    middle = await engine.context(stored[325]["id"], before=10, after=10)
    assert middle is not None
    assert middle.stats.read == {"packed": 2}  # one, from it in both directions
    edge = await engine.context(stored[300]["id"], before=10, after=10)
    assert edge is not None
    assert [each["id"] for each in edge.before] == [each["id"] for each in stored[290:300]]
    assert sum(edge.stats.read.values()) <= 4


async def test_at_the_ends_and_without_neighbours(engine: Engine, small: Store) -> None:
    await small.write([record(at, host=host) for at, host in enumerate(["a", "b", "a", None])])
    first, lone, last, nameless = await everything(engine)
    for each, before, after in [(first, [], [last]), (last, [first], []), (lone, [], []), (nameless, [], [])]:
        found = await engine.context(each["id"], before=1000, after=1000)
        assert found is not None
        assert (found.before, found.record, found.after) == (before, each, after)
    alone = await engine.context(last["id"], before=0, after=0)
    assert alone is not None
    assert (alone.before, alone.after) == ([], [])


async def test_what_is_not_there(engine: Engine, small: Store) -> None:
    await small.write([record(0)])
    [only] = await everything(engine)
    for id_ in (0, only["id"] + 1, only["id"] + (1 << 17), (1 << 53) - 1):
        assert await engine.record(id_) is None
        assert await engine.context(id_, before=1, after=1) is None


async def test_the_first_and_the_last_time_there_is(engine: Engine, small: Store) -> None:
    first = NOON.replace(year=1, month=1, day=1, hour=0)
    last = NOON.replace(year=9999, month=12, day=31, hour=23, minute=59, second=59) + timedelta(microseconds=999_999)
    await small.write([record(timestamp=time) for time in (last, first, NOON, NOON + SECOND)])
    stored = await everything(engine)
    for place in range(4):
        found = await engine.context(stored[place]["id"], before=5, after=5)
        assert found is not None
        assert [*found.before, found.record, *found.after] == stored


async def test_a_damaged_neighbourhood_is_told(engine: Engine, small: Store, sql: asyncpg.Connection) -> None:
    for at in range(3):
        await small.write([record(100 * at + j) for j in range(50)])
    await small.roll()
    await small.pack_now()
    await sql.execute("update batches set head = overlay(head placing 'xxxx' from 9) where batch = 1")
    newest = (await engine.search(Filter(start=NOON + 200 * SECOND), limit=100, order="oldest")).records
    found = await engine.context(newest[0]["id"], before=60, after=1)
    assert found is not None
    assert len(found.before) == 50
    assert len(found.stats.damaged) == 1
    await engine.search(Filter(), limit=1000)
    assert engine.damaged_batches == 1


async def test_over_http(daemon: RunningDaemon) -> None:
    logs = [{"message": f"m{at}", "host": "h", "service": "s", "timestamp": NOON.timestamp() + at} for at in range(40)]
    async with daemon.http.post("/ingest", json=logs) as answer:
        assert answer.status == 200
    stored = await daemon.logs(order="oldest")
    async with daemon.http.get(f"/logs/{stored[20]['id']}") as answer:
        assert await answer.json() == stored[20]
    async with daemon.http.get(f"/logs/{stored[20]['id']}/context", params={"after": "3", "stats": "true"}) as answer:
        found = await answer.json()
        assert found.pop("stats")["read"] == {"open": 2}
        assert found == {"before": stored[10:20], "record": stored[20], "after": stored[21:24]}
    for path in ("/logs/1", "/logs/1/context", f"/logs/{'9' * 5000}", f"/logs/{stored[0]['id'] + 40}/context"):
        async with daemon.http.get(path) as answer:
            assert answer.status == 404
            assert (await answer.json())["detail"].startswith("There is no record ")
    for name, value in product(["before", "after"], ["-1", "1001", "x"]):
        async with daemon.http.get(f"/logs/{stored[0]['id']}/context", params={name: value}) as answer:
            assert answer.status == 422
    async with daemon.http.get("/logs/nothing") as answer:
        assert answer.status == 404

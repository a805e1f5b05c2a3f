"""What an answer says of itself: what it cost, and what is missing from it."""

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from samples import NOON, mixed, record  # type: ignore[import-not-found]  # pytest has this folder on the path

from logagg.cli.output import cost
from logagg.query.answers import Filter
from logagg.query.bodies import BODIES, Bodies
from logagg.query.engine import Engine
from logagg.query.http import make_app
from logagg.query.routes_logs import log_routes
from logagg.sinks.store import Store

Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client(store: Store) -> AsyncIterator[Client]:
    engine = Engine(store, timeout=30)
    app = make_app(log_routes(engine))
    app[BODIES] = Bodies(limit=1 << 20, limit_of_all=1 << 20, patience=5.0)
    async with TestClient(TestServer(app)) as client:
        yield client
    engine.close()


async def packed(store: Store, *services: str) -> None:
    """Write a batch of 100 records for each service, and pack them."""
    for service in services:
        await store.write([each._replace(service=service) for each in mixed(100)])
        await store.roll()
    await store.pack_now()


async def damage(url: str, column: str, batch: int) -> None:
    con = await asyncpg.connect(url)
    try:
        flipped = f"set_byte({column}, 40, get_byte({column}, 40) # 255)"
        await con.execute(f"update batches set {column} = {flipped} where batch = $1", batch)  # noqa: S608 - a column's name
    finally:
        await con.close()


async def test_every_answer_tells_what_it_cost_when_asked(client: Client, store: Store) -> None:
    await packed(store, "a", "b")
    await store.write([record()])
    asked = {"q": "alpha service=a", "start_time": "2026-11-01"}
    for path in ("/logs", "/logs/search", "/logs/aggregations", "/logs/histogram", "/logs/patterns"):
        async with client.get(path, params=asked | {"stats": "true"}) as answer:
            body = await answer.json()
            stats = json.loads(answer.headers["X-Logagg-Stats"])
            if isinstance(body, dict):
                assert body["stats"] == stats
        assert stats["batches"] == 3
        # The open batch holds another service, and is told by it, too.
        assert (stats["skipped"], stats["read"], stats["records"]) == ({"service": 2}, {"packed": 1}, 100)
        async with client.get(path, params=asked) as answer:
            assert "X-Logagg-Stats" not in answer.headers
            assert "X-Logagg-Incomplete" not in answer.headers
    async with client.post("/logs/search", json={"q": "alpha", "stats": True}) as answer:
        assert (await answer.json())["stats"]["records"] == 201


async def test_whole_batches_are_counted_by_their_summaries(store: Store) -> None:
    await packed(store, "a", "b", "c")
    engine = Engine(store, timeout=30)
    for answer in (
        await engine.aggregate(Filter(), ["service", "level"]),
        await engine.aggregate(Filter(q="level>=error or service=b"), []),
        await engine.histogram(Filter(start=NOON, end=datetime(2026, 11, 21, tzinfo=UTC))),
    ):
        assert (answer.stats.skipped, answer.stats.records) == ({"counted": 3}, 0)
    engine.close()


async def test_a_damaged_batch_is_named_and_the_others_answer(client: Client, store: Store, database_url: str) -> None:
    await packed(store, "a", "b", "c")
    numbers = sorted(batch.batch for batch in await store.batches())
    await damage(database_url, "body", numbers[1])
    async with client.get("/logs", params={"q": "message:*"}) as answer:
        assert len(await answer.json()) == 200
        assert answer.headers["X-Logagg-Incomplete"].startswith(f"batch {numbers[1]}: body: ")
    for path in ("/logs/search", "/logs/histogram"):
        async with client.get(path, params={"q": "message:*"}) as answer:
            body = await answer.json()
            assert [text.split(": ")[0] for text in body["incomplete"]] == [f"batch {numbers[1]}"]
            assert body["total_count" if path == "/logs/search" else "total"] == 200
    async with client.get("/logs/aggregations") as answer:  # looks at no body
        assert {row["service"] for row in await answer.json()} == {"a", "b", "c"}
        assert "X-Logagg-Incomplete" not in answer.headers
    async with client.get("/logs", params={"service": "b"}) as answer:  # found by the head, and cannot be shown
        assert await answer.json() == []
        assert "X-Logagg-Incomplete" in answer.headers


async def test_damage_of_what_all_questions_need_is_told_once(client: Client, store: Store, database_url: str) -> None:
    await packed(store, "a", "b")
    number = min(batch.batch for batch in await store.batches())
    await damage(database_url, "head", number)
    async with client.get("/logs", params={"q": "host=h1 or host=h2 alpha"}) as answer:
        assert {record["service"] for record in await answer.json()} == {"b"}
        assert re.match(f"batch {number}: head: [^;]*$", answer.headers["X-Logagg-Incomplete"])


async def test_a_batch_that_is_dropped_meanwhile_is_not_missed(store: Store, database_url: str) -> None:
    await packed(store, "a", "b")
    listed = await store.batches()
    con = await asyncpg.connect(database_url)
    await con.execute("delete from batches where batch = $1", listed[0].batch)
    await con.close()
    engine = Engine(store, timeout=30)
    store.batches = lambda *_: _listed(listed)  # type: ignore[method-assign]  # as if it were dropped after the list
    found = await engine.search(Filter(q="-nothing"), limit=1000)
    assert len(found.records) == 100
    assert found.stats.damaged == []
    engine.close()


async def _listed(batches: list[Any]) -> list[Any]:
    return batches


def test_the_cost_is_told_in_two_lines() -> None:
    answer = {
        "batches": 153, "skipped": {"filter": 1500, "order": 2}, "read": {"packed": 1}, "records": 65536,
        "fetched_bytes": 1_200_000, "cached_reads": 1, "took_ms": 12.345,
    }  # fmt: skip
    assert list(cost([])) == []
    assert list(cost([json.dumps(answer)] * 2)) == [
        "306 batches in range: 3,004 (filter 3,000, order 4) skipped, 2 (packed 2) read",
        "131,072 records looked at, 2,400,000 bytes from PostgreSQL, 2 reads from the cache, 24.7 ms",
    ]
    assert re.match("what the answer cost is told", next(iter(cost(["[1]"]))))

"""The routes about the service itself, on a real store."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry, Counter

from logagg.query.engine import Engine
from logagg.query.http import make_app
from logagg.query.routes_logs import log_routes
from logagg.query.routes_status import Status, status_routes
from logagg.sinks.store import Store

Client = TestClient[web.Request, web.Application]

#: What the routes are told of the daemon; a test changes it.
TOLD: dict[str, Any] = {}


@pytest.fixture
async def client(store: Store) -> AsyncIterator[Client]:
    engine = Engine(store, timeout=30)
    registry = CollectorRegistry()
    Counter("logagg_records_stored", "Stored.", registry=registry).inc(7)
    TOLD.update(problem=None, counters={"stored": 7})
    status = Status(problem=lambda: TOLD["problem"], counters=lambda: TOLD["counters"])
    async with TestClient(
        TestServer(make_app([*log_routes(engine), *status_routes(store, status, registry)]))
    ) as client:
        yield client
    engine.close()


async def get(client: Client, path: str) -> Any:
    answer = await client.get(path)
    assert (answer.status, answer.content_type) == (200, "application/json")
    return await answer.json()


async def test_the_root_is_a_page_for_browsers_and_a_sign_of_life_for_programs(client: Client) -> None:
    for headers in ({}, {"Accept": "application/json"}, {"Accept": "*/*"}):
        answer = await client.get("/", headers=headers, skip_auto_headers=["Accept"])
        found = await answer.json()
        assert found["message"] == "Log Aggregator is alive!"
        assert abs(datetime.fromisoformat(found["timestamp"]) - datetime.now(UTC)) < timedelta(minutes=1)
        assert found["timestamp"].endswith("Z")
        assert answer.headers["Vary"] == "Accept"
    page = await client.get("/", headers={"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"})
    assert page.content_type == "text/html"
    assert page.headers["Vary"] == "Accept"


async def test_health_says_whether_records_can_be_stored(client: Client) -> None:
    found = await get(client, "/health")
    assert (found["status"], found["counters"]) == ("healthy", {"stored": 7})
    assert found["timestamp"].endswith("Z")
    TOLD["problem"] = "the journal is full"
    answer = await client.get("/health")
    found = await answer.json()
    assert (answer.status, found["status"], found["reason"]) == (503, "unhealthy", "the journal is full")
    assert await get(client, "/healthz") == {"status": "ok"}


async def test_without_the_store_it_is_alive_but_not_ready(
    client: Client, database_url: str, postgres_url: str
) -> None:
    assert await get(client, "/readyz") == {"status": "ready"}
    database = urlsplit(database_url).path.lstrip("/")
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"alter database {database} allow_connections false")
    await connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", database)
    await connection.close()
    answer = await client.get("/readyz")
    found = await answer.json()
    assert (answer.status, found["status"]) == (503, "not ready")
    assert found["reason"].startswith("PostgreSQL ")
    answer = await client.get("/logs")
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert (await answer.json())["detail"].startswith("PostgreSQL ")
    assert await get(client, "/healthz") == {"status": "ok"}


async def test_metrics_for_prometheus_and_as_json(client: Client) -> None:
    for accept in ("*/*", "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"):
        answer = await client.get("/metrics", headers={"Accept": accept})
        assert answer.content_type == "text/plain"
        assert "logagg_records_stored_total 7.0" in (await answer.text()).splitlines()
    newer = await client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert newer.content_type == "application/openmetrics-text"
    assert (await newer.text()).endswith("# EOF\n")
    answer = await client.get("/metrics", headers={"Accept": "application/json"})
    found = await answer.json()
    assert (found["service"], found["status"], found["counters"]) == ("logagg", "running", {"stored": 7})
    assert found["timestamp"].endswith("Z")

"""Real clients from PyPI over HTTP, unmodified, by the blocks of docs/senders.md: all that they send is found again."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from logagg.tests.daemons import RunningDaemon, Starter
    from logagg.tests.programs import ODD, arrived, begin, block, more, server
else:
    from programs import ODD, arrived, begin, block, more, server

HERE = socket.gethostname()


class Handler(NamedTuple):
    """A block that logs an error by the logger `shop`."""

    package: str
    heading: str
    #: Fields of each record, as they should be.
    fields: dict[str, Any]
    #: Attributes of the first.
    attributes: dict[str, Any]


HANDLERS = [
    Handler(
        "opentelemetry.sdk",
        "OpenTelemetry",
        {"service": "shop", "environment": "production"},
        {"card": 17, "otel.scope.name": "shop", "telemetry.sdk.name": "opentelemetry"},
    ),
    Handler(
        "logging_loki",
        "Loki's handler",
        {"service": "shop", "environment": "production"},
        {"card": "17", "logger": "shop"},
    ),
    Handler(
        "splunk_handler",
        "Splunk's handler",
        {"service": "shop", "host": HERE, "source": "till"},
        {"index": "main", "sourcetype": "text"},
    ),
    Handler("pygelf", "pygelf", {"service": "shop", "host": HERE}, {"card": 17}),
]


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.package)
async def test_a_handler_of_logging(daemon: RunningDaemon, handler: Handler) -> None:
    pytest.importorskip(handler.package)
    before = datetime.now(UTC)
    await begin(daemon, block(handler.heading) + more(200), "http_listen")
    found = await arrived(daemon, 201 + len(ODD))
    expected = [("ERROR", "card 17 was refused"), *[("WARNING", f"line {number}") for number in range(200)]]
    expected += [("CRITICAL", text) for text in ODD]
    assert sorted((record["level"], record["message"]) for record in found) == sorted(expected)
    for record in found:
        assert record | handler.fields == record
        assert before <= datetime.fromisoformat(record["timestamp"]) <= datetime.fromisoformat(record["received_at"])
    (first,) = (record for record in found if record["level"] == "ERROR")
    assert first["attributes"] | handler.attributes == first["attributes"]


async def test_requests(daemon: RunningDaemon) -> None:
    pytest.importorskip("requests")
    again = """
for number in range(10):
    for _ in range(2):
        session.post(
            "http://127.0.0.1:8000/ingest",
            json=[{"service": "shop", "message": f"line {number} {place}"} for place in range(20)],
            headers={"Idempotency-Key": f"key {number}"},
        ).raise_for_status()
"""
    await begin(daemon, block("requests") + again, "http_listen")
    first, second, *others = await daemon.logs(order="oldest", limit="1000")
    assert [(record["level"], record["service"], record["message"]) for record in (first, second)] == [
        ("ERROR", "shop", "card 17 was refused"),
        ("INFO", "shop", "card 18 was accepted"),
    ]
    assert [record["attributes"] for record in (first, second)] == [{"card": 17}, {"card": 18}]
    assert [record["message"] for record in others] == [f"line {n} {place}" for n in range(10) for place in range(20)]


async def test_elasticsearch(daemon: RunningDaemon) -> None:
    pytest.importorskip("elasticsearch")
    others = """
assert client.ping()
assert client.info()["version"]["number"] == "8.19.0"
documents = [{"message": f"line {number}", "_op_type": "create", "_index": "till"} for number in range(500)]
assert all(done for done, _ in helpers.streaming_bulk(client, documents, chunk_size=100))
assert all(done for done, _ in helpers.parallel_bulk(client, documents, chunk_size=100, thread_count=2))
assert client.index(index="till", id="7", document={"message": "one alone"})["result"] == "created"
"""
    before = datetime.now(UTC)
    await begin(daemon, block("elasticsearch") + others, "http_listen")
    found = await daemon.logs(order="oldest", limit="2000")
    lines = [record for record in found if record["message"].startswith("line")]
    assert sorted(record["message"] for record in lines) == sorted(2 * [f"line {number}" for number in range(500)])
    assert all(record["attributes"] == {"index": "till"} for record in lines)
    first, second, *_, last = [record for record in found if not record["message"].startswith("line")]
    for number, record in ((17, first), (18, second)):
        expected = {"level": "ERROR", "service": "shop", "message": f"card {number} was refused"}
        assert record | expected == record
        assert record["attributes"] == {"card": number, "index": "logs"}
        assert before <= datetime.fromisoformat(record["timestamp"]) <= datetime.fromisoformat(record["received_at"])
    assert (last["message"], last["attributes"]) == ("one alone", {"index": "till", "_id": "7"})
    assert len(found) == 1003


async def test_clients_that_try_again_have_all_stored_once_postgresql_is_back(start_daemon: Starter) -> None:
    headings = {"requests": 2, "OpenTelemetry": 1, "elasticsearch": 2, "Splunk's handler": 1}
    for package in ("requests", "opentelemetry.sdk", "elasticsearch", "splunk_handler"):
        pytest.importorskip(package)
    with server() as postgres:
        daemon = await start_daemon(database_url=postgres.url, journal_size="0", ack_timeout="2s")
        postgres.stop()
        programs = [begin(daemon, block(heading), "http_listen", content=False) for heading in headings]
        while any([await refused(daemon, transport) == 0 for transport in ("http", "otlp", "elasticsearch", "splunk")]):
            assert not any(program.done() for program in programs)
            await asyncio.sleep(0.05)
        postgres.start()
        await asyncio.gather(*programs)
        found = Counter((record["level"], record["message"]) for record in await daemon.logs())
        assert found == {
            ("ERROR", "card 17 was refused"): 4,
            ("ERROR", "card 18 was refused"): 1,
            ("INFO", "card 18 was accepted"): 1,
        }


async def refused(daemon: RunningDaemon, transport: str) -> float:
    return await daemon.metric("logagg_records_dropped_total", transport=transport, reason="no commit in time")

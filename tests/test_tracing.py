"""Traces: the spans of a real daemon arrive at a receiver of OTLP over HTTP, with the right parents."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from logagg.collector import settings
from logagg.collector.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from logagg.tests.daemons import Starter

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otel")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = (f"00-{CALLER[0]}-{CALLER[1]}-{flag}" for flag in ("01", "00"))


class Receiver:
    """A receiver of OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: set[tuple[str, str]] = set()

    async def take(self, request: web.Request) -> web.Response:
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for resource in sent.resource_spans:
            self.resources |= {(each.key, each.value.string_value) for each in resource.resource.attributes}
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def below(self, span: Any) -> list[Any]:
        return [each for each in self.spans if each.parent_span_id == span.span_id]

    async def until(self, names: Iterable[str]) -> None:
        """Wait until spans of all these names have come."""
        async with asyncio.timeout(20):
            while missing := [name for name in names if not self.named(name)]:
                assert missing
                await asyncio.sleep(0.02)


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, Receiver]]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    async with receiving() as (url, made):
        yield url, made


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[str, Receiver]]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", made
    finally:
        await runner.cleanup()


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


async def test_a_request_is_a_trace_from_its_sender_to_the_copy(
    start_daemon: Starter, receiver: tuple[str, Receiver]
) -> None:
    url, got = receiver
    daemon = await start_daemon(otel_endpoint=f"{url}/")
    body = [{"message": "a"}, {"message": "b"}]
    async with daemon.http.post("/ingest", json=body, headers={"traceparent": SAMPLED}) as answer:
        assert answer.status == 200
    async with daemon.http.get("/logs/aggregations", params={"by": "host"}) as answer:
        assert answer.status == 200
    async with daemon.http.get("/nowhere") as answer:
        assert answer.status == 404
    await got.until(["POST /ingest", "decode", "flush", "COPY", "GET /logs/aggregations", "query", "GET"])

    (request,) = got.named("POST /ingest")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == CALLER
    assert attributes(request) == {
        "http.request.method": "POST", "http.route": "/ingest", "http.response.status_code": 200,
    }  # fmt: skip
    decode, flush = sorted(got.below(request), key=lambda span: str(span.name))
    assert (decode.name, flush.name) == ("decode", "flush")
    assert attributes(flush) == {"records": 2, "chunks": 1}
    (copy,) = got.below(flush)
    assert (copy.name, copy.trace_id) == ("COPY", request.trace_id)
    assert flush.start_time_unix_nano <= copy.start_time_unix_nano < copy.end_time_unix_nano
    assert copy.end_time_unix_nano <= flush.end_time_unix_nano <= request.end_time_unix_nano

    (asked,) = got.named("GET /logs/aggregations")
    assert not asked.parent_span_id
    (query,) = got.below(asked)
    assert attributes(query) == {"kind": "aggregate"}
    assert attributes(got.named("GET")[0])["http.response.status_code"] == 404
    assert ("service.name", "logagg") in got.resources
    assert await daemon.metric("logagg_query_seconds_count", kind="aggregate") == 1


async def test_every_request_of_a_flush_is_its_parent_or_a_link(
    start_daemon: Starter, receiver: tuple[str, Receiver]
) -> None:
    url, got = receiver
    daemon = await start_daemon(otel_endpoint=url, flush_lanes=1)

    async def send(number: int) -> None:
        async with daemon.http.post("/ingest", json=[{"message": f"{number}"}]) as answer:
            assert answer.status == 200

    await asyncio.gather(*map(send, range(20)))
    await daemon.tcp("tcp_listen", b'{"message": "of no request"}\n')
    assert len(await daemon.logs()) == 21
    async with asyncio.timeout(20):
        while sum(attributes(span)["records"] for span in got.named("flush")) < 21:
            await asyncio.sleep(0.02)
        while len(got.named("POST /ingest")) < 20:
            await asyncio.sleep(0.02)
    flushes = got.named("flush")
    assert len(flushes) < 21
    joined = {span.parent_span_id for span in flushes} | {link.span_id for span in flushes for link in span.links}
    assert joined - {b""} == {span.span_id for span in got.named("POST /ingest")}
    assert b"" in joined  # records over TCP come with no request


async def test_what_the_caller_does_not_sample_makes_no_spans(
    start_daemon: Starter, receiver: tuple[str, Receiver]
) -> None:
    url, got = receiver
    daemon = await start_daemon(otel_endpoint=url)
    async with daemon.http.get("/logs", headers={"traceparent": NOT_SAMPLED}) as answer:
        assert answer.status == 200
    async with daemon.http.get("/logs/histogram") as answer:
        assert answer.status == 200
    await got.until(["GET /logs/histogram", "query"])
    assert {span.name for span in got.spans} == {"GET /logs/histogram", "query"}


async def test_a_receiver_that_is_away_hurts_nobody(start_daemon: Starter) -> None:
    async with receiving() as (url, _):
        pass
    daemon = await start_daemon(otel_endpoint=url)
    async with daemon.http.post("/ingest", json=[{"message": "a"}]) as answer:
        assert answer.status == 200
    assert len(await daemon.logs()) == 1


def test_without_it_nothing_is_imported() -> None:
    code = "import sys, logagg.collector.daemon; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_an_endpoint_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(endpoint: str) -> Settings:
        given: dict[str, Any] = {"otel_endpoint": endpoint}
        return Settings(**given)

    with pytest.raises(ValidationError, match="expected such as http"):
        made("127.0.0.1:4318")
    monkeypatch.setattr(settings, "find_spec", lambda _: None)
    with pytest.raises(ValidationError, match=r"pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"):
        made("http://127.0.0.1:4318")
    assert made("").otel_endpoint is None

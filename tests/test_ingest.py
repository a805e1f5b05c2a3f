"""Records over HTTP: the routes of both seeds, POST /ingest, and every way in which a body can be wrong."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import zlib
from typing import TYPE_CHECKING, Any
from uuid import UUID

import aiohttp
import asyncpg
import cramjam
import pytest

if TYPE_CHECKING:
    from logagg.tests.daemons import Lines, RunningDaemon, Starter

SEED_1 = {"timestamp": "2026-10-11T22:14:15Z", "level": "ERROR", "message": "payment failed", "service": "pay"}
SEED_2 = {"level": "CRITICAL", "message": "card refused", "source": "gateway"}


async def post(daemon: RunningDaemon, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    async with daemon.http.post(path, data=io.BytesIO(body), **options) as answer:
        return answer.status, await answer.json()


async def test_seed_1_stores_before_it_answers(daemon: RunningDaemon, database_url: str) -> None:
    assert await post(daemon, "/logs", SEED_1 | {"order": 17}) == (200, {"status": "Log queued successfully"})
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select count(*) from logs") == 1
    await connection.close()
    [found] = await daemon.logs()
    assert found | SEED_1 == found
    assert found["attributes"] == {"order": 17}


async def test_what_had_to_be_replaced_in_a_seed_s_body_is_kept(daemon: RunningDaemon, database_url: str) -> None:
    body = json.dumps(SEED_1).encode().replace(b"failed", b"\\u0000 \xff")
    assert (await post(daemon, "/logs", body))[0] == 200
    assert [record["message"] for record in await daemon.logs()] == ["payment \ufffd \ufffd"]
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select raw from logs") == body
    await connection.close()


async def test_seed_2_stores_one_and_many(daemon: RunningDaemon) -> None:
    status, answer = await post(daemon, "/logs/ingest", SEED_2)
    assert status == 200
    assert answer["success"] is True
    assert answer["message"] == "Log entry queued for processing"
    assert UUID(answer["correlation_id"]).version == 4
    many = [SEED_2 | {"message": f"refused {n}", "metadata": {"n": n, "deep": {"er": []}}} for n in range(3)]
    status, answer = await post(daemon, "/logs/batch-ingest", many)
    assert (status, answer["message"]) == (200, "Batch of 3 log entries queued for processing")
    async with daemon.http.get("/logs/search", params={"query": "refused", "limit": "2"}) as found:
        page = await found.json()
    assert page["total_count"] == 4
    assert page["logs"][0]["metadata"] == {"n": 2, "deep": {"er": []}}
    assert page["logs"][0]["source"] == "gateway"
    assert page["logs"][0]["service"] is None


@pytest.mark.parametrize(
    ("path", "body", "loc", "kind"),
    [
        ("/logs", SEED_1 | {"level": "error"}, ["body", "level"], "enum"),
        ("/logs", SEED_1 | {"timestamp": "yesterday"}, ["body", "timestamp"], "datetime_from_date_parsing"),
        ("/logs", SEED_1 | {"message": 7}, ["body", "message"], "string_type"),
        ("/logs", {k: v for k, v in SEED_1.items() if k != "service"}, ["body", "service"], "missing"),
        ("/logs", b'{"timestamp": ', ["body", 14], "json_invalid"),
        ("/logs", b"", ["body"], "missing"),
        ("/logs/ingest", SEED_2 | {"level": "LOUD"}, ["body", "level"], "enum"),
        ("/logs/ingest", SEED_2 | {"metadata": [1]}, ["body", "metadata"], "dict_type"),
        ("/logs/batch-ingest", [SEED_2, {}], ["body", 1, "level"], "missing"),
        ("/logs/batch-ingest", SEED_2, ["body"], "list_type"),
    ],
)
async def test_what_does_not_fit_is_a_422(
    daemon: RunningDaemon, path: str, body: Any, loc: list[str | int], kind: str
) -> None:
    status, answer = await post(daemon, path, body)
    assert status == 422
    assert answer["detail"][0]["loc"] == loc
    assert answer["detail"][0]["type"] == kind
    assert await daemon.logs() == []


@pytest.mark.parametrize(
    "body",
    [
        b'[{"message": "one"}, {"message": "two"}]',
        b'{"message": "one"}\n{"message": "two"}\n',
        b'{"message": "one"}\r\n\r\n{"message": "two"}',
        b'{"message": "one"}{"message": "two"}',
        b'{\n  "message": "one"\n}\n{\n  "message": "two"\n}',
    ],
    ids=["array", "lines", "crlf", "joined", "pretty"],
)
async def test_ingest_takes_json_in_every_usual_form(daemon: RunningDaemon, body: bytes) -> None:
    assert await post(daemon, "/ingest", body) == (200, {"accepted": 2, "quarantined": 0})
    assert [record["message"] for record in await daemon.logs(order="oldest")] == ["one", "two"]


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("zstd", cramjam.zstd.compress),
        ("snappy", cramjam.snappy.compress_raw),
    ],
)
async def test_ingest_takes_compressed_bodies(daemon: RunningDaemon, encoding: str, pack: Any) -> None:
    body = bytes(pack(b'{"message": "packed"}\n' * 3))
    status, answer = await post(daemon, "/ingest", body, headers={"Content-Encoding": encoding})
    assert (status, answer) == (200, {"accepted": 3, "quarantined": 0})


async def test_the_seed_routes_take_compressed_bodies_too(daemon: RunningDaemon) -> None:
    body = gzip.compress(json.dumps(SEED_1).encode())
    assert (await post(daemon, "/logs", body, headers={"Content-Encoding": "gzip"}))[0] == 200


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"", {}, 400, "no record in a body of 0 bytes"),
        (b"no JSON", {}, 400, "no record in a body of 7 bytes: invalid JSON"),
        (b"17", {}, 400, "number, expected an object"),
        (b"plain", {"Content-Encoding": "gzip"}, 400, "body of 5 bytes is not gzip"),
        (b"plain", {"Content-Encoding": "br"}, 400, "unknown Content-Encoding 'br'"),
        (gzip.compress(b"0" * 2_000_000), {"Content-Encoding": "gzip"}, 413, "more than 1048576 bytes"),
        (b" " * 1_048_577, {}, 413, "at most 1048576"),
    ],
    ids=["empty", "text", "number", "not gzip", "unknown", "bomb", "long"],
)
async def test_a_body_that_cannot_be_read_is_refused(
    start_daemon: Starter, body: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    daemon = await start_daemon(http_max_body="1MiB")
    got, answer = await post(daemon, "/ingest", body, headers=headers)
    assert got == status
    assert said in answer["detail"]


async def test_bad_lines_of_a_body_go_to_quarantine_and_the_others_are_stored(daemon: RunningDaemon) -> None:
    body = b'{"message": "one"}\n{"message": \n17\n{"message": "two"}\n'
    assert await post(daemon, "/ingest", body) == (200, {"accepted": 2, "quarantined": 2})
    assert [record["message"] for record in await daemon.logs(order="oldest")] == ["one", "two"]


async def test_a_body_larger_than_one_transaction_is_stored_whole(start_daemon: Starter) -> None:
    daemon = await start_daemon(flush_records=10)
    body = b"".join(b'{"message": "line %d"}\n' % number for number in range(95)) + b"bad\n"
    assert await post(daemon, "/ingest", body) == (200, {"accepted": 95, "quarantined": 1})
    assert [record["message"] for record in await daemon.logs(order="oldest")] == [f"line {n}" for n in range(95)]


async def test_records_without_an_environment_get_the_one_of_the_settings(start_daemon: Starter) -> None:
    daemon = await start_daemon(environment="staging")
    await post(daemon, "/ingest", b'{"message": "a"}{"message": "b", "environment": "production"}')
    assert {(r["message"], r["environment"]) for r in await daemon.logs()} == {("a", "staging"), ("b", "production")}


async def test_a_full_buffer_is_a_503_that_says_when_to_come_back(start_daemon: Starter, database_url: str) -> None:
    daemon = await start_daemon(buffer_records=10, ack_timeout="2s")
    blocker = await asyncpg.connect(database_url)
    await blocker.execute("begin; lock table logs in access exclusive mode")
    first = asyncio.create_task(post(daemon, "/ingest", b'{"message": "waits"}' * 10))
    while not await daemon.metric("logagg_buffer_records"):
        await asyncio.sleep(0.01)
    async with daemon.http.post("/ingest", data=b'{"message": "no room"}') as answer:
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert "10 of 10 records" in (await answer.json())["detail"]
    status, answer_of_first = await first
    assert status == 503
    assert "did not commit within 2 s" in answer_of_first["detail"]
    await blocker.execute("rollback")
    await blocker.close()
    while await daemon.metric("logagg_buffer_records"):
        await asyncio.sleep(0.01)
    assert (await post(daemon, "/ingest", b'{"message": "room again"}'))[0] == 200
    assert "no room" not in {record["message"] for record in await daemon.logs()}


async def test_a_body_that_never_ends_is_given_up(start_daemon: Starter) -> None:
    daemon = await start_daemon(http_body_timeout="200ms")
    reader, writer = await asyncio.open_connection(*daemon.listening["http_listen"])
    writer.write(b"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    assert b"408" in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_http_connections_beyond_the_limit_are_closed_counted_and_said(
    start_daemon: Starter, lines: Lines
) -> None:
    daemon = await start_daemon(max_connections=5)
    silent = [await asyncio.open_connection(*daemon.listening["http_listen"]) for _ in range(7)]
    ended = [asyncio.create_task(reader.read()) for reader, _ in silent]
    while sum(task.done() for task in ended) < 2:
        await asyncio.sleep(0.01)
    assert "http_listen has 5 connections open, and max_connections is 5" in {line.get("reason") for line in lines}
    for _, writer in silent:
        writer.close()
    await asyncio.gather(*ended)
    while True:  # until the daemon has seen that they are gone
        try:
            assert await daemon.metric("logagg_connections_refused_total", transport="http") >= 2
        except aiohttp.ClientError:
            continue
        break

"""Bodies of requests: large ones hold up nobody, and what one may bring is limited, whatever its length."""

import asyncio
import io
import os
import threading
from datetime import UTC, datetime
from typing import Any

import cramjam
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from logagg.protocols import elasticsearch, gelf, loki, otlp
from logagg.protocols.http import HttpProtocol, Request
from logagg.protocols.json_columns import decode_body
from logagg.protocols.limits import MOST_PARTS, MOST_RECORDS, TooLarge, check_parts
from logagg.protocols.record import Origin
from logagg.protocols.splunk import SPLUNK
from logagg.query.bodies import BODIES, LARGE, Bodies
from logagg.query.http import Route, make_app, reply

ORIGIN = Origin(datetime.now(UTC), "test", "127.0.0.1")
PATIENCE = 20.0
MANY = MOST_RECORDS + 1


@pytest.mark.parametrize("encoding", ["", "snappy"])
async def test_a_large_body_is_decoded_while_others_are_answered(encoding: str) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def decode(body: bytes) -> int:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(PATIENCE)
        return len(body)

    async def take(request: web.Request, _: Any, __: Any) -> web.Response:
        return reply(await request.app[BODIES].decode(request, decode))

    async def other(_: web.Request, __: Any, ___: Any) -> web.Response:
        await begun.wait()
        go_on.set()
        return reply("done")

    app = make_app([Route("POST", "/take", "", "t", take), Route("GET", "/other", "", "t", other)])
    app[BODIES] = Bodies(limit=4 * LARGE, limit_of_all=4 * LARGE, patience=PATIENCE)
    body = os.urandom(LARGE + 1)
    sent_as = bytes(cramjam.snappy.compress_raw(body)) if encoding else body
    headers = {"Content-Encoding": encoding} if encoding else {}
    async with TestClient(TestServer(app)) as client, asyncio.timeout(PATIENCE):
        sent = asyncio.create_task(client.post("/take", data=io.BytesIO(sent_as), headers=headers))
        assert await (await client.get("/other")).json() == "done"
        assert await (await sent).json() == len(body)


def request(path: str, kind: str, body: bytes) -> Request:
    return Request("POST", path, {}, {"content-type": kind}, body, 1 << 30)


JSON, PROTOBUF = "application/json", "application/x-protobuf"


@pytest.mark.parametrize(
    ("protocol", "path", "kind", "body"),
    [
        (elasticsearch.elasticsearch("8.19.0"), "/a/_bulk", JSON, b'{"index":{}}\n{}\n' * MANY),
        (gelf.GELF, "/gelf", JSON, b"[%b{}]" % (b"{}," * MOST_RECORDS)),
        (loki.LOKI, "/loki/api/v1/push", JSON, b'{"streams":[{"values":[%b[]]}]}' % (b"[]," * MOST_RECORDS)),
        (otlp.OTLP, "/v1/logs", JSON, orjson.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [{}] * MANY}]}]})),
        (SPLUNK, "/services/collector/event", JSON, b"{}" * MANY),
        (SPLUNK, "/services/collector/raw", "text/plain", b"a\n" * MANY),
    ],
    ids=["bulk", "gelf", "loki", "otlp", "hec", "hec raw"],
)
def test_a_body_brings_a_million_records_at_most(protocol: HttpProtocol, path: str, kind: str, body: bytes) -> None:
    with pytest.raises(TooLarge, match=rf"^100000\d records in one body, at most {MOST_RECORDS}$"):
        protocol.take(request(path, kind, body), ORIGIN)


def test_and_so_in_protobuf() -> None:
    def field(number: int, value: bytes) -> bytes:
        size, digits = len(value), bytearray()
        while size > 127:
            digits.append(size & 127 | 128)
            size >>= 7
        return bytes([number << 3 | 2, *digits, size]) + value

    body = field(1, field(2, b"\x12\0" * MANY))
    with pytest.raises(TooLarge, match=f"{MANY} records"):
        otlp.OTLP.take(request("/v1/logs", PROTOBUF, body), ORIGIN)


@pytest.mark.parametrize(
    "body", [b"{}" * MANY, b"{}\n" * MANY, b"[%b{}]" % (b"{}," * MOST_RECORDS), b"[%b1]" % (b"1," * MANY)]
)
def test_and_so_in_json(body: bytes) -> None:
    with pytest.raises(TooLarge, match="records in one body"):
        decode_body(body, ORIGIN)


def test_what_would_be_large_once_it_is_read_is_not_read() -> None:
    check_parts(b'{"a":"%b"}' % (b"x" * 2 * MOST_PARTS))
    for part in (b"[],", b"{},", b"\x12\0"):
        with pytest.raises(TooLarge, match=f"with {MOST_PARTS + 1} objects and arrays, at most {MOST_PARTS}"):
            check_parts(part * (MOST_PARTS + 1))

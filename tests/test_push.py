"""The protocols over HTTP on a whole daemon: what a sender is told when all goes well, and when it does not."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
import cramjam
import msgpack
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from logagg.tests.daemons import RunningDaemon, Starter

NS = "1791756855000000000"
LOKI = {"streams": [{"stream": {"service": "pay"}, "values": [[NS, "one"], [NS, "two"]]}]}
RESOURCE = {"attributes": [{"key": "service.name", "value": {"stringValue": "pay"}}]}
LOGS = [{"timeUnixNano": NS, "body": {"stringValue": text}} for text in ("one", "two")]
OTLP = {"resourceLogs": [{"resource": RESOURCE, "scopeLogs": [{"logRecords": LOGS}]}]}
LINES = [b'{"service":"pay","message":"one"}', b'{"service":"pay","message":"two"}']
LABELLED = b'{service="pay"}'


def field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2, len(value)]) + value


#: PushRequest of Loki, in the snappy that belongs to the format; ExportLogsServiceRequest of OTLP.
PUSH = field(1, field(1, LABELLED) + b"".join(field(2, field(2, text)) for text in (b"one", b"two")))
PACKED = bytes(cramjam.snappy.compress_raw(PUSH))
NAMED = field(1, field(1, field(1, b"service.name") + field(2, field(1, b"pay"))))
EXPORT = field(1, NAMED + field(2, b"".join(field(2, field(5, field(1, text))) for text in (b"one", b"two"))))


class Sender(NamedTuple):
    """How a protocol's senders send two records, and what they are told."""

    path: str
    body: bytes
    kind: str
    status: int
    answer: Any
    #: A body that can never be read.
    bad: bytes
    #: What of a refusal says what it is; it has the status, and the reason.
    form: Callable[[int, str], Any]
    headers: Mapping[str, str] = MappingProxyType({})


def of_loki(_: int, why: str) -> Any:
    return f"{why}\n"


def of_gelf(_: int, why: str) -> Any:
    return why


def of_elasticsearch(status: int, why: str) -> Any:
    if status == 503:
        return f"{why}\n"
    names = {400: "illegal_argument_exception", 413: "content_too_long_exception"}
    error = {"type": names[status], "reason": why}
    return {"error": {"root_cause": [error], **error}, "status": status}


def of_otlp(status: int, why: str) -> Any:
    return {"code": {400: 3, 413: 8, 503: 14}[status], "message": why}


def of_otlp_protobuf(status: int, why: str) -> Any:
    return (bytes([8, of_otlp(status, why)["code"], 18, len(why)]) + why.encode()).decode()


def of_splunk(status: int, why: str) -> Any:
    if status == 400:
        return {"text": "Invalid data format", "code": 6, "invalid-event-number": 0, "reason": why}
    return {413: {"text": "Content too large", "code": 27}, 503: {"text": "Server is busy", "code": 9}}[status]


ITEM = {"create": {"_index": "app", "_version": 1, "result": "created", "status": 201}}
BULK = b"".join(b'{"create":{}}\n%b\n' % line for line in LINES)
GELF = b"\n".join(line.replace(b"message", b"short_message") for line in LINES)
SENDERS = {
    "loki": Sender("/loki/api/v1/push", json.dumps(LOKI).encode(), "application/json", 204, None, b"{", of_loki),
    "loki, protobuf": Sender("/loki/api/v1/push", PACKED, "application/x-protobuf", 204, None, b"\x00\xff", of_loki),
    "elasticsearch": Sender(
        *("/app/_bulk", BULK, "application/x-ndjson", 200),
        *({"took": 0, "errors": False, "items": [ITEM, ITEM]}, b"no action\n", of_elasticsearch),
    ),
    "otlp": Sender("/v1/logs", json.dumps(OTLP).encode(), "application/json", 200, {}, b"{", of_otlp),
    "otlp, protobuf": Sender("/v1/logs", EXPORT, "application/x-protobuf", 200, None, b"\xff", of_otlp_protobuf),
    "gelf": Sender("/gelf", GELF, "application/json", 202, None, b"no JSON", of_gelf),
    "splunk": Sender(
        *("/services/collector/event", b"".join(b'{"event":%b}' % line for line in LINES), "application/json", 200),
        *({"text": "Success", "code": 0}, b"no JSON", of_splunk, {"Authorization": "Splunk any"}),
    ),
}
everybody = pytest.mark.parametrize("sender", SENDERS.values(), ids=SENDERS)
PACKERS: dict[str, Callable[[bytes], Any]] = {
    "gzip": gzip.compress,
    "zstd": cramjam.zstd.compress,
    "snappy": cramjam.snappy.compress_raw,
}


class Told(NamedTuple):
    status: int
    body: Any
    headers: Any


async def send(daemon: RunningDaemon, sender: Sender, **headers: str) -> Told:
    return await push(daemon, sender, sender.body, headers)


async def push(daemon: RunningDaemon, sender: Sender, body: bytes, headers: Mapping[str, str] | None = None) -> Told:
    sent = {"Content-Type": sender.kind, **sender.headers, **(headers or {})}
    async with daemon.http.post(sender.path, data=io.BytesIO(body), headers=sent) as answer:
        text = await answer.text(errors="replace")
        is_json = answer.content_type == "application/json" and text
        return Told(answer.status, json.loads(text) if is_json else text or None, answer.headers)


async def stored(daemon: RunningDaemon) -> list[tuple[str, str]]:
    return sorted((record["message"], record["service"] or "") for record in await daemon.logs(limit="1000"))


@everybody
async def test_what_is_sent_is_stored_and_answered_with_gzip_zstd_and_snappy_too(
    daemon: RunningDaemon, sender: Sender
) -> None:
    assert (await send(daemon, sender))[:2] == (sender.status, sender.answer)
    assert await stored(daemon) == [("one", "pay"), ("two", "pay")]
    for encoding, pack in PACKERS.items():
        as_it_is = encoding == "snappy" and sender.body == PACKED
        body = sender.body if as_it_is else bytes(pack(sender.body))
        told = await push(daemon, sender, body, {"Content-Encoding": encoding})
        assert told[:2] == (sender.status, sender.answer), encoding
    assert await stored(daemon) == [("one", "pay")] * 4 + [("two", "pay")] * 4


@everybody
async def test_what_can_never_be_read_is_refused_in_the_protocol_s_own_form(
    start_daemon: Starter, sender: Sender
) -> None:
    daemon = await start_daemon(http_max_body="1KiB")
    bomb, long = gzip.compress(b" " * 1025), b" " * 1025
    plain = {"Content-Encoding": "gzip"}
    cases: list[tuple[bytes, dict[str, str], int, str]] = [
        (sender.bad, {}, 400, ""),
        (
            b"plain",
            plain,
            400,
            "body of 5 bytes is not gzip: Error -3 while decompressing data: incorrect header check",
        ),
        (b"", {"Content-Encoding": "br"}, 400, "unknown Content-Encoding 'br'; known: "),
        (long, {}, 413, "body of 1025 bytes or more, at most 1024"),
        (bomb, plain, 413, "body is more than 1024 bytes once decompressed"),
        (sender.body, {"Idempotency-Key": "k" * 1025}, 400, "Idempotency-Key of 1025 characters, at most 1024"),
    ]
    for body, headers, status, why in cases:
        told = await push(daemon, sender, body, headers)
        assert told.status == status, (body, told)
        if not why.endswith(" ") and why:
            assert told.body == sender.form(status, why)
        assert "Retry-After" not in told.headers
        assert told.headers.get("X-Elastic-Product") == ("Elasticsearch" if "bulk" in sender.path else None)
    assert await stored(daemon) == []


async def test_every_sender_is_told_to_come_back_while_the_store_is_away(
    start_daemon: Starter, database_url: str
) -> None:
    daemon = await start_daemon(ack_timeout="0.2s")
    blocker = await asyncpg.connect(database_url)
    await blocker.execute("begin; lock table logs in access exclusive mode")
    for name, sender in SENDERS.items():
        told = await send(daemon, sender)
        assert told.status == 503, name
        assert int(told.headers["Retry-After"]) > 0, name
        assert told.body == sender.form(503, "PostgreSQL did not commit within 0.2 s"), name
    await blocker.execute("rollback")
    await blocker.close()


@everybody
async def test_a_body_with_a_key_is_stored_once(daemon: RunningDaemon, sender: Sender) -> None:
    for key in ("one", "one", "other", "one"):
        assert (await push(daemon, sender, sender.body, {"Idempotency-Key": key})).status == sender.status
    assert await stored(daemon) == [("one", "pay")] * 2 + [("two", "pay")] * 2


async def test_what_is_no_record_among_good_ones_goes_to_quarantine(daemon: RunningDaemon, database_url: str) -> None:
    item = b'{"create":{}}\nno JSON\n'
    cases = {
        "elasticsearch": BULK + item,
        "gelf": SENDERS["gelf"].body + b"\nno JSON",
        "splunk": b'no JSON\n{"event":1}',
    }
    for name, body in cases.items():
        assert (await push(daemon, SENDERS[name], body)).status == SENDERS[name].status, name
    logs: list[Any] = [*LOGS, 17]
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": logs}]}]}).encode()
    assert (await push(daemon, SENDERS["otlp"], body)).status == 200
    assert len(await stored(daemon)) == 7
    connection = await asyncpg.connect(database_url)
    found = await connection.fetch("select transport, convert_from(raw, 'utf8') as raw from quarantine order by 1")
    await connection.close()
    raws = {"elasticsearch": "no JSON", "gelf-http": "no JSON", "otlp": "17", "splunk": "no JSON\n"}
    assert dict(map(tuple, found)) == raws


@pytest.mark.parametrize(
    ("headers", "kind", "word"),
    [
        (
            {"User-Agent": "elasticsearch-py/9.0", "Accept": "application/json"},
            "application/json",
            "You Know, for Search",
        ),
        ({"User-Agent": "Filebeat/8.19"}, "application/json", "You Know, for Search"),
        ({"User-Agent": "Mozilla/5.0", "Accept": "text/html,*/*;q=0.8"}, "text/html", "<html"),
        ({"User-Agent": "curl/8", "Accept": "application/json"}, "application/json", "Log Aggregator is alive!"),
    ],
    ids=["client", "beat", "browser", "seed"],
)
async def test_the_root_has_an_answer_for_each(
    daemon: RunningDaemon, headers: dict[str, str], kind: str, word: str
) -> None:
    async with daemon.http.get("/", headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, kind)
        assert word in await answer.text()
    async with daemon.http.head("/", headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, kind)


async def test_questions_are_answered_by_get_and_head_and_refused_in_form(start_daemon: Starter) -> None:
    daemon = await start_daemon(http_max_body="1KiB")
    for path in ("/ready", "/_license", "/_cluster/health", "/_ilm/policy/x", "/services/collector/health"):
        for method in ("GET", "HEAD"):
            async with daemon.http.request(method, path) as answer:
                assert answer.status == 200, path
                assert bool(await answer.read()) == (method == "GET")
                assert ("X-Elastic-Product" in answer.headers) == path.startswith("/_")
    async with daemon.http.put("/_index_template/logs", json={"index_patterns": ["logs-*"]}) as answer:
        assert (answer.status, await answer.json()) == (200, {"acknowledged": True})
    async with daemon.http.put("/_index_template/logs", data=b" " * 1025) as answer:
        assert answer.status == 413
        assert answer.headers["X-Elastic-Product"] == "Elasticsearch"
        assert (await answer.json())["error"]["type"] == "content_too_long_exception"


async def test_ingest_takes_what_fluent_bit_and_fluentd_send(daemon: RunningDaemon) -> None:
    tag, time = {"FLUENT-TAG": "till"}, 1791756855.25
    v1, v2 = [[time, {"log": "v1"}]], [[[time, {}], {"log": "v2", "tag": "own"}]]
    gelf = b'{"version":"1.1","short_message":"gelf","host":"h","timestamp":1791756855.25,"level":3}\n'
    cases: list[tuple[bytes, str, dict[str, str]]] = [
        (b"".join(map(msgpack.packb, v1)), "application/msgpack", tag),
        (b"".join(map(msgpack.packb, v2)), "application/x-msgpack", tag),
        (msgpack.packb({"date": time, "log": "map", "service": "own"}), "application/msgpack", tag),
        (b'{"date":1791756855.25,"log":"json"}{"date":1791756855.25,"log":"joined"}', "application/json", {}),
        (gelf, "application/json", {}),
    ]
    for body, kind, headers in cases:
        told = await push(daemon, Sender("/ingest", b"", kind, 200, None, b"", of_gelf), body, headers)
        assert told[:2] == (200, {"accepted": body.count(b"joined") + 1, "quarantined": 0})
    found = {record["message"]: record for record in await daemon.logs()}
    assert {record["timestamp"] for record in found.values()} == {"2026-10-11T22:14:15.250000Z"}
    assert {name: (record["service"], record["attributes"].get("tag")) for name, record in found.items()} == {
        "v1": ("till", "till"),
        "v2": ("till", "own"),
        "map": ("own", "till"),
        "json": (None, None),
        "joined": (None, None),
        "gelf": (None, None),
    }
    assert found["v2"]["attributes"] == {"tag": "own", "fluent_tag": "till"}
    assert (found["gelf"]["level"], found["gelf"]["host"]) == ("ERROR", "h")


@pytest.mark.parametrize("kind", ["application/json", "application/msgpack"])
async def test_a_tag_is_told_to_many_records_as_to_few(daemon: RunningDaemon, kind: str) -> None:
    many = [
        {"message": f"line {number}", "n": number} | ({"tag": "own"} if number == 7 else {}) for number in range(300)
    ]
    is_json = kind == "application/json"
    body = json.dumps(many).encode() if is_json else b"".join(msgpack.packb([1791756855, each]) for each in many)
    async with daemon.http.post("/ingest", data=body, headers={"Content-Type": kind, "FLUENT-TAG": 'a"b'}) as answer:
        assert await answer.json() == {"accepted": 300, "quarantined": 0}
    found = {record["attributes"]["n"]: record for record in await daemon.logs(limit="1000")}
    assert {record["service"] for record in found.values()} == {'a"b'}
    assert found.pop(7)["attributes"] == {"n": 7, "tag": "own", "fluent_tag": 'a"b'}
    assert all(record["attributes"] == {"n": number, "tag": 'a"b'} for number, record in found.items())
    assert len(found) == 299


async def test_nothing_is_not_too_little_but_no_msgpack_is_refused(daemon: RunningDaemon) -> None:
    async with daemon.http.post("/ingest", data=b"[]") as answer:
        assert (answer.status, await answer.json()) == (200, {"accepted": 0, "quarantined": 0})
    for body in (b"", b"[]", b"\xc1", b"\x92\x01"):
        async with daemon.http.post("/ingest", data=body, headers={"Content-Type": "application/msgpack"}) as answer:
            assert answer.status == 400
            assert f"no record in a body of {len(body)} bytes" in (await answer.json())["detail"]


async def test_a_push_by_another_method_is_a_405(daemon: RunningDaemon) -> None:
    async with daemon.http.get("/loki/api/v1/push") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_a_body_that_never_ends_is_given_up_in_form(start_daemon: Starter) -> None:
    daemon = await start_daemon(http_body_timeout="100ms")
    reader, writer = await asyncio.open_connection(*daemon.listening["http_listen"])
    writer.write(b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
    head, _, body = (await reader.readuntil(b"}")).partition(b"\r\n\r\n")
    assert b"408" in head
    assert json.loads(body) == {"code": 4, "message": "1 bytes of the body arrived within 0.1 s, and not its end"}
    writer.close()
    await writer.wait_closed()

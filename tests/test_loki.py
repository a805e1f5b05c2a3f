import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cramjam
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.http import Answer, Malformed, Request
from logagg.protocols.limits import TooLarge
from logagg.protocols.loki import _PROTO, LOKI
from logagg.protocols.record import Decoded, Origin, Record

VECTORS = Path(__file__).parents[2] / "shared" / "vectors"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
THEN = datetime(2026, 10, 11, 22, 14, 15, 3000, tzinfo=UTC)
NANOS = "1791756855003000999"
ORIGIN = Origin(NOW, "loki", "192.0.2.9", "staging")
LIMIT = 1_000_000


def request(body: bytes, kind: str = "application/json", **headers: str) -> Request:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", "/loki/api/v1/push", {}, {"content-type": kind, **given}, body, LIMIT)


def push(body: Any, **headers: str) -> Decoded:
    taken = LOKI.take(request(body if isinstance(body, bytes) else json.dumps(body).encode(), **headers), ORIGIN)
    assert taken.answer == Answer(204)
    assert isinstance(taken.decoded, Decoded)
    return taken.decoded


def one(body: Any, **headers: str) -> Record:
    (record,), rejects = push(body, **headers)
    assert rejects == []
    return record


def stream(labels: Any, *values: Any) -> dict[str, Any]:
    return {"streams": [{"stream": labels, "values": list(values)}]}


def rest(record: Record) -> Any:
    return json.loads(record.attributes) if record.attributes is not None else None


def packed(*streams: dict[str, Any]) -> bytes:
    message = _PROTO["PushRequest"](streams=streams)
    return bytes(cramjam.snappy.compress_raw(message.SerializeToString()))


LABELS = {"service_name": "api", "host": "web-1", "env": "production", "level": "error", "file": "/var/log/x"}
TEXT = b'{service_name="api", host="web-1", env="production", level="error", file="/var/log/x"}'
EXPECTED = Record(
    timestamp=THEN,
    received_at=NOW,
    severity=3,
    facility=None,
    environment="production",
    host="web-1",
    service="api",
    source="192.0.2.9",
    message='{"msg":"as it stands"}',
    attributes='{"file":"/var/log/x","user":"u"}',
    trace_id="5b8e",
    span_id=None,
    raw=None,
)
SECONDS = {"seconds": 1791756855, "nanos": 3000999}
METADATA = [{"name": b"trace_id", "value": b"5b8e"}, {"name": b"user", "value": b"u"}]


@pytest.mark.parametrize("name", ["content-type", "x"])
def test_json(name: str) -> None:
    body = stream(LABELS, [NANOS, EXPECTED.message, {"trace_id": "5b8e", "user": "u"}])
    headers = {name: "application/json; charset=utf-8"}
    taken = LOKI.take(Request("POST", "/loki/api/v1/push", {}, headers, orjson.dumps(body), LIMIT), ORIGIN)
    assert taken.decoded == ([EXPECTED], [])


def test_protobuf_in_a_snappy_block() -> None:
    entry = {"timestamp": SECONDS, "line": EXPECTED.message.encode(), "metadata": METADATA}
    body = packed({"labels": TEXT, "entries": [entry]})
    assert one(body, content_type="application/x-protobuf") == EXPECTED


def test_snappy_that_was_the_content_encoding_is_undone_once() -> None:
    body = _PROTO["PushRequest"](streams=[{"labels": b'{a="b"}', "entries": [{"line": b"x"}]}]).SerializeToString()
    record = one(body, content_type="application/x-protobuf", content_encoding="snappy")
    assert (record.message, rest(record), record.timestamp) == ("x", {"a": "b"}, NOW)


def test_the_first_api_had_labels_as_a_text_and_entries_as_objects() -> None:
    entries = [{"ts": "2026-10-11T22:14:15.003Z", "line": "x"}]
    body = {"streams": [{"labels": '{app="api",host="h"}', "entries": entries}]}
    record = one(body)
    assert (record.timestamp, record.message, record.service, record.host) == (THEN, "x", "api", "h")


@pytest.mark.parametrize(
    ("labels", "service"),
    [
        ({"service_name": "a", "job": "b"}, "a"),
        ({"app": "a", "job": "b"}, "a"),
        ({"job": "b"}, "b"),
        ({"container": "c", "job": "b"}, "c"),
        ({"k": "v"}, None),
    ],
)
def test_the_service_is_found_as_loki_finds_it(labels: dict[str, str], service: str | None) -> None:
    assert one(stream(labels, [NANOS, "x"])).service == service


@pytest.mark.parametrize(
    ("labels", "metadata", "severity"),
    [
        ({"level": "warn"}, {}, 4),
        ({"detected_level": "error"}, {}, 3),
        ({}, {"level": "debug"}, 7),
        ({}, {"detected_level": "fatal"}, 2),
        ({"level": "info"}, {"level": "error"}, 3),
        ({"detected_level": "unknown"}, {}, 6),
        ({}, {}, 6),
    ],
)
def test_the_level(labels: dict[str, str], metadata: dict[str, str], severity: int) -> None:
    assert one(stream(labels, [NANOS, "x", metadata])).severity == severity


@pytest.mark.parametrize(
    ("stamp", "time"),
    [
        (NANOS, THEN),
        (int(NANOS), THEN),
        (NANOS[:10], THEN.replace(microsecond=0)),
        ("0", NOW),
        ("", NOW),
        (None, NOW),
    ],
)
def test_times(stamp: Any, time: datetime) -> None:
    record = one(stream({}, [stamp, "x"]))
    assert (record.timestamp, record.attributes) == (time, None)


@pytest.mark.parametrize("stamp", ["soon", [], {}, True, "9" * 30, "१" * 19])
def test_what_is_no_time_is_told_and_the_line_is_kept(stamp: Any) -> None:
    record = one(stream({}, [stamp, "x"]))
    assert (record.timestamp, record.message) == (NOW, "x")
    assert rest(record)["logagg_note"].startswith("timestamp")


def test_what_is_no_text_becomes_one() -> None:
    labels = {"n": 5, "b": True, "o": {"a": [1]}, "nothing": None}
    first, second = push(stream(labels, [NANOS, {"k": 1}], [NANOS, 7, {"m": 1.5}])).records
    assert (first.message, second.message) == ('{"k":1}', "7")
    assert rest(first) == {"n": "5", "b": "true", "o": '{"a":[1]}'}
    assert rest(second)["m"] == "1.5"


def test_the_tenant_is_an_attribute() -> None:
    assert rest(one(stream({"a": "b"}, [NANOS, "x"]), x_scope_orgid="blue")) == {"a": "b", "tenant": "blue"}


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("{}", None),
        ("", None),
        ('{a="b"}', {"a": "b"}),
        ('{a="b", c="d"}', {"a": "b", "c": "d"}),
        (' { a = "b" , c = "d" } ', {"a": "b", "c": "d"}),
        (r'{a="q\"\\\n\t\x41é\U0001f600"}', {"a": 'q"\\\n\tA\u00e9\U0001f600'}),
        (r'{a="\x00\ud800\Uffffffff"}', {"a": "\ufffd\ufffd\ufffd"}),
        ('{a="}", b=", c=\\"d\\""}', {"a": "}", "b": ', c="d"'}),
        ('{a="b"', {"labels": '{a="b"'}),
        ('{a="b", c}', {"labels": '{a="b", c}'}),
        ("nonsense", {"labels": "nonsense"}),
    ],
)
def test_labels_as_a_text(text: str, labels: Any) -> None:
    body = packed({"labels": text.encode(), "entries": [{"line": b"x"}]})
    assert rest(one(body, content_type="application/x-protobuf")) == labels


def test_one_bad_line_costs_no_neighbour() -> None:
    records, rejects = push(
        {"streams": [{"stream": {"k": "v"}, "values": [[NANOS, "a"], ["1"], 5, [NANOS, "b"]]}, 7, {"values": {}}]}
    )
    assert [record.message for record in records] == ["a", "b"]
    assert [reject.reason for reject in rejects] == [
        "JSON array, expected a time and a line",
        "JSON number, expected a time and a line",
        "JSON number, expected a stream",
        "values of a stream: JSON object, expected an array",
    ]
    assert [reject.raw for reject in rejects] == [
        b'{"stream":{"k":"v"},"values":[["1"]]}',
        b'{"stream":{"k":"v"},"values":[5]}',
        b"7",
        b'{"values":{}}',
    ]


def test_bad_bytes_are_replaced_and_kept_in_json() -> None:
    body = b'{"streams":[{"stream":{"a":"b"},"values":[["%b","x\xff"],["%b","y"]]}]}' % (NANOS.encode(), NANOS.encode())
    first, second = push(body).records
    assert (first.message, first.raw, second.message, second.raw) == ("x\ufffd", body, "y", None)


def test_bad_bytes_are_replaced_and_kept_in_protobuf() -> None:
    bad = {"line": b"x\xff\0", "metadata": [{"name": b"k\0", "value": b"\xff"}]}
    body = packed({"labels": b'{a="b\xff"}', "entries": [{"line": b"first"}, bad, {"line": b"y"}]})
    first, second, third = push(body, content_type="application/x-protobuf").records
    entry = _PROTO["Entry"](**bad).SerializeToString()
    assert (first.message, rest(first), first.raw) == ("first", {"a": "b\ufffd"}, b'{a="b\xff"}')
    assert (second.message, rest(second)) == ("x\ufffd\ufffd", {"a": "b\ufffd", "k\ufffd": "\ufffd"})
    assert second.raw == entry
    assert (third.message, third.raw) == ("y", None)
    record = one(packed({"labels": b'{a="b\xff"}', "entries": [bad]}), content_type="application/x-protobuf")
    assert record.raw == b'{a="b\xff"}' + entry


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"", "application/json", "body of 0 bytes"),
        (b"{", "application/json", "body of 1 bytes: invalid JSON"),
        (b"[]", "application/json", "no array `streams`"),
        (b"{}", "application/json", "no array `streams`"),
        (b'{"streams":[1]}', "application/json", "no line in a body of 15 bytes: JSON number, expected a stream"),
        (b"[" * 100_000, "application/json", "nested too deeply"),
        (b"nonsense", "application/x-protobuf", "not snappy"),
        (bytes(cramjam.snappy.compress_raw(b"nonsense")), "application/x-protobuf", "no PushRequest in protobuf"),
    ],
)
def test_what_can_never_be_read(body: bytes, kind: str, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        LOKI.take(request(body, kind), ORIGIN)


@pytest.mark.parametrize("length", [LIMIT + 1, 2**32 - 1])
def test_a_snappy_bomb_is_refused_by_what_it_says_of_itself(length: int) -> None:
    count, digits = length, b""
    while count > 127:
        digits, count = digits + bytes([count & 127 | 128]), count >> 7
    with pytest.raises(TooLarge, match=f"{length} bytes once decompressed, at most {LIMIT}"):
        LOKI.take(request(digits + bytes([count]) + b"\0x", "application/x-protobuf"), ORIGIN)


@pytest.mark.parametrize("body", [b'{"streams":[]}', b'{"streams":[{"stream":{},"values":[]}]}'])
def test_a_push_of_nothing(body: bytes) -> None:
    assert push(body) == ([], [])


def test_answers() -> None:
    assert LOKI.refuse(503, "later", {}) == Answer(503, b"later\n", "text/plain")
    asked = Request("GET", "/ready", {}, {}, b"", 0)
    assert LOKI.ask["GET", "/ready"](asked).body == b"ready\n"
    assert "version" in json.loads(LOKI.ask["GET", "/loki/api/v1/status/buildinfo"](asked).body)


@pytest.mark.skipif(not VECTORS.is_dir(), reason=f"no folder {VECTORS}")
def test_what_python_logging_loki_sends() -> None:
    cases = json.loads((VECTORS / "wire_real_clients.json").read_text())
    bodies = [bytes.fromhex(case["payload_hex"]) for case in cases if "loki" in case["name"]]
    first, second = map(one, bodies)
    assert first.message == 'loki \u00dcn\u00efcode \u2713 "quoted" tab\there'
    assert (first.service, first.environment, first.severity) == ("svc", "t\u00e9", 6)
    assert first.timestamp == datetime(2026, 11, 21, 23, 15, 13, 613661, tzinfo=UTC)
    assert rest(first) == {"app": "x-app", "logger": "c1795302913613505982"}
    assert (second.service, second.severity, second.message) == ("x-app", 3, "second")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["streams", "stream", "values", "ts", "line", "level", "k"]), inner)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(st.lists(anything, max_size=4), anything)
def test_any_json_gives_records_rejects_or_malformed(values: list[Any], labels: Any) -> None:
    body = stream(labels, [NANOS, "good"], *values)
    records, rejects = push(json.dumps(body).encode(errors="surrogatepass"))
    assert records[0].message == "good"
    assert len(records) + len(rejects) == 1 + len(values)
    for record in records:
        assert "\0" not in record.message + (record.attributes or "")
        (record.message + (record.attributes or "")).encode()


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=40), st.booleans(), st.sampled_from(["application/json", "application/x-protobuf", ""]))
def test_any_bytes_are_taken_or_refused(body: bytes, pack: bool, kind: str) -> None:
    body = bytes(cramjam.snappy.compress_raw(body)) if pack else body
    try:
        LOKI.take(request(body, kind), ORIGIN)
    except (Malformed, TooLarge) as error:
        str(error).encode()

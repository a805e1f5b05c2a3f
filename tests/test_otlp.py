import json
from datetime import UTC, datetime
from typing import Any

import pytest

from logagg.protocols.http import Answer, Malformed, Request
from logagg.protocols.otlp import OTLP, PROTOBUF
from logagg.protocols.otlp_protobuf import PROTO
from logagg.protocols.record import Decoded, Origin, Record

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
THEN = datetime(2026, 10, 11, 22, 14, 15, 3000, tzinfo=UTC)
NANOS = 1791756855003000999
ORIGIN = Origin(NOW, "otlp", "192.0.2.9", "staging")
JSON = "application/json"


def export(body: Any, kind: str = JSON) -> Decoded:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    taken = OTLP.take(Request("POST", "/v1/logs", {}, {"content-type": kind}, data, 1_000_000), ORIGIN)
    assert taken.answer == (Answer(200, b"", PROTOBUF) if kind == PROTOBUF else Answer(200, b"{}", JSON))
    assert isinstance(taken.decoded, Decoded)
    return taken.decoded


def one(log: Any, resource: Any = None, scope: Any = None) -> Record:
    (record,), rejects = export(
        {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": scope, "logRecords": [log]}]}]}
    )
    assert rejects == []
    return record


def rest(record: Record) -> Any:
    return json.loads(record.attributes) if record.attributes is not None else {}


def pairs(**values: Any) -> list[Any]:
    return [{"key": name.replace("_", "."), "value": value} for name, value in values.items()]


def text(value: str) -> dict[str, str]:
    return {"stringValue": value}


def protobuf(log: dict[str, Any], resource: dict[str, Any] | None = None, scope: dict[str, Any] | None = None) -> bytes:
    of_scope = {"scope": scope or {}, "log_records": [log]}
    of_resource = {"resource": resource or {}, "scope_logs": [of_scope]}
    return bytes(PROTO["ExportLogsServiceRequest"](resource_logs=[of_resource]).SerializeToString())


ATTRIBUTES = pairs(
    user_id={"intValue": "42"},
    ok={"boolValue": True},
    ratio={"doubleValue": 0.5},
    list={"arrayValue": {"values": [text("a"), {"intValue": 1}]}},
    map={"kvlistValue": {"values": pairs(inner=text("x"))}},
    bytes={"bytesValue": "AAH/"},
    nothing={},
)
LOG = {
    "timeUnixNano": str(NANOS),
    "observedTimeUnixNano": str(NANOS + 5),
    "severityNumber": 17,
    "severityText": "ERROR",
    "body": text("it failed"),
    "attributes": ATTRIBUTES,
    "traceId": "5B8EFFF798038103D269B633813FC60C",
    "spanId": "eee19b7ec3c1b174",
    "flags": 1,
    "eventName": "failure",
    "droppedAttributesCount": 2,
}
RESOURCE = {
    "attributes": pairs(
        service_name=text("shop"),
        host_name=text("h1"),
        deployment_environment_name=text("production"),
        os_type=text("linux"),
    )
}
SCOPE = {"name": "lib", "version": "1.0", "attributes": pairs(scope_k=text("v"))}
EXPECTED = Record(
    timestamp=THEN,
    received_at=NOW,
    severity=3,
    facility=None,
    environment="production",
    host="h1",
    service="shop",
    source="192.0.2.9",
    message="it failed",
    attributes=None,
    trace_id="5b8efff798038103d269b633813fc60c",
    span_id="eee19b7ec3c1b174",
    raw=None,
)
EXPECTED_REST = {
    "os.type": "linux",
    "scope.k": "v",
    "otel.scope.name": "lib",
    "otel.scope.version": "1.0",
    "user.id": 42,
    "ok": True,
    "ratio": 0.5,
    "list": ["a", 1],
    "map": {"inner": "x"},
    "bytes": "AAH/",
    "nothing": None,
    "flags": 1,
    "event_name": "failure",
    "dropped_attributes_count": 2,
}


def to_protobuf(pair: Any) -> Any:
    """The same attribute in the terms of the .proto file."""
    kind: str
    value: Any
    kind, value = next(iter(pair["value"].items()), ("", ""))
    match kind:
        case "":
            made: Any = {}
        case "stringValue":
            made = {"string_value": value.encode()}
        case "intValue":
            made = {"int_value": int(value)}
        case "arrayValue":
            made = {"array_value": {"values": [{"string_value": b"a"}, {"int_value": 1}]}}
        case "kvlistValue":
            made = {"kvlist_value": {"values": list(map(to_protobuf, value["values"]))}}
        case "bytesValue":
            made = {"bytes_value": b"\0\1\xff"}
        case _:
            made = {kind.replace("V", "_v"): value}
    return {"key": pair["key"].encode(), "value": made}


LOG_PROTOBUF: dict[str, Any] = {
    "time": NANOS,
    "observed": NANOS + 5,
    "severity_number": 17,
    "severity_text": b"ERROR",
    "body": {"string_value": b"it failed"},
    "attributes": list(map(to_protobuf, ATTRIBUTES)),
    "trace_id": bytes.fromhex("5b8efff798038103d269b633813fc60c"),
    "span_id": bytes.fromhex("eee19b7ec3c1b174"),
    "flags": 1,
    "event_name": b"failure",
    "dropped": 2,
}


def test_json() -> None:
    record = one(LOG, RESOURCE, SCOPE)
    assert (record._replace(attributes=None), rest(record)) == (EXPECTED, EXPECTED_REST)


def test_names_of_the_proto_file_in_json() -> None:
    body = json.dumps({"resourceLogs": [{"resource": RESOURCE, "scopeLogs": [{"scope": SCOPE, "logRecords": [LOG]}]}]})
    for name in ("resourceLogs", "scopeLogs", "logRecords", *LOG, "stringValue", "intValue", "kvlistValue"):
        body = body.replace(f'"{name}"', json.dumps("".join(f"_{c.lower()}" if c.isupper() else c for c in name)))
    (record,), _ = export(body.encode())
    assert rest(record) == EXPECTED_REST


def test_protobuf() -> None:
    resource = {"attributes": list(map(to_protobuf, RESOURCE["attributes"]))}
    scope = {"name": b"lib", "version": b"1.0", "attributes": list(map(to_protobuf, SCOPE["attributes"]))}
    (record,), rejects = export(protobuf(LOG_PROTOBUF, resource, scope), PROTOBUF)
    assert rejects == []
    assert (record._replace(attributes=None), rest(record)) == (EXPECTED, EXPECTED_REST)


@pytest.mark.parametrize(
    ("number", "said", "severity", "kept"),
    [
        (1, "TRACE", 7, {"severity_number": 1}),
        (5, "", 7, {}),
        (9, "INFO", 6, {}),
        (10, "Information", 6, {"severity_number": 10}),
        (13, "WARN", 4, {}),
        (17, "ERROR", 3, {}),
        (21, "FATAL", 2, {}),
        (24, "", 2, {"severity_number": 24}),
        (9, "Notice", 6, {"severity_text": "Notice"}),
        (9, "weird", 6, {"severity_text": "weird"}),
        ("SEVERITY_NUMBER_WARN", "", 4, {}),
        ("SEVERITY_NUMBER_ERROR2", "", 3, {"severity_number": 18}),
        ("13", "", 4, {}),
        (0, "warning", 4, {}),
        (None, "", 6, {}),
        (99, "", 6, {"severity_number": 99}),
        ([], "", 6, {}),
    ],
)
def test_severity(number: Any, said: str, severity: int, kept: Any) -> None:
    record = one({"severityNumber": number, "severityText": said, "body": text("x")})
    assert record.severity == severity
    assert rest(record) == kept or rest(record) == {**kept, "logagg_note": "unknown level"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (text("x"), "x"),
        (text(""), ""),
        ({"intValue": 42}, "42"),
        ({"doubleValue": 3.14}, "3.14"),
        ({"boolValue": True}, "true"),
        ({"arrayValue": {"values": [text("a"), {}]}}, '["a",null]'),
        ({"kvlistValue": {"values": pairs(k=text("v"))}}, '{"k":"v"}'),
        ({"doubleValue": "NaN"}, "NaN"),
        (["bare"], '["bare"]'),
        ("bare", "bare"),
    ],
)
def test_the_body(body: Any, message: str) -> None:
    assert one({"body": body}).message == message


def test_without_a_body_it_is_told_by_other_names() -> None:
    assert one({"eventName": "started"}).message == "started"
    assert one({"attributes": pairs(message=text("of an attribute"))}).message == "of an attribute"
    assert rest(one({})) == {"logagg_note": "no message"}


def test_an_attribute_named_as_a_field_of_the_record_is_kept() -> None:
    record = one({"body": text("m"), "severityNumber": 9, "attributes": pairs(message=text("x"), level=text("y"))})
    assert (record.message, record.severity) == ("m", 6)
    assert rest(record) == {"attribute.message": "x", "attribute.level": "y"}


def test_an_attribute_of_resource_and_record_is_kept_twice() -> None:
    record = one(
        {"body": text("m"), "attributes": pairs(host_name=text("inner"), k=text("same"))},
        {"attributes": pairs(host_name=text("outer"), k=text("same"))},
    )
    assert (record.host, rest(record)) == ("inner", {"resource.host.name": "outer", "k": "same"})


@pytest.mark.parametrize(
    ("given_", "time", "kept"),
    [
        ({"timeUnixNano": str(NANOS)}, THEN, {}),
        ({"timeUnixNano": NANOS}, THEN, {}),
        ({"timeUnixNano": "0", "observedTimeUnixNano": NANOS}, THEN, {}),
        ({"timeUnixNano": 0}, NOW, {}),
        ({}, NOW, {}),
        ({"timeUnixNano": "1000"}, datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), {}),
        ({"timeUnixNano": NANOS, "observedTimeUnixNano": NANOS + 999_999_999}, THEN, {}),
        (
            {"timeUnixNano": NANOS, "observedTimeUnixNano": NANOS + 1_000_000_000},
            THEN,
            {"observed_timestamp": "2026-10-11T22:14:16.003000Z"},
        ),
        ({"timeUnixNano": "soon"}, NOW, {"timestamp": "soon", "logagg_note": "timestamp not understood"}),
        ({"timeUnixNano": 10**30}, NOW, {"timestamp": 10**30, "logagg_note": "timestamp out of range"}),
    ],
)
def test_times(given_: Any, time: datetime, kept: Any) -> None:
    record = one({"body": text("x"), **given_})
    assert (record.timestamp, rest(record)) == (time, kept)


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ("5B8EFFF798038103D269B633813FC60C", "5b8efff798038103d269b633813fc60c"),
        ("xBPVtf6jZXMl/2YzIMf9EA==", "c413d5b5fea3657325ff663320c7fd10"),
        ("", None),
        (None, None),
        ("not hexadecimal", "not hexadecimal"),
        ("invalid-base64", "invalid-base64"),
        (7, "7"),
    ],
)
def test_ids(given_: Any, kept: str | None) -> None:
    assert one({"body": text("x"), "traceId": given_}).trace_id == kept


@pytest.mark.parametrize(
    ("attributes", "kept"),
    [
        ("odd", {"attributes": "odd"}),
        ({"k": text("v")}, {"attributes": {"k": text("v")}}),
        (
            [{"key": "k", "value": "bare"}, 7, {"value": text("v")}],
            {"k": "bare", "attributes": [7, {"value": text("v")}]},
        ),
        ([{"key": "k", "value": {"a": text("v"), "b": {"intValue": 2}}}], {"k": {"a": "v", "b": 2}}),
        ([{"key": "k", "value": {"intValue": "x"}}], {"k": "x"}),
        ([{"key": "k", "value": {"doubleValue": "1.5"}}], {"k": 1.5}),
        ([{"key": "k", "value": {"kvlistValue": {}}}], {"k": {}}),
        ([{"key": "k", "value": {"arrayValue": 7}}], {"k": 7}),
    ],
)
def test_odd_attributes_are_kept(attributes: Any, kept: Any) -> None:
    assert rest(one({"body": text("x"), "attributes": attributes})) == kept


def test_what_is_no_record_costs_no_neighbour() -> None:
    good = {"logRecords": [{"body": text("a")}, 7, {"body": text("b")}]}
    body = {"resourceLogs": [{"scopeLogs": [good, {"logRecords": {}}]}, "odd", {"scopeLogs": 5}, {"scopeLogs": [None]}]}
    records, rejects = export(body)
    assert [record.message for record in records] == ["a", "b"]
    assert [(reject.reason, reject.raw) for reject in rejects] == [
        ("JSON number, expected a log record", b"7"),
        ("expected an object with an array logRecords", b'{"logRecords":{}}'),
        ("expected an object with an array scopeLogs", b'"odd"'),
        ("expected an object with an array scopeLogs", b'{"scopeLogs":5}'),
    ]


def test_what_is_nested_too_deeply_costs_no_neighbour() -> None:
    deep = b'{"arrayValue":{"values":[' * 320 + b"{}" + b"]}}" * 320
    body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":%b},{"body":{"stringValue":"good"}}]}]}]}' % deep
    records, rejects = export(body)
    assert len(records) + len(rejects) == 2
    assert records[-1].message == "good"


def test_bad_bytes_are_replaced_and_kept_in_json() -> None:
    logs = b'{"body":{"stringValue":"a\xff"}},{"body":{"stringValue":"b"}}'
    body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%b]}]}]}' % logs
    first, second = export(body).records
    assert (first.message, first.raw, second.message, second.raw) == ("a\ufffd", body, "b", None)


def test_bad_bytes_are_replaced_and_kept_in_protobuf() -> None:
    attribute = {"key": b"k\xff", "value": {"double_value": float("nan")}}
    log = {"body": {"string_value": b"a\xff\0"}, "attributes": [attribute]}
    resource = {"attributes": [{"key": b"r", "value": {"string_value": b"\xff"}}]}
    (record,), _ = export(protobuf(log), PROTOBUF)
    assert (record.message, rest(record)) == ("a\ufffd\ufffd", {"k\ufffd": "NaN"})
    assert record.raw == PROTO["LogRecord"](**log).SerializeToString()
    (record,), _ = export(protobuf({"body": {"string_value": b"a"}}, resource), PROTOBUF)
    assert (rest(record), record.raw) == ({"r": "\ufffd"}, PROTO["Resource"](**resource).SerializeToString())


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"", JSON, "body of 0 bytes"),
        (b"{", JSON, "invalid JSON"),
        (b'"not_an_object"', JSON, "JSON string, expected an object"),
        (b"[]", JSON, "JSON array, expected an object"),
        (b"[" * 100_000, JSON, "nested too deeply"),
        (b'{"resourceLogs":["x"]}', JSON, "no log record in a body of 22 bytes: expected an object"),
        (b"nonsense", PROTOBUF, "no ExportLogsServiceRequest in protobuf"),
        (protobuf(LOG_PROTOBUF)[:-1], PROTOBUF, "no ExportLogsServiceRequest in protobuf"),
    ],
)
def test_what_can_never_be_read(body: bytes, kind: str, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        export(body, kind)


@pytest.mark.parametrize(("body", "kind"), [(b"{}", JSON), (b'{"resourceLogs":[]}', JSON), (b"", PROTOBUF)])
def test_a_request_of_nothing(body: bytes, kind: str) -> None:
    assert export(body, kind) == ([], [])


def test_a_refusal_is_a_status() -> None:
    assert OTLP.refuse(503, "later", {}).body == b"\x08\x0e\x12\x05later"
    answer = OTLP.refuse(503, "later", {"content-type": "application/json"})
    assert (answer.status, json.loads(answer.body)) == (503, {"code": 14, "message": "later"})

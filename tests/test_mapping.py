import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols import mapping
from logagg.protocols.json_lines import decode_lines
from logagg.protocols.mapping import FIELDS, add_note, from_object
from logagg.protocols.record import LEVELS, NOTE, Origin, Record

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
THEN = datetime(2026, 10, 11, 22, 14, 15, 3000, tzinfo=UTC)
ORIGIN = Origin(NOW, "tcp", "192.0.2.9", "staging")
GOOD = b'{"timestamp":"2026-10-11T22:14:15.003Z","level":"ERROR","message":"good"}'


def one(obj: dict[str, Any] | bytes) -> Record:
    (record,), rejects = decode_lines([obj if isinstance(obj, bytes) else json.dumps(obj).encode()], ORIGIN)
    assert rejects == []
    return record


def rest(record: Record) -> Any:
    return json.loads(record.attributes) if record.attributes is not None else None


def test_every_canonical_name() -> None:
    obj = {
        "timestamp": "2026-10-11T22:14:15.003Z",
        "level": "ERROR",
        "message": "m",
        "service": "api",
        "host": "web-1",
        "environment": "production",
        "source": "pay",
        "facility": "local0",
        "trace_id": "t",
        "span_id": "s",
        "user": {"id": 1},
    }
    assert one(obj) == Record(
        timestamp=THEN,
        received_at=NOW,
        severity=3,
        facility=16,
        environment="production",
        host="web-1",
        service="api",
        source="pay",
        message="m",
        attributes='{"user":{"id":1}}',
        trace_id="t",
        span_id="s",
        raw=None,
    )


def test_what_is_not_said() -> None:
    assert one(b'{"message":"m"}') == Record(
        NOW, NOW, 6, None, "staging", None, None, "192.0.2.9", "m", None, None, None, None
    )
    record = one(b"{}")
    assert (record.message, rest(record)) == ("", {NOTE: "no message"})


SAMPLES = {
    "timestamp": ("2026-10-11T22:14:15.003Z", THEN),
    "level": ("warn", 4),
    "message": ("text", "text"),
    "service": ("x", "x"),
    "host": ("x", "x"),
    "environment": ("x", "x"),
    "source": ("x", "x"),
    "facility": (3, 3),
    "trace_id": ("x", "x"),
    "span_id": ("x", "x"),
}


#: Names whose values are written in another way, or stay where they are.
NUMBERS = {"severity_number": 13, "severityNumber": 13, "SeverityNumber": 13, "otlp.severity_number": 13}
KEPT = {"logging.googleapis.com/trace": "x"}


@pytest.mark.parametrize(("field", "name"), [(field, name) for field, names in FIELDS.items() for name in names])
def test_every_name_of_the_table(field: str, name: str) -> None:
    value, expected = SAMPLES[field]
    value = NUMBERS.get(name, value)
    column = "severity" if field == "level" else field
    found = one({name: value, "k": 1})
    assert getattr(found, column) == expected
    kept = {name: KEPT[name]} if name in KEPT else {}
    assert rest(found) in ({"k": 1} | kept, {"k": 1, NOTE: "no message"} | kept)
    outer, dot, inner = name.partition(".")
    if dot:
        nested = one({outer: {inner: value, "more": 2}})
        assert getattr(nested, column) == expected
        assert rest(nested)[outer] == {"more": 2} | ({inner: value} if kept else {})
        if field != "message" and not kept:
            assert outer not in (rest(one({outer: {inner: value}, "message": "m"})) or {})


def test_the_canonical_name_wins_and_the_other_stays() -> None:
    record = one(
        {"msg": "b", "message": "a", "app": "x", "service": "y", "time": "2020-01-01", "timestamp": THEN.isoformat()}
    )
    assert (record.message, record.service, record.timestamp) == ("a", "y", THEN)
    assert rest(record) == {"msg": "b", "app": "x", "time": "2020-01-01"}


def test_a_value_that_cannot_be_used_leaves_the_field_to_the_next_name() -> None:
    record = one({"level": "purple", "severity": "error", "service": {"version": 1}, "app": "x", "message": "m"})
    assert (record.severity, record.service) == (3, "x")
    assert rest(record) == {"level": "purple", "service": {"version": 1}}


@pytest.mark.parametrize(
    ("obj", "note"),
    [
        ({"message": "m", "level": "purple"}, "unknown level"),
        ({"message": "m", "level": 70}, "unknown level"),
        ({"message": "m", "timestamp": "300000-01-01T00:00:00Z"}, "timestamp out of range"),
        ({"message": "m", "timestamp": 1e21}, "timestamp out of range"),
        ({"message": "m", "timestamp": "soon"}, "timestamp not understood"),
        ({"message": "m", "@timestamp": {"year": 5}}, "timestamp not understood"),
        ({"level": "purple", "ts": "soon", "body": {"a": 1}}, "timestamp not understood; unknown level; no message"),
    ],
)
def test_what_was_not_understood_is_kept_and_marked(obj: dict[str, Any], note: str) -> None:
    record = one(obj)
    assert (record.timestamp, record.severity) == (NOW, 6)
    assert rest(record) == {**{key: value for key, value in obj.items() if key != "message"}, NOTE: note}


@pytest.mark.parametrize(
    ("value", "message"),
    [(42, "42"), (1.5, "1.5"), (True, "true"), ({"a": [1, "é"]}, '{"a":[1,"é"]}'), ([], "[]"), ("", "")],
)
def test_a_message_that_is_no_text_is_its_json(value: Any, message: str) -> None:
    record = one({"message": value})
    assert (record.message, record.attributes) == (message, None)


def test_null_and_empty_say_nothing() -> None:
    obj = dict.fromkeys(FIELDS) | {"message": "m", "app": "", "k": None}
    assert (one(obj).service, one(obj).source, rest(one(obj))) == (None, "192.0.2.9", {"k": None})
    plain = {"timestamp": THEN.isoformat(), "level": "INFO", "message": "m", "service": "", "host": None}
    assert (one(plain).service, one(plain).host, one(plain).attributes) == (None, None, None)


def test_real_shapes() -> None:
    pino = one(b'{"level":30,"time":1791756855003,"pid":1,"hostname":"h","msg":"hello"}')
    assert (pino.severity, pino.timestamp, pino.host, pino.message, rest(pino)) == (6, THEN, "h", "hello", {"pid": 1})
    fluent = one(b'{"date":1791756855.003,"log":"line","kubernetes":{"container_name":"api","pod_name":"p"}}')
    assert (fluent.timestamp, fluent.message, fluent.service) == (THEN, "line", "api")
    assert rest(fluent) == {"kubernetes": {"pod_name": "p"}}
    journal = one(
        b'{"__REALTIME_TIMESTAMP":"1791756855003000","PRIORITY":"3","MESSAGE":"x","_HOSTNAME":"h","SYSLOG_FACILITY":"3"}'
    )
    assert (journal.timestamp, journal.severity, journal.message, journal.host, journal.facility) == (
        THEN,
        3,
        "x",
        "h",
        3,
    )
    ecs = one(
        b'{"@timestamp":"2026-10-11T22:14:15.003Z","log":{"level":"warn"},"message":"x","service":{"name":"a"},"trace":{"id":"t"}}'
    )
    assert (ecs.timestamp, ecs.severity, ecs.service, ecs.trace_id, ecs.attributes) == (THEN, 4, "a", "t", None)
    seed = one(
        b'{"timestamp":"2026-10-11T22:14:15.003Z","level":"CRITICAL","message":"x","source":"s","metadata":{"a":1}}'
    )
    assert (LEVELS[seed.severity], seed.source, rest(seed)) == ("CRITICAL", "s", {"metadata": {"a": 1}})


def test_notes_are_added() -> None:
    record = add_note(one({"message": "m"}), "cut")
    assert rest(record) == {NOTE: "cut"}
    assert rest(add_note(record, "odd")) == {NOTE: "cut; odd"}
    assert rest(add_note(one({"message": "m", "k": 1}), "cut")) == {"k": 1, NOTE: "cut"}


usual = st.sampled_from(
    ["2026-10-11T22:14:15.003Z", "2026-10-11T22:14:15", "20261011", "INFO", "error", "", "x", 5, 30, None]
)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(list(FIELDS)[:6]) | st.sampled_from(["k", "msg"]), usual, max_size=7))
def test_the_short_way_gives_what_the_long_way_gives(obj: dict[str, Any]) -> None:
    obj = {"timestamp": "2026-10-11T22:14:15.003Z", "level": "INFO", "message": "m", **obj}
    assert from_object(dict(obj), ORIGIN) == mapping._long_way(dict(obj), ORIGIN, None)

"""Pushes of Loki and OTLP by columns: what comes of them is what the reference makes of one record after the other."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols import group_columns, loki
from logagg.protocols.columns import Columnar, to_records
from logagg.protocols.http import HttpProtocol, Malformed, Request
from logagg.protocols.loki import LOKI
from logagg.protocols.otlp import OTLP
from logagg.protocols.otlp_protobuf import PROTO
from logagg.protocols.record import Origin

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORIGIN = Origin(NOW, "test", "192.0.2.9", "staging")
NANOS = 1791756855003000999
JSON, PROTOBUF = "application/json", "application/x-protobuf"
FEW = group_columns.FEW

Body = tuple[HttpProtocol, str, bytes]


def taken(body: Body, few: int) -> Any:
    """What comes of a body where so many records are few; and whether it came by columns."""
    protocol, kind, data = body
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_columns, "FEW", few)
        try:
            decoded = protocol.take(Request("POST", "/", {}, {"content-type": kind}, data, 1 << 24), ORIGIN).decoded
        except Malformed as error:
            return str(error), False
    if isinstance(decoded, Columnar):
        return (to_records(decoded.records), decoded.rejects), True
    return decoded, False


def as_json(protocol: HttpProtocol, value: Any) -> Body:
    return protocol, JSON, json.dumps(value).encode()


# What makes a body: the same terms for JSON and protobuf, as far as both have them.

names = st.sampled_from(
    ["k", "user", "a.b", "level", "host", "name", "severity", "status", "trace_id", "labels", "msg"]
)
texts = st.sampled_from(["", "x", "error", "\\u0000", 'q"uote', "é", "INFO", "2026-01-01T00:00:00Z"])
odd_texts = texts | st.sampled_from(["a\0b", "\0"])
labels = st.dictionaries(names, texts, max_size=3)
# Mostly there are no odd parts: one would be enough to leave the way of columns.
own = st.dictionaries(names.filter(lambda name: name in {"k", "user", "a.b", "level", "trace_id"}), texts, max_size=3)
stamps = st.integers(1, 10**5).map(lambda more: NANOS + more * 10**7)


def mostly(usual: Any, odd: Any) -> Any:
    return st.integers(0, 100).flatmap(lambda dice: usual if dice else odd)


# Loki.

entries = mostly(
    st.tuples(stamps.map(str), texts, own).map(list) | st.tuples(stamps.map(str), texts).map(list),
    st.sampled_from([["0", "x"], ["soon", "x"], [NANOS, "x"], [str(NANOS), 5], [str(NANOS)], 7, {"ts": 1, "line": "l"}])
    | st.tuples(stamps.map(str), odd_texts, st.dictionaries(names, odd_texts | st.integers(), max_size=3)).map(list),
)
loki_json = st.lists(
    st.builds(lambda labels, values: {"stream": labels, "values": values}, labels, st.lists(entries, max_size=8)),
    min_size=1,
    max_size=4,
).map(lambda streams: as_json(LOKI, {"streams": streams}))


def label_text(pairs: dict[str, str]) -> bytes:
    return ("{" + ", ".join(f"{name}={json.dumps(value)}" for name, value in pairs.items()) + "}").encode()


def packed(streams: list[dict[str, Any]]) -> Body:
    data = loki._PROTO["PushRequest"](streams=streams).SerializeToString()
    return LOKI, PROTOBUF, bytes(cramjam.snappy.compress_raw(data))


def bad(text: str) -> bytes:
    return text.encode() + b"\xff"


pb_stamps = mostly(
    stamps.map(lambda nanos: {"seconds": nanos // 10**9, "nanos": nanos % 10**9}),
    st.sampled_from([{}, {"seconds": 2**60}, {"seconds": -(10**9)}, {"seconds": 5, "nanos": -1}]),
)
pb_texts = mostly(texts.map(str.encode), odd_texts.map(str.encode) | texts.map(bad))
pb_entries = st.builds(
    lambda stamp, line, metadata: {
        "timestamp": stamp, "line": line, "metadata": [{"name": k.encode(), "value": v} for k, v in metadata.items()],
    },
    pb_stamps, pb_texts, mostly(own.map(lambda own: {k: v.encode() for k, v in own.items()}),
                                st.dictionaries(names, pb_texts, max_size=3)),
)  # fmt: skip
loki_protobuf = st.lists(
    st.builds(
        lambda labels, entries: {"labels": labels, "entries": entries},
        mostly(labels.map(label_text), st.sampled_from([b"nonsense", b'{a="\\x00"}', b'{a="\xff"}', b'{a="\0"}'])),
        st.lists(pb_entries, max_size=8),
    ),
    min_size=1,
    max_size=4,
).map(packed)

# OTLP.

values = st.recursive(
    texts.map(lambda text: {"stringValue": text})
    | st.integers(-5, 2**63 - 1).map(lambda number: {"intValue": str(number)})
    | st.booleans().map(lambda value: {"boolValue": value})
    | st.sampled_from([0.5, 1e300, -0.0, 3.0]).map(lambda number: {"doubleValue": number})
    | st.just({}),
    lambda inner: st.lists(inner, max_size=2).map(lambda items: {"arrayValue": {"values": items}}),
    max_leaves=3,
)
odd_values = st.sampled_from(["bare", None, 7, {"stringValue": 5}, {"x": 1}, {"a": 1, "b": 2}, {"stringValue": "a\0"}])


def pairs(attributes: dict[str, Any]) -> list[Any]:
    return [{"key": name, "value": value} for name, value in attributes.items()]


otel_names = st.sampled_from(["k", "user", "a.b", "flags", "severity_text"])
attributes = mostly(
    st.dictionaries(otel_names, values, max_size=3).map(pairs),
    st.dictionaries(names, values | odd_values, max_size=3).map(pairs)
    | st.sampled_from([[7], "x", None, [{"key": 5}]]),
)
ids = st.sampled_from(["", "5B8EFFF798038103D269B633813FC60C", "xBPVtf6jZXMl/2YzIMf9EA=="])
logs = st.fixed_dictionaries(
    {
        "timeUnixNano": mostly(stamps.map(str), st.sampled_from(["0", "", "soon", None, 10**30, -5, NANOS, True])),
        "severityNumber": mostly(
            st.sampled_from([9, 10, 17]), st.sampled_from([0, "SEVERITY_NUMBER_WARN", 99, None, []])
        ),
        "body": mostly(texts.map(lambda text: {"stringValue": text}), values | odd_values),
    },
    optional={
        "attributes": attributes,
        "severityText": mostly(texts, st.sampled_from([5, "a\0"])),
        "observedTimeUnixNano": mostly(stamps.map(str), st.sampled_from([0, "soon"])),
        "traceId": mostly(ids, st.just(7)),
        "spanId": ids,
        "flags": mostly(st.integers(0, 2), st.sampled_from(["1", [1]])),
        "droppedAttributesCount": st.integers(0, 2),
        "eventName": mostly(texts, st.just("a\0")),
    },
)
scopes = st.fixed_dictionaries(
    {"logRecords": st.lists(mostly(logs, st.just(7)), max_size=8)},
    optional={"scope": st.fixed_dictionaries({"name": texts, "attributes": attributes})},
)
resources = st.fixed_dictionaries(
    {"scopeLogs": st.lists(scopes, max_size=2)},
    optional={"resource": st.fixed_dictionaries({"attributes": attributes})},
)
otlp_json = st.lists(mostly(resources, st.sampled_from(["odd", {"scopeLogs": 5}])), min_size=1, max_size=3).map(
    lambda resources: as_json(OTLP, {"resourceLogs": resources})
)

pb_values = st.one_of(
    pb_texts.map(lambda text: {"string_value": text}),
    st.integers(-5, 2**63 - 1).map(lambda number: {"int_value": number}),
    st.sampled_from([0.5, 1e300, -0.0, float("nan")]).map(lambda number: {"double_value": number}),
    st.sampled_from([{}, {"bool_value": False}, {"bytes_value": b"\xff"}]),
    st.lists(pb_texts, max_size=2).map(lambda items: {"array_value": {"values": [{"string_value": t} for t in items]}}),
)
pb_attributes = st.lists(
    st.builds(
        lambda key, value: {"key": key, "value": value},
        mostly(otel_names.map(str.encode), names.map(str.encode) | pb_texts),
        pb_values,
    ),
    max_size=3,
)
pb_logs = st.fixed_dictionaries(
    {
        "time": mostly(stamps, st.sampled_from([0, 5, 2**63])),
        "severity_number": mostly(st.sampled_from([9, 10, 17]), st.sampled_from([0, 99, -1])),
        "body": mostly(pb_texts.map(lambda text: {"string_value": text}), pb_values),
    },
    optional={
        "attributes": pb_attributes,
        "severity_text": pb_texts,
        "observed": mostly(stamps, st.just(0)),
        "trace_id": st.sampled_from([b"", b"\xff\0" * 8]),
        "span_id": st.sampled_from([b"", b"\xff\0" * 4]),
        "flags": st.integers(0, 2),
        "dropped": st.integers(0, 2),
        "event_name": pb_texts,
    },
)
pb_scopes = st.fixed_dictionaries(
    {"log_records": st.lists(pb_logs, max_size=8)},
    optional={"scope": st.fixed_dictionaries({"name": pb_texts, "attributes": pb_attributes})},
)
otlp_protobuf = st.lists(
    st.fixed_dictionaries(
        {"scope_logs": st.lists(pb_scopes, max_size=2)},
        optional={"resource": st.fixed_dictionaries({"attributes": pb_attributes})},
    ),
    min_size=1,
    max_size=3,
).map(lambda sent: (OTLP, PROTOBUF, PROTO["ExportLogsServiceRequest"](resource_logs=sent).SerializeToString()))


@settings(deadline=None, max_examples=300)
@given(st.one_of(loki_json, loki_protobuf, otlp_json, otlp_protobuf))
def test_columns_are_what_one_record_after_the_other_gives(body: Body) -> None:
    assert taken(body, 1)[0] == taken(body, 1 << 30)[0]


# Many records: which way they go, and where.


def loki_of(entry: Callable[[int], Any], count: int = 2 * FEW) -> Body:
    return as_json(LOKI, {"streams": [
        {"stream": {"app": f"app-{part}", "k": "common"}, "values": [entry(n) for n in range(part, count, 2)]}
        for part in range(2)
    ]})  # fmt: skip


def loki_protobuf_of(entry: Callable[[int], Any], count: int = 2 * FEW) -> Body:
    return packed([{"labels": b'{app="a", k="common"}', "entries": [entry(n) for n in range(count)]}])


def otlp_of(log: Callable[[int], Any], count: int = 2 * FEW) -> Body:
    resource = {"attributes": pairs({"service.name": {"stringValue": "shop"}, "k": {"intValue": "5"}})}
    scope = {"scope": {"name": "lib"}, "logRecords": [log(number) for number in range(count)]}
    return as_json(OTLP, {"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]})


def otlp_protobuf_of(log: Callable[[int], Any], count: int = 2 * FEW) -> Body:
    resource = {"attributes": [{"key": b"service.name", "value": {"string_value": b"shop"}}]}
    scope = {"scope": {"name": b"lib"}, "log_records": [log(number) for number in range(count)]}
    sent = [{"resource": resource, "scope_logs": [scope]}]
    return OTLP, PROTOBUF, PROTO["ExportLogsServiceRequest"](resource_logs=sent).SerializeToString()


def usual(number: int) -> dict[str, Any]:
    """A log record as the SDKs send it, some of them a level in between, or observed late."""
    return {
        "timeUnixNano": str(NANOS + number), "observedTimeUnixNano": str(NANOS + number * 10**8),
        "severityNumber": 9 + number % 2, "severityText": "INFO", "body": {"stringValue": f"message {number}"},
        "attributes": pairs({"code.line": {"intValue": str(number)}, "user": {"stringValue": "u"}}),
        "traceId": f"{number:032x}", "spanId": f"{number:016x}", "flags": 1,
    }  # fmt: skip


def usual_protobuf(number: int) -> dict[str, Any]:
    return {
        "time": NANOS + number, "observed": NANOS + number * 10**8, "severity_number": 9 + number % 2,
        "severity_text": b"INFO", "body": {"string_value": b"message %d" % number}, "flags": 1,
        "attributes": [{"key": b"user", "value": {"string_value": b"u"}}, {"key": b"n", "value": {"int_value": 5}}],
        "trace_id": number.to_bytes(16, "big"), "span_id": number.to_bytes(8, "big"),
    }  # fmt: skip


def usual_entry(number: int) -> list[Any]:
    return [str(NANOS + number), f"message {number}", {"level": "warn", "user": "u", "trace_id": f"t{number}"}]


def usual_entry_protobuf(number: int) -> dict[str, Any]:
    metadata = [{"name": b"detected_level", "value": b"warn"}, {"name": b"user", "value": b"%d" % number}]
    stamp = {"seconds": 1791756855, "nanos": number}
    return {"timestamp": stamp, "line": b"message %d" % number, "metadata": metadata}


def one_in_ten(usual: Callable[[int], Any], odd: dict[str, Any]) -> Callable[[int], Any]:
    return lambda number: usual(number) if number % 10 else usual(number) | odd


BODIES = {
    "Loki, JSON": loki_of(usual_entry),
    "Loki, JSON without metadata": loki_of(lambda number: [str(NANOS + number), f"message {number}"]),
    "Loki, JSON with odd names": loki_of(
        lambda number: [*usual_entry(number)[:2], {"k": "own", "app": "x"} if number % 10 == 0 else {}]
    ),
    "Loki, JSON with two levels": as_json(
        LOKI,
        {
            "streams": [
                {
                    "stream": {"severity": "error"},
                    "values": [usual_entry(number)[: 2 + (number % 10 == 0)] for number in range(FEW)],
                }
            ]
        },
    ),
    "Loki, protobuf": loki_protobuf_of(usual_entry_protobuf),
    "Loki, protobuf without times": loki_protobuf_of(one_in_ten(usual_entry_protobuf, {"timestamp": {}})),
    "OTLP, JSON": otlp_of(usual),
    "OTLP, JSON with other bodies": otlp_of(one_in_ten(usual, {"body": {"kvlistValue": {"values": []}}})),
    "OTLP, JSON without a body": otlp_of(one_in_ten(usual, {"body": None})),
    "OTLP, JSON without a time": otlp_of(one_in_ten(usual, {"timeUnixNano": 0, "observedTimeUnixNano": "0"})),
    "OTLP, JSON without a severity": otlp_of(one_in_ten(usual, {"severityNumber": 0, "severityText": ""})),
    "OTLP, JSON with odd names": otlp_of(
        one_in_ten(usual, {"attributes": pairs({"k": {"intValue": 6}, "host.name": {"stringValue": "h"}})})
    ),
    "OTLP, protobuf": otlp_protobuf_of(usual_protobuf),
    "OTLP, protobuf with other bodies": otlp_protobuf_of(one_in_ten(usual_protobuf, {"body": {"int_value": 5}})),
    "OTLP, protobuf without a body": otlp_protobuf_of(one_in_ten(usual_protobuf, {"body": {}, "event_name": b"e"})),
}


@pytest.mark.parametrize("name", BODIES)
def test_many_go_by_columns_and_stay_in_order(name: str) -> None:
    (records, rejects), by_columns = taken(BODIES[name], FEW)
    assert by_columns
    assert rejects == []
    assert ((records, []), False) == taken(BODIES[name], 1 << 30)


@pytest.mark.parametrize(
    "body",
    [
        loki_of(usual_entry, FEW - 1),
        otlp_of(usual, FEW - 1),
        loki_of(lambda number: usual_entry(number) if number else [str(NANOS)]),
        otlp_of(lambda number: usual(number) if number else 7),
        otlp_of(lambda number: usual(number) | {"attributes": pairs({"host": {"stringValue": "h"}})}),
        otlp_protobuf_of(one_in_ten(usual_protobuf, {"body": {"string_value": b"\xff"}})),
        otlp_protobuf_of(one_in_ten(usual_protobuf, {"body": {"string_value": b"\0"}})),
        otlp_protobuf_of(one_in_ten(usual_protobuf, {"severity_text": b"\0"})),
        loki_protobuf_of(one_in_ten(usual_entry_protobuf, {"line": b"\xff"})),
        loki_protobuf_of(one_in_ten(usual_entry_protobuf, {"metadata": [{"name": b"k", "value": b"\0"}]})),
    ],
)
def test_what_is_few_or_odd_goes_one_by_one(body: Body) -> None:
    made, by_columns = taken(body, FEW)
    assert not by_columns
    assert made == taken(body, 1 << 30)[0]

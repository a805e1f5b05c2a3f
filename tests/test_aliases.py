"""Lines as senders write them, each with what must come of it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sender_lines import LINES, THEN  # type: ignore[import-not-found]  # pytest has this folder on the path

from logagg.protocols import json_columns, json_lines
from logagg.protocols.columns import Columnar, to_records
from logagg.protocols.json_columns import FEW
from logagg.protocols.names import FIELDS, RULES, TREE, shape_of, tries
from logagg.protocols.record import NOTE, Origin, Record

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORIGIN = Origin(NOW, "http", "192.0.2.9", "staging")

#: What looks like a name of a sender and is none.
NAMESAKES: list[dict[str, Any]] = [
    {"message": "m", "name": "Ann"},
    {"message": "m", "name": "Ann", "level": "info"},
    {"message": "m", "status": "error"},
    {"message": "m", "status": 200, "type": "x", "kind": "y"},
    {
        "message": "m",
        "priority": 1,
        "t": 5,
        "s": "E",
        "c": 3,
        "job": "j",
        "container": "c",
        "trace": "t",
        "request": "r",
    },
    {"message": "m", "msec": 12, "pri": 3, "output": "o", "start_time": 7, "unixTime": 1},
]


def wanted(fields: dict[str, Any]) -> Record:
    """Without the attributes."""
    plain = Record(THEN, NOW, 6, None, "staging", None, None, "192.0.2.9", "it works", None, None, None, None)
    return plain._replace(**{**fields, "attributes": None})


@pytest.mark.parametrize(("line", "fields"), [pytest.param(*rest, id=name) for name, *rest in LINES])
def test_a_line_of_a_sender(line: str, fields: dict[str, Any]) -> None:
    (record,), rejects = json_lines.decode_lines([line.encode()], ORIGIN)
    assert rejects == []
    assert record._replace(attributes=None) == wanted(fields)
    assert (json.loads(record.attributes) if record.attributes else None) == fields.get("attributes")


#: Objects that are opened first, times without year, levels that no one knows.
ONE_BY_ONE = {
    *("fluent-bit from OpenTelemetry", "fluent-bit, gelf", "fluent-bit, syslog parser", "syslog-ng, without year"),
    "Monolog",
}


@pytest.mark.parametrize(("name", "line"), [pytest.param(*rest, id=rest[0]) for *rest, _ in LINES])
def test_many_lines_of_a_sender_are_columns(name: str, line: str) -> None:
    frames = [line.encode()] * FEW
    decoded = json_columns.decode_lines(frames, ORIGIN)
    assert isinstance(decoded, Columnar) == (name not in ONE_BY_ONE)
    found = to_records(decoded.records) if isinstance(decoded, Columnar) else decoded.records
    assert found == json_lines.decode_lines(frames, ORIGIN).records


@pytest.mark.parametrize("obj", NAMESAKES)
def test_a_namesake_stays_an_attribute(obj: dict[str, Any]) -> None:
    (record,), _ = json_lines.decode_lines([json.dumps(obj).encode()], ORIGIN)
    rest = json.loads(record.attributes or "{}")
    assert rest | {key: obj[key] for key in ("message", "level") if key in obj} == obj
    assert (record.service, record.timestamp, record.severity, record.trace_id) == (None, NOW, 6, None)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name} of {rule.sender}")
def test_a_name_in_company_counts_only_there(rule: Any) -> None:
    def counts(keys: set[str]) -> bool:
        shape = shape_of(dict.fromkeys(keys, "x"), TREE)
        return (rule.field, rule.name) in [
            (list(FIELDS)[each.field], each.key) for each in tries(shape) if not each.sure
        ]

    of_name = [company for other in RULES if other.name == rule.name for company in other.company]
    for company in rule.company:
        assert counts({rule.name, *company})
        for missing in company:
            less = company - {missing}
            assert not counts({rule.name, *less}) or any(other <= less for other in of_name)


parts = st.sampled_from([json.loads(line) for _, line, _ in LINES] + NAMESAKES)


@settings(max_examples=150, deadline=None)
@given(st.lists(parts, min_size=1, max_size=3), parts, parts, st.integers(0, 5))
def test_mixed_senders_are_the_same_either_way(
    most: list[dict[str, Any]], one: dict[str, Any], other: dict[str, Any], cut: int
) -> None:
    odd = {**one, **dict(list(other.items())[cut:])}
    base = {**most[0], **dict(list(most[-1].items())[: cut + 1])}
    frames = [json.dumps(each).encode() for each in [*[base] * FEW, odd, *most]]
    expected, decoded = json_lines.decode_lines(frames, ORIGIN), json_columns.decode_lines(frames, ORIGIN)
    found = to_records(decoded.records) if isinstance(decoded, Columnar) else decoded.records
    assert found == expected.records
    assert decoded.rejects == expected.rejects


def test_nothing_takes_the_place_of_what_is_there() -> None:
    line = b'{"short_message":"m","_k":1,"k":2,"__x":3,"_":4,"__internal__":{"log_metadata":{"k":5},"y":6}}'
    (record,), _ = json_lines.decode_lines([line], ORIGIN)
    assert json.loads(record.attributes or "") == {
        "_k": 1,
        "k": 2,
        "__x": 3,
        "_": 4,
        "__internal__": {"y": 6, "log_metadata": {"k": 5}},
    }
    assert NOTE not in (record.attributes or "")

from datetime import UTC, datetime
from typing import Any

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logagg.protocols.groups import Group
from logagg.protocols.mapping import from_object
from logagg.protocols.names import TREE
from logagg.protocols.record import LEVELS, Origin, Record

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
THEN = datetime(2026, 10, 11, 22, 14, 15, 3000, tzinfo=UTC)
ORIGIN = Origin(NOW, "loki", "192.0.2.9", "staging")
CANONICAL = frozenset({"timestamp", "message", "level", "trace_id", "span_id"})

names = st.sampled_from(sorted(TREE.keys() - CANONICAL)) | st.sampled_from(["k", "user", "a.b"])
values = st.sampled_from(["", "x", "error", "2026-01-01T00:00:00Z", 3, None, {"name": "inner"}, {"id": 1}])
objects = st.dictionaries(names, values, max_size=4)


def comparable(record: Record) -> Any:
    attributes = None if record.attributes is None else orjson.loads(record.attributes)
    return record._replace(attributes=None), attributes


@settings(deadline=None, max_examples=300)
@given(objects, objects, st.none() | st.integers(0, 7), st.sampled_from([(None, None), ("t", None), ("t", "s")]))
@example({"name": "n", "hostname": "h", "pid": 1}, {}, 3, (None, None))
@example({"job": "j"}, {"filename": "f"}, None, (None, None))
@example({"severity": "warn", "traceId": "x"}, {"k": 1}, 3, ("t", "s"))
def test_a_record_of_a_group_is_that_of_all_its_fields(
    common: dict[str, Any], own: dict[str, Any], severity: int | None, ids: tuple[str | None, str | None]
) -> None:
    own = {name: value for name, value in own.items() if name not in common}
    given_fields = {
        "timestamp": THEN.isoformat(),
        "message": "m",
        "level": None if severity is None else LEVELS[severity],
        "trace_id": ids[0],
        "span_id": ids[1],
    }
    obj = orjson.loads(orjson.dumps(common | own | {name: value for name, value in given_fields.items() if value}))
    made = Group(orjson.loads(orjson.dumps(common)), ORIGIN, "group").record(
        THEN, "m", orjson.loads(orjson.dumps(own)), severity, ids
    )
    assert comparable(made) == comparable(from_object(obj, ORIGIN))


def test_what_is_common_is_kept_beside_what_a_record_has_of_its_own() -> None:
    group = Group({"host": "outer", "k": 1, "message": "other"}, ORIGIN, "resource")
    first = group.record(THEN, "m", {"host": "inner", "k": 1})
    second = group.record(THEN, "m", {})
    assert (first.host, first.message) == ("inner", "m")
    assert orjson.loads(first.attributes or "") == {"resource.host": "outer", "resource.message": "other", "k": 1}
    assert (second.host, orjson.loads(second.attributes or "")) == ("outer", {"resource.message": "other", "k": 1})


def test_a_common_level_is_kept_beside_that_of_a_record() -> None:
    group = Group({"level": "warn"}, ORIGIN, "resource")
    own, common = group.record(THEN, "m", {}, severity=3), group.record(THEN, "m", {})
    assert (own.severity, own.attributes) == (3, '{"resource.level":"warn"}')
    assert (common.severity, common.attributes) == (4, None)


def test_inner_objects_of_what_is_common_are_not_used_up_by_the_first_record() -> None:
    group = Group({"service": {"name": "api", "version": 1}}, ORIGIN, "resource")
    for own in ({}, {"app": "x"}, {"app": "y"}):
        record = group.record(THEN, "m", dict(own))
        assert record.service == "api"
        assert orjson.loads(record.attributes or "") == {"service": {"version": 1}, **own}


def test_a_time_that_is_none_is_told() -> None:
    record = Group({}, ORIGIN, "stream").record("soon", "m", {})
    assert record.timestamp == NOW
    assert orjson.loads(record.attributes or "") == {
        "timestamp": "soon",
        "logagg_note": "timestamp not understood",
    }

"""Fluent events in msgpack: what becomes of times, names and values; that many at once and one by one are the same."""

import json
import math
import random
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.columns import Columnar, to_records
from logagg.protocols.fluent import Events, decode, decode_events, decode_msgpack_body
from logagg.protocols.json_columns import FEW
from logagg.protocols.msgpacked import MsgpackFramer, split
from logagg.protocols.record import NOTE, Decoded, Origin, Record

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORIGIN = Origin(NOW, "forward", "192.0.2.9", "prod")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AT = 1_732_000_000


def event_time(seconds: int, nanoseconds: int = 0) -> msgpack.ExtType:
    return msgpack.ExtType(0, struct.pack(">II", seconds, nanoseconds))


def pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, unicode_errors="surrogateescape")
    return packed


def records_of(decoded: Decoded | Columnar) -> Sequence[Record]:
    return to_records(decoded.records) if isinstance(decoded, Columnar) else decoded.records


def one(entry: Any) -> Record:
    decoded = decode_msgpack_body(entry if isinstance(entry, bytes) else pack(entry), ORIGIN)
    assert decoded.rejects == []
    [record] = records_of(decoded)
    return record


def attributes(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record.attributes or "{}")
    return found


def events(values: list[Any], tag: str = "") -> Events:
    return Events(tag, b"".join(map(pack, values)), len(values))


@pytest.mark.parametrize(
    ("time", "moment"),
    [
        (event_time(AT, 123_456_789), EPOCH + timedelta(seconds=AT, microseconds=123_456)),
        (event_time(86_400, 1_000), EPOCH + timedelta(days=1, microseconds=1)),
        (event_time(4_200_000_000), EPOCH + timedelta(seconds=4_200_000_000)),
        (AT, EPOCH + timedelta(seconds=AT)),
        (AT + 0.25, EPOCH + timedelta(seconds=AT + 0.25)),
        ([event_time(AT), {}], EPOCH + timedelta(seconds=AT)),
        (msgpack.Timestamp(AT, 5_000), EPOCH + timedelta(seconds=AT, microseconds=5)),
        (0, NOW),
        (event_time(0), NOW),
        (None, NOW),
    ],
)
def test_every_form_of_time_is_read(time: Any, moment: datetime) -> None:
    many = records_of(decode_msgpack_body(pack([time, {"log": "x"}]) * FEW, ORIGIN))

    assert one([time, {"log": "x"}]).timestamp == moment
    assert {record.timestamp for record in many} == {moment}


@pytest.mark.parametrize("time", [math.nan, math.inf, -1e300])
def test_a_number_that_is_no_time_is_noted_and_the_record_kept(time: float) -> None:
    record = one([time, {"log": "x"}])

    assert (record.timestamp, record.message) == (NOW, "x")
    assert "timestamp" in attributes(record)[NOTE]


def test_a_time_that_the_record_says_itself_wins_and_that_of_the_event_is_kept() -> None:
    record = one([event_time(AT), {"log": "x", "@timestamp": "2026-01-02T03:04:05Z"}])

    assert record.timestamp == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert attributes(record) == {"date": "2024-11-19T07:06:40+00:00"}


def test_metadata_of_an_event_becomes_attributes() -> None:
    assert attributes(one([[event_time(AT), {"trace": "t", "log": "not this"}], {"log": "x"}]))["trace"] == "t"


def test_what_a_group_of_fluent_bit_has_in_common_is_said_by_each_of_its_records() -> None:
    resource = {"resource": {"attributes": {"service.name": "pay"}}, "scope": {"name": "s"}}
    body = [
        [[event_time(0xFFFFFFFF), {"schema": "otlp"}], resource],
        [[event_time(AT), {}], {"log": "one"}],
        [[event_time(AT), {}], {"log": "two"}],
        [[event_time(0xFFFFFFFE), {}], {}],
        [[event_time(AT), {}], {"log": "three"}],
    ]

    decoded = decode_msgpack_body(b"".join(map(pack, body)), ORIGIN)

    records = records_of(decoded)
    assert [record.message for record in records] == ["one", "two", "three"]
    assert [record.service for record in records] == ["pay", "pay", None]
    assert attributes(records[1])["scope"] == {"name": "s"}
    assert decoded.rejects == []


def test_the_tag_is_an_attribute_and_the_service_of_a_record_without_one() -> None:
    named = [event_time(AT), {"log": "x", "container_name": "/web"}]
    plain = [event_time(AT), {"log": "x"}]
    for count in (1, FEW):
        records = records_of(decode([events([named, plain] * count, "app.access")], ORIGIN))

        assert {record.service for record in records[::2]} == {"web"}
        assert {record.service for record in records[1::2]} == {"app.access"}
        assert {attributes(record)["tag"] for record in records} == {"app.access"}


def test_a_tag_of_the_record_itself_is_kept_beside_that_of_the_event() -> None:
    [record] = records_of(decode([events([[AT, {"log": "x", "tag": "mine"}]], "theirs")], ORIGIN))

    assert attributes(record) == {"tag": "mine", "fluent_tag": "theirs"}


def test_binary_that_is_text_is_text() -> None:
    record = one([AT, {"log": "grüß".encode(), b"k\xc3\xa9y": b"v"}])

    assert (record.message, record.raw) == ("grüß", None)
    assert attributes(record) == {"kéy": "v"}


@pytest.mark.parametrize("value", [b"\xff\xfe bad", "\udcff\udcfe bad", b"nul \0", "nul \0"])
def test_what_is_no_text_is_replaced_and_its_bytes_kept_and_its_neighbours_are_as_they_were(value: str | bytes) -> None:
    good, bad = pack([AT, {"log": "good"}]), pack([AT, {"log": value}])

    records = records_of(decode_msgpack_body(good * FEW + bad + good, ORIGIN))

    assert [record.message for record in records] == ["good"] * FEW + [records[FEW].message] + ["good"]
    assert "\ufffd" in records[FEW].message
    assert [record.raw for record in records] == [None] * FEW + [bad, None]


def test_values_that_json_does_not_have_are_written_as_text() -> None:
    odd = {"ext": msgpack.ExtType(5, b"\xab\xcd"), "at": msgpack.Timestamp(AT), "nan": math.nan, "inf": -math.inf}
    record = one([AT, {"log": "x", **odd, 7: "seven", None: "none", "deep": {1: [b"\xc3\xa9"]}, "big": 2**64 - 1}])

    assert attributes(record) == {
        "ext": "abcd",
        "at": "2024-11-19T07:06:40+00:00",
        "nan": "NaN",
        "inf": "-Infinity",
        "7": "seven",
        "null": "none",
        "deep": {"1": ["é"]},
        "big": 2**64 - 1,
    }
    assert record.raw is not None


@pytest.mark.parametrize(
    "value", [None, math.nan, [math.inf], {"a": None}, "null,", '"x":null}', msgpack.ExtType(0, b"8 bytes!")]
)
def test_one_value_that_json_may_not_have_changes_nothing_for_the_others(value: Any) -> None:
    entries = [pack([event_time(AT), {"log": "x", "k": n}]) for n in range(FEW)] + [
        pack([AT, {"log": "y", "k": value}])
    ]

    many = records_of(decode_msgpack_body(b"".join(entries), ORIGIN))

    assert list(many) == [one(entry) for entry in entries]


def test_a_key_that_is_an_array_becomes_text() -> None:
    assert attributes(one(b"\x92\x01\x82\xa3log\xa1x\x91\x05\x06")) == {"[5]": 6}


def test_two_keys_that_become_one_are_kept_in_the_bytes() -> None:
    entry = pack([AT, {"log": "x", "1": "a", 1: "b"}])

    assert one(entry).raw == entry


@pytest.mark.parametrize("bad", [["yesterday", {"a": 3}], [AT, "text"], [AT], [], [True, {}], [[], {}], [b"", {}]])
def test_what_is_no_event_is_a_reject_and_its_neighbours_are_kept(bad: Any) -> None:
    good = pack([AT, {"log": "good"}])
    for count in (1, FEW):
        decoded = decode_msgpack_body(good * count + pack(bad) + good, ORIGIN)

        assert [record.message for record in records_of(decoded)] == ["good"] * (count + 1)
        assert [reject.raw for reject in decoded.rejects] == [pack(bad)]


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (b"\x92\x01", "cut short"),
        (b"\xc1", "0xc1"),
        (b"hello " * 100, "0x68"),
        (b"\x91" * 100_000, "nested too deeply"),
        (b"\xdd\xff\xff\xff\xff" * 500, "cut short"),
        (b"\x92\x01\xc6\x38\x40\x00\x00", "cut short"),
    ],
)
def test_what_ends_the_events_is_one_reject(tail: bytes, reason: str) -> None:
    decoded = decode_msgpack_body(pack([AT, {"log": "good"}]) + tail, ORIGIN)

    assert [record.message for record in records_of(decoded)] == ["good"]
    assert [reject.raw for reject in decoded.rejects] == [tail]
    assert reason in decoded.rejects[0].reason


def test_a_record_that_is_nested_too_deeply_is_one_reject() -> None:
    deep = b"\x92\x01\x81\xa1a" + b"\x91" * 1000 + b"\x01"
    decoded = decode_msgpack_body((pack([AT, {"log": "good"}]) * FEW) + deep, ORIGIN)

    kept = [record for record in records_of(decoded) if record.message != "good"]
    assert len(records_of(decoded)) - len(kept) == FEW
    assert [reject.raw for reject in decoded.rejects] + [record.raw for record in kept] in ([deep], [None])


def test_very_many_that_are_no_events_are_few_rejects_and_the_good_are_kept() -> None:
    decoded = decode_msgpack_body((pack([]) * 9 + pack([AT, {"log": "good"}])) * 1000, ORIGIN)

    assert [record.message for record in records_of(decoded)] == ["good"] * 1000
    assert len(decoded.rejects) == 101
    assert decoded.rejects[-1].reason.startswith("8900 more that are no events")
    assert b"".join(reject.raw for reject in decoded.rejects) == pack([]) * 9000


def test_events_of_some_megabytes_are_decoded_in_parts_and_in_order() -> None:
    body = b"".join(pack([AT, {"log": "x" * 50_000, "n": number}]) for number in range(200))

    records = records_of(decode_msgpack_body(body + pack([AT, {"log": "odd\0"}]), ORIGIN))

    assert [attributes(record).get("n") for record in records] == [*range(200), None]
    assert [record.raw is None for record in records] == [True] * 200 + [False]


def test_an_event_of_many_megabytes_is_a_reject() -> None:
    large = pack([AT, {"log": "x" * (5 << 20)}])

    decoded = decode_msgpack_body(large + pack([AT, {"log": "good"}]), ORIGIN)

    assert [record.message for record in records_of(decoded)] == ["good"]
    assert [reject.raw for reject in decoded.rejects] == [large]


def test_records_without_time_are_taken_from_a_body() -> None:
    record = one({"message": "no time", "level": "warn"})

    assert (record.message, record.severity, record.timestamp) == ("no time", 4, NOW)


def test_an_empty_body_is_nothing() -> None:
    assert decode_msgpack_body(b"", ORIGIN) == Decoded([], [])


TEXTS = st.text(max_size=20) | st.sampled_from(["INFO", "null", "\0", "-0", "1e400", "a\\u0000"])
VALUES = st.recursive(
    TEXTS | st.binary(max_size=8) | st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["message", "log", "level", "service", "host", "tag", "time", "timestamp", "kubernetes", "a"])
RECORDS = st.dictionaries(NAMES, VALUES, max_size=5)
TIMES = st.sampled_from([event_time(AT, 5), AT, AT + 0.5, 0, 1.5e12, [event_time(AT), {}], [AT, {"m": 1}], "no", None])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TIMES, RECORDS), min_size=1, max_size=4))
def test_many_at_once_are_what_they_are_one_by_one(some: list[tuple[Any, Any]]) -> None:
    values = [pack(list(event)) for event in some]
    single = [decode([Events("t.a", value, 1)], ORIGIN) for value in values] * FEW

    many = decode([Events("t.a", b"".join(values * FEW), len(values) * FEW)], ORIGIN)

    assert list(records_of(many)) == [record for decoded in single for record in records_of(decoded)]
    rejects = [reject for decoded in single for reject in decoded.rejects]
    assert many.rejects[:100] == rejects[:100]
    assert b"".join(reject.raw for reject in many.rejects) == b"".join(reject.raw for reject in rejects)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300) | st.lists(VALUES, max_size=5).map(lambda values: b"".join(map(pack, values))))
def test_no_bytes_raise_and_none_are_lost(body: bytes) -> None:
    decoded = decode_msgpack_body(body, ORIGIN)

    ends, _ = split(body)
    assert len(decoded.records) + len(decoded.rejects) >= (len(ends) > 0)
    assert bool(len(decoded.records) or decoded.rejects) == bool(body)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(VALUES, max_size=3), max_size=6), st.randoms(use_true_random=False))
def test_any_cutting_of_a_stream_gives_the_same_frames(values: list[Any], cuts: random.Random) -> None:
    expected = list(map(pack, values))
    stream = b"\xc0".join(expected) + b"\x92\x01"
    framer, frames, place = MsgpackFramer(1000), list[bytes](), 0
    while place < len(stream):
        step = cuts.randint(1, 20)
        frames += framer.feed(stream[place : place + step])
        place += step

    assert frames == expected
    assert framer.close() == []
    assert framer.take_broken() == [(b"\x92\x01", "msgpack of 2 bytes, cut short")]


@pytest.mark.parametrize("step", [1, 50, 1000])
@pytest.mark.parametrize(
    "long", [pack(["t", b"x" * 200]), pack(["t", [1] * 200]), b"\x92\xa1t\xc6\x38\x40\x00\x00" + b"x" * 300]
)
def test_a_frame_over_the_limit_ends_the_stream_and_is_not_held(long: bytes, step: int) -> None:
    framer, stream, frames = MsgpackFramer(100), pack(["good"]) + long, list[bytes]()
    for place in range(0, len(stream), step):
        if not framer.ended:
            frames += framer.feed(stream[place : place + step])

    assert frames == [pack(["good"])]
    assert framer.ended
    assert framer.take_broken() == [(long[:100], "message of more than 100 bytes")]


def test_what_comes_behind_something_broken_is_broken_too() -> None:
    framer = MsgpackFramer(100)

    assert framer.feed(b"GET / HTTP/1.1\r\n") == []
    assert framer.feed(pack(["good"])) == []
    reasons = dict(framer.take_broken())
    assert reasons == {
        b"GET / HTTP/1.1\r\n": "byte 0x47 where an array of msgpack should begin",
        pack(["good"]): "behind what could not be read",
    }


def test_frames_of_one_event_each_are_decoded() -> None:
    frames = MsgpackFramer(1000).feed(pack([AT, {"log": "a"}]) + pack([AT, {"log": "b"}]))

    assert [record.message for record in records_of(decode_events(frames, ORIGIN))] == ["a", "b"]

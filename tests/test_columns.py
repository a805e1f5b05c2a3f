"""Chunks decoded to columns give the records that the reference gives, one after the other."""

import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols import json_columns, json_lines
from logagg.protocols.columns import COLUMNS, Columnar, from_records, to_records
from logagg.protocols.json_columns import FEW, PIECE
from logagg.protocols.mapping import FIELDS
from logagg.protocols.record import Decoded, Origin, Record

ORIGIN = Origin(datetime(2026, 11, 22, 1, 2, 3, 4, tzinfo=UTC), "tcp", "192.0.2.1", "test")
STAMP = "2026-11-22T06:53:52.848933Z"


def plain(place: int, /, **more: Any) -> dict[str, Any]:
    return {"timestamp": STAMP, "level": "INFO", "service": "s", "host": "h", "message": f"m{place}"} | more


def lines(objects: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(each, ensure_ascii=False).encode() for each in objects]


def records_of(decoded: Decoded | Columnar) -> list[Record]:
    return to_records(decoded.records) if isinstance(decoded.records, pl.DataFrame) else decoded.records


def test_plain_objects_become_columns() -> None:
    frames = lines([plain(i, request=i) if i % 3 else plain(i) for i in range(FEW)])
    decoded = json_columns.decode_lines(frames, ORIGIN)
    assert isinstance(decoded, Columnar)
    assert dict(decoded.records.schema) == COLUMNS
    assert to_records(decoded.records) == json_lines.decode_lines(frames, ORIGIN).records
    assert decoded.rejects == []


@pytest.mark.parametrize("wrap", [b"[%s]", b"%s"], ids=["array", "lines"])
def test_bodies_become_columns(wrap: bytes) -> None:
    frames = lines([plain(i) for i in range(FEW)])
    body = wrap % (b",\n" if wrap != b"%s" else b"\n").join(frames)
    decoded = json_columns.decode_body(body, ORIGIN)
    assert isinstance(decoded, Columnar)
    assert to_records(decoded.records) == json_lines.decode_body(body, ORIGIN).records


def test_few_lines_stay_records() -> None:
    assert isinstance(json_columns.decode_lines(lines([plain(1)]), ORIGIN), Decoded)
    assert records_of(json_columns.decode_body(b"", ORIGIN)) == []


ODD = [
    b"nonsense",
    b"[]",
    b"   ",
    b"7",
    b'{"a":1},{"b":2}',
    json.dumps(plain(0, message=None)).encode(),
    json.dumps(plain(0, message=7)).encode(),
    json.dumps(plain(0, message={"a": 1})).encode(),
    json.dumps(plain(0, message="NUL \0 here")).encode(),
    json.dumps(plain(0, other="NUL \0 here")).encode(),
    b'{"message":"half \\ud800 a pair"}',
    b'{"message":"no \xff UTF-8"}',
    json.dumps(plain(0, level="loud")).encode(),
    json.dumps(plain(0, level=30)).encode(),
    json.dumps(plain(0, timestamp="20261122T065352Z")).encode(),
    json.dumps(plain(0, timestamp="1718120112345")).encode(),
    json.dumps(plain(0, timestamp="2026-11-22")).encode(),
    json.dumps(plain(0, timestamp="2026-11-22T06:53:52+02:00")).encode(),
    json.dumps(plain(0, timestamp="2026-11-22T06:53:60Z")).encode(),
    json.dumps(plain(0, timestamp=None)).encode(),
    json.dumps(plain(0, service=None)).encode(),
    json.dumps(plain(0, service="")).encode(),
    json.dumps(plain(0, service=5)).encode(),
    json.dumps(plain(0, host=["a"])).encode(),
    json.dumps(plain(0, env="prod")).encode(),
    json.dumps(plain(0, trace_id="t", kubernetes={"host": "k"})).encode(),
    json.dumps(plain(0, number=12345678901234567890123)).encode(),
    json.dumps({"message": "nothing else"}).encode(),
    json.dumps({name: value for name, value in plain(0).items() if name != "host"} | {"x": 1}).encode(),
]


@pytest.mark.parametrize("odd", ODD, ids=lambda line: line[:60].decode("latin-1"))
@pytest.mark.parametrize("place", [0, FEW // 2], ids=["first", "in the middle"])
def test_one_odd_line_changes_nothing_for_the_others(odd: bytes, place: int) -> None:
    frames = lines([plain(i) for i in range(FEW)])
    frames.insert(place, odd)
    expected = json_lines.decode_lines(frames, ORIGIN)
    decoded = json_columns.decode_lines(frames, ORIGIN)
    assert records_of(decoded) == expected.records
    assert decoded.rejects == expected.rejects
    body = b"\n".join(frames)
    of_body, expected = json_columns.decode_body(body, ORIGIN), json_lines.decode_body(body, ORIGIN)
    assert records_of(of_body) == expected.records
    assert of_body.rejects == expected.rejects


@pytest.mark.parametrize("odd", [{"message": 7}, {"env": "e"}, {"kubernetes": {"host": "k"}}, {"timestamp": "soon"}])
@pytest.mark.parametrize("place", [0, PIECE - 1, PIECE, 2 * PIECE + 1], ids=str)
def test_an_odd_object_of_one_piece_leaves_all_in_their_order(odd: dict[str, Any], place: int) -> None:
    objects = [plain(i, nested={"n": i}, fields={"k": i}) for i in range(3 * PIECE - 5)]
    objects[place] |= odd
    frames = lines(objects)
    decoded = json_columns.decode_lines(frames, ORIGIN)
    assert records_of(decoded) == json_lines.decode_lines(frames, ORIGIN).records


@pytest.mark.parametrize("many", [FEW, 20 * FEW])
@pytest.mark.parametrize("number", ["1e16", "-1e-7", "1.5e300", "2E+22", "-0", "-0.0", "0", "5e-324"])
def test_numbers_are_written_as_by_the_reference(number: str, many: int) -> None:
    head = b'{"message":"m","id":"3e5f-0","k":'
    frames = [b'%b[%b,1],"n":%b}' % (head, number.encode(), number.encode())] + [head + b"1}"] * many
    decoded = json_columns.decode_lines(frames, ORIGIN)
    assert isinstance(decoded, Columnar)
    assert to_records(decoded.records) == json_lines.decode_lines(frames, ORIGIN).records


NAMES = st.sampled_from([name for names in FIELDS.values() for name in names] + ["a", "b.c", "", "ключ"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([STAMP, "warn"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
OBJECTS = st.fixed_dictionaries(
    {
        "timestamp": st.datetimes(timezones=st.just(UTC)).map(lambda t: t.isoformat()) | st.just(STAMP),
        "level": st.sampled_from(["INFO", "error", "Warn"]),
        "message": st.text(max_size=12),
    },
    optional={"service": st.text(max_size=4), "host": st.text(max_size=4), "x": VALUES, "y": VALUES},
)


#: As many as become columns in `check_some`: for trying much.
SOME = 40


def check_some(frames: list[bytes]) -> None:
    """Compare both ways, by columns from SOME frames on."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_columns, "FEW", SOME)
        decoded = json_columns.decode_lines(frames, ORIGIN)
    expected = json_lines.decode_lines(frames, ORIGIN)
    assert records_of(decoded) == expected.records
    assert decoded.rejects == expected.rejects


@settings(max_examples=150, deadline=None)
@given(objects=st.lists(OBJECTS, min_size=1, max_size=4), odd=st.dictionaries(NAMES, VALUES, max_size=4) | st.none())
def test_random_objects_are_the_same_either_way(objects: list[dict[str, Any]], odd: dict[str, Any] | None) -> None:
    frames = [json.dumps(each).encode() for each in [*objects * SOME, *([] if odd is None else [odd])]]
    check_some(frames)


@settings(max_examples=150, deadline=None)
@given(
    kinds=st.lists(
        st.dictionaries(NAMES | st.sampled_from(["agent", "fields", "host"]), VALUES, max_size=6), max_size=3
    ),
    order=st.randoms(use_true_random=False),
)
def test_objects_of_several_shapes_are_the_same_either_way(kinds: list[dict[str, Any]], order: Any) -> None:
    frames = lines([*[plain(place, **kind) for place in range(SOME) for kind in kinds], plain(-1)])
    order.shuffle(frames)
    check_some(frames)


@pytest.mark.parametrize(
    "some",
    [{"trace_id": "t"}, {"fields": {"k": 1}}, {"fields": {"env": "e"}}, {"fields": 3}, {"kubernetes": {"labels": {}}}],
)
def test_what_some_objects_have_besides_costs_the_others_nothing(some: dict[str, Any]) -> None:
    frames = lines([plain(i, **some) if i % 3 == 0 else plain(i) for i in range(3 * FEW)])
    for each in (frames, frames[1:]):
        decoded = json_columns.decode_lines(each, ORIGIN)
        assert isinstance(decoded, Columnar)
        assert to_records(decoded.records) == json_lines.decode_lines(each, ORIGIN).records


def test_records_become_columns_and_records_again() -> None:
    least, most = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    made = [
        Record(least, most, 0, 23, "e", "", None, "s", "", '{"a":1}', "t", None, b"\0\xff"),
        Record(most, least, 7, None, None, "h", "ß", None, "\U0001f600", None, None, "s", None),
    ]
    assert to_records(from_records(made)) == made
    assert from_records([]).height == 0
    assert dict(from_records([]).schema) == COLUMNS


def test_what_is_no_record_is_an_error() -> None:
    now = datetime.now(UTC)
    good = Record(now, now, 6, None, None, None, None, None, "m", None, None, None, None)
    with pytest.raises(TypeError):
        from_records([good._replace(timestamp=datetime(2026, 1, 1))])  # noqa: DTZ001  # a time without a zone
    with pytest.raises(UnicodeEncodeError):
        from_records([good, good._replace(message="\ud800")])

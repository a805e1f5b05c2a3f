from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.sinks import packing
from logagg.sinks.frames import FULL

TIMES = st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31, 23, 59, 59, 999999))  # noqa: DTZ001 - aware below
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
MAYBE = st.one_of(st.none(), st.just(""), st.sampled_from(["api", "Kern"]), TEXTS)
RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "timestamp": TIMES.map(lambda t: t.replace(tzinfo=UTC)),
            "received_at": TIMES.map(lambda t: t.replace(tzinfo=UTC)),
            "severity": st.integers(0, 7),
            "facility": st.one_of(st.none(), st.integers(0, 23)),
            **dict.fromkeys(("environment", "host", "service", "source", "trace_id", "span_id"), MAYBE),
            "message": TEXTS,
            "attributes": st.one_of(st.none(), st.just("{}"), st.just('{"a":1}')),
            "raw": st.one_of(st.none(), st.binary(max_size=10)),
        }
    ),
    min_size=1,
    max_size=30,
)


def frame_of(records: list[dict[str, object]]) -> pl.DataFrame:
    rows = [{"id": (5 << 17) + place, **record} for place, record in enumerate(records)]
    return pl.DataFrame(rows, schema=FULL)


def plain(count: int, **columns: pl.Expr) -> pl.DataFrame:
    """Records of one moment with nothing in them but what is said."""
    moment = pl.lit(datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)).cast(FULL["timestamp"])
    base = {"timestamp": moment, "received_at": moment, "severity": pl.lit(6), "message": pl.lit("x")}
    id_ = pl.int_range(count).alias("id")
    values = [(columns.get(name, base.get(name, pl.lit(None)))).cast(kind).alias(name) for name, kind in FULL.items()]
    return pl.select(id_).with_columns(values[1:])


def unpacked(packed: packing.Packed) -> pl.DataFrame:
    return pl.concat(
        [packing.read(packed.head, packing.HEAD), packing.read(packed.body, packing.BODY)], how="horizontal"
    )


@given(RECORDS)
@settings(max_examples=40, deadline=None)
def test_every_value_comes_back_and_the_same_records_give_the_same_bytes(records: list[dict[str, object]]) -> None:
    frame = frame_of(records)
    packed = packing.pack(frame)
    back = unpacked(packed).sort("id").select(list(FULL))
    assert back.schema == frame.schema
    assert back.equals(frame)
    assert packing.pack(frame.reverse()) == packed


@given(RECORDS)
@settings(max_examples=40, deadline=None)
def test_records_stand_by_service_and_length_of_the_message_and_id(records: list[dict[str, object]]) -> None:
    frame = frame_of(records)
    wanted = frame.sort("service", pl.col("message").str.len_bytes(), "id")
    for given_ in (frame, frame.reverse()):
        assert unpacked(packing.pack(given_))["id"].to_list() == wanted["id"].to_list()


@given(RECORDS)
@settings(max_examples=25, deadline=None)
def test_a_summary_counts_what_is_there(records: list[dict[str, object]]) -> None:
    frame = frame_of(records * 20)
    summary = packing.pack(frame).summary
    wanted: dict[tuple[object, ...], int] = {}
    for r in records:
        minute = (r["timestamp"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(minutes=1)  # type: ignore[operator]  # a datetime
        key = minute, r["environment"], r["service"], r["severity"]
        wanted[key] = wanted.get(key, 0) + 20
    assert summary is not None
    counts = packing.read_summary(summary)
    assert counts.schema == packing.SUMMARY
    assert {row[:-1]: row[-1] for row in counts.iter_rows()} == wanted


def test_no_summary_where_it_would_be_as_long_as_the_batch() -> None:
    assert packing.pack(plain(1)).summary is None
    assert packing.pack(plain(100, service=pl.int_range(100))).summary is None
    assert packing.pack(plain(100)).summary is not None


def test_columns_come_as_asked_for() -> None:
    packed = packing.pack(plain(10))
    assert packing.read(packed.head, ["service", "id"]).columns == ["service", "id"]
    assert packing.read(packed.body, ["raw"]).columns == ["raw"]


def test_head_and_body_have_the_same_order_over_row_groups() -> None:
    count = 100_000
    frame = plain(count, message=pl.int_range(count).cast(pl.String), service=(pl.int_range(count) % 7).cast(pl.String))
    back = unpacked(packing.pack(frame))
    assert (back["id"].cast(pl.String) == back["message"]).all()
    order = ["service", pl.col("message").str.len_bytes(), "id"]
    assert back.sort(order)["id"].to_list() == back["id"].to_list()


def test_columns_without_values_cost_next_to_nothing() -> None:
    few, many = packing.pack(plain(1000)), packing.pack(plain(100_000))
    empty = [name for name in packing.HEAD if name not in ("id", "timestamp", "received_at", "severity")]
    assert packing.read(many.head, empty).null_count().row(0) == (100_000,) * len(empty)
    assert len(many.body) < len(few.body) + 10_000


def test_ten_thousand_services_and_long_messages() -> None:
    count = 10_000
    frame = plain(count, service=pl.format("service-{}", pl.int_range(count)), message=pl.lit("x" * 5000))
    packed = packing.pack(frame)
    assert unpacked(packed).sort("id").select(list(FULL)).equals(frame)


@pytest.mark.parametrize("part", ["head", "body", "filter", "summary"])
def test_a_flipped_bit_differs_from_the_checksum(part: str) -> None:
    packed = packing.pack(plain(100))
    blob = getattr(packed, part)
    assert packing.checked(blob, packed.checksums, part) == blob
    for place in (0, len(blob) // 2, len(blob) - 1):
        flipped = blob[:place] + bytes([blob[place] ^ 4]) + blob[place + 1 :]
        with pytest.raises(packing.Damaged, match=part):
            packing.checked(flipped, packed.checksums, part)
        assert packing.checked(flipped, None, part) == flipped

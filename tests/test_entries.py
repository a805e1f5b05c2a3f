"""A flush as bytes: what is decoded is what was encoded."""

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.columns import COLUMNS, from_records, to_records
from logagg.protocols.record import Record, Reject
from logagg.sinks.entries import decode, encode

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
EMPTY = pl.DataFrame(schema=COLUMNS)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5.5))]))
records = st.builds(
    Record,
    *[st.datetimes(timezones=st.just(UTC))] * 2,
    st.integers(0, 7),
    st.none() | st.integers(0, 23),
    *[st.none() | texts] * 4,
    texts,
    *[st.none() | texts] * 3,
    st.none() | st.binary(max_size=20),
)
rejects = st.builds(
    Reject, times, st.text(max_size=9), st.text(max_size=9), st.text(max_size=9), st.binary(max_size=20)
)
counts = st.dictionaries(st.text(max_size=9), st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)), max_size=3)


@given(st.lists(st.lists(records, max_size=4), max_size=3), st.lists(rejects, max_size=3), counts)
@settings(max_examples=60, deadline=None)
def test_a_flush_comes_back_exactly(
    parts: list[list[Record]], refused: list[Reject], counted: dict[str, tuple[int, int]]
) -> None:
    frame = pl.concat([EMPTY, *map(from_records, parts)], rechunk=False)
    flush = decode(encode(frame, refused, counted))
    assert flush.records.schema == frame.schema
    assert to_records(flush.records) == [record for part in parts for record in part]
    assert flush.rejects == refused
    assert all(reject.received_at.utcoffset() == timedelta(0) for reject in flush.rejects)
    assert flush.counts == counted


def test_a_slice_takes_no_more_than_its_records() -> None:
    line = Record(NOW, NOW, 6, None, None, "h", "s", "p", "message " * 9, None, None, None, None)
    frame = from_records([line._replace(message=f"{n} {n * n} {line.message}") for n in range(2000)])
    assert len(encode(frame.slice(1000, 5), [], {})) < 1500
    assert to_records(decode(encode(frame.slice(1000, 5), [], {})).records) == to_records(frame.slice(1000, 5))


def test_half_a_surrogate_pair_in_a_reject_is_kept() -> None:
    reject = Reject(NOW, "tcp", "\ud800", "bad \udfff", b"\xff\0")
    assert decode(encode(EMPTY, [reject], {"tcp": (0, 1)})).rejects == [reject]


def test_other_frames_are_refused() -> None:
    for frame in (
        EMPTY.drop("raw"),
        EMPTY.select(reversed(EMPTY.columns)),
        EMPTY.with_columns(id=pl.lit(1)),
        EMPTY.cast({"severity": pl.Int64}),
    ):
        with pytest.raises(ValueError, match="a flush has"):
            encode(frame, [], {})


def test_another_version_is_refused() -> None:
    payload = encode(EMPTY, [], {})
    with pytest.raises(ValueError, match="a flush of version 2; this program reads version 1"):
        decode(b"\x02" + payload[1:])

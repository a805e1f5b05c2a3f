"""Times by arithmetic over digits are those of the standard library."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.stamps import microseconds

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def by_the_library(stamps: list[str]) -> list[int]:
    return [(datetime.fromisoformat(stamp) - EPOCH) // MICROSECOND for stamp in stamps]


@settings(max_examples=200, deadline=None)
@given(
    moments=st.lists(st.datetimes(timezones=st.just(UTC)), min_size=1, max_size=5),
    precision=st.sampled_from(["seconds", "milliseconds", "microseconds"]),
)
def test_times_of_one_form(moments: list[datetime], precision: str) -> None:
    stamps = [moment.isoformat(timespec=precision).replace("+00:00", "Z") for moment in moments]
    found = microseconds(stamps)
    assert found is not None
    assert found.tolist() == by_the_library(stamps)


def test_every_day_of_four_hundred_years() -> None:
    stamps = [
        (datetime(1900, 1, 1, tzinfo=UTC) + timedelta(days=n)).strftime("%Y-%m-%dT12:00:00Z") for n in range(146_097)
    ]
    found = microseconds(stamps)
    assert found is not None
    assert found.tolist() == by_the_library(stamps)


GOOD = "2026-11-22T06:53:52.848933Z"


@pytest.mark.parametrize(
    "bad",
    [
        "2026-11-31T06:53:52.848933Z", "2026-02-29T06:53:52.848933Z", "2026-13-22T06:53:52.848933Z",
        "2026-00-22T06:53:52.848933Z", "2026-11-00T06:53:52.848933Z", "0000-11-22T06:53:52.848933Z",
        "2026-11-22T24:00:00.000000Z", "2026-11-22T06:60:52.848933Z", "2026-11-22T06:53:60.848933Z",
        "2026-11-22T06:53:52.84893 Z", "2026-11-22T06:53:52,848933Z", "2026-11-22 06:53:52.848933Z",
        "2026-11-22T06:53:52.848933z", "+026-11-22T06:53:52.848933Z", "2026-11-22T06:53:52.8489330",
        "2026-11-22T06:53:52.848Z", "2026-11-22T06:53:52.848933+0", "２026-11-22T06:53:52.848933Z", "",
    ],
)  # fmt: skip
def test_one_that_is_none_leaves_it_to_others(bad: str) -> None:
    assert microseconds([GOOD, GOOD]) is not None
    assert microseconds([GOOD, bad]) is None
    assert microseconds([bad, GOOD]) is None
    assert microseconds([bad]) is None or len(bad) == 24


def test_no_times_are_none() -> None:
    assert microseconds([]) is None

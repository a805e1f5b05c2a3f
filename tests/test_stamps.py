"""Times by arithmetic over digits are those of the standard library."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.stamps import microseconds

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
#: All whose day is one of the calendar in every zone.
FIRST, LAST = datetime(1, 1, 2), datetime(9999, 12, 30)  # noqa: DTZ001  # hypothesis adds the zone


def by_the_library(stamps: list[str]) -> list[int]:
    return [(datetime.fromisoformat(stamp) - EPOCH) // MICROSECOND for stamp in stamps]


@settings(max_examples=200, deadline=None)
@given(
    moments=st.lists(st.datetimes(FIRST, LAST, timezones=st.just(UTC)), min_size=1, max_size=5),
    precision=st.sampled_from(["seconds", "milliseconds", "microseconds"]),
    zone=st.sampled_from(["Z", "+00:00", "-00:00", "+05:45", "-11:30"]),
)
def test_times_of_one_form(moments: list[datetime], precision: str, zone: str) -> None:
    stamps = [moment.isoformat(timespec=precision).replace("+00:00", zone) for moment in moments]
    found = microseconds(stamps)
    assert found is not None
    assert found.tolist() == by_the_library(stamps)


@pytest.mark.parametrize(
    ("stamp", "taken"),
    [
        ("0001-01-01T01:00:00+01:00", True), ("0001-01-01T00:59:59+01:00", False), ("0001-01-01T00:00:00Z", True),
        ("9999-12-31T22:59:59-01:00", True), ("9999-12-31T23:00:00-01:00", False), ("9999-12-31T23:59:59Z", True),
        ("2026-11-22T06:53:52+23:59", True), ("2026-11-22T06:53:52+24:00", False),
        ("2026-11-22T06:53:52+01:60", False), ("2026-11-22T06:53:52+0100", False), ("2026-11-22T06:53:52 01:00", False),
    ],
)  # fmt: skip
def test_zones_at_the_ends_of_the_calendar(stamp: str, taken: bool) -> None:
    found = microseconds([stamp, stamp])
    assert (found is not None) == taken
    assert found is None or found.tolist() == by_the_library([stamp, stamp])


def test_several_zones_are_left_to_others() -> None:
    assert microseconds(["2026-11-22T06:53:52+01:00", "2026-11-22T06:53:52+02:00"]) is None
    assert microseconds(["2026-11-22T06:53:52+01:00", "2026-11-22T06:53:52-01:00"]) is None


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

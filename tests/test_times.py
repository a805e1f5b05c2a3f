from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.levels import FACILITIES, facility_of, severity_of
from logagg.protocols.record import LEVELS
from logagg.protocols.times import from_bsd, to_datetime, trouble

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-22T12:00:00Z",
        "2026-11-22T12:00:00.000000000Z",
        "2026-11-22T12:00:00.0000009999Z",
        "2026-11-22T12:00:00,000Z",
        "2026-11-22t12:00:00z",
        "2026-11-22T13:00:00+01:00",
        "2026-11-22T13:00:00+0100",
        "2026-11-22T13:00:00 +01:00",
        "2026-11-22T06:30:00-05:30",
        "2026-11-22 12:00:00",
        "2026-11-22 12:00:00 UTC",
        "2026-11-22T12:00",
        "2026-11-22T11:59:60Z",
        " 2026-11-22T12:00:00Z ",
        "2026-11-22 12:00:00,000+0000",
        "2026-11-22T13:00:00.000+01:00[Europe/Berlin]",
        "20261122T120000Z",
        "20261122T130000.000+0100",
        "2026/11/22 12:00:00",
        "22/Nov/2026:13:00:00 +0100",
        "22-Nov-2026 12:00:00.000 UTC",
        "Sun, 22 Nov 2026 12:00:00 GMT",
        "22 Nov 2026 13:00:00 +0100",
        "Sun Nov 22 12:00:00 2026",
        "Sun Nov 22 12:00:00 2026 UTC",
        "Sun Nov 22 12:00:00 UTC 2026",
        1795348800,
        1795348800.0,
        1795348800000,
        1795348800000000,
        1795348800000000999,
        "1795348800",
        "1795348800.0",
        "1795348800000",
        "1795348800000000",
    ],
)
def test_the_same_time_in_many_forms(value: object) -> None:
    moment = to_datetime(value)
    assert moment == NOON
    assert moment is not None
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2003-08-24T05:14:15.000003-07:00", datetime(2003, 8, 24, 12, 14, 15, 3, tzinfo=UTC)),
        ("2023-06-03T17:42:32.123456789Z", datetime(2023, 6, 3, 17, 42, 32, 123456, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-1.5, datetime(1969, 12, 31, 23, 59, 58, 500000, tzinfo=UTC)),
        (1644834856.905985, datetime(2022, 2, 14, 10, 34, 16, 905985, tzinfo=UTC)),
        ("1718120112345", datetime(2024, 6, 11, 15, 35, 12, 345000, tzinfo=UTC)),
    ],
)
def test_a_time(value: object, moment: datetime) -> None:
    assert to_datetime(value) == moment


@pytest.mark.parametrize(
    "value",
    [
        *(
            "300000-01-01T00:00:00Z",
            "0000-12-31T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "2026-02-30",
            "2026-11-22T25:00",
            "31/Nov/2026:12:00:00 +0000",
            "22/Foo/2026:12:00:00 +0000",
            "Sun Foo 22 12:00:00 2026",
            "20261322T120000Z",
        ),
        *("", " ", "yesterday", "1e9", "１７９５", "9" * 21, 1e20, -1e20, -9e16, 10**400, float("nan"), float("inf")),
        *(None, True, [], {}, b"2026-11-22"),
    ],
)
def test_no_time(value: object) -> None:
    assert to_datetime(value) is None


def test_a_time_without_zone_is_in_the_zone_given() -> None:
    assert to_datetime("2026-11-22T13:00:00", ZoneInfo("Europe/Berlin")) == NOON
    assert to_datetime("2026-11-22T12:00:00Z", ZoneInfo("Europe/Berlin")) == NOON


def test_trouble_tells_the_absurd_from_the_unknown() -> None:
    assert trouble("300000-01-01T00:00:00Z") == trouble(-1e30) == "timestamp out of range"
    assert trouble("yesterday") == trouble({}) == "timestamp not understood"


@pytest.mark.parametrize(
    ("text", "now", "moment"),
    [
        ("Oct 11 22:14:15", "2026-11-22", "2026-10-11T22:14:15"),
        ("Oct 11 22:14:15.123456789", "2026-11-22", "2026-10-11T22:14:15.123456"),
        ("Oct  1 22:14:15", "2026-11-22", "2026-10-01T22:14:15"),
        ("Oct 1 22:14:15", "2026-11-22", "2026-10-01T22:14:15"),
        ("Oct 01 22:14:60", "2026-11-22", "2026-10-01T22:14:59"),
        ("Oct 11 2003 22:14:15", "2026-11-22", "2003-10-11T22:14:15"),
        ("Dec 31 23:59:59", "2027-01-01", "2026-12-31T23:59:59"),
        ("Jan  1 00:00:01", "2026-12-31", "2027-01-01T00:00:01"),
        ("May 24 00:00:00", "2026-11-22", "2026-05-24T00:00:00"),
        ("May 23 00:00:00", "2026-11-22", "2027-05-23T00:00:00"),
        ("Feb 29 12:00:00", "2026-11-22", "2028-02-29T12:00:00"),
        ("Feb 29 12:00:00", "2025-11-22", "2024-02-29T12:00:00"),
        ("Feb 29 12:00:00", "2100-01-01", "2096-02-29T12:00:00"),
    ],
)
def test_a_time_without_year_is_the_nearest(text: str, now: str, moment: str) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert from_bsd(text, at) == datetime.fromisoformat(moment).replace(tzinfo=UTC)


def test_a_time_of_syslog_in_a_zone() -> None:
    assert from_bsd("Nov 22 13:00:00", NOON, ZoneInfo("Europe/Berlin")) == NOON


@pytest.mark.parametrize("text", ["Foo 11 22:14:15", "Feb 30 12:00:00", "Oct 11 25:14:15", "Oct 11", "oct 11 22:14:15"])
def test_no_time_of_syslog(text: str) -> None:
    assert from_bsd(text, NOON) is None


moments = st.datetimes(datetime(1974, 1, 1), datetime(2200, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001 - hypothesis wants them naive


@settings(deadline=None)
@given(moments)
def test_what_is_written_is_read(moment: datetime) -> None:
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert to_datetime(moment.isoformat()) == moment
    assert to_datetime(microseconds) == to_datetime(microseconds * 1000) == moment
    assert to_datetime(microseconds // 1_000_000) == moment.replace(microsecond=0)


@settings(deadline=None)
@given(moments, st.integers(-180, 180))
def test_the_nearest_year_is_the_right_one_for_half_a_year(moment: datetime, days: int) -> None:
    whole = moment.replace(microsecond=0)
    assert from_bsd(f"{whole:%b %d %H:%M:%S}", whole + timedelta(days=days)) == whole


@settings(deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"[0-9TZ:. +-]{1,40}", fullmatch=True) | st.integers() | st.floats())
def test_anything_is_a_time_in_utc_or_none(value: object) -> None:
    moment = to_datetime(value)
    assert moment is None or moment.tzinfo is UTC


@pytest.mark.parametrize(
    ("level", "names"),
    [
        ("EMERGENCY", ["emerg", "EMERGENCY", "panic", 0, "0"]),
        ("ALERT", ["Alert", 1]),
        ("CRITICAL", ["crit", "CRITICAL", "Fatal", "FTL", "dpanic", 2, 60]),
        ("ERROR", ["err", "Error", "ERROR", "eRRor", "[ERROR]", " error ", "severe", "E", 3, "3", 50]),
        ("WARNING", ["warn", "Warning", "WARN", "W", 4, 40, 45]),
        ("NOTICE", ["notice", 5]),
        ("INFO", ["info", "information", "Informational", "I", "INFO+2", "LOG", "config", 6, 30, "30"]),
        ("DEBUG", ["debug", "trace", "Verbose", "fine", "DEBUG-4", "DEBUG2", "D5", "silly", 7, 10, 20]),
    ],
)
def test_names_and_numbers_of_levels(level: str, names: list[object]) -> None:
    assert [LEVELS[number] for name in names if (number := severity_of(name)) is not None] == [level] * len(names)


def test_no_level() -> None:
    values: list[object] = ["purple", "", "  ", -1, 8, 9, 70, "100000000000000000000", "²", True, None, 3.0, [], {}]
    assert [severity_of(value) for value in values] == [None] * len(values)


def test_facilities() -> None:
    assert [facility_of(name) for name in FACILITIES] == list(range(24))
    assert [facility_of(value) for value in (0, 23, "23", "LOCAL7", " mail ")] == [0, 23, 23, 23, 2]
    none: list[object] = [24, -1, "24", "x", "", None, True, 1.0, []]
    assert [facility_of(value) for value in none] == [None] * len(none)

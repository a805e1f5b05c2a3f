from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logagg.cli.timespec import parse_time

BERLIN = ZoneInfo("Europe/Berlin")
#: A Sunday; in Berlin it is 00:30 of the next day already.
NOW = datetime(2026, 11, 22, 23, 30, 15, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "utc", "berlin"),
    [
        ("now", "2026-11-22T23:30:15.25Z", "2026-11-22T23:30:15.25Z"),
        ("today", "2026-11-22T00:00Z", "2026-11-22T23:00Z"),
        ("Yesterday", "2026-11-21T00:00Z", "2026-11-21T23:00Z"),
        ("15m", "2026-11-22T23:15:15.25Z", "2026-11-22T23:15:15.25Z"),
        ("-15m", "2026-11-22T23:15:15.25Z", "2026-11-22T23:15:15.25Z"),
        ("1h30m ago", "2026-11-22T22:00:15.25Z", "2026-11-22T22:00:15.25Z"),
        ("2d", "2026-11-20T23:30:15.25Z", "2026-11-20T23:30:15.25Z"),
        ("1W", "2026-11-15T23:30:15.25Z", "2026-11-15T23:30:15.25Z"),
        ("10:00", "2026-11-22T10:00Z", "2026-11-23T09:00Z"),
        ("9:05:30.5", "2026-11-22T09:05:30.5Z", "2026-11-23T08:05:30.5Z"),
        ("2026-11-20", "2026-11-20T00:00Z", "2026-11-19T23:00Z"),
        ("2026-11-20T10:00", "2026-11-20T10:00Z", "2026-11-20T09:00Z"),
        ("2026-07-20 10:00:01.5", "2026-07-20T10:00:01.5Z", "2026-07-20T08:00:01.5Z"),
        # The clock stands at 02:30 twice on this night, and never on the other; both are taken as the earlier offset.
        ("2026-10-25T02:30", "2026-10-25T02:30Z", "2026-10-25T00:30Z"),
        ("2026-03-29T02:30", "2026-03-29T02:30Z", "2026-03-29T01:30Z"),
        ("2026-11-20T10:00:00z", "2026-11-20T10:00Z", "2026-11-20T10:00Z"),
        ("2026-11-20t10:00:00.123456+01:00", "2026-11-20T09:00:00.123456Z", "2026-11-20T09:00:00.123456Z"),
        ("1795168800", "2026-11-20T10:00Z", "2026-11-20T10:00Z"),
        ("1795168800.25", "2026-11-20T10:00:00.25Z", "2026-11-20T10:00:00.25Z"),
        ("1795168800123", "2026-11-20T10:00:00.123Z", "2026-11-20T10:00:00.123Z"),
        ("1795168800123456", "2026-11-20T10:00:00.123456Z", "2026-11-20T10:00:00.123456Z"),
        ("1795168800123456789", "2026-11-20T10:00:00.123456Z", "2026-11-20T10:00:00.123456Z"),
    ],
)
def test_every_form_of_a_time(text: str, utc: str, berlin: str) -> None:
    found = parse_time(text, NOW, UTC)
    assert found == datetime.fromisoformat(utc)
    assert found.utcoffset() == timedelta(0)
    assert parse_time(text, NOW, BERLIN) == datetime.fromisoformat(berlin)


@pytest.mark.parametrize(
    "text",
    [
        "", "foo", "15", "15x", "m", "1.5h", "h1", "20261120", "25:00", "10:99", "2026-13-01", "2026-02-30", "tomorrow",
        "0001-01-01T00:00+05:00", "9999-12-31T23:59-05:00", "99999999999999w", "9" * 30, "1h 30m",
        "2026-11-20T10:00 Z!",
    ],
)  # fmt: skip
@pytest.mark.parametrize("zone", [UTC, None])
def test_what_is_no_time_is_said_with_examples(text: str, zone: tzinfo | None) -> None:
    with pytest.raises(ValueError, match="is not a time; try 15m, 2h, today") as caught:
        parse_time(text, NOW, zone)
    assert repr(text) in str(caught.value)


def test_without_a_zone_it_is_the_machine_s(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        assert parse_time("2026-11-20T10:00", NOW) == datetime(2026, 11, 20, 4, 15, tzinfo=UTC)
        assert parse_time("today", NOW) == datetime(2026, 11, 22, 18, 15, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_an_error(text: str) -> None:
    try:
        found = parse_time(text, NOW, BERLIN)
    except ValueError:
        return
    assert found.utcoffset() == timedelta(0)


@given(st.datetimes(min_value=datetime(1970, 1, 5)), st.sampled_from(["", "Z", "+02:00", "-11:30"]))  # noqa: DTZ001 -- naive on purpose
def test_a_written_time_is_read_back(moment: datetime, zone: str) -> None:
    text = moment.isoformat() + zone
    expected = datetime.fromisoformat(text)
    try:
        expected = (expected if zone else expected.replace(tzinfo=BERLIN)).astimezone(UTC)
    except OverflowError:
        return
    assert parse_time(text, NOW, BERLIN) == expected

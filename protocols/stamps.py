"""Many times in one of the usual forms of RFC 3339 at once, by arithmetic over their digits: `2026-11-22T06:53:52Z`."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

#: The form with microseconds; others are its beginning and a Z.
_FORM: Final = b"0000-00-00T00:00:00.000000Z"
_ENDS: Final = {20: 0, 24: 3, 27: 6}  # length of the text: digits of the fraction
_DAYS_OF_MONTH: Final = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
#: Days from 1 March of the year 0 to 1 January 1970.
_TO_1970: Final = 719468

Integers = npt.NDArray[np.int64]


def microseconds(stamps: Sequence[str]) -> Integers | None:
    """Return microseconds since 1970; None when not all are of one such form, or one is no time.

    Takes the same texts as `datetime.fromisoformat` of those forms.
    """
    length = len(stamps[0]) if stamps else 0
    text = "".join(stamps)
    if length not in _ENDS or len(text) != length * len(stamps) or not text.isascii():
        return None
    form = np.frombuffer(_FORM[: length - 1].rstrip(b".") + b"Z", dtype=np.uint8)
    found = np.frombuffer(text.encode(), dtype=np.uint8).reshape(-1, length)
    places = np.flatnonzero(form == ord("0"))
    digits = found[:, places] - np.uint8(ord("0"))
    others = np.flatnonzero(form != ord("0"))
    if (digits > 9).any() or (found[:, others] != form[others]).any():  # what is below 0 is far above 9, unsigned
        return None
    year, month, day, hour, minute, second = (
        digits[:, start : start + count].astype(np.int64) @ 10 ** np.arange(count)[::-1]
        for start, count in ((0, 4), (4, 2), (6, 2), (8, 2), (10, 2), (12, 2))
    )
    ok = (year >= 1) & (month >= 1) & (month <= 12) & (hour < 24) & (minute < 60) & (second < 60) & (day >= 1)
    if not ok.all() or (day > _last_day(year, month)).any():
        return None
    fraction = digits[:, 14:].astype(np.int64) @ 10 ** np.arange(5, 5 - _ENDS[length], -1)
    seconds = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
    result: Integers = seconds * 1_000_000 + fraction
    return result


def _last_day(year: Integers, month: Integers) -> Integers:
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    last: Integers = _DAYS_OF_MONTH[month] + (leap & (month == 2))
    return last


def _days(year: Integers, month: Integers, day: Integers) -> Integers:
    """Return days since 1970 in the Gregorian calendar; the year is counted from March, so that leap days end it."""
    year = year - (month <= 2)
    since_march = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days: Integers = year * 365 + year // 4 - year // 100 + year // 400 + since_march - _TO_1970
    return days

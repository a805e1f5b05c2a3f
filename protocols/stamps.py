"""Many times in one of the usual forms of RFC 3339 at once, by arithmetic over their digits.

The forms are `2026-11-22T06:53:52Z`, with three or six digits of a second more, and with `+01:00` in the place of Z.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

#: The form with microseconds; others are its beginning.
_FORM: Final = b"0000-00-00T00:00:00.000000"
_ENDS: Final = {19: 0, 23: 3, 26: 6}  # length without the zone: digits of the fraction
_OFFSET: Final = re.compile(r"[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]")
#: Century, year in it, month, day, hour, minute, second.
_LOW: Final = np.array([0, 0, 1, 1, 0, 0, 0], dtype=np.uint8)
_HIGH: Final = np.array([99, 99, 12, 31, 23, 59, 59], dtype=np.uint8)
_DAYS_OF_MONTH: Final = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
#: Days from 1 March of the year 0 to 1 January 1970.
_TO_1970: Final = 719468
#: Seconds at the beginning of the year 1, and behind the year 9999.
_LEAST, _MOST = (days * 86_400 for days in (-719162, 2932897))

Integers = npt.NDArray[np.int64]


def microseconds(stamps: Sequence[str]) -> Integers | None:
    """Return microseconds since 1970; None when not all are of one such form and zone, or one is no time.

    Takes the same texts as `datetime.fromisoformat` of those forms.
    """
    length = len(stamps[0]) if stamps else 0
    zone = "Z" if length and stamps[0][-1] == "Z" else stamps[0][-6:] if stamps else ""
    size = length - len(zone)
    text = "".join(stamps)
    if size not in _ENDS or len(text) != length * len(stamps) or not text.isascii():
        return None
    if zone != "Z" and not _OFFSET.fullmatch(zone):
        return None
    form, places, others = _form(size, zone)
    found = np.frombuffer(text.encode(), dtype=np.uint8).reshape(-1, length)
    digits = found[:, places] - np.uint8(ord("0"))
    if (digits > 9).any() or (found[:, others] != form[others]).any():  # what is below 0 is far above 9, unsigned
        return None
    pairs = digits[:, :14:2] * np.uint8(10) + digits[:, 1:14:2]
    if ((pairs < _LOW) | (pairs > _HIGH)).any():
        return None
    century, year, month, day, hour, minute, second = pairs.T.astype(np.int64)
    year += century * 100
    if (day > _last_day(year, month)).any() or not year.all():
        return None
    fraction = digits[:, 14:].astype(np.int64) @ 10 ** np.arange(5, 5 - _ENDS[size], -1)
    seconds = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second - _offset(zone)
    if zone != "Z" and (seconds.min() < _LEAST or seconds.max() >= _MOST):
        return None
    result: Integers = seconds * 1_000_000 + fraction
    return result


@lru_cache(maxsize=64)
def _form(size: int, zone: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return a form with 0 for digits, the places of those, and the places of all else."""
    form = np.frombuffer(_FORM[:size] + zone.encode(), dtype=np.uint8)
    is_digit = (form == ord("0")) & (np.arange(len(form)) < size)
    return form, np.flatnonzero(is_digit), np.flatnonzero(~is_digit)


def _offset(zone: str) -> int:
    """Return seconds: how far clocks of this zone are ahead of UTC."""
    if zone == "Z":
        return 0
    ahead = int(zone[1:3]) * 3600 + int(zone[4:]) * 60
    return -ahead if zone[0] == "-" else ahead


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

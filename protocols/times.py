"""Points in time as senders write them, as aware datetimes in UTC with microseconds.

None means: this is no point in time between the years 1 and 9999.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]*)?")
#: RFC 3339 with what real senders do to it: small letters, blanks, a comma, a zone without colon or by name.
_LOOSE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt_ ]+([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:[.,]([0-9]*))? *(Z|z|UTC|GMT|[+-][0-9]{2}:?(?:[0-9]{2})?)?)?"
)
_BSD = re.compile(
    r"([A-Z][a-z]{2}) +([0-9]{1,2}) (?:([0-9]{4}) )?([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]{1,9}))?"
)
#: `11/Oct/2026:22:14:15 +0200` of access logs, `Sun, 11 Oct 2026 22:14:15 GMT` of mail and HTTP (RFC 5322 section 3.3).
_DAY_FIRST = re.compile(
    r"(?:[A-Z][a-z]{2}, )?([0-9]{1,2})[/ -]([A-Z][a-z]{2})[/ -]([0-9]{4})[: ]"
    r"([0-9]{2}:[0-9]{2}:[0-9]{2})(?:[.,]([0-9]*))? *(Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2})?"
)
#: `Sun Oct 11 22:14:15 2026` of ctime(3), with a zone at times.
_CTIME = re.compile(
    r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) +([0-9]{1,2}) ([0-9:]{8}) (?:(UTC|GMT|Z) )?([0-9]{4})(?: (UTC|GMT))?"
)
#: `2026/10/11 22:14:15` of Go, `20261011T221415Z` of ISO 8601's basic format: what makes RFC 3339 of them.
_SLASHES = re.compile(r"([0-9]{4})/([0-9]{2})/([0-9]{2})(?=[ T])")
_BASIC = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})")
#: The name of a zone behind its offset, as Java writes it.
_ZONE_NAME = re.compile(r"\[[A-Za-z0-9/_+-]{1,40}\]$")
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
    )
}
#: No time of the same month and day in another year can be nearer than one this near.
_HALF_YEAR = timedelta(days=182)
#: 29 February comes every four years, but for 2096 to 2104.
_LEAP_GAP = 8


def to_datetime(value: object, zone: tzinfo = UTC) -> datetime | None:
    """Aware UTC from RFC 3339 or ISO 8601 text, a date, or an epoch number (or its text) in s, ms, us or ns.

    So the forms of access logs, of RFC 5322 and of ctime(3). Text without a zone is in `zone`. Fractions of any length
    are cut to microseconds (RFC 3339 section 5.6).
    """
    if isinstance(value, str):
        # The hyphen keeps the compact forms of ISO 8601 out: 1718120112345 is an epoch, not a day of 1718.
        if value[4:5] == "-":
            try:
                moment = datetime.fromisoformat(value)
                return moment if moment.tzinfo is UTC else _to_utc(moment, zone)
            except (ValueError, OverflowError):
                pass  # not as the standard has it
        return _from_text(value.strip(), zone)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return from_epoch(value)
    return None


def from_epoch(number: float) -> datetime | None:
    """Aware UTC from seconds since 1970, or thousandths, millionths or billionths of them: its size tells which.

    Seconds reach to the year 5138; a number of 10^11 or more is milliseconds, of 10^14 microseconds, of 10^17
    nanoseconds.
    """
    size = abs(number)
    if size < 1e11:
        microseconds = number * 1_000_000
    elif size < 1e14:
        microseconds = number * 1_000
    elif size < 1e17:
        microseconds = number
    elif size < 1e20:
        microseconds = number // 1_000
    else:
        return None  # NaN comes here too
    try:
        return _EPOCH + timedelta(microseconds=round(microseconds))
    except OverflowError:
        return None


def from_bsd(text: str, now: datetime, zone: tzinfo = UTC) -> datetime | None:
    """Aware UTC from the timestamp of RFC 3164 section 4.1.2, `Oct 11 22:14:15`, with a fraction or a year at times.

    Without a year it is the one that puts the time nearest to `now`.
    """
    match = _BSD.fullmatch(text)
    if match is None or match[1] not in _MONTHS:
        return None
    month, day, year, hour, minute, second, fraction = match.groups()
    clock = int(hour), int(minute), min(int(second), 59), int((fraction or "0").ljust(6, "0")[:6])
    if year is not None:
        return _instant(int(year), _MONTHS[month], int(day), clock, zone)
    return _nearest(_MONTHS[month], int(day), clock, now, zone)


def trouble(value: object) -> str:
    """Why `to_datetime` gave None, in words for the reader of the record."""
    a_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "timestamp out of range" if a_number or str(value)[:1].isdigit() else "timestamp not understood"


def _from_text(text: str, zone: tzinfo) -> datetime | None:
    number = _NUMBER.fullmatch(text)
    if number is not None:
        return from_epoch(float(text) if number[1] else int(text))
    return _from_loose(text, zone)


def _from_loose(text: str, zone: tzinfo) -> datetime | None:
    match = _LOOSE.fullmatch(text) or _LOOSE.fullmatch(_to_loose(text))
    if match is None:
        return None
    date, minutes, seconds, fraction, offset = match.groups()
    leap = seconds == ":60"
    seconds = ":59" if leap else seconds or ":00"
    offset = "Z" if offset in {"z", "UTC", "GMT"} else offset or ""
    try:
        moment = datetime.fromisoformat(f"{date}T{minutes or '00:00'}{seconds}.{fraction or '0'}{offset}")
        return _to_utc(moment + timedelta(seconds=leap), zone)
    except (ValueError, OverflowError):
        return None


def _to_loose(text: str) -> str:
    """Write a time in another of the known forms as RFC 3339 nearly has it; return what is none of them as it is."""
    if (match := _DAY_FIRST.fullmatch(text)) and match[2] in _MONTHS:
        day, month, year, clock, fraction, zone = match.groups()
        return f"{year}-{_MONTHS[month]:02}-{day:0>2} {clock}.{fraction or '0'}{zone or ''}"
    if (match := _CTIME.fullmatch(text)) and match[1] in _MONTHS:
        month, day, clock, before, year, behind = match.groups()
        return f"{year}-{_MONTHS[month]:02}-{day:0>2} {clock}{before or behind or ''}"
    text = _SLASHES.sub(r"\1-\2-\3", _ZONE_NAME.sub("", text), count=1)
    return _BASIC.sub(r"\1-\2-\3T\4:\5:\6", text, count=1)


def _to_utc(moment: datetime, zone: tzinfo) -> datetime:
    return (moment.replace(tzinfo=zone) if moment.tzinfo is None else moment).astimezone(UTC)


def _nearest(month: int, day: int, clock: tuple[int, int, int, int], now: datetime, zone: tzinfo) -> datetime | None:
    this = _instant(now.year, month, day, clock, zone)
    if this is not None and abs(this - now) <= _HALF_YEAR:
        return this
    around = range(now.year - _LEAP_GAP, now.year + _LEAP_GAP + 1)
    moments = [moment for year in around if (moment := _instant(year, month, day, clock, zone)) is not None]
    return min(moments, key=lambda moment: abs(moment - now), default=None)


def _instant(year: int, month: int, day: int, clock: tuple[int, int, int, int], zone: tzinfo) -> datetime | None:
    try:
        return datetime(year, month, day, *clock, tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None

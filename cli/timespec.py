"""The times that `--since` and `--until` understand, as an aware datetime in UTC.

| written as | means |
|---|---|
| `90s` `15m` `1h` `2d` `1w` `1h30m`, also with `ago` | that long before now |
| `now` `today` `yesterday` | now; 00:00 of that day |
| `10:00` `10:00:30` | that time of today |
| `2026-11-20` `2026-11-20T10:00` `2026-11-20 10:00:00.5` | that time; a date alone is its 00:00 |
| `2026-11-20T10:00:00Z` `...+01:00` | that time, RFC 3339 |
| `1795168800` and longer | seconds, milli-, micro- or nanoseconds since 1970, by size |

What names no zone is meant in `zone`; None is the zone of the machine.
"""

import re
from datetime import UTC, datetime, time, timedelta, tzinfo

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGO = re.compile(r"-?((?:\d+[smhdw])+)(?:\s+ago)?")
_CLOCK = re.compile(r"\d\d?:\d\d(?::\d\d(?:\.\d+)?)?")
_EPOCH = re.compile(r"\d{9,}(?:\.\d+)?")
#: The units of an epoch number and where each ends: seconds of a year beyond 5000 are milliseconds, and so on.
_EPOCH_UNITS = ((10**11, 1), (10**14, 10**3), (10**17, 10**6), (10**20, 10**9))
_HINT = "try 15m, 2h, today, yesterday, 10:00, 2026-11-20, 2026-11-20T10:00, an RFC 3339 time or an epoch number"


def parse_time(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """Read one time.

    Raises ValueError, whose message is for the user, when `text` is none or lies outside the years 1 to 9999.
    """
    word = text.strip().lower()
    try:
        return _parse(word, now, zone).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is not a time; {_HINT}") from None


def _parse(word: str, now: datetime, zone: tzinfo | None) -> datetime:
    today = now.astimezone(zone).replace(tzinfo=None)
    if word == "now":
        return now
    if word == "today":
        return _at(datetime.combine(today, time()), zone)
    if word == "yesterday":
        return _at(datetime.combine(today - timedelta(days=1), time()), zone)
    if ago := _AGO.fullmatch(word):
        return now - timedelta(seconds=sum(int(n) * _SECONDS[u] for n, u in re.findall(r"(\d+)([smhdw])", ago[1])))
    if _CLOCK.fullmatch(word):
        return _at(datetime.combine(today, time.fromisoformat("0" + word if word[1] == ":" else word)), zone)
    if _EPOCH.fullmatch(word):
        return _from_epoch(word)
    if word.isdigit():
        raise ValueError
    return _at(datetime.fromisoformat(word.upper()), zone)


def _at(moment: datetime, zone: tzinfo | None) -> datetime:
    """Put a naive time into the zone; leave an aware one as it is."""
    if moment.tzinfo is not None:
        return moment
    return moment.astimezone() if zone is None else moment.replace(tzinfo=zone)


def _from_epoch(word: str) -> datetime:
    whole, _, fraction = word.partition(".")
    for end, unit in _EPOCH_UNITS:
        if int(whole) < end:
            microseconds = int(whole + fraction) * 1_000_000 // (unit * 10 ** len(fraction))
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    raise ValueError

"""Kinds of values in requests: levels, times and durations, as people and the two seed services write them."""

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ValidatorFunctionWrapHandler, WithJsonSchema, WrapValidator


class Level(StrEnum):
    """The levels of a stored record: the names of the syslog severities, the most severe first."""

    EMERGENCY = "EMERGENCY"
    ALERT = "ALERT"
    CRITICAL = "CRITICAL"
    ERROR = "ERROR"
    WARNING = "WARNING"
    NOTICE = "NOTICE"
    INFO = "INFO"
    DEBUG = "DEBUG"


class Seed1Level(StrEnum):
    """The levels that seed 1 takes."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    DEBUG = "DEBUG"


class EntryLevel(StrEnum):
    """The levels that seed 2 takes."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


def _plus(value: object) -> object:
    """Give a zone back its plus sign, which an unquoted URL turned into a space."""
    return re.sub(r" (?=\d\d:?\d\d$)", "+", value) if isinstance(value, str) and "T" in value.upper() else value


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("the time is out of the years 1 to 9999 in UTC") from None


#: RFC 3339, without a zone (then UTC), a date, or seconds or milliseconds since 1970. Always aware and UTC afterwards.
Time = Annotated[datetime, BeforeValidator(_plus), AfterValidator(_utc)]

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _interval(value: object) -> object:
    found = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", value) if isinstance(value, str) else None
    if not found or not int(found[1]):
        said = repr(value)[:100]
        raise ValueError(f"expected a whole number above 0 of seconds, or with a unit (s m h d w) as in 5m, not {said}")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def _since(value: object, as_time: ValidatorFunctionWrapHandler) -> object:
    """Take a duration, which needs a unit, for a bare number is a time."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]+[smhdw]", value):
        return _interval(value)
    return as_time(value)


Interval = Annotated[
    timedelta, BeforeValidator(_interval), WithJsonSchema({"type": "string", "examples": ["5m", "60"]})
]


#: A time; or how long before the end of the range, then a timedelta.
Since = Annotated[
    Time, WrapValidator(_since), WithJsonSchema({"type": "string", "examples": ["1h", "2026-11-20T10:00:00Z"]})
]


def ago(end: datetime, span: timedelta) -> datetime:
    """Return the time so long before, or the first there is."""
    try:
        return end - span
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)

"""Values become fields: what a sender wrote under a name of the table to what a record holds; None where it cannot.

Every function here takes any value of JSON and raises nothing.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from logagg.protocols import jsontext
from logagg.protocols.levels import facility_of as facility_of
from logagg.protocols.levels import severity_of as severity_of
from logagg.protocols.times import from_epoch, to_datetime

#: Levels of Windows events: 0 always logged, 1 critical, 2 error, 3 warning, 4 information, 5 verbose.
_WINDOWS: Final = (6, 2, 3, 4, 6, 7)
#: OpenTelemetry, Logs Data Model, SeverityNumber: four numbers each of trace, debug, info, warn, error, fatal.
_OTEL: Final = (7, 7, 6, 4, 3, 2)
_HIGHEST_PRI: Final = 191


def text(value: Any) -> str | None:
    """Take a text that is not empty."""
    return value or None if isinstance(value, str) else None


def only_text(value: Any) -> str | None:
    """Take a text as the message; other values mean something else under such a name."""
    return value if isinstance(value, str) else None


def line(value: Any) -> str | None:
    """Take a line as Docker and what reads its files write it, with its end."""
    return value.removesuffix("\n").removesuffix("\r") if isinstance(value, str) else None


def message(value: Any) -> str:
    """Take anything: what is no text becomes its JSON. Raises ValueError when that is nested too deeply."""
    return value if isinstance(value, str) else jsontext.dumps(value)


def identifier(value: Any) -> str | None:
    """Take a text; or a number, as Datadog writes its ids."""
    return str(value) if type(value) is int else text(value)


def container(value: Any) -> str | None:
    """Take the name of a container, which Docker begins with a slash."""
    return value.removeprefix("/") or None if isinstance(value, str) else None


def google_trace(value: Any) -> str | None:
    """Take the id of `projects/PROJECT/traces/ID`."""
    return value.rpartition("/")[2] or None if isinstance(value, str) else None


def time(value: Any) -> datetime | None:
    """Take a point in time as `to_datetime` does; or an object of Log4j 2, of protobuf's JSON, or of MongoDB."""
    if type(value) is not dict:
        return to_datetime(value)
    for seconds, nanos in (("epochSecond", "nanoOfSecond"), ("seconds", "nanos")):
        if type(value.get(seconds)) is int:
            moment, more = from_epoch(value[seconds]), value.get(nanos)
            rest = timedelta(microseconds=more // 1000 if type(more) is int and 0 <= more < 10**9 else 0)
            return moment + rest if moment is not None else None
    return to_datetime(value.get("$date"))


def windows_level(value: Any) -> int | None:
    """Take the number of a level of Windows events; or what is a level anywhere."""
    if type(value) is int:
        return _WINDOWS[value] if 0 <= value < len(_WINDOWS) else None
    return severity_of(value)


def otel_severity(value: Any) -> int | None:
    """Take a number 1 to 24."""
    return _OTEL[(value - 1) // 4] if type(value) is int and 1 <= value <= 4 * len(_OTEL) else None


def pri_severity(value: Any) -> int | None:
    """Take the severity of a syslog PRI, RFC 5424 section 6.2.1."""
    return None if (pri := _pri(value)) is None else pri % 8


def pri_facility(value: Any) -> int | None:
    """Take the facility of a syslog PRI."""
    return None if (pri := _pri(value)) is None else pri // 8


def _pri(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 4:
        value = int(value)
    return value if type(value) is int and 0 <= value <= _HIGHEST_PRI else None

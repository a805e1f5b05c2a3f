"""The text forms of settings: durations such as `15m`, addresses such as `127.0.0.1:8000`, time zones."""

import json
import re
from datetime import timedelta, tzinfo
from typing import Annotated, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, PlainSerializer

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])?")


class Address(NamedTuple):
    """Where to listen. Port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_duration(value: object) -> timedelta:
    """Read `50ms`, `10s`, `15m`, `1h`, `7d`, `2w`.

    Without a unit nothing but 0 is taken: is it seconds, or days?
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(str(value).strip())
    if not match or (match[2] is None and float(match[1])):
        raise ValueError(f"{value!r} is no duration; expected a number and a unit, such as 50ms, 10s, 15m, 1h, 7d")
    try:
        return timedelta(seconds=float(match[1]) * _SECONDS[match[2] or "s"])
    except OverflowError:
        raise ValueError(f"{value!r} is too long; at most {timedelta.max.days}d") from None


def format_duration(value: timedelta) -> str:
    """Write a duration in the largest unit that divides it."""
    milliseconds = round(value.total_seconds() * 1000)
    for unit in ("d", "h", "m", "s"):
        size = int(_SECONDS[unit] * 1000)
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def parse_address(value: object) -> Address | None:
    """`HOST:PORT`, `[IPV6]:PORT` or `:PORT` (127.0.0.1); empty text turns the listener off."""
    if value is None or isinstance(value, Address):
        return value
    text = str(value).strip()
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is no address; expected HOST:PORT with a port of 0 to 65535, or nothing for off")
    return Address(host, int(port))


def _address_text(value: Address | None) -> str:
    return str(value) if value else ""


def _database_url(value: object) -> object:
    if value and not str(value).startswith(("postgresql://", "postgres://")):
        raise ValueError("not an address of PostgreSQL; expected postgresql://user@host/database")
    return value or None


def _zone(value: object) -> tzinfo:
    if isinstance(value, tzinfo):
        return value
    try:
        return ZoneInfo(str(value))
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{value!r} is no time zone; expected a name such as UTC or Europe/Berlin") from None


def _table(value: object) -> object:
    """Read what is a table in the file, and a JSON object in the environment."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "{}")
    except ValueError as error:
        raise ValueError(f"no JSON object: {error}") from None


def _table_text(value: dict[str, str]) -> str:
    return json.dumps(value) if value else ""


def parse_keeps(value: object) -> dict[str, timedelta]:
    """Read `service=NAME` or `environment=NAME` -> how long its records are kept."""
    table = _table(value)
    if not isinstance(table, dict):
        raise ValueError(f"{table!r} is no table")
    for key in table:
        if str(key).partition("=")[:2] not in {("service", "="), ("environment", "=")}:
            raise ValueError(f"{key!r}: expected service=NAME or environment=NAME")
    spans = {key: parse_duration(text) for key, text in table.items()}
    if short := [key for key, span in spans.items() if not span]:
        raise ValueError(f"{short[0]}: 0 is no time to keep records for")
    return spans


def _spans_text(value: dict[str, timedelta]) -> str:
    return _table_text({key: format_duration(span) for key, span in value.items()})


Table = Annotated[dict[str, str], BeforeValidator(_table), PlainSerializer(_table_text, return_type=str)]
Keeps = Annotated[dict[str, timedelta], BeforeValidator(parse_keeps), PlainSerializer(_spans_text, return_type=str)]
DatabaseUrl = Annotated[str | None, BeforeValidator(_database_url)]
Zone = Annotated[tzinfo, BeforeValidator(_zone), PlainSerializer(str, return_type=str)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)]
Listen = Annotated[Address | None, BeforeValidator(parse_address), PlainSerializer(_address_text, return_type=str)]

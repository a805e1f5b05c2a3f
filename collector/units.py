"""The text forms of settings: durations such as `15m`, and addresses such as `127.0.0.1:8000`."""

import re
from datetime import timedelta
from typing import Annotated, NamedTuple

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


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)]
Listen = Annotated[Address | None, BeforeValidator(parse_address), PlainSerializer(_address_text, return_type=str)]

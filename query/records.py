"""Records as they are given out: rows of a frame as dicts, in the form of the HTTP contract."""

from typing import Any

import orjson
import polars as pl

from logagg.protocols.record import LEVELS
from logagg.query import attributes

_COLUMNS = (
    *("id", "timestamp", "received_at", "severity", "service", "host", "environment", "source", "facility"),
    *("message", "attributes", "trace_id", "span_id"),
)
KEYS = tuple("level" if name == "severity" else name for name in _COLUMNS)


def to_records(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Return a dict a row: `KEYS`, times as aware datetimes, the level's name, attributes as a dict."""
    columns: dict[str, list[Any]] = {name: frame[name].to_list() for name in _COLUMNS}
    columns["severity"] = [LEVELS[severity] for severity in columns["severity"]]
    columns["attributes"] = [{} if text is None else _object(text) for text in columns["attributes"]]
    return [dict(zip(KEYS, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _object(text: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except ValueError:  # a number beyond a double, or nested too deeply
        (found,) = attributes.parse([text])
    return found if isinstance(found, dict) else {"": found}

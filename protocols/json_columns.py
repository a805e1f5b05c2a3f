"""Many JSON objects to columns at once, a third of the cost of one record after the other.

It takes what most senders send: the canonical names, values as most are. All else `json_lines` takes, which is the
reference: where this module answers, both give the same records, and a test holds them to it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import polars as pl

from logagg.protocols import jsontext
from logagg.protocols.columns import COLUMNS, TIME, Columnar, constant, times
from logagg.protocols.json_lines import decode_body as decode_body_one_by_one
from logagg.protocols.json_lines import decode_lines as decode_one_by_one
from logagg.protocols.levels import SEVERITY_OF_NAME
from logagg.protocols.mapping import CANONICAL, UNUSUAL
from logagg.protocols.record import Decoded, Origin
from logagg.protocols.stamps import microseconds

#: Fewer frames than this are not worth a polars frame.
FEW: Final = 64

_LOADS, _DUMPS = orjson.loads, orjson.dumps
#: PostgreSQL does not take this character; JSON can write it.
_NUL, _NUL_ESCAPE = "\0", jsontext.NUL_ESCAPE.decode()


class _Odd(Exception):
    """Not all objects are plain: they are for the reference."""


#: What a value that is not plain brings about.
_ODD = (_Odd, ValueError, TypeError, KeyError, IndexError)


def decode_lines(frames: Sequence[bytes], origin: Origin) -> Decoded | Columnar:
    """Decode frames of one JSON object each, as `json_lines.decode_lines` does."""
    if len(frames) >= FEW:
        try:
            return Columnar(_frame(list(map(_LOADS, frames)), origin), [])
        except _ODD:
            pass
    return decode_one_by_one(frames, origin)


def decode_body(body: bytes, origin: Origin) -> Decoded | Columnar:
    """Decode an array, lines, or a sequence of JSON objects, as `json_lines.decode_body` does."""
    try:
        objects = _LOADS(body) if body[:1] == b"[" else list(map(_LOADS, filter(None, body.split(b"\n"))))
        if len(objects) >= FEW:
            return Columnar(_frame(objects, origin), [])
    except _ODD:
        pass
    return decode_body_one_by_one(body, origin)


def _frame(objects: list[Any], origin: Origin) -> pl.DataFrame:
    """Make the columns; raises one of `_ODD` for what is not plain. Takes the objects over.

    Nothing here but making columns of lists: any other call of polars costs as much as a hundred records.
    """
    if set(map(type, objects)) != {dict}:
        raise _Odd
    count, names = len(objects), [name for name in CANONICAL if name in objects[0]]
    made = {name: [obj[name] for obj in objects] for name in names}
    others = UNUSUAL.union(CANONICAL).difference(names)
    columns = (
        constant(origin.environment, origin.peer, origin.now, count)
        | {
            "timestamp": _times(made["timestamp"]),
            "severity": pl.Series([SEVERITY_OF_NAME[level] for level in made["level"]], dtype=pl.Int8),
            "message": _texts(made["message"]),
            "attributes": _attributes(objects, names, others),
        }
        | {name: _names(made[name]) for name in ("host", "service") if name in made}
    )
    if columns["message"].null_count() or _NUL in "".join(made["message"]):
        raise _Odd
    return pl.DataFrame([columns[name].alias(name) for name in COLUMNS])


def _times(stamps: list[str]) -> pl.Series:
    """Read RFC 3339 in UTC; a compact date such as 20261122 is a number of seconds to the reference."""
    since = microseconds(stamps)
    if since is not None:
        return pl.Series(since).cast(TIME)
    read = list(map(datetime.fromisoformat, stamps))
    if {stamp[4] for stamp in stamps} != {"-"} or {time.tzinfo for time in read} != {UTC}:
        raise _Odd
    return times(read)


def _names(values: list[str | None]) -> pl.Series:
    names = [name or None for name in values]
    if _NUL in "".join(filter(None, set(names))):
        raise _Odd
    return _texts(names)


def _texts(values: list[str | None]) -> pl.Series:
    return pl.Series(values, dtype=pl.String)


def _attributes(objects: list[dict[str, Any]], names: list[str], others: frozenset[str]) -> pl.Series:
    """Return what is left of the objects without these fields, null for nothing. None of the `others` may be left."""
    count = len(names)
    left = [_without(obj, names, others) if len(obj) > count else None for obj in objects]
    texts = [None if obj is None else _DUMPS(obj).decode() for obj in left]
    joined = "\n".join(filter(None, texts))
    if _NUL_ESCAPE in joined:
        raise _Odd
    if jsontext.odd_numbers(joined):
        texts = [None if obj is None else jsontext.dumps(obj) for obj in left]
    return _texts(texts)


def _without(obj: dict[str, Any], names: list[str], others: frozenset[str]) -> dict[str, Any]:
    if not others.isdisjoint(obj):
        raise _Odd
    for name in names:
        del obj[name]
    return obj

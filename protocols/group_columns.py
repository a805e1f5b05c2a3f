"""Records of groups as columns: what is common is found once a group, what each has of its own is made by columns.

`Group.record` is the reference: both give the same records, and a test holds them to it. Records for which it takes the
long way are odd: it makes them here, too, and they take their places between the others.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import orjson
import polars as pl

from logagg.protocols import jsontext
from logagg.protocols.columns import COLUMNS, TIME, Columnar, constant, from_records
from logagg.protocols.groups import KNOWN, Group
from logagg.protocols.record import Origin, Record
from logagg.protocols.stamps import Integers

#: Fewer records than this cost more as a polars frame than one after the other.
FEW: Final = 64
#: What is not as most are brings about one of these: it is for the reference.
ODD: Final = (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError)

#: The columns that a group has in common.
_COMMON: Final = ("facility", "environment", "host", "service", "source")
_sender = attrgetter(*_COMMON)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUL: Final = "\0"
#: Types of which orjson writes all values as `jsontext` does.
_WRITTEN_ALIKE: Final = frozenset({str, int, bool, type(None)})

_T = TypeVar("_T")


class Rows(NamedTuple):
    """Records of groups, one group behind the other: what `Group.record` takes, a value a record in each."""

    groups: Sequence[Group]
    #: How many records each group has.
    counts: Sequence[int]
    #: Microseconds since 1970, between the years 1 and 9999.
    since: Integers
    #: Places of the records that have no time.
    timeless: set[int]
    messages: Sequence[str | None]
    #: Taken over.
    own: Sequence[dict[str, Any]]
    severities: Sequence[int | None]
    #: None where no record has one.
    trace_ids: Sequence[str | None] | None = None
    span_ids: Sequence[str | None] | None = None

    def record(self, group: Group, place: int) -> Record:
        """Make the record of this place, whose group this is, as the reference does."""
        time = None if place in self.timeless else _EPOCH + timedelta(microseconds=int(self.since[place]))
        trace_id = self.trace_ids[place] if self.trace_ids else None
        ids = trace_id, self.span_ids[place] if self.span_ids else None
        return group.record(time, self.messages[place], self.own[place], self.severities[place], ids)


def decode(rows: Rows, origin: Origin) -> Columnar:
    """Turn rows into records. Raises one of ODD where too much is odd, or something would have to be replaced."""
    places = sorted(_odd(rows))
    if len(places) * 4 > len(rows.messages):
        raise ValueError(f"{len(places)} records are odd")
    columns = _columns(rows, origin)
    frame = pl.DataFrame([columns[name].alias(name) for name in COLUMNS])
    if places:
        groups = list(_each(rows.groups, rows.counts))
        records = from_records([rows.record(groups[place], place) for place in places])
        plain = np.delete(np.arange(len(frame)), places)
        frame = pl.concat([frame[plain], records])[np.argsort(np.concatenate([plain, places]))]
    return Columnar(frame, [])


def _each(values: Iterable[_T], counts: Iterable[int]) -> Iterable[_T]:
    """Repeat what groups have for each of their records."""
    return chain.from_iterable(map(repeat, values, counts))


def _odd(rows: Rows) -> set[int]:
    """Return the places for which the reference takes the long way."""
    odd = {*rows.timeless, *_of_groups(rows), *_of_their_own(rows)}
    if None in rows.messages:
        odd.update(place for place, message in enumerate(rows.messages) if message is None)
    return odd


def _of_groups(rows: Rows) -> Iterable[int]:
    """Give the places of records that do not go together with what is common."""
    begin = 0
    for group, count in zip(rows.groups, rows.counts, strict=True):
        levels = rows.severities[begin : begin + count]
        if not group.plain or (group.levelled and levels.count(None) < count):
            yield from range(begin, begin + count)
        elif None in levels and group.template(levelled=True)[3:] != group.template(levelled=False)[3:]:
            yield from (begin + place for place, level in enumerate(levels) if level is not None)
        begin += count


def _of_their_own(rows: Rows) -> Iterable[int]:
    """Give the places of records with a field of their own that is more than an attribute."""
    names = set[str]().union(*rows.own)
    known = KNOWN[None not in rows.severities]
    if known.isdisjoint(names) and all(group.common.keys().isdisjoint(names) for group in rows.groups):
        return
    groups = _each(rows.groups, rows.counts)
    for place, (group, own, level) in enumerate(zip(groups, rows.own, rows.severities, strict=True)):
        if own and not group.is_plain(own, level is not None):
            yield place


def _columns(rows: Rows, origin: Origin) -> dict[str, pl.Series]:
    """Make all columns; at odd places they have anything."""
    count, counts = len(rows.messages), rows.counts
    templates = [
        group.template(levelled=False)
        if None in rows.severities[begin : begin + size]
        else group.template(levelled=True)
        for group, begin, size in zip(rows.groups, np.cumsum([0, *counts])[:-1].tolist(), counts, strict=True)
    ]
    columns = constant(origin.environment, origin.peer, origin.now, count)
    for name, values in zip(_COMMON, zip(*map(_sender, templates), strict=True), strict=True):
        if len(set(values)) == 1:
            columns[name] = pl.Series(values[:1], dtype=COLUMNS[name]).new_from_index(0, count)
        else:
            columns[name] = pl.Series(list(_each(values, counts)), dtype=COLUMNS[name])
    severities: Sequence[int | None] = rows.severities
    if None in severities:
        usual = _each([template.severity for template in templates], counts)
        severities = [own if level is None else level for own, level in zip(usual, severities, strict=True)]
    columns["timestamp"] = pl.Series(rows.since).cast(TIME)
    columns["severity"] = pl.Series(severities, dtype=pl.Int8)
    columns["message"] = _texts(rows.messages)
    columns["attributes"] = _attributes(rows.own, [template.attributes for template in templates], counts)
    for name, ids in (("trace_id", rows.trace_ids), ("span_id", rows.span_ids)):
        if ids:
            columns[name] = _texts(ids)
    return columns


def _texts(texts: Sequence[str | None]) -> pl.Series:
    """Return a column of what senders wrote; raises ValueError for a NUL in it."""
    if _NUL in "".join(filter(None, texts)):
        raise ValueError("NUL in a text")
    return pl.Series(texts, dtype=pl.String)


def _attributes(own: Sequence[dict[str, Any]], common: Sequence[str | None], counts: Sequence[int]) -> pl.Series:
    """Return the attributes: what records have of their own behind what is common; raises ValueError for a NUL."""
    texts = _dumps(own)
    if jsontext.NUL_ESCAPE in b"".join(filter(None, texts)):
        raise ValueError("NUL in an attribute")
    if any(common):
        alone = [None if text is None else text.encode() for text in common]
        heads = [None if text is None else b"%b," % text[:-1] for text in alone]
        texts = [
            whole if text is None else text if head is None else head + text[1:]
            for whole, head, text in zip(_each(alone, counts), _each(heads, counts), texts, strict=True)
        ]
    # Reading text from bytes costs less than to make the texts first.
    return pl.Series(texts, dtype=pl.Binary).cast(pl.String)


def _dumps(objects: Sequence[dict[str, Any]]) -> list[bytes | None]:
    """Write objects as `jsontext.dumps` does, None for empty ones."""
    if set(map(type, chain.from_iterable(map(dict.values, objects)))) <= _WRITTEN_ALIKE:
        try:
            return [orjson.dumps(obj) if obj else None for obj in objects]
        except TypeError:
            pass  # an integer beyond 64 bits
    return [jsontext.dumps(obj).encode() if obj else None for obj in objects]

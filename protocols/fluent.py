"""Fluent events to records: `[time, record]` in msgpack, as fluent-bit, fluentd and fluent-logger write them.

Three transports carry them: Forward (`forward.py`), HTTP with `application/msgpack`, and plain TCP, one event behind
the other. A time is an EventTime (ext type 0: seconds and nanoseconds, four bytes each, big-endian), seconds as a
number, or `[time, metadata]` (fluent-bit 2.1 and later). 0 means now, as in fluentd.

Many events with plain values become columns at once (`json_columns.py`). All else is read one event after the other,
and that is the reference: invalid UTF-8 and NUL become U+FFFD and the event's bytes are kept, an unknown ext type
becomes hex text, a key that is no text becomes its JSON, and what is no event is a reject.

https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1.5
"""

import json
import re
from collections.abc import Sequence
from copy import deepcopy
from itertools import repeat
from typing import Any, Final, NamedTuple

import msgpack
import orjson
import polars as pl

from logagg.protocols import jsontext
from logagg.protocols.columns import Columnar, from_records
from logagg.protocols.framing import Cut
from logagg.protocols.json_columns import FEW, decode_objects
from logagg.protocols.limits import MOST_RECORDS
from logagg.protocols.mapping import from_object
from logagg.protocols.msgpacked import (
    ARRAYS,
    FEW_SECONDS,
    MAPS,
    Cleaner,
    event_times,
    name_of,
    pieces,
    split,
    time_of,
    trouble_of,
    unpack,
    unpack_all,
)
from logagg.protocols.record import Decoded, Origin, Record, Reject
from logagg.protocols.times import to_datetime

#: Where a record has a field `tag` of its own, the tag of the event is an attribute of this name.
OTHER_TAG: Final = "fluent_tag"

#: fluent-bit puts events that belong together (those of one OTLP resource) between two entries that are no events:
#: their seconds are -1 and -2, and the record of the first is what all have in common (flb_log_event.h).
_GROUP_START, _GROUP_END = -1, -2
_NUMBERS = frozenset({int, float})

#: Bytes of events that are unpacked together: a byte may become an object of seventy.
_TOGETHER: Final = 5 << 19  # fluent-bit's chunks are of two megabytes
MOST_UNPACKED: Final = 4 << 20
#: How many of one message that are no events become a reject each.
_MOST_BAD: Final = 100
#: What begins with so many that are no events has none.
_MOST_TRIED: Final = 10_000
#: Names of a record that say when it was, better than the event's time.
_OWN_TIMES = frozenset({"timestamp", "@timestamp"})
_OURS = _OWN_TIMES | {"tag"}
#: null as orjson writes it within an object or array. It may also be a part of a text.
_NULL = re.compile(rb"null[,\]}]")  # begins with letters: to look for those is what costs the least


class Events(NamedTuple):
    """Events with the same tag."""

    #: Empty for none.
    tag: str
    #: Arrays and maps of msgpack, one after the other, all whole.
    packed: bytes
    #: How many there are.
    many: int


def decode_events(frames: list[bytes], origin: Origin) -> Decoded | Columnar:
    """Decode frames of one event each."""
    return _decode_body(b"".join(frames), ARRAYS, origin)


def decode_msgpack_body(body: bytes, origin: Origin) -> Decoded | Columnar:
    """Decode events one after the other, as fluent-bit's `http` output sends them; an object without a time will do."""
    return _decode_body(body, ARRAYS | MAPS, origin)


def _decode_body(body: bytes, starts: frozenset[int], origin: Origin) -> Decoded | Columnar:
    groups, rejects = find_events("", body, origin, starts)
    decoded = decode(groups, origin)
    decoded.rejects.extend(rejects)
    return decoded


def decode_cut(cut: list[Cut], origin: Origin) -> Decoded:
    """Decode frames that were cut; a `MsgpackFramer` cuts none."""
    return Decoded([], [reject(origin, f"event of {whole.length} bytes, cut", whole.frame) for whole in cut])


def find_events(
    tag: str, packed: bytes, origin: Origin, starts: frozenset[int] = ARRAYS
) -> tuple[list[Events], list[Reject]]:
    """Find the events of `packed`, some megabytes together; what comes behind them and cannot be one is a reject."""
    found, many, start = list[Events](), 0, 0
    for end, count, trouble in pieces(packed, _TOGETHER, starts):
        found.append(Events(tag, packed[start:end], count))
        many, start = many + count, end
        if not trouble and many > MOST_RECORDS and end < len(packed):
            trouble = f"more than {MOST_RECORDS} events"
        if trouble:
            return found, [reject(origin, f"{trouble}, behind {many} events", packed[end:])]
    return found, []


def decode(groups: list[Events], origin: Origin) -> Decoded | Columnar:
    """Turn events into records."""
    done, waiting, size = list[Decoded | Columnar](), list[Events](), 0
    for events in groups:
        if waiting and size + len(events.packed) > _TOGETHER:
            done.append(_decode_together(waiting, origin))
            waiting, size = [], 0
        waiting.append(events)
        size += len(events.packed)
    if not done:
        return _decode_together(waiting, origin)
    done.append(_decode_together(waiting, origin))
    frames = [each.records if isinstance(each, Columnar) else from_records(each.records) for each in done]
    return Columnar(pl.concat(frames, rechunk=False), [reject for each in done for reject in each.rejects])


def _decode_together(groups: list[Events], origin: Origin) -> Decoded | Columnar:
    many, size = sum(events.many for events in groups), sum(len(events.packed) for events in groups)
    if many >= FEW and size <= MOST_UNPACKED:
        tags = [tag for events in groups for tag in repeat(events.tag, events.many)]
        try:
            return decode_plain(unpack_all([events.packed for events in groups], many), tags, origin)
        except (ValueError, TypeError):
            pass  # the reference has the last word
    decoded = Decoded([], [])
    for events in groups:
        _decode_one_by_one(events, origin, decoded)
    return decoded


def decode_plain(entries: list[Any], tags: list[str], origin: Origin) -> Decoded | Columnar:
    """Turn unpacked events, each with its tag, into records. Takes them over.

    Raises ValueError or TypeError where one of them is not plain: all are for the reference then.
    """
    return _with_services(decode_objects(_plain(entries, tags), origin), tags)


def reject(origin: Origin, reason: str, raw: bytes) -> Reject:
    """Make a reject of this origin."""
    return Reject(origin.now, origin.transport, origin.peer, reason, raw)


def _plain(entries: list[Any], tags: list[str]) -> list[dict[str, Any]]:
    """Return the records of plain events as objects of JSON, with time and tag. Takes the entries over.

    Raises ValueError or TypeError for events that are not plain.
    """
    times, objects = zip(*entries, strict=True)
    if set(map(type, objects)) != {dict} or not _OURS.isdisjoint(set().union(*objects)):
        raise ValueError
    for fields, time, tag in zip(objects, _times(times), tags, strict=True):
        fields["timestamp"] = time
        if tag:
            fields["tag"] = tag
    try:
        text = orjson.dumps(objects)
    except TypeError:  # fluentd sends the text of files as binary
        text = orjson.dumps(list(map(_with_text, objects)))
    if jsontext.has_nul(text):
        raise ValueError
    if _NULL.search(text):  # orjson writes null for NaN too
        for fields in objects:
            if _NULL.search(orjson.dumps(fields)):
                json.dumps(fields, allow_nan=False)
    return list(objects)


def _times(times: Sequence[Any]) -> Sequence[float]:
    """Return the times of plain events as numbers. Those of before 1973, 0 and NaN are for the reference."""
    kinds = set(map(type, times))
    if kinds == {list}:
        times, metadata = zip(*times, strict=True)
        if any(metadata) or set(map(type, metadata)) != {dict}:
            raise ValueError
        kinds = set(map(type, times))
    if kinds == {slice}:
        return event_times(times)
    if not kinds <= _NUMBERS or not all(time >= FEW_SECONDS for time in times):
        raise ValueError
    return times


def _with_text(fields: dict[str, Any]) -> dict[str, Any]:
    for name, value in fields.items():
        if type(value) is bytes:
            fields[name] = value.decode()
    return fields


def _with_services(decoded: Decoded | Columnar, tags: list[str]) -> Decoded | Columnar:
    """Let the tag be the service of records that name none."""
    if isinstance(decoded, Columnar):
        services = decoded.records["service"]
        if services.null_count():
            others = pl.Series("service", [tag or None for tag in tags], dtype=pl.String)
            services = services.zip_with(services.is_not_null(), others)
        return Columnar(decoded.records.with_columns(services), decoded.rejects)
    pairs = zip(decoded.records, tags, strict=True)
    records = [record if record.service or not tag else record._replace(service=tag) for record, tag in pairs]
    return Decoded(records, decoded.rejects)


def _decode_one_by_one(events: Events, origin: Origin, decoded: Decoded) -> None:
    """Decode events, each for itself. Many that are none become one reject, behind the first of them."""
    packed, start, group, bad = events.packed, 0, dict[str, Any](), list[tuple[str, bytes]]()
    before = len(decoded.records)
    for end in split(packed)[0]:
        if len(bad) == _MOST_TRIED and len(decoded.records) == before:
            bad.append((f"behind {len(bad)} that are no events", packed[start:]))
            break
        entry, start = packed[start:end], end
        cleaner = Cleaner()
        try:
            if len(entry) > MOST_UNPACKED:
                raise ValueError(f"event of {len(entry)} bytes, at most {MOST_UNPACKED}")
            time, metadata, fields = map(cleaner.value, _event(unpack(entry, cleaner.object)))
            if time in (_GROUP_START, _GROUP_END):
                group = fields if time == _GROUP_START else {}
                continue
            if metadata or group:  # as fluent-bit's `http` output writes them
                internal = {"log_metadata": metadata, "group_attributes": deepcopy(group)}
                fields["__internal__" if "__internal__" not in fields else "fluent_metadata"] = internal
            record = _record(events.tag, time, fields, origin, entry if cleaner.replaced else None)
            decoded.records.append(record)
        except (ValueError, TypeError) as error:
            bad.append((trouble_of(error), entry))
        except RecursionError:
            bad.append((f"event of {len(entry)} bytes, nested too deeply", entry))
    if rest := bad[_MOST_BAD:]:
        bad[_MOST_BAD:] = [(f"{len(rest)} more that are no events: {rest[0][0]}", b"".join(raw for _, raw in rest))]
    decoded.rejects.extend([reject(origin, why, raw) for why, raw in bad])


def _event(entry: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return time, metadata and record. Raises ValueError for what is no event."""
    if isinstance(entry, dict):
        return None, None, entry
    if not isinstance(entry, list) or len(entry) < 2:
        raise ValueError(f"no event, but {name_of(entry)}; expected an array of a time and a record")
    time, fields, metadata = entry[0], entry[1], None
    if isinstance(time, list) and time:
        time, metadata = time[0], time[1] if len(time) > 1 else None
    if isinstance(time, msgpack.Timestamp):
        time = time_of(time.to_unix_nano())
    if time is not None and type(time) not in _NUMBERS:
        raise ValueError(f"event whose time is {name_of(time)}, expected an EventTime or a number")
    if not isinstance(fields, dict):
        raise ValueError(f"event whose record is {name_of(fields)}, expected a map")
    return time, metadata, fields


def _record(tag: str, time: Any, fields: dict[str, Any], origin: Origin, raw: bytes | None) -> Record:
    """Make the record.

    A `timestamp` or `@timestamp` of its own is nearer the truth than the event's time, which may be that of reading it.
    That is then the attribute `date`, as fluent-bit's `http` output calls it.
    """
    if time:
        if _OWN_TIMES.isdisjoint(fields):
            fields["timestamp"] = time
        elif moment := to_datetime(time):
            fields.setdefault("date", moment.isoformat())
    if tag:
        fields[OTHER_TAG if "tag" in fields else "tag"] = tag
    record = from_object(fields, origin, raw)
    return record if record.service or not tag else record._replace(service=tag)

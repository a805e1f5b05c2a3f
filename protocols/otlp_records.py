"""Log records of OpenTelemetry, of fields as both encodings of OTLP give them: one, or many as columns.

`record` is the reference: `decode` makes the same of many, and a test holds it to that.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import numpy as np

from logagg.protocols import group_columns, jsontext
from logagg.protocols.columns import Columnar
from logagg.protocols.group_columns import Rows
from logagg.protocols.groups import Group
from logagg.protocols.levels import severity_of
from logagg.protocols.record import Origin, Record

#: Syslog severity of severityNumber 1 to 24: four each of TRACE, DEBUG, INFO, WARN, ERROR and FATAL; 0 says nothing.
_SEVERITIES: Final = (None, *(severity for severity in (7, 7, 6, 4, 3, 2) for _ in range(4)))
#: What a level's name stands for; other numbers say more than it, and are kept.
_USUAL: Final = frozenset({0, 5, 9, 13, 17, 21})

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: A record observed so much later than it happened says when, as `observed_timestamp`: nanoseconds.
_LATE: Final = 1_000_000_000


class Fields(NamedTuple):
    """A record's fields, besides its attributes; nothing is 0, empty or None."""

    #: Nanoseconds since 1970; or what is no number, which the record will tell of.
    time: Any
    observed: Any
    severity_number: int
    severity_text: str
    body: Any
    trace_id: str
    span_id: str
    flags: Any
    dropped: Any
    event_name: str


class Columns(NamedTuple):
    """The same of many records, a value a record in each."""

    times: Sequence[int]
    observed: Sequence[int]
    severity_numbers: Sequence[int]
    severity_texts: Sequence[str]
    #: What is no text as `message_of` gives it.
    bodies: Sequence[str | None]
    trace_ids: Sequence[str]
    span_ids: Sequence[str]
    flags: Sequence[Any]
    dropped: Sequence[Any]
    event_names: Sequence[str]


def common_of(resource: dict[str, Any], scope: dict[str, Any], name: str, version: str) -> dict[str, Any]:
    """Return what is common to the records of a scope."""
    common = resource | scope
    for key in resource.keys() & scope.keys():
        if resource[key] != scope[key]:
            common[f"resource.{key}"] = resource[key]
    if name:
        common["otel.scope.name"] = name
    if version:
        common["otel.scope.version"] = version
    return common


def record(group: Group, fields: Fields, own: dict[str, Any], raw: bytes | None) -> Record:
    """Make a record. Takes its attributes over; raises ValueError for what is nested too deeply."""
    time, observed, number, text, body, trace_id, span_id, flags, dropped, event_name = fields
    severity, kept = _severity(number, text)
    _add_kept(own, kept)
    if flags:
        own.setdefault("flags", flags)
    if dropped:
        own.setdefault("dropped_attributes_count", dropped)
    if event_name:
        own.setdefault("event_name", event_name)
    if time and type(observed) is int and type(time) is int and abs(observed - time) >= _LATE and observed:
        own.setdefault("observed_timestamp", _rfc3339(observed))
    message = message_of(body)
    if message is None:
        message = event_name or None
    ids = trace_id or None, span_id or None
    return group.record(_to_datetime(time or observed), message, own, severity, ids, raw)


def decode(
    groups: Sequence[Group], counts: Sequence[int], columns: Columns, own: list[dict[str, Any]], origin: Origin
) -> Columnar:
    """Make records of groups, one group behind the other; raises one of `group_columns.ODD`. Takes attributes over."""
    levels = list(zip(columns.severity_numbers, columns.severity_texts, strict=True))
    meant = {level: _severity(*level) for level in set(levels)}
    more = {level: kept for level, (_, kept) in meant.items() if kept}
    for attributes, level in zip(own, levels, strict=True) if more else ():
        if level in more:
            _add_kept(attributes, more[level])
    _add(own, "flags", columns.flags)
    _add(own, "dropped_attributes_count", columns.dropped)
    _add(own, "event_name", columns.event_names)
    since, observed = np.array(columns.times, np.int64), np.array(columns.observed, np.int64)
    if min(since.min(), observed.min()) < 0:
        raise ValueError("a time before 1970")
    late = (np.abs(observed - since) >= _LATE) & (since > 0) & (observed > 0)
    for place in np.flatnonzero(late).tolist():
        own[place].setdefault("observed_timestamp", _rfc3339(columns.observed[place]))
    since = np.where(since == 0, observed, since)
    messages = columns.bodies
    if None in messages:
        both = zip(messages, columns.event_names, strict=True)
        messages = [name or None if message is None else message for message, name in both]
    timeless = set(np.flatnonzero(since == 0).tolist())
    severities = [meant[level][0] for level in levels]
    ids = _or_none(columns.trace_ids), _or_none(columns.span_ids)
    return group_columns.decode(Rows(groups, counts, since // 1000, timeless, messages, own, severities, *ids), origin)


def message_of(body: Any) -> str | None:
    """Return a body as text, None for none; raises ValueError for what is nested too deeply."""
    return body if type(body) is str or body is None else jsontext.dumps(body)


def _severity(number: int, text: str) -> tuple[int | None, dict[str, Any]]:
    """Return the severity, and what number and name say besides."""
    severity = _SEVERITIES[number] if 0 < number < len(_SEVERITIES) else None
    kept: dict[str, Any] = {} if number in _USUAL else {"severity_number": number}
    if text:
        said = severity_of(text)
        severity = said if severity is None else severity
        if said is None or said != severity:
            kept["severity_text"] = text
    return severity, kept


def _add_kept(own: dict[str, Any], kept: dict[str, Any]) -> None:
    for name, value in kept.items():
        if name != "severity_text":
            own.setdefault(name, value)
            continue
        if own.get(name, value) != value:
            own[f"attribute.{name}"] = own[name]
        own[name] = value


def _add(own: Iterable[dict[str, Any]], name: str, values: Sequence[Any]) -> None:
    if any(values):
        for attributes, value in zip(own, values, strict=True):
            if value:
                attributes.setdefault(name, value)


def _or_none(ids: Sequence[str]) -> Sequence[str | None] | None:
    return [each or None for each in ids] if any(ids) else None


def _to_datetime(nanoseconds: Any) -> Any:
    """Return the time, None for none given, or what is no time as it is."""
    if type(nanoseconds) is not int:
        return nanoseconds or None
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000) if nanoseconds else None
    except OverflowError:
        return str(nanoseconds)


def _rfc3339(nanoseconds: int) -> str:
    time = _to_datetime(nanoseconds)
    return time.isoformat().replace("+00:00", "Z") if isinstance(time, datetime) else str(nanoseconds)

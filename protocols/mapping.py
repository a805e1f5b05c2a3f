"""Names become fields: the one place where a JSON object of any sender is mapped to a record, without settings.

`names.FIELDS` is the table. Of several names of one field that an object has, the first in the table whose value can be
used wins, so the canonical name wins over all others; what was not used stays an attribute, under its own name. A null
says nothing, an empty text says something only as a message: a name that was tried with such a value is dropped.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from logagg.protocols import jsontext
from logagg.protocols.levels import DEFAULT_SEVERITY, SEVERITY_OF_NAME
from logagg.protocols.names import FIELDS as FIELDS
from logagg.protocols.names import INDEX, OPENED, TREE, others, shape_of, tries
from logagg.protocols.record import NOTE, Origin, Record
from logagg.protocols.times import from_bsd, trouble

#: The keys that the short way knows.
CANONICAL: Final = ("timestamp", "level", "message", "service", "host")
#: Those that it leaves to the long one: of an object with all five, of one without service or host.
_OTHERS: Final = others(frozenset((field, 0) for field in CANONICAL)).difference(CANONICAL)
_MORE_OTHERS: Final = others(frozenset((field, 0) for field in CANONICAL[:3])).difference(CANONICAL)

_TIMESTAMP, _LEVEL, _MESSAGE = INDEX["timestamp"], INDEX["level"], INDEX["message"]
_NOTHING: Final[list[Any]] = [None] * len(FIELDS)

_new = tuple.__new__


def from_object(obj: dict[str, Any], origin: Origin, raw: bytes | None = None) -> Record:
    """Make a record of an object, whose values are as `jsontext.loads` gives them. Takes the object over.

    `raw` is kept: give it when something of the object had to be replaced. Raises ValueError for an object that is
    nested too deeply to be written.
    """
    # The short way, for the canonical names and values as most are, gives what the long way gives, at half the cost.
    try:
        stamp, message = obj["timestamp"], obj["message"]
        severity = SEVERITY_OF_NAME[obj["level"]]
        timestamp = datetime.fromisoformat(stamp)
    except (KeyError, TypeError, ValueError):
        return _long_way(obj, origin, raw)
    service, host = obj.get("service"), obj.get("host")
    if (
        timestamp.tzinfo is not UTC
        or stamp[4] != "-"  # a compact date such as 20261122 is a number of seconds to `to_datetime`
        or type(message) is not str
        or not (service is None or type(service) is str)
        or not (host is None or type(host) is str)
    ):
        return _long_way(obj, origin, raw)
    attributes = None
    if len(obj) > len(CANONICAL) or not service or not host:
        if not (_OTHERS if service and host else _MORE_OTHERS).isdisjoint(obj):
            return _long_way(obj, origin, raw)
        del obj["timestamp"], obj["level"], obj["message"]
        obj.pop("service", None)
        obj.pop("host", None)
        attributes = jsontext.dumps(obj) if obj else None
    now, environment = origin.now, origin.environment
    sender = (environment, host or None, service or None, origin.peer)
    return _new(Record, (timestamp, now, severity, None, *sender, message, attributes, None, None, raw))


def add_note(record: Record, note: str) -> Record:
    """Say in the attributes what is unusual about a record, besides what they say already."""
    attributes = {} if record.attributes is None else jsontext.loads(record.attributes.encode()).value
    attributes[NOTE] = f"{attributes[NOTE]}; {note}" if NOTE in attributes else note
    return record._replace(attributes=jsontext.dumps(attributes))


def _long_way(obj: dict[str, Any], origin: Origin, raw: bytes | None) -> Record:
    """Try the names that an object has, in the order of the table."""
    if not OPENED.isdisjoint(obj):
        obj = _opened(obj)
    fields = _NOTHING.copy()
    refused: dict[int, Any] | None = None
    for field, outer, key, convert, keep, sure in tries(shape_of(obj, TREE)):
        if fields[field] is not None:
            continue
        holder = obj
        for name in outer:
            holder = holder[name]
        value = holder.get(key) if keep else holder.pop(key, None)  # gone already when all within it was used
        if value is not None:
            fields[field] = converted = convert(value)
            if converted is None and value != "":
                holder[key] = value
                if sure:
                    refused = refused or {}
                    refused.setdefault(field, value)
        if outer and not holder:
            drop_empty(obj, outer)
    if refused is not None or fields[_MESSAGE] is None:
        _explain(obj, fields, refused or {}, origin.now)
    timestamp, severity, message, service, host, environment, source, facility, trace_id, span_id = fields
    now, environment = origin.now, environment or origin.environment
    severity = DEFAULT_SEVERITY if severity is None else severity
    sender = (environment, host, service, source or origin.peer)
    attributes = jsontext.dumps(obj) if obj else None
    return _new(
        Record, (timestamp or now, now, severity, facility, *sender, message or "", attributes, trace_id, span_id, raw)
    )


def drop_empty(obj: dict[str, Any], outer: tuple[str, ...]) -> None:
    """Delete the object at the end of these keys, and those around it that are empty without it."""
    if len(outer) == 1:
        del obj[outer[0]]
        return
    holders = [obj]
    for name in outer:
        holders.append(holders[-1][name])
    for holder, name in zip(holders[-2::-1], outer[::-1], strict=True):
        if not holder[name]:
            del holder[name]


def _opened(obj: dict[str, Any]) -> dict[str, Any]:
    """Open what some senders wrap: fluent-bit what it had from OpenTelemetry, GELF the names of its own fields.

    No name takes the place of one that is there.
    """
    inner = obj.get("__internal__")
    if isinstance(inner, dict):
        for part in ("log_metadata", "group_attributes"):
            if isinstance(more := inner.get(part), dict):
                for key in [key for key in more if key not in obj]:
                    obj[key] = more.pop(key)
                if not more:
                    del inner[part]
        if not inner:
            del obj["__internal__"]
    if "short_message" in obj:
        obj = {_gelf_name(key, obj): value for key, value in obj.items()}
    return obj


def _gelf_name(key: str, obj: dict[str, Any]) -> str:
    """Give the name of an additional field without the underscore, https://go2docs.graylog.org (GELF payload)."""
    return key[1:] if len(key) > 1 and key[0] == "_" != key[1] and key[1:] not in obj else key


def _explain(obj: dict[str, Any], fields: list[Any], refused: dict[int, Any], now: datetime) -> None:
    """Read a time of syslog, without year, as long as there is no better one; say in a note what was not understood."""
    stamp = refused.get(_TIMESTAMP)
    if fields[_TIMESTAMP] is None and isinstance(stamp, str):
        fields[_TIMESTAMP] = from_bsd(stamp, now)
    if notes := "; ".join(_notes(fields, refused)):
        obj[NOTE] = notes


def _notes(fields: list[Any], refused: dict[int, Any]) -> Iterator[str]:
    if _TIMESTAMP in refused and fields[_TIMESTAMP] is None:
        yield trouble(refused[_TIMESTAMP])
    if _LEVEL in refused and fields[_LEVEL] is None:
        yield "unknown level"
    if fields[_MESSAGE] is None:
        yield "no message"

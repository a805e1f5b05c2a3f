"""Names become fields: the one place where a JSON object of any sender is mapped to a record, without settings.

`FIELDS` is the table. Of several names of one field that an object has, the first in the table whose value can be used
wins, so the canonical name wins over all others; what was not used stays an attribute, under its own name. A dotted
name stands for a nested object too: `service.name` for `{"service": {"name": ...}}`. A null says nothing, an empty text
says something only as a message.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from logagg.protocols import jsontext
from logagg.protocols.levels import DEFAULT_SEVERITY, SEVERITY_OF_NAME, facility_of, severity_of
from logagg.protocols.record import NOTE, Origin, Record
from logagg.protocols.times import to_datetime, trouble

#: The names of each field, in the order in which they are tried.
FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "timestamp": (
        *("timestamp", "@timestamp", "time", "ts", "date", "datetime", "eventTime", "Timestamp", "@t", "_time"),
        *("_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP"),
    ),
    "level": (
        *("level", "severity", "lvl", "loglevel", "log.level", "log_level", "levelname", "Level", "@l"),
        *("PRIORITY", "severity_text", "severityText"),
    ),
    "message": ("message", "msg", "MESSAGE", "short_message", "_msg", "log", "event", "body", "Message", "@m"),
    "service": (
        *("service", "service.name", "service_name", "serviceName", "app", "application", "appname", "app_name"),
        *("SYSLOG_IDENTIFIER", "ident", "program", "dd.service", "kubernetes.container_name", "container_name"),
    ),
    "host": (
        *("host", "hostname", "host.name", "host.hostname", "_HOSTNAME", "computer", "computer_name"),
        *("kubernetes.host",),
    ),
    "environment": ("environment", "env", "deployment.environment", "service.environment", "dd.env"),
    "source": ("source",),
    "facility": ("facility", "SYSLOG_FACILITY"),
    "trace_id": ("trace_id", "traceId", "trace.id", "traceid", "traceID", "TraceId", "dd.trace_id", "otelTraceID"),
    "span_id": ("span_id", "spanId", "span.id", "spanid", "spanID", "SpanId", "dd.span_id", "otelSpanID"),
}

#: Names of the message whose value counts only if it is text: others mean an object of their own by them.
_ONLY_TEXT = frozenset({"log", "event", "body"})

_INDEX = {field: index for index, field in enumerate(FIELDS)}
_TIMESTAMP, _LEVEL, _MESSAGE = _INDEX["timestamp"], _INDEX["level"], _INDEX["message"]

#: Name to its place in the table: the field's index, and the rank of the name among those of the field.
_PLACES = {name: (_INDEX[field], rank) for field, names in FIELDS.items() for rank, name in enumerate(names)}
#: What may hold nested names, and which.
_OUTER: dict[str, list[str]] = {}
for _outer, _dot, _inner in (name.partition(".") for name in _PLACES):
    if _dot:
        _OUTER.setdefault(_outer, []).append(_inner)

#: All keys that matter; those of the short ways, here and in `json_columns`, and those that they leave to the long one.
_KNOWN = frozenset(_PLACES.keys() | _OUTER.keys())
CANONICAL = frozenset({"timestamp", "level", "message", "service", "host"})
UNUSUAL = _KNOWN - CANONICAL

#: A try of the long way: the field, the key, the key within that or None, and what makes the field's value, or None.
_Try = tuple[int, str, str | None, Callable[[Any], Any]]

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
    if len(obj) > len(CANONICAL) or service is None or host is None:
        if not UNUSUAL.isdisjoint(obj):
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
    fields: list[Any] = [None] * len(FIELDS)
    refused: dict[int, Any] = {}
    known = tuple([key for key in obj if key in _KNOWN])
    for field, key, inner, convert in _tries(known, nested=dict in map(type, obj.values())):
        holder, name = (obj, key) if inner is None else (_object_at(obj, key), inner)
        value = holder.pop(name, None)
        if value is None:
            continue
        converted = convert(value) if fields[field] is None else None
        if converted is not None:
            fields[field] = converted
            if not holder and inner is not None:
                del obj[key]
        elif value != "":
            holder[name] = value
            refused.setdefault(field, value)
    timestamp, severity, message, service, host, environment, source, facility, trace_id, span_id = fields
    if (refused or message is None) and (notes := "; ".join(_notes(fields, refused))):
        obj[NOTE] = notes
    now, environment = origin.now, environment or origin.environment
    severity = DEFAULT_SEVERITY if severity is None else severity
    sender = (environment, host, service, source or origin.peer)
    attributes = jsontext.dumps(obj) if obj else None
    return _new(
        Record, (timestamp or now, now, severity, facility, *sender, message or "", attributes, trace_id, span_id, raw)
    )


def _object_at(obj: dict[str, Any], key: str) -> dict[str, Any]:
    value = obj.get(key)
    return value if isinstance(value, dict) else {}


@lru_cache(maxsize=1024)
def _tries(keys: tuple[str, ...], *, nested: bool) -> list[_Try]:
    """List what may be a field in an object with these keys, nested names too or not; the best of each field first."""
    names: list[tuple[str, str, str | None]] = [(key, key, None) for key in keys if key in _PLACES]
    if nested:
        names += [(f"{key}.{inner}", key, inner) for key in keys for inner in _OUTER.get(key, ())]
    names.sort(key=lambda name: _PLACES[name[0]])
    return [(_PLACES[name][0], key, inner, _converter(name)) for name, key, inner in names]


def _notes(fields: list[Any], refused: dict[int, Any]) -> Iterator[str]:
    if _TIMESTAMP in refused and fields[_TIMESTAMP] is None:
        yield trouble(refused[_TIMESTAMP])
    if _LEVEL in refused and fields[_LEVEL] is None:
        yield "unknown level"
    if fields[_MESSAGE] is None:
        yield "no message"


def _converter(name: str) -> Callable[[Any], Any]:
    field = _PLACES[name][0]
    if field == _MESSAGE:
        return _only_text if name in _ONLY_TEXT else _message
    return _CONVERTERS.get(field, _text)


def _message(value: Any) -> str:
    return value if isinstance(value, str) else jsontext.dumps(value)


def _only_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _text(value: Any) -> str | None:
    return value or None if isinstance(value, str) else None


def _identifier(value: Any) -> str | None:
    """Take a text; or a number, as Datadog writes its ids."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)


_CONVERTERS: Final[dict[int, Callable[[Any], Any]]] = {
    _TIMESTAMP: to_datetime,
    _LEVEL: severity_of,
    _INDEX["facility"]: facility_of,
    _INDEX["trace_id"]: _identifier,
    _INDEX["span_id"]: _identifier,
}

"""OTLP's logs in JSON, which is proto3's with ids in hexadecimal.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding. A value that is not of its form is kept as it is.
"""

import base64
import binascii
import re
from collections.abc import Callable
from itertools import chain, islice
from typing import Any, Final

from logagg.protocols import group_columns, jsontext, otlp_records
from logagg.protocols.columns import Columnar
from logagg.protocols.groups import Group
from logagg.protocols.http import Malformed
from logagg.protocols.limits import few_enough
from logagg.protocols.otlp_records import Columns, Fields, common_of, message_of
from logagg.protocols.record import Decoded, Origin, Reject

_NAMES: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
#: Names of the numbers 1 to 24: INFO, INFO2, INFO3, INFO4, WARN ...
_NUMBERS: Final = {
    f"SEVERITY_NUMBER_{name}{step if step > 1 else ''}": 4 * place + step
    for place, name in enumerate(_NAMES)
    for step in (1, 2, 3, 4)
}
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
#: Lengths of an id of 16 or 8 bytes in base64, which is how proto3's usual JSON has bytes.
_BASE64_LENGTHS: Final = (24, 12)

_FIELDS: Final = (
    *("resourceLogs", "scopeLogs", "logRecords", "timeUnixNano", "observedTimeUnixNano", "severityNumber"),
    *("severityText", "traceId", "spanId", "eventName", "droppedAttributesCount", "stringValue", "boolValue"),
    *("intValue", "doubleValue", "arrayValue", "kvlistValue", "bytesValue"),
)
_CAMEL: Final = {re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name): name for name in _FIELDS}


def decode(body: bytes, origin: Origin) -> Decoded | Columnar:
    """Read a request, by columns where it has many records. Raises Malformed for what is no JSON object."""
    try:
        value, replaced = jsontext.loads(body)
        if not isinstance(value, dict):
            raise ValueError(f"JSON {jsontext.name_of(value)}, expected an object")
        if "resource_logs" in value:
            value = _camel_case(value)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"body of {len(body)} bytes: {error}") from None
    if not replaced:
        try:
            return _columns(value, origin)
        except group_columns.ODD:
            pass
    return _OneByOne(body, replaced, origin).decode(value)


class _OneByOne:
    """One body. What is not of the form is a reject, and its neighbours are read."""

    def __init__(self, body: bytes, replaced: bool, origin: Origin) -> None:
        self._body, self._origin = body, origin
        self._decoded = Decoded([], [])
        #: When something in the body was replaced, it is kept whole, with the first of its records.
        self._raw = body if replaced else None

    def decode(self, value: dict[str, Any]) -> Decoded:
        """Read the value of the body."""
        for of_resource in self._items(value, "resourceLogs"):
            for of_scope in self._items(of_resource, "scopeLogs"):
                if logs := few_enough(self._items(of_scope, "logRecords")):
                    self._add(of_resource.get("resource"), of_scope, logs)
                    few_enough(self._decoded.records)
        return self._decoded

    def _items(self, holder: Any, name: str) -> list[Any]:
        items = holder.get(name) if isinstance(holder, dict) else holder
        if items is None:
            return []
        if isinstance(holder, dict) and isinstance(items, list):
            return items
        self._reject(holder, ValueError(f"expected an object with an array {name}"))
        return []

    def _add(self, resource: Any, of_scope: dict[str, Any], logs: list[Any]) -> None:
        try:
            group = _group_of(resource, of_scope.get("scope"), self._origin)
        except (ValueError, RecursionError) as error:
            self._reject(of_scope, error)
            return
        for log in logs:
            try:
                if not isinstance(log, dict):
                    raise ValueError(f"JSON {jsontext.name_of(log)}, expected a log record")
                record = otlp_records.record(group, _fields_of(log), _attributes(log.get("attributes")), self._raw)
            except (ValueError, RecursionError) as error:
                self._reject(log, error)
            else:
                self._decoded.records.append(record)
                self._raw = None

    def _reject(self, value: Any, error: Exception) -> None:
        try:
            raw = jsontext.dumps(value).encode()
        except ValueError:  # too deep to be written
            raw = self._body
        origin = self._origin
        self._decoded.rejects.append(Reject(origin.now, origin.transport, origin.peer, str(error), raw))


def _group_of(resource: Any, scope: Any, origin: Origin) -> Group:
    # What is no object is kept as an attribute.
    resource, scope = (value if isinstance(value, dict) else {"attributes": value} for value in (resource, scope))
    name, version = _text(scope.get("name")), _text(scope.get("version"))
    attributes = _attributes(scope.get("attributes"))
    return Group(common_of(_attributes(resource.get("attributes")), attributes, name, version), origin, "resource")


def _fields_of(log: dict[str, Any]) -> Fields:
    get = log.get
    return Fields(
        _integer(get("timeUnixNano")),
        _integer(get("observedTimeUnixNano")),
        _severity_number(get("severityNumber")),
        _text(get("severityText")),
        _plain(get("body")),
        _identifier(get("traceId")),
        _identifier(get("spanId")),
        _integer(get("flags")),
        _integer(get("droppedAttributesCount")),
        _text(get("eventName")),
    )


def _columns(value: dict[str, Any], origin: Origin) -> Columnar:
    """Read a request of many records; raises one of `group_columns.ODD` for what is not of the form."""
    groups, counts, logs = list[Group](), list[int](), list[dict[str, Any]]()
    for of_resource in _list(value, "resourceLogs"):
        for of_scope in _list(of_resource, "scopeLogs"):
            some = _list(of_scope, "logRecords")
            groups.append(_group_of(of_resource.get("resource"), of_scope.get("scope"), origin))
            counts.append(len(some))
            logs += some
            few_enough(logs)
    if len(logs) < group_columns.FEW or set(map(type, logs)) != {dict}:
        raise ValueError("few records, or no objects")
    names = set[str]().union(*logs)

    def column(name: str, make: Callable[[list[Any]], list[Any]], nothing: Any) -> list[Any]:
        return make([log.get(name) for log in logs]) if name in names else [nothing] * len(logs)

    columns = Columns(
        column("timeUnixNano", _times, 0),
        column("observedTimeUnixNano", _times, 0),
        column("severityNumber", lambda values: _each(values, int, _severity_number), 0),
        column("severityText", _texts, ""),
        column("body", _messages, None),
        column("traceId", _identifiers, ""),
        column("spanId", _identifiers, ""),
        column("flags", lambda values: _each(values, int, _integer), None),
        column("droppedAttributesCount", lambda values: _each(values, int, _integer), None),
        column("eventName", _texts, ""),
    )
    own = _attributes_of_all([log.get("attributes") or [] for log in logs])
    return otlp_records.decode(groups, counts, columns, own, origin)


def _list(holder: Any, name: str) -> list[Any]:
    items = holder.get(name) if type(holder) is dict else holder
    if type(holder) is dict and (items is None or type(items) is list):
        return items or []
    raise ValueError(f"no object with an array {name}")


def _each(values: list[Any], kind: type, convert: Callable[[Any], Any]) -> list[Any]:
    """Convert values, of which those of this type are left as they are."""
    return values if set(map(type, values)) == {kind} else list(map(convert, values))


def _texts(values: list[Any]) -> list[str]:
    return _each(values, str, _text)


def _times(values: list[Any]) -> list[int]:
    if set(map(type, values)) == {str} and (digits := "".join(values)).isdigit() and digits.isascii():
        return list(map(int, values))
    times = [_integer(value) or 0 for value in values]
    if set(map(type, times)) != {int}:
        raise ValueError("no time")
    return times


def _identifiers(values: list[Any]) -> list[str]:
    if set(map(type, values)) == {str} and set(map(len, values)).isdisjoint(_BASE64_LENGTHS):
        return list(map(str.lower, values))
    return list(map(_identifier, values))


def _messages(bodies: list[Any]) -> list[str | None]:
    return _each(_plain_of_all(bodies), str, message_of)


def _plain_of_all(values: list[Any]) -> list[Any]:
    """Return each as `_plain` does."""
    if set(map(type, values)) == {dict} and set(map(len, values)) == {1}:
        kinds, inner = chain.from_iterable(values), chain.from_iterable(map(dict.values, values))
        return [
            text if kind == "stringValue" else _plain(value)
            for kind, text, value in zip(kinds, inner, values, strict=True)
        ]
    return list(map(_plain, values))


def _attributes_of_all(lists: list[Any]) -> list[dict[str, Any]]:
    """Return each as `_attributes` does."""
    pairs: list[Any] = list(chain.from_iterable(lists)) if set(map(type, lists)) == {list} else [None]
    if set(map(type, pairs)) <= {dict}:
        keys = [pair.get("key") for pair in pairs]
        if set(map(type, keys)) <= {str}:
            values = zip(keys, _plain_of_all([pair.get("value") for pair in pairs]), strict=True)
            return [dict(islice(values, len(some))) if some else {} for some in lists]
    return list(map(_attributes, lists))


def _camel_case(value: Any) -> Any:
    """Return the value with the names of fields as the specification has them, instead of those of the .proto file."""
    if isinstance(value, dict):
        return {_CAMEL.get(name, name): _camel_case(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_camel_case(item) for item in value]
    return value


def _attributes(pairs: Any) -> dict[str, Any]:
    """Return a list of `{"key":, "value":}` as an object; what is none of these is kept under `attributes`."""
    if pairs is None:
        return {}
    if not isinstance(pairs, list):
        return {"attributes": pairs}
    made, others = {}, []
    for pair in pairs:
        if type(pair) is dict and type(key := pair.get("key")) is str:
            made[key] = _plain(pair.get("value"))
        else:
            others.append(pair)
    return made | {"attributes": others} if others else made


def _plain(value: Any) -> Any:
    """Return an AnyValue, `{"stringValue": "x"}`, as the value in it; a bare object or array of such ones, too."""
    if type(value) is dict:
        if len(value) == 1:
            ((kind, inner),) = value.items()
            if kind == "stringValue":
                return inner
            if kind in _KINDS:
                return _KINDS[kind](inner)
        return {name: _plain(item) for name, item in value.items()} if value else None
    if type(value) is list:
        return [_plain(item) for item in value]
    return value


def _integer(value: Any) -> Any:
    """Return a 64-bit integer, which may be a text."""
    return int(value) if type(value) is str and _INTEGER.fullmatch(value) else value


def _text(value: Any) -> str:
    """Return a text, empty for none."""
    return value if type(value) is str else "" if value is None else jsontext.dumps(value)


def _severity_number(value: Any) -> int:
    """Return the number of a severity, which may be its name; 0 for none."""
    number = _NUMBERS.get(value, _integer(value)) if type(value) is str else value
    return number if type(number) is int else 0


def _identifier(value: Any) -> str:
    """Return a trace or span id in hexadecimal."""
    name = _text(value)
    if len(name) in _BASE64_LENGTHS:
        try:
            return base64.b64decode(name, validate=True).hex()
        except (binascii.Error, ValueError):
            pass  # no base64: kept as it is
    return name.lower()


def _array(value: Any) -> Any:
    return _plain(value.get("values") or [] if type(value) is dict else value)


def _object(value: Any) -> Any:
    pairs = value.get("values") or [] if type(value) is dict else value
    return _attributes(pairs) if type(pairs) is list else _plain(pairs)


def _double(value: Any) -> Any:
    try:
        return value if type(value) is not str or value.lower().strip("+-") in _NO_NUMBERS else float(value)
    except ValueError:
        return value


_NO_NUMBERS: Final = frozenset({"nan", "inf", "infinity"})
_KINDS: Final[dict[str, Callable[[Any], Any]]] = {
    "boolValue": lambda value: value,
    "intValue": _integer,
    "doubleValue": _double,
    "bytesValue": lambda value: value,
    "arrayValue": _array,
    "kvlistValue": _object,
}

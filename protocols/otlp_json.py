"""Values of OTLP's JSON, which is proto3's with ids in hexadecimal, as plain ones.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding. What is not of its form is kept as it is; nothing here
raises, but RecursionError.
"""

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any, Final

from logagg.protocols import jsontext

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


def camel_case(value: Any) -> Any:
    """Return the value with the names of fields as the specification has them, instead of those of the .proto file."""
    if isinstance(value, dict):
        return {_CAMEL.get(name, name): camel_case(item) for name, item in value.items()}
    if isinstance(value, list):
        return [camel_case(item) for item in value]
    return value


def attributes(pairs: Any) -> dict[str, Any]:
    """Return a list of `{"key":, "value":}` as an object; what is none of these is kept under `attributes`."""
    if pairs is None:
        return {}
    if not isinstance(pairs, list):
        return {"attributes": pairs}
    made, others = {}, []
    for pair in pairs:
        if type(pair) is dict and type(key := pair.get("key")) is str:
            made[key] = plain(pair.get("value"))
        else:
            others.append(pair)
    return made | {"attributes": others} if others else made


def plain(value: Any) -> Any:
    """Return an AnyValue, `{"stringValue": "x"}`, as the value in it; a bare object or array of such ones, too."""
    if type(value) is dict:
        if len(value) == 1:
            ((kind, inner),) = value.items()
            if kind == "stringValue":
                return inner
            if kind in _KINDS:
                return _KINDS[kind](inner)
        return {name: plain(item) for name, item in value.items()} if value else None
    if type(value) is list:
        return [plain(item) for item in value]
    return value


def integer(value: Any) -> Any:
    """Return a 64-bit integer, which may be a text."""
    return int(value) if type(value) is str and _INTEGER.fullmatch(value) else value


def text(value: Any) -> str:
    """Return a text, empty for none."""
    return value if type(value) is str else "" if value is None else jsontext.dumps(value)


def severity_number(value: Any) -> int:
    """Return the number of a severity, which may be its name; 0 for none."""
    number = _NUMBERS.get(value, integer(value)) if type(value) is str else value
    return number if type(number) is int else 0


def identifier(value: Any) -> str:
    """Return a trace or span id in hexadecimal."""
    name = text(value)
    if len(name) in _BASE64_LENGTHS:
        try:
            return base64.b64decode(name, validate=True).hex()
        except (binascii.Error, ValueError):
            pass  # no base64: kept as it is
    return name.lower()


def _array(value: Any) -> Any:
    return plain(value.get("values") or [] if type(value) is dict else value)


def _object(value: Any) -> Any:
    pairs = value.get("values") or [] if type(value) is dict else value
    return attributes(pairs) if type(pairs) is list else plain(pairs)


def _double(value: Any) -> Any:
    try:
        return value if type(value) is not str or value.lower().strip("+-") in _NO_NUMBERS else float(value)
    except ValueError:
        return value


_NO_NUMBERS: Final = frozenset({"nan", "inf", "infinity"})
_KINDS: Final[dict[str, Callable[[Any], Any]]] = {
    "boolValue": lambda value: value,
    "intValue": integer,
    "doubleValue": _double,
    "bytesValue": lambda value: value,
    "arrayValue": _array,
    "kvlistValue": _object,
}

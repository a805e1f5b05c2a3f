"""OTLP's logs in protobuf, opentelemetry/proto/logs/v1/logs.proto."""

import base64
from itertools import chain, islice
from math import isfinite, isnan
from operator import attrgetter
from typing import Any, Final

from logagg.protocols import group_columns, otlp_records
from logagg.protocols.clean import to_text
from logagg.protocols.columns import Columnar
from logagg.protocols.groups import Group
from logagg.protocols.limits import few_enough
from logagg.protocols.otlp_records import Columns, Fields, common_of, message_of
from logagg.protocols.protobuf import messages, parse
from logagg.protocols.record import Decoded, Origin, Record

_TABLE: Final = {
    "AnyValue": {
        "string_value": (1, "|string"),
        "bool_value": (2, "|bool"),
        "int_value": (3, "|int64"),
        "double_value": (4, "|double"),
        "array_value": (5, "|ArrayValue"),
        "kvlist_value": (6, "|KeyValueList"),
        "bytes_value": (7, "|bytes"),
    },
    "ArrayValue": {"values": (1, "[AnyValue]")},
    "KeyValueList": {"values": (1, "[KeyValue]")},
    "KeyValue": {"key": (1, "string"), "value": (2, "AnyValue")},
    "Resource": {"attributes": (1, "[KeyValue]")},
    "Scope": {"name": (1, "string"), "version": (2, "string"), "attributes": (3, "[KeyValue]")},
    "LogRecord": {
        "time": (1, "fixed64"),
        "severity_number": (2, "int32"),
        "severity_text": (3, "string"),
        "body": (5, "AnyValue"),
        "attributes": (6, "[KeyValue]"),
        "dropped": (7, "uint32"),
        "flags": (8, "fixed32"),
        "trace_id": (9, "bytes"),
        "span_id": (10, "bytes"),
        "observed": (11, "fixed64"),
        "event_name": (12, "string"),
    },
    "ScopeLogs": {"scope": (1, "Scope"), "log_records": (2, "[LogRecord]")},
    "ResourceLogs": {"resource": (1, "Resource"), "scope_logs": (2, "[ScopeLogs]")},
    "ExportLogsServiceRequest": {"resource_logs": (1, "[ResourceLogs]")},
    "Status": {"code": (1, "int32"), "message": (2, "string")},
}
PROTO: Final = messages("logagg.otlp", _TABLE, lenient=True)
_STRICT: Final = messages("logagg.otlp", _TABLE)

_COLUMNS: Final = attrgetter(
    *("time", "observed", "severity_number", "severity_text", "body.string_value", "trace_id", "span_id", "flags"),
    *("dropped", "event_name", "attributes"),
)
_PAIR: Final = attrgetter("key", "value.string_value")


def decode(body: bytes, origin: Origin) -> Decoded | Columnar:
    """Read a request, by columns where it has many records. Raises Malformed for bytes that are none."""
    try:
        return _columns(body, origin)
    except group_columns.ODD:
        return _one_by_one(body, origin)


def status(code: int, message: str) -> bytes:
    """Write a google.rpc.Status."""
    written: bytes = _STRICT["Status"](code=code, message=message).SerializeToString()
    return written


class _Texts:
    """Reads values, and remembers whether something in them had to be replaced."""

    def __init__(self) -> None:
        self.replaced = False
        self._keys: dict[bytes, str] = {}

    def text(self, data: Any) -> str:
        text, replaced = to_text(data)
        if replaced:
            self.replaced = True
        return text

    def key(self, data: Any) -> str:
        """Return the text of what is mostly one of a few; each is decoded once."""
        key = self._keys.get(data)
        if key is None:
            key, replaced = to_text(data)
            if replaced:
                self.replaced = True
            else:
                self._keys[data] = key
        return key

    def attributes(self, pairs: Any) -> dict[str, Any]:
        return {self.key(pair.key): self.value(pair.value) for pair in pairs} if pairs else {}

    def value(self, value: Any) -> Any:
        if text := value.string_value:
            return self.text(text)
        kind = value.WhichOneof("value")
        match kind:
            case None:
                return None
            case "string_value":
                return ""
            case "kvlist_value":
                return self.attributes(value.kvlist_value.values)
            case "array_value":
                return [self.value(item) for item in value.array_value.values]
            case "bytes_value":
                return base64.b64encode(value.bytes_value).decode()
            case "double_value":
                return _finite(value.double_value)
        return getattr(value, kind)


class _Plain(_Texts):
    """Reads values of a strict message. Raises ValueError where something would have to be replaced."""

    def text(self, data: str) -> str:
        if "\0" in data:
            raise ValueError("NUL in a text")
        return data

    key = text


def _one_by_one(body: bytes, origin: Origin) -> Decoded:
    texts, records, raw = _Texts(), list[Record](), None
    for of_resource in parse(PROTO["ExportLogsServiceRequest"], body).resource_logs:
        resource = texts.attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_logs:
            scope = of_scope.scope
            group = _group(resource, scope, texts, origin)
            if texts.replaced:  # kept with the first record of the scope
                raw = of_resource.resource.SerializeToString() + scope.SerializeToString()
            for log in few_enough(of_scope.log_records):
                texts.replaced = False
                fields, own = _fields(log, texts), texts.attributes(log.attributes)
                if texts.replaced:
                    raw = (raw or b"") + log.SerializeToString()
                records.append(otlp_records.record(group, fields, own, raw))
                raw = None
            texts.replaced = False
            few_enough(records)
    return Decoded(records, [])


def _group(resource: dict[str, Any], scope: Any, texts: _Texts, origin: Origin) -> Group:
    attributes, name, version = texts.attributes(scope.attributes), texts.text(scope.name), texts.text(scope.version)
    return Group(common_of(resource, attributes, name, version), origin, "resource")


def _fields(log: Any, texts: _Texts) -> Fields:
    return Fields(
        log.time,
        log.observed,
        log.severity_number,
        texts.key(log.severity_text),
        texts.value(log.body),
        log.trace_id.hex(),
        log.span_id.hex(),
        log.flags,
        log.dropped,
        texts.key(log.event_name),
    )


def _columns(body: bytes, origin: Origin) -> Columnar:
    texts, groups, counts, logs = _Plain(), list[Group](), list[int](), list[Any]()
    for of_resource in parse(_STRICT["ExportLogsServiceRequest"], body).resource_logs:
        resource = texts.attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_logs:
            groups.append(_group(resource, of_scope.scope, texts, origin))
            counts.append(len(of_scope.log_records))
            logs += of_scope.log_records
            few_enough(logs)
    if len(logs) < group_columns.FEW:
        raise ValueError(f"{len(logs)} records are few")
    times, observed, numbers, levels, bodies, traces, spans, *more, attributes = zip(*map(_COLUMNS, logs), strict=True)
    if "" in bodies:
        others = zip(bodies, logs, strict=True)
        bodies = tuple(text or message_of(texts.value(log.body)) for text, log in others)
    ids = [[each.hex() for each in each_id] if any(each_id) else each_id for each_id in (traces, spans)]
    columns = Columns(times, observed, numbers, levels, bodies, *ids, *more)
    if "\0" in "".join({*levels, *columns.event_names}):
        raise ValueError("NUL in the name of a level or an event")
    lists = [pairs[:] for pairs in attributes]  # to iterate over what is in the message takes three times as long
    pairs = list(chain.from_iterable(lists))
    items = ((key, text or texts.value(pair.value)) for (key, text), pair in zip(map(_PAIR, pairs), pairs, strict=True))
    own = [dict(islice(items, len(some))) if some else {} for some in lists]
    if sum(map(len, own)) < len(pairs):
        raise ValueError("a name that comes twice, of whose values one is not looked at any more")
    return otlp_records.decode(groups, counts, columns, own, origin)


def _finite(number: float) -> float | str:
    """Return a number that JSON has, or the text by which proto3's JSON names the others."""
    if isfinite(number):
        return number
    return "NaN" if isnan(number) else "Infinity" if number > 0 else "-Infinity"

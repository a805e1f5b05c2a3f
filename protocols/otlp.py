"""OTLP logs over HTTP: JSON or protobuf, from the OpenTelemetry SDKs and collector.

https://opentelemetry.io/docs/specs/otlp/#otlphttp and opentelemetry/proto/logs/v1/logs.proto. Attributes of resource,
scope and record become attributes under their own names; where two have the same one, the record's stays, and the outer
one is kept as `resource.NAME`. The scope's name is `otel.scope.name`.
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from math import isfinite, isnan
from typing import Any, Final, NamedTuple

import orjson

from logagg.protocols import jsontext, otlp_json
from logagg.protocols.clean import to_text
from logagg.protocols.groups import Group
from logagg.protocols.http import Answer, HttpProtocol, Malformed, Request, Taken
from logagg.protocols.levels import severity_of
from logagg.protocols.protobuf import messages, parse
from logagg.protocols.record import Decoded, Origin, Record, Reject

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"

_PROTO: Final = messages(
    "logagg.otlp",
    {
        "AnyValue": {
            "string_value": (1, "|bytes"),
            "bool_value": (2, "|bool"),
            "int_value": (3, "|int64"),
            "double_value": (4, "|double"),
            "array_value": (5, "|ArrayValue"),
            "kvlist_value": (6, "|KeyValueList"),
            "bytes_value": (7, "|bytes"),
        },
        "ArrayValue": {"values": (1, "[AnyValue]")},
        "KeyValueList": {"values": (1, "[KeyValue]")},
        "KeyValue": {"key": (1, "bytes"), "value": (2, "AnyValue")},
        "Resource": {"attributes": (1, "[KeyValue]")},
        "Scope": {"name": (1, "bytes"), "version": (2, "bytes"), "attributes": (3, "[KeyValue]")},
        "LogRecord": {
            "time": (1, "fixed64"),
            "severity_number": (2, "int32"),
            "severity_text": (3, "bytes"),
            "body": (5, "AnyValue"),
            "attributes": (6, "[KeyValue]"),
            "dropped": (7, "uint32"),
            "flags": (8, "fixed32"),
            "trace_id": (9, "bytes"),
            "span_id": (10, "bytes"),
            "observed": (11, "fixed64"),
            "event_name": (12, "bytes"),
        },
        "ScopeLogs": {"scope": (1, "Scope"), "log_records": (2, "[LogRecord]")},
        "ResourceLogs": {"resource": (1, "Resource"), "scope_logs": (2, "[ScopeLogs]")},
        "ExportLogsServiceRequest": {"resource_logs": (1, "[ResourceLogs]")},
        "Status": {"code": (1, "int32"), "message": (2, "bytes")},
    },
)

#: Syslog severity of severityNumber 1 to 24: four each of TRACE, DEBUG, INFO, WARN, ERROR and FATAL; 0 says nothing.
_SEVERITIES: Final = (None, *(severity for severity in (7, 7, 6, 4, 3, 2) for _ in range(4)))
#: What a level's name stands for; other numbers say more than it, and are kept.
_USUAL: Final = frozenset({5, 9, 13, 17, 21})

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: A record observed so much later than it happened says when, as `observed_timestamp`: nanoseconds.
_LATE: Final = 1_000_000_000


class _Fields(NamedTuple):
    """A record's fields, besides its attributes, as both encodings give them; nothing is 0, empty or None."""

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


def take(request: Request, origin: Origin) -> Taken:
    """Read an export request. Raises Malformed for a body without any record that can be read."""
    kind, body = request.headers.get("content-type", "").lower(), request.body
    if "json" in kind or ("protobuf" not in kind and body[:1] == b"{"):
        decoded, answer = _Json(body, origin).decode(), Answer(200, b"{}", JSON)
    else:
        decoded, answer = _from_protobuf(body, origin), Answer(200, b"", PROTOBUF)
    if decoded.rejects and not decoded.records:
        raise Malformed(f"no log record in a body of {len(body)} bytes: {decoded.rejects[0].reason}")
    return Taken(decoded, answer)


#: HTTP status to google.rpc.Code.
_CODES: Final = {400: 3, 401: 16, 403: 7, 408: 4, 413: 8, 415: 3, 503: 14}


def refuse(status: int, why: str, headers: Mapping[str, str]) -> Answer:
    """Say no as a google.rpc.Status, in the form of the request."""
    if "json" not in headers.get("content-type", ""):
        told = _PROTO["Status"](code=_CODES.get(status, 2), message=why.encode())
        return Answer(status, told.SerializeToString(), PROTOBUF)
    return Answer(status, orjson.dumps({"code": _CODES.get(status, 2), "message": why}), JSON)


def _common(resource: dict[str, Any], scope: dict[str, Any], name: str, version: str) -> dict[str, Any]:
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


def _record(group: Group, fields: _Fields, own: dict[str, Any], raw: bytes | None) -> Record:
    """Make a record; raises ValueError for what is nested too deeply."""
    time, observed, number, text, body, trace_id, span_id, flags, dropped, event_name = fields
    severity = _SEVERITIES[number] if 0 < number < len(_SEVERITIES) else None
    if number and number not in _USUAL:
        own.setdefault("severity_number", number)
    if text:
        said = severity_of(text)
        severity = said if severity is None else severity
        if said is None or said != severity:
            own["severity_text"] = text
    if flags:
        own.setdefault("flags", flags)
    if dropped:
        own.setdefault("dropped_attributes_count", dropped)
    if event_name:
        own.setdefault("event_name", event_name)
    if time and type(observed) is int and type(time) is int and abs(observed - time) >= _LATE and observed:
        own.setdefault("observed_timestamp", _rfc3339(observed))
    message = body if type(body) is str else event_name or None if body is None else jsontext.dumps(body)
    ids = trace_id or None, span_id or None
    return group.record(_to_datetime(time or observed), message, own, severity, ids, raw)


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


# Protobuf.


class _Texts:
    """Reads values, and remembers whether something in them had to be replaced."""

    def __init__(self) -> None:
        self.replaced = False
        self._keys: dict[bytes, str] = {}

    def text(self, data: bytes) -> str:
        text, replaced = to_text(data)
        if replaced:
            self.replaced = True
        return text

    def key(self, data: bytes) -> str:
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
        keys = self._keys
        return {keys.get(name := pair.key) or self.key(name): self.value(pair.value) for pair in pairs}

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


def _from_protobuf(body: bytes, origin: Origin) -> Decoded:
    texts, records, raw = _Texts(), list[Record](), None
    for of_resource in parse(_PROTO["ExportLogsServiceRequest"], body).resource_logs:
        resource = texts.attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_logs:
            scope = of_scope.scope
            attributes, name, version = texts.attributes(scope.attributes), texts.text(scope.name), scope.version
            group = Group(_common(resource, attributes, name, texts.text(version)), origin, "resource")
            if texts.replaced:  # kept with the first record of the scope
                raw = of_resource.resource.SerializeToString() + scope.SerializeToString()
            for log in of_scope.log_records:
                texts.replaced = False
                fields, own = _fields(log, texts), texts.attributes(log.attributes)
                if texts.replaced:
                    raw = (raw or b"") + log.SerializeToString()
                records.append(_record(group, fields, own, raw))
                raw = None
            texts.replaced = False
    return Decoded(records, [])


def _fields(log: Any, texts: _Texts) -> _Fields:
    return _Fields(
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


def _finite(number: float) -> float | str:
    """Return a number that JSON has, or the text by which proto3's JSON names the others."""
    if isfinite(number):
        return number
    return "NaN" if isnan(number) else "Infinity" if number > 0 else "-Infinity"


# JSON.


class _Json:
    """One body. What is not of the form is a reject, and its neighbours are read."""

    def __init__(self, body: bytes, origin: Origin) -> None:
        self._body, self._origin = body, origin
        self._decoded = Decoded([], [])
        #: When something in the body was replaced, it is kept whole, with the first of its records.
        self._raw: bytes | None = None

    def decode(self) -> Decoded:
        """Read the body. Raises Malformed for what is no JSON object."""
        try:
            value, replaced = jsontext.loads(self._body)
            if not isinstance(value, dict):
                raise ValueError(f"JSON {jsontext.name_of(value)}, expected an object")
            if "resource_logs" in value:
                value = otlp_json.camel_case(value)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"body of {len(self._body)} bytes: {error}") from None
        self._raw = self._body if replaced else None
        for of_resource in self._items(value, "resourceLogs"):
            for of_scope in self._items(of_resource, "scopeLogs"):
                if logs := self._items(of_scope, "logRecords"):
                    self._add(of_resource.get("resource"), of_scope, logs)
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
                record = _record(group, _fields_of(log), otlp_json.attributes(log.get("attributes")), self._raw)
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
    name, version = otlp_json.text(scope.get("name")), otlp_json.text(scope.get("version"))
    attributes = otlp_json.attributes(scope.get("attributes"))
    return Group(
        _common(otlp_json.attributes(resource.get("attributes")), attributes, name, version), origin, "resource"
    )


def _fields_of(log: dict[str, Any]) -> _Fields:
    get = log.get
    return _Fields(
        otlp_json.integer(get("timeUnixNano")),
        otlp_json.integer(get("observedTimeUnixNano")),
        otlp_json.severity_number(get("severityNumber")),
        otlp_json.text(get("severityText")),
        otlp_json.plain(get("body")),
        otlp_json.identifier(get("traceId")),
        otlp_json.identifier(get("spanId")),
        otlp_json.integer(get("flags")),
        otlp_json.integer(get("droppedAttributesCount")),
        otlp_json.text(get("eventName")),
    )


OTLP: Final = HttpProtocol(
    "otlp", (("POST", "/v1/logs", "Store logs of an OTLP exporter, JSON or protobuf"),), take, refuse
)

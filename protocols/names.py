"""The table of names: which keys of the objects that senders write mean which field of a record.

A dotted name stands for nested objects too, however they are cut: `service.name` for `{"service": {"name": ...}}`.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

from logagg.protocols import values

#: The names of each field, in the order in which they are tried.
FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "timestamp": (
        *("timestamp", "@timestamp", "time", "ts", "date", "datetime", "eventTime", "Timestamp", "@t", "_time"),
        *("_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP", "_source_realtime_timestamp", "__realtime_timestamp"),
        *("timereported", "timegenerated", "ISODATE", "R_ISODATE", "DATE", "asctime", "timeMillis", "instant"),
        *("time_iso8601", "time_local", "EventTime", "TimeCreated", "record.time.timestamp", "otlp.timestamp"),
        *("timeUnixNano", "observedTimeUnixNano", "observedTimestamp", "otlp.observed_timestamp", "receiveTimestamp"),
    ),
    "level": (
        *("level", "severity", "lvl", "loglevel", "log.level", "log_level", "levelname", "Level", "@l", "@level"),
        *("PRIORITY", "severity_text", "severityText", "SeverityText", "Severity", "LogLevel", "logLevel"),
        *("level_name", "levelName", "error_severity", "severity_label", "syslogseverity-text", "syslogseverity"),
        *("log.syslog.severity.name", "log.syslog.severity.code", "record.level.name"),
        *("otlp.severity_text", "severity_number", "severityNumber", "SeverityNumber", "otlp.severity_number"),
    ),
    "message": (
        *("message", "msg", "MESSAGE", "short_message", "_msg", "log", "event", "body", "Message", "@m", "@message"),
        *("Body", "RenderedMessage", "textPayload", "jsonPayload.message", "jsonPayload.msg", "fields.message"),
        *("record.message", "@mt", "MessageTemplate", "full_message", "line", "text", "_raw", "event.original"),
    ),
    "service": (
        *("service", "service.name", "service_name", "serviceName", "app", "application", "appname", "app_name"),
        *("app-name", "SYSLOG_IDENTIFIER", "syslog_identifier", "ident", "program", "PROGRAM", "programname"),
        *("dd.service", "resource.service.name", "resource.attributes.service.name", "fields.service", "fields.app"),
        *("kubernetes.labels.app.kubernetes.io/name", "kubernetes.labels.app_kubernetes_io/name"),
        *("kubernetes.pod_labels.app.kubernetes.io/name", "app_kubernetes_io_name"),
        *("kubernetes.labels.app", "kubernetes.pod_labels.app", "kubernetes.labels.k8s-app"),
        *("kubernetes.container_name", "kubernetes.container.name", "k8s.container.name", "k8s_container_name"),
        *("container_name", "container.name", "CONTAINER_NAME", "faas.name", "process.name", "_COMM", "_comm"),
    ),
    "host": (
        *("host", "hostname", "host.name", "host.hostname", "_HOSTNAME", "computer", "computer_name"),
        *("host_name", "hostName", "HostName", "Hostname", "HOST", "_hostname", "fromhost", "logsource", "source_host"),
        *("MachineName", "Computer", "resource.host.name", "resource.attributes.host.name", "hostIdentifier"),
        *("kubernetes.host", "kubernetes.node.name", "kubernetes.node_name", "kubernetes.pod_node_name"),
        *("k8s.node.name", "k8s_node_name", "node_name", "agent.hostname", "beat.hostname", "winlog.computer_name"),
    ),
    "environment": (
        *("environment", "env", "deployment.environment.name", "deployment.environment", "service.environment"),
        *("dd.env", "deployment_environment_name", "deployment_environment", "service_environment", "Environment"),
        *("EnvironmentName", "resource.deployment.environment.name", "resource.deployment.environment"),
        *("resource.attributes.deployment.environment.name", "resource.attributes.deployment.environment"),
        *("fields.environment", "fields.env", "kubernetes.labels.environment", "kubernetes.labels.env"),
    ),
    "source": ("source",),
    "facility": (
        *("facility", "SYSLOG_FACILITY", "syslog_facility", "FACILITY", "syslogfacility-text", "syslogfacility"),
        *("facility_label", "log.syslog.facility.name", "log.syslog.facility.code"),
    ),
    "trace_id": (
        *("trace_id", "traceId", "trace.id", "traceid", "traceID", "TraceId", "dd.trace_id", "otelTraceID", "@tr"),
        *("otlp.trace_id", "mdc.traceId", "mdc.trace_id", "contextMap.traceId", "contextMap.trace_id"),
        *("logging.googleapis.com/trace", "xray_trace_id"),
    ),
    "span_id": (
        *("span_id", "spanId", "span.id", "spanid", "spanID", "SpanId", "dd.span_id", "otelSpanID", "@sp"),
        *("otlp.span_id", "mdc.spanId", "mdc.span_id", "contextMap.spanId", "contextMap.span_id"),
        "logging.googleapis.com/spanId",
    ),
}

Convert: TypeAlias = Callable[[Any], Any]


class Rule(NamedTuple):
    """A name that means many things, so that it counts in company only: the object has one of these sets of keys."""

    field: str
    name: str
    company: tuple[frozenset[str], ...]
    #: Which sender it is of.
    sender: str
    #: How the value is read, where it is not read as others of the field.
    convert: Convert | None = None
    #: Tried before the names of the table, not after them.
    first: bool = False
    #: The value says more than the field can hold: it stays an attribute besides.
    keep: bool = False


def _together(*companies: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(company.split()) for company in companies)


_ACCESS = _together("remote_addr status", "remote_ip status", "remote_addr http_user_agent")
_POD = _together("pod", "namespace", "pod_name")
_DATADOG = _together("ddsource", "ddtags", "dd", "dd.trace_id")

#: The names that count in company only, in the order in which they are tried.
RULES: Final[tuple[Rule, ...]] = (
    Rule("timestamp", "t", _together("s c ctx msg"), "MongoDB"),
    Rule("timestamp", "msec", _ACCESS, "nginx"),
    Rule("timestamp", "start_time", _together("response_code upstream_cluster"), "Envoy"),
    Rule("timestamp", "unixTime", _together("hostIdentifier"), "osquery"),
    Rule("level", "Level", _together("EventID Channel"), "Windows events", values.windows_level, first=True),
    Rule("level", "s", _together("t c ctx msg"), "MongoDB"),
    Rule("level", "status", _DATADOG, "Datadog"),
    Rule("level", "priority", _together("timereported", "fromhost"), "rsyslog (StdJSONFmt)"),
    Rule("level", "priority", _together("syslog_identifier", "_systemd_unit", "_hostname"), "journald, lower case"),
    Rule("level", "priority", _together("rule output"), "Falco"),
    Rule("level", "pri", _together("ident"), "fluent-bit's syslog parsers", values.pri_severity, keep=True),
    Rule("message", "output", _together("rule priority"), "Falco", values.only_text),
    Rule("message", "request", _ACCESS, "nginx, Apache", values.only_text),
    Rule("service", "name", _together("hostname pid level"), "pino, bunyan"),
    Rule("service", "container", _POD, "Loki's labels in Kubernetes"),
    Rule("service", "job", (*_POD, *_together("filename", "instance")), "Loki's labels"),
    Rule("facility", "pri", _together("ident"), "fluent-bit's syslog parsers", values.pri_facility, keep=True),
    Rule("trace_id", "trace", _together("logName", "textPayload"), "Google Cloud", values.google_trace, keep=True),
)

#: Names whose values are not read as others of their field.
_CONVERT: Final[dict[str, Convert]] = {
    "log": values.line,
    **dict.fromkeys(("event", "body", "Body", "line", "text", "_raw", "event.original"), values.only_text),
    **dict.fromkeys(("container_name", "CONTAINER_NAME", "container.name"), values.container),
    **dict.fromkeys(
        ("severity_number", "severityNumber", "SeverityNumber", "otlp.severity_number"), values.otel_severity
    ),
    "logging.googleapis.com/trace": values.google_trace,
}
_KEPT: Final = frozenset({"logging.googleapis.com/trace"})

_OF_FIELD: Final[dict[str, Convert]] = {
    "timestamp": values.time,
    "level": values.severity_of,
    "message": values.message,
    "facility": values.facility_of,
    "trace_id": values.identifier,
    "span_id": values.identifier,
}

#: What has something to say of an object: its value, or that it is none.
_OF_OBJECTS: Final = (values.time, values.severity_of, values.message)

#: Fields by number, in the order of FIELDS.
INDEX: Final = {field: index for index, field in enumerate(FIELDS)}

#: Keys within keys, all ways to cut the names of the table; the last has none within.
Tree: TypeAlias = dict[str, "Tree"]
#: The keys of an object that matter, in its order; of a nested object, its key and shape.
Shape: TypeAlias = tuple[Any, ...]


class Try(NamedTuple):
    """What may be the value of a field in an object of some shape."""

    field: int
    #: The keys down to the object that holds it; empty for the object itself.
    outer: tuple[str, ...]
    key: str
    #: Makes the field's value, or None where it cannot.
    convert: Convert
    #: It stays where it is when it was used.
    keep: bool
    #: It counts by its name alone: when it cannot be used, the record says so.
    sure: bool


def shape_of(obj: dict[str, Any], tree: Tree) -> Shape:
    """Return the keys that matter. An object that is no dict itself is seen as any other value."""
    return tuple(
        [
            key
            if type(value := obj[key]) is not dict
            # Most that are nested hold no name: that is seen at a glance.
            else (key, () if (inner := tree[key]).keys().isdisjoint(value) else shape_of(value, inner))
            for key in obj
            if key in tree
        ]
    )


@lru_cache(maxsize=1024)
def tries(shape: Shape) -> tuple[Try, ...]:
    """List what may be a field in an object of this shape, the best of each field first."""
    keys = {part if isinstance(part, str) else part[0] for part in shape}
    found = []
    for name, path, is_object in _paths(shape, ()):
        for field, rank in _PLACES.get(name, ()):
            convert = _CONVERT.get(name) or _OF_FIELD.get(field, values.text)
            if not is_object or convert in _OF_OBJECTS:
                found.append((rank, Try(INDEX[field], path[:-1], path[-1], convert, name in _KEPT, sure=True)))
        for rank, rule in _RULES.get(name, ()) if len(path) == 1 else ():
            if any(company <= keys for company in rule.company):
                convert = rule.convert or _OF_FIELD.get(rule.field, values.text)
                found.append((rank, Try(INDEX[rule.field], (), name, convert, rule.keep, sure=False)))
    found.sort(key=lambda pair: (pair[1].field, pair[0]))
    return tuple(each for _, each in found)


def _paths(shape: Shape, outer: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Give each key as it would be written with dots, the keys down to it, and whether it holds an object."""
    for part in shape:
        is_object = not isinstance(part, str)
        path = (*outer, part[0] if is_object else part)
        yield ".".join(path), path, is_object
        if is_object:
            yield from _paths(part[1], path)


def _grow(tree: Tree, name: str) -> None:
    """Add a name to the tree, cut at any of its dots and at none."""
    tree.setdefault(name, {})
    for place, letter in enumerate(name):
        if letter == "." and 0 < place < len(name) - 1:
            _grow(tree.setdefault(name[:place], {}), name[place + 1 :])


_PLACES: dict[str, list[tuple[str, int]]] = {}
_RULES: dict[str, list[tuple[int, Rule]]] = {}
#: All keys that matter.
TREE: Final[Tree] = {}
for _field, _names in FIELDS.items():
    for _rank, _name in enumerate(_names):
        _PLACES.setdefault(_name, []).append((_field, _rank))
        _grow(TREE, _name)

#: Objects with these keys are opened before they are read, see `mapping`.
OPENED: Final = frozenset({"short_message", "__internal__"})

for _place, _rule in enumerate(RULES):
    _RULES.setdefault(_rule.name, []).append((_place - len(RULES) if _rule.first else 1000 + _place, _rule))
    for _key in (_rule.name, *frozenset().union(*_rule.company)):
        TREE.setdefault(_key, {})


#: Keys that mean nothing by themselves; what they hold may.
HOLDERS: Final = frozenset(TREE).difference(
    _PLACES, OPENED, *((rule.name, *frozenset().union(*rule.company)) for rule in RULES)
)


@lru_cache(maxsize=1024)
def others(found: frozenset[tuple[str, int]]) -> frozenset[str]:
    """Return the keys that may change what an object means of which these fields, with the rank of the name, are found.

    What is found is the best of its field as long as none of these keys is there.
    """
    ranks = dict(found)
    keys = set(OPENED)
    for field, names in FIELDS.items():
        for name in names[: ranks.get(field)]:
            keys.update(key for key in TREE if name == key or name.startswith(f"{key}."))
    keys.update(rule.name for rule in RULES if rule.first or rule.field not in ranks)
    return frozenset(keys)

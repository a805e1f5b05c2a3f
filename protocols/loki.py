"""Loki's push protocol: streams of lines with labels in common, as JSON, or as protobuf in a snappy block.

https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs, and pkg/push/push.proto of Loki. A line is
the message as it stands, be it JSON or logfmt; labels and structured metadata are the record's other fields.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from logagg.protocols import encodings, jsontext
from logagg.protocols.clean import clean_text, to_text
from logagg.protocols.groups import Group
from logagg.protocols.http import Answer, HttpProtocol, Malformed, Request, Taken
from logagg.protocols.levels import SEVERITY_OF_NAME
from logagg.protocols.names import FIELDS
from logagg.protocols.protobuf import messages, parse
from logagg.protocols.record import Decoded, Origin, Record, Reject
from logagg.protocols.times import to_datetime

_PROTO: Final = messages(
    "logagg.loki",
    {
        "Timestamp": {"seconds": (1, "int64"), "nanos": (2, "int32")},
        "Label": {"name": (1, "bytes"), "value": (2, "bytes")},
        "Entry": {"timestamp": (1, "Timestamp"), "line": (2, "bytes"), "metadata": (3, "[Label]")},
        "Stream": {"labels": (1, "bytes"), "entries": (2, "[Entry]")},
        "PushRequest": {"streams": (1, "[Stream]")},
    },
)

#: Where no label is one of the mapping's names of a service, Loki takes these, in this order
#: (`discover_service_name` in its configuration). They say no more than a guess, and stay labels.
_SERVICE: Final = ("name", "app_kubernetes_io_name", "container", "component", "workload", "job")
_SERVICES: Final = frozenset(FIELDS["service"])
_LEVELS: Final = frozenset(FIELDS["level"])

#: One label of `{a="b", c="d"}`; the value as Go's strconv.Quote writes it.
_LABEL: Final = re.compile(r'[{,]\s*([^\s={},"]+)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?=[,}])', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_LETTERS: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Digits of nanoseconds since 1970 from September 2001 to the year 2286; the last three are below a microsecond.
_DIGITS: Final = 19


def take(request: Request, origin: Origin) -> Taken:
    """Read a push, whatever its path. Raises Malformed for a body without any record, and `encodings.TooLarge`."""
    tenant = clean_text(request.headers.get("x-scope-orgid", ""))
    if "json" in request.headers.get("content-type", "").lower() or request.body[:1] == b"{":
        decoded = _from_json(request.body, tenant, origin)
    else:
        decoded = _from_protobuf(_unpacked(request), tenant, origin)
    if decoded.rejects and not decoded.records:
        raise Malformed(f"no line in a body of {len(request.body)} bytes: {decoded.rejects[0].reason}")
    return Taken(decoded, Answer(204))


def refuse(status: int, why: str, _: Mapping[str, str]) -> Answer:
    """Say no in plain text, as Loki does."""
    return Answer(status, f"{why}\n".encode(), "text/plain")


def _unpacked(request: Request) -> bytes:
    """Undo the snappy that belongs to the format, unless it was named as the Content-Encoding, and is undone."""
    if "snappy" in request.headers.get("content-encoding", "").lower():
        return request.body
    try:
        return encodings.decompress(request.body, "snappy", request.limit)
    except encodings.EncodingError as error:
        raise Malformed(str(error)) from None


def _from_protobuf(body: bytes, tenant: str, origin: Origin) -> Decoded:
    decoded = Decoded([], [])
    add = decoded.records.append
    for stream in parse(_PROTO["PushRequest"], body).streams:
        text, bad = to_text(stream.labels)
        group = _group(dict(_labels(text)), tenant, origin)
        raw = stream.labels if bad else None
        for entry in stream.entries:
            line, replaced = to_text(entry.line)
            own = {}
            for label in entry.metadata:
                (name, bad_name), (value, bad_value) = to_text(label.name), to_text(label.value)
                own[name] = value
                replaced = replaced or bad_name or bad_value
            if replaced:
                raw = (raw or b"") + entry.SerializeToString()
            add(_record(group, _time(entry.timestamp), line, own, raw))
            raw = None
    return decoded


def _time(stamp: Any) -> datetime | None:
    """Return the time; None for none given, and for one that is no time between the years 1 and 9999."""
    seconds, nanos = stamp.seconds, stamp.nanos
    if not seconds and not nanos:
        return None
    try:
        return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)
    except OverflowError:
        return None


def _from_json(body: bytes, tenant: str, origin: Origin) -> Decoded:
    try:
        value, replaced = jsontext.loads(body)
    except ValueError as error:
        raise Malformed(f"body of {len(body)} bytes: {error}") from None
    streams = value.get("streams") if isinstance(value, dict) else None
    if not isinstance(streams, list):
        raise Malformed(f"body of {len(body)} bytes has no array `streams`")
    decoded = Decoded([], [])
    raw = body if replaced else None  # kept whole, with the first of its records
    for stream in streams:
        try:
            common, entries = _stream(stream)
            group = _group(common, tenant, origin)
        except ValueError as error:
            _reject(decoded, origin, error, stream, body)
            continue
        for entry in entries:
            try:
                stamp, line, own = _entry(entry)
                decoded.records.append(_record(group, stamp, line, own, raw))
                raw = None
            except ValueError as error:
                _reject(decoded, origin, error, {"stream": common, "values": [entry]}, body)
    return decoded


def _stream(stream: Any) -> tuple[dict[str, str], list[Any]]:
    """Return labels and entries of a stream; in the first API, labels are one text, and entries are objects."""
    if not isinstance(stream, dict):
        raise ValueError(f"JSON {jsontext.name_of(stream)}, expected a stream")
    labels = stream.get("stream", stream.get("labels", {}))
    entries = stream.get("values", stream.get("entries", []))
    if not isinstance(entries, list):
        raise ValueError(f"values of a stream: JSON {jsontext.name_of(entries)}, expected an array")
    return dict(_labels(labels)) if isinstance(labels, str) else _texts(labels), entries


def _entry(entry: Any) -> tuple[Any, str, dict[str, str]]:
    """Return time, line and metadata of an entry: `[time, line, metadata]`, or `{"ts":, "line":}`."""
    match entry:
        case [stamp, line]:
            own = {}
        case [stamp, line, metadata, *_]:
            own = _texts(metadata)
        case {"ts": stamp, "line": line}:
            own = _texts(entry.get("structuredMetadata"))
        case _:
            raise ValueError(f"JSON {jsontext.name_of(entry)}, expected a time and a line")
    if type(line) is not str:
        line = jsontext.dumps(line)
    return _from_nanoseconds(stamp), line, own


def _from_nanoseconds(stamp: Any) -> Any:
    """Return a time, None for none given, or what is no time as it is: the record will say so."""
    if type(stamp) is str and len(stamp) == _DIGITS and stamp.isascii() and stamp.isdigit():
        return _EPOCH + timedelta(microseconds=int(stamp[:-3]))
    if stamp in (0, "0", "", None):
        return None
    return to_datetime(stamp) or stamp


def _texts(labels: Any) -> dict[str, str]:
    """Return labels with values as text; what is no object of labels is one, too, so that nothing is lost."""
    if labels is None:
        return {}
    if not isinstance(labels, dict):
        labels = {"labels": labels}
    return {
        name: value if type(value) is str else jsontext.dumps(value)
        for name, value in labels.items()
        if value is not None
    }


def _record(group: Group, stamp: Any, line: str, own: dict[str, str], raw: bytes | None) -> Record:
    """Make a record. What structured metadata mostly is about is told to the group, which is the short way."""
    if not own:
        return group.record(stamp, line, own, raw=raw)
    ids = own.pop("trace_id", None) or None, own.pop("span_id", None) or None
    return group.record(stamp, line, own, _pop_level(own), ids, raw)


def _pop_level(labels: dict[str, str]) -> int | None:
    """Take the level out if it is one; `detected_level` is what agents and Loki found in the line."""
    for name in ("level", "detected_level"):
        severity = SEVERITY_OF_NAME.get(labels.get(name, ""))
        if severity is not None:
            del labels[name]
            return severity
    return None


def _group(labels: dict[str, str], tenant: str, origin: Origin) -> Group:
    if tenant:
        labels.setdefault("tenant", tenant)
    if _SERVICES.isdisjoint(labels):
        service = next((labels[name] for name in _SERVICE if labels.get(name)), None)
        if service is not None:
            labels["service"] = service
    if _LEVELS.isdisjoint(labels) and labels.get("detected_level") in SEVERITY_OF_NAME:
        labels["level"] = labels.pop("detected_level")
    return Group(labels, origin, "stream")


@lru_cache(maxsize=1024)
def _labels(text: str) -> tuple[tuple[str, str], ...]:
    """Read `{a="b", c="d"}`. What is not of this form is one label, `labels`."""
    return tuple(_pairs(text)) or ((("labels", text),) if text.strip(" {}") else ())


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    found = list(_LABEL.finditer(text))
    if sum(len(match[0]) for match in found) + 1 != len(text.strip()):
        return []
    return [(match[1], clean_text(_ESCAPE.sub(_unescaped, match[2]))) for match in found]


def _unescaped(escape: re.Match[str]) -> str:
    *numbers, letter = escape.groups()
    if letter is not None:
        return _LETTERS.get(letter, letter)
    code = int(next(filter(None, numbers)), 16)
    return chr(code) if code <= 0x10FFFF else "\ufffd"


def _reject(decoded: Decoded, origin: Origin, error: ValueError, value: Any, body: bytes) -> None:
    try:
        raw = jsontext.dumps(value).encode()
    except ValueError:  # too deep to be written
        raw = body
    decoded.rejects.append(Reject(origin.now, origin.transport, origin.peer, str(error), raw))


_PUSH: Final = "Store a push of Loki's protocol, JSON or protobuf"

LOKI: Final = HttpProtocol(
    "loki",
    (("POST", "/loki/api/v1/push", _PUSH), ("POST", "/api/prom/push", f"{_PUSH} (first API)")),
    take,
    refuse,
    ask={
        ("GET", "/ready"): lambda _: Answer(200, b"ready\n", "text/plain"),
        ("GET", "/loki/api/v1/status/buildinfo"): lambda _: Answer(
            200, b'{"version":"3.0.0","revision":"","branch":"","buildUser":"","buildDate":"","goVersion":""}'
        ),
    },
)

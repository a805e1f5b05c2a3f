"""Loki's push protocol: streams of lines with labels in common, as JSON, or as protobuf in a snappy block.

https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs, and pkg/push/push.proto of Loki. A line is
the message as it stands, be it JSON or logfmt; labels and structured metadata are the record's other fields.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain, islice
from operator import attrgetter
from typing import Any, Final

import numpy as np

from logagg.protocols import encodings, group_columns, jsontext
from logagg.protocols.clean import clean_text, to_text
from logagg.protocols.columns import Columnar
from logagg.protocols.group_columns import Rows
from logagg.protocols.groups import Group
from logagg.protocols.http import Answer, HttpProtocol, Malformed, Request, Taken
from logagg.protocols.levels import SEVERITY_OF_NAME
from logagg.protocols.limits import few_enough
from logagg.protocols.names import FIELDS
from logagg.protocols.protobuf import messages, parse
from logagg.protocols.record import Decoded, Origin, Record, Reject
from logagg.protocols.stamps import Integers
from logagg.protocols.times import to_datetime

_TABLE: Final = {
    "Timestamp": {"seconds": (1, "int64"), "nanos": (2, "int32")},
    "Label": {"name": (1, "string"), "value": (2, "string")},
    "Entry": {"timestamp": (1, "Timestamp"), "line": (2, "string"), "metadata": (3, "[Label]")},
    "Stream": {"labels": (1, "string"), "entries": (2, "[Entry]")},
    "PushRequest": {"streams": (1, "[Stream]")},
}
_PROTO: Final = messages("logagg.loki", _TABLE, lenient=True)
_STRICT: Final = messages("logagg.loki", _TABLE)

#: Where no label is one of the mapping's names of a service, Loki takes these, in this order
#: (`discover_service_name` in its configuration). They say no more than a guess, and stay labels.
_SERVICE: Final = ("name", "app_kubernetes_io_name", "container", "component", "workload", "job")
_SERVICES: Final = frozenset(FIELDS["service"])
_LEVELS: Final = frozenset(FIELDS["level"])
#: Names of a level in structured metadata.
_METADATA_LEVELS: Final = ("level", "detected_level")
_ENTRY: Final = attrgetter("timestamp", "line", "metadata")
_LABEL_OF: Final = attrgetter("name", "value")

#: One label of `{a="b", c="d"}`; the value as Go's strconv.Quote writes it.
_LABEL: Final = re.compile(r'[{,]\s*([^\s={},"]+)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?=[,}])', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_LETTERS: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Digits of nanoseconds since 1970 from September 2001 to the year 2286; the last three are below a microsecond.
_DIGITS: Final = 19
#: Seconds well within the years 1 and 9999.
_FIRST, _LAST = -62_000_000_000, 253_000_000_000


def take(request: Request, origin: Origin) -> Taken:
    """Read a push, whatever its path. Raises Malformed for a body without any record, and `limits.TooLarge`."""
    tenant = clean_text(request.headers.get("x-scope-orgid", ""))
    if "json" in request.headers.get("content-type", "").lower() or request.body[:1] == b"{":
        decoded = _from_json(request.body, tenant, origin)
    else:
        decoded = _from_protobuf(_unpacked(request), tenant, origin)
    if decoded.rejects and not len(decoded.records):
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


def _from_protobuf(body: bytes, tenant: str, origin: Origin) -> Decoded | Columnar:
    try:
        return _protobuf_columns(body, tenant, origin)
    except group_columns.ODD:
        return _protobuf_one_by_one(body, tenant, origin)


def _protobuf_one_by_one(body: bytes, tenant: str, origin: Origin) -> Decoded:
    decoded = Decoded([], [])
    add = decoded.records.append
    for stream in parse(_PROTO["PushRequest"], body).streams:
        text, bad = to_text(stream.labels)
        group = _group(dict(_labels(text)), tenant, origin)
        raw = stream.labels if bad else None
        for entry in few_enough(stream.entries):
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
        few_enough(decoded.records)
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


def _protobuf_columns(body: bytes, tenant: str, origin: Origin) -> Columnar:
    streams = parse(_STRICT["PushRequest"], body).streams
    entries = few_enough(list(chain.from_iterable(stream.entries for stream in streams)))
    labels = [stream.labels for stream in streams]
    if len(entries) < group_columns.FEW or "\0" in "".join(labels):
        raise ValueError("few records, or a NUL")
    groups = [_group(dict(_labels(text)), tenant, origin) for text in labels]
    stamps, lines, metadata = zip(*map(_ENTRY, entries), strict=True)
    since = np.array([stamp.seconds for stamp in stamps], np.int64)
    of_second = np.array([stamp.nanos for stamp in stamps], np.int64)
    if since.min() < _FIRST or since.max() > _LAST:
        raise ValueError("no time")
    timeless = set(np.flatnonzero((since == 0) & (of_second == 0)).tolist())
    lists = [labels[:] for labels in metadata]  # to iterate over what is in the message takes three times as long
    pairs = map(_LABEL_OF, chain.from_iterable(lists))
    own = [dict(islice(pairs, len(some))) if some else {} for some in lists]
    if sum(map(len, own)) < sum(map(len, lists)):
        raise ValueError("a name that comes twice, of whose values one is not looked at any more")
    since = since * 1_000_000 + of_second // 1000
    return _columns(groups, [len(stream.entries) for stream in streams], since, timeless, lines, own, origin)


def _from_json(body: bytes, tenant: str, origin: Origin) -> Decoded | Columnar:
    try:
        value, replaced = jsontext.loads(body)
    except ValueError as error:
        raise Malformed(f"body of {len(body)} bytes: {error}") from None
    streams = value.get("streams") if isinstance(value, dict) else None
    if not isinstance(streams, list):
        raise Malformed(f"body of {len(body)} bytes has no array `streams`")
    if not replaced:
        try:
            return _json_columns(streams, tenant, origin)
        except group_columns.ODD:
            pass
    decoded = Decoded([], [])
    raw = body if replaced else None  # kept whole, with the first of its records
    for stream in streams:
        try:
            common, entries = _stream(stream)
            group = _group(common, tenant, origin)
        except ValueError as error:
            _reject(decoded, origin, error, stream, body)
            continue
        for entry in few_enough(entries):
            try:
                stamp, line, own = _entry(entry)
                decoded.records.append(_record(group, stamp, line, own, raw))
                raw = None
            except ValueError as error:
                _reject(decoded, origin, error, {"stream": common, "values": [entry]}, body)
        few_enough(decoded.records)
    return decoded


def _json_columns(streams: list[Any], tenant: str, origin: Origin) -> Columnar:
    """Read streams of `[time, line]` and `[time, line, metadata]`; raises one of ODD for others."""
    read = list(map(_stream, streams))
    entries = few_enough(list(chain.from_iterable(entries for _, entries in read)))
    if len(entries) < group_columns.FEW or set(map(type, entries)) != {list} or not set(map(len, entries)) <= {2, 3}:
        raise ValueError("few records, or no arrays of two or three")
    stamps, lines = [entry[0] for entry in entries], [entry[1] for entry in entries]
    if set(map(len, stamps)) != {_DIGITS} or not (digits := "".join(stamps)).isdigit() or not digits.isascii():
        raise ValueError("no nanoseconds")
    own = [dict.copy(entry[2]) if len(entry) > 2 and entry[2] is not None else {} for entry in entries]
    if not set(map(type, chain.from_iterable(map(dict.values, own)))) <= {str}:
        own = list(map(_texts, own))
    groups = [_group(labels, tenant, origin) for labels, _ in read]
    since = np.array(list(map(int, stamps)), np.int64) // 1000
    return _columns(groups, [len(entries) for _, entries in read], since, set(), lines, own, origin)


def _columns(
    groups: list[Group],
    counts: list[int],
    since: Integers,
    timeless: set[int],
    lines: Sequence[str],
    own: list[dict[str, str]],
    origin: Origin,
) -> Columnar:
    """Make records as `_record` does. Takes their own fields over."""
    names = set[str]().union(*own)
    ids = [
        [each.pop(name, None) or None for each in own] if name in names else None for name in ("trace_id", "span_id")
    ]
    severities = [None] * len(own) if names.isdisjoint(_METADATA_LEVELS) else _pop_levels(own)
    return group_columns.decode(Rows(groups, counts, since, timeless, lines, own, severities, *ids), origin)


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
    for name in _METADATA_LEVELS:
        severity = SEVERITY_OF_NAME.get(labels.get(name, ""))
        if severity is not None:
            del labels[name]
            return severity
    return None


def _pop_levels(own: list[dict[str, str]]) -> list[int | None]:
    try:
        severities = [SEVERITY_OF_NAME[labels["level"]] for labels in own]
    except KeyError:
        return list(map(_pop_level, own))
    for labels in own:
        del labels["level"]
    return list(severities)


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

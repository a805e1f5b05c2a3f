"""Records of the workload as the senders of each protocol write them, ready made: records in, a file for load.py out.

A file for HTTP has requests, each behind its size as 8 bytes. A file for a sender that waits for answers over TCP has
pieces: the connection, how many answers it waits for, and its size, as numbers of 4, 4 and 8 bytes, then what is sent.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

import cramjam
import msgpack

from benchmarks.workload import SEVERITY, Row

Make = Callable[[Sequence[Row]], bytes]

#: As Filebeat 8 sends them with its default settings, besides the fields that `_document` gives each.
_FILEBEAT: dict[str, Any] = {
    "agent": {
        "type": "filebeat", "version": "8.19.0", "ephemeral_id": "8f1f9d1e-58f2-4a4e-9d2c-6c2e5d1b9a10",
        "id": "5c6f0f0e-7f0e-4f6b-8d51-0f2f4b2b8f11", "name": "web-1",
    },
    "ecs": {"version": "8.0.0"},
    "input": {"type": "filestream"},
}  # fmt: skip
#: OpenTelemetry's numbers of the levels, https://opentelemetry.io/docs/specs/otel/logs/data-model/.
_OTEL = {"CRITICAL": 21, "ERROR": 17, "WARNING": 13, "NOTICE": 10, "INFO": 9, "DEBUG": 5}


def lines(form: Callable[[Row], bytes], end: bytes = b"\n") -> Make:
    """A record a line."""
    return lambda made: end.join(map(form, made)) + end


def stream(form: Callable[[Row], bytes]) -> Make:
    """One record behind the other."""
    return lambda made: b"".join(map(form, made))


def datagrams(form: Callable[[Row], bytes]) -> Make:
    """A datagram a line."""
    return lambda made: b"\n".join(map(form, made))


def octets(row: Row) -> bytes:
    """RFC 6587, octet counting."""
    return b"%d %b" % (len(frame := row.as_rfc5424()), frame)


def as_msgpack(row: Row) -> bytes:
    """An event as fluent-bit's `tcp` output writes it with `format msgpack`."""
    return _pack([_event_time(row.time), row.fields()])


def forward_message(row: Row) -> bytes:
    """A Message of Fluent Forward, as Docker and fluent-logger send it."""
    return _pack([row.service, _event_time(row.time), row.fields()])


def gelf(row: Row) -> bytes:
    """A GELF message, as pygelf or Docker write it."""
    named: dict[str, object] = {
        "version": "1.1", "host": row.host, "short_message": row.message, "timestamp": row.time.timestamp(),
        "level": SEVERITY[row.level], "_service": row.service,
    }  # fmt: skip
    return _json(named | {f"_{name}": value for name, value in row.attributes.items()})


def gelf_lines(rows: Sequence[Row]) -> bytes:
    """GELF over HTTP, a line each, as fluent-bit's `http` output writes it with `format gelf`."""
    return b"\n".join(map(gelf, rows))


# Senders that wait for answers.


def relp(window: int, connections: int = 4) -> Make:
    """Messages as rsyslog's omrelp sends them: so many, then it waits until all are answered."""

    def pieces(part: Sequence[Row]) -> Iterator[tuple[bytes, int]]:
        offers = b"relp_version=0\nrelp_software=bench\ncommands=syslog"
        yield b"1 open %d %b\n" % (len(offers), offers), 1
        number = 2
        for rows in _batches(part, window):
            frames = []
            for message in map(_forward_format, rows):
                frames.append(b"%d syslog %d %b\n" % (number, len(message), message))
                number += 1
            yield b"".join(frames), len(frames)

    return _over_connections(pieces, connections)


def forward(*, compressed: bool, batch: int = 1000, connections: int = 4) -> Make:
    """PackedForward with a chunk to be acknowledged, as fluent-bit and fluentd send it with `require_ack_response`."""

    def pieces(part: Sequence[Row]) -> Iterator[tuple[bytes, int]]:
        for rows in _batches(part, batch):
            options = {"size": len(rows), "chunk": f"{_nanoseconds(rows[0].time):032d}"}
            packed = b"".join(map(as_msgpack, rows))
            if compressed:
                packed, options = gzip.compress(packed, 6), options | {"compressed": "gzip"}
            yield _pack([rows[0].service, packed, options]), 1

    return _over_connections(pieces, connections)


def lumberjack(*, compressed: bool, window: int = 2048, connections: int = 4) -> Make:
    """Windows of Filebeat's documents, with compression level 3, its default, or none."""

    def pieces(part: Sequence[Row]) -> Iterator[tuple[bytes, int]]:
        for rows in _batches(part, window):
            events = []
            for number, row in enumerate(rows, 1):
                event = _json({"@metadata": {"beat": "filebeat", "type": "_doc", "version": "8.19.0"}} | filebeat(row))
                events.append(b"2J" + number.to_bytes(4, "big") + len(event).to_bytes(4, "big") + event)
            frames = b"".join(events)
            if compressed:
                packed = zlib.compress(frames, 3)
                frames = b"2C" + len(packed).to_bytes(4, "big") + packed
            yield b"2W" + len(rows).to_bytes(4, "big") + frames, 1

    return _over_connections(pieces, connections)


def _over_connections(pieces: Callable[[Sequence[Row]], Iterator[tuple[bytes, int]]], connections: int) -> Make:
    def make(made: Sequence[Row]) -> bytes:
        step = -(-len(made) // connections)
        return b"".join(
            b"%b%b%b%b" % (connection.to_bytes(4, "big"), answers.to_bytes(4, "big"), _size(piece), piece)
            for connection, part in enumerate(_batches(made, step))
            for piece, answers in pieces(part)
        )

    return make


# HTTP.


def requests(
    batch: int,
    path: str = "/ingest",
    body: Callable[[Sequence[Row]], bytes] = lambda rows: b"\n".join(map(Row.as_json, rows)),
    headers: str = "",
) -> Make:
    """Requests of so many records."""

    def make(made: Sequence[Row]) -> bytes:
        parts = []
        for rows in _batches(made, batch):
            content = body(rows)
            head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(content)}\r\n{headers}\r\n".encode()
            parts += [(len(head) + len(content)).to_bytes(8, "big"), head, content]
        return b"".join(parts)

    return make


def bulk(document: Callable[[Row], dict[str, object]]) -> Callable[[Sequence[Row]], bytes]:
    """A bulk of Elasticsearch."""
    return lambda rows: b"".join(b'{"create":{"_index":"logs"}}\n%b\n' % _json(document(row)) for row in rows)


def plain(row: Row) -> dict[str, object]:
    """A document as fluent-bit's `es` output or a program writes it."""
    fields = row.fields()
    return {"@timestamp": row.stamp(), **fields}


def filebeat(row: Row) -> dict[str, object]:
    """A document of Filebeat: a line of a file, with its own fields as a processor adds them."""
    return {
        "@timestamp": f"{row.stamp()[:23]}Z",
        "host": {"name": row.host},
        **_FILEBEAT,
        "log": {"offset": int(row.time.timestamp() * 300), "file": {"path": f"/var/log/{row.service}.log"}},
        "service": {"name": row.service},
        "message": row.message,
    } | ({"fields": row.attributes} if row.attributes else {})


def loki_json(rows: Sequence[Row]) -> bytes:
    """A push of Loki's, a stream for each service of a host, with the level as structured metadata."""
    streams = [
        {
            "stream": labels,
            "values": [[str(_nanoseconds(row.time)), row.message, _texts(row, "level")] for row in part],
        }
        for labels, part in _streams(rows)
    ]
    return _json({"streams": streams})


def loki_protobuf(rows: Sequence[Row]) -> bytes:
    """The same as Promtail, Alloy and fluent-bit's successors write it: protobuf in a snappy block."""
    streams = []
    for labels, part in _streams(rows):
        name = ", ".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
        entries = []
        for row in part:
            seconds, nanos = divmod(_nanoseconds(row.time), 10**9)
            stamp = _number(1, seconds) + _number(2, nanos)
            metadata = [_bytes(3, _bytes(1, key) + _bytes(2, value)) for key, value in _texts(row, "level").items()]
            entries.append(_bytes(2, _bytes(1, stamp) + _bytes(2, row.message) + b"".join(metadata)))
        streams.append(_bytes(1, _bytes(1, f"{{{name}}}") + b"".join(entries)))
    return bytes(cramjam.snappy.compress_raw(b"".join(streams)))


def otlp_protobuf(rows: Sequence[Row]) -> bytes:
    """An export request as the OpenTelemetry SDKs and the collector send it."""
    resources = []
    for labels, part in _streams(rows):
        names = {"service.name": labels["service_name"], "host.name": labels["host"]}
        logs = [_bytes(2, _log_record(row)) for row in part]
        scope = _bytes(1, _bytes(1, "bench"))
        resources.append(_bytes(1, _bytes(1, _attributes(1, names)) + _bytes(2, scope + b"".join(logs))))
    return b"".join(resources)


def otlp_json(rows: Sequence[Row]) -> bytes:
    """The same as JSON."""
    resources = []
    for labels, part in _streams(rows):
        names = {"service.name": labels["service_name"], "host.name": labels["host"]}
        logs = [
            {
                "timeUnixNano": str(_nanoseconds(row.time)),
                "severityNumber": _OTEL[row.level],
                "severityText": row.level,
                "body": {"stringValue": row.message},
                "attributes": _pairs(row.attributes),
            }
            for row in part
        ]
        scope = {"scope": {"name": "bench"}, "logRecords": logs}
        resources.append({"resource": {"attributes": _pairs(names)}, "scopeLogs": [scope]})
    return _json({"resourceLogs": resources})


def splunk_events(rows: Sequence[Row]) -> bytes:
    """Events of Splunk's HEC, as Docker's driver and splunk-handler write them."""
    return b"".join(
        _json({
            "time": row.time.timestamp(), "host": row.host, "source": row.service, "sourcetype": "_json",
            "event": {"message": row.message, "level": row.level, "service": row.service} | row.attributes,
        })
        for row in rows
    )  # fmt: skip


def splunk_raw(rows: Sequence[Row]) -> bytes:
    """Lines of a file."""
    return b"\n".join(row.message.encode() for row in rows)


def journal(rows: Sequence[Row]) -> bytes:
    """Entries as systemd-journal-upload sends them."""
    entries = []
    for row in rows:
        time = _nanoseconds(row.time) // 1000
        fields = {
            "__CURSOR": f"s=5d1c4f3a7bb94b5c8f3c1e0a4a6f2b11;i={time:x};b=7c0f5b2a;m={time:x};t={time:x};x=0",
            "__REALTIME_TIMESTAMP": time,
            "__MONOTONIC_TIMESTAMP": time % 10**12,
            "_BOOT_ID": "7c0f5b2a1e0d4c3b9a8f7e6d5c4b3a29",
            "PRIORITY": SEVERITY[row.level],
            "SYSLOG_FACILITY": 3,
            "SYSLOG_IDENTIFIER": row.service,
            "_PID": 4242,
            "_UID": 0,
            "_COMM": row.service[:15],
            "_SYSTEMD_UNIT": f"{row.service}.service",
            "_TRANSPORT": "stdout",
            "_MACHINE_ID": "0b9a8f7e6d5c4b3a297c0f5b2a1e0d4c",
            "_HOSTNAME": row.host,
            "MESSAGE": row.message,
        } | {name.upper(): value for name, value in row.attributes.items()}
        entries.append("".join(f"{name}={value}\n" for name, value in fields.items()))
    return ("\n".join(entries) + "\n").encode()


# Pieces of these.


def _forward_format(row: Row) -> bytes:
    """RSYSLOG_ForwardFormat, which omrelp and omfwd write unless they are told otherwise."""
    stamp = f"{row.stamp()[:-1]}+00:00"
    return f"<{8 + SEVERITY[row.level]}>{stamp} {row.host} {row.service}[123]: {row.message}".encode()


def _streams(rows: Sequence[Row]) -> Iterator[tuple[dict[str, str], list[Row]]]:
    """Give the records of each service, all of one host: what an agent on it sends at once."""
    for service, part in groupby(sorted(rows, key=lambda row: row.service), key=lambda row: row.service):
        yield {"service_name": service, "host": rows[0].host, "filename": f"/var/log/{service}.log"}, list(part)


def _log_record(row: Row) -> bytes:
    fixed = b"\x09" + _nanoseconds(row.time).to_bytes(8, "little")
    level = _number(2, _OTEL[row.level]) + _bytes(3, row.level)
    return fixed + level + _bytes(5, _bytes(1, row.message)) + _attributes(6, row.attributes)


def _attributes(field: int, attributes: dict[str, Any]) -> bytes:
    """Write KeyValues of OpenTelemetry."""
    values = {
        name: _number(3, value) if isinstance(value, int) else _bytes(1, str(value))
        for name, value in attributes.items()
    }
    return b"".join(_bytes(field, _bytes(1, name) + _bytes(2, value)) for name, value in values.items())


def _pairs(attributes: dict[str, Any]) -> list[dict[str, object]]:
    return [
        {"key": name, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for name, value in attributes.items()
    ]


def _bytes(field: int, value: bytes | str) -> bytes:
    """Write a field of protobuf: text, bytes, or another message."""
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _texts(row: Row, level: str) -> dict[str, str]:
    return {level: row.level} | {name: str(value) for name, value in row.attributes.items()}


def _batches(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    for at in range(0, len(rows), size):
        yield rows[at : at + size]


def _size(data: bytes) -> bytes:
    return len(data).to_bytes(8, "big")


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _event_time(time: datetime) -> msgpack.ExtType:
    seconds, nanoseconds = divmod(_nanoseconds(time), 10**9)
    return msgpack.ExtType(0, seconds.to_bytes(4, "big") + nanoseconds.to_bytes(4, "big"))


def _nanoseconds(time: datetime) -> int:
    return round(time.timestamp() * 1e6) * 1000

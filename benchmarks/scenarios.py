"""The scenarios of ingest: what is sent, where to, how, and what it should reach."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import asyncpg

from benchmarks import forms
from benchmarks.daemon import Daemon, Server, daemon, start_sender, wait_packed, what_it_sent
from benchmarks.workload import Row
from logagg.sinks.store import MOST

#: Seconds without any packing, then it is given up.
PATIENCE = 60.0

#: The columns that the workload fills, without an index.
BARE_TABLE = """create table bare (timestamp timestamptz not null, severity smallint not null, service text, host text,
message text not null, attributes jsonb)"""


@dataclass(slots=True)
class Result:
    """One run of one scenario."""

    records: int
    seconds: float
    #: Records a second that the sender managed to send, where it has a set rate.
    sent_rate: float = 0.0
    lost: int = 0
    failures: int = 0
    latencies: list[float] = field(default_factory=list)
    daemon_cpu: float = 0.0
    postgres_cpu: float = 0.0
    peak: float = 0.0
    #: Records a second of the bare COPY right before and right after.
    bare: float = 0.0

    @property
    def rate(self) -> float:
        return (self.records - self.lost) / self.seconds

    @property
    def ratio(self) -> float:
        return self.rate / self.bare if self.bare else 0.0


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached, and what to aim for."""

    #: Of bare COPY; in records a second; or in records a second at which nothing is lost.
    measure: Literal["ratio", "rate", "lossless"]
    reach: float
    aim: float
    #: Milliseconds that the 95th percentile of the acks must stay below.
    p95: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is sent, where to, and how."""

    name: str
    kind: str
    listener: str
    #: Makes the file that the sender reads.
    make: forms.Make
    #: Connections of http; datagrams a second of UDP.
    number: int = 1
    #: Part of the records that it sends.
    part: float = 1.0
    goal: Goal | None = None


#: Many rows: half of the records are enough for each.
PROTOCOLS_PART = 0.5
_PROTOCOL = Goal("rate", 40_000, 80_000)
_JSON, _PROTOBUF = (f"Content-Type: application/{kind}\r\n" for kind in ("json", "x-protobuf"))
_UPLOAD = "Content-Type: application/vnd.fdo.journal\r\nUser-Agent: systemd-journal-upload\r\n"

SYSLOG = Scenario(
    "syslog RFC 5424 over TCP", "stream", "SYSLOG_TCP", forms.lines(Row.as_rfc5424), goal=Goal("ratio", 0.3, 0.6)
)


def scenarios(connections: int) -> list[Scenario]:
    """Return all; bodies of 1,000 records are sent over so many connections."""
    return [
        Scenario("JSON lines over TCP", "stream", "TCP", forms.lines(Row.as_json), goal=Goal("ratio", 0.5, 0.8)),
        Scenario(
            f"HTTP, 1,000 a request, {connections} connections", "http", "HTTP", forms.requests(1000),
            number=connections, goal=Goal("ratio", 0.45, 0.8),
        ),
        Scenario(
            "HTTP, 1 a request, 64 connections", "http", "HTTP", forms.requests(1), number=64, part=0.15,
            goal=Goal("rate", 4_000, 8_000, p95=100),
        ),
        Scenario("HTTP, 1 a request, 1 connection", "http", "HTTP", forms.requests(1), number=1, part=0.005),
        SYSLOG,
        Scenario(
            "syslog RFC 3164 over TCP", "stream", "SYSLOG_TCP", forms.lines(Row.as_rfc3164),
            goal=Goal("ratio", 0.3, 0.6),
        ),
        *(
            Scenario(
                f"syslog over UDP, {rate:,}/s", "datagrams", "SYSLOG_UDP", forms.datagrams(Row.as_rfc3164),
                number=rate, goal=Goal("lossless", 50_000, 100_000),
            )
            for rate in (50_000, 100_000)
        ),
        *_protocols(connections),
    ]  # fmt: skip


def _protocols(connections: int) -> list[Scenario]:
    """Return all other protocols, with the forms that their senders have by default."""
    make = forms
    streams: list[tuple[str, str, str, forms.Make]] = [
        ("msgpack over TCP", "stream", "TCP", make.stream(make.as_msgpack)),
        ("syslog over TCP, octet counting", "stream", "SYSLOG_TCP", make.stream(make.octets)),
        ("RELP, windows of 128", "relp", "RELP", make.relp(128)),
        ("RELP, windows of 1,000", "relp", "RELP", make.relp(1000)),
        ("Forward, 1,000 a chunk", "forward", "FORWARD", make.forward(compressed=False)),
        ("Forward, 1,000 a chunk, gzip", "forward", "FORWARD", make.forward(compressed=True)),
        ("Forward, 1 a message", "stream", "FORWARD", make.stream(make.forward_message)),
        ("GELF over TCP", "stream", "GELF_TCP", make.lines(make.gelf, b"\0")),
        ("Lumberjack, windows of 2,048", "lumberjack", "LUMBERJACK", make.lumberjack(compressed=False)),
        ("Lumberjack, windows of 2,048, zlib", "lumberjack", "LUMBERJACK", make.lumberjack(compressed=True)),
    ]
    over_http = [
        ("GELF over HTTP", "/gelf", make.gelf_lines, ""),
        ("Loki, JSON", "/loki/api/v1/push", make.loki_json, _JSON),
        ("Loki, protobuf", "/loki/api/v1/push", make.loki_protobuf, _PROTOBUF),
        ("Elasticsearch bulk", "/_bulk", make.bulk(make.plain), _JSON),
        ("Elasticsearch bulk of Filebeat", "/_bulk", make.bulk(make.filebeat), _JSON),
        ("OTLP, JSON", "/v1/logs", make.otlp_json, _JSON),
        ("OTLP, protobuf", "/v1/logs", make.otlp_protobuf, _PROTOBUF),
        ("Splunk HEC, events", "/services/collector/event", make.splunk_events, ""),
        ("Splunk HEC, lines", "/services/collector/raw", make.splunk_raw, ""),
    ]
    return [
        *(Scenario(*given, part=PROTOCOLS_PART, goal=_PROTOCOL) for given in streams),
        Scenario(
            "GELF over UDP, 40,000/s", "datagrams", "GELF_UDP", make.datagrams(make.gelf), number=40_000,
            part=PROTOCOLS_PART, goal=Goal("lossless", 40_000, 40_000),
        ),
        Scenario(
            "journald upload, 10,000 a request", "http", "HTTP",
            make.requests(10_000, "/upload", make.journal, _UPLOAD),
            part=PROTOCOLS_PART, goal=_PROTOCOL,
        ),
        *(
            Scenario(
                name, "http", "HTTP", make.requests(1000, path, body, headers), number=connections,
                part=PROTOCOLS_PART, goal=_PROTOCOL,
            )
            for name, path, body, headers in over_http
        ),
    ]  # fmt: skip


async def bare_copy(server: Server, path: Path, count: int) -> Result:
    """Text COPY of ready-made lines into a table without an index: what PostgreSQL can do at best."""
    connection = await asyncpg.connect(await server.fresh_database("bench_bare"))
    try:
        await connection.execute(BARE_TABLE)
        cpu, began = server.seconds(), time.perf_counter()
        await connection.copy_to_table("bare", source=path)
        seconds = time.perf_counter() - began
        return Result(count, seconds, postgres_cpu=server.seconds() - cpu)
    finally:
        await connection.close()


def measure(server: Server, scenario: Scenario, path: Path, made: Sequence[Row]) -> Result:
    """Send these records to a fresh daemon on a fresh database, which has stored and packed a batch before."""
    path.write_bytes(scenario.make(made))
    url = asyncio.run(server.fresh_database("bench_logagg"))
    with daemon(url, scenario.listener) as running:
        _warm_up(running, url, made)
        return drive(server, running, scenario, path, len(made))


def _warm_up(running: Daemon, url: str, made: Sequence[Row]) -> None:
    body = b"\n".join(row.as_json() for row in islice(cycle(made), MOST // 4))
    for _ in range(5):  # more than one batch, so that one is packed
        running.post(body)
    asyncio.run(wait_packed(url, PATIENCE))


def drive(server: Server, running: Daemon, scenario: Scenario, path: Path, count: int) -> Result:
    """Send a file of so many records, and wait until they are committed."""
    before = running.stored()
    cpu, of_postgres = running.seconds(), server.seconds()
    with start_sender(scenario.kind, running.ports[scenario.listener], path, scenario.number) as sender:
        sent = what_it_sent(sender)
        stored, until = running.wait_stored(before + count)
    seconds = until - sent["began"]  # the start of the sender's process does not count
    return Result(
        count, seconds, lost=before + count - stored,
        failures=sent.get("failures", 0), latencies=sent.get("latencies", []),
        sent_rate=count / sent["seconds"] if scenario.kind == "datagrams" else 0.0,
        daemon_cpu=running.seconds() - cpu, postgres_cpu=server.seconds() - of_postgres, peak=running.peak(),
    )  # fmt: skip

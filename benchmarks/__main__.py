"""Ingest, end to end, beside a bare COPY of the same rows in the same run: `python -m benchmarks --help`."""

import argparse
import asyncio
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from benchmarks.daemon import Daemon, Server, daemon, postgres, send
from benchmarks.measure import percentile
from benchmarks.workload import CORPUS, Row, rows

BARE_TABLE = """create table bare (timestamp timestamptz not null, severity smallint not null, service text, host text,
message text not null, attributes jsonb)"""


@dataclass(slots=True)
class Result:
    """One run of one scenario."""

    records: int
    seconds: float
    lost: int = 0
    failures: int = 0
    latencies: list[float] = field(default_factory=list)
    daemon_cpu: float = 0.0
    postgres_cpu: float = 0.0
    peak: float = 0.0

    @property
    def rate(self) -> float:
        return (self.records - self.lost) / self.seconds


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is sent, where to, and how."""

    name: str
    kind: str
    listener: str
    #: Makes the file that the sender reads.
    make: Callable[[list[Row]], bytes]
    #: Connections of http; datagrams a second of UDP.
    number: int = 1
    #: Part of the records that it sends.
    part: float = 1.0


def lines(form: Callable[[Row], bytes]) -> Callable[[list[Row]], bytes]:
    return lambda made: b"\n".join(map(form, made)) + b"\n"


def requests(batch: int) -> Callable[[list[Row]], bytes]:
    def make(made: list[Row]) -> bytes:
        parts = []
        for at in range(0, len(made), batch):
            body = b"\n".join(row.as_json() for row in made[at : at + batch])
            head = b"POST /ingest HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % len(body)
            parts += [(len(head) + len(body)).to_bytes(8, "big"), head, body]
        return b"".join(parts)

    return make


SCENARIOS = [
    Scenario("JSON lines over TCP", "stream", "TCP", lines(Row.as_json)),
    Scenario("HTTP, 1,000 a request, 2 connections", "http", "HTTP", requests(1000), number=2),
    Scenario("HTTP, 1 a request, 64 connections", "http", "HTTP", requests(1), number=64, part=0.1),
    Scenario("HTTP, 1 a request, 1 connection", "http", "HTTP", requests(1), number=1, part=0.005),
    Scenario("syslog RFC 5424 over TCP", "stream", "SYSLOG_TCP", lines(Row.as_rfc5424)),
    Scenario("syslog RFC 3164 over TCP", "stream", "SYSLOG_TCP", lines(Row.as_rfc3164)),
    Scenario(
        "syslog over UDP, 50,000/s", "datagrams", "SYSLOG_UDP", lambda made: b"\n".join(map(Row.as_rfc3164, made)),
        number=50_000,
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


def measure(server: Server, scenario: Scenario, path: Path, count: int) -> Result:
    url = asyncio.run(server.fresh_database("bench_logagg"))
    with daemon(url) as running:
        cpu, of_postgres = running.seconds(), server.seconds()
        began = time.perf_counter()
        sent = send(scenario.kind, running.ports[scenario.listener], path, scenario.number)
        stored = running.wait_stored(count)
        seconds = time.perf_counter() - began
        return _result(running, server, sent, count, stored, seconds, cpu, of_postgres)


def _result(
    running: Daemon, server: Server, sent: dict[str, object], count: int, stored: int, seconds: float, cpu: float,
    of_postgres: float,
) -> Result:  # fmt: skip
    latencies, failures = sent.get("latencies", []), sent.get("failures", 0)
    assert isinstance(latencies, list)  # noqa: S101  # it is what load.py prints
    assert isinstance(failures, int)  # noqa: S101
    return Result(
        count, seconds, lost=count - stored, failures=failures, latencies=latencies,
        daemon_cpu=running.seconds() - cpu, postgres_cpu=server.seconds() - of_postgres, peak=running.peak(),
    )  # fmt: skip


def table(results: dict[str, list[Result]]) -> str:
    bare = statistics.median(run.rate for run in results["bare COPY"])
    head = [
        "",
        "records/s",
        "of bare COPY",
        "ack p50 / p95 / p99 ms",
        "lost, failed",
        "daemon CPU",
        "PostgreSQL CPU",
        "peak MB",
    ]
    out = [head, ["---"] * len(head)]
    for name, runs in results.items():
        middle = sorted(runs, key=lambda run: run.rate)[len(runs) // 2]
        million = middle.records / 1e6
        acks = [f"{percentile(middle.latencies, part):.1f}" for part in (0.5, 0.95, 0.99)]
        out.append([
            name, f"{middle.rate:,.0f}", f"{middle.rate / bare:.2f}", " / ".join(acks) if middle.latencies else "",
            f"{middle.lost}, {middle.failures}", f"{middle.daemon_cpu / million:.1f}",
            f"{middle.postgres_cpu / million:.1f}", f"{middle.peak:.0f}" if middle.peak else "",
        ])  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in out)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3, help="runs of each scenario; the median is shown")
    parser.add_argument("--only", help="scenarios whose name has this text")
    options = parser.parse_args()
    chosen = [each for each in SCENARIOS if not options.only or options.only in each.name]
    made = rows(options.records)
    results: dict[str, list[Result]] = {"bare COPY": []} | {each.name: [] for each in chosen}
    with tempfile.TemporaryDirectory() as folder, postgres() as server:
        copy = Path(folder, "bare")
        copy.write_bytes(b"\n".join(map(Row.as_copy, made)) + b"\n")
        for number in range(options.runs):
            results["bare COPY"].append(asyncio.run(bare_copy(server, copy, len(made))))
            for scenario in chosen:
                part = made[: max(1, int(len(made) * scenario.part))]
                path = Path(folder, "sent")
                path.write_bytes(scenario.make(part))
                results[scenario.name].append(measure(server, scenario, path, len(part)))
                print(f"run {number + 1}: {scenario.name}: {results[scenario.name][-1].rate:,.0f}/s", file=sys.stderr)
    size = sum(len(row.as_json()) for row in made) / len(made)
    source = "real lines" if CORPUS.is_dir() else "generated lines"
    print(f"{len(made):,} records of {source}, {size:.0f} bytes of JSON each; median of {options.runs} runs;")
    print(f"CPU in seconds per million records. Python {platform.python_version()}, {platform.machine()}.\n")
    print(table(results))


if __name__ == "__main__":
    main()

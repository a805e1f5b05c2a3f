"""Service levels under a mixed load: `python -m benchmarks.slo --help`.

rsyslog forwards by RELP and by TCP, an HTTP client posts batches and waits for each answer, and others ask beside it,
for ten minutes at 10,000 records/s. Then the table: what was promised, and what was seen.
"""

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import uvloop

from benchmarks.daemon import Daemon, daemon, free_port, postgres
from benchmarks.measure import cpu_ticks, machine, percentile, table
from benchmarks.rsyslog import program, wait_listening
from benchmarks.workload import Row, rows

#: Parts of the rate: through rsyslog to RELP, through rsyslog to syslog over TCP, by HTTP.
RELP, TCP, HTTP = 0.3, 0.3, 0.4
#: Records of a request, and of one write to rsyslog.
BATCH = 100
#: Requests on their way at once, and questions a second.
CONNECTIONS, QUESTIONS = 8, 5
#: Seconds that the last records may take to be stored.
PATIENCE = 60
_CONFIG = """\
global(workDirectory={folder} maxMessageSize="64k")
module(load="imtcp")
module(load="omrelp")
input(type="imtcp" address="127.0.0.1" port="{relp_in}" ruleset="relp")
input(type="imtcp" address="127.0.0.1" port="{tcp_in}" ruleset="tcp")
ruleset(name="relp" queue.type="LinkedList" queue.size="500000") {{
    action(type="omrelp" target="127.0.0.1" port="{relp}" windowSize="1024"
        template="RSYSLOG_SyslogProtocol23Format")
}}
ruleset(name="tcp" queue.type="LinkedList" queue.size="500000") {{
    action(type="omfwd" target="127.0.0.1" port="{tcp}" protocol="tcp" TCP_Framing="octet-counted"
        template="RSYSLOG_SyslogProtocol23Format")
}}
"""
_QUESTIONS = (
    ("/logs", {"limit": "100"}),
    ("/logs", {"limit": "100", "q": "error"}),
    ("/logs", {"limit": "100", "level": "ERROR", "service": "{service}"}),
    ("/logs", {"limit": "20", "q": '"connection closed" or timeout'}),
    ("/logs/aggregations", {"by": "service,level"}),
    ("/logs/histogram", {"interval": "1m"}),
)


@dataclass(slots=True)
class Seen:
    """What became of requests of a kind: milliseconds of those that were answered, and why others were not."""

    took: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    by: dict[str, list[float]] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def one(self, asked: str) -> AsyncIterator[None]:
        """Time one request, also beside others that ask the same."""
        began = time.perf_counter()
        try:
            yield
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.failed.append(str(error) or type(error).__name__)
        else:
            self.took.append((time.perf_counter() - began) * 1000)
            self.by.setdefault(asked, []).append(self.took[-1])


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long")
    parser.add_argument("--rate", type=int, default=10_000, help="records a second, of all senders")
    parser.add_argument("--postgres", metavar="URL", help="a server of yours instead of the embedded one")
    options = parser.parse_args()
    if not program():
        raise SystemExit("there is no rsyslogd (Debian: rsyslog rsyslog-relp)")
    made = rows(20_000)
    with postgres(options.postgres) as server:
        url = asyncio.run(server.fresh_database("bench_slo"))
        print(machine(asyncio.run(server.version())) + "\n")
        with daemon(url, "RELP", "SYSLOG_TCP") as running, _rsyslogd(running) as inputs:
            met = uvloop.run(_drive(running, inputs, made, options.rate, options.seconds))
    raise SystemExit(0 if met else 1)


@contextlib.contextmanager
def _rsyslogd(running: Daemon) -> Iterator[tuple[int, int]]:
    """Run rsyslogd; yield the ports at which it takes what goes on by RELP, and by TCP."""
    ports = {"relp_in": free_port(), "tcp_in": free_port()}
    ports |= {"relp": running.ports["RELP"], "tcp": running.ports["SYSLOG_TCP"]}
    with tempfile.TemporaryDirectory(prefix="logagg-rsyslog-") as folder:
        config = Path(folder, "rsyslog.conf")
        config.write_text(_CONFIG.format(folder=json.dumps(folder), **ports))
        process = subprocess.Popen([str(program()), "-n", "-f", config, "-i", Path(folder, "pid")])
        try:
            wait_listening(process, ports["tcp_in"])
            yield ports["relp_in"], ports["tcp_in"]
        finally:
            process.terminate()
            process.wait(60)


async def _drive(running: Daemon, inputs: tuple[int, int], made: Sequence[Row], rate: int, seconds: float) -> bool:
    lines = _batches(made, [row.as_rfc5424().replace(b"\n", b" ") + b"\n" for row in made])
    bodies = _batches(made, [row.as_json() + b"\n" for row in made])
    ingest, search, end, chance = Seen(), Seen(), time.monotonic() + seconds, random.Random(7)
    began, ticks = time.perf_counter(), cpu_ticks()
    pool = aiohttp.TCPConnector(limit=0)
    base = f"http://127.0.0.1:{running.ports['HTTP']}"
    async with aiohttp.ClientSession(base, connector=pool, timeout=aiohttp.ClientTimeout(30)) as http:
        work = [
            *(_feed(port, lines, rate * part, end) for port, part in zip(inputs, (RELP, TCP), strict=True)),
            # Clients know nothing of each other: they do not send in the same moment.
            *(_post(http, ingest, bodies, rate * HTTP / CONNECTIONS, end, chance.random()) for _ in range(CONNECTIONS)),
            _ask(http, search, made, end),
        ]
        *sent, _ = await asyncio.gather(*work)
    took, total = time.perf_counter() - began, sum(sent)
    stored, _ = await asyncio.to_thread(running.wait_stored, total, PATIENCE)
    lost = total - stored - BATCH * len(ingest.failed)
    cores, stolen = (now - then for now, then in zip(cpu_ticks(), ticks, strict=True))
    print(f"{total:,} records sent in {took:.0f} s, {stored:,} stored, {max(lost, 0):,} missing; "
          f"{len(search.took):,} questions; peak memory {running.peak():.0f} MB. "
          f"Other machines of the same host took {stolen / max(cores, 1):.1%} of the cores' time.\n")  # fmt: skip
    for why in sorted({*ingest.failed, *search.failed}):
        print(f"- failed: {why}", file=sys.stderr)
    return _report(ingest, search, stored / took, max(lost, 0) / max(total, 1), rate)


async def _feed(port: int, batches: list[list[bytes]], rate: float, end: float) -> int:
    """Write lines to rsyslog at a rate; return how many."""
    pieces = _stamped(batches)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = 0
    async for _ in _paced(rate, end):
        writer.write(next(pieces))
        await writer.drain()
        sent += BATCH
    writer.close()
    await writer.wait_closed()
    return sent


def _batches(made: Sequence[Row], lines: Sequence[bytes]) -> list[list[bytes]]:
    """Cut the lines into batches, and each batch at the times of its records."""
    batches = []
    for at in range(0, len(made), BATCH):
        batch = zip(made[at : at + BATCH], lines[at : at + BATCH], strict=True)
        halves = (line.split(row.stamp().encode(), 1) for row, line in batch)
        batches.append(b"".join(b"\0".join(half) for half in halves).split(b"\0"))
    return batches


def _stamped(batches: list[list[bytes]]) -> Iterator[bytes]:
    """Yield the batches again and again, each record with the time at which it is asked for, as senders do it.

    A search for the latest would have to look at everything, were the times repeated too.
    """
    for parts in cycle(batches):
        yield f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}".encode().join(parts)


async def _post(
    http: aiohttp.ClientSession, seen: Seen, batches: list[list[bytes]], rate: float, end: float, later: float
) -> int:
    """Post batches at a rate from some seconds on, each when the one before is answered; return how many records."""
    bodies = _stamped(batches)
    sent = 0
    await asyncio.sleep(later)
    async for _ in _paced(rate, end):
        async with seen.one("POST /ingest"), http.post("/ingest", data=next(bodies)) as answer:
            answer.raise_for_status()
        sent += BATCH
    return sent


async def _ask(http: aiohttp.ClientSession, seen: Seen, made: Sequence[Row], end: float) -> int:
    services = cycle(sorted({row.service for row in made}))
    asked = cycle(_QUESTIONS)
    async for _ in _paced(QUESTIONS * BATCH, end):
        path, query = next(asked)
        text = urlencode({name: text.format(service=next(services)) for name, text in query.items()})
        async with seen.one(" ".join((path, *map("=".join, query.items())))), http.get(f"{path}?{text}") as answer:
            answer.raise_for_status()
            await answer.read()
    return 0


async def _paced(rate: float, end: float) -> AsyncIterator[None]:
    """Yield once for each batch that is due at this rate of records."""
    began, done = time.monotonic(), 0
    while time.monotonic() < end:
        yield
        done += BATCH
        if (ahead := began + done / rate - time.monotonic()) > 0:
            await asyncio.sleep(ahead)


def _report(ingest: Seen, search: Seen, rate: float, lost: float, wanted: int) -> bool:
    answered, failed = len(ingest.took) + len(search.took), len(ingest.failed) + len(search.failed)
    available = answered / max(answered + failed, 1)
    failures = max(failed / max(answered + failed, 1), lost)
    p95 = percentile(ingest.took, 0.95), percentile(search.took, 0.95)
    lines = [
        ("availability", f"{available:.3%}", "99.9 %", available >= 0.999),
        ("ingest, p95 until durable", f"{p95[0]:.1f} ms", "100 ms", p95[0] <= 100),
        ("search, p95", f"{p95[1]:.1f} ms", "500 ms", p95[1] <= 500),
        ("throughput", f"{rate:,.0f}/s", f"{wanted:,}/s", rate >= wanted * 0.99),
        ("failures", f"{failures:.4%}", "0.1 %", failures <= 0.001),
    ]
    print(table(("level", "seen", "promised", ""), [[*line[:3], "met" if line[3] else "missed"] for line in lines]))
    print("\nMilliseconds of each kind, all along, and of the first and the last tenth:\n")
    asked = {**ingest.by, **search.by}.items()
    print(
        table(("request", "times", "p50", "p95", "first p95", "last p95"), [[what, *_figures(t)] for what, t in asked])
    )
    return all(line[3] for line in lines)


def _figures(took: Sequence[float]) -> list[str]:
    tenth = max(len(took) // 10, 1)
    parts = [(took, 0.5), (took, 0.95), (took[:tenth], 0.95), (took[-tenth:], 0.95)]
    return [f"{len(took):,}", *(f"{percentile(some, part):.0f}" for some, part in parts)]


if __name__ == "__main__":
    main()

"""A minute of JSON over TCP as fast as the daemon takes it, while batches are packed behind it."""

import asyncio
import threading
import time
from dataclasses import dataclass, field

import asyncpg

from benchmarks.daemon import WAITING, Server, daemon, start_history, wait_packed, what_it_sent
from benchmarks.measure import table
from benchmarks.report import at_most, judged

NAME = "sustained"
#: Seconds between two looks at how much waits for packing.
LOOK = 2.0
#: Seconds between two records as their timestamps have it.
STEP = 1e-5
RATE_REACH, RATE_AIM = 70_000, 150_000
MEMORY_REACH, MEMORY_AIM = 500, 250
DISK_REACH, DISK_AIM = 45, 30

_PACKED = """select coalesce(sum(count), 0)::bigint, count(*), coalesce(sum(pg_column_size(head)), 0)::bigint,
    coalesce(sum(pg_column_size(body)), 0)::bigint, coalesce(sum(pg_column_size(filter)), 0)::bigint,
    coalesce(sum(pg_column_size(summary)), 0)::bigint from batches where packed_at is not null"""
_ROWS = """select coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint from pg_inherits
    where inhparent = 'logs'::regclass"""


@dataclass(slots=True)
class Disk:
    """What packed batches and rows take, in bytes a record."""

    packed_records: int
    batches: int
    head: float
    body: float
    filter: float
    summary: float
    #: With their indexes.
    rows: float

    @property
    def packed(self) -> float:
        return self.head + self.body + self.filter + self.summary


@dataclass(slots=True)
class Sustained:
    """What was measured."""

    records: int
    stored: int
    seconds: float
    drain: float
    daemon_cpu: float
    postgres_cpu: float
    peak: float
    disk: Disk
    #: Closed batches that are not packed yet, and their records: during the load, and at its end.
    lags: list[tuple[int, int]] = field(default_factory=list)
    left: int = 0


def measure(server: Server, seconds: float, cycle: int, patience: float) -> Sustained:
    """Send for so many seconds; then wait until all is packed, or nothing has been for `patience` seconds."""
    url = asyncio.run(server.fresh_database("bench_logagg"))
    with daemon(url, "TCP") as running:
        lags, over = [(0, 0)], threading.Event()
        watch = threading.Thread(target=lambda: asyncio.run(_watch(url, lags, over)))
        watch.start()
        cpu, of_postgres = running.seconds(), server.seconds()
        try:
            with start_history(running, seconds=seconds, step=STEP, cycle=cycle) as sender:
                sent = what_it_sent(sender)
                stored, until = running.wait_stored(sent["records"])
        finally:
            over.set()
            watch.join()
        left = asyncio.run(wait_packed(url, patience))
        drain = time.perf_counter() - until
        return Sustained(
            sent["records"], stored, until - sent["began"], drain, running.seconds() - cpu,
            server.seconds() - of_postgres, running.peak(), asyncio.run(disk_use(url)), lags, left,
        )  # fmt: skip


async def _watch(url: str, lags: list[tuple[int, int]], over: threading.Event) -> None:
    """Look now and then at how much waits for packing, the last time when the load is over."""
    connection = await asyncpg.connect(url)
    last = False
    while not last:
        last = await asyncio.to_thread(over.wait, LOOK)
        lags.append(tuple(await connection.fetchrow(WAITING)))
    await connection.close()


async def disk_use(url: str) -> Disk:
    """Return what batches and rows take."""
    connection = await asyncpg.connect(url)
    try:
        packed, batches, head, body, of_filter, summary = await connection.fetchrow(_PACKED)
        each = 1 / max(packed, 1)
        rows = await connection.fetchval("select count(*) from logs")
        size = await connection.fetchval(_ROWS)
        return Disk(packed, batches, head * each, body * each, of_filter * each, summary * each, size / max(rows, 1))
    finally:
        await connection.close()


def report(run: Sustained) -> str:
    """Return what was measured, as a table."""
    million, disk = run.records / 1e6, run.disk
    packed_rate = 0.0 if run.left else run.stored / (run.seconds + run.drain)
    most, last = max(run.lags), run.lags[-1]
    rows = [
        [
            "records/s, committed and packed", f"{packed_rate:,.0f}",
            judged(packed_rate, RATE_REACH, f"{RATE_REACH:,}"), judged(packed_rate, RATE_AIM, f"{RATE_AIM:,}"),
        ],
        ["records/s, committed", f"{run.stored / run.seconds:,.0f}", "", ""],
        ["lost", f"{run.records - run.stored:,}", "", ""],
        ["waiting for packing, at most", f"{most[0]} batches, {most[1]:,} records", "", ""],
        ["waiting for packing, at the end", f"{last[0]} batches, {last[1]:,} records", "", ""],
        ["then until all was packed", f"{run.drain:.1f} s", "", ""]
        if not run.left
        else ["never packed", f"{run.left} batches", "", ""],
        [
            "peak memory of the daemon, MB", f"{run.peak:.0f}",
            at_most(run.peak, MEMORY_REACH, f"{MEMORY_REACH}"), at_most(run.peak, MEMORY_AIM, f"{MEMORY_AIM}"),
        ],
        ["CPU of the daemon, s per million", f"{run.daemon_cpu / million:.1f}", "", ""],
        ["CPU of PostgreSQL, s per million", f"{run.postgres_cpu / million:.1f}", "", ""],
        *disk_rows(disk),
    ]  # fmt: skip
    title = f"{run.records:,} records of JSON over TCP, for {run.seconds:.0f} s as fast as the daemon took them:"
    return f"{title}\n\n{table(('', 'measured', 'reach', 'aim'), rows)}\n"


def disk_rows(disk: Disk) -> list[list[str]]:
    """Return the rows of a table about disk."""
    if not disk.packed_records:
        return [["bytes a packed record", "nothing is packed", "", ""], ["bytes a row", f"{disk.rows:.0f}", "", ""]]
    parts = f"head {disk.head:.1f}, body {disk.body:.1f}, filter {disk.filter:.1f}, summary {disk.summary:.1f}"
    return [
        [
            "bytes a packed record", f"{disk.packed:.1f} ({parts})",
            at_most(disk.packed, DISK_REACH, f"{DISK_REACH}"), at_most(disk.packed, DISK_AIM, f"{DISK_AIM}"),
        ],
        ["records a batch", f"{disk.packed_records / disk.batches:,.0f}", "", ""],
        ["bytes a row, with its indexes", f"{disk.rows:.0f}", "", ""],
    ]  # fmt: skip

"""Connections to PostgreSQL that are cut, and a PostgreSQL that is away, or there and silent."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Self

from .harness import PATIENCE, Daemon, Postgres, resident, verdict
from .kills import RATE, load
from .scenario import Outcome, Scenario
from .senders import HttpSender, books_of, under_load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from logagg.tests.chaos.senders import Book, Sender

#: COMMIT as asyncpg sends it: a simple query, whose text ends with a NUL.
COMMIT = b"COMMIT;\0"
#: Where a connection is cut: COMMIT does not arrive; it arrives and its answer does not, or is torn; after so many
#: bytes to the server, or from it.
IN_COMMIT = ("before COMMIT", "after COMMIT", "in its answer")
ELSEWHERE = ("to PostgreSQL", "from PostgreSQL")
#: Bytes of the answer to COMMIT: CommandComplete and ReadyForQuery.
ANSWER = 18
#: Seconds after PostgreSQL's return in which the journal must be empty again.
DRAINED = 60.0
#: What part of the records due must be acknowledged while PostgreSQL takes none; in seconds a slow machine sends few.
LEAST = 0.5
LEAST_SHORT = 0.1
#: Seconds without PostgreSQL below which it is the short form.
SHORT = 10
#: MiB, the default of the setting `memory`.
MEMORY = 512


class Proxy:
    """A port in front of a PostgreSQL, which cuts the next connection that comes to the place it was told."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._way = ""
        #: Bytes until the cut.
        self._left = 0
        self._done = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        self.url = f"postgresql://logagg@127.0.0.1:{port}/logagg?sslmode=disable"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()

    async def cut(self, way: str, patience: float = 20) -> bool:
        """Cut a connection in this way; return whether one came to that place in time."""
        self._left = random.randint(0, 30_000 if way == "to PostgreSQL" else 600)  # noqa: S311 - no secret
        self._done.clear()
        self._way = way
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._done.wait()
        self._way = ""
        return self._done.is_set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError:
            writer.transport.abort()
            return
        here = _Connection(self, writer, up_writer)
        with suppress(OSError):
            await asyncio.gather(here.up(reader), here.down(up_reader))
        here.end()

    def take(self, *ways: str) -> str:
        """Return how to cut, if it is one of these; it is done once."""
        way = self._way if self._way in ways else ""
        if way:
            self._way = ""
        return way

    def spend(self, way: str, count: int) -> int | None:
        """Return how many of these bytes come before the cut; None for all of them."""
        if self._way != way:
            return None
        if count <= self._left:
            self._left -= count
            return None
        self._way = ""
        return self._left

    def finished(self) -> None:
        """Say that a connection is cut."""
        self._done.set()


class _Connection:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        #: Whether answers are thrown away.
        self._mute = False
        #: Bytes of the next answer that still get through; None for all.
        self._answers: int | None = None

    async def up(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(1 << 16):
            way = self._proxy.take(*IN_COMMIT) if COMMIT in data else ""
            if way == "before COMMIT":
                self._cut()
                return
            if way == "after COMMIT":
                self._mute = True
            elif way == "in its answer":
                self._answers = random.randint(1, ANSWER - 1)  # noqa: S311
            if (most := self._proxy.spend("to PostgreSQL", len(data))) is not None:
                self._server.write(data[:most])
                self._cut()
                return
            self._server.write(data)
            await self._server.drain()
            if way == "after COMMIT":
                await asyncio.sleep(random.uniform(0, 0.02))  # noqa: S311
                self._cut()
                return
        self._server.close()

    async def down(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(1 << 16):
            if self._mute:
                continue
            most = self._answers or self._proxy.spend("from PostgreSQL", len(data))
            self._client.write(data[:most])
            if most is not None:
                self._cut()
                return
            await self._client.drain()
        self._client.close()

    def _cut(self) -> None:
        """Cut both sides; what was written to the server before still arrives."""
        self._client.transport.abort()
        self._server.close()
        self._proxy.finished()

    def end(self) -> None:
        """Close what is still open."""
        self._client.close()
        self._server.close()


async def cut_connections(folder: Path, short: bool) -> Outcome:
    """Cut connections under load, two of three of them in COMMIT."""
    count = 6 if short else 200
    ways = [*IN_COMMIT, ELSEWHERE[0], *IN_COMMIT, ELSEWHERE[1]]
    cuts: Counter[str] = Counter()
    async with Postgres(folder) as postgres, Proxy(postgres.socket) as proxy, Daemon(folder, proxy.url) as daemon:
        senders = load(daemon, RATE / 2)
        async with under_load(senders):
            for number in range(count):
                way = ways[number % len(ways)]
                cuts[way] += await proxy.cut(way)
                await asyncio.sleep(random.uniform(0, 0.3))  # noqa: S311
        outcome = await verdict(daemon, postgres.url, books_of(senders))
    broken = [f"only {cuts.total()} of {count} cuts were made"] if cuts.total() < count else []
    return Outcome({f"cut {way}": cuts[way] for way in cuts} | outcome.figures, outcome.broken + broken)


async def postgres_away(folder: Path, short: bool) -> Outcome:
    """Stop PostgreSQL for a minute, under load all the time."""
    seconds, rate = (3, RATE / 2) if short else (60, RATE)
    async with Postgres(folder) as postgres, Daemon(folder, postgres.url) as daemon:
        senders = load(daemon, rate)
        async with under_load(senders):
            await asyncio.sleep(0.5 if short else 5)
            await postgres.stop()
            meanwhile = await _meanwhile(daemon, _http(senders), seconds, rate)
            await postgres.start()
            drained = round(await _drained(daemon), 1)
        outcome = await verdict(daemon, postgres.url, books_of(senders))
        pages, disorder = await _order(daemon, outcome.figures["found"])
    broken = meanwhile.broken + outcome.broken + disorder
    if drained > DRAINED:
        broken.append(f"drained {drained} s after PostgreSQL's return, {DRAINED:g} are promised")
    figures = {
        **meanwhile.figures,
        "longest wait for an ack, s": round(_http(senders).longest, 2),
        "drained after, s": drained,
        "pages newest first": pages,
    }
    return Outcome(figures | outcome.figures, broken)


async def postgres_stopped(folder: Path, short: bool) -> Outcome:
    """Let PostgreSQL's processes stand still: it is there, and does not answer.

    What is under way then is waited for, and its sender is told no after `ack_timeout`; so there are more senders than
    transactions at once.
    """
    hasty = {"journal_after": "300ms", "ack_timeout": "1s"}
    seconds, rate, settings = (3, RATE / 2, hasty) if short else (30, RATE, {})
    async with Postgres(folder) as postgres, Daemon(folder, postgres.url, **settings) as daemon:
        at_start = resident(daemon.pid)
        senders = load(daemon, rate, clients=8)
        async with watched(daemon.pid) as peak, under_load(senders):
            await asyncio.sleep(0.5 if short else 5)
            postgres.pause()
            meanwhile = await _meanwhile(daemon, _http(senders), seconds, rate)
            postgres.resume()
            drained = round(await _drained(daemon), 1)
        outcome = await verdict(daemon, postgres.url, books_of(senders))
    broken = meanwhile.broken + outcome.broken
    if peak[0] > at_start + MEMORY:
        broken.append(f"{peak[0]:.0f} MiB of memory, {at_start:.0f} at start and {MEMORY} of the setting are promised")
    figures = {
        **meanwhile.figures,
        "longest wait for an ack, s": round(_http(senders).longest, 2),
        "drained after, s": drained,
        "memory at start, MiB": round(at_start),
        "largest memory, MiB": round(peak[0]),
    }
    return Outcome(figures | outcome.figures, broken)


async def _meanwhile(daemon: Daemon, book: Book, seconds: float, rate: float) -> Outcome:
    """Let time pass; tell what was acknowledged over HTTP in it, and whether that is about what was to be sent.

    A short time says nothing of the rate, on a machine that does something else: then it goes on until some is.
    """
    before, due = len(book.acknowledged), rate / 2 * seconds
    await asyncio.sleep(seconds)
    end = time.monotonic() + (PATIENCE if seconds < SHORT else 0)
    while len(book.acknowledged) - before < due * LEAST_SHORT and time.monotonic() < end:
        await asyncio.sleep(0.1)
    acknowledged = len(book.acknowledged) - before
    waiting = round((await daemon.metrics())["journal_records"])
    figures = {"seconds": seconds, "acknowledged meanwhile": acknowledged, "in the journal then": waiting}
    stalled = f"{acknowledged:,} acknowledged over HTTP in {seconds} s without PostgreSQL, of {due:,.0f} to be sent"
    least = LEAST_SHORT if seconds < SHORT else LEAST
    return Outcome({**figures}, [stalled] if acknowledged < due * least else [])


def _http(senders: Sequence[Sender]) -> Book:
    return next(each.book for each in senders if isinstance(each, HttpSender))


async def _drained(daemon: Daemon) -> float:
    """Return how many seconds it takes until the journal is empty."""
    began = time.monotonic()
    while (await daemon.metrics())["journal_records"]:
        assert time.monotonic() - began < PATIENCE, f"the journal is not empty after {PATIENCE} s: {daemon.said()}"
        await asyncio.sleep(0.1)
    return time.monotonic() - began


async def _order(daemon: Daemon, count: object) -> tuple[int, list[str]]:
    """Turn all pages of `GET /logs`; return how many there are, and what is wrong with their order."""
    pages, seen, last, broken = 0, 0, "9", []
    url: str | None = "/logs?limit=10000"
    while url:
        async with daemon.http.get(url) as answer:
            records = await answer.json()
            url = str(answer.links["next"]["url"]) if "next" in answer.links else None
        times = [last, *(record["timestamp"] for record in records)]
        if times != sorted(times, reverse=True):
            broken.append(f"page {pages + 1} of GET /logs is not newest first")
        pages, seen, last = pages + 1, seen + len(records), times[-1]
    if seen != count:
        broken.append(f"the pages of GET /logs have {seen:,} records of {count:,}")
    return pages, broken


@asynccontextmanager
async def watched(pid: int) -> AsyncIterator[list[float]]:
    """Give the largest resident memory of a process and its children, in MiB, as it grows."""
    peak = [0.0]

    async def watch() -> None:
        while True:
            peak[0] = max(peak[0], resident(pid))
            await asyncio.sleep(0.2)

    task = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        task.cancel()


SCENARIOS = [
    Scenario(
        "postgres-away",
        "PostgreSQL stopped for 60 s at 5,000 records/s",
        "none lost, none twice; acks go on; drained within 60 s; answers in order of time",
        postgres_away,
    ),
    Scenario(
        "cut-connections",
        "200 connections to PostgreSQL cut, in COMMIT above all",
        "none lost, none twice",
        cut_connections,
    ),
    Scenario(
        "postgres-stopped",
        "PostgreSQL stopped by SIGSTOP for 30 s at 5,000 records/s",
        "none lost, none twice; acks go on; memory bounded",
        postgres_stopped,
    ),
]

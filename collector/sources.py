"""Who sends: counts what becomes durable by host, service, environment and transport, and writes it down.

What the flusher hands over is gathered and counted together, for one count of 65,536 records costs a tenth of 65 of
1,000; it goes into the table of sources every few seconds, never in a transaction of records. What PostgreSQL does not
take waits here; what waits is lost with the daemon.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain, groupby
from operator import attrgetter, itemgetter
from typing import Final, NamedTuple, NoReturn

import polars as pl
import structlog

from logagg.collector.buffer import Chunk
from logagg.collector.complaints import Complaints
from logagg.collector.metrics import Metrics
from logagg.protocols.record import Record
from logagg.sinks.errors import StoreError
from logagg.sinks.sources import CANARY, LONGEST_NAME, MOST, OTHERS, Seen, Source, Sources

log = structlog.get_logger("sources")

#: Seconds between two writes, and between two looks at the whole table.
PERIOD: Final = 5.0
LOOK: Final = 15.0
#: Seconds that the last write may take.
STOP: Final = 2.0
#: Records, and bytes of them as received, that are counted together.
_TOGETHER: Final = 65_536
_BYTES: Final = 16 << 20
#: Sources that are written together: the driver encodes them on the event loop.
_AT_ONCE: Final = 1000
#: Sources that have a metric of their own: those with most records.
MOST_METRICS: Final = 1000

_NAMES: Final = ("host", "service", "environment")
_of_record = itemgetter(*(Record._fields.index(name) for name in _NAMES))

Key = tuple[str, str, str, str]


class _Chunk(NamedTuple):
    """A chunk, without who waits for it."""

    transport: str
    records: Sequence[Record] | pl.DataFrame
    size: int


class _Counted(NamedTuple):
    """What was counted of one source of a transport."""

    names: tuple[str, str, str]
    first: datetime
    last: datetime
    records: int
    skew: timedelta


class Watch:
    """Sees every chunk that is durable, and keeps the table of sources."""

    def __init__(self, sources: Sources, metrics: Metrics) -> None:
        self._sources = sources
        self._metrics = metrics
        self._complaints = Complaints()
        #: Not counted yet; how many records and bytes.
        self._chunks: list[_Chunk] = []
        self._records, self._bytes = 0, 0
        self._much = asyncio.Event()
        #: Counted, and not written yet.
        self._seen: dict[Key, Seen] = {}

    def saw(self, chunks: Iterable[Chunk]) -> None:
        """Take chunks that are durable: in PostgreSQL, or in the journal."""
        for chunk in chunks:
            records = chunk.decoded.records
            if len(records):
                self._chunks.append(_Chunk(chunk.transport, records, chunk.size))
                self._records += len(records)
                self._bytes += chunk.size
        if self._records >= _TOGETHER or self._bytes >= _BYTES:
            self._much.set()

    async def run(self, kept: Callable[[], timedelta]) -> NoReturn:
        """Count and write, until cancelled. Sources that were not seen for so long are dropped."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._count(), name="sources: count")
                group.create_task(self._write(), name="sources: write")
                group.create_task(self._look(kept), name="sources: look")
            raise AssertionError  # none of them ends
        finally:
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(STOP):
                    await self.flush()

    async def _count(self) -> NoReturn:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._much.wait(), PERIOD / 2)
            await self._try(self._counted)

    async def _write(self) -> NoReturn:
        while True:
            await asyncio.sleep(PERIOD)
            await self._try(self.flush)

    async def _look(self, kept: Callable[[], timedelta]) -> NoReturn:
        async def look() -> None:
            await self._sources.expire(kept())
            self._show(await self._sources.all())

        while True:
            await self._try(look)
            await asyncio.sleep(LOOK)

    async def _try(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it; what goes wrong is said and costs no record."""
        try:
            await work()
        except StoreError as error:  # PostgreSQL is away
            self._complaints.say("sources are not written", "sources", "", str(error))
        except Exception:
            log.exception("sources are not counted")

    async def _counted(self) -> None:
        """Count what has gathered."""
        chunks, self._chunks = self._chunks, []
        self._records, self._bytes = 0, 0
        self._much.clear()
        if not chunks:
            return
        try:
            found = await asyncio.to_thread(count, chunks)
        except asyncio.CancelledError:
            self._chunks = chunks + self._chunks
            raise
        merge(self._seen, found)  # what is written meanwhile has another place

    async def flush(self) -> None:
        """Write what was seen; what waits for PostgreSQL stays. Raises StoreError."""
        await self._counted()
        seen, self._seen = list(self._seen.values()), {}
        try:
            while seen:
                await self._sources.add(seen[-_AT_ONCE:])
                del seen[-_AT_ONCE:]
        except (StoreError, asyncio.CancelledError):
            merge(self._seen, seen)
            raise

    def _show(self, sources: Sequence[Source]) -> None:
        """Set the metrics."""
        self._metrics.sources.set(len(sources))
        self._metrics.sources_silent.set(sum(source.silent for source in sources))
        self._metrics.source_last_seen.clear()
        missed = [source for source in sources if source.service != CANARY]
        for source in missed[:MOST_METRICS]:
            labels = (source.host or "", source.service or "", source.environment or "", source.transport)
            self._metrics.source_last_seen.labels(*labels).set(source.last_seen.timestamp())


def merge(into: dict[Key, Seen], some: Iterable[Seen]) -> None:
    """Add what was seen to what was seen before, of `MOST` sources and those of all others together."""
    for each in some:
        key = each[:4]
        before = into.get(key)
        if before is None and len(into) >= MOST:
            each = each._replace(host="", service=OTHERS, environment="")
            key = each[:4]
            before = into.get(key)
        into[key] = _sum(before, each) if before else each


def _sum(one: Seen, other: Seen) -> Seen:
    records = one.records + other.records
    return one._replace(
        first=min(one.first, other.first),
        last=max(one.last, other.last),
        records=records,
        bytes=one.bytes + other.bytes,
        skew=(one.skew * one.records + other.skew * other.records) / records,
    )


def count(chunks: Sequence[_Chunk]) -> list[Seen]:
    """Return what was seen in chunks; a source may come twice."""
    found: list[Seen] = []
    for transport, some in groupby(sorted(chunks, key=attrgetter("transport")), attrgetter("transport")):
        frames: list[pl.DataFrame] = []
        records: list[Record] = []
        size = number = 0
        for chunk in some:
            size += chunk.size
            number += len(chunk.records)
            if isinstance(chunk.records, pl.DataFrame):
                frames.append(chunk.records)
            else:
                records += chunk.records
        found += [
            Seen(
                *each.names, transport, each.first, each.last, each.records, size * each.records // number,
                each.skew.total_seconds(),
            )
            for each in chain(_of_columns(frames), _of_records(records))
        ]  # fmt: skip
    return found


def _of_columns(frames: Sequence[pl.DataFrame]) -> Iterator[_Counted]:
    if not frames:
        return
    received = pl.col("received_at")
    whole = pl.concat(frames).select(*_NAMES, "received_at", "timestamp").rechunk()  # counts in half the time
    counted = whole.group_by(_NAMES).agg(
        received.min().alias("first"),
        received.max().alias("last"),
        pl.len().alias("records"),
        (received - pl.col("timestamp")).median().alias("skew"),
    )
    for host, service, environment, *rest in counted.iter_rows():
        yield _Counted(_names((host, service, environment)), *rest)


def _of_records(records: Sequence[Record]) -> Iterator[_Counted]:
    """Count records one by one, in order of receipt. The newest of a source tells its skew."""
    keys = list(map(_of_record, records))
    newest = dict(zip(keys, records, strict=True))
    oldest = dict(zip(reversed(keys), reversed(records), strict=True))
    for key, number in Counter(keys).items():
        first, last, timestamp = oldest[key].received_at, newest[key].received_at, newest[key].timestamp
        if first.tzinfo and last.tzinfo and timestamp.tzinfo:  # else it is in the quarantine
            yield _Counted(_names(key), first, last, number, last - timestamp)


def _names(key: Sequence[str | None]) -> tuple[str, str, str]:
    """Return host, service and environment as the table takes them."""
    host, service, environment = (
        str(name or "")[:LONGEST_NAME].encode("utf-8", "replace").decode().replace("\0", "\ufffd") for name in key
    )
    return host, service, environment

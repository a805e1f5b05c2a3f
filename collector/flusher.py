"""Group commit: lanes that take what has gathered in the ring buffer, store it in one transaction, and then ack it."""

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import NoReturn, Protocol

import polars as pl
import structlog

from logagg.collector.buffer import Chunk, RingBuffer
from logagg.collector.metrics import Metrics
from logagg.protocols.columns import Records, from_records, to_records
from logagg.protocols.record import Record, Reject
from logagg.sinks.errors import StoreUnavailable
from logagg.sinks.store import Written

log = structlog.get_logger("flusher")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


def merged(parts: Sequence[Records]) -> Records:
    """Join records in their order: as records when all of them are, else as columns."""
    frames: list[pl.DataFrame] = []
    records: list[Record] = []
    try:
        for part in parts:
            if isinstance(part, pl.DataFrame):
                frames += [from_records(records), part] if records else [part]
                records = []
            else:
                records += part
        return pl.concat([*frames, from_records(records)] if records else frames) if frames else records
    except (TypeError, ValueError):  # a record that no column takes: the sink finds it, record by record
        return [record for part in parts for record in (to_records(part) if isinstance(part, pl.DataFrame) else part)]


class Sink(Protocol):
    """Where records go."""

    async def write(self, records: Records, rejects: list[Reject]) -> Written:
        """Store all of it; return when it is durable. Raises StoreUnavailable when nothing was written."""


class Flusher:
    """Stores the buffer's chunks in order of arrival. A transaction that fails is tried again until it succeeds."""

    def __init__(
        self, buffer: RingBuffer, sink: Sink, metrics: Metrics, *, lanes: int, max_records: int, interval: float
    ) -> None:
        self._buffer = buffer
        self._sink = sink
        self._metrics = metrics
        self._lanes = lanes
        self._max_records = max_records
        self._interval = interval
        self._turn = asyncio.Lock()
        #: Why the last transaction failed; None while all is well.
        self.trouble: str | None = None

    async def run(self) -> None:
        """Flush until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._lanes):
                group.create_task(self._lane(), name=f"flush lane {number}")

    async def _lane(self) -> NoReturn:
        while True:
            async with self._turn:
                chunks = await self._buffer.take(self._max_records, self._interval)
            await self._store(chunks)

    async def _store(self, chunks: list[Chunk]) -> None:
        pause = FIRST_PAUSE
        while chunks := self._without_withdrawn(chunks):
            try:
                await self._write(chunks)
            except Exception as error:  # whatever it is, records that were taken are not given up
                self._failed(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                self._buffer.settle(chunks)
                return

    async def _write(self, chunks: list[Chunk]) -> None:
        records = merged([chunk.decoded.records for chunk in chunks])
        rejects = list(chain.from_iterable(chunk.decoded.rejects for chunk in chunks))
        with self._metrics.flush_seconds.time():
            written = await self._sink.write(records, rejects)
        self._metrics.flush_records.observe(len(records) + len(rejects))
        self._recovered()
        self._count(chunks, written)
        for chunk in chunks:
            if chunk.done and not chunk.done.done():
                chunk.done.set_result(None)

    def _count(self, chunks: list[Chunk], written: Written) -> None:
        place = 0
        for chunk in chunks:
            end = place + len(chunk.decoded.records)
            poison = sum(place <= refused < end for refused in written.refused) if written.refused else 0
            counters = self._metrics.of(chunk.transport)
            counters.stored.inc(end - place - poison)
            if quarantined := len(chunk.decoded.rejects) + poison:
                counters.quarantined.inc(quarantined)
            place = end

    def _without_withdrawn(self, chunks: list[Chunk]) -> list[Chunk]:
        withdrawn = [chunk for chunk in chunks if chunk.withdrawn]
        if not withdrawn:
            return chunks
        for chunk in withdrawn:
            self._metrics.dropped.labels(chunk.transport, "no commit in time").inc(chunk.count)
        self._buffer.settle(withdrawn)
        return [chunk for chunk in chunks if not chunk.withdrawn]

    def _failed(self, error: Exception) -> None:
        self._metrics.flush_failures.inc()
        if self.trouble is None:
            passing = isinstance(error, StoreUnavailable)
            log.error("PostgreSQL does not take records; they wait", reason=str(error), exc_info=not passing)
        self.trouble = str(error) or type(error).__name__

    def _recovered(self) -> None:
        if self.trouble is not None:
            log.info("PostgreSQL takes records again", waiting=self._buffer.records)
        self.trouble = None

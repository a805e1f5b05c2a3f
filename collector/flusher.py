"""Group commit: lanes that take what has gathered in the ring buffer, store it in one transaction, and then ack it.

While PostgreSQL does not take records they go to the journal, and are acked when they are on disk there.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
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
#: Seconds between two looks whether lanes are stuck, however little patience there is.
SHORTEST_LOOK = 0.02


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

    async def write(self, records: Records, rejects: Sequence[Reject] = (), keys: Sequence[bytes] = ()) -> Written:
        """Store all of it; return when it is durable. Raises StoreUnavailable when nothing was written."""


class Refuge(Protocol):
    """Where records go while the sink is away: `journaling.Journaling`."""

    #: Why the sink does not take records; None while it does, as far as is known.
    trouble: str | None

    async def keep(self, chunks: Sequence[Chunk]) -> bool:
        """Keep chunks on disk; False when that cannot be, and they have to wait."""

    def away(self, reason: str) -> None:
        """Say that the sink does not take records; it says itself when it does again."""


class Flusher:
    """Stores the buffer's chunks in order of arrival. A transaction that fails is tried again until it succeeds."""

    def __init__(
        self,
        buffer: RingBuffer,
        sink: Sink,
        metrics: Metrics,
        *,
        lanes: int,
        max_records: int,
        interval: float,
        refuge: Refuge | None = None,
        patience: float = 5.0,
        saw: Callable[[Sequence[Chunk]], None] | None = None,
    ) -> None:
        """Without a refuge, records wait. With one, those go there that have waited for `patience` seconds.

        `saw` gets chunks once they are durable, here or there; it must not fail.
        """
        self._buffer = buffer
        self._sink = sink
        self._metrics = metrics
        self._lanes = lanes
        self._max_records = max_records
        self._interval = interval
        self._refuge = refuge
        #: Seconds that records wait for a sink that is slow before they go to the refuge.
        self.patience = patience
        self._saw = saw
        #: Entered around `flush`, all that becomes of some chunks, and `COPY`, one transaction: where traces are made.
        self.around: Callable[[str, Sequence[Chunk]], AbstractContextManager[object]] = lambda _, __: nullcontext()
        self._turn = asyncio.Lock()
        self._trouble: str | None = None
        #: When a lane took chunks, or was done with some, for the last time.
        self._moved = 0.0

    @property
    def trouble(self) -> str | None:
        """Why the sink does not take records; None while all is well."""
        return self._trouble or (self._refuge.trouble if self._refuge else None)

    async def run(self) -> None:
        """Flush until cancelled."""
        self._moved = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for number in range(self._lanes):
                group.create_task(self._lane(), name=f"flush lane {number}")
            if self._refuge:
                group.create_task(self._relieve(self._refuge), name="relief")

    async def _lane(self) -> NoReturn:
        while True:
            chunks = await self._take()
            self._moved = asyncio.get_running_loop().time()
            with self.around("flush", chunks):
                await self._store(chunks)
            self._moved = asyncio.get_running_loop().time()

    async def _take(self) -> list[Chunk]:
        async with self._turn:
            return await self._buffer.take(self._max_records, self._interval)

    async def _relieve(self, refuge: Refuge) -> NoReturn:
        """Keep what waits in the refuge when all lanes are stuck: the sink is slow, or does not answer at all."""
        loop = asyncio.get_running_loop()
        pause = SHORTEST_LOOK
        while True:
            await asyncio.sleep(pause)
            pause = max(SHORTEST_LOOK, self.patience / 10)
            # With the turn free, no lane waits for chunks.
            while self._buffer.waiting and not self._turn.locked() and loop.time() - self._moved >= self.patience:
                pause = SHORTEST_LOOK  # senders wait, and send more when they are answered
                chunks = self._without_withdrawn(await self._take())
                if await self._kept(refuge, chunks):
                    self._buffer.settle(chunks)
                else:
                    await self._store(chunks)

    async def _kept(self, refuge: Refuge, chunks: list[Chunk]) -> bool:
        kept = await refuge.keep(chunks)
        if kept and self._saw:
            self._saw(chunks)
        return kept

    async def _store(self, chunks: list[Chunk]) -> None:
        pause = FIRST_PAUSE
        while chunks := self._without_withdrawn(chunks):
            if self._refuge and self._refuge.trouble and await self._kept(self._refuge, chunks):
                break
            try:
                if not await self._write(chunks):
                    for chunk in chunks:
                        await self._store([chunk])
                    return
            except Exception as error:  # whatever it is, records that were taken are not given up
                if not self._failed(error):
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
            else:
                self._recovered()
                break
        self._buffer.settle(chunks)

    async def _write(self, chunks: list[Chunk]) -> bool:
        """Store chunks in one transaction; False when one of several came before, and nothing is stored."""
        records = merged([chunk.decoded.records for chunk in chunks])
        rejects = list(chain.from_iterable(chunk.decoded.rejects for chunk in chunks))
        keys = [chunk.key for chunk in chunks if chunk.key is not None]
        with self._metrics.flush_seconds.time(), self.around("COPY", chunks):
            written = await self._sink.write(records, rejects, keys)
        if written.repeated and len(chunks) > 1:
            return False
        self._metrics.flush_records.observe(len(records) + len(rejects))
        self._count(chunks, written)
        for chunk in chunks:
            chunk.acknowledge()
        if self._saw and not written.repeated:
            self._saw(chunks)
        return True

    def _count(self, chunks: list[Chunk], written: Written) -> None:
        place = 0
        for chunk in chunks:
            if written.repeated:
                self._metrics.duplicate.labels(chunk.transport).inc(chunk.count)
                continue
            end = place + len(chunk.decoded.records)
            poison = sum(place <= refused < end for refused in written.refused) if written.refused else 0
            self._metrics.settled(chunk.transport, end - place - poison, len(chunk.decoded.rejects) + poison)
            place = end

    def _without_withdrawn(self, chunks: list[Chunk]) -> list[Chunk]:
        withdrawn = [chunk for chunk in chunks if chunk.withdrawn]
        if not withdrawn:
            return chunks
        for chunk in withdrawn:
            self._metrics.dropped.labels(chunk.transport, "no commit in time").inc(chunk.count)
        self._buffer.settle(withdrawn)
        return [chunk for chunk in chunks if not chunk.withdrawn]

    def _failed(self, error: Exception) -> bool:
        """Note the trouble; return whether the refuge was told of it, so that there is no need to wait."""
        self._metrics.flush_failures.inc()
        passing = isinstance(error, StoreUnavailable)
        reason = str(error) or type(error).__name__
        if self.trouble is None:
            log.error("PostgreSQL does not take records", reason=reason, exc_info=not passing)
        if self._refuge and passing and self._refuge.trouble is None:
            self._refuge.away(reason)
            return True
        self._trouble = reason
        return False

    def _recovered(self) -> None:
        if self._trouble is not None:
            log.info("PostgreSQL takes records again", waiting=self._buffer.records)
        self._trouble = None

"""The journal beside the flusher: keeps what PostgreSQL does not take, and stores it when it does again, in order.

Both sides of an entry carry the same key, so that one which is replayed twice is stored once.
"""

import asyncio
import os
from collections.abc import Sequence
from itertools import chain
from typing import NoReturn, Protocol

import structlog

from logagg.collector.buffer import Chunk
from logagg.collector.flusher import FIRST_PAUSE, LONGEST_PAUSE, Sink, merged
from logagg.collector.metrics import Metrics
from logagg.sinks import entries
from logagg.sinks.errors import StoreUnavailable
from logagg.sinks.journal import Entry, Journal, JournalError
from logagg.sinks.writing import columns_of

log = structlog.get_logger("journal")

#: Seconds between two looks whether PostgreSQL takes records again.
_LOOK = 1.0
KEY_BYTES = 16


class PingableSink(Sink, Protocol):
    """A sink that can be asked whether it is there."""

    async def ping(self) -> None:
        """Return when it answers; raises StoreUnavailable."""


class Journaling:
    """Keeps chunks in the journal while the sink is away; `run` brings them into the sink."""

    def __init__(self, journal: Journal, sink: PingableSink, metrics: Metrics) -> None:
        self._journal = journal
        self._sink = sink
        self._metrics = metrics
        #: Why the sink does not take records; None while it does, as far as is known.
        self.trouble: str | None = None
        #: Why the journal takes no more; None while it does.
        self._full: str | None = None
        self._work = asyncio.Event()
        self._damaged = 0
        self._report_damage()
        if journal.entries:
            log.info("records wait in the journal", records=journal.records, entries=journal.entries)
            self._work.set()

    def away(self, reason: str) -> None:
        """Say that the sink does not take records."""
        self.trouble = reason
        self._work.set()

    async def keep(self, chunks: Sequence[Chunk]) -> bool:
        """Keep chunks on disk and ack them; False when the journal is full or the disk fails."""
        try:
            await asyncio.to_thread(self._append, chunks)
        except Exception as error:  # whatever it is, the records wait then
            if self._full is None:
                known = isinstance(error, JournalError)
                log.error("the journal takes no more; records wait", reason=str(error), exc_info=not known)
            self._full = str(error)
            self._metrics.journal_failures.inc()
            return False
        self._full = None
        for chunk in chunks:
            self._metrics.journaled.labels(chunk.transport).inc(chunk.count)
            chunk.acknowledge()
        self._work.set()
        return True

    def _append(self, chunks: Sequence[Chunk]) -> None:
        """Write an entry for each key, one for all that have none."""
        groups: dict[bytes | None, list[Chunk]] = {}
        for chunk in chunks:
            groups.setdefault(chunk.key, []).append(chunk)
        self._journal.append([_entry(key, some) for key, some in groups.items()])

    async def run(self) -> NoReturn:
        """Store what is in the journal, and look whether the sink takes records again, until cancelled."""
        pause = FIRST_PAUSE
        while True:
            await self._work.wait()
            try:
                entry = await asyncio.to_thread(self._journal.first)
                self._report_damage()
                if entry is None:
                    await self._sink.ping()
                    if not self._journal.entries:
                        self._work.clear()
                else:
                    await self._replay(entry)
                self._recovered()
                pause = FIRST_PAUSE
            except Exception as error:
                if not isinstance(error, StoreUnavailable):
                    log.error(
                        "replaying the journal failed", reason=str(error), exc_info=not isinstance(error, JournalError)
                    )
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LOOK if isinstance(error, StoreUnavailable) else LONGEST_PAUSE)

    async def _replay(self, entry: Entry) -> None:
        try:
            flush = await asyncio.to_thread(entries.decode, entry.payload)
        except ValueError as error:  # written by a newer program, before an older one was put in its place
            await asyncio.to_thread(self._journal.refuse, entry, str(error))
            return
        written = await self._sink.write(flush.records, flush.rejects, entry.key)
        await asyncio.to_thread(self._journal.done, entry)
        refused = len(written.quarantined)
        for transport, (records, rejects) in flush.counts.items():
            here = min(refused, records)
            refused -= here
            self._metrics.replayed.labels(transport).inc(records + rejects)
            if written.repeated:  # its sender sent it again, or a daemon died before it could take it out here
                self._metrics.duplicate.labels(transport).inc(records + rejects)
            else:
                self._metrics.settled(transport, records - here, rejects + here)

    def _recovered(self) -> None:
        if self.trouble is not None:
            log.info("PostgreSQL takes records again", in_journal=self._journal.records)
        self.trouble = None

    def _report_damage(self) -> None:
        damaged = self._journal.damaged
        for damage in damaged[self._damaged :]:
            log.error("a file of the journal is damaged; it is kept", file=str(damage.path), reason=damage.reason)
        self._damaged = len(damaged)


def _entry(key: bytes | None, chunks: Sequence[Chunk]) -> Entry:
    frame, poison = columns_of(merged([chunk.decoded.records for chunk in chunks]))
    rejects = [*chain.from_iterable(chunk.decoded.rejects for chunk in chunks), *poison.values()]
    counts: dict[str, tuple[int, int]] = {}
    place = 0
    for chunk in chunks:
        end = place + len(chunk.decoded.records)
        refused = sum(place <= each < end for each in poison)
        records, others = counts.get(chunk.transport, (0, 0))
        counts[chunk.transport] = (records + end - place - refused, others + chunk.count - (end - place) + refused)
        place = end
    return Entry(key or os.urandom(KEY_BYTES), len(frame) + len(rejects), entries.encode(frame, rejects, counts))

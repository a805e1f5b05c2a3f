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
#: Records that are stored in one transaction out of the journal: small entries are many.
_TOGETHER = 2_000


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
        #: Names of damaged files that the log has told of.
        self._reported: set[str] = set()
        self._report_damage()
        if journal.entries:
            log.info("records wait in the journal", records=journal.records, entries=journal.entries)
            self._work.set()

    @property
    def waiting(self) -> bool:
        """Whether anything waits in the journal."""
        return self._journal.entries > 0

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
                    await self._replay(
                        [entry, *await asyncio.to_thread(self._journal.following, _TOGETHER - entry.records)]
                    )
                self._recovered()
                pause = FIRST_PAUSE
            except Exception as error:
                if not isinstance(error, StoreUnavailable):
                    log.error(
                        "replaying the journal failed", reason=str(error), exc_info=not isinstance(error, JournalError)
                    )
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LOOK if isinstance(error, StoreUnavailable) else LONGEST_PAUSE)

    async def _replay(self, some: Sequence[Entry]) -> None:
        """Store entries in one transaction; each in its own when one of them is there already, or cannot be read."""
        try:
            flushes = await asyncio.to_thread(lambda: [entries.decode(entry.payload) for entry in some])
        except ValueError as error:  # written by a newer program, before an older one was put in its place
            if len(some) > 1:
                await self._each(some)
            else:
                await asyncio.to_thread(self._journal.refuse, some[0], str(error))
            return
        records = merged([flush.records for flush in flushes])
        rejects = list(chain.from_iterable(flush.rejects for flush in flushes))
        written = await self._sink.write(records, rejects, [entry.key for entry in some])
        if written.repeated and len(some) > 1:
            await self._each(some)
            return
        await asyncio.to_thread(self._done, some)
        refused = len(written.quarantined)
        for transport, (count, others) in chain.from_iterable(flush.counts.items() for flush in flushes):
            here = min(refused, count)
            refused -= here
            self._metrics.replayed.labels(transport).inc(count + others)
            if written.repeated:  # its sender sent it again, or a daemon died before it could take it out here
                self._metrics.duplicate.labels(transport).inc(count + others)
            else:
                self._metrics.settled(transport, count - here, others + here)

    def _done(self, some: Sequence[Entry]) -> None:
        for entry in some:
            self._journal.done(entry)

    async def _each(self, some: Sequence[Entry]) -> None:
        for entry in some:
            await self._replay([entry])

    def _recovered(self) -> None:
        if self.trouble is not None:
            log.info("PostgreSQL takes records again", in_journal=self._journal.records)
        self.trouble = None

    def _report_damage(self) -> None:
        for damage in self._journal.damaged:
            name = damage.path.name.removesuffix(".damaged")
            if name not in self._reported:
                self._reported.add(name)
                log.error("a file of the journal is damaged; it is kept", file=str(damage.path), reason=damage.reason)


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

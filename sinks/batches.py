"""A batch: some ten thousands of records written one after the other by one daemon, and what is known of it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import NamedTuple

import polars as pl

from logagg.sinks import frames
from logagg.sinks.frames import PLACE_BITS, ROW, Row

#: More distinct services, hosts or environments than this are no use to skip a batch by: they are not kept.
MOST_DISTINCT = 4096

#: A frame in more pieces than this is slow to work on.
_MOST_CHUNKS = 32

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_timestamp, _received = itemgetter(ROW.index("timestamp")), itemgetter(ROW.index("received_at"))
_service, _host, _environment = (itemgetter(ROW.index(name)) for name in ("service", "host", "environment"))


class BatchInfo(NamedTuple):
    """What is known of a batch without its records. None is unknown, and cannot be used to skip the batch."""

    batch: int
    #: Records may still be added. Then all else tells of what was there when asked, or is None.
    open: bool
    count: int | None  # type: ignore[assignment]  # tuple has a method of that name
    ts_min: datetime | None
    ts_max: datetime | None
    received_min: datetime | None
    received_max: datetime | None
    services: frozenset[str | None] | None
    hosts: frozenset[str | None] | None
    environments: frozenset[str | None] | None


@dataclass
class Stats:
    """Count, bounds and distinct values of some rows."""

    count: int = 0
    times: list[datetime] = field(default_factory=list)  # the least and the greatest timestamp; empty for no rows
    received: list[datetime] = field(default_factory=list)
    services: set[str | None] = field(default_factory=set)
    hosts: set[str | None] = field(default_factory=set)
    environments: set[str | None] = field(default_factory=set)

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Stats":
        """Measure rows. Raises TypeError when a time is naive or no time at all."""
        times, received = (_bounds(list(map(get, rows))) for get in (_timestamp, _received))
        distinct = (set(map(get, rows)) for get in (_service, _host, _environment))
        return cls(len(rows), times, received, *distinct)

    def add(self, other: "Stats") -> None:
        """Add what is known of other rows."""
        self.count += other.count
        self.times = _bounds(self.times + other.times)
        self.received = _bounds(self.received + other.received)
        self.services |= other.services
        self.hosts |= other.hosts
        self.environments |= other.environments

    def info(self, batch: int, *, is_open: bool) -> BatchInfo:
        """Say it as the contract of the store has it."""
        first, last = self.times or (None, None)
        received_first, received_last = self.received or (None, None)
        distinct = (_few(s) for s in (self.services, self.hosts, self.environments))
        return BatchInfo(batch, is_open, self.count, first, last, received_first, received_last, *distinct)


def _bounds(values: list[datetime]) -> list[datetime]:
    if not values:
        return []
    low, high = min(values), max(values)
    _ = low - _EPOCH, high - _EPOCH  # a naive time raises TypeError here, before it is written
    return [low, high]


def _few(values: set[str | None]) -> frozenset[str | None] | None:
    return frozenset(values) if len(values) <= MOST_DISTINCT else None


class OpenBatch:
    """The batch that this store fills, with its committed records in memory.

    Rows are kept as they were written, and turned into a frame when somebody asks: each row once.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        #: Somebody else closed it: it must not be written to again.
        self.lost = False
        self.stats = Stats()
        self._opened = time.monotonic()  # the wall clock may jump
        self._places = 0
        self._writing = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._rows: list[Row] = []
        self._frame = frames.empty(list(frames.SCHEMA))
        self._converting = asyncio.Lock()

    def full(self, records: int, age: timedelta) -> bool:
        """Tell whether the next write belongs into a new batch."""
        return self.lost or self._places >= records or time.monotonic() - self._opened >= age.total_seconds()

    def reserve(self, count: int) -> int:
        """Give places to a write of `count` records; return the id of the first. `done` or `gone` must follow."""
        first = self.number << PLACE_BITS | self._places
        self._places += count
        self._writing += 1
        self._idle.clear()
        return first

    def release(self, rows: Sequence[Row] = (), stats: Stats | None = None) -> None:
        """End a write: with the rows that were committed, or none."""
        self._rows += rows
        if stats:
            self.stats.add(stats)
        self._writing -= 1
        if not self._writing:
            self._idle.set()

    async def settled(self) -> None:
        """Wait until no write is under way."""
        await self._idle.wait()

    def info(self) -> BatchInfo:
        """Return what is known of it now."""
        return self.stats.info(self.number, is_open=True)

    async def load(self, columns: Sequence[str]) -> pl.DataFrame:
        """Return the committed records, sorted by place."""
        async with self._converting:
            if count := len(self._rows):
                # In a thread, for the loop's sake; a cancelled load changes nothing.
                self._frame = await asyncio.to_thread(_extended, self._frame, self._rows[:count])
                del self._rows[:count]
            return self._frame.select(columns)


def _extended(frame: pl.DataFrame, rows: Sequence[Row]) -> pl.DataFrame:
    longer = pl.concat([frame, frames.from_rows(rows)])
    if longer.n_chunks() > _MOST_CHUNKS:
        longer = longer.rechunk()
    # Writes may commit in another order than they were given places.
    return longer if longer["id"].is_sorted() else longer.sort("id")

"""A batch: some ten thousands of records written one after the other by one daemon, and what is known of it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl

from logagg.sinks import frames
from logagg.sinks.frames import FULL, LAST_PLACE, PLACE_BITS
from logagg.sinks.spool import Spool
from logagg.sinks.threads import read_in_thread

#: More distinct services, hosts or environments than this are no use to skip a batch by: they are not kept.
MOST_DISTINCT = 4096

#: Frames of so many records are large enough to stay as they are.
_LARGE = 2000


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
    #: Its packed form holds all its records, whatever became of the rows.
    packed: bool = False
    #: Another one says that the packed form was written anew, with fewer records. 0 for a batch that is not packed.
    version: int = 0
    #: Bytes of head, body, filter and summary of a packed batch.
    size: int | None = None


class Bounds(NamedTuple):
    """A batch that has reached one of them takes no further write."""

    records: int
    bytes: int
    seconds: float


class Loaded(NamedTuple):
    """Records of a batch, in any order."""

    frame: pl.DataFrame
    #: Bytes that came from PostgreSQL for it; 0 from memory or a cache.
    fetched: int


@dataclass
class Stats:
    """Count, bounds and distinct values of some records."""

    count: int = 0
    times: list[datetime] = field(default_factory=list)  # the least and the greatest timestamp; empty for no records
    received: list[datetime] = field(default_factory=list)
    services: set[str | None] = field(default_factory=set)
    hosts: set[str | None] = field(default_factory=set)
    environments: set[str | None] = field(default_factory=set)

    @classmethod
    def of(cls, frame: pl.DataFrame) -> "Stats":
        """Measure a frame of records."""
        if not frame.height:
            return cls()
        times, received = (_bounds([frame[name].min(), frame[name].max()]) for name in ("timestamp", "received_at"))
        distinct = (set(frame[name].to_list()) for name in ("service", "host", "environment"))
        return cls(frame.height, times, received, *distinct)

    def add(self, other: "Stats") -> None:
        """Add what is known of other records."""
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
        services, hosts, environments = (_few(s) for s in (self.services, self.hosts, self.environments))
        bounds = (first, last, received_first, received_last)
        return BatchInfo(batch, is_open, self.count, *bounds, services, hosts, environments)


def _bounds(values: Sequence[object]) -> list[datetime]:
    moments = [value.astimezone(UTC) for value in values if isinstance(value, datetime)]
    return [min(moments), max(moments)] if moments else []


def _few(values: set[str | None]) -> frozenset[str | None] | None:
    return frozenset(values) if len(values) <= MOST_DISTINCT else None


class OpenBatch:
    """A batch that this store fills, and then packs: its committed records are in memory, later in a file."""

    def __init__(self, number: int) -> None:
        self.number = number
        #: Somebody else closed it: it must not be written to again.
        self.lost = False
        #: It is closed in the database, and waits to be packed.
        self.closed = False
        self.stats = Stats()
        #: Bytes of the records in memory, about.
        self.size = 0
        #: Where the records are instead.
        self.spool: Spool | None = None
        self._opened = time.monotonic()  # the wall clock may jump
        self._places = 0
        #: The first places of the writes under way.
        self._writing: set[int] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._frames: list[pl.DataFrame] = []

    @property
    def count(self) -> int:
        """How many places were given."""
        return self._places

    @property
    def settled(self) -> int:
        """All writes to places below this one have ended: what of them is not here never will be."""
        return min(self._writing, default=self._places)

    def full(self, bounds: Bounds) -> bool:
        """Tell whether the next write belongs into a new batch."""
        old = time.monotonic() - self._opened >= bounds.seconds
        return self.lost or old or self._places >= bounds.records or self.size >= bounds.bytes

    def reserve(self, count: int) -> int:
        """Give places to a write of `count` records; return the id of the first. `release` must follow."""
        first = self._places
        self._places += count
        self._writing.add(first)
        self._idle.clear()
        return self.number << PLACE_BITS | first

    def release(self, first: int, frame: pl.DataFrame | None = None, stats: Stats | None = None) -> None:
        """End the write of this first id: with the records that were committed, or none."""
        if frame is not None and frame.height:
            self.size += int(frame.estimated_size())
            self._frames.append(frame)
            self._merge()
        if stats:
            self.stats.add(stats)
        self._writing.discard(first & LAST_PLACE)
        if not self._writing:
            self._idle.set()

    def _merge(self) -> None:
        """Merge small frames of about one size, so that many small writes do not make many frames."""
        while len(self._frames) > 1 and self._frames[-2].height < min(2 * self._frames[-1].height, _LARGE):
            last = self._frames.pop()
            self._frames[-1] = self._frames[-1].vstack(last).rechunk()

    async def quiet(self) -> None:
        """Wait until no write is under way."""
        await self._idle.wait()

    def info(self) -> BatchInfo:
        """Return what is known of it now."""
        return self.stats.info(self.number, is_open=True)

    async def load(self, columns: Sequence[str], ids: Sequence[int] | None = None) -> pl.DataFrame:
        """Return the committed records, or those with these ids, in the order in which they were committed."""
        with_id = columns if ids is None or "id" in columns else ["id", *columns]
        if self.spool:
            return _loaded([await read_in_thread(self.spool.read, with_id)], columns, ids)
        return await read_in_thread(_loaded, list(self._frames), columns, ids)

    async def leave_memory(self, folder: Path | None) -> Spool:
        """Move the records, to which no more will come, into a file in `folder`. Raises what `Spool` raises."""
        self.spool = await asyncio.to_thread(Spool, _loaded(self._frames, list(FULL)), folder)
        self._frames, self.size = [], 0
        return self.spool


def _loaded(parts: Sequence[pl.DataFrame], columns: Sequence[str], ids: Sequence[int] | None = None) -> pl.DataFrame:
    if ids is not None:
        parts = [part.filter(wanted) for part in parts if (wanted := among(part["id"], ids)).any()]
    # Without `select`, which starts an engine for each part.
    return pl.concat([part[list(columns)] for part in parts]) if parts else frames.empty(columns)


def among(found: pl.Series, ids: Sequence[int]) -> pl.Series:
    """Tell which of the ids that were found are among those asked for."""
    if isinstance(ids, range):
        return found.is_between(ids.start, ids.stop, closed="left")
    return found.is_in(pl.Series(ids, dtype=pl.Int64).implode())

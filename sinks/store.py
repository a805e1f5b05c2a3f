"""The store: records go into PostgreSQL, durable when `write` returns, and come back batch by batch as columns.

A store fills one batch at a time. The records of its open batch stand in memory, too, until the batch is packed. Errors
are `StoreUnavailable` for what passes, `StoreError` for what does not.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import polars as pl

from logagg.protocols.columns import Records
from logagg.protocols.record import Reject
from logagg.sinks import commits, frames, opening, owners, reading
from logagg.sinks.alerts import Alerts
from logagg.sinks.batches import BatchInfo, Bounds, Loaded, OpenBatch
from logagg.sinks.connections import NOT_YET, Connections
from logagg.sinks.errors import StoreError, StoreUnavailable, unavailable
from logagg.sinks.keys import Keys
from logagg.sinks.owners import Owner
from logagg.sinks.packed import Chosen, PackedReader
from logagg.sinks.packer import Packer
from logagg.sinks.replica import Replica
from logagg.sinks.sources import Sources
from logagg.sinks.tokens import Tokens
from logagg.sinks.trimming import Keep, Terms
from logagg.sinks.upkeep import Maintenance, Upkeep
from logagg.sinks.writing import (
    BatchLost,
    Doubt,
    Place,
    Repeated,
    Sifted,
    Written,
    columns_of,
    nothing,
    outcome,
    put,
    with_poison,
)

__all__ = ["BatchInfo", "Loaded", "Store", "StoreError", "StoreUnavailable", "Upkeep", "Written"]

#: The most records of one write, and before a batch is full: together 17 bits of places.
MOST = 1 << 16
_ABANDONED = "the store is being closed, and PostgreSQL does not answer"


class Store:
    """Records in PostgreSQL. Made by `open`, or made and then connected; ended by `close`."""

    def __init__(
        self,
        url: str,
        *,
        batch_records: int = MOST,
        batch_age: timedelta = timedelta(hours=1),
        connections: int = 2,
        pack_lag: int = 32,
        batch_bytes: int = 64 << 20,
        cache_bytes: int = 64 << 20,
        spool_dir: Path | None = None,
        replica_url: str | None = None,
    ) -> None:
        """Say how it shall be; until `connect` has returned everything raises StoreUnavailable. Needs a running loop.

        `connections` writes run at a time, more of them wait. A batch takes no further write once it has
        `batch_records` (at most 65,536, else ValueError) or `batch_bytes`, or is `batch_age` old. While `pack_lag`
        closed batches are not packed yet, no new one is opened: writes wait. They wait in files in `spool_dir` (None:
        the system's folder for such), which have no names and are gone with the store.
        `cache_bytes` of packed batches are kept in memory as columns. What is packed is read from the database of
        `replica_url`, as far as it is there.
        """
        if not 0 < batch_records <= MOST:
            message = f"a batch of {batch_records} records, at least 1, at most {MOST}"
            raise ValueError(message)
        self._connections = Connections(url, connections)
        self._owner = Owner(self._connections.one)
        self.keys = Keys(self._connections)
        self.tokens = Tokens(self._connections)
        self.sources = Sources(self._connections)
        self.alerts = Alerts(self._connections)
        self._bounds = Bounds(batch_records, batch_bytes, batch_age.total_seconds())
        self._turn = asyncio.Lock()  # fair: ids follow the order of the calls
        self._current: OpenBatch | None = None
        #: Batches whose records are here: the current one, those being closed, those that wait to be packed.
        self._own: dict[int, OpenBatch] = {}
        self._progress = commits.Progress(self._owner, self._own)
        self._packer = Packer(self._connections, self._own, pack_lag, 2 * batch_bytes, spool_dir)
        self._catalog = reading.Catalog()
        self.replica = Replica(replica_url) if replica_url else None
        self._packed = PackedReader(
            self._connections.reader, cache_bytes, self.replica.reader if self.replica else None
        )
        self._upkeep = Maintenance(self._connections.for_a_while, self._owner)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._connected = False
        self._closing = False
        self._abandoned = False

    @classmethod
    async def open(cls, url: str, **how: Any) -> Self:
        """Make a store, as `__init__` says, and connect it."""
        store = cls(url, **how)
        try:
            await store.connect()
        except BaseException:
            await store.close()
            raise
        return store

    async def connect(self) -> None:
        """Connect, bring the schema up to date, make the partitions around today, close what dead owners left open.

        Raises StoreError on a newer schema or a refused login; after StoreUnavailable it may be tried again.
        """
        await opening.connect(self._connections, self._owner)
        self._connected = True

    # Writing

    async def write(self, records: Records, rejects: Sequence[Reject] = (), keys: Sequence[bytes] = ()) -> Written:
        """Write all in one transaction; return after COMMIT. Records are `Record`s, or a frame of `columns.COLUMNS`.

        With keys it is written once, however often it is tried, by whichever store of the database: nothing of it is
        when one of them is there already.

        At most 65,536 records, else ValueError. A record that PostgreSQL refuses goes to the quarantine, its neighbours
        are stored. When the caller is cancelled the write still runs to its end: all of it is in, or nothing.
        """
        if len(records) > MOST:
            message = f"a write of {len(records)} records, at most {MOST}"
            raise ValueError(message)
        if self._closing:
            message = "the store is closed"
            raise StoreError(message)
        if not len(records) and not rejects:
            return Written(0, [], [])
        if self._abandoned:
            raise StoreUnavailable(_ABANDONED)
        task = self._begin(self._write(records, rejects, keys))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not (task.cancelled() and self._abandoned):
                raise
            raise StoreUnavailable(_ABANDONED) from None

    async def _write(self, records: Records, rejects: Sequence[Reject], keys: Sequence[bytes]) -> Written:
        frame, poison = columns_of(records)
        with unavailable():
            while True:
                batch, placed = await self._place(frame)
                try:
                    written = await self._put(batch, placed, [*rejects, *poison.values()], keys)
                except BatchLost:
                    if batch:
                        batch.lost = True
                except Repeated:
                    return Written(0, [], [], repeated=True)
                else:
                    return with_poison(written, poison)

    async def _place(self, frame: pl.DataFrame) -> tuple[OpenBatch | None, pl.DataFrame]:
        """Give each record its batch and id."""
        if not frame.height:
            return None, frames.empty(list(frames.FULL))
        async with self._turn:
            batch = await self._room(frame.height)
            first = batch.reserve(frame.height)
        ids = pl.int_range(first, first + frame.height, dtype=pl.Int64, eager=True)
        return batch, pl.DataFrame([ids.alias("id"), *frame])

    async def _room(self, count: int) -> OpenBatch:
        """Return a batch that takes another write of so many records; a batch of its own for more than one may have."""
        self._retire_if_full()
        if self._current and self._current.count + count > self._bounds.records:
            self._retire()
        if self._current is None:
            await self._packer.room()
            await self._owner.live()
            async with self._connections.writer() as con:
                number = await owners.open_batch(con, self._owner.number)
            self._current = self._own[number] = OpenBatch(number)
        return self._current

    async def _put(
        self, batch: OpenBatch | None, frame: pl.DataFrame, rejects: Sequence[Reject], keys: Sequence[bytes]
    ) -> Written:
        """Write, and keep in memory what was committed."""
        sifted = nothing()
        try:
            place = Place(batch.number if batch else None, self._owner.number, keys)
            sifted = await self._committed(place, frame, rejects)
        finally:
            if batch:
                batch.release(frame["id"][0], sifted.frame, sifted.stats)
                self._progress.changed()
        refused = [] if not sifted.poison else (~frame["id"].is_in(sifted.frame["id"].implode())).arg_true().to_list()
        return Written(sifted.frame.height, sifted.poison, refused)

    async def _committed(self, place: Place, frame: pl.DataFrame, rejects: Sequence[Reject]) -> Sifted:
        try:
            async with self._connections.writer() as con:
                return await put(con, place, frame, rejects)
        except Doubt as doubt:
            if await self._settled(doubt):
                return doubt.sifted
            raise StoreUnavailable(str(doubt)) from doubt

    async def _settled(self, doubt: Doubt) -> bool:
        """Ask until the server says what became of a transaction, however long it is away; closing ends the wait."""
        pause = 0.05
        while not self._closing:
            with contextlib.suppress(StoreUnavailable), unavailable():
                async with self._connections.reader() as con:
                    committed = await outcome(con, doubt)
                if committed is not None:
                    return committed
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)
        return False

    # Batches

    def _retire_if_full(self) -> None:
        if self._current and self._current.full(self._bounds):
            self._retire()

    def _retire(self) -> None:
        """Write no more to the current batch; close it behind the writes under way."""
        if self._current:
            self._begin(self._close_batch(self._current))
            self._current = None

    async def _close_batch(self, batch: OpenBatch) -> None:
        """Close a retired batch and have it packed; when the server is away maintenance tries again."""
        if batch.closed:
            return
        await batch.quiet()
        if batch.lost or not batch.stats.count:
            await self._give_up(batch)
            return
        with contextlib.suppress(StoreUnavailable), unavailable():
            async with self._connections.writer() as con:
                await owners.close(con, batch.info())
            if not self._closing and not batch.closed:
                batch.closed = True
                self._progress.changed()
                await self._packer.add(batch)

    async def _give_up(self, batch: OpenBatch) -> None:
        """Forget a batch that is not ours any more, or has no records: then its row goes, too."""
        with contextlib.suppress(StoreUnavailable), unavailable():
            if not batch.lost:
                async with self._connections.writer() as con:
                    await owners.close(con, batch.info())
            self._own.pop(batch.number, None)

    async def roll(self) -> None:
        """Close the open batch now, and return when it is closed."""
        async with self._turn:
            self._retire()
        await self._idle()

    async def pack_now(self) -> None:
        """Return when all batches that this store has closed are packed."""
        await self._idle()
        await self._packer.idle()

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run work that goes on when its caller is cancelled; `close` waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def _idle(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who waits for the task gets it; when nobody does, it is not a forgotten error

    # Reading

    async def batches(self, start: datetime | None = None, end: datetime | None = None) -> list[BatchInfo]:
        """Return the batches whose timestamps may lie within [start, end], open ones always; newest first."""
        with unavailable():
            async with self._connections.reader() as con:
                found = await self._catalog.batches(con, start, end)
        found = [self._own[b.batch].info() if b.open and b.batch in self._own else b for b in found]
        return [b for b in found if b.count != 0]

    def watch(self) -> AbstractAsyncContextManager[commits.Watch]:
        """Follow the commits of all stores of this database. Entering it raises StoreUnavailable."""
        self._check()
        return commits.watch(self._connections, self._progress, self._own)

    async def load(self, batch: BatchInfo, columns: Sequence[str], ids: Sequence[int] | None = None) -> Loaded:
        """Return the records of a batch, or those with these ids, in any order; columns and types as in frames.FULL.

        Ids may be a range, of which not all need to be there. Raises BlobDamaged for a packed form that cannot be read.
        """
        if own := self._own.get(batch.batch):
            return Loaded(await own.load(columns, ids), 0)
        if not batch.packed:
            with unavailable():
                async with self._connections.reader() as con:
                    frame = await reading.load(con, batch, columns, ids)
                    wanted = batch.count or 0 if ids is None else len(ids)
                    if frame.height >= wanted or not await reading.packed(con, batch):
                        return Loaded(frame, int(frame.estimated_size()))
            # It was packed, and its day dropped, since the batch was listed.
        return await (self._packed.load(batch, columns) if ids is None else self._packed.take(batch, columns, ids))

    async def select(self, batch: BatchInfo, columns: Sequence[str], chosen: Chosen) -> Loaded:
        """Return the records of a packed batch that `chosen` tells, in a thread, by these columns; see `load`."""
        return await self._packed.select(batch, columns, chosen)

    async def may_hold(self, batches: Sequence[BatchInfo], words: Sequence[str]) -> dict[int, list[bool]]:
        """Tell by the filters of packed batches which words, runs of word characters in any case, they may hold.

        By number of the batch, one answer a word. A batch that is not in the answer may hold anything.
        """
        return await self._packed.may_hold(self._in_packed_form(batches), words)

    async def summaries(self, batches: Sequence[BatchInfo]) -> dict[int, pl.DataFrame]:
        """Return by batch, if it has any, the counts by minute, environment, service and severity: packing.SUMMARY."""
        return await self._packed.summaries(self._in_packed_form(batches))

    def _in_packed_form(self, batches: Sequence[BatchInfo]) -> list[BatchInfo]:
        return [batch for batch in batches if batch.packed and batch.batch not in self._own]

    # Life

    async def ping(self) -> None:
        """Return when the server answers; raises StoreUnavailable."""
        self._check()
        with unavailable():
            await self._owner.live()

    async def maintenance(
        self, rows: timedelta, packed: timedelta | None = None, *sizes: int | None, keeps: tuple[Keep, ...] = ()
    ) -> Upkeep:
        """Do what is due: partitions ahead, batches left open or unpacked, what is older than it is kept, BRIN indexes.

        To be called each minute. Of several stores on one database, one does what they share. Rows are kept for
        `rows` once they are packed, batches for `packed`, but some of their records as `keeps` says; `sizes` are the
        most bytes that rows, batches and the quarantine may take; None is no limit. A task that fails says so in the
        answer; StoreUnavailable is raised when the server does not answer at all.
        """
        self._check()
        with unavailable():
            await self._owner.live()
            async with self._turn:
                self._retire_if_full()
            for batch in [b for b in self._own.values() if b is not self._current]:
                await self._close_batch(batch)
            return await self._upkeep.round(rows, Terms(packed, keeps), *sizes)

    async def index_rows(self) -> Upkeep:
        """Build one GIN index for SQL on a day that is over, if one is missing; that may take many minutes."""
        self._check()
        return await self._upkeep.index()

    def _check(self) -> None:
        if not self._connected:
            raise StoreUnavailable(NOT_YET)

    def abandon(self) -> None:
        """End the writes under way, on a server that does not answer; they, and all later ones, raise StoreUnavailable.

        What had not come to its COMMIT is not in. Of what had, nobody knows: written again, it may be there twice.
        """
        self._abandoned = True
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Wait for the writes under way, close the open batch, and disconnect. Packing is left to who comes next."""
        self._closing = True
        await self._packer.close()
        await self._idle()
        if not self._abandoned:
            self._retire()
            await self._idle()
        await self._progress.close()
        if self.replica:
            await self.replica.close()
        await self._connections.close()
        await self._owner.leave()

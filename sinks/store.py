"""The store: records go into PostgreSQL, durable when `write` returns, and come back batch by batch as columns.

A store fills one batch at a time. The records of its open batch stand in memory, too. Errors are `StoreUnavailable` for
what passes, `StoreError` for what does not.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

import asyncpg
import polars as pl

from logagg.protocols.record import Record, Reject
from logagg.sinks import owners, partitions, reading, schema
from logagg.sinks.batches import BatchInfo, OpenBatch
from logagg.sinks.connections import Connections
from logagg.sinks.errors import StoreError, StoreUnavailable, reason, unavailable
from logagg.sinks.frames import Row
from logagg.sinks.locks import MAINTENANCE, SUMMARIES, locked
from logagg.sinks.owners import Owner
from logagg.sinks.partitions import Dropped
from logagg.sinks.writing import BatchLost, Doubt, Sifted, nothing, outcome, put

__all__ = ["BatchInfo", "Store", "StoreError", "StoreUnavailable", "Upkeep", "Written"]

#: The most records of one write, and before a batch is full: together 17 bits of places.
MOST = 1 << 16
_LASTING = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.exceptions.ClientConfigurationError,
)
_OPEN = "insert into batches (owner) values ($1) returning batch"


class Written(NamedTuple):
    """What became of a write."""

    stored: int
    #: Records that PostgreSQL refuses: they are in the quarantine instead.
    quarantined: list[Reject]
    #: Which they are: their positions among the records of the write.
    refused: list[int]


class Upkeep(NamedTuple):
    """What maintenance did: partitions made, batches of dead owners closed, what was older than is kept."""

    made: list[str]
    adopted: list[int]
    dropped: Dropped


class Store:
    """Records in PostgreSQL. Made by `open`, ended by `close`."""

    def __init__(self, connections: Connections, owner: Owner, batch_records: int, batch_age: timedelta) -> None:
        self._connections = connections
        self._owner = owner
        self._batch_records = batch_records
        self._batch_age = batch_age
        self._turn = asyncio.Lock()  # fair: ids follow the order of the calls
        self._current: OpenBatch | None = None
        #: Batches whose records are in memory: the current one, and those being closed.
        self._own: dict[int, OpenBatch] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False

    @classmethod
    async def open(
        cls, url: str, *, batch_records: int = MOST, batch_age: timedelta = timedelta(hours=1), connections: int = 2
    ) -> Self:
        """Connect, bring the schema up to date, make the partitions around today, close what dead owners left open.

        `connections` writes run at a time, more of them wait. A batch takes no further write once it has
        `batch_records` (at most 65,536, else ValueError) or is `batch_age` old. Raises StoreError on a newer schema or
        a refused login.
        """
        if not 0 < batch_records <= MOST:
            message = f"a batch of {batch_records} records, at least 1, at most {MOST}"
            raise ValueError(message)
        with _lasting(), unavailable():
            async with contextlib.AsyncExitStack() as stack:
                connected = Connections(url)
                stack.push_async_callback(connected.close)
                owner = Owner(await _prepare(connected), connected.one)
                stack.push_async_callback(owner.leave)
                await owner.live()
                await connected.open(connections)
                stack.pop_all()
        return cls(connected, owner, batch_records, batch_age)

    # Writing

    async def write(self, records: Sequence[Record], rejects: Sequence[Reject] = ()) -> Written:
        """Write all in one transaction; return after COMMIT.

        At most 65,536 records, else ValueError. A record that PostgreSQL refuses goes to the quarantine, its neighbours
        are stored. When the caller is cancelled the write still runs to its end: all of it is in, or nothing.
        """
        if len(records) > MOST:
            message = f"a write of {len(records)} records, at most {MOST}"
            raise ValueError(message)
        if self._closing:
            message = "the store is closed"
            raise StoreError(message)
        if not records and not rejects:
            return Written(0, [], [])
        return await asyncio.shield(self._begin(self._write(records, rejects)))

    async def _write(self, records: Sequence[Record], rejects: Sequence[Reject]) -> Written:
        with unavailable():
            while True:
                batch, rows = await self._place(records)
                try:
                    return await self._put(batch, rows, rejects)
                except BatchLost:
                    if batch:
                        batch.lost = True

    async def _place(self, records: Sequence[Record]) -> tuple[OpenBatch | None, list[Row]]:
        """Give each record its batch and id."""
        if not records:
            return None, []
        async with self._turn:
            batch = await self._room()
            first = batch.reserve(len(records))
        number = batch.number
        return batch, [(id_, number, *record) for id_, record in enumerate(records, first)]

    async def _room(self) -> OpenBatch:
        """Return a batch that takes another write."""
        self._retire_if_full()
        if self._current is None:
            await self._owner.live()
            async with self._connections.writer() as con:
                number = await con.fetchval(_OPEN, self._owner.number)
            self._current = self._own[number] = OpenBatch(number)
        return self._current

    async def _put(self, batch: OpenBatch | None, rows: list[Row], rejects: Sequence[Reject]) -> Written:
        """Write, and keep in memory what was committed."""
        sifted = nothing()
        try:
            sifted = await self._committed(batch.number if batch else None, rows, rejects)
        finally:
            if batch:
                batch.release(sifted.rows, sifted.stats)
        stored = {row[0] for row in sifted.rows} if sifted.poison else set()
        refused = [place for place, row in enumerate(rows) if row[0] not in stored] if sifted.poison else []
        return Written(len(sifted.rows), sifted.poison, refused)

    async def _committed(self, batch: int | None, rows: list[Row], rejects: Sequence[Reject]) -> Sifted:
        try:
            async with self._connections.writer() as con:
                return await put(con, batch, self._owner.number, rows, rejects)
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
        if self._current and self._current.full(self._batch_records, self._batch_age):
            self._retire()

    def _retire(self) -> None:
        """Write no more to the current batch; close it behind the writes under way."""
        if self._current:
            self._begin(self._close_batch(self._current))
            self._current = None

    async def _close_batch(self, batch: OpenBatch) -> None:
        """Close a retired batch; when the server is away maintenance tries again."""
        await batch.settled()
        with contextlib.suppress(StoreUnavailable), unavailable():
            if not batch.lost:
                async with self._connections.writer() as con:
                    await owners.close(con, batch.info())
            self._own.pop(batch.number, None)

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
                found = await reading.batches(con, start, end)
        found = [self._own[b.batch].info() if b.batch in self._own else b for b in found]
        return [b for b in found if b.count != 0]

    async def load(self, batch: BatchInfo, columns: Sequence[str]) -> pl.DataFrame:
        """Return the records of a batch, sorted by place: columns and types as in frames.SCHEMA."""
        if own := self._own.get(batch.batch):
            return await own.load(columns)
        with unavailable():
            async with self._connections.reader() as con:
                return await reading.load(con, batch, columns)

    # Life

    async def ping(self) -> None:
        """Return when the server answers; raises StoreUnavailable."""
        with unavailable():
            await self._owner.live()

    async def maintenance(self, rows_retention: timedelta) -> Upkeep:
        """Do what is due: partitions ahead, batches that are old or left open, rows past `rows_retention`, indexes.

        To be called each minute. Of several stores on one database, one does what they share.
        """
        with unavailable():
            await self._owner.live()
            async with self._turn:
                self._retire_if_full()
            for batch in [b for b in self._own.values() if b is not self._current]:
                await self._close_batch(batch)
            async with self._connections.for_a_while() as con:
                done = await self._upkeep(con, rows_retention)
                async with locked(con, SUMMARIES, wait=False) as ours:
                    if ours:
                        await partitions.summarise(con)
                return done

    async def _upkeep(self, con: asyncpg.Connection, rows_retention: timedelta) -> Upkeep:
        async with locked(con, MAINTENANCE, wait=False) as ours:
            if not ours:
                return Upkeep([], [], Dropped([], [], 0, 0))
            # The earlier of two clocks, so that one that jumped ahead drops nothing.
            now = min(await con.fetchval("select now()"), datetime.now(UTC))
            made = await partitions.ensure(con, now)
            adopted = await owners.adopt_orphans(con, self._owner.number)
            return Upkeep(made, adopted, await partitions.drop_expired(con, now, rows_retention))

    async def close(self) -> None:
        """Wait for the writes under way, close the open batch, and disconnect."""
        self._closing = True
        await self._idle()
        self._retire()
        await self._idle()
        await self._connections.close()
        await self._owner.leave()


async def _prepare(connections: Connections) -> int:
    """Make the database ready for a store; return the number of its owner."""
    async with connections.for_a_while() as con:
        await schema.migrate(con)
        number: int = await con.fetchval("select nextval('owners')::int")
        async with locked(con, MAINTENANCE):
            await partitions.ensure(con, await con.fetchval("select now()"))
            await owners.adopt_orphans(con, number)
        return number


@contextlib.contextmanager
def _lasting() -> Iterator[None]:
    """Tell what no waiting mends: a refused login, a database that is not there, a URL that is none."""
    try:
        yield
    except StoreUnavailable as error:
        if isinstance(error.__cause__, _LASTING):
            raise StoreError(reason(error.__cause__)) from error
        raise
    except ValueError as error:  # what asyncpg finds in an address, such as a port that is no number
        raise StoreError(f"not an address of PostgreSQL: {error}") from error

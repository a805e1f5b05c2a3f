"""Upkeep of a database that several stores may share: what maintenance does, each task with a name, a lock and a time.

No task is in the way of ingest: none waits long for a lock that writers need, and packing takes one batch at a time and
a bounded time a round.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar

import asyncpg
import polars as pl

from logagg.sinks import frames, owners, packing, partitions, quarantine, reading, retention
from logagg.sinks.errors import StoreError, StoreUnavailable, reason, unavailable
from logagg.sinks.frames import FULL, PLACE_BITS, TIME
from logagg.sinks.locks import CLASS, INDEXES, MAINTENANCE, PACKING, SUMMARIES, UNPACKING, locked
from logagg.sinks.packing import Packed
from logagg.sinks.retention import Dropped
from logagg.sinks.trimming import Terms, Trimmed, trim

#: What maintenance consists of, in the order of a round; `gin` has rounds of its own.
TASKS = ("partitions", "orphans", "packing", "retention", "trimming", "summaries", "gin")

#: A batch closed for longer than this is packed by whoever comes first, not only by the store that filled it.
_LONG_AGO = timedelta(minutes=10)
#: Seconds that packing from rows, or trimming, may take of one round; and until a batch that fails is tried again.
_PACKING_TIME = 15.0
_TRY_AGAIN = 6 * 3600.0
#: Rows that are Python objects at one time.
_PIECE = 8192

T = TypeVar("T")
Connect = Callable[[], AbstractAsyncContextManager[Any]]

_STORE = """
update batches set head = $2, body = $3, filter = $4, summary = $5, checksums = $6, packed_at = now()
where batch = $1 and closed_at is not null and packed_at is null
"""
_UNPACKED = "select count from batches where batch = $1 and closed_at is not null and packed_at is null"
#: The owner of a batch packs it from memory; it lives while it holds its lock.
_NEXT = f"""
select batch from batches b
where closed_at is not null and packed_at is null and batch <> all ($1::bigint[])
    and ($2::interval is null or closed_at < now() - $2::interval or not exists (
        select from pg_locks
        where locktype = 'advisory' and classid = {CLASS} and objid::bigint = b.owner and objsubid = 2
            and database = (select oid from pg_database where datname = current_database())
    ))
order by closed_at, batch limit 1
"""  # noqa: S608 - a number of ours
#: Records of a packed batch, and bytes of its packed form; reads none of them.
SIZE = f"select count, {reading.PACKED_SIZE} from batches where batch = $1"  # noqa: S608 - a text of ours
_LAG = """
select count(*), coalesce(sum(count), 0)::bigint, coalesce(now() - min(closed_at), interval '0')
from batches where closed_at is not null and packed_at is null
"""

#: asyncpg writes the first and the last datetime there is as infinities. The sum is exact: extract gives numeric.
_FINITE = "greatest(least({0}, '9999-12-31T23:59:59.999999Z'), '0001-01-01T00:00:00Z')"
_TIME = f"(extract(epoch from {_FINITE}) * 1000000)::bigint"
_SELECTED = [
    _TIME.format(name) if kind == TIME else f"{name}::text" if name == "attributes" else name
    for name, kind in FULL.items()
]
_ROWS = f"""
select {", ".join(_SELECTED)} from logs
where id between $1 and $2
    and received_at >= (select received_min from batches where batch = $3)
    and received_at <= (select received_max from batches where batch = $3)
"""  # noqa: S608 - names out of FULL


class BatchDamaged(StoreError):
    """The rows of a batch are not those that were written: it is not packed, and stays as rows."""


class Task(NamedTuple):
    """One task of maintenance that has run."""

    name: str
    #: Unix time at which it ended, and seconds that it took.
    ended: float
    seconds: float
    #: A StoreError, unless the fault is in the program.
    error: Exception | None


class Lag(NamedTuple):
    """Batches that are closed and not packed, their records, and how long the oldest is closed."""

    batches: int
    records: int
    age: timedelta


class Upkeep:
    """What one round of maintenance did."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.made: list[str] = []  # partitions
        self.adopted: list[int] = []  # batches of dead owners, closed
        self.packed: list[int] = []  # batches, from their rows
        self.dropped = Dropped()
        self.trimmed = Trimmed()
        self.forgotten = 0  # entries of the quarantine
        self.indexed: list[str] = []  # partitions with a GIN index more
        #: None where the server did not say.
        self.lag: Lag | None = None

    def news(self) -> dict[str, Any]:
        """Return what is worth a line in a log, by name; empty for nothing."""
        done = {"made": self.made, "adopted": self.adopted, "packed": self.packed, "indexed": self.indexed}
        more = {"quarantine": self.forgotten, "trimmed": self.trimmed.batches, "trimmed_records": self.trimmed.records}
        return {name: value for name, value in {**done, **self.dropped._asdict(), **more}.items() if value}

    def failures(self) -> dict[str, Exception]:
        """Return what went wrong, by task."""
        return {task.name: task.error for task in self.tasks if task.error}


async def store_packed(con: asyncpg.Connection, number: int, packed: Packed) -> bool:
    """Write the packed form of a closed batch; False when somebody else has packed it, or it is gone."""
    return bool(await con.execute(_STORE, number, *packed) == "UPDATE 1")


async def pack_from_rows(con: asyncpg.Connection, number: int) -> bool:
    """Pack a closed batch from its rows; False when somebody else has packed it, or it is gone.

    Raises BatchDamaged when its rows are not as many as were written, and what asyncpg raises.
    """
    row = await con.fetchrow(_UNPACKED, number)
    if row is None:
        return False
    frame = await _load(con, number)
    ids = frame["id"].n_unique()
    if not frame.height == ids == row["count"]:
        there = f"{frame.height} rows" if frame.height == ids else f"{frame.height} rows of {ids} ids"
        message = f"batch {number}: {row['count']} records were written, {there} are there: it stays as rows"
        raise BatchDamaged(message)
    try:
        packed = await asyncio.to_thread(packing.pack, frame)
    except Exception as error:
        message = f"batch {number} cannot be packed: {reason(error)}"
        raise StoreError(message) from error
    return await store_packed(con, number, packed)


async def _load(con: asyncpg.Connection, number: int) -> pl.DataFrame:
    """Load the rows of a batch with all columns of FULL, by pieces, so that few are Python objects at a time."""
    first = number << PLACE_BITS
    pieces = [frames.empty(list(FULL))]
    async with con.transaction(readonly=True):
        for name, value in reading.SETTINGS.items():
            await con.execute("select set_config($1, $2, true)", name, value)
        cursor = await con.cursor(_ROWS, first, first + (1 << PLACE_BITS) - 1, number)
        while rows := await cursor.fetch(_PIECE):
            pieces.append(await asyncio.to_thread(_frame, rows))
    return pl.concat(pieces)


def _frame(rows: list[asyncpg.Record]) -> pl.DataFrame:
    columns = ((name, kind, [row[place] for row in rows]) for place, (name, kind) in enumerate(FULL.items()))
    return pl.DataFrame(
        [
            pl.Series(name, values, dtype=pl.Int64).cast(TIME) if kind == TIME else pl.Series(name, values, dtype=kind)
            for name, kind, values in columns
        ]
    )


async def waiting(con: asyncpg.Connection, without: Collection[int] = (), *, anybody: bool = False) -> int | None:
    """Return the batch that is closed for longest and waits to be packed; None for none.

    Those of living stores count only when they are closed for long, or with `anybody`; those in `without` never.
    """
    number: int | None = await con.fetchval(_NEXT, list(without), None if anybody else _LONG_AGO)
    return number


async def lag(con: asyncpg.Connection) -> Lag:
    """Return what waits to be packed."""
    return Lag(*await con.fetchrow(_LAG))


class Maintenance:
    """The tasks of maintenance, for one store. `connect` gives a connection to be used for a while."""

    def __init__(self, connect: Connect, owner: owners.Owner) -> None:
        self._connect = connect
        self._owner = owner
        #: Batches that could not be packed or trimmed, indexes that could not be built, until when they are left alone.
        self._unpackable: dict[int, float] = {}
        self._untrimmable: dict[int, float] = {}
        self._unbuildable: dict[str, float] = {}

    async def round(
        self,
        rows_retention: timedelta,
        terms: Terms,
        rows_size: int | None = None,
        packed_size: int | None = None,
        quarantine_size: int | None = None,
    ) -> Upkeep:
        """Do what is due, but for the GIN indexes. One task that fails does not stop the others."""
        done = Upkeep()

        async def make(con: asyncpg.Connection) -> None:
            done.made = await partitions.ensure(con, await _now(con))

        async def adopt(con: asyncpg.Connection) -> None:
            done.adopted = await owners.adopt_orphans(con, self._owner.number)

        async def drop(con: asyncpg.Connection) -> None:
            old = retention.border(await _now(con), rows_retention, terms.longest)
            done.forgotten = await quarantine.limit(con, old.batches, quarantine_size)
            done.dropped = await retention.drop_expired(con, await retention.within(con, old, rows_size, packed_size))

        await self._run(done, "partitions", MAINTENANCE, make)
        await self._run(done, "orphans", MAINTENANCE, adopt)
        await self._run(done, "packing", PACKING, partial(self._pack, done))
        await self._run(done, "retention", MAINTENANCE, drop)
        await self._run(done, "trimming", UNPACKING, partial(self._trim, done, terms))
        await self._run(done, "summaries", SUMMARIES, partitions.summarise)
        with contextlib.suppress(StoreUnavailable), unavailable():
            async with self._connect() as con:
                done.lag = await lag(con)
        return done

    async def index(self) -> Upkeep:
        """Build one GIN index that is missing, which may take many minutes."""
        done = Upkeep()

        async def build(con: asyncpg.Connection) -> None:
            try:
                if made := await partitions.index(con, await _now(con), _still(self._unbuildable)):
                    done.indexed.append(made)
            except partitions.IndexFailed as error:
                self._unbuildable[error.name] = time.monotonic() + _TRY_AGAIN
                raise

        await self._run(done, "gin", INDEXES, build)
        return done

    async def _run(self, done: Upkeep, name: str, lock: int, work: Callable[[Any], Awaitable[None]]) -> None:
        """Run a task, unless another store is at it."""
        began, failure = time.monotonic(), None
        try:
            with unavailable():
                async with self._connect() as con, locked(con, lock, wait=False) as ours:
                    if not ours:
                        return
                    await work(con)
        except Exception as error:  # who asked for the round reports it
            failure = error
        done.tasks.append(Task(name, time.time(), time.monotonic() - began, failure))

    async def _pack(self, done: Upkeep, con: asyncpg.Connection) -> None:
        """Pack from rows, for a while. What cannot be packed is left alone for some hours, and said."""
        end = time.monotonic() + _PACKING_TIME
        errors = []
        while time.monotonic() < end:
            number = await waiting(con, _still(self._unpackable))
            if number is None:
                break
            try:
                if await pack_from_rows(con, number):
                    done.packed.append(number)
            except Exception as error:
                if con.is_closed():
                    raise
                self._unpackable[number] = time.monotonic() + _TRY_AGAIN
                errors.append(error if isinstance(error, StoreError) else f"batch {number}: {reason(error)}")
        if errors:
            raise StoreError("; ".join(map(str, errors)))

    async def _trim(self, done: Upkeep, terms: Terms, con: asyncpg.Connection) -> None:
        """Take out what is over, for a while. What fails is left alone for some hours, and said."""
        alone = _still(self._untrimmable)
        done.trimmed = await trim(con, terms, await _now(con), seconds=_PACKING_TIME, without=alone)
        if done.trimmed.errors:
            self._untrimmable.update(dict.fromkeys(done.trimmed.errors, time.monotonic() + _TRY_AGAIN))
            raise StoreError("; ".join(done.trimmed.errors.values()))


def _still(alone: dict[T, float]) -> list[T]:
    """Return what is still to be left alone."""
    now = time.monotonic()
    return [what for what, until in alone.items() if until > now]


async def _now(con: asyncpg.Connection) -> datetime:
    """Return the earlier of the server's clock and ours, so that one that jumped ahead drops nothing."""
    theirs: datetime = await con.fetchval("select now()")
    return min(theirs, datetime.now(UTC))

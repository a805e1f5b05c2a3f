"""What was committed since: positions among the commits of all stores of a database, and word of new ones.

A store fills a batch by several writes at once, so records are not committed in the order of their ids. But all writes
below a place of a batch end some time (`OpenBatch.settled`), batches are seen in the order of their numbers
(`owners.open_batch`), and a closed batch gets no more. So a position is the newest batch that was seen and, of each
that was not finished then, the place up to which it was settled. What it covers never changes, whoever asks, and when.

A store knows of its own batches by itself, and tells the others some times a second, in the table `progress`. A NOTIFY
goes with that, and not with the writes: it takes a lock of the whole database until its transaction has committed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple

import asyncpg
import structlog

from logagg.sinks.batches import BatchInfo, OpenBatch
from logagg.sinks.connections import TIMEOUT, Connections
from logagg.sinks.errors import StoreUnavailable, unavailable
from logagg.sinks.frames import LAST_PLACE, PLACE_BITS
from logagg.sinks.owners import Owner

log = structlog.get_logger("commits")

_CHANNEL = "logagg_commits"
#: Seconds between two words to the others.
_PAUSE = 0.2
_TELL = """
with told as (
    insert into progress (batch, settled, received_min, received_max)
    select said.* from unnest($1::bigint[], $2::integer[], $3::timestamptz[], $4::timestamptz[])
        as said (batch, settled, received_min, received_max)
    join batches b using (batch) where closed_at is null
    on conflict (batch) do update set settled = excluded.settled, received_min = excluded.received_min,
        received_max = excluded.received_max
)
select pg_notify('logagg_commits', '')
"""
_NEWEST = "select coalesce(max(batch), 0) from batches"
_CHANGED = """
select batch, closed_at is null, packed_at is not null, coalesce(settled, 0),
    coalesce(b.received_min, p.received_min), coalesce(b.received_max, p.received_max)
from batches b left join progress p using (batch)
where batch <= $1 and (closed_at is null or batch > $2 or batch = any($3::bigint[]))
order by batch
"""


class Position(NamedTuple):
    """A set of commits: each record is in it, or comes after it."""

    newest: int
    #: Batches up to the newest of which more may come, and the first place that is not covered.
    unfinished: Mapping[int, int]

    def place(self, batch: int) -> int:
        """Return the first place of a batch that is not covered."""
        return 0 if batch > self.newest else self.unfinished.get(batch, LAST_PLACE + 1)

    def covers(self, id_: int) -> bool:
        """Tell whether a record is in it."""
        return id_ & LAST_PLACE < self.place(id_ >> PLACE_BITS)

    def after(self, batch: int, place: int, *, last: bool = False) -> "Position":
        """Return it with a batch up to a place, or with all of the batch."""
        unfinished = {number: at for number, at in self.unfinished.items() if number != batch}
        return Position(max(self.newest, batch), unfinished if last else {**unfinished, batch: place})


class Commits(NamedTuple):
    """What is settled now."""

    position: Position
    #: The batches that have come or changed since the position that was asked for, by number; see `Store.load`.
    batches: dict[int, BatchInfo]


class Progress:
    """How far the batches of one store are written: told to those who follow it here, and to other stores."""

    def __init__(self, owner: Owner, own: Mapping[int, OpenBatch]) -> None:
        self._owner = owner
        self._own = own
        #: Called after each commit.
        self.listeners: set[Callable[[], None]] = set()
        self._due = asyncio.Event()
        self._told: dict[int, int] = {}
        self._task = asyncio.create_task(self._run(), name="progress")

    def changed(self) -> None:
        """Say that a write or a batch has ended."""
        self._due.set()
        for listener in self.listeners:
            listener()

    async def close(self) -> None:
        """End, with a last word for what was not told yet."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._due.is_set():
            await self._tell()

    async def _run(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            if not await self._tell():
                self._due.set()
            await asyncio.sleep(_PAUSE)

    async def _tell(self) -> bool:
        settled = {number: batch.settled for number, batch in self._own.items() if not batch.closed}
        news = [number for number, place in settled.items() if place and place != self._told.get(number)]
        bounds = [self._own[number].info() for number in news]
        values = ([settled[n] for n in news], [b.received_min for b in bounds], [b.received_max for b in bounds])
        try:
            with unavailable():
                await self._owner.say(_TELL, news, *values)
        except StoreUnavailable:
            return False
        except Exception:  # others learn of our records when the batch is closed
            log.exception("other daemons were not told of commits")
        self._told = settled
        return True


class Watch:
    """Follows the commits of all stores, on a connection of its own. All raise StoreUnavailable."""

    def __init__(self, con: asyncpg.Connection, own: Mapping[int, OpenBatch]) -> None:
        self._con = con
        self._own = own
        #: Set when something may have been committed.
        self.news = asyncio.Event()

    async def commits(self, since: Position | None = None) -> Commits:
        """Return what is settled now, and the batches of what has come since a position; None is now."""
        with unavailable():
            newest = await self._con.fetchval(_NEWEST)
            if since is None:
                since = Position(newest, {})
            newest = max(newest, since.newest)
            rows = await self._con.fetch(_CHANGED, newest, since.newest, list(since.unfinished))
        unfinished, batches = {}, {}
        for batch, is_open, packed, settled, *received in rows:
            own = self._own.get(batch)
            # What is closed by us is all in memory only when we know that it is closed.
            if own and not own.closed:
                unfinished[batch] = own.settled
            elif is_open:
                unfinished[batch] = settled
            batches[batch] = BatchInfo(
                batch, False, None, None, None, received[0], received[1], None, None, None, packed
            )
        return Commits(Position(newest, unfinished), batches)


@contextlib.asynccontextmanager
async def watch(connections: Connections, progress: Progress, own: Mapping[int, OpenBatch]) -> AsyncIterator[Watch]:
    """Follow commits, until the context ends. Raises StoreUnavailable."""
    with unavailable():
        con = await connections.one(command_timeout=TIMEOUT)
    watching = Watch(con, own)
    progress.listeners.add(watching.news.set)
    try:
        con.add_termination_listener(lambda _: watching.news.set())
        with unavailable():
            await con.add_listener(_CHANNEL, lambda *_: watching.news.set())
        yield watching
    finally:
        progress.listeners.discard(watching.news.set)
        with contextlib.suppress(StoreUnavailable), unavailable():
            await con.close(timeout=5)

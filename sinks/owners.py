"""Who fills which batch: each opened store is an owner with a number, alive while it holds its advisory lock."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import asyncpg

from logagg.sinks.batches import MOST_DISTINCT, BatchInfo
from logagg.sinks.frames import PLACE_BITS
from logagg.sinks.locks import CLASS, OPENING

#: The lock is held from before the number is drawn until the batch can be seen.
_NEW = """
with turn as materialized (select pg_advisory_xact_lock($2, $3))
insert into batches (owner) select $1 from turn returning batch
"""
_OPEN = "select batch from batches where owner = $1 and closed_at is null order by batch for update"
_ORPHANS = "select distinct owner from batches where closed_at is null and owner <> $1"
_STATS = """
select count(*), min(timestamp), max(timestamp), min(received_at), max(received_at),
    array_agg(distinct service), array_agg(distinct host), array_agg(distinct environment)
from logs where id >= $1 and id < $2
"""
_CLOSE = """
update batches set closed_at = now(), count = $2, ts_min = $3, ts_max = $4, received_min = $5, received_max = $6,
    services = $7, hosts = $8, environments = $9
where batch = $1 and closed_at is null
"""
_DELETE = "delete from batches where batch = $1 and closed_at is null"


#: Seconds to wait for an answer to "are you there?".
_PATIENCE = 10.0

Connect = Callable[[], Awaitable[asyncpg.Connection]]


class Owner:
    """The number of this store, and the connection that says it lives. It has none until `number` is set."""

    def __init__(self, connect: Connect) -> None:
        self.number = 0
        self._connect = connect
        self._con: asyncpg.Connection | None = None
        self._held = False
        self._lock = asyncio.Lock()

    async def live(self) -> None:
        """Make sure that the connection works and holds the lock; raises what asyncpg raises.

        A lock that our lost connection still holds is taken the next time. Without it others may close our batch, which
        costs us a new one.
        """
        async with self._lock:
            if self._con is None or self._con.is_closed():
                self._held = False
                self._con = await self._connect()
            if not self._held:
                self._held = await self._con.fetchval("select pg_try_advisory_lock($1, $2)", CLASS, self.number)
            else:
                await self._con.fetchval("select 1", timeout=_PATIENCE)

    async def say(self, statement: str, *values: object) -> None:
        """Run a short statement on that connection, if there is one; raises what asyncpg raises."""
        async with self._lock:
            if self._con and not self._con.is_closed():
                await self._con.execute(statement, *values, timeout=_PATIENCE)

    async def leave(self) -> None:
        """Give up the lock."""
        if self._con:
            with contextlib.suppress(Exception):
                await self._con.close(timeout=5)
            self._con = None


async def open_batch(con: asyncpg.Connection, owner: int) -> int:
    """Make a batch; return its number. Who sees one of a number will see no new one below it."""
    number: int = await con.fetchval(_NEW, owner, CLASS, OPENING)
    return number


async def close(con: asyncpg.Connection, info: BatchInfo) -> None:
    """Close a batch with what is known of it; delete an empty one. Waits for writes into it."""
    if info.count:
        distinct = [None if s is None else list(s) for s in (info.services, info.hosts, info.environments)]
        await con.execute(_CLOSE, info.batch, *info[2:7], *distinct)
    else:
        await con.execute(_DELETE, info.batch)


async def adopt_orphans(con: asyncpg.Connection, own: int) -> list[int]:
    """Close the open batches whose owners are gone, with what their rows say; return their numbers."""
    adopted: list[int] = []
    for (owner,) in await con.fetch(_ORPHANS, own):
        with contextlib.suppress(asyncpg.LockNotAvailableError):  # a write that does not end: the next time
            async with con.transaction():
                await con.execute("set local lock_timeout = '1s'")
                if await con.fetchval("select pg_try_advisory_xact_lock($1, $2)", CLASS, owner):
                    adopted += await _adopt(con, [batch for (batch,) in await con.fetch(_OPEN, owner)])
    return adopted


async def _adopt(con: asyncpg.Connection, batches: Sequence[int]) -> Sequence[int]:
    for batch in batches:
        first = batch << PLACE_BITS
        row = await con.fetchrow(_STATS, first, first + (1 << PLACE_BITS))
        # Too many to be of use, as none, are None.
        distinct = (frozenset(v) if v and len(v) <= MOST_DISTINCT else None for v in row[5:])
        await close(con, BatchInfo(batch, False, *row[:5], *distinct))
    return batches

"""The ways to the database: a pool to write, a pool to read, and single connections."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import asyncpg

from logagg.sinks import reading
from logagg.sinks.errors import StoreUnavailable, unavailable

#: Seconds until a server that does not answer is held for hung: when connecting, and in one step of a write.
CONNECT_TIMEOUT = 10.0
TIMEOUT = 60.0

_READERS = 4
_SETTINGS = {"application_name": "logagg", "timezone": "UTC"}
_READ_SETTINGS = {**_SETTINGS, **reading.SETTINGS}
_DURABLE = "select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'"

_Use = Callable[[], contextlib.AbstractAsyncContextManager[asyncpg.Connection]]
_Init = Callable[[asyncpg.Connection], Awaitable[None]]


class Connections:
    """The connections of one store."""

    def __init__(self, url: str) -> None:
        self._common = {"dsn": url, "timeout": CONNECT_TIMEOUT, "command_timeout": TIMEOUT}
        self.one = partial(asyncpg.connect, **self._common, server_settings=_SETTINGS)
        self._pools: list[asyncpg.Pool] = []

    async def open(self, writers: int) -> None:
        """Connect the pools: `async with writer() as con`, at most `writers` at a time, `packer()` and `reader()`."""
        self.packer = await self._pool(0, 1, _SETTINGS, _durable)
        self.writer = await self._pool(writers, writers, _SETTINGS, _durable)
        self.reader = await self._pool(1, _READERS, _READ_SETTINGS, reading.prepare)

    async def _pool(self, least: int, most: int, settings: dict[str, str], init: _Init) -> _Use:
        # An idle connection stays; none is reset behind a use, which would cost a round trip: no use leaves traces.
        size = {"min_size": least, "max_size": most, "max_inactive_connection_lifetime": 0}
        pool = await asyncpg.create_pool(**self._common, **size, server_settings=settings, init=init, reset=_keep)
        self._pools.append(pool)
        return partial(_used, pool)

    @contextlib.asynccontextmanager
    async def for_a_while(self) -> AsyncIterator[asyncpg.Connection]:
        """Give a connection that is closed afterwards."""
        con = await self.one(server_settings=_READ_SETTINGS)
        try:
            yield con
        finally:
            with contextlib.suppress(StoreUnavailable), unavailable():
                await con.close(timeout=5)

    async def close(self) -> None:
        """Close the pools, whatever is the matter with them."""
        for pool in self._pools:
            try:
                await asyncio.wait_for(pool.close(), 10)
            except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                pool.terminate()


@contextlib.asynccontextmanager
async def _used(pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    """Give a connection of a pool. That giving it back fails must not hide what was done with it, such as a COMMIT."""
    con = await pool.acquire()
    try:
        yield con
    finally:
        with contextlib.suppress(StoreUnavailable), unavailable():
            await pool.release(con, timeout=CONNECT_TIMEOUT)


async def _keep(_: asyncpg.Connection) -> None:
    """Leave a connection as it is."""


async def _durable(con: asyncpg.Connection) -> None:
    """Have COMMIT mean what it says, whatever the server's settings: acks are given after it."""
    await con.execute(_DURABLE)

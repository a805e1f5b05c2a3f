"""The ways to the database: a pool to write, a pool to read, and single connections."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import asyncpg

from logagg.sinks import reading
from logagg.sinks.errors import StoreUnavailable, unavailable

#: Seconds until a server that does not answer is held for hung: when connecting, and in one step of a write.
CONNECT_TIMEOUT = 10.0
TIMEOUT = 60.0

#: What is said before the server was there for the first time.
NOT_YET = "PostgreSQL has not answered since the start"

_READERS = 4
_SETTINGS = {"application_name": "logagg", "timezone": "UTC"}
#: Of a connection that reads.
READ_SETTINGS = {**_SETTINGS, **reading.SETTINGS}
_DURABLE = "select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'"

_Used = AbstractAsyncContextManager[asyncpg.Connection]
_Init = Callable[[asyncpg.Connection], Awaitable[None]]


class Connections:
    """The connections of one store. Until `open` has returned, those of the pools raise StoreUnavailable."""

    def __init__(self, url: str, writers: int) -> None:
        """Allow so many connections to write at a time."""
        self._common = {"dsn": url, "timeout": CONNECT_TIMEOUT, "command_timeout": TIMEOUT}
        self._writers = writers
        self.one = partial(asyncpg.connect, **self._common, server_settings=_SETTINGS)
        self._pools: dict[str, asyncpg.Pool] = {}

    async def open(self) -> None:
        """Connect the pools."""
        await self._pool("packer", 0, 1, _SETTINGS, _durable)
        await self._pool("writer", self._writers, self._writers, _SETTINGS, _durable)
        await self._pool("reader", 1, _READERS, READ_SETTINGS, reading.prepare)

    async def _pool(self, name: str, least: int, most: int, settings: dict[str, str], init: _Init) -> None:
        # An idle connection stays; none is reset behind a use, which would cost a round trip: no use leaves traces.
        size = {"min_size": least, "max_size": most, "max_inactive_connection_lifetime": 0}
        self._pools[name] = await asyncpg.create_pool(
            **self._common, **size, server_settings=settings, init=init, reset=keep
        )

    def writer(self) -> _Used:
        """Give a connection to write."""
        return self._used("writer")

    def packer(self) -> _Used:
        """Give the connection that stores packed batches."""
        return self._used("packer")

    def reader(self) -> _Used:
        """Give a connection to read."""
        return self._used("reader")

    @contextlib.asynccontextmanager
    async def _used(self, name: str) -> AsyncIterator[asyncpg.Connection]:
        """Give one of a pool. That giving it back fails must not hide what was done with it, such as a COMMIT."""
        if name not in self._pools:
            raise StoreUnavailable(NOT_YET)
        pool = self._pools[name]
        con = await pool.acquire()
        try:
            yield con
        finally:
            with contextlib.suppress(StoreUnavailable), unavailable():
                await pool.release(con, timeout=CONNECT_TIMEOUT)

    @contextlib.asynccontextmanager
    async def for_a_while(self) -> AsyncIterator[asyncpg.Connection]:
        """Give a connection that is closed afterwards."""
        con = await self.one(server_settings=READ_SETTINGS)
        try:
            yield con
        finally:
            with contextlib.suppress(StoreUnavailable), unavailable():
                await con.close(timeout=5)

    async def close(self) -> None:
        """Close the pools, whatever is the matter with them."""
        while self._pools:
            _, pool = self._pools.popitem()
            try:
                await asyncio.wait_for(pool.close(), 10)
            except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                pool.terminate()


async def keep(_: asyncpg.Connection) -> None:
    """Leave a connection as it is."""


async def _durable(con: asyncpg.Connection) -> None:
    """Have COMMIT mean what it says, whatever the server's settings: acks are given after it."""
    await con.execute(_DURABLE)

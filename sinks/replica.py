"""A read replica: it gives what is packed, which is most of what a question reads, and never changes unnoticed.

It may be behind, or away. So nothing depends on it: what it has not, or has in another version than the primary says,
is asked of the primary, and so is everything for a while after it failed.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import NoReturn

import asyncpg
import structlog

from logagg.sinks import reading
from logagg.sinks.connections import READ_SETTINGS, keep
from logagg.sinks.errors import StoreUnavailable, unavailable

log = structlog.get_logger("replica")

#: Seconds for connecting, and for one answer: short, because the primary would have it.
_PATIENCE = 5.0
_MOST = 4


class Replica:
    """The connections to a read replica."""

    def __init__(self, url: str) -> None:
        self._url = url
        #: Seconds until it is asked again after it failed.
        self.pause = 10.0
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._until = 0.0
        #: Why it is not asked now; None while it answers.
        self.trouble: str | None = None

    @contextlib.asynccontextmanager
    async def reader(self) -> AsyncIterator[asyncpg.Connection]:
        """Give a connection to read. Raises StoreUnavailable, for what went wrong with its use, too."""
        if time.monotonic() < self._until:
            raise StoreUnavailable(f"the replica: {self.trouble}")
        try:
            with unavailable():
                pool = await self._connected()
                async with pool.acquire(timeout=_PATIENCE) as con:
                    yield con
        except (StoreUnavailable, UnicodeError) as error:  # the latter of a host whose name has no form for DNS
            if not self.trouble:
                log.warning("the read replica does not answer; the primary is asked instead", reason=str(error))
            self.trouble = str(error)
            self._until = time.monotonic() + self.pause
            raise StoreUnavailable(self.trouble) from error
        if self.trouble:
            self.trouble = None
            log.info("the read replica answers again")

    async def watch(self, period: float) -> NoReturn:
        """Ask every so many seconds, so that `trouble` says how it is while nobody asks anything else."""
        while True:
            self._until = 0.0
            try:
                async with self.reader() as con:
                    await con.fetchval("select 1")
            except StoreUnavailable:
                pass  # it is said
            except Exception:  # nothing depends on the replica
                log.exception("the read replica cannot be asked")
            await asyncio.sleep(period)

    async def _connected(self) -> asyncpg.Pool:
        if self._pool is None:
            self._pool = asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=_MOST,
                timeout=_PATIENCE,
                command_timeout=_PATIENCE,
                server_settings=READ_SETTINGS,
                init=reading.prepare,
                reset=keep,
            )
        async with self._opening:
            return await self._pool

    async def close(self) -> None:
        """Close the connections."""
        if self._pool:
            self._pool.terminate()

"""The way to a PostgreSQL that may not answer yet."""

import asyncio

import structlog

from logagg.collector.journaling import Journaling
from logagg.sinks.errors import StoreError, StoreUnavailable
from logagg.sinks.store import Store

log = structlog.get_logger("daemon")

#: Seconds between two tries to connect.
CONNECT_PAUSE = 1.0


async def connect(store: Store, patience: float, journaling: Journaling | None) -> bool:
    """Connect the store. Without a journal it is waited for, for `patience` seconds, then StoreUnavailable is raised.

    With one that is where records go meanwhile: False is returned then.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while True:
        try:
            await store.connect()
        except StoreUnavailable as error:
            if journaling:
                log.warning("PostgreSQL does not answer yet; records go to the journal", reason=str(error))
                journaling.away(str(error))
                return False
            if loop.time() > end:
                raise
            log.warning("PostgreSQL does not answer yet", reason=str(error))
            await asyncio.sleep(CONNECT_PAUSE)
        else:
            return True


async def connect_later(store: Store, connected: asyncio.Event) -> None:
    """Connect a store that did not answer at the start, however long that takes."""
    said = None
    while not connected.is_set():
        await asyncio.sleep(CONNECT_PAUSE)
        try:
            await store.connect()
        except StoreError as error:
            if not isinstance(error, StoreUnavailable) and said != (said := str(error)):
                log.error("PostgreSQL refuses us; records stay in the journal", reason=said)
        else:
            connected.set()

"""The packer: writes the packed form of batches that are closed, behind the ingest, from files in which they wait."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from logagg.sinks.batches import OpenBatch
from logagg.sinks.connections import Connections
from logagg.sinks.errors import StoreUnavailable, unavailable
from logagg.sinks.packhand import PackHand
from logagg.sinks.upkeep import store_packed

log = structlog.get_logger("packer")

_PAUSE = 1.0


class Packer:
    """Packs one batch after the other.

    While `most` wait, or `bytes_` of them are still in memory, `room` holds up who would make more.
    """

    def __init__(
        self, connections: Connections, own: dict[int, OpenBatch], most: int, bytes_: int, folder: Path | None
    ) -> None:
        self._connections = connections
        #: Batches that are read from here, not from the database; one that is packed is taken out.
        self._own = own
        self._most = most
        self._bytes = bytes_
        self._folder = folder
        #: All that were added and are not packed yet; those of them that are in files.
        self._waiting: list[OpenBatch] = []
        self._ready: asyncio.Queue[OpenBatch] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._hand = PackHand()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pack")
        self._task = asyncio.create_task(self._run(), name="packer")

    @property
    def lag(self) -> int:
        """How many batches wait, the one that is being packed among them."""
        return len(self._waiting)

    async def add(self, batch: OpenBatch) -> None:
        """Take a closed batch over: its records go to a file, and are packed when their turn comes."""
        self._waiting.append(batch)
        try:
            await batch.leave_memory(self._folder)
        except Exception:
            log.exception("the file for a batch was not written; it is packed from its rows, later", batch=batch.number)
            self._end(batch)
        else:
            self._ready.put_nowait(batch)
        self._changed.set()

    async def room(self) -> None:
        """Wait until another batch may be filled."""
        while self.lag >= self._most or sum(batch.size for batch in self._waiting) >= self._bytes:
            await self._next()

    async def idle(self) -> None:
        """Wait until all are packed."""
        while self.lag:
            await self._next()

    async def close(self) -> None:
        """End. What is not packed is packed from its rows by who comes next."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await asyncio.to_thread(self._hand.close)
        await asyncio.to_thread(self._thread.shutdown)
        self._hand.stop()  # one that was being started

    async def _next(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _run(self) -> None:
        while True:
            batch = await self._ready.get()
            await self._pack(batch)
            self._end(batch)

    def _end(self, batch: OpenBatch) -> None:
        self._waiting.remove(batch)
        self._own.pop(batch.number, None)
        self._changed.set()

    async def _pack(self, batch: OpenBatch) -> None:
        """Pack and store; what does not work stays as rows, for maintenance to try again."""
        try:
            assert batch.spool  # noqa: S101 - see `add`
            packed = await asyncio.get_running_loop().run_in_executor(self._thread, self._hand.pack, batch.spool)
            while True:
                with contextlib.suppress(StoreUnavailable), unavailable():
                    async with self._connections.packer() as con:
                        await store_packed(con, batch.number, packed)
                        return
                await asyncio.sleep(_PAUSE)
        except Exception:
            log.exception("a batch was not packed; it stays as rows", batch=batch.number)

"""The ring buffer between the listeners and PostgreSQL: chunks in order of arrival, bounded in records and in bytes.

What is counted stays counted until it is settled, that is stored or given back to its sender; so the bounds hold for
what waits and what is being written together. A chunk larger than the whole buffer is let in when the buffer is empty:
it could never be taken otherwise.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from logagg.protocols.columns import Columnar
from logagg.protocols.record import Decoded

#: The span of the request under way, while there are traces.
SPAN: Final[ContextVar[object]] = ContextVar("SPAN", default=None)
#: So many records are worth a transaction beside another.
WORTH_A_LANE = 500


@dataclass(slots=True, eq=False)
class Chunk:
    """What one read of a listener gave. It is stored whole or not at all."""

    #: The listener: `tcp`, `http` ...
    transport: str
    decoded: Decoded | Columnar
    #: Bytes as received.
    size: int
    #: Set by the flusher once the chunk is durable; None where no sender waits. Cancelled: the sender was told no.
    done: asyncio.Future[None] | None = None
    #: It is stored once however often it comes with this key. 16 bytes.
    key: bytes | None = None
    #: Records and rejects together.
    count: int = field(init=False)
    #: That of the request which brought it, if there is one.
    span: object = field(init=False)

    def __post_init__(self) -> None:
        self.span = SPAN.get()
        self.count = len(self.decoded.records) + len(self.decoded.rejects)

    @property
    def withdrawn(self) -> bool:
        """Its sender was told that it was not stored, and will send it again."""
        return self.done is not None and self.done.cancelled()

    def acknowledge(self) -> None:
        """Tell the sender that it is durable."""
        if self.done and not self.done.done():
            self.done.set_result(None)


class RingBuffer:
    """A bounded queue of chunks with two ends: listeners offer or put, lanes of the flusher take and settle."""

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self.max_records = max_records
        self.max_bytes = max_bytes
        #: Records and rejects not yet settled.
        self.records = 0
        #: Bytes not yet settled.
        self.bytes = 0
        #: Records and rejects not yet settled, by transport.
        self.of_transport: dict[str, int] = {}
        self._waiting: deque[Chunk] = deque()
        self._queued = 0
        self._acks = 0
        self._hurried = False
        self._room = asyncio.Event()
        self._arrived = asyncio.Event()

    @property
    def waiting(self) -> bool:
        """Whether something waits that nobody has taken."""
        return bool(self._waiting)

    def has_room(self, count: int, size: int) -> bool:
        """Whether a chunk of so many records and bytes may come in now."""
        fits = self.records + count <= self.max_records and self.bytes + size <= self.max_bytes
        return fits or self.records == 0

    def offer(self, chunk: Chunk) -> bool:
        """Take the chunk if there is room; say whether."""
        if not self.has_room(chunk.count, chunk.size):
            return False
        self.admit(chunk)
        return True

    def admit(self, chunk: Chunk) -> None:
        """Take the chunk without asking for room: the caller has asked for all chunks of one body together."""
        self._waiting.append(chunk)
        self.records += chunk.count
        self.bytes += chunk.size
        self.of_transport[chunk.transport] = self.of_transport.get(chunk.transport, 0) + chunk.count
        self._queued += chunk.count
        self._acks += chunk.done is not None
        self._arrived.set()

    async def put(self, chunk: Chunk) -> None:
        """Take the chunk, waiting until there is room: the caller reads no more meanwhile."""
        while not self.offer(chunk):
            self._room.clear()
            await self._room.wait()

    async def take(self, max_records: int, linger: float) -> list[Chunk]:
        """Wait for chunks and return the oldest, together at most `max_records` (one chunk may hold more).

        A transaction costs the same for one record as for a thousand, so chunks that nobody waits for gather for up to
        `linger` seconds. When a sender waits for its ack there is no waiting, unless a few records would make a
        transaction of their own beside another that is under way: they gather until that one ends.
        """
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        if not self._enough(max_records):
            await self._gather(max_records, linger)
        return self._pop(max_records)

    def settle(self, chunks: Iterable[Chunk]) -> None:
        """Give back the room of chunks that were taken: they are stored, or their senders were told no."""
        for chunk in chunks:
            self.records -= chunk.count
            self.bytes -= chunk.size
            self.of_transport[chunk.transport] -= chunk.count
        self._room.set()
        self._arrived.set()

    async def empty(self) -> None:
        """Wait until everything has been settled. From now on nothing gathers: what is there is all there will be."""
        self._hurried = True
        self._arrived.set()
        while self.records:
            self._room.clear()
            await self._room.wait()

    def _enough(self, max_records: int) -> bool:
        alone = self.records == self._queued
        asked = self._acks > 0 and (alone or self._queued >= WORTH_A_LANE)
        return self._hurried or asked or self._queued >= max_records

    async def _gather(self, max_records: int, linger: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + linger
        while not self._enough(max_records) and (left := end - loop.time()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    def _pop(self, max_records: int) -> list[Chunk]:
        taken: list[Chunk] = []
        count = 0
        while self._waiting and (not taken or count + self._waiting[0].count <= max_records):
            chunk = self._waiting.popleft()
            taken.append(chunk)
            count += chunk.count
            self._acks -= chunk.done is not None
        self._queued -= count
        return taken

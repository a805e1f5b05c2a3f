"""The one door from the listeners to the ring buffer: wait for room, wait for COMMIT, or take it or leave it."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator

from aiohttp import web

from logagg.collector.access import within
from logagg.collector.buffer import Chunk, RingBuffer
from logagg.collector.complaints import Complaints
from logagg.collector.limits import Limits
from logagg.collector.metrics import Metrics
from logagg.protocols.columns import Columnar
from logagg.protocols.record import Decoded
from logagg.protocols.redaction import Redactor
from logagg.query.grants import Grant
from logagg.sinks.errors import StoreUnavailable

#: Records of one call that are redacted beside the loop, which answers others meanwhile.
_MANY = 5000

_REJECTED = "put in quarantine; see `logagg quarantine list`"


class Overloaded(StoreUnavailable):
    """The records were not stored and will not be: the sender keeps them and tries again later."""


class Intake:
    """Counts what listeners decoded and hands it to the buffer in chunks that fit one transaction."""

    def __init__(
        self,
        buffer: RingBuffer,
        metrics: Metrics,
        *,
        max_records: int,
        ack_timeout: float,
        redactor: Redactor | None = None,
    ) -> None:
        """Hand on what the redactor leaves; None: all."""
        #: What each source may send; without limits until `listening.py` sets them.
        self.limits = Limits(metrics)
        self._buffer = buffer
        self._metrics = metrics
        self._max_records = max_records
        self._redactor = redactor
        self._complaints = Complaints()
        #: Seconds that a sender waits for COMMIT.
        self.ack_timeout = ack_timeout

    def within(self, decoded: Decoded | Columnar, grant: Grant, peer: str) -> Decoded | Columnar:
        """Return what a sender may write, as `access.within` does; one that may not is counted and said."""
        try:
            return within(decoded, grant)
        except web.HTTPForbidden as error:
            self._metrics.refused_requests.labels(str(error.status)).inc()
            self._complaints.say("a request was refused", "http", peer, error.reason, kind=grant.name)
            raise

    def take(self, chunks: deque[Chunk]) -> None:
        """Take the first ones out, as long as there is room: for streams without an ack.

        The caller reads no more until the others have had their `wait`.
        """
        while chunks and self._buffer.offer(chunks[0]):
            chunks.popleft()

    async def wait(self, chunk: Chunk) -> None:
        """Take what had no room, and return when it has."""
        await self._buffer.put(chunk)

    def admit(self, chunks: Iterable[Chunk]) -> None:
        """Take what had no room, without asking for it: for a listener that ends."""
        for chunk in chunks:
            self._buffer.admit(chunk)

    def offer(self, transport: str, decoded: Decoded | Columnar, size: int) -> None:
        """Take it, or drop and count it: for datagrams, whose sender cannot be told to wait."""
        for chunk in self.chunks(transport, decoded, size):
            if not self._buffer.offer(chunk):
                self._metrics.dropped.labels(transport, "buffer full").inc(chunk.count)

    def refuse(self, transport: str, count: int, size: int, reason: str) -> None:
        """Count datagrams that came and are not taken."""
        self._received(transport, count, size)
        self._metrics.dropped.labels(transport, reason).inc(count)

    def lost(self, transport: str, count: int) -> None:
        """Count datagrams that the kernel dropped before they could be received."""
        self._metrics.lost.labels(transport).inc(count)

    async def store(
        self, transport: str, decoded: Decoded | Columnar, size: int, key: str | None = None, *, source: str = ""
    ) -> None:
        """Return when all of it is durable. Raises Overloaded when it is not, and never will be by this call.

        What comes again with the same key of its sender is not stored again.

        A body of more than one transaction is stored in several; when one of them fails the sender is told no for all,
        and sends those again that were stored.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._redactor and len(decoded.records) > _MANY:
            decoded = await asyncio.to_thread(self._redacted, decoded)
        else:
            decoded = self._redacted(decoded)
        chunks = list(self._chunks(transport, decoded, size, key, acked=True))
        if not self._buffer.has_room(sum(chunk.count for chunk in chunks), size):
            self._metrics.dropped.labels(transport, "buffer full").inc(sum(chunk.count for chunk in chunks))
            raise Overloaded(
                f"the buffer is full: {self._buffer.records} of {self._buffer.max_records} records and"
                f" {self._buffer.bytes} of {self._buffer.max_bytes} bytes wait for PostgreSQL"
            )
        self.limits.charge(source, len(decoded.records) + len(decoded.rejects), size)
        self.admit(chunks)
        await self._durable([chunk.done for chunk in chunks if chunk.done])
        self._metrics.of(transport).ack_seconds.observe(loop.time() - began)

    async def put(
        self, transport: str, decoded: Decoded | Columnar, size: int, key: bytes | None
    ) -> asyncio.Future[None]:
        """Take a batch whole, whatever its number of records, when there is room; return what tells that it is durable.

        Raises Overloaded when there is none within `ack_timeout`. What was taken is stored however long that takes;
        only who cancels the future says that its sender was told no.
        """
        done = asyncio.get_running_loop().create_future()
        chunk = Chunk(transport, self._redacted(decoded), size, done, key)
        try:
            async with asyncio.timeout(self.ack_timeout):
                await self._buffer.put(chunk)
        except BaseException as error:
            self._metrics.dropped.labels(transport, "buffer full").inc(chunk.count)
            if not isinstance(error, TimeoutError):
                raise
            raise Overloaded(
                f"the buffer had no room for {chunk.count} records within {self.ack_timeout:g} s"
            ) from None
        finally:
            self._received(transport, chunk.count, size)
        return done

    def repeated(self, transport: str, count: int, size: int) -> None:
        """Count records that are stored already and are not taken again."""
        if count:
            self._received(transport, count, size)
            self._metrics.duplicate.labels(transport).inc(count)

    def _received(self, transport: str, count: int, size: int) -> None:
        counters = self._metrics.of(transport)
        counters.received.inc(count)
        counters.received_bytes.inc(size)

    async def _durable(self, acks: list[asyncio.Future[None]]) -> None:
        """Wait for all. Whatever ends the wait cancels the acks, and that withdraws the chunks."""
        late = asyncio.get_running_loop().call_later(self.ack_timeout, _cancel, acks)
        try:
            for ack in acks:
                await ack
        except asyncio.CancelledError:
            _cancel(acks)
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Overloaded(f"PostgreSQL did not commit within {self.ack_timeout:g} s") from None
        finally:
            late.cancel()

    def chunks(
        self, transport: str, decoded: Decoded | Columnar, size: int, key: str | None = None, *, acked: bool = False
    ) -> Iterator[Chunk]:
        """Count what was decoded, and cut it into chunks that fit one transaction.

        With the sender's key each has one; those that are acked have a future that says so.
        """
        return self._chunks(transport, self._redacted(decoded), size, key, acked=acked)

    def _redacted(self, decoded: Decoded | Columnar) -> Decoded | Columnar:
        """Redact what was decoded: before anything of it is stored, or said."""
        if not self._redactor:
            return decoded
        decoded, counts = self._redactor.redact(decoded)
        for rule, count in counts.items():
            self._metrics.redacted.labels(rule).inc(count)
        return decoded

    def _chunks(
        self, transport: str, decoded: Decoded | Columnar, size: int, key: str | None, *, acked: bool
    ) -> Iterator[Chunk]:
        loop = asyncio.get_running_loop()
        for number, chunk in enumerate(self._cut(transport, decoded, size)):
            chunk.key = None if key is None else _digest(transport, key, number)
            chunk.done = loop.create_future() if acked else None
            yield chunk

    def _cut(self, transport: str, decoded: Decoded | Columnar, size: int) -> Iterator[Chunk]:
        records, rejects = decoded
        count = len(records) + len(rejects)
        if not count:
            return
        self._received(transport, count, size)
        if rejects:
            first = rejects[0]
            self._complaints.say(_REJECTED, transport, first.source, first.reason, len(rejects))
        if count <= self._max_records:
            yield Chunk(transport, decoded, size)
            return
        step = self._max_records // 2
        for at in range(0, max(len(records), len(rejects)), step):
            here = slice(at, at + step)
            part = decoded._replace(records=records[here], rejects=rejects[here])  # type: ignore[arg-type]  # of one kind
            yield Chunk(transport, part, size * (len(part.records) + len(part.rejects)) // count)


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def _cancel(acks: list[asyncio.Future[None]]) -> None:
    for ack in acks:
        ack.cancel()

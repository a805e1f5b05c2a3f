"""A TCP listener: read, feed the framer, decode, put. One for every protocol that sends frames and awaits no answer.

All connections read into one buffer, and each read is decoded at once: a connection holds nothing but the frame that it
has begun, and a busy one gives up to a megabyte at a time.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, cast

import structlog

from logagg.collector.intake import Intake
from logagg.collector.metrics import Metrics
from logagg.collector.sockets import Place, bound, serve
from logagg.collector.units import Address
from logagg.protocols.framing import Cut
from logagg.protocols.record import Decoded, Decoder, Origin, Reject

if TYPE_CHECKING:
    from logagg.collector.buffer import Chunk

log = structlog.get_logger("listener")

#: Bytes of one read. The more at once, the less each costs.
READ_SIZE = 1 << 20


class Framer(Protocol):
    """Bytes in, frames out; see protocols/framing.py."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read, return the frames that are whole."""

    def close(self) -> list[bytes]:
        """Return what the end of the stream makes whole."""

    def take_cut(self) -> list[Cut]:
        """Return the frames cut since last asked."""

    def take_broken(self) -> list[tuple[bytes, str]]:
        """Return what will never be a frame, with the reasons, since last asked."""


@dataclass(frozen=True, slots=True)
class StreamProtocol:
    """What tells one stream protocol from another."""

    #: Its name in metrics, logs and the quarantine: `tcp`, `syslog-tcp` ...
    transport: str
    framer: Callable[[], Framer]
    decode: Decoder
    #: Turns frames that were cut into records, or rejects.
    decode_cut: Callable[[list[Cut], Origin], Decoded]


class CloseAtOnce(asyncio.Protocol):
    """What a connection gets that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        transport.close()


class StreamListener:
    """Listens on one address. A bad frame is counted and never ends the connection."""

    def __init__(
        self,
        protocol: StreamProtocol,
        intake: Intake,
        metrics: Metrics,
        *,
        max_connections: int,
        environment: str | None,
    ) -> None:
        self.protocol = protocol
        self.intake = intake
        self.environment = environment
        #: All connections read into it: between a read and what becomes of it nothing else runs.
        self.buffer = memoryview(bytearray(READ_SIZE))
        self.cut = metrics.cut.labels(protocol.transport)
        self._max_connections = max_connections
        self._server: asyncio.Server | None = None
        self._stopping = False
        self._open: set[_Connection] = set()
        self._changed = asyncio.Event()
        self._connections = metrics.connections.labels(protocol.transport)
        metrics.holds(protocol.transport, lambda: sum(connection.held for connection in self._open))
        self._refused = metrics.connections_refused.labels(protocol.transport)

    async def start(self, place: Place) -> Address:
        """Listen; return the address, with the port that the kernel chose for port 0."""
        self._server = await serve(self._accept, place)
        return bound(self._server, place)

    async def stop(self, patience: float) -> None:
        """Stop listening; let each sender finish what it has sent, for `patience` seconds at most, then close.

        The end of our side is sent first (half-close): a sender that sees it reconnects elsewhere, and what it had sent
        before is still read. A plain close throws away what the kernel had received.
        """
        if self._server is None:
            return
        self._stopping = True
        self._server.close()
        await asyncio.sleep(0.01)  # one that was accepted just now is made a connection meanwhile
        for connection in self._open:
            connection.half_close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._open:
                    self._changed.clear()
                    await self._changed.wait()
        for connection in list(self._open):
            connection.end()

    def _accept(self) -> asyncio.BaseProtocol:
        if len(self._open) < self._max_connections:
            return _Connection(self)
        self._refused.inc()
        return CloseAtOnce()

    def opened(self, connection: "_Connection") -> None:
        """Count a connection. One that was accepted just before we stopped is told so, too."""
        self._open.add(connection)
        self._connections.inc()
        if self._stopping:
            connection.half_close()

    def ended(self, connection: "_Connection") -> None:
        """Count it no more: it is closed, and what came over it is in the buffer."""
        self._open.discard(connection)
        self._connections.dec()
        self._changed.set()


class _Connection(asyncio.BufferedProtocol):
    """One connection: what is read is decoded at once; while its records have no room, nothing is read."""

    def __init__(self, listener: StreamListener) -> None:
        self._listener = listener
        self._framer = listener.protocol.framer()
        self._peer = ""
        #: What the buffer had no room for.
        self._left: deque[Chunk] = deque()
        self._waiting: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def held(self) -> int:
        """Records that were read and are not in the buffer."""
        return sum(chunk.count for chunk in self._left)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self._peer = str(name[0]) if name else ""
        self._listener.opened(self)

    def get_buffer(self, _: int) -> memoryview:
        return self._listener.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._take(self._framer.feed(bytes(self._listener.buffer[:nbytes])), nbytes)

    def eof_received(self) -> None:
        self._take(self._framer.close(), 0)

    def connection_lost(self, error: Exception | None) -> None:
        if error:
            log.debug("connection lost", transport=self._listener.protocol.transport, reason=str(error))
        self._closed = True
        self._take(self._framer.close(), 0)  # the last line counts too when the connection breaks
        if not self._left:
            self._listener.ended(self)

    def half_close(self) -> None:
        """Tell the sender that we stop."""
        with contextlib.suppress(OSError):
            self._transport.write_eof()

    def end(self) -> None:
        """Close now. What has come, an unfinished line too, is let into the buffer whether there is room or not."""
        self._take(self._framer.close(), 0)
        if self._waiting:
            self._waiting.cancel()
            self._waiting = None
            self._listener.intake.admit(self._left)
            self._left.clear()
        self._transport.close()

    def _take(self, frames: list[bytes], size: int) -> None:
        protocol, intake = self._listener.protocol, self._listener.intake
        origin = Origin(datetime.now(UTC), protocol.transport, self._peer, self._listener.environment)
        decoded = protocol.decode(frames, origin)
        for raw, reason in self._framer.take_broken():
            decoded.rejects.append(Reject(origin.now, origin.transport, self._peer, reason, raw))
        self._left += intake.chunks(protocol.transport, decoded, size)
        if cut := self._framer.take_cut():
            self._listener.cut.inc(len(cut))
            self._left += intake.chunks(protocol.transport, protocol.decode_cut(cut, origin), 0)
        if self._left and self._waiting is None:
            intake.take(self._left)
        if self._left and self._waiting is None:
            self._transport.pause_reading()
            self._waiting = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        """Read on once there was room for all that had been read."""
        while self._left:
            await self._listener.intake.wait(self._left[0])
            self._left.popleft()
        self._waiting = None
        if self._closed:
            self._listener.ended(self)
        else:
            self._transport.resume_reading()

"""A TCP listener: read, feed the framer, decode, put. One for every protocol that sends frames and awaits no answer."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from logagg.collector.intake import Intake
from logagg.collector.metrics import Metrics
from logagg.collector.units import Address
from logagg.protocols.framing import Cut
from logagg.protocols.record import Decoded, Decoder, Origin, Reject

log = structlog.get_logger("listener")

#: Bytes of one read, and half of what waits in a connection to be read. The more at once, the less each costs.
READ_SIZE = 1 << 18
#: What ends a connection and nothing else.
CONNECTION_ERRORS = (ConnectionError, TimeoutError, OSError)


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
        self._protocol = protocol
        self._intake = intake
        self._max_connections = max_connections
        self._environment = environment
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._connections = metrics.connections.labels(protocol.transport)
        self._refused = metrics.connections_refused.labels(protocol.transport)
        self._cut = metrics.cut.labels(protocol.transport)

    async def start(self, address: Address) -> Address:
        """Listen; return the address, with the port that the kernel chose for port 0."""
        self._server = await asyncio.start_server(
            self._accept, address.host, address.port, backlog=1024, limit=READ_SIZE
        )
        return Address(address.host, self._server.sockets[0].getsockname()[1])

    async def stop(self, patience: float) -> None:
        """Stop listening; let each sender finish what it has sent, for `patience` seconds at most, then close.

        The end of our side is sent first (half-close): a sender that sees it reconnects elsewhere, and what it had sent
        before is still read. A plain close throws away what the kernel had received.
        """
        if self._server is None:
            return
        self._server.close()
        for writer in self._open.values():
            with contextlib.suppress(*CONNECTION_ERRORS):
                writer.write_eof()
        if self._open:
            await asyncio.wait(list(self._open), timeout=patience)
        left = list(self._open)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= self._max_connections:
            self._refused.inc()
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # asyncio runs this callback in a task
        self._open[task] = writer
        self._connections.inc()
        try:
            await self._read(reader, _peer(writer))
        except CONNECTION_ERRORS as error:
            log.debug("connection lost", transport=self._protocol.transport, reason=str(error))
        finally:
            del self._open[task]
            self._connections.dec()
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, peer: str) -> None:
        framer = self._protocol.framer()
        try:
            while data := await reader.read(READ_SIZE):
                await self._take(framer, framer.feed(data), peer, len(data))
        finally:  # the last line counts too when the connection breaks
            await self._take(framer, framer.close(), peer, 0)

    async def _take(self, framer: Framer, frames: list[bytes], peer: str, size: int) -> None:
        origin = Origin(datetime.now(UTC), self._protocol.transport, peer, self._environment)
        decoded = self._protocol.decode(frames, origin)
        for raw, reason in framer.take_broken():
            decoded.rejects.append(Reject(origin.now, origin.transport, peer, reason, raw))
        await self._intake.put(self._protocol.transport, decoded, size)
        if cut := framer.take_cut():
            self._cut.inc(len(cut))
            await self._intake.put(self._protocol.transport, self._protocol.decode_cut(cut, origin), 0)


def _peer(writer: asyncio.StreamWriter) -> str:
    name = writer.get_extra_info("peername")
    return str(name[0]) if name else ""

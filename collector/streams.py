"""A TCP listener: read, feed the session, put its turns into the buffer, answer when they are durable. One for all.

All connections read into one buffer, and each read is decoded at once: a connection holds nothing but the frame that it
has begun, and a busy one gives up to a megabyte at a time.
"""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, cast

import structlog

from logagg.collector.intake import Intake
from logagg.collector.metrics import Metrics
from logagg.collector.networks import EVERYBODY, Networks
from logagg.collector.sockets import Place, bound, serve
from logagg.collector.turned_away import CloseAtOnce, TurnedAway, address_of
from logagg.collector.units import Address
from logagg.protocols.record import Origin
from logagg.protocols.session import Session, Turn

if TYPE_CHECKING:
    from logagg.collector.buffer import Chunk
    from logagg.protocols.multiline import JoinedSession

log = structlog.get_logger("listener")

#: Bytes of one read. The more at once, the less each costs.
READ_SIZE = 1 << 20
#: Turns of one connection that may wait for their answers; while there are more, nothing is read.
MOST_TURNS = 1000
#: Seconds between two looks for what a session has held back for long enough.
EXPIRY = 1.0
#: Seconds that a sender has to say something useful where we speak first.
HANDSHAKE_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class StreamProtocol:
    """What tells one stream protocol from another."""

    #: Its name in metrics, logs and the quarantine: `tcp`, `syslog-tcp` ...
    transport: str
    #: Makes what a connection speaks.
    session: Callable[[], Session]
    #: Its senders may wait for answers.
    answers: bool = False
    #: Its sessions hold records back for a while: `multiline.JoinedSession`.
    expires: bool = False


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
        networks: Networks = EVERYBODY,
        most_of_address: int | None = None,
    ) -> None:
        self.protocol = protocol
        self.intake = intake
        self.environment = environment
        #: All connections read into it: between a read and what becomes of it nothing else runs.
        self.buffer = memoryview(bytearray(READ_SIZE))
        self.cut = metrics.cut.labels(protocol.transport)
        self.ack_seconds = metrics.ack_seconds.labels(protocol.transport) if protocol.answers else None
        self._max_connections = max_connections
        self._server: asyncio.Server | None = None
        self.stopping = False
        self._expiry: asyncio.TimerHandle | None = None
        self._open: set[_Connection] = set()
        self._changed = asyncio.Event()
        self._connections = metrics.connections.labels(protocol.transport)
        metrics.holds(protocol.transport, lambda: sum(connection.held for connection in self._open))
        self._networks = networks
        self._most_of_address = most_of_address
        self._of_address: Counter[str] = Counter()
        self._turned_away = TurnedAway(metrics, protocol.transport)

    async def start(self, place: Place) -> Address:
        """Listen; return the address, with the port that the kernel chose for port 0."""
        self._turned_away.listener = place.setting
        self._server = await serve(self._accept, place)
        self._expire()
        return bound(self._server, place)

    async def stop(self, patience: float) -> None:
        """Stop listening; let each sender finish what it has sent, for `patience` seconds at most, then close."""
        if self._server is None:
            return
        self.stopping = True
        self._server.close()
        await asyncio.sleep(0.01)  # one that was accepted just now is made a connection meanwhile
        for connection in list(self._open):
            connection.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._open:
                    self._changed.clear()
                    await self._changed.wait()
        for connection in list(self._open):
            connection.end()
        if self._expiry:
            self._expiry.cancel()

    def _expire(self) -> None:
        if self.protocol.expires:
            for connection in list(self._open):
                connection.expire()
            self._expiry = asyncio.get_running_loop().call_later(EXPIRY, self._expire)

    def _accept(self) -> asyncio.BaseProtocol:
        if len(self._open) < self._max_connections:
            return _Connection(self)
        return CloseAtOnce(lambda peer: self._turned_away.too_many(peer, self._max_connections))

    def lets_in(self, peer: str) -> bool:
        """Tell whether a sender of this address may connect, and send; else count and say that it may not."""
        if not self._networks.allows(peer):
            self._turned_away.stranger(peer)
        elif self._most_of_address and self._of_address[peer] >= self._most_of_address:
            self._turned_away.of_address(peer, self._most_of_address)
        else:
            return True
        return False

    def opened(self, connection: "_Connection") -> None:
        """Count a connection. One that was accepted just before we stopped is told so, too."""
        self._open.add(connection)
        self._of_address[connection.peer] += 1
        self._connections.inc()
        if self.stopping:
            connection.stop()

    def ended(self, connection: "_Connection") -> None:
        """Count it no more: it is closed, and what came over it is in the buffer."""
        if connection in self._open:
            self._open.discard(connection)
            self._of_address[connection.peer] -= 1
            self._of_address += Counter()  # forgets those with none
            self._connections.dec()
            self._changed.set()


class _Answer(NamedTuple):
    """What is said when all of a turn is durable."""

    chunks: "list[Chunk]"
    text: bytes
    last: bool
    came: float

    @property
    def due(self) -> bool:
        return all(chunk.done is None or chunk.done.done() for chunk in self.chunks)


class _Connection(asyncio.BufferedProtocol):
    """One connection: what is read is decoded at once; while its records have no room, nothing is read."""

    def __init__(self, listener: StreamListener) -> None:
        self._listener = listener
        self._session = listener.protocol.session()
        self._loop = asyncio.get_running_loop()
        self.peer = ""
        #: What the buffer had no room for.
        self._left: deque[Chunk] = deque()
        self._waiting: asyncio.Task[None] | None = None
        #: What is to be said, in this order.
        self._answers: deque[_Answer] = deque()
        #: The sender waits for answers to what it sends: what got none comes again.
        self._acked = False
        #: The sender does not read what we say.
        self._deaf = False
        self._handshake: asyncio.TimerHandle | None = None
        #: The sender is over its limit, until then.
        self._limited: asyncio.TimerHandle | None = None
        self._stopping = False
        self._closed = False

    @property
    def held(self) -> int:
        """Records that were read and are not in the buffer."""
        return sum(chunk.count for chunk in self._left)

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.peer = address_of(transport)
        if not self._listener.lets_in(self.peer):
            self._transport.set_protocol(CloseAtOnce())
            self._transport.close()
            return
        if greeting := self._session.greeting():
            self._transport.write(greeting)
            self._handshake = self._loop.call_later(HANDSHAKE_PATIENCE, self._transport.close)
        self._listener.opened(self)

    def get_buffer(self, _: int) -> memoryview:
        return self._listener.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._take(self._session.feed(bytes(self._listener.buffer[:nbytes]), self._origin()))

    def eof_received(self) -> bool:
        """Return whether our side stays open: until all that is awaited is said."""
        self._take_end()
        self._stopping = True
        return bool(self._answers) and self._transport.can_write_eof()

    def connection_lost(self, error: Exception | None) -> None:
        if error:
            log.debug("connection lost", transport=self._listener.protocol.transport, reason=str(error))
        self._closed = True
        for timer in (self._handshake, self._limited):
            if timer:
                timer.cancel()
        self._take_end()  # the last line counts too when the connection breaks
        if not self._left:
            self._listener.ended(self)

    def pause_writing(self) -> None:
        self._deaf = True
        self._read_or_not()

    def resume_writing(self) -> None:
        self._deaf = False
        self._read_or_not()

    # What the listener calls

    def stop(self) -> None:
        """Tell the sender that we stop.

        One that waits for answers gets those that are due, and sends the rest again elsewhere. To another the end of
        our side is sent first (half-close): it reconnects elsewhere when it sees that, and what it had sent before is
        still read. A plain close throws away what the kernel had received.
        """
        self._go_on()
        if self._acked:
            self._stopping = True
            self._read_or_not()
            self._advance()
        elif self._transport.can_write_eof():
            with contextlib.suppress(OSError):
                self._transport.write_eof()

    def end(self) -> None:
        """Close now. What has come, an unfinished line too, is let into the buffer whether there is room or not."""
        self._take_end()
        if self._waiting:
            self._waiting.cancel()
            self._waiting = None
            self._listener.intake.admit(self._left)
            self._left.clear()
        self._transport.close()

    def expire(self) -> None:
        """Take what the session has held back for long enough."""
        self._take(cast("JoinedSession", self._session).expire(datetime.now(UTC)))

    # In, and out again

    def _origin(self) -> Origin:
        listener = self._listener
        return Origin(datetime.now(UTC), listener.protocol.transport, self.peer, listener.environment)

    def _take_end(self) -> None:
        """Take what the end of the stream makes whole; a frame cut short whose sender sends it again is no loss."""
        if not self._acked:
            self._take(self._session.close(self._origin()))

    def _take(self, turns: list[Turn]) -> None:
        for turn in turns:
            self._take_turn(turn)
        if turns and self._handshake:
            self._handshake.cancel()
        if self._left and self._waiting is None:
            self._listener.intake.take(self._left)
        if self._left and self._waiting is None:
            self._waiting = self._loop.create_task(self._wait())
        self._read_or_not()
        self._advance()

    def _take_turn(self, turn: Turn) -> None:
        listener, answers = self._listener, self._listener.protocol.answers
        chunks = list(
            listener.intake.chunks(listener.protocol.transport, turn.decoded, turn.size, turn.key, acked=answers)
        )
        self._left += chunks
        self._limit(listener.intake.limits.charge(self.peer, sum(chunk.count for chunk in chunks), turn.size))
        if turn.cut:
            listener.cut.inc(turn.cut)
        if answers or turn.last:
            self._acked = self._acked or bool(chunks and turn.answer)
            self._answers.append(_Answer(chunks, turn.answer, turn.last, self._loop.time()))
            for chunk in chunks:
                if chunk.done:
                    chunk.done.add_done_callback(self._advance)

    def _limit(self, seconds: float) -> None:
        """Read no more for so long. Of several connections of a sender each finds out by itself."""
        if seconds and not self._limited and not self._listener.stopping:
            self._listener.intake.limits.over(self.peer, self._listener.protocol.transport)
            self._limited = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        if self._limited:
            self._limited.cancel()
            self._limited = None
            self._limit(self._listener.intake.limits.wait(self.peer))
            self._read_or_not()

    def _advance(self, _: object = None) -> None:
        """Say what is due."""
        if self._closed:
            self._answers.clear()
        while self._answers and self._answers[0].due:
            answer = self._answers.popleft()
            if answer.text:
                self._transport.write(answer.text)
                if answer.chunks and self._listener.ack_seconds:
                    self._listener.ack_seconds.observe(self._loop.time() - answer.came)
            if answer.last:
                self._answers.clear()
                self._stopping = True
        if self._stopping and not self._answers and not self._closed:
            self._transport.close()
        self._read_or_not()

    def _read_or_not(self) -> None:
        """Read on, unless there is no room for more, or we stop."""
        if self._closed or self._transport.is_closing():
            return
        if self._left or self._deaf or self._limited or self._stopping or len(self._answers) >= MOST_TURNS:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    async def _wait(self) -> None:
        """Read on once there was room for all that had been read."""
        while self._left:
            await self._listener.intake.wait(self._left[0])
            self._left.popleft()
        self._waiting = None
        if self._closed:
            self._listener.ended(self)
        else:
            self._read_or_not()

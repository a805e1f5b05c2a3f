"""A UDP listener: every datagram that has arrived is read at once and decoded together, sender by sender."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from logagg.collector.complaints import Complaints
from logagg.collector.intake import Intake
from logagg.collector.networks import EVERYBODY, Networks
from logagg.collector.receiver import Receiver
from logagg.collector.sockets import Place, naming
from logagg.collector.turned_away import STRANGER, stranger
from logagg.collector.units import Address
from logagg.protocols.record import Decoded, Decoder, Origin

log = structlog.get_logger("listener")

#: Datagrams read before the loop gets a turn for something else.
AT_ONCE = 1000
#: Seconds in which datagrams gather in the kernel before they are read: many together cost a third of one by one. At
#: 100,000 a second that are a thousand, of which the kernel holds some thousands by default.
GATHER = 0.01
#: Seconds between two looks for what has waited too long.
EXPIRY = 1.0
#: Such rounds at the end: what the kernel holds is read, but a sender that never pauses does not keep us.
LAST_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class DatagramProtocol:
    """What tells one datagram protocol from another."""

    #: Its name in metrics, logs and the quarantine: `syslog-udp` ...
    transport: str
    decode: Decoder
    #: Gives up what has waited too long for the rest of it; called now and then, and with None at the end.
    expire: Callable[[datetime | None], Decoded] | None = None


class DatagramListener:
    """Listens on one address. What does not fit in the buffer is dropped and counted: UDP has no way to say wait."""

    def __init__(
        self,
        protocol: DatagramProtocol,
        intake: Intake,
        *,
        receive_buffer: int,
        environment: str | None,
        networks: Networks = EVERYBODY,
    ) -> None:
        self._protocol = protocol
        self._transport = protocol.transport
        self._intake = intake
        self._receive_buffer = receive_buffer
        self._environment = environment
        self._networks = networks
        self._complaints = Complaints()
        self._listener = ""
        self._socket: socket.socket | None = None
        self._receiver: Receiver | None = None
        self._next: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None

    async def start(self, place: Place) -> Address:
        """Listen; return the address, with the port that the kernel chose for port 0."""
        self._listener = place.setting
        with naming(place):
            self._socket = sock = place.handed or await bound(place.address)
        self._ask_for_buffer(sock, place)
        self._receiver = Receiver(sock, AT_ONCE)
        self._listen(sock, self._receiver)
        self._expire()
        return Address(place.address.host, sock.getsockname()[1])

    async def stop(self) -> None:
        """Read what the kernel still holds, then stop listening."""
        if self._socket is None or self._receiver is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        for timer in (self._next, self._expiry):
            if timer:
                timer.cancel()
        for _ in range(LAST_ROUNDS):
            if not self._take(self._receiver):
                break
            await asyncio.sleep(0)
        self._socket.close()
        if self._protocol.expire:
            self._intake.offer(self._transport, self._protocol.expire(None), 0)

    def _expire(self) -> None:
        if self._protocol.expire:
            self._intake.offer(self._transport, self._protocol.expire(datetime.now(UTC)), 0)
            self._expiry = asyncio.get_running_loop().call_later(EXPIRY, self._expire)

    def _ask_for_buffer(self, sock: socket.socket, place: Place) -> None:
        if not place.handed:  # which may have more than we are given
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        given = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # Linux reports the double, see socket(7)
        if given < self._receive_buffer:
            log.warning(
                "the kernel gives a smaller receive buffer for UDP; bursts may be lost",
                transport=self._transport, asked=self._receive_buffer, given=given,
                remedy=f"sysctl -w net.core.rmem_max={self._receive_buffer}",
            )  # fmt: skip

    def _listen(self, sock: socket.socket, receiver: Receiver) -> None:
        asyncio.get_running_loop().add_reader(sock, self._readable, sock, receiver)

    def _readable(self, sock: socket.socket, receiver: Receiver) -> None:
        if self._take(receiver) < AT_ONCE:
            loop = asyncio.get_running_loop()
            loop.remove_reader(sock)
            self._next = loop.call_later(GATHER, self._listen, sock, receiver)

    def _take(self, receiver: Receiver) -> int:
        """Take what has arrived; return how many datagrams."""
        try:
            received = receiver.receive()
        except OSError as error:  # such as an ICMP answer to an earlier datagram
            log.debug("receive failed", transport=self._transport, reason=str(error))
            return 0
        if lost := receiver.lost():
            self._intake.lost(self._transport, lost)
        now = datetime.now(UTC)
        for peer, frames in received:
            size = sum(map(len, frames))
            if not self._lets_in(peer, len(frames), size):
                continue
            origin = Origin(now, self._transport, peer, self._environment)
            decoded = self._protocol.decode([frame for frame in frames if frame], origin)
            self._intake.offer(self._transport, decoded, size)
            self._intake.limits.charge(peer, len(frames), size)
        return sum(len(frames) for _, frames in received)

    def _lets_in(self, peer: str, count: int, size: int) -> bool:
        """Tell whether datagrams of this sender are taken; else count and say that they are not."""
        if not self._networks.allows(peer):
            why = stranger(peer, self._listener)
            self._complaints.say(STRANGER, self._transport, peer, why, count, listener=self._listener)
            reason = "allow"
        elif self._intake.limits.wait(peer):
            self._intake.limits.over(peer, self._transport)
            reason = "limit"
        else:
            return True
        self._intake.refuse(self._transport, count, size, reason)
        return False


async def bound(address: Address) -> socket.socket:
    """Return a socket of UDP on an address."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    try:
        sock.bind(where)
    except OSError:
        sock.close()
        raise
    return sock

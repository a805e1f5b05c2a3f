"""Answers fluentd's heartbeats, a datagram on the port of Forward now and then: it sends only to servers that answer.

That is its out_forward with `heartbeat_type udp`: https://docs.fluentd.org/output/forward#heartbeat_type. Each datagram
is answered with one byte 0, as fluentd's in_forward does.
"""

import asyncio
import socket
from contextlib import suppress
from typing import Final

from logagg.collector.datagrams import bound
from logagg.collector.networks import EVERYBODY, Networks
from logagg.collector.sockets import Place, naming
from logagg.collector.units import Address

_ANSWER: Final = b"\0"
#: Datagrams answered before the loop gets a turn for something else.
_AT_ONCE: Final = 100
#: Below are servers, and the port of heartbeats itself is one too: with their address as the sender's, one datagram
#: could have two servers answer each other for ever.
_FIRST_OF_CLIENTS: Final = 1024


class HeartbeatListener:
    """Listens on one address over UDP."""

    def __init__(self, networks: Networks = EVERYBODY) -> None:
        self._networks = networks
        self._socket: socket.socket | None = None

    async def start(self, place: Place) -> Address:
        """Listen; return the address, with the port that the kernel chose for port 0. Raises OSError that names it."""
        with naming(place):
            self._socket = sock = place.handed or await bound(place.address)
        port = sock.getsockname()[1]
        asyncio.get_running_loop().add_reader(sock, _answer, sock, port, self._networks)
        return Address(place.address.host, port)

    async def stop(self) -> None:
        """Stop listening."""
        if self._socket:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()


def _answer(sock: socket.socket, port: int, networks: Networks) -> None:
    """Answer what has arrived; an answer that cannot be sent is none."""
    with suppress(OSError):  # the last one of a read is that there is nothing more
        for _ in range(_AT_ONCE):
            _, peer = sock.recvfrom(1)
            if peer[1] >= _FIRST_OF_CLIENTS and peer[1] != port and networks.allows(peer[0]):
                sock.sendto(_ANSWER, peer)

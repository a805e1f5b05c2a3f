"""Who is turned away from a listener, counted and in the daemon's log: by address, or because there are too many."""

import asyncio
from collections.abc import Callable
from typing import Final

from logagg.collector.complaints import Complaints
from logagg.collector.metrics import Metrics

STRANGER: Final = "a sender is not in the networks of `allow`"


def stranger(peer: str, listener: str) -> str:
    """Say why the address of a sender is refused."""
    return f"{peer} is not in the networks that may reach {listener}"


class TurnedAway:
    """The connections of one listener that are closed at once."""

    def __init__(self, metrics: Metrics, transport: str) -> None:
        self._refused = metrics.connections_refused
        self._transport = transport
        self._complaints = Complaints()
        #: The setting that says where it listens; known when it does.
        self.listener = ""

    def stranger(self, peer: str) -> None:
        """Count and say that an address is not in the networks of `allow`."""
        self._say(STRANGER, peer, "allow", stranger(peer, self.listener))

    def of_address(self, peer: str, most: int) -> None:
        """Count and say that an address has as many connections as it may."""
        reason = f"{peer} has {most} connections open, and max_connections_per_address is {most}"
        self._say("a sender has too many connections", peer, "max_connections_per_address", reason)

    def too_many(self, peer: str, most: int) -> None:
        """Count and say that a listener has as many connections as it may."""
        reason = f"{self.listener} has {most} connections open, and max_connections is {most}"
        self._say("a listener has too many connections", peer, "max_connections", reason)

    def _say(self, event: str, peer: str, counted: str, reason: str) -> None:
        self._refused.labels(self._transport, counted).inc()
        self._complaints.say(event, self._transport, peer, reason, listener=self.listener)


class CloseAtOnce(asyncio.Protocol):
    """What a connection gets that is one too many."""

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        """`say` is told the address."""
        self._say = say

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        self._say(address_of(transport))
        transport.close()


def address_of(transport: asyncio.BaseTransport | None) -> str:
    """Return the address of a sender; empty where it is gone."""
    name = transport.get_extra_info("peername") if transport else None
    return str(name[0]) if name else ""

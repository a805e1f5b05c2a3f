"""The listener of HTTP: the application of all routes, on one address."""

import asyncio

from aiohttp import web

from logagg.collector.metrics import Metrics
from logagg.collector.sockets import Place, bound, serve
from logagg.collector.turned_away import CloseAtOnce, TurnedAway, address_of
from logagg.collector.units import Address

#: Bytes of the first line of a request, in which a query stands.
LONGEST_LINE = 1 << 16
#: Seconds that requests under way have when we stop.
_PATIENCE = 5.0


class OneOfAddress(asyncio.Protocol):
    """What a connection gets until its address is known: it is served unless there are too many of that address."""

    def __init__(self, handler: web.Server, most: int, turned_away: TurnedAway) -> None:
        self._handler = handler
        self._most = most
        self._turned_away = turned_away

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand it on, or close it."""
        peer = address_of(transport)
        if sum(address_of(other.transport) == peer for other in self._handler.connections) >= self._most:
            self._turned_away.of_address(peer, self._most)
            transport.close()
            return
        served = self._handler()
        transport.set_protocol(served)
        served.connection_made(transport)


class HttpListener:
    """Serves an application."""

    def __init__(
        self, app: web.Application, metrics: Metrics, *, max_connections: int, most_of_address: int | None = None
    ) -> None:
        # No access log: one line a request would be a log as large as the one that is collected.
        self._runner = web.AppRunner(
            app, access_log=None, auto_decompress=False, shutdown_timeout=_PATIENCE, max_line_size=LONGEST_LINE
        )
        self._max_connections = max_connections
        self._most_of_address = most_of_address
        self._metrics = metrics
        self._server: asyncio.Server | None = None

    async def start(self, place: Place) -> Address:
        """Listen; return the address, with the port that the kernel chose for port 0."""
        await self._runner.setup()
        handler = self._runner.server
        assert handler is not None  # noqa: S101  # it is there once the runner is set up
        most_of_address = self._most_of_address
        connections = self._metrics.connections.labels("http")
        turned_away = TurnedAway(self._metrics, "http")
        turned_away.listener = place.setting
        connections.set_function(lambda: len(handler.connections))

        def connected() -> asyncio.BaseProtocol:
            if len(handler.connections) < self._max_connections:
                return OneOfAddress(handler, most_of_address, turned_away) if most_of_address else handler()
            return CloseAtOnce(lambda peer: turned_away.too_many(peer, self._max_connections))

        self._server = await serve(connected, place)
        return bound(self._server, place)

    async def stop(self) -> None:
        """Stop listening; requests under way are answered."""
        if self._server:
            self._server.close()
        await self._runner.cleanup()

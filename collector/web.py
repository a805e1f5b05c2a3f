"""The listener of HTTP: the application of all routes, on one address."""

import asyncio

from aiohttp import web
from prometheus_client import Counter

from logagg.collector.metrics import Metrics
from logagg.collector.sockets import Place, bound, serve
from logagg.collector.streams import CloseAtOnce
from logagg.collector.units import Address

#: Bytes of the first line of a request, in which a query stands.
LONGEST_LINE = 1 << 16
#: Seconds that requests under way have when we stop.
_PATIENCE = 5.0


class OneOfAddress(asyncio.Protocol):
    """What a connection gets until its address is known: it is served unless there are too many of that address."""

    def __init__(self, handler: web.Server, most: int, refused: Counter) -> None:
        self._handler = handler
        self._most = most
        self._refused = refused

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand it on, or close it."""
        peer = _host(transport)
        if sum(_host(other.transport) == peer for other in self._handler.connections) >= self._most:
            self._refused.labels("http", "max_connections_per_address").inc()
            transport.close()
            return
        served = self._handler()
        transport.set_protocol(served)
        served.connection_made(transport)


def _host(transport: asyncio.BaseTransport | None) -> str | None:
    name = transport.get_extra_info("peername") if transport else None
    return name[0] if name else None


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
        refused = self._metrics.connections_refused
        connections.set_function(lambda: len(handler.connections))

        def connected() -> asyncio.BaseProtocol:
            if len(handler.connections) < self._max_connections:
                return OneOfAddress(handler, most_of_address, refused) if most_of_address else handler()
            refused.labels("http", "max_connections").inc()
            return CloseAtOnce()

        self._server = await serve(connected, place)
        return bound(self._server, place)

    async def stop(self) -> None:
        """Stop listening; requests under way are answered."""
        if self._server:
            self._server.close()
        await self._runner.cleanup()

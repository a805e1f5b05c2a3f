"""All listeners: those whose settings name an address start together, and stop together."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

import structlog
from aiohttp import web

from logagg.collector import wiring
from logagg.collector.datagrams import DatagramListener
from logagg.collector.heartbeats import HeartbeatListener
from logagg.collector.intake import Intake
from logagg.collector.metrics import Metrics
from logagg.collector.settings import Settings
from logagg.collector.sockets import Inherited, Place
from logagg.collector.streams import StreamListener
from logagg.collector.units import Address
from logagg.collector.web import HttpListener

#: How long stream senders may go on sending once they were told that we stop.
DRAIN_PATIENCE = 2.0

log = structlog.get_logger("listener")

T = TypeVar("T")


async def listen(
    stack: AsyncExitStack,
    settings: Settings,
    inherited: Inherited,
    tls: ssl.SSLContext | None,
    intake: Intake,
    metrics: Metrics,
    app: web.Application,
) -> dict[str, Address]:
    """Start every listener whose setting names an address; they stop with the stack. Return where, by setting.

    Raises OSError that names the setting.
    """
    listening: dict[str, Address] = {}
    stops: list[Callable[[], Awaitable[None]]] = []
    stack.push_async_callback(_stop_together, stops)

    def wanted(protocols: Mapping[str, T], kind: socket.SocketKind) -> Iterator[tuple[Place, T]]:
        for setting, protocol in protocols.items():
            if address := getattr(settings, setting):
                place = inherited.place(setting, address, kind)
                yield place._replace(tls=tls if setting in settings.over_tls else None), protocol

    most, environment = settings.max_connections, settings.environment
    for place, stream in wanted(wiring.streams(settings), socket.SOCK_STREAM):
        listener = StreamListener(stream, intake, metrics, max_connections=most, environment=environment)
        stops.append(partial(listener.stop, DRAIN_PATIENCE))
        listening[place.setting] = await listener.start(place)
    for place, datagram in wanted(wiring.datagrams(settings), socket.SOCK_DGRAM):
        receiver = DatagramListener(
            datagram, intake, receive_buffer=settings.udp_receive_buffer, environment=environment
        )
        stops.append(receiver.stop)
        listening[place.setting] = await receiver.start(place)
    for place, _ in wanted({"forward_listen": None}, socket.SOCK_DGRAM):
        stops.append(await _heartbeats(place, listening["forward_listen"]))
    for place, served in wanted({"http_listen": app}, socket.SOCK_STREAM):
        http = HttpListener(served, metrics, max_connections=most)
        stops.append(http.stop)
        listening[place.setting] = await http.start(place)
    inherited.check()
    return listening


async def _heartbeats(place: Place, forward: Address) -> Callable[[], Awaitable[None]]:
    """Answer heartbeats where Forward listens; without them all but an old fluentd sends all the same."""
    heartbeats = HeartbeatListener()
    try:
        await heartbeats.start(place._replace(address=forward))
    except OSError as error:
        log.warning("heartbeats over UDP are not answered", reason=str(error))
    return heartbeats.stop


async def _stop_together(stops: Sequence[Callable[[], Awaitable[None]]]) -> None:
    await asyncio.gather(*(stop() for stop in stops))

"""All listeners: which there are, and that they start and stop together."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

from aiohttp import web

from logagg.collector.datagrams import DatagramListener
from logagg.collector.intake import Intake
from logagg.collector.metrics import Metrics
from logagg.collector.settings import Settings
from logagg.collector.sockets import Inherited
from logagg.collector.streams import StreamListener, StreamProtocol
from logagg.collector.units import Address
from logagg.collector.web import HttpListener
from logagg.collector.wiring import json_lines, syslog
from logagg.protocols.syslog_columns import decode_syslog

#: How long stream senders may go on sending once they were told that we stop.
DRAIN_PATIENCE = 2.0


async def listen(
    stack: AsyncExitStack,
    settings: Settings,
    inherited: Inherited,
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

    async def stream(setting: str, address: Address | None, protocol: StreamProtocol) -> None:
        if address:
            listener = StreamListener(
                protocol,
                intake,
                metrics,
                max_connections=settings.max_connections,
                environment=settings.environment,
            )
            stops.append(partial(listener.stop, DRAIN_PATIENCE))
            listening[setting] = await listener.start(inherited.place(setting, address, socket.SOCK_STREAM))

    await stream("tcp_listen", settings.tcp_listen, json_lines(settings.max_frame))
    await stream("syslog_tcp_listen", settings.syslog_tcp_listen, syslog(settings.max_frame, settings.syslog_zone))
    if settings.syslog_udp_listen:
        datagrams = DatagramListener(
            "syslog-udp",
            partial(decode_syslog, zone=settings.syslog_zone),
            intake,
            receive_buffer=settings.udp_receive_buffer,
            environment=settings.environment,
        )
        stops.append(datagrams.stop)
        place = inherited.place("syslog_udp_listen", settings.syslog_udp_listen, socket.SOCK_DGRAM)
        listening[place.setting] = await datagrams.start(place)
    if settings.http_listen:
        http = HttpListener(app, metrics, max_connections=settings.max_connections)
        stops.append(http.stop)
        listening["http_listen"] = await http.start(
            inherited.place("http_listen", settings.http_listen, socket.SOCK_STREAM)
        )
    inherited.check()
    return listening


async def _stop_together(stops: Sequence[Callable[[], Awaitable[None]]]) -> None:
    await asyncio.gather(*(stop() for stop in stops))

"""All listeners: those whose settings name an address start together, and stop together."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

import structlog
from aiohttp import web

from logagg.collector import wiring
from logagg.collector.datagrams import DatagramListener
from logagg.collector.heartbeats import HeartbeatListener
from logagg.collector.intake import Intake
from logagg.collector.limits import Limits, guarding
from logagg.collector.metrics import Metrics
from logagg.collector.networks import Networks, is_loopback
from logagg.collector.settings import OVER_UDP, Settings
from logagg.collector.sockets import Inherited, Place
from logagg.collector.streams import StreamListener
from logagg.collector.tls import Tls
from logagg.collector.units import Address
from logagg.collector.web import HttpListener
from logagg.query.grants import GUARD

#: How long stream senders may go on sending once they were told that we stop.
DRAIN_PATIENCE = 2.0

log = structlog.get_logger("listener")

T = TypeVar("T")


async def listen(
    stack: AsyncExitStack,
    settings: Settings,
    inherited: Inherited,
    tls: Tls | None,
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

    def wanted(protocols: Mapping[str, T], kind: socket.SocketKind) -> list[tuple[Place, T]]:
        found = []
        for setting, protocol in protocols.items():
            if address := getattr(settings, setting):
                place = inherited.place(setting, address, kind)
                if tls and setting in settings.over_tls:
                    by_certificate = setting in settings.by_certificate
                    place = place._replace(tls=tls.over(setting, by_certificate=by_certificate))
                found.append((place, protocol))
        return found

    streams = wanted(wiring.streams(settings), socket.SOCK_STREAM)
    datagrams = wanted(wiring.datagrams(settings), socket.SOCK_DGRAM)
    heartbeats = wanted({"forward_listen": None}, socket.SOCK_DGRAM)
    served = wanted({"http_listen": app}, socket.SOCK_STREAM)
    _check_exposure(settings, [place for place, _ in (*streams, *datagrams, *served)])
    burst = settings.limit_burst.total_seconds()
    intake.limits = Limits(metrics, settings.limit_records, settings.limit_bytes, burst)
    app[GUARD] = guarding(app[GUARD], settings.allowed["http_listen"], intake.limits, metrics)
    most, of_address, environment = settings.max_connections, settings.max_connections_per_address, settings.environment
    for place, stream in streams:
        listener = StreamListener(
            stream,
            intake,
            metrics,
            max_connections=most,
            environment=environment,
            networks=settings.allowed[place.setting],
            most_of_address=of_address,
        )
        stops.append(partial(listener.stop, DRAIN_PATIENCE))
        listening[place.setting] = await listener.start(place)
    for place, datagram in datagrams:
        receiver = DatagramListener(
            datagram,
            intake,
            receive_buffer=settings.udp_receive_buffer,
            environment=environment,
            networks=settings.allowed[place.setting],
        )
        stops.append(receiver.stop)
        listening[place.setting] = await receiver.start(place)
    for place, _ in heartbeats:
        stops.append(await _heartbeats(place, listening["forward_listen"], settings.allowed["forward_listen"]))
    for place, _ in served:
        http = HttpListener(app, metrics, max_connections=most, most_of_address=of_address)
        stops.append(http.stop)
        listening[place.setting] = await http.start(place)
    inherited.check()
    return listening


def _check_exposure(settings: Settings, places: Sequence[Place]) -> None:
    """Raise OSError when one is open to everybody, by its socket if that was handed over; say so when it may be."""
    addresses = {
        each.setting: Address(*each.handed.getsockname()[:2]) if each.handed else each.address for each in places
    }
    if not (problem := exposed(settings, addresses)):
        return
    if not settings.insecure:
        raise OSError(problem)
    log.warning(problem)


def exposed(settings: Settings, addresses: Mapping[str, Address] | None = None) -> str | None:
    """Say which listeners, at these addresses or as set, are open to other machines with nothing to protect them."""
    if addresses is None:
        as_set = {name: getattr(settings, name) for name in settings.allowed}
        addresses = {name: address for name, address in as_set.items() if address}
    found = {
        name: address
        for name, address in addresses.items()
        if not settings.protected(name) and not is_loopback(address.host)
    }
    if not found:
        return None
    ways = [*_ways(settings, found.keys())]
    protect = f"Protect each: {', '.join(ways)}, any" if ways else "Protect each"
    return (
        f"open to other machines, and to everybody there: {', '.join(f'{name} ({found[name]})' for name in found)}."
        f' {protect} by its networks (allow = "*=10.0.0.0/8"); docs/access.md has the table. Or listen on 127.0.0.1,'
        " or set insecure (logagg serve --insecure)"
    )


def _ways(settings: Settings, listeners: Set[str]) -> Iterator[str]:
    """Yield what can protect some of these listeners, but for networks, and which settings are missing for it."""
    if "http_listen" in listeners:
        yield "http_listen by tokens (auth_required = true)"
    if "forward_listen" in listeners:
        yield "forward_listen by a key (forward_shared_key)"
    if streams := listeners - OVER_UDP:
        missing = {
            "tls_certificate": not settings.tls_certificate,
            "tls_listeners": not streams <= settings.over_tls,
            "tls_client_ca": not settings.tls_client_ca,
            "tls_client_ca_listeners": bool(settings.tls_client_ca_listeners),  # else those over TLS are in it
        }
        settings_missing = ", ".join(name for name in missing if missing[name])
        yield f"what is over TCP by certificates of the senders ({settings_missing})"


async def _heartbeats(place: Place, forward: Address, networks: Networks) -> Callable[[], Awaitable[None]]:
    """Answer heartbeats where Forward listens; without them all but an old fluentd sends all the same."""
    heartbeats = HeartbeatListener(networks)
    try:
        await heartbeats.start(place._replace(address=forward))
    except OSError as error:
        log.warning("heartbeats over UDP are not answered", reason=str(error))
    return heartbeats.stop


async def _stop_together(stops: Sequence[Callable[[], Awaitable[None]]]) -> None:
    await asyncio.gather(*(stop() for stop in stops))

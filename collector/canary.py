"""The canary: writes a marker through each listener as a sender would, and looks for it by a query until it is found.

Its records have the service `logagg-canary` and the level DEBUG. Over HTTP it has a token of its own, for writing only.
"""

import asyncio
import contextlib
import hmac
import ipaddress
import secrets
import ssl
import string
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NoReturn

import msgpack
import orjson
import structlog
from aiohttp import web

from logagg.collector.metrics import Metrics
from logagg.collector.units import Address
from logagg.query.answers import Filter
from logagg.query.engine import Engine
from logagg.query.grants import EVERYTHING, Grant, Guard, secret_of
from logagg.sinks.sources import CANARY

SERVICE: Final = CANARY
#: Seconds from sending a marker until it counts as lost.
PATIENCE: Final = 10.0
#: Seconds to connect and to send.
_TO_SEND: Final = 5.0
#: Seconds between two looks: at first, and at most.
_FIRST, _LONGEST = 0.01, 0.5
#: Clocks of us and PostgreSQL may differ; the marker's time is the one of receipt.
_CLOCKS: Final = timedelta(minutes=1)

log = structlog.get_logger("canary")


def _json(text: str) -> bytes:
    return orjson.dumps({"service": SERVICE, "level": "DEBUG", "message": text})


def _http(text: str, secret: str) -> bytes:
    body = _json(text)
    head = (
        f"POST /ingest HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _syslog(text: str) -> bytes:
    return f"<15>1 - - {SERVICE} - - - {text}".encode()


def _relp(text: str) -> bytes:
    offers, message = b"relp_version=0\ncommands=syslog", _syslog(text)
    return b"1 open %d %b\n2 syslog %d %b\n" % (len(offers), offers, len(message), message)


def _forward(text: str) -> bytes:
    event = {"service": SERVICE, "level": "DEBUG", "message": text}
    return bytes(msgpack.packb([SERVICE, int(time.time()), event]))


def _gelf(text: str) -> bytes:
    return orjson.dumps({"version": "1.1", "host": "localhost", "short_message": text, "level": 7, "_service": SERVICE})


def _lumberjack(text: str) -> bytes:
    event = _json(text)
    return struct.pack(">2sI2sII", b"2W", 1, b"2J", 1, len(event)) + event


#: The marker as each transport has it; HTTP, which needs a token, stands apart.
_ENCODERS: Mapping[str, Callable[[str], bytes]] = {
    "tcp": lambda text: _json(text) + b"\n",
    "syslog-tcp": lambda text: _syslog(text) + b"\n",
    "syslog-tls": lambda text: _syslog(text) + b"\n",
    "syslog-udp": _syslog,
    "relp": _relp,
    "forward": _forward,
    "gelf-tcp": lambda text: _gelf(text) + b"\0",
    "gelf-udp": _gelf,
    "lumberjack": _lumberjack,
}


class Canary:
    """Sends and looks, round by round."""

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        interval: float,
        certificate: Path | None,
        over_tls: frozenset[str],
        left_out: frozenset[str],
    ) -> None:
        """Say how to send.

        `interval` is the pause between two rounds in seconds; listeners are named by their settings: `certificate` is
        the file of what those `over_tls` serve, and those `left_out` want senders to prove what the canary cannot.
        """
        self._engine = engine
        self._metrics = metrics
        self._interval = interval
        self._certificate = certificate
        self._over_tls = over_tls
        self._left_out = left_out
        self._secret = secrets.token_urlsafe(32)

    def let_in(self, guard: Guard) -> Guard:
        """Return a guard that lets the canary write, too, which is all that its token is for."""

        def admit(request: web.Request, scope: str) -> Grant:
            secret = secret_of(request.headers) or ""
            if scope == "ingest" and hmac.compare_digest(secret.encode(errors="replace"), self._secret.encode()):
                return EVERYTHING
            return guard(request, scope)

        return admit

    async def run(self, listening: Mapping[str, Address]) -> NoReturn:
        """Try all of these listeners, by setting, again and again, until cancelled."""
        if left_out := sorted(self._left_out & listening.keys()):
            log.info("the canary leaves out listeners that want senders to prove who they are", listeners=left_out)
        tried = listening.keys() - self._left_out
        places = {setting.removesuffix("_listen").replace("_", "-"): setting for setting in tried}
        for transport in places:
            self._metrics.canary_failures.labels(transport)
        while True:
            await asyncio.sleep(self._interval)
            token = "".join(secrets.choice(string.ascii_lowercase) for _ in range(16))
            async with AsyncExitStack() as connections:
                sent = await asyncio.gather(
                    *(
                        self._sent(connections, transport, token, listening[setting], setting in self._over_tls)
                        for transport, setting in places.items()
                    )
                )
                await self._look(token, {transport: at for transport, at in zip(places, sent, strict=True) if at})

    async def _sent(
        self, connections: AsyncExitStack, transport: str, token: str, address: Address, encrypted: bool
    ) -> float | None:
        """Send a marker, and leave the connection to the stack. Return when; None when it could not be sent."""
        text = _text(token, transport)
        data = _http(text, self._secret) if transport == "http" else _ENCODERS[transport](text)
        began = time.monotonic()
        try:
            async with asyncio.timeout(_TO_SEND):
                if transport.endswith("-udp"):
                    await _send_datagram(connections, address, data)
                else:
                    await _send(connections, address, data, self._trusting() if encrypted else None)
        except Exception as error:  # whatever it is, it is told, and no reason for the daemon to end
            self._failed(transport, f"it could not be sent: {error or type(error).__name__}")
            return None
        return began

    async def _look(self, token: str, waiting: dict[str, float]) -> None:
        """Look until all are found, or lost."""
        pause, reason = _FIRST, "it was sent, and no query has found it"
        end = time.monotonic() + PATIENCE
        while waiting and time.monotonic() < end:
            try:
                found = await self._found(token)
            except Exception as error:  # as above
                found, reason = set(), str(error) or type(error).__name__
            now = time.monotonic()
            for transport in [each for each in waiting if _text(token, each) in found]:
                self._metrics.canary_seconds.labels(transport).observe(now - waiting.pop(transport))
            if waiting:
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST)
        for transport in waiting:
            self._failed(transport, f"{reason}, for {PATIENCE:g} s")

    async def _found(self, token: str) -> set[str]:
        """Return the messages of this round that a query finds."""
        asked = Filter(start=datetime.now(UTC) - _CLOCKS, service=SERVICE, words=token)
        answer = await self._engine.search(asked, limit=2 * len(_ENCODERS))
        return {record["message"] for record in answer.records}

    def _failed(self, transport: str, reason: str) -> None:
        self._metrics.canary_failures.labels(transport).inc()
        log.warning("the canary has failed", transport=transport, reason=reason)

    def _trusting(self) -> ssl.SSLContext:
        """Return what trusts our certificate alone, whoever signed it, as long as it is valid. Raises OSError."""
        context = ssl.create_default_context(cafile=self._certificate)
        context.check_hostname = False  # it names the host, and we connect to an address
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context


def _text(token: str, transport: str) -> str:
    return f"{token} over {transport}"


async def _send(connections: AsyncExitStack, address: Address, data: bytes, tls: ssl.SSLContext | None) -> None:
    _, writer = await asyncio.open_connection(reached(address), address.port, ssl=tls)
    connections.push_async_callback(_close, writer)
    writer.write(data)
    await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_TO_SEND):
            await writer.wait_closed()


async def _send_datagram(connections: AsyncExitStack, address: Address, data: bytes) -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=(reached(address), address.port)
    )
    connections.callback(transport.close)
    transport.sendto(data)


def reached(address: Address) -> str:
    """Return the host to connect to: any address is the loopback's, too."""
    try:
        host = ipaddress.ip_address(address.host)
    except ValueError:  # a name
        return address.host
    if not host.is_unspecified:
        return address.host
    return "::1" if host.version == 6 else "127.0.0.1"

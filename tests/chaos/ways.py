"""The ways in for `poison.py`: what a record is in each protocol, and how records are sent.

A further transport is a line of TRANSPORTS: its name, what makes a frame of a marker and a poison, and what sends them.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import msgpack

from .harness import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from logagg.tests.chaos.harness import Daemon


class Poison(NamedTuple):
    """What is wrong with a record."""

    name: str
    #: Members of a JSON object; they stand behind its `service`, which is the marker.
    members: bytes
    #: The same for protocols that send a text; None: the members as they are.
    text: bytes | None = None
    #: Whether an array on one line can go on behind it. An object that never ends takes all that follows it.
    ends: bool = True


def message(name: str, text: bytes) -> Poison:
    """Return a poison that is the same in JSON and in a text."""
    return Poison(name, b'"message":"' + text + b'"', text)


#: Poisons besides those, in the parts of a syslog message that JSON does not have: what makes a frame of a marker.
SYSLOG = {
    "year 300000 in the header": b"<13>1 300000-01-01T00:00:00Z host %b - - - m",
    "empty message in syslog": b"<13>1 - - %b - - -",
    "PRI 999": b"<999>1 2026-11-20T10:00:00Z host %b - - - m",
    "PRI of 900 digits": b"<" + b"1" * 900 + b">%b: m",
    "no PRI": b"%b: m",
    "structured data that never ends": b'<13>1 2026-11-20T10:00:00Z host %b - - [a b="c m',
    "structured data with NUL and bad UTF-8": b'<13>1 2026-11-20T10:00:00Z host %b - - [a\xff b="\0\xff"] m',
    "names of 3,000 characters": b"<13>1 - " + b"h" * 3000 + b" %b " + b"p" * 3000 + b" " + b"m" * 3000 + b" - m",
    "February 30 in RFC 3164": b"<13>Feb 30 25:61:61 host %b: m",
}


class Transport(NamedTuple):
    """A way in."""

    name: str
    #: Makes a frame: of the marker, which becomes the service, and the poison.
    wrap: Callable[[bytes, Poison], bytes]
    #: Sends frames, and returns when the daemon has them.
    send: Callable[[Daemon, Sequence[bytes]], Awaitable[None]]
    #: Frames, where a poison has a frame of its own for this transport.
    more: dict[str, bytes] = {}  # noqa: RUF012 - a constant
    #: What a frame can hold at most; the end of a longer one is left out.
    longest: int = 1 << 30
    #: Whether the frames stand one behind the other, so that each must tell where it ends.
    joined: bool = False
    #: Poisons that would be the end of a frame here.
    without: frozenset[str] = frozenset()


def as_json(marker: bytes, poison: Poison) -> bytes:
    """Return a JSON object."""
    return b'{"service":"%b",%b}' % (marker, poison.members)


def as_syslog(marker: bytes, poison: Poison) -> bytes:
    """Return a message of RFC 5424."""
    text = poison.members if poison.text is None else poison.text
    return b"<13>1 2026-11-20T10:00:00Z host %b - - - %b" % (marker, text)


def text_of(poison: Poison) -> bytes:
    """Return what a poison is where only a text can be sent, as the inside of a JSON string."""
    if poison.text is not None and poison.text in poison.members:
        return poison.text
    return (poison.text or poison.members).replace(b"\\", rb"\\").replace(b'"', rb"\"")


def as_forward(marker: bytes, poison: Poison) -> bytes:
    """Return a message of Fluent Forward in msgpack, which can hold any bytes as a text."""
    packer = msgpack.Packer(use_bin_type=False)
    text = poison.members if poison.text is None else poison.text
    packed: bytes = packer.pack([b"tag", 1_790_000_000, {b"service": marker, b"message": text}])
    return packed


def as_forward_json(marker: bytes, poison: Poison) -> bytes:
    """Return a message of Fluent Forward in JSON."""
    return b'["tag",1790000000,%b]' % as_json(marker, poison)


def as_loki(marker: bytes, poison: Poison) -> bytes:
    """Return a stream of a push to Loki."""
    return b'{"stream":{"service":"%b"},"values":[["1790000000000000000","%b"]]}' % (marker, text_of(poison))


def as_otlp(marker: bytes, poison: Poison) -> bytes:
    """Return the logs of a resource of OTLP."""
    return (
        b'{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"%b"}}]},"scopeLogs":[{"logRecords":'
        b'[{"timeUnixNano":"1790000000000000000","body":{"stringValue":"%b"}}]}]}' % (marker, text_of(poison))
    )


def as_splunk(marker: bytes, poison: Poison) -> bytes:
    """Return an event of Splunk's HEC."""
    return b'{"event":%b}' % as_json(marker, poison)


async def post(daemon: Daemon, body: bytes, content: str, path: str = "/ingest") -> None:
    """Send a body; what is answered but yes is an error."""
    async with daemon.http.post(path, data=BytesIO(body), headers={"Content-Type": content}) as answer:
        assert answer.status in (200, 202, 204), f"{answer.status} {await answer.text()}"


async def post_array(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send one JSON array on one line, as fluent-bit does."""
    await post(daemon, b"[" + b",".join(frames) + b"]", "application/json")


async def post_lines(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send a JSON object a line."""
    await post(daemon, b"\n".join(frames) + b"\n", "application/x-ndjson")


async def stream(daemon: Daemon, listener: str, data: bytes) -> None:
    """Send bytes over a connection of their own, and return when the daemon has read all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.ports[listener])
    writer.write(data)
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()


async def tcp(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send a JSON object a line."""
    await stream(daemon, "tcp", b"\n".join(frames) + b"\n")


async def syslog_lines(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send a message a line."""
    await stream(daemon, "syslog_tcp", b"\n".join(frames) + b"\n")


async def syslog_counted(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send messages by octet count."""
    await stream(daemon, "syslog_tcp", b"".join(b"%d %b" % (len(frame), frame) for frame in frames))


async def post_gelf(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send a message of GELF a line, as fluent-bit does."""
    await post(daemon, b"\n".join(frames) + b"\n", "application/json", "/gelf")


async def post_loki(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send a push to Loki."""
    await post(daemon, b'{"streams":[%b]}' % b",".join(frames), "application/json", "/loki/api/v1/push")


async def post_bulk(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send documents for Elasticsearch."""
    body = b"".join(b'{"create":{}}\n%b\n' % frame for frame in frames)
    await post(daemon, body, "application/x-ndjson", "/logs-x/_bulk")


async def post_otlp(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send logs by OTLP in JSON."""
    await post(daemon, b'{"resourceLogs":[%b]}' % b",".join(frames), "application/json", "/v1/logs")


async def post_splunk(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send events to Splunk's HEC."""
    await post(daemon, b"".join(frames), "application/json", "/services/collector")


async def gelf_tcp(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send a message and a NUL each."""
    await stream(daemon, "gelf_tcp", b"\0".join(frames) + b"\0")


async def asked(daemon: Daemon, listener: str, data: bytes, answered: bytes) -> None:
    """Send bytes over a connection of their own, and return when the answer ends so."""
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.ports[listener])
    writer.write(data)
    heard = b""
    async with asyncio.timeout(PATIENCE):
        while not heard.endswith(answered):
            more = await reader.read(1 << 16)
            assert more, f"{listener}: closed behind {heard[-100:]!r}"
            heard = heard[-1000:] + more
    writer.close()
    await writer.wait_closed()


async def relp(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send a message each, and wait for all responses."""
    sent = b"".join(b"%d syslog %d %b\n" % (number, len(frame), frame) for number, frame in enumerate(frames, 2))
    opening = b"1 open 32 relp_version=0\ncommands=syslog,x\n"
    await asked(daemon, "relp", opening + sent, b"\n%d rsp 6 200 OK\n" % (len(frames) + 1))


async def forward(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send messages, the last of which is to be acknowledged, and so all before it."""
    chunk = str(uuid4())
    data = b"".join(frames[:-1]) + b"\x94" + frames[-1][1:] + msgpack.packb({"chunk": chunk})
    await asked(daemon, "forward", data, msgpack.packb({"ack": chunk}))


async def forward_json(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send messages in JSON, the last of which is to be acknowledged."""
    chunk = str(uuid4()).encode()
    data = b"".join(frames)[:-1] + b',{"chunk":"%b"}]' % chunk
    await asked(daemon, "forward", data, b'{"ack":"%b"}' % chunk)


async def lumberjack(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send a window of events, and wait for its acknowledgement."""
    count = struct.pack(">I", len(frames))
    events = [b"2J" + struct.pack(">II", place, len(frame)) + frame for place, frame in enumerate(frames, 1)]
    await asked(daemon, "lumberjack", b"2W" + count + b"".join(events), b"2A" + count)


async def syslog_udp(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send a datagram each."""
    await datagrams(daemon, "syslog_udp", frames)


async def gelf_udp(daemon: Daemon, frames: Sequence[bytes]) -> None:
    """Send a datagram each."""
    await datagrams(daemon, "gelf_udp", frames)


async def datagrams(daemon: Daemon, listener: str, frames: Sequence[bytes]) -> None:
    """Send a datagram each, some at a time: so many fit into the kernel's smallest buffer."""
    end, transport = time.monotonic() + PATIENCE, listener.replace("_", "-")
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", daemon.ports[listener]))
        before = await received(daemon, transport)
        for first in range(0, len(frames), 100):
            for frame in frames[first : first + 100]:
                sock.send(frame)
            while await received(daemon, transport) < before + min(first + 100, len(frames)):
                assert time.monotonic() < end, "datagrams were lost"
                await asyncio.sleep(0.005)


async def received(daemon: Daemon, transport: str) -> int:
    """Return how many records have come."""
    async with daemon.http.get("/metrics", headers={"Accept": "application/json"}) as answer:
        counters = (await answer.json())["counters"]
    return int(counters.get(transport, {}).get("received", 0))


TRANSPORTS: Sequence[Transport] = (
    Transport("HTTP array", as_json, post_array, joined=True),
    Transport("HTTP lines", as_json, post_lines),
    Transport("TCP", as_json, tcp),
    Transport("syslog TCP lines", as_syslog, syslog_lines, SYSLOG),
    Transport("syslog TCP counted", as_syslog, syslog_counted, SYSLOG),
    Transport("syslog UDP", as_syslog, syslog_udp, SYSLOG, longest=60_000),
    Transport("RELP", as_syslog, relp, SYSLOG),
    Transport("Forward", as_forward, forward),
    Transport("Forward in JSON", as_forward_json, forward_json, joined=True),
    Transport("GELF UDP", as_json, gelf_udp, longest=60_000),
    Transport("GELF TCP", as_json, gelf_tcp, without=frozenset({"NUL"})),
    Transport("GELF HTTP", as_json, post_gelf, without=frozenset({"NUL"})),
    Transport("Lumberjack", as_json, lumberjack),
    Transport("Loki", as_loki, post_loki, joined=True),
    Transport("Elasticsearch", as_json, post_bulk),
    Transport("OTLP", as_otlp, post_otlp, joined=True),
    Transport("Splunk", as_splunk, post_splunk, joined=True),
)

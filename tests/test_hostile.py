"""Who means ill, or speaks another language, into every port of a whole daemon.

Each gets an answer, or an end, in bounded time and memory; what came is in quarantine, with the numbers, where it is of
a protocol of logs; and good neighbours do not notice.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import cramjam
import msgpack
import pytest

from logagg.collector import streams, wiring

if TYPE_CHECKING:
    from logagg.tests.daemons import RunningDaemon, Starter

#: Seconds that any of it may take.
PATIENCE = 30
#: All that speaks over connections, but HTTP.
STREAMS = ("tcp", "syslog_tcp", "relp", "forward", "gelf_tcp", "lumberjack")
#: What the daemon here takes of a body; what bombs hold; what may become of the memory meanwhile. In MiB.
BODY, BOMB, MEMORY = 1, 160, 100
MIB = 1 << 20

HTTP = b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: stranger\r\n\r\n"
CLIENT_HELLO = bytes.fromhex("16030100f5010000f10303") + b"\x5a" * 239
DIGITS = b"9" * 900
RELP = b"1 open 44 relp_version=0\nrelp_software=x\ncommands=syslog\n2 syslog 12 <13>a: b c d\n"


def bomb(window: int = zlib.MAX_WBITS | 16) -> bytes:
    """Return so many zeros as gzip, or as zlib."""
    machine, zeros = zlib.compressobj(1, zlib.DEFLATED, window), bytes(MIB)
    return b"".join([machine.compress(zeros) for _ in range(BOMB)]) + machine.flush()


GZIP, ZLIB = bomb(), bomb(zlib.MAX_WBITS)
ZSTD = bytes(cramjam.zstd.compress(bytes(BOMB * MIB), 1))
#: A block that says it holds so much.
SNAPPY = b"\x80\x80\x80\x50" + b"\0abc"
EVENTS = zlib.compress((struct.pack(">2sII", b"2J", 1, 1000) + b" " * 1000) * 20_000)
PACKED = msgpack.packb(["t", GZIP, {"chunk": "bomb", "compressed": "gzip"}])


class Case(NamedTuple):
    """What is sent over a connection, and what has to be said of it in quarantine."""

    listener: str
    data: bytes
    #: None: it is nothing to complain of, and becomes records.
    reason: str | None


CASES = {
    "a count that nothing follows": Case(
        "syslog_tcp", b"99999999 <13>a: b", "frame of 99999999 bytes, cut short after"
    ),
    "a count of 900 digits": Case("syslog_tcp", DIGITS + b" <13>a: b\n", None),
    "a line without end": Case("tcp", b'{"a":"' + b"x" * 3 * MIB, f"frame of {3 * MIB + 6} bytes, at most {MIB}"),
    "brackets without end": Case("tcp", b"[" * 3 * MIB, f"frame of {3 * MIB} bytes, at most {MIB}"),
    "a RELP frame that never comes": Case("relp", b"1 syslog 99999999 a", "RELP frame of 99999999 bytes, cut short"),
    "a RELP number of 900 digits": Case("relp", DIGITS + b" syslog 1 a\n", "not RELP"),
    "a RELP length of 900 digits": Case("relp", b"1 syslog " + DIGITS + b" a\n", "not RELP"),
    "a Lumberjack event of 4 GB": Case("lumberjack", b"2J" + b"\xff" * 8 + b"{}", "4294967293 bytes or more to come"),
    "a Lumberjack event of many pairs": Case("lumberjack", b"2D" + b"\xff" * 8, "of 4294967295 pairs, at most 1000"),
    "a Lumberjack bomb": Case(
        "lumberjack", b"2C" + struct.pack(">I", len(ZLIB)) + ZLIB, "0x0000 in a compressed frame"
    ),
    "a Lumberjack bomb of events": Case(
        "lumberjack",
        b"2C" + struct.pack(">I", len(EVENTS)) + EVENTS,
        f"compressed frame of {len(EVENTS)} bytes: one read holds more than {BODY * MIB}",
    ),
    "a Forward array of 4 G items": Case("forward", b"\x93\xa1t\xdd\xff\xff\xff\xff", "msgpack of 8 bytes, cut short"),
    "a Forward text of 4 GB": Case("forward", b"\x93\xdb\xff\xff\xff\xffabc", "msgpack of 9 bytes, cut short"),
    "a Forward bomb": Case("forward", PACKED, f"more than {BODY * MIB} bytes once decompressed"),
    "Forward nested without end": Case("forward", b"\x91" * 100_000, "nested too deeply"),
    "GELF without end": Case("gelf_tcp", b'{"short_message":"' + b"x" * 3 * MIB, f"bytes, at most {MIB}"),
    "RELP to syslog": Case("syslog_tcp", RELP, None),
    "syslog to RELP": Case("relp", b"<13>Nov 22 10:00:00 host app: text\n", "not RELP"),
    "syslog to Forward": Case("forward", b"<13>Nov 22 10:00:00 host app: text\n", "byte 0x3c where an array"),
    "syslog to Lumberjack": Case("lumberjack", b"<13>Nov 22 10:00:00 host app: text\n", "0x3c31 as a Lumberjack frame"),
    "Lumberjack to JSON": Case("tcp", b"2W\0\0\0\1" + b"2J\0\0\0\1\0\0\0\2{}\n", "JSON"),
    "msgpack to GELF": Case("gelf_tcp", b"\x93\xa1t\x01\x81\xa1a\x01\0", "JSON"),
    **{
        f"{name} to {listener}": Case(listener, data, None if listener == "syslog_tcp" else reason)
        for name, data, reason in (("HTTP", HTTP, "0x47|not RELP|JSON"), ("TLS", CLIENT_HELLO, "0x16|not RELP|JSON"))
        for listener in STREAMS
    },
}


async def said_to(daemon: RunningDaemon, listener: str, data: bytes) -> bytes:
    """Send bytes and the end of our side; return what is answered until the daemon closes."""
    reader, writer = await asyncio.open_connection(*daemon.listening[f"{listener}_listen"])
    heard = b""
    with suppress(ConnectionError):  # it may close before it has read all
        writer.write(data)
        await writer.drain()
        writer.write_eof()
        heard = await reader.read()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return heard


async def neighbours(daemon: RunningDaemon, text: str) -> int:
    """Have a good sender on each port send this; return how many records that is."""
    line = b'{"service":"good","message":"%b"}' % text.encode()
    syslog = b"<13>1 - host good - - - " + text.encode()
    event = [0, {"service": "good", "log": text}]
    said = {
        "tcp": line + b"\n",
        "syslog_tcp": b"%d %b" % (len(syslog), syslog),
        "relp": b"1 open 15 commands=syslog\n2 syslog %d %b\n" % (len(syslog), syslog),
        "gelf_tcp": line + b"\0",
        "lumberjack": b"2W\0\0\0\1" + struct.pack(">2sII", b"2J", 1, len(line)) + line,
        "forward": msgpack.packb(["good", [event], {"chunk": text}]),
    }
    for listener, data in said.items():
        await said_to(daemon, listener, data)
    async with daemon.http.post("/ingest", data=line) as answer:
        assert answer.status == 200
    return len(said) + 1


async def quarantine(url: str) -> list[str]:
    """Return the reasons, with the transports."""
    connection = await asyncpg.connect(url)
    try:
        return [" ".join(row) for row in await connection.fetch("select transport, reason from quarantine order by id")]
    finally:
        await connection.close()


def forget_peak() -> None:
    """Have the kernel measure the largest memory from now on, proc(5): clear_refs."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this user may not reset the largest memory of a process")


def memory(name: str) -> float:
    """Return the resident memory of this process, which the daemon is in, in MiB: VmRSS now, VmHWM the largest."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024


async def test_nobody_over_a_connection_costs_time_memory_or_a_neighbour(
    start_daemon: Starter, database_url: str
) -> None:
    daemon = await start_daemon(http_max_body=f"{BODY}MiB")
    count = await neighbours(daemon, "before")
    forget_peak()
    before = memory("VmRSS")
    for case in CASES.values():
        async with asyncio.timeout(PATIENCE):
            await said_to(daemon, case.listener, case.data)
    peak = memory("VmHWM")
    count += await neighbours(daemon, "behind")
    assert len(await daemon.logs(service="good", limit="1000")) == count
    said = await quarantine(database_url)
    for name, case in CASES.items():
        of = case.listener.replace("_", "-") + " "
        wanted = case.reason and [line for line in said if line.startswith(of) and re.search(case.reason, line)]
        assert wanted != [], f"{name}: {case.reason} is not in {said}"
    for text in (DIGITS.decode(), "stranger"):
        assert await daemon.logs(q=f'"{text}"'), text
    assert await daemon.metric("logagg_connections", transport="forward") == 0
    assert peak - before < MEMORY


#: Path, Content-Type, Content-Encoding, body, and what is answered.
BODIES = (
    ("/ingest", "application/json", "gzip", GZIP, 413),
    ("/ingest", "application/json", "deflate", ZLIB, 413),
    ("/ingest", "application/json", "zstd", ZSTD, 413),
    ("/ingest", "application/json", "snappy", SNAPPY, 413),
    ("/ingest", "application/json", "gzip, gzip", gzip.compress(GZIP), 413),
    ("/ingest", "application/json", "gzip", b"\x1f\x8b no gzip", 400),
    ("/ingest", "application/json", "unheard", b"{}", 400),
    ("/loki/api/v1/push", "application/x-protobuf", "", SNAPPY, 413),
    ("/loki/api/v1/push", "application/x-protobuf", "snappy", SNAPPY, 413),
    ("/_bulk", "application/x-ndjson", "gzip", GZIP, 413),
    ("/v1/logs", "application/x-protobuf", "gzip", GZIP, 413),
    ("/v1/logs", "application/x-protobuf", "", b"\x0a\xff\xff\xff\xff\x0f", 400),
    ("/services/collector", "application/json", "gzip", GZIP, 413),
    ("/gelf", "application/json", "", GZIP, 413),
)


async def test_bombs_over_http(start_daemon: Starter) -> None:
    daemon = await start_daemon(http_max_body=f"{BODY}MiB")
    count = await neighbours(daemon, "before")
    forget_peak()
    before = memory("VmRSS")
    for path, kind, encoding, body, status in BODIES:
        headers = {"Content-Type": kind} | ({"Content-Encoding": encoding} if encoding else {})
        async with asyncio.timeout(PATIENCE), daemon.http.post(path, data=body, headers=headers) as answer:
            assert answer.status == status, (path, encoding, await answer.text())
    peak = memory("VmHWM")
    count += await neighbours(daemon, "behind")
    assert len(await daemon.logs(limit="1000")) == count
    assert peak - before < MEMORY


async def test_bombs_and_broken_chunks_over_udp(
    start_daemon: Starter, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "_GELF_PATIENCE", 0.2)
    monkeypatch.setattr("logagg.collector.datagrams.EXPIRY", 0.1)
    daemon = await start_daemon(max_frame="64KiB", udp_receive_buffer="64KiB", buffer_bytes="1MiB")
    small = gzip.compress(bytes(8 * MIB))
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(tuple(daemon.listening["gelf_udp_listen"]))
        sock.send(small)
        for number in range(100):
            sock.send(b"\x1e\x0f%08d\0\2begun" % number)
            await asyncio.sleep(0)
        sock.send(b"\x1e\x0f12345678\x09\x02beyond")
        sock.send(b"\x1e\x0f")
        sock.send(b'{"service":"good","short_message":"whole"}')
    async with asyncio.timeout(PATIENCE):
        while await daemon.metric("logagg_records_quarantined_total", transport="gelf-udp") < 103:
            await asyncio.sleep(0.02)
    assert len(await daemon.logs(service="good")) == 1
    said = await quarantine(database_url)
    assert sum("not whole after 0.2 s: 1 of 2 chunks came, missing: 1" in line for line in said) == 100
    assert any("more than 65536 bytes once decompressed" in line for line in said)
    assert any("GELF chunk 9 of 2" in line for line in said)
    assert any("GELF chunk of 2 bytes, at least 12" in line for line in said)


async def test_chunks_that_never_end_are_held_in_bounded_memory(start_daemon: Starter, database_url: str) -> None:
    daemon = await start_daemon(udp_receive_buffer="64KiB")
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(tuple(daemon.listening["gelf_udp_listen"]))
        for number in range(20):
            sock.send(b"\x1e\x0f%08d\0\2" % number + bytes(8000))
            await asyncio.sleep(0.005)
    async with asyncio.timeout(PATIENCE):
        while await daemon.metric("logagg_records_quarantined_total", transport="gelf-udp") < 12:
            await asyncio.sleep(0.02)
    said = await quarantine(database_url)
    assert re.search(r"no room: \d+ bytes are not whole, at most 65536: 1 of 2 chunks came", said[0])


@pytest.mark.parametrize("said", [b"", b"\x96", msgpack.packb(["PING", "x" * 100])[:50]])
async def test_a_handshake_that_stalls_is_ended(
    said: bytes, start_daemon: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HANDSHAKE_PATIENCE", 0.2)
    daemon = await start_daemon(forward_shared_key="secret")
    reader, writer = await asyncio.open_connection(*daemon.listening["forward_listen"])
    writer.write(said)
    async with asyncio.timeout(PATIENCE):
        heard = await reader.read()
    assert msgpack.unpackb(heard)[0] == "HELO"
    writer.close()
    assert await daemon.metric("logagg_connections", transport="forward") == 0


async def test_who_drips_or_says_nothing_holds_nobody_up(daemon: RunningDaemon) -> None:
    begun = {
        "tcp": b'{"message":"dripped"}\n',
        "syslog_tcp": b"<13>1 - host app - - - dripped\n",
        "relp": b"1 open 15 commands=syslog\n2 syslog 30 <13>1 - host app - - - dripped\n",
        "gelf_tcp": b'{"short_message":"dripped"}\0',
        "lumberjack": b"2W\0\0\0\1" + struct.pack(">2sII", b"2J", 1, 21) + b'{"message":"dripped"}',
        "forward": msgpack.packb(["t", 0, {"log": "dripped"}]),
    }
    writers = {each: (await asyncio.open_connection(*daemon.listening[f"{each}_listen"]))[1] for each in begun}
    silent = [await asyncio.open_connection(*daemon.listening[f"{each}_listen"]) for each in begun for _ in range(20)]
    for place in range(max(map(len, begun.values()))):
        for listener, data in begun.items():
            writers[listener].write(data[place : place + 1])
        await asyncio.sleep(0.001)
        if place == 10:
            count = await neighbours(daemon, "meanwhile")
    async with asyncio.timeout(PATIENCE):
        while len(await daemon.logs(q="dripped")) < len(begun):
            await asyncio.sleep(0.02)
    assert len(await daemon.logs(service="good")) == count
    for writer in [*writers.values(), *(writer for _, writer in silent)]:
        writer.close()


async def test_who_does_not_read_its_answers_is_not_read_either(daemon: RunningDaemon) -> None:
    """Each answer repeats the name of its batch, so that few batches have long answers."""
    reader, writer = await asyncio.open_connection(*daemon.listening["forward_listen"], limit=1 << 16)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # which every transport of a socket has
    messages = 0
    with suppress(TimeoutError):
        while messages < 1000:
            writer.write(msgpack.packb(["t", 0, {"service": "deaf", "log": "x"}, {"chunk": f"{messages:0100000}"}]))
            messages += 1
            async with asyncio.timeout(1):
                await writer.drain()
    assert messages < 1000
    count = await neighbours(daemon, "meanwhile")
    assert len(await daemon.logs(service="good")) == count
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(PATIENCE):
        for number in range(messages):
            assert (await reader.readexactly(100_010)).endswith(b"%d" % number)
    writer.close()
    assert len(await daemon.logs(service="deaf", limit="1000")) == messages

"""Garbage into every port at once, while good neighbours send: what is not their fault must not cost them anything.

CHAOS_SEED repeats a run, as far as the order of events lets it.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
import struct
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import asyncpg

from .harness import PATIENCE, Daemon, Postgres, compare, resident
from .scenario import Outcome, Scenario
from .senders import Book, HttpSender, Sender, TcpSender, books_of, under_load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from logagg.tests.chaos.senders import Batch

#: Attackers of each port.
ATTACKERS = 3
#: The setting `memory` of the daemon, in MiB: so much more it may hold at the end (an open batch, caches, what the
#: allocator keeps), and so many more descriptors (connections to PostgreSQL are made when they are first needed).
MORE_MEMORY, MORE_FILES = 128, 8
#: Seconds of garbage before the memory is looked at.
WARM = 90
#: Records of a batch, and connections that queries have.
BATCH, READERS = 3000, 4

HTTP = b"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n"
#: Frames of all protocols, for those that speak them and those that do not.
FRAMES: Sequence[bytes] = (
    b'{"service":"garbage","level":"INFO","message":"a garbage line","k":{"a":[1,2.5,null,"\\u00e9"]}}\n',
    b"<13>1 2026-11-20T10:00:00Z host garbage 12 ID [a b=\"c\"] text\n",
    b"<13>Nov 20 10:00:00 host garbage[12]: text\n",
    b"44 <13>1 2026-11-20T10:00:00Z host garbage - - - text",
    HTTP + b'{"service":"g","message":""}',
    HTTP.replace(b"Content-Length: 27", b"Transfer-Encoding: chunked") + b"5\r\n[{}]\n\r\n0\r\n\r\n",
    HTTP.replace(b"Content-Type", b"Content-Encoding: gzip\r\nContent-Type") + b"\x1f\x8b\x08\x00garbage" * 3,
    b"GET /logs?q=%22garbage&limit=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /metrics HTTP/1.0\r\n\r\n",
    bytes.fromhex("16030100f5010000f10303") + b"\x5a" * 239,
    b"1 open 86 relp_version=0\nrelp_software=x,1,http://x\ncommands=syslog\n\n2 syslog 5 <13>a\n3 close 0\n",
    b"\x93\xa7garbage\x91\x92\xceJ\xb0\xc1\x00\x81\xa3log\xa4text\x81\xa5chunk\xa1a",
    b"2W\0\0\0\1" + b"2J\0\0\0\1\0\0\0\2{}",
    b"\x1e\x0f12345678\0\2" + b'{"version":"1.1","host":"h","short_message":"garbage"}',
    b'{"version":"1.1","host":"h","short_message":"garbage"}\0',
    b"9" * 900 + b" <13>garbage\n",
    b"99999999 <13>garbage",
    b"[" * 5000 + b"\n",
    b'{"a":' * 5000 + b"\n",
    b"\xff\xfe\0\0\xed\xa0\x80\n\\.\n",
)  # fmt: skip


def noise(draw: random.Random) -> bytes:
    """Return bytes without any sense."""
    return draw.randbytes(int(draw.paretovariate(0.7) * 20) % 60_000)


def mutated(draw: random.Random) -> bytes:
    """Return frames of which some bytes are flipped, left out, or come twice."""
    data = bytearray(b"".join(draw.choices(FRAMES, k=draw.randrange(1, 20))))
    for _ in range(draw.randrange(0, 12)):
        place, length = draw.randrange(len(data)), draw.randrange(1, 30)
        match draw.randrange(4):
            case 0:
                data[place] ^= 1 << draw.randrange(8)
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = data[place : place + length]
            case _:
                data[place:place] = draw.randbytes(length)
        data = data or bytearray(b"\n")
    return bytes(data[:60_000])


def drawn(draw: random.Random) -> bytes:
    """Return garbage of one kind or the other."""
    return noise(draw) if draw.random() < 0.4 else mutated(draw)


async def throw(draw: random.Random, port: int) -> None:
    """Send garbage at once, perhaps read what is answered, and go, perhaps without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(drawn(draw))
        await writer.drain()
        if draw.random() < 0.5:
            writer.write_eof()
            async with asyncio.timeout(0.5):
                await reader.read()
        if draw.random() < 0.3:
            writer.transport.abort()
    finally:
        writer.close()


async def drip(draw: random.Random, port: int) -> None:
    """Send garbage byte by byte, and leave it there."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for byte in drawn(draw)[:80]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.01)
        await asyncio.sleep(draw.random())
    finally:
        writer.close()


async def open_many(draw: random.Random, port: int) -> None:
    """Open connections, begin something on some of them, and reset all."""
    socks = []
    loop = asyncio.get_running_loop()
    try:
        for _ in range(30):
            socks.append(sock := socket.socket())
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await loop.sock_connect(sock, ("127.0.0.1", port))
            if draw.random() < 0.5:
                await loop.sock_sendall(sock, drawn(draw)[:50])
        await asyncio.sleep(draw.random())
    finally:
        for sock in socks:
            sock.close()


async def datagrams(draw: random.Random, port: int) -> None:
    """Send some datagrams, empty ones and large ones too."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        for _ in range(draw.randrange(1, 20)):
            sock.send(drawn(draw) if draw.random() < 0.9 else b"")
    await asyncio.sleep(0.05)


class Attack(Protocol):
    """One way to misuse a port."""

    async def __call__(self, draw: random.Random, port: int) -> None:
        """Do it once."""


class Attacks:
    """What was done."""

    def __init__(self, seed: int, ports: dict[str, int]) -> None:
        self._seed = seed
        self._ports = ports
        self.count = 0

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        """Attack every port meanwhile."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._attack(setting, port, number))
                for setting, port in self._ports.items()
                for number in range(ATTACKERS)
            ]
            yield
            for task in tasks:
                task.cancel()

    async def _attack(self, setting: str, port: int, number: int) -> None:
        draw = random.Random(f"{self._seed} {setting} {number}")  # noqa: S311 - to be repeated
        ways: list[Attack] = [datagrams] if "udp" in setting else [throw, throw, throw, drip, open_many]
        while True:
            with suppress(OSError, TimeoutError, EOFError):
                await draw.choice(ways)(draw, port)
            self.count += 1
            await asyncio.sleep(draw.random() * 0.1)


class SyslogSender(TcpSender):
    """The same records as syslog, in lines or by octet count."""

    async def deliver(self, batch: Batch) -> bool:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.daemon.ports["syslog_tcp"])
        frames = [b"<13>1 - host %b - - - record %d is sent" % (self.book.name.encode(), n) for n in batch.numbers]
        counted = batch.numbers[0] % 2
        body = b"".join(b"%d %b" % (len(frame), frame) if counted else frame + b"\n" for frame in frames)
        return await super().deliver(batch._replace(body=body))


class Held(NamedTuple):
    """What a process holds."""

    #: Resident memory of it and those below it, in MiB.
    memory: float
    files: int
    #: Open connections, as it counts them.
    connections: int


async def held(daemon: Daemon) -> Held:
    """Return what the daemon holds, once it has noticed that connections are gone."""
    end = time.monotonic() + PATIENCE
    # One is the question itself.
    while (connections := int((await daemon.metrics())["connections"])) > 1 and time.monotonic() < end:
        await asyncio.sleep(0.1)
    return Held(resident(daemon.pid), len(list(Path(f"/proc/{daemon.pid}/fd").iterdir())), connections)


def senders_to(daemon: Daemon, rate: float) -> list[Sender]:
    """Return good neighbours."""
    kinds = ((HttpSender, "HTTP"), (TcpSender, "TCP"), (SyslogSender, "syslog"))
    return [kind(Book(name), daemon, rate=rate) for kind, name in kinds]


async def warmed_up(daemon: Daemon, url: str) -> list[Sender]:
    """Have the daemon do once all that it does, packing too, so that it holds what it needs for that."""
    senders = senders_to(daemon, 2000)
    async with under_load(senders):
        await asyncio.sleep(BATCH / 6000 + 0.3)
    await daemon.drained()
    await packed(daemon, url)
    await daemon.exported()
    await asyncio.gather(*(ask(daemon) for _ in range(READERS)))
    return senders


async def ask(daemon: Daemon) -> None:
    """Ask a question."""
    async with daemon.http.get("/logs", params={"q": "record sent", "limit": "1000"}) as answer:
        assert answer.status == 200, await answer.text()


async def packed(daemon: Daemon, url: str) -> None:
    """Return when no closed batch waits to be packed, and one is."""
    waiting = (
        "select count(*) filter (where packed_at is null) > 0 or count(*) = 0 from batches where closed_at notnull"
    )
    end = time.monotonic() + PATIENCE
    sql = await asyncpg.connect(url)
    try:
        while await sql.fetchval(waiting):
            assert time.monotonic() < end, f"batches are not packed: {daemon.said()}"
            await asyncio.sleep(0.05)
    finally:
        await sql.close()


async def attacked(folder: Path, short: bool) -> Outcome:
    """Throw garbage at every port, and look what it cost."""
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1 << 32))  # noqa: S311 - no secret
    async with (
        Postgres(folder) as postgres,
        Daemon(folder, postgres.url, memory=f"{MORE_MEMORY}MiB", batch_records=str(BATCH)) as daemon,
    ):
        ports = {name: port for name, port in daemon.ports.items() if await bound(daemon, name)}
        attacks, senders, warming = Attacks(seed, ports), senders_to(daemon, 300), await warmed_up(daemon, postgres.url)
        start = await held(daemon)
        if not short:  # until its memory has found its size: what grows behind that is a leak
            warming += senders_to(daemon, 300)
            async with under_load(warming[-len(senders) :]), attacks.under_way():
                await asyncio.sleep(WARM)
            await daemon.drained()
        before = await held(daemon)
        async with under_load(senders), attacks.under_way():
            await asyncio.sleep(3 if short else 60)
        await daemon.drained()
        await packed(daemon, postgres.url)
        after = await held(daemon)
        books = books_of([*warming, *senders])
        outcome = compare(books, await found(postgres.url, [book.name for book in books]))
        leaks = await daemon.leaks()
        metrics, log = await daemon.metrics(), daemon.log.read_text(errors="replace")
        status = daemon.process.poll() if daemon.process else None
    broken = [*outcome.broken, *leaks]
    if status is not None:
        broken.append(f"the daemon ended with {status}")
    if raised := log.count("Traceback (most recent call last)"):
        broken.append(
            f"{raised} exceptions are in the log, the last: {log[log.rindex('Traceback') :].splitlines()[0][-500:]}"
        )
    if after.memory > start.memory + 2 * MORE_MEMORY:
        broken.append(f"{after.memory:.0f} MiB of memory, {start.memory:.0f} before any garbage")
    if after.memory > before.memory + MORE_MEMORY:
        broken.append(f"{after.memory:.0f} MiB of memory, {before.memory:.0f} before")
    if after.files > before.files + MORE_FILES:
        broken.append(f"{after.files} descriptors are open, {before.files} before")
    if after.connections > before.connections:
        broken.append(f"{after.connections} connections are open, {before.connections} before")
    figures: dict[str, int | float | str] = {
        "seed": seed,
        "ports": ", ".join(ports),
        "attacks": attacks.count,
        "records of garbage": int(metrics["records_received_total"]) - sum(len(book.sent) for book in books),
        "of them in quarantine": int(metrics["records_quarantined_total"]),
        "memory before any garbage, MiB": f"{start.memory:.0f} (may be {2 * MORE_MEMORY} more at the end)",
        "memory before and after, MiB": f"{before.memory:.0f}, {after.memory:.0f} (may be {MORE_MEMORY} more)",
        "descriptors": f"{before.files}, {after.files} (may be {MORE_FILES} more)",
        "connections": f"{before.connections}, {after.connections}",
        **{name: figure for name, figure in outcome.figures.items() if name != "found"},
        "books": "do not balance" if leaks else "balance",
    }
    return Outcome(figures, broken)


async def bound(daemon: Daemon, listener: str) -> bool:
    """Tell whether the daemon listens there: what is off by default stays off."""
    kind = "udp" if "udp" in listener else "tcp"
    lines = Path(f"/proc/{daemon.pid}/net/{kind}").read_text().splitlines()
    return f"{daemon.ports[listener]:04X}" in {line.split()[1].partition(":")[2] for line in lines}


async def found(url: str, services: Sequence[str]) -> list[int]:
    """Return the numbers of the neighbours' records. Garbage may pass for records, but not of these services."""
    sql = await asyncpg.connect(url)
    try:
        rows = await sql.fetch("select message from logs where service = any($1)", services)
    finally:
        await sql.close()
    numbers = [re.fullmatch(r"record (\d+) is sent", row["message"]) for row in rows]
    return [int(number[1]) for number in numbers if number]


SCENARIOS = [
    Scenario(
        "garbage",
        f"noise, broken frames, foreign protocols, slow and half-open connections by {ATTACKERS} attackers into every"
        " port for 60 s",
        "no crash, no leak; good neighbours lose nothing; the books balance",
        attacked,
    )
]

"""An ack tells the truth, over RELP, Forward and Lumberjack: it is sent for what is durable, and for nothing else."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from logagg.collector.units import Address

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from logagg.tests.daemons import RunningDaemon, Starter
    from logagg.tests.processes import free_port, process, wait_ready
    from logagg.tests.programs import server
else:
    from processes import free_port, process, wait_ready
    from programs import server

PATIENCE = 60
OFFERS = b"200 OK\nrelp_version=0\nrelp_software=logagg\ncommands=syslog"


class Connection:
    """A connection of a sender that sends batches of texts; `answer` is what it gets for one that is durable."""

    setting = ""
    #: Whether a batch that comes again is stored once.
    once = False

    async def open(self, address: Address) -> None:
        self.reader, self.writer = await asyncio.open_connection(*address)

    def frames(self, texts: list[str]) -> tuple[bytes, bytes]:
        """Return how a batch is sent, and its answer."""
        raise NotImplementedError

    def send(self, texts: list[str]) -> None:
        sent, self.answer = self.frames(texts)
        self.writer.write(sent)

    async def acknowledged(self) -> None:
        """Wait for the answer. Raises OSError or EOFError when the connection ends before."""
        async with asyncio.timeout(PATIENCE):
            assert await self.reader.readexactly(len(self.answer)) == self.answer

    def cut(self) -> None:
        self.writer.transport.abort()


class Relp(Connection):
    setting = "relp_listen"

    async def open(self, address: Address) -> None:
        await super().open(address)
        self.number = 1
        offers = b"relp_version=0\nrelp_software=test,1,http://x\ncommands=syslog"
        self.writer.write(b"1 open %d %b\n" % (len(offers), offers))
        self.answer = b"1 rsp %d %b\n" % (len(OFFERS), OFFERS)
        await self.acknowledged()

    def frames(self, texts: list[str]) -> tuple[bytes, bytes]:
        numbers = range(self.number + 1, self.number + 1 + len(texts))
        self.number += len(texts)
        messages = [b"<13>Oct 11 22:14:15 h app: " + text.encode() for text in texts]
        sent = b"".join(b"%d syslog %d %b\n" % (n, len(m), m) for n, m in zip(numbers, messages, strict=True))
        return sent, b"".join(b"%d rsp 6 200 OK\n" % number for number in numbers)


class Forward(Connection):
    setting = "forward_listen"
    once = True

    def frames(self, texts: list[str]) -> tuple[bytes, bytes]:
        events = [[1791756855, {"message": text}] for text in texts]
        chunk = f"chunk of {texts[0]}"
        return msgpack.packb(["app", events, {"chunk": chunk}]), msgpack.packb({"ack": chunk})


class Lumberjack(Connection):
    setting = "lumberjack_listen"

    def frames(self, texts: list[str]) -> tuple[bytes, bytes]:
        events = [b'{"message":"%b"}' % text.encode() for text in texts]
        frames = [struct.pack(">2sII", b"2J", n, len(event)) + event for n, event in enumerate(events, 1)]
        return struct.pack(">2sI", b"2W", len(texts)) + b"".join(frames), struct.pack(">2sI", b"2A", len(texts))


KINDS = [Relp, Forward, Lumberjack]
kinds = pytest.mark.parametrize("kind", KINDS)


async def connect(daemon: RunningDaemon, kind: type[Connection]) -> Connection:
    connection = kind()
    await connection.open(daemon.listening[kind.setting])
    return connection


def texts(name: str, count: int = 10) -> list[str]:
    return [f"{name} {number}" for number in range(count)]


async def until_waiting(daemon: RunningDaemon, records: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await daemon.metric("logagg_buffer_records") < records:
            await asyncio.sleep(0.01)


async def stored(daemon: RunningDaemon) -> Counter[str]:
    async with asyncio.timeout(PATIENCE):
        while await daemon.metric("logagg_journal_records"):
            await asyncio.sleep(0.05)
    return Counter(record["message"] for record in await daemon.logs(limit="10000"))


async def book(daemon: RunningDaemon, kind: type[Connection]) -> dict[str, int]:
    """Return what became of the records of a transport: the sum is what it received."""
    async with daemon.http.get("/metrics", headers={"Accept": "application/json"}) as answer:
        found: dict[str, Any] = (await answer.json())["counters"][kind.setting.removesuffix("_listen")]
    received = found.pop("received") + found.pop("replayed", 0)
    counts = {name: found[name] for name in ("stored", "duplicate", "journaled", "quarantined") if found.get(name)}
    assert received == sum(counts.values())
    return counts


async def test_nobody_is_told_anything_while_it_is_not_stored(start_daemon: Starter) -> None:
    with server() as postgres:
        daemon = await start_daemon(database_url=postgres.url, journal_size="0")
        connections = {kind: await connect(daemon, kind) for kind in KINDS}
        postgres.stop()
        for kind, connection in connections.items():
            connection.send(texts(kind.setting))
        await until_waiting(daemon, 30)
        for connection in connections.values():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connection.reader.read(1), 0.1)
        postgres.start()
        for connection in connections.values():
            await connection.acknowledged()
            connection.cut()
        assert await stored(daemon) == Counter(text for kind in KINDS for text in texts(kind.setting))


async def test_what_is_in_the_journal_is_acknowledged_and_a_chunk_that_comes_again_is_stored_once(
    start_daemon: Starter,
) -> None:
    with server() as postgres:
        daemon = await start_daemon(database_url=postgres.url)
        connections = {kind: [await connect(daemon, kind) for _ in range(2)] for kind in KINDS}
        postgres.stop()
        for kind, both in connections.items():
            for connection in both * 2:
                connection.send(texts(kind.setting))
                await connection.acknowledged()
        postgres.start()
        expected = {text: 1 if kind.once else 4 for kind in KINDS for text in texts(kind.setting)}
        assert await stored(daemon) == expected
        for kind, both in connections.items():
            became = {"stored": 10, "duplicate": 30} if kind.once else {"stored": 40}
            assert await book(daemon, kind) == {**became, "journaled": 40}
            for connection in both:
                connection.cut()


async def test_a_chunk_over_several_connections_at_once_is_stored_once(daemon: RunningDaemon) -> None:
    connections = [await connect(daemon, Forward) for _ in range(5)]
    for connection in connections:
        sent, answer = connection.frames(texts("line"))
        connection.writer.write(sent * 2)
        connection.answer = answer * 2
    for connection in connections:
        await connection.acknowledged()
    assert await stored(daemon) == Counter(texts("line"))
    assert await book(daemon, Forward) == {"stored": 10, "duplicate": 90}
    for connection in connections:
        connection.cut()


@kinds
async def test_what_comes_again_because_its_connection_died_before_the_ack_is_counted(
    daemon: RunningDaemon, sql: asyncpg.Connection, kind: type[Connection]
) -> None:
    async with sql.transaction():
        await sql.execute("lock table logs in access exclusive mode")
        first = await connect(daemon, kind)
        first.send(texts("line"))
        await until_waiting(daemon, 10)
        first.cut()
        second = await connect(daemon, kind)
        second.send(texts("line"))
        await until_waiting(daemon, 20)
    await second.acknowledged()
    assert await stored(daemon) == Counter(dict.fromkeys(texts("line"), 1 if kind.once else 2))
    assert await book(daemon, kind) == ({"stored": 10, "duplicate": 10} if kind.once else {"stored": 20})
    second.cut()


class Insistent:
    """Sends batch after batch, each until it is acknowledged, over one connection as long as that lives."""

    def __init__(self, kind: type[Connection], port: int) -> None:
        self.kind = kind
        self.acknowledged: list[str] = []
        self._port = port
        self._connection: Connection | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            batch = texts(f"{self.kind.setting} {len(self.acknowledged)}", 20)
            while not await self._sent(batch):
                await asyncio.sleep(0.02)
            self.acknowledged += batch
        if self._connection:
            self._connection.cut()

    async def _sent(self, batch: list[str]) -> bool:
        try:
            if self._connection is None:
                connection = self.kind()
                await connection.open(Address("127.0.0.1", self._port))
                self._connection = connection
            self._connection.send(batch)
            await self._connection.acknowledged()
        except (OSError, EOFError):
            if self._connection:
                self._connection.cut()
            self._connection = None
            return False
        return True

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.acknowledged) < count:
                await asyncio.sleep(0.02)


async def test_a_sender_that_goes_without_waiting_for_an_answer_is_let_go(
    daemon: RunningDaemon, sql: asyncpg.Connection
) -> None:
    async with sql.transaction():
        await sql.execute("lock table logs in access exclusive mode")
        for number in range(10):  # as fluent-logger does, which asks for no ack
            _, writer = await asyncio.open_connection(*daemon.listening["forward_listen"])
            writer.write(msgpack.packb(["app", 1791756855, {"message": f"line {number}"}]))
            writer.close()
            await writer.wait_closed()
        await until_waiting(daemon, 10)
    assert await stored(daemon) == Counter(texts("line"))
    for _ in range(100):
        if not (left := await daemon.metric("logagg_connections", transport="forward")):
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{left:g} connections are still open")


async def test_what_a_stopping_daemon_does_not_acknowledge_is_taken_by_the_next(
    database_url: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    ports = {setting: free_port() for setting in ("http_listen", *(kind.setting for kind in KINDS))}
    settings = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    settings |= {"database_url": database_url, "data_dir": str(tmp_path)}
    senders = [Insistent(kind, ports[kind.setting]) for kind in KINDS]
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sender.run(stopping)) for sender in senders]
        for _ in range(3):
            with process(**settings) as daemon:
                await asyncio.to_thread(wait_ready, ports["http_listen"])
                for sender in senders:
                    await sender.until(len(sender.acknowledged) + 100)
                daemon.terminate()
                assert await asyncio.to_thread(daemon.wait, PATIENCE) == 0
        with process(**settings) as daemon:
            stopping.set()
            await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
            daemon.terminate()
            assert await asyncio.to_thread(daemon.wait, PATIENCE) == 0
    found = Counter(record["message"] for record in await sql.fetch("select message from logs"))
    for sender in senders:
        assert set(sender.acknowledged) <= found.keys()
        if sender.kind.once:
            assert {found[text] for text in sender.acknowledged} == {1}
    assert found.keys() == {text for sender in senders for text in sender.acknowledged}

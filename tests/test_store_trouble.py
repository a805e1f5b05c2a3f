"""The store in trouble, against a real PostgreSQL: lost connections, killed servers, dead owners."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from logagg.protocols.record import Reject
from logagg.sinks.embedded import EmbeddedPostgres
from logagg.sinks.errors import is_poison
from logagg.sinks.frames import SCHEMA
from logagg.sinks.store import Store, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from logagg.tests.batches import in_memory, messages, records
else:
    from batches import in_memory, messages, records

NOW = datetime.now(UTC)
WEEK = timedelta(days=7)
ALL = list(SCHEMA)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.DiskFullError("53100"),
        asyncpg.TooManyConnectionsError("53300"),
        asyncpg.CannotConnectNowError("57P03"),
        asyncpg.AdminShutdownError("57P01"),
        asyncpg.DeadlockDetectedError("40P01"),
        asyncpg.SerializationError("40001"),
        asyncpg.ReadOnlySQLTransactionError("25006"),
        asyncpg.QueryCanceledError("57014"),
        asyncpg.UndefinedTableError("42P01"),
        asyncpg.InsufficientPrivilegeError("42501"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.ConnectionDoesNotExistError("08003"),
        ConnectionResetError(),
        TimeoutError(),
    ],
    ids=lambda e: type(e).__name__,
)
def test_trouble_of_the_server_is_not_poison(error: Exception) -> None:
    assert not is_poison(error)


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """A server of this test alone, to be killed."""
    folder = Path(tempfile.mkdtemp(prefix="logagg-test-"))
    server = EmbeddedPostgres(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


def kill(server: EmbeddedPostgres) -> None:
    """Immediate shutdown: like a crash, and all its processes are gone with it."""
    pid = int((server.cluster / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGQUIT)
    while not server._gone(pid):
        pass


async def test_a_killed_server_costs_nothing_acknowledged(server: EmbeddedPostgres) -> None:
    store = await Store.open(server.url)
    await store.write(records("before"))
    kill(server)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.write(records("lost"))
        with pytest.raises(StoreUnavailable):
            await store.ping()
        with pytest.raises(StoreUnavailable):
            await store.batches()
        with pytest.raises(StoreUnavailable):
            await store.maintenance(WEEK)
    server.start()
    await store.ping()
    await store.write(records("after"))
    assert (await in_memory(store))["message"].to_list() == ["before", "after"]
    await store.maintenance(WEEK)
    await store.close()
    again = await Store.open(server.url)
    (batch,) = await again.batches()
    assert (await again.load(batch, ["message"])).frame["message"].to_list() == ["before", "after"]
    await again.close()


async def test_closing_without_a_server_does_not_hang(server: EmbeddedPostgres) -> None:
    store = await Store.open(server.url)
    await store.write(records("a"))
    kill(server)
    await store.close()
    server.start()
    again = await Store.open(server.url)
    assert [(b.open, b.count) for b in await again.batches()] == [(False, 1)]
    await again.close()


async def test_no_server_is_unavailable_and_no_database_is_an_error(postgres_url: str, database_url: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"^PostgreSQL does not answer: .*(refused|Connect call failed)") as away:
        await Store.open("postgresql://logagg:s3cret@127.0.0.1:1/logagg")
    assert "s3cret" not in str(away.value)
    with pytest.raises(StoreError, match="does not exist") as error:
        await Store.open(database_url + "x" if "?" not in database_url else database_url.replace("?", "x?", 1))
    assert not isinstance(error.value, StoreUnavailable)


@contextlib.asynccontextmanager
async def no_commits(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Let no write get further than its COPY; gives the connection that holds it up."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("lock table quarantine in access exclusive mode")
            yield connection
    finally:
        await connection.close()


async def waiting(connection: asyncpg.Connection) -> None:
    """Return when a write is held up."""
    blocked = "select count(*) from pg_stat_activity where pg_backend_pid() = any (pg_blocking_pids(pid))"
    while not await connection.fetchval(blocked):
        await asyncio.sleep(0.01)


A_REJECT = [Reject(NOW, "tcp", "::1", "reason", b"raw")]


async def test_a_terminated_connection_writes_nothing_and_is_replaced(database_url: str, store: Store) -> None:
    async with no_commits(database_url) as holder:
        write = asyncio.create_task(store.write(records("a"), A_REJECT))
        await waiting(holder)
        await holder.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where application_name = 'logagg' and datname = current_database()"
        )
    with pytest.raises(StoreUnavailable, match=r"^PostgreSQL (says: AdminShutdown|does not answer: Connection)"):
        await write
    assert await store.batches() == []
    assert (await store.write(records("a"), A_REJECT)).stored == 1
    assert (await in_memory(store))["message"].to_list() == ["a"]


async def test_a_cancelled_write_is_whole_in_memory_and_in_rows(
    database_url: str, store: Store, sql: asyncpg.Connection
) -> None:
    async with no_commits(database_url) as holder:
        write = asyncio.create_task(store.write(records("cancelled"), A_REJECT))
        await waiting(holder)
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
    for i in range(4):
        await store.write(records(str(i)))
    await store.close()
    assert await messages(sql) == ["cancelled", "0", "1", "2", "3"]
    assert tuple(await sql.fetchrow("select count, closed_at is null from batches")) == (5, False)


async def test_a_batch_is_closed_behind_the_writes_into_it(database_url: str, sql: asyncpg.Connection) -> None:
    store = await Store.open(database_url, batch_records=1)
    async with no_commits(database_url) as holder:
        first = asyncio.create_task(store.write(records("a"), A_REJECT))
        await waiting(holder)
        await store.write(records("b"))
        assert [n for (n,) in await sql.fetch("select count from batches where closed_at is not null")] == []
    await first
    await store.close()
    assert [n for (n,) in await sql.fetch("select count from batches")] == [1, 1]


class Proxy:
    """A port in front of the server, which cuts a connection at its COMMIT."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self.url = ""
        #: Cut the next COMMIT: `before` or `after` the server has it.
        self.cut: str | None = None

    async def server(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        query = {name: values[0] for name, values in parse_qs(self._parts.query).items()}
        host = query.get("host") or self._parts.hostname or "127.0.0.1"
        port = int(query.get("port") or self._parts.port or 5432)
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await self.server()

        async def answers() -> None:
            while data := await up_reader.read(65536):
                if self.cut != "now":
                    writer.write(data)
            writer.close()

        back = asyncio.create_task(answers())
        try:
            while data := await reader.read(65536):
                commit = self.cut and b"COMMIT;\0" in data
                if commit and self.cut == "before":
                    break
                if commit:
                    self.cut = "now"
                up_writer.write(data)
                if commit:
                    await asyncio.sleep(0.1)
                    break
        finally:
            if self.cut:
                self.cut = None
                writer.transport.abort()
            up_writer.close()
            await back
            writer.close()

    async def __aenter__(self) -> "Proxy":
        self._listener = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        login = self._parts.netloc.rpartition("@")[0]
        self.url = self._parts._replace(netloc=f"{login}@127.0.0.1:{port}", query="sslmode=disable").geturl()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await asyncio.sleep(0.05)


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(database_url) as proxy:
        yield proxy


async def test_a_commit_whose_answer_is_lost_is_a_success(proxy: Proxy, sql: asyncpg.Connection) -> None:
    store = await Store.open(proxy.url)
    proxy.cut = "after"
    assert (await store.write(records("a"), A_REJECT)).stored == 1
    assert proxy.cut is None
    assert (await in_memory(store))["message"].to_list() == ["a"]
    proxy.cut = "after"
    assert (await store.write([], A_REJECT)).stored == 0
    await store.close()
    assert await messages(sql) == ["a"]
    assert await sql.fetchval("select count(*) from quarantine") == 2


async def test_a_commit_that_never_arrived_wrote_nothing(proxy: Proxy, sql: asyncpg.Connection) -> None:
    store = await Store.open(proxy.url)
    proxy.cut = "before"
    with pytest.raises(StoreUnavailable, match="connection lost in COMMIT of transaction"):
        await store.write(records("a"), A_REJECT)
    assert (await store.write(records("a"), A_REJECT)).stored == 1
    assert (await in_memory(store))["message"].to_list() == ["a"]
    await store.close()
    assert await messages(sql) == ["a"]
    assert await sql.fetchval("select count(*) from quarantine") == 1


# Several stores


async def test_two_stores_on_one_database(database_url: str, store: Store) -> None:
    other = await Store.open(database_url)
    await asyncio.gather(store.write(records("mine")), other.write(records("theirs")))
    await asyncio.gather(store.maintenance(WEEK), other.maintenance(WEEK))
    found = await store.batches()
    assert sorted([b.open for b in found]) == [True, True]
    loaded = [(await store.load(b, ["message"])).frame["message"].sort().to_list() for b in found]
    assert sorted(loaded) == [["mine"], ["theirs"]]
    await other.close()
    assert sorted(b.open for b in await store.batches()) == [False, True]


async def test_a_batch_of_a_crashed_daemon_is_closed_by_the_next(database_url: str, sql: asyncpg.Connection) -> None:
    program = """
import asyncio, os, sys
from datetime import UTC, datetime
from logagg.protocols.record import Record
from logagg.sinks.store import Store

async def main():
    store = await Store.open(sys.argv[1])
    time = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    await store.write([Record(time, time, 6, None, None, h, "s", None, "m", *[None] * 4) for h in ("a", "b", None)])
    await store._room(1)
    os._exit(7)

asyncio.run(main())
"""
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program, database_url], check=False)
    assert done.returncode == 7
    time = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    async with gone(sql):
        store = await Store.open(database_url)
    (batch,) = await store.batches()
    hosts = frozenset(["a", "b", None])
    assert batch[1:10] == (False, 3, time, time, time, time, frozenset(["s"]), hosts, frozenset([None]))
    assert (await store.load(batch, ["host"])).frame["host"].to_list() == ["a", "b", None]
    await store.close()


@contextlib.asynccontextmanager
async def gone(sql: asyncpg.Connection) -> AsyncIterator[None]:
    """Wait until the server has noticed that all stores are away."""
    others = "select count(*) from pg_stat_activity where application_name = 'logagg' and datname = current_database()"
    while await sql.fetchval(others):
        await asyncio.sleep(0.01)
    yield


async def test_an_owner_taken_for_dead_goes_on_in_a_new_batch(database_url: str, store: Store) -> None:
    await store.write(records("a"))
    await store._owner.leave()
    other = await Store.open(database_url)
    assert [(b.open, b.count) for b in await other.batches()] == [(False, 1)]
    await asyncio.gather(store.write(records("b")), store.write(records("c"), A_REJECT))
    found = await store.batches()
    assert [(b.open, b.count) for b in found] == [(True, 2), (False, 1)]
    loaded = [(await store.load(b, ["message"])).frame["message"].sort().to_list() for b in found]
    assert loaded == [["b", "c"], ["a"]]
    await store.ping()
    assert (await other.maintenance(WEEK)).adopted == []
    await other.close()


async def test_an_empty_batch_of_a_dead_owner_is_deleted(database_url: str, sql: asyncpg.Connection) -> None:
    await sql.execute("insert into batches (owner) values (1000000)")
    store = await Store.open(database_url)
    assert await sql.fetchval("select count(*) from batches") == 0
    await store.close()

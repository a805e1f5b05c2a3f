"""Questions that read from a streaming replica, as it should be, behind, away, and the wrong one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import pytest
from click.testing import CliRunner

from logagg.cli.main import cli
from logagg.query.answers import Filter
from logagg.query.engine import Engine
from logagg.sinks import programs
from logagg.sinks.errors import StoreUnavailable
from logagg.sinks.replica import Replica
from logagg.sinks.store import Store
from logagg.sinks.trimming import Keep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import asyncpg

    from logagg.tests.batches import DAY, connection, record
    from logagg.tests.daemons import Lines, Starter
else:
    from batches import DAY, connection, record


class Standby:
    """A streaming replica of the tests' server, which can be stopped and started."""

    def __init__(self, primary: str, folder: Path) -> None:
        self._folder = folder
        self._user = programs.account()
        self._bin = programs.place(folder, self._user) / "pginstall" / "bin"
        self._process: subprocess.Popen[bytes] | None = None
        backup = [str(self._bin / "pg_basebackup"), f"--dbname={primary}", f"--pgdata={self.cluster}", "-R", "-cfast"]
        done = subprocess.run(backup, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if self._user:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, self._user.uid, self._user.gid)

    @property
    def cluster(self) -> Path:
        return self._folder / "cluster"

    def url(self, database_url: str) -> str:
        """The address of the copy of a database."""
        query = f"host={quote(str(self._folder), safe='/')}&port=5432"
        return urlsplit(database_url)._replace(netloc="logagg@", query=query).geturl()

    def start(self) -> None:
        """Start it; return when it takes questions."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.cluster, "-k", self._folder, "-c", "listen_addresses="],
                stdout=log, stderr=log, cwd=self.cluster, **programs.identity(self._user),
            )  # fmt: skip
        status = self.cluster / "postmaster.pid"
        end = time.monotonic() + 60
        while not (status.exists() and status.read_text().split()[-1:] in (["standby"], ["ready"])):  # empty at first
            assert time.monotonic() < end, (self._folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """End it, and every connection to it."""
        if self._process:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
            self._process = None


@pytest.fixture(scope="module")
def standby(postgres_url: str) -> Iterator[Standby]:
    folder = Path(tempfile.mkdtemp(prefix="logagg-test-"))  # not pytest's: the server runs as another user
    folder.chmod(0o700)
    try:
        standby = Standby(postgres_url, folder)
    except programs.EmbeddedError as error:
        shutil.rmtree(folder)
        pytest.skip(str(error))
    try:
        standby.start()
        yield standby
    finally:
        standby.stop()
        shutil.rmtree(folder)


class Asked:
    """A store with a replica, and an engine that asks it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.engine = Engine(store, timeout=30)

    async def pack(self, *services: str) -> None:
        """Write and pack a batch of 300 records of each service."""
        for service in services:
            await self.store.write([record(service=service, message=f"{service} {n}") for n in range(300)])
            await self.store.roll()
        await self.store.pack_now()

    async def answers(self) -> dict[str, int]:
        """Ask by summaries, by words, and for records; return how many records of each service there are."""
        rows = (await self.engine.aggregate(Filter(), ["service"])).rows
        counts = {row["service"]: row["count"] for row in rows}
        assert sum(bin_.count for bin_ in (await self.engine.histogram(Filter())).bins) == sum(counts.values())
        for service, count in counts.items():
            found = await self.engine.search(Filter(q=service), limit=1000, count=True)
            assert found.total == count == len(found.records)
            assert {each["message"] for each in found.records} == {f"{service} {n}" for n in range(count)}
        return counts


async def caught_up(standby: Standby, sql: asyncpg.Connection) -> None:
    """Return when the replica has what the primary has now."""
    lsn = await sql.fetchval("select pg_current_wal_lsn()::text")
    async with connection(standby.url("postgresql:///postgres")) as copy:
        end = time.monotonic() + 60
        while not await copy.fetchval("select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", lsn):
            assert time.monotonic() < end
            await copy.execute("select pg_sleep(0.01)")


@contextlib.asynccontextmanager
async def asking(database_url: str, replica_url: str) -> AsyncIterator[Asked]:
    store = await Store.open(database_url, replica_url=replica_url, cache_bytes=0)
    assert store.replica
    store.replica.pause = 0.01
    asked = Asked(store)
    yield asked
    asked.engine.close()
    await store.close()


@pytest.fixture
async def asked(database_url: str, standby: Standby, sql: asyncpg.Connection) -> AsyncIterator[Asked]:
    await caught_up(standby, sql)  # the database is there, too
    async with asking(database_url, standby.url(database_url)) as asked:
        yield asked


async def test_what_is_packed_comes_from_the_replica(asked: Asked, standby: Standby, sql: asyncpg.Connection) -> None:
    await asked.pack("shop", "till")
    await caught_up(standby, sql)
    await asked.store.write([record(service="open", message="open 0")])  # not packed: from memory
    assert await asked.answers() == {"shop": 300, "till": 300, "open": 1}
    assert asked.store.replica
    assert not asked.store.replica.trouble
    async with connection(standby.url("postgresql:///postgres")) as copy:
        found = await copy.fetch("select query from pg_stat_activity where application_name = 'logagg'")
    assert [query for (query,) in found if "from batches" in query]


async def test_a_replica_that_is_behind_is_helped_out(asked: Asked, standby: Standby, sql: asyncpg.Connection) -> None:
    await asked.pack("shop", "till")
    await asked.store.write([record(service="till", message=f"till {n}") for n in range(300, 310)])
    await asked.store.write([record(service="chatty", message=f"chatty {n}") for n in range(5)])
    await asked.store.roll()
    await asked.store.pack_now()
    await caught_up(standby, sql)
    async with connection(standby.url("postgresql:///postgres")) as copy:
        await copy.execute("select pg_wal_replay_pause()")
        try:
            await asked.pack("late")
            expected = {"shop": 300, "till": 310, "chatty": 5, "late": 300}
            assert await asked.answers() == expected
            await sql.execute("update batches set closed_at = now() - interval '2 hours'")
            await sql.execute("update batches set received_max = closed_at")
            chatty = Keep("service", "chatty", timedelta(hours=1))
            assert (await asked.store.maintenance(DAY, DAY, keeps=(chatty,))).trimmed.records == 5
            del expected["chatty"]
            assert await asked.answers() == expected
        finally:
            await copy.execute("select pg_wal_replay_resume()")


async def test_without_the_replica_the_primary_answers(asked: Asked, standby: Standby, sql: asyncpg.Connection) -> None:
    await asked.pack("shop", "till")
    await caught_up(standby, sql)
    assert await asked.answers() == {"shop": 300, "till": 300}
    assert asked.store.replica
    standby.stop()
    try:
        assert await asked.answers() == {"shop": 300, "till": 300}
        assert asked.store.replica.trouble
    finally:
        standby.start()
    await sql.execute("select pg_sleep(0.1)")
    assert await asked.answers() == {"shop": 300, "till": 300}
    assert asked.store.replica.trouble is None


async def test_it_is_known_how_it_is_while_nobody_asks(asked: Asked, standby: Standby, sql: asyncpg.Connection) -> None:
    await caught_up(standby, sql)
    replica = asked.store.replica
    assert replica
    replica.pause = 3600
    watching = asyncio.create_task(replica.watch(0.05))
    standby.stop()
    try:
        async with asyncio.timeout(30):
            while not replica.trouble:
                await asyncio.sleep(0.02)
    finally:
        standby.start()
    async with asyncio.timeout(30):
        while replica.trouble:
            await asyncio.sleep(0.02)
    watching.cancel()
    assert await asyncio.gather(watching, return_exceptions=True)


async def test_another_database_is_no_replica(database_url: str, empty_database_url: str) -> None:
    """It has batches of the same numbers, with other records."""
    other = Asked(await Store.open(empty_database_url))
    await other.pack("wrong", "shop")
    other.engine.close()
    await other.store.close()
    async with asking(database_url, empty_database_url) as asked:
        await asked.pack("shop", "till")
        assert await asked.answers() == {"shop": 300, "till": 300}


async def test_a_standby_is_told_from_a_primary(asked: Asked, standby: Standby, sql: asyncpg.Connection) -> None:
    """It has the tables, and then not even these."""
    said = "this PostgreSQL is a standby, which takes nothing: database_url has to be the address of the primary;"
    await asked.pack("shop")
    await caught_up(standby, sql)
    url = standby.url(await sql.fetchval("select 'postgresql:///' || current_database()"))
    for place in (url, standby.url("postgresql:///postgres")):
        with pytest.raises(StoreUnavailable, match=said):
            await Store.open(place)
        for command in (["db", "init"], ["token", "create", "--name", "a", "--scope", "query"]):
            done = await asyncio.to_thread(CliRunner().invoke, cli, [*command, "--database-url", place])
            assert (done.exit_code, done.stdout) == (2, "")
            assert done.stderr == f"logagg: {said} reader_database_url is the setting for a standby\n"
    read = await asyncio.to_thread(CliRunner().invoke, cli, ["token", "list", "--database-url", url])
    assert read.exit_code == 0, read.stderr


NO_NAME = f"postgresql://logagg@{'a' * 70}.example/logagg"  # has no form for DNS


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/none", NO_NAME])
async def test_a_daemon_says_how_it_is_before_anybody_asks(start_daemon: Starter, url: str) -> None:
    daemon = await start_daemon(reader_database_url=url)
    async with asyncio.timeout(30):
        while await daemon.metric("logagg_replica_up"):
            await asyncio.sleep(0.02)


async def test_what_the_watch_does_not_expect_does_not_end_it(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Replica(NO_NAME)
    monkeypatch.setattr(replica, "_connected", None)
    watching = asyncio.create_task(replica.watch(0.01))
    async with asyncio.timeout(30):
        while [line["event"] for line in lines].count("the read replica cannot be asked") < 2:
            await asyncio.sleep(0.01)
    assert not watching.done()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await replica.close()

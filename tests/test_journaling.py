"""Records that PostgreSQL does not take go to the journal, are acknowledged, and are stored once when it is back."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import aiohttp

from logagg.collector.buffer import Chunk
from logagg.collector.journaling import Journaling
from logagg.collector.metrics import Metrics
from logagg.protocols.json_columns import decode_lines
from logagg.protocols.record import Origin
from logagg.sinks import entries
from logagg.sinks.embedded import EmbeddedPostgres
from logagg.sinks.journal import Entry, Journal
from logagg.sinks.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

    from logagg.tests.daemons import RunningDaemon, Starter
    from logagg.tests.processes import free_port, process, wait_ready
else:
    from processes import free_port, process, wait_ready


@contextmanager
def running() -> Iterator[EmbeddedPostgres]:
    """A server that can be stopped and started."""
    # In /tmp itself: it may run as another user, who must reach it.
    with (
        TemporaryDirectory(prefix="logagg-test-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        EmbeddedPostgres(Path(folder)) as server,
    ):
        yield server


def body(first: int, count: int) -> bytes:
    return b"\n".join(b'{"service": "s", "message": "number %d"}' % number for number in range(first, first + count))


async def send(daemon: RunningDaemon, data: bytes, **headers: str) -> int:
    async with daemon.http.post("/ingest", data=data, headers=headers) as answer:
        return answer.status


async def numbers(daemon: RunningDaemon) -> list[int]:
    """Return the numbers of all records, once nothing waits."""
    end = time.monotonic() + 60
    while await daemon.metric("logagg_journal_records") or await daemon.metric("logagg_buffer_records"):
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
    return await exported(f"http://{daemon.listening['http_listen']}")


async def exported(url: str) -> list[int]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/logs/export") as answer:
        lines = (await answer.text()).splitlines()
    return sorted(int(json.loads(line)["message"].rpartition(" ")[2]) for line in lines)


async def balanced(daemon: RunningDaemon) -> None:
    async with daemon.http.get("/metrics", headers={"Accept": "application/json"}) as answer:
        books = (await answer.json())["counters"]
    for transport, book in books.items():
        left = book["received"] + book.get("replayed", 0)
        right = sum(book.get(name, 0) for name in ("stored", "duplicate", "quarantined", "dropped", "journaled"))
        assert left == right, (transport, book)


async def test_an_outage_is_bridged(start_daemon: Starter) -> None:
    with running() as server:
        daemon = await start_daemon(database_url=server.url)
        assert await send(daemon, body(0, 10)) == 200
        server.stop()
        assert await send(daemon, body(10, 1000)) == 200
        await daemon.tcp("tcp_listen", body(2000, 500) + b"\n")
        assert await send(daemon, body(1010, 990)) == 200
        assert await daemon.metric("logagg_journal_records") >= 1990
        async with daemon.http.get("/readyz") as answer:
            assert answer.status == 503
        server.start()
        assert await numbers(daemon) == list(range(2500))
        await balanced(daemon)
        assert await daemon.metric("logagg_journal_bytes") == 0


async def post(port: int, data: bytes) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/ingest", data=data) as answer,
    ):
        return answer.status


async def test_a_killed_daemon_leaves_what_it_has_acknowledged_to_the_next_one(tmp_path: Path) -> None:
    with running() as server:
        settings = {"database_url": server.url, "data_dir": str(tmp_path / "data")}
        with process(**settings, http_listen=f"127.0.0.1:{(port := free_port())}") as killed:
            wait_ready(port)
            assert await post(port, body(0, 100)) == 200
            server.stop()
            for first in (100, 200, 300):
                assert await post(port, body(first, 100)) == 200
            killed.send_signal(signal.SIGKILL)
            killed.wait()
        server.start()
        with process(**settings, http_listen=f"127.0.0.1:{(port := free_port())}"):
            wait_ready(port)
            while len(found := await exported(f"http://127.0.0.1:{port}")) < 400:
                await asyncio.sleep(0.1)
            assert found == list(range(400))


async def test_a_full_journal_lets_senders_wait(start_daemon: Starter, tmp_path: Path) -> None:
    with running() as server:
        daemon = await start_daemon(
            database_url=server.url, journal_size="1024", ack_timeout="0.5s", data_dir=tmp_path / "data"
        )
        assert await send(daemon, body(0, 10)) == 200
        server.stop()
        assert await send(daemon, body(10, 990)) == 503
        assert await daemon.metric("logagg_journal_failures_total") > 0
        server.start()
        while await send(daemon, body(10, 990)) != 200:
            await asyncio.sleep(0.1)
        assert set(await numbers(daemon)) == set(range(1000))
        await balanced(daemon)


async def test_what_waits_for_a_server_that_does_not_get_on_is_kept(
    start_daemon: Starter, sql: asyncpg.Connection
) -> None:
    daemon = await start_daemon(journal_after="0.3s", flush_lanes=1)
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("lock table logs in access exclusive mode")
    stuck = asyncio.create_task(send(daemon, body(0, 10)))
    while not await daemon.metric("logagg_buffer_records"):
        await asyncio.sleep(0.01)
    assert await send(daemon, body(10, 990)) == 200
    assert await daemon.metric("logagg_records_journaled_total", transport="http") == 990
    assert not stuck.done()
    await transaction.rollback()
    assert await stuck == 200
    assert await numbers(daemon) == list(range(1000))
    await balanced(daemon)


async def test_what_is_in_already_is_not_stored_again_out_of_the_journal(store: Store, tmp_path: Path) -> None:
    """A daemon that is killed between COMMIT and the note in its journal."""
    journal = Journal.open(tmp_path / "journal", 1 << 20)
    metrics = Metrics()
    journaling = Journaling(journal, store, metrics)
    origin = Origin(datetime.now(UTC), "tcp", "::1", None)
    chunk = Chunk("tcp", decode_lines(body(0, 10).splitlines(), origin), 100)
    assert await journaling.keep([chunk])
    entry = journal.first()
    assert entry
    flush = entries.decode(entry.payload)
    assert not (await store.write(flush.records, flush.rejects, [entry.key])).repeated
    replaying = asyncio.create_task(journaling.run())
    while "duplicate" not in metrics.totals().get("tcp", {}):
        await asyncio.sleep(0.01)
    replaying.cancel()
    (batch,) = await store.batches()
    assert batch.count == 10
    assert journal.entries == 0
    assert metrics.totals()["tcp"] == {"journaled": 10, "replayed": 10, "duplicate": 10}
    journal.close()


async def test_an_entry_that_cannot_be_read_is_kept_and_blocks_nobody(
    store: Store, tmp_path: Path, sql: asyncpg.Connection
) -> None:
    origin = Origin(datetime.now(UTC), "tcp", "127.0.0.1")
    journal, metrics = Journal.open(tmp_path / "journal", 1 << 20), Metrics()
    journaling = Journaling(journal, store, metrics)
    chunk = Chunk("tcp", decode_lines([b'{"message": "before"}'], origin), 20)
    assert await journaling.keep([chunk])
    newer = Entry(b"of a newer logag", 7, b"\xff" * 100)
    journal.append([newer, Entry(b"cut by a bad bit", 2, bytes([entries.VERSION]))])
    assert await journaling.keep([Chunk("tcp", decode_lines([b'{"message": "behind"}'], origin), 20)])
    task = asyncio.create_task(journaling.run())
    while journal.entries:
        await asyncio.sleep(0.01)
    task.cancel()
    assert [row["message"] for row in await sql.fetch("select message from logs order by id")] == ["before", "behind"]
    assert (journal.lost_records, [damage.reason for damage in journal.damaged]) == (
        9,
        [f"a flush of version 255; this program reads version {entries.VERSION}"],
    )
    journal.close()
    assert [path.suffix for path in (tmp_path / "journal").iterdir() if path.name != "lock"] == [".damaged"]


async def test_an_idempotency_key_is_stored_once(daemon: RunningDaemon) -> None:
    key = {"Idempotency-Key": "of the sender"}
    for _ in range(3):
        assert await send(daemon, body(0, 10), **key) == 200
    assert await send(daemon, body(10, 10), **{"Idempotency-Key": "another"}) == 200
    assert await send(daemon, body(20, 10)) == 200
    assert await numbers(daemon) == list(range(30))
    assert await daemon.metric("logagg_records_duplicate_total", transport="http") == 20
    await balanced(daemon)
    assert await send(daemon, body(0, 1), **{"Idempotency-Key": "k" * 2000}) == 400


async def test_a_key_is_stored_once_however_many_try_at_once(database_url: str, store: Store) -> None:
    records = decode_lines(body(0, 500).splitlines(), Origin(datetime.now(UTC), "tcp", "::1", None)).records
    other = await Store.open(database_url)
    tries = [each.write(records, [], [b"k" * 16]) for each in (store, other) for _ in range(3)]
    written = await asyncio.gather(*tries)
    assert sorted((each.stored, each.repeated) for each in written) == [(0, True)] * 5 + [(500, False)]
    await other.close()

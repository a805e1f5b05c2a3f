"""Group commit on a real store: what is acked is committed, what fails is tried again."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg
import pytest

from logagg.collector.buffer import RingBuffer
from logagg.collector.flusher import Flusher
from logagg.collector.intake import Intake, Overloaded
from logagg.collector.metrics import Metrics
from logagg.protocols.record import Decoded, Record, Reject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from logagg.sinks.store import Store

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def record(message: str, severity: int = 6) -> Record:
    return Record(NOW, NOW, severity, None, None, "host", "service", "127.0.0.1", message, None, None, None, None)


class Path:
    """Intake, buffer and flusher on a store, and the counters of one transport."""

    def __init__(self, store: Store, ack_timeout: float) -> None:
        self.metrics = Metrics()
        self.buffer = RingBuffer(1000, 1 << 20)
        self.flusher = Flusher(self.buffer, store, self.metrics, lanes=2, max_records=100, interval=0.01)
        self.intake = Intake(self.buffer, self.metrics, max_records=100, ack_timeout=ack_timeout)

    async def store(self, *records: Record, rejects: tuple[Reject, ...] = ()) -> None:
        await self.intake.store("test", Decoded(list(records), list(rejects)), 10)

    def books(self) -> dict[str, float]:
        return self.metrics.totals()["test"]


@asynccontextmanager
async def running(store: Store, ack_timeout: float = 30) -> AsyncIterator[Path]:
    path = Path(store, ack_timeout)
    task = asyncio.create_task(path.flusher.run())
    try:
        yield path
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Another connection to the same database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def messages(connection: asyncpg.Connection) -> list[str]:
    return [row["message"] for row in await connection.fetch("select message from logs order by id")]


async def test_what_is_acked_is_committed(store: Store, other: asyncpg.Connection) -> None:
    async with running(store) as path:
        await asyncio.gather(*(path.store(record(f"message {number}")) for number in range(50)))
        assert sorted(await messages(other)) == sorted(f"message {number}" for number in range(50))
        assert path.books() == {"received": 50, "stored": 50, "quarantined": 0}
        assert path.buffer.records == 0


async def test_the_order_of_arrival_is_the_order_of_ids(store: Store, other: asyncpg.Connection) -> None:
    expected = [f"{number}" for number in range(500)]
    async with running(store) as path:
        for message in expected:
            path.intake.take(deque(path.intake.chunks("test", Decoded([record(message)], []), 1)))
        await path.buffer.empty()
    assert await messages(other) == expected


async def test_a_lost_connection_is_tried_again(store: Store, other: asyncpg.Connection) -> None:
    async with running(store) as path:
        await other.execute("begin; lock table logs in access exclusive mode")
        waiting = asyncio.create_task(path.store(record("stubborn")))
        ours = "pid <> pg_backend_pid() and datname = current_database() and wait_event_type = 'Lock'"
        while not await other.fetchval(f"select count(pg_terminate_backend(pid)) from pg_stat_activity where {ours}"):  # noqa: S608
            await asyncio.sleep(0.01)
        while path.flusher.trouble is None:
            await asyncio.sleep(0.01)
        await other.execute("rollback")
        await waiting
        assert path.flusher.trouble is None
        assert await messages(other) == ["stubborn"]
        assert path.metrics.flush_failures.collect()


async def test_what_its_sender_was_told_was_not_stored_is_not_stored(store: Store, other: asyncpg.Connection) -> None:
    async with running(store, ack_timeout=0.2) as path:
        await other.execute("begin; lock table logs in access exclusive mode")
        refused = await asyncio.gather(
            *(path.store(record(f"refused {number}")) for number in range(9)), return_exceptions=True
        )
        assert all(isinstance(error, Overloaded) for error in refused)
        await other.execute("rollback")
        await path.buffer.empty()
        books = path.books()
        assert books["received"] == 9 == books.get("stored", 0) + books.get("dropped", 0)
        # Those that were under way when their sender gave up may be in; they are counted as stored then.
        assert len(await messages(other)) == books.get("stored", 0)


async def test_the_books_tell_poison_from_its_neighbours(store: Store, other: asyncpg.Connection) -> None:
    reject = Reject(NOW, "test", "127.0.0.1", "no JSON", b"{")
    async with running(store) as path:
        await path.store(record("before"), record("poison", severity=99), record("after"), rejects=(reject,))
        assert path.books() == {"received": 4, "stored": 2, "quarantined": 2}
    assert await messages(other) == ["before", "after"]
    assert await other.fetchval("select count(*) from quarantine") == 2


async def test_a_full_buffer_refuses_at_once(store: Store, other: asyncpg.Connection) -> None:
    async with running(store) as path:
        await other.execute("begin; lock table logs in access exclusive mode")
        path.intake.offer("test", Decoded([record("waits")] * 1000, []), 10)
        with pytest.raises(Overloaded, match="1000 of 1000 records"):
            await path.store(record("no room"))
        path.intake.offer("test", Decoded([record("no room for a datagram")], []), 10)
        assert path.books()["dropped"] == 2
        chunks = deque(path.intake.chunks("test", Decoded([record("a stream waits")], []), 10))
        path.intake.take(chunks)
        blocked = asyncio.create_task(path.intake.wait(chunks[0]))
        await asyncio.sleep(0.01)
        assert not blocked.done()
        await other.execute("rollback")
        await blocked
        await path.buffer.empty()
    assert path.books() == {"received": 1003, "stored": 1001, "quarantined": 0, "dropped": 2}

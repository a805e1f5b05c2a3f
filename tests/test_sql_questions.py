"""The questions of docs/sql.md: each statement is run on records whose answer is known."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from logagg.protocols.record import Record
from logagg.sinks import unpacking
from logagg.sinks.store import Store

PAGE = (Path(__file__).parents[1] / "docs" / "sql.md").read_text(encoding="utf-8")
#: Heading, and the first statement below it.
QUESTIONS = dict(re.findall(r"^\*\*(.+?)\*\*(?:(?!```).)*```pgsql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
NOW = datetime.now(UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _now() -> None:
    """Begin each test now: the module may have been read a quarter of an hour ago."""
    global NOW
    NOW = datetime.now(UTC)


def record(minutes: float, message: str = "m", severity: int = 6, attributes: Any = None, **fields: Any) -> Record:
    """A record of some minutes ago."""
    at = NOW - minutes * MINUTE
    text = None if attributes is None else orjson.dumps(attributes).decode()
    made = Record(at, at, severity, None, None, "h1", "web", "10.0.0.1", message, text, None, None, None)
    return made._replace(**fields)


async def answer(sql: asyncpg.Connection, question: str) -> list[tuple[Any, ...]]:
    (name,) = [each for each in QUESTIONS if each.startswith(question)]
    return [tuple(row) for row in await sql.fetch(QUESTIONS[name])]


async def test_errors_and_talkers(store: Store, sql: asyncpg.Connection) -> None:
    latest = NOW - 3 * MINUTE
    await store.write([
        record(5, severity=3), record(3, severity=2, host="h2"), record(4, severity=4), record(90, severity=3),
        record(2, severity=3, service="billing", host=None), record(1, "x" * 1000, service="billing"),
    ])  # fmt: skip
    billing = ("billing", 1, 0, NOW - 2 * MINUTE)
    assert await answer(sql, "Errors of each service") == [("web", 2, 2, latest), billing]
    talkers = [("h1", "billing", 1, 1000), ("h1", "web", 2, 2), ("h2", "web", 1, 1), (None, "billing", 1, 1)]
    assert sorted(await answer(sql, "Who talks most"), key=lambda row: (-row[3], row[1] != "web")) == talkers
    assert await answer(sql, "With a table of your own") == [("shop", 3), ("money", 1)]


async def test_messages_never_seen_before_and_what_came_twice(store: Store, sql: asyncpg.Connection) -> None:
    twin = record(7, "twin", source="a")
    await store.write([
        record(300, "disk 1 full", 4), record(5, "disk 2 full", 4), record(9, "fan 1 stopped", 3),
        record(8, "fan 22 stopped", 3, service="cooling"), record(2, "unheard of, but fine"),
        twin, twin._replace(source="b"), record(7, "twin", host="h2"),
    ])  # fmt: skip
    assert await answer(sql, "Messages that were never there") == [("fan # stopped", 2, NOW - 9 * MINUTE, "cooling")]
    assert await answer(sql, "What came twice") == [(NOW - 7 * MINUTE, "h1", "web", "twin", 2, ["a", "b"])]


async def test_the_slowest_requests(store: Store, sql: asyncpg.Connection) -> None:
    await store.write([
        *(record(1, attributes={"path": "/a", "ms": n}) for n in range(101)),
        record(1, attributes={"path": "/b", "ms": 250.5}), record(1, attributes={"path": "/b", "ms": "n/a"}),
        record(1, attributes={"path": "/c"}), record(1), record(1, attributes={"path": "/d", "ms": 9}, service="x"),
    ])  # fmt: skip
    assert await answer(sql, "The slowest requests") == [("/b", 1, 250.5, 250.5, 250.5), ("/a", 101, 50, 99, 100)]


async def test_a_moment_of_a_host_and_a_trace(store: Store, sql: asyncpg.Connection) -> None:
    await store.write([
        record(10, "older error", 3), record(5, "the error", 3, trace_id=TRACE),
        *(record(5 + at / 60, f"{at}") for at in (-31, -30, -1, 29, 31)), record(5, "elsewhere", host="h2"),
        record(4, "end", trace_id=TRACE), record(4.5, service="billing", trace_id=TRACE),
    ])  # fmt: skip
    around = await answer(sql, "What happened around a moment")
    assert [message for *_, message in around] == ["29", "the error", "-1", "-30", "m"]
    assert await answer(sql, "Who took part in a trace") == [
        ("web", "h1", NOW - 5 * MINUTE, NOW - 4 * MINUTE, 2, "ERROR"),
        ("billing", "h1", NOW - 4.5 * MINUTE, NOW - 4.5 * MINUTE, 1, None),
    ]


async def test_silent_hosts_and_gaps(store: Store, sql: asyncpg.Connection) -> None:
    await store.write([
        record(40, host="quiet"), record(30, host="quiet"), record(29.5), record(20, service="x"), record(5),
    ])  # fmt: skip
    ((host, last, silent, count),) = await answer(sql, "Hosts that have fallen silent")
    assert (host, last, count) == ("quiet", NOW - 30 * MINUTE, 2)
    assert silent >= 30 * MINUTE
    assert await answer(sql, "Minutes in which nothing came") == [
        (NOW - 29.5 * MINUTE, NOW - 5 * MINUTE, 24.5 * MINUTE), (NOW - 40 * MINUTE, NOW - 30 * MINUTE, 10 * MINUTE),
    ]  # fmt: skip


async def test_growth_and_packed_records_brought_back(store: Store, sql: asyncpg.Connection) -> None:
    month = 30 * 24 * 60
    await store.write([record(month, "old"), record(month + 1, "older")])
    await store.roll()
    await store.pack_now()
    await store.write([record(1)])
    size = await sql.fetchval("select octet_length(head) + octet_length(body) from batches where packed_at is not null")
    day = (NOW - month * MINUTE).date()
    assert await answer(sql, "How much comes in a day") == [(day, 2, size)]
    await sql.execute("delete from logs where message like 'old%'")
    ((since, until, batches, count),) = await answer(sql, "Records that are packed only")
    assert (until, batches, count) == (day + timedelta(days=1), 1, 2)
    span = (datetime(each.year, each.month, each.day, tzinfo=UTC) for each in (since, until))
    assert [done.batch async for done in unpacking.unpack(sql, *span, into=None, keep=timedelta(days=7))]
    assert await sql.fetchval("select count(*) from logs where message like 'old%'") == 2


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_is_asked_here(question: str) -> None:
    assert len(QUESTIONS) == 12
    asked = re.findall(r'answer\(sql, "([^"]+)"\)', Path(__file__).read_text(encoding="utf-8"))
    assert any(question.startswith(each) for each in asked)

"""Binary COPY by columns writes what the driver writes row by row."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logagg.sinks import copying
from logagg.sinks.copying import Encoded, encode, send, to_binary
from logagg.sinks.frames import FULL

KINDS = {**FULL, "batch": pl.Int64()}
TABLE = """create temporary table {name} (id bigint, batch bigint, timestamp timestamptz, received_at timestamptz,
severity smallint, facility smallint, environment text, host text, service text, source text, message text,
attributes jsonb, trace_id text, span_id text, raw bytea)"""
TIMES = st.datetimes(timezones=st.just(UTC))
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9)
ROWS = st.fixed_dictionaries(
    {
        "id": st.integers(0, 1 << 53),
        "batch": st.integers(0, 1 << 36),
        "timestamp": TIMES,
        "received_at": TIMES,
        "severity": st.integers(0, 7),
        "facility": st.none() | st.integers(0, 23),
        "message": TEXT,
        "attributes": st.none() | st.sampled_from(['{"a": 1}', "{}", '{"ключ": "\\\\ \\" é"}']),
        "raw": st.none() | st.binary(max_size=9),
    }
    | dict.fromkeys(("environment", "host", "service", "source", "trace_id", "span_id"), st.none() | TEXT)
)


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    await connection.execute(TABLE.format(name="by_columns"))
    await connection.execute(TABLE.format(name="by_rows"))
    yield connection
    await connection.close()


async def both(sql: asyncpg.Connection, frame: pl.DataFrame) -> tuple[list[Any], list[Any]]:
    await sql.execute("truncate by_columns, by_rows")
    await send(sql, "by_columns", Encoded(*to_binary(frame)))
    await send(sql, "by_rows", Encoded(frame.columns, frame.rows()))
    return (
        await sql.fetch("select * from by_columns order by id"),
        await sql.fetch("select * from by_rows order by id"),
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, min_size=1, max_size=12))
async def test_random_rows_are_the_same_either_way(sql: asyncpg.Connection, rows: list[dict[str, Any]]) -> None:
    # Some values repeated often, others not: a column of few distinct values is encoded in its own way.
    frame = pl.concat([pl.DataFrame(rows, schema=KINDS), *[pl.DataFrame(rows[:1], schema=KINDS)] * 20])
    columns, expected = await both(sql, frame)
    assert columns == expected
    assert len(columns) == frame.height


async def test_frames_in_pieces_and_parts_of_frames(sql: asyncpg.Connection) -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    one = pl.DataFrame(
        {
            "id": [1, 2, 3],
            "batch": [7, 7, 7],
            "timestamp": [now] * 3,
            "message": ["a", "", "c"],
            "host": [None, "", "h"],
        },
        schema={name: KINDS[name] for name in ("id", "batch", "timestamp", "message", "host")},
    )
    columns, expected = await both(sql, pl.concat([one, one[1:], one[:1]], rechunk=False)[1:5])
    assert columns == expected
    assert [row["host"] for row in columns] == ["", "", "h", "h"]


async def test_no_rows_are_none(sql: asyncpg.Connection) -> None:
    columns, expected = await both(sql, pl.DataFrame(schema=KINDS))
    assert columns == expected == []


async def test_many_rows_are_sent_in_pieces(sql: asyncpg.Connection) -> None:
    count = 5000
    frame = pl.DataFrame({"id": range(count), "message": [f"{i}" * 50 for i in range(count)]})
    assert isinstance(encode(frame).rows, bytes)
    assert len(encode(frame).rows) > 2 * copying._PIECE
    await copying.copy(sql, "by_columns", frame)
    assert await sql.fetchval("select sum(length(message)) from by_columns") == frame["message"].str.len_chars().sum()

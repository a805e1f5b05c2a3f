"""`GET /logs/export`: every form holds every record, in memory that does not grow, and a broken one shows."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.record import Record
from logagg.query.answers import Filter
from logagg.query.errors import QueryError, QueryLimit
from logagg.query.export import FORMS, Csv, Exporter, JsonLines, Parquet
from logagg.query.http import dumps
from logagg.query.parquet import ParquetStream
from logagg.query.records import KEYS, to_records
from logagg.sinks.frames import SCHEMA, TIME
from logagg.sinks.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from logagg.tests.daemons import RunningDaemon, Starter

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def record(at: float = 0, message: str = "hello", **changes: Any) -> Record:
    given: dict[str, Any] = {
        "timestamp": NOON + timedelta(seconds=at), "received_at": NOON, "severity": 6, "facility": None,
        "environment": None, "host": "h1", "service": "api", "source": None, "message": message, "attributes": None,
        "trace_id": None, "span_id": None, "raw": None,
    }  # fmt: skip
    return Record(**(given | changes))


@pytest.fixture
async def small(database_url: str) -> AsyncIterator[Store]:
    """A store whose batches are full after 10 records."""
    store = await Store.open(database_url, batch_records=10)
    yield store
    await store.close()


async def write(store: Store, records: Sequence[Record], size: int = 10) -> None:
    for start in range(0, len(records), size):
        await store.write(records[start : start + size])


async def exported(store: Store, asked: Filter) -> list[pl.DataFrame]:
    async with Exporter(store).records(asked) as frames:
        return [frame async for frame in frames]


# --- Which records ---------------------------------------------------------------------------------------------------


async def test_an_export_holds_what_the_database_counts(small: Store, database_url: str) -> None:
    await write(small, [record(n * 7 % 60, f"m{n}", severity=n % 8) for n in range(57)])
    await write(small, [record(30, "late")])  # older than what came before it
    con = await asyncpg.connect(database_url)
    counted = await con.fetchval(
        "select count(*) from logs where timestamp between $1 and $2 and severity <= 3",
        NOON + timedelta(seconds=5),
        NOON + timedelta(seconds=40),
    )
    everything = {row[0] for row in await con.fetch("select id from logs")}
    await con.close()
    frames = await exported(small, Filter(start=NOON + timedelta(seconds=5), end=NOON + timedelta(seconds=40)))
    assert counted
    assert sum((frame["severity"] <= 3).sum() for frame in frames) == counted
    narrowed = await exported(
        small, Filter(start=NOON + timedelta(seconds=5), end=NOON + timedelta(seconds=40), q="level>=error")
    )
    assert sum(frame.height for frame in narrowed) == counted
    whole = await exported(small, Filter())
    assert len(whole) == 6
    assert set(pl.concat(whole)["id"]) == everything
    assert sum(frame.height for frame in whole) == len(everything) == 58


async def test_the_order_is_that_of_time_within_a_batch_and_the_oldest_batch_comes_first(small: Store) -> None:
    for start in (200, 0, 100):
        await write(small, [record(start + n * 7 % 10, f"{start}") for n in range(10)])
    frames = await exported(small, Filter())
    assert [frame["message"][0] for frame in frames] == ["0", "100", "200"]
    for frame in frames:
        assert frame.equals(frame.sort("timestamp", "id"))


async def test_a_filter_looks_into_everything(small: Store) -> None:
    await write(small, [record(n, "needle" if n == 33 else "hay", attributes=f'{{"n": {n}}}') for n in range(40)])
    for q in ("needle", "n:33", "timestamp>=2026-11-20T12:00:33Z timestamp<2026-11-20T12:00:34Z"):
        frames = await exported(small, Filter(q=q))
        assert pl.concat(frames)["message"].to_list() == ["needle"], q
    assert sum(frame.height for frame in await exported(small, Filter(service="nobody"))) == 0


async def test_a_batch_that_is_dropped_meanwhile_is_left_out(
    small: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logagg.query.export._REFRESH", 0.0)
    await write(small, [record(n) for n in range(30)])
    await small.close()
    con = await asyncpg.connect(database_url)
    store = await Store.open(database_url)
    async with Exporter(store).records(Filter()) as frames:
        first = await anext(frames)
        await con.execute("delete from logs where batch = $1 + 1", first["id"][0] >> 17)
        await con.execute("delete from batches where batch = $1 + 1", first["id"][0] >> 17)
        rest = [frame.height async for frame in frames]
    assert (first.height, rest) == (10, [10])
    await con.close()
    await store.close()


async def test_the_number_of_exports_is_bounded(small: Store) -> None:
    exporter = Exporter(small, concurrency=1)
    async with exporter.records(Filter()):
        with pytest.raises(QueryLimit, match="1 exports are running, at most 1"):
            async with exporter.records(Filter()):
                pass
    with pytest.raises(QueryError):
        async with exporter.records(Filter(q="(")):
            pass
    async with exporter.records(Filter()):
        pass


# --- Forms -----------------------------------------------------------------------------------------------------------

TEXTS = st.text(max_size=8) | st.sampled_from(
    ["", '"', ",", "\r", "\n", "\x00", "\x7f", "{}", "a\r\nb", "\u2028", "😀"]
)
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
ATTRIBUTES = st.none() | st.dictionaries(TEXTS, VALUES | st.lists(VALUES, max_size=2), max_size=3).map(json.dumps)
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 -- as it asks
ROWS = st.fixed_dictionaries(
    {
        "id": st.integers(0, 2**53),
        "timestamp": TIMES | TIMES.map(lambda time: time.replace(microsecond=0)),
        "received_at": TIMES,
        "severity": st.integers(0, 7),
        "facility": st.none() | st.integers(0, 23),
        **dict.fromkeys(["environment", "host", "service", "source", "trace_id", "span_id"], st.none() | TEXTS),
        "message": TEXTS,
        "attributes": ATTRIBUTES,
    }
)


def frame_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, max_size=5))
def test_every_form_holds_the_records_that_a_search_gives(rows: list[dict[str, Any]]) -> None:
    frame = frame_of(rows)
    expected = [json.loads(dumps(each)) for each in to_records(frame)]
    lines = document("jsonl", [frame])
    assert [json.loads(line) for line in lines.split(b"\n")[:-1]] == expected
    assert [list(json.loads(line)) for line in lines.split(b"\n")[:-1]] == [list(KEYS)] * len(rows)
    table = list(csv.reader(io.StringIO(document("csv", [frame]).decode(), newline="")))
    assert table[0] == list(KEYS)
    assert [as_record(dict(zip(KEYS, line, strict=True))) for line in table[1:]] == [
        {key: "" if value is None else value for key, value in each.items()} for each in expected
    ]
    read = pl.read_parquet(document("parquet", [frame]))
    assert read.drop("severity", "attributes").rows(named=True) == [
        {key: value for key, value in each.items() if key != "attributes"} for each in to_records(frame)
    ]
    assert [json.loads(text) for text in read["attributes"]] == [each["attributes"] for each in expected]
    assert read["severity"].equals(frame["severity"])


def document(form: str, frames: Sequence[pl.DataFrame]) -> bytes:
    made = FORMS[form]()
    return b"".join([made.begin(), *map(made.add, frames), made.end()])


def as_record(line: dict[str, str]) -> dict[str, Any]:
    whole = {name: int(line[name]) for name in ("id", "facility") if line[name]}
    return {**line, **whole, "attributes": json.loads(line["attributes"])}


def test_attributes_that_are_no_object_or_stand_in_several_lines() -> None:
    row = {"id": 1, "timestamp": NOON, "received_at": NOON, "severity": 6, "message": ""}
    frame = frame_of([row | {"attributes": text} for text in ("[1]", '"a"', ' {\n"a":\r\n1} ', '{"a": 1e999}')])
    lines = document("jsonl", [frame]).decode().splitlines()
    assert [json.loads(line)["attributes"] for line in lines] == [{"": [1]}, {"": "a"}, {"a": 1}, {"a": float("inf")}]
    assert json.loads(lines[0])["timestamp"] == "2026-11-20T12:00:00Z"


def test_what_parquet_looks_like() -> None:
    row = {"id": 1, "timestamp": NOON, "received_at": NOON, "severity": 3, "facility": 4, "message": "boom"}
    read = pl.read_parquet(document("parquet", [frame_of([row])]))
    assert read.schema == {
        "id": pl.Int64, "timestamp": TIME, "received_at": TIME, "level": pl.String, "severity": pl.Int8,
        "service": pl.String, "host": pl.String, "environment": pl.String, "source": pl.String, "facility": pl.Int8,
        "message": pl.String, "attributes": pl.String, "trace_id": pl.String, "span_id": pl.String,
    }  # fmt: skip
    assert read.rows() == [(1, NOON, NOON, "ERROR", 3, None, None, None, None, 4, "boom", "{}", None, None)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.none() | TEXTS), max_size=30), max_size=6))
def test_pieces_of_parquet_are_one_file(pieces: list[list[tuple[int, str | None]]]) -> None:
    schema = pl.Schema({"n": pl.Int64(), "text": pl.String()})
    frames = [pl.DataFrame(piece, schema=schema, orient="row") for piece in pieces]
    stream = ParquetStream(schema, group_rows=20)
    data = b"".join([*map(stream.add, frames), stream.finish()])
    expected = pl.concat([pl.DataFrame(schema=schema), *frames])
    assert pl.read_parquet(data).equals(expected)
    # By the bounds of row groups, too, which decide what is not read at all.
    assert pl.scan_parquet(io.BytesIO(data)).filter(pl.col("n") > 0).collect().equals(expected.filter(pl.col("n") > 0))


def test_other_programs_read_the_parquet(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    rows: list[dict[str, Any]] = [
        {"id": n, "timestamp": NOON + timedelta(seconds=n), "received_at": NOON, "severity": n % 8, "message": f"m{n}",
         "attributes": f'{{"n": {n}}}'}
        for n in range(3000)
    ]  # fmt: skip
    stream, path = Parquet(), tmp_path / "logs.parquet"
    stream._stream = ParquetStream(stream._stream.schema, group_rows=500)
    path.write_bytes(b"".join([*map(stream.add, frame_of(rows).iter_slices(400)), stream.end()]))
    asked = (
        f"select level, count(*), sum((attributes->>'n')::int) from '{path}'"  # noqa: S608 -- a path of ours
        " where timestamp >= timestamptz '2026-11-20 12:10:00Z' and level in ('ERROR', 'INFO') group by all order by 1"
    )
    found = duckdb.connect().sql(asked).fetchall()
    expected = [
        (n, [r["id"] for r in rows if r["severity"] == s and r["id"] >= 600]) for s, n in ((3, "ERROR"), (6, "INFO"))
    ]
    assert found == [(name, len(ids), sum(ids)) for name, ids in expected]


# --- Over HTTP -------------------------------------------------------------------------------------------------------


async def ingest(daemon: RunningDaemon, count: int, size: int = 0) -> None:
    body = b"\n".join(orjson.dumps({"message": f"m{n} " + "x" * size, "n": n, "service": "api"}) for n in range(count))
    async with daemon.http.post("/ingest", data=io.BytesIO(body)) as answer:
        assert answer.status == 200, await answer.text()


async def test_every_format_is_streamed(daemon: RunningDaemon) -> None:
    await ingest(daemon, 25)
    found = await daemon.logs(order="oldest")
    async with daemon.http.get("/logs/export") as answer:
        assert (answer.status, answer.content_type) == (200, JsonLines.media_type)
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert [json.loads(line) for line in (await answer.text()).splitlines()] == found
    async with daemon.http.get("/logs/export", params={"format": "csv", "q": "n:7"}) as answer:
        assert answer.content_type == Csv.media_type
        assert [line["id"] for line in csv.DictReader(io.StringIO(await answer.text()))] == [str(found[7]["id"])]
    async with daemon.http.get("/logs/export", params={"format": "parquet"}) as answer:
        assert answer.headers["Content-Disposition"] == 'attachment; filename="logagg.parquet"'
        assert pl.read_parquet(await answer.read())["id"].to_list() == [each["id"] for each in found]
    async with daemon.http.head("/logs/export") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_nothing_is_an_empty_document(daemon: RunningDaemon) -> None:
    expected = {"jsonl": b"", "csv": f"{','.join(KEYS)}\n".encode()}
    for form in FORMS:
        async with daemon.http.get("/logs/export", params={"format": form}) as answer:
            data = await answer.read()
            assert data == expected.get(form, data)
    assert pl.read_parquet(data).height == 0


async def test_a_wrong_question_is_refused(daemon: RunningDaemon) -> None:
    for params in ({"q": "("}, {"format": "xlsx"}, {"start_time": "soon"}):
        async with daemon.http.get("/logs/export", params=params) as answer:
            assert answer.status == 422
            assert (await answer.json())["detail"]
    reader, writer = await asyncio.open_connection(*daemon.listening["http_listen"])
    writer.write(b"GET /logs/export HTTP/1.0\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"505"
    writer.close()
    await writer.wait_closed()


async def test_a_slow_reader_is_waited_for(start_daemon: Starter) -> None:
    daemon = await start_daemon(batch_records=500)
    for _ in range(8):
        await ingest(daemon, 500, size=8000)  # 32 MB in all, far more than buffers on the way take
    reader, writer = await asyncio.open_connection(*daemon.listening["http_listen"], limit=1 << 16)
    writer.write(b"GET /logs/export HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(0.3)
    await ingest(daemon, 1)  # all others are served meanwhile
    assert len(await daemon.logs(limit="1")) == 1
    assert sum([data.count(b'"message":') async for data in chunks(reader)]) >= 4000
    writer.close()
    await writer.wait_closed()


async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the chunks of an answer of HTTP/1.1; raises IncompleteReadError when the last one is missing."""
    await reader.readuntil(b"\r\n\r\n")
    held = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        data = held + (await reader.readexactly(size + 2))[:-2]
        cut = data.rfind(b"\n") + 1
        held = data[cut:]
        yield data[:cut]


async def test_a_store_that_goes_away_breaks_the_export_off(
    start_daemon: Starter, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not an end that looks like one: the last chunk never comes."""
    daemon = await start_daemon(batch_records=500)
    for _ in range(4):
        await ingest(daemon, 500, size=2000)
    load, loaded = Store.load, 0

    async def fail(self: Store, *given: Any, **named: Any) -> Any:
        nonlocal loaded
        loaded += 1
        if loaded == 3:
            raise asyncpg.InterfaceError("gone")  # whatever it is
        return await load(self, *given, **named)

    monkeypatch.setattr(Store, "load", fail)
    for form in FORMS:
        loaded = 0
        async with daemon.http.get("/logs/export", params={"format": form}) as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
    loaded = 2
    async with daemon.http.get("/logs/export") as answer:
        assert answer.status == 500
    loaded = 9
    async with daemon.http.get("/logs/export") as answer:
        assert (await answer.read()).count(b"\n") == 2000


async def test_a_client_that_goes_away_ends_the_export(start_daemon: Starter) -> None:
    daemon = await start_daemon(batch_records=500)
    for _ in range(8):
        await ingest(daemon, 500, size=8000)
    for _ in range(5):  # two at once are allowed, so none of these may linger
        async with daemon.http.get("/logs/export") as answer:
            await answer.content.readexactly(100)
            answer.close()
        await asyncio.sleep(0.2)
    async with daemon.http.get("/logs/export", params={"q": "n:1"}) as answer:
        assert answer.status == 200
        assert len((await answer.text()).splitlines()) == 8

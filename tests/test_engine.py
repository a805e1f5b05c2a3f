import asyncio
import random
import string
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import NOON, SECOND, in_batches, mixed, record  # type: ignore[import-not-found]  # pytest has this folder on the path

from logagg.protocols.record import LEVELS
from logagg.query.answers import Filter
from logagg.query.engine import MAX_OFFSET, Engine
from logagg.query.errors import QueryError, QueryLimit
from logagg.query.evaluate import evaluate
from logagg.query.language import parse
from logagg.query.search import Cursor, Top
from logagg.sinks.frames import SCHEMA
from logagg.sinks.store import BatchInfo, Store


async def everything(store: Store) -> pl.DataFrame:
    """All that is stored, newest first, read batch by batch."""
    frames = [(await store.load(batch, list(SCHEMA))).frame for batch in await store.batches(None, None)]
    return pl.concat(frames).sort("timestamp", "id", descending=True)


async def walk(engine: Engine, asked: Filter, limit: int, **options: Any) -> list[dict[str, Any]]:
    found, cursor = [], None
    while True:
        page = await engine.search(asked, limit=limit, cursor=cursor, **options)
        found += page.records
        cursor = page.cursor
        if cursor is None:
            return found


async def test_a_record_comes_back_as_the_contract_has_it(engine: Engine, small: Store) -> None:
    given = record(
        1, "hi\nthere", severity=3, facility=4, attributes={"a": {"b": [1, None]}}, trace_id="t", span_id="s"
    )
    await small.write([given, record(0)])
    found = await engine.search(Filter(), limit=10)
    assert list(found.records[0]) == [
        "id", "timestamp", "received_at", "level", "service", "host", "environment", "source", "facility", "message",
        "attributes", "trace_id", "span_id",
    ]  # fmt: skip
    assert found.records[0] | {"id": 0} == {
        "id": 0,
        "timestamp": NOON + SECOND,
        "received_at": NOON,
        "level": "ERROR",
        "service": "api",
        "host": "h1",
        "environment": "test",
        "source": "127.0.0.1",
        "facility": 4,
        "message": "hi\nthere",
        "attributes": {"a": {"b": [1, None]}},
        "trace_id": "t",
        "span_id": "s",
    }
    assert found.records[1]["attributes"] == {}
    assert b'"timestamp":"2026-11-20T12:00:01Z"' in orjson.dumps(found.records[0], option=orjson.OPT_UTC_Z)
    assert found.cursor is None
    assert found.total is None
    assert found.stats.records == 2


async def test_what_was_just_written_is_found_and_an_empty_store_has_nothing(engine: Engine, small: Store) -> None:
    assert (await engine.search(Filter(), limit=1, count=True)).total == 0
    assert (await engine.aggregate(Filter(), ["service"])).rows == []
    assert (await engine.aggregate(Filter(), [])).rows == [{"count": 0}]
    assert (await engine.histogram(Filter())).bins == []
    assert (await engine.patterns(Filter(), limit=1)).patterns == []
    for i in range(5):
        await small.write([record(0, f"number {i}")])
        assert (await engine.search(Filter(q=f'"number {i}"'), limit=1)).records[0]["message"] == f"number {i}"


QUERIES = [
    Filter(),
    Filter(q="timeout"),
    Filter(q="alpha -beta level>=warning"),
    Filter(q="service=api or host=h2 user>2"),
    Filter(words="beta timeout"),
    Filter(level="ERROR"),
    Filter(service="web", host="h2", environment="test", source="127.0.0.1"),
    Filter(service="nowhere"),
    Filter(start=NOON + 10 * SECOND, end=NOON + 20 * SECOND),
    Filter(start=NOON + 10 * SECOND, q="timestamp<2026-11-20T12:00:15 tag:gamma"),
    Filter(words="---"),
]


async def test_search_is_what_a_scan_of_everything_gives(engine: Engine, small: Store) -> None:
    await in_batches(small, mixed(400), 30)
    stored = await everything(small)
    for asked in QUERIES:
        matching = [_fits(asked, row) for row in stored.iter_rows(named=True)]
        expected = stored.filter(pl.Series(matching, dtype=pl.Boolean))
        if asked.q:
            expected = expected.filter(evaluate(parse(asked.q), expected))
        await _check_search(engine, asked, expected["id"].to_list())


async def _check_search(engine: Engine, asked: Filter, ids: list[int]) -> None:
    newest = await engine.search(asked, limit=20, count=True)
    assert [r["id"] for r in newest.records] == ids[:20]
    assert newest.total == len(ids)
    assert [r["id"] for r in (await engine.search(asked, limit=20)).records] == ids[:20]
    oldest = await engine.search(asked, limit=20, order="oldest")
    assert [r["id"] for r in oldest.records] == ids[::-1][:20]
    further = await engine.search(asked, limit=7, offset=13)
    assert [r["id"] for r in further.records] == ids[13:20]
    for order in ("newest", "oldest"):
        walked = [r["id"] for r in await walk(engine, asked, 67, order=order)]
        assert walked == (ids if order == "newest" else ids[::-1])
    (count,) = (await engine.aggregate(asked, [])).rows
    assert count == {"count": len(ids)}


def _fits(asked: Filter, row: dict[str, Any]) -> bool:
    exact = {name: getattr(asked, name) for name in ("service", "host", "environment", "source")}
    return (
        (asked.start is None or row["timestamp"] >= asked.start)
        and (asked.end is None or row["timestamp"] <= asked.end)
        and (asked.level is None or LEVELS[row["severity"]] == asked.level)
        and all(value is None or row[name] == value for name, value in exact.items())
        and (asked.words is None or (asked.words != "---" and all(_has(row, word) for word in asked.words.split())))
    )


def _has(row: dict[str, Any], word: str) -> bool:
    return word in row["message"].split() or f'"{word}"' in (row["attributes"] or "")


async def test_open_and_closed_batches_together(database_url: str) -> None:
    """Another store's records come from rows, some in closed batches, some in its open one."""
    first = await Store.open(database_url, batch_records=50)
    second = await Store.open(database_url, batch_records=50)
    records = mixed(230)
    await in_batches(first, records[:120], 40)
    await in_batches(second, records[120:], 40)
    asked = Filter(q="alpha or tag:beta user:*")
    answers = []
    for store in (first, second):
        engine = Engine(store, timeout=30)
        answers.append([r["id"] for r in await walk(engine, asked, 10)])
        assert (await engine.search(Filter(), limit=1, count=True)).total == 230
        engine.close()
    await first.close()
    third = Engine(second, timeout=30)
    answers.append([r["id"] for r in await walk(third, asked, 1000)])
    third.close()
    await second.close()
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[0]) == len(set(answers[0])) > 30


@pytest.mark.parametrize("order", ["newest", "oldest"])
async def test_a_walk_neither_loses_nor_repeats_while_records_come_in(engine: Engine, small: Store, order: str) -> None:
    await in_batches(small, mixed(300), 45)
    there = set((await everything(small))["id"].to_list())
    seen, cursor, pages = [], None, 0
    while True:
        page = await engine.search(Filter(), limit=17, cursor=cursor, order=order)  # type: ignore[arg-type]  # parametrized
        seen += page.records
        await small.write(mixed(10, seed=pages))
        cursor, pages = page.cursor, pages + 1
        if cursor is None or pages > 100:
            break
    ids = [r["id"] for r in seen]
    assert len(ids) == len(set(ids))
    assert there <= set(ids)
    keys = [(r["timestamp"], r["id"]) for r in seen]
    assert keys == sorted(keys, reverse=order == "newest")


async def test_batches_that_cannot_match_are_not_read(engine: Engine, small: Store) -> None:
    for i in range(6):
        await small.write([record(100 * i + j, service=f"s{i}") for j in range(50)])
    await small.write([record(1000)])
    await small.pack_now()
    latest = await engine.search(Filter(q="hello"), limit=10)
    assert latest.stats.scanned == 2
    assert latest.stats.skipped == {"order": 5}
    service = await engine.search(Filter(service="s3"), limit=10)
    assert service.stats.skipped == {"service": 6}
    spelled = await engine.search(Filter(q="service=s3 hello"), limit=10)
    assert spelled.stats.skipped == {"service": 6}
    either = await engine.search(Filter(q="service=s3 or service=s4"), limit=100)
    assert either.stats.skipped == {"summary": 4}  # but for the open one, which has none
    assert either.stats.read == {"open": 1, "packed": 2}
    assert (await engine.search(Filter(q="goodbye"), limit=1)).stats.skipped == {"filter": 6}
    assert len(either.records) == 100
    assert (await engine.search(Filter(environment="other"), limit=1)).stats.skipped == {"environment": 7}
    timed = await engine.search(Filter(start=NOON + 100 * SECOND, end=NOON + 149 * SECOND), limit=100, count=True)
    assert timed.total == 50
    assert timed.stats.records == 50
    counted = await engine.search(Filter(), limit=1, count=True)
    assert counted.total == 301
    assert counted.stats.skipped == {"counted": 5}
    assert counted.stats.records == 51  # one more record is looked for than asked for
    oldest = await engine.search(Filter(), limit=10, order="oldest")
    assert oldest.stats.scanned == 1


async def test_what_is_rare_is_found_in_its_batch(engine: Engine, small: Store) -> None:
    for i in range(9):
        await small.write([record(100 * i + j, f"number{j % 20} of{i}") for j in range(50)])
    await small.roll()
    await small.pack_now()
    found = await engine.search(Filter(q="of4 number7"), limit=10)
    assert [r["message"] for r in found.records] == ["number7 of4"] * 3
    assert [r["timestamp"] for r in found.records] == [NOON + (400 + j) * SECOND for j in (47, 27, 7)]
    assert found.stats.skipped == {"filter": 8}
    assert (found.stats.read, found.stats.records) == ({"packed": 1}, 50)
    assert (await engine.search(Filter(q="of4 -number*"), limit=10)).records == []


async def test_cursors_that_were_tampered_with(engine: Engine, small: Store) -> None:
    await small.write([record(i) for i in range(3)])
    cursor = (await engine.search(Filter(), limit=1)).cursor
    assert cursor is not None
    assert set(cursor) <= set(string.ascii_letters + string.digits + "-_")
    for bad in [
        "",
        "x",
        cursor + "A",
        cursor + "\n",
        "é",
        "eC4xLjI",  # x.1.2
        "bi4rMS4y",  # n.+1.2
        "x" * 10_000,
        cursor.swapcase(),
        "=" * 5,
        "bi4" + "9" * 400,
    ]:
        with pytest.raises(QueryError, match="cursor"):
            await engine.search(Filter(), limit=1, cursor=bad)
    with pytest.raises(QueryError, match="cursor of a search for the newest first, but this one is for the oldest"):
        await engine.search(Filter(), limit=1, cursor=cursor, order="oldest")


@given(st.datetimes(timezones=st.just(UTC)), st.integers(0, 2**53), st.sampled_from(["newest", "oldest"]))
@settings(max_examples=50, deadline=None)
def test_a_cursor_is_read_as_it_was_written(moment: datetime, id_: int, order: Any) -> None:
    assert Cursor.read(str(Cursor(order, moment, id_)), order) == (order, moment, id_)


place = st.tuples(st.integers(0, 5), st.integers(0, 100))


@given(
    st.lists(st.lists(place, max_size=8, unique=True), max_size=5),
    st.integers(1, 6),
    st.none() | place,
    st.sampled_from(["newest", "oldest"]),
)
@settings(max_examples=200, deadline=None)
def test_top_is_the_head_of_all_sorted(batches: Any, size: int, behind: tuple[int, int] | None, order: Any) -> None:
    def moment(at: int) -> datetime:
        return datetime(2026, 11, 20, tzinfo=UTC) + timedelta(microseconds=at)

    infos = []
    for i, batch in enumerate(batches):
        times = [moment(at) for at, _ in batch]
        first, last = (min(times), max(times)) if times else (None, None)
        infos.append(BatchInfo(i, False, len(batch), first, last, None, None, None, None, None))
    # A record's id says which batch it is in, as everywhere.
    batches = [[(at, i * 1000 + id_) for at, id_ in batch] for i, batch in enumerate(batches)]
    top = Top(size, order, None if behind is None else Cursor(order, moment(behind[0]), behind[1]))
    for info in top.order(infos):
        if top.wants(info):
            rows = [(moment(at), id_) for at, id_ in batches[info.batch]]
            top.add(pl.DataFrame(rows, schema={n: SCHEMA[n] for n in ("timestamp", "id")}, orient="row"))
    rest = sorted((r for b in batches for r in b), reverse=order == "newest")
    if behind is not None:
        rest = [r for r in rest if (r < behind if order == "newest" else r > behind)]
    found = top.records
    assert ([] if found is None else found["id"].to_list()) == [id_ for _, id_ in rest[:size]]


async def test_mistakes_are_told(engine: Engine) -> None:
    mistakes: list[tuple[Filter, dict[str, Any], str]] = [
        (Filter(q="a ("), {}, "expected"),
        (Filter(level="error"), {}, "level 'error' is none of"),
        (Filter(start=datetime(2026, 1, 1)), {}, "start has no time zone"),  # noqa: DTZ001 - that is the mistake
        (Filter(end=datetime.max.replace(tzinfo=timezone(-SECOND))), {}, "end is out of the years"),
        (Filter(service="\ud800"), {}, "service: half of a surrogate pair"),
        (Filter(words="x" * 70_000), {}, "words of 70000 characters, at most 65536"),
        (Filter(words=" ".join(map(str, range(2000)))), {}, "2000 words, at most 1000"),
        (Filter(), {"limit": 0}, "limit of 0, at least 1"),
        (Filter(), {"limit": 10_001}, "limit of 10001, at least 1 and at most 10000"),
        (Filter(), {"offset": -1}, "offset of -1"),
        (Filter(), {"offset": MAX_OFFSET + 1}, "offset of 1000001"),
        (Filter(), {"order": "best"}, "order 'best'"),
    ]
    for asked, options, said in mistakes:
        with pytest.raises(QueryError, match=said):
            await engine.search(asked, **({"limit": 1} | options))
    for by, told in [
        (["a", "a"], "a field stands twice"),
        (["count"], "an attribute of this name is attributes.count"),
        ([str(i) for i in range(9)], "counts by 9 fields, at most 8"),
    ]:
        with pytest.raises(QueryError, match=told):
            await engine.aggregate(Filter(), by)


async def test_a_heavy_expression_runs_into_the_time_limit_and_blocks_nobody(store: Store) -> None:
    draw = random.Random(1)  # noqa: S311 - the same text each time
    await store.write([record(i, "".join(draw.choices("ab", k=600))) for i in range(5_000)])
    engine = Engine(store, timeout=0.5, concurrency=2)
    heavy = engine.search(Filter(q="/a[ab]{200}.*b[ab]{200}.*[^ab]/"), limit=10, count=True)
    other = engine.search(Filter(q="nothing"), limit=10)
    ended, answered = await asyncio.gather(heavy, other, return_exceptions=True)
    assert isinstance(ended, QueryLimit)
    assert "did not end within its limit of 0.5 s" in str(ended)
    assert not isinstance(answered, BaseException)
    assert answered.records == []
    for _ in range(3):  # the worker threads are free again
        assert len((await engine.search(Filter(), limit=10)).records) == 10
    engine.close()


async def test_a_question_that_nobody_waits_for_gives_its_turn_back(engine: Engine, small: Store) -> None:
    await in_batches(small, mixed(200), 50)
    tasks = [asyncio.create_task(engine.search(Filter(q="alpha"), limit=10)) for _ in range(8)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(e, asyncio.CancelledError) for e in ended)
    assert len((await engine.search(Filter(), limit=10)).records) == 10


async def test_many_questions_at_once(engine: Engine, small: Store) -> None:
    await in_batches(small, mixed(200), 50)
    alone = await engine.search(Filter(q="alpha"), limit=10)
    found = await asyncio.gather(*(engine.search(Filter(q="alpha"), limit=10) for _ in range(20)))
    assert all(f.records == alone.records for f in found)

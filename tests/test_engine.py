import asyncio
import random
import string
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.record import LEVELS, Record
from logagg.query.answers import Filter
from logagg.query.engine import MAX_OFFSET, Engine
from logagg.query.errors import QueryError, QueryLimit
from logagg.query.evaluate import evaluate
from logagg.query.histogram import MAX_BINS
from logagg.query.language import parse
from logagg.query.search import Cursor, Top
from logagg.sinks.frames import SCHEMA
from logagg.sinks.store import BatchInfo, Store

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def record(at: float = 0, message: str = "hello", **changes: Any) -> Record:
    given: dict[str, Any] = {
        "timestamp": NOON + at * SECOND,
        "received_at": NOON,
        "severity": 6,
        "facility": None,
        "environment": "test",
        "host": "h1",
        "service": "api",
        "source": "127.0.0.1",
        "message": message,
        "attributes": None,
        "trace_id": None,
        "span_id": None,
        "raw": None,
    }
    if "attributes" in changes:
        changes["attributes"] = orjson.dumps(changes["attributes"]).decode()
    return Record(**(given | changes))


def mixed(count: int, seed: int = 1) -> list[Record]:
    """Records with many equal timestamps, out of order."""
    draw = random.Random(seed)  # noqa: S311 - tests want the same numbers each time
    words = ["alpha", "beta", "gamma", "delta", "timeout"]
    return [
        record(
            draw.randrange(50),
            " ".join(draw.choices(words, k=3)),
            severity=draw.randrange(8),
            service=draw.choice(["api", "web", "db", None]),
            host=draw.choice(["h1", "h2"]),
            **({"attributes": {"user": draw.randrange(5), "tag": draw.choice(words)}} if draw.random() < 0.5 else {}),
        )
        for _ in range(count)
    ]


async def in_batches(store: Store, records: Sequence[Record], size: int) -> None:
    """Write in pieces; a store of small batches closes a batch each time one is full."""
    for start in range(0, len(records), size):
        await store.write(records[start : start + size])


@pytest.fixture
async def small(database_url: str) -> AsyncIterator[Store]:
    """A store that begins a new batch after 50 records."""
    store = await Store.open(database_url, batch_records=50)
    yield store
    await store.close()


@pytest.fixture
async def engine(small: Store) -> AsyncIterator[Engine]:
    engine = Engine(small, timeout=30)
    yield engine
    engine.close()


async def everything(store: Store) -> pl.DataFrame:
    """All that is stored, newest first, read batch by batch."""
    frames = [await store.load(batch, list(SCHEMA)) for batch in await store.batches(None, None)]
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
    assert await engine.aggregate(Filter(), ["service"]) == []
    assert await engine.aggregate(Filter(), []) == [{"count": 0}]
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
    (count,) = await engine.aggregate(asked, [])
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
    await asyncio.sleep(0)
    while len([b for b in await small.batches() if b.open]) > 1:  # closing goes on behind the write
        await asyncio.sleep(0.01)
    latest = await engine.search(Filter(q="hello"), limit=10)
    assert latest.stats.scanned == 2
    assert latest.stats.skipped == {"order": 5}
    service = await engine.search(Filter(service="s3"), limit=10)
    assert service.stats.skipped == {"service": 6}
    spelled = await engine.search(Filter(q="service=s3 hello"), limit=10)
    assert spelled.stats.skipped == {"service": 6}
    either = await engine.search(Filter(q="service=s3 or service=s4"), limit=100)
    assert either.stats.skipped == {}
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
        return NOON + timedelta(microseconds=at)

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


async def test_counts_by_columns_and_attributes(engine: Engine, small: Store) -> None:
    records = mixed(300)
    await in_batches(small, records, 40)
    by_two = await engine.aggregate(Filter(), ["service", "level"])
    assert {(r["service"], r["level"]): r["count"] for r in by_two} == Counter(
        (r.service, LEVELS[r.severity]) for r in records
    )
    assert [r["count"] for r in by_two] == sorted((r["count"] for r in by_two), reverse=True)
    users = await engine.aggregate(Filter(level="ERROR"), ["attributes.user"])
    assert {r["attributes.user"]: r["count"] for r in users} == Counter(
        str(orjson.loads(r.attributes)["user"]) if r.attributes else None for r in records if r.severity == 3
    )
    assert await engine.aggregate(Filter(q="nothing"), ["service"]) == []


async def test_equal_counts_are_ordered_by_value_with_none_last(engine: Engine, small: Store) -> None:
    await small.write([record(service=s, severity=v) for s, v in [(None, 3), ("b", 3), ("a", 6), ("a", 3), ("b", 6)]])
    found = await engine.aggregate(Filter(), ["service", "level"])
    assert [(r["service"], r["level"]) for r in found] == [
        ("a", "ERROR"), ("a", "INFO"), ("b", "ERROR"), ("b", "INFO"), (None, "ERROR"),
    ]  # fmt: skip
    assert list(found[0]) == ["service", "level", "count"]


async def test_attributes_are_counted_as_text(engine: Engine, small: Store) -> None:
    values: list[Any] = [1, "1", 1.5, True, None, {"x": [1]}, "é"]
    await small.write([record(attributes={"a.b": value, "count": 1}) for value in values])
    found = await engine.aggregate(Filter(), ["a.b"])
    assert {r["a.b"]: r["count"] for r in found} == {"1": 2, "1.5": 1, "true": 1, None: 1, '{"x":[1]}': 1, "é": 1}
    assert (await engine.aggregate(Filter(), ["attributes.count"]))[0] == {"attributes.count": "1", "count": 7}
    assert len(await engine.aggregate(Filter(), ["timestamp", "id", "message", "host"])) == 7


async def test_a_histogram_has_all_bins_and_their_levels(engine: Engine, small: Store) -> None:
    await small.write(
        [record(at, severity=severity) for at, severity in [(0, 6), (1, 6), (9.999999, 3), (10, 3), (35, 6)]]
    )
    found = await engine.histogram(Filter(), interval=timedelta(seconds=10))
    assert [(b.start, b.count, b.levels) for b in found.bins] == [
        (NOON, 3, {"ERROR": 1, "INFO": 2}),
        (NOON + 10 * SECOND, 1, {"ERROR": 1}),
        (NOON + 20 * SECOND, 0, {}),
        (NOON + 30 * SECOND, 1, {"INFO": 1}),
    ]
    assert (found.total, found.before, found.after) == (5, 0, 0)
    ranged = await engine.histogram(
        Filter(start=NOON - 15 * SECOND, end=NOON + 5 * SECOND), interval=timedelta(seconds=10)
    )
    assert [(b.start, b.count) for b in ranged.bins] == [(NOON - 20 * SECOND, 0), (NOON - 10 * SECOND, 0), (NOON, 2)]
    assert ranged.total == 2


async def test_an_interval_is_chosen_for_about_a_hundred_bins(engine: Engine, small: Store) -> None:
    day = 86400
    expected = {
        0: 1, 50: 1, 3600: 60, 6 * 3600: 300, day: 900, 30 * day: 43200, 99 * day: day, 400 * day: 5 * day
    }  # fmt: skip
    for span in expected:
        await small.write([record(at, service=str(span)) for at in range(0, span + 1, max(1, span // 20))])
    for span, interval in expected.items():
        found = await engine.histogram(Filter(service=str(span)))
        assert found.interval == timedelta(seconds=interval)
        assert len(found.bins) <= 100
        assert sum(b.count for b in found.bins) == found.total > 0


async def test_absurd_timestamps_make_no_millions_of_bins(engine: Engine, small: Store) -> None:
    years = [datetime(year, 1, 1, tzinfo=UTC) for year in (1, 1970, 9999)]
    await small.write([record(timestamp=t) for t in years] + [record(60 * i) for i in range(60)])
    found = await engine.histogram(Filter())
    assert found.interval == timedelta(minutes=1)
    assert [b.count for b in found.bins] == [1] * 60
    assert (found.before, found.after, found.total) == (2, 1, 63)
    by_hour = await engine.histogram(Filter(), interval=timedelta(hours=1))
    assert [b.count for b in by_hour.bins] == [60]
    all_time = await engine.histogram(Filter(start=years[0], end=years[2]))
    assert len(all_time.bins) <= 101
    assert all_time.end == datetime.max.replace(tzinfo=UTC)
    assert found.end == NOON + 3600 * SECOND
    assert sum(b.count for b in all_time.bins) == 63
    only_end = await engine.histogram(Filter(end=NOON + 600 * SECOND))
    assert only_end.interval == timedelta(seconds=10)
    assert [b.count for b in only_end.bins] == [1, 0, 0, 0, 0, 0] * 10 + [1]
    with pytest.raises(QueryError, match=f"86400 bins of 1 s, at most {MAX_BINS}"):
        await engine.histogram(Filter(start=NOON, end=NOON + 86399 * SECOND), interval=SECOND)
    with pytest.raises(QueryError, match="interval of 0 s, at least 0"):
        await engine.histogram(Filter(), interval=timedelta(0))


async def test_many_distinct_times_are_counted_coarser(engine: Engine, small: Store, monkeypatch: Any) -> None:
    monkeypatch.setattr("logagg.query.histogram._COARSER", 20)
    await in_batches(small, [record(at * 7) for at in range(1000)], 50)
    found = await engine.histogram(Filter())
    assert found.interval == timedelta(minutes=2) or found.interval >= timedelta(hours=1)
    assert sum(b.count for b in found.bins) == 1000


async def test_patterns_of_the_newest_messages(small: Store) -> None:
    engine = Engine(small, timeout=30, pattern_records=300)
    many = [record(i, f"user {i} logged in from 10.0.0.{i % 250}", service=f"s{i % 12}") for i in range(150)]
    few = [record(200 + i, f"disk sda{i} failed", severity=3 if i else 2, service="kernel") for i in range(5)]
    await in_batches(small, [*many, *few], 40)
    found = await engine.patterns(Filter(), limit=10)
    login, disk = found.patterns
    assert (login.count, disk.count) == (150, 5)
    assert "<*>" in login.template
    assert login.example == "user 149 logged in from 10.0.0.149"
    assert (login.first_seen, login.last_seen) == (NOON, NOON + 149 * SECOND)
    assert len(login.services) == 10
    assert login.services[:6] == [f"s{i}" for i in range(6)]
    assert disk.levels == {"CRITICAL": 1, "ERROR": 4}
    assert disk.services == ["kernel"]
    assert (found.messages, found.cut) == (155, False)
    assert len((await engine.patterns(Filter(), limit=1)).patterns) == 1
    assert (await engine.patterns(Filter(q="level>=error"), limit=10)).patterns == [disk]
    engine.close()
    bounded = Engine(small, timeout=30, pattern_records=50)
    cut = await bounded.patterns(Filter(), limit=10)
    assert (cut.messages, cut.cut, sum(p.count for p in cut.patterns)) == (50, True, 50)
    bounded.close()


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


async def test_too_many_groups_end_an_aggregation(small: Store) -> None:
    await small.write([record(i) for i in range(40)])
    engine = Engine(small, timeout=30, max_groups=39)
    assert len(await engine.aggregate(Filter(q="hello"), ["level"])) == 1
    with pytest.raises(QueryLimit, match="more than 39 different values of timestamp"):
        await engine.aggregate(Filter(), ["timestamp"])
    engine.close()


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

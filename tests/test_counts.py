import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from samples import NOON, SECOND, in_batches, mixed, record  # type: ignore[import-not-found]  # pytest has this folder on the path

from logagg.protocols.record import LEVELS
from logagg.query.answers import Filter
from logagg.query.engine import Engine
from logagg.query.errors import QueryError, QueryLimit
from logagg.query.histogram import MAX_BINS
from logagg.sinks.store import Store


async def test_counts_by_columns_and_attributes(engine: Engine, small: Store) -> None:
    records = mixed(300)
    await in_batches(small, records, 40)
    by_two = (await engine.aggregate(Filter(), ["service", "level"])).rows
    assert {(r["service"], r["level"]): r["count"] for r in by_two} == Counter(
        (r.service, LEVELS[r.severity]) for r in records
    )
    assert [r["count"] for r in by_two] == sorted((r["count"] for r in by_two), reverse=True)
    users = (await engine.aggregate(Filter(level="ERROR"), ["attributes.user"])).rows
    assert {r["attributes.user"]: r["count"] for r in users} == Counter(
        str(orjson.loads(r.attributes)["user"]) if r.attributes else None for r in records if r.severity == 3
    )
    assert (await engine.aggregate(Filter(q="nothing"), ["service"])).rows == []


async def test_equal_counts_are_ordered_by_value_with_none_last(engine: Engine, small: Store) -> None:
    await small.write([record(service=s, severity=v) for s, v in [(None, 3), ("b", 3), ("a", 6), ("a", 3), ("b", 6)]])
    found = (await engine.aggregate(Filter(), ["service", "level"])).rows
    assert [(r["service"], r["level"]) for r in found] == [
        ("a", "ERROR"), ("a", "INFO"), ("b", "ERROR"), ("b", "INFO"), (None, "ERROR"),
    ]  # fmt: skip
    assert list(found[0]) == ["service", "level", "count"]


async def test_attributes_are_counted_as_text(engine: Engine, small: Store) -> None:
    values: list[Any] = [1, "1", 1.5, True, None, {"x": [1]}, "é"]
    await small.write([record(attributes={"a.b": value, "count": 1}) for value in values])
    found = (await engine.aggregate(Filter(), ["a.b"])).rows
    assert {r["a.b"]: r["count"] for r in found} == {"1": 2, "1.5": 1, "true": 1, None: 1, '{"x":[1]}': 1, "é": 1}
    assert (await engine.aggregate(Filter(), ["attributes.count"])).rows[0] == {"attributes.count": "1", "count": 7}
    assert len((await engine.aggregate(Filter(), ["timestamp", "id", "message", "host"])).rows) == 7


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


async def test_too_many_groups_end_an_aggregation(small: Store) -> None:
    await small.write([record(i) for i in range(40)])
    engine = Engine(small, timeout=30, max_groups=39)
    assert len((await engine.aggregate(Filter(q="hello"), ["level"])).rows) == 1
    with pytest.raises(QueryLimit, match="more than 39 different values of timestamp"):
        await engine.aggregate(Filter(), ["timestamp"])
    engine.close()


def expected_spread(values: list[float]) -> dict[str, Any]:
    ordered = sorted(values)
    places = {f"p{p}": ordered[max(0, -(-p * len(ordered) // 100) - 1)] for p in (50, 90, 95, 99)}
    average = pytest.approx(sum(ordered) / len(ordered))
    return {"numbers": len(values), "min": ordered[0], "max": ordered[-1], "avg": average} | places


async def test_the_spread_of_a_number_in_each_group(engine: Engine, small: Store) -> None:
    draw = random.Random(7)  # noqa: S311 - the same numbers each time
    values = {
        service: [draw.choice([-5, 0.5, 10, 10_000]) + draw.randrange(50) for _ in range(120)] for service in "ab"
    }
    records = [record(service=name, attributes={"d": {"ms": value}}) for name, each in values.items() for value in each]
    others: list[Any] = [None, "text", True, {"ms": 1}, "1e400"]
    records += [record(service="c", attributes={"d": {"ms": value}}) for value in others[:3]]
    records += [record(service="b", attributes={"d.ms": [1, "2.5", {"x": 3}]})]
    await in_batches(small, records, 40)
    found = (await engine.aggregate(Filter(), ["service"], "d.ms")).rows
    b = [*values["b"], 1, 2.5, 3]
    assert found == [
        {"service": "b", "count": 121} | expected_spread(b),
        {"service": "a", "count": 120} | expected_spread(values["a"]),
        {"service": "c", "count": 3, "numbers": 0} | dict.fromkeys(["min", "max", "avg", "p50", "p90", "p95", "p99"]),
    ]
    (everything,) = (await engine.aggregate(Filter(), [], "d.ms")).rows
    assert everything == {"count": 244} | expected_spread([*values["a"], *b])
    (none,) = (await engine.aggregate(Filter(service="c"), [], "d.ms")).rows
    assert (none["count"], none["numbers"], none["p99"]) == (3, 0, None)
    severities = (await engine.aggregate(Filter(), ["attributes.min"], "severity")).rows
    assert severities == [{"attributes.min": None, "count": 244} | expected_spread([6] * 244)]
    assert (await engine.aggregate(Filter(q="nowhere"), ["service"], "d.ms")).rows == []
    for by, of, said in [(["p50"], "d.ms", "p50 is the name of a result"), ([], "host", "host is a column without")]:
        with pytest.raises(QueryError, match=said):
            await engine.aggregate(Filter(), by, of)


async def test_too_many_different_numbers_end_an_aggregation(engine: Engine, small: Store, monkeypatch: Any) -> None:
    monkeypatch.setattr("logagg.query.spread.MAX_VALUES", 99)
    await in_batches(small, [record(attributes={"n": i}) for i in range(101)], 50)
    with pytest.raises(QueryLimit, match="more than 99 different numbers"):
        await engine.aggregate(Filter(), ["service"], "n")


#: A service, a level and a number over some hours, in an order of their own; service "d" has as many as "c".
SHARES = {"a": 90, "b": 60, None: 45, "c": 30, "d": 30, "e": 12}


def over_time() -> list[Any]:
    draw = random.Random(11)  # noqa: S311 - the same records each time
    services = [service for service, share in SHARES.items() for _ in range(share)]
    draw.shuffle(services)
    return [
        record(
            draw.randrange(-9000, 9000),
            service=service,
            severity=draw.choice([3, 6]),
            **({"attributes": {"ms": draw.randrange(20), "user": draw.choice("xyz")}} if draw.random() < 0.8 else {}),
        )
        for service in services
    ]


def expected_rows(records: list[Any], by: str, seconds: float, limit: int | None) -> list[tuple[datetime, Any, int]]:
    def value(each: Any) -> Any:
        return each.service if by == "service" else orjson.loads(each.attributes or "{}").get(by)

    epoch, width = datetime(1970, 1, 1, tzinfo=UTC), timedelta(seconds=seconds)
    totals = sorted(Counter(map(value, records)).items(), key=lambda each: (-each[1], each[0] is None, each[0]))
    kept = {name for name, _ in totals[:limit]}
    bins = Counter(
        (epoch + (each.timestamp - epoch) // width * width, value(each)) for each in records if value(each) in kept
    )
    rows = [(start, name, count) for (start, name), count in bins.items()]
    return sorted(rows, key=lambda row: (row[0], -row[2], row[1] is None, row[1]))


@pytest.mark.parametrize("packed", [False, True])
async def test_groups_by_bins_of_time_and_the_largest_of_them(engine: Engine, small: Store, packed: bool) -> None:
    records = over_time()
    await in_batches(small, records, 40)
    if packed:
        await small.roll()
        await small.pack_now()
    for by, seconds, limit in [
        ("service", 3600, None), ("service", 60, 3), ("service", 90, 4), ("attributes.user", 1800, 2),
        ("service", 0.5, 1),
    ]:  # fmt: skip
        interval = timedelta(seconds=seconds)
        found = await engine.aggregate(Filter(), [by], interval=interval, limit=limit)
        rows = [(r["time"], r[by], r["count"]) for r in found.rows]
        assert rows == expected_rows(records, by.removeprefix("attributes."), seconds, limit)
        assert list(found.rows[0]) == [by, "time", "count"]
    most = (await engine.aggregate(Filter(), ["service"], limit=4)).rows
    assert [(r["service"], r["count"]) for r in most] == [("a", 90), ("b", 60), (None, 45), ("c", 30)]


async def test_bins_of_minutes_are_counted_without_reading(engine: Engine, small: Store) -> None:
    records = [record(at * 1.2, service=["a", "b", None][at % 7 % 3]) for at in range(200)]
    await in_batches(small, records, 50)
    await small.roll()
    await small.pack_now()
    for seconds, limit in [(60, None), (120, 1), (3600, 2)]:
        found = await engine.aggregate(Filter(), ["service"], interval=timedelta(seconds=seconds), limit=limit)
        rows = [(r["time"], r["service"], r["count"]) for r in found.rows]
        assert rows == expected_rows(records, "service", seconds, limit)
        assert (found.stats.read, found.stats.skipped) == ({}, {"counted": 4})


async def test_bins_are_those_of_the_histogram(engine: Engine, small: Store) -> None:
    await small.write([*over_time(), record(timestamp=datetime(1, 1, 1, tzinfo=UTC), severity=3)])
    for interval in (timedelta(seconds=7), timedelta(minutes=11), timedelta(days=7)):
        for asked in (Filter(start=NOON - timedelta(minutes=90), end=NOON), Filter(level="ERROR", end=NOON)):
            if asked.start is None and interval < timedelta(days=1):
                continue
            bars = (await engine.histogram(asked, interval=interval)).bins
            rows = (await engine.aggregate(asked, ["level"], interval=interval)).rows
            counted: dict[datetime, dict[str, int]] = {}
            for row in rows:
                counted.setdefault(row["time"], {})[row["level"]] = row["count"]
            shown = {bar.start: bar.levels for bar in bars if bar.count}
            assert shown == {start: levels for start, levels in counted.items() if start >= bars[0].start}
    (first, *_) = (await engine.aggregate(Filter(), [], interval=timedelta(days=7))).rows
    assert first == {"time": datetime(1, 1, 1, tzinfo=UTC), "count": 1}


async def test_the_spread_of_a_number_over_time(engine: Engine, small: Store) -> None:
    records = over_time()
    await in_batches(small, records, 40)
    hour = timedelta(hours=1)
    rows = (await engine.aggregate(Filter(), ["service"], "ms", interval=hour, limit=2)).rows
    assert {row["service"] for row in rows} == {"a", "b"}
    for row in rows:
        inside = [r for r in records if r.service == row["service"] and 0 <= (r.timestamp - row["time"]) / hour < 1]
        values = [orjson.loads(r.attributes)["ms"] for r in inside if r.attributes]
        assert row == {"service": row["service"], "time": row["time"], "count": len(inside)} | expected_spread(values)


@pytest.mark.parametrize("of", [None, "ms"])
async def test_groups_in_bins_are_counted_before_the_limit_and_bounded(small: Store, of: str | None) -> None:
    records = over_time()
    few = Engine(small, timeout=30, max_groups=39)
    for _ in ("open", "packed, with summaries"):
        await small.write(records * 10)
        with pytest.raises(QueryLimit, match="more than 39 different values of service, bins of 60 s; count by less"):
            await few.aggregate(Filter(), ["service"], of, interval=timedelta(minutes=1), limit=1)
        assert len((await few.aggregate(Filter(), ["service"], of, interval=timedelta(days=9), limit=1)).rows) == 1
        await small.roll()
        await small.pack_now()
    few.close()


async def test_bins_too_small_and_names_that_are_taken(engine: Engine, small: Store) -> None:
    await small.write(over_time())
    with pytest.raises(QueryError, match=r"time is the name of a result; .* is attributes\.time"):
        await engine.aggregate(Filter(), ["time"], interval=timedelta(minutes=1))
    with pytest.raises(QueryError, match=r"interval of 0 s, at least 0\.001 s"):
        await engine.aggregate(Filter(), ["level"], interval=timedelta(0))
    assert (await engine.aggregate(Filter(), ["time"])).rows == [{"time": None, "count": sum(SHARES.values())}]
    assert (await engine.aggregate(Filter(q="nowhere"), [], interval=timedelta(hours=1), limit=3)).rows == []


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "at", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)], ids=["first", "last"]
)
async def test_a_batch_of_the_first_or_last_microsecond_there_is(
    engine: Engine, small: Store, at: datetime, packed: bool
) -> None:
    """asyncpg stores these two as infinities."""
    await small.write([record(timestamp=at) for _ in range(3)])
    await small.roll()
    if packed:
        await small.pack_now()
    exactly = Filter(q=f"timestamp={at.isoformat()}")
    for asked in (Filter(), Filter(start=at), Filter(end=at), Filter(start=at, end=at), exactly):
        assert (await engine.aggregate(asked, [])).rows == [{"count": 3}]
    page = await engine.search(Filter(), limit=2)
    assert len((await engine.search(Filter(), limit=2, cursor=page.cursor)).records) == 1

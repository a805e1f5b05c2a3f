"""What is new, what grew, and which record is of which pattern."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from samples import NOON, in_batches, record  # type: ignore[import-not-found]  # pytest has this folder on the path

from logagg.query.answers import Filter, Members
from logagg.query.engine import Engine
from logagg.query.errors import QueryError, QueryLimit
from logagg.query.patterns import member_lines
from logagg.query.templates import mine

if TYPE_CHECKING:
    from logagg.sinks.store import Store
    from logagg.tests.daemons import RunningDaemon

HOUR = timedelta(hours=1)


#: Minutes before noon, at which messages of each form came.
CAME: dict[str, list[float]] = {
    "disk {} failed": [1, 2, 59],
    "login of user{} refused": [10, 20, 60.5, 119, 120.5],
    "cache {} full": [5, 150],
    "queue {} stopped": [61, 62],
    "heartbeat {}": [*range(1, 180, 2)],
}


async def fill(store: Store) -> None:
    records = [
        record(-60 * at, form.format(n), service=f"s{n % 3}")
        for form, times in CAME.items()
        for n, at in enumerate(times)
    ]
    random.Random(3).shuffle(records)  # noqa: S311 - the same order each time
    await in_batches(store, records, 40)


async def test_what_is_new_and_what_grew(engine: Engine, small: Store) -> None:
    await fill(small)
    asked = Filter(start=NOON - 3 * HOUR, end=NOON)
    found = await engine.patterns(asked, limit=10, new_since=NOON - HOUR)
    assert [(p.template, p.count, p.new, p.before, p.growth) for p in found.patterns] == [
        ("disk <*> failed", 3, True, 0, None),
        ("cache <*> full", 1, False, 0, None),
        ("heartbeat <*>", 30, False, 30, 1.0),
        ("login of user<*> refused", 2, False, 2, 1.0),
    ]
    disk, cache = found.patterns[:2]
    assert (disk.first_seen, disk.last_seen) == (NOON - timedelta(minutes=59), NOON - timedelta(minutes=1))
    assert (cache.first_seen, cache.example, cache.levels) == (
        NOON - timedelta(minutes=150),
        "cache 0 full",
        {"INFO": 1},
    )
    shorter = await engine.patterns(Filter(start=NOON - 2 * HOUR, end=NOON), limit=10, new_since=NOON - HOUR)
    assert [p.template for p in shorter.patterns if p.new] == ["cache <*> full", "disk <*> failed"][::-1]
    assert [p.template for p in (await engine.patterns(asked, limit=1, new_since=NOON - HOUR)).patterns] == [
        "disk <*> failed"
    ]


async def test_the_window_before_is_looked_at_even_if_it_was_not_asked_for(engine: Engine, small: Store) -> None:
    await fill(small)
    asked = Filter(start=NOON - HOUR, end=NOON)
    for middle in (NOON - HOUR, NOON - 90 * timedelta(minutes=1)):
        found = await engine.patterns(asked, limit=10, new_since=middle)
        length = NOON - middle
        for each in found.patterns:
            minutes = next(at for form, at in CAME.items() if form[:4] == each.template[:4])
            ago = [timedelta(minutes=at) for at in minutes]
            assert each.count == sum(at <= length for at in ago)
            assert each.before == sum(length < at <= 2 * length for at in ago)
            assert each.new is (each.before == 0)
    assert len(found.patterns) == 5


async def test_without_the_question_there_is_no_answer_to_it(engine: Engine, small: Store) -> None:
    await fill(small)
    found = await engine.patterns(Filter(), limit=10)
    assert [(p.count, p.new, p.before, p.growth) for p in found.patterns] == [
        (len(times), None, None, None) for times in sorted(CAME.values(), key=len, reverse=True)
    ]


async def test_the_first_time_there_is_and_times_that_make_no_sense(engine: Engine, small: Store) -> None:
    await fill(small)
    first = datetime(1, 1, 2, tzinfo=UTC)
    found = await engine.patterns(Filter(), limit=10, new_since=first)
    assert {p.template: p.new for p in found.patterns}["cache <*> full"]
    for since in (NOON, NOON + HOUR):
        with pytest.raises(QueryError, match="is not before the end of the time asked for"):
            await engine.patterns(Filter(end=NOON), limit=10, new_since=since)


async def test_what_cannot_be_told_is_not_told(small: Store) -> None:
    await fill(small)
    engine = Engine(small, timeout=30, member_records=60)
    asked = Filter(start=NOON - 3 * HOUR, end=NOON)
    with pytest.raises(QueryLimit, match="more than 60 messages since 2026-11-20T10:00:00Z, where the window before"):
        await engine.patterns(asked, limit=10, new_since=NOON - HOUR)
    found = await engine.patterns(asked, limit=10, new_since=NOON - HOUR / 2)
    assert (found.cut, found.messages) == (True, 60)
    assert {p.template: (p.count, p.before) for p in found.patterns}["heartbeat <*>"] == (15, 15)
    engine.close()


async def test_text_that_is_different_each_time_ends_the_reading(
    engine: Engine, small: Store, monkeypatch: Any
) -> None:
    monkeypatch.setattr("logagg.query.patterns.MAX_TEXT", 3000)
    draw = random.Random(5)  # noqa: S311 - the same text each time
    words = ["".join(draw.choices("abcdefghij", k=8)) for _ in range(2000)]
    await in_batches(small, [record(at, " ".join(draw.choices(words, k=6))) for at in range(250)], 50)
    found = await engine.patterns(Filter(), limit=1000)
    assert found.cut
    assert found.messages == sum(p.count for p in found.patterns) < 250
    assert found.messages >= 50
    members = await engine.members(Filter())
    assert members.cut
    assert members.records.height < 250


async def test_each_record_and_its_pattern(engine: Engine, small: Store) -> None:
    await fill(small)
    stored = (await engine.search(Filter(), limit=1000)).records
    mined = mine([each["message"] for each in stored])
    expected = [
        {"id": each["id"], "pattern": mined.templates[label]} for each, label in zip(stored, mined.labels, strict=True)
    ]
    assert lines(await engine.members(Filter())) == expected
    disks = [each for each in expected if each["pattern"].startswith("disk")]
    assert lines(await engine.members(Filter(q="disk"))) == disks
    assert lines(await engine.members(Filter(q="nothing"))) == []


def lines(found: Members) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in b"".join(member_lines(found)).splitlines()]


async def test_the_newest_members_and_that_there_are_more(small: Store) -> None:
    await fill(small)
    engine = Engine(small, timeout=30, member_records=70)
    newest = (await engine.search(Filter(), limit=70)).records
    found = lines(await engine.members(Filter()))
    assert [each["id"] for each in found[:-1]] == [each["id"] for each in newest]
    assert found[-1] == {"incomplete": "only the newest 70 records that match"}
    engine.close()


async def test_over_http(daemon: RunningDaemon) -> None:
    now = datetime.now(UTC)
    logs = [
        {"timestamp": (now - timedelta(minutes=at)).isoformat(), "level": level, "message": message, "service": "s"}
        for at, level, message in [
            (5, "error", 'disk "a" 1 failed'), (70, "error", "é 7 lost"), (6, "error", "é 8 lost"), (7, "info", "fine"),
        ]
    ]  # fmt: skip
    async with daemon.http.post("/ingest", json=logs) as answer:
        assert answer.status == 200
    stored = await daemon.logs()
    for since in ("1h", "60m", (now - HOUR).isoformat(), str((now - HOUR).timestamp())):
        async with daemon.http.get("/logs/patterns", params={"new_since": since}) as answer:
            found = [(p["pattern"], p["new"], p["before"], p["growth"]) for p in await answer.json()]
            assert found == [('disk "a" <*> failed', True, 0, None), ("é <*> lost", False, 1, 1.0)]
    async with daemon.http.get("/logs/patterns") as answer:
        assert "new" not in (await answer.json())[0]
    for wrong in ("0h", "soon", "1 h", ""):
        async with daemon.http.get("/logs/patterns", params={"new_since": wrong}) as answer:
            assert (answer.status, (await answer.json())["detail"][0]["loc"]) == (422, ["query", "new_since"])
    async with daemon.http.get("/logs/patterns", params={"new_since": "2999-01-01"}) as answer:
        assert answer.status == 400
    async with daemon.http.get("/logs/patterns/members") as answer:
        assert answer.content_type == "application/x-ndjson"
        told = [orjson.loads(line) for line in (await answer.read()).splitlines()]
        assert [each["id"] for each in told] == [each["id"] for each in stored]
        assert Counter(each["pattern"] for each in told)["é <*> lost"] == 2
    async with daemon.http.get("/logs/patterns/members", params={"level": "INFO"}) as answer:
        assert [orjson.loads(line)["pattern"] for line in (await answer.read()).splitlines()] == ["fine"]
    async with daemon.http.get("/logs/patterns/members", params={"q": "("}) as answer:
        assert answer.status == 422
    async with daemon.http.head("/logs/patterns/members") as answer:
        assert answer.status == 200

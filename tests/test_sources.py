"""Who sends: what the table of sources says, with real daemons."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from logagg.collector import sources
from logagg.protocols.json_columns import FEW
from logagg.sinks.sources import CANARY, MINUTES, MOST, OTHERS, Seen

if TYPE_CHECKING:
    import asyncpg

    from logagg.sinks.store import Store
    from logagg.tests.daemons import RunningDaemon, Starter

#: When a test began.
NOW = datetime.min.replace(tzinfo=UTC)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PERIOD", 0.1)
    monkeypatch.setattr(sources, "LOOK", 0.1)
    monkeypatch.setitem(globals(), "NOW", datetime.now(UTC))


def seen(ago: float, *, last: float | None = None, records: int = 1, **more: Any) -> Seen:
    """What a source sent, from so many seconds ago until so many."""
    until = NOW - timedelta(seconds=ago if last is None else last)
    made = Seen("web", "shop", "", "tcp", NOW - timedelta(seconds=ago), until, records, 10 * records, 0.5)
    return made._replace(**more)


async def known(daemon: RunningDaemon, **asked: str) -> list[dict[str, Any]]:
    async with daemon.http.get("/sources", params=asked) as answer:
        assert answer.status == 200, await answer.text()
        found: list[dict[str, Any]] = await answer.json()
        return found


async def until(daemon: RunningDaemon, records: int) -> list[dict[str, Any]]:
    """Wait until so many records are counted in all."""
    async with asyncio.timeout(30):
        while sum(each["records"] for each in await known(daemon)) < records:
            await asyncio.sleep(0.02)
    return await known(daemon)


def log(host: str, service: str, **more: Any) -> dict[str, Any]:
    return {"host": host, "service": service, "message": "m", **more}


async def test_every_record_is_counted_for_its_source(start_daemon: Starter) -> None:
    daemon = await start_daemon(environment="live")
    late = (datetime.now(UTC) - timedelta(seconds=1000)).isoformat()
    body = [log("web1", "shop", timestamp=late) for _ in range(300)] + [log("web2", "till") for _ in range(200)]
    for part in (body, body[:1], body[-2:]):  # by columns, and one by one
        async with daemon.http.post("/ingest", json=part) as answer:
            assert answer.status == 200
    await daemon.tcp("syslog_tcp_listen", b"<13>Nov 22 10:00:00 web1 shop: m\n" * 3)
    found = {(each["host"], each["service"], each["transport"]): each for each in await until(daemon, 506)}
    assert {key: each["records"] for key, each in found.items()} == {
        ("web1", "shop", "http"): 301, ("web2", "till", "http"): 202, ("web1", "shop", "syslog-tcp"): 3,
    }  # fmt: skip
    shop = found["web1", "shop", "http"]
    assert 1000 <= shop["clock_skew"] < 1100
    assert shop["environment"] == "live"
    assert shop["bytes"] > 301 * 20
    assert shop["rate"] > 0
    assert -60 < found["web2", "till", "http"]["clock_skew"] < 60
    assert [each["service"] for each in await known(daemon, host="web2")] == ["till"]
    assert await known(daemon, silent="true") == []
    assert len(await known(daemon, silent_for="1d")) == 0
    async with asyncio.timeout(30):
        while await daemon.metric("logagg_sources") < 3:
            await asyncio.sleep(0.02)
    labels = {"host": "web2", "service": "till", "environment": "live", "transport": "http"}
    last_seen = datetime.fromisoformat(found["web2", "till", "http"]["last_seen"]).timestamp()
    assert await daemon.metric("logagg_source_last_seen_timestamp_seconds", **labels) >= last_seen


async def test_pauses_make_the_usual_interval_and_long_ones_are_gaps(store: Store) -> None:
    table = store.sources
    await table.add([seen(10_000)])
    (first,) = await table.all()
    assert (first.usual_interval, first.silent, first.gaps) == (None, False, 0)  # nothing is expected of it yet
    for ago in range(9_970, 8_000, -30):
        await table.add([seen(ago), seen(ago, service="hourly")])
    regular = {each.service: each for each in await table.all()}["shop"]
    assert regular.usual_interval == pytest.approx(30)
    assert (regular.gaps, regular.longest_gap) == (0, None)
    assert regular.silent
    await table.add([seen(4_000, last=3_990)])
    (again,) = [each for each in await table.all() if each.service == "shop"]
    assert again.gaps == 1
    assert again.longest_gap == pytest.approx(4_020)
    assert 30 < (again.usual_interval or 0) <= 30 + 0.25 * 270.1  # one outage does not make outages usual
    await table.add([seen(0)])
    (now,) = [each for each in await table.all() if each.service == "shop"]
    assert (now.gaps, now.silent) == (2, False)
    assert now.longest_gap == pytest.approx(4_020)


async def test_a_source_is_expected_once_it_was_seen_in_ten_minutes(store: Store) -> None:
    table = store.sources
    minute = 60 * (int(NOW.timestamp()) // 60) - 20_000 * 60
    for lot in range(18):  # a file that is sent within a minute and a half, by lots
        await table.add([_at(minute + 5 * lot, "file")])
    for number in range(10):
        assert not any(each.silent for each in await table.all())
        await table.add([_at(minute + 60 * number, "steady"), _at(minute + 60 * number + 30, CANARY)])
    assert {each.service: each.silent for each in await table.all()} == {"file": False, "steady": True, CANARY: False}


async def test_a_job_of_once_a_day_is_not_told_silent_between_its_first_runs(
    store: Store, sql: asyncpg.Connection
) -> None:
    first = NOW.timestamp() - 20 * 86_400
    for day in range(20):
        await store.sources.add([_at(first + 86_400 * day, "daily")])
        row = await sql.fetchrow("select minutes, quiet_after from sources")
        assert row["minutes"] == day + 1
        assert day < MINUTES - 1 or row["quiet_after"] > 86_400


def _at(time: float, service: str) -> Seen:
    moment = datetime.fromtimestamp(time, UTC)
    return Seen("web", service, "", "tcp", moment, moment, 1, 10, 0.5)


async def test_bursts_with_long_pauses_between_are_learnt(store: Store) -> None:
    table = store.sources
    for hours in range(60, 0, -1):
        for second in (3, 2, 1):  # a burst of three writes
            await table.add([seen(hours * 3600 - 1800 + second)])
    (hourly,) = await table.all()
    assert 1800 < (hourly.usual_interval or 0) <= 3600
    assert not hourly.silent  # its last burst is half an hour ago
    assert hourly.gaps < 20


async def test_the_rate_is_that_of_the_last_minutes(store: Store, sql: asyncpg.Connection) -> None:
    for ago in range(3600, 0, -20):
        await store.sources.add([seen(ago, last=ago - 19.9, records=200)])
    assert await sql.fetchval("select rate from sources") == pytest.approx(10, rel=0.05)
    (source,) = await store.sources.all()
    assert (source.records, source.bytes) == (36_000, 360_000)
    await sql.execute("update sources set last_seen = now() - interval '10 minutes', rate = 10")
    (later,) = await store.sources.all()
    assert 0 < later.rate < 10 / 7  # twice five minutes: less than 1/e of 1/e


async def test_daemons_that_write_at_once_lose_nothing(store: Store, database_url: str) -> None:
    from logagg.sinks.store import Store

    other = await Store.open(database_url)
    some = [seen(100, service=f"s{number}") for number in range(50)]
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            turned = some if number % 2 else some[::-1]
            group.create_task((store if number % 3 else other).sources.add(turned))
    await other.close()
    assert {each.records for each in await store.sources.all()} == {20}


async def test_more_sources_than_the_table_takes_are_counted_together(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logagg.sinks.sources.MOST", 3)
    await store.sources.add([seen(10, service=f"s{number}", records=2) for number in range(5)])
    await store.sources.add([seen(9, service=f"s{number}") for number in range(1, 9)])
    found = {each.service: each.records for each in await store.sources.all()}
    assert sum(found.values()) == 18
    assert len(found) == 4
    assert found[OTHERS] == 18 - sum(found[service] for service in found if service != OTHERS)


def test_what_waits_is_bounded() -> None:
    waiting: dict[sources.Key, Seen] = {}
    sources.merge(waiting, (seen(1, host=f"h{number}") for number in range(MOST + 50)))
    sources.merge(waiting, [seen(2, host="h0", records=3, skew=4.5)])
    assert len(waiting) == MOST + 1
    assert waiting["", OTHERS, "", "tcp"].records == 50
    assert waiting["h0", "shop", "", "tcp"][4:] == (*seen(2, last=1)[4:6], 4, 40, 3.5)


async def test_names_that_an_index_does_not_take(daemon: RunningDaemon) -> None:
    long = "\U0001f600" * 129
    for body in ([log(long, long)], [log(long, long, environment=long)] * FEW, [log("a\0b", "\udcff")]):
        async with daemon.http.post("/ingest", json=body) as answer:
            assert answer.status == 200
    found = await until(daemon, FEW + 2)
    assert {len(each["host"]) for each in found} == {128, 3}


async def test_sources_that_were_not_seen_for_long_are_dropped(store: Store) -> None:
    await store.sources.add([seen(7200), seen(100, service="till")])
    await store.sources.expire(timedelta(hours=1))
    assert [each.service for each in await store.sources.all()] == ["till"]


async def test_sources_are_forgotten_by_name(store: Store) -> None:
    table = store.sources
    some = [seen(9, host=host, service=service) for host in ("web", "") for service in ("shop", "till", "")]
    await table.add([*some, seen(9, transport="http", environment="live")])
    assert await table.forget("web", "shop", None, "tcp") == 1
    assert await table.forget(None, "", None, None) == 2
    assert await table.forget(None, None, "live", None) == 1
    assert await table.forget("none", None, None, None) == 0
    assert [(each.host, each.service) for each in await table.all()] == [
        (None, "shop"),
        (None, "till"),
        ("web", "till"),
    ]

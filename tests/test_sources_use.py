"""Who sends: how it is asked for, and what happens while PostgreSQL is away."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from click.testing import CliRunner, Result

from logagg.cli.main import cli
from logagg.collector import access, sources
from logagg.collector.buffer import Chunk, RingBuffer
from logagg.collector.flusher import Flusher
from logagg.collector.journaling import Journaling
from logagg.collector.metrics import Metrics
from logagg.collector.sources import Watch
from logagg.protocols.json_lines import decode_lines
from logagg.protocols.record import Origin
from logagg.sinks import tokens
from logagg.sinks.errors import StoreUnavailable
from logagg.sinks.journal import Journal
from logagg.sinks.sources import CANARY, Seen
from logagg.sinks.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from logagg.tests.daemons import RunningDaemon
    from logagg.tests.processes import free_port, process, wait_ready
else:
    from processes import free_port, process, wait_ready

#: When a test began.
NOW = datetime.min.replace(tzinfo=UTC)


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LOOK", 0.1)
    monkeypatch.setitem(globals(), "NOW", datetime.now(UTC))


def seen(service: str, *seconds: float) -> list[Seen]:
    """What was seen so many seconds ago."""
    times = [NOW - timedelta(seconds=each) for each in seconds]
    return [Seen("web", service, "", "tcp", time, time, 5, 500, -0.25) for time in times]


@pytest.fixture
async def filled(daemon: RunningDaemon, database_url: str) -> RunningDaemon:
    """A daemon that knows who sends, who is silent, who came once; and of a canary that was switched off."""
    store = await Store.open(database_url)
    quiet = [*seen("till", *range(1500, 800, -10)), *seen("once", 7200), *seen(CANARY, *range(9000, 7000, -10))]
    for lot in (*seen("shop", 40, 30, 20, 10, 0), *quiet):
        await store.sources.add([lot])
    await store.close()
    return daemon


async def asked(daemon: RunningDaemon, *arguments: str) -> Result:
    url = f"http://{daemon.listening['http_listen']}"
    return await asyncio.to_thread(CliRunner().invoke, cli, ["sources", *arguments, "--url", url], prog_name="logagg")


async def test_the_command(filled: RunningDaemon) -> None:
    text = await asked(filled)
    assert text.exit_code == 0
    header, *lines = text.stdout.splitlines()
    assert header.split() == [
        "HOST",
        "SERVICE",
        "TRANSPORT",
        "LAST",
        "SEEN",
        "RECORDS",
        "RATE",
        "SKEW",
        "USUAL",
        "GAPS",
    ]
    assert [line.split()[1] for line in lines] == [CANARY, "once", "shop", "till"]
    assert lines[1].split()[3] == "2h0m"
    assert lines[3].split()[3].startswith("13m")
    assert lines[2].split()[5:6] == ["25"]
    assert lines[2].split()[7:] == ["-0.25s", "10s", "0"]
    rows = [
        json.loads(line) for line in (await asked(filled, "-o", "jsonl", "--sort", "last-seen")).stdout.splitlines()
    ]
    assert [row["service"] for row in rows] == ["shop", "till", CANARY, "once"]
    assert rows[0]["host"] == "web"
    assert rows[0]["environment"] is None


async def test_who_is_silent(filled: RunningDaemon) -> None:
    silent = await asked(filled, "--silent", "-o", "json")
    assert (silent.exit_code, [row["service"] for row in json.loads(silent.stdout)]) == (1, ["till"])
    for_long = await asked(filled, "--silent", "10m", "-o", "json")
    assert (for_long.exit_code, [row["service"] for row in json.loads(for_long.stdout)]) == (1, ["once", "till"])
    none = await asked(filled, "--silent", "--service", "shop")
    assert (none.exit_code, none.stdout) == (0, "")
    wrong = await asked(filled, "--silent", "soon")
    assert wrong.exit_code == 2
    assert "--silent: expected a whole number" in wrong.stderr
    async with asyncio.timeout(30):
        while await filled.metric("logagg_sources_silent") != 1:
            await asyncio.sleep(0.02)
    async with filled.http.get("/metrics") as answer:
        told = [line for line in (await answer.text()).splitlines() if line.startswith("logagg_source_last_seen")]
    assert len(told) == 3
    assert not any(CANARY in line for line in told)


async def test_forget(filled: RunningDaemon) -> None:
    till = ["forget", "--service", "till", "--host"]
    for other in ([*till, "other"], [*till, "other", "--dry-run"], [*till, "other", "-o", "jsonl"]):
        none = await asked(filled, *other)
        assert (none.exit_code, none.stderr) == (1, "there is no source of service 'till', host 'other'\n")
        assert none.stdout == ('{"forgotten":0}\n' if "jsonl" in other else "")
    for _ in range(2):  # it is there still
        shown = await asked(filled, *till, "web", "--dry-run")
        assert (shown.exit_code, shown.stderr) == (0, "1 source would be forgotten\n")
        assert [line.split()[1] for line in shown.stdout.splitlines()] == ["SERVICE", "till"]
    done = await asked(filled, *till, "web")
    assert (done.exit_code, done.stdout) == (0, "forgot 1 source\n")
    assert (await asked(filled, "--silent")).exit_code == 0
    assert json.loads((await asked(filled, "forget", "--transport", "tcp", "-o", "json")).stdout) == [{"forgotten": 3}]
    shop = await asked(filled, "--service", "shop")
    assert (shop.exit_code, shop.stdout, shop.stderr) == (0, "", "there is no source of service 'shop'\n")
    none = await asked(filled)
    assert (none.exit_code, none.stdout) == (0, "")
    assert none.stderr == "nothing was seen yet; a source is told some seconds after its first record\n"
    none = await asked(filled, "forget")
    assert (none.exit_code, "say which" in none.stderr) == (2, True)
    async with filled.http.delete("/sources") as answer:
        assert answer.status == 400


def test_names_before_forget_are_not_left_out_of_it() -> None:
    result = CliRunner().invoke(cli, ["sources", "--host", "web", "forget", "--service", "shop"])
    assert (result.exit_code, "--host goes behind `forget`" in result.stderr) == (2, True)


async def test_a_token_for_one_service_sees_its_sources(
    filled: RunningDaemon, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "PERIOD", 0.02)
    secret = await tokens.create(sql, "till", ["query"], ["till"])
    sender = await tokens.create(sql, "sender", ["ingest"])
    async with asyncio.timeout(20):
        while (await filled.http.get("/sources")).status != 401:
            await asyncio.sleep(0.02)
    found = await asked(filled, "--token", secret, "-o", "jsonl")
    assert [json.loads(line)["service"] for line in found.stdout.splitlines()] == ["till"]
    assert (await asked(filled, "--token", sender)).exit_code == 2


async def test_what_went_to_the_journal_is_counted_once_and_written_later(tmp_path: Path, database_url: str) -> None:
    metrics, buffer = Metrics(), RingBuffer(1000, 1 << 20)
    away, there = Store("postgresql://nobody@127.0.0.1:1/none"), await Store.open(database_url)
    journal = Journal.open(tmp_path, 1 << 20)
    journaling = Journaling(journal, away, metrics)
    watch = Watch(away.sources, metrics)
    flusher = Flusher(
        buffer, away, metrics, lanes=1, max_records=100, interval=0, refuge=journaling, patience=0.1, saw=watch.saw
    )
    flushing = asyncio.create_task(flusher.run())
    line = b'{"host": "web", "service": "shop", "message": "m"}'
    await buffer.put(Chunk("tcp", decode_lines([line] * 3, Origin(NOW, "tcp", "::1")), 150))
    await buffer.empty()
    flushing.cancel()
    assert journal.records == 3
    with pytest.raises(Exception, match="has not answered"):
        await watch.flush()
    watch._sources = there.sources
    await watch.flush()
    await watch.flush()
    (source,) = await there.sources.all()
    assert (source.host, source.service, source.records, source.bytes) == ("web", "shop", 3, 150)
    await asyncio.gather(flushing, return_exceptions=True)
    journal.close()
    await there.close()


async def test_a_write_that_fails_half_way_counts_nothing_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_AT_ONCE", 2)
    add, failures = store.sources.add, iter([None, StoreUnavailable("away")])

    async def add_or_fail(seen: list[Seen]) -> None:
        if error := next(failures, None):
            raise error
        await add(seen)

    monkeypatch.setattr(store.sources, "add", add_or_fail)
    watch = Watch(store.sources, Metrics())
    lines = [b'{"host": "h%d", "message": "m"}' % number for number in range(5)]
    watch.saw([Chunk("tcp", decode_lines(lines, Origin(NOW, "tcp", "::1")), 150)])
    with pytest.raises(StoreUnavailable):
        await watch.flush()
    assert len(await store.sources.all()) == 2
    await watch.flush()
    assert [each.records for each in await store.sources.all()] == [1] * 5


async def test_what_is_being_counted_during_a_write_or_a_stop_is_not_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, began = threading.Event(), asyncio.Event()
    loop, count = asyncio.get_running_loop(), sources.count

    def slow(*chunks: Any) -> list[Seen]:
        loop.call_soon_threadsafe(began.set)
        release.wait(20)
        return count(*chunks)

    monkeypatch.setattr(sources, "count", slow)
    watch = Watch(store.sources, Metrics())
    for end in ("write", "stop"):
        began.clear()
        release.clear()
        watch.saw([Chunk("tcp", decode_lines([b'{"message": "m"}'], Origin(NOW, "tcp", "::1")), 150)])
        counting = asyncio.create_task(watch._counted())
        await began.wait()
        if end == "write":
            await watch.flush()
        else:
            counting.cancel()
            await asyncio.sleep(0)
        release.set()
        await asyncio.gather(counting, return_exceptions=True)
        await watch.flush()
    assert [each.records for each in await store.sources.all()] == [2]


async def test_a_daemon_that_stops_writes_what_it_has_seen(database_url: str) -> None:
    port = free_port()
    with process(database_url=database_url, http_listen=f"127.0.0.1:{port}") as running:
        await asyncio.to_thread(wait_ready, port)
        async with aiohttp.request("POST", f"http://127.0.0.1:{port}/ingest", json=[{"message": "last"}]) as answer:
            assert answer.status == 200
        running.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.wait, 30) == 0
    store = await Store.open(database_url)
    assert [(each.service, each.transport, each.records) for each in await store.sources.all()] == [(None, "http", 1)]
    await store.close()

"""How much a source may send: what its sender sees of it, over each kind of listener."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from logagg.collector import limits
from logagg.collector.limits import Limits
from logagg.collector.metrics import Metrics
from logagg.sinks import tokens

if TYPE_CHECKING:
    import asyncpg

    from logagg.tests.daemons import RunningDaemon, Starter

BODY = "\n".join(['{"message":"m"}'] * 30)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_is_taken_and_then_paid(clock: Clock) -> None:
    some = Limits(Metrics(), 10, 1000, 2, clock)
    assert some.charge("a", 20, 20) == 0  # two seconds' worth
    assert some.charge("a", 5, 5) == 0.5
    assert some.charge("b", 1, 1) == some.wait("c") == 0  # each has its own
    clock.now += 0.5
    assert some.wait("a") == 0
    assert some.charge("a", 1, 10) == pytest.approx(0.1)
    clock.now += 3600  # a long silence is worth no more than the burst
    assert some.charge("a", 21, 1) == pytest.approx(0.1)
    clock.now += 3600
    assert some.charge("a", 1, 3000) == pytest.approx(1)  # whichever is used up first
    clock.now += 3600
    assert some.charge("a", 0, 0) == 0


def test_without_limits_nothing_is_kept(clock: Clock) -> None:
    none = Limits(Metrics(), now=clock)
    assert none.charge("a", 10**9, 10**12) == none.wait("a") == 0
    only_bytes = Limits(Metrics(), size=1000, burst=1, now=clock)
    assert only_bytes.charge("a", 10**9, 1000) == 0
    assert only_bytes.charge("a", 0, 500) == 0.5


def test_sources_are_bounded_and_those_that_send_are_remembered(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_SOURCES", 3)
    some = Limits(Metrics(), 1, burst=0, now=clock)
    for source in ("a", "b", "a", "c", "a", "d"):
        some.charge(source, 5, 0)
    assert some.wait("a") == 15
    assert some.wait("b") == 0
    assert some.wait("d") == 5


def test_names_in_metrics_are_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_NAMES", 2)
    metrics = Metrics()
    some = Limits(metrics, 1, now=clock)
    for source in ("a", "b", "c", "d", "a"):
        some.over(source, "tcp")
    counted = {name: metrics.registry.get_sample_value("logagg_limited_total", {"source": name}) for name in "abcd"}
    assert counted == {"a": 2, "b": 1, "c": None, "d": None}
    assert metrics.registry.get_sample_value("logagg_limited_total", {"source": limits.OTHERS}) == 2


# --- Real senders ----------------------------------------------------------------------------------------------------


async def post(daemon: RunningDaemon, path: str = "/ingest", secret: str = "", body: str = BODY) -> tuple[int, str]:
    """Send a body; return the status, and when to come again."""
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    async with daemon.http.post(path, data=body, headers=headers) as answer:
        text = await answer.text()
        if answer.status != 200 and path == "/ingest":
            assert "is over its limit of records or bytes a second" in text
        return answer.status, answer.headers.get("Retry-After", "")


async def test_over_http_a_sender_is_told_to_come_again(start_daemon: Starter) -> None:
    daemon = await start_daemon(limit_records=1, limit_burst="10s")
    assert await post(daemon) == (200, "")  # 30 records, of which 10 may come at once
    status, seconds = await post(daemon)
    assert status == 503
    assert 10 <= int(seconds) <= 21
    for path in ("/services/collector/raw", "/loki/api/v1/push", "/v1/logs", "/_bulk"):
        status, seconds = await post(daemon, path)
        assert (status, bool(seconds)) == (503, True)
    assert len(await daemon.logs()) == 30  # to ask is no sending
    assert await daemon.metric("logagg_limited_total", source="127.0.0.1") == 5
    assert await daemon.metric("logagg_records_received_total", transport="http") == 30


async def test_each_token_has_its_own(start_daemon: Starter, sql: asyncpg.Connection) -> None:
    first, second = [await tokens.create(sql, name, ["ingest", "query", "admin"]) for name in ("first", "second")]
    daemon = await start_daemon(limit_bytes=1024, limit_burst="1ms")
    async with asyncio.timeout(20):
        while (await post(daemon, "/ingest", first, '{"message":""}'))[0] != 200:  # the daemon hears of tokens
            await asyncio.sleep(0.05)
    long = f'{{"message":"{"x" * 50_000}"}}'
    assert (await post(daemon, "/ingest", second, long))[0] == 200
    assert (await post(daemon, "/ingest", second))[0] == 503
    async with asyncio.timeout(20):
        while (await post(daemon, "/ingest", first))[0] != 200:
            await asyncio.sleep(0.05)


async def test_a_connection_that_is_over_is_not_read_and_nothing_is_lost(start_daemon: Starter) -> None:
    daemon = await start_daemon(limit_records=4000, limit_burst="100ms")
    count = 4000
    lines = b'{"message":"m"}\n' * (count // 4)
    for _ in range(4):
        await daemon.tcp("tcp_listen", lines)
    assert len(await daemon.logs(limit="10000")) == count
    assert await daemon.metric("logagg_limited_total", source="127.0.0.1") >= 1


async def test_a_stop_does_not_wait_for_a_limit(start_daemon: Starter) -> None:
    daemon = await start_daemon(limit_records=1, limit_burst="1s")
    _, writer = await asyncio.open_connection(*daemon.listening["tcp_listen"])
    writer.write(b'{"message":"m"}\n' * 1000)
    async with asyncio.timeout(20):
        while not await daemon.metric("logagg_limited_total", source="127.0.0.1"):
            await asyncio.sleep(0.01)
    writer.close()  # the rest of the test is that the fixture ends


async def test_datagrams_over_the_limit_are_dropped_and_counted(start_daemon: Starter) -> None:
    daemon = await start_daemon(limit_records=1, limit_burst="5s")
    address = daemon.listening["syslog_udp_listen"]
    with socket.socket(type=socket.SOCK_DGRAM) as sock, socket.socket(type=socket.SOCK_DGRAM) as other:
        sock.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.2", 0))
        for turn in range(3):
            for _ in range(10):
                sock.sendto(b"<13>m", address)
            async with asyncio.timeout(20):
                while await daemon.metric("logagg_records_received_total", transport="syslog-udp") < 10 * (turn + 1):
                    await asyncio.sleep(0.01)
        other.sendto(b"<13>other", address)
    async with asyncio.timeout(20):
        while await daemon.metric("logagg_records_received_total", transport="syslog-udp") < 31:
            await asyncio.sleep(0.01)
    dropped = await daemon.metric("logagg_records_dropped_total", transport="syslog-udp", reason="limit")
    assert dropped >= 10
    assert len(await daemon.logs()) == 31 - dropped  # the books balance
    assert len(await daemon.logs(q="other")) == 1
    assert await daemon.metric("logagg_limited_total", source="127.0.0.1") >= 1

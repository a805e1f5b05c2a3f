"""The canary: a marker through every listener of a real daemon, found by a query; and what it says of failures."""

from __future__ import annotations

import asyncio
import shutil
import socket
from typing import TYPE_CHECKING

import pytest

from logagg.collector import canary
from logagg.collector.canary import SERVICE, Canary
from logagg.collector.metrics import Metrics
from logagg.collector.units import Address
from logagg.query.engine import Engine
from logagg.sinks import tokens

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from logagg.sinks.store import Store
    from logagg.tests.daemons import RunningDaemon, Starter
    from logagg.tests.processes import free_port
    from logagg.tests.test_tls import certificate
else:
    from processes import free_port
    from test_tls import certificate

with_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
TRANSPORTS = {
    "http", "tcp", "syslog-udp", "syslog-tcp", "relp", "forward", "gelf-udp", "gelf-tcp", "lumberjack", "syslog-tls",
}  # fmt: skip


async def counted(daemon: RunningDaemon, name: str, transport: str, least: int) -> None:
    """Wait until the canary has counted so many."""
    async with asyncio.timeout(20):
        while await daemon.metric(f"logagg_canary_{name}", transport=transport) < least:
            await asyncio.sleep(0.02)


@with_openssl
async def test_a_marker_comes_through_every_listener_and_is_found(
    start_daemon: Starter, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    certificate(tmp_path, "server")
    secret = await tokens.create(sql, "all", ["query", "admin"])  # so that a token is needed, to write too
    daemon = await start_daemon(
        canary_interval="100ms", tls_certificate=tmp_path / "server.pem", tls_key=tmp_path / "server.key",
        syslog_tls_listen=":0", tls_listeners="relp_listen",
    )  # fmt: skip
    daemon.http.headers["Authorization"] = f"Bearer {secret}"
    for transport in TRANSPORTS:
        await counted(daemon, "seconds_count", transport, 2)
        assert await daemon.metric("logagg_canary_failures_total", transport=transport) == 0
    records = await daemon.logs(service=SERVICE, limit="1000")
    assert {(record["level"], record["message"].split(" over ")[1]) for record in records} == {
        ("DEBUG", transport) for transport in TRANSPORTS
    }
    assert not await daemon.metric("logagg_records_quarantined_total")
    async with daemon.http.post("/ingest", json=[{"message": "mine"}]) as answer:
        assert answer.status == 403  # of those that senders have, a token is still needed


@with_openssl
async def test_what_wants_proofs_of_senders_is_left_out(start_daemon: Starter, tmp_path: Path) -> None:
    certificate(tmp_path, "server")
    daemon = await start_daemon(
        canary_interval="50ms", tls_certificate=tmp_path / "server.pem", tls_key=tmp_path / "server.key",
        tls_client_ca=tmp_path / "server.pem", tls_client_ca_listeners="relp_listen", tls_listeners="relp_listen",
        syslog_tls_listen=":0", forward_shared_key="secret",
    )  # fmt: skip
    for transport in ("tcp", "syslog-tls"):
        await counted(daemon, "seconds_count", transport, 2)
    for transport in ("relp", "forward"):
        assert await daemon.metric("logagg_canary_seconds_count", transport=transport) == 0
        assert await daemon.metric("logagg_canary_failures_total", transport=transport) == 0
    assert await daemon.metric("logagg_tls_handshake_failures_total") == 0


@with_openssl
async def test_another_certificate_than_the_one_in_the_file_is_a_failure(start_daemon: Starter, tmp_path: Path) -> None:
    certificate(tmp_path, "server")
    daemon = await start_daemon(
        canary_interval="50ms", tls_certificate=tmp_path / "server.pem", tls_key=tmp_path / "server.key",
        tls_listeners="relp_listen",
    )  # fmt: skip
    certificate(tmp_path, "server")
    await counted(daemon, "failures_total", "relp", 1)
    await counted(daemon, "seconds_count", "tcp", 1)


@pytest.mark.parametrize(
    ("listens", "reached"),
    [
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104  # nothing is bound to it
        ("::", "::1"),
        ("10.0.0.1", "10.0.0.1"),
        ("logs", "logs"),
    ],
)
def test_it_connects_to_where_a_listener_is(listens: str, reached: str) -> None:
    assert canary.reached(Address(listens, 1)) == reached


async def test_what_cannot_be_sent_or_is_not_found_is_a_failure(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "PATIENCE", 0.1)
    metrics, engine = Metrics(), Engine(store, timeout=5)
    unread = socket.socket(type=socket.SOCK_DGRAM)
    unread.bind(("127.0.0.1", 0))
    listening = {
        "relp_listen": Address("127.0.0.1", free_port()),
        "syslog_udp_listen": Address("127.0.0.1", unread.getsockname()[1]),
    }
    nothing: frozenset[str] = frozenset()
    tried = Canary(engine, metrics, interval=0.01, certificate=None, over_tls=nothing, left_out=nothing)
    running = asyncio.create_task(tried.run(listening))
    try:
        async with asyncio.timeout(10):
            for transport in ("relp", "syslog-udp"):
                while not metrics.registry.get_sample_value("logagg_canary_failures_total", {"transport": transport}):
                    await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        unread.close()
        engine.close()
    assert metrics.registry.get_sample_value("logagg_canary_seconds_count", {"transport": "syslog-udp"}) is None

"""`logagg doctor`: what it says of senders that are refused, of alerts that are not delivered, and of a replica."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest

from logagg.sinks import tokens

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from logagg.tests.daemons import RunningDaemon, Starter
    from logagg.tests.test_doctor import asked, checks
    from logagg.tests.test_tls import certificate
else:
    from test_doctor import asked, checks
    from test_tls import certificate


async def test_an_alert_that_is_not_delivered_is_a_warning(start_daemon: Starter) -> None:
    rule = {"name": "errors", "threshold": 1, "window": "1h", "every": "100ms", "webhook": "http://127.0.0.1:1/"}
    daemon = await start_daemon(alerts=[rule])
    async with daemon.http.post("/ingest", json=[{"message": "one"}]) as answer:
        assert answer.status == 200
    async with asyncio.timeout(30):
        while not await daemon.metric("logagg_alert_messages_waiting", alert="errors"):
            await asyncio.sleep(0.01)
    code, out, _ = await asked(daemon)
    assert code == 0
    assert "\nwarning alerts: messages that no webhook has taken yet (the log says why): errors 1\n" in out


async def test_a_replica_that_is_away_is_a_warning(start_daemon: Starter) -> None:
    daemon = await start_daemon(reader_database_url="postgresql://nobody@127.0.0.1:1/none")
    async with asyncio.timeout(30):
        while await daemon.metric("logagg_replica_up"):
            await asyncio.sleep(0.01)
    found = (await checks(daemon))["replica"]
    assert (found["status"], found["said"][:18]) == ("warning", "it does not answer")


async def daemon_closes(daemon: RunningDaemon, setting: str) -> bool:
    reader, writer = await asyncio.open_connection(*daemon.listening[setting])
    try:
        return await reader.read() == b""
    finally:
        writer.close()


async def test_who_was_refused_or_limited_is_a_warning(start_daemon: Starter, sql: asyncpg.Connection) -> None:
    secret = await tokens.create(sql, "all", ["ingest", "admin"])
    daemon = await start_daemon(
        allow="tcp_listen=10.0.0.0/8", auth_required=True, max_connections_per_address=9, limit_records=1,
        limit_burst="1s", syslog_tcp_listen="",
    )  # fmt: skip
    async with daemon.http.post("/ingest", json=[{"message": "no token"}]) as answer:
        assert answer.status == 401
    for status in (200, 503):
        headers = {"Authorization": f"Bearer {secret}"}
        async with daemon.http.post("/ingest", json=[{"message": "many"}] * 100, headers=headers) as answer:
            assert answer.status == status
    assert await daemon_closes(daemon, "tcp_listen")
    streams = [await asyncio.open_connection(*daemon.listening["relp_listen"]) for _ in range(10)]
    ends = [asyncio.ensure_future(reader.read()) for reader, _ in streams]
    await asyncio.wait(ends, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    code, out, err = await asked(daemon, "--token", secret)
    for _, writer in streams:
        writer.close()
    await asyncio.wait(ends, timeout=30)
    assert (code, err) == (0, "")
    what = "http 401 1, relp max_connections_per_address 1, tcp allow 1"
    assert f"\nwarning refused: connections and requests since the start (the log says whose): {what}\n" in out
    assert "\nwarning limited: times over a limit since the start: token all 1\n" in out


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
async def test_a_handshake_that_fails_is_a_warning(start_daemon: Starter, tmp_path: Path) -> None:
    certificate(tmp_path, "server")
    files = {"tls_certificate": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}
    daemon = await start_daemon(**files, syslog_tls_listen=":0")
    await daemon.tcp("syslog_tls_listen", b"<13>this is not TLS\n")
    assert (await checks(daemon))["handshakes"]["numbers"] == {"tls": 1}
    _, out, _ = await asked(daemon)
    assert "\nwarning handshakes: failed since the start (the log says whose, and why): tls 1\n" in out

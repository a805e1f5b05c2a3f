"""PostgreSQL away when the daemon starts, and hung when it stops: what came is journaled, and stored later, once."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from logagg.sinks.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from logagg.tests.processes import PATIENCE, events, free_port, process, wait_ready
else:
    from processes import PATIENCE, events, free_port, process, wait_ready

HUNG = "PostgreSQL did not take all in time; the rest goes to the journal"


def post(port: int, message: str) -> int:
    """Send a record over HTTP; return the status."""
    body = json.dumps({"message": message}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ingest", data=body, timeout=PATIENCE) as answer:
        status: int = answer.status
        return status


def wait_alive(port: int) -> None:
    """Return when a daemon listens, whether it reaches its store or not."""
    for _ in range(PATIENCE * 20):
        with socket.socket() as sock:
            sock.settimeout(PATIENCE / 1000)
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
            time.sleep(0.05)
    raise AssertionError("the daemon does not listen")


def test_what_comes_before_postgresql_was_ever_there_is_acknowledged_and_stored_later() -> None:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="logagg-test-") as folder, tempfile.TemporaryDirectory() as data_dir:
        with EmbeddedPostgres(Path(folder)) as server:
            url = server.url
        with process(database_url=url, data_dir=data_dir, http_listen=f"127.0.0.1:{port}") as daemon:
            wait_alive(port)
            assert post(port, "early") == 200
            with EmbeddedPostgres(Path(folder)):
                wait_ready(port)
                found: list[str] = []
                while not found:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/logs", timeout=PATIENCE) as answer:
                        found = [record["message"] for record in json.load(answer)]
                daemon.terminate()
                _, log = daemon.communicate(timeout=PATIENCE)
    assert found == ["early"]
    assert daemon.returncode == 0
    assert events(log)[0]["event"] == "PostgreSQL does not answer yet; records go to the journal"


async def test_what_a_hung_postgresql_has_not_taken_at_a_stop_is_in_the_journal(database_url: str) -> None:
    http, tcp = free_port(), free_port()
    blocker = await asyncpg.connect(database_url)
    with tempfile.TemporaryDirectory() as data_dir:
        settings = {"database_url": database_url, "data_dir": data_dir, "tcp_listen": f"127.0.0.1:{tcp}"}
        settings |= {"http_listen": f"127.0.0.1:{http}", "stop_timeout": "500ms"}
        with process(**settings) as daemon:
            await asyncio.to_thread(wait_ready, http)
            await asyncio.to_thread(post, http, "before")
            async with blocker.transaction():
                await blocker.execute("lock table logs in exclusive mode")
                with socket.create_connection(("127.0.0.1", tcp)) as sock:
                    sock.sendall(b'{"message": "hung"}\n' * 1000)
                    await asyncio.sleep(0.3)  # it is read, and its transaction waits for the lock
                daemon.terminate()
                _, log = await asyncio.to_thread(daemon.communicate, timeout=PATIENCE)
        assert daemon.returncode == 0
        said = [event for event in events(log) if event["level"] in ("warning", "error")]
        assert HUNG in [event["event"] for event in said]
        assert not any("not stored" in event["event"] for event in said)
        assert await blocker.fetchval("select count(*) from logs where message = 'hung'") == 0
        with process(**settings) as daemon:
            while await blocker.fetchval("select count(*) from logs where message = 'hung'") < 1000:
                await asyncio.sleep(0.05)
            daemon.terminate()
            await asyncio.to_thread(daemon.communicate, timeout=PATIENCE)
    assert await blocker.fetchval("select count(*) from logs") == 1001
    await blocker.close()

"""The daemon as a process, for tests of how it starts, stops and dies."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from logagg.collector.config import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

PATIENCE = 60


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of a daemon with these settings, and ports that the kernel chooses."""
    listeners = {name.upper(): "127.0.0.1:0" for name, value in load_settings() if name.endswith("_listen") and value}
    return (
        {name: value for name, value in os.environ.items() if not name.startswith("LOGAGG_")}
        | {f"LOGAGG_{name}": value for name, value in listeners.items()}
        | {f"LOGAGG_{name.upper()}": value for name, value in settings.items()}
    )


@contextmanager
def process(**settings: str) -> Iterator[subprocess.Popen[str]]:
    """Run a daemon; what it logs is in its stderr."""
    command = [sys.executable, "-m", "logagg.cli", "serve"]
    with tempfile.TemporaryDirectory(prefix="logagg-test-", ignore_cleanup_errors=True) as folder:
        env = environment(**{"data_dir": folder, **settings})
        running = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()
            running.communicate()


def events(lines: str) -> list[dict[str, str]]:
    """Return the lines of a daemon's log."""
    return [json.loads(line) for line in lines.splitlines()]


def wait_ready(port: int) -> None:
    """Return when a daemon answers on its port, and can reach its store."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return
    pytest.fail("the daemon is not ready")


async def gone(sql: asyncpg.Connection) -> None:
    """Return when the server has noticed that all daemons of this database are dead."""
    others = (
        "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'logagg'"
        " and wait_event_type is distinct from 'Lock'"
    )
    while await sql.fetchval(others):
        await asyncio.sleep(0.01)

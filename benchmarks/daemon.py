"""A daemon and a PostgreSQL to measure, both started by us, on free ports and with data of their own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from benchmarks.measure import peak_megabytes, tree_seconds, usage
from logagg.sinks.embedded import EmbeddedPostgres

ROOT = Path(__file__).parents[1]
LISTENERS = ("HTTP", "TCP", "SYSLOG_TCP", "SYSLOG_UDP")


@dataclass(frozen=True)
class Server:
    """The PostgreSQL."""

    url: str
    pid: int

    async def fresh_database(self, name: str) -> str:
        """Make an empty database of this name, and write out what was there before; return its URL."""
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(f"drop database if exists {name}")
            await connection.execute(f"create database {name}")
            await connection.execute("checkpoint")
        finally:
            await connection.close()
        return self.url.replace("/logagg?", f"/{name}?")

    def seconds(self) -> float:
        return tree_seconds(self.pid)


@contextlib.contextmanager
def postgres() -> Iterator[Server]:
    # In /tmp itself: the server may run as another user, who must reach it.
    with tempfile.TemporaryDirectory(prefix="logagg-bench-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        server = EmbeddedPostgres(Path(folder))
        url = server.start()
        try:
            yield Server(url, int((server.cluster / "postmaster.pid").read_text().split()[0]))
        finally:
            server.stop()


@dataclass(frozen=True)
class Daemon:
    """A running daemon."""

    pid: int
    ports: dict[str, int]

    def stored(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['HTTP']}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return int(sum(float(line.split()[-1]) for line in lines if line.startswith("logagg_records_stored_total")))

    def wait_stored(self, count: int, patience: float = 120) -> int:
        """Wait until so many records are committed, or no more come; return how many are."""
        seen, since = -1, time.monotonic()
        while (now := self.stored()) < count and time.monotonic() - since < (3 if seen else patience):
            if now != seen:
                seen, since = now, time.monotonic()
            time.sleep(0.02)
        return now

    def seconds(self) -> float:
        return usage(self.pid).own

    def peak(self) -> float:
        return peak_megabytes(self.pid)


@contextlib.contextmanager
def daemon(url: str) -> Iterator[Daemon]:
    ports = {name: _free_port() for name in LISTENERS}
    env = {name: value for name, value in os.environ.items() if not name.startswith("LOGAGG_")}
    env |= {f"LOGAGG_{name}_LISTEN": f"127.0.0.1:{port}" for name, port in ports.items()}
    env |= {"LOGAGG_DATABASE_URL": url, "LOGAGG_LOG_LEVEL": "warning"}
    process = subprocess.Popen([sys.executable, "-m", "logagg.cli", "serve"], env=env, cwd=ROOT)
    try:
        _wait_ready(process, ports["HTTP"])
        yield Daemon(process.pid, ports)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def send(kind: str, port: int, path: Path, number: int) -> dict[str, object]:
    """Run a sender in a process of its own; see load.py."""
    command = [sys.executable, "-m", "benchmarks.load", kind, str(port), str(path), str(number)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result: dict[str, object] = json.loads(done.stdout)
    return result


def _wait_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"the daemon ended with {process.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit("the daemon is not ready after 60 s")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port

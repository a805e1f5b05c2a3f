"""A daemon and a PostgreSQL to measure, both started by us, on free ports and with data of their own."""

import asyncio
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
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from benchmarks.measure import peak_megabytes, tree_seconds
from logagg.collector.settings import Settings
from logagg.sinks.embedded import EmbeddedPostgres

ROOT = Path(__file__).parents[1]

WAITING = """select count(*), coalesce(sum(count), 0)::bigint from batches
    where closed_at is not null and packed_at is null"""


@dataclass(frozen=True)
class Server:
    """The PostgreSQL."""

    url: str
    #: None: not started by us, so its CPU time is not known.
    pid: int | None = None

    async def fresh_database(self, name: str) -> str:
        """Make an empty database of this name, and write out what was there before; return its URL."""
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(f"drop database if exists {name} with (force)")
            await connection.execute(f"create database {name}")
            await connection.execute("checkpoint")
        finally:
            await connection.close()
        return self.database(name)

    def database(self, name: str) -> str:
        """Return the URL of a database."""
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def seconds(self) -> float:
        return tree_seconds(self.pid) if self.pid else 0.0

    async def version(self) -> str:
        return str(await value(self.url, "show server_version"))


async def value(url: str, statement: str) -> Any:
    """Return the first column of the first row."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@contextlib.contextmanager
def postgres(url: str | None = None, folder: Path | None = None) -> Iterator[Server]:
    """Use the server with this address; else start an embedded one, in a folder that is kept, or in a temporary one."""
    if url:
        yield Server(url)
        return
    with contextlib.ExitStack() as stack:
        if folder is None:
            # In /tmp itself: the server may run as another user, who must reach it.
            temporary = tempfile.TemporaryDirectory(prefix="logagg-bench-", dir="/tmp", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(temporary))
        server = stack.enter_context(EmbeddedPostgres(folder))
        yield Server(server.url, int((server.cluster / "postmaster.pid").read_text().split()[0]))


@dataclass(frozen=True)
class Daemon:
    """A running daemon."""

    pid: int
    ports: dict[str, int]

    def stored(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['HTTP']}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return int(sum(float(line.split()[-1]) for line in lines if line.startswith("logagg_records_stored_total")))

    def post(self, body: bytes) -> None:
        """Have it store a body of `POST /ingest`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['HTTP']}/ingest", data=body, timeout=60):
            pass

    def wait_stored(self, count: int, patience: float = 120) -> tuple[int, float]:
        """Wait until so many records are committed, or no more come; return how many are, and since when."""
        seen, since = -1, time.perf_counter()
        while (now := self.stored()) < count and time.perf_counter() - since < (3 if seen else patience):
            if now != seen:
                seen, since = now, time.perf_counter()
            time.sleep(0.02)
        return now, since if now == seen else time.perf_counter()

    def seconds(self) -> float:
        return tree_seconds(self.pid)

    def peak(self) -> float:
        return peak_megabytes(self.pid)


@contextlib.contextmanager
def daemon(url: str, *listeners: str) -> Iterator[Daemon]:
    """Run a daemon on a database, with these listeners and HTTP."""
    ports = {name: free_port() for name in {"HTTP", *listeners}}
    env = {name: value for name, value in os.environ.items() if not name.startswith("LOGAGG_")}
    env |= dict.fromkeys((f"LOGAGG_{name.upper()}" for name in Settings.model_fields if name.endswith("_listen")), "")
    env |= {f"LOGAGG_{name}_LISTEN": f"127.0.0.1:{port}" for name, port in ports.items()}
    env |= {"LOGAGG_DATABASE_URL": url, "LOGAGG_LOG_LEVEL": "warning"}
    with tempfile.TemporaryDirectory(prefix="logagg-bench-") as folder:
        env["LOGAGG_DATA_DIR"] = folder
        process = subprocess.Popen([sys.executable, "-m", "logagg.cli", "serve"], env=env, cwd=ROOT)
        try:
            _wait_ready(process, ports["HTTP"])
            yield Daemon(process.pid, ports)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


async def wait_packed(url: str, patience: float) -> int:
    """Wait until every closed batch is packed, or none has been for so many seconds; return how many are left."""
    connection = await asyncpg.connect(url)
    seen, since = -1, time.monotonic()
    while (left := int(await connection.fetchval(WAITING))) and time.monotonic() - since < patience:
        if left != seen:
            seen, since = left, time.monotonic()
        await asyncio.sleep(0.1)
    await connection.close()
    return left


def start_sender(kind: str, port: int, *arguments: object) -> subprocess.Popen[str]:
    """Start a sender in a process of its own, see load.py; to be used in a `with`, which waits for its end."""
    command = [sys.executable, "-m", "benchmarks.load", kind, str(port), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def start_history(running: Daemon, **options: float) -> subprocess.Popen[str]:
    """Start a sender of JSON lines over TCP; for the options see `load.send_history`, those left out are 0."""
    return start_sender("history", running.ports["TCP"], *(f"--{name}={number}" for name, number in options.items()))


def what_it_sent(sender: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait until a sender has done its work; return what it says."""
    assert sender.stdout  # noqa: S101  # a pipe was asked for
    said = sender.stdout.readline()
    if not said:
        raise SystemExit(f"the sender ended with {sender.wait()}")
    result: dict[str, Any] = json.loads(said)
    return result


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"the daemon ended with {process.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit("the daemon is not ready after 60 s")

"""rsyslog with ompgsql, tuned, on the same PostgreSQL: what many people have today, to compare with."""

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import asyncpg

from benchmarks.daemon import Server, free_port, start_sender, what_it_sent
from benchmarks.measure import peak_megabytes, tree_seconds
from benchmarks.scenarios import SYSLOG, Result
from benchmarks.workload import Row

NAME = "rsyslog + ompgsql, 4 workers"
TABLE = "create table logs (time timestamptz, host text, severity smallint, tag text, message text)"
#: ompgsql has a transaction for each batch that a worker takes from its queue, and an INSERT for each message.
CONFIG = """\
global(workDirectory={folder} maxMessageSize="64k")
main_queue(queue.type="LinkedList" queue.size="500000" queue.workerThreads="1" queue.dequeueBatchSize="10000")
module(load="imtcp")
module(load="ompgsql")
template(name="insert" type="list" option.stdsql="on") {{
    constant(value="insert into logs values ('")
    property(name="timereported" dateFormat="rfc3339")
    constant(value="','")
    property(name="hostname")
    constant(value="',")
    property(name="syslogseverity")
    constant(value=",'")
    property(name="syslogtag")
    constant(value="','")
    property(name="msg")
    constant(value="')")
}}
input(type="imtcp" address="127.0.0.1" port="{port}")
action(
    type="ompgsql" conninfo={url} template="insert"
    queue.type="LinkedList" queue.size="500000" queue.dequeueBatchSize="5000"
    queue.workerThreads="4" queue.workerThreadMinimumMessages="5000"
)
"""
#: Seconds without a new row, after which no more are waited for.
PATIENCE = 10
#: Seconds between two looks at the least.
PAUSE = 0.02


def absent() -> str | None:
    """Return what is missing here, or None."""
    if not program():
        return "there is no rsyslogd"
    modules = [Path("/usr/lib", str(sysconfig.get_config_var("MULTIARCH")), "rsyslog"), Path("/usr/lib64/rsyslog")]
    if not any((folder / "ompgsql.so").exists() for folder in modules):
        return "rsyslog has no module ompgsql (Debian: rsyslog-pgsql)"
    return None


def measure(server: Server, path: Path, made: Sequence[Row]) -> Result:
    """Send records as RFC 5424 over TCP to a fresh rsyslogd with a fresh table; wait until all are rows."""
    url = asyncio.run(server.fresh_database("bench_rsyslog"))
    path.write_bytes(SYSLOG.make(made))
    with _rsyslogd(url) as (pid, port):
        cpu, of_postgres = tree_seconds(pid), server.seconds()
        with start_sender(SYSLOG.kind, port, path, 1) as sender:
            began = what_it_sent(sender)["began"]
        stored, until = asyncio.run(_wait_for_rows(url, len(made)))
        return Result(
            len(made), until - began, lost=len(made) - stored, daemon_cpu=tree_seconds(pid) - cpu,
            postgres_cpu=server.seconds() - of_postgres, peak=peak_megabytes(pid),
        )  # fmt: skip


@contextlib.contextmanager
def _rsyslogd(url: str) -> Iterator[tuple[int, int]]:
    """Run rsyslogd in the foreground, with a configuration of its own; yield its process and its port."""
    port = free_port()
    asyncio.run(_create_table(url))
    with tempfile.TemporaryDirectory(prefix="logagg-rsyslog-") as folder:
        config = Path(folder, "rsyslog.conf")
        config.write_text(CONFIG.format(folder=json.dumps(folder), port=port, url=json.dumps(url)))
        process = subprocess.Popen([str(program()), "-n", "-f", config, "-i", Path(folder, "pid")])
        try:
            wait_listening(process, port)
            yield process.pid, port
        finally:
            process.terminate()
            process.wait(60)


def program() -> str | None:
    """Return where rsyslogd is."""
    return shutil.which("rsyslogd") or shutil.which("rsyslogd", path="/usr/sbin:/sbin")


async def _create_table(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(TABLE)
    await connection.close()


async def _wait_for_rows(url: str, count: int) -> tuple[int, float]:
    """Return how many rows there are, and when the last of them was seen."""
    connection = await asyncpg.connect(url)
    seen, began = 0, time.perf_counter()
    since = began
    while seen < count and time.perf_counter() - since < PATIENCE:
        now = await connection.fetchval("select count(*) from logs")
        if now > seen:
            seen, since = now, time.perf_counter()
        # Counting costs PostgreSQL time that rsyslog needs: half of what is to come may come first.
        remaining = (since - began) * (count - seen) / max(seen, 1)
        await asyncio.sleep(min(max(PAUSE, remaining / 2), 1))
    await connection.close()
    return seen, since


def wait_listening(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise SystemExit(f"rsyslogd ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.05)
    raise SystemExit("rsyslogd does not listen after 10 s")

"""What the scenarios share: a PostgreSQL to break, a daemon to kill, senders that keep books, and the comparison.

async with Postgres(folder) as postgres, Daemon(folder, postgres.url) as daemon:
    senders = [HttpSender(Book("HTTP with key"), daemon, rate=2500), TcpSender(Book("TCP"), daemon, rate=2500)]
    async with under_load(senders):
        ...                                     # the fault
    return await verdict(daemon, postgres.url, [each.book for each in senders])
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import asyncpg
import orjson
from click.testing import CliRunner

from logagg.cli.main import cli
from logagg.collector.settings import Settings
from logagg.sinks.embedded import EmbeddedPostgres

from .scenario import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from logagg.tests.chaos.scenario import Scenario
    from logagg.tests.chaos.senders import Book
    from logagg.tests.processes import environment
else:
    from processes import environment

#: Seconds that anything may take that should take few: to start, to store what waits.
PATIENCE = 120
#: `http`, `tcp`, `syslog_udp` ...: all that listen unless told otherwise.
LISTENERS = [
    name.removesuffix("_listen")
    for name, setting in Settings.model_fields.items()
    if name.endswith("_listen") and setting.default
]


def free_ports(count: int) -> list[int]:
    """Return different ports that nobody listens on, below those that the kernel gives to clients.

    One of those could be taken by a client while the daemon is away, even by one that tries to connect to it. Drawn
    from the system: hypothesis sets the generator of `random` to the same place again and again.
    """
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            address = "127.0.0.1", 10_000 + secrets.randbelow(20_000)
            with suppress(OSError):
                stack.enter_context(socket.socket()).bind(address)
                stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)).bind(address)
                ports.append(address[1])
        return ports


def family(pid: int) -> list[int]:
    """Return a process, its children, theirs, and so on."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(entry.read_text().rpartition(")")[2].split()[1]), []).append(int(entry.parent.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found


def resident(pid: int) -> float:
    """Return the resident memory of a process and of those below it, in MiB."""
    total = 0
    for each in family(pid):
        with suppress(OSError):
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


class Server:
    """One PostgreSQL for all short forms of this process: making one takes longer than they may."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        atexit.register(self._stack.close)
        self._made: EmbeddedPostgres | None = None

    def get(self) -> EmbeddedPostgres:
        """Return it, made if need be."""
        if self._made is None:
            folder = Path(tempfile.mkdtemp(prefix="logagg-chaos-", dir="/tmp"))
            folder.chmod(0o755)
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self._made = EmbeddedPostgres(folder / "postgres")
            self._stack.callback(self._made.stop)
        return self._made


SERVER = Server()
#: Whether a short form runs.
SHORT: ContextVar[bool] = ContextVar("SHORT", default=False)


class Postgres:
    """An embedded PostgreSQL, durable as shipped. It outlives the daemons that are killed.

    In the full form of a scenario it is new; in a short form its database is new.
    """

    def __init__(self, folder: Path) -> None:
        self._shared = SHORT.get()
        self._server = SERVER.get() if self._shared else EmbeddedPostgres(folder / "postgres")
        self.url = self._server.url

    async def __aenter__(self) -> Self:
        await self.start()
        if self._shared:
            sql = await asyncpg.connect(self.url, database="postgres")
            try:
                await sql.execute("drop database logagg with (force)")
                await sql.execute("create database logagg")
            finally:
                await sql.close()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.resume()
        if not self._shared:
            await asyncio.to_thread(self._server.stop)

    @property
    def pid(self) -> int:
        """The postmaster."""
        return int((self._server.cluster / "postmaster.pid").read_text().split()[0])

    @property
    def socket(self) -> Path:
        """The Unix socket that it listens on."""
        return self._server.socket_dir / ".s.PGSQL.5432"

    async def start(self) -> None:
        """Start it, also after a crash; return when it takes connections."""
        await asyncio.to_thread(self._server.start)

    async def kill(self, number: signal.Signals) -> None:
        """Send the postmaster a signal and wait for its end: SIGKILL, SIGQUIT (immediate stop), SIGINT (fast stop)."""
        pid = self.pid
        os.kill(pid, number)
        while not self._server._gone(pid):
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Stop it as `pg_ctl stop` does; `start` brings it back."""
        await self.kill(signal.SIGINT)

    def pause(self) -> None:
        """Let none of its processes run, the postmaster first, so that it starts no others."""
        for number in family(self.pid):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGSTOP)

    def resume(self) -> None:
        """Let all go on."""
        with suppress(FileNotFoundError):  # it does not run
            for number in reversed(family(self.pid)):
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGCONT)


class Daemon:
    """The daemon as a process: killed and started again with the same settings, ports and data.

    Settings are given as to the environment, `batch_records="1000"`; what it logs is in `daemon.log` in the folder.
    """

    def __init__(self, folder: Path, database_url: str, **settings: str) -> None:
        self.ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
        self.url = f"http://127.0.0.1:{self.ports['http']}"
        self.data_dir = folder / "data"
        self.log = folder / "daemon.log"
        listen = {f"{name}_listen": f"127.0.0.1:{port}" for name, port in self.ports.items()}
        data_dir = str(self.data_dir)
        self.settings = {"database_url": database_url, "data_dir": data_dir, "log_format": "json", **listen, **settings}
        self.process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # A connection for each question: the one before may be of a daemon that was killed since.
        self._session = aiohttp.ClientSession(self.url, connector=aiohttp.TCPConnector(force_close=True))
        try:
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()
        if self._session:
            await self._session.close()

    @property
    def pid(self) -> int:
        """Its process, which must have been started."""
        assert self.process
        return self.process.pid

    @property
    def http(self) -> aiohttp.ClientSession:
        """A client of its API."""
        assert self._session
        return self._session

    async def start(self, *, ready: bool = True) -> None:
        """Start it, and return when it is ready; or at once."""
        command = [sys.executable, "-m", "logagg.cli", "serve"]
        with self.log.open("ab") as log:
            started = await asyncio.to_thread(subprocess.Popen, command, env=environment(**self.settings), stderr=log)
        self.process = started
        if ready:
            await self.ready()

    async def ready(self) -> None:
        """Return when it answers and can reach its store; raises AssertionError when it ended or takes too long."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.process
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}: {self.said()}"
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with self.http.get("/readyz", timeout=aiohttp.ClientTimeout(5)) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.03)
        raise AssertionError(f"the daemon is not ready after {PATIENCE} s: {self.said()}")

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send it a signal and wait for its end; return its exit code."""
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, PATIENCE)

    def said(self) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-10:]) if self.log.exists() else ""

    async def metrics(self) -> defaultdict[str, float]:
        """Return its metrics by name, without `logagg_`, summed over their labels."""
        async with self.http.get("/metrics", headers={"Accept": "text/plain"}) as answer:
            lines = (await answer.text()).splitlines()
        found: defaultdict[str, float] = defaultdict(float)
        for line in lines:
            if line.startswith("logagg_"):
                name, _, value = line.rpartition(" ")
                found[name.partition("{")[0].removeprefix("logagg_")] += float(value)
        return found

    async def drained(self) -> None:
        """Return when nothing waits in buffer and journal any more."""
        end = time.monotonic() + PATIENCE
        while (now := await self.metrics())["buffer_records"] or now["journal_records"]:
            left = {name: now[name] for name in ("buffer_records", "journal_records")}
            assert time.monotonic() < end, f"still waiting after {PATIENCE} s: {left}: {self.said()}"
            await asyncio.sleep(0.05)

    async def exported(self) -> list[dict[str, Any]]:
        """Return all records that it has, as `GET /logs/export` gives them."""
        timeout = aiohttp.ClientTimeout(total=600)
        async with self.http.get("/logs/export", timeout=timeout) as answer:
            assert answer.status == 200, await answer.text()
            return [orjson.loads(line) for line in (await answer.read()).splitlines()]

    async def leaks(self) -> list[str]:
        """Return what `logagg doctor` holds for failed, the books above all; empty when it is well."""
        arguments = ["doctor", "-o", "json", "--url", self.url]
        done = await asyncio.to_thread(CliRunner().invoke, cli, arguments)
        if done.exit_code == 0:
            return []
        if done.exit_code != 1 or not done.stdout.startswith("{"):
            return [f"logagg doctor ended with {done.exit_code}: {done.output.strip()} {done.exception!r}"]
        checks = json.loads(done.stdout)["checks"]
        return [f"doctor: {each['name']}: {each['said']}" for each in checks if each["status"] == "failed"]


async def verdict(daemon: Daemon, database_url: str, books: Sequence[Book]) -> Outcome:
    """Wait until all is stored, and compare what there is with what was sent and acknowledged, and do the sums.

    What is there is asked of the daemon, and counted in the rows besides.
    """
    await daemon.drained()
    figures, broken = compare(books, map(number_of, await daemon.exported()))
    leaks = await daemon.leaks()
    sql = await asyncpg.connect(database_url)
    try:
        rows = await sql.fetchval("select count(*) from logs")
    finally:
        await sql.close()
    if rows != figures["found"]:
        broken.append(f"{rows:,} rows in PostgreSQL, but the daemon exports {figures['found']:,}")
    return Outcome({**figures, "books": "do not balance" if leaks else "balance"}, broken + leaks)


def number_of(record: dict[str, Any]) -> int:
    """Return the number in the text of a record; -1 for one that no sender sends."""
    found = re.match(r"record (\d+) is sent", record["message"])
    return int(found[1]) if found else -1


def compare(books: Iterable[Book], found: Iterable[int]) -> Outcome:
    """Compare numbers of records that are there with those that were sent."""
    there = Counter(found)
    figures: dict[str, int | float | str] = {}
    broken, sent, missing, twice = [], set(), 0, 0
    for book in books:
        sent |= book.sent
        lost = book.acknowledged - there.keys()
        again = {number for number in book.sent if there[number] > 1}
        figures[f"{book.word}, {book.name}"] = len(book.acknowledged)
        if book.again:
            figures[f"sent again, {book.name}"] = book.again
        missing += len(lost)
        if book.once:
            twice += len(again)
        else:
            figures[f"twice, {book.name} (allowed)"] = len(again)
        broken += [f"{book.name}: {status} was answered {count} times" for status, count in book.odd_answers()]
        if lost:
            broken.append(f"{book.name}: {len(lost):,} missing, of {_some(lost)}")
        if again and book.once:
            broken.append(f"{book.name}: {len(again):,} there twice, of {_some(again)}")
    strangers = there.keys() - sent
    if strangers:
        broken.append(f"{len(strangers):,} there that nobody sent, of {_some(strangers)}")
    return Outcome({**figures, "missing": missing, "twice": twice, "found": there.total()}, broken)


def _some(numbers: set[int]) -> str:
    return f"{min(numbers)} to {max(numbers)}"


async def perform(scenario: Scenario, *, short: bool, keep: bool = False) -> Outcome:
    """Run a scenario in a folder of its own, which is removed; `keep` keeps it when something was broken."""
    # In /tmp itself, and open to all: the server may run as another user, who must reach what is below.
    folder = Path(tempfile.mkdtemp(prefix="logagg-chaos-", dir="/tmp"))
    folder.chmod(0o755)
    held = False
    SHORT.set(short)
    try:
        outcome = await scenario.run(folder, short)
        held = not outcome.broken
    finally:
        if held or not keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"  kept: {folder}", file=sys.stderr)  # noqa: T201 - for who asked for it
    return outcome

"""Processes that are killed: the daemon, and PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import signal
from typing import TYPE_CHECKING

from .harness import Daemon, Postgres, verdict
from .scenario import Outcome, Scenario
from .senders import (
    Book,
    ForwardSender,
    HttpSender,
    LumberjackSender,
    RelpSender,
    Sender,
    TcpSender,
    books_of,
    under_load,
)

if TYPE_CHECKING:
    from pathlib import Path

#: Records a second of all senders together.
RATE = 5000


def load(daemon: Daemon, rate: float = RATE, clients: int = 2) -> list[Sender]:
    """Half of it over HTTP with keys, by so many clients, half over two TCP connections."""
    http, tcp = Book("HTTP"), Book("TCP")
    over_http = [HttpSender(http, daemon, rate=rate / 2 / clients) for _ in range(clients)]
    return [*over_http, *(TcpSender(tcp, daemon, rate=rate / 4) for _ in range(2))]


async def daemon_killed(folder: Path, short: bool) -> Outcome:
    """Kill the daemon under load, now and then while it starts; each fourth time after PostgreSQL, for the journal."""
    kills, longest = (2, 0.4) if short else (100, 1.5)
    kinds: dict[str, tuple[type[Sender], bool]] = {
        "HTTP with key": (HttpSender, True),
        "HTTP without key": (HttpSender, False),
        "RELP": (RelpSender, False),
        "Forward with chunk": (ForwardSender, True),
        "Lumberjack": (LumberjackSender, False),
    }
    journaled = starting = 0
    # Batches so small that packing is under way, too.
    async with Postgres(folder) as postgres, Daemon(folder, postgres.url, batch_records="2000") as daemon:
        senders = [
            kind(book, daemon, rate=RATE / 10, size=25)
            for book, kind in ((Book(name, once=once), kind) for name, (kind, once) in kinds.items())
            for _ in range(2)
        ]
        async with under_load(senders):
            for kill in range(kills):
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - no secret
                if away := kill % 4 == 1:
                    await postgres.stop()
                    await asyncio.sleep(random.uniform(0.2, longest))  # noqa: S311
                    journaled += round((await daemon.metrics())["records_journaled_total"])
                await daemon.kill()
                if away:
                    await postgres.start()
                starting += (unready := kill % 4 == 3 and kill < kills - 1)
                await daemon.start(ready=not unready)
        outcome = await verdict(daemon, postgres.url, books_of(senders))
    figures = {"kills": kills, "while it started": starting, "in the journal": journaled, **outcome.figures}
    return Outcome(figures, outcome.broken)


async def postgres_killed(folder: Path, short: bool) -> Outcome:
    """End PostgreSQL in all ways in turn, and start it again at once."""
    ways = [signal.SIGKILL, signal.SIGQUIT, signal.SIGINT]
    ends = 2 if short else 20
    async with Postgres(folder) as postgres, Daemon(folder, postgres.url) as daemon:
        senders = load(daemon)
        async with under_load(senders):
            for end in range(ends):
                await asyncio.sleep(random.uniform(0.3, 0.8 if short else 3))  # noqa: S311
                await postgres.kill(ways[end % len(ways)])
                await postgres.start()
        outcome = await verdict(daemon, postgres.url, books_of(senders))
    return Outcome({"restarts": ends, **outcome.figures}, outcome.broken)


SCENARIOS = [
    Scenario(
        "daemon-killed",
        "SIGKILL of the daemon at 100 random moments under load, each fourth time with PostgreSQL away",
        "no acknowledged record missing; none twice where a key was given: Idempotency-Key, chunk",
        daemon_killed,
    ),
    Scenario(
        "postgres-killed",
        "SIGKILL, immediate and fast restarts of PostgreSQL, 20 times at 5,000 records/s",
        "none lost, none twice",
        postgres_killed,
    ),
]

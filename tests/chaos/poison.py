"""Records that break a COPY, a decoder or a column, each alone among a thousand good ones, on every transport."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from .harness import PATIENCE, Daemon, Postgres
from .scenario import Outcome, Scenario
from .ways import SYSLOG, TRANSPORTS, Poison, Transport, message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def many_words(size: int) -> bytes:
    """Return a text of so many bytes, each word of which is new."""
    return b" ".join(b"%07x" % number for number in range(size // 8))


#: wire-formats.md 3.15 by and large: what PostgreSQL refuses, and what the protocols' own hostile input adds.
POISONS: Sequence[Poison] = (
    message("NUL", b"a\0b"),
    message("NUL escaped", rb"a\u0000b"),
    Poison("NUL escaped in a key", rb'"message":"m","a\u0000b":"\u0000"'),
    message("invalid UTF-8", b"a\xff\xfe\x80b\xc3"),
    message("surrogate in UTF-8", b"a\xed\xa0\x80b"),
    message("lone surrogate", rb"a\ud800b\udfff"),
    Poison("lone surrogate in an attribute", rb'"message":"m","k\ud800":{"x":["\udfff"]}'),
    Poison("NaN and infinities", b'"message":"m","k":[NaN,Infinity,-Infinity]'),
    Poison("1e400", b'"message":"m","k":1e400'),
    Poison("1e200000", b'"message":"m","k":1e200000,"n":-1e-200000'),
    Poison("integers of 400 and 20,000 digits", b'"message":"m","k":%b,"n":%b' % (b"9" * 400, b"9" * 20_000)),
    Poison("integers beyond 64 bits", b'"message":"m","k":18446744073709551616,"n":-9223372036854775809'),
    Poison("depth 7,000", b'"message":"m","k":' + b"[" * 7000 + b"]" * 7000),
    Poison("depth 20,000", b'"message":"m","k":' + b"[" * 20_000 + b"]" * 20_000),
    Poison("depth 20,000 of objects", b'"message":"m","k":' + b'{"k":' * 20_000 + b"1" + b"}" * 20_000),
    Poison("year 300000", b'"message":"m","timestamp":"300000-01-01T00:00:00Z"'),
    Poison("time 1e300", b'"message":"m","timestamp":1e300'),
    Poison("time before all times", b'"message":"m","timestamp":-99999999999999'),
    Poison("no such day", b'"message":"m","timestamp":"2026-02-30T25:61:61Z"'),
    Poison("empty time", b'"message":"m","timestamp":""'),
    Poison("fields of other types", b'"message":{"a":1},"level":{"b":2},"host":[3],"timestamp":{},"trace_id":{"c":4}'),
    Poison("level 1e9", b'"message":"m","level":1e9'),
    message("word of 3,000 characters", b"w" * 3000),
    message("word of 2 MB", b"w" * 2_000_000),
    message("1.2 MB of distinct words", many_words(1_200_000)),
    message("1 MB of distinct words", many_words(1_040_000)),
    message("line of \\.", b"\\\\."),
    Poison("lines around \\.", rb'"message":"first\n\\.\nlast"', b"first \\. last"),
    Poison("duplicate keys", b'"message":"m","k":1,"k":2,"message":"again"'),
    message("empty message", b""),
    Poison("no message", b'"k":1'),
    Poison("key of 300,000 characters", b'"message":"m","%b":1' % (b"k" * 300_000)),
    Poison("100,000 keys", b'"message":"m",' + b",".join(b'"k%d":%d' % (n, n) for n in range(100_000))),
    Poison("50,000 keys", b'"message":"m",' + b",".join(b'"k%d":%d' % (n, n) for n in range(50_000))),
    Poison("an object that never ends", b'"message":"m","k":{"a":', ends=False),
    Poison("a text that never ends", b'"message":"m","k":"a\\', ends=False),
    Poison("no JSON behind the value", b'"message":"m","k":nul'),
)
STATES = ("stored", "cleaned", "quarantined")
MARKER = "poison[0-9]+x[0-9]+"

#: What is known of poisons: in rows of `logs`, the bytes that were kept included, and in quarantine.
FOUND = """
select substring(concat_ws(' ', service, left(message, 20000), left(attributes::text, 20000)) from $1) as marker,
    case when raw is not null or attributes ? 'logagg_note' then 'cleaned' else 'stored' end as state
from logs where not starts_with(coalesce(service, ''), 'good')
union all
select substring(encode(substring(raw from 1 for 2000), 'escape') from $1), 'quarantined' from quarantine
"""
#: Of good ones. Where a body is cleaned as a whole, the first of it keeps the bytes, so these are not asked for.
NEIGHBOURS = """
select service, count(*), count(distinct message) from logs
where starts_with(service, 'good') and message ~ '^neighbour [0-9]+$' and not coalesce(attributes, '{}') ? 'logagg_note'
group by service
"""


def frames_of(transport: Transport) -> dict[str, Callable[[bytes], bytes]]:
    """Return what makes a frame of a marker, by the name of the poison."""
    made: dict[str, Callable[[bytes], bytes]] = {
        poison.name: lambda marker, poison=poison: transport.wrap(marker, poison)  # type: ignore[misc]  # bound now
        for poison in POISONS
        if (poison.ends or not transport.joined) and poison.name not in transport.without
    }
    return made | {name: lambda marker, frame=frame: frame % marker for name, frame in transport.more.items()}


class Sent(NamedTuple):
    """What went out."""

    #: By marker: the place of the transport, and the name of the poison.
    poisons: dict[str, tuple[int, str]]
    #: Good records of each transport.
    neighbours: list[int]


async def send_all(daemon: Daemon, among: int, at_once: int) -> Sent:
    """Send each poison as one of `among` records over each transport, `at_once` of them in a body or connection."""
    sent = Sent({}, [])
    for place, transport in enumerate(TRANSPORTS):
        made, count = list(frames_of(transport).items()), 0
        for first in range(0, len(made), at_once):
            frames: list[bytes] = []
            for number, (name, frame) in enumerate(made[first : first + at_once], first):
                marker = f"poison{number}x{place}"
                sent.poisons[marker] = place, name
                good = [
                    transport.wrap(b"good%d" % place, message("good", b"neighbour %d" % n))
                    for n in range(count, count + among - 1)
                ]
                count += len(good)
                half = len(good) // 2
                frames += [*good[:half], frame(marker.encode())[: transport.longest], *good[half:]]
            await transport.send(daemon, frames)
        sent.neighbours.append(count)
    return sent


async def packed(daemon: Daemon, sql: asyncpg.Connection) -> int:
    """Return when all closed batches are packed, with their number."""
    end = time.monotonic() + PATIENCE
    while await sql.fetchval("select count(*) from batches where closed_at is not null and packed_at is null"):
        assert time.monotonic() < end, f"batches are not packed: {daemon.said()}"
        await asyncio.sleep(0.05)
    count: int = await sql.fetchval("select count(*) from batches where packed_at is not null")
    return count


async def unfound(daemon: Daemon, markers: Sequence[str]) -> list[str]:
    """Return the markers that a search does not find."""
    missing = []
    for marker in markers:
        async with daemon.http.get("/logs", params={"q": f"service={marker} or {marker}"}) as answer:
            found = await answer.json()
            if answer.status != 200 or len(found) != 1 or "X-Logagg-Incomplete" in answer.headers:
                missing.append(marker)
    return missing


async def run(folder: Path, short: bool) -> Outcome:
    """Send all poisons over all transports, and look for each of them and for all neighbours."""
    among, at_once = (6, 1000) if short else (1000, 1)
    async with (
        Postgres(folder) as postgres,
        Daemon(folder, postgres.url, batch_records="3000" if short else "50000") as daemon,
    ):
        sent = await send_all(daemon, among, at_once)
        await daemon.drained()
        sql = await asyncpg.connect(postgres.url)
        try:
            batches = await packed(daemon, sql)
            states = Counter((row["marker"], row["state"]) for row in await sql.fetch(FOUND, MARKER))
            neighbours = {row[0]: (row[1], row[2]) for row in await sql.fetch(NEIGHBOURS)}
        finally:
            await sql.close()
        figures, broken = judged(sent, states, neighbours)
        stored = sorted({str(marker) for marker, state in states if state != "quarantined" and marker})
        asked = stored[:: 25 if short else 1]
        if missing := await unfound(daemon, asked):
            broken.append(f"a search does not find {[named(sent, marker) for marker in missing]}")
        leaks = await daemon.leaks()
        assert daemon.process
        if daemon.process.poll() is not None:
            broken.append(f"the daemon ended with {daemon.process.returncode}")
    figures |= {"packed batches": batches, "asked for by a search": len(asked), "not found": len(missing)}
    return Outcome({**figures, "books": "do not balance" if leaks else "balance"}, broken + leaks)


def named(sent: Sent, marker: str) -> str:
    """Return what a marker stands for."""
    place, name = sent.poisons[marker]
    return f"{name} over {TRANSPORTS[place].name}"


def judged(
    sent: Sent, states: Counter[tuple[str | None, str]], neighbours: dict[str, tuple[int, int]]
) -> tuple[dict[str, int | float | str], list[str]]:
    """Compare what is there with what was sent."""
    figures: dict[str, int | float | str] = {}
    broken, lost = [], 0
    for place, transport in enumerate(TRANSPORTS):
        markers = [marker for marker, (of, _) in sent.poisons.items() if of == place]
        counts = {state: sum(states[marker, state] > 0 for marker in markers) for state in STATES}
        rows, distinct = neighbours.get(f"good{place}", (0, 0))
        lost += sent.neighbours[place] - distinct
        said = ", ".join(f"{count} {state}" for state, count in counts.items())
        figures[transport.name] = (
            f"{len(markers)} poisons: {said}; {distinct:,} of {sent.neighbours[place]:,} neighbours"
        )
        if (rows, distinct) != (sent.neighbours[place], sent.neighbours[place]):
            broken.append(
                f"{transport.name}: {rows:,} rows of {distinct:,} neighbours, of {sent.neighbours[place]:,} sent"
            )
        for marker in markers:
            times = sum(states[marker, state] for state in STATES)
            if times != 1:
                broken.append(f"{named(sent, marker)} is there {times} times")
    figures |= {"poisons": len(sent.poisons), "neighbours": sum(sent.neighbours), "neighbours lost": lost}
    strangers = {marker for marker, _ in states} - sent.poisons.keys()
    if strangers:
        broken.append(f"there is what nobody sent: {len(strangers)} kinds")
    return figures, broken


SCENARIOS = [
    Scenario(
        "poison",
        f"each of {len(POISONS)} poisons, and {len(SYSLOG)} of syslog, as 1 of 1,000 records on every transport",
        "999 stored; 1 stored, cleaned or quarantined, and found by its marker",
        run,
    )
]

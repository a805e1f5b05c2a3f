"""A journal that has no room, and one that is damaged: flipped bits, a tail cut off, a tail torn in a crash."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from logagg.sinks.segments import Segment

from .harness import PATIENCE, Daemon, Postgres, verdict
from .scenario import Outcome, Scenario
from .senders import NUMBERS, Book, HttpSender, TcpSender, batch, under_load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from logagg.tests.chaos.senders import Batch

#: Seconds without an answer of yes, or without a byte taken, after which a sender counts as held back.
HELD = 1.0
#: What the daemon may hold besides the journal: little, so that it is soon full.
SMALL = {"memory": "64MiB", "buffer_records": "5000", "flush_records": "500", "ack_timeout": "0.5s"}
MIB = 1 << 20


# --- No room ---------------------------------------------------------------------------------------------------------


class Refused(HttpSender):
    """Looks at refusals, and comes again as a sender does, only sooner."""

    #: Refusals, and those that do not say when to come again.
    refusals = mute = 0
    #: When the last yes came.
    taken = 0.0

    async def deliver(self, batch: Batch) -> bool:
        headers = {"Idempotency-Key": batch.key}
        # Text that does not get smaller in the journal.
        body = re.sub(b" is sent", lambda _: b" is sent " + os.urandom(400).hex().encode(), batch.body)
        async with self._session.post("/ingest", data=body, headers=headers) as answer:
            await answer.read()
            self.book.answers[answer.status] += 1
            if answer.status == 503:
                self.refusals += 1
                self.mute += not answer.headers.get("Retry-After", "").isdigit()
                await asyncio.sleep(0.1)
            else:
                self.taken = time.monotonic()
            return answer.status == 200


class Pushing(TcpSender):
    """Sends lines of eight kilobytes, which fill the kernel's buffers, and are small in the journal."""

    taken = 0.0

    async def deliver(self, batch: Batch) -> bool:
        body = batch.body.replace(b" is sent", b" is sent" + b" and has more text" * 450)
        done = await super().deliver(batch._replace(body=body))
        self.taken = time.monotonic()
        return done


class Full(NamedTuple):
    """A daemon whose journal has little room, and who sends to it."""

    postgres: Postgres
    daemon: Daemon
    http: Refused
    tcp: Pushing

    async def held(self) -> None:
        """Return when nobody gets anything through: HTTP is refused, TCP is not read."""
        before = self.http.refusals
        await self._until(
            lambda now: self.http.refusals > before and now - max(self.http.taken, self.tcp.taken) > HELD,
            "senders are not held back",
        )

    async def taking(self) -> float:
        """Return when both get on again, with the seconds that took."""
        began = time.monotonic()
        await self._until(lambda _: min(self.http.taken, self.tcp.taken) > began, "senders do not get on")
        return time.monotonic() - began

    async def _until(self, so: Callable[[float], bool], or_else: str) -> None:
        end = time.monotonic() + PATIENCE
        while not so(time.monotonic()):
            assert self.daemon.process
            assert self.daemon.process.poll() is None, f"the daemon ended: {self.daemon.said()}"
            assert time.monotonic() < end, f"{or_else} after {PATIENCE} s: {self.daemon.said()}"
            await asyncio.sleep(0.02)


async def filled(
    folder: Path, settings: dict[str, str], fault: Callable[[Full], Awaitable[dict[str, int | float | str]]]
) -> Outcome:
    """Run a fault under load, and look what became of all."""
    async with (
        Postgres(folder) as postgres,
        Daemon(folder, postgres.url, **SMALL, **settings) as daemon,
    ):
        http, tcp = Refused(Book("HTTP"), daemon, rate=2000), Pushing(Book("TCP"), daemon, rate=1500, size=20)
        full = Full(postgres, daemon, http, tcp)
        async with under_load([http, tcp]):
            await full.taking()
            figures = await fault(full)
        outcome = await verdict(daemon, postgres.url, [http.book, tcp.book])
    broken = [f"{http.mute} refusals have no Retry-After"] if http.mute else []
    figures = {"refusals of HTTP": http.refusals, "without Retry-After": http.mute, **figures}
    return Outcome({**figures, **outcome.figures}, broken + outcome.broken)


async def cap_reached(folder: Path, short: bool) -> Outcome:
    """Fill a journal up to its cap, and let PostgreSQL come back."""

    async def fault(full: Full) -> dict[str, int | float | str]:
        await full.postgres.stop()
        await full.held()
        await asyncio.sleep(0 if short else 20)
        held = int((await full.daemon.metrics())["journal_bytes"])
        await full.postgres.start()
        return {"bytes of the journal": held, "seconds until both are taken again": round(await full.taking(), 1)}

    return await filled(folder, {"journal_size": "256KiB" if short else "4MiB"}, fault)


async def disk_full(folder: Path, short: bool) -> Outcome:
    """Fill the disk of the journal, free some of it, fill that, and let PostgreSQL come back."""
    disk = folder / "data" / "journal"
    size = (2 if short else 8) * MIB
    with disk_of(disk, size) as mounted:
        if not mounted:
            return Outcome({"disk": "not done: this user may not mount a tmpfs"}, [])
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(size * 3 // 4))

        async def fault(full: Full) -> dict[str, int | float | str]:
            await full.postgres.stop()
            await full.held()
            ballast.unlink()
            freed = await full.taking()
            await full.held()
            await full.postgres.start()
            back = await full.taking()
            return {
                "seconds until both are taken again, the disk freed": round(freed, 1),
                "seconds until both are taken again, PostgreSQL back": round(back, 1),
            }

        return await filled(folder, {}, fault)


@contextmanager
def disk_of(folder: Path, size: int) -> Iterator[bool]:
    """Mount a small disk there; False when this user may not."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


# --- Damage ----------------------------------------------------------------------------------------------------------

#: Records of a body, and so of an entry; bodies of a round.
RECORDS, BODIES = 200, 40
REPORTED = "a file of the journal is damaged; it is kept"


class Entry(NamedTuple):
    """An entry of the journal on disk."""

    path: Path
    start: int
    end: int


def entries_of(folder: Path) -> list[Entry]:
    """Return the entries of all files, in their order."""
    entries = []
    for path in sorted(folder.glob("*.journal")):
        segment = Segment(path)
        segment.load(last=False)
        place = segment.place
        while found := segment.find(place):
            entries.append(Entry(path, found.start, found.end))
            place = found.end
        segment.close()
    return entries


class Damage(NamedTuple):
    """What was done to the files of a journal."""

    #: The places of the entries that were hit.
    hit: set[int]
    #: The files that must be reported and kept, as they then were.
    files: dict[Path, bytes]
    #: Bytes of a tail that was never acknowledged.
    torn: int


def damage(folder: Path, draw: random.Random) -> Damage:
    """Flip a bit in one file, cut the tail off another, and let the last end as a crash within a write leaves it."""
    entries = entries_of(folder)
    paths = sorted({entry.path for entry in entries})
    assert len(paths) >= 3, f"{len(paths)} files are too few"
    bit, cut = draw.sample(paths[:-1], 2)
    flipped = draw.choice([place for place, entry in enumerate(entries) if entry.path == bit])
    flip(entries[flipped], draw)
    ended = max(place for place, entry in enumerate(entries) if entry.path == cut)
    os.truncate(cut, draw.randrange(entries[ended].start + 1, entries[ended].end))
    with paths[-1].open("rb+") as file:
        whole = file.read()[entries[-1].start : entries[-1].end]
        torn = whole[: draw.randrange(1, len(whole) - 1)] + bytes(draw.randrange(2) * 1000)
        file.write(torn)
    return Damage({flipped, ended}, {path: path.read_bytes() for path in (bit, cut)}, len(torn))


def flip(entry: Entry, draw: random.Random) -> None:
    """Flip one bit of an entry, but of its last byte, which says nothing."""
    with entry.path.open("rb+") as file:
        place = draw.randrange(entry.start, entry.end - 1)
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << draw.randrange(8)]))


async def acknowledged(daemon: Daemon, bodies: int) -> list[Batch]:
    """Send bodies, one after the other, which are all acknowledged."""
    batches = []
    for _ in range(bodies):
        sent = batch(islice(NUMBERS, RECORDS), "HTTP")
        async with daemon.http.post("/ingest", data=sent.body, headers={"Idempotency-Key": sent.key}) as answer:
            assert answer.status == 200, await answer.text()
        batches.append(sent)
    return batches


async def reported(daemon: Daemon, done: Damage, files: int) -> list[str]:
    """Return what is not said, or not kept, of damage; so many files are damaged in all rounds."""
    metrics, log = await daemon.metrics(), daemon.log.read_text()
    broken = [
        f"metric journal_{name} is {metrics[f'journal_{name}']:g}, not {wanted}"
        for name, wanted in (("damaged_files", files), ("cut_bytes", done.torn))
        if metrics[f"journal_{name}"] != wanted
    ]
    if not 0 < metrics["journal_lost_records"] <= RECORDS * len(done.hit):
        broken.append(f"metric journal_lost_records is {metrics['journal_lost_records']:g}")
    for path, content in done.files.items():
        if not any(REPORTED in line and str(path) in line for line in log.splitlines()):
            broken.append(f"the log does not tell of {path.name}")
        kept = path.with_name(f"{path.name}.damaged")
        if not kept.exists() or kept.read_bytes() != content:
            broken.append(f"{path.name} was not kept as it was")
    said = await daemon.leaks()
    if [line.partition(": ")[2][:8] for line in said] != ["journal:"]:
        broken.append(f"of the damage, and nothing else, logagg doctor should tell; it says {said}")
    return broken


async def damaged(folder: Path, short: bool) -> Outcome:
    """Kill the daemon while PostgreSQL is away, damage its journal, and let both come back; again and again."""
    seed = random.randrange(1 << 32)  # noqa: S311 - no secret
    draw, rounds = random.Random(seed), 1 if short else 10  # noqa: S311
    sent: list[Batch] = []
    lost: set[int] = set()
    files = torn = 0
    broken: list[str] = []
    async with Postgres(folder) as postgres, Daemon(folder, postgres.url, journal_size="224KiB") as daemon:
        for _ in range(rounds):
            await postgres.stop()
            batches = await acknowledged(daemon, BODIES)
            await daemon.kill()
            done = damage(daemon.data_dir / "journal", draw)
            await postgres.start()
            await daemon.start()
            await daemon.drained()
            sent += batches
            lost.update(*(batches[place].numbers for place in done.hit))
            files += len(done.files)
            torn += done.torn
            broken += await reported(daemon, done, files)
        found = Counter(each["attributes"]["n"] for each in await daemon.exported())
        await daemon.kill(signal.SIGTERM)
        await daemon.start()  # the damaged files are aside now, and the rest is in order
        leaks = await daemon.leaks()
    everything = {number for batch in sent for number in batch.numbers}
    missing, strange = everything - lost - found.keys(), found.keys() - (everything - lost)
    twice = sum(count > 1 for count in found.values())
    for what, count in (("missing", len(missing)), ("there of what was damaged", len(strange)), ("twice", twice)):
        if count:
            broken.append(f"{count:,} {what}")
    figures: dict[str, int | float | str] = {
        "seed": seed,
        "records in the journal": len(everything),
        "files damaged": files,
        "records in the entries that were hit": len(lost),
        "bytes of torn tails": torn,
        "other records missing": len(missing),
        "twice": twice,
        "reports missing": len(broken),
        "books": "do not balance" if leaks else "balance",
    }
    return Outcome(figures, broken + leaks)


SCENARIOS = [
    Scenario(
        "journal-full",
        "PostgreSQL away, and the journal at its cap; then PostgreSQL comes back",
        "503 with Retry-After, TCP held back, no crash; nothing lost, and acks again",
        cap_reached,
    ),
    Scenario(
        "journal-disk-full",
        "PostgreSQL away, and the disk of the journal full; then it is freed, full again, and PostgreSQL comes back",
        "the same, and acks again as soon as there is room on the disk",
        disk_full,
    ),
    Scenario(
        "journal-damaged",
        "a flipped bit and a tail cut off in files of the journal, a torn tail, between SIGKILL and the next start",
        "the rest is replayed; the damage is in log, metrics and doctor, and the files are kept",
        damaged,
    ),
]

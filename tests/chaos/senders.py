"""Senders that know what they sent and what was acknowledged, and send again what was not.

For another protocol with an answer, make a `Sender` whose `deliver` connects when it must, sends the batch, awaits the
answer, and says whether it was a yes; whatever is raised, OSError or EOFError, the same batch comes again.
"""

from __future__ import annotations

import asyncio
import struct
import time
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count, islice
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import aiohttp
import msgpack
import orjson

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from logagg.tests.chaos.harness import Daemon

#: Each record of a run has a number of its own.
NUMBERS = count(1)
#: What a sender over HTTP may be told while there is trouble, and when there is none.
PROPER = {200, 503}
#: Seconds between two attempts.
PAUSE = 0.02
#: Seconds in which all senders must have had their last answer.
PATIENCE = 120
#: Seconds that a sender over a connection waits for an answer before it connects again.
ANSWER_PATIENCE = 30


@dataclass
class Book:
    """What was sent under one name, and what was acknowledged."""

    name: str
    #: Whether no record may be there twice, whatever happens: without a key one may, when its answer was lost.
    once: bool = True
    #: What the figures call it: without an answer there is only what was sent.
    word: str = "acknowledged"
    sent: set[int] = field(default_factory=set)
    acknowledged: set[int] = field(default_factory=set)
    #: Records that were sent once more because there was no answer, or no.
    again: int = 0
    #: Answers by status, or what other protocols have instead.
    answers: Counter[int] = field(default_factory=Counter)
    #: Seconds that the slowest batch waited for its acknowledgement, from when it was sent first.
    longest: float = 0.0

    def odd_answers(self) -> list[tuple[int, int]]:
        """Return the answers that nobody should get, with how often."""
        return [(status, number) for status, number in self.answers.items() if status not in PROPER]


class Batch(NamedTuple):
    """Records that are sent together, and again together."""

    numbers: list[int]
    #: As JSON lines.
    body: bytes
    key: str


def batch(numbers: Iterable[int], service: str) -> Batch:
    """Make a batch of records with these numbers, of this moment."""
    numbers = list(numbers)
    now = datetime.now(UTC).isoformat()
    lines = [
        orjson.dumps({"timestamp": now, "service": service, "level": "info", "message": f"record {n} is sent", "n": n})
        for n in numbers
    ]
    return Batch(numbers, b"\n".join(lines) + b"\n", str(uuid4()))


class Sender(ABC):
    """Sends batch after batch at a rate, each until it is acknowledged; what it could not send in time comes later."""

    #: Whether a batch that was not acknowledged is sent again.
    insists = True

    def __init__(self, book: Book, daemon: Daemon, *, rate: float = 1000, size: int = 50) -> None:
        """Send `rate` records a second, `size` of them together."""
        self.book = book
        self.daemon = daemon
        self._rate = rate
        self._size = size

    @abstractmethod
    async def deliver(self, batch: Batch) -> bool:
        """Send a batch; return whether it was acknowledged. Raises OSError, EOFError, TimeoutError."""

    async def finish(self) -> None:
        """Close what is open, behind the last batch."""
        return

    async def run(self, stopping: asyncio.Event) -> None:
        """Send until told to stop, and then until the last batch is acknowledged."""
        due = time.monotonic()
        while not stopping.is_set():
            await self._send(batch(islice(NUMBERS, self._size), self.book.name))
            due += self._size / self._rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await self.finish()

    async def _send(self, batch: Batch) -> None:
        self.book.sent.update(batch.numbers)
        began = time.monotonic()
        while not await self._acknowledged(batch):
            if not self.insists:
                return
            await asyncio.sleep(PAUSE)
        self.book.acknowledged.update(batch.numbers)
        self.book.longest = max(self.book.longest, time.monotonic() - began)

    async def _acknowledged(self, batch: Batch) -> bool:
        try:
            if await self.deliver(batch):
                return True
        except (ConnectionRefusedError, aiohttp.ClientConnectorError):  # nothing was sent
            return False
        except (OSError, EOFError, TimeoutError, aiohttp.ClientError):
            pass
        self.book.again += len(batch.numbers)
        return False


class HttpSender(Sender):
    """`POST /ingest`, with the batch's Idempotency-Key when the book says `once`."""

    async def run(self, stopping: asyncio.Event) -> None:
        async with aiohttp.ClientSession(self.daemon.url, timeout=aiohttp.ClientTimeout(total=30)) as self._session:
            await super().run(stopping)

    async def deliver(self, batch: Batch) -> bool:
        headers = {"Idempotency-Key": batch.key} if self.book.once else {}
        async with self._session.post("/ingest", data=batch.body, headers=headers) as answer:
            await answer.read()
            self.book.answers[answer.status] += 1
            return answer.status == 200


class TcpSender(Sender):
    """JSON lines over one connection. There is no answer: all that it could write counts, while the daemon lives."""

    insists = False

    def __init__(self, book: Book, daemon: Daemon, *, rate: float = 1000, size: int = 50) -> None:
        super().__init__(book, daemon, rate=rate, size=size)
        book.word = "sent"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def deliver(self, batch: Batch) -> bool:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self.daemon.ports["tcp"])
        _, writer = self._streams
        writer.write(batch.body)
        await writer.drain()
        return True

    async def finish(self) -> None:
        """Return when the daemon has read all."""
        if self._streams:
            reader, writer = self._streams
            writer.write_eof()
            await reader.read()
            writer.close()


class StreamSender(Sender):
    """Sends over a connection of its own, makes a new one when that breaks, and waits for the answer to each batch."""

    #: Where the daemon listens: `relp`, `forward` ...
    listener = ""

    def __init__(self, book: Book, daemon: Daemon, *, rate: float = 1000, size: int = 50) -> None:
        super().__init__(book, daemon, rate=rate, size=size)
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def deliver(self, batch: Batch) -> bool:
        try:
            async with asyncio.timeout(ANSWER_PATIENCE):
                if self._open is None:
                    self._open = await asyncio.open_connection("127.0.0.1", self.daemon.ports[self.listener])
                    await self.begin(*self._open)
                return await self.say(batch, *self._open)
        except BaseException:
            await self.finish()
            raise

    async def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say what is said first over a new connection."""
        return

    @abstractmethod
    async def say(self, batch: Batch, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send a batch; return whether it was acknowledged."""

    async def finish(self) -> None:
        if self._open:
            self._open[1].close()
            self._open = None


class RelpSender(StreamSender):
    """RELP, as omrelp: a number a message, a window of a batch. What got no answer is sent again, and may be there."""

    listener = "relp"

    async def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._number = 1
        offers = b"relp_version=0\nrelp_software=chaos\ncommands=syslog"
        writer.write(b"1 open %d %b\n" % (len(offers), offers))
        assert (await self._answer(reader))[0] == 1

    async def say(self, batch: Batch, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        waiting = set()
        for number in batch.numbers:
            self._number += 1
            waiting.add(self._number)
            data = b"<13>1 - host %b - - - record %d is sent" % (self.book.name.encode(), number)
            writer.write(b"%d syslog %d %b\n" % (self._number, len(data), data))
        while waiting:
            number, status = await self._answer(reader)
            self.book.answers[status] += 1
            if status != 200:
                return False
            waiting.remove(number)
        return True

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, int]:
        """Return the number of the message that is answered, and the status."""
        # A hint that the connection is closed has no third blank: EOFError.
        number, command, size = [(await reader.readuntil(b" ")).strip() for _ in range(3)]
        data = await reader.readexactly(int(size) + 1)
        if command != b"rsp":
            raise EOFError(f"{command!r} instead of a response")
        return int(number), int(data[:3])


class ForwardSender(StreamSender):
    """Fluent Forward with `chunk`, the same when a batch is sent again: it is stored once."""

    listener = "forward"

    async def say(self, batch: Batch, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        now = int(time.time())
        events = [[now, {"log": f"record {number} is sent", "n": number}] for number in batch.numbers]
        writer.write(msgpack.packb([self.book.name, events, {"chunk": batch.key, "size": len(events)}]))
        wanted = msgpack.packb({"ack": batch.key})
        acknowledged: bool = await reader.readexactly(len(wanted)) == wanted
        return acknowledged


class LumberjackSender(StreamSender):
    """Lumberjack, as Filebeat: a compressed window of events, answered by the number of the last one."""

    listener = "lumberjack"

    async def say(self, batch: Batch, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = batch.body.splitlines()
        events = [b"2J" + struct.pack(">II", place, len(line)) + line for place, line in enumerate(lines, 1)]
        packed = zlib.compress(b"".join(events))
        writer.write(b"2W" + struct.pack(">I", len(lines)) + b"2C" + struct.pack(">I", len(packed)) + packed)
        wanted = b"2A" + struct.pack(">I", len(lines))
        return await reader.readexactly(len(wanted)) == wanted


@asynccontextmanager
async def under_load(senders: Sequence[Sender]) -> AsyncIterator[None]:
    """Have them send; at the end each has every answer, or TimeoutError is raised."""
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sender.run(stopping)) for sender in senders]
        try:
            yield
        finally:
            stopping.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait(tasks)


def books_of(senders: Iterable[Sender]) -> list[Book]:
    """Return the books of senders, each once."""
    return list({id(sender.book): sender.book for sender in senders}.values())

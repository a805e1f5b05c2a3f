"""Live tails: matching records as they are committed, as server-sent events, each with the place to go on behind it.

A tail is a position (`sinks/commits.py`), and pulls. While its client keeps up it takes the pieces that the feed has
read for all tails; one that was away or is slow reads what it has missed from the store, until it is where the feed is.
It never holds more than it is just handing over.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import polars as pl

from logagg.query.answers import Filter
from logagg.query.engine import Engine
from logagg.query.errors import QueryError, QueryLimit
from logagg.query.feed import Chunk, Feed, missed
from logagg.query.http import dumps
from logagg.query.plan import Plan, plan_for
from logagg.query.records import to_records
from logagg.query.resume import Rest, Resume, prefix
from logagg.query.search import Cursor
from logagg.sinks.commits import Position
from logagg.sinks.errors import StoreUnavailable
from logagg.sinks.frames import LAST_PLACE, PLACE_BITS
from logagg.sinks.store import Store
from logagg.sinks.threads import read_in_thread

#: Tails at once, and records that one may begin with.
MOST_TAILS = 100
MAX_BACKLOG = 10_000
#: Seconds between two signs of life, and between two looks whether the client is still there.
ALIVE = 10.0
LOOK = 2.0
#: Seconds for which the feed goes on without a tail.
_LINGER = 10.0
#: Milliseconds after which a client that lost the connection tries again.
_RETRY = 1000
#: Records that are written at once, and as many of them as need no thread.
_WRITTEN = 512
_FEW = 32
#: Tails that read at once what they have missed.
_CATCHING_UP = 2
_ELSEWHERE = (
    "this last_event_id is of another database, or of one before it was restored; the tail goes on with what is new"
)


class Tails:
    """All tails of a daemon. They share one feed, which runs while there are any."""

    def __init__(self, store: Store, engine: Engine, *, most: int = MOST_TAILS) -> None:
        self._store = store
        self._engine = engine
        self._most = most
        self._turns = asyncio.Semaphore(_CATCHING_UP)
        self._feed = Feed(store)
        self._running: asyncio.Task[None] | None = None
        #: Ends the feed, when there was no tail for a while: one that was cut off comes again in a second.
        self._ending: asyncio.TimerHandle | None = None
        self._scopes: set[asyncio.Timeout] = set()
        self._stopped = False

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._scopes)

    async def stop(self, _: object = None) -> None:
        """End all: TimeoutError is raised where they are used."""
        self._stopped = True
        for scope in self._scopes:
            scope.reschedule(0)
        await self._stop_feed()

    @asynccontextmanager
    async def tail(
        self, asked: Filter, *, resume: str | None = None, backlog: int = 0
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Begin a tail: yields what to send. No bytes, every `LOOK` seconds, are an occasion to see who still listens.

        It begins behind `resume`, else with the newest `backlog` matching records. Raises QueryError, and QueryLimit
        when there are too many.
        """
        if self._stopped or len(self._scopes) >= self._most:
            raise QueryLimit(f"{len(self._scopes)} tails are running, at most {self._most} at once: try again later")
        at = None if resume is None else Resume.read(resume)
        if at and at.rest:
            Cursor.read(at.rest.cursor, "oldest")
        if not 0 <= backlog <= MAX_BACKLOG:
            raise QueryError(f"backlog of {backlog}, at least 0 and at most {MAX_BACKLOG}")
        async with asyncio.timeout(None) as scope:
            self._scopes.add(scope)
            try:
                plan = await read_in_thread(plan_for, asked)
                self._run_feed()
                tail = _Tail(self._store, self._engine, self._feed, self._turns, asked, plan)
                async with aclosing(tail.events(at, backlog)) as events:
                    yield events
            finally:
                self._scopes.discard(scope)
                if not self._scopes and self._running:
                    loop = asyncio.get_running_loop()
                    self._ending = loop.call_later(_LINGER, self._running.cancel)

    def _run_feed(self) -> None:
        if self._ending:
            self._ending.cancel()
            self._ending = None
        if self._running is None or self._running.done() or self._running.cancelling():
            self._feed = Feed(self._store)
            self._running = asyncio.create_task(self._feed.run(), name="tails")

    async def _stop_feed(self) -> None:
        if self._ending:
            self._ending.cancel()
        if self._running:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)


class _Tail:
    """One tail."""

    def __init__(
        self, store: Store, engine: Engine, feed: Feed, turns: asyncio.Semaphore, asked: Filter, plan: Plan
    ) -> None:
        self._store = store
        self._engine = engine
        self._feed = feed
        self._turns = turns
        self._asked = asked
        self._plan = plan
        #: Looks of the feed that had begun before.
        self._looked = feed.begun
        #: None until the feed has one.
        self._position: Position | None = None
        #: What is left of the backlog.
        self._rest: Rest | None = None
        #: The piece of the feed to look at next; None while the tail is not where the feed is.
        self._next: int | None = None
        #: What it reads meanwhile, and where it will be then.
        self._missed: AsyncGenerator[Chunk, None] | None = None
        self._joins = (Position(0, {}), 0)
        #: The position and the problem that the client was told.
        self._told: Position | None = None
        self._said: str | None = None

    async def events(self, at: Resume | None, backlog: int) -> AsyncGenerator[bytes, None]:
        """Yield what to send."""
        yield b"retry: %d\n\n" % _RETRY
        spoke = time.monotonic()
        while True:
            trouble = self._feed.problem
            data = b""
            try:
                if self._position is None:
                    data = await self._begin(at, backlog)
                if not data and self._position is not None:
                    data = await self._more(self._position)
            except StoreUnavailable as error:
                self._missed = None
                trouble = str(error)
            data += self._problem(trouble)
            if not data and time.monotonic() - spoke >= ALIVE:
                data = b": alive\n" + self._id() + b"\n"
            if data:
                spoke = time.monotonic()
            waits = not data or trouble is not None
            yield data
            data = b""  # not held while waiting
            if waits:
                await self._feed.changed(LOOK)

    def _problem(self, detail: str | None) -> bytes:
        """Return the event that tells of a problem, which is told once until all is well again."""
        before, self._said = self._said, detail and (self._said or detail)
        return b"event: problem\ndata: " + dumps({"detail": detail}) + b"\n\n" if detail and not before else b""

    def _id(self) -> bytes:
        """Return the place where the tail is, if the client does not know it: there may be nothing to tell it with."""
        if self._position is None or self._rest or self._told == self._position:
            return b""
        self._told = self._position
        return f"id: {Resume(self._position)}\n".encode()

    async def _begin(self, at: Resume | None, backlog: int) -> bytes:
        """Find the place to begin at. Nothing is returned when that needs another look of the feed."""
        now = self._feed.position
        if now is None:
            return b""
        if at and at.position.newest > now.newest and self._feed.looks <= self._looked:
            self._feed.look()
            return b""
        if at and at.position.newest <= now.newest:
            self._position, self._rest = at
            return self._id() + b"\n"
        self._next = self._feed.next
        said = self._problem(_ELSEWHERE) if at else await self._find_backlog(now, backlog)
        self._position = now
        return said + (b"" if self._rest else self._id() + b"\n")

    async def _more(self, position: Position) -> bytes:
        """Return some events; nothing when there are none for now."""
        if self._rest:
            return await self._backlog(position, self._rest)
        return await (self._catch_up(position) if self._next is None else self._live(self._next))

    # The backlog

    async def _find_backlog(self, now: Position, count: int) -> bytes:
        """Find out where the backlog begins: with the oldest of the newest records. Return a problem."""
        try:
            newest = (await self._engine.search(self._asked, limit=count)).records if count else []
        except QueryLimit as error:
            return self._problem(f"without the backlog: {error}")
        if known := [record for record in newest if now.covers(record["id"])]:
            before = Cursor("oldest", known[-1]["timestamp"], known[-1]["id"] - 1)
            self._rest = Rest(len(known), str(before))
        return b""

    async def _backlog(self, position: Position, rest: Rest) -> bytes:
        try:
            page = await self._engine.search(self._asked, limit=_WRITTEN, cursor=rest.cursor, order="oldest")
        except QueryLimit as error:
            self._rest = None
            return self._problem(f"the rest of the backlog is left out: {error}")
        events = []
        left = rest.left
        for record in page.records:
            if left and position.covers(record["id"]):
                left -= 1
                behind = Rest(left, str(Cursor("oldest", record["timestamp"], record["id"])))
                events.append(_event(str(Resume(position, behind if left else None)), record))
        self._rest = Rest(left, page.cursor) if left and page.cursor else None
        return b"".join(events)

    # What was committed since

    async def _catch_up(self, position: Position) -> bytes:
        """Read from the store, until the tail is where the feed was when that began."""
        if self._missed is None:
            assert self._feed.position is not None  # noqa: S101 - or the tail would have none
            self._joins = (self._feed.position, self._feed.next)
            self._missed = missed(self._store, self._plan, position, self._feed.position, self._turns)
        async for chunk in self._missed:
            if data := await self._take(chunk):
                return data
        self._missed = None
        now, self._next = self._joins
        assert self._position is not None  # noqa: S101 - as above
        self._position = Position(max(self._position.newest, now.newest), self._position.unfinished)
        return await self._live(self._next)

    async def _live(self, number: int) -> bytes:
        """Take what matches out of the pieces of the feed."""
        while number < self._feed.next:
            assert self._position is not None  # noqa: S101 - as above
            piece = self._feed.piece(number)
            if piece is None:
                self._next = None
                return await self._catch_up(self._position)
            found = await piece.matching(self._asked, self._plan)
            first = (piece.batch << PLACE_BITS) + self._position.place(piece.batch)
            if found.height and found["id"][0] < first:
                found = found.filter(found["id"] >= first)
            part = found.head(_WRITTEN)
            if part.height == found.height:
                number = self._next = number + 1
                chunk = Chunk(piece.batch, part, piece.end, piece.last)
            else:
                chunk = Chunk(piece.batch, part, (part["id"][-1] & LAST_PLACE) + 1, False)
            if data := await self._take(chunk):
                return data
        return b""

    async def _take(self, chunk: Chunk) -> bytes:
        """Return the events of a chunk, and go behind it."""
        assert self._position is not None  # noqa: S101 - as above
        data = self._problem(chunk.problem) if chunk.problem else b""
        if chunk.frame.height:
            until = prefix(self._position, chunk.batch)
            few = chunk.frame.height <= _FEW
            data += _events(until, chunk.frame) if few else await read_in_thread(_events, until, chunk.frame)
        place = self._position.place(chunk.batch)
        if chunk.last or chunk.end > place or chunk.batch > self._position.newest:
            self._position = self._position.after(chunk.batch, max(chunk.end, place), last=chunk.last)
        if chunk.frame.height and not chunk.last:
            self._told = self._position
        return data


def _events(until: str, frame: pl.DataFrame) -> bytes:
    return b"".join([_event(f"{until}{(record['id'] & LAST_PLACE) + 1:x}", record) for record in to_records(frame)])


def _event(id_: str, record: dict[str, Any]) -> bytes:
    return b"id: %b\ndata: %b\n\n" % (id_.encode(), dumps(record))

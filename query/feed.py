"""What is committed while tails run: read once, in pieces that the tails share, and what one has missed."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import NamedTuple

import polars as pl
import structlog

from logagg.query.answers import Filter, Stats
from logagg.query.evaluate import columns_needed, evaluate
from logagg.query.export import slices
from logagg.query.plan import Plan
from logagg.query.question import RECORD
from logagg.query.syntax import All
from logagg.query.words import may_match
from logagg.sinks.commits import Position, Watch
from logagg.sinks.errors import BlobDamaged, StoreUnavailable
from logagg.sinks.frames import LAST_PLACE, PLACE_BITS, empty
from logagg.sinks.store import BatchInfo, Store
from logagg.sinks.threads import read_in_thread

log = structlog.get_logger(__name__)

#: Seconds in which commits gather, so that many small ones make one piece.
_GATHER = 0.05
#: Seconds after which it is looked without news: a daemon that was killed announces nothing.
_LOOK = 5.0
#: Seconds until a store that is away is tried again.
_AGAIN = 1.0
#: Bytes of pieces that are kept; a tail that is further behind reads from the store.
_KEPT = 32 << 20
#: Bytes of a piece without records, about.
_EMPTY = 1000
#: Records that are looked for, and loaded, at a time for a tail that catches up.
_SOUGHT = 4096
_LOADED = 512
#: Records and bytes that are evaluated without going to a thread.
_FEW = 200
_SMALL = 1 << 16

_NOTHING = empty(RECORD)

#: Told to those whose batches are gone.
DROPPED = "records that this tail had not read yet are gone: they were older than they are kept"


class Chunk(NamedTuple):
    """Matching records of one batch, by id; with them, what a tail has seen of the batch goes up to `end`."""

    batch: int
    frame: pl.DataFrame
    end: int
    #: Nothing more comes of this batch.
    last: bool
    problem: str | None = None


class Piece:
    """Records of one batch, committed one after the other, and what each filter found in them."""

    def __init__(self, batch: int, frame: pl.DataFrame, end: int, *, last: bool) -> None:
        self.batch = batch
        self.end = end
        self.last = last
        self.size = int(frame.estimated_size()) + _EMPTY
        self._frame = frame
        self._found: dict[Filter, asyncio.Future[pl.DataFrame]] = {}

    async def matching(self, asked: Filter, plan: Plan) -> pl.DataFrame:
        """Return the records that match; evaluated once for all tails with the same filter."""
        if asked not in self._found:
            self._found[asked] = asyncio.ensure_future(self._match(plan))
        return await asyncio.shield(self._found[asked])

    async def _match(self, plan: Plan) -> pl.DataFrame:
        if self._frame.height <= _FEW and self.size <= _SMALL:
            return matching(plan, self._frame)
        return await read_in_thread(matching, plan, self._frame)


def matching(plan: Plan, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the records of a frame that match."""
    return frame if plan.node == All() or not frame.height else frame.filter(evaluate(plan.node, frame))


class Feed:
    """Follows the commits of a store while it runs. Pieces are numbered; the newest ones are kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        #: Up to where pieces were made; None until the store has answered.
        self.position: Position | None = None
        #: The number of the next piece.
        self.next = 0
        #: Why nothing comes; None while all is well.
        self.problem: str | None = None
        self._pieces: deque[Piece] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._watch: Watch | None = None
        #: How many looks were begun, and which one was the last that ended.
        self.begun = self.looks = 0

    def piece(self, number: int) -> Piece | None:
        """Return a piece; None for one that is not kept any more."""
        place = number - self.next + len(self._pieces)
        return self._pieces[place] if place >= 0 else None

    async def changed(self, seconds: float) -> None:
        """Return when there is a piece or a problem, or after some seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for may lose a cancellation, before Python 3.12
                await self._news.wait()

    def look(self) -> None:
        """Have it looked soon, whether there is news or not."""
        if self._watch:
            self._watch.news.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                async with self._store.watch() as self._watch:
                    await self._follow(self._watch)
            except StoreUnavailable as error:
                self._tell(str(error))
            except Exception:
                log.exception("the feed of tails failed; it is started again")
                self._tell("an error inside the daemon; its log says more")
            await asyncio.sleep(_AGAIN)

    async def _follow(self, watch: Watch) -> None:
        while True:
            watch.news.clear()
            await self._step(watch)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await watch.news.wait()
            await asyncio.sleep(_GATHER)

    async def _step(self, watch: Watch) -> None:
        """Read what is new."""
        self.begun = begun = self.begun + 1
        found = await watch.commits(self.position)
        if self.position is None:
            self.position = found.position
        for span in spans(self.position, found.position, found.batches):
            if span.info and span.first < span.end:
                with contextlib.suppress(BlobDamaged):  # written a moment ago: who searches for it is told
                    frame = (await self._store.load(span.info, RECORD, span.ids)).frame.sort("id")
                    for part in slices(frame):
                        self._add(Piece(span.batch, part, (part["id"][-1] & LAST_PLACE) + 1, last=False))
            if span.last or self.position.place(span.batch) < span.end or span.batch > self.position.newest:
                self._add(Piece(span.batch, _NOTHING, span.end, last=span.last))
        self.position = Position(found.position.newest, self.position.unfinished)
        self.looks = begun
        self._tell(None)

    def _add(self, piece: Piece) -> None:
        assert self.position is not None  # noqa: S101 - set by the first step
        self._pieces.append(piece)
        self._size += piece.size
        while self._size > _KEPT:
            self._size -= self._pieces.popleft().size
        self.position = self.position.after(piece.batch, piece.end, last=piece.last)
        self.next += 1
        self._wake()

    def _tell(self, problem: str | None) -> None:
        self.problem = problem
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Span(NamedTuple):
    """What lies between two positions of one batch."""

    batch: int
    first: int
    end: int
    last: bool
    #: None for a batch that is gone, or has no records.
    info: BatchInfo | None

    @property
    def ids(self) -> range:
        """Return the ids that records of it may have."""
        return range(self.batch << PLACE_BITS | self.first, (self.batch << PLACE_BITS) + self.end)


def spans(old: Position, new: Position, batches: Mapping[int, BatchInfo]) -> Iterator[Span]:
    """Yield what lies between two positions, oldest batch first; the batches must be all that lie there."""
    numbers = {number for number in batches if old.newest < number <= new.newest}
    for number in sorted({*old.unfinished, *new.unfinished, *numbers}):
        first, end, last = old.place(number), new.place(number), number not in new.unfinished
        if first < end or number > old.newest or (last and number in old.unfinished):
            yield Span(number, first, end, last, batches.get(number))


async def missed(
    store: Store, plan: Plan, old: Position, new: Position, turns: asyncio.Semaphore
) -> AsyncGenerator[Chunk, None]:
    """Yield what matches between two positions, read from wherever it stands. Raises StoreUnavailable.

    Between two chunks it holds some thousand ids, and hardly a record. `turns` bound how many read at once.
    """
    batches = {batch.batch: batch for batch in await store.batches()}
    may = await _may_match(store, plan, list(batches.values()))
    oldest = min(batches, default=new.newest)
    if 0 < old.newest < oldest - 1:
        yield Chunk(oldest - 1, _NOTHING, 0, True, DROPPED)
    for span in spans(old, new, batches):
        if span.info and span.batch in may and span.first < span.end:
            async with aclosing(_matches(store, plan, span.info, span.ids, turns)) as found:
                async for chunk in found:
                    yield chunk
        gone = span.info is None and span.last and span.batch < oldest
        yield Chunk(span.batch, _NOTHING, span.end, span.last, DROPPED if gone else None)


async def _may_match(store: Store, plan: Plan, batches: list[BatchInfo]) -> set[int]:
    chosen = plan.choose(batches, Stats())
    held = await store.may_hold(chosen, plan.words) if plan.words else {}
    answers = {number: dict(zip(plan.words, each, strict=True)) for number, each in held.items()}
    return {b.batch for b in chosen if b.batch not in answers or may_match(plan.needed, answers[b.batch])}


async def _matches(
    store: Store, plan: Plan, batch: BatchInfo, within: range, turns: asyncio.Semaphore
) -> AsyncGenerator[Chunk, None]:
    """Yield the matching records of a batch with ids of a range, in their order."""
    columns = sorted({"id", *columns_needed(plan.node)})
    start = within.start
    try:
        while start < within.stop:
            async with turns:
                frame = (await store.load(batch, columns, range(start, within.stop))).frame
                ids = (await read_in_thread(matching, plan, frame))["id"].sort().head(_SOUGHT).to_list()
            del frame
            for first in range(0, len(ids), _LOADED):
                wanted = ids[first : first + _LOADED]
                async with turns:
                    loaded = (await store.load(batch, RECORD, wanted)).frame.sort("id")
                problem = DROPPED if loaded.height < len(wanted) else None
                for part in slices(loaded):
                    yield Chunk(batch.batch, part, (part["id"][-1] & LAST_PLACE) + 1, False, problem)
                    problem = None
            start = ids[-1] + 1 if len(ids) == _SOUGHT else within.stop
    except BlobDamaged as error:
        yield Chunk(batch.batch, _NOTHING, 0, False, str(error))

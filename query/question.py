"""A question under way: reads batches, several at a time, evaluates in threads, keeps the books, and ends in time."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, TypeVar, TypeVarTuple

import polars as pl

from logagg.query.answers import Filter, Stats
from logagg.query.errors import QueryLimit
from logagg.query.evaluate import columns_needed, evaluate
from logagg.query.plan import BULK, Plan, plan_for
from logagg.query.syntax import All, Node
from logagg.query.tables import Table, Tables
from logagg.query.words import may_match
from logagg.sinks.errors import BlobDamaged
from logagg.sinks.frames import SCHEMA
from logagg.sinks.store import BatchInfo, Loaded, Store

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

#: Batches that one question has in memory at a time.
AT_ONCE = 3
#: Batches whose filters are asked at first; if they do not suffice, all others are asked at once.
_FEW = 4
#: What fewer than one of so many batches may hold is rare.
_RARE = 4

#: Batches whose summaries are joined, some 2,000 rows of 28 bytes each: those of neighbouring numbers, so that the same
#: tables serve the next question.
SUMMED_AT_ONCE = 512

#: The ends of the calendar bound nothing, and must not: asyncpg stores them as infinities, which lie beyond.
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

#: All columns that records are read with.
RECORD = tuple(SCHEMA)


class Question:
    """What all kinds of questions do. `AT_ONCE` batches are in memory at a time, in the columns that are needed."""

    def __init__(
        self, store: Store, tables: Tables, pool: Executor, seconds: float, damaged: Callable[[int, str], None]
    ) -> None:
        """`damaged` is told the number of a batch that cannot be read, and why, each time one is met."""
        self.stats = Stats()
        self._damaged = damaged
        self._store = store
        self._tables = tables
        self._pool = pool
        self._limit = seconds
        self._began = time.monotonic()
        self._stopped = False
        #: Batches whose filters were asked, and those of them that may hold a match.
        self._asked = self._may = 0
        #: Records of batches that were read and are not in `stats` yet.
        self._read: dict[int, int] = {}

    @property
    def rare(self) -> bool:
        """Whether but few batches may hold a match, as far as filters were asked."""
        return self._may * _RARE < self._asked

    def limit_reached(self) -> QueryLimit:
        """Return the error for a question that took too long."""
        return QueryLimit(
            f"the query did not end within its limit of {self._limit:g} s: {self.stats.scanned} of "
            f"{self.stats.batches} batches read, {self.stats.records} records; ask for less, or a shorter time"
        )

    def stop(self) -> None:
        """End: what still runs in a thread gives up at its next check."""
        self._stopped = True
        self.stats.seconds = time.monotonic() - self._began

    async def run(self, work: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Run work in a thread of the engine."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def plan(self, asked: Filter, *more: Node) -> tuple[Plan, Sequence[BatchInfo]]:
        """Return the plan of a filter, and the batches that may hold a match; their filters are not asked yet."""
        plan = await self.run(plan_for, asked, *more)
        start = None if plan.start == _FIRST else plan.start
        end = None if plan.end == _LAST else plan.end
        return plan, plan.choose(await self._store.batches(start, end), self.stats)

    async def batch(self, number: int) -> BatchInfo | None:
        """Return the batch with this number; None when there is none, or not any more."""
        return next((batch for batch in await self._store.batches() if batch.batch == number), None)

    async def tables(self, batches: Iterable[BatchInfo]) -> AsyncGenerator[tuple[Sequence[BatchInfo], Table], None]:
        """Yield the batches in groups of at most `SUMMED_AT_ONCE`, with the summaries of those that have one."""
        groups: dict[int, list[BatchInfo]] = {}
        for batch in batches:
            groups.setdefault(batch.batch // SUMMED_AT_ONCE, []).append(batch)
        for group in groups.values():
            yield group, await self._table(group)

    async def _table(self, batches: Sequence[BatchInfo]) -> Table:
        versions = tuple((batch.batch, batch.version) for batch in batches)
        table = self._tables.get(versions)
        if table is None:
            table = await self.run(Table.of, await self._store.summaries(batches))
            self._tables.put(versions, table)
        return table

    async def each(
        self,
        plan: Plan,
        batches: Sequence[BatchInfo],
        work: Callable[[BatchInfo], Coroutine[Any, Any, T | None]],
        take: Callable[[T], None],
        wanted: Callable[[BatchInfo], bool] = lambda _: True,
        otherwise: str = "order",
    ) -> None:
        """Do work on the batches that may hold a match; `take` gets the results in their order, in a thread.

        The first is awaited alone, for often it is all that is wanted; then more and more are under way, `AT_ONCE` at
        most. A batch that is not wanted any more when its turn comes is left out, and counted as skipped for the reason
        `otherwise`; one of which None came gives nothing.
        """
        under_way: deque[tuple[BatchInfo, asyncio.Task[T | None]]] = deque()

        async def next_taken() -> None:
            batch, task = under_way[0]
            if not wanted(batch):
                self.stats.skip(otherwise)
                task.cancel()
            else:
                result = await task
                self._book(batch)
                if result is not None:
                    await self.run(take, result)
            under_way.popleft()

        at_once = 1
        try:
            async with aclosing(self._filtered(plan, batches)) as candidates:
                async for batch in candidates:
                    while len(under_way) >= at_once:
                        await next_taken()
                        at_once = min(at_once + 1, AT_ONCE)
                    if wanted(batch):
                        under_way.append((batch, asyncio.create_task(work(batch))))
                    else:
                        self.stats.skip(otherwise)
            while under_way:
                await next_taken()
        finally:
            for _, task in under_way:
                task.cancel()
            await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)

    def _book(self, batch: BatchInfo) -> None:
        """Count a batch that was read."""
        if (records := self._read.pop(batch.batch, None)) is not None:
            form = "packed" if batch.packed else "open" if batch.open else "rows"
            self.stats.read[form] = self.stats.read.get(form, 0) + 1
            self.stats.records += records

    async def _filtered(self, plan: Plan, batches: Sequence[BatchInfo]) -> AsyncGenerator[BatchInfo, None]:
        """Yield the batches that may hold the words that a match needs."""
        for part in (batches[:_FEW], batches[_FEW:]):
            held = await self._store.may_hold(part, plan.words) if plan.words and part else {}
            may = {
                number: may_match(plan.needed, dict(zip(plan.words, answers, strict=True)))
                for number, answers in held.items()
            }
            self._asked += len(may)
            self._may += sum(may.values())
            for batch in part:
                if may.get(batch.batch, True):
                    yield batch
                else:
                    self.stats.skip("filter")

    async def reduce(
        self, plan: Plan, batch: BatchInfo, columns: Collection[str], reduction: Callable[[pl.DataFrame], T]
    ) -> T | None:
        """Give the matching records of a batch, in these columns, to a function that runs in a thread.

        Return None when the batch cannot be read, or is known to hold no match.
        """
        frame = await self.frame(plan, batch, columns)
        return None if frame is None else await self.run(self._reduced, plan.node, frame, columns, reduction)

    def _reduced(
        self, node: Node, frame: pl.DataFrame, columns: Collection[str], reduction: Callable[[pl.DataFrame], T]
    ) -> T:
        mask = None if node == All() else self.mask(node, frame)
        kept = frame.select(sorted(columns) or frame.columns[:1])
        return reduction(kept if mask is None else kept.filter(mask))

    def matching(self, node: Node, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the records for which a condition holds."""
        return frame if node == All() else frame.filter(self.mask(node, frame))

    async def few(self, plan: Plan, batch: BatchInfo, columns: Sequence[str]) -> pl.DataFrame | None:
        """Return the matching records of a batch, in these columns, which are read for them alone.

        The condition is evaluated in two threads at once. Return None as `frame` does, and when there is no match.
        """
        frame = await self.frame(plan, batch, ("id",))
        if frame is None:
            return None
        half = (frame.height + 1) // 2
        parts = (frame.head(half), frame.slice(half))
        ids = pl.concat(await asyncio.gather(*(self.run(self._matching_ids, plan.node, part) for part in parts)))
        return await self.load(batch, columns, ids.to_list()) if len(ids) else None

    def _matching_ids(self, node: Node, frame: pl.DataFrame) -> pl.Series:
        return frame["id"].filter(self.mask(node, frame))

    async def frame(self, plan: Plan, batch: BatchInfo, columns: Collection[str]) -> pl.DataFrame | None:
        """Return all records of a batch, in these columns and those that the condition needs.

        The bulk is not read when what can be told without it excludes all. Return None then, and when the batch cannot
        be read.
        """
        needed = {*columns, *columns_needed(plan.node)} or {"severity"}
        if batch.packed and plan.light != All() and needed & BULK:
            head = await self.load(batch, sorted(columns_needed(plan.light)))
            if head is None:
                return None
            self._read[batch.batch] = head.height
            if not (await self.run(self.mask, plan.light, head)).any():
                return None
        frame = await self.load(batch, sorted(needed))
        if frame is not None:
            self._read[batch.batch] = frame.height
        return frame

    async def matches(self, plan: Plan, batch: BatchInfo, columns: Sequence[str]) -> pl.DataFrame | None:
        """Return the matching records of a packed batch, in these columns; None when it cannot be read.

        With `id` among them, the store knows where they stand when they are loaded by their ids.
        """

        def chosen(frame: pl.DataFrame) -> pl.Series:
            self._read[batch.batch] = frame.height
            return self.mask(plan.node, frame)

        needed = sorted({*columns, *columns_needed(plan.node)})
        found = await self._loaded(batch, self._store.select(batch, needed, chosen))
        return None if found is None else found[list(columns)]

    def mask(self, node: Node, frame: pl.DataFrame) -> pl.Series:
        """Evaluate; raises QueryLimit when the time is over."""
        return evaluate(node, frame, self._check)

    async def load(
        self, batch: BatchInfo, columns: Sequence[str], ids: Sequence[int] | None = None
    ) -> pl.DataFrame | None:
        """Return the records of a batch, or those with these ids; None when it is damaged, or gone meanwhile."""
        return await self._loaded(batch, self._store.load(batch, columns, ids))

    async def _loaded(self, batch: BatchInfo, loading: Awaitable[Loaded]) -> pl.DataFrame | None:
        try:
            loaded = await loading
        except BlobDamaged as error:
            if str(error) not in self.stats.damaged:
                self.stats.damaged.append(str(error))
            self._damaged(batch.batch, str(error))
            return None
        self.stats.fetched += loaded.fetched
        self.stats.cached += batch.packed and not loaded.fetched
        return loaded.frame

    def _check(self) -> None:
        if self._stopped or time.monotonic() - self._began > self._limit:
            raise self.limit_reached()

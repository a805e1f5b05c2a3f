"""A question under way: reads batches, evaluates in a worker thread, keeps the books, and ends in time."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from typing import TypeVar, TypeVarTuple

import polars as pl

from logagg.query.answers import Filter, Stats
from logagg.query.errors import QueryLimit
from logagg.query.evaluate import columns_needed, evaluate
from logagg.query.plan import Plan, plan_for
from logagg.query.syntax import All, Node
from logagg.sinks.frames import SCHEMA
from logagg.sinks.store import BatchInfo, Store

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class Question:
    """What all kinds of questions do. One batch is in memory at a time."""

    def __init__(self, store: Store, pool: Executor, seconds: float) -> None:
        self.stats = Stats()
        self._store = store
        self._pool = pool
        self._limit = seconds
        self._began = time.monotonic()
        self._stopped = False

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

    async def plan(self, asked: Filter, *more: Node) -> tuple[Plan, list[BatchInfo]]:
        """Return the plan of a filter, and the batches that may hold a match."""
        plan = await self.run(plan_for, asked, *more)
        return plan, plan.choose(await self._store.batches(plan.start, plan.end), self.stats)

    async def reduce(
        self, plan: Plan, batch: BatchInfo, columns: Collection[str], reduction: Callable[[pl.DataFrame], T]
    ) -> T:
        """Give the matching records of a batch, in these columns, to a function that runs in a thread."""
        frame = await self.load(batch, sorted({"id", *columns} | columns_needed(plan.node)))
        self.stats.scanned += 1
        self.stats.records += frame.height
        return await self.run(self._reduced, plan.node, frame, columns, reduction)

    def _reduced(
        self, node: Node, frame: pl.DataFrame, columns: Collection[str], reduction: Callable[[pl.DataFrame], T]
    ) -> T:
        kept = frame.select(sorted({"id", *columns}))
        return reduction(kept if node == All() else kept.filter(evaluate(node, frame, self._check)))

    async def load(self, batch: BatchInfo, columns: Sequence[str]) -> pl.DataFrame:
        """Return all records of a batch."""
        return await self._store.load(batch, columns)

    def _check(self) -> None:
        if self._stopped or time.monotonic() - self._began > self._limit:
            raise self.limit_reached()


#: All columns that records are read with.
RECORD = tuple(SCHEMA)

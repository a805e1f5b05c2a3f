"""The engine: every question about stored records goes through it.

A question takes a turn (so many at once, the others wait), reads batch by batch, evaluates in a worker thread, and ends
within its time limit, the waiting included.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from datetime import datetime, timedelta
from typing import Any

import structlog

from logagg.query import aggregate, context, histogram, patterns, search
from logagg.query.answers import (
    Bin,
    Context,
    Filter,
    Found,
    Groups,
    Histogram,
    Members,
    Order,
    Pattern,
    Patterns,
    Stats,
)
from logagg.query.errors import QueryError, QueryLimit
from logagg.query.question import Question
from logagg.query.tables import Tables
from logagg.sinks.store import Store

__all__ = [
    "Bin",
    "Context",
    "Engine",
    "Filter",
    "Found",
    "Groups",
    "Histogram",
    "Members",
    "Order",
    "Pattern",
    "Patterns",
    "QueryError",
    "QueryLimit",
    "Stats",
]

#: Places up to which an offset may lead; they are all sorted.
MAX_OFFSET = 1_000_000

log = structlog.get_logger(__name__)


class Engine:
    """Answers questions about a store. All raise QueryError, QueryLimit, and StoreError from the store."""

    def __init__(
        self,
        store: Store,
        *,
        timeout: float,
        concurrency: int = 2,
        max_records: int = 10_000,
        max_groups: int = 100_000,
        pattern_records: int = 200_000,
        member_records: int = 1_000_000,
    ) -> None:
        """Set the limits.

        `timeout` in seconds for one question, `concurrency` of them at once, `max_records` in one answer, `max_groups`
        of an aggregation, `pattern_records` in which patterns are looked for, `member_records` where each of them
        counts: it is told what is new, or which record is of which pattern.
        """
        self._store = store
        self._tables = Tables()
        self.timeout = timeout
        self._max_records = max_records
        self._max_groups = max_groups
        self._pattern_records = pattern_records
        self._member_records = member_records
        #: Entered around each question, with its kind: where the daemon measures.
        self.around: Callable[[str], AbstractContextManager[object]] = lambda _: nullcontext()
        self._damaged: set[int] = set()
        self._turns = asyncio.Semaphore(concurrency)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="query")

    def close(self) -> None:
        """End the worker threads, once what runs in them has ended. The store stays open."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def search(
        self,
        asked: Filter,
        *,
        limit: int,
        cursor: str | None = None,
        order: Order = "newest",
        offset: int = 0,
        count: bool = False,
    ) -> Found:
        """Return the first `limit` records by timestamp and id, after skipping `offset`, or those behind a cursor.

        With `count`, also how many match at all, whatever cursor, offset and limit. A walk by cursors meets each record
        once that was there when it began; of those that come in meanwhile it meets those that lie before it.
        """
        self._check_limit(limit)
        if not 0 <= offset <= MAX_OFFSET:
            raise QueryError(f"offset of {offset}, at least 0 and at most {MAX_OFFSET}; further down, use the cursor")
        if order not in ("newest", "oldest"):
            raise QueryError(f"order {order!r} is neither newest nor oldest")
        async with self._question("search") as question:
            return await search.search(
                question, asked, limit=limit, offset=offset, cursor=cursor, order=order, count=count
            )

    async def record(self, id_: int) -> dict[str, Any] | None:
        """Return the record with this id, as in `Found`; None when there is none."""
        async with self._question("record") as question:
            return await context.by_id(question, id_)

    async def context(
        self, id_: int, *, before: int, after: int, only: tuple[tuple[str, tuple[str, ...]], ...] = ()
    ) -> Context | None:
        """Return the record with this id, and so many before and after it of the same host, service and source.

        `only` is that of a `Filter` for those around it.
        """
        async with self._question("context") as question:
            return await context.context(question, id_, before, after, Filter(only=only))

    async def aggregate(
        self,
        asked: Filter,
        by: Sequence[str],
        of: str | None = None,
        *,
        interval: timedelta | None = None,
        limit: int | None = None,
    ) -> Groups:
        """Count the records of each group of equal values, most first.

        Fields are columns, `level`, or attributes by path, whose values are text; None is for records without it. With
        a field of numbers in `of`, its least, greatest, average and percentiles in each group, too. With an interval,
        each group is counted by bins of time, those of `histogram`. With a limit, only the largest groups are answered.
        """
        async with self._question("aggregate") as question:
            return await aggregate.aggregate(question, asked, by, of, interval, limit, self._max_groups)

    async def histogram(self, asked: Filter, *, interval: timedelta | None = None) -> Histogram:
        """Return counts over time; without an interval, in at most about 100 bins."""
        async with self._question("histogram") as question:
            return await histogram.histogram(question, asked, interval)

    async def patterns(self, asked: Filter, *, limit: int, new_since: datetime | None = None) -> Patterns:
        """Return the most frequent patterns of the newest messages that match, `pattern_records` at most.

        With `new_since`: the patterns of the messages since then, compared with those before; first those that are new,
        then those that rose most. For that the range is widened to a window of the same length right before.
        """
        self._check_limit(limit)
        most = self._pattern_records if new_since is None else self._member_records
        async with self._question("patterns") as question:
            return await patterns.patterns(question, asked, limit, most, new_since)

    async def members(self, asked: Filter) -> Members:
        """Return the pattern of each of the newest records that match, `member_records` at most."""
        async with self._question("members") as question:
            return await patterns.members(question, asked, self._member_records)

    @property
    def damaged_batches(self) -> int:
        """How many packed batches questions could not read since the start; each is in the log, once."""
        return len(self._damaged)

    def _found_damaged(self, batch: int, problem: str) -> None:
        if batch not in self._damaged:
            self._damaged.add(batch)
            log.error("a packed batch cannot be read; answers leave it out", batch=batch, problem=problem)

    def _check_limit(self, limit: int) -> None:
        if not 1 <= limit <= self._max_records:
            raise QueryError(f"limit of {limit}, at least 1 and at most {self._max_records}")

    @asynccontextmanager
    async def _question(self, kind: str) -> AsyncIterator[Question]:
        with self.around(kind):
            question = Question(self._store, self._tables, self._pool, self.timeout, self._found_damaged)
            try:
                async with asyncio.timeout(self.timeout) as clock, self._turns:
                    yield question
            except TimeoutError:
                if clock.expired():
                    raise question.limit_reached() from None
                raise
            finally:
                question.stop()

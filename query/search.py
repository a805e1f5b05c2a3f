"""Search: the first N records by (timestamp, id), exactly, and where to read on."""

import asyncio
import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl

from logagg.query.answers import Filter, Found, Order
from logagg.query.errors import QueryError, refuse_large
from logagg.query.evaluate import columns_needed, microseconds
from logagg.query.plan import BULK, TIMESTAMP, Plan
from logagg.query.question import AT_ONCE, RECORD, Question
from logagg.query.records import to_records
from logagg.query.summaries import promising, totals
from logagg.query.syntax import All, Compare
from logagg.sinks.frames import PLACE_BITS
from logagg.sinks.store import BatchInfo

_KEY = ["timestamp", "id"]
#: Records of a batch that are evaluated first.
_FIRST_SLICE = 4000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ORDERS: dict[str, Order] = {"n": "newest", "o": "oldest"}


class Cursor(NamedTuple):
    """The last record of a page. Ids never change, so what comes behind it is the same at any time."""

    order: Order
    timestamp: datetime
    id: int

    @property
    def bound(self) -> Compare:
        """What holds for the timestamps of all records behind it."""
        return Compare(TIMESTAMP, "<=" if self.order == "newest" else ">=", self.timestamp)

    def __str__(self) -> str:
        plain = f"{self.order[0]}.{microseconds(self.timestamp)}.{self.id}"
        return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")

    @classmethod
    def read(cls, text: str, order: Order) -> Self:
        """Return the cursor that `str` wrote. Raises QueryError when it did not, or for another order."""
        try:
            plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
            kind, time, id_ = plain.split(".")
            cursor = cls(_ORDERS[kind], _EPOCH + timedelta(microseconds=int(time)), int(id_))
        except (binascii.Error, KeyError, OverflowError, ValueError):
            raise QueryError("malformed cursor; give it back as the answer before had it") from None
        if str(cursor) != text:
            raise QueryError("malformed cursor; give it back as the answer before had it")
        if cursor.order != order:
            raise QueryError(f"cursor of a search for the {cursor.order} first, but this one is for the {order}")
        return cursor


class Top:
    """The first `size` records of those that were added, behind a cursor."""

    def __init__(self, size: int, order: Order, after: Cursor | None = None) -> None:
        self._size = size
        self._newest = order == "newest"
        self._after = after
        self._best: pl.DataFrame | None = None

    def order(self, batches: Sequence[BatchInfo]) -> list[BatchInfo]:
        """Sort batches so that the first ones hold the first records; those of unknown times are first."""
        known = [batch for batch in batches if batch.ts_min is not None and batch.ts_max is not None]
        known.sort(key=lambda batch: self._edge(batch) or _EPOCH, reverse=self._newest)
        return [batch for batch in batches if batch.ts_min is None or batch.ts_max is None] + known

    def wants(self, batch: BatchInfo) -> bool:
        """Tell whether records of the batch may be among the first."""
        edge, far_edge = self._edge(batch), batch.ts_min if self._newest else batch.ts_max
        if edge is None or far_edge is None:
            return True
        if self._after and self._before(far_edge, self._after.timestamp):
            return False
        if self._best is None or self._best.height < self._size:
            return True
        worst: datetime = self._best["timestamp"][-1]
        return not self._before(worst, edge)

    def _edge(self, batch: BatchInfo) -> datetime | None:
        return batch.ts_max if self._newest else batch.ts_min

    def _before(self, one: datetime, other: datetime) -> bool:
        """Tell whether records of one time come before those of the other, in this order."""
        return one > other if self._newest else one < other

    def add(self, frame: pl.DataFrame) -> None:
        """Add records with timestamp and id, and the same further columns each time."""
        frame = self.chosen(frame)
        if self._best is not None:
            frame = pl.concat([self._best, frame])
        full = frame.height >= self._size  # until then nobody needs to know which is the last
        self._best = frame.sort(_KEY, descending=self._newest).head(self._size) if full else frame

    def narrowed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Leave out records that cannot be among the first, by what was added until now."""
        best = self._best
        if self._after:
            frame = frame.filter(self._behind(self._after.timestamp, self._after.id))
        if best is not None and best.height == self._size:
            frame = frame.filter(~self._behind(best["timestamp"][-1], best["id"][-1]))
        return frame

    def chosen(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the first records of a frame."""
        frame = self.narrowed(frame)
        if frame.height <= self._size:
            return frame
        return frame.top_k(self._size, by=_KEY) if self._newest else frame.bottom_k(self._size, by=_KEY)

    def found(self, frame: pl.DataFrame, matching: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
        """Return the first of those records of a frame that match.

        The first of all are looked at first: when enough of them match, the others need not be told apart.
        """
        if frame.height > _FIRST_SLICE:
            times = frame["timestamp"].to_physical().to_numpy()
            keys = -times if self._newest else times
            last = np.partition(keys, _FIRST_SLICE)[_FIRST_SLICE]
            found = matching(frame.filter(pl.Series(keys <= last)))  # those of one time stay together
            if found.height >= self._size:
                return self.chosen(found)
        return self.chosen(matching(frame))

    def _behind(self, timestamp: datetime, id_: int) -> pl.Expr:
        """Tell which records come after this place."""
        time, id_column = pl.col("timestamp").to_physical(), pl.col("id")
        at = microseconds(timestamp)
        if self._newest:
            return (time < at) | ((time == at) & (id_column < id_))
        return (time > at) | ((time == at) & (id_column > id_))

    @property
    def records(self) -> pl.DataFrame | None:
        """In order; None when nothing was added."""
        return None if self._best is None else self._best.sort(_KEY, descending=self._newest)


async def search(
    question: Question, asked: Filter, *, limit: int, offset: int, cursor: str | None, order: Order, count: bool
) -> Found:
    """Answer `Engine.search`."""
    after = None if cursor is None else Cursor.read(cursor, order)
    plan, batches = await question.plan(asked, *([] if count or after is None else [after.bound]))
    top = Top(offset + limit + 1, order, after)
    total = await (_counted if count else _looked_up)(question, plan, batches, top)
    found = top.records
    page = None if found is None else found.slice(offset, limit)
    if found is None or page is None or not page.height:
        return Found([], None, total, question.stats)
    last = None
    if found.height > offset + limit:
        last = str(Cursor(order, page["timestamp"][-1], page["id"][-1]))
    return Found(await completed(question, page, batches), last, total, question.stats)


async def first_records(
    question: Question, plan: Plan, batches: Sequence[BatchInfo], limit: int, order: Order, after: Cursor
) -> pl.DataFrame | None:
    """Return timestamp and id of the first records behind a place, in order; None when no batch has any."""
    top = Top(limit, order, after)
    await _looked_up(question, plan, batches, top)
    return top.records


async def _looked_up(question: Question, plan: Plan, batches: Sequence[BatchInfo], top: Top) -> None:
    """Look for the first records, in as few batches as possible."""
    heavy = columns_needed(plan.node) & BULK

    async def work(batch: BatchInfo) -> pl.DataFrame | None:
        if heavy and question.rare:
            found = await question.few(plan, batch, _KEY)
            return None if found is None else top.chosen(found)
        if batch.packed and not heavy and plan.node != All():
            found = await question.matches(plan, batch, _KEY)
            return None if found is None else await question.run(top.chosen, found)
        frame = await question.frame(plan, batch, _KEY)
        return None if frame is None else await question.run(first, frame)

    def first(frame: pl.DataFrame) -> pl.DataFrame:
        frame = top.narrowed(question.matching(plan.light if heavy else plan.node, frame))
        return (top.found(frame, partial(question.matching, plan.node)) if heavy else top.chosen(frame)).select(_KEY)

    await question.each(plan, top.order(await promising(question, plan, batches)), work, top.add, top.wants)


async def _counted(question: Question, plan: Plan, batches: Sequence[BatchInfo], top: Top) -> int:
    """Look for the first records, and return how many match at all."""
    known = await totals(question, plan, batches)
    read = 0

    async def work(batch: BatchInfo) -> tuple[int, int, pl.DataFrame] | None:
        def counted(found: pl.DataFrame) -> tuple[int, int, pl.DataFrame]:
            return batch.batch, found.height, top.chosen(found)

        return await question.reduce(plan, batch, _KEY, counted)

    def take(found: tuple[int, int, pl.DataFrame]) -> None:
        nonlocal read
        known.pop(found[0], None)
        read += found[1]
        top.add(found[2])

    def wanted(batch: BatchInfo) -> bool:
        return batch.batch not in known or top.wants(batch)

    await question.each(plan, top.order(batches), work, take, wanted, otherwise="counted")
    return read + sum(known.values())


async def completed(
    question: Question, keys: pl.DataFrame | None, batches: Sequence[BatchInfo]
) -> list[dict[str, Any]]:
    """Return the records with the ids of a frame, in its order; without those that cannot be read.

    Raises QueryLimit when they are too large for one answer.
    """
    ids: list[int] = [] if keys is None else keys["id"].to_list()
    by_number = {batch.batch: batch for batch in batches}
    wanted: dict[int, list[int]] = {}
    for id_ in ids:
        wanted.setdefault(id_ >> PLACE_BITS, []).append(id_)
    found: dict[int, dict[str, Any]] = {}
    size = 0
    places = list(wanted.items())
    for start in range(0, len(places), AT_ONCE):
        loads = (question.load(by_number[batch], RECORD, some) for batch, some in places[start : start + AT_ONCE])
        for frame in await asyncio.gather(*loads):
            if frame is not None:
                size += int(frame.estimated_size())
                refuse_large(size, f"{len(found) + frame.height} of {len(ids)} records")
                found |= {record["id"]: record for record in to_records(frame)}
    return [found[id_] for id_ in ids if id_ in found]

"""Search: the first N records by (timestamp, id), exactly, and where to read on."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Self

import polars as pl

from logagg.query.answers import Filter, Found, Order
from logagg.query.errors import QueryError
from logagg.query.evaluate import columns_needed, microseconds
from logagg.query.plan import TIMESTAMP
from logagg.query.question import RECORD, Question
from logagg.query.records import to_records
from logagg.query.syntax import Compare
from logagg.sinks.frames import PLACE_BITS
from logagg.sinks.store import BatchInfo

_KEY = ["timestamp", "id"]
_BODY = {"message", "attributes"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ORDERS: dict[str, Order] = {"n": "newest", "o": "oldest"}


class Cursor(NamedTuple):
    """The last record of a page. Ids never change, so what comes behind it is the same at any time."""

    order: Order
    timestamp: datetime
    id: int

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

    def order(self, batches: list[BatchInfo]) -> list[BatchInfo]:
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

    def add(self, frame: pl.DataFrame) -> int:
        """Add records with at least timestamp and id; return how many there were."""
        height = frame.height
        if self._after:
            frame = frame.filter(self._behind(self._after))
        choose = frame.top_k if self._newest else frame.bottom_k
        if frame.height > self._size:
            frame = choose(self._size, by=_KEY)
        if self._best is not None:
            frame = pl.concat([self._best, frame.select(self._best.columns)])
        self._best = frame.sort(_KEY, descending=self._newest).head(self._size)
        return height

    def _behind(self, after: Cursor) -> pl.Expr:
        time, id_ = pl.col("timestamp").to_physical(), pl.col("id")
        at = microseconds(after.timestamp)
        if self._newest:
            return (time < at) | ((time == at) & (id_ < after.id))
        return (time > at) | ((time == at) & (id_ > after.id))

    @property
    def records(self) -> pl.DataFrame | None:
        """In order; None when nothing was added."""
        return self._best


async def search(
    question: Question, asked: Filter, *, limit: int, offset: int, cursor: str | None, order: Order, count: bool
) -> Found:
    """Answer `Engine.search`."""
    after = None if cursor is None else Cursor.read(cursor, order)
    narrowed = (
        [] if count or after is None else [Compare(TIMESTAMP, "<=" if order == "newest" else ">=", after.timestamp)]
    )
    plan, batches = await question.plan(asked, *narrowed)
    # Where the condition looks into the bulk of the columns, the rest comes along; else only places are collected.
    complete = bool(columns_needed(plan.node) & _BODY) and not offset and not count
    top, total = Top(offset + limit + 1, order, after), 0
    for batch in top.order(batches):
        if top.wants(batch):
            total += await question.reduce(plan, batch, RECORD if complete else _KEY, top.add)
        elif not count:
            question.stats.skip("order")
        elif (matching := plan.whole(batch)) is not None:
            question.stats.skip("counted")
            total += matching
        else:
            total += await question.reduce(plan, batch, (), _height)
    found = top.records
    page = None if found is None else found.slice(offset, limit)
    if found is None or page is None or not page.height:
        return Found([], None, total if count else None, question.stats)
    more = found.height > offset + limit
    if not complete:
        page = await _completed(question, page, batches)
    records = await question.run(to_records, page)
    last = Cursor(order, records[-1]["timestamp"], records[-1]["id"]) if more and records else None
    return Found(records, str(last) if last else None, total if count else None, question.stats)


def _height(frame: pl.DataFrame) -> int:
    return frame.height


async def _completed(question: Question, places: pl.DataFrame, batches: list[BatchInfo]) -> pl.DataFrame:
    """Return the records in these places, with all columns, in the order of the places."""
    by_number = {batch.batch: batch for batch in batches}
    numbers = places.with_columns(batch=pl.col("id") // (1 << PLACE_BITS))
    parts = []
    for (number,), wanted in numbers.group_by("batch", maintain_order=True):
        frame = await question.load(by_number[number], RECORD)
        parts.append(await question.run(_taken, frame, wanted["id"]))
    return places.select("id").join(pl.concat(parts), on="id", how="inner", maintain_order="left")


def _taken(frame: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    return frame.filter(pl.col("id").is_in(ids.implode()))

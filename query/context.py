"""One record by its id, and what the same source wrote around it.

An id says which batch the record is in. Its neighbours are found by two searches that begin at the record and walk away
from it, so they read the batches around it and no others.
"""

from typing import Any

from logagg.query.answers import Context, Filter, Order
from logagg.query.question import RECORD, Question
from logagg.query.records import to_records
from logagg.query.search import Cursor, completed, first_records
from logagg.query.syntax import Equal, Exists, Field, Node, Not
from logagg.sinks.frames import PLACE_BITS

#: Neighbours agree in these columns, and have no value where the record has none.
SAME = ("host", "service", "source")


async def by_id(question: Question, id_: int) -> dict[str, Any] | None:
    """Answer `Engine.record`."""
    batch = await question.batch(id_ >> PLACE_BITS)
    frame = None if batch is None else await question.load(batch, RECORD, [id_])
    return None if frame is None or not frame.height else to_records(frame)[0]


async def context(question: Question, id_: int, before: int, after: int, among: Filter) -> Context | None:
    """Answer `Engine.context`."""
    record = await by_id(question, id_)
    if record is None:
        return None
    older = await _neighbours(question, record, "newest", before, among)
    newer = await _neighbours(question, record, "oldest", after, among)
    return Context(older[::-1], record, newer, question.stats)


async def _neighbours(
    question: Question, record: dict[str, Any], order: Order, limit: int, among: Filter
) -> list[dict[str, Any]]:
    """Return those that come behind a record in this order, the nearest first."""
    if not limit:
        return []
    cursor = Cursor(order, record["timestamp"], record["id"])
    plan, batches = await question.plan(among, cursor.bound, *(_same(name, record[name]) for name in SAME))
    top = await first_records(question, plan, batches, limit, order, cursor)
    return await completed(question, top, batches)


def _same(name: str, value: str | None) -> Node:
    field = Field(name, False)
    return Not(Exists(field)) if value is None else Equal(field, (value,))

"""Counts from the summaries of packed batches: by minute, environment, service and severity.

A summary answers for its batch when the condition looks at nothing else, and its bounds of time do not cut through a
minute with records in it.
"""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from logagg.query.evaluate import columns_needed, evaluate, microseconds
from logagg.query.plan import TIMESTAMP, Plan
from logagg.query.question import Question
from logagg.query.syntax import All, Compare, Node, all_of, conjuncts
from logagg.query.tables import COLUMNS, MINUTE, Table
from logagg.sinks.store import BatchInfo

T = TypeVar("T")

#: Batches of which a search asks the summaries before it begins; beyond, the head tells whether to read the body.
_MOST_TOLD = 2000
_FIRST, _LAST = -(1 << 62), 1 << 62


class Summed(NamedTuple, Generic[T]):
    """What summaries answer: something of the records that match, in parts, and the batches that have to be read."""

    parts: list[T]
    left: Sequence[BatchInfo]


async def summed(
    question: Question, plan: Plan, batches: Sequence[BatchInfo], counted: Callable[[Table], T]
) -> Summed[T]:
    """Count the records that match, as far as summaries can tell: `counted` gets the counts of some batches at a time.

    There is one part at least.
    """
    others, first, last = _split(plan.node)
    parts: list[T] = []
    answered: set[int] = set()
    if columns_needed(others) <= set(COLUMNS):
        known = [batch for batch in batches if batch.packed and batch.ts_min and batch.ts_max]
        async with aclosing(question.tables(known)) as tables:
            async for group, table in tables:
                found = await question.run(_matching, table, group, others, first, last)
                answered |= found.batches
                parts.append(await question.run(counted, found))
    return Summed(parts or [counted(Table.of({}))], [batch for batch in batches if batch.batch not in answered])


async def totals(question: Question, plan: Plan, batches: Sequence[BatchInfo]) -> dict[int, int]:
    """Return by batch how many records match, for those batches that need not be read to tell."""
    found = {batch.batch: count for batch in batches if (count := plan.whole(batch)) is not None}
    rest = [batch for batch in batches if batch.batch not in found]
    for part in (await summed(question, plan, rest, Table.by_batch)).parts if rest else ():
        found |= part
    return found


async def promising(question: Question, plan: Plan, batches: Sequence[BatchInfo]) -> Sequence[BatchInfo]:
    """Leave out the batches whose summaries have no record of the environments, services and levels asked for."""
    told = all_of([part for part in conjuncts(plan.node) if columns_needed(part) <= set(COLUMNS)])
    if told == All():
        return batches
    without: set[int] = set()
    async with aclosing(question.tables([batch for batch in batches if batch.packed][:_MOST_TOLD])) as tables:
        async for _, table in tables:
            without |= await question.run(_without, table, told)
    question.stats.skip("summary", len(without))
    return [batch for batch in batches if batch.batch not in without]


def _without(table: Table, told: Node) -> set[int]:
    held = np.unique(table.batch[evaluate(told, table.groups).to_numpy()[table.group]])
    return set(table.batches) - set(held.tolist())


def _split(node: Node) -> tuple[Node, int, int]:
    """Take the bounds of the timestamp, in microseconds and inclusive, out of a condition."""
    others, first, last = [], _FIRST, _LAST
    for part in conjuncts(node):
        if isinstance(part, Compare) and part.field == TIMESTAMP and isinstance(part.value, datetime):
            at = microseconds(part.value)
            if part.operator in (">", ">=", "="):
                first = max(first, at + (part.operator == ">"))
            if part.operator in ("<", "<=", "="):
                last = min(last, at - (part.operator == "<"))
        else:
            others.append(part)
    return all_of(others), first, last


def _matching(table: Table, batches: Sequence[BatchInfo], others: Node, first: int, last: int) -> Table:
    """Return the counts of records that match, of the batches of which the table can tell."""
    mask = evaluate(others, table.groups).to_numpy()[table.group]
    bounds = {b.batch: (microseconds(b.ts_min), microseconds(b.ts_max)) for b in batches if b.ts_min and b.ts_max}
    cut: set[int] = set()
    if any(least < first or greatest > last for least, greatest in bounds.values()):
        # A minute's records lie between its ends, and between those of the batch.
        starts = np.flatnonzero(np.diff(table.batch, prepend=-1))
        ends = np.array([bounds[number] for number in table.batch[starts].tolist()], dtype=np.int64).reshape(-1, 2)
        ends = np.repeat(ends, np.diff(starts, append=len(table.batch)), axis=0)
        start = table.minute * MINUTE
        least, greatest = np.maximum(start, ends[:, 0]), np.minimum(start + (MINUTE - 1), ends[:, 1])
        inside, outside = (least >= first) & (greatest <= last), (greatest < first) | (least > last)
        cut = set(np.unique(table.batch[mask & ~inside & ~outside]).tolist())
        mask &= inside & ~np.isin(table.batch, list(cut))
    return table.only(mask, table.batches - cut)

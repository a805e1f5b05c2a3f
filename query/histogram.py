"""Counts over time by level.

Counting is sparse: only bins with a record in them take memory, so no timestamp, however absurd, makes many. Without an
interval, records are counted by the second; when that gives too many bins, by the minute, the hour, the day. At the end
the interval is chosen that shows what was found in at most `WISHED` bins.

Where the question leaves an end of the range open, the range of what was found is shown. Should that be longer than
`LONG`, it may be due to a few clocks that were wrong: then only the stretch with the most records is shown that has no
gap longer than `GAP`, and what lies before and after it is counted there, not dropped.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

import polars as pl

from logagg.protocols.record import LEVELS
from logagg.query.answers import Bin, Filter, Histogram, Stats
from logagg.query.errors import QueryError
from logagg.query.evaluate import microseconds
from logagg.query.plan import Plan
from logagg.query.question import Question
from logagg.query.summaries import summed
from logagg.query.tables import MINUTE, Table
from logagg.sinks.frames import TIME
from logagg.sinks.store import BatchInfo

MAX_BINS = 10_000
WISHED = 100
LONG = timedelta(days=100)
GAP = timedelta(days=30)

_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
#: Widths of bins that people read well, in microseconds.
_LADDER = [
    seconds * _SECOND
    for seconds in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
]
#: Steps of counting: every longer width of the ladder is a multiple.
_STEPS = (_SECOND, 60 * _SECOND, 3600 * _SECOND, _DAY)
_COARSER = 50_000
#: In a longer time bins are never shorter than a minute.
_SHORT = 60 * 60 * _SECOND
_SHORTEST = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_1 = microseconds(datetime.min.replace(tzinfo=UTC))
_MICROSECOND = timedelta(microseconds=1)
_LONG, _GAP = LONG // _MICROSECOND, GAP // _MICROSECOND
_NONE = pl.DataFrame(schema={"start": pl.Int64, "severity": pl.Int8, "count": pl.Int64})


class _Span(NamedTuple):
    """Microseconds since 1970, both inclusive."""

    first: int
    last: int

    def bins(self, width: int) -> int:
        return self.last // width - self.first // width + 1


async def histogram(question: Question, asked: Filter, interval: timedelta | None) -> Histogram:
    """Answer `Engine.histogram`."""
    width = None if interval is None else width_of(interval)
    plan, batches = await question.plan(asked)
    if width and plan.start and plan.end:
        _refuse_many(_Span(microseconds(plan.start), microseconds(plan.end)), width)
    known, left = _NONE, batches
    if width is None or width % MINUTE == 0:
        known, left = await _known(question, plan, batches, width or MINUTE)
    used, coarsen = len(batches) - len(left), width is None
    step = width or (MINUTE if used else _STEPS[0])
    counts, step = await _read(question, plan, left, known, step, coarsen=coarsen)
    if used and coarsen and _short(_span(counts, plan)):
        counts, step = await _read(question, plan, batches, _NONE, _STEPS[0], coarsen=True)
    elif used:
        question.stats.skip("counted", used)
    return await question.run(_drawn, counts, plan, step, width, question.stats)


async def _known(
    question: Question, plan: Plan, batches: Sequence[BatchInfo], step: int
) -> tuple[pl.DataFrame, Sequence[BatchInfo]]:
    """Return what summaries know, and the batches left."""
    parts, left = await summed(question, plan, batches, partial(Table.by_time, step=step))
    return _summed(pl.concat(parts), step) if len(parts) > 1 else parts[0], left


async def _read(
    question: Question, plan: Plan, batches: Sequence[BatchInfo], counts: pl.DataFrame, step: int, *, coarsen: bool
) -> tuple[pl.DataFrame, int]:
    """Add what batches hold to counts of this step; without an interval, steps may become longer."""

    async def work(batch: BatchInfo) -> pl.DataFrame | None:
        return await question.reduce(plan, batch, ("timestamp", "severity"), partial(_counted, width=step))

    def take(part: pl.DataFrame) -> None:
        nonlocal counts, step
        counts, step = _added(counts, part, step, coarsen)

    await question.each(plan, batches, work, take)
    return counts, step


def width_of(interval: timedelta) -> int:
    """Return the width of a bin in microseconds. Raises QueryError for one that is too small."""
    width = interval // _MICROSECOND
    if width < _SHORTEST:
        raise QueryError(f"interval of {interval.total_seconds():g} s, at least {_SHORTEST / _SECOND:g} s")
    return width


def bin_of(width: int) -> pl.Expr:
    """Return for each timestamp the first microsecond since 1970 of its bin."""
    return pl.col("timestamp").to_physical() // width * width


def starts(bins: pl.Expr) -> pl.Expr:
    """Return the start of each bin as a time, the first there is for one that would be before it."""
    return bins.clip(_YEAR_1).cast(TIME)


def _counted(frame: pl.DataFrame, width: int) -> pl.DataFrame:
    """Return the counts by start of the bin and severity."""
    return frame.group_by(bin_of(width).alias("start"), "severity").agg(pl.len().cast(pl.Int64).alias("count"))


def _added(counts: pl.DataFrame, part: pl.DataFrame, step: int, coarsen: bool) -> tuple[pl.DataFrame, int]:
    """Add counts of the same step; go to a coarser one when they become many."""
    counts = _summed(pl.concat([counts, part]), step)
    while coarsen and counts.height > _COARSER and step < _STEPS[-1]:
        step = _STEPS[_STEPS.index(step) + 1]
        counts = _summed(counts, step)
    if not coarsen and counts.height > MAX_BINS * len(LEVELS):
        raise QueryError(f"more than {MAX_BINS} bins of {step / _SECOND:g} s; ask for longer bins, or less time")
    return counts, step


def _summed(counts: pl.DataFrame, width: int) -> pl.DataFrame:
    """Add up the counts of each bin of this width."""
    return counts.group_by(pl.col("start") // width * width, "severity").agg(pl.col("count").sum())


def _drawn(counts: pl.DataFrame, plan: Plan, step: int, width: int | None, stats: Stats) -> Histogram:
    """Turn the counts into bins without gaps."""
    span = _span(counts, plan)
    width = width or _chosen(span, step)
    if span is None:
        return Histogram(timedelta(microseconds=width), [], 0, 0, 0, stats)
    _refuse_many(span, width)
    first, end = span.first // width * width, span.last // width * width + width
    total, before, after = (
        int(counts.filter(part)["count"].sum()) for part in (True, pl.col("start") < first, pl.col("start") >= end)
    )
    inside = counts.filter(pl.col("start").is_between(first, end, closed="left"))
    levels: dict[int, dict[str, int]] = {}
    for at, severity, count in _summed(inside, width).sort("start", "severity").iter_rows():
        levels.setdefault(at, {})[LEVELS[severity]] = count
    bins = [_bin(at, levels.get(at, {})) for at in range(first, end, width)]
    return Histogram(timedelta(microseconds=width), bins, before, after, total, stats)


def _bin(at: int, levels: dict[str, int]) -> Bin:
    start = _EPOCH + timedelta(microseconds=max(at, _YEAR_1))
    return Bin(start, sum(levels.values()), levels)


def _span(counts: pl.DataFrame, plan: Plan) -> _Span | None:
    """Return the range to show: that of the question, and where it has none, that of what was found."""
    starts = counts.group_by("start").agg(pl.col("count").sum()).sort("start")
    given_first, given_last = (None if moment is None else microseconds(moment) for moment in (plan.start, plan.end))
    if given_first is not None and given_last is not None:
        return _Span(given_first, given_last) if given_first <= given_last else None
    if not starts.height:
        return None
    found = _Span(starts["start"][0], starts["start"][-1])
    for shown in (found, _busiest(starts)):
        first = shown.first if given_first is None else given_first
        last = shown.last if given_last is None else given_last
        if last - first <= _LONG:
            break
    return _Span(first, max(first, last))


def _short(span: _Span | None) -> bool:
    """Tell whether bins of seconds may be what shows a range best."""
    return span is None or span.last - span.first < _SHORT


def _busiest(starts: pl.DataFrame) -> _Span:
    """Return the stretch without a long gap that holds the most records; of two the later one."""
    gap = pl.col("start").diff().fill_null(0) > _GAP
    stretches = (
        starts.group_by(gap.cum_sum().alias("stretch"))
        .agg(pl.col("start").min().alias("first"), pl.col("start").max().alias("last"), pl.col("count").sum())
        .sort("count", "last")
    )
    return _Span(stretches["first"][-1], stretches["last"][-1])


def _chosen(span: _Span | None, step: int) -> int:
    """Return the least width of the ladder, or the least number of days, that needs at most `WISHED` bins."""
    if span is None:
        return step
    for width in _LADDER:
        if width >= step and span.bins(width) <= WISHED:
            return width
    days = -(-(span.last - span.first + 1) // _DAY)
    return -(-days // (WISHED - 1)) * _DAY


def _refuse_many(span: _Span, width: int) -> None:
    bins = span.bins(width)
    if bins > MAX_BINS:
        raise QueryError(f"{bins} bins of {width / _SECOND:g} s, at most {MAX_BINS}; ask for longer bins, or less time")

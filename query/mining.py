"""Patterns of the records that match: what `patterns.mine` makes of their messages, with counts and times."""

from typing import Any

import polars as pl

from logagg.protocols.record import LEVELS
from logagg.query.answers import Filter, Pattern, Patterns
from logagg.query.patterns import mine
from logagg.query.question import Question
from logagg.query.search import Top
from logagg.sinks.store import BatchInfo

SERVICES = 10
_COLUMNS = ("id", "timestamp", "severity", "service", "message")


async def patterns(question: Question, asked: Filter, limit: int, max_messages: int) -> Patterns:
    """Answer `Engine.patterns`."""
    plan, batches = await question.plan(asked)
    top = Top(max_messages + 1, "newest")

    async def work(batch: BatchInfo) -> pl.DataFrame | None:
        return await question.reduce(plan, batch, _COLUMNS, top.chosen)

    await question.each(plan, top.order(batches), work, top.add, top.wants)
    if top.records is None:
        return Patterns([], 0, False, question.stats)
    messages = top.records.head(max_messages)
    found = await question.run(_mined, messages, limit)
    return Patterns(found, messages.height, top.records.height > max_messages, question.stats)


def _mined(records: pl.DataFrame, limit: int) -> list[Pattern]:
    """Return the most frequent patterns of records that come newest first."""
    mined = mine(records["message"].to_list())
    labelled = records.with_columns(pl.Series("label", mined.labels, dtype=pl.Int64))
    time = pl.col("timestamp")
    groups = labelled.group_by("label").agg(
        pl.len().alias("count"),
        time.min().alias("first_seen"),
        time.max().alias("last_seen"),
        pl.col("message").first().alias("example"),
        pl.col("service").drop_nulls().value_counts(sort=True).alias("services"),
        pl.col("severity").value_counts().alias("severities"),
    )
    # Labels are in the order of templates: the result does not depend on how records came in.
    best = groups.sort(["count", "label"], descending=[True, False]).head(limit)
    return [_pattern(mined.templates[group["label"]], group) for group in best.iter_rows(named=True)]


def _pattern(template: str, group: dict[str, Any]) -> Pattern:
    services = sorted(group["services"], key=lambda each: (-each["count"], each["service"]))
    severities = sorted(group["severities"], key=lambda each: each["severity"])
    return Pattern(
        template=template,
        count=group["count"],
        first_seen=group["first_seen"],
        last_seen=group["last_seen"],
        services=[each["service"] for each in services[:SERVICES]],
        example=group["example"],
        levels={LEVELS[each["severity"]]: each["count"] for each in severities},
    )
